//! One `[[apps]]` table → what the app is: rules that hold within one app.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::changes;
use super::error::{Collector, Problem, printable, quoted};
use super::keys::{self, AppKey, Kind};
use super::raw::{self, Entry, Other};
use super::reader::{Reader, join};
use super::value::{self, Refusal};
use super::{AppConfig, Host, Interpreter, Listen, Program, Spec, health, launch, listen, size, words};
use super::{schedule, sharing, watch};
use crate::supervisor::address::Address;
use crate::supervisor::policy::{Balance, Mode, OnReloadFailure, Policy, Readiness, Schedule, Watch};

/// One app as read, with the places that comparisons between apps need.
pub(super) struct Draft {
    pub(super) app: AppConfig,
    /// Where its name was written, or its table begins.
    pub(super) place: Range<usize>,
    /// Where each of `app.spec.listen` was written.
    pub(super) listen_places: Vec<Range<usize>>,
    /// Where each of `app.policy.depends_on` was written.
    pub(super) depends_places: Vec<Range<usize>>,
    /// Names of its `env_<profile>` tables.
    pub(super) profiles: BTreeSet<String>,
    /// Its name with the profile behind it, where `append_env_to_name` has that.
    pub(super) appended: Option<String>,
}

impl Draft {
    pub(super) fn is_called(&self, namespace: &str, name: &str) -> bool {
        self.app.namespace == namespace && self.appended.as_ref().unwrap_or(&self.app.name) == name
    }
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
    let first = || script.as_array()?.first()?.get_ref().as_str();
    let program = script.as_str().map(str::trim).or_else(first)?;
    Some(Path::new(program).file_stem()?.to_str()?.to_owned())
}

/// Reads one app, the `number`th of the file, whose table begins at `span`, with what was told of it since.
pub(super) fn read_app(
    table: &DeTable<'_>,
    span: Range<usize>,
    (number, told): (usize, Option<&DeTable<'_>>),
    host: &Host,
    collector: &mut Collector<'_>,
) -> Draft {
    let label = label(table, number);
    let mut profiles = Vec::new();
    let mut section = raw::section(table, keys::APP, Some(&label), collector, &mut |entry| {
        if keys::is_pm2_only(entry.written) {
            let help = Some("known to PM2, not supported by this version of clusterd".to_owned());
            return Other::Unknown { help };
        }
        match entry.written.strip_prefix(keys::PROFILE_PREFIX) {
            Some(profile) => {
                profiles.push((profile.to_owned(), entry.clone()));
                Other::Taken
            }
            None => Other::Unknown { help: None },
        }
    });
    if let Some(told) = told {
        changes::lay_over(&mut section, told);
    }
    let place = section.get(AppKey::Name).map_or(span.clone(), |entry| entry.value.span());
    let mut reader = Reader { section, table: keys::APP, app: Some(label), collector };
    let program = reader.program(&span);
    let name = reader.name(program.as_ref());
    let appended = reader.appended(&name, host.profile.as_deref());
    let namespace = reader.read(AppKey::Namespace, |value| value::name(value, "a target").map(str::to_owned));
    let (listen, listen_places) = reader.listen(&name);
    let mut policy = reader.policy(&listen, host);
    let (env, profiles) = reader.environments(profiles, host);
    let spec = reader.spec(program, policy.mode, listen, env, host);
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let (depends_on, depends_places) = reader.depends_on(&namespace).into_iter().unzip();
    policy.depends_on = depends_on;
    for refused in sharing::refused(&policy, &spec, |listen| matches!(listen.address, Address::Unix(_))) {
        reader.conflict(refused.key, refused.why, refused.help);
    }
    let app = AppConfig { name, namespace, policy, spec };
    Draft { app, place, listen_places, depends_places, profiles, appended }
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
        if !entry.value().is_array() {
            return self.script();
        }
        if entry.written == "command" {
            return self.exact(&entry);
        }
        let refusal = Refusal::wrong("an exact argument vector is written command = [\"program\", …]");
        self.refuse(Kind::Script, entry.written, entry.value, refusal);
        None
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

    fn policy(&mut self, listen: &[Listen], host: &Host) -> Policy {
        let defaults = Policy::default();
        let declares_listen = !listen.is_empty();
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
        let max_memory_restart =
            self.read(AppKey::MaxMemoryRestart, |value| size::memory_limit(value, host.memory));
        let max_age = self.duration(AppKey::MaxAge);
        let cron_restart = self.schedule();
        let watch = self.watch();
        let asked = health::Asked { mode, listen, opens: self.opens(mode) };
        let ready = self.readiness(asked);
        let (balance, canary) = (self.balance(mode), self.canary(mode));
        let mut time = |id, default| self.duration(id).unwrap_or(default);
        Policy {
            max_memory_restart,
            max_age,
            cron_restart,
            watch,
            poll_interval: defaults.poll_interval,
            instances: instances.unwrap_or(defaults.instances),
            mode,
            declares_listen,
            on_reload_failure,
            balance,
            canary,
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
            ready,
            health: self.health(asked),
            watchdog: self.duration(AppKey::Watchdog),
            hang_timeout: self.duration(AppKey::HangTimeout),
            autorestart: self.flag(AppKey::Autorestart).unwrap_or(defaults.autorestart),
            stop_exit_codes: self.exit_codes(AppKey::StopExitCodes),
            autostart: self.flag(AppKey::Autostart).unwrap_or(defaults.autostart),
            essential: self.flag(AppKey::Essential).unwrap_or(defaults.essential),
            depends_on: Vec::new(),
        }
    }

    fn balance(&mut self, mode: Mode) -> Balance {
        let balance = match self.choice(AppKey::Balance) {
            Some("source-ip") => Balance::SourceIp,
            Some(_) | None => Balance::Spread,
        };
        if balance == Balance::SourceIp {
            self.needs_cluster(AppKey::Balance, mode);
        }
        balance
    }

    /// `cron_restart` with `timezone`.
    fn schedule(&mut self) -> Option<Schedule> {
        let zone = self.read(AppKey::Timezone, schedule::zone);
        let pattern = self.read(AppKey::CronRestart, schedule::pattern);
        if zone.is_some() && self.section.get(AppKey::CronRestart).is_none() {
            self.conflict(
                AppKey::Timezone,
                "is the time zone of cron_restart, and there is none",
                "write when, such as cron_restart = \"30 4 * * *\", or leave timezone out",
            );
        }
        Some(Schedule { pattern: pattern?, zone })
    }

    /// `watch` with `ignore_watch` and `watch_delay`, which may stand by for a day on which `watch` is true again.
    fn watch(&mut self) -> Option<Watch> {
        let paths = self.read(AppKey::Watch, watch::paths).flatten();
        let ignore = self.read(AppKey::IgnoreWatch, watch::patterns).unwrap_or_default();
        let delay = self.duration(AppKey::WatchDelay).unwrap_or(watch::DELAY);
        paths.map(|paths| Watch { paths, ignore, delay })
    }

    fn canary(&mut self, mode: Mode) -> Option<u8> {
        let canary = self.read(AppKey::Canary, value::percent);
        if canary.is_some() {
            self.needs_cluster(AppKey::Canary, mode);
        }
        canary
    }

    /// `ready`, and `wait_ready`, which is PM2's way to say that only the worker's word counts.
    fn readiness(&mut self, asked: health::Asked<'_>) -> Readiness {
        let waits = self.flag(AppKey::WaitReady).unwrap_or(false);
        let ready = self.ready(asked);
        let seen = matches!(ready, Readiness::Listen | Readiness::Http(_));
        if seen && asked.mode == Mode::Fork && asked.listen.is_empty() {
            self.conflict(
                AppKey::Ready,
                "in fork mode nobody sees a server listen on a port that it opens itself",
                "declare the port in listen, or write exec_mode = \"cluster\"",
            );
        }
        match ready {
            Readiness::Auto if waits => Readiness::Word,
            Readiness::Listen | Readiness::Exec | Readiness::Http(_) if waits => {
                self.conflict(
                    AppKey::WaitReady,
                    "means that only the worker's own word counts, and ready says otherwise",
                    "keep one of them",
                );
                ready
            }
            Readiness::Auto
            | Readiness::Word
            | Readiness::Notify
            | Readiness::Ipc
            | Readiness::Listen
            | Readiness::Exec
            | Readiness::Http(_) => ready,
        }
    }

    /// Whether sockets that its workers open by themselves are shared; what is wrong with the key is said elsewhere.
    fn opens(&self, mode: Mode) -> bool {
        let intercept = self.section.get(AppKey::Intercept).and_then(|entry| value::flag(entry.value()).ok());
        intercept.unwrap_or(mode == Mode::Cluster)
    }

    /// Refuses a key that means nothing in fork mode.
    fn needs_cluster(&mut self, id: AppKey, mode: Mode) {
        if mode == Mode::Fork {
            self.conflict(
                id,
                "only cluster mode shares ports, and this app is in fork mode",
                "remove it, or write exec_mode = \"cluster\"",
            );
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
        if intercept == Some(true) {
            self.needs_cluster(AppKey::Intercept, mode);
        }
        Spec {
            program: program.unwrap_or(Program::Exact(Vec::new())),
            interpreter_args: if is_vector { Vec::new() } else { self.words(AppKey::InterpreterArgs) },
            args: if is_vector { Vec::new() } else { self.words(AppKey::Args) },
            env,
            listen,
            intercept: self.opens(mode),
            ready_path: self.ready_path(),
            check: self.check(),
            shutdown_with_message: self.flag(AppKey::ShutdownWithMessage).unwrap_or(false),
            treekill: self.flag(AppKey::Treekill).unwrap_or(true),
            kill_signal: self.read(AppKey::KillSignal, value::signal).unwrap_or(libc::SIGINT),
            drain_idle: self.duration(AppKey::DrainIdle).unwrap_or(super::DRAIN_IDLE),
            out_file: self.log_target(AppKey::OutFile, &cwd),
            error_file: self.log_target(AppKey::ErrorFile, &cwd),
            logs: self.log_settings(&cwd),
            process: self.process_settings(&cwd),
            cwd,
        }
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
        let items: Vec<&'v Spanned<DeValue<'v>>> = match entry.value().as_array() {
            Some(items) => items.iter().collect(),
            None => vec![entry.value],
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
            let named = |known: &&Listen| known.name == socket.name && socket.name != app;
            if sockets.iter().any(|known| named(&known)) {
                let message = format!("two sockets have the name {}", quoted(&socket.name));
                let help = "the worker tells them apart by it (LISTEN_FDNAMES)";
                self.refuse(Kind::Listen, entry.written, item, Refusal::said(message, help));
                continue;
            }
            sockets.push(socket);
            places.push(item.span());
        }
        (sockets, places)
    }

    fn socket(&mut self, key: &str, item: &'v Spanned<DeValue<'v>>, app: &str) -> Option<Listen> {
        let mut socket = listen::Parts::new(app);
        let Some(table) = item.get_ref().as_table() else {
            if let Err(refusal) = socket.set("address", item.get_ref()) {
                self.refuse(Kind::Listen, key, item, refusal);
            }
            return socket.finish().ok().flatten();
        };
        for part in raw::entries(table) {
            if let Err(refusal) = socket.set(part.written, part.value()) {
                let kind = match part.written {
                    "backlog" => listen::BACKLOG,
                    _ => Kind::Listen,
                };
                self.refuse(kind, &format!("{key}.{}", part.written), part.value, refusal);
            }
        }
        if !table.contains_key("address") {
            let refusal = Refusal::said("the address is missing", "add address = \":3000\"");
            self.refuse(Kind::Listen, key, item, refusal);
        }
        socket.finish().unwrap_or_else(|refusal| {
            self.refuse(Kind::Listen, key, item, refusal);
            None
        })
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
