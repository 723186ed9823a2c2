//! `watch`: workers that are replaced when their files change.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use support::daemon::{Builder, clusterd};
use support::wait::holds_for;
use support::{App, Daemon, Home, Load, fixtures, free_port, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Long enough for a change to have its effect.
const EFFECT: Duration = ms(1500);

fn generation(daemon: &Daemon) -> u32 {
    daemon.app("api").generation
}

/// Waits until a reload has brought this generation, and is over.
fn wait_generation(daemon: &Daemon, wanted: u32) {
    wait_until(ms(20_000), "the reload", || {
        let app = daemon.app("api");
        app.generation >= wanted && app.reload.is_none() && app.workers.iter().all(|worker| worker.ready)
    });
    assert_eq!(generation(daemon), wanted, "{}", daemon.log());
}

/// A server that does nothing, in a folder of its own.
fn idle(folder: &str) -> App {
    App::new("api", &fixtures::shell("while :; do sleep 0.05; done")).text("watch", folder)
}

fn start(home: Home, app: &App, expected: &[&str]) -> Daemon {
    Builder::new(app).expects(expected).start_in(Arc::new(home))
}

/// A supervisor of an app that watches the folder `src` beside it.
fn watching(change: impl FnOnce(App) -> App) -> (Daemon, PathBuf) {
    let home = Home::new(None);
    let src = home.apps().join("src");
    fs::create_dir_all(src.join("lib/deep")).expect("a fresh home");
    fs::write(src.join("server.js"), "1").expect("a fresh folder");
    let daemon = start(home, &change(idle("src")), &[]);
    daemon.wait_online("api", 1);
    (daemon, src)
}

fn write(path: impl AsRef<Path>, text: &str) {
    fs::write(path, text).expect("a folder of the test");
}

#[test]
fn a_change_replaces_all_workers_and_no_request_is_lost() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = App::new("api", &node).instances(2).port(port).set("watch", true);
    let daemon = Daemon::foreground(app);
    let before = daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(4).path("/?delay=5").start();
    let script = daemon.home.apps().join("server.js");
    let text = fs::read_to_string(&script).expect("the fixture");
    write(&script, &format!("{text}\n// changed\n"));
    daemon.wait_for_text("watch: server.js changed: its workers are replaced");
    wait_generation(&daemon, 2);
    assert!(daemon.pids("api").iter().all(|pid| !before.contains(pid)));
    hammer.stop().expect_none_lost();
}

#[test]
fn folders_that_come_later_are_watched_with_what_was_in_them_before() {
    let (daemon, src) = watching(|app| app);
    let new = src.join("new/deeper");
    fs::create_dir_all(&new).expect("a folder of the test");
    write(new.join("a.js"), "1");
    wait_generation(&daemon, 2);
    write(new.join("a.js"), "2");
    daemon.wait_for_text("watch: src/new/deeper/a.js changed");
    wait_generation(&daemon, 3);
    // Moved elsewhere in the tree it is still the same folder.
    fs::rename(src.join("new"), src.join("lib/moved")).expect("both are there");
    wait_generation(&daemon, 4);
    write(src.join("lib/moved/deeper/a.js"), "3");
    daemon.wait_for_text("watch: src/lib/moved/deeper/a.js changed");
    wait_generation(&daemon, 5);
    fs::remove_file(src.join("lib/moved/deeper/a.js")).expect("it is there");
    wait_generation(&daemon, 6);
}

/// What vim, Emacs and others do when they save: one save, one reload.
#[test]
fn the_ways_in_which_editors_save_are_one_change_each() {
    let (daemon, src) = watching(|app| app);
    let server = src.join("server.js");
    // vim: tries whether it may write, keeps a backup, writes anew.
    write(src.join("4913"), "");
    fs::remove_file(src.join("4913")).expect("it is there");
    fs::rename(&server, src.join("server.js~")).expect("it is there");
    write(&server, "2");
    fs::remove_file(src.join("server.js~")).expect("it is there");
    daemon.wait_for_text("watch: src/server.js changed");
    wait_generation(&daemon, 2);
    // Most others: a temporary file that takes the place.
    write(src.join("server.js.tmp.17"), "3");
    fs::rename(src.join("server.js.tmp.17"), &server).expect("both are there");
    wait_generation(&daemon, 3);
    // Swap files, and the trial of a file by itself, are no change.
    write(src.join(".server.js.swp"), "x");
    write(src.join("4913"), "");
    fs::remove_file(src.join("4913")).expect("it is there");
    holds_for(EFFECT, "nothing changed", || generation(&daemon) == 3);
}

#[test]
fn what_is_ignored_and_what_clusterd_writes_is_no_change() {
    let (daemon, src) = watching(|app| {
        app.set("ignore_watch", "[\"*.tmp\", \"/lib/\", \"!keep.tmp\", \"!*.log\"]")
            .text("out_file", "src/out.log")
            .text("log_file", "src/all.txt")
    });
    let own = ["out.log", "out-0.log", "out.log.1", "all.txt", "all-0.txt"];
    for ignored in ["a.tmp", "lib/a.js", "lib/deep/a.js", ".hidden"].into_iter().chain(own) {
        write(src.join(ignored), "x");
    }
    fs::create_dir(src.join("node_modules")).expect("a folder of the test");
    write(src.join("node_modules/a.js"), "x");
    holds_for(EFFECT, "nothing changed", || generation(&daemon) == 1);
    write(src.join("keep.tmp"), "x");
    daemon.wait_for_text("watch: src/keep.tmp changed");
    write(src.join("other.log"), "x");
    daemon.wait_for_text("watch: src/other.log changed");
}

#[test]
fn a_file_and_a_link_that_are_named_are_watched() {
    let home = Home::new(None);
    let apps = home.apps();
    fs::create_dir_all(apps.join("releases/1")).expect("a fresh home");
    fs::create_dir_all(apps.join("releases/2/lib")).expect("a fresh home");
    std::os::unix::fs::symlink("releases/1", apps.join("current")).expect("a fresh home");
    write(apps.join("app.conf"), "1");
    fs::create_dir_all(apps.join("sites/2/src")).expect("a fresh home");
    fs::create_dir_all(apps.join("sites/1/src")).expect("a fresh home");
    std::os::unix::fs::symlink("sites/1", apps.join("site")).expect("a fresh home");
    let watched = "[\"app.conf\", \"current\", \"site/src\"]";
    let daemon = start(home, &idle("x").set("watch", watched), &[]);
    daemon.wait_online("api", 1);
    write(apps.join("beside.conf"), "1");
    holds_for(EFFECT, "nobody named it", || generation(&daemon) == 1);
    write(apps.join("app.conf.new"), "2");
    fs::rename(apps.join("app.conf.new"), apps.join("app.conf")).expect("both are there");
    wait_generation(&daemon, 2);
    write(apps.join("releases/1/a.js"), "1");
    wait_generation(&daemon, 3);
    std::os::unix::fs::symlink("releases/2", apps.join("next")).expect("a name of its own");
    fs::rename(apps.join("next"), apps.join("current")).expect("both are there");
    wait_generation(&daemon, 4);
    write(apps.join("releases/2/lib/a.js"), "1");
    wait_generation(&daemon, 5);
    write(apps.join("releases/1/a.js"), "2");
    holds_for(EFFECT, "it is the old release", || generation(&daemon) == 5);
    // A link on the way there.
    std::os::unix::fs::symlink("sites/2", apps.join("next")).expect("a name of its own");
    fs::rename(apps.join("next"), apps.join("site")).expect("both are there");
    wait_generation(&daemon, 6);
    write(apps.join("sites/2/src/a.js"), "1");
    wait_generation(&daemon, 7);
}

/// As PM2's users write it.
#[test]
fn a_pattern_is_watched_and_what_it_does_not_fit_is_no_change() {
    let (daemon, src) = watching(|app| app.set("watch", "[\"src/**/*.{js,ts}\", \"*.json\"]"));
    write(src.join("lib/a.css"), "1");
    write(src.join("lib/deep/a.map"), "1");
    write(src.join("b.json"), "1");
    write(daemon.home.apps().join("a.js"), "1");
    holds_for(EFFECT, "none of it is meant", || generation(&daemon) == 1);
    write(src.join("lib/deep/a.ts"), "1");
    daemon.wait_for_text("watch: src/lib/deep/a.ts changed");
    wait_generation(&daemon, 2);
    fs::create_dir(src.join("new")).expect("a fresh name");
    write(src.join("new/a.js"), "1");
    daemon.wait_for_text("watch: src/new/a.js changed");
    wait_generation(&daemon, 3);
    write(daemon.home.apps().join("package.json"), "1");
    daemon.wait_for_text("watch: package.json changed");
    wait_generation(&daemon, 4);
}

#[test]
fn links_inside_a_watched_folder_lead_nowhere() {
    let outside = tempfile::tempdir().expect("a folder");
    let (daemon, src) = watching(|app| app);
    std::os::unix::fs::symlink(outside.path(), src.join("out")).expect("a fresh name");
    wait_generation(&daemon, 2);
    write(outside.path().join("a.js"), "1");
    holds_for(EFFECT, "it lies outside", || generation(&daemon) == 2);
}

#[test]
fn a_watched_folder_that_is_removed_and_made_again_is_watched_again() {
    let (daemon, src) = watching(|app| app);
    fs::remove_dir_all(&src).expect("it is there");
    fs::create_dir(&src).expect("it is gone");
    write(src.join("server.js"), "2");
    wait_until(ms(10_000), "a reload, and rest", || {
        generation(&daemon) > 1 && daemon.app("api").reload.is_none()
    });
    write(src.join("later.js"), "2");
    daemon.wait_for_text("src/later.js");
}

#[test]
fn what_is_not_there_yet_is_told_and_watched_once_it_is() {
    let daemon = start(Home::new(None), &idle("dist/bundle.js"), &["dist/bundle.js is not there"]);
    daemon.wait_online("api", 1);
    daemon.wait_for_text("dist/bundle.js is not there; it is watched once it is");
    let dist = daemon.home.apps().join("dist");
    fs::create_dir(&dist).expect("a fresh home");
    write(dist.join("bundle.js"), "1");
    daemon.wait_for_text("watch: dist/bundle.js changed");
    wait_generation(&daemon, 2);
}

/// A developer's slip: the app gives up, and the next save brings it back.
#[test]
fn an_app_that_gave_up_starts_at_the_next_change_and_a_stopped_one_does_not() {
    let home = Home::new(None);
    let src = home.apps().join("src");
    fs::create_dir(&src).expect("a fresh home");
    write(src.join("run.sh"), "exit 3");
    let app = App::new("api", &fixtures::shell(". ./src/run.sh")).text("watch", "src");
    let mut daemon = start(
        home,
        &app.set("max_restarts", 2).set("exp_backoff_restart_delay", 1),
        &["unstable", "gave up", "given up", "exit"],
    );
    daemon.wait_status("api", "errored");
    holds_for(ms(500), "it waits for the next change", || daemon.runs());
    write(src.join("run.sh"), "while :; do sleep 0.05; done");
    daemon.wait_online("api", 1);
    daemon.run(&["stop", "api"]).expect_code(0);
    write(src.join("run.sh"), "while :; do sleep 0.06; done");
    holds_for(EFFECT, "it was stopped", || daemon.app("api").status == "stopped");
}

#[test]
fn a_version_that_does_not_start_leaves_the_old_one_serving() {
    let home = Home::new(None);
    let src = home.apps().join("src");
    fs::create_dir(&src).expect("a fresh home");
    let good = "echo READY=1 >&2; while :; do sleep 0.05; done";
    write(src.join("run.sh"), good);
    let app = App::new("api", &fixtures::shell(". ./src/run.sh")).instances(1).text("watch", "src");
    let daemon = start(
        home,
        &app.text("ready", "exec").text("min_uptime", "300ms"),
        &["reload to generation 2 failed", "exit"],
    );
    let before = daemon.wait_online("api", 1);
    write(src.join("run.sh"), "exit 7");
    daemon.wait_for_text("reload to generation 2 failed");
    assert_eq!(daemon.pids("api"), before);
    write(src.join("run.sh"), good);
    wait_until(ms(20_000), "the next one", || {
        let now = daemon.pids("api");
        now.len() == 1 && now != before
    });
}

/// It writes into its own folder whenever it starts.
#[test]
fn an_app_that_changes_its_own_files_is_told_of_and_replaced_ever_more_rarely() {
    let (daemon, src) = {
        let home = Home::new(None);
        let src = home.apps().join("src");
        fs::create_dir(&src).expect("a fresh home");
        let writes = fixtures::shell("date +%s%N >src/state; while :; do sleep 0.05; done");
        let app = App::new("api", &writes).text("watch", "src").set("watch_delay", 50);
        (start(home, &app, &["its files change each time"]), src)
    };
    daemon.wait_online("api", 1);
    write(src.join("edited"), "1");
    daemon.wait_for_text("its files change each time that it is started, at last src/state changed");
    let soon = generation(&daemon);
    holds_for(ms(3000), "it slows down", || generation(&daemon) < soon + 8);
}

/// One save right after a start, the next when that has long been ready, and so on: no start is followed by the same.
#[test]
fn who_saves_often_is_answered_each_time() {
    let (daemon, src) = watching(|app| {
        app.instances(1).text("ready", "exec").text("min_uptime", "600ms").set("watch_delay", 50)
    });
    let mut number = 0;
    let mut save = || {
        number += 1;
        write(src.join("server.js"), &number.to_string());
    };
    for round in 0..4 {
        let before = generation(&daemon);
        save();
        wait_until(ms(20_000), "a new worker", || generation(&daemon) > before);
        save();
        wait_generation(&daemon, before + 2);
        assert!(!daemon.log().contains("its files change each time"), "round {round}: {}", daemon.log());
    }
}

#[test]
fn a_burst_of_ten_thousand_files_is_one_reload_and_commands_go_on() {
    let (daemon, src) = watching(|app| app.set("watch_delay", 500));
    for folder in 0..100 {
        let folder = src.join(format!("folder{folder}"));
        fs::create_dir(&folder).expect("a fresh name");
        for file in 0..100 {
            write(folder.join(format!("file{file}")), "");
        }
    }
    wait_generation(&daemon, 2);
    let ping = daemon.quickest(&["ping"]);
    assert!(ping.took < ms(2_000), "{ping:?}");
    write(src.join("folder99/file99"), "1");
    daemon.wait_for_text("watch: src/folder99/file99 changed");
    wait_generation(&daemon, 3);
}

#[test]
fn another_watch_holds_from_the_next_apply_on_and_replaces_nobody() {
    let (daemon, src) = watching(|app| app);
    let before = daemon.pids("api");
    let file = daemon.home.file().display().to_string();
    daemon.home.write(&idle("src").set("watch", false).to_string());
    daemon.run(&["apply", &file]).expect_code(0);
    write(src.join("server.js"), "2");
    holds_for(EFFECT, "nobody watches", || daemon.pids("api") == before);
    daemon.home.write(&idle("src/lib").to_string());
    daemon.run(&["apply", &file]).expect_code(0);
    write(src.join("server.js"), "3");
    holds_for(EFFECT, "it is not below", || daemon.pids("api") == before);
    write(src.join("lib/a.js"), "3");
    daemon.wait_for_text("watch: src/lib/a.js changed");
}

/// The rest goes on: a developer's convenience is no reason to fail.
#[test]
fn a_host_without_watches_left_is_told_of_and_the_app_goes_on() {
    let limit = "echo 3 >/proc/sys/user/max_inotify_watches && exec \"$@\"";
    let wrap = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"];
    let mut trial = Command::new(wrap[0]);
    if !trial.args(&wrap[1..]).arg("true").output().is_ok_and(|output| output.status.success()) {
        return support::skip("no user namespace can be made, or not be limited");
    }
    let home = Home::new(None);
    for folder in 0..10 {
        fs::create_dir_all(home.apps().join(format!("src/{folder}"))).expect("a fresh home");
    }
    let daemon =
        Builder::new(idle("src")).wrap(&wrap).expects(&["watch has no effect"]).start_in(Arc::new(home));
    daemon.wait_online("api", 1);
    daemon.wait_for_text("watch has no effect, its files are not watched");
    daemon.wait_for_text("sysctl fs.inotify.max_user_watches=");
    write(daemon.home.apps().join("src/a.js"), "1");
    holds_for(EFFECT, "it is not watched, and runs", || {
        generation(&daemon) == 1 && daemon.app("api").status == "online"
    });
}

#[test]
fn a_value_that_is_none_is_refused_with_its_place_and_what_to_write() {
    for (line, parts) in [
        ("watch = \"true\"", ["ecosystem.toml:4:9", "watch", "write true without quotes"]),
        (
            "watch = [\"src\", \"!src/x\"]",
            ["ecosystem.toml:4:", "watch", "name it in ignore_watch = [\"src/x\"]"],
        ),
        ("watch = \"src/*.{js\"", ["ecosystem.toml:4:9", "watch", "a backslash takes the meaning"]),
        ("watch = 3", ["ecosystem.toml:4:9", "watch", "true for the working directory"]),
        (
            "ignore_watch = [\"a[\"]",
            ["ecosystem.toml:4:16", "ignore_watch", "patterns are those of .gitignore"],
        ),
        ("watch_delay = \"2h\"", ["ecosystem.toml:4:15", "watch_delay", "a time from 1ms to 1h"]),
    ] {
        let home = Home::new(None);
        home.write(&format!("[[apps]]\nname = \"api\"\nscript = \"sleep 1000\"\n{line}\n"));
        let file = home.file().display().to_string();
        clusterd(&home, &["validate", &file]).expect_code(2).expect_stderr(&parts);
    }
}
