//! What workers say over the notify socket (sd_notify), by servers that are no part of this program:
//! what is believed, shown and answered, and what a hostile or broken one can do (faults 86 to 88).

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use clusterd::control::protocol::WorkerInfo;
use nix::sys::signal::Signal;
use support::daemon::{Builder, send};
use support::wait::holds_for;
use support::{App, Daemon, Fixture, fixtures, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn api(fixture: &Fixture) -> App {
    App::new("api", fixture).instances(1).set("wait_ready", true).text("kill_timeout", "200ms")
}

fn only_worker(daemon: &Daemon) -> WorkerInfo {
    daemon.app("api").workers.remove(0)
}

#[test]
fn a_workers_status_is_shown_short_and_clean() {
    let Some(python) = fixtures::python("notify.py") else { return };
    let daemon = Daemon::foreground(api(&python));
    daemon.wait_online("api", 1);
    assert_eq!(only_worker(&daemon).status_text, None);
    let long = "é".repeat(1500);
    for (number, said, shown) in [
        (0, "STATUS=warming \u{1b}[31mup\u{7}", "warming  [31mup ".trim_end().to_owned()),
        (1, &*format!("STATUS={long}"), "é".repeat(256)),
    ] {
        daemon.home.put(&format!("say.{number}"), said);
        wait_until(ms(5_000), "the status", || {
            let status = only_worker(&daemon).status_text;
            if status.as_deref().map(str::trim_end) == Some(&*shown) {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        });
    }
    let output = daemon.run(&["describe", "api"]).expect_code(0);
    assert!(output.stdout.contains("0 says: éééé"), "{output:?}");
    daemon.home.put("say.2", "STATUS=");
    wait_until(ms(5_000), "no status", || only_worker(&daemon).status_text.is_none());
}

#[test]
fn the_reason_that_a_worker_gives_is_in_its_death_report() {
    let Some(python) = fixtures::python("notify.py") else { return };
    let daemon = Daemon::foreground(api(&python).set("restart_delay", 60_000));
    daemon.expects(&["exited with code 3 ", "unstable exits in a row"]);
    daemon.wait_online("api", 1);
    daemon.home.put("say.0", "ERRNO=28");
    daemon.home.put("say.1", "!exit 3");
    daemon.wait_for_text("exited with code 3");
    let exit = only_worker(&daemon).last_exit.expect("it ended");
    assert_eq!((exit.code, exit.reason.as_str()), (Some(3), "crash"));
    let message = exit.message.expect("its reason");
    assert!(message.contains("No space left on device"), "{message}");
    assert!(daemon.log().contains("No space left on device (ERRNO=28)"), "{}", daemon.log());
}

#[test]
fn a_barrier_is_answered() {
    let Some(python) = fixtures::python("notify.py") else { return };
    let daemon = Daemon::foreground(api(&python));
    daemon.wait_online("api", 1);
    daemon.home.put("say.0", "!barrier");
    daemon.wait_for_text("barrier answered True");
}

/// Fault 87: also when there is no room for them, where the kernel cuts the message.
#[test]
fn descriptors_that_come_with_a_message_are_closed() {
    let Some(python) = fixtures::python("notify.py") else { return };
    for limit in [None, Some("--nofile=100:100")] {
        let builder = Builder::new(api(&python));
        let builder = if let Some(limit) = limit { builder.wrap(&["prlimit", limit]) } else { builder };
        let daemon = builder.start();
        daemon.expects(&["ignored, the last one"]);
        daemon.wait_online("api", 1);
        let before = daemon.descriptors();
        daemon.home.put("say.0", "!descriptors 253 20");
        daemon.wait_for_text("all were closed True");
        daemon.home.put("say.1", "STATUS=still heard");
        wait_until(ms(5_000), "the next message", || only_worker(&daemon).status_text.is_some());
        assert!(daemon.descriptors() <= before + 1, "{limit:?}: {before} → {}", daemon.descriptors());
    }
}

/// Fault 86.
#[test]
fn no_message_can_break_or_hold_up_the_supervisor() {
    let Some(python) = fixtures::python("notify.py") else { return };
    let daemon = Daemon::foreground(api(&python));
    daemon.expects(&["ignored, the last one"]);
    let pids = daemon.wait_online("api", 1);
    daemon.home.put("say.0", "!nasty");
    daemon.wait_for_text("nasty said");
    daemon.home.put("say.1", "!flood");
    wait_until(ms(5_000), "the flood", || only_worker(&daemon).status_text.is_some());
    for _ in 0..4 {
        let ping = daemon.quickest(&["ping"]);
        assert!(ping.took < ms(1_000), "{ping:?}");
    }
    assert_eq!(daemon.pids("api"), pids);
    // A new worker is heard beside it.
    daemon.run(&["scale", "api", "2"]).expect_code(0);
    daemon.wait_online("api", 2);
    assert!(daemon.log().lines().count() < 40, "{}", daemon.log());
}

#[test]
fn the_words_of_strangers_are_counted_and_told_of_seldom() {
    let Some(python) = fixtures::python("notify.py") else { return };
    let daemon = Daemon::foreground(api(&python));
    daemon.expects(&["ignored, the last one"]);
    daemon.wait_online("api", 1);
    let stranger = UnixDatagram::unbound().expect("descriptors are left");
    let environment = std::fs::read(format!("/proc/{}/environ", daemon.pids("api")[0])).expect("it runs");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let path = environment.split('\0').find_map(|line| line.strip_prefix("NOTIFY_SOCKET="));
    let path = path.expect("a worker is told where to say READY=1");
    let before = daemon.pids("api");
    for _ in 0..500 {
        stranger.send_to(b"STATUS=forged\nSTOPPING=1", path).expect("anybody may send");
    }
    daemon.wait_for_text("ignored, the last one");
    holds_for(ms(300), "nothing of it is believed", || {
        let worker = only_worker(&daemon);
        worker.status_text.is_none() && worker.ready && worker.pid == Some(before[0])
    });
    assert_eq!(daemon.log().matches("ignored, the last one").count(), 1, "{}", daemon.log());
}

/// Fault 18, the second way.
#[test]
fn a_server_in_the_background_is_followed_when_it_says_who_it_is() {
    let Some(python) = fixtures::python("notify.py") else { return };
    let daemon = Daemon::foreground(api(&python));
    daemon.expects(&["was ended by SIGKILL"]);
    let first = daemon.wait_online("api", 1);
    daemon.home.put("say.0", "!succeed");
    let second = wait_until(ms(5_000), "the process that it named", || {
        daemon.online("api").first().and_then(|worker| worker.pid).filter(|pid| *pid != first[0])
    });
    let worker = only_worker(&daemon);
    assert_eq!((worker.restarts, worker.last_exit), (0, None));
    let file = daemon.home.path().join("pids/api-0.pid");
    let noted = std::fs::read_to_string(&file).expect("each worker has one");
    assert_eq!(noted.trim(), second.to_string(), "{}", file.display());
    daemon.home.put("say.1", "STATUS=the second");
    wait_until(ms(5_000), "its word", || only_worker(&daemon).status_text.as_deref() == Some("the second"));
    std::fs::remove_file(daemon.home.apps().join("say.0")).expect("it was put there");
    send(second, Signal::SIGKILL);
    wait_until(ms(5_000), "its successor", || {
        let worker = only_worker(&daemon);
        worker.restarts == 1 && worker.ready
    });
    daemon.run(&["stop", "api"]).expect_code(0);
    assert!(daemon.workers().is_empty(), "{:?}", daemon.workers());
}

/// However many end in one moment, and so however long each end waits to be told: whoever goes on in the place of one
/// speaks for its worker from its first word on.
#[test]
fn what_the_named_process_says_is_heard_while_the_end_of_the_first_one_waits() {
    const COUNT: usize = 60;
    let app = api(&fixtures::worker(&["succeed", "go"])).instances(COUNT as u32);
    let daemon = Daemon::foreground(app);
    wait_until(ms(30_000), "all of them running", || {
        let pids = daemon.app("api").workers.iter().filter(|worker| worker.pid.is_some()).count();
        if pids == COUNT { Ok(()) } else { Err(pids) }
    });
    daemon.home.put("go", "");
    daemon.wait_online("api", COUNT);
    let restarts: u32 = daemon.app("api").workers.iter().map(|worker| worker.restarts).sum();
    assert_eq!(restarts, 0);
}

/// What a worker says right before its end is its own, whoever else ends in the same moment.
#[test]
fn last_words_of_many_that_end_at_once_are_heard() {
    const COUNT: usize = 60;
    let app = api(&fixtures::worker(&["say-why", "28", "3", "go"])).instances(COUNT as u32);
    let daemon = Daemon::foreground(app.set("restart_delay", 600_000).text("min_uptime", "1ms"));
    daemon.expects(&["exited with code 3 ", "next start in"]);
    daemon.wait_online("api", COUNT);
    daemon.home.put("go", "");
    let exits = wait_until(ms(30_000), "the end of all", || {
        let exits: Vec<_> =
            daemon.app("api").workers.into_iter().filter_map(|worker| worker.last_exit).collect();
        if exits.len() == COUNT { Ok(exits) } else { Err(exits.len()) }
    });
    let told = exits.iter().filter_map(|exit| exit.message.as_deref());
    assert_eq!(told.filter(|why| why.contains("No space left on device")).count(), COUNT, "{exits:?}");
}

#[test]
fn a_main_process_outside_the_workers_tree_is_not_taken() {
    let Some(python) = fixtures::python("notify.py") else { return };
    let daemon = Daemon::foreground(api(&python));
    daemon.expects(&["ignored, the last one", "exited with code 0 "]);
    daemon.wait_online("api", 1);
    daemon.home.put("say.0", &format!("!succeed {}", std::process::id()));
    // The test itself must not be signalled, and what is left of the worker's tree is stopped.
    daemon.wait_for_text("which is not of its sender's tree");
    daemon.wait_for_text("daemonised");
}
