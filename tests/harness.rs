//! The harness itself: a load generator that does not see a loss proves nothing.

mod support;

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::encrypted::{NodeLoad, certify};
use support::hammer::{Style, get};
use support::history::Outcome;
use support::reloading::Clients;
use support::{App, Daemon, Fixture, Hammer, Home, Load, clusterd, fixtures, free_port, users, wait_until};

/// A server without any supervisor.
struct Bare(Child);

impl Bare {
    fn start(fixture: &Fixture, port: u16) -> Bare {
        Bare::start_with(fixture, port, &[])
    }

    fn command(fixture: &Fixture, port: u16) -> Command {
        let home = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        let mut command = Command::new(&fixture.command[0]);
        command.args(&fixture.command[1..]).current_dir(home).stdin(Stdio::null());
        command.env("PORT", port.to_string()).env("CLUSTERD_GENERATION", "3").env("NODE_APP_INSTANCE", "1");
        command
    }

    fn start_with(fixture: &Fixture, port: u16, env: &[(&str, &str)]) -> Bare {
        let mut command = Bare::command(fixture, port);
        let child = command.envs(env.iter().copied()).spawn().expect("the runtime was found");
        let bare = Bare(child);
        wait_until(Duration::from_secs(10), "a first answer", || get(port, "/").map(|_| ()));
        bare
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_kind_of_client_loses_nothing_on_a_server_that_stays() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let _server = Bare::start(&fixture, port);
    let ms = Duration::from_millis;
    let kinds = [
        Load::on(port),
        Load::on(port).keep_alive(Duration::ZERO),
        Load::on(port).keep_alive(ms(5)),
        Load::on(port).style(Style::Upload { pieces: 4, every: ms(10) }),
        Load::on(port).style(Style::ConnectThenWait { wait: ms(20) }),
        Load::on(port).style(Style::Idle { connections: 20, every: ms(5) }).clients(2),
        Load::on(port).path("/stream?n=4&pause=20"),
        Load::on(port).path("/events?n=4&pause=20").keep_alive(Duration::ZERO),
    ];
    for load in kinds {
        let shown = format!("{load:?}");
        let hammer = load.start();
        hammer.wait_answers(30);
        let history = hammer.stop();
        history.expect_none_lost_or_retriable();
        assert_eq!(history.generations(), [3], "{shown}: {history:?}");
        assert!(history.percentile(0.99) < Duration::from_secs(2), "{shown}: {history:?}");
    }
}

#[test]
fn every_fixture_answers_with_who_it_is() {
    for name in ["node", "asyncio", "http.server", "go", "perl", "epoll-first"] {
        let Some(mut fixture) = fixtures::server(name) else { continue };
        if name == "go" {
            fixture.command = vec![format!("{}/go_server", env!("CARGO_TARGET_TMPDIR"))];
        }
        let port = free_port();
        let server = Bare::start_with(&fixture, port, &[("DELAY_MS", "5")]);
        let hammer = Hammer::start(port);
        hammer.wait_answers(50);
        let history = hammer.stop();
        history.expect_none_lost();
        let pid = i32::try_from(server.0.id()).expect("process ids are positive");
        assert_eq!(history.by_pid().into_keys().collect::<Vec<i32>>(), [pid], "{name}: {history:?}");
        assert_eq!(history.generations(), [3], "{name}: {history:?}");
    }
}

#[test]
fn a_killed_server_is_counted_as_lost_requests() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let server = Bare::start_with(&fixture, port, &[("DELAY_MS", "50")]);
    let hammer = Hammer::start(port);
    drop(server);
    wait_until(Duration::from_secs(5), "refused clients", || hammer.count(Outcome::Refused) > 0);
    let history = hammer.stop();
    // Six were in the middle of a request that takes 50 ms.
    assert!(history.count(Outcome::Reset) + history.count(Outcome::Empty) > 0, "{history:?}");
}

#[test]
fn a_killed_server_cuts_streams_and_leaves_reused_connections_retriable() {
    let Some(fixture) = fixtures::node("server.js") else { return };
    let port = free_port();
    let server = Bare::start_with(&fixture, port, &[("DELAY_MS", "50")]);
    let streams = Load::on(port).path("/stream?n=3&pause=200").start();
    let reused = Load::on(port).keep_alive(Duration::ZERO).start();
    let refused = Duration::from_secs(5);
    reused.wait_answers(12);
    drop(server);
    wait_until(refused, "refused streams", || streams.count(Outcome::Refused) > 0);
    wait_until(refused, "refused clients", || reused.count(Outcome::Refused) > 0);
    let (streams, reused) = (streams.stop(), reused.stop());
    assert!(streams.count(Outcome::Cut) > 0, "{streams:?}");
    assert!(reused.count(Outcome::Retriable) > 0, "{reused:?}");
}

#[test]
fn clients_that_speak_tls_or_http2_see_that_their_server_was_killed() {
    for (script, streams) in [("https.js", 1), ("http2.js", 4)] {
        let Some(fixture) = fixtures::node(script) else { return };
        let home = Home::new(None);
        if !certify(&home) {
            return;
        }
        let port = free_port();
        let mut command = Bare::command(&fixture, port);
        let server =
            Bare(command.current_dir(home.apps()).env("DELAY_MS", "50").spawn().expect("it was found"));
        wait_until(Duration::from_secs(10), "a listener", || {
            TcpStream::connect(("127.0.0.1", port)).map(drop)
        });
        let load = if streams > 1 { NodeLoad::http2(port).in_the_clear() } else { NodeLoad::https(port) };
        let clients = load.streams(streams).start(&home);
        clients.wait_answers(40);
        drop(server);
        wait_until(Duration::from_secs(10), "refused clients", || clients.count(Outcome::Refused) > 0);
        let history = clients.stop();
        // Most were in the middle of a request that takes 50 ms.
        let lost = history.count(Outcome::Reset) + history.count(Outcome::Empty);
        assert!(lost > 0 && history.broken.is_empty(), "{script}: {history:?}");
        assert!(history.count(Outcome::Ok) >= 40 && history.generations() == [3], "{script}: {history:?}");
    }
}

#[test]
fn a_silent_server_is_counted_as_time_outs() {
    let port = free_port();
    // Connections queue up in the kernel, and nobody accepts them.
    let _deaf = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let hammer = Load::on(port).limit(Duration::from_millis(200)).start_silently();
    wait_until(Duration::from_secs(5), "time-outs", || hammer.count(Outcome::Timeout) > 0);
    assert!(hammer.lost() > 0);
}

#[test]
fn two_ports_are_never_the_same() {
    let mut ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 50);
}

#[test]
fn every_user_reaches_the_program_and_the_fixtures() {
    for user in users() {
        let home = Home::new(user);
        clusterd(&home, &["--help"]).expect_code(0);
        assert!(home.apps().join("server.js").is_file(), "{user:?}");
        let worker = home.command(&[]).arg("--help").get_program().to_owned();
        assert_eq!(worker == "setpriv", user.is_some(), "{user:?}");
    }
}

/// nginx' rule: no warning goes unnoticed.
#[test]
fn a_warning_that_a_test_did_not_expect_fails_it() {
    let app = App::new("api", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    for (expected, fails) in [(&["SIGKILL", "unstable exits"][..], false), (&[], true), (&["another"], true)]
    {
        let daemon = Daemon::foreground(&app);
        daemon.expects(expected);
        support::daemon::send(daemon.wait_online("api", 1)[0], nix::sys::signal::Signal::SIGKILL);
        daemon.wait_for_text("was ended by SIGKILL");
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(daemon)));
        assert_eq!(dropped.is_err(), fails, "{expected:?}");
    }
}

#[test]
fn what_a_test_leaves_running_ends_with_its_home() {
    let home = Home::new(None);
    let mut sleeper = Command::new("sleep");
    sleeper.arg("1000").env("HARNESS_HOME", home.path());
    let mut child = sleeper.spawn().expect("sleep is everywhere");
    wait_until(Duration::from_secs(5), "the sleeper in the list", || home.processes().len() == 1);
    drop(home);
    let status = child.wait().expect("it is our child");
    assert!(!status.success(), "{status}");
}
