//! Workers of other users: they cannot enter the supervisor's home, where the notify socket is, and it is
//! not opened for them. Each such user has a socket of its own (0600), as long as a worker of that user
//! lives, in a folder that everybody can enter and nobody else can write to: whoever floods it, floods
//! themselves alone. Whose word counts is decided by the sender's user and process id, for which the kernel
//! vouches.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use mio::Token;

use crate::supervisor::event::SpawnFailure;
use crate::sys::{notify, socket};

use super::Daemon;
use super::identity::Who;
use super::sources::Source;
use super::start::host_failure;

/// Where every user can enter, and nobody can move what is another's. The first that can be written.
const PLACES: &[&str] = &["/run", "/tmp", "/dev/shm"];

/// The sockets, by whose they are.
#[derive(Debug, Default)]
pub(super) struct Abroad {
    by_user: BTreeMap<u32, (Post, Token)>,
    /// After them, which are removed first.
    folder: Option<Folder>,
}

/// One user's.
#[derive(Debug)]
struct Post {
    socket: OwnedFd,
    address: OsString,
    /// None for an address without a file.
    path: Option<PathBuf>,
    /// The file could not be given to its user, and is open to everybody instead.
    open_to_all: bool,
}

impl Drop for Post {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.path.as_ref().map(fs::remove_file) {
            log::debug!("notify socket {}: {error}", self.address.display());
        }
    }
}

/// It goes with its last socket.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            log::debug!("{}: {error}", self.0.display());
        }
    }
}

impl Abroad {
    /// Who has a socket.
    pub(super) fn users(&self) -> Vec<u32> {
        self.by_user.keys().copied().collect()
    }

    pub(super) fn socket_of(&self, user: u32) -> Option<BorrowedFd<'_>> {
        self.by_user.get(&user).map(|(post, _)| post.socket.as_fd())
    }

    /// In the first place that takes it, or without a file where none does: not every library can use that.
    fn open(&mut self, places: &[&str], home: &Path, user: u32) -> io::Result<Post> {
        if self.folder.is_none() {
            let mut folders = places.iter().map(|place| Path::new(place).join(folder_name(home)));
            self.folder = folders.find_map(|folder| make_folder(folder).ok());
        }
        match &self.folder {
            Some(folder) => Post::with_file(folder.0.join(user.to_string()), user),
            None => Post::without_file(),
        }
    }

    /// Takes out what is for nobody in `users`.
    fn retain(&mut self, users: &BTreeSet<u32>) -> Vec<(Post, Token)> {
        let unused: Vec<u32> = self.by_user.keys().filter(|user| !users.contains(user)).copied().collect();
        unused.iter().filter_map(|user| self.by_user.remove(user)).collect()
    }
}

impl Post {
    fn with_file(path: PathBuf, user: u32) -> io::Result<Post> {
        let socket = notify::open(&path)?;
        let address = path.clone().into_os_string();
        let mut post = Post { socket, address, path: Some(path.clone()), open_to_all: false };
        // Nobody else can write to the folder, so the path still means this socket.
        if chown(&path, Some(user), None).is_err() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
            post.open_to_all = true;
        }
        Ok(post)
    }

    /// Addresses without a file are shared by all of a network namespace, and open to it.
    fn without_file() -> io::Result<Post> {
        let name = format!("clusterd-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let socket = notify::open_abstract(&name)?;
        let address = format!("@{name}").into();
        Ok(Post { socket, address, path: None, open_to_all: true })
    }
}

/// One for each home: what a killed supervisor left is found by the next one, and replaced.
fn folder_name(home: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    home.hash(&mut hasher);
    format!("clusterd-notify-{:016x}", hasher.finish())
}

fn make_folder(folder: PathBuf) -> io::Result<Folder> {
    const ENTER_ONLY: u32 = 0o711;
    match DirBuilder::new().mode(ENTER_ONLY).create(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => take_over(&folder)?,
        other => other?,
    }
    // The umask may have closed it.
    fs::set_permissions(&folder, fs::Permissions::from_mode(ENTER_ONLY))?;
    Ok(Folder(folder))
}

/// What was left by a supervisor of this home that was killed: the lock of the home is ours. A stranger's
/// folder of this name is left alone.
fn take_over(folder: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(folder)?;
    let ours = metadata.is_dir() && metadata.uid() == socket::own_uid() && metadata.mode() & 0o022 == 0;
    if !ours {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    for left in fs::read_dir(folder)? {
        fs::remove_file(left?.path())?;
    }
    Ok(())
}

impl Daemon {
    /// What NOTIFY_SOCKET is for a worker.
    pub(super) fn notify_address(&mut self, who: Option<&Who>) -> Result<OsString, SpawnFailure> {
        let Some(user) = who.and_then(Who::other_user) else {
            return Ok(self.notified.path().as_os_str().to_owned());
        };
        if let Some((post, _)) = self.abroad.by_user.get(&user) {
            return Ok(post.address.clone());
        }
        let post = self
            .abroad
            .open(PLACES, &self.home.runtime, user)
            .map_err(|error| host_failure("notify socket", &error))?;
        let token = self
            .watch(post.socket.as_raw_fd(), Source::Notify)
            .map_err(|error| host_failure("watch the notify socket", &error))?;
        let (address, open_to_all) = (post.address.clone(), post.open_to_all);
        self.abroad.by_user.insert(user, (post, token));
        if open_to_all {
            self.warn_once("notify socket", || {
                format!(
                    "notify socket {}: it cannot be given to user {user} alone, so every user of this host can \
                     fill it and keep that user's workers from being heard; grant CAP_CHOWN, and let one of {} \
                     be writable",
                    address.display(),
                    PLACES.join(", ")
                )
            });
        }
        Ok(address)
    }

    /// No worker of its user is left.
    pub(super) fn close_unused_abroad(&mut self) {
        if self.abroad.folder.is_none() && self.abroad.by_user.is_empty() {
            return;
        }
        let users = self.processes.iter().filter_map(|(_, process)| process.other_user).collect();
        for (post, token) in self.abroad.retain(&users) {
            self.unwatch(&[(token, post.socket.as_raw_fd())]);
        }
        if self.abroad.by_user.is_empty() {
            self.abroad.folder = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn mode(path: impl AsRef<Path>) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn each_user_has_a_socket_of_its_own_where_it_can_enter_and_it_goes_with_it() {
        let place = tempfile::tempdir().unwrap();
        let places = ["/proc/nowhere", place.path().to_str().unwrap()];
        let home = Path::new("/srv/home");
        let own = socket::own_uid();
        let mut abroad = Abroad::default();
        let add = |abroad: &mut Abroad, user| {
            let post = abroad.open(&places, home, user).unwrap();
            let address = PathBuf::from(&post.address);
            abroad.by_user.insert(user, (post, Token(0)));
            address
        };
        let address = add(&mut abroad, own);
        let folder = address.parent().unwrap().to_owned();
        assert_eq!((mode(&folder), mode(&address)), (0o711, 0o600));
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", &address).unwrap();
        assert_eq!(notify::receive(abroad.socket_of(own).unwrap()).unwrap().unwrap().uid, own);
        if own == 0 {
            let second = add(&mut abroad, 4711);
            assert_eq!((mode(&second), fs::metadata(&second).unwrap().uid()), (0o600, 4711));
            drop(abroad.retain(&BTreeSet::from([4711])));
            assert_eq!((address.exists(), second.exists()), (false, true));
        }
        drop(abroad);
        assert!(!folder.exists());
        let mut left = Abroad::default();
        add(&mut left, own);
        std::mem::forget(left);
        let mut next = Abroad::default();
        assert_eq!(add(&mut next, own), address, "what a killed one left is taken over");
        drop(next);
        assert!(!folder.exists());
    }

    #[test]
    fn a_strangers_folder_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let home = Path::new("/srv/home");
        let folder = place.path().join(folder_name(home));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let mut abroad = Abroad::default();
        let post = abroad.open(&[place.path().to_str().unwrap()], home, socket::own_uid()).unwrap();
        assert!(post.address.to_str().unwrap().starts_with("@clusterd-"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
