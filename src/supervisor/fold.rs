//! What a crash loop may write into the log: a worker that ends the same way again and again is told
//! of in full a few times, then by a line that counts.
//!
//! It hears every fact and says how it is to be told; it changes no decision, renders nothing and reads
//! no clock. Clients that follow a command are told everything, folded or not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{AppId, Cause, ExitStatus, Fact, SlotId, WorkerId};
use super::time::Time;
use super::worker::earlier;

/// So many ends of a kind in a row are told in full.
const FULL: u32 = 3;

/// Beyond them each doubling is told, and one at least in this time: whoever looks must see that it
/// still goes on.
const QUIET: Duration = Duration::from_secs(600);

/// A worker that stays ready for so long has ended its slot's loop.
const STEADY: Duration = Duration::from_secs(2);

/// Slots that are remembered; beyond them the oldest slot is told of in full again.
const SLOTS: usize = 4096;

/// How a fact is to be told in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// As it is.
    Whole,
    /// Not at all: lines like it were written, and a count follows.
    Not,
    /// As one of so many in a row.
    Again {
        /// Ends of this kind in a row, this one among them.
        times: u32,
        /// Since the first of them.
        within: Duration,
    },
}

/// A worker that stays up where a loop was folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steady {
    /// Who.
    pub worker: WorkerId,
    /// How often its slot failed before.
    pub times: u32,
}

/// How a worker ended, as far as ends are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Exit(ExitStatus, Cause),
    Spawn { step: String, errno: i32 },
}

/// One slot's ends of a kind in a row.
#[derive(Clone, Debug)]
struct Loop {
    app: AppId,
    kind: Kind,
    times: u32,
    first: Time,
    told: Time,
    /// Who is ready now, and since when.
    up: Option<(WorkerId, Time)>,
}

impl Loop {
    fn is_folded(&self) -> bool {
        self.times >= FULL
    }
}

/// The loops of all slots.
#[derive(Clone, Debug, Default)]
pub struct Folds {
    loops: BTreeMap<SlotId, Loop>,
}

impl Folds {
    /// How this fact is to be told.
    pub fn hear(&mut self, fact: &Fact, now: Time) -> Telling {
        match fact {
            Fact::Starting { slot, .. } => self.unless(*slot, Loop::is_folded),
            Fact::Spent { slot, .. } | Fact::Renewing { slot, .. } => self.unless(*slot, Loop::is_folded),
            Fact::BackingOff { slot, .. } => self.unless(*slot, |known| known.times > FULL),
            Fact::Ready { slot, worker, .. } => self.ready(*slot, *worker, now),
            Fact::Exited { app, slot, status, cause, .. } => match cause {
                Cause::Crash
                | Cause::Exit
                | Cause::Daemonised
                | Cause::OutOfMemory
                | Cause::Memory
                | Cause::Spawn => self.ended(*app, *slot, Kind::Exit(*status, *cause), now),
                Cause::Stop
                | Cause::Reload
                | Cause::Restart
                | Cause::Scale
                | Cause::Age
                | Cause::KillTimeout
                | Cause::Health
                | Cause::Watchdog
                | Cause::Hung => self.over(*slot),
            },
            Fact::SpawnFailed { app, slot, failure, .. } => {
                let kind = Kind::Spawn { step: failure.step.clone(), errno: failure.errno };
                self.ended(*app, *slot, kind, now)
            }
            Fact::Errored { slot, .. } => self.over(*slot),
            Fact::Draining { worker, .. } => {
                for known in self.loops.values_mut() {
                    known.up = known.up.filter(|(up, _)| up != worker);
                }
                Telling::Whole
            }
            Fact::ReloadStarted { app, .. } | Fact::Stopped { app } | Fact::Deleted { app } => {
                self.loops.retain(|_, known| known.app != *app);
                Telling::Whole
            }
            Fact::Late { .. }
            | Fact::Examined { .. }
            | Fact::Unwell { .. }
            | Fact::DrainTimedOut { .. }
            | Fact::DrainCutShort { .. }
            | Fact::KillTimedOut { .. }
            | Fact::Unkillable { .. }
            | Fact::ReloadNarrowed { .. }
            | Fact::CanaryHolds { .. }
            | Fact::CanaryPromoted { .. }
            | Fact::CronDue { .. }
            | Fact::CronPassed { .. }
            | Fact::FilesChanged { .. }
            | Fact::ReloadProgress { .. }
            | Fact::ReloadDone { .. }
            | Fact::ReloadFailed { .. }
            | Fact::Ended { .. }
            | Fact::Awaits { .. }
            | Fact::Forgone { .. } => Telling::Whole,
        }
    }

    /// When [`Folds::steady`] has something to say next.
    pub fn next_deadline(&self) -> Option<Time> {
        let ups = self.loops.values().filter_map(|known| known.up);
        ups.fold(None, |next, (_, since)| earlier(next, Some(since + STEADY)))
    }

    /// Who has been ready for long enough by now, of those whose readiness was not told; each is told of
    /// once. Whoever is, has ended its slot's loop.
    pub fn steady(&mut self, now: Time) -> Vec<Steady> {
        let mut steady = Vec::new();
        self.loops.retain(|_, known| {
            let stays = known.up.filter(|(_, since)| now >= *since + STEADY);
            let untold = stays.filter(|_| known.is_folded());
            steady.extend(untold.map(|(worker, _)| Steady { worker, times: known.times }));
            stays.is_none()
        });
        steady
    }

    fn unless(&self, slot: SlotId, folded: impl Fn(&Loop) -> bool) -> Telling {
        if self.loops.get(&slot).is_some_and(folded) { Telling::Not } else { Telling::Whole }
    }

    fn over(&mut self, slot: SlotId) -> Telling {
        self.loops.remove(&slot);
        Telling::Whole
    }

    fn ready(&mut self, slot: SlotId, worker: WorkerId, now: Time) -> Telling {
        if let Some(known) = self.loops.get_mut(&slot) {
            known.up = Some((worker, now));
        }
        self.unless(slot, Loop::is_folded)
    }

    fn ended(&mut self, app: AppId, slot: SlotId, kind: Kind, now: Time) -> Telling {
        let same =
            |known: &&mut Loop| known.kind == kind && known.up.is_none_or(|(_, since)| now < since + STEADY);
        let Some(known) = self.loops.get_mut(&slot).filter(same) else {
            self.loops.insert(slot, Loop { app, kind, times: 1, first: now, told: now, up: None });
            if self.loops.len() > SLOTS {
                self.loops.pop_first();
            }
            return Telling::Whole;
        };
        known.up = None;
        let (telling, told) = again(&mut known.times, known.first, known.told, now);
        known.told = told;
        telling
    }
}

/// How one more of a kind is to be told, and when the last one was told of then.
fn again(times: &mut u32, first: Time, told: Time, now: Time) -> (Telling, Time) {
    *times = times.saturating_add(1);
    let due = times.is_power_of_two() || now - told >= QUIET;
    if *times <= FULL {
        (Telling::Whole, now)
    } else if due {
        (Telling::Again { times: *times, within: now - first }, now)
    } else {
        (Telling::Not, told)
    }
}

/// Something that workers of an app do again and again and that is no end of theirs.
#[derive(Clone, Debug, Default)]
pub struct Repeats {
    by_app: BTreeMap<AppId, Repeated>,
}

#[derive(Clone, Copy, Debug)]
struct Repeated {
    times: u32,
    first: Time,
    told: Time,
}

impl Repeats {
    /// How it is to be told that a worker of this app did it (once more).
    pub fn hear(&mut self, app: AppId, now: Time) -> Telling {
        let known = self.by_app.entry(app).or_insert(Repeated { times: 0, first: now, told: now });
        let (telling, told) = again(&mut known.times, known.first, known.told, now);
        known.told = told;
        telling
    }

    /// The app is gone.
    pub fn forget(&mut self, app: AppId) {
        self.by_app.remove(&app);
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Proof;
    use super::*;

    const APP: AppId = AppId(1);
    const SLOT: SlotId = SlotId(0);

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn exited(code: i32, cause: Cause) -> Fact {
        let (status, lived) = (ExitStatus::Code(code), Duration::from_millis(3));
        Fact::Exited {
            app: APP,
            slot: SLOT,
            worker: WorkerId(1),
            status,
            cause,
            meant: false,
            lived,
            errno: None,
        }
    }

    fn starting() -> Fact {
        Fact::Starting { app: APP, slot: SLOT, worker: WorkerId(1) }
    }

    fn waits() -> Fact {
        Fact::BackingOff { app: APP, slot: SLOT, delay: Duration::from_secs(1), unstable: 2 }
    }

    fn ready() -> Fact {
        let (worker, after) = (WorkerId(1), Duration::from_millis(1));
        Fact::Ready { app: APP, slot: SLOT, worker, proof: Proof::Alive, after }
    }

    #[test]
    fn what_is_no_end_is_told_in_full_a_few_times_then_at_each_doubling_and_now_and_then() {
        let (mut repeats, other) = (Repeats::default(), AppId(2));
        let told: Vec<Telling> = (0..9).map(|second| repeats.hear(APP, at(second))).collect();
        let again = |times, within| Telling::Again { times, within: Duration::from_secs(within) };
        let (whole, not) = (Telling::Whole, Telling::Not);
        assert_eq!(told, [whole, whole, whole, again(4, 3), not, not, not, again(8, 7), not]);
        assert_eq!(repeats.hear(APP, at(606)), not);
        assert_eq!(repeats.hear(APP, at(607)), again(11, 607));
        assert_eq!(repeats.hear(other, at(607)), whole);
        repeats.forget(APP);
        assert_eq!(repeats.hear(APP, at(608)), whole);
    }

    /// A cycle a second; which facts of it were told, and how.
    fn cycles(folds: &mut Folds, count: u64, code: i32) -> Vec<[Telling; 3]> {
        let cycle = |second| {
            let now = at(second);
            [starting(), exited(code, Cause::Crash), waits()].map(|fact| folds.hear(&fact, now))
        };
        (0..count).map(cycle).collect()
    }

    fn folded() -> Folds {
        let mut folds = Folds::default();
        cycles(&mut folds, 10, 1);
        folds
    }

    #[test]
    fn the_first_cycles_are_told_in_full_and_then_each_doubling() {
        let told = cycles(&mut Folds::default(), 40, 1);
        assert!(told[..3].iter().all(|cycle| *cycle == [Telling::Whole; 3]), "{told:?}");
        let counted: Vec<(u32, Duration)> = told[3..]
            .iter()
            .flat_map(|cycle| {
                assert_eq!((cycle[0], cycle[2]), (Telling::Not, Telling::Not));
                let Telling::Again { times, within } = cycle[1] else { return None };
                Some((times, within))
            })
            .collect();
        let seconds = Duration::from_secs;
        assert_eq!(counted, [(4, seconds(3)), (8, seconds(7)), (16, seconds(15)), (32, seconds(31))]);
    }

    #[test]
    fn a_loop_that_goes_on_is_told_of_at_least_every_ten_minutes() {
        let told = cycles(&mut Folds::default(), 7200, 1);
        let lines = told.iter().filter(|cycle| cycle[1] != Telling::Not);
        let count = lines.count();
        assert!((16..=26).contains(&count), "{count} lines in two hours");
    }

    #[test]
    fn another_way_to_end_is_told_in_full() {
        let mut folds = folded();
        assert_eq!(folds.hear(&exited(2, Cause::Crash), at(11)), Telling::Whole);
        assert_eq!(folds.hear(&starting(), at(12)), Telling::Whole);
    }

    #[test]
    fn giving_up_and_ends_that_were_asked_for_are_told_and_end_the_loop() {
        let errored = Fact::Errored { app: APP, slot: SLOT, unstable: 16 };
        let reload = Fact::ReloadStarted { app: APP, generation: Default::default(), total: 1 };
        for change in [errored, exited(1, Cause::Stop), reload, Fact::Stopped { app: APP }] {
            let mut folds = folded();
            assert_eq!(folds.hear(&change, at(11)), Telling::Whole, "{change:?}");
            assert_eq!(folds.hear(&starting(), at(12)), Telling::Whole, "{change:?}");
        }
    }

    #[test]
    fn the_first_success_is_told_once_it_lasts() {
        let mut folds = folded();
        assert_eq!(folds.hear(&ready(), at(11)), Telling::Not);
        assert_eq!(folds.next_deadline(), Some(at(13)));
        assert_eq!(folds.steady(at(12)), []);
        assert_eq!(folds.steady(at(13)), [Steady { worker: WorkerId(1), times: 10 }]);
        assert_eq!((folds.steady(at(14)), folds.next_deadline()), (vec![], None));
        assert_eq!(folds.hear(&exited(1, Cause::Crash), at(15)), Telling::Whole);
    }

    #[test]
    fn crashes_with_a_stable_life_between_them_are_no_loop() {
        for looked_at in [true, false] {
            let mut folds = Folds::default();
            for day in 1..=10 {
                let begin = day * 86_400;
                let life = [starting(), ready()];
                assert_eq!(life.map(|fact| folds.hear(&fact, at(begin))), [Telling::Whole; 2], "{day}");
                if looked_at {
                    assert_eq!(folds.steady(at(begin + 2)), [], "it was told to be ready");
                    assert_eq!(folds.next_deadline(), None);
                }
                let end = [exited(1, Cause::Crash), waits()];
                assert_eq!(end.map(|fact| folds.hear(&fact, at(begin + 9))), [Telling::Whole; 2], "{day}");
            }
        }
    }

    #[test]
    fn a_success_that_does_not_last_is_no_news() {
        let mut folds = folded();
        folds.hear(&ready(), at(11));
        assert_eq!(folds.hear(&exited(1, Cause::Crash), at(12)), Telling::Not);
        assert_eq!(folds.next_deadline(), None);
    }

    #[test]
    fn other_slots_and_other_facts_are_told_in_full() {
        let mut folds = folded();
        let other = Fact::Starting { app: APP, slot: SlotId(1), worker: WorkerId(9) };
        assert_eq!(folds.hear(&other, at(11)), Telling::Whole);
        assert_eq!(
            folds.hear(&Fact::Late { app: APP, worker: WorkerId(9), stays: true }, at(11)),
            Telling::Whole
        );
    }

    #[test]
    fn programs_that_cannot_be_run_fold_too() {
        let mut folds = Folds::default();
        let failure = super::super::event::SpawnFailure {
            step: "exec".into(),
            errno: 2,
            message: "exec: ENOENT".into(),
            transient: false,
        };
        let fact = Fact::SpawnFailed { app: APP, slot: SLOT, worker: WorkerId(1), failure };
        let told: Vec<Telling> = (0..6).map(|second| folds.hear(&fact, at(second))).collect();
        assert_eq!(told[..3], [Telling::Whole; 3]);
        assert!(matches!(told[3..], [Telling::Again { times: 4, .. }, Telling::Not, Telling::Not]));
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let mut folds = Folds::default();
        for slot in 0..10_000 {
            let (status, lived) = (ExitStatus::Code(1), Duration::ZERO);
            let (slot, worker, cause) = (SlotId(slot), WorkerId(1), Cause::Crash);
            folds.hear(
                &Fact::Exited { app: APP, slot, worker, status, cause, meant: false, lived, errno: None },
                at(0),
            );
        }
        assert_eq!(folds.loops.len(), SLOTS);
    }
}
