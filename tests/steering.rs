//! Which worker a new connection goes to: a client's address that stays with its instance, and a queue
//! that is steered around.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use clusterd::control::protocol::{AppInfo, List};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use support::daemon::{send, state_and_parent};
use support::wait::holds_for;
use support::{App, Daemon, Fixture, fixtures, free_port, root, runtime, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Who answered: the process, its generation and its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answerer {
    pid: i32,
    generation: u32,
    instance: u32,
}

/// One connection from this address of the host's own, with one request.
fn ask(from: IpAddr, to: SocketAddr) -> std::io::Result<Answerer> {
    let mut stream = connect_from(from, to)?;
    stream.set_read_timeout(Some(ms(5000)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let numbers: Vec<i32> = body.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let unsigned = |number: i32| u32::try_from(number).expect("these count from 0");
    match numbers[..] {
        [pid, generation, instance, ..] => {
            Ok(Answerer { pid, generation: unsigned(generation), instance: unsigned(instance) })
        }
        _ => Err(std::io::Error::other(format!("not an answer: {text:?}"))),
    }
}

fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(fd))
}

fn sticky(fixture: &Fixture, instances: u32, port: u16) -> App {
    App::new("api", fixture).instances(instances).port(port).text("balance", "source-ip")
}

/// The instance that each client is served by; none may be served by two.
fn instances(clients: &[IpAddr], to: SocketAddr, times: usize) -> BTreeMap<IpAddr, u32> {
    let of = |client: &IpAddr| {
        let served: BTreeSet<u32> =
            (0..times).map(|_| ask(*client, to).expect("an answer").instance).collect();
        assert_eq!(served.len(), 1, "{client} was served by {served:?}");
        (*client, served.into_iter().next().expect("one"))
    };
    clients.iter().map(of).collect()
}

fn loopback_clients(count: u8) -> Vec<IpAddr> {
    (1..=count).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))).collect()
}

#[test]
fn a_client_stays_with_its_instance_over_connections_and_reloads() {
    let port = free_port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let daemon = Daemon::foreground(sticky(&fixtures::worker(&["serve"]), 4, port));
    daemon.wait_online("api", 4);
    let clients = loopback_clients(8);
    let before = instances(&clients, to, 20);
    let used: BTreeSet<u32> = before.values().copied().collect();
    assert!(used.len() > 1, "all clients share one worker: {before:?}");
    let generation = ask(clients[0], to).expect("an answer").generation;

    let reload = daemon.spawn(&["reload", "api"]);
    // Also on the way. Where a socket is closed the kernel puts the group's last one into its place, and for the
    // moment until the steering program knows, clients of that one go anywhere: of requests made one after the
    // other that is one at most for each worker that is replaced.
    let asked = clients.iter().flat_map(|client| (0..20).map(move |_| *client));
    let strays: Vec<IpAddr> =
        asked.filter(|client| ask(*client, to).expect("an answer").instance != before[client]).collect();
    daemon.home.finish(reload).expect_code(0);
    assert!(strays.len() <= 4, "led to another instance while it is reloaded: {strays:?}");
    // The last of those moments comes when the last old worker is gone, which ends the reload, too.
    let at_home = |client: &IpAddr| ask(*client, to).is_ok_and(|answer| answer.instance == before[client]);
    wait_until(ms(5_000), "the end of that", || clients.iter().all(at_home));
    assert_eq!(instances(&clients, to, 5), before, "after the reload");
    assert_eq!(ask(clients[0], to).expect("an answer").generation, generation + 1);
}

#[test]
fn of_a_worker_that_is_away_only_its_own_clients_move_and_they_come_back() {
    let port = free_port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let daemon = Daemon::foreground(sticky(&fixtures::worker(&["serve"]), 4, port));
    daemon.wait_online("api", 4);
    let clients = loopback_clients(16);
    let before = instances(&clients, to, 3);
    let away = before[&clients[0]];
    let id = daemon.online("api").iter().find(|worker| worker.instance == away).expect("it serves").id;
    daemon.run(&["stop", &id.to_string()]).expect_code(0);
    let without = instances(&clients, to, 3);
    for (client, instance) in &without {
        assert_ne!(*instance, away, "{client} is served by a stopped worker");
        let stays = before[client] == away || before[client] == *instance;
        assert!(stays, "{client} moved from {} to {instance}", before[client]);
    }
    daemon.run(&["start", &id.to_string()]).expect_code(0);
    daemon.wait_online("api", 4);
    assert_eq!(instances(&clients, to, 3), before);
}

#[test]
fn one_instance_more_takes_clients_and_moves_nobody_between_the_others() {
    let port = free_port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let daemon = Daemon::foreground(sticky(&fixtures::worker(&["serve"]), 2, port));
    daemon.wait_online("api", 2);
    let clients = loopback_clients(24);
    let before = instances(&clients, to, 2);
    daemon.run(&["scale", "api", "3"]).expect_code(0);
    daemon.wait_online("api", 3);
    let after = instances(&clients, to, 2);
    assert!(after.iter().all(|(client, to)| *to == 2 || before[client] == *to), "{before:?} {after:?}");
    assert!(after.values().any(|instance| *instance == 2), "the new one got nobody: {after:?}");
}

/// In a network of its own, where the loopback interface can have many addresses of IPv6.
#[test]
fn a_client_of_either_family_stays_with_its_instance_on_one_socket() {
    if !root() || runtime("ip").is_none() {
        return support::skip("needs root, for a network of its own");
    }
    let Some(node) = fixtures::node("server.js") else { return };
    let test = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root may");
        let ip = |words: &str| {
            let status = Command::new("ip").args(words.split(' ')).status().expect("it is installed");
            assert!(status.success(), "ip {words}");
        };
        ip("link set lo up");
        let six: Vec<IpAddr> = (1..=8).map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n).into()).collect();
        for address in &six {
            ip(&format!("-6 addr add {address}/128 dev lo nodad"));
        }
        let port = 3000;
        let daemon = Daemon::foreground(sticky(&node, 4, port));
        daemon.wait_online("api", 4);
        let (v6, v4) = (SocketAddr::new(six[0], port), SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let before = (instances(&six, v6, 20), instances(&loopback_clients(8), v4, 20));
        let used: BTreeSet<u32> = before.0.values().copied().collect();
        assert!(used.len() > 1, "all clients of IPv6 share one worker: {before:?}");
        daemon.run(&["reload", "api"]).expect_code(0);
        // As above: the last moment in which clients go anywhere comes when the last old worker is gone.
        let at_home =
            |client: &IpAddr| ask(*client, v6).is_ok_and(|answer| answer.instance == before.0[client]);
        wait_until(ms(5_000), "the end of that", || six.iter().all(at_home));
        let after = (instances(&six, v6, 5), instances(&loopback_clients(8), v4, 5));
        assert_eq!(after, before);
    });
    if let Err(panic) = test.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The app as `list --connections` shows it.
fn counted(daemon: &Daemon) -> AppInfo {
    let output = daemon.run(&["list", "api", "--connections", "--json"]).expect_code(0);
    let list: List = serde_json::from_str(&output.stdout).expect("a list");
    list.apps.into_iter().next().expect("the app")
}

#[test]
fn an_accept_queue_that_overflows_is_shown_with_what_to_do() {
    let port = free_port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let app = App::new("api", &fixtures::worker(&["serve", "fds"])).instances(1);
    let app = app.set("listen", format!("{{ address = \"127.0.0.1:{port}\", backlog = 2 }}"));
    let daemon = Daemon::foreground(app);
    daemon.expects(&["its accept queue runs over"]);
    let pid = daemon.wait_online("api", 1)[0];
    let worker = &counted(&daemon).workers[0];
    assert_eq!((worker.queue_depth, worker.queue_limit, worker.queue_dropped), (Some(0), Some(2), Some(0)));
    stop(pid);
    // The worker may have one of them accepted on the way into its stop.
    let mut clients = Vec::new();
    let app = wait_until(ms(10_000), "a full queue", || {
        clients.extend(TcpStream::connect_timeout(&to, ms(50)));
        let app = counted(&daemon);
        let dropped = app.workers[0].queue_dropped.unwrap_or(0);
        if dropped > 0 { Ok(app) } else { Err(format!("{app:#?}")) }
    });
    assert_eq!((app.workers[0].queue_depth, app.workers[0].queue_limit), (Some(3), Some(2)));
    let warning = app.warnings.join(" ");
    assert!(warning.contains("is full (3 wait, its backlog is 2)"), "{warning}");
    assert!(warning.contains("clusterd scale api +1"), "{warning}");
    assert!(daemon.run(&["describe", "api"]).stdout.contains("is full (3 wait, its backlog is 2)"));
    daemon.wait_for_text("its accept queue runs over (3 wait, its backlog is 2)");
    let told = app.workers[0].queue_dropped;
    wait_until(ms(10_000), "more of them", || {
        clients.extend(TcpStream::connect_timeout(&to, ms(50)));
        counted(&daemon).workers[0].queue_dropped > told
    });
    // Longer than from one look to the next.
    holds_for(ms(5_500), "it is told once", || daemon.log().matches("runs over").count() == 1);
    send(pid, Signal::SIGCONT);
    wait_until(ms(10_000), "an empty queue", || counted(&daemon).workers[0].queue_depth == Some(0));
}

#[test]
fn a_worker_that_has_every_connection_or_none_is_told_of() {
    let port = free_port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(1).port(port);
    let daemon = Daemon::foreground(app);
    daemon.wait_online("api", 1);
    let mut clients: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(to).expect("accepted")).collect();
    wait_until(ms(10_000), "all accepted", || counted(&daemon).workers[0].connections == Some(40));
    assert_eq!(counted(&daemon).warnings, Vec::<String>::new(), "one worker alone has them all");
    daemon.run(&["scale", "api", "3"]).expect_code(0);
    let warnings = counted(&daemon).warnings;
    assert!(warnings.concat().contains("worker 0 has 40 of 40 open connections"), "{warnings:?}");

    // Two share what comes now; the third is stopped, and takes none.
    let stopped = daemon.online("api")[1].pid.expect("it runs");
    stop(stopped);
    clients.extend((0..60).map(|_| TcpStream::connect(to).expect("queued")));
    wait_until(ms(10_000), "a worker without a connection", || {
        let warnings = counted(&daemon).warnings.concat();
        if warnings.contains("worker 1 has none of") { Ok(()) } else { Err(warnings) }
    });
    send(stopped, Signal::SIGCONT);
}

/// Until it has stopped it may still accept.
fn stop(pid: i32) {
    send(pid, Signal::SIGSTOP);
    wait_until(ms(5_000), "it stopped", || state_and_parent(pid).is_some_and(|(state, _)| state == 'T'));
}

/// How many wait in the queue of the worker of this instance.
fn waiting(daemon: &Daemon, instance: u32) -> u32 {
    let app = counted(daemon);
    let worker = app.workers.iter().find(|worker| worker.instance == instance);
    worker.and_then(|worker| worker.queue_depth).expect("it listens")
}

#[test]
fn a_queue_that_grows_behind_a_worker_is_steered_around_until_it_shrinks() {
    let port = free_port();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let daemon = Daemon::foreground(App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port));
    let busy = daemon.wait_online("api", 2)[0];
    stop(busy);
    let mut clients = Vec::new();
    let mut connect = |count: usize| {
        clients.extend((0..count).map(|_| TcpStream::connect(to).expect("queued")));
    };
    wait_until(ms(10_000), "a queue behind the stopped worker", || {
        connect(1);
        waiting(&daemon, 0) > 0
    });
    // By lot, half of them would join it: that none of forty does is no accident.
    wait_until(ms(10_000), "nobody joining that queue", || {
        let before = waiting(&daemon, 0);
        connect(40);
        let after = waiting(&daemon, 0);
        if after == before { Ok(()) } else { Err(format!("{} of 40 joined it", after - before)) }
    });
    send(busy, Signal::SIGCONT);
    wait_until(ms(10_000), "connections to both again", || {
        (0..10).any(|_| ask(to.ip(), to).is_ok_and(|answerer| answerer.pid == busy))
    });
}
