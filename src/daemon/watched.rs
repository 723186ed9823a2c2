//! The files that one app's `watch` names: which folders the kernel is asked about, and what has changed since
//! anybody was told. Knows nothing of apps; what is made of a change is decided elsewhere.
//!
//! Every folder is watched before it is read, so that nothing is missed in between: what was made in a folder before
//! it was watched is found by reading it. Symbolic links are followed where `watch` names them, and nowhere below.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, ReadDir};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::glob::{self, Glob};
use crate::config::ignore::Rules;
use crate::sys::inotify::{Change, Depth, Event, Queue, Watch};

/// Folders that are watched for one app.
pub(super) const MOST_FOLDERS: usize = 100_000;

/// Links that one path may lead through, as many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Files whose change is remembered by name; of more it is only known that they changed.
const MOST_FILES: usize = 1024;

/// Looks at the queue in one turn: each is of some 80 to 250 entries.
const LOOKS: usize = 32;

/// Entries of folders that are read in one turn.
const ENTRIES: usize = 1000;

/// Why files cannot be watched.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The user has no more queues (EMFILE of inotify_init1(2)).
    Queues,
    /// The user watches as much as may be (ENOSPC of inotify_add_watch(2)).
    Folders,
    /// There are more than [`MOST_FOLDERS`].
    TooMany,
    /// Something else.
    Other(io::Error),
}

/// One path that `watch` names.
#[derive(Debug)]
struct Root {
    /// As it is named, absolute.
    path: PathBuf,
    /// What is meant of what lies below it; none for all of it.
    glob: Option<Glob>,
    /// Where that leads to, links followed; none while nothing is there.
    real: Option<PathBuf>,
    /// The folder, and the name in it, by which it comes and goes.
    anchors: Vec<(PathBuf, OsString)>,
}

/// A folder that the kernel was asked about.
#[derive(Debug)]
struct Folder {
    watch: Watch,
    /// The root whose files lie in it; none where it is watched only for the names of roots.
    root: Option<usize>,
    /// Names in it by which roots come and go.
    names: BTreeSet<OsString>,
}

/// A folder that is to be watched and read.
#[derive(Debug)]
struct Scan {
    path: PathBuf,
    root: usize,
    /// It came after the beginning: its files are changes.
    fresh: bool,
}

/// What clusterd itself writes: no change of these is one.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Folders, all that is in them.
    pub(super) folders: Vec<PathBuf>,
    /// Files, with their variants of instances and rotation.
    pub(super) files: Vec<PathBuf>,
}

/// What changed since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// True: it was not there before, so that it was never, should it go again.
    files: BTreeMap<PathBuf, bool>,
    /// More than can be remembered, or than the kernel told.
    more: bool,
    /// Changes that were told.
    count: u64,
}

/// All of it, for one app.
#[derive(Debug)]
pub(super) struct Watched {
    queue: Queue,
    rules: Rules,
    own: Own,
    roots: Vec<Root>,
    folders: BTreeMap<PathBuf, Folder>,
    by_watch: HashMap<Watch, Vec<PathBuf>>,
    scans: VecDeque<Scan>,
    reading: Option<(Scan, ReadDir)>,
    changes: Changes,
}

impl Own {
    /// Paths as they really are, as far as they are there.
    pub(super) fn resolved(self) -> Own {
        let file = |path: PathBuf| match (path.parent().map(fs::canonicalize), path.file_name()) {
            (Some(Ok(folder)), Some(name)) => folder.join(name),
            _ => path,
        };
        let folders = self.folders.into_iter().map(|path| fs::canonicalize(&path).unwrap_or(path));
        Own { folders: folders.collect(), files: self.files.into_iter().map(file).collect() }
    }

    fn has(&self, path: &Path, root: &Path) -> bool {
        // Who watches a file inside one of these folders means it.
        let inside = |folder: &&PathBuf| !root.starts_with(folder) && path.starts_with(folder);
        self.folders.iter().any(|folder| inside(&folder)) || self.files.iter().any(|own| is_of(path, own))
    }
}

/// Whether it is this file, one of its instances (`out-0.log`), rotated (`out.log.1`) or about to be (`.out.log.7`).
fn is_of(path: &Path, own: &Path) -> bool {
    let (Some(name), Some(stem)) = (path.file_name(), own.file_stem()) else { return false };
    let extension = own.extension().map(|ext| [b".", ext.as_bytes()].concat()).unwrap_or_default();
    let name = name.as_bytes();
    let Some(rest) = name.strip_prefix(stem.as_bytes()).filter(|_| path.parent() == own.parent()) else {
        return false;
    };
    let digits = |rest: &[u8]| rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = match rest.strip_prefix(b"-") {
        Some(number) if digits(number) > 0 => &number[digits(number)..],
        Some(_) | None => rest,
    };
    rest.strip_prefix(extension.as_slice())
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'.' | b'-')))
}

impl Root {
    fn new(cwd: &Path, path: &str) -> Root {
        // Frameworks call files `[id].js`.
        let is_there = || cwd.join(path).symlink_metadata().is_ok();
        let (path, glob) = match glob::split(path).filter(|_| !is_there()) {
            Some((folder, glob)) => (folder, Some(glob)),
            None => (path, None),
        };
        Root { path: cwd.join(path).components().collect(), glob, real: None, anchors: Vec::new() }
    }

    /// Whether it means this file or folder, which lies below it at `below`.
    fn fits(&self, below: &Path) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.fits(below.as_os_str().as_bytes()))
    }

    /// Whether what it means may lie in this folder.
    fn leads(&self, below: &Path) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.leads(below.as_os_str().as_bytes()))
    }
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.more
    }

    /// How many were told since it was last taken, those that cancel each other out among them.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn note(&mut self, path: PathBuf, change: Change) {
        self.count += 1;
        let left = change == Change::Left;
        match self.files.get(&path) {
            // It was not there before, and is not now: an editor tried whether it may write here.
            Some(true) if left => {
                self.files.remove(&path);
            }
            Some(_) => {}
            None if self.files.len() >= MOST_FILES => self.more = true,
            None => {
                self.files.insert(path, change == Change::Made);
            }
        }
    }

    /// The first of them, and how many others; none when they are not known by name. Rather a file than the folder
    /// that it came with.
    pub(super) fn told(&self) -> Option<(&Path, usize)> {
        let next = self.files.keys().skip(1).map(Some).chain([None]);
        let mut pairs = self.files.keys().zip(next);
        let (first, _) = pairs.find(|(path, next)| next.is_none_or(|next| !next.starts_with(path)))?;
        Some((first, self.files.len() - 1))
    }
}

impl Watched {
    /// Asks about these files and folders, which begin at `cwd`; the folders are read by [`Watched::scan`].
    pub(super) fn new(cwd: &Path, paths: &[String], rules: Rules, own: Own) -> Result<Watched, Trouble> {
        let queue = Queue::new().map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE) => Trouble::Queues,
            Some(_) | None => Trouble::Other(error),
        })?;
        let roots = paths.iter().map(|path| Root::new(cwd, path));
        let mut watched = Watched {
            queue,
            rules,
            own,
            roots: roots.collect(),
            folders: BTreeMap::new(),
            by_watch: HashMap::new(),
            scans: VecDeque::new(),
            reading: None,
            changes: Changes::default(),
        };
        for root in 0..watched.roots.len() {
            watched.look(root, false)?;
        }
        Ok(watched)
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.queue.as_raw_fd()
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Paths that are not there.
    pub(super) fn missing(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().filter(|root| root.real.is_none()).map(|root| root.path.as_path())
    }

    /// Whether folders are still to be read.
    pub(super) fn is_scanning(&self) -> bool {
        self.reading.is_some() || !self.scans.is_empty()
    }

    /// Takes what the kernel tells. True when it has more than one turn's share.
    pub(super) fn collect(&mut self) -> Result<bool, Trouble> {
        for _ in 0..LOOKS {
            let events = self.queue.read().map_err(Trouble::Other)?;
            if events.is_empty() {
                return Ok(false);
            }
            for event in events {
                self.take(event)?;
            }
        }
        Ok(true)
    }

    /// Reads on in the folders, as far as one turn's share goes.
    pub(super) fn scan(&mut self) -> Result<(), Trouble> {
        for _ in 0..ENTRIES {
            let Some((scan, entries)) = &mut self.reading else {
                match self.scans.pop_front() {
                    Some(scan) => self.enter(scan)?,
                    None => return Ok(()),
                }
                continue;
            };
            let Some(entry) = entries.next() else {
                self.reading = None;
                continue;
            };
            let Ok(entry) = entry else { continue };
            let (path, root, fresh) = (entry.path(), scan.root, scan.fresh);
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder {
                // The others that lead there read this folder themselves.
                if self.is_below(&path, root, true, Root::leads) {
                    self.scan_later(Scan { path, root, fresh })?;
                }
            } else if fresh && self.is_below(&path, root, false, Root::fits) {
                self.changes.note(path, Change::Came);
            }
        }
        Ok(())
    }

    fn scan_later(&mut self, scan: Scan) -> Result<(), Trouble> {
        if self.folders.len() + self.scans.len() >= MOST_FOLDERS {
            return Err(Trouble::TooMany);
        }
        self.scans.push_back(scan);
        Ok(())
    }

    /// Watches a folder, and begins to read it. What cannot be read any more is gone, or nobody's business.
    fn enter(&mut self, scan: Scan) -> Result<(), Trouble> {
        let is_root = self.roots[scan.root].path == scan.path;
        if self.watch(&scan.path, Depth::Writes, is_root, Some(scan.root), None)?
            && let Ok(entries) = fs::read_dir(&scan.path)
        {
            self.reading = Some((scan, entries));
        }
        Ok(())
    }

    /// False where there is no folder, or none that we may look into.
    fn watch(
        &mut self,
        path: &Path,
        depth: Depth,
        follow: bool,
        root: Option<usize>,
        name: Option<&OsStr>,
    ) -> Result<bool, Trouble> {
        let watch = match self.queue.add(path, depth, follow) {
            Ok(watch) => watch,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Err(Trouble::Folders),
            Err(error) => {
                log::debug!("watch: {}: {error}", path.display());
                return Ok(false);
            }
        };
        if self.folders.get(path).is_some_and(|known| known.watch != watch) {
            // Another folder of the same name.
            self.leave(path);
        }
        let known = self.folders.entry(path.to_owned());
        let folder = known.or_insert_with(|| Folder { watch, root: None, names: BTreeSet::new() });
        folder.root = root.or(folder.root);
        folder.names.extend(name.map(OsStr::to_owned));
        let paths = self.by_watch.entry(watch).or_default();
        if !paths.iter().any(|known| known == path) {
            paths.push(path.to_owned());
        }
        Ok(true)
    }

    /// This folder is not watched under this path any more.
    fn leave(&mut self, path: &Path) {
        let Some(folder) = self.folders.remove(path) else { return };
        if let Some(paths) = self.by_watch.get_mut(&folder.watch) {
            paths.retain(|known| known != path);
            if paths.is_empty() {
                self.by_watch.remove(&folder.watch);
                self.queue.remove(folder.watch);
            }
        }
    }

    /// Nor are those below it.
    fn leave_all(&mut self, path: &Path) {
        let below = self.folders.range(path.to_owned()..).take_while(|(known, _)| known.starts_with(path));
        let gone: Vec<PathBuf> = below.map(|(known, _)| known.clone()).collect();
        for path in gone {
            self.leave(&path);
        }
        self.scans.retain(|scan| !scan.path.starts_with(path));
        if self.reading.as_ref().is_some_and(|(scan, _)| scan.path.starts_with(path)) {
            self.reading = None;
        }
    }

    /// Looks at what is there under a path that `watch` names, now and from now on. `fresh`: what is found there is a
    /// change.
    fn look(&mut self, root: usize, fresh: bool) -> Result<(), Trouble> {
        let path = self.roots[root].path.clone();
        let anchors = self.anchor(&path)?;
        self.roots[root].anchors = anchors;
        let real = fs::canonicalize(&path).ok();
        let was = std::mem::replace(&mut self.roots[root].real, real.clone());
        let Some(real) = real else {
            self.leave_tree(root);
            return Ok(());
        };
        if was.as_ref().is_some_and(|was| *was != real) {
            self.leave_tree(root);
        }
        let is_named = self.roots[root].glob.is_none();
        if fresh && is_named {
            self.changes.note(path.clone(), Change::Came);
        }
        if real.is_dir() {
            return self.scan_later(Scan { path, root, fresh });
        }
        if !is_named {
            // A pattern below something that is no folder means nothing.
            return Ok(());
        }
        // The link stays when the file that it names is written.
        if let (Some(folder), Some(name)) = (real.parent(), real.file_name())
            && self.watch(folder, Depth::Writes, true, None, Some(name))?
        {
            self.roots[root].anchors.push((folder.to_owned(), name.to_owned()));
        }
        Ok(())
    }

    fn leave_tree(&mut self, root: usize) {
        let of_root = self.folders.iter().filter(|(_, folder)| folder.root == Some(root));
        let gone: Vec<PathBuf> = of_root.map(|(path, _)| path.clone()).collect();
        for path in gone {
            match self.folders.get_mut(&path) {
                Some(folder) if !folder.names.is_empty() => folder.root = None,
                Some(_) | None => self.leave(&path),
            }
        }
        self.scans.retain(|scan| scan.root != root);
        self.reading.take_if(|(scan, _)| scan.root == root);
    }

    /// Watches the folder that a path comes and goes in, its own, or as far up as there is one; and those of the
    /// links that it leads through: a release that is exchanged brings another folder under the same path.
    fn anchor(&mut self, path: &Path) -> Result<Vec<(PathBuf, OsString)>, Trouble> {
        let mut anchors = Vec::new();
        for at in path.ancestors() {
            let (Some(folder), Some(name)) = (at.parent(), at.file_name()) else { break };
            // A file is written in its folder.
            let depth = if at == path && !path.is_dir() { Depth::Writes } else { Depth::Names };
            if self.watch(folder, depth, true, None, Some(name))? {
                anchors.push((folder.to_owned(), name.to_owned()));
                break;
            }
        }
        for link in links(path) {
            let (Some(folder), Some(name)) = (link.parent(), link.file_name()) else { continue };
            let anchor = (folder.to_owned(), name.to_owned());
            if !anchors.contains(&anchor) && self.watch(folder, Depth::Names, true, None, Some(name))? {
                anchors.push(anchor);
            }
        }
        Ok(anchors)
    }

    fn take(&mut self, event: Event) -> Result<(), Trouble> {
        if event.change == Change::Overflow {
            self.changes.more = true;
            self.changes.count += 1;
            return self.look_at_all();
        }
        let Some(paths) = self.by_watch.get(&event.watch).cloned() else { return Ok(()) };
        for folder in paths {
            match (&event.name, event.change) {
                (_, Change::FolderLeft | Change::Forgotten) => self.folder_left(&folder)?,
                (Some(name), change) => self.named(&folder, name, change, event.is_folder)?,
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Something may have been missed: all is looked at anew.
    fn look_at_all(&mut self) -> Result<(), Trouble> {
        for root in 0..self.roots.len() {
            self.look(root, false)?;
        }
        Ok(())
    }

    /// A folder is gone from its path. Of one below a root its own folder tells, too.
    fn folder_left(&mut self, path: &Path) -> Result<(), Trouble> {
        let Some(folder) = self.folders.get(path) else { return Ok(()) };
        let concerned: Vec<usize> = (0..self.roots.len())
            .filter(|root| {
                let root = &self.roots[*root];
                root.path == path || root.anchors.iter().any(|(anchor, _)| anchor == path)
            })
            .collect();
        if concerned.is_empty() && folder.root.is_some() && folder.names.is_empty() {
            return Ok(());
        }
        self.leave(path);
        for root in concerned {
            let was = self.roots[root].real.is_some();
            self.look(root, !was)?;
        }
        Ok(())
    }

    fn named(&mut self, folder: &Path, name: &OsStr, change: Change, is_folder: bool) -> Result<(), Trouble> {
        let Some(known) = self.folders.get(folder) else { return Ok(()) };
        let (tree, is_anchor) = (known.root, known.names.contains(name));
        if is_anchor {
            self.root_changed(folder, name, change)?;
        }
        let Some(tree) = tree else { return Ok(()) };
        let path = folder.join(name);
        if is_folder {
            self.folder_changed(&path, tree, change)?;
        }
        if self.wanted(&path, tree, is_folder, Root::fits).next().is_some() {
            self.changes.note(path, change);
        }
        Ok(())
    }

    /// A folder below a root came or went.
    fn folder_changed(&mut self, path: &Path, tree: usize, change: Change) -> Result<(), Trouble> {
        let roots: Vec<usize> = self.wanted(path, tree, true, Root::leads).collect();
        match change {
            Change::Left if roots.is_empty() => {}
            Change::Left => {
                self.leave_all(path);
                // Those that lie in it are found again from further up.
                for root in 0..self.roots.len() {
                    if self.roots[root].path.parent().is_some_and(|folder| folder.starts_with(path)) {
                        self.look(root, true)?;
                    }
                }
            }
            Change::Made | Change::Came => {
                for root in roots {
                    self.scan_later(Scan { path: path.to_owned(), root, fresh: true })?;
                }
            }
            Change::Written | Change::FolderLeft | Change::Forgotten | Change::Overflow => {}
        }
        Ok(())
    }

    /// A name by which roots come and go, came, went or was written.
    fn root_changed(&mut self, folder: &Path, name: &OsStr, change: Change) -> Result<(), Trouble> {
        for root in 0..self.roots.len() {
            let by = |(anchor, known): &(PathBuf, OsString)| anchor == folder && known == name;
            if !self.roots[root].anchors.iter().any(by) {
                continue;
            }
            match change {
                Change::Written if self.roots[root].glob.is_some() => {}
                Change::Written => {
                    // Beside a folder of this name there is no file of it.
                    let path = self.roots[root].path.clone();
                    self.changes.note(path, change);
                }
                // While it is gone, there is nothing that could be started.
                Change::Left => self.look(root, false)?,
                Change::Made | Change::Came => self.look(root, true)?,
                Change::FolderLeft | Change::Forgotten | Change::Overflow => {}
            }
        }
        Ok(())
    }

    /// Who wants to know of it: the root that its folder is watched for, and others that lead there.
    fn wanted(
        &self,
        path: &Path,
        tree: usize,
        is_folder: bool,
        by: fn(&Root, &Path) -> bool,
    ) -> impl Iterator<Item = usize> {
        let leads_to = move |root: &usize| {
            let mut folders = path.ancestors().skip(1).take_while(|at| *at != self.roots[*root].path);
            *root == tree || folders.all(|folder| self.is_below(folder, *root, true, Root::leads))
        };
        let roots = (0..self.roots.len()).filter(leads_to);
        roots.filter(move |root| self.is_below(path, *root, is_folder, by))
    }

    /// Whether it lies below this root, in a folder that is looked into, and is not ignored.
    fn is_below(&self, path: &Path, root: usize, is_folder: bool, by: fn(&Root, &Path) -> bool) -> bool {
        let Root { path: named, real: Some(real), .. } = &self.roots[root] else { return false };
        let Ok(below) = path.strip_prefix(named) else { return false };
        by(&self.roots[root], below)
            && !self.rules.ignores(below.as_os_str().as_bytes(), is_folder)
            && !self.own.has(&real.join(below), real)
    }
}

/// The symbolic links that an absolute path leads through, and theirs (symlink(7)).
fn links(path: &Path) -> Vec<PathBuf> {
    let words = |path: &Path| path.components().rev().map(|word| word.as_os_str().to_owned()).collect();
    let mut found = Vec::new();
    let mut rest: Vec<OsString> = words(path);
    let mut at = PathBuf::new();
    while let Some(word) = rest.pop() {
        if word == "." {
            continue;
        }
        if word == ".." {
            at.pop();
            continue;
        }
        at.push(word);
        let Ok(target) = fs::read_link(&at) else { continue };
        if found.len() == MOST_LINKS {
            break;
        }
        found.push(at.clone());
        at.pop();
        // An absolute one begins with the root, which `push` takes for all.
        rest.extend(words(&target));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_of_a_path_are_found_however_they_lead() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let top = fs::canonicalize(folder.path()).expect("it is there");
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, top.join(name)).expect("free");
        fs::create_dir_all(top.join("releases/1/src")).expect("free");
        link("releases/1", "stable");
        link("./stable", "current");
        link(&top.join("current").display().to_string(), "releases/1/self");
        link("loop", "loop");
        let found = |path: &str| -> Vec<PathBuf> {
            let strip = |link: PathBuf| link.strip_prefix(&top).expect("all are there").to_owned();
            links(&top.join(path)).into_iter().map(strip).collect()
        };
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(found("releases/1/src"), paths(&[]));
        assert_eq!(found("current/src"), paths(&["current", "stable"]));
        assert_eq!(
            found("stable/self/../current/gone"),
            paths(&["stable", "releases/1/self", "current", "stable"])
        );
        assert_eq!(found("loop/src").len(), MOST_LINKS);
    }

    fn all(watched: &mut Watched) -> Vec<PathBuf> {
        loop {
            let more = watched.collect().expect("the kernel tells");
            watched.scan().expect("folders of the test");
            if !more && !watched.is_scanning() {
                return watched.take_changes().files.into_keys().collect();
            }
        }
    }

    fn watching(folder: &Path) -> Watched {
        let mut watched =
            Watched::new(folder, &[".".to_owned()], Rules::default(), Own::default()).expect("a queue");
        assert_eq!(all(&mut watched), Vec::<PathBuf>::new(), "what was there is no change");
        watched
    }

    #[test]
    fn a_file_of_clusterd_is_known_with_its_instances_and_rotations() {
        let own = Path::new("/srv/out.log");
        for (name, expected) in [
            ("out.log", true),
            ("out-0.log", true),
            ("out-12.log.3", true),
            ("out.log.1.gz", true),
            ("out.log-2026", true),
            ("out.js", false),
            ("output.log", false),
            ("out-x.log", false),
            ("out.logs", false),
        ] {
            assert_eq!(is_of(&Path::new("/srv").join(name), own), expected, "{name}");
        }
        assert!(!is_of(Path::new("/srv/x/out.log"), own));
    }

    #[test]
    fn what_came_and_went_is_no_change_and_what_was_there_and_went_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("old");
        fs::write(&old, "").unwrap();
        let mut watched = watching(folder.path());
        fs::write(folder.path().join("4913"), "").unwrap();
        fs::remove_file(folder.path().join("4913")).unwrap();
        assert_eq!(all(&mut watched), Vec::<PathBuf>::new());
        fs::remove_file(&old).unwrap();
        assert_eq!(all(&mut watched), [old]);
    }

    /// Each by itself, where they lie in one another, and in folders that come later.
    #[test]
    fn patterns_are_told_of_what_they_fit_and_of_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let names = ["src/lib", "src/node_modules", "pages", "one/src", "two/lib"];
        names.iter().for_each(|name| fs::create_dir_all(at(name)).unwrap());
        fs::write(at("pages/[id].js"), "").unwrap();
        let paths = [
            "src/**/*.js",
            "src/**/*.json",
            "src/lib/*.css",
            "src/a/b/data",
            "*.toml",
            "pages/[id].js",
            "*/src",
            "gone/*.js",
        ];
        let paths = paths.map(str::to_owned);
        let rules = Rules::new(&[]);
        let mut watched = Watched::new(folder.path(), &paths, rules, Own::default()).expect("a queue");
        assert_eq!(watched.missing().collect::<Vec<_>>(), [at("src/a/b/data"), at("gone")]);
        assert_eq!(all(&mut watched), Vec::<PathBuf>::new());
        assert!(!watched.folders.contains_key(&at("two/lib")), "nothing that is meant can lie there");
        let mut told = |names: &[&str], expected: &[&str]| {
            for name in names {
                fs::create_dir_all(at(name).parent().unwrap()).unwrap();
                fs::write(at(name), "x").unwrap();
            }
            let expected: Vec<PathBuf> = expected.iter().map(|name| at(name)).collect();
            assert_eq!(all(&mut watched), expected, "{names:?}");
        };
        told(&["src/a.css", "src/lib/x/a.css", "src/node_modules/a.js", "a.js", "two/lib/a"], &[]);
        told(&["src/a.js", "src/a.json"], &["src/a.js", "src/a.json"]);
        told(&["src/lib/a.js", "src/lib/a.json"], &["src/lib/a.js", "src/lib/a.json"]);
        told(&["src/lib/a.css", "a.toml"], &["a.toml", "src/lib/a.css"]);
        told(
            &["src/new/deep/a.js", "src/new/a.json", "src/new/a.css"],
            &["src/new/a.json", "src/new/deep/a.js"],
        );
        told(&["pages/i.js"], &[]);
        told(&["pages/[id].js"], &["pages/[id].js"]);
        told(&["one/src/deep/a.txt"], &["one/src/deep", "one/src/deep/a.txt"]);
        told(&["gone/a.js", "gone/a.css"], &["gone/a.js"]);
        told(&["src/a/b/data"], &["src/a/b/data"]);
        fs::rename(at("src/a"), at("aside")).unwrap();
        told(&[], &[]);
        told(&["src/a/b/data"], &["src/a/b/data"]);
        told(&["src/a/b/data"], &["src/a/b/data"]);
    }

    /// More than the kernel keeps for us: that is a change, and what came meanwhile is watched.
    #[test]
    fn an_overflow_is_a_change_and_nothing_is_missed_after_it() {
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut watched = watching(folder.path());
        for number in 0..=limit / 2 {
            // The kernel folds events that are the same as the last one.
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        let late = folder.path().join("late");
        fs::create_dir(&late).unwrap();
        while watched.collect().expect("the kernel tells") || watched.is_scanning() {
            watched.scan().expect("a folder of the test");
        }
        watched.scan().expect("a folder of the test");
        assert!(watched.take_changes().more);
        fs::write(late.join("a"), "").unwrap();
        assert_eq!(all(&mut watched), [late.join("a")]);
    }
}
