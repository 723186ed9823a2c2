//! What a worker's tree uses of the CPU and of memory, as `list` shows it.
//!
//! Looking at a tree takes a few reads of /proc for each process of it, and the kernel counts CPU time in ticks of
//! 10 ms: who asks ten times in a second is told the same, which costs nothing and says more than a share over
//! the last millisecond would.

use std::time::Duration;

use crate::supervisor::event::WorkerId;

use super::Daemon;

/// For so long a look is told again.
const FRESH: Duration = Duration::from_millis(500);

/// What a worker used since it was started counts as used over at least so long.
const SHORTEST: Duration = Duration::from_millis(100);

/// One look at a tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    at: Duration,
    seconds: f64,
    pub(super) cpu_percent: f64,
    pub(super) memory_bytes: u64,
}

impl Usage {
    /// After a look at `now`, a time since the supervisor's start. `seconds`: CPU time of the tree in all; what
    /// the look before it had is taken off, or for the first one all is since the worker's start, `uptime` ago.
    fn after(
        before: Option<Usage>,
        now: Duration,
        uptime: Duration,
        seconds: f64,
        memory_bytes: u64,
    ) -> Usage {
        let (used, over) = match before {
            // A process that ended took its time with it.
            Some(before) => ((seconds - before.seconds).max(0.0), now.saturating_sub(before.at)),
            None => (seconds, uptime.max(SHORTEST)),
        };
        let percent = if over.is_zero() { 0.0 } else { 100.0 * used / over.as_secs_f64() };
        Usage { at: now, seconds, cpu_percent: (10.0 * percent).round() / 10.0, memory_bytes }
    }

    /// `since`: for a list that is being put together since then, which takes its time where there are many.
    fn is_fresh(&self, now: Duration, since: Option<Duration>) -> bool {
        now.saturating_sub(self.at) < FRESH || since.is_some_and(|since| self.at >= since)
    }
}

impl Daemon {
    /// Whether the last look at a worker is told again; also of one that there is nothing to be seen of.
    pub(super) fn is_usage_fresh(&self, worker: WorkerId) -> bool {
        let Some(process) = self.processes.get(worker) else { return true };
        process.usage.is_some_and(|usage| usage.is_fresh(self.clock.since_start(), None))
    }

    /// Of the whole tree; none where /proc shows nothing of it.
    pub(super) fn usage(&mut self, worker: WorkerId, uptime: Duration) -> Option<Usage> {
        let before = self.processes.get(worker)?.usage;
        let (now, since) = (self.clock.since_start(), self.lookings.since());
        if let Some(before) = before.filter(|before| before.is_fresh(now, since)) {
            return Some(before);
        }
        let stats = self.processes.stats_of(worker);
        if stats.is_empty() {
            return None;
        }
        let ticks: u64 = stats.iter().map(|s| s.ticks).sum();
        let seconds = ticks as f64 / self.surroundings.ticks_per_second as f64;
        let memory = stats.iter().map(|s| s.resident_pages).sum::<u64>() * self.surroundings.page_size;
        // After the look, which may have taken its time on a busy host: a little less is told rather than more.
        let now = self.clock.since_start();
        let usage = Usage::after(before, now, uptime, seconds, memory);
        self.processes.get_mut(worker)?.usage = Some(usage);
        Some(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_first_look_counts_from_the_start_and_the_next_ones_from_the_last() {
        let first = Usage::after(None, ms(10_000), ms(2000), 1.0, 4096);
        assert_eq!((first.cpu_percent, first.memory_bytes), (50.0, 4096));
        let second = Usage::after(Some(first), ms(11_000), ms(3000), 1.25, 8192);
        assert_eq!((second.cpu_percent, second.memory_bytes), (25.0, 8192));
    }

    #[test]
    fn a_look_counts_for_half_a_second_and_for_the_list_that_it_was_for() {
        let seen = Usage::after(None, ms(10_000), ms(2000), 1.0, 4096);
        for (now, since, expected) in [
            (ms(10_499), None, true),
            (ms(10_500), None, false),
            (ms(20_000), Some(ms(9_900)), true),
            (ms(20_000), Some(ms(10_001)), false),
        ] {
            assert_eq!(seen.is_fresh(now, since), expected, "{now:?}, {since:?}");
        }
    }

    #[test]
    fn one_tick_of_a_worker_that_was_just_started_is_no_thousand_percent() {
        assert_eq!(Usage::after(None, ms(10_000), ms(1), 0.01, 0).cpu_percent, 10.0);
    }

    #[test]
    fn processes_that_ended_make_no_negative_share() {
        let before = Usage::after(None, ms(10_000), ms(5000), 3.0, 0);
        assert_eq!(Usage::after(Some(before), ms(11_000), ms(6000), 0.5, 0).cpu_percent, 0.0);
    }

    #[test]
    fn a_look_is_told_again_for_half_a_second() {
        let look = Usage::after(None, ms(10_000), ms(5000), 3.0, 0);
        assert!(look.is_fresh(ms(10_499), None) && !look.is_fresh(ms(10_500), None));
    }
}
