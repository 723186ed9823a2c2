//! The validated numbers that decisions need. No paths, no argument vectors, no environment: what a
//! worker runs is the shell's matter and reaches the core only as a [`SpecId`].

use std::fmt;
use std::time::Duration;

use super::address::Address;
use super::event::ExitStatus;

/// Handle of what a generation runs (program, arguments, environment, files), kept by the shell.
///
/// The core pins one to each generation, so that a roll-back starts exactly what ran before, and
/// says by `Action::Forget` when the last use of one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecId(pub u64);

/// How the instances of an app relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One process at a time per slot; a reload stops the old one before it starts the new one.
    Fork,
    /// The instances share their ports; a reload overlaps the generations.
    Cluster,
}

/// What proves that a worker is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// The first of its word, over either way, and of its listening; without either, that it lives on.
    Auto,
    /// Its word, over either way: `wait_ready`.
    Word,
    /// `READY=1`.
    Notify,
    /// Node's `process.send('ready')`.
    Ipc,
    /// That it listens, wherever its predecessor did.
    Listen,
    /// That it is alive for `min_uptime`.
    Exec,
    /// That it answers a request of the supervisor's own well, at this door.
    Http(Door),
}

/// At which of the addresses that it listens on a worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// Nobody chose: the first TCP address that `listen` declares; where there is none, or the worker does not use
    /// it, the lowest port that it listens on.
    Any(Option<Address>),
    /// On this port.
    Port(u16),
    /// Where clients of this address come to.
    At(Address),
}

impl Door {
    /// Whether it may be asked there.
    pub fn admits(&self, address: &Address) -> bool {
        match self {
            Door::Any(_) => true,
            Door::Port(port) => address.port() == Some(*port),
            Door::At(chosen) => chosen.overlaps(address),
        }
    }
}

/// How a worker is asked whether it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Over a connection that is led to it, at this door.
    Connection(Door),
    /// By a command that is told its process id.
    Command,
}

/// Checks of one worker from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Health {
    /// How it is asked.
    pub way: Way,
    /// From one answer to the next question.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many bad answers in a row, at least 1, and it is replaced.
    pub retries: u32,
    /// So long after its start bad answers do not count, until the first good one.
    pub start_period: Duration,
}

/// What a failed reload leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnReloadFailure {
    /// The old generation serves on; slots that were already replaced are replaced back.
    Rollback,
    /// The mix of generations stays for the operator.
    Hold,
}

/// How much memory a worker may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryLimit {
    /// So many bytes each.
    Each(u64),
    /// So many bytes for all instances together, in equal shares.
    Shared(u64),
}

impl MemoryLimit {
    /// The limit of one of so many workers, in bytes.
    pub fn of_one(self, instances: u32) -> u64 {
        match self {
            MemoryLimit::Each(bytes) => bytes,
            MemoryLimit::Shared(bytes) => bytes / u64::from(instances.max(1)),
        }
    }
}

/// An app by name, as others depend on it: it may be deleted and come again under another id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName {
    /// Its namespace.
    pub namespace: String,
    /// Unique within it.
    pub name: String,
}

impl fmt::Display for AppName {
    /// As a target: the name alone in the namespace `default`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "default" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// Which worker a new connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Any of them, by lot.
    Spread,
    /// Always the same one for each client's address.
    SourceIp,
}

/// Moments of the wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Five or six fields, or a name such as `@daily`.
    pub pattern: String,
    /// The name of the time zone that it is read in; none: the host's.
    pub zone: Option<String>,
}

/// Files whose change has the workers replaced. The shell knows what the words mean.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    /// Files and folders, from the app's working directory on; at least one.
    pub paths: Vec<String>,
    /// What is not looked at, beside what nobody looks at: patterns as in `.gitignore`.
    pub ignore: Vec<String>,
    /// For how long they must be at rest.
    pub delay: Duration,
}

/// One app's validated numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Workers wanted, at least 1 (the shell has resolved `max` and negative numbers).
    pub instances: u32,
    /// Fork or cluster.
    pub mode: Mode,
    /// `listen` declares at least one address: every worker must prove that it accepts.
    pub declares_listen: bool,
    /// What counts as ready.
    pub ready: Readiness,
    /// How long a worker may take until it is ready.
    pub listen_timeout: Duration,
    /// Between `kill_signal` and SIGKILL.
    pub kill_timeout: Duration,
    /// A worker that ends sooner than this after its start was unstable.
    pub min_uptime: Duration,
    /// Unstable exits in a row until the slot is `errored`; 0 never gives up.
    pub max_restarts: u32,
    /// Least wait before a crashed worker is started again.
    pub restart_delay: Duration,
    /// First wait of the growing back-off; zero switches it off.
    pub exp_backoff_restart_delay: Duration,
    /// Workers that a reload replaces at a time, at least 1.
    pub max_surge: u32,
    /// How long a new worker must stay ready before its predecessor leaves.
    pub min_healthy_time: Duration,
    /// What a failed reload leaves behind.
    pub on_reload_failure: OnReloadFailure,
    /// How long a leaving worker may take for its connections.
    pub drain_timeout: Duration,
    /// A worker whose tree takes more than this is replaced; none: no limit.
    pub max_memory_restart: Option<MemoryLimit>,
    /// How often workers that have such a limit are weighed.
    pub poll_interval: Duration,
    /// A worker is replaced when it is so old, or up to a tenth younger; none: never.
    pub max_age: Option<Duration>,
    /// When its workers are replaced by the wall clock; none: never.
    pub cron_restart: Option<Schedule>,
    /// Files whose change has its workers replaced; none: no files.
    pub watch: Option<Watch>,
    /// Whether a ready worker is asked how it is, and when.
    pub health: Option<Health>,
    /// How long a ready worker may go without saying that it is well.
    pub watchdog: Option<Duration>,
    /// How long a worker's clients may wait while it uses no CPU time.
    pub hang_timeout: Option<Duration>,
    /// A worker that ends by itself is started again.
    pub autorestart: bool,
    /// A worker that exits by itself with one of these is not. A death by signal is none of them.
    pub stop_exit_codes: Vec<i32>,
    /// A new app is started, rather than only made known.
    pub autostart: bool,
    /// The supervisor has no purpose without this app.
    pub essential: bool,
    /// The app is started when all of these are ready.
    pub depends_on: Vec<AppName>,
    /// Which worker a new connection goes to.
    pub balance: Balance,
    /// The share of new connections, in percent (1 to 99), at which a reload is held.
    pub canary: Option<u8>,
}

impl Policy {
    /// Whether a worker that ended like this by itself is not started again.
    pub fn is_final(&self, status: ExitStatus) -> bool {
        !self.autorestart || self.is_stop_code(status)
    }

    /// Whether the end of a worker can be for good, so that nobody takes its place before its code is known.
    pub fn can_end(&self) -> bool {
        !self.autorestart || !self.stop_exit_codes.is_empty()
    }

    /// Whether this is an end that the file declares, or that every program means well by.
    pub fn is_good(&self, status: ExitStatus) -> bool {
        status == ExitStatus::Code(0) || self.is_stop_code(status)
    }

    /// Whether workers that were started with these numbers go on as they are with the new ones: those only say how
    /// they are judged, replaced and ended.
    pub fn goes_on_as(&self, new: &Policy) -> bool {
        // Whether, how and where it is asked is the worker's matter, how often and how patiently is not.
        let way = |policy: &Policy| policy.health.map(|health| health.way);
        let judged = Policy {
            instances: new.instances,
            listen_timeout: new.listen_timeout,
            kill_timeout: new.kill_timeout,
            min_uptime: new.min_uptime,
            max_restarts: new.max_restarts,
            restart_delay: new.restart_delay,
            exp_backoff_restart_delay: new.exp_backoff_restart_delay,
            max_surge: new.max_surge,
            min_healthy_time: new.min_healthy_time,
            on_reload_failure: new.on_reload_failure,
            drain_timeout: new.drain_timeout,
            max_memory_restart: new.max_memory_restart,
            poll_interval: new.poll_interval,
            max_age: new.max_age,
            cron_restart: new.cron_restart.clone(),
            watch: new.watch.clone(),
            health: new.health,
            autorestart: new.autorestart,
            stop_exit_codes: new.stop_exit_codes.clone(),
            autostart: new.autostart,
            essential: new.essential,
            depends_on: new.depends_on.clone(),
            canary: new.canary,
            ..self.clone()
        };
        judged == *new && way(self) == way(new)
    }

    fn is_stop_code(&self, status: ExitStatus) -> bool {
        match status {
            ExitStatus::Code(code) => self.stop_exit_codes.contains(&code),
            ExitStatus::Signal(_) => false,
        }
    }
}

impl Default for Policy {
    /// The defaults of the ecosystem file (product contract, section 2).
    fn default() -> Policy {
        Policy {
            instances: 1,
            mode: Mode::Fork,
            declares_listen: false,
            ready: Readiness::Auto,
            listen_timeout: Duration::from_secs(30),
            kill_timeout: Duration::from_millis(1600),
            min_uptime: Duration::from_secs(1),
            max_restarts: 16,
            restart_delay: Duration::ZERO,
            exp_backoff_restart_delay: Duration::from_millis(100),
            max_surge: 1,
            min_healthy_time: Duration::from_secs(1),
            on_reload_failure: OnReloadFailure::Rollback,
            drain_timeout: Duration::from_secs(30),
            max_memory_restart: None,
            poll_interval: Duration::from_secs(1),
            max_age: None,
            cron_restart: None,
            watch: None,
            health: None,
            watchdog: None,
            hang_timeout: None,
            autorestart: true,
            stop_exit_codes: Vec::new(),
            autostart: true,
            essential: false,
            depends_on: Vec::new(),
            balance: Balance::Spread,
            canary: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_by_signal_is_no_exit_code() {
        let codes = Policy { stop_exit_codes: vec![0, 9, 15], ..Policy::default() };
        let never = Policy { autorestart: false, ..Policy::default() };
        // Final with codes, final without autorestart, well meant with codes.
        let table = [
            (ExitStatus::Code(0), true, true, true),
            (ExitStatus::Code(9), true, true, true),
            (ExitStatus::Code(1), false, true, false),
            (ExitStatus::Signal(9), false, true, false),
            (ExitStatus::Signal(0), false, true, false),
        ];
        for (status, by_code, by_never, well) in table {
            assert_eq!(codes.is_final(status), by_code, "{status:?}");
            assert_eq!(never.is_final(status), by_never, "{status:?}");
            assert_eq!(codes.is_good(status), well, "{status:?}");
            assert!(!Policy::default().is_final(status), "{status:?}");
        }
    }

    #[test]
    fn workers_go_on_with_numbers_that_only_judge_them() {
        let second = Duration::from_secs(1);
        let health = Health {
            way: Way::Connection(Door::Any(None)),
            interval: second,
            timeout: second,
            retries: 3,
            start_period: second,
        };
        let old = Policy { health: Some(health), ..Policy::default() };
        let of = |policy: Policy| old.goes_on_as(&policy);
        let base = || old.clone();
        assert!(of(base()) && of(Policy { instances: 9, ..base() }));
        assert!(of(Policy {
            max_memory_restart: Some(MemoryLimit::Each(1)),
            max_age: Some(second),
            ..base()
        }));
        assert!(of(Policy { health: Some(Health { retries: 9, ..health }), ..base() }));
        for other in [
            Policy { health: None, ..base() },
            Policy { health: Some(Health { way: Way::Command, ..health }), ..base() },
            Policy { health: Some(Health { way: Way::Connection(Door::Port(80)), ..health }), ..base() },
            Policy { mode: Mode::Cluster, ..base() },
            Policy { declares_listen: true, ..base() },
            Policy { ready: Readiness::Notify, ..base() },
            Policy { watchdog: Some(second), ..base() },
            Policy { hang_timeout: Some(second), ..base() },
            Policy { balance: Balance::SourceIp, ..base() },
        ] {
            assert!(!of(other.clone()), "{other:?}");
        }
    }

    #[test]
    fn a_name_is_a_target() {
        let name = |namespace: &str| AppName { namespace: namespace.into(), name: "db".into() };
        assert_eq!(name("default").to_string(), "db");
        assert_eq!(name("shop").to_string(), "shop/db");
    }
}
