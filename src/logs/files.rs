//! All open log files: one descriptor a path, however many streams share it, and damped retries while a disk
//! is full. Refuses to log: what is worth telling is collected for the caller.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::file::{LogFile, Source, Turn};
use crate::supervisor::time::Time;
use crate::sys::output::OpenError;

/// How long a file that cannot be written is left alone: at most one attempt and one pair of notices in
/// this time, however fast lines come.
pub const RETRY: Duration = Duration::from_secs(1);

/// Notices that wait for the caller; more are not kept.
const NOTICE_LIMIT: usize = 64;

/// Handle of an open log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u64);

/// What people should hear about a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It cannot be written; lines are dropped from now on. A warning.
    Dropping {
        /// Which.
        path: PathBuf,
        /// Why.
        error: Errno,
    },
    /// It is written again.
    Resumed {
        /// Which.
        path: PathBuf,
        /// How many lines are missing.
        lines: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Dropping { path, error } => {
                write!(f, "log file {}: lines are dropped: {}", path.display(), error.desc())
            }
            Notice::Resumed { path, lines } => {
                write!(f, "log file {}: written again, dropped lines: {lines}", path.display())
            }
        }
    }
}

/// The open log files.
#[derive(Debug, Default)]
pub struct LogFiles {
    /// Boxed: they come in the order of their numbers, which leaves the nodes of the tree half empty.
    files: BTreeMap<FileId, Box<Entry>>,
    next: u64,
    notices: Vec<Notice>,
}

#[derive(Debug)]
struct Entry {
    file: LogFile,
    users: usize,
    failing: Option<Failing>,
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    source: Source,
    retry_at: Time,
}

impl LogFiles {
    /// Opens a file, or shares the one that is open at this path already. Each success needs a
    /// [`LogFiles::release`].
    pub fn open(&mut self, path: &Path) -> Result<FileId, OpenError> {
        // Brought into one form once, so that a look at hundreds of them compares bytes.
        let path: PathBuf = path.components().collect();
        let same = |entry: &Entry| entry.file.path().as_os_str() == path.as_os_str();
        if let Some((id, entry)) = self.files.iter_mut().find(|(_, entry)| same(entry)) {
            entry.users += 1;
            return Ok(*id);
        }
        let file = LogFile::open(&path)?;
        let id = FileId(self.next);
        self.next += 1;
        self.files.insert(id, Box::new(Entry { file, users: 1, failing: None }));
        Ok(id)
    }

    /// Gives one use of a file back; the last one closes it.
    pub fn release(&mut self, id: FileId) {
        if let Some(entry) = self.files.get_mut(&id) {
            entry.users -= 1;
            if entry.users == 0 {
                self.files.remove(&id);
            }
        }
    }

    /// Appends the parts, which are whole pieces of `source`, or drops and counts them.
    pub fn write(&mut self, id: FileId, source: Source, parts: [&[u8]; 2], now: Time) {
        let Some(entry) = self.files.get_mut(&id) else {
            return;
        };
        match entry.failing {
            Some(Failing { retry_at, .. }) if now < retry_at => entry.file.drop_batch(parts),
            Some(_) | None => {
                let notice = entry.attempt(source, parts, now);
                self.tell(notice);
            }
        }
    }

    /// Tries the failing files again whose time has come, so that a quiet app's missing lines are told too.
    pub fn retry(&mut self, now: Time) {
        let mut notices = Vec::new();
        for entry in self.files.values_mut() {
            if let Some(Failing { source, retry_at }) = entry.failing
                && retry_at <= now
            {
                notices.push(entry.attempt(source, [&[], &[]], now));
            }
        }
        notices.into_iter().for_each(|notice| self.tell(notice));
    }

    /// When [`LogFiles::retry`] is due; none while every file can be written.
    pub fn next_deadline(&self) -> Option<Time> {
        self.files.values().filter_map(|entry| entry.failing).map(|failing| failing.retry_at).min()
    }

    /// Opens every path anew. Files that cannot be opened stay as they are and are named.
    pub fn reopen(&mut self) -> Vec<OpenError> {
        self.files.values_mut().filter_map(|entry| entry.file.reopen().err()).collect()
    }

    /// What happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn tell(&mut self, notice: Option<Notice>) {
        if self.notices.len() < NOTICE_LIMIT {
            self.notices.extend(notice);
        }
    }
}

impl Entry {
    fn attempt(&mut self, source: Source, parts: [&[u8]; 2], now: Time) -> Option<Notice> {
        let turn = self.file.write(source, parts);
        self.failing = self.file.is_failing().then(|| Failing { source, retry_at: now + RETRY });
        let path = || self.file.path().to_owned();
        match turn {
            Turn::None => None,
            Turn::Failed(error) => Some(Notice::Dropping { path: path(), error }),
            Turn::Resumed { lines, error: _ } => Some(Notice::Resumed { path: path(), lines }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Stream;
    use crate::supervisor::event::WorkerId;

    const OUT: Source = (WorkerId(1), Stream::Out);

    #[test]
    fn streams_with_one_path_share_one_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("both.log");
        let mut files = LogFiles::default();
        let (first, second) = (files.open(&path).unwrap(), files.open(&path).unwrap());
        assert_eq!(first, second);
        files.release(first);
        files.write(second, OUT, [b"", b"x\n"], Time::START);
        files.release(second);
        files.write(second, OUT, [b"", b"y\n"], Time::START);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x\n");
        assert!(files.files.is_empty());
    }

    #[test]
    fn a_full_disk_is_tried_once_a_second_and_told_once() {
        let mut files = LogFiles::default();
        let id = files.open(Path::new("/dev/full")).unwrap();
        for millis in 0..5000 {
            let now = Time::from_start(Duration::from_millis(millis));
            files.write(id, OUT, [b"", b"x\n"], now);
            files.retry(now);
            assert!(files.next_deadline().is_some_and(|due| due > now));
        }
        let told: Vec<String> = files.take_notices().iter().map(Notice::to_string).collect();
        assert_eq!(told, ["log file /dev/full: lines are dropped: No space left on device"]);
    }
}
