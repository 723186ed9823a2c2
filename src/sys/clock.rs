//! The only place that reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads the monotonic clock relative to the moment it was made. Not stopped by a set wall clock; it
/// stands still while the host is suspended (`CLOCK_MONOTONIC`, clock_gettime(2)).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: std::time::Instant,
}

impl Clock {
    /// Begins to count now.
    #[expect(clippy::new_without_default, reason = "reading a clock is no default value")]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn new() -> Clock {
        Clock { began: std::time::Instant::now() }
    }

    /// How long ago the clock was made.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn since_start(&self) -> Duration {
        self.began.elapsed()
    }
}

/// The wall clock, as the time since 1970; for printing only.
#[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
