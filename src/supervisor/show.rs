//! Fills the read model from one app's state. Decides nothing.

use std::collections::BTreeSet;

use super::Supervisor;
use super::address::Address;
use super::app::{App, Idle, Mix, Slot, Wanted};
use super::event::{AppId, Failure, Generation, Proof};
use super::rollout::Canary;
use super::time::Time;
use super::view::{AppView, ReloadView, Status, WorkerView};
use super::worker::{Phase, Worker};

impl Supervisor {
    /// Where workers of an app that are ready listen by sockets that they opened themselves.
    pub fn opened(&self, app: AppId) -> Vec<Address> {
        let workers = self.apps.iter().filter(|other| other.id == app).flat_map(|app| {
            let ready = app.workers().filter(|worker| worker.is_ready());
            ready.flat_map(|worker| app.sockets.accepted(worker.id))
        });
        let own: BTreeSet<Address> =
            workers.filter(|(_, handed)| !handed).map(|(address, _)| address).collect();
        own.into_iter().collect()
    }
}

impl App {
    /// This app for people.
    pub(super) fn view(&self, now: Time) -> AppView {
        let mut listen: Vec<_> = self
            .workers()
            .filter(|worker| worker.is_ready())
            .flat_map(|worker| self.sockets.accepted(worker.id).into_keys())
            .collect();
        listen.sort_unstable();
        listen.dedup();
        AppView {
            app: self.id,
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            mode: self.policy(self.target()).mode,
            status: self.status(),
            generation: self.target(),
            instances: self.instances,
            listen,
            unserved: self.sockets.unserved(&self.standings()),
            reload: self.reload_view(),
            waits_for: Vec::new(),
            workers: self.slots.iter().flat_map(|slot| self.rows(slot, now)).collect(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let wanted = || self.slots.iter().filter(|slot| slot.is_wanted());
        let any = |status| wanted().any(|slot| slot_status(slot) == status);
        if wanted().next().is_none() {
            let alive = self.workers().next().is_some();
            return match self.workers().all(Worker::is_unkillable) {
                _ if !alive => Status::Stopped,
                true => Status::Unkillable,
                false => Status::Stopping,
            };
        }
        if wanted().all(|slot| slot.workers.iter().any(Worker::is_ready)) {
            return Status::Online;
        }
        let order = [
            Status::Launching,
            Status::WaitingAddress,
            Status::WaitingRestart,
            Status::Errored,
            Status::Unkillable,
            Status::Stopping,
        ];
        order.into_iter().find(|status| any(*status)).unwrap_or(Status::Launching)
    }

    fn reload_view(&self) -> Option<ReloadView> {
        if let Some(rollout) = &self.rollout {
            let (total, share) = (rollout.total, rollout.canary.share());
            let up = u32::try_from(self.canaries()).unwrap_or(u32::MAX);
            let (state, done) = match rollout.canary {
                Canary::Holding(_) => ("canary", up),
                Canary::Rising(_) => ("progressing", up),
                Canary::None | Canary::Promoted => ("progressing", rollout.done),
            };
            return Some(ReloadView { state, done, total, share, failure: None });
        }
        let failed = self.failed.as_ref()?;
        let back = self.workers().any(|worker| worker.generation != self.good);
        let state = match self.mix {
            Mix::Keep => "held",
            Mix::Replace if back => "rolling back",
            Mix::Replace if failed.failure == Failure::RolledBack => "rolled back",
            Mix::Replace => "failed",
        };
        let failure = Some(failed.failure.clone());
        Some(ReloadView { state, done: failed.done, total: failed.total, share: None, failure })
    }

    /// The slot's newest worker, and those on their way out beside it.
    fn rows(&self, slot: &Slot, now: Time) -> Vec<WorkerView> {
        if slot.workers.is_empty() {
            return vec![self.row(slot, None, now)];
        }
        slot.workers.iter().rev().map(|worker| self.row(slot, Some(worker), now)).collect()
    }

    fn row(&self, slot: &Slot, worker: Option<&Worker>, now: Time) -> WorkerView {
        let silent = |worker: &Worker| matches!(worker.phase, Phase::Ready { proof: Proof::NoListener, .. });
        let generation: Generation = worker.map_or(self.target(), |worker| worker.generation);
        WorkerView {
            slot: slot.id,
            instance: slot.instance,
            worker: worker.map(|worker| worker.id),
            status: worker.map_or_else(|| slot_status(slot), worker_status),
            ready: worker.is_some_and(Worker::is_ready),
            no_listener: worker.is_some_and(silent),
            generation,
            uptime: worker.map(|worker| now - worker.spawned).unwrap_or_default(),
            restarts: slot.restarts,
            unstable_restarts: slot.backoff.unstable(),
            last_exit: slot.last_exit.clone(),
        }
    }
}

pub(super) fn worker_status(worker: &Worker) -> Status {
    match worker.phase {
        _ if worker.is_unkillable() => Status::Unkillable,
        Phase::Starting { .. } => Status::Launching,
        Phase::Ready { .. } => Status::Online,
        Phase::Quitting { .. }
        | Phase::Draining(_)
        | Phase::Finishing(_)
        | Phase::Stopping { .. }
        | Phase::Killed { .. }
        | Phase::Leftover { .. }
        | Phase::Doomed { .. } => Status::Stopping,
    }
}

/// EADDRNOTAVAIL (errno(3)).
const NO_SUCH_ADDRESS: i32 = 99;

fn lacks_address(slot: &Slot) -> bool {
    let failure = slot.last_exit.as_ref().and_then(|exit| exit.failure.as_ref());
    failure.is_some_and(|failure| failure.transient && failure.errno == NO_SUCH_ADDRESS)
}

/// What is most telling about a slot: its best worker, or why it has none.
fn slot_status(slot: &Slot) -> Status {
    if slot.workers.iter().any(Worker::is_ready) {
        return Status::Online;
    }
    if slot.up().next().is_some() {
        return Status::Launching;
    }
    if !slot.workers.is_empty() && slot.workers.iter().all(Worker::is_unkillable) {
        return Status::Unkillable;
    }
    match (slot.wanted, slot.idle) {
        (Wanted::Run, Idle::Errored) => Status::Errored,
        (Wanted::Run, Idle::Waiting(_)) if lacks_address(slot) => Status::WaitingAddress,
        (Wanted::Run, Idle::Waiting(_)) => Status::WaitingRestart,
        (Wanted::Run, Idle::Ended { .. }) => Status::Stopped,
        (Wanted::Run, Idle::Free) if slot.workers.is_empty() => Status::Launching,
        (Wanted::Run, Idle::Free) => Status::Stopping,
        (Wanted::Rest(_) | Wanted::Remove(_), _) if slot.workers.is_empty() => Status::Stopped,
        (Wanted::Rest(_) | Wanted::Remove(_), _) => Status::Stopping,
    }
}
