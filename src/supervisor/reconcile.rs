//! From wanted and actual state to the next steps of one app.
//!
//! Each step is a query over facts: nothing here remembers where a script had come to, so a scale, a
//! crash or a second reload in the middle of a first needs no code of its own.

use std::collections::BTreeMap;

use super::app::{App, Gate, Idle, Mix, Slot, Turn, Until, Wanted};
use super::event::{Action, Cause, Fact, Failure, Generation, Outcome, SlotId, SocketId, WorkerId};
use super::exam::Exam;
use super::group::{Holder, Terms};
use super::policy::{Balance, Mode};
use super::rollout::{Pace, Room, Trial};
use super::slots::{Counts, Note};
use super::watch::Watch;
use super::worker::{Boot, Phase, Worker};
use super::{Bug, Planted};

impl App {
    /// Takes every step that follows from the facts, then tells the sockets and the askers.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        self.slots.wake(turn.heard);
        loop {
            self.look_around(turn);
            let touched = self.slots.touched_count();
            turn.changed = false;
            self.tick(turn);
            self.move_on(turn);
            self.rest_ended(turn);
            self.drop_empty_slots(turn);
            self.conclude(turn);
            self.hold_canary(turn);
            self.dismiss(turn);
            self.retire(turn);
            self.swap(turn);
            self.fill(turn);
            self.roll(turn);
            self.renew(turn);
            if !turn.changed && self.slots.touched_count() == touched {
                break;
            }
        }
        self.note_touched(turn.planted);
        self.gauge(turn);
        self.serve(turn);
        self.look(turn);
        self.weigh(turn);
        self.ask(turn);
        self.answer_done(turn);
        self.answer_unkillable(turn);
        self.rest(turn);
        self.forget(turn);
        self.end_turn(turn.planted);
    }

    /// A step of one slot may depend on what others do: then all are looked at. Where this is calm each depends
    /// on itself alone, and a turn looks at those that were touched.
    pub(super) fn look_around(&mut self, turn: &Turn<'_>) {
        let reloads = self.rollout.is_some() || self.queue.is_some() || self.mix == Mix::Keep;
        let full = self.slots.population() >= self.limit();
        let replaces = reloads || self.renewing.is_some() || self.slots.counts().mixed > 0;
        if replaces || full || self.is_waiting() || turn.held {
            self.slots.touch_all();
        }
    }

    /// What follows from the slots that were touched.
    fn note_touched(&mut self, planted: Planted) {
        for slot in self.slots.touched_places() {
            let note = self.note(&self.slots[slot], planted);
            self.slots.note(slot, note);
        }
    }

    /// Nothing is left to be looked at.
    pub(super) fn end_turn(&mut self, planted: Planted) {
        self.note_touched(planted);
        self.slots.end_turn();
    }

    /// What follows from this slot.
    pub(super) fn note(&self, slot: &Slot, planted: Planted) -> Note {
        let count = |counts: &dyn Fn(&&Worker) -> bool| slot.workers.iter().filter(counts).count();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let lingers = if slot.is_wanted() {
            slot.gate == Gate::Held
        } else {
            slot.workers.iter().any(Worker::is_to_be_told)
        };
        let counts = Counts {
            weighable: small(count(&|worker| self.memory_limit(worker).is_some())),
            unkillable: small(count(&|worker| worker.is_unkillable())),
            mixed: u32::from(self.has_other_up(slot)),
            lingering: u32::from(lingers),
        };
        Note { due: self.slot_deadline(slot, planted), counts }
    }

    // Queries.

    /// Slots beyond the wanted number: a reload to fewer instances keeps them until the others are
    /// replaced.
    fn surplus(&self) -> Vec<SlotId> {
        let wanted = usize::try_from(self.instances).unwrap_or(usize::MAX);
        if self.slots.len() <= wanted {
            return Vec::new();
        }
        let kept = self.slots.iter().filter(|slot| !matches!(slot.wanted, Wanted::Remove(_)));
        kept.skip(wanted).map(|slot| slot.id).collect()
    }

    fn pace(&self) -> Pace {
        let target = self.target();
        let mut pace = Pace::default();
        for worker in self.workers().filter(|worker| worker.generation == target) {
            match worker.phase {
                Phase::Starting { .. } => pace.starting += 1,
                Phase::Ready { soak_until: Some(_), .. } | Phase::Quitting { early: true, .. } => {
                    pace.soaking += 1;
                }
                Phase::Ready { soak_until: None, .. }
                | Phase::Quitting { early: false, .. }
                | Phase::Draining(_)
                | Phase::Finishing(_)
                | Phase::Stopping { .. }
                | Phase::Killed { .. }
                | Phase::Leftover { .. }
                | Phase::Doomed { .. } => {}
            }
        }
        pace
    }

    pub(super) fn overlaps(&self, slot: &Slot, generation: Generation) -> bool {
        let cluster = |generation| self.policy(generation).mode == Mode::Cluster;
        cluster(generation) && slot.workers.iter().all(|worker| cluster(worker.generation))
    }

    /// Whether a worker of this generation has a place in this slot now.
    pub(super) fn is_vacant(&self, slot: &Slot, generation: Generation) -> bool {
        slot.workers.is_empty() || (slot.gate == Gate::Open && self.overlaps(slot, generation))
    }

    /// So many workers of the app may live at a time, those on their way out among them.
    pub(super) fn limit(&self) -> usize {
        let surge = usize::try_from(self.policy(self.target()).max_surge).unwrap_or(usize::MAX);
        (2 * self.slots.len()).saturating_add(surge)
    }

    /// Whether one more worker may live. Where not, the oldest drain ends early, unless a worker is
    /// ending anyway: connections that never close must not hold up for `drain_timeout` who is wanted.
    pub(super) fn finds_room(&mut self, turn: &mut Turn<'_>) -> bool {
        let limit = self.limit();
        if self.slots.population() < limit || turn.has(Bug::NoCap) {
            return true;
        }
        let ending = self.workers().any(|worker| worker.is_ending() && !worker.is_unkillable());
        if !ending && !turn.has(Bug::DrainsKeepRoom) {
            self.cut_oldest_drain(u32::try_from(limit).unwrap_or(u32::MAX), turn);
        }
        false
    }

    pub(super) fn has_target_up(&self, slot: &Slot) -> bool {
        let target = self.target();
        let pending = |worker: &Worker| {
            worker.is_up() || matches!(worker.phase, Phase::Quitting { .. }) && self.is_candidate(worker)
        };
        slot.workers.iter().any(|worker| worker.generation == target && pending(worker))
    }

    pub(super) fn has_target_settled(&self, slot: &Slot) -> bool {
        let target = self.target();
        slot.workers.iter().any(|worker| worker.generation == target && worker.is_settled())
    }

    fn has_other_up(&self, slot: &Slot) -> bool {
        let target = self.target();
        slot.up().any(|worker| worker.generation != target)
    }

    /// Whether the host has room for one more worker beside those that live. One at a time may always
    /// come when nobody is on the way in or out: whatever became of the others, the reload must not stop.
    fn fits_beside(&self, turn: &Turn<'_>) -> bool {
        match self.rollout.as_ref().map_or(Room::Free, |rollout| rollout.room) {
            Room::Unknown => turn.has(Bug::ReloadsUnmeasured),
            Room::Free => true,
            Room::UpTo(limit) => {
                let calm = || self.pace().is_still() && self.workers().all(Worker::stays);
                self.slots.population() < limit || calm()
            }
        }
    }

    // Steps.

    fn drop_empty_slots(&mut self, turn: &mut Turn<'_>) {
        for slot in self.slots.touched_places() {
            // Beside who was to go, one of a reload that is held may stay.
            let (empty, up) = {
                let slot = &self.slots[slot];
                (slot.workers.is_empty(), slot.gate != Gate::Held && slot.workers.iter().all(Worker::is_up))
            };
            if empty || up {
                self.slots[slot].gate = Gate::Open;
            }
        }
        let empty = |slot: &Slot| matches!(slot.wanted, Wanted::Remove(_)) && slot.workers.is_empty();
        turn.changed |= self.slots.drop_where(empty);
    }

    /// How far the reload under way is, whether it is over, and whether the next one begins.
    fn conclude(&mut self, turn: &mut Turn<'_>) {
        if self.rollout.is_none() {
            return self.begin_queued(turn);
        }
        let surplus = self.surplus();
        let (remaining, replaced) = self.remaining(&surplus);
        let app = self.id;
        let Some(rollout) = self.rollout.as_mut().filter(|rollout| rollout.canary.share().is_none()) else {
            return;
        };
        if rollout.advance(remaining) {
            turn.report(Fact::ReloadProgress { app, done: rollout.done, total: rollout.total });
        }
        if remaining == 0 {
            let (generation, took) = (rollout.to, turn.now - rollout.began);
            let requests = std::mem::take(&mut rollout.requests);
            self.rollout = None;
            self.good = generation;
            turn.report(Fact::ReloadDone { app, generation, took });
            for request in requests {
                turn.reply(request, Outcome::Done);
            }
            turn.changed = true;
        } else if replaced && !surplus.is_empty() {
            for slot in self.slots.iter_mut().filter(|slot| surplus.contains(&slot.id)) {
                slot.wanted = Wanted::Remove(Cause::Reload);
            }
            turn.changed = true;
        }
    }

    /// Slots that are not yet what the reload wants, and whether all but the surplus are served by
    /// the new generation.
    fn remaining(&self, surplus: &[SlotId]) -> (u32, bool) {
        let target = self.target();
        let (mut remaining, mut replaced) = (0, true);
        for slot in &self.slots {
            // Who never ends is not waited for.
            let ending = |worker: &&Worker| !worker.is_unkillable();
            let old = slot.workers.iter().filter(ending).any(|worker| worker.generation != target);
            let finished = match slot.wanted {
                Wanted::Run if surplus.contains(&slot.id) => false,
                Wanted::Run => {
                    replaced &= self.has_target_settled(slot);
                    self.has_target_settled(slot) && !old
                }
                Wanted::Rest(_) => !old && !surplus.contains(&slot.id),
                Wanted::Remove(_) => slot.workers.iter().all(Worker::is_unkillable),
            };
            remaining += u32::from(!finished);
        }
        (remaining, replaced)
    }

    /// Workers of slots that want none leave, and those of a restart that waited.
    fn dismiss(&mut self, turn: &mut Turn<'_>) {
        if turn.held {
            return;
        }
        self.begin_restart(turn);
        for slot in self.slots.touched_places() {
            let cause = match self.slots[slot].wanted {
                Wanted::Run => continue,
                Wanted::Rest(cause) | Wanted::Remove(cause) => cause,
            };
            let spared = turn.has(Bug::StopSparesStarting);
            self.leave_where(slot, cause, turn, |worker| !spared || !worker.is_starting());
        }
    }

    /// A predecessor leaves once its successor was ready for `min_healthy_time`: the step that cannot
    /// be taken back, so it comes last.
    fn retire(&mut self, turn: &mut Turn<'_>) {
        if self.rollout.is_none() && self.mix == Mix::Keep {
            return;
        }
        let target = self.target();
        for slot in self.slots.touched_places() {
            if !self.renews(slot) {
                self.thin(slot, turn);
            }
            if self.held_share().is_some() && !turn.has(Bug::CanaryRetires) {
                continue;
            }
            let entry = &self.slots[slot];
            let hasty = turn.has(Bug::RetiresBeforeHealthy) && self.has_target_up(entry);
            if entry.is_wanted() && self.has_other_up(entry) && (self.has_target_settled(entry) || hasty) {
                self.slots[slot].restarts = entry.restarts.saturating_add(1);
                self.leave_where(slot, Cause::Reload, turn, |worker| {
                    worker.is_up() && worker.generation != target
                });
            }
        }
    }

    /// One predecessor per slot is enough. A reload that follows a failed one finds two generations in
    /// a slot, and a third would not fit under the bound on live processes.
    fn thin(&mut self, slot: usize, turn: &mut Turn<'_>) {
        let (target, good) = (self.target(), self.good);
        let entry = &self.slots[slot];
        let others = || entry.up().filter(|worker| worker.generation != target);
        let best = others()
            .filter(|worker| worker.is_ready())
            .max_by_key(|worker| (worker.is_settled(), worker.generation == good))
            .map(|worker| worker.id);
        if let Some(best) = best
            && entry.is_wanted()
            && others().count() > 1
        {
            self.leave_where(slot, Cause::Reload, turn, |worker| {
                worker.is_up() && worker.generation != target && worker.id != best
            });
        }
    }

    /// Where generations cannot overlap: one worker at a time makes room for its successor.
    fn swap(&mut self, turn: &mut Turn<'_>) {
        let (surplus, target) = (self.surplus(), self.target());
        let runs = |slot: &&Slot| slot.is_wanted() && slot.gate != Gate::Held && !surplus.contains(&slot.id);
        let due = |slot: &Slot| runs(&slot) && self.has_other_up(slot) && !self.overlaps(slot, target);
        if !self.slots.touched().any(due) {
            return;
        }
        let under_way = match &self.rollout {
            Some(rollout) => self.slots.iter().any(|slot| {
                Some(slot.id) == rollout.swapping && slot.is_wanted() && !self.has_target_settled(slot)
            }),
            None => {
                self.mix == Mix::Keep || self.slots.iter().filter(runs).any(|slot| slot.up().next().is_none())
            }
        };
        if under_way || !self.pace().is_still() {
            return;
        }
        let Some(slot) = self.slots.iter().position(due) else { return };
        if let Some(rollout) = &mut self.rollout {
            rollout.swapping = Some(self.slots[slot].id);
        }
        self.slots[slot].idle = Idle::Free;
        self.leave_where(slot, Cause::Reload, turn, Worker::is_up);
    }

    /// Slots that lost their worker get one: of the new generation once it passed its trial, of the
    /// last good one before.
    fn fill(&mut self, turn: &mut Turn<'_>) {
        if self.is_waiting() {
            return;
        }
        let surplus = self.surplus();
        for slot in self.slots.touched_places() {
            let entry = &self.slots[slot];
            if !entry.is_wanted() || entry.idle != Idle::Free || self.may_end(entry) {
                continue;
            }
            let generation = match &self.rollout {
                None => self.good,
                Some(rollout) if entry.born == rollout.to || rollout.swapping == Some(entry.id) => continue,
                Some(rollout) if rollout.canary.share().is_some() => self.good,
                Some(rollout) if rollout.trial == Trial::Passed && !surplus.contains(&entry.id) => rollout.to,
                Some(_) => self.good,
            };
            let replaced = generation == self.target();
            let missing = if replaced {
                entry.up().next().is_none() && !self.has_target_up(entry)
            } else if self.held_share().is_some() {
                !self.has_other_up(entry)
            } else {
                !entry.up().any(|worker| worker.is_ready() || worker.generation != self.target())
            };
            if missing && self.is_vacant(entry, generation) && self.finds_room(turn) {
                self.spawn(slot, generation, turn);
            }
        }
    }

    /// Whether a worker that leaves by itself may turn out to be this slot's last.
    fn may_end(&self, slot: &Slot) -> bool {
        slot.workers.iter().any(|worker| {
            matches!(worker.phase, Phase::Quitting { .. }) && self.policy(worker.generation).can_end()
        })
    }

    /// Starts successors, as many at a time as the surge allows.
    fn roll(&mut self, turn: &mut Turn<'_>) {
        if self.is_waiting() {
            return;
        }
        if self.rollout.is_none() && self.mix == Mix::Keep {
            return;
        }
        let (surplus, target) = (self.surplus(), self.target());
        for slot in self.slots.touched_places() {
            let entry = &self.slots[slot];
            if !entry.is_wanted() || surplus.contains(&entry.id) || self.has_target_up(entry) {
                continue;
            }
            let forward = self.rollout.as_ref();
            let new =
                forward.is_some_and(|rollout| rollout.swapping == Some(entry.id) || rollout.to == entry.born);
            let may = match entry.idle {
                Idle::Free => new || self.has_other_up(entry),
                Idle::Waiting(_) | Idle::Ended { .. } => false,
                Idle::Errored => forward.is_some(),
            };
            let due = may && self.is_vacant(entry, target) && self.pace().has_room(self.policy(target));
            if due
                && !self.canary_is_full(&self.slots[slot], turn)
                && self.fits_beside(turn)
                && self.finds_room(turn)
            {
                self.spawn(slot, target, turn);
            }
        }
    }

    pub(super) fn spawn(&mut self, slot: usize, generation: Generation, turn: &mut Turn<'_>) {
        let version = self.version(generation);
        let (spec, patience) = (version.spec, version.policy.listen_timeout);
        let ready_by = turn.has(Bug::QueuedIsLate).then(|| turn.now + patience);
        let worker = turn.ids.worker();
        let entry = &mut self.slots[slot];
        if entry.ran && entry.up().next().is_none() {
            entry.restarts = entry.restarts.saturating_add(1);
            entry.ran = false;
        }
        let phase = Phase::Starting { boot: Boot::Queued, ready_by, look_at: None };
        let (place, slot, instance) = (slot, entry.id, entry.instance);
        let next = Worker {
            id: worker,
            generation,
            spawned: turn.now,
            phase,
            exam: Exam::None,
            expires: None,
            cleared: None,
            spent: None,
            foretold: None,
            ended: None,
            watch: Watch::default(),
        };
        self.slots.put(place, next);
        let inherit = self.sockets.inherit(slot, worker);
        turn.report(Fact::Starting { app: self.id, slot, worker });
        turn.out.push(Action::Spawn { worker, app: self.id, slot, instance, generation, spec, inherit });
        turn.changed = true;
    }

    // Sockets.

    fn serve(&mut self, turn: &mut Turn<'_>) {
        if self.sockets.is_empty() {
            return;
        }
        let standings = self.standings();
        let wanted = self.slots.iter().any(Slot::is_wanted);
        let ends = self.ends_of_orphans(&standings, turn.has(Bug::SharedEndsWithItsWorker));
        if turn.left || !wanted {
            let ending: Vec<SocketId> = ends.iter().map(|(id, _)| *id).collect();
            let leaving: Vec<WorkerId> =
                self.workers().filter(|worker| worker.leaving().is_some()).map(|worker| worker.id).collect();
            self.sockets.shut_unserved(&standings, &leaving, &ending, turn.planted, turn.out);
        }
        let mut relays = Vec::new();
        for (id, end) in ends {
            match end {
                OrphanEnd::Relay => {
                    if let Some(socket) = self.sockets.get_mut(id) {
                        socket.holder = Holder::Relaying;
                    }
                    relays.push(Action::Relay { socket: id });
                }
                OrphanEnd::Close => self.sockets.close(id, turn.planted, turn.out),
            }
        }
        if !turn.unsteered {
            self.sockets.steer(&standings, &self.terms(), turn.planted, turn.out);
        }
        // After the steering: what is handed on comes in again through the shared address, and must
        // not come back to the queue that it was taken from.
        turn.out.append(&mut relays);
    }

    fn terms(&self) -> Terms {
        let target = self.target();
        let new = |percent| {
            let new = self.workers().filter(|worker| worker.generation == target);
            (percent, new.map(|worker| worker.id).collect())
        };
        let share = self.held_share().map(new);
        match self.policy(target).balance {
            Balance::Spread => Terms { share, ..Terms::default() },
            Balance::SourceIp => Terms {
                share,
                by_client: Some(self.numbered()),
                instances: self.slots.iter().map(|slot| (slot.id, slot.instance)).collect(),
            },
        }
    }

    /// One more than the highest number of an instance that is to stay.
    fn numbered(&self) -> u32 {
        let kept = self.slots.iter().filter(|slot| !matches!(slot.wanted, Wanted::Remove(_)));
        let wanted = usize::try_from(self.instances).unwrap_or(usize::MAX);
        kept.take(wanted).map(|slot| slot.instance.saturating_add(1)).max().unwrap_or(1)
    }

    /// What is to become of the sockets whose workers are gone. Those that are missing here are kept:
    /// for the slot's next worker, or because their clients can be handed on once somebody serves.
    fn ends_of_orphans(
        &self,
        standings: &super::group::Standings,
        forgetful: bool,
    ) -> Vec<(SocketId, OrphanEnd)> {
        let pending = |slot: &Slot| {
            let hopeless = slot.idle == Idle::Errored && slot.up().next().is_none();
            slot.is_wanted() && !hopeless && !slot.workers.iter().any(Worker::is_ready)
        };
        let hope = self.slots.iter().any(pending);
        let mut ends = Vec::new();
        for (id, socket) in self.sockets.iter().filter(|(_, socket)| socket.holder == Holder::Orphan) {
            let slot = self.slots.iter().find(|slot| slot.id == socket.slot);
            let awaited = slot.is_some_and(|slot| pending(slot) && slot.up().next().is_none());
            // One is enough to wait in: a worker that never serves must not leave one more at each crash.
            let spare = self.sockets.has_newer_orphan(id, socket);
            let forgotten = socket.is_shared() && forgetful;
            // Not by each other's like: a part of a shared one has another part to wait in.
            let covered = !socket.is_shared() && self.sockets.is_covered(socket.address, standings, |_| true);
            if socket.handed && !socket.shut && awaited && !spare && !forgotten && !covered {
                continue;
            }
            if socket.is_shared() {
                // Whoever waits in it waits for all: there is nobody to hand on.
                if spare
                    || forgotten
                    || self.sockets.served(socket.address, standings)
                    || !hope
                    || socket.shut
                {
                    ends.push((id, OrphanEnd::Close));
                }
            } else if spare || covered || self.sockets.served(socket.address, standings) {
                ends.push((id, OrphanEnd::Relay));
            } else if !hope || socket.shut {
                ends.push((id, OrphanEnd::Close));
            }
        }
        ends
    }

    // Ends.

    /// Answers the wishes that came true, and the stops that were taken back while the workers stayed for
    /// who depends on them.
    fn answer_done(&mut self, turn: &mut Turn<'_>) {
        if self.requests.is_empty() {
            return;
        }
        let stays: Vec<WorkerId> = self
            .slots
            .touched()
            .filter(|slot| slot.is_wanted())
            .flat_map(|slot| slot.up().map(|worker| worker.id))
            .collect();
        self.answer(Outcome::Failed(Failure::Superseded), turn, |until| match until {
            Until::Ended(workers) => workers.iter().any(|worker| stays.contains(worker)),
            Until::Ready(_) | Until::Back(_) | Until::Deleted => false,
        });
        let (looked, all) = (self.looked_for(), self.slots.are_all_touched());
        let walked = all || self.slots.are_fewer();
        let slots = &self.slots;
        let lacks = |id: &SlotId| looked.get(id).copied().unwrap_or(!walked);
        let lives = |id: &WorkerId| if all { slots.find(*id).is_some() } else { !slots.gone().contains(id) };
        let mut done = Vec::new();
        self.requests.retain_mut(|request| {
            let open = match &mut request.until {
                Until::Ready(slots) => {
                    slots.retain(lacks);
                    !slots.is_empty()
                }
                Until::Ended(workers) | Until::Back(workers) => {
                    workers.retain(lives);
                    !workers.is_empty()
                }
                Until::Deleted => true,
            };
            if !open {
                done.push(request.id);
            }
            open
        });
        for request in done {
            turn.reply(request, Outcome::Done);
        }
    }

    /// Of the slots that somebody may wait for, whether they lack a ready worker: all of them, or those that were
    /// touched. The others lack what they lacked before.
    fn looked_for(&self) -> BTreeMap<SlotId, bool> {
        if !self.requests.iter().any(|request| matches!(request.until, Until::Ready(_))) {
            return BTreeMap::new();
        }
        // One whose restart has not begun is not yet what was wished.
        let is_there = |slot: &Slot| slot.gate != Gate::Held && slot.workers.iter().any(Worker::is_ready);
        let lacks = |slot: &Slot| (slot.id, slot.is_wanted() && !is_there(slot));
        if self.slots.are_fewer() {
            return self.slots.iter().map(lacks).collect();
        }
        self.slots.touched().map(lacks).collect()
    }

    /// With nothing alive and nothing to come no socket is held, so that clients are refused.
    fn rest(&mut self, turn: &mut Turn<'_>) {
        let hopeless = |slot: &Slot| !slot.is_wanted() || slot.idle == Idle::Errored;
        let over = self.slots.population() == 0 && self.slots.iter().all(hopeless);
        if over {
            self.sockets.close_all(turn.out);
        }
        let resting = over && !self.slots.iter().any(Slot::is_wanted);
        if resting && !self.resting {
            turn.report(Fact::Stopped { app: self.id });
        }
        // Who is stopped and started later was not restarted.
        for slot in self.slots.touched_places() {
            if !self.slots[slot].is_wanted() && self.slots[slot].workers.is_empty() {
                self.slots[slot].ran = false;
            }
        }
        self.resting = resting;
    }

    /// Lets go of versions that nobody runs any more.
    pub(super) fn forget(&mut self, turn: &mut Turn<'_>) {
        // Only one whose last worker is gone, or that nobody wants any more.
        if self.versions.len() == 1 || (self.slots.gone().is_empty() && !self.slots.are_all_touched()) {
            return;
        }
        let (good, to) = (self.good, self.target());
        let used: Vec<Generation> = self.workers().map(|worker| worker.generation).collect();
        let dropped: Vec<_> = self
            .versions
            .extract_if(.., |version| {
                let generation = version.generation;
                generation != good && generation != to && !used.contains(&generation)
            })
            .collect();
        for version in dropped {
            self.discard(version.spec, turn);
        }
    }
}

/// What becomes of an orphan.
enum OrphanEnd {
    /// Whoever waits in it is handed to a live worker; then it is closed.
    Relay,
    /// Nobody is there to hand them to, and nobody will be.
    Close,
}
