//! What goes over the control socket: one JSON object per line, each way. A closed set of commands;
//! names here are the contract's and are what `--json` prints.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of this protocol. A client of another version is told so and goes no further.
pub const VERSION: u32 = 1;

/// The longest line either side takes, in bytes.
pub const FRAME_LIMIT: usize = 1024 * 1024;

/// One line from a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// [`VERSION`].
    pub version: u32,
    /// What is wished.
    pub request: Request,
}

/// A client's wish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Is anybody there?
    Ping {},
    /// Can these apps (all when empty) serve? The answer is done, or an error that names those that cannot.
    Ready {
        /// Which; empty means all.
        targets: Vec<String>,
    },
    /// Everything about these apps (all when empty).
    List {
        /// Which; empty means all.
        targets: Vec<String>,
        /// Count the open connections of each worker too.
        connections: bool,
        /// With paths, environment names, limits: what `describe` shows.
        detail: bool,
    },
    /// Start apps of a file, or known ones by target.
    Start {
        /// Whom; for a file, limits it as `--only` does.
        targets: Vec<String>,
        /// The file, when one was given.
        file: Option<File>,
        /// Replace the stored environment of those that are known by this one.
        update_env: Option<Environment>,
        /// What to change of those that are known: keys of the file and their values as TOML; none takes a key out.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        changes: BTreeMap<String, Option<String>>,
        /// Answer at once.
        no_wait: bool,
    },
    /// Start an app that was made of flags. One of its name that runs already is an error.
    Launch {
        /// The file that was made of the flags; it has no path.
        file: File,
        /// Make an app anew that is known by this name.
        force: bool,
        /// Replace the stored environment of one that is known.
        update_env: bool,
        /// Answer at once.
        no_wait: bool,
    },
    /// Bring what runs to what a file says, touching nothing that is so already.
    Apply {
        /// The file.
        file: File,
        /// Answer with the plan, and change nothing.
        dry_run: bool,
        /// Delete the apps that came from this file and are gone from it.
        prune: bool,
        /// Answer at once.
        no_wait: bool,
    },
    /// Drain and stop.
    Stop {
        /// Whom.
        targets: Vec<String>,
        /// Which of them.
        #[serde(default, skip_serializing_if = "Part::is_all")]
        part: Part,
        /// Answer at once.
        no_wait: bool,
    },
    /// Stop, then start.
    Restart {
        /// Whom.
        targets: Vec<String>,
        /// The file, when one was given instead of targets.
        file: Option<File>,
        /// Replace the stored environment by this one.
        update_env: Option<Environment>,
        /// What to change of those that are known: keys of the file and their values as TOML; none takes a key out.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        changes: BTreeMap<String, Option<String>>,
        /// Answer at once.
        no_wait: bool,
    },
    /// Replace every worker without a gap; the file of each app is read again.
    Reload {
        /// Whom.
        targets: Vec<String>,
        /// The file, when one was given instead of targets.
        file: Option<File>,
        /// Replace the stored environment by this one.
        update_env: Option<Environment>,
        /// What to change of those that are known: keys of the file and their values as TOML; none takes a key out.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        changes: BTreeMap<String, Option<String>>,
        /// Answer at once.
        no_wait: bool,
    },
    /// Change the number of instances.
    Scale {
        /// Which app.
        target: String,
        /// `4`, `+2`, `-1`.
        count: String,
        /// Answer at once.
        no_wait: bool,
    },
    /// Stop, then forget.
    Delete {
        /// Whom.
        targets: Vec<String>,
        /// Which of them.
        #[serde(default, skip_serializing_if = "Part::is_all")]
        part: Part,
        /// Answer at once.
        no_wait: bool,
    },
    /// Let reloads that are held at their canary's share go on.
    Promote {
        /// Whose.
        targets: Vec<String>,
        /// Answer at once.
        no_wait: bool,
    },
    /// Take reloads back.
    Rollback {
        /// Whose.
        targets: Vec<String>,
        /// Answer at once.
        no_wait: bool,
    },
    /// Send a signal to the first process of each worker.
    Signal {
        /// A name (`SIGHUP`, `HUP`) or a number.
        signal: String,
        /// Whom.
        targets: Vec<String>,
    },
    /// Write a line to the standard input of each worker.
    Send {
        /// Without its end.
        line: String,
        /// Whom.
        targets: Vec<String>,
    },
    /// Drain and stop everything, then end the supervisor.
    Kill {},
    /// Write down what is to come back by `resurrect`.
    Save {
        /// Also when there is no app.
        force: bool,
    },
    /// Forget what was written down by `save`.
    Cleardump {},
    /// Bring back what was saved and is not known.
    Resurrect {},
    /// The process ids of these workers.
    Pid {
        /// Whom; empty means all.
        targets: Vec<String>,
    },
    /// What the first worker of each of these was started with.
    Environ {
        /// Whom.
        targets: Vec<String>,
    },
    /// Count restarts from zero again.
    Reset {
        /// Whose.
        targets: Vec<String>,
    },
    /// Empty the log files.
    Flush {
        /// Whose; empty means all, and the supervisor's own.
        targets: Vec<String>,
    },
    /// Open all log files anew, after somebody renamed them.
    ReloadLogs {},
    /// The last lines, then (unless told not to) each new one.
    Logs {
        /// Whose; empty means all.
        targets: Vec<String>,
        /// How many last lines per app, of those that are remembered.
        lines: u32,
        /// Go on with new lines until the client closes.
        follow: bool,
        /// Only this stream.
        stream: Option<Stream>,
    },
}

/// Which of a file's apps are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// `--env NAME`: those that were started with it.
    pub profile: Option<String>,
    /// `--only a,b`; empty means all.
    pub only: Vec<String>,
}

impl Part {
    /// All of them.
    pub fn is_all(&self) -> bool {
        *self == Part::default()
    }
}

/// An ecosystem file as the client read it: the snapshot that is applied, never a second read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its absolute path, to read it again at a reload; none for standard input.
    pub path: Option<String>,
    /// Its text.
    pub text: String,
    /// The folder that relative paths start from, absolute.
    pub folder: String,
    /// `--env NAME`.
    pub profile: Option<String>,
    /// `--only a,b`; empty means all.
    pub only: Vec<String>,
    /// The caller's.
    pub environment: Environment,
}

/// A caller's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Names and values that are text.
    pub text: BTreeMap<String, String>,
    /// Those of which one is not UTF-8, byte for byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What one worker was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environ {
    /// The app, with its namespace unless that is `default`.
    pub app: String,
    /// The worker's number within it.
    pub instance: u32,
    /// Its first process.
    pub pid: i32,
    /// Names and values; what is not UTF-8 in one is replaced.
    pub variables: BTreeMap<String, String>,
}

/// Which of a worker's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line to a client. Any number of `Progress`, `Line` and the like, then exactly one of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Reply {
    /// Something happened on the way.
    Progress(Progress),
    /// A line of output.
    Line(Line),
    /// So many lines of output are left out here, because they were not taken in time.
    Dropped {
        /// How many.
        lines: u64,
    },
    /// The lines before this are those that were remembered; from here on they are told as they come.
    Following {},
    /// What `apply` is about to do; with `dry_run` it is the whole answer.
    Plan(Plan),
    /// The facts that were asked for.
    List(List),
    /// A worker's environment. Any number of them, then `Done`.
    Environ(Environ),
    /// The process ids that were asked for.
    Pids {
        /// One per worker, 0 where none runs.
        pids: Vec<i32>,
    },
    /// Somebody is there.
    Pong {
        /// The supervisor's process id.
        pid: i32,
    },
    /// Done as wished.
    Done(Done),
    /// Not done.
    Error(Error),
}

/// What `apply` does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Nothing of it is done.
    pub dry_run: bool,
    /// Each app.
    pub apps: Vec<PlanApp>,
    /// Workers that are not named, because there are too many.
    pub omitted: u32,
}

/// One app's part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanApp {
    /// Its name, with its namespace unless that is `default`.
    pub app: String,
    /// `add`, `start`, `reload`, `restart`, `scale`, `define`, `delete` or `keep`.
    pub step: String,
    /// Each reason: which key changed, `new app`, `unchanged` … Values of variables are not shown.
    pub why: Vec<String>,
    /// Its workers.
    pub workers: Vec<PlanWorker>,
}

/// One worker's part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanWorker {
    /// Its number within the app.
    pub instance: u32,
    /// Its id; null where it does not exist yet.
    pub id: Option<u32>,
    /// `start`, `replace`, `stop` or `keep`.
    pub action: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// A sentence for people.
    pub message: String,
    /// The apps it was done to.
    pub apps: Vec<String>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What the client exits with: 1 failed, 2 usage or configuration.
    pub code: i32,
    /// What, where, why, and what to do.
    pub message: String,
    /// One entry per app that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<AppFailure>,
}

/// One app's failure, with what its worker said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppFailure {
    /// Its name.
    pub app: String,
    /// A short word for the reason: `exited`, `not_ready`, `unwell`, `spawn`, `no_room`, `superseded`,
    /// `rolled_back`, `nothing_held`, `unknown`, `dependency`, `unreadable`.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// The failed worker's last lines, oldest first (20 at most).
    pub last_lines: Vec<String>,
}

/// One step of a wish that is under way: what a terminal shows live and `--json` prints line by line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The app.
    pub app: String,
    /// A fixed word: `starting`, `ready`, `draining`, `exited`, `late`, `spawn_failed`, `backing_off`,
    /// `errored`, `unwell`, `drain_timed_out`, `drain_cut_short`, `kill_timed_out`, `reload_started`,
    /// `reload_narrowed`, `canary`, `promoted`, `rolled_back`, `reload_progress`, `reload_done`,
    /// `reload_failed`, `stopped`, `deleted`, `ended`, `awaits`, `forgone`, `left_running`.
    pub event: String,
    /// The slot's id, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The worker's number within its app, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<u32>,
    /// The process, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The generation, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Workers done, for a roll-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u32>,
    /// Workers in all, for a roll-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
    /// The sentence for people.
    pub message: String,
}

/// A line of a worker's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The app.
    pub app: String,
    /// The app's namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The worker's number within its app.
    pub instance: u32,
    /// Which output.
    pub stream: Stream,
    /// The bytes without the newline; what is not UTF-8 is replaced in this form only.
    pub text: String,
    /// When the supervisor read it (RFC 3339, UTC): of a worker that is read late, later than it wrote it. Not
    /// there where the supervisor does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// A supervisor that does not tell has no apps of one name that could be taken for each other.
fn default_namespace() -> String {
    "default".to_owned()
}

impl Line {
    /// Who printed it, as people are shown it: `api-0`, or `shop/api-0` outside of the namespace `default`.
    pub fn label(&self) -> String {
        match self.namespace.as_str() {
            "default" => format!("{}-{}", self.app, self.instance),
            namespace => format!("{namespace}/{}-{}", self.app, self.instance),
        }
    }
}

/// `list --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// The version of this shape.
    pub version: u32,
    /// The supervisor.
    pub daemon: DaemonInfo,
    /// Its apps.
    pub apps: Vec<AppInfo>,
}

/// The supervisor itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonInfo {
    /// Its process id.
    pub pid: i32,
    /// Its version.
    pub version: String,
    /// Since its start.
    pub uptime_ms: u64,
    /// Its home folder.
    pub home: String,
    /// Whether its workers have control groups of their own, and why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub control_groups: String,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppInfo {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// `fork` or `cluster`.
    pub mode: String,
    /// PM2's word for the whole.
    pub status: String,
    /// The generation that is wanted.
    pub generation: u32,
    /// Workers wanted.
    pub instances: u32,
    /// Where it serves.
    pub listen: Vec<String>,
    /// Where it is held open, and nobody serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unserved: Vec<UnservedInfo>,
    /// What it depends on and is not ready, while it waits for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// Files are watched for it: their change replaces its workers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watching: bool,
    /// What its connections show that somebody should know, where they were counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The roll-out under way, or the last one if it failed.
    pub reload: Option<ReloadInfo>,
    /// Its workers.
    pub workers: Vec<WorkerInfo>,
    /// What `describe` adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<AppDetail>,
}

/// An address at which clients wait for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnservedInfo {
    /// The address.
    pub listen: String,
    /// Connections that wait in its queue.
    pub waiting: u32,
}

/// A roll-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadInfo {
    /// `progressing`, `canary` (held at a share), `rolling back`, `rolled back`, `held` or `failed`.
    pub state: String,
    /// Workers replaced.
    pub done: u32,
    /// Workers to replace.
    pub total: u32,
    /// What the new generation gets of the new connections while the reload is held at a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_percent: Option<u8>,
    /// Why it stopped.
    pub reason: Option<String>,
}

/// One slot's worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The slot, counted over all apps from 0.
    pub id: u32,
    /// Its number within the app, from 0.
    pub instance: u32,
    /// Its first process; null where none runs.
    pub pid: Option<i32>,
    /// PM2's word.
    pub status: String,
    /// Proven ready, and not leaving.
    pub ready: bool,
    /// Ready without ever having listened: a queue consumer, or a server that nobody will reach.
    #[serde(default)]
    pub no_listener: bool,
    /// What it says of its state (`STATUS=` of sd_notify), without control characters, 256 characters at
    /// most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_text: Option<String>,
    /// Which version it runs.
    pub generation: u32,
    /// Since its start.
    pub uptime_ms: u64,
    /// Replacements of every kind.
    pub restarts: u32,
    /// Unstable exits in a row.
    pub unstable_restarts: u32,
    /// Of one CPU, over the whole tree, since the look before.
    pub cpu_percent: Option<f64>,
    /// Sum of RSS over the whole tree.
    pub memory_bytes: Option<u64>,
    /// Open connections: when they were asked for, and always of a worker that leaves.
    pub connections: Option<u32>,
    /// Connections that wait in its accept queues: with `connections`, where it listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// What these queues can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_limit: Option<u32>,
    /// Attempts to connect that the kernel dropped because one was full, repeated ones among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_dropped: Option<u32>,
    /// How the slot's last process ended.
    pub last_exit: Option<LastExitInfo>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExitInfo {
    /// Its exit code; null for a death by signal.
    pub code: Option<i32>,
    /// The signal's name; null for an exit.
    pub signal: Option<String>,
    /// `crash`, `exit`, `daemonised`, `stop`, `reload`, `restart`, `scale`, `kill_timeout`, `spawn` …
    pub reason: String,
    /// The sentence, where the words above do not say it all: why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// RFC 3339, UTC.
    pub at: String,
}

/// What `describe` adds to an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDetail {
    /// The ecosystem file it came from.
    pub file: Option<String>,
    /// Its profile.
    pub profile: Option<String>,
    /// What runs, as one would type it.
    pub command: String,
    /// The absolute path of the program or script that a bare word means, where it is found in PATH; not there where
    /// a path says it, and where nothing is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The working directory.
    pub cwd: String,
    /// Where standard output goes.
    pub out_file: Option<String>,
    /// Where standard error goes.
    pub error_file: Option<String>,
    /// Where both go as well.
    pub log_file: Option<String>,
    /// Lines that were over `log_rate_limit` and are in no log; not there where there never was a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_lines_left_out: Option<u64>,
    /// Lines that journald did not take; not there where none went there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_lines_dropped: Option<u64>,
    /// Names of declared variables; values are not shown.
    pub env: Vec<String>,
    /// The files and folders that are watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watches: Vec<String>,
    /// How ports are shared: the level that holds, in words.
    pub sharing: String,
    /// The control groups of its workers, where they have such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupInfo>,
    /// What was told by flags since, and holds over its definition: lines of a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Every setting with its value and unit, in the words of the file.
    pub settings: BTreeMap<String, String>,
}

/// The control group of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// The worker's number within the app.
    pub instance: u32,
    /// The group's folder.
    pub path: String,
    /// What was written to its files.
    pub bounds: BTreeMap<String, String>,
}
