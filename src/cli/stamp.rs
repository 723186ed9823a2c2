//! When a line was read, as people write it: PM2's patterns (those of day.js) in local time.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::date::{DatePattern, Part, USUAL};
use crate::logs::form::dated;

/// A pattern, read.
#[derive(Debug)]
pub(super) struct Stamp {
    pattern: DatePattern,
    zone: TimeZone,
}

impl Stamp {
    /// Reads a pattern as `log_date_format` is read. One without anything of a date or a time is most likely a target
    /// that got here.
    pub(super) fn new(pattern: &str, zone: TimeZone) -> Result<Stamp, String> {
        let wrong = |why: &str| {
            format!(
                "--timestamp: \"{pattern}\" is no pattern such as \"HH:mm:ss\" or \"{USUAL}\": {why}; targets stand \
                 before --timestamp"
            )
        };
        let read = DatePattern::parse(pattern).map_err(|why| wrong(&why))?;
        let has_field = read.parts().iter().any(|part| matches!(part, Part::Field(_)));
        // `dad` is a weekday, AM or PM, and a weekday.
        let is_word = pattern.len() > 1 && pattern.chars().all(|char| char.is_ascii_lowercase());
        if !has_field || is_word {
            return Err(wrong("nothing of a date is in it"));
        }
        Ok(Stamp { pattern: read, zone })
    }

    /// The time of a line (RFC 3339). One that is not known is a `?`, and no guess.
    pub(super) fn show(&self, at: Option<&str>) -> String {
        let at = at.and_then(|at| at.parse::<Timestamp>().ok());
        at.map_or_else(|| "?".to_owned(), |at| dated(&self.pattern, &at.to_zoned(self.zone.clone())))
    }
}

/// The moment that `--since` means, seen from `now`: a span before it, or a point in time.
pub(super) fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let local = |time: jiff::civil::DateTime| time.to_zoned(zone.clone()).map(|zoned| zoned.timestamp());
    let today = now.to_zoned(zone.clone()).date();
    let found = humantime::parse_duration(text).ok().and_then(|span| now.checked_sub(span).ok());
    found
        .or_else(|| text.parse::<Timestamp>().ok())
        .or_else(|| text.parse::<jiff::civil::DateTime>().ok().and_then(|time| local(time).ok()))
        .or_else(|| {
            let clock = text.contains(':').then_some(text)?;
            clock.parse::<jiff::civil::Time>().ok().and_then(|time| local(today.to_datetime(time)).ok())
        })
        .ok_or_else(|| {
            format!(
                "--since: \"{text}\" is neither a span (10m, 2h, 1d) nor a time (08:30, 2026-11-23, \
                 2026-11-23T08:30, 2026-11-23T08:30:00Z)"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn patterns_are_those_of_pm2() {
        let at = Some("2026-07-03T08:05:09.042Z");
        for (pattern, shown) in [
            (USUAL, "2026-07-03T10:05:09"),
            ("HH:mm:ss.SSS", "10:05:09.042"),
            ("YY/M/D H:m:s Z", "26/7/3 10:5:9 +02:00"),
            ("ddd D MMM YYYY hh:mm A ZZ", "Fri 3 Jul 2026 10:05 AM +0200"),
            ("[at] HH:mm [%Y o'clock]", "at 10:05 %Y o'clock"),
            ("100% HH", "100% 10"),
            ("X", "1783065909"),
        ] {
            assert_eq!(Stamp::new(pattern, berlin()).unwrap().show(at), shown, "{pattern}");
        }
    }

    #[test]
    fn a_time_that_is_not_known_is_not_guessed() {
        let stamp = Stamp::new(USUAL, TimeZone::UTC).unwrap();
        assert_eq!((stamp.show(None), stamp.show(Some("soon"))), ("?".to_owned(), "?".to_owned()));
    }

    #[test]
    fn a_target_that_got_where_the_pattern_stands_is_told_so() {
        for word in ["api", "API", "command", "api-1", "", "--", "/^x/", "0", "dad", "mm"] {
            assert!(Stamp::new(word, TimeZone::UTC).unwrap_err().contains("targets stand before"), "{word}");
        }
    }

    #[test]
    fn since_takes_spans_and_times() {
        let now: Timestamp = "2026-07-03T08:05:09Z".parse().unwrap();
        for (text, meant) in [
            ("10m", "2026-07-03T07:55:09Z"),
            ("1h 30m", "2026-07-03T06:35:09Z"),
            ("08:30", "2026-07-03T06:30:00Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            ("2026-07-01 12:00", "2026-07-01T10:00:00Z"),
            ("2026-07-01T12:00:30Z", "2026-07-01T12:00:30Z"),
            ("2026-07-01T12:00:30-05:00", "2026-07-01T17:00:30Z"),
        ] {
            assert_eq!(moment(text, now, &berlin()).map(|at| at.to_string()), Ok(meant.to_owned()), "{text}");
        }
        for wrong in ["", "soon", "10", "25:00", "10 parsecs"] {
            assert!(moment(wrong, now, &berlin()).unwrap_err().contains("--since"), "{wrong}");
        }
    }
}
