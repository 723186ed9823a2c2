//! Servers that listen by Multipath TCP, as Go does since 1.24 without being asked: they are shared and reloaded as
//! those of plain TCP are.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;

use support::daemon::Builder;
use support::hammer::get;
use support::reloading::{api, ms, reload_under};
use support::{
    Daemon, Fixture, Home, Load, ORDINARY, fixtures, free_port, host, root, skip, users, wait_until,
};

/// One line of the log says what becomes of their sockets.
const PLAIN: &str = "plain TCP sockets with the same options are put in their place";

/// Where the kernel has it switched on (mptcp(7), since Linux 5.6).
fn multipath() -> bool {
    let there = std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|text| text.trim() == "1");
    if !there {
        skip("this kernel has no Multipath TCP, or it is switched off (net.mptcp.enabled)");
    }
    there
}

/// The script below mptcpize's like.
fn multipathed(script: &str) -> Option<Fixture> {
    let python = multipath().then(|| fixtures::python("multipath.py")).flatten()?;
    Some(Fixture { command: [python.command, vec![script.to_owned()]].concat() })
}

fn expect_once(daemon: &Daemon, text: &str) {
    let log = daemon.log();
    assert_eq!(log.matches(text).count(), 1, "{text:?} in {log}");
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
}

fn loses_nothing(script: &str) {
    let Some(server) = multipathed(script) else { return };
    for user in users() {
        let port = free_port();
        let daemon = Daemon::foreground_as(user, api(&server, port).delay(20));
        reload_under(&daemon, Load::on(port)).expect_none_lost();
        expect_once(&daemon, PLAIN);
    }
}

#[test]
fn reload_of_http_server_by_multipath_tcp_loses_nothing() {
    loses_nothing("http_server.py");
}

#[test]
fn reload_of_asyncio_by_multipath_tcp_loses_nothing() {
    loses_nothing("asyncio_server.py");
}

/// It would be deaf if its socket were exchanged and nothing else done.
#[test]
fn reload_of_a_server_of_multipath_tcp_that_registers_with_epoll_before_bind_loses_nothing() {
    loses_nothing("epoll_first.py");
}

#[test]
fn keep_alive_by_multipath_tcp_loses_nothing() {
    let Some(server) = multipathed("asyncio_server.py") else { return };
    let port = free_port();
    let app = api(&server, port).delay(20).text("drain_idle", "20ms").text("drain_timeout", "30s");
    reload_under(&Daemon::foreground(app), Load::on(port).keep_alive(ms(200))).expect_none_lost();
}

/// Root's supervisor makes the socket, and the kernel binds it with the worker's rights.
#[test]
fn a_worker_of_another_user_by_multipath_tcp_is_shared_and_gets_no_low_port() {
    let Some(server) = multipathed("http_server.py") else { return };
    if !root() {
        return skip("only root can run workers as somebody else");
    }
    let port = free_port();
    let app = api(&server, port).delay(20).set("user", ORDINARY);
    reload_under(&Daemon::foreground(app), Load::on(port)).expect_none_lost();
    let free = (600..1024).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok());
    let low = api(&server, free.expect("one of four hundred ports is free")).set("user", ORDINARY);
    let mut daemon = Daemon::foreground(low.set("max_restarts", 1));
    daemon.expects(&["exited with code 1 ", "given up after", "no app can run any more"]);
    assert_eq!(daemon.wait_exit(ms(20_000)), 1);
    assert!(daemon.log().contains("PermissionError"), "{}", daemon.log());
}

#[test]
fn what_a_server_of_multipath_tcp_set_before_bind_holds_after_it() {
    let Some(server) = multipath().then(|| fixtures::python("multipath_options.py")).flatten() else {
        return;
    };
    let port = free_port();
    let daemon = Daemon::foreground(api(&server, port));
    daemon.wait_online("api", 2);
    let mut client = TcpStream::connect(("::1", port)).expect("it listens there");
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("buffered");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    let (_, options) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let mut seen = 0;
    for line in options.lines() {
        let [name, before, after] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{options}") };
        if name == "SO_PROTOCOL" {
            assert_eq!((before, after), ("262", "6"), "it is not steered as it was made");
        } else {
            assert_eq!(before, after, "{name}");
        }
        seen += 1;
    }
    assert_eq!(seen, 12, "{options}");
}

/// Go listens on `[::]` for both families.
#[test]
fn the_families_that_a_server_of_multipath_tcp_asked_for_are_those_it_gets() {
    let Some(server) = multipathed("families.py") else { return };
    for (family, four) in [("both", true), ("six", false), ("unsaid", true)] {
        let port = free_port();
        let daemon = Daemon::foreground(api(&server, port).env("FAMILY", family));
        daemon.wait_online("api", 2);
        let six = TcpStream::connect(("::1", port));
        assert!(six.is_ok(), "{family}: {six:?}");
        assert_eq!(get(port, "/").is_ok(), four, "{family}");
        expect_once(&daemon, PLAIN);
    }
}

/// The second number would go on leading to the first socket: it keeps that one, and is told how to go on.
#[test]
fn a_socket_of_multipath_tcp_under_two_numbers_is_left_alone_and_told() {
    let Some(server) = multipathed("http_server.py") else { return };
    let twice = "import os, runpy, socket, sys; bind = socket.socket.bind; \
                 socket.socket.bind = lambda s, address: (os.dup(s.fileno()), bind(s, address))[1]; \
                 sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name=\"__main__\")";
    let [python, scripts @ ..] = &server.command[..] else { panic!("{server:?}") };
    let command = [&[python.clone(), "-c".to_owned(), twice.to_owned()], scripts].concat();
    let port = free_port();
    let daemon = Daemon::foreground(api(&Fixture { command }, port).instances(1));
    daemon.expects(&["it could not be replaced by one of plain TCP (the server has it under 2 numbers)"]);
    daemon.wait_online("api", 1);
    wait_until(ms(10_000), "an answer", || get(port, "/").is_ok());
    assert!(daemon.log().contains("under 2 numbers"), "{}", daemon.log());
}

#[test]
fn clients_of_multipath_tcp_are_served() {
    let Some(server) = multipathed("http_server.py") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&server, port));
    daemon.wait_online("api", 2);
    let client = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); \
                  s.connect(('127.0.0.1', int(sys.argv[1]))); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); \
                  print(s.makefile().read())";
    for _ in 0..10 {
        let output = Command::new(&server.command[0])
            .args(["-c", client, &port.to_string()])
            .output()
            .expect("it runs");
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(answer.contains("200 OK"), "{output:?}");
    }
}

#[test]
fn in_docker_servers_of_multipath_tcp_are_shared_and_reloaded_without_loss() {
    let Some(server) = multipathed("http_server.py") else { return };
    if !root() {
        return skip("only root can give rights away one by one");
    }
    let Some(docker) = host::docker() else { return };
    let port = free_port();
    let wrap: Vec<&str> = docker.iter().map(String::as_str).collect();
    let builder = Builder::new(api(&server, port).delay(20)).wrap(&wrap);
    let daemon = builder.start_in(Arc::new(Home::new(None)));
    reload_under(&daemon, Load::on(port)).expect_none_lost();
    expect_once(&daemon, "those of the supervisor's are put in their place");
}

/// What is declared is handed over, and a server that opens the same port by itself all the same shares it.
#[test]
fn a_declared_port_that_a_server_opens_by_multipath_tcp_is_shared() {
    let Some(server) = multipathed("http_server.py") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&server, port).listen(port).delay(20));
    reload_under(&daemon, Load::on(port)).expect_none_lost();
}
