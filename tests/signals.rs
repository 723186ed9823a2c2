//! Signals to the supervisor, and the bound on its own end.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::daemon::exists;
use support::history::Outcome;
use support::wait::holds_for;
use support::{App, Daemon, Fixture, Hammer, Home, Load, file, fixtures, free_port, users, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn api(fixture: &Fixture, port: u16) -> App {
    App::new("api", fixture).instances(3).port(port)
}

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

/// Ends the supervisor in the middle of this load: whoever was accepted is served.
fn shuts_down_without_loss(app: App, user: Option<u32>, signal: Signal, load: Load) {
    let port = free_port();
    let mut daemon = Daemon::foreground_as(user, app.port(port).delay(50));
    let pids = daemon.wait_online("api", 3);
    let hammer = load.to(port).start();
    let asked = Instant::now();
    daemon.signal(signal);
    assert_eq!(daemon.wait_exit(ms(15_000)), 0, "{signal}");
    let done = Instant::now();
    let left = daemon.home.processes();
    assert!(left.is_empty(), "{signal}: {left:#?}");
    let history = hammer.stop();
    history.expect_only_refused_after(asked);
    history.expect_nothing_from(&pids, done);
}

#[test]
fn shutdown_under_load_loses_nothing_that_was_accepted() {
    for name in ["node", "perl", "go"] {
        let Some(fixture) = fixtures::server(name) else { continue };
        shuts_down_without_loss(api(&fixture, 0), None, Signal::SIGTERM, Load::on(0));
    }
    let Some(node) = fixtures::server("node") else { return };
    shuts_down_without_loss(api(&node, 0), None, Signal::SIGINT, Load::on(0));
    for user in users().into_iter().filter(Option::is_some) {
        shuts_down_without_loss(api(&node, 0), user, Signal::SIGTERM, Load::on(0));
    }
}

#[test]
fn kept_connections_and_streams_are_finished_before_the_end() {
    let Some(node) = fixtures::node("server.js") else { return };
    for user in users() {
        let quiet = |span: &str| api(&node, 0).text("drain_idle", span);
        let kept = Load::on(0).keep_alive(ms(30));
        shuts_down_without_loss(quiet("400ms"), user, Signal::SIGTERM, kept);
        let streams = Load::on(0).path("/stream?n=5&pause=300");
        shuts_down_without_loss(quiet("1s"), user, Signal::SIGTERM, streams);
    }
}

/// Fault 23.
#[test]
fn a_stop_while_starting_starts_nothing_more() {
    let Some(node) = fixtures::node("server.js") else { return };
    let apps = [api(&node, free_port()).env("BOOT_MS", 60_000), fork("other", &fixtures::worker(&["idle"]))];
    let mut daemon = Daemon::foreground(file(&apps));
    wait_until(ms(10_000), "launching workers", || {
        daemon.try_app("api").is_ok_and(|app| app.workers.iter().any(|worker| worker.pid.is_some()))
    });
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(10_000)), 0);
    assert_eq!(daemon.home.processes(), []);
}

/// Fault 23: at any moment of the start.
#[test]
fn a_stop_at_any_moment_of_the_start_ends_it() {
    for processes in (0..=3).cycle().take(12) {
        let app = App::new("api", &fixtures::worker(&["serve"])).instances(3).port(free_port());
        let mut daemon = Daemon::foreground(app);
        wait_until(ms(10_000), "the moment", || daemon.workers().len() >= processes);
        daemon.signal(Signal::SIGTERM);
        let code = daemon.wait_exit(ms(10_000));
        // Before it has taken its signals over, SIGTERM ends any program (128 + 15).
        assert!(code == 0 || (code == 143 && processes == 0), "{code} with {processes} processes");
        assert_eq!(daemon.home.processes(), [], "with {processes} processes");
    }
}

/// Fault 24.
#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [
        (Signal::SIGTERM, Signal::SIGTERM),
        (Signal::SIGINT, Signal::SIGINT),
        (Signal::SIGINT, Signal::SIGTERM),
    ] {
        let stubborn = fork("api", &fixtures::worker(&["ignore-signals"])).text("kill_timeout", "60s");
        let mut daemon = Daemon::foreground(format!("[daemon]\nshutdown_timeout = \"50s\"\n{stubborn}"));
        daemon.expects(&["asked to end a second time"]);
        daemon.wait_online("api", 1);
        daemon.wait_for_text("ignoring");
        daemon.signal(first);
        holds_for(ms(300), "it waits for its worker", || exists(daemon.pid));
        daemon.signal(second);
        assert_eq!(daemon.wait_exit(ms(5_000)), 0, "{first} and {second}");
        assert_eq!(daemon.home.processes(), [], "{first} and {second}");
    }
}

#[test]
fn shutdown_is_bounded_whatever_the_workers_do() {
    let stubborn =
        App::new("api", &fixtures::worker(&["stubborn-child"])).instances(3).text("exec_mode", "fork");
    let text = format!("[daemon]\nshutdown_timeout = \"1s\"\n{}", stubborn.text("kill_timeout", "60s"));
    let mut daemon = Daemon::foreground(text);
    daemon.expects(&["did not end in kill_timeout"]);
    daemon.wait_online("api", 3);
    let begin = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(10_000)), 0);
    assert!(begin.elapsed() < ms(3_000), "{:?}", begin.elapsed());
    assert_eq!(daemon.home.processes(), []);
}

#[test]
fn a_file_that_says_nothing_of_the_supervisor_leaves_its_shutdown_timeout_alone() {
    let stubborn = fork("api", &fixtures::worker(&["ignore-signals"])).text("kill_timeout", "60s");
    let mut daemon = Daemon::foreground(format!("[daemon]\nshutdown_timeout = \"1s\"\n{stubborn}"));
    daemon.expects(&["did not end in kill_timeout"]);
    daemon.wait_online("api", 1);
    daemon.wait_for_text("ignoring");
    daemon.home.put("second.toml", &fork("second", &fixtures::worker(&["idle"])).to_string());
    let second = daemon.home.apps().join("second.toml").display().to_string();
    daemon.run(&["start", &second]).expect_code(0);
    daemon.run(&["reload", &second]).expect_code(0);
    let begin = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(20_000)), 0);
    assert!(begin.elapsed() < ms(4_000), "{:?}", begin.elapsed());
}

#[test]
fn hang_up_reads_the_file_again_and_reloads() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&node, port).env("VERSION", 1));
    daemon.expects(&["reload on SIGHUP"]);
    let before = daemon.wait_online("api", 3);
    let hammer = Hammer::start(port);
    daemon.home.write("this is [not TOML");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_text("ecosystem.toml");
    assert_eq!(daemon.wait_online("api", 3), before, "a broken file changed something");
    daemon.home.write(&api(&node, port).env("VERSION", 2).to_string());
    daemon.signal(Signal::SIGHUP);
    wait_until(ms(20_000), "new workers only", || {
        let now = daemon.pids("api");
        now.len() == 3 && now.iter().all(|pid| !before.contains(pid))
    });
    assert_eq!(support::hammer::body(port, "/version"), "2");
    hammer.stop().expect_none_lost();
}

#[test]
fn hang_up_starts_what_is_new_in_the_file_and_leaves_what_is_gone_from_it() {
    let app = |name: &str| fork(name, &fixtures::worker(&["idle"]));
    let daemon = Daemon::foreground(file(&[app("one"), app("two"), app("three")]));
    daemon.expects(&["two: not in "]);
    let two = daemon.wait_online("two", 1);
    let one = daemon.wait_online("one", 1);
    daemon.run(&["delete", "three"]).expect_code(0);
    daemon.home.write(&file(&[app("one"), app("three"), app("four"), app("five")]));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_online("four", 1);
    daemon.wait_online("five", 1);
    wait_until(ms(10_000), "what stays in the file is reloaded", || daemon.wait_online("one", 1) != one);
    assert_eq!(daemon.wait_online("two", 1), two);
    assert!(daemon.try_app("three").is_err(), "what was deleted came back");
    let path = daemon.home.file().display().to_string();
    for said in [
        format!("four, five: new in {path}; starting"),
        format!("two: not in {path} any more; what runs stays as it is, and `clusterd delete NAME`"),
    ] {
        assert_eq!(daemon.log().matches(&said).count(), 1, "{said:?} in {}", daemon.log());
    }
    // A second time nothing is new.
    let four = daemon.wait_online("four", 1);
    daemon.signal(Signal::SIGHUP);
    wait_until(ms(10_000), "the new ones are reloaded, too", || daemon.wait_online("four", 1) != four);
    assert_eq!(daemon.log().matches("new in").count(), 1);
}

#[test]
fn hang_up_reloads_every_app_each_for_itself() {
    let serve = fixtures::worker(&["serve"]);
    let names = ["one", "two", "three"];
    let ports = names.map(|_| free_port());
    let app = |at: usize, version: u32| {
        App::new(names[at], &serve).instances(2).port(ports[at]).env("VERSION", version)
    };
    let daemon = Daemon::foreground(file(&[app(0, 1), app(1, 1), app(2, 1)]));
    daemon.expects(&["two: not in "]);
    let before = names.map(|name| daemon.wait_online(name, 2));
    // One of them is gone from the file: the others are not to suffer from it.
    daemon.home.write(&file(&[app(0, 2), app(2, 2)]));
    daemon.signal(Signal::SIGHUP);
    for (name, old) in names.into_iter().zip(&before) {
        wait_until(ms(20_000), &format!("what becomes of {name}"), || {
            let now = daemon.pids(name);
            let is_new = now.iter().all(|pid| !old.contains(pid));
            if now.len() == 2 && (is_new != (name == "two")) { Ok(()) } else { Err(now) }
        });
    }
    daemon.wait_for_text("two: not in");
    assert_eq!(daemon.wait_online("two", 2), before[1]);
}

/// Nobody's terminal, nobody's first file: all that was started, from whichever file.
#[test]
fn hang_up_of_a_background_supervisor_reloads_the_apps_of_every_file() {
    let Some(node) = fixtures::node("server.js") else { return };
    let ports = [free_port(), free_port()];
    let app = |name: &str, port: u16, version: u32| {
        App::new(name, &node).instances(2).port(port).delay(20).env("VERSION", version)
    };
    let one = |version: u32| app("one", ports[0], version);
    let two = |version: u32| app("two", ports[1], version);
    let (daemon, output) = Daemon::background(one(1));
    output.expect_code(0);
    daemon.home.put("two.toml", &two(1).to_string());
    daemon.run(&["start", "two.toml"]).expect_code(0);
    let before = ["one", "two"].map(|name| daemon.wait_online(name, 2));
    daemon.home.write(&one(2).to_string());
    daemon.home.put("two.toml", &file(&[two(2), fork("new", &fixtures::worker(&["idle"]))]));
    let hammers = ports.map(Hammer::start);
    daemon.signal(Signal::SIGHUP);
    for (name, old) in ["one", "two"].into_iter().zip(&before) {
        wait_until(ms(20_000), &format!("new workers of {name} only"), || {
            let now = daemon.pids(name);
            if now.len() == 2 && now.iter().all(|pid| !old.contains(pid)) { Ok(()) } else { Err(now) }
        });
    }
    assert_eq!(ports.map(|port| support::hammer::body(port, "/version")), ["2", "2"]);
    hammers.into_iter().for_each(|hammer| hammer.stop().expect_none_lost());
    assert!(daemon.try_app("new").is_err(), "only the foreground starts what is new in its file");
}

/// A terminal of its own for a command; it goes away with what is given back.
fn on_a_terminal(home: &Home, words: &[&str]) -> (Child, OwnedFd) {
    let pty = nix::pty::openpty(None, None).expect("terminals are left");
    // Or the command itself would keep its terminal from going away.
    let alone = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&pty.master, alone).expect("it is open");
    let plain = home.command(&[]);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(home.binary()).args(words).current_dir(home.apps()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let other = || Stdio::from(pty.slave.try_clone().expect("descriptors are left"));
    command.stdin(other()).stdout(other()).stderr(other());
    (command.spawn().expect("setsid is part of util-linux"), pty.master)
}

#[test]
fn a_foreground_supervisor_ends_with_its_terminal() {
    let home = Home::new(None);
    home.write(&api(&fixtures::worker(&["serve"]), free_port()).to_string());
    let path = home.file().display().to_string();
    let (mut child, terminal) = on_a_terminal(&home, &[&path]);
    wait_until(ms(10_000), "three workers and their supervisor", || home.processes().len() >= 4);
    wait_until(ms(10_000), "an answer", || home.run(&["ping"]).code == 0);
    drop(terminal);
    wait_until(ms(10_000), "nobody left", || {
        let ended = child.try_wait().ok().flatten().is_some();
        let left = home.processes();
        if ended && left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_background_supervisor_outlives_the_terminal_it_was_started_on() {
    let home = Home::new(None);
    home.write(&api(&fixtures::worker(&["serve"]), free_port()).to_string());
    let path = home.file().display().to_string();
    let (mut child, terminal) = on_a_terminal(&home, &["start", &path]);
    wait_until(ms(20_000), "the command's end", || child.try_wait().ok().flatten());
    let pids = home.run(&["pid", "api"]).expect_code(0).stdout;
    drop(terminal);
    holds_for(ms(500), "the same workers", || {
        let now = home.run(&["pid", "api"]);
        if now.stdout == pids { Ok(()) } else { Err(now) }
    });
    home.run(&["kill"]).expect_code(0);
}

#[test]
fn a_shutdown_goes_in_reverse_order_of_the_start() {
    let serve = fixtures::worker(&["serve"]);
    let app = |name: &str| App::new(name, &serve).instances(1).port(free_port());
    let mut daemon = Daemon::foreground(file(&[app("first"), app("second"), app("third")]));
    ["first", "second", "third"].iter().for_each(|name| drop(daemon.wait_online(name, 1)));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(10_000)), 0);
    let log = daemon.log();
    let leaving: Vec<&str> = log.lines().filter(|line| line.contains(": leaving (stop)")).collect();
    let order: Vec<&str> =
        leaving.iter().filter_map(|line| line.split("INFO  ").nth(1)?.split('/').next()).collect();
    assert_eq!(order, ["third", "second", "first"], "{log}");
}

/// Fault 36.
#[test]
fn a_storm_of_signals_loses_no_death_and_no_request() {
    let port = free_port();
    let app = api(&fixtures::worker(&["serve"]), port).set("max_restarts", 0);
    let daemon = Daemon::foreground(app);
    daemon.expects(&["was ended by SIGKILL", "unstable exits in a row"]);
    daemon.wait_online("api", 3);
    let hammer = Load::on(port).clients(2).start();
    for number in 0..10_000 {
        daemon.signal(if number % 100 == 0 { Signal::SIGHUP } else { Signal::SIGCHLD });
    }
    // Every one of these deaths comes in the middle of it.
    for pid in daemon.pids("api") {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        (0..1_000).for_each(|_| daemon.signal(Signal::SIGCHLD));
    }
    wait_until(ms(60_000), "the end of all reloads", || daemon.app("api").reload.is_none());
    daemon.wait_online("api", 3);
    assert!(daemon.zombies().is_empty());
    assert_eq!(daemon.workers().len(), 3);
    let history = hammer.stop();
    for never in [Outcome::Refused, Outcome::ConnectTimeout, Outcome::Timeout] {
        assert_eq!(history.count(never), 0, "{history:?}");
    }
}

#[test]
fn a_supervisor_whose_apps_all_ended_exits_with_their_code() {
    let app = fork("api", &fixtures::worker(&["exit", "7", "5"])).set("max_restarts", 2);
    let mut daemon = Daemon::foreground(app);
    daemon.expects(&[
        "exited with code 7 ",
        "unstable exits in a row",
        "no app can run any more; ending with code 7",
    ]);
    assert_eq!(daemon.wait_exit(ms(20_000)), 7);
    assert_eq!(daemon.home.processes(), []);
}

#[test]
fn usr1_tells_the_state() {
    let mut daemon = Daemon::foreground(fork("talkative", &fixtures::worker(&["idle"])));
    let pid = daemon.wait_online("talkative", 1)[0];
    let before = daemon.log().len();
    daemon.signal(Signal::SIGUSR1);
    wait_until(ms(5_000), "the worker's state in the log", || {
        let log = daemon.log();
        log[before.min(log.len())..].contains(&pid.to_string())
    });
    assert!(daemon.runs());
}

#[test]
fn usr2_opens_the_files_again() {
    let line = "echo before; while [ ! -e go ]; do sleep 0.02; done; echo after; exec sleep 1000";
    let daemon = Daemon::foreground(fork("api", &fixtures::shell(line)));
    let path = daemon.home.path().join("logs/api-out.log");
    let text = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    wait_until(ms(10_000), "the first line", || text(&path) == "before\n");
    let moved = path.with_extension("old");
    std::fs::rename(&path, &moved).expect("both are in one folder");
    daemon.signal(Signal::SIGUSR2);
    wait_until(ms(5_000), "a fresh file", || path.exists());
    daemon.home.put("go", "");
    wait_until(ms(10_000), "the second line", || text(&path) == "after\n");
    assert_eq!(text(&moved), "before\n");
}
