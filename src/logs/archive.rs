//! Old log files are compressed, and those that are too many removed: in one thread beside the loop, which gives
//! way to everything else and ends when there is nothing to do.
//!
//! The thread takes no signals and has descriptors of its own: those of the loop are not its business.
//!
//! A compressed file has its name when it is whole and on the disk, and only then the other one goes. What a crash
//! leaves half done is done again with the file's next rotation. Refuses to touch what `rotation` does not know as
//! an old log file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::family;
use super::rotation::{self, COMPRESSED, Old, PARTIAL};
use super::totals::Total;
use crate::config::logs::Rotation;
use crate::supervisor::event::AppId;
use crate::sys::behalf::Behalf;
use crate::sys::{clock, rotate};

/// Files that wait; of more the next rotation takes care.
const QUEUE_LIMIT: usize = 4096;

/// Failures that wait to be told.
const NOTICE_LIMIT: usize = 16;

/// Bytes that are read at a time.
const PIECE: usize = 64 * 1024;

/// What the thread may need for its calls, of which it takes what it uses: the compressor is made on the stack.
const STACK: usize = 2 * 1024 * 1024;

/// Takes care of old log files.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: VecDeque<Chore>,
    runs: bool,
    notices: Vec<String>,
}

/// What is to be done.
#[derive(Debug)]
enum Chore {
    /// The old files of this one are compressed, or too many.
    File(PathBuf, Rotation, Behalf),
    /// Those of an app take too much together.
    Total(AppId, Total),
}

impl Chore {
    /// The same chore, whatever is known of it.
    fn is_for(&self, other: &Chore) -> bool {
        match (self, other) {
            (Chore::File(path, ..), Chore::File(other, ..)) => path == other,
            (Chore::Total(app, _), Chore::Total(other, _)) => app == other,
            (Chore::File(..), Chore::Total(..)) | (Chore::Total(..), Chore::File(..)) => false,
        }
    }
}

impl Archive {
    /// Has the old files of this one looked after, with these rights.
    pub fn tend(&self, path: &Path, rotation: Rotation, behalf: &Behalf) {
        self.add(Chore::File(path.to_owned(), rotation, behalf.clone()));
    }

    /// Has the oldest files of an app removed where all of them together take too much.
    pub fn cap(&self, app: AppId, total: Total) {
        self.add(Chore::Total(app, total));
    }

    fn add(&self, chore: Chore) {
        let mut shared = lock(&self.shared);
        if shared.queue.len() >= QUEUE_LIMIT {
            return;
        }
        match shared.queue.iter_mut().find(|queued| queued.is_for(&chore)) {
            Some(queued) => *queued = chore,
            None => shared.queue.push_back(chore),
        }
        if shared.runs {
            return;
        }
        let theirs = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("old-logs".to_owned()).stack_size(STACK);
        match rotate::without_signals(|| thread.spawn(move || work(&theirs))).and_then(|begun| begun) {
            Ok(_) => shared.runs = true,
            Err(error) => shared.tell(format!("old log files wait: no thread to compress them: {error}")),
        }
    }

    /// What failed since the last call.
    pub fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared).notices)
    }
}

impl Shared {
    /// Of what waits, that which is about these files.
    fn take_files(&mut self, paths: &BTreeMap<PathBuf, Behalf>) -> Vec<(PathBuf, Rotation, Behalf)> {
        let mut taken = Vec::new();
        self.queue.retain(|chore| match chore {
            Chore::File(path, rotation, behalf) if paths.contains_key(path) => {
                taken.push((path.clone(), *rotation, behalf.clone()));
                false
            }
            Chore::File(..) | Chore::Total(..) => true,
        });
        taken
    }

    fn tell(&mut self, notice: String) {
        if self.notices.len() < NOTICE_LIMIT {
            self.notices.push(notice);
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(shared: &Mutex<Shared>) {
    if let Err(error) = rotate::take_own_descriptors(None).and_then(|()| rotate::give_way()) {
        let mut shared = lock(shared);
        shared.tell(format!("old log files are neither compressed nor removed: {error}"));
        shared.queue.clear();
        shared.runs = false;
        return;
    }
    loop {
        let next = {
            let mut shared = lock(shared);
            let next = shared.queue.pop_front();
            shared.runs = next.is_some();
            next
        };
        let failures = match next {
            None => return,
            Some(Chore::File(path, rotation, behalf)) => tend_for(&behalf, &path, &rotation),
            Some(Chore::Total(_, total)) => {
                let (paths, mut failures) = really(&total);
                // How much they take is known when they are compressed.
                let waiting = lock(shared).take_files(&paths);
                failures.extend(
                    waiting.iter().flat_map(|(path, rotation, behalf)| tend_for(behalf, path, rotation)),
                );
                let others = others(&total);
                failures.extend(cap(&paths, &others, total.limit));
                failures
            }
        };
        failures.into_iter().for_each(|failure| lock(shared).tell(failure));
    }
}

/// With the rights that belong to a file.
fn acting_for(behalf: &Behalf, path: &Path, act: impl FnOnce() -> Vec<String>) -> Vec<String> {
    match behalf.begin() {
        Ok(_guise) => act(),
        Err(error) => vec![format!("old log files of {}: not as the app's user: {error}", path.display())],
    }
}

fn tend_for(behalf: &Behalf, path: &Path, rotation: &Rotation) -> Vec<String> {
    acting_for(behalf, path, || tend(path, rotation))
}

/// Where the files of an app really are; what failed, in words.
fn really(total: &Total) -> (BTreeMap<PathBuf, Behalf>, Vec<String>) {
    let (mut paths, mut failures) = (BTreeMap::new(), Vec::new());
    for (path, behalf) in total.paths.iter() {
        failures.extend(acting_for(behalf, path, || {
            paths.insert(rotate::real(path).unwrap_or_else(|_| path.clone()), behalf.clone());
            Vec::new()
        }));
    }
    (paths, failures)
}

/// What other apps' files are called, wherever they are: a folder may have several names.
fn others(total: &Total) -> BTreeSet<&OsStr> {
    total
        .all
        .iter()
        .filter(|path| !total.paths.contains_key(*path))
        .filter_map(|path| path.file_name())
        .collect()
}

/// Removes the oldest files of these until the others take no more than that; what failed, in words.
fn cap(paths: &BTreeMap<PathBuf, Behalf>, others: &BTreeSet<&OsStr>, limit: u64) -> Vec<String> {
    // Who may lead a file elsewhere is a matter of its folder.
    let folders: BTreeMap<&Path, &Behalf> =
        paths.iter().filter_map(|(path, behalf)| Some((path.parent()?, behalf))).collect();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (folder, behalf) in &folders {
        failures.extend(acting_for(behalf, folder, || match names(folder) {
            Ok(names) => {
                found.extend(names.iter().filter_map(|name| old_of((paths, others), folder, name)));
                Vec::new()
            }
            // Nothing was ever written there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => vec![format!("log folder {}: {error}", folder.display())],
        }));
    }
    for old in rotation::surplus(found, limit) {
        let behalf = old.parent().and_then(|folder| folders.get(folder));
        failures.extend(
            behalf.map_or_else(Vec::new, |behalf| {
                acting_for(behalf, &old, || remove(&old).into_iter().collect())
            }),
        );
    }
    failures
}

/// What this name is among the old files of these, and of those that were the app's before.
fn old_of(
    (paths, others): (&BTreeMap<PathBuf, Behalf>, &BTreeSet<&OsStr>),
    folder: &Path,
    name: &str,
) -> Option<Old<PathBuf>> {
    let (base, mark) = rotation::old(name)?;
    let is_ours = |name: &str| paths.contains_key(&folder.join(name));
    if !is_ours(base) && !family::was_of_app(base, is_ours, |name| others.contains(OsStr::new(name))) {
        return None;
    }
    let path = folder.join(name);
    let meta = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let last = (meta.mtime(), meta.mtime_nsec());
    Some(Old { last, mark, path, size: meta.len() })
}

/// That it could not be removed.
fn remove(old: &Path) -> Option<String> {
    match fs::remove_file(old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Some(format!("old log file {}: cannot be removed: {error}", old.display()))
        }
        Ok(()) | Err(_) => None,
    }
}

/// Does what is to be done with the old files of one log file; what failed, in words.
fn tend(path: &Path, rotation: &Rotation) -> Vec<String> {
    let (Some(folder), Some(base)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let (mut failures, mut removed, mut tried) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    loop {
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) => return vec![format!("log folder {}: {error}", folder.display())],
        };
        let mut chores = rotation::chores(base, &names, rotation, clock::wall());
        // One that could not be removed is told of once.
        chores.remove.retain(|name| removed.insert(name.clone()));
        failures.extend(chores.remove.iter().filter_map(|name| remove(&folder.join(name))));
        // While one is compressed others may become too many: the folder is looked at anew for each.
        let next = chores.compress.into_iter().find(|name| tried.insert(name.clone()));
        let Some(old) = next.map(|name| folder.join(name)) else { return failures };
        if let Err(error) = compress(folder, &old) {
            failures.push(format!("old log file {}: stays uncompressed: {error}", old.display()));
        }
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn compress(folder: &Path, old: &Path) -> io::Result<()> {
    let (whole, partial) = (with_suffix(old, COMPRESSED), with_suffix(old, PARTIAL));
    let source = rotate::open_plain(old)?;
    let outcome = write_compressed(&source, &partial).and_then(|()| rotate::rename_new(&partial, &whole));
    if let Err(error) = outcome {
        let _ = fs::remove_file(&partial);
        if error.kind() != io::ErrorKind::AlreadyExists || !has_content_of(&whole, old)? {
            return Err(error);
        }
    }
    rotate::sync_folder(folder)?;
    fs::remove_file(old)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes it to the disk as a whole. A file that somebody writes to meanwhile is left alone.
fn write_compressed(mut source: &File, to: &Path) -> io::Result<()> {
    let target = rotate::create_new(to)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    let mut buffer = vec![0; PIECE];
    let mut read = 0;
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        encoder.write_all(&buffer[..count])?;
        read += count as u64;
    }
    let target = encoder.finish()?;
    let meta = source.metadata()?;
    if meta.len() != read {
        return Err(io::Error::other("it is still written to"));
    }
    rotate::liken(&target, &meta)?;
    target.sync_all()
}

/// What an earlier run left: both files, of which the plain one is not needed any more.
fn has_content_of(compressed: &Path, plain: &Path) -> io::Result<bool> {
    let mut unpacked = BufReader::new(MultiGzDecoder::new(rotate::open_plain(compressed)?));
    let mut plain = BufReader::new(rotate::open_plain(plain)?);
    let (mut first, mut second) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let (one, other) = (fill(&mut unpacked, &mut first)?, fill(&mut plain, &mut second)?);
        if first[..one] != second[..other] {
            return Ok(false);
        }
        if one == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Rotation = Rotation { max_size: 1, max_files: 3, max_age: None, compress: true };

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    fn sorted(dir: &Path) -> Vec<String> {
        let mut names = names(dir).unwrap();
        names.sort();
        names
    }

    #[test]
    fn an_old_file_is_compressed_and_keeps_its_bytes_time_and_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = folder(&[("a.log", "new"), ("a.log.20261123T084011Z", &"old line\n".repeat(10_000))]);
        let old = dir.path().join("a.log.20261123T084011Z");
        fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&old).unwrap();
        assert_eq!(tend(&dir.path().join("a.log"), &KEPT), [] as [String; 0]);
        assert_eq!(sorted(dir.path()), ["a.log", "a.log.20261123T084011Z.gz"]);
        let whole = dir.path().join("a.log.20261123T084011Z.gz");
        assert_eq!(unpacked(&whole), "old line\n".repeat(10_000));
        let after = fs::metadata(&whole).unwrap();
        assert_eq!(after.permissions(), before.permissions());
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
        assert!(after.len() < 1000);
    }

    /// Whatever a crash leaves, nothing is lost and nothing half-written counts.
    #[test]
    fn what_a_crash_left_is_finished() {
        let dir = folder(&[("a.log.20261123T084011Z", "x\n"), ("a.log.20261123T084011Z.gz.part", "half")]);
        let path = dir.path().join("a.log");
        assert_eq!(tend(&path, &KEPT), [] as [String; 0]);
        assert_eq!(sorted(dir.path()), ["a.log.20261123T084011Z.gz"]);
        // It was renamed, and the plain one is still there.
        fs::write(dir.path().join("a.log.20261123T084011Z"), "x\n").unwrap();
        assert_eq!(tend(&path, &KEPT), [] as [String; 0]);
        assert_eq!(sorted(dir.path()), ["a.log.20261123T084011Z.gz"]);
        assert_eq!(unpacked(&dir.path().join("a.log.20261123T084011Z.gz")), "x\n");
    }

    #[test]
    fn a_compressed_file_of_others_is_not_overwritten() {
        let dir = folder(&[("a.log.20261123T084011Z", "mine\n")]);
        let whole = dir.path().join("a.log.20261123T084011Z.gz");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"theirs\n").unwrap();
        fs::write(&whole, encoder.finish().unwrap()).unwrap();
        let failures = tend(&dir.path().join("a.log"), &KEPT);
        assert!(failures.len() == 1 && failures[0].contains("stays uncompressed"), "{failures:?}");
        assert_eq!(unpacked(&whole), "theirs\n");
        assert_eq!(fs::read_to_string(dir.path().join("a.log.20261123T084011Z")).unwrap(), "mine\n");
        assert_eq!(sorted(dir.path()).len(), 2);
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = folder(&[("secret", "mine\n")]);
        let old = dir.path().join("a.log.20261123T084011Z");
        std::os::unix::fs::symlink(dir.path().join("secret"), &old).unwrap();
        assert_eq!(tend(&dir.path().join("a.log"), &KEPT).len(), 1);
        assert_eq!(sorted(dir.path()), ["a.log.20261123T084011Z", "secret"]);
    }

    #[test]
    fn the_oldest_files_of_an_app_go_and_never_one_that_is_written_to_or_anothers() {
        let stamp = |second: u32| format!("20261123T0840{second:02}Z");
        let (first, second, third) = (stamp(10), stamp(11), stamp(12));
        let old = |base: &str, stamp: &str| format!("{base}.{stamp}");
        let names = [old("a-out.log", &first), old("a-err.log", &second), old("a-out.log", &third)];
        let others = [old("b.log", &first), old("a-out.log", "1"), "a-out.log".to_owned()];
        let files: Vec<(&str, &str)> =
            names.iter().chain(&others).map(|name| (name.as_str(), "ten bytes\n")).collect();
        let dir = folder(&files);
        let ours = |name| (dir.path().join(name), Behalf::default());
        let paths: BTreeMap<PathBuf, Behalf> = ["a-out.log", "a-err.log", "never/a.log"].map(ours).into();
        let nobody = BTreeSet::new();
        assert_eq!(cap(&paths, &nobody, 30), [""; 0]);
        assert_eq!(sorted(dir.path()).len(), 6);
        assert_eq!(cap(&paths, &nobody, 15), [""; 0]);
        let mut left = others.to_vec();
        left.push(names[2].clone());
        left.sort();
        assert_eq!(sorted(dir.path()), left);
    }

    /// Nobody writes to them any more, and this supervisor never did.
    #[test]
    fn old_files_of_instances_that_are_gone_count_and_go_too() {
        let old = |base: &str| format!("{base}.20261123T084010Z");
        let (gone, taken, foreign) = (old("a-out-3.log"), old("a-out-4.log"), old("b-out-3.log"));
        let files = ["a-out.log", &gone, &taken, &foreign].map(|name| (name, "ten bytes\n"));
        let dir = folder(&files);
        let paths = BTreeMap::from([(dir.path().join("a-out.log"), Behalf::default())]);
        let others = BTreeSet::from([OsStr::new("a-out-4.log")]);
        assert_eq!(cap(&paths, &others, 1), [""; 0]);
        assert_eq!(sorted(dir.path()), [&*taken, "a-out.log", &foreign]);
    }
}
