//! Who starts while what it depends on is being reloaded, by tables.

use super::*;
use crate::supervisor::policy::AppName;

const WEB: AppId = AppId(2);

impl Bench {
    /// An app of two workers, and web, which depends on it; both online.
    fn depended_on(policy: Policy) -> Bench {
        let mut bench = Bench::online(policy);
        let depends_on = vec![AppName { namespace: "default".into(), name: "web".into() }];
        let other = Definition { name: "front".into(), ..definition(Policy::default(), 9) };
        let other = Definition { policy: Policy { depends_on, ..Policy::default() }, ..other };
        bench.wish(Command::Add { app: WEB, definition: other });
        bench.tell(Event::Started { worker: WorkerId(3) });
        bench.pass(ms(5000));
        assert_eq!(bench.supervisor.status(WEB), Some(Status::Online));
        bench.out.clear();
        bench
    }

    /// Whether who depends starts as soon as its old worker is gone.
    fn restarts(&mut self) -> bool {
        let restart = self.wish(Command::Restart { app: WEB, scope: Scope::All, definition: None });
        self.tell(Event::Exited { worker: WorkerId(3), status: ExitStatus::Signal(15), left: false });
        let new = *self.spawned().last().expect("somebody was started");
        self.tell(Event::Started { worker: new });
        self.outcome(restart) == Some(Outcome::Done)
    }
}

#[test]
fn who_depends_on_an_app_that_is_reloaded_starts_as_long_as_the_old_workers_serve() {
    let mut bench = Bench::depended_on(cluster(2));
    bench.reload();
    assert!(bench.restarts(), "{:?}", bench.out);
}

#[test]
fn who_depends_on_an_app_of_which_a_reload_is_held_starts() {
    let mut bench = Bench::depended_on(Policy { canary: Some(10), ..cluster(2) });
    let more = Policy { canary: Some(10), ..cluster(4) };
    bench.wish(Command::Reload { app: APP, definition: Some(definition(more, 2)) });
    let new = *bench.spawned().last().expect("the first of the new ones");
    bench.boot(new);
    bench.pass(ms(5000));
    let view = &bench.supervisor.view(bench.now).apps[0];
    assert_eq!(view.reload.as_ref().map(|reload| reload.state), Some("canary"));
    assert!(bench.restarts(), "{:?}", bench.out);
}

#[test]
fn who_depends_on_an_app_that_is_stopped_for_its_reload_waits() {
    let fork = Policy { ready: policy::Readiness::Word, ..Policy::default() };
    let mut bench = Bench::with(fork);
    bench.tell(Event::Started { worker: WorkerId(1) });
    bench.tell(Event::Said { worker: WorkerId(1), word: Word::Ready });
    bench.pass(ms(5000));
    bench.reload();
    bench.exit(WorkerId(1));
    bench.tell(Event::Started { worker: WorkerId(2) });
    let depends_on = vec![AppName { namespace: "default".into(), name: "web".into() }];
    let other =
        Definition { name: "front".into(), ..definition(Policy { depends_on, ..Policy::default() }, 9) };
    bench.wish(Command::Add { app: WEB, definition: other });
    assert_eq!(bench.spawned().last(), Some(&WorkerId(2)));
    bench.tell(Event::Said { worker: WorkerId(2), word: Word::Ready });
    assert_eq!(bench.spawned().last(), Some(&WorkerId(3)));
}

/// A restart that waits for who depends forgets where its workers were to listen: one that listens elsewhere than its
/// predecessor is not ready by its age either, and wakes nobody again and again.
#[test]
fn who_listens_elsewhere_while_a_restart_waits_has_no_moment_in_the_past() {
    let mut bench = Bench::depended_on(cluster(2));
    bench.reload();
    let new = *bench.spawned().last().expect("the first of the new ones");
    bench.tell(Event::Started { worker: new });
    bench.listen(new, 4000);
    bench.pass(ms(2000));
    bench.wish(Command::Stop { app: WEB, scope: Scope::All });
    bench.wish(Command::Restart { app: APP, scope: Scope::All, definition: None });
    bench.pass(ms(1500));
    let starts = bench.supervisor.probe().into_iter().find(|probe| probe.worker == new);
    assert_eq!(starts.map(|probe| probe.stage), Some(Stage::Running), "it waits for who depends");
}
