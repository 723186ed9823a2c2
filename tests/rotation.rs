//! Log files as they are kept: which there are, what becomes of them while workers write.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::path::Path;
use std::time::Duration;

use support::{App, Daemon, file, fixtures, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fork(name: &str, line: &str) -> App {
    App::new(name, &fixtures::shell(line)).text("exec_mode", "fork")
}

fn read(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).unwrap_or_default()).expect("these workers write text")
}

/// The lines of a file in their order by text, once it has so many.
fn lines_of(path: &Path, count: usize) -> Vec<String> {
    let lines = || read(path).lines().map(str::to_owned).collect::<Vec<String>>();
    wait_until(ms(20_000), &format!("{count} lines in {}", path.display()), || lines().len() >= count);
    let mut lines = lines();
    lines.sort();
    lines
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_default();
    let entries: Vec<std::fs::DirEntry> = entries;
    let mut names: Vec<String> =
        entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const BOTH: &str = "echo out $NODE_APP_INSTANCE; echo err $NODE_APP_INSTANCE >&2; exec sleep 1000";

#[test]
fn a_log_file_has_the_lines_of_both_outputs() {
    let own = fork("own", BOTH).text("log_file", "all.log");
    let usual = fork("usual", BOTH).set("log_file", true);
    let only = fork("only", BOTH)
        .text("log_file", "only.log")
        .text("out_file", "NULL")
        .text("error_file", "/dev/null");
    let same = fork("same", BOTH).text("log_file", "same.log").text("out_file", "same.log");
    let daemon = Daemon::foreground(file(&[own, usual, only, same]));
    let (apps, logs) = (daemon.home.apps(), daemon.home.path().join("logs"));
    for path in [apps.join("all.log"), logs.join("usual.log"), apps.join("only.log"), apps.join("same.log")] {
        assert_eq!(lines_of(&path, 2), ["err 0", "out 0"], "{}", path.display());
    }
    assert_eq!(lines_of(&logs.join("own-out.log"), 1), ["out 0"]);
    assert_eq!(lines_of(&logs.join("own-error.log"), 1), ["err 0"]);
    assert!(names(&logs).iter().all(|name| !name.starts_with("only")), "{:?}", names(&logs));
    let shown = daemon.run(&["describe", "own"]).expect_code(0).stdout;
    assert!(shown.contains("all.log"), "{shown}");
}

#[test]
fn merged_logs_are_one_file_for_all_workers() {
    let merged = App::new("merged", &fixtures::shell(BOTH)).instances(3).set("merge_logs", true);
    let apart = App::new("apart", &fixtures::shell(BOTH)).instances(2).set("log_file", true);
    let daemon = Daemon::foreground(file(&[merged, apart]));
    let logs = daemon.home.path().join("logs");
    assert_eq!(lines_of(&logs.join("merged-out.log"), 3), ["out 0", "out 1", "out 2"]);
    assert_eq!(lines_of(&logs.join("merged-error.log"), 3), ["err 0", "err 1", "err 2"]);
    assert_eq!(lines_of(&logs.join("apart-1.log"), 2), ["err 1", "out 1"]);
    assert!(!logs.join("merged-out-0.log").exists());
}

#[test]
fn disabled_logs_write_no_file_and_are_shown_all_the_same() {
    let app = fork("api", BOTH).set("disable_logs", true).text("out_file", "named.log").set("log_file", true);
    let daemon = Daemon::foreground(app);
    daemon.wait_for_text("api-0 | out 0");
    let logs = daemon.run(&["logs", "api", "--no-follow"]).expect_code(0).stdout;
    assert!(logs.contains("err 0"), "{logs}");
    assert!(!daemon.home.apps().join("named.log").exists());
    let logs = daemon.home.path().join("logs");
    assert!(names(&logs).iter().all(|name| !name.starts_with("api")), "{:?}", names(&logs));
}

#[test]
fn workers_that_run_take_over_where_their_output_is_kept() {
    let line = "while :; do echo tick $$; sleep 0.05; done";
    let app = |merged: bool| App::new("api", &fixtures::shell(line)).instances(2).set("merge_logs", merged);
    let daemon = Daemon::foreground(app(false));
    let pids = daemon.wait_online("api", 2);
    let logs = daemon.home.path().join("logs");
    wait_until(ms(20_000), "a file for each", || read(&logs.join("api-out-1.log")).contains("tick"));
    daemon.home.write(&app(true).to_string());
    let plan = daemon.run(&["apply", &daemon.home.file().display().to_string()]).expect_code(0);
    assert!(plan.stdout.contains("adjust"), "{plan:?}");
    let merged = logs.join("api-out.log");
    wait_until(ms(20_000), "both in one file", || {
        pids.iter().all(|pid| read(&merged).contains(&format!("tick {pid}\n")))
    });
    assert_eq!(daemon.wait_online("api", 2), pids);
    let before = read(&logs.join("api-out-1.log"));
    wait_until(ms(20_000), "more lines", || read(&merged).lines().count() > 20);
    assert_eq!(read(&logs.join("api-out-1.log")), before);
}
