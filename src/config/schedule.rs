//! The values of `cron_restart` and `timezone`.

use toml::de::DeValue;

use super::calendar::{self, CalendarError};
use super::value::Refusal;

/// A pattern that comes true some day.
pub(super) fn pattern(value: &DeValue<'_>) -> Result<String, Refusal> {
    let DeValue::String(text) = value else { return Err(Refusal::WRONG) };
    match calendar::pattern(text) {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(CalendarError::Pattern(why) | CalendarError::Zone(why)) => Err(Refusal::wrong(why)),
        Err(CalendarError::Never) => {
            Err(Refusal::said(format!("{text:?} never comes true"), "no month has such a day"))
        }
    }
}

/// A zone that this host has.
pub(super) fn zone(value: &DeValue<'_>) -> Result<String, Refusal> {
    let DeValue::String(text) = value else { return Err(Refusal::WRONG) };
    match calendar::zone(text) {
        Ok(_) => Ok(text.to_string()),
        Err(error) => Err(Refusal::wrong(error.to_string())),
    }
}
