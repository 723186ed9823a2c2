//! The two outputs of one worker, from their pipes to every sink: files, foreground, memory, followers.
//!
//! Reads within a budget, so that a flooding worker costs the others no more than its share of a turn.
//! Refuses to decide when a worker is dead: a closed pipe is not a death, and a grandchild may keep one open.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::file::Source;
use super::files::{FileId, LogFiles};
use super::foreground::Foreground;
use super::form::Form;
use super::journal::{Fields, Journal};
use super::lines::{Batch, LineFramer, Piece, runs};
use super::pace::Pace;
use super::rate::{self, Gate, Meters};
use super::ring::Rings;
use super::{Line, Origin};
use crate::control::protocol::Stream;
use crate::supervisor::time::Time;
use crate::sys::clock;
use crate::sys::output::{Read, read_some, set_pipe_room};

/// The size of the buffer that all pumps share: what a pipe holds by default (pipe(7)).
pub const BUFFER: usize = 64 * 1024;

/// Bytes of formed lines from which on they are written: a line may become many times as long.
const FORMED: usize = 32 * 1024;

/// Of lines that came together, about so many bytes are formed before it is looked how many they have become.
const FORMED_AT_ONCE: usize = 8 * 1024;

/// Everything that takes lines.
pub struct Sinks<'a> {
    /// The open log files.
    pub files: &'a mut LogFiles,
    /// Standard output and error of a foreground supervisor.
    pub foreground: Option<&'a Foreground>,
    /// The last lines.
    pub rings: &'a mut Rings,
    /// Clients that follow, if there are any.
    pub follow: Option<&'a mut dyn FnMut(&Line<'_>)>,
    /// How many lines each app may print.
    pub meters: &'a mut Meters,
    /// Where lines go whose worker has fields for it.
    pub journal: &'a mut Journal,
}

impl<'s> Sinks<'s> {
    /// Our own outputs, where somebody reads what goes there: not the journal what it is told anyway.
    fn reader(&self, stream: Stream, is_told: bool) -> Option<&'s Foreground> {
        let is_wanted = |foreground: &&Foreground| {
            foreground.is_read(stream) && !(is_told && foreground.is_journal(stream))
        };
        self.foreground.filter(is_wanted)
    }

    /// Gives one piece to all but the files.
    fn deliver<'a>(
        &mut self,
        (origin, fields, now): (&'a Origin, Option<&Fields>, Time),
        stream: Stream,
        piece: &Piece<'a>,
        foreground: Option<&Foreground>,
    ) -> Line<'a> {
        let line = Line { origin, stream, bytes: piece.text(), cut: piece.cut, continued: piece.continued };
        self.rings.push(&line);
        if let Some(foreground) = foreground {
            foreground.write_line(&line, self.rings.now());
        }
        if let Some(fields) = fields {
            self.journal.write(fields, &line, now);
        }
        if let Some(follow) = &mut self.follow {
            follow(&line);
        }
        line
    }
}

/// What one pump did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// Bytes read.
    pub read: usize,
    /// The budget ended it: pump again in the next turn (an edge-triggered poll will not say so).
    pub more: bool,
    /// The last writer closed it: deregister it, then [`WorkerOutput::close`] it.
    pub eof: bool,
}

/// The files that take the outputs of a worker; what has none is discarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Standard output.
    pub out: Option<FileId>,
    /// Standard error.
    pub err: Option<FileId>,
    /// Both.
    pub both: Option<FileId>,
}

impl Files {
    /// Each use, to be given back.
    pub fn iter(self) -> impl Iterator<Item = FileId> {
        [self.out, self.err, self.both].into_iter().flatten()
    }

    /// Those that take this stream, each once.
    pub fn of(self, stream: Stream) -> impl Iterator<Item = FileId> {
        let own = match stream {
            Stream::Out => self.out,
            Stream::Err => self.err,
        };
        own.into_iter().chain(self.both.filter(|both| Some(*both) != own))
    }
}

/// The outputs of one worker.
#[derive(Debug)]
pub struct WorkerOutput {
    origin: Origin,
    files: Files,
    /// None: as they are.
    form: Option<Box<Form>>,
    /// None: its lines do not go to the journal.
    fields: Option<Fields>,
    out: Output,
    err: Output,
}

#[derive(Debug)]
struct Output {
    pipe: Option<OwnedFd>,
    framer: LineFramer,
    pace: Pace,
    gate: Gate,
}

impl Output {
    fn new(pipe: OwnedFd) -> Output {
        Output {
            pipe: Some(pipe),
            framer: LineFramer::default(),
            pace: Pace::default(),
            gate: Gate::default(),
        }
    }
}

impl WorkerOutput {
    /// Takes over the non-blocking read ends, and the files that their bytes go to.
    pub fn new(origin: Origin, out: OwnedFd, err: OwnedFd, files: Files) -> WorkerOutput {
        WorkerOutput { origin, files, form: None, fields: None, out: Output::new(out), err: Output::new(err) }
    }

    /// What is read from now on goes to these; returns those that it went to.
    pub fn set_files(&mut self, files: Files) -> Files {
        std::mem::replace(&mut self.files, files)
    }

    /// How lines that are read from now on are written to the files.
    pub fn set_form(&mut self, form: Option<Form>) {
        self.form = form.map(Box::new);
    }

    /// Files get more than its bytes: a line may become many times as long.
    pub fn is_formed(&self) -> bool {
        self.form.is_some()
    }

    /// What the journal is told of it; none where its lines do not go there.
    pub fn set_fields(&mut self, fields: Option<Fields>) {
        self.fields = fields;
    }

    /// Its lines go to the journal.
    pub fn has_fields(&self) -> bool {
        self.fields.is_some()
    }

    /// Whose output it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The descriptor to register; none once it is closed.
    pub fn source(&self, stream: Stream) -> Option<RawFd> {
        self.output(stream).pipe.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Reads up to `budget` bytes and hands on the lines they complete. `buffer` is scratch space, best of
    /// [`BUFFER`] bytes. An end of the stream hands on what stands without a newline, too.
    pub fn pump(
        &mut self,
        stream: Stream,
        budget: usize,
        buffer: &mut [u8],
        sinks: &mut Sinks<'_>,
        now: Time,
    ) -> Pumped {
        let mut pumped = Pumped::default();
        while pumped.read < budget {
            let room = buffer.len().min(budget - pumped.read);
            let Some(pipe) = self.pipe(stream) else {
                return pumped;
            };
            match read_some(pipe, &mut buffer[..room]) {
                Read::Empty => return pumped,
                Read::Bytes(count) => {
                    pumped.read += count;
                    self.pace(stream).read(count);
                    self.limit(stream, &buffer[..count], sinks, now);
                }
                Read::End => {
                    self.finish(stream, sinks, now);
                    pumped.eof = true;
                    return pumped;
                }
            }
        }
        pumped.more = true;
        pumped
    }

    /// How fast it comes.
    pub fn pace(&mut self, stream: Stream) -> &mut Pace {
        &mut self.output_mut(stream).pace
    }

    /// Gives its pipe room for so many bytes, as far as the host allows; whether it has them.
    pub fn give_room(&mut self, stream: Stream, bytes: usize) -> bool {
        let Some(room) = self.pipe(stream).and_then(|pipe| set_pipe_room(pipe, bytes).ok()) else {
            return false;
        };
        self.pace(stream).set_room(room);
        true
    }

    /// Hands on what stands without a newline, when nothing more is waited for (the worker is gone, and a
    /// process that it left behind keeps the pipe open).
    pub fn finish(&mut self, stream: Stream, sinks: &mut Sinks<'_>, now: Time) {
        self.tell_left_out(stream, sinks, now);
        self.take(stream, None, sinks, now);
    }

    /// Says in every sink how many lines were left out that nobody was told of yet.
    pub fn tell_left_out(&mut self, stream: Stream, sinks: &mut Sinks<'_>, now: Time) {
        let lines = self.output_mut(stream).gate.take_untold();
        self.tell(stream, lines, sinks, now);
    }

    /// Closes a pipe, after it was deregistered.
    pub fn close(&mut self, stream: Stream) {
        self.output_mut(stream).pipe = None;
    }

    /// Both pipes are closed.
    pub fn is_closed(&self) -> bool {
        self.out.pipe.is_none() && self.err.pipe.is_none()
    }

    /// The files it writes to, each use of which has to be given back.
    pub fn files(&self) -> Files {
        self.files
    }

    /// Bytes of unfinished lines that are held in memory.
    pub fn held(&self) -> usize {
        self.out.framer.held() + self.err.framer.held()
    }

    /// Takes of one chunk what the app may print.
    fn limit(&mut self, stream: Stream, bytes: &[u8], sinks: &mut Sinks<'_>, now: Time) {
        let Some(meter) = sinks.meters.get_mut(self.origin.app) else {
            return self.take(stream, Some(bytes), sinks, now);
        };
        let (missing, passed) = self.output_mut(stream).gate.pass(bytes, meter, now);
        self.tell(stream, missing, sinks, now);
        self.take(stream, Some(passed), sinks, now);
    }

    /// So many lines are missing here: that is a line of its own, between two of the output's.
    fn tell(&mut self, stream: Stream, missing: u64, sinks: &mut Sinks<'_>, now: Time) {
        if missing > 0 {
            self.take(stream, Some(rate::notice(missing).as_bytes()), sinks, now);
        }
    }

    /// Whether bytes of an unfinished line are held that [`WorkerOutput::show`] would write: not where a line is
    /// written in another form, or where others write to the same file and would tear it.
    pub fn can_show(&self, stream: Stream, files: &LogFiles) -> bool {
        self.output(stream).framer.unshown() > 0
            && self.form.is_none()
            && self.files.both.is_none()
            && self.files.of(stream).all(|file| !files.is_shared(file))
    }

    /// Writes to its file what stands without a newline; who takes lines gets it with the rest of its line.
    pub fn show(&mut self, stream: Stream, files: &mut LogFiles, now: Time) {
        let (source, kept) = ((self.origin.worker, stream), self.files);
        let bytes = self.output_mut(stream).framer.show();
        kept.of(stream).for_each(|file| files.write(file, source, [&[], bytes], now));
    }

    /// Frames one chunk (none: the end) and gives its pieces to the line sinks, then its bytes to the file.
    fn take(&mut self, stream: Stream, chunk: Option<&[u8]>, sinks: &mut Sinks<'_>, now: Time) {
        if self.form.is_some() {
            return self.take_formed(stream, chunk, sinks, now);
        }
        let WorkerOutput { origin, files: kept, fields, out, err, .. } = self;
        let fields = fields.as_ref();
        let output = match stream {
            Stream::Out => out,
            Stream::Err => err,
        };
        let foreground = sinks.reader(stream, fields.is_some());
        let by_line = foreground.is_some() || sinks.follow.is_some() || fields.is_some();
        let mut deliver = |piece: Piece<'_>| {
            sinks.deliver((origin, fields, now), stream, &piece, foreground);
        };
        let Batch { head, body } = match chunk {
            Some(bytes) if by_line => output.framer.push(bytes, &mut deliver),
            Some(bytes) => output.framer.push_runs(bytes, &mut deliver),
            None => output.framer.finish(&mut deliver),
        };
        for file in kept.of(stream) {
            sinks.files.write(file, (origin.worker, stream), [head, body], now);
        }
    }

    /// The same where files do not get the bytes as they are.
    fn take_formed(&mut self, stream: Stream, chunk: Option<&[u8]>, sinks: &mut Sinks<'_>, now: Time) {
        let WorkerOutput { origin, files: kept, form: Some(form), fields, out, err } = self else { return };
        let fields = fields.as_ref();
        let output = match stream {
            Stream::Out => out,
            Stream::Err => err,
        };
        let foreground = sinks.reader(stream, fields.is_some());
        let lead = form.lead(origin, stream, clock::wall());
        let source: Source = (origin.worker, stream);
        let by_line = foreground.is_some() || sinks.follow.is_some() || fields.is_some();
        let mut formed = Vec::new();
        let mut deliver = |piece: Piece<'_>| {
            let line = sinks.deliver((origin, fields, now), stream, &piece, foreground);
            let is_ended = piece.bytes.ends_with(b"\n");
            let mut pass_on = |formed: &mut Vec<u8>| {
                if formed.len() >= FORMED {
                    kept.of(stream).for_each(|file| sinks.files.write(file, source, [&[], formed], now));
                    formed.clear();
                }
            };
            if by_line || !is_ended || piece.continued {
                form.write(&lead, &line, is_ended, &mut formed);
                pass_on(&mut formed);
                return;
            }
            for bytes in runs(piece.bytes, FORMED_AT_ONCE) {
                form.write_lines(&lead, &Line { bytes, ..line }, &mut formed);
                pass_on(&mut formed);
            }
        };
        match chunk {
            Some(bytes) if by_line => output.framer.push(bytes, &mut deliver),
            Some(bytes) => output.framer.push_runs(bytes, &mut deliver),
            None => output.framer.finish(&mut deliver),
        };
        kept.of(stream).for_each(|file| sinks.files.write(file, source, [&[], &formed], now));
    }

    fn pipe(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        self.output(stream).pipe.as_ref().map(AsFd::as_fd)
    }

    fn output(&self, stream: Stream) -> &Output {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        }
    }

    fn output_mut(&mut self, stream: Stream) -> &mut Output {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }
}
