//! What the service manager above this supervisor is told, and when (sd_notify(3)): that all apps have started, that
//! they are reloaded, that they are stopped, that more time is needed, and that the loop goes round.

use std::time::Duration;

use super::time::Time;

/// While something starts or is reloaded the manager's limit is moved so far ahead, and again after a third of it:
/// how long a start may take is decided by `listen_timeout` of each app, not by the unit.
const MORE_TIME: Duration = Duration::from_secs(60);

/// A stop that has had its time may still have to kill, to write what is left, and to end.
const LAST_TIME: Duration = Duration::from_secs(10);

/// At most so often it is told how things stand, and looked whether a start is over.
const STATUS_EVERY: Duration = Duration::from_millis(500);

/// And while neither a start nor a reload is under way: a look at every worker costs.
const CALM_STATUS_EVERY: Duration = Duration::from_secs(2);

/// The shortest time between two signs of life, whatever the manager wants.
const SHORTEST_SIGN: Duration = Duration::from_millis(10);

/// One thing that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// `READY=1`: started, or done with a reload.
    Ready,
    /// `RELOADING=1`, with the time.
    Reloading,
    /// `STOPPING=1`.
    Stopping,
    /// `EXTEND_TIMEOUT_USEC=`: it is busy for so long, or will say so again before that.
    Extend(Duration),
    /// `WATCHDOG=1`.
    Alive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// What was told until now.
#[derive(Clone, Debug)]
pub struct Announcer {
    phase: Phase,
    /// A reload was asked for that was not told yet.
    asked: bool,
    extended: Option<Time>,
    /// So long the manager waits for a sign of life, and when it got the last one.
    watchdog: Option<(Duration, Option<Time>)>,
    /// Something happened since the state was told.
    changed: bool,
    looked: Option<Time>,
    status: String,
}

impl Announcer {
    /// `watchdog`: how long the manager waits for a sign of life; none where it does not.
    pub fn new(watchdog: Option<Duration>) -> Announcer {
        Announcer {
            phase: Phase::Starting,
            asked: false,
            extended: None,
            watchdog: watchdog.map(|limit| (limit, None)),
            changed: true,
            looked: None,
            status: String::new(),
        }
    }

    /// Whether `READY=1` is still to come for the first time.
    pub fn is_starting(&self) -> bool {
        self.phase == Phase::Starting
    }

    /// A reload begins: who asked for one waits for word of it, even if there is nothing to be done.
    pub fn reload(&mut self) {
        self.asked = true;
    }

    /// Everything is about to be stopped, within that time. `well`: it ends with code 0. Before the start was over
    /// that would be taken for a failure by a manager that was not told of the start's end, and jobs that are done at
    /// once would be started again and again.
    pub fn stop(&mut self, within: Duration, well: bool) -> Vec<Word> {
        let before = std::mem::replace(&mut self.phase, Phase::Stopping);
        if before == Phase::Stopping {
            return Vec::new();
        }
        let started = (before == Phase::Starting && well).then_some(Word::Ready);
        let ends = [Word::Stopping, Word::Extend(within.saturating_add(LAST_TIME))];
        started.into_iter().chain(ends).collect()
    }

    /// What is to be told now. `starting`: something that was to start with the supervisor has not yet; `reloading`:
    /// a reload is not over.
    pub fn say(&mut self, starting: bool, reloading: bool, now: Time) -> Vec<Word> {
        let mut words = Vec::new();
        if self.phase == Phase::Starting && !starting {
            self.enter(Phase::Ready, Word::Ready, &mut words);
        }
        // Also during one: the manager goes by the time of the last word.
        if matches!(self.phase, Phase::Ready | Phase::Reloading) && std::mem::take(&mut self.asked) {
            self.enter(Phase::Reloading, Word::Reloading, &mut words);
        }
        if self.phase == Phase::Reloading && !reloading {
            self.enter(Phase::Ready, Word::Ready, &mut words);
        }
        let due = |at: Option<Time>, every: Duration| at.is_none_or(|at| now.since(at) >= every);
        if matches!(self.phase, Phase::Starting | Phase::Reloading) && due(self.extended, MORE_TIME / 3) {
            self.extended = Some(now);
            words.push(Word::Extend(MORE_TIME));
        }
        if let Some((limit, last)) = &mut self.watchdog
            && due(*last, half(*limit))
        {
            *last = Some(now);
            words.push(Word::Alive);
        }
        words
    }

    fn enter(&mut self, phase: Phase, word: Word, words: &mut Vec<Word>) {
        self.phase = phase;
        self.extended = None;
        self.changed = true;
        words.push(word);
    }

    /// Something happened that may change how things stand.
    pub fn touch(&mut self) {
        self.changed = true;
    }

    /// Whether it is time to look how things stand. True once, and then not for a while.
    pub fn is_due(&mut self, now: Time) -> bool {
        let due = self.changed && self.looked.is_none_or(|at| now.since(at) >= self.pause());
        if due {
            self.looked = Some(now);
            self.changed = false;
        }
        due
    }

    fn pause(&self) -> Duration {
        match self.phase {
            Phase::Starting | Phase::Reloading => STATUS_EVERY,
            Phase::Ready | Phase::Stopping => CALM_STATUS_EVERY,
        }
    }

    /// How things stand; what is to be told of it, if that is not what was told last.
    pub fn status(&mut self, text: String) -> Option<&str> {
        if text == self.status {
            return None;
        }
        self.status = text;
        Some(&self.status)
    }

    /// When to come back at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let at = |last: Option<Time>, every: Duration| last.map_or(Time::START, |last| last + every);
        let extends = matches!(self.phase, Phase::Starting | Phase::Reloading);
        let extension = extends.then(|| at(self.extended, MORE_TIME / 3));
        let sign = self.watchdog.map(|(limit, last)| at(last, half(limit)));
        let look = self.changed.then(|| at(self.looked, self.pause()));
        [extension, sign, look].into_iter().flatten().min()
    }
}

/// When a sign of life is due: half of what the manager waits for.
fn half(limit: Duration) -> Duration {
    (limit / 2).max(SHORTEST_SIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    const EXTEND: Word = Word::Extend(MORE_TIME);

    #[test]
    fn a_start_asks_for_more_time_until_it_is_over_and_says_so_once() {
        let mut host = Announcer::new(None);
        assert_eq!(host.say(true, true, at(0)), [EXTEND]);
        assert_eq!(host.say(true, true, at(19)), []);
        assert_eq!(host.say(true, true, at(20)), [EXTEND]);
        assert_eq!(host.say(false, false, at(21)), [Word::Ready]);
        assert_eq!(host.say(true, true, at(60)), [], "what starts later is no start of the supervisor");
        assert_eq!(host.say(false, false, at(90)), []);
    }

    #[test]
    fn every_reload_that_is_asked_for_is_told_even_one_that_does_nothing() {
        let mut host = Announcer::new(None);
        host.reload();
        assert_eq!(host.say(false, false, at(0)), [Word::Ready, Word::Reloading, Word::Ready]);
        host.reload();
        assert_eq!(host.say(true, true, at(1)), [Word::Reloading, EXTEND]);
        assert_eq!(host.say(true, true, at(2)), []);
        host.reload();
        assert_eq!(host.say(true, true, at(3)), [Word::Reloading, EXTEND], "a newer one, with its own time");
        assert_eq!(host.say(false, false, at(4)), [Word::Ready]);
    }

    #[test]
    fn a_reload_that_was_asked_for_during_the_start_is_told_after_it_until_it_is_over() {
        let mut host = Announcer::new(None);
        assert_eq!(host.say(true, false, at(0)), [EXTEND]);
        host.reload();
        assert_eq!(host.say(true, true, at(1)), []);
        assert_eq!(host.say(false, true, at(2)), [Word::Ready, Word::Reloading, EXTEND]);
        assert_eq!(host.say(false, false, at(3)), [Word::Ready]);
    }

    #[test]
    fn what_is_done_before_it_has_started_has_started() {
        let last = Word::Extend(LAST_TIME);
        let mut host = Announcer::new(None);
        assert_eq!(host.stop(Duration::ZERO, true), [Word::Ready, Word::Stopping, last]);
        let mut host = Announcer::new(None);
        assert_eq!(host.stop(Duration::ZERO, false), [Word::Stopping, last], "a failure is one");
        let mut host = Announcer::new(None);
        assert_eq!(host.say(false, false, at(0)), [Word::Ready]);
        assert_eq!(host.stop(Duration::ZERO, true), [Word::Stopping, last]);
    }

    #[test]
    fn the_end_is_told_once_and_nothing_but_life_after_it() {
        let mut host = Announcer::new(Some(Duration::from_secs(10)));
        assert_eq!(host.say(true, true, at(0)), [EXTEND, Word::Alive]);
        let last = Word::Extend(Duration::from_secs(8) + LAST_TIME);
        assert_eq!(host.stop(Duration::from_secs(8), false), [Word::Stopping, last]);
        assert_eq!(host.stop(Duration::from_secs(8), false), []);
        host.reload();
        assert_eq!(host.say(true, true, at(5)), [Word::Alive]);
        assert_eq!(host.say(false, false, at(6)), []);
    }

    #[test]
    fn life_is_told_at_half_of_the_time_and_the_loop_comes_back_for_it() {
        let mut host = Announcer::new(Some(Duration::from_secs(4)));
        assert_eq!(host.say(false, false, at(1)), [Word::Ready, Word::Alive]);
        assert!(host.is_due(at(1)));
        assert_eq!(host.next_deadline(), Some(at(3)));
        assert_eq!(host.say(false, false, at(2)), []);
        assert_eq!(host.say(false, false, at(3)), [Word::Alive]);
        assert_eq!(host.next_deadline(), Some(at(5)));
    }

    #[test]
    fn how_things_stand_is_looked_at_after_changes_and_told_when_it_is_new() {
        let mut host = Announcer::new(None);
        assert!(host.is_due(at(0)));
        assert_eq!(host.status("1/2".into()), Some("1/2"));
        host.touch();
        assert!(!host.is_due(at(0)), "not so soon");
        assert!(host.is_due(at(1)));
        assert_eq!(host.status("1/2".into()), None);
        assert!(!host.is_due(at(9)), "nothing happened");
        assert_eq!(host.say(false, false, at(9)), [Word::Ready]);
        assert_eq!(host.next_deadline(), Some(at(1) + CALM_STATUS_EVERY));
    }

    #[test]
    fn who_expects_nothing_costs_nothing() {
        let mut host = Announcer::new(None);
        assert_eq!(host.say(false, false, at(0)), [Word::Ready]);
        assert!(host.is_due(at(0)));
        assert_eq!(host.next_deadline(), None);
    }
}
