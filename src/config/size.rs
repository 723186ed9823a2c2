//! Amounts of memory in the file. `512M` is what PM2 has it, 512 times 1024 times 1024 bytes; a unit that ends
//! in `B` is what it says (`MB` a million, `MiB` 1 048 576); a percentage is a share of what there is in all.

use bytesize::ByteSize;
use toml::de::DeValue;

use super::value::{self, Refusal};
use crate::supervisor::policy::MemoryLimit;

/// The least that a limit can be: below it no process lives, and a bare number was meant in another unit.
pub(super) const LEAST: u64 = 1024 * 1024;

/// Text as an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amount {
    Bytes(u64),
    /// In thousandths.
    Share(u32),
}

/// A limit for each worker, or a share of `total` for all instances together.
pub(super) fn memory_limit(value: &DeValue<'_>, total: Option<u64>) -> Result<MemoryLimit, Refusal> {
    let amount = match value {
        DeValue::Integer(_) => {
            let bytes = value::integer(value).and_then(|number| u64::try_from(number).ok());
            Amount::Bytes(bytes.ok_or(Refusal::WRONG)?)
        }
        DeValue::String(text) => parse(text.trim()).ok_or(Refusal::WRONG)?,
        DeValue::Float(_) => return Err(Refusal::wrong("write a fraction with its unit, such as \"1.5G\"")),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            return Err(Refusal::WRONG);
        }
    };
    match amount {
        Amount::Bytes(bytes) if bytes >= LEAST => Ok(MemoryLimit::Each(bytes)),
        Amount::Bytes(bytes) => Err(too_little(bytes)),
        Amount::Share(permille) => {
            let total = total.ok_or_else(|| {
                Refusal::said(
                    "a share of the memory is given, and this host does not show how much there is",
                    "write an amount, such as \"512M\"",
                )
            })?;
            let bytes = u128::from(total) * u128::from(permille) / 1000;
            Ok(MemoryLimit::Shared(u64::try_from(bytes).unwrap_or(u64::MAX)))
        }
    }
}

/// The least that a log file can be kept to: less would be rotated all the time.
const LEAST_LOG_FILE: u64 = 64 * 1024;

/// How far a log file may grow, in bytes; 0 for no limit.
pub(super) fn log_file(value: &DeValue<'_>) -> Result<u64, Refusal> {
    let amount = match value {
        DeValue::Integer(_) => value::integer(value).and_then(|number| u64::try_from(number).ok()),
        DeValue::String(text) => match parse(text.trim()) {
            Some(Amount::Bytes(bytes)) => Some(bytes),
            Some(Amount::Share(_)) | None => None,
        },
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    match amount.ok_or(Refusal::WRONG)? {
        bytes @ 1..LEAST_LOG_FILE => Err(too_little(bytes)),
        bytes => Ok(bytes),
    }
}

/// The same for `describe`.
pub(super) fn show_log_file(bytes: u64) -> String {
    if bytes == 0 { "no limit".to_owned() } else { ByteSize::b(bytes).to_string() }
}

fn too_little(bytes: u64) -> Refusal {
    Refusal::wrong(format!("a bare number is bytes; for megabytes write \"{bytes}M\""))
}

fn parse(text: &str) -> Option<Amount> {
    if let Some(share) = text.strip_suffix('%') {
        let share = number(share.trim_end())?;
        return (0.1..=100.0).contains(&share).then(|| Amount::Share((share * 10.0).round() as u32));
    }
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (figure, unit) = text.split_at(unit);
    let figure = number(figure.trim_end())?;
    if unit.is_empty() {
        return text.parse().ok().map(Amount::Bytes);
    }
    let factor = match unit.to_ascii_uppercase().as_str() {
        "K" => bytesize::KIB,
        "M" => bytesize::MIB,
        "G" => bytesize::GIB,
        "T" => bytesize::TIB,
        _ => unit.parse::<bytesize::Unit>().ok()? * 1,
    };
    Some(Amount::Bytes((figure * factor as f64) as u64))
}

/// Digits with at most one point between them: no sign, no exponent, not infinite.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let whole =
        text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_digit());
    if plain && whole { text.parse().ok() } else { None }
}

/// For `describe`.
pub(super) fn show(limit: MemoryLimit) -> String {
    match limit {
        MemoryLimit::Each(bytes) => ByteSize::b(bytes).to_string(),
        MemoryLimit::Shared(bytes) => format!("{} for all instances together", ByteSize::b(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const M: u64 = 1024 * 1024;

    #[test]
    fn a_bare_letter_counts_by_1024_as_in_pm2_and_a_unit_is_what_it_says() {
        for (text, bytes) in [
            ("512M", 512 * M),
            ("512m", 512 * M),
            ("1.5G", 1536 * M),
            ("2 G", 2048 * M),
            ("900000K", 900_000 * 1024),
            ("512MiB", 512 * M),
            ("512MB", 512_000_000),
            ("1GB", 1_000_000_000),
            ("1T", M * M),
            ("314572800", 300 * M),
        ] {
            assert_eq!(parse(text), Some(Amount::Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn a_percentage_is_a_share() {
        for (text, permille) in [("80%", 800), ("100%", 1000), ("12.5%", 125), ("0.1%", 1), ("80 %", 800)] {
            assert_eq!(parse(text), Some(Amount::Share(permille)), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "",
            "M",
            "%",
            "-1M",
            "1e3M",
            "1..5G",
            ".5G",
            "5.G",
            "1.5",
            "infG",
            "nanM",
            "1X",
            "1 M 2",
            "101%",
            "0%",
            "-5%",
            "9999999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_for_an_amount(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
