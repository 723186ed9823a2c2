//! `cron_restart`: what comes of an app when its time has come. When that is, the shell knows.

use super::app::{App, Idle, Mix, Slot, Turn, Wanted};
use super::event::{AppId, Cause, Fact, Pass, SlotId};
use super::policy::Schedule;
use super::{Bug, Supervisor};

impl App {
    /// Its workers are replaced as by a reload; those that had ended by themselves run again. Who was stopped stays
    /// so.
    pub(super) fn come_due(&mut self, turn: &mut Turn<'_>) {
        if self.doomed || turn.end.is_some() || self.policy(self.target()).cron_restart.is_none() {
            return;
        }
        if self.rollout.is_some() || self.queue.is_some() {
            return turn.report(Fact::CronPassed { app: self.id, why: Pass::Reloading });
        }
        if self.mix == Mix::Keep {
            return turn.report(Fact::CronPassed { app: self.id, why: Pass::Held });
        }
        let idle = self.idle_by_itself(turn.has(Bug::CronStartsTheStopped));
        if idle.is_empty() && !self.slots.iter().any(Slot::is_wanted) {
            return turn.report(Fact::CronPassed { app: self.id, why: Pass::Stopped });
        }
        if idle.is_empty() && !self.runs() {
            return turn.report(Fact::CronPassed { app: self.id, why: Pass::Starting });
        }
        turn.report(Fact::CronDue { app: self.id, replaces: idle.is_empty() });
        if idle.is_empty() {
            self.begin_reload_unasked(turn);
        } else {
            let ended = |slot: &&Slot| matches!(slot.idle, Idle::Ended { .. } | Idle::Errored);
            let again: Vec<SlotId> =
                self.slots.iter().filter(ended).map(|slot| slot.id).filter(|id| idle.contains(id)).collect();
            // Of several jobs those that are still at it are let finish.
            if !self.runs() {
                self.line_up(turn);
            }
            self.run(&idle);
            // What ran before runs again: that counts as a restart.
            self.slots.iter_mut().filter(|slot| again.contains(&slot.id)).for_each(|slot| slot.ran = true);
        }
        turn.changed = true;
    }

    /// Slots that have no worker because of what their workers did, or because none was asked for yet.
    fn idle_by_itself(&self, planted: bool) -> Vec<SlotId> {
        let unasked = self.is_dormant() && !self.stopped;
        let idle = |slot: &&Slot| match slot.idle {
            Idle::Ended { .. } => slot.is_wanted() || slot.wanted == Wanted::Rest(Cause::Exit),
            Idle::Errored => slot.is_wanted() && slot.up().next().is_none(),
            Idle::Free | Idle::Waiting(_) => unasked || (planted && !slot.is_wanted()),
        };
        self.slots.iter().filter(idle).map(|slot| slot.id).collect()
    }

    /// Whether it runs again by its schedule, although nothing of it runs now and nothing went wrong.
    pub(super) fn comes_back(&self) -> bool {
        let scheduled = !self.doomed && self.policy(self.target()).cron_restart.is_some();
        scheduled && !self.slots.iter().any(Slot::has_given_up) && !self.idle_by_itself(false).is_empty()
    }
}

impl Supervisor {
    /// The apps that have a schedule, with it.
    pub fn schedules(&self) -> impl Iterator<Item = (AppId, &Schedule)> {
        self.apps.iter().filter_map(|app| Some((app.id, app.policy(app.good).cron_restart.as_ref()?)))
    }
}
