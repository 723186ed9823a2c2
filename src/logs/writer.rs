//! The log files of one disk, as whoever writes them has them: damped retries while it is full, a look now and then
//! at who moved or truncated them, and when they are begun anew. Knows no thread: it is called, and told the time.
//! Refuses to log: what is worth telling is collected for the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::archive::Archive;
use super::file::{LogFile, Source, Turn};
use super::queue::FileId;
use super::rotation;
use super::totals::Totals;
use crate::config::logs::Rotation;
use crate::control::protocol::Stream;
use crate::supervisor::event::WorkerId;
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
    /// Nothing is written to the disk that it is on: who writes there waits. A warning.
    Stalled {
        /// It, or another file of that disk.
        path: PathBuf,
    },
    /// The disk takes something again.
    Recovered {
        /// It, or another file of that disk.
        path: PathBuf,
    },
    /// No thread writes beside the loop: a disk that hangs holds everything up. A warning.
    Alone(String),
}

impl Notice {
    /// It is no trouble, but the end of one.
    pub fn is_good(&self) -> bool {
        matches!(self, Notice::Recovered { .. })
    }
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
            Notice::Stalled { path } => {
                let shown = path.display();
                write!(
                    f,
                    "log file {shown}: its disk takes nothing; workers that print to files there wait for it"
                )
            }
            Notice::Recovered { path } => {
                write!(f, "log file {}: its disk takes what is written again", path.display())
            }
            Notice::Alone(error) => {
                write!(
                    f,
                    "log files: no thread can write them ({error}): a disk that hangs holds up everything"
                )
            }
        }
    }
}

/// What belongs to the files of all disks together.
#[derive(Clone, Debug, Default)]
pub struct Shop {
    archive: Archive,
    totals: Arc<Mutex<Totals>>,
}

impl Shop {
    /// Which files belong together.
    pub fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who looks after old files.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// The old files of the apps that write to this one are to be no more than allowed.
    pub fn cap(&self, path: &Path) {
        self.totals().of(path).for_each(|(app, total)| self.archive.cap(app, total.clone()));
    }
}

/// The files of one disk.
#[derive(Debug, Default)]
pub struct Writer {
    /// Boxed: they come in the order of their numbers, which leaves the nodes of the tree half empty.
    files: BTreeMap<FileId, Box<Entry>>,
    /// Those that the clock alone may have something done to: of hundreds that are written there are none.
    timed: BTreeSet<FileId>,
    shop: Shop,
    notices: Vec<Notice>,
}

#[derive(Debug)]
struct Entry {
    file: LogFile,
    /// It is the supervisor's own log: what becomes of its lines cannot be told in it.
    own: bool,
    failing: Option<Failing>,
    rotation: Rotation,
    /// When its first line is too old.
    expires: Option<Time>,
    look_at: Time,
    /// Not before then.
    rotate_at: Time,
    /// Which file it was when that was last asked for.
    told: Option<Identity>,
}

/// Device and inode.
pub type Identity = (u64, u64);

#[derive(Clone, Copy, Debug)]
struct Failing {
    source: Source,
    retry_at: Time,
}

impl Writer {
    /// Without any file.
    pub fn new(shop: Shop) -> Writer {
        Writer { shop, ..Writer::default() }
    }

    /// Takes a file over.
    pub fn adopt(&mut self, id: FileId, file: LogFile, own: bool) {
        self.files.insert(id, Box::new(Entry::new(file, own)));
    }

    /// A file that could not be taken over: what is written to it is nowhere.
    pub fn lack(&mut self, path: PathBuf, error: &OpenError) {
        self.tell(Some(Notice::Dropping { path, error: Errno::from_raw(error.errno()) }));
    }

    /// With whose rights the path of a file is handled from now on.
    pub fn set_behalf(&mut self, id: FileId, behalf: Behalf) {
        if let Some(entry) = self.files.get_mut(&id) {
            entry.file.set_behalf(behalf);
        }
    }

    /// How far a file grows, and whether its lines are JSON.
    pub fn set(&mut self, id: FileId, json: bool, rotation: Rotation, now: Time) {
        let Some(entry) = self.files.get_mut(&id) else { return };
        entry.file.set_json(json);
        entry.rotation = rotation;
        let made = entry.file.regular().and_then(|regular| regular.made);
        let age = made.map_or(Duration::ZERO, |made| clock::wall().saturating_sub(made));
        entry.begin(age, now);
        self.mind(id);
    }

    /// Notes whether the clock alone may have something done to a file.
    fn mind(&mut self, id: FileId) {
        if self.files.get(&id).is_some_and(|entry| entry.is_timed()) {
            self.timed.insert(id);
        } else {
            self.timed.remove(&id);
        }
    }

    /// Nobody writes to it any more.
    pub fn release(&mut self, id: FileId) {
        self.files.remove(&id);
        self.timed.remove(&id);
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Empties a file; what it refused, in words.
    pub fn empty(&mut self, id: FileId) -> Option<String> {
        let entry = self.files.get_mut(&id)?;
        // What somebody moved away is not ours to empty.
        let emptied = entry.file.look().map_err(io::Error::other).and_then(|()| entry.file.empty());
        let error = emptied.err()?;
        Some(match entry.own {
            true => format!("the supervisor's log cannot be emptied: {error}"),
            false => not_emptied(entry.file.path(), &error),
        })
    }

    /// The same with one that is not open.
    pub fn empty_at(path: &Path, behalf: Behalf) -> Option<String> {
        LogFile::empty_at(path, behalf).err().map(|error| not_emptied(path, &error))
    }

    /// Appends the parts, which are whole pieces of `source`, or drops and counts them.
    pub fn write(&mut self, id: FileId, source: Source, parts: [&[u8]; 2], now: Time) {
        let Some(entry) = self.files.get_mut(&id) else {
            return;
        };
        let was_timed = entry.is_timed();
        match entry.failing {
            Some(Failing { retry_at, .. }) if now < retry_at => entry.file.drop_batch(parts),
            Some(_) | None => {
                let more = parts.iter().map(|part| part.len() as u64).sum();
                let told = if more > 0 { entry.keep_small(more, now, &self.shop) } else { None };
                let notice = entry.attempt(source, parts, now);
                let is_timed = entry.is_timed();
                self.tell(told);
                self.tell(notice);
                if is_timed != was_timed {
                    self.mind(id);
                }
            }
        }
    }

    /// So many lines found no place in memory while the disk took nothing: the file says so.
    pub fn miss(&mut self, id: FileId, lines: u64, now: Time) {
        // Nobody's stream: the notice is a line of its own.
        const NOBODY: Source = (WorkerId(u64::MAX), Stream::Out);
        let Some(entry) = self.files.get_mut(&id) else { return };
        entry.file.miss(lines);
        if entry.failing.is_none_or(|failing| failing.retry_at <= now) {
            let notice = entry.attempt(NOBODY, [&[], &[]], now);
            self.tell(notice);
            self.mind(id);
        }
    }

    /// Tries the failing files again whose time has come, so that a quiet app's missing lines are told too; and begins
    /// those anew whose first line is too old, also when no other comes.
    pub fn retry(&mut self, now: Time) {
        let mut notices = Vec::new();
        let timed: Vec<FileId> = self.timed.iter().copied().collect();
        for id in &timed {
            let Some(entry) = self.files.get_mut(id) else { continue };
            if entry.expires_at().is_some_and(|at| at <= now) {
                notices.push(entry.keep_small(0, now, &self.shop));
            }
            if let Some(Failing { source, retry_at }) = entry.failing
                && retry_at <= now
            {
                notices.push(entry.attempt(source, [&[], &[]], now));
            }
        }
        timed.into_iter().for_each(|id| self.mind(id));
        notices.into_iter().for_each(|notice| self.tell(notice));
    }

    /// When [`Writer::retry`] is due; none while every file can be written, and none grows old.
    pub fn next_deadline(&self) -> Option<Time> {
        let deadline = |entry: &Entry| match entry.failing {
            Some(failing) => Some(failing.retry_at),
            None => entry.expires_at(),
        };
        let timed = self.timed.iter().filter_map(|id| self.files.get(id));
        timed.filter_map(|entry| deadline(entry)).min()
    }

    /// Opens every path anew. Files that cannot be opened stay as they are and are named.
    pub fn reopen(&mut self) -> Vec<String> {
        let reopened = |entry: &mut Box<Entry>| {
            let error = entry.file.reopen().err()?;
            Some(if entry.own { format!("own log: {error}") } else { error.to_string() })
        };
        self.files.values_mut().filter_map(reopened).collect()
    }

    /// Which file a handle stands for, where that is another one than when it was last asked for.
    pub fn take_changed(&mut self, id: FileId) -> Option<Option<Identity>> {
        let entry = self.files.get_mut(&id)?;
        let is = entry.file.regular().map(|regular| regular.identity);
        (std::mem::replace(&mut entry.told, is) != is).then_some(is)
    }

    /// The handles of all files.
    pub fn ids(&self) -> Vec<FileId> {
        self.files.keys().copied().collect()
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

fn not_emptied(path: &Path, error: &io::Error) -> String {
    format!("log file {}: cannot be emptied: {error}", path.display())
}

impl Entry {
    fn new(file: LogFile, own: bool) -> Entry {
        let (rotation, never) = (if own { Rotation::USUAL } else { Rotation::default() }, None);
        let (look_at, rotate_at) = (Time::START, Time::START);
        let told = file.regular().map(|regular| regular.identity);
        Entry { file, own, failing: None, rotation, expires: never, look_at, rotate_at, told }
    }

    /// Its first line is so old now.
    fn begin(&mut self, age: Duration, now: Time) {
        self.expires = self.rotation.max_age.map(|limit| now + limit.saturating_sub(age));
    }

    /// Whether something is done to it by the clock alone, now or later.
    fn is_timed(&self) -> bool {
        self.failing.is_some() || self.expires.is_some()
    }

    /// When it is begun anew without another line: not while it ends in the middle of one.
    fn expires_at(&self) -> Option<Time> {
        let growth = self.file.growth(0, true)?;
        let holds_lines = growth.size > 0 && !growth.mid_line && self.failing.is_none();
        self.expires.filter(|_| holds_lines).map(|at| at.max(self.rotate_at))
    }

    /// Begins a new file where so many bytes more find no room in this one, or it is too old. Where that fails, this
    /// one grows on.
    fn keep_small(&mut self, more: u64, now: Time, shop: &Shop) -> Option<Notice> {
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
                shop.archive.tend(&path, self.rotation, self.file.behalf());
                shop.cap(self.file.path());
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
            Turn::Failed(_) | Turn::Resumed { .. } if self.own => None,
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
    const ONE: FileId = FileId(1);

    fn with(path: &Path, rotation: Rotation) -> Writer {
        let mut files = Writer::default();
        files.adopt(ONE, LogFile::open(path).unwrap(), false);
        files.set(ONE, false, rotation, at(0));
        files
    }

    #[test]
    fn a_full_disk_is_tried_once_a_second_and_told_once() {
        let mut files = with(Path::new("/dev/full"), small(0, None));
        for millis in 0..5000 {
            let now = Time::from_start(Duration::from_millis(millis));
            files.write(ONE, OUT, [b"", b"x\n"], now);
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
        let mut files = with(&dir.path().join("a.log"), small(1000, None));
        let mut expected = String::new();
        for number in 0..500 {
            let line = format!("{number} {}\n", "x".repeat(number % 90));
            expected += &line;
            files.write(ONE, OUT, [b"", line.as_bytes()], at(0));
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
        let mut files = with(&dir.path().join("a.log"), small(0, Some(Duration::from_secs(60))));
        for (millis, text) in [(100_000, "a\n"), (150_000, "b\n"), (160_000, "c\n"), (219_999, "d\n")] {
            files.write(ONE, OUT, [b"", text.as_bytes()], at(millis));
        }
        assert_eq!(all(dir.path()), ["a\nb\n", "c\nd\n"]);
    }

    #[test]
    fn a_file_whose_first_line_is_too_old_is_begun_anew_also_when_no_other_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = with(&dir.path().join("a.log"), small(0, Some(Duration::from_secs(60))));
        assert_eq!(files.next_deadline(), None, "an empty file does not grow old");
        files.write(ONE, OUT, [b"", b"a\n"], at(1000));
        assert_eq!(files.next_deadline(), Some(at(61_000)));
        files.retry(at(60_999));
        assert_eq!(all(dir.path()), ["a\n"]);
        files.retry(at(61_000));
        assert_eq!(all(dir.path()), ["a\n", ""]);
        assert_eq!(files.next_deadline(), None);
        files.write(ONE, OUT, [b"", b"half"], at(70_000));
        assert_eq!(files.next_deadline(), None, "a line is not torn");
        files.write(ONE, OUT, [b"", b" a line\n"], at(131_000));
        assert_eq!(files.next_deadline(), Some(at(130_000)));
        files.retry(at(131_000));
        assert_eq!(all(dir.path()), ["a\n", "half a line\n", ""]);
    }

    /// Nothing is tried all the time.
    #[test]
    fn one_that_is_too_old_and_cannot_be_begun_anew_is_tried_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let mut files =
            with(&dir.path().join("\u{e9}".repeat(120) + ".log"), small(0, Some(Duration::from_secs(1))));
        files.write(ONE, OUT, [b"", b"a\n"], at(0));
        files.retry(at(1000));
        assert_eq!(files.next_deadline(), Some(at(61_000)));
        assert!(matches!(files.take_notices().as_slice(), [Notice::NotRotated { .. }]));
    }

    #[test]
    fn a_file_that_cannot_be_rotated_grows_on_and_is_told_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("\u{e9}".repeat(120) + ".log");
        let mut files = with(&path, small(1, None));
        for millis in 0..59_000 {
            files.write(ONE, OUT, [b"", b"x\n"], at(millis));
        }
        let told = files.take_notices();
        assert!(matches!(told.as_slice(), [Notice::NotRotated { .. }]), "{told:?}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * 59_000);
    }

    #[test]
    fn the_supervisors_own_log_is_rotated_too_and_says_nothing_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Writer::default();
        files.adopt(ONE, LogFile::open(&dir.path().join("clusterd.log")).unwrap(), true);
        let record = "a record\n".repeat(1000);
        let times = Rotation::USUAL.max_size as usize / record.len() + 10;
        for _ in 0..times {
            files.write(ONE, OUT, [b"", record.as_bytes()], at(0));
        }
        // One that is compressed is there under two names for a moment.
        assert!(std::fs::read_dir(dir.path()).unwrap().count() > 1);
        files.adopt(ONE, LogFile::open(Path::new("/dev/full")).unwrap(), true);
        files.write(ONE, OUT, [b"", b"lost\n"], at(0));
        assert_eq!((files.take_notices(), files.next_deadline()), (vec![], Some(at(1000))));
    }

    #[test]
    fn what_found_no_place_in_memory_is_told_where_it_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut files = with(&path, small(0, None));
        files.write(ONE, OUT, [b"", b"half"], at(0));
        files.miss(ONE, 7, at(0));
        files.write(ONE, OUT, [b"", b" a line\n"], at(0));
        let text = "half\n[clusterd] 7 lines were dropped: the disk took too long\n a line\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(files.take_notices(), [Notice::Resumed { path, lines: 7 }]);
    }
}
