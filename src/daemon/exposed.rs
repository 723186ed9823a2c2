//! Warns once for each app, when its file is loaded, of secrets that lie open to every user of the host.

use crate::config::exposed;
use crate::supervisor::event::{AppId, Command};

use super::Daemon;

impl Daemon {
    pub(super) fn warn_of_exposed(&mut self, commands: &[(AppId, Command)]) {
        for (app, _) in commands.iter().filter(|(_, command)| is_of_file(command)) {
            let Some(record) = self.catalog.app(*app) else { continue };
            let found = exposed::exposed(record.source.path.as_deref(), &record.recipe.spec);
            if found.is_empty() || !self.warned.first("exposed", Some(*app)) {
                continue;
            }
            for file in found {
                log::warn!("{}: {}", self.app_name(*app), file.message());
            }
        }
    }
}

/// Whether it brings what a file says.
fn is_of_file(command: &Command) -> bool {
    matches!(
        command,
        Command::Add { .. }
            | Command::Restore { .. }
            | Command::Define { .. }
            | Command::Adjust { .. }
            | Command::Start { definition: Some(_), .. }
            | Command::Restart { definition: Some(_), .. }
            | Command::Reload { definition: Some(_), .. }
    )
}
