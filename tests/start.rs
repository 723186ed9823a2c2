//! `clusterd start` as PM2's users write it: a script, a command, what is known, several at once.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]
#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use clusterd::control::protocol::{AppInfo, List};

use nix::sys::signal::Signal;
use support::daemon::BOOT;
use support::{App, Daemon, Home, Load, free_port, wait_until};

/// Says what its variable WORD and its first argument are, and waits for ever.
const ECHO: &str = "#!/bin/sh\necho \"word $WORD of $1\"\nexec sleep 100000\n";

fn home() -> Arc<Home> {
    let home = Home::new(None);
    for name in ["echo.sh", "child.sh", "other.sh"] {
        home.put(name, ECHO);
    }
    Arc::new(home)
}

/// A supervisor that `start` with these words has started.
fn started(words: &[&str]) -> Daemon {
    let (daemon, output) = Daemon::started_by(home(), &[&["start"], words].concat());
    output.expect_code(0);
    daemon
}

fn described(daemon: &Daemon, name: &str) -> AppInfo {
    let output = daemon.run(&["describe", name, "--json"]).expect_code(0);
    let list: List = serde_json::from_str(&output.stdout).unwrap();
    list.apps.into_iter().next().unwrap()
}

fn setting(daemon: &Daemon, name: &str, key: &str) -> Option<String> {
    described(daemon, name).detail.unwrap().settings.remove(key)
}

/// Each app with its status, and how often each of its workers was started again.
fn standing(daemon: &Daemon) -> Vec<(String, String, Vec<u32>)> {
    let apps = daemon.list().apps.into_iter();
    let of = |app: &AppInfo| app.workers.iter().map(|worker| worker.restarts).collect();
    let mut all: Vec<_> = apps.map(|app| (app.name.clone(), app.status.clone(), of(&app))).collect();
    all.sort();
    all
}

fn one(name: &str, status: &str, restarts: u32) -> Vec<(String, String, Vec<u32>)> {
    vec![(name.to_owned(), status.to_owned(), vec![restarts])]
}

fn log_has(daemon: &Daemon, file: &str, text: &str) {
    let path = daemon.home.path().join("logs").join(file);
    wait_until(BOOT, &format!("{text:?} in {file}"), || {
        let log = fs::read_to_string(&path).unwrap_or_default();
        if log.contains(text) { Ok(()) } else { Err(log) }
    });
}

/// With this value of WORD in the caller's environment.
fn with_word(home: &Home, word: &str, words: &[&str]) -> support::Output {
    let running = home.spawn_with(words, |command| {
        command.env("WORD", word);
    });
    home.finish(running)
}

#[test]
fn a_server_needs_no_file() {
    let home = home();
    let port = free_port().to_string();
    let words = ["start", "./fixture_worker", "--name", "api", "-i", "2", "--", "serve"];
    let running = home.spawn_with(&words, |command| {
        command.env("PORT", &port);
    });
    home.finish(running).expect_code(0);
    let (daemon, _) = Daemon::started_by(home, &["ping"]);
    daemon.wait_online("api", 2);
    let app = described(&daemon, "api");
    assert_eq!((app.mode.as_str(), app.instances), ("cluster", 2));
    let detail = app.detail.unwrap();
    assert_eq!((detail.file, detail.cwd), (None, daemon.home.apps().display().to_string()));
    let before = daemon.pids("api");
    daemon.run(&["reload", "api"]).expect_code(0);
    assert!(daemon.wait_online("api", 2).iter().all(|pid| !before.contains(pid)));
    daemon.run(&["reload", "./fixture_worker"]).expect_code(0);
    daemon.run(&["delete", "./fixture_worker"]).expect_code(0);
    assert!(daemon.list().apps.is_empty());
}

#[test]
fn commands_and_words_of_path_are_apps_too() {
    let daemon = started(&["sleep 100000"]);
    assert_eq!(standing(&daemon), one("sleep", "online", 0));
    daemon.run(&["start", "sleep", "--name", "word", "--", "100000"]).expect_code(0);
    daemon.run(&["start", "exec sleep", "--name", "line", "--", "100000"]).expect_code(0);
    daemon.home.put("with blank.sh", ECHO);
    daemon.run(&["start", "with blank.sh", "--name", "blank", "--", "first one"]).expect_code(0);
    log_has(&daemon, "blank-out.log", "of first one");
    let commands: Vec<String> = ["sleep", "word", "line"]
        .iter()
        .map(|name| daemon.list().apps.into_iter().find(|app| app.name == **name).unwrap().status)
        .collect();
    assert_eq!(commands, ["online"; 3]);
    // A program of that name runs under another name: what is known by "sleep" is the app.
    let pid = daemon.pids("sleep");
    daemon.run(&["start", "sleep"]).expect_code(0);
    assert_ne!(daemon.wait_online("sleep", 1), pid);
}

#[test]
fn every_flag_is_the_key_that_it_names() {
    let daemon = started(&[
        "echo.sh",
        "-n",
        "jobs",
        "--namespace",
        "back",
        "-i",
        "2",
        "--kill-timeout",
        "3s",
        "-c",
        "0 4 * * *",
        "--max-memory-restart",
        "300M",
        "--max-restarts",
        "5",
        "--min-uptime",
        "2000",
        "--restart-delay",
        "10ms",
        "--exp-backoff-restart-delay",
        "200",
        "--no-autorestart",
        "--stop-exit-codes",
        "3,42",
        "--kill-signal",
        "SIGTERM",
        "--listen-timeout",
        "20s",
        "--instance-var",
        "NUMBER",
        "--filter-env",
        "LANG",
        "-o",
        "out.log",
        "-e",
        "/dev/null",
        "-p",
        "jobs.pid",
        "--log",
        "both.log",
        "--log-type",
        "json",
        "--log-date-format",
        "YYYY",
        "--watch=.,echo.sh",
        "--ignore-watch",
        "*.log tmp",
        "--watch-delay",
        "4000ms",
        "--interpreter",
        "bash",
        "--interpreter-args=-e -f",
        "--",
        "one two",
    ]);
    let detail = described(&daemon, "jobs").detail.unwrap();
    let settings: std::collections::BTreeMap<&str, &str> =
        detail.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    for (key, value) in [
        ("kill_timeout", "3s"),
        ("cron_restart", "0 4 * * *"),
        ("max_restarts", "5"),
        ("min_uptime", "2s"),
        ("restart_delay", "10ms"),
        ("exp_backoff_restart_delay", "200ms"),
        ("autorestart", "false"),
        ("stop_exit_codes", "[3,42]"),
        ("kill_signal", "SIGTERM"),
        ("listen_timeout", "20s"),
        ("instance_var", "NUMBER"),
        ("interpreter", "bash"),
        ("interpreter_args", "[\"-e\",\"-f\"]"),
        ("args", "[\"one two\"]"),
        ("log_type", "json"),
        ("log_date_format", "YYYY"),
        ("watch", "[\".\",\"echo.sh\"]"),
        ("ignore_watch", "[\"*.log\",\"tmp\"]"),
        ("watch_delay", "4s"),
    ] {
        assert_eq!(settings.get(key), Some(&value), "{key}: {settings:#?}");
    }
    assert!(settings["max_memory_restart"].starts_with("300"), "{settings:#?}");
    let app = daemon.app("jobs");
    assert_eq!((app.namespace.as_str(), app.mode.as_str(), app.instances), ("back", "cluster", 2));
    assert!(daemon.home.apps().join("jobs-0.pid").exists());
}

#[test]
fn an_app_without_a_file_can_be_watched_and_have_logs_of_any_form() {
    let home = home();
    fs::create_dir_all(home.apps().join("src/out")).unwrap();
    let words =
        ["start", "--watch=src", "--ignore-watch", "out", "--watch-delay", "10ms", "echo.sh", "--time"];
    let (daemon, output) = Daemon::started_by(home, &[&words[..], &["--merge-logs", "-i", "2"]].concat());
    output.expect_code(0);
    let before = daemon.wait_online("echo", 2);
    // By both workers to one file, after the date.
    log_has(&daemon, "echo-out.log", ": word ");
    fs::write(daemon.home.apps().join("src/out/x"), "1").unwrap();
    fs::write(daemon.home.apps().join("src/server.js"), "1").unwrap();
    wait_until(BOOT, "new workers", || daemon.app("echo").generation == 2);
    assert!(daemon.wait_online("echo", 2).iter().all(|pid| !before.contains(pid)));
    daemon.run(&["start", "child.sh", "--disable-logs", "-w"]).expect_code(0);
    assert!(!daemon.home.path().join("logs/child-out.log").exists());
    assert_eq!(setting(&daemon, "child", "watch").as_deref(), Some("[\".\"]"));
}

#[test]
fn mistakes_name_the_flag_and_start_nothing() {
    let home = home();
    fs::create_dir(home.apps().join("folder")).unwrap();
    // There is a program of this name, too.
    fs::create_dir(home.apps().join("test")).unwrap();
    home.put("ecosystem.config.js", "");
    home.put("plain.conf", "");
    for (words, code, says) in [
        (&["echo.sh", "--kill-timeout", "soon"][..], 2, "--kill-timeout: expected a time"),
        (&["echo.sh", "-i", "many"], 2, "--instances: expected a whole number"),
        (&["echo.sh", "--name", "a b"], 2, "--name: expected 1 to 64 letters"),
        (&["echo.sh", "-c", "never"], 2, "--cron-restart: expected five fields"),
        (&["echo.sh", "--log-date-format", "Q"], 2, "--log-date-format: expected a pattern of YYYY"),
        (&["echo.sh", "--log-type", "xml"], 2, "--log-type: expected \"raw\" or \"json\""),
        (&["--watch", "folder"], 2, "folder: this is a folder; to watch it write --watch=folder"),
        (
            &["echo.sh", "--watch", "sleep"],
            2,
            "--watch sleep: there is no file or folder sleep here to watch",
        ),
        (
            &["echo.sh", "--watch", "other.sh"],
            2,
            "--watch other.sh: this can be what is watched, or one more",
        ),
        (&["echo.sh", "--ignore-watch", "/"], 2, "--ignore-watch: it names no file"),
        (&["echo.sh", "--watch-delay", "4"], 2, "--watch-delay: 4 would be seconds in PM2"),
        (&["echo.sh", "--attach"], 2, "--attach: follow the output with `clusterd logs NAME`"),
        (&["echo.sh", "child.sh", "--name", "a"], 2, "--name: one name for several apps"),
        (&["echo.sh", "--env", "production"], 2, "NODE_ENV=production clusterd start"),
        (&["ecosystem.config.js"], 2, "clusterd import --run ecosystem.config.js"),
        (&["nothing.js"], 1, "nothing.js: there is no such file in"),
        (&["./nothing"], 1, "./nothing: there is no such file in"),
        (&["folder"], 1, "folder: this is a folder; name the script"),
        (&["./folder"], 1, "folder: this is a folder; name the script"),
        (&["echo.sh", "no-such-app"], 1, "no-such-app: no app, namespace or id is called so"),
        (&["echoo", "--name", "x"], 1, "or a program in PATH; did you mean \"echo.sh\"?"),
        (&["echo.sh", "echi.sh", "--name", "x"], 1, "did you mean \"echo.sh\"?"),
        (&["sleeep"], 1, "sleeep: no app, namespace or id is called so, nor a file in "),
        (&["ecosystem", "--env", "production"], 1, "ecosystem: no app, namespace or id"),
        (&["echo.toml"], 2, "echo.toml: cannot read this file"),
    ] {
        let output = home.run(&[&["start"], words].concat());
        output.expect_code(code).expect_stderr(&[says]);
        assert!(!home.socket().exists(), "{words:?} started a supervisor");
    }
    let output = home.run(&["start", "echo.sh", "--kill-timeout", "soon", "--json"]).expect_code(2);
    let error: serde_json::Value = serde_json::from_str(output.stderr.trim()).unwrap();
    assert!(error["message"].as_str().unwrap().starts_with("--kill-timeout: "), "{error}");
}

/// As PM2's users write them, without `=` and commas.
#[test]
fn words_behind_a_flag_are_its_own_where_they_can_mean_nothing_else() {
    let home = home();
    // There is a program of this name, too.
    fs::create_dir(home.apps().join("test")).unwrap();
    fs::create_dir(home.apps().join("lib")).unwrap();
    let words = ["start", "echo.sh", "--stop-exit-codes", "1", "2", "--watch", "test", "--name", "a"];
    let (daemon, output) = Daemon::started_by(home, &words);
    output.expect_code(0);
    assert_eq!(setting(&daemon, "a", "stop_exit_codes").as_deref(), Some("[1,2]"));
    assert_eq!(setting(&daemon, "a", "watch").as_deref(), Some("[\"test\"]"));
    daemon.run(&["restart", "--stop-exit-codes", "3", "4", "a", "--watch", "lib"]).expect_code(0);
    assert_eq!(setting(&daemon, "a", "stop_exit_codes").as_deref(), Some("[3,4]"));
    assert_eq!(setting(&daemon, "a", "watch").as_deref(), Some("[\"lib\"]"));
    daemon.run(&["restart", "--watch", "a"]).expect_code(0);
    assert_eq!(setting(&daemon, "a", "watch").as_deref(), Some("[\".\"]"));
    assert_eq!(standing(&daemon).len(), 1);
    daemon
        .run(&["restart", "--stop-exit-codes", "1", "0"])
        .expect_code(2)
        .expect_stderr(&["nothing is left"]);
}

/// Whatever flags stand beside it: those are not what is wrong.
#[test]
fn a_slip_of_the_hand_is_told_with_what_was_meant() {
    let daemon = started(&["echo.sh", "--name", "server"]);
    for words in
        [&["sever"][..], &["sever", "--name", "x"], &["sever", "--env", "production"], &["sever", "-i", "2"]]
    {
        let output = daemon.run(&[&["start"], words].concat());
        let says =
            ["sever: no app, namespace or id is called so, nor a file in ", "did you mean \"server\"?"];
        output.expect_code(1).expect_stderr(&says);
    }
    assert_eq!(standing(&daemon), one("server", "online", 0));
}

#[test]
fn start_of_what_is_known_starts_or_restarts_it() {
    let daemon = started(&["echo.sh"]);
    assert_eq!(standing(&daemon), one("echo", "online", 0));
    daemon.run(&["stop", "echo"]).expect_code(0);
    daemon.run(&["start", "echo"]).expect_code(0);
    let before = standing(&daemon)[0].2[0];
    assert_eq!(standing(&daemon), one("echo", "online", before));
    daemon.run(&["start", "echo"]).expect_code(0);
    assert_eq!(standing(&daemon), one("echo", "online", before + 1));
    daemon.run(&["start", "0"]).expect_code(0);
    assert_eq!(standing(&daemon), one("echo", "online", before + 2));
    // Of one worker alone.
    daemon.run(&["scale", "echo", "2"]).expect_code(0);
    let before = daemon.pids("echo");
    let second = daemon.online("echo")[1].id.to_string();
    daemon.run(&["stop", &second]).expect_code(0);
    daemon.run(&["start", &second]).expect_code(0);
    let after = daemon.wait_online("echo", 2);
    assert!(after[0] == before[0] && after[1] != before[1], "{before:?} {after:?}");
    // By its script, as PM2 has it.
    for words in [["stop", "echo.sh"], ["restart", "echo.sh"], ["restart", "./echo.sh"]] {
        daemon.run(&words).expect_code(0);
    }
    daemon.wait_online("echo", 2);
    daemon.run(&["delete", "echo.sh"]).expect_code(0);
    assert!(daemon.list().apps.is_empty());
}

#[test]
fn the_same_script_a_second_time_needs_force_or_a_name() {
    let daemon = started(&["echo.sh"]);
    let first = daemon.pids("echo");
    daemon
        .run(&["start", "echo.sh"])
        .expect_code(1)
        .expect_stderr(&["runs already under this name", "--force"]);
    daemon
        .run(&["start", "child.sh", "--name", "echo"])
        .expect_code(1)
        .expect_stderr(&["for another program"]);
    assert_eq!(daemon.pids("echo"), first, "nothing was touched");
    daemon.run(&["start", "echo.sh", "--name", "second"]).expect_code(0);
    daemon.run(&["start", "echo.sh", "--force", "--", "anew"]).expect_code(0);
    log_has(&daemon, "echo-out.log", "of anew");
    assert_ne!(daemon.wait_online("echo", 1), first);
    daemon.run(&["stop", "echo"]).expect_code(0);
    daemon.run(&["start", "echo.sh", "--", "once more"]).expect_code(0);
    log_has(&daemon, "echo-out.log", "of once more");
    assert_eq!(daemon.list().apps.len(), 2);
}

#[test]
fn several_at_once_of_every_kind() {
    let home = home();
    home.put("apps.toml", "[[apps]]\nname = \"filed\"\nscript = \"./other.sh\"\nnamespace = \"front\"\n");
    let (daemon, output) = Daemon::started_by(home, &["start", "child.sh", "apps.toml", "./echo.sh"]);
    output.expect_code(0);
    let names: Vec<String> = standing(&daemon).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["child", "echo", "filed"]);
    let restarts = || standing(&daemon).into_iter().flat_map(|(.., restarts)| restarts).collect::<Vec<u32>>();
    let before = restarts();
    daemon.run(&["start", "child", "/^ec/", "front"]).expect_code(0);
    assert_eq!(restarts(), before.iter().map(|count| count + 1).collect::<Vec<_>>());
    daemon.run(&["start", "child", "nobody"]).expect_code(1).expect_stderr(&["nobody: "]);
    assert_eq!(restarts(), before.iter().map(|count| count + 1).collect::<Vec<_>>(), "all or none");
    daemon.run(&["stop", "child", "echo", "filed"]).expect_code(0);
    assert!(standing(&daemon).iter().all(|(_, status, _)| status == "stopped"));
    daemon.run(&["start", "all"]).expect_code(0);
    assert!(standing(&daemon).iter().all(|(_, status, _)| status == "online"));

    let mut piped = daemon.home.spawn_with(&["start", "-"], |command| {
        command.stdin(Stdio::piped());
    });
    let text = "[[apps]]\nname = \"piped\"\nscript = \"./other.sh\"\n";
    piped.child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    daemon.home.finish(piped).expect_code(0);
    daemon.wait_online("piped", 1);
}

#[test]
fn the_environment_is_the_callers_until_it_is_replaced() {
    let home = home();
    home.write("[[apps]]\nname = \"filed\"\nscript = \"./other.sh\"\n");
    with_word(&home, "first", &["start", "echo.sh"]).expect_code(0);
    with_word(&home, "first", &["start", "ecosystem.toml"]).expect_code(0);
    let (daemon, _) = Daemon::started_by(home, &["ping"]);
    let last = |name: &str| {
        let output = daemon.run(&["logs", name, "-n", "1", "--no-follow"]).expect_code(0);
        output.stdout.trim_end().to_owned()
    };
    let says = |name: &str, word: &str| {
        wait_until(BOOT, &format!("{name} says {word}"), || {
            let line = last(name);
            if line.ends_with(&format!("word {word} of ")) || line.ends_with(&format!("word {word} of")) {
                Ok(())
            } else {
                Err(line)
            }
        });
    };
    for name in ["echo", "filed"] {
        says(name, "first");
        daemon.run(&["scale", name, "2"]).expect_code(0);
        daemon.run(&["scale", name, "1"]).expect_code(0);
        for (verb, word) in [("restart", "second"), ("reload", "third"), ("start", "fourth")] {
            with_word(&daemon.home, "none of it", &[verb, name]).expect_code(0);
            with_word(&daemon.home, word, &[verb, name, "--update-env"]).expect_code(0);
            says(name, word);
        }
        daemon.run(&["stop", name]).expect_code(0);
        with_word(&daemon.home, "fifth", &["start", name, "-a"]).expect_code(0);
        says(name, "fifth");
        daemon.run(&["restart", name]).expect_code(0);
        says(name, "fifth");
    }
    let id = daemon.online("echo")[0].id.to_string();
    with_word(&daemon.home, "by id", &["restart", &id, "--update-env"]).expect_code(0);
    says("echo", "by id");
}

#[test]
fn a_new_environment_changes_nothing_else_of_an_app_without_a_file() {
    let daemon = started(&["echo.sh", "-i", "1"]);
    daemon.run(&["scale", "echo", "3"]).expect_code(0);
    daemon.run(&["restart", "echo", "--update-env"]).expect_code(0);
    assert_eq!(daemon.wait_online("echo", 3).len(), 3);
}

/// PM2's app-config-update.sh, and what it leaves open.
#[test]
fn flags_change_a_known_app_and_it_stays_so() {
    let daemon = started(&["echo.sh"]);
    let words = ["restart", "echo", "--max-memory-restart", "300M", "-c", "0 4 * * *", "--", "new word"];
    daemon.run(&words).expect_code(0);
    log_has(&daemon, "echo-out.log", "of new word");
    daemon.run(&["restart", "echo", "--interpreter-args=-e"]).expect_code(0);
    let is = |name: &str, expected: [Option<&str>; 4]| {
        let keys = ["args", "cron_restart", "interpreter_args", "max_memory_restart"];
        assert_eq!(
            keys.map(|key| setting(&daemon, name, key)),
            expected.map(|value| value.map(str::to_owned))
        );
    };
    let all = [Some("[\"new word\"]"), Some("0 4 * * *"), Some("[\"-e\"]"), Some("300.0 MiB")];
    is("echo", all);
    let output = daemon.run(&["describe", "echo"]).expect_code(0);
    assert!(output.stdout.contains("max_memory_restart = \"300M\""), "{output:?}");
    // Bad as a whole: nothing of it holds, now or later.
    let before = daemon.pids("echo");
    let words = ["restart", "echo", "--kill-timeout", "soon", "--max-memory-restart", "1G"];
    daemon
        .run(&words)
        .expect_code(2)
        .expect_stderr(&["--kill-timeout: expected a time", "nothing was changed"]);
    assert_eq!(daemon.pids("echo"), before);
    daemon.run(&["reload", "echo"]).expect_code(0);
    is("echo", all);
    // By a new name it is the same one.
    let id = daemon.online("echo")[0].id.to_string();
    daemon.run(&["restart", &id, "--name", "new-name", "--node-args=null", "--cron", "0"]).expect_code(0);
    let rest = [all[0], None, Some("[]"), all[3]];
    is("new-name", rest);
    daemon.run(&["restart", "echo"]).expect_code(1);
    daemon.run(&["reset", "new-name"]).expect_code(0);
    daemon.run(&["start", "new-name", "--name", "third"]).expect_code(0);
    assert_eq!(standing(&daemon), one("third", "online", 1));
    daemon.run(&["reload", "third", "--kill-timeout", "3s"]).expect_code(0);
    let home = Arc::clone(&daemon.home);
    daemon.run(&["kill"]).expect_code(0);
    drop(daemon);
    let (daemon, output) = Daemon::started_by(home, &["resurrect"]);
    output.expect_code(0);
    assert_eq!(standing(&daemon), one("third", "online", 0));
    assert_eq!(setting(&daemon, "third", "args").as_deref(), all[0]);
    assert_eq!(setting(&daemon, "third", "kill_timeout").as_deref(), Some("3s"));
    // Defined anew, it is what that says.
    daemon.run(&["start", "echo.sh", "--name", "third", "--force"]).expect_code(0);
    assert_eq!(setting(&daemon, "third", "args").as_deref(), Some("[]"));
}

#[test]
fn flags_hold_over_a_file_until_it_is_named() {
    let home = home();
    home.write(
        "[[apps]]\nname = \"a\"\nscript = \"./echo.sh\"\n[[apps]]\nname = \"b\"\nscript = \"./child.sh\"\n",
    );
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml"]);
    output.expect_code(0);
    let timeout = |name: &str| setting(&daemon, name, "kill_timeout").unwrap();
    let output = daemon.run(&["restart", "a", "--kill-timeout", "3s"]).expect_code(0);
    assert!(output.stdout.contains("ecosystem.toml until that is named"), "{output:?}");
    assert_eq!((timeout("a"), timeout("b")), ("3s".into(), "1s 600ms".into()));
    daemon.run(&["reload", "all"]).expect_code(0);
    assert_eq!(timeout("a"), "3s");
    let generation = daemon.app("a").generation;
    daemon.signal(Signal::SIGHUP);
    wait_until(BOOT, "the reload", || {
        daemon.app("a").generation > generation && daemon.app("a").reload.is_none()
    });
    assert_eq!(timeout("a"), "3s");
    for (words, code, says) in [
        (&["restart", "a", "--name", "c"][..], 2, "--name: a is called so in "),
        (&["restart", "a", "b", "--name", "c"], 2, "--name: a new name is for one app"),
        (&["reload", "ecosystem.toml", "--watch"], 2, "--watch: is for scripts, commands and known apps"),
        (&["startOrRestart", "ecosystem.toml", "--", "x"], 2, "--: is for scripts, commands and known apps"),
        (
            &["restart", "a", "--interpreter-args", "-x", "--interpreter", "none"],
            2,
            "--interpreter-args: has no effect",
        ),
        (&["restart", "a", "--attach"], 2, "--attach: "),
        (&["restart", "nobody", "--watch"], 1, "nobody"),
    ] {
        daemon.run(words).expect_code(code).expect_stderr(&[says]);
    }
    assert_eq!(timeout("a"), "3s");
    daemon.run(&["reload", "ecosystem.toml"]).expect_code(0);
    assert_eq!(timeout("a"), "1s 600ms");
}

#[test]
fn a_reload_with_flags_loses_no_request_and_one_that_fails_changes_nothing() {
    let home = home();
    let port = free_port();
    let text = port.to_string();
    let running = home.spawn_with(
        &["start", "./fixture_worker", "--name", "api", "-i", "2", "--", "serve"],
        |command| {
            command.env("PORT", &text);
        },
    );
    home.finish(running).expect_code(0);
    let (daemon, _) = Daemon::started_by(home, &["ping"]);
    daemon.run(&["scale", "api", "3"]).expect_code(0);
    let before = daemon.wait_online("api", 3);
    let hammer = Load::on(port).clients(2).start();
    daemon.run(&["reload", "api", "--max-memory-restart", "300M"]).expect_code(0);
    assert!(daemon.wait_online("api", 3).iter().all(|pid| !before.contains(pid)), "as many as it had");
    daemon.expects(&["exited with code 7", "reload to generation"]);
    let bad = ["reload", "api", "--kill-timeout", "9s", "--name", "other", "--", "exit", "7", "0"];
    daemon.run(&bad).expect_code(1).expect_stderr(&["exited with code 7"]);
    assert_eq!(setting(&daemon, "api", "args").as_deref(), Some("[\"serve\"]"));
    daemon.run(&["describe", "other"]).expect_code(1);
    daemon.run(&["start", "echo.sh", "--name", "other"]).expect_code(0);
    daemon.run(&["delete", "other"]).expect_code(0);
    daemon.run(&["reload", "api", "-i", "2"]).expect_code(0);
    hammer.stop().expect_none_lost();
    assert_eq!(daemon.wait_online("api", 2).len(), 2);
    assert_eq!(setting(&daemon, "api", "max_memory_restart").as_deref(), Some("300.0 MiB"));
    assert_ne!(setting(&daemon, "api", "kill_timeout").as_deref(), Some("9s"));
}

/// Also after a `scale`, which no definition knows of.
#[test]
fn the_number_of_workers_survives_flags_and_a_resurrection() {
    let daemon = started(&["echo.sh", "-i", "1"]);
    daemon.run(&["scale", "echo", "2"]).expect_code(0);
    daemon.run(&["restart", "echo", "--no-autorestart", "--update-env"]).expect_code(0);
    daemon.run(&["restart", "echo", "--update-env"]).expect_code(0);
    let home = Arc::clone(&daemon.home);
    daemon.run(&["kill"]).expect_code(0);
    drop(daemon);
    let (daemon, _) = Daemon::started_by(home, &["resurrect"]);
    daemon.wait_online("echo", 2);
}

#[test]
fn who_is_watched_is_listed() {
    let daemon = started(&["echo.sh"]);
    let list = || daemon.run(&["list"]).expect_code(0).stdout;
    assert!(!list().contains("watching"), "{}", list());
    daemon.run(&["start", "child.sh", "--watch=other.sh"]).expect_code(0);
    for (line, word) in list().lines().zip(["watching", "disabled", "enabled"]) {
        assert!(line.ends_with(word) || line.contains(&format!(" {word} ")), "{word}: {}", list());
    }
    let described = daemon.run(&["describe", "child"]).expect_code(0).stdout;
    let path = daemon.home.apps().join("other.sh").display().to_string();
    assert!(described.lines().any(|line| line.contains("watches") && line.ends_with(&path)), "{described}");
    assert_eq!((daemon.app("child").watching, daemon.app("echo").watching), (true, false));
    daemon.run(&["restart", "child", "--watch=false"]).expect_code(0);
    assert!(!list().contains("watching"), "{}", list());
}

#[test]
fn what_cannot_run_fails_with_its_reason_and_last_lines() {
    let home = home();
    fs::write(home.apps().join("data"), "no program\n").unwrap();
    home.put("crash.sh", "#!/bin/sh\necho last words >&2\nexit 3\n");
    let (daemon, output) = Daemon::started_by(home, &["start", "./data"]);
    daemon.expects(&["data", "crash"]);
    output.expect_code(1).expect_stderr(&["data", "EACCES"]);
    let words = ["start", "crash.sh", "-i", "1", "--wait-ready", "--max-restarts", "2"];
    daemon.run(&words).expect_code(1).expect_stderr(&["last words", "3"]);
    daemon.run(&["start", "echo.sh", "--interpreter", "no-such"]).expect_code(1).expect_stderr(&["no-such"]);
    daemon.expects(&["echo"]);
    // What failed is not in the way of a better try.
    daemon.run(&["start", "echo.sh"]).expect_code(0);
}

#[test]
fn what_is_missing_of_a_file_is_started_and_the_rest_renewed() {
    let home = home();
    home.write(
        "[[apps]]\nname = \"a\"\nscript = \"./echo.sh\"\n[[apps]]\nname = \"b\"\nscript = \"./child.sh\"\n",
    );
    let (daemon, output) = Daemon::started_by(home, &["startOrRestart", "ecosystem.toml", "--only", "a"]);
    output.expect_code(0);
    let before = daemon.pids("a");
    for verb in ["startOrRestart", "startOrReload", "startOrGracefulReload"] {
        daemon.run(&[verb, "ecosystem.toml"]).expect_code(0);
        daemon.wait_online("b", 1);
    }
    assert_ne!(daemon.wait_online("a", 1), before);
    assert_eq!(daemon.list().apps.len(), 2);
}

/// As PM2 has it with its own file.
#[test]
fn without_a_word_the_file_of_the_folder_is_started() {
    let home = home();
    let refused = |words: &[&str], says: &str| {
        home.run(&[&["start"], words].concat()).expect_code(2).expect_stderr(&[says]);
        assert!(!home.socket().exists(), "{words:?} started a supervisor");
    };
    refused(&[], "there is no ecosystem.toml here: name a script");
    refused(&["--env", "production"], "there is no ecosystem.toml here");
    refused(&["-i", "2"], "--instances: name the script");
    refused(&["--", "--port"], "--: name the script");
    home.put("ecosystem.config.js", "");
    refused(&[], "ecosystem.config.js, which is PM2's: clusterd import --run ecosystem.config.js");
    home.write(
        "[[apps]]\nname = \"a\"\nscript = \"./echo.sh\"\n[apps.env_production]\nWORD = \"live\"\n\
         [[apps]]\nname = \"b\"\nscript = \"./child.sh\"\n",
    );
    refused(&["--stop-exit-codes", "1"], "--stop-exit-codes");
    let (daemon, output) = Daemon::started_by(home, &["start", "--only", "a", "--env", "production"]);
    output.expect_code(0);
    log_has(&daemon, "a-out.log", "word live");
    assert_eq!(daemon.list().apps.len(), 1);
    daemon.run(&["start"]).expect_code(0);
    daemon.wait_online("b", 1);
}

#[test]
fn two_profiles_of_a_file_run_beside_each_other() {
    let home = home();
    home.write(
        "[[apps]]\nname = \"api\"\nscript = \"./echo.sh\"\nappend_env_to_name = true\n\
         env_blue = { WORD = \"blue\" }\nenv_green = { WORD = \"green\" }\n",
    );
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml", "--env", "blue"]);
    output.expect_code(0);
    daemon.run(&["start", "ecosystem.toml", "--env", "green"]).expect_code(0);
    log_has(&daemon, "api-blue-out.log", "word blue");
    log_has(&daemon, "api-green-out.log", "word green");
    daemon.run(&["reload", "api-blue"]).expect_code(0);
    // What another profile made of the file is not gone from it.
    let before = (daemon.pids("api-blue"), daemon.pids("api-green"));
    daemon.run(&["apply", "ecosystem.toml", "--env", "blue", "--prune"]).expect_code(0);
    assert_eq!((daemon.pids("api-blue"), daemon.pids("api-green")), before);
    // What is to end is chosen by the names that the file has.
    daemon
        .run(&["stop", "ecosystem.toml", "--env", "red"])
        .expect_code(1)
        .expect_stderr(&["the profile \"red\""]);
    daemon.run(&["stop", "ecosystem.toml", "--env", "green", "--only", "api"]).expect_code(0);
    assert!(daemon.pids("api-green").is_empty());
    assert_eq!(daemon.pids("api-blue"), before.0);
    daemon.run(&["delete", "ecosystem.toml", "--only", "api"]).expect_code(0);
    assert!(daemon.list().apps.is_empty(), "{:?}", daemon.list());
}

#[test]
fn a_part_of_a_file_is_stopped_and_deleted() {
    let home = home();
    let app = |name: &str| App::bare(name).text("script", "./echo.sh");
    home.write(&support::file(&[app("a"), app("b"), app("c")]));
    let (daemon, output) = Daemon::started_by(home, &["start", "ecosystem.toml"]);
    output.expect_code(0);
    let status = || daemon.list().apps.into_iter().map(|app| app.status).collect::<Vec<_>>();
    let refused = daemon.run(&["stop", "ecosystem.toml", "--only", "a,x"]).expect_code(1);
    refused.expect_stderr(&["no app of this file is called \"x\"; there is a, b, c"]);
    assert_eq!(status(), ["online", "online", "online"], "nothing was done by halves");
    daemon.run(&["stop", "ecosystem.toml", "--only", "a,c"]).expect_code(0);
    assert_eq!(status(), ["stopped", "online", "stopped"]);
    // Also of a file that is gone.
    fs::remove_file(daemon.home.file()).expect("it was written");
    daemon.run(&["delete", "ecosystem.toml", "--only", "a,b"]).expect_code(0);
    assert_eq!(status(), ["stopped"]);
}

/// `kill`, then `start`, as an upgrade has them: nobody is to meet a supervisor that hears nothing more.
#[test]
fn whoever_comes_when_a_supervisor_ends_starts_another_one() {
    let home = home();
    home.write("[[apps]]\nname = \"api\"\nscript = \"./echo.sh\"\n");
    let (daemon, output) = Daemon::started_by(Arc::clone(&home), &["start", "ecosystem.toml"]);
    output.expect_code(0);
    daemon.run(&["kill"]).expect_code(0);
    assert!(!home.socket().exists(), "whoever hears of the end can still connect");
    drop(daemon);
    // One that is met in its last moment: it took the connection, and no request.
    let ending = std::os::unix::net::UnixListener::bind(home.socket()).expect("nobody listens there");
    let socket = home.socket();
    let last_moment = std::thread::spawn(move || {
        let met = ending.accept().expect("a client");
        fs::remove_file(socket).expect("its socket");
        drop((ending, met));
    });
    let (daemon, output) = Daemon::started_by(Arc::clone(&home), &["start", "ecosystem.toml"]);
    output.expect_code(0);
    last_moment.join().expect("it was met");
    daemon.wait_online("api", 1);
}

#[test]
fn the_flags_fit_on_a_terminal() {
    let home = home();
    let running = home.spawn_with(&["start", "--help"], |command| {
        command.env("COLUMNS", "80");
    });
    let help = home.finish(running).expect_code(0).stdout;
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    for flag in [
        "--name",
        "--instances",
        "--max-memory-restart",
        "--output",
        "--update-env",
        "--force",
        "--watch[=<A,B>]",
        "--time",
    ] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
    assert!(!help.contains("--attach"), "{help}");
}

/// pm2.md's table of exit codes, where it blesses no defect.
#[test]
fn exit_codes_say_whether_it_was_done() {
    let daemon = started(&["echo.sh"]);
    daemon.run(&["start", "echo.sh", "--name", "one"]).expect_code(0);
    daemon.run(&["delete", "one"]).expect_code(0);
    for (words, code) in [
        (&["describe", "echo"][..], 0),
        (&["describe", "nobody"], 1),
        (&["scale", "echo", "2"], 0),
        (&["scale", "echo", "2"], 0),
        (&["scale", "nobody", "2"], 1),
        (&["sendSignal", "SIGWINCH", "echo"], 0),
        (&["sendSignal", "SIGWINCH", "nobody"], 1),
        (&["reset", "nobody"], 1),
        (&["reset", "echo"], 0),
        (&["env", "nobody"], 1),
        (&["pid", "echo"], 0),
        (&["start", "nobody"], 1),
        (&["stop", "nobody"], 1),
        (&["restart", "666"], 1),
        (&["stop", "echo"], 0),
        (&["stop", "echo"], 0),
        (&["del", "echo"], 0),
        (&["start", "all"], 1),
        (&["stop", "all"], 1),
        (&["restart", "all"], 1),
        (&["reload", "all"], 1),
        (&["delete", "all"], 1),
        (&["ls"], 0),
        (&["jlist"], 0),
        (&["kill"], 0),
        (&["ping"], 1),
        (&["no-such-verb"], 2),
    ] {
        let output = daemon.run(words);
        assert_eq!(output.code, code, "{words:?}: {output:?}");
    }
}

/// An app that starts and restarts others through the command line waits for them, and they for nobody.
#[test]
fn an_app_can_start_another_and_hands_on_its_environment() {
    let home = home();
    let nested = "#!/bin/sh\nexport WORD=inner\n$1 start ./echo.sh || exit 9\n$1 restart echo --update-env || exit 9\n\
                  echo done\nexec sleep 100000\n";
    home.put("nested.sh", nested);
    let program = format!("{} --home {}", home.binary().display(), home.path().display());
    let (daemon, output) = Daemon::started_by(home, &["start", "nested.sh", "--", &program]);
    output.expect_code(0);
    log_has(&daemon, "nested-out.log", "done");
    log_has(&daemon, "echo-out.log", "word inner");
    daemon.wait_online("echo", 1);
}
