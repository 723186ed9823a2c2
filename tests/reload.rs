//! The promise: a reload under load loses not one request, on servers that know nothing of it, and
//! nothing that a new version does takes the old one down.
//!
//! Three reloads a case; `CLUSTERD_HAMMER_RELOADS=20` for `make hammer`.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]
#![allow(clippy::print_stderr, reason = "figures that are counted, not judged")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clusterd::control::protocol::List;
use nix::sys::signal::Signal;
use support::daemon::{Builder, exists, send, state_and_parent};
use support::hammer::{Style, body, get};
use support::history::{Outcome, Reload};
use support::reloading::{api, ms, ordinary_user, reload, reload_under};
use support::wait::{holds_for, try_until};
use support::{
    App, Daemon, Fixture, Hammer, Home, Load, MemoryGroup, file, fixtures, free_port, skip, users, wait_until,
};

/// One request per connection, for each time that a handler may take.
fn loses_nothing(name: &str) {
    let Some(fixture) = fixtures::server(name) else { return };
    for (user, delay) in [(None, 0), (None, 20), (None, 200)].into_iter().chain(ordinary_user(20)) {
        let port = free_port();
        let daemon = Daemon::foreground_as(user, api(&fixture, port).delay(delay));
        let history = reload_under(&daemon, Load::on(port));
        eprintln!("{name}, {delay} ms, user {user:?}: {history:?}");
        history.expect_none_lost();
    }
}

#[test]
fn reload_of_unmodified_node_loses_nothing() {
    loses_nothing("node");
}

#[test]
fn reload_of_unmodified_asyncio_loses_nothing() {
    loses_nothing("asyncio");
}

#[test]
fn reload_of_unmodified_http_server_loses_nothing() {
    loses_nothing("http.server");
}

#[test]
fn reload_of_static_go_loses_nothing() {
    loses_nothing("go");
}

#[test]
fn reload_of_perl_blocked_in_accept_at_saturation_loses_nothing() {
    loses_nothing("perl");
}

#[test]
fn reload_of_a_server_that_registers_with_epoll_before_bind_loses_nothing() {
    loses_nothing("epoll-first");
}

/// The sockets are the supervisor's, and handed over by LISTEN_FDS.
fn declared_loses_nothing(fixture: &Fixture) {
    for user in users() {
        let port = free_port();
        let app = App::new("api", fixture).instances(2).listen(port).delay(20);
        let daemon = Daemon::foreground_as(user, app);
        reload_under(&daemon, Load::on(port)).expect_none_lost();
    }
}

#[test]
fn reload_of_node_on_descriptor_three_loses_nothing() {
    let Some(fixture) = fixtures::node("listen_fd.js") else { return };
    declared_loses_nothing(&fixture);
}

#[test]
fn reload_of_python_on_descriptor_three_loses_nothing() {
    let Some(fixture) = fixtures::python("listen_fds.py") else { return };
    declared_loses_nothing(&fixture);
}

#[test]
fn reload_of_rust_on_listen_fds_loses_nothing() {
    declared_loses_nothing(&fixtures::worker(&["serve", "fds"]));
}

#[test]
fn reload_of_rust_that_says_ready_loses_nothing() {
    let port = free_port();
    let app = App::new("api", &fixtures::worker(&["serve", "notify", "50"])).instances(2).listen(port);
    let daemon = Daemon::foreground(app.set("wait_ready", true));
    reload_under(&daemon, Load::on(port)).expect_none_lost();
}

#[test]
fn reload_of_a_server_that_binds_an_address_it_was_handed_loses_nothing() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    // On every interface and both families, as Node itself binds.
    let app = api(&fixture, port).set("listen", format!("[\":{port}\"]")).delay(20);
    let daemon = Daemon::foreground(app);
    reload_under(&daemon, Load::on(port)).expect_none_lost();
}

#[test]
fn one_instance_in_cluster_mode_overlaps_and_loses_nothing() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).instances(1).delay(20));
    reload_under(&daemon, Load::on(port)).expect_none_lost();
}

#[test]
fn several_at_a_time_lose_nothing() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).instances(3).set("max_surge", 3).delay(20));
    reload_under(&daemon, Load::on(port)).expect_none_lost();
}

#[test]
fn keep_alive_loses_nothing_and_closes_at_quiet_moments() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    for (user, delay) in [(None, 0), (None, 20)].into_iter().chain(ordinary_user(20)) {
        let port = free_port();
        let app = api(&fixture, port).delay(delay).text("drain_idle", "10ms").text("drain_timeout", "5s");
        let daemon = Daemon::foreground_as(user, app);
        let history = reload_under(&daemon, Load::on(port).keep_alive(ms(30)));
        eprintln!("keep-alive, {delay} ms, user {user:?}: {history:?}");
        history.expect_none_lost();
    }
}

#[test]
fn keep_alive_without_a_quiet_moment_loses_nothing() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = api(&fixture, port).delay(20).text("drain_timeout", "1s");
    let daemon = Daemon::foreground(app);
    let history = reload_under(&daemon, Load::on(port).keep_alive(Duration::ZERO));
    eprintln!("keep-alive, closed loop: {history:?}");
    history.expect_none_lost();
}

/// Clients that ask again the moment they were answered, of a server that takes its time: between two
/// requests lies a ten-thousandth of the time, which must be met before `drain_timeout` cuts a request.
#[test]
fn keep_alive_with_slow_handlers_is_met_between_two_requests() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).delay(200));
    let history = reload_under(&daemon, Load::on(port).keep_alive(Duration::ZERO));
    eprintln!("keep-alive, slow handlers: {history:?}");
    history.expect_none_lost();
    assert!(!daemon.log().contains("drain_timeout is over"), "a drain was cut off");
}

/// Nobody can tell when such a client is between two requests, and `drain_timeout` is short: it is kept from
/// asking again until its answer was sent.
#[test]
fn keep_alive_whose_moments_cannot_be_met_is_not_cut_by_drain_timeout() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    for user in users() {
        let port = free_port();
        let daemon = Daemon::foreground_as(user, api(&fixture, port).text("drain_timeout", "4s"));
        let load = Load::on(port).path("/?delay=500&jitter=500").keep_alive(Duration::ZERO);
        let history = reload_under(&daemon, load);
        eprintln!("keep-alive, moments unknown: {history:?}");
        history.expect_none_lost();
        assert!(!daemon.log().contains("drain_timeout is over"), "a drain was cut off");
    }
}

/// One that finishes its requests by itself gets its signal early, once it was seen to do so: nobody's
/// connection is closed but by the server.
#[test]
fn a_server_that_handles_the_signal_loses_nothing() {
    let Some(fixture) = fixtures::node("graceful.js") else { return };
    let think = [Duration::ZERO, ms(20)].map(|think| Style::KeepAlive { think });
    for style in think.into_iter().chain([Style::OneShot]) {
        let port = free_port();
        let daemon = Daemon::foreground(api(&fixture, port).delay(20).text("kill_timeout", "8s"));
        daemon.wait_online("api", 2);
        let hammer = Load::on(port).keep_alive(Duration::ZERO).start();
        reload(&daemon);
        hammer.stop().expect_none_lost();
        daemon.wait_for_text("finishes its requests by itself");
        let history = reload_under(&daemon, Load::on(port).style(style));
        eprintln!("handles the signal: {history:?}");
        history.expect_none_lost_or_retriable();
    }
}

/// A handler that ends at once cuts requests, although it catches the signal and exits with 0: it never
/// gets the signal before its connections are done.
#[test]
fn a_server_that_only_catches_the_signal_does_not_get_it_early() {
    let Some(fixture) = fixtures::node("graceful.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).delay(20).env("ABRUPT", "1"));
    let history = reload_under(&daemon, Load::on(port).keep_alive(Duration::ZERO));
    history.expect_none_lost();
    let told = daemon.log().contains("finishes its requests by itself");
    assert!(!told, "a server that ends at once passed for one that finishes its requests");
}

#[test]
fn streams_with_pauses_below_drain_idle_are_not_cut() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    for path in ["/stream?n=6&pause=300", "/events?n=6&pause=300"] {
        let port = free_port();
        let daemon = Daemon::foreground(api(&fixture, port).text("drain_idle", "1s"));
        reload_under(&daemon, Load::on(port).path(path)).expect_none_lost();
    }
}

#[test]
fn slow_uploads_are_not_cut() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).text("drain_idle", "1s"));
    let load = Load::on(port).style(Style::Upload { pieces: 6, every: ms(150) });
    reload_under(&daemon, load).expect_none_lost();
}

#[test]
fn clients_that_connect_and_wait_are_served() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).text("drain_idle", "100ms"));
    let load = Load::on(port).style(Style::ConnectThenWait { wait: ms(400) });
    reload_under(&daemon, load).expect_none_lost();
}

#[test]
fn many_idle_keep_alive_connections_lose_nothing() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon =
        Daemon::foreground(api(&fixture, port).text("drain_idle", "100ms").text("drain_timeout", "5s"));
    let load = Load::on(port).clients(2).style(Style::Idle { connections: 100, every: ms(10) });
    let history = reload_under(&daemon, load);
    eprintln!("idle connections: {history:?}");
    history.expect_none_lost();
}

/// Every kind of client, on this server; one of them as an ordinary user.
fn loses_nothing_of_any_kind(name: &str, kinds: &[Load]) {
    let Some(fixture) = fixtures::server(name) else { return };
    for (turn, kind) in kinds.iter().enumerate() {
        // One as an ordinary user, where the tests can become one.
        let user = users().pop().flatten().filter(|_| turn == 0);
        let port = free_port();
        // Shorter than the time until a silent connection's turn, longer than any pause in a request.
        let app = api(&fixture, port).text("drain_idle", "150ms").text("drain_timeout", "2s");
        let daemon = Daemon::foreground_as(user, app.set("max_surge", 2));
        let history = reload_under(&daemon, kind.clone().to(port));
        eprintln!("{name}, {kind:?}, user {user:?}: {history:?}");
        history.expect_none_lost();
    }
}

/// Whose head goes first, whose body takes its time, who waits, and who keeps connections for later.
fn kinds() -> Vec<Load> {
    vec![
        Load::on(0).clients(3).style(Style::Upload { pieces: 4, every: ms(60) }),
        Load::on(0).clients(3).style(Style::ConnectThenWait { wait: ms(100) }),
        Load::on(0).clients(2).style(Style::Idle { connections: 40, every: ms(10) }),
    ]
}

#[test]
fn every_kind_of_client_of_asyncio_loses_nothing() {
    let streams = Load::on(0).clients(3).path("/stream?n=4&pause=60");
    loses_nothing_of_any_kind("asyncio", &[kinds(), vec![streams]].concat());
}

#[test]
fn every_kind_of_client_of_static_go_loses_nothing() {
    let streams = Load::on(0).clients(3).path("/stream?n=4&pause=60");
    loses_nothing_of_any_kind("go", &[kinds(), vec![streams]].concat());
}

#[test]
fn every_kind_of_client_of_http_server_loses_nothing() {
    // HTTP/1.0: no connection is used twice.
    loses_nothing_of_any_kind("http.server", &kinds()[..2]);
}

#[test]
fn streams_of_an_ordinary_user_are_not_cut() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    for user in users().into_iter().filter(Option::is_some) {
        let port = free_port();
        let daemon = Daemon::foreground_as(user, api(&fixture, port).text("drain_idle", "300ms"));
        let load = Load::on(port).path("/events?n=5&pause=100");
        reload_under(&daemon, load).expect_none_lost();
    }
}

/// Fault 22: a drain that would never end does, at its limit.
#[test]
fn an_endless_answer_holds_a_reload_only_until_drain_timeout() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).text("drain_timeout", "700ms"));
    daemon.expects(&["drain_timeout is over"]);
    daemon.wait_online("api", 2);
    let endless = Load::on(port).path("/events?n=1000000&pause=50").limit(ms(60_000)).start_silently();
    let short = Hammer::start(port);
    let done = reload(&daemon);
    assert!(done.done - done.asked < ms(10_000), "{:?}", done.done - done.asked);
    short.stop().expect_none_lost();
    daemon.run(&["stop", "api"]).expect_code(0);
    drop(endless);
}

/// A connection on which an answer has begun that does not end.
fn endless_answer(port: u16) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("somebody serves");
    let request = "GET /events?n=1000000&pause=50 HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(request.as_bytes()).expect("it fits");
    client.read_exact(&mut [0; 16]).expect("an answer begins");
    client
}

/// Fault 22: they do not pile up either, and whoever looks sees them with what holds them.
#[test]
fn drains_that_never_end_give_way_at_the_bound_on_live_workers() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&fixture, port).instances(1).text("drain_timeout", "60s"));
    daemon.expects(&["its drain ends early"]);
    let mut endless = Vec::new();
    let leaving = || {
        let mut workers = daemon.app("api").workers;
        workers.retain(|worker| worker.status == "stopping");
        workers
    };
    for drains in 0..3 {
        daemon.wait_status("api", "online");
        endless.push(endless_answer(port));
        daemon.run(&["stop", "api", "--no-wait"]).expect_code(0);
        wait_until(ms(10_000), "one more that leaves", || leaving().len() == drains + 1);
        let shown = leaving();
        assert!(shown.iter().all(|worker| worker.connections == Some(1)), "{shown:#?}");
        if drains < 2 {
            daemon.run(&["start", "api"]).expect_code(0);
        }
    }
    // By its age: numbers of processes begin anew at pid_max.
    let oldest = leaving().into_iter().max_by_key(|worker| worker.uptime_ms).and_then(|worker| worker.pid);
    let oldest = oldest.expect("three leave");
    let described = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    let row = described.lines().find(|line| line.contains(&oldest.to_string())).unwrap_or_default();
    // Before the depth of its accept queue.
    let connections = row.split_whitespace().rev().nth(1);
    assert!(row.contains("stopping") && connections == Some("1"), "{described}");
    assert!(!daemon.log().contains("its drain ends early"), "{}", daemon.log());
    let started = daemon.run(&["start", "api"]).expect_code(0);
    assert!(started.took < ms(15_000), "{started:?}");
    daemon.wait_status("api", "online");
    assert!(!exists(oldest), "the oldest was to make room");
    assert_eq!(leaving().len(), 2, "the others were to stay");
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("its drain ends early")).unwrap_or_default();
    assert!(line.contains("with 1 connection busy"), "{log}");
}

/// A new version that goes wrong in one way, what its failure must say, and its word.
struct Bad {
    way: &'static str,
    says: &'static [&'static str],
    reason: &'static str,
}

/// Faults 4 and 5 among them.
const BAD: [Bad; 6] = [
    Bad { way: "throws", says: &["api", "boom at load"], reason: "exited" },
    Bad { way: "missing-module", says: &["api", "no-such-module-anywhere"], reason: "exited" },
    Bad { way: "exits-after-ready", says: &["api", "7", "giving up soon after ready"], reason: "exited" },
    Bad { way: "never-listens", says: &["api", "alive but deaf"], reason: "not_ready" },
    Bad { way: "listens-elsewhere", says: &["api"], reason: "not_ready" },
    Bad { way: "spins", says: &["api"], reason: "not_ready" },
];

fn survives(bad: &Bad, user: Option<u32>) {
    let Some(good) = fixtures::node("server.js") else { return };
    let Some(new) = fixtures::node("bad.js") else { return };
    let (port, elsewhere) = (free_port(), free_port());
    let daemon = Daemon::foreground_as(user, api(&good, port).delay(20));
    daemon.expects(&["reload to generation 2 failed", "reload to generation 3 failed"]);
    if bad.reason == "exited" {
        daemon.expects(&["exited with code "]);
    }
    let before = daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    let version =
        api(&new, port).env("BAD", bad.way).env("PORT2", elsewhere).text("listen_timeout", "1500ms");
    daemon.home.write(&version.text("min_healthy_time", "600ms").to_string());
    let mut failed = daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(bad.says);
    let mut taken_back = vec![(2, Instant::now())];
    if bad.way == "listens-elsewhere" {
        failed = failed.expect_stderr(&[&elsewhere.to_string(), &port.to_string()]);
    }
    assert!(failed.took < ms(12_000), "{failed:?}");
    assert_eq!(daemon.wait_online("api", 2), before, "{}: the old generation was touched", bad.way);
    let again = daemon.run(&["reload", "api", "--json"]).expect_code(1);
    taken_back.push((3, Instant::now()));
    assert!(again.stderr.contains(&format!("{:?}", bad.reason)), "{}: {again:?}", bad.way);
    assert_eq!(daemon.wait_online("api", 2), before, "{}: the old generation was touched", bad.way);
    let app = daemon.app("api");
    assert_eq!(app.reload.map(|reload| reload.state).as_deref(), Some("failed"), "{}", bad.way);
    hammer.wait_answers(10);
    daemon.home.write(&api(&good, port).delay(20).to_string());
    let mended = reload(&daemon);
    hammer.wait_answers(10);
    let history = hammer.stop();
    history.expect_none_lost();
    assert_eq!(mended.generation, 4);
    taken_back.into_iter().for_each(|(generation, at)| history.expect_nothing_of(generation, at));
    history.expect_in_step_with(&[mended]);
}

#[test]
fn new_code_that_throws_leaves_the_old_serving() {
    users().into_iter().for_each(|user| survives(&BAD[0], user));
}

#[test]
fn new_code_that_misses_a_module_leaves_the_old_serving() {
    survives(&BAD[1], None);
}

#[test]
fn new_code_that_exits_soon_after_ready_leaves_the_old_serving() {
    survives(&BAD[2], None);
}

#[test]
fn new_code_that_never_listens_leaves_the_old_serving() {
    users().into_iter().for_each(|user| survives(&BAD[3], user));
}

#[test]
fn new_code_that_listens_elsewhere_leaves_the_old_serving() {
    survives(&BAD[4], None);
}

#[test]
fn new_code_that_spins_before_listening_leaves_the_old_serving() {
    survives(&BAD[5], None);
}

/// The second new worker finds that a folder of the first is there already, and gives up, but only when the
/// first has long taken its place.
const SECOND_GIVES_UP: &str =
    "mkdir first 2>/dev/null || { sleep 1; echo no luck >&2; exit 9; }; exec node server.js";

#[test]
fn a_failure_after_the_first_slot_replaces_it_back() {
    let Some(good) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&good, port).instances(3).env("VERSION", 1));
    daemon.expects(&["exited with code 9 ", "reload to generation 2 failed"]);
    daemon.wait_online("api", 3);
    let hammer = Hammer::start(port);
    let script = SECOND_GIVES_UP;
    let new = api(&fixtures::shell(script), port).instances(3).env("VERSION", 2);
    daemon.home.write(&new.to_string());
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["no luck"]);
    daemon.wait_online("api", 3);
    hammer.wait_answers(10);
    hammer.stop().expect_none_lost();
    for _ in 0..20 {
        assert_eq!(body(port, "/version"), "1");
    }
}

#[test]
fn hold_leaves_the_mix_for_the_operator() {
    let Some(good) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&good, port).text("on_reload_failure", "hold"));
    daemon.expects(&["exited with code 9 ", "reload to generation 2 failed"]);
    let before = daemon.wait_online("api", 2);
    let script = SECOND_GIVES_UP;
    let new = api(&fixtures::shell(script), port).text("on_reload_failure", "hold");
    daemon.home.write(&new.to_string());
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["no luck"]);
    let after = daemon.wait_online("api", 2);
    assert_eq!(after.iter().filter(|pid| before.contains(pid)).count(), 1, "{before:?} {after:?}");
    assert_eq!(daemon.app("api").reload.map(|reload| reload.state).as_deref(), Some("held"));
    // Fault 61: who looks sees that versions are mixed.
    let table = daemon.run(&["list"]).expect_code(0).stdout;
    let rows: Vec<&str> = table.lines().filter(|row| row.contains("api")).collect();
    let mut generations: Vec<&str> = rows.iter().filter_map(|row| row.split_whitespace().last()).collect();
    generations.sort_unstable();
    assert_eq!(generations, ["1", "2"], "{table}");
}

#[test]
fn every_key_of_the_file_is_applied() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&node, port).env("OLD", "here").env("VERSION", 1));
    daemon.wait_online("api", 2);
    assert_eq!(body(port, "/env/OLD"), "here");
    let apps = daemon.home.apps();
    std::fs::create_dir(apps.join("next")).expect("the folder is fresh");
    std::fs::copy(apps.join("server.js"), apps.join("next/server.js")).expect("it was staged");
    let new =
        api(&node, port).instances(3).env("VERSION", 2).text("cwd", "next").text("out_file", "new-out.log");
    daemon.home.write(&new.to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.wait_online("api", 3);
    assert_eq!(body(port, "/version"), "2");
    assert_eq!(body(port, "/env/OLD"), "unset", "a variable deleted from the file is gone");
    assert!(body(port, "/cwd").ends_with("/next"));
    let named = |folder: &std::path::Path| {
        let mut entries = std::fs::read_dir(folder).expect("it is there").flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with("new-out"))
    };
    assert!(named(&apps) || named(&apps.join("next")), "the new out_file was not opened");
}

/// Fault 62.
#[test]
fn a_changed_symlink_is_followed_at_each_reload() {
    let Some(mut node) = fixtures::node("server.js") else { return };
    let port = free_port();
    node.command[1] = "server.js".to_owned();
    let home = std::sync::Arc::new(Home::new(None));
    let apps = home.apps();
    for release in ["v1", "v2"] {
        std::fs::create_dir(apps.join(release)).expect("the folder is fresh");
        std::fs::copy(apps.join("server.js"), apps.join(release).join("server.js")).expect("it was staged");
    }
    std::os::unix::fs::symlink("v1", apps.join("current")).expect("the name is free");
    let daemon = Builder::new(api(&node, port).text("cwd", "current")).start_in(home);
    daemon.wait_online("api", 2);
    assert!(body(port, "/cwd").ends_with("/v1"));
    std::os::unix::fs::symlink("v2", apps.join("next")).expect("the name is free");
    std::fs::rename(apps.join("next"), apps.join("current")).expect("both are in one folder");
    reload(&daemon);
    for _ in 0..10 {
        assert!(body(port, "/cwd").ends_with("/v2"));
    }
}

/// Faults 57 and 61.
#[test]
fn a_file_that_changes_during_a_reload_is_not_read_again() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&node, port).env("VERSION", 1));
    daemon.wait_online("api", 2);
    daemon.home.write(&api(&node, port).env("VERSION", 2).env("BOOT_MS", 700).to_string());
    let running = daemon.spawn(&["reload", "api"]);
    wait_until(ms(10_000), "the first new worker", || daemon.app("api").workers.len() > 2);
    daemon.home.write(&api(&node, port).env("VERSION", 3).to_string());
    daemon.home.finish(running).expect_code(0);
    for _ in 0..20 {
        assert_eq!(body(port, "/version"), "2");
    }
}

/// Faults 55 and 56.
#[test]
fn a_broken_file_changes_nothing() {
    let worker = fixtures::worker(&["serve"]);
    let port = free_port();
    let text = api(&worker, port).text("on_reload_failure", "rollback").to_string();
    let daemon = Daemon::foreground(&text);
    let before = daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(2).start();
    let mut broken: Vec<String> = (0..text.len()).step_by(5).map(|end| text[..end].to_owned()).collect();
    broken.push(format!("{text}\ninstanzes = 3\n"));
    broken.push(format!("x = {}1{}", "[".repeat(5_000), "]".repeat(5_000)));
    broken.push(text.replace("instances = 2", "instances = \"many\""));
    let mut rejected = 0;
    for text in broken {
        daemon.home.write(&text);
        let file = daemon.home.file().display().to_string();
        // A file that was cut between two keys may be whole, and would be applied.
        if daemon.run(&["validate", &file]).code == 2 {
            rejected += 1;
            let output = daemon.run(&["reload", "api"]).expect_code(2);
            assert!(output.stderr.contains("ecosystem.toml"), "{output:?}");
        }
    }
    assert!(rejected > 10, "only {rejected} files were broken");
    std::fs::remove_file(daemon.home.file()).expect("it is there");
    let output = daemon.run(&["reload", "api"]);
    assert_ne!(output.code, 0, "{output:?}");
    std::os::unix::fs::symlink("ecosystem.toml", daemon.home.file()).expect("the name is free");
    assert_ne!(daemon.run(&["reload", "api"]).code, 0);
    assert_eq!(daemon.wait_online("api", 2), before);
    hammer.stop().expect_none_lost();
}

/// A daemon whose next reload is slow enough to get in between.
fn slow_reload() -> Option<(Daemon, u16)> {
    slow_reload_of(1_000)
}

/// As [`slow_reload`], with workers that need this many milliseconds to boot.
fn slow_reload_of(boot: u32) -> Option<(Daemon, u16)> {
    let node = fixtures::node("server.js")?;
    let port = free_port();
    let daemon = Daemon::foreground(api(&node, port));
    daemon.wait_online("api", 2);
    daemon.home.write(&api(&node, port).env("BOOT_MS", boot).to_string());
    Some((daemon, port))
}

fn in_the_middle(daemon: &Daemon) {
    wait_until(ms(10_000), "a reload under way", || daemon.app("api").reload.is_some());
}

/// What its predecessor served it has to serve, all of it: half of the clients would be refused.
#[test]
fn new_code_that_leaves_out_one_of_two_ports_is_not_ready() {
    let Some(node) = fixtures::node("bad.js") else { return };
    let (port, second) = (free_port(), free_port());
    let app = api(&node, port).env("PORT2", second).text("listen_timeout", "1500ms");
    let daemon = Daemon::foreground(app.clone().env("BOTH", 1));
    daemon.expects(&["reload to generation 2 failed"]);
    let before = daemon.wait_online("api", 2);
    wait_until(ms(10_000), "the second port", || get(second, "/").is_ok());
    let hammers = [Hammer::start(port), Hammer::start(second)];
    daemon.home.write(&app.to_string());
    let missing = format!(":{second}");
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["api", &missing]);
    assert_eq!(daemon.wait_online("api", 2), before);
    for hammer in hammers {
        hammer.wait_answers(20);
        hammer.stop().expect_none_lost();
    }
}

/// How many clients wait is shown beside the worker for which they do.
#[test]
fn clients_that_wait_for_a_busy_worker_are_counted() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(api(&node, port).instances(1));
    let pid = daemon.wait_online("api", 1)[0];
    let depth = || {
        let output = daemon.run(&["describe", "api", "--json"]).expect_code(0);
        let list: List = serde_json::from_str(&output.stdout).expect("a list");
        list.apps[0].workers[0].queue_depth
    };
    wait_until(ms(5_000), "nobody waits", || depth() == Some(0));
    send(pid, Signal::SIGSTOP);
    let waiting: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("it has room")).collect();
    wait_until(ms(5_000), "three who wait", || if depth() == Some(3) { Ok(()) } else { Err(depth()) });
    let table = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    let mut lines = table.lines().skip_while(|line| !line.contains("queue"));
    let (title, row) = (lines.next().expect("its title"), lines.next().expect("its worker"));
    let end = title.find("queue").expect("it is there") + "queue".len();
    assert_eq!(row.chars().take(end).collect::<String>().split_whitespace().last(), Some("3"), "{table}");
    send(pid, Signal::SIGCONT);
    wait_until(ms(5_000), "all were taken", || depth() == Some(0));
    drop(waiting);
}

/// Fault 25: stop wins.
#[test]
fn stop_during_a_reload_wins_and_the_reload_says_so() {
    let Some((daemon, _)) = slow_reload() else { return };
    let running = daemon.spawn(&["reload", "api"]);
    in_the_middle(&daemon);
    daemon.run(&["stop", "api"]).expect_code(0);
    daemon.home.finish(running).expect_code(1);
    daemon.wait_status("api", "stopped");
    assert_eq!(daemon.workers(), []);
    holds_for(ms(300), "nothing starts after a stop", || daemon.workers().is_empty());
}

/// Fault 25: delete wins.
#[test]
fn delete_during_a_reload_wins_and_the_reload_says_so() {
    let Some((daemon, _)) = slow_reload() else { return };
    let running = daemon.spawn(&["reload", "api"]);
    in_the_middle(&daemon);
    daemon.run(&["delete", "api"]).expect_code(0);
    daemon.home.finish(running).expect_code(1);
    assert_eq!(daemon.workers(), []);
}

/// Fault 25: identical reloads coalesce, and each caller is told the truth.
#[test]
fn reloads_during_a_reload_coalesce() {
    let Some((daemon, port)) = slow_reload() else { return };
    let hammer = Hammer::start(port);
    let generation = daemon.app("api").generation;
    let running = daemon.spawn(&["reload", "api"]);
    in_the_middle(&daemon);
    let queued: Vec<_> = (0..4).map(|_| daemon.spawn(&["reload", "api"])).collect();
    daemon.home.finish(running).expect_code(0);
    for running in queued {
        daemon.home.finish(running).expect_code(0);
    }
    let app = daemon.app("api");
    assert!(app.generation - generation <= 2, "four identical reloads took {:#?}", app);
    hammer.stop().expect_none_lost();
}

/// Fault 25: a scale in the middle comes out right.
#[test]
fn scale_during_a_reload_comes_out_right() {
    let Some((daemon, port)) = slow_reload() else { return };
    let hammer = Hammer::start(port);
    for count in ["4", "1"] {
        let running = daemon.spawn(&["reload", "api"]);
        in_the_middle(&daemon);
        daemon.run(&["scale", "api", count]).expect_code(0);
        daemon.home.finish(running).expect_code(0);
        daemon.wait_online("api", count.parse().expect("a number"));
        let app = daemon.app("api");
        assert!(app.workers.iter().all(|worker| worker.generation == app.generation), "{app:#?}");
    }
    hammer.stop().expect_none_lost();
}

#[test]
fn a_crash_during_a_reload_comes_out_right() {
    let Some((daemon, port)) = slow_reload() else { return };
    daemon.expects(&["was ended by SIGKILL"]);
    let running = daemon.spawn(&["reload", "api"]);
    in_the_middle(&daemon);
    for pid in daemon.pids("api") {
        send(pid, Signal::SIGKILL);
    }
    daemon.home.finish(running).expect_code(0);
    daemon.wait_online("api", 2);
    assert!(body(port, "/").starts_with(|first: char| first.is_ascii_digit()));
}

#[test]
fn other_apps_are_not_blocked_by_a_reload() {
    let Some((daemon, port)) = slow_reload() else { return };
    let other = fixtures::worker(&["idle"]);
    let second = App::new("other", &other).text("exec_mode", "fork");
    let slow = api(&fixtures::node("server.js").expect("it was found before"), port).env("BOOT_MS", 1_500);
    daemon.home.write(&file(&[slow, second]));
    let path = daemon.home.file().display().to_string();
    daemon.run(&["start", &path, "--only", "other"]).expect_code(0);
    let mut running = daemon.spawn(&["reload", "api"]);
    in_the_middle(&daemon);
    let output = daemon.run(&["restart", "other"]).expect_code(0);
    assert!(running.runs(), "the other app waited for the reload: {output:?}");
    daemon.home.finish(running).expect_code(0);
}

#[test]
fn no_wait_answers_at_once() {
    let Some((daemon, _)) = slow_reload_of(4_000) else { return };
    daemon.run(&["reload", "api", "--no-wait"]).expect_code(0);
    assert!(daemon.app("api").reload.is_some(), "it was waited for");
    wait_until(ms(20_000), "the reload's own end", || daemon.app("api").reload.is_none());
}

#[test]
fn reload_in_fork_mode_is_stop_then_start_and_says_so() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let daemon = Daemon::foreground(App::new("api", &node).text("exec_mode", "fork").port(port));
    wait_until(ms(10_000), "a first answer", || get(port, "/").is_ok());
    let before = daemon.wait_online("api", 1);
    let output = daemon.run(&["reload", "api"]).expect_code(0);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("write exec_mode = \"cluster\""), "no line to write: {output:?}");
    assert!(said.contains("begins: 1 worker;"), "{output:?}");
    assert_ne!(daemon.wait_online("api", 1), before);
}

/// The server's end of every connection to this port, as proc_net_tcp(5) shows it: its inode, 0 while
/// nobody has accepted it.
fn connections_to(port: u16) -> Vec<u64> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // ESTABLISHED and CLOSE_WAIT: the others are listeners, or have been closed here.
            if fields[1].ends_with(&format!(":{port:04X}")) && matches!(fields[3], "01" | "08") {
                inodes.push(fields[9].parse().expect("an inode is a number"));
            }
        }
    }
    inodes
}

/// How many of these a process has open.
fn held_by(pid: i32, inodes: &[u64]) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it is ours");
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let named =
        |link: &PathBuf| inodes.iter().any(|inode| link.to_string_lossy() == format!("socket:[{inode}]"));
    links.filter(named).count()
}

/// Ends a worker while clients wait in its queue; how many connections it had accepted.
fn kill_with_a_queue(pid: i32, port: u16) -> usize {
    // It may have accepted all clients there are, by chance: then they wait for it, and nobody comes.
    wait_until(ms(20_000), "clients in the queue of a worker that stands still", || {
        send(pid, Signal::SIGSTOP);
        let queued = try_until(ms(300), || {
            let stands = state_and_parent(pid).is_some_and(|(state, _)| state == 'T');
            stands && connections_to(port).contains(&0)
        });
        if queued.is_err() {
            send(pid, Signal::SIGCONT);
        }
        queued.is_ok()
    });
    let accepted = held_by(pid, &connections_to(port));
    send(pid, Signal::SIGKILL);
    accepted
}

/// Fault 42: a worker's death is nobody else's. Who waited in its queue is served by its siblings.
#[test]
fn kill_nine_of_workers_under_load_costs_only_what_they_had_accepted() {
    let Some(node) = fixtures::node("server.js") else { return };
    for user in users() {
        let port = free_port();
        let daemon = Daemon::foreground_as(user, api(&node, port).delay(20).set("max_restarts", 0));
        daemon.expects(&["was ended by SIGKILL", "unstable exits in a row"]);
        daemon.wait_online("api", 2);
        let hammer = Load::on(port).clients(6).start();
        let mut accepted = 0;
        for turn in 0..6 {
            let pids = daemon.wait_online("api", 2);
            accepted += kill_with_a_queue(pids[turn % 2], port);
            wait_until(ms(10_000), "a replacement", || {
                let now = daemon.pids("api");
                now.len() == 2 && now != pids
            });
            hammer.wait_answers(10);
        }
        let history = hammer.stop();
        eprintln!("killed with {accepted} accepted, user {user:?}: {history:?}");
        for never in [Outcome::Refused, Outcome::ConnectTimeout, Outcome::Timeout, Outcome::Status] {
            assert_eq!(history.count(never), 0, "{user:?}: {history:?}");
        }
        assert!(history.lost() <= accepted, "{user:?}: only {accepted} were accepted: {history:?}");
    }
}

/// With siblings that live, and without: nothing that it had not accepted dies with a worker.
#[test]
fn workers_that_end_between_two_requests_again_and_again_lose_nothing() {
    let Some(node) = fixtures::node("bad.js") else { return };
    for user in users() {
        let port = free_port();
        let app = api(&node, port).env("BAD", "exits-after-ready").set("max_restarts", 0);
        let daemon = Daemon::foreground_as(user, app.set("exp_backoff_restart_delay", 0));
        daemon.expects(&["exited with code 7 "]);
        wait_until(ms(10_000), "a first answer", || get(port, "/").is_ok());
        let hammer = Load::on(port).clients(4).start();
        wait_until(ms(30_000), "sixteen deaths", || {
            let deaths: u32 = daemon.app("api").workers.iter().map(|worker| worker.restarts).sum();
            deaths >= 16
        });
        let history = hammer.stop();
        eprintln!("dying between requests, user {user:?}: {history:?}");
        history.expect_none_lost();
        assert!(history.by_pid().len() >= 10, "{history:?}");
    }
}

/// Fault 39.
#[test]
fn with_all_workers_killed_clients_wait_and_are_served() {
    let Some(node) = fixtures::node("server.js") else { return };
    let Some(perl) = fixtures::perl("blocking.pl") else { return };
    for fixture in [node, perl] {
        let port = free_port();
        let daemon = Daemon::foreground(api(&fixture, port).delay(5));
        daemon.expects(&["was ended by SIGKILL"]);
        let before = daemon.wait_online("api", 2);
        let hammer = Hammer::start(port);
        for pid in &before {
            send(*pid, Signal::SIGKILL);
        }
        let killed = Instant::now();
        // At first the list still has the killed ones.
        wait_until(ms(10_000), "two replacements", || {
            daemon.wait_online("api", 2).iter().all(|pid| !before.contains(pid))
        });
        hammer.wait_answers(20);
        let history = hammer.stop();
        for never in [Outcome::Refused, Outcome::ConnectTimeout, Outcome::Timeout] {
            assert_eq!(history.count(never), 0, "{history:?}");
        }
        // Only what the killed processes themselves were working on is lost.
        let since = history.records.iter().filter(|record| record.outcome.lost() && record.start > killed);
        assert_eq!(since.count(), 0, "requests sent after the kill were lost: {history:?}");
    }
}

/// Fault 39: whoever looks is told that nobody serves, and how many wait.
#[test]
fn that_nobody_serves_and_how_many_clients_wait_is_shown() {
    let port = free_port();
    let line = "while [ -e down ]; do sleep 0.02; done; exec ./fixture_worker serve fds";
    let app = App::new("api", &fixtures::shell(line)).instances(2).listen(port).set("max_restarts", 0);
    let daemon = Daemon::foreground(app);
    daemon.expects(&["was ended by SIGKILL"]);
    let pids = daemon.wait_online("api", 2);
    assert_eq!(daemon.app("api").unserved, []);
    daemon.home.put("down", "");
    for pid in pids {
        send(pid, Signal::SIGKILL);
    }
    daemon.wait_status("api", "launching");
    let clients: Vec<_> = (0..3).map(|_| std::thread::spawn(move || get(port, "/"))).collect();
    let down = wait_until(ms(10_000), "three clients that wait", || {
        let app = daemon.app("api");
        if app.unserved.iter().any(|unserved| unserved.waiting == 3) { Ok(app) } else { Err(app.unserved) }
    });
    assert_eq!((down.listen.len(), down.unserved.len()), (0, 1), "{down:#?}");
    assert!(down.unserved[0].listen.ends_with(&format!(":{port}")), "{down:#?}");
    let described = daemon.run(&["describe", "api"]).expect_code(0);
    assert!(described.stdout.contains("nobody serves") && described.stdout.contains("3 clients wait"));
    std::fs::remove_file(daemon.home.apps().join("down")).expect("it is there");
    for client in clients {
        let answer = client.join().expect("it does not panic");
        assert!(answer.is_ok_and(|(status, _)| status == 200));
    }
    daemon.wait_online("api", 2);
    assert_eq!(daemon.app("api").unserved, []);
}

#[test]
fn a_reload_ends_a_crash_loop() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let crashing =
        App::new("api", &fixtures::worker(&["exit", "1", "30"])).instances(2).set("max_restarts", 0);
    let daemon = Daemon::foreground(crashing.port(port));
    daemon.expects(&["exited with code 1 ", "unstable exits in a row"]);
    wait_until(ms(10_000), "a crash loop", || {
        daemon.app("api").workers.iter().any(|worker| worker.restarts >= 2)
    });
    daemon.home.write(&api(&node, port).to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.wait_online("api", 2);
    body(port, "/");
}

#[test]
fn a_reload_revives_an_errored_app() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let crashing =
        App::new("api", &fixtures::worker(&["exit", "1", "5"])).instances(2).set("max_restarts", 2);
    // A second app keeps the supervisor from ending with the first.
    let other = App::new("other", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let daemon = Daemon::foreground(file(&[crashing.port(port), other.clone()]));
    daemon.expects(&["exited with code 1 ", "unstable exits in a row"]);
    daemon.wait_status("api", "errored");
    daemon.home.write(&file(&[api(&node, port), other]));
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.wait_online("api", 2);
    body(port, "/");
}

/// One of three workers ends again and again, each time soon after it was ready, while the others serve: the
/// clients do not notice, neither before the reload to mended code, nor in it, nor after it.
fn mends_one_of_three_under_load(max_restarts: u32, user: Option<u32>) {
    let Some(good) = fixtures::node("server.js") else { return };
    let Some(bad) = fixtures::node("bad.js") else { return };
    let port = free_port();
    let crashing = api(&bad, port).instances(3).set("max_restarts", max_restarts);
    let crashing = crashing.env("BAD", "exits-after-ready").env("ONLY", 1);
    let daemon = Daemon::foreground_as(user, crashing.text("exp_backoff_restart_delay", "20ms"));
    daemon.expects(&["exited with code 7 ", "unstable exits in a row"]);
    wait_until(ms(20_000), "those that serve", || daemon.pids("api").len() >= 2);
    let hammer = Hammer::start(port);
    let state = || daemon.app("api").workers.into_iter().find(|worker| worker.instance == 1);
    wait_until(ms(30_000), "a crash loop of the second worker", || match state() {
        Some(worker) if worker.restarts >= 3 || worker.status == "errored" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let steady = daemon.app("api").workers.into_iter().filter(|worker| worker.instance != 1);
    assert!(steady.into_iter().all(|worker| worker.restarts == 0), "another worker than the second crashed");
    daemon.home.write(&api(&good, port).instances(3).to_string());
    let asked = Instant::now();
    let left = daemon.pids("api");
    daemon.run(&["reload", "api"]).expect_code(0);
    let done = Instant::now();
    let mended = daemon.wait_online("api", 3);
    wait_until(ms(10_000), "answers of all", || {
        let seen = hammer.so_far().by_pid();
        mended.iter().all(|pid| seen.contains_key(pid))
    });
    let history = hammer.stop();
    history.expect_none_lost();
    let generation = daemon.app("api").generation;
    history.expect_in_step_with(&[Reload { generation, asked, done, left }]);
}

#[test]
fn a_reload_under_load_ends_the_crash_loop_of_one_of_three_and_loses_nothing() {
    users().into_iter().for_each(|user| mends_one_of_three_under_load(0, user));
}

#[test]
fn a_reload_under_load_revives_the_errored_one_of_three_and_loses_nothing() {
    mends_one_of_three_under_load(2, None);
}

/// Fault 85, and the Ray case.
#[test]
fn a_hundred_reloads_leak_nothing() {
    let port = free_port();
    let app = api(&fixtures::worker(&["serve"]), port).text("min_healthy_time", "10ms");
    let daemon = Daemon::foreground(app);
    daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(2).start();
    for _ in 0..10 {
        reload(&daemon);
    }
    let (descriptors, resident) = (daemon.descriptors(), daemon.resident());
    for _ in 0..90 {
        reload(&daemon);
    }
    hammer.stop().expect_none_lost();
    wait_until(ms(5_000), "as many descriptors as before", || {
        let now = daemon.descriptors();
        if now <= descriptors { Ok(()) } else { Err(format!("{now}, were {descriptors}")) }
    });
    let grown = daemon.resident().saturating_sub(resident);
    assert!(grown < 1024, "{grown} KiB more after 90 reloads");
    assert_eq!(daemon.workers().len(), 2, "{:#?}", daemon.workers());
    assert!(daemon.zombies().is_empty(), "{:?}", daemon.zombies());
}

/// What `reload` said about a host without room, after it changed nothing.
fn refused_for_lack_of_room(daemon: &Daemon, says: &[&str]) {
    let before = daemon.pids("api");
    let refused = daemon.run(&["reload", "api", "--json"]).expect_code(1);
    assert!(refused.stderr.contains("\"no_room\""), "{refused:?}");
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(says);
    assert_eq!(daemon.wait_online("api", before.len()), before, "the old generation was touched");
    assert!(!daemon.log().contains("generation 2: starting"), "{}", daemon.log());
}

/// Fault 84: none for one more worker, some for one at a time, enough for all.
#[test]
fn a_reload_takes_only_as_many_descriptors_as_there_are() {
    let port = free_port();
    let app = api(&fixtures::worker(&["serve"]), port).instances(4).set("max_surge", 4);
    let app = app.text("min_healthy_time", "100ms");
    let needed = {
        let daemon = Daemon::foreground(&app);
        daemon.wait_online("api", 4);
        u64::try_from(daemon.descriptors()).expect("not that many")
    };
    let limited = |more: u64| {
        let limit = needed + more;
        let daemon = Builder::new(&app).wrap(&["prlimit", &format!("--nofile={limit}:{limit}")]).start();
        daemon.expects(&["no room for 1 more", "the reload goes on with at most"]);
        daemon.wait_online("api", 4);
        let hammer = Load::on(port).clients(2).start();
        (daemon, hammer)
    };
    let (daemon, hammer) = limited(20);
    refused_for_lack_of_room(&daemon, &["no room for 1 more", "descriptors", "RLIMIT_NOFILE", "ulimit -n"]);
    hammer.stop().expect_none_lost();
    drop(daemon);
    for (more, narrowed) in [(31, true), (120, false)] {
        let (daemon, hammer) = limited(more);
        reload(&daemon);
        hammer.stop().expect_none_lost();
        let log = daemon.log();
        assert_eq!(
            log.contains("the reload goes on with at most 1 more at a time"),
            narrowed,
            "{more}: {log}"
        );
        assert!(!log.contains("EMFILE"), "{log}");
    }
}

/// Waits until every worker of this app takes what it is going to take.
fn wait_heavy(daemon: &Daemon, name: &str) {
    wait_until(ms(10_000), "workers of 64 MiB", || {
        let workers = daemon.app(name).workers;
        let heavy = workers.iter().all(|worker| worker.memory_bytes.is_some_and(|bytes| bytes > 64 << 20));
        if heavy { Ok(()) } else { Err(workers) }
    });
}

/// Fault 84: as before, of memory, in a container's control group.
#[test]
fn a_reload_takes_only_as_much_memory_as_there_is() {
    let Some(group) = MemoryGroup::new() else {
        return skip("no memory control group can be made here");
    };
    let port = free_port();
    let app = api(&fixtures::worker(&["serve"]), port).env("BALLAST_MIB", 64);
    let app = app.set("max_surge", 2).text("min_healthy_time", "100ms");
    let daemon = Builder::new(app).wrap(&["sh", "-c", &group.enter(), "sh"]).start();
    daemon.expects(&["no room for 1 more", "the reload goes on with at most 1 more"]);
    daemon.wait_online("api", 2);
    wait_heavy(&daemon, "api");
    let hammer = Load::on(port).clients(2).start();
    group.set(170);
    refused_for_lack_of_room(&daemon, &["no room for 1 more", "MiB of memory", "170.0 MiB", "too little"]);
    group.set(240);
    reload(&daemon);
    assert!(daemon.log().contains("the reload goes on with at most 1 more at a time"), "{}", daemon.log());
    wait_heavy(&daemon, "api");
    group.set(400);
    let narrowed = daemon.log().matches("the reload goes on").count();
    reload(&daemon);
    assert_eq!(daemon.log().matches("the reload goes on").count(), narrowed, "{}", daemon.log());
    hammer.stop().expect_none_lost();
    drop(daemon);
}

/// Fault 84: two reloads at once are not promised the same memory.
#[test]
fn reloads_of_several_apps_fit_together_or_say_so() {
    let Some(group) = MemoryGroup::new() else {
        return skip("no memory control group can be made here");
    };
    let app = |name| {
        let app = App::new(name, &fixtures::worker(&["serve"])).instances(1).port(free_port());
        app.env("BALLAST_MIB", 64).text("min_healthy_time", "100ms")
    };
    let text = file(&[app("one"), app("two")]);
    let daemon = Builder::new(text).wrap(&["sh", "-c", &group.enter(), "sh"]).start();
    daemon.expects(&["two: reload to generation 2 failed: there is no room"]);
    let before = [daemon.wait_online("one", 1), daemon.wait_online("two", 1)];
    for name in ["one", "two"] {
        wait_heavy(&daemon, name);
    }
    group.set(240);
    let both = daemon.run(&["reload", "all"]).expect_code(1);
    let after = [daemon.wait_online("one", 1), daemon.wait_online("two", 1)];
    let replaced: Vec<bool> = (0..2).map(|app| before[app] != after[app]).collect();
    assert_eq!(replaced.iter().filter(|replaced| **replaced).count(), 1, "{both:?}");
    let left = if replaced[0] { "two" } else { "one" };
    both.expect_stderr(&[left, "no room for 1 more"]);
    daemon.run(&["reload", left]).expect_code(0);
    drop(daemon);
}
