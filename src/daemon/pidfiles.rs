//! Where each worker's process id is written: before the worker is cloned it is known that it can be, and
//! the file goes when the worker's first process does. During a reload two workers of one instance overlap:
//! the newest has the file, and it goes back to the other when the newest ends first.

use std::path::{Path, PathBuf};

use crate::home::{self, Intruder};
use crate::supervisor::event::{SpawnFailure, WorkerId};
use crate::sys::pidfile::{self, Draft};
use crate::sys::socket;

use super::Daemon;
use super::catalog::Recipe;
use super::processes::Process;
use super::start::{Order, permanent};

/// A file that waits for the number.
pub(super) struct Reserved {
    path: PathBuf,
    draft: Draft,
}

/// Digits before the extension, as PM2 has it: `api.pid` → `api-2.pid`.
fn numbered(path: &Path, instance: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(String::new, |text| format!(".{}", text.to_string_lossy()));
    path.with_file_name(format!("{stem}-{instance}{extension}"))
}

/// As root: another user could lead what is written there elsewhere, or have its number taken for the worker's.
fn refuse_foreign(path: &Path) -> Result<(), SpawnFailure> {
    let folder = path.parent().unwrap_or(path);
    if socket::own_uid() != 0 {
        return Ok(());
    }
    let step = || format!("open {}", path.display());
    let found = home::intruders(folder).map_err(|error| {
        let message = format!(
            "pid file {}: who can write to its folder cannot be found out: {error}; name another path",
            path.display()
        );
        permanent(step(), error.raw_os_error().unwrap_or(0), message)
    })?;
    let Some(Intruder { path: at, who, mode, .. }) = found.into_iter().next() else { return Ok(()) };
    let message = format!(
        "pid file {}: {who} can write to {} (mode {mode:03o}), so a supervisor that runs as root does not \
         write there; name a path in a folder of root's, such as /run/NAME.pid, or leave pid_file out",
        path.display(),
        at.display()
    );
    Err(permanent(step(), libc::EACCES, message))
}

impl Daemon {
    /// What a killed supervisor of this home left behind.
    pub(super) fn clear_pid_files(&self) {
        let folder = self.home.pids();
        if let Err(error) = pidfile::clear(&folder) {
            log::warn!("{}: files of processes that have ended cannot be removed: {error}", folder.display());
        }
    }

    /// Makes the file. One that was named and cannot be made fails the start; a default one costs a warning.
    pub(super) fn reserve_pid_file(
        &mut self,
        order: &Order,
        recipe: &Recipe,
    ) -> Result<Option<Reserved>, SpawnFailure> {
        let several = recipe.policy.instances > 1 || order.instance > 0;
        let named = recipe.spec.process.pid_file.as_ref();
        let path = match named {
            Some(path) if several => numbered(path, order.instance),
            Some(path) => path.clone(),
            None => self.home.pids().join(self.default_name(order)),
        };
        if named.is_some() {
            refuse_foreign(&path)?;
        }
        match Draft::new(&path, order.worker.0) {
            Ok(draft) => Ok(Some(Reserved { path, draft })),
            Err(error) if named.is_some() => {
                let shown = path.display();
                let message = format!(
                    "pid file {shown}: cannot be made: {error}; give clusterd's user write permission there, or \
                     name another path"
                );
                Err(permanent(format!("open {shown}"), error.raw_os_error().unwrap_or(0), message))
            }
            Err(error) => {
                self.warn_once("default pid file", || {
                    format!("no pid files are written: {}: {error}", path.display())
                });
                Ok(None)
            }
        }
    }

    fn default_name(&self, order: &Order) -> String {
        format!("{}-{}.pid", self.file_stem(order.app), order.instance)
    }

    /// Writes the number; the worker runs, so that a failure is only told.
    pub(super) fn publish_pid(
        &self,
        reserved: Option<Reserved>,
        pid: i32,
        worker: WorkerId,
    ) -> Option<PathBuf> {
        let Reserved { path, draft } = reserved?;
        match draft.publish(pid) {
            Ok(()) => Some(path),
            Err(error) => {
                log::error!("{}: pid file {}: {error}", self.label(worker), path.display());
                None
            }
        }
    }

    /// The worker goes on as another process. Its file is the newest worker's of its instance.
    pub(super) fn rewrite_pid(&self, worker: WorkerId) {
        let Some(process) = self.processes.get(worker) else { return };
        let Some(path) = &process.pid_file else { return };
        let newer =
            |(other, known): (WorkerId, &Process)| other > worker && known.pid_file.as_ref() == Some(path);
        if self.processes.iter().any(newer) {
            return;
        }
        if let Err(error) = Draft::new(path, worker.0).and_then(|draft| draft.publish(process.pid)) {
            log::warn!("{}: pid file {}: {error}", self.label(worker), path.display());
        }
    }

    /// The worker has ended; it has no file from then on.
    pub(super) fn retire_pid(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        let (Some(path), pid) = (process.pid_file.take(), process.pid) else { return };
        // Byte by byte: it is compared with that of everybody else, and all come from the same few words.
        let same =
            |other: &Process| other.pid_file.as_ref().is_some_and(|its| its.as_os_str() == path.as_os_str());
        let heir = self
            .processes
            .iter()
            .filter(|(_, other)| same(other) && !other.leader_gone)
            .max_by_key(|(worker, _)| *worker);
        let done = match heir {
            // The newest wrote it last, unless it is the one that has just ended.
            Some((worker, heir)) => Draft::new(&path, worker.0).and_then(|draft| draft.publish(heir.pid)),
            None => pidfile::remove(&path, pid),
        };
        if let Err(error) = done {
            log::warn!("pid file {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_stands_before_the_extension() {
        for (path, expected) in [("/run/api.pid", "/run/api-2.pid"), ("/run/a.b/api", "/run/a.b/api-2")] {
            assert_eq!(numbered(Path::new(path), 2), Path::new(expected));
        }
    }
}
