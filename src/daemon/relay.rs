//! Connections that were stranded in a dead worker's queue: accepted here, and carried to a live
//! worker through the shared address. Only those few ever pass through the supervisor.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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

/// Reads from one side in one turn of the loop.
const READS_PER_TURN: usize = 16;

/// How often a queue is looked at again while handshakes towards it are under way.
const AGAIN: Duration = Duration::from_millis(20);

/// How long such handshakes are waited for.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(3);

/// How long a queue that cannot be emptied (no descriptor, too many at once) is tried.
const QUEUE_PATIENCE: Duration = Duration::from_secs(30);

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
    /// The way to the worker is open.
    connected: bool,
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
        if let Some((fd, owner)) = self.sockets.get(socket).map(|held| (held.fd.as_fd(), held.owner)) {
            let (hurried, hidden) = withdraw(fd);
            if let Err(error) = hurried {
                log::warn!(
                    "{}: accepting from its queue may take the supervisor's time: it cannot be bounded ({error})",
                    self.label(owner)
                );
            }
            self.tell_hidden(owner, hidden);
        }
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
        // The handshakes first: one that ends meanwhile is in the queue when that is emptied.
        let handshakes = self.handshakes_towards(socket);
        let left = match self.carry_all(socket) {
            Ok(left) => left,
            Err(error) => {
                log::debug!("relay: {error}; looked at again");
                true
            }
        };
        let Some(emptying) = self.relays.emptying.get_mut(&socket) else { return };
        let waited = now.since(emptying.since);
        if (left && waited < QUEUE_PATIENCE) || (handshakes > 0 && waited < HANDSHAKE_PATIENCE) {
            emptying.look_at = now + AGAIN;
            return;
        }
        if left {
            log::warn!("clients in a dead worker's queue could not be handed on in {QUEUE_PATIENCE:?}");
        }
        self.relays.emptying.remove(&socket);
        self.inbox.push_back(Event::Relayed { socket });
    }

    fn handshakes_towards(&mut self, socket: SocketId) -> usize {
        let Some(port) = self.sockets.get(socket).and_then(|held| held.address.port()) else { return 0 };
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

    /// Accepts and carries all that wait; true when some had to be left waiting. On an error nobody was
    /// accepted who is not carried.
    fn carry_all(&mut self, socket: SocketId) -> io::Result<bool> {
        loop {
            let Some(held) = self.sockets.get(socket) else { return Ok(false) };
            if listen::queue_length(held.fd.as_fd())? == 0 {
                return Ok(false);
            }
            if self.relays.count() >= LIMIT {
                return Ok(true);
            }
            let Some(to) = reachable(held.address) else { return Ok(false) };
            let worker = TcpStream::connect(to)?;
            self.relays.next += 1;
            let id = self.relays.next;
            let worker = self.side(worker, Source::Relay(id, End::Worker))?;
            let client = match self.sockets.fd(socket).map(listen::accept) {
                Some(Ok(Some(client))) => client,
                other => {
                    self.drop_side(worker);
                    return other.unwrap_or(Ok(None)).map(|_| false);
                }
            };
            self.carry(id, client, worker);
        }
    }

    fn carry(&mut self, id: u64, client: OwnedFd, worker: Side) {
        let client = TcpStream::from_std(std::net::TcpStream::from(client));
        match self.side(client, Source::Relay(id, End::Client)) {
            Ok(client) => {
                self.relays.pairs.insert(id, Pair { client, worker, connected: false });
            }
            Err(error) => {
                log::warn!(
                    "a client in a dead worker's queue is lost: its connection cannot be watched: {error}"
                );
                self.drop_side(worker);
            }
        }
    }

    fn side(&mut self, mut stream: TcpStream, source: Source) -> io::Result<Side> {
        let token = self.tokens.allot(source);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let watched = self.poll.registry().register(&mut stream, token, interest);
        watched.inspect_err(|_| self.tokens.release(token))?;
        Ok(Side { stream, token, pending: Vec::new(), ended: false, told: false })
    }

    /// Moves what can be moved between the two ends of a pair; true when there is more than one turn's
    /// share.
    pub(super) fn pump_relay(&mut self, id: u64) -> bool {
        let Some(pair) = self.relays.pairs.get_mut(&id) else { return false };
        let state = pair.pump();
        if matches!(state, Ok(Progress::Finished) | Err(_))
            && let Some(pair) = self.relays.pairs.remove(&id)
        {
            self.drop_pair(pair);
        }
        matches!(state, Ok(Progress::More))
    }

    fn drop_pair(&mut self, pair: Pair) {
        self.drop_side(pair.client);
        self.drop_side(pair.worker);
    }

    fn drop_side(&mut self, mut side: Side) {
        deregister(self.poll.registry(), &mut side.stream);
        self.tokens.release(side.token);
    }
}

fn deregister(registry: &Registry, stream: &mut TcpStream) {
    if let Err(error) = registry.deregister(stream) {
        log::debug!("relay: {error}");
    }
}

/// How far a pair came in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Both ends have ended, and were told so.
    Finished,
    /// It waits for one of its ends.
    Waiting,
    /// There is more.
    More,
}

impl Pair {
    fn pump(&mut self) -> io::Result<Progress> {
        if !self.connected {
            if let Some(error) = self.worker.stream.take_error()? {
                return Err(error);
            }
            match self.worker.stream.peer_addr() {
                Ok(_) => self.connected = true,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(Progress::Waiting),
                Err(error) => return Err(error),
            }
        }
        let forth = transfer(&mut self.client, &mut self.worker)?;
        let back = transfer(&mut self.worker, &mut self.client)?;
        Ok(if self.client.told && self.worker.told {
            Progress::Finished
        } else if forth || back {
            Progress::More
        } else {
            Progress::Waiting
        })
    }
}

/// Reads from one side as far as the other takes it, within a turn's share; passes the end of file on.
/// True when the share was used up.
fn transfer(from: &mut Side, to: &mut Side) -> io::Result<bool> {
    for _ in 0..READS_PER_TURN {
        while !from.pending.is_empty() {
            match to.stream.write(&from.pending) {
                Ok(written) => drop(from.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if from.ended {
            if !to.told {
                to.stream.shutdown(Shutdown::Write)?;
                to.told = true;
            }
            return Ok(false);
        }
        let mut buffer = [0; BUFFER];
        match from.stream.read(&mut buffer) {
            Ok(0) => from.ended = true,
            Ok(length) => from.pending.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Readies a dead worker's socket for its queue to be emptied: accepting from it never waits, and nobody
/// new comes in. One does not depend on the other.
fn withdraw(socket: BorrowedFd<'_>) -> (io::Result<()>, io::Result<()>) {
    (listen::never_wait(socket), listen::hide(socket))
}

/// Where a socket that listens at this address can be reached from its own host. A dual-stack wildcard
/// is reached by IPv4, which works where the loopback device has no IPv6 address too.
pub(super) fn reachable(address: Address) -> Option<SocketAddr> {
    let Address::Tcp { ip, port, v6only } = address else { return None };
    let ip = match ip {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V6(_) if v6only => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(_) | IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_hidden_whether_or_not_accept_can_be_bounded() {
        let file = tempfile::tempfile().expect("a temporary file");
        let (hurried, hidden) = withdraw(file.as_fd());
        let errno = |done: io::Result<()>| done.err().and_then(|error| error.raw_os_error());
        assert_eq!((errno(hurried), errno(hidden)), (Some(libc::ENOTSOCK), Some(libc::ENOTSOCK)));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        let (hurried, hidden) = withdraw(socket.as_fd());
        hurried.and(hidden).expect("it is a socket of ours");
        assert!(std::net::TcpStream::connect(address).is_err(), "somebody came in");
        assert!(socket.accept().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    }
}
