//! `watch`: has the workers of an app replaced when its files have changed, and are at rest again.
//!
//! An app that writes into its own watched folder when it starts would be replaced for ever: `pace` tells its changes
//! from those of somebody who saves often.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mio::Token;

use crate::config::LogTarget;
use crate::config::ignore::Rules;
use crate::logs::escape::escape;
use crate::supervisor::event::{AppId, Event, Generation};
use crate::supervisor::policy::Watch;
use crate::supervisor::time::Time;

use super::catalog::Recipe;
use super::pace::Pace;
use super::watched::{MOST_FOLDERS, Own, Trouble, Watched};
use super::{Daemon, Source};

/// The files of all apps that are watched.
#[derive(Debug, Default)]
pub(super) struct Watches {
    of: BTreeMap<AppId, Watching>,
}

/// The files of one app.
#[derive(Debug)]
struct Watching {
    watch: Watch,
    cwd: PathBuf,
    /// What was good when they began to be watched.
    generation: Generation,
    /// None where the host does not let us.
    files: Option<(Watched, Token)>,
    pace: Pace,
    /// What changed last, in words.
    told: String,
}

impl Watches {
    /// A worker of this app is started.
    pub(super) fn started(&mut self, app: AppId, now: Time) {
        if let Some(watching) = self.of.get_mut(&app) {
            watching.pace.started(now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.of.values().filter_map(|watching| watching.pace.due(watching.watch.delay)).min()
    }

    /// Whether folders are still to be read: there is something to do at once.
    pub(super) fn is_scanning(&self) -> bool {
        self.of.values().any(|watching| watching.files.as_ref().is_some_and(|(files, _)| files.is_scanning()))
    }
}

impl Daemon {
    /// Reads on in the folders that are watched, and tells what changed.
    pub(super) fn keep_watches(&mut self) {
        let apps: Vec<AppId> = self.watches.of.keys().copied().collect();
        for app in apps {
            self.scan_files(app);
            self.tell_changes(app);
        }
    }

    /// Takes over which files of which apps are watched by now.
    pub(super) fn take_watches(&mut self) {
        let mut stale: Vec<AppId> = Vec::new();
        let mut new = Vec::new();
        let mut count = 0;
        for (app, watch, spec, generation) in self.supervisor.watches() {
            let Some(recipe) = self.catalog.recipe(spec) else { continue };
            count += 1;
            let known = self.watches.of.get(&app).is_some_and(|known| {
                let refused = known.files.is_none() && known.generation != generation;
                known.watch == *watch && known.cwd == recipe.spec.cwd && !refused
            });
            if !known {
                new.push((app, watch.clone(), recipe.clone(), generation));
            }
        }
        if count < self.watches.of.len() || !new.is_empty() {
            let kept = |app: &AppId| {
                self.supervisor.watches().any(|(other, ..)| other == *app)
                    && new.iter().all(|(other, ..)| other != app)
            };
            stale.extend(self.watches.of.keys().filter(|app| !kept(app)));
        }
        for app in stale {
            if let Some(old) = self.watches.of.remove(&app) {
                self.end_watch(old.files);
            }
        }
        for (app, watch, recipe, generation) in new {
            let files = self.begin_watch(app, &watch, &recipe);
            let (cwd, pace, told) = (recipe.spec.cwd.clone(), Pace::default(), String::new());
            self.watches.of.insert(app, Watching { watch, cwd, generation, files, pace, told });
        }
    }

    fn begin_watch(&mut self, app: AppId, watch: &Watch, recipe: &Recipe) -> Option<(Watched, Token)> {
        let (cwd, rules) = (&recipe.spec.cwd, Rules::new(&watch.ignore));
        let files = match Watched::new(cwd, &watch.paths, rules, self.own_files(recipe)) {
            Ok(files) => files,
            Err(trouble) => {
                self.tell_trouble(app, &trouble);
                return None;
            }
        };
        for path in files.missing() {
            let path = escape(path.as_os_str().as_encoded_bytes()).into_owned();
            log::warn!("{}: watch: {path} is not there; it is watched once it is", self.app_name(app));
        }
        match self.watch(files.descriptor(), Source::Files(app)) {
            Ok(token) => Some((files, token)),
            Err(error) => {
                self.tell_trouble(app, &Trouble::Other(error));
                None
            }
        }
    }

    fn end_watch(&mut self, files: Option<(Watched, Token)>) {
        if let Some((files, token)) = files {
            self.unwatch(&[(token, files.descriptor())]);
        }
    }

    /// What is written on behalf of the app, or for clusterd itself.
    fn own_files(&self, recipe: &Recipe) -> Own {
        let logs = recipe.log_dir.clone().unwrap_or_else(|| self.home.logs.clone());
        let home = [&self.home.runtime, &self.home.state, &self.home.logs];
        let folders = home.into_iter().cloned().chain([logs]).collect();
        let log = |target: &LogTarget| match target {
            LogTarget::File(path) => Some(path.clone()),
            LogTarget::Default | LogTarget::Discard => None,
        };
        let spec = &recipe.spec;
        let logs = [Some(&spec.out_file), Some(&spec.error_file), spec.logs.both.as_ref()];
        let logs = logs.into_iter().flatten().filter_map(log);
        Own { folders, files: logs.chain(spec.process.pid_file.clone()).collect() }.resolved()
    }

    /// The kernel has something to tell of an app's files. True when it is more than one turn's share.
    pub(super) fn collect_files(&mut self, app: AppId) -> bool {
        self.with_files(app, Watched::collect).unwrap_or(false)
    }

    fn scan_files(&mut self, app: AppId) {
        self.with_files(app, Watched::scan);
    }

    /// Has the app's files looked at; where that cannot be, they are not watched any more.
    fn with_files<T>(
        &mut self,
        app: AppId,
        look: impl FnOnce(&mut Watched) -> Result<T, Trouble>,
    ) -> Option<T> {
        let (now, reloading) = (self.now, self.supervisor.is_reloading(app));
        let watching = self.watches.of.get_mut(&app)?;
        watching.pace.see(reloading, now);
        let (files, _) = watching.files.as_mut()?;
        let known = files.changes().count();
        match look(files) {
            Ok(found) => {
                if files.changes().is_empty() {
                    watching.pace.taken_back();
                } else if files.changes().count() != known {
                    watching.pace.changed(now);
                }
                Some(found)
            }
            Err(trouble) => {
                watching.pace.taken_back();
                let files = watching.files.take();
                self.end_watch(files);
                self.tell_trouble(app, &trouble);
                None
            }
        }
    }

    fn tell_changes(&mut self, app: AppId) {
        let now = self.now;
        let Some(watching) = self.watches.of.get_mut(&app) else { return };
        if watching.pace.due(watching.watch.delay).is_none_or(|due| due > now) {
            return;
        }
        let Some((files, _)) = &mut watching.files else { return };
        let changes = files.take_changes();
        watching.told = in_words(changes.told(), &watching.cwd);
        if watching.pace.take(now) {
            let told = watching.told.clone();
            log::warn!(
                "{}: watch: its files change each time that it is started, at last {told}: if it writes them itself, \
                 name them in ignore_watch; until then it is replaced more and more rarely",
                self.app_name(app)
            );
        }
        self.inbox.push_back(Event::Changed { app });
    }

    /// What changed last, in words.
    pub(super) fn changes_of(&self, app: AppId) -> String {
        self.watches.of.get(&app).map_or_else(|| "files changed".to_owned(), |known| known.told.clone())
    }

    fn tell_trouble(&self, app: AppId, trouble: &Trouble) {
        let limit = |name: &str| {
            let now = std::fs::read_to_string(Path::new("/proc/sys/fs/inotify").join(name)).ok();
            let now: Option<u64> = now.and_then(|text| text.trim().parse().ok());
            let more = now.unwrap_or(0).saturating_mul(4).max(1024);
            let now = now.map_or_else(String::new, |now| format!(" (now {now})"));
            format!("raise the limit{now} with `sysctl fs.inotify.{name}={more}`")
        };
        let why = match trouble {
            Trouble::Queues => {
                format!("the user has no inotify queue left: {}", limit("max_user_instances"))
            }
            Trouble::Folders => {
                let limit = limit("max_user_watches");
                format!(
                    "the user watches as many folders as may be: name some of them in ignore_watch, or {limit}"
                )
            }
            Trouble::TooMany => {
                format!("there are more than {MOST_FOLDERS} folders: name some in ignore_watch")
            }
            Trouble::Other(error) => error.to_string(),
        };
        log::warn!(
            "{}: watch has no effect, its files are not watched: {why}; then `clusterd reload {0}`",
            self.app_name(app)
        );
    }
}

/// `server.js and 3 other files changed`; paths from the app's folder on, where they lie in it.
fn in_words(told: Option<(&Path, usize)>, cwd: &Path) -> String {
    let Some((first, others)) = told else { return "many files changed".to_owned() };
    let path = first.strip_prefix(cwd).ok().filter(|path| !path.as_os_str().is_empty()).unwrap_or(first);
    let path = escape(path.as_os_str().as_encoded_bytes()).into_owned();
    match others {
        0 => format!("{path} changed"),
        1 => format!("{path} and another file changed"),
        others => format!("{path} and {others} other files changed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_its_first_file() {
        let cwd = Path::new("/srv/api");
        for (path, others, expected) in [
            ("/srv/api/src/a.js", 0, "src/a.js changed"),
            ("/srv/api/src/a\n.js", 1, "src/a\\x0a.js and another file changed"),
            ("/etc/api.conf", 7, "/etc/api.conf and 7 other files changed"),
            ("/srv/api", 0, "/srv/api changed"),
        ] {
            assert_eq!(in_words(Some((Path::new(path), others)), cwd), expected);
        }
        assert_eq!(in_words(None, cwd), "many files changed");
    }
}
