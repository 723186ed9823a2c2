//! Whether an app's server handles its `kill_signal`: goes on with the requests it has, and ends when they
//! are done. Such a server gets the signal as soon as it has left the accept path, and ends its
//! connections as its protocol has it (HTTP: `Connection: close`), which nobody can do from outside.
//!
//! That the signal is caught, or that the exit code is 0, proves nothing: a handler that exits at once
//! does both, and cuts requests. So it is tried, with nobody's request at stake: on a worker that is done,
//! with a connection of the supervisor's own whose request is never finished. Who lives on as long as that
//! is held, and ends once it is let go, finishes what it has. One worker of each generation is examined.

use std::time::Duration;

use super::event::{Action, Fact, Generation, SocketId, Spread, WorkerId};
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
    /// A worker of this generation finished what it had: all of that generation get their signal early, and
    /// one of the next does, while it is examined.
    Finishes(Generation),
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
        Handling::Finishes(_) => HELD_AGAIN,
    };
    most.min(policy.kill_timeout / 2)
}

fn promptly(policy: &Policy) -> Duration {
    PROMPTLY.min(policy.kill_timeout / 4)
}

/// Exams of one generation that may come to nothing.
const TRIES: u8 = 3;

impl App {
    /// A look at a draining worker was answered: is it done, or told to stop early, or examined first?
    pub(super) fn go_on(&mut self, slot: usize, place: usize, done: bool, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        let Phase::Draining(leaving) = &found.phase else { return };
        let (cause, seen) = (leaving.cause, leaving.seen);
        if found.exam == Exam::Asked {
            return;
        }
        if done && (self.is_another_going(turn.now) || self.is_another_examined()) {
            return self.hold_on(slot, place, turn.now);
        }
        let early = !done && seen.queued == 0 && self.handling != Handling::Unproven;
        // Whom nobody asks again and again cannot lose by being told late.
        let matters = early || (done && seen.ended > 0);
        let passed = self.handling == Handling::Finishes(found.generation);
        if !passed && matters && self.examine(slot, place, turn) {
            return;
        }
        if done {
            self.stop(slot, place, cause, turn);
        } else if early && (passed || turn.has(Bug::TrustsTheUnexamined)) {
            self.tell_early(slot, place, turn);
        }
    }

    /// It is told to stop once it is known what becomes of who was told before it; what was seen of it until then
    /// says nothing any more.
    fn hold_on(&mut self, slot: usize, place: usize, now: Time) {
        let until = self.going.map(|going| going.until).filter(|until| *until > now);
        if let Phase::Draining(leaving) = &mut self.slots[slot].workers[place].phase {
            leaving.look_again();
            leaving.look_not_before(until);
        }
    }

    /// Whether a worker is about to be told to stop with a request of ours under way: another one that is told
    /// meanwhile would spoil that.
    fn is_another_examined(&self) -> bool {
        self.workers().any(|worker| worker.exam == Exam::Asked)
    }

    /// The moment passed before the answer came, which may happen on a busy host: nothing was shown.
    fn examine_another_time(&mut self) {
        let (generation, times) = self.unshown;
        let times = if generation == self.examined { times.saturating_add(1) } else { 1 };
        self.unshown = (self.examined, times);
        if times < TRIES {
            self.examined = Generation::default();
        }
    }

    /// Orders the connection, once a generation; false when there is none to be made.
    fn examine(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) -> bool {
        let found = &self.slots[slot].workers[place];
        let (worker, generation) = (found.id, found.generation);
        let hurried = self.policy(generation).kill_timeout < LEAST_KILL_TIMEOUT || turn.end.is_some();
        if hurried || self.examined == generation {
            return false;
        }
        let Some((socket, position, active)) = self.sockets.place_of(worker) else { return false };
        turn.out.push(Action::Examine { worker, socket, position, active });
        self.examined = generation;
        self.slots[slot].workers[place].exam = Exam::Asked;
        true
    }

    /// Generations of which an exam decides soon whether their workers get their signal early: until then
    /// nobody ends their connections for them.
    pub(super) fn being_examined(&self) -> Vec<Generation> {
        if self.handling == Handling::Unproven {
            return Vec::new();
        }
        let under_way = |worker: &&Worker| match worker.exam {
            Exam::Asked | Exam::Holding { .. } => true,
            Exam::None | Exam::Free { .. } => false,
        };
        self.workers().filter(under_way).map(|worker| worker.generation).collect()
    }

    /// The worker was told, and finishes by itself.
    pub(super) fn tell_early(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        if let Phase::Draining(leaving) = &found.phase {
            let worker = found.id;
            found.phase = Phase::Finishing(leaving.clone());
            self.tell_to_stop(worker, turn);
            turn.changed = true;
        }
    }

    /// The worker holds an unfinished request of ours, or does not, or not any more.
    pub(super) fn examining(&mut self, worker: WorkerId, holds: bool, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        if found.exam == Exam::None {
            return;
        }
        let asked = found.exam == Exam::Asked;
        let until = turn.now + held(self.handling, self.policy(found.generation));
        if let (true, true, Phase::Draining(leaving)) = (asked, holds, &found.phase) {
            let (cause, done) = (leaving.cause, leaving.is_done());
            if done && self.is_another_going(turn.now) {
                self.hold_on(slot, place, turn.now);
            } else if done || self.handling != Handling::Unproven {
                self.slots[slot].workers[place].exam = Exam::Holding { until };
                return if done {
                    self.stop(slot, place, cause, turn);
                } else {
                    self.tell_early(slot, place, turn);
                };
            }
            self.examine_another_time();
        }
        self.slots[slot].workers[place].exam = Exam::None;
        if holds {
            turn.out.push(Action::LetGo { worker });
        }
    }

    /// Lets the request go when it was held long enough. Who was known to finish, and lives on, still does.
    pub(super) fn tick_exam(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &mut self.slots[slot].workers[place];
        if found.exam.deadline().is_some_and(|at| turn.is_due(at)) {
            turn.out.push(Action::LetGo { worker: found.id });
            found.exam = Exam::Free { since: turn.now };
            let generation = found.generation;
            if self.handling != Handling::Unproven {
                self.learn(Handling::Finishes(generation), turn);
            }
        }
    }

    /// The worker's first process ended: what its exam showed.
    pub(super) fn conclude_exam(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        if matches!(found.phase, Phase::Killed { .. }) {
            return;
        }
        let finishes = Handling::Finishes(found.generation);
        let promptly = promptly(self.policy(found.generation));
        match found.exam {
            Exam::Holding { .. } if turn.has(Bug::AnyExitFinishes) => self.learn(finishes, turn),
            Exam::Holding { .. } => self.learn(Handling::Unproven, turn),
            Exam::Free { since } if turn.now - since <= promptly => self.learn(finishes, turn),
            Exam::None | Exam::Asked | Exam::Free { .. } => {}
        }
    }

    fn learn(&mut self, shown: Handling, turn: &mut Turn<'_>) {
        let knew = self.handling != Handling::Unproven;
        let finishes = shown != Handling::Unproven;
        self.handling = shown;
        if knew != finishes {
            turn.report(Fact::Examined { app: self.id, finishes });
        }
    }
}

/// Where a worker's exam is made: a socket of its, that socket's position in the kernel's array, and who is
/// steered to.
pub(super) type Place = (SocketId, u32, Spread);
