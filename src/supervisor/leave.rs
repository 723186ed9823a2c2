//! One worker's way from starting to gone: becoming ready, leaving, being told to stop, being waited for.

use std::time::Duration;

use super::Bug;
use super::app::{App, Going, Heard, Idle, Turn, Until};
use super::backoff::Next;
use super::event::{Action, Cause, Fact, Failure, Outcome, Proof, SignalKind, WorkerId};
use super::time::Time;
use super::worker::{Leaving, Patience, Phase, Worker};

/// Between two workers of an app that are told to stop while others serve. A server that shuts its listening
/// socket down changes who is where in the kernel's array: until the supervisor has steered anew, a new
/// connection may be led to any of them. One that drains answers it; one that was told, too, may shut it off.
const APART: Duration = Duration::from_millis(50);

/// However many leave at once, none of them waits longer than about this for its turn.
const ALL_TOLD: Duration = Duration::from_secs(1);

/// From its SIGKILL on, until a worker that does not end counts as one that no signal ends.
const PATIENCE: Duration = Duration::from_secs(5);

impl App {
    pub(super) fn promote(&mut self, slot: usize, place: usize, proof: Proof, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        // It was handed more than it was seen using so far.
        let unseen = self.sockets.of(found.id).any(|(_, socket)| socket.handed && !socket.accepts);
        let look_at = if unseen { found.looked_at() } else { None };
        let (worker, generation, after) = (found.id, found.generation, turn.now - found.spawned);
        let soak_until = Some(turn.now + self.policy(generation).min_healthy_time);
        self.slots[slot].ran = true;
        self.slots[slot].workers[place].phase = Phase::Ready { proof, look_at, soak_until };
        self.begin_watch(slot, place, turn);
        if proof == Proof::NoListener && self.heard == Heard::Nothing {
            self.hear(Heard::Silence);
        }
        let slot = self.slots[slot].id;
        turn.report(Fact::Ready { app: self.id, slot, worker, proof, after });
        turn.changed = true;
    }

    /// What an established worker serves is what its successor must serve.
    pub(super) fn remember_served(&mut self, slot: usize, place: usize) {
        let found = &self.slots[slot].workers[place];
        if found.is_ready() && !self.is_candidate(found) {
            self.slots[slot].served = self.sockets.accepted(found.id);
        }
    }

    /// Takes a worker that is up out of service for good.
    pub(super) fn leave(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        match found.phase {
            Phase::Starting { .. } | Phase::Ready { .. } => {}
            Phase::Quitting { .. } => return self.stop(slot, place, cause, turn),
            Phase::Draining(_)
            | Phase::Finishing(_)
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed { .. } => return,
        }
        turn.left |= found.is_ready();
        self.remember_served(slot, place);
        let found = &self.slots[slot].workers[place];
        // Who does nothing finishes nothing: its clients wait for another sooner when it ends.
        if self.sockets.accepted(found.id).is_empty() || cause == Cause::Hung {
            return self.stop(slot, place, cause, turn);
        }
        let policy = self.policy(found.generation);
        let until = turn.now + policy.drain_timeout;
        let until = turn.end.map_or(until, |end| end.drained_by(policy).min(until));
        let (app, worker, since) = (self.id, found.id, turn.now);
        self.slots[slot].workers[place].phase = Phase::Draining(Leaving::new(cause, since, until));
        turn.report(Fact::Draining { app, worker, cause });
        turn.changed = true;
    }

    /// Of all workers that drain, the one that has done so for longest is told to stop.
    pub(super) fn cut_oldest_drain(&mut self, limit: u32, turn: &mut Turn<'_>) {
        let drain = |worker: &Worker| match worker.phase {
            Phase::Draining(ref leaving) | Phase::Finishing(ref leaving) => {
                Some((leaving.since, worker.id, leaving.cause, leaving.seen))
            }
            Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Quitting { .. }
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed { .. } => None,
        };
        let oldest = self.workers().filter_map(drain).min_by_key(|(since, id, ..)| (*since, *id));
        let Some((_, worker, cause, traffic)) = oldest else { return };
        let Some((slot, place)) = self.find(worker) else { return };
        turn.report(Fact::DrainCutShort { app: self.id, worker, traffic, limit });
        self.stop(slot, place, cause, turn);
    }

    pub(super) fn stop(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        let worker = self.slots[slot].workers[place].id;
        self.tell_to_stop(worker, turn);
        self.await_end(slot, place, cause, turn);
    }

    /// Its stop signal, once its going costs nobody anything.
    pub(super) fn tell_to_stop(&mut self, worker: WorkerId, turn: &mut Turn<'_>) {
        let begun = self.at(worker).is_some_and(|worker| !worker.is_queued());
        if begun && self.sockets.is_found(worker) {
            let standings = self.standings();
            if self.sockets.hide(worker, &standings, turn.planted, turn.out) {
                self.going = Some(Going { worker, until: turn.now + self.apart() });
            }
        }
        turn.out.push(Action::Signal { worker, signal: SignalKind::Stop });
    }

    /// So long that all who leave are told within [`ALL_TOLD`].
    fn apart(&self) -> Duration {
        let leaving = self.workers().filter(|worker| matches!(worker.phase, Phase::Draining(_))).count();
        APART.min(ALL_TOLD / u32::try_from(leaving).unwrap_or(u32::MAX).max(1))
    }

    /// Whether another worker was told to stop just now and may yet shut its sockets down.
    pub(super) fn is_another_going(&self, now: Time) -> bool {
        self.going.is_some_and(|going| now < going.until && self.sockets.are_in_their_groups(going.worker))
    }

    /// A worker that is to stop has `kill_timeout`, from when its signal goes out.
    pub(super) fn await_end(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        let generation = found.generation;
        let kill_at = turn.killed_by(turn.now + self.policy(generation).kill_timeout);
        self.slots[slot].workers[place].phase = Phase::Stopping { cause, kill_at, told: false };
        turn.changed = true;
    }

    /// Its stop signal went out only now, behind those of others: so does its time.
    pub(super) fn told(&mut self, worker: WorkerId, turn: &Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let generation = self.slots[slot].workers[place].generation;
        let by = turn.killed_by(turn.now + self.policy(generation).kill_timeout);
        match &mut self.slots[slot].workers[place].phase {
            Phase::Stopping { kill_at, told: told @ false, .. }
            | Phase::Leftover { kill_at, told: told @ false } => {
                *told = true;
                *kill_at = by;
            }
            Phase::Stopping { told: true, .. }
            | Phase::Leftover { told: true, .. }
            | Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Quitting { .. }
            | Phase::Draining(_)
            | Phase::Finishing(_)
            | Phase::Killed { .. }
            | Phase::Doomed { .. } => {}
        }
    }

    /// SIGKILL to what lives of a worker's tree.
    pub(super) fn kill(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        if matches!(found.phase, Phase::Killed { .. } | Phase::Doomed { .. }) {
            return;
        }
        let patience = Patience::Until(turn.now + PATIENCE);
        found.phase =
            if found.is_headless() { Phase::Doomed { patience } } else { Phase::Killed { cause, patience } };
        turn.out.push(Action::Signal { worker: found.id, signal: SignalKind::Kill });
        turn.changed = true;
    }

    /// A worker that was to follow one that serves on leaves again: the next one is tried after a pause that
    /// grows.
    pub(super) fn give_way(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        self.leave(slot, place, cause, turn);
        let policy = self.policy(self.slots[slot].workers[place].generation).clone();
        let next = self.slots[slot].backoff.failed(&policy, turn.jitter);
        self.hold_back(slot, next, turn);
    }

    pub(super) fn hold_back(&mut self, slot: usize, next: Next, turn: &mut Turn<'_>) {
        match next {
            Next::Now => self.slots[slot].idle = Idle::Free,
            Next::Wait(_) if turn.has(Bug::RespawnsWithoutBackoff) => self.slots[slot].idle = Idle::Free,
            Next::Wait(delay) => self.wait(slot, delay, turn),
            // Its worker may need a successor all the same.
            Next::GiveUp if self.slots[slot].up().next().is_some() => {
                let policy = self.policy(self.good).clone();
                let delay = self.slots[slot].backoff.go_on(&policy, turn.jitter);
                self.wait(slot, delay, turn);
            }
            Next::GiveUp => {
                let entry = &mut self.slots[slot];
                entry.idle = Idle::Errored;
                entry.ran = false;
                let (slot, unstable) = (entry.id, entry.backoff.unstable());
                turn.report(Fact::Errored { app: self.id, slot, unstable });
            }
        }
    }

    pub(super) fn wait(&mut self, slot: usize, delay: Duration, turn: &mut Turn<'_>) {
        let entry = &mut self.slots[slot];
        entry.idle = Idle::Waiting(turn.now + delay);
        let (slot, unstable) = (entry.id, entry.backoff.unstable());
        turn.report(Fact::BackingOff { app: self.id, slot, delay, unstable });
    }

    /// The first failure of a worker answers the wishes that wait for its slot.
    pub(super) fn fail_requests(&mut self, slot: usize, failure: &Failure, turn: &mut Turn<'_>) {
        let slot = self.slots[slot].id;
        self.answer(Outcome::Failed(failure.clone()), turn, |until| match until {
            Until::Ready(slots) => slots.contains(&slot),
            Until::Back(_) => true,
            Until::Ended(_) | Until::Deleted => false,
        });
    }

    /// Answers the requests that match.
    pub(super) fn answer(&mut self, outcome: Outcome, turn: &mut Turn<'_>, which: impl Fn(&Until) -> bool) {
        self.requests.retain(|request| {
            let matches = which(&request.until);
            if matches {
                turn.out.push(Action::Reply { request: request.id, outcome: outcome.clone() });
            }
            !matches
        });
    }

    pub(super) fn leave_where(
        &mut self,
        slot: usize,
        cause: Cause,
        turn: &mut Turn<'_>,
        which: impl Fn(&Worker) -> bool,
    ) {
        for place in 0..self.slots[slot].workers.len() {
            if which(&self.slots[slot].workers[place]) {
                self.leave(slot, place, cause, turn);
            }
        }
    }
}
