//! Node's channel both ways, as PM2's users know it, and Node's own cluster module under instances.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::time::Duration;

use support::wait::holds_for;
use support::{App, Daemon, Fixture, Hammer, fixtures, free_port, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn server(way: &str) -> Option<Fixture> {
    let mut node = fixtures::node("ipc.js")?;
    node.command.push(way.to_owned());
    Some(node)
}

fn api(fixture: &Fixture) -> App {
    App::new("api", fixture).instances(2).port(free_port()).set("wait_ready", true)
}

#[test]
fn with_shutdown_with_message_a_worker_is_asked_by_message_and_not_by_signal() {
    let Some(node) = server("listens") else { return };
    let port = free_port();
    let app = api(&node).port(port).delay(20).set("shutdown_with_message", true).text("kill_timeout", "5s");
    let daemon = Daemon::foreground(app);
    daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    hammer.wait_answers(10);
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.wait_answers(10);
    hammer.stop().expect_none_lost();
    daemon.run(&["stop", "api"]).expect_code(0);
    let output = daemon.output();
    assert_eq!(output.matches("heard \"shutdown\"").count(), 4, "{output}");
    assert!(!output.contains("heard SIGINT"), "{output}");
    assert!(!daemon.log().contains("kill_timeout"), "{}", daemon.log());
}

#[test]
fn who_does_not_heed_the_message_is_killed_in_time() {
    let Some(node) = server("deaf") else { return };
    let app = api(&node).set("shutdown_with_message", true).text("kill_timeout", "300ms");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["did not end in kill_timeout"]);
    daemon.wait_online("api", 2);
    daemon.run(&["stop", "api"]).expect_code(0);
    assert_eq!(daemon.log().matches("did not end in kill_timeout").count(), 2, "{}", daemon.log());
}

#[test]
fn a_worker_without_the_channel_gets_the_signal_in_place_of_the_message() {
    let app = App::new("api", &fixtures::worker(&["idle"])).instances(1).set("shutdown_with_message", true);
    let daemon = Daemon::foreground(app.text("kill_timeout", "30s"));
    daemon.wait_online("api", 1);
    let output = daemon.run(&["stop", "api"]).expect_code(0);
    assert!(output.took < ms(10_000), "{output:?}");
    let exit = daemon.app("api").workers[0].last_exit.clone().expect("it ended");
    assert_eq!(exit.signal.as_deref(), Some("SIGINT"));
}

#[test]
fn other_messages_are_dropped_and_ready_after_them_is_heard() {
    let Some(node) = server("chatter") else { return };
    let daemon = Daemon::foreground(api(&node));
    daemon.wait_online("api", 2);
    // 100 MB went by.
    assert!(daemon.resident() < 40 * 1024, "{} KiB", daemon.resident());
}

#[test]
fn a_message_with_a_handle_does_not_silence_the_channel() {
    let Some(node) = server("handle") else { return };
    let daemon = Daemon::foreground(api(&node));
    daemon.wait_online("api", 2);
}

#[test]
fn a_worker_that_disconnects_serves_on_and_is_stopped_by_its_signal() {
    let Some(node) = server("leaves") else { return };
    let app = api(&node).set("shutdown_with_message", true).text("kill_timeout", "300ms");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["did not end in kill_timeout"]);
    let pids = daemon.wait_online("api", 2);
    wait_until(ms(5_000), "both have disconnected", || daemon.output().matches("disconnected").count() == 2);
    holds_for(ms(300), "they serve on", || daemon.pids("api") == pids);
    daemon.run(&["stop", "api"]).expect_code(0);
    assert_eq!(daemon.output().matches("heard SIGINT").count(), 2, "{}", daemon.output());
}

#[test]
fn a_cluster_within_a_cluster_is_warned_about_once() {
    let Some(node) = server("cluster") else { return };
    let daemon = Daemon::foreground(api(&node).set("wait_ready", false));
    daemon.expects(&["do not double-cluster"]);
    daemon.wait_online("api", 2);
    daemon.wait_for_text("do not double-cluster");
    daemon.run(&["reload", "api"]).expect_code(0);
    assert_eq!(daemon.log().matches("do not double-cluster").count(), 1, "{}", daemon.log());
}

#[test]
fn nobody_else_is_warned_of_a_double_cluster() {
    let (Some(cluster), Some(plain)) = (server("cluster"), server("listens")) else { return };
    let one = App::new("one", &cluster).instances(1).port(free_port());
    let daemon = Daemon::foreground(support::file(&[one, api(&plain)]));
    daemon.wait_online("one", 1);
    daemon.wait_online("api", 2);
    assert!(!daemon.log().contains("double-cluster"), "{}", daemon.log());
}
