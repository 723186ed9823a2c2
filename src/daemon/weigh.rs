//! How much memory workers take, read on files of /proc that stay open, and whether the kernel killed one for
//! want of it: facts for the core, which decides.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::supervisor::event::{AppId, Closeness, Event, ExitStatus, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::memory::{self, Meter};
use crate::sys::process;

use super::Daemon;
use super::groups::Group;

/// How often a tree is looked through for processes that were forked meanwhile: it takes ten times as long as
/// reading what the known ones take.
const TREE_EVERY: Duration = Duration::from_secs(5);

/// Of the workers that are weighed together, so many times fewer are looked through in one turn: the control
/// socket waits for that.
const TREES_AT_ONCE: usize = 4;

/// Files of a worker's tree that stay open; of further processes they are opened each time.
const METERS: usize = 16;

/// The processes of one worker's tree.
#[derive(Debug)]
struct Scale {
    members: Vec<(i32, Option<Meter>)>,
    /// When the tree is looked through again.
    due: Time,
}

/// What is known from earlier looks.
#[derive(Debug, Default)]
pub(super) struct Scales {
    by_worker: HashMap<WorkerId, Scale>,
    /// Processes that the kernel had killed for want of memory when it was last asked.
    kills: u64,
}

impl Scales {
    pub(super) fn new() -> Scales {
        Scales { by_worker: HashMap::new(), kills: memory::kills(Path::new("/")).unwrap_or(0) }
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.by_worker.remove(&worker);
    }

    /// The kernel killed one more than was known. Several at once are told one by one.
    fn one_more(&mut self) -> bool {
        let more = memory::kills(Path::new("/")).is_some_and(|kills| kills > self.kills);
        self.kills += u64::from(more);
        more
    }
}

impl Daemon {
    /// Answered by `Weighed`, unless all of them are gone: at once, or when there was time for each of them.
    pub(super) fn weigh(&mut self, app: AppId, workers: &[WorkerId], how: Closeness) {
        match how {
            Closeness::Resident => {
                return self.backlog.weigh(app, workers, workers.len().div_ceil(TREES_AT_ONCE));
            }
            Closeness::Shared { .. } => {}
        }
        let weigh = |worker: &WorkerId| (*worker, self.weigh_closely(*worker));
        let weights: Vec<(WorkerId, u64)> =
            workers.iter().map(weigh).filter(|(_, bytes)| *bytes > 0).collect();
        if !weights.is_empty() {
            self.inbox.push_back(Event::Weighed { app, weights, how });
        }
    }

    /// The sum of RSS. `looks`: how many more trees may be looked through.
    pub(super) fn weigh_quickly(&mut self, worker: WorkerId, looks: &mut usize) -> u64 {
        // It may have ended since that was ordered.
        if self.processes.get(worker).is_none() {
            return 0;
        }
        let known = self.scales.by_worker.get(&worker);
        if *looks > 0 && known.is_none_or(|scale| self.now >= scale.due) {
            *looks -= 1;
            let group = self.processes.get_mut(worker).and_then(|process| process.group.as_mut());
            group.into_iter().for_each(Group::look_at_kills);
            let tree = self.processes.tree_of(worker);
            self.put_on_scale(worker, &tree, self.now + TREE_EVERY);
        } else if known.is_none() {
            let leader = self.processes.get(worker).filter(|process| !process.leader_gone);
            let leader: Vec<i32> = leader.iter().map(|process| process.pid).collect();
            self.put_on_scale(worker, &leader, self.now);
        }
        let Some(scale) = self.scales.by_worker.get(&worker) else { return 0 };
        // Without a descriptor to spare it is opened each time.
        let pages = |(pid, meter): &(i32, Option<Meter>)| match meter {
            Some(meter) => meter.resident_pages().unwrap_or(0),
            None => process::stat(*pid).map_or(0, |stat| stat.resident_pages),
        };
        scale.members.iter().map(pages).sum::<u64>() * self.surroundings.page_size
    }

    fn put_on_scale(&mut self, worker: WorkerId, members: &[i32], due: Time) {
        let mut known = self.scales.by_worker.remove(&worker).map_or_else(Vec::new, |scale| scale.members);
        // That of a process which is gone says so: its number may be another's by now.
        let mut kept = |pid: i32| {
            let place = known.iter().position(|(member, meter)| *member == pid && meter.is_some())?;
            known.swap_remove(place).1.filter(|meter| meter.resident_pages().is_ok())
        };
        let mut meter = |(at, pid): (usize, &i32)| {
            let meter = if at < METERS { kept(*pid).or_else(|| Meter::open(*pid).ok()) } else { None };
            (*pid, meter)
        };
        let members = members.iter().enumerate().map(&mut meter).collect();
        self.scales.by_worker.insert(worker, Scale { members, due });
    }

    /// Memory that processes share counts once. Where the host does not show it, RSS has to do.
    fn weigh_closely(&mut self, worker: WorkerId) -> u64 {
        self.processes.adopt(&[], &self.probes.commands());
        let resident = |pid| process::stat(pid).map_or(0, |stat| stat.resident_pages);
        let of_one = |pid| {
            memory::share(Path::new("/"), pid).unwrap_or_else(|_| resident(pid) * self.surroundings.page_size)
        };
        self.processes.tree_of(worker).into_iter().map(of_one).sum()
    }

    /// A worker that was ended by SIGKILL, and not by us: was it the kernel?
    pub(super) fn look_for_out_of_memory(&mut self, worker: WorkerId, status: ExitStatus) {
        let killed = status == ExitStatus::Signal(libc::SIGKILL);
        // Its own group knows; else somebody was killed, and this one was.
        let group = self.processes.get(worker).and_then(|process| process.group.as_ref());
        let counted = group.and_then(Group::was_short_of_memory);
        let mut short = || counted.unwrap_or_else(|| self.scales.one_more());
        if killed && short() {
            self.inbox.push_back(Event::OutOfMemory { worker });
        }
    }
}
