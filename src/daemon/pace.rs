//! When something comes of changes to watched files: once they are at rest; and later and later where they come from
//! the app itself, which writes them each time that it starts. Pure: time is an argument.
//!
//! What an app does when it starts it does each time, and so long after its start as the time before. Somebody who
//! saves often may hit that moment once or twice, but also saves at others: from the third time on it is waited for
//! that, and one change that does not fit shows who it is. What the files are called says nothing: who saves often
//! saves the same file, and an app may write one of another name each time.

use std::time::Duration;

use crate::supervisor::time::Time;

/// A change is not put off for longer than this, or so many times `watch_delay`, while others go on coming.
const MOST_WAIT: Duration = Duration::from_secs(10);
const MOST_DELAYS: u32 = 10;

/// So long after its workers were replaced a change may be their own doing.
const SETTLING: Duration = Duration::from_secs(1);

/// How much sooner or later than after the start before an app does the same: on a busy host no two starts are alike.
const TOLERANCE: Duration = Duration::from_millis(300);

/// Moments after one start that are kept.
const MOST_MOMENTS: usize = 16;

/// So many changes in a row that seem to be the app's own doing are answered at once.
const BENEFIT: u32 = 2;

/// For so long the next one is put off, then twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait of an app that goes on changing its own files.
const LONGEST: Duration = Duration::from_secs(60);

/// So many in a row are told of.
const SUSPICIOUS: u32 = 5;

/// The changes of one app.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    /// The first and the last change since something came of any.
    since: Option<(Time, Time)>,
    /// All of these came when the app did the same after the start before.
    echoes: bool,
    /// So many times in a row that was so.
    row: u32,
    reloading: bool,
    /// Until here a change may be the doing of workers that have just started.
    settles: Time,
    /// The last start of a worker, and how long after it there were changes.
    started: Time,
    moments: Vec<Duration>,
    /// The same of the last start before it that was followed by any.
    before: Vec<Duration>,
}

impl Pace {
    /// A worker is started.
    pub(super) fn started(&mut self, now: Time) {
        self.started = now;
        self.settles = self.settles.max(now + SETTLING);
        if !self.moments.is_empty() {
            self.before = std::mem::take(&mut self.moments);
        }
    }

    /// Whether workers are being replaced now.
    pub(super) fn see(&mut self, reloading: bool, now: Time) {
        if self.reloading && !reloading {
            self.settles = now + SETTLING;
        }
        self.reloading = reloading;
    }

    /// Files have changed.
    pub(super) fn changed(&mut self, now: Time) {
        let after = now - self.started;
        let possible = self.reloading || now < self.settles;
        let echo = possible && self.before.iter().any(|moment| moment.abs_diff(after) <= TOLERANCE);
        if possible && self.moments.len() < MOST_MOMENTS {
            self.moments.push(after);
        }
        match &mut self.since {
            Some((_, last)) => {
                *last = now;
                self.echoes &= echo;
            }
            None => {
                self.since = Some((now, now));
                self.echoes = echo;
            }
        }
    }

    /// They are as they were.
    pub(super) fn taken_back(&mut self) {
        self.since = None;
    }

    /// When something is to come of the changes.
    pub(super) fn due(&self, delay: Duration) -> Option<Time> {
        let (first, last) = self.since?;
        let rest = if self.echoes { delay.max(self.wait()) } else { delay };
        Some((last + rest).min(first + rest.max(MOST_WAIT).max(delay * MOST_DELAYS)))
    }

    /// How long an echo waits.
    fn wait(&self) -> Duration {
        match self.row.checked_sub(BENEFIT) {
            Some(steps) => (FIRST_WAIT * (1 << steps.min(16))).min(LONGEST),
            None => Duration::ZERO,
        }
    }

    /// Something comes of them. True when it is told that they seem to be the app's own doing.
    pub(super) fn take(&mut self, now: Time) -> bool {
        self.row = if self.echoes { self.row + 1 } else { 0 };
        self.since = None;
        self.settles = now + SETTLING;
        self.row == SUSPICIOUS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(200);

    fn at(milliseconds: u64) -> Time {
        Time::from_start(Duration::from_millis(milliseconds))
    }

    #[test]
    fn something_comes_of_changes_once_they_are_at_rest_and_not_too_late() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(DELAY), None);
        pace.changed(at(2100));
        pace.changed(at(2250));
        assert_eq!(pace.due(DELAY), Some(at(2450)));
        for time in 23..200 {
            pace.changed(at(time * 100));
        }
        assert_eq!(pace.due(DELAY), Some(at(12_100)), "who never rests is not waited for");
        assert!(!pace.take(at(12_100)) && pace.due(DELAY).is_none());
    }

    /// How long each round of changes waited, where a worker starts as soon as something comes of them and a reload
    /// takes so long; and after which it was told. `changes`: the moments of the next ones, from the start of a worker
    /// on, by its number; none: nobody changes anything any more.
    fn waits(reload: u64, rounds: usize, changes: impl Fn(usize) -> Vec<u64>) -> (Vec<u64>, Option<usize>) {
        let mut pace = Pace::default();
        let (mut now, mut told, mut waits) = (10_000, None, Vec::new());
        pace.changed(at(now));
        for round in 0..rounds {
            let due = pace.due(DELAY).expect("a change").since_start().as_millis() as u64;
            waits.push(due - now);
            if pace.take(at(due)) {
                told = Some(round);
            }
            pace.started(at(due));
            pace.see(true, at(due));
            let mut over = false;
            for moment in changes(round) {
                if moment > reload && !over {
                    pace.see(false, at(due + reload));
                    over = true;
                }
                now = due + moment;
                // What is due before that comes first in the next round.
                if pace.due(DELAY).is_some_and(|due| due <= at(now)) {
                    break;
                }
                pace.changed(at(now));
            }
            if pace.due(DELAY).is_none() {
                break;
            }
        }
        (waits, told)
    }

    #[test]
    fn what_an_app_writes_at_each_start_is_answered_more_and_more_rarely() {
        for (jitter, moments) in [(0, &[20][..]), (250, &[100]), (0, &[20, 150]), (100, &[2500])] {
            let changes =
                |round: usize| moments.iter().map(|moment| moment + jitter * (round as u64 % 2)).collect();
            let (waits, told) = waits(3000, 14, changes);
            assert_eq!(waits[..8], [200, 200, 200, 200, 500, 1000, 2000, 4000], "{moments:?}");
            assert!(waits[13] > 59_000 && waits[13] <= 60_000, "{moments:?}: {waits:?}");
            assert_eq!(told, Some(6), "{moments:?}");
        }
    }

    #[test]
    fn who_saves_often_is_answered_each_time() {
        // Milliseconds from one save to the next; a save may come while workers are still being replaced.
        for saves in [
            &[700, 900, 1100, 600, 1400, 800, 1000, 500, 1200][..],
            &[1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000],
            &[300, 300, 300, 300, 300, 300, 300, 300, 300],
            &[2500, 1500, 900, 2200, 3000, 400, 1800, 700],
        ] {
            for reload in [50, 1200, 4000] {
                let mut pace = Pace::default();
                let (mut now, mut begun) = (10_000u64, 0u64);
                let mut longest = 0;
                pace.changed(at(now));
                for pause in saves {
                    let next = now + pause;
                    if let Some(due) = pace.due(DELAY).filter(|due| *due <= at(next)) {
                        longest = longest.max((due - at(now)).as_millis());
                        assert!(!pace.take(due), "told of after {saves:?}");
                        pace.started(due);
                        begun = due.since_start().as_millis() as u64;
                        pace.see(true, due);
                    }
                    if next > begun + reload {
                        pace.see(false, at(begun + reload));
                    }
                    now = next;
                    pace.changed(at(now));
                }
                assert!(longest <= 1000, "{saves:?}, {reload} ms: one of them waited for {longest} ms");
                let last = pace.due(DELAY).expect("the last save") - at(now);
                assert!(last <= FIRST_WAIT, "{saves:?}, {reload} ms: the last waits for {last:?}");
            }
        }
    }

    #[test]
    fn one_change_that_does_not_fit_shows_that_somebody_edits() {
        let mut pace = Pace::default();
        let mut now = 10_000;
        for _ in 0..10 {
            pace.started(at(now));
            pace.see(true, at(now));
            pace.changed(at(now + 50));
            now = pace.due(DELAY).expect("a change").since_start().as_millis() as u64;
            pace.take(at(now));
        }
        pace.started(at(now));
        pace.changed(at(now + 50));
        pace.changed(at(now + 9000));
        assert_eq!(pace.due(DELAY), Some(at(now + 9200)));
        pace.take(at(now + 9200));
        pace.started(at(now + 9200));
        pace.changed(at(now + 9250));
        assert_eq!(pace.due(DELAY), Some(at(now + 9450)), "it begins anew");
    }
}
