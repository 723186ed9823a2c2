//! `start` of what is known, and of an app that was made of flags: what PM2's users call a smart start.

use std::path::PathBuf;
use std::rc::Rc;

use crate::config::{AppConfig, Program, Spec};
use crate::control::protocol::{self, Error};
use crate::supervisor::event::{AppId, Command, Event, Scope};
use crate::supervisor::view::Status;

use super::Daemon;
use super::catalog::{Record, Source};
use super::commands::{Verb, callers, failure, source_of};
use super::order::Commands;

/// A known app as it is to be taken over.
pub(super) struct Taken {
    pub(super) app: AppConfig,
    pub(super) source: Rc<Source>,
    /// Where its logs go.
    pub(super) logs: (Option<PathBuf>, bool),
    /// How many workers, where that is not what its definition says.
    pub(super) instances: Option<u32>,
}

impl Daemon {
    /// An app that was made of flags. One that is known by its name is started anew when it rests; when it runs,
    /// only by `force`, as a reload.
    pub(super) fn launch(
        &mut self,
        file: &protocol::File,
        force: bool,
        update_env: bool,
    ) -> Result<Commands, Error> {
        let config = self.load(file)?;
        let source = source_of(file, callers(file.environment.clone())?);
        let known = |app: &AppConfig| self.catalog.find(&app.namespace, &app.name);
        for (app, id) in config.apps.iter().filter_map(|app| Some((app, known(app)?))) {
            let refused = self.catalog.app(id).and_then(|record| self.refused(app, id, record));
            if let Some(why) = refused.filter(|_| !force) {
                return Err(failure(why));
            }
        }
        let logs = self.log_settings(&config);
        Ok(self.take_each(Verb::Start, config.apps, &source, update_env, &logs))
    }

    /// Why an app of this name is not started a second time.
    fn refused(&self, app: &AppConfig, id: AppId, known: &Record) -> Option<String> {
        let name = self.app_name(id);
        let runs = program_of(&known.recipe.spec);
        let instead = "--name gives this one a name of its own, --force puts it in the other's place";
        if runs != program_of(&app.spec) {
            return Some(format!(
                "{name}: there is an app of this name for another program, {}; {instead}",
                runs.shown()
            ));
        }
        if let Some(path) = &known.source.path {
            return Some(format!(
                "{name}: this app comes from {}: `clusterd start {name}` starts it; {instead}",
                path.display()
            ));
        }
        self.has(id, Scope::All, &[Status::Online, Status::Launching]).then(|| {
            format!(
                "{name}: {} runs already under this name; `clusterd restart {name}` or `clusterd reload {name}` \
                 renews it, --force makes it anew as it is said now, --name starts a second one",
                runs.shown()
            )
        })
    }

    /// `start` of what is online is a restart, as PM2 has it. Who is leaving, or only coming up, is no reason to
    /// begin anew.
    pub(super) fn verb_of_known(&self, verb: Verb, app: AppId, scope: Scope) -> Verb {
        let online = || self.has(app, scope, &[Status::Online]);
        if verb == Verb::Start && online() { Verb::Restart } else { verb }
    }

    /// Whether one of these workers stands so.
    fn has(&self, app: AppId, scope: Scope, one_of: &[Status]) -> bool {
        let view = self.supervisor.view(self.now);
        let workers = view.apps.iter().filter(|known| known.app == app).flat_map(|known| &known.workers);
        let meant = |slot| scope == Scope::All || scope == Scope::Slot(slot);
        workers.filter(|worker| meant(worker.slot)).any(|worker| one_of.contains(&worker.status))
    }

    /// An app that came from no file that could be read again, with so many instances as it has now.
    pub(super) fn as_it_is(&self, app: AppId, source: Rc<Source>) -> Option<Taken> {
        let record = self.catalog.app(app)?;
        let recipe = &record.recipe;
        let (name, namespace) = (record.name.clone(), record.namespace.clone());
        let (policy, spec) = (recipe.policy.clone(), recipe.spec.clone());
        Some(Taken {
            app: AppConfig { name, namespace, policy, spec },
            source,
            logs: (recipe.log_dir.clone(), recipe.log_files),
            instances: self.instances_now(app),
        })
    }

    /// How many workers of it are wanted, with all that was wished until now.
    pub(super) fn instances_now(&self, app: AppId) -> Option<u32> {
        let view = self.supervisor.view(self.now);
        let now = view.apps.iter().find(|known| known.app == app)?.instances;
        // What was wished a moment ago may not have been decided yet.
        let scaled = self.inbox.iter().filter_map(|event| match event {
            Event::Command { command: Command::Scale { app: of, scale }, .. } if *of == app => Some(*scale),
            _ => None,
        });
        Some(scaled.fold(now, |count, scale| scale.of(count)))
    }
}

/// What tells one program from another: its file, or its words.
#[derive(Debug, PartialEq, Eq)]
enum Runs<'a> {
    File(PathBuf),
    Line(&'a str),
    Words(&'a [String]),
}

fn program_of(spec: &Spec) -> Runs<'_> {
    match &spec.program {
        Program::Script { script, .. } => Runs::File(spec.cwd.join(script).components().collect()),
        Program::Shell(line) => Runs::Line(line),
        Program::Exact(vector) => Runs::Words(vector),
    }
}

/// The path that an app's script is known by, links not followed; none for a command.
pub(super) fn script_path(spec: &Spec) -> Option<PathBuf> {
    match program_of(spec) {
        Runs::File(path) => Some(path),
        Runs::Line(_) | Runs::Words(_) => None,
    }
}

impl Runs<'_> {
    fn shown(&self) -> String {
        match self {
            Runs::File(path) => path.display().to_string(),
            Runs::Line(line) => format!("\"{line}\""),
            Runs::Words(words) => words.join(" "),
        }
    }
}
