//! Time as the supervisor sees it: a point on the monotonic clock, counted from when it began.
//!
//! `std::time::Instant` can neither be made at will nor saved, so decisions could not be tested with
//! it. Nothing here reads a clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, as the duration since the supervisor began (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The moment the supervisor began.
    pub const START: Time = Time(Duration::ZERO);

    /// The point `since` after the supervisor began.
    pub const fn from_start(since: Duration) -> Time {
        Time(since)
    }

    /// How long after the supervisor began this point lies.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// How long ago `earlier` was, seen from `self`; zero when it lies ahead.
    pub const fn since(self, earlier: Time) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates: a delay of "for ever" stays for ever and cannot end the supervisor.
    fn add(self, delay: Duration) -> Time {
        Time(self.0.saturating_add(delay))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    /// Never before the supervisor began.
    fn sub(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(span))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:.3}s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_delay_does_not_overflow() {
        let late = Time::from_start(Duration::from_secs(5)) + Duration::MAX;
        assert_eq!(late.since_start(), Duration::MAX);
    }

    #[test]
    fn a_point_ahead_is_zero_ago() {
        assert_eq!(Time::START.since(Time::START + Duration::from_secs(1)), Duration::ZERO);
    }
}
