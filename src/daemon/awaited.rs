//! Who waits for log files that are being opened: a start, and an app whose workers are to write elsewhere. Where a disk
//! does not answer they wait so long, and nobody else does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use crate::logs::files;
use crate::supervisor::event::{AppId, WorkerId};
use crate::supervisor::time::Time;

use super::Daemon;
use super::start::Order;

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// A start.
    Start(WorkerId),
    /// The workers of an app that run.
    Exchange(AppId),
}

#[derive(Debug)]
struct Waiting {
    /// The start.
    order: Option<Order>,
    left: BTreeSet<PathBuf>,
    until: Time,
}

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct AwaitedFiles {
    waiting: BTreeMap<Who, Waiting>,
    by_path: BTreeMap<PathBuf, BTreeSet<Who>>,
}

impl AwaitedFiles {
    /// A start waits.
    pub(super) fn has_start(&self) -> bool {
        self.waiting.keys().any(|who| matches!(who, Who::Start(_)))
    }

    /// A start of this app waits.
    pub(super) fn starts(&self, app: AppId) -> bool {
        self.waiting.values().any(|waiting| waiting.order.as_ref().is_some_and(|order| order.app == app))
    }

    /// Lets go of a start. True when there was one.
    pub(super) fn drop_start(&mut self, worker: WorkerId) -> bool {
        self.take(Who::Start(worker)).is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.waiting.values().map(|waiting| waiting.until).min()
    }

    fn put(&mut self, who: Who, order: Option<Order>, left: BTreeSet<PathBuf>, now: Time) {
        // Its files may be others by now.
        self.take(who);
        for path in &left {
            self.by_path.entry(path.clone()).or_default().insert(who);
        }
        self.waiting.insert(who, Waiting { order, left, until: now + files::STALLED });
    }

    fn take(&mut self, who: Who) -> Option<Waiting> {
        let waiting = self.waiting.remove(&who)?;
        for path in &waiting.left {
            if let Some(others) = self.by_path.get_mut(path) {
                others.remove(&who);
                if others.is_empty() {
                    self.by_path.remove(path);
                }
            }
        }
        Some(waiting)
    }

    /// This file is open, or cannot be: who waits for nothing else.
    fn found(&mut self, path: &PathBuf) -> Vec<Who> {
        let mut ready = Vec::new();
        for who in self.by_path.remove(path).unwrap_or_default() {
            let Some(waiting) = self.waiting.get_mut(&who) else { continue };
            waiting.left.remove(path);
            if waiting.left.is_empty() {
                ready.push(who);
            }
        }
        ready
    }

    /// Who is not to wait any longer.
    fn overdue(&self, now: Time) -> Vec<Who> {
        let overdue = self.waiting.iter().filter(|(_, waiting)| waiting.until <= now);
        overdue.map(|(who, _)| *who).collect()
    }
}

impl Daemon {
    /// Whether a start can be carried out; else it goes on when its files are open.
    pub(super) fn has_files(&mut self, order: &Order) -> bool {
        let Some(recipe) = order.recipe.clone() else { return true };
        let left = self.prepare_files(order.app, order.instance, &recipe);
        let waits = !left.is_empty();
        if waits {
            self.awaited_files.put(Who::Start(order.worker), Some(order.clone()), left, self.now);
        }
        !waits
    }

    /// The workers of an app that run write elsewhere once these are open.
    pub(super) fn await_exchange(&mut self, app: AppId, left: BTreeSet<PathBuf>) {
        self.awaited_files.put(Who::Exchange(app), None, left, self.now);
    }

    /// Those whose files are open by now go on, and those who have waited for too long.
    pub(super) fn look_at_awaited_files(&mut self) {
        for path in self.output.files.take_found() {
            for who in self.awaited_files.found(&path) {
                match self.awaited_files.take(who) {
                    // Behind those that were ordered before it.
                    Some(Waiting { order: Some(order), .. }) => {
                        let place = self.starts.partition_point(|other| other.worker < order.worker);
                        self.starts.insert(place, order);
                    }
                    Some(_) | None => self.exchange_for(who, false),
                }
            }
        }
        for who in self.awaited_files.overdue(self.now) {
            match self.awaited_files.take(who) {
                Some(Waiting { order: Some(order), .. }) => self.start_without_asking(&order),
                Some(_) | None => self.exchange_for(who, true),
            }
        }
        if self.starts.is_empty() && self.awaited_files.waiting.is_empty() {
            self.output.files.forget_prepared();
        }
    }

    fn exchange_for(&mut self, who: Who, at_once: bool) {
        let Who::Exchange(app) = who else { return };
        if let Some(recipe) = self.catalog.app(app).map(|record| Rc::clone(&record.recipe)) {
            self.exchange_when_open(app, &recipe, at_once);
        }
    }
}
