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
    led: Vec<Exception>,
}

/// One connection whose handshake is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    client: SocketAddr,
    to: SocketId,
    position: u32,
}

impl Group {
    /// As the program has them.
    fn exceptions(&self) -> Vec<(SocketAddr, u32)> {
        self.led.iter().map(|led| (led.client, led.position)).collect()
    }

    /// The array has changed: who has moved in it, and who is not there any more.
    fn move_all(&mut self, position_of: impl Fn(SocketId) -> Option<u32>) {
        self.led.retain_mut(|led| match position_of(led.to) {
            Some(position) => {
                led.position = position;
                true
            }
            None => false,
        });
    }
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
    fn group_of(&self, client: SocketAddr) -> Option<Address> {
        let led = |group: &Group| group.led.iter().any(|led| led.client == client);
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
            // As where the host lacks something: it says nothing of the worker.
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "too many connections of our own are under way",
            ));
        }
        group.socket = spot.socket;
        group.active.clone_from(&spot.active);
        group.led.push(Exception { client, to: spot.socket, position: spot.position });
        let begun = steer::steer_but(held.fd.as_fd(), &program(&group.active), &group.exceptions())
            .and_then(|()| listen::begin(stream.as_fd(), to));
        if let Err(error) = begun {
            self.end_lead(client);
            return Err(error);
        }
        Ok(Led { stream: TcpStream::from_std(stream.into()), address, client })
    }

    /// Steers a group anew, by this socket of it: what is led goes on where it goes, wherever that is in the array
    /// by now.
    pub(super) fn steer_anew(&mut self, socket: SocketId, active: &Spread) -> io::Result<()> {
        let Some(held) = self.sockets.get(socket) else { return Ok(()) };
        let fd = held.fd.as_fd();
        let Some(group) = self.probes.leads.groups.get_mut(&held.address) else {
            return steer::steer(fd, &program(active));
        };
        group.socket = socket;
        group.active.clone_from(active);
        group.move_all(|socket| self.supervisor.position_of(socket));
        steer::steer_but(fd, &program(active), &group.exceptions()).or_else(|error| {
            // Everybody else's connections come first.
            log::debug!("our own connections are led no further: {error}");
            group.led.clear();
            steer::steer(fd, &program(active))
        })
    }

    /// A socket has left its group's array, and the last one has its place: what is led goes on.
    pub(super) fn lead_on(&mut self, address: Address) {
        let Some(group) = self.probes.leads.groups.get_mut(&address) else { return };
        group.move_all(|socket| self.supervisor.position_of(socket));
        let Some(socket) = group.led.first().map(|led| led.to) else { return };
        let active = group.active.clone();
        let steered = self.steer_anew(socket, &active);
        self.note_steered(socket, &active, steered);
    }

    /// The handshake is over, or given up.
    pub(super) fn end_lead(&mut self, client: SocketAddr) {
        let Some(address) = self.probes.leads.group_of(client) else { return };
        let Some(group) = self.probes.leads.groups.get_mut(&address) else { return };
        group.led.retain(|led| led.client != client);
        let steered = match self.sockets.fd(group.socket) {
            Some(fd) if group.led.is_empty() => steer::steer(fd, &program(&group.active)),
            Some(fd) => steer::steer_but(fd, &program(&group.active), &group.exceptions()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_led_is_led_on_where_its_socket_is_by_now() {
        let led = |port, to, position| Exception {
            client: SocketAddr::from(([127, 0, 0, 1], port)),
            to: SocketId(to),
            position,
        };
        let (socket, active) = (SocketId(1), Spread::default());
        let mut group = Group { socket, active, led: vec![led(1, 1, 0), led(2, 2, 1), led(3, 3, 2)] };
        // The second has left, and the third has its place.
        group.move_all(|socket| match socket.0 {
            1 => Some(0),
            3 => Some(1),
            _ => None,
        });
        assert_eq!(group.led, [led(1, 1, 0), led(3, 3, 1)]);
    }
}
