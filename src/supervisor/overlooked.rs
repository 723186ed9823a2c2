//! Whether anything was overlooked: for checks that what is kept beside the slots is what a walk over all of them
//! says, and that a turn which looked at a few did all that there was to do.

use super::Supervisor;
use super::event::{Action, AppId};
use super::time::Time;

impl Supervisor {
    /// What is kept beside an app's slots and is not what they say.
    #[doc(hidden)]
    pub fn stale(&self) -> Option<(AppId, &'static str)> {
        let stale = |app: &super::App| app.slots.stale(|slot| app.note(slot, self.planted));
        self.apps.iter().find_map(|app| Some((app.id, stale(app)?)))
    }

    /// What comes of a look at every slot of every app now, as long as no deadline is due; none where there was
    /// nothing to be seen.
    #[doc(hidden)]
    pub fn overlooked(&self, now: Time) -> Option<(Supervisor, Vec<Action>)> {
        if self.next_deadline().is_some_and(|at| at <= self.heard) {
            return None;
        }
        let mut all = self.clone();
        let mut out = Vec::new();
        for index in 0..all.apps.len() {
            all.turn_all(index, now, &mut out, |_, _| {});
        }
        let same = out.is_empty() && all.normalized(now) == self.normalized(now);
        (!same).then_some((all, out))
    }
}
