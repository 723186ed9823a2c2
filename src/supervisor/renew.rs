//! Workers that serve and are to be replaced all the same: they take too much memory, are too old, or are not
//! well.
//!
//! One at a time in each app, and where generations can overlap the successor is ready for
//! `min_healthy_time` before its predecessor leaves. A reload replaces them anyway and goes first; one that is
//! held replaces nobody, so its workers are renewed, old ones and new ones, each by its like: whatever becomes of
//! a new one's successor is the reload's result, as with any worker of it. Where generations cannot overlap, or
//! there is no room for both, a worker stops first, and only where others serve.

use std::time::Duration;

use super::Bug;
use super::app::{App, Gate, Idle, Mix, Slot, Turn};
use super::backoff;
use super::event::{Action, Cause, Closeness, Fact, Generation, Renewal, SlotId, Spent, WorkerId};
use super::headroom::{Headroom, Plan};
use super::worker::{Cleared, Retiring, Worker};

/// What a close look found to be within the limit is not looked at closely again for so long: reading it
/// stops the worker for milliseconds (proc_pid_smaps(5) walks its whole memory).
const CLEARED: Duration = Duration::from_secs(10);

/// Unless it has grown meanwhile by all that was left to the limit, and by such a part of the limit at least: who is
/// just below it is not looked at all the time.
const STEP: u64 = 32;

/// A worker that is spent sooner after its start is one of those that need a pause.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// So many in a row have reached the longest pause.
const HASTE: u32 = 8;

/// The replacement under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Renewing {
    pub(super) slot: SlotId,
    /// The spent one.
    pub(super) worker: WorkerId,
    /// Of which generation its successor is.
    pub(super) like: Generation,
    pub(super) way: Way,
}

/// How a spent worker gets its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// The host was asked for room, and has not answered.
    Asked,
    /// The successor comes first.
    Overlapping,
    /// The spent one stops first.
    InPlace,
}

impl App {
    // Facts.

    /// What the trees of workers take.
    pub(super) fn weighed(&mut self, weights: &[(WorkerId, u64)], how: Closeness, turn: &mut Turn<'_>) {
        for (worker, bytes) in weights {
            self.weighed_one(*worker, *bytes, how, turn);
        }
    }

    fn weighed_one(&mut self, worker: WorkerId, bytes: u64, how: Closeness, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let Some(limit) = self.memory_limit(&self.slots[slot].workers[place]) else { return };
        // Hundreds are weighed together: those of whom nothing follows are not touched.
        match how {
            Closeness::Resident => {
                let cleared = self.slots[slot].workers[place].cleared;
                let holds = cleared.is_some_and(|cleared| turn.now < cleared.until && bytes < cleared.below);
                if bytes > limit && !holds {
                    let how = Closeness::Shared { resident: bytes };
                    turn.out.push(Action::Weigh { app: self.id, workers: vec![worker], how });
                }
            }
            Closeness::Shared { resident } if bytes <= limit => {
                let below = resident.saturating_add((limit - bytes).max(limit / STEP));
                self.slots[slot].workers[place].cleared = Some(Cleared { until: turn.now + CLEARED, below });
            }
            Closeness::Shared { .. } => self.spend(slot, place, Spent::Memory { bytes, limit }, turn),
        }
    }

    /// The kernel killed it for want of memory.
    pub(super) fn out_of_memory(&mut self, worker: WorkerId) {
        if let Some((slot, place)) = self.find(worker) {
            self.slots[slot].workers[place].foretold = Some(Cause::OutOfMemory);
        }
    }

    /// The host's answer for a worker that is to be replaced.
    pub(super) fn measured_for_renewal(&mut self, headroom: &Headroom, turn: &mut Turn<'_>) {
        let Some(renewing @ Renewing { slot, way: Way::Asked, .. }) = self.renewing else { return };
        let (way, how) = match headroom.plan(1, 1) {
            Plan::Free | Plan::Narrow { .. } => (Way::Overlapping, Renewal::Overlapping),
            Plan::Refused(shortage) => (Way::InPlace, Renewal::MakingRoom(shortage)),
        };
        turn.report(Fact::Renewing { app: self.id, slot, how });
        self.renewing = Some(Renewing { way, ..renewing });
    }

    // What is due.

    /// A ready worker that has reached its age.
    pub(super) fn tick_age(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        if found.expires.is_some_and(|at| turn.is_due(at)) {
            found.expires = None;
            let lived = turn.now - found.spawned;
            self.spend(slot, place, Spent::Age { lived }, turn);
        }
    }

    /// The pause of a worker that was spent soon after its start is over.
    pub(super) fn tick_spent(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        if let Some(spent) = &mut self.slots[slot].workers[place].spent
            && spent.after.is_some_and(|at| turn.is_due(at))
        {
            spent.after = None;
            turn.changed = true;
        }
    }

    /// Orders that workers be weighed, all of an app together so that they cost one wake-up and one turn.
    pub(super) fn weigh(&mut self, turn: &mut Turn<'_>) {
        if self.slots.counts().weighable == 0 {
            self.weigh_at = None;
            return;
        }
        if self.weigh_at.is_some_and(|at| !turn.is_due(at)) {
            return;
        }
        let watched: Vec<(WorkerId, Duration)> = self
            .workers()
            .filter(|worker| self.memory_limit(worker).is_some())
            .map(|worker| (worker.id, self.policy(worker.generation).poll_interval))
            .collect();
        let Some(interval) = watched.iter().map(|(_, interval)| *interval).min() else { return };
        if self.weigh_at.is_some() {
            let workers = watched.into_iter().map(|(worker, _)| worker).collect();
            turn.out.push(Action::Weigh { app: self.id, workers, how: Closeness::Resident });
        }
        // Apps that were started together, and grow together, are not found too fat in one moment for ever.
        self.weigh_at = Some(turn.now + turn.jitter.shorten(interval));
    }

    /// What a worker may take; none when it has no limit, or is to be replaced anyway.
    pub(super) fn memory_limit(&self, worker: &Worker) -> Option<u64> {
        let limit = self.policy(worker.generation).max_memory_restart?;
        (worker.is_ready() && worker.spent.is_none()).then(|| limit.of_one(self.instances))
    }

    // Steps.

    /// A worker that serves is to be replaced.
    pub(super) fn spend(&mut self, slot: usize, place: usize, why: Spent, turn: &mut Turn<'_>) {
        let entry = &self.slots[slot];
        let found = &entry.workers[place];
        if found.is_ready() && found.spent.is_none() {
            turn.report(Fact::Spent { app: self.id, slot: entry.id, worker: found.id, why });
            self.replace_in_turn(slot, place, why.cause(), turn);
        }
    }

    /// It is replaced as soon as its turn comes. Where it is to be already, the later cause is the graver one:
    /// who is spent may turn out not to be well, and never the other way round.
    pub(super) fn replace_in_turn(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        let entry = &mut self.slots[slot];
        let found = &mut entry.workers[place];
        if let Some(spent) = &mut found.spent {
            // The pause stays: it is the one that this cause would have had.
            spent.cause = cause;
            return;
        }
        if !found.is_ready() {
            return;
        }
        let after = found.spawned + backoff::pause(entry.haste);
        let soon = turn.now - found.spawned < SOON;
        entry.haste = if soon { (entry.haste + 1).min(HASTE) } else { 0 };
        found.expires = None;
        found.spent = Some(Retiring { cause, after: (after > turn.now).then_some(after) });
        turn.changed = true;
    }

    /// Replaces the spent worker whose turn it is.
    pub(super) fn renew(&mut self, turn: &mut Turn<'_>) {
        let reloads = self.rollout.is_some() && !self.is_held_at_share();
        let over = |renewing| self.is_renewed(renewing) || self.is_given_up(renewing);
        if reloads || self.renewing.is_some_and(over) {
            self.renewing = None;
        }
        if !reloads && self.renewing.is_none() {
            self.begin_renewal(turn);
        }
        if let Some(renewing) = self.renewing {
            self.go_on_renewing(renewing, turn);
        }
    }

    /// The first slot, in the order of instance, whose worker is spent; one that is not well goes before, and
    /// one whose successors failed behind.
    fn begin_renewal(&mut self, turn: &mut Turn<'_>) {
        let ready = |slot: &&Slot| slot.is_wanted() && slot.idle == Idle::Free;
        let due = self.slots.touched().filter(ready).filter_map(|slot| Some((slot, self.due(slot)?)));
        let well = |(slot, worker): &(&Slot, WorkerId)| {
            slot.workers.iter().any(|other| other.id == *worker && !other.watch.unwell)
        };
        let Some((entry, worker)) = due.min_by_key(|found| (well(found), found.0.backoff.unstable())) else {
            return;
        };
        let slot = entry.id;
        let like = self.like(entry, worker);
        // One that a promoted reload left to finish has its successor beside it: that needs no more room.
        let begun = entry.up().any(|other| other.id != worker && self.may_follow(other, like));
        let way = match self.overlaps(entry, like) {
            true if begun => Way::Overlapping,
            true => Way::Asked,
            false => Way::InPlace,
        };
        match way {
            Way::Asked => turn.out.push(Action::Measure { app: self.id }),
            Way::Overlapping => {
                turn.report(Fact::Renewing { app: self.id, slot, how: Renewal::Overlapping });
            }
            Way::InPlace => {
                turn.report(Fact::Renewing { app: self.id, slot, how: Renewal::StopThenStart });
            }
        }
        self.renewing = Some(Renewing { slot, worker, like, way });
    }

    /// Of which generation the successor of this worker is: of the new one where that is held at a share and the
    /// worker is of it, else of the one that is known to be good.
    fn like(&self, slot: &Slot, worker: WorkerId) -> Generation {
        let found = slot.workers.iter().find(|other| other.id == worker);
        let new = self.rollout.as_ref().map(|rollout| rollout.to);
        found.map(|found| found.generation).filter(|own| Some(*own) == new).unwrap_or(self.good)
    }

    fn go_on_renewing(&mut self, renewing: Renewing, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(renewing.worker) else { return };
        if !self.slots[slot].workers[place].is_up() {
            return;
        }
        match renewing.way {
            Way::Asked => {}
            Way::Overlapping => self.overlap(slot, renewing.worker, renewing.like, turn),
            Way::InPlace => {
                let entry = &self.slots[slot];
                let unwell = entry.workers[place].watch.unwell;
                if self.can_spare(entry, unwell, turn) || turn.has(Bug::SparesTheLast) {
                    self.slots[slot].gate = Gate::AfterTree;
                    self.let_go(slot, renewing.worker, turn);
                }
            }
        }
        if turn.has(Bug::RenewsAllAtOnce) && renewing.way == Way::Overlapping {
            for slot in 0..self.slots.len() {
                if let Some(worker) = self.due(&self.slots[slot]) {
                    let like = self.like(&self.slots[slot], worker);
                    self.overlap(slot, worker, like, turn);
                }
            }
        }
    }

    /// The successor first; once it is settled the spent one leaves.
    fn overlap(&mut self, slot: usize, worker: WorkerId, like: Generation, turn: &mut Turn<'_>) {
        let entry = &self.slots[slot];
        let successor = entry.up().find(|other| other.id != worker && self.may_follow(other, like));
        let hasty = turn.has(Bug::RenewsBeforeReady);
        match successor {
            Some(successor) if successor.is_settled() || hasty => {
                self.slots[slot].restarts = self.slots[slot].restarts.saturating_add(1);
                self.let_go(slot, worker, turn);
            }
            Some(_) => {}
            None => {
                let may = entry.idle == Idle::Free && self.is_vacant(entry, like);
                if may && self.finds_room(turn) {
                    self.spawn(slot, like, turn);
                }
            }
        }
    }

    fn let_go(&mut self, slot: usize, worker: WorkerId, turn: &mut Turn<'_>) {
        let found = self.slots[slot].workers.iter().find(|other| other.id == worker);
        let Some(cause) = found.and_then(|found| found.spent).map(|spent| spent.cause) else { return };
        self.leave_where(slot, cause, turn, |other| other.id == worker);
    }

    /// Its spent worker, when the pause is over.
    fn due(&self, slot: &Slot) -> Option<WorkerId> {
        let due = |worker: &&Worker| worker.spent.is_some_and(|spent| spent.after.is_none());
        slot.up().filter(|worker| self.is_lasting(worker)).find(due).map(|worker| worker.id)
    }

    /// Whether this slot's worker gets a successor of its like while a reload is held: two of one generation
    /// beside each other are right there.
    pub(super) fn renews(&self, slot: usize) -> bool {
        let renewed = self.renewing.is_some_and(|renewing| renewing.slot == self.slots[slot].id);
        renewed && self.is_held_at_share()
    }

    /// Whether the new one of a held reload that is being replaced is to come back in this slot: its place is its own
    /// also while it is empty.
    pub(super) fn is_kept_for_its_like(&self, slot: &Slot) -> bool {
        self.renewing.is_some_and(|renewing| renewing.slot == slot.id && renewing.like == self.target())
    }

    /// Not replaced by a roll-back anyway: a reload that is held replaces nobody.
    fn is_lasting(&self, worker: &Worker) -> bool {
        self.rollout.is_some() || self.mix == Mix::Keep || worker.generation == self.good
    }

    /// Whether this worker is none of the other side of a reload that is held, and stays.
    fn may_follow(&self, worker: &Worker, like: Generation) -> bool {
        match &self.rollout {
            Some(rollout) => (rollout.to == worker.generation) == (rollout.to == like),
            None => self.is_lasting(worker),
        }
    }

    /// Whether nobody wants its successor any more: the version was taken back, or another one took its place.
    fn is_given_up(&self, renewing: Renewing) -> bool {
        ![self.good, self.target()].contains(&renewing.like)
    }

    /// Whether the next one's turn may come: this one has its successor, or gets none for now.
    fn is_renewed(&self, renewing: Renewing) -> bool {
        let Some(slot) = self.slots.iter().find(|entry| entry.id == renewing.slot) else { return true };
        let serves = slot.up().any(|worker| worker.id == renewing.worker);
        let established = |worker: &Worker| {
            self.may_follow(worker, renewing.like) && (worker.is_settled() || worker.spent.is_some())
        };
        let over = match slot.idle {
            Idle::Errored | Idle::Ended { .. } | Idle::Waiting(_) => true,
            Idle::Free => !serves && slot.up().any(|worker| established(worker) || worker.is_late()),
        };
        over || !slot.is_wanted()
    }
}
