//! What is over for good: a worker that is not to be started again, an essential app, everything.

use super::app::{App, Idle, Slot, Turn, Wanted};
use super::event::{AppId, Cause, ExitStatus, Fact, Failure, Generation};
use super::view::Status;
use super::{Bug, Supervisor};

impl App {
    /// Whether a worker of this generation that ended by itself is not started again.
    pub(super) fn is_final(&self, generation: Generation, status: ExitStatus, turn: &Turn<'_>) -> bool {
        let policy = self.policy(generation);
        let bug = if policy.autorestart { Bug::RestartsStopCodes } else { Bug::RestartsTheEnded };
        policy.is_final(status) && !turn.has(bug)
    }

    /// A worker ended by itself, for good. `failure`: not well.
    pub(super) fn ended(
        &mut self,
        index: usize,
        generation: Generation,
        status: ExitStatus,
        failure: Option<Failure>,
        turn: &mut Turn<'_>,
    ) {
        let code = match status {
            ExitStatus::Code(code) => self.policy(generation).stop_exit_codes.contains(&code).then_some(code),
            ExitStatus::Signal(_) => None,
        };
        if let Some(failure) = &failure {
            self.fail_requests(index, failure, turn);
        }
        let slot = &mut self.slots[index];
        slot.free();
        slot.idle = Idle::Ended { well: failure.is_none() };
        slot.ran = false;
        turn.report(Fact::Ended { app: self.id, slot: slot.id, code });
    }

    /// A slot whose last worker ended for good wants none any more.
    pub(super) fn rest_ended(&mut self, turn: &mut Turn<'_>) {
        for place in self.slots.touched_places() {
            let slot = &self.slots[place];
            let ended = slot.is_wanted() && matches!(slot.idle, Idle::Ended { .. });
            if ended && slot.up().next().is_none() {
                self.slots[place].wanted = Wanted::Rest(Cause::Exit);
                turn.changed = true;
            }
        }
    }

    /// Every slot has given up or ended; those that somebody stopped are no matter, as long as one is not.
    fn is_over(&self) -> bool {
        let stopped = |slot: &Slot| !slot.is_wanted() && slot.idle == Idle::Free && slot.workers.is_empty();
        !self.comes_back()
            && !self.waits_for_change()
            && self.slots.iter().any(Slot::is_over)
            && self.slots.iter().all(|slot| slot.is_over() || stopped(slot))
    }

    /// It was made known, and never started.
    pub(super) fn is_dormant(&self) -> bool {
        let asleep = |slot: &Slot| !slot.is_wanted() && slot.workers.is_empty() && slot.last_exit.is_none();
        !self.policy(self.target()).autostart && self.slots.iter().all(asleep)
    }

    /// What a supervisor exits with on account of this app.
    fn exit_code(&self) -> i32 {
        let code = |slot: &Slot| match slot.last_exit.as_ref().and_then(|exit| exit.status) {
            Some(ExitStatus::Code(0)) if slot.has_given_up() => 1,
            Some(ExitStatus::Code(code)) => code,
            Some(ExitStatus::Signal(signal)) => 128 + signal,
            None => 1,
        };
        self.slots.iter().filter(|slot| slot.is_over()).map(code).find(|code| *code != 0).unwrap_or(0)
    }
}

impl Slot {
    fn is_over(&self) -> bool {
        let ended = matches!(self.idle, Idle::Ended { .. });
        self.has_given_up() || ended && !self.is_wanted() && self.workers.is_empty()
    }
}

impl Supervisor {
    /// When nothing can run any more, and there was something, or an essential app cannot: the code to end
    /// with. That is how the essential app ended, else the first code that a last worker failed with, 1 where
    /// none has one, and 0 where all ended well.
    pub fn given_up(&self) -> Option<i32> {
        if let Some(essential) = self.apps.iter().find(|app| app.is_essential() && app.is_over()) {
            return Some(essential.exit_code());
        }
        if self.apps.iter().any(|app| app.comes_back() || app.waits_for_change()) {
            return None;
        }
        let counted = || self.apps.iter().filter(|app| !app.is_dormant());
        let slots = || counted().flat_map(|app| &app.slots);
        if slots().next().is_none() || !slots().all(Slot::is_over) {
            return None;
        }
        let failed = |slot: &Slot| match slot.last_exit.as_ref()?.status? {
            ExitStatus::Code(code) => Some(code).filter(|code| *code != 0),
            ExitStatus::Signal(_) => None,
        };
        let well = slots().all(|slot| slot.idle == Idle::Ended { well: true });
        Some(slots().find_map(failed).unwrap_or(i32::from(!well)))
    }
}

impl Supervisor {
    /// The best word for an app as a whole.
    pub fn status(&self, app: AppId) -> Option<Status> {
        self.apps.iter().find(|other| other.id == app).map(App::status)
    }

    /// Whether an app has ended for good by itself, all of it.
    pub fn has_ended(&self, app: AppId) -> bool {
        let ended = |slot: &Slot| matches!(slot.idle, Idle::Ended { .. });
        let found = self.apps.iter().find(|other| other.id == app);
        found.is_some_and(|app| !app.slots.is_empty() && app.slots.iter().all(ended))
    }
}

impl App {
    fn is_essential(&self) -> bool {
        self.policy(self.target()).essential
    }
}
