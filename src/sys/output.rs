//! System calls of the output path: log files, worker pipes, and the supervisor's own standard output.
//!
//! Every call here returns at once, with the one exception the kernel leaves no choice in: a write to a
//! regular file waits for its disk, which is why threads of their own make it. Nothing here decides what happens to bytes that could not be written.

use std::fs::DirBuilder;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::termios::tcgetsid;
use nix::sys::uio::writev;
use nix::unistd::{isatty, pipe2, read, write};
use rustix::process::geteuid;

use super::guise;

/// What POSIX lets a pipe take in one piece on Linux, in bytes (pipe(7)).
const PIPE_BUF: usize = 4096;

/// A terminal that polls writable may have this much room or less (`WAKEUP_CHARS` in the kernel's n_tty.c).
const TERMINAL_PIECE: usize = 256;

/// Why a log file is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder on its path does not exist and cannot be made.
    #[error(
        "log file {}: its folder cannot be made: {source}; make it, or name another path", path.display()
    )]
    Folder {
        /// The file that was wanted.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is another user's matter, whose rights we may not take on.
    #[error(
        "log file {}: cannot be opened as the app's user, for whom it is kept: {source}; give clusterd CAP_SETUID and \
         CAP_SETGID, or name a path in a folder of root's", path.display()
    )]
    Rights {
        /// The file that was wanted.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Everything else: permissions, a folder in its place, a named pipe that nobody reads.
    #[error("log file {}: cannot be opened for appending: {source}; {advice}", path.display())]
    File {
        /// The file that was wanted.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
        /// What can be done about it.
        advice: &'static str,
    },
}

impl OpenError {
    /// What the kernel said, as a number; 0 where it was not the kernel.
    pub fn errno(&self) -> i32 {
        match self {
            OpenError::Folder { source, .. }
            | OpenError::Rights { source, .. }
            | OpenError::File { source, .. } => source.raw_os_error().unwrap_or(0),
        }
    }
}

/// Waits until one of these descriptors has room, or `limit` is over. For the very end of a process:
/// nothing in the loop may wait.
///
/// # Errors
/// The errno of poll(2).
pub fn wait_for_room(descriptors: &[RawFd], limit: Duration) -> io::Result<()> {
    let watch = |fd: &RawFd| libc::pollfd { fd: *fd, events: libc::POLLOUT, revents: 0 };
    let mut watched: Vec<libc::pollfd> = descriptors.iter().map(watch).collect();
    let milliseconds = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the array and its length belong together; a number that is closed meanwhile is answered
    // by POLLNVAL.
    let result = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, milliseconds) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a file for appending, mode 0640, and makes its folders (0750) when they are missing.
///
/// Never waits (a named pipe without a reader is ENXIO) and is never inherited. In a folder where others
/// can put files, a symbolic link is refused: it could lead a supervisor that runs as root anywhere. So could
/// another name of a file, where the host lets everybody make one (fs.protected_hardlinks in proc_sys_fs(5)).
/// Folders on the way are followed wherever they lead: see [`super::behalf`].
pub fn open_append(path: &Path) -> Result<OwnedFd, OpenError> {
    let failed =
        |errno: Errno| OpenError::File { path: path.to_owned(), source: errno.into(), advice: advice(errno) };
    let name = path.file_name().ok_or_else(|| failed(Errno::EISDIR))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(folder)
        .map_err(|source| OpenError::Folder { path: path.to_owned(), source })?;
    let folder =
        open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
    let mut flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_CLOEXEC
        | OFlag::O_NOCTTY
        | OFlag::O_NONBLOCK;
    let only_ours = only_ours(&fstat(&folder).map_err(failed)?);
    if !only_ours {
        flags |= OFlag::O_NOFOLLOW;
    }
    let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP;
    let file = retrying(|| openat(&folder, name, flags, mode)).map_err(failed)?;
    check_opened(&file, only_ours).map_err(failed)?;
    Ok(file)
}

/// As root: what O_NOFOLLOW lets pass.
fn check_opened(file: &OwnedFd, only_ours: bool) -> nix::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let stat = fstat(file)?;
    let is_plain = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    if is_plain && !only_ours && stat.st_nlink > 1 {
        return Err(Errno::EMLINK);
    }
    // What is writable there for everybody is about the process that writes.
    if guise::user() != geteuid().as_raw() && fstatfs(file)?.filesystem_type() == PROC_SUPER_MAGIC {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// Whether nobody but root and who opens files can put one into the folder.
pub(super) fn only_ours(folder: &FileStat) -> bool {
    let owner_is_safe = folder.st_uid == 0 || folder.st_uid == guise::user();
    let others_write = Mode::S_IWGRP | Mode::S_IWOTH;
    owner_is_safe && !Mode::from_bits_truncate(folder.st_mode).intersects(others_write)
}

fn advice(errno: Errno) -> &'static str {
    if errno == Errno::ELOOP {
        "it is a symbolic link in a folder that others can write: name the real file"
    } else if errno == Errno::EMLINK {
        "it has another name (a hard link) and is in a folder that others can write: give it one name only"
    } else if errno == Errno::ENXIO {
        "it is a named pipe that nobody reads, or a socket: start its reader first"
    } else if errno == Errno::EISDIR {
        "it is a folder: name a file in it"
    } else if guise::user() != geteuid().as_raw() {
        "it is opened as the app's user, for others than root can lead it elsewhere: give the file and its folder to \
         that user (chown), or name another path"
    } else {
        "give this user write permission, or name another path"
    }
}

/// A pipe for one output of a worker: the read end (which never waits) and the write end (which does, as
/// programs expect of their standard output). Neither is inherited across exec.
pub fn worker_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read_end, write_end))
}

/// Gives a pipe room for so many bytes, rounded up to a power of two pages (F_SETPIPE_SZ, fcntl(2)); how many it
/// holds now.
///
/// # Errors
/// EPERM beyond /proc/sys/fs/pipe-max-size, or when all pipes of this user together are above
/// pipe-user-pages-soft, without CAP_SYS_RESOURCE; EBUSY when it holds more than that already.
pub fn set_pipe_room(fd: BorrowedFd<'_>, bytes: usize) -> Result<usize, Errno> {
    let wanted = i32::try_from(bytes).map_err(|_| Errno::EINVAL)?;
    let room = fcntl(fd, FcntlArg::F_SETPIPE_SZ(wanted))?;
    usize::try_from(room).map_err(|_| Errno::EINVAL)
}

/// What one read from a pipe gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing for now.
    Empty,
    /// Every writer closed it, or it cannot be read any more.
    End,
}

/// Reads what is there. The descriptor must be non-blocking.
pub fn read_some(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Read {
    match retrying(|| read(fd, buffer)) {
        Ok(0) => Read::End,
        Ok(count) => Read::Bytes(count),
        Err(Errno::EAGAIN) => Read::Empty,
        Err(_) => Read::End,
    }
}

/// Appends as much as the file takes in one call; the number of bytes, never 0.
pub fn append(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    match retrying(|| writev(fd, parts))? {
        0 => Err(Errno::EIO),
        count => Ok(count),
    }
}

/// A descriptor of somebody else (a terminal, a pipe, the journal's socket), ready to be written to without
/// waiting and without changing it for those who share it.
#[derive(Debug)]
pub struct Outlet {
    fd: OwnedFd,
    way: Way,
    terminal: bool,
    discards: bool,
    identity: (u64, u64),
}

/// How waiting is avoided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// An open file description of our own, with O_NONBLOCK.
    Own,
    /// The shared description: only when poll says that there is room, and no more than fits then.
    Asked { piece: usize },
    /// A socket: MSG_DONTWAIT with each call.
    Socket,
    /// A regular file or a plain device, which know no readiness (epoll_ctl(2): EPERM).
    Direct,
}

impl Outlet {
    /// Takes a second hold of `fd`.
    ///
    /// O_NONBLOCK belongs to the open file description, which the user's shell shares: it must not be set
    /// there. Opening `/proc/self/fd/N` gives a new description of the same pipe or terminal. Where that is
    /// forbidden (after `su` the terminal belongs to somebody else), `/dev/tty` or poll(2) serve.
    pub fn open(fd: BorrowedFd<'_>) -> io::Result<Outlet> {
        let stat = fstat(fd)?;
        let terminal = isatty(fd).unwrap_or(false);
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        let shared = || fd.try_clone_to_owned();
        let (fd, way) = if terminal || kind == SFlag::S_IFIFO {
            match reopen_nonblocking(fd, terminal) {
                Ok(own) => (own, Way::Own),
                Err(_) => (shared()?, Way::Asked { piece: if terminal { TERMINAL_PIECE } else { PIPE_BUF } }),
            }
        } else if kind == SFlag::S_IFSOCK {
            (shared()?, Way::Socket)
        } else {
            (shared()?, Way::Direct)
        };
        // Major and minor number of /dev/null (null(4)).
        let discards = kind == SFlag::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
        Ok(Outlet { fd, way, terminal, discards, identity: (stat.st_dev, stat.st_ino) })
    }

    /// The same, but as if no description of our own could be had.
    #[cfg(test)]
    fn open_shared(fd: BorrowedFd<'_>) -> io::Result<Outlet> {
        let mut outlet = Outlet::open(fd)?;
        outlet.fd = fd.try_clone_to_owned()?;
        outlet.way = Way::Asked { piece: PIPE_BUF };
        Ok(outlet)
    }

    /// Writes as much as fits now; EAGAIN when that is nothing.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let count = match self.way {
            Way::Own | Way::Direct => retrying(|| write(&self.fd, bytes))?,
            Way::Asked { piece } => {
                if !self.has_room()? {
                    return Err(Errno::EAGAIN);
                }
                retrying(|| write(&self.fd, &bytes[..bytes.len().min(piece)]))?
            }
            Way::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                retrying(|| send(self.fd.as_raw_fd(), bytes, flags))?
            }
        };
        if count == 0 { Err(Errno::EAGAIN) } else { Ok(count) }
    }

    /// A terminal reads it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// It is /dev/null.
    pub fn discards(&self) -> bool {
        self.discards
    }

    /// Device and inode, as in the variable JOURNAL_STREAM (systemd.exec(5)).
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// The descriptor to wait on for room; none where there is nothing to wait for.
    pub fn source(&self) -> Option<BorrowedFd<'_>> {
        match self.way {
            Way::Own | Way::Asked { .. } | Way::Socket => Some(self.fd.as_fd()),
            Way::Direct => None,
        }
    }

    fn has_room(&self) -> Result<bool, Errno> {
        let mut asked = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        Ok(retrying(|| poll(&mut asked, PollTimeout::ZERO))? > 0)
    }
}

fn reopen_nonblocking(fd: BorrowedFd<'_>, terminal: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    match open(path.as_str(), flags, Mode::empty()) {
        Ok(own) => Ok(own),
        // tcgetsid succeeds only for the caller's own controlling terminal, which is what /dev/tty opens.
        Err(errno) if terminal => match tcgetsid(fd) {
            Ok(_) => open("/dev/tty", flags, Mode::empty()),
            Err(_) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

/// Calls again while a signal interrupted it.
pub(super) fn retrying<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn flags_of(fd: impl AsFd) -> OFlag {
        OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).unwrap())
    }

    #[test]
    fn missing_folders_are_made_and_the_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c/api-out.log");
        let fd = open_append(&path).unwrap();
        assert_eq!(append(fd.as_fd(), &[IoSlice::new(b"x")]), Ok(1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
        assert_eq!(fcntl(&fd, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn a_symlink_is_followed_only_where_nobody_else_could_have_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("api.log");
        symlink(dir.path().join("real.log"), &link).unwrap();
        assert!(open_append(&link).is_ok());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = open_append(&link).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
    }

    #[test]
    fn a_named_pipe_without_a_reader_does_not_block_the_opening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = open_append(&path).unwrap_err().to_string();
        assert!(error.contains("nobody reads"), "{error}");
    }

    #[test]
    fn an_error_names_the_path_and_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let error = open_append(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()) && error.contains("directory"), "{error}");
        fs::write(dir.path().join("file"), "").unwrap();
        let error = open_append(&dir.path().join("file/x.log")).unwrap_err().to_string();
        assert!(error.contains("file/x.log: its folder cannot be made"), "{error}");
    }

    #[test]
    fn only_our_end_of_a_worker_pipe_is_non_blocking() {
        let (read_end, write_end) = worker_pipe().unwrap();
        assert!(flags_of(&read_end).contains(OFlag::O_NONBLOCK));
        assert!(!flags_of(&write_end).contains(OFlag::O_NONBLOCK));
        let mut buffer = [0; 8];
        assert_eq!(read_some(read_end.as_fd(), &mut buffer), Read::Empty);
        drop(write_end);
        assert_eq!(read_some(read_end.as_fd(), &mut buffer), Read::End);
    }

    #[test]
    fn the_description_that_others_share_stays_blocking() {
        let (_read_end, write_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let outlet = Outlet::open(write_end.as_fd()).unwrap();
        assert_eq!(outlet.way, Way::Own);
        assert!(flags_of(&outlet.fd).contains(OFlag::O_NONBLOCK));
        assert!(!flags_of(&write_end).contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn a_shared_description_is_written_only_while_there_is_room() {
        let (_read_end, write_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let outlet = Outlet::open_shared(write_end.as_fd()).unwrap();
        let big = vec![b'x'; 1 << 20];
        let mut written = 0;
        loop {
            match outlet.write(&big) {
                Ok(count) => written += count,
                Err(errno) => break assert_eq!(errno, Errno::EAGAIN),
            }
        }
        assert!(written >= PIPE_BUF);
    }

    #[test]
    fn a_pipe_holds_what_it_was_given_room_for() {
        let (read_end, write_end) = worker_pipe().unwrap();
        let room = set_pipe_room(read_end.as_fd(), 256 * 1024).unwrap();
        assert_eq!(room, 256 * 1024);
        assert_eq!(write(&write_end, &vec![b'x'; room]), Ok(room));
        assert_eq!(set_pipe_room(read_end.as_fd(), 64 * 1024), Err(Errno::EBUSY));
    }

    #[test]
    fn of_the_devices_null_alone_discards() {
        let discards = |path: &str| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            Outlet::open(file.as_fd()).unwrap().discards()
        };
        assert!(discards("/dev/null"));
        assert!(!discards("/dev/full"));
    }

    #[test]
    fn a_socket_is_written_without_waiting() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let outlet = Outlet::open(ours.as_fd()).unwrap();
        let big = vec![b'x'; 1 << 20];
        while outlet.write(&big).is_ok() {}
        assert_eq!(outlet.write(&big), Err(Errno::EAGAIN));
        drop(theirs);
        assert_eq!(outlet.write(&big), Err(Errno::EPIPE));
    }
}
