//! One app: its wanted and its actual state, and what the world's facts do to it.
//!
//! Facts only record; the steps that follow from them are derived in `reconcile`, wishes are in
//! `wish`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::{Backoff, Jitter, Next};
use super::event::{
    Action, Address, AppId, Cause, Closing, Definition, ExitStatus, Fact, Failure, Generation,
    OnReloadFailureTaken, Outcome, Proof, RequestId, SignalKind, SlotId, SocketId, SpawnFailure, Traffic,
    Word, WorkerId,
};
use super::exam::Handling;
use super::group::{Holder, Socket, Sockets, Standing, Standings};
use super::headroom::{Headroom, Plan};
use super::policy::{Mode, OnReloadFailure, Policy, SpecId};
use super::rollout::{FailedReload, Queued, Rollout, Room, Trial};
use super::time::Time;
use super::view::LastExit;
use super::worker::{Boot, Leaving, Look, Phase, Worker, earlier, until_next_inspection};
use super::{Bug, Ids, Planted};

/// How long a worker of an app that may have no listener must live to count as ready.
pub(super) const SILENT: Duration = Duration::from_secs(3);

/// `EXTEND_TIMEOUT_USEC` reaches no further than so many times `listen_timeout` after the start.
pub(super) const EXTENSIONS: u32 = 10;

/// How long after its start a ready worker is still looked at for sockets that it was handed and was
/// not seen using.
pub(super) const INSPECTED: Duration = Duration::from_secs(30);

/// A program that leaves others behind and ends well so soon after its start has put itself in the
/// background: scripts that wait until their server answers take a few seconds for that.
const DAEMONISED: Duration = Duration::from_secs(10);

/// What one call of `handle` works with.
pub(super) struct Turn<'a> {
    pub(super) now: Time,
    pub(super) out: &'a mut Vec<Action>,
    pub(super) jitter: &'a mut Jitter,
    pub(super) ids: &'a mut Ids,
    pub(super) end: Option<End>,
    pub(super) planted: Planted,
    /// A step was taken that others may follow from.
    pub(super) changed: bool,
    /// A serving worker was told to leave in this turn.
    pub(super) left: bool,
    /// A planted bug holds the steering back.
    pub(super) unsteered: bool,
}

impl Turn<'_> {
    pub(super) fn report(&mut self, fact: Fact) {
        self.out.push(Action::Report { fact });
    }

    pub(super) fn reply(&mut self, request: RequestId, outcome: Outcome) {
        self.out.push(Action::Reply { request, outcome });
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.planted.has(bug)
    }

    fn killed_by(&self, at: Time) -> Time {
        self.end.map_or(at, |end| end.killed_by.min(at))
    }
}

/// The bounds of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct End {
    pub(super) within: Duration,
    pub(super) began: Time,
    pub(super) killed_by: Time,
}

impl End {
    /// Leaves the app its `kill_timeout`, but at most half of the whole, before the kill.
    pub(super) fn drained_by(&self, policy: &Policy) -> Time {
        self.began + (self.within - policy.kill_timeout.min(self.within / 2)).min(policy.drain_timeout)
    }
}

/// What a generation pins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    pub(super) generation: Generation,
    pub(super) policy: Policy,
    pub(super) spec: SpecId,
}

/// What is wished of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// A worker.
    Run,
    /// No worker; the slot stays.
    Rest(Cause),
    /// No worker and no slot.
    Remove(Cause),
}

/// When a slot without a worker gets its next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Idle {
    /// As soon as it is wanted.
    Free,
    /// Not before this.
    Waiting(Time),
    /// When somebody asks for it, or with the next generation.
    Errored,
}

/// Whether the slot's next worker may come while trees of earlier ones live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Gate {
    /// It may, where instances can overlap.
    Open,
    /// It may not: this is a restart.
    AfterTree,
}

/// What is known about whether the app listens at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Heard {
    /// Nothing yet.
    Nothing,
    /// A worker lived long enough without listening.
    Silence,
    /// A worker listened: each later one must prove it.
    Listening,
}

/// Whether workers of other generations than the good one are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mix {
    /// They are.
    Replace,
    /// They stay for the operator.
    Keep,
}

/// A place for one worker at a time, and for those on their way out of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) instance: u32,
    /// The first generation for which the slot was made.
    pub(super) born: Generation,
    pub(super) wanted: Wanted,
    pub(super) idle: Idle,
    pub(super) gate: Gate,
    pub(super) backoff: Backoff,
    /// What its last established worker served: its next one must too. True: by a handed socket.
    pub(super) served: BTreeMap<Address, bool>,
    pub(super) workers: Vec<Worker>,
    /// A process ran here that the next one replaces.
    pub(super) ran: bool,
    pub(super) restarts: u32,
    pub(super) last_exit: Option<LastExit>,
}

impl Slot {
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted == Wanted::Run
    }

    /// It has no worker, and gets none by itself.
    pub(super) fn has_given_up(&self) -> bool {
        self.is_wanted() && self.idle == Idle::Errored && self.workers.is_empty()
    }

    pub(super) fn up(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.is_up())
    }

    /// A manual command wins over every wait.
    pub(super) fn free(&mut self) {
        self.backoff.reset();
        self.idle = Idle::Free;
    }
}

/// A wish that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) until: Until,
}

/// When a wish is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Until {
    /// Each of these slots had a ready worker.
    Ready(Vec<SlotId>),
    /// Each of these workers' trees is empty.
    Ended(Vec<WorkerId>),
    /// The app is forgotten.
    Deleted,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct App {
    pub(super) id: AppId,
    pub(super) name: String,
    pub(super) namespace: String,
    /// All that is in use.
    pub(super) versions: Vec<Version>,
    pub(super) newest: Generation,
    /// The generation that is started when no reload is under way.
    pub(super) good: Generation,
    pub(super) instances: u32,
    pub(super) mix: Mix,
    pub(super) rollout: Option<Rollout>,
    pub(super) queue: Option<Queued>,
    pub(super) failed: Option<FailedReload>,
    /// In the order of instance.
    pub(super) slots: Vec<Slot>,
    pub(super) sockets: Sockets,
    pub(super) heard: Heard,
    pub(super) handling: Handling,
    /// The last generation of which a worker was examined.
    pub(super) examined: Generation,
    pub(super) requests: Vec<Request>,
    /// Delete was wished.
    pub(super) doomed: bool,
    /// Nothing is wanted, and nothing lives.
    pub(super) resting: bool,
}

impl App {
    pub(super) fn new(id: AppId, definition: Definition) -> App {
        let generation = Generation(1);
        let instances = definition.policy.instances;
        App {
            id,
            name: definition.name,
            namespace: definition.namespace,
            versions: vec![Version { generation, policy: definition.policy, spec: definition.spec }],
            newest: generation,
            good: generation,
            instances,
            mix: Mix::Replace,
            rollout: None,
            queue: None,
            failed: None,
            slots: Vec::new(),
            sockets: Sockets::default(),
            heard: Heard::Nothing,
            handling: Handling::Unproven,
            examined: Generation::default(),
            requests: Vec::new(),
            doomed: false,
            resting: false,
        }
    }

    // Queries.

    pub(super) fn version(&self, generation: Generation) -> &Version {
        self.versions
            .iter()
            .find(|version| version.generation == generation)
            .expect("a generation in use keeps its version")
    }

    pub(super) fn policy(&self, generation: Generation) -> &Policy {
        &self.version(generation).policy
    }

    /// The generation that every slot is to run in the end.
    pub(super) fn target(&self) -> Generation {
        self.rollout.as_ref().map_or(self.good, |rollout| rollout.to)
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().flat_map(|slot| &slot.workers)
    }

    pub(super) fn find(&self, worker: WorkerId) -> Option<(usize, usize)> {
        self.slots.iter().enumerate().find_map(|(slot, entry)| {
            entry.workers.iter().position(|other| other.id == worker).map(|place| (slot, place))
        })
    }

    /// Of the new generation of a reload, and not proven: its failure is the reload's.
    pub(super) fn is_candidate(&self, worker: &Worker) -> bool {
        let new = self.rollout.as_ref().is_some_and(|rollout| rollout.to == worker.generation);
        let untested = match worker.phase {
            Phase::Starting { .. } | Phase::Ready { .. } => !worker.is_settled(),
            Phase::Quitting { early, .. } => early,
            Phase::Draining(_)
            | Phase::Finishing(_)
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed => false,
        };
        new && untested
    }

    pub(super) fn standings(&self) -> Standings {
        let standing = |worker: &Worker| {
            let standing = if worker.is_ready() { Standing::Serving } else { Standing::Alive };
            (!worker.is_headless()).then_some((worker.id, standing))
        };
        self.workers().filter_map(standing).collect()
    }

    /// Where this worker must listen, but does not.
    fn missing(&self, slot: &Slot, worker: &Worker) -> Vec<Address> {
        let found = self.sockets.accepted(worker.id);
        let mut missing = self.expected(slot, worker);
        missing.retain(|address| !found.contains_key(address));
        missing
    }

    /// Where this worker must listen: wherever its predecessor served, by the predecessor's own
    /// sockets, and of handed ones those that it was handed too.
    fn expected(&self, slot: &Slot, worker: &Worker) -> Vec<Address> {
        let ahead = slot.workers.iter().find(|other| other.is_ready() && other.id != worker.id);
        let served =
            ahead.map_or_else(|| slot.served.clone(), |predecessor| self.sockets.accepted(predecessor.id));
        let held: Vec<Address> = self.sockets.of(worker.id).map(|(_, socket)| socket.address).collect();
        served
            .into_iter()
            .filter(|(address, handed)| !handed || held.contains(address))
            .map(|(address, _)| address)
            .collect()
    }

    /// How a starting worker's readiness is proven by now, if it is.
    fn proof(&self, slot: &Slot, worker: &Worker, now: Time) -> Option<Proof> {
        let Phase::Starting { boot, .. } = worker.phase else { return None };
        let policy = self.policy(worker.generation);
        if policy.wait_ready {
            return None;
        }
        if policy.mode == Mode::Fork && !policy.declares_listen {
            return (boot == Boot::Running).then_some(Proof::Alive);
        }
        let found = self.sockets.accepted(worker.id);
        if !found.is_empty() {
            let all = self.expected(slot, worker).iter().all(|address| found.contains_key(address));
            return all.then_some(Proof::Listens);
        }
        self.silent_at(worker).is_some_and(|at| now >= at).then_some(Proof::NoListener)
    }

    /// When a starting worker that was not heard of counts as one that never listens.
    fn silent_at(&self, worker: &Worker) -> Option<Time> {
        let Phase::Starting { boot: Boot::Running, .. } = worker.phase else { return None };
        let policy = self.policy(worker.generation);
        if policy.wait_ready || policy.declares_listen || policy.mode == Mode::Fork {
            return None;
        }
        match self.heard {
            Heard::Nothing => Some(worker.spawned + SILENT.min(policy.listen_timeout)),
            Heard::Silence => Some(worker.spawned + policy.min_uptime.min(policy.listen_timeout)),
            Heard::Listening => None,
        }
    }

    /// The next moment at which this app needs attention.
    pub(super) fn deadline(&self, planted: Planted) -> Option<Time> {
        let mut next = None;
        for slot in &self.slots {
            if let (Wanted::Run, Idle::Waiting(until)) = (slot.wanted, slot.idle) {
                let hidden = planted.has(Bug::BackoffSleepsForEver);
                next = earlier(next, (!hidden).then_some(until));
            }
            for worker in &slot.workers {
                next = earlier(next, worker.deadline());
                next = earlier(next, self.silent_at(worker));
            }
        }
        next
    }

    /// The requests that were not answered yet.
    pub(super) fn pending(&self) -> Vec<RequestId> {
        let rolling = self.rollout.iter().flat_map(|rollout| rollout.requests.clone());
        let queued = self.queue.iter().flat_map(|queued| queued.requests.clone());
        rolling.chain(queued).chain(self.requests.iter().map(|request| request.id)).collect()
    }

    // Facts.

    fn at(&mut self, worker: WorkerId) -> Option<&mut Worker> {
        let (slot, place) = self.find(worker)?;
        Some(&mut self.slots[slot].workers[place])
    }

    /// The program runs.
    pub(super) fn started(&mut self, worker: WorkerId, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let inspected = self.policy(self.slots[slot].workers[place].generation).declares_listen;
        let entry = &mut self.slots[slot];
        entry.backoff.started();
        entry.ran = true;
        if let Phase::Starting { boot, look_at, .. } = &mut entry.workers[place].phase {
            *boot = Boot::Running;
            *look_at = inspected.then_some(turn.now);
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
            let next = self.slots[index].backoff.failed(&policy, turn.jitter);
            self.hold_back(index, next, turn);
        }
    }

    /// A socket of this worker's began to listen.
    pub(super) fn listening(&mut self, worker: WorkerId, socket: SocketId, address: Address, handed: bool) {
        let Some((slot, place)) = self.find(worker) else { return };
        if self.sockets.get(socket).is_some() {
            return;
        }
        let entry = &self.slots[slot];
        let headless = entry.workers[place].is_headless();
        let holder = if headless { Holder::Orphan } else { Holder::Worker(worker) };
        let accepts = !handed && !headless;
        let slot = entry.id;
        self.sockets.append(socket, Socket { address, slot, holder, handed, accepts, shut: false });
        if !handed {
            self.heard = Heard::Listening;
            for spare in self.sockets.handed_for(worker, address) {
                self.sockets.abandon(spare);
            }
        }
    }

    /// A worker closed a socket of its own and lives on.
    pub(super) fn abandoned(&mut self, socket: SocketId, turn: &Turn<'_>) {
        if !turn.has(Bug::AbandonedStaysServing) {
            self.sockets.abandon(socket);
        }
    }

    /// It waits for connections on a socket that it was handed.
    pub(super) fn accepting(&mut self, worker: WorkerId, socket: SocketId) {
        if let Some(held) = self.sockets.get_mut(socket)
            && held.holder == Holder::Worker(worker)
        {
            held.accepts = true;
            self.heard = Heard::Listening;
        }
        let unseen = self.sockets.of(worker).any(|(_, socket)| socket.handed && !socket.accepts);
        if !unseen && let Some(Worker { phase: Phase::Ready { look_at, .. }, .. }) = self.at(worker) {
            *look_at = None;
        }
    }

    /// It said something about itself.
    pub(super) fn said(&mut self, worker: WorkerId, word: Word, turn: &mut Turn<'_>) {
        match word {
            Word::Ready => self.said_ready(worker, turn),
            Word::Stopping => self.said_stopping(worker, turn),
            Word::Extend(more) => self.said_extend(worker, more, turn),
        }
    }

    /// Only a worker that starts, and was not late yet, gets more time; never less than it has.
    fn said_extend(&mut self, worker: WorkerId, more: Duration, turn: &Turn<'_>) {
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
            | Phase::Doomed => {}
        }
    }

    fn said_ready(&mut self, worker: WorkerId, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        let revived = turn.has(Bug::LateReadyRevives) && found.leaving().is_some();
        if found.is_starting() || revived {
            self.sockets.said_ready(worker);
            self.promote(slot, place, Proof::Said, turn);
        }
    }

    fn said_stopping(&mut self, worker: WorkerId, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        if !found.is_ready() {
            return;
        }
        let early = self.is_candidate(found);
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

    /// Its first process ended.
    pub(super) fn exited(&mut self, worker: WorkerId, status: ExitStatus, left: bool, turn: &mut Turn<'_>) {
        let Some((index, place)) = self.find(worker) else { return };
        let found = &self.slots[index].workers[place];
        if found.is_headless() {
            return;
        }
        let lived = turn.now - found.spawned;
        let cause = found.leaving().unwrap_or(match status {
            ExitStatus::Code(0) if left && found.is_up() && lived < DAEMONISED => Cause::Daemonised,
            ExitStatus::Code(0) => Cause::Exit,
            ExitStatus::Code(_) | ExitStatus::Signal(_) => Cause::Crash,
        });
        let slot = self.slots[index].id;
        turn.report(Fact::Exited { app: self.id, slot, worker, status, cause, lived });
        let (up, ready, candidate) = (found.is_up(), found.is_ready(), self.is_candidate(found));
        let generation = found.generation;
        self.remember_served(index, place);
        self.conclude_exam(index, place, turn);
        self.slots[index].ran = true;
        self.slots[index].last_exit = Some(LastExit::ended(status, cause, turn.now));
        self.behead(index, place, left, turn);
        let failure = Failure::Died { worker, status, cause, lived, ready };
        if candidate {
            self.verdict(Some(worker), failure, turn);
        } else if up {
            self.fail_requests(index, &failure, turn);
            let policy = self.policy(generation).clone();
            let next = self.slots[index].backoff.exited(lived, &policy, turn.jitter);
            self.hold_back(index, next, turn);
            if next == Next::GiveUp && generation == self.target() {
                self.verdict(Some(worker), failure, turn);
            }
        }
    }

    /// What is left of a worker's tree is told to stop, or the worker is gone.
    fn behead(&mut self, index: usize, place: usize, left: bool, turn: &mut Turn<'_>) {
        let found = &self.slots[index].workers[place];
        if !left || turn.has(Bug::LeftoverIsForgotten) {
            self.bury(index, place);
            return;
        }
        let told = matches!(found.phase, Phase::Killed { .. });
        let worker = found.id;
        let kill_at = turn.killed_by(turn.now + self.policy(found.generation).kill_timeout);
        self.slots[index].workers[place].phase = Phase::Leftover { kill_at };
        if !told {
            turn.out.push(Action::Signal { worker, signal: SignalKind::Stop });
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
    fn bury(&mut self, slot: usize, place: usize) {
        let gone = self.slots[slot].workers.remove(place);
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
        let Some(Rollout { room: Room::Unknown, to, total, .. }) = self.rollout else { return };
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

    /// Nobody waits in this orphan's queue any more.
    pub(super) fn relayed(&mut self, socket: SocketId, turn: &mut Turn<'_>) {
        if self.sockets.get(socket).is_some_and(|held| held.holder == Holder::Relaying) {
            self.sockets.close(socket, turn.planted, turn.out);
        }
    }

    // What facts lead to, for one worker.

    fn promote(&mut self, slot: usize, place: usize, proof: Proof, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        // It was handed more than it was seen using so far.
        let unseen = self.sockets.of(found.id).any(|(_, socket)| socket.handed && !socket.accepts);
        let look_at = if unseen { found.looked_at() } else { None };
        let (worker, generation, after) = (found.id, found.generation, turn.now - found.spawned);
        let soak_until = Some(turn.now + self.policy(generation).min_healthy_time);
        self.slots[slot].ran = true;
        self.slots[slot].workers[place].phase = Phase::Ready { proof, look_at, soak_until };
        if proof == Proof::NoListener && self.heard == Heard::Nothing {
            self.heard = Heard::Silence;
        }
        let slot = self.slots[slot].id;
        turn.report(Fact::Ready { app: self.id, slot, worker, proof, after });
        turn.changed = true;
    }

    /// What an established worker serves is what its successor must serve.
    fn remember_served(&mut self, slot: usize, place: usize) {
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
            | Phase::Doomed => return,
        }
        turn.left |= found.is_ready();
        self.remember_served(slot, place);
        let found = &self.slots[slot].workers[place];
        if self.sockets.accepted(found.id).is_empty() {
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
            | Phase::Doomed => None,
        };
        let oldest = self.workers().filter_map(drain).min_by_key(|(since, id, ..)| (*since, *id));
        let Some((_, worker, cause, traffic)) = oldest else { return };
        let Some((slot, place)) = self.find(worker) else { return };
        turn.report(Fact::DrainCutShort { app: self.id, worker, traffic, limit });
        self.stop(slot, place, cause, turn);
    }

    pub(super) fn stop(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        let worker = self.slots[slot].workers[place].id;
        turn.out.push(Action::Signal { worker, signal: SignalKind::Stop });
        self.await_end(slot, place, cause, turn);
    }

    /// A worker that was told to stop has `kill_timeout` from now.
    fn await_end(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        let generation = found.generation;
        let kill_at = turn.killed_by(turn.now + self.policy(generation).kill_timeout);
        self.slots[slot].workers[place].phase = Phase::Stopping { cause, kill_at };
        turn.changed = true;
    }

    /// SIGKILL to what lives of a worker's tree.
    pub(super) fn kill(&mut self, slot: usize, place: usize, cause: Cause, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        if matches!(found.phase, Phase::Killed { .. } | Phase::Doomed) {
            return;
        }
        found.phase = if found.is_headless() { Phase::Doomed } else { Phase::Killed { cause } };
        turn.out.push(Action::Signal { worker: found.id, signal: SignalKind::Kill });
        turn.changed = true;
    }

    fn hold_back(&mut self, slot: usize, next: Next, turn: &mut Turn<'_>) {
        match next {
            Next::Now => self.slots[slot].idle = Idle::Free,
            Next::Wait(_) if turn.has(Bug::RespawnsWithoutBackoff) => self.slots[slot].idle = Idle::Free,
            Next::Wait(delay) => self.wait(slot, delay, turn),
            Next::GiveUp => {
                let entry = &mut self.slots[slot];
                entry.idle = Idle::Errored;
                entry.ran = false;
                let (slot, unstable) = (entry.id, entry.backoff.unstable());
                turn.report(Fact::Errored { app: self.id, slot, unstable });
            }
        }
    }

    fn wait(&mut self, slot: usize, delay: Duration, turn: &mut Turn<'_>) {
        let entry = &mut self.slots[slot];
        entry.idle = Idle::Waiting(turn.now + delay);
        let (slot, unstable) = (entry.id, entry.backoff.unstable());
        turn.report(Fact::BackingOff { app: self.id, slot, delay, unstable });
    }

    /// The first failure of a worker answers the wishes that wait for its slot.
    fn fail_requests(&mut self, slot: usize, failure: &Failure, turn: &mut Turn<'_>) {
        let slot = self.slots[slot].id;
        self.answer(Outcome::Failed(failure.clone()), turn, |until| match until {
            Until::Ready(slots) => slots.contains(&slot),
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

    /// The reload failed: back to the old generation, or a mix for the operator.
    fn verdict(&mut self, worker: Option<WorkerId>, failure: Failure, turn: &mut Turn<'_>) {
        let Some(rollout) = self.rollout.take() else { return };
        let hold = self.policy(rollout.to).on_reload_failure == OnReloadFailure::Hold;
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
        turn.changed = true;
    }

    /// Takes a failed reload's unproven workers back, and with a roll-back its slots too.
    fn withdraw(&mut self, rollout: &Rollout, worker: Option<WorkerId>, held: bool, turn: &mut Turn<'_>) {
        for slot in 0..self.slots.len() {
            if turn.has(Bug::RollbackStopsOld) && !held {
                self.leave_where(slot, Cause::Reload, turn, |other| other.generation != rollout.to);
            }
            let good_serves =
                self.slots[slot].up().any(|other| other.generation != rollout.to && other.is_ready());
            self.leave_where(slot, Cause::Reload, turn, |other| {
                let unproven = !other.is_settled() && (good_serves || other.is_starting());
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
        } else if let Some(instances) = rollout.instances_before {
            self.instances = instances;
        }
    }

    /// Slots that no worker of the good generation is up in.
    fn exchanged(&self) -> u32 {
        let lacks =
            |slot: &&Slot| slot.is_wanted() && !slot.up().any(|worker| worker.generation == self.good);
        u32::try_from(self.slots.iter().filter(lacks).count()).unwrap_or(u32::MAX)
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

    // Deadlines and proofs.

    /// Acts on everything that is due.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        for slot in 0..self.slots.len() {
            let entry = &mut self.slots[slot];
            if let Idle::Waiting(until) = entry.idle
                && turn.now >= until
            {
                // A failure of the host lets a given up slot's next generation wait, and nobody else.
                entry.idle = if entry.backoff.gave_up() { Idle::Errored } else { Idle::Free };
            }
            for place in 0..self.slots[slot].workers.len() {
                let entry = &self.slots[slot];
                if let Some(proof) = self.proof(entry, &entry.workers[place], turn.now) {
                    self.promote(slot, place, proof, turn);
                }
                self.tick_worker(slot, place, turn);
            }
        }
    }

    fn tick_worker(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        self.tick_exam(slot, place, turn);
        let now = turn.now;
        let due = |at: Time| now >= at;
        match &mut self.slots[slot].workers[place].phase {
            Phase::Starting { ready_by, .. } => {
                if ready_by.is_some_and(due) {
                    self.late(slot, place, turn);
                }
            }
            Phase::Ready { soak_until, .. } => {
                if soak_until.is_some_and(due) {
                    *soak_until = None;
                    self.settled(slot, place, turn);
                }
            }
            Phase::Draining(leaving) | Phase::Finishing(leaving) => {
                if due(leaving.until) {
                    let (cause, traffic) = (leaving.cause, leaving.seen);
                    let worker = self.slots[slot].workers[place].id;
                    turn.report(Fact::DrainTimedOut { app: self.id, worker, traffic });
                    self.stop(slot, place, cause, turn);
                }
            }
            Phase::Stopping { kill_at, .. }
            | Phase::Quitting { kill_at, .. }
            | Phase::Leftover { kill_at } => {
                if due(*kill_at) && !turn.has(Bug::NeverKills) {
                    let worker = self.slots[slot].workers[place].id;
                    turn.report(Fact::KillTimedOut { app: self.id, worker });
                    self.kill(slot, place, Cause::KillTimeout, turn);
                }
            }
            Phase::Killed { .. } | Phase::Doomed => {}
        }
    }

    /// A worker of the new generation that proved itself passes the trial for all, and opens a slot that
    /// was given up with the old one.
    fn settled(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
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

    fn late(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
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
            turn.report(Fact::Late { app: self.id, worker });
            self.fail_requests(slot, &failure, turn);
        }
    }

    /// Orders the looks that are due. After everything else of a turn: what they see must be the
    /// world that this turn made.
    pub(super) fn look(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let examined = self.being_examined();
        for worker in self.slots.iter_mut().flat_map(|slot| &mut slot.workers) {
            let (id, closing) = (worker.id, worker.closing(now));
            let waits = examined.contains(&worker.generation);
            let closing = if waits { closing.and(Some(Closing::WhenIdle)) } else { closing };
            let next = now + until_next_inspection(now - worker.spawned);
            match &mut worker.phase {
                Phase::Starting { look_at, .. } => {
                    if look_at.is_some_and(|at| now >= at) {
                        *look_at = Some(next);
                        turn.out.push(Action::Inspect { worker: id });
                    }
                }
                Phase::Ready { look_at, .. } => {
                    if look_at.is_some_and(|at| now >= at) {
                        *look_at = (now - worker.spawned < INSPECTED).then_some(next);
                        turn.out.push(Action::Inspect { worker: id });
                    }
                }
                Phase::Draining(leaving) | Phase::Finishing(leaving) => {
                    if let (Look::At(at), Some(closing)) = (leaving.look, closing)
                        && now >= at
                    {
                        leaving.look = Look::Awaited;
                        turn.out.push(Action::Observe { worker: id, closing });
                    }
                }
                Phase::Quitting { .. }
                | Phase::Stopping { .. }
                | Phase::Killed { .. }
                | Phase::Leftover { .. }
                | Phase::Doomed => {}
            }
        }
    }
}
