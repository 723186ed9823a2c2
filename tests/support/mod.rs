//! What the tests with the real binary share: a supervisor per test, a load generator that counts every
//! outcome, unmodified servers, ports nobody else takes, and waiting with a deadline.
//!
//! Nothing here waits for a fixed time, and nothing here knows how clusterd works inside: only the
//! command line, the files and the network that a user has.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of the harness")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests live in real time: they measure it, and load needs threads of its own"
)]
#![allow(clippy::print_stderr, reason = "a failing test shows what it saw")]

pub(crate) mod booted;
pub(crate) mod daemon;
pub(crate) mod delegated;
pub(crate) mod encrypted;
pub(crate) mod engine;
pub(crate) mod fixtures;
pub(crate) mod hammer;
pub(crate) mod history;
pub(crate) mod host;
pub(crate) mod memory_group;
pub(crate) mod pm2;
pub(crate) mod ports;
pub(crate) mod reloading;
pub(crate) mod strace;
pub(crate) mod wait;
pub(crate) mod websocket;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) use daemon::{Daemon, Home, Output, clusterd};
pub(crate) use delegated::Delegated;
pub(crate) use fixtures::{App, Fixture, file};
pub(crate) use hammer::{Hammer, Load};
pub(crate) use memory_group::MemoryGroup;
pub(crate) use ports::free_port;
pub(crate) use wait::wait_until;

/// The user id that stands for "an ordinary user" when the tests run as root (`nobody`).
pub(crate) const ORDINARY: u32 = 65534;

/// Where the runtime `name` is, or none after saying that the test is skipped.
///
/// The system's own comes first: version managers put theirs below a home folder that no other user
/// may enter. On CI (`CI=true`) nothing may be missing.
pub(crate) fn runtime(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ["/usr/bin", "/usr/local/bin"]
        .into_iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        // Where servers are that only root is expected to start (nginx).
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Says on standard error and in `skipped` below the target folder that the running test proves nothing
/// here. On CI that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "on CI nothing may be skipped: {reason}");
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("skipped: {reason}");
    let summary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("skipped");
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(summary) {
        // A summary that cannot be written must not fail the test it speaks of.
        let _ = writeln!(file, "{test}: skipped: {reason}");
    }
}

/// True when the tests run as root, so that they can also try an ordinary user.
pub(crate) fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// As whom a case is run: as oneself always, as an ordinary user too when that is possible.
pub(crate) fn users() -> Vec<Option<u32>> {
    if root() { vec![None, Some(ORDINARY)] } else { vec![None] }
}
