//! Workers that take too much memory, or are too old, are replaced; nobody who asks them notices.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::time::Duration;

use clusterd::control::protocol::{AppInfo, WorkerInfo};
use nix::sys::signal::Signal;
use support::daemon::{Builder, send, status_kib};
use support::hammer::get;
use support::wait::holds_for;
use support::{App, Daemon, Fixture, Load, MemoryGroup, fixtures, free_port, skip, users, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A Node server takes about 50 MiB by itself, of which its workers share a part.
fn api(node: &Fixture, port: u16) -> App {
    let app = App::new("api", node).instances(2).port(port).text("min_healthy_time", "200ms");
    app.text("max_memory_restart", "160M")
}

fn file(app: impl ToString) -> String {
    format!("[daemon]\npoll_interval = \"100ms\"\n\n{}", app.to_string())
}

/// The worker that answered, by its process id.
fn answer(port: u16, path: &str) -> String {
    get(port, path).expect("an answer").1
}

fn reason(worker: &WorkerInfo) -> Option<&str> {
    worker.last_exit.as_ref().map(|exit| exit.reason.as_str())
}

fn wait_for_reason(daemon: &Daemon, expected: &str) -> AppInfo {
    wait_until(ms(20_000), expected, || {
        let app = daemon.app("api");
        let seen = app.workers.iter().any(|worker| reason(worker) == Some(expected));
        if seen { Ok(app) } else { Err(format!("{:?}", app.workers)) }
    })
}

#[test]
fn a_fat_worker_is_replaced_and_no_request_is_lost() {
    let Some(node) = fixtures::node("server.js") else { return };
    for user in users() {
        let port = free_port();
        let daemon = Builder::new(file(api(&node, port))).user(user).start();
        daemon.expects(&["more than max_memory_restart"]);
        let before = daemon.wait_online("api", 2);
        let hammer = Load::on(port).clients(4).path("/?delay=5").start();
        holds_for(ms(500), "nobody is replaced who takes little", || daemon.pids("api") == before);
        answer(port, "/grow/180");
        let app = wait_for_reason(&daemon, "memory");
        let after = daemon.wait_online("api", 2);
        assert_eq!(before.iter().filter(|pid| after.contains(pid)).count(), 1, "{before:?}, {after:?}");
        let replaced = app.workers.iter().find(|worker| reason(worker) == Some("memory"));
        assert_eq!(replaced.map(|worker| worker.restarts), Some(1), "{app:?}");
        hammer.stop().expect_none_lost();
        let log = daemon.log();
        for line in
            ["more than max_memory_restart (160.0 MiB)", "the new one is ready before the old one leaves"]
        {
            assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
        }
    }
}

#[test]
fn what_a_worker_started_counts_with_it() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(file(api(&node, port).instances(1)));
    daemon.expects(&["more than max_memory_restart"]);
    let before = daemon.wait_online("api", 1);
    answer(port, "/child/180");
    wait_for_reason(&daemon, "memory");
    assert_ne!(daemon.wait_online("api", 1), before);
}

/// What a server loaded before it forked is there once, though each of its processes has it. Who has grown since that
/// was found is looked at again at once, not after ten seconds.
#[test]
fn what_processes_share_counts_once_and_a_leak_behind_it_is_found_at_once() {
    let Some(python) = fixtures::python("forked.py") else { return };
    let port = free_port();
    let app = App::new("api", &python).instances(1).port(port).env("FAT", 100);
    let app = app.text("max_memory_restart", "160M").text("min_healthy_time", "100ms");
    let daemon = Daemon::foreground(file(app));
    daemon.expects(&["more than max_memory_restart"]);
    let before = daemon.wait_online("api", 1);
    let resident: u64 = daemon.workers().iter().filter_map(|process| status_kib(process.pid, "VmRSS:")).sum();
    assert!(resident > 180 * 1024, "both have it: {resident} KiB");
    holds_for(ms(1500), "nobody is replaced for what is there once", || daemon.pids("api") == before);
    answer(port, "/grow/80");
    let grown = std::time::Instant::now();
    wait_for_reason(&daemon, "memory");
    assert!(grown.elapsed() < ms(5_000), "only after {:?}", grown.elapsed());
    assert_ne!(daemon.wait_online("api", 1), before);
}

/// However many are too fat at once: the next one's turn comes when the one before has left for its successor.
#[test]
fn workers_of_an_app_are_replaced_one_after_the_other_however_many_are_too_fat() {
    let port = free_port();
    let server = fixtures::worker(&["serve"]);
    let app = App::new("api", &server).instances(4).port(port).env("BALLAST_MIB", 16);
    let app = app.text("max_memory_restart", "8M").text("min_healthy_time", "300ms");
    let daemon = Daemon::foreground(file(app));
    daemon.expects(&["more than max_memory_restart"]);
    let first = daemon.wait_online("api", 4);
    wait_until(ms(30_000), "all of them replaced", || {
        let left = daemon.pids("api").into_iter().filter(|pid| first.contains(pid)).count();
        if left == 0 { Ok(()) } else { Err(left) }
    });
    let log = daemon.log();
    let words = [
        ("the new one is ready before the old one leaves", 'R'),
        (": ready", 'r'),
        ("leaving (memory)", 'l'),
    ];
    let told: String = log
        .lines()
        .skip_while(|line| !line.contains("more than max_memory_restart"))
        .filter_map(|line| words.iter().find(|(word, _)| line.contains(word)).map(|(_, letter)| *letter))
        .collect();
    assert!(told.len() >= 12 && "Rrl".repeat(told.len()).starts_with(&told), "{told}\n{log}");
}

#[test]
fn in_fork_mode_a_fat_worker_is_stopped_then_started() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = App::new("api", &node).port(port).text("max_memory_restart", "160M");
    let daemon = Daemon::foreground(file(app));
    daemon.expects(&["more than max_memory_restart"]);
    let before = daemon.wait_online("api", 1);
    wait_until(ms(10_000), "an answer", || get(port, "/grow/180").is_ok());
    wait_for_reason(&daemon, "memory");
    assert_ne!(daemon.wait_online("api", 1), before);
    assert!(daemon.log().contains("stopped, then started (fork mode)"), "{}", daemon.log());
}

#[test]
fn a_limit_below_what_the_server_needs_costs_no_request_and_no_storm() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = api(&node, port).instances(1).text("max_memory_restart", "5M");
    let daemon = Daemon::foreground(file(app));
    daemon.expects(&["more than max_memory_restart"]);
    daemon.wait_online("api", 1);
    let hammer = Load::on(port).clients(2).path("/?delay=5").start();
    wait_until(ms(20_000), "three replacements", || daemon.app("api").workers[0].restarts >= 3);
    hammer.stop().expect_none_lost();
    assert_eq!(daemon.app("api").status, "online");
}

#[test]
fn a_share_of_the_containers_memory_is_divided_among_the_instances() {
    let Some(node) = fixtures::node("server.js") else { return };
    let Some(group) = MemoryGroup::new() else {
        return skip("no memory control group can be made here");
    };
    group.set(800);
    let port = free_port();
    let app = api(&node, port).text("max_memory_restart", "40%");
    let daemon = Builder::new(file(app)).wrap(&["sh", "-c", &group.enter(), "sh"]).start();
    daemon.expects(&["more than max_memory_restart"]);
    daemon.wait_online("api", 2);
    let described = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    assert!(described.contains("320.0 MiB for all instances together"), "{described}");
    answer(port, "/grow/180");
    wait_for_reason(&daemon, "memory");
    assert!(daemon.log().contains("max_memory_restart (160.0 MiB)"), "{}", daemon.log());
    drop(daemon);
}

/// As above in systems that have it: the kernel's own end of a worker, and an operator's.
#[test]
fn a_worker_that_the_kernel_killed_for_want_of_memory_is_told_from_one_that_was_killed() {
    let Some(node) = fixtures::node("server.js") else { return };
    let Some(group) = MemoryGroup::new() else {
        return skip("no memory control group can be made here");
    };
    group.set(400);
    let port = free_port();
    let app = App::new("api", &node).instances(1).port(port);
    let daemon = Builder::new(app).wrap(&["sh", "-c", &group.enter(), "sh"]).start();
    daemon.expects(&["was ended by SIGKILL", "unstable exits in a row"]);
    let first = daemon.wait_online("api", 1);
    send(first[0], Signal::SIGKILL);
    wait_for_reason(&daemon, "crash");
    wait_until(ms(20_000), "its successor", || daemon.wait_online("api", 1) != first);
    // The connection ends with the worker.
    get(port, "/grow/900").expect_err("it takes more than there is");
    let app = wait_for_reason(&daemon, "oom");
    assert_eq!(app.workers[0].last_exit.as_ref().and_then(|exit| exit.signal.as_deref()), Some("SIGKILL"));
    assert!(daemon.log().contains("killed it for want of memory"), "{}", daemon.log());
    daemon.wait_online("api", 1);
    drop(daemon);
}

#[test]
fn workers_of_age_are_replaced_one_by_one_and_no_request_is_lost() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = App::new("api", &node).instances(2).port(port).text("max_age", "2s");
    let daemon = Daemon::foreground(app.text("min_healthy_time", "100ms"));
    let before = daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(4).path("/?delay=5").start();
    wait_until(ms(20_000), "both of age", || daemon.pids("api").iter().all(|pid| !before.contains(pid)));
    let app = daemon.app("api");
    assert!(app.workers.iter().any(|worker| reason(worker) == Some("age")), "{app:?}");
    hammer.stop().expect_none_lost();
}

#[test]
fn a_successor_that_is_never_ready_leaves_and_is_tried_again_until_one_is() {
    let port = free_port();
    let line = "[ -e broken ] && while :; do sleep 0.02; done; exec ./fixture_worker serve";
    let app = App::new("api", &fixtures::shell(line)).instances(1).port(port).text("max_age", "3s");
    let app = app.text("listen_timeout", "500ms").text("min_healthy_time", "100ms");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["not ready in listen_timeout", "unstable exits in a row"]);
    let before = daemon.wait_online("api", 1);
    let broken = daemon.home.apps().join("broken");
    std::fs::write(&broken, "").expect("a mark");
    let hammer = Load::on(port).clients(2).start();
    wait_for_reason(&daemon, "spawn");
    wait_until(ms(20_000), "one more try", || daemon.app("api").workers[0].unstable_restarts >= 2);
    let app = daemon.app("api");
    let serving: Vec<i32> = app.workers.iter().filter(|w| w.ready).filter_map(|w| w.pid).collect();
    assert_eq!((app.status.as_str(), serving), ("online", before.clone()));
    assert!(daemon.log().contains("the one before it serves on"), "{}", daemon.log());
    std::fs::remove_file(&broken).expect("no mark");
    wait_until(ms(20_000), "a successor", || daemon.wait_online("api", 1) != before);
    hammer.stop().expect_none_lost();
}
