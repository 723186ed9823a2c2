//! Reloads under load: what `tests/reload.rs` and `tests/runtimes.rs` share.
//!
//! Three reloads a case; `CLUSTERD_HAMMER_RELOADS=20` for `make hammer`.

use std::time::{Duration, Instant};

use super::daemon::exists;
use super::history::{History, Reload};
use super::{App, Daemon, Fixture, Hammer, Load, users};

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn reloads() -> usize {
    std::env::var("CLUSTERD_HAMMER_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(3)
}

/// A running load, of whatever clients.
pub(crate) trait Clients {
    /// Waits for so many more answers: the load goes on.
    fn wait_answers(&self, more: usize);

    /// Lets each client finish its request, and gives what became of all of them.
    fn stop(self) -> History;
}

impl Clients for Hammer {
    fn wait_answers(&self, more: usize) {
        self.wait_answers(more);
    }

    fn stop(self) -> History {
        self.stop()
    }
}

/// Several loads at once.
impl<C: Clients> Clients for Vec<C> {
    fn wait_answers(&self, more: usize) {
        self.iter().for_each(|clients| clients.wait_answers(more));
    }

    fn stop(self) -> History {
        self.into_iter().map(Clients::stop).fold(History::default(), History::with)
    }
}

/// Two workers of `api`.
pub(crate) fn api(fixture: &Fixture, port: u16) -> App {
    App::new("api", fixture).instances(2).port(port)
}

/// The same case as an ordinary user, where the tests can become one.
pub(crate) fn ordinary_user(delay: u32) -> Option<(Option<u32>, u32)> {
    users().into_iter().find(Option::is_some).map(|user| (user, delay))
}

/// Reloads `api` and waits for the end of it.
pub(crate) fn reload(daemon: &Daemon) -> Reload {
    let before = daemon.pids("api");
    let asked = Instant::now();
    daemon.run(&["reload", "api"]).expect_code(0);
    let done = Instant::now();
    for pid in &before {
        assert!(!exists(*pid), "worker {pid} outlived the reload that said it was done");
    }
    let app = daemon.app("api");
    let after = daemon.pids("api");
    assert_eq!(after.len(), before.len(), "{app:#?}");
    assert!(app.workers.iter().all(|worker| worker.generation == app.generation), "{app:#?}");
    Reload { generation: app.generation, asked, done, left: before }
}

/// What becomes of this load while `api` is reloaded again and again.
pub(crate) fn reload_under(daemon: &Daemon, load: Load) -> History {
    reload_while(daemon, || load.start())
}

/// As [`reload_under`], with clients that are started when `api` serves.
pub(crate) fn reload_while<C: Clients>(daemon: &Daemon, start: impl FnOnce() -> C) -> History {
    let count = daemon.app("api").instances as usize;
    daemon.wait_online("api", count);
    let clients = start();
    let mut seen = Vec::new();
    for _ in 0..reloads() {
        seen.push(reload(daemon));
        clients.wait_answers(6);
    }
    let history = clients.stop();
    history.expect_in_step_with(&seen);
    let new = seen.last().expect("there is one at least").generation;
    assert!(history.generations().contains(&new), "the last generation never answered: {history:?}");
    history
}
