//! What is due: deadlines that have come, proofs that time gives, and looks at workers.

use super::Bug;
use super::app::{App, INSPECTED, Idle, Turn};
use super::event::{Action, Cause, Closing, Fact, Failure};
use super::rollout::Trial;
use super::worker::{Look, Patience, Phase, Worker, until_next_inspection};

impl App {
    /// Acts on everything that is due.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        for slot in self.slots.touched_places() {
            let entry = &mut self.slots[slot];
            if let Idle::Waiting(until) = entry.idle
                && turn.is_due(until)
            {
                // A failure of the host lets a given up slot's next generation wait, and nobody else.
                entry.idle = if entry.backoff.gave_up() { Idle::Errored } else { Idle::Free };
            }
            for place in 0..self.slots[slot].workers.len() {
                let entry = &self.slots[slot];
                if let Some(proof) = self.proof(entry, &entry.workers[place], turn) {
                    self.promote(slot, place, proof, turn);
                }
                self.tick_worker(slot, place, turn);
            }
        }
    }

    pub(super) fn tick_worker(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        self.tick_exam(slot, place, turn);
        self.tick_spent(slot, place, turn);
        self.tick_watch(slot, place, turn);
        let now = turn.now;
        let patience = self.policy(self.slots[slot].workers[place].generation).listen_timeout;
        let found = &mut self.slots[slot].workers[place];
        match &mut found.phase {
            Phase::Starting { ready_by, .. } => {
                if ready_by.is_some_and(|at| turn.is_due(at)) {
                    self.late(slot, place, turn);
                }
            }
            Phase::Ready { soak_until, .. } => {
                if soak_until.is_some_and(|at| turn.is_due(at)) {
                    if found.watch.check.is_missed() && !turn.has(Bug::SettlesUnasked) {
                        // Its first good answer settles it; as many bad ones as it may give do, too.
                        *soak_until = Some(now + patience);
                    } else {
                        *soak_until = None;
                        self.settled(slot, place, turn);
                    }
                }
                self.tick_age(slot, place, turn);
            }
            Phase::Draining(leaving) | Phase::Finishing(leaving) => {
                if turn.is_due(leaving.until) {
                    let (cause, traffic) = (leaving.cause, leaving.seen);
                    let worker = self.slots[slot].workers[place].id;
                    turn.report(Fact::DrainTimedOut { app: self.id, worker, traffic });
                    self.stop(slot, place, cause, turn);
                }
            }
            Phase::Stopping { kill_at, .. }
            | Phase::Quitting { kill_at, .. }
            | Phase::Leftover { kill_at, .. } => {
                if turn.is_due(*kill_at) && !turn.has(Bug::NeverKills) {
                    let worker = self.slots[slot].workers[place].id;
                    turn.report(Fact::KillTimedOut { app: self.id, worker });
                    self.kill(slot, place, Cause::KillTimeout, turn);
                }
            }
            Phase::Killed { patience, .. } | Phase::Doomed { patience } => {
                if matches!(*patience, Patience::Until(at) if turn.is_due(at)) {
                    *patience = Patience::Over;
                    let worker = found.id;
                    turn.report(Fact::Unkillable { app: self.id, worker });
                    turn.changed = true;
                }
            }
        }
    }

    /// A worker of the new generation that proved itself passes the trial for all, and opens a slot that
    /// was given up with the old one.
    pub(super) fn settled(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        if self.slots[slot].backoff.gave_up() {
            self.slots[slot].free();
        }
        let generation = self.slots[slot].workers[place].generation;
        if let Some(rollout) = &mut self.rollout
            && rollout.to == generation
        {
            rollout.trial = Trial::Passed;
        }
        turn.changed = true;
    }

    pub(super) fn late(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let entry = &self.slots[slot];
        let found = &entry.workers[place];
        let worker = found.id;
        let candidate = self.is_candidate(found);
        if candidate && turn.has(Bug::NoReadyDeadline) {
            return;
        }
        let failure = Failure::NotReady {
            worker,
            limit: self.policy(found.generation).listen_timeout,
            missing: self.missing(entry, found),
            found: self.sockets.accepted(worker).into_keys().collect(),
        };
        if let Phase::Starting { ready_by, .. } = &mut self.slots[slot].workers[place].phase {
            *ready_by = None;
        }
        if candidate {
            self.verdict(Some(worker), failure, turn);
        } else {
            let serves = |other: &Worker| other.id != worker && other.is_ready();
            let stays = !self.slots[slot].up().any(serves) || turn.has(Bug::LateStaysBeside);
            turn.report(Fact::Late { app: self.id, worker, stays });
            self.fail_requests(slot, &failure, turn);
            if !stays {
                self.give_way(slot, place, Cause::Spawn, turn);
            }
        }
    }

    /// Orders the looks that are due. After everything else of a turn: what they see must be the
    /// world that this turn made.
    pub(super) fn look(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let examined = self.being_examined();
        for slot in self.slots.touched_places() {
            for worker in &mut self.slots[slot].workers {
                let (id, closing) = (worker.id, worker.closing(now));
                let waits = examined.contains(&worker.generation);
                let closing = if waits { closing.and(Some(Closing::WhenIdle)) } else { closing };
                let next = now + until_next_inspection(now - worker.spawned);
                match &mut worker.phase {
                    Phase::Starting { look_at, .. } => {
                        if look_at.is_some_and(|at| turn.is_due(at)) {
                            *look_at = Some(next);
                            turn.out.push(Action::Inspect { worker: id });
                        }
                    }
                    Phase::Ready { look_at, .. } => {
                        if look_at.is_some_and(|at| turn.is_due(at)) {
                            *look_at = (now - worker.spawned < INSPECTED).then_some(next);
                            turn.out.push(Action::Inspect { worker: id });
                        }
                    }
                    Phase::Draining(leaving) | Phase::Finishing(leaving) => {
                        if let (Look::At(at), Some(closing)) = (leaving.look, closing)
                            && turn.is_due(at)
                        {
                            leaving.look = Look::Awaited;
                            turn.out.push(Action::Observe { worker: id, closing });
                        }
                    }
                    Phase::Quitting { .. }
                    | Phase::Stopping { .. }
                    | Phase::Killed { .. }
                    | Phase::Leftover { .. }
                    | Phase::Doomed { .. } => {}
                }
            }
        }
    }
}
