//! Everything at once and for long: servers of several languages under load, reloaded and scaled again and again,
//! while workers of other apps are killed at random. Nothing is lost where nobody was killed, everything that was
//! killed comes back, and the supervisor is in the end as large as it was in the beginning.
//!
//! SOAK_SECONDS: how long; 20 without it, 600 in `make soak`. SOAK_SEED: which operations, in which order.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;
use support::daemon::{BOOT, Builder};
use support::history::Reload;
use support::{App, Daemon, Hammer, Load, file, fixtures, free_port, wait_until};

/// How long one load goes on until what became of it is looked at.
const ROUND: Duration = Duration::from_secs(8);

/// What kills bring about in the log.
const OF_KILLS: &[&str] = &[
    "was ended by SIGKILL",
    "was ended by SIGABRT",
    "was ended by SIGSEGV",
    "unstable exits in a row",
    "did not end in kill_timeout",
];

/// Descriptors that a worker on its way in or out may hold at the moment of counting, and memory that an
/// allocator may keep, in KiB.
const SPARE_DESCRIPTORS: usize = 12;
const SPARE_MEMORY: u64 = 4 * 1024;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// An app under load that nobody kills.
struct Served {
    name: &'static str,
    port: u16,
}

fn served() -> (Vec<Served>, Vec<App>) {
    let servers = [
        ("rust", Some(fixtures::worker(&["serve"]))),
        ("node", fixtures::server("node")),
        ("python", fixtures::server("asyncio")),
    ];
    let mut all = (Vec::new(), Vec::new());
    for (name, fixture) in servers {
        let Some(fixture) = fixture else { continue };
        let port = free_port();
        all.0.push(Served { name, port });
        all.1.push(App::new(name, &fixture).instances(2).port(port));
    }
    all
}

/// Apps whose workers are killed: one with a port and one without.
fn victims() -> Vec<App> {
    let cluster = App::new("shot", &fixtures::worker(&["serve"])).instances(2).port(free_port());
    let fork = App::new("shot-too", &fixtures::worker(&["stubborn-child"])).text("exec_mode", "fork");
    [cluster, fork].map(|app| app.set("max_restarts", 0).text("kill_timeout", "500ms")).into()
}

fn reload(daemon: &Daemon, name: &str) -> Reload {
    let left = daemon.pids(name);
    let asked = Instant::now();
    daemon.run(&["reload", name]).expect_code(0);
    let done = Instant::now();
    Reload { generation: daemon.app(name).generation, asked, done, left }
}

fn kill_one(daemon: &Daemon, rng: &mut Rng) {
    let name = *rng.choice(&["shot", "shot-too"]).expect("there are two");
    let signal = *rng.choice(&[Signal::SIGKILL, Signal::SIGABRT, Signal::SIGSEGV]).expect("there are three");
    let Some(pid) = rng.choice(daemon.pids(name)) else { return };
    // It may have ended since the list was made.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

/// One load on each app, with operations under way; then what became of every request.
fn round(daemon: &Daemon, apps: &[Served], rng: &mut Rng) -> usize {
    let end = Instant::now() + ROUND;
    let load = |app: &Served| -> Vec<Hammer> {
        let load = Load::on(app.port).clients(2);
        vec![load.clone().start(), load.keep_alive(Duration::from_millis(5)).start()]
    };
    let loads: Vec<Vec<Hammer>> = apps.iter().map(load).collect();
    let mut reloads: Vec<Vec<Reload>> = apps.iter().map(|_| Vec::new()).collect();
    while Instant::now() < end {
        let chosen = rng.usize(0..apps.len());
        match rng.u8(0..6) {
            0 | 1 => reloads[chosen].push(reload(daemon, apps[chosen].name)),
            2 => {
                drop(daemon.run(&["scale", apps[chosen].name, &rng.usize(1..=4).to_string()]).expect_code(0))
            }
            3 | 4 => kill_one(daemon, rng),
            _ => drop(daemon.run(&["list", "--json"]).expect_code(0)),
        }
    }
    let mut requests = 0;
    for (load, reloads) in loads.into_iter().zip(&reloads) {
        let [one_shot, keep_alive] = <[Hammer; 2]>::try_from(load).ok().expect("two each");
        let history = one_shot.stop();
        history.expect_none_lost();
        history.expect_in_step_with(reloads);
        requests += history.records.len();
        let history = keep_alive.stop();
        history.expect_none_lost();
        requests += history.records.len();
    }
    requests
}

/// Everything as in the beginning: two workers of each served app, and what was killed is back.
fn settle(daemon: &Daemon, apps: &[Served]) -> (usize, u64) {
    for app in apps {
        daemon.run(&["scale", app.name, "2"]).expect_code(0);
        daemon.wait_online(app.name, 2);
    }
    for (name, count) in [("shot", 2), ("shot-too", 1)] {
        wait_until(BOOT * 2, &format!("{name} is back"), || daemon.pids(name).len() == count);
    }
    wait_until(BOOT, "no zombies", || daemon.zombies().is_empty());
    (daemon.descriptors(), daemon.resident())
}

/// Fault 85, and the rest of them at random.
#[test]
fn nothing_is_lost_or_leaked_however_long_it_goes_on() {
    let limit = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(20));
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SOAK_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let (apps, mut all) = served();
    all.extend(victims());
    let daemon = Builder::new(file(&all)).expects(OF_KILLS).start();
    settle(&daemon, &apps);
    let begin = Instant::now();
    // The first round warms up what is filled once: rings of lines, tables, the allocator.
    let mut requests = round(&daemon, &apps, &mut rng);
    let before = settle(&daemon, &apps);
    while begin.elapsed() < limit {
        requests += round(&daemon, &apps, &mut rng);
    }
    let after = settle(&daemon, &apps);
    eprintln!("{requests} requests in {:?}; descriptors and KiB {before:?}, then {after:?}", begin.elapsed());
    assert!(after.0 <= before.0 + SPARE_DESCRIPTORS, "descriptors: {before:?}, then {after:?}");
    assert!(after.1 <= before.1 + before.1 / 4 + SPARE_MEMORY, "memory: {before:?}, then {after:?}");
    daemon.run(&["stop", "all"]).expect_code(0);
    assert_eq!(daemon.workers(), []);
}
