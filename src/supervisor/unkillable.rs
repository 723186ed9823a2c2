//! A worker that was killed and does not end: in uninterruptible sleep (a hung disk or network file system, a frozen
//! control group) no signal is heard. Nobody takes its place, and who waits for its end is told that it does not come;
//! everything else goes on, and so does its slot, once it is gone after all.

use super::Bug;
use super::app::{App, Slot, Turn, Until};
use super::event::{Failure, Outcome, WorkerId};
use super::worker::Worker;

impl App {
    /// A reload that cannot go on because of one is over.
    pub(super) fn move_on(&mut self, turn: &mut Turn<'_>) {
        if self.rollout.is_none() || turn.has(Bug::AwaitsTheUnkillable) {
            return;
        }
        let stuck = self.slots.iter().find_map(|slot| self.stuck(slot));
        if let Some(worker) = stuck {
            self.verdict(Some(worker), Failure::Unkillable { worker }, turn);
        }
    }

    /// Who keeps a slot from the next worker that is wanted there: one in it, or as many in the app as may live.
    fn stuck(&self, slot: &Slot) -> Option<WorkerId> {
        if !slot.is_wanted() || self.has_target_up(slot) {
            return None;
        }
        // Others that are on their way out are waited for first.
        let blocked = !self.is_vacant(slot, self.target()) && slot.workers.iter().all(Worker::stays);
        let full = self.workers().count() >= self.limit() && self.workers().all(Worker::stays);
        let unkillable = |worker: &&Worker| worker.is_unkillable();
        let here = slot.workers.iter().find(|worker| blocked && unkillable(worker));
        here.or_else(|| self.workers().find(|worker| full && unkillable(worker))).map(|worker| worker.id)
    }

    /// Tells who waits for nothing else any more.
    pub(super) fn answer_unkillable(&mut self, turn: &mut Turn<'_>) {
        if self.slots.counts().unkillable == 0 || turn.has(Bug::AwaitsTheUnkillable) {
            return;
        }
        let unkillable = |worker: &&Worker| worker.is_unkillable();
        let all: Vec<WorkerId> = self.workers().filter(unkillable).map(|worker| worker.id).collect();
        let Some(&worker) = all.first() else { return };
        let stuck: Vec<_> =
            self.slots.iter().filter(|slot| self.stuck(slot).is_some()).map(|slot| slot.id).collect();
        let only = self.workers().all(Worker::is_unkillable);
        self.answer(Outcome::Failed(Failure::Unkillable { worker }), turn, |until| match until {
            Until::Ready(slots) => slots.iter().any(|slot| stuck.contains(slot)),
            Until::Ended(workers) | Until::Back(workers) => workers.iter().all(|id| all.contains(id)),
            Until::Deleted => only,
        });
    }
}
