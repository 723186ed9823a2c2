//! A worker's whole life: how it is started, what it gets, how it is replaced, and that nothing of it is
//! left when it was stopped.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::daemon::{Builder, cpu_ticks, exists, send, state_and_parent};
use support::hammer::get;
use support::wait::holds_for;
use support::{
    App, Daemon, Fixture, Hammer, Home, Load, file, fixtures, free_port, root, skip, users, wait_until,
};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One process of `name`, started and stopped without any port.
fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

/// An app that keeps a foreground supervisor from ending with the one under test.
fn bystander() -> App {
    fork("bystander", &fixtures::worker(&["idle"]))
}

/// What `start` says about an app that cannot be started, and what it leaves.
fn fails_to_start(app: App, says: &[&str]) {
    let (daemon, output) = Daemon::background(file(&[app, bystander()]));
    daemon.expects(&["could not be started", "unstable exits in a row"]);
    let output = output.expect_code(1).expect_stderr(says);
    assert!(output.took < ms(20_000), "{output:?}");
    let broken = daemon.app("broken");
    assert!(broken.workers.iter().all(|worker| worker.status != "online"), "{broken:#?}");
    let exit = broken.workers.first().and_then(|worker| worker.last_exit.clone()).expect("one failed");
    assert_eq!(exit.reason, "spawn", "{broken:#?}");
    let message = exit.message.expect("why it could not be started");
    let described = daemon.run(&["describe", "broken"]).expect_code(0).stdout;
    for part in says {
        assert!(message.contains(part), "no {part:?} in {message:?}");
        assert!(described.contains(part), "no {part:?} in {described}");
    }
    daemon.wait_online("bystander", 1);
}

/// Fault 1.
#[test]
fn a_missing_program_is_named_with_its_error() {
    fails_to_start(fork("broken", &Fixture::new(&["./no-such-program"])), &["no-such-program", "ENOENT"]);
}

/// Fault 1.
#[test]
fn a_program_that_is_not_executable_is_named_with_its_error() {
    let home = Arc::new(Home::new(None));
    home.put("plain.txt", "just text\n");
    let path = home.apps().join("plain.txt");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    home.put("garbage", "\u{7f}ELF\u{1}\u{1}\u{1}this is no program for this machine");
    home.put("bad-interpreter", "#!/no/such/interpreter\n");
    let broken = |name: &str, program: &str| fork(name, &Fixture::new(&[program])).set("max_restarts", 2);
    let apps = [
        broken("plain", "./plain.txt"),
        broken("garbage", "./garbage"),
        broken("interpreter", "./bad-interpreter"),
        bystander(),
    ];
    home.write(&file(&apps));
    let path = home.file().display().to_string();
    let output = home.run(&["start", &path]).expect_code(1);
    output.expect_stderr(&["plain.txt", "EACCES", "garbage", "ENOEXEC", "/no/such/interpreter"]);
    home.run(&["kill"]).expect_code(0);
}

/// Fault 1: no restart storm.
#[test]
fn a_program_that_cannot_be_run_is_not_tried_without_end() {
    let broken = fork("broken", &Fixture::new(&["./no-such-program"])).set("max_restarts", 0);
    let daemon = Daemon::foreground(file(&[broken, bystander()]));
    daemon.expects(&["could not be started", "unstable exits in a row", "start failed"]);
    daemon.wait_online("bystander", 1);
    wait_until(ms(10_000), "a few attempts", || daemon.app("broken").workers[0].unstable_restarts >= 3);
    let before = cpu_ticks(daemon.pid).expect("it runs");
    holds_for(ms(1_000), "the supervisor's log stays short", || daemon.log().len() < 64 * 1024);
    let used = cpu_ticks(daemon.pid).expect("it runs") - before;
    assert!(used < 30, "{used} ticks of 10 ms in a second");
    assert!(daemon.app("broken").workers.iter().all(|worker| worker.status != "online"));
}

/// Fault 2.
#[test]
fn a_worker_that_dies_at_once_for_ever_is_errored_and_can_be_reset_by_start() {
    let broken = fork("broken", &fixtures::worker(&["exit", "1", "0"])).set("max_restarts", 4);
    let daemon = Daemon::foreground(file(&[broken, bystander()]));
    daemon.expects(&["exited with code 1 ", "unstable exits in a row"]);
    let steady = daemon.wait_online("bystander", 1);
    let app = daemon.wait_status("broken", "errored");
    let worker = &app.workers[0];
    let exit = worker.last_exit.clone().expect("it ended");
    assert_eq!((exit.code, exit.signal, exit.reason.as_str()), (Some(1), None, "crash"));
    assert_eq!(worker.pid, None);
    let restarts = worker.restarts;
    holds_for(ms(500), "no restart of an errored app", || {
        daemon.app("broken").workers[0].restarts == restarts
    });
    daemon.home.write(&file(&[fork("broken", &fixtures::worker(&["idle"])), bystander()]));
    let path = daemon.home.file().display().to_string();
    daemon.run(&["start", &path, "--only", "broken"]).expect_code(0);
    daemon.wait_online("broken", 1);
    assert_eq!(daemon.wait_online("bystander", 1), steady, "another app was touched");
}

/// Fault 2: what it costs.
#[test]
fn a_crash_loop_without_end_backs_off() {
    let broken = fork("broken", &fixtures::worker(&["exit", "1", "0"])).set("max_restarts", 0);
    let daemon = Daemon::foreground(file(&[broken, bystander()]));
    daemon.expects(&["exited with code 1 ", "unstable exits in a row"]);
    wait_until(ms(20_000), "eight restarts", || daemon.app("broken").workers[0].restarts >= 8);
    // After 100 ms and seven times half as much again the wait is over a second.
    let before = daemon.app("broken").workers[0].restarts;
    let mut seen = before;
    holds_for(ms(1_000), "at most two restarts in a second", || {
        seen = daemon.app("broken").workers[0].restarts;
        seen - before <= 2
    });
    assert!(daemon.log().len() + daemon.output().len() < 256 * 1024);
}

/// How many lines of the supervisor's log hold this.
fn lines_with(daemon: &Daemon, text: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains(text)).count()
}

/// Fault 2: what it writes.
#[test]
fn a_crash_loop_is_folded_in_the_log_and_told_in_full_to_who_follows() {
    let line = "[ \"$NODE_APP_INSTANCE\" = 0 ] && exit 1; exec sleep 1000";
    let broken = App::new("broken", &fixtures::shell(line)).instances(1).set("max_restarts", 0);
    let broken = broken.text("exp_backoff_restart_delay", "0ms");
    let daemon = Daemon::foreground(file(&[broken, bystander()]));
    daemon.expects(&["exited with code 1 "]);
    wait_until(ms(60_000), "200 restarts", || daemon.app("broken").workers[0].restarts >= 200);
    // The second instance never listens: it is ready after three seconds, in which the first goes on.
    let followed = daemon.run(&["scale", "broken", "2", "--json"]).expect_code(0);
    let told = followed.stdout.lines().filter(|line| line.contains("\"exited\"")).count();
    assert!(told > 20, "only {told} exits were told to the client: {followed:?}");
    let restarts = daemon.app("broken").workers[0].restarts;
    assert!(lines_with(&daemon, "broken/0") < 50, "{restarts} restarts, {}", daemon.log());
    assert_eq!(lines_with(&daemon, "broken/0 generation 1: starting"), 3, "{}", daemon.log());
    let counted = "128 times in the last ";
    assert_eq!(lines_with(&daemon, counted), 1, "{}", daemon.log());
    let line = daemon.log().lines().find(|line| line.contains(counted)).map(str::to_owned);
    assert!(line.is_some_and(|line| line.contains("the same way: exited with code 1")), "{}", daemon.log());
}

/// Fault 2: a state change is never folded away.
#[test]
fn the_end_of_a_folded_crash_loop_is_told() {
    let line = "[ -e mended ] && exec sleep 1000; exit 1";
    let broken = fork("broken", &fixtures::shell(line)).set("max_restarts", 0);
    let hopeless = fork("hopeless", &fixtures::worker(&["exit", "1", "0"])).set("max_restarts", 12);
    let quick = |app: App| app.text("exp_backoff_restart_delay", "1ms");
    let daemon = Daemon::foreground(file(&[quick(broken), quick(hopeless), bystander()]));
    daemon.expects(&["exited with code 1 ", "unstable exits in a row"]);
    daemon.wait_for_text("hopeless id 1: given up after 12 unstable exits in a row");
    wait_until(ms(20_000), "a folded loop", || daemon.app("broken").workers[0].restarts >= 5);
    daemon.home.put("mended", "");
    daemon.wait_for_text("ready, and stays up, after it failed");
    daemon.wait_online("broken", 1);
}

#[test]
fn a_crashed_worker_is_replaced_in_its_slot() {
    let port = free_port();
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port);
    let daemon = Daemon::foreground(app);
    daemon.expects(&["was ended by SIGABRT"]);
    let before = daemon.wait_online("api", 2);
    let old = daemon.online("api");
    // Not SIGSEGV: Rust programs survive one that no access caused.
    send(before[1], Signal::SIGABRT);
    wait_until(ms(10_000), "a replacement", || daemon.pids("api").iter().any(|pid| !before.contains(pid)));
    let new = daemon.online("api");
    assert_eq!((old[1].id, old[1].instance), (new[1].id, new[1].instance));
    assert_eq!(new[1].restarts, old[1].restarts + 1);
    assert_eq!(new[0].pid, old[0].pid);
    let exit = new[1].last_exit.clone().expect("it ended");
    assert_eq!((exit.code, exit.reason.as_str()), (None, "crash"), "death by signal is never an exit code");
    assert!(exit.signal.is_some_and(|signal| signal.contains("ABRT")));
}

/// Fault 8, with an owner outside.
#[test]
fn a_port_that_somebody_else_has_fails_that_app_only_and_names_the_owner() {
    let port = free_port();
    let _foreign = std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    let declared =
        App::new("declared", &fixtures::worker(&["serve", "fds"])).listen(port).set("max_restarts", 2);
    let (daemon, output) = Daemon::background(file(&[declared, bystander()]));
    daemon.expects(&["could not be started", "unstable exits in a row"]);
    let owner = std::process::id().to_string();
    output.expect_code(1).expect_stderr(&["declared", &port.to_string(), &owner]);
    daemon.wait_online("bystander", 1);
}

/// Fault 8, with a server that opens its port itself.
#[test]
fn a_failed_start_or_reload_names_who_has_the_port() {
    let port = free_port();
    let _foreign = std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    let app = |port: u16| App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port);
    let (daemon, output) = Daemon::background(app(port));
    daemon.expects(&["is in use by pid", "exited with code 1 ", "unstable exits in a row"]);
    let name = std::fs::read_to_string("/proc/self/comm").expect("we live");
    let owner = format!("0.0.0.0:{port} is in use by pid {} ({})", std::process::id(), name.trim_end());
    output.expect_code(1).expect_stderr(&["before it was ready", &owner]);
    let free = free_port();
    daemon.home.write(&app(free).to_string());
    daemon.run(&["restart", "api"]).expect_code(0);
    daemon.home.write(&app(port).to_string());
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["reload api", &owner]);
    daemon.run(&["kill"]).expect_code(0);
}

/// Fault 8: whoever lacks the port tries again as its policy says, and has it once its owner is gone.
#[test]
fn a_port_that_its_owner_gives_up_is_taken_by_who_waited_for_it() {
    for listens_itself in [true, false] {
        let port = free_port();
        let foreign = std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
        let app = if listens_itself {
            App::new("api", &fixtures::worker(&["serve"])).port(port)
        } else {
            App::new("api", &fixtures::worker(&["serve", "fds"])).listen(port)
        };
        let daemon = Daemon::foreground(app.instances(1).text("exp_backoff_restart_delay", "100ms"));
        daemon.expects(&["is in use by pid", "exited with code 1 ", "unstable exits in a row"]);
        daemon.expects(&["could not be started", "start failed"]);
        wait_until(ms(10_000), "a second attempt", || daemon.log().contains("2 unstable exits in a row"));
        drop(foreign);
        daemon.wait_online("api", 1);
        assert_eq!(get(port, "/").map(|(status, _)| status), Ok(200), "by itself: {listens_itself}");
    }
}

/// Nothing but a start or a reload is judged by `listen_timeout`: a server that boots slowly after a crash has its time.
#[test]
fn a_successor_of_a_crash_that_boots_late_is_launching_until_it_serves() {
    let Some(node) = fixtures::node("server.js") else { return };
    let line = format!("if [ -e late ]; then sleep 2; fi; exec {}", node.command.join(" "));
    let port = free_port();
    let app = App::new("api", &fixtures::shell(&line)).instances(1).port(port);
    let daemon = Daemon::foreground(app.text("listen_timeout", "500ms"));
    daemon.expects(&["was ended by SIGKILL", "listen_timeout"]);
    let before = daemon.wait_online("api", 1);
    daemon.home.put("late", "");
    send(before[0], Signal::SIGKILL);
    let launching = || daemon.app("api").workers.iter().all(|worker| worker.status == "launching");
    wait_until(ms(5_000), "its successor boots", launching);
    holds_for(ms(1_000), "twice its listen_timeout", launching);
    assert_ne!(daemon.wait_online("api", 1), before);
    assert_eq!(get(port, "/").map(|(status, _)| status), Ok(200));
}

#[test]
fn a_failed_start_in_the_foreground_names_who_has_the_port() {
    let port = free_port();
    let _foreign = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(1).port(port).set("max_restarts", 1);
    let daemon = Daemon::foreground(app);
    daemon.expects(&[
        "is in use by pid",
        "exited with code 1 ",
        "unstable exits in a row",
        "no app can run any more",
    ]);
    wait_until(ms(10_000), "the failure", || daemon.log().contains("api: start failed"));
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("start failed")).expect("it was just there");
    assert!(line.contains(&format!("in use by pid {}", std::process::id())), "{line}");
}

#[test]
fn a_stranger_on_ipv6_alone_does_not_have_the_port_of_ipv4() {
    let port = free_port();
    let Ok(_foreign) = clusterd::sys::listen::open("::".parse().expect("an address"), port, true, 8) else {
        return skip("the host has no IPv6");
    };
    let handed = App::new("api", &fixtures::worker(&["serve", "fds"])).listen(port);
    let daemon = Daemon::foreground(handed);
    daemon.wait_online("api", 1);
    drop(daemon);
    let daemon = Daemon::foreground(App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port));
    daemon.wait_online("api", 2);
    assert!(!daemon.log().contains("in use"), "{}", daemon.log());
}

/// Fault 8, with an owner inside.
#[test]
fn a_port_that_another_app_serves_is_refused_to_the_second() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let first = App::new("first", &node).instances(2).port(port);
    let daemon = Daemon::foreground(&first);
    daemon.expects(&["is served by app", "exited with code 1 ", "unstable exits in a row"]);
    daemon.wait_online("first", 2);
    let hammer = Hammer::start(port);
    let second = App::new("second", &node).instances(2).port(port).set("max_restarts", 2);
    daemon.home.write(&file(&[first, second]));
    let path = daemon.home.file().display().to_string();
    daemon.run(&["start", &path, "--only", "second"]).expect_code(1).expect_stderr(&[
        "second",
        "EADDRINUSE",
        &format!(":{port} is served by app \"first\" of this supervisor; give one of them another port"),
    ]);
    let first = daemon.wait_online("first", 2);
    let history = hammer.stop();
    history.expect_none_lost();
    assert!(history.by_pid().keys().all(|pid| first.contains(pid)), "{history:?}");
}

/// Stops `api` and proves that nothing of it is left the moment `stop` has returned.
fn stop_empties_the_tree(daemon: &Daemon, limit: Duration) {
    let output = daemon.run(&["stop", "api"]).expect_code(0);
    let left = daemon.workers();
    assert!(left.is_empty(), "stopped with {left:#?}");
    assert_eq!(daemon.app("api").status, "stopped");
    assert!(output.took < limit, "{output:?}");
    assert!(daemon.zombies().is_empty(), "{:?}", daemon.zombies());
}

/// Fault 14.
#[test]
fn a_worker_that_ignores_the_signal_is_killed_at_kill_timeout() {
    let app = fork("api", &fixtures::worker(&["ignore-signals"])).text("kill_timeout", "500ms");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["did not end in kill_timeout"]);
    daemon.wait_online("api", 1);
    daemon.wait_for_text("ignoring");
    stop_empties_the_tree(&daemon, ms(5_000));
    let exit = daemon.app("api").workers[0].last_exit.clone().expect("it ended");
    assert_eq!(exit.reason, "kill_timeout");
}

/// Fault 14: the whole tree.
#[test]
fn a_child_that_ignores_the_signal_is_killed_with_its_tree() {
    let app = fork("api", &fixtures::worker(&["stubborn-child"])).text("kill_timeout", "500ms");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["did not end in kill_timeout"]);
    wait_until(ms(10_000), "two processes", || daemon.workers().len() == 2);
    stop_empties_the_tree(&daemon, ms(5_000));
}

/// Fault 15.
#[test]
fn a_stopped_process_hears_the_stop() {
    let app = fork("api", &fixtures::worker(&["idle"])).text("kill_timeout", "20s");
    let daemon = Daemon::foreground(app);
    let pids = daemon.wait_online("api", 1);
    send(pids[0], Signal::SIGSTOP);
    // Well before kill_timeout: it was continued.
    stop_empties_the_tree(&daemon, ms(10_000));
}

/// Fault 15: on reload.
#[test]
fn a_stopped_process_is_replaced_by_a_reload() {
    let port = free_port();
    let app =
        App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port).text("drain_timeout", "2s");
    let daemon = Daemon::foreground(app);
    let pids = daemon.wait_online("api", 2);
    send(pids[0], Signal::SIGSTOP);
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.wait_online("api", 2);
    assert!(pids.iter().all(|&pid| !exists(pid)));
}

/// Fault 17.
#[test]
fn stopped_means_that_the_last_child_is_gone() {
    let line = "trap 'exit 0' INT; sh -c 'trap \"\" INT TERM; while :; do sleep 1; done' & while :; do sleep 0.05; done";
    let app = fork("api", &fixtures::shell(line)).text("kill_timeout", "700ms");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["did not end in kill_timeout"]);
    wait_until(ms(10_000), "leader and child", || daemon.workers().len() >= 2);
    stop_empties_the_tree(&daemon, ms(6_000));
}

/// Fault 17: a leader that dies by itself leaves nothing to its replacement.
#[test]
fn a_crashed_leaders_child_does_not_outlive_the_app() {
    let app = fork("api", &fixtures::worker(&["leave-stubborn-child"])).text("kill_timeout", "300ms");
    let daemon = Daemon::foreground(file(&[app.env("LIVE_MS", 1_200).set("max_restarts", 0), bystander()]));
    daemon.expects(&["exited with code 3 ", "did not end in kill_timeout"]);
    wait_until(ms(20_000), "a replacement", || daemon.app("api").workers[0].restarts >= 1);
    daemon.run(&["stop", "api"]).expect_code(0);
    let left = daemon.workers();
    assert_eq!(left.len(), 1, "more than the bystander: {left:#?}");
}

/// Fault 18.
#[test]
fn a_worker_that_daemonises_is_found_and_stopped() {
    let app = fork("api", &fixtures::worker(&["daemonise"])).set("max_restarts", 1);
    let daemon = Daemon::foreground(file(&[app, bystander()]));
    daemon.expects(&["exited with code 0 ", "unstable exits in a row"]);
    daemon.wait_for_text("daemonised");
    // Whatever state the policy gives it, no process of it outlives the stop.
    let _ = daemon.run(&["stop", "api"]);
    wait_until(ms(5_000), "the bystander alone", || {
        let left = daemon.workers();
        if left.len() == 1 { Ok(()) } else { Err(left) }
    });
}

/// Fault 18: whoever started it is told what is wrong, and what to do.
#[test]
fn a_program_that_puts_itself_in_the_background_is_told_to_stay() {
    let advice = "put itself in the background";
    let daemonising = fork("api", &fixtures::worker(&["daemonise"])).set("max_restarts", 2);
    let crashing = fork("crashing", &fixtures::shell("sleep 1000 & exit 3")).set("max_restarts", 2);
    let kill_timeout = |app: App| app.text("kill_timeout", "200ms");
    let apps = [kill_timeout(daemonising), kill_timeout(crashing), bystander()];
    let daemon = Daemon::foreground(file(&apps));
    daemon.expects(&[
        "exited with code 0 ",
        "exited with code 3 ",
        "unstable exits in a row",
        "did not end in kill_timeout",
    ]);
    let exit = |name: &str| {
        let app = daemon.wait_status(name, "errored");
        app.workers[0].last_exit.clone().map(|exit| (exit.code, exit.reason))
    };
    assert_eq!(exit("api"), Some((Some(0), "daemonised".to_owned())));
    assert_eq!(exit("crashing"), Some((Some(3), "crash".to_owned())));
    let log = daemon.log();
    let mut told = log.lines().filter(|line| line.contains(advice));
    assert!(told.clone().count() >= 1 && told.all(|line| line.contains("api/0")), "{log}");
    let described = daemon.run(&["describe", "api"]).expect_code(0);
    assert!(described.stdout.contains("(daemonised)"), "{described:?}");
    // In cluster mode the start waits for it, and says why it failed.
    let waited = App::new("waited", &fixtures::worker(&["daemonise"])).instances(1).set("max_restarts", 2);
    daemon.home.write(&file(&[kill_timeout(waited), bystander()]));
    let path = daemon.home.file().display().to_string();
    let output = daemon.run(&["start", &path, "--only", "waited"]).expect_code(1);
    output.expect_stderr(&["waited", advice, "daemon off;"]);
}

/// Fault 18: one that only escapes from the session.
#[test]
fn a_grandchild_in_a_session_of_its_own_is_stopped_with_its_app() {
    let app = fork("api", &fixtures::shell("setsid -f sleep 1000; exec sleep 1000"));
    let daemon = Daemon::foreground(app);
    wait_until(ms(10_000), "both", || daemon.workers().len() == 2);
    stop_empties_the_tree(&daemon, ms(6_000));
}

/// A leader with this trap, and a helper in a session of its own that prints on.
fn with_helper(trap: &str) -> App {
    let helper = r#"trap "" INT TERM; while :; do echo tick; sleep 0.05; done"#;
    let line = format!("trap {trap} INT; setsid -f sh -c '{helper}'; while :; do sleep 0.05; done");
    fork("api", &fixtures::shell(&line)).set("treekill", false)
}

/// Whether it leads a session (proc_pid_stat(5)).
fn leads(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid)
        .and_then(|pid| rustix::process::getsid(Some(pid)).ok().map(|session| session == pid))
        .unwrap_or(false)
}

fn ticks(daemon: &Daemon) -> usize {
    daemon.output().matches("tick").count()
}

/// PM2's #1036 and #3977.
#[test]
fn without_treekill_what_a_worker_started_outlives_it_and_is_named() {
    let app = with_helper("'exit 0'").text("kill_timeout", "30s");
    let daemon = Daemon::foreground(file(&[app, bystander()]));
    daemon.wait_online("api", 1);
    wait_until(ms(10_000), "the helper", || ticks(&daemon) > 0);
    let output = daemon.run(&["stop", "api"]).expect_code(0);
    assert!(output.stdout.contains("that it started run on (treekill = false): "), "{output:?}");
    assert!(output.took < ms(10_000), "it was waited for: {output:?}");
    let app = daemon.app("api");
    assert_eq!((app.status.as_str(), app.workers[0].pid), ("stopped", None));
    let before = ticks(&daemon);
    wait_until(ms(10_000), "it prints on", || ticks(&daemon) > before + 3);
    // A stop signal, a reload, the end of the app: none of it is the helper's.
    // It forks to sleep, and is two of them for a moment.
    let helper = |process: &support::daemon::Process| process.line.starts_with("sh -c trap");
    let helpers = || daemon.workers().into_iter().filter(helper).filter(|process| leads(process.pid)).count();
    daemon.run(&["start", "api"]).expect_code(0);
    wait_until(ms(10_000), "two helpers", || helpers() == 2);
    daemon.run(&["reload", "api"]).expect_code(0);
    wait_until(ms(10_000), "three helpers", || helpers() == 3);
    let descriptors = daemon.descriptors();
    daemon.run(&["delete", "api"]).expect_code(0);
    holds_for(ms(300), "the helpers run on", || helpers() == 3);
    for process in daemon.workers().into_iter().filter(helper).filter(|process| leads(process.pid)) {
        send(process.pid, Signal::SIGKILL);
    }
    // Two pipes for each of them.
    wait_until(ms(10_000), "their outputs are let go of", || daemon.descriptors() + 6 <= descriptors);
}

#[test]
fn without_treekill_a_worker_that_ignores_the_signal_is_killed_alone() {
    let daemon = Daemon::foreground(file(&[with_helper("''").text("kill_timeout", "300ms"), bystander()]));
    daemon.expects(&["did not end in kill_timeout"]);
    let pid = daemon.wait_online("api", 1)[0];
    wait_until(ms(10_000), "the helper", || ticks(&daemon) > 0);
    daemon.run(&["stop", "api"]).expect_code(0);
    let before = ticks(&daemon);
    assert!(!exists(pid));
    wait_until(ms(10_000), "it prints on", || ticks(&daemon) > before + 3);
}

/// Nor does the next supervisor end it, which ends the worker itself.
#[test]
fn without_treekill_a_helper_survives_a_supervisor_that_is_killed() {
    let helper = "trap '' INT TERM; while :; do sleep 0.05; done";
    let line = format!("setsid -f sh -c \"{helper}\"; trap '' INT; while :; do sleep 0.05; done");
    let app = || fork("api", &fixtures::shell(&line)).set("treekill", false);
    let daemon = Daemon::foreground(app());
    let pid = daemon.wait_online("api", 1)[0];
    // It leads its session a moment before it is what it is to be.
    let is_helper =
        |process: &support::daemon::Process| process.line.starts_with("sh -c trap") && leads(process.pid);
    let find = || daemon.workers().into_iter().find(is_helper).map(|process| process.pid);
    let helper = wait_until(ms(10_000), "the helper", find);
    let daemon = Builder::new(app()).start_in(daemon.kill_hard());
    daemon.wait_online("api", 1);
    assert!(exists(helper), "ended by the next supervisor");
    assert!(state_and_parent(pid).is_none_or(|(state, _)| state == 'Z'), "beside its successor");
}

/// Fault 19.
#[test]
fn orphans_are_reaped_and_their_exit_codes_mean_nothing() {
    let app = fork("api", &fixtures::worker(&["orphans", "300"]));
    let daemon = Daemon::foreground(app);
    let pids = daemon.wait_online("api", 1);
    daemon.wait_for_text("300 orphans");
    wait_until(ms(10_000), "no zombies", || {
        let zombies = daemon.zombies();
        if zombies.is_empty() { Ok(()) } else { Err(zombies) }
    });
    assert_eq!(daemon.wait_online("api", 1), pids);
    assert_eq!(daemon.app("api").workers[0].restarts, 0);
}

/// Fault 20.
#[test]
fn a_grandchild_that_keeps_the_output_open_does_not_hide_a_death() {
    let app =
        fork("api", &fixtures::worker(&["keep-stdout-open"])).env("LIVE_MS", 1_200).set("max_restarts", 0);
    let daemon = Daemon::foreground(app);
    daemon.expects(&["exited with code 3 "]);
    wait_until(ms(20_000), "the death, and a replacement", || {
        let app = daemon.app("api");
        app.workers.iter().any(|worker| {
            worker.restarts >= 1 && worker.last_exit.as_ref().is_some_and(|exit| exit.code == Some(3))
        })
    });
}

/// Fault 26: a process that was given a dead worker's number is never signalled.
#[test]
fn a_reused_process_id_is_never_signalled() {
    if !root() {
        return skip("only root can make a PID namespace");
    }
    let home = Home::new(None);
    let crashing = fork("crashing", &fixtures::worker(&["exit", "1", "0"])).set("max_restarts", 0);
    let fixture = fixtures::worker(&["leave-stubborn-child"]);
    let leaving = fork("leaving", &fixture).set("max_restarts", 0).text("kill_timeout", "50ms");
    home.write(&file(&[
        crashing.text("exp_backoff_restart_delay", "0ms"),
        leaving.text("exp_backoff_restart_delay", "0ms"),
    ]));
    // Some 300 numbers in all, and hundreds of bystanders that take them in turn.
    home.put(
        "churn.sh",
        "echo 400 > /proc/sys/kernel/pid_max 2>/dev/null || exit 77\n\
         \"$1\" ecosystem.toml >out 2>&1 &\n\
         supervisor=$!\n\
         i=0\n\
         while [ $i -lt 1500 ]; do\n\
         sh -c 'trap \"touch hit\" INT TERM; sleep 0.02' &\n\
         [ $((i % 20)) -ne 0 ] || { \"$1\" restart all >/dev/null 2>&1 & wait $!; }\n\
         i=$((i + 1))\n\
         done\n\
         kill -0 $supervisor && kill -TERM $supervisor && wait $supervisor\n",
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "churn.sh"]).arg(home.binary());
    command.current_dir(home.apps()).env("CLUSTERD_HOME", home.path()).env("HARNESS_HOME", home.path());
    let mut child = command.spawn().expect("unshare is part of util-linux");
    let status = wait_until(ms(90_000), "the end of the churn", || child.try_wait().ok().flatten());
    if status.code() == Some(77) {
        return skip("this kernel has no pid_max per namespace");
    }
    assert!(!home.apps().join("hit").exists(), "a bystander was signalled");
    assert_eq!(
        status.code(),
        Some(0),
        "{}",
        std::fs::read_to_string(home.apps().join("out")).unwrap_or_default()
    );
}

/// A process of another user that only counts.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn start(user: u32) -> Sleeper {
        let mut command = std::process::Command::new("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
        Sleeper(command.args(["sleep", "1000"]).spawn().expect("setpriv is part of util-linux"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fault 27.
#[test]
fn a_host_without_processes_left_costs_no_worker_and_no_restart() {
    if !root() {
        return skip("only root can become a user of whom nothing else runs");
    }
    // RLIMIT_NPROC counts all processes of a user, so this one must be nobody else's.
    let user = 61_000 + std::process::id() % 2_000;
    let others: Vec<Sleeper> = (0..5).map(|_| Sleeper::start(user)).collect();
    let app = fork("api", &fixtures::worker(&["idle"])).instances(6).text("exec_mode", "fork");
    let daemon = Builder::new(app).user(Some(user)).wrap(&["prlimit", "--nproc=9:9"]).start();
    daemon.expects(&["could not be started", "next start in"]);
    wait_until(ms(10_000), "the first workers", || daemon.pids("api").len() >= 2);
    let first = daemon.pids("api");
    holds_for(ms(700), "the first workers stay, and no room for all", || {
        let now = daemon.pids("api");
        now.len() < 6 && first.iter().all(|pid| now.contains(pid))
    });
    drop(others);
    daemon.wait_online("api", 6);
    let app = daemon.app("api");
    assert!(app.workers.iter().all(|worker| worker.unstable_restarts == 0), "charged to the app: {app:#?}");
}

/// Fault 27, with ENOMEM: by strace, which reaches a static program, too.
#[test]
fn a_host_without_memory_for_a_process_is_asked_again_and_the_app_not_charged() {
    if support::runtime("strace").is_none() {
        return;
    }
    let inject = ["strace", "-D", "-qqq", "-o", "/dev/null", "-e", "trace=clone3,fork,vfork"];
    let fault = ["-e", "inject=clone3:error=ENOMEM:when=2..5"];
    let app = fork("api", &fixtures::worker(&["idle"])).instances(2).set("max_restarts", 1);
    let daemon = Builder::new(app.text("exec_mode", "fork")).wrap(&[&inject[..], &fault].concat()).start();
    daemon.expects(&["could not be started", "next start in"]);
    daemon.wait_for_text("clone: Cannot allocate memory");
    let first = wait_until(ms(5_000), "the first worker", || daemon.pids("api").first().copied());
    daemon.wait_online("api", 2);
    let app = daemon.app("api");
    assert!(daemon.pids("api").contains(&first), "the first one was touched: {first:?} {app:#?}");
    assert_eq!(daemon.log().matches("clone: ").count(), 4, "{}", daemon.log());
    assert!(app.workers.iter().all(|worker| worker.unstable_restarts == 0), "charged to the app: {app:#?}");
}

/// Fault 28: the limit of the host is the workers', not the supervisor's.
/// Whatever the one descriptor is that the kernel has no room to watch: nobody runs unheard.
#[test]
fn a_worker_that_cannot_be_watched_is_not_there() {
    let Some(python) = fixtures::python("refused.py") else { return };
    let mut short = 0;
    // From the first pipe of one of the later workers to the notifications of the last.
    for least in 38..56 {
        let port = free_port();
        let app = App::new("api", &fixtures::worker(&["serve"])).instances(6).port(port);
        // epoll_ctl(2) of a descriptor with this number or a higher one.
        let (call, errno, least) =
            (libc::SYS_epoll_ctl.to_string(), libc::ENOSPC.to_string(), least.to_string());
        let wrap = [&python.command[0], "refused.py", &call, &errno, "2", &least];
        let mut daemon = Builder::new(app).wrap(&wrap).start();
        daemon.expects(&["could not be started", "next start in"]);
        let failures = || daemon.log().matches("cannot watch its descriptors").count();
        wait_until(ms(10_000), "all that can start, and one that cannot", || {
            failures() > 0 || daemon.log().matches("ready after").count() == 6
        });
        let ready = |pid: i32| daemon.log().contains(&format!("pid {pid}: ready after"));
        wait_until(ms(10_000), "each process that lives is a worker that serves", || {
            daemon.workers().iter().all(|worker| ready(worker.pid))
        });
        if failures() > 0 && !daemon.workers().is_empty() {
            short += 1;
            assert_eq!(get(port, "/").expect("an answer").0, 200);
        }
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait_exit(ms(20_000)), 0);
        assert_eq!(daemon.home.processes(), []);
    }
    assert!(short > 0, "nobody was ever short of anything");
}

#[test]
fn workers_get_the_original_limit_of_descriptors() {
    let app = fork("api", &fixtures::shell("echo limit $(ulimit -Sn) $(ulimit -Hn) end; exec sleep 1000"));
    let daemon = Builder::new(app).wrap(&["prlimit", "--nofile=128:2048"]).start();
    daemon.wait_for_text("limit 128 2048 end");
}

/// Fault 28: no descriptor left, by clients.
#[test]
fn clients_cannot_take_the_last_descriptor() {
    let port = free_port();
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port);
    let daemon = Builder::new(app).wrap(&["prlimit", "--nofile=48:48"]).start();
    daemon.expects(&["was ended by SIGKILL"]);
    daemon.wait_online("api", 2);
    let mut clients: Vec<_> = Vec::new();
    for _ in 0..100 {
        // A full backlog is as good: the supervisor has taken what it wants.
        match non_blocking_client(&daemon) {
            Some(client) => clients.push(client),
            None => break,
        }
    }
    let before = cpu_ticks(daemon.pid).expect("it runs");
    let hammer = Hammer::start(port);
    hammer.wait_answers(100);
    holds_for(ms(500), "the supervisor runs", || exists(daemon.pid));
    let used = cpu_ticks(daemon.pid).expect("it runs") - before;
    assert!(used < 60, "the supervisor spins: {used} ticks");
    hammer.stop().expect_none_lost();
    drop(clients);
    daemon.wait_online("api", 2);
    // A worker can still be replaced: descriptors were kept back for it.
    send(daemon.pids("api")[0], Signal::SIGKILL);
    wait_until(ms(10_000), "the replacement", || {
        daemon.app("api").workers.iter().any(|worker| worker.restarts == 1)
    });
    daemon.wait_online("api", 2);
}

/// Fault 28: no descriptor left, by the apps themselves.
#[test]
fn with_thirty_two_descriptors_what_fits_runs_and_the_rest_is_told() {
    let fits = App::new("fits", &fixtures::worker(&["serve"])).instances(1).port(free_port());
    let many = App::new("many", &fixtures::worker(&["serve"])).instances(12).port(free_port());
    let daemon = Builder::new(file(&[fits, many])).wrap(&["prlimit", "--nofile=32:32"]).start();
    daemon.expects(&[
        "no log files are written",
        "could not be started",
        "next start in",
        "start failed: a later stop",
        "reload to generation 2 failed",
    ]);
    daemon.wait_online("fits", 1);
    daemon.wait_for_text("RLIMIT_NOFILE");
    let first = daemon.pids("many");
    let before = cpu_ticks(daemon.pid).expect("it runs");
    holds_for(ms(1_500), "what serves goes on, list answers, and there is no room for all", || {
        let app = daemon.try_app("many")?;
        let online: Vec<i32> = app.workers.iter().filter(|w| w.ready).filter_map(|w| w.pid).collect();
        let fine = online.len() < 12 && first.iter().all(|pid| online.contains(pid));
        if fine { Ok(()) } else { Err(format!("{first:?} {app:#?}")) }
    });
    let used = cpu_ticks(daemon.pid).expect("it runs") - before;
    assert!(used < 60, "the supervisor spins: {used} ticks of 10 ms in a second and a half");
    let app = daemon.app("many");
    assert!(app.workers.iter().all(|worker| worker.unstable_restarts == 0), "charged to the app: {app:#?}");
    // With fewer to run there is room again; not for two generations, which is said before one is touched.
    daemon.run(&["stop", "many"]).expect_code(0);
    daemon.run(&["reload", "fits"]).expect_code(1).expect_stderr(&["RLIMIT_NOFILE 32", "clusterd restart"]);
    daemon.run(&["restart", "fits"]).expect_code(0);
    daemon.wait_online("fits", 1);
}

fn non_blocking_client(daemon: &Daemon) -> Option<std::os::fd::OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    let address = UnixAddr::new(&daemon.home.socket()).expect("homes have short names");
    connect(std::os::fd::AsRawFd::as_raw_fd(&client), &address).ok()?;
    Some(client)
}

/// Fault 29.
#[test]
fn a_worker_sees_its_own_descriptors_only() {
    let port = free_port();
    let worker = fixtures::worker(&["descriptors"]);
    let declared = App::new("declared", &worker).instances(1).listen(port);
    // The supervisor itself is started with a descriptor that nobody wanted it to have.
    let leak = ["sh", "-c", "exec 9</etc/passwd; exec \"$@\"", "sh"];
    let daemon = Builder::new(file(&[fork("plain", &worker), declared])).wrap(&leak).start();
    wait_until(ms(10_000), "both lists", || daemon.output().matches("end of descriptors").count() == 2);
    let output = daemon.output();
    let numbers = |app: &str| -> Vec<String> {
        let lines = output.lines().filter(|line| line.trim_start().starts_with(app));
        lines.filter_map(|line| line.split("descriptor ").nth(1)).map(|line| line[..1].to_owned()).collect()
    };
    assert_eq!(numbers("plain"), ["0", "1", "2"], "{output}");
    assert_eq!(numbers("declared"), ["0", "1", "2", "3"], "{output}");
    assert!(output.contains("descriptor 0 /dev/null"), "{output}");
}

#[test]
fn a_worker_starts_with_a_clean_signal_state_in_a_session_of_its_own() {
    let signals = ["/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let apps =
        [fork("signals", &Fixture::new(&signals)), fork("session", &fixtures::worker(&["environment"]))];
    // SIGINT and SIGPIPE are ignored when the supervisor is started from a careless script.
    let careless = ["sh", "-c", "trap '' INT PIPE; exec \"$@\"", "sh"];
    let daemon = Builder::new(file(&apps)).wrap(&careless).start();
    daemon.expects(&["exited with code 0 ", "unstable exits in a row"]);
    daemon.wait_for_text("signals-0 | SigIgn:");
    daemon.wait_for_text("end of environment");
    let output = daemon.output();
    assert!(output.contains("signals-0 | SigBlk:\t0000000000000000"), "{output}");
    assert!(output.contains("signals-0 | SigIgn:\t0000000000000000"), "{output}");
    let after = |mark: &str| output.split(mark).nth(1).and_then(|rest| rest.split_whitespace().next());
    assert_eq!(after("session-0 | session "), after("end of environment "), "{output}");
}

/// A library that knows no real-time signals would never see the ends behind this one.
#[test]
fn a_worker_that_a_real_time_signal_ends_is_reaped_and_so_are_all_after_it() {
    let daemon = Daemon::foreground(fork("api", &fixtures::worker(&["idle"])).instances(2));
    daemon.expects(&["(crash)", "unstable exits in a row"]);
    let mut before = daemon.wait_online("api", 2);
    for signal in ["34", "SIGKILL"] {
        daemon.run(&["signal", signal, "api"]).expect_code(0);
        before = wait_until(ms(20_000), "others", || {
            let now = daemon.pids("api");
            let others = now.len() == 2 && now.iter().all(|pid| !before.contains(pid));
            if others { Ok(now) } else { Err(now) }
        });
    }
    daemon.wait_for_text("was ended by signal 34");
}

#[test]
fn the_hosts_own_protocol_variables_never_reach_a_worker() {
    let app = fork("api", &fixtures::worker(&["environment"])).env("DECLARED", "yes");
    let daemon = Builder::new(app)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDNAMES", "host")
        .env("WATCHDOG_USEC", "1000")
        .env("NOTIFY_SOCKET", "/run/host-notify")
        .env("INHERITED", "yes")
        .expects(&["the service manager cannot be told"])
        .start();
    daemon.wait_for_text("end of environment");
    let output = daemon.output();
    for never in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "/run/host-notify"] {
        assert!(!output.contains(never), "{never} in {output}");
    }
    for always in
        ["DECLARED=yes", "INHERITED=yes", "NODE_APP_INSTANCE=0", "CLUSTERD_APP=api", "CLUSTERD_INSTANCE=0"]
    {
        assert!(output.contains(always), "no {always} in {output}");
    }
}

#[test]
fn interpreters_follow_the_extension() {
    let mut apps = Vec::new();
    let scripts = [
        ("node", "hello.js", "console.log('hello from', 'js'); setInterval(() => {}, 1000)"),
        ("python3", "hello.py", "import time\nprint('hello from', 'py', flush=True)\ntime.sleep(1000)"),
        ("perl", "hello.pl", "$| = 1; print \"hello from pl\\n\"; sleep 1000;"),
        ("sh", "hello.sh", "echo hello from sh; exec sleep 1000"),
    ];
    let home = Arc::new(Home::new(None));
    let mut expected = Vec::new();
    for (runtime, name, text) in scripts {
        if support::runtime(runtime).is_some() {
            home.put(name, text);
            apps.push(App::bare(runtime).text("script", name).text("exec_mode", "fork"));
            expected.push(format!("hello from {}", &name[6..]));
        }
    }
    let daemon = Builder::new(file(&apps)).start_in(home);
    expected.iter().for_each(|line| daemon.wait_for_text(line));
}

/// Fault 54.
#[test]
fn closing_its_output_is_not_a_death() {
    let app = fork("api", &fixtures::worker(&["close-output"]));
    let daemon = Daemon::foreground(app);
    daemon.wait_for_text("closing");
    let pids = daemon.wait_online("api", 1);
    let before = cpu_ticks(daemon.pid).expect("it runs");
    holds_for(ms(700), "the worker lives", || exists(pids[0]));
    assert_eq!(daemon.wait_online("api", 1), pids);
    assert!(cpu_ticks(daemon.pid).expect("it runs") - before < 40, "the supervisor spins on a closed pipe");
}

/// Fault 58.
#[test]
fn absurd_values_start_nothing() {
    let absurd = [
        ("instances", "10000000"),
        ("instances", "1.5"),
        ("instances", "\"lots\""),
        ("kill_timeout", "\"1000000000000000000s\""),
        ("kill_timeout", "-1"),
        ("kill_timeout", "0.5"),
        ("listen_timeout", "\"soon\""),
        ("max_restarts", "-1"),
        ("max_surge", "0"),
        ("name", "\"../x\""),
        ("name", "\"\""),
        ("kill_signal", "\"SIGNOTHING\""),
        ("listen", "[\"0.0.0.0:99999\"]"),
        ("listen", "[\"nonsense\"]"),
        ("exec_mode", "\"both\""),
        ("instanses", "2"),
    ];
    let home = Home::new(None);
    let path = home.file().display().to_string();
    let mut accepted = Vec::new();
    for (key, value) in absurd {
        let app = fork("api", &fixtures::worker(&["idle"]));
        let text = match key {
            "name" => app.to_string().replace("name = \"api\"", &format!("name = {value}")),
            _ => app.set(key, value).to_string(),
        };
        home.write(&text);
        for verb in ["validate", "start"] {
            let output = home.run(&[verb, &path]);
            let told = output.stderr.contains(key) && output.stderr.contains("ecosystem.toml");
            if output.code != 2 || !told {
                accepted.push(format!("{verb} with {key} = {value}: {output:?}"));
            }
        }
    }
    assert!(accepted.is_empty(), "not rejected: {accepted:#?}");
    home.write(&file(&[bystander(), bystander()]));
    home.run(&["validate", &path]).expect_code(2).expect_stderr(&["bystander"]);
    assert_eq!(home.processes(), [], "something was started");
}

/// Stops `api` in the middle of this load.
fn stop_loses_nothing(fixture: &Fixture, user: Option<u32>, load: Load) {
    let port = free_port();
    let app = App::new("api", fixture).instances(3).port(port).delay(50).text("drain_idle", "400ms");
    let daemon = Daemon::foreground_as(user, app);
    let pids = daemon.wait_online("api", 3);
    let hammer = load.to(port).start();
    let asked = Instant::now();
    daemon.run(&["stop", "api"]).expect_code(0);
    let done = Instant::now();
    assert!(daemon.workers().is_empty());
    let history = hammer.stop();
    history.expect_only_refused_after(asked);
    history.expect_nothing_from(&pids, done);
}

#[test]
fn stop_loses_nothing_that_was_accepted() {
    for name in ["node", "asyncio", "go", "perl", "http.server", "epoll-first"] {
        let Some(fixture) = fixtures::server(name) else { continue };
        stop_loses_nothing(&fixture, None, Load::on(0));
    }
    let Some(node) = fixtures::server("node") else { return };
    for user in users().into_iter().filter(Option::is_some) {
        stop_loses_nothing(&node, user, Load::on(0));
    }
}

#[test]
fn stop_loses_nothing_on_kept_connections_and_streams() {
    let Some(node) = fixtures::node("server.js") else { return };
    for user in users() {
        stop_loses_nothing(&node, user, Load::on(0).keep_alive(ms(30)));
        stop_loses_nothing(&node, user, Load::on(0).path("/stream?n=5&pause=100"));
    }
}

#[test]
fn a_stop_refuses_new_clients_at_once_and_finishes_what_was_accepted() {
    let Some(node) = fixtures::node("server.js") else { return };
    for user in users() {
        let port = free_port();
        let daemon = Daemon::foreground_as(user, App::new("api", &node).instances(2).port(port).delay(3_000));
        daemon.wait_online("api", 2);
        let asked = std::thread::spawn(move || get(port, "/"));
        wait_until(ms(5_000), "the request is with a worker", || {
            let list = daemon.run(&["list", "--json", "--connections"]).stdout;
            list.contains("\"connections\":1")
        });
        daemon.run(&["stop", "api", "--no-wait"]).expect_code(0);
        let refused = || {
            let client = std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), ms(500));
            client.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        wait_until(ms(1_000), "new clients are refused", refused);
        assert!(!asked.is_finished() && !daemon.workers().is_empty(), "{user:?}: nothing was left to finish");
        // Who comes back in the meantime is not in the way of the old, nor they in his.
        daemon.run(&["start", "api"]).expect_code(0);
        assert!(!refused(), "{user:?}: started, and nobody serves");
        asked.join().expect("no panic").expect("it was accepted");
        daemon.run(&["kill"]).expect_code(0);
    }
}

#[test]
fn start_after_stop_serves_again_and_restart_takes_new_processes() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(App::new("api", &node).instances(2).port(port));
    let first = daemon.wait_online("api", 2);
    daemon.run(&["stop", "api"]).expect_code(0);
    assert!(get(port, "/").is_err(), "a stopped app serves");
    daemon.run(&["start", "api"]).expect_code(0);
    let second = daemon.wait_online("api", 2);
    daemon.run(&["restart", "api"]).expect_code(0);
    let third = daemon.wait_online("api", 2);
    assert!(first.iter().all(|pid| !second.contains(pid)) && second.iter().all(|pid| !third.contains(pid)));
    assert!(get(port, "/").is_ok());
}

/// Several kills in a row must not leave a slot that nobody minds.
#[test]
fn workers_killed_again_and_again_always_come_back() {
    let port = free_port();
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(3).port(port).set("max_restarts", 0);
    let daemon = Daemon::foreground(app);
    daemon.expects(&["was ended by SIGKILL", "unstable exits in a row"]);
    for _ in 0..5 {
        let before = daemon.wait_online("api", 3);
        before.iter().for_each(|&pid| send(pid, Signal::SIGKILL));
        wait_until(ms(10_000), "other workers", || {
            daemon.pids("api").iter().all(|pid| !before.contains(pid))
        });
    }
    daemon.wait_online("api", 3);
    assert!(daemon.zombies().is_empty());
}

#[test]
fn the_environment_stays_until_it_is_asked_to_be_replaced() {
    let line = "echo \"value [$CD_TEST]\"; exec sleep 1000";
    let daemon = Daemon::foreground(fork("api", &fixtures::shell(line)));
    daemon.wait_for_text("value []");
    let path = daemon.home.file().display().to_string();
    let restart = |words: &[&str], value: &str| {
        let running = daemon.home.spawn_with(words, |command| {
            command.env("CD_TEST", value);
        });
        daemon.home.finish(running).expect_code(0);
    };
    restart(&["restart", &path], "kept out");
    restart(&["restart", "api"], "kept out");
    wait_until(ms(10_000), "three starts", || daemon.output().matches("value [").count() == 3);
    assert!(!daemon.output().contains("kept out"));
    restart(&["restart", "api", "--update-env"], "by name");
    daemon.wait_for_text("value [by name]");
    restart(&["reload", &path, "--update-env"], "by file");
    daemon.wait_for_text("value [by file]");
}

/// Fault 72, in its first form: nobody serves unsupervised, and no two generations unknown to each other.
#[test]
fn workers_end_with_a_supervisor_that_is_killed_and_the_next_one_ends_what_they_left() {
    let Some(node) = fixtures::node("server.js") else { return };
    for user in users() {
        let port = free_port();
        let line = "(trap '' HUP INT TERM; exec sleep 1000) & exec \"$0\" server.js";
        let app = Fixture::new(&["/bin/sh", "-c", line, &node.command[0]]);
        let app = App::new("api", &app).instances(2).port(port);
        let daemon = Daemon::foreground_as(user, app);
        let before = daemon.wait_online("api", 2);
        wait_until(ms(5_000), "what the workers started", || sleeps(&daemon).len() == 2);
        let sleeping = sleeps(&daemon);
        let home = daemon.kill_hard();
        wait_until(ms(5_000), "the end of the workers", || before.iter().all(|pid| !exists(*pid)));
        assert!(sleeping.iter().all(|pid| exists(*pid)), "they were not told");
        let next = Builder::new(std::fs::read_to_string(home.file()).expect("it is ours")).user(user);
        let daemon = next.start_in(home);
        daemon.expects(&["left behind by a supervisor"]);
        daemon.wait_online("api", 2);
        wait_until(ms(5_000), "the end of what they left", || sleeping.iter().all(|pid| !exists(*pid)));
        let told = "2 processes were left behind by a supervisor that was killed";
        assert_eq!(daemon.log().matches(told).count(), 1, "{}", daemon.log());
        wait_until(ms(5_000), "those of the new workers", || sleeps(&daemon).len() == 2);
    }
}

/// Whatever its session, its parent and its number are by now, and also where the host has no descriptors of
/// processes.
#[test]
fn what_left_its_workers_session_or_goes_on_forking_is_ended_by_the_next_supervisor_too() {
    let Some(python) = fixtures::python("refused.py") else { return };
    // One in a session of its own, an orphaned grandchild, and one that is another process every few moments.
    let line = "setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000 &' & \
                setsid sh -c 'hop() { sleep 0.02; hop & }; hop' & exec sleep 2000";
    let refuse = |errno: i32| {
        let (call, errno) = (libc::SYS_pidfd_open.to_string(), errno.to_string());
        let python = [&python.command[0], "refused.py"].map(str::to_owned);
        python.into_iter().chain([call, errno, "1".to_owned(), "0".to_owned()]).collect::<Vec<_>>()
    };
    for wrap in [Vec::new(), refuse(libc::ENOSYS), refuse(libc::EPERM)] {
        let app = App::new("api", &Fixture::new(&["/bin/sh", "-c", line])).instances(1);
        let daemon = Daemon::foreground(app.text("exec_mode", "fork"));
        daemon.wait_online("api", 1);
        let left = |home: &Home| {
            let mut left = home.processes();
            left.retain(|process| process.line == "sleep 1000" || process.line.contains("hop()"));
            left
        };
        wait_until(ms(5_000), "what the worker started", || left(&daemon.home).len() >= 4);
        let home = daemon.kill_hard();
        // A look at /proc may miss who becomes another process just then.
        wait_until(ms(5_000), "they were not told, and live", || left(&home).len() >= 4);
        let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
        let next = App::new("api", &fixtures::worker(&["idle"])).instances(1).text("exec_mode", "fork");
        let daemon = Builder::new(next).wrap(&wrap).start_in(home);
        daemon.expects(&["left behind by a supervisor"]);
        assert_eq!(left(&daemon.home), [], "{}", daemon.log());
        holds_for(ms(200), "none comes back", || left(&daemon.home).is_empty());
        daemon.wait_online("api", 1);
        assert!(daemon.log().contains("processes were left behind by a supervisor that was killed"));
        assert!(!daemon.log().contains("does not end"), "{}", daemon.log());
    }
}

fn sleeps(daemon: &Daemon) -> Vec<i32> {
    let all = daemon.home.processes().into_iter();
    all.filter(|process| process.line.starts_with("sleep")).map(|process| process.pid).collect()
}

#[test]
fn a_broken_state_file_is_moved_aside_and_costs_nothing() {
    let home = Home::new(None);
    std::fs::create_dir_all(home.path()).expect("it is ours");
    std::fs::write(home.path().join("state.json"), "{\"version\":1,\"boot").expect("it is ours");
    let daemon = Builder::new(App::new("api", &fixtures::worker(&["idle"]))).start_in(Arc::new(home));
    daemon.expects(&["it is moved aside"]);
    daemon.wait_online("api", 1);
    assert!(daemon.log().contains("it is moved aside"), "{}", daemon.log());
    assert!(daemon.home.path().join("state.json.bad").exists());
    wait_until(ms(5_000), "a good one", || {
        std::fs::read_to_string(daemon.home.path().join("state.json"))
            .is_ok_and(|text| text.contains("\"pid\""))
    });
}
