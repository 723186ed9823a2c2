//! `cron_restart`: what comes of an app when its time has come. When that is, the shell knows.

use super::app::{App, Idle, Slot, Turn};
use super::event::{AppId, Fact, Pass, SlotId};
use super::policy::Schedule;
use super::{Bug, Supervisor};

impl App {
    /// Its workers are replaced as by a reload; those that had ended for good run again. Who was stopped stays so.
    pub(super) fn come_due(&mut self, turn: &mut Turn<'_>) {
        if self.doomed || turn.end.is_some() || self.policy(self.target()).cron_restart.is_none() {
            return;
        }
        if self.rollout.is_some() || self.queue.is_some() {
            return turn.report(Fact::CronPassed { app: self.id, why: Pass::Reloading });
        }
        if !self.may_come_due() && !turn.has(Bug::CronStartsTheStopped) {
            return turn.report(Fact::CronPassed { app: self.id, why: Pass::Stopped });
        }
        turn.report(Fact::CronDue { app: self.id });
        let dormant = self.is_dormant();
        let dormant = dormant || turn.has(Bug::CronStartsTheStopped);
        let idle = |slot: &&Slot| dormant || matches!(slot.idle, Idle::Ended { .. } | Idle::Errored);
        let slots: Vec<SlotId> = self.slots.iter().filter(idle).map(|slot| slot.id).collect();
        if self.runs() {
            self.begin_reload(None, Vec::new(), turn);
        } else {
            self.line_up(turn);
        }
        self.run(&slots);
        turn.changed = true;
    }

    /// Whether its schedule concerns it: a worker is wanted, or ended by itself, or was never asked for.
    fn may_come_due(&self) -> bool {
        let concerned = |slot: &Slot| slot.is_wanted() || matches!(slot.idle, Idle::Ended { .. });
        self.slots.iter().any(concerned) || self.is_dormant()
    }

    /// Whether it runs again by its schedule, although nothing of it may run now.
    pub(super) fn comes_back(&self) -> bool {
        !self.doomed && self.policy(self.target()).cron_restart.is_some() && self.may_come_due()
    }
}

impl Supervisor {
    /// The apps that have a schedule, with it.
    pub fn schedules(&self) -> impl Iterator<Item = (AppId, &Schedule)> {
        self.apps.iter().filter_map(|app| Some((app.id, app.policy(app.good).cron_restart.as_ref()?)))
    }
}
