//! Workers of other users: they cannot enter the supervisor's home, where the notify socket is, and it is
//! not opened for them. From the first such worker on a second notify socket hears them, in a folder of its
//! own where there is nothing else. Anybody may send to it; who counts is decided by the sender's process id,
//! which the kernel vouches for, as with the other one.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mio::Interest;
use mio::unix::SourceFd;

use crate::supervisor::event::SpawnFailure;
use crate::sys::{notify, socket};

use super::Daemon;
use super::identity::Who;
use super::sources::Source;
use super::start::host_failure;

/// Where every user can enter, and nobody can move what is another's. The first that can be written.
const PLACES: &[&str] = &["/run", "/tmp", "/dev/shm"];

/// The notify socket that every user can reach; its file goes with it.
pub(super) struct Abroad {
    pub(super) socket: OwnedFd,
    /// None for an address without a file.
    folder: Option<PathBuf>,
    address: OsString,
}

impl Drop for Abroad {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let removed = fs::remove_file(&self.address).and_then(|()| fs::remove_dir(folder));
            if let Err(error) = removed {
                log::debug!("{}: {error}", folder.display());
            }
        }
    }
}

/// One for each home: what a killed supervisor left is found by the next one, and replaced.
fn folder_name(home: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    home.hash(&mut hasher);
    format!("clusterd-notify-{:016x}", hasher.finish())
}

/// In the first place that takes it, or without a file where none does: not every library can use that.
fn open(places: &[&str], home: &Path) -> io::Result<Abroad> {
    let mut opened = places.iter().map(|place| Path::new(place).join(folder_name(home)));
    if let Some(abroad) = opened.find_map(|folder| open_in(folder).ok()) {
        return Ok(abroad);
    }
    // Addresses without a file are shared by all of a network namespace.
    let name = format!("clusterd-{}-{:016x}", std::process::id(), fastrand::u64(..));
    Ok(Abroad { socket: notify::open_abstract(&name)?, folder: None, address: format!("@{name}").into() })
}

fn open_in(folder: PathBuf) -> io::Result<Abroad> {
    const ENTER_ONLY: u32 = 0o711;
    let path = folder.join("socket");
    match DirBuilder::new().mode(ENTER_ONLY).create(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => take_over(&folder, &path)?,
        other => other?,
    }
    // The umask may have closed it.
    fs::set_permissions(&folder, fs::Permissions::from_mode(ENTER_ONLY))?;
    let socket = notify::open(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(Abroad { socket, address: path.into_os_string(), folder: Some(folder) })
}

/// What was left by a supervisor of this home that was killed: the lock of the home is ours. A stranger's
/// folder of this name is left alone.
fn take_over(folder: &Path, path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(folder)?;
    let ours = metadata.is_dir() && metadata.uid() == socket::own_uid() && metadata.mode() & 0o022 == 0;
    if !ours {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Daemon {
    /// What NOTIFY_SOCKET is for a worker.
    pub(super) fn notify_address(&mut self, who: Option<&Who>) -> Result<OsString, SpawnFailure> {
        if !who.is_some_and(|who| who.is_other) {
            return Ok(self.notified.path().as_os_str().to_owned());
        }
        if let Some(abroad) = &self.abroad {
            return Ok(abroad.address.clone());
        }
        let abroad =
            open(PLACES, &self.home.runtime).map_err(|error| host_failure("notify socket", &error))?;
        let token = self.tokens.allot(Source::Notify);
        self.poll
            .registry()
            .register(&mut SourceFd(&abroad.socket.as_raw_fd()), token, Interest::READABLE)
            .map_err(|error| host_failure("watch the notify socket", &error))?;
        let address = abroad.address.clone();
        self.abroad = Some(abroad);
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn the_socket_is_where_everybody_can_enter_and_goes_with_its_owner() {
        let place = tempfile::tempdir().unwrap();
        let places = ["/proc/nowhere", place.path().to_str().unwrap()];
        let home = Path::new("/srv/home");
        let abroad = open(&places, home).unwrap();
        let folder = abroad.folder.clone().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(Path::new(&abroad.address))), (0o711, 0o666));
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", &abroad.address).unwrap();
        assert!(notify::receive(abroad.socket.as_fd()).unwrap().is_some());
        drop(abroad);
        assert!(!folder.exists());
        std::mem::forget(open(&places, home).unwrap());
        drop(open(&places, home).unwrap());
        assert!(!folder.exists(), "what a killed one left is taken over");
    }

    #[test]
    fn a_strangers_folder_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let home = Path::new("/srv/home");
        let folder = place.path().join(folder_name(home));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let abroad = open(&[place.path().to_str().unwrap()], home).unwrap();
        assert!(abroad.address.to_str().unwrap().starts_with("@clusterd-"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
