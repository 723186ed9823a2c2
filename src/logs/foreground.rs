//! The foreground supervisor's standard output and standard error. Where both lead to the same terminal or
//! pipe they are one queue, so that a line of one never lands in the middle of the other's.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Line;
use super::console::Console;
use crate::control::protocol::Stream;
use crate::supervisor::event::AppId;

/// A console that the supervisor's log writes to as well. The lock is never held across a wait.
pub type SharedConsole = Arc<Mutex<Console>>;

/// Locks a console. A panic elsewhere is no reason to fall silent.
pub fn lock(console: &SharedConsole) -> MutexGuard<'_, Console> {
    console.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both outputs.
#[derive(Clone, Debug)]
pub struct Foreground {
    out: SharedConsole,
    err: SharedConsole,
    /// The journal, by device and inode.
    journal: Option<(u64, u64)>,
}

impl Foreground {
    /// Takes hold of both. `may_colour` is false when NO_COLOR is set.
    pub fn open(out: BorrowedFd<'_>, err: BorrowedFd<'_>, may_colour: bool) -> io::Result<Foreground> {
        let first = Console::open(out, "standard output", may_colour)?;
        let second = Console::open(err, "standard error", may_colour)?;
        let same = first.identity() == second.identity();
        let out = Arc::new(Mutex::new(first));
        let err = if same { out.clone() } else { Arc::new(Mutex::new(second)) };
        Ok(Foreground { out, err, journal: None })
    }

    /// See [`Console::set_json`].
    pub fn set_json(&self) {
        self.consoles().for_each(|console| lock(console).set_json());
    }

    /// Which of them leads to the journal: JOURNAL_STREAM (systemd.exec(5)).
    pub fn know_journal(&mut self, stream: Option<&OsStr>) {
        let numbers = stream.and_then(OsStr::to_str).and_then(|text| text.split_once(':'));
        self.journal = numbers.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    }

    /// What goes to this stream is in the journal.
    pub fn is_journal(&self, stream: Stream) -> bool {
        self.journal.is_some_and(|journal| lock(self.console(stream)).identity() == journal)
    }

    /// Standard error: where the supervisor's own log goes.
    pub fn err(&self) -> &SharedConsole {
        &self.err
    }

    /// The one or two consoles, to register and flush.
    pub fn consoles(&self) -> impl Iterator<Item = &SharedConsole> {
        let second = (!Arc::ptr_eq(&self.out, &self.err)).then_some(&self.err);
        std::iter::once(&self.out).chain(second)
    }

    /// See [`Console::announce`].
    pub fn announce(&self, app: AppId, name: &str, instance: u32) {
        self.consoles().for_each(|console| lock(console).announce(app, name, instance));
    }

    /// See [`Console::forget`].
    pub fn forget(&self, app: AppId) {
        self.consoles().for_each(|console| lock(console).forget(app));
    }

    /// See [`Console::is_read`]: the console that takes what workers write to `stream`.
    pub fn is_read(&self, stream: Stream) -> bool {
        lock(self.console(stream)).is_read()
    }

    /// Queues a worker's line: what it wrote to standard error goes to standard error.
    pub fn write_line(&self, line: &Line<'_>, wall: Duration) {
        lock(self.console(line.stream)).write_line(line, wall);
    }

    fn console(&self, stream: Stream) -> &SharedConsole {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        }
    }

    /// Writes what the readers take now.
    pub fn flush(&self) {
        self.consoles().for_each(|console| lock(console).flush());
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn nobody_reads_what_goes_to_the_null_device() {
        let null = std::fs::File::create("/dev/null").expect("there is one");
        let file = tempfile::tempfile().expect("a temporary file");
        let foreground = Foreground::open(null.as_fd(), file.as_fd(), false).expect("both are open");
        assert!(!foreground.is_read(Stream::Out));
        assert!(foreground.is_read(Stream::Err));
    }
}
