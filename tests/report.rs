//! `clusterd report`: one page for a question or a bug.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use serde_json::Value;

use support::daemon::clusterd;
use support::{App, Daemon, Home, fixtures};

/// Where it must not come from: the environment, an argument, a line of a worker.
const SECRET: &str = "sesame-open";

fn revealing() -> App {
    let line = format!("echo says {SECRET}; : --token {SECRET}; while :; do sleep 0.05; done");
    App::new("api", &fixtures::shell(&line)).env("DB_PASSWORD", SECRET).set("kill_timeout", 900)
}

#[test]
fn a_report_has_host_apps_and_log_and_no_secret() {
    let (daemon, started) = Daemon::background(revealing());
    started.expect_code(0);
    daemon.expects(&["every user of this host can read"]);
    let text = daemon.run(&["report"]).expect_code(0).stdout;
    for part in [
        env!("CARGO_PKG_VERSION"),
        &format!("pid {}", daemon.pid),
        "kernel: Linux",
        "open files: ",
        "seccomp: ",
        "default/api: runs sh",
        "sharing: ",
        "kill_timeout = 900ms",
        "api/0 generation 1",
    ] {
        assert!(text.contains(part), "no {part:?}: {text}");
    }
    assert!(!text.contains(SECRET), "{text}");
    let json = daemon.run(&["report", "--json"]).expect_code(0).stdout;
    assert!(!json.contains(SECRET), "{json}");
    let report: Value = serde_json::from_str(&json).expect("one object");
    assert_eq!(report["version"], 1);
    assert_eq!(report["supervisor"]["pid"], daemon.pid);
    assert_eq!(report["apps"][0]["settings"]["kill_timeout"], "900ms");
    assert_eq!(report["apps"][0]["workers"][0]["status"], "online");
    assert!(report["log"].as_array().is_some_and(|lines| !lines.is_empty()), "{report}");
}

/// What stands in front of the program of a shell line is variables.
#[test]
fn the_variables_of_a_line_are_no_part_of_a_report() {
    let home = std::sync::Arc::new(Home::new(None));
    let line = format!("STRIPE={SECRET} sleep 1000");
    let (daemon, started) = Daemon::started_by(home, &["start", &line, "--name", "st"]);
    started.expect_code(0);
    for arguments in [&["report"][..], &["report", "--json"]] {
        let report = daemon.run(arguments).expect_code(0).stdout;
        assert!(report.contains("sleep") && !report.contains(SECRET), "{report}");
    }
}

/// Maybe that is the question.
#[test]
fn without_a_supervisor_it_says_so_and_tells_of_the_host() {
    let home = Home::new(None);
    let output = clusterd(&home, &["report"]).expect_code(0);
    for part in ["no supervisor: ", "kernel: Linux", "This process"] {
        assert!(output.stdout.contains(part), "no {part:?}: {output:?}");
    }
    let json = clusterd(&home, &["report", "--json"]).expect_code(0).stdout;
    let report: Value = serde_json::from_str(&json).expect("one object");
    assert!(report["supervisor"].is_null() && report["no_supervisor"].is_string(), "{report}");
}
