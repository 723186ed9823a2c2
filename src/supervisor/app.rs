//! One app: its wanted and its actual state, and what follows from them without changing them.
//!
//! What the world's facts do to it is in `facts`, wishes are in `wish`, what is due in `tick`; the steps that
//! follow are derived in `reconcile`, and carried out for one worker in `leave`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::{Backoff, Jitter};
use super::balance::Gauging;
use super::event::{
    Action, Address, AppId, Cause, Definition, Fact, Generation, Outcome, Proof, RequestId, SlotId, WorkerId,
};
use super::exam::Handling;
use super::group::{Sockets, Standing, Standings};
use super::order::Admission;
use super::policy::{AppName, Mode, Policy, Readiness, SpecId};
use super::renew::Renewing;
use super::rollout::{FailedReload, Queued, Rollout};
use super::slots::{Slots, Workers};
use super::time::Time;
use super::view::LastExit;
use super::worker::{Boot, Phase, Worker, earlier};
use super::{Bug, Ids, Planted};

/// How long a worker of an app that may have no listener must live to count as ready.
pub(super) const SILENT: Duration = Duration::from_secs(3);

/// `EXTEND_TIMEOUT_USEC` reaches no further than so many times `listen_timeout` after the start.
pub(super) const EXTENSIONS: u32 = 10;

/// How long after its start a ready worker is still looked at for sockets that it was handed and was
/// not seen using.
pub(super) const INSPECTED: Duration = Duration::from_secs(30);

/// What one call of `handle` works with.
pub(super) struct Turn<'a> {
    /// From here clocks start.
    pub(super) now: Time,
    /// Until here everything that happened is known: what is not over by it, is not known to be.
    pub(super) heard: Time,
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
    /// Who depends on this app is still on its way out: this app's workers stay until that is over.
    pub(super) held: bool,
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

    /// Whether a moment has come, with everything known that happened before it.
    pub(super) fn is_due(&self, at: Time) -> bool {
        self.heard >= at
    }

    pub(super) fn killed_by(&self, at: Time) -> Time {
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
        self.began + (self.within - policy.kill_timeout.min(self.within / 2))
    }
}

/// What a generation pins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    pub(super) generation: Generation,
    pub(super) policy: Policy,
    pub(super) spec: SpecId,
    /// What its definition calls the app.
    pub(super) called: AppName,
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
    /// When somebody asks for it: the last one ended for good. `well`: as its file says, or with code 0.
    Ended { well: bool },
}

/// Whether the slot's next worker may come while trees of earlier ones live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Gate {
    /// It may, where instances can overlap.
    Open,
    /// It may not: this is a restart.
    AfterTree,
    /// It may not: this is a restart that has not begun, for its workers stay until who depends on them is gone.
    Held,
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
    pub(super) workers: Workers,
    /// A process ran here that the next one replaces.
    pub(super) ran: bool,
    pub(super) restarts: u32,
    /// So many workers in a row were spent soon after their start.
    pub(super) haste: u32,
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
        self.haste = 0;
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
    /// The same, of workers that leave once those that they make room for are ready again: it fails with
    /// the first of these that does.
    Back(Vec<WorkerId>),
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
    pub(super) slots: Slots,
    pub(super) sockets: Sockets,
    pub(super) going: Option<Going>,
    /// Somebody stopped it, or a part, and nobody started it since.
    pub(super) stopped: bool,
    pub(super) heard: Heard,
    /// A spent worker that is being replaced.
    pub(super) renewing: Option<Renewing>,
    /// When workers that have a memory limit are weighed next.
    pub(super) weigh_at: Option<Time>,
    pub(super) handling: Handling,
    pub(super) gauging: Gauging,
    /// The last generation of which a worker was examined.
    pub(super) examined: Generation,
    /// How many exams of which generation came to nothing.
    pub(super) unshown: (Generation, u8),
    pub(super) requests: Vec<Request>,
    /// Whether it may start, as far as what it depends on is concerned.
    pub(super) admission: Admission,
    /// Delete was wished.
    pub(super) doomed: bool,
    /// Nothing is wanted, and nothing lives.
    pub(super) resting: bool,
}

/// The last worker that was told to stop while others serve, and until when the next one waits to see what
/// becomes of its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Going {
    pub(super) worker: WorkerId,
    pub(super) until: Time,
}

impl App {
    pub(super) fn new(id: AppId, definition: Definition) -> App {
        let generation = Generation(1);
        let instances = definition.policy.instances;
        let called = definition.called();
        App {
            id,
            name: definition.name,
            namespace: definition.namespace,
            versions: vec![Version { generation, policy: definition.policy, spec: definition.spec, called }],
            newest: generation,
            good: generation,
            instances,
            mix: Mix::Replace,
            rollout: None,
            queue: None,
            failed: None,
            slots: Slots::default(),
            sockets: Sockets::default(),
            going: None,
            stopped: false,
            heard: Heard::Nothing,
            renewing: None,
            weigh_at: None,
            handling: Handling::Unproven,
            gauging: Gauging::Off,
            examined: Generation::default(),
            unshown: (Generation::default(), 0),
            requests: Vec::new(),
            admission: Admission::Open,
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
        self.slots.find(worker)
    }

    /// Of the new generation of a reload, and not proven, or held at its share: its failure is the reload's.
    pub(super) fn is_candidate(&self, worker: &Worker) -> bool {
        let new = self.rollout.as_ref().is_some_and(|rollout| rollout.to == worker.generation);
        let untested = match worker.phase {
            Phase::Starting { .. } | Phase::Ready { .. } => {
                !worker.is_settled() || self.held_share().is_some()
            }
            Phase::Quitting { early, .. } => early,
            Phase::Draining(_)
            | Phase::Finishing(_)
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed { .. } => false,
        };
        new && untested
    }

    pub(super) fn standings(&self) -> Standings {
        let standing = |worker: &Worker| {
            let standing = match (worker.is_ready(), worker.watch.unwell) {
                (true, false) => Standing::Serving,
                (true, true) => Standing::Ailing,
                (false, _) if worker.is_up() => Standing::Alive,
                (false, _) => Standing::Leaving,
            };
            (!worker.is_headless()).then_some((worker.id, standing))
        };
        self.workers().filter_map(standing).collect()
    }

    /// Where this worker must listen, but does not.
    pub(super) fn missing(&self, slot: &Slot, worker: &Worker) -> Vec<Address> {
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
    pub(super) fn proof(&self, slot: &Slot, worker: &Worker, turn: &Turn<'_>) -> Option<Proof> {
        let Phase::Starting { boot, .. } = worker.phase else { return None };
        let policy = self.policy(worker.generation);
        match policy.ready {
            Readiness::Word | Readiness::Notify | Readiness::Ipc | Readiness::Http(_) => return None,
            Readiness::Exec => return self.is_silent(worker, turn).then_some(Proof::Alive),
            Readiness::Auto if policy.mode == Mode::Fork && !policy.declares_listen => {
                return (boot == Boot::Running).then_some(Proof::Alive);
            }
            Readiness::Auto | Readiness::Listen => {}
        }
        let found = self.sockets.accepted(worker.id);
        if !found.is_empty() {
            let all = self.expected(slot, worker).iter().all(|address| found.contains_key(address));
            return all.then_some(Proof::Listens);
        }
        self.is_silent(worker, turn).then_some(Proof::NoListener)
    }

    fn is_silent(&self, worker: &Worker, turn: &Turn<'_>) -> bool {
        self.silent_at(worker).is_some_and(|at| turn.is_due(at))
    }

    /// When a starting worker that was not heard of counts as one that never listens, or has lived long
    /// enough to count as ready.
    pub(super) fn silent_at(&self, worker: &Worker) -> Option<Time> {
        let Phase::Starting { boot: Boot::Running, .. } = worker.phase else { return None };
        let policy = self.policy(worker.generation);
        match policy.ready {
            Readiness::Word | Readiness::Notify | Readiness::Ipc | Readiness::Listen | Readiness::Http(_) => {
                return None;
            }
            Readiness::Exec => return Some(worker.spawned + policy.min_uptime.min(policy.listen_timeout)),
            Readiness::Auto if policy.declares_listen || policy.mode == Mode::Fork => return None,
            // One that listens, though not yet wherever it should, is not silent, however long it has lived.
            Readiness::Auto if self.sockets.of(worker.id).any(|(_, socket)| socket.accepts) => return None,
            Readiness::Auto => {}
        }
        match self.heard {
            Heard::Nothing => Some(worker.spawned + SILENT.min(policy.listen_timeout)),
            Heard::Silence => Some(worker.spawned + policy.min_uptime.min(policy.listen_timeout)),
            Heard::Listening => None,
        }
    }

    /// The next moment at which this app needs attention.
    pub(super) fn deadline(&self) -> Option<Time> {
        earlier(earlier(self.weigh_at, self.gauging.deadline()), self.slots.due())
    }

    /// The next moment at which this slot does by itself.
    pub(super) fn slot_deadline(&self, slot: &Slot, planted: Planted) -> Option<Time> {
        let hidden = planted.has(Bug::BackoffSleepsForEver);
        let waits = if let Idle::Waiting(until) = slot.idle { (!hidden).then_some(until) } else { None };
        let of = |worker: &Worker| earlier(worker.deadline(), self.silent_at(worker));
        slot.workers.iter().fold(waits, |next, worker| earlier(next, of(worker)))
    }

    /// The requests that were not answered yet.
    pub(super) fn pending(&self) -> Vec<RequestId> {
        let rolling = self.rollout.iter().flat_map(|rollout| rollout.requests.clone());
        let queued = self.queue.iter().flat_map(|queued| queued.requests.clone());
        rolling.chain(queued).chain(self.requests.iter().map(|request| request.id)).collect()
    }
}
