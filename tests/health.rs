//! Workers that are not well, found by checks of one chosen worker, by their own silence, and by clients that
//! wait for nothing; against servers that are no part of this program.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clusterd::control::protocol::{List, WorkerInfo};
use nix::sys::signal::Signal;
use support::daemon::{Builder, send};
use support::hammer::{Load, get};
use support::wait::holds_for;
use support::{App, Daemon, Fixture, Hammer, fixtures, free_port, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const HEALTH: &str = "{ http = \"/healthz\", interval = \"150ms\", timeout = \"500ms\", retries = 3 }";

fn server(way: &str) -> Option<Fixture> {
    let mut python = fixtures::python("health.py")?;
    python.command.push(way.to_owned());
    Some(python)
}

fn api(fixture: &Fixture, port: u16) -> App {
    App::new("api", fixture).instances(3).port(port).text("kill_timeout", "5s").text("drain_timeout", "2s")
}

/// The workers as they were, but for this one.
fn wait_replaced(daemon: &Daemon, before: &[i32], instance: usize) -> WorkerInfo {
    wait_until(ms(15_000), "one new worker, and the others as they were", || {
        let now = daemon.online("api");
        let pids: Vec<Option<i32>> = now.iter().map(|worker| worker.pid).collect();
        let same = |at: usize| pids.get(at) == Some(&Some(before[at]));
        let right = pids.len() == before.len() && (0..before.len()).all(|at| same(at) == (at != instance));
        let told = now.get(instance).is_some_and(|worker| worker.last_exit.is_some());
        if right && told { Ok(now[instance].clone()) } else { Err(format!("{pids:?}, before {before:?}")) }
    })
}

fn exit_of(worker: &WorkerInfo) -> (String, String) {
    let exit = worker.last_exit.clone().expect("its predecessor ended");
    (exit.reason, exit.message.unwrap_or_default())
}

#[test]
fn each_worker_is_asked_by_itself_and_only_the_sick_one_is_replaced() {
    let Some(python) = server("plain") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&python, port).set("health", HEALTH));
    daemon.expects(&["health checks in a row"]);
    let before = daemon.wait_online("api", 3);
    // What each instance was asked reached its own process and no other.
    let asked = |instance: usize| -> BTreeSet<i32> {
        let text = std::fs::read_to_string(daemon.home.apps().join(format!("asked-{instance}")));
        text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    };
    wait_until(ms(10_000), "all were asked", || (0..3).all(|instance| !asked(instance).is_empty()));
    holds_for(ms(500), "each process is asked, and nobody is replaced", || daemon.pids("api") == before);
    let counts = |instance: usize| {
        let text = std::fs::read_to_string(daemon.home.apps().join(format!("asked-{instance}")));
        text.unwrap_or_default().lines().count()
    };
    let marks: Vec<usize> = (0..3).map(counts).collect();
    wait_until(ms(5_000), "each again and again", || (0..3).all(|i| counts(i) >= marks[i] + 3));
    let hammer = Hammer::start(port);
    daemon.home.put("sick-1", "");
    wait_until(ms(10_000), "the sick one is found", || daemon.log().contains("failed 3 health checks"));
    std::fs::remove_file(daemon.home.apps().join("sick-1")).expect("it was put there");
    let worker = wait_replaced(&daemon, &before, 1);
    hammer.wait_answers(20);
    hammer.stop().expect_none_lost();
    let (reason, message) = exit_of(&worker);
    assert_eq!(reason, "health");
    assert!(message.contains("it answered 503"), "{message}");
    for instance in [0, 2] {
        assert_eq!(asked(instance), BTreeSet::from([before[instance]]), "instance {instance}");
    }
}

#[test]
fn a_worker_that_does_not_answer_in_time_is_replaced() {
    let Some(python) = server("plain") else { return };
    let health = HEALTH.replace("500ms", "200ms");
    let daemon = Daemon::foreground(api(&python, free_port()).set("health", health));
    daemon.expects(&["health checks in a row"]);
    let before = daemon.wait_online("api", 3);
    daemon.home.put("mute-2", "");
    daemon.wait_for_text("no answer within 200ms");
    std::fs::remove_file(daemon.home.apps().join("mute-2")).expect("it was put there");
    assert_eq!(exit_of(&wait_replaced(&daemon, &before, 2)).0, "health");
}

/// What the supervisor cannot ask, for want of something of its own or the host's, is nobody's bad answer.
#[test]
fn a_host_that_is_short_of_something_costs_no_healthy_worker() {
    let Some(python) = server("plain") else { return };
    let Some(refused) = fixtures::python("refused.py") else { return };
    let port = free_port();
    // As with no local port left to connect from.
    let (call, errno) = (libc::SYS_connect.to_string(), libc::EADDRNOTAVAIL.to_string());
    let wrap = [&refused.command[0], "refused.py", &call, &errno, "2", "0"];
    let daemon = Builder::new(api(&python, port).set("health", HEALTH)).wrap(&wrap).start();
    daemon.expects(&["could not be made and is tried again"]);
    let before = daemon.wait_online("api", 3);
    daemon.wait_for_text("1 check of a worker could not be made and is tried again: api/");
    holds_for(ms(1_500), "nobody is replaced", || daemon.pids("api") == before);
    assert_eq!(daemon.log().matches("could not be made").count(), 1, "{}", daemon.log());
    assert!(daemon.online("api").iter().all(|worker| worker.restarts == 0));
}

/// Whatever comes and goes meanwhile, a handshake that takes its time is with the asked worker, and the
/// answer of another one does not make it well.
#[test]
fn a_slow_check_stays_with_its_worker_while_connections_are_steered_anew() {
    let port = free_port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let app = App::new("api", &fixtures::worker(&["serve", "fds"])).instances(2).text("drain_timeout", "1s");
    let app = app
        .set("listen", format!("{{ address = \"127.0.0.1:{port}\", backlog = 1 }}"))
        .set("health", "{ http = \"/\", interval = \"200ms\", timeout = \"2200ms\", retries = 3 }");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["accept queue runs over", "failed 3 health checks"]);
    let sick = daemon.wait_online("api", 2)[0];
    send(sick, Signal::SIGSTOP);
    // A full queue drops what comes, and the kernel tries again a second later.
    let mut clients = Vec::new();
    wait_until(ms(10_000), "a full queue", || {
        clients.extend(TcpStream::connect_timeout(&to, ms(20)));
        let output = daemon.run(&["list", "api", "--connections", "--json"]).expect_code(0);
        let list: List = serde_json::from_str(&output.stdout).expect("a list");
        list.apps[0].workers[0].queue_depth > list.apps[0].workers[0].queue_limit
    });
    let mut count = 2;
    wait_until(ms(13_000), "the sick one is found", || {
        count = 5 - count;
        daemon.run(&["scale", "api", &count.to_string()]).expect_code(0);
        !daemon.pids("api").contains(&sick)
    });
    assert!(daemon.log().contains("failed 3 health checks in a row, at last: no connection within"));
}

#[test]
fn a_tcp_check_asks_whether_the_connection_is_accepted() {
    let Some(python) = server("hangs") else { return };
    let port = free_port();
    let health = "{ tcp = true, interval = \"150ms\", timeout = \"300ms\", retries = 2 }";
    let daemon = Daemon::foreground(api(&python, port).set("health", health));
    daemon.expects(&["health checks in a row", "drain_timeout is over"]);
    let before = daemon.wait_online("api", 3);
    holds_for(ms(800), "nobody is replaced", || daemon.pids("api") == before);
    // The kernel still takes connections for a process that hangs.
    daemon.home.put("hang-0", "");
    let (reason, message) = exit_of(&wait_replaced(&daemon, &before, 0));
    assert_eq!(reason, "health");
    assert!(message.contains("was not accepted within 300ms"), "{message}");
}

#[test]
fn a_command_asks_about_the_worker_it_is_told() {
    let line = "echo about $CLUSTERD_PID of $CLUSTERD_INSTANCE in $MOOD; test ! -e sick-$CLUSTERD_INSTANCE";
    let health = format!(
        "{{ command = [\"/bin/sh\", \"-c\", {line:?}], interval = \"150ms\", timeout = \"1s\", retries = 2 }}"
    );
    // It never listens: a command needs no port.
    let app =
        App::new("api", &fixtures::worker(&["idle"])).instances(2).text("ready", "exec").env("MOOD", "doubt");
    let daemon = Daemon::foreground(app.set("health", health).text("min_uptime", "100ms"));
    daemon.expects(&["health checks in a row"]);
    let before = daemon.wait_online("api", 2);
    holds_for(ms(600), "nobody is replaced", || daemon.pids("api") == before);
    daemon.home.put("sick-1", "");
    daemon.wait_for_text("failed 2 health checks");
    std::fs::remove_file(daemon.home.apps().join("sick-1")).expect("it was put there");
    let (reason, message) = exit_of(&wait_replaced(&daemon, &before, 1));
    assert_eq!(reason, "health");
    let about = format!("about {} of 1 in doubt", before[1]);
    assert!(message.contains("exited with code 1") && message.contains(&about), "{message}");
}

#[test]
fn a_command_that_does_not_end_is_killed_with_all_it_started() {
    let health = "{ command = [\"/bin/sh\", \"-c\", \"sleep 987 & sleep 987\"], interval = \"100ms\", \
                  timeout = \"200ms\", retries = 2 }";
    let app = App::new("api", &fixtures::worker(&["idle"])).instances(1).text("ready", "exec");
    let daemon = Daemon::foreground(app.set("health", health).text("min_uptime", "100ms"));
    daemon.expects(&["health checks in a row"]);
    daemon.wait_for_text("the command did not end within 200ms");
    daemon.run(&["stop", "api"]).expect_code(0);
    wait_until(ms(5_000), "no process is left", || {
        daemon.workers().is_empty() && daemon.zombies().is_empty()
    });
}

#[test]
fn a_new_version_that_is_not_well_fails_its_reload() {
    let Some(python) = server("plain") else { return };
    let port = free_port();
    let app = api(&python, port).set("health", HEALTH);
    let daemon = Daemon::foreground(&app);
    daemon.expects(&["health checks in a row", "reload to generation 2 failed"]);
    let before = daemon.wait_online("api", 3);
    let hammer = Hammer::start(port);
    daemon.home.write(&app.clone().env("SICK", "yes").to_string());
    let output = daemon.run(&["reload", "api"]).expect_code(1);
    assert!(
        output.stderr.contains("failed 3 health checks in a row, at last: it answered 503"),
        "{output:?}"
    );
    assert_eq!(daemon.wait_online("api", 3), before);
    still_says_why(&daemon, "health", &format!("at last: it answered 503 (GET /healthz at 0.0.0.0:{port})"));
    daemon.home.write(&app.to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    assert_eq!(daemon.app("api").reload, None);
    hammer.stop().expect_none_lost();
}

/// When the worker is gone, the reload and its slot's last exit say what was the matter as they did while it lived.
fn still_says_why(daemon: &Daemon, reason: &str, why: &str) {
    let app = wait_until(ms(10_000), "the new worker is gone", || {
        let app = daemon.app("api");
        let failed = app.reload.as_ref().is_some_and(|reload| reload.state == "failed");
        if failed && app.workers.len() == 3 { Ok(app) } else { Err(format!("{app:#?}")) }
    });
    let told = app.reload.and_then(|reload| reload.reason).unwrap_or_default();
    assert!(told.contains(why), "{told}");
    let exits: Vec<_> = app.workers.iter().filter_map(|worker| worker.last_exit.clone()).collect();
    let right = |exit: &&clusterd::control::protocol::LastExitInfo| {
        exit.reason == reason && exit.message.as_ref().is_some_and(|message| message.contains(why))
    };
    assert_eq!(exits.iter().filter(right).count(), 1, "{exits:#?}");
    assert!(daemon.run(&["describe", "api"]).stdout.contains(why));
}

#[test]
fn bad_answers_do_not_count_in_the_start_period() {
    let Some(python) = server("plain") else { return };
    let health = "{ http = \"/healthz\", interval = \"100ms\", retries = 1, start_period = \"30s\" }";
    let app = api(&python, free_port()).instances(1).set("health", health);
    let daemon = Daemon::foreground(&app);
    daemon.expects(&["health checks in a row"]);
    daemon.home.put("sick-0", "");
    let before = daemon.wait_online("api", 1);
    holds_for(ms(1_000), "it is given its time", || daemon.pids("api") == before);
    std::fs::remove_file(daemon.home.apps().join("sick-0")).expect("it was put there");
    let asked = daemon.home.apps().join("asked-0");
    let count = || std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
    let mark = count();
    wait_until(ms(5_000), "good answers", || count() >= mark + 4);
    // Whoever was well once has no excuse.
    daemon.home.put("sick-0", "");
    daemon.wait_for_text("failed 1 health checks");
}

#[test]
fn ready_by_http_asks_the_worker_itself() {
    let Some(python) = server("plain") else { return };
    let port = free_port();
    let app = api(&python, port).text("ready", "http:/healthz");
    let daemon = Daemon::foreground(&app);
    daemon.expects(&["reload to generation 2 failed"]);
    daemon.wait_online("api", 3);
    let log = daemon.log();
    assert_eq!(log.matches("(it answered)").count(), 3, "{log}");
    // Beside others that answer well, one that does not is not ready.
    let before = daemon.pids("api");
    let sick = app.clone().env("SICK", "yes").text("listen_timeout", "1500ms");
    daemon.home.write(&sick.to_string());
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["not ready within listen_timeout"]);
    assert_eq!(daemon.wait_online("api", 3), before);
    assert_eq!(get(port, "/").expect("an answer").0, 200);
    still_says_why(&daemon, "reload", &format!("at last: it answered 503 (GET /healthz at 0.0.0.0:{port})"));
    // What was restarted has not failed any more.
    daemon.home.write(&app.to_string());
    daemon.run(&["restart", "api"]).expect_code(0);
    assert_eq!(daemon.app("api").reload, None);
}

/// Two free ports, the lower one first.
fn two_ports() -> (u16, u16) {
    let (one, other) = (free_port(), free_port());
    (one.min(other), one.max(other))
}

/// A server of one instance with a metrics port that it opens first.
fn with_metrics(fixture: &Fixture, port: u16, metrics: u16) -> App {
    api(fixture, port).instances(1).env("METRICS", metrics)
}

/// It was asked at least three times, and stays.
fn wait_well(daemon: &Daemon) {
    let before = daemon.wait_online("api", 1);
    let asked = daemon.home.apps().join("asked-0");
    let count = || std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
    let mark = count();
    wait_until(ms(10_000), "it is asked at its own port", || count() >= mark + 4);
    assert_eq!(daemon.pids("api"), before);
}

#[test]
fn a_server_with_a_metrics_port_is_asked_at_its_own() {
    let Some(python) = server("plain") else { return };
    let (port, metrics) = two_ports();
    let app = with_metrics(&python, port, metrics).set("health", HEALTH);
    wait_well(&Daemon::foreground(app));
    // What `listen` declares goes before any other port, from the first question on.
    let (metrics, port) = two_ports();
    let app = with_metrics(&python, port, metrics)
        .env("SERVE", "handed")
        .text("listen", &format!("0.0.0.0:{port}"));
    let daemon = Daemon::foreground(app.set("health", HEALTH).text("ready", "http:/healthz"));
    wait_well(&daemon);
    daemon.run(&["reload", "api"]).expect_code(0);
    wait_well(&daemon);
}

#[test]
fn the_file_chooses_the_port_at_which_a_worker_is_asked() {
    let Some(python) = server("plain") else { return };
    let (metrics, port) = two_ports();
    let at = |place: &str| HEALTH.replace(", interval", &format!(", {place}, interval"));
    let app = with_metrics(&python, port, metrics);
    let daemon = Daemon::foreground(app.clone().set("health", at(&format!("port = {port}"))));
    daemon.expects(&["health checks in a row", "reload to generation"]);
    wait_well(&daemon);
    let shown = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    assert!(shown.contains(&format!("port = {port}")), "{shown}");
    // The reason says where it was asked, and where it listens instead.
    daemon.home.write(&app.clone().set("health", HEALTH).to_string());
    let place = format!("at last: it answered 404 (GET /healthz at 0.0.0.0:{metrics})");
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&[&place]);
    let nowhere = free_port();
    daemon.home.write(&app.clone().set("health", at(&format!("port = {nowhere}"))).to_string());
    let first = format!("at last: it does not listen on port {nowhere}, but on 0.0.0.0:");
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&[&first]);
    let ready = app.clone().text("listen_timeout", "2s");
    let late = ready.clone().text("ready", &format!("http://:{metrics}/healthz"));
    daemon.home.write(&late.to_string());
    let place = format!("it answered 404 (GET /healthz at 0.0.0.0:{metrics})");
    daemon
        .run(&["reload", "api"])
        .expect_code(1)
        .expect_stderr(&["not ready within listen_timeout (2s)", &place]);
    daemon.home.write(&ready.text("ready", &format!("http://127.0.0.1:{port}/healthz")).to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
}

/// Fault 15, the last part: a frozen worker is noticed by its silence.
#[test]
fn a_silent_or_frozen_worker_is_replaced_with_evidence() {
    let Some(python) = server("alive") else { return };
    let app = api(&python, free_port()).text("watchdog", "600ms").text("ready", "notify");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["has not said"]);
    let before = daemon.wait_online("api", 3);
    daemon.wait_for_text("watchdog of me");
    holds_for(ms(1_500), "who says that it is well is left alone", || daemon.pids("api") == before);
    daemon.home.put("silent-0", "");
    let (reason, message) = exit_of(&wait_replaced(&daemon, &before, 0));
    assert_eq!(reason, "watchdog");
    assert!(message.contains("has not said WATCHDOG=1 for 600ms"), "{message}");
    let before = daemon.wait_online("api", 3);
    send(before[1], Signal::SIGSTOP);
    let (reason, message) = exit_of(&wait_replaced(&daemon, &before, 1));
    assert_eq!(reason, "watchdog");
    assert!(message.contains("state T (stopped)"), "{message}");
}

#[test]
fn a_worker_that_triggers_its_watchdog_is_replaced() {
    let Some(python) = server("trigger") else { return };
    let daemon = Daemon::foreground(api(&python, free_port()).text("ready", "notify"));
    daemon.expects(&["asked to be replaced"]);
    let before = daemon.wait_online("api", 3);
    daemon.home.put("go-2", "");
    let (reason, message) = exit_of(&wait_replaced(&daemon, &before, 2));
    assert_eq!(reason, "watchdog");
    assert!(message.contains("asked to be replaced"), "{message}");
}

/// One worker, so that its successor is the only other one: whoever stopped it first would refuse its clients, and whoever
/// did not wait for what it does would cut them off.
#[test]
fn who_is_not_well_is_replaced_beside_itself_and_finishes_what_it_has() {
    for (way, sign, said) in [
        ("trigger", "go-0", "asked to be replaced"),
        ("alive", "silent-0", "has not said"),
        ("plain", "sick-0", "health checks in a row"),
    ] {
        let Some(python) = server(way) else { return };
        let port = free_port();
        let app = api(&python, port).instances(1).text("min_uptime", "100ms").env("SLOW_S", "0.4");
        let app = match way {
            "plain" => app.set("health", HEALTH),
            "alive" => app.text("ready", "notify").text("watchdog", "1s"),
            _ => app.text("ready", "notify"),
        };
        let daemon = Daemon::foreground(app);
        daemon.expects(&[said]);
        let before = daemon.wait_online("api", 1);
        // It says that it is ready a moment before it listens.
        wait_until(ms(5_000), "a first answer", || get(port, "/").is_ok());
        let hammer = Load::on(port).clients(6).start();
        hammer.wait_answers(6);
        daemon.home.put(sign, "");
        daemon.wait_for_text(said);
        // The program takes the others away itself.
        let _ = std::fs::remove_file(daemon.home.apps().join("sick-0"));
        wait_replaced(&daemon, &before, 0);
        hammer.wait_answers(12);
        hammer.stop().expect_none_lost();
    }
}

#[test]
fn a_worker_that_reloads_itself_is_not_judged_by_its_silence() {
    let Some(python) = server("reloading") else { return };
    let app = api(&python, free_port()).text("ready", "notify").text("watchdog", "400ms");
    let daemon = Daemon::foreground(app);
    let before = daemon.wait_online("api", 3);
    holds_for(ms(1_500), "it is busy", || daemon.pids("api") == before);
    daemon.home.put("back", "");
    holds_for(ms(1_000), "and well after it", || daemon.pids("api") == before);
}

#[test]
fn a_hung_worker_is_found_by_its_queue_and_replaced_with_evidence() {
    let Some(python) = server("hangs") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&python, port).text("hang_timeout", "800ms"));
    daemon.expects(&["lets its clients wait"]);
    let before = daemon.wait_online("api", 3);
    let hammer = Hammer::start(port);
    hammer.wait_answers(50);
    holds_for(ms(1_500), "who serves is left alone", || daemon.pids("api") == before);
    daemon.home.put("hang-1", "");
    let (reason, message) = exit_of(&wait_replaced(&daemon, &before, 1));
    assert_eq!(reason, "watchdog");
    for evidence in ["lets its clients wait", "state S (sleeping)", "syscall"] {
        assert!(message.contains(evidence), "no {evidence:?}: {message}");
    }
    // Whoever waited in its queue is handed on to the others.
    hammer.wait_answers(20);
    hammer.stop().expect_none_lost();
}
