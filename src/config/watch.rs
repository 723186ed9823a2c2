//! The values of `watch` and `ignore_watch`.

use std::time::Duration;

use toml::de::DeValue;

use super::error::quoted;
use super::glob;
use super::ignore;
use super::value::{self, Refusal};

/// `watch_delay`, where the file does not say it: longer than an editor or `git checkout` pauses within one save, and
/// not yet felt as a wait.
pub(super) const DELAY: Duration = Duration::from_millis(200);

const MAX_PATHS: usize = 100;
const MAX_PATTERNS: usize = 1000;
const LONGEST: usize = 4096;

/// What is watched: `.` for true, nothing for false.
pub(super) fn paths(value: &DeValue<'_>) -> Result<Option<Vec<String>>, Refusal> {
    match value {
        DeValue::Boolean(watched) => Ok(watched.then(|| vec![".".to_owned()])),
        DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
            Err(Refusal::wrong(format!("write {text} without quotes")))
        }
        DeValue::String(_) | DeValue::Array(_) => {
            let paths = several(value, MAX_PATHS, path)?;
            Ok((!paths.is_empty()).then_some(paths))
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            Err(Refusal::WRONG)
        }
    }
}

fn path(value: &DeValue<'_>) -> Result<String, Refusal> {
    let path = value::path(value)?;
    if let Some(rest) = path.strip_prefix('!') {
        return Err(Refusal::said(
            format!("{} says what is not watched", quoted(path)),
            format!("name it in ignore_watch = [{}]; a file of this name is \"./{path}\"", quoted(rest)),
        ));
    }
    glob::check(path).map_err(|why| {
        let help = "patterns are made of *, **, ?, [ab] and {a,b}; a backslash takes the meaning from what follows it";
        Refusal::said(why, help)
    })?;
    Ok(path.to_owned())
}

/// Patterns, in the order in which they hold: the last that fits decides.
pub(super) fn patterns(value: &DeValue<'_>) -> Result<Vec<String>, Refusal> {
    several(value, MAX_PATTERNS, |value| {
        let text = value::text(value)?;
        if text.len() > LONGEST {
            return Err(Refusal::said("is longer than 4096 bytes", "no path is longer than that"));
        }
        ignore::check(text).map_err(|why| Refusal::said(why, "patterns are those of .gitignore"))?;
        Ok(text.to_owned())
    })
}

fn several<T>(
    value: &DeValue<'_>,
    most: usize,
    read: impl Fn(&DeValue<'_>) -> Result<T, Refusal>,
) -> Result<Vec<T>, Refusal> {
    let Some(items) = value.as_array() else { return Ok(vec![read(value)?]) };
    if items.len() > most {
        return Err(Refusal::said(
            format!("has {} entries; at most {most} are taken", items.len()),
            "name the folder that they lie in",
        ));
    }
    items.iter().map(|item| read(item.get_ref())).collect()
}
