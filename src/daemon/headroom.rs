//! Looks what memory and descriptors are left for more workers of an app: facts for
//! [`crate::supervisor::headroom`], which decides.
//!
//! Several apps may be reloaded at once. What one was told that there is, and its new workers have not
//! taken yet, is not told to the next.

use std::collections::BTreeMap;
use std::path::Path;

use crate::supervisor::event::{AppId, Event, WorkerId};
use crate::supervisor::headroom::{self, Candidate, Good, Headroom, Promise, Stock};
use crate::supervisor::view::WorkerView;
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
        self.processes.adopt(&[], &self.probes.commands());
        self.promises.by_app.retain(|other, _| *other != app && self.supervisor.replaces(*other));
        let memory = self.memory_for(app).map(|stock| stock.less(self.promised_memory()));
        let descriptors = self.descriptors_for(app).map(|stock| stock.less(self.promised_descriptors()));
        let headroom = Headroom { stocks: memory.into_iter().chain(descriptors).collect() };
        let surge = self.catalog.app(app).map_or(0, |record| record.recipe.policy.max_surge);
        let promise = |stock: Option<Stock>| Promise {
            workers: surge.min(headroom.promises()),
            each: stock.map_or(0, |stock| stock.least),
        };
        let promised = Promised {
            after: self.processes.iter().map(|(worker, _)| worker).max(),
            memory: promise(memory),
            descriptors: promise(descriptors),
        };
        self.promises.by_app.insert(app, promised);
        self.inbox.push_back(Event::Measured { app, headroom });
    }

    fn promised_memory(&self) -> u64 {
        let taken = |worker| resident(&self.processes.tree_of(worker));
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
        let weighed = workers.map(|(worker, _)| (worker, resident(&self.processes.tree_of(worker))));
        let weights: BTreeMap<WorkerId, u64> = weighed.collect();
        let heaviest = weights.iter().max_by_key(|(_, weight)| **weight).map(|(worker, _)| *worker)?;
        // A closer look takes its time: at two workers only.
        let taken = |worker| taken(Path::new("/"), &self.processes.tree_of(worker));
        let least = headroom::lightest(&self.candidates(app, &weights)).map_or(0, taken);
        let each = taken(heaviest).max(least);
        Some(Stock { good: Good::Memory { limit: free.limit }, free: free.bytes, least, each })
    }

    fn candidates(&self, app: AppId, weights: &BTreeMap<WorkerId, u64>) -> Vec<Candidate> {
        let view = self.supervisor.view(self.now);
        let workers = view.apps.iter().filter(|seen| seen.app == app).flat_map(|seen| &seen.workers);
        let candidate = |seen: &WorkerView| {
            let worker = seen.worker.filter(|_| seen.ready)?;
            Some(Candidate { worker, lived: seen.uptime, weight: *weights.get(&worker)? })
        };
        workers.filter_map(candidate).collect()
    }

    fn descriptors_for(&self, app: AppId) -> Option<Stock> {
        let (limit, open) = process::own_descriptors().ok()?;
        let workers = self.processes.iter().filter(|(_, process)| process.app == app);
        let sockets = workers.map(|(worker, _)| self.sockets.of(worker).count()).max().unwrap_or(0);
        let each = DESCRIPTORS_OF_A_WORKER + u64::try_from(sockets).unwrap_or(u64::MAX);
        let free = limit.saturating_sub(open).saturating_sub(SPARE_DESCRIPTORS);
        Some(Stock { good: Good::Descriptors { limit }, free, least: each, each })
    }
}

/// In RAM; what processes share is counted in each.
fn resident(tree: &[i32]) -> u64 {
    tree.iter().map(|pid| memory::resident(Path::new("/"), *pid)).sum()
}

/// What a tree of processes takes at least. Of those that do not show their share, only the largest counts:
/// a forked process may share all that it has with its parent.
fn taken(root: &Path, tree: &[i32]) -> u64 {
    let (mut shown, mut largest) = (0_u64, 0);
    for pid in tree {
        match memory::proportional(root, *pid) {
            Ok(share) => shown = shown.saturating_add(share),
            Err(_) => largest = memory::resident(root, *pid).max(largest),
        }
    }
    shown.max(largest)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_forked_processes_share_is_not_counted_in_each_where_it_is_not_shown() {
        let host = tempfile::tempdir().expect("a temporary folder");
        let write = |path: &str, text: &str| {
            let path = host.path().join("proc").join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("it is ours");
            fs::write(path, text).expect("it is ours");
        };
        for pid in 1..=4 {
            write(&format!("{pid}/status"), &format!("RssAnon:  10{pid} kB\nRssShmem:  0 kB\n"));
        }
        assert_eq!(taken(host.path(), &[1, 2, 3, 4, 5]), 104 * 1024);
        assert_eq!(taken(host.path(), &[5]), 0);
        for pid in 1..=3 {
            write(&format!("{pid}/smaps_rollup"), "Pss_Anon:  40 kB\nPss_Shmem:  0 kB\n");
        }
        assert_eq!(taken(host.path(), &[1, 2, 3]), 120 * 1024);
        assert_eq!(taken(host.path(), &[1, 2, 3, 4]), 120 * 1024);
        assert_eq!(taken(host.path(), &[1, 4]), 104 * 1024);
    }
}
