//! The whole contract between the supervisor and the world: [`Event`]s (facts and wishes) go in,
//! [`Action`]s (orders) come out. Both are plain data; no process id ever reaches the core.

use std::collections::BTreeSet;
use std::time::Duration;

pub use super::address::Address;
use super::headroom::{Headroom, Shortage, Stock};
use super::policy::{AppName, Policy, SpecId};
pub use super::spread::Spread;
use super::time::Time;

/// One process that a slot's worker began as. Never reused, and never a process id: a late fact about
/// a worker that is gone cannot be mistaken for one about its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// One app, as long as it is known to the supervisor. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub u32);

/// A place for one worker: the `id` column. Counts over all apps from 0, and stays with its place over
/// every replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u32);

/// Counts the versions of an app's definition that were started, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// One listening socket of which the shell holds a duplicate. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// One wish of a client, which gets exactly one [`Action::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How a process ended (wait(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExitStatus {
    /// It called exit with this code.
    Code(i32),
    /// This signal ended it. Never an exit code 0.
    Signal(i32),
}

/// Why a worker could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpawnFailure {
    /// What was being done, for people: `exec "/srv/api/server"`, `chdir`, `listen on 0.0.0.0:80`.
    pub step: String,
    /// The error number (errno(3)); 0 where none applies.
    pub errno: i32,
    /// The whole sentence: what, why, and what to do.
    pub message: String,
    /// The host lacked something for a moment (EAGAIN, ENOMEM, EMFILE): tried again with back-off and
    /// not charged to the app.
    pub transient: bool,
}

/// What a worker said about itself, over the notify socket or Node's channel. The shell has checked
/// that the sender belongs to the worker's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// `READY=1`.
    Ready,
    /// Node's `process.send('ready')`.
    Sent,
    /// `STOPPING=1`: it leaves by itself; its exit is not a crash.
    Stopping,
    /// `EXTEND_TIMEOUT_USEC=`: it needs this much longer from now on.
    Extend(Duration),
    /// `RELOADING=1`: it is busy with itself until `READY=1`, and not to be judged by its silence.
    Reloading,
    /// `WATCHDOG=1`: it is well.
    KeepAlive,
    /// `WATCHDOG=trigger`: it wants to be replaced.
    Trigger,
    /// `WATCHDOG_USEC=`: from now on it says that it is well once in this time; zero: never again.
    Interval(Duration),
    /// `ERRNO=`: why it is about to fail (errno(3)).
    Errno(i32),
}

/// What a worker is asked by a connection, or a command, of the supervisor's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Whether it is ready (`ready = "http:/path"`).
    Ready,
    /// Whether it is well (`health`).
    Health,
}

/// Where a connection reaches one worker and no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spot {
    /// A socket from which it takes connections.
    pub socket: SocketId,
    /// That socket's position in the kernel's array.
    pub position: u32,
    /// Where all other new connections go on going.
    pub active: Spread,
}

/// One look at whether a worker does anything about the clients that wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pulse {
    /// Connections in the accept queues of its sockets.
    pub queued: u32,
    /// CPU time that its tree has used so far, in clock ticks.
    pub ticks: u64,
}

/// One look at a leaving worker's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Traffic {
    /// Connections in the accept queues of its sockets, and handshakes that were begun towards them.
    pub queued: u32,
    /// Accepted connections that are not finished.
    pub busy: u32,
    /// A connection among them may be ended between two requests, if its moment is met.
    pub promising: bool,
    /// Connections that were ended between two requests so far.
    pub ended: u32,
    /// What the look cost; the next one keeps a multiple of it away.
    pub cost: Duration,
}

/// Which connections of a leaving worker a look may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closing {
    /// Each at its own quiet moment.
    AtQuietMoments,
    /// The same when half of the time is over, and who is never quiet is helped to be.
    Late,
    /// The same in the last moments, when the alternative is to be cut.
    Last,
    /// Who was idle for `drain_idle`: the server was told to stop, and ends the others itself.
    WhenIdle,
}

/// Which workers of an app a wish is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of them: the app itself.
    All,
    /// The one in this slot.
    Slot(SlotId),
}

/// An app as the shell resolved it: only valid data enters the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Definition {
    /// Unique within its namespace.
    pub name: String,
    /// A label that works as a target.
    pub namespace: String,
    /// The validated numbers.
    pub policy: Policy,
    /// What its workers run.
    pub spec: SpecId,
}

impl Definition {
    /// Its name and namespace.
    pub fn called(&self) -> AppName {
        AppName { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// The new number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scale {
    /// Exactly so many.
    To(u32),
    /// So many more.
    Up(u32),
    /// So many fewer; at least one stays.
    Down(u32),
}

impl Scale {
    /// What becomes of so many; at least one.
    pub fn of(self, now: u32) -> u32 {
        match self {
            Scale::To(count) => count,
            Scale::Up(more) => now.saturating_add(more),
            Scale::Down(fewer) => now.saturating_sub(fewer),
        }
        .max(1)
    }
}

/// What was wished of an app beside its definition: with that, all that brings it back as it is meant to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kept {
    /// Workers wanted.
    pub instances: u32,
    /// The slots that were stopped, by their place in the order of instance, from 0.
    pub resting: BTreeSet<u32>,
    /// Something that it depends on was stopped, or deleted, and it ran on without: it does not wait for that now.
    pub unordered: bool,
}

/// A wish. Each is about one app, but for the last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Make an app known under an id that the shell chose, and start it.
    Add {
        /// A number never used before.
        app: AppId,
        /// What it is.
        definition: Definition,
    },
    /// The same for an app of an earlier supervisor, as it was meant to be there; `autostart` is not asked.
    Restore {
        /// A number never used before.
        app: AppId,
        /// What it is.
        definition: Definition,
        /// What was wished of it.
        kept: Kept,
    },
    /// Start what is stopped or errored; a new definition is taken over first. Running workers stay.
    Start {
        /// Whom.
        app: AppId,
        /// All of it or one slot.
        scope: Scope,
        /// The file as it is now, when the wish came with one.
        definition: Option<Definition>,
    },
    /// Count restarts from zero again.
    Reset {
        /// Whose.
        app: AppId,
        /// All of it or one slot.
        scope: Scope,
    },
    /// Stop, then start, all at once.
    Restart {
        /// Whom.
        app: AppId,
        /// All of it or one slot.
        scope: Scope,
        /// The file as it is now, when the wish came with one.
        definition: Option<Definition>,
    },
    /// Replace every worker without a gap (in fork mode: one after the other, stop then start).
    Reload {
        /// Whom.
        app: AppId,
        /// The file as it is now, where the app came from one; else the definition that is known.
        definition: Option<Definition>,
    },
    /// Take a definition over for the app's next start, and leave it stopped. What runs is reloaded.
    Define {
        /// Whom.
        app: AppId,
        /// What it is from now on.
        definition: Definition,
    },
    /// Take a definition over that changes nothing about the workers that run, which stay. A reload under way goes on
    /// with it, and is waited for. Where it does change something, it is a reload.
    Adjust {
        /// Whom.
        app: AppId,
        /// What it is from now on.
        definition: Definition,
        /// What it was compared with: where the app is not on its way to that any more, it is a reload.
        known: SpecId,
    },
    /// Drain and stop. Wins over everything that is under way.
    Stop {
        /// Whom.
        app: AppId,
        /// All of it or one slot.
        scope: Scope,
    },
    /// Stop, then forget.
    Delete {
        /// Whom.
        app: AppId,
        /// All of it or one slot.
        scope: Scope,
    },
    /// Change the number of instances.
    Scale {
        /// Whom.
        app: AppId,
        /// To how many.
        scale: Scale,
    },
    /// Let a reload that is held at its canary's share go on.
    Promote {
        /// Whose.
        app: AppId,
    },
    /// Take a reload back: one that is held, or under way, or that failed and left a mix.
    Rollback {
        /// Whose.
        app: AppId,
    },
    /// Drain and stop every app in reverse order of their start, then end the supervisor.
    Shutdown {
        /// The bound on the whole of it.
        within: Duration,
        /// What the supervisor's process exits with.
        code: i32,
    },
    /// As [`Command::Shutdown`], but every tree is killed now.
    ShutdownNow {
        /// What the supervisor's process exits with.
        code: i32,
    },
}

impl Command {
    /// What an app is to be made, or made anew, by.
    pub fn definition(&self) -> Option<&Definition> {
        match self {
            Command::Add { definition, .. }
            | Command::Restore { definition, .. }
            | Command::Define { definition, .. }
            | Command::Adjust { definition, .. } => Some(definition),
            Command::Start { definition, .. }
            | Command::Restart { definition, .. }
            | Command::Reload { definition, .. } => definition.as_ref(),
            Command::Stop { .. }
            | Command::Delete { .. }
            | Command::Scale { .. }
            | Command::Reset { .. }
            | Command::Promote { .. }
            | Command::Rollback { .. }
            | Command::Shutdown { .. }
            | Command::ShutdownNow { .. } => None,
        }
    }
}

/// How closely memory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closeness {
    /// What is resident, in each process that shares it: a look that costs next to nothing.
    Resident,
    /// What processes share counts once: a look that takes its time.
    Shared {
        /// In bytes, what was resident when this was asked for.
        resident: u64,
    },
}

/// What the world tells the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "a wish is large, rare, and moved a few times at most")]
pub enum Event {
    /// The program of this worker runs (exec succeeded).
    Started {
        /// Who.
        worker: WorkerId,
    },
    /// It never ran; this worker is gone.
    SpawnFailed {
        /// Who.
        worker: WorkerId,
        /// Why.
        failure: SpawnFailure,
    },
    /// Its start was begun: there is a process on its way to the program. Until then the order waits its turn, and
    /// no clock of the worker runs.
    Begun {
        /// Who.
        worker: WorkerId,
    },
    /// `Action::Signal` came before their starts were begun: those were let go of, so that nothing of these workers
    /// ever runs. All that were dropped together are told of together: there may be hundreds.
    Dropped {
        /// Who.
        workers: BTreeSet<WorkerId>,
    },
    /// The shell opened a declared socket for this worker; it is last in its group now, and listening.
    Opened {
        /// For whom.
        worker: WorkerId,
        /// The new socket.
        socket: SocketId,
        /// Its group.
        address: Address,
    },
    /// The worker was handed one more duplicate of a socket that listens for all of its app: its part of it.
    Joined {
        /// Who.
        worker: WorkerId,
        /// The part.
        socket: SocketId,
        /// Where it listens.
        address: Address,
        /// It is the host's: whoever comes waits in it, also while no worker is there.
        of_host: bool,
    },
    /// No client can come to this part of a shared socket any more: its path is gone, or a worker shut it down
    /// for all. Said again as long as it is so.
    Unreachable {
        /// One part of it.
        socket: SocketId,
    },
    /// The answer to `Action::Withdraw` where a worker cannot be kept from a shared queue.
    CannotLeave {
        /// Who.
        worker: WorkerId,
        /// It is told to stop by a message, which only a server that finishes what it has listens to.
        handles: bool,
    },
    /// The worker called listen(2) on a socket of its own; it is last in its group now.
    Listening {
        /// Who.
        worker: WorkerId,
        /// The new socket.
        socket: SocketId,
        /// Its group.
        address: Address,
    },
    /// A worker that lives has closed this socket of its own; only our duplicate keeps it.
    Abandoned {
        /// Which.
        socket: SocketId,
    },
    /// A worker shut this socket of its own down, which took it out of its group. Where several were shut before
    /// one could listen again, all are told as gone first, then those that listen again.
    ShutDown {
        /// Which.
        socket: SocketId,
        /// The shell listens on it again: it is last in its group now.
        again: bool,
    },
    /// The worker itself waits for connections on a socket that it was handed.
    Accepting {
        /// Who.
        worker: WorkerId,
        /// The socket it was handed.
        socket: SocketId,
    },
    /// It said something about itself.
    Said {
        /// Who.
        worker: WorkerId,
        /// What.
        word: Word,
    },
    /// Its first process ended.
    Exited {
        /// Who.
        worker: WorkerId,
        /// How.
        status: ExitStatus,
        /// Processes of its tree live on; `Gone` follows when the last of them ended.
        left: bool,
    },
    /// The last process of its tree ended, after `Exited { left: true }`.
    Gone {
        /// Whose.
        worker: WorkerId,
    },
    /// The answer to `Action::Observe`.
    Observed {
        /// Whose traffic.
        worker: WorkerId,
        /// What was seen.
        traffic: Traffic,
    },
    /// The answer to `Action::Examine`: whether the worker has the unfinished request. Later once more,
    /// when it has ended that by itself.
    Examining {
        /// Who.
        worker: WorkerId,
        /// It has.
        holds: bool,
    },
    /// The answer to `Action::Weigh`.
    Weighed {
        /// Whose.
        app: AppId,
        /// What the tree of each takes, in bytes. Those that are gone are left out.
        weights: Vec<(WorkerId, u64)>,
        /// As it was asked for.
        how: Closeness,
    },
    /// Its stop signal went out, which may have waited behind those of many others.
    Told {
        /// Who.
        worker: WorkerId,
    },
    /// Its first process was seen to end; `Exited` follows, which may wait behind many others.
    Ended {
        /// Who.
        worker: WorkerId,
        /// When that was seen.
        at: Time,
    },
    /// The kernel killed it for want of memory; `Exited` follows.
    OutOfMemory {
        /// Who.
        worker: WorkerId,
    },
    /// The answer to `Action::Probe`.
    Probed {
        /// Who was asked.
        worker: WorkerId,
        /// What.
        question: Question,
        /// The answer came in time, and is good.
        passed: bool,
    },
    /// `Action::Probe` came to nothing, for want of something that the supervisor or the host lacks: it says
    /// nothing of the worker.
    Unasked {
        /// Who was to be asked.
        worker: WorkerId,
        /// What.
        question: Question,
    },
    /// The time of an app's `cron_restart` has come.
    Due {
        /// Whose.
        app: AppId,
    },
    /// Files that an app's `watch` names have changed, and are at rest again.
    Changed {
        /// Whose.
        app: AppId,
    },
    /// The answer to `Action::Feel`.
    Felt {
        /// Whose.
        worker: WorkerId,
        /// What was seen.
        pulse: Pulse,
    },
    /// The answer to `Action::Relay`: nobody waits in this socket's queue any more.
    Relayed {
        /// Which.
        socket: SocketId,
    },
    /// The answer to `Action::Measure`.
    Measured {
        /// For which app.
        app: AppId,
        /// What there is for more of its workers.
        headroom: Headroom,
    },
    /// The answer to `Action::Gauge`.
    Gauged {
        /// Of which app.
        app: AppId,
        /// How many wait in each accept queue.
        depths: Vec<(SocketId, u32)>,
        /// What the look cost.
        cost: Duration,
    },
    /// Addresses of this host came or went: what failed for want of one may succeed.
    AddressesChanged,
    /// A wish of a client.
    Command {
        /// Under which the reply is expected.
        request: RequestId,
        /// What is wished.
        command: Command,
    },
    /// Everything that happened until then was told: what is due by it is judged. Facts are told one by one, and
    /// who was to end by a moment may have, as one of those tells that are still to come.
    Deadline {
        /// Not after the time that it is told at.
        heard: Time,
    },
}

impl Event {
    /// What a fact is about.
    pub(super) fn subject(&self) -> Subject {
        match self {
            Event::Started { worker }
            | Event::SpawnFailed { worker, .. }
            | Event::Opened { worker, .. }
            | Event::Joined { worker, .. }
            | Event::CannotLeave { worker, .. }
            | Event::Listening { worker, .. }
            | Event::Accepting { worker, .. }
            | Event::Said { worker, .. }
            | Event::Exited { worker, .. }
            | Event::Gone { worker }
            | Event::Observed { worker, .. }
            | Event::OutOfMemory { worker }
            | Event::Examining { worker, .. }
            | Event::Probed { worker, .. }
            | Event::Unasked { worker, .. }
            | Event::Felt { worker, .. }
            | Event::Told { worker }
            | Event::Ended { worker, .. }
            | Event::Begun { worker } => Subject::Worker(*worker),
            Event::Relayed { socket }
            | Event::Abandoned { socket }
            | Event::ShutDown { socket, .. }
            | Event::Unreachable { socket } => Subject::Socket(*socket),
            Event::Measured { app, .. }
            | Event::Weighed { app, .. }
            | Event::Gauged { app, .. }
            | Event::Due { app }
            | Event::Changed { app } => Subject::App(*app),
            Event::Command { .. }
            | Event::Deadline { .. }
            | Event::AddressesChanged
            | Event::Dropped { .. } => Subject::All,
        }
    }

    /// The worker of whose tree nothing is left with this fact.
    pub fn ends(&self) -> Option<WorkerId> {
        match self {
            Event::Exited { worker, left: false, .. }
            | Event::Gone { worker }
            | Event::SpawnFailed { worker, .. } => Some(*worker),
            Event::Exited { .. }
            | Event::Told { .. }
            | Event::Ended { .. }
            | Event::Begun { .. }
            | Event::Dropped { .. }
            | Event::Started { .. }
            | Event::Opened { .. }
            | Event::Joined { .. }
            | Event::CannotLeave { .. }
            | Event::Unreachable { .. }
            | Event::Listening { .. }
            | Event::Accepting { .. }
            | Event::Said { .. }
            | Event::Observed { .. }
            | Event::Examining { .. }
            | Event::Weighed { .. }
            | Event::OutOfMemory { .. }
            | Event::Probed { .. }
            | Event::Unasked { .. }
            | Event::Felt { .. }
            | Event::Relayed { .. }
            | Event::Abandoned { .. }
            | Event::ShutDown { .. }
            | Event::Measured { .. }
            | Event::Gauged { .. }
            | Event::Due { .. }
            | Event::Changed { .. }
            | Event::AddressesChanged
            | Event::Command { .. }
            | Event::Deadline { .. } => None,
        }
    }
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// One worker.
    Worker(WorkerId),
    /// One socket.
    Socket(SocketId),
    /// One app as a whole.
    App(AppId),
    /// No one of them.
    All,
}

/// Which signal an [`Action::Signal`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignalKind {
    /// The app's `kill_signal` to the worker's first process, or to what is left of its tree when that
    /// is gone; with SIGCONT, so that a stopped process hears it.
    Stop,
    /// SIGKILL to every process of the tree.
    Kill,
}

/// What the supervisor orders.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Start a worker. Answered by `Started` or `SpawnFailed`.
    Spawn {
        /// Its new id.
        worker: WorkerId,
        /// Of which app.
        app: AppId,
        /// In which slot.
        slot: SlotId,
        /// Its number within the app, from 0 (`NODE_APP_INSTANCE`).
        instance: u32,
        /// Of which generation.
        generation: Generation,
        /// What to run.
        spec: SpecId,
        /// Declared sockets of this slot whose worker died: the new one takes them over, with the
        /// connections that wait in them. For declared addresses without one the shell opens a socket.
        inherit: Vec<SocketId>,
    },
    /// Send a signal.
    Signal {
        /// To whom.
        worker: WorkerId,
        /// Which.
        signal: SignalKind,
    },
    /// Look at a leaving worker's traffic, and close each connection at its own quiet moment. Answered
    /// by `Observed`.
    Observe {
        /// Whose.
        worker: WorkerId,
        /// Which may be ended.
        closing: Closing,
    },
    /// Make a connection to this worker, and to no other, with a request on it that is never finished.
    /// Answered by `Examining`.
    Examine {
        /// Who.
        worker: WorkerId,
        /// A socket from which it takes connections.
        socket: SocketId,
        /// Its position in the kernel's array.
        position: u32,
        /// Where all other new connections go on going.
        active: Spread,
    },
    /// End that connection.
    LetGo {
        /// Whose.
        worker: WorkerId,
    },
    /// Ask this worker, and no other, whether it is ready or well. Answered by `Probed` or `Unasked`, always.
    Probe {
        /// Whom.
        worker: WorkerId,
        /// What.
        question: Question,
        /// How long it may take.
        timeout: Duration,
        /// Where a connection reaches it; none where it listens nowhere, or a command asks.
        spot: Option<Spot>,
    },
    /// Look at the queues of a worker's sockets and at its CPU time. Answered by `Felt`.
    Feel {
        /// Whose.
        worker: WorkerId,
    },
    /// Look whether the worker waits on a socket it was handed. Answered by `Accepting`, or not at all.
    Inspect {
        /// Who.
        worker: WorkerId,
    },
    /// Look how much memory the trees of these workers take. Answered by `Weighed`: one answer for all, since
    /// each costs a look at the whole app.
    Weigh {
        /// Whose.
        app: AppId,
        /// Which.
        workers: Vec<WorkerId>,
        /// How closely.
        how: Closeness,
    },
    /// Look what is left of memory and descriptors for more workers of this app. Answered by `Measured`.
    Measure {
        /// Which.
        app: AppId,
    },
    /// Look how many wait in the accept queues of these sockets. Answered by `Gauged`.
    Gauge {
        /// Whose.
        app: AppId,
        /// Which.
        sockets: Vec<SocketId>,
    },
    /// New connections of this socket's group go to the sockets at these positions of the kernel's
    /// array, and to no other.
    Steer {
        /// Any socket of the group.
        socket: SocketId,
        /// Positions, never none, and how they share.
        active: Spread,
    },
    /// Let no new handshake reach this socket: nobody is left to steer to, and clients are to be refused
    /// rather than let in and thrown out. Its queue and handshakes under way stay.
    Shut {
        /// Which.
        socket: SocketId,
    },
    /// The worker takes no more connections from the queue that this is a part of: it leaves, and others
    /// serve. Looks at its traffic tell whether it has stopped taking them. Answered by `CannotLeave`, or
    /// not at all.
    Withdraw {
        /// Its part.
        socket: SocketId,
    },
    /// It takes them again: nobody else is left.
    Admit {
        /// Its part.
        socket: SocketId,
    },
    /// Hand whoever waits in this socket's queue to a live worker. Answered by `Relayed`.
    Relay {
        /// A socket whose worker is gone.
        socket: SocketId,
    },
    /// Close the held duplicate; the socket leaves its group.
    Close {
        /// Which.
        socket: SocketId,
    },
    /// No generation uses this spec any more.
    Forget {
        /// Which.
        spec: SpecId,
    },
    /// The one final answer to a request.
    Reply {
        /// To which.
        request: RequestId,
        /// The answer.
        outcome: Outcome,
    },
    /// Something happened that people want to read: the log, and clients that watch.
    Report {
        /// What.
        fact: Fact,
    },
    /// End the supervisor's process.
    Exit {
        /// With this code.
        code: i32,
    },
}

/// The final answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done as wished.
    Done,
    /// The reload is held at its canary's share until it is promoted or rolled back.
    Holds {
        /// Of new connections.
        percent: u8,
    },
    /// Not done, or undone.
    Failed(Failure),
}

/// Why a wish failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The app, or the slot, is not known (any more).
    Unknown,
    /// A worker of the wished state ended before it was ready (or before `min_healthy_time`).
    Died {
        /// Which.
        worker: WorkerId,
        /// How.
        status: ExitStatus,
        /// Why.
        cause: Cause,
        /// After how long.
        lived: Duration,
        /// It had been ready, but not for `min_healthy_time`.
        ready: bool,
    },
    /// A worker could not be started.
    Spawn {
        /// Which.
        worker: WorkerId,
        /// Why.
        failure: SpawnFailure,
    },
    /// A worker was not ready within `listen_timeout`.
    NotReady {
        /// Which.
        worker: WorkerId,
        /// The limit it missed.
        limit: Duration,
        /// Where its predecessors serve and it does not listen.
        missing: Vec<Address>,
        /// Where it listens instead.
        found: Vec<Address>,
    },
    /// A worker of the wished state was ready, and then found not to be well.
    Unwell {
        /// Which.
        worker: WorkerId,
        /// What is the matter.
        trouble: Trouble,
    },
    /// A worker that was to end was killed, and does not end.
    Unkillable {
        /// Which.
        worker: WorkerId,
    },
    /// The host has no room for two generations at a time.
    NoRoom {
        /// What is missing.
        shortage: Shortage,
    },
    /// A later stop, delete or shutdown won.
    Superseded,
    /// It was deleted, and its last workers have not ended yet.
    BeingDeleted,
    /// The operator took it back.
    RolledBack,
    /// There is no reload to promote or to roll back.
    NothingHeld,
    /// The reload under way is not held at a share.
    NothingToPromote,
    /// An app that it depends on is not ready.
    Dependency {
        /// Which.
        on: AppName,
        /// Why.
        obstacle: Obstacle,
    },
}

/// Why an app that another one depends on is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    /// Its last start failed; it is tried again.
    Failing,
    /// It was not ready in `listen_timeout`, and is waited for.
    Late,
    /// It waits for another app, which is not ready either.
    Waiting,
    /// It is stopped, or about to be.
    Stopped,
    /// It ended for good, and not well.
    Ended,
    /// It was given up.
    Errored,
    /// No app of that name is known, or it is being deleted.
    Unknown,
}

/// Why a worker is leaving, or left. The strings of `last_exit.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It ended unasked by a signal or a code other than 0.
    Crash,
    /// It ended unasked with code 0.
    Exit,
    /// It ended unasked with code 0 soon after its start, and processes of its tree live on: it put
    /// itself in the background.
    Daemonised,
    /// `stop`, `delete` or the supervisor's end.
    Stop,
    /// A reload replaced it, or took it back.
    Reload,
    /// `restart`.
    Restart,
    /// Fewer instances are wanted.
    Scale,
    /// Its tree took more than `max_memory_restart`.
    Memory,
    /// It reached `max_age`.
    Age,
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// It did not end in `kill_timeout` and was killed.
    KillTimeout,
    /// It could not be started, or was not ready in time beside the one that it was to follow.
    Spawn,
    /// Its health checks failed.
    Health,
    /// It was silent for longer than its watchdog allows, or asked to be replaced.
    Watchdog,
    /// It let its clients wait while it did nothing.
    Hung,
}

impl Cause {
    /// The contract's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Crash => "crash",
            Cause::Exit => "exit",
            Cause::Daemonised => "daemonised",
            Cause::Stop => "stop",
            Cause::Reload => "reload",
            Cause::Restart => "restart",
            Cause::Scale => "scale",
            Cause::Memory => "memory",
            Cause::Age => "age",
            Cause::OutOfMemory => "oom",
            Cause::KillTimeout => "kill_timeout",
            Cause::Spawn => "spawn",
            Cause::Health => "health",
            Cause::Watchdog | Cause::Hung => "watchdog",
        }
    }
}

/// What is the matter with a worker that was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// So many health checks in a row failed.
    Checks(u32),
    /// It has not said that it is well for this long.
    Silence(Duration),
    /// It asked to be replaced.
    Asked,
    /// Its clients have waited for this long, and it used no CPU time.
    Hang(Duration),
}

impl Trouble {
    /// Why it leaves.
    pub const fn cause(self) -> Cause {
        match self {
            Trouble::Checks(_) => Cause::Health,
            Trouble::Silence(_) | Trouble::Asked => Cause::Watchdog,
            Trouble::Hang(_) => Cause::Hung,
        }
    }
}

/// Why a worker that serves is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spent {
    /// Its tree takes more memory than it may.
    Memory {
        /// What it takes, in bytes.
        bytes: u64,
        /// What it may take, in bytes.
        limit: u64,
    },
    /// It is as old as it may become.
    Age {
        /// Since its start.
        lived: Duration,
    },
}

impl Spent {
    /// As a reason of its exit.
    pub const fn cause(self) -> Cause {
        match self {
            Spent::Memory { .. } => Cause::Memory,
            Spent::Age { .. } => Cause::Age,
        }
    }
}

/// How a worker that is to be replaced gets its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Renewal {
    /// The successor is ready for `min_healthy_time` before the worker leaves.
    Overlapping,
    /// The worker stops first: its app is in fork mode.
    StopThenStart,
    /// The worker stops first: the host has no room for both.
    MakingRoom(Shortage),
}

/// How a worker's readiness was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    /// It said so.
    Said,
    /// It listens, or waits on what it was handed.
    Listens,
    /// It is alive, and nothing more is asked of it (fork mode).
    Alive,
    /// It has lived long enough without ever listening (queue consumers).
    NoListener,
    /// It answered a question of the supervisor's own (`ready = "http:/path"`).
    Answered,
}

/// Why nothing comes of a `cron_restart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// A reload is under way or held: its workers are being replaced anyway.
    Reloading,
    /// A failed reload left a mix for the operator to look at.
    Held,
    /// It is about to start anyway.
    Starting,
    /// Somebody stopped it.
    Stopped,
}

/// What happened, for people. Rendered only by the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// A worker is being started.
    Starting {
        /// Of which app.
        app: AppId,
        /// In which slot.
        slot: SlotId,
        /// Who.
        worker: WorkerId,
    },
    /// A worker serves.
    Ready {
        /// Of which app.
        app: AppId,
        /// In which slot.
        slot: SlotId,
        /// Who.
        worker: WorkerId,
        /// How it was proven.
        proof: Proof,
        /// Since its start.
        after: Duration,
    },
    /// A worker missed `listen_timeout`.
    Late {
        /// Of which app.
        app: AppId,
        /// Who.
        worker: WorkerId,
        /// It stays `launching`: nobody else serves in its place. Else it leaves, and another is tried later.
        stays: bool,
    },
    /// A worker left the accept path.
    Draining {
        /// Of which app.
        app: AppId,
        /// Who.
        worker: WorkerId,
        /// Why.
        cause: Cause,
    },
    /// It turned out whether the app's server finishes its requests by itself upon `kill_signal`.
    Examined {
        /// Of which app.
        app: AppId,
        /// It does.
        finishes: bool,
    },
    /// A worker that serves is to be replaced, as soon as its turn comes.
    Spent {
        /// Of which app.
        app: AppId,
        /// In which slot.
        slot: SlotId,
        /// Who.
        worker: WorkerId,
        /// Why.
        why: Spent,
    },
    /// Its turn came.
    Renewing {
        /// Of which app.
        app: AppId,
        /// In which slot.
        slot: SlotId,
        /// How.
        how: Renewal,
    },
    /// A worker that was ready is not well: it is replaced.
    Unwell {
        /// Of which app.
        app: AppId,
        /// Who.
        worker: WorkerId,
        /// What is the matter.
        trouble: Trouble,
    },
    /// Its connections did not finish in `drain_timeout`.
    DrainTimedOut {
        /// Of which app.
        app: AppId,
        /// Who.
        worker: WorkerId,
        /// What was still there.
        traffic: Traffic,
    },
    /// The app may have no more processes at a time, and a worker is wanted: the oldest drain ends early.
    DrainCutShort {
        /// Of which app.
        app: AppId,
        /// Who.
        worker: WorkerId,
        /// What was still there.
        traffic: Traffic,
        /// Live workers that the app may have.
        limit: u32,
    },
    /// It did not end in `kill_timeout`: SIGKILL.
    KillTimedOut {
        /// Of which app.
        app: AppId,
        /// Who.
        worker: WorkerId,
    },
    /// It was killed and does not end: it sleeps where no signal wakes it.
    Unkillable {
        /// Of which app.
        app: AppId,
        /// Who.
        worker: WorkerId,
    },
    /// Its first process ended.
    Exited {
        /// Of which app.
        app: AppId,
        /// In which slot.
        slot: SlotId,
        /// Who.
        worker: WorkerId,
        /// How.
        status: ExitStatus,
        /// Why.
        cause: Cause,
        /// Such an end by itself is what the file provides for: no failure, and it is not started again.
        meant: bool,
        /// Since its start.
        lived: Duration,
        /// What it gave as its reason (`ERRNO=`).
        errno: Option<i32>,
    },
    /// It could not be started.
    SpawnFailed {
        /// Of which app.
        app: AppId,
        /// In which slot.
        slot: SlotId,
        /// Who.
        worker: WorkerId,
        /// Why.
        failure: SpawnFailure,
    },
    /// A slot waits before its next start.
    BackingOff {
        /// Of which app.
        app: AppId,
        /// Which slot.
        slot: SlotId,
        /// For how long.
        delay: Duration,
        /// Unstable exits in a row.
        unstable: u32,
    },
    /// A slot gave up.
    Errored {
        /// Of which app.
        app: AppId,
        /// Which slot.
        slot: SlotId,
        /// Unstable exits in a row.
        unstable: u32,
    },
    /// A roll-out began.
    ReloadStarted {
        /// Of which app.
        app: AppId,
        /// To which generation.
        generation: Generation,
        /// Workers to replace.
        total: u32,
    },
    /// The host has room for fewer workers at a time than `max_surge`: the reload goes on in smaller steps.
    ReloadNarrowed {
        /// Of which app.
        app: AppId,
        /// So many more workers fit.
        fits: u32,
        /// What is scarce.
        stock: Stock,
    },
    /// The new generation serves its share of the new connections, and the roll-out waits.
    CanaryHolds {
        /// Of which app.
        app: AppId,
        /// The new generation.
        generation: Generation,
        /// Its share.
        percent: u8,
        /// Its workers.
        workers: u32,
        /// Workers to replace.
        total: u32,
    },
    /// The roll-out goes on.
    CanaryPromoted {
        /// Of which app.
        app: AppId,
        /// The new generation.
        generation: Generation,
    },
    /// Its `cron_restart` has come.
    CronDue {
        /// Of which app.
        app: AppId,
        /// Its workers are replaced; else those that do not run are started.
        replaces: bool,
    },
    /// Its `cron_restart` has come, and nothing comes of it this time.
    CronPassed {
        /// Of which app.
        app: AppId,
        /// Why.
        why: Pass,
    },
    /// Its files have changed: its workers are replaced.
    FilesChanged {
        /// Of which app.
        app: AppId,
        /// After the reload that is under way.
        later: bool,
    },
    /// One more worker was replaced: its predecessor is gone.
    ReloadProgress {
        /// Of which app.
        app: AppId,
        /// Workers replaced.
        done: u32,
        /// Workers to replace.
        total: u32,
    },
    /// Every worker was replaced and the old ones are gone.
    ReloadDone {
        /// Of which app.
        app: AppId,
        /// The generation that serves.
        generation: Generation,
        /// Since its start.
        took: Duration,
    },
    /// The roll-out stopped.
    ReloadFailed {
        /// Of which app.
        app: AppId,
        /// The generation that failed.
        generation: Generation,
        /// Why.
        failure: Failure,
        /// What was left behind.
        left: OnReloadFailureTaken,
    },
    /// A slot's worker ended by itself, and is not started again.
    Ended {
        /// Of which app.
        app: AppId,
        /// Which slot.
        slot: SlotId,
        /// By this one of `stop_exit_codes`; none: by `autorestart = false`.
        code: Option<i32>,
    },
    /// An app is not started yet.
    Awaits {
        /// Which app.
        app: AppId,
        /// What it waits for first.
        on: AppName,
        /// That is stopped: it does not come by itself.
        stopped: bool,
    },
    /// An app is not started, since something that it depends on will not get ready by itself.
    Forgone {
        /// Which app.
        app: AppId,
        /// What it waited for.
        on: AppName,
        /// Why that is hopeless.
        obstacle: Obstacle,
    },
    /// An app has no worker any more, as was wished.
    Stopped {
        /// Which.
        app: AppId,
    },
    /// An app was forgotten.
    Deleted {
        /// Which.
        app: AppId,
    },
}

/// What a failed reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnReloadFailureTaken {
    /// No old worker had left: they serve on.
    Untouched,
    /// So many slots are being replaced back.
    RolledBack(u32),
    /// The mix stays for the operator.
    Held,
}
