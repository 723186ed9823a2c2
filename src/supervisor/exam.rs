//! Whether an app's server handles its `kill_signal`: goes on with the requests it has, and ends when they
//! are done. Such a server gets the signal as soon as it has left the accept path, and ends its
//! connections as its protocol has it (HTTP: `Connection: close`), which nobody can do from outside.
//!
//! That the signal is caught, or that the exit code is 0, proves nothing: a handler that exits at once
//! does both, and cuts requests. So it is tried, with nobody's request at stake: on a worker that is done,
//! with a connection of the supervisor's own whose request is never finished. Who lives on as long as that
//! is held, and ends once it is let go, finishes what it has. One worker of each generation is examined.

use std::time::Duration;

use super::event::{Action, Fact, SignalKind, SocketId, WorkerId};
use super::policy::Policy;
use super::time::Time;

use super::Bug;
use super::app::{App, Turn};
use super::worker::{Phase, Worker};

/// How long the request is held where nothing is known yet: longer than the fixed delay of a handler that
/// waits for nothing.
const HELD: Duration = Duration::from_secs(1);

/// How long where an earlier generation passed: a handler that exits at once has done so by then.
const HELD_AGAIN: Duration = Duration::from_millis(100);

/// Within this time after the request was let go a server ends that waited for it: the longest pause
/// between two looks of Go's `Server.Shutdown`.
const PROMPTLY: Duration = Duration::from_millis(500);

/// Below this `kill_timeout` there is no time for an exam.
const LEAST_KILL_TIMEOUT: Duration = Duration::from_millis(400);

/// What is known about the app's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Handling {
    /// Nothing, or that it cuts requests.
    Unproven,
    /// It finishes what it has.
    Finishes,
}

/// How far a worker's exam came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Exam {
    /// There is none.
    None,
    /// The connection is being made.
    Asked,
    /// The worker got its signal, and the request is held until then.
    Holding { until: Time },
    /// The request was let go.
    Free { since: Time },
}

impl Exam {
    pub(super) fn deadline(self) -> Option<Time> {
        match self {
            Exam::Holding { until } => Some(until),
            Exam::None | Exam::Asked | Exam::Free { .. } => None,
        }
    }
}

fn held(handling: Handling, policy: &Policy) -> Duration {
    let most = match handling {
        Handling::Unproven => HELD,
        Handling::Finishes => HELD_AGAIN,
    };
    most.min(policy.kill_timeout / 2)
}

fn promptly(policy: &Policy) -> Duration {
    PROMPTLY.min(policy.kill_timeout / 4)
}

impl App {
    /// A look at a draining worker was answered: is it done, or told to stop early, or examined first?
    pub(super) fn go_on(&mut self, slot: usize, place: usize, done: bool, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        let Phase::Draining(leaving) = &found.phase else { return };
        let (cause, seen) = (leaving.cause, leaving.seen);
        let early = !done && seen.queued == 0 && self.handling == Handling::Finishes;
        // Whom nobody asks again and again cannot lose by being told late.
        let matters = early || (done && seen.ended > 0);
        if found.exam == Exam::Asked {
            return;
        }
        if matters && self.is_unexamined(found) && turn.end.is_none() && self.examine(slot, place, turn) {
            return;
        }
        if done {
            self.stop(slot, place, cause, turn);
        } else if early {
            self.tell_early(slot, place, turn);
        }
    }

    fn is_unexamined(&self, worker: &Worker) -> bool {
        self.examined != worker.generation
            && self.policy(worker.generation).kill_timeout >= LEAST_KILL_TIMEOUT
    }

    /// Orders the connection; false when there is no socket to make it to.
    fn examine(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) -> bool {
        let worker = self.slots[slot].workers[place].id;
        let Some((socket, position, active)) = self.sockets.place_of(worker) else { return false };
        turn.out.push(Action::Examine { worker, socket, position, active });
        self.slots[slot].workers[place].exam = Exam::Asked;
        true
    }

    /// The worker was told, and finishes by itself.
    fn tell_early(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        if let Phase::Draining(leaving) = &found.phase {
            let leaving = leaving.clone();
            turn.out.push(Action::Signal { worker: found.id, signal: SignalKind::Stop });
            found.phase = Phase::Finishing(leaving);
            turn.changed = true;
        }
    }

    /// The worker holds an unfinished request of ours, or does not, or not any more.
    pub(super) fn examining(&mut self, worker: WorkerId, holds: bool, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        let generation = found.generation;
        let drains = match &found.phase {
            Phase::Draining(leaving) => Some(leaving.cause),
            Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Quitting { .. }
            | Phase::Finishing(_)
            | Phase::Stopping { .. }
            | Phase::Killed { .. }
            | Phase::Leftover { .. }
            | Phase::Doomed => None,
        };
        match (found.exam, drains) {
            (Exam::Asked, Some(cause)) if holds => {
                let until = turn.now + held(self.handling, self.policy(generation));
                self.examined = generation;
                self.slots[slot].workers[place].exam = Exam::Holding { until };
                match self.handling {
                    Handling::Finishes => self.tell_early(slot, place, turn),
                    Handling::Unproven => self.stop(slot, place, cause, turn),
                }
            }
            (Exam::Asked | Exam::Holding { .. } | Exam::Free { .. }, _) => {
                self.examined = generation;
                self.slots[slot].workers[place].exam = Exam::None;
                if holds {
                    turn.out.push(Action::LetGo { worker });
                }
            }
            (Exam::None, _) => {}
        }
    }

    /// Lets the request go when it was held long enough.
    pub(super) fn tick_exam(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        if found.exam.deadline().is_some_and(|at| turn.now >= at) {
            turn.out.push(Action::LetGo { worker: found.id });
            found.exam = Exam::Free { since: turn.now };
        }
    }

    /// The worker's first process ended: what its exam showed.
    pub(super) fn conclude_exam(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        if matches!(found.phase, Phase::Killed { .. }) {
            return;
        }
        let promptly = promptly(self.policy(found.generation));
        let shown = match found.exam {
            Exam::None | Exam::Asked => return,
            Exam::Holding { .. } if turn.has(Bug::AnyExitFinishes) => Handling::Finishes,
            Exam::Holding { .. } => Handling::Unproven,
            Exam::Free { since } if turn.now - since <= promptly => Handling::Finishes,
            Exam::Free { .. } => Handling::Unproven,
        };
        if self.handling != shown {
            self.handling = shown;
            turn.report(Fact::Examined { app: self.id, finishes: shown == Handling::Finishes });
        }
    }
}

/// Where a worker's exam is made: a socket of its, that socket's position in the kernel's array, and who is
/// steered to.
pub(super) type Place = (SocketId, u32, Vec<u32>);
