//! `flush`: the log files of apps are emptied, those of stopped ones, too. Old files that were rotated stay.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::control::protocol::{Done, Error};
use crate::control::server::ClientId;
use crate::logs::files::Mark;
use crate::supervisor::event::{AppId, Scope};

use super::Daemon;
use super::held::What;
use super::trust;

impl Daemon {
    /// Without a target everybody's, and the supervisor's own log.
    pub(super) fn flush(&mut self, client: ClientId, targets: &[String]) -> Result<(), Error> {
        let whom = self.whom_or_all(targets)?;
        let (mut marks, mut failures) = (BTreeSet::new(), Vec::new());
        for (app, scope) in &whom {
            for path in self.files_of(*app, *scope) {
                match self.empty(*app, &path) {
                    Ok(mark) => marks.extend(mark),
                    Err(error) => {
                        failures.push(format!("log file {}: cannot be emptied: {error}", path.display()));
                    }
                }
            }
            if *scope == Scope::All {
                self.output.forget_lines(*app);
            }
        }
        if targets.is_empty() {
            marks.extend(self.output.files.empty_own(self.now));
        }
        let mut apps: Vec<String> = whom.iter().map(|(app, _)| self.app_name(*app)).collect();
        apps.dedup();
        let message = format!("flushed {}", apps.join(", "));
        self.await_files(Some(client), What::Emptied(Done { message, apps }), marks, failures);
        Ok(())
    }

    fn empty(&mut self, app: AppId, path: &Path) -> io::Result<Option<Mark>> {
        if let Some(mark) = self.output.files.empty_open(path, self.now) {
            return Ok(Some(mark));
        }
        let Some(record) = self.catalog.app(app) else { return Ok(None) };
        let behalf = trust::behalf(&record.recipe, path);
        let behalf = behalf.map_err(|refused| io::Error::other(refused.to_string()))?;
        self.output.files.empty_at(path, behalf, self.now)
    }

    /// `reload-logs`, and SIGUSR2, to which nobody waits for an answer.
    pub(super) fn reload_logs(&mut self, client: Option<ClientId>) {
        let marks = self.output.files.reopen(self.now).into_iter().collect();
        self.await_files(client, What::Reopened, marks, Vec::new());
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
