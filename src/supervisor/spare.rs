//! Whether an app can do without one of its workers for a while: where there are others, they serve.

use super::app::{App, Idle, Slot, Turn};
use super::worker::Worker;

/// What can be hoped for of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prospect {
    /// Its worker serves.
    Serves,
    /// One is starting, or about to be started: how long that takes is bounded.
    Coming,
    /// The last ones failed; the next one is tried after a pause.
    Failing,
    /// Its worker was not ready in time, and may never be.
    Late,
    /// Nobody comes by himself.
    GivenUp,
}

impl Slot {
    fn prospect(&self) -> Prospect {
        if self.workers.iter().any(Worker::is_ready) {
            return Prospect::Serves;
        }
        if self.up().next().is_some() {
            return if self.up().all(Worker::is_late) { Prospect::Late } else { Prospect::Coming };
        }
        match self.idle {
            Idle::Free => Prospect::Coming,
            Idle::Waiting(_) => Prospect::Failing,
            Idle::Errored | Idle::Ended { .. } => Prospect::GivenUp,
        }
    }
}

impl App {
    /// Whether this slot's worker may stop before its successor comes. It waits until the others serve, all that
    /// may still come by themselves, and is never the last of them. One that is not well serves badly: it waits
    /// for those alone that are on their way, or nobody would ever be healed where the others keep failing.
    pub(super) fn can_spare(&self, slot: &Slot, unwell: bool, turn: &Turn<'_>) -> bool {
        let waits = |other: &Slot| self.waits_for_the_operator(other, turn);
        let others =
            self.slots.iter().filter(|other| other.id != slot.id && other.is_wanted() && !waits(other));
        let others: Vec<Prospect> = others.map(Slot::prospect).collect();
        let any = |prospect: Prospect| others.contains(&prospect);
        let failing = any(Prospect::Failing) || any(Prospect::Late) && !any(Prospect::Serves);
        !any(Prospect::Coming) && (unwell || !failing)
    }

    /// Whether this slot came with a reload that is held, and its share has no worker for it: nobody comes before that
    /// is promoted, and nobody who served is missing.
    fn waits_for_the_operator(&self, slot: &Slot, turn: &Turn<'_>) -> bool {
        let empty = slot.born == self.target() && slot.up().next().is_none();
        self.is_held_at_share() && empty && self.canary_is_full(slot, turn)
    }
}
