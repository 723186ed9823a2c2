//! Equal futures, equal values: renames ids and shifts times, so that a search over states ends.
//!
//! Used by tests only; it lives here because it must see every field. What is left out is what
//! nothing decides by: names, counts for people, how a process ended or why it left, how old a worker
//! is beyond the last limit that it can still meet, in which order those on their way out began, and
//! which of several generations that nobody wants a process is of.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::{
    App, EXTENSIONS, End, Going, INSPECTED, Idle, Request, SILENT, Slot, Until, Version, Wanted,
};
use super::balance::Gauging;
use super::event::{Cause, Generation, Proof, RequestId, SlotId, Traffic, WorkerId};
use super::exam::{Exam, Handling};
use super::order::{Admission, Told};
use super::policy::Policy;
use super::renew::{Renewing, SOON};
use super::rollout::Rollout;
use super::time::Time;
use super::watch::Watch;
use super::worker::{Boot, Cleared, Leaving, Look, Patience, Phase, Retiring, Worker};
use super::{Ids, Life, NORMAL_NOW, Planted, Supervisor};

/// Stands for every cause of who leaves already: none is decided by.
const ANY_CAUSE: Cause = Cause::Stop;

/// How a worker that is to leave does so: only who does nothing is not waited for.
fn to_come(cause: Cause) -> Cause {
    if cause == Cause::Hung { cause } else { ANY_CAUSE }
}

/// The smallest names for everything that has one, and where time stands.
struct Names {
    workers: BTreeMap<WorkerId, WorkerId>,
    slots: BTreeMap<SlotId, SlotId>,
    requests: BTreeMap<RequestId, RequestId>,
    now: Time,
}

impl Names {
    fn of(supervisor: &Supervisor, now: Time) -> Names {
        let apps = || supervisor.apps.iter();
        let slots = apps().flat_map(|app| &app.slots);
        let workers = apps().flat_map(|app| &app.slots).flat_map(ordered);
        Names {
            workers: workers.map(|worker| worker.id).zip((1..).map(WorkerId)).collect(),
            slots: slots.map(|slot| slot.id).zip((0..).map(SlotId)).collect(),
            requests: supervisor.pending().into_iter().zip((1..).map(RequestId)).collect(),
            now,
        }
    }

    fn worker(&self, id: WorkerId) -> WorkerId {
        self.workers.get(&id).copied().unwrap_or(WorkerId(0))
    }

    fn slot(&self, id: SlotId) -> SlotId {
        self.slots.get(&id).copied().unwrap_or(SlotId(u32::MAX))
    }

    fn request(&self, id: RequestId) -> RequestId {
        self.requests.get(&id).copied().unwrap_or(RequestId(0))
    }

    /// A moment that lies ahead keeps its distance; one that has come is now.
    fn ahead(&self, at: Time) -> Time {
        NORMAL_NOW + (at - self.now)
    }

    /// A moment behind keeps its distance up to `limit`, beyond which nothing differs.
    fn behind(&self, at: Time, limit: Duration) -> Time {
        let ago = (self.now - at).min(limit).min(NORMAL_NOW.since_start());
        Time::from_start(NORMAL_NOW.since_start() - ago)
    }
}

pub(super) fn normalized(supervisor: &Supervisor, now: Time) -> Supervisor {
    let names = Names::of(supervisor, now);
    let requests = |ids: &[RequestId]| ids.iter().map(|id| names.request(*id)).collect();
    let end = |end: &End| End {
        within: end.within,
        began: names.behind(end.began, end.within),
        killed_by: names.ahead(end.killed_by),
    };
    let life = match &supervisor.life {
        Life::Running => Life::Running,
        Life::Over => Life::Over,
        Life::Ending { code, requests: ids, end: bounds } => {
            Life::Ending { code: *code, requests: requests(ids), end: end(bounds) }
        }
        Life::Killing { code, requests: ids, end: bounds, until } => Life::Killing {
            code: *code,
            requests: requests(ids),
            end: end(bounds),
            until: names.ahead(*until),
        },
    };
    let workers = u64::try_from(names.workers.len()).unwrap_or(u64::MAX);
    let slots = u32::try_from(names.slots.len()).unwrap_or(u32::MAX);
    Supervisor {
        apps: supervisor.apps.iter().map(|entry| app(entry, &names, supervisor.planted)).collect(),
        ids: Ids { worker: workers, slot: slots },
        life,
        heard: NORMAL_NOW,
        ..supervisor.clone()
    }
}

/// A slot's workers: those on their way out first, by how far they came; the others as they began.
fn ordered(slot: &Slot) -> Vec<&Worker> {
    let mut workers: Vec<&Worker> = slot.workers.iter().collect();
    workers.sort_by_key(|worker| {
        let leaves = (worker.stage(), worker.generation, worker.deadline());
        (worker.is_up(), (!worker.is_up()).then_some(leaves))
    });
    workers
}

/// The smallest names for the generations in use; those that are not wanted and of one kind share one.
/// A generation of which only a slot's birth is left was rolled out: it is like any other, 1.
fn generations(app: &App) -> BTreeMap<Generation, Generation> {
    let wanted = [app.good, app.target()];
    let mut kinds: Vec<&Version> = Vec::new();
    let mut places = BTreeMap::new();
    for version in app.versions.iter().filter(|version| !wanted.contains(&version.generation)) {
        let known = |version: &Version| {
            let generation = version.generation;
            let unshown = if app.unshown.0 == generation { app.unshown.1 } else { 0 };
            (app.examined == generation, unshown, app.handling == Handling::Finishes(generation))
        };
        let alike = |kind: &&Version| {
            kind.policy == version.policy && kind.spec == version.spec && known(kind) == known(version)
        };
        let place = kinds.iter().position(alike).unwrap_or(kinds.len());
        if place == kinds.len() {
            kinds.push(version);
        }
        places.insert(version.generation, place);
    }
    places.insert(app.good, kinds.len());
    places.entry(app.target()).or_insert(kinds.len() + 1);
    let name = |place: usize| Generation(u32::try_from(place).unwrap_or(u32::MAX).saturating_add(2));
    places.into_iter().map(|(generation, place)| (generation, name(place))).collect()
}

/// Who was told to stop matters as long as others wait for it.
fn going(app: &App, names: &Names) -> Option<Going> {
    let going = app.going.filter(|_| app.is_another_going(names.now))?;
    Some(Going { worker: names.worker(going.worker), until: names.ahead(going.until) })
}

fn gauging(gauging: Gauging, names: &Names) -> Gauging {
    match gauging {
        Gauging::At { at, calm } => Gauging::At { at: names.ahead(at), calm },
        Gauging::Off | Gauging::Awaited { .. } => gauging,
    }
}

fn app(app: &App, names: &Names, planted: Planted) -> App {
    let generations = generations(app);
    let generation = |old: Generation| generations.get(&old).copied().unwrap_or(Generation(1));
    let mut normal = app.clone();
    normal.failed = None;
    if app.admission == (Admission::Waiting { told: Told::Nothing }) {
        normal.admission = Admission::Waiting { told: Told::Waits };
    }
    normal.newest = generations.values().max().copied().unwrap_or_default();
    normal.good = generation(app.good);
    normal.examined = generation(app.examined);
    normal.unshown = (generation(app.unshown.0), app.unshown.1);
    normal.going = going(app, names);
    // It matters to schedules alone, and only while nothing was ever asked for.
    normal.stopped = app.stopped && app.is_dormant();
    normal.gauging = gauging(app.gauging, names);
    normal.handling = match app.handling {
        Handling::Unproven => Handling::Unproven,
        Handling::Finishes(shown) => Handling::Finishes(generation(shown)),
    };
    for version in &mut normal.versions {
        version.generation = generation(version.generation);
    }
    normal.versions.sort_by_key(|version| version.generation);
    normal.versions.dedup_by_key(|version| version.generation);
    if let Some(rollout) = &mut normal.rollout {
        *rollout = Rollout {
            to: generation(rollout.to),
            requests: rollout.requests.iter().map(|id| names.request(*id)).collect(),
            began: Time::START,
            done: 0,
            total: 0,
            swapping: rollout.swapping.map(|id| names.slot(id)),
            ..rollout.clone()
        };
    }
    if let Some(queued) = &mut normal.queue {
        queued.requests = queued.requests.iter().map(|id| names.request(*id)).collect();
    }
    normal.renewing = app.renewing.map(|renewing| Renewing {
        slot: names.slot(renewing.slot),
        worker: names.worker(renewing.worker),
        like: generation(renewing.like),
        way: renewing.way,
    });
    normal.weigh_at = app.weigh_at.map(|at| names.ahead(at));
    normal.requests = app.requests.iter().map(|entry| request(entry, names)).collect();
    let to = app.rollout.as_ref().map(|rollout| rollout.to);
    normal.slots = app
        .slots
        .iter()
        .map(|entry| {
            let born = if Some(entry.born) == to { generation(entry.born) } else { Generation(1) };
            Slot { born, ..slot(app, entry, names, &generation) }
        })
        .collect();
    normal.sockets = app.sockets.relabelled(&|id| names.worker(id), &|id| names.slot(id));
    normal.end_turn(planted);
    normal
}

fn request(request: &Request, names: &Names) -> Request {
    let until = match &request.until {
        Until::Ready(slots) => Until::Ready(slots.iter().map(|id| names.slot(*id)).collect()),
        Until::Ended(workers) => Until::Ended(workers.iter().map(|id| names.worker(*id)).collect()),
        Until::Back(workers) => Until::Back(workers.iter().map(|id| names.worker(*id)).collect()),
        Until::Deleted => Until::Deleted,
    };
    Request { id: names.request(request.id), until }
}

fn slot(app: &App, slot: &Slot, names: &Names, generation: &impl Fn(Generation) -> Generation) -> Slot {
    let mut normal = slot.clone();
    normal.id = names.slot(slot.id);
    normal.ran = false;
    normal.restarts = 0;
    normal.last_exit = None;
    // A schedule tells who ended by itself from who was stopped.
    if let Wanted::Rest(cause) | Wanted::Remove(cause) = &mut normal.wanted
        && *cause != Cause::Exit
    {
        *cause = ANY_CAUSE;
    }
    if let Idle::Waiting(until) = &mut normal.idle {
        *until = names.ahead(*until);
    }
    let worker = |worker: &Worker| Worker {
        id: names.worker(worker.id),
        generation: generation(worker.generation),
        spawned: names.behind(worker.spawned, memory(worker, app.policy(worker.generation))),
        phase: phase(worker, names),
        exam: exam(worker.exam, names),
        expires: worker.expires.filter(|_| worker.is_up()).map(|at| names.ahead(at)),
        cleared: worker
            .cleared
            .filter(|cleared| cleared.until > names.now && worker.is_ready())
            .map(|cleared| Cleared { until: names.ahead(cleared.until), ..cleared }),
        spent: worker.spent.filter(|_| worker.is_up()).map(|spent| Retiring {
            cause: to_come(spent.cause),
            after: spent.after.map(|at| names.ahead(at)),
        }),
        foretold: None,
        ended: worker.ended.map(|at| names.behind(at, memory(worker, app.policy(worker.generation)))),
        watch: watch(worker, app.policy(worker.generation), names),
    };
    normal.workers = ordered(slot).into_iter().map(worker).collect();
    normal
}

/// The age beyond which nothing depends on a worker's age any more.
fn memory(worker: &Worker, policy: &Policy) -> Duration {
    let inspected = if worker.looked_at().is_some() { INSPECTED } else { Duration::ZERO };
    let watched = policy.health.is_some() || policy.watchdog.is_some() || policy.hang_timeout.is_some();
    let renewed = policy.max_memory_restart.is_some() || policy.max_age.is_some() || watched;
    let young = if renewed { SOON } else { Duration::ZERO };
    let stable = policy.min_uptime.max(inspected).max(young);
    match worker.phase {
        Phase::Starting { boot: Boot::Queued, .. } => Duration::ZERO,
        Phase::Starting { ready_by: None, .. } => stable.max(SILENT.min(policy.listen_timeout)),
        Phase::Starting { ready_by: Some(_), .. } => {
            stable.max(policy.listen_timeout.saturating_mul(EXTENSIONS))
        }
        Phase::Ready { .. } => stable,
        Phase::Quitting { .. }
        | Phase::Draining(_)
        | Phase::Finishing(_)
        | Phase::Stopping { .. }
        | Phase::Killed { .. }
        | Phase::Leftover { .. }
        | Phase::Doomed { .. } => Duration::ZERO,
    }
}

fn phase(worker: &Worker, names: &Names) -> Phase {
    let ahead = |at: &Option<Time>| at.map(|at| names.ahead(at));
    let waited = |patience: Patience| match patience {
        Patience::Until(at) => Patience::Until(names.ahead(at)),
        Patience::Over => Patience::Over,
    };
    match &worker.phase {
        Phase::Starting { boot, ready_by, look_at } => {
            Phase::Starting { boot: *boot, ready_by: ahead(ready_by), look_at: ahead(look_at) }
        }
        Phase::Ready { look_at, soak_until, .. } => {
            Phase::Ready { proof: Proof::Said, look_at: ahead(look_at), soak_until: ahead(soak_until) }
        }
        Phase::Quitting { early, kill_at } => {
            Phase::Quitting { early: *early, kill_at: names.ahead(*kill_at) }
        }
        Phase::Draining(leaving) => Phase::Draining(on_its_way(leaving, names)),
        Phase::Finishing(leaving) => Phase::Finishing(on_its_way(leaving, names)),
        Phase::Stopping { kill_at, told, .. } => {
            Phase::Stopping { cause: ANY_CAUSE, kill_at: names.ahead(*kill_at), told: *told }
        }
        Phase::Killed { patience, .. } => Phase::Killed { cause: ANY_CAUSE, patience: waited(*patience) },
        Phase::Leftover { kill_at, told } => Phase::Leftover { kill_at: names.ahead(*kill_at), told: *told },
        Phase::Doomed { patience } => Phase::Doomed { patience: waited(*patience) },
    }
}

/// How late in its time a worker is decides only which of its connections may be ended.
fn on_its_way(leaving: &Leaving, names: &Names) -> Leaving {
    Leaving {
        cause: ANY_CAUSE,
        since: names.behind(leaving.since, Duration::from_secs(1)),
        until: names.ahead(leaving.until),
        look: if let Look::At(at) = leaving.look { Look::At(names.ahead(at)) } else { Look::Awaited },
        calm: leaving.calm,
        stale: leaving.stale,
        seen: Traffic::default(),
    }
}

/// Of a worker that leaves nothing is asked any more.
fn watch(worker: &Worker, policy: &Policy, names: &Names) -> Watch {
    let limit = policy.hang_timeout.unwrap_or_default();
    let watch = worker.watch.normalized(&|at| names.ahead(at), &|at| names.behind(at, limit));
    if worker.is_up() { watch } else { Watch::default() }
}

fn exam(exam: Exam, names: &Names) -> Exam {
    match exam {
        Exam::None => Exam::None,
        Exam::Asked => Exam::Asked,
        Exam::Holding { until } => Exam::Holding { until: names.ahead(until) },
        Exam::Free { since } => Exam::Free { since: names.behind(since, Duration::from_secs(1)) },
    }
}
