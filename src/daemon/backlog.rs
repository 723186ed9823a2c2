//! What many workers make at a time, worked off over several turns of the loop: whoever asks over the control
//! socket is answered in between, however many end, are told to stop or are weighed at once.

use std::collections::VecDeque;

use crate::supervisor::event::{AppId, Closeness, Event, ExitStatus, SignalKind, WorkerId};
use crate::supervisor::time::Time;

use super::{DECIDING_TIME, Daemon};

/// Work that is known, and was not done yet. Each list is as long as there are workers at most.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Workers whose first process was reaped.
    ended: VecDeque<Ended>,
    /// Signals that the core has ordered.
    signals: VecDeque<(WorkerId, SignalKind)>,
    weighings: VecDeque<Weighing>,
}

/// How a worker's first process ended, as it was when that was seen: what is done until it is told changes nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) worker: WorkerId,
    pub(super) status: ExitStatus,
    pub(super) at: Time,
    /// SIGKILL was sent before.
    pub(super) killed: bool,
}

/// Workers that are weighed together.
#[derive(Debug)]
struct Weighing {
    app: AppId,
    left: VecDeque<WorkerId>,
    /// How many more trees may be looked through.
    looks: usize,
    weights: Vec<(WorkerId, u64)>,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.has_heard() && self.has_told() && self.weighings.is_empty()
    }

    /// Whether the core is told of everybody who is known to have ended: before that no deadline is judged.
    pub(super) fn has_heard(&self) -> bool {
        self.ended.is_empty()
    }

    /// Whether all signals that were ordered are sent: who was not told to stop yet has all of its time.
    pub(super) fn has_told(&self) -> bool {
        self.signals.is_empty()
    }

    pub(super) fn end(&mut self, ended: Ended) {
        self.ended.push_back(ended);
    }

    pub(super) fn signal(&mut self, worker: WorkerId, signal: SignalKind) {
        self.signals.push_back((worker, signal));
    }

    /// Nothing is added where the last weighing of the app is not over: on a busy host they would pile up.
    pub(super) fn weigh(&mut self, app: AppId, workers: &[WorkerId], looks: usize) {
        if self.weighings.iter().any(|weighing| weighing.app == app) {
            return;
        }
        let weights = Vec::with_capacity(workers.len());
        self.weighings.push_back(Weighing { app, left: workers.iter().copied().collect(), looks, weights });
    }
}

impl Daemon {
    /// Tells the core of those who ended: as many as there is time for in a turn.
    pub(super) fn tell_of_ended(&mut self) {
        let end = self.read_clock() + DECIDING_TIME;
        let mut told = false;
        while let Some(ended) = self.backlog.ended.pop_front() {
            self.leader_ended(ended);
            told = true;
            if self.read_clock() >= end {
                break;
            }
        }
        // What the last of them left may be all there is: no other end need follow.
        if told {
            self.look_at_remnants();
        }
    }

    /// Sends the signal that was ordered first. False where none is left.
    pub(super) fn send_next_signal(&mut self) -> bool {
        let next = self.backlog.signals.pop_front();
        next.inspect(|(worker, signal)| self.send_order(*worker, *signal)).is_some()
    }

    /// The supervisor ends: nothing that was ordered is left out.
    pub(super) fn send_signals(&mut self) {
        while self.send_next_signal() {}
    }

    /// Weighs one more. False where nobody is left.
    pub(super) fn weigh_next(&mut self) -> bool {
        let Some(mut weighing) = self.backlog.weighings.pop_front() else { return false };
        let Some(worker) = weighing.left.pop_front() else {
            if !weighing.weights.is_empty() {
                let Weighing { app, weights, .. } = weighing;
                self.inbox.push_back(Event::Weighed { app, weights, how: Closeness::Resident });
            }
            return true;
        };
        let bytes = self.weigh_quickly(worker, &mut weighing.looks);
        if bytes > 0 {
            weighing.weights.push((worker, bytes));
        }
        self.backlog.weighings.push_front(weighing);
        true
    }
}
