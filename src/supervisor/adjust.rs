//! A new definition that changes nothing about the workers that run: they stay, and are judged by it from now on.

use super::Bug;
use super::app::{App, Idle, Slot, Turn};
use super::event::{Definition, Generation, Outcome, RequestId, Scale};
use super::policy::SpecId;
use super::view::{Course, Reloading};

impl App {
    /// Where it is on its way to: what the reload that waits has, or the one under way, or what runs.
    pub(super) fn course(&self) -> Course {
        let reloading = match (&self.queue, self.held_share()) {
            (None, Some(percent)) if self.is_held_at_share() => Some(Reloading::Held { percent }),
            (None, _) if self.rollout.is_none() => None,
            (Some(_) | None, _) => Some(Reloading::Going),
        };
        match self.queue.as_ref().and_then(|queued| queued.definition.as_ref()) {
            Some(next) => Course { spec: next.spec, instances: next.policy.instances, reloading },
            None => Course { spec: self.version(self.target()).spec, instances: self.instances, reloading },
        }
    }

    /// Takes such a definition over, and its number of instances. A reload under way goes on with it, and one that is
    /// held stays held. Where workers would have to be replaced for it, or are going to be, it is a reload.
    pub(super) fn adjust(
        &mut self,
        request: RequestId,
        definition: Definition,
        known: SpecId,
        turn: &mut Turn<'_>,
    ) {
        let target = self.target();
        // The reload that it was compared with may have failed meanwhile: what runs is not that version.
        let goes_on =
            self.policy(target).goes_on_as(&definition.policy) && self.version(target).spec == known;
        let ends = self.held_share().is_some() && turn.has(Bug::AdjustEndsTheHeld);
        if !goes_on || self.queue.is_some() || !self.runs() || ends || turn.has(Bug::AdjustReplaces) {
            return self.reload(request, Some(definition), turn);
        }
        let aged = self.policy(target).max_age != definition.policy.max_age;
        let instances = definition.policy.instances;
        let Some(version) = self.versions.iter_mut().find(|version| version.generation == target) else {
            return;
        };
        let spec = std::mem::replace(&mut version.spec, definition.spec);
        version.policy = definition.policy;
        self.discard(spec, turn);
        if aged {
            self.set_ages(target, turn);
        }
        self.weigh_at = None;
        for slot in self.slots.iter_mut().filter(|slot| slot.is_wanted() && slot.idle == Idle::Errored) {
            Slot::free(slot);
        }
        self.go_on_with(request, instances, turn);
    }

    /// So many instances, and an answer when they are there: where a reload is under way, with its end.
    fn go_on_with(&mut self, request: RequestId, instances: u32, turn: &mut Turn<'_>) {
        let held = self.is_held_at_share();
        match &mut self.rollout {
            Some(rollout) if !held => {
                rollout.requests.push(request);
                if self.instances != instances {
                    // It goes with the version that it came with: those that are there stay until that is through.
                    rollout.instances_before.get_or_insert(self.instances);
                    let to = rollout.to;
                    self.make_room_for(instances, to, turn);
                }
            }
            // Who takes the reload back takes the number of instances back that came with it.
            Some(_) if self.instances == instances => turn.reply(request, Outcome::Done),
            Some(rollout) => {
                rollout.instances_before.get_or_insert(self.instances);
                self.scale_to(request, instances, turn);
            }
            None => self.scale(request, Scale::To(instances), turn),
        }
    }

    /// `max_age` counts from each worker's start.
    fn set_ages(&mut self, of: Generation, turn: &mut Turn<'_>) {
        let age = self.policy(of).max_age;
        for worker in self.slots.iter_mut().flat_map(|slot| &mut slot.workers) {
            if worker.generation == of && worker.is_up() && !worker.is_queued() && worker.spent.is_none() {
                worker.expires = age.map(|age| worker.spawned + turn.jitter.shorten(age));
            }
        }
    }
}
