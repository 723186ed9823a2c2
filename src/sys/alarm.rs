//! An alarm by the wall clock, which also tells when that clock was set.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer descriptor (timerfd_create(2)). It goes on while the host is suspended: what came due then rings
/// afterwards.
#[derive(Debug)]
pub struct Alarm {
    timer: TimerFd,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// The errno of timerfd_create(2).
    pub fn new() -> io::Result<Alarm> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Alarm { timer: TimerFd::new(ClockId::CLOCK_REALTIME, flags)? })
    }

    /// Rings at this time since 1970, and when the clock is set before (TFD_TIMER_CANCEL_ON_SET). True when the
    /// clock was set meanwhile, and nobody was told yet: the alarm is set all the same (`do_timerfd_settime` in
    /// Linux answers ECANCELED then).
    ///
    /// # Errors
    /// The errno of timerfd_settime(2).
    pub fn set(&self, at: Duration) -> io::Result<bool> {
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        // A time of zero would switch it off.
        let at = at.max(Duration::from_nanos(1));
        match self.timer.set(Expiration::OneShot(at.into()), flags) {
            Ok(()) => Ok(false),
            Err(nix::Error::ECANCELED) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// It does not ring any more.
    ///
    /// # Errors
    /// The errno of timerfd_settime(2).
    pub fn clear(&self) -> io::Result<()> {
        Ok(self.timer.unset()?)
    }

    /// Takes what it told: whether the clock was set (ECANCELED).
    ///
    /// # Errors
    /// WouldBlock when it did not ring; else the errno of read(2).
    pub fn take(&self) -> io::Result<bool> {
        match nix::unistd::read(&self.timer, &mut [0; 8]) {
            Ok(_) => Ok(false),
            Err(nix::Error::ECANCELED) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn an_alarm_in_the_past_rings_at_once_and_a_cleared_one_does_not() {
        let alarm = Alarm::new().expect("a descriptor");
        alarm.set(clock::wall() - Duration::from_secs(1)).expect("any time");
        alarm.clear().expect("it is set");
        let silent = alarm.take().expect_err("it was cleared");
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
        alarm.set(clock::wall() - Duration::from_secs(1)).expect("any time");
        assert!(!alarm.take().expect("it rings"));
    }
}
