//! Outputs of floods: they are left alone for a moment, with more room in their pipes, and read by the clock.

use mio::Interest;
use mio::unix::SourceFd;

use crate::control::protocol::Stream;
use crate::logs::pace::{LARGE_ROOM, Next, PAUSE, ROOM};
use crate::supervisor::event::WorkerId;
use crate::supervisor::time::Time;

use super::Daemon;
use super::sources::Source;

/// Pipes of a flood's size at a time. All pipes of an ordinary user together may hold 64 MiB until new ones get a
/// page or two (/proc/sys/fs/pipe-user-pages-soft, pipe(7)): these take a quarter of that at most.
const LARGE_PIPES: usize = 16;

/// An output that is read at a certain moment.
#[derive(Debug)]
struct Rest {
    worker: WorkerId,
    stream: Stream,
    until: Time,
    /// The poll tells when something comes, too.
    watched: bool,
    large: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Resting(Vec<Rest>);

impl Resting {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.0.iter().map(|rest| rest.until).min()
    }

    /// Its pipe is closed.
    pub(super) fn forget(&mut self, worker: WorkerId, stream: Stream) {
        self.0.retain(|rest| (rest.worker, rest.stream) != (worker, stream));
    }

    /// Something may have come that the poll does not tell of.
    pub(super) fn gathers(&self, worker: WorkerId, stream: Stream) -> bool {
        self.0.iter().any(|rest| (rest.worker, rest.stream) == (worker, stream) && !rest.watched)
    }

    /// It cannot be read now.
    pub(super) fn put_off(&mut self, worker: WorkerId, stream: Stream, until: Time) {
        if let Some(rest) = self.get_mut(worker, stream) {
            rest.until = until;
        }
    }

    fn get_mut(&mut self, worker: WorkerId, stream: Stream) -> Option<&mut Rest> {
        self.0.iter_mut().find(|rest| (rest.worker, rest.stream) == (worker, stream))
    }

    fn may_enlarge(&self) -> bool {
        self.0.iter().filter(|rest| rest.large).count() < LARGE_PIPES
    }
}

impl Daemon {
    /// Reads what has gathered.
    pub(super) fn read_rested(&mut self) {
        let now = self.now;
        let due = self.output.resting.0.iter().filter(|rest| rest.until <= now);
        let due = due.map(|rest| Source::Output(rest.worker, rest.stream));
        // What has just had its share of this turn waits for the next.
        let due: Vec<_> = due.filter(|source| !self.again.contains(source)).collect();
        due.into_iter().for_each(|source| self.collect_fairly(source));
    }

    /// An output was read until nothing was left: when it is read next.
    pub(super) fn pace_output(&mut self, worker: WorkerId, stream: Stream) {
        let now = self.now;
        let Some(entry) = self.output.workers.get_mut(&worker) else { return };
        if entry.output.source(stream).is_none() {
            return;
        }
        match entry.output.pace(stream).emptied(now) {
            Next::Ready => self.watch_again(worker, stream),
            Next::ReadyOrAt(until) => self.rest(worker, stream, until, true),
            Next::At(until) => self.rest(worker, stream, until, false),
            Next::AtWithRoom(until) if self.enlarge(worker, stream) => {
                self.rest(worker, stream, until, false);
            }
            Next::AtWithRoom(_) => {
                if let Some(entry) = self.output.workers.get_mut(&worker) {
                    entry.output.pace(stream).refused(now);
                }
                self.watch_again(worker, stream);
            }
        }
    }

    fn rest(&mut self, worker: WorkerId, stream: Stream, until: Time, watched: bool) {
        let before = self.output.resting.get_mut(worker, stream).is_none_or(|rest| rest.watched);
        let watched = if before == watched { watched } else { self.tell_readiness(worker, stream, watched) };
        let large =
            self.output.workers.get_mut(&worker).is_some_and(|e| e.output.pace(stream).has_large_room());
        self.output.resting.forget(worker, stream);
        self.output.resting.0.push(Rest { worker, stream, until, watched, large });
    }

    /// The flood is over.
    fn watch_again(&mut self, worker: WorkerId, stream: Stream) {
        let Some(rest) = self.output.resting.get_mut(worker, stream) else { return };
        let (watched, large) = (rest.watched, rest.large);
        // Something may have come meanwhile that does not fit any more: then the next end of a flood is due.
        let shrunk = !large
            || self.output.workers.get_mut(&worker).is_some_and(|entry| entry.output.give_room(stream, ROOM));
        if shrunk && (watched || self.tell_readiness(worker, stream, true)) {
            self.output.resting.forget(worker, stream);
        } else {
            self.rest(worker, stream, self.now + PAUSE, true);
        }
    }

    /// What an ended worker left in its pipe is read at once: where somebody reads along, it must not be more than
    /// is kept for a slow reader.
    fn enlarge(&mut self, worker: WorkerId, stream: Stream) -> bool {
        !self.output.is_read_along(stream)
            && !self.output.is_told(worker)
            && self.output.resting.may_enlarge()
            && self
                .output
                .workers
                .get_mut(&worker)
                .is_some_and(|entry| entry.output.give_room(stream, LARGE_ROOM))
    }

    /// Whether the poll is to tell when something comes; the end of the output is always told. What came before
    /// the change is told by it (epoll_ctl(2)). Returns what holds now.
    fn tell_readiness(&mut self, worker: WorkerId, stream: Stream, wanted: bool) -> bool {
        let Some(entry) = self.output.workers.get(&worker) else { return !wanted };
        let token = entry.tokens.iter().find(|(of, _)| *of == stream).map(|(_, token)| *token);
        let Some((fd, token)) = entry.output.source(stream).zip(token) else { return !wanted };
        // Out-of-band data, which a pipe never has: nothing but the end.
        let interest = if wanted { Interest::READABLE } else { Interest::PRIORITY };
        match self.poll.registry().reregister(&mut SourceFd(&fd), token, interest) {
            Ok(()) => wanted,
            Err(error) => {
                log::debug!("output: {error}");
                !wanted
            }
        }
    }
}
