//! What the apps run: the recipes that the core refers to by [`SpecId`], and where each app came from.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use crate::config::changes::Changes;
use crate::config::{AppConfig, Spec};
use crate::supervisor::event::{AppId, Definition};
use crate::supervisor::policy::{AppName, Policy, SpecId};

/// The environment that a worker's own variables are laid over.
pub(super) type Environment = BTreeMap<OsString, OsString>;

/// Variables of the supervisor's own surroundings that never reach a worker; `CLUSTERD_*` and PM2's
/// instance number go too, so that a supervisor inside a worker starts clean.
const PRIVATE: [&str; 12] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "FDSTORE",
    "MAINPID",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_APP_INSTANCE",
];

/// The base environment: without what is private.
pub(super) fn base_environment(all: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
    let private = |name: &OsString| {
        name.to_str().is_some_and(|name| PRIVATE.contains(&name) || name.starts_with("CLUSTERD_"))
    };
    all.into_iter().filter(|(name, _)| !private(name)).collect()
}

/// What one generation runs, pinned until its last worker is gone.
#[derive(Debug)]
pub(super) struct Recipe {
    /// What its definition calls the app.
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) spec: Spec,
    /// For `describe`.
    pub(super) policy: Policy,
    pub(super) environment: Rc<Environment>,
    /// Where it is defined, as it was told.
    pub(super) source: Rc<Source>,
    pub(super) log_dir: Option<PathBuf>,
    pub(super) log_files: bool,
}

/// The file that an app came from, to be read again at a reload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    /// None for standard input.
    pub(super) path: Option<PathBuf>,
    pub(super) folder: PathBuf,
    pub(super) profile: Option<String>,
    pub(super) only: Vec<String>,
    pub(super) environment: Rc<Environment>,
    /// The text itself, as it was read last.
    pub(super) text: Rc<str>,
    /// What was told of the app by flags since, and holds over the text.
    pub(super) changes: Rc<Changes>,
}

impl Source {
    /// The same, with the text that the file has now.
    pub(super) fn with_text(&self, text: &Rc<str>) -> Rc<Source> {
        Rc::new(Source { text: Rc::clone(text), ..self.clone() })
    }
}

/// One app, as the shell knows it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) namespace: String,
    /// The newest text, and how many instances it says.
    pub(super) source: Rc<Source>,
    pub(super) instances: u32,
    /// The newest recipe; workers of older generations have their own.
    pub(super) recipe: Rc<Recipe>,
}

/// The namespace of apps that name none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

impl Record {
    /// What it is called, for people.
    pub(super) fn called(&self) -> AppName {
        AppName { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// What the names of its files begin with.
    pub(super) fn file_stem(&self) -> String {
        file_stem(&self.namespace, &self.name)
    }
}

/// No two apps have one: what stands between namespace and name can be in neither.
pub(super) fn file_stem(namespace: &str, name: &str) -> String {
    match namespace {
        DEFAULT_NAMESPACE => name.to_owned(),
        other => format!("{other}@{name}"),
    }
}

/// All recipes and apps.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    recipes: HashMap<SpecId, Rc<Recipe>>,
    apps: BTreeMap<AppId, Record>,
    /// What apps were called that were told to be called otherwise, and will be again if nothing comes of it.
    former: BTreeMap<AppId, AppName>,
    next_spec: u64,
    next_app: u32,
}

impl Catalog {
    pub(super) fn recipe(&self, spec: SpecId) -> Option<&Rc<Recipe>> {
        self.recipes.get(&spec)
    }

    pub(super) fn forget(&mut self, spec: SpecId) {
        self.recipes.remove(&spec);
    }

    pub(super) fn app(&self, app: AppId) -> Option<&Record> {
        self.apps.get(&app)
    }

    pub(super) fn apps(&self) -> impl Iterator<Item = (AppId, &Record)> {
        self.apps.iter().map(|(id, record)| (*id, record))
    }

    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<AppId> {
        let of_record = self.apps().find(|(_, r)| r.namespace == namespace && r.name == name);
        let is_former = |known: &AppName| known.namespace == namespace && known.name == name;
        let former = || self.former.iter().find(|(_, known)| is_former(known)).map(|(id, _)| *id);
        of_record.map(|(id, _)| id).or_else(former)
    }

    /// The apps whose new names are not for good yet.
    pub(super) fn renamed(&self) -> Vec<AppId> {
        self.former.keys().copied().collect()
    }

    /// The name of this app is for good.
    pub(super) fn call(&mut self, app: AppId, called: AppName) {
        self.former.remove(&app);
        if let Some(record) = self.apps.get_mut(&app) {
            (record.namespace, record.name) = (called.namespace, called.name);
        }
    }

    /// An app stays as it is, and belongs to this file from now on.
    pub(super) fn own(&mut self, app: AppId, source: &Rc<Source>, instances: u32) {
        if let Some(record) = self.apps.get_mut(&app) {
            record.source = Rc::clone(source);
            record.instances = instances;
        }
    }

    pub(super) fn delete(&mut self, app: AppId) {
        self.former.remove(&app);
        self.apps.remove(&app);
    }

    /// Takes an app of a file in, new or known; its id, whether it is new, and what the core needs.
    pub(super) fn take(
        &mut self,
        app: AppConfig,
        source: &Rc<Source>,
        logs: (Option<PathBuf>, bool),
    ) -> (AppId, bool, Definition) {
        let known = self.find(&app.namespace, &app.name);
        let id = known.unwrap_or_else(|| {
            let id = AppId(self.next_app);
            self.next_app += 1;
            id
        });
        (id, known.is_none(), self.define(id, app, source, logs))
    }

    /// Takes a definition of this app over, whatever it was called before.
    pub(super) fn define(
        &mut self,
        id: AppId,
        app: AppConfig,
        source: &Rc<Source>,
        logs: (Option<PathBuf>, bool),
    ) -> Definition {
        let recipe = Rc::new(Recipe {
            name: app.name.clone(),
            namespace: app.namespace.clone(),
            spec: app.spec,
            policy: app.policy.clone(),
            environment: Rc::clone(&source.environment),
            source: Rc::clone(source),
            log_dir: logs.0,
            log_files: logs.1,
        });
        self.next_spec += 1;
        let spec = SpecId(self.next_spec);
        self.recipes.insert(spec, Rc::clone(&recipe));
        let definition =
            Definition { name: app.name.clone(), namespace: app.namespace.clone(), policy: app.policy, spec };
        let (source, instances) = (Rc::clone(source), recipe.policy.instances);
        if let Some(known) = self.apps.get(&id)
            && (&known.namespace, &known.name) != (&app.namespace, &app.name)
        {
            let known = AppName { namespace: known.namespace.clone(), name: known.name.clone() };
            self.former.entry(id).or_insert(known);
        }
        let record = Record { name: app.name, namespace: app.namespace, source, instances, recipe };
        self.apps.insert(id, record);
        definition
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_private_reaches_a_worker() {
        let all = ["PATH", "LISTEN_FDS", "NOTIFY_SOCKET", "CLUSTERD_HOME", "NODE_CHANNEL_FD", "WATCHDOG_PID"];
        let base = base_environment(all.map(|name| (name.into(), "x".into())));
        assert_eq!(base.into_keys().collect::<Vec<_>>(), ["PATH"]);
    }
}
