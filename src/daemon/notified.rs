//! What workers say over the notify socket (sd_notify(3)): whose word it is, what it means, and how much
//! of it is listened to. The kernel names the sender; who belongs to no worker's tree is not believed.
//!
//! Nothing is stored for workers: descriptors of `FDSTORE=1` are closed, as is the one of `BARRIER=1`,
//! whose end is the answer that all messages before it were read.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Poll};

use crate::logs::escape::steers;
use crate::supervisor::event::{Event, Word, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::{notify, process, socket};

use super::doors::identity;
use super::processes::Main;
use super::sources::{Source, Tokens};
use super::{Daemon, Error, host};

/// Messages taken in one turn. To find the sender of each may take a few looks into /proc.
const PER_TURN: usize = 64;

/// Lines of one message that are heard; nobody has more to say at a time.
const PER_MESSAGE: usize = 16;

/// Events that may wait to be decided when more messages are taken.
const MOST_UNDECIDED: usize = 256;

/// How long the socket is left alone after a turn that took as many: whoever floods it waits in its own
/// send, and costs the supervisor little.
const PAUSE: Duration = Duration::from_millis(10);

/// Between two lines about messages that were ignored.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Sockets whose file somebody removed that are still heard: a worker may have connected to one for good.
const MOST_FORMER: usize = 8;

/// The longest time that one message can ask for.
const LONGEST: u64 = 3600 * 1_000_000;

/// Characters that are kept of `STATUS=`.
const STATUS_LIMIT: usize = 256;

/// The state of listening.
#[derive(Debug)]
pub(super) struct Notified {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of its file.
    file: (u64, u64),
    /// Those before, which no path leads to any more; the oldest first.
    former: VecDeque<OwnedFd>,
    /// The socket is left alone until then.
    again: Option<Time>,
    /// Messages that were not believed and not told of.
    ignored: u64,
    told: Option<Time>,
    /// When it was last told that the socket cannot be read.
    deaf: Option<Time>,
}

impl Notified {
    /// Binds the socket, and registers it with the poll.
    pub(super) fn open(path: PathBuf, poll: &Poll, tokens: &mut Tokens) -> Result<Notified, Error> {
        let (socket, file) = bind(&path, poll, tokens)?;
        let former = VecDeque::new();
        Ok(Notified { socket, path, file, former, again: None, ignored: 0, told: None, deaf: None })
    }

    /// Whether workers find the socket under its path.
    pub(super) fn is_found(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Binds the path anew, since somebody took the socket's file away.
    pub(super) fn bind_again(&mut self, poll: &Poll, tokens: &mut Tokens) -> Result<(), Error> {
        let (socket, file) = bind(&self.path, poll, tokens)?;
        self.former.push_back(std::mem::replace(&mut self.socket, socket));
        self.file = file;
        if self.former.len() > MOST_FORMER {
            self.former.pop_front();
        }
        Ok(())
    }

    /// Where workers say it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.again
    }
}

fn bind(path: &Path, poll: &Poll, tokens: &mut Tokens) -> Result<(OwnedFd, (u64, u64)), Error> {
    // A stale one: the lock of this home is ours.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(host(format!("remove {}", path.display()))(error));
        }
        _ => {}
    }
    let failed = || format!("bind {}", path.display());
    let socket = notify::open(path).map_err(host(failed()))?;
    let file = identity(path).map_err(host(failed()))?;
    let token = tokens.allot(Source::Notify);
    poll.registry()
        .register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)
        .map_err(host("watch the notify socket"))?;
    Ok((socket, file))
}

/// One line that means something here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Note {
    /// For the core.
    Word(Word),
    /// Its state, for people.
    Status(String),
    /// Which process is the server itself.
    Main(i32),
}

impl Daemon {
    /// Takes what has come; true never, since the rest waits for [`Daemon::hear_again`].
    pub(super) fn take_notifications(&mut self) -> bool {
        if self.notified.again.is_some_and(|at| self.now < at) {
            return false;
        }
        let busy = self.inbox.len() >= MOST_UNDECIDED || self.read_notifications();
        self.notified.again = busy.then(|| self.now + PAUSE);
        false
    }

    /// The pause is over.
    pub(super) fn hear_again(&mut self) {
        if self.notified.again.is_some_and(|at| self.now >= at) {
            self.collect(Source::Notify);
        }
    }

    /// True when there is more than one turn's share.
    pub(super) fn read_notifications(&mut self) -> bool {
        let mut at_home = self.read_from(PER_TURN, None, |daemon| Some(daemon.notified.socket.as_fd()));
        for place in 0..self.notified.former.len() {
            at_home |=
                self.read_from(PER_TURN, None, |daemon| daemon.notified.former.get(place).map(AsFd::as_fd));
        }
        let users = self.abroad.users();
        // Each user has a share of its own: whoever floods takes nothing from the others.
        let share = (PER_TURN / users.len().max(1)).max(1);
        let mut more = at_home;
        for user in users {
            more |= self.read_from(share, Some(user), |daemon| daemon.abroad.socket_of(user));
        }
        more
    }

    /// `user`: whose socket it is, when it is not for everybody who can enter the home.
    fn read_from(
        &mut self,
        most: usize,
        user: Option<u32>,
        socket: impl Fn(&Daemon) -> Option<BorrowedFd<'_>>,
    ) -> bool {
        for _ in 0..most {
            let Some(socket) = socket(self) else { return false };
            match notify::receive(socket) {
                Ok(Some(datagram)) if user.is_none_or(|user| may_speak(datagram.uid, user)) => {
                    self.take_notification(&datagram);
                }
                Ok(Some(datagram)) => self.ignore(|| {
                    format!(
                        "the last one of pid {} of user {}, whose socket it is not",
                        datagram.pid, datagram.uid
                    )
                }),
                Ok(None) => return false,
                // What is still there is asked for after the pause: nothing will say so again.
                Err(error) => {
                    self.tell_deaf(&error);
                    return true;
                }
            }
        }
        true
    }

    fn take_notification(&mut self, datagram: &notify::Datagram) {
        let Some(worker) = self.sender(datagram.pid) else {
            let pid = datagram.pid;
            return self.ignore(|| format!("the last one of pid {pid}, which is no worker's"));
        };
        if datagram.truncated {
            let label = self.label(worker);
            let limit = notify::LIMIT;
            return self.ignore(|| {
                format!("the last one of {label}, which had more than {limit} bytes or too many descriptors")
            });
        }
        for note in notes(&datagram.bytes) {
            match note {
                Note::Word(word) => {
                    if word == Word::Ready {
                        self.settle_flags_of(worker);
                    }
                    self.inbox.push_back(Event::Said { worker, word });
                }
                Note::Status(status) => {
                    if let Some(process) = self.processes.get_mut(worker) {
                        process.status = Some(status).filter(|status| !status.is_empty());
                    }
                }
                Note::Main(pid) => self.name_main(worker, pid),
            }
        }
    }

    /// That the socket cannot be read: a line about it now and then.
    fn tell_deaf(&mut self, error: &io::Error) {
        if self.notified.deaf.is_some_and(|at| self.now.since(at) < TOLD_EVERY) {
            return;
        }
        self.notified.deaf = Some(self.now);
        log::warn!("notify socket: {error}; what workers say is heard later");
    }

    /// Counts a message that is not believed; a line about it now and then.
    fn ignore(&mut self, why: impl FnOnce() -> String) {
        self.notified.ignored += 1;
        if self.notified.told.is_some_and(|at| self.now.since(at) < TOLD_EVERY) {
            return;
        }
        let count = std::mem::take(&mut self.notified.ignored);
        self.notified.told = Some(self.now);
        let notifications = if count == 1 { "notification was" } else { "notifications were" };
        log::warn!("{count} {notifications} ignored, {}", why());
    }

    /// Takes a process for the server itself, if it belongs to this very worker.
    fn name_main(&mut self, worker: WorkerId, pid: i32) {
        // Opened first: a number that is given out again meanwhile is then not of the tree.
        let opened = process::open(pid);
        let of_tree = self.sender(pid) == Some(worker);
        let (Ok(pidfd), true) = (opened, of_tree) else {
            return self
                .ignore(|| format!("the last one for MAINPID={pid}, which is not of its sender's tree"));
        };
        if let Some(process) = self.processes.get_mut(worker) {
            process.main = (process.pid != pid).then_some(Main { pid, pidfd });
        }
    }
}

/// Whether a message to the socket of `user` is looked at: of that user, and of the supervisor's own, as whom a
/// helper of the worker's may run.
fn may_speak(sender: u32, user: u32) -> bool {
    sender == user || sender == socket::own_uid()
}

/// The lines that mean something here; unknown ones are ignored, as the protocol asks.
fn notes(bytes: &[u8]) -> Vec<Note> {
    bytes.split(|b| *b == b'\n').filter_map(note).take(PER_MESSAGE).collect()
}

fn note(line: &[u8]) -> Option<Note> {
    let equals = line.iter().position(|b| *b == b'=')?;
    let (name, value) = (&line[..equals], &line[equals + 1..]);
    let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
    let time = || Some(Duration::from_micros(number()?.min(LONGEST)));
    let word = match (name, value) {
        (b"READY", b"1") => Word::Ready,
        (b"STOPPING", b"1") => Word::Stopping,
        (b"RELOADING", b"1") => Word::Reloading,
        (b"WATCHDOG", b"1") => Word::KeepAlive,
        (b"WATCHDOG", b"trigger") => Word::Trigger,
        (b"WATCHDOG_USEC", _) => Word::Interval(time()?),
        (b"EXTEND_TIMEOUT_USEC", _) => Word::Extend(time()?),
        // The kernel's own greatest (MAX_ERRNO in Linux).
        (b"ERRNO", _) => {
            Word::Errno(i32::try_from(number()?).ok().filter(|errno| (1..4096).contains(errno))?)
        }
        (b"STATUS", _) => return Some(Note::Status(clean(value))),
        (b"MAINPID", _) => return Some(Note::Main(i32::try_from(number()?).ok().filter(|pid| *pid > 1)?)),
        _ => return None,
    };
    Some(Note::Word(word))
}

/// Text of a worker's, without what could do more than be read.
fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let shown = |c: char| if c.is_control() || steers(c) { ' ' } else { c };
    text.trim().chars().take(STATUS_LIMIT).map(shown).collect()
}

/// Any message, for [`crate::fuzz`]: few notes come of it, and none can do more than be read.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) -> u64 {
    let notes = notes(bytes);
    assert!(notes.len() <= PER_MESSAGE);
    for note in &notes {
        match note {
            Note::Status(status) => {
                assert!(status.chars().count() <= STATUS_LIMIT);
                crate::fuzz::assert_harmless(status, false);
            }
            Note::Main(pid) => assert!(*pid > 1),
            Note::Word(Word::Extend(time) | Word::Interval(time)) => {
                assert!(*time <= Duration::from_micros(LONGEST));
            }
            Note::Word(_) => {}
        }
    }
    crate::fuzz::shape(notes.iter().map(|note| format!("{note:?}").chars().take(12).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> Vec<Word> {
        let word = |note| if let Note::Word(word) = note { Some(word) } else { None };
        notes(bytes).into_iter().filter_map(word).collect()
    }

    #[test]
    fn known_words_are_heard_and_others_ignored() {
        let seconds = Duration::from_secs;
        for (text, heard) in [
            (&b"READY=1\nX_OTHER=fine\n"[..], vec![Word::Ready]),
            (b"STOPPING=1", vec![Word::Stopping]),
            (b"RELOADING=1\nMONOTONIC_USEC=77", vec![Word::Reloading]),
            (b"WATCHDOG=1\nWATCHDOG=trigger", vec![Word::KeepAlive, Word::Trigger]),
            (b"WATCHDOG_USEC=2000000", vec![Word::Interval(seconds(2))]),
            (b"EXTEND_TIMEOUT_USEC=5000000", vec![Word::Extend(seconds(5))]),
            (b"EXTEND_TIMEOUT_USEC=18446744073709551615", vec![Word::Extend(seconds(3600))]),
            (b"ERRNO=2", vec![Word::Errno(2)]),
            (b"ERRNO=0\nERRNO=-2\nERRNO=4096\nERRNO=99999999999", vec![]),
            (b"", vec![]),
            (b"=\n==\nREADY=0\nREADY=11\n\xff\xfe\nEXTEND_TIMEOUT_USEC=-1\nWATCHDOG=2\nready=1", vec![]),
            (b"BARRIER=1\nFDSTORE=1\nFDNAME=x\nFDPOLL=0", vec![]),
        ] {
            assert_eq!(words(text), heard, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_status_is_short_and_can_only_be_read() {
        let long = [b"STATUS=".as_slice(), "é".repeat(5000).as_bytes()].concat();
        assert_eq!(notes(&long), [Note::Status("é".repeat(STATUS_LIMIT))]);
        let nasty = b"STATUS=\x1b[31mred\x07\xff\r";
        assert_eq!(notes(nasty), [Note::Status(" [31mred \u{fffd}".to_owned())]);
        assert_eq!(notes(b"STATUS="), [Note::Status(String::new())]);
    }

    #[test]
    fn a_main_process_is_a_number_above_one() {
        assert_eq!(notes(b"MAINPID=77"), [Note::Main(77)]);
        assert_eq!(notes(b"MAINPID=1\nMAINPID=0\nMAINPID=-7\nMAINPID=99999999999\nMAINPID=x"), []);
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            notes(&bytes);
        }
    }
}
