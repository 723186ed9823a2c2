//! Keys of the file as they act on real workers: each of them at a reload, and those of `[daemon]`.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clusterd::control::protocol::WorkerInfo;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use support::daemon::{Builder, status_kib};
use support::hammer::{body, get};
use support::wait::holds_for;
use support::{App, Daemon, Fixture, Home, Load, file, fixtures, free_port, skip, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

/// Writes the file anew and reloads `api`.
fn reload_as(daemon: &Daemon, app: &App) {
    daemon.home.write(&app.to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
}

/// Says what it was given and which signal ends it, the latter on standard error.
const SPEAKER: &str = "echo \"$0 said $1 by $(tr '\\0' ' ' </proc/$$/cmdline | cut -d' ' -f1)\"\n\
    trap 'echo heard INT >&2; exit 0' INT\ntrap 'echo heard TERM >&2; exit 0' TERM\n\
    echo listening $1\nwhile :; do sleep 0.02; done\n";

#[test]
fn arguments_interpreter_signal_and_files_are_those_of_the_newest_file() {
    let home = std::sync::Arc::new(Home::new(None));
    home.put("speaker.sh", SPEAKER);
    let app = App::bare("api").text("script", "speaker.sh").text("exec_mode", "fork");
    let old = app.clone().text("args", "one").text("error_file", "old-err.log");
    let daemon = Builder::new(&old).start_in(home);
    daemon.wait_for_text("listening one");
    let new = app.set("args", "[\"two\"]").text("interpreter", "sh").text("error_file", "new-err.log");
    reload_as(&daemon, &new.text("kill_signal", "SIGTERM").text("out_file", "new-out.log"));
    daemon.wait_for_text("listening two");
    daemon.run(&["stop", "api"]).expect_code(0);
    let stored = |name: &str| fs::read_to_string(daemon.home.apps().join(name)).unwrap_or_default();
    // Each generation ends as its own file said.
    wait_until(ms(5_000), "the last words of both", || {
        let said = (stored("old-err.log"), stored("new-err.log"));
        if said == ("heard INT\n".to_owned(), "heard TERM\n".to_owned()) { Ok(()) } else { Err(said) }
    });
    let said = stored("new-out.log");
    assert!(said.contains("said two by sh\n"), "{said}");
    assert!(daemon.output().contains("said one by /") || daemon.output().contains("said one by bash"));
}

#[test]
fn kill_timeout_and_drain_timeout_are_those_of_the_newest_file() {
    let stubborn = fork("api", &fixtures::worker(&["ignore-signals"]));
    let daemon = Daemon::foreground(stubborn.clone().text("kill_timeout", "100ms"));
    daemon.expects(&["did not end in kill_timeout"]);
    daemon.wait_for_text("ignoring");
    reload_as(&daemon, &stubborn.text("kill_timeout", "900ms"));
    wait_until(ms(5_000), "the second one", || daemon.output().matches("ignoring").count() == 2);
    let output = daemon.run(&["stop", "api"]).expect_code(0);
    assert!(output.took >= ms(900) && output.took < ms(5_000), "{output:?}");
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let api = App::new("api", &node).instances(1).port(port);
    let daemon = Daemon::foreground(&api);
    daemon.expects(&["drain_timeout is over"]);
    daemon.wait_online("api", 1);
    reload_as(&daemon, &api.text("drain_timeout", "300ms"));
    let endless = Load::on(port).clients(1).path("/events?n=1000000&pause=20").limit(ms(60_000));
    let endless = endless.start_silently();
    wait_until(ms(5_000), "a connection", || {
        let list = daemon.run(&["list", "--json", "--connections"]).stdout;
        list.contains("\"connections\":1")
    });
    let output = daemon.run(&["stop", "api"]).expect_code(0);
    assert!(output.took >= ms(300) && output.took < ms(5_000), "{output:?}");
    drop(endless);
}

/// The profile is that of the start: a reload does not name it again.
#[test]
fn the_variables_of_the_profile_are_those_of_the_newest_file() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let with = |profile: &str| {
        let app = App::new("api", &node).instances(1).port(port).env("VERSION", "of no profile");
        app.set("env_production", profile).set("env_staging", "{ VERSION = \"of another profile\" }")
    };
    let old = with("{ VERSION = 1, GONE = \"here\" }");
    let daemon = Builder::new(old).argument("--env").argument("production").start();
    daemon.wait_online("api", 1);
    assert_eq!((body(port, "/version"), body(port, "/env/GONE")), ("1".to_owned(), "here".to_owned()));
    reload_as(&daemon, &with("{ VERSION = 2, ADDED = true }"));
    assert_eq!(body(port, "/version"), "2");
    assert_eq!((body(port, "/env/GONE"), body(port, "/env/ADDED")), ("unset".to_owned(), "true".to_owned()));
}

#[test]
fn wait_ready_is_that_of_the_newest_file() {
    let Some(node) = fixtures::node("ready.js") else { return };
    let port = free_port();
    let silent = App::new("api", &node).instances(1).port(port).env("READY_AFTER_MS", -1);
    let daemon = Daemon::foreground(&silent);
    daemon.expects(&["reload to generation 2 failed"]);
    let before = daemon.wait_online("api", 1);
    let waits = silent.set("wait_ready", true).text("listen_timeout", "800ms");
    daemon.home.write(&waits.to_string());
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["api", "listen_timeout"]);
    assert_eq!(daemon.wait_online("api", 1), before);
    reload_as(&daemon, &waits.env("READY_AFTER_MS", 0).text("listen_timeout", "20s"));
    assert_ne!(daemon.wait_online("api", 1), before);
}

#[test]
fn interpreter_args_are_those_of_the_newest_file() {
    let home = std::sync::Arc::new(Home::new(None));
    home.put("flags.sh", "echo \"line: $(tr '\\0' ' ' </proc/$$/cmdline)\"\nwhile :; do sleep 0.02; done\n");
    let app = App::bare("api").text("script", "flags.sh").text("exec_mode", "fork").text("interpreter", "sh");
    let daemon = Builder::new(app.clone().text("interpreter_args", "-u")).start_in(home);
    daemon.wait_for_text("line: sh -u ");
    reload_as(&daemon, &app.set("interpreter_args", "[\"-f\", \"-C\"]"));
    daemon.wait_for_text("line: sh -f -C ");
}

/// What was a stable life in the old file is an unstable one in the new.
#[test]
fn min_uptime_and_max_restarts_are_those_of_the_newest_file() {
    let bystander = fork("bystander", &fixtures::worker(&["idle"]));
    let app = fork("api", &fixtures::worker(&["exit", "1", "700"])).text("exp_backoff_restart_delay", "1ms");
    let old = app.clone().text("min_uptime", "100ms").set("max_restarts", 1);
    let daemon = Daemon::foreground(file(&[old, bystander.clone()]));
    daemon.expects(&["exited with code 1 ", "unstable exits in a row"]);
    wait_until(ms(20_000), "restarts", || daemon.app("api").workers[0].restarts >= 2);
    let new = app.text("min_uptime", "20s").set("max_restarts", 3);
    daemon.home.write(&file(&[new, bystander]));
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.wait_status("api", "errored");
    daemon.wait_for_text("given up after 3 unstable exits in a row");
}

#[test]
fn max_surge_is_that_of_the_newest_file() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = App::new("api", &node).instances(3).port(port);
    let daemon = Daemon::foreground(&app);
    daemon.wait_online("api", 3);
    let most = |surge: u32| {
        daemon.home.write(&app.clone().set("max_surge", surge).env("BOOT_MS", 500).to_string());
        let mut running = daemon.spawn(&["reload", "api"]);
        let mut most = 0;
        wait_until(ms(30_000), "the end of the reload", || {
            let launching = |worker: &WorkerInfo| worker.status == "launching";
            most = most.max(daemon.app("api").workers.iter().filter(|worker| launching(worker)).count());
            !running.runs()
        });
        daemon.home.finish(running).expect_code(0);
        most
    };
    assert_eq!((most(3), most(1)), (3, 1), "workers that launch at a time");
}

#[test]
fn on_reload_failure_is_that_of_the_newest_file() {
    let port = free_port();
    let api = |fixture: &Fixture| App::new("api", fixture).instances(2).port(port);
    let old = api(&fixtures::worker(&["serve"])).text("on_reload_failure", "hold");
    let daemon = Daemon::foreground(old);
    daemon.expects(&["exited with code 9 "]);
    daemon.wait_online("api", 2);
    let second_gives_up =
        "mkdir first 2>/dev/null || { sleep 1; echo no luck >&2; exit 9; }; exec ./fixture_worker serve";
    let new = api(&fixtures::shell(second_gives_up));
    for (policy, state, generations) in [("rollback", "failed", 1), ("hold", "held", 2)] {
        let _ = fs::remove_dir(daemon.home.apps().join("first"));
        daemon.home.write(&new.clone().text("on_reload_failure", policy).to_string());
        daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["no luck"]);
        daemon.wait_online("api", 2);
        let app = daemon.app("api");
        assert_eq!(app.reload.map(|reload| reload.state).as_deref(), Some(state));
        let left: BTreeSet<u32> = app.workers.iter().map(|worker| worker.generation).collect();
        assert_eq!(left.len(), generations, "{policy}: {left:?}");
    }
}

#[test]
fn drain_idle_is_that_of_the_newest_file() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let api = App::new("api", &node).instances(1).port(port);
    let daemon = Daemon::foreground(api.clone().text("drain_idle", "25s"));
    daemon.wait_online("api", 1);
    reload_as(&daemon, &api.text("drain_idle", "600ms"));
    // An answer that has begun and is not over: nothing but its silence tells that nobody waits for more.
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("somebody serves");
    client.write_all(b"GET /events?n=2&pause=60000 HTTP/1.1\r\nHost: a\r\n\r\n").expect("it fits");
    client.read_exact(&mut [0; 16]).expect("an answer begins");
    let output = daemon.run(&["stop", "api"]).expect_code(0);
    assert!(output.took >= ms(400) && output.took < ms(10_000), "{output:?}");
}

/// Serves on every descriptor that it was handed.
const ALL_DESCRIPTORS: &str = "const http = require('http');\nconst { env } = process;\n\
    const me = `${process.pid} ${env.CLUSTERD_GENERATION} ${env.NODE_APP_INSTANCE}\\n`;\n\
    for (let i = 0; i < Number(env.LISTEN_FDS || 0); i += 1) {\n\
    http.createServer((req, res) => res.end(req.url === '/names' ? env.LISTEN_FDNAMES : me))\n\
    .listen({ fd: 3 + i });\n}\n";

#[test]
fn declared_sockets_come_and_go_with_a_reload_and_carry_their_names() {
    let Some(node) = fixtures::node("all.js") else { return };
    let (first, second) = (free_port(), free_port());
    let home = std::sync::Arc::new(Home::new(None));
    home.put("all.js", ALL_DESCRIPTORS);
    let api = App::new("api", &node).instances(2);
    let daemon = Builder::new(api.clone().listen(first)).start_in(home);
    daemon.wait_online("api", 2);
    assert_eq!(body(first, "/names"), "api");
    let hammer = Load::on(first).clients(2).start();
    let both = format!(
        "[{{ name = \"http\", address = \"0.0.0.0:{first}\" }}, {{ name = \"admin\", address = \"0.0.0.0:{second}\" }}]"
    );
    reload_as(&daemon, &api.clone().set("listen", both));
    let added = Load::on(second).clients(2).start();
    for port in [first, second] {
        assert_eq!(body(port, "/names"), "http:admin");
    }
    let mut listen = daemon.app("api").listen;
    listen.sort_unstable();
    let mut expected = [format!("0.0.0.0:{first}"), format!("0.0.0.0:{second}")];
    expected.sort_unstable();
    assert_eq!(listen, expected);
    hammer.stop().expect_none_lost();
    reload_as(&daemon, &api.listen(second));
    added.wait_answers(10);
    added.stop().expect_none_lost();
    assert!(get(first, "/").is_err(), "an address that is no longer declared is still served");
    assert_eq!(daemon.app("api").listen, [format!("0.0.0.0:{second}")]);
}

/// Filters that the kernel applies to a process's system calls (proc_pid_status(5), Linux 5.9).
fn filters(pid: i32) -> Option<u64> {
    status_kib(pid, "Seccomp_filters:")
}

#[test]
fn intercept_false_leaves_a_servers_bind_alone() {
    let Some(without) = filters(Pid::this().as_raw()) else {
        return skip("this kernel does not count a process's filters (Linux 5.9 does)");
    };
    let port = free_port();
    let api = App::new("api", &fixtures::worker(&["serve"])).instances(1).port(port);
    let daemon = Daemon::foreground(&api);
    let pid = daemon.wait_online("api", 1)[0];
    assert_eq!(filters(pid), Some(without + 1), "nothing is intercepted");
    // Without sharing there is no overlap on one port: stop, then start.
    daemon.run(&["stop", "api"]).expect_code(0);
    let alone = api.set("intercept", false);
    daemon.home.write(&alone.to_string());
    let path = daemon.home.file().display().to_string();
    daemon.run(&["start", &path]).expect_code(0);
    let pid = daemon.wait_online("api", 1)[0];
    assert_eq!(filters(pid), Some(without), "bind is intercepted");
    wait_until(ms(5_000), "an answer", || get(port, "/").is_ok());
    let about = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    assert!(about.contains("nothing is shared"), "{about}");
}

/// How many workers come of this value behind `wrap`.
fn instances_of(value: &str, wrap: &[&str]) -> u32 {
    let app = App::new("api", &fixtures::worker(&["idle"])).set("instances", value);
    let daemon = Builder::new(app).wrap(wrap).start();
    daemon.app("api").instances
}

#[test]
fn instances_follow_the_affinity() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("any process may ask");
    let cpus: Vec<String> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .map(|cpu| cpu.to_string())
        .collect();
    for some in [&cpus[..1], &cpus[..cpus.len().min(2)]] {
        let list = some.join(",");
        let behind = ["taskset", "-c", &list];
        let count = u32::try_from(some.len()).expect("few");
        // A quota of the host's may allow even less.
        let most = instances_of("\"max\"", &behind);
        assert!(most <= count && most >= 1, "{most} on CPUs {list}");
        assert_eq!(instances_of("-1", &behind), (most - 1).max(1), "on CPUs {list}");
    }
}

/// A control group with the time of one CPU, removed at the end.
struct Group(PathBuf);

impl Group {
    /// None where groups cannot be made: not everywhere may tests.
    fn of_one_cpu() -> Option<Group> {
        let name = format!("clusterd-test-{}", std::process::id());
        for (root, quota) in [
            ("/sys/fs/cgroup", [("cpu.max", "100000 100000")].as_slice()),
            ("/sys/fs/cgroup/cpu", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "100000")]),
        ] {
            let group = Group(PathBuf::from(root).join(&name));
            let made = fs::create_dir(&group.0).is_ok();
            let limited = |(file, value): &(&str, &str)| {
                // Not created: in what is no control group such a file would be an ordinary one.
                group.0.join(file).exists() && fs::write(group.0.join(file), value).is_ok()
            };
            if made && quota.iter().all(limited) {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process is on its way out, or there never was such a group.
        let gone = || !self.0.exists() || fs::remove_dir(&self.0).is_ok();
        let _ = support::wait::try_until(ms(5_000), gone);
    }
}

#[test]
fn instances_follow_a_quota_of_processor_time() {
    let Some(group) = Group::of_one_cpu() else {
        return skip("no control group with a CPU quota can be made here, of neither version");
    };
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    assert_eq!(instances_of("\"max\"", &["sh", "-c", &enter, "sh"]), 1);
}

/// Nothing can be created below a plain file, by root neither.
const NO_FOLDER: &str = "plain.txt/logs";

#[test]
fn a_default_log_file_that_cannot_be_opened_is_a_warning() {
    let home = std::sync::Arc::new(Home::new(None));
    home.put("plain.txt", "a file\n");
    let app = App::new("api", &fixtures::worker(&["print", "3", "words"])).instances(2);
    let text = format!("[daemon]\nlog_dir = {NO_FOLDER:?}\n{}", app.text("exec_mode", "fork"));
    let daemon = Builder::new(text).start_in(home);
    daemon.expects(&["no log files are written"]);
    daemon.wait_online("api", 2);
    wait_until(ms(5_000), "what both print", || daemon.output().matches("words 2").count() == 2);
    let log = daemon.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("plain.txt"), "{log}");
}

#[test]
fn an_explicit_log_file_that_cannot_be_opened_is_an_error() {
    let home = std::sync::Arc::new(Home::new(None));
    home.put("plain.txt", "a file\n");
    let bystander = fork("bystander", &fixtures::worker(&["idle"]));
    let daemon = Builder::new(&bystander).start_in(home);
    daemon.expects(&["could not be started", "unstable exits in a row"]);
    let app = fork("api", &fixtures::worker(&["idle"])).text("out_file", "plain.txt/api.log");
    daemon.home.write(&file(&[bystander, app.set("max_restarts", 2)]));
    let path = daemon.home.file().display().to_string();
    let output = daemon.run(&["start", &path, "--only", "api"]).expect_code(1);
    output.expect_stderr(&["api", "plain.txt/api.log", "its folder cannot be made"]);
    daemon.wait_online("bystander", 1);
}

#[test]
fn log_dir_holds_the_files_and_log_files_false_writes_none() {
    let app = fork("api", &fixtures::worker(&["print", "1", "words"]));
    let daemon = Daemon::foreground(format!("[daemon]\nlog_dir = \"kept/here\"\n{app}"));
    let kept = daemon.home.apps().join("kept/here/api-out.log");
    wait_until(ms(5_000), "the file", || fs::read_to_string(&kept).is_ok_and(|text| text == "words 0\n"));
    let daemon = Daemon::foreground(format!("[daemon]\nlog_dir = \"kept\"\nlog_files = false\n{app}"));
    daemon.wait_for_text("words 0");
    assert!(!daemon.home.apps().join("kept").exists());
    assert!(!daemon.home.path().join("logs/api-out.log").exists());
}

#[test]
fn restart_delay_is_waited_out_in_sight_and_a_command_ends_the_wait() {
    let line = "[ -e go ] || exit 3; exec sleep 1000";
    let app = fork("api", &fixtures::shell(line)).text("restart_delay", "20s").set("max_restarts", 0);
    let daemon = Daemon::foreground(app);
    daemon.expects(&["exited with code 3 ", "unstable exits in a row"]);
    let waiting = daemon.wait_status("api", "waiting restart");
    assert_eq!(waiting.workers[0].pid, None);
    assert_eq!(waiting.workers[0].last_exit.as_ref().and_then(|exit| exit.code), Some(3));
    let shown = daemon.run(&["list"]).expect_code(0).stdout;
    assert!(shown.contains("waiting restart"), "{shown}");
    holds_for(ms(300), "the wait goes on", || daemon.app("api").status == "waiting restart");
    daemon.home.put("go", "");
    let begin = Instant::now();
    daemon.run(&["restart", "api"]).expect_code(0);
    daemon.wait_online("api", 1);
    assert!(begin.elapsed() < ms(10_000), "the command waited too: {:?}", begin.elapsed());
}

#[test]
fn back_off_is_seen_in_the_list() {
    let app = fork("api", &fixtures::worker(&["exit", "1", "0"])).set("max_restarts", 0);
    let daemon = Daemon::foreground(app.text("exp_backoff_restart_delay", "15s"));
    daemon.expects(&["exited with code 1 ", "unstable exits in a row"]);
    let app = daemon.wait_status("api", "waiting restart");
    assert_eq!(app.workers[0].unstable_restarts, 2, "the first restart is at once: {app:#?}");
    let log = daemon.log();
    assert!(log.contains("2 unstable exits in a row; next start in 1"), "{log}");
}

/// Sends notifications through NOTIFY_SOCKET as its arguments say: texts, and pauses in seconds.
const NOTIFIER: &str = "import os, socket, sys, time\n\
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
    for word in sys.argv[1:]:\n\
    \x20   if '=' in word:\n\
    \x20       s.sendto(word.encode(), os.environ['NOTIFY_SOCKET'])\n\
    \x20   else:\n\
    \x20       time.sleep(float(word))\n\
    time.sleep(1000)\n";

/// Fault 3: the boot is slower than listen_timeout.
#[test]
fn a_slow_boot_may_ask_for_more_time() {
    let Some(python) = fixtures::python("notifier.py") else { return };
    let start = |words: &[&str]| {
        let home = std::sync::Arc::new(Home::new(None));
        home.put("notifier.py", NOTIFIER);
        let mut fixture = python.clone();
        fixture.command.extend(words.iter().map(|&word| word.to_owned()));
        let app = App::new("api", &fixture).instances(1).set("wait_ready", true);
        let bystander = fork("bystander", &fixtures::worker(&["idle"]));
        let daemon = Builder::new(&bystander).start_in(home);
        daemon.expects(&["not ready in listen_timeout"]);
        daemon.home.write(&file(&[bystander, app.text("listen_timeout", "700ms")]));
        let path = daemon.home.file().display().to_string();
        daemon.run(&["start", &path, "--only", "api"])
    };
    start(&["EXTEND_TIMEOUT_USEC=4000000", "1.2", "READY=1"]).expect_code(0);
    let late = start(&["1.2", "READY=1"]).expect_code(1);
    late.expect_stderr(&["api", "listen_timeout"]);
}
