//! The supervisor's own log: env_logger over an output that never waits.
//!
//! One record is one line: control characters of a message are escaped, so that no text from outside can
//! forge a record or steer a terminal. Refuses to guess where it runs: the caller says where it goes.

use std::ffi::OsStr;
use std::io::{self, Write};

use env_logger::fmt::Formatter;
use env_logger::{Builder, Logger, Target, WriteStyle};
use log::{Level, LevelFilter, Record, SetLoggerError};

use super::escape;
use super::files::OwnLog;
use super::foreground::{SharedConsole, lock};

/// Where the supervisor's log goes. Clones lead to the same place.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Standard error of a foreground supervisor; flushed by its owner at the end of each turn.
    Console(SharedConsole),
    /// The file of a background supervisor, written beside the loop.
    File(OwnLog),
}

/// What a record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// RFC 3339, UTC, milliseconds.
    Time,
    /// `<3>` to `<7>`: the journal notes the time itself (sd-daemon(3)).
    Journal,
    /// None: the record is an object of JSON, as the lines of workers are there.
    Json,
}

impl Prefix {
    /// What suits the destination: the journal's prefix only if JOURNAL_STREAM names that very descriptor,
    /// since the variable is inherited by programs whose output was redirected (systemd.exec(5)).
    pub fn of(destination: &Destination, journal_stream: Option<&OsStr>) -> Prefix {
        match destination {
            Destination::File(_) => Prefix::Time,
            Destination::Console(console) if lock(console).is_json() => Prefix::Json,
            Destination::Console(console) => {
                let (device, inode) = lock(console).identity();
                let ours = format!("{device}:{inode}");
                if journal_stream == Some(OsStr::new(&ours)) { Prefix::Journal } else { Prefix::Time }
            }
        }
    }
}

/// Installs the log for the whole process; once. `levels` is the value of CLUSTERD_LOG, else of RUST_LOG, in
/// env_logger's syntax; without one, `info`.
pub fn install(destination: Destination, prefix: Prefix, levels: Option<&str>) -> Result<(), SetLoggerError> {
    let logger = build(destination, prefix, levels);
    let most = logger.filter();
    log::set_boxed_logger(Box::new(logger))?;
    log::set_max_level(most);
    Ok(())
}

/// The log without installing it.
pub fn build(destination: Destination, prefix: Prefix, levels: Option<&str>) -> Logger {
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info);
    if let Some(levels) = levels {
        builder.parse_filters(levels);
    }
    let colour = match &destination {
        Destination::Console(console) => lock(console).has_colour(),
        Destination::File(_) => false,
    };
    builder
        .write_style(if colour { WriteStyle::Always } else { WriteStyle::Never })
        .format(move |formatter, record| format(formatter, record, prefix))
        .target(Target::Pipe(Box::new(destination)))
        .build()
}

fn format(formatter: &mut Formatter, record: &Record<'_>, prefix: Prefix) -> io::Result<()> {
    let message = record.args().to_string();
    if prefix == Prefix::Json {
        // Which writes control characters in its own way; what it does not know as such is escaped as elsewhere.
        let message = escape(message.as_bytes());
        let time = formatter.timestamp_millis().to_string();
        let level = record.level().as_str().to_ascii_lowercase();
        let object =
            serde_json::json!({ "timestamp": time, "type": "clusterd", "level": level, "message": message });
        return writeln!(formatter, "{object}");
    }
    let message = escape(message.as_bytes());
    match prefix {
        Prefix::Journal => writeln!(formatter, "<{}>{message}", journal_level(record.level())),
        Prefix::Time | Prefix::Json => {
            let style = formatter.default_level_style(record.level());
            let time = formatter.timestamp_millis();
            writeln!(formatter, "{time} {style}{:<5}{style:#} {message}", record.level())
        }
    }
}

/// syslog(3).
fn journal_level(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

impl Write for Destination {
    /// Takes a whole record, always: what cannot be written is dropped and counted further down.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        match self {
            Destination::Console(console) => lock(console).write_own(record),
            Destination::File(file) => file.write(record),
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Destination::Console(console) = self {
            lock(console).flush();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::file::LogFile;
    use crate::logs::files::LogFiles;
    use crate::sys::handover::Bell;
    use log::Log;
    use std::path::Path;

    fn written(prefix: Prefix, levels: Option<&str>, records: &[(Level, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clusterd.log");
        let file = LogFiles::default().keep_own(LogFile::open(&path).unwrap());
        let logger = build(Destination::File(file), prefix, levels);
        for (level, text) in records {
            let arguments = format_args!("{text}");
            logger.log(&Record::builder().level(*level).target("clusterd").args(arguments).build());
        }
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_record_has_time_level_and_message_on_one_line() {
        let text =
            written(Prefix::Time, None, &[(Level::Warn, "a\nb\x1b[2J"), (Level::Debug, "not by default")]);
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        assert_eq!(rest, "WARN  a\\x0ab\\x1b[2J\n");
    }

    #[test]
    fn the_journal_gets_levels_instead_of_times() {
        let records = [(Level::Error, "e"), (Level::Warn, "w"), (Level::Info, "i"), (Level::Debug, "d")];
        assert_eq!(written(Prefix::Journal, Some("debug"), &records), "<3>e\n<4>w\n<6>i\n<7>d\n");
        assert_eq!(written(Prefix::Journal, Some("warn"), &records), "<3>e\n<4>w\n");
    }

    #[test]
    fn a_full_disk_does_not_stop_the_log() {
        for mut files in [LogFiles::default(), LogFiles::beside(Bell::new().unwrap())] {
            let file = files.keep_own(LogFile::open(Path::new("/dev/full")).unwrap());
            let logger = build(Destination::File(file), Prefix::Time, None);
            for _ in 0..1000 {
                logger.log(&Record::builder().level(Level::Info).args(format_args!("x")).build());
            }
            files.drain(std::time::Duration::from_secs(20));
            assert_eq!(files.take_notices(), [], "what cannot be told in it");
        }
    }
}
