//! What survives the supervisor: `save`, `resurrect`, `cleardump`, and the list that is written at every change.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::daemon::{BOOT, send, state_and_parent};
use support::hammer::body;
use support::wait::holds_for;
use support::{App, Daemon, Fixture, Home, Output, file, fixtures, free_port, wait_until};

fn idle(name: &str) -> App {
    App::new(name, &fixtures::worker(&["idle"])).text("exec_mode", "fork")
}

fn serving(name: &str, port: u16) -> App {
    App::new(name, &fixtures::worker(&["serve"])).instances(2).port(port)
}

fn started(apps: &[App]) -> Daemon {
    let (daemon, output) = Daemon::background(file(apps));
    output.expect_code(0);
    daemon
}

/// Starts the apps of another file in the same supervisor.
fn start_more(daemon: &Daemon, apps: &[App]) {
    daemon.home.put("more.toml", &file(apps));
    let more = daemon.home.apps().join("more.toml").display().to_string();
    daemon.run(&["start", &more]).expect_code(0);
}

/// Ends a supervisor as it should end.
fn ended(daemon: Daemon) -> Arc<Home> {
    daemon.run(&["kill"]).expect_code(0);
    let home = Arc::clone(&daemon.home);
    drop(daemon);
    home
}

fn resurrected(home: &Arc<Home>) -> (Daemon, Output) {
    let output = home.run(&["resurrect"]);
    (Daemon::of(home), output)
}

/// Name and status of each app.
fn states(daemon: &Daemon) -> Vec<(String, String)> {
    daemon.list().apps.into_iter().map(|app| (app.name, app.status)).collect()
}

fn state(name: &str, status: &str) -> (String, String) {
    (name.to_owned(), status.to_owned())
}

fn dump(home: &Home) -> PathBuf {
    home.path().join("dump.json")
}

/// What is written at every change.
fn list(home: &Home) -> PathBuf {
    home.path().join("apps.json")
}

fn wait_listed(home: &Home, text: &str) {
    wait_until(BOOT, &format!("{text} in the list on the disk"), || {
        fs::read_to_string(list(home)).is_ok_and(|list| list.contains(text))
    });
}

#[test]
fn exactly_what_was_saved_comes_back_as_it_was_whatever_became_of_its_file() {
    let port = free_port();
    let home = Arc::new(Home::new(None));
    home.write(&file(&[serving("api", port), idle("job"), idle("part").instances(3)]));
    let ecosystem = home.file().display().to_string();
    let start = home.spawn_with(&["start", &ecosystem], |command| {
        command.env("CALLER", "the first");
    });
    home.finish(start).expect_code(0);
    let daemon = Daemon::of(&home);
    daemon.run(&["scale", "api", "3"]).expect_code(0);
    daemon.run(&["stop", "job"]).expect_code(0);
    let middle = daemon.app("part").workers[1].id.to_string();
    daemon.run(&["stop", &middle]).expect_code(0);
    let saved = daemon.run(&["save"]).expect_code(0);
    assert!(saved.stdout.contains("saved 3 apps"), "{saved:?}");
    let mode = fs::metadata(dump(&home)).expect("it was written").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "environments are secrets");
    // What is done afterwards is not in it.
    daemon.run(&["delete", "api"]).expect_code(0);
    daemon.run(&["start", "job"]).expect_code(0);
    start_more(&daemon, &[idle("extra")]);
    let home = ended(daemon);
    fs::remove_file(home.file()).expect("it is ours");

    let (daemon, output) = resurrected(&home);
    output.expect_code(0);
    assert_eq!(states(&daemon), [state("api", "online"), state("job", "stopped"), state("part", "online")]);
    daemon.wait_online("api", 3);
    assert!(!body(port, "/").is_empty());
    let part: Vec<String> = daemon.app("part").workers.into_iter().map(|worker| worker.status).collect();
    assert_eq!(part, ["online", "stopped", "online"]);
    let environment = daemon.run(&["env", "api"]).expect_code(0).stdout;
    assert!(environment.contains("CALLER=the first"), "{environment}");
    // Stopped is not forgotten.
    daemon.run(&["start", "job"]).expect_code(0);
    daemon.wait_online("job", 1);
}

#[test]
fn resurrect_twice_does_nothing_twice() {
    let daemon = started(&[idle("one"), idle("two")]);
    daemon.run(&["save"]).expect_code(0);
    daemon.run(&["delete", "two"]).expect_code(0);
    let one = daemon.wait_online("one", 1);
    daemon.run(&["resurrect"]).expect_code(0);
    let two = daemon.wait_online("two", 1);
    let again = daemon.run(&["dump"]).expect_code(0);
    assert!(again.stdout.contains("saved 2 apps"), "PM2's word for it: {again:?}");
    let again = daemon.run(&["resurrect"]).expect_code(0);
    let first = again.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with('/') && first.ends_with("nothing of it was missing"), "{again:?}");
    assert_eq!((daemon.wait_online("one", 1), daemon.wait_online("two", 1)), (one, two));
}

/// Also after a kill: nobody has to think of `save`.
#[test]
fn where_nothing_was_saved_what_ran_last_comes_back() {
    let port = free_port();
    // While it ends there is time to write down that everything was stopped, which nobody wished.
    let slow = App::new("slow", &fixtures::shell("trap '' INT; exec sleep 1000")).set("kill_timeout", 600);
    let daemon = started(&[serving("api", port), idle("gone"), idle("off"), slow]);
    daemon.expects(&["slow"]);
    daemon.run(&["scale", "api", "4"]).expect_code(0);
    daemon.run(&["stop", "off"]).expect_code(0);
    daemon.run(&["delete", "gone"]).expect_code(0);
    wait_until(BOOT, "a list without what was deleted", || {
        let list = fs::read_to_string(list(&daemon.home)).unwrap_or_default();
        list.contains("\"instances\":4") && list.contains("\"all\"") && !list.contains("\"name\":\"gone\"")
    });
    let mode = fs::metadata(list(&daemon.home)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // A file that is broken meanwhile is no reason to stay down.
    daemon.home.write("[[apps");
    let home = daemon.kill_behind();
    for _ in 0..2 {
        let (daemon, output) = resurrected(&home);
        output.expect_code(0);
        // Workers end with it, what is still on its way out is ended first.
        daemon.expects(&["left behind by a supervisor that was killed", "slow"]);
        assert_eq!(
            states(&daemon),
            [state("api", "online"), state("off", "stopped"), state("slow", "online")]
        );
        daemon.wait_online("api", 4);
        ended(daemon);
    }
}

/// As with PM2; but what the supervisor before ran is not lost by it.
#[test]
fn a_supervisor_that_is_started_by_another_command_brings_nothing_back_by_itself() {
    let home = ended(started(&[idle("before")]));
    home.write(&file(&[idle("now")]));
    let ecosystem = home.file().display().to_string();
    home.run(&["start", &ecosystem]).expect_code(0);
    let daemon = Daemon::of(&home);
    assert_eq!(states(&daemon), [state("now", "online")]);
    wait_listed(&home, "\"now\"");
    daemon.run(&["resurrect"]).expect_code(0);
    assert_eq!(states(&daemon), [state("now", "online"), state("before", "online")]);
}

#[test]
fn an_empty_list_is_saved_only_by_force_and_the_one_before_is_kept() {
    let daemon = started(&[idle("one")]);
    let home = Arc::clone(&daemon.home);
    let backup = home.path().join("dump.json.bak");
    daemon.run(&["save"]).expect_code(0);
    assert!(!backup.exists(), "there was none before");
    let first = fs::read(dump(&home)).expect("it was written");
    daemon.run(&["scale", "one", "2"]).expect_code(0);
    daemon.run(&["save"]).expect_code(0);
    assert_eq!(fs::read(&backup).expect("it was kept"), first);
    let second = fs::read(dump(&home)).expect("it was written");
    assert_ne!(second, first);
    daemon.run(&["delete", "all"]).expect_code(0);
    daemon.run(&["save"]).expect_code(1).expect_stderr(&["nothing was saved", "--force"]);
    assert_eq!(fs::read(dump(&home)).expect("it stays"), second);
    daemon.run(&["save", "--force"]).expect_code(0);
    daemon.run(&["resurrect"]).expect_code(0);
    assert!(states(&daemon).is_empty());
    let cleared = daemon.run(&["cleardump"]).expect_code(0);
    assert!(cleared.stdout.contains("what ran last"), "{cleared:?}");
    assert!(!dump(&home).exists() && !backup.exists());
    ended(daemon);
    let again = home.run(&["cleardump"]).expect_code(0);
    assert!(again.stdout.contains("nothing was saved"), "without a supervisor, too: {again:?}");
    home.run(&["save"]).expect_code(1).expect_stderr(&["no supervisor is running"]);
}

#[test]
fn a_list_that_is_broken_or_newer_is_moved_aside_and_the_one_before_it_comes_back() {
    for (text, reason) in
        [("{\"version\":1,", "broken"), ("{\"version\":2,\"x\":[]}", "a newer clusterd wrote it")]
    {
        let daemon = started(&[idle("one")]);
        daemon.run(&["save"]).expect_code(0);
        daemon.run(&["save"]).expect_code(0);
        let home = ended(daemon);
        fs::write(dump(&home), text).expect("it is ours");
        let (daemon, output) = resurrected(&home);
        let output = output.expect_code(1);
        assert!(output.stderr.contains("resurrect: /"), "no app is meant: {output:?}");
        output.expect_stderr(&[reason, "dump.json", "moved to", "dump.json.bad"]);
        assert_eq!(states(&daemon), [state("one", "online")]);
        let aside = fs::read_to_string(home.path().join("dump.json.bad"));
        assert_eq!(aside.expect("it is not lost"), text);
    }
}

/// It costs nothing that runs, and a warning.
#[test]
fn a_broken_list_of_what_ran_last_is_moved_aside_when_the_next_supervisor_starts() {
    let home = ended(started(&[idle("one")]));
    fs::write(list(&home), "{}").expect("it is ours");
    let ecosystem = home.file().display().to_string();
    home.run(&["start", &ecosystem]).expect_code(0);
    let daemon = Daemon::of(&home);
    daemon.expects(&["apps.json: it is broken"]);
    assert_eq!(fs::read_to_string(home.path().join("apps.json.bad")).expect("it is not lost"), "{}");
    wait_listed(&home, "\"one\"");
}

#[test]
fn an_app_that_cannot_be_read_any_more_is_named_and_the_others_start() {
    let daemon = started(&[idle("good")]);
    start_more(&daemon, &[idle("odd")]);
    daemon.run(&["save"]).expect_code(0);
    let home = ended(daemon);
    let text = fs::read_to_string(dump(&home)).expect("it was written");
    let mut list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let place = list["apps"][1]["source"].as_u64().expect("a place");
    list["sources"][place as usize]["text"] = "[[apps]]\nname = \"odd\"\nno_such_key = 1\n".into();
    fs::write(dump(&home), list.to_string()).expect("it is ours");
    let (daemon, output) = resurrected(&home);
    output.expect_code(1).expect_stderr(&["odd", "no_such_key", "more.toml (as saved)"]);
    assert_eq!(states(&daemon), [state("good", "online")]);
}

#[test]
fn an_app_that_does_not_start_fails_the_command_with_its_reason() {
    let home = Arc::new(Home::new(None));
    let program = home.apps().join("passing");
    fs::copy(home.apps().join("fixture_worker"), &program).expect("it is ours");
    home.write(&file(&[idle("good"), App::new("odd", &Fixture::new(&["./passing", "idle"]))]));
    let ecosystem = home.file().display().to_string();
    home.run(&["start", &ecosystem]).expect_code(0);
    ended(Daemon::of(&home));
    fs::remove_file(&program).expect("it is ours");
    let (daemon, output) = resurrected(&home);
    daemon.expects(&["odd"]);
    output.expect_code(1).expect_stderr(&["resurrect odd", "passing"]);
    daemon.wait_online("good", 1);
}

/// A disk that is full or read-only: told once, tried again, and nothing that runs hears of it.
#[test]
fn a_list_that_cannot_be_written_is_told_once_and_written_later() {
    let daemon = started(&[idle("one")]);
    wait_listed(&daemon.home, "\"one\"");
    let in_the_way = daemon.home.path().join("apps.json.new");
    fs::create_dir(&in_the_way).expect("it is ours");
    daemon.expects(&["apps.json: cannot be written"]);
    daemon.run(&["scale", "one", "2"]).expect_code(0);
    let described = wait_until(BOOT, "word of it in describe", || {
        let described = daemon.run(&["describe", "one"]).expect_code(0).stdout;
        described.contains("not saved for `resurrect`").then_some(described)
    });
    assert!(described.contains("apps.json"), "{described}");
    daemon.run(&["scale", "one", "3"]).expect_code(0);
    daemon.wait_online("one", 3);
    fs::remove_dir(&in_the_way).expect("it is ours");
    wait_listed(&daemon.home, "\"instances\":3");
    let log = fs::read_to_string(daemon.home.path().join("logs/clusterd.log")).expect("it has a log");
    assert_eq!(log.matches("cannot be written").count(), 1, "{log}");
    let described = daemon.run(&["describe", "one"]).expect_code(0).stdout;
    assert!(!described.contains("not saved"), "{described}");
}

/// What has a file of its own is told by that.
#[test]
fn the_foreground_with_a_file_keeps_no_list_and_leaves_the_one_that_is_there() {
    let home = ended(started(&[idle("one")]));
    let before = fs::read(list(&home)).expect("it was written");
    let mut daemon = support::daemon::Builder::new(idle("other")).start_in(Arc::clone(&home));
    daemon.wait_online("other", 1);
    daemon.run(&["scale", "other", "2"]).expect_code(0);
    holds_for(Duration::from_millis(300), "the list as it was", || {
        fs::read(list(&home)).is_ok_and(|now| now == before)
    });
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(BOOT), 0);
}

fn foreground(home: &Home) -> support::daemon::Running {
    let running = home.spawn(&["resurrect", "--foreground"]);
    wait_until(BOOT, "a supervisor in the foreground", || home.run(&["ping"]).code == 0);
    running
}

/// What a unit runs: it waits for apps, brings back what ran when it was killed, and what was saved after an end.
#[test]
fn in_the_foreground_a_kill_is_made_good_and_an_end_goes_back_to_what_was_saved() {
    let home = Arc::new(Home::new(None));
    let mut supervisor = foreground(&home);
    holds_for(Duration::from_millis(300), "a supervisor without apps", || supervisor.runs());
    home.write(&file(&[idle("saved")]));
    let ecosystem = home.file().display().to_string();
    home.run(&["start", &ecosystem]).expect_code(0);
    home.run(&["save"]).expect_code(0);
    let daemon = Daemon::of(&home);
    start_more(&daemon, &[idle("later")]);
    wait_listed(&home, "\"later\"");
    let home = daemon.kill_behind();
    supervisor.child.wait().expect("it is our child");

    let mut supervisor = foreground(&home);
    let mut daemon = Daemon::of(&home);
    daemon.wait_online("later", 1);
    assert_eq!(states(&daemon), [state("saved", "online"), state("later", "online")]);
    let workers = daemon.pids("later");
    send(daemon.pid, Signal::SIGTERM);
    let code = wait_until(BOOT, "its end", || supervisor.child.try_wait().ok().flatten());
    assert_eq!(code.code(), Some(0));
    daemon.pid = 0;
    assert!(workers.iter().all(|pid| state_and_parent(*pid).is_none()), "nothing is left behind");

    let supervisor = foreground(&home);
    let mut daemon = Daemon::of(&home);
    daemon.wait_online("saved", 1);
    assert_eq!(states(&daemon), [state("saved", "online")]);
    daemon.run(&["kill"]).expect_code(0);
    assert_eq!(supervisor.wait(BOOT).code, 0);
    daemon.pid = 0;
}

/// Whatever came in between, as long as nobody wrote another number into the text.
#[test]
fn a_number_of_workers_that_the_text_does_not_say_comes_back() {
    let home = Arc::new(Home::new(None));
    home.write(&file(&[idle("file").instances(2)]));
    let ecosystem = home.file().display().to_string();
    home.run(&["start", &ecosystem]).expect_code(0);
    home.run(&["start", "sleep 1000", "--name", "line", "-i", "2"]).expect_code(0);
    let daemon = Daemon::of(&home);
    daemon.run(&["scale", "line", "3"]).expect_code(0);
    daemon.run(&["restart", "line", "--update-env"]).expect_code(0);
    home.write(&file(&[idle("file").instances(4)]));
    daemon.run(&["apply", &ecosystem]).expect_code(0);
    daemon.wait_online("file", 4);
    daemon.run(&["scale", "file", "2"]).expect_code(0);
    daemon.run(&["save"]).expect_code(0);
    let home = ended(daemon);
    let (daemon, output) = resurrected(&home);
    output.expect_code(0);
    daemon.wait_online("line", 3);
    daemon.wait_online("file", 2);
}

#[test]
fn the_time_that_a_file_gives_to_the_end_comes_back() {
    let app = idle("one");
    let (daemon, output) = Daemon::background(format!("[daemon]\nshutdown_timeout = \"1234ms\"\n{app}"));
    output.expect_code(0);
    daemon.run(&["save"]).expect_code(0);
    let home = ended(daemon);
    let (daemon, output) = resurrected(&home);
    output.expect_code(0);
    let log = || fs::read_to_string(home.path().join("logs/clusterd.log")).expect("it was written");
    let before = log().matches("within 1.234s").count();
    drop(ended(daemon));
    assert_eq!(log().matches("within 1.234s").count(), before + 1, "{}", log());
}

/// Whoever is first has the home; the others talk to that one.
#[test]
fn commands_that_need_a_supervisor_at_once_all_find_the_one() {
    for _ in 0..3 {
        let home = Arc::new(Home::new(None));
        let names: Vec<String> = (0..4).map(|number| format!("app{number}")).collect();
        let start = |name: &String| home.spawn(&["start", "sleep 1000", "--name", name]);
        let starts: Vec<_> = names.iter().map(start).collect();
        for start in starts {
            home.finish(start).expect_code(0);
        }
        let daemon = Daemon::of(&home);
        let mut known: Vec<String> = states(&daemon).into_iter().map(|(name, _)| name).collect();
        known.sort();
        assert_eq!(known, names);
        ended(daemon);
    }
}

/// A login, whose socket is in a folder of its own.
fn login(home: &Home, arguments: &[&str]) -> Output {
    let state = home.path();
    let running = home.spawn_with(arguments, |command| {
        command.env_remove("CLUSTERD_HOME").env("STATE_DIRECTORY", &state);
        command.env("RUNTIME_DIRECTORY", state.join("run")).env("LOGS_DIRECTORY", state.join("logs"));
    });
    home.finish(running)
}

/// Whoever asks has to find a supervisor in the background without the file.
#[test]
fn in_the_background_a_file_does_not_move_the_state_and_that_is_told() {
    let home = Home::new(None);
    home.write(&format!("[daemon]\nstate_dir = \"kept\"\n{}", file(&[idle("one")])));
    let told = login(&home, &["start", "ecosystem.toml"]).expect_code(0);
    assert!(told.stdout.contains("in the background name the folder by --home or CLUSTERD_HOME"), "{told:?}");
    login(&home, &["save"]).expect_code(0);
    assert!(home.path().join("dump.json").is_file() && !home.apps().join("kept").exists());
    login(&home, &["kill"]).expect_code(0);
}

/// Where the file says, in the foreground; a home that is named holds everything.
#[test]
fn the_state_is_kept_where_the_file_says() {
    let home = Arc::new(Home::new(None));
    let text = format!("[daemon]\nstate_dir = \"kept/here\"\n{}", file(&[idle("one")]));
    home.write(&text);
    let kept = home.apps().join("kept/here");
    let at = |name: &str| home.path().join(name);
    let running = home.spawn_with(&[&home.file().display().to_string()], |command| {
        command.env_remove("CLUSTERD_HOME").env("STATE_DIRECTORY", at("state"));
        command.env("RUNTIME_DIRECTORY", at("run")).env("LOGS_DIRECTORY", at("logs"));
    });
    let run = at("run").display().to_string();
    wait_until(BOOT, "its apps", || home.run(&["--home", &run, "ping", "--ready"]).code == 0);
    home.run(&["--home", &run, "save"]).expect_code(0);
    assert!(kept.join("dump.json").is_file() && !at("state").join("dump.json").exists());
    // It stays there until the supervisor is started anew, and that is told.
    home.write(&text.replace("kept/here", "kept/there"));
    let told = home.run(&["--home", &run, "reload", &home.file().display().to_string()]).expect_code(0);
    assert!(
        told.stdout.contains("state_dir: ") && told.stdout.contains("from the next start on"),
        "{told:?}"
    );
    home.run(&["--home", &run, "kill"]).expect_code(0);
    home.finish(running);
    // A home that is named.
    let daemon = Daemon::foreground(text);
    daemon.wait_online("one", 1);
    daemon.run(&["save"]).expect_code(0);
    assert!(daemon.home.path().join("dump.json").is_file() && !daemon.home.apps().join("kept").exists());
}

/// What the one before left is written down where its file said.
#[test]
fn what_was_left_behind_is_found_also_where_state_dir_has_changed_since() {
    let home = Arc::new(Home::new(None));
    let at = |name: &str| home.path().join(name);
    let started = |state_dir: &str, line: &str| {
        home.write(&format!(
            "[daemon]\nstate_dir = \"{state_dir}\"\n{}",
            file(&[App::new("one", &Fixture::new(&["/bin/sh", "-c", line])).text("exec_mode", "fork")])
        ));
        let running = home.spawn_with(&[&home.file().display().to_string()], |command| {
            command.env_remove("CLUSTERD_HOME").env("STATE_DIRECTORY", at("state"));
            command.env("RUNTIME_DIRECTORY", at("run")).env("LOGS_DIRECTORY", at("logs"));
        });
        let run = at("run").display().to_string();
        wait_until(BOOT, "its apps", || home.run(&["--home", &run, "ping", "--ready"]).code == 0);
        let list = home.run(&["--home", &run, "list", "--json"]).expect_code(0).stdout;
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        (running, i32::try_from(list["daemon"]["pid"].as_i64().expect("a number")).expect("a process"))
    };
    let sleeps = || {
        let all = home.processes().into_iter();
        all.filter(|process| process.line == "sleep 1000").map(|process| process.pid).collect::<Vec<_>>()
    };
    let (running, pid) = started("kept/here", "setsid sleep 1000 & exec sleep 2000");
    wait_until(BOOT, "what the worker started", || sleeps().len() == 1);
    let left = sleeps();
    send(pid, Signal::SIGKILL);
    home.finish(running);
    assert_eq!(sleeps(), left, "it was not told");
    let (running, _) = started("kept/there", "exec sleep 2000");
    assert!(sleeps().is_empty(), "{:?}", sleeps());
    let run = at("run").display().to_string();
    home.run(&["--home", &run, "kill"]).expect_code(0);
    let output = home.finish(running);
    assert!(output.stderr.contains("1 processes were left behind by a supervisor"), "{output:?}");
}

/// As with `start` in a login, and the unit of `startup`.
#[test]
fn two_supervisors_never_share_a_list_of_apps() {
    let home = Arc::new(Home::new(None));
    home.write(&file(&[idle("one")]));
    let ecosystem = home.file().display().to_string();
    login(&home, &["start", &ecosystem]).expect_code(0);
    let run = home.path().join("run").display().to_string();
    let refused = home.run(&["resurrect", "--foreground"]).expect_code(1);
    refused.expect_stderr(&["already keeps its state", &format!("clusterd --home {run} kill")]);
    let first = login(&home, &["pid", "one"]).expect_code(0).stdout;
    // It is killed, and its socket stays.
    let list = login(&home, &["list", "--json"]).expect_code(0).stdout;
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let pid = i32::try_from(list["daemon"]["pid"].as_i64().expect("a number")).expect("a process");
    send(pid, Signal::SIGKILL);
    wait_until(BOOT, "its end", || state_and_parent(pid).is_none_or(|(state, _)| state == 'Z'));
    let mut unit = foreground(&home);
    let daemon = Daemon::of(&home);
    let now = daemon.wait_online("one", 1);
    assert_ne!(first.trim(), now[0].to_string());
    let seen = login(&home, &["pid", "one"]).expect_code(0).stdout;
    assert_eq!(seen.trim(), now[0].to_string(), "the login talks to the unit's supervisor");
    login(&home, &["start", "sleep 1000", "--name", "two"]).expect_code(0);
    assert_eq!(states(&daemon), [state("one", "online"), state("two", "online")]);
    ended(daemon);
    wait_until(BOOT, "the end of the unit's", || unit.child.try_wait().ok().flatten());
}

/// A list that cannot be replaced stays the list.
#[test]
fn what_ran_comes_back_although_the_supervisor_between_could_write_nothing() {
    let daemon = started(&[idle("one")]);
    daemon.run(&["save"]).expect_code(0);
    start_more(&daemon, &[idle("later")]);
    wait_listed(&daemon.home, "\"later\"");
    let home = daemon.kill_behind();
    let draft = home.path().join("apps.json.new");
    fs::create_dir_all(draft.join("in the way")).expect("it is ours");
    let mut supervisor = foreground(&home);
    let daemon = Daemon::of(&home);
    daemon.wait_online("later", 1);
    let log = || fs::read_to_string(home.path().join("logs/clusterd.log")).unwrap_or_default();
    wait_until(BOOT, "a list that was not written", || {
        log().contains("cannot be written") || supervisor.stderr().contains("cannot be written")
    });
    daemon.kill_behind();
    supervisor.child.wait().expect("it is our child");
    fs::remove_dir_all(&draft).expect("it is ours");
    let mut supervisor = foreground(&home);
    let daemon = Daemon::of(&home);
    daemon.wait_online("later", 1);
    assert_eq!(states(&daemon), [state("one", "online"), state("later", "online")]);
    ended(daemon);
    wait_until(BOOT, "its end", || supervisor.child.try_wait().ok().flatten());
}

#[test]
fn who_is_being_deleted_says_so_to_who_wants_it_back() {
    let slow = App::new("slow", &fixtures::shell("trap '' INT; exec sleep 1000")).text("kill_timeout", "3s");
    let daemon = started(&[slow, idle("other")]);
    daemon.expects(&["slow"]);
    daemon.run(&["save"]).expect_code(0);
    daemon.run(&["delete", "slow", "--no-wait"]).expect_code(0);
    let path = daemon.home.file().display().to_string();
    for command in [&["start", &path, "--only", "slow"][..], &["resurrect"], &["restart", "slow"]] {
        let refused = daemon.run(command).expect_code(1);
        assert!(format!("{refused:?}").contains("it is being deleted"), "{command:?}: {refused:?}");
    }
    daemon.run(&["delete", "slow"]);
    daemon.run(&["resurrect"]).expect_code(0);
    daemon.wait_online("slow", 1);
}

/// What ran on without something that it depends on does so again.
#[test]
fn who_ran_without_what_it_depends_on_comes_back_without_it() {
    let app = |name: &str, on: &str| idle(name).set("depends_on", format!("[{on}]"));
    let daemon = started(&[idle("db"), idle("gone"), app("api", "\"db\""), app("web", "\"gone\", \"api\"")]);
    daemon.expects(&["runs on without it"]);
    daemon.run(&["stop", "db"]).expect_code(0);
    daemon.run(&["delete", "gone"]).expect_code(0);
    daemon.run(&["save"]).expect_code(0);
    let home = ended(daemon);
    let (daemon, output) = resurrected(&home);
    // Both have one log.
    daemon.expects(&["runs on without it"]);
    output.expect_code(0);
    let online = |name: &str| state(name, "online");
    assert_eq!(states(&daemon), [state("db", "stopped"), online("api"), online("web")]);
}
