//! What the next supervisor of this home has to know of this one when it is killed: which workers ran, and by
//! which mark all that came of them is known. Workers end with it by themselves (PR_SET_PDEATHSIG), what they
//! started does not, and two generations must never serve unknown to each other.
//!
//! A second supervisor of the same state folder is kept out by a lock. Where the folder cannot be locked the file
//! names who wrote it, and a process of that number and start is only ever the writer: its processes are left alone
//! as long as it runs. Each then writes over the other's file, so that what the first leaves when it is killed
//! later may not be found; nobody is ended by mistake, since the mark is of one run.
//!
//! The file is written whole under another name, then renamed; nothing but the latest is ever read. It is not
//! synced: after a power cut the process ids in it mean nothing.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::home::Home;
use crate::supervisor::event::WorkerId;
use crate::supervisor::time::Time;
use crate::sys::process;
#[cfg(any(test, fuzzing))]
use crate::sys::process::Stat;
use crate::sys::socket;

use super::Daemon;
use super::leftovers::{self, Left};
use super::processes::Process;

/// The only form there is so far.
const VERSION: u32 = 1;

/// A file of the most workers that there can be is shorter.
const LIMIT: u64 = 64 * 1024 * 1024;

/// After a file that could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// While many workers start, or end, the file is written no more often than that, or than so many times what the last
/// write took: each time it is written whole.
const WHILE_BUSY: Duration = Duration::from_millis(100);
const TIMES: u32 = 20;

/// The file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u32,
    /// Of which start of the host the numbers are.
    boot_id: String,
    /// Who wrote it. Two supervisors whose runtime folders differ may share the folder of this file.
    supervisor: Entry,
    /// What tells the processes of its run from all others. Empty in files of before there was one.
    #[serde(default)]
    mark: String,
    workers: Vec<Entry>,
}

/// A worker's first process, or the supervisor's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Of this supervisor; 0 for itself.
    pub(super) worker: u64,
    pub(super) pid: i32,
    /// In clock ticks since boot.
    pub(super) started: u64,
}

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// In the environment of everything that this supervisor starts.
    pub(super) mark: String,
    /// When each worker's first process started.
    started: BTreeMap<u64, Entry>,
    /// Of which changes of the workers it was.
    changes: u64,
    /// It is not written before this, however much has changed.
    rests_until: Time,
    /// It does not say who runs by now.
    stale: bool,
    /// The file could not be written, which was told; when it is tried again.
    again: Option<Time>,
}

impl Recorded {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.again.or_else(|| self.stale.then_some(self.rests_until))
    }
}

fn path_of(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

impl Daemon {
    /// Writes down who runs, when that has changed.
    pub(super) fn record_state(&mut self) {
        let changes = self.processes.changes();
        let due = self.recorded.again.is_some_and(|at| at <= self.now);
        self.recorded.stale = changes != self.recorded.changes;
        if !(self.recorded.stale || due) || self.now < self.recorded.rests_until {
            return;
        }
        let began = self.read_clock();
        let alive = |(worker, process): (WorkerId, &Process)| {
            let known = self.recorded.started.get(&worker.0).filter(|known| known.pid == process.pid);
            let entry = known.cloned().or_else(|| {
                let started = process::stat(process.pid).ok()?.started;
                Some(Entry { worker: worker.0, pid: process.pid, started })
            })?;
            Some((worker.0, entry))
        };
        let now: BTreeMap<u64, Entry> = self.processes.iter().filter_map(alive).collect();
        self.recorded.started = now;
        self.recorded.changes = changes;
        self.recorded.stale = false;
        self.recorded.write(&self.home.state, self.now);
        let cost = self.read_clock().since(began);
        self.recorded.rests_until = self.now + rest(cost, !self.starts.is_empty());
    }

    /// At our own end: nobody is left to be found.
    pub(super) fn record_last_state(&mut self) {
        self.recorded.rests_until = Time::START;
        self.record_state();
    }
}

/// How long the file is left as it is after a write that took `cost`. Starts that wait will change it again.
fn rest(cost: Duration, starting: bool) -> Duration {
    if starting { WHILE_BUSY } else { (cost * TIMES).min(WHILE_BUSY) }
}

impl Recorded {
    fn write(&mut self, folder: &Path, now: Time) {
        let state = process::boot_id().map(|boot_id| {
            let workers = self.started.values().cloned().collect();
            State { version: VERSION, boot_id, supervisor: own_entry(), mark: self.mark.clone(), workers }
        });
        let written = state.and_then(|state| write(&path_of(folder), &state));
        // Without /proc nothing names a process for good, and that was told.
        if let Err(error) = &written
            && self.again.is_none()
            && process::are_shown()
        {
            log::warn!(
                "{}: {error}; a supervisor that follows one that was killed will not know what it left behind",
                path_of(folder).display()
            );
        }
        self.again = written.is_err().then(|| now + TRY_AGAIN);
    }
}

fn own_entry() -> Entry {
    let pid = std::process::id() as i32;
    Entry { worker: 0, pid, started: process::stat(pid).map_or(0, |stat| stat.started) }
}

fn write(path: &Path, state: &State) -> io::Result<()> {
    let new = path.with_extension("json.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    fs::rename(&new, path)
}

/// Ends what workers of an earlier supervisor left behind, if that is gone, and writes down by which mark ours are
/// known: before there is any.
pub(super) fn begin(home: &Home) -> Recorded {
    let (folder, path) = (&home.state, path_of(&home.state));
    // `state_dir` may have changed since: the file of before is there, for whoever goes back to it.
    if let Some(earlier) = home.earlier_state(socket::own_uid()) {
        match read_any(&path_of(&earlier)) {
            Ok(Found::Left(left)) => end_left(&left),
            Ok(Found::Nothing | Found::Runs { .. }) => {}
            Err(error) => log::debug!("{}: {error}", earlier.display()),
        }
    }
    if let Err(error) = home.note_state() {
        log::warn!("{}: where the state is cannot be written down: {error}", home.runtime.display());
    }
    match read(&path) {
        Ok(left) => end_left(&left),
        Err(error) => {
            log::warn!("{}: {error}; it is moved aside", path.display());
            if let Err(error) = fs::rename(&path, path.with_extension("json.bad")) {
                log::warn!("{}: {error}", path.display());
            }
        }
    }
    let mark = format!("{:032x}", fastrand::u128(..));
    let mut recorded = Recorded { mark, ..Recorded::default() };
    recorded.write(folder, Time::START);
    recorded
}

fn end_left(left: &Left) {
    let ended = leftovers::end(left);
    if ended > 0 {
        log::warn!(
            "{ended} processes were left behind by a supervisor that was killed: they were ended first"
        );
    }
}

/// What the writer of the file left, if it is of this start of the host and does not run any more.
fn read(path: &Path) -> io::Result<Left> {
    match read_any(path)? {
        Found::Left(left) => Ok(left),
        Found::Nothing => Ok(Left::default()),
        Found::Runs { pid } => {
            log::warn!(
                "{}: a supervisor (pid {pid}) that still runs keeps its workers there; give one of the two another \
                 home (CLUSTERD_HOME)",
                path.display()
            );
            Ok(Left::default())
        }
    }
}

/// What a file says.
enum Found {
    Nothing,
    /// Its writer is this one, and is no supervisor that was killed.
    Runs {
        pid: i32,
    },
    Left(Left),
}

fn read_any(path: &Path) -> io::Result<Found> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    if length > LIMIT {
        return Err(io::Error::other("too long for what it is"));
    }
    let state = parse(&fs::read(path)?)?;
    if state.boot_id != process::boot_id()? {
        return Ok(Found::Nothing);
    }
    let writer = &state.supervisor;
    if process::stat(writer.pid).is_ok_and(|stat| stat.started == writer.started && stat.state != b'Z') {
        return Ok(Found::Runs { pid: writer.pid });
    }
    Ok(Found::Left(Left { mark: state.mark, since: writer.started, workers: state.workers }))
}

fn parse(bytes: &[u8]) -> io::Result<State> {
    let state: State = serde_json::from_slice(bytes)?;
    if state.version != VERSION {
        return Err(io::Error::other(format!("of version {}, which this one does not know", state.version)));
    }
    Ok(state)
}

/// Any file, for [`crate::fuzz`]: what is taken is written and read as the same, and says of no process that is
/// none that it is left.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) -> u64 {
    let state = match parse(bytes) {
        Ok(state) => state,
        Err(error) => return crate::fuzz::shape([error.to_string()]),
    };
    let written = serde_json::to_vec(&state).expect("it has a form");
    assert_eq!(parse(&written).expect("our own"), state);
    let stranger =
        Stat { state: b'S', parent: 1, session: 3, ticks: 0, threads: 1, started: 0, resident_pages: 0 };
    let shape = format!("{}{}", "w".repeat(state.workers.len().min(3)), state.boot_id.is_empty());
    let left = Left { mark: state.mark, since: 0, workers: state.workers };
    assert!(left.workers.iter().any(|entry| entry.pid == 2) || !left.has(2, &stranger, None));
    crate::fuzz::shape([shape])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry { worker: 7, pid: 100, started: 5000 };

    #[test]
    fn a_file_that_costs_much_is_written_seldom_and_never_too_late() {
        let ms = Duration::from_millis;
        for (cost, starting, expected) in [
            (Duration::ZERO, false, Duration::ZERO),
            (Duration::from_micros(50), false, ms(1)),
            (ms(3), false, ms(60)),
            (Duration::from_secs(9), false, ms(100)),
            (Duration::ZERO, true, ms(100)),
        ] {
            assert_eq!(rest(cost, starting), expected, "{cost:?}, {starting}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_broken_says_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = path_of(folder.path());
        assert_eq!(read(&path).expect("nothing is there"), Left::default());
        let boot_id = process::boot_id().expect("/proc is there");
        let gone = Entry { worker: 0, pid: i32::MAX, started: 1 };
        let state = |version, boot_id: &str| State {
            version,
            boot_id: boot_id.into(),
            supervisor: gone.clone(),
            mark: "abc".into(),
            workers: vec![ENTRY],
        };
        let running = State { supervisor: own_entry(), ..state(VERSION, &boot_id) };
        write(&path, &running).expect("it is ours");
        assert_eq!(read(&path).expect("it is whole"), Left::default(), "its writer lives");
        write(&path, &state(VERSION, &boot_id)).expect("it is ours");
        let left = Left { mark: "abc".into(), since: 1, workers: vec![ENTRY] };
        assert_eq!(read(&path).expect("it is whole"), left);
        write(&path, &state(VERSION, "another")).expect("it is ours");
        assert_eq!(read(&path).expect("it is whole"), Left::default());
        write(&path, &state(2, &boot_id)).expect("it is ours");
        assert!(read(&path).is_err());
        let older = "{\"version\":1,\"boot_id\":\"x\",\"supervisor\":{\"worker\":0,\"pid\":1,\"started\":1},\
                     \"workers\":[]}";
        fs::write(&path, older).expect("it is ours");
        assert_eq!(read(&path).expect("one of before there were marks"), Left::default());
        for text in ["", "{", "[]", "{\"version\":1}", "\u{0}"] {
            fs::write(&path, text).expect("it is ours");
            assert!(read(&path).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..256)) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::write(path_of(folder.path()), bytes).expect("it is ours");
            let _ = read(&path_of(folder.path()));
        }
    }
}
