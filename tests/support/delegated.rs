//! A control group of version 2 that is given away as systemd gives away that of a unit with `Delegate=`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::wait::{try_until, wait_until};
use super::{root, skip};

/// Dropping it ends and removes what is in it.
pub(crate) struct Delegated {
    folder: PathBuf,
}

/// Where version 2 is mounted.
pub(crate) fn mounted() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(PathBuf::from(line.split(' ').nth(4)?))
}

impl Delegated {
    /// None after saying why there is none.
    pub(crate) fn new() -> Option<Delegated> {
        let group = Delegated::unmarked()?;
        let value: &[u8] = b"1";
        match rustix::fs::setxattr(&group.folder, "user.delegate", value, rustix::fs::XattrFlags::empty()) {
            Ok(()) => Some(group),
            Err(error) => {
                skip(&format!("a control group cannot be marked as given away here: {error}"));
                None
            }
        }
    }

    /// The same without systemd's mark on it.
    pub(crate) fn unmarked() -> Option<Delegated> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).map(str::to_owned);
        let place = own.and_then(|own| Some(mounted()?.join(own)));
        let name = format!("clusterd-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let made =
            place.map(|place| place.join(name)).filter(|folder| root() && fs::create_dir(folder).is_ok());
        if made.is_none() {
            skip("no control group of version 2 can be made here");
        }
        made.map(|folder| Delegated { folder })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Its name below what is mounted.
    pub(crate) fn name(&self) -> String {
        let name = self.folder.strip_prefix(mounted().expect("it is there")).expect("it lies there");
        format!("/{}", name.display())
    }

    /// A command line before the supervisor's: runs the rest in it.
    pub(crate) fn enter(&self) -> Vec<String> {
        let line = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.folder.display());
        ["sh", "-c", &line, "enter"].map(str::to_owned).to_vec()
    }

    /// The names of the groups in it, the supervisor's left out.
    pub(crate) fn groups(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut names: Vec<String> =
            folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "supervisor");
        names.sort();
        names
    }

    /// Who is in it, or in one of its groups.
    pub(crate) fn members(&self, group: &str) -> Vec<i32> {
        let text = fs::read_to_string(self.folder.join(group).join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Holds all that is in it still, or lets it go on; returns when the kernel says so (`frozen` of cgroup.events).
    pub(crate) fn freeze(&self, still: bool) {
        let word = u8::from(still);
        fs::write(self.folder.join("cgroup.freeze"), word.to_string()).expect("since Linux 5.2");
        let frozen = format!("frozen {word}");
        wait_until(Duration::from_secs(10), &frozen, || {
            fs::read_to_string(self.folder.join("cgroup.events")).is_ok_and(|text| text.contains(&frozen))
        });
    }

    /// Puts a process there.
    pub(crate) fn put(&self, group: &str, pid: i32) {
        fs::write(self.folder.join(group).join("cgroup.procs"), pid.to_string()).expect("it is ours");
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("cgroup.kill"), "1");
        let _ = try_until(Duration::from_secs(5), || remove(&self.folder));
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
