//! Opens log files beside the loop, and empties those that nobody has open: a disk that hangs holds up a thread of its
//! folder, and who waits for that file. What is opened comes to the loop as a descriptor of its own (see
//! `sys::handover`). Threads begin when there is something to do, and end when there has been nothing for a while.
//! Knows no app: what is to be done with a path is told by the caller.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::file::LogFile;
use super::queue::Ticket;
use crate::supervisor::time::Time;
use crate::sys::behalf::Behalf;
use crate::sys::handover::{self, Bell};
use crate::sys::output::OpenError;
use crate::sys::rotate::{self, Regular};

/// What a thread may need for its calls, of which it takes what it uses.
const STACK: usize = 256 * 1024;

/// How long a thread waits for the next file.
const LINGER: Duration = Duration::from_secs(10);

/// Threads at a time: so many folders can be on disks that hang before files in others wait, too.
const THREADS: usize = 32;

/// How long a thread waits until the loop has taken what was opened before.
const ROOM_LOOK: Duration = Duration::from_millis(20);

/// Why a file is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the kernel said, as a number; 0 where it was not the kernel.
    pub errno: i32,
    /// The whole sentence: what, why, and what to do.
    pub message: String,
    /// We lacked something for a moment.
    pub transient: bool,
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Refusal {
        Refusal { errno: error.errno(), message: error.to_string(), transient: false }
    }
}

/// With whose rights a file is handled, and itself where it was to be opened.
pub type Found = Result<(Behalf, Option<LogFile>), Refusal>;

/// What is done with a path; everything in it may hang.
pub enum Job {
    /// It is opened, with the rights that are found to be the right ones.
    Open(Box<dyn FnOnce() -> Found + Send>),
    /// It is emptied; what failed, in words.
    Empty(Box<dyn FnOnce() -> Option<String> + Send>),
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Job::Open(_) => "Open",
            Job::Empty(_) => "Empty",
        })
    }
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Of one that opens.
    Opened(Found),
    /// Of one that empties.
    Emptied(Vec<String>),
}

/// Where a file is, and which it is.
type Place = (PathBuf, Option<Regular>);

/// One that came over from a thread, its descriptor beside it.
#[derive(Debug)]
enum Passed {
    Opened(Result<(Behalf, Option<Place>), Refusal>),
    Emptied(Vec<String>),
}

/// The threads that open log files, as the loop has them.
#[derive(Debug, Default)]
pub struct Opener {
    pool: Option<Pool>,
    given: Ticket,
    /// What was not done yet, and since when it waits.
    waiting: BTreeMap<Ticket, Time>,
}

/// Made with the first job.
#[derive(Debug)]
struct Pool {
    shared: Arc<Shared>,
    /// Where descriptors come out.
    ours: OwnedFd,
    /// Where the threads put them in.
    theirs: OwnedFd,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be done.
    work: Condvar,
    /// The loop has taken what was done.
    room: Condvar,
    /// A thread has begun.
    begun: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What waits in each folder. A thread is at those that are not in `ready`.
    folders: BTreeMap<PathBuf, VecDeque<Task>>,
    /// Folders that something is to be done in, and no thread is at.
    ready: VecDeque<PathBuf>,
    idle: usize,
    threads: usize,
    /// How the last thread to begin has begun.
    begun: Option<Result<(), String>>,
    /// In the order of their descriptors.
    done: Vec<(Ticket, Passed)>,
    ended: bool,
}

#[derive(Debug)]
struct Task {
    ticket: Ticket,
    path: PathBuf,
    job: Job,
}

impl State {
    fn put(&mut self, folder: PathBuf, task: Task) {
        if !self.folders.contains_key(&folder) {
            self.ready.push_back(folder.clone());
        }
        self.folders.entry(folder).or_default().push_back(task);
    }

    /// The next task, of a folder that nobody else is at.
    fn take(&mut self) -> Option<(PathBuf, Task)> {
        let folder = self.ready.pop_front()?;
        let task = self.folders.get_mut(&folder)?.pop_front()?;
        Some((folder, task))
    }

    /// Nobody is at the folder any more.
    fn leave(&mut self, folder: PathBuf) {
        if self.folders.get(&folder).is_some_and(VecDeque::is_empty) {
            self.folders.remove(&folder);
        } else {
            self.ready.push_back(folder);
        }
    }

    /// The same file is to be emptied already, and nobody has begun.
    fn same(&self, folder: &Path, path: &Path, job: &Job) -> Option<Ticket> {
        let tasks = self.folders.get(folder).filter(|_| matches!(job, Job::Empty(_)))?;
        let same = |task: &&Task| matches!(task.job, Job::Empty(_)) && task.path == path;
        tasks.iter().find(same).map(|task| task.ticket)
    }

    fn lacks_thread(&self) -> bool {
        self.ready.len() > self.idle && self.threads < THREADS
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Opener {
    /// Has something done with the file at a path. The bell is rung when it is done.
    ///
    /// # Errors
    /// When no thread can do it: it comes back.
    pub fn tell(
        &mut self,
        path: &Path,
        job: Job,
        bell: &Bell,
        now: Time,
    ) -> Result<Ticket, (Job, io::Error)> {
        if self.pool.is_none() {
            match handover::chute() {
                Ok((ours, theirs)) => self.pool = Some(Pool { shared: Arc::default(), ours, theirs }),
                Err(error) => return Err((job, error)),
            }
        }
        let Some(pool) = &self.pool else { return Err((job, io::ErrorKind::Other.into())) };
        let folder = path.parent().unwrap_or(path);
        let mut state = lock(&pool.shared);
        if let Some(ticket) = state.same(folder, path, &job) {
            return Ok(ticket);
        }
        let ticket = self.given + 1;
        state.put(folder.to_owned(), Task { ticket, path: path.to_owned(), job });
        if state.lacks_thread() {
            let (begun, error) = pool.begin(state, bell);
            state = begun;
            if let Some(error) = error.filter(|_| state.threads == 0)
                && let Some((folder, task)) = state.take()
            {
                state.leave(folder);
                return Err((task.job, error));
            }
        }
        drop(state);
        pool.shared.work.notify_one();
        self.given = ticket;
        self.waiting.insert(ticket, now);
        Ok(ticket)
    }

    /// What was done since the last call, in the order in which it was done.
    pub fn take(&mut self) -> Vec<(Ticket, Outcome)> {
        let Some(pool) = &self.pool else { return Vec::new() };
        let mut state = lock(&pool.shared);
        let done = std::mem::take(&mut state.done);
        let outcome = |passed| match passed {
            Passed::Emptied(failures) => Outcome::Emptied(failures),
            Passed::Opened(found) => Outcome::Opened(found.and_then(|(behalf, file)| {
                let file =
                    file.map(|(path, regular)| pool.receive(path, behalf.clone(), regular)).transpose()?;
                Ok((behalf, file))
            })),
        };
        // Within the lock: the order of the descriptors is that of the list.
        let done: Vec<_> = done.into_iter().map(|(ticket, passed)| (ticket, outcome(passed))).collect();
        drop(state);
        pool.shared.room.notify_all();
        done.iter().for_each(|(ticket, _)| {
            self.waiting.remove(ticket);
        });
        done
    }

    /// The latest of what is not done yet and was told less than so long ago.
    pub fn mark(&self, patience: Duration, now: Time) -> Option<Ticket> {
        let moving = self.waiting.iter().filter(|(_, since)| now.since(**since) < patience);
        moving.map(|(ticket, _)| *ticket).next_back()
    }

    /// Whether nothing up to there waits that was told less than so long ago.
    pub fn is_over(&self, mark: Ticket, patience: Duration, now: Time) -> bool {
        !self.waiting.range(..=mark).any(|(_, since)| now.since(*since) < patience)
    }
}

impl Pool {
    /// Begins one more thread.
    fn begin<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        bell: &Bell,
    ) -> (MutexGuard<'a, State>, Option<io::Error>) {
        let with = Arc::clone(&self.shared);
        let begin = || -> io::Result<(OwnedFd, OwnedFd)> {
            // Of each thread its own, handed over before anything else.
            let (give, take) = handover::chute()?;
            handover::give(give.as_fd(), bell.as_fd())?;
            handover::give(give.as_fd(), self.theirs.as_fd())?;
            let number = take.as_raw_fd();
            let thread = thread::Builder::new().name("log-opener".to_owned()).stack_size(STACK);
            rotate::without_signals(|| thread.spawn(move || with.run(number)))??;
            Ok((give, take))
        };
        state.begun = None;
        let kept = match begin() {
            Ok(kept) => kept,
            Err(error) => return (state, Some(error)),
        };
        while state.begun.is_none() {
            state = self.shared.begun.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(kept);
        let error = state.begun.take().and_then(Result::err).map(io::Error::other);
        (state, error)
    }

    fn receive(&self, path: PathBuf, behalf: Behalf, regular: Option<Regular>) -> Result<LogFile, Refusal> {
        match handover::take(self.ours.as_fd()) {
            Ok(fd) => Ok(LogFile::opened(fd, path, behalf, regular)),
            Err(error) => Err(Refusal {
                errno: error.raw_os_error().unwrap_or(0),
                message: format!("log file {}: no descriptor is left for it: {error}", path.display()),
                transient: true,
            }),
        }
    }
}

impl Drop for Opener {
    /// Threads that wait for work end; one that hangs ends with this process.
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            lock(&pool.shared).ended = true;
            pool.shared.work.notify_all();
            pool.shared.room.notify_all();
        }
    }
}

impl Shared {
    /// A thread, from its begin to its end.
    fn run(&self, number: RawFd) {
        let settled = handover::settle(number);
        let settled = settled.and_then(|end| {
            let bell = Bell::of(handover::take(end.as_fd())?);
            Ok((bell, handover::take(end.as_fd())?))
        });
        let mut state = lock(self);
        state.begun = Some(settled.as_ref().map(|_| ()).map_err(ToString::to_string));
        state.threads += usize::from(settled.is_ok());
        self.begun.notify_all();
        let Ok((bell, end)) = settled else { return };
        loop {
            let next;
            (state, next) = self.next(state);
            let Some((folder, task)) = next else { break };
            drop(state);
            let (passed, fd) = perform(task.job);
            state = lock(self);
            state.leave(folder);
            if let Some(fd) = fd {
                state = self.hand_over(state, end.as_fd(), &fd, &bell);
            }
            state.done.push((task.ticket, passed));
            bell.ring();
        }
        state.threads -= 1;
    }

    /// The next task; none where there has been none for a while, or the supervisor ends.
    fn next<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> (MutexGuard<'a, State>, Option<(PathBuf, Task)>) {
        while !state.ended {
            if let Some(next) = state.take() {
                return (state, Some(next));
            }
            state.idle += 1;
            let (back, waited) =
                self.work.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if waited.timed_out() && state.ready.is_empty() {
                break;
            }
        }
        (state, None)
    }

    /// Hands a descriptor over, once there is room for it.
    fn hand_over<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        end: BorrowedFd<'_>,
        fd: &OwnedFd,
        bell: &Bell,
    ) -> MutexGuard<'a, State> {
        while handover::give(end, fd.as_fd()).is_err() && !state.ended {
            bell.ring();
            state = self.room.wait_timeout(state, ROOM_LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }
}

fn perform(job: Job) -> (Passed, Option<OwnedFd>) {
    match job {
        Job::Empty(empty) => (Passed::Emptied(empty().into_iter().collect()), None),
        Job::Open(open) => match open() {
            Ok((behalf, Some(file))) => {
                let (path, regular) = (file.path().to_owned(), file.regular());
                (Passed::Opened(Ok((behalf, Some((path, regular))))), Some(file.into_descriptor()))
            }
            Ok((behalf, None)) => (Passed::Opened(Ok((behalf, None))), None),
            Err(failure) => (Passed::Opened(Err(failure)), None),
        },
    }
}
