//! What others find this supervisor by: its lock, its control socket and its notify socket. A cleaner of old files,
//! or a person, may take them away; they are put back at once, the lock first. The kernel tells when that is needed;
//! where it does not, a look now and then has to do.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::supervisor::time::Time;
use crate::sys::inotify::Queue;

use super::sources::Source;
use super::{Daemon, Error, host};

/// Between two looks where the kernel does not tell, and after what could not be put back.
const LOOK: Duration = Duration::from_secs(5);

/// After something was put back nothing is for so long: who removes it again and again costs little.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two lines about it.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Doors {
    watched: Option<(Queue, Token)>,
    /// When they are looked at next.
    look_at: Option<Time>,
    /// Nothing is put back before this.
    rests_until: Time,
    /// When it was last told that something was gone, and whether that could be put back.
    told: Option<(Time, bool)>,
}

impl Doors {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// The kernel has something to tell.
    pub(super) fn heard(&mut self, now: Time) {
        if self.watched.as_ref().is_some_and(|(queue, _)| queue.heard()) {
            self.look_at = Some(now.max(self.rests_until));
        }
    }
}

/// Device and inode of what is under a path.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Daemon {
    /// Has the kernel tell from now on.
    pub(super) fn watch_doors(&mut self) {
        if let Some((queue, token)) = self.doors.watched.take() {
            self.unwatch(&[(token, queue.as_raw_fd())]);
        }
        match self.watched_doors() {
            Ok(watched) => self.doors.watched = Some(watched),
            Err(error) => {
                log::debug!("watch the control socket: {error}; it is looked at now and then");
                self.doors.look_at = Some(self.now + LOOK);
            }
        }
    }

    fn watched_doors(&mut self) -> io::Result<(Queue, Token)> {
        let queue = Queue::new()?;
        for place in [&self.home.runtime, &self.home.lock(), &self.home.socket(), &self.home.notify()] {
            queue.add_place(place)?;
        }
        let token = self.tokens.allot(Source::Doors);
        self.poll.registry().register(&mut SourceFd(&queue.as_raw_fd()), token, Interest::READABLE)?;
        Ok((queue, token))
    }

    /// Puts back what is gone, when there may be something.
    pub(super) fn look_at_doors(&mut self) {
        if self.doors.look_at.is_none_or(|at| self.now < at) {
            return;
        }
        let gone = self.gone_doors();
        if gone.is_empty() {
            self.doors.look_at = self.doors.watched.is_none().then(|| self.now + LOOK);
            return;
        }
        let put_back = self.put_doors_back();
        self.watch_doors();
        // What was removed before it was watched again is told by nobody.
        self.doors.rests_until = self.now + PAUSE;
        self.doors.look_at = Some(self.now + if put_back.is_ok() { PAUSE } else { LOOK });
        let told = |(at, well): (Time, bool)| self.now.since(at) < TOLD_EVERY && well == put_back.is_ok();
        if self.doors.told.is_some_and(told) {
            return;
        }
        self.doors.told = Some((self.now, put_back.is_ok()));
        let (folder, gone) = (self.home.runtime.display(), gone.join(", "));
        match put_back {
            Ok(()) => log::warn!(
                "{folder}: somebody removed or replaced {gone} of the supervisor that runs here; made anew. Is there \
                 a cleaner of old files that is to leave this folder alone?"
            ),
            Err(Error::Running { pid, .. }) => log::error!(
                "{folder}: somebody removed {gone}, and another supervisor (pid {pid}) was started here before it was \
                 made anew; this one (pid {}) hears signals only: end one of them",
                std::process::id()
            ),
            Err(error) => log::error!(
                "{folder}: somebody removed or replaced {gone}, so no command reaches the supervisor, signals do; it \
                 cannot be made anew: {error}; it is tried again"
            ),
        }
    }

    /// By name, what does not lead to us any more.
    fn gone_doors(&self) -> Vec<&'static str> {
        let all = [
            ("the lock", self.locks.is_found(&self.home)),
            ("the control socket", self.server.is_found()),
            ("the notify socket", self.notified.is_found()),
        ];
        all.into_iter().filter(|(_, found)| !found).map(|(name, _)| name).collect()
    }

    /// The lock first: without it the sockets may be another supervisor's.
    fn put_doors_back(&mut self) -> Result<(), Error> {
        let gone = self.gone_doors();
        self.home.create_runtime()?;
        if gone.contains(&"the lock") {
            self.locks.take_again(&self.home)?;
        }
        if !self.server.is_found() {
            let mut incoming = Vec::new();
            let bound = self.server.bind_again(self.now, &mut incoming);
            self.take_in(incoming);
            bound.map_err(host("control socket"))?;
        }
        if !self.notified.is_found() {
            self.notified.bind_again(&self.poll, &mut self.tokens)?;
        }
        Ok(())
    }
}
