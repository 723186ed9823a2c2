//! journald as the loop has it: what it is told of a worker, and when it has room again.

use mio::Interest;
use mio::unix::SourceFd;

use crate::config::logs::LogSettings;
use crate::logs::journal::{Fields, Notice};
use crate::supervisor::event::{AppId, Generation, WorkerId};

use super::Daemon;
use super::sources::Source;

impl Daemon {
    /// What the journal is told of a worker's lines; none where they do not go there.
    pub(super) fn fields(
        &self,
        worker: WorkerId,
        (app, instance, generation): (AppId, u32, Generation),
        logs: &LogSettings,
    ) -> Option<Fields> {
        let record = self.catalog.app(app).filter(|_| logs.to.has_journal())?;
        let pid = self.processes.get(worker)?.pid;
        Some(Fields::new(app, &record.name, &record.namespace, instance, generation.0, pid))
    }

    /// Registers a new socket, and says what became of lines. Where the poll has no room for one more, what waits
    /// is tried by the clock.
    pub(super) fn look_after_journal(&mut self) {
        if let Some(fd) = self.output.journal.take_fresh() {
            // One that was closed left the poll by itself: nobody else has it open.
            let token = self.tokens.allot(Source::Journal);
            self.output
                .journal_token
                .replace(token)
                .into_iter()
                .for_each(|before| self.tokens.release(before));
            if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token, Interest::WRITABLE) {
                log::debug!("watch the journal: {error}");
            }
        }
        for notice in self.output.journal.take_notices() {
            match notice {
                Notice::Unreachable { .. } | Notice::Dropping { .. } => log::warn!("{notice}"),
                Notice::Resumed { .. } => log::info!("{notice}"),
            }
        }
    }
}
