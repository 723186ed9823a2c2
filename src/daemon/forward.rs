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
use crate::sys::unix_listener::{self, PathLock};

use super::Daemon;
use super::shared::{Shared, State};
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

impl Daemon {
    /// Where the socket of a generation is bound while another one of the app's serves at the path.
    pub(super) fn place_beside(&self, order: &Order, address: Address) -> Option<PathBuf> {
        let (_, serving) = self.at_path(order.app, address)?;
        if unix_listener::is_shut_down(serving.fd.as_fd()) {
            return None;
        }
        beside(path_of(&address)?, order.generation.0)
    }

    /// The one that clients come to, and that takes them in.
    fn at_path(&self, app: AppId, address: Address) -> Option<(u64, &Shared)> {
        let there = |shared: &Shared| {
            let (path, id) = shared.file.as_ref()?;
            let open = shared.app == app && shared.address == address && shared.state == State::Open;
            (open && shared.is_forward() && unix_listener::is_at(path, *id)).then_some(())
        };
        self.shared.by_inode.iter().find(|(_, s)| there(s).is_some()).map(|(inode, s)| (*inode, s))
    }

    /// A worker is ready: clients come to what it takes from, unless that of a newer generation is there.
    pub(super) fn come_forward(&mut self, worker: WorkerId) {
        let parts = self.sockets.of(worker).filter(|(_, held)| held.shared);
        for inode in parts.map(|(_, held)| held.inode).collect::<Vec<_>>() {
            let Some(shared) = self.shared.by_inode.get(&inode).filter(|s| !s.is_forward()) else { continue };
            let there = self.at_path(shared.app, shared.address);
            if there.is_none_or(|(_, there)| there.newest < shared.newest) {
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
        let there = self.at_path(app, address).map(|(inode, _)| inode);
        let kept = match take_place(&from, path, there.is_some()) {
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
        if let Some(before) = before {
            match before.file.as_mut().filter(|_| kept) {
                Some(file) => file.0 = from,
                None => (before.file, before.state) = (None, State::Lost),
            }
        }
    }
}

/// Moves a file to the path: in exchange for the one that is there, or where nothing is. Whether the other one is
/// kept.
fn take_place(from: &Path, path: &Path, is_ours: bool) -> io::Result<bool> {
    let _lock = PathLock::take(path)?;
    if is_ours {
        return match unix_listener::exchange(from, path) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                fs::rename(from, path).map(|()| false)
            }
            exchanged => exchanged.map(|()| true),
        };
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, path).map(|()| false),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EEXIST)),
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
    fn nothing_of_a_stranger_is_moved_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, path) = (folder.path().join("from"), folder.path().join("s"));
        let write = |path: &Path, text: &str| fs::write(path, text).expect("ours");
        write(&from, "new");
        write(&path, "a stranger's");
        assert_eq!(take_place(&from, &path, false).expect_err("taken").raw_os_error(), Some(libc::EEXIST));
        assert!(take_place(&from, &path, true).expect("exchanged"));
        assert_eq!(fs::read_to_string(&path).expect("there"), "new");
        fs::remove_file(&from).expect("there");
        fs::rename(&path, &from).expect("one folder");
        assert!(!take_place(&from, &path, false).expect("free"));
    }
}
