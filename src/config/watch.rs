//! The values of `watch` and `ignore_watch`.

use std::time::Duration;

use toml::de::DeValue;

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
            let paths = several(value, MAX_PATHS, |value| value::path(value).map(str::to_owned))?;
            Ok((!paths.is_empty()).then_some(paths))
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            Err(Refusal::WRONG)
        }
    }
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
