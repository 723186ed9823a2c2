//! What `jlist` says of workers beyond what the supervisor knows: seen in /proc and in the folders that they run in.

use std::io::Read;
use std::path::Path;
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

/// The look from here.
pub(super) struct Sight {
    now: Duration,
    passwd: Vec<u8>,
}

impl Sight {
    pub(super) fn new() -> Sight {
        // Without it nobody has a name.
        Sight { now: clock::wall(), passwd: accounts::read(accounts::PASSWD).unwrap_or_default() }
    }
}

impl pm2::Sight for Sight {
    /// What a process says of itself does not vary by some milliseconds from one look to the next.
    fn began(&self, worker: &WorkerInfo) -> Duration {
        let own = worker.pid.and_then(|pid| process::started_at(pid).ok());
        own.unwrap_or_else(|| self.now.saturating_sub(Duration::from_millis(worker.uptime_ms)))
    }

    fn user(&self, pid: i32) -> Option<String> {
        let (uid, _) = process::effective_ids(pid)?;
        let user = accounts::user_numbered(&self.passwd, uid)?;
        user.name.into_string().ok()
    }

    fn version(&self, program: &Path, cwd: &Path, worker: &WorkerInfo) -> Option<String> {
        let pid = worker.pid?;
        // A link to the release may lead elsewhere by now.
        let there = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        if cwd.canonicalize().ok()? != there {
            return None;
        }
        version_before(program, self.began(worker))
    }
}

/// The version in the nearest package.json above a program, unless that was written later.
fn version_before(program: &Path, began: Duration) -> Option<String> {
    let has_package = |folder: &&Path| folder.join(PACKAGE).is_file();
    let package = program.ancestors().skip(1).find(has_package)?.join(PACKAGE);
    let file = file::open(&package).ok()?;
    let written = file.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    if written > began + DEPLOYED {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_READ).read_to_string(&mut text).ok()?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    package.get("version")?.as_str().map(str::to_owned)
}
