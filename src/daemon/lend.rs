//! A socket of the host's (systemd.socket(5)) for a server that knows nothing of handed sockets and opens its port
//! itself: beside the host's it could not, so at bind(2) the host's is put in the place of its own. The server gets
//! nothing that it was not handed already, from descriptor 3 on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::supervisor::address::Address;
use crate::supervisor::event::WorkerId;
use crate::sys::intercept::{self, Call, Notice, Verdict};
use crate::sys::{descriptor, listen, unix_listener};

use super::Daemon;

/// What a server has said of its own socket before its bind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theirs {
    /// Not for IPv4, too (IPV6_V6ONLY).
    pub(super) v6only: bool,
    /// For one interface (SO_BINDTODEVICE).
    pub(super) is_tied: bool,
}

impl Daemon {
    /// A bind to where a socket of the host's listens that is this worker's; none where it is about another place.
    pub(super) fn judge_lent(
        &mut self,
        worker: WorkerId,
        notice: &Notice,
        pid: i32,
        theirs: impl FnOnce(&Daemon) -> Theirs,
    ) -> io::Result<Option<Verdict>> {
        let Call::Bind { address, length } = notice.call else { return Ok(None) };
        if !self.parts_of_host(worker).any(|_| true) {
            return Ok(None);
        }
        let Some(wanted) = self.address_given(worker, pid, address, length)? else { return Ok(None) };
        let theirs = theirs(self);
        let Some(hosts) = self.hosts_for(worker, wanted, wanted.is_ipv6() && theirs.v6only)? else {
            return Ok(None);
        };
        if theirs.is_tied && !listen::is_tied(hosts.as_fd()) {
            self.warn_once_of(worker, "lent tied", || {
                format!(
                    "ports: the host's socket for {wanted} is open to more than the interface that the server ties its \
                     own to, and is not put in its place: tie the host's (BindToDevice=), or let the server take \
                     descriptor 3"
                )
            });
            return Ok(None);
        }
        let Some(theirs) = descriptor::socket(pid, notice.fd)? else { return Ok(None) };
        if !self.acts_for(worker, pid, notice.tid) || !descriptor::in_our_network(pid)? {
            return Ok(None);
        }
        if !descriptor::is_sole(pid, theirs.inode)? {
            self.warn_once_of(worker, "lent", || {
                format!(
                    "ports: the host's socket for {wanted} cannot be put in the place of its own, which it has under \
                     several numbers or in an epoll set before it is bound: let it take descriptor 3"
                )
            });
            return Ok(None);
        }
        let Some(notify) = self.processes.get(worker).and_then(|process| process.notify.as_ref()) else {
            return Ok(None);
        };
        // That it succeeds is the proof that the thread was not gone, and its number somebody else's, all the while.
        intercept::replace(notify.as_fd(), notice.id, hosts.as_fd(), notice.fd, theirs.close_on_exec)?;
        // One flag for all who have it. A server that never waits may say so here or after its bind; those who serve
        // already would be stuck in accept(2) if it was taken back for that moment.
        if theirs.nonblocking {
            unix_listener::set_nonblocking(hosts.as_fd(), true)?;
        }
        Ok(Some(Verdict::Done))
    }

    /// A socket of the host's that is of this worker and listens just there, or on both families where the worker
    /// would listen on one of them. One that listens on more than was asked for would let in whom the server does not
    /// expect.
    fn hosts_for(&self, worker: WorkerId, wanted: SocketAddr, v6only: bool) -> io::Result<Option<OwnedFd>> {
        let address = Address::Tcp { ip: wanted.ip(), port: wanted.port(), v6only };
        let fits = |at: &Address| *at == address || (at.contains(&address) && wanted.ip().is_unspecified());
        let found = self.parts_of_host(worker).find(|(at, _)| fits(at)).map(|(_, fd)| fd);
        found.map(|fd| fd.try_clone_to_owned()).transpose()
    }

    /// A listen(2) on a socket that is held already. It would set the length of the queue anew: that of the host's is
    /// what its unit says (`Backlog=`), for whoever waits while no server is there.
    pub(super) fn listen_again(&self, inode: u64) -> Verdict {
        if self.shared.is_hosts(inode) && self.shared.is_open(inode) {
            Verdict::Done
        } else {
            Verdict::Continue
        }
    }

    fn parts_of_host(&self, worker: WorkerId) -> impl Iterator<Item = (Address, BorrowedFd<'_>)> {
        let parts =
            self.sockets.of(worker).filter(|(_, held)| held.shared && self.shared.is_hosts(held.inode));
        parts.map(|(_, held)| (held.address, held.fd.as_fd()))
    }
}
