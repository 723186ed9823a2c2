//! What this host does not give, as far as it is the same for all apps: found out at the start, told in one line
//! each. A right that is missing never fails a worker.

use std::path::PathBuf;

use crate::home::{Home, HomeError};
use crate::supervisor::event::WorkerId;
use crate::sys::process;

use super::Daemon;

/// Our own file; without /proc as we were called, if that was by a path.
pub(super) fn own_program() -> Option<PathBuf> {
    std::env::current_exe().ok().or_else(|| {
        let called = PathBuf::from(std::env::args_os().next()?);
        let by_path = called.components().count() > 1;
        std::path::absolute(called).ok().filter(|path| by_path && path.is_file())
    })
}

/// Makes the home; what is to be said about it. In the background there is no other place for what the
/// supervisor has to say than its folder for logs.
pub(super) fn settle(home: &mut Home, foreground: bool) -> Result<Vec<String>, HomeError> {
    let mut missing = home.create()?;
    match missing.pop() {
        Some(error) if !foreground => Err(error),
        last => Ok(missing.into_iter().chain(last).map(|error| note(home, &error)).collect()),
    }
}

fn note(home: &Home, error: &HomeError) -> String {
    let logs = matches!(error, HomeError::Create { path, .. } if *path == home.logs);
    let instead = if logs {
        "default log files are not written".to_owned()
    } else {
        format!("its state goes to {}", home.state.display())
    };
    format!("{error}; {instead}")
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
