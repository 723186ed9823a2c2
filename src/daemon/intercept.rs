//! What becomes of a worker's bind(2) and listen(2): how an unmodified server joins its group.
//!
//! bind gets SO_REUSEPORT and goes on with the worker's own rights. listen is done here, on the
//! duplicate: it is the same socket, and so the order in which sockets enter the kernel's array is
//! known, whatever the workers do at the same time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use crate::supervisor::event::{Address, Event, SocketId, WorkerId};
use crate::sys::intercept::{self, Call, Notice, Verdict};
use crate::sys::{connections, listen, process};

use super::Daemon;

/// Node's inspector, and the range it takes when several run: never the service itself.
const INSPECTOR_PORTS: std::ops::RangeInclusive<u16> = 9229..=9238;

/// The longest `sockaddr` that is read: `sockaddr_in6`.
const ADDRESS_LENGTH: usize = 28;

/// Notifications taken in one turn of the loop.
const PER_TURN: usize = 64;

impl Daemon {
    /// Answers what waits on a worker's notification descriptor; true when there may be more.
    pub(super) fn answer_notices(&mut self, worker: WorkerId) -> bool {
        for _ in 0..PER_TURN {
            let Some(notify) = self.processes.get(worker).and_then(|p| p.notify.as_ref()) else {
                return false;
            };
            let notice = match intercept::receive(notify.as_fd()) {
                Ok(Some(notice)) => notice,
                Ok(None) => return false,
                Err(error) => {
                    log::debug!("worker {}: notification: {error}", worker.0);
                    return false;
                }
            };
            let verdict = self.judge(worker, &notice).unwrap_or_else(|error| {
                self.interception_refused(worker, &error);
                match notice.call {
                    // A socket that already shares its address must not listen without our knowing.
                    Call::Listen { .. } if is_short_of_something(&error) => {
                        Verdict::Refuse(error.raw_os_error().unwrap_or(libc::ENOBUFS))
                    }
                    Call::Listen { .. } | Call::Bind { .. } => Verdict::Continue,
                }
            });
            let Some(notify) = self.processes.get(worker).and_then(|p| p.notify.as_ref()) else {
                return false;
            };
            if let Err(error) = intercept::answer(notify.as_fd(), notice.id, verdict) {
                log::warn!("{}: could not answer a notification: {error}", self.label(worker));
            }
        }
        true
    }

    fn judge(&mut self, worker: WorkerId, notice: &Notice) -> io::Result<Verdict> {
        let Some(pid) = process::process_of_thread(notice.tid) else { return Ok(Verdict::Continue) };
        let socket = intercept::duplicate(process::open(pid)?, notice.fd)?;
        if listen::kind(socket.as_fd()) != listen::Kind::Tcp {
            return Ok(Verdict::Continue);
        }
        match notice.call {
            Call::Bind { address, length } => {
                let mut bytes = [0_u8; ADDRESS_LENGTH];
                let wanted = ADDRESS_LENGTH.min(length as usize);
                let read = intercept::read_memory(pid, address, &mut bytes[..wanted])?;
                match listen::decode_address(&bytes[..read]) {
                    Some(address) => self.judge_bind(worker, notice, socket, address),
                    None => Ok(Verdict::Continue),
                }
            }
            Call::Listen { backlog } => self.judge_listen(worker, notice, socket, backlog),
        }
    }

    fn judge_bind(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        socket: OwnedFd,
        wanted: SocketAddr,
    ) -> io::Result<Verdict> {
        if !self.joins(worker, wanted) {
            return Ok(Verdict::Continue);
        }
        let v6only = wanted.is_ipv6() && listen::is_v6only(socket.as_fd());
        let address = Address { ip: wanted.ip(), port: wanted.port(), v6only };
        if let Some(other) = self.supervisor.serves_elsewhere(worker, address) {
            let other = self.app_name(other);
            log::error!(
                "{}: bind to {address} refused: app \"{other}\" of this supervisor serves it; give one \
                 of them another port",
                self.label(worker)
            );
            return Ok(Verdict::Refuse(libc::EADDRINUSE));
        }
        if !self.sockets.serves(address)
            && let Some(owner) = self.foreign_owner(address)
        {
            // The kernel decides; without SO_REUSEPORT it refuses, and we know why.
            log::error!("{}: {address} is in use by {owner}", self.label(worker));
            return Ok(Verdict::Continue);
        }
        let inode = listen::inode(socket.as_fd())?;
        // Only now is it sure that the thread was not gone, and its number somebody else's, when its
        // socket was duplicated.
        if self.still_waits(worker, notice) {
            listen::share_address(socket.as_fd())?;
            if let Some(process) = self.processes.get_mut(worker) {
                process.bound.insert(inode);
            }
        }
        Ok(Verdict::Continue)
    }

    fn still_waits(&self, worker: WorkerId, notice: &Notice) -> bool {
        let notify = self.processes.get(worker).and_then(|p| p.notify.as_ref());
        notify.is_some_and(|notify| intercept::still_waits(notify.as_fd(), notice.id))
    }

    /// Whether a socket bound here is one of those that the instances share.
    fn joins(&self, worker: WorkerId, address: SocketAddr) -> bool {
        if address.port() == 0 || (address.ip().is_loopback() && INSPECTOR_PORTS.contains(&address.port())) {
            return false;
        }
        let Some(process) = self.processes.get(worker) else { return false };
        let declared = &process.recipe.spec.listen;
        declared.is_empty() || declared.iter().any(|l| l.port == address.port())
    }

    fn judge_listen(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        socket: OwnedFd,
        backlog: i32,
    ) -> io::Result<Verdict> {
        let inode = listen::inode(socket.as_fd())?;
        if let Some((id, held)) = self.sockets.by_inode(inode) {
            if held.handed {
                self.inbox.push_back(Event::Accepting { worker, socket: id });
            }
            return Ok(Verdict::Continue);
        }
        let bound = self.processes.get(worker).is_some_and(|p| p.bound.contains(&inode));
        if !bound || !self.still_waits(worker, notice) {
            return Ok(Verdict::Continue);
        }
        let (local, v6only) = listen::local_address(socket.as_fd())?;
        let address = Address { ip: local.ip(), port: local.port(), v6only };
        // Two apps can both have bound before either of them listened.
        if self.sockets.is_another_apps(address, self.processes.get(worker).map(|p| p.app)) {
            log::error!("{}: listen on {address} refused: another app serves it", self.label(worker));
            return Ok(Verdict::Refuse(libc::EADDRINUSE));
        }
        if let Err(error) = listen::listen(socket.as_fd(), backlog) {
            return Ok(Verdict::Refuse(error.raw_os_error().unwrap_or(libc::EINVAL)));
        }
        let before: Vec<(SocketId, u64)> = self
            .sockets
            .of(worker)
            .filter(|(_, held)| !held.handed && held.address == address)
            .map(|(id, held)| (id, held.inode))
            .collect();
        let app = self.processes.get(worker).map(|p| p.app);
        let id = self.sockets.hold(socket, address, false, worker, app)?;
        self.arrays.push_back(Event::Listening { worker, socket: id, address });
        self.find_abandoned(worker, before);
        Ok(Verdict::Done)
    }

    /// A worker that listens anew may have closed what it listened on before; our duplicate alone would
    /// go on taking connections that nobody accepts.
    fn find_abandoned(&mut self, worker: WorkerId, before: Vec<(SocketId, u64)>) {
        if before.is_empty() {
            return;
        }
        let mut open = std::collections::HashSet::new();
        for pid in self.processes.tree_of(worker) {
            // What cannot be looked at counts as open: steering to it is what happened so far.
            let Ok(sockets) = process::sockets(pid) else { return };
            open.extend(sockets.into_iter().map(|socket| socket.inode));
        }
        for (socket, inode) in before {
            if !open.contains(&inode) {
                self.arrays.push_back(Event::Abandoned { socket });
            }
        }
    }

    /// Who outside this supervisor listens where this address would: `pid 812 (nginx)`.
    pub(super) fn foreign_owner(&mut self, address: Address) -> Option<String> {
        let listeners = self.diagnostics.as_mut()?.dump(address.port, connections::LISTENERS).ok()?;
        let foreign = listeners
            .into_iter()
            .find(|l| overlaps(address, l.local) && self.sockets.by_inode(l.inode).is_none())?;
        Some(owner_of(foreign.inode))
    }

    fn interception_refused(&mut self, worker: WorkerId, error: &io::Error) {
        if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
            let label = self.label(worker);
            self.warn_once("duplicate", || {
                format!(
                    "{label}: the host does not let the supervisor duplicate a worker's socket ({error}); \
                     declare the port in `listen` so that it is handed over instead"
                )
            });
        } else {
            log::debug!("{}: notification passed on: {error}", self.label(worker));
        }
    }
}

fn is_short_of_something(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

fn overlaps(address: Address, other: SocketAddr) -> bool {
    if address.port != other.port() {
        return false;
    }
    let same_family = address.ip.is_ipv4() == other.is_ipv4();
    if !same_family {
        // A dual-stack wildcard holds the IPv4 port too.
        let v6 = if address.ip.is_ipv6() { address.ip } else { other.ip() };
        return v6.is_unspecified() && !address.v6only;
    }
    address.ip == other.ip() || address.ip.is_unspecified() || other.ip().is_unspecified()
}

/// Looks through the processes of the host for the one that has this socket open.
fn owner_of(inode: u64) -> String {
    for pid in process::all() {
        let has = process::sockets(pid).is_ok_and(|sockets| sockets.iter().any(|s| s.inode == inode));
        if has {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return format!("pid {pid} ({})", name.trim_end());
        }
    }
    "another process (not visible to this user)".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, v6only: bool) -> Address {
        let socket: SocketAddr = text.parse().expect("an address");
        Address { ip: socket.ip(), port: socket.port(), v6only }
    }

    #[test]
    fn wildcards_overlap_their_family_and_dual_stack_both() {
        let other = "127.0.0.1:3000".parse().expect("an address");
        assert!(overlaps(address("0.0.0.0:3000", false), other));
        assert!(overlaps(address("[::]:3000", false), other));
        assert!(!overlaps(address("[::]:3000", true), other));
        assert!(!overlaps(address("127.0.0.2:3000", false), other));
        assert!(!overlaps(address("127.0.0.1:3001", false), other));
    }
}
