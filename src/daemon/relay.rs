//! Connections that were stranded in a dead worker's queue: accepted here, and carried to a live
//! worker through the shared address. Only those few ever pass through the supervisor.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::supervisor::event::{Address, Event, SocketId};
use crate::supervisor::time::Time;
use crate::sys::connections::{self, State};
use crate::sys::listen;

use super::{Daemon, Source};

/// Connections carried at once; the rest wait in the queue.
const LIMIT: usize = 1024;

/// Bytes kept per direction.
const BUFFER: usize = 16 * 1024;

/// How often a queue is looked at again while handshakes towards it are under way.
const AGAIN: Duration = Duration::from_millis(20);

/// How long such handshakes are waited for.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(3);

/// Everything that is being relayed.
#[derive(Debug, Default)]
pub(super) struct Relays {
    pairs: HashMap<u64, Pair>,
    next: u64,
    /// Sockets whose queue is being emptied.
    emptying: HashMap<SocketId, Emptying>,
}

#[derive(Debug)]
struct Emptying {
    since: Time,
    look_at: Time,
    handshakes: Option<HashSet<u64>>,
}

/// Which end of a pair something happened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Client,
    Worker,
}

#[derive(Debug)]
struct Pair {
    client: Side,
    worker: Side,
}

#[derive(Debug)]
struct Side {
    stream: TcpStream,
    token: Token,
    /// Read from this side, not yet written to the other.
    pending: Vec<u8>,
    /// This side has sent its end of file.
    ended: bool,
    /// The end of file was passed on to this side.
    told: bool,
}

impl Relays {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.emptying.values().map(|e| e.look_at).min()
    }

    pub(super) fn count(&self) -> usize {
        self.pairs.len()
    }
}

impl Daemon {
    /// Begins to empty a socket's queue. Answered by `Relayed` when nobody waits in it any more.
    pub(super) fn relay(&mut self, socket: SocketId, now: Time) {
        let entry = Emptying { since: now, look_at: now, handshakes: None };
        self.relays.emptying.insert(socket, entry);
        self.empty_queue(socket, now);
    }

    /// Looks again at the queues whose time has come.
    pub(super) fn look_at_queues(&mut self, now: Time) {
        let due: Vec<SocketId> = self
            .relays
            .emptying
            .iter()
            .filter(|(_, e)| e.look_at <= now)
            .map(|(socket, _)| *socket)
            .collect();
        for socket in due {
            self.empty_queue(socket, now);
        }
    }

    pub(super) fn forget_queue(&mut self, socket: SocketId) {
        self.relays.emptying.remove(&socket);
    }

    fn empty_queue(&mut self, socket: SocketId, now: Time) {
        if let Err(error) = self.carry_all(socket) {
            log::warn!("connections of a worker that died could not be carried over: {error}");
        }
        let full = self.relays.count() >= LIMIT;
        let under_way = full || self.handshakes_towards(socket, now) > 0;
        let Some(emptying) = self.relays.emptying.get_mut(&socket) else { return };
        if under_way && now.since(emptying.since) < HANDSHAKE_PATIENCE {
            emptying.look_at = now + AGAIN;
        } else {
            self.relays.emptying.remove(&socket);
            self.inbox.push_back(Event::Relayed { socket });
        }
    }

    fn handshakes_towards(&mut self, socket: SocketId, _now: Time) -> usize {
        let Some(port) = self.sockets.get(socket).map(|held| held.address.port) else { return 0 };
        let Some(diagnostics) = self.diagnostics.as_mut() else { return 0 };
        let Ok(all) = diagnostics.dump(port, connections::CONNECTIONS) else { return 0 };
        let current: HashSet<u64> =
            all.iter().filter(|c| c.state == State::SynReceived).map(|c| c.cookie).collect();
        let Some(emptying) = self.relays.emptying.get_mut(&socket) else { return 0 };
        let left: HashSet<u64> = match emptying.handshakes.take() {
            None => current,
            Some(before) => before.intersection(&current).copied().collect(),
        };
        let count = left.len();
        emptying.handshakes = Some(left);
        count
    }

    fn carry_all(&mut self, socket: SocketId) -> io::Result<()> {
        while self.relays.count() < LIMIT {
            let Some(held) = self.sockets.get(socket) else { return Ok(()) };
            let target = reachable(held.address);
            let Some(client) = listen::accept(held.fd.as_fd())? else { return Ok(()) };
            self.carry(client, target)?;
        }
        Ok(())
    }

    fn carry(&mut self, client: OwnedFd, target: SocketAddr) -> io::Result<()> {
        let client = TcpStream::from_std(std::net::TcpStream::from(client));
        let worker = TcpStream::connect(target)?;
        self.relays.next += 1;
        let id = self.relays.next;
        let client = self.side(client, Source::Relay(id, End::Client))?;
        let worker = self.side(worker, Source::Relay(id, End::Worker))?;
        self.relays.pairs.insert(id, Pair { client, worker });
        Ok(())
    }

    fn side(&mut self, mut stream: TcpStream, source: Source) -> io::Result<Side> {
        let token = self.tokens.allot(source);
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Side { stream, token, pending: Vec::new(), ended: false, told: false })
    }

    /// Moves what can be moved between the two ends of a pair.
    pub(super) fn pump_relay(&mut self, id: u64) {
        let Some(pair) = self.relays.pairs.get_mut(&id) else { return };
        let forth = transfer(&mut pair.client, &mut pair.worker);
        let back = transfer(&mut pair.worker, &mut pair.client);
        let finished = pair.client.told && pair.worker.told;
        if (forth.is_err() || back.is_err() || finished)
            && let Some(pair) = self.relays.pairs.remove(&id)
        {
            self.drop_pair(pair);
        }
    }

    fn drop_pair(&mut self, mut pair: Pair) {
        for side in [&mut pair.client, &mut pair.worker] {
            deregister(self.poll.registry(), &mut side.stream);
            self.tokens.release(side.token);
        }
    }
}

fn deregister(registry: &Registry, stream: &mut TcpStream) {
    if let Err(error) = registry.deregister(stream) {
        log::debug!("relay: {error}");
    }
}

/// Reads from one side as far as the other takes it; passes the end of file on.
fn transfer(from: &mut Side, to: &mut Side) -> io::Result<()> {
    loop {
        while !from.pending.is_empty() {
            match to.stream.write(&from.pending) {
                Ok(written) => drop(from.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if not_yet(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if from.ended {
            if !to.told {
                to.stream.shutdown(Shutdown::Write)?;
                to.told = true;
            }
            return Ok(());
        }
        let mut buffer = [0; BUFFER];
        match from.stream.read(&mut buffer) {
            Ok(0) => from.ended = true,
            Ok(length) => from.pending.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if not_yet(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The connection to the worker may still be under way.
fn not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// Where a socket that listens at this address can be reached from its own host. A dual-stack wildcard
/// is reached by IPv4, which works where the loopback device has no IPv6 address too.
fn reachable(address: Address) -> SocketAddr {
    let ip = match address.ip {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V6(_) if address.v6only => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(_) | IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    SocketAddr::new(ip, address.port)
}
