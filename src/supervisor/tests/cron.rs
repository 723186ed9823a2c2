//! What comes of an app when its time has come.

use super::*;
use crate::supervisor::event::Pass;
use crate::supervisor::policy::Schedule;

fn scheduled(policy: Policy) -> Policy {
    let schedule = Schedule { pattern: "@daily".to_owned(), zone: None };
    Policy { cron_restart: Some(schedule), ..policy }
}

fn due(bench: &mut Bench) {
    bench.out.clear();
    bench.tell(Event::Due { app: APP });
}

fn passed(bench: &Bench, why: Pass) -> bool {
    bench.took(&Action::Report { fact: Fact::CronPassed { app: APP, why } })
}

#[test]
fn a_schedule_holds_no_canary() {
    let policy = Policy { canary: Some(10), ..scheduled(cluster(2)) };
    let mut bench = Bench::online(policy);
    due(&mut bench);
    let worker = bench.spawned()[0];
    bench.boot(worker);
    bench.pass(ms(2000));
    assert!(bench.spawned().len() > 1, "it goes on without anybody: {:?}", bench.out);
}

#[test]
fn of_several_jobs_those_that_ended_run_again_once_and_the_others_are_let_finish() {
    let policy = Policy { autorestart: false, ..scheduled(Policy { instances: 2, ..Policy::default() }) };
    let mut bench = Bench::with(policy);
    for worker in bench.spawned() {
        bench.tell(Event::Started { worker });
    }
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(0), left: false });
    due(&mut bench);
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    let restarts: Vec<u32> =
        bench.supervisor.view(bench.now).apps[0].workers.iter().map(|worker| worker.restarts).collect();
    assert_eq!(restarts, [1, 0]);
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.pass(ms(5000));
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    assert!(!bench.took(&stop_signal(WorkerId(2))), "{:?}", bench.out);
}

#[test]
fn a_mix_that_was_left_to_look_at_stays() {
    let policy = Policy { on_reload_failure: OnReloadFailure::Hold, ..scheduled(cluster(2)) };
    let mut bench = Bench::online(policy);
    bench.reload();
    let first = *bench.spawned().last().expect("a new worker");
    bench.boot(first);
    bench.pass(ms(1500));
    let second = *bench.spawned().last().expect("another one");
    bench.exit(second);
    due(&mut bench);
    assert!(passed(&bench, Pass::Held) && bench.spawned().is_empty(), "{:?}", bench.out);
}

#[test]
fn who_was_stopped_before_it_ended_stays_so() {
    let policy = Policy { autorestart: false, ..scheduled(Policy::default()) };
    let mut bench = Bench::with(policy);
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.stop();
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(0), left: false });
    due(&mut bench);
    assert!(passed(&bench, Pass::Stopped) && bench.spawned().is_empty(), "{:?}", bench.out);
}

#[test]
fn an_app_that_waits_for_its_time_is_not_started_by_it_once_it_was_stopped() {
    let policy = Policy { autostart: false, ..scheduled(Policy::default()) };
    let mut bench = Bench::with(policy.clone());
    due(&mut bench);
    assert_eq!(bench.spawned(), [WorkerId(1)]);
    let mut stopped = Bench::with(policy);
    stopped.stop();
    due(&mut stopped);
    assert!(passed(&stopped, Pass::Stopped) && stopped.spawned().is_empty(), "{:?}", stopped.out);
}

#[test]
fn a_job_that_comes_back_keeps_the_supervisor_and_one_that_gave_up_does_not() {
    let policy = Policy { autorestart: false, ..scheduled(Policy::default()) };
    let mut bench = Bench::with(policy);
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(0), left: false });
    assert_eq!(bench.supervisor.given_up(), None);
    let mut bench = Bench::with(Policy { max_restarts: 1, ..scheduled(Policy::default()) });
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Code(3), left: false });
    assert_eq!(bench.supervisor.given_up(), Some(3));
}
