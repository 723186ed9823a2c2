//! What PM2's own tests ask of workers and of the supervisor that none of the other files is about
//! (tests/README.md has them by number).

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use nix::sys::signal::Signal;
use support::daemon::{BOOT, exists, send, state_and_parent};
use support::hammer::get;
use support::{App, Daemon, Home, ORDINARY, file, fixtures, free_port, root, skip, wait_until};

fn idle(name: &str) -> App {
    App::new(name, &fixtures::worker(&["idle"])).text("exec_mode", "fork")
}

fn ids(daemon: &Daemon, app: &str) -> Vec<u32> {
    daemon.app(app).workers.iter().map(|worker| worker.id).collect()
}

#[test]
fn an_id_stays_with_its_worker_over_every_replacement_and_is_nobody_elses() {
    let (daemon, output) = Daemon::background(file(&[idle("two").instances(2), idle("one")]));
    output.expect_code(0);
    let (two, one) = (ids(&daemon, "two"), ids(&daemon, "one"));
    let different = |lists: &[&[u32]]| lists.concat().into_iter().collect::<BTreeSet<u32>>().len();
    assert_eq!(different(&[&two, &one]), 3);
    for words in
        [["stop", "all"], ["start", "all"], ["restart", "all"], ["reload", "all"], ["restart", "two"]]
    {
        daemon.run(&words).expect_code(0);
        assert_eq!((ids(&daemon, "two"), ids(&daemon, "one")), (two.clone(), one.clone()), "{words:?}");
    }
    send(daemon.pids("one")[0], Signal::SIGKILL);
    daemon.expects(&["was ended by SIGKILL"]);
    wait_until(BOOT, "its successor", || daemon.app("one").workers[0].restarts > 0);
    assert_eq!(ids(&daemon, "one"), one);
    daemon.run(&["scale", "two", "4"]).expect_code(0);
    let four = ids(&daemon, "two");
    assert_eq!((&four[..2], different(&[&four, &one])), (&two[..], 5));
    daemon.run(&["delete", "one"]).expect_code(0);
    daemon.home.put("more.toml", &file(&[idle("more")]));
    daemon.run(&["start", "more.toml"]).expect_code(0);
    assert_eq!(different(&[&four, &ids(&daemon, "more")]), 5);
}

#[test]
fn an_interpreters_name_within_a_path_chooses_no_interpreter() {
    let home = Arc::new(Home::new(None));
    let paths = ["node/python3/server", "my.js/run.py/ruby", "bun.ts/php-server.d/perl.conf"];
    for path in paths {
        let path = home.apps().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a fresh home");
        fs::write(&path, "#!/bin/sh\necho \"run by $(readlink /proc/$$/exe)\"\nexec sleep 100000\n")
            .expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let shell = fs::canonicalize("/bin/sh").expect("a shell").display().to_string();
    let words = [&["start"], &paths[..]].concat();
    let (daemon, output) = Daemon::started_by(home, &words);
    output.expect_code(0);
    for name in ["server", "ruby", "perl"] {
        let shown = || daemon.run(&["logs", name, "--no-follow", "--raw"]).expect_code(0).stdout;
        wait_until(BOOT, &format!("{name} is run by {shell}"), || {
            let shown = shown();
            if shown == format!("run by {shell}\n") { Ok(()) } else { Err(shown) }
        });
    }
}

/// PM2 counts on the log of the first instance; the line has to be in each of them.
#[test]
fn a_signal_reaches_each_worker_of_an_app_once_and_of_an_id_that_one() {
    let line = "trap 'echo SIGUSR2' USR2; echo ok; while :; do sleep 0.02; done";
    let app = App::new("signal", &fixtures::shell(line)).text("exec_mode", "fork").instances(2);
    let (daemon, output) = Daemon::background(app);
    output.expect_code(0);
    let counts = |text: &str| -> [usize; 2] {
        let path = |instance| daemon.home.path().join(format!("logs/signal-out-{instance}.log"));
        [0, 1].map(|instance| fs::read_to_string(path(instance)).unwrap_or_default().matches(text).count())
    };
    let wait_for = |text: &str, expected: [usize; 2]| {
        wait_until(BOOT, &format!("{expected:?} times {text}"), || {
            let seen = counts(text);
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    wait_for("ok", [1, 1]);
    daemon.run(&["sendSignal", "SIGUSR2", "signal"]).expect_code(0);
    wait_for("SIGUSR2", [1, 1]);
    let second = ids(&daemon, "signal")[1].to_string();
    daemon.run(&["sendSignal", "SIGUSR2", &second]).expect_code(0);
    wait_for("SIGUSR2", [1, 2]);
    daemon.run(&["sendSignal", "12", "signal"]).expect_code(0);
    wait_for("SIGUSR2", [2, 3]);
    assert_eq!(daemon.app("signal").workers.iter().map(|worker| worker.restarts).sum::<u32>(), 0);
}

#[test]
fn a_user_is_given_by_name_or_number_and_an_unknown_one_runs_nothing() {
    if !root() {
        return skip("only root can change users");
    }
    let home = Arc::new(Home::new(None));
    let words = |name: &str, uid: &str| {
        ["start", "./fixture_worker", "--name", name, "--uid", uid, "--", "idle"].map(str::to_owned)
    };
    let start = |name: &str, uid: &str| home.run(&words(name, uid).each_ref().map(String::as_str));
    start("unknown", "no-such-user").expect_code(1).expect_stderr(&["no-such-user"]);
    let daemon = Daemon::of(&home);
    daemon.expects(&["no-such-user", "unknown"]);
    assert_eq!(daemon.workers(), []);
    for (name, uid) in [("named", "nobody"), ("numbered", &ORDINARY.to_string())] {
        start(name, uid).expect_code(0);
        let pid = daemon.wait_online(name, 1)[0];
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        for key in ["Uid:", "Gid:"] {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel shows it");
            let all: Vec<u32> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            assert_eq!(all, [ORDINARY; 4], "{key} of {name}");
        }
    }
}

#[test]
fn a_list_is_sorted_by_the_field_that_is_asked_for_either_way() {
    let port = free_port();
    let fat = App::new("http", &fixtures::worker(&["serve"])).text("exec_mode", "fork").port(port);
    let (daemon, output) = Daemon::background(file(&[idle("other"), fat.env("BALLAST_MIB", 40)]));
    output.expect_code(0);
    wait_until(BOOT, "a server that has taken its memory", || get(port, "/").is_ok());
    for (field, first) in [
        ("name", "http"),
        ("name:asc", "http"),
        ("name:desc", "other"),
        ("id", "other"),
        ("id:desc", "http"),
        ("memory:desc", "http"),
        ("memory", "other"),
    ] {
        let sort = format!("--sort={field}");
        let table = daemon.run(&["list", &sort]).expect_code(0).stdout;
        let place = |name: &str| table.find(name).unwrap_or_else(|| panic!("{name} is missing: {table}"));
        assert_eq!(place("http") < place("other"), first == "http", "{field}: {table}");
        let json = daemon.run(&["ls", "--sort", field, "--json"]).expect_code(0).stdout;
        let list: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(list["apps"][0]["name"], first, "{field}");
    }
    daemon.run(&["list", "--sort", "size"]).expect_code(2).expect_stderr(&["--sort", "memory", ":desc"]);
}

/// As `kill $(cat pidfile)` does; the list on the disk is that of before, not of everything stopped.
#[test]
fn sigterm_to_a_background_supervisor_ends_it_and_all_that_it_runs() {
    let (mut daemon, output) = Daemon::background(file(&[idle("two").instances(2), idle("one")]));
    output.expect_code(0);
    let workers = [daemon.wait_online("two", 2), daemon.wait_online("one", 1)].concat();
    send(daemon.pid, Signal::SIGTERM);
    wait_until(BOOT, "its end", || state_and_parent(daemon.pid).is_none_or(|(state, _)| state == 'Z'));
    assert!(!workers.iter().any(|pid| exists(*pid)), "{:?}", daemon.home.processes());
    daemon.run(&["ping"]).expect_code(1);
    daemon.run(&["resurrect"]).expect_code(0);
    daemon.pid = daemon.list().daemon.pid;
    assert_eq!((daemon.wait_online("two", 2).len(), daemon.wait_online("one", 1).len()), (2, 1));
}
