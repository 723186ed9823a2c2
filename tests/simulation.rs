//! Seeded simulation: several apps, scripted processes with virtual time, operators who want
//! everything at once, and a world that is late, doubles and lies.
//!
//! `CLUSTERD_SIM_SEED` replays one seed, `CLUSTERD_SIM_SEEDS` and `CLUSTERD_SIM_STEPS` widen the sweep.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[cfg(debug_assertions)]
use clusterd::supervisor::Bug;
use clusterd::supervisor::address::UnixName;
use clusterd::supervisor::event::*;
use clusterd::supervisor::headroom::{Good, Headroom, Stock};
use clusterd::supervisor::policy::{
    AppName, Balance, Door, Health, MemoryLimit, Mode, OnReloadFailure, Policy, Readiness, Schedule, SpecId,
    Watch, Way,
};
use clusterd::supervisor::time::Time;
use clusterd::supervisor::view::AppView;
use clusterd::supervisor::{Probe, Stage, Supervisor};

const APPS: u32 = 3;

/// xorshift64*: enough to choose from, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// The kernel, the shell and the operators around one supervisor.
struct World {
    seed: u64,
    dice: Dice,
    supervisor: Supervisor,
    now: Time,
    /// Until when the supervisor was told everything.
    heard: Time,
    /// What is going to be told, by when; the number keeps the order of equals.
    agenda: BTreeMap<(Time, u64), Event>,
    told: u64,
    alive: BTreeSet<WorkerId>,
    ended: BTreeSet<WorkerId>,
    /// When the first stop signal of each went out.
    signalled: BTreeMap<WorkerId, Time>,
    /// All is to end within a bound of its own.
    ending: bool,
    /// Those that were on their way out before the last fact.
    leaving: BTreeSet<WorkerId>,
    kernel: BTreeMap<Address, Vec<SocketId>>,
    hidden: BTreeSet<SocketId>,
    /// Shut down by their workers, and held.
    fallen: BTreeSet<SocketId>,
    /// Parts of shared sockets: in no array.
    parts: BTreeMap<SocketId, WorkerId>,
    sockets: u64,
    requests: u64,
    /// Workers that finish what they have before they end, and those that do so now.
    graceful: BTreeSet<WorkerId>,
    waiting: BTreeSet<WorkerId>,
    /// Whose start was ordered, and not begun.
    queued: BTreeMap<WorkerId, AppId>,
    open: BTreeSet<RequestId>,
    trace: Vec<Action>,
    over: bool,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            seed,
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            supervisor: Supervisor::new(seed),
            now: Time::START,
            heard: Time::START,
            agenda: BTreeMap::new(),
            told: 0,
            alive: BTreeSet::new(),
            ended: BTreeSet::new(),
            signalled: BTreeMap::new(),
            ending: false,
            leaving: BTreeSet::new(),
            kernel: BTreeMap::new(),
            hidden: BTreeSet::new(),
            fallen: BTreeSet::new(),
            parts: BTreeMap::new(),
            sockets: 0,
            requests: 0,
            graceful: BTreeSet::new(),
            waiting: BTreeSet::new(),
            queued: BTreeMap::new(),
            open: BTreeSet::new(),
            trace: Vec::new(),
            over: false,
        }
    }

    fn address(app: AppId) -> Address {
        let port = 3000 + u16::try_from(app.0).unwrap();
        Address::Tcp { ip: std::net::Ipv4Addr::UNSPECIFIED.into(), port, v6only: false }
    }

    fn name(app: AppId) -> AppName {
        AppName { namespace: "default".into(), name: format!("app{}", app.0) }
    }

    fn definition(&mut self, app: AppId) -> Definition {
        let policy = Policy {
            instances: 1 + u32::try_from(self.dice.roll(4)).unwrap(),
            mode: if app.0 == 1 { Mode::Fork } else { Mode::Cluster },
            listen_timeout: Duration::from_secs(5),
            max_surge: 1 + u32::try_from(self.dice.roll(2)).unwrap(),
            on_reload_failure: [OnReloadFailure::Rollback, OnReloadFailure::Hold]
                [usize::from(self.dice.one_in(4))],
            max_memory_restart: (app.0 != 2).then_some(MemoryLimit::Each(100)),
            max_age: self.dice.one_in(3).then_some(Duration::from_secs(20)),
            cron_restart: (app.0 != 3).then(|| Schedule { pattern: "@hourly".into(), zone: None }),
            watch: (app.0 != 2).then(|| Watch {
                paths: vec![".".into()],
                ignore: Vec::new(),
                delay: Duration::from_millis(200),
            }),
            health: self.dice.one_in(2).then_some(Health {
                way: Way::Connection(Door::Any(None)),
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                retries: 2,
                start_period: Duration::from_secs(self.dice.roll(3)),
            }),
            watchdog: self.dice.one_in(4).then_some(Duration::from_secs(20)),
            hang_timeout: self.dice.one_in(4).then_some(Duration::from_secs(6)),
            ready: if self.dice.one_in(5) { Readiness::Http(Door::Any(None)) } else { Readiness::Auto },
            autorestart: !self.dice.one_in(10),
            stop_exit_codes: if self.dice.one_in(4) { vec![0] } else { Vec::new() },
            autostart: !self.dice.one_in(10),
            depends_on: if app.0 == 3 {
                vec![World::name(AppId(1)), World::name(AppId(2))]
            } else {
                Vec::new()
            },
            canary: self.dice.one_in(4).then_some(30),
            balance: [Balance::Spread, Balance::SourceIp][usize::from(self.dice.one_in(3))],
            ..Policy::default()
        };
        self.told += 1;
        let spec = SpecId(self.told);
        Definition { name: format!("app{}", app.0), namespace: "default".into(), policy, spec }
    }

    fn soon(&mut self, most: u64, event: Event) {
        self.told += 1;
        let at = self.now + Duration::from_millis(self.dice.roll(most));
        self.agenda.insert((at, self.told), event);
    }

    fn wish(&mut self, command: Command) {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.open.insert(request);
        self.tell(Event::Command { request, command });
    }

    fn operator(&mut self) {
        let app = AppId(1 + u32::try_from(self.dice.roll(u64::from(APPS))).unwrap());
        let definition = self.dice.one_in(2).then(|| self.definition(app));
        let slot = SlotId(u32::try_from(self.dice.roll(6)).unwrap());
        let scope = if self.dice.one_in(4) { Scope::Slot(slot) } else { Scope::All };
        let command = match self.dice.roll(14) {
            12 => Command::Promote { app },
            13 => Command::Rollback { app },
            0 => Command::Stop { app, scope },
            1 | 2 => Command::Start { app, scope, definition },
            3 => Command::Restart { app, scope, definition },
            6 if self.dice.one_in(3) => Command::Define { app, definition: self.definition(app) },
            4 | 5 => Command::Scale { app, scale: Scale::To(1 + u32::try_from(self.dice.roll(4)).unwrap()) },
            7 if self.dice.one_in(3) => {
                let definition = self.definition(app);
                let course = self.supervisor.course(app).filter(|_| self.dice.one_in(2));
                let known = course.map_or(definition.spec, |course| course.spec);
                Command::Adjust { app, definition, known }
            }
            6 if self.dice.one_in(3) => Command::Delete { app, scope: Scope::Slot(slot) },
            _ => Command::Reload { app, definition },
        };
        self.wish(command);
    }

    /// There is nothing left to tell of what happened until now.
    fn judge(&mut self) {
        self.heard = self.now;
        self.tell(Event::Deadline { heard: self.now });
    }

    /// Tells one fact, checks what follows, and lets the world do it.
    fn tell(&mut self, event: Event) {
        if let Event::Exited { worker, .. } = &event {
            self.ended.insert(*worker);
        }
        if let Some(worker) = event.ends() {
            self.alive.remove(&worker);
        }
        if let Event::Told { worker } = &event {
            self.signalled.entry(*worker).or_insert(self.now);
        }
        if let Event::Dropped { workers } = &event {
            self.alive.retain(|worker| !workers.contains(worker));
        }
        if let Event::Begun { worker } = &event
            && let Some(app) = self.queued.remove(worker)
        {
            self.begin(*worker, app);
        }
        if let Event::Listening { socket, address, .. } | Event::Opened { socket, address, .. } = &event {
            let array = self.kernel.entry(*address).or_default();
            // One that is bound elsewhere takes nobody in.
            if array.iter().all(|other| self.hidden.contains(other)) {
                array.clear();
            }
            array.push(*socket);
        }
        if let Event::ShutDown { socket, again } = &event
            && let Some(array) = self.kernel.values_mut().find(|array| array.contains(socket))
        {
            let hole = array.iter().position(|other| other == socket).unwrap();
            array.swap_remove(hole);
            if *again {
                if array.iter().all(|other| self.hidden.contains(other)) {
                    array.clear();
                }
                array.push(*socket);
            } else {
                self.fallen.insert(*socket);
            }
        }
        if let Event::Joined { worker, socket, .. } = &event {
            self.parts.insert(*socket, *worker);
        }
        let leaves = |probe: &Probe| probe.stage > Stage::Ready;
        self.leaving = self.supervisor.probe().iter().filter(|p| leaves(p)).map(|p| p.worker).collect();
        let mut out = Vec::new();
        let before = self.wanted();
        self.supervisor.handle(event, self.now, &mut out);
        self.check_started(&out, &before);
        // Before the world does anything about it: what it does at this moment was not there to be heard.
        out.iter().for_each(|action| self.check_heard(action));
        for action in &out {
            self.perform(action);
        }
        self.trace.extend(out);
        self.check();
    }

    /// The versions that somebody may be started of.
    fn wanted(&self) -> BTreeSet<(AppId, Generation)> {
        let view = self.supervisor.view(self.now);
        let good = |app: AppId| Some((app, self.supervisor.good(app)?));
        let of = |app: &AppView| [Some((app.app, app.generation)), good(app.app)];
        view.apps.iter().flat_map(of).flatten().collect()
    }

    /// Nobody is started of a version that was taken back, or whose place another one took.
    fn check_started(&self, out: &[Action], before: &BTreeSet<(AppId, Generation)>) {
        let spawned = |action: &Action| {
            let Action::Spawn { app, generation, .. } = action else { return None };
            Some((*app, *generation))
        };
        let mut started = out.iter().filter_map(spawned).filter(|of| !before.contains(of)).peekable();
        if started.peek().is_some() && !self.over {
            let wanted = self.wanted();
            let rejected = started.find(|of| !wanted.contains(of));
            assert_eq!(rejected, None, "seed {}: of a version that nobody wants", self.seed);
        }
    }

    /// Nobody is killed for want of an end that had come.
    fn check_heard(&self, action: &Action) {
        let Action::Report { fact: Fact::KillTimedOut { worker, .. } } = action else { return };
        let ended = |event: &Event| matches!(event, Event::Exited { worker: other, .. } if other == worker);
        let told = self.agenda.iter().take_while(|((at, _), _)| *at <= self.now);
        let ends = told.filter(|(_, event)| ended(event)).count();
        assert_eq!(ends, 0, "seed {}: {worker:?} had ended in time, and was not heard", self.seed);
        let had = self.signalled.get(worker).filter(|_| !self.ending).map(|at| self.now - *at);
        let all = Policy::default().kill_timeout;
        assert!(had.is_none_or(|had| had >= all), "seed {}: {worker:?} had {had:?} of {all:?}", self.seed);
    }

    fn check(&self) {
        let seed = self.seed;
        let next = self.supervisor.next_deadline();
        assert!(
            self.over || next.is_none_or(|at| at > self.heard),
            "seed {seed}: {next:?} at {}",
            self.heard
        );
        let pending: BTreeSet<RequestId> = self.supervisor.pending().into_iter().collect();
        assert_eq!(pending, self.open, "seed {seed}: open requests");
        assert_eq!(self.supervisor.stale(), None, "seed {seed}: kept beside the slots, and wrong");
        if self.over {
            return;
        }
        if self.trace.len().is_multiple_of(16) {
            let overlooked = self.supervisor.overlooked(self.now).map(|(_, out)| out);
            assert_eq!(overlooked, None, "seed {seed}: overlooked");
        }
        // Nothing can come to an array of which everybody is hidden, whatever is in it.
        let live = |array: &[SocketId]| array.iter().any(|socket| !self.hidden.contains(socket));
        let mirror: BTreeMap<Address, Vec<SocketId>> =
            self.supervisor.mirror().into_iter().filter(|(_, array)| live(array)).collect();
        let kernel: BTreeMap<Address, Vec<SocketId>> =
            self.kernel.clone().into_iter().filter(|(_, array)| live(array)).collect();
        assert_eq!(mirror, kernel, "seed {seed}: the mirror is not the kernel's array");
        let known: BTreeSet<WorkerId> =
            self.supervisor.probe().into_iter().map(|probe| probe.worker).collect();
        assert_eq!(known, self.alive, "seed {seed}: live workers");
    }

    fn perform(&mut self, action: &Action) {
        match action {
            Action::Spawn { worker, app, .. } => self.spawn(*worker, *app),
            Action::Signal { worker, signal } => self.signal(*worker, *signal),
            Action::Observe { worker, .. } => {
                let busy = u32::from(self.dice.one_in(3));
                let ended = u32::from(self.dice.one_in(2));
                let traffic = Traffic { busy, ended, ..Traffic::default() };
                if !self.dice.one_in(20) {
                    self.soon(3, Event::Observed { worker: *worker, traffic });
                }
            }
            Action::Weigh { app, workers, how } => {
                let seldom = if *how == Closeness::Resident { 20 } else { 2 };
                let mut weigh =
                    |worker: &WorkerId| (*worker, if self.dice.one_in(seldom) { 101 } else { 60 });
                let weights = workers.iter().map(&mut weigh).collect();
                self.soon(5, Event::Weighed { app: *app, weights, how: *how });
            }
            Action::Gauge { app, sockets } => {
                let depths = sockets.iter().map(|id| (*id, self.dice.roll(3) as u32)).collect();
                self.soon(3, Event::Gauged { app: *app, depths, cost: Duration::ZERO });
            }
            Action::Measure { app } => {
                let (free, each) = (self.dice.roll(1000), 100);
                let least = 1 + self.dice.roll(100);
                let stock = Stock { good: Good::Descriptors { limit: 1000 }, free, least, each };
                let headroom = Headroom { stocks: vec![stock] };
                self.soon(2, Event::Measured { app: *app, headroom });
            }
            Action::Examine { worker, socket, position, active } => {
                let array = self.kernel.values().find(|array| array.contains(socket)).unwrap();
                assert_eq!(
                    array[*position as usize], *socket,
                    "seed {}: examined through another",
                    self.seed
                );
                assert!(!active.contains(*position), "seed {}: it was not steered away", self.seed);
                let holds = !self.dice.one_in(5);
                self.soon(30, Event::Examining { worker: *worker, holds });
                if self.dice.one_in(6) {
                    self.soon(500, Event::Examining { worker: *worker, holds: false });
                }
            }
            Action::Probe { worker, question, timeout, spot } => {
                // Unless the same fact had it leave afterwards: another app may have waited for that.
                assert!(!self.leaving.contains(worker), "seed {}: {worker:?} was asked", self.seed);
                if let Some(spot) = spot {
                    let array = self.kernel.values().find(|array| array.contains(&spot.socket)).unwrap();
                    let there = array[spot.position as usize];
                    assert_eq!(there, spot.socket, "seed {}: asked through another", self.seed);
                }
                let (worker, question) = (*worker, *question);
                let passed = spot.is_some() && !self.dice.one_in(4);
                let most = u64::try_from(timeout.as_millis()).unwrap();
                let answer = match self.dice.one_in(8) {
                    true => Event::Unasked { worker, question },
                    false => Event::Probed { worker, question, passed },
                };
                self.soon(most, answer);
            }
            Action::Feel { worker } => {
                let queued = u32::from(self.dice.one_in(2));
                let pulse = Pulse { queued, ticks: self.dice.roll(2) };
                self.soon(5, Event::Felt { worker: *worker, pulse });
            }
            Action::LetGo { worker } => {
                if self.waiting.remove(worker) {
                    let status = ExitStatus::Code(0);
                    self.soon(200, Event::Exited { worker: *worker, status, left: false });
                }
            }
            Action::Shut { socket } => {
                self.hidden.insert(*socket);
            }
            Action::Withdraw { socket } => {
                let worker = self.parts[socket];
                if self.dice.one_in(4) {
                    let handles = self.dice.one_in(2);
                    self.soon(2, Event::CannotLeave { worker, handles });
                }
            }
            Action::Admit { socket } => {
                assert!(self.parts.contains_key(socket), "seed {}: {socket:?} is not held", self.seed);
            }
            Action::Relay { socket } => {
                assert!(!self.parts.contains_key(socket), "seed {}: a shared queue is handed on", self.seed);
                self.hidden.insert(*socket);
                self.soon(10, Event::Relayed { socket: *socket });
            }
            Action::Close { socket } => {
                let hidden = self.hidden.remove(socket) | self.fallen.remove(socket);
                if let Some(array) = self.kernel.values_mut().find(|array| array.contains(socket)) {
                    let hole = array.iter().position(|other| other == socket).unwrap();
                    array.swap_remove(hole);
                } else if self.parts.remove(socket).is_none() {
                    assert!(hidden, "seed {}: {socket:?} was closed twice", self.seed);
                }
                self.kernel.retain(|_, array| !array.is_empty());
            }
            Action::Steer { socket, active } => {
                let Some(array) = self.kernel.values().find(|array| array.contains(socket)) else {
                    return assert!(
                        self.hidden.contains(socket),
                        "seed {}: {socket:?} is not held",
                        self.seed
                    );
                };
                let active = active.positions();
                assert!(!active.is_empty() && active.iter().all(|at| (*at as usize) < array.len()));
            }
            Action::Reply { request, .. } => {
                assert!(self.open.remove(request), "seed {}: {request:?} answered twice", self.seed);
            }
            Action::Exit { .. } => self.over = true,
            Action::Inspect { .. } | Action::Forget { .. } | Action::Report { .. } => {}
        }
    }

    /// Its start waits its turn, at times longer than it may take.
    fn spawn(&mut self, worker: WorkerId, app: AppId) {
        self.alive.insert(worker);
        self.queued.insert(worker, app);
        let most = if self.dice.one_in(8) { 10_000 } else { 20 };
        self.soon(most, Event::Begun { worker });
    }

    /// A program of one of several characters.
    fn begin(&mut self, worker: WorkerId, app: AppId) {
        if app.0 == 2 && !worker.0.is_multiple_of(7) {
            self.graceful.insert(worker);
        }
        if self.dice.one_in(15) {
            let transient = self.dice.one_in(2);
            let failure = SpawnFailure { step: "exec".into(), errno: 11, message: "no".into(), transient };
            return self.soon(5, Event::SpawnFailed { worker, failure });
        }
        self.soon(5, Event::Started { worker });
        self.sockets += 1;
        let (socket, address) = (SocketId(self.sockets), World::address(app));
        let character = self.dice.roll(12);
        if app.0 == 3 && character != 0 {
            let address = Address::Unix(UnixName::new("/run/a").unwrap());
            let of_host = self.seed.is_multiple_of(2);
            self.soon(5, Event::Joined { worker, socket, address, of_host });
            self.soon(4000, Event::Accepting { worker, socket });
            if character == 4 {
                self.soon(20_000, Event::Unreachable { socket });
            }
        } else if app.0 != 1 && character != 0 {
            self.soon(4000, Event::Listening { worker, socket, address });
            if self.dice.one_in(6) {
                let again = self.dice.one_in(2);
                self.soon(20_000, Event::ShutDown { socket, again });
            }
        }
        if character == 1 {
            let status = ExitStatus::Code(i32::try_from(self.dice.roll(2)).unwrap());
            let left = self.dice.one_in(4);
            if self.dice.one_in(3) {
                self.soon(20_000, Event::OutOfMemory { worker });
            }
            self.soon(20_000, Event::Exited { worker, status, left });
        }
        if character == 2 {
            self.soon(20_000, Event::Said { worker, word: Word::Stopping });
        }
        if character >= 4 {
            let words = [Word::KeepAlive, Word::Reloading, Word::Ready, Word::Trigger];
            for _ in 0..self.dice.roll(4) {
                let word = words[usize::try_from(self.dice.roll(4)).unwrap()];
                self.soon(60_000, Event::Said { worker, word });
            }
        }
        if character == 3 {
            self.soon(8000, Event::Said { worker, word: Word::Ready });
        }
    }

    fn signal(&mut self, worker: WorkerId, signal: SignalKind) {
        assert!(self.alive.contains(&worker), "seed {}: signal to {worker:?}, which is gone", self.seed);
        if self.queued.remove(&worker).is_some() {
            return self.soon(2, Event::Dropped { workers: BTreeSet::from([worker]) });
        }
        if signal == SignalKind::Stop {
            // Behind those of others, at times.
            let most = if self.dice.one_in(4) { 1000 } else { 2 };
            self.soon(most, Event::Told { worker });
        }
        let ignores = signal == SignalKind::Stop && worker.0.is_multiple_of(5);
        if ignores {
            return;
        }
        let examined = |probe: &Probe| probe.worker == worker && probe.examined;
        if self.graceful.contains(&worker) && self.supervisor.probe().iter().any(examined) {
            self.waiting.insert(worker);
            return;
        }
        let left = signal == SignalKind::Stop && self.dice.one_in(6);
        let event = if self.ended.contains(&worker) {
            Event::Gone { worker }
        } else {
            Event::Exited { worker, status: ExitStatus::Signal(15), left }
        };
        self.soon(300, event);
    }

    /// A process can only do what it is alive for; a late word of a dead one may still come.
    fn is_possible(&mut self, event: &Event) -> bool {
        match event {
            Event::Exited { worker, .. } => self.alive.contains(worker) && !self.ended.contains(worker),
            Event::Gone { worker } => self.alive.contains(worker) && self.ended.contains(worker),
            Event::SpawnFailed { worker, .. } => self.alive.contains(worker),
            Event::Begun { worker } => self.queued.contains_key(worker),
            Event::Dropped { workers } => workers.is_subset(&self.alive),
            Event::Listening { worker, .. } | Event::Opened { worker, .. } | Event::Joined { worker, .. } => {
                self.alive.contains(worker) || self.dice.one_in(2)
            }
            // What nobody is to find is not listened on again.
            Event::ShutDown { socket, again } => !(*again && self.hidden.contains(socket)),
            Event::Started { .. }
            | Event::Accepting { .. }
            | Event::Said { .. }
            | Event::Observed { .. }
            | Event::Examining { .. }
            | Event::Probed { .. }
            | Event::Unasked { .. }
            | Event::Felt { .. }
            | Event::Relayed { .. }
            | Event::Abandoned { .. }
            | Event::Unreachable { .. }
            | Event::AddressesChanged
            | Event::Due { .. }
            | Event::Changed { .. }
            | Event::CannotLeave { .. }
            | Event::Measured { .. }
            | Event::Weighed { .. }
            | Event::OutOfMemory { .. }
            | Event::Told { .. }
            | Event::Ended { .. }
            | Event::Command { .. }
            | Event::Gauged { .. }
            | Event::Deadline { .. } => true,
        }
    }

    fn step(&mut self) {
        if self.dice.one_in(12) {
            return self.operator();
        }
        if self.dice.one_in(200) {
            let app = AppId(1 + u32::try_from(self.dice.roll(u64::from(APPS))).unwrap());
            return self.tell(Event::Due { app });
        }
        if self.dice.one_in(100) {
            let app = AppId(1 + u32::try_from(self.dice.roll(u64::from(APPS))).unwrap());
            return self.tell(Event::Changed { app });
        }
        let deadline = self.supervisor.next_deadline();
        let next = self.agenda.keys().next().map(|(at, _)| *at);
        let due = [deadline, next].into_iter().flatten().min();
        let pause = Duration::from_millis(self.dice.roll(200));
        // Now and then the loop comes late, and finds several deadlines behind it.
        let late = if self.dice.one_in(50) { Duration::from_secs(5) } else { Duration::ZERO };
        self.now = due.unwrap_or(self.now + pause).max(self.now) + late;
        if next.is_some_and(|at| at <= self.now) {
            let (_, event) = self.agenda.pop_first().unwrap();
            if self.is_possible(&event) {
                self.tell(event);
            }
        } else {
            self.judge();
        }
    }

    /// The end is bounded whatever the world does.
    fn shut_down(&mut self) {
        let began = self.now;
        self.ending = true;
        self.wish(Command::Shutdown { within: Duration::from_secs(8), code: 0 });
        while !self.over {
            let deadline = self.supervisor.next_deadline();
            let next = self.agenda.keys().next().map(|(at, _)| *at);
            let Some(at) = [deadline, next].into_iter().flatten().min() else { break };
            self.now = at.max(self.now);
            if next.is_some_and(|at| at <= self.now) {
                let (_, event) = self.agenda.pop_first().unwrap();
                if self.is_possible(&event) {
                    self.tell(event);
                }
            } else {
                self.judge();
            }
        }
        assert!(self.over, "seed {}: no exit", self.seed);
        let took = self.now - began;
        assert!(took <= Duration::from_secs(9), "seed {}: took {took:?}", self.seed);
        assert!(self.open.is_empty(), "seed {}: {:?} never answered", self.seed, self.open);
    }
}

fn run(seed: u64, steps: u64) -> Vec<Action> {
    run_in(World::new(seed), steps)
}

fn run_in(mut world: World, steps: u64) -> Vec<Action> {
    let seed = world.seed;
    for app in 1..=APPS {
        let definition = world.definition(AppId(app));
        // Some come from an earlier supervisor, scaled and partly stopped.
        let kept = Kept {
            instances: 1 + app,
            resting: BTreeSet::from([u32::try_from(seed % 5).unwrap()]),
            unordered: seed.is_multiple_of(3),
        };
        let command = match seed % 4 {
            3 => Command::Restore { app: AppId(app), definition, kept },
            _ => Command::Add { app: AppId(app), definition },
        };
        world.wish(command);
    }
    for _ in 0..steps {
        world.step();
    }
    let leaving = |stage| matches!(stage, Stage::Draining | Stage::Finishing | Stage::Stopping);
    let crowd = world.supervisor.probe().into_iter().filter(|probe| leaving(probe.stage)).count();
    assert!(crowd < 64, "seed {seed}: {crowd} leaving workers pile up");
    world.shut_down();
    world.trace
}

fn knob(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: no number")))
}

#[test]
fn every_seed_holds_every_promise() {
    let steps = knob("CLUSTERD_SIM_STEPS").unwrap_or(1500);
    let seeds = match knob("CLUSTERD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + knob("CLUSTERD_SIM_SEEDS").unwrap_or(64),
    };
    for seed in seeds {
        run(seed, steps);
    }
}

/// A world is only as good as the bugs it is known to find. A release cannot make them.
#[test]
#[cfg(debug_assertions)]
fn a_deadline_that_is_judged_before_everything_was_heard_is_found() {
    let finds = |seed| {
        let mut world = World::new(seed);
        world.supervisor.plant(Bug::JudgesUnheard);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_in(world, 1500))).err();
        panic.is_some_and(|panic| {
            panic.downcast_ref::<String>().is_some_and(|text| text.contains("had ended in time"))
        })
    };
    assert!((1..=64).any(finds), "nobody who had ended was killed for being late");
}

#[test]
fn equal_seeds_give_equal_orders() {
    assert_eq!(run(7, 500), run(7, 500));
    assert_ne!(run(7, 500), run(8, 500));
}
