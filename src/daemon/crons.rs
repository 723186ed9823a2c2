//! The wall clock's part in `cron_restart`: tells the core when an app's time has come.
//!
//! A moment that passed while the host was suspended, or that the clock was set beyond, comes once, late. Where the
//! clock is set back, a moment that came already does not come again; set back by more than a few hours it was
//! wrong before, and all begins anew.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::config::calendar::Calendar;
use crate::supervisor::event::{AppId, Event};
use crate::supervisor::policy::Schedule;
use crate::sys::alarm::Alarm;
use crate::sys::clock;

use super::{Daemon, Source};

/// A clock that goes back further was wrong before.
const WRONG: Duration = Duration::from_secs(3 * 60 * 60);

/// The schedules of all apps.
#[derive(Debug, Default)]
pub(super) struct Crons {
    alarm: Option<Alarm>,
    /// What the alarm is set to.
    set: Option<Duration>,
    armed: BTreeMap<AppId, Armed>,
}

/// One schedule; all times since 1970.
#[derive(Debug)]
struct Armed {
    schedule: Schedule,
    /// None where the host cannot read it any more.
    calendar: Option<Calendar>,
    next: Option<Duration>,
    /// What came last.
    last: Option<Duration>,
}

impl Armed {
    /// Whether its time has come; sets the next one.
    fn is_due(&mut self, now: Duration) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.last = self.next;
            self.next = self.after(now);
        }
        due
    }

    /// The clock was set.
    fn set_clock(&mut self, now: Duration) {
        if self.next.is_some_and(|next| next <= now) {
            return;
        }
        self.last = self.last.filter(|last| last.saturating_sub(now) < WRONG);
        self.next = self.after(self.last.map_or(now, |last| last.max(now)));
    }

    fn after(&self, time: Duration) -> Option<Duration> {
        self.calendar.as_ref()?.after(time)
    }
}

impl Crons {
    fn soonest(&self) -> Option<Duration> {
        self.armed.values().filter_map(|armed| armed.next).min()
    }
}

impl Daemon {
    /// Sets the alarm for what is next.
    pub(super) fn keep_schedules(&mut self) {
        let mut set = self.set_alarm();
        if matches!(set, Ok(true)) {
            self.ring(true);
            set = self.set_alarm();
        }
        if let Err(error) = set
            && self.warned.first("alarm", None)
        {
            log::error!("cron_restart has no effect: no alarm can be set ({error})");
        }
    }

    fn are_schedules_known(&self) -> bool {
        let mut count = 0;
        let same = self.supervisor.schedules().all(|(app, schedule)| {
            count += 1;
            self.crons.armed.get(&app).is_some_and(|armed| armed.schedule == *schedule)
        });
        same && count == self.crons.armed.len()
    }

    /// Takes over which apps have which schedules by now.
    pub(super) fn take_schedules(&mut self) {
        if self.are_schedules_known() {
            return;
        }
        self.may_be_over = true;
        let mut old = std::mem::take(&mut self.crons.armed);
        for (app, schedule) in self.supervisor.schedules() {
            let known = old.remove(&app).filter(|armed| armed.schedule == *schedule);
            let armed = known.unwrap_or_else(|| {
                // It was right when the file was read, unless the host's tables have changed since.
                let calendar = Calendar::read(schedule);
                let next = calendar.as_ref().ok().and_then(|calendar| calendar.after(clock::wall()));
                if let Err(error) = &calendar {
                    log::warn!("{}: cron_restart has no effect: {error}", self.app_name(app));
                }
                Armed { schedule: schedule.clone(), calendar: calendar.ok(), next, last: None }
            });
            self.crons.armed.insert(app, armed);
        }
    }

    /// True when the clock was set since it was last looked at.
    fn set_alarm(&mut self) -> io::Result<bool> {
        let soonest = self.crons.soonest();
        if soonest == self.crons.set {
            return Ok(false);
        }
        if self.crons.alarm.is_none() {
            let alarm = Alarm::new()?;
            self.watch(alarm.as_raw_fd(), Source::Alarm)?;
            self.crons.alarm = Some(alarm);
        }
        let Some(alarm) = &self.crons.alarm else { return Ok(false) };
        let was_set = match soonest {
            Some(at) => alarm.set(at)?,
            None => alarm.clear().map(|()| false)?,
        };
        self.crons.set = soonest;
        Ok(was_set)
    }

    /// The alarm rang, or the clock was set.
    pub(super) fn take_alarm(&mut self) {
        let Some(alarm) = &self.crons.alarm else { return };
        let was_set = match alarm.take() {
            Ok(was_set) => was_set,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return log::warn!("the alarm for cron_restart: {error}"),
        };
        self.ring(was_set);
    }

    fn ring(&mut self, was_set: bool) {
        // It rings once.
        self.crons.set = None;
        let now = clock::wall();
        for (app, armed) in &mut self.crons.armed {
            if was_set {
                armed.set_clock(now);
            }
            if armed.is_due(now) {
                self.inbox.push_back(Event::Due { app: *app });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(hours: u64) -> Duration {
        Duration::from_secs(hours * HOUR)
    }

    /// Every day at six, seen since midnight.
    fn at_six() -> Armed {
        let schedule = Schedule { pattern: "0 6 * * *".to_owned(), zone: Some("UTC".to_owned()) };
        let calendar = Calendar::read(&schedule).expect("a schedule");
        let next = calendar.after(at(0));
        Armed { schedule, calendar: Some(calendar), next, last: None }
    }

    #[test]
    fn what_was_slept_through_comes_once() {
        let mut armed = at_six();
        assert!(!armed.is_due(at(5)) && armed.is_due(at(6)) && !armed.is_due(at(6)));
        assert!(armed.is_due(at(5 * 24 + 7)) && !armed.is_due(at(5 * 24 + 8)));
        assert_eq!(armed.next, Some(at(6 * 24 + 6)));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_bring_it_twice() {
        let mut armed = at_six();
        assert!(armed.is_due(at(6)));
        armed.set_clock(at(5));
        assert!(!armed.is_due(at(6)) && armed.is_due(at(30)));
    }

    #[test]
    fn a_clock_that_was_wrong_by_days_begins_anew() {
        let mut armed = at_six();
        assert!(armed.is_due(at(24 * 365)));
        armed.set_clock(at(1));
        assert!(armed.is_due(at(6)));
    }

    #[test]
    fn a_clock_that_is_set_beyond_it_brings_it_at_once() {
        let mut armed = at_six();
        armed.set_clock(at(7));
        assert!(armed.is_due(at(7)));
    }
}
