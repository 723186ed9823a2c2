//! What this host does not give, as far as it is the same for all apps: found out at the start, told in one line
//! each. A right that is missing never fails a worker.

use std::path::PathBuf;

use crate::home::{Home, HomeError};
use crate::supervisor::event::WorkerId;
use crate::sys::process;

use super::afar::Cohorts;
use super::knock::Knocks;
use super::{Daemon, state};

/// Our own file; without /proc as we were called, if that was by a path.
pub(super) fn own_program() -> Option<PathBuf> {
    std::env::current_exe().ok().or_else(|| {
        let called = PathBuf::from(std::env::args_os().next()?);
        let by_path = called.components().count() > 1;
        std::path::absolute(called).ok().filter(|path| by_path && path.is_file())
    })
}

/// Makes the home; what is to be said about it. That there is no folder for logs is told when one is to be
/// written; but in the background there is no other place for what the supervisor itself has to say.
pub(super) fn settle(home: &mut Home, foreground: bool) -> Result<Vec<String>, HomeError> {
    let logs = home.logs.clone();
    let mut missing = home.create()?;
    if !foreground && let Some(error) = missing.pop() {
        return Err(error);
    }
    missing.retain(|error| !matches!(error, HomeError::Create { path, .. } if *path == logs));
    let state = home.state.display();
    Ok(missing.into_iter().map(|error| format!("{error}; its state goes to {state}")).collect())
}

/// The first that is said, and done.
pub(super) fn begin(home: &Home, notes: &[String]) -> state::Recorded {
    for note in notes {
        log::warn!("{note}");
    }
    state::begin(home)
}

/// What stands in for looks that the host refuses.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    pub(super) knocks: Knocks,
    pub(super) cohorts: Cohorts,
}

impl Daemon {
    /// Once, at the start.
    pub(super) fn tell_host(&self) {
        if !self.surroundings.shows_processes {
            log::warn!(
                "/proc is not mounted here: memory and CPU time are unavailable, so max_memory_restart and \
                 hang_timeout do nothing, and processes that a worker starts in a session of their own are not \
                 seen. Workers are supervised and reloaded as ever; a leaving one is waited for by the \
                 connections at its address, and a next supervisor does not know what a killed one left behind"
            );
        }
    }

    /// Without /proc nobody tells what a worker's first process leaves behind: it ends with it. Its number is
    /// that of its group, and not given out as long as somebody is in that.
    pub(super) fn end_group(&self, worker: WorkerId) {
        let Some(process) = self.processes.get(worker) else { return };
        match process::signal_group(process.pid, libc::SIGKILL) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                log::warn!("{}: what it left behind cannot be ended: {error}", self.label(worker));
            }
            _ => {}
        }
    }
}
