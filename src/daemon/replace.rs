//! How an unmodified server joins its group where the host does not let its sockets be duplicated: under
//! Docker's default seccomp profile (no pidfd_getfd(2)), and as another user without CAP_SYS_PTRACE.
//!
//! At bind(2) a socket of the supervisor's, bound to the address that the worker asked for, is put in the
//! place of the worker's own; from there on all is as with a duplicate. What the worker set on its socket
//! before, other than O_NONBLOCK, IPV6_V6ONLY and its interface, is lost, and so would be its place in an epoll
//! set: such a socket is left alone, and so is one whose interface cannot be had, which would be open to more
//! than was asked for. Nothing is granted that the worker could not bind by itself, but for what the file
//! declares.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use crate::supervisor::address::Address;
use crate::supervisor::event::{AppId, WorkerId};
use crate::sys::descriptor::{self, Socket};
use crate::sys::intercept::{self, Call, Notice, Verdict};
use crate::sys::listen::{self, Unheard};
use crate::sys::process;

use super::Daemon;
use super::lend::Theirs;
use super::processes::Reach;
use super::said::Said;
use super::short::is_short;

/// Sockets of one worker that are remembered between two of its calls. Servers open a handful.
const REMEMBERED: usize = 256;

impl Daemon {
    /// Whether sockets of a worker, maybe of another user, can be duplicated.
    pub(super) fn may_duplicate_from(&self, is_other_user: bool) -> bool {
        let host = &self.surroundings;
        host.may_duplicate && (!is_other_user || host.may_trace_others)
    }

    /// A call about a socket that cannot be duplicated, for this reason.
    pub(super) fn judge_unheld(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        pid: i32,
        refused: &io::Error,
    ) -> io::Result<Verdict> {
        let seen = descriptor::socket(pid, notice.fd)
            .inspect_err(|error| self.tell_refused(worker, "look at its sockets", error))?;
        let Some(socket) = seen else { return Ok(Verdict::Continue) };
        if socket.tcp {
            let theirs = |daemon: &Daemon| {
                let said = daemon.said_of(worker, socket.inode);
                let v6only = said.v6only.unwrap_or_else(listen::is_v6only_by_default);
                Theirs { v6only, is_tied: said.interface.is_some() }
            };
            if let Some(verdict) = self.judge_lent(worker, notice, pid, theirs)? {
                return Ok(verdict);
            }
        }
        match notice.call {
            Call::V6Only { .. } | Call::Device { .. } | Call::Interface { .. } => {
                self.remember(worker, pid, socket.inode, notice.call)?;
                Ok(Verdict::Continue)
            }
            Call::Bind { address, length } if socket.tcp => {
                let Some(address) = self.address_given(worker, pid, address, length)? else {
                    return Ok(Verdict::Continue);
                };
                self.judge_unheld_bind(worker, notice, (pid, socket), address, refused)
            }
            Call::Bind { .. } => Ok(Verdict::Continue),
            Call::Listen { backlog } => {
                let process = self.processes.get_mut(worker);
                match process.and_then(|process| process.replaced.remove(&socket.inode)) {
                    Some(ours) => self.judge_replaced_listen(worker, notice, (socket.inode, ours), backlog),
                    None => {
                        self.hear_listen(worker, socket.inode);
                        Ok(self.listen_again(socket.inode))
                    }
                }
            }
        }
    }

    /// Whatever keeps it from listening now, it is known when the worker tries again: else it would listen then
    /// without being held or steered.
    fn judge_replaced_listen(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        (inode, ours): (u64, OwnedFd),
        backlog: i32,
    ) -> io::Result<Verdict> {
        let answer = match self.listen_for(worker, notice, ours.as_fd(), backlog) {
            Ok(Ok(address)) => return self.hold_listening(worker, ours, address, backlog),
            Ok(Err(verdict)) => Ok(verdict),
            Err(error) => Err(error),
        };
        if let Some(process) = self.processes.get_mut(worker) {
            process.replaced.insert(inode, ours);
        }
        answer
    }

    /// What the kernel is going to refuse is not remembered, as far as that can be known.
    fn remember(&mut self, worker: WorkerId, pid: i32, inode: u64, call: Call) -> io::Result<()> {
        let integer = |value| {
            let mut bytes = [0_u8; size_of::<i32>()];
            let read = intercept::read_memory(pid, value, &mut bytes)?;
            io::Result::Ok((read == bytes.len()).then(|| i32::from_ne_bytes(bytes)))
        };
        let heard = match call {
            Call::V6Only { value } => (integer(value)?.map(|value| value != 0), None),
            Call::Interface { value } => (None, integer(value)?),
            Call::Device { name, length } => (None, named_interface(pid, name, length)?),
            Call::Bind { .. } | Call::Listen { .. } => return Ok(()),
        };
        let Some(process) = self.processes.get_mut(worker) else { return Ok(()) };
        match heard {
            (Some(v6only), _) => process.said.entry(inode).v6only = Some(v6only),
            // 0 unties it (socket(7)).
            (None, Some(index)) => process.said.entry(inode).interface = (index != 0).then_some(index),
            (None, None) => {}
        }
        Ok(())
    }

    fn judge_unheld_bind(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        (pid, socket): (i32, Socket),
        wanted: SocketAddr,
        refused: &io::Error,
    ) -> io::Result<Verdict> {
        let said = self.said_of(worker, socket.inode);
        let v6only = wanted.is_ipv6() && said.v6only.unwrap_or_else(listen::is_v6only_by_default);
        let address = Address::Tcp { ip: wanted.ip(), port: wanted.port(), v6only };
        let Some(app) = self.joins(worker, address) else { return Ok(Verdict::Continue) };
        if !self.acts_for(worker, pid, notice.tid) {
            return Ok(Verdict::Continue);
        }
        if let Some(verdict) = self.judge_address(worker, app, address) {
            return Ok(verdict);
        }
        if !self.may_bind(worker, address) || !descriptor::in_our_network(pid)? {
            return Ok(Verdict::Continue);
        }
        if !descriptor::is_sole(pid, socket.inode)? {
            self.tell_entangled(worker, address, refused);
            return Ok(Verdict::Continue);
        }
        let settings =
            listen::Settings { v6only, nonblocking: socket.nonblocking, interface: said.interface };
        let ours = match listen::open_unheard(wanted, settings) {
            Ok(ours) => ours,
            Err(Unheard::Interface(error)) => {
                self.tell_interface(worker, address, &error);
                return Ok(Verdict::Continue);
            }
            Err(Unheard::Other(error)) if is_short(&error) => return Err(error),
            Err(Unheard::Other(error)) => {
                return Ok(Verdict::Refuse(error.raw_os_error().unwrap_or(libc::EADDRINUSE)));
            }
        };
        self.put_in_place(worker, app, notice, (socket, ours), refused)
    }

    /// What a worker has said of a socket before its bind.
    fn said_of(&self, worker: WorkerId, inode: u64) -> Said {
        self.processes.get(worker).map_or_else(Said::default, |process| process.said.of(inode))
    }

    /// Whether a thread may have what its worker may: of the first process, whoever that has become, or of another
    /// that has not given its user up. Else a child that was made powerless would get a socket of ours.
    pub(super) fn acts_for(&self, worker: WorkerId, pid: i32, tid: i32) -> bool {
        let own = rustix::process::geteuid().as_raw();
        self.processes.get(worker).is_some_and(|process| {
            let expected = process.other_user.unwrap_or(own);
            pid == process.pid || process::effective_ids(tid).is_some_and(|(user, _)| user == expected)
        })
    }

    /// Low ports are for whoever may bind them, but for the addresses that the file declares.
    fn may_bind(&self, worker: WorkerId, address: Address) -> bool {
        self.processes.get(worker).is_some_and(|process| {
            let declared = &process.recipe.spec.listen;
            process.other_user.is_none()
                || address.port().is_none_or(|port| port >= listen::first_free_port())
                || declared.iter().any(|listen| listen.address().contains(&address))
        })
    }

    fn put_in_place(
        &mut self,
        worker: WorkerId,
        app: AppId,
        notice: &Notice,
        (theirs, ours): (Socket, OwnedFd),
        refused: &io::Error,
    ) -> io::Result<Verdict> {
        let inode = listen::inode(ours.as_fd())?;
        let Some(notify) = self.processes.get(worker).and_then(|p| p.notify.as_ref()) else {
            return Ok(Verdict::Continue);
        };
        // That it succeeds is the proof that the thread was not gone, and its number somebody else's, all the
        // while.
        let put =
            intercept::replace(notify.as_fd(), notice.id, ours.as_fd(), notice.fd, theirs.close_on_exec);
        if let Err(error) = put {
            self.tell_refused(worker, "put a socket of its own in the place of the worker's", refused);
            return Err(error);
        }
        self.tell_replacing(worker, app, refused);
        self.forget_closed(worker);
        let Some(process) = self.processes.get_mut(worker) else { return Ok(Verdict::Done) };
        process.said.forget(theirs.inode);
        process.bound.insert(inode);
        if process.replaced.len() < REMEMBERED {
            process.replaced.insert(inode, ours);
        }
        Ok(Verdict::Done)
    }

    /// Sockets of ours that the worker has closed without ever listening on them would keep their address.
    fn forget_closed(&mut self, worker: WorkerId) {
        if self.processes.get(worker).is_none_or(|process| process.replaced.is_empty()) {
            return;
        }
        let mut open = HashSet::new();
        for pid in self.processes.tree_of(worker) {
            // What cannot be looked at counts as open.
            let Ok(sockets) = process::sockets(pid) else { return };
            open.extend(sockets.into_iter().map(|socket| socket.inode));
        }
        if let Some(process) = self.processes.get_mut(worker) {
            process.replaced.retain(|inode, _| open.contains(inode));
        }
    }

    /// Once, or once for an app whose workers run as another user: how ports are shared.
    fn tell_replacing(&mut self, worker: WorkerId, app: AppId, refused: &io::Error) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.reach = Reach::Replacing;
        let about = (process.other_user.is_some() && self.surroundings.may_duplicate).then_some(app);
        if !self.warned.first("replacing", about) {
            return;
        }
        let (whose, right) = match about {
            Some(app) => (format!("of \"{}\", who run as another user,", self.app_name(app)), ""),
            None => ("of workers".to_owned(), " and a seccomp profile with pidfd_getfd"),
        };
        log::info!(
            "ports: sockets {whose} cannot be duplicated here ({refused}): those of the supervisor's are put in \
             their place, and steered. A worker that leaves is waited for until all its clients are quiet at \
             once, or drain_timeout is over; with CAP_SYS_PTRACE{right} each client's connection is ended at \
             its own quiet moment"
        );
    }

    fn tell_entangled(&mut self, worker: WorkerId, address: Address, refused: &io::Error) {
        self.warn_once_of(worker, "entangled", || {
            format!(
                "ports: its socket for {address} cannot be shared: it cannot be duplicated here ({refused}), and \
                 not replaced, since the server has it under several numbers or in an epoll set before it is \
                 bound. Declare the port in `listen` and let the server take descriptor 3, or grant \
                 CAP_SYS_PTRACE and a seccomp profile with pidfd_getfd"
            )
        });
    }

    fn tell_interface(&mut self, worker: WorkerId, address: Address, error: &io::Error) {
        self.warn_once_of(worker, "interface", || {
            format!(
                "ports: its socket for {address} cannot be shared: it is bound to an interface (SO_BINDTODEVICE), \
                 which the supervisor cannot do with one in its place ({error}). Grant CAP_NET_RAW, or CAP_SYS_PTRACE \
                 and a seccomp profile with pidfd_getfd"
            )
        });
    }
}

/// The number of an interface whose name lies in a worker's memory; 0 for an empty name, none for one that there
/// is not.
fn named_interface(pid: i32, name: u64, length: u32) -> io::Result<Option<i32>> {
    // The rest is not looked at (`sock_setbindtodevice` in Linux).
    let mut bytes = [0_u8; libc::IFNAMSIZ - 1];
    let wanted = bytes.len().min(length as usize);
    let read = intercept::read_memory(pid, name, &mut bytes[..wanted])?;
    let end = bytes[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
    if end == 0 { Ok(Some(0)) } else { listen::interface(&bytes[..end]) }
}
