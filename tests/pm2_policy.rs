//! What PM2's own tests ask of the policies that replace workers: crashes, memory, cron, watch (tests/README.md has
//! them by number).

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use support::daemon::BOOT;
use support::wait::holds_for;
use support::{App, Daemon, Home, fixtures, free_port, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fork(name: &str, line: &str) -> App {
    App::new(name, &fixtures::shell(line)).text("exec_mode", "fork")
}

const IDLE: &str = "while :; do sleep 0.05; done";

/// Waits for a worker that is none of these.
fn wait_replaced(daemon: &Daemon, app: &str, before: &[i32]) -> Vec<i32> {
    wait_until(BOOT, &format!("another worker of {app}"), || {
        let now = daemon.pids(app);
        if !now.is_empty() && now.iter().all(|pid| !before.contains(pid)) { Ok(now) } else { Err(now) }
    })
}

#[test]
fn a_program_that_became_a_crashing_one_on_the_disk_is_given_up_after_its_restart() {
    let home = Arc::new(Home::new(None));
    let alive = "#!/bin/sh\nwhile :; do echo ALIVE; sleep 0.1; done\n";
    home.put("program.sh", alive);
    let words = ["start", "program.sh", "--max-restarts", "4", "--exp-backoff-restart-delay", "1"];
    let (daemon, output) = Daemon::started_by(home, &words);
    output.expect_code(0);
    daemon.expects(&["exited with code 1 ", "unstable exits in a row", "program"]);
    let before = daemon.wait_online("program", 1);
    daemon.home.put("program.sh", "#!/bin/sh\necho BOUM\nsleep 0.03\nexit 1\n");
    holds_for(ms(200), "what runs is not touched by it", || daemon.pids("program") == before);
    daemon.run(&["restart", "all"]);
    let app = daemon.wait_status("program", "errored");
    assert!(app.workers[0].restarts >= 3, "{app:?}");
    daemon.home.put("program.sh", alive);
    daemon.run(&["restart", "all"]).expect_code(0);
    daemon.wait_online("program", 1);
}

#[test]
fn a_limit_of_memory_that_a_flag_sets_replaces_who_takes_more_in_either_mode() {
    let home = Arc::new(Home::new(None));
    let start = |name: &str, more: &[&str]| {
        let words = ["start", "./fixture_worker", "--name", name, "--max-memory-restart", "20M"];
        let words = [&words[..], more, &["--", "serve"]].concat();
        let port = free_port().to_string();
        let running = home.spawn_with(&words, |command| {
            command.env("PORT", port).env("BALLAST_MIB", "60");
        });
        home.finish(running).expect_code(0);
    };
    start("forked", &[]);
    start("clustered", &["-i", "1"]);
    let daemon = Daemon::of(&home);
    daemon.expects(&["more than max_memory_restart"]);
    for name in ["forked", "clustered"] {
        wait_until(BOOT, &format!("{name} is replaced"), || {
            let workers = daemon.app(name).workers;
            let of_memory = |exit: &clusterd::control::protocol::LastExitInfo| exit.reason == "memory";
            let replaced =
                workers.iter().any(|w| w.restarts > 0 && w.last_exit.as_ref().is_some_and(of_memory));
            if replaced { Ok(()) } else { Err(format!("{workers:?}")) }
        });
    }
}

/// Each second, from the start over a restart, a reset and a resurrect, until it is taken away.
#[test]
fn a_schedule_fires_until_it_is_taken_away_or_its_app_deleted() {
    let app = fork("cron", IDLE);
    let often = app.clone().text("cron_restart", "* * * * * *").to_string();
    let (daemon, output) = Daemon::background(&often);
    output.expect_code(0);
    let first = daemon.wait_online("cron", 1);
    let second = wait_replaced(&daemon, "cron", &first);
    assert!(daemon.app("cron").workers[0].restarts >= 1);
    daemon.run(&["restart", "cron"]).expect_code(0);
    daemon.run(&["reset", "cron"]).expect_code(0);
    wait_replaced(&daemon, "cron", &second);
    wait_until(BOOT, "a restart that is counted", || daemon.app("cron").workers[0].restarts >= 1);

    daemon.run(&["save"]).expect_code(0);
    daemon.run(&["kill"]).expect_code(0);
    let home = Arc::clone(&daemon.home);
    drop(daemon);
    home.run(&["resurrect"]).expect_code(0);
    let daemon = Daemon::of(&home);
    let now = daemon.wait_online("cron", 1);
    wait_replaced(&daemon, "cron", &now);

    // PM2's `--cron-restart 0`.
    daemon.home.write(&app.to_string());
    daemon.run(&["restart", "ecosystem.toml"]).expect_code(0);
    daemon.run(&["reset", "cron"]).expect_code(0);
    let now = daemon.wait_online("cron", 1);
    holds_for(ms(2200), "nobody replaces it", || daemon.pids("cron") == now);
    assert_eq!(daemon.app("cron").workers[0].restarts, 0);

    daemon.home.write(&often);
    daemon.run(&["restart", "ecosystem.toml"]).expect_code(0);
    let now = daemon.wait_online("cron", 1);
    wait_replaced(&daemon, "cron", &now);
    daemon.run(&["delete", "cron"]).expect_code(0);
    holds_for(ms(1500), "it does not come back", || daemon.list().apps.is_empty());
    assert_eq!(daemon.workers(), []);
}

/// PM2 switches the watch off at a stop, and a start does not switch it on again.
#[test]
fn files_are_watched_over_a_restart_and_a_stop_until_the_app_is_deleted() {
    let app =
        fork("watched", IDLE).text("watch", "src").set("ignore_watch", "[\"*.log\"]").set("watch_delay", 50);
    let home = Arc::new(Home::new(None));
    let src = home.apps().join("src");
    fs::create_dir(&src).expect("a fresh home");
    let script = src.join("server-watch.js");
    fs::write(&script, "1\n").expect("ours");
    home.write(&app.to_string());
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml"]);
    output.expect_code(0);
    // So many changes so soon after each start look like its own.
    daemon.expects(&["its files change each time that it is started"]);
    let append = || {
        let mut file = OpenOptions::new().append(true).open(&script).expect("ours");
        file.write_all(b"// more\n").expect("ours");
    };
    let changed = |what: &str, change: &dyn Fn()| {
        let before = daemon.wait_online("watched", 1);
        change();
        wait_until(BOOT, what, || {
            let now = daemon.wait_online("watched", 1);
            if now == before { Err(now) } else { Ok(()) }
        });
    };
    let before = daemon.wait_online("watched", 1);
    fs::write(src.join("pm2.log"), "x").expect("ours");
    holds_for(ms(1000), "a log is no change", || daemon.pids("watched") == before);
    changed("a line more", &append);
    daemon.run(&["stop", "watched"]).expect_code(0);
    append();
    holds_for(ms(1000), "it was stopped", || daemon.app("watched").status == "stopped");
    daemon.run(&["start", "watched"]).expect_code(0);
    changed("a line more after a stop", &append);
    daemon.run(&["restart", "watched"]).expect_code(0);
    changed("a line more after a restart", &append);
    let new = src.join("new.js");
    changed("a file more", &|| fs::write(&new, "").expect("ours"));
    changed("a file less", &|| fs::remove_file(&new).expect("ours"));
    daemon.run(&["delete", "ecosystem.toml"]).expect_code(0);
    append();
    holds_for(ms(500), "it was deleted", || daemon.list().apps.is_empty());
    assert_eq!(daemon.workers(), []);
}
