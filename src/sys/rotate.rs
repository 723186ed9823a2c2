//! System calls around a log file that is begun anew: which file stands at a path, renames that replace nothing,
//! how old a file is, and what sets the thread apart that looks after old files. Nothing here decides when.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::output;

/// Device and inode of a file, and its length in bytes; a device, a pipe or a socket is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regular {
    /// Device and inode.
    pub identity: (u64, u64),
    /// Bytes.
    pub len: u64,
    /// When it was made, since 1970; none where the file system does not say (statx(2), STATX_BTIME).
    pub made: Option<Duration>,
}

impl Regular {
    fn of(meta: &fs::Metadata) -> Option<Regular> {
        let made = meta.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        meta.is_file().then(|| Regular { identity: (meta.dev(), meta.ino()), len: meta.len(), made })
    }
}

/// The open file; none when it is no regular one.
///
/// # Errors
/// When the file system does not answer.
pub fn opened(fd: BorrowedFd<'_>) -> io::Result<Option<Regular>> {
    let file = File::from(fd.try_clone_to_owned()?);
    Ok(Regular::of(&file.metadata()?))
}

/// The file that the path leads to; none when there is none, or no regular one.
///
/// # Errors
/// When the file system does not say.
pub fn named(path: &Path) -> io::Result<Option<Regular>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Regular::of(&meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the file itself is: symbolic links at the end of the path are followed, as [`output::open_append`] does.
///
/// # Errors
/// When there is none; ELOOP: it is a link in a folder that others can write.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    if !fs::symlink_metadata(path)?.is_symlink() {
        return Ok(path.to_owned());
    }
    let folder = nix::sys::stat::stat(path.parent().unwrap_or(path))?;
    if output::only_ours(&folder) {
        fs::canonicalize(path)
    } else {
        Err(io::Error::from_raw_os_error(libc::ELOOP))
    }
}

/// Renames a file, in one folder, to a name that nothing has.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when something has it; else what the kernel says.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems know no flags (renameat2(2)); a second link replaces nothing either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        outcome => Ok(outcome?),
    }
}

/// Empties an open file.
///
/// # Errors
/// When it is no regular file, or the file system refuses.
pub fn empty(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::ftruncate(fd, 0)?)
}

/// Opens a regular file for reading; a symbolic link is refused (ELOOP), a pipe does not hold it up.
///
/// # Errors
/// What the kernel says; [`io::ErrorKind::InvalidInput`] where it is no regular file.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Makes a file that was not there, for its owner alone.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when something has the name; else what the kernel says.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a file the owner, the permissions and the time of another one, as far as we may. What is allowed to a
/// group that it cannot be given to is allowed to no other.
///
/// # Errors
/// When the file system refuses.
pub fn liken(file: &File, to: &fs::Metadata) -> io::Result<()> {
    let ours = file.metadata()?;
    let mut mode = to.mode() & 0o777;
    if (ours.uid(), ours.gid()) != (to.uid(), to.gid()) {
        let group = Some(rustix::fs::Gid::from_raw(to.gid()));
        let owner = Some(rustix::fs::Uid::from_raw(to.uid()));
        let is_given =
            rustix::fs::fchown(file, owner, group).or_else(|_| rustix::fs::fchown(file, None, group));
        if is_given.is_err() {
            mode &= !0o070;
        }
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.set_times(fs::FileTimes::new().set_modified(to.modified()?))
}

/// Gives an open file the owner and the permissions of another one. One that has bytes already was not made for
/// this, and stays as it is.
///
/// # Errors
/// When it would take rights that this process does not have.
pub fn inherit(new: BorrowedFd<'_>, old: BorrowedFd<'_>) -> io::Result<()> {
    let (mine, theirs) = (rustix::fs::fstat(new)?, rustix::fs::fstat(old)?);
    if mine.st_size > 0 {
        return Ok(());
    }
    if (mine.st_uid, mine.st_gid) != (theirs.st_uid, theirs.st_gid) {
        let owner = rustix::fs::Uid::from_raw(theirs.st_uid);
        rustix::fs::fchown(new, Some(owner), Some(rustix::fs::Gid::from_raw(theirs.st_gid)))?;
    }
    Ok(rustix::fs::fchmod(new, rustix::fs::Mode::from_raw_mode(theirs.st_mode & 0o777))?)
}

/// What was renamed and removed in a folder is so after a crash, too.
///
/// # Errors
/// When the disk does not take it.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::fsync(File::open(folder)?.as_fd())?)
}

/// Does something while no signal reaches this thread: a thread that is begun meanwhile takes none, ever. The
/// supervisor's handlers write to a descriptor, which another thread need not have.
///
/// # Errors
/// None that is known.
pub fn without_signals<T>(act: impl FnOnce() -> T) -> io::Result<T> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let result = act();
    before.thread_set_mask()?;
    Ok(result)
}

/// Gives this thread a table of descriptors of its own, with nothing in it but the first three, and the one with the
/// number `kept`. The other one's numbers are not its own any more: `epoll_peer` exchanges what stands at some of them
/// for a moment, and what is closed there is to be closed for good.
///
/// # Errors
/// Before Linux 5.9 (CLOSE_RANGE_UNSHARE, close_range(2)) where unshare(2) is forbidden too.
pub fn take_own_descriptors(kept: Option<RawFd>) -> io::Result<()> {
    let beyond = kept.map_or(3, |kept| kept + 1);
    if close_range(beyond, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE) {
        // The table is this thread's own already.
        return match kept {
            Some(kept) if kept > 3 && !close_range(3, kept - 1, 0) => Err(io::Error::last_os_error()),
            Some(_) | None => Ok(()),
        };
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)?;
    let open = fs::read_dir("/proc/thread-self/fd")?;
    let numbers: Vec<RawFd> = open.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2 && Some(*number) != kept) {
        // SAFETY: a number of this thread's own table, which nothing in it uses; EBADF is as good.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// Closes what stands at these numbers, both included.
fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> bool {
    // SAFETY: numbers only; nothing that this thread uses is among what is closed, and the table of the others
    // stays as it is.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

/// This thread gives way to every other one: nice 19, which on Linux holds for a thread (setpriority(2)).
///
/// # Errors
/// None that is known: to give way is always allowed.
pub fn give_way() -> io::Result<()> {
    rustix::process::setpriority_process(None, 19)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_with_descriptors_of_its_own_keeps_none_of_ours_open() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let number = writer.as_raw_fd();
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                take_own_descriptors(None).expect("a table");
                let file = File::open("/dev/null").expect("it is there");
                // SAFETY: a number only.
                let ours = unsafe { libc::fcntl(number, libc::F_GETFD) };
                tell.send((ours, file.as_raw_fd())).expect("it waits");
                let _ = ended.recv();
            });
            let (ours, opened) = told.recv().expect("a word");
            assert!(ours == -1 || number == opened, "{number} is open there");
            drop(writer);
            // It would wait for ever for the thread's writing end.
            assert_eq!(reader.read(&mut [0; 1]).expect("the end"), 0);
            drop(end);
        });
    }

    #[test]
    fn a_thread_that_is_begun_without_signals_takes_none() {
        let mask = || SigSet::thread_get_mask().expect("a mask");
        let before = mask();
        let theirs = without_signals(|| thread::scope(|scope| scope.spawn(mask).join().expect("it ends")));
        assert!(theirs.expect("no error").contains(nix::sys::signal::Signal::SIGTERM));
        assert_eq!(mask(), before);
    }
}
