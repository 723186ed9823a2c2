//! Lines on their way to journald, each with fields that say whose it is.
//!
//! Never waits: what a full socket does not take is kept up to a limit, and then dropped and counted; a line in the
//! journal says so, once there is room again. Refuses to log: what people should hear is collected for the caller.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;

use super::Line;
use crate::control::protocol::Stream;
use crate::supervisor::event::AppId;
use crate::supervisor::time::Time;
use crate::sys::journal;

/// Where journald listens (systemd-journald.service(8)).
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Bytes that may wait for journald, over all apps.
pub const QUEUE_LIMIT: usize = 2 * 1024 * 1024;

/// Bytes that wait from which on the outputs that go there are left unread, as long as journald takes some.
const BEHIND: usize = QUEUE_LIMIT / 4;

/// So much is read of an output at a time: were each byte a line, they would find room.
pub const CHUNK: usize = 8 * 1024;

/// What a waiting line takes beside its text.
const OVERHEAD: usize = 64;

/// Messages that are sent in one turn of the loop.
const SHARE: usize = 512;

/// Messages, and bytes of them from which on there are no more, that are sent by one system call.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 64 * 1024;

/// Unused room that the queue keeps.
const KEPT: usize = 64;

/// How long journald may take nothing until outputs are read all the same, and what finds no room is dropped.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is tried anew, and how long a trouble lasts at least.
const RETRY: Duration = Duration::from_secs(1);

/// How serious a line is, as syslog(3) counts: what docker and podman make of the two outputs, too.
const INFORMATIONAL: u8 = 6;
const ERROR: u8 = 3;
const WARNING: u8 = 4;

/// Who prints, as the journal is told: fields that are the same for all lines of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    app: AppId,
    text: Rc<str>,
}

impl Fields {
    /// None of these texts can hold a control character: names match a pattern, the others are numbers.
    pub fn new(app: AppId, name: &str, namespace: &str, instance: u32, generation: u32, pid: i32) -> Fields {
        let text = format!(
            "SYSLOG_IDENTIFIER={name}\nCLUSTERD_APP={name}\nCLUSTERD_NAMESPACE={namespace}\n\
             CLUSTERD_INSTANCE={instance}\nCLUSTERD_GENERATION={generation}\nCLUSTERD_PID={pid}\n"
        );
        Fields { app, text: text.into() }
    }
}

/// What waits to be sent.
#[derive(Debug)]
struct Waiting {
    fields: Fields,
    /// None for a word of our own.
    stream: Option<Stream>,
    text: Vec<u8>,
    cut: bool,
    continued: bool,
}

impl Waiting {
    fn size(&self) -> usize {
        self.text.len() + OVERHEAD
    }

    /// Appends it as the protocol has it: `NAME=value` for text, and for a value with control characters its length
    /// before it.
    fn encode(&self, to: &mut Vec<u8>) {
        let (priority, text) = match self.stream {
            None => (WARNING, self.text.as_slice()),
            Some(stream) => prioritised(stream, &self.text),
        };
        if text.iter().any(|byte| *byte < b' ' && *byte != b'\t') {
            to.extend_from_slice(b"MESSAGE\n");
            to.extend_from_slice(&(text.len() as u64).to_le_bytes());
        } else {
            to.extend_from_slice(b"MESSAGE=");
        }
        to.extend_from_slice(text);
        let mut rest = format!("\nPRIORITY={priority}\n");
        let stream = match self.stream {
            Some(Stream::Out) => "CLUSTERD_STREAM=out\n",
            Some(Stream::Err) => "CLUSTERD_STREAM=err\n",
            None => "",
        };
        rest += stream;
        for (holds, field) in [(self.cut, "CLUSTERD_CUT"), (self.continued, "CLUSTERD_CONTINUED")] {
            if holds {
                let _ = writeln!(rest, "{field}=1");
            }
        }
        to.extend_from_slice(rest.as_bytes());
        to.extend_from_slice(self.fields.text.as_bytes());
    }
}

/// A line that begins with `<0>` to `<7>` says itself how serious it is (sd-daemon(3)), as systemd has it, too.
fn prioritised(stream: Stream, text: &[u8]) -> (u8, &[u8]) {
    match (text, stream) {
        ([b'<', digit @ b'0'..=b'7', b'>', rest @ ..], _) => (digit - b'0', rest),
        (_, Stream::Out) => (INFORMATIONAL, text),
        (_, Stream::Err) => (ERROR, text),
    }
}

/// What people should hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nobody listens. A warning.
    Unreachable {
        /// Where.
        path: PathBuf,
        /// Why.
        error: Errno,
    },
    /// It takes nothing, and no more can wait. A warning.
    Dropping {
        /// Where.
        path: PathBuf,
    },
    /// It takes lines again, and all that waited.
    Resumed {
        /// Where.
        path: PathBuf,
        /// How many are missing.
        lines: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Unreachable { path, error } => {
                write!(
                    f,
                    "journald, {}: {}; lines wait, and those are dropped that find no room",
                    path.display(),
                    error.desc()
                )
            }
            Notice::Dropping { path } => {
                write!(f, "journald, {}: takes no lines; they are dropped", path.display())
            }
            Notice::Resumed { path, lines } => {
                write!(f, "journald, {}: takes lines again, dropped lines: {lines}", path.display())
            }
        }
    }
}

/// Lines of one app that journald did not get.
#[derive(Debug)]
struct Missing {
    all: u64,
    /// Those that no line in the journal tells of yet, and whose the latest of them was.
    untold: u64,
    latest: Fields,
}

/// Something is wrong, and was told.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Time,
    /// Lines dropped since.
    lines: u64,
    /// That they are is told, too.
    dropping: bool,
}

/// The way to journald.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    socket: Option<OwnedFd>,
    /// The socket is a new one, which the poll does not know.
    fresh: bool,
    queue: VecDeque<Waiting>,
    /// Bytes in the queue.
    waiting: usize,
    missing: BTreeMap<AppId, Missing>,
    trouble: Option<Trouble>,
    notices: Vec<Notice>,
    /// When it is tried anew, while something waits or is wrong.
    retry_at: Option<Time>,
    /// When journald last took something, or had nothing to take.
    moved: Time,
    /// Messages as they are sent, and where each of them ends.
    scratch: Vec<u8>,
    ends: Vec<usize>,
}

impl Journal {
    /// To the journald that listens at this path. Nothing is opened before the first line.
    pub fn new(path: PathBuf) -> Journal {
        Journal {
            path,
            socket: None,
            fresh: false,
            queue: VecDeque::new(),
            waiting: 0,
            missing: BTreeMap::new(),
            trouble: None,
            notices: Vec::new(),
            retry_at: None,
            moved: Time::START,
            scratch: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Takes a line that [`Journal::flush`] sends, or drops it where too many wait.
    pub fn write(&mut self, fields: &Fields, line: &Line<'_>, now: Time) {
        let Line { stream, bytes, cut, continued, .. } = *line;
        let stream = Some(stream);
        // What is missing is told before anything else of that app.
        let is_missing = self.missing.get(&fields.app).is_some_and(|missing| missing.untold > 0);
        if is_missing || self.waiting + bytes.len() + OVERHEAD > QUEUE_LIMIT {
            return self.drop_line(fields, now);
        }
        if self.queue.is_empty() {
            self.moved = now;
        }
        self.push(Waiting { fields: fields.clone(), stream, text: bytes.to_vec(), cut, continued });
    }

    /// Sends what journald takes now, as far as it has its share of a turn. To be called at the end of every turn, and
    /// when there is room again.
    pub fn flush(&mut self, now: Time) {
        // Where nobody listens it is asked for by the clock.
        if self.socket.is_some() || self.trouble.is_none() {
            self.send_waiting(now);
        }
    }

    fn send_waiting(&mut self, now: Time) {
        let mut left = SHARE;
        while left > 0 {
            if self.waiting <= QUEUE_LIMIT / 2 {
                self.tell_missing();
            }
            if self.queue.is_empty() {
                return self.emptied(now);
            }
            self.encode(left.min(BATCH));
            let sent = match self.send(now) {
                Ok(sent) => sent,
                // Too long, and not even a file in memory can be made: it would be so for ever.
                Err(Refusal::This) => {
                    self.drop_line(&self.queue[0].fields.clone(), now);
                    1
                }
                Err(Refusal::All) => return,
            };
            self.moved = now;
            self.waiting -= self.queue.drain(..sent).map(|waiting| waiting.size()).sum::<usize>();
            left -= sent;
        }
        // There may be room, of which nobody tells.
        self.retry_at = Some(now);
    }

    /// Of those that wait the first, so many at most.
    fn encode(&mut self, most: usize) {
        self.scratch.clear();
        self.ends.clear();
        for waiting in self.queue.iter().take(most) {
            waiting.encode(&mut self.scratch);
            self.ends.push(self.scratch.len());
            if self.scratch.len() >= BATCH_BYTES {
                break;
            }
        }
    }

    fn emptied(&mut self, now: Time) {
        self.queue.shrink_to(KEPT);
        self.moved = now;
        if self.trouble.is_none() {
            self.retry_at = None;
        }
    }

    /// Tries again what is due: a socket that is full tells of its room, one that is gone does not come back by itself.
    pub fn retry(&mut self, now: Time) {
        if self.retry_at.is_none_or(|at| now < at) {
            return;
        }
        self.retry_at = Some(now + RETRY);
        self.send_waiting(now);
        let Some(Trouble { lines, since, .. }) = self.trouble.filter(|_| self.queue.is_empty()) else {
            return;
        };
        // It may come again at once: not more often than this is it told.
        if now < since + RETRY {
            self.retry_at = Some(since + RETRY);
            return;
        }
        (self.trouble, self.retry_at) = (None, None);
        self.notices.push(Notice::Resumed { path: self.path.clone(), lines });
    }

    /// When [`Journal::retry`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.retry_at
    }

    /// It is behind, and takes something now and then: until when its outputs are better left unread.
    pub fn behind_until(&self, now: Time) -> Option<Time> {
        let until = self.moved + PATIENCE;
        (self.socket.is_some() && self.waiting > BEHIND && now < until).then_some(until)
    }

    /// The socket to register with the poll, to be told of room; once for each.
    pub fn take_fresh(&mut self) -> Option<RawFd> {
        std::mem::take(&mut self.fresh).then(|| self.socket.as_ref().map(|fd| fd.as_raw_fd())).flatten()
    }

    /// Something is to be sent.
    pub fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The socket, while something waits for room in it.
    pub fn backlog(&self) -> Option<RawFd> {
        self.socket.as_ref().filter(|_| !self.queue.is_empty()).map(|fd| fd.as_raw_fd())
    }

    /// Lines of an app that journald did not get.
    pub fn dropped(&self, app: AppId) -> u64 {
        self.missing.get(&app).map_or(0, |missing| missing.all)
    }

    /// One that was deleted.
    pub fn forget(&mut self, app: AppId) {
        self.missing.remove(&app);
    }

    /// What happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn push(&mut self, waiting: Waiting) {
        self.waiting += waiting.size();
        self.queue.push_back(waiting);
    }

    /// Sends of what is encoded as much as is taken at once; how many messages.
    fn send(&mut self, now: Time) -> Result<usize, Refusal> {
        // One that is gone may be there again already, as after its restart.
        for _ in 0..3 {
            let Some(socket) = &self.socket else {
                self.connect(now)?;
                continue;
            };
            let sent = journal::send_all(socket.as_fd(), &self.scratch, &self.ends);
            let is_long = sent == Err(Errno::EMSGSIZE);
            let first = &self.scratch[..self.ends.first().copied().unwrap_or(0)];
            match if is_long { journal::send_sealed(socket.as_fd(), first).map(|()| 1) } else { sent } {
                Ok(sent) => return Ok(sent),
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => {
                    break;
                }
                Err(Errno::ECONNREFUSED | Errno::ECONNRESET | Errno::ENOTCONN | Errno::EPIPE) => {
                    self.socket = None
                }
                Err(_) if is_long => return Err(Refusal::This),
                Err(error) => return Err(self.is_unreachable(error, now)),
            }
        }
        self.retry_at.get_or_insert(now + RETRY);
        Err(Refusal::All)
    }

    fn connect(&mut self, now: Time) -> Result<(), Refusal> {
        match journal::open(&self.path) {
            Ok(socket) => {
                (self.socket, self.fresh) = (Some(socket), true);
                Ok(())
            }
            Err(error) => Err(self.is_unreachable(error, now)),
        }
    }

    /// Told once, until it is reached again.
    fn is_unreachable(&mut self, error: Errno, now: Time) -> Refusal {
        self.socket = None;
        self.retry_at.get_or_insert(now + RETRY);
        if self.trouble.is_none() {
            self.trouble = Some(Trouble { since: now, lines: 0, dropping: false });
            self.notices.push(Notice::Unreachable { path: self.path.clone(), error });
        }
        Refusal::All
    }

    fn drop_line(&mut self, fields: &Fields, now: Time) {
        self.retry_at.get_or_insert(now + RETRY);
        let missing =
            self.missing.entry(fields.app).or_insert(Missing { all: 0, untold: 0, latest: fields.clone() });
        missing.all = missing.all.saturating_add(1);
        missing.untold = missing.untold.saturating_add(1);
        missing.latest = fields.clone();
        let trouble = self.trouble.get_or_insert(Trouble { since: now, lines: 0, dropping: false });
        trouble.lines = trouble.lines.saturating_add(1);
        if !std::mem::replace(&mut trouble.dropping, true) {
            self.notices.push(Notice::Dropping { path: self.path.clone() });
        }
    }

    /// There is room again: a line of each app says how many are missing.
    fn tell_missing(&mut self) {
        let untold = self.missing.values_mut().filter(|missing| missing.untold > 0);
        let told: Vec<Waiting> = untold
            .map(|missing| {
                let lines = std::mem::take(&mut missing.untold);
                let were = if lines == 1 { "line was" } else { "lines were" };
                let text =
                    format!("[clusterd] {lines} {were} dropped: journald did not take them").into_bytes();
                Waiting { fields: missing.latest.clone(), stream: None, text, cut: false, continued: false }
            })
            .collect();
        told.into_iter().for_each(|waiting| self.push(waiting));
    }
}

/// What is not taken now.
enum Refusal {
    /// This message.
    This,
    /// Whatever comes.
    All,
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use super::*;
    use crate::logs::Origin;
    use crate::supervisor::event::WorkerId;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn fields() -> Fields {
        Fields::new(AppId(1), "api", "shop", 2, 3, 4711)
    }

    const OURS: &str = "SYSLOG_IDENTIFIER=api\nCLUSTERD_APP=api\nCLUSTERD_NAMESPACE=shop\nCLUSTERD_INSTANCE=2\n\
                        CLUSTERD_GENERATION=3\nCLUSTERD_PID=4711\n";

    fn encoded(stream: Stream, text: &[u8], (cut, continued): (bool, bool)) -> Vec<u8> {
        let mut to = Vec::new();
        Waiting { fields: fields(), stream: Some(stream), text: text.to_vec(), cut, continued }
            .encode(&mut to);
        to
    }

    #[test]
    fn a_line_is_text_or_bytes_with_their_length_and_says_whose_it_is() {
        let text = |text: &str| text.as_bytes().to_vec();
        assert_eq!(
            encoded(Stream::Out, "a \u{e9}\tb=c".as_bytes(), (false, false)),
            text(&format!("MESSAGE=a \u{e9}\tb=c\nPRIORITY=6\nCLUSTERD_STREAM=out\n{OURS}"))
        );
        assert_eq!(
            encoded(Stream::Err, b"<4>careful", (true, true)),
            text(&format!(
                "MESSAGE=careful\nPRIORITY=4\nCLUSTERD_STREAM=err\nCLUSTERD_CUT=1\nCLUSTERD_CONTINUED=1\n{OURS}"
            ))
        );
        let mut bytes = b"MESSAGE\n\x05\0\0\0\0\0\0\0\x1b[1m\0\nPRIORITY=3\nCLUSTERD_STREAM=err\n".to_vec();
        bytes.extend_from_slice(OURS.as_bytes());
        assert_eq!(encoded(Stream::Err, b"\x1b[1m\0", (false, false)), bytes);
        for (line, priority) in [("<9>x", 6), ("<1x", 6), ("<0>", 0), ("", 6)] {
            assert_eq!(prioritised(Stream::Out, line.as_bytes()).0, priority, "{line}");
        }
    }

    fn write(journal: &mut Journal, text: &str, now: Time) {
        let (namespace, name) = ("default".to_owned(), "api".to_owned());
        let origin = Origin { app: AppId(1), worker: WorkerId(1), namespace, name, instance: 0 };
        let line = Line {
            origin: &origin,
            stream: Stream::Out,
            bytes: text.as_bytes(),
            cut: false,
            continued: false,
        };
        journal.write(&fields(), &line, now);
        journal.flush(now);
    }

    /// The messages that have come.
    fn received(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 1 << 17];
        let one = || socket.recv(&mut buffer).ok().map(|count| buffer[..count].to_vec());
        let message = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.lines().next().unwrap().strip_prefix("MESSAGE=").unwrap().to_owned()
        };
        std::iter::from_fn(one).map(message).collect()
    }

    fn bound(path: &Path) -> UnixDatagram {
        UnixDatagram::bind(path).unwrap()
    }

    #[test]
    fn what_a_full_socket_does_not_take_waits_then_is_dropped_and_counted_where_it_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (socket, mut journal) = (bound(&path), Journal::new(path.clone()));
        let mut written = 0;
        while journal.dropped(AppId(1)) < 10 {
            write(&mut journal, &format!("{written} {}", "x".repeat(1000)), at(0));
            written += 1;
            assert!(journal.waiting <= QUEUE_LIMIT);
        }
        assert_eq!(journal.take_notices(), [Notice::Dropping { path: path.clone() }]);
        assert!(journal.behind_until(at(499)).is_some() && journal.behind_until(at(500)).is_none());
        let mut got = Vec::new();
        let mut millis = 1000;
        while journal.backlog().is_some() {
            got.extend(received(&socket));
            journal.flush(at(millis));
            millis += 1;
        }
        write(&mut journal, "after", at(millis));
        got.extend(received(&socket));
        assert_eq!(got.pop().unwrap(), "after");
        assert_eq!(got.pop().unwrap(), "[clusterd] 10 lines were dropped: journald did not take them");
        assert_eq!(got.len(), written - 10);
        assert!(got.iter().enumerate().all(|(number, text)| text.starts_with(&format!("{number} "))));
        journal.retry(at(60_000));
        assert_eq!(journal.take_notices(), [Notice::Resumed { path, lines: 10 }]);
        assert_eq!((journal.next_deadline(), journal.dropped(AppId(1))), (None, 10));
    }

    #[test]
    fn a_journal_that_is_absent_is_told_once_and_gets_what_waited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut journal = Journal::new(path.clone());
        for second in 0..5 {
            journal.retry(at(second * 1000));
            write(&mut journal, &second.to_string(), at(second * 1000));
            assert!(journal.behind_until(at(second * 1000)).is_none());
        }
        assert!(matches!(journal.take_notices().as_slice(), [Notice::Unreachable { .. }]));
        let socket = bound(&path);
        journal.retry(at(5000));
        assert_eq!(received(&socket), ["0", "1", "2", "3", "4"]);
        assert_eq!(journal.take_notices(), [Notice::Resumed { path, lines: 0 }]);
    }

    #[test]
    fn a_restart_of_the_journal_between_two_lines_goes_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (first, mut journal) = (bound(&path), Journal::new(path.clone()));
        write(&mut journal, "one", at(0));
        assert_eq!(received(&first), ["one"]);
        assert!(journal.take_fresh().is_some() && journal.take_fresh().is_none());
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = bound(&path);
        write(&mut journal, "two", at(1));
        assert_eq!(received(&second), ["two"]);
        assert!(journal.take_fresh().is_some());
        assert_eq!((journal.take_notices(), journal.next_deadline()), (Vec::new(), None));
    }
}
