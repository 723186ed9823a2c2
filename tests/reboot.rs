//! A real systemd that is rebooted: what ran is back.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]
#![allow(clippy::print_stderr, reason = "a failing test shows what it saw")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use clusterd::control::protocol::List;
use support::daemon::BOOT;
use support::{App, file, fixtures, root, runtime, skip, wait_until};

/// As whom the apps run; systemd warns of `nobody`.
const USER: &str = "daemon";

/// A host that boots from a tree which stays. Dropping it switches it off.
struct Host {
    folder: tempfile::TempDir,
    group: String,
    booted: Child,
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
    fn boot() -> Option<Host> {
        runtime("unshare")?;
        runtime("nsenter")?;
        let folder = tempfile::Builder::new().prefix("cd-").tempdir_in(place()?).expect("it can be written");
        let group = format!("clusterd-reboot-{}", std::process::id());
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

    fn command(&self) -> Command {
        assert!(is_first_of_its_own(&self.leader), "{} is no host of ours", self.leader);
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader, "-m", "-u", "-i", "-n", "-p", "-C", "--"]).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command
    }

    fn run(&self, line: &[&str]) -> Output {
        self.command().args(line).output().expect("nsenter is there")
    }

    /// As the user whose apps these are.
    fn clusterd(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "clusterd"]);
        command.args(arguments).env("HOME", "/srv/home").env("CALLER", "before the reboot");
        command.output().expect("nsenter is there")
    }

    /// Instances online of `web`, and how `off` is.
    fn state(&self) -> Result<(usize, String), String> {
        let output = self.clusterd(&["list", "--json"]);
        let list: List =
            serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
        let app =
            |name: &str| list.apps.iter().find(|app| app.name == name).ok_or(format!("no {name}: {list:?}"));
        let online = app("web")?.workers.iter().filter(|worker| worker.ready).count();
        Ok((online, app("off")?.status.clone()))
    }

    fn wait_back(&self) {
        wait_until(BOOT, "three workers, and what was stopped stopped", || match self.state() {
            Ok((3, status)) if status == "stopped" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn reboot(&mut self) {
        self.run(&["systemctl", "reboot"]);
        let ended =
            wait_until(BOOT * 2, "the end before the reboot", || self.booted.try_wait().ok().flatten());
        assert!(!ended.success(), "{ended:?}");
        remove_groups(&self.group);
        self.booted = start(self.folder.path(), &self.group);
        self.wait_up();
    }
}

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

fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn after_startup_and_a_reboot_everything_is_back_also_after_a_kill() {
    let Some(mut host) = Host::boot() else { return };
    let home = support::Home::new(None);
    // What is in a folder of this host's own is seen there, but for /tmp.
    let tree = host.folder.path().join("up");
    let place = |path: &str| Path::new("/proc").join(&host.leader).join("root").join(path);
    for (from, to) in [
        (home.binary(), "usr/local/bin/clusterd"),
        (home.apps().join("fixture_worker"), "usr/local/bin/worker"),
    ] {
        fs::copy(from, place(to)).expect("it is ours");
    }
    assert!(tree.join("usr/local/bin/clusterd").exists());
    succeeded(host.run(&["install", "-d", "-o", USER, "/srv/home"]));
    let worker = |name: &str, words: &[&str]| {
        let mut command = vec!["/usr/local/bin/worker"];
        command.extend(words);
        App::new(name, &support::Fixture::new(&command))
    };
    let apps = [
        worker("web", &["serve"]).instances(2).port(8080),
        worker("off", &["idle"]).text("exec_mode", "fork"),
        App::new("teller", &fixtures::shell("printf 'a \\033[1mword\\n'; exec sleep 1000"))
            .text("log_to", "journald"),
    ];
    fs::write(place("srv/home/ecosystem.toml"), file(&apps)).expect("it is ours");

    let said = succeeded(host.run(&["clusterd", "startup", "-u", USER, "--hp", "/srv/home"]));
    assert!(said.contains("clusterd-daemon.service"), "{said}");
    succeeded(host.run(&["systemctl", "start", "clusterd-daemon"]));
    wait_until(BOOT, "a supervisor", || host.clusterd(&["ping"]).status.success());
    succeeded(host.clusterd(&["start", "/srv/home/ecosystem.toml"]));
    succeeded(host.clusterd(&["scale", "web", "3"]));
    succeeded(host.clusterd(&["stop", "off"]));
    host.wait_back();
    let told = || succeeded(host.run(&["journalctl", "--no-pager", "-o", "json", "CLUSTERD_APP=teller"]));
    wait_until(BOOT, "a worker's line in the journal", || told().contains("CLUSTERD_INSTANCE"));
    let entry = told();
    let entry: serde_json::Value =
        serde_json::from_str(entry.lines().next().unwrap_or_default()).expect("a line of JSON");
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let fields = ["SYSLOG_IDENTIFIER", "PRIORITY", "CLUSTERD_INSTANCE", "_COMM"].map(field);
    assert_eq!(fields, ["teller", "6", "0", "clusterd"], "{entry}");
    let bytes: Vec<u8> =
        serde_json::from_value(entry["MESSAGE"].clone()).expect("not printable: as its bytes");
    assert_eq!(bytes, b"a \x1b[1mword");

    host.reboot();
    host.wait_back();
    let environment = succeeded(host.clusterd(&["env", "web"]));
    assert!(environment.contains("CALLER=before the reboot"), "{environment}");
    let journal = || succeeded(host.run(&["journalctl", "-u", "clusterd-daemon", "--no-pager"]));
    wait_until(BOOT, "the supervisor's own words in the journal", || journal().contains("come back"));

    // Killed, it is started anew by systemd, and goes on with what it ran.
    let main = || succeeded(host.run(&["systemctl", "show", "-p", "MainPID", "clusterd-daemon"]));
    let first = main();
    succeeded(host.run(&["systemctl", "kill", "-s", "KILL", "--kill-who=main", "clusterd-daemon"]));
    wait_until(BOOT, "another supervisor", || {
        let now = main();
        if now != first && !now.contains("MainPID=0") { Ok(()) } else { Err(now) }
    });
    host.wait_back();

    // What is removed does not come back.
    succeeded(host.run(&["clusterd", "unstartup", "-u", USER, "--hp", "/srv/home"]));
    host.reboot();
    assert!(!host.clusterd(&["ping"]).status.success());
}
