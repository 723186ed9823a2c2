//! Looks what memory and descriptors are left for more workers of an app: facts for
//! [`crate::supervisor::headroom`], which decides.
//!
//! Several apps may be reloaded at once. What one was told that there is, and its new workers have not
//! taken yet, is not told to the next.

use std::collections::BTreeMap;
use std::path::Path;

use crate::supervisor::event::{AppId, Event, WorkerId};
use crate::supervisor::headroom::{Good, Headroom, Promise, Stock};
use crate::sys::{memory, process};

use super::Daemon;

/// What the supervisor has open for a worker: its process, two outputs with a file each, the way to exec,
/// bind and listen calls, and Node's channel. Its listening sockets come on top.
const DESCRIPTORS_OF_A_WORKER: u64 = 8;

/// Descriptors that must stay free: a start takes some for a moment (the other ends of pipes), and so do
/// looks into /proc and clients of the control socket.
const SPARE_DESCRIPTORS: u64 = 16;

/// What reloads under way were promised.
#[derive(Debug, Default)]
pub(super) struct Promises {
    by_app: BTreeMap<AppId, Promised>,
}

/// To workers of one app that are newer than `after`.
#[derive(Debug)]
struct Promised {
    after: Option<WorkerId>,
    memory: Promise,
    descriptors: Promise,
}

impl Daemon {
    /// Answered by `Measured`.
    pub(super) fn measure(&mut self, app: AppId) {
        // Also what left its parent: it is part of what a worker takes.
        self.processes.adopt(&[]);
        self.promises.by_app.retain(|other, _| *other != app && self.supervisor.reloads(*other));
        let memory = self.memory_for(app).map(|stock| stock.less(self.promised_memory()));
        let descriptors = self.descriptors_for(app).map(|stock| stock.less(self.promised_descriptors()));
        let stocks: Vec<Stock> = memory.into_iter().chain(descriptors).collect();
        let fits = stocks.iter().map(|stock| stock.fits()).min().unwrap_or(0);
        let surge = self.catalog.app(app).map_or(0, |record| record.recipe.policy.max_surge);
        let promise = |stock: Option<Stock>| Promise {
            workers: surge.min(fits),
            each: stock.map_or(0, |stock| stock.each),
        };
        let promised = Promised {
            after: self.processes.iter().map(|(worker, _)| worker).max(),
            memory: promise(memory),
            descriptors: promise(descriptors),
        };
        self.promises.by_app.insert(app, promised);
        self.inbox.push_back(Event::Measured { app, headroom: Headroom { stocks } });
    }

    fn promised_memory(&self) -> u64 {
        let taken = |worker| self.processes.tree_of(worker).iter().map(|pid| self.resident(*pid)).sum();
        self.outstanding(|promised| promised.memory, taken)
    }

    fn promised_descriptors(&self) -> u64 {
        let all = self.promises.by_app.values().map(|promised| promised.descriptors.each);
        let each = all.max().unwrap_or(0);
        self.outstanding(|promised| promised.descriptors, |_| each)
    }

    /// What new workers of other apps are still going to take.
    fn outstanding(&self, of: impl Fn(&Promised) -> Promise, taken: impl Fn(WorkerId) -> u64) -> u64 {
        let one = |(app, promised): (&AppId, &Promised)| {
            let newer = |worker: &WorkerId| Some(*worker) > promised.after;
            let workers = self.processes.iter().filter(|(_, process)| process.app == *app);
            let new = workers.map(|(worker, _)| worker).filter(newer);
            of(promised).outstanding(new.map(&taken).sum())
        };
        self.promises.by_app.iter().map(one).sum()
    }

    fn memory_for(&self, app: AppId) -> Option<Stock> {
        let free = memory::free(Path::new("/"))?;
        let workers = self.processes.iter().filter(|(_, process)| process.app == app);
        let trees = workers.map(|(worker, _)| self.processes.tree_of(worker));
        let heaviest = trees.max_by_key(|tree| tree.iter().map(|pid| self.resident(*pid)).sum::<u64>())?;
        // Pages that the tree shares are counted once; where that is not shown, in each process.
        let taken = |pid: &i32| memory::proportional(*pid).unwrap_or_else(|_| self.resident(*pid));
        let each = heaviest.iter().map(taken).sum();
        Some(Stock { good: Good::Memory { limit: free.limit }, free: free.bytes, each })
    }

    /// RSS in bytes; 0 when it has ended.
    fn resident(&self, pid: i32) -> u64 {
        process::stat(pid).map_or(0, |stat| stat.resident_pages * self.surroundings.page_size)
    }

    fn descriptors_for(&self, app: AppId) -> Option<Stock> {
        let (limit, open) = process::own_descriptors().ok()?;
        let workers = self.processes.iter().filter(|(_, process)| process.app == app);
        let sockets = workers.map(|(worker, _)| self.sockets.of(worker).count()).max().unwrap_or(0);
        let each = DESCRIPTORS_OF_A_WORKER + u64::try_from(sockets).unwrap_or(u64::MAX);
        let free = limit.saturating_sub(open).saturating_sub(SPARE_DESCRIPTORS);
        Some(Stock { good: Good::Descriptors { limit }, free, each })
    }
}
