//! The list of apps that survives this supervisor: taken from the core and the catalog, and written to `apps.json`
//! whenever a wish has changed it. A supervisor that was started with a file keeps none: its file says what runs.
//!
//! A disk may be slow or full. Changes of one turn are written together, while workers start the list waits, and
//! after a write the next one is as many times its cost away; what cannot be written is told once, and tried again.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::control::protocol::Environment;
use crate::home::Home;
use crate::supervisor::event::Kept;
use crate::supervisor::time::Time;
use crate::sys::process;

use super::Daemon;
use super::catalog::{self, Record, Source};
use super::saved::{self, Saved, SavedApp, SavedSource, Stopped};

/// Between two writes: at least, at most, and how often what the first one took.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(10);
const TIMES: u32 = 20;

/// So long a change waits for starts and decisions that are under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// After a list that could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// When the list is to be written.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// There is a file that says what runs, or the supervisor ends.
    off: bool,
    /// Since when something may have changed.
    changed: Option<Time>,
    not_before: Time,
    /// What the list was that is on the disk.
    written: Option<u64>,
    /// The list on the disk is this supervisor's, and that of the one before is under its other name.
    begun: bool,
    /// Why the list on the disk is not the latest.
    trouble: Option<String>,
    boot_id: String,
}

impl Keeper {
    pub(super) fn new(home: &Home, has_file: bool) -> Keeper {
        if !has_file && let Err(sentence) = saved::take(&home.apps()) {
            log::warn!("{sentence}. Without it, what a supervisor before ran does not come back by itself");
        }
        Keeper { off: has_file, boot_id: process::boot_id().unwrap_or_default(), ..Keeper::default() }
    }

    /// A wish was decided, or settled.
    pub(super) fn touch(&mut self, now: Time) {
        if !self.off {
            self.changed.get_or_insert(now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.changed.map(|_| self.not_before)
    }

    /// What `describe` says of it.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub(super) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Whether this supervisor has written a list of its own.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    fn write(&mut self, home: &Home, list: &Saved) -> io::Result<()> {
        let bytes = list.encode()?;
        let hash = hash_of(&bytes);
        if self.written != Some(hash) {
            // The list of the supervisor before stays for `resurrect`, and at no moment there is none.
            if !self.begun {
                saved::back_up(&home.apps(), &home.earlier_apps())?;
            }
            saved::write(&home.apps(), &bytes)?;
            self.begun = true;
            self.written = Some(hash);
        }
        Ok(())
    }

    /// How a write went that began at `began`.
    fn settle(&mut self, home: &Home, written: io::Result<()>, (began, now): (Time, Time)) {
        match written {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    log::info!("{}: written again", home.apps().display());
                }
                self.changed = None;
                self.not_before = now + (now.since(began) * TIMES).clamp(LEAST, MOST);
            }
            Err(error) => {
                if self.trouble.is_none() {
                    log::warn!(
                        "{}: cannot be written: {error}. Should this supervisor be killed now, `clusterd resurrect` \
                         would not know the latest changes; it is tried again",
                        home.apps().display()
                    );
                }
                self.trouble = Some(format!("not saved for `resurrect`: {}: {error}", home.apps().display()));
                self.not_before = now + TRY_AGAIN;
            }
        }
    }
}

impl Daemon {
    /// At the end of a turn.
    pub(super) fn keep_apps(&mut self) {
        let Some(since) = self.keeper.changed else { return };
        let busy = !self.starts.is_empty() || !self.inbox.is_empty();
        if self.keeper.off || self.now < self.keeper.not_before || (busy && self.now.since(since) < PATIENCE)
        {
            return;
        }
        self.write_apps(false);
    }

    /// The supervisor is about to end as it was told to: the list stays as it is before everything stops.
    pub(super) fn keep_apps_for_good(&mut self) {
        let any = self.keeper.begun || self.keeper.changed.is_some();
        if !self.keeper.off && any {
            self.write_apps(true);
        }
        self.keeper.off = true;
        self.keeper.changed = None;
    }

    fn write_apps(&mut self, ended: bool) {
        let began = self.read_clock();
        let list = Saved { ended, ..self.list_to_save() };
        let written = self.keeper.write(&self.home, &list);
        let now = self.read_clock();
        self.keeper.settle(&self.home, written, (began, now));
    }

    /// All apps as they are wished to be.
    pub(super) fn list_to_save(&self) -> Saved {
        let mut list = Saved::new(self.keeper.boot_id.clone());
        let mut texts: Vec<Rc<Source>> = Vec::new();
        let mut environments: Vec<(u64, Rc<catalog::Environment>)> = Vec::new();
        for (app, ..) in self.supervisor.apps() {
            let Some((spec, kept)) = self.supervisor.keeps(app) else { continue };
            let Some(record) = self.catalog.app(app) else { continue };
            let recipe = self.catalog.recipe(spec).unwrap_or(&record.recipe);
            let (source, instances) = told(record, recipe);
            let changes = (!source.changes.is_empty()).then(|| source.changes.as_ref().clone());
            let source = place(&mut texts, source, is_same_text);
            let environment = (hash_of(&*recipe.environment), Rc::clone(&recipe.environment));
            list.apps.push(SavedApp {
                name: recipe.name.clone(),
                namespace: recipe.namespace.clone(),
                source,
                environment: place(&mut environments, &environment, |one, other| one == other),
                instances: (kept.instances != instances).then_some(kept.instances),
                stopped: stopped(&kept),
                changes,
            });
        }
        list.sources = texts.iter().map(|source| saved_source(source)).collect();
        list.environments =
            environments.iter().map(|(_, environment)| saved_environment(environment)).collect();
        list
    }
}

/// Two environments mostly differ late: their numbers tell sooner.
fn hash_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Where the app is defined, and how many instances that says. The newest file that was read, unless what it says
/// was given up again.
pub(super) fn told<'a>(record: &'a Record, recipe: &'a Rc<catalog::Recipe>) -> (&'a Rc<Source>, u32) {
    match Rc::ptr_eq(&record.recipe, recipe) {
        true => (&record.source, record.instances),
        false => (&recipe.source, recipe.policy.instances),
    }
}

fn is_same_text(one: &Rc<Source>, other: &Rc<Source>) -> bool {
    let about = |source: &Source| (source.path.clone(), source.profile.clone(), source.only.clone());
    (Rc::ptr_eq(&one.text, &other.text) || one.text == other.text)
        && one.folder == other.folder
        && about(one) == about(other)
}

/// The place of an equal one, or its own at the end.
fn place<T: Clone>(all: &mut Vec<T>, one: &T, same: impl Fn(&T, &T) -> bool) -> usize {
    all.iter().position(|known| same(known, one)).unwrap_or_else(|| {
        all.push(one.clone());
        all.len() - 1
    })
}

fn stopped(kept: &Kept) -> Stopped {
    match kept.resting.len() {
        0 => Stopped::None,
        count if count == kept.instances as usize => Stopped::All,
        _ => Stopped::Some(kept.resting.iter().copied().collect()),
    }
}

fn saved_source(source: &Source) -> SavedSource {
    // All of them came as text over the control socket.
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    SavedSource {
        path: source.path.as_deref().map(text),
        folder: text(&source.folder),
        profile: source.profile.clone(),
        only: source.only.clone(),
        text: source.text.to_string(),
    }
}

fn saved_environment(environment: &catalog::Environment) -> Environment {
    use std::os::unix::ffi::OsStrExt;
    let mut saved = Environment::default();
    for (name, value) in environment {
        match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => {
                saved.text.insert(name.to_owned(), value.to_owned());
            }
            _ => saved.bytes.push((name.as_bytes().to_vec(), value.as_bytes().to_vec())),
        }
    }
    saved
}
