//! What people wish of one app. A wish changes wanted facts only, and notes who waits for what.

use super::Bug;
use super::app::{App, Gate, Heard, Idle, Mix, Request, Slot, Turn, Until, Version, Wanted};
use super::backoff::Backoff;
use super::event::{
    Action, Cause, Command, Definition, Fact, Failure, Generation, Outcome, RequestId, Scale, Scope, SlotId,
    WorkerId,
};
use super::order::Admission;
use super::policy::SpecId;
use super::rollout::{Canary, Queued, Rollout, Room, Trial};
use super::slots::Workers;
use super::worker::Worker;

impl App {
    /// A new app starts.
    pub(super) fn begin(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let instances = self.instances;
        let (slots, _) = self.resize(instances, Cause::Stop, turn);
        if !self.policy(self.good).autostart {
            self.release(&slots, Wanted::Rest(Cause::Stop), turn);
            return turn.reply(request, Outcome::Done);
        }
        self.line_up(turn);
        self.requests.push(Request { id: request, until: Until::Ready(slots) });
    }

    /// A name holds from the wish on, and is given up with it.
    pub(super) fn rename(&mut self, command: &Command) {
        let Some(definition) = command.definition() else { return };
        self.name.clone_from(&definition.name);
        self.namespace.clone_from(&definition.namespace);
    }

    /// What was wished last is not what it was, or is given up: the app is called as what is wanted now says.
    pub(super) fn settle_name(&mut self) {
        let queued = self.queue.as_ref().and_then(|queued| queued.definition.as_ref());
        let called = queued.map_or_else(|| self.version(self.target()).called.clone(), Definition::called);
        self.name = called.name;
        self.namespace = called.namespace;
    }

    /// Takes a definition over for the next start. Where something is wanted already, that is a reload.
    pub(super) fn define(&mut self, request: RequestId, definition: Definition, turn: &mut Turn<'_>) {
        if self.slots.iter().any(Slot::is_wanted) || self.is_up() {
            return self.reload(request, Some(definition), turn);
        }
        let instances = definition.policy.instances;
        self.take_over(definition, turn);
        let (added, _) = self.resize(instances, Cause::Scale, turn);
        self.release(&added, Wanted::Rest(Cause::Stop), turn);
        turn.reply(request, Outcome::Done);
    }

    /// Starts what is stopped or errored. What runs stays; a definition is taken over when nothing runs.
    pub(super) fn start(
        &mut self,
        request: RequestId,
        scope: Scope,
        definition: Option<Definition>,
        turn: &mut Turn<'_>,
    ) {
        let Some(slots) = self.scoped(scope, request, turn) else {
            return self.discard_definition(definition, turn);
        };
        let idle = scope == Scope::All && !self.runs() && self.rollout.is_none();
        let asked = definition.as_ref().map(|definition| definition.policy.instances);
        if idle {
            self.failed = None;
        }
        match definition {
            Some(definition) if idle => self.take_over(definition, turn),
            other => self.discard_definition(other, turn),
        }
        let slots = match asked {
            Some(instances) if scope == Scope::All => {
                self.resize(instances, Cause::Scale, turn);
                self.kept()
            }
            Some(_) | None => slots,
        };
        if !self.is_up() {
            self.line_up(turn);
        }
        self.run(&slots);
        self.requests.push(Request { id: request, until: Until::Ready(slots) });
    }

    /// Stops, then starts: each slot as soon as its own tree is empty.
    pub(super) fn restart(
        &mut self,
        request: RequestId,
        scope: Scope,
        definition: Option<Definition>,
        turn: &mut Turn<'_>,
    ) {
        let Some(mut slots) = self.scoped(scope, request, turn) else {
            return self.discard_definition(definition, turn);
        };
        if scope == Scope::All {
            self.restart_with_newest(definition, turn);
            slots = self.kept();
        } else {
            self.discard_definition(definition, turn);
        }
        if scope == Scope::All || !self.is_up() {
            self.line_up(turn);
        }
        self.run(&slots);
        for slot in 0..self.slots.len() {
            if slots.contains(&self.slots[slot].id) && !self.slots[slot].workers.is_empty() {
                let held = turn.held && !turn.has(Bug::RestartsUnordered);
                self.slots[slot].gate = if held { Gate::Held } else { Gate::AfterTree };
                if !held {
                    self.leave_where(slot, Cause::Restart, turn, |_| true);
                }
            }
        }
        if scope == Scope::All {
            // Who leaves serves where the old definition has it.
            self.forget_expectations();
            // And all of what a reload that failed left behind leaves.
            (self.failed, self.mix) = (None, Mix::Replace);
        }
        self.requests.push(Request { id: request, until: Until::Ready(slots) });
    }

    /// A restart wins over a reload, and runs the newest definition that anyone asked for.
    fn restart_with_newest(&mut self, definition: Option<Definition>, turn: &mut Turn<'_>) {
        let queued = self.queue.as_mut().and_then(|queued| queued.definition.take());
        let carried = self.rollout.as_mut().map(|rollout| {
            rollout.instances_before = None;
            rollout.to
        });
        self.end_reloads(turn);
        let newest = match (definition, queued) {
            (Some(definition), queued) => {
                self.discard_definition(queued, turn);
                Some(definition)
            }
            (None, queued) => queued,
        };
        if let Some(definition) = newest {
            let instances = definition.policy.instances;
            self.take_over(definition, turn);
            self.resize(instances, Cause::Scale, turn);
        } else if let Some(generation) = carried {
            self.good = generation;
            self.settle_name();
            self.forget_expectations();
        }
        let instances = self.instances;
        self.resize(instances, Cause::Restart, turn);
    }

    /// Replaces every worker, now or after the reload under way.
    pub(super) fn reload(&mut self, request: RequestId, definition: Option<Definition>, turn: &mut Turn<'_>) {
        if self.held_share().is_some() {
            let definition = self.replace_canary(definition, turn);
            return self.begin_reload(definition, vec![request], turn);
        }
        let turning_back = self.is_turning_back(definition.as_ref());
        if self.rollout.is_none() && self.queue.is_none() && !turning_back {
            return self.begin_reload(definition, vec![request], turn);
        }
        let queued = self.queue.get_or_insert(Queued { definition: None, requests: Vec::new() });
        queued.requests.push(request);
        if turn.has(Bug::CoalescedIsUnanswered) {
            queued.requests.truncate(1);
        }
        if definition.is_some() {
            let older = std::mem::replace(&mut queued.definition, definition);
            self.discard_definition(older, turn);
        }
    }

    /// Begins the reload that waited.
    pub(super) fn begin_queued(&mut self, turn: &mut Turn<'_>) {
        let waits = |queued: &Queued| self.is_turning_back(queued.definition.as_ref());
        if self.queue.as_ref().is_some_and(waits) {
            return;
        }
        if let Some(queued) = self.queue.take() {
            self.begin_reload(queued.definition, queued.requests, turn);
            turn.changed = true;
        }
    }

    /// A reload that nobody asked for: how the last one that was asked for failed stays to be seen.
    pub(super) fn begin_reload_unasked(&mut self, turn: &mut Turn<'_>) {
        let failed = self.failed.take();
        self.begin_reload(None, Vec::new(), turn);
        self.failed = failed;
    }

    pub(super) fn begin_reload(
        &mut self,
        definition: Option<Definition>,
        requests: Vec<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        self.failed = None;
        if !self.runs() {
            self.mix = Mix::Replace;
            return self.reload_as_start(definition, requests, turn);
        }
        let asked = definition.as_ref().map(|definition| definition.policy.instances);
        let to = match definition {
            Some(definition) => self.adopt(definition),
            None => self.adopt_again(),
        };
        // What the supervisor begins by itself brings nothing new that is to be tried first.
        let canary = if asked.is_none() && requests.is_empty() { Canary::None } else { self.canary_of(to) };
        let before = self.instances;
        for slot in self.slots.iter_mut().filter(|slot| slot.is_wanted()) {
            slot.free();
        }
        self.rollout = Some(Rollout {
            to,
            requests,
            began: turn.now,
            done: 0,
            total: 0,
            trial: Trial::Untested,
            room: Room::Free,
            instances_before: Some(before),
            swapping: None,
            canary,
        });
        self.make_room_for(asked.unwrap_or(before), to, turn);
        self.settle_name();
        let total = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        if let Some(rollout) = &mut self.rollout {
            rollout.total = total;
        }
        turn.report(Fact::ReloadStarted { app: self.id, generation: to, total });
        self.ask_for_room(turn);
    }

    /// A reload is to so many instances: those that come are of the new version from the first, and those that go stay
    /// until the others are replaced.
    pub(super) fn make_room_for(&mut self, instances: u32, to: Generation, turn: &mut Turn<'_>) {
        self.instances = instances;
        while self.kept().len() < usize::try_from(instances).unwrap_or(usize::MAX) {
            self.add_slot(to, turn);
        }
    }

    /// With nothing running there is nothing to keep alive: a reload is a start.
    fn reload_as_start(
        &mut self,
        definition: Option<Definition>,
        requests: Vec<RequestId>,
        turn: &mut Turn<'_>,
    ) {
        if let Some(definition) = definition {
            let instances = definition.policy.instances;
            self.take_over(definition, turn);
            self.resize(instances, Cause::Reload, turn);
        }
        let slots = self.kept();
        self.line_up(turn);
        self.run(&slots);
        for id in requests {
            self.requests.push(Request { id, until: Until::Ready(slots.clone()) });
        }
    }

    /// Drains and stops.
    pub(super) fn halt(&mut self, request: RequestId, scope: Scope, turn: &mut Turn<'_>) {
        let Some(mut slots) = self.scoped(scope, request, turn) else { return };
        if scope == Scope::All {
            self.end_reloads(turn);
            slots = self.kept();
        }
        self.stopped = true;
        let workers = self.release(&slots, Wanted::Rest(Cause::Stop), turn);
        self.requests.push(Request { id: request, until: Until::Ended(workers) });
    }

    /// Stops, then forgets.
    pub(super) fn delete(&mut self, request: RequestId, scope: Scope, turn: &mut Turn<'_>) {
        let Some(slots) = self.scoped(scope, request, turn) else { return };
        if scope == Scope::All || self.kept() == slots {
            self.doomed = true;
            self.end_reloads(turn);
            let all = self.kept();
            self.release(&all, Wanted::Remove(Cause::Stop), turn);
            self.requests.push(Request { id: request, until: Until::Deleted });
            return;
        }
        self.instances = self.instances.saturating_sub(1);
        self.scaled();
        let workers = self.release(&slots, Wanted::Remove(Cause::Stop), turn);
        self.requests.push(Request { id: request, until: Until::Ended(workers) });
    }

    /// Changes the number of instances.
    pub(super) fn scale(&mut self, request: RequestId, scale: Scale, turn: &mut Turn<'_>) {
        self.scaled();
        self.scale_to(request, scale.of(self.instances), turn);
    }

    /// So many instances from now on, and an answer when they are there.
    pub(super) fn scale_to(&mut self, request: RequestId, instances: u32, turn: &mut Turn<'_>) {
        let rests = self.rests();
        let (mut added, mut ended) = self.resize(instances, Cause::Scale, turn);
        if rests {
            // The number is noted; what was stopped stays so.
            ended.extend(self.release(&added, Wanted::Rest(Cause::Stop), turn));
            added.clear();
        }
        if !self.is_up() && !added.is_empty() {
            self.line_up(turn);
        }
        let until = if added.is_empty() { Until::Ended(ended) } else { Until::Ready(added) };
        self.requests.push(Request { id: request, until });
    }

    /// All of it is stopped, or about to be: by somebody, and not since its work is done.
    fn rests(&self) -> bool {
        let mut kept = self.slots.iter().filter(|slot| !matches!(slot.wanted, Wanted::Remove(_))).peekable();
        kept.peek().is_some() && kept.all(|slot| slot.wanted == Wanted::Rest(Cause::Stop))
    }

    /// Counts restarts from zero again. Who waits, or gave up, goes on to.
    pub(super) fn reset(&mut self, request: RequestId, scope: Scope, turn: &mut Turn<'_>) {
        let Some(slots) = self.scoped(scope, request, turn) else { return };
        for slot in self.slots.iter_mut().filter(|slot| slots.contains(&slot.id)) {
            slot.restarts = 0;
            slot.backoff.forget_count();
        }
        turn.reply(request, Outcome::Done);
    }

    /// SIGKILL to all that lives.
    pub(super) fn kill_all(&mut self, turn: &mut Turn<'_>) {
        for slot in 0..self.slots.len() {
            for place in 0..self.slots[slot].workers.len() {
                self.kill(slot, place, Cause::Stop, turn);
            }
        }
    }

    /// The supervisor ends: nothing is wanted, and what leaves already is hurried.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>) {
        let Some(end) = turn.end else { return };
        self.end_reloads(turn);
        let all: Vec<SlotId> = self.kept();
        self.release(&all, Wanted::Rest(Cause::Stop), turn);
        for slot in 0..self.slots.len() {
            for place in 0..self.slots[slot].workers.len() {
                let generation = self.slots[slot].workers[place].generation;
                let drained_by = end.drained_by(self.policy(generation));
                self.slots[slot].workers[place].hurry(drained_by, end.killed_by);
            }
        }
    }

    // Slots.

    /// The slots that a wish is about; answers it when there is none.
    fn scoped(&mut self, scope: Scope, request: RequestId, turn: &mut Turn<'_>) -> Option<Vec<SlotId>> {
        let kept = self.kept();
        match scope {
            Scope::All => Some(kept),
            Scope::Slot(slot) if kept.contains(&slot) => Some(vec![slot]),
            Scope::Slot(_) => {
                turn.reply(request, Outcome::Failed(Failure::Unknown));
                None
            }
        }
    }

    /// All but those that are being removed, in the order of instance.
    pub(super) fn kept(&self) -> Vec<SlotId> {
        self.slots
            .iter()
            .filter(|slot| !matches!(slot.wanted, Wanted::Remove(_)))
            .map(|slot| slot.id)
            .collect()
    }

    /// Whether any worker is up.
    pub(super) fn is_up(&self) -> bool {
        self.workers().any(Worker::is_up)
    }

    /// Whether a worker that is to stay is up.
    pub(super) fn runs(&self) -> bool {
        self.slots.iter().any(|slot| slot.is_wanted() && slot.up().next().is_some())
    }

    pub(super) fn run(&mut self, slots: &[SlotId]) {
        self.stopped = false;
        for slot in self.slots.iter_mut().filter(|slot| slots.contains(&slot.id)) {
            slot.wanted = Wanted::Run;
            slot.gate = Gate::Open;
            slot.free();
        }
    }

    /// Slots want no worker any more. Answers the wishes that hoped for one; returns who has to end.
    pub(super) fn release(&mut self, slots: &[SlotId], wanted: Wanted, turn: &mut Turn<'_>) -> Vec<WorkerId> {
        self.answer(Outcome::Failed(Failure::Superseded), turn, |until| match until {
            Until::Ready(awaited) => awaited.iter().any(|slot| slots.contains(slot)),
            Until::Ended(_) | Until::Back(_) | Until::Deleted => false,
        });
        let mut workers = Vec::new();
        for slot in self.slots.iter_mut().filter(|slot| slots.contains(&slot.id)) {
            slot.wanted = wanted;
            slot.free();
            workers.extend(slot.workers.iter().map(|worker| worker.id));
        }
        if !self.slots.iter().any(Slot::is_wanted) {
            self.end_reloads(turn);
            self.admission = Admission::Open;
        }
        workers
    }

    pub(super) fn resize(
        &mut self,
        instances: u32,
        cause: Cause,
        turn: &mut Turn<'_>,
    ) -> (Vec<SlotId>, Vec<WorkerId>) {
        self.instances = instances;
        let wanted = usize::try_from(instances).unwrap_or(usize::MAX);
        let mut added = Vec::new();
        while self.kept().len() < wanted {
            added.push(self.add_slot(self.good, turn));
        }
        let surplus = self.beyond(wanted);
        // Where nobody is let go, nobody ends the reloads: one that waits may be what starts those that are stopped.
        let ended = match surplus.is_empty() {
            true => Vec::new(),
            false => self.release(&surplus, Wanted::Remove(cause), turn),
        };
        (added, ended)
    }

    /// The slots that go where only so many are to stay: those that are stopped first, or the last that serves would go
    /// for one that does not; then the highest numbers.
    fn beyond(&self, wanted: usize) -> Vec<SlotId> {
        let mut kept = self.kept();
        let rests = |id: &SlotId| {
            self.slots.iter().any(|slot| slot.id == *id && matches!(slot.wanted, Wanted::Rest(_)))
        };
        // Stable: among equals the order of instance stays.
        kept.sort_by_key(rests);
        kept.split_off(wanted.min(kept.len()))
    }

    /// The lowest free number: a slot that was being removed comes back, else a new one is made.
    fn add_slot(&mut self, born: Generation, turn: &mut Turn<'_>) -> SlotId {
        let instance = lowest_free(&self.slots);
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.instance == instance) {
            slot.wanted = Wanted::Run;
            slot.born = born;
            slot.free();
            return slot.id;
        }
        let id = turn.ids.slot();
        self.slots.insert(Slot {
            id,
            instance,
            born,
            wanted: Wanted::Run,
            idle: Idle::Free,
            gate: Gate::Open,
            backoff: Backoff::default(),
            served: std::collections::BTreeMap::new(),
            workers: Workers::default(),
            ran: false,
            restarts: 0,
            haste: 0,
            last_exit: None,
        });
        id
    }

    /// Someone set the number of instances: a failed reload must not set it back.
    fn scaled(&mut self) {
        if let Some(rollout) = &mut self.rollout {
            rollout.instances_before = None;
        }
    }

    // Versions.

    /// The next generation, of this definition.
    fn adopt(&mut self, definition: Definition) -> Generation {
        self.newest = Generation(self.newest.0.saturating_add(1));
        let called = definition.called();
        let (policy, spec) = (definition.policy, definition.spec);
        self.versions.push(Version { generation: self.newest, policy, spec, called });
        self.newest
    }

    /// The next generation, of the definition that is known.
    fn adopt_again(&mut self) -> Generation {
        let known = self.version(self.good).clone();
        self.newest = Generation(self.newest.0.saturating_add(1));
        self.versions.push(Version { generation: self.newest, ..known });
        self.newest
    }

    /// A definition becomes the good one without a trial.
    fn take_over(&mut self, definition: Definition, turn: &mut Turn<'_>) {
        let known = self.version(self.good);
        if known.policy == definition.policy && known.spec == definition.spec {
            return;
        }
        self.good = self.adopt(definition);
        self.settle_name();
        self.mix = Mix::Replace;
        self.forget_expectations();
        self.forget(turn);
    }

    /// A generation that was not rolled out may listen elsewhere than the last.
    pub(super) fn forget_expectations(&mut self) {
        self.hear(Heard::Nothing);
        for slot in &mut self.slots {
            slot.served.clear();
        }
    }

    fn discard_definition(&mut self, definition: Option<Definition>, turn: &mut Turn<'_>) {
        if let Some(definition) = definition {
            self.discard(definition.spec, turn);
        }
    }

    /// Tells the shell to forget what nobody refers to.
    pub(super) fn discard(&mut self, spec: SpecId, turn: &mut Turn<'_>) {
        if !self.uses(spec) {
            turn.out.push(Action::Forget { spec });
        }
    }

    /// Whether a generation, or a reload that waits, refers to this spec.
    pub(super) fn uses(&self, spec: SpecId) -> bool {
        let queued = self.queue.as_ref().and_then(|queued| queued.definition.as_ref());
        self.versions.iter().any(|version| version.spec == spec)
            || queued.is_some_and(|definition| definition.spec == spec)
    }

    /// The reload under way and those that wait end unfinished.
    fn end_reloads(&mut self, turn: &mut Turn<'_>) {
        if let Some(rollout) = self.rollout.take() {
            if let Some(instances) = rollout.instances_before {
                self.go_back_to(instances, rollout.to, turn);
            }
            self.supersede(rollout.requests, turn);
        }
        if let Some(queued) = self.queue.take() {
            self.discard_definition(queued.definition, turn);
            self.supersede(queued.requests, turn);
        }
        self.settle_name();
    }

    /// As many slots as before the reload to `from`: those that came with it go, and where it had made do with fewer
    /// there are more, which rest as all that the wish stops does.
    fn go_back_to(&mut self, instances: u32, from: Generation, turn: &mut Turn<'_>) {
        let came = |slot: &&Slot| slot.born == from && !matches!(slot.wanted, Wanted::Remove(_));
        let came: Vec<SlotId> = self.slots.iter().filter(came).map(|slot| slot.id).collect();
        self.release(&came, Wanted::Remove(Cause::Reload), turn);
        let (added, _) = self.resize(instances, Cause::Reload, turn);
        self.release(&added, Wanted::Rest(Cause::Stop), turn);
    }

    fn supersede(&mut self, requests: Vec<RequestId>, turn: &mut Turn<'_>) {
        for request in requests {
            turn.reply(request, Outcome::Failed(Failure::Superseded));
        }
    }
}

/// The lowest number that no slot has which stays: they lie in the order of their numbers, and no two have one.
fn lowest_free(slots: &[Slot]) -> u32 {
    let stays = |slot: &Slot| !matches!(slot.wanted, Wanted::Remove(_));
    let mut free = 0;
    for slot in slots.iter().take_while(|slot| stays(slot)) {
        if slot.instance != free {
            break;
        }
        free += 1;
    }
    free
}
