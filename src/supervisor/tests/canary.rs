//! A reload that holds at its share, by tables.

use super::*;
use crate::supervisor::view::AppView;

fn held(instances: u32, percent: u8) -> Policy {
    Policy { canary: Some(percent), ..cluster(instances) }
}

impl Bench {
    /// With a reload under way whose workers are up, and held.
    fn canary(policy: Policy) -> (Bench, RequestId, Vec<WorkerId>) {
        let mut bench = Bench::online(policy);
        let reload = bench.reload();
        let mut new = Vec::new();
        while bench.state() == "progressing" {
            let started: Vec<WorkerId> =
                bench.spawned().into_iter().filter(|worker| !new.contains(worker)).collect();
            assert!(!started.is_empty() || bench.now < Time::from_start(ms(60_000)), "it never holds");
            for worker in started {
                bench.boot(worker);
                new.push(worker);
            }
            bench.pass(ms(1000));
        }
        (bench, reload, new)
    }

    fn view(&self) -> AppView {
        self.supervisor.view(self.now).apps.into_iter().next().expect("one app")
    }

    fn state(&self) -> &'static str {
        self.view().reload.map_or("", |reload| reload.state)
    }

    fn shares(&self) -> Option<Spread> {
        let order = |action: &Action| {
            if let Action::Steer { active, .. } = action { Some(active.clone()) } else { None }
        };
        self.out.iter().filter_map(order).next_back()
    }

    /// Lets time pass until all that leaves has been told to, and has ended.
    fn drain_all(&mut self) {
        self.pass(ms(31_000));
        let told = |action: &Action| {
            if let Action::Signal { worker, signal: SignalKind::Stop } = action {
                Some(*worker)
            } else {
                None
            }
        };
        let told: Vec<WorkerId> = self.out.iter().filter_map(told).collect();
        assert!(!told.is_empty(), "nobody leaves: {:?}", self.out);
        for worker in told {
            self.ended(worker);
        }
    }

    fn ended(&mut self, worker: WorkerId) {
        self.tell(Event::Exited { worker, status: ExitStatus::Signal(15), left: false });
    }
}

#[test]
fn a_held_reload_is_answered_and_replaces_nobody() {
    let (mut bench, reload, new) = Bench::canary(held(4, 10));
    assert_eq!(new.len(), 1);
    assert_eq!(bench.outcome(reload), Some(Outcome::Holds { percent: 10 }));
    assert_eq!(bench.shares(), Some(Spread::Share { percent: 10, new: vec![4], old: vec![0, 1, 2, 3] }));
    let shown = bench.view().reload.expect("it is under way");
    assert_eq!((shown.state, shown.done, shown.total, shown.share), ("canary", 1, 4, Some(10)));
    bench.out.clear();
    bench.pass(ms(3_600_000));
    assert!(bench.out.is_empty(), "{:?}", bench.out);
}

#[test]
fn as_many_workers_are_started_as_the_share_takes() {
    for (instances, percent, expected) in
        [(4, 10, 1), (4, 25, 1), (4, 26, 2), (10, 25, 3), (1, 99, 1), (3, 99, 3)]
    {
        let (bench, _, new) = Bench::canary(held(instances, percent));
        assert_eq!(new.len(), expected, "{percent}% of {instances}");
        assert_eq!(bench.view().workers.len(), instances as usize + expected);
    }
}

#[test]
fn what_only_judges_workers_leaves_a_held_reload_held() {
    let (mut bench, _, _) = Bench::canary(held(4, 25));
    bench.out.clear();
    let judged = Policy { max_restarts: 1, ..held(4, 25) };
    let adjust = bench.adjust(definition(judged.clone(), 2));
    assert_eq!((bench.outcome(adjust), bench.state()), (Some(Outcome::Done), "canary"));
    assert!(bench.spawned().is_empty(), "{:?}", bench.out);
    // It is the new version's: who goes back goes back to what ran.
    let mut promoted =
        Bench { supervisor: bench.supervisor.clone(), now: bench.now, requests: 100, ..Bench::new() };
    promoted.wish(Command::Promote { app: APP });
    assert_eq!(promoted.supervisor.spec(APP, Generation(2)), Some(SpecId(2)));
    let rollback = bench.wish(Command::Rollback { app: APP });
    bench.ended(WorkerId(5));
    bench.pass(ms(60_000));
    assert_eq!((bench.outcome(rollback), bench.view().generation), (Some(Outcome::Done), Generation(1)));
    assert!(bench.took(&Action::Forget { spec: SpecId(2) }), "{:?}", bench.out);
}

/// They come, or go, at once and beside it; and with the version that they came with they are taken back.
#[test]
fn the_number_of_instances_that_joins_a_held_reload_is_taken_back_with_it() {
    for asked in [3, 1] {
        let joined = || {
            let (mut bench, _, _) = Bench::canary(held(2, 50));
            bench.adjust(definition(Policy { instances: asked, ..held(2, 50) }, 2));
            assert_eq!((bench.view().instances, bench.state()), (asked, "canary"));
            bench
        };
        let mut bench = joined();
        bench.wish(Command::Rollback { app: APP });
        bench.drain_all();
        bench.pass(ms(60_000));
        let wanted = |bench: &Bench| bench.view().workers.iter().filter(|row| row.worker.is_some()).count();
        assert_eq!((bench.view().instances, wanted(&bench), bench.view().generation), (2, 2, Generation(1)));
        // And so where all of it is stopped, for the start that comes later.
        let mut bench = joined();
        let stop = bench.wish(Command::Stop { app: APP, scope: Scope::All });
        bench.drain_all();
        assert_eq!(bench.outcome(stop), Some(Outcome::Done));
        bench.start(APP);
        assert_eq!((bench.view().instances, bench.supervisor.slots(APP).count()), (2, 2), "asked {asked}");
        assert_eq!(wanted(&bench), 2);
        // Whoever sets the number meanwhile means it.
        let mut bench = joined();
        bench.wish(Command::Scale { app: APP, scale: Scale::To(4) });
        bench.wish(Command::Rollback { app: APP });
        bench.drain_all();
        assert_eq!(bench.view().instances, 4);
    }
}

#[test]
fn a_promoted_reload_goes_on_to_its_end() {
    let (mut bench, _, new) = Bench::canary(held(2, 50));
    let promote = bench.wish(Command::Promote { app: APP });
    assert_eq!(bench.shares().map(|spread| matches!(spread, Spread::Evenly(_))), Some(true));
    bench.drain(WorkerId(1));
    let second = *bench.spawned().last().expect("the next one comes");
    assert!(!new.contains(&second));
    bench.boot(second);
    bench.pass(ms(1000));
    bench.drain(WorkerId(2));
    assert_eq!(bench.outcome(promote), Some(Outcome::Done));
    assert_eq!((bench.state(), bench.view().generation), ("", Generation(2)));
}

#[test]
fn a_rolled_back_reload_leaves_the_old_workers_untouched() {
    let (mut bench, _, new) = Bench::canary(held(4, 40));
    let rollback = bench.wish(Command::Rollback { app: APP });
    assert_eq!(bench.outcome(rollback), None);
    assert_eq!(bench.state(), "rolling back");
    for worker in new {
        bench.drain(worker);
    }
    assert_eq!(bench.outcome(rollback), Some(Outcome::Done));
    assert_eq!((bench.state(), bench.view().generation), ("rolled back", Generation(1)));
    let serving: Vec<Option<WorkerId>> = bench.view().workers.iter().map(|row| row.worker).collect();
    assert_eq!(serving, [1, 2, 3, 4].map(|id| Some(WorkerId(id))));
}

#[test]
fn a_worker_that_ends_while_its_reload_is_held_takes_it_back() {
    // Even where a failed reload is to be kept: nothing was replaced that could be.
    let policy = Policy { on_reload_failure: OnReloadFailure::Hold, ..held(4, 40) };
    let (mut bench, _, new) = Bench::canary(policy);
    bench.pass(ms(60_000));
    bench.exit(new[1]);
    assert_eq!(bench.state(), "rolling back");
    bench.drain(new[0]);
    assert_eq!(bench.state(), "failed");
    assert_eq!(bench.view().workers.len(), 4);
}

#[test]
fn an_old_worker_that_ends_while_a_reload_is_held_is_replaced_by_its_like() {
    let (mut bench, _, _) = Bench::canary(held(2, 50));
    bench.out.clear();
    bench.exit(WorkerId(1));
    let generations: Vec<Generation> = bench
        .out
        .iter()
        .filter_map(
            |action| if let Action::Spawn { generation, .. } = action { Some(*generation) } else { None },
        )
        .collect();
    assert_eq!(generations, [Generation(1)]);
    assert_eq!(bench.state(), "canary");
}

#[test]
fn a_newer_reload_takes_the_place_of_a_held_one() {
    let (mut bench, _, new) = Bench::canary(held(2, 50));
    let policy = Policy { max_restarts: 7, ..held(2, 50) };
    let newer = bench.wish(Command::Reload { app: APP, definition: Some(definition(policy, 2)) });
    bench.drain(new[0]);
    assert_eq!((bench.state(), bench.view().generation), ("progressing", Generation(3)));
    let third = *bench.spawned().last().expect("the newest one comes");
    bench.boot(third);
    bench.pass(ms(1000));
    assert_eq!(bench.outcome(newer), Some(Outcome::Holds { percent: 50 }));
    assert_eq!(bench.supervisor.spec(APP, Generation(3)), Some(SpecId(2)));
    assert_eq!(bench.view().workers.len(), 3);
}

impl Bench {
    /// Two workers of an old version, one of which was replaced by a promoted new one; that is then taken back.
    fn half_promoted(policy: Policy) -> (Bench, WorkerId) {
        let (mut bench, _, new) = Bench::canary(policy);
        bench.wish(Command::Promote { app: APP });
        bench.drain(WorkerId(1));
        (bench, new[0])
    }
}

#[test]
fn no_reload_is_held_while_the_version_that_was_taken_back_serves() {
    let (mut bench, new) = Bench::half_promoted(held(2, 50));
    let second = *bench.spawned().last().expect("it was under way");
    let rollback = bench.wish(Command::Rollback { app: APP });
    let next = bench.reload();
    bench.ended(second);
    assert_eq!(bench.state(), "rolling back");
    let back = *bench.spawned().last().expect("the good version comes back");
    assert_eq!(bench.supervisor.worker(back).map(|place| place.generation), Some(Generation(1)));
    bench.boot(back);
    bench.pass(ms(1000));
    for worker in bench.supervisor.probe().iter().filter(|probe| probe.generation == Generation(2)) {
        assert!(worker.stage > Stage::Ready, "{worker:?}");
    }
    bench.drain(new);
    assert_eq!(bench.outcome(rollback), Some(Outcome::Done));
    let newest = *bench.spawned().last().expect("then the next one begins");
    bench.boot(newest);
    bench.pass(ms(1000));
    assert_eq!(bench.outcome(next), Some(Outcome::Holds { percent: 50 }));
    assert!(bench.supervisor.probe().iter().all(|probe| probe.generation != Generation(2)));
}

#[test]
fn no_reload_waits_for_a_good_version_that_does_not_come_back() {
    let (mut bench, new) = Bench::half_promoted(held(2, 50));
    let rollback = bench.wish(Command::Rollback { app: APP });
    let next = bench.reload();
    let count = bench.spawned().len();
    for _ in 0..2 {
        let back = *bench.spawned().last().expect("it is tried");
        bench.tell(Event::Started { worker: back });
        bench.exit(back);
    }
    assert!(matches!(bench.outcome(rollback), Some(Outcome::Failed(Failure::Died { .. }))));
    assert!(bench.spawned().len() > count);
    let newest = *bench.spawned().last().expect("the way out");
    assert_eq!(bench.supervisor.worker(newest).map(|place| place.generation), Some(Generation(3)));
    bench.boot(newest);
    bench.pass(ms(1000));
    assert_eq!(bench.outcome(next), Some(Outcome::Holds { percent: 50 }));
    assert_eq!(bench.supervisor.worker(new).map(|place| place.generation), Some(Generation(2)));
}

#[test]
fn who_waits_for_a_share_that_never_holds_is_told_why() {
    let mut bench = Bench::online(held(2, 50));
    let reload = bench.reload();
    let new = bench.spawned()[0];
    bench.tell(Event::Started { worker: new });
    bench.exit(new);
    assert!(matches!(bench.outcome(reload), Some(Outcome::Failed(Failure::Died { .. }))));
}

#[test]
fn stop_and_restart_end_a_held_reload() {
    let (mut bench, _, new) = Bench::canary(held(2, 50));
    let stop = bench.stop();
    for worker in [WorkerId(1), WorkerId(2), new[0]] {
        bench.ended(worker);
    }
    assert_eq!((bench.outcome(stop), bench.state()), (Some(Outcome::Done), ""));

    let (mut bench, _, _) = Bench::canary(held(2, 50));
    bench.wish(Command::Restart { app: APP, scope: Scope::All, definition: None });
    assert_eq!((bench.state(), bench.view().generation), ("", Generation(2)));
}

#[test]
fn scaling_keeps_a_reload_held() {
    let (mut bench, _, _) = Bench::canary(held(4, 50));
    bench.out.clear();
    bench.wish(Command::Scale { app: APP, scale: Scale::To(6) });
    assert_eq!(bench.state(), "canary");
    let spawned: Vec<Generation> = bench
        .out
        .iter()
        .filter_map(
            |action| if let Action::Spawn { generation, .. } = action { Some(*generation) } else { None },
        )
        .collect();
    assert!(spawned.contains(&Generation(1)), "{spawned:?}");
}

#[test]
fn without_a_held_reload_there_is_nothing_to_decide() {
    let mut bench = Bench::online(cluster(1));
    for command in [Command::Promote { app: APP }, Command::Rollback { app: APP }] {
        let request = bench.wish(command);
        assert_eq!(bench.outcome(request), Some(Outcome::Failed(Failure::NothingHeld)));
    }
    // A reload that was never to be held can be taken back as well, but not promoted.
    bench.reload();
    let promote = bench.wish(Command::Promote { app: APP });
    assert_eq!(bench.outcome(promote), Some(Outcome::Failed(Failure::NothingToPromote)));
    bench.wish(Command::Rollback { app: APP });
    assert_eq!(bench.view().generation, Generation(1));
}

#[test]
fn rollback_ends_a_mix_that_was_kept() {
    let policy = Policy { on_reload_failure: OnReloadFailure::Hold, ..cluster(2) };
    let mut bench = Bench::online(policy);
    bench.reload();
    let first = *bench.spawned().last().expect("one");
    bench.boot(first);
    bench.pass(ms(1000));
    bench.drain(WorkerId(1));
    let second = *bench.spawned().last().expect("one more");
    bench.tell(Event::Started { worker: second });
    bench.exit(second);
    assert_eq!(bench.state(), "held");
    let rollback = bench.wish(Command::Rollback { app: APP });
    let back = *bench.spawned().last().expect("the old one comes back");
    bench.boot(back);
    bench.pass(ms(1000));
    bench.drain(first);
    assert_eq!(bench.outcome(rollback), Some(Outcome::Done));
}

#[test]
fn clients_that_stay_with_their_instance_are_shared_as_well() {
    let policy = Policy { balance: policy::Balance::SourceIp, ..held(4, 25) };
    let (bench, _, _) = Bench::canary(policy);
    let Some(Spread::Seats(seats)) = bench.shares() else { panic!("{:?}", bench.shares()) };
    let new = seats.iter().filter(|place| **place == 4).count();
    assert_eq!(new * 4, seats.len());
}
