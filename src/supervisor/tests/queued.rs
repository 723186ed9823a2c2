//! Starts that wait their turn, by tables.

use super::*;
use crate::supervisor::policy::{Health, Readiness, Way};

/// With workers whose starts were ordered, and wait.
fn queued(policy: Policy) -> Bench {
    let mut bench = Bench::new();
    bench.queues = true;
    bench.wish(Command::Add { app: APP, definition: definition(policy, 1) });
    bench
}

impl Bench {
    fn begins(&mut self, worker: u64) {
        self.tell(Event::Begun { worker: WorkerId(worker) });
        self.tell(Event::Started { worker: WorkerId(worker) });
    }

    fn ages(&self) -> Duration {
        self.supervisor.view(self.now).apps[0].workers[0].uptime
    }
}

fn late(bench: &Bench) -> bool {
    bench.out.iter().any(|action| matches!(action, Action::Report { fact: Fact::Late { .. } }))
}

#[test]
fn listen_timeout_runs_from_the_start_and_not_from_its_order() {
    let policy = Policy { listen_timeout: ms(3000), ..cluster(1) };
    let mut bench = queued(Policy { ready: Readiness::Word, ..policy });
    bench.pass(ms(60_000));
    assert!(!late(&bench) && bench.status() == Status::Launching);
    bench.begins(1);
    bench.pass(ms(2999));
    assert!(!late(&bench));
    bench.pass(ms(1));
    assert!(late(&bench));
}

#[test]
fn more_time_is_given_up_to_ten_times_listen_timeout_from_the_start_and_no_further() {
    let policy = Policy { listen_timeout: ms(3000), ready: Readiness::Word, ..cluster(1) };
    for more in [ms(3_600_000), ms(28_000)] {
        let mut bench = Bench::with(policy.clone());
        bench.tell(Event::Started { worker: WorkerId(1) });
        bench.pass(ms(2500));
        bench.tell(Event::Said { worker: WorkerId(1), word: Word::Extend(more) });
        bench.pass(ms(27_499));
        assert!(!late(&bench), "{more:?}");
        bench.pass(ms(1));
        assert!(late(&bench), "{more:?}");
    }
}

/// Between its start and exec, too: a program on a disk that hangs is late.
#[test]
fn listen_timeout_runs_before_the_program_does() {
    let mut bench = queued(Policy { listen_timeout: ms(3000), ..cluster(1) });
    bench.pass(ms(60_000));
    bench.tell(Event::Begun { worker: WorkerId(1) });
    bench.pass(ms(3000));
    assert!(late(&bench));
}

#[test]
fn candidates_that_wait_their_turn_do_not_fail_their_reload() {
    let mut bench = Bench::online(Policy { listen_timeout: ms(3000), ..cluster(1) });
    bench.queues = true;
    let reload = bench.reload();
    bench.pass(ms(60_000));
    assert_eq!(bench.outcome(reload), None);
    bench.begins(2);
    bench.listen(WorkerId(2), PORT);
    bench.pass(ms(5000));
    bench.exit(WorkerId(1));
    assert_eq!(bench.outcome(reload), Some(Outcome::Done));
}

/// Who ends right after a start that waited long is not stable.
#[test]
fn min_uptime_runs_from_the_start_and_not_from_its_order() {
    let mut bench = queued(Policy { min_uptime: ms(1000), max_restarts: 1, ..cluster(1) });
    bench.pass(ms(60_000));
    bench.begins(1);
    bench.listen(WorkerId(1), PORT);
    assert_eq!(bench.ages(), Duration::ZERO);
    bench.pass(ms(999));
    bench.exit(WorkerId(1));
    assert_eq!(bench.status(), Status::Errored);
}

#[test]
fn max_age_runs_from_the_start_and_not_from_its_order() {
    let mut bench = queued(Policy { max_age: Some(ms(100_000)), ..cluster(1) });
    bench.pass(ms(90_000));
    bench.begins(1);
    bench.listen(WorkerId(1), PORT);
    // A tenth of it is spread at most.
    bench.pass(ms(80_000));
    assert_eq!(bench.spawned(), [WorkerId(1)]);
    bench.pass(ms(20_000));
    assert_eq!(bench.spawned(), [WorkerId(1), WorkerId(2)]);
}

#[test]
fn start_period_runs_from_the_start_and_not_from_its_order() {
    let health = Health {
        way: Way::Command,
        interval: ms(1000),
        timeout: ms(1000),
        retries: 1,
        start_period: ms(10_000),
    };
    let mut bench = queued(Policy { health: Some(health), ..cluster(1) });
    bench.pass(ms(60_000));
    bench.begins(1);
    bench.listen(WorkerId(1), PORT);
    bench.tell(Event::Probed { worker: WorkerId(1), question: Question::Health, passed: false });
    assert!(!bench.out.iter().any(|action| matches!(action, Action::Report { fact: Fact::Unwell { .. } })));
}

#[test]
fn starts_that_are_dropped_are_told_of_by_nobody_and_charged_to_nobody() {
    for crashed in [false, true] {
        let mut bench = queued(cluster(3));
        if crashed {
            bench.begins(1);
            bench.listen(WorkerId(1), PORT);
        }
        let stop = bench.stop();
        bench.out.retain(|action| matches!(action, Action::Reply { .. }));
        let workers = (if crashed { 2 } else { 1 }..=3).map(WorkerId).collect();
        bench.tell(Event::Dropped { workers });
        assert_eq!(bench.outcome(stop), (!crashed).then_some(Outcome::Done));
        let told = |action: &&Action| matches!(action, Action::Report { fact } if !matches!(fact, Fact::Stopped { .. }));
        assert_eq!(bench.out.iter().find(told), None);
        let view = bench.supervisor.view(bench.now);
        assert!(view.apps[0].workers.iter().all(|row| row.last_exit.is_none() && row.unstable_restarts == 0));
    }
}

/// What the dead worker of a slot left is for the next one still.
#[test]
fn sockets_that_a_dropped_start_was_to_inherit_are_inherited_by_the_next() {
    let mut bench = Bench::with(Policy { declares_listen: true, ..cluster(1) });
    let (worker, socket) = (WorkerId(1), SocketId(1));
    bench.tell(Event::Opened { worker, socket, address: address(PORT) });
    bench.tell(Event::Started { worker });
    bench.tell(Event::Accepting { worker, socket });
    bench.pass(ms(60_000));
    bench.queues = true;
    bench.exit(worker);
    bench.pass(ms(60_000));
    assert_eq!(bench.spawned(), [WorkerId(1), WorkerId(2)]);
    bench.out.clear();
    bench.wish(Command::Restart { app: APP, scope: Scope::All, definition: None });
    assert!(bench.took(&Action::Signal { worker: WorkerId(2), signal: SignalKind::Stop }), "{:?}", bench.out);
    bench.tell(Event::Dropped { workers: [WorkerId(2)].into() });
    let heirs: Vec<_> = bench
        .out
        .iter()
        .filter_map(
            |action| if let Action::Spawn { inherit, .. } = action { Some(inherit.clone()) } else { None },
        )
        .collect();
    assert_eq!(heirs, [vec![socket]]);
    assert!(!bench.took(&Action::Close { socket }));
}
