//! `watch`: what comes of an app when its files have changed. Which files these are, and when they are at rest
//! again, the shell knows.

use super::app::{App, Idle, Slot, Turn, Wanted};
use super::event::{AppId, Cause, Fact, Generation, SlotId};
use super::policy::{SpecId, Watch};
use super::rollout::Queued;
use super::{Bug, Supervisor};

impl App {
    /// Its workers are replaced as by a reload; those that gave up, wait for their next start or ended by themselves
    /// run at once: the change may be what they wait for. Who was stopped stays so.
    ///
    /// Workers that start meanwhile may have read the files before they changed: after the reload under way comes
    /// one more, however many changes there were.
    pub(super) fn files_changed(&mut self, turn: &mut Turn<'_>) {
        if self.doomed || turn.end.is_some() || !self.is_watched() {
            return;
        }
        if self.rollout.is_some() || self.queue.is_some() {
            if self.queue.is_none() {
                self.queue = Some(Queued { definition: None, requests: Vec::new() });
                turn.report(Fact::FilesChanged { app: self.id, later: true });
            }
            return;
        }
        let idle = self.idle_until_changed(turn.has(Bug::ChangeStartsTheStopped));
        let runs = self.runs();
        if idle.is_empty() && !runs {
            return;
        }
        turn.report(Fact::FilesChanged { app: self.id, later: false });
        if !runs {
            self.line_up(turn);
        }
        self.run(&idle);
        if runs {
            self.begin_reload(None, Vec::new(), turn);
        }
        turn.changed = true;
    }

    fn is_watched(&self) -> bool {
        self.policy(self.target()).watch.is_some()
    }

    /// Slots that have no worker because of what their workers did.
    fn idle_until_changed(&self, planted: bool) -> Vec<SlotId> {
        let idle = |slot: &&Slot| match slot.idle {
            Idle::Ended { .. } => slot.is_wanted() || slot.wanted == Wanted::Rest(Cause::Exit),
            Idle::Errored | Idle::Waiting(_) => slot.is_wanted() && slot.up().next().is_none(),
            Idle::Free => planted && !slot.is_wanted(),
        };
        self.slots.iter().filter(idle).map(|slot| slot.id).collect()
    }

    /// Whether it runs again once its files change, although nothing of it runs now.
    pub(super) fn waits_for_change(&self) -> bool {
        !self.doomed && self.is_watched() && !self.idle_until_changed(false).is_empty()
    }
}

impl Supervisor {
    /// The apps whose files are watched, with what is to be watched, and the generation that says so.
    pub fn watches(&self) -> impl Iterator<Item = (AppId, &Watch, SpecId, Generation)> {
        self.apps.iter().filter_map(|app| {
            let good = app.version(app.good);
            Some((app.id, good.policy.watch.as_ref()?, good.spec, good.generation))
        })
    }

    /// Whether its workers are being replaced, or are about to.
    pub fn is_reloading(&self, app: AppId) -> bool {
        self.apps.iter().any(|other| other.id == app && (other.rollout.is_some() || other.queue.is_some()))
    }
}
