//! Arguments and variables: strings that go to execve(2) as they are, within what the kernel takes.

use toml::Spanned;
use toml::de::DeValue;

use super::value::{self, MAX_STRING, Refusal};

/// Arguments of one key, and variables of one table, at most.
pub(super) const MAX_WORDS: usize = 4096;

/// Variables that clusterd sets itself for each worker.
pub(super) const OWN_VARIABLES: &[&str] = &[
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "NODE_CHANNEL_FD",
    "CLUSTERD_APP",
    "CLUSTERD_INSTANCE",
    "CLUSTERD_GENERATION",
];

/// What is wrong, and at which value.
pub(super) type Refused<'v> = (&'v Spanned<DeValue<'v>>, Refusal);

/// The good words of an array or of a string that is split as a shell splits words.
pub(super) fn read<'v>(value: &'v Spanned<DeValue<'v>>) -> (Vec<String>, Vec<Refused<'v>>) {
    let items = match value.get_ref() {
        DeValue::String(text) => {
            return match split(text) {
                Ok(words) => (words, Vec::new()),
                Err(refusal) => (Vec::new(), vec![(value, refusal)]),
            };
        }
        DeValue::Array(items) => items,
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => return (Vec::new(), vec![(value, Refusal::WRONG)]),
    };
    if items.len() > MAX_WORDS {
        return (Vec::new(), vec![(value, too_many(items.len()))]);
    }
    let (mut good, mut refused) = (Vec::new(), Vec::new());
    for item in items.iter() {
        match word(item.get_ref()) {
            Ok(word) => good.push(word),
            Err(refusal) => refused.push((item, refusal)),
        }
    }
    (good, refused)
}

fn too_many(count: usize) -> Refusal {
    let message = format!("has {count} arguments; at most {MAX_WORDS} are taken");
    Refusal::said(message, "put them into a file and pass the file's name")
}

fn split(text: &str) -> Result<Vec<String>, Refusal> {
    value::fits(text)?;
    let words = shlex::split(text).ok_or_else(|| {
        Refusal::said(
            "has a quote that is not closed, or ends with a backslash",
            "write an array: [\"--flag\", \"a b\"]",
        )
    })?;
    match words.len() > MAX_WORDS {
        true => Err(too_many(words.len())),
        false => Ok(words),
    }
}

fn word(value: &DeValue<'_>) -> Result<String, Refusal> {
    match value {
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {
            let text = value::as_text(value);
            value::fits(&text)?;
            Ok(text)
        }
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(Refusal::wrong("write each argument as a string"))
        }
    }
}

/// Whether a variable can have this name.
pub(super) fn variable_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Refusal::said(
            "a variable's name is not empty and holds neither '=' nor NUL",
            "rename the variable",
        ));
    }
    if OWN_VARIABLES.contains(&name) {
        return Err(Refusal::said("clusterd sets this variable itself for each worker", "remove it"));
    }
    Ok(())
}

/// The text of a variable.
pub(super) fn variable(name: &str, value: &DeValue<'_>) -> Result<String, Refusal> {
    variable_name(name)?;
    let text = value::as_text(value);
    if name.len() + 1 + text.len() >= MAX_STRING {
        return Err(Refusal::said(
            format!(
                "is {} bytes long with its name; the kernel takes at most {} (E2BIG)",
                name.len() + 1 + text.len(),
                MAX_STRING - 1
            ),
            "put it into a file and pass the file's name",
        ));
    }
    value::fits(&text)?;
    Ok(text)
}
