//! One supervisor for a home, by locks that the kernel lets go with the process: never a stale pid file.
//!
//! There is one in the runtime folder and one in the state folder. Two homes may differ in the first alone (a login
//! and the unit that `startup` writes), and two supervisors with one list of apps would run each of them twice.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::home::Home;
use crate::sys::socket;

use super::doors::identity;
use super::{Error, host};

/// The longest that is read of who holds a lock: a number and a path.
const LIMIT: u64 = 8 * 1024;

/// Held for as long as the supervisor runs.
#[derive(Debug)]
pub(super) struct Locks {
    runtime: Flock<File>,
    /// Where the state folder is another one.
    _state: Option<Flock<File>>,
}

impl Locks {
    /// The home, safe to live in, and ours alone. That the state folder cannot be locked (it is read-only, or on a
    /// file system without locks) is worth a note: what is done without is told by who writes there.
    ///
    /// # Errors
    /// `Home` where others could write there, `Running` and `StateTaken` where another supervisor lives there.
    pub(super) fn take(home: &Home, notes: &mut Vec<String>) -> Result<Locks, Error> {
        home.check(socket::own_uid())?;
        let runtime = take(&home.lock(), home)?;
        let state = match home.state_lock().map(|path| take(&path, home)) {
            Some(Err(Error::Host { what, cause })) => {
                notes.push(format!(
                    "{what}: {cause}; a second supervisor with this state would not be noticed"
                ));
                None
            }
            Some(taken) => Some(taken?),
            None => None,
        };
        Ok(Locks { runtime, _state: state })
    }

    /// Whether who looks for the lock of this home finds ours.
    pub(super) fn is_found(&self, home: &Home) -> bool {
        let held = self.runtime.metadata().map(|file| (file.dev(), file.ino())).ok();
        held.is_some() && identity(&home.lock()).ok() == held
    }

    /// After the lock of the runtime folder was removed.
    ///
    /// # Errors
    /// As [`Locks::take`].
    pub(super) fn take_again(&mut self, home: &Home) -> Result<(), Error> {
        home.check(socket::own_uid())?;
        self.runtime = take(&home.lock(), home)?;
        Ok(())
    }
}

/// What is in it is for people: the number of who holds it, and in which folder that is talked to.
fn take(path: &Path, home: &Home) -> Result<Flock<File>, Error> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(host(format!("open {}", path.display())))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            let write = |lock: &mut File| -> io::Result<()> {
                lock.set_len(0)?;
                lock.rewind()?;
                write!(lock, "{} {}", std::process::id(), home.runtime.display())
            };
            write(&mut lock).map_err(host(format!("write {}", path.display())))?;
            Ok(lock)
        }
        Err((file, nix::Error::EWOULDBLOCK)) => {
            let mut bytes = Vec::new();
            let read = file.take(LIMIT).read_to_end(&mut bytes);
            read.map_err(host(format!("read {}", path.display())))?;
            Err(running(&String::from_utf8_lossy(&bytes), home))
        }
        Err((_, error)) => Err(host(format!("lock {}", path.display()))(error.into())),
    }
}

fn running(holder: &str, home: &Home) -> Error {
    let (pid, runtime) = holder.split_once(' ').unwrap_or((holder, ""));
    // It may have taken it this very moment.
    let pid = if pid.is_empty() { "not known yet" } else { pid }.to_owned();
    let ours = home.runtime.display().to_string();
    let runtime = if runtime.is_empty() { ours.clone() } else { runtime.to_owned() };
    if runtime == ours {
        return Error::Running { pid, home: runtime };
    }
    Error::StateTaken { pid, state: home.state.display().to_string(), runtime }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(folder: &Path, runtime: &str) -> Home {
        let runtime = folder.join(runtime);
        std::fs::create_dir_all(&runtime).expect("it is ours");
        let state = folder.join("state");
        std::fs::create_dir_all(&state).expect("it is ours");
        Home { runtime, logs: state.join("logs"), state }
    }

    #[test]
    fn two_homes_of_one_state_exclude_each_other_and_say_where_the_other_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (one, two) = (home(folder.path(), "one"), home(folder.path(), "two"));
        let whole = home(folder.path(), "state");
        let take = |home| Locks::take(home, &mut Vec::new());
        let held = take(&one).expect("free");
        for other in [&two, &whole] {
            let text = take(other).expect_err("held").to_string();
            let pid = format!("pid {}", std::process::id());
            assert!(text.contains(&pid) && text.contains("--home") && text.contains("/one"), "{text}");
        }
        let text = take(&one).expect_err("held").to_string();
        assert!(text.contains("already runs for"), "{text}");
        drop(held);
        drop(take(&two).expect("free again"));
        take(&whole).expect("free again");
    }

    #[test]
    fn a_state_folder_that_cannot_be_locked_is_worth_a_note() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = home(folder.path(), "one");
        std::fs::create_dir(home.state.join("clusterd.lock")).expect("it is ours");
        let mut notes = Vec::new();
        Locks::take(&home, &mut notes).expect("the runtime folder is free");
        assert!(notes.len() == 1 && notes[0].contains("a second supervisor"), "{notes:?}");
    }
}
