//! What is worth keeping of an app beyond its supervisor, and the app that a next supervisor makes of it. Wishes
//! are kept, never what became of them: what gave up, ended by itself or waits is tried again.

use super::Supervisor;
use super::app::{App, Idle, Request, Slot, Turn, Until, Wanted};
use super::event::{AppId, Cause, Kept, Outcome, RequestId, SlotId};
use super::policy::SpecId;

impl App {
    /// As it was meant to be under the supervisor before.
    pub(super) fn restore(&mut self, request: RequestId, kept: &Kept, turn: &mut Turn<'_>) {
        let (slots, _) = self.resize(kept.instances.max(1), Cause::Stop, turn);
        let rests = |(place, slot): (u32, SlotId)| kept.resting.contains(&place).then_some(slot);
        let resting: Vec<SlotId> = (0..).zip(slots.iter().copied()).filter_map(rests).collect();
        if !resting.is_empty() {
            self.stopped = true;
            self.release(&resting, Wanted::Rest(Cause::Stop), turn);
        }
        let wanted: Vec<SlotId> = slots.into_iter().filter(|slot| !resting.contains(slot)).collect();
        if wanted.is_empty() {
            return turn.reply(request, Outcome::Done);
        }
        if !kept.unordered {
            self.line_up(turn);
        }
        self.requests.push(Request { id: request, until: Until::Ready(wanted) });
    }

    /// A reload under way counts for nothing until it is through.
    fn keeps(&self) -> (SpecId, Kept) {
        let before = self.rollout.as_ref().and_then(|rollout| rollout.instances_before);
        let instances = before.unwrap_or(self.instances);
        let is_kept = |slot: &&Slot| !matches!(slot.wanted, Wanted::Remove(_));
        let slots = (0..instances).zip(self.slots.iter().filter(is_kept));
        let rests = |(place, slot): (u32, &Slot)| slot.was_stopped().then_some(place);
        (
            self.version(self.good).spec,
            Kept { instances, resting: slots.filter_map(rests).collect(), unordered: false },
        )
    }
}

impl Slot {
    /// By somebody: what ended for good by itself does not count.
    fn was_stopped(&self) -> bool {
        matches!(self.wanted, Wanted::Rest(_)) && !matches!(self.idle, Idle::Ended { .. })
    }
}

impl Supervisor {
    /// Whether it was deleted, and its last workers have not ended yet.
    pub fn is_being_deleted(&self, app: AppId) -> bool {
        self.apps.iter().any(|other| other.id == app && other.doomed)
    }

    /// With what a next supervisor brings an app back: what it runs, and what is wished of it. None for one that is
    /// being deleted.
    pub fn keeps(&self, app: AppId) -> Option<(SpecId, Kept)> {
        self.apps.iter().find(|other| other.id == app && !other.doomed).map(App::keeps)
    }
}
