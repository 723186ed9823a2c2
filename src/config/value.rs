//! One value of the file → one value of Rust, or the reason why not. Pure: no place, no app, no key; the
//! caller knows those.

use std::time::Duration;

use toml::de::DeValue;

use super::error::quoted;
use super::keys::Kind;
use super::units::{self, DurationRefusal};

/// The longest string that the kernel takes as an argument or a variable, with its end
/// (MAX_ARG_STRLEN in Linux: 32 pages of 4 KiB). Longer ones make execve(2) fail with E2BIG.
pub(super) const MAX_STRING: usize = 128 * 1024 - 1;

/// Why a value is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not what the key takes: "expected …, got …".
    Wrong {
        /// What more there is to say about it.
        help: Option<String>,
    },
    /// A sentence of its own.
    Said {
        /// The sentence.
        message: String,
        /// What to do.
        help: Option<String>,
    },
}

impl Refusal {
    pub(super) const WRONG: Refusal = Refusal::Wrong { help: None };

    pub(super) fn wrong(help: impl Into<String>) -> Refusal {
        Refusal::Wrong { help: Some(help.into()) }
    }

    pub(super) fn said(message: impl Into<String>, help: impl Into<String>) -> Refusal {
        Refusal::Said { message: message.into(), help: Some(help.into()) }
    }
}

/// A value as an error names it.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.to_string().chars().take(40).collect(),
        DeValue::Float(number) => number.to_string().chars().take(40).collect(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A whole number; digits in a string count too, as PM2 has it. None when it is none, or beyond 64 bits.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        DeValue::String(text) => text.trim().parse().ok(),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}

pub(super) fn count(value: &DeValue<'_>, min: u32, max: u32) -> Result<u32, Refusal> {
    let number = integer(value).and_then(|number| u32::try_from(number).ok()).ok_or(Refusal::WRONG)?;
    match (min..=max).contains(&number) {
        true => Ok(number),
        false => Err(Refusal::WRONG),
    }
}

/// `"10%"`, from 1 to 99.
pub(super) fn percent(value: &DeValue<'_>) -> Result<u8, Refusal> {
    let bare = integer(value).filter(|number| (1..100).contains(number));
    if let Some(number) = bare {
        return Err(Refusal::wrong(format!("write \"{number}%\"")));
    }
    let digits = value.as_str().and_then(|text| text.trim().strip_suffix('%')).map(str::trim_end);
    let number: Option<u8> = digits.and_then(|digits| digits.parse().ok());
    number.filter(|number| (1..100).contains(number)).ok_or(Refusal::WRONG)
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, Refusal> {
    match value {
        DeValue::Boolean(flag) => Ok(*flag),
        DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
            Err(Refusal::wrong(format!("write {text} without quotes")))
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Err(Refusal::WRONG),
    }
}

pub(super) fn duration(value: &DeValue<'_>, min: Duration, max: Duration) -> Result<Duration, Refusal> {
    let duration = match value {
        DeValue::Integer(_) => {
            let number = integer(value).and_then(|number| u64::try_from(number).ok());
            Duration::from_millis(number.ok_or(Refusal::WRONG)?)
        }
        DeValue::String(text) => {
            units::parse_duration(text).map_err(|refusal| duration_words(refusal, text))?
        }
        DeValue::Float(_) => return Err(Refusal::wrong("write a fraction with its unit, such as \"1.5s\"")),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            return Err(Refusal::WRONG);
        }
    };
    match (min..=max).contains(&duration) {
        true => Ok(duration),
        false => Err(Refusal::WRONG),
    }
}

fn duration_words(refusal: DurationRefusal, text: &str) -> Refusal {
    match refusal {
        DurationRefusal::Unreadable => {
            Refusal::wrong("units are ms, s, m, h: \"1600ms\", \"10s\", \"1m 30s\"")
        }
        DurationRefusal::NoUnit => {
            Refusal::wrong(format!("write the unit: \"{}s\" or \"{0}ms\"", text.trim()))
        }
        DurationRefusal::Capital => {
            Refusal::wrong(format!("units are small letters: \"{}\"", text.trim().to_ascii_lowercase()))
        }
        DurationRefusal::Calendar => Refusal::said(
            format!("{} is in months or years, whose length is not fixed", quoted(text)),
            "\"m\" is minutes; write \"1m\" for a minute",
        ),
    }
}

/// A string without a NUL byte, short enough for the kernel.
pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Refusal> {
    let text = value.as_str().ok_or(Refusal::WRONG)?;
    fits(text)?;
    Ok(text)
}

pub(super) fn fits(text: &str) -> Result<(), Refusal> {
    if text.contains('\0') {
        return Err(Refusal::said(
            "contains a NUL character, which ends a string for the kernel",
            "remove it",
        ));
    }
    if text.len() >= MAX_STRING {
        return Err(Refusal::said(
            format!(
                "is {} bytes long; the kernel takes at most {} in one argument or variable (E2BIG)",
                text.len(),
                MAX_STRING - 1
            ),
            "put it into a file and pass the file's name",
        ));
    }
    Ok(())
}

/// A path: not empty, and nothing in it that a shell would have to expand.
pub(super) fn path<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Refusal> {
    let path = text(value)?;
    if path.is_empty() {
        return Err(Refusal::WRONG);
    }
    if path == "~" || path.starts_with("~/") {
        return Err(Refusal::said(
            format!("{} would have to be expanded by a shell", quoted(path)),
            "write the whole path, from / on",
        ));
    }
    Ok(path)
}

/// A name of an app or a namespace.
pub(super) fn name<'v>(value: &'v DeValue<'_>, what: &str) -> Result<&'v str, Refusal> {
    let name = value.as_str().ok_or(Refusal::WRONG)?;
    match name_fault(name) {
        None => Ok(name),
        Some(NameFault::Shape) => Err(Refusal::WRONG),
        Some(NameFault::All) => Err(Refusal::said(
            format!("\"all\" means every app wherever {what} is asked for"),
            "choose another name",
        )),
        Some(NameFault::Digits) => Err(Refusal::said(
            format!("{} would be taken for the id of a worker", quoted(name)),
            format!("add a letter: \"app{}\"", name.chars().take(48).collect::<String>()),
        )),
        Some(NameFault::Dash) => Err(Refusal::said(
            format!("{} would be taken for an option", quoted(name)),
            "begin with a letter or a digit",
        )),
        Some(NameFault::Dots) => {
            Err(Refusal::said(format!("{} would be taken for a folder", quoted(name)), "choose another name"))
        }
    }
}

pub(super) enum NameFault {
    /// Empty, too long, or a character that is not allowed.
    Shape,
    /// A dash at the beginning.
    Dash,
    /// `.` or `..`.
    Dots,
    /// The target `all`.
    All,
    /// Digits alone.
    Digits,
}

pub(super) fn name_fault(name: &str) -> Option<NameFault> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Some(NameFault::Shape);
    }
    if name.starts_with('-') {
        return Some(NameFault::Dash);
    }
    if matches!(name, "." | "..") {
        return Some(NameFault::Dots);
    }
    if name == "all" {
        return Some(NameFault::All);
    }
    name.bytes().all(|b| b.is_ascii_digit()).then_some(NameFault::Digits)
}

/// One of the words, by its place among them.
pub(super) fn choice(value: &DeValue<'_>, words: &'static [&'static str]) -> Result<&'static str, Refusal> {
    let written = text(value)?;
    // PM2 takes and prints fork_mode and cluster_mode as well.
    let bare = written.strip_suffix("_mode").unwrap_or(written);
    words.iter().copied().find(|word| *word == bare).ok_or_else(|| {
        match super::keys::nearest(bare, words.iter().copied()) {
            Some(word) => Refusal::wrong(format!("did you mean \"{word}\"?")),
            None => Refusal::WRONG,
        }
    })
}

pub(super) fn signal(value: &DeValue<'_>) -> Result<i32, Refusal> {
    let number = match value {
        DeValue::Integer(_) => integer(value)
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| units::signal_is_known(*number))
            .ok_or(Refusal::WRONG)?,
        DeValue::String(text) => units::signal_number(text).ok_or_else(|| {
            let bare = text.to_ascii_uppercase();
            let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
            match units::signal_names().find(|name| strsim::damerau_levenshtein(name, bare) <= 1) {
                Some(name) if bare.len() <= 16 => Refusal::wrong(format!("did you mean \"SIG{name}\"?")),
                Some(_) | None => Refusal::WRONG,
            }
        })?,
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => return Err(Refusal::WRONG),
    };
    match number {
        libc::SIGKILL => Err(Refusal::said(
            "SIGKILL leaves a worker no time to finish anything; it is sent after kill_timeout anyway",
            "write \"SIGTERM\" or \"SIGINT\", or kill_timeout = 0 to kill at once",
        )),
        libc::SIGSTOP | libc::SIGCONT => Err(Refusal::said(
            format!("{} freezes or thaws a process and never ends it", units::signal_name(number)),
            "write \"SIGTERM\" or \"SIGINT\"",
        )),
        number => Ok(number),
    }
}

/// What a variable or an argument becomes: text stays, numbers and flags as they are written, arrays and
/// tables as JSON.
pub(super) fn as_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.to_string(),
        },
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) | DeValue::Table(_) => as_json(value).to_string(),
    }
}

/// Recursion is bounded by the parser: values nest at most 80 deep.
fn as_json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::Integer(_) => match integer(value) {
            Some(number) => number.into(),
            None => as_text(value).into(),
        },
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(serde_json::Value::Null, Into::into),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::String(_) | DeValue::Datetime(_) => as_text(value).into(),
        DeValue::Array(items) => items.iter().map(|item| as_json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(key, item)| (key.get_ref().to_string(), as_json(item.get_ref()))).collect()
        }
    }
}

/// The sentence for a refused value.
pub(super) fn sentence(kind: Kind, value: &DeValue<'_>, refusal: Refusal) -> Sentence {
    let expected = kind.expected();
    match refusal {
        Refusal::Wrong { help } => {
            Sentence { message: format!("expected {expected}, got {}", shown(value)), expected, help }
        }
        Refusal::Said { message, help } => Sentence { message, expected, help },
    }
}

/// The texts of a problem.
pub(super) struct Sentence {
    pub(super) message: String,
    pub(super) expected: String,
    pub(super) help: Option<String>,
}
