//! What the world's facts do to one app: they are recorded, and the steps that follow are derived in
//! `reconcile`.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Bug;
use super::app::{App, EXTENSIONS, Heard, Idle, Slot, Turn};
use super::backoff::{Jitter, Next};
use super::event::{
    Address, Cause, Event, ExitStatus, Fact, Failure, Proof, SocketId, SpawnFailure, Subject, Traffic, Word,
    WorkerId,
};
use super::exam::Handling;
use super::group::{Holder, Queue, Socket};
use super::health::Check;
use super::time::Time;
use super::view::LastExit;
use super::worker::{Boot, Phase, Worker};

/// When whoever leaves is looked at again after something that changed who may be led to it.
const SOON: Duration = Duration::from_millis(2);

/// A program that leaves others behind and ends well so soon after its start has put itself in the
/// background: scripts that wait until their server answers take a few seconds for that.
const DAEMONISED: Duration = Duration::from_secs(10);

/// Where a socket of a worker's comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The worker opened it.
    ByWorker,
    /// The shell did, for this worker alone.
    ByShell,
    /// The shell did, for all: this is the worker's part of it.
    Shared,
    /// The host did, for all; the same.
    ByHost,
}

impl App {
    pub(super) fn at(&mut self, worker: WorkerId) -> Option<&mut Worker> {
        let (slot, place) = self.find(worker)?;
        Some(&mut self.slots[slot].workers[place])
    }

    /// The slot that a fact is about is looked at; also where it changes a socket alone, that of its worker.
    pub(super) fn touch(&mut self, fact: &Event, turn: &Turn<'_>) {
        let worker = match fact.subject() {
            Subject::Worker(worker) => Some(worker),
            Subject::Socket(socket) => self.sockets.get(socket).and_then(Socket::worker),
            Subject::App(_) | Subject::All => None,
        };
        if let Some(worker) = worker.filter(|_| !turn.has(Bug::LooksAway)) {
            self.slots.touch_worker(worker);
        }
    }

    /// Its start waited its turn until now.
    pub(super) fn begun(&mut self, worker: WorkerId, now: Time, jitter: &mut Jitter) {
        let Some((slot, place)) = self.find(worker) else { return };
        let policy = self.policy(self.slots[slot].workers[place].generation);
        let (patience, max_age) = (policy.listen_timeout, policy.max_age);
        let found = &mut self.slots[slot].workers[place];
        if let Phase::Starting { boot: boot @ Boot::Queued, ready_by, .. } = &mut found.phase {
            *boot = Boot::Begun;
            *ready_by = Some(now + patience);
            found.spawned = now;
            found.expires = max_age.map(|age| now + jitter.shorten(age));
        }
    }

    /// The program runs.
    pub(super) fn started(&mut self, worker: WorkerId, turn: &mut Turn<'_>) {
        self.begun(worker, turn.now, turn.jitter);
        let Some((slot, place)) = self.find(worker) else { return };
        let policy = self.policy(self.slots[slot].workers[place].generation);
        let (inspected, check) = (policy.declares_listen, Check::of_starting(policy, turn.now));
        let entry = &mut self.slots[slot];
        entry.backoff.started();
        entry.ran = true;
        if let Phase::Starting { boot, look_at, .. } = &mut entry.workers[place].phase {
            *boot = Boot::Running;
            *look_at = inspected.then_some(turn.now);
            entry.workers[place].watch.check = check;
        }
    }

    /// It never ran.
    pub(super) fn spawn_failed(&mut self, worker: WorkerId, failure: SpawnFailure, turn: &mut Turn<'_>) {
        let Some((index, place)) = self.find(worker) else { return };
        let candidate = self.is_candidate(&self.slots[index].workers[place]);
        let gone = self.slots[index].workers[place].clone();
        self.bury(index, place);
        self.slots[index].last_exit = Some(LastExit::never_ran(failure.clone(), turn.now));
        let slot = self.slots[index].id;
        turn.report(Fact::SpawnFailed { app: self.id, slot, worker, failure: failure.clone() });
        if !gone.is_up() {
            return;
        }
        let policy = self.policy(gone.generation).clone();
        if failure.transient && !turn.has(Bug::HiccupIsCharged) {
            let delay = self.slots[index].backoff.hiccup(&policy, turn.jitter);
            self.wait(index, delay, turn);
            if candidate && self.slots[index].backoff.is_stuck() {
                self.verdict(Some(worker), Failure::Spawn { worker, failure }, turn);
            }
        } else if candidate {
            self.verdict(Some(worker), Failure::Spawn { worker, failure }, turn);
        } else {
            self.fail_requests(index, &Failure::Spawn { worker, failure }, turn);
            let entry = &mut self.slots[index].backoff;
            let next = if policy.autorestart { entry.failed(&policy, turn.jitter) } else { entry.give_up() };
            self.hold_back(index, next, turn);
        }
    }

    /// They were told to end before their starts were begun: nobody is to blame, and nothing is to be told.
    pub(super) fn dropped(&mut self, workers: &BTreeSet<WorkerId>, turn: &mut Turn<'_>) {
        for worker in workers {
            let Some((slot, place)) = self.find(*worker) else { continue };
            self.bury(slot, place);
            if turn.has(Bug::DroppedIsCharged) {
                let policy = self.policy(self.good).clone();
                let next = self.slots[slot].backoff.failed(&policy, turn.jitter);
                self.hold_back(slot, next, turn);
            }
        }
    }

    /// The host may have by now what it lacked.
    pub(super) fn retry(&mut self) {
        let waits = |slot: &&mut Slot| {
            let waits = slot.is_wanted() && matches!(slot.idle, Idle::Waiting(_));
            waits && slot.backoff.waits_for_the_host() && !slot.backoff.gave_up()
        };
        for slot in self.slots.iter_mut().filter(waits) {
            slot.idle = Idle::Free;
        }
    }

    /// A socket of this worker's began to listen.
    pub(super) fn listening(&mut self, worker: WorkerId, socket: SocketId, address: Address, made: Made) {
        let (handed, queue) = match made {
            Made::ByWorker => (false, Queue::Own),
            Made::ByShell => (true, Queue::Own),
            Made::Shared | Made::ByHost => (true, Queue::Shared),
        };
        let Some((slot, place)) = self.find(worker) else { return };
        if self.sockets.get(socket).is_some() {
            return;
        }
        let entry = &self.slots[slot];
        let headless = entry.workers[place].is_headless();
        let holder = if headless { Holder::Orphan } else { Holder::Worker(worker) };
        let accepts = !handed && !headless;
        let (slot, generation) = (entry.id, entry.workers[place].generation);
        let of_host = made == Made::ByHost;
        self.sockets
            .append(socket, Socket { address, slot, holder, handed, accepts, shut: false, queue, of_host });
        if !handed {
            self.hear(Heard::Listening);
            for spare in self.sockets.useless(worker) {
                self.sockets.abandon(spare);
            }
        } else if queue == Queue::Own {
            // Those of its version that serve listen by themselves, and so will this one: until it does, nobody would
            // take who comes. Another version may well take what it is handed.
            let is_like = |other: WorkerId| {
                let place = self.find(other);
                place.is_some_and(|(slot, at)| self.slots[slot].workers[at].generation == generation)
            };
            if self.sockets.is_covered(address, &self.standings(), is_like) {
                self.sockets.abandon(socket);
            }
        }
    }

    /// A worker closed a socket of its own and lives on.
    pub(super) fn abandoned(&mut self, socket: SocketId, turn: &Turn<'_>) {
        if !turn.has(Bug::AbandonedStaysServing) {
            self.sockets.abandon(socket);
        }
    }

    /// Every worker that is not ready depends on it.
    pub(super) fn hear(&mut self, heard: Heard) {
        if self.heard != heard {
            self.heard = heard;
            self.slots.touch_all();
        }
    }

    /// It waits for connections on a socket that it was handed.
    pub(super) fn accepting(&mut self, worker: WorkerId, socket: SocketId) {
        if let Some(held) = self.sockets.get_mut(socket)
            && held.holder == Holder::Worker(worker)
        {
            held.accepts = true;
            self.hear(Heard::Listening);
        }
        let unseen = self.sockets.of(worker).any(|(_, socket)| socket.handed && !socket.accepts);
        if !unseen && let Some(Worker { phase: Phase::Ready { look_at, .. }, .. }) = self.at(worker) {
            *look_at = None;
        }
    }

    /// It said something about itself.
    pub(super) fn said(&mut self, worker: WorkerId, word: Word, turn: &mut Turn<'_>) {
        match word {
            Word::Ready | Word::Sent => self.said_ready(worker, word, turn),
            Word::Stopping => self.said_stopping(worker, turn),
            Word::Extend(more) => self.said_extend(worker, more, turn),
            Word::Reloading | Word::KeepAlive | Word::Trigger | Word::Interval(_) | Word::Errno(_) => {
                self.said_of_itself(worker, word, turn);
            }
        }
    }

    /// Only a worker that starts, and was not late yet, gets more time; never less than it has.
    pub(super) fn said_extend(&mut self, worker: WorkerId, more: Duration, turn: &Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        let reach = self.policy(found.generation).listen_timeout.saturating_mul(EXTENSIONS);
        let latest = if turn.has(Bug::ExtendIsUnbounded) { turn.now + more } else { found.spawned + reach };
        let asked = (turn.now + more).min(latest);
        match &mut self.slots[slot].workers[place].phase {
            Phase::Starting { ready_by: Some(by), .. } => *by = asked.max(*by),
            Phase::Stopping { kill_at, .. } if turn.has(Bug::ExtendPostponesKill) => *kill_at = asked,
            Phase::Starting { ready_by: None, .. }
            | Phase::Ready { .. }
            | Phase::Quitting { .. }
            | Phase::Draining(_)
            | Phase::Finishing(_)
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed { .. } => {}
        }
    }

    pub(super) fn said_ready(&mut self, worker: WorkerId, word: Word, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        self.is_back(slot, place, turn);
        let found = &self.slots[slot].workers[place];
        let revived = turn.has(Bug::LateReadyRevives) && found.leaving().is_some();
        let counts = self.policy(found.generation).ready.believes(word);
        if counts && (found.is_starting() || revived) {
            self.sockets.said_ready(worker);
            self.promote(slot, place, Proof::Said, turn);
        }
    }

    pub(super) fn said_stopping(&mut self, worker: WorkerId, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        if !found.is_ready() {
            return;
        }
        let early = self.is_candidate(found) && !found.is_settled();
        let (policy, spawned) = (self.policy(found.generation), found.spawned);
        let kill_at = turn.killed_by(turn.now + policy.drain_timeout + policy.kill_timeout);
        let stable_at = spawned + policy.min_uptime;
        self.remember_served(slot, place);
        let slot = &mut self.slots[slot];
        slot.workers[place].phase = Phase::Quitting { early, kill_at };
        // Not counted, but no faster than stable workers either: a worker that leaves right after each
        // start must not become a storm.
        if stable_at > turn.now && slot.idle == Idle::Free {
            slot.idle = Idle::Waiting(stable_at);
        }
    }

    /// How old it became is known by this, however long its end waits to be told.
    pub(super) fn seen_to_end(&mut self, worker: WorkerId, at: Time) {
        if let Some((slot, place)) = self.find(worker) {
            self.slots[slot].workers[place].ended = Some(at);
        }
    }

    /// Its first process ended.
    pub(super) fn exited(&mut self, worker: WorkerId, status: ExitStatus, left: bool, turn: &mut Turn<'_>) {
        let Some((index, place)) = self.find(worker) else { return };
        let found = &self.slots[index].workers[place];
        if found.is_headless() {
            return;
        }
        let lived = found.ended.unwrap_or(turn.now) - found.spawned;
        // It said so before.
        let quits = matches!(found.phase, Phase::Quitting { .. });
        let cause = found.foretold.or(found.leaving()).unwrap_or(match status {
            ExitStatus::Code(0) if left && found.is_up() && lived < DAEMONISED => Cause::Daemonised,
            ExitStatus::Code(0) => Cause::Exit,
            ExitStatus::Code(_) if quits => Cause::Exit,
            ExitStatus::Code(_) | ExitStatus::Signal(_) => Cause::Crash,
        });
        let slot = self.slots[index].id;
        let errno = found.watch.errno;
        let policy = self.policy(found.generation);
        let meant = policy.is_final(status) && policy.is_good(status) || quits && cause == Cause::Exit;
        let unproven = self.is_to_prove_itself(found);
        turn.report(Fact::Exited { app: self.id, slot, worker, status, cause, meant, lived, errno });
        let trusted = turn.has(Bug::CanaryIsTrusted) && found.is_settled();
        let (up, ready) = (found.is_up(), found.is_ready());
        let candidate = self.is_candidate(found) && !trusted;
        let generation = found.generation;
        let by_itself = up || quits;
        self.remember_served(index, place);
        self.conclude_exam(index, place, turn);
        self.slots[index].ran = true;
        self.slots[index].last_exit = Some(LastExit { errno, ..LastExit::ended(status, cause, turn.now) });
        self.behead(index, place, left, turn);
        let failure = Failure::Died { worker, status, cause, lived, ready };
        // Beside another worker it is that one's slot, and a reload's failure where it was its candidate.
        let alone = self.slots[index].up().next().is_none();
        if by_itself && alone && self.is_final(generation, status, turn) {
            let well = self.policy(generation).is_good(status) && cause != Cause::Daemonised;
            if well || !candidate {
                return self.ended(index, generation, status, (!well).then_some(failure), turn);
            }
        }
        if candidate {
            self.verdict(Some(worker), failure, turn);
        } else if up {
            self.fail_requests(index, &failure, turn);
            let policy = self.policy(generation).clone();
            let backoff = &mut self.slots[index].backoff;
            let next = if unproven {
                backoff.failed(&policy, turn.jitter)
            } else {
                backoff.exited(lived, &policy, turn.jitter)
            };
            self.hold_back(index, next, turn);
            if next == Next::GiveUp && generation == self.target() {
                self.verdict(Some(worker), failure, turn);
            }
        }
    }

    /// It is not ready, and does not come to count as ready by its age. Who was late goes on all the same, and is
    /// judged by its age as any other.
    fn is_to_prove_itself(&self, worker: &Worker) -> bool {
        worker.is_starting() && !worker.is_late() && self.silent_at(worker).is_none()
    }

    /// What is left of a worker's tree is told to stop, or the worker is gone.
    pub(super) fn behead(&mut self, index: usize, place: usize, left: bool, turn: &mut Turn<'_>) {
        let found = &self.slots[index].workers[place];
        if !left || turn.has(Bug::LeftoverIsForgotten) {
            self.bury(index, place);
            return;
        }
        let told = matches!(found.phase, Phase::Killed { .. });
        let worker = found.id;
        let kill_at = turn.killed_by(turn.now + self.policy(found.generation).kill_timeout);
        self.slots[index].workers[place].phase = Phase::Leftover { kill_at, told };
        if !told {
            self.tell_to_stop(worker, turn);
        }
    }

    /// The last process of its tree ended.
    pub(super) fn gone(&mut self, worker: WorkerId) {
        let Some((slot, place)) = self.find(worker) else { return };
        if self.slots[slot].workers[place].is_headless() {
            self.bury(slot, place);
        }
    }

    /// Nothing of a worker is left. Only now do its sockets become free: as long as a process of its
    /// tree has one open, closing our duplicate would not take it out of the kernel's array.
    pub(super) fn bury(&mut self, slot: usize, place: usize) {
        let gone = self.slots.take(slot, place);
        self.sockets.orphan(gone.id);
    }

    /// A look at a leaving worker's traffic.
    pub(super) fn observed(&mut self, worker: WorkerId, traffic: Traffic, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &mut self.slots[slot].workers[place];
        let told = matches!(found.phase, Phase::Finishing(_));
        let (Phase::Draining(leaving) | Phase::Finishing(leaving)) = &mut found.phase else { return };
        let Some(done) = leaving.saw(traffic, turn.now) else { return };
        let cause = leaving.cause;
        if !told {
            self.go_on(slot, place, done, turn);
        } else if done {
            self.await_end(slot, place, cause, turn);
        }
    }

    /// Nobody comes to a shared socket any more: who listens there is replaced, as by a reload that nobody
    /// asked for. The shell says it more and more rarely, so one that fails again and again is no storm; and
    /// how the last one that was asked for failed stays to be seen.
    pub(super) fn unreachable(&mut self, socket: SocketId, turn: &mut Turn<'_>) {
        let holder = self.sockets.get(socket).and_then(Socket::worker);
        let ready = holder.and_then(|worker| self.at(worker)).is_some_and(|worker| worker.is_ready());
        if ready && self.rollout.is_none() && self.queue.is_none() {
            self.begin_reload_unasked(turn);
        }
    }

    /// A worker shut a socket of its own down. Until the supervisor has steered anew, connections may have been
    /// led to whoever is on its way out.
    pub(super) fn shut_down(&mut self, socket: SocketId, again: bool, turn: &mut Turn<'_>) {
        self.sockets.shut_down(socket, again, turn.planted);
        let leaves = |worker: &Worker| matches!(worker.phase, Phase::Draining(_) | Phase::Finishing(_));
        for slot in 0..self.slots.len() {
            // Only those that leave are touched.
            if !self.slots[slot].workers.iter().any(leaves) {
                continue;
            }
            for worker in &mut self.slots[slot].workers {
                if let Phase::Draining(leaving) | Phase::Finishing(leaving) = &mut worker.phase {
                    leaving.look_again();
                    leaving.look_not_after(turn.now + SOON);
                }
            }
        }
    }

    /// It was to take no more from a shared queue, and cannot be kept from it: what is left is to tell it,
    /// where it is known to finish what it has then. Any other is told when it has nothing.
    pub(super) fn cannot_leave(&mut self, worker: WorkerId, handles: bool, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let generation = self.slots[slot].workers[place].generation;
        if handles || self.handling == Handling::Finishes(generation) {
            self.tell_early(slot, place, turn);
        }
    }

    /// Nobody waits in this orphan's queue any more.
    pub(super) fn relayed(&mut self, socket: SocketId, turn: &mut Turn<'_>) {
        if self.sockets.get(socket).is_some_and(|held| held.holder == Holder::Relaying) {
            self.sockets.close(socket, turn.planted, turn.out);
        }
    }
}
