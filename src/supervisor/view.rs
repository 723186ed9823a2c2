//! The read model: what `list`, `describe` and the log need to know, as plain data. Nothing decides
//! by reading a view.

use std::time::Duration;

use super::event::{Address, AppId, Cause, ExitStatus, Failure, Generation, SlotId, SpawnFailure, WorkerId};
use super::policy::{AppName, Mode, SpecId};
use super::time::Time;

/// PM2's words for a state, of a worker and of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Ready and serving.
    Online,
    /// Started, not ready yet.
    Launching,
    /// On its way out: draining, signalled, or its tree is not empty.
    Stopping,
    /// Not wanted, and nothing runs.
    Stopped,
    /// Given up after too many unstable exits.
    Errored,
    /// Waiting before the next start.
    WaitingRestart,
    /// Waiting until this host has an address to listen on.
    WaitingAddress,
    /// It was killed and does not end: in uninterruptible sleep no signal is heard.
    Unkillable,
}

impl Status {
    /// The contract's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Online => "online",
            Status::Launching => "launching",
            Status::Stopping => "stopping",
            Status::Stopped => "stopped",
            Status::Errored => "errored",
            Status::WaitingRestart => "waiting restart",
            Status::WaitingAddress => "waiting for address",
            Status::Unkillable => "unkillable",
        }
    }
}

/// All apps, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The apps.
    pub apps: Vec<AppView>,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppView {
    /// Its handle.
    pub app: AppId,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Fork or cluster.
    pub mode: Mode,
    /// The best word for the whole: online when every wanted worker is.
    pub status: Status,
    /// The generation that is wanted.
    pub generation: Generation,
    /// Workers wanted.
    pub instances: u32,
    /// Addresses that its ready workers serve.
    pub listen: Vec<Address>,
    /// Addresses that are held open while no ready worker serves them: clients wait there.
    pub unserved: Vec<Address>,
    /// The roll-out under way, or the last one if it failed.
    pub reload: Option<ReloadView>,
    /// What is not ready and must be before it starts; empty once it has.
    pub waits_for: Vec<AppName>,
    /// One row per slot, and one more for each worker that is on its way out of a slot beside its
    /// successor. In the order of instance, newest worker first.
    pub workers: Vec<WorkerView>,
}

impl AppView {
    /// What it is called, for people: as a target.
    pub fn called(&self) -> AppName {
        AppName { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// One roll-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadView {
    /// `progressing`, `canary`, `rolling back`, `rolled back`, `held` or `failed`.
    pub state: &'static str,
    /// Workers replaced.
    pub done: u32,
    /// Workers to replace.
    pub total: u32,
    /// What the new generation gets of the new connections while it is held at a share, in percent.
    pub share: Option<u8>,
    /// Why it stopped.
    pub failure: Option<Failure>,
}

/// What an app is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// What its workers will run, or do.
    pub spec: SpecId,
    /// So many.
    pub instances: u32,
    /// What has to happen until they do.
    pub reloading: Option<Reloading>,
}

/// A reload that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloading {
    /// It is under way, or waits for one that is.
    Going,
    /// It is held at a share of the new connections until the operator decides.
    Held {
        /// Which.
        percent: u8,
    },
}

/// One slot's worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// The slot.
    pub slot: SlotId,
    /// Its number within the app.
    pub instance: u32,
    /// The process, when there is one.
    pub worker: Option<WorkerId>,
    /// PM2's word.
    pub status: Status,
    /// Proven ready, and not leaving.
    pub ready: bool,
    /// Ready without ever having listened.
    pub no_listener: bool,
    /// The generation of the process, or of the next one.
    pub generation: Generation,
    /// Since it was started; zero without a process.
    pub uptime: Duration,
    /// Replacements of every kind since the slot was made.
    pub restarts: u32,
    /// Unstable exits in a row.
    pub unstable_restarts: u32,
    /// How the last process of the slot ended.
    pub last_exit: Option<LastExit>,
}

/// How a slot's last process ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LastExit {
    /// None when it never ran.
    pub status: Option<ExitStatus>,
    /// Why.
    pub cause: Cause,
    /// What kept it from running; none when it ran.
    pub failure: Option<SpawnFailure>,
    /// What it gave as its reason (`ERRNO=`).
    pub errno: Option<i32>,
    /// When.
    pub at: Time,
}

impl LastExit {
    /// It could not be started.
    pub const fn never_ran(failure: SpawnFailure, at: Time) -> LastExit {
        LastExit { status: None, cause: Cause::Spawn, failure: Some(failure), errno: None, at }
    }

    /// It ran, and ended.
    pub const fn ended(status: ExitStatus, cause: Cause, at: Time) -> LastExit {
        LastExit { status: Some(status), cause, failure: None, errno: None, at }
    }
}
