//! The way that a path takes over folders and links, as the kernel walks it (path_resolution(7)): whose each of
//! them is says who can lead it elsewhere. Nothing here decides whom to trust, and nothing is opened.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

/// The most links that a path can lead over, as in the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// A folder or a link that a path leads over, where it is itself.
#[derive(Debug)]
pub struct Place {
    /// Without links, but for itself.
    pub path: PathBuf,
    /// Its own, not that of what it leads to.
    pub metadata: Metadata,
}

/// Where a path leads.
#[derive(Debug)]
pub struct Route {
    /// The path without links. What does not exist of it is left out.
    pub end: PathBuf,
    /// What is there; none where something on the way does not exist.
    pub found: Option<Metadata>,
    /// Folders in which a name is looked up, in this order; the last one is where what is missing would be made.
    pub folders: Vec<Place>,
    /// Links, in this order.
    pub links: Vec<Place>,
    /// The path's own last name is a link.
    pub ends_in_link: bool,
    /// How many names are missing, with those below the first one that does not exist.
    pub missing: usize,
}

/// Walks an absolute path to its end, or to the first name that does not exist.
///
/// # Errors
/// ELOOP after forty links; ENOTDIR where a folder is none; else the errno of looking at a part of it.
pub fn walk(path: &Path) -> io::Result<Route> {
    let mut route = Route {
        end: PathBuf::from("/"),
        found: None,
        folders: Vec::new(),
        links: Vec::new(),
        ends_in_link: false,
        missing: 0,
    };
    let mut left: Vec<PathBuf> = steps(path);
    let mut here = fs::symlink_metadata("/")?;
    while let Some(step) = left.pop() {
        if !here.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        if step == Path::new("..") {
            route.end.pop();
            here = fs::symlink_metadata(&route.end)?;
            continue;
        }
        let next = route.end.join(&step);
        route.folders.push(Place { path: route.end.clone(), metadata: here.clone() });
        let metadata = match fs::symlink_metadata(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                route.missing = left.len() + 1;
                return Ok(route);
            }
            other => other?,
        };
        if !metadata.is_symlink() || is_magic(&next) {
            (route.end, here) = (next, metadata);
            continue;
        }
        if route.links.len() == MOST_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let to = fs::read_link(&next)?;
        if to.is_absolute() {
            route.end = PathBuf::from("/");
            here = fs::symlink_metadata("/")?;
        }
        route.ends_in_link |= left.is_empty();
        left.extend(steps(&to));
        route.links.push(Place { path: next, metadata });
    }
    route.found = Some(here);
    Ok(route)
}

/// Leads to what a process has open, whatever it reads as (proc_pid_fd(5)).
fn is_magic(link: &Path) -> bool {
    link.starts_with("/proc") && link.parent().is_some_and(|folder| folder.ends_with("fd"))
}

/// Its names, the last first.
fn steps(path: &Path) -> Vec<PathBuf> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_walk_ends_where_the_kernel_does_and_names_each_link() {
        let folder = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(base.join("releases/1")).unwrap();
        fs::write(base.join("releases/1/.env"), "A=1\n").unwrap();
        symlink("releases/1", base.join("current")).unwrap();
        symlink(base.join("current"), base.join("far")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        let route = walk(&base.join("./releases/../far/.env")).unwrap();
        assert_eq!(route.end, base.join("releases/1/.env"));
        assert!(route.found.is_some_and(|found| found.is_file()));
        let links: Vec<_> = route.links.iter().map(|link| link.path.clone()).collect();
        assert_eq!(links, [base.join("far"), base.join("current")]);
        let last = route.folders.last().map(|folder| folder.path.clone());
        assert_eq!(last, Some(base.join("releases/1")));
        assert_eq!(walk(&base.join("loop")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        let through_a_file = walk(&base.join("current/.env/x")).unwrap_err();
        assert_eq!(through_a_file.raw_os_error(), Some(libc::ENOTDIR));
    }

    #[test]
    fn what_a_process_has_open_is_where_a_walk_ends() {
        let route = walk(Path::new("/proc/self/fd/0")).unwrap();
        assert_eq!(route.end, PathBuf::from(format!("/proc/{}/fd/0", std::process::id())));
    }

    #[test]
    fn what_is_missing_would_be_made_in_the_last_folder() {
        let folder = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir(base.join("there")).unwrap();
        symlink("there/gone.log", base.join("link")).unwrap();
        for (path, last) in [("there/a/b.log", "there"), ("link", "there"), ("gone/../there/b.log", "")] {
            let route = walk(&base.join(path)).unwrap();
            assert!(route.found.is_none(), "{path}");
            assert_eq!(
                route.end.components().collect::<PathBuf>(),
                base.join(last).components().collect::<PathBuf>()
            );
            assert_eq!(route.folders.last().unwrap().path, route.end, "{path}");
        }
    }
}
