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

/// What lies in a folder under a log file's name: the text of the old files in the order of time, then the file's.
fn all_text(path: &Path) -> Vec<String> {
    let base = path.file_name().expect("a file").to_string_lossy().into_owned();
    let folder = path.parent().expect("a folder");
    let mut old: Vec<String> =
        names(folder).into_iter().filter(|name| name.starts_with(&format!("{base}."))).collect();
    let mark = |name: &String| {
        let mark = name.trim_end_matches(".gz").to_owned();
        let (stamp, number) = mark.rsplit_once("Z-").unwrap_or((mark.trim_end_matches('Z'), "0"));
        (stamp.to_owned(), number.parse::<u32>().expect("a number"))
    };
    old.sort_by_key(mark);
    let text = |name: &String| match name.ends_with(".gz") {
        true => unpacked(&folder.join(name)),
        false => read(&folder.join(name)),
    };
    let mut texts: Vec<String> = old.iter().map(text).collect();
    texts.push(read(path));
    texts
}

fn unpacked(path: &Path) -> String {
    let output = std::process::Command::new("gzip").arg("-dc").arg(path).output().expect("gzip runs");
    assert!(output.status.success(), "{}: {output:?}", path.display());
    String::from_utf8(output.stdout).expect("these workers write text")
}

/// Writes so many numbered lines as fast as it can, says so, and stays.
fn counting(lines: u32) -> String {
    format!(
        "seq -f 'line %08.0f of a worker that says a little more than needed' {lines}; touch done-$$; exec sleep 1000"
    )
}

fn wait_written(daemon: &Daemon, count: usize) {
    let done = || names(&daemon.home.apps()).iter().filter(|name| name.starts_with("done-")).count();
    wait_until(ms(60_000), "workers that have written all", || done() == count);
}

#[test]
fn a_rotation_under_load_loses_and_tears_no_line() {
    const LINES: u32 = 100_000;
    let app = fork("api", &counting(LINES)).text("log_max_size", "64K").set("log_max_files", 1000);
    let daemon = Daemon::foreground(app.set("log_compress", true));
    wait_written(&daemon, 1);
    let path = daemon.home.path().join("logs/api-out.log");
    let folder = path.parent().expect("a folder").to_owned();
    let settled = || {
        let names = names(&folder);
        let old = names.iter().filter(|name| name.starts_with("api-out.log."));
        old.clone().count() > 50 && old.clone().all(|name| name.ends_with(".gz"))
    };
    wait_until(ms(60_000), "old files that are compressed", || {
        settled() && all_text(&path).iter().map(|text| text.lines().count()).sum::<usize>() == LINES as usize
    });
    let texts = all_text(&path);
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
    for (number, line) in lines.iter().enumerate() {
        let expected = format!("line {:08} of a worker that says a little more than needed", number + 1);
        assert_eq!(*line, expected);
    }
    assert!(texts.iter().all(|text| text.len() <= 64 * 1024 && text.ends_with('\n')));
}

#[test]
fn workers_that_share_a_file_rotate_it_once_and_the_oldest_go() {
    const LINES: u32 = 20_000;
    let app = App::new("api", &fixtures::shell(&counting(LINES)))
        .instances(4)
        .set("merge_logs", true)
        .text("log_max_size", "256K")
        .set("log_max_files", 3)
        .set("log_compress", false);
    let daemon = Daemon::foreground(app);
    wait_written(&daemon, 4);
    let path = daemon.home.path().join("logs/api-out.log");
    let old = || {
        let names = names(path.parent().expect("a folder"));
        names.into_iter().filter(|name| name.starts_with("api-out.log.")).count()
    };
    wait_until(ms(60_000), "no more old files than wanted", || old() == 3);
    for text in all_text(&path) {
        assert!(text.len() <= 256 * 1024 && (text.is_empty() || text.ends_with('\n')));
        assert!(text.lines().all(|line| line.len() == 61 && line.starts_with("line 000")), "a torn line");
    }
    // One that every writer renamed would be all but empty.
    let sizes: Vec<usize> = all_text(&path).iter().map(String::len).collect();
    assert!(sizes[..3].iter().all(|size| *size > 128 * 1024), "{sizes:?}");
}

/// Fault 47: logrotate, an operator's mv and rm.
#[test]
fn a_file_that_somebody_else_moves_or_removes_is_begun_anew() {
    let line = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.01; done";
    let daemon = Daemon::foreground(fork("api", line));
    let path = daemon.home.path().join("logs/api-out.log");
    wait_until(ms(20_000), "lines", || read(&path).lines().count() > 10);
    let moved = path.with_extension("log.1");
    std::fs::rename(&path, &moved).expect("it is there");
    wait_until(ms(20_000), "lines in a new file", || read(&path).lines().count() > 10);
    let both = read(&moved) + &read(&path);
    for (number, line) in both.lines().enumerate() {
        assert_eq!(line, format!("line {number}"));
    }
    std::fs::remove_file(&path).expect("it is there");
    wait_until(ms(20_000), "lines in a third file", || read(&path).lines().count() > 10);
    let names = names(path.parent().expect("a folder"));
    assert!(names.iter().all(|name| !name.contains("log.2")), "{names:?}");
}

#[test]
fn a_folder_that_takes_no_other_name_costs_a_warning_and_no_line() {
    let app = App::new("api", &fixtures::shell(&counting(5_000)))
        .text("exec_mode", "fork")
        .text("log_max_size", "64K")
        .text("out_file", &format!("{}.log", "n".repeat(245)));
    let daemon = Daemon::foreground(app);
    daemon.expects(&["cannot be rotated"]);
    wait_written(&daemon, 1);
    let path = daemon.home.apps().join(format!("{}.log", "n".repeat(245)));
    assert_eq!(lines_of(&path, 5_000).len(), 5_000);
}

#[test]
fn devices_and_pipes_are_written_to_and_never_rotated() {
    let app = fork("api", &counting(5_000)).text("log_max_size", "64K").text("out_file", "/dev/null");
    let second = fork("pipe", &counting(5_000)).text("log_max_size", "64K").text("out_file", "/dev/full");
    let daemon = Daemon::foreground(file(&[app, second]));
    daemon.expects(&["No space left on device"]);
    wait_written(&daemon, 2);
    assert!(names(Path::new("/dev")).iter().all(|name| !name.starts_with("full.")), "a device was renamed");
}

#[test]
fn flush_empties_the_files_of_those_who_are_meant() {
    let line = "echo begun; while :; do sleep 1000; done";
    let stopped = fork("stopped", line).text("out_file", "stopped.log");
    let daemon = Daemon::foreground(file(&[fork("api", line), fork("other", line), stopped]));
    let logs = daemon.home.path().join("logs");
    let (api, other) = (logs.join("api-out.log"), logs.join("other-out.log"));
    let stopped = daemon.home.apps().join("stopped.log");
    let has_line = |path: &Path| wait_until(ms(20_000), "a line", || read(path) == "begun\n");
    [&api, &other, &stopped].into_iter().for_each(|path| has_line(path));
    daemon.run(&["stop", "stopped"]).expect_code(0);
    daemon.run(&["flush", "api", "stopped"]).expect_code(0);
    assert_eq!([&api, &other, &stopped].map(|path| read(path)), ["", "begun\n", ""]);
    let shown = |name: &str| daemon.run(&["logs", name, "--no-follow"]).expect_code(0).stdout;
    assert!(!shown("api").contains("begun") && shown("other").contains("begun"));
    daemon.run(&["restart", "api"]).expect_code(0);
    has_line(&api);
    daemon.run(&["flush"]).expect_code(0);
    assert_eq!([&api, &other].map(|path| read(path)), ["", ""]);
    daemon.run(&["restart", "api"]).expect_code(0);
    has_line(&api);
    let kept = logs.join("kept.log");
    std::fs::rename(&api, &kept).expect("it is there");
    daemon.run(&["flush", "api"]).expect_code(0);
    assert_eq!([&kept, &api].map(|path| read(path)), ["begun\n", ""], "what was moved away is somebody's");
    daemon.run(&["flush", "nobody"]).expect_code(1);
}

#[test]
fn who_follows_hears_on_over_a_flush_and_a_rotation() {
    let line = "i=0; while :; do echo line $i; i=$((i+1)); head -c 3000 /dev/zero | tr '\\0' x; echo; done";
    let daemon = Daemon::foreground(fork("api", line).text("log_max_size", "64K").set("log_max_files", 2));
    let follower = daemon.spawn(&["logs", "api", "--lines", "0"]);
    let has = |count: usize| move |text: String| text.matches("line ").count() > count;
    wait_until(ms(20_000), "lines", || has(5)(follower.stdout()));
    daemon.run(&["flush", "api"]).expect_code(0);
    let before = follower.stdout().matches("line ").count();
    let logs = daemon.home.path().join("logs");
    let rotated = || names(&logs).iter().filter(|name| name.starts_with("api-out.log.")).count() >= 2;
    wait_until(ms(30_000), "rotations", rotated);
    wait_until(ms(20_000), "more lines", || has(before + 50)(follower.stdout()));
    assert!(daemon.run(&["logs", "api", "--no-follow"]).expect_code(0).stdout.contains("line "));
}

/// PM2's log-reload: its files are gone, and are there again with new lines.
#[test]
fn reload_logs_opens_files_that_were_removed() {
    let line = "while :; do echo out; echo err >&2; sleep 0.05; done";
    let daemon = Daemon::foreground(fork("echo", line));
    let logs = daemon.home.path().join("logs");
    let files = [logs.join("echo-out.log"), logs.join("echo-error.log")];
    let have_lines = || files.iter().all(|path| !read(path).is_empty());
    for verb in ["reload-logs", "reloadLogs"] {
        wait_until(ms(20_000), "lines in both files", have_lines);
        files.iter().for_each(|path| std::fs::remove_file(path).expect("it is there"));
        daemon.run(&[verb]).expect_code(0);
        assert!(files.iter().all(|path| path.exists()), "{verb}");
    }
    wait_until(ms(20_000), "lines in both files", have_lines);
}

/// PM2's records hold what it read at a time; here each line is one, also those of two outputs in one file.
#[test]
fn json_logs_are_one_object_for_each_line() {
    let line = r#"printf 'one\ntwo "quoted"\n\377\\\n'; echo err >&2; printf last; exec sleep 0.3"#;
    let app =
        fork("api", line).text("log_type", "json").text("log_file", "all.log").set("autorestart", false);
    let daemon = Daemon::foreground(file(&[app, fork("other", "exec sleep 1000")]));
    let path = daemon.home.apps().join("all.log");
    wait_until(ms(20_000), "five records", || read(&path).lines().count() >= 5);
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    let records: Vec<serde_json::Value> = read(&path).lines().map(parse).collect();
    let message = |kind: &str| -> Vec<String> {
        let of_kind = records.iter().filter(|record| record["type"] == kind);
        of_kind.map(|record| record["message"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(message("out"), ["one", "two \"quoted\"", r"\xff\\", "last"]);
    assert_eq!(message("err"), ["err"]);
    let id = daemon.app("api").workers[0].id;
    for record in &records {
        assert_eq!((&record["app_name"], &record["instance"]), (&"api".into(), &0.into()));
        assert_eq!(record["process_id"], id);
        let timestamp = record["timestamp"].as_str().expect("text");
        assert!(
            timestamp.len() == 24 && timestamp.starts_with("20") && timestamp.ends_with('Z'),
            "{timestamp}"
        );
        assert_eq!(record.get("escaped").is_some(), record["message"] == r"\xff\\");
    }
    assert_eq!(read(&daemon.home.path().join("logs/api-error.log")).lines().count(), 1);
    let shown = daemon.run(&["logs", "api", "--no-follow"]).expect_code(0).stdout;
    assert!(shown.contains("two \"quoted\"") && !shown.contains("app_name"), "{shown}");
}

/// PM2 loses what stands after the last newline of what it read: here nothing is.
#[test]
fn each_line_stands_behind_its_date_and_none_is_lost() {
    let line = "printf 'abc\\ndef'; sleep 0.3; echo ghi; printf half; exec sleep 0.3";
    let app = |name: &str| fork(name, line).set("autorestart", false);
    let dated = app("dated").text("log_date_format", "YYYY [at] HH:mm Z");
    let timed = app("timed").set("time", true);
    let daemon = Daemon::foreground(file(&[dated, timed, fork("other", "exec sleep 1000")]));
    let year = |text: &str| text.starts_with("20") && text.bytes().take(4).all(|byte| byte.is_ascii_digit());
    for (name, middle, length) in
        [("dated", " at ", "2026 at 08:40 +00:00: ".len()), ("timed", "T", "2026-11-23T08:40:12: ".len())]
    {
        let path = daemon.home.path().join(format!("logs/{name}-out.log"));
        wait_until(ms(20_000), "all of it", || read(&path).ends_with("half"));
        let text = read(&path);
        let lines: Vec<&str> = text.lines().map(|line| &line[length..]).collect();
        assert_eq!(lines, ["abc", "defghi", "half"]);
        assert!(text.lines().all(|line| year(line) && line[..length].contains(middle)), "{text}");
    }
}

#[test]
fn a_wrong_pattern_of_dates_is_an_error_at_its_key() {
    let home = support::Home::new(None);
    home.write(&fork("api", "true").text("log_date_format", "%Y-%m-%d").to_string());
    let refused = home.run(&["validate", &home.file().display().to_string()]).expect_code(2);
    refused.expect_stderr(&[
        "log_date_format",
        "\"Y\" stands for no part of a date",
        "YYYY-MM-DD HH:mm:ss.SSS Z",
    ]);
}

/// The numbers that a text of numbered lines has, with those that its notices stand for: how many lines are missing,
/// and what comes after them.
fn counted(text: &str) -> (u32, u32) {
    let (mut next, mut missing) = (1, 0);
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("[clusterd] ") {
            assert!(told.ends_with(" left out: over log_rate_limit"), "{line}");
            let lines: u32 = told.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
            (next, missing) = (next + lines, missing + lines);
        } else {
            assert_eq!(line.parse(), Ok(next), "a line is missing, torn or out of order");
            next += 1;
        }
    }
    (next - 1, missing)
}

#[test]
fn what_is_over_the_limit_is_left_out_by_whole_lines_and_counted_where_it_is_missing() {
    const LINES: u32 = 200_000;
    let line = format!("seq 1 {LINES}; touch done-1; exec sleep 1000");
    let app = fork("api", &line).text("log_rate_limit", "1000/2s");
    let json = fork("json", "seq 1 500; exec sleep 1000").set("log_rate_limit", 100).text("log_type", "json");
    let daemon = Daemon::foreground(file(&[app, json]));
    wait_written(&daemon, 1);
    // Nothing comes any more: what is missing at the end is told all the same.
    let path = daemon.home.path().join("logs/api-out.log");
    wait_until(ms(20_000), "a word on every line", || counted(&read(&path)).0 == LINES);
    let (_, missing) = counted(&read(&path));
    assert!(missing > LINES / 2, "only {missing} of {LINES} lines were left out");
    let described = daemon.run(&["describe", "api", "--json"]).expect_code(0).stdout;
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    let detail = &described["apps"][0]["detail"];
    assert_eq!(detail["log_lines_left_out"], missing, "{detail}");
    assert_eq!(detail["settings"]["log_rate_limit"], "1000/2s");
    let shown = daemon.run(&["logs", "api", "--no-follow"]).expect_code(0).stdout;
    assert!(shown.contains("left out: over log_rate_limit"), "{shown}");
    let json = daemon.home.path().join("logs/json-out.log");
    wait_until(ms(20_000), "a word on it as JSON", || read(&json).contains("left out"));
    let records = read(&json);
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    let notice =
        records.lines().map(parse).find(|r| r["message"].as_str().is_some_and(|m| m.contains("left")));
    assert_eq!(notice.expect("there is one")["app_name"], "json");
}

#[test]
fn a_change_of_the_limit_holds_for_workers_that_run() {
    let line = "while :; do seq 1 200; sleep 0.1; done";
    let app = |limit: &str| fork("api", line).text("log_rate_limit", limit);
    let daemon = Daemon::foreground(app("10/1h"));
    let pids = daemon.wait_online("api", 1);
    let path = daemon.home.path().join("logs/api-out.log");
    wait_until(ms(20_000), "the first lines", || read(&path).lines().count() == 10);
    daemon.home.write(&fork("api", line).to_string());
    daemon.run(&["apply", &daemon.home.file().display().to_string()]).expect_code(0);
    wait_until(ms(20_000), "lines without a limit", || read(&path).lines().count() > 1000);
    assert!(read(&path).contains("left out: over log_rate_limit"), "what was left out before is told");
    assert_eq!(daemon.wait_online("api", 1), pids);
}

#[test]
fn all_old_files_of_an_app_together_keep_to_their_limit_and_the_oldest_go() {
    const LIMIT: u64 = 400 * 1024;
    let line = "seq -f 'line %08.0f of a worker that says a little more than needed' 20000 >&2; \
                seq -f 'line %08.0f of a worker that says a little more than needed' 20000; \
                touch done-$$; exec sleep 1000";
    let app = |name: &str| {
        let app = App::new(name, &fixtures::shell(line)).instances(2).text("log_max_size", "64K");
        app.set("log_max_files", 1000).set("log_compress", false)
    };
    let daemon = Daemon::foreground(file(&[app("api").set("log_total_size", LIMIT), app("other")]));
    wait_written(&daemon, 4);
    let logs = daemon.home.path().join("logs");
    let old = |app: &str| {
        let names = names(&logs).into_iter().filter(|name| name.starts_with(app) && name.contains(".log."));
        names.collect::<Vec<_>>()
    };
    let taken = |names: &[String]| {
        names.iter().filter_map(|name| std::fs::metadata(logs.join(name)).ok()).map(|m| m.len()).sum::<u64>()
    };
    // An old file has 64 KiB less a line at most.
    wait_until(ms(60_000), "old files within their limit", || {
        let taken = taken(&old("api"));
        taken <= LIMIT && taken > LIMIT - 65 * 1024
    });
    assert!(taken(&old("other")) > 4 * 1024 * 1024, "another app's files went");
    // All of standard error came before standard output.
    assert!(old("api").iter().all(|name| name.starts_with("api-out-")), "{:?}", old("api"));
    for instance in [0, 1] {
        let last = read(&logs.join(format!("api-error-{instance}.log")));
        assert!(last.ends_with("line 00020000 of a worker that says a little more than needed\n"));
    }
}

/// Those of workers that a supervisor before this one had.
#[test]
fn old_files_of_instances_that_are_gone_count_for_the_limit_too() {
    let home = std::sync::Arc::new(support::Home::new(None));
    let logs = home.path().join("logs");
    std::fs::create_dir(&logs).expect("the home is fresh");
    let [gone, error, foreign] = ["api-out-3.log", "api-error-0.log", "other-out-3.log"]
        .map(|base| logs.join(format!("{base}.20260101T000000Z.gz")));
    for path in [&gone, &error, &foreign] {
        std::fs::write(path, vec![b'x'; 100 * 1024]).expect("it is ours");
    }
    let app = fork("api", "echo one; exec sleep 1000").text("log_total_size", "64K");
    let daemon = support::daemon::Builder::new(app).start_in(home);
    daemon.wait_online("api", 1);
    wait_until(ms(20_000), "both files gone", || !gone.exists() && !error.exists());
    assert!(foreign.exists(), "another app's file went");
}

#[test]
fn a_file_that_is_old_is_begun_anew_without_another_line() {
    let daemon = Daemon::foreground(fork("api", "echo one; exec sleep 1000").text("log_max_age", "1s"));
    let logs = daemon.home.path().join("logs");
    let old =
        || names(&logs).into_iter().find(|name| name.starts_with("api-out.log.") && name.ends_with(".gz"));
    wait_until(ms(20_000), "an old file", || old().is_some());
    assert_eq!(unpacked(&logs.join(old().expect("it is there"))), "one\n");
    assert_eq!(read(&logs.join("api-out.log")), "");
}

/// Members of the group that may read a log file may read what was rotated of it.
#[test]
fn a_rotated_file_and_its_compressed_one_keep_owner_group_and_permissions() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    if !support::root() {
        return support::skip("only root can give files away");
    }
    let home = std::sync::Arc::new(support::Home::new(None));
    let logs = home.path().join("logs");
    std::fs::create_dir(&logs).expect("the home is fresh");
    let live = logs.join("api-out.log");
    std::fs::write(&live, "").expect("it is ours");
    chown(&live, Some(4711), Some(4)).expect("root gives files away");
    std::fs::set_permissions(&live, std::fs::Permissions::from_mode(0o640)).expect("it is ours");
    let app = fork("api", &counting(10_000)).text("log_max_size", "64K");
    let daemon = support::daemon::Builder::new(app).start_in(home);
    daemon.wait_online("api", 1);
    let compressed = || names(&logs).into_iter().find(|name| name.ends_with(".gz"));
    wait_until(ms(30_000), "a compressed file", || compressed().ok_or("none yet"));
    for name in ["api-out.log".to_owned(), compressed().expect("it stays")] {
        let found = std::fs::metadata(logs.join(&name)).expect("it is there");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (4711, 4, 0o640), "{name}");
    }
}
