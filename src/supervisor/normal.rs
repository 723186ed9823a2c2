//! Equal futures, equal values: renames ids and shifts times, so that a search over states ends.
//!
//! Used by tests only; it lives here because it must see every field. What is left out is what
//! nothing decides by: names, counts for people, how a process ended.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::{App, End, Idle, Request, Slot, Until};
use super::event::{Generation, RequestId, SlotId, WorkerId};
use super::exam::Exam;
use super::rollout::Rollout;
use super::time::Time;
use super::worker::{Look, Phase, Worker};
use super::{Ids, Life, NORMAL_NOW, Supervisor};

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
        Names {
            workers: apps().flat_map(App::workers).map(|worker| worker.id).zip((1..).map(WorkerId)).collect(),
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
        apps: supervisor.apps.iter().map(|entry| app(entry, &names)).collect(),
        ids: Ids { worker: workers, slot: slots },
        life,
        ..supervisor.clone()
    }
}

fn app(app: &App, names: &Names) -> App {
    let mut used: Vec<Generation> = app.versions.iter().map(|version| version.generation).collect();
    used.sort_unstable();
    let generations: BTreeMap<Generation, Generation> = used.into_iter().zip((2..).map(Generation)).collect();
    // A generation of which only a slot's birth is left was rolled out: it is like any other.
    let generation = |old: Generation| generations.get(&old).copied().unwrap_or(Generation(1));
    let mut normal = app.clone();
    normal.failed = None;
    normal.newest = generations.values().max().copied().unwrap_or_default();
    normal.good = generation(app.good);
    normal.examined = generation(app.examined);
    for version in &mut normal.versions {
        version.generation = generation(version.generation);
    }
    normal.versions.sort_by_key(|version| version.generation);
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
    normal
}

fn request(request: &Request, names: &Names) -> Request {
    let until = match &request.until {
        Until::Ready(slots) => Until::Ready(slots.iter().map(|id| names.slot(*id)).collect()),
        Until::Ended(workers) => Until::Ended(workers.iter().map(|id| names.worker(*id)).collect()),
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
    if let Idle::Waiting(until) = &mut normal.idle {
        *until = names.ahead(*until);
    }
    for worker in &mut normal.workers {
        let policy = app.policy(worker.generation);
        let limit = match worker.phase {
            Phase::Starting { ready_by: None, .. } => policy.min_uptime.max(Duration::from_secs(3)),
            Phase::Starting { ready_by: Some(_), .. } => {
                policy.min_uptime.max(policy.listen_timeout.saturating_mul(10)).max(Duration::from_secs(4))
            }
            Phase::Ready { look_at: Some(_), .. } => Duration::from_secs(30),
            Phase::Ready { .. } => policy.min_uptime,
            Phase::Quitting { .. }
            | Phase::Draining(_)
            | Phase::Finishing(_)
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed => Duration::ZERO,
        };
        worker.id = names.worker(worker.id);
        worker.generation = generation(worker.generation);
        worker.spawned = names.behind(worker.spawned, limit);
        phase(worker, names);
    }
    normal
}

fn phase(worker: &mut Worker, names: &Names) {
    worker.exam = match worker.exam {
        Exam::None => Exam::None,
        Exam::Asked => Exam::Asked,
        Exam::Holding { until } => Exam::Holding { until: names.ahead(until) },
        Exam::Free { since } => Exam::Free { since: names.behind(since, Duration::from_secs(1)) },
    };
    let ahead = |at: &mut Option<Time>| *at = at.map(|at| names.ahead(at));
    match &mut worker.phase {
        Phase::Starting { ready_by, look_at, .. } => {
            ahead(ready_by);
            ahead(look_at);
        }
        Phase::Ready { look_at, soak_until, .. } => {
            ahead(look_at);
            ahead(soak_until);
        }
        Phase::Draining(leaving) | Phase::Finishing(leaving) => {
            leaving.since = names.behind(leaving.since, Duration::from_secs(1));
            leaving.until = names.ahead(leaving.until);
            if let Look::At(at) = &mut leaving.look {
                *at = names.ahead(*at);
            }
        }
        Phase::Quitting { kill_at, .. } | Phase::Stopping { kill_at, .. } | Phase::Leftover { kill_at } => {
            *kill_at = names.ahead(*kill_at);
        }
        Phase::Killed { .. } | Phase::Doomed => {}
    }
}
