//! What a client wishes, turned into what the core is asked: targets resolved, files read and checked
//! as a whole before anything is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::changes::Keys;
use crate::config::{self, AppConfig, Config, Host};
use crate::control::protocol::{self, Done, Error, Part, Reply, Request};
use crate::control::server::ClientId;
use crate::control::target::{self, Candidate};
use crate::supervisor::event::{AppId, Command, Definition, Scale, Scope};
use crate::supervisor::policy::AppName;
use crate::sys::{self, process};

use super::Daemon;
use super::apply::Manner;
use super::catalog::{self, Record, Source};
use super::files::MainFile;
use super::follow::Wanted;
use super::launch::{self, Taken};
use super::looking::Shown;
use super::order::{Commands, apps_in_order};
use super::told;

/// The bound on an ecosystem file that is read again.
const FILE_LIMIT: u64 = config::MAX_TEXT as u64;

/// Instances that one app can be scaled to; the file's own limit.
const MOST_INSTANCES: u32 = config::keys::MAX_INSTANCES;

/// Which of the three commands that take a file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Restart,
    Reload,
}

impl Verb {
    pub(super) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Verb::Start => ("start", "started"),
            Verb::Restart => ("restart", "restarted"),
            Verb::Reload => ("reload", "reloaded"),
        }
    }
}

pub(super) type Whom = Vec<(AppId, Scope)>;

/// What a file means depends on these: path, profile, `--only`.
pub(super) type Reading = (PathBuf, Option<String>, Vec<String>);

/// Files that were read for one wish, each once, with their texts; also those that cannot be used.
type Read = BTreeMap<Reading, Result<(Config, Rc<str>), Unusable>>;

impl Daemon {
    /// Answers a request, or begins what it wishes.
    pub(super) fn request(&mut self, client: ClientId, request: Request) {
        if let Err(error) = self.try_request(client, request) {
            self.server.reply(client, &Reply::Error(error), true);
        }
    }

    fn try_request(&mut self, client: ClientId, request: Request) -> Result<(), Error> {
        match request {
            Request::Ready { targets } => self.tell_ready(client, &targets)?,
            Request::Ping {} => self.server.reply(client, &Reply::Pong { pid: own_pid() }, true),
            Request::List { targets, connections, detail } => {
                self.begin_list(client, Shown { targets, connections, detail })?;
            }
            Request::Pid { targets } => {
                let pids = self.pids(&self.whom_or_all(&targets)?);
                self.server.reply(client, &Reply::Pids { pids }, true);
            }
            Request::Environ { targets } => self.environments(client, &targets)?,
            Request::Reset { targets } => {
                let whom = self.whom(&targets)?;
                let commands = to_each(whom, |app, scope| Command::Reset { app, scope });
                self.begin_for(client, false, ("reset", "reset"), commands);
            }
            Request::Start { targets, file, update_env, changes, no_wait } => {
                self.start_like(client, Verb::Start, (targets, file), (update_env, changes), no_wait)?;
            }
            Request::Launch { file, force, update_env, no_wait } => {
                let commands = self.launch(&file, force, update_env)?;
                self.begin_for(client, no_wait, Verb::Start.words(), commands);
            }
            Request::Restart { targets, file, update_env, changes, no_wait } => {
                self.start_like(client, Verb::Restart, (targets, file), (update_env, changes), no_wait)?;
            }
            Request::Reload { targets, file, update_env, changes, no_wait } => {
                self.start_like(client, Verb::Reload, (targets, file), (update_env, changes), no_wait)?;
            }
            Request::Apply { file, dry_run, prune, no_wait } => {
                self.apply(client, &file, Manner { dry_run, prune, no_wait })?;
            }
            Request::Stop { targets, part, no_wait } => {
                let whom = self.of_part(self.whom(&targets)?, &part)?;
                let commands = to_each(whom, |app, scope| Command::Stop { app, scope });
                self.end_apps(client, no_wait, ("stop", "stopped"), commands);
            }
            Request::Delete { targets, part, no_wait } => {
                let whom = self.of_part(self.whom(&targets)?, &part)?;
                let commands = to_each(whom, |app, scope| Command::Delete { app, scope });
                self.end_apps(client, no_wait, ("delete", "deleted"), commands);
            }
            Request::Promote { targets, no_wait } => {
                let commands = self.for_whole(&targets, |app| Command::Promote { app })?;
                self.begin_for(client, no_wait, ("promote", "promoted"), commands);
            }
            Request::Rollback { targets, no_wait } => {
                let commands = self.for_whole(&targets, |app| Command::Rollback { app })?;
                self.begin_for(client, no_wait, ("rollback", "rolled back"), commands);
            }
            Request::Scale { target, count, no_wait } => self.scale(client, &target, &count, no_wait)?,
            Request::Signal { signal, targets } => self.send_signal(client, &signal, &targets)?,
            Request::Save { force } => self.save(client, force)?,
            Request::Cleardump {} => self.clear(client)?,
            Request::Resurrect {} => self.resurrect(client),
            Request::Send { line, targets } => self.send_line(client, &line, &targets)?,
            Request::Kill {} => {
                // A second one waits with the first; only a second signal ends at once.
                self.leaving_clients.push(client);
                if !self.shutting_down {
                    self.shutdown(0);
                }
            }
            Request::Flush { targets } => self.flush(client, &targets)?,
            Request::ReloadLogs {} => self.reload_logs(Some(client)),
            Request::Logs { targets, lines, follow, stream } => {
                self.logs(client, targets, Wanted { lines, follow, stream })?;
            }
        }
        Ok(())
    }

    /// Those of a file's apps that are meant, by the names that the file has for them.
    fn of_part(&self, whom: Whom, part: &Part) -> Result<Whom, Error> {
        let of_profile = |app: AppId| {
            let profile = self.catalog.app(app).and_then(|record| record.source.profile.as_ref());
            part.profile.is_none() || part.profile.as_ref() == profile
        };
        let whom: Whom = whom.into_iter().filter(|(app, _)| of_profile(*app)).collect();
        if let (Some(profile), true) = (&part.profile, whom.is_empty()) {
            return Err(failure(format!("--env: no app of this file runs with the profile \"{profile}\"")));
        }
        let unknown = |name: &&String| !whom.iter().any(|(app, _)| self.is_named(*app, name));
        if let Some(name) = part.only.iter().find(unknown) {
            let known: Vec<String> = whom.iter().map(|(app, _)| self.app_name(*app)).collect();
            let known = known.join(", ");
            return Err(failure(format!(
                "--only: no app of this file is called \"{name}\"; there is {known}"
            )));
        }
        let is_meant = |app| part.only.is_empty() || part.only.iter().any(|name| self.is_named(app, name));
        Ok(whom.into_iter().filter(|(app, _)| is_meant(*app)).collect())
    }

    /// Whether its file calls it so: `append_env_to_name` may have put its profile behind.
    fn is_named(&self, app: AppId, name: &str) -> bool {
        self.catalog.app(app).is_some_and(|Record { name: known, source, .. }| {
            let appended = || known.strip_prefix(name)?.strip_prefix('-').map(str::to_owned);
            known == name || source.profile.is_some() && source.profile == appended()
        })
    }

    /// What to do to each of these apps.
    fn for_whole(&self, targets: &[String], command: fn(AppId) -> Command) -> Result<Commands, Error> {
        let whom = whole_apps(self.whom(targets)?);
        Ok(whom.into_iter().map(|(app, _)| (app, command(app))).collect())
    }

    fn begin_for(
        &mut self,
        client: ClientId,
        no_wait: bool,
        words: (&'static str, &'static str),
        commands: Vec<(AppId, Command)>,
    ) {
        self.begin_noted(client, no_wait, words, commands, Vec::new());
    }

    /// One after the other: the second part begins when the first is settled.
    pub(super) fn begin_steps(
        &mut self,
        client: ClientId,
        no_wait: bool,
        words: (&'static str, &'static str),
        (first, then): (Commands, Commands),
    ) {
        let apps: Vec<String> = first.iter().chain(&then).map(|(app, _)| self.app_name(*app)).collect();
        if no_wait {
            let message = format!("{} of {} has begun", words.0, apps.join(", "));
            self.server.reply(client, &Reply::Done(Done { message, apps }), true);
        }
        self.begin_parts((!no_wait).then_some(client), words, (first, then), Vec::new());
    }

    /// `notes` are for people, and told with the answer.
    fn begin_noted(
        &mut self,
        client: ClientId,
        no_wait: bool,
        words: (&'static str, &'static str),
        commands: Vec<(AppId, Command)>,
        notes: Vec<String>,
    ) {
        if no_wait {
            let apps: Vec<String> = commands.iter().map(|(app, _)| self.app_name(*app)).collect();
            let message = format!("{} of {} has begun", words.0, apps.join(", "));
            let message = [vec![message], notes].concat().join("\n");
            self.server.reply(client, &Reply::Done(Done { message, apps }), true);
            self.begin(None, words, commands);
        } else {
            self.begin_with(Some(client), words, commands, notes);
        }
    }

    /// `stop` and `delete`: in reverse, with a word on those that lose what they depend on.
    fn end_apps(
        &mut self,
        client: ClientId,
        no_wait: bool,
        words: (&'static str, &'static str),
        commands: Vec<(AppId, Command)>,
    ) {
        let notes = self.left_behind(&commands);
        for note in &notes {
            log::warn!("{}: {note}", words.0);
        }
        let commands = self.last_things_first(commands);
        self.begin_noted(client, no_wait, words, commands, notes);
    }

    /// `start`, `restart` and `reload`, of a file or of what is known.
    fn start_like(
        &mut self,
        client: ClientId,
        verb: Verb,
        (targets, file): (Vec<String>, Option<protocol::File>),
        (update_env, changes): (Option<protocol::Environment>, Keys),
        no_wait: bool,
    ) -> Result<(), Error> {
        let is_file = file.is_some();
        let (commands, told) = match file {
            Some(_) if !changes.is_empty() => {
                return Err(usage("a file says itself what its apps are; nothing was changed".to_owned()));
            }
            Some(file) => {
                let commands = self.commands_of_file(verb, &file, update_env)?;
                let notes = self.essential_of(&commands);
                (commands, notes)
            }
            None => {
                let whom = self.whom(&targets)?;
                self.commands_of_known(verb, whom, update_env, &changes)?
            }
        };
        let apps: Vec<AppId> = commands.iter().map(|(app, _)| *app).collect();
        let mut notes = [told, self.holds_over(&apps, &changes)].concat();
        notes.extend(self.state_elsewhere().filter(|_| is_file));
        let commands = match verb {
            Verb::Restart => self.in_turn(commands),
            Verb::Start | Verb::Reload => self.first_things_first(commands),
        };
        self.begin_noted(client, no_wait, verb.words(), commands, notes);
        Ok(())
    }

    /// A word on the apps that would end the foreground with them: in the background nobody waits for an exit code, and
    /// apps of other files run there.
    fn essential_of(&self, commands: &Commands) -> Vec<String> {
        let is_essential =
            |app: &AppId| self.catalog.app(*app).is_some_and(|app| app.recipe.policy.essential);
        let background = !self.main_file.is_there();
        let essential = commands.iter().map(|(app, _)| *app).filter(|app| background && is_essential(app));
        let note = |app| {
            format!(
                "{}: essential ends everything with it in the foreground alone (`clusterd FILE`): here the supervisor \
                 and other apps go on",
                self.app_name(app)
            )
        };
        essential.map(note).collect()
    }

    /// Every app of a file: the unknown are added; of the known, what runs is reloaded by `start`.
    fn commands_of_file(
        &mut self,
        verb: Verb,
        file: &protocol::File,
        update_env: Option<protocol::Environment>,
    ) -> Result<Vec<(AppId, Command)>, Error> {
        let config = self.load(file)?;
        let replaces = update_env.is_some();
        let environment = update_env.unwrap_or_else(|| file.environment.clone());
        let source = source_of(file, callers(environment)?);
        Ok(self.take_apps(verb, config, &source, replaces))
    }

    /// Takes the apps of a configuration in. Those that are known keep their environment, unless it is
    /// to be replaced.
    pub(super) fn take_apps(
        &mut self,
        verb: Verb,
        config: Config,
        source: &Rc<Source>,
        replaces: bool,
    ) -> Vec<(AppId, Command)> {
        let logs = self.log_settings(&config);
        self.hear(&config.daemon, source.path.as_deref());
        self.main_file.hear(&config.apps, source);
        self.take_each(verb, config.apps, source, replaces, &logs)
    }

    pub(super) fn take_each(
        &mut self,
        verb: Verb,
        apps: Vec<AppConfig>,
        source: &Rc<Source>,
        replaces: bool,
        logs: &(Option<PathBuf>, bool),
    ) -> Vec<(AppId, Command)> {
        let mut commands = Vec::new();
        for app in apps_in_order(apps) {
            let source = if replaces { Rc::clone(source) } else { self.with_known_environment(&app, source) };
            let (id, new, definition) = self.catalog.take(app, &source, logs.clone());
            let command = if new {
                Command::Add { app: id, definition }
            } else {
                self.command_of_file(verb, id, definition)
            };
            commands.push((id, command));
        }
        commands
    }

    /// The environment that an app was first started with stays until `--update-env`.
    pub(super) fn with_known_environment(&self, app: &AppConfig, source: &Rc<Source>) -> Rc<Source> {
        let known = self.catalog.find(&app.namespace, &app.name).and_then(|id| self.catalog.app(id));
        known.map_or_else(
            || Rc::clone(source),
            |record| {
                let environment = Rc::clone(&record.source.environment);
                Rc::new(Source { environment, ..source.as_ref().clone() })
            },
        )
    }

    pub(super) fn command_for(
        &self,
        verb: Verb,
        app: AppId,
        scope: Scope,
        definition: Option<Definition>,
    ) -> Command {
        match verb {
            Verb::Start if !self.runs(app) => Command::Start { app, scope, definition },
            Verb::Start | Verb::Reload => Command::Reload { app, definition },
            Verb::Restart => Command::Restart { app, scope, definition },
        }
    }

    /// Known apps, with their files as they are now, and what is to be said of those. All files are read and checked
    /// before the first command exists. A restart takes nobody down for a file that cannot be used: it is of what
    /// was good last.
    fn commands_of_known(
        &mut self,
        verb: Verb,
        whom: Whom,
        update_env: Option<protocol::Environment>,
        changes: &Keys,
    ) -> Result<(Commands, Vec<String>), Error> {
        let environment = update_env.map(callers).transpose()?.map(Rc::new);
        let same = environment.is_none() && changes.is_empty();
        // There is one environment and one definition for all workers of an app.
        let whom = if verb == Verb::Reload || !same { whole_apps(whom) } else { whom };
        self.check_changes(&whom, changes)?;
        let mut read = Read::new();
        let (mut found, mut unused) = (Vec::new(), Vec::new());
        for (app, scope) in whom {
            let verb = self.verb_of_known(verb, app, scope);
            if verb == Verb::Start && same {
                found.push((app, scope, verb, None));
                continue;
            }
            let Some(mut source) = self.changed_source(app, changes) else { continue };
            if let Some(environment) = &environment {
                source.environment = Rc::clone(environment);
            }
            let path = source.path.clone();
            let of_file = path.map(|path| self.of_its_file(app, &path, source.clone(), &mut read));
            let taken = match of_file {
                Some(Ok(taken)) => {
                    let scaled =
                        taken.as_ref().and_then(|taken| self.stays_scaled(verb, taken, app, changes));
                    taken.map(|taken| Taken { instances: scaled, ..taken })
                }
                Some(Err(unusable)) if !self.needs_no_file(verb, app, same) => return Err(unusable.error),
                unusable => {
                    unused.extend(unusable.and_then(Result::err).map(|unusable| (app, unusable.line)));
                    self.without_file(app, source, (same, changes))?
                }
            };
            found.push((app, scope, verb, taken));
        }
        let notes = self.files_unused(unused);
        for ((path, ..), (config, _)) in read.iter().filter_map(|(of, file)| Some((of, file.as_ref().ok()?)))
        {
            self.hear(&config.daemon, Some(path));
        }
        let mut commands = Vec::new();
        for (app, scope, verb, found) in found {
            let definition = found.map(|taken| self.define(app, taken));
            let command = match (verb, definition) {
                // Whoever is leaving, and other workers of the app, are left alone.
                (Verb::Start, None) => Command::Start { app, scope, definition: None },
                (verb, definition) => self.command_for(verb, app, scope, definition),
            };
            commands.push((app, command));
        }
        Ok((commands, notes))
    }

    /// A known app as it was defined last, with what is told of it now; none where that is nothing.
    fn without_file(
        &self,
        app: AppId,
        source: Source,
        (same, changes): (bool, &Keys),
    ) -> Result<Option<Taken>, Error> {
        match same {
            true => Ok(None),
            false if changes.is_empty() => Ok(self.as_it_is(app, Rc::new(source))),
            false => self.as_told(app, source, changes),
        }
    }

    /// Whether what is known of an app will do: for a restart, where that is the last configuration that was good. No
    /// reload is under way or held then, and where it is to be changed, the last one did not fail.
    fn needs_no_file(&self, verb: Verb, app: AppId, same: bool) -> bool {
        let (Some(course), Some(record)) = (self.supervisor.course(app), self.catalog.app(app)) else {
            return false;
        };
        let runs = self.catalog.recipe(course.spec);
        verb == Verb::Restart
            && course.reloading.is_none()
            && (same || runs.is_some_and(|recipe| Rc::ptr_eq(recipe, &record.recipe)))
    }

    /// That apps are restarted without their files, and why: each reason once, however many apps are of that file.
    fn files_unused(&self, unused: Vec<(AppId, String)>) -> Vec<String> {
        let mut by_reason: Vec<(String, Vec<String>)> = Vec::new();
        for (app, why) in unused {
            let name = self.app_name(app);
            match by_reason.iter_mut().find(|(known, _)| *known == why) {
                // Two of its instances may have been named.
                Some((_, names)) if names.contains(&name) => {}
                Some((_, names)) => names.push(name),
                None => by_reason.push((why, vec![name])),
            }
        }
        let note = |(why, names): (String, Vec<String>)| {
            let (why, apps) = (why.strip_suffix("; nothing was changed").unwrap_or(&why), names.join(", "));
            let note = match names.len() {
                1 => format!(
                    "{apps}: its file cannot be used, so it is restarted with the last configuration that was good: \
                     {why}"
                ),
                _ => format!(
                    "{apps}: their file cannot be used, so they are restarted with the last configuration that was \
                     good: {why}"
                ),
            };
            log::warn!("{note}");
            note
        };
        by_reason.into_iter().map(note).collect()
    }

    /// An app as its file has it now, with what was told of it since.
    fn of_its_file(
        &self,
        app: AppId,
        path: &Path,
        source: Source,
        read: &mut Read,
    ) -> Result<Option<Taken>, Unusable> {
        let Some(record) = self.catalog.app(app) else { return Ok(None) };
        let reading = (path.to_owned(), source.profile.clone(), source.only.clone());
        let file = read.entry(reading).or_insert_with(|| reread(path, &source).map_err(Unusable::refused));
        let (config, text) = file.as_ref().map_err(Unusable::clone)?;
        let source = source.with_text(text);
        let now = told::app_of((config, text), &source, (&record.namespace, &record.name));
        let now = now.map_err(|wrong| Unusable::new(told::mistaken(&wrong), wrong.one_line()))?;
        let app = now.ok_or_else(|| {
            let called = record.called();
            let error = no_longer_there(&called, path);
            let line = format!("app \"{called}\" is not in {} any more", path.display());
            Unusable { error, line }
        })?;
        Ok(Some(Taken { app, source, logs: self.log_settings(config), instances: None }))
    }

    /// `scale` holds over a restart, until the file itself says another number. A reload brings the app to what the
    /// file says in any case.
    fn stays_scaled(&self, verb: Verb, taken: &Taken, app: AppId, told: &Keys) -> Option<u32> {
        let said_before = self.catalog.app(app)?.instances;
        let is_news = told.contains_key("instances") || taken.app.policy.instances != said_before;
        if verb == Verb::Restart && !is_news { self.instances_now(app) } else { None }
    }

    fn define(&mut self, id: AppId, taken: Taken) -> Definition {
        let Taken { app, source, logs, instances } = taken;
        let mut definition = self.catalog.define(id, app, &source, logs);
        definition.policy.instances = instances.unwrap_or(definition.policy.instances);
        definition
    }

    /// Reads a file that a client has sent: the snapshot that is applied.
    pub(super) fn load(&self, file: &protocol::File) -> Result<Config, Error> {
        let host = Host {
            parallelism: sys::cpus::available_parallelism(),
            memory: sys::memory::total(Path::new("/")),
            folder: PathBuf::from(&file.folder),
            profile: file.profile.clone(),
            only: file.only.clone(),
        };
        let name = file.path.as_deref().unwrap_or("standard input");
        config::load(&file.text, name, &host).map_err(|e| broken(&e))
    }

    pub(super) fn log_settings(&self, config: &Config) -> (Option<PathBuf>, bool) {
        let wanted = self.log_files.or(config.daemon.log_files).unwrap_or(true);
        (config.daemon.log_dir.clone(), wanted)
    }

    /// The apps of the file that the foreground was started with.
    pub(super) fn start_file(&mut self, file: &protocol::File) -> Result<(), Error> {
        let config = self.load(file)?;
        let source = source_of(file, catalog::base_environment(std::env::vars_os()));
        self.main_file = MainFile::new(&source);
        let commands = self.take_apps(Verb::Start, config, &source, false);
        self.begin(None, Verb::Start.words(), commands);
        Ok(())
    }

    fn scale(&mut self, client: ClientId, target: &str, count: &str, no_wait: bool) -> Result<(), Error> {
        let scale = parse_scale(count)?;
        let whom = self.whom(&[target.to_owned()])?;
        let mut commands = Vec::new();
        for (app, scope) in whom {
            if scope != Scope::All {
                return Err(usage(format!("scale takes an app, and {target} is one of its workers")));
            }
            self.check_scale(app, scale)?;
            commands.push((app, Command::Scale { app, scale }));
        }
        for (app, command) in &commands {
            if let Command::Scale { scale, .. } = command {
                self.tell_scale(*app, *scale);
            }
        }
        self.begin_for(client, no_wait, ("scale", "scaled"), commands);
        Ok(())
    }

    /// The file's own limit holds for steps, too.
    fn check_scale(&self, app: AppId, scale: Scale) -> Result<(), Error> {
        let Scale::Up(more) = scale else { return Ok(()) };
        let view = self.supervisor.view(self.now);
        let now = view.apps.iter().find(|a| a.app == app).map_or(0, |a| a.instances);
        if now.saturating_add(more) <= MOST_INSTANCES {
            return Ok(());
        }
        let name = self.app_name(app);
        Err(usage(format!(
            "scale: {name} has {now} instances, and {MOST_INSTANCES} are the most it can have"
        )))
    }

    fn send_signal(&mut self, client: ClientId, name: &str, targets: &[String]) -> Result<(), Error> {
        let signal = parse_signal(name)?;
        let whom = self.whom(targets)?;
        let mut reached = Vec::new();
        let mut failed = Vec::new();
        for worker in self.workers_of(&whom) {
            match self.processes.signal_leader(worker, signal) {
                Ok(()) => reached.push(self.label(worker)),
                Err(error) => failed.push(format!("{}: {error}", self.label(worker))),
            }
        }
        if reached.is_empty() {
            let why = if failed.is_empty() { "no process runs there".to_owned() } else { failed.join("; ") };
            return Err(failure(format!("{name} reached nobody: {why}")));
        }
        let apps = whom.iter().map(|(app, _)| self.app_name(*app)).collect();
        let message = format!("{name} sent to {}", reached.join(", "));
        self.server.reply(client, &Reply::Done(Done { message, apps }), true);
        Ok(())
    }

    /// What was really given: the file, and with it what is to be given, may have changed since.
    fn environments(&mut self, client: ClientId, targets: &[String]) -> Result<(), Error> {
        let whom = self.whom(targets)?;
        let mut apps = Vec::new();
        for (app, scope) in &whom {
            let first = self.workers_of(&[(*app, *scope)]).into_iter().filter_map(|worker| {
                // Before exec it has what the supervisor has.
                let process = self.processes.get(worker).filter(|process| process.report.is_none())?;
                let newest = std::cmp::Reverse(worker);
                Some((self.names.get(&worker)?.1.instance, newest, process.pid))
            });
            let name = self.app_name(*app);
            let (instance, _, pid) = first.min().ok_or_else(|| {
                failure(format!("{name} does not run: what a worker gets is put together when it starts"))
            })?;
            let variables = process::environ(pid).map_err(|error| {
                failure(format!("{name}/{instance}: its environment cannot be read: {error}"))
            })?;
            let text = |text: OsString| text.to_string_lossy().into_owned();
            let variables = variables.into_iter().map(|(name, value)| (text(name), text(value))).collect();
            let environ = protocol::Environ { app: name.clone(), instance, pid, variables };
            self.server.reply(client, &Reply::Environ(environ), false);
            apps.push(name);
        }
        self.server.reply(client, &Reply::Done(Done { message: String::new(), apps }), true);
        Ok(())
    }

    /// Whom these targets mean; none at all is an error.
    pub(super) fn whom(&self, targets: &[String]) -> Result<Whom, Error> {
        if targets.is_empty() {
            return Err(usage("whom? name an app, an id, a namespace, /regex/, a file, or all".to_owned()));
        }
        let whom = self.whom_or_all(targets)?;
        if whom.is_empty() {
            return Err(failure("there is no app; `clusterd start FILE` starts those of a file".to_owned()));
        }
        Ok(whom)
    }

    pub(super) fn whom_or_all(&self, targets: &[String]) -> Result<Whom, Error> {
        let candidates: Vec<Candidate<'_>> = self
            .supervisor
            .apps()
            .map(|(app, name, namespace)| Candidate {
                app,
                name,
                namespace,
                file: self.catalog.app(app).and_then(|record| record.source.path.as_deref()),
                script: self.catalog.app(app).and_then(|record| launch::script_path(&record.recipe.spec)),
                slots: self.supervisor.slots(app).map(|s| s.slot).collect(),
            })
            .collect();
        let mut spelt = Vec::new();
        for text in targets {
            spelt.extend(as_known(text, &candidates));
        }
        target::resolve(&spelt, &candidates).map_err(|e| failure(e.to_string()))
    }
}

/// A target as it is, but a file by the paths under which its apps were started, where these differ:
/// through a symbolic link, or with `..`.
fn as_known(target: &str, among: &[Candidate<'_>]) -> Vec<String> {
    let is_known = |path: &Path| files_of(among).any(|file| file == path);
    let path = target::file(target).filter(|path| !is_known(path));
    let Some(real) = path.and_then(|path| path.canonicalize().ok()) else { return vec![target.to_owned()] };
    let files: BTreeSet<&Path> = files_of(among).collect();
    let same = files.into_iter().filter(|file| file.canonicalize().is_ok_and(|file| file == real));
    let same: Vec<String> = same.filter_map(|file| file.to_str().map(str::to_owned)).collect();
    if same.is_empty() { vec![target.to_owned()] } else { same }
}

/// The files that apps came from, and those that they run.
fn files_of<'a>(among: &'a [Candidate<'_>]) -> impl Iterator<Item = &'a Path> {
    among.iter().flat_map(|app| app.file.into_iter().chain(app.script.as_deref()))
}

/// A reload is about an app as a whole, whichever of its workers were named.
fn whole_apps(whom: Whom) -> Whom {
    let mut apps: Whom = Vec::new();
    for (app, _) in whom {
        if !apps.contains(&(app, Scope::All)) {
            apps.push((app, Scope::All));
        }
    }
    apps
}

/// Why a file is not taken.
pub(super) enum Refused {
    /// It cannot be read.
    Unread(String),
    /// What is wrong with it.
    Broken(config::Diagnostics),
}

impl Refused {
    /// For the log: a line for each mistake. The lines of the file itself are not shown there, for variables may
    /// be secrets, and a log is read by others than the file.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Refused::Unread(message) => vec![message.clone()],
            Refused::Broken(diagnostics) => {
                diagnostics.one_line().into_iter().chain(["nothing was changed".to_owned()]).collect()
            }
        }
    }
}

/// What to do to each of these.
fn to_each(whom: Whom, command: fn(AppId, Scope) -> Command) -> Commands {
    whom.into_iter().map(|(app, scope)| (app, command(app, scope))).collect()
}

/// Why an app's file does not say what the app is: for a client that is refused, and in one line.
#[derive(Clone)]
struct Unusable {
    error: Error,
    line: String,
}

impl Unusable {
    fn new(error: Error, lines: Vec<String>) -> Unusable {
        Unusable { error, line: lines.into_iter().next().unwrap_or_default() }
    }

    fn refused(refused: Refused) -> Unusable {
        let lines = refused.lines();
        match refused {
            Refused::Unread(message) => Unusable::new(usage(message), lines),
            Refused::Broken(diagnostics) => Unusable::new(broken(&diagnostics), lines),
        }
    }
}

/// Reads an app's file again: what it means, and its text.
pub(super) fn reread(path: &Path, source: &Source) -> Result<(Config, Rc<str>), Refused> {
    let bytes = read_file(path).map_err(|error| {
        Refused::Unread(format!("cannot read {}: {error}; nothing was changed", path.display()))
    })?;
    let name = path.display().to_string();
    let text = config::decode(&bytes, &name).map_err(Refused::Broken)?;
    config::load(text, &name, &host(source)).map(|config| (config, text.into())).map_err(Refused::Broken)
}

/// Reads a regular file of bounded length. Anything else could hold the loop: a named pipe until somebody
/// writes, a device for ever.
fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    if about.len() > FILE_LIMIT {
        return Err(std::io::Error::other("it is longer than 1 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn own_pid() -> i32 {
    std::process::id() as i32
}

/// Where the apps of this file come from.
pub(super) fn source_of(file: &protocol::File, environment: catalog::Environment) -> Rc<Source> {
    Rc::new(Source {
        path: file.path.as_ref().map(PathBuf::from),
        folder: PathBuf::from(&file.folder),
        profile: file.profile.clone(),
        only: file.only.clone(),
        environment: Rc::new(environment),
        text: file.text.as_str().into(),
        changes: Rc::default(),
    })
}

pub(super) fn host(source: &Source) -> Host {
    Host {
        parallelism: sys::cpus::available_parallelism(),
        memory: sys::memory::total(Path::new("/")),
        folder: source.folder.clone(),
        profile: source.profile.clone(),
        only: source.only.clone(),
    }
}

/// What a caller sent, without what is private.
pub(super) fn callers(sent: protocol::Environment) -> Result<catalog::Environment, Error> {
    let text = sent.text.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes()));
    let all: Vec<_> = text.chain(sent.bytes).collect();
    if let Some((name, _)) = all.iter().find(|(name, value)| name.contains(&0) || value.contains(&0)) {
        let name = String::from_utf8_lossy(name).escape_default().to_string();
        return Err(usage(format!("environment: variable {name} holds a NUL byte, which ends a string")));
    }
    let os = OsString::from_vec;
    Ok(catalog::base_environment(all.into_iter().map(|(name, value)| (os(name), os(value)))))
}

pub(super) fn usage(message: String) -> Error {
    Error { code: 2, message, failures: Vec::new() }
}

pub(super) fn failure(message: String) -> Error {
    Error { code: 1, message, failures: Vec::new() }
}

fn broken(diagnostics: &config::Diagnostics) -> Error {
    let rendered = diagnostics.render(false);
    // The client begins with the same word, and the last line says that nothing was changed.
    usage(rendered.trim_end().trim_start_matches("error: ").to_owned())
}

fn no_longer_there(name: &AppName, path: &Path) -> Error {
    failure(format!(
        "app \"{name}\" is not in {} any more; `clusterd delete {name}` stops and forgets it; nothing was \
         changed",
        path.display()
    ))
}

fn parse_scale(count: &str) -> Result<Scale, Error> {
    let wrong =
        || usage(format!("scale: expected N, +N or -N with N from 1 to {MOST_INSTANCES}, got {count}"));
    let (digits, make): (&str, fn(u32) -> Scale) = match count.as_bytes().first() {
        Some(b'+') => (&count[1..], Scale::Up),
        Some(b'-') => (&count[1..], Scale::Down),
        _ => (count, Scale::To),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    if (1..=MOST_INSTANCES).contains(&number) { Ok(make(number)) } else { Err(wrong()) }
}

/// A name with or without SIG, in any case, or a number.
fn parse_signal(text: &str) -> Result<i32, Error> {
    let wrong = || usage(format!("unknown signal {text}; write a name as SIGUSR2, or a number from 1 to 64"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<nix::sys::signal::Signal>().map(|signal| signal as i32).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_takes_a_number_or_a_step() {
        assert_eq!(parse_scale("4").expect("a number"), Scale::To(4));
        assert_eq!(parse_scale("+2").expect("a step"), Scale::Up(2));
        assert_eq!(parse_scale("-1").expect("a step"), Scale::Down(1));
        for wrong in ["", "0", "+", "-0", "x", "1.5", "--1", "+-1", "1001", "99999999999"] {
            assert_eq!(parse_scale(wrong).expect_err("refused").code, 2, "{wrong}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(parse_signal("HUP").expect("a name"), libc::SIGHUP);
        assert_eq!(parse_signal("sigusr2").expect("a name"), libc::SIGUSR2);
        assert_eq!(parse_signal("15").expect("a number"), 15);
        assert_eq!(parse_signal("34").expect("real time"), 34);
        for wrong in ["", "0", "65", "-1", "SIGNOPE"] {
            assert_eq!(parse_signal(wrong).expect_err("refused").code, 2, "{wrong}");
        }
    }
}
