//! The keys that say where the output of an app's workers is kept, and how.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::LogTarget;
use super::date::DatePattern;
use super::keys::AppKey;
use super::reader::{Reader, join};
use super::units::{parse_duration, show_duration};
use super::value::{self, Refusal};
use super::{Spec, error::printable, size};

/// How far a log file grows until a new one is begun, and how many old ones stay. By default it grows on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes; 0 for no limit.
    pub max_size: u64,
    /// Old ones beside the one that is written.
    pub max_files: u32,
    /// How old its first line may be.
    pub max_age: Option<Duration>,
    /// Old ones are compressed.
    pub compress: bool,
}

impl Rotation {
    /// Where the file says nothing.
    pub const USUAL: Rotation =
        Rotation { max_size: 10 * 1024 * 1024, max_files: 10, max_age: None, compress: true };
}

/// So many lines in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least one.
    pub lines: u32,
    /// How long they are counted.
    pub over: Duration,
}

impl Rate {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60 * 60);

    /// `"10000/30s"`, `"1000/s"`; a bare number is lines a second.
    fn parse(value: &DeValue<'_>) -> Result<Rate, Refusal> {
        let text = match value::integer(value) {
            Some(lines) => format!("{lines}/s"),
            None => value::text(value)?.to_owned(),
        };
        let (lines, over) = text.split_once('/').ok_or(Refusal::WRONG)?;
        let lines: u32 = lines.trim().parse().map_err(|_| Refusal::WRONG)?;
        let over = over.trim();
        let over = match over.starts_with(|first: char| first.is_ascii_alphabetic()) {
            true => parse_duration(&format!("1{over}")),
            false => parse_duration(over),
        };
        let over = over.ok().filter(|over| (Rate::SHORTEST..=Rate::LONGEST).contains(over));
        let over = over.filter(|_| lines > 0).ok_or(Refusal::WRONG)?;
        Ok(Rate { lines, over })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.lines, show_duration(self.over))
    }
}

/// Where lines go, beside the memory of the last ones and who reads along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogsTo {
    /// To log files.
    #[default]
    Files,
    /// To the host's journal.
    Journald,
    /// To both.
    Both,
}

impl LogsTo {
    /// Log files are written.
    pub fn has_files(self) -> bool {
        self != LogsTo::Journald
    }

    /// The journal is written.
    pub fn has_journal(self) -> bool {
        self != LogsTo::Files
    }
}

/// What holds for all log files of an app. Workers that run take it over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// One more file, with the lines of both outputs.
    pub both: Option<LogTarget>,
    /// All workers write to the same files.
    pub merged: bool,
    /// No files are written.
    pub disabled: bool,
    /// How far they grow.
    pub rotation: Rotation,
    /// Each line is an object of JSON.
    pub json: bool,
    /// What all old files of the app may take together, in bytes; 0 for no limit.
    pub total_size: u64,
    /// What stands before each line, or in its object.
    pub date: Option<DatePattern>,
    /// Where its lines go.
    pub to: LogsTo,
    /// What the app may print; the rest is left out.
    pub rate: Option<Rate>,
}

impl Spec {
    /// The same but for where output is kept, and how: workers that run this can go on as `other`.
    pub fn runs_as(&self, other: &Spec) -> bool {
        let kept = Spec {
            out_file: other.out_file.clone(),
            error_file: other.error_file.clone(),
            logs: other.logs.clone(),
            ..self.clone()
        };
        kept == *other
    }
}

impl Reader<'_, '_, '_, AppKey> {
    pub(super) fn log_settings(&mut self, cwd: &Path) -> LogSettings {
        LogSettings {
            both: self.read(AppKey::LogFile, |value| both(value, cwd)).flatten(),
            merged: self.flag(AppKey::MergeLogs).unwrap_or(false),
            disabled: self.flag(AppKey::DisableLogs).unwrap_or(false),
            rotation: self.rotation(),
            total_size: self.read(AppKey::LogTotalSize, size::log_file).unwrap_or(0),
            json: self.choice(AppKey::LogType) == Some("json"),
            date: self.date(),
            to: match self.choice(AppKey::LogTo) {
                Some("journald") => LogsTo::Journald,
                Some("both") => LogsTo::Both,
                Some(_) | None => LogsTo::Files,
            },
            rate: self.read(AppKey::LogRateLimit, Rate::parse),
        }
    }

    /// As in PM2 a pattern goes before `time`.
    fn date(&mut self) -> Option<DatePattern> {
        let pattern = self.read(AppKey::LogDateFormat, |value| {
            DatePattern::parse(value::text(value)?).map_err(Refusal::wrong)
        });
        let time = self.flag(AppKey::Time).unwrap_or(false);
        pattern.or_else(|| time.then(DatePattern::of_time))
    }

    fn rotation(&mut self) -> Rotation {
        let usual = Rotation::USUAL;
        Rotation {
            max_size: self.read(AppKey::LogMaxSize, size::log_file).unwrap_or(usual.max_size),
            max_files: self.count(AppKey::LogMaxFiles).unwrap_or(usual.max_files),
            max_age: self.duration(AppKey::LogMaxAge),
            compress: self.flag(AppKey::LogCompress).unwrap_or(usual.compress),
        }
    }

    pub(super) fn log_target(&mut self, id: AppKey, cwd: &Path) -> LogTarget {
        self.read(id, |value| target(value, cwd)).unwrap_or(LogTarget::Default)
    }
}

fn both(value: &DeValue<'_>, cwd: &Path) -> Result<Option<LogTarget>, Refusal> {
    match value {
        DeValue::Boolean(wanted) => Ok(wanted.then_some(LogTarget::Default)),
        value => Ok(Some(target(value, cwd)?).filter(|target| *target != LogTarget::Discard)),
    }
}

fn target(value: &DeValue<'_>, cwd: &Path) -> Result<LogTarget, Refusal> {
    match value::path(value)? {
        "/dev/null" | "NULL" => Ok(LogTarget::Discard),
        path if path.ends_with('/') => {
            Err(Refusal::wrong(format!("add the file's name: \"{}out.log\"", printable(path))))
        }
        path => Ok(LogTarget::File(join(cwd, path))),
    }
}

/// For `describe`; none where a key is not set.
pub(super) fn shown(key: AppKey, spec: &Spec) -> Option<String> {
    let logs = &spec.logs;
    match key {
        AppKey::OutFile => Some(show_target(&spec.out_file)),
        AppKey::ErrorFile => Some(show_target(&spec.error_file)),
        AppKey::LogFile => logs.both.as_ref().map(show_target),
        AppKey::MergeLogs => Some(logs.merged.to_string()),
        AppKey::DisableLogs => Some(logs.disabled.to_string()),
        AppKey::LogTo => {
            let word = match logs.to {
                LogsTo::Files => "files",
                LogsTo::Journald => "journald",
                LogsTo::Both => "both",
            };
            Some(word.to_owned())
        }
        AppKey::LogMaxSize => Some(size::show_log_file(logs.rotation.max_size)),
        AppKey::LogMaxFiles => Some(logs.rotation.max_files.to_string()),
        AppKey::LogTotalSize => (logs.total_size > 0).then(|| size::show_log_file(logs.total_size)),
        AppKey::LogMaxAge => logs.rotation.max_age.map(show_duration),
        AppKey::LogType => Some(if logs.json { "json" } else { "raw" }.to_owned()),
        // `time` is one of them.
        AppKey::LogDateFormat => logs.date.as_ref().map(|date| date.text().to_owned()),
        AppKey::LogRateLimit => logs.rate.map(|rate| rate.to_string()),
        AppKey::LogCompress => Some(logs.rotation.compress.to_string()),
        _ => None,
    }
}

fn show_target(target: &LogTarget) -> String {
    match target {
        LogTarget::Default => "default".to_owned(),
        LogTarget::Discard => "/dev/null".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    }
}
