//! The last lines of every app and of every worker, in memory that never passes its bounds and grows only
//! with what was written. Refuses to be a log: what is older is in the files.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use memchr::memrchr;

use super::{Line, Origin};
use crate::control::protocol::Stream;
use crate::supervisor::event::{AppId, WorkerId};

/// Lines kept per app.
pub const APP_LINES: usize = 1000;

/// Bytes of text kept per app.
pub const APP_BYTES: usize = 256 * 1024;

/// Lines kept per worker, whatever its siblings print: what a failed start or reload is explained with.
pub const WORKER_LINES: usize = 20;

/// Bytes of text kept per worker.
pub const WORKER_BYTES: usize = 16 * 1024;

/// A line as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Who printed it.
    pub worker: WorkerId,
    /// The worker's number within its app.
    pub instance: u32,
    /// Which output.
    pub stream: Stream,
    /// The text as it was written, without the newline.
    pub bytes: Vec<u8>,
    /// The line goes on after this.
    pub cut: bool,
    /// It goes on with the line before.
    pub continued: bool,
    /// When it was read, since the epoch.
    pub at: Duration,
}

/// The last lines of all apps and workers.
#[derive(Debug, Default)]
pub struct Rings {
    apps: BTreeMap<AppId, Ring>,
    workers: BTreeMap<WorkerId, Ring>,
    now: Duration,
}

impl Rings {
    /// What is pushed from now on is read at this time, since the epoch.
    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// The time of what is read now.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Keeps a line, or several whole ones with newlines between them. A worker's first one makes room for it, until [`Rings::forget_worker`].
    pub fn push(&mut self, line: &Line<'_>) {
        let Origin { app, worker, .. } = *line.origin;
        let now = self.now;
        self.apps.entry(app).or_insert_with(|| Ring::new(APP_LINES, APP_BYTES)).push(line, now);
        self.workers.entry(worker).or_insert_with(|| Ring::new(WORKER_LINES, WORKER_BYTES)).push(line, now);
    }

    /// The app's last `count` lines among those of wanted instances and streams, oldest first.
    pub fn last_of_app(&self, app: AppId, count: usize, wants: impl Fn(u32, Stream) -> bool) -> Vec<Kept> {
        self.apps.get(&app).map_or_else(Vec::new, |ring| ring.last(count, wants))
    }

    /// The worker's last `count` lines ([`WORKER_LINES`] at most), oldest first.
    pub fn last(&self, worker: WorkerId, count: usize) -> Vec<Kept> {
        self.workers.get(&worker).map_or_else(Vec::new, |ring| ring.last(count, |_, _| true))
    }

    /// Frees what was kept for a worker that is gone; its app's lines stay.
    pub fn forget_worker(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// Frees what was kept for an app that was deleted.
    pub fn forget_app(&mut self, app: AppId) {
        self.apps.remove(&app);
    }
}

/// Where the text of one kept line, or of several, ends is where the next one's begins.
#[derive(Clone, Copy, Debug)]
struct Entry {
    len: usize,
    worker: WorkerId,
    instance: u32,
    stream: Stream,
    cut: bool,
    continued: bool,
    /// Milliseconds since the epoch.
    at: u64,
}

/// A bounded queue of lines that drops the oldest. Lines that came together are taken apart when somebody asks
/// for them: a flood is kept at the cost of copying it.
#[derive(Debug)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: VecDeque<u8>,
    max_lines: usize,
    max_bytes: usize,
}

impl Ring {
    fn new(max_lines: usize, max_bytes: usize) -> Ring {
        Ring { entries: VecDeque::new(), bytes: VecDeque::new(), max_lines, max_bytes }
    }

    /// Of a line that is longer than the whole ring, the beginning is kept and marked as cut.
    fn push(&mut self, line: &Line<'_>, now: Duration) {
        let lines = last_lines(line.bytes, self.max_lines, self.max_bytes);
        let kept = &lines[..lines.len().min(self.max_bytes)];
        while self.entries.len() >= self.max_lines || self.bytes.len() + kept.len() > self.max_bytes {
            self.drop_oldest();
        }
        self.reserve(kept.len());
        self.bytes.extend(kept);
        self.entries.push_back(Entry {
            len: kept.len(),
            worker: line.origin.worker,
            instance: line.origin.instance,
            stream: line.stream,
            cut: line.cut || kept.len() < lines.len(),
            continued: line.continued,
            at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        });
    }

    fn drop_oldest(&mut self) {
        let len = self.entries.pop_front().map_or(self.bytes.len(), |entry| entry.len);
        self.bytes.drain(..len);
    }

    /// Doubles as a vector does, but never past the bound.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let wanted = needed.max(2 * self.bytes.capacity()).min(self.max_bytes);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }

    fn last(&self, count: usize, wants: impl Fn(u32, Stream) -> bool) -> Vec<Kept> {
        let count = count.min(self.max_lines);
        let mut end = self.bytes.len();
        let mut found = Vec::new();
        for entry in self.entries.iter().rev() {
            if found.len() == count {
                break;
            }
            let start = end - entry.len;
            if wants(entry.instance, entry.stream) {
                let text: Vec<u8> = self.bytes.range(start..end).copied().collect();
                let lines = text.rsplit(|byte| *byte == b'\n').take(count - found.len());
                found.extend(lines.map(|line| entry.kept(line)));
            }
            end = start;
        }
        found.reverse();
        found
    }
}

impl Entry {
    fn kept(&self, line: &[u8]) -> Kept {
        Kept {
            worker: self.worker,
            instance: self.instance,
            stream: self.stream,
            bytes: line.to_vec(),
            cut: self.cut,
            continued: self.continued,
            at: Duration::from_millis(self.at),
        }
    }
}

/// The last of several lines, as many as fit; of them the very last one also when it does not.
fn last_lines(text: &[u8], max_lines: usize, max_bytes: usize) -> &[u8] {
    let mut start = text.len();
    for _ in 0..max_lines {
        let newline = memrchr(b'\n', &text[..start]);
        let line = newline.map_or(0, |newline| newline + 1);
        if text.len() - line > max_bytes && start < text.len() {
            return &text[start + 1..];
        }
        let Some(newline) = newline else { return text };
        start = newline;
    }
    &text[start + 1..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(worker: u64) -> Origin {
        Origin {
            app: AppId(1),
            worker: WorkerId(worker),
            namespace: "default".into(),
            name: "api".into(),
            instance: worker as u32,
        }
    }

    fn line<'a>(origin: &'a Origin, stream: Stream, bytes: &'a [u8]) -> Line<'a> {
        Line { origin, stream, bytes, cut: false, continued: false }
    }

    fn all(_: u32, _: Stream) -> bool {
        true
    }

    fn only(stream: Stream) -> impl Fn(u32, Stream) -> bool {
        move |_, other| other == stream
    }

    fn texts(kept: Vec<Kept>) -> Vec<String> {
        kept.into_iter().map(|kept| String::from_utf8(kept.bytes).unwrap()).collect()
    }

    #[test]
    fn a_failed_worker_is_heard_even_when_its_siblings_flood() {
        let (quiet, loud) = (origin(1), origin(2));
        let mut rings = Rings::default();
        for number in 0..30 {
            rings.push(&line(&quiet, Stream::Err, format!("cause {number}").as_bytes()));
        }
        for _ in 0..10_000 {
            rings.push(&line(&loud, Stream::Out, &[b'x'; 500]));
        }
        assert_eq!(texts(rings.last(WorkerId(1), 2)), ["cause 28", "cause 29"]);
        assert_eq!(rings.last(WorkerId(1), 100).len(), WORKER_LINES);
        assert_eq!(rings.last_of_app(AppId(1), 10, only(Stream::Err)), []);
        rings.forget_worker(WorkerId(1));
        assert_eq!(rings.last(WorkerId(1), 2), []);
    }

    #[test]
    fn the_last_lines_come_oldest_first_and_by_stream() {
        let origin = origin(1);
        let mut rings = Rings::default();
        for (stream, text) in [(Stream::Out, "a"), (Stream::Err, "b"), (Stream::Out, "c"), (Stream::Out, "d")]
        {
            rings.push(&line(&origin, stream, text.as_bytes()));
        }
        assert_eq!(texts(rings.last_of_app(AppId(1), 3, all)), ["b", "c", "d"]);
        assert_eq!(texts(rings.last_of_app(AppId(1), 3, only(Stream::Out))), ["a", "c", "d"]);
        assert_eq!(rings.last_of_app(AppId(2), 3, all), []);
    }

    #[test]
    fn each_line_has_the_time_at_which_it_was_read_and_its_instance() {
        let (first, second) = (origin(1), origin(2));
        let mut rings = Rings::default();
        for (origin, seconds) in [(&first, 10), (&second, 20), (&first, 30)] {
            rings.set_now(Duration::from_secs(seconds));
            rings.push(&line(origin, Stream::Out, b"a\nb"));
        }
        let of_first = rings.last_of_app(AppId(1), 3, |instance, _| instance == 1);
        let times: Vec<u64> = of_first.iter().map(|kept| kept.at.as_secs()).collect();
        assert_eq!(times, [10, 30, 30]);
    }

    #[test]
    fn lines_that_came_together_are_told_one_by_one() {
        let origin = origin(1);
        let mut rings = Rings::default();
        rings.push(&line(&origin, Stream::Out, b"a\n\nb"));
        rings.push(&line(&origin, Stream::Err, b"c"));
        assert_eq!(texts(rings.last_of_app(AppId(1), 10, all)), ["a", "", "b", "c"]);
        assert_eq!(texts(rings.last_of_app(AppId(1), 2, only(Stream::Out))), ["", "b"]);
        let many: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
        rings.push(&line(&origin, Stream::Out, many.join("\n").as_bytes()));
        assert_eq!(texts(rings.last_of_app(AppId(1), usize::MAX, all)), many[1000..]);
        assert_eq!(texts(rings.last(WorkerId(1), usize::MAX)), many[1980..]);
    }

    #[test]
    fn of_lines_that_came_together_those_are_kept_that_fit_whole() {
        let rows: &[(&str, usize, usize, &str)] = &[
            ("", 1, 1, ""),
            ("a\nbb\nccc", 9, 8, "a\nbb\nccc"),
            ("a\nbb\nccc", 9, 7, "bb\nccc"),
            ("a\nbb\nccc", 9, 5, "ccc"),
            ("a\nbb\nccc", 9, 2, "ccc"),
            ("a\nbb\nccc", 2, 99, "bb\nccc"),
            ("a\nbb\n", 1, 99, ""),
            ("\n\n\n", 2, 99, "\n"),
            ("long", 1, 2, "long"),
        ];
        for (text, lines, bytes, expected) in rows {
            let kept = last_lines(text.as_bytes(), *lines, *bytes);
            assert_eq!(kept, expected.as_bytes(), "{text:?} {lines} {bytes}");
        }
    }

    #[test]
    fn memory_stays_within_both_bounds() {
        let origin = origin(1);
        let mut ring = Ring::new(APP_LINES, APP_BYTES);
        ring.push(&line(&origin, Stream::Out, b"one"), Duration::ZERO);
        assert!(ring.bytes.capacity() < 64);
        for len in (0..3000).chain([APP_BYTES - 1, APP_BYTES, APP_BYTES + 1, 70_000, 0]) {
            ring.push(&line(&origin, Stream::Out, &vec![b'x'; len]), Duration::ZERO);
            assert!(ring.entries.len() <= APP_LINES && ring.bytes.capacity() <= APP_BYTES);
            assert_eq!(ring.bytes.len(), ring.entries.iter().map(|entry| entry.len).sum::<usize>());
        }
        for _ in 0..3000 {
            ring.push(&line(&origin, Stream::Out, b""), Duration::ZERO);
        }
        assert_eq!(ring.entries.len(), APP_LINES);
    }
}
