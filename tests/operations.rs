//! Operations that meet: two commands at once, a program that is replaced under a reload, and a file that
//! is no file when it is read again.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use clusterd::control::protocol::{AppInfo, List};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use support::daemon::Running;
use support::hammer::body;
use support::{
    App, Daemon, Fixture, Hammer, Home, Load, ORDINARY, Output, file, fixtures, free_port, root, skip,
    wait_until,
};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Two workers of `api`, quick to replace.
fn api(fixture: &Fixture, port: u16) -> App {
    App::new("api", fixture).instances(2).port(port).text("min_healthy_time", "20ms")
}

/// What people do to an app that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Reload,
    Restart,
    Stop,
    Start,
    Up,
    Down,
    Delete,
}

const OPS: [Op; 7] = [Op::Reload, Op::Restart, Op::Stop, Op::Start, Op::Up, Op::Down, Op::Delete];

/// An app as these operations see it: for each of its slots whether a worker runs there; none when it is
/// not known.
type State = Option<Vec<bool>>;

impl Op {
    const fn line(self) -> &'static [&'static str] {
        match self {
            Op::Reload => &["reload", "api"],
            Op::Restart => &["restart", "api"],
            Op::Stop => &["stop", "api"],
            Op::Start => &["start", "api"],
            Op::Up => &["scale", "api", "+1"],
            Op::Down => &["scale", "api", "-1"],
            Op::Delete => &["delete", "api"],
        }
    }

    /// What it makes of this state when nothing else happens; none when it must fail there.
    fn after(self, state: &State) -> Option<State> {
        let slots = state.as_ref()?;
        let mut slots = slots.clone();
        match self {
            // The file is read again, and it says two.
            Op::Reload => slots = vec![true; 2],
            // It says no other number than before: what scale said holds.
            Op::Restart => slots.iter_mut().for_each(|runs| *runs = true),
            Op::Stop => slots.iter_mut().for_each(|runs| *runs = false),
            // What runs is restarted.
            Op::Start if slots.contains(&true) => slots = vec![true; 2],
            Op::Start => slots.iter_mut().for_each(|runs| *runs = true),
            // What is stopped stays so.
            Op::Up => slots.push(slots.contains(&true)),
            // One stays: none at all is what `stop` is for.
            Op::Down => slots.truncate(slots.len().saturating_sub(1).max(1)),
            Op::Delete => return Some(None),
        }
        Some(Some(slots))
    }

    /// Whether it may take the place of `earlier` before that is done, which is then told so.
    const fn overtakes(self, earlier: Op) -> bool {
        match self {
            Op::Stop => !matches!(earlier, Op::Stop | Op::Down | Op::Delete),
            Op::Delete => !matches!(earlier, Op::Delete),
            // Workers that `earlier` waits for are taken away again.
            Op::Down => matches!(earlier, Op::Restart | Op::Start | Op::Up),
            Op::Restart => matches!(earlier, Op::Reload | Op::Start | Op::Up),
            Op::Start => matches!(earlier, Op::Reload | Op::Restart | Op::Start | Op::Up),
            Op::Reload => matches!(earlier, Op::Start | Op::Up),
            Op::Up => false,
        }
    }
}

/// Where two operations may lead, one after the other: the final state, and whether each must succeed,
/// must fail, or (none) was overtaken and may have done either.
fn sequence(first: Op, second: Op) -> (State, [Option<bool>; 2]) {
    let begin = Some(vec![true; 2]);
    let between = first.after(&begin).expect("every operation can be done to an app that runs");
    let end = second.after(&between);
    let of_first = (!second.overtakes(first)).then_some(true);
    // A second delete that comes while the first is under way is done with it.
    let of_second = (first != Op::Delete || second != Op::Delete).then_some(end.is_some());
    (end.unwrap_or(between), [of_first, of_second])
}

/// What the list shows, in the words of [`State`].
fn shown(daemon: &Daemon) -> Result<State, String> {
    let list = daemon.try_list()?;
    let Some(app) = list.apps.into_iter().find(|app| app.name == "api") else { return Ok(None) };
    let settled = |status: &str| matches!(status, "online" | "stopped");
    if app.reload.is_some() || !app.workers.iter().all(|worker| settled(&worker.status)) {
        return Err(format!("{app:#?}"));
    }
    Ok(Some(app.workers.iter().map(|worker| worker.status == "online").collect()))
}

/// Fails unless the processes are those that the list shows.
fn expect_no_other_process(daemon: &Daemon, pair: &str) {
    let listed: BTreeSet<i32> = daemon
        .try_app("api")
        .into_iter()
        .flat_map(|app| app.workers)
        .filter_map(|worker| worker.pid)
        .collect();
    let running: BTreeSet<i32> = daemon.workers().iter().map(|process| process.pid).collect();
    assert_eq!(running, listed, "{pair}");
}

impl Op {
    /// Whether an output that says `done` shows that it was.
    fn is_proven(self, output: &Output) -> bool {
        match self {
            Op::Reload => output.stdout.contains("reloaded to generation"),
            Op::Restart | Op::Up => output.stdout.contains("ready after"),
            Op::Stop | Op::Start | Op::Down | Op::Delete => true,
        }
    }
}

/// Whether the outcomes of both are in keeping with one order.
fn fits(order: &(State, [Option<bool>; 2]), state: &State, told: [(Op, &Output); 2]) -> bool {
    let says_why = |output: &Output| {
        let reasons = ["took its place", "is called \"api\"", "not known any more", "it is being deleted"];
        output.code == 1 && reasons.iter().any(|reason| output.stderr.contains(reason))
    };
    let is_true = |must: &Option<bool>, op: Op, output: &Output| match must {
        Some(true) => output.code == 0,
        Some(false) => says_why(output),
        // It may have been done before it was overtaken, and must not just be said to be.
        None => (output.code == 0 && op.is_proven(output)) || says_why(output),
    };
    let (end, codes) = order;
    end == state && codes.iter().zip(told).all(|(must, (op, output))| is_true(must, op, output))
}

/// Issues both at once and judges what came of it.
fn meet(daemon: &Daemon, one: Op, other: Op) {
    let file = daemon.home.file().display().to_string();
    // Two workers, whatever the pair before has left.
    daemon.run(&["startOrRestart", &file]).expect_code(0);
    daemon.wait_online("api", 2);
    let pair = format!("{one:?} and {other:?}");
    let (first, second) = (daemon.spawn(one.line()), daemon.spawn(other.line()));
    let (first, second) = (daemon.home.finish(first), daemon.home.finish(second));
    let state = wait_until(ms(10_000), &format!("rest after {pair}"), || shown(daemon));
    let told = [(one, &first), (other, &second)];
    let (in_order, mut reversed) = (sequence(one, other), sequence(other, one));
    reversed.1.reverse();
    assert!(
        fits(&in_order, &state, told) || fits(&reversed, &state, told),
        "{pair} led to {state:?}, which is neither {in_order:?} nor {reversed:?}: {first:#?} {second:#?}"
    );
    expect_no_other_process(daemon, &pair);
}

/// `one` with each of them, as often as there are rounds. Which of the two is heard first is left to chance.
fn meets_all(one: Op) {
    let rounds =
        std::env::var("CLUSTERD_HAMMER_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(1);
    // Slow enough to be met while it starts.
    let fixture = fixtures::shell("sleep 0.03; exec ./fixture_worker serve");
    let daemon = Daemon::foreground(api(&fixture, free_port()));
    for other in OPS.repeat(rounds) {
        meet(&daemon, one, other);
    }
}

/// Fault 25.
#[test]
fn a_reload_and_any_other_command_at_once_end_as_one_after_the_other() {
    meets_all(Op::Reload);
}

/// Fault 25.
#[test]
fn a_restart_and_any_other_command_at_once_end_as_one_after_the_other() {
    meets_all(Op::Restart);
}

/// Fault 25.
#[test]
fn a_stop_and_any_other_command_at_once_end_as_one_after_the_other() {
    meets_all(Op::Stop);
}

/// Fault 25.
#[test]
fn a_start_and_any_other_command_at_once_end_as_one_after_the_other() {
    meets_all(Op::Start);
}

/// Fault 25.
#[test]
fn a_scale_and_any_other_command_at_once_end_as_one_after_the_other() {
    meets_all(Op::Up);
    meets_all(Op::Down);
}

/// Fault 25.
#[test]
fn a_delete_and_any_other_command_at_once_end_as_one_after_the_other() {
    meets_all(Op::Delete);
}

/// The text of a program that answers with this version, whatever the file says later.
fn versioned(version: u32) -> String {
    format!(
        "const http = require('http');\nconst me = `${{process.pid}} {version}\\n`;\nsetTimeout(() => \
         http.createServer((req, res) => res.end(me)).listen(Number(process.env.PORT)), \
         Number(process.env.BOOT_MS || 0));\n"
    )
}

/// Fault 61: what runs is what it was started with, and the mix is there to be seen.
#[test]
fn a_program_replaced_during_a_reload_changes_no_running_worker_and_the_mix_is_shown() {
    let Some(node) = fixtures::node("swapped.js") else { return };
    let port = free_port();
    let home = std::sync::Arc::new(Home::new(None));
    home.put("swapped.js", &versioned(1));
    let app = api(&node, port).env("BOOT_MS", 300);
    let daemon = support::daemon::Builder::new(&app).start_in(home);
    let before = daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    daemon.home.put("swapped.js", &versioned(2));
    let reload = daemon.spawn(&["reload", "api"]);
    let generations = |app: &AppInfo| -> BTreeSet<u32> {
        app.workers
            .iter()
            .filter(|worker| worker.status == "online")
            .map(|worker| worker.generation)
            .collect()
    };
    let mixed = wait_until(ms(10_000), "workers of two generations online", || {
        let app = daemon.app("api");
        if generations(&app).len() == 2 { Ok(app) } else { Err(format!("{:#?}", app.workers)) }
    });
    assert_eq!(generations(&mixed), BTreeSet::from([1, 2]));
    assert_eq!(mixed.generation, 2);
    daemon.home.put("swapped.js", &versioned(3));
    daemon.home.finish(reload).expect_code(0);
    let after = daemon.wait_online("api", 2);
    assert!(before.iter().all(|pid| !after.contains(pid)));
    hammer.wait_answers(10);
    let history = hammer.stop();
    history.expect_none_lost();
    let mut versions: BTreeMap<i32, BTreeSet<u32>> = BTreeMap::new();
    for by in history.records.iter().filter_map(|record| record.by) {
        versions.entry(by.pid).or_default().insert(by.generation);
    }
    assert!(
        versions.values().all(|versions| versions.len() == 1),
        "a worker changed under way: {versions:?}"
    );
    assert!(before.iter().all(|pid| versions[pid] == BTreeSet::from([1])), "{versions:?}");
}

/// A file that this process is still writing, in place of `name`: exec of it fails with ETXTBSY.
fn being_written(daemon: &Daemon, name: &str) -> File {
    let folder = daemon.home.apps();
    let program = fs::read(folder.join("fixture_worker")).expect("it was staged");
    let fresh = folder.join("fresh");
    let mut open = File::create(&fresh).expect("the folder is ours");
    open.write_all(&program).expect("there is room");
    open.set_permissions(Permissions::from_mode(0o755)).expect("it is ours");
    fs::rename(fresh, folder.join(name)).expect("both are in one folder");
    open
}

/// Fault 61: the app is not to blame.
#[test]
fn a_program_that_is_being_written_is_tried_again_and_not_charged() {
    let port = free_port();
    let serve = Fixture::new(&["./fixture_busy", "serve"]);
    let app = api(&serve, port).instances(1).set("max_restarts", 1);
    let idle = App::new("idle", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let daemon = Daemon::foreground(&idle);
    daemon.expects(&["could not be started", "next start in"]);
    let writer = being_written(&daemon, "fixture_busy");
    daemon.home.write(&file(&[app, idle]));
    let path = daemon.home.file().display().to_string();
    let start = daemon.spawn(&["start", &path, "--only", "api"]);
    daemon.wait_for_text("ETXTBSY");
    let waiting = daemon.wait_status("api", "waiting restart");
    let worker = &waiting.workers[0];
    assert_eq!(worker.last_exit.as_ref().map(|exit| exit.reason.as_str()), Some("spawn"), "{worker:#?}");
    drop(writer);
    daemon.home.finish(start).expect_code(0);
    daemon.wait_online("api", 1);
    assert_eq!(daemon.app("api").workers[0].unstable_restarts, 0, "charged to the app");
    // In a reload the old worker serves for as long as it takes.
    let hammer = Load::on(port).clients(2).start();
    let writer = being_written(&daemon, "fixture_busy");
    let seen = daemon.log().matches("ETXTBSY").count();
    let reload = daemon.spawn(&["reload", "api"]);
    wait_until(ms(10_000), "two vain attempts", || daemon.log().matches("ETXTBSY").count() >= seen + 2);
    drop(writer);
    daemon.home.finish(reload).expect_code(0);
    hammer.stop().expect_none_lost();
}

/// What can lie where the ecosystem file was, by name.
const NO_FILES: [&str; 8] = ["empty", "half", "nested", "huge", "directory", "pipe", "missing", "loop"];

/// Puts it there, in place of what is there now.
fn replace(path: &Path, kind: &str, good: &str) {
    if path.is_dir() {
        fs::remove_dir(path).expect("it is empty");
    } else if path.symlink_metadata().is_ok() {
        fs::remove_file(path).expect("the folder is ours");
    }
    let nested = format!("x = {}1{}", "[".repeat(5_000), "]".repeat(5_000));
    match kind {
        "empty" => fs::write(path, ""),
        "half" => fs::write(path, &good[..good.len() / 2]),
        "nested" => fs::write(path, nested),
        // Sparse: its length is what it is rejected for.
        "huge" => File::create(path).and_then(|file| file.set_len(8 << 30)),
        "directory" => fs::create_dir(path),
        "pipe" => mkfifo(path, Mode::from_bits_truncate(0o600)).map_err(std::io::Error::from),
        "missing" => Ok(()),
        "loop" => std::os::unix::fs::symlink("ecosystem.toml", path),
        "unreadable" => {
            fs::write(path, good).and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o000)))
        }
        other => panic!("no kind {other:?}"),
    }
    .expect("the folder is ours");
}

/// Whatever lies where the file was: it is refused by each way of reading it, and nothing is touched.
fn changes_nothing(daemon: &Daemon, kind: &str, good: &str) {
    let before = daemon.wait_online("api", 2);
    let path = daemon.home.file();
    replace(&path, kind, good);
    let path = path.display().to_string();
    let lines: [&[&str]; 5] = [
        &["reload", "api"],
        &["reload", &path],
        &["restart", &path],
        &["start", &path],
        &["validate", &path],
    ];
    for line in lines {
        let output = daemon.run(line);
        assert!(
            output.code == 2 && output.stderr.contains("ecosystem.toml"),
            "{kind}: {line:?}: {output:#?}"
        );
        assert!(output.took < ms(3_000), "{kind}: {line:?}: {output:#?}");
    }
    let seen = daemon.log().len();
    daemon.signal(Signal::SIGHUP);
    wait_until(ms(5_000), &format!("the refusal of {kind} in the log"), || {
        let log = daemon.log();
        let refusal = log[seen..].split("reload on SIGHUP: ").nth(1);
        refusal.is_some_and(|refusal| refusal.contains("ecosystem.toml"))
    });
    assert_eq!(daemon.wait_online("api", 2), before, "{kind} touched what runs");
    assert_eq!(daemon.app("api").generation, 1, "{kind} began a generation");
}

/// Faults 55 and 56.
#[test]
fn what_is_no_whole_file_is_refused_by_every_way_of_reading_it() {
    let port = free_port();
    let good = api(&fixtures::worker(&["serve"]), port).to_string();
    let daemon = Daemon::foreground(&good);
    daemon.expects(&["reload on SIGHUP"]);
    daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(2).start();
    let resident = daemon.resident();
    NO_FILES.iter().for_each(|kind| changes_nothing(&daemon, kind, &good));
    assert!(daemon.resident().saturating_sub(resident) < 8 * 1024, "memory went with the file");
    // And the last good one is as good as ever.
    replace(&daemon.home.file(), "missing", &good);
    daemon.home.write(&good);
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.stop().expect_none_lost();
}

/// Fault 56.
#[test]
fn a_file_that_may_not_be_read_changes_nothing() {
    if !root() {
        return skip("only root can become a user who may not read a file");
    }
    let good = api(&fixtures::worker(&["serve"]), free_port()).to_string();
    let daemon = Daemon::foreground_as(Some(ORDINARY), &good);
    daemon.expects(&["reload on SIGHUP"]);
    changes_nothing(&daemon, "unreadable", &good);
}

#[test]
fn env_shows_what_a_worker_was_started_with_whatever_the_file_says_by_now() {
    let app = |word: &str| {
        let app = App::new("api", &fixtures::shell("while :; do sleep 0.05; done"));
        app.instances(2).env("GREETING", word).env("LINES_OF_IT", "a\\nb")
    };
    let daemon = Daemon::foreground(app("hello"));
    daemon.wait_online("api", 2);
    daemon.home.write(&app("goodbye").to_string());
    let shown = daemon.run(&["env", "api"]).expect_code(0).stdout;
    let has = |line: &str| shown.lines().any(|shown| shown == line);
    assert!(has("GREETING=hello") && has("NODE_APP_INSTANCE=0") && has("CLUSTERD_APP=api"), "{shown}");
    assert!(has("LINES_OF_IT=a\\nb"), "on one line: {shown}");
    let second = daemon.app("api").workers[1].id.to_string();
    let json = daemon.run(&["env", &second, "--json"]).expect_code(0).stdout;
    let environ: serde_json::Value = serde_json::from_str(json.lines().next().unwrap_or("")).expect("JSON");
    assert_eq!(environ["variables"]["NODE_APP_INSTANCE"], "1");
    assert_eq!((environ["app"].as_str(), environ["instance"].as_u64()), (Some("api"), Some(1)));
    daemon.run(&["stop", "api"]).expect_code(0);
    daemon.run(&["env", "api"]).expect_code(1).expect_stderr(&["api does not run"]);
}

#[test]
fn reset_counts_restarts_from_zero_and_touches_no_worker() {
    let app = App::new("api", &fixtures::shell("while :; do sleep 0.05; done")).set("min_uptime", 0);
    let daemon = Daemon::foreground(app);
    daemon.wait_online("api", 1);
    daemon.run(&["restart", "api"]).expect_code(0);
    let before = daemon.wait_online("api", 1);
    assert_eq!(daemon.app("api").workers[0].restarts, 1);
    daemon.run(&["reset", "api"]).expect_code(0);
    assert_eq!((daemon.app("api").workers[0].restarts, daemon.pids("api")), (0, before));
    daemon.run(&["reset", "nobody"]).expect_code(1).expect_stderr(&["nobody"]);
}

#[test]
fn a_failed_reload_shows_the_last_twenty_lines_of_its_worker() {
    let daemon = Daemon::foreground(api(&fixtures::worker(&["serve"]), free_port()));
    daemon.expects(&["exited with code 4 "]);
    daemon.wait_online("api", 2);
    let line = "i=1; while [ $i -le 35 ]; do echo \"line number $i\"; i=$((i + 1)); done; exit 4";
    daemon.home.write(&api(&fixtures::shell(line), free_port()).to_string());
    let output = daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["exited with code 4"]);
    let shown: Vec<&str> =
        output.stderr.lines().filter_map(|line| Some(line.split_once("line number ")?.1)).collect();
    let expected: Vec<String> = (16..=35).map(|number: u32| number.to_string()).collect();
    assert_eq!(shown, expected, "{output:#?}");
}

#[test]
fn a_reload_tells_its_steps_as_json_and_as_lines() {
    let daemon = Daemon::foreground(api(&fixtures::worker(&["serve"]), free_port()));
    daemon.wait_online("api", 2);
    let output = daemon.run(&["reload", "api", "--json"]).expect_code(0);
    let events: Vec<serde_json::Value> =
        output.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON on each line")).collect();
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    for (event, times) in [
        ("reload_started", 1),
        ("starting", 2),
        ("ready", 2),
        ("draining", 2),
        ("exited", 2),
        ("reload_done", 1),
    ] {
        assert_eq!(count(event), times, "{event}: {output:#?}");
    }
    let steps = || events.iter().filter(|event| event.get("event").is_some());
    assert!(steps().all(|event| event["app"] == "api"), "{output:#?}");
    // Whose end it was: also of the one that is gone by then.
    for of_worker in steps().filter(|event| !event["event"].as_str().is_some_and(|e| e.starts_with("reload")))
    {
        let known = of_worker["instance"].is_u64() && of_worker["generation"].is_u64();
        assert!(known && of_worker["id"].is_u64() || of_worker["event"] == "backing_off", "{of_worker}");
    }
    let done: Vec<u64> = steps().filter_map(|event| event["done"].as_u64()).collect();
    assert!(done.is_sorted() && done.last() == Some(&2), "{done:?}");
    let lines = daemon.run(&["reload", "api"]).expect_code(0).stdout;
    for part in ["api: 0/2 ", "api/0: ready", "api/1: was ended by SIGINT", "api: 2/2 ", "reloaded api"] {
        assert!(lines.contains(part), "no {part:?} in {lines}");
    }
    assert!(!lines.contains('\u{1b}'), "escapes in a pipe: {lines}");
}

#[test]
fn a_terminal_sees_a_reload_come_along_in_one_line() {
    let daemon = Daemon::foreground(api(&fixtures::worker(&["serve"]), free_port()));
    daemon.wait_online("api", 2);
    let size = nix::pty::Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).expect("terminals are left");
    let running = daemon.home.spawn_with(&["reload", "api"], |command| {
        command.stdout(pty.slave).env("TERM", "xterm");
    });
    let mut drawn = Vec::new();
    // The kernel ends a terminal with EIO when its last writer is gone.
    let _ = File::from(pty.master).read_to_end(&mut drawn);
    daemon.home.finish(running).expect_code(0);
    let drawn = String::from_utf8(drawn).expect("text");
    assert!(drawn.contains("1/2") && drawn.contains("2/2"), "{drawn:?}");
    assert!(drawn.contains('\r') && drawn.contains("\u{1b}["), "nothing is drawn anew: {drawn:?}");
    assert!(drawn.contains("reloaded api"), "{drawn:?}");
}

/// Workers that are not on their way out, by one look at the list.
fn staying(app: &AppInfo) -> usize {
    app.workers.iter().filter(|worker| worker.pid.is_some() && worker.status != "stopping").count()
}

#[test]
fn a_reload_has_never_more_new_workers_at_a_time_than_max_surge() {
    let slow = fixtures::shell("sleep 0.1; exec ./fixture_worker serve");
    for surge in [1_usize, 2] {
        let port = free_port();
        let app = api(&slow, port).instances(4).set("max_surge", surge);
        let daemon = Daemon::foreground(app);
        daemon.wait_online("api", 4);
        let mut running = daemon.spawn(&["reload", "api"]);
        let mut most = 0;
        while running.runs() {
            let app = daemon.app("api");
            let launching = app.workers.iter().filter(|worker| worker.status == "launching").count();
            // While so many start, those before them live through their min_healthy_time.
            assert!(launching <= surge && staying(&app) <= 4 + 2 * surge, "max_surge {surge}: {app:#?}");
            most = most.max(staying(&app));
        }
        daemon.home.finish(running).expect_code(0);
        assert!(most >= 4 + surge, "it never went so far");
    }
}

/// `make run`, with this program for the one that it would build, and another port.
fn make_run(home: &Home, port: u16) -> Option<Running> {
    support::runtime("make")?;
    let source = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        fs::read_to_string(path).expect("it belongs to the sources")
    };
    let example = source("ecosystem.example.toml");
    let elsewhere = example.replace("PORT = 3000", &format!("PORT = {port}"));
    assert_ne!(example, elsewhere, "the example's port is written in another way");
    home.put("ecosystem.example.toml", &elsewhere);
    home.put("Makefile", &source("Makefile"));
    Some(home.spawn_behind(&["sh", "-c", "exec make run CARGO=true BINARY=\"$0\""]))
}

/// The README's second command, and what it says to try in a second terminal.
#[test]
fn make_run_serves_the_example_and_every_command_of_the_readme_works_on_it() {
    let (home, port) = (Home::new(None), free_port());
    let Some(running) = make_run(&home, port) else { return };
    let listed = |count: usize| {
        wait_until(ms(20_000), "the workers of the example", || {
            let output = home.run(&["list", "--json"]);
            let list: List = serde_json::from_str(&output.stdout).map_err(|_| format!("{output:?}"))?;
            let online = list.apps[0].workers.iter().filter(|worker| worker.status == "online");
            let pids: BTreeSet<i32> = online.filter_map(|worker| worker.pid).collect();
            if pids.len() == count { Ok(pids) } else { Err(output.stdout) }
        })
    };
    let answering = |wanted: &BTreeSet<i32>| {
        let mut seen = BTreeSet::new();
        wait_until(ms(20_000), "answers of every worker", || {
            let answer = body(port, "/");
            let pid = answer.split(|byte: char| !byte.is_ascii_digit()).filter_map(|word| word.parse().ok());
            seen.extend(pid.filter(|pid: &i32| wanted.contains(pid)));
            seen == *wanted
        });
    };
    let first = listed(4);
    answering(&first);
    let hammer = Hammer::start(port);
    home.run(&["reload", "all"]).expect_code(0);
    let second = listed(4);
    assert!(first.is_disjoint(&second), "{first:?} were not all replaced");
    answering(&second);
    home.run(&["scale", "hello", "6"]).expect_code(0);
    answering(&listed(6));
    home.run(&["scale", "hello", "2"]).expect_code(0);
    listed(2);
    hammer.stop().expect_none_lost();
    let shown = home.run(&["list"]).expect_code(0).stdout;
    assert_eq!(shown.lines().filter(|line| line.contains("hello")).count(), 2, "{shown}");
    let logs = home.run(&["logs", "hello", "--no-follow"]).expect_code(0).stdout;
    assert!(logs.contains(&format!("serves 127.0.0.1:{port}")), "{logs}");
    home.run(&["kill"]).expect_code(0);
    let ended = running.wait(ms(10_000)).expect_code(0);
    assert!(ended.stdout.contains("serves"), "workers' output is not shown: {ended:?}");
    assert_eq!(home.processes(), []);
}
