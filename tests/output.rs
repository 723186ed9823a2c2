//! What workers print: every byte kept, nothing of it ever stops the supervisor or a worker.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::daemon::{Builder, cpu_ticks, exists};
use support::wait::holds_for;
use support::{App, Daemon, Fixture, Hammer, file, fixtures, free_port, root, skip, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

/// The supervisor answers soon, and does not spin.
fn is_well(daemon: &Daemon) {
    let output = daemon.quickest(&["list", "--json"]);
    assert!(output.took < ms(1_000), "{output:?}");
}

#[test]
fn lines_in_the_foreground_carry_app_and_instance() {
    let line = "echo to out; echo to err >&2; printf 'no newline'; exec sleep 1000";
    let daemon = Daemon::foreground(App::new("api", &fixtures::shell(line)).instances(2));
    for instance in [0, 1] {
        for text in ["to out", "to err"] {
            daemon.wait_for_text(&format!("api-{instance} | {text}\n"));
        }
    }
    assert!(!daemon.output().contains('\u{1b}'), "colour off a terminal");
}

#[test]
fn files_have_the_names_of_the_contract() {
    let line = "echo to out; echo to err >&2; exec sleep 1000";
    let one = fork("one", &fixtures::shell(line));
    let two = App::new("two", &fixtures::shell(line)).instances(2);
    let named =
        fork("named", &fixtures::shell(line)).text("out_file", "my-out.log").text("error_file", "my-err.log");
    let discarded = fork("discarded", &fixtures::shell(line)).text("out_file", "/dev/null");
    let daemon = Daemon::foreground(file(&[one, two, named, discarded]));
    let logs = daemon.home.path().join("logs");
    let apps = daemon.home.apps();
    let expected: [(PathBuf, &str); 6] = [
        (logs.join("one-out.log"), "to out\n"),
        (logs.join("one-error.log"), "to err\n"),
        (logs.join("two-out-0.log"), "to out\n"),
        (logs.join("two-out-1.log"), "to out\n"),
        (apps.join("my-out.log"), "to out\n"),
        (apps.join("my-err.log"), "to err\n"),
    ];
    for (path, text) in expected {
        wait_until(ms(10_000), &format!("{text:?} in {}", path.display()), || read(&path) == text.as_bytes());
    }
    assert!(!logs.join("discarded-out.log").exists());
}

/// What is not a whole line yet is in the file soon, and once; who takes lines gets them whole.
#[test]
fn a_prompt_without_a_newline_is_seen_in_its_file() {
    let line = "printf 'Pass'; printf 'word: '; while [ ! -e go ]; do sleep 0.02; done; echo thanks; exec sleep 1000";
    let api = fork("api", &fixtures::shell(line));
    // Of lines in another form, and of those in a file for several, nothing but whole ones.
    let json = fork("json", &fixtures::shell(line)).text("log_type", "json");
    let merged = App::new("merged", &fixtures::shell(line)).instances(2).set("merge_logs", true);
    let daemon = Daemon::foreground(file(&[api, json, merged]));
    let stored = |name: &str| {
        let path = daemon.home.path().join(format!("logs/{name}-out.log"));
        String::from_utf8_lossy(&read(&path)).into_owned()
    };
    wait_until(ms(10_000), "the prompt", || stored("api") == "Password: ");
    holds_for(ms(300), "nothing of the others", || (stored("json") + &stored("merged")).is_empty());
    assert!(!daemon.output().contains("Password"), "half a line: {}", daemon.output());
    std::fs::write(daemon.home.apps().join("go"), "").expect("the folder is ours");
    daemon.wait_for_text("api-0    | Password: thanks\n");
    wait_until(ms(10_000), "the whole line", || stored("api") == "Password: thanks\n");
    wait_until(ms(10_000), "its lines", || stored("merged") == "Password: thanks\n".repeat(2));
    wait_until(ms(10_000), "its line", || stored("json").matches("Password: thanks\"").count() == 1);
}

#[test]
fn no_log_files_writes_none() {
    let daemon = Builder::new(fork("api", &fixtures::shell("echo hello; exec sleep 1000")))
        .argument("--no-log-files")
        .start();
    daemon.wait_for_text("api-0 | hello");
    let logs = daemon.home.path().join("logs");
    let names: Vec<_> =
        std::fs::read_dir(logs).map(|entries| entries.flatten().collect()).unwrap_or_default();
    assert!(names.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with("api")), "{names:?}");
}

#[test]
fn the_last_words_of_a_crash_are_kept() {
    let line = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; printf 'last words'; exit 3";
    let app = fork("api", &fixtures::shell(line)).set("max_restarts", 1);
    let daemon = Daemon::foreground(file(&[app, fork("other", &fixtures::worker(&["idle"]))]));
    daemon.expects(&["exited with code 3 ", "unstable exits in a row"]);
    daemon.wait_status("api", "errored");
    let text = String::from_utf8_lossy(&read(&daemon.home.path().join("logs/api-out.log"))).into_owned();
    assert!(text.starts_with("line 0\n") && text.contains("line 499\nlast words"), "{} bytes", text.len());
}

/// Fault 45, everywhere: a device that is always full.
#[test]
fn a_full_disk_stops_no_worker() {
    let counting = "i=0; while :; do echo \"line $i of a worker that must never block\"; i=$((i+1)); echo $i > count; done";
    let app = fork("api", &fixtures::shell(counting)).text("out_file", "/dev/full");
    let daemon = Builder::new(app).stdout(Stdio::null()).start();
    daemon.expects(&["No space left on device"]);
    let pids = daemon.wait_online("api", 1);
    let count = || {
        String::from_utf8_lossy(&read(&daemon.home.apps().join("count"))).trim().parse::<u64>().unwrap_or(0)
    };
    // Several times what a pipe and any queue hold.
    wait_until(ms(60_000), "a worker that goes on", || count() > 20_000);
    is_well(&daemon);
    assert_eq!(daemon.wait_online("api", 1), pids);
    let notices = daemon.log().matches("No space left").count();
    assert!((1..20).contains(&notices), "{notices} notices");
}

/// A small file system, unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf) -> Mount {
        std::fs::create_dir(&path).expect("the folder is fresh");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&path).status();
        assert!(status.expect("mount is everywhere").success());
        Mount(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fault 45: it resumes by itself, and says how much is missing.
#[test]
fn writing_resumes_when_the_disk_has_room_again() {
    if !root() {
        return skip("only root can mount a small file system");
    }
    let home = std::sync::Arc::new(support::Home::new(None));
    // Dropped before the home, whose folder cannot be removed with something mounted in it.
    let mount = Mount::new(home.apps().join("small"));
    let filler = mount.0.join("filler");
    std::fs::write(&filler, vec![0; 200 * 1024]).expect("it fits");
    let line = "i=0; while [ $i -lt 4000 ]; do echo \"line $i of many that do not fit\"; i=$((i+1)); done; \
                touch full; while [ ! -e go ]; do sleep 0.02; done; while :; do echo room again; sleep 0.1; done";
    let app = fork("api", &fixtures::shell(line)).text("out_file", "small/out.log");
    let daemon = Builder::new(app).stdout(Stdio::null()).start_in(std::sync::Arc::clone(&home));
    daemon.expects(&["No space left on device", "written again, dropped lines"]);
    wait_until(ms(60_000), "a worker that has printed it all", || daemon.home.apps().join("full").exists());
    is_well(&daemon);
    std::fs::remove_file(&filler).expect("it is ours");
    daemon.home.put("go", "");
    let stored = || String::from_utf8_lossy(&read(&mount.0.join("out.log"))).into_owned();
    wait_until(ms(20_000), "the line after the gap", || {
        let text = stored();
        if text.contains("room again") {
            return Ok(());
        }
        Err(format!("{} lines, the last {:?}", text.lines().count(), text.lines().last()))
    });
    let stored = stored();
    // What is there is whole lines in their order, and the gap says how many are not.
    let notice =
        stored.lines().position(|line| line.contains("dropped")).expect("a count of what is missing");
    assert!(
        stored.lines().take(notice).enumerate().all(|(at, line)| line.starts_with(&format!("line {at} ")))
    );
    drop(daemon);
}

/// Fault 49.
#[test]
fn a_stalled_and_then_vanished_reader_of_the_output_stops_nobody() {
    let (reader, writer) = std::io::pipe().expect("descriptors are left");
    let port = free_port();
    let chatty = fork("chatty", &fixtures::worker(&["flood"])).text("out_file", "/dev/null");
    let quiet = App::new("quiet", &fixtures::worker(&["serve"])).instances(2).port(port);
    let daemon = Builder::new(file(&[chatty, quiet])).stdout(Stdio::from(writer)).start();
    daemon.wait_online("quiet", 2);
    let hammer = Hammer::start(port);
    hammer.wait_answers(100);
    is_well(&daemon);
    drop(reader);
    hammer.wait_answers(100);
    holds_for(ms(300), "the supervisor lives", || exists(daemon.pid));
    is_well(&daemon);
    daemon.run(&["reload", "quiet"]).expect_code(0);
    hammer.stop().expect_none_lost();
    assert!(daemon.log().len() < 64 * 1024, "an error storm of {} bytes", daemon.log().len());
}

/// Fault 50.
#[test]
fn ten_floods_leave_the_supervisor_answering() {
    let flood = App::new("flood", &fixtures::worker(&["flood"])).instances(10).text("exec_mode", "fork");
    let flood =
        flood.text("out_file", "/dev/null").text("error_file", "/dev/null").text("kill_timeout", "500ms");
    let daemon = Builder::new(flood).stdout(Stdio::null()).start();
    daemon.wait_online("flood", 10);
    let best = daemon.quickest(&["list"]).took;
    assert!(best < ms(300), "{best:?}");
    let before = daemon.resident();
    holds_for(ms(1_000), "bounded memory", || daemon.resident() < before + 32 * 1024);
    let output = daemon.run(&["stop", "all"]).expect_code(0);
    assert!(output.took < ms(8_000), "{output:?}");
    assert!(daemon.workers().is_empty());
}

/// Fault 51.
#[test]
fn a_gigabyte_without_a_newline_takes_bounded_memory() {
    let bytes = (1_u64 << 30).to_string();
    let app = fork("api", &fixtures::worker(&["no-newline", &bytes])).text("out_file", "/dev/null");
    let daemon = Builder::new(app).stdout(Stdio::null()).start();
    daemon.wait_online("api", 1);
    let before = daemon.resident();
    wait_until(ms(120_000), "the line after the long one", || {
        let grown = daemon.resident().saturating_sub(before);
        assert!(grown < 16 * 1024, "{grown} KiB for one line");
        daemon.run(&["logs", "api", "--lines", "3", "--nostream"]).stdout.contains("after the long line")
    });
}

/// Fault 52.
#[test]
fn binary_output_is_stored_as_it_came_and_shown_with_care() {
    let daemon = Daemon::foreground(fork("api", &fixtures::worker(&["binary"])));
    let path = daemon.home.path().join("logs/api-out.log");
    let every: Vec<u8> = (0..=255).filter(|&byte| byte != b'\n').collect();
    let lines: [&[u8]; 4] =
        [&every, b"\x1b[31mred\x1b[0m\x1b]0;title\x07", b"\xff\xfe\xc3\x28", b"end of binary"];
    let expected: Vec<u8> = lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
    wait_until(ms(10_000), "every byte in the file", || {
        let stored = read(&path);
        if stored == expected { Ok(()) } else { Err(format!("{} of {} bytes", stored.len(), expected.len())) }
    });
    let output = daemon.run(&["logs", "api", "--nostream", "--json"]).expect_code(0);
    for line in output.stdout.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    }
    assert!(output.stdout.contains("end of binary"), "{output:?}");
}

/// What collectors of containers' logs read: nothing on either output is anything else.
#[test]
fn with_json_each_line_of_the_foreground_is_an_object() {
    let app = fork("api", &fixtures::worker(&["binary"])).text("namespace", "shop");
    let daemon = Builder::new(app).argument("--json").start();
    daemon.wait_for_text("end of binary");
    let objects = |text: &str| -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        text.lines().map(parse).collect()
    };
    let (lines, log) = (objects(&daemon.output()), objects(&daemon.log()));
    let of = |line: &serde_json::Value| {
        let head = ["type", "namespace", "app_name", "instance"].map(|key| line[key].to_string());
        head.join(" ")
    };
    assert!(lines.len() == 4 && lines.iter().all(|line| of(line) == r#""out" "shop" "api" 0"#), "{lines:#?}");
    assert_eq!((&lines[2]["message"], &lines[2]["escaped"]), (&"\\xff\\xfe\\xc3(".into(), &true.into()));
    let dates = lines.iter().chain(&log).map(|line| line["timestamp"].as_str().expect("each has one"));
    assert!(
        dates.clone().all(|date| humantime::parse_rfc3339(date).is_ok()),
        "{:?}",
        dates.collect::<Vec<_>>()
    );
    let own = |line: &serde_json::Value| line["type"] == "clusterd" && line["level"] == "info";
    assert!(!log.is_empty() && log.iter().all(own), "{log:#?}");
}

/// Fault 52: on a terminal, escapes are not the worker's to send.
#[test]
fn escapes_of_a_worker_do_not_reach_a_terminal() {
    if support::runtime("script").is_none() {
        return;
    }
    let daemon = Daemon::foreground(fork("api", &fixtures::worker(&["binary"])));
    daemon.wait_for_text("end of binary");
    let line = format!("{} logs api --nostream", daemon.home.binary().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("CLUSTERD_HOME", daemon.home.path()).stdin(Stdio::null());
    let output = command.output().expect("script is part of util-linux");
    assert!(String::from_utf8_lossy(&output.stdout).contains("end of binary"), "{output:?}");
    let shown = output.stdout;
    for never in [&b"\x1b]0;"[..], b"\x1b[31mred", b"\x07"] {
        assert!(!shown.windows(never.len()).any(|window| window == never), "{never:?} reached the terminal");
    }
}

/// Fault 53: ten of them, and the neighbour's requests and lines are as ever.
#[test]
fn floods_cost_the_quiet_neighbour_nothing() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let quiet = App::new("quiet", &node).instances(2).port(port);
    let lines = fork("lines", &fixtures::worker(&["print", "3000", "one of the quiet lines"]));
    let flood = App::new("flood", &fixtures::worker(&["flood"])).instances(10).text("exec_mode", "fork");
    let flood = flood.text("out_file", "/dev/null").text("kill_timeout", "500ms");
    let daemon = Builder::new(&quiet).stdout(Stdio::null()).start();
    daemon.wait_online("quiet", 2);
    let hammer = Hammer::start(port);
    hammer.wait_answers(300);
    let alone = hammer.stop().percentile(0.99);
    daemon.home.write(&file(&[quiet, flood, lines]));
    let path = daemon.home.file().display().to_string();
    daemon.run(&["start", &path, "--only", "flood,lines"]).expect_code(0);
    let hammer = Hammer::start(port);
    hammer.wait_answers(500);
    is_well(&daemon);
    daemon.run(&["reload", "quiet"]).expect_code(0);
    let history = hammer.stop();
    history.expect_none_lost();
    // Twelve processes that never rest share the host with it.
    assert!(history.percentile(0.99) < (20 * alone).max(ms(250)), "alone {alone:?}: {history:?}");
    let stored = daemon.home.path().join("logs/lines-out.log");
    wait_until(ms(20_000), "all lines of the quiet one", || {
        let text = std::fs::read_to_string(&stored).unwrap_or_default();
        let count = text.lines().filter(|line| line.starts_with("one of the quiet lines ")).count();
        if count == 3_000 { Ok(()) } else { Err(count) }
    });
}

/// Faults 50 and 53: what a reader did not take is counted where it is missing.
#[test]
fn what_a_stalled_reader_of_a_flood_misses_is_counted() {
    let (mut reader, writer) = std::io::pipe().expect("descriptors are left");
    let line =
        "i=0; while :; do i=$((i + 1)); echo \"number $i of a flood of lines that are all alike\"; done";
    let flood = fork("flood", &fixtures::shell(line)).text("out_file", "/dev/null");
    let daemon = Builder::new(flood.text("kill_timeout", "300ms")).stdout(Stdio::from(writer)).start();
    daemon.wait_online("flood", 1);
    // A worker is slowed down for a moment only: after it, its lines go on in the memory of last lines.
    wait_until(ms(60_000), "lines that no pipe can hold", || {
        let last = daemon.run(&["logs", "flood", "--lines", "1", "--nostream"]).stdout;
        last.split("number ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok())
            > Some(60_000)
    });
    let mut text = Vec::new();
    let mut part = [0; 65_536];
    let counted = loop {
        let count = reader.read(&mut part).expect("the supervisor writes");
        assert!(count > 0, "the supervisor closed its output");
        text.extend_from_slice(&part[..count]);
        let told = String::from_utf8_lossy(&text).into_owned();
        let notice = told.lines().rev().skip(2).find(|line| line.contains(" lines dropped: "));
        if let Some(notice) = notice {
            let words: Vec<String> = notice.split(' ').map(str::to_owned).collect();
            let counted: u64 = words[1].parse().expect("a number of lines");
            let number = |line: &str| line.split("number ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
            let (before, after) = told.split_once(notice).expect("it was found there");
            let last = before.lines().rev().find_map(number).expect("lines before the gap");
            let next = after.lines().find_map(number).expect("lines after the gap");
            assert_eq!(counted, next - last - 1, "{notice}");
            break counted;
        }
    };
    assert!(counted > 0);
}

#[test]
fn a_quiet_supervisor_uses_no_processor_time() {
    let daemon = Daemon::foreground(fork("api", &fixtures::worker(&["idle"])));
    daemon.wait_online("api", 1);
    let before = cpu_ticks(daemon.pid).expect("it runs");
    holds_for(ms(2_000), "the supervisor lives", || exists(daemon.pid));
    let used = cpu_ticks(daemon.pid).expect("it runs") - before;
    assert!(used <= 4, "{used} ticks of 10 ms in two seconds");
}

/// So many read(2) and the like a process has made (`syscr`, proc_pid_io(5)); none where that is not counted.
fn reads(pid: i32) -> Option<usize> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("syscr: ")?.parse().ok())
}

#[test]
fn single_lines_of_a_flood_are_read_by_the_hundred_and_later_ones_at_once() {
    let line = "i=0; while [ $i -lt 50000 ]; do echo $i; i=$((i + 1)); done; \
                until [ -e go ]; do sleep 0.1; done; echo later; echo again; exec sleep 1000";
    let app = fork("api", &fixtures::shell(line));
    let daemon = Builder::new(app).stdout(Stdio::null()).start();
    let stored = daemon.home.path().join("logs/api-out.log");
    let mut expected: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    wait_until(ms(60_000), "all lines of the flood", || read(&stored) == expected.as_bytes());
    if let Some(reads) = reads(daemon.pid) {
        assert!(reads < 10_000, "{reads} reads");
    }
    std::fs::write(daemon.home.apps().join("go"), "").expect("it is ours");
    expected += "later\nagain\n";
    wait_until(ms(10_000), "the lines after it", || read(&stored) == expected.as_bytes());
}

#[test]
fn output_through_a_pipe_arrives_whole() {
    let (mut reader, writer) = std::io::pipe().expect("descriptors are left");
    let app =
        fork("api", &fixtures::worker(&["print", "20000", "a line of some length, so that pipes fill"]));
    let daemon = Builder::new(app).stdout(Stdio::from(writer)).start();
    let mut text = Vec::new();
    let mut part = [0; 65_536];
    // A reader that reads loses nothing, however fast the worker is.
    while !String::from_utf8_lossy(&text[text.len().saturating_sub(200)..]).contains("fill 19999\n") {
        let count = reader.read(&mut part).expect("the supervisor writes");
        assert!(count > 0, "the supervisor closed its output");
        text.extend_from_slice(&part[..count]);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let whole =
        text.lines().filter(|line| line.starts_with("api-0 | a line of some length, so that pipes fill "));
    assert_eq!(whole.count(), 20_000);
    assert!(!text.contains("dropped"), "{text}");
    drop(daemon);
}
