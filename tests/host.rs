//! Hosts that give less than all: each level of what a supervisor may do, and what it does at it. Which level
//! holds is one line of its log; a right that is missing never fails a worker.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;
use support::daemon::{Builder, Running, send, state_and_parent};
use support::hammer::{body, get};
use support::reloading::{api, ms, reload_under};
use support::strace::{Fault, When};
use support::wait::holds_for;
use support::{
    App, Daemon, Delegated, Fixture, Home, Load, ORDINARY, fixtures, free_port, host, root, skip, wait_until,
};

/// How the log begins to say that sockets are put in the place of the servers' own.
const IN_THEIR_PLACE: &str = "those of the supervisor's are put in their place";

/// A supervisor behind this command line.
fn behind(wrap: &[String], app: impl ToString) -> Daemon {
    start_behind(Arc::new(Home::new(None)), wrap, app)
}

fn start_behind(home: Arc<Home>, wrap: &[String], app: impl ToString) -> Daemon {
    let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
    Builder::new(app).wrap(&wrap).start_in(home)
}

/// Docker's rights, after saying why there are none.
fn docker() -> Option<Vec<String>> {
    if !root() {
        skip("only root can give rights away one by one");
        return None;
    }
    host::docker()
}

fn expect_once(daemon: &Daemon, text: &str) {
    let log = daemon.log();
    assert_eq!(log.matches(text).count(), 1, "{text:?} in {log}");
}

fn expect_no_warning(daemon: &Daemon) {
    let log = daemon.log();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
}

fn sharing(daemon: &Daemon) -> String {
    let text = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    let line = text.lines().find(|line| line.trim_start().starts_with("sharing"));
    line.unwrap_or_else(|| panic!("no line of it in {text}")).trim().to_owned()
}

/// An unmodified server in a container: nothing is lost, and one line says how.
fn docker_loses_nothing(name: &str, user: Option<u32>) {
    let (Some(server), Some(docker)) = (fixtures::server(name), docker()) else { return };
    let port = free_port();
    let mut app = api(&server, port).delay(20);
    if let Some(user) = user {
        app = app.set("user", user);
    }
    let daemon = behind(&docker, app);
    reload_under(&daemon, Load::on(port)).expect_none_lost();
    expect_once(&daemon, IN_THEIR_PLACE);
    expect_no_warning(&daemon);
    assert!(sharing(&daemon).contains("sockets of the supervisor's in the place"));
}

#[test]
fn node_in_docker_is_shared_and_reloaded_without_loss() {
    docker_loses_nothing("node", None);
}

#[test]
fn node_of_another_user_in_docker_is_shared_and_reloaded_without_loss() {
    docker_loses_nothing("node", Some(ORDINARY));
}

#[test]
fn asyncio_in_docker_is_shared_and_reloaded_without_loss() {
    docker_loses_nothing("asyncio", None);
}

#[test]
fn python_of_another_user_in_docker_is_shared_and_reloaded_without_loss() {
    docker_loses_nothing("http.server", Some(ORDINARY));
}

#[test]
fn static_go_in_docker_is_shared_and_reloaded_without_loss() {
    docker_loses_nothing("go", None);
}

#[test]
fn perl_of_another_user_in_docker_is_shared_and_reloaded_without_loss() {
    docker_loses_nothing("perl", Some(ORDINARY));
}

#[test]
fn java_in_docker_is_shared_and_reloaded_without_loss() {
    docker_loses_nothing("java", None);
}

/// What is under way when a worker leaves is seen although nothing of it can be touched.
#[test]
fn requests_that_take_long_are_finished_in_docker_also_by_another_user() {
    let (Some(server), Some(docker)) = (fixtures::server("node"), docker()) else { return };
    for user in [0, ORDINARY] {
        let port = free_port();
        let daemon = behind(&docker, api(&server, port).set("user", user).delay(1_500));
        reload_under(&daemon, Load::on(port).clients(2)).expect_none_lost();
        expect_no_warning(&daemon);
    }
}

/// A connection that was used once and is kept.
fn idle_client(port: u16) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("it serves");
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
    client.set_read_timeout(Some(ms(10_000))).expect("no zero");
    let mut answer = [0; 1024];
    let read = client.read(&mut answer).expect("it answers");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    client
}

/// Connections that are kept cannot be ended one by one: the worker is waited for, not for ever.
#[test]
fn idle_connections_do_not_hold_a_reload_up_in_docker() {
    let (Some(server), Some(docker)) = (fixtures::server("node"), docker()) else { return };
    for user in [0, ORDINARY] {
        let port = free_port();
        let app = api(&server, port).set("user", user).text("drain_idle", "300ms").delay(5);
        let daemon = behind(&docker, app);
        daemon.wait_online("api", 2);
        let idle: Vec<TcpStream> = (0..6).map(|_| idle_client(port)).collect();
        let output = daemon.run(&["reload", "api"]).expect_code(0);
        assert!(output.took < ms(15_000), "it waited for drain_timeout: {output:?}");
        drop(idle);
    }
}

/// A worker of another user where the supervisor may change users, but not trace: as a unit with a short list
/// of capabilities has it. Nothing else is refused.
#[test]
fn a_worker_of_another_user_without_the_right_to_trace_shares_its_port() {
    if !root() {
        return skip("only root can change users");
    }
    let Some(server) = fixtures::server("http.server") else { return };
    let (port, own) = (free_port(), free_port());
    let theirs = api(&server, port).set("user", ORDINARY).delay(20);
    let ours = App::new("own", &server).instances(2).port(own);
    let daemon = behind(&host::without("sys_ptrace"), support::file(&[theirs, ours]));
    daemon.wait_online("own", 2);
    reload_under(&daemon, Load::on(port)).expect_none_lost();
    expect_once(&daemon, "sockets of \"api\", who run as another user, cannot be duplicated here");
    expect_once(&daemon, "their sockets duplicated and steered");
    expect_no_warning(&daemon);
    let described = daemon.run(&["describe", "own"]).expect_code(0).stdout;
    assert!(described.contains("the server's own sockets intercepted"), "{described}");
    // Its memory is seen, though nobody but its own user may look at that.
    assert!(daemon.app("api").workers.iter().all(|w| w.memory_bytes.is_some_and(|bytes| bytes > 0)));
}

/// What a server says of IPv4 on its socket of IPv6 holds for the one in its place.
#[test]
fn the_families_that_a_server_asked_for_are_those_it_gets() {
    let (Some(server), Some(docker)) = (fixtures::python("families.py"), docker()) else { return };
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("the host has no IPv6");
    }
    for (family, four) in [("both", true), ("six", false), ("unsaid", true)] {
        let port = free_port();
        let daemon = behind(&docker, api(&server, port).env("FAMILY", family));
        daemon.wait_online("api", 2);
        let six = TcpStream::connect(("::1", port));
        assert!(six.is_ok(), "{family}: {six:?}");
        assert_eq!(get(port, "/").is_ok(), four, "{family}");
        expect_once(&daemon, IN_THEIR_PLACE);
    }
}

/// A server that wants one interface is not reached by others because its socket was replaced.
#[test]
fn the_interface_that_a_server_binds_to_is_that_of_the_socket_in_its_place() {
    let (Some(server), Some(docker)) = (fixtures::python("device.py"), docker()) else { return };
    for how in ["name", "number"] {
        let port = free_port();
        let daemon = behind(&docker, api(&server, port).env("HOW", how));
        daemon.wait_online("api", 2);
        assert_eq!(body(port, "/"), "on lo", "{how}");
        expect_once(&daemon, IN_THEIR_PLACE);
        expect_no_warning(&daemon);
    }
}

/// Where it cannot be had, the server keeps its own socket.
#[test]
fn a_socket_whose_interface_cannot_be_had_is_left_alone_and_told() {
    let (Some(server), Some(docker)) = (fixtures::python("device.py"), docker()) else { return };
    let port = free_port();
    let app = api(&server, port).instances(1).env("HOW", "name").set("autostart", false);
    let other = App::new("other", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let daemon = behind(&docker, support::file(&[app, other]));
    daemon.expects(&["cannot be shared: it is bound to an interface"]);
    daemon.wait_online("other", 1);
    let what = Fault { calls: "setsockopt", errno: "EPERM", when: When::Only(3) };
    let Some(injected) = what.inject(daemon.pid) else { return };
    daemon.run(&["start", "api", "--no-wait"]).expect_code(0);
    wait_until(ms(20_000), "an answer", || get(port, "/").is_ok());
    assert_eq!(injected.lift(), 1, "it was not the third option that is set");
    assert_eq!(body(port, "/"), "on lo");
    expect_once(&daemon, "cannot be shared: it is bound to an interface");
}

/// What was put in the place of a server's socket is not forgotten because its first listen was refused.
#[test]
fn a_listen_that_is_refused_and_made_again_in_docker_is_shared() {
    let (Some(server), Some(docker)) = (fixtures::python("listen_again.py"), docker()) else { return };
    let port = free_port();
    let daemon = behind(&docker, api(&server, port));
    daemon.wait_online("api", 2);
    let what = Fault { calls: "listen", errno: "EADDRINUSE", when: When::Only(1) };
    let Some(injected) = what.inject(daemon.pid) else { return };
    daemon.run(&["reload", "api"]).expect_code(0);
    assert_eq!(injected.lift(), 1, "no listen failed");
    for pid in daemon.pids("api") {
        let own = format!("{pid} ");
        wait_until(ms(10_000), &format!("an answer of {pid}"), || body(port, "/").starts_with(&own));
    }
    reload_under(&daemon, Load::on(port)).expect_none_lost();
    expect_no_warning(&daemon);
}

/// The supervisor's right to low ports is not the worker's, unless the file says so.
#[test]
fn a_worker_of_another_user_gets_no_low_port_from_the_supervisor() {
    let Some(docker) = docker() else { return };
    let free = (600..1024).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok());
    let port = free.expect("one of four hundred ports is free");
    let app = api(&fixtures::worker(&["serve"]), port).set("user", ORDINARY);
    let mut daemon = behind(&docker, app.clone().set("max_restarts", 1));
    daemon.expects(&["exited with code 1", "start failed", "given up after", "no app can run any more"]);
    assert_eq!(daemon.wait_exit(ms(20_000)), 1);
    assert!(daemon.log().contains("PermissionDenied"), "{}", daemon.log());
    drop(daemon);
    // What it binds is all of the host's addresses: one of them is declared.
    let other = app.clone().set("max_restarts", 1).text("listen", &format!("127.0.0.1:{port}"));
    let mut daemon = behind(&docker, other);
    daemon.expects(&["exited with code 1", "start failed", "given up after", "no app can run any more"]);
    assert_eq!(daemon.wait_exit(ms(20_000)), 1);
    assert!(daemon.log().contains("PermissionDenied"), "{}", daemon.log());
    drop(daemon);
    let declared = behind(&docker, app.listen(port));
    declared.wait_online("api", 2);
    assert!(body(port, "/").contains(' '));
}

/// Exchanging the socket under it would leave it deaf: it is left alone, and told how to go on.
#[test]
fn a_server_whose_socket_cannot_be_replaced_keeps_it_and_is_told() {
    let (Some(server), Some(docker)) = (fixtures::python("epoll_first.py"), docker()) else { return };
    let port = free_port();
    let daemon = behind(&docker, api(&server, port).instances(1));
    daemon.expects(&["cannot be shared: it cannot be duplicated here"]);
    daemon.wait_online("api", 1);
    wait_until(ms(10_000), "an answer", || get(port, "/").is_ok());
    expect_once(&daemon, "cannot be shared: it cannot be duplicated here");
}

/// Neither its sockets nor its memory can be had: what is declared is all there is.
#[test]
fn a_worker_that_hides_its_memory_is_shared_by_what_is_declared() {
    let (Some(python), Some(docker)) = (fixtures::python("listen_fds.py"), docker()) else { return };
    let hidden = |script: &str| {
        let hide = "import ctypes, runpy, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); sys.argv = sys.argv[1:]; \
                    runpy.run_path(sys.argv[0], run_name=\"__main__\")";
        Fixture::new(&[&python.command[0], "-c", hide, script])
    };
    let (own, declared) = (free_port(), free_port());
    let apps = [
        App::new("own", &hidden("http_server.py")).instances(1).port(own),
        App::new("api", &hidden("listen_fds.py")).instances(2).listen(declared).delay(20),
    ];
    let daemon = behind(&docker, support::file(&apps.map(|app| app.text("drain_timeout", "2s"))));
    daemon.expects(&["the host does not show", "the host does not let the supervisor look"]);
    // From afar a connection in use cannot be told from another worker's.
    daemon.expects(&["drain_timeout is over"]);
    daemon.wait_online("own", 1);
    wait_until(ms(10_000), "an answer", || get(own, "/").is_ok());
    expect_once(&daemon, "the host does not let the supervisor look at its sockets");
    // What cannot be seen is not said to be none.
    let client = idle_client(declared);
    let listed = daemon.run(&["list", "api", "--connections", "--json"]).expect_code(0).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("one document");
    assert!(listed["apps"][0]["workers"][0]["connections"].is_null(), "{listed}");
    drop(client);
    reload_under(&daemon, Load::on(declared)).expect_none_lost();
}

/// Open connections to this port that nobody has accepted or closed, by proc_net_tcp(5).
fn established(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("it is readable");
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().is_some_and(|word| word.ends_with(&format!(":{port:04X}")));
        local && words.nth(1) == Some("01")
    };
    table.lines().filter(is_open).count()
}

/// Once it says that it is ready, nothing of the supervisor's own waits in its queue.
#[test]
fn a_worker_that_becomes_ready_otherwise_keeps_no_connection_of_the_supervisors() {
    let (Some(python), Some(docker)) = (fixtures::python("listen_fds.py"), docker()) else { return };
    let waits = "import ctypes, os, select, socket, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); \
                 select.select([3], [], []); print('somebody waits', flush=True); \
                 word = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); name = os.environ['NOTIFY_SOCKET']; \
                 word.connect('\\0' + name[1:] if name[0] == '@' else name); word.send(b'READY=1'); \
                 time.sleep(1000)";
    let port = free_port();
    let app = App::new("api", &Fixture::new(&[&python.command[0], "-c", waits])).instances(1).listen(port);
    let daemon = behind(&docker, app.text("ready", "notify"));
    daemon.expects(&["the host does not show what a worker waits on"]);
    daemon.wait_online("api", 1);
    daemon.wait_for_text("somebody waits");
    wait_until(ms(5_000), "nobody waits any more", || match established(port) {
        0 => Ok(()),
        open => Err(open),
    });
}

/// A reload of declared sockets where nothing can be intercepted at all.
fn handed_over_only(wrap: &[String], says: &str) {
    let port = free_port();
    let app = App::new("api", &fixtures::worker(&["serve", "fds"])).instances(2).listen(port).delay(20);
    let own = App::new("own", &fixtures::worker(&["serve"])).instances(1).port(free_port());
    let daemon = behind(wrap, support::file(&[app, own]));
    daemon.expects(&["the kernel refuses to notify bind and listen"]);
    daemon.wait_online("own", 1);
    reload_under(&daemon, Load::on(port)).expect_none_lost();
    expect_once(&daemon, "the kernel refuses to notify bind and listen");
    assert!(daemon.log().contains(says), "{}", daemon.log());
    assert!(sharing(&daemon).ends_with("declared sockets handed over; steered"));
}

#[test]
fn a_host_that_refuses_seccomp_shares_what_is_declared_and_says_so_once() {
    for (errno, text) in [(libc::EPERM, "Operation not permitted"), (libc::ENOSYS, "not implemented")] {
        let Some(wrap) = host::refusing(&[(libc::SYS_seccomp, errno)]) else { return };
        handed_over_only(&wrap, text);
    }
}

/// One notification listener for a process is all that the kernel allows.
#[test]
fn a_runtime_that_already_has_a_notification_listener_is_told_from_others() {
    let Some(wrap) = host::listened_to() else { return };
    handed_over_only(&wrap, "the runtime");
}

/// Fault 33, with servers that open their port themselves.
#[test]
fn a_profile_that_knows_no_process_descriptors_costs_an_unmodified_server_nothing() {
    let Some(server) = fixtures::server("http.server") else { return };
    for errno in [libc::EPERM, libc::ENOSYS] {
        let calls = [
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_pidfd_getfd,
            libc::SYS_close_range,
            libc::SYS_process_vm_readv,
        ];
        // The worker's threads, too, are refused what is refused below a profile: glibc knows ENOSYS alone.
        let mut calls: Vec<(i64, i32)> = calls.map(|call| (call, errno)).to_vec();
        calls.push((libc::SYS_clone3, libc::ENOSYS));
        let Some(wrap) = host::refusing(&calls) else { return };
        let port = free_port();
        let mut daemon = behind(&wrap, api(&server, port).delay(20));
        reload_under(&daemon, Load::on(port)).expect_none_lost();
        expect_once(&daemon, IN_THEIR_PLACE);
        expect_no_warning(&daemon);
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait_exit(ms(20_000)), 0);
        assert_eq!(daemon.home.processes(), []);
    }
}

/// A mount namespace of its own, in which this is done first.
fn in_a_namespace(first: &str) -> Option<Vec<String>> {
    if !root() {
        skip("only root can mount");
        return None;
    }
    let script = format!("mount --make-rprivate / && {first} && exec \"$@\"");
    Some(["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec())
}

/// Fault 32.
#[test]
fn without_proc_workers_are_supervised_shared_and_reloaded_without_loss() {
    let Some(python) = fixtures::server("http.server") else { return };
    let Some(wrap) = in_a_namespace("mount -t tmpfs none /proc") else { return };
    let (own, declared) = (free_port(), free_port());
    let fds = fixtures::python("listen_fds.py").expect("Python is there");
    let tree = fixtures::shell("sleep 1000 & trap '' INT; while :; do wait; done");
    let apps = [
        api(&python, own).delay(20).text("max_memory_restart", "1M"),
        App::new("fds", &fds).instances(2).listen(declared).delay(20),
        App::new("tree", &tree).text("kill_timeout", "300ms"),
    ];
    let mut daemon = behind(&wrap, support::file(&apps));
    daemon.expects(&["/proc is not mounted here", "was ended by SIGKILL", "did not end in kill_timeout"]);
    daemon.expects(&["drain_timeout is over"]);
    daemon.wait_online("fds", 2);
    daemon.wait_online("tree", 1);
    let load = Load::on(declared).start();
    reload_under(&daemon, Load::on(own)).expect_none_lost();
    daemon.run(&["reload", "fds"]).expect_code(0);
    load.stop().expect_none_lost();
    // Looked at from outside, where there is a /proc.
    send(daemon.pids("api")[0], Signal::SIGKILL);
    wait_until(ms(10_000), "a replacement", || daemon.app("api").workers.iter().any(|w| w.restarts > 0));
    daemon.wait_online("api", 2);
    let app = daemon.app("api");
    assert!(app.workers.iter().all(|w| w.memory_bytes.is_none() && w.cpu_percent.is_none()), "{app:#?}");
    daemon.run(&["stop", "tree"]).expect_code(0);
    wait_until(ms(5_000), "the end of the whole tree", || {
        !daemon.workers().iter().any(|process| process.line.contains("sleep 1000"))
    });
    expect_once(&daemon, "/proc is not mounted here");
    assert!(!daemon.log().contains("the host does not show"), "said twice: {}", daemon.log());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(20_000)), 0);
    assert_eq!(daemon.home.processes(), []);
}

/// Fault 32: an ordinary user sees its own processes, which is all it needs.
#[test]
fn hidden_processes_of_others_cost_an_ordinary_user_nothing() {
    let Some(python) = fixtures::server("http.server") else { return };
    let Some(wrap) = in_a_namespace("mount -t proc -o hidepid=2 none /proc") else { return };
    let port = free_port();
    let as_user = format!("setpriv --reuid={ORDINARY} --regid={ORDINARY} --clear-groups");
    let wrap = [wrap, as_user.split(' ').map(str::to_owned).collect()].concat();
    let home = Arc::new(Home::new(None));
    chown(home.path(), Some(ORDINARY), Some(ORDINARY)).expect("we are root");
    let daemon = start_behind(home, &wrap, api(&python, port).delay(20));
    reload_under(&daemon, Load::on(port)).expect_none_lost();
    let app = daemon.app("api");
    assert!(app.workers.iter().all(|w| w.memory_bytes.is_some_and(|bytes| bytes > 0)), "{app:#?}");
    expect_no_warning(&daemon);
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The first child of a process.
fn child_of(pid: i32) -> i32 {
    wait_until(ms(10_000), "its child", || children(pid).first().copied())
}

/// As process 1 of a PID namespace of its own.
fn as_process_one() -> Option<Vec<String>> {
    if !root() {
        skip("only root can make a PID namespace");
        return None;
    }
    let line = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    Some(line.map(str::to_owned).to_vec())
}

fn job(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("kill_timeout", "300ms")
}

/// Fault 80. Signals without a handler do not reach process 1, and every orphan is its own.
#[test]
fn as_process_one_it_reaps_every_orphan_and_ends_with_everything() {
    let Some(wrap) = as_process_one() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let apps = [
            job("orphans", &fixtures::worker(&["orphans", "50"])),
            job(
                "escaped",
                &fixtures::shell("setsid -f sh -c 'trap \"\" INT TERM; sleep 1000'; exec sleep 1000"),
            ),
            job("deaf", &fixtures::worker(&["ignore-signals"])),
        ];
        let mut daemon = behind(&wrap, support::file(&apps));
        daemon.expects(&["did not end in kill_timeout"]);
        daemon.wait_for_text("50 orphans");
        for app in ["orphans", "escaped", "deaf"] {
            daemon.wait_online(app, 1);
        }
        let one = child_of(daemon.pid);
        assert_eq!(daemon.list().daemon.pid, 1);
        wait_until(ms(10_000), "no zombies", || {
            children(one).iter().all(|pid| state_and_parent(*pid).is_none_or(|(state, _)| state != 'Z'))
        });
        send(one, signal);
        assert_eq!(daemon.wait_exit(ms(20_000)), 0, "{signal}");
        assert_eq!(daemon.home.processes(), [], "{signal}");
    }
}

/// Fault 80: the container's exit code is that of the app it is there for.
#[test]
fn as_process_one_it_ends_with_the_code_of_its_essential_app() {
    let Some(wrap) = as_process_one() else { return };
    for (script, code) in [("exit 7", 7), ("kill -TERM $$", 128 + libc::SIGTERM)] {
        let essential =
            job("main", &fixtures::shell(script)).set("essential", true).set("autorestart", false);
        let deaf = job("deaf", &fixtures::worker(&["ignore-signals"]));
        let mut daemon = behind(&wrap, support::file(&[deaf, essential]));
        daemon.expects(&[
            "exited with code",
            "no app can run any more",
            "was ended by",
            "did not end in kill_timeout",
        ]);
        assert_eq!(daemon.wait_exit(ms(20_000)), code, "{script}");
        assert_eq!(daemon.home.processes(), []);
    }
}

/// What Docker does when the grace is over: nothing survives process 1.
#[test]
fn nothing_survives_a_process_one_that_is_killed() {
    let Some(wrap) = as_process_one() else { return };
    let app = job("api", &fixtures::worker(&["stubborn-child"]));
    let mut daemon = behind(&wrap, app);
    daemon.wait_online("api", 1);
    send(child_of(daemon.pid), Signal::SIGKILL);
    daemon.wait_exit(ms(20_000));
    wait_until(ms(5_000), "nobody left", || daemon.home.processes().is_empty());
}

/// Variables by which a home is found.
const FOLDERS: [&str; 5] = ["CLUSTERD_HOME", "HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"];

/// Behind this command line, with no variable that names a folder; what it is to be found by.
fn without_a_home(home: &Home, wrap: &[String], text: &str) -> (Running, String) {
    home.write(text);
    let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
    let file = home.file().display().to_string();
    let running = home.launch(home.command(&wrap), &[&file], |command| {
        for name in FOLDERS {
            command.env_remove(name);
        }
    });
    let folder = wait_until(ms(20_000), "where it lives", || {
        let said = running.stderr();
        let rest = said.split(", home ").nth(1)?;
        Some(rest.lines().next()?.to_owned())
    });
    (running, folder)
}

/// Serves, reloads and ends; what it said.
fn lives_in(home: &Home, wrap: &[String], expected: &str) -> String {
    lives_with("", home, wrap, expected)
}

/// The same with this `[daemon]`.
fn lives_with(daemon: &str, home: &Home, wrap: &[String], expected: &str) -> String {
    let port = free_port();
    let text = format!("{daemon}{}", api(&fixtures::worker(&["serve"]), port));
    let (running, folder) = without_a_home(home, wrap, &text);
    assert!(folder.starts_with(expected), "{folder}: {}", running.stderr());
    wait_until(ms(20_000), "an answer", || get(port, "/").is_ok());
    let pid = i32::try_from(running.child.id()).expect("process ids are positive");
    // The folder is seen from where the supervisor is.
    let seen = format!("/proc/{pid}/root{folder}");
    home.run(&["--home", &seen, "reload", "api"]).expect_code(0);
    // And found there without being named, as by `docker exec`.
    let inside = format!("--target={pid}");
    let enter = ["nsenter", "--mount", &inside];
    let mut found = home.command(if wrap.is_empty() { &[] } else { &enter });
    found.arg("ping");
    for name in FOLDERS {
        found.env_remove(name);
    }
    let found = found.output().expect("nsenter is part of util-linux");
    assert!(found.status.success(), "{found:?}");
    send(pid, Signal::SIGTERM);
    let output = running.wait(ms(20_000)).expect_code(0);
    assert!(!Path::new(&seen).exists());
    output.stderr
}

/// Fault 46, as in a container of an image without users.
#[test]
fn a_user_without_a_home_is_supervised_in_a_temporary_one() {
    let home = Home::new(if root() { Some(ORDINARY) } else { None });
    let said = lives_in(&home, &[], "/tmp/clusterd-");
    assert_eq!(said.matches("until it ends, and writes no log files").count(), 1, "{said}");
    let left: Vec<_> = std::fs::read_dir("/tmp").expect("there").flatten().collect();
    assert!(!left.iter().any(|entry| said.contains(&entry.path().display().to_string())
        && entry.file_name().to_string_lossy().starts_with("clusterd-")));
}

#[test]
fn who_wants_no_log_files_is_not_warned_that_there_are_none() {
    let home = Home::new(if root() { Some(ORDINARY) } else { None });
    let said = lives_with("[daemon]\nlog_files = false\n\n", &home, &[], "/tmp/clusterd-");
    assert!(!said.contains(" WARN "), "{said}");
}

/// Fault 46: all is read-only but one folder, or but that of shared memory, as `docker run --read-only` has it.
#[test]
fn a_read_only_root_costs_log_files_and_no_more() {
    let read_only = "mount -o remount,bind,ro /";
    let one = format!("mount -t tmpfs none /run && {read_only}");
    let none = format!(
        "mount -t tmpfs none /dev/shm && mount --bind /run /run && mount -o remount,bind,ro /run \
                        && {read_only}"
    );
    let old = format!(
        "mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && mkdir /run/clusterd && mount -o remount,ro /run \
                       && {read_only}"
    );
    for (first, lives, says) in [
        (one, "/run/clusterd", "no log files are written"),
        (old, "/dev/shm/clusterd-", "until it ends, and writes no log files"),
        (none, "/dev/shm/clusterd-", "until it ends, and writes no log files"),
    ] {
        let Some(wrap) = in_a_namespace(&first) else { return };
        let said = lives_in(&Home::new(None), &wrap, lives);
        assert_eq!(said.matches(says).count(), 1, "{said}");
        let warnings = said.matches(" WARN ").count();
        assert!(warnings <= 3, "{said}");
    }
}

/// Fault 35: a debugger's hold on a worker is nobody's death, and neither is the time that it holds it still.
#[test]
fn a_worker_that_is_traced_or_held_still_is_not_taken_for_dead() {
    let Some(server) = fixtures::server("asyncio") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&server, port));
    let before = daemon.wait_online("api", 2);
    // A tracer that has nothing to do.
    let nothing = Fault { calls: "acct", errno: "EPERM", when: When::Always };
    let Some(traced) = nothing.inject(before[0]) else { return };
    let load = Load::on(port).start();
    load.wait_answers(100);
    send(before[1], Signal::SIGSTOP);
    wait_until(ms(5_000), "it is held still", || {
        state_and_parent(before[1]).is_some_and(|(state, _)| state == 'T')
    });
    holds_for(ms(1_500), "both are there, held still or not", || {
        let app = daemon.app("api");
        let alive = app.workers.iter().all(|worker| worker.status == "online" && worker.restarts == 0);
        alive && daemon.pids("api") == before
    });
    send(before[1], Signal::SIGCONT);
    load.wait_answers(100);
    daemon.run(&["reload", "api"]).expect_code(0);
    load.stop().expect_none_lost();
    assert!(
        daemon.pids("api").iter().all(|pid| !before.contains(pid)),
        "a traced worker outlived the reload"
    );
    drop(traced);
}

/// Fault 35, of a control group's freezer: no signal but SIGKILL comes through, and a connection that is steered to it
/// waits. It is not dead, goes on where it was, and can be stopped.
#[test]
fn a_worker_that_a_control_group_holds_still_is_not_taken_for_dead_and_can_be_stopped() {
    let Some(server) = fixtures::server("asyncio") else { return };
    let Some(freezer) = Delegated::unmarked() else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&server, port).set("kill_timeout", 300).set("drain_timeout", 1000));
    let before = daemon.wait_online("api", 2);
    let load = Load::on(port).start();
    load.wait_answers(100);
    freezer.put("", before[1]);
    freezer.freeze(true);
    holds_for(ms(1_500), "both are there, held still or not", || {
        let app = daemon.app("api");
        let alive = app.workers.iter().all(|worker| worker.status == "online" && worker.restarts == 0);
        alive && daemon.pids("api") == before
    });
    freezer.freeze(false);
    load.wait_answers(100);
    load.stop().expect_none_lost();
    assert_eq!(daemon.pids("api"), before);
    freezer.freeze(true);
    daemon.expects(&["did not end in kill_timeout"]);
    daemon.run(&["stop", "api"]).expect_code(0);
    assert_eq!(daemon.app("api").status, "stopped");
    assert!(daemon.workers().is_empty(), "{:?}", daemon.workers());
}
