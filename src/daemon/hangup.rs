//! Listening sockets that a worker shut down: they listen again at once, and the worker is named.
//!
//! shutdown(2) ends a listening socket for all who have it open: it leaves its SO_REUSEPORT group, whoever waits
//! in its queue is reset, and whoever comes is refused where it was the only one (`inet_shutdown` and
//! `tcp_disconnect` in Linux). It keeps its port, so that listen(2) makes it what it was, last in its group.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;

use crate::supervisor::event::{Address, Event, SocketId, WorkerId};
use crate::supervisor::fold::Telling;
use crate::supervisor::view::Status;
use crate::sys::listen;

use super::report::shown;
use super::{Daemon, Source};

impl Daemon {
    /// Has the kernel tell when this socket is shut down. Where it has no room for that, nobody is told.
    pub(super) fn watch_listener(&mut self, socket: SocketId, backlog: i32) {
        let token = self.tokens.allot(Source::Listener(socket));
        let Some(held) = self.sockets.get_mut(socket) else { return self.tokens.release(token) };
        held.backlog = backlog;
        // Connections are the worker's: nothing is announced but the hang-up, which always is.
        let fd = held.fd.as_raw_fd();
        match self.poll.registry().register(&mut SourceFd(&fd), token, Interest::PRIORITY) {
            Ok(()) => held.token = Some(token),
            Err(error) => {
                self.tokens.release(token);
                log::debug!("watch socket {}: {error}", socket.0);
            }
        }
    }

    /// Before it is closed: its end would be told as a worker's doing.
    pub(super) fn unwatch_listener(&mut self, socket: SocketId) {
        let Some(held) = self.sockets.get_mut(socket) else { return };
        if let Some(token) = held.token.take() {
            let fd = held.fd.as_raw_fd();
            self.unwatch(&[(token, fd)]);
        }
    }

    /// Those of these that do not listen any more do again, unless they are on their way out anyway.
    pub(super) fn check_listeners(&mut self, sockets: &[SocketId]) {
        let watched = |id: &SocketId| self.sockets.get(*id).filter(|held| held.token.is_some());
        let is_shut = |id: &SocketId| watched(id).is_some_and(|held| !listen::is_listening(held.fd.as_fd()));
        let shut: Vec<SocketId> = sockets.iter().copied().filter(is_shut).collect();
        if shut.len() > 1 {
            // All of them left their groups before the first comes back to one.
            self.arrays.extend(shut.iter().map(|socket| Event::ShutDown { socket: *socket, again: false }));
        }
        for socket in shut {
            self.heal_listener(socket);
        }
    }

    fn heal_listener(&mut self, socket: SocketId) {
        let Some(held) = self.sockets.get(socket) else { return };
        let (worker, address, fd) = (held.owner, held.address, held.fd.as_fd());
        if listen::is_hidden(fd) || self.is_stopping(worker) {
            log::debug!("{}: shut its socket on {address} down", self.label(worker));
            self.arrays.push_back(Event::ShutDown { socket, again: false });
            return self.unwatch_listener(socket);
        }
        let again = listen::listen(fd, held.backlog);
        self.arrays.push_back(Event::ShutDown { socket, again: again.is_ok() });
        let outcome = again.map_or_else(
            |error| format!("the supervisor cannot listen on it again ({error}): restart the worker's app"),
            |()| "the supervisor listens on it again".to_owned(),
        );
        self.tell_hangup(worker, address, &outcome);
    }

    /// A server that does it does it again: told in full a few times for each app, then more and more rarely.
    fn tell_hangup(&mut self, worker: WorkerId, address: Address, outcome: &str) {
        let label = self.label(worker);
        let what = "called shutdown(2) on its listening socket";
        match self.app_of(worker).map_or(Telling::Whole, |app| self.hangups.hear(app, self.now)) {
            Telling::Whole => log::error!(
                "{label}: {what}, {address}: whoever waited in its queue was reset; {outcome}. A server that stops \
                 must close its socket, not shut it down"
            ),
            Telling::Again { times, within } => {
                let within = shown(Duration::from_secs(within.as_secs().max(1)));
                log::error!(
                    "{label}: {what}, {address}: {times} times in its app in the last {within}; the lines between \
                     are left out"
                );
            }
            Telling::Not => {}
        }
    }

    /// It was told to stop, or is gone: what it does with its sockets is no fault.
    fn is_stopping(&self, worker: WorkerId) -> bool {
        self.supervisor
            .status_of(worker)
            .is_none_or(|status| matches!(status, Status::Stopping | Status::Unkillable))
    }
}
