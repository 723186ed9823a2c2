//! When `cron_restart` is due: a pattern of five or six fields, read in a time zone.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

use crate::supervisor::policy::Schedule;

/// The longest pattern that is read.
const MOST_TEXT: usize = 256;

/// Why a schedule is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CalendarError {
    /// Not a pattern.
    #[error("{0}")]
    Pattern(String),
    /// A pattern that no day fits.
    #[error("no day ever fits it")]
    Never,
    /// The host's tables do not have the zone.
    #[error("{0}")]
    Zone(String),
}

/// A schedule that can be asked for its next moment.
#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    /// Reads a schedule. Without a zone of its own it goes by the host's (TZ, else /etc/localtime, else UTC).
    ///
    /// # Errors
    /// What is wrong with the pattern or the zone.
    pub fn read(schedule: &Schedule) -> Result<Calendar, CalendarError> {
        let zone = match &schedule.zone {
            None => TimeZone::try_system().unwrap_or(TimeZone::UTC),
            Some(name) => zone(name)?,
        };
        Ok(Calendar { cron: pattern(&schedule.pattern)?, zone })
    }

    /// The next moment after this one, both as the time since 1970. None when there is none any more.
    pub fn after(&self, time: Duration) -> Option<Duration> {
        let time = Timestamp::from_duration(SignedDuration::try_from(time).ok()?).ok()?;
        let next = self.cron.find_next_occurrence(&time.to_zoned(self.zone.clone()), false).ok()?;
        Duration::try_from(next.timestamp().as_duration()).ok()
    }
}

/// A pattern, checked for that it comes true at all.
pub(super) fn pattern(text: &str) -> Result<Cron, CalendarError> {
    if text.len() > MOST_TEXT {
        return Err(CalendarError::Pattern(format!("it is longer than {MOST_TEXT} characters")));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let cron = parser.parse(text).map_err(|error| CalendarError::Pattern(reason(&error)))?;
    let start = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    match cron.find_next_occurrence(&start, false) {
        Ok(_) => Ok(cron),
        Err(_) => Err(CalendarError::Never),
    }
}

/// A time zone by its name.
pub(super) fn zone(name: &str) -> Result<TimeZone, CalendarError> {
    TimeZone::get(name).map_err(|_| CalendarError::Zone(unknown(name)))
}

/// What the library says, as the end of a sentence of ours.
fn reason(error: &croner::errors::CronError) -> String {
    use croner::errors::CronError;
    let text = match error {
        CronError::EmptyPattern => "it is empty".to_owned(),
        CronError::InvalidPattern(text)
        | CronError::IllegalCharacters(text)
        | CronError::ComponentError(text) => text.clone(),
        CronError::InvalidDate | CronError::InvalidTime | CronError::TimeSearchLimitExceeded => {
            "no day ever fits it".to_owned()
        }
    };
    // It repeats what was written, which may steer a terminal.
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let mut letters = text.trim_end_matches('.').chars().map(plain);
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Why a zone is not known, and what to do.
fn unknown(name: &str) -> String {
    match TimeZone::get("Europe/Berlin") {
        Ok(_) => format!("there is no time zone {name:?}"),
        Err(_) => format!("this host has no table of time zones to find {name:?} in (package tzdata)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(pattern: &str, zone: &str) -> Calendar {
        let schedule = Schedule { pattern: pattern.to_owned(), zone: Some(zone.to_owned()) };
        Calendar::read(&schedule).expect("a schedule")
    }

    fn since_1970(time: &str) -> Duration {
        let time: Timestamp = time.parse().expect("a moment");
        Duration::try_from(time.as_duration()).expect("after 1970")
    }

    fn next(calendar: &Calendar, after: &str) -> Option<String> {
        let next = calendar.after(since_1970(after))?;
        let next = Timestamp::from_duration(SignedDuration::try_from(next).expect("near"));
        next.ok().map(|next| next.to_string())
    }

    #[test]
    fn five_and_six_fields_and_names_are_read() {
        for (pattern, expected) in [
            ("30 2 * * *", "2026-11-23T02:30:00Z"),
            ("*/10 * * * * *", "2026-11-23T00:00:10Z"),
            ("@daily", "2026-11-24T00:00:00Z"),
            ("0 12 * * MON", "2026-11-23T12:00:00Z"),
            ("0 0 L * *", "2026-11-30T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ] {
            let next = next(&calendar(pattern, "UTC"), "2026-11-23T00:00:00Z");
            assert_eq!(next.as_deref(), Some(expected), "{pattern}");
        }
    }

    #[test]
    fn a_moment_is_not_its_own_successor() {
        let daily = calendar("30 2 * * *", "UTC");
        assert_eq!(next(&daily, "2026-11-23T02:30:00Z").as_deref(), Some("2026-11-24T02:30:00Z"));
    }

    /// An hour that does not exist is the first one after it; one that comes twice counts once.
    #[test]
    fn daylight_saving_neither_skips_nor_doubles_a_day() {
        // Central Europe's rule, written out: no table is needed for it.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule");
        let daily = Calendar { zone, ..calendar("30 2 * * *", "UTC") };
        let mut time = "2026-03-27T12:00:00Z".to_owned();
        let mut seen = Vec::new();
        for _ in 0..3 {
            time = next(&daily, &time).expect("every day");
            seen.push(time.clone());
        }
        assert_eq!(seen, ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        let autumn = next(&daily, "2026-10-24T12:00:00Z").expect("every day");
        assert_eq!(autumn, "2026-10-25T00:30:00Z");
        assert_eq!(next(&daily, &autumn).as_deref(), Some("2026-10-26T01:30:00Z"));
    }

    #[test]
    fn what_never_comes_or_is_no_pattern_is_refused() {
        for text in ["", "61 * * * *", "* * *", "every day", "* * * * * * *", &"*".repeat(300)] {
            let error = pattern(text).map(|_| ()).expect_err(text);
            assert!(matches!(&error, CalendarError::Pattern(why) if !why.is_empty()), "{text}: {error:?}");
        }
        assert_eq!(pattern("0 0 31 2 *").map(|_| ()), Err(CalendarError::Never));
        let nowhere = Schedule { pattern: "@daily".to_owned(), zone: Some("Mars/Olympus".to_owned()) };
        assert!(matches!(Calendar::read(&nowhere), Err(CalendarError::Zone(_))));
    }
}
