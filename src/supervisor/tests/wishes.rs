//! What ends for good, and apps that wait for each other.

use super::*;
use crate::supervisor::policy::{AppName, Readiness};

const DB: AppId = AppId(1);
const WEB: AppId = AppId(2);

fn name(text: &str) -> AppName {
    AppName { namespace: "default".into(), name: text.into() }
}

fn named(text: &str, policy: Policy) -> Definition {
    Definition { name: text.into(), ..definition(policy, u64::from(text.as_bytes()[0])) }
}

/// `web` depends on `db`; both are in fork mode, and ready once they run.
fn web() -> Policy {
    Policy { depends_on: vec![name("db")], ..Policy::default() }
}

fn slow() -> Policy {
    Policy { ready: Readiness::Word, ..Policy::default() }
}

fn dependency(obstacle: Obstacle) -> Option<Outcome> {
    Some(Outcome::Failed(Failure::Dependency { on: name("db"), obstacle }))
}

impl Bench {
    /// db, which says when it is ready, and web, which waits for it.
    fn pair(db: Policy) -> Bench {
        let mut bench = Bench::new();
        bench.wish(Command::Add { app: DB, definition: named("db", db) });
        bench.wish(Command::Add { app: WEB, definition: named("web", web()) });
        bench
    }

    fn both_online() -> Bench {
        let mut bench = Bench::pair(Policy::default());
        bench.tell(Event::Started { worker: WorkerId(1) });
        bench.tell(Event::Started { worker: WorkerId(2) });
        bench.pass(ms(5000));
        bench.out.clear();
        bench
    }

    fn ends(&mut self, worker: u64, status: ExitStatus) {
        self.tell(Event::Exited { worker: WorkerId(worker), status, left: false });
    }

    fn status_of(&self, app: AppId) -> Option<Status> {
        self.supervisor.status(app)
    }

    fn told_to_stop(&self, worker: u64) -> bool {
        self.took(&Action::Signal { worker: WorkerId(worker), signal: SignalKind::Stop })
    }

    pub(super) fn start(&mut self, app: AppId) -> RequestId {
        self.wish(Command::Start { app, scope: Scope::All, definition: None })
    }

    fn restart(&mut self, app: AppId) -> RequestId {
        self.wish(Command::Restart { app, scope: Scope::All, definition: None })
    }

    fn stop_app(&mut self, app: AppId) -> RequestId {
        self.wish(Command::Stop { app, scope: Scope::All })
    }
}

#[test]
fn what_ends_for_good_is_what_the_file_says() {
    let never = Policy { autorestart: false, ..Policy::default() };
    let codes = Policy { stop_exit_codes: vec![0, 42], ..Policy::default() };
    let cases = [
        (&never, ExitStatus::Code(0), true),
        (&never, ExitStatus::Code(1), true),
        (&never, ExitStatus::Signal(9), true),
        (&codes, ExitStatus::Code(0), true),
        (&codes, ExitStatus::Code(42), true),
        (&codes, ExitStatus::Code(1), false),
        // A death by signal is no exit code.
        (&codes, ExitStatus::Signal(11), false),
    ];
    for (policy, status, last) in cases {
        let mut bench = Bench::online(policy.clone());
        bench.ends(1, status);
        bench.pass(ms(60_000));
        assert_eq!(bench.spawned().is_empty(), last, "{policy:?} {status:?}");
        assert_eq!(bench.status() == Status::Stopped, last, "{policy:?} {status:?}");
        assert_eq!(bench.supervisor.has_ended(APP), last);
        assert!(!last || bench.supervisor.next_deadline().is_none());
    }
}

#[test]
fn what_ended_runs_again_when_somebody_asks() {
    let mut bench = Bench::online(Policy { autorestart: false, ..Policy::default() });
    bench.ends(1, ExitStatus::Code(3));
    let start = bench.start(APP);
    assert_eq!(bench.spawned(), [WorkerId(2)]);
    bench.tell(Event::Started { worker: WorkerId(2) });
    assert_eq!(bench.outcome(start), Some(Outcome::Done));
}

#[test]
fn a_job_that_ends_well_before_it_is_ready_is_done() {
    let job = Policy { autorestart: false, ..slow() };
    for (status, done) in [(ExitStatus::Code(0), true), (ExitStatus::Code(1), false)] {
        let mut bench = Bench::with(job.clone());
        bench.tell(Event::Started { worker: WorkerId(1) });
        bench.ends(1, status);
        assert_eq!(bench.outcome(RequestId(1)) == Some(Outcome::Done), done, "{status:?}");
        assert_eq!(bench.status(), Status::Stopped);
    }
}

#[test]
fn what_could_never_be_run_is_tried_once_without_autorestart() {
    let mut bench = Bench::with(Policy { autorestart: false, ..Policy::default() });
    let missing =
        |transient| SpawnFailure { step: String::new(), errno: 2, message: String::new(), transient };
    bench.tell(Event::SpawnFailed { worker: WorkerId(1), failure: missing(true) });
    bench.pass(ms(1000));
    assert_eq!(bench.spawned(), [WorkerId(1), WorkerId(2)], "the host's failure is not its own");
    bench.tell(Event::SpawnFailed { worker: WorkerId(2), failure: missing(false) });
    assert_eq!(bench.status(), Status::Errored);
}

/// A worker that says STOPPING=1 may be the last: nobody takes its place before its code is known.
#[test]
fn who_says_that_it_stops_is_replaced_only_if_that_was_not_for_good() {
    for (codes, again) in [(vec![7], false), (vec![8], true)] {
        let mut bench = Bench::online(Policy { stop_exit_codes: codes, ..cluster(1) });
        bench.pass(ms(60_000));
        bench.tell(Event::Said { worker: WorkerId(1), word: Word::Stopping });
        assert!(bench.spawned().is_empty());
        bench.ends(1, ExitStatus::Code(7));
        assert_eq!(!bench.spawned().is_empty(), again);
    }
}

#[test]
fn a_reload_to_a_job_that_is_done_at_once_is_a_success() {
    let mut bench = Bench::online(Policy { autorestart: false, ..Policy::default() });
    let reload = bench.reload();
    bench.tell(Event::Exited { worker: WorkerId(1), status: ExitStatus::Signal(2), left: false });
    bench.tell(Event::Started { worker: WorkerId(2) });
    bench.ends(2, ExitStatus::Code(0));
    assert_eq!(bench.outcome(reload), Some(Outcome::Done));
    bench.pass(ms(60_000));
    assert_eq!(bench.spawned(), [WorkerId(2)]);
}

#[test]
fn autostart_off_makes_an_app_known_and_no_more() {
    let quiet = Policy { autostart: false, instances: 2, ..Policy::default() };
    let mut bench = Bench::with(quiet.clone());
    assert_eq!((bench.outcome(RequestId(1)), bench.status()), (Some(Outcome::Done), Status::Stopped));
    assert!(bench.spawned().is_empty());
    let define = bench.wish(Command::Define { app: APP, definition: definition(quiet, 2) });
    assert_eq!(bench.outcome(define), Some(Outcome::Done));
    assert!(bench.spawned().is_empty() && bench.took(&Action::Forget { spec: SpecId(1) }));
    bench.start(APP);
    assert_eq!(bench.spawned().len(), 2);
}

#[test]
fn what_only_judges_workers_is_taken_over_beside_them() {
    let second = Duration::from_secs(1);
    let policy = Policy { instances: 2, ..Policy::default() };
    let judged = Policy { instances: 3, max_restarts: 1, max_age: Some(100 * second), ..policy.clone() };
    let mut bench = Bench::online(policy);
    let adjust = bench.adjust(definition(judged, 2));
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    assert!(bench.took(&Action::Forget { spec: SpecId(1) }));
    assert_eq!(bench.outcome(adjust), None, "the third is on its way");
    bench.tell(Event::Started { worker: WorkerId(3) });
    assert_eq!(bench.outcome(adjust), Some(Outcome::Done));
    let spent = |bench: &Bench| {
        bench.out.iter().filter(|a| matches!(a, Action::Report { fact: Fact::Spent { .. } })).count()
    };
    // Those that run have an age from now on, counted from their start.
    bench.pass(ms(80_000));
    assert_eq!((spent(&bench), bench.spawned().len()), (0, 1));
    bench.pass(ms(30_000));
    assert!(spent(&bench) > 0);
}

#[test]
fn what_changes_workers_is_a_reload_however_it_is_wished() {
    let other = Policy { ready: Readiness::Notify, ..cluster(1) };
    let mut bench = Bench::online(cluster(1));
    bench.adjust(definition(other, 2));
    assert_eq!(bench.spawned(), [WorkerId(2)]);
    // And one that comes while workers are replaced waits for that.
    let judged = Policy { max_restarts: 1, ..cluster(1) };
    let later = bench.adjust(definition(judged, 3));
    assert_eq!((bench.spawned(), bench.outcome(later)), (vec![WorkerId(2)], None));
}

/// The plan was made while another version was on its way, which has failed by the time that it is carried out: what runs
/// was never compared.
#[test]
fn what_was_compared_with_a_version_that_has_failed_meanwhile_is_a_reload() {
    let mut bench = Bench::online(cluster(2));
    bench.wish(Command::Reload { app: APP, definition: Some(definition(cluster(2), 5)) });
    let known = bench.supervisor.course(APP).expect("it is known").spec;
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    bench.exit(WorkerId(3));
    bench.out.clear();
    let definition = definition(Policy { max_restarts: 1, ..cluster(2) }, 7);
    let adjust = bench.wish(Command::Adjust { app: APP, definition, known });
    assert_eq!((bench.spawned(), bench.outcome(adjust)), (vec![WorkerId(4)], None), "it is tried first");
    assert_eq!(bench.supervisor.spec(APP, Generation(1)), Some(SpecId(1)));
}

#[test]
fn what_only_judges_workers_is_part_of_the_reload_under_way_and_waits_for_its_end() {
    for fails in [false, true] {
        let mut bench = Bench::online(cluster(2));
        let reload = bench.reload();
        let judged = Policy { max_restarts: 1, ..cluster(2) };
        let adjust = bench.adjust(definition(judged, 2));
        assert_eq!((bench.spawned(), bench.outcome(adjust)), (vec![WorkerId(3)], None));
        if fails {
            bench.exit(WorkerId(3));
            assert!(matches!(bench.outcome(adjust), Some(Outcome::Failed(Failure::Died { .. }))));
            assert!(bench.took(&Action::Forget { spec: SpecId(2) }), "{:?}", bench.out);
            continue;
        }
        for (new, old) in [(3, 1), (4, 2)] {
            assert_eq!(bench.outcome(adjust), None);
            bench.boot(WorkerId(new));
            bench.pass(ms(1000));
            bench.drain(WorkerId(old));
        }
        assert_eq!(
            (bench.outcome(reload), bench.outcome(adjust)),
            (Some(Outcome::Done), Some(Outcome::Done))
        );
        assert_eq!(bench.supervisor.spec(APP, Generation(2)), Some(SpecId(2)));
        assert_eq!(bench.spawned().len(), 2, "nobody was replaced once more");
    }
}

/// How many instances there are to be, and have a place.
fn instances(bench: &Bench) -> (u32, usize) {
    (bench.supervisor.view(bench.now).apps[0].instances, bench.supervisor.slots(APP).count())
}

#[test]
fn the_number_of_instances_that_came_with_a_version_goes_with_it() {
    for asked in [1, 4] {
        let mut bench = Bench::online(cluster(2));
        bench.reload();
        let judged = Policy { max_restarts: 1, ..cluster(asked) };
        let adjust = bench.adjust(definition(judged, 2));
        assert_eq!(instances(&bench).0, asked);
        bench.exit(WorkerId(3));
        assert!(matches!(bench.outcome(adjust), Some(Outcome::Failed(Failure::Died { .. }))));
        bench.pass(ms(1000));
        assert_eq!(instances(&bench), (2, 2), "asked for {asked}");
        let left: Vec<WorkerId> = bench.supervisor.probe().iter().map(|probe| probe.worker).collect();
        assert_eq!((left, bench.spawned()), (vec![WorkerId(1), WorkerId(2)], vec![WorkerId(3)]));
    }
}

#[test]
fn the_number_of_instances_that_somebody_set_during_a_reload_stays_when_it_fails() {
    let mut bench = Bench::online(cluster(2));
    bench.wish(Command::Reload { app: APP, definition: Some(definition(cluster(4), 2)) });
    bench.wish(Command::Scale { app: APP, scale: Scale::To(3) });
    bench.exit(*bench.spawned().last().expect("the first of the new ones"));
    bench.pass(ms(1000));
    assert_eq!(instances(&bench), (3, 3));
    assert!(bench.supervisor.probe().iter().all(|probe| probe.generation == Generation(1)));
    assert_eq!(bench.supervisor.probe().len(), 3);
}

/// What there was before is stopped: the one that waits has nothing to reload, and is a start.
#[test]
fn a_reload_that_waits_is_not_lost_where_the_one_before_fails_and_leaves_nothing_that_is_wanted() {
    let mut bench = Bench::online(cluster(1));
    bench.wish(Command::Reload { app: APP, definition: Some(definition(cluster(2), 2)) });
    bench.wish(Command::Stop { app: APP, scope: Scope::Slot(SlotId(0)) });
    let waits = bench.wish(Command::Reload { app: APP, definition: Some(definition(cluster(1), 3)) });
    let new = *bench.spawned().last().expect("the one that the reload brings");
    bench.exit(new);
    bench.drain(WorkerId(1));
    let started = *bench.spawned().last().expect("the start");
    assert!(started > new && bench.outcome(waits).is_none(), "{:?}", bench.out);
    bench.boot(started);
    assert_eq!((bench.outcome(waits), instances(&bench)), (Some(Outcome::Done), (1, 1)));
    let generation = bench.supervisor.worker(started).map(|place| place.generation).expect("it runs");
    assert_eq!(bench.supervisor.spec(APP, generation), Some(SpecId(3)));
}

#[test]
fn how_a_reload_failed_is_shown_until_all_of_it_is_started_anew() {
    let failed = |bench: &Bench| bench.supervisor.view(bench.now).apps[0].reload.is_some();
    let broken = || {
        let mut bench = Bench::online(Policy { on_reload_failure: OnReloadFailure::Hold, ..cluster(1) });
        bench.reload();
        bench.exit(WorkerId(2));
        assert!(failed(&bench));
        bench
    };
    let (app, scope) = (APP, Scope::All);
    let mut bench = broken();
    let worker = bench.supervisor.slots(APP).next().expect("one").slot;
    bench.wish(Command::Restart { app, scope: Scope::Slot(worker), definition: None });
    assert!(failed(&bench));
    bench.wish(Command::Restart { app, scope, definition: None });
    assert!(!failed(&bench));
    let mut bench = broken();
    bench.stop();
    assert!(failed(&bench));
    bench.exit(WorkerId(1));
    bench.start(APP);
    assert!(!failed(&bench));
}

/// Code to end with; none: it goes on.
#[test]
fn an_essential_app_that_is_over_ends_the_supervisor() {
    let essential = Policy { essential: true, autorestart: false, ..Policy::default() };
    let other = Policy { essential: false, ..essential.clone() };
    let cases = [
        (&essential, ExitStatus::Code(0), Some(0)),
        (&essential, ExitStatus::Code(7), Some(7)),
        (&essential, ExitStatus::Signal(9), Some(137)),
        (&other, ExitStatus::Code(7), None),
    ];
    for (policy, status, expected) in cases {
        let mut bench = Bench::online(policy.clone());
        bench.wish(Command::Add { app: WEB, definition: named("other", Policy::default()) });
        bench.ends(1, status);
        assert_eq!(bench.supervisor.given_up(), expected, "{status:?}");
    }
    let mut stopped = Bench::online(essential);
    stopped.stop();
    stopped.ends(1, ExitStatus::Code(0));
    assert_eq!(stopped.supervisor.given_up(), None, "an operator's stop is no end for good");
}

#[test]
fn when_all_ended_well_there_is_no_failure_to_tell() {
    let mut bench = Bench::online(Policy { autorestart: false, ..Policy::default() });
    let quiet = Policy { autostart: false, ..Policy::default() };
    bench.wish(Command::Add { app: WEB, definition: named("quiet", quiet) });
    assert_eq!(bench.supervisor.given_up(), None);
    bench.ends(1, ExitStatus::Code(0));
    assert_eq!(bench.supervisor.given_up(), Some(0));
}

#[test]
fn who_depends_starts_when_the_other_is_ready() {
    let mut bench = Bench::pair(slow());
    assert_eq!(bench.spawned(), [WorkerId(1)]);
    assert_eq!(bench.supervisor.waits_for(WEB), [name("db")]);
    assert!(bench.took(&Action::Report { fact: Fact::Awaits { app: WEB, on: name("db"), stopped: false } }));
    bench.tell(Event::Started { worker: WorkerId(1) });
    assert_eq!(bench.spawned().len(), 1);
    bench.tell(Event::Said { worker: WorkerId(1), word: Word::Ready });
    assert_eq!(bench.spawned(), [WorkerId(1), WorkerId(2)]);
    bench.tell(Event::Started { worker: WorkerId(2) });
    assert_eq!(bench.outcome(RequestId(2)), Some(Outcome::Done));
    assert!(bench.supervisor.waits_for(WEB).is_empty());
}

/// Fault 7.
#[test]
fn who_depends_on_an_app_that_is_late_is_told_and_starts_when_it_comes() {
    let mut bench = Bench::pair(slow());
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.pass(ms(30_000));
    assert_eq!(bench.outcome(RequestId(2)), dependency(Obstacle::Late));
    let again = bench.start(WEB);
    assert_eq!(bench.outcome(again), dependency(Obstacle::Late));
    bench.tell(Event::Said { worker: WorkerId(1), word: Word::Ready });
    assert_eq!(bench.spawned(), [WorkerId(1), WorkerId(2)]);
}

#[test]
fn who_depends_on_an_app_that_crashes_is_told_and_starts_when_it_stays_up() {
    let mut bench = Bench::pair(slow());
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.exit(WorkerId(1));
    assert_eq!(bench.outcome(RequestId(2)), None, "the first crash is made good at once");
    bench.tell(Event::Started { worker: WorkerId(2) });
    bench.exit(WorkerId(2));
    assert_eq!(bench.outcome(RequestId(2)), dependency(Obstacle::Failing));
    bench.pass(ms(1000));
    bench.tell(Event::Said { worker: WorkerId(3), word: Word::Ready });
    assert_eq!(bench.spawned().last(), Some(&WorkerId(4)));
}

/// Fault 7: the whole chain is given up, and nobody waits for ever.
#[test]
fn when_what_they_depend_on_is_given_up_all_are() {
    let mut bench = Bench::pair(Policy { max_restarts: 1, ..slow() });
    let top = Policy { depends_on: vec![name("web")], ..Policy::default() };
    bench.wish(Command::Add { app: AppId(3), definition: named("top", top) });
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.exit(WorkerId(1));
    assert_eq!(bench.outcome(RequestId(2)), dependency(Obstacle::Errored));
    let behind = Failure::Dependency { on: name("web"), obstacle: Obstacle::Errored };
    assert_eq!(bench.outcome(RequestId(3)), Some(Outcome::Failed(behind)));
    for app in [DB, WEB, AppId(3)] {
        assert_eq!(bench.status_of(app), Some(Status::Errored));
    }
    assert_eq!((bench.supervisor.given_up(), bench.supervisor.next_deadline()), (Some(1), None));
}

#[test]
fn a_chain_behind_a_failing_app_is_told() {
    let mut bench = Bench::pair(slow());
    let top = Policy { depends_on: vec![name("web")], ..Policy::default() };
    bench.wish(Command::Add { app: AppId(3), definition: named("top", top) });
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.pass(ms(30_000));
    let behind = Failure::Dependency { on: name("web"), obstacle: Obstacle::Waiting };
    assert_eq!(bench.outcome(RequestId(3)), Some(Outcome::Failed(behind)));
}

#[test]
fn a_start_without_what_it_depends_on_fails_and_changes_nothing() {
    let mut bench = Bench::both_online();
    bench.stop_app(WEB);
    bench.ends(2, ExitStatus::Signal(2));
    bench.stop_app(DB);
    bench.ends(1, ExitStatus::Signal(2));
    let before = bench.supervisor.clone();
    for command in [
        Command::Start { app: WEB, scope: Scope::All, definition: None },
        Command::Restart { app: WEB, scope: Scope::All, definition: None },
        Command::Reload { app: WEB, definition: None },
    ] {
        let wish = bench.wish(command);
        assert_eq!(bench.outcome(wish), dependency(Obstacle::Stopped));
        assert!(bench.supervisor == before);
    }
    bench.start(DB);
    let start = bench.start(WEB);
    assert_eq!(bench.outcome(start), None);
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.tell(Event::Started { worker: WorkerId(4) });
    assert_eq!(bench.outcome(start), Some(Outcome::Done));
}

#[test]
fn a_stop_of_what_is_waited_for_fails_the_start_and_the_next_start_of_it_brings_both() {
    let mut bench = Bench::pair(slow());
    for round in 0..2 {
        bench.out.clear();
        bench.stop_app(DB);
        let told = Fact::Awaits { app: WEB, on: name("db"), stopped: true };
        assert!(bench.took(&Action::Report { fact: told }), "{:?}", bench.out);
        assert_eq!(
            bench.outcome(RequestId(2)),
            if round == 0 { dependency(Obstacle::Stopped) } else { None }
        );
        assert_eq!(bench.status_of(WEB), Some(Status::Launching));
        assert_eq!(bench.supervisor.waits_for(WEB), [name("db")]);
        bench.ends(round + 1, ExitStatus::Signal(2));
        bench.start(DB);
    }
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.tell(Event::Said { worker: WorkerId(3), word: Word::Ready });
    bench.tell(Event::Started { worker: WorkerId(4) });
    assert_eq!(bench.status_of(WEB), Some(Status::Online));
    assert!(!bench.took(&Action::Report { fact: Fact::Awaits { app: WEB, on: name("db"), stopped: false } }));
}

#[test]
fn a_delete_of_what_is_stopped_and_waited_for_is_told_as_such() {
    let mut bench = Bench::pair(slow());
    bench.stop_app(DB);
    bench.ends(1, ExitStatus::Signal(2));
    bench.wish(Command::Delete { app: DB, scope: Scope::All });
    let forgone = Fact::Forgone { app: WEB, on: name("db"), obstacle: Obstacle::Unknown };
    assert!(bench.took(&Action::Report { fact: forgone }), "{:?}", bench.out);
    assert_eq!(bench.status_of(WEB), Some(Status::Errored));
}

#[test]
fn a_delete_of_what_is_waited_for_ends_the_wait() {
    let mut bench = Bench::pair(slow());
    bench.wish(Command::Delete { app: DB, scope: Scope::All });
    bench.ends(1, ExitStatus::Signal(2));
    assert_eq!(bench.outcome(RequestId(2)), dependency(Obstacle::Unknown));
    let start = bench.start(WEB);
    assert_eq!(bench.outcome(start), dependency(Obstacle::Unknown));
}

#[test]
fn who_runs_is_left_alone_whatever_becomes_of_the_other() {
    let mut bench = Bench::both_online();
    bench.ends(1, ExitStatus::Code(1));
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.wish(Command::Reload { app: DB, definition: None });
    bench.ends(3, ExitStatus::Signal(2));
    bench.tell(Event::Started { worker: WorkerId(4) });
    bench.pass(ms(5000));
    bench.stop_app(DB);
    bench.ends(4, ExitStatus::Signal(2));
    assert!(!bench.told_to_stop(2));
    assert_eq!(bench.status_of(WEB), Some(Status::Online));
    assert_eq!(bench.supervisor.dependents(DB), [WEB]);
    // A crash of who depends is made good, too.
    bench.ends(2, ExitStatus::Code(1));
    assert_eq!(bench.spawned().last(), Some(&WorkerId(5)));
}

#[test]
fn who_runs_is_reloaded_whatever_became_of_the_other() {
    let mut bench = Bench::both_online();
    bench.stop_app(DB);
    bench.ends(1, ExitStatus::Signal(2));
    let reload = bench.wish(Command::Reload { app: WEB, definition: None });
    bench.ends(2, ExitStatus::Signal(2));
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.pass(ms(5000));
    assert_eq!(bench.outcome(reload), Some(Outcome::Done));
}

#[test]
fn what_is_depended_on_stays_until_the_other_is_gone() {
    let mut bench = Bench::both_online();
    bench.stop_app(WEB);
    let stop = bench.stop_app(DB);
    assert!(bench.told_to_stop(2) && !bench.told_to_stop(1));
    // Whoever ignores its signal is killed, and the other waits for that.
    bench.pass(ms(1600));
    assert!(!bench.told_to_stop(1));
    bench.ends(2, ExitStatus::Signal(9));
    assert!(bench.told_to_stop(1));
    bench.ends(1, ExitStatus::Signal(2));
    assert_eq!(bench.outcome(stop), Some(Outcome::Done));
}

#[test]
fn a_restart_of_both_ends_who_depends_first_and_starts_it_last() {
    let mut bench = Bench::both_online();
    let (web, db) = (bench.restart(WEB), bench.restart(DB));
    assert!(bench.told_to_stop(2) && !bench.told_to_stop(1));
    assert_eq!(bench.outcome(db), None, "its old worker is not the one that was asked for");
    bench.ends(2, ExitStatus::Signal(2));
    assert!(bench.told_to_stop(1) && bench.spawned().is_empty());
    bench.ends(1, ExitStatus::Signal(2));
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    bench.tell(Event::Started { worker: WorkerId(3) });
    assert_eq!((bench.outcome(db), bench.outcome(web)), (Some(Outcome::Done), None));
    bench.tell(Event::Started { worker: WorkerId(4) });
    assert_eq!(bench.outcome(web), Some(Outcome::Done));
    assert_eq!(bench.spawned(), [WorkerId(3), WorkerId(4)]);
}

#[test]
fn a_restart_of_a_chain_goes_down_it_and_up_again() {
    let mut bench = Bench::both_online();
    let top = AppId(3);
    let policy = Policy { depends_on: vec![name("web")], ..Policy::default() };
    bench.wish(Command::Add { app: top, definition: named("top", policy) });
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.pass(ms(5000));
    bench.out.clear();
    for app in [top, WEB, DB] {
        bench.restart(app);
    }
    for (worker, next) in [(3, Some(2)), (2, Some(1)), (1, None)] {
        assert!(bench.told_to_stop(worker) && next.is_none_or(|next| !bench.told_to_stop(next)), "{worker}");
        assert!(bench.spawned().is_empty());
        bench.ends(worker, ExitStatus::Signal(2));
    }
    for (worker, app) in [(4, DB), (5, WEB), (6, top)] {
        assert_eq!(bench.spawned().last(), Some(&WorkerId(worker)));
        bench.tell(Event::Started { worker: WorkerId(worker) });
        assert_eq!(bench.supervisor.worker(WorkerId(worker)).map(|place| place.app), Some(app));
    }
}

#[test]
fn what_is_restarted_while_who_depends_on_it_runs_waits_for_nobody() {
    let mut bench = Bench::both_online();
    let restart = bench.restart(DB);
    assert!(bench.told_to_stop(1) && !bench.told_to_stop(2));
    bench.ends(1, ExitStatus::Signal(2));
    bench.tell(Event::Started { worker: WorkerId(3) });
    assert_eq!(bench.outcome(restart), Some(Outcome::Done));
    // And who depends is started again at once where the other is not restarted with it.
    bench.restart(WEB);
    bench.ends(2, ExitStatus::Signal(2));
    assert_eq!(bench.spawned(), [WorkerId(3), WorkerId(4)]);
}

#[test]
fn a_restart_that_waits_can_become_a_stop() {
    let mut bench = Bench::both_online();
    bench.restart(WEB);
    let restart = bench.restart(DB);
    let stop = bench.stop_app(DB);
    assert_eq!(bench.outcome(restart), Some(Outcome::Failed(Failure::Superseded)));
    bench.ends(2, ExitStatus::Signal(2));
    assert!(bench.told_to_stop(1));
    bench.ends(1, ExitStatus::Signal(2));
    assert_eq!(bench.outcome(stop), Some(Outcome::Done));
    assert!(bench.spawned().is_empty(), "who depends on it waits");
    bench.start(DB);
    bench.tell(Event::Started { worker: WorkerId(3) });
    assert_eq!(bench.spawned(), [WorkerId(3), WorkerId(4)]);
}

#[test]
fn who_crashes_while_its_restart_waits_is_started_at_once() {
    let mut bench = Bench::both_online();
    bench.restart(WEB);
    bench.restart(DB);
    bench.ends(1, ExitStatus::Code(1));
    assert_eq!(bench.spawned(), [WorkerId(3)]);
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.ends(2, ExitStatus::Signal(2));
    assert_eq!(bench.spawned(), [WorkerId(3), WorkerId(4)]);
}

/// Ends before readiness count whatever their age, where readiness has to be proven.
#[test]
fn who_never_gets_ready_is_given_up_however_long_it_lives() {
    for (policy, unstable) in [(slow(), true), (cluster(1), false)] {
        let mut bench = Bench::with(Policy { max_restarts: 3, ..policy });
        for worker in 1..=3 {
            assert_eq!(bench.spawned().last(), Some(&WorkerId(worker)));
            bench.tell(Event::Started { worker: WorkerId(worker) });
            bench.pass(ms(1500));
            bench.ends(worker, ExitStatus::Code(3));
            bench.pass(ms(200));
        }
        assert_eq!(bench.status() == Status::Errored, unstable);
    }
}

#[test]
fn who_depends_on_an_app_that_ends_before_it_is_ready_is_told() {
    let mut bench = Bench::pair(slow());
    for worker in 1..=2 {
        bench.tell(Event::Started { worker: WorkerId(worker) });
        bench.pass(ms(1500));
        bench.ends(worker, ExitStatus::Code(3));
    }
    assert_eq!(bench.outcome(RequestId(2)), dependency(Obstacle::Failing));
}

/// One that was late serves all the same, and may run for days.
#[test]
fn who_is_late_and_stays_up_is_judged_by_its_age() {
    let mut bench = Bench::with(Policy { max_restarts: 1, ..slow() });
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.pass(ms(60_000));
    bench.ends(1, ExitStatus::Code(3));
    assert_eq!(bench.spawned(), [WorkerId(1), WorkerId(2)]);
}

/// Its word announces its end, whatever the code; a signal ends nobody who is well.
#[test]
fn who_said_that_it_stops_has_not_crashed() {
    let cases = [
        (ExitStatus::Code(0), Cause::Exit, true),
        (ExitStatus::Code(1), Cause::Exit, true),
        (ExitStatus::Signal(11), Cause::Crash, false),
    ];
    for (status, expected, well) in cases {
        let mut bench = Bench::online(Policy::default());
        bench.tell(Event::Said { worker: WorkerId(1), word: Word::Stopping });
        bench.ends(1, status);
        let told = |action: &Action| {
            let Action::Report { fact: Fact::Exited { cause, meant, .. } } = action else { return None };
            Some((*cause, *meant))
        };
        assert_eq!(bench.out.iter().find_map(told), Some((expected, well)), "{status:?}");
    }
}

#[test]
fn a_shutdown_goes_in_reverse_and_leaves_time_for_each() {
    let mut bench = Bench::both_online();
    let began = bench.now;
    bench.wish(Command::Shutdown { within: ms(1000), code: 0 });
    assert!(bench.told_to_stop(2) && !bench.told_to_stop(1));
    // Half of the time is for who goes first, however stubborn it is.
    bench.pass(ms(500));
    assert!(bench.took(&Action::Signal { worker: WorkerId(2), signal: SignalKind::Kill }));
    bench.ends(2, ExitStatus::Signal(9));
    assert!(bench.told_to_stop(1));
    bench.pass(ms(499));
    assert!(!bench.took(&Action::Signal { worker: WorkerId(1), signal: SignalKind::Kill }));
    bench.ends(1, ExitStatus::Signal(2));
    assert!(bench.took(&Action::Exit { code: 0 }) && bench.now - began < ms(1000));
}

/// Fault 23.
#[test]
fn a_shutdown_of_an_ordered_start_starts_nothing_more() {
    let mut bench = Bench::pair(slow());
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.out.clear();
    bench.wish(Command::Shutdown { within: ms(1000), code: 0 });
    bench.tell(Event::Said { worker: WorkerId(1), word: Word::Ready });
    assert!(bench.spawned().is_empty() && bench.told_to_stop(1));
    assert_eq!(bench.outcome(RequestId(2)), Some(Outcome::Failed(Failure::Superseded)));
    bench.ends(1, ExitStatus::Signal(2));
    assert!(bench.took(&Action::Exit { code: 0 }));
}

#[test]
fn a_job_that_ended_well_counts_as_ready() {
    for (code, starts) in [(0, true), (1, false)] {
        let mut bench = Bench::pair(Policy { autorestart: false, ..slow() });
        bench.tell(Event::Started { worker: WorkerId(1) });
        bench.ends(1, ExitStatus::Code(code));
        assert_eq!(bench.spawned().len() == 2, starts, "code {code}");
        assert_eq!(bench.status_of(WEB) == Some(Status::Errored), !starts);
    }
}

/// Reloads of single apps can close a circle that no file has: everything still stops.
#[test]
fn in_a_circle_nobody_waits_for_the_end_of_the_other() {
    let mut bench = Bench::both_online();
    let back = Policy { depends_on: vec![name("web")], ..Policy::default() };
    bench.wish(Command::Reload { app: DB, definition: Some(named("db", back)) });
    bench.ends(1, ExitStatus::Signal(2));
    bench.tell(Event::Started { worker: WorkerId(3) });
    bench.pass(ms(5000));
    bench.stop_app(WEB);
    bench.stop_app(DB);
    assert!(bench.told_to_stop(2) && bench.told_to_stop(3));
}
