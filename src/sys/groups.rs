//! Control groups of v2 that are made, filled, looked at and removed here (cgroups(7)): the files of one group each.
//! Who may make groups, and who is put where, is decided elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::cgroup::read;

/// How systemd marks a group that it has given away (`Delegate=`): the first where it may, the second since 251.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Groups within a worker's own that are removed with it, one in the other.
const DEEPEST: usize = 16;

/// Whether this group was given away, to be divided by whoever runs in it.
pub fn is_given(folder: &Path) -> bool {
    let mut value = [0_u8; 8];
    MARKS.iter().any(|mark| {
        rustix::fs::getxattr(folder, *mark, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

/// Writes on a group what only whoever may divide it can write there: as everybody's attribute, or, before Linux 5.7, as
/// root's.
///
/// # Errors
/// ENOTSUP where groups keep none; EACCES and EPERM where it is not ours.
pub fn label(folder: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let set = |space: &str| {
        rustix::fs::setxattr(folder, format!("{space}.{name}"), value, rustix::fs::XattrFlags::empty())
    };
    set("user").or_else(|error| set("trusted").map_err(|_| error)).map_err(io::Error::from)
}

/// What [`label`] wrote there.
pub fn labelled(folder: &Path, name: &str) -> Option<Vec<u8>> {
    // As long as a path can be.
    let mut value = [0_u8; libc::PATH_MAX as usize];
    ["user", "trusted"].iter().find_map(|space| {
        let length = rustix::fs::getxattr(folder, format!("{space}.{name}"), &mut value).ok()?;
        value.get(..length).map(<[u8]>::to_vec)
    })
}

/// Whether it is the hierarchy's very first group, which has everybody in it and no limits.
pub fn is_first(folder: &Path) -> bool {
    !folder.join("cgroup.type").exists() && !folder.join("cgroup.events").exists()
}

/// Whether groups could be made in it.
pub fn is_writable(folder: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let may = |path: &Path, how| accessat(CWD, path, how, AtFlags::EACCESS).is_ok();
    may(folder, Access::WRITE_OK | Access::EXEC_OK) && may(&folder.join("cgroup.procs"), Access::WRITE_OK)
}

/// Words of one of its files, such as the controllers that it has.
pub fn words(folder: &Path, file: &str) -> Vec<String> {
    read(&folder.join(file)).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Processes in it, and not in groups below it. 0 stands for one that this process cannot see.
pub fn members(folder: &Path) -> Vec<i32> {
    words(folder, "cgroup.procs").iter().filter_map(|word| word.parse().ok()).collect()
}

/// Processes in it and in groups below it.
pub fn everybody(folder: &Path) -> Vec<i32> {
    fn within(folder: &Path, depth: usize, found: &mut Vec<i32>) {
        found.extend(members(folder));
        if depth > 0 {
            below(folder).iter().for_each(|group| within(group, depth - 1, found));
        }
    }
    let mut found = Vec::new();
    within(folder, DEEPEST, &mut found);
    found
}

/// Whether somebody lives in it or in a group below it.
pub fn is_occupied(folder: &Path) -> bool {
    fn within(folder: &Path, depth: usize) -> bool {
        if event(folder, "cgroup.events", "populated") != Some(1) {
            return false;
        }
        // Who has just been reaped may count for a moment longer, and is not shown.
        let inner = || below(folder).iter().any(|group| depth > 0 && within(group, depth - 1));
        !members(folder).is_empty() || inner()
    }
    within(folder, DEEPEST)
}

/// A number of a file of `name number` lines.
pub fn event(folder: &Path, file: &str, name: &str) -> Option<u64> {
    let text = read(&folder.join(file))?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Makes a group.
///
/// # Errors
/// EEXIST; EACCES and EROFS where it is not ours; EAGAIN above cgroup.max.descendants; ENOENT when the one that it
/// is to be made in was removed.
pub fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)
}

/// Removes a group with those below it.
///
/// # Errors
/// EBUSY as long as somebody is in it; ENOENT is none: that was to be.
pub fn remove(folder: &Path) -> io::Result<()> {
    fn within(folder: &Path, depth: usize) -> io::Result<()> {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Who lives in it keeps the groups that he made there, also those that are empty.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && depth > 0 && !is_occupied(folder) => {
                let inner = below(folder);
                inner.iter().try_for_each(|group| within(group, depth - 1))?;
                if inner.is_empty() { Err(error) } else { fs::remove_dir(folder) }
            }
            other => other,
        }
    }
    within(folder, DEEPEST)
}

/// The groups right below it.
pub fn below(folder: &Path) -> Vec<std::path::PathBuf> {
    // The kernel counts a group's as it counts those of any folder: most have none, and many files.
    if fs::metadata(folder).is_ok_and(|folder| folder.nlink() == 2) {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Writes a file of it. Unlike an ordinary file's it is never made.
///
/// # Errors
/// What the kernel thinks of the text; ENOENT where the file is not there: its controller is off.
pub fn write(folder: &Path, file: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(folder.join(file))?;
    file.write_all(text.as_bytes())
}

/// SIGKILL for everybody in it and below it, at once: nobody forks away from it (Linux 5.14).
///
/// # Errors
/// ENOENT on an older kernel, or where it was removed.
pub fn kill(folder: &Path) -> io::Result<()> {
    write(folder, "cgroup.kill", "1")
}

/// The group itself, for whoever is to be born in it.
///
/// # Errors
/// Those of open(2).
pub fn open(folder: &Path) -> io::Result<OwnedFd> {
    let options = libc::O_DIRECTORY | libc::O_CLOEXEC;
    Ok(OpenOptions::new().read(true).custom_flags(options).open(folder)?.into())
}

/// Word of the last one that leaves it: exceptional readiness (EPOLLPRI) after each change.
///
/// # Errors
/// Those of open(2).
pub fn events(folder: &Path) -> io::Result<File> {
    let file = File::open(folder.join("cgroup.events"))?;
    heard(&file);
    Ok(file)
}

/// It is read again: the next change is a new one.
pub fn heard(events: &File) {
    let mut text = [0_u8; 64];
    // What stands there is read elsewhere; a group that is gone changes no more.
    let _ = events.read_at(&mut text, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_group_are_read_and_never_made() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it is ours");
        assert!(!is_given(folder.path()) && is_first(folder.path()) && is_writable_to(folder.path()));
        put("cgroup.procs", "12\n0\n7\n");
        put("cgroup.events", "populated 1\nfrozen 0\n");
        put("cgroup.controllers", "cpu memory pids\n");
        assert_eq!(members(folder.path()), [12, 0, 7]);
        assert_eq!(words(folder.path(), "cgroup.controllers"), ["cpu", "memory", "pids"]);
        assert!(is_occupied(folder.path()) && !is_first(folder.path()));
        put("cgroup.events", "populated 0\nfrozen 0\n");
        assert!(!is_occupied(folder.path()));
        assert_eq!(event(folder.path(), "cgroup.events", "frozen"), Some(0));
        assert_eq!(event(folder.path(), "cgroup.events", "froz"), None);
        let missing = write(folder.path(), "memory.max", "1").expect_err("no such controller");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(remove(&folder.path().join("gone")).is_ok());
    }

    #[test]
    fn everybody_is_who_is_in_groups_below_too() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).expect("it is ours");
        fs::write(folder.path().join("cgroup.procs"), "12\n").expect("it is ours");
        fs::write(inner.join("cgroup.procs"), "7\n8\n").expect("it is ours");
        assert_eq!((everybody(folder.path()), members(folder.path())), (vec![12, 7, 8], vec![12]));
    }

    /// Without its list of processes it is no group.
    fn is_writable_to(folder: &Path) -> bool {
        !is_writable(folder)
    }
}
