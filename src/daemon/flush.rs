//! `flush`: the log files of apps are emptied, those of stopped ones, too. Old files that were rotated stay.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::control::protocol::{Done, Error, Reply};
use crate::control::server::ClientId;
use crate::logs::file::LogFile;
use crate::supervisor::event::{AppId, Scope};

use super::Daemon;
use super::commands::failure;
use super::trust;

impl Daemon {
    /// Without a target everybody's, and the supervisor's own log.
    pub(super) fn flush(&mut self, client: ClientId, targets: &[String]) -> Result<(), Error> {
        let whom = self.whom_or_all(targets)?;
        let mut failures = Vec::new();
        for (app, scope) in &whom {
            for path in self.files_of(*app, *scope) {
                if let Err(error) = self.empty(*app, &path) {
                    failures.push(format!("log file {}: cannot be emptied: {error}", path.display()));
                }
            }
            if *scope == Scope::All {
                self.output.forget_lines(*app);
            }
        }
        if targets.is_empty()
            && let Some(log) = &self.own_log
            && let Ok(Err(error)) = log.lock().map(|mut log| log.empty())
        {
            failures.push(format!("the supervisor's log cannot be emptied: {error}"));
        }
        if !failures.is_empty() {
            return Err(failure(failures.join("\n")));
        }
        let mut apps: Vec<String> = whom.iter().map(|(app, _)| self.app_name(*app)).collect();
        apps.dedup();
        let message = format!("flushed {}", apps.join(", "));
        self.server.reply(client, &Reply::Done(Done { message, apps }), true);
        Ok(())
    }

    fn empty(&mut self, app: AppId, path: &Path) -> io::Result<()> {
        if let Some(emptied) = self.output.empty_open(path) {
            return emptied;
        }
        let Some(record) = self.catalog.app(app) else { return Ok(()) };
        let behalf = trust::behalf(&record.recipe, path);
        LogFile::empty_at(path, behalf.map_err(|refused| io::Error::other(refused.to_string()))?)
    }

    /// `reload-logs`.
    pub(super) fn reload_logs(&mut self, client: ClientId) -> Result<(), Error> {
        let failures = self.reopen_logs();
        if !failures.is_empty() {
            return Err(failure(failures.join("\n")));
        }
        let done = Done { message: "log files reopened".to_owned(), apps: Vec::new() };
        self.server.reply(client, &Reply::Done(done), true);
        Ok(())
    }

    /// The files that are written now, and those that the next start would write.
    fn files_of(&self, app: AppId, scope: Scope) -> BTreeSet<PathBuf> {
        let slots =
            self.supervisor.slots(app).filter(|slot| scope == Scope::All || scope == Scope::Slot(slot.slot));
        let instances: BTreeSet<u32> = slots.map(|slot| slot.instance).collect();
        let mut paths = self.output.open_paths(app, &instances);
        if let Some(record) = self.catalog.app(app) {
            let instances = match instances.is_empty() {
                true => (0..record.recipe.policy.instances).collect(),
                false => instances,
            };
            for instance in instances {
                paths.extend(self.wanted_paths(&record.file_stem(), &record.recipe, instance));
            }
        }
        paths
    }
}
