//! A control group for each worker, where the supervisor was given one to divide: born in it, ended as one, removed
//! after it; and everything as without where it was not.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clusterd::control::protocol::{GroupInfo, List};
use nix::sys::signal::Signal;
use support::daemon::{Builder, exists, send};
use support::delegated::mounted;
use support::wait::holds_for;
use support::{App, Daemon, Delegated, Fixture, Home, file, fixtures, free_port, wait_until};

const SOON: Duration = Duration::from_secs(15);

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

fn within(group: &Delegated, text: impl ToString) -> Builder {
    Builder::new(text).wrap(&words(&group.enter()))
}

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

fn idle(name: &str) -> App {
    fork(name, &fixtures::worker(&["idle"]))
}

/// In which group of version 2 a process is.
fn group_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    text.lines().find_map(|line| line.strip_prefix("0::")).expect("there is version 2").to_owned()
}

fn described(daemon: &Daemon, app: &str) -> Vec<GroupInfo> {
    let output = daemon.run(&["describe", app, "--json"]).expect_code(0);
    let mut list: List = serde_json::from_str(&output.stdout).expect("JSON");
    list.apps.remove(0).detail.expect("it was asked for").groups
}

/// What the supervisor says of control groups, in the report that people send.
fn told(daemon: &Daemon) -> String {
    let output = daemon.run(&["report"]).expect_code(0);
    let line = output.stdout.lines().find_map(|line| line.strip_prefix("control groups "));
    line.expect("it is told").to_owned()
}

#[test]
fn each_worker_is_born_in_a_group_of_its_own_that_goes_when_it_is_gone() {
    let Some(group) = Delegated::new() else { return };
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(free_port());
    let daemon = within(&group, app).start();
    let pids = daemon.wait_online("api", 2);
    assert_eq!(group_of(daemon.pid), format!("{}/supervisor", group.name()));
    assert_eq!(group.members(""), Vec::<i32>::new(), "a group that is divided has nobody in it");
    let groups = ["worker-api-0-g1-1", "worker-api-1-g1-2"];
    assert_eq!(group.groups(), groups);
    for (pid, name) in pids.iter().zip(groups) {
        assert_eq!(group_of(*pid), format!("{}/{name}", group.name()));
    }
    let paths: Vec<String> = described(&daemon, "api").into_iter().map(|group| group.path).collect();
    assert_eq!(paths, groups.map(|name| group.path().join(name).display().to_string()));
    let text = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    assert!(text.contains("control group") && text.contains(&paths[1]), "{text}");
    assert!(told(&daemon).starts_with(&format!("on, in {}", group.path().display())));

    daemon.run(&["reload", "api"]).expect_code(0);
    wait_until(SOON, "the old groups are gone", || {
        let groups = group.groups();
        let is_new = groups.len() == 2 && groups.iter().all(|name| name.contains("-g2-"));
        if is_new { Ok(()) } else { Err(groups) }
    });
    daemon.run(&["stop", "api"]).expect_code(0);
    wait_until(SOON, "no groups", || if group.groups().is_empty() { Ok(()) } else { Err(group.groups()) });
}

/// Where clone3(2) is refused, as by older container profiles, it goes there by itself before it is executed.
#[test]
fn a_worker_that_cannot_be_born_in_its_group_goes_there() {
    let Some(group) = Delegated::new() else { return };
    let refused = support::host::refusing(&[(libc::SYS_clone3, libc::ENOSYS)]);
    let Some(mut line) = refused else { return };
    line.splice(0..0, group.enter());
    let app = fork("api", &fixtures::shell("sleep 1000 & exec sleep 1000"));
    let daemon = Builder::new(app).wrap(&words(&line)).start();
    let pid = daemon.wait_online("api", 1)[0];
    assert_eq!(group_of(pid), format!("{}/worker-api-0-g1-1", group.name()));
    wait_until(SOON, "its child, too", || group.members("worker-api-0-g1-1").len() == 2);
}

/// Leaves session, parent and environment behind again and again, so that nothing tells whose it is, and hears no
/// signal that can be ignored.
const CHAIN: &str = "import os, signal, sys, time
for ignored in (signal.SIGINT, signal.SIGTERM):
    signal.signal(ignored, signal.SIG_IGN)
if os.fork():
    while len(sys.argv) == 2:
        time.sleep(1)
    os._exit(0)
os.setsid()
time.sleep(0.002)
os.execve(sys.executable, [sys.executable, os.path.abspath('chain.py'), sys.argv[1], 'next'], {'HIDES': 'yes'})
";

/// Everybody on this host whose arguments have this word.
fn alive(word: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").expect("it is mounted").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|part| part == word.as_bytes())
    };
    pids.filter(has).collect()
}

/// Moves one of the bomb, and so all that comes of it, into a group within that of its worker: it is not listed there.
fn hide_deeper(group: &Delegated, word: &str) {
    let name = group.groups().into_iter().find(|name| name.starts_with("worker-bomb")).expect("it runs");
    let inner = group.path().join(name).join("inner");
    fs::create_dir(&inner).expect("the group is ours");
    let mut moved = Vec::new();
    wait_until(SOON, "what comes of one that was moved there", || {
        let inside = fs::read_to_string(inner.join("cgroup.procs")).unwrap_or_default();
        if inside.lines().any(|line| line.parse().is_ok_and(|pid: i32| !moved.contains(&pid))) {
            return true;
        }
        // It may be gone in this moment, or have its successor already.
        let next = alive("next");
        let bomb = alive(word).into_iter().filter(|pid| next.contains(pid));
        moved.extend(bomb.filter(|pid| fs::write(inner.join("cgroup.procs"), pid.to_string()).is_ok()));
        false
    });
}

/// Fault 21: what forks faster than anybody looks, and hides from every look, is ended at once and whole, and what was
/// not killed is known to live on.
#[test]
fn a_fork_bomb_is_ended_whole_by_its_group_however_it_hides() {
    let Some(group) = Delegated::new() else { return };
    let Some(python) = support::runtime("python3") else { return };
    let home = Arc::new(Home::new(None));
    home.put("chain.py", CHAIN);
    let word = format!("bomb-{}", free_port());
    let command = Fixture::new(&[&python.display().to_string(), "chain.py", &word]);
    let bomb = fork("bomb", &command).text("kill_timeout", "300ms");
    let daemon = within(&group, file(&[bomb, idle("other")])).start_in(home);
    daemon.expects(&["did not end in kill_timeout"]);
    let other = daemon.wait_online("other", 1);
    for _ in 0..3 {
        wait_until(SOON, "the bomb", || alive(&word).len() >= 2);
        hide_deeper(&group, &word);
        let list = daemon.quickest(&["list"]);
        assert!(list.took < Duration::from_secs(2), "the owner waits: {list:?}");
        daemon.run(&["stop", "bomb"]).expect_code(0);
        assert_eq!(alive(&word), Vec::<i32>::new(), "stopped means that nothing of it is left");
        wait_until(SOON, "its group is gone", || group.groups() == ["worker-other-0-g1-2"]);
        daemon.run(&["start", "bomb"]).expect_code(0);
    }
    assert_eq!(daemon.pids("other"), other);
}

/// What a worker leaves in its group keeps it there, whoever's child that is, and is ended with it.
#[test]
fn a_worker_is_gone_when_its_group_is_empty() {
    let Some(group) = Delegated::new() else { return };
    let daemon = within(&group, file(&[idle("api").text("kill_timeout", "30s"), idle("other")])).start();
    daemon.wait_online("api", 1);
    // Nobody else's: whose end only the kernel tells.
    let mut stranger = Stranger::new("trap '' INT TERM; while :; do sleep 0.02; done");
    group.put("worker-api-0-g1-1", stranger.pid());
    let stop = daemon.spawn(&["stop", "api"]);
    daemon.wait_for_text("was ended by SIGINT");
    holds_for(Duration::from_millis(300), "it is not gone yet", || daemon.app("api").status != "stopped");
    stranger.end();
    daemon.home.finish(stop).expect_code(0);
    wait_until(SOON, "its group is gone", || group.groups() == ["worker-other-0-g1-2"]);
}

/// A process of the test's own.
struct Stranger(Child);

impl Stranger {
    fn new(line: &str) -> Stranger {
        Stranger(Command::new("sh").args(["-c", line]).spawn().expect("there is sh"))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("process ids are positive")
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.end();
    }
}

/// `treekill = false`: the group ends nobody, and stays as long as somebody is in it.
#[test]
fn without_treekill_the_group_stays_until_the_last_one_has_left_it() {
    let Some(group) = Delegated::new() else { return };
    let word = format!("10{}", free_port());
    let line = format!("setsid -f sleep {word}; trap '' INT; while :; do sleep 0.05; done");
    let app = || fork("api", &fixtures::shell(&line)).set("treekill", false).text("kill_timeout", "200ms");
    let daemon = within(&group, app()).start();
    daemon.expects(&["did not end in kill_timeout"]);
    let leader = daemon.wait_online("api", 1)[0];
    let helper = wait_until(SOON, "the helper", || alive(&word).first().copied());
    assert_eq!(group_of(helper), format!("{}/lasting-api-0-g1-1", group.name()));
    let inner = group.path().join("lasting-api-0-g1-1/inner");
    fs::create_dir(&inner).expect("the group is ours");
    daemon.run(&["stop", "api"]).expect_code(0);
    assert!(!exists(leader) && exists(helper));
    assert!(inner.exists(), "a group of the helper's is removed under it");
    // Nor does a supervisor that comes after one that was killed end it.
    let daemon = within(&group, app()).start_in(daemon.kill_hard());
    daemon.expects(&["did not end in kill_timeout"]);
    daemon.wait_online("api", 1);
    assert!(exists(helper), "ended by the next supervisor");
    assert_eq!(group.groups(), ["lasting-api-0-g1-1", "lasting-api-0-g1-1.2"]);
    alive(&word).into_iter().for_each(|helper| send(helper, Signal::SIGKILL));
    wait_until(SOON, "the first group is gone", || group.groups().len() == 1);
    daemon.run(&["stop", "api"]).expect_code(0);
    wait_until(SOON, "and the second", || group.groups().is_empty());
}

/// What hid from the look for what a killed supervisor left is found in the groups of that.
#[test]
fn groups_of_a_supervisor_that_was_killed_are_cleared_with_who_is_in_them() {
    let Some(group) = Delegated::new() else { return };
    let word = format!("20{}", free_port());
    let line = format!("env -i setsid -f sleep {word}; exec sleep 1000");
    let daemon = within(&group, fork("api", &fixtures::shell(&line))).start();
    daemon.wait_online("api", 1);
    let hidden = wait_until(SOON, "the hidden one", || alive(&word).first().copied());
    fs::create_dir(group.path().join("worker-api-0-g1-1/inner")).expect("the group is ours");
    let home = daemon.kill_hard();
    let daemon = within(&group, idle("other")).expects(&["was left behind by a supervisor"]).start_in(home);
    daemon.wait_online("other", 1);
    assert!(!alive(&word).contains(&hidden), "it lives on beside its successor");
    assert_eq!(group.groups(), ["worker-other-0-g1-1"]);
}

/// What others run in a group of such a name, where they were given the same place, is theirs.
#[test]
fn a_group_of_another_that_is_called_like_a_workers_is_left_alone() {
    let Some(group) = Delegated::new() else { return };
    fs::create_dir(group.path().join("worker-a")).expect("the group is ours");
    let stranger = Stranger::new("exec sleep 1000");
    group.put("worker-a", stranger.pid());
    let daemon = within(&group, idle("api")).start();
    daemon.wait_online("api", 1);
    assert_eq!(group.members("worker-a"), [stranger.pid()], "it was ended");
    assert_eq!(group.groups(), ["worker-a", "worker-api-0-g1-1"]);
}

/// Fault 31: somebody else removes groups and fills them; workers come up all the same, each in a group or told of.
#[test]
fn groups_that_others_remove_and_fill_are_made_anew() {
    let Some(group) = Delegated::new() else { return };
    let crashes = fork("crashes", &fixtures::shell("sleep 0.01; exit 1")).text("restart_delay", "1ms");
    let crashes = crashes.set("max_restarts", 100_000).set("exp_backoff_restart_delay", 0);
    let api = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(free_port());
    let daemon = within(&group, file(&[api, crashes])).start();
    daemon.expects(&["control group", "times in the last", "unstable exits", "crash"]);
    let over = AtomicBool::new(false);
    let removed = std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let mut removed = 0;
            while !over.load(Ordering::Relaxed) {
                for name in group.groups() {
                    removed += u32::from(fs::remove_dir(group.path().join(name)).is_ok());
                }
            }
            removed
        });
        for _ in 0..3 {
            daemon.run(&["reload", "api"]).expect_code(0);
        }
        wait_until(SOON, "restarts", || daemon.app("crashes").workers[0].restarts > 50);
        over.store(true, Ordering::Relaxed);
        remover.join().expect("it does not panic")
    });
    assert!(removed > 0, "nothing was removed under it");
    for pid in daemon.wait_online("api", 2) {
        let place = group_of(pid);
        let is_told = daemon.log().contains("in no control group of its own");
        assert!(place.contains("/worker-api-") || is_told, "{place}: {}", daemon.log());
    }
    // Somebody in the group that was divided, and groups within a worker's.
    let stranger = Stranger::new("exec sleep 1000");
    group.put("", stranger.pid());
    for name in group.groups().iter().filter(|name| name.starts_with("worker-api")) {
        fs::create_dir_all(group.path().join(name).join("a/b")).expect("the group is ours");
    }
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.run(&["delete", "all"]).expect_code(0);
    wait_until(SOON, "no groups", || if group.groups().is_empty() { Ok(()) } else { Err(group.groups()) });
    assert!(exists(stranger.pid()), "one that is none of ours was ended");
}

/// Starts a supervisor behind this line, and tells what it says of control groups.
fn behind(line: &[String]) -> String {
    let app = idle("api").set("pids_max", 50);
    let daemon = Builder::new(app).wrap(&words(line)).start();
    daemon.expects(&["pids_max bounds nothing here"]);
    daemon.wait_online("api", 1);
    let told = told(&daemon);
    let is_bounded = told.starts_with("on, ") && told.contains("pids") && !told.contains("pids is off");
    let is_told = daemon.log().contains("api: pids_max bounds nothing here: ");
    assert!(is_told != is_bounded, "{told}: {}", daemon.log());
    daemon.run(&["stop", "api"]).expect_code(0);
    told
}

/// In a namespace of mounts of its own, after these commands.
fn mounting(group: &Delegated, options: &[&str], commands: &str) -> Vec<String> {
    let line = format!("{commands} && exec \"$@\"");
    let mut words = group.enter();
    words.push("unshare".to_owned());
    words.extend(options.iter().chain(&["--mount", "sh", "-c", &line, "mount"]).map(|&word| word.to_owned()));
    words
}

/// Fault 30: without a group that was given to it the supervisor says why there are none, what an app asked for and
/// does not get, and everything else works.
#[test]
fn where_no_groups_can_be_had_the_reason_is_told_and_the_rest_works() {
    let Some(unmarked) = Delegated::unmarked() else { return };
    let told = behind(&unmarked.enter());
    assert!(told.starts_with("off: nobody gave it its own group, /") && told.contains("Delegate="), "{told}");
    assert_eq!(unmarked.groups(), Vec::<String>::new(), "a group that nobody gave is not touched");
    assert!(!unmarked.path().join("supervisor").exists());

    let Some(group) = Delegated::new() else { return };
    let place = mounted().expect("it was found");
    let place = place.display();
    let told = behind(&mounting(&group, &[], &format!("umount {place}")));
    assert_eq!(told, "off: control groups of version 2 are not mounted here");
    let told = behind(&mounting(&group, &[], &format!("mount -o remount,bind,ro {place}")));
    assert!(told.starts_with("off: no group can be made in ") && told.contains("Read-only"), "{told}");
    let told = behind(&mounting(&group, &["--cgroup"], "true"));
    assert!(told.starts_with("off: its own group (/) lies outside"), "{told}");

    let stranger = Stranger::new("exec sleep 1000");
    group.put("", stranger.pid());
    let told = behind(&group.enter());
    assert!(told.starts_with(&format!("off: pid {}, which is none of ours", stranger.pid())), "{told}");
    assert_eq!(group_of(stranger.pid()), group.name(), "it was moved");
}

/// Fault 30, where they can: version 2 beside version 1, in the place of it, and in a namespace of its own.
#[test]
fn groups_are_found_wherever_version_2_is_mounted() {
    let Some(group) = Delegated::new() else { return };
    let place = mounted().expect("it was found");
    let place = place.display();
    let name = group.name();
    if Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        let told = behind(&group.enter());
        assert!(told.starts_with(&format!("on, in /sys/fs/cgroup{name}")), "{told}");
    } else {
        let told = behind(&group.enter());
        assert!(told.starts_with(&format!("on, in {place}{name}, without limits; cpu is off: ")), "{told}");
        assert!(told.contains("it belongs to version 1 on this host"), "{told}");
        let told = behind(&mounting(&group, &[], "mount -t cgroup2 none /sys/fs/cgroup"));
        assert!(told.starts_with(&format!("on, in /sys/fs/cgroup{name}")), "{told}");
    }
    let anew = format!("umount {place} && mount -t cgroup2 none {place}");
    let told = behind(&mounting(&group, &["--cgroup"], &anew));
    assert!(told.starts_with(&format!("on, in {place}, ")), "{told}");
}

/// Fault 30, as the first process of a container whose engine lets it write its groups, without systemd's mark; but not
/// where others of the host are in them.
#[test]
fn the_first_process_of_a_container_divides_its_group() {
    let Some(group) = Delegated::unmarked() else { return };
    let place = mounted().expect("it was found");
    let (place, folder) = (place.display(), group.path().display());
    let mounts = "mount -t proc proc /proc && umount PLACE && mount -t cgroup2 none PLACE && exec \"$@\"";
    let mounts = mounts.replace("PLACE", &place.to_string());
    let enter = format!(
        "echo 0 > {folder}/cgroup.procs && exec unshare --cgroup --mount sh -c '{mounts}' mount \"$@\""
    );
    let line = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", &enter, "enter"];
    let line = line.map(str::to_owned);
    let told = behind(&line);
    assert!(told.starts_with(&format!("on, in {place}, ")), "{told}");
    let stranger = Stranger::new("exec sleep 1000");
    wait_until(SOON, "an empty group", || fs::remove_dir(group.path().join("supervisor")).is_ok());
    group.put("", stranger.pid());
    let told = behind(&line);
    assert!(told.starts_with("off: a process of elsewhere, which is none of ours, is in"), "{told}");
}
