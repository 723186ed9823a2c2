//! Listening Unix stream sockets: their files, who may use them, and what is the matter with one that is there
//! already. Decides nothing.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, getsockname, getsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, umask};

/// What a path leads to, as long as it is not replaced by another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

/// Who may write to the file, and so connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// The owner's id; none for our own.
    pub user: Option<u32>,
    /// The group's id; none for our own.
    pub group: Option<u32>,
}

/// Makes a blocking socket under this path and listens. The path should be locked: see [`PathLock`].
///
/// The file is nobody's but ours until mode and owner are as wanted, and until then nobody listens: whoever
/// gets through has the right to.
///
/// # Errors
/// EADDRINUSE when the path exists; ENOENT, ENOTDIR or EACCES of the folder; EPERM when we may not give the
/// file away. What was made is gone again then.
pub fn open(path: &Path, backlog: i32, access: Access) -> io::Result<(OwnedFd, FileId)> {
    let fd = stream()?;
    // bind(2) makes the file with the mode of the socket's own inode (`unix_bind_bsd` in Linux).
    nix::sys::stat::fchmod(&fd, Mode::from_bits_truncate(0o600))?;
    let address = UnixAddr::new(path)?;
    let before = umask(Mode::empty());
    let bound = bind(fd.as_raw_fd(), &address);
    umask(before);
    bound?;
    match set_access(path, None, access)
        .and_then(|id| super::listen::listen(fd.as_fd(), backlog).map(|()| id))
    {
        Ok(id) => Ok((fd, id)),
        Err(error) => {
            // The bind has just succeeded, so the file is ours.
            fs::remove_file(path)?;
            Err(error)
        }
    }
}

/// Makes a blocking socket in the abstract namespace and listens: everybody may connect.
///
/// # Errors
/// EADDRINUSE when somebody has the name.
pub fn open_abstract(name: &str, backlog: i32) -> io::Result<OwnedFd> {
    let fd = stream()?;
    bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    super::listen::listen(fd.as_fd(), backlog)?;
    Ok(fd)
}

fn stream() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Gives our socket's file this owner and mode, through a descriptor of it: never of what somebody put in
/// its place, nor of a stranger's socket that was linked there.
///
/// # Errors
/// EPERM where we may not; InvalidInput when the file is not this one, or no socket that we made.
pub fn set_access(path: &Path, known: Option<FileId>, access: Access) -> io::Result<FileId> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    let found = file.metadata()?;
    let id = FileId { device: found.dev(), inode: found.ino() };
    // Just bound, it is nobody's but ours.
    let made = || known.is_some() || found.uid() == super::socket::own_uid();
    let same = known.is_none_or(|known| known == id);
    let ours = found.file_type().is_socket() && found.nlink() == 1 && same && made();
    if !ours {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "somebody replaced the file meanwhile"));
    }
    let (user, group) =
        (access.user.filter(|id| *id != found.uid()), access.group.filter(|id| *id != found.gid()));
    if user.is_some() || group.is_some() {
        chown(&file, user, group)?;
    }
    // chmod(2) of /proc/self/fd/N is a change of what is open there; O_PATH descriptors know no fchmod(2).
    let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(by_descriptor, std::os::unix::fs::PermissionsExt::from_mode(access.mode))?;
    Ok(id)
}

fn chown(file: &File, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    let keep = u32::MAX;
    let (user, group) = (user.unwrap_or(keep), group.unwrap_or(keep));
    // SAFETY: an empty text that outlives the call; with AT_EMPTY_PATH the descriptor itself is meant.
    let result = unsafe { libc::fchownat(file.as_raw_fd(), c"".as_ptr(), user, group, libc::AT_EMPTY_PATH) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How often a lock that goes away while it is taken is made again.
const TRIES: u32 = 8;

/// Keeps other supervisors from a path while this is held: flock(2) of a file beside it that nobody else can open,
/// and that goes with the lock.
#[derive(Debug)]
pub struct PathLock {
    file: Flock<File>,
    path: PathBuf,
}

impl PathLock {
    /// Takes it.
    ///
    /// # Errors
    /// WouldBlock when another supervisor has it; PermissionDenied when the file is somebody else's; ENOENT,
    /// ENOTDIR and EACCES of the folder.
    pub fn take(path: &Path) -> io::Result<PathLock> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(".lock");
        let path = path.with_file_name(hidden);
        for _ in 0..TRIES {
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false);
            let file = file.mode(0o600).custom_flags(flags).open(&path)?;
            if file.metadata()?.uid() != super::socket::own_uid() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!("{} is another user's", path.display()),
                ));
            }
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
            // Whoever had it may just have removed it.
            let held = file.metadata()?;
            if is_at(&path, FileId { device: held.dev(), inode: held.ino() }) {
                return Ok(PathLock { file, path });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        let held = self.file.metadata().map(|m| FileId { device: m.dev(), inode: m.ino() });
        // Where it cannot be removed it stays as a file, which the next one locks.
        drop(held.and_then(|id| remove(&self.path, id)));
    }
}

/// The first folder on the way to a path in which everybody may replace the next: who does so decides what we
/// give away. A folder like /tmp, where nobody can but an entry's owner, is none (sticky(7) in inode(7)).
///
/// # Errors
/// Those of realpath(3) and stat(2).
pub fn open_to_all(path: &Path) -> io::Result<Option<PathBuf>> {
    let parent = fs::canonicalize(path.parent().unwrap_or(Path::new("/")))?;
    for folder in parent.ancestors() {
        let mode = fs::metadata(folder)?.mode();
        if mode & 0o1002 == 0o0002 {
            return Ok(Some(folder.to_owned()));
        }
    }
    Ok(None)
}

/// What is under a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Nothing,
    /// A socket that nobody listens on.
    Dead(FileId),
    /// A socket that somebody listens on: the process that did, where the kernel tells (SO_PEERCRED).
    Alive(Option<i32>),
    /// A socket that we may not connect to.
    Unknown,
    /// A file of another kind.
    OtherFile,
}

/// Looks what is under a path, by connecting to it.
///
/// # Errors
/// The errno of lstat(2), but for ENOENT.
pub fn look(path: &Path) -> io::Result<There> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Ok(There::OtherFile);
    }
    let client = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    match connect(client.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) => {
            let pid = getsockopt(&client, sockopt::PeerCredentials).ok().map(|peer| peer.pid());
            Ok(There::Alive(pid.filter(|pid| *pid > 0)))
        }
        Err(nix::Error::ECONNREFUSED) => Ok(There::Dead(FileId { device: found.dev(), inode: found.ino() })),
        Err(nix::Error::ENOENT) => Ok(There::Nothing),
        // Its queue is full, or it is not of streams.
        Err(nix::Error::EAGAIN | nix::Error::EPROTOTYPE) => Ok(There::Alive(None)),
        Err(_) => Ok(There::Unknown),
    }
}

/// Which file a path leads to, without following a link.
///
/// # Errors
/// The errno of lstat(2).
pub fn id_of(path: &Path) -> io::Result<FileId> {
    fs::symlink_metadata(path).map(|found| FileId { device: found.dev(), inode: found.ino() })
}

/// Whether the path still leads to this file.
pub fn is_at(path: &Path, file: FileId) -> bool {
    id_of(path).is_ok_and(|found| found == file)
}

/// Removes the path if it still leads to this file; whether it did.
///
/// # Errors
/// The errno of unlink(2).
pub fn remove(path: &Path, file: FileId) -> io::Result<bool> {
    if !is_at(path, file) {
        return Ok(false);
    }
    fs::remove_file(path).map(|()| true)
}

/// Two files change places at once: whoever comes meanwhile finds one of them (RENAME_EXCHANGE in rename(2), Linux
/// 3.15).
///
/// # Errors
/// ENOENT when one is missing; EINVAL where the file system cannot.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let one = CString::new(one.as_os_str().as_bytes())?;
    let other = CString::new(other.as_os_str().as_bytes())?;
    let here = libc::AT_FDCWD;
    // SAFETY: both texts are NUL-terminated and outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a socket was bound to: a path, or `@` and an abstract name. None when it is no Unix stream socket with
/// a name in UTF-8.
pub fn local_name(socket: BorrowedFd<'_>) -> Option<String> {
    let stream = getsockopt(&socket, sockopt::SockType).ok()? == SockType::Stream;
    let address: UnixAddr = getsockname(socket.as_raw_fd()).ok().filter(|_| stream)?;
    if let Some(name) = address.as_abstract() {
        return Some(format!("@{}", std::str::from_utf8(name).ok()?));
    }
    Some(address.path()?.to_str()?.to_owned())
}

/// Whether the socket was shut down by anybody who has it open: no one can connect any more, and listen(2)
/// does not change that (`unix_listen` in Linux leaves sk_shutdown as it is).
pub fn is_shut_down(socket: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let hung_up = |fds: &[PollFd<'_>; 1]| fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP));
    poll(&mut fds, PollTimeout::ZERO).is_ok() && hung_up(&fds)
}

/// O_NONBLOCK, which everybody who has the socket open shares.
///
/// # Errors
/// The errno of fcntl(2).
pub fn is_nonblocking(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?).contains(OFlag::O_NONBLOCK))
}

/// Sets or clears O_NONBLOCK, for everybody who has the socket open.
///
/// # Errors
/// The errno of fcntl(2).
pub fn set_nonblocking(socket: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(socket, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const ACCESS: Access = Access { mode: 0o620, user: None, group: None };

    fn path(folder: &tempfile::TempDir) -> PathBuf {
        folder.path().join("s")
    }

    #[test]
    fn the_file_has_its_mode_and_is_found_alive_then_dead() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = path(&folder);
        assert_eq!(look(&path).expect("a folder"), There::Nothing);
        let (fd, id) = open(&path, 1, ACCESS).expect("free");
        assert_eq!(fs::metadata(&path).expect("made").mode() & 0o777, 0o620);
        assert_eq!(look(&path).expect("there"), There::Alive(Some(std::process::id().cast_signed())));
        assert_eq!(local_name(fd.as_fd()).as_deref(), path.to_str());
        let _fills_the_queue = UnixStream::connect(&path).expect("listens");
        drop(fd);
        assert_eq!(look(&path).expect("there"), There::Dead(id));
        assert_eq!(open(&path, 1, ACCESS).expect_err("taken").raw_os_error(), Some(libc::EADDRINUSE));
        assert!(remove(&path, id).expect("ours"));
    }

    #[test]
    fn nothing_but_our_own_file_is_removed_or_given_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = path(&folder);
        let (_fd, id) = open(&path, 1, ACCESS).expect("free");
        fs::rename(&path, folder.path().join("moved")).expect("one folder");
        fs::write(&path, "precious").expect("free again");
        assert!(!remove(&path, id).expect("looked at"));
        assert_eq!(look(&path).expect("there"), There::OtherFile);
        assert!(set_access(&path, Some(id), ACCESS).is_err());
        fs::remove_file(&path).expect("ours");
        fs::hard_link(folder.path().join("moved"), &path).expect("one folder");
        assert!(set_access(&path, Some(id), ACCESS).is_err(), "a socket that was linked there");
        let other = folder.path().join("other");
        let (_other, _) = open(&other, 1, ACCESS).expect("free");
        assert!(set_access(&other, Some(id), ACCESS).is_err(), "another socket of ours");
    }

    #[test]
    fn two_sockets_change_places_and_are_reached_by_the_other_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let (here, beside) = (path(&folder), folder.path().join("beside"));
        let (_first, first) = open(&here, 1, ACCESS).expect("free");
        let (_second, second) = open(&beside, 1, ACCESS).expect("free");
        exchange(&here, &beside).expect("both are there");
        assert!(is_at(&here, second) && is_at(&beside, first));
        UnixStream::connect(&here).expect("it listens there, too");
        fs::remove_file(&beside).expect("ours");
        let error = exchange(&here, &beside).expect_err("one is missing");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_path_is_locked_once_and_the_lock_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = PathLock::take(&path(&folder)).expect("free");
        let again = PathLock::take(&path(&folder)).expect_err("held");
        assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
        PathLock::take(&folder.path().join("other")).expect("another path");
        drop(first);
        assert_eq!(fs::read_dir(folder.path()).expect("ours").count(), 0);
        PathLock::take(&path(&folder)).expect("free again");
    }

    #[test]
    fn nobody_else_can_hold_a_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = File::open(folder.path()).expect("ours");
        let _held = Flock::lock(opened, FlockArg::LockExclusiveNonblock).expect("free");
        drop(PathLock::take(&path(&folder)).expect("who may read the folder does not hold it"));
        std::os::unix::fs::symlink("elsewhere", folder.path().join(".s.lock")).expect("free");
        assert_eq!(PathLock::take(&path(&folder)).expect_err("a link").raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn a_folder_that_is_open_to_all_is_named() {
        let outer = tempfile::tempdir().expect("a folder");
        let inner = outer.path().join("inner");
        fs::create_dir(&inner).expect("free");
        let find = |mode| {
            fs::set_permissions(outer.path(), std::os::unix::fs::PermissionsExt::from_mode(mode))
                .expect("ours");
            open_to_all(&inner.join("s")).expect("it is there")
        };
        assert_eq!(find(0o755), None);
        assert_eq!(find(0o1777), None);
        assert_eq!(find(0o777), Some(fs::canonicalize(outer.path()).expect("it is there")));
    }

    #[test]
    fn a_socket_that_was_shut_down_is_seen_and_stays_so() {
        let fd = open_abstract(&format!("clusterd-test-{}", std::process::id()), 1).expect("free");
        assert!(!is_shut_down(fd.as_fd()));
        super::super::listen::end(fd.as_fd()).expect("it listened");
        super::super::listen::listen(fd.as_fd(), 1).expect("allowed");
        assert!(is_shut_down(fd.as_fd()));
    }
}
