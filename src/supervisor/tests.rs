//! One app's life by tables: facts in, orders out, no process.

use super::address::UnixName;
use super::event::*;
use super::headroom::{Good, Headroom, Stock};
use super::policy::{MemoryLimit, Mode, OnReloadFailure, Policy, SpecId};
use super::time::Time;
use super::view::Status;
use super::*;

mod canary;
mod changed;
mod cron;
mod doors;
mod many;
mod order;
mod queued;
mod queues;
mod renewal;
mod restore;
mod unwell;
mod wishes;

const APP: AppId = AppId(1);
const PORT: u16 = 3000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn address(port: u16) -> Address {
    Address::Tcp { ip: std::net::Ipv4Addr::UNSPECIFIED.into(), port, v6only: false }
}

fn cluster(instances: u32) -> Policy {
    Policy { instances, mode: Mode::Cluster, ..Policy::default() }
}

fn definition(policy: Policy, spec: u64) -> Definition {
    Definition { name: "web".into(), namespace: "default".into(), policy, spec: SpecId(spec) }
}

/// A supervisor with a clock, and what it ordered since it was last asked.
struct Bench {
    supervisor: Supervisor,
    now: Time,
    out: Vec<Action>,
    requests: u64,
    sockets: u64,
    headroom: Headroom,
    /// Starts wait until they are told to have begun.
    queues: bool,
    /// Who waits in accept queues.
    depths: std::collections::BTreeMap<SocketId, u32>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            supervisor: Supervisor::new(0),
            now: Time::START,
            out: Vec::new(),
            requests: 0,
            sockets: 0,
            headroom: Headroom::default(),
            queues: false,
            depths: std::collections::BTreeMap::new(),
        }
    }

    /// With this app added, and nothing told about its workers yet.
    fn with(policy: Policy) -> Bench {
        let mut bench = Bench::new();
        bench.wish(Command::Add { app: APP, definition: definition(policy, 1) });
        bench
    }

    /// With all workers ready and settled.
    fn online(policy: Policy) -> Bench {
        let mut bench = Bench::with(policy);
        for worker in bench.spawned() {
            bench.boot(worker);
        }
        bench.pass(ms(5000));
        bench.out.clear();
        bench
    }

    /// Every order is begun at once, unless the bench holds starts back.
    fn tell(&mut self, event: Event) {
        let before = self.out.len();
        self.supervisor.handle(event, self.now, &mut self.out);
        self.judge();
        if !self.queues {
            self.begin(before);
        }
        let before = self.out.len();
        for (app, sockets) in self.supervisor.gauging() {
            let depth = |id: &SocketId| (*id, self.depths.get(id).copied().unwrap_or(0));
            let depths = sockets.iter().map(depth).collect();
            self.out.retain(|action| !matches!(action, Action::Gauge { .. }));
            let gauged = Event::Gauged { app, depths, cost: Duration::ZERO };
            self.supervisor.handle(gauged, self.now, &mut self.out);
        }
        for app in self.supervisor.measuring() {
            let headroom = self.headroom.clone();
            self.supervisor.handle(Event::Measured { app, headroom }, self.now, &mut self.out);
        }
        if !self.queues {
            self.begin(before.min(self.out.len()));
        }
    }

    /// All that happened until now was told.
    fn judge(&mut self) {
        if self.supervisor.next_deadline().is_some_and(|at| at <= self.now) {
            let heard = self.now;
            self.supervisor.handle(Event::Deadline { heard }, self.now, &mut self.out);
        }
    }

    /// What was ordered since then is begun.
    fn begin(&mut self, since: usize) {
        let worker =
            |action: &Action| if let Action::Spawn { worker, .. } = action { Some(*worker) } else { None };
        let ordered: Vec<WorkerId> = self.out[since..].iter().filter_map(worker).collect();
        for worker in ordered {
            self.supervisor.handle(Event::Begun { worker }, self.now, &mut self.out);
        }
    }

    /// From now on the host has memory for so many more workers.
    fn fits(&mut self, workers: u64) {
        let stock =
            Stock { good: Good::Memory { limit: None }, free: workers * 100 + 1, least: 100, each: 100 };
        self.headroom = Headroom { stocks: vec![stock] };
    }

    fn wish(&mut self, command: Command) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.tell(Event::Command { request, command });
        request
    }

    /// A definition that was compared with what the app is on its way to.
    fn adjust(&mut self, definition: Definition) -> RequestId {
        let known = self.supervisor.course(APP).expect("it is known").spec;
        self.wish(Command::Adjust { app: APP, definition, known })
    }

    fn reload(&mut self) -> RequestId {
        self.wish(Command::Reload { app: APP, definition: None })
    }

    fn stop(&mut self) -> RequestId {
        self.wish(Command::Stop { app: APP, scope: Scope::All })
    }

    fn listen(&mut self, worker: WorkerId, port: u16) -> SocketId {
        self.sockets += 1;
        let socket = SocketId(self.sockets);
        self.tell(Event::Listening { worker, socket, address: address(port) });
        socket
    }

    /// Started, and listening where it should.
    fn boot(&mut self, worker: WorkerId) -> SocketId {
        self.tell(Event::Started { worker });
        self.listen(worker, PORT)
    }

    fn exit(&mut self, worker: WorkerId) {
        self.tell(Event::Exited { worker, status: ExitStatus::Code(1), left: false });
    }

    fn calm(&mut self, worker: WorkerId) {
        self.tell(Event::Observed { worker, traffic: Traffic::default() });
    }

    /// Two quiet looks, the signal, and the exit.
    fn drain(&mut self, worker: WorkerId) {
        self.calm(worker);
        self.pass(ms(2));
        self.calm(worker);
        assert!(self.took(&Action::Signal { worker, signal: SignalKind::Stop }), "{:?}", self.out);
        self.tell(Event::Exited { worker, status: ExitStatus::Signal(15), left: false });
    }

    /// Lets time pass, with every deadline on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.supervisor.next_deadline().filter(|at| *at <= end) {
            assert!(
                at > self.now || self.now == Time::START,
                "deadline {at} does not lie ahead of {}",
                self.now
            );
            self.now = at;
            self.tell(Event::Deadline { heard: at });
        }
        self.now = end;
    }

    fn took(&self, action: &Action) -> bool {
        self.out.contains(action)
    }

    fn spawned(&self) -> Vec<WorkerId> {
        let worker =
            |action: &Action| if let Action::Spawn { worker, .. } = action { Some(*worker) } else { None };
        self.out.iter().filter_map(worker).collect()
    }

    fn steered(&self) -> Vec<Vec<u32>> {
        let active = |action: &Action| {
            if let Action::Steer { active, .. } = action { Some(active.positions()) } else { None }
        };
        self.out.iter().filter_map(active).collect()
    }

    fn outcome(&self, request: RequestId) -> Option<Outcome> {
        let reply = |action: &Action| {
            let Action::Reply { request: answered, outcome } = action else { return None };
            (*answered == request).then(|| outcome.clone())
        };
        let all: Vec<Outcome> = self.out.iter().filter_map(reply).collect();
        assert!(all.len() <= 1, "{request:?} was answered {} times", all.len());
        all.into_iter().next()
    }

    fn status(&self) -> Status {
        self.supervisor.view(self.now).apps[0].status
    }
}

#[test]
fn start_is_done_when_every_worker_listens() {
    let mut bench = Bench::with(cluster(2));
    assert_eq!(bench.spawned(), [WorkerId(1), WorkerId(2)]);
    bench.boot(WorkerId(1));
    assert_eq!(bench.outcome(RequestId(1)), None);
    bench.boot(WorkerId(2));
    assert_eq!(bench.outcome(RequestId(1)), Some(Outcome::Done));
    assert_eq!(bench.steered(), [vec![0], vec![0, 1]]);
}

#[test]
fn fork_worker_is_ready_once_it_runs() {
    let mut bench = Bench::with(Policy::default());
    bench.tell(Event::Started { worker: WorkerId(1) });
    assert_eq!(bench.outcome(RequestId(1)), Some(Outcome::Done));
    assert_eq!(bench.status(), Status::Online);
}

/// Fault 18.
#[test]
fn only_a_quick_good_end_with_processes_left_is_daemonising() {
    let cases = [
        (ExitStatus::Code(0), true, 500, Cause::Daemonised),
        (ExitStatus::Code(0), false, 500, Cause::Exit),
        (ExitStatus::Code(0), true, 60_000, Cause::Exit),
        (ExitStatus::Code(3), true, 500, Cause::Crash),
        (ExitStatus::Signal(11), true, 500, Cause::Crash),
    ];
    for (status, left, lived, expected) in cases {
        let mut bench = Bench::with(Policy::default());
        bench.tell(Event::Started { worker: WorkerId(1) });
        bench.pass(ms(lived));
        bench.tell(Event::Exited { worker: WorkerId(1), status, left });
        let exit = bench.supervisor.view(bench.now).apps[0].workers[0].last_exit.clone();
        assert_eq!(exit.map(|exit| exit.cause), Some(expected), "{status:?}, left: {left}, after {lived} ms");
    }
    let mut asked = Bench::online(Policy::default());
    asked.stop();
    asked.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(0), left: true });
    let exit = asked.supervisor.view(asked.now).apps[0].workers[0].last_exit.clone();
    assert_eq!(exit.map(|exit| exit.cause), Some(Cause::Stop));
}

#[test]
fn silent_cluster_worker_is_ready_after_three_seconds() {
    let mut bench = Bench::with(cluster(1));
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.pass(ms(2999));
    assert_eq!(bench.outcome(RequestId(1)), None);
    bench.pass(ms(1));
    assert_eq!(bench.outcome(RequestId(1)), Some(Outcome::Done));
    assert!(bench.supervisor.view(bench.now).apps[0].workers[0].no_listener);
}

#[test]
fn declared_socket_proves_readiness_only_when_it_is_used() {
    let mut bench = Bench::with(Policy { declares_listen: true, ..cluster(1) });
    let worker = WorkerId(1);
    bench.tell(Event::Opened { worker, socket: SocketId(1), address: address(PORT) });
    bench.tell(Event::Started { worker });
    assert!(bench.took(&Action::Inspect { worker }));
    bench.pass(ms(4000));
    assert_eq!(bench.status(), Status::Launching);
    bench.tell(Event::Accepting { worker, socket: SocketId(1) });
    assert_eq!(bench.status(), Status::Online);
}

#[test]
fn reload_replaces_one_worker_after_the_other_without_a_gap() {
    let mut bench = Bench::online(cluster(2));
    let request = bench.reload();
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    bench.boot(WorkerId(3));
    assert_eq!(bench.spawned(), [WorkerId(3), WorkerId(4)], "the healthy time overlaps the next boot");
    assert!(!bench.took(&Action::Observe { worker: WorkerId(1), closing: Closing::AtQuietMoments }));
    bench.pass(ms(1000));
    assert!(bench.took(&Action::Observe { worker: WorkerId(1), closing: Closing::AtQuietMoments }));
    assert_eq!(bench.steered().last(), Some(&vec![1, 2]));
    bench.boot(WorkerId(4));
    bench.drain(WorkerId(1));
    bench.pass(ms(1000));
    assert_eq!(bench.outcome(request), None);
    bench.drain(WorkerId(2));
    assert_eq!(bench.outcome(request), Some(Outcome::Done));
    let app = &bench.supervisor.view(bench.now).apps[0];
    assert!(app.workers.iter().all(|row| row.generation == Generation(2) && row.restarts == 1));
}

#[test]
fn new_worker_that_dies_leaves_the_old_generation_untouched() {
    let mut bench = Bench::online(cluster(2));
    let request = bench.reload();
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.exit(WorkerId(3));
    assert!(matches!(bench.outcome(request), Some(Outcome::Failed(Failure::Died { ready: false, .. }))));
    bench.pass(ms(60_000));
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    assert_eq!(bench.supervisor.view(bench.now).apps[0].generation, Generation(1));
    assert_eq!(bench.status(), Status::Online);
}

#[test]
fn new_worker_that_listens_elsewhere_fails_the_reload_by_name() {
    let mut bench = Bench::online(cluster(1));
    let request = bench.reload();
    bench.tell(Event::Started { worker: WorkerId(2) });
    bench.listen(WorkerId(2), 4000);
    bench.pass(ms(30_000));
    let Some(Outcome::Failed(Failure::NotReady { missing, found, .. })) = bench.outcome(request) else {
        panic!("{:?}", bench.out);
    };
    assert_eq!((missing, found), (vec![address(PORT)], vec![address(4000)]));
    assert!(!bench.took(&Action::Observe { worker: WorkerId(1), closing: Closing::AtQuietMoments }));
}

#[test]
fn a_name_is_given_up_with_the_reload_that_brought_it() {
    let called = |bench: &Bench| bench.supervisor.view(bench.now).apps[0].name.clone();
    let other = |spec: u64| Some(Definition { name: format!("web{spec}"), ..definition(cluster(1), spec) });
    let mut bench = Bench::online(cluster(1));
    bench.wish(Command::Reload { app: APP, definition: other(2) });
    assert_eq!(called(&bench), "web2", "under way it is called what it is going to be");
    bench.exit(WorkerId(2));
    assert_eq!(called(&bench), "web");
    bench.wish(Command::Reload { app: APP, definition: other(3) });
    bench.wish(Command::Reload { app: APP, definition: other(4) });
    bench.exit(WorkerId(3));
    assert_eq!(called(&bench), "web4", "the next one goes on");
    bench.wish(Command::Restart { app: APP, scope: Scope::All, definition: None });
    assert_eq!(called(&bench), "web4", "a restart takes what was wished last");
    let mut bench = Bench::online(cluster(1));
    bench.wish(Command::Reload { app: APP, definition: other(2) });
    bench.stop();
    assert_eq!(called(&bench), "web", "a stop gives the reload up");
    let mut bench = Bench::online(cluster(1));
    bench.wish(Command::Restart { app: APP, scope: Scope::All, definition: other(2) });
    assert_eq!(called(&bench), "web2");
}

#[test]
fn roll_back_replaces_back_what_was_replaced() {
    let mut bench = Bench::online(cluster(2));
    bench.reload();
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    bench.drain(WorkerId(1));
    bench.exit(WorkerId(4));
    assert_eq!(bench.spawned().last(), Some(&WorkerId(5)));
    bench.boot(WorkerId(5));
    bench.pass(ms(1000));
    bench.drain(WorkerId(3));
    let app = &bench.supervisor.view(bench.now).apps[0];
    assert!(app.workers.iter().all(|row| row.generation == Generation(1) && row.ready));
}

#[test]
fn reload_during_a_roll_back_keeps_one_predecessor_per_slot() {
    let mut bench = Bench::online(cluster(2));
    bench.reload();
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    bench.drain(WorkerId(1));
    bench.exit(WorkerId(4));
    assert_eq!(bench.spawned().last(), Some(&WorkerId(5)), "the roll-back replaces the first slot back");
    bench.reload();
    assert!(bench.took(&Action::Signal { worker: WorkerId(5), signal: SignalKind::Stop }));
    assert!(!bench.took(&Action::Observe { worker: WorkerId(3), closing: Closing::AtQuietMoments }));
}

#[test]
fn hold_leaves_the_mix() {
    let mut bench = Bench::online(Policy { on_reload_failure: OnReloadFailure::Hold, ..cluster(2) });
    bench.reload();
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    bench.drain(WorkerId(1));
    bench.exit(WorkerId(4));
    bench.pass(ms(60_000));
    assert_eq!(bench.spawned(), [WorkerId(3), WorkerId(4)]);
    assert_eq!(bench.supervisor.view(bench.now).apps[0].reload.as_ref().map(|view| view.state), Some("held"));
}

#[test]
fn stop_during_reload_starts_nothing() {
    let mut bench = Bench::online(cluster(2));
    let (first, second) = (bench.reload(), bench.reload());
    bench.out.clear();
    let stop = bench.stop();
    let superseded = Some(Outcome::Failed(Failure::Superseded));
    assert_eq!((bench.outcome(first), bench.outcome(second)), (superseded.clone(), superseded));
    bench.exit(WorkerId(3));
    bench.drain(WorkerId(1));
    bench.drain(WorkerId(2));
    assert_eq!(bench.outcome(stop), Some(Outcome::Done));
    bench.pass(ms(60_000));
    assert!(bench.spawned().is_empty());
    assert_eq!(bench.status(), Status::Stopped);
}

/// Fault 84.
#[test]
fn reload_without_room_for_one_more_touches_nothing() {
    for on_reload_failure in [OnReloadFailure::Rollback, OnReloadFailure::Hold] {
        let mut bench = Bench::online(Policy { on_reload_failure, ..cluster(2) });
        bench.fits(0);
        let request = bench.reload();
        let Some(Outcome::Failed(Failure::NoRoom { shortage })) = bench.outcome(request) else {
            panic!("{:?}", bench.out);
        };
        assert_eq!((shortage.workers, shortage.stock.missing_for(1)), (1, 99));
        bench.pass(ms(60_000));
        let moved = |action: &Action| matches!(action, Action::Spawn { .. } | Action::Signal { .. });
        assert!(!bench.out.iter().any(moved), "{:?}", bench.out);
        let app = &bench.supervisor.view(bench.now).apps[0];
        assert_eq!((app.status, app.generation), (Status::Online, Generation(1)));
        assert_eq!(app.reload.as_ref().map(|reload| reload.state), Some("failed"));
        bench.fits(8);
        let request = bench.reload();
        assert_eq!(bench.spawned(), [WorkerId(3)]);
        assert_eq!(bench.outcome(request), None);
    }
}

/// Fault 84: smaller steps, and predecessors that take their time count.
#[test]
fn reload_with_little_room_takes_smaller_steps() {
    let mut bench = Bench::online(Policy { max_surge: 4, ..cluster(4) });
    bench.fits(2);
    let request = bench.reload();
    let narrowed =
        |action: &Action| matches!(action, Action::Report { fact: Fact::ReloadNarrowed { fits: 2, .. } });
    assert!(bench.out.iter().any(narrowed), "{:?}", bench.out);
    assert_eq!(bench.spawned(), [WorkerId(5), WorkerId(6)]);
    bench.boot(WorkerId(5));
    bench.boot(WorkerId(6));
    bench.pass(ms(1000));
    assert_eq!(bench.spawned(), [WorkerId(5), WorkerId(6)], "two old ones still drain");
    bench.drain(WorkerId(1));
    assert_eq!(bench.spawned(), [WorkerId(5), WorkerId(6), WorkerId(7)]);
    bench.drain(WorkerId(2));
    bench.boot(WorkerId(7));
    bench.boot(WorkerId(8));
    bench.pass(ms(1000));
    bench.drain(WorkerId(3));
    bench.drain(WorkerId(4));
    assert_eq!(bench.outcome(request), Some(Outcome::Done));
}

/// Fault 84: whatever becomes of the others, a reload that began goes on one by one.
#[test]
fn reload_with_little_room_does_not_stop_when_others_come_in_between() {
    let mut bench = Bench::online(cluster(1));
    bench.fits(1);
    let request = bench.reload();
    assert_eq!(bench.spawned(), [WorkerId(2)]);
    bench.wish(Command::Scale { app: APP, scale: Scale::To(4) });
    let mut told = 0;
    while bench.outcome(request).is_none() {
        assert!(bench.supervisor.probe().len() <= 9, "{:?}", bench.supervisor.probe());
        for probe in bench.supervisor.probe() {
            match probe.stage {
                Stage::Ordered => drop(bench.boot(probe.worker)),
                Stage::Draining | Stage::Finishing | Stage::Stopping => bench.exit(probe.worker),
                Stage::Running
                | Stage::Ready
                | Stage::Quitting
                | Stage::Killed
                | Stage::Leftover
                | Stage::Doomed => {}
            }
        }
        bench.pass(ms(1000));
        told += 1;
        assert!(told < 50, "it never ends: {:?}", bench.supervisor.probe());
    }
    assert_eq!(bench.outcome(request), Some(Outcome::Done));
}

/// Fault 84: new instances are more workers for good.
#[test]
fn reload_to_more_instances_needs_room_for_them_too() {
    let mut bench = Bench::online(cluster(1));
    bench.fits(2);
    let more = Some(definition(cluster(3), 2));
    let request = bench.wish(Command::Reload { app: APP, definition: more });
    let Some(Outcome::Failed(Failure::NoRoom { shortage })) = bench.outcome(request) else {
        panic!("{:?}", bench.out);
    };
    assert_eq!(shortage.workers, 3);
    assert!(bench.spawned().is_empty());
    assert_eq!(bench.supervisor.view(bench.now).apps[0].instances, 1);
    assert!(bench.took(&Action::Forget { spec: SpecId(2) }), "{:?}", bench.out);
}

/// Fault 84: where one is stopped before the next is started, nothing has to fit twice.
#[test]
fn fork_mode_asks_for_no_room() {
    let mut bench = Bench::online(Policy::default());
    bench.fits(0);
    bench.reload();
    assert!(!bench.took(&Action::Measure { app: APP }));
    assert!(
        bench.took(&Action::Observe { worker: WorkerId(1), closing: Closing::AtQuietMoments }),
        "{:?}",
        bench.out
    );
}

/// Fault 84: what an earlier reload left to the operator stays so.
#[test]
fn reload_without_room_leaves_a_held_mix_alone() {
    let mut bench = Bench::online(Policy { on_reload_failure: OnReloadFailure::Hold, ..cluster(2) });
    bench.reload();
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    bench.drain(WorkerId(1));
    bench.exit(WorkerId(4));
    bench.fits(0);
    bench.out.clear();
    bench.reload();
    bench.pass(ms(60_000));
    let moved = |action: &Action| matches!(action, Action::Spawn { .. } | Action::Observe { .. });
    assert!(!bench.out.iter().any(moved), "{:?}", bench.out);
    assert_eq!(bench.supervisor.view(bench.now).apps[0].reload.as_ref().map(|view| view.state), Some("held"));
}

/// Fault 39.
#[test]
fn an_address_that_nobody_serves_is_shown_until_somebody_does_or_it_is_closed() {
    let mut bench = Bench::online(Policy { max_restarts: 0, ..cluster(2) });
    let unserved = |bench: &Bench| bench.supervisor.view(bench.now).apps[0].unserved.clone();
    assert_eq!(unserved(&bench), []);
    bench.exit(WorkerId(1));
    assert_eq!(unserved(&bench), [], "one is left");
    bench.exit(WorkerId(2));
    assert_eq!(unserved(&bench), [address(PORT)]);
    bench.boot(WorkerId(3));
    assert_eq!(unserved(&bench), []);
    for socket in 1..=2 {
        bench.tell(Event::Relayed { socket: SocketId(socket) });
    }
    bench.exit(WorkerId(3));
    assert_eq!(unserved(&bench), [address(PORT)]);
    bench.stop();
    assert_eq!(unserved(&bench), [], "refused, not waiting: {:?}", bench.out);
}

/// Fault 22.
#[test]
fn drains_that_never_end_give_way_to_whoever_is_wanted_oldest_first() {
    let mut bench = Bench::online(cluster(1));
    let busy = |bench: &mut Bench, worker| {
        let traffic = Traffic { busy: 7, queued: 1, ..Traffic::default() };
        bench.tell(Event::Observed { worker: WorkerId(worker), traffic });
    };
    for next in 2..=3 {
        bench.stop();
        busy(&mut bench, next - 1);
        bench.pass(ms(10));
        bench.wish(Command::Start { app: APP, scope: Scope::All, definition: None });
        bench.boot(WorkerId(next));
        bench.pass(ms(1000));
    }
    bench.stop();
    assert_eq!(bench.supervisor.probe().len(), 3, "two slots' worth and the surge");
    bench.out.clear();
    bench.wish(Command::Start { app: APP, scope: Scope::All, definition: None });
    let signal = |worker| Action::Signal { worker: WorkerId(worker), signal: SignalKind::Stop };
    assert!(bench.took(&signal(1)), "{:?}", bench.out);
    assert!(!bench.took(&signal(2)) && !bench.took(&signal(3)), "one is enough: {:?}", bench.out);
    let traffic = Traffic { busy: 7, queued: 1, ..Traffic::default() };
    let fact = Fact::DrainCutShort { app: APP, worker: WorkerId(1), traffic, limit: 3 };
    assert!(bench.took(&Action::Report { fact }), "{:?}", bench.out);
    assert!(bench.spawned().is_empty());
    bench.exit(WorkerId(1));
    assert_eq!(bench.spawned(), [WorkerId(4)]);
    assert!(!bench.took(&signal(2)), "there was room: {:?}", bench.out);
}

/// Fault 22: new versions that fail after they took connections.
#[test]
fn failed_reloads_do_not_block_the_next_one_for_drain_timeout() {
    let mut bench = Bench::online(Policy { max_surge: 2, ..cluster(2) });
    let traffic = Traffic { busy: 1, ..Traffic::default() };
    for good in [3, 5, 7] {
        bench.reload();
        bench.boot(WorkerId(good));
        bench.exit(WorkerId(good + 1));
        bench.tell(Event::Observed { worker: WorkerId(good), traffic });
        bench.pass(ms(10));
    }
    assert_eq!(bench.supervisor.probe().len(), 5, "two serve, three drain, and six may live");
    bench.out.clear();
    bench.reload();
    assert_eq!(bench.spawned(), [WorkerId(9)]);
    let signal = Action::Signal { worker: WorkerId(3), signal: SignalKind::Stop };
    assert!(bench.took(&signal), "{:?}", bench.out);
    bench.exit(WorkerId(3));
    assert_eq!(bench.spawned(), [WorkerId(9), WorkerId(10)]);
}

#[test]
fn stop_shuts_what_nobody_else_serves() {
    let mut bench = Bench::online(cluster(2));
    bench.stop();
    assert!(
        bench.took(&Action::Shut { socket: SocketId(1) })
            && bench.took(&Action::Shut { socket: SocketId(2) })
    );
}

#[test]
fn queued_reloads_become_one_and_each_is_answered() {
    let mut bench = Bench::online(cluster(1));
    let first = bench.reload();
    let (second, third) = (bench.reload(), bench.reload());
    bench.exit(WorkerId(2));
    assert!(matches!(bench.outcome(first), Some(Outcome::Failed(_))));
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    bench.drain(WorkerId(1));
    assert_eq!((bench.outcome(second), bench.outcome(third)), (Some(Outcome::Done), Some(Outcome::Done)));
    assert_eq!(bench.spawned(), [WorkerId(2), WorkerId(3)]);
}

#[test]
fn crash_steers_away_in_the_same_turn_and_the_slot_keeps_its_id() {
    let mut bench = Bench::online(cluster(2));
    bench.exit(WorkerId(1));
    assert_eq!(bench.steered(), [vec![1]]);
    assert!(bench.took(&Action::Relay { socket: SocketId(1) }));
    bench.tell(Event::Relayed { socket: SocketId(1) });
    assert!(bench.took(&Action::Close { socket: SocketId(1) }));
    assert_eq!(bench.steered().last(), Some(&vec![0]));
    let row = &bench.supervisor.view(bench.now).apps[0].workers[0];
    assert_eq!((row.slot, row.instance, row.restarts), (SlotId(0), 0, 1));
}

#[test]
fn replacement_takes_over_the_declared_socket_with_its_queue() {
    let mut bench = Bench::with(Policy { declares_listen: true, ..cluster(1) });
    let worker = WorkerId(1);
    bench.tell(Event::Opened { worker, socket: SocketId(1), address: address(PORT) });
    bench.tell(Event::Started { worker });
    bench.tell(Event::Accepting { worker, socket: SocketId(1) });
    bench.pass(ms(2000));
    bench.exit(worker);
    let inherits =
        |action: &Action| matches!(action, Action::Spawn { inherit, .. } if *inherit == [SocketId(1)]);
    assert!(bench.out.iter().any(inherits), "{:?}", bench.out);
}

#[test]
fn crash_loop_ends_errored_and_closes_its_sockets() {
    let mut bench = Bench::with(Policy { max_restarts: 3, ..cluster(1) });
    for worker in 1..=3 {
        bench.boot(WorkerId(worker));
        bench.exit(WorkerId(worker));
        bench.pass(ms(200));
    }
    assert_eq!(bench.status(), Status::Errored);
    assert!(bench.took(&Action::Close { socket: SocketId(3) }));
    bench.pass(ms(60_000));
    assert_eq!(bench.spawned().len(), 3);
    bench.wish(Command::Start { app: APP, scope: Scope::All, definition: None });
    assert_eq!(bench.spawned().len(), 4);
}

#[test]
fn worker_that_ignores_the_signal_is_killed_with_its_tree() {
    let mut bench = Bench::with(Policy::default());
    let worker = WorkerId(1);
    bench.tell(Event::Started { worker });
    let stop = bench.stop();
    assert!(bench.took(&Action::Signal { worker, signal: SignalKind::Stop }));
    bench.pass(ms(1600));
    assert!(bench.took(&Action::Signal { worker, signal: SignalKind::Kill }));
    bench.tell(Event::Exited { worker, status: ExitStatus::Signal(9), left: true });
    assert_eq!(bench.outcome(stop), None);
    bench.tell(Event::Gone { worker });
    assert_eq!(bench.outcome(stop), Some(Outcome::Done));
}

#[test]
fn leftover_tree_is_told_to_stop_and_then_killed() {
    let mut bench = Bench::online(cluster(1));
    let worker = WorkerId(1);
    bench.tell(Event::Exited { worker, status: ExitStatus::Code(0), left: true });
    assert!(bench.took(&Action::Signal { worker, signal: SignalKind::Stop }));
    assert_eq!(bench.spawned(), [WorkerId(2)], "a leftover does not block the replacement in cluster mode");
    bench.pass(ms(1600));
    assert!(bench.took(&Action::Signal { worker, signal: SignalKind::Kill }));
}

#[test]
fn sockets_stay_held_until_the_last_process_of_the_tree_is_gone() {
    let mut bench = Bench::online(cluster(2));
    let (worker, socket) = (WorkerId(1), SocketId(1));
    bench.tell(Event::Exited { worker, status: ExitStatus::Code(0), left: true });
    assert_eq!(bench.steered(), [[1]], "nothing new reaches the leftover");
    assert!(!bench.took(&Action::Relay { socket }) && !bench.took(&Action::Close { socket }));
    bench.tell(Event::Gone { worker });
    assert!(bench.took(&Action::Relay { socket }));
    bench.tell(Event::Relayed { socket });
    assert!(bench.took(&Action::Close { socket }));
}

#[test]
fn a_socket_that_its_worker_closed_is_steered_around_and_handed_on() {
    let mut bench = Bench::online(cluster(1));
    let (worker, old) = (WorkerId(1), SocketId(1));
    let new = bench.listen(worker, PORT);
    bench.tell(Event::Abandoned { socket: old });
    assert_eq!(bench.steered().last(), Some(&vec![1]), "{:?}", bench.out);
    let relay = bench.out.iter().position(|action| *action == Action::Relay { socket: old });
    let steer = bench.out.iter().rposition(|action| matches!(action, Action::Steer { .. }));
    assert!(relay > steer, "a relay before the steering would come back: {:?}", bench.out);
    bench.tell(Event::Relayed { socket: old });
    assert!(bench.took(&Action::Close { socket: old }) && !bench.took(&Action::Close { socket: new }));
}

#[test]
fn a_socket_that_its_worker_shut_down_is_last_in_its_group_when_it_listens_again() {
    let mut bench = Bench::online(cluster(3));
    bench.tell(Event::ShutDown { socket: SocketId(1), again: true });
    assert_eq!(bench.supervisor.mirror()[0].1, [3, 2, 1].map(SocketId));
    assert_eq!(
        bench.steered().last(),
        Some(&vec![0, 1, 2]),
        "the kernel forgets its program with the last one"
    );
    bench.tell(Event::Exited { worker: WorkerId(3), status: ExitStatus::Code(0), left: true });
    assert_eq!(bench.steered().last(), Some(&vec![1, 2]));
    bench.tell(Event::ShutDown { socket: SocketId(3), again: false });
    assert_eq!(bench.supervisor.mirror()[0].1, [1, 2].map(SocketId), "it does not listen again");
    assert_eq!(bench.steered().last(), Some(&vec![0, 1]));
}

/// Two old workers that have nothing left, beside two that serve; the first was told to stop.
fn two_that_are_done() -> Bench {
    let mut bench = Bench::online(cluster(2));
    bench.reload();
    for worker in [3, 4] {
        bench.boot(WorkerId(worker));
        bench.pass(ms(1000));
    }
    while !bench.took(&stop_signal(WorkerId(1))) {
        bench.pass(ms(1));
        bench.calm(WorkerId(1));
    }
    bench
}

#[test]
fn a_worker_that_is_told_to_stop_beside_others_was_hidden_before() {
    let bench = two_that_are_done();
    let shut = bench.out.iter().position(|action| *action == Action::Shut { socket: SocketId(1) });
    let told = bench.out.iter().position(|action| *action == stop_signal(WorkerId(1)));
    assert!(shut.is_some() && told.is_some() && shut < told, "{:?}", bench.out);
}

#[test]
fn two_are_told_to_stop_one_after_the_other() {
    let looks = |bench: &mut Bench| {
        for _ in 0..20 {
            bench.pass(ms(1));
            bench.calm(WorkerId(2));
        }
    };
    let second = stop_signal(WorkerId(2));
    let mut bench = two_that_are_done();
    looks(&mut bench);
    assert!(!bench.took(&second), "it is not known yet what becomes of the first one's socket");
    bench.pass(ms(5));
    bench.tell(Event::ShutDown { socket: SocketId(1), again: false });
    bench.calm(WorkerId(2));
    bench.pass(ms(5));
    bench.calm(WorkerId(2));
    assert!(!bench.took(&second), "what was seen before says nothing");
    looks(&mut bench);
    assert!(bench.took(&second));

    let mut patient = two_that_are_done();
    patient.pass(ms(50));
    looks(&mut patient);
    assert!(patient.took(&second), "a server that takes its time holds nobody up");
}

#[test]
fn sockets_that_are_shut_down_together_come_back_in_their_order() {
    let mut bench = Bench::online(cluster(4));
    for (socket, again) in [(1, false), (2, false), (1, true), (2, true)] {
        bench.tell(Event::ShutDown { socket: SocketId(socket), again });
    }
    // As the kernel does it: [1, 2, 3, 4], [4, 2, 3], [4, 3], [4, 3, 1], [4, 3, 1, 2].
    assert_eq!(bench.supervisor.mirror()[0].1, [4, 3, 1, 2].map(SocketId));
    assert_eq!(bench.steered().last(), Some(&vec![0, 1, 2, 3]));
}

#[test]
fn a_server_that_binds_what_it_was_handed_leaves_nobody_in_the_handed_queue() {
    let mut bench = Bench::with(Policy { declares_listen: true, ..cluster(1) });
    let (worker, handed) = (WorkerId(1), SocketId(100));
    bench.tell(Event::Opened { worker, socket: handed, address: address(PORT) });
    bench.tell(Event::Started { worker });
    bench.listen(worker, PORT);
    assert_eq!(bench.steered().last(), Some(&vec![1]));
    assert!(bench.took(&Action::Relay { socket: handed }));
}

/// The kernel leads clients to the closest address, where nobody would accept them.
#[test]
fn a_server_that_listens_wider_than_it_was_handed_leaves_nobody_in_the_handed_queue() {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let of = |ip: IpAddr, v6only| Address::Tcp { ip, port: PORT, v6only };
    let (v4, v6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    for (declared, own) in [
        (of(v4, false), vec![of(v6, false)]),
        (of(Ipv4Addr::LOCALHOST.into(), false), vec![of(v4, false)]),
        (of(v6, true), vec![of(v6, false)]),
        (of(v6, false), vec![of(v4, false), of(v6, true)]),
    ] {
        let mut bench = Bench::with(Policy { declares_listen: true, ..cluster(1) });
        let (worker, handed) = (WorkerId(1), SocketId(100));
        let listens = |bench: &mut Bench, worker, base: u64| {
            for (at, address) in own.iter().enumerate() {
                bench.tell(Event::Listening {
                    worker,
                    socket: SocketId(base + at as u64),
                    address: *address,
                });
            }
        };
        bench.tell(Event::Opened { worker, socket: handed, address: declared });
        bench.tell(Event::Started { worker });
        listens(&mut bench, worker, 1);
        assert!(bench.took(&Action::Relay { socket: handed }), "{declared:?} {own:?}");
        // A sibling is handed the like, which is not open to clients while that boots.
        bench.pass(ms(60_000));
        bench.wish(Command::Scale { app: APP, scale: Scale::To(2) });
        let sibling = *bench.spawned().last().expect("a second one");
        let second = SocketId(200);
        bench.tell(Event::Opened { worker: sibling, socket: second, address: declared });
        assert!(bench.took(&Action::Relay { socket: second }), "{declared:?} {own:?}");
        // Another version may take what it is handed: that is its own.
        bench.reload();
        let next = *bench.spawned().last().expect("of another version");
        let third = SocketId(300);
        bench.tell(Event::Opened { worker: next, socket: third, address: declared });
        let gone = [Action::Relay { socket: third }, Action::Close { socket: third }];
        assert!(gone.iter().all(|action| !bench.took(action)), "{declared:?} {own:?} {:?}", bench.out);
    }
}

#[test]
fn of_two_sockets_that_a_slot_left_only_one_is_inherited() {
    let mut bench = Bench::online(Policy { declares_listen: true, ..cluster(1) });
    let (first, second) = (SocketId(100), SocketId(101));
    let handed = |worker, socket| Event::Opened { worker, socket, address: address(PORT) };
    bench.reload();
    let next = bench.spawned()[0];
    bench.tell(handed(WorkerId(1), first));
    bench.tell(handed(next, second));
    bench.exit(next);
    bench.exit(WorkerId(1));
    bench.pass(ms(60_000));
    let inherited = bench.out.iter().filter_map(|action| {
        if let Action::Spawn { inherit, .. } = action { Some(inherit.len()) } else { None }
    });
    assert!(inherited.max() <= Some(1), "{:?}", bench.out);
}

#[test]
fn before_a_place_is_left_nobody_is_steered_to_the_one_that_will_fill_it() {
    let mut bench = Bench::online(cluster(3));
    bench.exit(WorkerId(1));
    bench.out.clear();
    bench.tell(Event::Relayed { socket: SocketId(1) });
    let close = bench.out.iter().position(|action| *action == Action::Close { socket: SocketId(1) });
    let orders: Vec<_> = bench.out[..close.expect("closed")].iter().collect();
    assert!(
        orders
            .iter()
            .any(|action| matches!(action, Action::Steer { active, .. } if active.positions() == [1])),
        "the third place moves to the first: {:?}",
        bench.out
    );
}

#[test]
fn fork_reload_stops_then_starts_and_rolls_back() {
    let mut bench = Bench::online(Policy { instances: 2, ..Policy::default() });
    let request = bench.reload();
    assert!(bench.spawned().is_empty());
    bench.exit(WorkerId(1));
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    bench.exit(WorkerId(3));
    assert!(matches!(bench.outcome(request), Some(Outcome::Failed(_))));
    let last = bench.out.iter().rev().find_map(|action| {
        if let Action::Spawn { generation, .. } = action { Some(*generation) } else { None }
    });
    assert_eq!(last, Some(Generation(1)));
}

#[test]
fn scale_down_removes_the_highest_and_up_takes_the_lowest_free_number() {
    let mut bench = Bench::online(cluster(3));
    let down = bench.wish(Command::Scale { app: APP, scale: Scale::To(1) });
    bench.drain(WorkerId(3));
    bench.drain(WorkerId(2));
    assert_eq!(bench.outcome(down), Some(Outcome::Done));
    let up = bench.wish(Command::Scale { app: APP, scale: Scale::Up(1) });
    bench.boot(WorkerId(4));
    assert_eq!(bench.outcome(up), Some(Outcome::Done));
    let slots: Vec<_> = bench.supervisor.slots(APP).map(|slot| (slot.slot, slot.instance)).collect();
    assert_eq!(slots, [(SlotId(0), 0), (SlotId(3), 1)]);
}

#[test]
fn restart_drains_first_and_starts_when_the_tree_is_empty() {
    let mut bench = Bench::online(cluster(1));
    let request = bench.wish(Command::Restart { app: APP, scope: Scope::All, definition: None });
    assert!(bench.spawned().is_empty());
    bench.drain(WorkerId(1));
    assert_eq!(bench.spawned(), [WorkerId(2)]);
    bench.boot(WorkerId(2));
    assert_eq!(bench.outcome(request), Some(Outcome::Done));
}

#[test]
fn a_worker_that_was_stopped_and_started_was_not_restarted() {
    let mut bench = Bench::online(cluster(2));
    let slots: Vec<SlotId> = bench.supervisor.probe().iter().map(|row| row.slot).collect();
    let (scope, definition) = (Scope::Slot(slots[0]), None);
    bench.wish(Command::Stop { app: APP, scope });
    bench.drain(WorkerId(1));
    bench.wish(Command::Start { app: APP, scope, definition });
    bench.boot(WorkerId(3));
    let restarts = |bench: &Bench| {
        bench.supervisor.view(bench.now).apps[0].workers.iter().map(|row| row.restarts).collect::<Vec<_>>()
    };
    assert_eq!(restarts(&bench), [0, 0]);
    bench.exit(WorkerId(3));
    assert_eq!(restarts(&bench), [1, 0]);
}

#[test]
fn delete_forgets_the_app_and_its_spec() {
    let mut bench = Bench::online(cluster(1));
    let request = bench.wish(Command::Delete { app: APP, scope: Scope::All });
    bench.drain(WorkerId(1));
    assert_eq!(bench.outcome(request), Some(Outcome::Done));
    assert!(bench.took(&Action::Forget { spec: SpecId(1) }));
    assert!(bench.supervisor.apps().next().is_none());
}

#[test]
fn failed_reload_forgets_the_new_spec_and_keeps_the_old() {
    let mut bench = Bench::online(cluster(1));
    bench.wish(Command::Reload { app: APP, definition: Some(definition(cluster(1), 2)) });
    bench.exit(WorkerId(2));
    assert!(bench.took(&Action::Forget { spec: SpecId(2) }));
    assert!(!bench.took(&Action::Forget { spec: SpecId(1) }));
}

#[test]
fn shutdown_is_bounded_even_by_what_cannot_be_killed() {
    let mut bench = Bench::online(cluster(1));
    let request = bench.wish(Command::Shutdown { within: ms(8000), code: 7 });
    bench.pass(ms(7999));
    assert!(bench.took(&Action::Signal { worker: WorkerId(1), signal: SignalKind::Stop }));
    bench.pass(ms(1));
    assert!(bench.took(&Action::Signal { worker: WorkerId(1), signal: SignalKind::Kill }));
    bench.pass(ms(1000));
    assert!(bench.took(&Action::Exit { code: 7 }));
    assert_eq!(bench.outcome(request), Some(Outcome::Done));
}

#[test]
fn late_facts_change_nothing_but_close_a_stray_socket() {
    let mut bench = Bench::online(cluster(1));
    let before = bench.supervisor.clone();
    let worker = WorkerId(99);
    bench.tell(Event::Started { worker });
    bench.tell(Event::Said { worker, word: Word::Ready });
    bench.tell(Event::Gone { worker });
    bench.listen(worker, PORT);
    assert_eq!(bench.supervisor, before);
    assert_eq!(bench.out, [Action::Close { socket: SocketId(2) }]);
}

#[test]
fn transient_spawn_failures_are_not_charged_to_the_app() {
    let mut bench = Bench::with(Policy { max_restarts: 1, ..cluster(1) });
    let failure = SpawnFailure { step: "fork".into(), errno: 11, message: "again".into(), transient: true };
    for worker in 1..5 {
        bench.tell(Event::SpawnFailed { worker: WorkerId(worker), failure: failure.clone() });
        assert_eq!(bench.status(), Status::WaitingRestart);
        bench.pass(ms(1000));
    }
    assert_eq!(bench.outcome(RequestId(1)), None);
    assert_eq!(bench.spawned().len(), 5);
}

#[test]
fn whoever_waits_for_an_address_tries_again_when_addresses_come() {
    let mut bench = Bench::with(cluster(1));
    let failure = SpawnFailure { step: "listen".into(), errno: 99, message: "none".into(), transient: true };
    for worker in 1..8 {
        bench.tell(Event::SpawnFailed { worker: WorkerId(worker), failure: failure.clone() });
        assert_eq!(bench.status(), Status::WaitingAddress);
        bench.tell(Event::AddressesChanged);
        assert_eq!(bench.spawned().len() as u64, worker + 1, "not at once");
    }
    // Of a crash it is no cure.
    let mut bench = Bench::online(cluster(1));
    for _ in 0..3 {
        let worker = bench.supervisor.probe()[0].worker;
        bench.exit(worker);
    }
    let before = bench.spawned().len();
    bench.tell(Event::AddressesChanged);
    assert_eq!((bench.status(), bench.spawned().len()), (Status::WaitingRestart, before));
}

#[test]
fn workers_of_a_lost_shared_socket_are_replaced_once() {
    let mut bench = Bench::with(Policy { declares_listen: true, ..cluster(1) });
    let (worker, socket) = (bench.spawned()[0], SocketId(1));
    let address = Address::Unix(UnixName::new("/run/a").expect("short"));
    bench.tell(Event::Joined { worker, socket, address, of_host: false });
    bench.tell(Event::Started { worker });
    bench.tell(Event::Accepting { worker, socket });
    bench.pass(ms(5000));
    bench.tell(Event::Unreachable { socket });
    assert_eq!(bench.spawned().len(), 2);
    // It is said again as long as it is so.
    bench.tell(Event::Unreachable { socket });
    let new = bench.spawned()[1];
    bench.tell(Event::SpawnFailed {
        worker: new,
        failure: SpawnFailure {
            step: "listen".into(),
            errno: 2,
            message: "no folder".into(),
            transient: false,
        },
    });
    // How often a reload that failed is tried again is the shell's matter: it says it more and more rarely.
    bench.tell(Event::Unreachable { socket });
    assert_eq!(bench.spawned().len(), 3);
}

/// Workers with a part of the same shared socket each, started and, but for the last, ready.
fn sharing(bench: &mut Bench, workers: &[WorkerId], of_host: bool) {
    let address = Address::Unix(UnixName::new("/run/a").expect("short"));
    for (worker, socket) in workers.iter().zip((1..).map(SocketId)) {
        bench.tell(Event::Joined { worker: *worker, socket, address, of_host });
        bench.tell(Event::Started { worker: *worker });
    }
    for (worker, socket) in workers.iter().zip((1..).map(SocketId)).take(workers.len() - 1) {
        bench.tell(Event::Accepting { worker: *worker, socket });
    }
}

#[test]
fn who_leaves_shuts_no_socket_that_a_starting_worker_has() {
    let mut bench = Bench::with(Policy { declares_listen: true, ..cluster(2) });
    let workers = bench.spawned();
    sharing(&mut bench, &workers, false);
    let slot = bench.supervisor.probe()[0].slot;
    bench.wish(Command::Stop { app: APP, scope: Scope::Slot(slot) });
    assert!(bench.took(&Action::Withdraw { socket: SocketId(1) }), "its clients wait for the other");
    assert!(!bench.took(&Action::Shut { socket: SocketId(1) }));
    // Then nobody is to come.
    bench.wish(Command::Stop { app: APP, scope: Scope::All });
    assert!(bench.took(&Action::Shut { socket: SocketId(1) }));
}

#[test]
fn whoever_leaves_takes_nothing_from_the_hosts_socket() {
    let mut bench = Bench::with(Policy { declares_listen: true, ..cluster(1) });
    let first = bench.spawned();
    sharing(&mut bench, &[first[0], first[0]], true);
    bench.wish(Command::Stop { app: APP, scope: Scope::All });
    assert!(bench.took(&Action::Withdraw { socket: SocketId(1) }));
    assert!(!bench.took(&Action::Shut { socket: SocketId(1) }), "clients wait for the next start");
    assert!(!bench.took(&Action::Admit { socket: SocketId(1) }));
}

/// The host lacks something for a moment, just as the newest worker is to be started.
fn hiccup(bench: &mut Bench) {
    let failure = SpawnFailure { step: "fork".into(), errno: 11, message: "no".into(), transient: true };
    let worker = *bench.spawned().last().expect("one is being started");
    bench.out.clear();
    bench.tell(Event::SpawnFailed { worker, failure });
}

/// One slot that gave up while the host holds the new generation of a reload back.
fn given_up_during_a_reload() -> (Bench, RequestId) {
    let mut bench = Bench::with(Policy { max_restarts: 1, ..cluster(1) });
    let old = bench.spawned()[0];
    bench.tell(Event::Started { worker: old });
    let request = bench.reload();
    hiccup(&mut bench);
    bench.exit(old);
    (bench, request)
}

#[test]
fn a_slot_that_gave_up_during_a_reload_is_not_started_again_as_it_was() {
    let (mut bench, request) = given_up_during_a_reload();
    for _ in 0..5 {
        bench.pass(ms(5000));
        let new = bench.spawned();
        let generations: Vec<_> =
            new.iter().map(|new| bench.supervisor.worker(*new).map(|at| at.generation)).collect();
        assert_eq!(generations, [Some(Generation(2))]);
        hiccup(&mut bench);
    }
    bench.pass(ms(5000));
    let new = bench.spawned()[0];
    bench.out.clear();
    bench.tell(Event::Started { worker: new });
    bench.exit(new);
    assert!(matches!(bench.outcome(request), Some(Outcome::Failed(Failure::Died { .. }))));
    assert_eq!((bench.spawned(), bench.status()), (vec![], Status::Errored));
}

#[test]
fn a_reload_that_the_host_holds_back_for_too_long_leaves_a_given_up_slot_given_up() {
    let (mut bench, request) = given_up_during_a_reload();
    while bench.outcome(request).is_none() {
        bench.pass(ms(20_000));
        hiccup(&mut bench);
    }
    assert!(matches!(bench.outcome(request), Some(Outcome::Failed(Failure::Spawn { .. }))));
    assert_eq!((bench.spawned(), bench.status()), (vec![], Status::Errored));
}

#[test]
fn the_end_of_all_that_gave_up_has_the_code_that_a_worker_failed_with() {
    let once = Policy { max_restarts: 1, ..cluster(2) };
    let mut bench = Bench::new();
    assert_eq!(bench.supervisor.given_up(), None, "nothing was ever to run");
    bench.wish(Command::Add { app: APP, definition: definition(once, 1) });
    let workers = bench.spawned();
    let killed = Event::Exited { worker: workers[0], status: ExitStatus::Signal(9), left: false };
    bench.tell(killed);
    assert_eq!(bench.supervisor.given_up(), None, "the other may serve yet");
    bench.tell(Event::Exited { worker: workers[1], status: ExitStatus::Code(3), left: true });
    assert_eq!(bench.supervisor.given_up(), None, "what it left behind still runs");
    bench.tell(Event::Gone { worker: workers[1] });
    assert_eq!(bench.supervisor.given_up(), Some(3));
    bench.stop();
    assert_eq!(bench.supervisor.given_up(), None, "who stopped them may start them again");
}

#[test]
fn without_a_code_that_says_more_the_end_is_1() {
    let mut bench = Bench::with(Policy { max_restarts: 1, ..cluster(1) });
    let worker = bench.spawned()[0];
    bench.tell(Event::Exited { worker, status: ExitStatus::Code(0), left: false });
    assert_eq!(bench.supervisor.given_up(), Some(1));
}

#[test]
fn another_apps_address_is_known() {
    let mut bench = Bench::online(cluster(1));
    bench.wish(Command::Add { app: AppId(2), definition: definition(cluster(1), 2) });
    let claim = |app, address, unheard: &[_]| bench.supervisor.claim(app, address, unheard);
    let wide = |v6only| Address::Tcp { ip: std::net::Ipv6Addr::UNSPECIFIED.into(), port: PORT, v6only };
    assert_eq!(claim(AppId(2), address(PORT), &[]), Claim::Other(APP));
    assert_eq!(claim(AppId(2), wide(false), &[]), Claim::Other(APP));
    assert_eq!(claim(AppId(2), wide(true), &[]), Claim::Free);
    assert_eq!(claim(AppId(2), address(PORT + 1), &[]), Claim::Free);
    assert_eq!(claim(APP, address(PORT), &[]), Claim::Own);
    // What overlaps is not what can be shared.
    assert_eq!(claim(APP, wide(false), &[]), Claim::Free);
    let unheard = [(AppId(2), address(PORT + 1))];
    assert_eq!(claim(APP, address(PORT + 1), &unheard), Claim::Other(AppId(2)));
    assert_eq!(claim(AppId(2), address(PORT + 1), &unheard), Claim::Own);
}

#[test]
fn restart_with_another_port_is_done_when_that_is_served() {
    let mut bench = Bench::online(cluster(1));
    let definition = Some(definition(cluster(1), 2));
    let request = bench.wish(Command::Restart { app: APP, scope: Scope::All, definition });
    bench.drain(WorkerId(1));
    bench.tell(Event::Started { worker: WorkerId(2) });
    bench.listen(WorkerId(2), 4000);
    assert_eq!(bench.outcome(request), Some(Outcome::Done));
}

/// A reload whose two old workers (1 and 2) had to be taken off connections that lasted.
fn lasting() -> Bench {
    let mut bench = Bench::online(cluster(2));
    bench.reload();
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    bench
}

/// Two quiet looks, after connections were ended between two requests.
fn ended(bench: &mut Bench, worker: WorkerId) {
    let traffic = Traffic { ended: 3, ..Traffic::default() };
    bench.tell(Event::Observed { worker, traffic });
    bench.pass(ms(2));
    bench.tell(Event::Observed { worker, traffic });
}

fn stop_signal(worker: WorkerId) -> Action {
    Action::Signal { worker, signal: SignalKind::Stop }
}

fn examined_as(bench: &Bench) -> Option<bool> {
    let finishes = |action: &Action| {
        let Action::Report { fact: Fact::Examined { finishes, .. } } = action else { return None };
        Some(*finishes)
    };
    bench.out.iter().find_map(finishes)
}

#[test]
fn server_that_waits_for_its_request_gets_the_signal_early_from_then_on() {
    let mut bench = lasting();
    let first = WorkerId(1);
    ended(&mut bench, first);
    let examine = Action::Examine {
        worker: first,
        socket: SocketId(1),
        position: 0,
        active: Spread::Evenly(vec![1, 2]),
    };
    assert!(bench.took(&examine), "{:?}", bench.out);
    assert!(!bench.took(&stop_signal(first)));
    bench.tell(Event::Examining { worker: first, holds: true });
    assert!(bench.took(&stop_signal(first)));
    bench.pass(ms(799));
    assert!(!bench.took(&Action::LetGo { worker: first }));
    bench.pass(ms(1));
    assert!(bench.took(&Action::LetGo { worker: first }));
    bench.pass(ms(50));
    bench.tell(Event::Exited { worker: first, status: ExitStatus::Code(0), left: false });
    assert_eq!(examined_as(&bench), Some(true));
    bench.boot(WorkerId(4));
    bench.pass(ms(1000));
    bench.out.clear();
    let second = WorkerId(2);
    bench.tell(Event::Observed {
        worker: second,
        traffic: Traffic { queued: 1, busy: 4, ..Traffic::default() },
    });
    assert!(!bench.took(&stop_signal(second)), "somebody waits to be accepted");
    bench.pass(ms(2));
    bench.tell(Event::Observed { worker: second, traffic: Traffic { busy: 4, ..Traffic::default() } });
    assert!(bench.took(&stop_signal(second)));
    bench.out.clear();
    bench.pass(ms(29_000));
    assert!(bench.took(&Action::Observe { worker: second, closing: Closing::WhenIdle }));
    assert!(!bench.took(&stop_signal(second)), "told once");
    bench.tell(Event::Exited { worker: second, status: ExitStatus::Code(0), left: false });
    assert_eq!(bench.status(), Status::Online);
}

/// As [`lasting`], with a server that was seen to finish its requests, reloaded to workers 3 and 4.
fn finishing() -> Bench {
    let mut bench = lasting();
    ended(&mut bench, WorkerId(1));
    bench.tell(Event::Examining { worker: WorkerId(1), holds: true });
    bench.pass(ms(850));
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(0), left: false });
    assert_eq!(examined_as(&bench), Some(true));
    bench.boot(WorkerId(4));
    bench.pass(ms(1000));
    bench.tell(Event::Observed { worker: WorkerId(2), traffic: Traffic { busy: 1, ..Traffic::default() } });
    assert!(bench.took(&stop_signal(WorkerId(2))), "{:?}", bench.out);
    bench.tell(Event::Exited { worker: WorkerId(2), status: ExitStatus::Code(0), left: false });
    bench.pass(ms(5000));
    bench.out.clear();
    bench
}

#[test]
fn server_that_ends_with_a_request_under_way_never_gets_the_signal_early() {
    for late in [false, true] {
        let mut bench = lasting();
        ended(&mut bench, WorkerId(1));
        bench.tell(Event::Examining { worker: WorkerId(1), holds: true });
        // At once, or after a delay that has nothing to do with the request.
        bench.pass(if late { ms(1300) } else { ms(3) });
        bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(0), left: false });
        assert_eq!(examined_as(&bench), None);
        bench.boot(WorkerId(4));
        bench.pass(ms(1000));
        bench.tell(Event::Observed {
            worker: WorkerId(2),
            traffic: Traffic { busy: 4, ..Traffic::default() },
        });
        assert!(!bench.took(&stop_signal(WorkerId(2))));
        bench.pass(ms(2));
        ended(&mut bench, WorkerId(2));
        assert!(bench.took(&stop_signal(WorkerId(2))), "one exam a generation is enough");
    }
}

#[test]
fn next_generation_is_examined_before_more_than_one_of_it_is_told_early() {
    let mut bench = finishing();
    bench.reload();
    bench.boot(WorkerId(5));
    bench.boot(WorkerId(6));
    bench.pass(ms(1000));
    bench.out.clear();
    let busy = Traffic { busy: 4, ..Traffic::default() };
    let (third, fourth) = (WorkerId(3), WorkerId(4));
    bench.tell(Event::Observed { worker: third, traffic: busy });
    bench.tell(Event::Observed { worker: fourth, traffic: busy });
    let examined = |worker| move |action: &Action| matches!(action, Action::Examine { worker: who, .. } if *who == worker);
    assert!(
        bench.out.iter().any(examined(third)) && !bench.out.iter().any(examined(fourth)),
        "{:?}",
        bench.out
    );
    assert!(!bench.took(&stop_signal(third)) && !bench.took(&stop_signal(fourth)));
    bench.pass(ms(5));
    assert!(
        bench.took(&Action::Observe { worker: fourth, closing: Closing::WhenIdle }),
        "it waits for the exam"
    );
    bench.tell(Event::Examining { worker: third, holds: true });
    assert!(bench.took(&stop_signal(third)) && !bench.took(&stop_signal(fourth)));
    bench.pass(ms(100));
    assert!(bench.took(&Action::LetGo { worker: third }));
    bench.tell(Event::Observed { worker: fourth, traffic: busy });
    assert!(bench.took(&stop_signal(fourth)), "its generation lives on with a request");
    // However long the last of its own requests take.
    bench.pass(ms(3000));
    bench.tell(Event::Exited { worker: third, status: ExitStatus::Code(0), left: false });
    assert_eq!(examined_as(&bench), None);
}

#[test]
fn generation_that_does_not_catch_the_signal_is_never_told_early() {
    let mut bench = finishing();
    bench.reload();
    bench.boot(WorkerId(5));
    bench.boot(WorkerId(6));
    bench.pass(ms(1000));
    bench.out.clear();
    let busy = Traffic { busy: 4, ..Traffic::default() };
    bench.tell(Event::Observed { worker: WorkerId(3), traffic: busy });
    bench.tell(Event::Examining { worker: WorkerId(3), holds: false });
    for worker in [WorkerId(3), WorkerId(4), WorkerId(3), WorkerId(4)] {
        bench.pass(ms(20));
        bench.tell(Event::Observed { worker, traffic: busy });
        assert!(!bench.took(&stop_signal(worker)), "{:?}", bench.out);
    }
}

#[test]
fn worker_that_is_not_done_any_more_is_not_stopped_for_its_exam() {
    let mut bench = lasting();
    ended(&mut bench, WorkerId(1));
    bench.pass(ms(5));
    let busy = Traffic { busy: 1, ended: 3, ..Traffic::default() };
    bench.tell(Event::Observed { worker: WorkerId(1), traffic: busy });
    bench.tell(Event::Examining { worker: WorkerId(1), holds: true });
    assert!(bench.took(&Action::LetGo { worker: WorkerId(1) }));
    assert!(!bench.took(&stop_signal(WorkerId(1))));
}

#[test]
fn exam_that_cannot_be_made_holds_nobody_up() {
    let mut bench = lasting();
    ended(&mut bench, WorkerId(1));
    bench.pass(ms(10));
    ended(&mut bench, WorkerId(1));
    assert!(!bench.took(&stop_signal(WorkerId(1))), "the answer decides");
    bench.tell(Event::Examining { worker: WorkerId(1), holds: false });
    bench.pass(ms(10));
    ended(&mut bench, WorkerId(1));
    assert!(bench.took(&stop_signal(WorkerId(1))));
}

const MIB: u64 = 1024 * 1024;

const SHARED: Closeness = Closeness::Shared { resident: 101 * MIB };

fn close_look(resident: u64) -> Action {
    let how = Closeness::Shared { resident: resident * MIB };
    Action::Weigh { app: APP, workers: vec![WorkerId(1)], how }
}

fn limited(instances: u32) -> Policy {
    Policy { max_memory_restart: Some(MemoryLimit::Each(100 * MIB)), ..cluster(instances) }
}

impl Bench {
    fn weigh(&mut self, worker: WorkerId, mebibytes: u64, how: Closeness) {
        self.tell(Event::Weighed { app: APP, weights: vec![(worker, mebibytes * MIB)], how });
    }

    /// It takes more than it may, at both looks.
    fn outgrow(&mut self, worker: WorkerId) {
        self.weigh(worker, 101, Closeness::Resident);
        self.weigh(worker, 101, SHARED);
    }

    fn last_cause(&self) -> Option<Cause> {
        self.supervisor.view(self.now).apps[0]
            .workers
            .iter()
            .find_map(|row| row.last_exit.clone())
            .map(|e| e.cause)
    }
}

#[test]
fn workers_with_a_limit_are_weighed_together_and_others_never() {
    let mut bench = Bench::online(limited(2));
    bench.pass(ms(1000));
    let workers = vec![WorkerId(1), WorkerId(2)];
    assert_eq!(bench.out, [Action::Weigh { app: APP, workers, how: Closeness::Resident }]);
    let mut free = Bench::online(cluster(1));
    free.pass(ms(60_000));
    assert_eq!(free.out, []);
    assert_eq!(free.supervisor.next_deadline(), None);
}

/// Apps with one limit that were started together do not renew their workers in one moment.
#[test]
fn looks_at_the_memory_of_two_apps_do_not_stay_together() {
    let other = AppId(2);
    let mut bench = Bench { supervisor: Supervisor::new(7), ..Bench::new() };
    for app in [APP, other] {
        bench.wish(Command::Add { app, definition: definition(limited(1), 1) });
    }
    for worker in bench.spawned() {
        bench.tell(Event::Started { worker });
        bench.listen(worker, PORT + u16::try_from(worker.0).expect("there are two"));
    }
    let mut looks = Vec::new();
    for _ in 0..100 {
        bench.out.clear();
        bench.pass(ms(100));
        let of = |action: &Action| if let Action::Weigh { app, .. } = action { Some(*app) } else { None };
        looks.push(bench.out.iter().filter_map(of).collect::<Vec<AppId>>());
    }
    let count = |app| looks.iter().flatten().filter(|seen| **seen == app).count();
    assert!((10..=12).contains(&count(APP)) && (10..=12).contains(&count(other)), "{looks:?}");
    assert!(looks.iter().any(|seen| seen.len() == 1), "{looks:?}");
}

#[test]
fn only_what_is_over_the_limit_at_a_close_look_is_replaced() {
    let mut bench = Bench::online(limited(1));
    bench.weigh(WorkerId(1), 100, Closeness::Resident);
    assert!(!bench.took(&close_look(100)), "at its limit it may be");
    bench.weigh(WorkerId(1), 101, Closeness::Resident);
    assert!(bench.took(&close_look(101)));
    bench.weigh(WorkerId(1), 60, SHARED);
    bench.out.clear();
    bench.weigh(WorkerId(1), 101, Closeness::Resident);
    assert!(!bench.took(&close_look(101)), "not again within ten seconds");
    bench.pass(ms(10_000));
    bench.weigh(WorkerId(1), 101, Closeness::Resident);
    assert!(bench.took(&close_look(101)));
    assert_eq!(bench.spawned(), []);
    bench.weigh(WorkerId(1), 101, SHARED);
    assert_eq!(bench.spawned(), [WorkerId(2)]);
}

#[test]
fn who_may_have_reached_the_limit_since_a_close_look_is_looked_at_at_once() {
    let mut bench = Bench::online(limited(1));
    let shared = |resident: u64| Closeness::Shared { resident: resident * MIB };
    bench.weigh(WorkerId(1), 200, Closeness::Resident);
    bench.weigh(WorkerId(1), 90, shared(200));
    bench.out.clear();
    for resident in [200, 209, 150, 209] {
        bench.weigh(WorkerId(1), resident, Closeness::Resident);
        assert_eq!(bench.out, [], "{resident}: of 10 MiB that were left not all can be taken");
    }
    bench.weigh(WorkerId(1), 210, Closeness::Resident);
    assert!(bench.took(&close_look(210)), "it may have reached the limit");
    // Just below it: a look at each turn would stop it again and again.
    bench.weigh(WorkerId(1), 100, shared(210));
    bench.out.clear();
    bench.weigh(WorkerId(1), 213, Closeness::Resident);
    assert_eq!(bench.out, [], "it has hardly grown");
    bench.weigh(WorkerId(1), 214, Closeness::Resident);
    assert!(bench.took(&close_look(214)));
    assert_eq!(bench.spawned(), []);
    bench.weigh(WorkerId(1), 101, shared(214));
    assert_eq!(bench.spawned(), [WorkerId(2)]);
}

#[test]
fn the_fat_worker_serves_until_its_successor_was_ready_for_min_healthy_time() {
    let mut bench = Bench::online(limited(1));
    bench.outgrow(WorkerId(1));
    assert_eq!(bench.spawned(), [WorkerId(2)]);
    bench.boot(WorkerId(2));
    bench.pass(ms(999));
    let left =
        |bench: &Bench| bench.out.iter().any(|a| matches!(a, Action::Report { fact: Fact::Draining { .. } }));
    assert!(!left(&bench));
    bench.pass(ms(1));
    assert!(left(&bench));
    bench.drain(WorkerId(1));
    assert_eq!(bench.last_cause(), Some(Cause::Memory));
    assert_eq!(
        (bench.status(), bench.supervisor.view(bench.now).apps[0].workers[0].restarts),
        (Status::Online, 1)
    );
}

#[test]
fn fat_workers_of_an_app_are_replaced_one_after_the_other() {
    let mut bench = Bench::online(limited(3));
    for worker in [3, 1, 2] {
        bench.outgrow(WorkerId(worker));
    }
    assert_eq!(bench.spawned(), [WorkerId(4)]);
    bench.boot(WorkerId(4));
    bench.pass(ms(1000));
    assert_eq!(bench.spawned(), [WorkerId(4), WorkerId(5)], "the next begins while the first one drains");
}

#[test]
fn a_share_of_the_memory_is_divided_among_the_instances() {
    let shared = Policy { max_memory_restart: Some(MemoryLimit::Shared(200 * MIB)), ..cluster(2) };
    let mut bench = Bench::online(shared);
    bench.weigh(WorkerId(1), 100, SHARED);
    assert_eq!(bench.spawned(), []);
    bench.wish(Command::Scale { app: APP, scale: Scale::To(4) });
    bench.out.clear();
    bench.weigh(WorkerId(1), 51, SHARED);
    assert_eq!(bench.spawned(), [WorkerId(5)]);
}

#[test]
fn without_room_for_both_the_fat_worker_stops_first() {
    let mut bench = Bench::online(limited(2));
    bench.fits(0);
    bench.outgrow(WorkerId(1));
    assert_eq!(bench.spawned(), []);
    bench.drain(WorkerId(1));
    assert_eq!(bench.spawned(), [WorkerId(3)]);
}

#[test]
fn in_fork_mode_the_fat_worker_stops_first() {
    let policy = Policy { mode: Mode::Fork, ..limited(1) };
    let mut bench = Bench::with(policy);
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.out.clear();
    bench.outgrow(WorkerId(1));
    assert!(bench.took(&Action::Signal { worker: WorkerId(1), signal: SignalKind::Stop }));
    assert_eq!(bench.spawned(), []);
    bench.exit(WorkerId(1));
    assert_eq!(bench.spawned(), [WorkerId(2)]);
}

/// Else a limit below what the server needs would have it started without end.
#[test]
fn workers_that_are_too_fat_from_the_start_are_replaced_ever_more_seldom() {
    let mut bench = Bench::online(limited(1));
    bench.pass(ms(120_000));
    let mut gaps = Vec::new();
    for worker in 1..14 {
        bench.outgrow(WorkerId(worker));
        let spent = bench.now;
        while !bench.spawned().contains(&WorkerId(worker + 1)) {
            bench.pass(ms(100));
        }
        gaps.push((bench.now - spent).as_secs());
        bench.boot(WorkerId(worker + 1));
        bench.pass(ms(1000));
        bench.calm(WorkerId(worker));
        bench.pass(ms(2));
        bench.drain(WorkerId(worker));
        bench.out.clear();
    }
    assert!(gaps[0] == 0 && gaps[1] == 0, "{gaps:?}");
    assert!(gaps.is_sorted(), "{gaps:?}");
    assert!((10..=15).contains(gaps.last().expect("there are some")), "{gaps:?}");
}

#[test]
fn a_reload_replaces_the_fat_worker_with_the_others() {
    let mut bench = Bench::online(limited(1));
    bench.outgrow(WorkerId(1));
    bench.reload();
    let candidate = *bench.spawned().last().expect("the new generation is started");
    bench.boot(candidate);
    bench.pass(ms(1000));
    for worker in [1, 2] {
        bench.tell(Event::Exited { worker: WorkerId(worker), status: ExitStatus::Signal(15), left: false });
    }
    let rows = bench.supervisor.view(bench.now).apps[0].workers.clone();
    assert_eq!(rows.iter().map(|row| row.generation).collect::<Vec<_>>(), [Generation(2)]);
    assert_eq!(bench.spawned().len(), 2, "the successor of the fat one, and the new generation");
}

#[test]
fn stop_ends_the_fat_worker_and_its_successor() {
    let mut bench = Bench::online(limited(1));
    bench.outgrow(WorkerId(1));
    bench.boot(WorkerId(2));
    let stop = bench.stop();
    for worker in [1, 2] {
        bench.tell(Event::Exited { worker: WorkerId(worker), status: ExitStatus::Signal(15), left: false });
    }
    assert_eq!((bench.outcome(stop), bench.status()), (Some(Outcome::Done), Status::Stopped));
    assert_eq!(bench.spawned(), [WorkerId(2)]);
}

#[test]
fn a_successor_that_crashes_is_started_again_while_the_fat_worker_serves() {
    let mut bench = Bench::online(limited(1));
    bench.outgrow(WorkerId(1));
    bench.exit(WorkerId(2));
    bench.exit(WorkerId(3));
    bench.pass(ms(100));
    assert_eq!(bench.spawned(), [WorkerId(2), WorkerId(3), WorkerId(4)]);
    assert_eq!(bench.status(), Status::Online);
    assert!(!bench.took(&Action::Signal { worker: WorkerId(1), signal: SignalKind::Stop }));
}

#[test]
fn a_worker_of_age_is_replaced_in_the_same_way() {
    let aged = Policy { max_age: Some(ms(60_000)), ..cluster(2) };
    let mut bench = Bench::online(aged);
    bench.pass(ms(54_999));
    assert_eq!(bench.spawned(), []);
    bench.pass(ms(1));
    assert_eq!(bench.spawned(), [WorkerId(3)], "one at a time");
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    bench.drain(WorkerId(1));
    assert_eq!(bench.last_cause(), Some(Cause::Age));
}

#[test]
fn who_was_killed_for_want_of_memory_did_not_crash() {
    let mut bench = Bench::online(cluster(1));
    bench.tell(Event::OutOfMemory { worker: WorkerId(1) });
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Signal(9), left: false });
    assert_eq!(bench.last_cause(), Some(Cause::OutOfMemory));
    assert_eq!(bench.spawned(), [WorkerId(2)]);
}

#[test]
fn a_successor_that_is_not_well_leaves_and_the_old_worker_stays() {
    let mut bench = Bench::online(limited(1));
    bench.outgrow(WorkerId(1));
    bench.boot(WorkerId(2));
    bench.tell(Event::Said { worker: WorkerId(2), word: Word::Trigger });
    let leaves = Fact::Draining { app: APP, worker: WorkerId(2), cause: Cause::Watchdog };
    assert!(bench.took(&Action::Report { fact: leaves }), "{:?}", bench.out);
    assert!(!bench.took(&Action::Signal { worker: WorkerId(1), signal: SignalKind::Stop }));
    bench.exit(WorkerId(2));
    bench.pass(ms(200));
    assert_eq!(bench.spawned(), [WorkerId(2), WorkerId(3)], "and the next one is tried");
    assert_eq!(bench.status(), Status::Online);
}

#[test]
fn a_reload_whose_worker_ends_well_beside_its_predecessor_fails() {
    for policy in
        [Policy { autorestart: false, ..cluster(1) }, Policy { stop_exit_codes: vec![0], ..cluster(1) }]
    {
        let mut bench = Bench::online(policy);
        let reload = bench.reload();
        bench.boot(WorkerId(2));
        bench.tell(Event::Exited { worker: WorkerId(2), status: ExitStatus::Code(0), left: false });
        assert!(
            matches!(bench.outcome(reload), Some(Outcome::Failed(Failure::Died { .. }))),
            "{:?}",
            bench.out
        );
        assert_eq!(bench.status(), Status::Online);
        let again = bench.reload();
        bench.boot(WorkerId(3));
        bench.pass(ms(1000));
        bench.drain(WorkerId(1));
        assert_eq!(bench.outcome(again), Some(Outcome::Done));
    }
}

#[test]
fn the_time_of_who_is_to_stop_runs_from_when_its_signal_went_out() {
    let mut bench = Bench::online(cluster(2));
    bench.stop();
    for worker in [WorkerId(1), WorkerId(2), WorkerId(1), WorkerId(2)] {
        bench.calm(worker);
        bench.pass(ms(1));
    }
    for worker in [WorkerId(1), WorkerId(2)] {
        assert!(bench.took(&stop_signal(worker)), "{:?}", bench.out);
    }
    let timeout = cluster(1).kill_timeout;
    bench.pass(ms(1000));
    bench.tell(Event::Told { worker: WorkerId(2) });
    // A second one, to what it left or by mistake, does not begin it anew.
    bench.pass(ms(10));
    bench.tell(Event::Told { worker: WorkerId(2) });
    let kill = |worker| Action::Signal { worker, signal: SignalKind::Kill };
    bench.pass(timeout - ms(1010));
    assert!(bench.took(&kill(WorkerId(1))) && !bench.took(&kill(WorkerId(2))), "{:?}", bench.out);
    bench.pass(ms(999));
    assert!(!bench.took(&kill(WorkerId(2))), "it had not all of its time");
    bench.pass(ms(1));
    assert!(bench.took(&kill(WorkerId(2))));
}

#[test]
fn an_age_is_that_at_the_end_however_late_that_is_told() {
    let mut bench = Bench::online(cluster(1));
    let at = bench.now;
    bench.pass(ms(60_000));
    bench.tell(Event::Ended { worker: WorkerId(1), at });
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(1), left: false });
    let lived = bench.out.iter().find_map(|action| {
        let Action::Report { fact: Fact::Exited { lived, .. } } = action else { return None };
        Some(*lived)
    });
    assert!(lived.is_some_and(|lived| lived < ms(10_000)), "{lived:?}");
}
