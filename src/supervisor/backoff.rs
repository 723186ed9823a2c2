//! Failures become delays: when a slot's next worker may start, and when the slot is given up.
//!
//! It knows nothing of workers and reads no clock; it refuses to count failures of the host.

use std::time::Duration;

use super::policy::Policy;

/// The delay never grows beyond this.
pub const CAP: Duration = Duration::from_secs(15);

/// First wait after a failure of the host; the growth is the same as for crashes.
const HICCUP: Duration = Duration::from_millis(100);

/// From here on [`HICCUP`] is at the cap, so that counting further would only grow the state.
const HICCUPS: u32 = 14;

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start again at once.
    Now,
    /// Start again after this long.
    Wait(Duration),
    /// Do not start again: too many unstable exits in a row.
    GiveUp,
}

/// One slot's failures in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backoff {
    unstable: u32,
    hiccups: u32,
    gave_up: bool,
}

impl Backoff {
    /// Unstable exits in a row.
    pub fn unstable(&self) -> u32 {
        self.unstable
    }

    /// The last failure was one too many.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// A worker ran long enough, or someone asked for a start: what failed before no longer counts.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }

    /// Failures so far do not count any more; what came of them stays.
    pub fn forget_count(&mut self) {
        self.unstable = 0;
    }

    /// The program was started: the host is able to.
    pub fn started(&mut self) {
        self.hiccups = 0;
    }

    /// A worker ended unasked after `lived`.
    pub fn exited(&mut self, lived: Duration, policy: &Policy, jitter: &mut Jitter) -> Next {
        if lived >= policy.min_uptime {
            self.reset();
            return wait(policy.restart_delay);
        }
        self.failed(policy, jitter)
    }

    /// A worker could not be started, through no fault of the host.
    pub fn failed(&mut self, policy: &Policy, jitter: &mut Jitter) -> Next {
        self.unstable = self.unstable.saturating_add(1);
        if policy.max_restarts > 0 && self.unstable >= policy.max_restarts {
            self.gave_up = true;
            return Next::GiveUp;
        }
        wait(self.delay(policy, jitter))
    }

    /// A worker could not be started, and nobody is to try again.
    pub fn give_up(&mut self) -> Next {
        self.unstable = self.unstable.saturating_add(1);
        self.gave_up = true;
        Next::GiveUp
    }

    /// After one failure too many, where another worker serves on that may need a successor all the same: how
    /// long to wait for the next try. The count stays where it is.
    pub fn go_on(&mut self, policy: &Policy, jitter: &mut Jitter) -> Duration {
        self.gave_up = false;
        self.unstable = self.unstable.min(policy.max_restarts.max(1));
        jitter.spread(CAP).max(policy.restart_delay)
    }

    /// The host could not start a worker; not charged to the app.
    pub fn hiccup(&mut self, policy: &Policy, jitter: &mut Jitter) -> Duration {
        self.hiccups = (self.hiccups + 1).min(HICCUPS);
        jitter.spread(grown(HICCUP, self.hiccups - 1)).max(policy.restart_delay)
    }

    /// The last that failed was the host.
    pub fn waits_for_the_host(&self) -> bool {
        self.hiccups > 0
    }

    /// The host has been failing for so long that the wait no longer grows.
    pub fn is_stuck(&self) -> bool {
        self.hiccups >= HICCUPS
    }

    fn delay(&self, policy: &Policy, jitter: &mut Jitter) -> Duration {
        let first = policy.exp_backoff_restart_delay;
        if self.unstable <= 1 || first.is_zero() {
            return policy.restart_delay;
        }
        jitter.spread(grown(first, self.unstable - 2)).max(policy.restart_delay)
    }
}

fn wait(delay: Duration) -> Next {
    if delay.is_zero() { Next::Now } else { Next::Wait(delay) }
}

/// How long a worker must have lived to be replaced when `times` before it in a row were spent soon after
/// their start.
pub fn pause(times: u32) -> Duration {
    if times == 0 { Duration::ZERO } else { grown(Duration::from_secs(1), times - 1) }
}

/// `first` grown by half `times` times, up to the cap.
fn grown(first: Duration, times: u32) -> Duration {
    let mut delay = first.min(CAP);
    for _ in 0..times {
        if delay >= CAP {
            break;
        }
        delay = (delay + (delay / 2).max(Duration::from_nanos(1))).min(CAP);
    }
    delay
}

/// Spreads delays by up to a tenth either way, so that slots that failed together do not start
/// together. Its state is part of the supervisor's: equal seeds give equal decisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jitter(u64);

impl Jitter {
    /// `seed` 0 spreads nothing.
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// `span`, up to a tenth shorter: for what must not come late.
    pub fn shorten(&mut self, span: Duration) -> Duration {
        span - span / 1000 * self.next(101)
    }

    /// `delay`, a tenth shorter to a tenth longer, within the cap.
    pub fn spread(&mut self, delay: Duration) -> Duration {
        if self.0 == 0 {
            return delay;
        }
        let permille = 900 + self.next(201);
        (delay * permille / 1000).min(CAP)
    }

    /// A number below `bound`; 0 without a seed.
    fn next(&mut self, bound: u32) -> u32 {
        // xorshift64 (Marsaglia 2003): never reaches 0 from any other state.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(bound)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANT: Duration = Duration::ZERO;

    fn policy() -> Policy {
        Policy { max_restarts: 0, ..Policy::default() }
    }

    fn waits(policy: &Policy, count: u32) -> Vec<Next> {
        let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(0));
        (0..count).map(|_| backoff.exited(INSTANT, policy, &mut jitter)).collect()
    }

    #[test]
    fn the_first_unstable_exit_restarts_at_once_then_delays_grow_by_half() {
        let expected = [
            Next::Now,
            Next::Wait(Duration::from_millis(100)),
            Next::Wait(Duration::from_millis(150)),
            Next::Wait(Duration::from_millis(225)),
        ];
        assert_eq!(waits(&policy(), 4), expected);
    }

    #[test]
    fn the_delay_stays_at_its_cap() {
        let all = waits(&policy(), 200);
        assert_eq!(all[199], Next::Wait(CAP));
    }

    #[test]
    fn restart_delay_is_the_least_wait() {
        let policy = Policy { restart_delay: Duration::from_secs(2), ..policy() };
        assert!(waits(&policy, 3).iter().all(|next| *next == Next::Wait(Duration::from_secs(2))));
    }

    #[test]
    fn too_many_unstable_exits_in_a_row_give_up() {
        let policy = Policy { max_restarts: 3, ..policy() };
        assert_eq!(waits(&policy, 3)[2], Next::GiveUp);
    }

    #[test]
    fn who_goes_on_all_the_same_waits_for_the_longest_time_and_gives_up_again() {
        let policy = Policy { max_restarts: 2, ..policy() };
        let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(0));
        backoff.failed(&policy, &mut jitter);
        for _ in 0..5 {
            assert_eq!(backoff.failed(&policy, &mut jitter), Next::GiveUp);
            assert_eq!(backoff.go_on(&policy, &mut jitter), CAP);
            assert_eq!((backoff.gave_up(), backoff.unstable()), (false, 2));
        }
        let slow = Policy { restart_delay: CAP * 2, ..policy };
        assert_eq!(backoff.go_on(&slow, &mut jitter), CAP * 2);
    }

    #[test]
    fn a_stable_spell_resets_the_count() {
        let policy = Policy { max_restarts: 3, ..policy() };
        let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(0));
        backoff.exited(INSTANT, &policy, &mut jitter);
        backoff.exited(INSTANT, &policy, &mut jitter);
        assert_eq!(backoff.exited(policy.min_uptime, &policy, &mut jitter), Next::Now);
        assert_eq!(backoff.unstable(), 0);
    }

    #[test]
    fn failures_of_the_host_wait_and_never_count() {
        let policy = Policy { max_restarts: 1, ..policy() };
        let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(0));
        assert_eq!(backoff.hiccup(&policy, &mut jitter), Duration::from_millis(100));
        for _ in 0..100 {
            backoff.hiccup(&policy, &mut jitter);
        }
        assert_eq!(backoff.hiccup(&policy, &mut jitter), CAP);
        assert_eq!(backoff.unstable(), 0);
    }

    #[test]
    fn jitter_stays_within_a_tenth_and_the_cap() {
        let mut jitter = Jitter::new(7);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let delay = jitter.spread(Duration::from_secs(1));
            assert!(delay >= Duration::from_millis(900) && delay <= Duration::from_millis(1100));
            assert!(jitter.spread(CAP) <= CAP);
            seen.insert(delay);
        }
        assert!(seen.len() > 50);
    }
}
