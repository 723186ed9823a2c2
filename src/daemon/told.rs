//! `restart api --max-memory-restart 300M`: what is told of a known app by flags. It is laid over the app's
//! definition, stays until the definition is given anew (its file is named, or its script started by force), and is
//! checked as a whole before anything is touched.

use std::path::Path;
use std::rc::Rc;

use crate::config::changes::{self, Changes, Keys};
use crate::config::{self, AppConfig, Config, Diagnostics};
use crate::control::protocol::Error;
use crate::supervisor::event::{AppId, Scale};
use crate::supervisor::policy::AppName;

use super::Daemon;
use super::catalog::{Recipe, Source};
use super::commands::{Whom, failure, host, usage};
use super::keep;
use super::launch::Taken;

const IDENTITY: [&str; 2] = ["name", "namespace"];

/// The app of this name in a file as it is now, with what was told of it since.
///
/// # Errors
/// What is wrong with what was told, now.
pub(super) fn app_of(
    (config, text): (&Config, &str),
    source: &Source,
    (namespace, name): (&str, &str),
) -> Result<Option<AppConfig>, Diagnostics> {
    let find = |config: &Config| {
        config.apps.iter().find(|app| app.name == name && app.namespace == namespace).cloned()
    };
    if source.changes.is_empty() {
        return Ok(find(config));
    }
    config::load_changed(text, "flags", &host(source), &source.changes).map(|config| find(&config))
}

/// What was told is wrong: a line for each mistake, which begins with the key.
pub(super) fn mistaken(diagnostics: &Diagnostics) -> Error {
    let lines = diagnostics.problems.iter().map(|problem| {
        let key = problem.key.as_deref().map_or_else(String::new, |key| format!("{key}: "));
        let help = problem.help.as_ref().map_or_else(String::new, |help| format!("; {help}"));
        format!("{key}{}{help}", problem.message)
    });
    let lines: Vec<String> = lines.chain(["nothing was changed".to_owned()]).collect();
    usage(lines.join("\n"))
}

/// What the app is called once this was told of it.
fn name_told(keys: &Keys, key: &str, now: &str) -> String {
    let told = keys.get(key).and_then(Option::as_deref);
    let told = told.and_then(|value| toml::from_str::<toml::Table>(&format!("told = {value}")).ok());
    let told = told.and_then(|table| table.get("told")?.as_str().map(str::to_owned));
    told.unwrap_or_else(|| now.to_owned())
}

impl Daemon {
    /// What holds over the definition that is wanted to run: after a failed reload that is not what was told last.
    pub(super) fn changes_in_force(&self, app: AppId) -> Rc<Changes> {
        let Some(record) = self.catalog.app(app) else { return Rc::default() };
        let wanted = self.supervisor.keeps(app).and_then(|(spec, _)| self.catalog.recipe(spec));
        Rc::clone(&keep::told(record, wanted.unwrap_or(&record.recipe)).0.changes)
    }

    /// The source of an app with these over all that was told before.
    pub(super) fn changed_source(&self, app: AppId, keys: &Keys) -> Option<Source> {
        let record = self.catalog.app(app)?;
        let changes = self.changes_in_force(app).and(keys, (&record.namespace, &record.name));
        Some(Source { changes: Rc::new(changes), ..record.source.as_ref().clone() })
    }

    /// What is senseless whatever the definition says.
    pub(super) fn check_changes(&self, whom: &Whom, keys: &Keys) -> Result<(), Error> {
        changes::check(keys).map_err(usage)?;
        if !IDENTITY.iter().any(|key| keys.contains_key(*key)) {
            return Ok(());
        }
        let [(app, _)] = whom.as_slice() else {
            let apps: Vec<String> = whom.iter().map(|(app, _)| self.app_name(*app)).collect();
            return Err(usage(format!(
                "name: a new name is for one app, and {} are meant; nothing was changed",
                apps.join(", ")
            )));
        };
        let Some(record) = self.catalog.app(*app) else { return Ok(()) };
        if let Some(path) = &record.source.path {
            return Err(usage(format!(
                "name: {} is called so in {}: change it there, and `clusterd apply --prune` it; nothing was changed",
                record.called(),
                path.display()
            )));
        }
        let name = name_told(keys, "name", &record.name);
        let namespace = name_told(keys, "namespace", &record.namespace);
        if self.catalog.find(&namespace, &name).is_some_and(|other| other != *app) {
            let called = AppName { namespace, name };
            return Err(failure(format!(
                "name: another app is called {called} already; nothing was changed"
            )));
        }
        let needs = |recipe: &Recipe| {
            recipe
                .policy
                .depends_on
                .iter()
                .any(|on| on.name == record.name && on.namespace == record.namespace)
        };
        match self.catalog.apps().find(|(_, other)| needs(&other.recipe)) {
            Some((_, other)) => Err(failure(format!(
                "name: {} depends on {} under this name; nothing was changed",
                other.called(),
                record.called()
            ))),
            None => Ok(()),
        }
    }

    /// An app without a file, as its text and all that was told of it have it; but with as many instances as it has
    /// now, unless that was told just now.
    pub(super) fn as_told(&self, app: AppId, source: Source, keys: &Keys) -> Result<Option<Taken>, Error> {
        let Some(record) = self.catalog.app(app) else { return Ok(None) };
        let name = name_told(keys, "name", &record.name);
        let namespace = name_told(keys, "namespace", &record.namespace);
        let (text, host) = (Rc::clone(&source.text), host(&source));
        let config = config::load(&text, "the definition", &host).map_err(|wrong| mistaken(&wrong))?;
        let app_config =
            app_of((&config, &text), &source, (&namespace, &name)).map_err(|wrong| mistaken(&wrong))?;
        let instances = if keys.contains_key("instances") { None } else { self.instances_now(app) };
        Ok(app_config.map(|app| Taken {
            app,
            source: Rc::new(source),
            logs: self.log_settings(&config),
            instances,
        }))
    }

    /// Where a number of instances was told by a flag, the newer wish takes its place.
    pub(super) fn tell_scale(&mut self, app: AppId, scale: Scale) {
        const KEY: &str = "instances";
        let Some(record) =
            self.catalog.app(app).filter(|record| record.source.changes.keys.contains_key(KEY))
        else {
            return;
        };
        let Some(instances) = self.instances_now(app).map(|now| scale.of(now)) else { return };
        let mut changes = record.source.changes.as_ref().clone();
        changes.keys.insert(KEY.to_owned(), Some(instances.to_string()));
        let source = Source { changes: Rc::new(changes), ..record.source.as_ref().clone() };
        let said = record.instances;
        self.catalog.own(app, &Rc::new(source), said);
    }

    /// An app that was told to be called otherwise is called so for good, or again as it was: a reload that came to
    /// nothing leaves that, too.
    pub(super) fn settle_names(&mut self) {
        // What was told may not have been decided yet.
        if !self.inbox.is_empty() {
            return;
        }
        for app in self.catalog.renamed() {
            let called = self.supervisor.apps().find(|(other, ..)| *other == app);
            let called = called.map(|(_, name, namespace)| (name.to_owned(), namespace.to_owned()));
            if let Some((name, namespace)) = called.filter(|_| !self.supervisor.is_reloading(app)) {
                self.catalog.call(app, AppName { namespace, name });
                self.keeper.touch(self.now);
            }
        }
    }

    /// A word for people: what was told holds over a file that they may read.
    pub(super) fn holds_over(&self, apps: &[AppId], keys: &Keys) -> Vec<String> {
        if keys.is_empty() {
            return Vec::new();
        }
        let over = |app: &AppId| {
            let record = self.catalog.app(*app)?;
            let path = record.source.path.as_deref().map(Path::display)?;
            Some(format!(
                "{}: this holds over {path} until that is named: `clusterd reload {path}`",
                record.called()
            ))
        };
        apps.iter().filter_map(over).collect()
    }
}
