//! The ecosystem file: text → tree with places (`raw`) → [`Config`] (defaults applied, everything valid).
//!
//! Nothing here starts, opens or changes anything; only [`launch`] looks at the file system at each start, and
//! [`exposed`] at each load. The host's facts come in as [`Host`], so that every rule can be tested.

mod app;
mod appended;
mod bounds;
pub mod calendar;
pub mod changes;
mod check;
pub mod date;
mod depend;
pub mod env_file;
pub mod error;
pub mod exposed;
pub mod glob;
pub mod guarded;
mod health;
mod http;
pub mod ignore;
pub mod keys;
pub mod launch;
mod listen;
pub mod logs;
mod moved;
pub mod plan;
mod process;
mod raw;
mod reader;
mod render;
mod resolve;
mod schedule;
pub mod schema;
mod settings;
pub mod sharing;
mod size;
pub mod units;
mod value;
mod watch;
mod words;

#[cfg(any(test, fuzzing))]
pub(crate) use listen::fuzz as fuzz_listen;

pub use bounds::GroupBounds;
pub use error::{Diagnostics, Place, Problem};
pub use http::Http;
pub use process::{Account, FilterEnv, ProcessSettings, Resource, Rlimit};
pub use raw::{MAX_TEXT, decode};
pub use resolve::{load, load_changed};
pub use settings::settings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::supervisor::address::Address;
use crate::supervisor::policy::Policy;

/// What the file means on this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[daemon]`.
    pub daemon: DaemonConfig,
    /// `[[apps]]`, in the order of the file, limited by `--only`.
    pub apps: Vec<AppConfig>,
}

/// Facts of the host and of the call that the meaning of a file depends on.
#[derive(Clone, Debug)]
pub struct Host {
    /// CPUs this process may use: affinity and cgroup quota honoured, at least 1.
    pub parallelism: u32,
    /// Memory that this process and its workers may take in all, in bytes: the least limit of a control group
    /// above it, or the host's RAM. None where the host does not show it.
    pub memory: Option<u64>,
    /// The folder of the file (for standard input: the caller's), absolute.
    pub folder: PathBuf,
    /// `--env NAME`.
    pub profile: Option<String>,
    /// `--only a,b`; empty means all.
    pub only: Vec<String>,
}

/// `[daemon]`: the supervisor itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DaemonConfig {
    /// Where log files go by default; none means the home's `logs/`.
    pub log_dir: Option<PathBuf>,
    /// Whether default log files are written at all: they are, unless the file says no.
    pub log_files: Option<bool>,
    /// Where a supervisor in the foreground keeps its state; none means the home's own folder.
    pub state_dir: Option<PathBuf>,
    /// How often workers with a memory limit are weighed.
    pub poll_interval: Option<Duration>,
    /// The bound on a whole shutdown. It holds for all files together, hence none where this one says
    /// nothing.
    pub shutdown_timeout: Option<Duration>,
    /// Where it says over HTTP how it is; none where this file says nothing.
    pub http: Option<Http>,
}

/// `shutdown_timeout` where no file says anything.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(8);

/// `drain_idle` where the file says nothing.
pub const DRAIN_IDLE: Duration = Duration::from_secs(2);

/// One app: its numbers, and what its workers run.
#[derive(Clone, Debug, PartialEq)]
pub struct AppConfig {
    /// `[A-Za-z0-9._-]{1,64}`, unique in its namespace.
    pub name: String,
    /// A label that works as a target.
    pub namespace: String,
    /// What decisions need.
    pub policy: Policy,
    /// What the shell needs.
    pub spec: Spec,
}

/// What the workers of one generation run, and with what. Paths are absolute but not resolved: a
/// `current` symlink is followed at each start.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The working directory.
    pub cwd: PathBuf,
    /// What to run.
    pub program: Program,
    /// Between interpreter and script.
    pub interpreter_args: Vec<String>,
    /// After the script.
    pub args: Vec<String>,
    /// Declared environment: `env`, then `env_<profile>` over it.
    pub env: BTreeMap<String, String>,
    /// Sockets that the supervisor opens and hands over from descriptor 3 on.
    pub listen: Vec<Listen>,
    /// Servers that open their port themselves share it.
    pub intercept: bool,
    /// The number of `kill_signal`.
    pub kill_signal: i32,
    /// The path of `ready = "http:/path"`.
    pub ready_path: Option<String>,
    /// How a worker is asked whether it is well.
    pub check: Option<Check>,
    /// In place of `kill_signal` the message `shutdown` is sent over Node's channel, where there is one.
    pub shutdown_with_message: bool,
    /// A worker ends with all that it started; else its first process alone is signalled, and the rest stays.
    pub treekill: bool,
    /// How long a connection must be quiet until it counts as finished.
    pub drain_idle: Duration,
    /// Where standard output goes.
    pub out_file: LogTarget,
    /// Where standard error goes.
    pub error_file: LogTarget,
    /// What else there is to say about log files.
    pub logs: logs::LogSettings,
    /// As whom, and within which limits.
    pub process: ProcessSettings,
}

/// A question to one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A request for this path, to be answered with a status from 200 to 399.
    Http(String),
    /// A connection, to be accepted.
    Tcp,
    /// An argument vector, to end with code 0.
    Command(Vec<String>),
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A file relative to `cwd`, or a bare word to be looked up in PATH.
    Script {
        /// As written.
        script: String,
        /// Which program runs it.
        interpreter: Interpreter,
    },
    /// Text with blanks: `sh -c`.
    Shell(String),
    /// `command = [...]`: the exact argument vector; the first is looked up in PATH unless it holds a slash.
    Exact(Vec<String>),
}

/// Which program runs a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// By the script's extension; a file without a known one is executed.
    ByExtension,
    /// `none`: the file is executed.
    None,
    /// This program (looked up in PATH unless it holds a slash).
    Program(String),
}

/// One declared listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Its name in LISTEN_FDNAMES.
    pub name: String,
    /// Where; `":3000"` is `[::]` with `v6only` off, which is on for an IPv6 address that was written out.
    pub address: Address,
    /// The backlog for listen(2).
    pub backlog: i32,
    /// Who may connect to a Unix socket with a path.
    pub access: Access,
}

/// Mode and owner of a Unix socket's file: who may write to it may connect (unix(7)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The permission bits.
    pub mode: u32,
    /// The owner, by name or number; none for the supervisor's.
    pub user: Option<Account>,
    /// The group, by name or number; none for the supervisor's.
    pub group: Option<Account>,
}

impl Default for Access {
    fn default() -> Access {
        Access { mode: 0o660, user: None, group: None }
    }
}

impl Listen {
    /// Where, for the core.
    pub fn address(&self) -> Address {
        self.address
    }
}

/// Where a worker's output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// The default file in the log folder.
    Default,
    /// `/dev/null`, `NULL`.
    Discard,
    /// This file; one that cannot be opened is an error.
    File(PathBuf),
}
