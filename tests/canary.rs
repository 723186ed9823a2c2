//! A reload that holds at a share of the connections until it is promoted or rolled back.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::time::Duration;

use clusterd::control::protocol::AppInfo;
use nix::sys::signal::Signal;
use support::daemon::send;
use support::hammer::body;
use support::wait::holds_for;
use support::{App, Daemon, Load, fixtures, free_port, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn api(instances: u32, share: &str, port: u16) -> App {
    App::new("api", &fixtures::worker(&["serve"])).instances(instances).port(port).text("canary", share)
}

/// The generation of each answer to so many connections.
fn generations(port: u16, connections: usize) -> Vec<u32> {
    let generation = |_| {
        let answer = body(port, "/");
        answer.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a generation")
    };
    (0..connections).map(generation).collect()
}

fn share_of(generation: u32, port: u16) -> usize {
    generations(port, 400).into_iter().filter(|answered| *answered == generation).count()
}

fn reload_state(app: &AppInfo) -> String {
    app.reload.as_ref().map_or_else(String::new, |reload| reload.state.clone())
}

fn of_generation(app: &AppInfo, generation: u32) -> Vec<i32> {
    let of = app.workers.iter().filter(|worker| worker.generation == generation && worker.ready);
    of.filter_map(|worker| worker.pid).collect()
}

/// Four workers, and a fifth of a new generation that has a quarter of the connections.
fn held(port: u16) -> (Daemon, Vec<i32>) {
    let daemon = Daemon::foreground(api(4, "25%", port));
    let old = daemon.wait_online("api", 4);
    let reload = daemon.run(&["reload", "api"]).expect_code(0);
    assert!(reload.stdout.contains("clusterd promote api"), "{reload:?}");
    assert!(reload.stdout.contains("clusterd rollback api"), "{reload:?}");
    (daemon, old)
}

#[test]
fn a_reload_holds_at_its_share_and_goes_on_when_it_is_promoted() {
    let port = free_port();
    let (daemon, old) = held(port);
    let app = daemon.app("api");
    assert_eq!(of_generation(&app, 1), old, "an old worker was replaced");
    assert_eq!(of_generation(&app, 2).len(), 1, "{app:#?}");
    let reload = app.reload.as_ref().expect("it is held");
    assert_eq!((reload.state.as_str(), reload.done, reload.total), ("canary", 1, 4));
    assert_eq!(reload.share_percent, Some(25));
    // 100 are expected of 400; the bounds are more than five deviations away.
    let share = share_of(2, port);
    assert!((50..150).contains(&share), "{share} of 400 connections at 25%");
    assert!(daemon.run(&["describe", "api"]).stdout.contains("canary 1/4, 25% of new connections"));
    holds_for(ms(500), "it is held", || reload_state(&daemon.app("api")) == "canary");

    let hammer = Load::on(port).start();
    daemon.run(&["promote", "api"]).expect_code(0);
    let history = hammer.stop();
    history.expect_none_lost();
    let app = daemon.app("api");
    assert_eq!((of_generation(&app, 2).len(), app.workers.len(), app.reload), (4, 4, None));
    assert_eq!(share_of(2, port), 400);
}

#[test]
fn a_reload_that_is_rolled_back_leaves_the_old_workers_untouched() {
    let port = free_port();
    let (daemon, old) = held(port);
    let hammer = Load::on(port).start();
    let rollback = daemon.run(&["rollback", "api", "--json"]).expect_code(0);
    let history = hammer.stop();
    assert!(rollback.stdout.contains("\"rolled_back\""), "{rollback:?}");
    history.expect_none_lost();
    let app = daemon.app("api");
    assert_eq!((of_generation(&app, 1), app.workers.len()), (old, 4));
    assert_eq!(reload_state(&app), "rolled back");
    assert_eq!(share_of(1, port), 400);
    // Nothing is left to decide.
    daemon.run(&["promote", "api"]).expect_code(1).expect_stderr(&["no reload of it is held"]);
    daemon.run(&["rollback", "api"]).expect_code(1).expect_stderr(&["no reload of it is held"]);
}

#[test]
fn a_new_worker_that_crashes_takes_its_held_reload_back() {
    let port = free_port();
    let (daemon, old) = held(port);
    daemon.expects(&["was ended by SIGKILL"]);
    let new = of_generation(&daemon.app("api"), 2)[0];
    send(new, Signal::SIGKILL);
    let app = wait_until(ms(10_000), "a failed reload", || {
        let app = daemon.app("api");
        if reload_state(&app) == "failed" { Ok(app) } else { Err(reload_state(&app)) }
    });
    assert_eq!((of_generation(&app, 1), app.workers.len()), (old, 4));
    let reason = app.reload.and_then(|reload| reload.reason).unwrap_or_default();
    assert!(reason.contains("SIGKILL"), "{reason}");
    assert_eq!(share_of(1, port), 400);
}

#[test]
fn a_new_version_that_does_not_come_up_fails_the_reload_at_its_share() {
    let port = free_port();
    let daemon = Daemon::foreground(api(2, "10%", port));
    daemon.expects(&["exited with code 3 "]);
    let old = daemon.wait_online("api", 2);
    let bad = App::new("api", &fixtures::worker(&["exit", "3", "0"])).instances(2).port(port);
    daemon.home.write(&bad.text("canary", "10%").to_string());
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["exited with code 3"]);
    assert_eq!(daemon.pids("api"), old);
}

#[test]
fn a_newer_reload_replaces_the_one_that_is_held() {
    let port = free_port();
    let (daemon, old) = held(port);
    let reload = daemon.run(&["reload", "api", "--json"]).expect_code(0);
    assert!(reload.stdout.contains("\"canary\""), "{reload:?}");
    let app = wait_until(ms(10_000), "nobody of the generation between", || {
        let app = daemon.app("api");
        if app.workers.len() == 5 { Ok(app) } else { Err(format!("{:#?}", app.workers)) }
    });
    assert_eq!((of_generation(&app, 1), of_generation(&app, 3).len()), (old, 1));
}

#[test]
fn no_reload_is_held_while_the_version_that_was_rolled_back_serves() {
    let port = free_port();
    let (daemon, _) = held(port);
    daemon.run(&["promote", "api", "--no-wait"]).expect_code(0);
    wait_until(ms(10_000), "a part of the new version", || of_generation(&daemon.app("api"), 2).len() >= 2);
    let rollback = daemon.spawn(&["rollback", "api"]);
    wait_until(ms(10_000), "its way back", || reload_state(&daemon.app("api")) == "rolling back");
    let reload = daemon.run(&["reload", "api"]).expect_code(0);
    assert!(reload.stdout.contains("clusterd promote api"), "{reload:?}");
    daemon.home.finish(rollback).expect_code(0);
    let app = daemon.app("api");
    let of = |generation| of_generation(&app, generation).len();
    assert_eq!((of(1), of(2), of(3)), (4, 0, 1), "{:#?}", app.workers);
}

#[test]
fn whatever_ends_the_app_ends_a_held_reload() {
    let port = free_port();
    let (daemon, _) = held(port);
    daemon.run(&["scale", "api", "5"]).expect_code(0);
    let app = daemon.app("api");
    assert_eq!((of_generation(&app, 1).len(), reload_state(&app).as_str()), (5, "canary"));
    daemon.run(&["restart", "api"]).expect_code(0);
    let app = daemon.app("api");
    assert_eq!((app.reload, app.workers.len()), (None, 5), "what scale said holds");
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.run(&["stop", "api"]).expect_code(0);
    let app = daemon.app("api");
    assert_eq!((app.status.as_str(), app.reload), ("stopped", None));
    daemon.run(&["start", "api"]).expect_code(0);
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.run(&["delete", "api"]).expect_code(0);
    assert_eq!(daemon.list().apps.len(), 0);
    assert_eq!(daemon.workers(), []);
}

#[test]
fn who_depends_on_an_app_whose_reload_is_held_can_be_restarted() {
    let port = free_port();
    let idle = fixtures::shell("while :; do sleep 0.02; done");
    let front = App::new("front", &idle).text("exec_mode", "fork").text("depends_on", "api");
    let daemon = Daemon::foreground(format!("{}\n{}", api(2, "50%", port), front));
    daemon.wait_online("api", 2);
    let before = daemon.wait_online("front", 1);
    daemon.run(&["reload", "api"]).expect_code(0);
    assert_eq!(reload_state(&daemon.app("api")), "canary");
    daemon.run(&["restart", "front"]).expect_code(0);
    assert_ne!(daemon.wait_online("front", 1), before);
    assert_eq!(reload_state(&daemon.app("api")), "canary");
}

#[test]
fn workers_of_age_are_replaced_by_their_like_while_a_reload_is_held() {
    let port = free_port();
    let daemon =
        Daemon::foreground(api(2, "50%", port).text("max_age", "4s").text("min_healthy_time", "100ms"));
    daemon.wait_online("api", 2);
    daemon.run(&["reload", "api"]).expect_code(0);
    let held = daemon.app("api");
    let (old, new) = (of_generation(&held, 1), of_generation(&held, 2));
    let hammer = Load::on(port).start();
    wait_until(ms(30_000), "others of each generation, as many as there were", || {
        let app = daemon.app("api");
        assert_eq!(reload_state(&app), "canary");
        let others = |generation, before: &[i32]| {
            let now = of_generation(&app, generation);
            now.len() == before.len() && now.iter().all(|pid| !before.contains(pid))
        };
        if others(1, &old) && others(2, &new) { Ok(()) } else { Err(format!("{:#?}", app.workers)) }
    });
    hammer.stop().expect_none_lost();
}
