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

/// The CPU time that this thread has used: what our own work costs, however busy the host is with other
/// things meanwhile (CLOCK_THREAD_CPUTIME_ID, clock_gettime(2)).
pub fn own_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid struct that outlives the call; on the impossible error it stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}
