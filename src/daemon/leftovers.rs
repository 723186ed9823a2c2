//! What a supervisor of this home that was killed left running, ended before anything is started: what is
//! forked meanwhile is found by looking again, until a look finds nobody and everybody has ended.
//!
//! Found is what started with the mark of that supervisor's run in its environment, whatever its session and
//! parent are by now, and the workers themselves by their numbers. Not found is what was started with an
//! environment of its own making, or wrote over it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::sys::clock::Clock;
use crate::sys::process::{self, Started, Stat};

use super::state::Entry;

/// The variable that tells the processes of one supervisor's run from all others.
pub(super) const RUN_VARIABLE: &str = "CLUSTERD_RUN";

/// How long the start waits for what it killed, all together; who does not end by then is in the kernel, and out
/// of reach.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks: at first, and at most.
const SOON: Duration = Duration::from_millis(2);
const LATER: Duration = Duration::from_millis(100);

/// Looks that found nobody and are not trusted, since somebody had ended between the list and the look at him: he may
/// have left a child that is not in the list.
const DOUBTS: usize = 16;

/// Processes that do not end and are named.
const NAMED: usize = 5;

/// What is known of the supervisor that was killed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Of its run; empty when it had none.
    pub(super) mark: String,
    /// When it started, in clock ticks since boot: nothing of its is older.
    pub(super) since: u64,
    /// The first processes of its workers.
    pub(super) workers: Vec<Entry>,
}

impl Left {
    /// Whether this process, which started with that mark, was its.
    pub(super) fn has(&self, pid: i32, stat: &Stat, mark: Option<&str>) -> bool {
        if matches!(stat.state, b'Z' | b'X') || stat.started < self.since {
            return false;
        }
        let is_worker = |entry: &Entry| entry.pid == pid && entry.started == stat.started;
        let is_marked = !self.mark.is_empty() && mark == Some(&self.mark);
        is_marked || self.workers.iter().any(is_worker)
    }
}

/// Ends all of it; how many that were.
pub(super) fn end(left: &Left) -> usize {
    if left.mark.is_empty() && left.workers.is_empty() {
        return 0;
    }
    let spared = own_line();
    let clock = Clock::new();
    let mut pause = SOON;
    // By number and start: the number alone may be given out again.
    let mut told: HashSet<(i32, u64)> = HashSet::new();
    let (mut dead, mut doubts) = (HashSet::new(), 0);
    loop {
        let (found, ended) = find(left, &spared);
        // One that stays a zombie is doubted once.
        let mut is_doubtful = false;
        ended.into_iter().for_each(|pid| is_doubtful |= dead.insert(pid));
        let fresh: Vec<(i32, u64)> = found
            .iter()
            .map(|(pid, started)| (*pid, *started))
            .filter(|process| told.insert(*process))
            .collect();
        for (pid, started) in fresh {
            match process::signal_started(pid, started, libc::SIGKILL) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => log::warn!("pid {pid}: {error}"),
                _ => {}
            }
        }
        if found.is_empty() {
            if is_doubtful && doubts < DOUBTS {
                doubts += 1;
                continue;
            }
            break;
        }
        if clock.since_start() >= PATIENCE {
            complain(&found);
            break;
        }
        if let Err(error) = process::pause(pause) {
            log::debug!("wait for what was left behind: {error}");
        }
        pause = (pause * 2).min(LATER);
    }
    told.len()
}

/// What lives of it, by number, with its start; and who had ended when he was looked at.
fn find(left: &Left, spared: &HashSet<i32>) -> (HashMap<i32, u64>, Vec<i32>) {
    let (mut found, mut ended) = (HashMap::new(), Vec::new());
    for pid in process::all().into_iter().filter(|pid| !spared.contains(pid)) {
        // The start is looked at first: of a number that is given out again meanwhile it is not the new one's.
        let Ok(stat) = process::stat(pid) else {
            ended.push(pid);
            continue;
        };
        let mark = match process::started_with(pid, RUN_VARIABLE) {
            Started::With(mark) => Some(mark),
            Started::Zombie if stat.started >= left.since => {
                ended.push(pid);
                None
            }
            Started::Without | Started::Unknown | Started::Zombie => None,
        };
        let mark = mark.as_deref().and_then(std::ffi::OsStr::to_str);
        if left.has(pid, &stat, mark) {
            found.insert(pid, stat.started);
        }
    }
    (found, ended)
}

/// Ourselves and those above us: who starts the next supervisor may have been started by a worker.
pub(super) fn own_line() -> HashSet<i32> {
    let mut line = HashSet::new();
    let mut pid = std::process::id() as i32;
    while pid > 0 && line.insert(pid) {
        pid = process::stat(pid).map_or(0, |stat| stat.parent);
    }
    line
}

fn complain(found: &HashMap<i32, u64>) {
    for pid in found.keys().take(NAMED) {
        log::warn!(
            "pid {pid}, left behind by a supervisor that was killed, does not end ({}): it may go on serving beside \
             its successor",
            process::sight(*pid)
        );
    }
    if let Some(more @ 1..) = found.len().checked_sub(NAMED) {
        log::warn!("nor do {more} others");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(state: u8, session: i32, started: u64) -> Stat {
        Stat { state, parent: 1, session, ticks: 0, threads: 1, started, resident_pages: 0 }
    }

    #[test]
    fn only_what_was_a_workers_counts_as_left_behind() {
        let worker = Entry { worker: 7, pid: 100, started: 5000 };
        let left = Left { mark: "abc".into(), since: 4000, workers: vec![worker] };
        for (pid, state, session, started, mark, expected) in [
            (100, b'S', 100, 5000, None, true),
            (100, b'S', 100, 6000, None, false),
            (100, b'Z', 100, 5000, Some("abc"), false),
            (200, b'S', 100, 5001, Some("abc"), true),
            (200, b'S', 200, 5001, Some("abc"), true),
            (200, b'S', 200, 4000, Some("abc"), true),
            (200, b'S', 100, 5001, Some("abd"), false),
            (200, b'S', 100, 5001, Some(""), false),
            (200, b'S', 100, 5001, None, false),
            (200, b'S', 100, 3999, Some("abc"), false),
        ] {
            let found = left.has(pid, &stat(state, session, started), mark);
            assert_eq!(found, expected, "pid {pid}, session {session}, started {started}, mark {mark:?}");
        }
        assert!(!Left::default().has(200, &stat(b'S', 1, 1), Some("")), "no mark is no mark");
    }

    #[test]
    fn nobody_ends_who_starts_the_next_supervisor() {
        let line = own_line();
        let parent = process::stat(std::process::id() as i32).expect("it runs").parent;
        assert!(line.contains(&(std::process::id() as i32)) && line.contains(&parent));
    }
}
