//! One reload: from which generation to which, how far it came, and how fast it may go.
//!
//! It holds facts and answers questions; the steps follow from them in `reconcile`.

use super::event::{Definition, Failure, Generation, RequestId, SlotId};
use super::policy::Policy;
use super::time::Time;

/// Whether the new generation has shown that it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Trial {
    /// None of its workers was ready for `min_healthy_time` yet.
    Untested,
    /// One was.
    Passed,
}

/// How many workers of the app may live at a time while it is reloaded, as far as the host is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Room {
    /// It was asked, and has not answered.
    Unknown,
    /// As many as the policy allows.
    Free,
    /// So many, or one more than there are when nobody is on the way in or out.
    UpTo(usize),
}

/// Whether a reload is held at a share of the new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Canary {
    /// It is not, and never was.
    None,
    /// At so many percent; its workers are on their way.
    Rising(u8),
    /// At so many percent, until the operator decides.
    Holding(u8),
    /// It was: the operator let it go on.
    Promoted,
}

impl Canary {
    /// In percent, while it is held or on the way there.
    pub(super) fn share(self) -> Option<u8> {
        match self {
            Canary::Rising(percent) | Canary::Holding(percent) => Some(percent),
            Canary::None | Canary::Promoted => None,
        }
    }
}

/// A reload under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rollout {
    pub(super) to: Generation,
    pub(super) requests: Vec<RequestId>,
    pub(super) began: Time,
    pub(super) done: u32,
    pub(super) total: u32,
    pub(super) trial: Trial,
    pub(super) room: Room,
    /// Instances to go back to; none when someone scaled meanwhile.
    pub(super) instances_before: Option<u32>,
    /// Where generations may not overlap: the slot whose worker is being exchanged.
    pub(super) swapping: Option<SlotId>,
    pub(super) canary: Canary,
}

impl Rollout {
    /// Workers that remain to be replaced; true when that is progress.
    pub(super) fn advance(&mut self, remaining: u32) -> bool {
        self.total = self.total.max(self.done + remaining);
        let done = self.total - remaining;
        let progress = done > self.done;
        self.done = self.done.max(done);
        progress
    }
}

/// Reloads that wait for the one under way; all become one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Queued {
    pub(super) definition: Option<Definition>,
    pub(super) requests: Vec<RequestId>,
}

/// How the last reload failed, for the view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FailedReload {
    pub(super) done: u32,
    pub(super) total: u32,
    pub(super) failure: Failure,
}

/// How many workers of the wanted generation are on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    /// Not ready yet.
    pub(super) starting: u32,
    /// Ready, but not for `min_healthy_time`.
    pub(super) soaking: u32,
}

impl Pace {
    /// Whether one more may be started. The healthy time of one overlaps the boot of the next, so
    /// both have the surge as their limit.
    pub(super) fn has_room(self, policy: &Policy) -> bool {
        self.starting < policy.max_surge && self.soaking <= policy.max_surge
    }

    /// Whether nothing is on its way.
    pub(super) fn is_still(self) -> bool {
        self.starting == 0 && self.soaking == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_healthy_time_of_one_overlaps_the_boot_of_the_next() {
        let policy = Policy { max_surge: 1, ..Policy::default() };
        assert!(Pace { starting: 0, soaking: 1 }.has_room(&policy));
        assert!(!Pace { starting: 1, soaking: 0 }.has_room(&policy));
        assert!(!Pace { starting: 0, soaking: 2 }.has_room(&policy));
    }

    #[test]
    fn progress_never_goes_back_when_work_is_added() {
        let mut rollout = Rollout {
            to: Generation(2),
            requests: Vec::new(),
            began: Time::START,
            done: 0,
            total: 2,
            trial: Trial::Untested,
            room: Room::Free,
            instances_before: None,
            swapping: None,
            canary: Canary::None,
        };
        assert!(rollout.advance(1));
        assert!(!rollout.advance(3));
        assert_eq!((rollout.done, rollout.total), (1, 4));
    }
}
