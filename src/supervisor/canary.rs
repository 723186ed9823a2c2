//! A reload that holds at a share of the new connections: a few workers of the new generation beside the
//! old ones, which all stay, until the operator promotes it or takes it back.
//!
//! As long as it holds nothing was replaced: whatever happens to the new workers, the old ones serve on.

use super::Bug;
use super::app::{App, Idle, Mix, Request, Slot, Turn, Until, Wanted};
use super::event::{Cause, Definition, Fact, Failure, Generation, Outcome, RequestId, WorkerId};
use super::policy::{Mode, Policy};
use super::rollout::{Canary, Rollout};
use super::worker::Worker;

impl App {
    /// How a reload to this generation begins. Only where old and new can serve side by side is there
    /// anything to share.
    pub(super) fn canary_of(&self, to: Generation) -> Canary {
        let cluster = |generation| self.policy(generation).mode == Mode::Cluster;
        let beside = cluster(to) && self.workers().all(|worker| cluster(worker.generation));
        match self.policy(to).canary {
            Some(percent) if beside => Canary::Rising(percent),
            Some(_) | None => Canary::None,
        }
    }

    /// The share of new connections that the reload under way is held at.
    pub(super) fn held_share(&self) -> Option<u8> {
        self.rollout.as_ref().and_then(|rollout| rollout.canary.share())
    }

    /// Whether the reload under way waits for the operator: all that its share takes are up.
    pub(super) fn is_held_at_share(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| matches!(rollout.canary, Canary::Holding(_)))
    }

    /// Slots that are to have a worker when all is done.
    fn lasting(&self) -> impl Iterator<Item = &Slot> {
        let kept = self.slots.iter().filter(|slot| !matches!(slot.wanted, Wanted::Remove(_)));
        let lasting = kept.take(usize::try_from(self.instances).unwrap_or(usize::MAX));
        lasting.filter(|slot| slot.is_wanted())
    }

    /// Workers of the new generation that the share takes, rounded up: one at least.
    fn quota(&self, percent: u8) -> usize {
        (self.lasting().count() * usize::from(percent)).div_ceil(100).max(1)
    }

    /// Whether no worker of the new generation is to come to this slot for now.
    pub(super) fn canary_is_full(&self, slot: &Slot, turn: &Turn<'_>) -> bool {
        let Some(percent) = self.held_share() else { return false };
        let taken = |other: &&Slot| {
            self.has_target_up(other) || other.id != slot.id && self.is_kept_for_its_like(other)
        };
        self.slots.iter().filter(taken).count() >= self.quota(percent) && !turn.has(Bug::CanaryGrows)
    }

    /// Workers of the new generation that were ready for `min_healthy_time`.
    pub(super) fn canaries(&self) -> usize {
        self.lasting().filter(|slot| self.has_target_settled(slot)).count()
    }

    /// Once its workers are up the reload holds, and whoever asked for it is told so.
    pub(super) fn hold_canary(&mut self, turn: &mut Turn<'_>) {
        let Some(Rollout { canary: Canary::Rising(percent), .. }) = self.rollout else { return };
        let up = self.canaries();
        if up < self.quota(percent) {
            return;
        }
        let (app, workers) = (self.id, u32::try_from(up).unwrap_or(u32::MAX));
        let Some(rollout) = &mut self.rollout else { return };
        rollout.canary = Canary::Holding(percent);
        let (generation, total) = (rollout.to, rollout.total);
        turn.report(Fact::CanaryHolds { app, generation, percent, workers, total });
        for request in std::mem::take(&mut rollout.requests) {
            turn.reply(request, Outcome::Holds { percent });
        }
        turn.changed = true;
    }

    /// The operator is content: the roll-out goes on as any other.
    pub(super) fn go_on_with_canary(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let app = self.id;
        match &mut self.rollout {
            None => turn.reply(request, Outcome::Failed(Failure::NothingHeld)),
            Some(Rollout { canary: Canary::None, .. }) => {
                turn.reply(request, Outcome::Failed(Failure::NothingToPromote));
            }
            Some(rollout) => {
                if rollout.canary.share().is_some() {
                    turn.report(Fact::CanaryPromoted { app, generation: rollout.to });
                }
                rollout.canary = Canary::Promoted;
                rollout.requests.push(request);
                if turn.has(Bug::PromotionRetires) {
                    self.take_old_away(turn);
                }
            }
        }
    }

    /// A mistake of two decisions.
    fn take_old_away(&mut self, turn: &mut Turn<'_>) {
        let good = self.good;
        for slot in 0..self.slots.len() {
            self.leave_where(slot, Cause::Reload, turn, |worker| worker.generation == good);
        }
    }

    /// The operator is not: back to the old generation, from wherever the reload has come to. Also from a
    /// mix that a failed one left.
    pub(super) fn roll_back(&mut self, request: RequestId, turn: &mut Turn<'_>) {
        let kept = self.rollout.is_none() && self.mix == Mix::Keep;
        if self.rollout.is_none() && !kept {
            return turn.reply(request, Outcome::Failed(Failure::NothingHeld));
        }
        if turn.has(Bug::RollbackStopsAll) {
            self.take_old_away(turn);
        }
        self.verdict(None, Failure::RolledBack, turn);
        self.mix = Mix::Replace;
        let good = self.good;
        let others = self.workers().filter(|worker| worker.generation != good);
        let others: Vec<WorkerId> = others.map(|worker| worker.id).collect();
        self.requests.push(Request { id: request, until: Until::Back(others) });
        // A command wins over every wait: also of those that were given up.
        for slot in self.slots.iter_mut().filter(|slot| slot.is_wanted()) {
            slot.free();
        }
    }

    /// Whether the next reload, which is to hold at a share, waits: workers of a version that was taken back are
    /// still being replaced by the good one, which a held reload does not do. Where that does not get on, the next
    /// reload is the way out.
    pub(super) fn is_turning_back(&self, next: Option<&Definition>) -> bool {
        let policy = next.map_or(self.policy(self.good), |next| &next.policy);
        let replaced = |slot: &Slot| {
            let other = slot.up().any(|worker| worker.generation != self.good);
            other && slot.is_wanted() && slot.idle == Idle::Free && self.overlaps(slot, self.good)
        };
        let replaces = self.rollout.is_none() && self.mix == Mix::Replace && !self.is_waiting();
        let late = || self.workers().any(Worker::is_late);
        policy.canary.is_some() && replaces && self.slots.iter().any(replaced) && !late()
    }

    /// A newer reload takes the place of one that is held. Without a definition of its own it is of the
    /// held one's.
    pub(super) fn replace_canary(
        &mut self,
        definition: Option<Definition>,
        turn: &mut Turn<'_>,
    ) -> Option<Definition> {
        let held = self.version(self.target());
        let same = || Definition {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            policy: Policy { instances: self.instances, ..held.policy.clone() },
            spec: held.spec,
        };
        let definition = definition.unwrap_or_else(same);
        self.verdict(None, Failure::Superseded, turn);
        Some(definition)
    }
}
