//! What files say about the supervisor as a whole, rather than about one app.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config;

/// The bound on a whole shutdown. There is one, whatever the number of files: the last file that says
/// anything about it decides, and only that file takes it back, by saying nothing when it is read again.
#[derive(Debug, Default)]
pub(super) struct ShutdownTimeout {
    said: Option<Duration>,
    /// By which file; none for standard input.
    by: Option<PathBuf>,
}

impl ShutdownTimeout {
    /// A file was read and is applied.
    pub(super) fn hear(&mut self, said: Option<Duration>, file: Option<&Path>) {
        if said.is_some() || self.by.as_deref() == file {
            *self = ShutdownTimeout { said, by: file.map(Path::to_owned) };
        }
    }

    pub(super) fn get(&self) -> Duration {
        self.said.unwrap_or(config::SHUTDOWN_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_said_a_shutdown_timeout_takes_it_back() {
        let mut timeout = ShutdownTimeout::default();
        let (one, other) = (Some(Path::new("/srv/one.toml")), Some(Path::new("/srv/other.toml")));
        let minute = Duration::from_secs(60);
        timeout.hear(Some(minute), one);
        timeout.hear(None, other);
        timeout.hear(None, None);
        assert_eq!(timeout.get(), minute);
        timeout.hear(Some(minute / 2), other);
        timeout.hear(None, one);
        assert_eq!(timeout.get(), minute / 2);
        timeout.hear(None, other);
        assert_eq!(timeout.get(), config::SHUTDOWN_TIMEOUT);
    }
}
