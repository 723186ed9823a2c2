//! A host of a test's own that boots: systemd as process 1, over this host's files, with a network of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::daemon::BOOT;
use super::{root, runtime, skip, wait_until};

/// A host that boots from a tree which stays. Dropping it switches it off.
pub(crate) struct Host {
    /// What it wrote stays here.
    folder: tempfile::TempDir,
    group: String,
    booted: Child,
    /// Its process 1.
    leader: String,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/boot.sh")
}

/// Where a tree can lie that is laid over the root; none after saying why there is no such host.
fn place() -> Option<&'static str> {
    let shared = Path::new("/dev/shm");
    let lacks = if !root() {
        "only root can boot a host"
    } else if !Path::new("/lib/systemd/systemd").exists() {
        "systemd is not installed"
    } else if !Path::new("/sys/fs/cgroup/systemd").is_dir() {
        "there is no cgroup hierarchy of systemd's own"
    } else if File::create(shared.join(".clusterd-reboot")).is_err() {
        "/dev/shm cannot be written"
    } else {
        let _ = fs::remove_file(shared.join(".clusterd-reboot"));
        return Some("/dev/shm");
    };
    skip(lacks);
    None
}

impl Host {
    /// None after saying why there is none.
    pub(crate) fn boot() -> Option<Host> {
        runtime("unshare")?;
        runtime("nsenter")?;
        let folder = tempfile::Builder::new().prefix("cd-").tempdir_in(place()?).expect("it can be written");
        // Hosts of one test program run at the same time.
        let number = BOOTED.fetch_add(1, Ordering::Relaxed);
        let group = format!("clusterd-reboot-{}-{number}", std::process::id());
        let booted = start(folder.path(), &group);
        let mut host = Host { folder, group, booted, leader: String::new() };
        host.wait_up();
        Some(host)
    }

    fn wait_up(&mut self) {
        let log = self.folder.path().join("boot.log");
        let children = format!("/proc/{0}/task/{0}/children", self.booted.id());
        wait_until(BOOT * 2, "a host that is up", || {
            let ended = self.booted.try_wait().ok().flatten();
            assert!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(&log).unwrap_or_default());
            // Until the namespaces are there, these are helpers of the script, and in them it would be this very
            // host that is told to reboot.
            let all = fs::read_to_string(&children).map_err(|error| error.to_string())?;
            let first = all.split_whitespace().find(|pid| is_first_of_its_own(pid));
            self.leader = first.ok_or("no process 1")?.to_owned();
            let state = self.run(&["systemctl", "is-system-running"]);
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            if ["running", "degraded"].contains(&state.as_str()) { Ok(()) } else { Err(state) }
        });
        assert!(self.run(&["ip", "link", "set", "lo", "up"]).status.success());
    }

    /// One there, to be run.
    pub(crate) fn command(&self) -> Command {
        assert!(is_first_of_its_own(&self.leader), "{} is no host of ours", self.leader);
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader, "-m", "-u", "-i", "-n", "-p", "-C", "--"]).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command
    }

    /// Runs a command there.
    pub(crate) fn run(&self, line: &[&str]) -> Output {
        self.command().args(line).output().expect("nsenter is there")
    }

    /// Where a path of it is for us.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(&self.leader).join("root").join(path.trim_start_matches('/'))
    }

    /// Puts a program of ours there.
    pub(crate) fn install(&self, from: &Path, to: &str) {
        fs::copy(from, self.place(to)).expect("it is ours");
    }

    /// Does something in its network, and so do threads that are started in it.
    pub(crate) fn in_its_network<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.leader)).expect("it runs");
        std::thread::scope(|scope| {
            let there = scope.spawn(move || {
                nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may");
                what()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Returns when it is up again.
    pub(crate) fn reboot(&mut self) {
        self.run(&["systemctl", "reboot"]);
        let ended =
            wait_until(BOOT * 2, "the end before the reboot", || self.booted.try_wait().ok().flatten());
        assert!(!ended.success(), "{ended:?}");
        remove_groups(&self.group);
        self.booted = start(self.folder.path(), &self.group);
        self.wait_up();
    }
}

/// Of this program.
static BOOTED: AtomicU32 = AtomicU32::new(0);

fn start(folder: &Path, group: &str) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("boot.log")).expect("it is ours");
    let mut command = Command::new("bash");
    command.arg(script()).arg(folder).arg(group).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("descriptors are left")).stderr(log).spawn().expect("bash is there")
}

/// Whether it is process 1 of a namespace below ours (`NSpid` in proc_pid_status(5)).
fn is_first_of_its_own(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = line.split_whitespace().collect();
    numbers.len() > 1 && numbers.last() == Some(&"1")
}

fn remove_groups(group: &str) {
    let _ = Command::new("bash").arg(script()).args(["remove", group]).status();
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() && is_first_of_its_own(&self.leader) {
            let journal = self.run(&["journalctl", "--no-pager", "-n", "60", "-u", "clusterd*"]);
            eprintln!("--- journal\n{}", String::from_utf8_lossy(&journal.stdout));
        }
        // With unshare goes its process 1, and with that everything.
        let _ = self.booted.kill();
        let _ = self.booted.wait();
        remove_groups(&self.group);
    }
}

/// What a command printed that must not fail.
pub(crate) fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
