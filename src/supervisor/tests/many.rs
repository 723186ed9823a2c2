//! Many workers: what one of them does is decided without a look at the others.

use super::*;
use crate::supervisor::slots::looked;

/// So many facts about single workers, and the looks at slots that they took.
#[derive(Default)]
struct Counted {
    facts: usize,
    looks: usize,
}

impl Counted {
    /// Each of these facts, a millisecond after the one before.
    fn tell(&mut self, bench: &mut Bench, facts: impl IntoIterator<Item = Event>) {
        for fact in facts {
            bench.pass(ms(1));
            looked::take();
            bench.tell(fact);
            self.looks += looked::take();
            self.facts += 1;
        }
    }

    fn start(&mut self, bench: &mut Bench) {
        let workers = bench.spawned();
        bench.out.clear();
        self.tell(bench, workers.into_iter().map(|worker| Event::Started { worker }));
    }

    /// All end who were told to; where a next one comes in their place, it is started.
    fn end(&mut self, bench: &mut Bench) {
        let told = |action: &Action| {
            if let Action::Signal { worker, .. } = action { Some(*worker) } else { None }
        };
        let told: Vec<WorkerId> = bench.out.iter().filter_map(told).collect();
        bench.out.clear();
        let status = ExitStatus::Signal(15);
        self.tell(bench, told.into_iter().map(|worker| Event::Exited { worker, status, left: false }));
        self.start(bench);
    }
}

/// Start, restart, crash, stop, start and delete of so many: looks for each fact.
fn looks(instances: u32) -> usize {
    let limit = Some(MemoryLimit::Each(1 << 30));
    let policy = Policy { instances, max_memory_restart: limit, ..Policy::default() };
    let mut counted = Counted::default();
    let mut bench = Bench::with(policy);
    counted.start(&mut bench);
    assert_eq!(bench.outcome(RequestId(1)), Some(Outcome::Done));
    let (scope, definition) = (Scope::All, None);
    bench.wish(Command::Restart { app: APP, scope, definition: definition.clone() });
    counted.end(&mut bench);
    let crashed = bench.supervisor.probe().into_iter().map(|probe| probe.worker);
    let status = ExitStatus::Code(1);
    let crashes: Vec<Event> = crashed.map(|worker| Event::Exited { worker, status, left: false }).collect();
    counted.tell(&mut bench, crashes);
    counted.start(&mut bench);
    bench.stop();
    counted.end(&mut bench);
    assert_eq!(bench.status(), Status::Stopped);
    bench.wish(Command::Start { app: APP, scope, definition });
    counted.start(&mut bench);
    bench.wish(Command::Delete { app: APP, scope });
    counted.end(&mut bench);
    assert!(bench.supervisor.apps().next().is_none());
    counted.looks / counted.facts
}

#[test]
fn what_one_of_a_thousand_does_is_decided_without_a_look_at_the_others() {
    let (few, many) = (looks(100), looks(1000));
    assert!(many <= few + few / 4, "{few} looks for a fact about one of 100, {many} about one of 1000");
}
