//! Every key of the ecosystem file in one table: its name, PM2's other names for it, what it takes, its
//! default and its meaning. Reading, error texts, suggestions and `describe` all use this table; nothing
//! is said about a key anywhere else.

use std::time::Duration;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name: `[A-Za-z0-9._-]{1,64}`, and none that could not be a target: digits alone, `all`, `.`, `..`,
    /// a dash at the beginning.
    Name,
    /// A program, or with `command` its whole argument vector.
    Script,
    /// A program that runs the script, or `none`.
    Interpreter,
    /// Arguments: an array, or a string that is split as a shell splits words.
    Words,
    /// A folder.
    Folder,
    /// A file, or the null device.
    LogFile,
    /// The same, or true for one with a name of its own.
    JointLog,
    /// True or false.
    Flag,
    /// A span of time within these bounds.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// A whole number within these bounds.
    Count {
        /// The least.
        min: u32,
        /// The greatest.
        max: u32,
    },
    /// A share in percent, as text.
    Percent,
    /// A number of instances, `"max"`, or a negative number.
    Instances,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Addresses.
    Listen,
    /// A table of variables.
    Environment,
    /// A signal by name or number.
    Signal,
    /// Bytes, or a share of the memory that there is.
    Memory,
    /// Bytes of memory.
    Bytes,
    /// A pattern of dates.
    DatePattern,
    /// Bytes of a log file, or 0.
    FileSize,
    /// Lines in a while.
    LineRate,
    /// A user or a group.
    Account,
    /// Permission bits in octal.
    Umask,
    /// A whole number within these bounds, which may be negative.
    Whole {
        /// The least.
        min: i32,
        /// The greatest.
        max: i32,
    },
    /// A table of resource limits.
    Limits,
    /// One of these limits.
    Limit,
    /// Files of variables.
    EnvFiles,
    /// What the base environment loses.
    Filter,
    /// The name of a variable.
    Variable,
    /// The path of a file.
    File,
    /// What proves that a worker is ready.
    Ready,
    /// A table that says how a worker is asked whether it is well.
    Health,
    /// Moments of the wall clock.
    Schedule,
    /// The name of a time zone.
    Zone,
    /// Exit codes.
    ExitCodes,
    /// Names of other apps.
    Apps,
    /// Files and folders that are watched.
    Watch,
    /// Patterns of files.
    Patterns,
    /// Where the supervisor answers over HTTP.
    Http,
}

/// The most instances an app can have.
pub const MAX_INSTANCES: u32 = 1000;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

impl Kind {
    /// What stands after "expected" in an error.
    pub fn expected(self) -> String {
        match self {
            Kind::Name => "1 to 64 letters, digits, '.', '_' or '-', not digits alone, \
                           not \"all\", \".\" or \"..\", not beginning with '-'"
                .into(),
            Kind::Script => "a program: a file relative to cwd, a word from PATH, a line for `sh -c`, \
                             or command = [\"program\", \"argument\"]"
                .into(),
            Kind::Interpreter => "the program that runs the script, or \"none\"".into(),
            Kind::Words => "an array of strings, or one string that is split as a shell splits words".into(),
            Kind::Folder => "the path of a folder".into(),
            Kind::LogFile => "the path of a file, or \"/dev/null\" to discard".into(),
            Kind::JointLog => "the path of a file, true for <name>.log in log_dir, or false".into(),
            Kind::Flag => "true or false".into(),
            Kind::Duration { min, max } => format!(
                "a time from {} to {}: a whole number of milliseconds, or a string with a unit such as \"10s\"",
                super::units::show_duration(min),
                super::units::show_duration(max)
            ),
            Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Percent => "a share from \"1%\" to \"99%\"".into(),
            Kind::Instances => format!(
                "a whole number from 1 to {MAX_INSTANCES}, \"max\" or 0 for one per CPU, \
                 or a negative number for so many fewer"
            ),
            Kind::Choice(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
            }
            Kind::Listen => "\"0.0.0.0:3000\", \"[::]:3000\", \":3000\", a port, \"unix:/run/api.sock\", \
                             { name = \"http\", address = \":3000\", backlog = 511 }, or an array of these"
                .into(),
            Kind::Environment => "a table of variables".into(),
            Kind::Memory => {
                "an amount of memory from 1 MiB: \"512M\", \"1.5G\", bytes, or a share such as \"80%\" \
                             of what there is for all instances together"
                    .into()
            }
            Kind::Bytes => "an amount of memory from 1 MiB: \"512M\", \"1.5G\", bytes".into(),
            Kind::DatePattern => "a pattern of YYYY YY MMMM MMM MM M DD D dddd ddd dd d HH H hh h mm m ss s SSS A a \
                                  Z ZZ X, with other letters in [ ], such as \"YYYY-MM-DD HH:mm:ss.SSS Z\""
                .into(),
            Kind::FileSize => "an amount from 64 KiB: \"10M\", \"1.5G\", bytes; or 0 for no limit".into(),
            Kind::LineRate => {
                "lines and a time from 1s to 1h, such as \"10000/30s\" or \"1000/s\", or a whole number of lines a second"
                    .into()
            }
            Kind::Ready => "\"auto\", \"notify\", \"ipc\", \"listen\", \"exec\", \"http:/path\" or \"http://:8080/path\"".into(),
            Kind::Health => "{ http = \"/healthz\" }, { tcp = true } or { command = [\"program\", \"argument\"] }, with \
                             port or socket, interval, timeout, retries and start_period where they differ from \"10s\", \"2s\", 3 \
                             and \"0s\""
                .into(),
            Kind::Schedule => "five fields (minute, hour, day, month, weekday), six with seconds in front, or a \
                               name: \"30 4 * * *\", \"0 0 4 * * MON\", \"@daily\""
                .into(),
            Kind::Zone => "the name of a time zone, such as \"Europe/Berlin\" or \"UTC\"".into(),
            Kind::ExitCodes => "a whole number from 0 to 255, or an array of these".into(),
            Kind::Apps => "the name of another app of this file, with its namespace before it where that is \
                           another one (\"shop/db\"), or an array of these"
                .into(),
            Kind::Watch => "true for the working directory, false, the path of a file or folder, a pattern of paths \
                            (\"src/**/*.js\"), or an array of these"
                .into(),
            Kind::Patterns => "a pattern as in .gitignore (\"*.log\", \"/tmp/\", \"!keep.log\"), or an array of these".into(),
            Kind::Http => "\"127.0.0.1:9615\", \"unix:/run/clusterd/http.sock\", or { address = \":9615\", \
                           hosts = [\"metrics.example.com\"] }"
                .into(),
            Kind::Signal => "the name or the number of a signal, such as \"SIGTERM\" or 15".into(),
            Kind::Account => "a name, or a number from 0 to 4294967294".into(),
            Kind::Umask => "permission bits in octal from \"000\" to \"777\", such as \"027\"".into(),
            Kind::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Limits => "a table of limits, such as { nofile = 65536, core = 0 }".into(),
            Kind::Limit => "a whole number, \"unlimited\", or { soft = 1024, hard = 4096 }; \
                            where it is of bytes also a string with a unit such as \"512M\""
                .into(),
            Kind::EnvFiles => "the path of a file of NAME=value lines, or an array of them".into(),
            Kind::Filter => "true for all, the name of a variable, \
                             or an array of strings for every name that contains one of them"
                .into(),
            Kind::Variable => "the name of a variable".into(),
            Kind::File => "the path of a file".into(),
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key<K: 'static> {
    /// Which.
    pub id: K,
    /// How the contract spells it.
    pub name: &'static str,
    /// How PM2 spells it too. The camelCase form of each name is accepted as well.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
    /// What holds without it: as it would be written in the file, or a rule in words.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub meaning: &'static str,
}

/// A key of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is described by its row of the table below.
pub enum AppKey {
    Name,
    AppendEnvToName,
    Script,
    Interpreter,
    InterpreterArgs,
    Args,
    Cwd,
    User,
    Group,
    Umask,
    Nice,
    OomScoreAdj,
    Rlimits,
    MemoryHigh,
    MemoryMax,
    PidsMax,
    CpuWeight,
    NoNewPrivs,
    Instances,
    ExecMode,
    Listen,
    Intercept,
    Env,
    EnvFile,
    FilterEnv,
    IncrementVar,
    InstanceVar,
    KillSignal,
    KillTimeout,
    ShutdownWithMessage,
    /// Whether a worker's end is that of all that it started.
    Treekill,
    WaitReady,
    Ready,
    Health,
    Watchdog,
    HangTimeout,
    ListenTimeout,
    MinUptime,
    MaxRestarts,
    RestartDelay,
    ExpBackoffRestartDelay,
    Autorestart,
    StopExitCodes,
    Autostart,
    Essential,
    DependsOn,
    DrainTimeout,
    DrainIdle,
    MaxSurge,
    MinHealthyTime,
    OnReloadFailure,
    MaxMemoryRestart,
    MaxAge,
    /// When workers are replaced by the wall clock.
    CronRestart,
    /// In which time zone.
    Timezone,
    /// Files whose change has the workers replaced.
    Watch,
    /// Which of them have not.
    IgnoreWatch,
    /// How long they must be at rest.
    WatchDelay,
    Balance,
    Canary,
    OutFile,
    ErrorFile,
    LogFile,
    MergeLogs,
    DisableLogs,
    LogTo,
    LogMaxSize,
    LogMaxFiles,
    LogTotalSize,
    LogMaxAge,
    LogCompress,
    LogRateLimit,
    LogType,
    LogDateFormat,
    Time,
    PidFile,
    /// What the workers read from.
    Stdin,
    Namespace,
}

/// A key of `[daemon]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is described by its row of the table below.
pub enum DaemonKey {
    LogDir,
    LogFiles,
    StateDir,
    PollInterval,
    ShutdownTimeout,
    Http,
}

const fn key<K: Copy>(
    id: K,
    name: &'static str,
    aliases: &'static [&'static str],
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Key<K> {
    Key { id, name, aliases, kind, default, meaning }
}

const fn time(min: Duration, max: Duration) -> Kind {
    Kind::Duration { min, max }
}

/// The keys of `[[apps]]`. `env_<profile>` stands beside them; see [`PROFILE_PREFIX`].
pub const APP: &[Key<AppKey>] = &[
    key(
        AppKey::Name,
        "name",
        &[],
        Kind::Name,
        "the script's name without its extension",
        "what verbs and log files call the app; unique in its namespace",
    ),
    key(
        AppKey::AppendEnvToName,
        "append_env_to_name",
        &[],
        Kind::Flag,
        "false",
        "with --env PROFILE the app is called <name>-<profile>",
    ),
    key(
        AppKey::Script,
        "script",
        &["exec", "cmd", "command"],
        Kind::Script,
        "none: every app needs one",
        "what to run",
    ),
    key(
        AppKey::Interpreter,
        "interpreter",
        &["exec_interpreter"],
        Kind::Interpreter,
        "by the script's extension",
        "which program runs the script",
    ),
    key(
        AppKey::InterpreterArgs,
        "interpreter_args",
        &["node_args"],
        Kind::Words,
        "[]",
        "arguments between the interpreter and the script",
    ),
    key(AppKey::Args, "args", &[], Kind::Words, "[]", "arguments after the script"),
    key(
        AppKey::Cwd,
        "cwd",
        &[],
        Kind::Folder,
        "\".\"",
        "the working directory, relative to this file's folder; symbolic links are followed at each start",
    ),
    key(
        AppKey::User,
        "user",
        &["uid"],
        Kind::Account,
        "clusterd's own user",
        "as whom the workers run, with that user's groups: a name or a number; needs a clusterd that runs as root",
    ),
    key(
        AppKey::Group,
        "group",
        &["gid"],
        Kind::Account,
        "the user's own; for a number without an entry in /etc/passwd the group of the same number",
        "the group of the workers, in place of the user's own",
    ),
    key(
        AppKey::Umask,
        "umask",
        &[],
        Kind::Umask,
        "clusterd's own",
        "permission bits that new files of the workers do not get",
    ),
    key(
        AppKey::Nice,
        "nice",
        &[],
        Kind::Whole { min: -20, max: 19 },
        "clusterd's own",
        "19 gives way to every other process, -20 to none; below clusterd's own it takes CAP_SYS_NICE",
    ),
    key(
        AppKey::OomScoreAdj,
        "oom_score_adj",
        &[],
        Kind::Whole { min: -1000, max: 1000 },
        "clusterd's own",
        "1000 is killed first when memory is short, -1000 never; below clusterd's own it takes CAP_SYS_RESOURCE",
    ),
    key(
        AppKey::Rlimits,
        "rlimits",
        &[],
        Kind::Limits,
        "those that clusterd was started with",
        "resource limits of each worker; to raise a hard one takes CAP_SYS_RESOURCE",
    ),
    key(
        AppKey::MemoryHigh,
        "memory_high",
        &[],
        Kind::Bytes,
        "none: no limit",
        "a worker whose processes take more memory than this is slowed down, and gives back what it can; needs a \
         control group of its own",
    ),
    key(
        AppKey::MemoryMax,
        "memory_max",
        &[],
        Kind::Bytes,
        "none: no limit",
        "a worker whose processes would take more memory than this is killed by the kernel, with all of them; needs a \
         control group of its own",
    ),
    key(
        AppKey::PidsMax,
        "pids_max",
        &[],
        Kind::Count { min: 1, max: 4_194_304 },
        "none: no limit",
        "the most processes and threads that a worker can have at a time; needs a control group of its own",
    ),
    key(
        AppKey::CpuWeight,
        "cpu_weight",
        &[],
        Kind::Count { min: 1, max: 10_000 },
        "none: the kernel counts 100",
        "a worker's share of the CPUs where they are short, against 100 of others; needs a control group of its own",
    ),
    key(
        AppKey::NoNewPrivs,
        "no_new_privs",
        &[],
        Kind::Flag,
        "false",
        "setuid programs and file capabilities have no effect in the workers",
    ),
    key(AppKey::Instances, "instances", &[], Kind::Instances, "1", "how many workers run"),
    key(
        AppKey::ExecMode,
        "exec_mode",
        &[],
        Kind::Choice(&["fork", "cluster"]),
        "\"cluster\" when instances or listen is given, else \"fork\"",
        "cluster: the workers share their ports and a reload overlaps; fork: a reload stops, then starts",
    ),
    key(
        AppKey::Listen,
        "listen",
        &[],
        Kind::Listen,
        "[]",
        "addresses that clusterd opens and hands to each worker from descriptor 3 on",
    ),
    key(
        AppKey::Intercept,
        "intercept",
        &[],
        Kind::Flag,
        "true in cluster mode",
        "servers that open their port themselves share it",
    ),
    key(AppKey::Env, "env", &[], Kind::Environment, "{}", "environment variables of the workers"),
    key(
        AppKey::EnvFile,
        "env_file",
        &[],
        Kind::EnvFiles,
        "[]",
        "files of variables beneath env, relative to cwd, read anew at each start",
    ),
    key(
        AppKey::FilterEnv,
        "filter_env",
        &[],
        Kind::Filter,
        "false",
        "what the workers do not get of the environment that clusterd was called with",
    ),
    key(
        AppKey::IncrementVar,
        "increment_var",
        &[],
        Kind::Variable,
        "none",
        "a variable whose number is one more for each instance",
    ),
    key(
        AppKey::InstanceVar,
        "instance_var",
        &[],
        Kind::Variable,
        "\"NODE_APP_INSTANCE\"",
        "the variable that holds the instance's number, from 0 on",
    ),
    key(
        AppKey::KillSignal,
        "kill_signal",
        &[],
        Kind::Signal,
        "\"SIGINT\"",
        "the signal that asks a worker to stop",
    ),
    key(
        AppKey::KillTimeout,
        "kill_timeout",
        &[],
        time(Duration::ZERO, DAY),
        "1600",
        "how long a worker may take from kill_signal on until it is killed",
    ),
    key(
        AppKey::ShutdownWithMessage,
        "shutdown_with_message",
        &[],
        Kind::Flag,
        "false",
        "a worker is asked to stop by the message \"shutdown\" over Node's channel in place of kill_signal",
    ),
    key(
        AppKey::Treekill,
        "treekill",
        &[],
        Kind::Flag,
        "true",
        "a worker ends with all that it started; false: kill_signal and SIGKILL reach its first process alone, and what else runs stays",
    ),
    key(
        AppKey::WaitReady,
        "wait_ready",
        &[],
        Kind::Flag,
        "false",
        "only the worker's own word counts as ready: READY=1, or process.send('ready')",
    ),
    key(
        AppKey::Ready,
        "ready",
        &[],
        Kind::Ready,
        "\"auto\"",
        "what proves that a worker is ready: READY=1 (notify), process.send('ready') (ipc), that it listens, \
         that it is alive for min_uptime (exec), or a good answer (http:/path, with a port http://:8080/path); auto: its word or its \
         listening",
    ),
    key(
        AppKey::Health,
        "health",
        &[],
        Kind::Health,
        "none: ready workers are not asked",
        "how each ready worker is asked whether it is well; one that fails is replaced",
    ),
    key(
        AppKey::Watchdog,
        "watchdog",
        &[],
        time(MILLISECOND, DAY),
        "none: workers may be silent",
        "a ready worker that does not say WATCHDOG=1 (sd_notify) within this time is replaced",
    ),
    key(
        AppKey::HangTimeout,
        "hang_timeout",
        &[],
        time(Duration::from_millis(100), DAY),
        "none: nobody looks",
        "a worker whose clients wait for so long while it uses no CPU time is replaced",
    ),
    key(
        AppKey::ListenTimeout,
        "listen_timeout",
        &[],
        time(MILLISECOND, DAY),
        "\"30s\"",
        "how long a worker may take until it is ready",
    ),
    key(
        AppKey::MinUptime,
        "min_uptime",
        &[],
        time(Duration::ZERO, DAY),
        "\"1s\"",
        "a worker that ends sooner than this counts as unstable",
    ),
    key(
        AppKey::MaxRestarts,
        "max_restarts",
        &[],
        Kind::Count { min: 0, max: 1_000_000 },
        "16",
        "unstable ends in a row until the worker is given up; 0 never gives up",
    ),
    key(
        AppKey::RestartDelay,
        "restart_delay",
        &[],
        time(Duration::ZERO, DAY),
        "0",
        "least wait before a worker that ended is started again",
    ),
    key(
        AppKey::ExpBackoffRestartDelay,
        "exp_backoff_restart_delay",
        &[],
        time(Duration::ZERO, Duration::from_secs(15)),
        "100",
        "first wait after an unstable end; each next one is half as long again, up to 15 s; 0 switches it off",
    ),
    key(
        AppKey::Autorestart,
        "autorestart",
        &[],
        Kind::Flag,
        "true",
        "a worker that ends by itself is started again",
    ),
    key(
        AppKey::StopExitCodes,
        "stop_exit_codes",
        &[],
        Kind::ExitCodes,
        "[]",
        "a worker that exits with one of these is not started again; a death by signal is no exit code",
    ),
    key(
        AppKey::Autostart,
        "autostart",
        &[],
        Kind::Flag,
        "true",
        "false: the app is made known, and stays stopped until `clusterd start NAME`",
    ),
    key(
        AppKey::Essential,
        "essential",
        &[],
        Kind::Flag,
        "false",
        "when the app ends for good, clusterd in the foreground ends everything and exits with its code",
    ),
    key(
        AppKey::DependsOn,
        "depends_on",
        &[],
        Kind::Apps,
        "[]",
        "apps that must be ready before this one is started, and are stopped after it",
    ),
    key(
        AppKey::DrainTimeout,
        "drain_timeout",
        &[],
        time(Duration::ZERO, DAY),
        "\"30s\"",
        "how long a leaving worker may take to finish its connections",
    ),
    key(
        AppKey::DrainIdle,
        "drain_idle",
        &[],
        time(MILLISECOND, DAY),
        "\"2s\"",
        "how long a connection of a leaving worker must be quiet until it counts as finished",
    ),
    key(
        AppKey::MaxSurge,
        "max_surge",
        &[],
        Kind::Count { min: 1, max: MAX_INSTANCES },
        "1",
        "how many workers a reload replaces at a time",
    ),
    key(
        AppKey::MinHealthyTime,
        "min_healthy_time",
        &[],
        time(Duration::ZERO, DAY),
        "\"1s\"",
        "how long a new worker must stay ready before the old one leaves",
    ),
    key(
        AppKey::OnReloadFailure,
        "on_reload_failure",
        &[],
        Kind::Choice(&["rollback", "hold"]),
        "\"rollback\"",
        "rollback: the old version goes on serving; hold: both stay for you to look at",
    ),
    key(
        AppKey::MaxMemoryRestart,
        "max_memory_restart",
        &[],
        Kind::Memory,
        "none: no limit",
        "a worker whose processes take more than this is replaced; its successor is ready first",
    ),
    key(
        AppKey::MaxAge,
        "max_age",
        &[],
        time(Duration::from_secs(1), Duration::from_secs(366 * 24 * 60 * 60)),
        "none: no limit",
        "a worker is replaced when it is so old, or up to a tenth younger; its successor is ready first",
    ),
    key(
        AppKey::CronRestart,
        "cron_restart",
        &["cron"],
        Kind::Schedule,
        "none",
        "when all workers are replaced, as by a reload; whoever ended by itself runs again, who was stopped does not",
    ),
    key(AppKey::Timezone, "timezone", &[], Kind::Zone, "the host's", "the time zone of cron_restart"),
    key(
        AppKey::Watch,
        "watch",
        &[],
        Kind::Watch,
        "false",
        "files and folders, relative to cwd, or patterns of them (\"src/**/*.js\"); when one changes, all workers are replaced as by a reload, and who gave up is tried again",
    ),
    key(
        AppKey::IgnoreWatch,
        "ignore_watch",
        &[],
        Kind::Patterns,
        "[]",
        "what watch does not look at, beside dotfiles, node_modules and what else is ignored anyway; \"!name\" takes that back",
    ),
    key(
        AppKey::WatchDelay,
        "watch_delay",
        &[],
        time(MILLISECOND, HOUR),
        "200",
        "for how long the files must be at rest before anything comes of a change; a reload waits no longer than 10 s or 10 times this",
    ),
    key(
        AppKey::Balance,
        "balance",
        &[],
        Kind::Choice(&["spread", "source-ip"]),
        "\"spread\"",
        "spread: a new connection goes to any worker; source-ip: a client's address stays with its worker",
    ),
    key(
        AppKey::Canary,
        "canary",
        &[],
        Kind::Percent,
        "none",
        "the share of new connections at which a reload is held until `clusterd promote` or `rollback`",
    ),
    key(
        AppKey::OutFile,
        "out_file",
        &["out", "output", "out_log"],
        Kind::LogFile,
        "<name>-out.log in log_dir",
        "where standard output goes, relative to cwd",
    ),
    key(
        AppKey::ErrorFile,
        "error_file",
        &["error", "err", "err_file", "err_log"],
        Kind::LogFile,
        "<name>-error.log in log_dir",
        "where standard error goes, relative to cwd",
    ),
    key(
        AppKey::LogFile,
        "log_file",
        &["log"],
        Kind::JointLog,
        "none",
        "one more file, with the lines of both outputs, relative to cwd",
    ),
    key(
        AppKey::MergeLogs,
        "merge_logs",
        &["combine_logs"],
        Kind::Flag,
        "false",
        "all workers write to the same files; else their names have -<instance> when there are several",
    ),
    key(
        AppKey::DisableLogs,
        "disable_logs",
        &[],
        Kind::Flag,
        "false",
        "no log files are written; `clusterd logs` shows what is printed all the same",
    ),
    key(
        AppKey::LogTo,
        "log_to",
        &[],
        Kind::Choice(&["files", "journald", "both"]),
        "\"files\"",
        "whether lines go to log files, to the host's journal with fields of their own, or to both",
    ),
    key(
        AppKey::LogMaxSize,
        "log_max_size",
        &[],
        Kind::FileSize,
        "\"10M\"",
        "how far a log file grows until it is renamed and a new one begun; 0 for no limit",
    ),
    key(
        AppKey::LogMaxFiles,
        "log_max_files",
        &[],
        Kind::Count { min: 1, max: 10_000 },
        "10",
        "how many old ones of a log file are kept; the oldest go",
    ),
    key(
        AppKey::LogTotalSize,
        "log_total_size",
        &[],
        Kind::FileSize,
        "0: no limit",
        "how much all old log files of the app may take together; the oldest go, also where log_max_files keeps them",
    ),
    key(
        AppKey::LogMaxAge,
        "log_max_age",
        &[],
        time(Duration::from_secs(1), Duration::from_secs(366 * 24 * 60 * 60)),
        "none: no limit",
        "how old the first line of a log file may be until a new one is begun, also when no other comes",
    ),
    key(AppKey::LogCompress, "log_compress", &[], Kind::Flag, "true", "old log files are compressed (gzip)"),
    key(
        AppKey::LogRateLimit,
        "log_rate_limit",
        &[],
        Kind::LineRate,
        "none: no limit",
        "how many lines all workers together may print in a while; the rest is left out, counted and told of",
    ),
    key(
        AppKey::LogType,
        "log_type",
        &[],
        Kind::Choice(&["raw", "json"]),
        "\"raw\"",
        "raw: log files hold what is printed, byte for byte; json: one object for each line",
    ),
    key(
        AppKey::LogDateFormat,
        "log_date_format",
        &[],
        Kind::DatePattern,
        "none",
        "the date and \": \" before each line of a log file, or the timestamp of its object, by the host's time zone",
    ),
    key(
        AppKey::Time,
        "time",
        &[],
        Kind::Flag,
        "false",
        "the same as log_date_format = \"YYYY-MM-DDTHH:mm:ss\"",
    ),
    key(
        AppKey::PidFile,
        "pid_file",
        &["pid"],
        Kind::File,
        "pids/<name>-<instance>.pid in clusterd's home",
        "where a worker's process id is written, relative to cwd; with -<instance> when there are several",
    ),
    key(
        AppKey::Stdin,
        "stdin",
        &[],
        Kind::Choice(&["null", "pipe"]),
        "\"null\"",
        "standard input of the workers; null: at its end at once; pipe: lines that `clusterd send` writes, and no end",
    ),
    key(
        AppKey::Namespace,
        "namespace",
        &[],
        Kind::Name,
        "\"default\"",
        "a label that verbs take in place of a name; log and pid files are <namespace>@<name>… where it is another one",
    ),
];

/// The keys of `[daemon]`.
pub const DAEMON: &[Key<DaemonKey>] = &[
    key(
        DaemonKey::LogDir,
        "log_dir",
        &[],
        Kind::Folder,
        "logs in clusterd's home",
        "where log files go, relative to this file's folder",
    ),
    key(DaemonKey::LogFiles, "log_files", &[], Kind::Flag, "true", "whether log files are written at all"),
    key(
        DaemonKey::StateDir,
        "state_dir",
        &[],
        Kind::Folder,
        "clusterd's home",
        "where a supervisor in the foreground writes down what it runs, relative to this file's folder, unless --home or \
         CLUSTERD_HOME holds everything",
    ),
    key(
        DaemonKey::PollInterval,
        "poll_interval",
        &[],
        time(Duration::from_millis(100), DAY),
        "\"1s\"",
        "how often workers that have max_memory_restart are weighed",
    ),
    key(
        DaemonKey::ShutdownTimeout,
        "shutdown_timeout",
        &[],
        time(MILLISECOND, DAY),
        "\"8s\"",
        "how long stopping everything may take in all",
    ),
    key(
        DaemonKey::Http,
        "http",
        &[],
        Kind::Http,
        "none",
        "where /livez, /readyz, /metrics and /api/v1/apps are answered",
    ),
];

/// `env_production` and the like: variables that `--env production` adds to `env`.
pub const PROFILE_PREFIX: &str = "env_";

/// Keys of PM2 (7.0.4) that this version does not know, so that the error can say so.
const PM2_ONLY: &[&str] = &[
    "automation",
    "deep_monitoring",
    "disable_source_map_support",
    "disable_trace",
    "event_loop_inspector",
    "execute_command",
    "force",
    "install_url",
    "io",
    "kill_retry_time",
    "name_prefix",
    "pmx",
    "port",
    "post_update",
    "source_map_support",
    "trace",
    "v8",
    "vizion",
    "watch_options",
    "windows_hide",
    "write",
];

/// `killTimeout` → `kill_timeout`; names without capitals, and those with a line below, stay.
fn snake(written: &str) -> String {
    if written.contains('_') {
        return written.to_owned();
    }
    let mut out = String::with_capacity(written.len() + 4);
    for c in written.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The row that a written key means, by its name, an alias or the camelCase form of either.
pub fn find<K>(table: &'static [Key<K>], written: &str) -> Option<&'static Key<K>> {
    let name = snake(written);
    table.iter().find(|key| key.name == name || key.aliases.contains(&name.as_str()))
}

/// Whether PM2 knows this key of an app and this version does not.
pub fn is_pm2_only(written: &str) -> bool {
    PM2_ONLY.contains(&snake(written).as_str())
}

/// The row of a key.
///
/// The tables have one row for each key; a test holds them to it.
pub fn row<K: PartialEq>(table: &'static [Key<K>], id: K) -> &'static Key<K> {
    table.iter().find(|key| key.id == id).expect("each key has its row in the table")
}

/// The known word that is nearest to a written one, when it is near enough to be meant: a swapped, missing
/// or wrong letter in three.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let name = snake(written).replace('-', "_").to_ascii_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&name, &word.to_ascii_lowercase().replace('-', "_")), word))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Every name and alias of a table.
pub fn names<K>(table: &'static [Key<K>]) -> impl Iterator<Item = &'static str> {
    table.iter().flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_means_two_keys() {
        let mut seen = BTreeSet::new();
        for name in names(APP) {
            assert!(seen.insert(name), "{name} is listed twice");
            assert!(!is_pm2_only(name), "{name} is supported and listed as unsupported");
        }
    }

    #[test]
    fn each_key_has_its_row() {
        assert!(APP.iter().enumerate().all(|(at, key)| key.id as usize == at));
        assert_eq!(APP.len(), AppKey::Namespace as usize + 1);
        assert!(DAEMON.iter().enumerate().all(|(at, key)| key.id as usize == at));
        assert_eq!(DAEMON.len(), DaemonKey::Http as usize + 1);
    }

    #[test]
    fn camel_case_means_the_same_key() {
        for written in ["killTimeout", "kill_timeout"] {
            assert_eq!(find(APP, written).map(|key| key.id), Some(AppKey::KillTimeout));
        }
        assert_eq!(find(APP, "execInterpreter").map(|key| key.id), Some(AppKey::Interpreter));
        assert!(find(APP, "KillTimeout").is_none());
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        for (written, meant) in [
            ("instnaces", "instances"),
            ("kill-timeout", "kill_timeout"),
            ("KillTimout", "kill_timeout"),
            ("scirpt", "script"),
        ] {
            assert_eq!(nearest(written, names(APP)), Some(meant), "{written}");
        }
        assert_eq!(nearest("colour", names(APP)), None);
    }
}
