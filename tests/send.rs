//! `clusterd send`: lines to the standard input of workers.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::daemon::clusterd;
use support::{App, Daemon, Home, file, fixtures, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

/// Says each line that it reads, and when there are no more.
const ECHO: &str =
    "while read -r line; do echo \"Line $line received\"; done; echo END; while :; do sleep 0.05; done";

fn piped(name: &str, line: &str) -> App {
    App::new(name, &fixtures::shell(line)).text("stdin", "pipe")
}

fn wait_for_output(daemon: &Daemon, text: &str) {
    wait_until(LIMIT, text, || daemon.output().contains(text));
}

#[test]
fn a_line_reaches_every_worker_that_is_meant_and_nobody_else() {
    let daemon = Daemon::foreground(file(&[
        piped("a", ECHO).instances(2).text("ready", "exec").text("min_uptime", "100ms"),
        piped("b", ECHO),
        piped("c", ECHO),
    ]));
    daemon.wait_online("a", 2);
    daemon.wait_online("b", 1);
    daemon.run(&["send", "a", "b", "$(date) 'x'"]).expect_code(0);
    wait_until(LIMIT, "three answers", || daemon.output().matches("Line $(date) 'x' received").count() == 3);
    daemon.run(&["send", "1", "second"]).expect_code(0);
    wait_for_output(&daemon, "Line second received");
    let output = daemon.output();
    assert!(!output.contains("c | ") && !output.contains("END"), "{output}");
    assert_eq!(output.matches("Line second received").count(), 1, "{output}");
}

/// Without the key a program that reads its input to the end goes on, as it does under systemd.
#[test]
fn without_a_pipe_standard_input_is_at_its_end() {
    let daemon = Daemon::foreground(App::new("api", &fixtures::shell(ECHO)));
    daemon.wait_online("api", 1);
    wait_for_output(&daemon, "END");
    let refused = daemon.run(&["send", "api", "hello"]);
    let file = daemon.home.file().display().to_string();
    refused.expect_code(1).expect_stderr(&["api/0", "has no standard input", "stdin = \"pipe\"", &file]);
}

/// There is no file to write it into, and no flag.
#[test]
fn an_app_of_flags_is_told_what_gives_it_an_input() {
    let home = Arc::new(Home::new(None));
    let (daemon, started) =
        Daemon::started_by(Arc::clone(&home), &["start", "while :; do sleep 0.05; done", "--name", "api"]);
    started.expect_code(0);
    let refused = daemon.run(&["send", "api", "hello"]).expect_code(1);
    assert!(!refused.stderr.contains("its file"), "{refused:?}");
    refused.expect_stderr(&[
        "api/0",
        "has no standard input",
        "ecosystem file",
        "stdin = \"pipe\"",
        "clusterd start",
    ]);
    // As it is told.
    home.write(&file(&[piped("api", ECHO)]));
    let ecosystem = home.file().display().to_string();
    daemon.run(&["start", &ecosystem]).expect_code(0);
    daemon.wait_online("api", 1);
    daemon.run(&["send", "api", "hello"]).expect_code(0);
}

#[test]
fn a_reload_gives_each_new_worker_a_pipe_of_its_own_and_keeps_those_of_the_old() {
    let daemon =
        Daemon::foreground(piped("api", ECHO).instances(1).text("ready", "exec").text("min_uptime", "100ms"));
    let before = daemon.wait_online("api", 1);
    daemon.run(&["send", "api", "one"]).expect_code(0);
    daemon.run(&["reload", "api"]).expect_code(0);
    assert_ne!(daemon.wait_online("api", 1), before);
    daemon.run(&["send", "api", "two"]).expect_code(0);
    wait_for_output(&daemon, "Line two received");
    assert!(!daemon.output().contains("END"), "{}", daemon.output());
}

/// Nothing is kept for who does not read: the pipe is all there is.
#[test]
fn a_worker_that_does_not_read_costs_nothing_and_is_told_of() {
    let idle = "while :; do sleep 0.05; done";
    let daemon = Daemon::foreground(file(&[piped("deaf", idle), piped("b", ECHO)]));
    daemon.wait_online("deaf", 1);
    daemon.wait_online("b", 1);
    let line = "x".repeat(4095);
    let mut sent = 0;
    let refused = loop {
        let output = daemon.run(&["send", "deaf", &line]);
        if output.code != 0 {
            break output;
        }
        sent += 1;
        assert!(sent < 1000, "the pipe has no end");
    };
    refused.expect_code(1).expect_stderr(&["deaf/0", "does not read its standard input"]);
    let some = daemon.run(&["send", "deaf", "b", "on"]);
    some.expect_code(1).expect_stderr(&["deaf/0", "sent to b/0"]);
    wait_for_output(&daemon, "Line on received");
}

#[test]
fn a_worker_that_closed_its_input_is_told_of() {
    let daemon = Daemon::foreground(piped("api", "exec <&-; echo CLOSED; while :; do sleep 0.05; done"));
    daemon.wait_online("api", 1);
    wait_for_output(&daemon, "CLOSED");
    let refused = daemon.run(&["send", "api", "x"]);
    refused.expect_code(1).expect_stderr(&["api/0", "has closed its standard input"]);
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let daemon = Daemon::foreground(piped("api", ECHO));
    daemon.wait_online("api", 1);
    daemon.run(&["send", "nobody", "x"]).expect_code(1);
    daemon.run(&["send", "api"]).expect_code(2);
    daemon.run(&["send", "api", "a\nb"]).expect_code(2).expect_stderr(&["one line at a time"]);
    daemon.run(&["send", "api", &"x".repeat(4096)]).expect_code(2).expect_stderr(&["at most 4095"]);
    daemon.run(&["stop", "api"]).expect_code(0);
    daemon.run(&["send", "api", "x"]).expect_code(1).expect_stderr(&["no process runs there"]);
    let home = Home::new(None);
    home.write("[[apps]]\nname = \"api\"\nscript = \"sleep 1000\"\nstdin = \"tty\"\n");
    let path = home.file().display().to_string();
    let refused = clusterd(&home, &["validate", &path]);
    refused.expect_code(2).expect_stderr(&["ecosystem.toml:4:9", "\"null\" or \"pipe\""]);
}
