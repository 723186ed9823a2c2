//! All open log files: one descriptor a path, however many streams share it, and damped retries while a disk
//! is full. Refuses to log: what is worth telling is collected for the caller.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::archive::Archive;
use super::file::{LogFile, Source, Turn};
use super::rotation;
use super::totals::Totals;
use crate::config::logs::{LogSettings, Rotation};
use crate::supervisor::event::AppId;
use crate::supervisor::time::Time;
use crate::sys::behalf::Behalf;
use crate::sys::clock;
use crate::sys::output::OpenError;

/// How long a file that cannot be written is left alone: at most one attempt and one pair of notices in
/// this time, however fast lines come.
pub const RETRY: Duration = Duration::from_secs(1);

/// How often a file that is written is looked at: somebody may have renamed, removed or truncated it.
pub const LOOK: Duration = Duration::from_secs(1);

/// How long a file that could not be rotated is left as it is.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

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
    /// It goes on growing. A warning.
    NotRotated {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// Its old ones are not as they should be. A warning.
    Old(String),
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
            Notice::NotRotated { path, error } => {
                write!(f, "log file {}: cannot be rotated, and grows on: {error}", path.display())
            }
            Notice::Old(text) => f.write_str(text),
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
    archive: Archive,
    totals: Totals,
    /// When the supervisor's own log is looked at next.
    own_at: Time,
}

#[derive(Debug)]
struct Entry {
    file: LogFile,
    users: usize,
    failing: Option<Failing>,
    rotation: Rotation,
    /// When its first line is too old.
    expires: Option<Time>,
    look_at: Time,
    /// Not before then.
    rotate_at: Time,
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
        self.open_for(path, Behalf::default())
    }

    /// The same with the rights of somebody else. Who opened it last has the say.
    pub fn open_for(&mut self, path: &Path, behalf: Behalf) -> Result<FileId, OpenError> {
        // Brought into one form once, so that a look at hundreds of them compares bytes.
        let path: PathBuf = path.components().collect();
        let same = |entry: &Entry| entry.file.path().as_os_str() == path.as_os_str();
        if let Some((id, entry)) = self.files.iter_mut().find(|(_, entry)| same(entry)) {
            entry.users += 1;
            entry.file.set_behalf(behalf);
            return Ok(*id);
        }
        let file = LogFile::open_for(&path, behalf)?;
        // By another path, as that of a link, it is the same one all the same: it is rotated once.
        let identity = |file: &LogFile| file.regular().map(|regular| regular.identity);
        let ours = identity(&file);
        let same = |entry: &Entry| ours.is_some() && identity(&entry.file) == ours;
        if let Some((id, entry)) = self.files.iter_mut().find(|(_, entry)| same(entry)) {
            entry.users += 1;
            return Ok(*id);
        }
        let id = FileId(self.next);
        self.next += 1;
        self.files.insert(id, Box::new(Entry::new(file)));
        Ok(id)
    }

    /// How far a file of an app grows, and whether its lines are JSON. Who opened it last has the say.
    pub fn set(&mut self, id: FileId, app: AppId, logs: &LogSettings, now: Time) {
        if let Some(entry) = self.files.get_mut(&id) {
            entry.file.set_json(logs.json);
            self.totals.add(app, entry.file.path(), entry.file.behalf(), logs.total_size);
            let mine = self.totals.of(entry.file.path()).find(|(of, _)| *of == app);
            mine.into_iter().for_each(|(app, total)| self.archive.cap(app, total.clone()));
        }
        self.set_rotation(id, logs.rotation, now);
    }

    /// An app was deleted.
    pub fn forget_app(&mut self, app: AppId) {
        self.totals.forget(app);
    }

    fn set_rotation(&mut self, id: FileId, rotation: Rotation, now: Time) {
        let Some(entry) = self.files.get_mut(&id) else { return };
        entry.rotation = rotation;
        let made = entry.file.regular().and_then(|regular| regular.made);
        let age = made.map_or(Duration::ZERO, |made| clock::wall().saturating_sub(made));
        entry.begin(age, now);
    }

    /// Empties the file at a path; none where it is not open.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn empty_open(&mut self, path: &Path) -> Option<io::Result<()>> {
        let path: PathBuf = path.components().collect();
        let entry = self.files.values_mut().find(|entry| entry.file.path() == path)?;
        // What somebody moved away is not ours to empty.
        Some(entry.file.look().map_err(io::Error::other).and_then(|()| entry.file.empty()))
    }

    /// Looks after the supervisor's own log, which is written elsewhere: at most once a second it is found out whether
    /// it is to be rotated, or somebody moved it.
    pub fn look_after(&mut self, own: &mut LogFile, rotation: Rotation, now: Time) {
        if now < self.own_at {
            return;
        }
        self.own_at = now + LOOK;
        let looked = own.look().map_err(|error| error.to_string());
        let is_due = own.growth(1, false).is_some_and(|growth| rotation::is_due(&rotation, growth));
        let rotated = match looked {
            Ok(()) if is_due => own.rotate(clock::wall()).map(Some).map_err(|error| error.to_string()),
            other => other.map(|()| None),
        };
        match rotated {
            Ok(path) => path.iter().for_each(|path| self.archive.tend(path, rotation, own.behalf())),
            Err(error) => {
                self.own_at = now + ROTATE_AGAIN;
                self.tell(Some(Notice::NotRotated { path: own.path().to_owned(), error }));
            }
        }
    }

    /// Where it is.
    pub fn path(&self, id: FileId) -> Option<&Path> {
        self.files.get(&id).map(|entry| entry.file.path())
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
                let more = parts.iter().map(|part| part.len() as u64).sum();
                let tender = Tender { archive: &self.archive, totals: &self.totals };
                let told = if more > 0 { entry.keep_small(more, now, tender) } else { None };
                let notice = entry.attempt(source, parts, now);
                self.tell(told);
                self.tell(notice);
            }
        }
    }

    /// Tries the failing files again whose time has come, so that a quiet app's missing lines are told too; and begins
    /// those anew whose first line is too old, also when no other comes.
    pub fn retry(&mut self, now: Time) {
        let mut notices = Vec::new();
        for entry in self.files.values_mut() {
            if entry.expires_at().is_some_and(|at| at <= now) {
                let tender = Tender { archive: &self.archive, totals: &self.totals };
                notices.push(entry.keep_small(0, now, tender));
            }
            if let Some(Failing { source, retry_at }) = entry.failing
                && retry_at <= now
            {
                notices.push(entry.attempt(source, [&[], &[]], now));
            }
        }
        notices.into_iter().for_each(|notice| self.tell(notice));
    }

    /// When [`LogFiles::retry`] is due; none while every file can be written, and none grows old.
    pub fn next_deadline(&self) -> Option<Time> {
        let deadline = |entry: &Entry| match entry.failing {
            Some(failing) => Some(failing.retry_at),
            None => entry.expires_at(),
        };
        self.files.values().filter_map(|entry| deadline(entry)).min()
    }

    /// Opens every path anew. Files that cannot be opened stay as they are and are named.
    pub fn reopen(&mut self) -> Vec<OpenError> {
        self.files.values_mut().filter_map(|entry| entry.file.reopen().err()).collect()
    }

    /// What happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        for text in self.archive.take_notices() {
            self.tell(Some(Notice::Old(text)));
        }
        std::mem::take(&mut self.notices)
    }

    fn tell(&mut self, notice: Option<Notice>) {
        if self.notices.len() < NOTICE_LIMIT {
            self.notices.extend(notice);
        }
    }
}

/// Who looks after files that are begun anew.
#[derive(Clone, Copy)]
struct Tender<'a> {
    archive: &'a Archive,
    totals: &'a Totals,
}

impl Tender<'_> {
    /// A file was begun anew, which really is at `real`.
    fn tend(&self, file: &LogFile, real: &Path, rotation: Rotation) {
        self.archive.tend(real, rotation, file.behalf());
        self.totals.of(file.path()).for_each(|(app, total)| self.archive.cap(app, total.clone()));
    }
}

impl Entry {
    fn new(file: LogFile) -> Entry {
        let (rotation, never) = (Rotation::default(), None);
        let (look_at, rotate_at) = (Time::START, Time::START);
        Entry { file, users: 1, failing: None, rotation, expires: never, look_at, rotate_at }
    }

    /// Its first line is so old now.
    fn begin(&mut self, age: Duration, now: Time) {
        self.expires = self.rotation.max_age.map(|limit| now + limit.saturating_sub(age));
    }

    /// When it is begun anew without another line: not while it ends in the middle of one.
    fn expires_at(&self) -> Option<Time> {
        let growth = self.file.growth(0, true)?;
        let holds_lines = growth.size > 0 && !growth.mid_line && self.failing.is_none();
        self.expires.filter(|_| holds_lines).map(|at| at.max(self.rotate_at))
    }

    /// Begins a new file where so many bytes more find no room in this one, or it is too old. Where that fails, this
    /// one grows on.
    fn keep_small(&mut self, more: u64, now: Time, tender: Tender<'_>) -> Option<Notice> {
        if self.failing.is_some() {
            return None;
        }
        let failed =
            |file: &LogFile, error: String| Some(Notice::NotRotated { path: file.path().to_owned(), error });
        if now >= self.look_at {
            self.look_at = now + LOOK;
            if let Err(error) = self.file.look() {
                (self.look_at, self.rotate_at) = (now + ROTATE_AGAIN, now + ROTATE_AGAIN);
                return failed(&self.file, error.to_string());
            }
        }
        let growth = self.file.growth(more, self.expires.is_some_and(|at| at <= now))?;
        if growth.size == 0 {
            self.begin(Duration::ZERO, now);
        }
        if now < self.rotate_at || !rotation::is_due(&self.rotation, growth) {
            return None;
        }
        match self.file.rotate(clock::wall()) {
            Ok(path) => {
                self.begin(Duration::ZERO, now);
                tender.tend(&self.file, &path, self.rotation);
                None
            }
            Err(error) => {
                self.rotate_at = now + ROTATE_AGAIN;
                failed(&self.file, error.to_string())
            }
        }
    }

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

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn small(max_size: u64, max_age: Option<Duration>) -> Rotation {
        Rotation { max_size, max_files: 1000, max_age, compress: false }
    }

    /// The files of a folder in the order of time, the one that is written to last.
    fn all(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> = entries.collect();
        let number = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let (stamp, number) = name.split_once('-').unwrap_or((&name, "0"));
            (stamp.ends_with(".log"), stamp.to_owned(), number.parse::<u32>().unwrap())
        };
        paths.sort_by_key(number);
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn no_file_is_over_its_limit_and_no_line_is_lost_or_torn() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::default();
        let id = files.open(&dir.path().join("a.log")).unwrap();
        files.set_rotation(id, small(1000, None), at(0));
        let mut expected = String::new();
        for number in 0..500 {
            let line = format!("{number} {}\n", "x".repeat(number % 90));
            expected += &line;
            files.write(id, OUT, [b"", line.as_bytes()], at(0));
        }
        let all = all(dir.path());
        assert!(all.len() > 20, "{}", all.len());
        assert!(all.iter().all(|text| text.len() <= 1000 && text.ends_with('\n')));
        assert_eq!(all.concat(), expected);
        assert_eq!(files.take_notices(), []);
    }

    #[test]
    fn a_file_is_begun_anew_when_its_first_line_is_too_old() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::default();
        let id = files.open(&dir.path().join("a.log")).unwrap();
        files.set_rotation(id, small(0, Some(Duration::from_secs(60))), at(0));
        for (millis, text) in [(100_000, "a\n"), (150_000, "b\n"), (160_000, "c\n"), (219_999, "d\n")] {
            files.write(id, OUT, [b"", text.as_bytes()], at(millis));
        }
        assert_eq!(all(dir.path()), ["a\nb\n", "c\nd\n"]);
    }

    #[test]
    fn a_file_whose_first_line_is_too_old_is_begun_anew_also_when_no_other_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::default();
        let id = files.open(&dir.path().join("a.log")).unwrap();
        files.set_rotation(id, small(0, Some(Duration::from_secs(60))), at(0));
        assert_eq!(files.next_deadline(), None, "an empty file does not grow old");
        files.write(id, OUT, [b"", b"a\n"], at(1000));
        assert_eq!(files.next_deadline(), Some(at(61_000)));
        files.retry(at(60_999));
        assert_eq!(all(dir.path()), ["a\n"]);
        files.retry(at(61_000));
        assert_eq!(all(dir.path()), ["a\n", ""]);
        assert_eq!(files.next_deadline(), None);
        files.write(id, OUT, [b"", b"half"], at(70_000));
        assert_eq!(files.next_deadline(), None, "a line is not torn");
        files.write(id, OUT, [b"", b" a line\n"], at(131_000));
        assert_eq!(files.next_deadline(), Some(at(130_000)));
        files.retry(at(131_000));
        assert_eq!(all(dir.path()), ["a\n", "half a line\n", ""]);
    }

    /// Nothing is tried all the time.
    #[test]
    fn one_that_is_too_old_and_cannot_be_begun_anew_is_tried_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::default();
        let id = files.open(&dir.path().join("\u{e9}".repeat(120) + ".log")).unwrap();
        files.set_rotation(id, small(0, Some(Duration::from_secs(1))), at(0));
        files.write(id, OUT, [b"", b"a\n"], at(0));
        files.retry(at(1000));
        assert_eq!(files.next_deadline(), Some(at(61_000)));
        assert!(matches!(files.take_notices().as_slice(), [Notice::NotRotated { .. }]));
    }

    #[test]
    fn a_file_with_two_names_is_rotated_once() {
        let dir = tempfile::tempdir().unwrap();
        let (link, real) = (dir.path().join("link"), dir.path().join("real.log"));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut files = LogFiles::default();
        assert_eq!(files.open(&real).unwrap(), files.open(&link).unwrap());
        assert_ne!(files.open(Path::new("/dev/null")).unwrap(), files.open(Path::new("/dev/zero")).unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_rotated_grows_on_and_is_told_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("\u{e9}".repeat(120) + ".log");
        let mut files = LogFiles::default();
        let id = files.open(&path).unwrap();
        files.set_rotation(id, small(1, None), at(0));
        for millis in 0..59_000 {
            files.write(id, OUT, [b"", b"x\n"], at(millis));
        }
        let told = files.take_notices();
        assert!(matches!(told.as_slice(), [Notice::NotRotated { .. }]), "{told:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * 59_000);
    }

    #[test]
    fn the_supervisors_own_log_is_rotated_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut own = LogFile::open(&dir.path().join("clusterd.log")).unwrap();
        let mut files = LogFiles::default();
        for second in 0..10 {
            own.write(OUT, [b"", b"a line\n"]);
            files.look_after(&mut own, small(20, None), at(second * 1000));
            files.look_after(&mut own, small(0, None), at(second * 1000 + 999));
        }
        assert_eq!(all(dir.path()).concat(), "a line\n".repeat(10));
        assert_eq!(all(dir.path()).len(), 4);
    }
}
