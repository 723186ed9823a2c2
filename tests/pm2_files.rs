//! What PM2's own tests ask of a file as a target: tests 35 and 41 to 47 of tests/README.md's table, with PM2's
//! result or, where that is a defect, the right one.

mod support;

use std::fs::File;
use std::net::TcpListener;
use std::sync::Arc;

use clusterd::control::protocol::List;

use support::hammer::body;
use support::pm2::{ECHO, Row, row, standing, wait_logged};
use support::{App, Daemon, Home, file, fixtures, free_port};

fn home() -> Arc<Home> {
    let home = Home::new(None);
    home.put("echo.sh", ECHO);
    Arc::new(home)
}

fn servers(name: &str, count: u32, port: u16) -> App {
    App::new(name, &fixtures::worker(&["serve"])).instances(count).port(port)
}

fn echo(name: &str) -> App {
    App::bare(name).text("script", "./echo.sh").text("min_healthy_time", "100ms")
}

/// One, four and one workers of three apps, with comments as people write them.
fn all_kinds() -> String {
    let child = servers("child", 4, free_port()).text("out_file", "child-out.log");
    let apps = [echo("echo"), child.text("error_file", "child-err.log"), servers("api-2", 1, free_port())];
    format!("# All there is.\n{}# The end.\n", file(&apps)).replace("\nname = ", " # an app\nname = ")
}

/// All six, alike.
fn six(status: &str, restarts: u32) -> [Row; 3] {
    [
        row("api-2", status, &[restarts]),
        row("child", status, &[restarts; 4]),
        row("echo", status, &[restarts]),
    ]
}

fn run(daemon: &Daemon, words: &[&str]) {
    daemon.run(words).expect_code(0);
}

/// Tests 41 and 44.
#[test]
fn every_verb_takes_a_file_for_all_of_its_apps_and_counts_alike() {
    let home = home();
    home.write(&all_kinds());
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml"]);
    output.expect_code(0);
    assert_eq!(standing(&daemon), six("online", 0));
    for stream in ["out", "err"] {
        let logs = (0..4).map(|instance| daemon.home.apps().join(format!("child-{stream}-{instance}.log")));
        logs.for_each(|log| assert!(log.is_file(), "{}", log.display()));
    }
    run(&daemon, &["stop", "ecosystem.toml"]);
    assert_eq!(standing(&daemon), six("stopped", 0));
    run(&daemon, &["delete", "ecosystem.toml"]);
    assert_eq!(standing(&daemon), []);
    for (verb, status, restarts) in [
        ("start", "online", 0),
        ("restart", "online", 1),
        ("reload", "online", 2),
        ("start", "online", 3),
        ("stop", "stopped", 3),
        ("start", "online", 3),
        ("startOrRestart", "online", 4),
        ("startOrReload", "online", 5),
        ("startOrGracefulReload", "online", 6),
    ] {
        run(&daemon, &[verb, "ecosystem.toml"]);
        assert_eq!(standing(&daemon), six(status, restarts), "after {verb}");
    }
    for verb in ["startOrRestart", "startOrReload"] {
        run(&daemon, &["delete", "ecosystem.toml"]);
        run(&daemon, &[verb, "ecosystem.toml"]);
        assert_eq!(standing(&daemon), six("online", 0), "{verb} starts what is missing");
    }
}

/// Test 43.
#[test]
fn a_file_from_standard_input_starts_and_deletes_all_of_its_apps() {
    let home = home();
    home.write(&all_kinds());
    let piped = |verb: &str| {
        let text = File::open(home.file()).expect("it was written");
        let running = home.spawn_with(&[verb, "-"], |command| {
            command.stdin(text);
        });
        home.finish(running).expect_code(0);
    };
    piped("start");
    let daemon = Daemon::of(&home);
    assert_eq!(standing(&daemon), six("online", 0));
    piped("delete");
    assert_eq!(standing(&daemon), []);
}

/// Tests 35 and 45. Two apps on one port are refused here, so each has its own.
#[test]
fn what_a_file_knows_that_does_not_run_is_started_by_every_verb_and_finds_its_port_free() {
    let home = home();
    let ports = [free_port(), free_port()];
    home.write(&file(&[servers("http", 4, ports[0]), servers("http2", 2, ports[1])]));
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml"]);
    output.expect_code(0);
    let serves = |restarts: u32| {
        let expected = [row("http", "online", &[restarts; 4]), row("http2", "online", &[restarts; 2])];
        assert_eq!(standing(&daemon), expected);
        assert!(ports.iter().all(|&port| !body(port, "/").is_empty()));
    };
    serves(0);
    for (verb, restarts) in [("start", 1), ("restart", 2), ("reload", 3)] {
        run(&daemon, &[verb, "ecosystem.toml"]);
        serves(restarts);
    }
    for verb in ["restart", "reload", "start"] {
        run(&daemon, &["delete", "all"]);
        assert_eq!(standing(&daemon), []);
        for port in ports {
            TcpListener::bind(("0.0.0.0", port)).expect("nobody has it any more");
        }
        run(&daemon, &[verb, "ecosystem.toml"]);
        serves(0);
    }
}

/// Test 46, whose file is YAML in PM2: `import` makes that TOML.
#[test]
fn a_file_that_is_missing_or_wrong_starts_nothing_and_a_right_one_of_several_languages_all() {
    let Some(python) = fixtures::python("echo.py") else { return };
    let home = home();
    home.run(&["start", "missing.toml"]).expect_code(2).expect_stderr(&["missing.toml"]);
    home.put("wrong.toml", "[whatever]\nname = \"echo\"\n");
    home.run(&["start", "wrong.toml"]).expect_code(2).expect_stderr(&["wrong.toml", "whatever"]);
    assert!(!home.socket().exists(), "neither started a supervisor");

    home.put("echo.py", "import os, time\nprint(os.environ['DEFAULT_STR'])\ntime.sleep(100000)\n");
    let language = App::bare("PythonApp").text("script", "echo.py").text("interpreter", &python.command[0]);
    let language = language.text("interpreter_args", "-u").env("DEFAULT_STR", "PYTHONENV");
    let language = language.text("min_healthy_time", "100ms");
    home.write(&file(&[echo("test"), servers("HTTP", 4, free_port()), language]));
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml"]);
    output.expect_code(0);
    let all = |status: &str, restarts: u32| {
        [
            row("HTTP", status, &[restarts; 4]),
            row("PythonApp", status, &[restarts]),
            row("test", status, &[restarts]),
        ]
    };
    assert_eq!(standing(&daemon), all("online", 0));
    for (at, (verb, target)) in
        [("restart", "all"), ("restart", "ecosystem.toml"), ("reload", "all"), ("reload", "ecosystem.toml")]
            .into_iter()
            .enumerate()
    {
        wait_logged(&daemon, "PythonApp-out.log", "PYTHONENV\n", at + 1);
        run(&daemon, &[verb, target]);
        assert_eq!(standing(&daemon), all("online", at as u32 + 1), "{verb} {target}");
    }
    run(&daemon, &["stop", "all"]);
    assert_eq!(standing(&daemon), all("stopped", 4));
    run(&daemon, &["start", "ecosystem.toml"]);
    run(&daemon, &["delete", "all"]);
    assert_eq!(standing(&daemon), []);
    for wrong in ["missing.toml", "wrong.toml"] {
        assert_ne!(daemon.run(&["start", wrong]).code, 0);
        assert_eq!(standing(&daemon), []);
    }
}

fn interpreter_args(daemon: &Daemon, name: &str) -> String {
    let output = daemon.run(&["describe", name, "--json"]).expect_code(0).stdout;
    let list: List = serde_json::from_str(&output).expect("JSON");
    let detail = list.apps.into_iter().next().and_then(|app| app.detail).expect("describe has the details");
    detail.settings["interpreter_args"].clone()
}

/// Test 47.
#[test]
fn what_is_said_last_holds_and_what_is_said_no_more_is_gone() {
    let home = home();
    let (daemon, output) = Daemon::started_by(home, &["start", "echo.sh", "--interpreter-args="]);
    output.expect_code(0);
    assert_eq!(interpreter_args(&daemon, "echo"), "[]");
    daemon.home.write(&echo("echo").text("interpreter_args", "-f").to_string());
    for verb in ["start", "restart"] {
        run(&daemon, &[verb, "ecosystem.toml"]);
        assert_eq!(interpreter_args(&daemon, "echo"), "[\"-f\"]", "{verb}");
    }
    daemon.home.write(&echo("echo").to_string());
    run(&daemon, &["restart", "ecosystem.toml"]);
    assert_eq!(interpreter_args(&daemon, "echo"), "[]");
    for (flag, holds) in [("--interpreter-args=-e", "[\"-e\"]"), ("--interpreter-args=", "[]")] {
        run(&daemon, &["start", "echo.sh", "--force", flag]);
        assert_eq!(interpreter_args(&daemon, "echo"), holds);
    }
    for (flag, holds) in [("--interpreter-args=-e", "[\"-e\"]"), ("--interpreter-args=null", "[]")] {
        run(&daemon, &["restart", "echo", flag]);
        assert_eq!(interpreter_args(&daemon, "echo"), holds);
    }
    run(&daemon, &["restart", "echo", "--name", "new-name"]);
    run(&daemon, &["reset", "new-name"]);
    run(&daemon, &["restart", "new-name"]);
    assert_eq!(standing(&daemon), [row("new-name", "online", &[1])]);
}
