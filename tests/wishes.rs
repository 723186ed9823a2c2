//! What the file wishes of an app beside its server: whether it comes back, whether it is started at all, what
//! ends with it, and what it needs first.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clusterd::control::protocol::List;
use nix::sys::signal::Signal;
use support::daemon::Builder;
use support::hammer::body;
use support::wait::holds_for;
use support::{App, Daemon, Home, Output, file, fixtures, free_port, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A line for the shell, in fork mode.
fn script(name: &str, line: &str) -> App {
    App::new(name, &fixtures::shell(line)).text("exec_mode", "fork")
}

/// Notes its start and its end in `journal`, and does nothing else.
fn noted(name: &str) -> App {
    let line = "echo +$CLUSTERD_APP >>journal; trap 'echo -$CLUSTERD_APP >>journal; exit 0' INT; \
                while :; do sleep 0.02; done";
    script(name, line)
}

/// Ready once the file `name.ready` is there.
fn gated(name: &str) -> App {
    let line = "until [ -e $CLUSTERD_APP.ready ]; do sleep 0.02; done; echo opened $CLUSTERD_APP; \
                exec ./fixture_worker serve notify 0";
    App::new(name, &fixtures::shell(line)).instances(1).set("wait_ready", true).port(free_port())
}

fn needs(app: App, names: &[&str]) -> App {
    app.set("depends_on", format!("{names:?}"))
}

fn journal(daemon: &Daemon) -> Vec<String> {
    let text = fs::read_to_string(daemon.home.apps().join("journal")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Who was started, in that order: what a program in fork mode says first may come later than the next one's.
fn starts(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    let started = log.lines().filter(|line| line.ends_with(": starting"));
    let app = |line: &str| line.split_whitespace().nth(2)?.split_once('/').map(|(app, _)| app.to_owned());
    started.filter_map(app).collect()
}

fn status(daemon: &Daemon, app: &str) -> String {
    daemon.app(app).status
}

/// The verb as it is about the file.
fn of_file(daemon: &Daemon, verb: &str) -> Output {
    daemon.run(&[verb, &daemon.home.file().display().to_string()])
}

const IDLE: &str = "while :; do sleep 0.02; done";

#[test]
fn what_ended_for_good_is_not_started_again() {
    let never = script("never", "echo ran never; exit 1").set("autorestart", false);
    let code = script("code", "echo ran code; exit 42").set("stop_exit_codes", "[42]");
    let signal = script("signal", "echo ran signal; kill -KILL $$").set("stop_exit_codes", "[0, 9, 137]");
    let daemon = Daemon::foreground(file(&[never, code, signal, script("other", IDLE)]));
    daemon.expects(&["never/0 generation 1 pid", "was ended by SIGKILL", "signal id 2: "]);
    daemon.wait_status("never", "stopped");
    daemon.wait_status("code", "stopped");
    // A death by signal is no exit code.
    wait_until(ms(20_000), "restarts", || daemon.app("signal").workers[0].restarts >= 2);
    daemon.wait_for_text("not started again: autorestart = false");
    daemon.wait_for_text("not started again: 42 is one of its stop_exit_codes");
    let ran = |name: &str| daemon.output().matches(&format!("ran {name}")).count();
    assert_eq!((ran("never"), ran("code")), (1, 1));
    assert_eq!(daemon.app("code").workers[0].last_exit.as_ref().and_then(|exit| exit.code), Some(42));
    // SIGHUP reads the file again, and a job that is done is not done again.
    daemon.signal(Signal::SIGHUP);
    wait_until(ms(20_000), "the other's reload", || daemon.app("other").generation == 2);
    assert_eq!((ran("never"), ran("code")), (1, 1));
    daemon.run(&["start", "code"]);
    wait_until(ms(10_000), "one more run, asked for", || ran("code") == 2);
}

#[test]
fn an_app_without_autostart_waits_to_be_named() {
    let quiet = script("quiet", IDLE).set("autostart", false);
    let daemon = Daemon::foreground(file(&[quiet, script("other", IDLE)]));
    daemon.wait_online("other", 1);
    assert_eq!(status(&daemon, "quiet"), "stopped");
    for verb in ["start", "reload", "restart"] {
        of_file(&daemon, verb).expect_code(0);
        assert_eq!(status(&daemon, "quiet"), "stopped", "after {verb} of the file");
    }
    daemon.run(&["start", "quiet"]).expect_code(0);
    daemon.wait_online("quiet", 1);
}

#[test]
fn an_essential_app_takes_the_foreground_with_it() {
    let cases = [("exit 7", 7), ("kill -TERM $$", 143), ("exit 0", 0)];
    for (line, code) in cases {
        let essential = script("main", line).set("essential", true).set("autorestart", false);
        let mut daemon = Daemon::foreground(file(&[noted("other"), essential]));
        daemon.expects(&["main/0 generation 1 pid", "no app can run any more"]);
        assert_eq!(daemon.wait_exit(ms(20_000)), code, "{line}");
        assert!(daemon.workers().is_empty());
    }
    // One that is given up has ended for good, and one that somebody stops has not.
    let essential = script("main", "exit 9").set("essential", true).set("max_restarts", 2);
    let mut daemon = Daemon::foreground(file(&[script("other", IDLE), essential]));
    daemon.expects(&[
        "main/0 generation 1 pid",
        "unstable exits in a row",
        "no app can run any more; ending with code 9",
    ]);
    assert_eq!(daemon.wait_exit(ms(20_000)), 9);
    let essential = script("main", IDLE).set("essential", true);
    let mut daemon = Daemon::foreground(file(&[script("other", IDLE), essential]));
    daemon.wait_online("main", 1);
    daemon.run(&["stop", "main"]).expect_code(0);
    holds_for(ms(300), "the supervisor runs", || daemon.runs());
}

#[test]
fn a_foreground_whose_jobs_are_done_exits_with_their_code() {
    for (code, expected) in [(0, 0), (5, 5)] {
        let job = script("job", &format!("exit {code}")).set("autorestart", false);
        let mut daemon = Daemon::foreground(file(&[job]));
        daemon.expects(&["exited with code 5 ", "no app can run any more; ending with code 5"]);
        assert_eq!(daemon.wait_exit(ms(20_000)), expected);
    }
}

#[test]
fn a_file_starts_in_order_and_stops_in_reverse() {
    let apps = [needs(noted("web"), &["api"]), needs(noted("api"), &["gate"]), gated("gate")];
    let mut daemon = Daemon::foreground(file(&apps));
    daemon.wait_status("gate", "launching");
    wait_until(ms(10_000), "both wait", || {
        daemon.app("api").waits_for == ["gate"] && daemon.app("web").waits_for == ["api"]
    });
    assert_eq!(status(&daemon, "web"), "launching");
    holds_for(ms(300), "nobody starts before", || journal(&daemon).is_empty());
    daemon.home.put("gate.ready", "");
    daemon.wait_online("web", 1);
    wait_until(ms(10_000), "both", || journal(&daemon) == ["+api", "+web"]);
    assert!(daemon.app("web").waits_for.is_empty());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(20_000)), 0);
    assert_eq!(journal(&daemon), ["+api", "+web", "-web", "-api"]);
    assert!(daemon.workers().is_empty());
}

#[test]
fn verbs_about_several_apps_keep_the_order() {
    let apps = [needs(noted("web"), &["db"]), noted("db")];
    let daemon = Daemon::foreground(file(&apps));
    daemon.wait_online("web", 1);
    daemon.run(&["stop", "db", "web"]).expect_code(0);
    daemon.run(&["start", "web", "db"]).expect_code(0);
    wait_until(ms(10_000), "both again", || journal(&daemon).len() == 6);
    let ends: Vec<String> = journal(&daemon).into_iter().filter(|line| line.starts_with('-')).collect();
    assert_eq!(ends, ["-web", "-db"]);
    assert_eq!(starts(&daemon), ["db", "web", "db", "web"]);
}

#[test]
fn a_restart_of_several_ends_who_depends_first_and_starts_it_last() {
    let line = "trap 'sleep 0.4; echo -$CLUSTERD_APP >>journal; exit 0' INT; while :; do sleep 0.02; done";
    let apps = [needs(script("top", line), &["web"]), needs(script("web", line), &["db"]), noted("db")];
    let daemon = Daemon::foreground(file(&apps));
    daemon.wait_online("top", 1);
    wait_until(ms(10_000), "its trap", || journal(&daemon) == ["+db"]);
    daemon.run(&["restart", "all"]).expect_code(0);
    let ends: Vec<String> = journal(&daemon).into_iter().filter(|line| line.starts_with('-')).collect();
    assert_eq!(ends, ["-top", "-web", "-db"]);
    assert_eq!(starts(&daemon), ["db", "web", "top"].repeat(2));
}

/// Who depends finishes what it has while what it depends on is there.
#[test]
fn a_restart_of_all_leaves_a_request_under_way_what_it_needs() {
    let port = free_port();
    let web = App::new("web", &fixtures::worker(&["serve"])).instances(1).port(port).delay(2500);
    let daemon = Daemon::foreground(file(&[needs(web, &["db"]), noted("db")]));
    daemon.wait_online("web", 1);
    wait_until(ms(10_000), "its start", || journal(&daemon) == ["+db"]);
    let request = thread::spawn(move || body(port, "/"));
    wait_until(ms(10_000), "the request", || {
        let list = daemon.run(&["list", "web", "--connections", "--json"]).expect_code(0).stdout;
        let list: List = serde_json::from_str(&list).expect("a list");
        list.apps[0].workers.iter().any(|worker| worker.connections.unwrap_or(0) > 0)
    });
    let restart = daemon.spawn(&["restart", "all"]);
    wait_until(ms(10_000), "the answer", || {
        let (answered, ended) = (request.is_finished(), journal(&daemon).len() > 1);
        assert!(answered || !ended, "what it needs ended first");
        answered
    });
    request.join().expect("an answer");
    daemon.home.finish(restart).expect_code(0);
    wait_until(ms(10_000), "its new start", || journal(&daemon) == ["+db", "-db", "+db"]);
}

#[test]
fn who_waits_for_an_app_that_is_stopped_comes_when_that_is_started() {
    let home = Arc::new(Home::new(None));
    home.put("db.ready", "");
    let daemon =
        Builder::new(file(&[needs(noted("web"), &["db"]), gated("db"), noted("other")])).start_in(home);
    daemon.expects(&["it depends on db"]);
    daemon.wait_online("web", 1);
    fs::remove_file(daemon.home.apps().join("db.ready")).expect("it is there");
    let restart = daemon.spawn(&["restart", "all"]);
    wait_until(ms(10_000), "the wait", || daemon.app("web").waits_for == ["db"]);
    daemon.run(&["stop", "db"]).expect_code(0);
    let failed = daemon.home.finish(restart).expect_code(1);
    failed.expect_stderr(&["web", "depends on db", "stopped", "clusterd start db"]);
    assert_eq!((status(&daemon, "web").as_str(), status(&daemon, "db").as_str()), ("launching", "stopped"));
    daemon.wait_for_text("waits: it depends on db, which is stopped; `clusterd start db` starts it");
    daemon.home.put("db.ready", "");
    daemon.run(&["start", "db"]).expect_code(0);
    daemon.wait_online("web", 1);
    wait_until(ms(10_000), "its trap", || {
        journal(&daemon).iter().filter(|line| *line == "+web").count() == 2
    });
    // One that is deleted does not come back.
    fs::remove_file(daemon.home.apps().join("db.ready")).expect("it is there");
    let restart = daemon.spawn(&["restart", "all"]);
    wait_until(ms(10_000), "the wait", || daemon.app("web").waits_for == ["db"]);
    daemon.run(&["delete", "db"]).expect_code(0);
    daemon.home.finish(restart).expect_code(1).expect_stderr(&["depends on db, which is not known"]);
    daemon.wait_status("web", "errored");
}

#[test]
fn a_dependency_that_ends_before_it_is_ready_is_given_up_however_long_it_lives() {
    let dead = script("db", "sleep 0.3; exit 3").text("min_uptime", "100ms").set("max_restarts", 3);
    let apps = [needs(noted("web"), &["db"]), dead.set("wait_ready", true)];
    let (daemon, output) = Daemon::background(file(&apps));
    daemon.expects(&["exited with code 3 ", "unstable exits in a row", "it depends on "]);
    output.expect_code(1).expect_stderr(&["web", "depends on db"]);
    for app in ["db", "web"] {
        daemon.wait_status(app, "errored");
    }
    assert!(journal(&daemon).is_empty());
}

/// Fault 7.
#[test]
fn a_dependency_that_never_gets_ready_fails_the_start_by_name() {
    let late = gated("gate").text("listen_timeout", "300ms");
    let (daemon, output) = Daemon::background(file(&[needs(noted("web"), &["gate"]), late]));
    daemon.expects(&["gate/0 generation 1 pid", "it depends on gate"]);
    output.expect_code(1).expect_stderr(&["web", "depends on gate", "listen_timeout"]);
    daemon.run(&["start", "web"]).expect_code(1).expect_stderr(&["depends on gate"]);
    assert!(journal(&daemon).is_empty());
    // It comes after all, and so does who waited for it.
    daemon.home.put("gate.ready", "");
    daemon.wait_online("web", 1);
}

/// Fault 7.
#[test]
fn a_dependency_that_is_given_up_takes_those_behind_it_along() {
    let dead = script("db", "exit 3").set("max_restarts", 2).set("wait_ready", true);
    let apps = [needs(noted("top"), &["web"]), needs(noted("web"), &["db"]), dead];
    let (daemon, output) = Daemon::background(file(&apps));
    daemon.expects(&["exited with code 3 ", "unstable exits in a row", "it depends on "]);
    output.expect_code(1).expect_stderr(&["web", "depends on db", "top", "depends on web"]);
    for app in ["db", "web", "top"] {
        daemon.wait_status(app, "errored");
    }
    let again = daemon.run(&["start", "web"]);
    again.expect_code(1).expect_stderr(&["depends on db", "given up", "clusterd start db"]);
    assert!(journal(&daemon).is_empty());
    let mut daemon = Daemon::foreground(file(&apps));
    daemon.expects(&[
        "exited with code 3 ",
        "unstable exits in a row",
        "it depends on ",
        "start failed",
        "no app can run any more",
    ]);
    assert_eq!(daemon.wait_exit(ms(20_000)), 3, "nothing is left that could run");
}

#[test]
fn a_start_alone_fails_while_what_it_needs_is_stopped() {
    let daemon = Daemon::foreground(file(&[needs(noted("web"), &["db"]), noted("db")]));
    daemon.wait_online("web", 1);
    daemon.run(&["stop", "all"]).expect_code(0);
    for verb in ["start", "restart", "reload"] {
        let output = daemon.run(&[verb, "web"]).expect_code(1);
        output.expect_stderr(&["web", "depends on db", "stopped", "clusterd start db"]);
        assert_eq!(status(&daemon, "web"), "stopped");
    }
    of_file(&daemon, "start").expect_code(0);
    daemon.wait_online("web", 1);
}

#[test]
fn whatever_happens_to_the_other_who_runs_is_left_alone() {
    let db = noted("db");
    let daemon = Daemon::foreground(file(&[needs(noted("web"), &["db"]), db]));
    daemon.expects(&["was ended by SIGKILL", "web depends on db", "it depends on db"]);
    let before = daemon.wait_online("web", 1);
    daemon.run(&["reload", "db"]).expect_code(0);
    daemon.run(&["signal", "KILL", "db"]).expect_code(0);
    wait_until(ms(10_000), "its restart", || daemon.app("db").workers[0].restarts >= 2);
    daemon.wait_online("db", 1);
    let stopped = daemon.run(&["stop", "db"]).expect_code(0);
    assert!(stopped.stdout.contains("web depends on db, and runs on without it"), "{stopped:?}");
    let deleted = daemon.run(&["delete", "db"]).expect_code(0);
    assert!(deleted.stdout.contains("web depends on db"), "{deleted:?}");
    assert_eq!(daemon.wait_online("web", 1), before);
    daemon.run(&["stop", "web"]).expect_code(0);
    daemon.run(&["start", "web"]).expect_code(1).expect_stderr(&["depends on db", "not known"]);
}

#[test]
fn a_job_is_ready_for_others_when_it_is_done() {
    let line = "until [ -e job.go ]; do sleep 0.02; done; echo job done >>journal";
    let job = script("job", line).set("autorestart", false).set("wait_ready", true);
    let daemon = Daemon::foreground(file(&[needs(noted("web"), &["job"]), job]));
    daemon.wait_status("job", "launching");
    daemon.home.put("job.go", "");
    daemon.wait_online("web", 1);
    wait_until(ms(10_000), "the start", || journal(&daemon) == ["job done", "+web"]);
}

/// Fault 23, at each step of an ordered start.
#[test]
fn a_stop_signal_during_an_ordered_start_stops_what_runs_and_starts_nothing() {
    for opened in 0..3 {
        let home = Arc::new(Home::new(None));
        let names = ["one", "two", "three"];
        for name in &names[..opened] {
            home.put(&format!("{name}.ready"), "");
        }
        let apps = [needs(gated("three"), &["two"]), needs(gated("two"), &["one"]), gated("one")];
        let mut daemon = Builder::new(file(&apps)).start_in(home);
        wait_until(ms(10_000), "the step", || {
            let ready = names.iter().filter(|name| daemon.app(name).status == "online").count();
            let starting = daemon.app(names[opened]).workers[0].pid.is_some();
            ready == opened && starting
        });
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait_exit(ms(15_000)), 0);
        assert!(daemon.workers().is_empty());
        let log = daemon.log();
        for name in &names[opened + 1..] {
            assert!(!log.contains(&format!("{name}/0 generation 1: starting")), "{log}");
        }
    }
}

fn idler(name: &str) -> App {
    App::new(name, &fixtures::shell("exec sleep 1000")).text("kill_timeout", "5s")
}

#[test]
fn scaling_what_is_stopped_notes_the_number_and_starts_nothing() {
    let daemon = Daemon::foreground(idler("api").instances(2));
    daemon.wait_online("api", 2);
    daemon.run(&["stop", "api"]).expect_code(0);
    daemon.run(&["scale", "api", "4"]).expect_code(0);
    let app = daemon.app("api");
    assert_eq!((app.instances, app.status.as_str()), (4, "stopped"));
    assert!(app.workers.iter().all(|worker| worker.pid.is_none()), "{app:?}");
    daemon.run(&["start", "api"]).expect_code(0);
    daemon.wait_online("api", 4);
}

/// A reload for fewer workers must not take the one that runs and keep the one that was stopped.
#[test]
fn of_too_many_workers_the_stopped_ones_go_first() {
    let daemon = Daemon::foreground(idler("api").instances(2));
    let pids = daemon.wait_online("api", 2);
    let first = daemon.app("api").workers[0].id.to_string();
    daemon.run(&["stop", &first]).expect_code(0);
    daemon.run(&["scale", "api", "1"]).expect_code(0);
    assert_eq!(daemon.wait_online("api", 1), [pids[1]]);
}

#[test]
fn a_restart_keeps_what_scale_said_until_the_file_says_another_number() {
    let home = Arc::new(Home::new(None));
    let daemon = Builder::new(idler("api").instances(1)).start_in(Arc::clone(&home));
    daemon.wait_online("api", 1);
    daemon.run(&["scale", "api", "3"]).expect_code(0);
    daemon.run(&["restart", "api"]).expect_code(0);
    daemon.wait_online("api", 3);
    home.write(&idler("api").instances(2).to_string());
    daemon.run(&["restart", "api"]).expect_code(0);
    daemon.wait_online("api", 2);
    // The newer of two wishes holds over the file, whichever way it was said.
    daemon.run(&["restart", "api", "-i", "4"]).expect_code(0);
    daemon.run(&["scale", "api", "3"]).expect_code(0);
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.wait_online("api", 3);
}

#[test]
fn an_essential_app_in_the_background_is_said_to_end_nothing_but_itself() {
    let home = Arc::new(Home::new(None));
    let gate = script("main", "until [ -e over ]; do sleep 0.02; done; exit 3");
    let essential = gate.set("essential", true).set("autorestart", false).text("min_healthy_time", "100ms");
    home.write(&file(&[script("other", IDLE), essential]));
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml"]);
    let said = "main: essential ends everything with it in the foreground alone (`clusterd FILE`)";
    let output = output.expect_code(0);
    assert!(output.stdout.contains(said) && !output.stdout.contains("other: essential"), "{output:?}");
    daemon.expects(&["exited with code 3 "]);
    daemon.home.put("over", "");
    daemon.wait_status("main", "stopped");
    daemon.wait_online("other", 1);
}

/// What runs goes on running, and so does who is restarted.
#[test]
fn a_restart_by_name_needs_no_good_file_and_says_what_was_used() {
    let daemon = Daemon::foreground(script("api", IDLE).env("A", "1"));
    daemon.expects(&["it is restarted with the last configuration that was good"]);
    let mut before = daemon.wait_online("api", 1);
    let mut restarted = |words: &[&str], why: &str| {
        let output = daemon.run(words).expect_code(0);
        let said =
            "api: its file cannot be used, so it is restarted with the last configuration that was good: ";
        assert!(output.stdout.contains(said) && output.stdout.contains(why), "{output:?}");
        assert!(daemon.log().contains(said), "{}", daemon.log());
        let after = daemon.wait_online("api", 1);
        assert_ne!(before, after, "{words:?}");
        before = after;
    };
    daemon.home.write("[[apps]]\nname = \"api\"\nscript = 3\n");
    restarted(&["restart", "api"], "ecosystem.toml:3:");
    restarted(&["restart", "all"], "script: expected");
    restarted(&["restart", "api", "--max-restarts", "3"], "script: expected");
    assert!(daemon.run(&["describe", "api"]).stdout.contains("max_restarts"), "it is told");
    daemon.home.write(&script("other", IDLE).to_string());
    restarted(&["restart", "api"], "is not in ");
    fs::remove_file(daemon.home.file()).expect("it is there");
    restarted(&["restart", "api"], "cannot read ");
    // A reload is for what the file says: without that nothing is touched.
    let pids = daemon.pids("api");
    daemon.run(&["reload", "api"]).expect_code(2).expect_stderr(&["cannot read", "nothing was changed"]);
    daemon.home.write("[[apps]]\nname = \"api\"\nscript = 3\n");
    daemon.run(&["reload", "api"]).expect_code(2).expect_stderr(&["script", "nothing was changed"]);
    assert_eq!(daemon.pids("api"), pids);
    assert_eq!(environ_of(&daemon), "1");
}

/// However many apps are of it.
#[test]
fn a_file_that_cannot_be_used_is_told_of_once() {
    let home = Arc::new(Home::new(None));
    home.write(&file(&[script("api", IDLE).instances(2), script("web", IDLE)]));
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml"]);
    output.expect_code(0);
    daemon.expects(&["restarted with the last configuration that was good"]);
    daemon.home.write("[[apps]]\nname = \"api\"\nscript = 3\n");
    let output = daemon.run(&["restart", "all"]).expect_code(0).stdout;
    let said = "api, web: their file cannot be used, so they are restarted with the last configuration that was good: ";
    assert_eq!((output.matches(said).count(), output.matches("cannot be used").count()), (1, 1), "{output}");
    assert_eq!(output.matches("script: expected").count(), 1, "{output}");
    // Two of its instances are one app.
    let output = daemon.run(&["restart", "0", "1"]).expect_code(0).stdout;
    assert_eq!(output.matches("api: its file cannot be used, so it is restarted").count(), 1, "{output}");
}

fn environ_of(daemon: &Daemon) -> String {
    let shown = daemon.run(&["env", "api"]).expect_code(0).stdout;
    let line = shown.lines().find_map(|line| line.strip_prefix("A="));
    line.map(str::to_owned).unwrap_or_else(|| panic!("no A in {shown}"))
}
