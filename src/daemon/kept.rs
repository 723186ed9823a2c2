//! Where the output of workers is kept: which files, opened before a worker starts, exchanged beside running
//! ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::LogTarget;
use crate::config::logs::LogSettings;
use crate::control::protocol::Stream;
use crate::home;
use crate::logs::file_path;
use crate::logs::files::FileId;
use crate::logs::form::Form;
use crate::logs::journal::Fields;
use crate::logs::worker::Files;
use crate::supervisor::event::{AppId, SlotId, SpawnFailure, WorkerId};
use crate::sys::output::OpenError;
use crate::sys::socket;

use super::Daemon;
use super::catalog::Recipe;
use super::trust;

/// What a log file takes: one output, or (none) both.
type Takes = Option<Stream>;

/// One log file of a worker.
struct Wanted {
    takes: Takes,
    path: PathBuf,
    /// Nobody named it: that it cannot be opened is no reason not to start.
    default: bool,
}

/// The log files of one worker, before anything is opened.
fn wanted(recipe: &Recipe, folder: &Path, stem: &str, instance: u32) -> Vec<Wanted> {
    let spec = &recipe.spec;
    let several = recipe.policy.instances > 1 || instance > 0;
    let instance = (several && !spec.logs.merged).then_some(instance);
    if spec.logs.disabled || !spec.logs.to.has_files() {
        return Vec::new();
    }
    let targets = [
        (Some(Stream::Out), Some(&spec.out_file)),
        (Some(Stream::Err), Some(&spec.error_file)),
        (None, spec.logs.both.as_ref()),
    ];
    let files = targets.into_iter().filter_map(|(takes, target)| {
        let target = target?;
        let default = *target == LogTarget::Default;
        let path = file_path(target, folder, stem, takes, instance)?;
        (recipe.log_files || !default).then_some(Wanted { takes, path, default })
    });
    files.collect()
}

impl Daemon {
    fn log_folder(&self, recipe: &Recipe) -> PathBuf {
        recipe.log_dir.clone().unwrap_or_else(|| self.home.logs.clone())
    }

    /// Opens the log files of a worker. One that was named and cannot be opened fails the start; a
    /// default one costs a warning.
    pub(super) fn open_files(
        &mut self,
        app: AppId,
        instance: u32,
        recipe: &Recipe,
    ) -> Result<Files, SpawnFailure> {
        let folder = self.log_folder(recipe);
        let wanted = wanted(recipe, &folder, &self.file_stem(app), instance);
        let may_write =
            wanted.iter().any(|file| file.default) && self.may_write_to(recipe.log_dir.as_deref());
        let mut files = Files::default();
        for file in wanted.into_iter().filter(|file| may_write || !file.default) {
            let path = &file.path;
            let behalf = trust::behalf(recipe, path).map_err(|refused| refused.into_failure(path));
            let opened = behalf.and_then(|behalf| {
                let opened = self.output.open((path, behalf), app, &recipe.spec.logs, self.now);
                opened.map_err(|error| open_failure(path, &error))
            });
            match opened {
                Ok(id) => put(&mut files, file.takes, id),
                Err(SpawnFailure { message, .. }) if file.default => {
                    self.warn_once("default log file", || format!("no log files are written: {message}"));
                }
                Err(failure) => {
                    self.output.release(files);
                    return Err(failure);
                }
            }
        }
        Ok(files)
    }

    /// Workers that run write where the app's newest definition says. A file that cannot be opened costs a
    /// warning: they go on as before.
    pub(super) fn exchange_files(&mut self, app: AppId) {
        let Some(recipe) = self.catalog.app(app).map(|record| Rc::clone(&record.recipe)) else { return };
        self.output.take_over(app, &recipe.spec.logs);
        for (worker, instance) in self.output.workers_of(app) {
            match self.open_files(app, instance, &recipe) {
                Ok(files) => {
                    let slot = self.supervisor.slots(app).find(|slot| slot.instance == instance);
                    let form = slot.and_then(|slot| form(&recipe.spec.logs, slot.slot));
                    self.output.exchange(worker, files, form);
                    let generation = self.supervisor.worker(worker).map(|place| place.generation);
                    let fields = generation.and_then(|generation| {
                        self.fields(worker, (app, instance, generation), &recipe.spec.logs)
                    });
                    self.output.tell_journal(worker, fields);
                }
                Err(failure) => log::warn!("{}: {}", self.label(worker), failure.message),
            }
        }
    }

    /// Whether default log files may be written to the folder that the file names; if not, a warning says why.
    fn may_write_to(&mut self, log_dir: Option<&Path>) -> bool {
        let Some(folder) = log_dir else { return true };
        let refused = home::log_folder(folder, socket::own_uid()).err();
        if let Some(error) = &refused {
            self.warn_once("default log file", || format!("no log files are written: {error}"));
        }
        refused.is_none()
    }

    /// The log files of an app's first worker, for `describe`.
    pub(super) fn shown_files(
        &self,
        stem: &str,
        recipe: &Recipe,
    ) -> impl Fn(Takes) -> Option<String> + use<> {
        let files = wanted(recipe, &self.log_folder(recipe), stem, 0);
        move |takes| files.iter().find(|file| file.takes == takes).map(|file| file.path.display().to_string())
    }
}

impl Daemon {
    /// The log files that a worker would have.
    pub(super) fn wanted_paths(&self, stem: &str, recipe: &Recipe, instance: u32) -> Vec<PathBuf> {
        let wanted = wanted(recipe, &self.log_folder(recipe), stem, instance);
        wanted.into_iter().map(|file| file.path).collect()
    }
}

impl super::output::Output {
    /// The files that these workers of an app write to.
    pub(super) fn open_paths(&self, app: AppId, instances: &BTreeSet<u32>) -> BTreeSet<PathBuf> {
        let of_app = self.workers.values().filter(|entry| {
            let origin = entry.output.origin();
            origin.app == app && instances.contains(&origin.instance)
        });
        let files = of_app.flat_map(|entry| entry.output.files().iter());
        files.filter_map(|file| self.file_path(file)).map(Path::to_owned).collect()
    }

    fn workers_of(&self, app: AppId) -> Vec<(WorkerId, u32)> {
        let origins = self.workers.values().map(|entry| entry.output.origin());
        origins.filter(|origin| origin.app == app).map(|origin| (origin.worker, origin.instance)).collect()
    }

    fn tell_journal(&mut self, worker: WorkerId, fields: Option<Fields>) {
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.output.set_fields(fields);
        }
    }

    fn exchange(&mut self, worker: WorkerId, files: Files, form: Option<Form>) {
        let Some(entry) = self.workers.get_mut(&worker) else { return self.release(files) };
        let before = entry.output.set_files(files);
        entry.output.set_form(form);
        self.release(before);
    }
}

/// How the lines of the worker in this slot are written.
pub(super) fn form(logs: &LogSettings, slot: SlotId) -> Option<Form> {
    Form::new(logs.json, logs.date.as_ref(), slot.0)
}

fn put(files: &mut Files, takes: Takes, id: FileId) {
    match takes {
        Some(Stream::Out) => files.out = Some(id),
        Some(Stream::Err) => files.err = Some(id),
        None => files.both = Some(id),
    }
}

fn open_failure(path: &Path, error: &OpenError) -> SpawnFailure {
    SpawnFailure {
        step: format!("open {}", path.display()),
        errno: error.errno(),
        message: error.to_string(),
        transient: false,
    }
}
