//! Files that hold a process id: they appear with their whole content, or not at all, and nothing that is
//! in their place is followed or written to.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// A file on its way, under a name of its own; dropping it removes it.
#[derive(Debug)]
pub struct Draft {
    folder: OwnedFd,
    temporary: PathBuf,
    name: PathBuf,
    file: File,
    published: bool,
}

impl Draft {
    /// Makes a file beside `path`, in the same folder, which is made (0755) when it is missing. `mark` tells
    /// drafts of one path apart.
    ///
    /// # Errors
    /// The errno of mkdir(2) or openat(2).
    pub fn new(path: &Path, mark: u64) -> io::Result<Draft> {
        let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(folder, flags, Mode::empty())?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{mark}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let file = exclusive(&folder, &temporary).or_else(|error| match error {
            // Left by a supervisor of our number that was killed.
            nix::Error::EEXIST => {
                unlinkat(&folder, &temporary, UnlinkatFlags::NoRemoveDir)?;
                exclusive(&folder, &temporary)
            }
            other => Err(other),
        })?;
        Ok(Draft { folder, temporary, name: name.into(), file: File::from(file), published: false })
    }

    /// Writes the number and gives the file its name, in place of what had it.
    ///
    /// # Errors
    /// The errno of write(2) or renameat(2).
    pub fn publish(mut self, pid: i32) -> io::Result<()> {
        writeln!(self.file, "{pid}")?;
        renameat(&self.folder, &self.temporary, &self.folder, &self.name)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Nobody is there to be told, and the next draft of this name replaces it.
            let _ = unlinkat(&self.folder, &self.temporary, UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn exclusive(folder: &OwnedFd, name: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder.as_fd(), name, flags, Mode::from_bits_truncate(0o644))
}

/// Removes the file if it still holds this number: somebody else's is left alone.
///
/// # Errors
/// The errno of open(2) or unlink(2); a file that is gone is none.
pub fn remove(path: &Path, pid: i32) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match read(path) {
        Ok(Some(found)) if found == pid => match fs::remove_file(path) {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        },
        Ok(_) => Ok(()),
        Err(error) if gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The number in the file; none when it holds something else.
fn read(path: &Path) -> io::Result<Option<i32>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut text = String::new();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // What is no text is no number.
    if file.take(32).read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    Ok(text.trim().parse().ok())
}

/// Removes what a supervisor that was killed left in the folder of default files.
///
/// # Errors
/// The errno of reading the folder or of unlink(2); a folder that is not there is none.
pub fn clear(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".pid") || (name.starts_with('.') && name.contains(".pid.")) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_appears_whole_and_goes_with_its_process_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pids/a.pid");
        let draft = Draft::new(&path, 1).unwrap();
        assert!(!path.exists());
        draft.publish(42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o133, 0);
        Draft::new(&path, 2).unwrap().publish(43).unwrap();
        remove(&path, 42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "43\n");
        remove(&path, 43).unwrap();
        remove(&path, 43).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_nothing_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pid");
        drop(Draft::new(&path, 1).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        std::mem::forget(Draft::new(&path, 1).unwrap());
        Draft::new(&path, 1).unwrap().publish(1).unwrap();
        std::mem::forget(Draft::new(&path, 2).unwrap());
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        clear(folder.path()).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
        clear(&folder.path().join("missing")).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_never_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (path, precious) = (folder.path().join("a.pid"), folder.path().join("precious"));
        fs::write(&precious, "gold").unwrap();
        symlink(&precious, &path).unwrap();
        Draft::new(&path, 1).unwrap().publish(7).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "gold");
        assert_eq!(fs::read_to_string(&path).unwrap(), "7\n");
    }

    #[test]
    fn a_folder_in_its_place_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pid");
        fs::create_dir(&path).unwrap();
        assert!(Draft::new(&path, 1).unwrap().publish(7).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
