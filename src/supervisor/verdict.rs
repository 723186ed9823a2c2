//! Whether a reload may begin, and what becomes of the app when it fails.

use super::Bug;
use super::app::{App, Idle, Mix, Slot, Turn, Wanted};
use super::event::{Action, Cause, Fact, Failure, OnReloadFailureTaken, Outcome, WorkerId};
use super::headroom::{Headroom, Plan};
use super::policy::{Mode, OnReloadFailure};
use super::rollout::{FailedReload, Rollout, Room};

impl App {
    /// Where generations are going to overlap: is there room for them?
    pub(super) fn ask_for_room(&mut self, turn: &mut Turn<'_>) {
        let cluster = |generation| self.policy(generation).mode == Mode::Cluster;
        let overlaps = cluster(self.target()) && self.workers().all(|worker| cluster(worker.generation));
        let Some(rollout) = &mut self.rollout else { return };
        if overlaps {
            rollout.room = Room::Unknown;
            turn.out.push(Action::Measure { app: self.id });
        } else {
            self.mix = Mix::Replace;
        }
    }

    /// What the host has for the reload that asked: it begins, in smaller steps where it must, or fails
    /// before anything is touched.
    pub(super) fn measured(&mut self, headroom: &Headroom, turn: &mut Turn<'_>) {
        let live = self.workers().count();
        let Some(Rollout { room: Room::Unknown, to, total, .. }) = self.rollout else {
            return self.measured_for_renewal(headroom, turn);
        };
        let added = self.slots.iter().filter(|slot| slot.is_wanted() && slot.born == to).count();
        let least = u32::try_from(added).unwrap_or(u32::MAX).saturating_add(1);
        let surge = self.policy(to).max_surge;
        // Predecessors that take their time to leave count too: in the end all may be there twice.
        let plan = headroom.plan(least, total.saturating_add(surge).max(least));
        let mut room = Room::Free;
        match plan {
            Plan::Free => {}
            Plan::Narrow { fits, stock } => {
                let more = usize::try_from(fits).unwrap_or(usize::MAX);
                room = Room::UpTo(live.saturating_add(more));
                if fits < surge.min(total) {
                    turn.report(Fact::ReloadNarrowed { app: self.id, fits, stock });
                }
            }
            Plan::Refused(shortage) => self.verdict(None, Failure::NoRoom { shortage }, turn),
        }
        if let Some(rollout) = &mut self.rollout {
            rollout.room = room;
            self.mix = Mix::Replace;
        }
        turn.changed = true;
    }

    /// The reload failed: back to the old generation, or a mix for the operator.
    pub(super) fn verdict(&mut self, worker: Option<WorkerId>, failure: Failure, turn: &mut Turn<'_>) {
        let Some(rollout) = self.rollout.take() else { return };
        // Where the new generation is held at its share, nothing was replaced: there is nothing to keep.
        let held = rollout.canary.share().is_some();
        let hold = !held && self.policy(rollout.to).on_reload_failure == OnReloadFailure::Hold;
        self.withdraw(&rollout, worker, hold && worker.is_some(), turn);
        // A reload that never began leaves what there was: also a mix that was held before.
        if worker.is_some() {
            self.mix = if hold { Mix::Keep } else { Mix::Replace };
        }
        let left = match (self.mix, self.exchanged()) {
            (Mix::Keep, _) => OnReloadFailureTaken::Held,
            (Mix::Replace, 0) => OnReloadFailureTaken::Untouched,
            (Mix::Replace, slots) => OnReloadFailureTaken::RolledBack(slots),
        };
        for slot in self.slots.iter_mut().filter(|slot| slot.backoff.gave_up()) {
            slot.idle = Idle::Errored;
        }
        let (app, generation) = (self.id, rollout.to);
        turn.report(Fact::ReloadFailed { app, generation, failure: failure.clone(), left });
        for request in rollout.requests {
            turn.reply(request, Outcome::Failed(failure.clone()));
        }
        let (done, total) = (rollout.done, rollout.total);
        self.failed = Some(FailedReload { done, total, failure });
        self.settle_name();
        turn.changed = true;
    }

    /// Takes a failed reload's unproven workers back, and with a roll-back its slots too.
    pub(super) fn withdraw(
        &mut self,
        rollout: &Rollout,
        worker: Option<WorkerId>,
        held: bool,
        turn: &mut Turn<'_>,
    ) {
        // Where the new ones had a share of their own, the others are all there.
        let shared = rollout.canary.share().is_some();
        for slot in 0..self.slots.len() {
            if turn.has(Bug::RollbackStopsOld) && !held {
                self.leave_where(slot, Cause::Reload, turn, |other| other.generation != rollout.to);
            }
            let good_serves =
                self.slots[slot].up().any(|other| other.generation != rollout.to && other.is_ready());
            self.leave_where(slot, Cause::Reload, turn, |other| {
                let unproven = (shared || !other.is_settled()) && (good_serves || other.is_starting());
                Some(other.id) == worker || (other.generation == rollout.to && unproven)
            });
            if self.slots[slot].born == rollout.to && self.slots[slot].is_wanted() {
                if held {
                    self.slots[slot].born = self.good;
                } else {
                    self.slots[slot].wanted = Wanted::Remove(Cause::Reload);
                }
            }
        }
        if held {
            let wanted = self.slots.iter().filter(|slot| !matches!(slot.wanted, Wanted::Remove(_))).count();
            self.instances = u32::try_from(wanted).unwrap_or(u32::MAX);
        } else {
            // What somebody set meanwhile stays, also where the slots came with the version that failed.
            let instances = rollout.instances_before.unwrap_or(self.instances);
            self.resize(instances, Cause::Reload, turn);
        }
    }

    /// Slots that no worker of the good generation is up in.
    pub(super) fn exchanged(&self) -> u32 {
        let lacks =
            |slot: &&Slot| slot.is_wanted() && !slot.up().any(|worker| worker.generation == self.good);
        u32::try_from(self.slots.iter().filter(lacks).count()).unwrap_or(u32::MAX)
    }
}
