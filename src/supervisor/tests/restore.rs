//! Apps of an earlier supervisor, by tables.

use std::collections::BTreeSet;

use super::*;
use crate::supervisor::policy::AppName;

fn kept(instances: u32, resting: &[u32]) -> Kept {
    Kept { instances, resting: resting.iter().copied().collect::<BTreeSet<u32>>(), unordered: false }
}

fn restored(policy: Policy, kept: Kept) -> (Bench, RequestId) {
    let mut bench = Bench::new();
    let request = bench.wish(Command::Restore { app: APP, definition: definition(policy, 1), kept });
    (bench, request)
}

#[test]
fn an_app_comes_back_with_its_own_number_of_workers_and_those_stopped_that_were() {
    for (instances, resting, started) in [
        (2, &[][..], 2),
        (4, &[], 4),
        (1, &[], 1),
        (4, &[1, 3], 2),
        (2, &[7], 2),
        (0, &[], 1),
        (2, &[0, 1], 0),
    ] {
        let (bench, request) = restored(cluster(2), kept(instances, resting));
        assert_eq!(bench.spawned().len(), started, "{instances} {resting:?}");
        let done = bench.outcome(request) == Some(Outcome::Done);
        assert_eq!(done, started == 0, "nobody waits for what does not start");
        let (_, now) = bench.supervisor.keeps(APP).expect("it is known");
        let there = resting.iter().copied().filter(|place| *place < instances.max(1)).collect();
        assert_eq!(now, Kept { instances: instances.max(1), resting: there, unordered: false });
    }
}

#[test]
fn a_stopped_app_comes_back_stopped_and_starts_when_it_is_told_to() {
    let (mut bench, _) = restored(cluster(2), kept(2, &[0, 1]));
    assert_eq!(bench.supervisor.status(APP), Some(Status::Stopped));
    bench.wish(Command::Start { app: APP, scope: Scope::All, definition: None });
    assert_eq!(bench.spawned().len(), 2);
}

#[test]
fn what_was_started_by_hand_comes_back_running_whatever_autostart_says() {
    let (bench, _) = restored(Policy { autostart: false, ..cluster(2) }, kept(2, &[]));
    assert_eq!(bench.spawned().len(), 2);
}

#[test]
fn an_id_that_is_taken_is_refused_and_its_recipe_forgotten() {
    let mut bench = Bench::online(cluster(1));
    let again = Command::Restore { app: APP, definition: definition(cluster(1), 9), kept: kept(1, &[]) };
    let request = bench.wish(again);
    assert_eq!(bench.outcome(request), Some(Outcome::Failed(Failure::Unknown)));
    assert!(bench.took(&Action::Forget { spec: SpecId(9) }));
}

#[test]
fn a_reload_is_kept_when_it_is_through_and_not_before() {
    let mut bench = Bench::online(cluster(2));
    bench.wish(Command::Reload { app: APP, definition: Some(definition(cluster(3), 2)) });
    assert_eq!(bench.supervisor.keeps(APP), Some((SpecId(1), kept(2, &[]))));
    for _ in 0..3 {
        let new = *bench.spawned().last().expect("one of the new ones");
        bench.boot(new);
        bench.pass(ms(2000));
        for old in bench.out.clone() {
            if let Action::Observe { worker, .. } = old {
                bench.tell(Event::Exited { worker, status: ExitStatus::Code(0), left: false });
            }
        }
        bench.pass(ms(2000));
    }
    assert_eq!(bench.supervisor.keeps(APP), Some((SpecId(2), kept(3, &[]))));
}

#[test]
fn what_gave_up_or_crashed_is_kept_as_wanted_and_what_is_deleted_is_not_kept() {
    let mut bench = Bench::online(Policy { autorestart: false, ..cluster(2) });
    bench.exit(WorkerId(1));
    assert_eq!(bench.supervisor.keeps(APP), Some((SpecId(1), kept(2, &[]))));
    bench.wish(Command::Scale { app: APP, scale: Scale::To(3) });
    bench.wish(Command::Stop { app: APP, scope: Scope::Slot(SlotId(1)) });
    assert_eq!(bench.supervisor.keeps(APP), Some((SpecId(1), kept(3, &[1]))));
    bench.wish(Command::Delete { app: APP, scope: Scope::All });
    assert_eq!(bench.supervisor.keeps(APP), None);
}

#[test]
fn who_ran_without_what_it_depends_on_waits_for_nothing() {
    let on = AppName { namespace: "default".to_owned(), name: "gone".to_owned() };
    let policy = Policy { depends_on: vec![on], ..cluster(2) };
    for (unordered, started) in [(true, 2), (false, 0)] {
        let (bench, _) = restored(policy.clone(), Kept { unordered, ..kept(2, &[]) });
        assert_eq!(bench.spawned().len(), started);
    }
}
