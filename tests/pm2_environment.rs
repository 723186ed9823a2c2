//! What PM2's own tests ask of environments, and of files that say something else than before (tests/README.md
//! has them by number).

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use support::daemon::BOOT;
use support::wait::holds_for;
use support::{App, Daemon, Fixture, Home, file, fixtures, free_port, wait_until};

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

/// A worker that does nothing but live, so that /proc shows what it was given.
fn idle(name: &str) -> App {
    fork(name, &fixtures::worker(&["idle"]))
}

fn variables(pid: i32) -> BTreeMap<String, String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    let text = String::from_utf8_lossy(&environ).into_owned();
    let pairs = text.split('\0').filter_map(|entry| entry.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A variable of an app, which has to be the same in all of its workers.
fn shared_variable(daemon: &Daemon, (app, count): (&str, usize), name: &str) -> Option<String> {
    let mut seen: Vec<Option<String>> =
        daemon.wait_online(app, count).into_iter().map(|pid| variables(pid).remove(name)).collect();
    seen.dedup();
    assert_eq!(seen.len(), 1, "{name} of {app}: {seen:?}");
    seen.remove(0)
}

fn restarts(daemon: &Daemon, app: &str) -> Vec<u32> {
    daemon.app(app).workers.iter().map(|worker| worker.restarts).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_profile_reaches_every_instance_and_holds_until_another_is_named() {
    let node = idle("node").instances(8).env("NODE_ENV", "normal");
    let node = node.set("env_production", "{ NODE_ENV = \"production\" }");
    let node = node.set("env_test", "{ NODE_ENV = \"test\" }");
    let echo = idle("echo").set("env_production", "{ NODE_ENV = \"production\", TOTO = \"heymoto\" }");
    let echo = echo.set("env_test", "{ NODE_ENV = \"test\", TOTO = \"heyamota\" }");
    let home = Arc::new(Home::new(None));
    home.write(&file(&[node, echo]));
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml", "--env", "production"]);
    output.expect_code(0);
    let seen =
        || (shared_variable(&daemon, ("node", 8), "NODE_ENV"), shared_variable(&daemon, ("echo", 1), "TOTO"));
    assert_eq!(seen(), (some("production"), some("heymoto")));
    daemon.run(&["restart", "ecosystem.toml", "--env", "production"]).expect_code(0);
    assert_eq!(seen(), (some("production"), some("heymoto")));
    assert_eq!(restarts(&daemon, "node"), [1; 8]);
    daemon.run(&["restart", "all"]).expect_code(0);
    assert_eq!(seen(), (some("production"), some("heymoto")), "nobody named another");
    daemon.run(&["delete", "all"]).expect_code(0);
    daemon.run(&["start", "ecosystem.toml"]).expect_code(0);
    assert_eq!(seen(), (some("normal"), None));
    daemon.run(&["restart", "ecosystem.toml", "--env", "test"]).expect_code(0);
    assert_eq!(seen(), (some("test"), some("heyamota")));
    daemon.run(&["restart", "ecosystem.toml"]).expect_code(0);
    assert_eq!(seen(), (some("normal"), None), "a file without a profile is that file");
}

/// PM2 keeps a variable for ever once it was there.
#[test]
fn an_object_is_json_in_the_worker_and_what_the_file_no_longer_says_is_gone() {
    let app = |line: &str| idle("appname").set("env", line).to_string();
    let home = Arc::new(Home::new(None));
    home.put("first.toml", &app("{ TEST_VARIABLE = \"YES\", GONE = \"here\" }"));
    let (daemon, output) = Daemon::started_by(home, &["start", "first.toml"]);
    output.expect_code(0);
    let now = || variables(daemon.wait_online("appname", 1)[0]);
    assert_eq!((now()["TEST_VARIABLE"].as_str(), now()["GONE"].as_str()), ("YES", "here"));
    let lines =
        "{ TEST_VARIABLE = { HEYYYY = true }, LIST = [1, { deep = \"x\" }], TABLE = { a = { b = 1 } } }";
    daemon.home.put("second.toml", &app(lines));
    for verb in ["restart", "reload"] {
        daemon.run(&[verb, "second.toml"]).expect_code(0);
        let now = now();
        assert_eq!(now["TEST_VARIABLE"], "{\"HEYYYY\":true}");
        assert_eq!(
            (now["LIST"].as_str(), now["TABLE"].as_str()),
            ("[1,{\"deep\":\"x\"}]", "{\"a\":{\"b\":1}}")
        );
        assert!(!now.contains_key("GONE"), "{now:?}");
        assert!(!now.values().any(|value| value.contains("[object Object]")), "{now:?}");
    }
    assert_eq!(daemon.list().apps.len(), 1);
}

/// Also of an app that runs already, and was started from a file of another name.
#[test]
fn limits_of_memory_dates_of_logs_and_variables_are_those_of_the_file_that_is_named_last() {
    let fat = fork("max_mem", &fixtures::worker(&["serve"])).port(free_port()).env("BALLAST_MIB", 60);
    let says = "while :; do echo \"${ECHO_MSG:-ok}\"; sleep 0.05; done";
    let says = fork("echo-json", &fixtures::shell(says)).text("out_file", "echo-test.log");
    let daemon_table = "[daemon]\npoll_interval = \"100ms\"\n\n";
    let (low, high) = (fat.clone().text("max_memory_restart", "19M"), fat.text("max_memory_restart", "1G"));
    let before = says.clone().text("log_date_format", "YYYY-MM-DD HH:mm Z");
    let after = says.text("log_date_format", "DD").env("ECHO_MSG", "YAY");
    let after = after.set("env_production", "{ ECHO_MSG = \"WOW\" }");
    let home = Arc::new(Home::new(None));
    home.put("before.toml", &(daemon_table.to_owned() + &file(&[high, before])));
    home.put("after.toml", &(daemon_table.to_owned() + &file(&[low, after])));
    let (daemon, output) = Daemon::started_by(home, &["start", "before.toml"]);
    output.expect_code(0);
    daemon.expects(&["more than max_memory_restart"]);
    let path = daemon.home.apps().join("echo-test.log");
    let last = || fs::read_to_string(&path).unwrap_or_default().lines().last().unwrap_or_default().to_owned();
    wait_until(BOOT, "a line with its year", || {
        let line = last();
        if line.starts_with("20") && line.ends_with(": ok") { Ok(()) } else { Err(line) }
    });
    holds_for(Duration::from_millis(500), "a limit that is not reached", || {
        restarts(&daemon, "max_mem") == [0]
    });

    daemon.run(&["restart", "after.toml"]).expect_code(0);
    wait_until(BOOT, "a fat worker that is replaced", || {
        let app = daemon.app("max_mem");
        let reason = app.workers[0].last_exit.as_ref().map(|exit| exit.reason.clone());
        if reason.as_deref() == Some("memory") { Ok(()) } else { Err(reason) }
    });
    let wait_said = |word: &str| {
        wait_until(BOOT, &format!("{word} behind its day"), || {
            let line = last();
            let day = line.strip_suffix(&format!(": {word}"));
            if day.is_some_and(|day| day.len() == 2 && day.parse::<u8>().is_ok()) {
                Ok(())
            } else {
                Err(line)
            }
        });
    };
    wait_said("YAY");
    for verb in ["restart", "reload"] {
        daemon.run(&[verb, "after.toml", "--only", "echo-json", "--env", "production"]).expect_code(0);
        wait_said("WOW");
        daemon.run(&[verb, "after.toml", "--only", "echo-json"]).expect_code(0);
        wait_said("YAY");
    }
    assert_eq!(daemon.list().apps.len(), 2);
}
