//! How a server that listens by Multipath TCP joins its group: Go does so by default since 1.24, others under
//! mptcpize(8). The kernel lets nobody steer such sockets ([`crate::sys::multipath`]).
//!
//! At bind(2) a plain TCP socket with the same options is put in the place of the worker's, and in its epoll
//! sets; the kernel then binds that one, with the worker's own rights. From there on all is as ever. Where the
//! worker's socket cannot be duplicated, `replace` treats it as it does any other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::supervisor::address::Address;
use crate::supervisor::event::{AppId, WorkerId};
use crate::sys::descriptor::{self, Socket};
use crate::sys::epoll_peer;
use crate::sys::intercept::{self, Call, Notice, Verdict};
use crate::sys::{listen, multipath, process};

use super::Daemon;
use super::short::is_short;

impl Daemon {
    /// A bind(2) of a Multipath TCP socket, of which this is a duplicate.
    pub(super) fn judge_multipath_bind(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        pid: i32,
        theirs: OwnedFd,
    ) -> io::Result<Verdict> {
        let Call::Bind { address, length } = notice.call else { return Ok(Verdict::Continue) };
        let Some(wanted) = self.address_given(worker, pid, address, length)? else {
            return Ok(Verdict::Continue);
        };
        let v6only = wanted.is_ipv6() && listen::is_v6only(theirs.as_fd());
        let address = Address::Tcp { ip: wanted.ip(), port: wanted.port(), v6only };
        let Some(app) = self.joins(worker, address) else { return Ok(Verdict::Continue) };
        if let Some(verdict) = self.judge_address(worker, app, address) {
            return Ok(verdict);
        }
        let seen = descriptor::socket(pid, notice.fd)?;
        let inode = listen::inode(theirs.as_fd())?;
        let Some(seen) = seen.filter(|seen| seen.inode == inode && self.still_waits(worker, notice)) else {
            return Ok(Verdict::Continue);
        };
        if !descriptor::in_our_network(pid)? {
            return Ok(Verdict::Continue);
        }
        self.tell_level();
        if let Err(error) = self.put_plain_in_place(worker, app, notice, pid, (seen, theirs)) {
            if is_short(&error) {
                return Err(error);
            }
            self.warn_once_of(worker, "multipath kept", || {
                format!(
                    "ports: its socket for {address} is of Multipath TCP and cannot be shared: it could not be \
                     replaced by one of plain TCP ({error}). Let the server listen by TCP (Go: \
                     GODEBUG=multipathtcp=0), or declare the port in `listen`"
                )
            });
        }
        Ok(Verdict::Continue)
    }

    fn put_plain_in_place(
        &mut self,
        worker: WorkerId,
        app: AppId,
        notice: &Notice,
        pid: i32,
        (seen, theirs): (Socket, OwnedFd),
    ) -> io::Result<()> {
        let numbers = process::sockets(pid)?.into_iter().filter(|socket| socket.inode == seen.inode).count();
        if numbers != 1 {
            return Err(io::Error::other(format!("the server has it under {numbers} numbers")));
        }
        let plain = multipath::plain(theirs.as_fd(), seen.nonblocking)?;
        // It counts as the supervisor's, as sockets of workers are made to.
        let ours = plain.socket;
        listen::share_address(ours.as_fd())?;
        let inode = listen::inode(ours.as_fd())?;
        // Before it is replaced: what fails is undone when ours is closed, which takes it out of every set.
        for entry in epoll_peer::entries(pid, seen.inode)? {
            let set = intercept::duplicate(process::open(entry.pid)?, entry.set)?;
            epoll_peer::adopt(&entry, set.as_fd(), ours.as_fd())?;
        }
        let gone = || io::Error::from_raw_os_error(libc::ENOENT);
        let process = self.processes.get_mut(worker).ok_or_else(gone)?;
        let notify = process.notify.as_ref().ok_or_else(gone)?;
        intercept::replace(notify.as_fd(), notice.id, ours.as_fd(), notice.fd, seen.close_on_exec)?;
        process.bound.insert(inode);
        self.tell_plain(worker, app, &plain.lost);
        Ok(())
    }

    /// Once for each app.
    fn tell_plain(&mut self, worker: WorkerId, app: AppId, lost: &[&str]) {
        if self.warned.first("multipath", Some(app)) {
            log::info!(
                "ports: \"{}\" listens by Multipath TCP, whose sockets cannot be steered: plain TCP sockets with \
                 the same options are put in their place. Clients of Multipath TCP are served by TCP",
                self.app_name(app)
            );
        }
        if !lost.is_empty() {
            self.warn_once_of(worker, "multipath options", || {
                format!("ports: the socket in the place of its own lacks {}", lost.join(", "))
            });
        }
    }
}
