//! Workers that are replaced while they serve, where that meets something else, by tables.

use super::*;

fn generations(bench: &Bench) -> Vec<Generation> {
    let of = |action: &Action| {
        if let Action::Spawn { generation, .. } = action { Some(*generation) } else { None }
    };
    bench.out.iter().filter_map(of).collect()
}

fn reload_state(bench: &Bench) -> &'static str {
    bench.supervisor.view(bench.now).apps[0].reload.as_ref().map_or("", |reload| reload.state)
}

/// Two old workers (1 and 2), and a new one (3) beside the first of them.
fn held() -> Bench {
    let mut bench = Bench::online(Policy { canary: Some(50), ..limited(2) });
    bench.reload();
    bench.boot(WorkerId(3));
    bench.pass(ms(60_000));
    assert_eq!(reload_state(&bench), "canary");
    bench.out.clear();
    bench
}

#[test]
fn without_room_the_new_worker_of_a_held_reload_stops_first_and_comes_back_in_its_place() {
    let mut bench = Bench::online(Policy { canary: Some(50), ..limited(2) });
    // The first slot has no place for the new one, which comes up in the second.
    bench.wish(Command::Stop { app: APP, scope: Scope::Slot(SlotId(0)) });
    bench.drain(WorkerId(1));
    bench.reload();
    bench.boot(WorkerId(3));
    bench.pass(ms(60_000));
    bench.wish(Command::Start { app: APP, scope: Scope::Slot(SlotId(0)), definition: None });
    bench.boot(WorkerId(4));
    bench.pass(ms(60_000));
    assert_eq!(reload_state(&bench), "canary");
    bench.out.clear();
    bench.fits(0);
    bench.outgrow(WorkerId(3));
    assert!(drains(&bench, 3) && bench.spawned().is_empty(), "{:?}", bench.out);
    bench.drain(WorkerId(3));
    assert_eq!((slots(&bench), generations(&bench)), (vec![1], vec![Generation(2)]));
    bench.boot(WorkerId(5));
    bench.pass(ms(60_000));
    assert_eq!((reload_state(&bench), bench.spawned().len()), ("canary", 1));
}

#[test]
fn while_a_reload_is_held_old_workers_are_renewed_by_their_like() {
    for fat in [1, 2] {
        let mut bench = held();
        bench.outgrow(WorkerId(fat));
        assert_eq!((bench.spawned(), generations(&bench)), (vec![WorkerId(4)], vec![Generation(1)]));
        bench.boot(WorkerId(4));
        bench.pass(ms(999));
        assert!(!drains(&bench, fat));
        bench.pass(ms(1));
        assert!(drains(&bench, fat));
        bench.drain(WorkerId(fat));
        bench.pass(ms(60_000));
        assert_eq!((reload_state(&bench), bench.spawned().len()), ("canary", 1));
        let serving = bench.supervisor.probe().into_iter().filter(|probe| probe.stage == Stage::Ready);
        let serving: std::collections::BTreeSet<WorkerId> = serving.map(|probe| probe.worker).collect();
        assert_eq!(serving, [3 - fat, 3, 4].map(WorkerId).into(), "of the slot of {fat}");
        let rollback = bench.wish(Command::Rollback { app: APP });
        bench.drain(WorkerId(3));
        assert_eq!(bench.outcome(rollback), Some(Outcome::Done));
    }
}

fn drains(bench: &Bench, worker: u64) -> bool {
    let leaves = |action: &Action| matches!(action, Action::Report { fact: Fact::Draining { worker: who, .. } } if who.0 == worker);
    bench.out.iter().any(leaves)
}

#[test]
fn without_room_an_old_worker_beside_a_held_new_one_stops_first_and_comes_back() {
    let mut bench = held();
    bench.fits(0);
    bench.outgrow(WorkerId(1));
    assert!(drains(&bench, 1) && bench.spawned().is_empty());
    bench.drain(WorkerId(1));
    assert_eq!(generations(&bench), [Generation(1)]);
    bench.outgrow(WorkerId(2));
    assert!(!drains(&bench, 2), "one at a time");
    bench.boot(WorkerId(4));
    bench.pass(ms(1000));
    assert!(drains(&bench, 2));
}

/// The slots that came with the reload are empty until it is promoted: nobody waits for them.
#[test]
fn without_room_workers_beside_the_empty_slots_of_a_held_reload_stop_first_too() {
    for (fat, like) in [(1, Generation(1)), (3, Generation(2))] {
        let mut bench = Bench::online(Policy { canary: Some(50), ..limited(2) });
        let more = definition(Policy { canary: Some(50), ..limited(4) }, 2);
        bench.wish(Command::Reload { app: APP, definition: Some(more) });
        for new in [3, 4] {
            bench.boot(WorkerId(new));
            bench.pass(ms(1000));
        }
        bench.pass(ms(60_000));
        assert_eq!(reload_state(&bench), "canary");
        bench.out.clear();
        bench.fits(0);
        bench.outgrow(WorkerId(fat));
        assert!(drains(&bench, fat) && bench.spawned().is_empty(), "{fat}: {:?}", bench.out);
        bench.drain(WorkerId(fat));
        assert_eq!((slots(&bench), generations(&bench)), (vec![0], vec![like]));
        bench.boot(WorkerId(5));
        bench.pass(ms(60_000));
        assert_eq!((reload_state(&bench), bench.spawned().len()), ("canary", 1));
    }
}

#[test]
fn the_new_worker_of_a_held_reload_is_renewed_by_its_like() {
    let mut bench = held();
    bench.outgrow(WorkerId(3));
    assert_eq!((bench.spawned(), generations(&bench)), (vec![WorkerId(4)], vec![Generation(2)]));
    bench.boot(WorkerId(4));
    bench.pass(ms(999));
    assert!(!drains(&bench, 3));
    bench.pass(ms(1));
    assert!(drains(&bench, 3));
    bench.drain(WorkerId(3));
    bench.pass(ms(60_000));
    assert_eq!((reload_state(&bench), bench.spawned().len()), ("canary", 1));
    assert!(!drains(&bench, 1) && !drains(&bench, 2));
    // The old one of the same slot has a turn of its own.
    bench.outgrow(WorkerId(1));
    assert_eq!(generations(&bench), [Generation(2), Generation(1)]);
    bench.boot(WorkerId(5));
    bench.pass(ms(1000));
    bench.drain(WorkerId(1));
    let promote = bench.wish(Command::Promote { app: APP });
    bench.drain(WorkerId(5));
    bench.boot(WorkerId(6));
    bench.pass(ms(1000));
    bench.drain(WorkerId(2));
    assert_eq!((reload_state(&bench), bench.outcome(promote)), ("", Some(Outcome::Done)));
}

#[test]
fn a_successor_of_a_held_reloads_new_worker_that_fails_fails_the_reload() {
    let mut bench = held();
    bench.outgrow(WorkerId(3));
    bench.exit(WorkerId(4));
    assert_eq!(reload_state(&bench), "rolling back");
    bench.drain(WorkerId(3));
    assert_eq!((reload_state(&bench), bench.spawned().len()), ("failed", 1));
}

#[test]
fn a_decision_in_the_middle_of_a_new_workers_renewal_leaves_one_worker_in_each_slot() {
    for promoted in [true, false] {
        let mut bench = held();
        bench.outgrow(WorkerId(3));
        bench.boot(WorkerId(4));
        let app = APP;
        bench.wish(if promoted { Command::Promote { app } } else { Command::Rollback { app } });
        for _ in 0..20 {
            for probe in bench.supervisor.probe() {
                let worker = probe.worker;
                if probe.stage == Stage::Ordered {
                    bench.boot(worker);
                } else if probe.stage > Stage::Ready {
                    bench.tell(Event::Exited { worker, status: ExitStatus::Signal(15), left: false });
                }
            }
            bench.pass(ms(1000));
        }
        let left: Vec<Generation> = bench.supervisor.probe().iter().map(|probe| probe.generation).collect();
        let generation = Generation(if promoted { 2 } else { 1 });
        assert_eq!(left, [generation; 2], "promoted: {promoted}");
    }
}

#[test]
fn a_promotion_in_the_middle_of_a_renewal_takes_its_successor_along() {
    let mut bench = held();
    bench.outgrow(WorkerId(1));
    bench.boot(WorkerId(4));
    let promote = bench.wish(Command::Promote { app: APP });
    for worker in [1, 4] {
        bench.tell(Event::Exited { worker: WorkerId(worker), status: ExitStatus::Signal(15), left: false });
    }
    bench.boot(WorkerId(5));
    bench.pass(ms(1000));
    bench.drain(WorkerId(2));
    assert_eq!(bench.outcome(promote), Some(Outcome::Done));
    assert_eq!(bench.supervisor.probe().len(), 2);
}

/// Whose slots the workers were started in.
fn slots(bench: &Bench) -> Vec<u32> {
    let of = |action: &Action| if let Action::Spawn { slot, .. } = action { Some(slot.0) } else { None };
    bench.out.iter().filter_map(of).collect()
}

#[test]
fn a_successor_that_is_never_ready_leaves_and_others_get_their_turn() {
    let mut bench = Bench::online(limited(2));
    for worker in [1, 2] {
        bench.outgrow(WorkerId(worker));
    }
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.pass(ms(29_999));
    assert!(!bench.took(&stop_signal(WorkerId(3))));
    bench.pass(ms(1));
    assert!(bench.took(&stop_signal(WorkerId(3))), "{:?}", bench.out);
    bench.tell(Event::Exited { worker: WorkerId(3), status: ExitStatus::Signal(15), left: false });
    assert_eq!((bench.last_cause(), bench.status()), (Some(Cause::Spawn), Status::Online));
    // The first failure is made good at once, as any, and the next only after a pause.
    assert_eq!(slots(&bench), [0, 0]);
    bench.tell(Event::Started { worker: WorkerId(4) });
    bench.pass(ms(30_000));
    assert!(bench.took(&stop_signal(WorkerId(4))));
    assert_eq!(slots(&bench), [0, 0, 1]);
    bench.boot(WorkerId(5));
    bench.pass(ms(1000));
    assert!(drains(&bench, 2) && !drains(&bench, 1));
    assert_eq!(slots(&bench), [0, 0, 1, 0], "and the first one again");
}

#[test]
fn a_slot_whose_successors_fail_goes_to_the_back_of_the_turn() {
    let mut bench = Bench::online(limited(3));
    for worker in [1, 2, 3] {
        bench.outgrow(WorkerId(worker));
    }
    bench.exit(WorkerId(4));
    bench.exit(WorkerId(5));
    for successor in [6, 7] {
        bench.boot(WorkerId(successor));
        bench.pass(ms(1000));
    }
    assert_eq!(slots(&bench), [0, 0, 1, 2, 0]);
}

#[test]
fn a_worker_that_is_late_alone_stays_launching() {
    let mut bench = Bench::with(Policy { ready: policy::Readiness::Notify, ..cluster(1) });
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.pass(ms(60_000));
    assert_eq!((bench.status(), bench.spawned().len()), (Status::Launching, 1));
    bench.tell(Event::Said { worker: WorkerId(1), word: Word::Ready });
    assert_eq!(bench.status(), Status::Online);
}

/// Lets time pass until it is started.
fn await_spawn(bench: &mut Bench, worker: u64) {
    let began = bench.now;
    while !bench.spawned().contains(&WorkerId(worker)) {
        assert!(bench.now - began < ms(20_000), "{worker} is never started");
        bench.pass(ms(100));
    }
}

#[test]
fn however_many_successors_fail_a_worker_that_serves_gets_one_in_the_end() {
    let mut bench = Bench::online(Policy { max_restarts: 2, ..limited(1) });
    bench.outgrow(WorkerId(1));
    for successor in 2..8 {
        assert_eq!(bench.spawned().last(), Some(&WorkerId(successor)));
        bench.exit(WorkerId(successor));
        assert_eq!(bench.status(), Status::Online);
        await_spawn(&mut bench, successor + 1);
    }
    bench.boot(WorkerId(8));
    bench.pass(ms(1000));
    assert!(drains(&bench, 1));
    let waits = |action: &Action| {
        let Action::Report { fact: Fact::BackingOff { delay, unstable, .. } } = action else { return None };
        Some((delay.as_secs(), *unstable))
    };
    let waits: Vec<_> = bench.out.iter().filter_map(waits).collect();
    assert_eq!(waits, [(15, 2); 5]);
}

#[test]
fn a_slot_that_lost_its_last_worker_is_given_up_as_ever() {
    let mut bench = Bench::online(Policy { max_restarts: 2, ..limited(1) });
    bench.outgrow(WorkerId(1));
    for successor in 2..5 {
        bench.exit(WorkerId(successor));
        await_spawn(&mut bench, successor + 1);
    }
    // The one that served was stable: the count begins anew.
    for worker in [1, 5, 6] {
        bench.exit(WorkerId(worker));
    }
    assert_eq!(bench.status(), Status::Errored);
}

/// Two workers in fork mode that say when they are ready: the first is too fat, the second is as told.
fn two_in_fork_mode(max_restarts: u32) -> Bench {
    let word = policy::Readiness::Word;
    let policy = Policy { mode: Mode::Fork, ready: word, max_restarts, ..limited(2) };
    let mut bench = Bench::with(policy);
    for worker in [WorkerId(1), WorkerId(2)] {
        bench.tell(Event::Started { worker });
        bench.tell(Event::Said { worker, word: Word::Ready });
    }
    bench.pass(ms(5000));
    bench.out.clear();
    bench
}

#[test]
fn who_stops_first_waits_until_the_others_serve() {
    let mut bench = two_in_fork_mode(16);
    bench.exit(WorkerId(2));
    bench.outgrow(WorkerId(1));
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.pass(ms(5000));
    assert!(!bench.took(&stop_signal(WorkerId(1))), "{:?}", bench.out);
    bench.tell(Event::Said { worker: WorkerId(3), word: Word::Ready });
    assert!(bench.took(&stop_signal(WorkerId(1))), "{:?}", bench.out);
}

#[test]
fn without_room_too_who_stops_first_waits_until_the_others_serve() {
    let mut bench = Bench::online(limited(2));
    bench.fits(0);
    bench.exit(WorkerId(2));
    bench.outgrow(WorkerId(1));
    assert!(!drains(&bench, 1), "{:?}", bench.out);
    bench.boot(WorkerId(3));
    assert!(drains(&bench, 1), "{:?}", bench.out);
}

#[test]
fn who_stops_first_does_not_wait_for_who_was_given_up() {
    let mut bench = two_in_fork_mode(2);
    bench.exit(WorkerId(2));
    bench.outgrow(WorkerId(1));
    bench.exit(WorkerId(3));
    assert!(!bench.took(&stop_signal(WorkerId(1))), "another one is tried");
    await_spawn(&mut bench, 4);
    bench.exit(WorkerId(4));
    assert!(bench.took(&stop_signal(WorkerId(1))), "{:?}", bench.out);
}

#[test]
fn who_is_late_is_waited_for_only_where_nobody_else_serves() {
    for instances in [2, 3] {
        let word = policy::Readiness::Word;
        let mut bench = Bench::with(Policy { mode: Mode::Fork, ready: word, ..limited(instances) });
        for worker in 1..=u64::from(instances) {
            bench.tell(Event::Started { worker: WorkerId(worker) });
            if worker != 2 {
                bench.tell(Event::Said { worker: WorkerId(worker), word: Word::Ready });
            }
        }
        bench.pass(ms(30_000));
        bench.outgrow(WorkerId(1));
        assert_eq!(bench.took(&stop_signal(WorkerId(1))), instances == 3, "{instances}");
    }
}

/// It serves badly, and is what the others may fail for.
#[test]
fn who_is_not_well_does_not_wait_for_those_that_fail() {
    let mut bench = two_in_fork_mode(0);
    for worker in [2, 3] {
        bench.exit(WorkerId(worker));
    }
    await_spawn(&mut bench, 4);
    bench.tell(Event::Said { worker: WorkerId(1), word: Word::Trigger });
    assert!(!bench.took(&stop_signal(WorkerId(1))), "one is on its way");
    bench.exit(WorkerId(4));
    assert!(bench.took(&stop_signal(WorkerId(1))), "{:?}", bench.out);
}

#[test]
fn whom_a_roll_back_replaces_anyway_is_not_renewed() {
    let mut bench = Bench::online(Policy { canary: Some(50), ..limited(1) });
    bench.reload();
    bench.boot(WorkerId(2));
    bench.pass(ms(60_000));
    bench.exit(WorkerId(1));
    bench.outgrow(WorkerId(2));
    bench.fits(0);
    bench.wish(Command::Rollback { app: APP });
    assert!(!drains(&bench, 2), "the old one is still starting");
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    assert!(drains(&bench, 2));
}

/// Both old workers of a held reload are gone and not back yet, a new one is being renewed, and one start at a
/// time is all there may be: the version that is taken back gets none.
#[test]
fn a_version_that_was_taken_back_is_not_brought_back_by_a_renewal() {
    let mut bench = Bench::online(Policy { canary: Some(100), ..limited(2) });
    bench.reload();
    for new in [3, 4] {
        bench.boot(WorkerId(new));
        bench.pass(ms(1000));
    }
    bench.pass(ms(60_000));
    assert_eq!(reload_state(&bench), "canary");
    bench.outgrow(WorkerId(4));
    for old in [1, 2] {
        // What is left of their trees keeps their places.
        bench.tell(Event::Exited { worker: WorkerId(old), status: ExitStatus::Code(1), left: true });
    }
    bench.out.clear();
    bench.wish(Command::Rollback { app: APP });
    bench.tell(Event::Exited { worker: WorkerId(5), status: ExitStatus::Signal(15), left: false });
    for old in [1, 2] {
        bench.tell(Event::Gone { worker: WorkerId(old) });
    }
    assert_eq!(generations(&bench), [Generation(1)], "one at a time");
    bench.boot(WorkerId(6));
    bench.pass(ms(1000));
    assert_eq!(generations(&bench), [Generation(1); 2]);
}
