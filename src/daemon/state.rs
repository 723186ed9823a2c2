//! What the next supervisor of this home has to know of this one when it is killed: which workers ran. They end
//! with it by themselves (PR_SET_PDEATHSIG), what they started does not, and two generations must never serve
//! unknown to each other.
//!
//! The file is written whole under another name, then renamed; nothing but the latest is ever read. It is not
//! synced: after a power cut the process ids in it mean nothing.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervisor::event::WorkerId;
use crate::sys::process::{self, Started, Stat};

use super::Daemon;
use super::processes::{Process, WORKER_VARIABLE};

/// The only form there is so far.
const VERSION: u32 = 1;

/// A file of the most workers that there can be is shorter.
const LIMIT: u64 = 64 * 1024 * 1024;

/// How long the start waits for what it killed; who does not end by then is in the kernel, and out of reach.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u32,
    /// Of which start of the host the numbers are.
    boot_id: String,
    /// Who wrote it. Two supervisors whose runtime folders differ may share the folder of this file.
    supervisor: Entry,
    workers: Vec<Entry>,
}

/// A worker's first process, or the supervisor's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Of this supervisor; 0 for itself.
    worker: u64,
    pid: i32,
    /// In clock ticks since boot.
    started: u64,
}

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// When each worker's first process started.
    started: BTreeMap<u64, Entry>,
    /// Of which changes of the workers it was.
    changes: u64,
    /// That the file cannot be written was told.
    failing: bool,
}

fn path_of(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

impl Daemon {
    /// Writes down who runs, when that has changed.
    pub(super) fn record_state(&mut self) {
        let changes = self.processes.changes();
        if changes == self.recorded.changes {
            return;
        }
        let alive = |(worker, process): (WorkerId, &Process)| {
            let known = self.recorded.started.get(&worker.0).filter(|known| known.pid == process.pid);
            let entry = known.cloned().or_else(|| {
                let started = process::stat(process.pid).ok()?.started;
                Some(Entry { worker: worker.0, pid: process.pid, started })
            })?;
            Some((worker.0, entry))
        };
        let now: BTreeMap<u64, Entry> = self.processes.iter().filter_map(alive).collect();
        let state = process::boot_id().map(|boot_id| {
            let workers = now.values().cloned().collect();
            State { version: VERSION, boot_id, supervisor: own_entry(), workers }
        });
        let written = state.and_then(|state| write(&path_of(&self.home.state), &state));
        if let Err(error) = &written
            && !self.recorded.failing
        {
            log::warn!(
                "{}: {error}; a supervisor that follows one that was killed will not know what it left behind",
                path_of(&self.home.state).display()
            );
        }
        self.recorded = Recorded { started: now, changes, failing: written.is_err() };
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

/// Ends what workers of an earlier supervisor left behind, if that is gone.
pub(super) fn end_leftovers(folder: &Path) {
    let path = path_of(folder);
    let entries = match read(&path) {
        Ok(entries) => entries,
        Err(error) => {
            log::warn!("{}: {error}; it is moved aside", path.display());
            if let Err(error) = fs::rename(&path, path.with_extension("json.bad")) {
                log::warn!("{}: {error}", path.display());
            }
            return;
        }
    };
    let left = leftovers(&entries);
    if left.is_empty() {
        return;
    }
    log::warn!(
        "{} processes were left behind by a supervisor that was killed: they are ended first",
        left.len()
    );
    for (pid, pidfd) in &left {
        match process::signal(pidfd.as_fd(), libc::SIGKILL) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => log::warn!("pid {pid}: {error}"),
            _ => {}
        }
    }
    for (pid, pidfd) in &left {
        if !process::wait_for_end(pidfd, PATIENCE).unwrap_or(false) {
            log::warn!("pid {pid}, left behind by a supervisor that was killed, does not end");
        }
    }
}

/// The workers in the file, if it is of this start of the host.
fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if length > LIMIT {
        return Err(io::Error::other("too long for what it is"));
    }
    let state: State = serde_json::from_slice(&fs::read(path)?)?;
    if state.version != VERSION {
        return Err(io::Error::other(format!("of version {}, which this one does not know", state.version)));
    }
    if state.boot_id != process::boot_id()? {
        return Ok(Vec::new());
    }
    let writer = &state.supervisor;
    if process::stat(writer.pid).is_ok_and(|stat| stat.started == writer.started && stat.state != b'Z') {
        log::warn!(
            "{}: a supervisor (pid {}) that still runs keeps its workers there; give one of the two another \
             home (CLUSTERD_HOME)",
            path.display(),
            writer.pid
        );
        return Ok(Vec::new());
    }
    Ok(state.workers)
}

/// Opened before they are looked at, so that a number that is given out again is not meant.
fn leftovers(entries: &[Entry]) -> Vec<(i32, OwnedFd)> {
    if entries.is_empty() {
        return Vec::new();
    }
    let ours = |pid: &i32| {
        let pidfd = process::open(*pid).ok()?;
        let stat = process::stat(*pid).ok()?;
        let worker = match process::started_with(*pid, WORKER_VARIABLE) {
            Started::With(worker) => worker.to_str()?.parse::<u64>().ok(),
            Started::Without | Started::Unknown | Started::Zombie => None,
        };
        entries.iter().any(|entry| is_left(entry, *pid, &stat, worker)).then_some((*pid, pidfd))
    };
    process::all().iter().filter_map(ours).collect()
}

/// Its first process itself, or one of its session or with its mark, that started later.
fn is_left(entry: &Entry, pid: i32, stat: &Stat, worker: Option<u64>) -> bool {
    if matches!(stat.state, b'Z' | b'X') {
        return false;
    }
    if pid == entry.pid {
        return stat.started == entry.started;
    }
    stat.session == entry.pid && worker == Some(entry.worker) && stat.started >= entry.started
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry { worker: 7, pid: 100, started: 5000 };

    fn stat(state: u8, session: i32, started: u64) -> Stat {
        Stat { state, parent: 1, session, ticks: 0, started, resident_pages: 0 }
    }

    #[test]
    fn only_what_was_a_workers_counts_as_left_behind() {
        for (pid, state, session, started, worker, expected) in [
            (100, b'S', 100, 5000, None, true),
            (100, b'S', 100, 6000, Some(7), false),
            (100, b'Z', 100, 5000, Some(7), false),
            (200, b'S', 100, 5001, Some(7), true),
            (200, b'S', 100, 5001, Some(8), false),
            (200, b'S', 100, 5001, None, false),
            (200, b'S', 200, 5001, Some(7), false),
            (200, b'S', 100, 4999, Some(7), false),
        ] {
            let found = is_left(&ENTRY, pid, &stat(state, session, started), worker);
            assert_eq!(found, expected, "pid {pid}, session {session}, started {started}, worker {worker:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_broken_says_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = path_of(folder.path());
        assert_eq!(read(&path).expect("nothing is there"), []);
        let boot_id = process::boot_id().expect("/proc is there");
        let gone = Entry { worker: 0, pid: i32::MAX, started: 1 };
        let state = |version, boot_id: &str| State {
            version,
            boot_id: boot_id.into(),
            supervisor: gone.clone(),
            workers: vec![ENTRY],
        };
        let running = State { supervisor: own_entry(), ..state(VERSION, &boot_id) };
        write(&path, &running).expect("it is ours");
        assert_eq!(read(&path).expect("it is whole"), [], "its writer lives");
        write(&path, &state(VERSION, &boot_id)).expect("it is ours");
        assert_eq!(read(&path).expect("it is whole"), [ENTRY]);
        write(&path, &state(VERSION, "another")).expect("it is ours");
        assert_eq!(read(&path).expect("it is whole"), []);
        write(&path, &state(2, &boot_id)).expect("it is ours");
        assert!(read(&path).is_err());
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
