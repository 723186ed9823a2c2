//! What waits to be written to the log files of one disk: in order, within limits, counted. Pure: it knows neither
//! files nor threads nor time.
//!
//! A file that has [`FILE_LIMIT`] waiting is full: whoever writes to it is better left unread. What comes all the same
//! (last words of workers that have ended, our own log) is taken up to another limit, and beyond that dropped and
//! counted until the file has nothing waiting: its lines are missing in one place, where the file says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use memchr::memchr_iter;

use super::file::Source;
use crate::config::logs::Rotation;
use crate::sys::behalf::Behalf;
use crate::sys::rotate::Regular;

/// Bytes that wait for one file from which on its workers are not read.
pub const FILE_LIMIT: usize = 1024 * 1024;

/// Bytes that wait for all files of a disk from which on none of their workers is read.
pub const DISK_LIMIT: usize = 8 * 1024 * 1024;

/// What may wait in all for one file, and for a disk: the rest is for what is read of a worker that was not full yet,
/// whose lines may become many times as long (a byte and its newline as an object of JSON), and for what the pipes of
/// ended workers held, up to 1 MiB each.
const FILE_MOST: usize = 16 * 1024 * 1024;
const DISK_MOST: usize = 32 * 1024 * 1024;

/// What may wait of the supervisor's own log.
const OWN_MOST: usize = 256 * 1024;

/// What a command takes beside its bytes.
const OVERHEAD: usize = 128;

/// A buffer is filled up to this by what follows of the same stream.
const FILLED: usize = 64 * 1024;

/// How far back a buffer is looked for that can take more: as many streams may take turns.
const LOOK_BACK: usize = 16;

/// Buffers that are kept for what comes, none of them larger than [`FILLED`] but by its last addition.
const SPARE: usize = 4;

/// Handle of an open log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) u64);

/// Where a command stands among those of its disk.
pub type Ticket = u64;

/// A file whose descriptor is handed over at the same time.
#[derive(Debug)]
pub struct Adopted {
    /// Its handle.
    pub file: FileId,
    /// Where it is.
    pub path: PathBuf,
    /// With whose rights its path is handled.
    pub behalf: Behalf,
    /// Which it is.
    pub regular: Option<Regular>,
    /// It is the supervisor's own log.
    pub own: bool,
}

/// What is to be done with log files.
#[derive(Debug)]
pub enum Command {
    /// One more.
    Adopt(Box<Adopted>),
    /// With whose rights it is handled from now on.
    Behalf(FileId, Behalf),
    /// How far it grows, and whether its lines are objects of JSON.
    Set {
        /// Which.
        file: FileId,
        /// They are.
        json: bool,
        /// How far.
        rotation: Rotation,
    },
    /// Whole pieces of one stream.
    Write {
        /// Where to.
        file: FileId,
        /// Whose.
        source: Source,
        /// What.
        bytes: Vec<u8>,
    },
    /// So many lines found no room here.
    Missed {
        /// In which file.
        file: FileId,
        /// How many.
        lines: u64,
    },
    /// Nobody writes to it any more.
    Release(FileId),
    /// It is emptied; answered.
    Empty(FileId),
    /// The same with one that is not open; answered.
    EmptyAt(PathBuf, Behalf),
    /// Every path is opened anew; answered.
    Reopen,
}

impl Command {
    /// The file that it is about; none where it is about all, or one that is not open.
    fn file(&self) -> Option<FileId> {
        match self {
            Command::Adopt(adopted) => Some(adopted.file),
            Command::Behalf(file, _)
            | Command::Set { file, .. }
            | Command::Write { file, .. }
            | Command::Missed { file, .. }
            | Command::Release(file)
            | Command::Empty(file) => Some(*file),
            Command::EmptyAt(..) | Command::Reopen => None,
        }
    }
}

/// What is being done.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    file: Option<FileId>,
    bytes: usize,
    /// It was somebody's command, and not the queue's own.
    counts: bool,
}

/// The commands of one disk.
#[derive(Debug, Default)]
pub struct Queue {
    commands: VecDeque<Command>,
    /// Bytes of each file, what is being written included.
    waiting: BTreeMap<FileId, usize>,
    all: usize,
    given: Ticket,
    done: Ticket,
    under_way: Option<UnderWay>,
    missed: BTreeMap<FileId, u64>,
    spare: Vec<Vec<u8>>,
    /// Files whose room somebody waits for.
    wanted: BTreeSet<FileId>,
    /// The first ticket that somebody waits for.
    awaited: Option<Ticket>,
}

impl Queue {
    /// Takes pieces of a stream, or drops and counts them.
    pub fn write(&mut self, file: FileId, source: Source, parts: [&[u8]; 2], is_own: bool) {
        let len = parts[0].len() + parts[1].len();
        if len == 0 {
            return;
        }
        let most = if is_own { OWN_MOST } else { FILE_MOST };
        let finds_room = self.waiting(file) + len <= most && self.all + len <= DISK_MOST;
        if !finds_room || self.missed.contains_key(&file) {
            return self.miss(file, parts);
        }
        let added = match self.unfilled(file, source, len) {
            Some(bytes) => {
                parts.iter().for_each(|part| bytes.extend_from_slice(part));
                len
            }
            None => {
                let mut bytes = self.spare.pop().unwrap_or_default();
                bytes.reserve(len);
                parts.iter().for_each(|part| bytes.extend_from_slice(part));
                self.push(Command::Write { file, source, bytes });
                len + OVERHEAD
            }
        };
        *self.waiting.entry(file).or_default() += added;
        self.all += added;
    }

    /// The buffer of this stream that nothing of the file comes after, where it has room for so much.
    fn unfilled(&mut self, file: FileId, source: Source, len: usize) -> Option<&mut Vec<u8>> {
        for command in self.commands.iter_mut().rev().take(LOOK_BACK) {
            match command {
                Command::Write { file: of, source: by, bytes } if *of == file => {
                    return (*by == source && bytes.len() + len <= FILLED).then_some(bytes);
                }
                Command::Write { .. } => {}
                // What is about every file is about this one.
                _ => return None,
            }
        }
        None
    }

    fn miss(&mut self, file: FileId, parts: [&[u8]; 2]) {
        let lines: usize = parts.iter().map(|part| memchr_iter(b'\n', part).count()).sum();
        let missed = self.missed.entry(file).or_default();
        // Parts of one endless line are together one line.
        let lines = if lines == 0 && *missed == 0 { 1 } else { lines as u64 };
        *missed = missed.saturating_add(lines);
    }

    /// Takes a command that is not a write. One that stands there already, and would come to the same, is not taken
    /// twice. Its ticket.
    pub fn push(&mut self, command: Command) -> Ticket {
        if let Some(ticket) = self.same(&command) {
            return ticket;
        }
        if let Some(place) = self.replaced(&command) {
            self.commands[place] = command;
            return self.ticket_at(place);
        }
        self.commands.push_back(command);
        self.given += 1;
        self.given
    }

    /// Whoever asks again and again while nothing is done is answered once, with the others.
    fn same(&self, command: &Command) -> Option<Ticket> {
        let is_last = |is: &dyn Fn(&Command) -> bool, about: Option<FileId>| {
            let last = self.commands.iter().rposition(|known| about.is_none() || known.file() == about)?;
            is(&self.commands[last]).then(|| self.ticket_at(last))
        };
        match command {
            Command::Reopen => {
                let place = self.commands.iter().rposition(|known| matches!(known, Command::Reopen))?;
                let adopted_since = |known: &Command| matches!(known, Command::Adopt(_));
                (!self.commands.iter().skip(place).any(adopted_since)).then(|| self.ticket_at(place))
            }
            Command::Empty(file) => is_last(&|known| matches!(known, Command::Empty(_)), Some(*file)),
            Command::EmptyAt(path, _) => {
                let same = |known: &Command| matches!(known, Command::EmptyAt(other, _) if other == path);
                self.commands.iter().rposition(same).map(|place| self.ticket_at(place))
            }
            Command::Adopt(_)
            | Command::Behalf(..)
            | Command::Set { .. }
            | Command::Write { .. }
            | Command::Missed { .. }
            | Command::Release(_) => None,
        }
    }

    /// The last command about a file, where this one says the same thing otherwise.
    fn replaced(&self, command: &Command) -> Option<usize> {
        let about = command.file()?;
        let place = self.commands.iter().rposition(|known| known.file() == Some(about))?;
        let is_newer = matches!(
            (&self.commands[place], command),
            (Command::Set { .. }, Command::Set { .. }) | (Command::Behalf(..), Command::Behalf(..))
        );
        is_newer.then_some(place)
    }

    fn ticket_at(&self, place: usize) -> Ticket {
        self.given - (self.commands.len() - 1 - place) as Ticket
    }

    /// The next command, which is under way until [`Queue::finish`].
    pub fn pop(&mut self) -> Option<Command> {
        let emptied = self.missed.keys().copied().find(|file| !self.waiting.contains_key(file));
        if let Some((file, lines)) = emptied.and_then(|file| self.missed.remove_entry(&file)) {
            self.under_way = Some(UnderWay { file: Some(file), bytes: 0, counts: false });
            return Some(Command::Missed { file, lines });
        }
        let command = self.commands.pop_front()?;
        let bytes = match &command {
            Command::Write { bytes, .. } => bytes.len() + OVERHEAD,
            _ => 0,
        };
        self.under_way = Some(UnderWay { file: command.file(), bytes, counts: true });
        Some(command)
    }

    /// What [`Queue::pop`] gave is done; its buffer comes back. True when somebody waits to hear of it.
    pub fn finish(&mut self, buffer: Option<Vec<u8>>) -> bool {
        let Some(UnderWay { file, bytes, counts }) = self.under_way.take() else { return false };
        self.done += Ticket::from(counts);
        self.all -= bytes;
        if let Some((file, waiting)) = file.and_then(|file| Some((file, self.waiting.get_mut(&file)?))) {
            *waiting -= bytes;
            if *waiting == 0 {
                self.waiting.remove(&file);
            }
        }
        if let Some(mut buffer) = buffer.filter(|buffer| buffer.capacity() <= 2 * FILLED)
            && self.spare.len() < SPARE
        {
            buffer.clear();
            self.spare.push(buffer);
        }
        if self.commands.is_empty() && self.commands.capacity() > 1024 {
            self.commands = VecDeque::new();
        }
        self.has_news()
    }

    fn has_news(&mut self) -> bool {
        let is_awaited = self.awaited.is_some_and(|ticket| ticket <= self.done);
        if is_awaited {
            self.awaited = None;
        }
        let has_room = self.all <= DISK_LIMIT / 2
            && self.wanted.iter().any(|file| self.waiting(*file) <= FILE_LIMIT / 2);
        if has_room {
            let waiting = &self.waiting;
            self.wanted.retain(|file| waiting.get(file).is_some_and(|bytes| *bytes > FILE_LIMIT / 2));
        }
        is_awaited || has_room
    }

    /// Bytes that wait for this file.
    pub fn waiting(&self, file: FileId) -> usize {
        self.waiting.get(&file).copied().unwrap_or(0)
    }

    /// Whoever writes to this file is better left unread; [`Queue::finish`] tells when there is room.
    pub fn await_room(&mut self, file: FileId) -> bool {
        let is_full = self.waiting(file) > FILE_LIMIT || self.all > DISK_LIMIT;
        if is_full {
            self.wanted.insert(file);
        }
        is_full
    }

    /// Nobody waits for its room any more.
    pub fn forget_room(&mut self, file: FileId) {
        self.wanted.remove(&file);
    }

    /// Whether this one, and all before it, are done; if not, [`Queue::finish`] tells when.
    pub fn await_done(&mut self, ticket: Ticket) -> bool {
        let is_done = ticket <= self.done;
        if !is_done {
            self.awaited = Some(self.awaited.map_or(ticket, |other| other.min(ticket)));
        }
        is_done
    }

    /// Nothing waits, and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.commands.is_empty() && self.under_way.is_none() && self.missed.is_empty()
    }

    /// The latest command's ticket.
    pub fn given(&self) -> Ticket {
        self.given
    }

    /// How many commands are done.
    pub fn done(&self) -> Ticket {
        self.done
    }

    /// Bytes that wait, of all files.
    pub fn all(&self) -> usize {
        self.all
    }

    /// The files that something waits for.
    pub fn behind(&self) -> impl Iterator<Item = FileId> {
        self.waiting.keys().copied()
    }

    /// Gives the memory of unused buffers back.
    pub fn release_spare(&mut self) {
        self.spare = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Stream;
    use crate::supervisor::event::WorkerId;

    const OUT: Source = (WorkerId(1), Stream::Out);
    const ERR: Source = (WorkerId(1), Stream::Err);
    const ONE: FileId = FileId(1);
    const TWO: FileId = FileId(2);

    /// Writes to a file and its own buffer, as text; everything else by its kind.
    fn drained(queue: &mut Queue) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(command) = queue.pop() {
            all.push(match &command {
                Command::Write { file, bytes, .. } => {
                    format!("{}:{}", file.0, String::from_utf8_lossy(bytes))
                }
                Command::Missed { file, lines } => format!("{}!{lines}", file.0),
                other => format!("{other:?}").split(['(', ' ']).next().unwrap().to_owned(),
            });
            queue.finish(match command {
                Command::Write { bytes, .. } => Some(bytes),
                _ => None,
            });
        }
        all
    }

    fn write(queue: &mut Queue, file: FileId, source: Source, text: &str) {
        queue.write(file, source, [b"", text.as_bytes()], false);
    }

    #[test]
    fn what_follows_of_a_stream_joins_it_unless_something_of_its_file_came_between() {
        let mut queue = Queue::default();
        write(&mut queue, ONE, OUT, "a");
        write(&mut queue, TWO, OUT, "b");
        write(&mut queue, ONE, OUT, "c");
        write(&mut queue, ONE, ERR, "d");
        write(&mut queue, ONE, OUT, "e");
        queue.push(Command::Reopen);
        write(&mut queue, ONE, OUT, "f");
        queue.write(TWO, OUT, [b"", b""], false);
        assert_eq!(drained(&mut queue), ["1:ac", "2:b", "1:d", "1:e", "Reopen", "1:f"]);
        assert!(queue.is_idle() && queue.all() == 0);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..30 {
            let mut sent = [String::new(), String::new()];
            for number in 0..random.usize(0..300) {
                let which = random.usize(0..2);
                let text = format!("{number}{}\n", "x".repeat(random.usize(0..9000)));
                write(&mut queue, [ONE, TWO][which], [OUT, ERR][random.usize(0..2)], &text);
                sent[which] += &text;
            }
            let mut seen = [String::new(), String::new()];
            for text in drained(&mut queue) {
                let (which, text) = text.split_once(':').unwrap();
                seen[usize::from(which == "2")] += text;
            }
            assert!(sent == seen);
        }
    }

    #[test]
    fn a_full_file_holds_its_own_workers_and_a_full_disk_all_of_them() {
        let mut queue = Queue::default();
        let chunk = "x".repeat(FILLED);
        while !queue.await_room(ONE) {
            write(&mut queue, ONE, OUT, &chunk);
        }
        assert!(queue.waiting(ONE) <= FILE_LIMIT + FILLED + OVERHEAD);
        assert!(!queue.await_room(TWO));
        let mut other = 2;
        while !queue.await_room(TWO) {
            other += 1;
            (0..16).for_each(|_| write(&mut queue, FileId(other), OUT, &chunk));
        }
        assert!(queue.all() <= DISK_LIMIT + 17 * (FILLED + OVERHEAD));
        assert_eq!(other, 9);
        // Told once, when half of it is gone again.
        let (mut told, mut left) = (0, queue.given() - queue.done());
        while queue.pop().is_some() {
            left -= 1;
            if queue.finish(None) {
                told += 1;
                assert!(queue.all() <= DISK_LIMIT / 2 && !queue.await_room(ONE) && !queue.await_room(TWO));
            }
        }
        assert_eq!((told, left), (1, 0));
    }

    #[test]
    fn what_finds_no_room_is_missing_in_one_place_and_counted() {
        let mut queue = Queue::default();
        let line = "x".repeat(1023) + "\n";
        let (mut sent, mut kept) = (0, 0);
        for _ in 0..20 * 1024 {
            write(&mut queue, ONE, OUT, &line);
            sent += 1;
        }
        assert!(queue.waiting(ONE) <= FILE_MOST && queue.waiting(ONE) > FILE_MOST - FILLED);
        // Even where there is room again: it would stand before what is missing.
        for _ in 0..100 {
            let Some(Command::Write { bytes, .. }) = queue.pop() else { panic!("{queue:?}") };
            kept += bytes.len() / line.len();
            queue.finish(None);
        }
        write(&mut queue, ONE, OUT, &line);
        write(&mut queue, TWO, OUT, "other\n");
        let told = drained(&mut queue);
        let place = told.iter().position(|text| text.starts_with("1!")).expect("it is told");
        kept +=
            told[..place].iter().filter(|text| text.starts_with("1:")).map(|t| t.len() / 1024).sum::<usize>();
        assert_eq!(told[place], format!("1!{}", sent + 1 - kept));
        assert!(told[place..].iter().all(|text| !text.starts_with("1:")));
        write(&mut queue, ONE, OUT, &line);
        assert_eq!(drained(&mut queue), [format!("1:{line}")]);
    }

    #[test]
    fn all_files_of_a_disk_together_have_a_limit_and_our_own_log_one_of_its_own() {
        let mut queue = Queue::default();
        for file in 0..100 {
            (0..2000).for_each(|_| queue.write(FileId(file), OUT, [b"", &[b'\n'; 1024]], false));
        }
        assert!(queue.all() <= DISK_MOST + 200 * OVERHEAD, "{}", queue.all());
        let mut queue = Queue::default();
        (0..10_000)
            .for_each(|_| queue.write(ONE, OUT, [b"", b"a record of our own log, of some length\n"], true));
        assert!(queue.waiting(ONE) <= OWN_MOST + 10 * OVERHEAD);
        assert!(drained(&mut queue).last().unwrap().starts_with("1!"));
    }

    #[test]
    fn a_ticket_is_done_when_everything_before_it_is() {
        let mut queue = Queue::default();
        write(&mut queue, ONE, OUT, "a");
        let ticket = queue.push(Command::Empty(ONE));
        write(&mut queue, ONE, OUT, "b");
        let last = queue.given();
        assert_eq!((ticket, last), (2, 3));
        assert!(!queue.await_done(last) && !queue.await_done(ticket));
        let mut told = Vec::new();
        while queue.pop().is_some() {
            told.push(queue.finish(None));
        }
        assert_eq!(told, [false, true, false]);
        assert!(queue.await_done(ticket) && queue.await_done(last));
    }

    #[test]
    fn asking_again_and_again_while_nothing_is_done_takes_no_more_room() {
        let mut queue = Queue::default();
        write(&mut queue, ONE, OUT, "a");
        let empty = queue.push(Command::Empty(ONE));
        let reopen = queue.push(Command::Reopen);
        let elsewhere = queue.push(Command::EmptyAt("/a".into(), Behalf::default()));
        let set = |json| Command::Set { file: TWO, json, rotation: Rotation::USUAL };
        let first = queue.push(set(false));
        for _ in 0..100 {
            assert_eq!(queue.push(Command::Empty(ONE)), empty);
            assert_eq!(queue.push(Command::Reopen), reopen);
            assert_eq!(queue.push(Command::EmptyAt("/a".into(), Behalf::default())), elsewhere);
            assert_eq!(queue.push(set(true)), first);
        }
        assert_eq!(queue.given(), 5);
        write(&mut queue, ONE, OUT, "b");
        assert_eq!(queue.push(Command::Empty(ONE)), 7);
        let names = drained(&mut queue);
        assert_eq!(names, ["1:a", "Empty", "Reopen", "EmptyAt", "Set", "1:b", "Empty"]);
    }

    #[test]
    fn buffers_come_back() {
        let mut queue = Queue::default();
        write(&mut queue, ONE, OUT, &"x".repeat(1000));
        let Some(Command::Write { bytes, .. }) = queue.pop() else { panic!("{queue:?}") };
        let place = bytes.as_ptr();
        queue.finish(Some(bytes));
        write(&mut queue, TWO, OUT, "y");
        let Some(Command::Write { bytes, .. }) = queue.pop() else { panic!("{queue:?}") };
        assert_eq!((bytes.as_ptr(), &*bytes), (place, &b"y"[..]));
        queue.finish(Some(vec![0; 1 << 20]));
        assert!(queue.spare.is_empty(), "an unusual one is not kept");
    }
}
