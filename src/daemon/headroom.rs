//! Looks what memory and descriptors are left for more workers of an app: facts for
//! [`crate::supervisor::headroom`], which decides.

use std::path::Path;

use crate::supervisor::event::{AppId, Event, WorkerId};
use crate::supervisor::headroom::{Good, Headroom, Stock};
use crate::sys::{memory, process};

use super::Daemon;

/// What the supervisor has open for a worker: its process, two outputs with a file each, the way to exec,
/// bind and listen calls, and Node's channel. Its listening sockets come on top.
const DESCRIPTORS_OF_A_WORKER: u64 = 8;

/// Descriptors that must stay free: a start takes some for a moment (the other ends of pipes), and so do
/// looks into /proc and clients of the control socket.
const SPARE_DESCRIPTORS: u64 = 16;

impl Daemon {
    /// Answered by `Measured`.
    pub(super) fn measure(&mut self, app: AppId) {
        // Also what left its parent: it is part of what a worker takes.
        self.processes.adopt(&[]);
        let stocks = [self.memory_for(app), self.descriptors_for(app)];
        let headroom = Headroom { stocks: stocks.into_iter().flatten().collect() };
        self.inbox.push_back(Event::Measured { app, headroom });
    }

    fn memory_for(&self, app: AppId) -> Option<Stock> {
        let free = memory::free(Path::new("/"))?;
        let workers = self.processes.iter().filter(|(_, process)| process.app == app);
        let heaviest = workers.map(|(worker, _)| self.processes.tree_of(worker));
        let heaviest = heaviest.max_by_key(|tree| tree.iter().map(|pid| self.resident(*pid)).sum::<u64>())?;
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
        let sockets = |worker: WorkerId| self.sockets.of(worker).count();
        let sockets = workers.map(|(worker, _)| sockets(worker)).max().unwrap_or(0);
        let each = DESCRIPTORS_OF_A_WORKER + u64::try_from(sockets).unwrap_or(u64::MAX);
        let free = limit.saturating_sub(open).saturating_sub(SPARE_DESCRIPTORS);
        Some(Stock { good: Good::Descriptors { limit }, free, each })
    }
}
