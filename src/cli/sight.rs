//! What `jlist` says of workers beyond what the supervisor knows: seen in /proc and in the folders that they run in.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::control::protocol::WorkerInfo;
use crate::sys::accounts;
use crate::sys::{clock, process};

use super::{file, pm2};

/// What describes a package.
const PACKAGE: &str = "package.json";

/// How much of it is read, in bytes.
const MAX_READ: u64 = 1024 * 1024;

/// Who is started right after its release was put in place began, to the second in which the kernel counts, before it.
const DEPLOYED: Duration = Duration::from_secs(2);

/// The look from here. Many workers have one user, one program and one folder: each is looked at once.
pub(super) struct Sight {
    now: Duration,
    booted: Option<Duration>,
    passwd: Vec<u8>,
    users: RefCell<HashMap<u32, Option<String>>>,
    packages: RefCell<HashMap<PathBuf, Option<Package>>>,
    folders: RefCell<HashMap<PathBuf, Option<PathBuf>>>,
}

/// What describes a program.
#[derive(Clone)]
struct Package {
    version: String,
    /// Since 1970.
    written: Duration,
}

impl Sight {
    pub(super) fn new() -> Sight {
        Sight {
            now: clock::wall(),
            booted: process::booted_at().ok(),
            // Without it nobody has a name.
            passwd: accounts::read(accounts::PASSWD).unwrap_or_default(),
            users: RefCell::default(),
            packages: RefCell::default(),
            folders: RefCell::default(),
        }
    }
}

impl pm2::Sight for Sight {
    /// What a process says of itself does not vary by some milliseconds from one look to the next.
    fn began(&self, worker: &WorkerInfo) -> Duration {
        let since_boot = worker.pid.and_then(|pid| process::started_since_boot(pid).ok());
        let own = self.booted.zip(since_boot).map(|(booted, since)| booted + since);
        own.unwrap_or_else(|| self.now.saturating_sub(Duration::from_millis(worker.uptime_ms)))
    }

    fn user(&self, pid: i32) -> Option<String> {
        let (uid, _) = process::effective_ids(pid)?;
        let name = || accounts::user_numbered(&self.passwd, uid)?.name.into_string().ok();
        self.users.borrow_mut().entry(uid).or_insert_with(name).clone()
    }

    /// Unless the package was written after the worker began.
    fn version(&self, program: &Path, cwd: &Path, worker: &WorkerInfo, began: Duration) -> Option<String> {
        let package = once(&self.packages, program, package_of)?;
        // A link to the release may lead elsewhere by now.
        let there = std::fs::read_link(format!("/proc/{}/cwd", worker.pid?)).ok()?;
        let is_there = once(&self.folders, cwd, |cwd| cwd.canonicalize().ok())? == there;
        (is_there && package.written <= began + DEPLOYED).then_some(package.version)
    }
}

/// What was found for this path, which is looked for the first time only.
fn once<T: Clone>(
    found: &RefCell<HashMap<PathBuf, Option<T>>>,
    path: &Path,
    look: impl FnOnce(&Path) -> Option<T>,
) -> Option<T> {
    if let Some(known) = found.borrow().get(path) {
        return known.clone();
    }
    let new = look(path);
    found.borrow_mut().insert(path.to_owned(), new.clone());
    new
}

/// The nearest package.json above a program.
fn package_of(program: &Path) -> Option<Package> {
    let has_package = |folder: &&Path| folder.join(PACKAGE).is_file();
    let package = program.ancestors().skip(1).find(has_package)?.join(PACKAGE);
    let file = file::open(&package).ok()?;
    let written = file.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let mut text = String::new();
    file.take(MAX_READ).read_to_string(&mut text).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    let version = package.get("version")?.as_str()?.to_owned();
    Some(Package { version, written })
}
