//! What lives on when the first process of a worker has ended whose app says `treekill = false`: told, never
//! signalled, and its output read until it closes it.

use std::collections::VecDeque;

use crate::control::protocol::{Progress, Stream};
use crate::supervisor::event::WorkerId;
use crate::sys::process;

use super::Daemon;

/// Processes that are named in a message.
const NAMED: usize = 5;

/// Workers whose output is read beyond their end, at most: with one more, the oldest is read no longer.
const MOST: usize = 100;

/// Workers that are gone, and whose output somebody still writes to. The oldest first.
#[derive(Debug, Default)]
pub(super) struct Outlived {
    workers: VecDeque<WorkerId>,
}

impl Daemon {
    /// Whether the end of this worker's first process is the end of the worker, whatever else it started.
    pub(super) fn ends_alone(&self, worker: WorkerId) -> bool {
        self.processes.get(worker).is_some_and(|process| !process.recipe.spec.treekill)
    }

    /// To be told before the core hears that nothing is left.
    pub(super) fn tell_of_what_stays(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get(worker).filter(|_| self.ends_alone(worker)) else { return };
        let stays = self.processes.tree_of(worker);
        if stays.is_empty() {
            return;
        }
        let message = message(&stays.iter().map(|pid| (*pid, program(*pid))).collect::<Vec<_>>());
        log::info!("{}: {message}", self.label(worker));
        let place = self.names.get(&worker).map(|(_, place)| *place);
        let (app, id, pid) = (process.app, Some(process.slot.0), Some(process.pid));
        let progress = Progress {
            app: self.app_name(app),
            event: "left_running".to_owned(),
            id,
            instance: place.map(|place| place.instance),
            pid,
            generation: place.map(|place| place.generation.0),
            done: None,
            total: None,
            message,
        };
        self.send_progress(app, &progress);
    }

    /// The worker is gone. What it left may write on: to a pipe that nobody reads it would do so once.
    pub(super) fn outlive_or_end_output(&mut self, worker: WorkerId) {
        if !self.ends_alone(worker) || !self.processes.has_leftovers(worker) {
            return self.end_output(worker);
        }
        self.drain_output(worker);
        self.outlived.workers.push_back(worker);
        if self.outlived.workers.len() > MOST
            && let Some(oldest) = self.outlived.workers.pop_front()
        {
            log::warn!(
                "more than {MOST} workers have left processes that write on (treekill = false): what the oldest of \
                 them print is not read any more"
            );
            self.let_go_of_output(oldest);
        }
        self.end_outlived();
    }

    /// Lets go of those outputs that were closed.
    pub(super) fn end_outlived(&mut self) {
        if self.outlived.workers.is_empty() {
            return;
        }
        let is_read = |entry: &super::output::Entry| {
            [Stream::Out, Stream::Err].into_iter().any(|stream| entry.output.source(stream).is_some())
        };
        let outputs = &self.output.workers;
        let closed = |worker: &WorkerId| !outputs.get(worker).is_some_and(|entry| is_read(entry));
        let (gone, open): (VecDeque<WorkerId>, _) =
            std::mem::take(&mut self.outlived.workers).into_iter().partition(closed);
        self.outlived.workers = open;
        for worker in gone {
            self.let_go_of_output(worker);
        }
    }

    fn let_go_of_output(&mut self, worker: WorkerId) {
        let app = self.output.workers.get(&worker).map(|entry| entry.output.origin().app);
        self.end_output(worker);
        // Its lines were remembered again after it was deleted.
        if let Some(app) = app.filter(|app| self.catalog.app(*app).is_none()) {
            self.output.forget_app(app);
        }
    }
}

/// The name alone: arguments may be secrets, and a log is read by many.
fn program(pid: i32) -> String {
    let arguments = process::arguments(pid);
    arguments.first().and_then(|word| word.rsplit('/').next()).unwrap_or_default().to_owned()
}

fn message(stays: &[(i32, String)]) -> String {
    let mut named: Vec<String> =
        stays.iter().take(NAMED).map(|(pid, name)| format!("{pid} {name}")).collect();
    if let Some(more @ 1..) = stays.len().checked_sub(NAMED) {
        named.push(format!("and {more} more"));
    }
    let runs =
        if stays.len() == 1 { "a process that it started runs" } else { "processes that it started run" };
    format!("{runs} on (treekill = false): {}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_named_up_to_a_few() {
        let stays: Vec<(i32, String)> = (1..=7).map(|pid| (pid, "helper".to_owned())).collect();
        assert_eq!(message(&stays[..1]), "a process that it started runs on (treekill = false): 1 helper");
        assert!(message(&stays).ends_with("4 helper, 5 helper, and 2 more"), "{}", message(&stays));
    }
}
