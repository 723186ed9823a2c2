//! What PM2's own tests ask of its commands: tests 1 to 40 of tests/README.md's table, with PM2's result or,
//! where that is a defect, the right one.

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use clusterd::control::protocol::AppInfo;

use support::daemon::{BOOT, exists};
use support::pm2::{ECHO, row, standing, wait_logged};
use support::{App, Daemon, Home, Output, file, fixtures, free_port, wait_until};

fn home() -> Arc<Home> {
    let home = Home::new(None);
    for name in ["echo.sh", "child.sh", "001-test.sh"] {
        home.put(name, ECHO);
    }
    Arc::new(home)
}

/// A supervisor that `start` with these words has started.
fn started(home: Arc<Home>, words: &[&str]) -> Daemon {
    let (daemon, output) = Daemon::started_by(home, &[&["start"], words].concat());
    output.expect_code(0);
    daemon
}

/// One run of a command with this variable in the caller's environment.
fn run_with(home: &Home, name: &str, value: &str, words: &[&str]) -> Output {
    let running = home.spawn_with(words, |command| {
        command.env(name, value);
    });
    home.finish(running)
}

/// The worker's program under a name of its own, so that targets can mean it by that.
fn link_worker(home: &Home, name: &str) {
    fs::hard_link(home.apps().join("fixture_worker"), home.apps().join(name)).expect("one folder");
}

/// Workers that share a port and run a script of that name.
fn servers(name: &str, script: &str, count: u32) -> App {
    let app = App::bare(name).text("script", script).text("args", "serve").text("min_healthy_time", "100ms");
    app.instances(count).port(free_port())
}

/// A worker without a port, so often as is said.
fn lines(name: &str, script: &str, count: u32) -> App {
    let app = App::bare(name).text("script", script).text("exec_mode", "fork");
    app.instances(count).text("min_healthy_time", "100ms")
}

fn settings(app: AppInfo) -> std::collections::BTreeMap<String, String> {
    app.detail.expect("describe has the details").settings
}

/// Tests 2 and 9.
#[test]
fn a_start_or_restart_of_what_was_stopped_is_not_counted_and_any_other_is() {
    let home = home();
    // Takes its time to end, and less than kill_timeout.
    let lingers =
        "#!/bin/sh\ntrap 'echo got SIGINT; sleep 0.3; exit 0' INT\necho up\nwhile :; do sleep 0.02; done\n";
    home.put("lingers.sh", lingers);
    let daemon = started(home, &["lingers.sh"]);
    let log = "lingers-out.log";
    wait_logged(&daemon, log, "up", 1);
    daemon.run(&["stop", "lingers"]).expect_code(0);
    assert_eq!(standing(&daemon), [row("lingers", "stopped", &[0])]);
    let exit = daemon.app("lingers").workers[0].last_exit.clone().expect("it ended");
    assert_eq!(exit.code, Some(0), "it was waited for");
    for (times, restarts) in [(2, 0), (3, 1)] {
        daemon.run(&["restart", "lingers"]).expect_code(0);
        assert_eq!(standing(&daemon), [row("lingers", "online", &[restarts])]);
        wait_logged(&daemon, log, "up", times);
    }
    daemon.run(&["delete", "lingers"]).expect_code(0);

    daemon.run(&["start", "echo.sh"]).expect_code(0);
    let id = daemon.online("echo")[0].id.to_string();
    for (words, status, restarts) in [
        (["stop", "echo"], "stopped", 0),
        (["start", "echo"], "online", 0),
        (["start", "echo"], "online", 1),
        (["start", &id], "online", 2),
    ] {
        daemon.run(&words).expect_code(0);
        assert_eq!(standing(&daemon), [row("echo", status, &[restarts])], "after {words:?}");
    }
}

/// Tests 10, 11, 12, 14 and 36.
#[test]
fn an_app_is_meant_by_its_script_by_a_name_of_digits_by_another_name_and_by_its_id() {
    let daemon = started(home(), &["child.sh"]);
    let bystander = daemon.wait_online("child", 1);
    for (words, name, target, at_last) in [
        (&["echo.sh"][..], "echo", "echo.sh", "echo.sh"),
        (&["001-test.sh"], "001-test", "001-test", "001-test"),
        (&["echo.sh", "--name", "gege"], "gege", "gege", "id"),
    ] {
        daemon.run(&[&["start"], words].concat()).expect_code(0);
        let pid = daemon.wait_online(name, 1)[0];
        daemon.run(&["stop", target]).expect_code(0);
        assert_eq!(daemon.app(name).status, "stopped");
        assert!(!exists(pid), "stop {target}");
        daemon.run(&["restart", target]).expect_code(0);
        let again = daemon.wait_online(name, 1)[0];
        assert!(again != pid && exists(again));
        let id = daemon.online(name)[0].id.to_string();
        daemon.run(&["delete", if at_last == "id" { &id } else { at_last }]).expect_code(0);
        assert!(!exists(again), "delete {at_last}");
        assert_eq!(standing(&daemon), [row("child", "online", &[0])]);
    }
    assert_eq!(daemon.wait_online("child", 1), bystander);
}

/// Tests 3, 4 and 37: each worker counts for itself.
#[test]
fn every_worker_counts_each_restart_and_reload_that_meant_it() {
    let home = home();
    ["child.bin", "network.bin"].iter().for_each(|name| link_worker(&home, name));
    home.write(&file(&[servers("child", "./child.bin", 4), servers("network", "./network.bin", 4)]));
    let daemon = started(home, &["ecosystem.toml"]);
    let counted = |child: u32, network: u32| {
        assert_eq!(
            standing(&daemon),
            [row("child", "online", &[child; 4]), row("network", "online", &[network; 4])]
        );
    };
    counted(0, 0);
    for (words, child, network) in [
        (["restart", "all"], 1, 1),
        (["restart", "child.bin"], 2, 1),
        (["restart", "child"], 3, 1),
        (["reload", "all"], 4, 2),
        (["reload", "child.bin"], 5, 2),
        (["reload", "network.bin"], 5, 3),
    ] {
        daemon.run(&words).expect_code(0);
        counted(child, network);
    }
    daemon.run(&["stop", "network.bin"]).expect_code(0);
    daemon.run(&["delete", "child.bin"]).expect_code(0);
    assert_eq!(standing(&daemon), [row("network", "stopped", &[3; 4])]);
}

/// Tests 6 and 7: `stop_exit_codes` are whole numbers, and not how one begins.
#[test]
fn who_is_told_to_stay_ended_is_not_started_again_and_others_are() {
    let home = home();
    home.put("quick.sh", "#!/bin/sh\nsleep 0.05\nexit 1\n");
    home.put("bye.sh", "#!/bin/sh\necho BYE\nsleep 0.05\nexit 42\n");
    let of = |name: &str, script: &str| App::bare(name).text("script", script);
    let kept = of("kept", "./quick.sh").set("autorestart", false);
    home.write(&file(&[kept, of("codes", "./bye.sh").set("stop_exit_codes", "[12, 42]")]));
    let daemon = started(home, &["ecosystem.toml"]);
    daemon.expects(&["exited with code", "unstable exits in a row"]);
    daemon.run(&["start", "quick.sh", "--no-autorestart"]).expect_code(0);
    for (name, codes) in [("listed", "42"), ("other", "34"), ("prefix", "3,4")] {
        daemon.run(&["start", "bye.sh", "--name", name, "--stop-exit-codes", codes]).expect_code(0);
    }
    for name in ["other", "prefix"] {
        wait_until(BOOT, "a restart", || daemon.app(name).workers[0].restarts > 0);
    }
    for name in ["kept", "codes", "quick", "listed"] {
        assert_eq!(daemon.wait_status(name, "stopped").workers[0].restarts, 0, "{name}");
    }
    wait_logged(&daemon, "listed-out.log", "BYE", 1);
}

/// Tests 17 and 22.
#[test]
fn what_is_unknown_is_an_error_and_what_is_stopped_can_be_described() {
    let daemon = started(home(), &["echo.sh", "child.sh"]);
    let [echo, child] = ["echo", "child"].map(|name| daemon.online(name)[0].id.to_string());
    daemon.run(&["stop", &echo]).expect_code(0);
    let described = daemon.run(&["describe", &echo]).expect_code(0).stdout;
    assert!(described.contains("echo") && described.contains("stopped"), "{described}");
    daemon.run(&["restart", &child]).expect_code(0);
    let described = daemon.run(&["describe", &child]).expect_code(0).stdout;
    assert!(described.contains("child") && described.contains("online"), "{described}");
    daemon.run(&["describe", "666"]).expect_code(1).expect_stderr(&["666"]);
    daemon.run(&["delete", "all"]).expect_code(0);
    for verb in ["restart", "reload", "stop", "delete"] {
        for target in ["all", "toto", "666", "toto.sh"] {
            let output = daemon.run(&[verb, target]);
            assert_eq!(output.code, 1, "{verb} {target}: {output:?}");
        }
    }
    daemon.run(&["list"]).expect_code(0);
}

/// Tests 8 and 19. Of several workers each has a file with its number, and the file of one is called as is said.
#[test]
fn a_named_pid_file_is_there_as_long_as_its_worker() {
    let words = ["echo.sh", "-p", "run/echo.pid", "--shutdown-with-message"];
    let daemon = started(home(), &words);
    let path = daemon.home.apps().join("run/echo.pid");
    let read = || fs::read_to_string(&path).map(|text| text.trim().to_owned());
    // Once is not enough to see an answer that comes before the file is gone.
    for _ in 0..10 {
        let pid = daemon.wait_online("echo", 1)[0];
        assert_eq!(read().expect("it is there while it runs"), pid.to_string());
        daemon.run(&["stop", "all"]).expect_code(0);
        assert!(!path.exists());
        daemon.run(&["start", "all"]).expect_code(0);
    }
    let described = daemon.run(&["describe", "echo", "--json"]).expect_code(0).stdout;
    let list: clusterd::control::protocol::List = serde_json::from_str(&described).expect("JSON");
    let settings = settings(list.apps.into_iter().next().expect("one app"));
    assert_eq!(settings["shutdown_with_message"], "true");
}

/// Tests 21 and 25.
#[test]
fn a_list_of_every_kind_of_app_comes_back_as_it_was_saved() {
    let home = home();
    link_worker(&home, "server.bin");
    home.write(&file(&[servers("serv", "./server.bin", 4), lines("echo2", "./echo.sh", 1)]));
    home.put("loop.sh", "#!/bin/bash\nwhile true; do ls -l; sleep 0.5; done\n");
    let daemon = started(Arc::clone(&home), &["ecosystem.toml"]);
    daemon.run(&["start", "loop.sh"]).expect_code(0);
    run_with(&home, "WORD", "kept", &["start", "echo.sh", "--name", "echo3"]).expect_code(0);
    let before = standing(&daemon);
    assert_eq!(before.len(), 4);
    let described = daemon.run(&["jlist"]).expect_code(0).stdout;
    assert!(described.contains("\"exec_interpreter\":\"bash\""), "{described}");
    daemon.run(&["save"]).expect_code(0);
    daemon.run(&["stop", "all"]).expect_code(0);
    assert!(standing(&daemon).iter().all(|(_, status, _)| status == "stopped"));
    daemon.run(&["kill"]).expect_code(0);
    drop(daemon);

    let daemon = started(Arc::clone(&home), &["echo.sh", "--name", "ECHONEST"]);
    daemon.run(&["restart", "ECHONEST"]).expect_code(0);
    assert_eq!(standing(&daemon), [row("ECHONEST", "online", &[1])]);
    daemon.run(&["kill"]).expect_code(0);
    drop(daemon);

    home.run(&["resurrect"]).expect_code(0);
    let daemon = Daemon::of(&home);
    assert_eq!(standing(&daemon), before);
    wait_logged(&daemon, "echo3-out.log", "word kept", 2);
    daemon.run(&["delete", "all"]).expect_code(0);
    assert_eq!(standing(&daemon), []);
    daemon.run(&["kill"]).expect_code(0);
}

/// Test 23.
#[test]
fn several_words_are_one_command() {
    let home = home();
    home.put("third.sh", ECHO);
    let daemon = started(home, &["child.sh", "echo.sh", "third.sh"]);
    let all = |status: &str, restarts: u32| {
        let expected = ["child", "echo", "third"].map(|name| row(name, status, &[restarts]));
        assert_eq!(standing(&daemon), expected);
    };
    all("online", 0);
    daemon.run(&["restart", "child", "echo", "third"]).expect_code(0);
    all("online", 1);
    daemon.run(&["stop", "child", "echo", "third"]).expect_code(0);
    all("stopped", 1);
    daemon.run(&["delete", "child", "echo", "third"]).expect_code(0);
    assert_eq!(standing(&daemon), []);
}

/// Tests 29 and 30.
#[test]
fn a_line_of_several_commands_runs_with_the_environment_that_holds() {
    let home = home();
    let line = "echo \"TEST is ${TEST:-undefined}\"; exec sleep 100000";
    let daemon = started(Arc::clone(&home), &[line, "--name", "line", "-o", "../home/logs/test.log"]);
    wait_logged(&daemon, "test.log", "TEST is undefined", 1);
    let id = daemon.online("line")[0].id.to_string();
    run_with(&home, "TEST", "ok", &["restart", &id, "--update-env"]).expect_code(0);
    assert_eq!(standing(&daemon), [row("line", "online", &[1])]);
    wait_logged(&daemon, "test.log", "TEST is ok", 1);
    home.write(&App::bare("filed").text("script", line).env("TEST", "test_val").to_string());
    run_with(&home, "TEST", "ok", &["start", "ecosystem.toml"]).expect_code(0);
    wait_logged(&daemon, "filed-out.log", "TEST is test_val", 1);

    let line = "echo 'echo Hello World' > made.sh; chmod +x made.sh; ./made.sh; exec sleep 100000";
    daemon.run(&["start", line, "--name", "made"]).expect_code(0);
    wait_logged(&daemon, "made-out.log", "Hello World", 1);
}

/// Test 31.
#[test]
fn a_word_of_path_is_the_program_itself() {
    let daemon = started(home(), &["sleep", "--", "100000"]);
    daemon.expects(&["exited with code 0"]);
    let pid = daemon.wait_online("sleep", 1)[0];
    let program = fs::read_link(format!("/proc/{pid}/exe")).expect("it runs");
    let first = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("sleep")).collect::<Vec<PathBuf>>()
    });
    let first = first.filter_map(|path| path.canonicalize().ok()).next().expect("every host has it");
    assert_eq!(program, first);
    let listed = daemon.run(&["jlist"]).expect_code(0).stdout;
    assert!(listed.contains("\"exec_interpreter\":\"none\""), "{listed}");
    daemon.run(&["start", "ls", "--no-autorestart"]).expect_code(0);
    daemon.wait_status("ls", "stopped");
    wait_logged(&daemon, "ls-out.log", "echo.sh", 1);
}

/// Says its variable DEFAULT_STR without flushing.
const PYTHON: &str =
    "import os, time\nprint(os.environ.get('DEFAULT_STR', 'RAWPython'))\ntime.sleep(100000)\n";
const PHP: &str = "<?php\necho \"PHP\\n\";\nfwrite(STDERR, \"ERROR\\n\");\nsleep(100000);\n";

/// Tests 32 and 33. Several workers of Python are cluster mode as those of Node are, unless the file says fork.
#[test]
fn scripts_of_other_languages_are_apps_with_their_profiles_and_several_workers() {
    let (Some(python), Some(_)) = (fixtures::python("echo.py"), fixtures::php("echo.php")) else { return };
    // What PATH has may be a version manager's script, which is no Python yet when it is stopped at once.
    let interpreter = python.command[0].clone();
    let home = home();
    home.put("echo.py", PYTHON);
    home.put("echo.php", PHP);
    let python = App::bare("echo-python").text("script", "echo.py").text("log_file", "../home/logs/app.log");
    let php = App::bare("echo-php").text("script", "echo.php").set("merge_logs", true);
    let python = python.env("DEFAULT_STR", "Python").to_string();
    home.write(&format!(
        "{python}[apps.env_production]\nDEFAULT_STR = \"PythonProduction\"\n{php}{}{}",
        lines("echo-python-1", "echo.py", 1).text("interpreter", &interpreter),
        lines("echo-python-max", "echo.py", 4).text("interpreter", &interpreter).set("merge_logs", true),
    ));
    let daemon = started(home, &["ecosystem.toml", "--only", "echo-python,echo-php"]);
    assert_eq!(standing(&daemon).len(), 2);
    wait_logged(&daemon, "app.log", "Python\n", 1);
    wait_logged(&daemon, "echo-php-out.log", "PHP\n", 1);
    wait_logged(&daemon, "echo-php-error.log", "ERROR\n", 1);
    let words = ["restart", "ecosystem.toml", "--only", "echo-python", "--env", "production"];
    daemon.run(&words).expect_code(0);
    wait_logged(&daemon, "app.log", "PythonProduction\n", 1);
    let words = ["echo.py", "--name", "raw", "--interpreter", &interpreter, "--interpreter-args=-u"];
    daemon.run(&[&["start"], &words[..]].concat()).expect_code(0);
    wait_logged(&daemon, "raw-out.log", "RAWPython\n", 1);
    daemon.run(&["delete", "all"]).expect_code(0);

    let counted = |restarts: u32| {
        let one = row("echo-python-1", "online", &[restarts]);
        [one, row("echo-python-max", "online", &[restarts; 4])]
    };
    daemon.run(&["start", "ecosystem.toml", "--only", "echo-python-1"]).expect_code(0);
    assert_eq!(standing(&daemon), counted(0)[..1]);
    daemon.run(&["start", "ecosystem.toml", "--only", "echo-python-max"]).expect_code(0);
    assert_eq!(standing(&daemon), counted(0));
    daemon.run(&["restart", "all"]).expect_code(0);
    assert_eq!(standing(&daemon), counted(1));
    assert!(daemon.list().apps.iter().all(|app| app.mode == "fork"));
}

/// Test 38: what PM2's users do from a program of theirs.
#[test]
fn a_day_of_many_processes_is_counted_right() {
    let home = home();
    fs::create_dir(home.apps().join("elsewhere")).expect("the home is fresh");
    home.put("where.sh", "#!/bin/sh\npwd\nexec sleep 100000\n");
    let elsewhere = lines("where", "../where.sh", 2).text("cwd", "elsewhere").set("merge_logs", true);
    let apps = |tota: u32| {
        file(&[lines("child", "./echo.sh", 1), lines("tota", "./echo.sh", tota), elsewhere.clone()])
    };
    home.write(&apps(6));
    let daemon = started(Arc::clone(&home), &["ecosystem.toml", "--only", "child"]);
    assert_eq!(daemon.app("child").workers[0].id, 0);
    daemon.run(&["start", "nothing.sh"]).expect_code(1);
    daemon.run(&["start", "ecosystem.toml", "--only", "tota"]).expect_code(0);
    daemon.run(&["start", "ecosystem.toml", "--only", "where"]).expect_code(0);
    let counted = |child: &[u32], tota: &[u32], others: &[u32]| {
        let expected =
            [row("child", "online", child), row("tota", "online", tota), row("where", "online", others)];
        assert_eq!(standing(&daemon), expected);
    };
    counted(&[0], &[0; 6], &[0; 2]);
    let folder = home.apps().join("elsewhere").canonicalize().expect("it is there");
    wait_logged(&daemon, "where-out.log", &folder.display().to_string(), 2);
    let third = daemon.app("tota").workers[2].id.to_string();
    daemon.run(&["delete", &third]).expect_code(0);
    counted(&[0], &[0; 5], &[0; 2]);
    daemon.run(&["save"]).expect_code(0);
    daemon.run(&["delete", "all"]).expect_code(0);
    assert_eq!(standing(&daemon), []);
    daemon.run(&["resurrect"]).expect_code(0);
    daemon.run(&["ping"]).expect_code(0);
    counted(&[0], &[0; 5], &[0; 2]);
    // A reload goes by the file, which PM2 does not read then.
    home.write(&apps(5));
    daemon.run(&["reload", "all"]).expect_code(0);
    daemon.run(&["reload", "tota"]).expect_code(0);
    counted(&[1], &[2; 5], &[1; 2]);
    daemon.run(&["restart", "all"]).expect_code(0);
    daemon.run(&["restart", "tota"]).expect_code(0);
    counted(&[2], &[4; 5], &[2; 2]);
    let second = daemon.app("tota").workers[1].id.to_string();
    daemon.run(&["restart", &second]).expect_code(0);
    counted(&[2], &[4, 5, 4, 4, 4], &[2; 2]);
    daemon.run(&["stop", "child"]).expect_code(0);
    daemon.run(&["stop", &second]).expect_code(0);
    let stopped: Vec<bool> =
        daemon.app("tota").workers.iter().map(|worker| worker.status == "stopped").collect();
    assert_eq!(daemon.app("child").status, "stopped");
    assert_eq!(stopped, [false, true, false, false, false]);
    for (words, restarts) in [(["start", &second], 5), (["restart", &second], 6)] {
        daemon.run(&words).expect_code(0);
        assert_eq!(daemon.app("tota").workers[1].restarts, restarts, "after {words:?}");
    }
}

/// Test 40.
#[test]
fn apps_that_start_restart_and_reload_others_wait_for_nobody() {
    let home = home();
    let call = "#!/bin/sh\nfor verb in $2; do $1 $verb $3 || exit 9; done\necho done\nexec sleep 100000\n";
    ["opener.sh", "restarter.sh", "reloader.sh", "thrice.sh"].iter().for_each(|name| home.put(name, call));
    let program = format!("{} --home {}", home.binary().display(), home.path().display());
    let daemon = started(Arc::clone(&home), &["opener.sh", "--", &program, "start", "./echo.sh"]);
    let mut processes = 2;
    for (script, verbs, restarts) in [
        ("opener", "start", 0),
        ("restarter", "restart", 1),
        ("reloader", "reload", 2),
        ("thrice", "restart restart restart", 5),
    ] {
        if script != "opener" {
            daemon.run(&["start", &format!("{script}.sh"), "--", &program, verbs, "echo"]).expect_code(0);
            processes += 1;
        }
        wait_logged(&daemon, &format!("{script}-out.log"), "done", 1);
        let standing = standing(&daemon);
        assert_eq!(standing.len(), processes);
        assert!(standing.contains(&row("echo", "online", &[restarts])), "{script}: {standing:?}");
    }
}
