//! Whether a worker that serves is well, by its own word: for how long it may be silent (`watchdog`), and
//! for how long its clients may queue up while it does nothing (`hang_timeout`). What looks at it from
//! outside tell is in `health`.
//!
//! Who is not well gets no new connections where others serve, and is replaced before it is told to stop;
//! a worker of a reload that is not well before it is proven is the reload's failure.

use std::time::Duration;

use super::Bug;
use super::app::{App, Turn};
use super::event::{Action, Fact, Failure, Pulse, Trouble, Word, WorkerId};
use super::health::Check;
use super::policy::Readiness;
use super::time::Time;
use super::worker::{Worker, earlier};

/// Looks at a worker's queue within `hang_timeout`.
const LOOKS: u32 = 4;

/// The least pause between two of them.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// What is known about how a worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Watch {
    /// It is busy with itself (`RELOADING=1`), and not judged until then.
    pub(super) busy: Option<Time>,
    /// What it gave as the reason of its end.
    pub(super) errno: Option<i32>,
    pub(super) silence: Silence,
    pub(super) check: Check,
    pub(super) queue: Queue,
    /// It was found not to be well, and is being replaced.
    pub(super) unwell: bool,
}

/// For how long it may say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Silence {
    /// For ever.
    #[default]
    Free,
    /// For ever, by its own word, given before it was ready.
    Waived,
    /// It is to say `WATCHDOG=1` within this time, the next time until then.
    Until { every: Duration, by: Time },
}

/// Whether anybody is served while clients wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Queue {
    /// Nobody looks.
    #[default]
    Free,
    /// The next look, and since when nothing has moved.
    At { at: Time, still: Option<Stillness> },
    /// A look was ordered.
    Asked { still: Option<Stillness> },
}

/// Clients wait, and nothing is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stillness {
    since: Time,
    pulse: Pulse,
}

impl Watch {
    /// The next moment at which something of it is due.
    pub(super) fn deadline(&self, ready: bool) -> Option<Time> {
        let silence = match self.silence {
            Silence::Until { by, .. } if ready => Some(self.busy.map_or(by, |busy| busy.max(by))),
            Silence::Until { .. } | Silence::Free | Silence::Waived => None,
        };
        let queue = match self.queue {
            Queue::At { at, .. } if ready => Some(at),
            Queue::At { .. } | Queue::Asked { .. } | Queue::Free => None,
        };
        earlier(earlier(earlier(silence, queue), self.check.deadline()), self.busy)
    }

    /// With times relative to the present, and without what is only told.
    pub(super) fn normalized(&self, ahead: &dyn Fn(Time) -> Time, behind: &dyn Fn(Time) -> Time) -> Watch {
        let still = |still: &Option<Stillness>| still.map(|s| Stillness { since: behind(s.since), ..s });
        Watch {
            busy: self.busy.map(ahead),
            errno: None,
            silence: match self.silence {
                Silence::Free | Silence::Waived => self.silence,
                Silence::Until { every, by } => Silence::Until { every, by: ahead(by) },
            },
            check: self.check.normalized(ahead),
            queue: match &self.queue {
                Queue::Free => Queue::Free,
                Queue::At { at, still: since } => Queue::At { at: ahead(*at), still: still(since) },
                Queue::Asked { still: since } => Queue::Asked { still: still(since) },
            },
            unwell: self.unwell,
        }
    }
}

impl Readiness {
    /// Whether a worker that says this is ready.
    pub(super) fn believes(self, word: Word) -> bool {
        match self {
            Readiness::Auto | Readiness::Word => matches!(word, Word::Ready | Word::Sent),
            Readiness::Notify => word == Word::Ready,
            Readiness::Ipc => word == Word::Sent,
            Readiness::Listen | Readiness::Exec | Readiness::Http(_) => false,
        }
    }
}

fn pause(hang: Duration) -> Duration {
    (hang / LOOKS).max(LEAST_PAUSE)
}

impl App {
    /// It has become ready: from here on it is to be well.
    pub(super) fn begin_watch(&mut self, slot: usize, place: usize, turn: &Turn<'_>) {
        let policy = self.policy(self.slots[slot].workers[place].generation).clone();
        let watch = &mut self.slots[slot].workers[place].watch;
        let every = match watch.silence {
            Silence::Until { every, .. } => Some(every),
            Silence::Free => policy.watchdog,
            Silence::Waived => None,
        };
        watch.silence = every.map_or(Silence::Free, |every| Silence::Until { every, by: turn.now + every });
        watch.queue = policy
            .hang_timeout
            .map_or(Queue::Free, |hang| Queue::At { at: turn.now + pause(hang), still: None });
        watch.check = Check::of_ready(&policy, turn.now);
    }

    /// It said how it is.
    pub(super) fn said_of_itself(&mut self, worker: WorkerId, word: Word, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        let busy = turn.now + self.policy(found.generation).listen_timeout;
        let ready = found.is_ready();
        let watch = &mut self.slots[slot].workers[place].watch;
        match word {
            Word::Errno(errno) => watch.errno = Some(errno),
            Word::Reloading => watch.busy = ready.then_some(busy),
            // It is being replaced: nothing is asked of it any more.
            Word::Interval(_) if watch.unwell => {}
            Word::Interval(every) if every.is_zero() => {
                watch.silence = if ready { Silence::Free } else { Silence::Waived };
            }
            Word::Interval(every) => watch.silence = Silence::Until { every, by: turn.now + every },
            Word::KeepAlive => {
                if let Silence::Until { every, by } = &mut watch.silence {
                    *by = turn.now + *every;
                }
            }
            Word::Trigger => {
                if ready && !watch.unwell {
                    self.unwell(slot, place, Trouble::Asked, turn);
                }
            }
            Word::Ready | Word::Sent | Word::Stopping | Word::Extend(_) => {}
        }
    }

    /// Its own reload is over: it has all of its time again.
    pub(super) fn is_back(&mut self, slot: usize, place: usize, turn: &Turn<'_>) {
        let watch = &mut self.slots[slot].workers[place].watch;
        if watch.busy.take().is_some()
            && let Silence::Until { every, by } = &mut watch.silence
        {
            *by = turn.now + *every;
        }
    }

    /// What is due of a ready worker's watch.
    pub(super) fn tick_watch(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        if found.watch.busy.is_some_and(|until| turn.is_due(until)) {
            found.watch.busy = None;
        }
        if let Silence::Until { every, by } = found.watch.silence
            && found.is_ready()
            && found.watch.busy.is_none()
            && turn.is_due(by)
        {
            self.unwell(slot, place, Trouble::Silence(every), turn);
        }
    }

    /// The answer to `Action::Feel`.
    pub(super) fn felt(&mut self, worker: WorkerId, pulse: Pulse, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        let (Some(hang), Queue::Asked { still }) =
            (self.policy(found.generation).hang_timeout, found.watch.queue)
        else {
            return;
        };
        let still = match still {
            _ if pulse.queued == 0 || found.watch.busy.is_some() => None,
            Some(before) if pulse.queued >= before.pulse.queued && pulse.ticks == before.pulse.ticks => {
                Some(Stillness { pulse, ..before })
            }
            Some(_) | None => Some(Stillness { since: turn.now, pulse }),
        };
        let still_for = still.map_or(Duration::ZERO, |still| turn.now - still.since);
        let hangs = found.is_ready() && still_for >= hang;
        let at = turn.now + pause(hang);
        self.slots[slot].workers[place].watch.queue = Queue::At { at, still };
        if hangs {
            self.unwell(slot, place, Trouble::Hang(still_for), turn);
        }
    }

    /// A worker is not well: it is replaced, or fails its reload.
    pub(super) fn unwell(&mut self, slot: usize, place: usize, trouble: Trouble, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        let worker = found.id;
        found.watch = Watch { unwell: true, errno: found.watch.errno, ..Watch::default() };
        turn.report(Fact::Unwell { app: self.id, worker, trouble });
        turn.changed = true;
        if self.is_candidate(&self.slots[slot].workers[place]) {
            self.leave(slot, place, trouble.cause(), turn);
            self.verdict(Some(worker), Failure::Unwell { worker, trouble }, turn);
        } else if self.is_no_better(slot, place) {
            self.give_way(slot, place, trouble.cause(), turn);
        } else {
            self.replace_in_turn(slot, place, trouble.cause(), turn);
        }
    }

    /// A successor that is not proven yet, beside a worker that is well: that one stays. A reload's new worker
    /// is none to rely on.
    fn is_no_better(&self, slot: usize, place: usize) -> bool {
        let entry = &self.slots[slot];
        let found = &entry.workers[place];
        let well = |other: &Worker| {
            let proven = other.is_ready() && !self.is_candidate(other);
            other.id != found.id && proven && !other.watch.unwell
        };
        !found.is_settled() && entry.up().any(well)
    }

    /// Orders the looks that are due at a worker that is up.
    pub(super) fn ask(&mut self, turn: &mut Turn<'_>) {
        for slot in self.slots.touched_places() {
            for place in 0..self.slots[slot].workers.len() {
                let found = &mut self.slots[slot].workers[place];
                if let Queue::At { at, still } = found.watch.queue
                    && found.is_ready()
                    && turn.is_due(at)
                {
                    found.watch.queue = Queue::Asked { still };
                    turn.out.push(Action::Feel { worker: found.id });
                }
                let leaves = !found.is_up() && !turn.has(Bug::ProbesTheLeaving);
                if !leaves && found.watch.check.deadline().is_some_and(|at| turn.is_due(at)) {
                    self.probe(slot, place, turn);
                }
            }
        }
    }
}
