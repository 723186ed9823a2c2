//! More and fewer workers, without losing a request.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use support::history::Outcome;
use support::{App, Daemon, Fixture, Hammer, Load, fixtures, free_port, users, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn api(fixture: &Fixture, port: u16) -> App {
    App::new("api", fixture).instances(6).port(port)
}

/// Whoever was removed answers nothing more; who stayed, and who came, does.
fn six_one_six(app: App, user: Option<u32>, load: Load) {
    let port = free_port();
    let daemon = Daemon::foreground_as(user, app.port(port).text("drain_timeout", "5s"));
    // Where the host is busy, a connection that is used all the time may show no moment between two requests in so
    // short a time: what becomes of its requests is what counts.
    daemon.expects(&["drain_timeout is over"]);
    let first = daemon.wait_online("api", 6);
    let hammer = load.to(port).start();
    daemon.run(&["scale", "api", "1"]).expect_code(0);
    let removed = Instant::now();
    assert_eq!(daemon.wait_online("api", 1), first[..1]);
    hammer.wait_answers(20);
    daemon.run(&["scale", "api", "6"]).expect_code(0);
    let last = daemon.wait_online("api", 6);
    // Kept connections stay where they are: only new clients find the new ones.
    let fresh = Hammer::start(port);
    wait_until(ms(20_000), "answers of all", || {
        let seen = fresh.so_far().by_pid();
        last.iter().all(|pid| seen.contains_key(pid))
    });
    fresh.stop().expect_none_lost();
    let history = hammer.stop();
    history.expect_none_lost();
    history.expect_nothing_from(&first[1..], removed);
}

#[test]
fn six_to_one_to_six_loses_nothing() {
    for name in ["node", "go", "perl", "epoll-first"] {
        let Some(fixture) = fixtures::server(name) else { continue };
        six_one_six(api(&fixture, 0).delay(20), None, Load::on(0));
    }
}

#[test]
fn six_to_one_to_six_loses_nothing_as_an_ordinary_user() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    for user in users().into_iter().filter(Option::is_some) {
        six_one_six(api(&fixture, 0).delay(20), user, Load::on(0));
    }
}

#[test]
fn six_to_one_to_six_loses_nothing_on_kept_connections() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    for user in users() {
        let app = api(&fixture, 0).delay(5).text("drain_idle", "10ms");
        six_one_six(app, user, Load::on(0).keep_alive(ms(30)));
    }
}

#[test]
fn six_to_one_to_six_cuts_no_stream() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    for (user, path) in users().into_iter().zip(["/stream?n=6&pause=100", "/events?n=6&pause=100"]) {
        let app = api(&fixture, 0).text("drain_idle", "400ms");
        six_one_six(app, user, Load::on(0).path(path));
    }
}

#[test]
fn the_load_is_spread_over_all_workers() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).instances(4));
    let pids = daemon.wait_online("api", 4);
    let hammer = Hammer::start(port);
    hammer.wait_answers(1_000);
    let history = hammer.stop();
    history.expect_none_lost();
    let counts = history.by_pid();
    let all: usize = counts.values().sum();
    for pid in pids {
        let share = counts.get(&pid).copied().unwrap_or(0) * 100 / all;
        assert!((15..=35).contains(&share), "{share} % for {pid}: {history:?}");
    }
}

#[test]
fn plus_and_minus_count_from_what_is_wanted() {
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixtures::worker(&["serve"]), port).instances(2));
    let first = daemon.wait_online("api", 2);
    daemon.run(&["scale", "api", "+2"]).expect_code(0);
    assert_eq!(daemon.wait_online("api", 4)[..2], first, "running workers were touched");
    daemon.run(&["scale", "api", "-1"]).expect_code(0);
    daemon.wait_online("api", 3);
    daemon.run(&["scale", "api", "3"]).expect_code(0);
    daemon.run(&["scale", "api", "-99"]).expect_code(0);
    daemon.wait_online("api", 1);
    for nonsense in ["x", "1.5", "+", "", "99999999999", "+1000"] {
        let output = daemon.run(&["scale", "api", "--", nonsense]);
        assert_ne!(output.code, 0, "{nonsense:?}: {output:?}");
    }
    daemon.wait_online("api", 1);
}

#[test]
fn scale_down_removes_the_highest_and_scale_up_reuses_the_lowest_number() {
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixtures::worker(&["serve"]), port).instances(3));
    let before = daemon.wait_online("api", 3);
    daemon.run(&["scale", "api", "2"]).expect_code(0);
    assert_eq!(daemon.wait_online("api", 2), before[..2], "not the highest was removed");
    daemon.run(&["scale", "api", "4"]).expect_code(0);
    daemon.wait_online("api", 4);
    let app = daemon.app("api");
    let mut instances: Vec<u32> = app.workers.iter().map(|worker| worker.instance).collect();
    instances.sort_unstable();
    assert_eq!(instances, [0, 1, 2, 3]);
    let mut ids: Vec<u32> = app.workers.iter().map(|worker| worker.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn a_worker_knows_its_number() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).instances(3));
    daemon.wait_online("api", 3);
    let workers = daemon.online("api");
    let hammer = Hammer::start(port);
    hammer.wait_answers(200);
    let history = hammer.stop();
    for by in
        history.records.iter().filter(|record| record.outcome == Outcome::Ok).filter_map(|record| record.by)
    {
        let worker = workers.iter().find(|worker| worker.pid == Some(by.pid)).expect("a listed worker");
        assert_eq!(by.instance, Some(worker.instance));
        assert_eq!(by.generation, worker.generation);
    }
}

#[test]
fn scale_up_that_cannot_start_leaves_what_serves() {
    let port = free_port();
    let line =
        "[ \"$NODE_APP_INSTANCE\" -lt 2 ] || { echo too many >&2; exit 4; }; exec ./fixture_worker serve";
    let app = api(&fixtures::shell(line), port).instances(2).set("max_restarts", 2);
    let daemon = Daemon::foreground(app);
    daemon.expects(&["exited with code 4 ", "unstable exits in a row"]);
    let before = daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    daemon.run(&["scale", "api", "3"]).expect_code(1).expect_stderr(&["api", "too many"]);
    let after: Vec<i32> = wait_until(ms(5_000), "the first two", || {
        let pids = daemon.pids("api");
        if pids.len() == 2 { Ok(pids) } else { Err(pids) }
    });
    assert_eq!(after, before);
    hammer.stop().expect_none_lost();
}

#[test]
fn an_unknown_app_is_not_scaled() {
    let daemon = Daemon::foreground(api(&fixtures::worker(&["idle"]), free_port()).instances(1));
    daemon.run(&["ping"]).expect_code(0);
    daemon.run(&["scale", "nobody", "2"]).expect_code(1).expect_stderr(&["nobody"]);
}

/// Workers that have been started.
fn started(daemon: &Daemon) -> usize {
    daemon.app("many").workers.iter().filter(|worker| worker.pid.is_some()).count()
}

#[test]
fn a_question_is_answered_while_many_workers_start_and_a_stop_leaves_none_of_them() {
    let app =
        "[[apps]]\nname = \"many\"\ncommand = [\"sleep\", \"1000\"]\nexec_mode = \"fork\"\ninstances = 1\n";
    let daemon = Daemon::foreground(app);
    daemon.wait_online("many", 1);
    daemon.run(&["scale", "many", "100", "--no-wait"]).expect_code(0);
    let seen = started(&daemon);
    assert!(seen < 100, "the question waited for the last start");
    let pids = daemon.wait_online("many", 100);
    daemon.run(&["scale", "many", "200", "--no-wait"]).expect_code(0);
    daemon.run(&["stop", "many"]).expect_code(0);
    assert_eq!(started(&daemon), 0);
    assert!(!std::path::Path::new(&format!("/proc/{}", pids[99])).exists());
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid));
    assert_eq!(children.expect("the supervisor lives").trim(), "", "somebody was started after the stop");
}

/// A question and its answer over the control socket, by one client.
fn ping(client: &mut UnixStream) {
    client.write_all(b"{\"version\":1,\"request\":{\"verb\":\"ping\"}}\n").expect("the supervisor listens");
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).expect("an answer");
    assert!(answer.contains("pong"), "{answer}");
}

/// Whether a process was told to stop: it is gone, or ends, or has the signal before it.
fn is_told(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let alive = field("State:").is_some_and(|state| !state.starts_with(['Z', 'X']));
    let pending = field("ShdPnd:").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    !alive || pending & (1 << 14) != 0
}

#[test]
fn a_question_is_answered_while_many_workers_are_told_to_stop() {
    let app =
        "[[apps]]\nname = \"many\"\ncommand = [\"sleep\", \"1000\"]\nexec_mode = \"fork\"\ninstances = 200\n";
    let daemon = Daemon::foreground(app);
    daemon.wait_online("many", 200);
    // The host may take the time away in which that shows; where each waits for all it never does.
    let between = (0..10).any(|_| {
        let pids = daemon.pids("many");
        let mut client = UnixStream::connect(daemon.home.socket()).expect("the supervisor listens");
        daemon.run(&["stop", "many", "--no-wait"]).expect_code(0);
        while !is_told(pids[0]) {
            std::hint::spin_loop();
        }
        ping(&mut client);
        let between = !is_told(pids[199]);
        daemon.run(&["stop", "many"]).expect_code(0);
        daemon.run(&["start", "many"]).expect_code(0);
        between
    });
    assert!(between, "the question waited until the last one was told");
}
