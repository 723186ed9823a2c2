//! The supervisor's shell: waits, collects facts, has them decided, and performs the orders.
//!
//! ```text
//! wait     poll until the next deadline
//! collect  readiness, signals, waitpid, frames → inbox of events (translate, never decide)
//! decide   one clock read per turn; the core answers each event with actions
//! perform  each action is one call; its outcome is a new event at the back of the inbox
//! ```
//!
//! One thread, nothing in it waits for anything but the poll; log files are written beside it. The only place below `main` that uses
//! the log macros.

mod abroad;
mod afar;
mod apply;
mod backlog;
mod catalog;
mod check;
mod commands;
mod crons;
mod doors;
mod drain;
mod environment;
mod exam;
mod exposed;
mod files;
mod flush;
mod follow;
mod forward;
mod groups;
mod hangup;
mod headroom;
mod held;
mod host;
mod host_sockets;
mod http;
mod identity;
mod intercept;
mod journal;
mod keep;
mod kept;
mod knock;
mod known;
mod launch;
mod lead;
mod leftovers;
mod lend;
mod list;
mod lock;
mod looking;
mod manager;
mod multipath;
mod node;
mod notified;
mod options;
mod order;
mod outlive;
mod output;
mod overflow;
mod owner;
mod pace;
mod perform;
mod pidfiles;
mod probe;
mod processes;
mod ready;
mod relay;
mod replace;
mod report;
mod requests;
mod rest;
mod resurrect;
mod said;
mod saved;
mod send;
mod settings;
mod shared;
mod short;
mod signals;
mod sockets;
mod sources;
mod start;
mod state;
mod told;
mod trust;
mod unkillable;
mod unsteered;
mod unwell;
mod usage;
mod wake;
mod warned;
mod watched;
mod watches;
mod weigh;
mod withdraw;
mod wrappers;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use signal_hook_mio::v1_0::Signals;
use thiserror::Error;

/// What tells the processes of a worker from others: who outlives it on purpose takes them off.
pub const MARKS: [&str; 2] = [leftovers::RUN_VARIABLE, processes::WORKER_VARIABLE];

#[cfg(any(test, fuzzing))]
pub(crate) use node::fuzz as fuzz_node;
#[cfg(any(test, fuzzing))]
pub(crate) use notified::fuzz as fuzz_notify;
#[cfg(any(test, fuzzing))]
pub(crate) use saved::fuzz as fuzz_saved;
#[cfg(any(test, fuzzing))]
pub(crate) use state::fuzz as fuzz_state;

pub use apply::told as told_plan;
pub use options::Options;
pub use resurrect::{CLEARED, NOTHING_SAVED, clear_dump};

use crate::control::protocol::{Done, Reply};
use crate::control::server::{ClientId, Incoming, Readiness, Server};
use crate::home::{Home, HomeError};
use crate::logs::file::LogFile;
use crate::logs::files::{LogFiles, Lost};
use crate::logs::foreground::Foreground;
use crate::logs::logger::{self, Destination, Prefix};
use crate::logs::worker::BUFFER;
use crate::supervisor::event::{Action, AppId, Event, WorkerId};
use crate::supervisor::fold::{Folds, Repeats};
use crate::supervisor::time::Time;
use crate::supervisor::{Supervisor, WorkerRef};
use crate::sys::clock::Clock;
use crate::sys::connections::Diagnostics;
use crate::sys::handover::Bell;
use crate::sys::{self, inherited, process, rights, spawn};

use abroad::Abroad;
use backlog::Backlog;
use catalog::Catalog;
use crons::Crons;
use doors::Doors;
use files::{MainFile, Said};
use groups::Groups;
use headroom::Promises;
use held::Held;
use keep::Keeper;
use lock::Locks;
use looking::Lookings;
use notified::Notified;
use output::Output;
use overflow::Overflows;
use owner::Owners;
use processes::Processes;
use relay::Relays;
use requests::Requests;
use shared::SharedSockets;
use sockets::Sockets;
use sources::{Source, Tokens};
use start::Order;
use unsteered::Unsteered;
use warned::Warned;
use watches::Watches;
use weigh::Scales;

/// Tokens of the control server; all others lie above.
const CONTROL_TOKENS: usize = 1024;

/// Readiness events taken from one poll.
const EVENTS: usize = 256;

/// Events decided in one turn before the sources are looked at again.
const DECISIONS_PER_TURN: usize = 4096;

/// So long a turn decides and starts workers before the sources are looked at again: who asks over the control
/// socket waits for no more than that, however many workers start.
const DECIDING_TIME: Duration = Duration::from_millis(1);

/// Names of workers that are remembered for sentences about those that are gone.
const NAMES: usize = 4096;

/// Waits that may fail in a row, and the pause before the next.
const POLL_FAILURES: u32 = 100;
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// A wait from which on there is time for housekeeping, and how often that is done at most.
const LULL: Duration = Duration::from_millis(500);
const RELEASE_EVERY: Duration = Duration::from_secs(60);

/// How long the end waits for the reader of our own output.
const LAST_LINES_TIME: Duration = Duration::from_millis(500);

/// Why a supervisor could not run, or go on.
#[derive(Debug, Error)]
pub enum Error {
    /// Its folders are missing, or not safe.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Another one holds the lock.
    #[error(
        "a supervisor (pid {pid}) already runs for {home}; talk to it with `clusterd list`, or end it with \
         `clusterd kill`"
    )]
    Running {
        /// The first one's process id, as it wrote it.
        pid: String,
        /// Its runtime folder.
        home: String,
    },
    /// Another one, whose runtime folder is elsewhere, has its state in ours.
    #[error(
        "a supervisor (pid {pid}) already keeps its state in {state}, and two would run every app twice; talk to it \
         with `clusterd --home {runtime} list`, end it with `clusterd --home {runtime} kill`, or give this one \
         another home (CLUSTERD_HOME)"
    )]
    StateTaken {
        /// The first one's process id, as it wrote it.
        pid: String,
        /// The folder that both want.
        state: String,
        /// Where the first one is talked to.
        runtime: String,
    },
    /// The host refused something that nothing works without.
    #[error("{what}: {cause}")]
    Host {
        /// What was tried.
        what: String,
        /// What it answered.
        #[source]
        cause: io::Error,
    },
    /// The file that it was to start with.
    #[error("{0}")]
    File(String),
}

/// `what` failed with an I/O error.
fn host(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |cause| Error::Host { what, cause }
}

/// Runs a supervisor until it is told to end; returns the exit code.
///
/// # Errors
/// When it cannot start; what happens later is in its log.
pub fn run(mut options: Options) -> Result<i32, Error> {
    let ready = options.ready.take();
    let file = options.file.take();
    let resurrect = options.resurrect;
    let started = Daemon::new(options, file.is_some()).and_then(|mut daemon| {
        if let Some(file) = &file {
            daemon.start_file(file).map_err(|error| Error::File(error.message))?;
        }
        if resurrect {
            daemon.begin_with_saved();
        }
        Ok(daemon)
    });
    match started {
        Ok(daemon) => {
            if let Some(ready) = ready {
                ready.ready();
            }
            daemon.run()
        }
        Err(error) => {
            match (ready, &error) {
                (Some(ready), Error::Running { .. }) => ready.taken(&error.to_string()),
                (Some(ready), _) => ready.failed(&error.to_string()),
                (None, _) => {}
            }
            Err(error)
        }
    }
}

/// Everything the shell holds.
struct Daemon {
    clock: Clock,
    /// The one clock read of this turn.
    now: Time,
    /// Whatever happened before was collected: when the last wait began that left nothing out.
    heard: Time,
    poll: Poll,
    signals: Signals,
    server: Server,
    tokens: Tokens,
    supervisor: Supervisor,
    inbox: VecDeque<Event>,
    /// Sockets that entered or left the kernel's arrays: the core hears of them before anything else, so
    /// that its mirror is right whenever it decides.
    arrays: VecDeque<Event>,
    /// Workers that the core has ordered and that were not started yet.
    starts: VecDeque<Order>,
    backlog: Backlog,
    lookings: Lookings,
    /// Sources that had more than one turn's share.
    again: VecDeque<Source>,
    catalog: Catalog,
    processes: Processes,
    sockets: Sockets,
    shared: SharedSockets,
    /// Word of addresses that come and go, once somebody waits for one.
    addresses: Option<OwnedFd>,
    relays: Relays,
    leaving: HashMap<WorkerId, drain::Leaving>,
    exams: exam::Exams,
    probes: probe::Probes,
    unsteered: Unsteered,
    unseen: host::Unseen,
    /// When the last closer look at connections ended.
    looked_closer: Time,
    output: Output,
    outlived: outlive::Outlived,
    requests: Requests,
    held: Held,
    /// The notify sockets of workers of other users.
    abroad: Abroad,
    above: manager::Above,
    groups: Groups,
    notified: Notified,
    diagnostics: Option<Diagnostics>,
    buffer: Vec<u8>,
    /// Who each of the latest workers is, also when the core has forgotten it.
    names: BTreeMap<WorkerId, (String, WorkerRef)>,
    owners: Owners,
    overflows: Overflows,
    warned: Warned,
    folds: Folds,
    /// Listening sockets that workers shut down, as far as they were told of.
    hangups: Repeats,
    promises: Promises,
    scales: Scales,
    /// The core was told something since schedules and watches were last taken over from it.
    decided: bool,
    crons: Crons,
    watches: Watches,
    recorded: state::Recorded,
    /// When our own children were last looked through for orphans of workers.
    looked_for_orphans: Option<Time>,
    keeper: Keeper,
    home: Home,
    /// Held as long as the supervisor lives: one per home.
    locks: Locks,
    doors: Doors,
    surroundings: Surroundings,
    log_files: Option<bool>,
    shutdown_timeout: Said<Duration>,
    state_dir: Said<PathBuf>,
    http: http::Endpoint,
    main_file: MainFile,
    shutting_down: bool,
    /// SIGHUP is being carried out.
    hanging_up: bool,
    /// A slot gave up: maybe nothing can run any more.
    may_be_over: bool,
    /// Clients of `kill`, told when it is done.
    leaving_clients: Vec<ClientId>,
    exit: Option<i32>,
    /// Waits that failed since the last that did not.
    poll_failures: u32,
    /// When our own code was last given back to the page cache.
    released: Option<Time>,
}

/// What the supervisor found when it was started, and made of it.
struct Surroundings {
    /// For standard input of workers.
    null: File,
    /// This program's own file, for the example's `clusterd demo`.
    program: Option<PathBuf>,
    /// RLIMIT_NOFILE as it was, soft and hard: workers get it back.
    nofile: (u64, u64),
    page_size: u64,
    ticks_per_second: u64,
    on_terminal: bool,
    /// Whether descriptors of workers of our own user can be duplicated.
    may_duplicate: bool,
    /// And those of workers of other users.
    may_trace_others: bool,
    /// Whether /proc shows processes at all.
    shows_processes: bool,
}

impl Surroundings {
    /// Takes the process over: descriptors, limits, orphans and the working directory, which must stay
    /// removable (releases are pruned while the supervisor runs).
    fn take() -> Result<Surroundings, Error> {
        spawn::close_inherited_on_exec();
        let nofile = process::raise_descriptor_limit().map_err(host("raise RLIMIT_NOFILE"))?;
        process::become_subreaper().map_err(host("become a subreaper"))?;
        let program = host::own_program();
        std::env::set_current_dir("/").map_err(host("chdir /"))?;
        Ok(Surroundings {
            null: OpenOptions::new().read(true).open("/dev/null").map_err(host("open /dev/null"))?,
            program,
            nofile,
            page_size: sysconf(nix::unistd::SysconfVar::PAGE_SIZE, 4096),
            ticks_per_second: sysconf(nix::unistd::SysconfVar::CLK_TCK, 100),
            on_terminal: io::IsTerminal::is_terminal(&io::stdin()),
            may_duplicate: rights::may_duplicate().is_ok(),
            may_trace_others: rights::may_trace_others(),
            shows_processes: process::are_shown(),
        })
    }
}

impl Daemon {
    fn new(options: Options, has_file: bool) -> Result<Daemon, Error> {
        // Before anything else is opened under those numbers.
        let handed = inherited::take_all(&inherited::Announced::by_environment());
        let (home, locks, notes) = settle(options.home, options.notes, options.foreground)?;
        let surroundings = Surroundings::take()?;
        let (foreground, files) = install_log(options.foreground, options.json, &home)?;
        let recorded = host::begin(&home, &notes);
        let groups = Groups::take(Path::new("/"), &home.runtime);
        let keeper = Keeper::new(&home, has_file);
        let poll = Poll::new().map_err(host("epoll"))?;
        let mut tokens = Tokens::new(CONTROL_TOKENS);
        let (signals, notified, server) = listeners(&home, &poll, &mut tokens)?;
        Ok(Daemon {
            clock: Clock::new(),
            now: Time::START,
            heard: Time::START,
            poll,
            signals,
            server,
            tokens,
            supervisor: Supervisor::new(fastrand::u64(1..)),
            inbox: VecDeque::new(),
            arrays: VecDeque::new(),
            starts: VecDeque::new(),
            backlog: Backlog::default(),
            lookings: Lookings::default(),
            again: VecDeque::new(),
            catalog: Catalog::default(),
            processes: Processes::default(),
            sockets: Sockets::default(),
            shared: SharedSockets::with(handed),
            addresses: None,
            relays: Relays::default(),
            leaving: HashMap::new(),
            exams: exam::Exams::default(),
            probes: probe::Probes::default(),
            unsteered: Unsteered::default(),
            unseen: host::Unseen::default(),
            looked_closer: Time::START,
            output: Output::new(foreground, files),
            outlived: outlive::Outlived::default(),
            requests: Requests::default(),
            held: Held::default(),
            abroad: Abroad::default(),
            above: manager::Above::over(options.foreground),
            groups,
            notified,
            diagnostics: Diagnostics::open().ok(),
            buffer: vec![0; BUFFER],
            names: BTreeMap::new(),
            owners: Owners::default(),
            overflows: Overflows::default(),
            warned: Warned::default(),
            folds: Folds::default(),
            hangups: Repeats::default(),
            promises: Promises::default(),
            scales: Scales::new(),
            decided: false,
            crons: Crons::default(),
            watches: Watches::default(),
            recorded,
            looked_for_orphans: None,
            keeper,
            home,
            locks,
            doors: Doors::default(),
            surroundings,
            log_files: options.log_files,
            shutdown_timeout: Said::default(),
            state_dir: Said::default(),
            http: http::Endpoint::default(),
            main_file: MainFile::default(),
            shutting_down: false,
            hanging_up: false,
            may_be_over: false,
            leaving_clients: Vec::new(),
            exit: None,
            poll_failures: 0,
            released: None,
        })
    }

    fn run(mut self) -> Result<i32, Error> {
        self.watch_consoles().map_err(host("watch standard output"))?;
        self.watch_disks().map_err(host("watch log files"))?;
        self.clear_pid_files();
        self.now = self.read_clock();
        self.watch_doors();
        let pid = std::process::id();
        log::info!(
            "clusterd {} (pid {pid}) runs, home {}",
            env!("CARGO_PKG_VERSION"),
            self.home.runtime.display()
        );
        self.tell_host();
        self.tell_groups();
        let mut events = Events::with_capacity(EVENTS);
        self.now = self.read_clock();
        self.decide();
        loop {
            self.tell_unused();
            if let Some(code) = self.exit {
                self.farewell(code);
                return Ok(code);
            }
            if std::mem::take(&mut self.decided) {
                self.take_schedules();
                self.take_watches();
                self.settle_names();
            }
            self.keep_schedules();
            self.keep_watches();
            self.wait(&mut events)?;
            self.now = self.read_clock();
            self.collect_all(&events);
            self.decide();
            self.end_of_turn();
        }
    }

    fn read_clock(&self) -> Time {
        Time::from_start(self.clock.since_start())
    }

    fn wait(&mut self, events: &mut Events) -> Result<(), Error> {
        let began = self.read_clock();
        let timeout = self.time_to_wait(began);
        if timeout.is_none_or(|timeout| timeout >= LULL) {
            self.use_the_lull();
        }
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => self.endure(error),
            Err(_) => Ok(()),
            Ok(()) => {
                self.poll_failures = 0;
                // A list that is full may have left something out.
                if events.iter().count() < EVENTS && self.backlog.has_heard() {
                    self.heard = began;
                }
                Ok(())
            }
        }
    }

    /// The wait failed. Its end would be that of every worker, so it is made again for a while.
    fn endure(&mut self, error: io::Error) -> Result<(), Error> {
        self.poll_failures += 1;
        if self.poll_failures > POLL_FAILURES {
            return Err(host("poll")(error));
        }
        if self.poll_failures == 1 {
            log::error!("poll: {error}; it is tried again");
        }
        // Should this wait fail as well, the number of attempts bounds what they cost.
        let _ = sys::output::wait_for_room(&[], POLL_PAUSE);
        Ok(())
    }

    /// Nothing is to be done for a while: what the work until here needed of memory, for our own code too, is
    /// given back.
    fn use_the_lull(&mut self) {
        let now = self.read_clock();
        if self.released.is_some_and(|at| now.since(at) < RELEASE_EVERY) {
            return;
        }
        self.released = Some(now);
        self.output.files.release_spare();
        process::release_heap();
        if let Err(error) = process::release_code() {
            log::debug!("give code back: {error}");
        }
    }

    fn time_to_wait(&self, now: Time) -> Option<Duration> {
        if !self.inbox.is_empty()
            || !self.arrays.is_empty()
            || !self.starts.is_empty()
            || !self.backlog.is_empty()
            || !self.lookings.is_empty()
            || !self.again.is_empty()
            || self.server.wants_turn()
            || self.watches.is_scanning()
        {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.supervisor.next_deadline(),
            self.server.next_deadline(),
            self.output.next_deadline(now),
            self.relays.next_deadline(),
            self.exams.next_deadline(),
            self.probes.next_deadline(),
            self.next_vigil(),
            self.notified.next_deadline(),
            self.shared.next_deadline(),
            self.folds.next_deadline(),
            self.recorded.next_deadline(),
            self.keeper.next_deadline(),
            self.overflows.next_deadline(),
            self.unsteered.next_deadline(),
            self.watches.next_deadline(),
            self.doors.next_deadline(),
            self.http.next_deadline(),
            self.held.next_deadline(),
            self.above.next_deadline(),
            self.groups.next_deadline(),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.since(now))
    }

    fn collect_all(&mut self, events: &Events) {
        // What left its group did so before anything else of this turn is put into it.
        let listeners: Vec<_> = events
            .iter()
            .filter_map(|event| match self.tokens.get(event.token()) {
                Some(Source::Listener(socket)) => Some(socket),
                _ => None,
            })
            .collect();
        self.check_listeners(&listeners);
        let again = std::mem::take(&mut self.again);
        self.output.begin_turn(again.len());
        for source in again {
            self.collect_fairly(source);
        }
        self.read_rested();
        self.tell_of_ended();
        let mut incoming = Vec::new();
        for event in events {
            if self.server.owns(event.token()) {
                self.server.ready(event.token(), Readiness::from(event), self.now, &mut incoming);
            } else if let Some(source) = self.tokens.get(event.token()) {
                self.collect_fairly(source);
            }
        }
        if self.server.wants_turn() {
            self.server.turn(self.now, &mut incoming);
        }
        self.server.expire(self.now, &mut incoming);
        self.take_in(incoming);
        self.look_for_lists();
        // What could be answered at once goes out before what may take its time.
        if self.server.wants_turn() {
            let mut incoming = Vec::new();
            self.server.turn(self.now, &mut incoming);
            self.take_in(incoming);
        }
    }

    fn take_in(&mut self, incoming: Vec<Incoming>) {
        for incoming in incoming {
            match incoming {
                Incoming::Request { client, request } => self.request(client, *request),
                Incoming::Closed { client } => self.client_gone(client),
                Incoming::Refused { uid, pid } => {
                    log::warn!("control socket: pid {pid} of uid {uid} was refused");
                }
            }
        }
    }

    fn collect_fairly(&mut self, source: Source) {
        if self.collect(source) && !self.again.contains(&source) {
            self.again.push_back(source);
        }
    }

    /// Has everything in the inbox decided, and performs what comes of it.
    fn decide(&mut self) {
        // Behind everything that was collected. What came due during the wait is judged after the next, which is
        // over at once.
        let heard = self.backlog.has_heard() && self.backlog.has_told();
        if heard && self.supervisor.next_deadline().is_some_and(|at| at <= self.heard) {
            self.inbox.push_back(Event::Deadline { heard: self.heard });
        }
        self.output.retry(self.now);
        self.tell_left_out();
        self.show_unfinished();
        self.look_at_queues(self.now);
        self.look_at_exams(self.now);
        self.look_at_probes(self.now);
        self.keep_vigils();
        self.hear_again();
        self.look_after_shared();
        self.look_at_overflows();
        self.look_at_doors();
        self.look_after_http();
        self.groups.look_after(self.now);
        self.steer_again();
        let end = self.read_clock() + DECIDING_TIME;
        let mut actions: Vec<Action> = Vec::new();
        let mut started = false;
        for _ in 0..DECISIONS_PER_TURN {
            // Starting a worker can append to an array, so everything that is to be decided goes first.
            let next = self.send_next_signal() || self.decide_next(&mut actions);
            if !next && let Some(order) = self.starts.pop_front() {
                self.start_worker(&order);
                started = true;
            } else if !next && !self.weigh_next() {
                return;
            }
            if self.read_clock() >= end {
                break;
            }
        }
        // However many events come, starts go on.
        if !started && let Some(order) = self.starts.pop_front() {
            self.start_worker(&order);
        }
        // And who grows is found, however long that takes.
        self.weigh_next();
    }

    /// False where there is nothing to be decided.
    fn decide_next(&mut self, actions: &mut Vec<Action>) -> bool {
        let next = self.arrays.pop_front().or_else(|| self.inbox.pop_front());
        next.map(|event| self.decide_one(event, actions)).is_some()
    }

    fn decide_one(&mut self, event: Event, actions: &mut Vec<Action>) {
        self.decided = true;
        self.above.touch();
        let over = event.ends();
        if matches!(event, Event::Command { .. }) {
            self.keeper.touch(self.now);
        }
        self.may_be_over |= matches!(event, Event::Dropped { .. });
        if let Event::Gone { worker } = &event {
            self.tell_of_what_stays(*worker);
        }
        self.supervisor.handle(event, self.now, actions);
        // Before somebody is answered: what `stop` has stopped has no file any more.
        if let Some(worker) = over {
            self.retire_pid(worker);
        }
        for action in actions.drain(..) {
            if matches!(action, Action::Reply { .. }) {
                self.keeper.touch(self.now);
            }
            self.perform(action, self.now);
        }
        if let Some(worker) = over {
            self.bury(worker);
        }
    }

    /// Lets go of a start that was not carried out yet. True when there was one: nothing runs, nothing was opened
    /// for it, and what it was to inherit is still as the last worker left it.
    fn drop_start(&mut self, worker: WorkerId) -> bool {
        // They wait in the order in which they were ordered, which is that of their numbers.
        let Ok(place) = self.starts.binary_search_by_key(&worker, |order| order.worker) else { return false };
        self.starts.remove(place);
        match self.inbox.back_mut() {
            Some(Event::Dropped { workers }) => {
                workers.insert(worker);
            }
            _ => self.inbox.push_back(Event::Dropped { workers: BTreeSet::from([worker]) }),
        }
        true
    }

    fn end_of_turn(&mut self) {
        self.end_idle_knocks();
        self.record_state();
        self.keep_apps();
        self.tell_of_steady();
        for notice in self.output.take_notices() {
            let level = if notice.is_good() { log::Level::Info } else { log::Level::Warn };
            log::log!(level, "{notice}");
        }
        if self.may_be_over {
            self.may_be_over = false;
            self.end_if_nothing_runs();
        }
        self.feed_followers();
        self.output.flush(self.now);
        self.look_after_journal();
        for (worker, stream) in self.output.released(self.now) {
            self.again.push_back(Source::Output(worker, stream));
        }
        self.output.files.end_turn(self.now);
        self.release_replies();
        self.tell_manager();
    }

    /// The last of a worker is gone: what the shell held for it goes, too.
    fn bury(&mut self, worker: WorkerId) {
        self.outlive_or_end_output(worker);
        self.leaving.remove(&worker);
        self.unseen.cohorts.remove(&worker);
        self.let_go(worker);
        self.end_probe(worker);
        // A process whose exec failed is still to be reaped.
        if self.processes.get(worker).is_some_and(|p| p.failed) {
            return;
        }
        self.may_be_over = true;
        self.forget_process(worker);
    }

    /// Deregisters what was watched before its descriptors are closed.
    fn forget_process(&mut self, worker: WorkerId) {
        self.scales.forget(worker);
        self.retire_pid(worker);
        if let Some(process) = self.processes.remove(worker) {
            self.unwatch(&process.tokens);
            if let Some(group) = process.group {
                self.groups.release(group, self.now);
            }
        }
        self.close_unused_abroad();
    }

    fn unwatch(&mut self, tokens: &[(mio::Token, i32)]) {
        for (token, fd) in tokens {
            if let Err(error) = self.poll.registry().deregister(&mut SourceFd(fd)) {
                log::debug!("deregister: {error}");
            }
            self.tokens.release(*token);
        }
    }

    fn namespace(&self, app: AppId) -> String {
        self.catalog
            .app(app)
            .map_or_else(|| catalog::DEFAULT_NAMESPACE.into(), |record| record.namespace.clone())
    }

    /// What the names of an app's files begin with.
    fn file_stem(&self, app: AppId) -> String {
        self.catalog.app(app).map_or_else(|| self.app_name(app), catalog::Record::file_stem)
    }

    /// An app as people are told of it: as a target, with its namespace unless that is `default`.
    fn app_name(&self, app: AppId) -> String {
        self.catalog.app(app).map_or_else(|| format!("app {}", app.0), |record| record.called().to_string())
    }

    /// Its name alone.
    fn bare_name(&self, app: AppId) -> String {
        self.catalog.app(app).map_or_else(|| format!("app {}", app.0), |record| record.name.clone())
    }

    /// `api/0 pid 123 generation 2`: what every line about a worker begins with.
    fn label(&self, worker: WorkerId) -> String {
        let known = || {
            let place = self.supervisor.worker(worker)?;
            let app = self.app_name(place.app);
            Some(format!("{app}/{} generation {}", place.instance, place.generation.0))
        };
        let name = self.names.get(&worker).map(|(name, _)| name.clone()).or_else(known);
        let name = name.unwrap_or_else(|| format!("worker {}", worker.0));
        match self.processes.get(worker) {
            Some(process) => format!("{name} pid {}", process.pid),
            None => name,
        }
    }

    fn name_worker(&mut self, order: &Order) {
        let name =
            format!("{}/{} generation {}", self.app_name(order.app), order.instance, order.generation.0);
        let Order { app, slot, instance, generation, .. } = *order;
        self.names.insert(order.worker, (name, WorkerRef { app, slot, instance, generation }));
        while self.names.len() > NAMES {
            self.names.pop_first();
        }
    }

    /// The app of a worker that runs, or is remembered by name.
    fn app_of(&self, worker: WorkerId) -> Option<AppId> {
        let running = self.processes.get(worker).map(|process| process.app);
        running.or_else(|| self.names.get(&worker).map(|(_, place)| place.app))
    }

    /// What is the same for all apps on this host.
    fn warn_once(&mut self, what: &'static str, text: impl FnOnce() -> String) {
        if self.warned.first(what, None) {
            log::warn!("{}", text());
        }
    }

    /// That something of a worker is not seen: once for an app, unless it was told of the host as a whole.
    fn warn_unseen(&mut self, worker: WorkerId, what: &'static str, text: impl FnOnce() -> String) {
        if self.surroundings.shows_processes {
            self.warn_once_of(worker, what, text);
        }
    }

    /// What may be another matter in another app; `text` goes on after the worker's label.
    fn warn_once_of(&mut self, worker: WorkerId, what: &'static str, text: impl FnOnce() -> String) {
        if self.warned.first(what, self.app_of(worker)) {
            log::warn!("{}: {}", self.label(worker), text());
        }
    }

    /// Tells who waits for the end, and leaves nothing behind but logs.
    fn farewell(&mut self, code: i32) {
        self.send_signals();
        self.record_last_state();
        self.tell_left_behind();
        log::info!("clusterd ends with code {code}");
        // Who hears that it has ended may start another one at once.
        self.server.leave();
        let lost = self.write_last();
        self.release_all_replies();
        for client in std::mem::take(&mut self.leaving_clients) {
            let message = ["the supervisor has ended"].into_iter().chain(lost.as_deref());
            let done = Done { message: message.collect::<Vec<_>>().join("\n"), apps: Vec::new() };
            self.server.reply(client, &Reply::Done(done), true);
        }
        let mut ignored = Vec::new();
        for _ in 0..64 {
            if !self.server.wants_turn() {
                break;
            }
            self.server.turn(self.now, &mut ignored);
        }
        self.close_http();
        self.end_all_shared();
        if let Err(error) = fs::remove_file(self.notified.path()) {
            log::debug!("notify socket: {error}");
        }
        self.abroad = Abroad::default();
        self.last_lines();
    }

    /// Waits a while for the disks; what was not written, in words.
    fn write_last(&mut self) -> Option<String> {
        let Lost { bytes, paths } = self.output.files.drain_at_the_end()?;
        let mut paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        if paths.is_empty() {
            paths.push("those of workers that have ended".to_owned());
        }
        let lost = format!(
            "log files: {bytes} bytes could not be written in time and are lost: {}",
            paths.join(", ")
        );
        log::error!("{lost}");
        Some(lost)
    }

    /// Gives the reader of our own output a moment to take what is left.
    fn last_lines(&mut self) {
        let end = self.read_clock() + LAST_LINES_TIME;
        loop {
            let now = self.read_clock();
            self.output.flush(now);
            let waiting = self.output.descriptors_with_backlog();
            let left = end.since(now);
            if waiting.is_empty() || left.is_zero() || sys::output::wait_for_room(&waiting, left).is_err() {
                return;
            }
        }
    }
}

/// Where signals, the words of workers and the wishes of clients come in.
fn listeners(home: &Home, poll: &Poll, tokens: &mut Tokens) -> Result<(Signals, Notified, Server), Error> {
    let signals = take_signals(poll, tokens)?;
    let notified = Notified::open(home.notify(), poll, tokens)?;
    let server =
        Server::bind(&home.socket(), poll.registry(), 0..CONTROL_TOKENS).map_err(host("control socket"))?;
    Ok((signals, notified, server))
}

fn take_signals(poll: &Poll, tokens: &mut Tokens) -> Result<Signals, Error> {
    let mut signals = Signals::new(signals::TAKEN).map_err(host("take signals"))?;
    let token = tokens.allot(Source::Signals);
    poll.registry().register(&mut signals, token, Interest::READABLE).map_err(host("watch signals"))?;
    Ok(signals)
}

/// The home, with what is to be said about it.
fn settle(
    mut home: Home,
    mut notes: Vec<String>,
    foreground: bool,
) -> Result<(Home, Locks, Vec<String>), Error> {
    notes.extend(host::settle(&mut home, foreground)?);
    let locks = Locks::take(&home, &mut notes)?;
    Ok((home, locks, notes))
}

/// Where the supervisor's own log goes: standard error in the foreground, its file in the background.
fn install_log(foreground: bool, json: bool, home: &Home) -> Result<(Option<Foreground>, LogFiles), Error> {
    let levels = std::env::var("CLUSTERD_LOG").or_else(|_| std::env::var("RUST_LOG")).ok();
    let journal = std::env::var_os("JOURNAL_STREAM");
    let mut files = LogFiles::beside(Bell::new().map_err(host("eventfd"))?);
    files.write_in_a_panic();
    let (outputs, destination) = if foreground {
        let may_colour = std::env::var_os("NO_COLOR").is_none_or(|v| v == OsStr::new(""));
        let (out, err) = (io::stdout(), io::stderr());
        let mut outputs =
            Foreground::open(out.as_fd(), err.as_fd(), may_colour).map_err(host("open standard output"))?;
        outputs.know_journal(journal.as_deref());
        if json {
            outputs.set_json();
        }
        let destination = Destination::Console(outputs.err().clone());
        (Some(outputs), destination)
    } else {
        let own = LogFile::open(&home.log()).map_err(|e| host("log")(io::Error::other(e.to_string())))?;
        (None, Destination::File(files.keep_own(own)))
    };
    let prefix = Prefix::of(&destination, journal.as_deref());
    // A second supervisor in one process exists in tests only; it goes on with the first one's log.
    if let Err(error) = logger::install(destination, prefix, levels.as_deref()) {
        log::debug!("{error}");
    }
    Ok((outputs, files))
}

fn sysconf(name: nix::unistd::SysconfVar, default: u64) -> u64 {
    match nix::unistd::sysconf(name) {
        Ok(Some(value)) => u64::try_from(value).unwrap_or(default),
        Ok(None) | Err(_) => default,
    }
}
