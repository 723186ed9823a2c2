//! What the service manager above a supervisor is told over NOTIFY_SOCKET (sd_notify(3)): by a socket that keeps every
//! word and asks nothing. A real systemd is in reboot.rs.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::daemon::Builder;
use support::{App, Daemon, Load, file, fixtures, free_port, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const SOON: Duration = ms(20_000);

/// Hears everything.
struct Manager {
    _folder: tempfile::TempDir,
    path: PathBuf,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn listen() -> Manager {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("the folder is fresh");
        socket.set_nonblocking(true).expect("it is ours");
        Manager { _folder: folder, path, socket, heard: Vec::new() }
    }

    fn above(&self, text: impl ToString) -> Builder {
        Builder::new(text).env("NOTIFY_SOCKET", &self.path.display().to_string())
    }

    fn take(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            self.heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
    }

    /// Waits for a word with this beginning after the first `from`, and says at which place it came.
    fn wait_for(&mut self, from: usize, word: &str) -> usize {
        wait_until(SOON, word, || {
            self.take();
            let place = self.heard.iter().skip(from).position(|heard| heard.starts_with(word));
            place.map(|place| from + place).ok_or_else(|| self.heard.clone())
        })
    }

    fn count(&mut self, word: &str) -> usize {
        self.take();
        self.heard.iter().filter(|heard| heard.starts_with(word)).count()
    }

    fn last_status(&mut self) -> String {
        self.take();
        self.heard.iter().rev().find_map(|heard| heard.strip_prefix("STATUS=")).unwrap_or_default().to_owned()
    }
}

fn monotonic_micros() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every host has it");
    u64::try_from(Duration::from(time).as_micros()).expect("it began not so long ago")
}

#[test]
fn a_start_is_told_when_every_worker_is_ready_and_never_before() {
    let Some(node) = fixtures::node("server.js") else { return };
    let mut manager = Manager::listen();
    let app = App::new("api", &node).instances(2).port(free_port()).env("BOOT_MS", 700);
    let mut daemon = manager.above(app).start();
    let place = manager.wait_for(0, "READY=1");
    let ready = daemon.list().apps[0].workers.iter().filter(|worker| worker.ready).count();
    assert_eq!(ready, 2, "{:?}", manager.heard);
    let before = &manager.heard[..place];
    assert!(before.contains(&"EXTEND_TIMEOUT_USEC=60000000".to_owned()), "{before:?}");
    wait_until(SOON, "how things stand", || match manager.last_status().as_str() {
        "1 app, 2/2 workers ready" => Ok(()),
        other => Err(other.to_owned()),
    });
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(SOON), 0);
    let stops = manager.wait_for(place, "STOPPING=1");
    assert_eq!(
        manager.heard[stops + 1],
        "EXTEND_TIMEOUT_USEC=18000000",
        "shutdown_timeout, and the end itself"
    );
    assert_eq!(manager.count("READY=1"), 1, "{:?}", manager.heard);
}

#[test]
fn an_app_that_cannot_start_does_not_keep_the_others_from_being_ready() {
    let mut manager = Manager::listen();
    let fine = App::new("fine", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let bad = App::new("bad", &fixtures::shell("exit 3")).text("exec_mode", "fork").set("min_uptime", 60_000);
    let later = App::new("later", &fixtures::worker(&["idle"])).set("listen", "[\"192.0.2.1:8080\"]");
    let daemon = manager.above(file(&[fine, bad.set("max_restarts", 2), later])).start();
    daemon.expects(&["bad", "later"]);
    manager.wait_for(0, "READY=1");
    wait_until(SOON, "what is the matter", || {
        let status = manager.last_status();
        let told = status.contains("bad: errored") && status.contains("later: waiting for address");
        if told { Ok(()) } else { Err(status) }
    });
}

#[test]
fn a_reload_is_told_before_it_begins_and_when_it_is_over() {
    let Some(node) = fixtures::node("server.js") else { return };
    let mut manager = Manager::listen();
    let port = free_port();
    // Long enough that how it stands is told meanwhile.
    let app = App::new("api", &node).instances(2).port(port).env("BOOT_MS", 700);
    let daemon = manager.above(app).start();
    let first = manager.wait_for(0, "READY=1");
    let old = daemon.wait_online("api", 2);
    let load = Load::on(port).clients(2).start();
    let asked = monotonic_micros();
    daemon.signal(Signal::SIGHUP);
    let begins = manager.wait_for(first + 1, "RELOADING=1\nMONOTONIC_USEC=");
    let told: u64 = manager.heard[begins].rsplit('=').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!((asked..=monotonic_micros()).contains(&told), "{asked} {told}");
    let over = manager.wait_for(begins, "READY=1");
    let new = daemon.wait_online("api", 2);
    assert!(new.iter().all(|pid| !old.contains(pid)), "{old:?} {new:?}");
    let told = &manager.heard[begins..over];
    assert!(
        told.iter().any(|word| word.starts_with("STATUS=1 app, ") && word.contains("; api: reload ")),
        "{told:?}"
    );

    // One that a command asks for is told, too.
    daemon.run(&["reload", "api"]).expect_code(0);
    let begins = manager.wait_for(over + 1, "RELOADING=1");
    let over = manager.wait_for(begins, "READY=1");

    // Who waits for the end of a reload gets one, also where nothing can be read.
    daemon.expects(&["ecosystem.toml"]);
    daemon.home.write("[[apps");
    daemon.signal(Signal::SIGHUP);
    let begins = manager.wait_for(over + 1, "RELOADING=1");
    manager.wait_for(begins, "READY=1");
    load.stop().expect_none_lost();
}

#[test]
fn a_reload_that_fails_is_over_as_well_and_the_status_says_it() {
    let Some(node) = fixtures::node("server.js") else { return };
    let mut manager = Manager::listen();
    let app = App::new("api", &node).instances(2).port(free_port());
    let daemon = manager.above(&app).start();
    daemon.expects(&["reload", "api"]);
    let first = manager.wait_for(0, "READY=1");
    daemon.home.write(&app.env("BOOT_MS", 60_000).text("listen_timeout", "300ms").to_string());
    daemon.signal(Signal::SIGHUP);
    let begins = manager.wait_for(first + 1, "RELOADING=1");
    manager.wait_for(begins, "READY=1");
    wait_until(SOON, "that it failed", || {
        let status = manager.last_status();
        if status.contains("api: reload failed") { Ok(()) } else { Err(status) }
    });
}

/// Fault 78: the sign of life comes from the loop itself, so that a loop which does not go round gives none.
#[test]
fn the_watchdog_is_fed_by_the_loop_itself() {
    let mut manager = Manager::listen();
    let app = App::new("idle", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let daemon = manager.above(app).env("WATCHDOG_USEC", "400000").start();
    manager.wait_for(0, "READY=1");
    let began = Instant::now();
    let before = manager.count("WATCHDOG=1");
    wait_until(SOON, "five signs of life while nothing happens", || {
        manager.count("WATCHDOG=1") >= before + 5
    });
    assert!(began.elapsed() >= ms(800), "they come at half of the time, not all at once");
    // A stopped process is a loop that is stuck.
    daemon.signal(Signal::SIGSTOP);
    wait_until(SOON, "that it is stopped", || {
        support::daemon::state_and_parent(daemon.pid).is_some_and(|(state, _)| state == 'T')
    });
    let stopped = manager.count("WATCHDOG=1");
    support::wait::holds_for(ms(1_000), "silence of a stuck loop", || manager.count("WATCHDOG=1") == stopped);
    daemon.signal(Signal::SIGCONT);
    wait_until(SOON, "another sign of life", || manager.count("WATCHDOG=1") > stopped);
}

#[test]
fn signs_of_life_for_another_process_are_not_ours_to_give() {
    let mut manager = Manager::listen();
    let app = App::new("idle", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let daemon = manager.above(app).env("WATCHDOG_USEC", "100000").env("WATCHDOG_PID", "1").start();
    daemon.wait_online("idle", 1);
    manager.wait_for(0, "READY=1");
    support::wait::holds_for(ms(500), "silence", || manager.count("WATCHDOG=1") == 0);
}

/// Fault 88.
#[test]
fn a_manager_without_room_is_told_later_and_in_order() {
    let mut manager = Manager::listen();
    let sender = UnixDatagram::unbound().expect("descriptors are left");
    sender.set_nonblocking(true).expect("it is ours");
    while sender.send_to(b"X=all the room", &manager.path).is_ok() {}
    let app = App::new("idle", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let daemon = manager.above(app).start();
    daemon.wait_online("idle", 1);
    daemon.run(&["reload", "idle"]).expect_code(0);
    manager.wait_for(0, "READY=1");
    let ready = manager.heard.iter().position(|word| word == "READY=1").expect("it was waited for");
    let reloading = manager.wait_for(ready, "RELOADING=1");
    manager.wait_for(reloading, "READY=1");
}

/// Workers have a socket of their own: what they say is for the supervisor.
#[test]
fn a_worker_cannot_speak_for_the_supervisor() {
    let mut manager = Manager::listen();
    let idle = App::new("idle", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let daemon: Daemon = manager.above(idle).start();
    let pid = daemon.wait_online("idle", 1)[0];
    manager.wait_for(0, "READY=1");
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).expect("it runs");
    assert!(!environment.contains(&manager.path.display().to_string()), "{environment:?}");
}

/// In the background who asked has its answer; the manager of whoever that was waits for somebody else's word.
#[test]
fn a_supervisor_in_the_background_says_nothing() {
    let mut manager = Manager::listen();
    let home = std::sync::Arc::new(support::Home::new(None));
    home.write(&App::new("idle", &fixtures::worker(&["idle"])).text("exec_mode", "fork").to_string());
    let path = home.file().display().to_string();
    let running = home.spawn_with(&["start", &path], |command| {
        command.env("NOTIFY_SOCKET", &manager.path);
    });
    home.finish(running).expect_code(0);
    let daemon = Daemon::of(&home);
    daemon.wait_online("idle", 1);
    assert_eq!(manager.count(""), 0, "{:?}", manager.heard);
}
