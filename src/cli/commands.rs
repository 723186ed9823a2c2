//! Carries out what the command line says: mode → function.

use std::ffi::OsString;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory;
use serde_json::json;

use super::logs::Printer;
use super::output::{self, Failure, Output, Shape};
use super::sight::Sight;
use super::{Apply, Cli, Logs, Replace, Run, Selection, Start, Validate, Verb};
use super::{behind, complete as completion, file, flags, logs, man, pm2, report, start, startup};
use crate::background::{self, BackgroundError};
use crate::config::changes::Keys;
use crate::config::plan;
use crate::control::client::{self, ANSWER_TIME, ClientError};
use crate::control::protocol::{Done, Error, File, List, Part, Reply, Request};
use crate::daemon;
use crate::home::{Given, Home, HomeError};
use crate::sys::clock::Clock;
use crate::sys::socket;

/// Another supervisor was first: after so long it is looked whether it is still there.
const RACE_TIME: Duration = Duration::from_secs(1);

/// Why a choice is not taken.
const NO_FILE: &str = "--env and --only choose from an ecosystem file; none is named here";

/// Carries out the command; the process exits with what it returns.
pub fn execute(cli: Cli) -> Result<i32, Failure> {
    let given = Caller { home: cli.home, json: cli.json };
    let read = Some(ANSWER_TIME);
    match cli.verb {
        Verb::Run(run) => given.foreground(&run),
        Verb::Daemon => given.background(),
        Verb::Demo { args } => crate::demo::run(&args).map(|()| 0).map_err(Failure::failed),
        Verb::Version => given.version(),
        Verb::Completions { shell } => printed(completion::script(shell)),
        Verb::Man { page } => printed(&man::page(page, &definition())),
        Verb::Complete { words } => complete(&words),
        Verb::Validate(validate) => given.validate(&validate),
        Verb::Import(import) => super::import::import(&import.file, import.run, given.json),
        Verb::Export(export) => super::export::export(&export, given.json),
        Verb::Init { force } => super::init::init(force, given.json),
        Verb::Start(start) => given.start(*start),
        Verb::Stop(end) => {
            let (targets, part) = ended(end.targets, end.profile, end.only)?;
            given.ask(Request::Stop { targets, part, no_wait: end.no_wait }, None)
        }
        Verb::Delete(end) => {
            let (targets, part) = ended(end.targets, end.profile, end.only)?;
            given.ask(Request::Delete { targets, part, no_wait: end.no_wait }, None)
        }
        Verb::Promote(stop) => {
            let targets = meant(stop.targets)?;
            given.ask(Request::Promote { targets, no_wait: stop.no_wait }, None)
        }
        Verb::Rollback(stop) => {
            let targets = meant(stop.targets)?;
            given.ask(Request::Rollback { targets, no_wait: stop.no_wait }, None)
        }
        Verb::Restart(replace) => given.ask(restart(given.settled(replace)?)?, None).map_err(flags::named),
        Verb::Reload(replace) => given.ask(reload(given.settled(replace)?)?, None).map_err(flags::named),
        Verb::StartOrRestart(replace) => given.start_or(replace, restart),
        Verb::StartOrReload(replace) => given.start_or(replace, reload),
        Verb::Apply(apply) => given.apply(apply),
        Verb::Scale(scale) => {
            let request = Request::Scale { target: scale.target, count: scale.count, no_wait: scale.no_wait };
            given.ask(request, None)
        }
        Verb::Send(send) => given.ask(Request::Send { targets: meant(send.targets)?, line: send.line }, read),
        Verb::Signal(sent) => {
            given.ask(Request::Signal { targets: meant(sent.targets)?, signal: sent.signal }, read)
        }
        Verb::List(list) => given.list(list),
        Verb::Report => given.report(),
        Verb::Jlist => printed(&format!("{}\n", given.pm2_list()?)),
        Verb::Prettylist => given.prettylist(),
        Verb::Describe(describe) => {
            let targets = meant(describe.targets)?;
            given.describe(Request::List { targets, connections: true, detail: true })
        }
        Verb::Logs(logs) => given.logs(logs),
        Verb::Monit => super::monit::run(given.home()?, given.json),
        Verb::Pid(pid) => given.ask(Request::Pid { targets: meant(pid.targets)? }, read),
        Verb::Env(env) => given.ask(Request::Environ { targets: meant(env.targets)? }, read),
        Verb::Reset(reset) => given.ask(Request::Reset { targets: meant(reset.targets)? }, read),
        Verb::Flush(flush) => given.ask(Request::Flush { targets: meant(flush.targets)? }, read),
        Verb::ReloadLogs => given.ask(Request::ReloadLogs {}, read),
        Verb::Ping(ping) if ping.ready => given.ask(Request::Ready { targets: ping.targets }, read),
        Verb::Ping(_) => given.ask(Request::Ping {}, read),
        Verb::Kill => given.ask(Request::Kill {}, None),
        Verb::Save { force } => given.ask(Request::Save { force }, None),
        Verb::Resurrect { foreground: true } => given.resurrect_here(),
        Verb::Resurrect { foreground: false } => given.ask_or_spawn(Request::Resurrect {}),
        Verb::ClearDump => given.clear_dump(),
        Verb::Startup(arguments) => {
            startup::startup(&arguments, startup::given_home(given.home.as_deref())?, given.json)
        }
        Verb::Unstartup(arguments) => {
            startup::unstartup(&arguments, startup::given_home(given.home.as_deref())?, given.json)
        }
    }
}

/// Where a temporary home may be, the first that lets us.
fn places(given: &Path) -> [&Path; 4] {
    [given, Path::new("/tmp"), Path::new("/dev/shm"), Path::new("/run")]
}

/// A supervisor in the foreground.
fn here(home: Home) -> daemon::Options {
    let (notes, file, log_files, ready) = (Vec::new(), None, None, None);
    daemon::Options { home, notes, file, resurrect: false, foreground: true, json: false, log_files, ready }
}

/// What holds for every verb.
struct Caller {
    home: Option<PathBuf>,
    json: bool,
}

impl Caller {
    fn home(&self) -> Result<Home, Failure> {
        let usual = self.find_home();
        if self.names_home() || usual.as_ref().is_ok_and(Home::is_heard) {
            return usual.map_err(Failure::usage);
        }
        // A unit of the system has no folder of a login for its socket.
        if let Some(home) = usual.as_ref().ok().and_then(Home::in_state) {
            return Ok(home);
        }
        let given = std::env::temp_dir();
        match Home::temporary_of(socket::own_uid(), &places(&given)) {
            Some(home) => Ok(home),
            None => usual.map_err(Failure::usage),
        }
    }

    /// Whether the caller says where.
    fn names_home(&self) -> bool {
        self.home.is_some() || std::env::var_os("CLUSTERD_HOME").is_some_and(|home| !home.is_empty())
    }

    fn find_home(&self) -> Result<Home, HomeError> {
        let cwd = std::env::current_dir().unwrap_or_else(|_| "/".into());
        let given = Given {
            home: self.home.as_deref(),
            variable: &|name| std::env::var_os(name),
            uid: socket::own_uid(),
            cwd: &cwd,
            is_folder: &Path::is_dir,
        };
        Home::find(&given)
    }

    fn foreground(&self, run: &Run) -> Result<i32, Failure> {
        if !run.file.ends_with(".toml") && file::is_program(Path::new(&run.file)) {
            let word = &run.file;
            return Err(Failure::usage(format_args!(
                "{word}: this is a program and no ecosystem file: `clusterd start {word}`"
            )));
        }
        let file = file::read(&run.file, &run.selection)?;
        let state = file::state_dir(&file)?.filter(|_| !self.names_home());
        let mut log_files = run.no_log_files.then_some(false);
        let (mut temporary, mut notes) = (None, Vec::new());
        let home = match self.usual_home() {
            Ok(home) => home,
            Err(why) => {
                let (home, note) = self.temporary_home(why)?;
                // Who wants no log files misses nothing there; where it lives is told in any case.
                if !run.no_log_files && file::wants_log_files(&file)? {
                    notes.push(note);
                }
                log_files = Some(false);
                temporary = Some(home.runtime.clone());
                home
            }
        };
        let home = match &state {
            Some(folder) => home.with_state(folder, socket::own_uid()).map_err(Failure::failed)?,
            None => home,
        };
        let options = daemon::Options { file: Some(file), notes, json: self.json, log_files, ..here(home) };
        let ended = daemon::run(options).map_err(Failure::failed);
        if let Some(folder) = temporary
            && let Err(error) = std::fs::remove_dir_all(&folder)
        {
            log::warn!("{}: {error}", folder.display());
        }
        ended
    }

    /// A supervisor without a file whose service manager, or terminal, is our own caller.
    fn resurrect_here(&self) -> Result<i32, Failure> {
        let home = self.usual_home().map_err(Failure::failed)?;
        daemon::run(daemon::Options { resurrect: true, json: self.json, ..here(home) })
            .map_err(Failure::failed)
    }

    /// Where none runs there may be something to forget all the same.
    fn clear_dump(&self) -> Result<i32, Failure> {
        let home = self.home()?;
        let answers = match client::ask(&home, Request::Cleardump {}, Some(ANSWER_TIME)) {
            Err(ClientError::NotRunning { .. }) => {
                let any = daemon::clear_dump(&home).map_err(Failure::failed)?;
                let message = if any { daemon::CLEARED } else { daemon::NOTHING_SAVED };
                let done = Done { message: message.to_owned(), apps: Vec::new() };
                self.output(Shape::Table).show(Reply::Done(done))?;
                return Ok(0);
            }
            answers => answers.map_err(Failure::failed)?,
        };
        self.show(answers, Shape::Table)
    }

    fn usual_home(&self) -> Result<Home, HomeError> {
        let mut home = self.find_home()?;
        home.create()?;
        home.check(socket::own_uid())?;
        Ok(home)
    }

    /// In a container nobody may have a home, nor write anywhere but in memory: the foreground runs there, too,
    /// and says where it is found. For a folder that was asked for, or is not safe, no other is taken.
    fn temporary_home(&self, why: HomeError) -> Result<(Home, String), Failure> {
        let failure = |why: HomeError| match why {
            HomeError::Nowhere => Failure::usage(why),
            HomeError::Create { .. } | HomeError::Unsafe { .. } => Failure::failed(why),
        };
        if self.names_home() || matches!(why, HomeError::Unsafe { .. }) {
            return Err(failure(why));
        }
        let given = std::env::temp_dir();
        let Some(home) = Home::temporary(&places(&given)) else { return Err(failure(why)) };
        let folder = home.runtime.display();
        let note = format!("{why}. The supervisor lives in {folder} until it ends, and writes no log files");
        Ok((home, note))
    }

    /// What [`background::start`] runs. Its errors go through the pipe to who waits for it, and to the log.
    fn background(&self) -> Result<i32, Failure> {
        let ready = background::detach().map_err(Failure::failed)?;
        let home = match self.home() {
            Ok(home) => home,
            Err(failure) => {
                ready.failed(failure.text());
                return Err(failure);
            }
        };
        let options = daemon::Options { foreground: false, ready: Some(ready), ..here(home) };
        daemon::run(options).map_err(Failure::failed)
    }

    fn version(&self) -> Result<i32, Failure> {
        let version = env!("CARGO_PKG_VERSION");
        self.output(Shape::Table).facts(&format!("clusterd {version}"), &json!({ "version": version }))?;
        Ok(0)
    }

    fn validate(&self, validate: &Validate) -> Result<i32, Failure> {
        let file = file::read(&validate.file, &validate.selection)?;
        let apps: Vec<String> = file::check(&file)?.into_iter().map(|app| app.name).collect();
        let source = file.path.as_deref().unwrap_or("standard input");
        let words = format!("{source}: valid; apps: {}", apps.join(", "));
        self.output(Shape::Table)
            .facts(&words, &json!({ "valid": true, "file": file.path, "apps": apps }))?;
        Ok(0)
    }

    /// One request after the other; the first that fails is the last.
    fn start(&self, words: Start) -> Result<i32, Failure> {
        for (request, spawns) in start::steps(words, self)? {
            match spawns {
                true => self.ask_or_spawn(request)?,
                false => self.ask(request, None).map_err(flags::named)?,
            };
        }
        Ok(0)
    }

    /// With what stands behind a flag where it belongs.
    fn settled(&self, mut replace: Replace) -> Result<Replace, Failure> {
        let here = file::current_folder()?;
        behind::settle(&mut replace.changed.0, &mut replace.targets, &here, self)?;
        Ok(replace)
    }

    /// A plan alone spawns no supervisor: where none runs, every app is new.
    fn apply(&self, apply: Apply) -> Result<i32, Failure> {
        let Apply { file, selection, dry_run, prune, no_wait } = apply;
        if prune && file == "-" {
            return Err(Failure::usage("--prune needs a file: what came by standard input has no name"));
        }
        let file = file::read(&file, &selection)?;
        let apps = file::check(&file)?;
        let request = Request::Apply { file, dry_run, prune, no_wait };
        if !dry_run {
            return self.ask_or_spawn(request);
        }
        match client::ask(&self.home()?, request, Some(ANSWER_TIME)) {
            Err(ClientError::NotRunning { .. }) => {
                let plan = daemon::told_plan(&plan::plan(&[], &apps, prune), true);
                self.output(Shape::Table).show(Reply::Plan(plan))?;
                Ok(0)
            }
            answers => self.show(answers.map_err(Failure::failed)?, Shape::Table),
        }
    }

    /// PM2's `startOrReload`: what is missing is started, with the supervisor when that is missing too.
    fn start_or(
        &self,
        replace: Replace,
        known: fn(Replace) -> Result<Request, Failure>,
    ) -> Result<i32, Failure> {
        replace.targets.iter().try_for_each(|word| file::refuse_foreign(word))?;
        if !replace.targets.iter().any(|word| file::is_file(word)) {
            return Err(Failure::usage("an ecosystem file is needed here: `clusterd startOrReload FILE`"));
        }
        self.ask_or_spawn(known(replace)?)
    }

    /// A supervisor is started when none runs; another may win that race, and is as good as soon as it listens.
    fn ask_or_spawn(&self, request: Request) -> Result<i32, Failure> {
        let home = self.home()?;
        if let Some(answers) = asked(&home, request.clone()).map_err(Failure::failed)? {
            return self.show(answers, Shape::Table);
        }
        let request = as_start(request);
        let clock = Clock::new();
        loop {
            // Started from a worker it is nobody's worker: it outlives who started it.
            let started = background::start(&home, self.home.as_deref(), &daemon::MARKS);
            let raced = matches!(started, Err(BackgroundError::Taken(_)));
            if raced {
                background::wait_heard(&home, &clock, RACE_TIME);
            }
            let in_time = clock.since_start() < background::READY_TIME;
            match (asked(&home, request.clone()), started) {
                (Ok(Some(answers)), _) => return self.show(answers, Shape::Table),
                // Or it has ended meanwhile.
                (Ok(None) | Err(_), Err(_)) if raced && in_time => {}
                // The one that was started was ended before it heard of this.
                (Ok(None), Ok(())) if in_time => {}
                (_, Err(error)) => return Err(Failure::failed(error)),
                (Ok(None), Ok(())) => return Err(Failure::failed(ClientError::Ended)),
                (Err(error), Ok(())) => return Err(Failure::failed(error)),
            }
        }
    }

    /// The list in PM2's shape. Where there is none, nothing: a script that found an empty one would take it for an
    /// answer, and start everything a second time.
    fn pm2_list(&self) -> Result<serde_json::Value, Failure> {
        let home = self.home()?;
        let sight = Sight::new();
        let (list, details) = detailed(&home)?;
        Ok(pm2::processes(&list, &details, &sight))
    }

    /// As it is also with --json, for which there is `jlist`.
    fn prettylist(&self) -> Result<i32, Failure> {
        let people = Output::new(false, Shape::Table);
        people.facts(&pm2::pretty(&self.pm2_list()?), &json!(null))?;
        Ok(0)
    }

    /// Without a supervisor there is something to report, too: maybe that is the question.
    fn report(&self) -> Result<i32, Failure> {
        let home = self.home()?;
        let answer = detailed(&home).map_err(|failure| match failure {
            Failure::Error(error) => error.message,
            Failure::File { text, .. } => text,
            Failure::ClosedPipe => "it closed the connection".to_owned(),
        });
        let list = answer.as_ref().ok().map(|(list, _)| list.clone());
        let report = report::of(&home, answer);
        self.output(Shape::Table).facts(&report::text(&report, list.as_ref()), &report)?;
        Ok(0)
    }

    fn list(&self, words: super::List) -> Result<i32, Failure> {
        let targets = meant(words.targets)?;
        let request = Request::List { targets, connections: words.connections, detail: false };
        let mut output = self.output(Shape::Table);
        for reply in client::ask(&self.home()?, request, Some(ANSWER_TIME)).map_err(Failure::failed)? {
            let mut reply = reply.map_err(Failure::failed)?;
            if let (Reply::List(list), Some(sort)) = (&mut reply, words.sort) {
                sort.apply(list);
            }
            output.show(reply)?;
        }
        Ok(0)
    }

    fn describe(&self, request: Request) -> Result<i32, Failure> {
        let answers = client::ask(&self.home()?, request, Some(ANSWER_TIME)).map_err(Failure::failed)?;
        self.show(answers, Shape::Blocks)
    }

    fn logs(&self, logs: Logs) -> Result<i32, Failure> {
        let targets = meant(logs.targets.clone())?;
        let printer = Printer::new(&logs, self.json)?;
        let answers = client::ask(&self.home()?, logs::request(&logs, targets), None);
        logs::print(answers.map_err(Failure::failed)?, printer)?;
        Ok(0)
    }

    fn ask(&self, request: Request, limit: Option<Duration>) -> Result<i32, Failure> {
        let answers = client::ask(&self.home()?, request, limit).map_err(Failure::failed)?;
        self.show(answers, Shape::Table)
    }

    fn show(
        &self,
        answers: impl Iterator<Item = Result<Reply, ClientError>>,
        shape: Shape,
    ) -> Result<i32, Failure> {
        let mut output = self.output(shape);
        for reply in answers {
            output.show(reply.map_err(Failure::failed)?)?;
        }
        Ok(0)
    }

    fn output(&self, shape: Shape) -> Output {
        Output::new(self.json, shape)
    }
}

/// None where no supervisor runs, also where one ended before it took the request in: what it ran ended with it.
fn asked(home: &Home, request: Request) -> Result<Option<Peekable<client::Answers>>, ClientError> {
    let mut answers = match client::ask(home, request, None) {
        Err(ClientError::NotRunning { .. }) => return Ok(None),
        answers => answers?.peekable(),
    };
    let has_ended = matches!(answers.peek(), Some(Err(ClientError::Ended))) && !home.is_heard();
    Ok((!has_ended).then_some(answers))
}

impl start::Known for Caller {
    fn has(&self, word: &str) -> Result<bool, Failure> {
        let request = Request::Pid { targets: vec![word.to_owned()] };
        match client::ask(&self.home()?, request, Some(ANSWER_TIME)) {
            Err(ClientError::NotRunning { .. }) => Ok(false),
            Err(error) => Err(Failure::failed(error)),
            Ok(mut answers) => match answers.next() {
                Some(Ok(Reply::Pids { .. })) => Ok(true),
                Some(Ok(_)) | None => Ok(false),
                Some(Err(error)) => Err(Failure::failed(error)),
            },
        }
    }

    fn absence(&self) -> Option<String> {
        let asked = client::ask(&self.home().ok()?, Request::Ping {}, Some(ANSWER_TIME));
        asked
            .err()
            .filter(|error| matches!(error, ClientError::NotRunning { .. }))
            .map(|error| error.to_string())
    }

    fn names(&self) -> Vec<String> {
        let list = self.home().and_then(|home| listed(&home, Vec::new(), false));
        let apps = list.ok().and_then(Result::ok).map_or_else(Vec::new, |list| list.apps);
        let names = apps.iter().map(|app| app.name.clone());
        names.chain(apps.iter().map(|app| app.namespace.clone())).collect()
    }
}

/// A text that is for other programs as it is, with --json too.
fn printed(text: &str) -> Result<i32, Failure> {
    output::raw(text.as_bytes())?;
    Ok(0)
}

/// The whole command line, with what holds for every verb in each of them.
fn definition() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn complete(words: &[OsString]) -> Result<i32, Failure> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let apps = |home: Option<PathBuf>| {
        let caller = Caller { home, json: false };
        let request = Request::List { targets: Vec::new(), connections: false, detail: false };
        match client::ask(&caller.home().ok()?, request, Some(completion::PATIENCE)).ok()?.next()?.ok()? {
            Reply::List(list) => Some(list),
            _ => None,
        }
    };
    printed(&completion::offer(&definition(), &words, &apps).lines())
}

/// The list, then the details of its apps, so many at a time that each answer fits. Shares of CPU time count
/// from one look to the next: those of the first look are taken.
fn detailed(home: &Home) -> Result<(List, pm2::Details), Failure> {
    let list = listed(home, Vec::new(), false)?.map_err(Failure::Error)?;
    let names: Vec<String> = list.apps.iter().map(|app| format!("{}/{}", app.namespace, app.name)).collect();
    let mut details = pm2::Details::new();
    for some in names.chunks(pm2::AT_A_TIME) {
        if let Ok(list) = listed(home, some.to_vec(), true)? {
            pm2::collect(list, &mut details);
            continue;
        }
        // One of them is gone meanwhile.
        for name in some {
            if let Ok(list) = listed(home, vec![name.clone()], true)? {
                pm2::collect(list, &mut details);
            }
        }
    }
    Ok((list, details))
}

/// A list, or what the supervisor has against it.
fn listed(home: &Home, targets: Vec<String>, detail: bool) -> Result<Result<List, Error>, Failure> {
    let request = Request::List { targets, connections: false, detail };
    let mut answers = client::ask(home, request, Some(ANSWER_TIME)).map_err(Failure::failed)?;
    match answers.next() {
        Some(Ok(Reply::List(list))) => Ok(Ok(list)),
        Some(Ok(Reply::Error(error))) => Ok(Err(error)),
        Some(Err(error)) => Err(Failure::failed(error)),
        Some(Ok(_)) | None => Err(Failure::failed("the supervisor answered something else than a list")),
    }
}

/// A new supervisor knows no app: what would reload or restart them starts them.
fn as_start(request: Request) -> Request {
    match request {
        Request::Restart { targets, file, no_wait, .. } | Request::Reload { targets, file, no_wait, .. } => {
            Request::Start { targets, file, update_env: None, changes: Keys::new(), no_wait }
        }
        request @ (Request::Ping {}
        | Request::Ready { .. }
        | Request::List { .. }
        | Request::Start { .. }
        | Request::Launch { .. }
        | Request::Apply { .. }
        | Request::Stop { .. }
        | Request::Scale { .. }
        | Request::Promote { .. }
        | Request::Rollback { .. }
        | Request::Delete { .. }
        | Request::Signal { .. }
        | Request::Save { .. }
        | Request::Cleardump {}
        | Request::Resurrect {}
        | Request::Send { .. }
        | Request::Kill {}
        | Request::Pid { .. }
        | Request::Environ { .. }
        | Request::Reset { .. }
        | Request::Flush { .. }
        | Request::ReloadLogs {}
        | Request::Logs { .. }) => request,
    }
}

fn restart(replace: Replace) -> Result<Request, Failure> {
    let (update_env, no_wait) = (replace.update_env.then(file::environment), replace.no_wait);
    let changes = changes(&replace)?;
    let (file, targets) = split(replace.targets, &replace.selection)?;
    Ok(Request::Restart { targets, file, update_env, changes, no_wait })
}

fn reload(replace: Replace) -> Result<Request, Failure> {
    let (update_env, no_wait) = (replace.update_env.then(file::environment), replace.no_wait);
    let changes = changes(&replace)?;
    let (file, targets) = split(replace.targets, &replace.selection)?;
    Ok(Request::Reload { targets, file, update_env, changes, no_wait })
}

/// What is told of known apps: a file says itself what its apps are.
fn changes(replace: &Replace) -> Result<Keys, Failure> {
    let given = &replace.changed.0;
    if let Some(why) = given.refused() {
        return Err(Failure::usage(why));
    }
    let first = given.first().or_else(|| (!replace.args.is_empty()).then(|| "--".to_owned()));
    match (first, replace.targets.iter().find(|word| file::is_file(word))) {
        (Some(flag), Some(file)) => Err(start::file_says(&flag, file)),
        (Some(_) | None, _) => Ok(given.changes(&replace.args)),
    }
}

/// The file among the words, checked, and the other words.
fn split(words: Vec<String>, selection: &Selection) -> Result<(Option<File>, Vec<String>), Failure> {
    words.iter().try_for_each(|word| file::refuse_foreign(word))?;
    let (files, targets): (Vec<String>, Vec<String>) =
        words.into_iter().partition(|word| file::is_file(word));
    match files.as_slice() {
        [] if selection.profile.is_some() || !selection.only.is_empty() => Err(Failure::usage(NO_FILE)),
        [] => Ok((None, meant(targets)?)),
        [word] => Ok((Some(read_checked(word, selection)?), targets)),
        [_, second, ..] => Err(Failure::usage(format_args!("{second}: one ecosystem file at a time"))),
    }
}

/// Whom `stop` and `delete` mean. The supervisor knows which apps a file has started, and with which profile; of one
/// that is gone or broken, too.
fn ended(
    words: Vec<String>,
    profile: Option<String>,
    only: Vec<String>,
) -> Result<(Vec<String>, Part), Failure> {
    let part = Part { profile, only };
    if !part.is_all() && !words.iter().all(|word| file::is_file(word)) {
        return Err(Failure::usage(NO_FILE));
    }
    let selection = Selection { profile: part.profile.clone(), only: Vec::new() };
    Ok((meant_in(words, &selection)?, part))
}

/// Targets where a file or a script is its absolute path: the supervisor knows which apps come from it, whatever
/// has become of the file. What standard input holds is known by its apps' names alone.
fn meant(words: Vec<String>) -> Result<Vec<String>, Failure> {
    meant_in(words, &Selection::default())
}

fn meant_in(words: Vec<String>, selection: &Selection) -> Result<Vec<String>, Failure> {
    let mut targets = Vec::new();
    for word in words {
        file::refuse_foreign(&word)?;
        match word.as_str() {
            "-" => targets.extend(apps_of_input(selection)?),
            file if file::is_file(file) || file::is_path(file) => targets.push(file::absolute(file)?),
            _ => targets.push(word),
        }
    }
    Ok(targets)
}

/// `namespace/name` of each app in the file on standard input.
fn apps_of_input(selection: &Selection) -> Result<Vec<String>, Failure> {
    let apps = file::check(&file::read("-", selection)?)?;
    // No target at all would mean every app.
    if apps.is_empty() {
        return Err(Failure::usage("-: there is no app in this file"));
    }
    Ok(apps.into_iter().map(|app| format!("{}/{}", app.namespace, app.name)).collect())
}

fn read_checked(word: &str, selection: &Selection) -> Result<File, Failure> {
    let file = file::read(word, selection)?;
    file::check(&file)?;
    Ok(file)
}
