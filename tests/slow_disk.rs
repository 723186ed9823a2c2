//! A disk that hangs: whoever writes to it waits, and nobody else. strace holds the write calls of the thread that
//! writes there, and of no other, until the test lets go of it.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::daemon::{exists, state_and_parent};
use support::strace::hang;
use support::wait::holds_for;
use support::{App, Daemon, Load, file, fixtures, free_port, skip, wait_until};
use tempfile::TempDir;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fork(name: &str, line: &str) -> App {
    App::new(name, &fixtures::shell(line)).text("exec_mode", "fork")
}

/// Prints as fast as it is read, and says elsewhere how far it is.
const FLOOD: &str =
    "i=0; while :; do seq -f 'line %.0f of a flood' $i $((i+4999)); i=$((i+5000)); echo $i > count; done";

/// One line, and another one each time that `more` is there.
const TICK: &str = "echo tick; while :; do if rm more 2>/dev/null; then echo more; fi; sleep 0.02; done";

/// A folder on another disk than that of /tmp, where homes are.
fn other_disk() -> Option<TempDir> {
    let device = |path: &str| fs::metadata(path).map(|meta| meta.dev()).ok();
    if device("/dev/shm").is_none() || device("/dev/shm") == device("/tmp") {
        skip("/dev/shm is no other disk than /tmp");
        return None;
    }
    Some(tempfile::tempdir_in("/dev/shm").expect("everybody may write there"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// The thread of a supervisor that has this file open, and nothing else does.
fn writer_of(pid: i32, path: &Path) -> i32 {
    let holds = |thread: &PathBuf| {
        let open = fs::read_dir(thread.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == path)
    };
    let threads = || -> Vec<PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
        tasks.map(|entry| entry.path()).filter(holds).collect()
    };
    wait_until(ms(20_000), "one thread that has the file open", || match threads().as_slice() {
        [one] => Some(one.file_name()?.to_str()?.parse().ok()?),
        _ => None,
    })
}

/// The numbers in a flood's lines follow each other from 0 on; how many there are. The last may be cut by its end.
fn count_of_flood(text: &str) -> usize {
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {number} of a flood"));
    }
    lines.len()
}

/// Fault 48.
#[test]
fn a_disk_that_hangs_holds_nobody_but_those_who_write_to_it() {
    let Some(disk) = other_disk() else { return };
    let slow = disk.path().join("slow.log");
    let port = free_port();
    let daemon = Daemon::foreground(file(&[
        fork("slow", FLOOD).text("out_file", &slow.display().to_string()).set("log_max_size", 0),
        fork("tick", TICK),
        App::new("web", &fixtures::worker(&["serve"])).instances(2).port(port),
    ]));
    daemon.expects(&["its disk takes nothing", "ended by SIGKILL"]);
    let flood = daemon.wait_online("slow", 1)[0];
    daemon.wait_online("web", 2);
    let tick = daemon.home.path().join("logs/tick-out.log");
    wait_until(ms(20_000), "lines of both", || size(&slow) > 0 && read(&tick).contains("tick"));
    let resident = daemon.resident();
    let Some(held) = hang(writer_of(daemon.pid, &slow)) else { return };
    let count = || read(&daemon.home.apps().join("count")).trim().parse::<usize>().unwrap_or(0);
    let mut last = (0, size(&slow));
    wait_until(ms(60_000), "a worker that waits for its disk", || {
        let before = std::mem::replace(&mut last, (count(), size(&slow)));
        daemon.run(&["ping"]).expect_code(0);
        if before == last { Ok(()) } else { Err(last) }
    });
    let hanging = size(&slow);
    assert!(daemon.resident() < resident + 24 * 1024, "{} KiB", daemon.resident() - resident);

    let load = Load::on(port).clients(2).keep_alive(ms(10)).start();
    daemon.run(&["reload", "web"]).expect_code(0);
    load.stop().expect_none_lost();
    daemon.run(&["restart", "tick"]).expect_code(0);
    wait_until(ms(10_000), "the last line of another disk", || read(&tick).matches("tick").count() == 2);
    fs::write(daemon.home.apps().join("more"), "").expect("the folder is ours");
    wait_until(ms(10_000), "a line of another disk", || read(&tick).contains("more"));
    daemon.run(&["list"]).expect_code(0);
    daemon.run(&["flush", "tick"]).expect_code(0);
    assert_eq!(size(&tick), 0);
    daemon.wait_for_text("its disk takes nothing; workers that print to files there wait for it");
    // Who waits for its disk can be ended.
    let printed = count();
    daemon.run(&["stop", "slow"]).expect_code(0);
    assert!(!exists(flood));
    assert!(daemon.resident() < resident + 24 * 1024, "{} KiB", daemon.resident() - resident);
    assert_eq!(size(&slow), hanging, "it did not hang all the time");

    held.lift();
    daemon.wait_for_text("its disk takes what is written again");
    let text = read(&slow);
    assert!(count_of_flood(&text) >= printed, "{printed} lines were printed, {} bytes are there", text.len());
}

/// Fault 48: what is asked of a file is answered when it is done, and a worker that waited goes on where it was.
#[test]
fn a_disk_that_takes_lines_again_gets_all_of_them_in_order() {
    let Some(disk) = other_disk() else { return };
    let slow = disk.path().join("slow.log");
    let daemon = Daemon::foreground(file(&[
        fork("slow", FLOOD).text("out_file", &slow.display().to_string()).set("log_max_size", 0),
        fork("tick", TICK),
    ]));
    daemon.expects(&["its disk takes nothing"]);
    daemon.wait_online("slow", 1);
    wait_until(ms(20_000), "its lines", || size(&slow) > 0);
    let count = || read(&daemon.home.apps().join("count")).trim().parse::<usize>().unwrap_or(0);
    for _ in 0..2 {
        let Some(held) = hang(writer_of(daemon.pid, &slow)) else { return };
        let mut last = 0;
        wait_until(ms(60_000), "a worker that waits for its disk", || {
            let before = std::mem::replace(&mut last, count());
            daemon.run(&["ping"]).expect_code(0);
            before == last
        });
        let mut reopened = daemon.spawn(&["reload-logs"]);
        holds_for(ms(200), "no answer before it is done", || reopened.runs());
        held.lift();
        daemon.home.finish(reopened).expect_code(0);
        wait_until(ms(20_000), "a worker that goes on", || count() > last);
    }
    daemon.run(&["stop", "slow"]).expect_code(0);
    let (text, printed) = (read(&slow), count());
    assert!(count_of_flood(&text) >= printed, "{printed} lines were printed, {} bytes are there", text.len());
}

/// Fault 48: the supervisor's own log is one of those files.
#[test]
fn a_supervisor_whose_own_log_hangs_does_what_it_is_told_and_ends() {
    let (daemon, _) = Daemon::background(fork("tick", TICK));
    let own = daemon.home.path().join("logs/clusterd.log");
    daemon.expects(&["its disk takes nothing", "could not be written in time"]);
    daemon.wait_online("tick", 1);
    // The same thread has it, and what else lies on that disk. Standard error leads there as well.
    let thread = writer_of(daemon.pid, &daemon.home.path().join("logs/tick-out.log"));
    let Some(held) = hang(thread) else { return };
    let before = read(&own);
    daemon.run(&["restart", "tick"]).expect_code(0);
    daemon.run(&["stop", "tick"]).expect_code(0);
    assert_eq!(daemon.app("tick").status, "stopped");
    daemon.run(&["start", "tick"]).expect_code(0);
    daemon.wait_online("tick", 1);
    assert_eq!(read(&own), before, "it did not hang");
    held.lift();
    wait_until(ms(10_000), "what was said meanwhile", || read(&own).matches("ended by SIGINT").count() >= 2);
    let Some(_held) = hang(thread) else { return };
    daemon.run(&["restart", "tick"]).expect_code(0);
    let ended = daemon.run(&["kill"]).expect_code(0);
    assert!(ended.stdout.contains("bytes could not be written in time and are lost"), "{ended:?}");
    // Not our child: who reaps it may take its time.
    let is_over = || state_and_parent(daemon.pid).is_none_or(|(state, _)| state == 'Z');
    wait_until(ms(10_000), "the supervisor's end", is_over);
}
