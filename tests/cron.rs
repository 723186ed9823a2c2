//! `cron_restart`: workers that are replaced by the wall clock.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::time::Duration;

use support::daemon::clusterd;
use support::{App, Daemon, Home, Load, fixtures, free_port, wait_until};

/// Every second second.
const OFTEN: &str = "*/2 * * * * *";

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn generation(daemon: &Daemon) -> u32 {
    daemon.app("api").generation
}

#[test]
fn workers_are_replaced_when_the_time_has_come_and_no_request_is_lost() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = App::new("api", &node).instances(2).port(port).text("cron_restart", OFTEN);
    let daemon = Daemon::foreground(app.text("timezone", "UTC").text("min_healthy_time", "100ms"));
    let before = daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(4).path("/?delay=5").start();
    wait_until(ms(30_000), "two turns", || {
        generation(&daemon) >= 3 && daemon.pids("api").iter().all(|pid| !before.contains(pid))
    });
    daemon.wait_for_text("cron_restart: its workers are replaced");
    hammer.stop().expect_none_lost();
}

/// PM2 would start it.
#[test]
fn an_app_that_was_stopped_stays_so_when_its_time_comes() {
    let app = App::new("api", &fixtures::shell("while :; do sleep 0.05; done"));
    let daemon = Daemon::foreground(app.text("cron_restart", OFTEN));
    daemon.wait_online("api", 1);
    daemon.run(&["stop", "api"]).expect_code(0);
    daemon.wait_for_text("cron_restart: passed over, it is stopped, and stays so");
    assert_eq!(daemon.app("api").status, "stopped");
    daemon.run(&["start", "api"]).expect_code(0);
    daemon.wait_online("api", 1);
}

/// A job of the night: it runs, ends, and runs again; the supervisor has something to wait for meanwhile.
#[test]
fn a_job_that_ended_runs_again_at_its_time() {
    let job = fixtures::shell("echo ran >>ran");
    let app = App::new("api", &job).text("exec_mode", "fork").set("autorestart", false);
    let mut daemon = Daemon::foreground(app.text("cron_restart", OFTEN));
    let ran = daemon.home.apps().join("ran");
    wait_until(ms(20_000), "three times", || {
        std::fs::read_to_string(&ran).is_ok_and(|text| text.lines().count() >= 3)
    });
    assert!(daemon.runs(), "{}", daemon.log());
    let restarts = daemon.app("api").workers[0].restarts;
    assert!(restarts >= 2, "{restarts} restarts are shown");
    daemon.wait_for_text("cron_restart: it is started");
}

/// It is not run when it is made known, only when its time has come.
#[test]
fn an_app_that_does_not_start_by_itself_starts_at_its_time() {
    let job = fixtures::shell("date +%s%N >>ran; while :; do sleep 0.05; done");
    let app = App::new("api", &job).text("exec_mode", "fork").set("autostart", false);
    let daemon = Daemon::foreground(app.text("cron_restart", OFTEN));
    daemon.wait_online("api", 1);
    let log = daemon.log();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text} is missing: {log}"));
    assert!(at("cron_restart: it is started") < at("api/0 generation"), "{log}");
}

#[test]
fn another_schedule_holds_from_the_next_apply_on() {
    let app = |when: &str| {
        let app = App::new("api", &fixtures::shell("while :; do sleep 0.05; done"));
        app.text("cron_restart", when).text("timezone", "UTC")
    };
    let daemon = Daemon::foreground(app("0 0 1 1 *"));
    let before = daemon.wait_online("api", 1);
    daemon.home.write(&app(OFTEN).to_string());
    let file = daemon.home.file().display().to_string();
    daemon.run(&["apply", &file]).expect_code(0);
    assert!(!daemon.log().contains("reload to generation"), "nobody is replaced for it: {}", daemon.log());
    wait_until(ms(20_000), "the new time", || {
        let now = daemon.pids("api");
        !now.is_empty() && now != before
    });
}

#[test]
fn a_schedule_that_is_none_is_refused_with_its_place_and_what_to_write() {
    for (lines, parts) in [
        (
            "cron_restart = \"61 * * * *\"",
            ["ecosystem.toml:4:16", "cron_restart", "five fields (minute, hour, day, month, weekday)"],
        ),
        (
            "cron_restart = \"0 0 31 2 *\"",
            ["ecosystem.toml:4:16", "never comes true", "no month has such a day"],
        ),
        (
            "timezone = \"Mars/Olympus\"\ncron_restart = \"@daily\"",
            ["ecosystem.toml:4:12", "timezone", "the name of a time zone"],
        ),
        ("timezone = \"UTC\"", ["ecosystem.toml:4:12", "timezone", "there is none"]),
    ] {
        let home = Home::new(None);
        home.write(&format!("[[apps]]\nname = \"api\"\nscript = \"sleep 1000\"\n{lines}\n"));
        let file = home.file().display().to_string();
        let refused = clusterd(&home, &["validate", &file]);
        refused.expect_code(2).expect_stderr(&parts);
    }
}
