//! `logs` against the real binary: what is remembered, what comes, and what a reader missed.

mod support;

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use support::daemon::Builder;
use support::{App, Daemon, file, fixtures, wait_until};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn fork(name: &str, script: &str) -> App {
    App::new(name, &fixtures::shell(script)).text("exec_mode", "fork")
}

/// Prints its name and number, again whenever there is a file of the name `go`.
const SPEAKING: &str = "echo \"$CLUSTERD_APP $CLUSTERD_INSTANCE begins\"; while [ ! -e go ]; do sleep 0.05; done; \
                        echo \"$CLUSTERD_APP $CLUSTERD_INSTANCE goes on\"; exec sleep 1000";

#[test]
fn the_log_of_one_worker_is_its_own() {
    let daemon = Daemon::foreground(fork("api", SPEAKING).instances(2));
    let shown = || daemon.run(&["logs", "1", "--no-follow"]).expect_code(0).stdout;
    wait_until(ms(10_000), "its first line", || shown().contains("api 1 begins"));
    assert!(!shown().contains("api 0"), "{}", shown());
    let following = daemon.spawn(&["logs", "1"]);
    wait_until(ms(10_000), "the last lines", || following.stdout().contains("api 1 begins"));
    daemon.home.put("go", "");
    wait_until(ms(10_000), "the new one", || following.stdout().contains("api 1 goes on"));
    assert!(!following.stdout().contains("api 0"), "{}", following.stdout());
}

#[test]
fn who_follows_a_pattern_hears_apps_that_come_later_and_workers_that_are_replaced() {
    let apps = [fork("web-1", SPEAKING), fork("web-2", SPEAKING), fork("other", SPEAKING)];
    let (daemon, _) = Daemon::background(file(&apps[..1]));
    let following = daemon.spawn(&["logs", "/^web/"]);
    wait_until(ms(10_000), "the first app", || following.stdout().contains("web-1 0 begins"));
    daemon.home.write(&file(&apps));
    let path = daemon.home.file().display().to_string();
    daemon.run(&["start", &path]).expect_code(0);
    wait_until(ms(10_000), "the app that came later", || following.stdout().contains("web-2 0 begins"));
    let begun = |text: &str| text.matches("web-1 0 begins").count();
    let before = begun(&following.stdout());
    daemon.run(&["restart", "web-1"]).expect_code(0);
    wait_until(ms(10_000), "the next worker", || begun(&following.stdout()) > before);
    daemon.run(&["delete", "web-2"]).expect_code(0);
    daemon.run(&["start", &path, "--only", "web-2"]).expect_code(0);
    wait_until(ms(10_000), "the app that came again", || {
        following.stdout().matches("web-2 0 begins").count() == 2
    });
    assert!(!following.stdout().contains("other 0"), "{}", following.stdout());
}

#[test]
fn an_app_without_a_worker_is_followed_until_it_has_one() {
    let (daemon, _) = Daemon::background(fork("api", SPEAKING));
    let begun = |text: &str| text.matches("api 0 begins").count();
    let shown = || daemon.run(&["logs", "api", "--no-follow"]).expect_code(0).stdout;
    wait_until(ms(10_000), "its first line", || begun(&shown()) == 1);
    daemon.run(&["stop", "api"]).expect_code(0);
    let following = daemon.spawn(&["logs", "api"]);
    wait_until(ms(10_000), "what is remembered", || begun(&following.stdout()) == 1);
    daemon.run(&["start", "api"]).expect_code(0);
    wait_until(ms(10_000), "its line", || begun(&following.stdout()) == 2);
}

/// More than one client may leave unread: it comes as fast as it is read.
#[test]
fn all_remembered_lines_of_many_apps_arrive() {
    let line = "i=0; while [ $i -lt 1000 ]; do i=$((i + 1)); printf '%s %s %0200d\\n' \"$CLUSTERD_APP\" $i 0; done; exec sleep 1000";
    let names: Vec<String> = (0..8).map(|number| format!("app{number}")).collect();
    let apps: Vec<App> = names.iter().map(|name| fork(name, line).text("out_file", "/dev/null")).collect();
    let daemon = Builder::new(file(&apps)).stdout(Stdio::null()).start();
    let last = |name: &str| daemon.run(&["logs", name, "-n", "1", "--nostream"]).stdout;
    for name in &names {
        wait_until(ms(30_000), "its last line", || last(name).contains(&format!("{name} 1000 ")));
    }
    let shown = daemon.run(&["logs", "--raw", "--lines", "1000", "--no-follow"]).expect_code(0).stdout;
    for name in &names {
        let numbers = shown.lines().filter_map(|line| line.strip_prefix(name.as_str())?.split(' ').nth(1));
        let expected = (1..=1000).map(|number: u32| number.to_string());
        assert!(numbers.eq(expected), "{name}: {} lines in all", shown.lines().count());
    }
}

/// Fault 50: it costs bounded memory, and is told at the place where lines are missing how many these are.
#[test]
fn a_reader_that_stands_still_is_told_what_it_missed() {
    let line =
        "i=0; while :; do i=$((i + 1)); echo \"number $i of a flood of lines that are all alike\"; done";
    let flood = fork("flood", line).text("out_file", "/dev/null").text("kill_timeout", "300ms");
    let daemon = Builder::new(flood).stdout(Stdio::null()).start();
    daemon.wait_online("flood", 1);
    let mut command = daemon.home.command(&[]);
    let mut reader = command
        .args(["logs", "flood", "--lines", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary is there");
    let reached = |least: u64| {
        let last = daemon.run(&["logs", "flood", "--lines", "1", "--nostream"]).stdout;
        last.split("number ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok())
            > Some(least)
    };
    wait_until(ms(60_000), "more than is kept for it", || reached(50_000));
    let before = daemon.resident();
    wait_until(ms(60_000), "twice as much", || reached(100_000));
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB for a reader that takes nothing");
    // Who reads an answer of another kind is given up after ten seconds.
    let uptime = || daemon.list().daemon.uptime_ms;
    let begin = uptime();
    wait_until(ms(30_000), "eleven seconds", || uptime() > begin + 11_000);
    let mut output = reader.stdout.take().expect("it is a pipe");
    let (mut text, mut part) = (Vec::new(), vec![0; 65_536]);
    let notice = loop {
        let count = output.read(&mut part).expect("it is our pipe");
        assert!(count > 0, "it ended: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&part[..count]);
        let told = String::from_utf8_lossy(&text);
        let found = told.lines().rev().skip(2).find(|line| line.starts_with("[clusterd] "));
        if let Some(found) = found {
            break found.to_owned();
        }
    };
    let told = String::from_utf8_lossy(&text).into_owned();
    let number = |line: &str| line.split("number ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let (before, after) = told.split_once(&notice).expect("it was found there");
    let last = before.lines().rev().find_map(number).expect("lines before the gap");
    let next = after.lines().find_map(number).expect("lines after the gap");
    assert_eq!(
        notice,
        format!(
            "[clusterd] {} lines are missing here: they came faster than they were read",
            next - last - 1
        )
    );
    reader.kill().expect("it is our child");
    reader.wait().expect("it is our child");
}

#[test]
fn lines_are_chosen_by_time_and_pattern_and_shown_with_their_time() {
    let daemon = Daemon::foreground(fork(
        "api",
        "for i in 1 2 3 4 5 6; do echo \"$i odd or even\"; done; echo last; exec sleep 1000",
    ));
    let shown =
        |words: &[&str]| daemon.run(&[&["logs", "api", "--no-follow"], words].concat()).expect_code(0).stdout;
    wait_until(ms(10_000), "all lines", || shown(&["--grep", "^last$"]) == "api-0 | last\n");
    assert_eq!(shown(&["--raw", "--grep", "[246]", "-n", "2"]), "4 odd or even\n6 odd or even\n");
    assert_eq!(shown(&["--raw", "--since", "1h"]).lines().count(), 7);
    assert_eq!(shown(&["--raw", "--since", "0s"]), "");
    let year = shown(&["--grep", "last", "--timestamp", "[y]YYYY"]);
    let year = year.strip_prefix("api-0 | y").and_then(|rest| rest.strip_suffix(" last\n"));
    assert!(year.and_then(|year| year.parse::<u32>().ok()).is_some_and(|year| year >= 2025), "{year:?}");
    let lines = shown(&["--json", "--grep", "last"]);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["type"], &first["text"]), (&"line".into(), &"last".into()));
    assert!(first["at"].as_str().is_some_and(|at| at.ends_with('Z') && at.len() == 24), "{first}");
    for wrong in [&["--grep", "("][..], &["--since", "soon"], &["--timestamp", "api"]] {
        let output = daemon.run(&[&["logs", "--no-follow"], wrong].concat()).expect_code(2);
        assert!(output.stderr.contains(wrong[0]), "{output:?}");
    }
    let many = daemon.run(&["logs", "--no-follow", "-n", "5000"]).expect_code(0);
    assert!(many.stderr.contains("1000 lines of each app are remembered"), "{many:?}");
}

#[test]
fn who_follows_is_told_that_the_supervisor_ended() {
    let daemon = Daemon::foreground(fork("api", SPEAKING));
    let following = daemon.spawn(&["logs", "api"]);
    wait_until(ms(10_000), "the last lines", || following.stdout().contains("api 0 begins"));
    daemon.run(&["kill"]).expect_code(0);
    let output = following.wait(ms(10_000));
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("the supervisor has ended"), "{output:?}");
}

/// Whoever reads, flushes or rotates the logs of one has nothing of the other's.
#[test]
fn apps_of_one_name_in_two_namespaces_have_logs_of_their_own() {
    let app = |namespace: &str| {
        let line = format!("echo first of {namespace}; echo last of {namespace}; exec sleep 1000");
        let app = fork("api", &line);
        if namespace == "default" { app } else { app.text("namespace", namespace) }
    };
    let daemon = Daemon::foreground(file(&["default", "shop", "blog"].map(app)));
    let logs = daemon.home.path().join("logs");
    let read = |file: &str| std::fs::read_to_string(logs.join(file)).unwrap_or_default();
    for (namespace, file, shown) in [
        ("default", "api-out.log", "api-0 "),
        ("shop", "shop@api-out.log", "shop/api-0 "),
        ("blog", "blog@api-out.log", "blog/api-0 "),
    ] {
        let text = format!("first of {namespace}\nlast of {namespace}\n");
        wait_until(ms(10_000), file, || if read(file) == text { Ok(()) } else { Err(read(file)) });
        wait_until(ms(10_000), shown, || daemon.output().lines().any(|line| line.starts_with(shown)));
    }
    let lines = |words: &[&str]| {
        let shown =
            daemon.run(&[&["logs", "--no-follow", "--lines", "1"], words].concat()).expect_code(0).stdout;
        let mut lines: Vec<String> = shown.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let last = ["api-0 | last of default", "blog/api-0 | last of blog", "shop/api-0 | last of shop"];
    assert_eq!(lines(&[]), last);
    let told: Vec<serde_json::Value> =
        lines(&["--json"]).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for (namespace, text) in
        [("blog", "last of blog"), ("default", "last of default"), ("shop", "last of shop")]
    {
        let has = |line: &&serde_json::Value| line["namespace"] == namespace && line["app"] == "api";
        let found: Vec<_> = told.iter().filter(has).map(|line| line["text"].as_str()).collect();
        assert_eq!(found, [Some(text)], "{told:?}");
    }
    daemon.run(&["flush", "shop/api"]).expect_code(0);
    let left = ["api-out.log", "shop@api-out.log", "blog@api-out.log"].map(|file| read(file).lines().count());
    assert_eq!(left, [2, 0, 2]);
    let described = daemon.run(&["describe", "shop/api"]).expect_code(0).stdout;
    assert!(described.contains("shop@api-out.log"), "{described}");
}
