//! What workers print, tied to the loop: pipes in, files, the foreground, memory and followers out.

use std::collections::HashMap;
use std::mem;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::Token;
use mio::unix::SourceFd;

use crate::config::logs::LogSettings;
use crate::control::protocol::Stream;
use crate::logs::Line;
use crate::logs::console::QUEUE_LIMIT;
use crate::logs::files::{FileId, LogFiles, Notice};
use crate::logs::foreground::{self, Foreground, SharedConsole};
use crate::logs::journal::{self, Journal};
use crate::logs::rate::Meters;
use crate::logs::ring::{Kept, Rings};
use crate::logs::worker::{BUFFER, Files, Sinks, WorkerOutput};
use crate::supervisor::event::{AppId, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::behalf::Behalf;
use crate::sys::clock;
use crate::sys::output::OpenError;

use super::Daemon;
use super::follow::Followers;
use super::rest::Resting;

/// Bytes read from workers' outputs in one turn of the loop: floods cost everybody else no more than that.
const BUDGET: usize = 256 * 1024;

/// The least that one of many floods is read in a turn.
const LEAST_SHARE: usize = 8 * 1024;

/// Bytes read from an output whose worker has ended: its pipe holds no more (F_GETPIPE_SZ, at most 1 MiB
/// without privilege), and a grandchild that writes on must not hold the loop.
const LAST_WORDS: usize = 1024 * 1024;

/// A chunk that a worker printed must find room on the console even if each of its lines gets a prefix.
const CHUNK: usize = 32 * 1024;

/// Bytes that wait for the reader of our own output, from which on workers' outputs are left unread.
const CONGESTED: usize = QUEUE_LIMIT / 4;

/// How long the reader of our own output may take nothing until workers are read all the same and what
/// it cannot take is dropped: a stalled terminal must not stop a worker.
const PATIENCE: Duration = Duration::from_millis(500);

/// All outputs.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) files: LogFiles,
    pub(super) foreground: Option<Foreground>,
    rings: Rings,
    meters: Meters,
    pub(super) journal: Journal,
    /// Of its socket.
    pub(super) journal_token: Option<Token>,
    /// Boxed: half of the places of a table are empty, and each pump takes its entry out.
    pub(super) workers: HashMap<WorkerId, Box<Entry>>,
    pub(super) followers: Followers,
    /// Outputs that are not read while the reader of our own is behind.
    held_back: Vec<(WorkerId, Stream)>,
    /// Outputs that are not read while the disk of their files is behind.
    wait_for_disk: Vec<(WorkerId, Stream)>,
    /// Outputs that ended in the middle of a line, and when that is shown in their file.
    unfinished: HashMap<(WorkerId, Stream), Time>,
    /// Outputs of floods.
    pub(super) resting: Resting,
    /// When that reader last took something, or had nothing to take.
    moved: Time,
    /// Bytes that each output may be read in this turn.
    share: usize,
}

/// How long nothing more comes of a line until its beginning is written: a prompt, or dots of progress.
const UNFINISHED: Duration = Duration::from_secs(1);

/// Where journald listens; CLUSTERD_JOURNAL_SOCKET says otherwise.
fn journal_socket() -> PathBuf {
    let variable = std::env::var_os("CLUSTERD_JOURNAL_SOCKET").filter(|path| !path.is_empty());
    variable.map_or_else(|| PathBuf::from(journal::SOCKET), PathBuf::from)
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) output: WorkerOutput,
    pub(super) tokens: Vec<(Stream, Token)>,
}

impl Output {
    /// Whether this goes to our own standard output or error, or to a client.
    pub(super) fn is_read_along(&self, stream: Stream) -> bool {
        !self.followers.is_empty() || self.foreground.as_ref().is_some_and(|console| console.is_read(stream))
    }

    pub(super) fn new(foreground: Option<Foreground>, files: LogFiles) -> Output {
        Output {
            files,
            foreground,
            rings: Rings::default(),
            meters: Meters::default(),
            journal: Journal::new(journal_socket()),
            journal_token: None,
            workers: HashMap::new(),
            followers: Followers::default(),
            held_back: Vec::new(),
            wait_for_disk: Vec::new(),
            unfinished: HashMap::new(),
            resting: Resting::default(),
            moved: Time::START,
            share: BUDGET,
        }
    }

    /// A turn begins in which so many outputs have more to read than they were read before.
    pub(super) fn begin_turn(&mut self, floods: usize) {
        self.share = (BUDGET / floods.max(1)).max(LEAST_SHARE);
    }

    /// Writes what the reader of our own output takes.
    pub(super) fn flush(&mut self, now: Time) {
        let before = self.waiting();
        if let Some(foreground) = &self.foreground {
            foreground.flush();
        }
        if before == 0 || self.waiting() < before {
            self.moved = now;
        }
        if self.journal.has_waiting() {
            self.journal.flush(now);
        }
    }

    /// Our own outputs whose readers are behind.
    pub(super) fn descriptors_with_backlog(&self) -> Vec<RawFd> {
        let consoles = self.foreground.iter().flat_map(Foreground::consoles);
        let behind = |console: &SharedConsole| {
            let console = foreground::lock(console);
            console.wants_write().then(|| console.source()).flatten()
        };
        consoles.filter_map(behind).chain(self.journal.backlog()).collect()
    }

    fn waiting(&self) -> usize {
        let consoles = self.foreground.iter().flat_map(Foreground::consoles);
        consoles.map(|console| foreground::lock(console).waiting()).sum()
    }

    /// How much is read before the reader of our own output, the journal, or the disk has its say.
    fn part(&self, worker: WorkerId, stream: Stream) -> usize {
        if self.is_told(worker) {
            journal::CHUNK
        } else if self.foreground.as_ref().is_some_and(|foreground| foreground.is_read(stream)) {
            CHUNK
        } else if self.workers.get(&worker).is_some_and(|entry| entry.output.is_formed()) {
            BUFFER
        } else {
            BUDGET
        }
    }

    /// The reader of our own output is behind, and still takes something now and then.
    fn is_congested(&self, now: Time) -> bool {
        self.waiting() > CONGESTED && now.since(self.moved) < PATIENCE
    }

    /// Its lines go to the journal.
    pub(super) fn is_told(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|entry| entry.output.has_fields())
    }

    /// Whoever takes its lines is behind: then it is held back.
    fn must_wait(&mut self, worker: WorkerId, stream: Stream, now: Time) -> bool {
        let is_behind =
            self.is_congested(now) || (self.is_told(worker) && self.journal.behind_until(now).is_some());
        let held = if is_behind {
            &mut self.held_back
        } else if self.awaits_disk(worker, stream) {
            &mut self.wait_for_disk
        } else {
            return false;
        };
        if !held.contains(&(worker, stream)) {
            held.push((worker, stream));
        }
        self.resting.put_off(worker, stream, now + PATIENCE);
        true
    }

    /// A disk that its lines go to is behind.
    fn awaits_disk(&self, worker: WorkerId, stream: Stream) -> bool {
        let files = self.workers.get(&worker).map(|entry| entry.output.files());
        // Each is asked, so that each is waited for.
        let behind =
            files.into_iter().flat_map(|files| files.of(stream)).filter(|file| self.files.awaits_room(*file));
        behind.count() > 0
    }

    /// Outputs that can be read again.
    pub(super) fn released(&mut self, now: Time) -> Vec<(WorkerId, Stream)> {
        let mut released = Vec::new();
        if !self.wait_for_disk.is_empty() {
            let held = mem::take(&mut self.wait_for_disk);
            (self.wait_for_disk, released) =
                held.into_iter().partition(|(worker, stream)| self.awaits_disk(*worker, *stream));
        }
        if !(self.held_back.is_empty() || self.is_congested(now) || self.journal.behind_until(now).is_some())
        {
            released.append(&mut self.held_back);
        }
        released
    }

    /// Its pipe is closed.
    fn forget_held(&mut self, worker: WorkerId, stream: Stream) {
        self.wait_for_disk.retain(|held| *held != (worker, stream));
        self.unfinished.remove(&(worker, stream));
        self.resting.forget(worker, stream);
    }

    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        let patience = (!self.held_back.is_empty()).then(|| self.moved + PATIENCE);
        let behind = self.journal.behind_until(now).filter(|_| !self.held_back.is_empty());
        let deadlines = [
            self.files.next_deadline(),
            patience,
            self.resting.next_deadline(),
            self.unfinished.values().min().copied(),
            self.meters.next_deadline(),
            self.journal.next_deadline(),
            behind,
        ];
        deadlines.into_iter().flatten().min()
    }

    pub(super) fn retry(&mut self, now: Time) {
        self.files.retry(now);
        self.journal.retry(now);
    }

    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        self.files.take_notices()
    }

    pub(super) fn last_lines(&self, worker: WorkerId, count: usize) -> Vec<String> {
        let kept = self.rings.last(worker, count);
        kept.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
    }

    pub(super) fn last_of_app(
        &self,
        app: AppId,
        count: usize,
        wants: impl Fn(u32, Stream) -> bool,
    ) -> Vec<Kept> {
        self.rings.last_of_app(app, count, wants)
    }

    pub(super) fn forget_app(&mut self, app: AppId) {
        self.rings.forget_app(app);
        self.meters.forget(app);
        self.files.forget_app(app);
        self.journal.forget(app);
        self.followers.forget_app(app);
        if let Some(foreground) = &self.foreground {
            foreground.forget(app);
        }
    }

    pub(super) fn insert(&mut self, worker: WorkerId, output: WorkerOutput) {
        if let Some(foreground) = &self.foreground {
            let origin = output.origin();
            foreground.announce(origin.app, &origin.shown(), origin.instance);
        }
        let tokens = Vec::with_capacity(2);
        self.workers.insert(worker, Box::new(Entry { output, tokens }));
    }

    pub(super) fn set_token(&mut self, worker: WorkerId, stream: Stream, token: Token) {
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.tokens.push((stream, token));
        }
    }

    pub(super) fn open(
        &mut self,
        (path, behalf): (&Path, Behalf),
        app: AppId,
        logs: &LogSettings,
        now: Time,
    ) -> Result<FileId, OpenError> {
        let file = self.files.open_for(path, behalf)?;
        self.files.set(file, app, logs, now);
        Ok(file)
    }

    /// What holds for all output of an app from now on.
    pub(super) fn take_over(&mut self, app: AppId, logs: &LogSettings) {
        self.meters.set(app, logs.rate);
    }

    /// Lines of an app that were over its limit; none where it never had one.
    pub(super) fn left_out(&self, app: AppId) -> Option<u64> {
        self.meters.left_out(app)
    }

    pub(super) fn file_path(&self, file: FileId) -> Option<&Path> {
        self.files.path(file)
    }

    pub(super) fn forget_lines(&mut self, app: AppId) {
        self.rings.forget_app(app);
    }

    pub(super) fn release(&mut self, files: Files) {
        files.iter().for_each(|file| self.files.release(file));
    }
}

impl Daemon {
    /// Reads one output's share of a turn. True when there is more.
    pub(super) fn read_output(&mut self, worker: WorkerId, stream: Stream) -> bool {
        let other = match stream {
            Stream::Out => Stream::Err,
            Stream::Err => Stream::Out,
        };
        // What it said there before comes first.
        if self.output.resting.gathers(worker, other) {
            self.read_one(worker, other);
        }
        self.read_one(worker, stream)
    }

    fn read_one(&mut self, worker: WorkerId, stream: Stream) -> bool {
        let mut read = 0;
        while read < self.output.share {
            if self.output.must_wait(worker, stream, self.now) {
                return false;
            }
            let part = self.output.part(worker, stream).min(self.output.share - read);
            if !self.pump(worker, stream, part) {
                self.pace_output(worker, stream);
                return false;
            }
            read += part;
        }
        true
    }

    /// What an ended worker still had in its pipes.
    pub(super) fn drain_output(&mut self, worker: WorkerId) {
        for stream in [Stream::Out, Stream::Err] {
            self.pump(worker, stream, LAST_WORDS);
        }
    }

    fn pump(&mut self, worker: WorkerId, stream: Stream, budget: usize) -> bool {
        let now = self.now;
        let Some(mut entry) = self.output.workers.remove(&worker) else { return false };
        let pumped = self.with_sinks(|sinks, buffer| entry.output.pump(stream, budget, buffer, sinks, now));
        if pumped.eof {
            self.close_output(&mut entry, stream);
        } else if entry.output.can_show(stream, &self.output.files) {
            self.output.unfinished.insert((worker, stream), now + UNFINISHED);
        } else if !self.output.unfinished.is_empty() {
            self.output.unfinished.remove(&(worker, stream));
        }
        self.output.workers.insert(worker, entry);
        if pumped.eof {
            self.end_outlived();
        }
        pumped.more && !pumped.eof
    }

    /// The worker and its whole tree are gone.
    pub(super) fn end_output(&mut self, worker: WorkerId) {
        let now = self.now;
        self.drain_output(worker);
        let Some(mut entry) = self.output.workers.remove(&worker) else { return };
        for stream in [Stream::Out, Stream::Err] {
            self.with_sinks(|sinks, _| entry.output.finish(stream, sinks, now));
            self.close_output(&mut entry, stream);
        }
        self.output.release(entry.output.files());
        self.output.rings.forget_worker(worker);
    }

    /// Writes what stands without a newline where nothing more has come of it for a while.
    pub(super) fn show_unfinished(&mut self) {
        let (now, output) = (self.now, &mut self.output);
        let due: Vec<_> = output.unfinished.extract_if(|_, at| *at <= now).map(|(whose, _)| whose).collect();
        for (worker, stream) in due {
            let Some(entry) = output.workers.get_mut(&worker) else { continue };
            // Others may write there by now.
            if entry.output.can_show(stream, &output.files) {
                entry.output.show(stream, &mut output.files, now);
            }
        }
    }

    /// Says of apps that print no more, for now, what was left out.
    pub(super) fn tell_left_out(&mut self) {
        let now = self.now;
        for app in self.output.meters.due(now) {
            let workers = self.output.workers.iter().filter(|(_, entry)| entry.output.origin().app == app);
            let workers: Vec<WorkerId> = workers.map(|(worker, _)| *worker).collect();
            for worker in workers {
                let Some(mut entry) = self.output.workers.remove(&worker) else { continue };
                for stream in [Stream::Out, Stream::Err] {
                    self.with_sinks(|sinks, _| entry.output.tell_left_out(stream, sinks, now));
                }
                self.output.workers.insert(worker, entry);
            }
        }
    }

    fn close_output(&mut self, entry: &mut Entry, stream: Stream) {
        let Some(fd) = entry.output.source(stream) else { return };
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
            log::debug!("output: {error}");
        }
        entry.output.close(stream);
        self.output.forget_held(entry.output.origin().worker, stream);
        for (_, token) in entry.tokens.iter().filter(|(s, _)| *s == stream) {
            self.tokens.release(*token);
        }
    }

    fn with_sinks<T>(&mut self, work: impl FnOnce(&mut Sinks<'_>, &mut [u8]) -> T) -> T {
        let mut followers = mem::take(&mut self.output.followers);
        let server = &mut self.server;
        let followed = !followers.is_empty();
        let at = clock::wall();
        self.output.rings.set_now(at);
        let mut follow = |line: &Line<'_>| followers.pass_on(server, line, at);
        let mut sinks = Sinks {
            files: &mut self.output.files,
            foreground: self.output.foreground.as_ref(),
            rings: &mut self.output.rings,
            follow: followed.then_some(&mut follow),
            meters: &mut self.output.meters,
            journal: &mut self.output.journal,
        };
        let result = work(&mut sinks, &mut self.buffer);
        self.output.followers = followers;
        result
    }
}
