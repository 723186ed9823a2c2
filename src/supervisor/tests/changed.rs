//! What comes of an app when its files have changed.

use super::*;
use crate::supervisor::policy::Watch;

fn watched(policy: Policy) -> Policy {
    let watch = Watch { paths: vec![".".to_owned()], ignore: Vec::new(), delay: ms(200) };
    Policy { watch: Some(watch), ..policy }
}

fn change(bench: &mut Bench) {
    bench.out.clear();
    bench.tell(Event::Changed { app: APP });
}

fn told(bench: &Bench, later: bool) -> bool {
    bench.took(&Action::Report { fact: Fact::FilesChanged { app: APP, later } })
}

#[test]
fn changes_during_a_reload_bring_exactly_one_more() {
    let mut bench = Bench::online(watched(cluster(1)));
    change(&mut bench);
    let first = *bench.spawned().last().expect("a new worker");
    assert!(told(&bench, false));
    change(&mut bench);
    assert!(told(&bench, true) && bench.spawned().is_empty(), "{:?}", bench.out);
    change(&mut bench);
    assert!(!told(&bench, true), "it is told once: {:?}", bench.out);
    bench.boot(first);
    bench.pass(ms(1500));
    bench.exit(WorkerId(1));
    let second = *bench.spawned().last().expect("one more");
    assert!(bench.supervisor.is_reloading(APP));
    bench.boot(second);
    bench.pass(ms(1500));
    bench.exit(first);
    assert!(!bench.supervisor.is_reloading(APP), "no third one");
}

#[test]
fn who_gave_up_or_waits_is_tried_at_once_and_who_was_stopped_is_not() {
    let mut bench = Bench::with(Policy { max_restarts: 1, ..watched(Policy::default()) });
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(3), left: false });
    assert_eq!(bench.supervisor.given_up(), None, "the next change may help");
    change(&mut bench);
    assert_eq!(bench.spawned(), [WorkerId(2)]);

    let mut bench = Bench::with(Policy { restart_delay: ms(9000), ..watched(Policy::default()) });
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(3), left: false });
    assert!(bench.spawned().len() == 1);
    change(&mut bench);
    assert_eq!(bench.spawned(), [WorkerId(2)]);

    let mut bench = Bench::online(watched(cluster(2)));
    bench.stop();
    change(&mut bench);
    assert!(bench.out.is_empty(), "{:?}", bench.out);
}

#[test]
fn who_never_was_started_is_not_started_by_a_change() {
    let mut bench = Bench::with(Policy { autostart: false, ..watched(Policy::default()) });
    change(&mut bench);
    assert!(bench.out.is_empty(), "{:?}", bench.out);
}

#[test]
fn a_canary_holds_no_change() {
    let mut bench = Bench::online(Policy { canary: Some(10), ..watched(cluster(2)) });
    change(&mut bench);
    let worker = bench.spawned()[0];
    bench.boot(worker);
    bench.pass(ms(2000));
    assert!(bench.spawned().len() > 1, "it goes on without anybody: {:?}", bench.out);
}
