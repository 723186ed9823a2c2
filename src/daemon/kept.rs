//! Where the output of workers is kept: which files, opened before a worker starts, exchanged beside running
//! ones.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::LogTarget;
use crate::config::ProcessSettings;
use crate::config::logs::LogSettings;
use crate::control::protocol::Stream;
use crate::home;
use crate::logs::file::LogFile;
use crate::logs::file_path;
use crate::logs::files::FileId;
use crate::logs::form::Form;
use crate::logs::journal::Fields;
use crate::logs::opener::{Found, Refusal};
use crate::logs::worker::Files;
use crate::supervisor::event::{AppId, SlotId, SpawnFailure, WorkerId};
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

    /// Has the log files of a worker opened beside the loop; those that are not yet. Without any of them
    /// [`Daemon::open_files`] can be called.
    pub(super) fn prepare_files(&mut self, app: AppId, instance: u32, recipe: &Recipe) -> BTreeSet<PathBuf> {
        let wanted = wanted(recipe, &self.log_folder(recipe), &self.file_stem(app), instance);
        let mut left = BTreeSet::new();
        for Wanted { path, default, .. } in wanted {
            let (process, log_dir) =
                (recipe.spec.process.clone(), recipe.log_dir.clone().filter(|_| default));
            let file = path.clone();
            let open = move |opens| find(&process, log_dir.as_deref(), &file, opens);
            if !self.output.files.prepare(&path, trust::is_judged(), open, self.now) {
                left.insert(path.components().collect());
            }
        }
        left
    }

    /// Opens the log files of a worker, which were prepared. One that was named and cannot be opened fails the start; a
    /// default one costs a warning.
    pub(super) fn open_files(
        &mut self,
        app: AppId,
        instance: u32,
        recipe: &Recipe,
    ) -> Result<Files, SpawnFailure> {
        let wanted = wanted(recipe, &self.log_folder(recipe), &self.file_stem(app), instance);
        let mut files = Files::default();
        for file in wanted {
            let path = &file.path;
            match self.output.open(path, app, &recipe.spec.logs, self.now) {
                Ok(id) => put(&mut files, file.takes, id),
                Err(Refusal { message, .. }) if file.default => {
                    self.warn_once("default log file", || format!("no log files are written: {message}"));
                }
                Err(Refusal { errno, message, transient }) => {
                    self.output.release(files);
                    return Err(SpawnFailure {
                        step: format!("open {}", path.display()),
                        errno,
                        message,
                        transient,
                    });
                }
            }
        }
        Ok(files)
    }

    /// Workers that run write where the app's newest definition says, once the files are open. A file that cannot be
    /// opened costs a warning: they go on as before.
    pub(super) fn exchange_files(&mut self, app: AppId) {
        let Some(recipe) = self.catalog.app(app).map(|record| Rc::clone(&record.recipe)) else { return };
        self.output.take_over(app, &recipe.spec.logs);
        self.exchange_when_open(app, &recipe, false);
    }

    /// As soon as its files are open, or at once.
    pub(super) fn exchange_when_open(&mut self, app: AppId, recipe: &Recipe, at_once: bool) {
        let workers = self.output.workers_of(app);
        let instances = workers.iter().map(|(_, instance)| *instance);
        let left: BTreeSet<PathBuf> =
            instances.flat_map(|instance| self.prepare_files(app, instance, recipe)).collect();
        if !left.is_empty() && !at_once {
            return self.await_exchange(app, left);
        }
        for (worker, instance) in workers {
            match self.open_files(app, instance, recipe) {
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

/// Beside the loop: with whose rights a log file is handled, and itself where it is to be opened. A default one is in
/// the folder that the file names, if any.
fn find(process: &ProcessSettings, log_dir: Option<&Path>, path: &Path, opens: bool) -> Found {
    if let Some(folder) = log_dir {
        home::log_folder(folder, socket::own_uid()).map_err(|error| Refusal {
            errno: 0,
            message: error.to_string(),
            transient: false,
        })?;
    }
    let behalf = trust::behalf(process, path).map_err(|refused| refused.into_refusal(path))?;
    let file = opens.then(|| LogFile::open_for(path, behalf.clone())).transpose()?;
    Ok((behalf, file))
}
