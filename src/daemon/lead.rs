//! Connections of the supervisor's own that reach one chosen worker: for the time of the handshake the
//! steering program leads each to its worker's socket, and everybody else's where they go anyway.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use mio::net::TcpStream;

use crate::supervisor::event::{Address, SocketId, Spot, Spread};
use crate::sys::{listen, steer};

use super::Daemon;
use super::perform::program;
use super::relay::reachable;

/// Connections of one group that can be led at a time. A program has room for 2560 steps of eight bytes
/// (net.core.optmem_max is 20 KiB before Linux 6.7): eight for each of these, and two for each of a thousand
/// workers.
const MOST: usize = 64;

/// Who is led where.
#[derive(Debug, Default)]
pub(super) struct Leads {
    groups: BTreeMap<Address, Group>,
}

#[derive(Debug)]
struct Group {
    socket: SocketId,
    active: Spread,
    led: Vec<(SocketAddr, u32)>,
}

/// A connection on its way.
#[derive(Debug)]
pub(super) struct Led {
    pub(super) stream: TcpStream,
    pub(super) address: Address,
    /// Our own end.
    pub(super) client: SocketAddr,
}

impl Leads {
    /// A group was steered anew: the exceptions are gone from its program.
    pub(super) fn steered(&mut self, address: Option<Address>) {
        if let Some(address) = address {
            self.groups.remove(&address);
        }
    }

    fn group_of(&self, client: SocketAddr) -> Option<Address> {
        let led = |group: &Group| group.led.iter().any(|(other, _)| *other == client);
        self.groups.iter().find(|(_, group)| led(group)).map(|(address, _)| *address)
    }
}

impl Daemon {
    /// Begins a connection to this worker's socket and to no other.
    ///
    /// # Errors
    /// Where the host refuses, or too many are led at a time.
    pub(super) fn begin_led(&mut self, spot: &Spot) -> io::Result<Led> {
        let Some(held) = self.sockets.get(spot.socket) else {
            return Err(io::Error::other("its socket is closed"));
        };
        let address = held.address;
        let Some(to) = reachable(address).filter(|_| !held.shared) else {
            return Err(io::Error::other(format!(
                "all workers share {address}: no connection reaches one alone"
            )));
        };
        // Bound first, and to the host's own address that it goes to: the program must know the connection
        // before its first packet is sent.
        let (stream, client) = listen::client(SocketAddr::new(to.ip(), 0))?;
        let group = self.probes.leads.groups.entry(address).or_insert_with(|| Group {
            socket: spot.socket,
            active: Spread::default(),
            led: Vec::new(),
        });
        if group.led.len() >= MOST {
            return Err(io::Error::other("too many connections of our own are under way"));
        }
        group.socket = spot.socket;
        group.active.clone_from(&spot.active);
        group.led.push((client, spot.position));
        let begun = steer::steer_but(held.fd.as_fd(), &program(&group.active), &group.led)
            .and_then(|()| listen::begin(stream.as_fd(), to));
        if let Err(error) = begun {
            self.end_lead(client);
            return Err(error);
        }
        Ok(Led { stream: TcpStream::from_std(stream.into()), address, client })
    }

    /// The handshake is over, or given up.
    pub(super) fn end_lead(&mut self, client: SocketAddr) {
        let Some(address) = self.probes.leads.group_of(client) else { return };
        let Some(group) = self.probes.leads.groups.get_mut(&address) else { return };
        group.led.retain(|(other, _)| *other != client);
        let steered = match self.sockets.fd(group.socket) {
            Some(fd) if group.led.is_empty() => steer::steer(fd, &program(&group.active)),
            Some(fd) => steer::steer_but(fd, &program(&group.active), &group.led),
            None => Ok(()),
        };
        if let Err(error) = steered {
            log::error!("cannot steer new connections to positions {:?}: {error}", group.active.positions());
        }
        if group.led.is_empty() {
            self.probes.leads.groups.remove(&address);
        }
    }
}
