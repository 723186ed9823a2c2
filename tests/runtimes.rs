//! The promise, on more of what people run: servers of many languages, masters with workers of their own,
//! TLS, HTTP/2 and WebSockets. None of them knows who supervises it.
//!
//! Three reloads a case; `CLUSTERD_HAMMER_RELOADS=20` for `make hammer`.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]
#![allow(clippy::print_stderr, reason = "figures that are counted, not judged")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use support::daemon::Builder;
use support::encrypted::{NodeLoad, certify};
use support::history::{History, Outcome};
use support::reloading::{Clients, api, ms, reload, reload_under, reload_while};
use support::websocket::{Ended, WebSocket};
use support::{App, Daemon, Fixture, Hammer, Home, Load, fixtures, free_port, users, wait_until};

/// What becomes of these loads, all at once, while two workers of this server are reloaded again and again;
/// its handlers take 20 ms.
fn reload_server_under(user: Option<u32>, name: &str, loads: fn(u16) -> Vec<Load>) -> Option<History> {
    let fixture = fixtures::server(name)?;
    let port = free_port();
    // Longer than the pauses of a client that keeps its connection, so that it is met between two requests.
    let app = api(&fixture, port).delay(20).text("drain_idle", "50ms").text("drain_timeout", "5s");
    let daemon = Daemon::foreground_as(user, app);
    expect_patience(&daemon, name);
    // When a kept connection is met between two requests is chance on a busy host; that none is lost is not.
    daemon.expects(&["drain_timeout is over"]);
    let history = reload_while(&daemon, || loads(port).into_iter().map(Load::start).collect::<Vec<_>>());
    eprintln!("{name}, user {user:?}: {history:?}");
    Some(history)
}

/// PHP's own server with processes of its own waits at its end for those, and they go on until they are killed.
fn expect_patience(daemon: &Daemon, name: &str) {
    if name == "php-workers" {
        daemon.expects(&["did not end in kill_timeout"]);
    }
}

/// A connection per request.
fn one_shot(port: u16) -> Vec<Load> {
    vec![Load::on(port)]
}

/// The same, and connections that are used again.
fn both_kinds(port: u16) -> Vec<Load> {
    vec![Load::on(port).clients(3), Load::on(port).clients(3).keep_alive(ms(30))]
}

fn loses_nothing(name: &str, loads: fn(u16) -> Vec<Load>) {
    if let Some(history) = reload_server_under(None, name, loads) {
        history.expect_none_lost();
    }
}

/// As an ordinary user, where the tests can become one.
fn ordinary_user_loses_nothing(name: &str, loads: fn(u16) -> Vec<Load>) {
    let user = users().into_iter().flatten().next();
    if let Some(history) = reload_server_under(user, name, loads) {
        history.expect_none_lost();
    }
}

#[test]
fn reload_of_unmodified_ruby_loses_nothing() {
    loses_nothing("ruby", one_shot);
}

#[test]
fn reload_of_puma_loses_nothing() {
    loses_nothing("puma", both_kinds);
}

#[test]
fn reload_of_phps_own_server_loses_nothing() {
    loses_nothing("php", one_shot);
}

#[test]
fn reload_of_phps_own_server_with_processes_of_its_own_loses_nothing() {
    loses_nothing("php-workers", one_shot);
}

#[test]
fn reload_of_javas_own_server_loses_nothing() {
    loses_nothing("java", both_kinds);
}

#[test]
fn reload_of_netty_loses_nothing() {
    loses_nothing("netty", both_kinds);
}

#[test]
fn reload_of_gunicorn_loses_nothing() {
    loses_nothing("gunicorn", one_shot);
    ordinary_user_loses_nothing("gunicorn-threads", both_kinds);
}

#[test]
fn reload_of_uvicorn_loses_nothing() {
    loses_nothing("uvicorn", both_kinds);
}

#[test]
fn reload_of_nginx_in_one_process_loses_nothing() {
    loses_nothing("nginx", both_kinds);
}

#[test]
fn reload_of_nginx_with_workers_of_its_own_loses_nothing() {
    loses_nothing("nginx-master", both_kinds);
    ordinary_user_loses_nothing("nginx-master", one_shot);
}

#[test]
fn reload_of_tokio_loses_nothing() {
    loses_nothing("tokio", both_kinds);
}

#[test]
fn answers_of_nginx_that_take_their_time_are_not_cut() {
    let Some(fixture) = fixtures::server("nginx-master") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).set("max_surge", 2));
    let history = reload_under(&daemon, Load::on(port).path("/slow"));
    eprintln!("nginx, slow answers: {history:?}");
    history.expect_none_lost();
    assert!(history.percentile(0.5) >= ms(900), "the answers took no time: {history:?}");
}

/// A master of one's own, with what it forked, is one worker here: a reload leaves nothing of the old tree.
#[test]
fn masters_leave_with_all_of_their_processes() {
    for name in ["gunicorn", "nginx-master", "php-workers"] {
        let Some(fixture) = fixtures::server(name) else { return };
        let daemon = Daemon::foreground(api(&fixture, free_port()));
        expect_patience(&daemon, name);
        daemon.wait_online("api", 2);
        let processes = || daemon.workers().iter().map(|process| process.pid).collect::<Vec<_>>();
        let trees = || Some(processes()).filter(|pids| pids.len() == 6).ok_or_else(|| daemon.workers());
        let before = wait_until(ms(10_000), "two masters, each with two processes", trees);
        reload(&daemon);
        let after = wait_until(ms(10_000), "two new ones", trees);
        assert!(after.iter().all(|pid| !before.contains(pid)), "{name}: {before:?} {after:?}");
    }
}

/// Two workers of this Node server, which finds a certificate beside it.
fn secured(app: impl FnOnce(&Fixture, u16) -> App, script: &str) -> Option<(Daemon, u16)> {
    let fixture = fixtures::node(script)?;
    let home = Arc::new(Home::new(None));
    certify(&home).then(|| {
        let port = free_port();
        (Builder::new(app(&fixture, port)).start_in(home), port)
    })
}

/// What becomes of these loads while the workers are reloaded.
fn reload_under_node(daemon: &Daemon, loads: &[NodeLoad]) -> History {
    let start = || loads.iter().map(|load| load.start(&daemon.home)).collect::<Vec<_>>();
    let history = reload_while(daemon, start);
    eprintln!("{loads:?}: {history:?}");
    history
}

#[test]
fn reload_of_https_loses_nothing() {
    let app = |fixture: &Fixture, port| api(fixture, port).delay(20);
    let Some((daemon, port)) = secured(app, "https.js") else { return };
    reload_under_node(&daemon, &[NodeLoad::https(port)]).expect_none_lost();
}

#[test]
fn reload_of_https_with_keep_alive_loses_nothing() {
    let app = |fixture: &Fixture, port| {
        api(fixture, port).delay(20).text("drain_idle", "100ms").text("drain_timeout", "5s")
    };
    let Some((daemon, port)) = secured(app, "https.js") else { return };
    let loads = [ms(0), ms(30)].map(|think| NodeLoad::https(port).keep_alive(think));
    reload_under_node(&daemon, &loads).expect_none_lost();
}

#[test]
fn reload_of_http2_loses_nothing() {
    let app = |fixture: &Fixture, port| api(fixture, port).delay(20);
    let Some((daemon, port)) = secured(app, "http2.js") else { return };
    reload_under_node(&daemon, &[NodeLoad::http2(port).in_the_clear().one_shot()]).expect_none_lost();
}

/// Connections that carry one request at a time, with pauses.
#[test]
fn reload_of_http2_with_streams_one_by_one_loses_nothing() {
    for tls in [false, true] {
        let app = |fixture: &Fixture, port| {
            let app = api(fixture, port).delay(20).text("drain_idle", "50ms").text("drain_timeout", "5s");
            if tls { app.env("TLS", 1) } else { app }
        };
        let Some((daemon, port)) = secured(app, "http2.js") else { return };
        let load = NodeLoad::http2(port).keep_alive(ms(200));
        let load = if tls { load } else { load.in_the_clear() };
        reload_under_node(&daemon, &[load]).expect_none_lost();
    }
}

/// How many connections the log says were ended by `drain_timeout`.
fn ended_by_timeout(daemon: &Daemon) -> usize {
    let log = daemon.log();
    let told =
        log.lines().filter_map(|line| line.split_once("drain_timeout is over with ")?.1.split_once(' '));
    told.filter_map(|(count, _)| count.parse::<usize>().ok()).sum()
}

/// Between an answer and the next request of its stream lie those of others: no moment is quiet, and none is
/// taken for one. What is still under way at `drain_timeout` ends then, and is told.
#[test]
fn http2_with_many_streams_a_connection_is_not_cut_before_drain_timeout() {
    let app = |fixture: &Fixture, port| {
        let app = api(fixture, port).delay(20).env("JITTER_MS", 40).set("max_surge", 2);
        app.text("drain_idle", "500ms").text("drain_timeout", "2s")
    };
    let Some((daemon, port)) = secured(app, "http2.js") else { return };
    daemon.expects(&["drain_timeout is over"]);
    daemon.wait_online("api", 2);
    let clients = NodeLoad::http2(port).in_the_clear().streams(4).start(&daemon.home);
    clients.wait_answers(100);
    let reloaded = reload(&daemon);
    clients.wait_answers(100);
    let history = clients.stop();
    eprintln!("HTTP/2, many streams: {history:?}");
    for lost in history.records.iter().filter(|record| record.outcome != Outcome::Ok) {
        let after = lost.end.saturating_duration_since(reloaded.asked);
        assert!(after >= ms(2_000), "cut {after:?} after the reload was asked for: {history:?}");
    }
    assert_eq!(ended_by_timeout(&daemon), 3, "{}", daemon.log());
    assert!(history.generations().contains(&reloaded.generation), "{history:?}");
}

/// Requests in bursts, each of several streams: the connection is closed between two bursts.
#[test]
fn reload_of_http2_with_bursts_of_streams_loses_nothing() {
    let app = |fixture: &Fixture, port| {
        api(fixture, port)
            .delay(20)
            .set("max_surge", 2)
            .text("drain_idle", "100ms")
            .text("drain_timeout", "5s")
    };
    let Some((daemon, port)) = secured(app, "http2.js") else { return };
    let load = NodeLoad::http2(port).in_the_clear().streams(4).keep_alive(ms(1_200));
    reload_under_node(&daemon, &[load]).expect_none_lost();
    assert_eq!(ended_by_timeout(&daemon), 0, "{}", daemon.log());
}

/// They live as long as they may, are shown while they hold their worker, and are told of when they end; what
/// else the worker serves is not touched.
#[test]
fn websockets_live_to_drain_timeout_and_are_then_ended_counted_and_shown() {
    let Some(fixture) = fixtures::node("websocket.js") else { return };
    let port = free_port();
    let app = api(&fixture, port).set("max_surge", 2).text("drain_idle", "500ms");
    let daemon = Daemon::foreground(app.text("drain_timeout", "2s"));
    daemon.expects(&["drain_timeout is over"]);
    daemon.wait_online("api", 2);
    let load = Hammer::start(port);
    let sockets: Vec<_> = (0..8)
        .map(|_| WebSocket::open(port))
        .map(|socket| std::thread::spawn(move || socket.echo_to_the_end(ms(50))))
        .collect();
    let asked = Instant::now();
    let command = daemon.spawn(&["reload", "api"]);
    wait_until(ms(10_000), "eight connections of workers that leave", || {
        let mut workers = daemon.app("api").workers;
        workers.retain(|worker| worker.status == "stopping");
        let shown: u32 = workers.iter().filter_map(|worker| worker.connections).sum();
        if workers.len() == 2 && shown >= 8 { Ok(()) } else { Err(workers) }
    });
    let mut new = WebSocket::open(port);
    daemon.home.finish(command).expect_code(0);
    for socket in sockets {
        let (last, ended) = socket.join().expect("it does not panic");
        assert_eq!(ended, Ended::Whole, "a frame was cut");
        assert!(last - asked >= ms(2_000), "ended {:?} after the reload was asked for", last - asked);
    }
    assert_eq!(ended_by_timeout(&daemon), 8, "{}", daemon.log());
    assert_eq!(new.echo("hello"), Ok(()), "who connected to the new generation was to stay");
    load.stop().expect_none_lost();
}
