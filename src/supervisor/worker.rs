//! One process, from the order to start it until the last of its tree is gone.
//!
//! A worker knows its own state and its own deadlines; whether it should live is its app's matter.

use std::time::Duration;

use super::Stage;
use super::event::{Cause, Closing, Generation, Proof, Traffic, WorkerId};
use super::exam::Exam;
use super::time::Time;
use super::watch::Watch;

/// How far the start of a program came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Boot {
    /// Ordered, and not begun: its clocks stand.
    Queued,
    /// Begun; exec has not been confirmed.
    Begun,
    /// The program runs.
    Running,
}

/// Before the end of its time, for so long, a worker that leaves is in its last moments.
const LAST_MOMENTS: Duration = Duration::from_secs(2);

/// The state of the looks at a leaving worker's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Look {
    /// The next one is due then.
    At(Time),
    /// One was ordered, and its answer is awaited.
    Awaited,
}

/// How far a worker's connections are on their way to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaving {
    pub(super) cause: Cause,
    pub(super) since: Time,
    pub(super) until: Time,
    pub(super) look: Look,
    /// Quiet looks in a row.
    pub(super) calm: u8,
    /// The look whose answer is awaited says nothing: it may have been before what it was to show.
    pub(super) stale: bool,
    pub(super) seen: Traffic,
}

impl Leaving {
    pub(super) fn new(cause: Cause, since: Time, until: Time) -> Leaving {
        Leaving {
            cause,
            since,
            until,
            look: Look::At(since),
            calm: 0,
            stale: false,
            seen: Traffic::default(),
        }
    }

    /// More than half of its time is over.
    fn is_late(&self, now: Time) -> bool {
        now - self.since >= (self.until - self.since) / 2
    }

    /// Hardly any of it is left.
    fn is_last(&self, now: Time) -> bool {
        self.is_late(now) && self.until - now <= LAST_MOMENTS
    }

    fn deadline(&self) -> Time {
        match self.look {
            Look::At(at) => self.until.min(at),
            Look::Awaited => self.until,
        }
    }

    /// Takes the answer to a look; whether all is done, or `None` when none was awaited.
    pub(super) fn saw(&mut self, traffic: Traffic, now: Time) -> Option<bool> {
        if self.look != Look::Awaited {
            return None;
        }
        let quiet = traffic.queued == 0 && traffic.busy == 0 && !self.stale;
        self.stale = false;
        self.seen = traffic;
        self.calm = if quiet { self.calm.saturating_add(1) } else { 0 };
        self.look = Look::At(now + until_next_look(now - self.since, traffic));
        Some(self.is_done())
    }

    /// Somebody may have been led here again: what was seen so far says nothing any more.
    pub(super) fn look_again(&mut self) {
        self.calm = 0;
        self.stale = self.look == Look::Awaited;
    }

    /// The next look is of no use before that.
    pub(super) fn look_not_before(&mut self, until: Option<Time>) {
        if let (Look::At(at), Some(until)) = (&mut self.look, until) {
            *at = (*at).max(until);
        }
    }

    /// It is of use by then.
    pub(super) fn look_not_after(&mut self, until: Time) {
        if let Look::At(at) = &mut self.look {
            *at = (*at).min(until);
        }
    }

    /// Nothing was seen of it twice.
    pub(super) fn is_done(&self) -> bool {
        self.calm >= 2
    }
}

/// What a worker is doing. Rising order, but for `Quitting`: nothing leads back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Not proven ready. `ready_by` is gone once it was missed, and comes when it has begun; `look_at` is the next inspection.
    Starting { boot: Boot, ready_by: Option<Time>, look_at: Option<Time> },
    /// Proven ready. `look_at` goes on while it was handed sockets that it was not seen using;
    /// `soak_until` is gone once it has been ready for `min_healthy_time`.
    Ready { proof: Proof, look_at: Option<Time>, soak_until: Option<Time> },
    /// It said that it leaves by itself. `early`: before it had been ready for `min_healthy_time`.
    Quitting { early: bool, kill_at: Time },
    /// Out of the accept path, finishing what it has.
    Draining(Leaving),
    /// The same, and told to stop: it is known to finish what it has by itself.
    Finishing(Leaving),
    /// To stop. `told`: its signal went out, from when on its time runs.
    Stopping { cause: Cause, kill_at: Time, told: bool },
    /// SIGKILL was sent to its tree.
    Killed { cause: Cause, patience: Patience },
    /// Its first process is gone, others of its tree are to stop.
    Leftover { kill_at: Time, told: bool },
    /// Its first process is gone, SIGKILL was sent to the others.
    Doomed { patience: Patience },
}

/// How long a process that was killed may take to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Patience {
    /// As a matter of course: the kernel gives back what it had, which takes its time with much memory.
    Until(Time),
    /// It sleeps where no signal wakes it. Nobody waits for it any more, and nobody takes its place.
    Over,
}

/// One process and its tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) generation: Generation,
    /// When its start was begun; before that, when it was ordered.
    pub(super) spawned: Time,
    pub(super) phase: Phase,
    /// Whether it finishes its requests upon its signal is being tried.
    pub(super) exam: Exam,
    /// When it is as old as it may become.
    pub(super) expires: Option<Time>,
    /// What its tree takes was looked at closely and found to be within the limit.
    pub(super) cleared: Option<Cleared>,
    /// It is to be replaced.
    pub(super) spent: Option<Retiring>,
    /// Why it ends, known before it has.
    pub(super) foretold: Option<Cause>,
    /// Its first process was seen to end then.
    pub(super) ended: Option<Time>,
    /// Whether it is well, by its own word and by looks at it.
    pub(super) watch: Watch,
}

/// A close look that found nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cleared {
    /// It holds for so long.
    pub(super) until: Time,
    /// And as long as less than this is resident: what is its own cannot have reached the limit before.
    pub(super) below: u64,
}

/// That, and from when on, a worker is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Retiring {
    pub(super) cause: Cause,
    /// Not before this, or one that is spent right after its start would be replaced without end. None once
    /// it has come.
    pub(super) after: Option<Time>,
}

impl Worker {
    /// Starting or ready: it is, or may become, what its slot is for.
    pub(super) fn is_up(&self) -> bool {
        match self.phase {
            Phase::Starting { .. } | Phase::Ready { .. } => true,
            Phase::Quitting { .. }
            | Phase::Draining(_)
            | Phase::Finishing(_)
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed { .. } => false,
        }
    }

    /// It is here, and was told nothing yet; it may leave by itself.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.is_up() || matches!(self.phase, Phase::Quitting { .. })
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    /// Not ready in time.
    pub(super) fn is_late(&self) -> bool {
        matches!(self.phase, Phase::Starting { boot: Boot::Begun | Boot::Running, ready_by: None, .. })
    }

    /// Its start waits its turn.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Starting { boot: Boot::Queued, .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    /// When it is to be inspected next.
    pub(super) fn looked_at(&self) -> Option<Time> {
        match self.phase {
            Phase::Starting { look_at, .. } | Phase::Ready { look_at, .. } => look_at,
            Phase::Quitting { .. }
            | Phase::Draining(_)
            | Phase::Finishing(_)
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed { .. } => None,
        }
    }

    /// How far its life came.
    pub(super) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Starting { boot: Boot::Queued | Boot::Begun, .. } => Stage::Ordered,
            Phase::Starting { boot: Boot::Running, .. } => Stage::Running,
            Phase::Ready { .. } => Stage::Ready,
            Phase::Quitting { .. } => Stage::Quitting,
            Phase::Draining(_) => Stage::Draining,
            Phase::Finishing(_) => Stage::Finishing,
            Phase::Stopping { .. } => Stage::Stopping,
            Phase::Killed { .. } => Stage::Killed,
            Phase::Leftover { .. } => Stage::Leftover,
            Phase::Doomed { .. } => Stage::Doomed,
        }
    }

    /// Told to stop: bounded by `kill_timeout`, not by its connections.
    pub(super) fn is_ending(&self) -> bool {
        match self.phase {
            Phase::Stopping { .. } | Phase::Killed { .. } | Phase::Leftover { .. } | Phase::Doomed { .. } => {
                true
            }
            Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Quitting { .. }
            | Phase::Draining(_)
            | Phase::Finishing(_) => false,
        }
    }

    /// Its first process has ended.
    pub(super) fn is_headless(&self) -> bool {
        matches!(self.phase, Phase::Leftover { .. } | Phase::Doomed { .. })
    }

    /// It was killed, and does not end.
    pub(super) fn is_unkillable(&self) -> bool {
        let over = Patience::Over;
        matches!(self.phase, Phase::Killed { patience, .. } | Phase::Doomed { patience } if patience == over)
    }

    /// It is not on a way out that ends.
    pub(super) fn stays(&self) -> bool {
        self.is_up() || self.is_unkillable()
    }

    /// It has been ready for `min_healthy_time`.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Ready { soak_until: None, .. })
    }

    /// Why it leaves, once it was told to.
    pub(super) fn leaving(&self) -> Option<Cause> {
        match self.phase {
            Phase::Draining(Leaving { cause, .. })
            | Phase::Finishing(Leaving { cause, .. })
            | Phase::Stopping { cause, .. }
            | Phase::Killed { cause, .. } => Some(cause),
            Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Quitting { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed { .. } => None,
        }
    }

    /// The next moment at which this worker by itself needs attention.
    pub(super) fn deadline(&self) -> Option<Time> {
        let own = match &self.phase {
            Phase::Starting { ready_by, look_at, .. } => earlier(*ready_by, *look_at),
            Phase::Ready { look_at, soak_until, .. } => earlier(earlier(*look_at, *soak_until), self.expires),
            Phase::Draining(leaving) | Phase::Finishing(leaving) => Some(leaving.deadline()),
            Phase::Quitting { kill_at, .. }
            | Phase::Stopping { kill_at, .. }
            | Phase::Leftover { kill_at, .. } => Some(*kill_at),
            Phase::Killed { patience, .. } | Phase::Doomed { patience } => match patience {
                Patience::Until(at) => Some(*at),
                Patience::Over => None,
            },
        };
        let renewed = self.spent.and_then(|spent| spent.after);
        let own = earlier(own, renewed);
        let watched = if self.is_up() { self.watch.deadline(self.is_ready()) } else { None };
        earlier(earlier(own, watched), self.exam.deadline())
    }

    /// Which connections a look may end; `None` when there is nothing to look at.
    pub(super) fn closing(&self, now: Time) -> Option<Closing> {
        match &self.phase {
            Phase::Draining(leaving) if leaving.is_last(now) => Some(Closing::Last),
            Phase::Draining(leaving) if leaving.is_late(now) => Some(Closing::Late),
            Phase::Draining(_) => Some(Closing::AtQuietMoments),
            Phase::Finishing(_) => Some(Closing::WhenIdle),
            Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Quitting { .. }
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed { .. } => None,
        }
    }

    /// No deadline of its way out lies beyond these.
    pub(super) fn hurry(&mut self, drained_by: Time, killed_by: Time) {
        match &mut self.phase {
            Phase::Draining(leaving) | Phase::Finishing(leaving) => {
                leaving.until = drained_by.min(leaving.until);
            }
            Phase::Quitting { kill_at, .. }
            | Phase::Stopping { kill_at, .. }
            | Phase::Leftover { kill_at, .. } => *kill_at = killed_by.min(*kill_at),
            Phase::Starting { .. } | Phase::Ready { .. } | Phase::Killed { .. } | Phase::Doomed { .. } => {}
        }
    }
}

/// The earlier of two moments that may not come.
pub(super) fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    [one, other].into_iter().flatten().min()
}

/// How long after a look at a draining worker the next one comes: fast at first, because most
/// connections are done within milliseconds, and never so fast that looking is what the supervisor
/// does.
pub(super) fn until_next_look(drained_for: Duration, traffic: Traffic) -> Duration {
    let step = match drained_for.as_millis() {
        0..100 => 2,
        100..1000 => 5,
        // Somebody's next quiet moment is to be met, however long it takes.
        _ if traffic.promising => 5,
        _ => 20,
    };
    Duration::from_millis(step).max(traffic.cost.saturating_mul(10))
}

/// How long after an inspection of a starting worker the next one comes.
pub(super) fn until_next_inspection(lived: Duration) -> Duration {
    Duration::from_millis(if lived < Duration::from_secs(1) { 20 } else { 100 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_slow_down_and_respect_their_cost() {
        let ms = Duration::from_millis;
        let none = Traffic::default();
        assert_eq!(until_next_look(ms(99), none), ms(2));
        assert_eq!(until_next_look(ms(100), none), ms(5));
        assert_eq!(until_next_look(ms(1000), none), ms(20));
        assert_eq!(until_next_look(ms(1000), Traffic { promising: true, ..none }), ms(5));
        assert_eq!(until_next_look(ms(0), Traffic { cost: ms(1), ..none }), ms(10));
    }

    #[test]
    fn inspections_slow_down_after_the_first_second() {
        assert_eq!(until_next_inspection(Duration::from_millis(999)), Duration::from_millis(20));
        assert_eq!(until_next_inspection(Duration::from_secs(1)), Duration::from_millis(100));
    }
}
