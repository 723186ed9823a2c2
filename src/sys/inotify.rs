//! inotify(7): word of files that change in folders. One queue for each who wants to know.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// A folder that is watched, by its number within the queue. The kernel counts up and does not use one again.
pub type Watch = WatchDescriptor;

/// What is to be told of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Which names come and go.
    Names,
    /// That, and which files were written.
    Writes,
}

/// What happened to a name in a folder, or to the folder itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Made,
    /// It came from elsewhere, maybe in place of another one.
    Came,
    /// A file that was open for writing was closed.
    Written,
    /// It was removed, or went elsewhere.
    Left,
    /// The folder itself was removed, or moved, or what it lies on was unmounted.
    FolderLeft,
    /// The kernel forgot the watch, because the folder is gone.
    Forgotten,
    /// More happened than the queue holds (fs.inotify.max_queued_events): some of it is not told.
    Overflow,
}

/// One entry of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// In which folder; without meaning for [`Change::Overflow`].
    pub watch: Watch,
    /// What.
    pub change: Change,
    /// To which name; none where it is about the folder itself.
    pub name: Option<OsString>,
    /// The name is a folder's.
    pub is_folder: bool,
}

/// A queue of changes, and the folders that they are told of.
#[derive(Debug)]
pub struct Queue {
    inotify: Inotify,
}

impl Queue {
    /// An empty one, which does not block.
    ///
    /// # Errors
    /// EMFILE: the user has no more of them (fs.inotify.max_user_instances), or the process no more descriptors.
    pub fn new() -> io::Result<Queue> {
        Ok(Queue { inotify: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)? })
    }

    /// Watches a folder, beside what is told of it already. `follow`: also when the path's last part is a symbolic
    /// link.
    ///
    /// # Errors
    /// ENOSPC: the user watches as much as may be (fs.inotify.max_user_watches). ENOTDIR, ENOENT, EACCES as with
    /// every path.
    pub fn add(&self, folder: &Path, depth: Depth, follow: bool) -> io::Result<Watch> {
        let mut mask = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);
        if depth == Depth::Writes {
            mask |= AddWatchFlags::IN_CLOSE_WRITE;
        }
        if !follow {
            mask |= AddWatchFlags::IN_DONT_FOLLOW;
        }
        Ok(self.inotify.add_watch(folder, mask)?)
    }

    /// Watches what is under a path itself, not through a link: that it loses its name or goes elsewhere. Which of both
    /// it was is not told apart: [`Queue::heard`] says that something was.
    ///
    /// # Errors
    /// As with [`Queue::add`].
    pub fn add_place(&self, path: &Path) -> io::Result<()> {
        let mut mask =
            AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_DONT_FOLLOW;
        if !path.is_dir() {
            // Of a file that somebody has open the number of names is all that changes when it is removed. Of a
            // folder this would tell of each change in it.
            mask |= AddWatchFlags::IN_ATTRIB;
        }
        self.inotify.add_watch(path, mask)?;
        Ok(())
    }

    /// Takes all entries; whether there were any. What cannot be read counts as one.
    pub fn heard(&self) -> bool {
        let mut any = false;
        loop {
            match self.inotify.read_events() {
                Ok(_) => any = true,
                Err(nix::Error::EINTR) => {}
                Err(error) => return any || error != nix::Error::EAGAIN,
            }
        }
    }

    /// Does not watch a folder any more. One that is gone is not watched in any case.
    pub fn remove(&self, watch: Watch) {
        // EINVAL: it is gone; nothing else can be wrong with a number that the queue gave.
        let _ = self.inotify.rm_watch(watch);
    }

    /// The next few entries; none when there are none.
    ///
    /// # Errors
    /// The errno of read(2).
    pub fn read(&self) -> io::Result<Vec<Event>> {
        match self.inotify.read_events() {
            Ok(events) => Ok(events
                .into_iter()
                .filter_map(|event| {
                    let change = change(event.mask)?;
                    let is_folder = event.mask.contains(AddWatchFlags::IN_ISDIR);
                    Some(Event { watch: event.wd, change, name: event.name, is_folder })
                })
                .collect()),
            Err(nix::Error::EAGAIN) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

fn change(mask: AddWatchFlags) -> Option<Change> {
    let table = [
        (AddWatchFlags::IN_Q_OVERFLOW, Change::Overflow),
        (AddWatchFlags::IN_IGNORED, Change::Forgotten),
        (AddWatchFlags::IN_DELETE_SELF, Change::FolderLeft),
        (AddWatchFlags::IN_MOVE_SELF, Change::FolderLeft),
        (AddWatchFlags::IN_UNMOUNT, Change::FolderLeft),
        (AddWatchFlags::IN_CREATE, Change::Made),
        (AddWatchFlags::IN_MOVED_TO, Change::Came),
        (AddWatchFlags::IN_CLOSE_WRITE, Change::Written),
        (AddWatchFlags::IN_DELETE, Change::Left),
        (AddWatchFlags::IN_MOVED_FROM, Change::Left),
    ];
    table.into_iter().find(|(flag, _)| mask.contains(*flag)).map(|(_, change)| change)
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_happens_in_a_folder_is_told_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new().expect("a queue");
        assert_eq!(queue.read().expect("an empty queue does not block"), []);
        let watch = queue.add(folder.path(), Depth::Writes, true).expect("a folder");
        fs::write(folder.path().join("a"), "x").unwrap();
        fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        fs::create_dir(folder.path().join("c")).unwrap();
        fs::remove_dir(folder.path().join("c")).unwrap();
        let told: Vec<_> = queue.read().expect("events").into_iter().collect();
        let found: Vec<_> = told
            .iter()
            .map(|event| (event.change, event.name.as_ref().and_then(|name| name.to_str()), event.is_folder))
            .collect();
        assert!(told.iter().all(|event| event.watch == watch));
        assert_eq!(
            found,
            [
                (Change::Made, Some("a"), false),
                (Change::Written, Some("a"), false),
                (Change::Left, Some("a"), false),
                (Change::Came, Some("b"), false),
                (Change::Made, Some("c"), true),
                (Change::Left, Some("c"), true),
            ]
        );
    }

    #[test]
    fn a_file_that_is_open_and_loses_its_name_is_told_of_and_its_neighbours_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("a"), folder.path().join("b"));
        let _open = std::os::unix::net::UnixListener::bind(&file).unwrap();
        let queue = Queue::new().expect("a queue");
        queue.add_place(&file).expect("a file");
        queue.add_place(folder.path()).expect("a folder");
        fs::write(&other, "x").unwrap();
        fs::remove_file(&other).unwrap();
        assert!(!queue.heard());
        fs::remove_file(&file).unwrap();
        assert!(queue.heard());
        assert!(!queue.heard());
        let aside = tempfile::tempdir().unwrap();
        fs::rename(folder.path(), aside.path().join("c")).unwrap();
        assert!(queue.heard());
    }

    #[test]
    fn a_link_is_followed_only_when_it_is_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let queue = Queue::new().expect("a queue");
        assert!(queue.add(&link, Depth::Names, false).is_err());
        assert!(queue.add(&link, Depth::Names, true).is_ok());
    }
}
