//! The control groups that this process is in, as folders (cgroups(7)): v1 hierarchies and v2, in
//! containers with a namespace of their own and without. What stands in their files is read elsewhere.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Which kind of files a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// One per controller.
    V1,
    /// One for all.
    V2,
}

/// A group that this process is in: its own, or one above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Of which hierarchy.
    pub hierarchy: Hierarchy,
    /// Where its files are.
    pub folder: PathBuf,
}

/// Every group whose `controller` may limit this process, innermost first, up to what is mounted. `root`
/// is `/` but for tests. Empty where the kernel shows none.
pub fn levels(root: &Path, controller: &str) -> Vec<Level> {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = read(&root.join("proc/self/mountinfo")).unwrap_or_default();
    let second = v2_group(&groups)
        .and_then(|group| Some(folders(root, &mount_of(&mounts, |mount| mount.kind == "cgroup2")?, group)));
    let first = v1_group(&groups, controller).and_then(|group| {
        let controls = |mount: &Mount<'_>| {
            mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller)
        };
        Some(folders(root, &mount_of(&mounts, controls)?, group))
    });
    let level = |hierarchy| move |folder| Level { hierarchy, folder };
    let second = second.into_iter().flatten().map(level(Hierarchy::V2));
    second.chain(first.into_iter().flatten().map(level(Hierarchy::V1))).collect()
}

/// The v2 group of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// As /proc/self/cgroup has it.
    pub name: String,
    /// Where its files are.
    pub folder: PathBuf,
    /// The outermost folder of the hierarchy that is to be seen.
    pub mounted: PathBuf,
}

/// Why the own group has no folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The kernel, or /proc, shows no group of v2.
    NoHierarchy,
    /// The hierarchy is not mounted.
    NotMounted,
    /// The group of this name lies outside of what is mounted.
    Outside(String),
}

/// The v2 group of this process, wherever v2 is mounted (alone, or beside hierarchies of v1). `root` is `/` but for
/// tests.
///
/// # Errors
/// Why it has no folder.
pub fn own(root: &Path) -> Result<Own, Absent> {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = read(&root.join("proc/self/mountinfo")).unwrap_or_default();
    let name = v2_group(&groups).ok_or(Absent::NoHierarchy)?;
    let mut mounted = mounts.lines().filter_map(mount).filter(|mount| mount.kind == "cgroup2").peekable();
    if mounted.peek().is_none() {
        return Err(Absent::NotMounted);
    }
    let within = |mount: Mount<'_>| {
        let below = Path::new(name).strip_prefix(&mount.source).ok()?;
        let leaves = below.components().any(|step| matches!(step, Component::ParentDir));
        let base = root.join(mount.target.trim_start_matches('/'));
        let folder: PathBuf = base.join(below).components().collect();
        let is_there = !leaves && folder.join("cgroup.procs").exists();
        is_there.then(|| Own { name: name.to_owned(), folder, mounted: base })
    };
    mounted.find_map(within).ok_or_else(|| Absent::Outside(name.to_owned()))
}

/// Whether this controller is a hierarchy of v1 here: it is not there for groups of v2 then. `root` is `/` but for
/// tests.
pub fn is_v1(root: &Path, controller: &str) -> bool {
    v1_group(&read(&root.join("proc/self/cgroup")).unwrap_or_default(), controller).is_some()
}

/// Reads a small file of the kernel's; none when it is not there or no text.
pub fn read(path: &Path) -> Option<String> {
    const LIMIT: u64 = 4 * 1024 * 1024;
    let mut text = String::new();
    File::open(path).ok()?.take(LIMIT).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The path in `0::/path`.
fn v2_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The path in `3:cpu,cpuacct:/path`.
fn v1_group<'g>(groups: &'g str, wanted: &str) -> Option<&'g str> {
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|controller| controller == wanted).then_some(path)
    })
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
struct Mount<'m> {
    /// The folder of the hierarchy that is mounted.
    source: String,
    /// Where it is mounted.
    target: String,
    kind: &'m str,
    options: &'m str,
}

fn mount_of<'m>(mounts: &'m str, wanted: impl Fn(&Mount<'m>) -> bool) -> Option<Mount<'m>> {
    mounts.lines().filter_map(mount).find(wanted)
}

fn mount(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (source, target) = (unescape(left.next()?), unescape(left.next()?));
    let mut right = right.split(' ');
    let kind = right.next()?;
    Some(Mount { source, target, kind, options: right.nth(1)? })
}

/// Blanks in mountinfo are written `\040`.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// From the group's folder up to the mounted one.
fn folders(root: &Path, mount: &Mount<'_>, group: &str) -> Vec<PathBuf> {
    let base = root.join(mount.target.trim_start_matches('/'));
    // In a container without its own namespace the group's path begins with what is mounted; a path that
    // does not, or that leaves the namespace (`/../x`), is only known from the mounted folder on.
    let below = Path::new(group).strip_prefix(&mount.source).unwrap_or(Path::new(""));
    let leaves = below.components().any(|step| matches!(step, Component::ParentDir));
    let folder: PathBuf = if leaves { base.clone() } else { base.join(below) };
    folder.ancestors().take_while(|level| level.starts_with(&base)).map(Path::to_path_buf).collect()
}

/// Any text, for the fuzzer: no group lies outside of what is mounted.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut seen = String::new();
    for group in [v2_group(&text), v1_group(&text, "memory")].into_iter().flatten() {
        for mount in text.lines().filter_map(mount).take(8) {
            let base = Path::new("/").join(mount.target.trim_start_matches('/'));
            let folders = folders(Path::new("/"), &mount, group);
            assert!(
                folders.iter().all(|folder| folder.starts_with(&base)),
                "{folders:?} outside of {base:?}"
            );
            seen.push_str(&"f".repeat(folders.len().min(4)));
        }
        seen.push('g');
    }
    seen.truncate(24);
    seen
}
