//! The flags that make an app without a file, or change a known one: one table, flag → key of the ecosystem file. What
//! they say becomes text of such a file, so that the same checks, defaults and sentences hold as for one that was
//! written.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml_writer::ToTomlValue;

use super::behind::Behind;
use super::output::Failure;
use crate::config::Diagnostics;
use crate::config::changes::Keys;
use crate::config::glob;
use crate::config::keys::{self, AppKey, Kind};

/// The value by which PM2 takes a setting back.
const NONE: &str = "null";

/// One flag.
#[derive(Debug)]
struct Flag {
    long: &'static str,
    short: Option<char>,
    aliases: &'static [&'static str],
    /// What stands for its value in the help; none for a switch.
    value: Option<&'static str>,
    /// What it means without a value, which else stands behind `=`: a word that follows is a target.
    alone: Option<&'static str>,
    does: Does,
    help: &'static str,
}

/// What a flag is for.
#[derive(Debug)]
enum Does {
    /// It sets this key. A switch that begins with `no-` sets it to false.
    Sets(AppKey),
    /// PM2 has it, and nothing here takes it: why, and what to do.
    Lacks(&'static str),
}

const fn sets(long: &'static str, value: &'static str, key: AppKey, help: &'static str) -> Flag {
    Flag { long, short: None, aliases: &[], value: Some(value), alone: None, does: Does::Sets(key), help }
}

const fn switch(long: &'static str, key: AppKey, help: &'static str) -> Flag {
    Flag { long, short: None, aliases: &[], value: None, alone: None, does: Does::Sets(key), help }
}

const fn lacks(long: &'static str, value: Option<&'static str>, why: &'static str) -> Flag {
    Flag { long, short: None, aliases: &[], value, alone: None, does: Does::Lacks(why), help: "" }
}

impl Flag {
    const fn short(self, short: char) -> Flag {
        Flag { short: Some(short), ..self }
    }

    const fn alone(self, value: &'static str) -> Flag {
        Flag { alone: Some(value), ..self }
    }

    const fn also(self, aliases: &'static [&'static str]) -> Flag {
        Flag { aliases, ..self }
    }
}

/// Every flag, by the heading under which the help shows it. A key that is new is one line here.
const GROUPS: &[(&str, &[Flag])] = &[
    (
        "The app",
        &[
            sets("name", "NAME", AppKey::Name, "What it is called [the script's stem]").short('n'),
            sets("namespace", "NAME", AppKey::Namespace, "A label that works as a target"),
            sets("instances", "N|max", AppKey::Instances, "Workers on shared ports; max: one per CPU")
                .short('i'),
            sets("listen", "ADDRESS", AppKey::Listen, "Opens it for the workers: :3000"),
            sets("cwd", "DIR", AppKey::Cwd, "Working directory [this one]"),
            sets("interpreter", "PROGRAM", AppKey::Interpreter, "What runs the script; none: itself"),
            sets("interpreter-args", "ARGS", AppKey::InterpreterArgs, "Its arguments, before the script")
                .also(&["node-args"]),
            sets("uid", "USER", AppKey::User, "As this user, by name or number").also(&["user"]),
            sets("gid", "GROUP", AppKey::Group, "As this group").also(&["group"]),
            switch("no-autostart", AppKey::Autostart, "Makes it known and leaves it stopped"),
        ],
    ),
    (
        "Its environment, which is yours",
        &[
            sets("env-file", "FILE", AppKey::EnvFile, "Variables from NAME=value lines"),
            sets("filter-env", "A,B", AppKey::FilterEnv, "Drops variables of yours; true: all"),
            sets("instance-var", "NAME", AppKey::InstanceVar, "Holds 0, 1, … [NODE_APP_INSTANCE]"),
            sets("increment-var", "NAME", AppKey::IncrementVar, "A number, one more per instance"),
        ],
    ),
    (
        "Ready, and stop",
        &[
            switch("wait-ready", AppKey::WaitReady, "Only READY=1 or IPC's 'ready' counts"),
            sets("listen-timeout", "TIME", AppKey::ListenTimeout, "Until it must be ready [30s]"),
            sets("kill-signal", "SIGNAL", AppKey::KillSignal, "Asks it to stop [SIGINT]"),
            sets("kill-timeout", "TIME", AppKey::KillTimeout, "From then until it is killed [1600]")
                .short('k'),
            switch("shutdown-with-message", AppKey::ShutdownWithMessage, "Asks by Node's channel instead"),
            switch("no-treekill", AppKey::Treekill, "What it started stays when it ends"),
        ],
    ),
    (
        "Restarts",
        &[
            sets("max-memory-restart", "SIZE", AppKey::MaxMemoryRestart, "Replaces a worker above this"),
            sets("cron-restart", "PATTERN", AppKey::CronRestart, "Replaces all when \"0 4 * * *\" is true")
                .short('c')
                .also(&["cron"]),
            switch("no-autorestart", AppKey::Autorestart, "Who ends stays ended"),
            sets("stop-exit-codes", "N,N", AppKey::StopExitCodes, "Who ends with these does, too"),
            sets("max-restarts", "N", AppKey::MaxRestarts, "Short lives until given up [16]"),
            sets("min-uptime", "TIME", AppKey::MinUptime, "A life below this is short [1s]"),
            sets("restart-delay", "TIME", AppKey::RestartDelay, "Least wait before a restart [0]"),
            sets(
                "exp-backoff-restart-delay",
                "TIME",
                AppKey::ExpBackoffRestartDelay,
                "First wait, growing [100]",
            ),
        ],
    ),
    (
        "Output",
        &[
            sets("output", "FILE", AppKey::OutFile, "Standard output; /dev/null discards").short('o'),
            sets("error", "FILE", AppKey::ErrorFile, "Standard error").short('e'),
            sets("log", "FILE", AppKey::LogFile, "One more file, with both").short('l'),
            switch("merge-logs", AppKey::MergeLogs, "All workers write to the same files"),
            sets("log-type", "raw|json", AppKey::LogType, "json: one object for each line [raw]"),
            sets(
                "log-date-format",
                "FORMAT",
                AppKey::LogDateFormat,
                "The date before each line: \"HH:mm:ss\"",
            ),
            switch("time", AppKey::Time, "The same as YYYY-MM-DDTHH:mm:ss"),
            switch("disable-logs", AppKey::DisableLogs, "No log files"),
            sets("pid", "FILE", AppKey::PidFile, "The process id").short('p'),
        ],
    ),
    (
        "When files change",
        &[
            sets("watch", "A,B", AppKey::Watch, "Replaces all when one below these changes [.]")
                .short('w')
                .alone("true"),
            sets("ignore-watch", "A,B", AppKey::IgnoreWatch, "But for these, as in .gitignore"),
            sets("watch-delay", "TIME", AppKey::WatchDelay, "Once all are at rest for so long [200ms]"),
        ],
    ),
    (
        "Of PM2, not here",
        &[
            lacks("no-daemon", None, "write an ecosystem file: `clusterd FILE` stays in the foreground"),
            lacks("attach", None, "follow the output with `clusterd logs NAME`"),
            lacks(
                "parallel",
                Some("N"),
                "max_surge in an ecosystem file says how many a reload replaces at a time",
            ),
            lacks("no-pmx", None, "nothing is put into your program here; leave it out"),
            lacks("no-vizion", None, "no version control is looked at here; leave it out"),
            lacks("source-map-support", None, "write --node-args=--enable-source-maps"),
        ],
    ),
];

fn table() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|(_, flags)| flags.iter())
}

/// What was given of them, in the order of the table.
#[derive(Debug, Default)]
pub struct Flags {
    given: Vec<(&'static Flag, Vec<String>)>,
    /// What stands behind some of them, and may be theirs.
    pub(super) behind: Behind,
}

impl Flag {
    fn kind(&self) -> Option<Kind> {
        match self.does {
            Does::Sets(key) => Some(keys::row(keys::APP, key).kind),
            Does::Lacks(_) => None,
        }
    }

    fn takes_several(&self) -> bool {
        matches!(
            self.kind(),
            Some(
                Kind::ExitCodes | Kind::Listen | Kind::EnvFiles | Kind::Filter | Kind::Watch | Kind::Patterns
            )
        )
    }

    /// As it changes a known app: not in the help, and a switch takes `=false`.
    fn arg_of_change(&self) -> Arg {
        let arg = self.arg("").hide(true);
        if self.value.is_some() || matches!(self.does, Does::Lacks(_)) {
            return arg;
        }
        let arg = arg.action(ArgAction::Set).num_args(0..=1).require_equals(true);
        arg.default_missing_value("true").value_parser(["true", "false", NONE])
    }

    fn arg(&self, heading: &'static str) -> Arg {
        let arg = Arg::new(self.long)
            .long(self.long)
            .short(self.short)
            .aliases(self.aliases)
            .help(self.help)
            .help_heading(heading)
            .hide(matches!(self.does, Does::Lacks(_)));
        let Some(name) = self.value else { return arg.action(ArgAction::SetTrue) };
        let dashed = matches!(self.kind(), Some(Kind::Words));
        let arg = arg.value_name(name).allow_hyphen_values(dashed).allow_negative_numbers(!dashed);
        let arg = match self.alone {
            Some(value) => arg.num_args(0..=1).require_equals(true).default_missing_value(value),
            None => arg,
        };
        match self.takes_several() {
            true => arg.action(ArgAction::Append).value_delimiter(','),
            false => arg.action(ArgAction::Set),
        }
    }

    /// What was given of it; none when it was not.
    fn values(&self, matches: &ArgMatches) -> Option<Vec<String>> {
        if let Ok(values) = matches.try_get_many::<String>(self.long) {
            return Some(values?.cloned().collect());
        }
        matches.get_flag(self.long).then(Vec::new)
    }

    /// PM2 takes a setting back so.
    fn takes_back(&self, values: &[String]) -> bool {
        match self.does {
            Does::Sets(AppKey::Name | AppKey::Namespace) | Does::Lacks(_) => false,
            Does::Sets(AppKey::CronRestart) if values == ["0"] => true,
            Does::Sets(_) => values == [NONE],
        }
    }

    /// Its value as TOML.
    fn literal(&self, kind: Kind, values: &[String]) -> String {
        let first = values.first().map_or("", String::as_str);
        if kind == Kind::Flag {
            return (self.long.starts_with("no-") == (first == "false")).to_string();
        }
        let is_truth = matches!(first, "true" | "false");
        if is_truth && values.len() == 1 && matches!(kind, Kind::Filter | Kind::Watch | Kind::JointLog) {
            return first.to_owned();
        }
        let one = |value: &str| match value {
            "true" if kind == Kind::Watch => string("."),
            value if is_number(kind) => number(value),
            value => string(value),
        };
        if self.takes_several() {
            // PM2 splits the patterns of one text.
            let is_end = |c: char| kind == Kind::Patterns && c.is_whitespace();
            let values = match matches!(kind, Kind::Watch | Kind::Patterns) {
                true => glob::rejoined(values.iter().map(String::as_str)),
                false => values.to_vec(),
            };
            let values = values.iter().flat_map(|value| value.split(is_end));
            let values = values.filter(|value| kind != Kind::Patterns || !value.is_empty());
            return format!("[{}]", values.map(one).collect::<Vec<_>>().join(", "));
        }
        one(first)
    }
}

/// PM2 takes seconds here, while its files and all else here take milliseconds.
fn of_two_units(flag: &Flag, value: &str) -> Option<String> {
    let is_bare = value.bytes().all(|byte| byte.is_ascii_digit());
    is_bare.then(|| {
        format!(
            "--{}: {value} would be seconds in PM2 and milliseconds in a file; write {value}s or {value}ms",
            flag.long
        )
    })
}

/// Where digits alone are a number, as milliseconds and bytes are. Names and paths stay what they are.
fn is_number(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Duration { .. }
            | Kind::Count { .. }
            | Kind::Whole { .. }
            | Kind::Memory
            | Kind::Bytes
            | Kind::Instances
            | Kind::Signal
            | Kind::ExitCodes
    )
}

fn number(text: &str) -> String {
    text.parse::<i64>().map_or_else(|_| string(text), |number| number.to_string())
}

/// In double quotes, on one line, whatever is in it.
fn string(text: &str) -> String {
    toml_writer::TomlStringBuilder::new(text).as_basic().to_toml_value()
}

/// The app to make.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// What `script` is to be.
    pub(super) script: String,
    /// The name, where none can be made of the script.
    pub(super) name: Option<String>,
    /// The interpreter, where the script's name would be taken for a line of the shell.
    pub(super) interpreter: Option<&'static str>,
    /// After the script.
    pub(super) args: &'a [String],
}

impl Flags {
    /// What was given to this key, as it was written.
    pub(super) fn value(&self, key: AppKey) -> Option<&str> {
        let sets = |flag: &Flag| matches!(flag.does, Does::Sets(set) if set == key);
        let (_, values) = self.given.iter().find(|(flag, _)| sets(flag))?;
        Some(values.first().map_or("", String::as_str))
    }

    /// Gives the flag of this key, which was given, more values.
    pub(super) fn add(&mut self, key: AppKey, more: impl Iterator<Item = String>) {
        if let Some(values) = self.values_of(key) {
            values.extend(more);
        }
    }

    /// Puts others in the place of the first value of the flag of this key that is `old`.
    pub(super) fn replace(&mut self, key: AppKey, old: &str, new: Vec<String>) {
        if let Some(values) = self.values_of(key)
            && let Some(place) = values.iter().position(|value| value == old)
        {
            values.splice(place..=place, new);
        }
    }

    fn values_of(&mut self, key: AppKey) -> Option<&mut Vec<String>> {
        let sets = |flag: &Flag| matches!(flag.does, Does::Sets(set) if set == key);
        self.given.iter_mut().find(|(flag, _)| sets(flag)).map(|(_, values)| values)
    }

    /// Why the first of them that nothing takes is not taken.
    pub(super) fn refused(&self) -> Option<String> {
        self.given.iter().find_map(|(flag, values)| match flag.does {
            Does::Lacks(why) => Some(format!("--{}: {why}", flag.long)),
            Does::Sets(AppKey::WatchDelay) => of_two_units(flag, values.first()?),
            Does::Sets(_) => None,
        })
    }

    /// The first that was given, as it is called.
    pub(super) fn first(&self) -> Option<String> {
        self.given.first().map(|(flag, _)| format!("--{}", flag.long))
    }

    /// The text of the file with this app alone.
    pub(super) fn file_of(&self, program: &Program<'_>) -> String {
        let mut text = format!("[[apps]]\nscript = {}\n", string(&program.script));
        let mut line = |key: AppKey, value: String| {
            text.push_str(&format!("{} = {value}\n", keys::row(keys::APP, key).name));
        };
        if let Some(name) = program.name.as_deref().filter(|_| self.value(AppKey::Name).is_none()) {
            line(AppKey::Name, string(name));
        }
        if let Some(interpreter) = program.interpreter.filter(|_| self.value(AppKey::Interpreter).is_none()) {
            line(AppKey::Interpreter, string(interpreter));
        }
        if !program.args.is_empty() {
            let args: Vec<String> = program.args.iter().map(|word| string(word)).collect();
            line(AppKey::Args, format!("[{}]", args.join(", ")));
        }
        for (flag, values) in self.given.iter().filter(|(flag, values)| !flag.takes_back(values)) {
            if let (Does::Sets(key), Some(kind)) = (&flag.does, flag.kind()) {
                line(*key, flag.literal(kind, values));
            }
        }
        text
    }

    /// What they say of an app that is known, with these as its new arguments.
    pub(super) fn changes(&self, args: &[String]) -> Keys {
        let name = |key: AppKey| keys::row(keys::APP, key).name.to_owned();
        let mut changes = Keys::new();
        if !args.is_empty() {
            let args: Vec<String> = args.iter().map(|word| string(word)).collect();
            changes.insert(name(AppKey::Args), Some(format!("[{}]", args.join(", "))));
        }
        for (flag, values) in &self.given {
            if let (Does::Sets(key), Some(kind)) = (&flag.does, flag.kind()) {
                let value = (!flag.takes_back(values)).then(|| flag.literal(kind, values));
                changes.insert(name(*key), value);
            }
        }
        changes
    }
}

/// The mistakes of a file that was made here, with flags in place of lines and keys.
pub(super) fn blamed(word: &str, problems: &Diagnostics) -> Failure {
    let lines = problems.problems.iter().map(|problem| {
        let key = problem.key.as_deref().unwrap_or_default();
        let what = flag_of(key).map_or_else(|| word.to_owned(), |flag| format!("--{}", flag.long));
        let help = problem.help.as_ref().map_or_else(String::new, |help| format!("; {}", with_flags(help)));
        format!("{what}: {}{help}", problem.message)
    });
    Failure::usage(lines.collect::<Vec<_>>().join("\n"))
}

fn flag_of(key: &str) -> Option<&'static Flag> {
    let key = keys::find(keys::APP, key)?.id;
    table().find(|flag| matches!(flag.does, Does::Sets(set) if set == key))
}

/// What the supervisor says of keys that were told by flags: each line that begins with a key, with its flag.
pub(super) fn named(failure: Failure) -> Failure {
    let Failure::Error(mut error) = failure else { return failure };
    let line = |line: &str| match line.split_once(": ").and_then(|(key, rest)| Some((flag_of(key)?, rest))) {
        Some((flag, rest)) => format!("--{}: {}", flag.long, with_flags(rest)),
        None => line.to_owned(),
    };
    error.message = error.message.lines().map(line).collect::<Vec<_>>().join("\n");
    Failure::Error(error)
}

/// Advice that shows a line of a file shows the flag.
fn with_flags(help: &str) -> String {
    let words: Vec<&str> = help.split(' ').collect();
    let mut shown: Vec<String> = Vec::new();
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next() {
        let flag = flag_of(word).filter(|_| rest.peek() == Some(&&"="));
        match flag {
            Some(flag) => {
                rest.next();
                shown.push(format!("--{}", flag.long));
            }
            None => shown.push((*word).to_owned()),
        }
    }
    shown.join(" ")
}

/// The same flags, of an app that is known already.
#[derive(Debug, Default)]
pub struct Changed(pub(super) Flags);

impl Args for Changed {
    fn augment_args(command: Command) -> Command {
        command.args(table().map(Flag::arg_of_change))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Changed::augment_args(command)
    }
}

impl FromArgMatches for Changed {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Changed, clap::Error> {
        Flags::from_arg_matches(matches).map(Changed)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let args = GROUPS.iter().flat_map(|(heading, flags)| flags.iter().map(|flag| flag.arg(heading)));
        command.args(args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let mut flags = Flags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in table() {
            let Some(values) = flag.values(matches) else { continue };
            self.given.push((flag, values));
        }
        self.behind = Behind::of(matches);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Host};
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn parsed(words: &[&str]) -> Result<Flags, clap::Error> {
        let command = Flags::augment_args(Command::new("start").no_binary_name(true));
        Flags::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    fn program(script: &str) -> Program<'_> {
        Program { script: script.to_owned(), name: None, interpreter: None, args: &[] }
    }

    fn host() -> Host {
        Host { parallelism: 4, memory: None, folder: PathBuf::from("/srv"), profile: None, only: Vec::new() }
    }

    fn lines(words: &[&str]) -> Vec<String> {
        let text = parsed(words).expect("flags").file_of(&program("a.js"));
        text.lines().skip(2).map(str::to_owned).collect()
    }

    #[test]
    fn a_flag_is_the_line_of_a_file() {
        for (words, line) in [
            (&["-i", "max"][..], "instances = \"max\""),
            (&["-i", "-1"], "instances = -1"),
            (&["--name", "7up"], "name = \"7up\""),
            (&["--kill-timeout", "3000"], "kill_timeout = 3000"),
            (&["-k", "3s"], "kill_timeout = \"3s\""),
            (&["--max-memory-restart", "300M"], "max_memory_restart = \"300M\""),
            (&["--node-args", "--inspect=0 -r x"], "interpreter_args = \"--inspect=0 -r x\""),
            (&["--stop-exit-codes", "0,42"], "stop_exit_codes = [0, 42]"),
            (&["--stop-exit-codes", "x"], "stop_exit_codes = [\"x\"]"),
            (&["--listen", ":80", "--listen", "[::1]:81"], "listen = [\":80\", \"[::1]:81\"]"),
            (&["--filter-env", "AWS"], "filter_env = [\"AWS\"]"),
            (&["--filter-env", "AWS,PG"], "filter_env = [\"AWS\", \"PG\"]"),
            (&["--filter-env", "true"], "filter_env = true"),
            (&["--no-autorestart"], "autorestart = false"),
            (&["--wait-ready"], "wait_ready = true"),
            (&["--uid", "1000"], "user = \"1000\""),
            (&["-o", "/dev/null"], "out_file = \"/dev/null\""),
            (&["-l", "all.log"], "log_file = \"all.log\""),
            (&["--log", "true"], "log_file = true"),
            (&["--watch"], "watch = true"),
            (&["-w"], "watch = true"),
            (&["--watch=false"], "watch = false"),
            (&["--watch=src,lib", "--watch=a b"], "watch = [\"src\", \"lib\", \"a b\"]"),
            (&["--watch=src/*.{js,ts},lib"], "watch = [\"src/*.{js,ts}\", \"lib\"]"),
            (&["--watch", "--watch=../shared"], "watch = [\".\", \"../shared\"]"),
            (&["--ignore-watch", "*.{log,map},tmp/"], "ignore_watch = [\"*.{log,map}\", \"tmp/\"]"),
            (&["--ignore-watch", "*.log tmp/,!keep"], "ignore_watch = [\"*.log\", \"tmp/\", \"!keep\"]"),
            (&["--watch-delay", "4000ms"], "watch_delay = \"4000ms\""),
            (&["--time"], "time = true"),
        ] {
            assert_eq!(lines(words), [line], "{words:?}");
        }
    }

    #[test]
    fn a_flag_changes_a_key_of_a_known_app_or_takes_it_back() {
        let changes = |words: &[&str], args: &[String]| {
            let command = Changed::augment_args(Command::new("restart").no_binary_name(true));
            let matches = command.try_get_matches_from(words).expect("flags");
            let changes = Changed::from_arg_matches(&matches).expect("flags").0.changes(args);
            let line =
                |(key, value): (String, Option<String>)| format!("{key} {}", value.as_deref().unwrap_or("-"));
            changes.into_iter().map(line).collect::<Vec<_>>()
        };
        for (words, line) in [
            (&["--max-memory-restart", "300M"][..], "max_memory_restart \"300M\""),
            (&["--node-args=null"], "interpreter_args -"),
            (&["--cron-restart", "0"], "cron_restart -"),
            (&["--name", "null"], "name \"null\""),
            (&["--watch"], "watch true"),
            (&["--watch=false"], "watch false"),
            (&["--no-autorestart"], "autorestart false"),
            (&["--no-autorestart=false"], "autorestart true"),
            (&["--time=null"], "time -"),
            (&["--time=false"], "time false"),
        ] {
            assert_eq!(changes(words, &[]), [line], "{words:?}");
        }
        assert_eq!(changes(&[], &["--port".to_owned(), "x y".to_owned()]), ["args [\"--port\", \"x y\"]"]);
        assert!(
            lines(&["--node-args=null", "-c", "0"]).is_empty(),
            "of a new app nothing is to be taken back"
        );
    }

    #[test]
    fn mistakes_name_the_flag_and_no_line() {
        let flags = parsed(&["--kill-timeout", "soon", "--interpreter-args", "-x"]).expect("flags");
        let text = flags.file_of(&program("./server"));
        let problems = config::load(&text, "start", &host()).expect_err("two mistakes");
        let Failure::Error(error) = blamed("./server", &problems) else { panic!() };
        assert_eq!(error.code, 2);
        let lines: Vec<&str> = error.message.lines().collect();
        assert!(lines[0].starts_with("--interpreter-args: has no effect"), "{lines:?}");
        assert!(lines[0].ends_with("write --interpreter \"…\" too, or use args"), "{lines:?}");
        assert!(lines[1].starts_with("--kill-timeout: expected a time"), "{lines:?}");
    }

    #[test]
    fn a_word_behind_a_flag_that_can_be_alone_is_no_value_of_it() {
        let command =
            Flags::augment_args(Command::new("start").no_binary_name(true).arg(Arg::new("targets")));
        let matches = command.try_get_matches_from(["--watch", "server.js"]).expect("both are known");
        assert_eq!(matches.get_one::<String>("targets").map(String::as_str), Some("server.js"));
        assert_eq!(Flags::from_arg_matches(&matches).expect("flags").value(AppKey::Watch), Some("true"));
    }

    #[test]
    fn a_bare_number_of_two_meanings_is_refused() {
        let why = parsed(&["--watch-delay", "4"]).expect("known").refused().expect("refused");
        assert!(why.ends_with("write 4s or 4ms"), "{why}");
        assert_eq!(parsed(&["--watch-delay", "4s"]).expect("known").refused(), None);
    }

    #[test]
    fn advice_names_whole_keys() {
        assert_eq!(with_flags("write watch = true, or time"), "write --watch true, or time");
        assert_eq!(with_flags("ignore_watch = \"x\""), "--ignore-watch \"x\"");
        assert_eq!(with_flags("max_surge = 2"), "max_surge = 2");
    }

    #[test]
    fn what_cannot_be_done_yet_says_so() {
        for flag in table().filter(|flag| matches!(flag.does, Does::Lacks(_))) {
            let mut words = vec![format!("--{}", flag.long)];
            words.extend(flag.value.map(|_| "1".to_owned()));
            let flags = parsed(&words.iter().map(String::as_str).collect::<Vec<_>>()).expect("known");
            let why = flags.refused().expect("refused");
            assert!(why.starts_with(&format!("--{}: ", flag.long)), "{why}");
        }
    }

    #[test]
    fn the_name_that_was_given_wins_over_the_one_that_was_made() {
        let made = Program { name: Some("npm".into()), interpreter: Some("node"), ..program("npm start") };
        let own = parsed(&["-n", "web", "--interpreter", "bun"]).expect("flags").file_of(&made);
        assert!(own.contains("name = \"web\"") && own.contains("interpreter = \"bun\""), "{own}");
        assert!(!own.contains("\"npm\"") && !own.contains("node"), "{own}");
        let none = Flags::default().file_of(&made);
        assert!(none.contains("name = \"npm\"") && none.contains("interpreter = \"node\""), "{none}");
    }

    proptest! {
        #[test]
        fn nothing_breaks_out_of_its_line(word in any::<String>(), arg in any::<String>()) {
            let args = [arg.clone()];
            let made = Program { name: Some(word.clone()), args: &args, ..program(&word) };
            let text = Flags::default().file_of(&made);
            let parsed: toml::Table = toml::from_str(&text).unwrap();
            let app = parsed["apps"][0].as_table().unwrap();
            prop_assert_eq!((parsed.len(), app.len()), (1, 3));
            prop_assert_eq!(app["script"].as_str(), Some(word.as_str()));
            prop_assert_eq!(app["args"][0].as_str(), Some(arg.as_str()));
        }
    }
}
