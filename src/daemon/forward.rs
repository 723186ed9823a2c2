//! Which of an app's shared Unix sockets is at their path, where there are several: an app whose workers shut such a
//! socket down has one for each generation.
//!
//! A new one is bound beside the path and takes its place, by exchange, when a worker is ready that takes from it.
//! The one that was there stays beside it, and has the path again when the new one goes first, as after a reload
//! that failed: at every moment somebody listens at the path.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::supervisor::address::{Address, UnixName};
use crate::supervisor::event::{AppId, WorkerId};
use crate::sys::unix_listener::{self, FileId, PathLock, There};

use super::Daemon;
use super::shared::{Shared, State, remove_file};
use super::start::Order;

/// Where the path of a socket's address is; none of one without a path.
pub(super) fn path_of(address: &Address) -> Option<&Path> {
    match address {
        Address::Unix(name) => name.in_abstract().is_none().then(|| Path::new(name.as_str())),
        Address::Tcp { .. } => None,
    }
}

/// A name beside the path that no other generation's socket has; none where it would be too long to be bound.
fn beside(path: &Path, generation: u32) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let beside = path.with_file_name(format!(".{name}.{generation}"));
    UnixName::new(beside.to_str()?).map(|_| beside)
}

/// Removes what a supervisor that was killed left beside a path. The path should be locked.
pub(super) fn clear_beside(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    let prefix = format!(".{name}.");
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let number = found.to_str().and_then(|found| found.strip_prefix(&prefix));
        if number.is_none_or(|number| number.parse::<u32>().is_err()) {
            continue;
        }
        if let Ok(There::Dead(id)) = unix_listener::look(&entry.path())
            && let Err(error) = unix_listener::remove(&entry.path(), id)
        {
            log::debug!("{}: {error}", entry.path().display());
        }
    }
}

impl Daemon {
    /// Where the socket of a generation is bound while another one of the app's serves at the path.
    pub(super) fn place_beside(&self, order: &Order, address: Address) -> Option<PathBuf> {
        let (_, serving) = self.at_path(order.app, address)?;
        if serving.state != State::Open || unix_listener::is_shut_down(serving.fd.as_fd()) {
            return None;
        }
        beside(path_of(&address)?, order.generation.0)
    }

    /// The one that clients come to, whether it takes them in or was shut down.
    fn at_path(&self, app: AppId, address: Address) -> Option<(u64, &Shared)> {
        let there = |shared: &Shared| {
            let (path, id) = shared.file.as_ref()?;
            let ours = shared.app == app && shared.address == address && shared.is_forward();
            (ours && unix_listener::is_at(path, *id)).then_some(())
        };
        self.shared.by_inode.iter().find(|(_, s)| there(s).is_some()).map(|(inode, s)| (*inode, s))
    }

    /// A worker is ready: clients come to what it takes from, unless that of a newer generation is there.
    pub(super) fn come_forward(&mut self, worker: WorkerId) {
        let parts = self.sockets.of(worker).filter(|(_, held)| held.shared);
        for inode in parts.map(|(_, held)| held.inode).collect::<Vec<_>>() {
            let Some(shared) = self.shared.by_inode.get(&inode).filter(|s| !s.is_forward()) else { continue };
            let there = self.at_path(shared.app, shared.address);
            if there.is_none_or(|(_, there)| there.state != State::Open || there.newest < shared.newest) {
                self.bring_forward(inode);
            }
        }
    }

    /// Who came to this one last is served; whoever comes from now on finds another one of the app's, if there is
    /// one.
    pub(super) fn step_aside(&mut self, inode: u64) {
        let Some(shared) = self.shared.by_inode.get(&inode).filter(|s| s.is_forward()) else { return };
        let (app, address) = (shared.app, shared.address);
        let waits = |other: &Shared| {
            other.app == app && other.address == address && other.state == State::Open && !other.is_forward()
        };
        let others = self.shared.by_inode.iter().filter(|(_, other)| waits(other));
        let next = others.max_by_key(|(_, other)| other.newest).map(|(inode, _)| *inode);
        if let Some(next) = next {
            self.bring_forward(next);
        }
    }

    fn bring_forward(&mut self, inode: u64) {
        let Some(shared) = self.shared.by_inode.get(&inode) else { return };
        let (app, address) = (shared.app, shared.address);
        let (Some(path), Some((from, _))) = (path_of(&address), shared.file.clone()) else { return };
        let there = self.at_path(app, address);
        let ours = there.and_then(|(_, there)| Some(there.file.as_ref()?.1));
        let there = there.map(|(inode, _)| inode);
        let kept = match take_place(&from, path, ours) {
            Ok(kept) => kept,
            Err(error) => {
                return log::error!(
                    "{}: {address}: a newer socket cannot take the path, so clients still come to the older one: \
                     {error}",
                    self.app_name(app)
                );
            }
        };
        if let Some(file) = self.shared.by_inode.get_mut(&inode).and_then(|shared| shared.file.as_mut()) {
            file.0 = path.to_owned();
        }
        let before = there.and_then(|inode| self.shared.by_inode.get_mut(&inode));
        let Some(before) = before else { return };
        match (before.file.take(), before.state) {
            (Some((_, id)), State::Open) if kept => before.file = Some((from, id)),
            (_, State::Open) => before.state = State::Lost,
            // Nobody is to come back to it.
            (Some((_, id)), State::Shut | State::Lost | State::Dead) if kept => {
                remove_file(&from, id, address)
            }
            (_, State::Shut | State::Lost | State::Dead) => {}
        }
    }
}

/// Moves a file to the path: in exchange for ours that is there, or where nothing is. Whether the other one is
/// kept.
fn take_place(from: &Path, path: &Path, ours: Option<FileId>) -> io::Result<bool> {
    let strangers = || Err(io::Error::from_raw_os_error(libc::EEXIST));
    let _lock = PathLock::take(path)?;
    let Some(ours) = ours else {
        return match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, path).map(|()| false),
            Err(error) => Err(error),
            Ok(_) => strangers(),
        };
    };
    match unix_listener::exchange(from, path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            if unix_listener::is_at(path, ours) {
                fs::rename(from, path).map(|()| false)
            } else {
                strangers()
            }
        }
        Err(error) => Err(error),
        Ok(()) if unix_listener::is_at(from, ours) => Ok(true),
        // Somebody who does not heed the lock was quicker: what is his goes back.
        Ok(()) => unix_listener::exchange(from, path).and_then(|()| strangers()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_path_is_a_hidden_name_of_the_same_folder_that_can_be_bound() {
        assert_eq!(beside(Path::new("/run/api.sock"), 3), Some(PathBuf::from("/run/.api.sock.3")));
        let longest = format!("/{}", "x".repeat(UnixName::LONGEST_PATH - 1));
        assert_eq!(beside(Path::new(&longest), 3), None);
    }

    #[test]
    fn beside_a_path_only_dead_sockets_with_the_number_of_a_generation_are_cleared() {
        use std::os::unix::net::UnixListener;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let living = UnixListener::bind(at(".s.1")).expect("free");
        for name in [".s.2", ".s.x", ".t.2"] {
            drop(UnixListener::bind(at(name)).expect("free"));
        }
        fs::write(at(".s.3"), "no socket").expect("ours");
        clear_beside(&at("s"));
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).expect("there").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, [".s.1", ".s.3", ".s.x", ".t.2"]);
        drop(living);
    }

    #[test]
    fn nothing_of_a_stranger_is_moved_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, path) = (folder.path().join("from"), folder.path().join("s"));
        let write = |path: &Path, text: &str| fs::write(path, text).expect("ours");
        write(&from, "new");
        write(&path, "a stranger's");
        let id = |path: &Path| unix_listener::id_of(path).expect("there");
        for ours in [None, Some(id(&from))] {
            let refused = take_place(&from, &path, ours).expect_err("it is his");
            assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
            assert_eq!(fs::read_to_string(&path).expect("there"), "a stranger's", "{ours:?}");
        }
        assert!(take_place(&from, &path, Some(id(&path))).expect("exchanged"));
        assert_eq!(fs::read_to_string(&path).expect("there"), "new");
        fs::remove_file(&from).expect("there");
        fs::rename(&path, &from).expect("one folder");
        assert!(!take_place(&from, &path, None).expect("free"));
    }
}
