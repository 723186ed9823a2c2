//! More faults that no other file of tests injects: what the supervisor is found by is removed, a worker that no
//! signal ends, a fork bomb, an address that comes late, a client that goes in mid-operation.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use support::wait::holds_for;
use support::{App, Daemon, Fixture, fixtures, wait_until};

const SOON: Duration = Duration::from_secs(15);

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

fn idle(name: &str) -> App {
    fork(name, &fixtures::worker(&["idle"]))
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
    let mut follower = daemon.spawn(&["logs", "api"]);
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
