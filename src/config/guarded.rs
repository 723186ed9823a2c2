//! Files that root reads on behalf of others: what a stranger can put in their place must not make root read,
//! and pass on, what that stranger may not read. Looks at the file that is open already, so that nothing can be
//! exchanged in between; refuses, and opens nothing.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::printable;
use crate::sys::route;

/// Who reads, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Who reads is root: may read everything.
    pub is_root: bool,
    /// As whom the worker runs that gets what is read.
    pub user: u32,
}

/// Why a file is not to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// EACCES, or EAGAIN where another attempt can come out otherwise.
    pub(super) errno: i32,
    pub(super) message: String,
}

const ANY: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Whether the open `file`, reached by `path`, may be used: no link of another user than its own leads to it, as
/// with the kernel's protected_symlinks (proc_sys_fs(5)), and not everybody can write it or put it there. The
/// folder of the worker's user, or of who deploys, is fine: what lies there is their own.
pub(super) fn check(path: &Path, file: &File, reader: Reader) -> Result<(), Refused> {
    if !reader.is_root {
        return Ok(());
    }
    let unsure = |error: io::Error| Refused {
        errno: libc::EAGAIN,
        message: format!("{}: cannot be looked at: {error}", show(path)),
    };
    let found = file.metadata().map_err(unsure)?;
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(unsure)?;
    let route = route::walk(path).map_err(unsure)?;
    for link in &route.links {
        let owner = link.metadata.uid();
        if !may_lead(owner, found.uid()) {
            return Err(refused(format!(
                "the link {} belongs to user {owner}, and leads to {}, which is user {}'s: clusterd runs as root and \
                 would read for that user what it may not read itself. Put the file in place of the link, or give \
                 the link to root (chown -h)",
                show(&link.path),
                show(&real),
                found.uid()
            )));
        }
    }
    if route.found.is_none() || route.end != real {
        let message = format!("{} was exchanged while it was read; it is tried again", show(path));
        return Err(Refused { errno: libc::EAGAIN, message });
    }
    let folder = real.parent().unwrap_or(&real);
    check_names(&real, &found, &fs::symlink_metadata(folder).map_err(unsure)?)?;
    check_writers(&real, &found, reader.user, &|path| fs::symlink_metadata(path)).map_err(unsure)?
}

/// Root's own links mean what they say, and those of a file's owner disclose nothing to it.
fn may_lead(owner: u32, of_file: u32) -> bool {
    owner == 0 || owner == of_file
}

fn refused(message: String) -> Refused {
    Refused { errno: libc::EACCES, message }
}

/// Root's file that has another name, in a folder of somebody else: where fs.protected_hardlinks is off, anybody
/// can have given it this one.
fn check_names(real: &Path, file: &Metadata, folder: &Metadata) -> Result<(), Refused> {
    let is_strangers = folder.uid() != 0 || folder.mode() & ANY != 0;
    match is_strangers && file.uid() == 0 && file.nlink() > 1 {
        true => Err(refused(format!(
            "{} is root's and has {} names (hard links), one of them in the folder of user {}, who may have made it: \
             clusterd runs as root and does not read it. Copy the file instead",
            show(real),
            file.nlink(),
            folder.uid()
        ))),
        false => Ok(()),
    }
}

/// Who could write the file, or put another in its place: not everybody. In a sticky folder nobody can move what
/// is another's, but everybody can be first.
fn check_writers(
    real: &Path,
    file: &Metadata,
    user: u32,
    look: &dyn Fn(&Path) -> io::Result<Metadata>,
) -> io::Result<Result<(), Refused>> {
    let any = |path: &Path, mode: u32| {
        refused(format!(
            "every user can write {} (mode {:03o}), and so choose the variables of a worker of user {user}; take that \
             right away (chmod o-w)",
            show(path),
            mode & 0o7777
        ))
    };
    if file.mode() & ANY != 0 {
        return Ok(Err(any(real, file.mode())));
    }
    let mut below = (real.to_owned(), file.uid());
    for folder in real.ancestors().skip(1) {
        let metadata = look(folder)?;
        if metadata.mode() & ANY != 0 {
            if metadata.mode() & STICKY == 0 {
                return Ok(Err(any(folder, metadata.mode())));
            }
            let (path, owner) = &below;
            if ![0, user, metadata.uid()].contains(owner) {
                return Ok(Err(refused(format!(
                    "{} lies in {}, where every user can put it, and is user {owner}'s; the worker runs as user \
                     {user}. Move it to a folder of root or of that user",
                    show(path),
                    show(folder)
                ))));
            }
        }
        below = (folder.to_owned(), metadata.uid());
    }
    Ok(Ok(()))
}

fn show(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn links_lead_where_their_owner_could_go_anyway() {
        for (owner, of_file, expected) in
            [(0, 0, true), (0, 1000, true), (1000, 1000, true), (1000, 0, false), (1000, 1001, false)]
        {
            assert_eq!(may_lead(owner, of_file), expected, "link {owner}, file {of_file}");
        }
    }

    #[test]
    fn what_everybody_can_write_is_refused_by_root_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        fs::write(&path, "A=1\n").unwrap();
        let own = fs::metadata(&path).unwrap().uid();
        let root = Reader { is_root: true, user: own };
        let file = File::open(&path).unwrap();
        let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(check(&path, &file, root), Ok(()));
        allow(&path, 0o666);
        assert!(check(&path, &file, root).unwrap_err().message.contains("every user can write"));
        assert_eq!(check(&path, &file, Reader { is_root: false, ..root }), Ok(()));
        allow(&path, 0o600);
        allow(folder.path(), 0o777);
        assert!(check(&path, &file, root).unwrap_err().message.contains("mode 777"));
        allow(folder.path(), 0o1777);
        assert_eq!(check(&path, &file, root), Ok(()));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "A=2\n").unwrap();
        let raced = check(&path, &file, root).unwrap_err();
        assert!(raced.errno == libc::EAGAIN && raced.message.contains("was exchanged"), "{raced:?}");
    }
}
