//! What files say about the supervisor as a whole, rather than about one app; and SIGHUP, which has all of
//! them read again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::{AppConfig, Config, DaemonConfig};
use crate::supervisor::event::{AppId, Command};

use super::Daemon;
use super::catalog::Source;
use super::commands::{Reading, Verb, reread};
use super::told;

/// What a file says about the supervisor itself, of which there is one, whatever the number of files: the last file
/// that says anything about it decides, and only that file takes it back, by saying nothing when it is read again.
#[derive(Debug)]
pub(super) struct Said<T> {
    said: Option<T>,
    /// By which file; none for standard input.
    by: Option<PathBuf>,
}

impl<T> Default for Said<T> {
    fn default() -> Said<T> {
        Said { said: None, by: None }
    }
}

impl<T> Said<T> {
    /// A file was read and is applied.
    pub(super) fn hear(&mut self, said: Option<T>, file: Option<&Path>) {
        if said.is_some() || self.by.as_deref() == file {
            *self = Said { said, by: file.map(Path::to_owned) };
        }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.said.as_ref()
    }
}

impl Daemon {
    /// What a file that is applied says about the supervisor itself.
    pub(super) fn hear(&mut self, said: &DaemonConfig, file: Option<&Path>) {
        self.shutdown_timeout.hear(said.shutdown_timeout, file);
        self.http.hear(said.http.clone(), file);
        self.state_dir.hear(said.state_dir.clone(), file);
        if let Some(note) = self.state_elsewhere() {
            self.warn_once("state_dir", || note);
        }
    }

    /// What a file says of the folder for the state has no effect any more, nor had it where `--home` says otherwise.
    pub(super) fn state_elsewhere(&self) -> Option<String> {
        let wanted = self.state_dir.get().filter(|folder| **folder != self.home.state)?;
        let state = self.home.state.display();
        if self.home.named().is_some() {
            // Whoever named a home has said what wins.
            return None;
        }
        let holds = match self.output.foreground.is_some() {
            true => "it holds from the next start on",
            false => "in the background name the folder by --home or CLUSTERD_HOME",
        };
        Some(format!("state_dir: {}: the state of this supervisor is in {state}; {holds}", wanted.display()))
    }
}

/// The file that the foreground was started with: it says what is to run, so that an app that is new in it
/// is started by SIGHUP.
#[derive(Debug, Default)]
pub(super) struct MainFile {
    source: Option<Rc<Source>>,
    /// The apps that it had when it was read last. One of these that is not known any more was deleted on
    /// purpose.
    had: BTreeSet<(String, String)>,
}

impl MainFile {
    pub(super) fn new(source: &Rc<Source>) -> MainFile {
        MainFile { source: Some(Rc::clone(source)), had: BTreeSet::new() }
    }

    /// Only the foreground can have one.
    pub(super) fn is_there(&self) -> bool {
        self.source.is_some()
    }

    /// The apps of a file were taken over.
    pub(super) fn hear(&mut self, apps: &[AppConfig], source: &Source) {
        if self.source.as_ref().is_some_and(|main| main.path == source.path) {
            self.had.extend(apps.iter().map(full_name));
        }
    }

    /// The apps that it did not have before.
    fn new_ones(&mut self, apps: &[AppConfig]) -> Vec<AppConfig> {
        let fresh = apps.iter().filter(|app| !self.had.contains(&full_name(app))).cloned().collect();
        self.had = apps.iter().map(full_name).collect();
        fresh
    }
}

fn full_name(app: &AppConfig) -> (String, String) {
    (app.namespace.clone(), app.name.clone())
}

fn reading(source: &Source) -> Option<Reading> {
    Some((source.path.clone()?, source.profile.clone(), source.only.clone()))
}

impl Daemon {
    /// SIGHUP: every app from its file as it is now, each file read once. What is new in the file of the
    /// foreground is started.
    pub(super) fn reload_all(&mut self) {
        let main = self.main_file.source.clone();
        let mut files: BTreeMap<Reading, (Rc<Source>, Vec<AppId>)> = BTreeMap::new();
        if let Some((reading, source)) = main.as_ref().and_then(|main| Some((reading(main)?, main))) {
            files.insert(reading, (Rc::clone(source), Vec::new()));
        }
        let mut commands = Vec::new();
        for (app, record) in self.catalog.apps() {
            match reading(&record.source) {
                Some(reading) => {
                    files
                        .entry(reading)
                        .or_insert_with(|| (Rc::clone(&record.source), Vec::new()))
                        .1
                        .push(app);
                }
                // It came by standard input.
                None => commands.push((app, Command::Reload { app, definition: None })),
            }
        }
        for ((path, ..), (source, apps)) in files {
            // Each for itself: nobody is there to mend one file for the others' sake.
            match reread(&path, &source) {
                Ok((config, text)) => {
                    if main.as_ref().is_some_and(|main| Rc::ptr_eq(main, &source)) {
                        self.start_new(&path, &config, &source.with_text(&text));
                    }
                    commands.extend(self.reload_file(&path, (&config, &text), &apps));
                }
                Err(refused) => {
                    for line in refused.lines() {
                        log::error!("{}", broken_file(&path, &self.names_of(&apps), &line));
                    }
                }
            }
        }
        let commands = self.first_things_first(commands);
        if !commands.is_empty() {
            self.begin(None, Verb::Reload.words(), commands);
        }
    }

    fn reload_file(
        &mut self,
        path: &Path,
        (config, text): (&Config, &Rc<str>),
        apps: &[AppId],
    ) -> Vec<(AppId, Command)> {
        self.hear(&config.daemon, Some(path));
        let logs = self.log_settings(config);
        let mut commands = Vec::new();
        let mut gone = Vec::new();
        for app in apps {
            let Some(record) = self.catalog.app(*app) else { continue };
            let changes = self.changes_in_force(*app);
            let source = Rc::new(Source { changes, ..record.source.with_text(text).as_ref().clone() });
            let name = (record.namespace.as_str(), record.name.as_str());
            let now = match told::app_of((config, text), &source, name) {
                Ok(Some(now)) => now,
                Ok(None) => {
                    gone.push(*app);
                    continue;
                }
                Err(wrong) => {
                    let name = self.names_of(&[*app]);
                    log::error!("{name}: reload on SIGHUP: {}", told::mistaken(&wrong).message);
                    continue;
                }
            };
            let definition = self.catalog.take(now, &source, logs.clone()).2;
            commands.push((*app, self.command_of_file(Verb::Reload, *app, definition)));
        }
        if !gone.is_empty() {
            log::warn!(
                "{}: not in {} any more; what runs stays as it is, and `clusterd delete NAME` stops and \
                 forgets it",
                self.names_of(&gone),
                path.display()
            );
        }
        commands
    }

    fn start_new(&mut self, path: &Path, config: &Config, source: &Rc<Source>) {
        let mut apps = self.main_file.new_ones(&config.apps);
        apps.retain(|app| self.catalog.find(&app.namespace, &app.name).is_none());
        if apps.is_empty() {
            return;
        }
        let fresh = Config { daemon: config.daemon.clone(), apps };
        let commands = self.take_apps(Verb::Start, fresh, source, false);
        let ids: Vec<AppId> = commands.iter().map(|(app, _)| *app).collect();
        log::info!("{}: new in {}; starting", self.names_of(&ids), path.display());
        self.begin(None, Verb::Start.words(), commands);
    }

    fn names_of(&self, apps: &[AppId]) -> String {
        apps.iter().map(|app| self.app_name(*app)).collect::<Vec<_>>().join(", ")
    }
}

/// `apps`: the names of those that came from the file; empty when there are none.
fn broken_file(path: &Path, apps: &str, error: &str) -> String {
    let of = if apps.is_empty() { String::new() } else { format!(" ({apps})") };
    format!("{}{of}: reload on SIGHUP: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_broken_file_is_named_first_and_apps_only_when_there_are_some() {
        let line = |apps| broken_file(Path::new("/srv/apps.toml"), apps, "line 3: oops");
        assert_eq!(line(""), "/srv/apps.toml: reload on SIGHUP: line 3: oops");
        assert_eq!(line("web, api"), "/srv/apps.toml (web, api): reload on SIGHUP: line 3: oops");
    }

    #[test]
    fn only_who_said_something_of_the_supervisor_takes_it_back() {
        let mut timeout = Said::default();
        let (one, other) = (Some(Path::new("/srv/one.toml")), Some(Path::new("/srv/other.toml")));
        let minute = Duration::from_secs(60);
        timeout.hear(Some(minute), one);
        timeout.hear(None, other);
        timeout.hear(None, None);
        assert_eq!(timeout.get(), Some(&minute));
        timeout.hear(Some(minute / 2), other);
        timeout.hear(None, one);
        assert_eq!(timeout.get(), Some(&(minute / 2)));
        timeout.hear(None, other);
        assert_eq!(timeout.get(), None);
    }
}
