//! All open log files, as the loop has them: which there are, one a path however many streams share it, and which disk
//! each is on. It opens them, since a worker is only started with its files; everything else is done beside the loop,
//! by one thread for each disk (`lane`), so that a disk that hangs holds up nobody but those that write to it.
//! Refuses to log: what is worth telling is collected for the caller.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::file::{LogFile, Source};
use super::lane::Lane;
use super::queue::{Command, Ticket};
use super::writer::Shop;
use crate::config::logs::{LogSettings, Rotation};
use crate::supervisor::event::AppId;
use crate::supervisor::time::Time;
use crate::sys::behalf::Behalf;
use crate::sys::clock::Clock;
use crate::sys::handover::Bell;
use crate::sys::output::{OpenError, wait_for_room};
use crate::sys::rotate;

pub use super::queue::FileId;
pub use super::writer::Notice;

/// How long a disk may take nothing until that is told.
pub const STALLED: Duration = Duration::from_secs(5);

/// How long a disk may take nothing until nobody's answer waits for it any more.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long the end of this process waits for what was not written yet, and that of one that panics.
const LAST_TIME: Duration = Duration::from_secs(5);
const PANIC_TIME: Duration = Duration::from_secs(1);
const PANIC_LOOK: Duration = Duration::from_millis(2);

/// How long one disk is waited for at a time.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Files that are named as behind at the end.
const NAMED: usize = 3;

/// What was told to the writer of a disk, to be asked for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    disk: u64,
    ticket: Ticket,
}

/// The open log files.
#[derive(Debug, Default)]
pub struct LogFiles {
    files: BTreeMap<FileId, Box<Known>>,
    disks: Vec<Disk>,
    next: u64,
    shop: Shop,
    /// Rung by the threads; without it there are none.
    bell: Option<Bell>,
    /// Those of all threads, for whoever panics.
    threads: Arc<Mutex<Vec<Lane>>>,
    notices: Vec<Notice>,
    answers: BTreeMap<Mark, Vec<String>>,
    /// It was told that no thread can be begun.
    alone: bool,
}

/// An open file.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    behalf: Behalf,
    users: usize,
    lane: Lane,
    /// What was said last of its form, and how far it grows.
    set: Option<(bool, Rotation)>,
    own: bool,
}

/// What writes to the files of one disk.
#[derive(Debug)]
struct Disk {
    number: u64,
    lane: Lane,
    /// How far it had come, and when that was found out; none while nothing waits.
    moved: Option<(Ticket, Time)>,
    /// It was told that it takes nothing.
    told: bool,
    /// One of its files, the first.
    path: PathBuf,
}

impl Disk {
    fn is_stalled(&self, now: Time) -> bool {
        // What came since that was found out is no standstill.
        let is_same = |done: Ticket| self.lane.progress() == Some(done);
        self.moved.is_some_and(|(done, since)| now.since(since) >= PATIENCE && is_same(done))
    }

    /// What is to be told: that it takes nothing, or takes something again.
    fn look(&mut self, now: Time) -> Option<Notice> {
        let path = || self.path.clone();
        let Some(done) = self.lane.progress() else {
            self.moved = None;
            return std::mem::take(&mut self.told).then(|| Notice::Recovered { path: path() });
        };
        match self.moved {
            Some((before, since)) if before == done => {
                let is_news = !self.told && now.since(since) >= STALLED;
                self.told |= is_news;
                is_news.then(|| Notice::Stalled { path: path() })
            }
            Some(_) | None => {
                self.moved = Some((done, now));
                None
            }
        }
    }
}

/// What was not written when a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Bytes.
    pub bytes: usize,
    /// Some of the files.
    pub paths: Vec<PathBuf>,
}

/// The supervisor's own log. Clones lead to the same file.
#[derive(Clone, Debug)]
pub struct OwnLog {
    lane: Lane,
    file: FileId,
}

impl OwnLog {
    /// Takes a whole record, at once, or drops and counts it while its disk takes nothing.
    pub fn write(&self, record: &[u8]) {
        self.lane.write_own(self.file, record);
    }
}

impl LogFiles {
    /// Files that are written beside the loop, which rings when there is news.
    pub fn beside(bell: Bell) -> LogFiles {
        let mut files = LogFiles::default();
        files.bell = Some(bell);
        files
    }

    /// What is to be watched: when it is rung there may be room, or news.
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(Bell::as_fd)
    }

    /// The bell was heard.
    pub fn heard(&self) {
        self.bell.iter().for_each(Bell::hush);
    }

    /// Opens a file, or shares the one that is open at this path already. Each success needs a
    /// [`LogFiles::release`].
    pub fn open(&mut self, path: &Path) -> Result<FileId, OpenError> {
        self.open_for(path, Behalf::default())
    }

    /// The same with the rights of somebody else. Who opened it last has the say. The one thing that is done to a file
    /// in the loop.
    pub fn open_for(&mut self, path: &Path, behalf: Behalf) -> Result<FileId, OpenError> {
        // Brought into one form once, so that a look at hundreds of them compares bytes.
        let path: PathBuf = path.components().collect();
        if let Some((id, known)) = self.at(&path) {
            known.users += 1;
            if known.behalf != behalf {
                known.behalf = behalf.clone();
                known.lane.tell(Command::Behalf(id, behalf), Time::START);
            }
            return Ok(id);
        }
        let file = LogFile::open_for(&path, behalf)?;
        // By another path, as that of a link, it is the same one all the same: it is rotated once.
        let identity = file.regular().map(|regular| regular.identity);
        let same = identity.and_then(|identity| {
            let lanes = self.disks.iter().filter(|disk| disk.lane.disk() == Some(identity.0));
            lanes.filter_map(|disk| disk.lane.find(identity)).next()
        });
        if let Some((id, known)) = same.and_then(|id| Some((id, self.files.get_mut(&id)?)))
            && !known.own
        {
            known.users += 1;
            return Ok(id);
        }
        let device = identity.map(|identity| identity.0);
        if self.disks.iter().any(|disk| disk.lane.disk() == device && disk.lane.is_stuffed()) {
            let source = io::ErrorKind::WouldBlock.into();
            let advice = "its disk has taken nothing for a long time: see to that first";
            return Err(OpenError::File { path, source, advice });
        }
        Ok(self.add(file, false))
    }

    fn at(&mut self, path: &Path) -> Option<(FileId, &mut Known)> {
        let same = |known: &Known| !known.own && known.path.as_os_str() == path.as_os_str();
        let (id, known) = self.files.iter_mut().find(|(_, known)| same(known))?;
        Some((*id, known))
    }

    fn add(&mut self, file: LogFile, own: bool) -> FileId {
        let lane = self.lane(file.regular().map(|regular| regular.identity.0), file.path());
        let (path, behalf) = (file.path().to_owned(), file.behalf().clone());
        let id = FileId(self.next);
        self.next += 1;
        lane.adopt(id, file, own);
        self.files.insert(id, Box::new(Known { path, behalf, users: 1, lane, set: None, own }));
        id
    }

    /// What writes to the files of this disk, to be told something at once.
    fn lane(&mut self, device: Option<u64>, path: &Path) -> Lane {
        self.take_news();
        self.disks.retain(|disk| !disk.lane.has_ended());
        let path = path.to_owned();
        let of_it = |disk: &&Disk| disk.lane.disk() == device;
        let with_thread =
            self.disks.iter().filter(of_it).find(|disk| disk.lane.has_thread() && disk.lane.engage());
        if let Some(disk) = with_thread {
            return disk.lane.clone();
        }
        let lane = match self.bell.as_ref().map(|bell| Lane::begin(device, bell, self.shop.clone())) {
            Some(Ok(lane)) => {
                let mut threads = all(&self.threads);
                threads.retain(|lane| !lane.has_ended());
                threads.push(lane.clone());
                lane
            }
            failed => {
                self.be_alone(failed.and_then(Result::err));
                match self.disks.iter().filter(of_it).find(|disk| !disk.lane.has_thread()) {
                    Some(disk) => return disk.lane.clone(),
                    None => Lane::here(device, self.shop.clone()),
                }
            }
        };
        self.next += 1;
        self.disks.push(Disk { number: self.next, lane: lane.clone(), moved: None, told: false, path });
        lane
    }

    fn be_alone(&mut self, error: Option<io::Error>) {
        if let Some(error) = error.filter(|_| !std::mem::replace(&mut self.alone, true)) {
            self.notices.push(Notice::Alone(error.to_string()));
        }
    }

    /// Takes the supervisor's own log over.
    pub fn keep_own(&mut self, file: LogFile) -> OwnLog {
        let file = self.add(file, true);
        let lane = self.files[&file].lane.clone();
        OwnLog { lane, file }
    }

    /// How far a file of an app grows, and whether its lines are JSON. Who opened it last has the say.
    pub fn set(&mut self, id: FileId, app: AppId, logs: &LogSettings, now: Time) {
        let Some(known) = self.files.get_mut(&id) else { return };
        let (path, behalf) = (&known.path, &known.behalf);
        {
            let mut totals = self.shop.totals();
            totals.add(app, path, behalf, logs.total_size);
            let mine = totals.of(path).find(|(of, _)| *of == app);
            mine.into_iter().for_each(|(app, total)| self.shop.archive().cap(app, total.clone()));
        }
        let (json, rotation) = (logs.json, logs.rotation);
        if known.set.replace((json, rotation)) != Some((json, rotation)) {
            known.lane.tell(Command::Set { file: id, json, rotation }, now);
        }
    }

    /// An app was deleted.
    pub fn forget_app(&mut self, app: AppId) {
        self.shop.totals().forget(app);
    }

    /// Has the file at a path emptied; none where it is not open. See [`LogFiles::take_answers`].
    pub fn empty_open(&mut self, path: &Path, now: Time) -> Option<Mark> {
        let path: PathBuf = path.components().collect();
        let (id, known) = self.at(&path)?;
        let (lane, ticket) = (known.lane.clone(), known.lane.tell(Command::Empty(id), now));
        self.mark(&lane, ticket)
    }

    /// The same with the supervisor's own log.
    pub fn empty_own(&mut self, now: Time) -> Option<Mark> {
        let (id, known) = self.files.iter().find(|(_, known)| known.own)?;
        let ticket = known.lane.tell(Command::Empty(*id), now);
        self.mark(&known.lane, ticket)
    }

    /// Has the file at a path emptied that is not open; none where there is none.
    ///
    /// # Errors
    /// When it is not said which disk it is on.
    pub fn empty_at(&mut self, path: &Path, behalf: Behalf, now: Time) -> io::Result<Option<Mark>> {
        let found = behalf.begin().and_then(|_guise| rotate::named(path))?;
        let Some(found) = found else { return Ok(None) };
        let lane = self.lane(Some(found.identity.0), path);
        let ticket = lane.tell(Command::EmptyAt(path.to_owned(), behalf), now);
        Ok(self.mark(&lane, ticket))
    }

    /// Has every path opened anew. Files that cannot be opened stay as they are, and are named in the answers.
    pub fn reopen(&mut self, now: Time) -> Vec<Mark> {
        let in_use = |disk: &&Disk| self.files.values().any(|known| known.lane.is(&disk.lane));
        let told = self.disks.iter().filter(in_use).map(|disk| {
            let ticket = disk.lane.tell(Command::Reopen, now);
            Mark { disk: disk.number, ticket }
        });
        told.collect()
    }

    fn mark(&self, lane: &Lane, ticket: Ticket) -> Option<Mark> {
        let disk = self.disks.iter().find(|disk| disk.lane.is(lane))?;
        Some(Mark { disk: disk.number, ticket })
    }

    /// Where it is.
    pub fn path(&self, id: FileId) -> Option<&Path> {
        self.files.get(&id).map(|known| &*known.path)
    }

    /// More than one output goes there.
    pub fn is_shared(&self, id: FileId) -> bool {
        self.files.get(&id).is_some_and(|known| known.users > 1)
    }

    /// Gives one use of a file back; with the last one it is closed, once all is written.
    pub fn release(&mut self, id: FileId) {
        if let Some(known) = self.files.get_mut(&id) {
            known.users -= 1;
            if known.users == 0 {
                known.lane.tell(Command::Release(id), Time::START);
                self.files.remove(&id);
            }
        }
    }

    /// Takes the parts, which are whole pieces of `source`.
    pub fn write(&mut self, id: FileId, source: Source, parts: [&[u8]; 2], now: Time) {
        if let Some(known) = self.files.get(&id) {
            known.lane.write(id, source, parts, now);
        }
    }

    /// Its disk is behind: whoever writes to it is better left unread, until the bell rings.
    pub fn awaits_room(&self, id: FileId) -> bool {
        self.files.get(&id).is_some_and(|known| known.lane.await_room(id))
    }

    /// The turn is at its end: what waits is written now. Says of disks how they are.
    pub fn end_turn(&mut self, now: Time) {
        for disk in &mut self.disks {
            disk.lane.kick();
            self.notices.extend(disk.look(now));
        }
    }

    /// What has to be done until everything that was taken is written, but for disks that take nothing.
    pub fn marks(&self, now: Time) -> Vec<Mark> {
        let moving = self.disks.iter().filter(|disk| !disk.is_stalled(now));
        moving.filter_map(|disk| Some(Mark { disk: disk.number, ticket: disk.lane.mark()? })).collect()
    }

    /// It is done, or its disk takes nothing; if not, the bell rings when it is done.
    pub fn is_over(&self, mark: Mark, now: Time) -> bool {
        let disk = self.disks.iter().find(|disk| disk.number == mark.disk);
        disk.is_none_or(|disk| disk.lane.await_done(mark.ticket) || disk.is_stalled(now))
    }

    /// What was answered since the last call: what failed, in words.
    pub fn take_answers(&mut self) -> BTreeMap<Mark, Vec<String>> {
        self.take_news();
        std::mem::take(&mut self.answers)
    }

    /// Where the loop writes itself: what is due by the clock.
    pub fn retry(&mut self, now: Time) {
        self.disks.iter().for_each(|disk| disk.lane.retry(now));
    }

    /// When there is something to do that no bell announces; none while every file can be written.
    pub fn next_deadline(&self) -> Option<Time> {
        let stalled = |disk: &Disk| disk.moved.filter(|_| !disk.told).map(|(_, since)| since + STALLED);
        let deadlines = self.disks.iter().map(|disk| [disk.lane.next_deadline(), stalled(disk)]);
        deadlines.flatten().flatten().min()
    }

    /// What happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        self.take_news();
        self.notices.extend(self.shop.archive().take_notices().into_iter().map(Notice::Old));
        std::mem::take(&mut self.notices)
    }

    fn take_news(&mut self) {
        for disk in &self.disks {
            let (notices, answers) = disk.lane.take_news();
            self.notices.extend(notices);
            let mark = |ticket| Mark { disk: disk.number, ticket };
            self.answers.extend(answers.into_iter().map(|(ticket, failures)| (mark(ticket), failures)));
        }
    }

    /// Gives the memory of unused buffers back.
    pub fn release_spare(&self) {
        self.disks.iter().for_each(|disk| disk.lane.release_spare());
    }

    /// Waits until everything is written, for so long at most; what is not. For the end of a process.
    pub fn drain(&mut self, limit: Duration) -> Option<Lost> {
        let clock = Clock::new();
        let mut lost = Lost { bytes: 0, paths: Vec::new() };
        let mut behind: Vec<&Disk> = self.disks.iter().collect();
        // In turns: one that hangs is not to use up the time of the others, which write meanwhile.
        loop {
            let left = limit.saturating_sub(clock.since_start());
            behind.retain(|disk| disk.lane.drain(left.min(DRAIN_LOOK)).is_some());
            if behind.is_empty() || left.is_zero() {
                break;
            }
        }
        for disk in behind {
            if let Some((files, bytes)) = disk.lane.drain(Duration::ZERO) {
                lost.bytes += bytes;
                lost.paths
                    .extend(files.iter().filter_map(|id| Some(self.files.get(id)?.path.clone())).take(NAMED));
            }
        }
        (lost.bytes > 0).then_some(lost)
    }

    /// The same, for as long as the end of a supervisor may take for it.
    pub fn drain_at_the_end(&mut self) -> Option<Lost> {
        self.drain(LAST_TIME)
    }

    /// A panic, which ends this process, waits a moment for what was said before it.
    pub fn write_in_a_panic(&self) {
        let threads = Arc::clone(&self.threads);
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let clock = Clock::new();
            let is_behind = || threads.try_lock().is_ok_and(|lanes| !lanes.iter().all(Lane::is_idle_now));
            while is_behind() && clock.since_start() < PANIC_TIME {
                let _ = wait_for_room(&[], PANIC_LOOK);
            }
            before(info);
        }));
    }
}

fn all(threads: &Mutex<Vec<Lane>>) -> MutexGuard<'_, Vec<Lane>> {
    threads.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for LogFiles {
    /// Whatever the way to the end of a supervisor: what it took is written, if that can be.
    fn drop(&mut self) {
        self.drain(PANIC_TIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Stream;
    use crate::supervisor::event::WorkerId;

    const OUT: Source = (WorkerId(1), Stream::Out);

    fn both() -> [LogFiles; 2] {
        [LogFiles::default(), LogFiles::beside(Bell::new().unwrap())]
    }

    fn written(files: &mut LogFiles, path: &Path) -> String {
        files.end_turn(Time::START);
        assert_eq!(files.drain(Duration::from_secs(20)), None);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn streams_with_one_path_share_one_descriptor() {
        for mut files in both() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("both.log");
            let (first, second) = (files.open(&path).unwrap(), files.open(&path).unwrap());
            assert_eq!(first, second);
            files.release(first);
            files.write(second, OUT, [b"", b"x\n"], Time::START);
            files.release(second);
            files.write(second, OUT, [b"", b"y\n"], Time::START);
            assert_eq!(written(&mut files, &path), "x\n");
            assert!(files.files.is_empty());
        }
    }

    #[test]
    fn a_file_with_two_names_is_rotated_once() {
        for mut files in both() {
            let dir = tempfile::tempdir().unwrap();
            let (link, real) = (dir.path().join("link"), dir.path().join("real.log"));
            std::os::unix::fs::symlink(&real, &link).unwrap();
            let id = files.open(&real).unwrap();
            assert_eq!(id, files.open(&link).unwrap());
            let (one, other) = (Path::new("/dev/null"), Path::new("/dev/zero"));
            assert_ne!(files.open(one).unwrap(), files.open(other).unwrap());
            // Also when it is another file behind the same two names.
            std::fs::rename(&real, dir.path().join("moved")).unwrap();
            files.reopen(Time::START);
            written(&mut files, &real);
            let third = dir.path().join("third");
            std::os::unix::fs::symlink(&real, &third).unwrap();
            assert_eq!(id, files.open(&third).unwrap());
            // And the one that was moved is another.
            assert_ne!(id, files.open(&dir.path().join("moved")).unwrap());
        }
    }

    #[test]
    fn each_disk_has_a_thread_of_its_own_which_serves_all_its_files() {
        let mut files = LogFiles::beside(Bell::new().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let ids: Vec<FileId> =
            (0..50).map(|number| files.open(&dir.path().join(format!("{number}.log"))).unwrap()).collect();
        files.open(Path::new("/dev/null")).unwrap();
        files.open(Path::new("/dev/zero")).unwrap();
        assert_eq!(files.disks.len(), 2);
        for round in 0..100 {
            for id in &ids {
                files.write(*id, OUT, [b"line ", format!("{round}\n").as_bytes()], Time::START);
            }
        }
        let expected: String = (0..100).map(|round| format!("line {round}\n")).collect();
        for number in 0..50 {
            assert_eq!(written(&mut files, &dir.path().join(format!("{number}.log"))), expected);
        }
        assert_eq!(files.marks(Time::START), []);
    }

    /// As an `apply` does that gives a thousand workers other files: more than find room on their way at once.
    #[test]
    fn any_number_of_files_can_be_opened_in_one_turn() {
        let mut files = LogFiles::beside(Bell::new().unwrap());
        let dir = tempfile::tempdir().unwrap();
        for number in 0..600 {
            let id = files.open(&dir.path().join(format!("{number}.log"))).unwrap();
            files.write(id, OUT, [b"", b"a line\n"], Time::START);
        }
        for number in 0..600 {
            assert_eq!(written(&mut files, &dir.path().join(format!("{number}.log"))), "a line\n");
        }
    }

    #[test]
    fn who_asked_is_answered_by_the_bell_when_it_is_done() {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut files = LogFiles::beside(Bell::new().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let id = files.open(&path).unwrap();
        files.write(id, OUT, [b"", b"old\n"], Time::START);
        let emptied = files.empty_open(&path, Time::START).unwrap();
        let gone = dir.path().join("gone");
        assert_eq!(files.empty_at(&gone, Behalf::default(), Time::START).unwrap(), None);
        let closed = dir.path().join("closed.log");
        std::fs::write(&closed, "old\n").unwrap();
        let closed = files.empty_at(&closed, Behalf::default(), Time::START).unwrap().unwrap();
        files.write(id, OUT, [b"", b"new\n"], Time::START);
        let mut answers = BTreeMap::new();
        while answers.len() < 2 {
            files.end_turn(Time::START);
            let mut asked = [PollFd::new(files.bell().unwrap(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut asked, PollTimeout::from(20_000_u16)), Ok(1), "nobody rings");
            files.heard();
            answers.extend(files.take_answers());
        }
        assert_eq!(answers, BTreeMap::from([(emptied, vec![]), (closed, vec![])]));
        assert_eq!(written(&mut files, &path), "new\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("closed.log")).unwrap(), "");
    }

    #[test]
    fn a_disk_that_hangs_at_the_end_costs_the_others_nothing() {
        let mut files = LogFiles::beside(Bell::new().unwrap());
        let lane = Lane::hanging();
        lane.write(FileId(99), OUT, [b"", b"never\n"], Time::START);
        files.disks.push(Disk { number: 99, lane, moved: None, told: false, path: "/hangs".into() });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let id = files.open(&path).unwrap();
        files.write(id, OUT, [b"", b"last words\n"], Time::START);
        let hangs = files.disks[0].lane.drain(Duration::ZERO).unwrap();
        // Nobody has woken the other thread yet.
        let lost = files.drain(Duration::from_secs(2)).unwrap();
        assert_eq!(lost.bytes, hangs.1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "last words\n");
    }

    #[test]
    fn a_file_whose_folder_is_gone_is_named_when_it_is_reopened() {
        for mut files in both() {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("logs");
            files.open(&folder.join("a.log")).unwrap();
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::write(&folder, "not a folder").unwrap();
            let marks = files.reopen(Time::START);
            files.drain(Duration::from_secs(20));
            let answers = files.take_answers();
            assert_eq!(answers.keys().copied().collect::<Vec<_>>(), marks);
            assert!(answers[&marks[0]][0].contains("a.log"), "{answers:?}");
        }
    }
}
