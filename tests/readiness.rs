//! Who counts as ready: only a process that proved it itself.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use clusterd::control::protocol::AppInfo;
use support::daemon::Builder;
use support::hammer::get;
use support::wait::holds_for;
use support::{App, Daemon, Fixture, Hammer, Load, fixtures, free_port, users, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn api(fixture: &Fixture, port: u16) -> App {
    App::new("api", fixture).instances(2).port(port)
}

fn ready(app: &AppInfo) -> usize {
    app.workers.iter().filter(|worker| worker.ready || worker.status == "online").count()
}

/// Nobody may be online before the file `go` lies in the apps' folder.
fn online_only_after_go(daemon: &Daemon, workers: usize) {
    wait_until(ms(10_000), "launching workers", || {
        daemon.try_app("api").is_ok_and(|app| {
            app.workers.iter().filter(|worker| worker.status == "launching" && worker.pid.is_some()).count()
                == workers
        })
    });
    holds_for(ms(400), "nobody is online", || ready(&daemon.app("api")) == 0);
    daemon.home.put("go", "");
    daemon.wait_online("api", workers);
}

#[test]
fn a_worker_is_online_when_it_listens_and_not_before() {
    let Some(node) = fixtures::node("server.js") else { return };
    for user in users() {
        let port = free_port();
        let line = "while [ ! -e go ]; do sleep 0.02; done; exec \"$0\" server.js";
        let program = node.command[0].clone();
        let waiting = Fixture::new(&["/bin/sh", "-c", line, &program]);
        let daemon = Daemon::foreground_as(user, api(&waiting, port));
        online_only_after_go(&daemon, 2);
        assert_eq!(get(port, "/").expect("an answer").0, 200);
        let listen = daemon.app("api").listen;
        assert!(listen.iter().any(|address| address.ends_with(&format!(":{port}"))), "{listen:?}");
    }
}

const LEVEL: &str = "their sockets duplicated and steered";

#[test]
fn the_level_that_holds_is_told_once_it_is_proven() {
    let Some(node) = fixtures::node("server.js") else { return };
    let line = "while [ ! -e go ]; do sleep 0.02; done; exec \"$0\" server.js";
    let waiting = Fixture::new(&["/bin/sh", "-c", line, &node.command[0]]);
    for user in users() {
        let daemon = Daemon::foreground_as(user, api(&waiting, free_port()));
        wait_until(ms(10_000), "two processes", || {
            daemon.try_app("api").is_ok_and(|app| app.workers.iter().all(|worker| worker.pid.is_some()))
        });
        holds_for(ms(200), "nothing is proven yet", || !daemon.log().contains(LEVEL));
        daemon.home.put("go", "");
        daemon.wait_online("api", 2);
        assert_eq!(daemon.log().matches(LEVEL).count(), 1, "{}", daemon.log());
        let status = std::fs::read_to_string("/proc/self/status").expect("we live");
        if user.is_some() && status.contains("NoNewPrivs:\t0") {
            assert_eq!(daemon.log().matches("api: without CAP_SYS_ADMIN").count(), 1, "{}", daemon.log());
        }
    }
}

#[test]
fn a_host_that_refuses_duplicates_says_what_holds_instead() {
    let Some(python) = fixtures::python("refused.py") else { return };
    for errno in [libc::EPERM, libc::ENOSYS] {
        let (handed, own) = (free_port(), free_port());
        let declared = App::new("api", &fixtures::worker(&["serve", "fds"])).instances(2).listen(handed);
        let stranger = App::new("own", &fixtures::worker(&["serve"])).instances(2).port(own);
        let (call, errno) = (libc::SYS_pidfd_getfd.to_string(), errno.to_string());
        let filter = [&python.command[0], "refused.py", &call, &errno, "0", "0"];
        let daemon = Builder::new(support::file(&[declared, stranger])).wrap(&filter).start();
        daemon.wait_online("api", 2);
        daemon.wait_online("own", 2);
        daemon.wait_for_text("those of the supervisor's are put in their place");
        for (app, port) in [("api", handed), ("own", own)] {
            daemon.run(&["reload", app]).expect_code(0);
            assert_eq!(get(port, "/").expect("an answer").0, 200);
        }
        let log = daemon.log();
        assert!(!log.contains(LEVEL), "{log}");
        assert_eq!(log.matches("ports: ").count(), 1, "{log}");
    }
}

/// Where no connection can be ended from outside, those that are used are waited for until `drain_timeout`.
#[test]
fn a_host_that_refuses_duplicates_has_used_connections_waited_for() {
    let Some(python) = fixtures::python("refused.py") else { return };
    let Some(node) = fixtures::node("listen_fd.js") else { return };
    let port = free_port();
    let app = App::new("api", &node).instances(1).listen(port).delay(20).text("drain_timeout", "1500ms");
    let (call, errno) = (libc::SYS_pidfd_getfd.to_string(), libc::EPERM.to_string());
    let daemon = Builder::new(app).wrap(&[&python.command[0], "refused.py", &call, &errno, "0", "0"]).start();
    daemon.expects(&["drain_timeout is over"]);
    daemon.wait_online("api", 1);
    let load = Load::on(port).keep_alive(ms(20)).start_silently();
    load.wait_answers(20);
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.wait_for_text("drain_timeout is over");
}

#[test]
fn a_declared_socket_is_not_proof_that_somebody_accepts() {
    let port = free_port();
    let line = "while [ ! -e go ]; do sleep 0.02; done; exec ./fixture_worker serve fds";
    // `exec` keeps the process id, which LISTEN_PID names.
    let app = App::new("api", &fixtures::shell(line)).instances(2).listen(port);
    let daemon = Daemon::foreground(app);
    online_only_after_go(&daemon, 2);
    assert_eq!(get(port, "/").expect("an answer").0, 200);
}

#[test]
fn every_handed_socket_server_proves_that_it_accepts() {
    let fixtures = [
        fixtures::node("listen_fd.js"),
        fixtures::python("listen_fds.py"),
        Some(fixtures::worker(&["serve", "fds"])),
    ];
    for fixture in fixtures.into_iter().flatten() {
        let port = free_port();
        let daemon = Daemon::foreground(App::new("api", &fixture).instances(2).listen(port));
        daemon.wait_online("api", 2);
        assert_eq!(get(port, "/").expect("an answer").0, 200, "{fixture:?}");
    }
}

#[test]
fn with_wait_ready_listening_is_not_enough() {
    let port = free_port();
    // The first one only listens, elsewhere; the second says READY=1 in its place.
    let line = "PORT=$PORT2 ./fixture_worker serve & while [ ! -e go ]; do sleep 0.02; done; \
                exec ./fixture_worker serve notify 0";
    let app = api(&fixtures::shell(line), port).env("PORT2", free_port()).set("wait_ready", true);
    let daemon = Daemon::foreground(app.instances(1));
    online_only_after_go(&daemon, 1);
}

#[test]
fn nodes_ready_message_counts() {
    let Some(node) = fixtures::node("ready.js") else { return };
    let port = free_port();
    let app = api(&node, port).set("wait_ready", true).env("READY_AFTER_MS", 600);
    let daemon = Daemon::foreground(app);
    wait_until(ms(10_000), "an answer", || get(port, "/").is_ok());
    assert_eq!(ready(&daemon.app("api")), 0, "online before it said so");
    daemon.wait_online("api", 2);
}

#[test]
fn a_worker_that_never_says_ready_fails_the_start_and_is_never_online() {
    let Some(node) = fixtures::node("ready.js") else { return };
    let app = api(&node, free_port()).set("wait_ready", true).env("READY_AFTER_MS", -1);
    let (daemon, output) = Daemon::background(app.text("listen_timeout", "800ms"));
    daemon.expects(&["not ready in listen_timeout"]);
    let output = output.expect_code(1);
    assert!(output.stderr.contains("api"), "{output:?}");
    assert!(output.took < ms(10_000), "{output:?}");
    assert_eq!(ready(&daemon.app("api")), 0);
}

/// Each way to be ready, and a worker that has shown everything but that.
#[test]
fn only_what_the_file_says_counts_as_ready() {
    let Some(node) = fixtures::node("ready.js") else { return };
    let said = fixtures::worker(&["serve", "notify", "0"]);
    for (ready, fixture) in [("notify", &node), ("ipc", &said)] {
        let app = api(fixture, free_port()).text("ready", ready).text("listen_timeout", "1500ms");
        let (daemon, output) = Daemon::background(app);
        daemon.expects(&["not ready in listen_timeout"]);
        output.expect_code(1).expect_stderr(&["not ready within listen_timeout"]);
        assert_eq!(ready_now(&daemon), 0, "{ready}");
    }
    for (ready, fixture) in [("ipc", &node), ("notify", &said), ("listen", &said)] {
        let daemon = Daemon::foreground(api(fixture, free_port()).text("ready", ready));
        daemon.wait_online("api", 2);
    }
    // READY=1 without listening is not what `listen` asks for.
    let Some(python) = fixtures::python("notify.py") else { return };
    let app = App::new("api", &python).instances(1).text("ready", "listen").text("listen_timeout", "800ms");
    let (daemon, output) = Daemon::background(app);
    daemon.expects(&["not ready in listen_timeout"]);
    output.expect_code(1).expect_stderr(&["never listened"]);
    assert_eq!(ready_now(&daemon), 0);
}

fn ready_now(daemon: &Daemon) -> usize {
    ready(&daemon.app("api"))
}

#[test]
fn with_exec_a_worker_is_ready_when_it_was_alive_for_min_uptime() {
    for mode in ["fork", "cluster"] {
        let app = api(&fixtures::worker(&["serve"]), free_port()).text("exec_mode", mode);
        let app = app.instances(1).text("ready", "exec").text("min_uptime", "1500ms");
        let (daemon, output) = Daemon::background(app);
        output.expect_code(0);
        let worker = daemon.app("api").workers.remove(0);
        assert!(worker.ready && worker.uptime_ms >= 1500, "{mode}: {worker:?}");
    }
}

/// Fault 4, in a first start.
#[test]
fn a_declared_app_that_never_accepts_fails_the_start() {
    let app = App::new("api", &fixtures::worker(&["idle"])).instances(2).listen(free_port());
    let (daemon, output) = Daemon::background(app.text("listen_timeout", "800ms"));
    daemon.expects(&["not ready in listen_timeout"]);
    output.expect_code(1).expect_stderr(&["api"]);
    assert_eq!(ready(&daemon.app("api")), 0);
}

/// The environment of a running process.
fn variable(pid: i32, name: &str) -> Option<String> {
    let all = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let all = String::from_utf8_lossy(&all).into_owned();
    all.split('\0').find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

#[test]
fn ready_from_a_stranger_is_not_believed() {
    let app = App::new("api", &fixtures::worker(&["ignore-signals"])).instances(1).set("wait_ready", true);
    let daemon = Daemon::foreground(app.text("kill_timeout", "100ms"));
    daemon.expects(&["ignored, the last one"]);
    let pid = wait_until(ms(10_000), "the worker", || {
        daemon.try_app("api").ok().and_then(|app| app.workers.first()?.pid)
    });
    daemon.wait_for_text("ignoring");
    let name = variable(pid, "NOTIFY_SOCKET").expect("a worker is told where to say READY=1");
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name.as_bytes()),
        None => SocketAddr::from_pathname(&name),
    };
    let stranger = UnixDatagram::unbound().expect("descriptors are left");
    let address = address.expect("the name of a socket");
    for message in ["READY=1", "READY=1\nMAINPID=1\n", "", "=\n\n\0", &"X".repeat(8_000)] {
        // Refused or ignored: both are right.
        let _ = stranger.send_to_addr(message.as_bytes(), &address);
    }
    holds_for(ms(500), "the worker is not believed ready", || ready(&daemon.app("api")) == 0);
    assert_eq!(daemon.app("api").workers[0].pid, Some(pid));
}

#[test]
fn a_workers_child_may_say_ready() {
    let port = free_port();
    // As under npm start: the server is not the first process.
    let app = api(&fixtures::shell("./fixture_worker serve notify 100; true"), port).set("wait_ready", true);
    let daemon = Daemon::foreground(app);
    daemon.wait_online("api", 2);
    assert_eq!(get(port, "/").expect("an answer").0, 200);
}

/// A probe through the shared port would be answered by the old worker.
#[test]
fn a_hung_new_worker_beside_serving_old_ones_is_not_ready() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&node, port));
    daemon.expects(&["reload to generation 2 failed"]);
    let before = daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    daemon.home.write(&api(&fixtures::worker(&["idle"]), port).text("listen_timeout", "6s").to_string());
    let running = daemon.spawn(&["reload", "api"]);
    wait_until(ms(5_000), "the new worker", || daemon.app("api").workers.len() > 2);
    // Longer than the three seconds after which an app that never listened counts as a consumer.
    holds_for(ms(4_000), "only the old ones are ready", || {
        let app = daemon.app("api");
        let ready = ready(&app);
        if ready == 2 { Ok(()) } else { Err(format!("{app:#?}")) }
    });
    daemon.home.finish(running).expect_code(1);
    assert_eq!(daemon.wait_online("api", 2), before);
    hammer.stop().expect_none_lost();
}

#[test]
fn a_queue_consumer_is_online_without_ever_listening() {
    let app = App::new("api", &fixtures::worker(&["idle"])).instances(2);
    let daemon = Daemon::foreground(app);
    wait_until(ms(5_000), "two processes", || daemon.workers().len() == 2);
    assert_eq!(ready(&daemon.app("api")), 0, "online at once");
    let first = daemon.wait_online("api", 2);
    let output = daemon.run(&["list"]).expect_code(0);
    assert!(output.stdout.contains("no listener"), "{output:?}");
    daemon.run(&["reload", "api"]).expect_code(0);
    let second = daemon.wait_online("api", 2);
    assert!(first.iter().all(|pid| !second.contains(pid)));
}

#[test]
fn a_port_below_the_leader_joins_through_any_launcher() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let line = format!("{:?} server.js & wait", node.command[0]);
    let daemon = Daemon::foreground(api(&fixtures::shell(&line), port));
    daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.wait_answers(10);
    hammer.stop().expect_none_lost();
}

#[test]
fn the_inspectors_port_does_not_pass_for_the_server() {
    let Some(good) = fixtures::node("server.js") else { return };
    let script = "require('inspector').open(); setInterval(() => {}, 1000);";
    let inspected = Fixture::new(&[&good.command[0], "-e", script]);
    let port = free_port();
    let daemon = Daemon::foreground(api(&good, port));
    daemon.expects(&["reload to generation 2 failed"]);
    let before = daemon.wait_online("api", 2);
    daemon.home.write(&api(&inspected, port).text("listen_timeout", "1500ms").to_string());
    daemon.run(&["reload", "api"]).expect_code(1);
    assert_eq!(daemon.wait_online("api", 2), before);
}

/// A fixture whose command goes on with this word.
fn with_word(fixture: &Fixture, word: &str) -> Fixture {
    let mut command = fixture.command.clone();
    command.push(word.to_owned());
    Fixture { command }
}

#[test]
fn a_server_that_closes_its_port_and_opens_it_again_goes_on_being_served() {
    let Some(python) = fixtures::python("steps.py") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&with_word(&python, "reopen"), port));
    daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    daemon.home.put("go", "");
    wait_until(ms(10_000), "both have opened anew", || daemon.output().matches("reopened").count() == 2);
    hammer.wait_answers(40);
    let history = hammer.stop();
    history.expect_none_lost();
    assert_eq!(history.by_pid().len(), 2, "one of them gets nothing any more: {history:?}");
}

#[test]
fn of_two_apps_that_bind_one_port_before_either_listens_the_second_is_refused() {
    let Some(python) = fixtures::python("steps.py") else { return };
    let late = with_word(&python, "late");
    // To the kernel the two of a dual-stack wildcard and one of IPv4 are strangers, to clients they are not.
    for hosts in [["127.0.0.1", "127.0.0.1"], ["::", "0.0.0.0"], ["0.0.0.0", "::"]] {
        let port = free_port();
        let app = |name: &str, host: &str| {
            App::new(name, &late).instances(1).port(port).env("HOST", host).set("max_restarts", 1)
        };
        let daemon = Daemon::foreground(support::file(&[app("first", hosts[0]), app("second", hosts[1])]));
        daemon.expects(&[
            "of this supervisor; give one of them another port",
            "exited with code 1 ",
            "unstable exits in a row",
        ]);
        wait_until(ms(10_000), "both have bound", || daemon.output().matches("bound").count() == 2);
        daemon.home.put("go", "");
        daemon.wait_for_text("of this supervisor");
        let hammer = Hammer::start(port);
        hammer.wait_answers(20);
        let history = hammer.stop();
        history.expect_none_lost();
        assert_eq!(history.by_pid().len(), 1, "{hosts:?}: two apps answer on one port: {history:?}");
    }
}

/// What is left of a worker's tree still has its socket open, and must not upset who gets connections.
#[test]
fn a_launcher_that_dies_before_its_server_costs_no_request() {
    let Some(python) = fixtures::python("http_server.py") else { return };
    let port = free_port();
    let line = format!("trap '' INT; {:?} http_server.py; exit 0", python.command[0]);
    let app = api(&fixtures::shell(&line), port).text("kill_signal", "SIGTERM").text("kill_timeout", "500ms");
    let daemon = Daemon::foreground(app.delay(10));
    daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    for _ in 0..2 {
        daemon.run(&["reload", "api"]).expect_code(0);
        hammer.wait_answers(10);
    }
    hammer.stop().expect_none_lost();
}
