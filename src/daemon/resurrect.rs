//! `save`, `cleardump`, `resurrect`: the list that was written down on purpose, and what comes back of one.
//!
//! Two lists can bring apps back. The one of `clusterd save` counts as long as there is one, so that what comes back
//! is exactly what was saved; without it what ran last does, which is written at every change. Only a supervisor that
//! takes the place of one that was killed (a unit that restarts it) goes on with what that one ran.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::{self, AppConfig};
use crate::control::protocol::{AppFailure, Done, Error, Reply};
use crate::control::server::ClientId;
use crate::home::Home;
use crate::supervisor::event::{AppId, Command, Kept};
use crate::supervisor::policy::AppName;

use super::Daemon;
use super::catalog::Source;
use super::commands::{callers, host, usage};
use super::order::{Commands, apps_in_order};
use super::report::BEING_DELETED;
use super::saved::{self, Saved, SavedApp, SavedSource, Stopped};
use super::told;

/// What is said of the wish, at its beginning and at its end.
const WORDS: (&str, &str) = ("resurrect", "resurrected");

/// A list that was found, and what is to be said of it.
#[derive(Debug, Default)]
struct Found {
    list: Saved,
    /// Which one it is, for people.
    from: Option<String>,
    /// Of those that would have come before it.
    problems: Vec<String>,
}

impl Found {
    /// The first of these that is there and can be read.
    fn first(paths: &[PathBuf]) -> Found {
        let mut found = Found::default();
        for path in paths {
            match saved::take(path) {
                Ok(None) => {}
                Ok(Some(list)) => {
                    return Found { list, from: Some(path.display().to_string()), ..found };
                }
                Err(sentence) => found.problems.push(sentence),
            }
        }
        found
    }
}

/// Forgets what `clusterd save` wrote down; whether there was anything.
///
/// # Errors
/// With the file in the text.
pub fn clear_dump(home: &Home) -> io::Result<bool> {
    saved::remove(&[home.dump(), home.dump_backup()])
}

/// An app that can be brought back.
struct Read {
    source: Rc<Source>,
    saved: SavedApp,
    /// Something that it depends on does not run.
    unordered: bool,
    logs: (Option<PathBuf>, bool),
}

type Name = (String, String);

impl Daemon {
    pub(super) fn save(&mut self, client: ClientId, force: bool) -> Result<(), Error> {
        let list = self.list_to_save();
        if list.apps.is_empty() && !force {
            return Err(failure(
                "nothing was saved: there is no app, and the list that was saved before stays; `clusterd save \
                 --force` saves the empty list"
                    .to_owned(),
            ));
        }
        let path = self.home.dump();
        // One that is not a list is no backup, and not to be lost either.
        if let Err(sentence) = saved::take(&path) {
            log::warn!("{sentence}");
        }
        let written = saved::back_up(&path, &self.home.dump_backup())
            .and_then(|()| list.encode())
            .and_then(|bytes| saved::write(&path, &bytes));
        written.map_err(|error| {
            failure(format!("nothing was saved: {}: {error}; what was saved before stays", path.display()))
        })?;
        let apps: Vec<String> = list.apps.iter().map(|app| app.called().to_string()).collect();
        let count = apps.len();
        let message = format!(
            "saved {count} {} to {}; `clusterd resurrect` brings exactly {} back",
            if count == 1 { "app" } else { "apps" },
            path.display(),
            if count == 1 { "it" } else { "these" },
        );
        self.server.reply(client, &Reply::Done(Done { message, apps }), true);
        Ok(())
    }

    pub(super) fn clear(&mut self, client: ClientId) -> Result<(), Error> {
        let any = clear_dump(&self.home).map_err(|error| failure(format!("cleardump: {error}")))?;
        let message = if any { CLEARED } else { NOTHING_SAVED };
        self.server.reply(client, &Reply::Done(Done { message: message.to_owned(), apps: Vec::new() }), true);
        Ok(())
    }

    /// Brings back what is not known already.
    pub(super) fn resurrect(&mut self, client: ClientId) {
        let last = if self.keeper.has_begun() { self.home.earlier_apps() } else { self.home.apps() };
        let found =
            Found::first(&[self.home.dump(), self.home.dump_backup(), last, self.home.earlier_apps()]);
        self.bring_back(Some(client), found);
    }

    /// What a supervisor without a file and without a client begins with.
    pub(super) fn begin_with_saved(&mut self) {
        let last = saved::take(&self.home.apps()).ok().flatten();
        let was_killed =
            |list: &Saved| !list.ended && !list.boot_id.is_empty() && list.boot_id == self.keeper.boot_id();
        let found = match last.filter(was_killed) {
            Some(list) => {
                log::info!("the supervisor before was killed: what it ran comes back");
                Found { list, from: Some(self.home.apps().display().to_string()), problems: Vec::new() }
            }
            None => {
                let home = &self.home;
                Found::first(&[home.dump(), home.dump_backup(), home.apps(), home.earlier_apps()])
            }
        };
        self.bring_back(None, found);
    }

    fn bring_back(&mut self, client: Option<ClientId>, found: Found) {
        let Found { list, from, problems } = found;
        let mut failures: Vec<AppFailure> =
            problems.into_iter().map(|problem| unreadable(String::new(), problem)).collect();
        failures.extend(self.being_deleted(&list));
        let read = self.read_saved(&list, &mut failures);
        let commands = self.commands_of_saved(read);
        let note = match (&from, commands.is_empty()) {
            (None, _) => Some("nothing was saved, and nothing ran before".to_owned()),
            (Some(path), true) => Some(format!("{path}: nothing of it was missing")),
            (Some(path), false) => {
                log::info!("{}: {} apps come back", path, commands.len());
                None
            }
        };
        self.begin_failed(client, WORDS, commands, (note.into_iter().collect(), failures));
    }

    /// What each app that is missing means on this host now.
    fn read_saved(&mut self, list: &Saved, failures: &mut Vec<AppFailure>) -> Vec<(AppConfig, Read)> {
        let mut found = Vec::new();
        let mut seen: HashSet<Name> = HashSet::new();
        for (place, saved_source) in list.sources.iter().enumerate() {
            let missing = |app: &&SavedApp| app.source == place && self.find_saved(app).is_none();
            let missing: Vec<&SavedApp> = list.apps.iter().filter(missing).collect();
            if missing.is_empty() {
                continue;
            }
            let source = source_of(saved_source);
            let config = match config::load(&saved_source.text, &name_of(&source), &host(&source)) {
                Ok(config) => config,
                Err(diagnostics) => {
                    let why = diagnostics.one_line().join("; ");
                    failures
                        .extend(missing.iter().map(|app| unreadable(app.called().to_string(), why.clone())));
                    continue;
                }
            };
            self.hear(&config.daemon, source.path.as_deref());
            for saved in missing {
                let changes = Rc::new(saved.changes.clone().unwrap_or_default());
                let source = Source { changes, ..source.clone() };
                let name = (saved.namespace.as_str(), saved.name.as_str());
                let app = match told::app_of((&config, &saved_source.text), &source, name) {
                    Ok(app) => app,
                    Err(diagnostics) => {
                        let why = told::mistaken(&diagnostics).message;
                        failures.push(unreadable(saved.called().to_string(), why));
                        continue;
                    }
                };
                let environment = callers(list.environments[saved.environment].clone());
                match (app, environment) {
                    (Some(app), Ok(environment)) => {
                        if seen.insert((saved.namespace.clone(), saved.name.clone())) {
                            let source = Source { environment: Rc::new(environment), ..source };
                            let logs = self.log_settings(&config);
                            let unordered = app.policy.depends_on.iter().any(|on| !self.is_to_run(list, on));
                            let read =
                                Read { source: Rc::new(source), saved: saved.clone(), unordered, logs };
                            found.push((app, read));
                        }
                    }
                    (None, _) => {
                        let why = "it is not in the text that it was saved with".to_owned();
                        failures.push(unreadable(saved.called().to_string(), why));
                    }
                    (_, Err(error)) => failures.push(unreadable(saved.called().to_string(), error.message)),
                }
            }
        }
        found
    }

    /// Those that cannot come back yet, because what is there of them is on its way out.
    fn being_deleted<'a>(&'a self, list: &'a Saved) -> impl Iterator<Item = AppFailure> + 'a {
        let going =
            |app: &&SavedApp| self.find_saved(app).is_some_and(|app| self.supervisor.is_being_deleted(app));
        list.apps.iter().filter(going).map(|app| AppFailure {
            reason: "being_deleted".to_owned(),
            ..unreadable(app.called().to_string(), BEING_DELETED.to_owned())
        })
    }

    /// Whether an app runs here, or is to run by this list.
    fn is_to_run(&self, list: &Saved, name: &AppName) -> bool {
        let is_it = |app: &&SavedApp| app.name == name.name && app.namespace == name.namespace;
        match list.apps.iter().find(is_it) {
            Some(saved) => saved.stopped != Stopped::All,
            None => self.catalog.find(&name.namespace, &name.name).is_some(),
        }
    }

    fn find_saved(&self, app: &SavedApp) -> Option<AppId> {
        self.catalog.find(&app.namespace, &app.name)
    }

    /// Who is depended on comes first.
    fn commands_of_saved(&mut self, read: Vec<(AppConfig, Read)>) -> Commands {
        let name = |app: &AppConfig| (app.namespace.clone(), app.name.clone());
        let mut rest: BTreeMap<Name, Read> = BTreeMap::new();
        let mut apps = Vec::new();
        for (app, read) in read {
            rest.insert(name(&app), read);
            apps.push(app);
        }
        let mut commands = Vec::new();
        for app in apps_in_order(apps) {
            let Some(read) = rest.remove(&name(&app)) else { continue };
            commands.push(self.command_of_saved(app, read));
        }
        commands
    }

    fn command_of_saved(&mut self, app: AppConfig, read: Read) -> (AppId, Command) {
        let instances = read.saved.instances.unwrap_or(app.policy.instances);
        let instances = instances.clamp(1, config::keys::MAX_INSTANCES);
        let resting = match read.saved.stopped {
            Stopped::None => Vec::new(),
            Stopped::All => (0..instances).collect(),
            Stopped::Some(places) => places,
        };
        let kept = Kept { instances, resting: resting.into_iter().collect(), unordered: read.unordered };
        let (app, _, definition) = self.catalog.take(app, &read.source, read.logs);
        (app, Command::Restore { app, definition, kept })
    }
}

/// What `cleardump` says.
pub const CLEARED: &str = "what was saved is forgotten; `clusterd resurrect` brings back what ran last, until the next `clusterd save`";

/// What `cleardump` says when there was nothing to forget.
pub const NOTHING_SAVED: &str = "nothing was saved";

fn source_of(saved: &SavedSource) -> Source {
    Source {
        path: saved.path.as_ref().map(PathBuf::from),
        folder: PathBuf::from(&saved.folder),
        profile: saved.profile.clone(),
        only: saved.only.clone(),
        environment: Rc::default(),
        text: saved.text.as_str().into(),
        changes: Rc::default(),
    }
}

fn name_of(source: &Source) -> String {
    let name = source.path.as_deref().unwrap_or(Path::new("standard input"));
    format!("{} (as saved)", name.display())
}

fn unreadable(app: String, message: String) -> AppFailure {
    AppFailure { app, reason: "unreadable".to_owned(), message, last_lines: Vec::new() }
}

fn failure(message: String) -> Error {
    Error { code: 1, ..usage(message) }
}
