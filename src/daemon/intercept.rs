//! What becomes of a worker's bind(2) and listen(2): how an unmodified server joins its group.
//!
//! bind gets SO_REUSEPORT and goes on with the worker's own rights. listen is done here, on the
//! duplicate: it is the same socket, and so the order in which sockets enter the kernel's array is
//! known, whatever the workers do at the same time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::supervisor::address::{Address, Claim};
use crate::supervisor::event::{AppId, Event, SocketId, WorkerId};
use crate::sys::intercept::{self, Call, Notice, Verdict};
use crate::sys::{listen, process};

use super::Daemon;
use super::lend::Theirs;
use super::owner::Taken;
use super::processes::Reach;
use super::short::is_short;

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
            let verdict = match self.judge(worker, &notice) {
                Ok(verdict) => verdict,
                Err(error) if is_short(&error) => self.judge_short(worker, &notice, &error),
                Err(error) => {
                    log::debug!("{}: notification passed on: {error}", self.label(worker));
                    Verdict::Continue
                }
            };
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
        let Some(pid) = process::process_of_thread(notice.tid)? else { return Ok(Verdict::Continue) };
        let duplicate = process::open(pid).and_then(|pidfd| intercept::duplicate(pidfd, notice.fd));
        let socket = match duplicate {
            Ok(socket) => socket,
            Err(error) if is_refused(&error) => return self.judge_unheld(worker, notice, pid, &error),
            Err(error) => return Err(error),
        };
        let kind = listen::kind(socket.as_fd());
        if kind != listen::Kind::Other {
            let theirs = |_: &Daemon| Theirs {
                v6only: listen::is_v6only(socket.as_fd()),
                is_tied: listen::is_tied(socket.as_fd()),
            };
            if let Some(verdict) = self.judge_lent(worker, notice, pid, theirs)? {
                return Ok(verdict);
            }
        }
        if let (listen::Kind::Multipath, Call::Bind { .. }) = (kind, notice.call) {
            return self.judge_multipath_bind(worker, notice, pid, socket);
        }
        if kind != listen::Kind::Tcp {
            if let Call::Listen { .. } = notice.call {
                self.hear_listen(worker, listen::inode(socket.as_fd())?);
            }
            return Ok(Verdict::Continue);
        }
        match notice.call {
            Call::Bind { address, length } => {
                let Some(address) = self.address_given(worker, pid, address, length)? else {
                    return Ok(Verdict::Continue);
                };
                self.tell_level();
                self.judge_bind(worker, notice, socket, address)
            }
            Call::Listen { backlog } => {
                self.tell_level();
                self.judge_listen(worker, notice, socket, backlog)
            }
            // The duplicate will show it.
            Call::V6Only { .. } | Call::Device { .. } | Call::Interface { .. } => Ok(Verdict::Continue),
        }
    }

    /// What bind(2) was called with, as it lies in the worker's memory; none when it is no IP address.
    pub(super) fn address_given(
        &mut self,
        worker: WorkerId,
        pid: i32,
        address: u64,
        length: u32,
    ) -> io::Result<Option<SocketAddr>> {
        let mut bytes = [0_u8; ADDRESS_LENGTH];
        let wanted = ADDRESS_LENGTH.min(length as usize);
        let read = intercept::read_memory(pid, address, &mut bytes[..wanted])
            .inspect_err(|error| self.tell_refused(worker, "read an address from its memory", error))?;
        Ok(listen::decode_address(&bytes[..read]))
    }

    /// A listen(2) on a socket that is held already: of one that was handed over it says that the worker takes
    /// connections from it.
    pub(super) fn hear_listen(&mut self, worker: WorkerId, inode: u64) -> bool {
        let own = self.sockets.of(worker).find(|(_, held)| held.inode == inode).map(|(id, h)| (id, h.handed));
        let known = own.is_some() || self.sockets.by_inode(inode).is_some();
        if let Some((socket, true)) = own {
            self.settle_flags(inode);
            self.inbox.push_back(Event::Accepting { worker, socket });
        }
        known
    }

    fn judge_bind(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        socket: OwnedFd,
        wanted: SocketAddr,
    ) -> io::Result<Verdict> {
        let v6only = wanted.is_ipv6() && listen::is_v6only(socket.as_fd());
        let address = Address::Tcp { ip: wanted.ip(), port: wanted.port(), v6only };
        let Some(app) = self.joins(worker, address) else { return Ok(Verdict::Continue) };
        if let Some(verdict) = self.judge_address(worker, app, address) {
            return Ok(verdict);
        }
        let inode = listen::inode(socket.as_fd())?;
        // Only now is it sure that the thread was not gone, and its number somebody else's, when its
        // socket was duplicated.
        if self.still_waits(worker, notice) {
            self.take_over(worker, socket.as_fd());
            listen::share_address(socket.as_fd())?;
            if let Some(process) = self.processes.get_mut(worker) {
                process.bound.insert(inode);
            }
        }
        Ok(Verdict::Continue)
    }

    /// The verdict about an address that somebody has.
    pub(super) fn judge_address(
        &mut self,
        worker: WorkerId,
        app: AppId,
        address: Address,
    ) -> Option<Verdict> {
        let Some(taken) = self.taken(app, address) else {
            self.owners.forget(worker, address);
            return None;
        };
        self.met(worker, address, &taken);
        Some(match taken {
            Taken::By(_) => Verdict::Refuse(libc::EADDRINUSE),
            // The kernel decides; without SO_REUSEPORT it refuses, and we know why.
            Taken::Outside(_) => Verdict::Continue,
        })
    }

    /// Sockets of one address must be of one user, or the kernel refuses the second of them: the supervisor's,
    /// whoever the worker runs as. So a reload can change the user, declared sockets share the address with
    /// those that the server binds, and other processes of the worker's user cannot join the group.
    fn take_over(&mut self, worker: WorkerId, socket: BorrowedFd<'_>) {
        let is_foreign = self.processes.get(worker).is_some_and(|p| p.other_user.is_some());
        if !is_foreign {
            return;
        }
        if let Err(error) = listen::own(socket, crate::sys::socket::own_uid()) {
            self.warn_once_of(worker, "take over", || {
                format!(
                    "its sockets stay its user's ({error}): a reload that changes `user` finds the port in use; \
                     grant CAP_CHOWN"
                )
            });
        }
    }

    pub(super) fn still_waits(&self, worker: WorkerId, notice: &Notice) -> bool {
        let notify = self.processes.get(worker).and_then(|p| p.notify.as_ref());
        notify.is_some_and(|notify| intercept::still_waits(notify.as_fd(), notice.id))
    }

    /// The worker's app, if a socket bound here is one of those that its instances share: with a declared `listen`
    /// those that meet a declared one. What is wider than that meets it, too, and could not be bound beside it
    /// without sharing.
    pub(super) fn joins(&self, worker: WorkerId, address: Address) -> Option<AppId> {
        let Address::Tcp { ip, port, .. } = address else { return None };
        if port == 0 || (ip.is_loopback() && INSPECTOR_PORTS.contains(&port)) {
            return None;
        }
        let process = self.processes.get(worker)?;
        let declared = &process.recipe.spec.listen;
        let shared = declared.is_empty() || declared.iter().any(|l| l.address().overlaps(&address));
        shared.then_some(process.app)
    }

    fn judge_listen(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        socket: OwnedFd,
        backlog: i32,
    ) -> io::Result<Verdict> {
        match self.listen_for(worker, notice, socket.as_fd(), backlog)? {
            Ok(address) => self.hold_listening(worker, socket, address, backlog),
            Err(verdict) => Ok(verdict),
        }
    }

    /// Does a worker's listen(2) on a socket that its app shares: where that listens from here on, and is to be
    /// held. Else what the worker is answered: nothing has changed, and it may come again.
    pub(super) fn listen_for(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        socket: BorrowedFd<'_>,
        backlog: i32,
    ) -> io::Result<Result<Address, Verdict>> {
        let inode = listen::inode(socket)?;
        if self.hear_listen(worker, inode) {
            return Ok(Err(self.listen_again(inode)));
        }
        let app = self.processes.get(worker).filter(|p| p.bound.contains(&inode)).map(|p| p.app);
        let Some(app) = app.filter(|_| self.still_waits(worker, notice)) else {
            return Ok(Err(Verdict::Continue));
        };
        let (local, v6only) = listen::local_address(socket)?;
        let address = Address::Tcp { ip: local.ip(), port: local.port(), v6only };
        // Two apps can both have bound before either of them listened.
        if let Claim::Other(other) = self.claim(app, address) {
            self.met(worker, address, &Taken::By(other));
            return Ok(Err(Verdict::Refuse(libc::EADDRINUSE)));
        }
        if let Err(error) = listen::listen(socket, backlog) {
            if let Some(taken) = self.taken(app, address) {
                self.met(worker, address, &taken);
            }
            return Ok(Err(Verdict::Refuse(error.raw_os_error().unwrap_or(libc::EINVAL))));
        }
        Ok(Ok(address))
    }

    /// A socket that has just begun to listen joins its group.
    pub(super) fn hold_listening(
        &mut self,
        worker: WorkerId,
        socket: OwnedFd,
        address: Address,
        backlog: i32,
    ) -> io::Result<Verdict> {
        let before: Vec<(SocketId, u64)> = self
            .sockets
            .of(worker)
            .filter(|(_, held)| !held.handed && held.address == address)
            .map(|(id, held)| (id, held.inode))
            .collect();
        let id = self.sockets.hold(socket, address, false, worker)?;
        self.watch_listener(id, backlog);
        self.arrays.push_back(Event::Listening { worker, socket: id, address });
        self.find_abandoned(worker, before);
        self.tell_wider(worker, address);
        Ok(Verdict::Done)
    }

    /// What was declared is served, and more than that.
    fn tell_wider(&mut self, worker: WorkerId, address: Address) {
        let wider = |declared: &Address| *declared != address && address.contains(declared);
        let handed = self.sockets.of(worker).filter(|(_, held)| held.handed);
        let declared = handed.map(|(_, held)| held.address).find(wider);
        let Some(declared) = declared else { return };
        self.warn_once_of(worker, "wider", || {
            format!(
                "it listens on {address} by itself and does not take the socket that it was handed for {declared}: \
                 whoever can reach {address} is served. Declare that address in `listen`, or have the server listen \
                 on descriptor 3"
            )
        });
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

    /// Once: how ports are shared on this host, as soon as it is proven.
    pub(super) fn tell_level(&mut self) {
        if self.warned.first("level", None) {
            log::info!(
                "ports: bind and listen of workers are intercepted, their sockets duplicated and steered"
            );
        }
    }

    /// Once for each app: that its ports are shared in a lesser way, and what can be done about it.
    pub(super) fn tell_refused(&mut self, worker: WorkerId, what: &str, error: &io::Error) {
        if !is_refused(error) {
            return;
        }
        if let Some(process) = self.processes.get_mut(worker) {
            process.reach = Reach::Declared;
        }
        self.warn_once_of(worker, "refused", || {
            format!(
                "ports: the host does not let the supervisor {what} ({error}); of this app only sockets that \
                 are declared in `listen` are shared and steered here. Declare the port there, or grant \
                 CAP_SYS_PTRACE and a seccomp profile with pidfd_getfd and process_vm_readv"
            )
        });
    }
}

/// The host does not allow it, or does not know it.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
}
