//! Registration of what is watched beside workers: our own outputs, and the end of a channel.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use mio::Interest;
use mio::unix::SourceFd;

use crate::logs::foreground;
use crate::supervisor::event::WorkerId;

use super::Daemon;
use super::sources::Source;

impl Daemon {
    /// Standard output and error are written when their readers have room again. Edge-triggered, so one
    /// registration costs nothing while nothing waits.
    ///
    /// # Errors
    /// When the kernel has no room for one more: what waits would wait for ever.
    pub(super) fn watch_consoles(&mut self) -> io::Result<()> {
        let Some(outputs) = &self.output.foreground else { return Ok(()) };
        let sources: Vec<i32> =
            outputs.consoles().filter_map(|console| foreground::lock(console).source()).collect();
        for fd in sources {
            let token = self.tokens.allot(Source::Console);
            match self.poll.registry().register(&mut SourceFd(&fd), token, Interest::WRITABLE) {
                // Regular files refuse epoll and never need it.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.tokens.release(token),
                other => other?,
            }
        }
        Ok(())
    }

    /// Those who write log files tell of room and of news.
    pub(super) fn watch_disks(&mut self) -> io::Result<()> {
        let Some(fd) = self.output.files.bell().map(|bell| bell.as_raw_fd()) else { return Ok(()) };
        self.watch(fd, Source::Disks).map(drop)
    }

    /// The worker closed its end of the channel.
    pub(super) fn close_channel(&mut self, worker: WorkerId) {
        let channel = self.processes.get_mut(worker).and_then(|p| p.channel.take());
        if let Some(channel) = channel {
            self.unwatch_one(worker, channel.stream().as_raw_fd());
        }
    }

    /// The way to exec is at its end.
    pub(super) fn close_report(&mut self, worker: WorkerId) {
        let report = self.processes.get_mut(worker).and_then(|p| p.report.take());
        if let Some(report) = report {
            self.unwatch_one(worker, report.as_raw_fd());
        }
    }

    /// To be called before the descriptor is closed: its number is given out again at once.
    fn unwatch_one(&mut self, worker: WorkerId, fd: RawFd) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        let watched: Vec<_> = process.tokens.extract_if(.., |(_, watched)| *watched == fd).collect();
        self.unwatch(&watched);
    }
}
