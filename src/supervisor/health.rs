//! Checks of one worker from outside (`health`, and `ready = "http:/path"`): when it is asked, and what its
//! answers come to. How it is asked is the shell's matter.

use std::time::Duration;

use super::Bug;
use super::app::{App, Turn};
use super::event::{Action, Proof, Question, Trouble, WorkerId};
use super::policy::{Door, Policy, Readiness, Way};
use super::time::Time;
use super::worker::Phase;

/// Between two questions to a worker that is not ready, and to one that was never healthy yet and may still
/// take its time (`start_period`).
const SOON: Duration = Duration::from_millis(250);

/// How much of the pause between two questions is spread.
const SPREAD: Duration = Duration::from_secs(10);

/// How long a worker may take to answer whether it is ready.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// The state of the questions to one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Check {
    next: Next,
    /// Answers in a row that were not good.
    failures: u32,
    trust: Trust,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Next {
    /// It is not asked.
    #[default]
    Never,
    /// The next question is due then.
    At(Time),
    /// One was asked, and the answer is awaited.
    Asked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Trust {
    /// It needs no good answer, or has given one.
    #[default]
    Earned,
    /// It has not given one yet.
    Open,
    /// As before, and it has been ready for `min_healthy_time`: the answer is all that is missing.
    Awaited,
}

/// Where a worker that starts is asked.
fn ready_door(readiness: Readiness) -> Door {
    match readiness {
        Readiness::Http(door) => door,
        Readiness::Auto
        | Readiness::Word
        | Readiness::Notify
        | Readiness::Ipc
        | Readiness::Listen
        | Readiness::Exec => Door::Any(None),
    }
}

impl Check {
    /// The first question to a program that has just begun to run.
    pub(super) fn of_starting(policy: &Policy, now: Time) -> Check {
        match policy.ready {
            Readiness::Http(_) => Check { next: Next::At(now), ..Check::default() },
            Readiness::Auto
            | Readiness::Word
            | Readiness::Notify
            | Readiness::Ipc
            | Readiness::Listen
            | Readiness::Exec => Check::default(),
        }
    }

    /// The first question to a worker that has become ready: at once, since a reload may wait for it.
    pub(super) fn of_ready(policy: &Policy, now: Time) -> Check {
        match policy.health {
            Some(_) => Check { next: Next::At(now), failures: 0, trust: Trust::Open },
            None => Check::default(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self.next {
            Next::At(at) => Some(at),
            Next::Never | Next::Asked => None,
        }
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.trust == Trust::Earned
    }

    pub(super) fn bad_answers(&self) -> u32 {
        self.failures
    }

    /// What it was asked and has not answered.
    pub(super) fn asked(&self, ready: bool) -> Option<Question> {
        match self.next {
            Next::Asked if ready => Some(Question::Health),
            Next::Asked => Some(Question::Ready),
            Next::Never | Next::At(_) => None,
        }
    }

    /// Whether its health is not proven. From here on it is what its reload waits for.
    pub(super) fn is_missed(&mut self) -> bool {
        match self.trust {
            Trust::Earned => false,
            Trust::Open | Trust::Awaited => {
                self.trust = Trust::Awaited;
                true
            }
        }
    }

    pub(super) fn normalized(&self, ahead: &dyn Fn(Time) -> Time) -> Check {
        let next = match self.next {
            Next::At(at) => Next::At(ahead(at)),
            Next::Never | Next::Asked => self.next,
        };
        Check { next, ..*self }
    }
}

impl App {
    /// Orders the question that is due.
    pub(super) fn probe(&mut self, slot: usize, place: usize, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        let policy = self.policy(found.generation);
        let (worker, ready) = (found.id, found.is_ready());
        let (question, timeout, way) = match &policy.health {
            Some(health) if ready => (Question::Health, health.timeout, health.way),
            Some(_) | None => (Question::Ready, READY_PATIENCE, Way::Connection(ready_door(policy.ready))),
        };
        let place_of = match way {
            Way::Connection(door) => self.sockets.probed_at(worker, door),
            Way::Command => None,
        };
        self.slots[slot].workers[place].watch.check.next = Next::Asked;
        turn.out.push(Action::Probe { worker, question, timeout, spot: place_of });
    }

    /// The answer to `Action::Probe`.
    pub(super) fn probed(&mut self, worker: WorkerId, question: Question, passed: bool, turn: &mut Turn<'_>) {
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        if found.watch.check.next != Next::Asked {
            return;
        }
        let (starting, ready) = (found.is_starting(), found.is_ready());
        match question {
            Question::Ready if starting && passed => {
                self.sockets.said_ready(worker);
                self.promote(slot, place, Proof::Answered, turn);
            }
            Question::Ready if starting => self.ask_at(slot, place, turn.now + SOON),
            Question::Health if ready => self.judge(slot, place, passed, turn),
            // It leaves, or the answer is to what it was asked before it was ready.
            Question::Ready | Question::Health => {}
        }
    }

    /// It could not be asked: what was known of it stays, and it is asked again when the next question is due.
    pub(super) fn unasked(&mut self, worker: WorkerId, question: Question, turn: &mut Turn<'_>) {
        if turn.has(Bug::UnaskedIsBad) {
            return self.probed(worker, question, false, turn);
        }
        let Some((slot, place)) = self.find(worker) else { return };
        let found = &self.slots[slot].workers[place];
        if found.watch.check.next != Next::Asked {
            return;
        }
        match (question, self.policy(found.generation).health) {
            (Question::Ready, _) if found.is_starting() => self.ask_at(slot, place, turn.now + SOON),
            (Question::Health, Some(health)) if found.is_ready() => {
                // A reload may wait for its first good answer.
                let early = found.watch.check.trust != Trust::Earned;
                self.ask_after(
                    slot,
                    place,
                    if early { SOON.min(health.interval) } else { health.interval },
                    turn,
                );
            }
            (Question::Ready | Question::Health, _) => {}
        }
    }

    fn ask_at(&mut self, slot: usize, place: usize, at: Time) {
        self.slots[slot].workers[place].watch.check.next = Next::At(at);
    }

    fn judge(&mut self, slot: usize, place: usize, passed: bool, turn: &mut Turn<'_>) {
        let found = &self.slots[slot].workers[place];
        let Some(health) = self.policy(found.generation).health else { return };
        let (young, busy) = (turn.now - found.spawned < health.start_period, found.watch.busy.is_some());
        let found = &mut self.slots[slot].workers[place];
        let check = &mut found.watch.check;
        let excused = busy || (young && check.trust != Trust::Earned);
        if passed {
            check.failures = 0;
            if std::mem::take(&mut check.trust) == Trust::Awaited
                && let Phase::Ready { soak_until, .. } = &mut found.phase
            {
                *soak_until = Some(turn.now);
            }
        } else if !excused {
            check.failures = check.failures.saturating_add(1);
        }
        let check = &self.slots[slot].workers[place].watch.check;
        let limit = if turn.has(Bug::OneBadAnswerIsEnough) { 1 } else { health.retries };
        if check.failures >= limit {
            return self.unwell(slot, place, Trouble::Checks(limit), turn);
        }
        let early = excused && check.trust != Trust::Earned;
        let pause = if early { SOON.min(health.interval) } else { health.interval };
        self.ask_after(slot, place, pause, turn);
    }

    fn ask_after(&mut self, slot: usize, place: usize, pause: Duration, turn: &mut Turn<'_>) {
        // Workers that became ready together are not asked together for ever.
        let spread = pause.min(SPREAD);
        let at = turn.now + (pause - spread) + turn.jitter.spread(spread);
        self.ask_at(slot, place, at);
    }
}
