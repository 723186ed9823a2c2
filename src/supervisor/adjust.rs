//! A new definition that changes nothing about the workers that run: they stay, and are judged by it from now on.

use super::Bug;
use super::app::{App, Idle, Mix, Slot, Turn};
use super::event::{Definition, RequestId, Scale};

impl App {
    /// Takes such a definition over, and its number of instances. Where workers would have to be replaced for it, or
    /// are being replaced, it is a reload.
    pub(super) fn adjust(&mut self, request: RequestId, definition: Definition, turn: &mut Turn<'_>) {
        let settled = self.rollout.is_none() && self.queue.is_none() && self.mix == Mix::Replace;
        let old = self.policy(self.good);
        let apart = settled && self.runs() && old.goes_on_as(&definition.policy);
        if !apart || turn.has(Bug::AdjustReplaces) {
            return self.reload(request, Some(definition), turn);
        }
        let aged = old.max_age != definition.policy.max_age;
        let instances = definition.policy.instances;
        let good = self.good;
        let Some(version) = self.versions.iter_mut().find(|version| version.generation == good) else {
            return;
        };
        let spec = std::mem::replace(&mut version.spec, definition.spec);
        version.policy = definition.policy;
        self.discard(spec, turn);
        if aged {
            self.set_ages(turn);
        }
        self.weigh_at = None;
        for slot in self.slots.iter_mut().filter(|slot| slot.is_wanted() && slot.idle == Idle::Errored) {
            Slot::free(slot);
        }
        self.scale(request, Scale::To(instances), turn);
    }

    /// `max_age` counts from each worker's start.
    fn set_ages(&mut self, turn: &mut Turn<'_>) {
        let (good, age) = (self.good, self.policy(self.good).max_age);
        for worker in self.slots.iter_mut().flat_map(|slot| &mut slot.workers) {
            if worker.generation == good && worker.is_up() && !worker.is_queued() && worker.spent.is_none() {
                worker.expires = age.map(|age| worker.spawned + turn.jitter.shorten(age));
            }
        }
    }
}
