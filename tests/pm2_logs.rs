//! What PM2's own tests ask of log files (tests/README.md has them by number).

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::daemon::BOOT;
use support::{App, Daemon, Home, file, fixtures, wait_until};

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn wait_text(path: &Path, what: &str, holds: impl Fn(&str) -> bool) {
    wait_until(BOOT, &format!("{what} in {}", path.display()), || {
        let text = read(path);
        if holds(&text) { Ok(()) } else { Err(text.lines().last().unwrap_or_default().to_owned()) }
    });
}

/// How an app keeps its logs.
#[derive(Clone, Copy)]
struct Kept {
    name: &'static str,
    cluster: bool,
    merged: bool,
    combined: bool,
}

impl Kept {
    const ALL: [Kept; 8] = [
        Kept::of("fork", false, false, false),
        Kept::of("fork-c", false, false, true),
        Kept::of("fork-m", false, true, false),
        Kept::of("fork-mc", false, true, true),
        Kept::of("cluster", true, false, false),
        Kept::of("cluster-c", true, false, true),
        Kept::of("cluster-m", true, true, false),
        Kept::of("cluster-mc", true, true, true),
    ];

    const fn of(name: &'static str, cluster: bool, merged: bool, combined: bool) -> Kept {
        Kept { name, cluster, merged, combined }
    }

    fn count(self) -> usize {
        if self.cluster { 2 } else { 1 }
    }

    /// Numbers its lines, of which each says whose it is.
    fn app(self) -> App {
        let line = "n=0; while :; do echo tick $$ $n; echo Error $$ $n >&2; n=$((n+1)); sleep 0.1; done";
        let app = App::new(self.name, &fixtures::shell(line)).text("namespace", "kept");
        let app = app.text("ready", "exec").text("min_uptime", "100ms").set("merge_logs", self.merged);
        let app = if self.cluster { app.instances(2) } else { app.text("exec_mode", "fork") };
        let file = |kind: &str| format!("own/{}-{kind}.log", self.name);
        let app = app.text("out_file", &file("out")).text("error_file", &file("err"));
        if self.combined { app.text("log_file", &file("both")) } else { app }
    }

    /// The file of this kind that a worker writes to.
    fn path(self, apps: &Path, kind: &str, instance: usize) -> PathBuf {
        let number = if self.cluster && !self.merged { format!("-{instance}") } else { String::new() };
        apps.join(format!("own/{}-{kind}{number}.log", self.name))
    }

    /// Waits until each worker's lines are where they belong, and nowhere else.
    fn wait_kept(self, daemon: &Daemon) {
        let apps = daemon.home.apps();
        for (instance, pid) in daemon.wait_online(self.name, self.count()).into_iter().enumerate() {
            let (tick, error) = (format!("tick {pid} "), format!("Error {pid} "));
            let (out, err) = (self.path(&apps, "out", instance), self.path(&apps, "err", instance));
            wait_text(&out, &tick, |text| text.contains(&tick));
            wait_text(&err, &error, |text| text.contains(&error));
            assert!(!read(&out).contains("Error") && !read(&err).contains("tick"), "{}", self.name);
            let both = self.path(&apps, "both", instance);
            if self.combined {
                wait_text(&both, "both", |text| text.contains(&tick) && text.contains(&error));
            }
            assert_eq!(both.exists(), self.combined, "{}", self.name);
        }
    }
}

#[test]
fn every_way_to_keep_logs_goes_on_over_reopening_restart_reload_and_flush() {
    let (daemon, output) = Daemon::background(file(&Kept::ALL.map(Kept::app)));
    output.expect_code(0);
    let all_kept = || Kept::ALL.iter().for_each(|kept| kept.wait_kept(&daemon));
    all_kept();
    let shown = daemon.run(&["jlist"]).expect_code(0).stdout;
    let processes: Vec<serde_json::Value> = serde_json::from_str(&shown).expect("JSON");
    for process in &processes {
        let combined = process["name"].as_str().is_some_and(|name| name.ends_with('c'));
        assert_eq!(process["pm2_env"]["pm_log_path"].is_string(), combined, "{process}");
    }
    for words in [["reload-logs"].as_slice(), &["restart", "kept"], &["reload", "kept"]] {
        daemon.run(words).expect_code(0);
        all_kept();
    }
    daemon.run(&["flush", "kept"]).expect_code(0);
    let entries = fs::read_dir(daemon.home.apps().join("own")).expect("it was made");
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_first = |line: &str| line.ends_with(" 0");
        assert!(!read(&path).lines().any(is_first), "{} was not emptied", path.display());
    }
    all_kept();
}

/// PM2's throw-later: what a worker says before it dies of an error, and of what.
#[test]
fn the_words_of_a_worker_that_dies_of_an_error_are_in_each_of_its_files() {
    let line = "echo tick 0; echo tick 100; sleep 0.2; echo 'Error: error has been caught' >&2; exit 1";
    let thrower = |name: &str| {
        let app = App::new(name, &fixtures::shell(line)).text("exec_mode", "fork");
        app.text("log_file", &format!("{name}.log")).set("exp_backoff_restart_delay", 1)
    };
    let (daemon, _) = Daemon::background(file(&[
        thrower("raw").set("max_restarts", 3),
        thrower("json").set("max_restarts", 3).text("log_type", "json"),
    ]));
    daemon.expects(&["exited with code 1 ", "unstable exits in a row"]);
    for name in ["raw", "json"] {
        daemon.wait_status(name, "errored");
        let (logs, both) = (daemon.home.path().join("logs"), daemon.home.apps().join(format!("{name}.log")));
        let count = |path: &Path, text: &str| read(path).matches(text).count();
        // The first life and its restarts.
        let lives = count(&both, "Error: error has been caught");
        assert!(lives >= 3, "{}", read(&both));
        assert_eq!(count(&both, "tick"), 2 * lives);
        assert_eq!(count(&logs.join(format!("{name}-out.log")), "tick 100"), lives);
        assert_eq!(count(&logs.join(format!("{name}-error.log")), "Error: error has been caught"), lives);
    }
}

#[test]
fn an_output_that_is_thrown_away_leaves_no_file_and_the_other_one_is_kept() {
    let line = "echo out; echo err >&2; exec sleep 1000";
    let mut apps = Vec::new();
    for (mode, instances) in [("fork", None), ("cluster", Some(1))] {
        for (word, null) in [("null", "NULL"), ("dev", "/dev/null")] {
            for (kind, keys) in [
                ("out", ["out_file"].as_slice()),
                ("err", &["error_file"]),
                ("both", &["out_file", "error_file"]),
            ] {
                let app = App::new(&format!("{mode}-{word}-{kind}"), &fixtures::shell(line))
                    .text("exec_mode", mode);
                let app = app.text("ready", "exec").text("min_uptime", "100ms");
                let app = instances.map_or(app.clone(), |count| app.instances(count));
                apps.push(keys.iter().fold(app, |app, key| app.text(key, null)));
            }
        }
    }
    let (daemon, output) = Daemon::background(file(&apps));
    output.expect_code(0);
    let logs = daemon.home.path().join("logs");
    for mode in ["fork", "cluster"] {
        for word in ["null", "dev"] {
            let path = |kind: &str, stream: &str| logs.join(format!("{mode}-{word}-{kind}-{stream}.log"));
            wait_text(&path("out", "error"), "its line", |text| text == "err\n");
            wait_text(&path("err", "out"), "its line", |text| text == "out\n");
            let discarded =
                [path("out", "out"), path("err", "error"), path("both", "out"), path("both", "error")];
            assert!(
                !discarded.iter().any(|path| path.exists()),
                "{:?}",
                fs::read_dir(&logs).map(Vec::from_iter)
            );
        }
    }
    assert!(!daemon.home.apps().join("NULL").exists());
}

const TICKING: &str = "#!/bin/sh\necho start\nwhile :; do echo tick; sleep 0.05; done\n";

#[test]
fn folders_of_a_log_file_are_made_however_many_are_missing() {
    let home = Arc::new(Home::new(None));
    home.put("tick.sh", TICKING);
    let deep = "1/2/3/4/5/6/7/8/9/10/11/12/out.log";
    let (daemon, output) = Daemon::started_by(home, &["start", "tick.sh", "-o", deep]);
    output.expect_code(0);
    wait_text(&daemon.home.apps().join(deep), "its first line", |text| text.starts_with("start\n"));
}

#[test]
fn a_namespace_is_followed_with_and_without_the_lines_before() {
    let app = |name: &str, word: &str, namespace: &str| {
        let ticks = format!("while :; do [ -e go ] && echo tick {word}; sleep 0.1; done");
        let app = App::new(name, &fixtures::shell(&format!("echo start {word}; {ticks}")));
        app.text("exec_mode", "fork").text("namespace", namespace)
    };
    let (daemon, output) =
        Daemon::background(file(&[app("one", "red", "front"), app("two", "blue", "back")]));
    output.expect_code(0);
    let remembered = || daemon.run(&["logs", "front", "--lines", "1000", "--no-follow"]).stdout;
    wait_until(BOOT, "its first line", || remembered().contains("start red"));
    let following = |lines: &str| daemon.spawn(&["logs", "front", "--lines", lines]);
    let mut both = [following("0"), following("1000")];
    daemon.home.put("go", "");
    for (following, has_start) in both.iter_mut().zip([false, true]) {
        wait_until(BOOT, "lines as they come", || following.stdout().matches("tick red").count() > 3);
        let text = following.stdout();
        assert!(!text.contains("blue"), "{text}");
        assert_eq!(text.contains("start red"), has_start, "{text}");
        following.child.kill().expect("it is our child");
        following.child.wait().expect("it is our child");
    }
}

/// A name that begins with digits is a name.
#[test]
fn flush_of_all_empties_every_file_and_of_one_app_its_own() {
    let app = |name: &str| {
        let line = format!("echo {name}; echo {name}-error >&2; exec sleep 1000");
        let app = App::new(name, &fixtures::shell(&line)).text("exec_mode", "fork");
        app.text("out_file", &format!("{name}-own.log")).text("error_file", &format!("{name}-bad.log"))
    };
    let names = ["echo", "001-test"];
    let (daemon, output) = Daemon::background(file(&names.map(app)));
    output.expect_code(0);
    let paths = |name: &str| ["own", "bad"].map(|kind| daemon.home.apps().join(format!("{name}-{kind}.log")));
    let filled = || {
        for name in names {
            let [own, bad] = paths(name);
            wait_text(&own, "its line", |text| text == format!("{name}\n"));
            wait_text(&bad, "its line", |text| text == format!("{name}-error\n"));
        }
    };
    let empty = |name: &str| paths(name).map(|path| read(&path).is_empty());
    filled();
    daemon.run(&["flush", "all"]).expect_code(0);
    assert_eq!(names.map(empty), [[true; 2]; 2]);
    daemon.run(&["restart", "all"]).expect_code(0);
    filled();
    daemon.run(&["flush", "001-test"]).expect_code(0);
    assert_eq!(names.map(empty), [[false; 2], [true; 2]]);
}
