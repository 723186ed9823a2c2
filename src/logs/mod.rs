//! What workers print, on its way to files, to the foreground's terminal, to the memory of last lines and to
//! those who follow; and the supervisor's own log.
//!
//! Nothing here blocks on a reader, panics on bytes, or holds more than its limits: what a slow reader or a
//! full disk cannot take is dropped, counted, and reported when it works again. Bytes of workers are never
//! changed, except where they are shown on a terminal, and in files that were asked for in another `form`. The loop
//! calls, and says when. Log files are written by threads, one for each disk (`lane`, with its `queue` and its `writer`),
//! which `files` is the loop's side of; old ones are looked after in a thread of their own (`archive`). They share
//! nothing with the loop but their lists of what is to be done.

pub mod archive;
pub mod console;
pub mod escape;
pub mod family;
pub mod file;
pub mod files;
pub mod foreground;
pub mod form;
pub mod journal;
pub mod lane;
pub mod lines;
pub mod logger;
pub mod pace;
pub mod queue;
pub mod rate;
pub mod ring;
pub mod rotation;
pub mod totals;
pub mod worker;
pub mod writer;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

pub use escape::escape;

use crate::config::LogTarget;
use crate::control::protocol::Stream;
use crate::supervisor::event::{AppId, WorkerId};

/// Who prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its app.
    pub app: AppId,
    /// The process.
    pub worker: WorkerId,
    /// The app's namespace.
    pub namespace: String,
    /// The app's name.
    pub name: String,
    /// Its number within the app.
    pub instance: u32,
}

impl Origin {
    /// The app as a target: with its namespace unless that is `default`.
    pub fn shown(&self) -> Cow<'_, str> {
        match self.namespace.as_str() {
            "default" => Cow::Borrowed(&self.name),
            namespace => Cow::Owned(format!("{namespace}/{}", self.name)),
        }
    }
}

/// One line, as every sink but the files takes it.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Who printed it.
    pub origin: &'a Origin,
    /// Which output.
    pub stream: Stream,
    /// The bytes as they were written, without the newline.
    pub bytes: &'a [u8],
    /// The line is over the limit and goes on in the next one.
    pub cut: bool,
    /// It goes on with the line before.
    pub continued: bool,
}

impl Line<'_> {
    /// What people are shown: without the carriage return of a `\r\n`.
    pub fn shown(&self) -> &[u8] {
        self.bytes.strip_suffix(b"\r").unwrap_or(self.bytes)
    }
}

/// The file that a stream of an app (none: both) goes to; none when it is discarded.
///
/// `instance` is given when the app has several and each has its own files: `api-out-2.log`. Devices keep
/// their names.
pub fn file_path(
    target: &LogTarget,
    folder: &Path,
    app: &str,
    stream: Option<Stream>,
    instance: Option<u32>,
) -> Option<PathBuf> {
    let path = match target {
        LogTarget::Discard => return None,
        LogTarget::File(path) if path.starts_with("/dev") => return Some(path.clone()),
        LogTarget::File(path) => path.clone(),
        LogTarget::Default => match stream {
            Some(Stream::Out) => folder.join(format!("{app}-out.log")),
            Some(Stream::Err) => folder.join(format!("{app}-error.log")),
            None => folder.join(format!("{app}.log")),
        },
    };
    Some(match instance {
        Some(instance) => with_instance(&path, instance),
        None => path,
    })
}

fn with_instance(path: &Path, instance: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{instance}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_app_stream_and_instance() {
        let folder = Path::new("/var/log/clusterd");
        let path = |target: LogTarget, stream, instance| {
            file_path(&target, folder, "api.v2", stream, instance).map(|path| path.display().to_string())
        };
        let (out, err) = (Some(Stream::Out), Some(Stream::Err));
        let file = |path: &str| LogTarget::File(path.into());
        let expect = |path: &str| Some(path.to_owned());
        assert_eq!(path(LogTarget::Default, out, None), expect("/var/log/clusterd/api.v2-out.log"));
        assert_eq!(path(LogTarget::Default, err, Some(3)), expect("/var/log/clusterd/api.v2-error-3.log"));
        assert_eq!(path(file("/srv/all"), out, Some(0)), expect("/srv/all-0"));
        assert_eq!(path(file("/dev/stdout"), out, Some(0)), expect("/dev/stdout"));
        assert_eq!(path(LogTarget::Discard, out, None), None);
        assert_eq!(path(LogTarget::Default, None, Some(1)), expect("/var/log/clusterd/api.v2-1.log"));
    }
}
