//! Tables → [`Config`]: every value checked, every default applied. Reads on after a mistake, so that all of
//! a file's mistakes are reported at once; a file with one of them yields no configuration at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Collector, Diagnostics, Problem, printable, quoted};
use super::keys::{self, AppKey, DaemonKey, Key, Kind};
use super::listen;
use super::raw::{self, Entry, MAX_TEXT, Other, Section};
use super::value::{self, Refusal};
use super::{
    AppConfig, Config, DaemonConfig, Host, Interpreter, Listen, LogTarget, Program, Spec, launch, words,
};
use crate::supervisor::policy::{Mode, OnReloadFailure, Policy};

/// Apps that one file can hold.
const MAX_APPS: usize = 1000;

/// Addresses that one file can declare: they are compared each with each.
const MAX_LISTEN: usize = 4096;

/// Reads a file's text as what it means on this host. `source` is what the file is called in errors: its
/// path, or `standard input`.
///
/// # Errors
/// Everything that is wrong, at most [`super::error::MAX_PROBLEMS`] in detail.
pub fn load(text: &str, source: &str, host: &Host) -> Result<Config, Diagnostics> {
    if text.len() > MAX_TEXT {
        return Err(too_long(text, source));
    }
    let mut collector = Collector::new(text, source);
    let tree = raw::parse(text, &mut collector);
    let mut config = Config { daemon: DaemonConfig::default(), apps: Vec::new() };
    if !collector.has_broken_header() {
        config = read_file(&tree, host, &mut collector);
    }
    match collector.finish() {
        Some(diagnostics) => Err(diagnostics),
        None => Ok(config),
    }
}

fn too_long(text: &str, source: &str) -> Diagnostics {
    let mut collector = Collector::new("", source);
    let place = Some(collector.place(0..0));
    collector.add(Problem {
        place,
        app: None,
        key: None,
        message: format!("expected at most {MAX_TEXT} bytes, got {}", text.len()),
        expected: Some(format!("at most {MAX_TEXT} bytes")),
        help: Some("is this an ecosystem file?".to_owned()),
    });
    collector.finish().expect("a problem was added")
}

/// One app as read, with the places that comparisons between apps need.
struct Draft {
    app: AppConfig,
    /// Where its name was written, or its table begins.
    place: Range<usize>,
    /// Where each of `app.spec.listen` was written.
    listen_places: Vec<Range<usize>>,
    /// Names of its `env_<profile>` tables.
    profiles: BTreeSet<String>,
}

fn read_file(tree: &DeTable<'_>, host: &Host, collector: &mut Collector<'_>) -> Config {
    let mut config = Config { daemon: DaemonConfig::default(), apps: Vec::new() };
    let mut apps = None;
    for entry in raw::entries(tree) {
        match entry.written {
            "apps" => apps = Some(entry),
            "daemon" => config.daemon = read_daemon(&entry, host, collector),
            _ => unknown_at_top(&entry, collector),
        }
    }
    let drafts = match apps {
        Some(entry) => read_apps(&entry, host, collector),
        None => {
            no_apps(0..0, collector);
            return config;
        }
    };
    if !collector.is_broken() {
        check_names(&drafts, collector);
        check_addresses(&drafts, collector);
        check_profile(&drafts, host, collector);
        check_only(&drafts, host, collector);
    }
    let wanted = |app: &AppConfig| host.only.is_empty() || host.only.contains(&app.name);
    config.apps = drafts.into_iter().map(|draft| draft.app).filter(wanted).collect();
    config
}

fn unknown_at_top(entry: &Entry<'_>, collector: &mut Collector<'_>) {
    let help = if keys::find(keys::APP, entry.written).is_some() || entry.written.starts_with("env_") {
        Some("keys of an app stand below the line [[apps]]".to_owned())
    } else if keys::find(keys::DAEMON, entry.written).is_some() {
        Some("keys of clusterd itself stand below the line [daemon]".to_owned())
    } else if matches!(entry.written, "deploy" | "static" | "pm2") {
        Some("known to PM2, not supported by this version of clusterd".to_owned())
    } else {
        match keys::nearest(entry.written, ["apps", "daemon"]) {
            Some("apps") => Some("did you mean [[apps]]?".to_owned()),
            Some(_) => Some("did you mean [daemon]?".to_owned()),
            None => Some("a file consists of [[apps]] tables, and [daemon]".to_owned()),
        }
    };
    let place = Some(collector.place(entry.key_span.clone()));
    let message = format!("unknown key {}", quoted(entry.written));
    collector.add(Problem { place, app: None, key: None, message, expected: None, help });
}

fn no_apps(span: Range<usize>, collector: &mut Collector<'_>) {
    if collector.is_broken() {
        return;
    }
    let place = Some(collector.place(span));
    collector.add(Problem {
        place,
        app: None,
        key: Some("apps".to_owned()),
        message: "expected at least one app, got none".to_owned(),
        expected: Some("at least one app".to_owned()),
        help: Some("write a line [[apps]], and below it script = \"server.js\"".to_owned()),
    });
}

fn read_daemon(entry: &Entry<'_>, host: &Host, collector: &mut Collector<'_>) -> DaemonConfig {
    let mut config = DaemonConfig::default();
    let DeValue::Table(table) = entry.value() else {
        let place = Some(collector.place(entry.key_span.clone()));
        collector.add(Problem {
            place,
            app: None,
            key: Some("daemon".to_owned()),
            message: format!("expected one table, got {}", value::shown(entry.value())),
            expected: Some("one table".to_owned()),
            help: Some("write [daemon], in single brackets".to_owned()),
        });
        return config;
    };
    let section = raw::section(table, keys::DAEMON, None, collector, &mut |_| Other::Unknown { help: None });
    let mut reader = Reader { section, table: keys::DAEMON, app: None, collector };
    config.log_dir =
        reader.read(DaemonKey::LogDir, |value| value::path(value).map(|path| join(&host.folder, path)));
    if let Some(log_files) = reader.flag(DaemonKey::LogFiles) {
        config.log_files = log_files;
    }
    if let Some(timeout) = reader.duration(DaemonKey::ShutdownTimeout) {
        config.shutdown_timeout = timeout;
    }
    config
}

fn read_apps(entry: &Entry<'_>, host: &Host, collector: &mut Collector<'_>) -> Vec<Draft> {
    let problem = |place, message, help: &str| Problem {
        place: Some(place),
        app: None,
        key: Some("apps".to_owned()),
        message,
        expected: Some("an array of tables".to_owned()),
        help: Some(help.to_owned()),
    };
    let items = match entry.value() {
        DeValue::Array(items) => items,
        value => {
            let place = collector.place(entry.key_span.clone());
            let message = format!("expected an array of tables, got {}", value::shown(value));
            collector.add(problem(place, message, "write [[apps]], in double brackets, above each app"));
            return Vec::new();
        }
    };
    if items.is_empty() {
        no_apps(entry.key_span.clone(), collector);
    }
    if items.len() > MAX_APPS {
        let place = collector.place(entry.key_span.clone());
        let message = format!("expected at most {MAX_APPS} apps, got {}", items.len());
        collector.add(problem(place, message, "one app can have many workers: instances = 4"));
    }
    let mut drafts = Vec::new();
    for (at, item) in items.iter().take(MAX_APPS).enumerate() {
        match item.get_ref() {
            DeValue::Table(table) => drafts.push(read_app(table, item.span(), at + 1, host, collector)),
            value => {
                let place = collector.place(item.span());
                let message = format!("expected a table, got {}", value::shown(value));
                collector.add(problem(place, message, "write [[apps]], in double brackets, above each app"));
            }
        }
    }
    drafts
}

/// What errors call an app: its name as written, the one derived from its script, or its number.
fn label(table: &DeTable<'_>, number: usize) -> String {
    let name = table.get("name").and_then(|name| name.get_ref().as_str().map(str::to_owned));
    let script = || {
        raw::entries(table)
            .into_iter()
            .find(|entry| keys::find(keys::APP, entry.written).is_some_and(|key| key.id == AppKey::Script))
            .and_then(|entry| derived_name(entry.value()))
            .filter(|name| value::name_fault(name).is_none())
    };
    match name.or_else(script) {
        Some(name) => printable(&name.chars().take(64).collect::<String>()),
        None => format!("#{number}"),
    }
}

/// The stem of the script's name; none where the script is a line for the shell.
fn derived_name(script: &DeValue<'_>) -> Option<String> {
    let program = match script {
        DeValue::String(text) => text.trim(),
        DeValue::Array(items) => items.first()?.get_ref().as_str()?,
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => return None,
    };
    Some(Path::new(program).file_stem()?.to_str()?.to_owned())
}

fn read_app(
    table: &DeTable<'_>,
    span: Range<usize>,
    number: usize,
    host: &Host,
    collector: &mut Collector<'_>,
) -> Draft {
    let label = label(table, number);
    let mut profiles = Vec::new();
    let section = raw::section(table, keys::APP, Some(&label), collector, &mut |entry| {
        if keys::is_pm2_only(entry.written) {
            let help = Some("known to PM2, not supported by this version of clusterd".to_owned());
            return Other::Unknown { help };
        }
        match entry.written.strip_prefix(keys::PROFILE_PREFIX) {
            Some(profile) if entry.written != "env_file" => {
                profiles.push((profile.to_owned(), entry.clone()));
                Other::Taken
            }
            Some(_) => {
                Other::Unknown { help: Some("not supported by this version of clusterd; use env".to_owned()) }
            }
            None => Other::Unknown { help: None },
        }
    });
    let place = section.get(AppKey::Name).map_or(span.clone(), |entry| entry.value.span());
    let mut reader = Reader { section, table: keys::APP, app: Some(label), collector };
    let program = reader.program(&span);
    let name = reader.name(program.as_ref());
    let namespace = reader.read(AppKey::Namespace, |value| value::name(value, "a target").map(str::to_owned));
    let (listen, listen_places) = reader.listen(&name);
    let policy = reader.policy(!listen.is_empty(), host);
    let (env, profiles) = reader.environments(profiles, host);
    let spec = reader.spec(program, policy.mode, listen, env, host);
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    Draft { app: AppConfig { name, namespace, policy, spec }, place, listen_places, profiles }
}

/// Reads the values of one table by the rows of its keys.
struct Reader<'a, 'v, 't, K: 'static> {
    section: Section<'v, K>,
    table: &'static [Key<K>],
    app: Option<String>,
    collector: &'a mut Collector<'t>,
}

impl<'v, K: PartialEq + Copy> Reader<'_, 'v, '_, K> {
    fn kind(&self, id: K) -> Kind {
        keys::row(self.table, id).kind
    }

    /// The value of a key; none when it is not set, or was refused and reported.
    fn read<T>(&mut self, id: K, parse: impl FnOnce(&'v DeValue<'v>) -> Result<T, Refusal>) -> Option<T> {
        let entry = self.section.get(id)?.clone();
        match parse(entry.value()) {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.refuse(self.kind(id), entry.written, entry.value, refusal);
                None
            }
        }
    }

    fn refuse(&mut self, kind: Kind, key: &str, value: &Spanned<DeValue<'_>>, refusal: Refusal) {
        let sentence = value::sentence(kind, value.get_ref(), refusal);
        let place = Some(self.collector.place(value.span()));
        self.collector.add(Problem {
            place,
            app: self.app.clone(),
            key: Some(printable(key)),
            message: sentence.message,
            expected: Some(sentence.expected),
            help: sentence.help,
        });
    }

    fn flag(&mut self, id: K) -> Option<bool> {
        self.read(id, value::flag)
    }

    fn duration(&mut self, id: K) -> Option<Duration> {
        let Kind::Duration { min, max } = self.kind(id) else {
            return None;
        };
        self.read(id, |value| value::duration(value, min, max))
    }

    fn count(&mut self, id: K) -> Option<u32> {
        let Kind::Count { min, max } = self.kind(id) else {
            return None;
        };
        self.read(id, |value| value::count(value, min, max))
    }

    fn choice(&mut self, id: K) -> Option<&'static str> {
        let Kind::Choice(words) = self.kind(id) else {
            return None;
        };
        self.read(id, |value| value::choice(value, words))
    }

    /// A list of arguments.
    fn words(&mut self, id: K) -> Vec<String> {
        let Some(entry) = self.section.get(id).cloned() else {
            return Vec::new();
        };
        let (good, refused) = words::read(entry.value);
        for (value, refusal) in refused {
            self.refuse(self.kind(id), entry.written, value, refusal);
        }
        good
    }

    /// Reports a key that is right by itself and has no meaning beside another one.
    fn conflict(&mut self, id: K, message: &str, help: &str) {
        if let Some(entry) = self.section.get(id).cloned() {
            self.refuse(self.kind(id), entry.written, entry.value, Refusal::said(message, help));
        }
    }
}

impl<'v> Reader<'_, 'v, '_, AppKey> {
    /// The name, or the one derived from what runs.
    fn name(&mut self, program: Option<&Program>) -> String {
        if self.section.get(AppKey::Name).is_some() {
            let name = self.read(AppKey::Name, |value| value::name(value, "a name").map(str::to_owned));
            return name.unwrap_or_default();
        }
        let (Some(program), Some(entry)) = (program, self.section.get(AppKey::Script).cloned()) else {
            return String::new();
        };
        let derived = match program {
            Program::Script { .. } | Program::Exact(_) => derived_name(entry.value()),
            Program::Shell(_) => None,
        };
        match derived.filter(|name| value::name_fault(name).is_none()) {
            Some(name) => name,
            None => {
                let refusal =
                    Refusal::said("no name can be derived from it", "give the app one: name = \"web\"");
                self.refuse(Kind::Name, entry.written, entry.value, refusal);
                String::new()
            }
        }
    }

    fn program(&mut self, app_span: &Range<usize>) -> Option<Program> {
        let Some(entry) = self.section.get(AppKey::Script).cloned() else {
            if !self.collector.is_broken() {
                let place = Some(self.collector.place(app_span.clone()));
                self.collector.add(Problem {
                    place,
                    app: self.app.clone(),
                    key: Some("script".to_owned()),
                    message: format!("expected {}, got nothing", Kind::Script.expected()),
                    expected: Some(Kind::Script.expected()),
                    help: Some(
                        "write script = \"server.js\", or command = [\"program\", \"argument\"]".to_owned(),
                    ),
                });
            }
            return None;
        };
        match entry.value() {
            DeValue::Array(_) if entry.written == "command" => self.exact(&entry),
            DeValue::Array(_) => {
                let refusal =
                    Refusal::wrong("an exact argument vector is written command = [\"program\", …]");
                self.refuse(Kind::Script, entry.written, entry.value, refusal);
                None
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => self.script(),
        }
    }

    /// `command = [...]`, beside which no other key says what runs.
    fn exact(&mut self, entry: &Entry<'v>) -> Option<Program> {
        let vector = self.words(AppKey::Script);
        for id in [AppKey::Interpreter, AppKey::InterpreterArgs, AppKey::Args] {
            self.conflict(
                id,
                "has no effect beside command = [...], which is the whole argument vector",
                "put it into the array, or write script = \"…\"",
            );
        }
        if vector.first().is_none_or(String::is_empty) {
            let refusal = Refusal::wrong("the first string is the program");
            self.refuse(Kind::Script, entry.written, entry.value, refusal);
            return None;
        }
        Some(Program::Exact(vector))
    }

    fn script(&mut self) -> Option<Program> {
        let interpreter = self.read(AppKey::Interpreter, interpreter);
        let is_line = self.section.get(AppKey::Interpreter).is_none();
        let script = self.read(AppKey::Script, |value| {
            let text = value::text(value)?.trim();
            match text.is_empty() {
                true => Err(Refusal::WRONG),
                false if is_line && text.contains(char::is_whitespace) => Ok(text),
                false => value::path(value).map(str::trim),
            }
        })?;
        if is_line && script.contains(char::is_whitespace) {
            for id in [AppKey::InterpreterArgs, AppKey::Args] {
                self.conflict(
                    id,
                    "has no effect beside a script with blanks, which is a line for `sh -c`",
                    "put it into the line, or write command = [\"program\", \"argument\"]",
                );
            }
            return Some(Program::Shell(script.to_owned()));
        }
        let interpreter = interpreter.unwrap_or(Interpreter::ByExtension);
        let runs_itself = match interpreter {
            Interpreter::None => true,
            Interpreter::ByExtension => launch::interpreter_by_extension(Path::new(script)).is_none(),
            Interpreter::Program(_) => false,
        };
        if runs_itself {
            self.conflict(
                AppKey::InterpreterArgs,
                "has no effect, since no interpreter runs this script",
                "write interpreter = \"…\" too, or use args",
            );
        }
        Some(Program::Script { script: script.to_owned(), interpreter })
    }

    fn policy(&mut self, declares_listen: bool, host: &Host) -> Policy {
        let defaults = Policy::default();
        let instances = self.read(AppKey::Instances, |value| instances(value, host.parallelism));
        let mode = match self.choice(AppKey::ExecMode) {
            Some("cluster") => Mode::Cluster,
            Some(_) => Mode::Fork,
            None if declares_listen || self.section.get(AppKey::Instances).is_some() => Mode::Cluster,
            None => Mode::Fork,
        };
        let on_reload_failure = match self.choice(AppKey::OnReloadFailure) {
            Some("hold") => OnReloadFailure::Hold,
            Some(_) | None => OnReloadFailure::Rollback,
        };
        let mut time = |id, default| self.duration(id).unwrap_or(default);
        Policy {
            instances: instances.unwrap_or(defaults.instances),
            mode,
            declares_listen,
            on_reload_failure,
            listen_timeout: time(AppKey::ListenTimeout, defaults.listen_timeout),
            kill_timeout: time(AppKey::KillTimeout, defaults.kill_timeout),
            min_uptime: time(AppKey::MinUptime, defaults.min_uptime),
            restart_delay: time(AppKey::RestartDelay, defaults.restart_delay),
            exp_backoff_restart_delay: time(
                AppKey::ExpBackoffRestartDelay,
                defaults.exp_backoff_restart_delay,
            ),
            min_healthy_time: time(AppKey::MinHealthyTime, defaults.min_healthy_time),
            drain_timeout: time(AppKey::DrainTimeout, defaults.drain_timeout),
            max_restarts: self.count(AppKey::MaxRestarts).unwrap_or(defaults.max_restarts),
            max_surge: self.count(AppKey::MaxSurge).unwrap_or(defaults.max_surge),
            wait_ready: self.flag(AppKey::WaitReady).unwrap_or(defaults.wait_ready),
        }
    }

    fn spec(
        &mut self,
        program: Option<Program>,
        mode: Mode,
        listen: Vec<Listen>,
        env: BTreeMap<String, String>,
        host: &Host,
    ) -> Spec {
        let cwd = self.read(AppKey::Cwd, |value| value::path(value).map(|path| join(&host.folder, path)));
        let cwd = cwd.unwrap_or_else(|| join(&host.folder, "."));
        let is_vector = matches!(program, Some(Program::Exact(_)));
        let intercept = self.flag(AppKey::Intercept);
        if intercept == Some(true) && mode == Mode::Fork {
            self.conflict(
                AppKey::Intercept,
                "only cluster mode shares ports, and this app is in fork mode",
                "remove it, or write exec_mode = \"cluster\"",
            );
        }
        Spec {
            program: program.unwrap_or(Program::Exact(Vec::new())),
            interpreter_args: if is_vector { Vec::new() } else { self.words(AppKey::InterpreterArgs) },
            args: if is_vector { Vec::new() } else { self.words(AppKey::Args) },
            env,
            listen,
            intercept: intercept.unwrap_or(mode == Mode::Cluster),
            kill_signal: self.read(AppKey::KillSignal, value::signal).unwrap_or(libc::SIGINT),
            drain_idle: self.duration(AppKey::DrainIdle).unwrap_or(super::DRAIN_IDLE),
            out_file: self.log_target(AppKey::OutFile, &cwd),
            error_file: self.log_target(AppKey::ErrorFile, &cwd),
            cwd,
        }
    }

    fn log_target(&mut self, id: AppKey, cwd: &Path) -> LogTarget {
        let target = self.read(id, |value| {
            let path = value::path(value)?;
            match path {
                "/dev/null" | "NULL" => Ok(LogTarget::Discard),
                path if path.ends_with('/') => {
                    Err(Refusal::wrong(format!("add the file's name: \"{}out.log\"", printable(path))))
                }
                path => Ok(LogTarget::File(join(cwd, path))),
            }
        });
        target.unwrap_or(LogTarget::Default)
    }

    /// `env`, then `env_<profile>` over it; and the names of all profiles.
    fn environments(
        &mut self,
        profiles: Vec<(String, Entry<'v>)>,
        host: &Host,
    ) -> (BTreeMap<String, String>, BTreeSet<String>) {
        let mut env = match self.section.get(AppKey::Env).cloned() {
            Some(entry) => self.environment(&entry),
            None => BTreeMap::new(),
        };
        let mut names = BTreeSet::new();
        for (name, entry) in profiles {
            let over = self.environment(&entry);
            if host.profile.as_deref() == Some(&name) {
                env.extend(over);
            }
            names.insert(name);
        }
        (env, names)
    }

    fn environment(&mut self, entry: &Entry<'v>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        if entry.written == keys::PROFILE_PREFIX {
            let refusal = Refusal::said("the name of the profile is missing", "write env_production");
            self.refuse(Kind::Environment, entry.written, entry.value, refusal);
        }
        let DeValue::Table(table) = entry.value() else {
            let help = format!("write {} = {{ NAME = \"value\" }}", printable(entry.written));
            self.refuse(Kind::Environment, entry.written, entry.value, Refusal::wrong(help));
            return env;
        };
        if table.len() > words::MAX_WORDS {
            let message = format!("has {} variables; at most {} are taken", table.len(), words::MAX_WORDS);
            let refusal = Refusal::said(message, "put them into a file that the program reads");
            self.refuse(Kind::Environment, entry.written, entry.value, refusal);
            return env;
        }
        for variable in raw::entries(table) {
            match words::variable(variable.written, variable.value()) {
                Ok(text) => {
                    env.insert(variable.written.to_owned(), text);
                }
                Err(refusal) => {
                    let key = format!("{}.{}", entry.written, variable.written);
                    self.refuse(Kind::Environment, &key, variable.value, refusal);
                }
            }
        }
        env
    }

    /// The declared sockets, and where each was written.
    fn listen(&mut self, app: &str) -> (Vec<Listen>, Vec<Range<usize>>) {
        let Some(entry) = self.section.get(AppKey::Listen).cloned() else {
            return (Vec::new(), Vec::new());
        };
        let items: Vec<&'v Spanned<DeValue<'v>>> = match entry.value() {
            DeValue::Array(items) => items.iter().collect(),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => vec![entry.value],
        };
        if items.len() > listen::MAX_PER_APP {
            let message = format!("has {} addresses; at most {} are taken", items.len(), listen::MAX_PER_APP);
            let refusal = Refusal::said(message, "\":3000\" listens on every address of the host");
            self.refuse(Kind::Listen, entry.written, entry.value, refusal);
            return (Vec::new(), Vec::new());
        }
        let (mut sockets, mut places) = (Vec::new(), Vec::new());
        for item in items {
            let Some(socket) = self.socket(entry.written, item, app) else {
                continue;
            };
            if let Some(first) = sockets.iter().find(|known| listen::is_duplicate(known, &socket)) {
                let message = format!("{} is covered by {}", listen::show(&socket), listen::show(first));
                let refusal = Refusal::said(message, "keep one of them");
                self.refuse(Kind::Listen, entry.written, item, refusal);
                continue;
            }
            sockets.push(socket);
            places.push(item.span());
        }
        (sockets, places)
    }

    fn socket(&mut self, key: &str, item: &'v Spanned<DeValue<'v>>, app: &str) -> Option<Listen> {
        let DeValue::Table(table) = item.get_ref() else {
            return match listen::endpoint(item.get_ref()) {
                Ok(listen::Endpoint { ip, port, v6only }) => {
                    let backlog = listen::DEFAULT_BACKLOG;
                    Some(Listen { name: app.to_owned(), ip, port, v6only, backlog })
                }
                Err(refusal) => {
                    self.refuse(Kind::Listen, key, item, refusal);
                    None
                }
            };
        };
        let (mut name, mut backlog, mut address) = (app.to_owned(), listen::DEFAULT_BACKLOG, None);
        for part in raw::entries(table) {
            let path = format!("{key}.{}", part.written);
            let (kind, outcome) = match part.written {
                "name" => (
                    Kind::Listen,
                    match part.value().as_str().filter(|name| listen::is_socket_name(name)) {
                        Some(text) => {
                            name = text.to_owned();
                            Ok(())
                        }
                        None => Err(Refusal::said(
                            format!(
                                "expected 1 to 255 letters, digits, '.', '_' or '-', got {}",
                                value::shown(part.value())
                            ),
                            "this name reaches the worker in LISTEN_FDNAMES",
                        )),
                    },
                ),
                "backlog" => (
                    Kind::Count { min: 1, max: 65535 },
                    value::count(part.value(), 1, 65535).map(|count| backlog = count.cast_signed()),
                ),
                "address" => (
                    Kind::Listen,
                    listen::endpoint(part.value()).map(|endpoint| address = Some(Some(endpoint))),
                ),
                "mode" | "user" | "group" => (
                    Kind::Listen,
                    Err(Refusal::said(
                        "belongs to a Unix socket; this version listens on TCP only",
                        "remove it",
                    )),
                ),
                unknown => {
                    let help = match keys::nearest(unknown, ["name", "address", "backlog"]) {
                        Some(known) => format!("did you mean \"{known}\"?"),
                        None => "known keys are name, address and backlog".to_owned(),
                    };
                    (Kind::Listen, Err(Refusal::said("unknown key", help)))
                }
            };
            if let Err(refusal) = outcome {
                address = address.or((part.written == "address").then_some(None));
                self.refuse(kind, &path, part.value, refusal);
            }
        }
        if address.is_none() {
            let refusal = Refusal::said("the address is missing", "add address = \":3000\"");
            self.refuse(Kind::Listen, key, item, refusal);
        }
        let listen::Endpoint { ip, port, v6only } = address.flatten()?;
        Some(Listen { name, ip, port, v6only, backlog })
    }
}

/// The number of workers: `max` and 0 are one per CPU, a negative number so many fewer, at least one.
fn instances(value: &DeValue<'_>, parallelism: u32) -> Result<u32, Refusal> {
    if value.as_str() == Some("max") {
        return Ok(parallelism.clamp(1, keys::MAX_INSTANCES));
    }
    let limit = i64::from(keys::MAX_INSTANCES);
    let number = value::integer(value).filter(|number| (-limit..=limit).contains(number));
    match number {
        Some(number) if number > 0 => u32::try_from(number).map_err(|_| Refusal::WRONG),
        Some(number) => {
            let count = (i64::from(parallelism) + number).clamp(1, limit);
            u32::try_from(count).map_err(|_| Refusal::WRONG)
        }
        None => Err(match value.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("max" | "auto" | "all") => Refusal::wrong("write \"max\""),
            Some(_) | None => Refusal::WRONG,
        }),
    }
}

fn interpreter(value: &DeValue<'_>) -> Result<Interpreter, Refusal> {
    let text = value::path(value)?;
    if text == "none" {
        return Ok(Interpreter::None);
    }
    let is_bare = !text.contains('/');
    if is_bare && text.contains(char::is_whitespace) {
        return Err(Refusal::said(
            format!("{} holds blanks, so it is not the name of a program", quoted(text)),
            "arguments go into interpreter_args",
        ));
    }
    if is_bare && text.starts_with("node@") {
        return Err(Refusal::said(
            format!("{}: installing a version of Node is known to PM2, not supported here", quoted(text)),
            "write the path of the node to use",
        ));
    }
    Ok(Interpreter::Program(text.to_owned()))
}

/// `path` from `folder` on, without the steps `.`; links and `..` are left for each start.
fn join(folder: &Path, path: &str) -> PathBuf {
    folder.join(path).components().collect()
}

fn check_names(drafts: &[Draft], collector: &mut Collector<'_>) {
    let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
    for draft in drafts.iter().filter(|draft| !draft.app.name.is_empty()) {
        let app = &draft.app;
        let place = collector.place(draft.place.clone());
        if let Some(line) = seen.get(&(app.namespace.as_str(), app.name.as_str())) {
            collector.add(Problem {
                place: Some(place),
                app: Some(app.name.clone()),
                key: Some("name".to_owned()),
                message: format!(
                    "expected a name that is unique in namespace \"{}\", got that of the app in line {line}",
                    app.namespace
                ),
                expected: Some("a unique name".to_owned()),
                help: Some(
                    "choose another name or namespace; for more workers write instances = 2".to_owned(),
                ),
            });
            continue;
        }
        seen.insert((&app.namespace, &app.name), place.line);
    }
}

/// No two apps can serve one address: a client could not tell which it reaches.
fn check_addresses(drafts: &[Draft], collector: &mut Collector<'_>) {
    let all: Vec<(usize, &Listen, &Range<usize>)> = drafts
        .iter()
        .enumerate()
        .flat_map(|(at, draft)| {
            draft.app.spec.listen.iter().zip(&draft.listen_places).map(move |(l, p)| (at, l, p))
        })
        .collect();
    let problem = |place, at: usize, message, help: &str| Problem {
        place: Some(place),
        app: drafts.get(at).map(|draft| draft.app.name.clone()),
        key: Some("listen".to_owned()),
        message,
        expected: None,
        help: Some(help.to_owned()),
    };
    if let Some((at, _, span)) = all.get(MAX_LISTEN) {
        let message = format!("expected at most {MAX_LISTEN} addresses in one file, got {}", all.len());
        let place = collector.place((*span).clone());
        collector.add(problem(place, *at, message, "split the file"));
        return;
    }
    for (later, (at, socket, span)) in all.iter().enumerate() {
        let other =
            all[..later].iter().find(|(other, known, _)| other != at && listen::overlaps(known, socket));
        if let Some((other, known, known_span)) = other {
            let message = format!(
                "{} overlaps with {} of app \"{}\" (line {})",
                listen::show(socket),
                listen::show(known),
                drafts[*other].app.name,
                collector.place((*known_span).clone()).line
            );
            let place = collector.place((*span).clone());
            collector.add(problem(place, *at, message, "give each app its own port"));
        }
    }
}

fn check_profile(drafts: &[Draft], host: &Host, collector: &mut Collector<'_>) {
    let Some(profile) = &host.profile else {
        return;
    };
    let known: BTreeSet<&str> =
        drafts.iter().flat_map(|draft| draft.profiles.iter().map(String::as_str)).collect();
    if known.contains(profile.as_str()) {
        return;
    }
    let help = match (keys::nearest(profile, known.iter().copied()), known.is_empty()) {
        (Some(near), _) => format!("did you mean {near}? The file has {}", listed(&known)),
        (None, false) => format!("the file has {}", listed(&known)),
        (None, true) => "the file has no env_<profile> table at all; leave out --env".to_owned(),
    };
    asked_for_unknown("--env", format!("no app has env_{}", printable(profile)), help, collector);
}

fn check_only(drafts: &[Draft], host: &Host, collector: &mut Collector<'_>) {
    let known: BTreeSet<&str> =
        drafts.iter().map(|draft| draft.app.name.as_str()).filter(|name| !name.is_empty()).collect();
    for name in host.only.iter().filter(|name| !known.contains(name.as_str())) {
        let help = match keys::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}? The file has {}", listed(&known)),
            None => format!("the file has {}", listed(&known)),
        };
        asked_for_unknown("--only", format!("no app is named {}", quoted(name)), help, collector);
    }
}

fn asked_for_unknown(option: &str, message: String, help: String, collector: &mut Collector<'_>) {
    let (key, help) = (Some(option.to_owned()), Some(help));
    collector.add(Problem { place: None, app: None, key, message, expected: None, help });
}

fn listed(names: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| printable(name)).collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    shown.join(", ")
}
