//! More faults that no other file of tests injects: what the supervisor is found by is removed, a worker that no
//! signal ends, a fork bomb, an address that comes late, a client that goes in mid-operation.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use support::daemon::Builder;
use support::wait::{holds_for, try_until};
use support::{App, Daemon, Fixture, Home, fixtures, wait_until};

const SOON: Duration = Duration::from_secs(15);

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

fn idle(name: &str) -> App {
    fork(name, &fixtures::worker(&["idle"]))
}

/// A control group of the host's freezer (version 1), in which nobody hears SIGKILL: what a disk that hangs does to a
/// process, with an end.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Option<Freezer> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("mishaps-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new("/sys/fs/cgroup/freezer").join(name);
        if fs::create_dir(&path).is_err() {
            support::skip("no control group of a freezer of version 1 can be made here");
            return None;
        }
        Some(Freezer(path))
    }

    fn state(&self, state: &str) {
        fs::write(self.0.join("freezer.state"), state).expect("the group is ours");
        wait_until(SOON, state, || {
            fs::read_to_string(self.0.join("freezer.state")).is_ok_and(|now| now.trim() == state)
        });
    }

    fn freeze(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("it lives");
        self.state("FROZEN");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        // Whoever was in it was killed before.
        let _ = try_until(SOON, || fs::remove_dir(&self.0).is_ok());
    }
}

/// Fault 16.
#[test]
fn a_worker_that_no_signal_ends_is_named_and_holds_nobody_up() {
    let Some(freezer) = Freezer::new() else { return };
    let apps = [idle("stuck").text("kill_timeout", "100ms"), idle("other").text("kill_timeout", "100ms")];
    let daemon = Daemon::foreground(support::file(&apps));
    daemon.expects(&["did not end in kill_timeout", "was killed, and does not end"]);
    let pid = daemon.wait_online("stuck", 1)[0];
    daemon.wait_online("other", 1);
    freezer.freeze(pid);
    let stop = daemon.spawn(&["stop", "stuck"]);
    wait_until(SOON, "the kill is pending", || daemon.app("stuck").workers[0].status == "stopping");
    daemon.run(&["restart", "other"]).expect_code(0);
    // No promise of an end that does not come: who waits is told, with what the kernel has to say of it.
    let said = daemon.home.finish(stop).expect_code(1);
    assert!(said.took < Duration::from_secs(12), "{said:?}");
    for part in [&format!("pid {pid}"), "was killed, and does not end (state D", "uninterruptible"] {
        assert!(said.stderr.contains(part), "no {part:?}: {said:?}");
    }
    let app = daemon.app("stuck");
    assert_eq!((app.status.as_str(), app.workers[0].status.as_str()), ("unkillable", "unkillable"));
    assert_eq!(app.workers[0].pid, Some(pid));
    // Nobody runs beside it, and whoever asks for that is not kept waiting.
    let start = daemon.run(&["start", "stuck"]).expect_code(1).expect_stderr(&["does not end"]);
    assert!(start.took < Duration::from_secs(3), "{start:?}");
    assert_eq!(daemon.app("stuck").workers.len(), 1);
    // It is gone after all: what was wished last comes true.
    freezer.state("THAWED");
    wait_until(SOON, "its successor", || daemon.online("stuck").iter().any(|worker| worker.pid != Some(pid)));
    daemon.run(&["stop", "all"]).expect_code(0);
}

/// Fault 16, during a reload without a gap, and at the supervisor's own end.
#[test]
fn neither_a_reload_nor_a_shutdown_waits_for_a_worker_that_no_signal_ends() {
    let Some(freezer) = Freezer::new() else { return };
    let port = support::free_port();
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port);
    let app =
        app.text("kill_timeout", "100ms").text("drain_timeout", "300ms").text("min_healthy_time", "50ms");
    let mut daemon = Daemon::foreground(format!("[daemon]\nshutdown_timeout = \"2s\"\n{app}"));
    daemon.expects(&["drain_timeout is over", "did not end in kill_timeout", "was killed, and does not end"]);
    let before = daemon.wait_online("api", 2);
    freezer.freeze(before[0]);
    daemon.run(&["reload", "api"]).expect_code(0);
    let app = daemon.app("api");
    assert_eq!((app.status.as_str(), app.generation, app.reload.is_none()), ("online", 2, true));
    let left: Vec<_> = app.workers.iter().filter(|worker| worker.status == "unkillable").collect();
    assert!(left.len() == 1 && left[0].pid == Some(before[0]), "{:?}", app.workers);
    let hammer = support::Hammer::start(port);
    hammer.wait_answers(50);
    hammer.stop().expect_none_lost();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(Duration::from_secs(6)), 0);
    assert!(daemon.log().contains("it is left behind"), "{}", daemon.log());
    assert_eq!(daemon.workers().iter().map(|process| process.pid).collect::<Vec<_>>(), [before[0]]);
}

/// Forks as fast as it may, in every process, and hears no stop signal. `chain`: each process is gone as soon as it
/// has a successor.
const BOMB: &str = "import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    try:
        if os.fork() and sys.argv[1:] == ['chain']:
            os._exit(0)
        time.sleep(0.002)
    except OSError:
        time.sleep(0.05)
";

/// Fault 21, without control groups: the limit bounds it, its neighbours and the owner notice little, and a stop ends
/// all of it.
#[test]
fn a_fork_bomb_is_bounded_by_its_limit_and_ended_whole() {
    if !support::root() {
        return support::skip("a user of its own, whose processes are counted, takes root");
    }
    let Some(python) = fixtures::python("http_server.py") else { return };
    const MOST: usize = 100;
    let home = Arc::new(Home::new(None));
    home.put("bomb.py", BOMB);
    let bomb = |name: &str, user: u32, words: &[&str]| {
        let line = [&[python.command[0].as_str(), "bomb.py"], words].concat();
        let app = fork(name, &Fixture::new(&line)).set("user", user).text("kill_timeout", "200ms");
        app.set("rlimits", format!("{{ nproc = {MOST} }}"))
    };
    // Users of nobody else: the kernel counts all of a user's processes.
    let apps = [bomb("tree", 61_021, &[]), bomb("chain", 61_022, &["chain"]), idle("other")];
    let daemon = Builder::new(support::file(&apps)).start_in(home);
    // Each process of the chain leaves its successor behind as a daemon would.
    daemon.expects(&["did not end in kill_timeout", "(daemonised)", "unstable exits in a row"]);
    let other = daemon.wait_online("other", 1);
    let alive = || daemon.workers().iter().filter(|process| process.line.contains("bomb.py")).count();
    wait_until(SOON, "the limit is reached", || if alive() >= MOST { Ok(()) } else { Err(alive()) });
    for _ in 0..5 {
        assert!(alive() <= MOST + 8, "{} live", alive());
        let list = daemon.quickest(&["list"]);
        assert!(list.took < Duration::from_secs(2), "the owner waits: {list:?}");
    }
    daemon.run(&["stop", "tree"]).expect_code(0);
    let left = daemon.workers().into_iter().filter(|process| process.line.ends_with("bomb.py")).count();
    assert_eq!(left, 0, "stopped means that nothing of it is left");
    daemon.run(&["stop", "chain"]).expect_code(0);
    assert_eq!(alive(), 0);
    assert_eq!(daemon.pids("other"), other);
}

/// How many clients the control socket has (proc(5), /proc/net/unix: those that were accepted bear its name, in state 3).
fn connections(daemon: &Daemon) -> usize {
    let socket = daemon.home.socket().display().to_string();
    let sockets = fs::read_to_string("/proc/net/unix").expect("tests need /proc");
    let is_client = |line: &&str| line.ends_with(&socket) && line.split_whitespace().nth(5) == Some("03");
    sockets.lines().filter(is_client).count()
}

/// Fault 70.
///
/// Whatever a cleaner takes of it, the supervisor is found again within a moment, by clients, workers and a second
/// supervisor; clients that are connected notice nothing.
#[test]
fn what_a_cleaner_removes_of_the_supervisors_own_is_back_at_once() {
    let notifies = App::new("late", &fixtures::worker(&["serve", "notify", "0"]));
    let notifies = notifies.text("exec_mode", "fork").set("wait_ready", true).set("autostart", false);
    let apps = [idle("api"), notifies.port(support::free_port())];
    let daemon = Daemon::foreground(support::file(&apps));
    daemon.expects(&["somebody removed or replaced"]);
    let pids = daemon.wait_online("api", 1);
    wait_until(SOON, "nobody connected", || connections(&daemon) == 0);
    let mut follower = daemon.spawn(&["logs", "api"]);
    wait_until(SOON, "a follower that is connected", || connections(&daemon) == 1);
    let (home, file) = (daemon.home.path(), daemon.home.file().display().to_string());
    let [socket, lock, notify] =
        ["clusterd.sock", "clusterd.lock", "notify.sock"].map(|name| home.join(name));
    let whole = vec![socket.clone(), lock.clone(), notify.clone()];
    for gone in [vec![socket.clone()], vec![notify.clone()], vec![lock.clone()], whole] {
        for path in &gone {
            fs::remove_file(path).expect("it is there");
        }
        wait_until(SOON, "all is back", || gone.iter().all(|path| path.exists()));
        daemon.run(&["ping"]).expect_code(0);
        // The lock is held again, and names whom it is about.
        let second = daemon.run(&[&file]).expect_code(1);
        assert!(second.stderr.contains(&format!("pid {}", daemon.pid)), "{gone:?}: {second:?}");
        daemon.run(&["restart", "late"]).expect_code(0);
    }
    // The folder as a whole, which a test keeps to give it back.
    let aside = home.with_file_name("aside");
    fs::rename(&home, &aside).expect("both are ours");
    wait_until(SOON, "a home again", || daemon.run(&["ping"]).code == 0);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&home).expect("it is back").permissions());
    assert_eq!(mode & 0o777, 0o700);
    daemon.run(&[&file]).expect_code(1).expect_stderr(&["already runs"]);
    daemon.run(&["restart", "late"]).expect_code(0);
    assert!(follower.runs(), "{}", follower.stderr());
    daemon.signal(Signal::SIGUSR1);
    wait_until(SOON, "signals work", || daemon.log().contains("api: online generation 1"));
    assert_eq!(daemon.pids("api"), pids);
    // Said once, not as often as it happened.
    assert_eq!(daemon.log().matches("somebody removed or replaced").count(), 1, "{}", daemon.log());
    follower.child.kill().expect("it is our child");
    daemon.home.finish(follower);
}

/// Fault 70, where another supervisor was quicker: its lock and its socket are left to it, and both are named.
#[test]
fn a_home_that_another_supervisor_took_meanwhile_is_left_to_it() {
    let daemon = Daemon::foreground(idle("api"));
    daemon.expects(&["another supervisor (pid 4242)", "somebody removed or replaced"]);
    let pids = daemon.wait_online("api", 1);
    let home = daemon.home.path();
    let theirs = home.join("theirs");
    let mut file = File::create(&theirs).expect("the folder is ours");
    write!(file, "4242").expect("it is open");
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .expect("nobody has it");
    fs::rename(&theirs, home.join("clusterd.lock")).expect("both are ours");
    wait_until(SOON, "it is told", || daemon.log().contains("another supervisor (pid 4242)"));
    let listener = std::os::unix::net::UnixListener::bind(home.join("their.sock")).expect("it is free");
    fs::rename(home.join("their.sock"), daemon.home.socket()).expect("both are ours");
    let inode = || fs::metadata(daemon.home.socket()).map(|file| file.ino()).ok();
    let there = inode();
    holds_for(Duration::from_millis(1_500), "their socket is left alone", || inode() == there);
    drop((listener, lock));
    assert!(Path::new(&format!("/proc/{}", pids[0])).exists(), "its workers go on");
    wait_until(Duration::from_secs(30), "it is found again", || daemon.run(&["ping"]).code == 0);
    assert_eq!(daemon.pids("api"), pids);
}

/// Fault 66, of operations that fail or end without news: how they went is found in `describe` and in the log.
#[test]
fn what_became_of_an_operation_is_found_when_its_client_is_gone() {
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(1).port(support::free_port());
    let daemon = Daemon::foreground(&app);
    daemon.expects(&["reload to generation 2 failed", "was not ready", "api: reload failed"]);
    let pids = daemon.wait_online("api", 1);
    let gone = |arguments: &[&str], begun: &dyn Fn() -> bool| {
        let mut running = daemon.spawn(arguments);
        wait_until(SOON, "it is under way", begun);
        running.child.kill().expect("it is our child");
        running.child.wait().expect("it is our child");
    };
    let idles = App::new("api", &fixtures::worker(&["idle"])).instances(1);
    daemon.home.write(&idles.text("ready", "listen").text("listen_timeout", "1s").to_string());
    gone(&["reload", "api"], &|| daemon.app("api").reload.is_some());
    let reload = wait_until(SOON, "its end", || {
        daemon
            .app("api")
            .reload
            .filter(|reload| reload.state != "progressing" && reload.state != "rolling back")
    });
    let reason = reload.reason.expect("it failed for a reason");
    assert!(reason.contains("listen_timeout"), "{reason}");
    let described = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    assert!(described.contains("listen_timeout"), "{described}");
    wait_until(SOON, "it is in the log", || daemon.log().contains("api: reload failed"));
    assert_eq!(daemon.pids("api"), pids);
    let stubborn = fork("stubborn", &fixtures::worker(&["ignore-signals"])).text("kill_timeout", "1s");
    daemon.expects(&["did not end in kill_timeout"]);
    daemon.home.put("stubborn.toml", &stubborn.to_string());
    daemon.run(&["start", "stubborn.toml"]).expect_code(0);
    gone(&["stop", "stubborn"], &|| daemon.app("stubborn").status == "stopping");
    let app = daemon.wait_status("stubborn", "stopped");
    assert_eq!(app.workers[0].last_exit.as_ref().map(|exit| exit.reason.as_str()), Some("kill_timeout"));
}

/// What a verb draws on a terminal of this size, and its code.
fn on_terminal(daemon: &Daemon, words: &[&str], (columns, rows): (u16, u16), keys: &str) -> (String, i32) {
    let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).expect("there are terminals");
    let mut master = File::from(pty.master);
    master.write_all(keys.as_bytes()).expect("there is room");
    let running = daemon.home.spawn_with(words, |command| {
        command.stdin(pty.slave.try_clone().expect("descriptors are left"));
        command.stdout(pty.slave).env("TERM", "xterm").env("NO_COLOR", "1");
    });
    let code = daemon.home.finish(running).code;
    let mut drawn = Vec::new();
    // After the last writer the kernel ends a terminal with EIO.
    let _ = master.read_to_end(&mut drawn);
    (String::from_utf8_lossy(&drawn).replace("\r\n", "\n"), code)
}

/// Fault 71, of every verb that prints, against a real supervisor.
#[test]
fn no_verb_minds_that_nobody_reads_it_or_that_its_terminal_is_tiny() {
    let apps = [idle("an-app-whose-name-is-longer-than-the-terminal-is-wide"), idle("api")];
    let daemon = Daemon::foreground(support::file(&apps));
    daemon.wait_online("api", 1);
    let file = daemon.home.file().display().to_string();
    let verbs: [&[&str]; 26] = [
        &["list"],
        &["list", "--json"],
        &["jlist"],
        &["prettylist"],
        &["describe", "api"],
        &["pid", "api"],
        &["env", "api"],
        &["ping"],
        &["version"],
        &["--help"],
        &["report"],
        &["logs", "--no-follow"],
        &["validate", &file],
        &["apply", &file, "--dry-run"],
        &["reset", "api"],
        &["flush"],
        &["reload-logs"],
        &["signal", "SIGWINCH", "api"],
        &["restart", "api"],
        &["reload", "api"],
        &["scale", "api", "2"],
        &["scale", "api", "1"],
        &["stop", "api"],
        &["start", "api"],
        &["delete", "api"],
        &["start", &file],
    ];
    for words in verbs {
        let (reader, writer) = std::io::pipe().expect("descriptors are left");
        drop(reader);
        let running = daemon.home.spawn_with(words, |command| {
            command.stdout(writer);
        });
        let output = daemon.home.finish(running).expect_code(0);
        assert_eq!(output.stderr, "", "{words:?}");
    }
    // Nor those that have to complain.
    for (words, code) in [(&["stop", "nobody"][..], 1), (&["no-such-verb"], 2), (&["describe", "nobody"], 1)]
    {
        let (reader, writer) = std::io::pipe().expect("descriptors are left");
        drop(reader);
        let running = daemon.home.spawn_with(words, |command| {
            command.stdout(writer.try_clone().expect("descriptors are left")).stderr(writer);
        });
        daemon.home.finish(running).expect_code(code);
    }
    daemon.wait_online("api", 1);
    let (list, code) = on_terminal(&daemon, &["list"], (20, 5), "");
    assert_eq!(code, 0);
    assert!(list.lines().all(|line| line.chars().count() <= 20), "{list}");
    // What says most stays.
    let head = list.lines().find(|line| line.contains("name")).expect("a table");
    assert!(head.contains("status") && list.contains("online") && list.contains("api"), "{list}");
    for words in [&["describe", "api"][..], &["restart", "api"], &["logs", "--no-follow"]] {
        let (drawn, code) = on_terminal(&daemon, words, (20, 5), "");
        assert_eq!(code, 0, "{words:?}: {drawn}");
    }
    let (drawn, code) = on_terminal(&daemon, &["monit"], (20, 5), "q");
    assert!(code == 0 && drawn.contains("20x5"), "{code}: {drawn:?}");
}
