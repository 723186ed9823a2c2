//! What PM2's own tests run, written anew, and how they look at the list.

use std::fs;

use super::daemon::{BOOT, Daemon};
use super::wait::wait_until;

/// Says one line with its variable WORD and its first argument, and waits for ever.
pub(crate) const ECHO: &str = "#!/bin/sh\necho \"word ${WORD:-undefined} of $1\"\nexec sleep 100000\n";

/// Of one app: its name, its status, and how often each of its workers was started again.
pub(crate) type Row = (String, String, Vec<u32>);

/// What a test expects of one app.
pub(crate) fn row(name: &str, status: &str, restarts: &[u32]) -> Row {
    (name.to_owned(), status.to_owned(), restarts.to_vec())
}

/// The apps of the list by name.
pub(crate) fn standing(daemon: &Daemon) -> Vec<Row> {
    let apps = daemon.list().apps.into_iter();
    let mut all: Vec<Row> = apps
        .map(|app| {
            let restarts = app.workers.iter().map(|worker| worker.restarts).collect();
            (app.name, app.status, restarts)
        })
        .collect();
    all.sort();
    all
}

/// Waits until a log file has this text so many times; `file` is relative to the home's `logs`.
pub(crate) fn wait_logged(daemon: &Daemon, file: &str, text: &str, times: usize) {
    let path = daemon.home.path().join("logs").join(file);
    wait_until(BOOT, &format!("{text:?} {times} times in {file}"), || {
        let log = fs::read_to_string(&path).unwrap_or_default();
        if log.matches(text).count() >= times { Ok(()) } else { Err(log) }
    });
}
