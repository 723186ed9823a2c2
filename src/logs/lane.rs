//! What writes to the log files of one disk: a thread, which a disk that hangs holds up, and nobody else. It has
//! descriptors of its own (see `sys::handover`), takes no signals, begins with the first file of its disk, and ends
//! when it has had none for a while. Where it cannot be begun the loop writes itself.
//!
//! The loop and the thread share a queue and never wait for each other, but for the moment in which the thread begins:
//! the lock is held for no call that could reach a disk.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use super::file::{LogFile, Source};
use super::queue::{Adopted, Command, FileId, Queue, Ticket};
use super::writer::{Identity, Notice, Shop, Writer};
use crate::control::protocol::Stream;
use crate::supervisor::event::WorkerId;
use crate::supervisor::time::Time;
use crate::sys::clock::Clock;
use crate::sys::handover::{self, Bell};
use crate::sys::rotate;

/// What the thread may need for its calls, of which it takes what it uses.
const STACK: usize = 256 * 1024;

/// How long a thread without a file waits for the next.
const LINGER: Duration = Duration::from_secs(10);

/// Bytes that wait from which on the thread is not left alone until the end of the turn.
const WAKE_AT: usize = 64 * 1024;

/// Opened files that wait to be handed over, beside those that are on their way: an `apply` may open three for each of
/// a thousand workers.
const HANDED_LIMIT: usize = 4096;

/// How often the end of a process looks whether more files can be handed over.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Notices that wait for the loop; more are not kept.
const NEWS_LIMIT: usize = 256;

/// A command that was answered, and what failed, in words.
pub type Answer = (Ticket, Vec<String>);

/// What writes to the files of one disk, as the loop has it. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    /// Where files are handed over. Not shared: the thread has another table of descriptors.
    chute: Option<Arc<Chute>>,
}

/// The loop's end of where files are handed over.
#[derive(Debug)]
struct Chute {
    end: OwnedFd,
    /// Those that found no room in it yet: their commands wait as well.
    waiting: Mutex<VecDeque<OwnedFd>>,
}

impl Chute {
    fn put(&self, fd: OwnedFd) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(fd);
        self.feed();
    }

    /// Hands over what there is room for.
    fn feed(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(fd) = waiting.front() {
            if handover::give(self.end.as_fd(), fd.as_fd()).is_err() {
                return;
            }
            waiting.pop_front();
        }
    }
}

/// The thread's end.
#[derive(Debug)]
struct Intake {
    end: OwnedFd,
    bell: Bell,
}

impl Intake {
    /// The next file's descriptor, for which the loop is asked where it had no room.
    fn take(&self) -> io::Result<OwnedFd> {
        loop {
            match handover::take(self.end.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.bell.ring();
                    handover::await_next(self.end.as_fd())?;
                }
                taken => return taken,
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// The device that its files are on; none for those that are no regular files.
    disk: Option<u64>,
    clock: Clock,
    state: Mutex<State>,
    /// Something is to be done.
    work: Condvar,
    /// Something was done that is waited for: the thread has begun, or has nothing left to do.
    rest: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// Where no thread does it.
    here: Option<Writer>,
    begun: Option<Result<(), String>>,
    ended: bool,
    /// Something is about to be told, for which the thread is to stay.
    engaged: bool,
    asleep: bool,
    /// Somebody waits for the end of the queue.
    drained: bool,
    identities: BTreeMap<FileId, Identity>,
    notices: Vec<Notice>,
    answers: Vec<Answer>,
}

impl State {
    fn take_in(&mut self, news: News) -> bool {
        let News { changed, mut notices, answer } = news;
        for (file, identity) in changed {
            match identity {
                Some(identity) => self.identities.insert(file, identity),
                None => self.identities.remove(&file),
            };
        }
        let has_news = !notices.is_empty() || answer.is_some();
        notices.truncate(NEWS_LIMIT.saturating_sub(self.notices.len()));
        self.notices.append(&mut notices);
        // Somebody waits for each: there are no more than commands.
        self.answers.extend(answer);
        has_news
    }
}

/// What came of one command.
#[derive(Debug, Default)]
struct News {
    changed: Vec<(FileId, Option<Identity>)>,
    notices: Vec<Notice>,
    answer: Option<Answer>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    /// Begins a thread for the files of this disk, which rings when there is news.
    ///
    /// # Errors
    /// When the host gives no thread, or no table of descriptors for it.
    pub fn begin(disk: Option<u64>, bell: &Bell, shop: Shop) -> io::Result<Lane> {
        let (ours, theirs) = handover::chute()?;
        handover::give(ours.as_fd(), bell.as_fd())?;
        let shared = Arc::new(Shared::new(disk, State::default()));
        let (with, number) = (Arc::clone(&shared), theirs.as_raw_fd());
        let thread = thread::Builder::new().name("log-writer".to_owned()).stack_size(STACK);
        rotate::without_signals(|| thread.spawn(move || with.run(number, shop)))??;
        let mut state = lock(&shared);
        while state.begun.is_none() {
            state = shared.rest.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let begun = state.begun.clone().unwrap_or(Ok(()));
        drop(state);
        begun.map_err(io::Error::other)?;
        let chute = Chute { end: ours, waiting: Mutex::default() };
        Ok(Lane { shared, chute: Some(Arc::new(chute)) })
    }

    /// One without a thread: what it is told is done at once.
    pub fn here(disk: Option<u64>, shop: Shop) -> Lane {
        let state = State { here: Some(Writer::new(shop)), ..State::default() };
        Lane { shared: Arc::new(Shared::new(disk, state)), chute: None }
    }

    /// One of a disk that takes nothing.
    #[cfg(test)]
    pub fn hanging() -> Lane {
        let state = State { begun: Some(Ok(())), ..State::default() };
        Lane { shared: Arc::new(Shared::new(Some(u64::MAX), state)), chute: None }
    }

    /// The device that its files are on.
    pub fn disk(&self) -> Option<u64> {
        self.shared.disk
    }

    /// Whether something can be told to it, which has to be done next; not where its thread has ended.
    pub fn engage(&self) -> bool {
        let mut state = lock(&self.shared);
        state.engaged = !state.ended;
        state.engaged
    }

    /// They are one.
    pub fn is(&self, other: &Lane) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Its thread has ended.
    pub fn has_ended(&self) -> bool {
        lock(&self.shared).ended
    }

    /// It writes beside the loop.
    pub fn has_thread(&self) -> bool {
        self.chute.is_some()
    }

    /// Hands a file over: from now on this thread, and nobody else, has it open.
    pub fn adopt(&self, id: FileId, file: LogFile, own: bool) {
        let mut state = lock(&self.shared);
        state.engaged = false;
        let regular = file.regular();
        if let Some(writer) = &mut state.here {
            writer.adopt(id, file, own);
        } else if let Some(chute) = &self.chute {
            let (path, behalf) = (file.path().to_owned(), file.behalf().clone());
            state.queue.push(Command::Adopt(Box::new(Adopted { file: id, path, behalf, regular, own })));
            chute.put(file.into_descriptor());
        }
        state.identities.extend(regular.map(|regular| (id, regular.identity)));
    }

    /// Its disk has taken nothing for so long that no more files can wait.
    pub fn is_stuffed(&self) -> bool {
        let waiting = |chute: &Arc<Chute>| chute.waiting.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.chute.as_ref().is_some_and(|chute| waiting(chute) >= HANDED_LIMIT)
    }

    /// The file that is known to be this one.
    pub fn find(&self, identity: Identity) -> Option<FileId> {
        let state = lock(&self.shared);
        state.identities.iter().find(|(_, known)| **known == identity).map(|(file, _)| *file)
    }

    /// Has something done; what is answered comes with this ticket.
    pub fn tell(&self, command: Command, now: Time) -> Ticket {
        let mut state = lock(&self.shared);
        state.engaged = false;
        if let Command::Release(file) = &command {
            state.queue.forget_room(*file);
        }
        let ticket = state.queue.push(command);
        self.shared.do_here(&mut state, now);
        ticket
    }

    /// Appends pieces of a stream, or has that done by the end of the turn.
    pub fn write(&self, id: FileId, source: Source, parts: [&[u8]; 2], now: Time) {
        let mut state = lock(&self.shared);
        if let Some(writer) = &mut state.here {
            writer.write(id, source, parts, now);
            let changed = writer.take_changed(id).map(|identity| (id, identity)).into_iter().collect();
            state.take_in(News { changed, ..News::default() });
            return;
        }
        state.queue.write(id, source, parts, false);
        if state.queue.all() >= WAKE_AT {
            self.shared.wake(&mut state);
        }
    }

    /// The same for the supervisor's own log, at once.
    pub fn write_own(&self, id: FileId, record: &[u8]) {
        // No worker has the highest number; the log is one stream of its own.
        const OWN: Source = (WorkerId(u64::MAX), Stream::Err);
        let mut state = lock(&self.shared);
        if let Some(writer) = &mut state.here {
            return writer.write(id, OWN, [&[], record], self.shared.now());
        }
        state.queue.write(id, OWN, [&[], record], true);
        self.shared.wake(&mut state);
    }

    /// The turn is at its end: what waits is to be done.
    pub fn kick(&self) {
        self.chute.iter().for_each(|chute| chute.feed());
        let mut state = lock(&self.shared);
        if !state.queue.is_idle() {
            self.shared.wake(&mut state);
        }
    }

    /// Whoever writes to this file is better left unread; the bell rings when there is room.
    pub fn await_room(&self, file: FileId) -> bool {
        lock(&self.shared).queue.await_room(file)
    }

    /// Whether everything up to there is done; if not, the bell rings when it is.
    pub fn await_done(&self, ticket: Ticket) -> bool {
        lock(&self.shared).queue.await_done(ticket)
    }

    /// The latest ticket; none where everything is done.
    pub fn mark(&self) -> Option<Ticket> {
        let state = lock(&self.shared);
        (!state.queue.is_idle()).then(|| state.queue.given())
    }

    /// How far it has come; none where everything is done.
    pub fn progress(&self) -> Option<Ticket> {
        let state = lock(&self.shared);
        (!state.queue.is_idle()).then(|| state.queue.done())
    }

    /// What happened since the last call.
    pub fn take_news(&self) -> (Vec<Notice>, Vec<Answer>) {
        let mut state = lock(&self.shared);
        if let Some(writer) = &mut state.here {
            let told = writer.take_notices();
            state.notices.extend(told);
        }
        (std::mem::take(&mut state.notices), std::mem::take(&mut state.answers))
    }

    /// Where no thread does it: see [`Writer::retry`].
    pub fn retry(&self, now: Time) {
        if let Some(writer) = &mut lock(&self.shared).here {
            writer.retry(now);
        }
    }

    /// Where no thread does it: when [`Lane::retry`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        lock(&self.shared).here.as_ref().and_then(Writer::next_deadline)
    }

    /// Gives the memory of unused buffers back.
    pub fn release_spare(&self) {
        lock(&self.shared).queue.release_spare();
    }

    /// Waits until everything is done, for so long at most; else the files that are behind, and by how many bytes. For
    /// the end of a process: nothing in the loop may wait.
    pub fn drain(&self, limit: Duration) -> Option<(Vec<FileId>, usize)> {
        let clock = Clock::new();
        let mut state = lock(&self.shared);
        self.shared.wake(&mut state);
        state.drained = true;
        while !state.queue.is_idle() && !state.ended {
            let left = limit.saturating_sub(clock.since_start());
            if left.is_zero() {
                return Some((state.queue.behind().collect(), state.queue.all()));
            }
            let waited = self.shared.rest.wait_timeout(state, left.min(DRAIN_LOOK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.chute.iter().for_each(|chute| chute.feed());
        }
        None
    }

    /// Whether everything is done, asked without waiting for the lock: it may be this very thread that has it, and
    /// panics.
    pub fn is_idle_now(&self) -> bool {
        match self.shared.state.try_lock() {
            Ok(mut state) => {
                self.shared.wake(&mut state);
                state.queue.is_idle() || state.ended
            }
            Err(TryLockError::Poisoned(state)) => state.into_inner().queue.is_idle(),
            Err(TryLockError::WouldBlock) => false,
        }
    }
}

impl Shared {
    fn new(disk: Option<u64>, state: State) -> Shared {
        let (work, rest) = (Condvar::new(), Condvar::new());
        Shared { disk, clock: Clock::new(), state: Mutex::new(state), work, rest }
    }

    fn now(&self) -> Time {
        Time::from_start(self.clock.since_start())
    }

    fn wake(&self, state: &mut State) {
        if std::mem::take(&mut state.asleep) {
            self.work.notify_one();
        }
    }

    /// Where no thread does it, it is done.
    fn do_here(&self, state: &mut State, now: Time) {
        let Some(mut writer) = state.here.take() else { return };
        while let Some(command) = state.queue.pop() {
            let ticket = state.queue.done() + 1;
            let (buffer, news) = perform(&mut writer, command, ticket, now, None);
            state.queue.finish(buffer);
            state.take_in(news);
        }
        state.here = Some(writer);
    }

    /// The thread, from its begin to its end.
    fn run(&self, number: RawFd, shop: Shop) {
        let settled = handover::settle(number);
        let settled =
            settled.and_then(|end| Ok(Intake { bell: Bell::of(handover::take(end.as_fd())?), end }));
        let begun = settled.as_ref().map(|_| ()).map_err(ToString::to_string);
        lock(self).begun = Some(begun);
        self.rest.notify_all();
        if let Ok(intake) = settled {
            self.work_off(&intake, Writer::new(shop));
        }
    }

    fn work_off(&self, intake: &Intake, mut writer: Writer) {
        let bell = &intake.bell;
        while let Some((command, ticket)) = self.next(&mut writer, bell) {
            let (buffer, news) = perform(&mut writer, command, ticket, self.now(), Some(intake));
            let mut state = lock(self);
            let is_awaited = state.queue.finish(buffer);
            let has_news = state.take_in(news);
            let is_drained = state.drained && state.queue.is_idle();
            drop(state);
            if is_awaited || has_news {
                bell.ring();
            }
            if is_drained {
                self.rest.notify_all();
            }
        }
    }

    /// The next command, with its ticket; what is due by the clock is done meanwhile. None at the end.
    fn next(&self, writer: &mut Writer, bell: &Bell) -> Option<(Command, Ticket)> {
        let idle_since = self.now();
        let mut state = lock(self);
        loop {
            if let Some(command) = state.queue.pop() {
                let ticket = state.queue.done() + 1;
                return Some((command, ticket));
            }
            let now = self.now();
            let until = writer.next_deadline().or_else(|| writer.is_empty().then(|| idle_since + LINGER));
            if until.is_some_and(|until| until <= now) {
                if writer.is_empty() && !state.engaged {
                    state.ended = true;
                    return None;
                }
                drop(state);
                let news = self.retry(writer, now);
                state = lock(self);
                if state.take_in(news) {
                    bell.ring();
                }
                continue;
            }
            state.asleep = true;
            state = match until {
                Some(until) => {
                    let waited = self.work.wait_timeout(state, until.since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.asleep = false;
        }
    }

    fn retry(&self, writer: &mut Writer, now: Time) -> News {
        writer.retry(now);
        let ids = writer.ids().into_iter();
        let changed = ids.filter_map(|id| Some((id, writer.take_changed(id)?))).collect();
        News { changed, notices: writer.take_notices(), answer: None }
    }
}

/// Does what a command says. Its buffer, and what came of it.
fn perform(
    writer: &mut Writer,
    command: Command,
    ticket: Ticket,
    now: Time,
    intake: Option<&Intake>,
) -> (Option<Vec<u8>>, News) {
    let (mut buffer, mut answer, mut touched) = (None, None, None);
    let answered = |failures: Vec<String>| Some((ticket, failures));
    match command {
        Command::Adopt(adopted) => adopt(writer, *adopted, intake),
        Command::Behalf(file, behalf) => writer.set_behalf(file, behalf),
        Command::Set { file, json, rotation } => writer.set(file, json, rotation, now),
        Command::Write { file, source, bytes } => {
            writer.write(file, source, [&[], &bytes], now);
            (buffer, touched) = (Some(bytes), Some(file));
        }
        Command::Missed { file, lines } => {
            writer.miss(file, lines, now);
            touched = Some(file);
        }
        Command::Release(file) => {
            writer.release(file);
            return (None, News { changed: vec![(file, None)], ..News::default() });
        }
        Command::Empty(file) => {
            answer = answered(writer.empty(file).into_iter().collect());
            touched = Some(file);
        }
        Command::EmptyAt(path, behalf) => {
            answer = answered(Writer::empty_at(&path, behalf).into_iter().collect());
        }
        Command::Reopen => {
            answer = answered(writer.reopen());
        }
    }
    let is_reopened = answer.is_some() && touched.is_none();
    let files = if is_reopened { writer.ids() } else { touched.into_iter().collect() };
    let changed = files.into_iter().filter_map(|file| Some((file, writer.take_changed(file)?))).collect();
    (buffer, News { changed, notices: writer.take_notices(), answer })
}

fn adopt(writer: &mut Writer, adopted: Adopted, intake: Option<&Intake>) {
    let Some(taken) = intake.map(Intake::take) else { return };
    let Adopted { file, path, behalf, regular, own } = adopted;
    // What found no room among the descriptors may find some now.
    match taken.map(|fd| LogFile::opened(fd, path.clone(), behalf.clone(), regular)) {
        Ok(opened) => writer.adopt(file, opened, own),
        Err(_) => match LogFile::open_for(&path, behalf) {
            Ok(opened) => writer.adopt(file, opened, own),
            Err(error) => writer.lack(path, &error),
        },
    }
}
