//! Hosts that give less than all: each level of what a supervisor may do, and what it does at it. Which level
//! holds is one line of its log; a right that is missing never fails a worker.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use support::daemon::Builder;
use support::hammer::{body, get};
use support::reloading::{api, ms, reload_under};
use support::{App, Daemon, Fixture, Load, ORDINARY, fixtures, free_port, host, root, skip, wait_until};

/// How the log begins to say that sockets are put in the place of the servers' own.
const IN_THEIR_PLACE: &str = "those of the supervisor's are put in their place";

/// A supervisor behind this command line.
fn behind(wrap: &[String], app: impl ToString) -> Daemon {
    let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
    Builder::new(app).wrap(&wrap).start()
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

/// The supervisor's right to low ports is not the worker's, unless the file says so.
#[test]
fn a_worker_of_another_user_gets_no_low_port_from_the_supervisor() {
    let Some(docker) = docker() else { return };
    let free = (600..1024).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok());
    let port = free.expect("one of four hundred ports is free");
    let app = api(&fixtures::worker(&["serve"]), port).set("user", ORDINARY);
    let mut daemon = behind(&docker, app.clone().set("max_restarts", 1));
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
    daemon.wait_online("own", 1);
    wait_until(ms(10_000), "an answer", || get(own, "/").is_ok());
    expect_once(&daemon, "the host does not let the supervisor look at its sockets");
    reload_under(&daemon, Load::on(declared)).expect_none_lost();
}

/// A reload of declared sockets where nothing can be intercepted at all.
fn handed_over_only(wrap: &[String], says: &str) {
    let port = free_port();
    let app = App::new("api", &fixtures::worker(&["serve", "fds"])).instances(2).listen(port).delay(20);
    let own = App::new("own", &fixtures::worker(&["serve"])).instances(1).port(free_port());
    let daemon = behind(wrap, support::file(&[app, own]));
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
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(daemon.wait_exit(ms(20_000)), 0);
        assert_eq!(daemon.home.processes(), []);
    }
}
