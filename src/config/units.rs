//! Units of the file: times and signals, from text and back. What this refuses: months and years, whose
//! length nobody means, and everything that is not a whole number or a string with a unit.

use std::time::Duration;

/// Names of Linux signals (signal(7)).
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The first real-time signal that programs may use: the C library keeps 32 and 33 for itself
/// (signal(7)). What `kill -l RTMIN` prints.
const FIRST_REAL_TIME: i32 = 34;
const LAST_REAL_TIME: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `sigterm`, `15`, `SIGRTMIN+3`.
pub fn signal_number(text: &str) -> Option<i32> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|number| signal_is_known(*number));
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        let offset: i32 = match rest.strip_prefix('+') {
            Some(digits) if digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok()?
            }
            Some(_) => return None,
            None if rest.is_empty() => 0,
            None => return None,
        };
        return Some(FIRST_REAL_TIME + offset).filter(|number| *number <= LAST_REAL_TIME);
    }
    SIGNALS.iter().find(|(name, _)| *name == bare).map(|(_, number)| *number)
}

/// Whether a worker can be sent a signal of this number.
pub fn signal_is_known(number: i32) -> bool {
    SIGNALS.iter().any(|(_, known)| *known == number) || (FIRST_REAL_TIME..=LAST_REAL_TIME).contains(&number)
}

/// `SIGTERM` for 15; `SIGRTMIN+3` for 37; the bare number for one without a name.
pub fn signal_name(number: i32) -> String {
    match SIGNALS.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None if number == FIRST_REAL_TIME => "SIGRTMIN".to_owned(),
        None if (FIRST_REAL_TIME..=LAST_REAL_TIME).contains(&number) => {
            format!("SIGRTMIN+{}", number - FIRST_REAL_TIME)
        }
        None => number.to_string(),
    }
}

/// Every name of a signal, for suggestions.
pub fn signal_names() -> impl Iterator<Item = &'static str> {
    SIGNALS.iter().map(|(name, _)| *name)
}

/// A duration as the file takes it: `1s 600ms`, `24h`, `0`.
pub fn show_duration(duration: Duration) -> String {
    const HOUR: u64 = 60 * 60;
    if duration.is_zero() {
        return "0".to_owned();
    }
    if duration.subsec_nanos() == 0 && duration.as_secs().is_multiple_of(HOUR) {
        return format!("{}h", duration.as_secs() / HOUR);
    }
    humantime::format_duration(duration).to_string()
}

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationRefusal {
    /// Not a number with a unit at all.
    Unreadable,
    /// A number with blanks or a fraction, but without a unit.
    NoUnit,
    /// A unit that differs only by its capitals from one that exists.
    Capital,
    /// `1M`, `1 year`: the unit's length is not fixed.
    Calendar,
}

/// Reads `10s`, `1m 30s`, `1.5h`; digits alone are milliseconds, as PM2 has it.
pub fn parse_duration(text: &str) -> Result<Duration, DurationRefusal> {
    let text = text.trim();
    if text.is_empty() {
        return Err(DurationRefusal::Unreadable);
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        // A number that does not fit is longer than every limit, and refused by that.
        return Ok(Duration::from_millis(text.parse().unwrap_or(u64::MAX)));
    }
    let units = || text.split(|c: char| !c.is_alphabetic()).filter(|unit| !unit.is_empty());
    if units().any(|unit| matches!(unit, "M" | "month" | "months" | "y" | "yr" | "yrs" | "year" | "years")) {
        return Err(DurationRefusal::Calendar);
    }
    if units().next().is_none() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(DurationRefusal::NoUnit);
    }
    humantime::parse_duration(text).map_err(|_| match humantime::parse_duration(&text.to_ascii_lowercase()) {
        Ok(_) => DurationRefusal::Capital,
        Err(_) => DurationRefusal::Unreadable,
    })
}

/// Reads `512M`, `1.5G`, `512MiB`, `64 KB`: K, M, G and T are powers of 1024, as PM2 has it; digits alone are
/// bytes. None for anything else, and for more than 63 bits hold.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start().to_ascii_uppercase());
    let shift = match unit.as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 6 || (shift == 0 && number.contains('.')) {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let (whole, part) = (digits(whole)?, digits(fraction)?);
    let whole = whole.checked_mul(1 << shift)?;
    let part = (part << shift) / 10_u64.pow(fraction.len() as u32);
    whole.checked_add(part).filter(|size| i64::try_from(*size).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_milliseconds_and_units_are_units() {
        for (text, milliseconds) in
            [("1600", 1600), ("0", 0), ("10s", 10_000), ("1m", 60_000), ("1m 30s", 90_000), ("1.5s", 1500)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn a_capital_m_is_never_a_month() {
        for text in ["1M", "2 months", "1y", "1h 1M"] {
            assert_eq!(parse_duration(text), Err(DurationRefusal::Calendar), "{text}");
        }
        assert_eq!(parse_duration("5S"), Err(DurationRefusal::Capital));
        assert_eq!(parse_duration("1.5"), Err(DurationRefusal::NoUnit));
        for text in ["", "abc", "-5s", "1e3", "s", "5 parsecs", "١s"] {
            assert_eq!(parse_duration(text), Err(DurationRefusal::Unreadable), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1K", 1024),
            ("1.5G", 3 << 29),
            ("512MiB", 512 << 20),
            (" 2 mb ", 2 << 20),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "M", "1.5", "-1K", "1e3", "1X", "1..5K", "99999999T", "1.1234567M", "١K"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn every_spelling_of_a_signal_is_its_number() {
        for text in ["SIGTERM", "TERM", "sigterm", "15"] {
            assert_eq!(signal_number(text), Some(15), "{text}");
        }
        assert_eq!(signal_number("SIGRTMIN+3"), Some(37));
        assert_eq!(signal_number("RTMIN"), Some(34));
        for text in ["", "0", "32", "65", "SIG", "SIGRTMIN+31", "RTMIN+", "RTMINx", "99999999999", "TERMS"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }

    #[test]
    fn a_signals_name_leads_back_to_its_number() {
        for number in (1..=64).filter(|number| signal_is_known(*number)) {
            assert_eq!(signal_number(&signal_name(number)), Some(number));
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_for_a_unit(text in ".{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
            let _ = signal_number(&text);
        }

        #[test]
        fn a_shown_duration_reads_the_same(milliseconds in 0..100_000_000_u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
    }
}
