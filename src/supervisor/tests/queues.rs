//! Which queue new connections go to, by tables.

use super::*;
use crate::supervisor::policy::Readiness;

impl Bench {
    fn deep(&mut self, depths: &[(u64, u32)]) {
        self.depths = depths.iter().map(|(id, depth)| (SocketId(*id), *depth)).collect();
        self.out.clear();
        self.pass(ms(3000));
    }

    fn last_steered(&self) -> Option<Vec<u32>> {
        self.steered().into_iter().next_back()
    }
}

#[test]
fn the_empty_queue_of_who_leaves_is_no_measure_of_the_others() {
    let mut bench = Bench::online(cluster(2));
    bench.reload();
    bench.boot(WorkerId(3));
    bench.pass(ms(1000));
    assert_eq!(bench.last_steered(), Some(vec![1, 2]), "the first one drains");
    bench.deep(&[(2, 9), (3, 3)]);
    assert_eq!(bench.last_steered(), Some(vec![2]));
}

#[test]
fn the_empty_queue_of_who_starts_is_no_measure_of_the_others() {
    let mut bench = Bench::with(Policy { ready: Readiness::Notify, ..cluster(2) });
    for worker in [WorkerId(1), WorkerId(2)] {
        bench.boot(worker);
        bench.tell(Event::Said { worker, word: Word::Ready });
    }
    bench.wish(Command::Scale { app: APP, scale: Scale::To(3) });
    bench.boot(WorkerId(3));
    bench.deep(&[(1, 9), (2, 3)]);
    assert_eq!(bench.last_steered(), Some(vec![1]));
}

#[test]
fn who_leaves_while_the_queues_are_looked_at_is_no_measure_either() {
    let mut bench = Bench::online(cluster(3));
    bench.depths = [(SocketId(1), 0), (SocketId(2), 9), (SocketId(3), 3)].into();
    while !matches!(bench.out.last(), Some(Action::Gauge { .. })) {
        bench.now = bench.supervisor.next_deadline().expect("a look is due");
        bench.supervisor.handle(Event::Deadline { heard: bench.now }, bench.now, &mut bench.out);
    }
    bench.tell(Event::Said { worker: WorkerId(1), word: Word::Stopping });
    assert_eq!(bench.last_steered(), Some(vec![2]));
}

/// Of a queue that nobody uses nobody knows whether it ever is: who is not well takes its connections until it
/// is replaced.
#[test]
fn who_is_not_well_and_takes_connections_goes_before_a_queue_that_nobody_uses() {
    let mut bench = Bench::with(Policy { declares_listen: true, ready: Readiness::Exec, ..cluster(2) });
    for worker in [WorkerId(1), WorkerId(2)] {
        let socket = SocketId(worker.0);
        bench.tell(Event::Opened { worker, socket, address: address(PORT) });
        bench.tell(Event::Started { worker });
    }
    bench.tell(Event::Accepting { worker: WorkerId(1), socket: SocketId(1) });
    bench.pass(ms(5000));
    assert_eq!((bench.status(), bench.last_steered()), (Status::Online, Some(vec![0])));
    bench.tell(Event::Said { worker: WorkerId(1), word: Word::Trigger });
    assert_eq!(bench.last_steered(), Some(vec![0]));
    // Another one that does take them goes before it.
    bench.tell(Event::Accepting { worker: WorkerId(2), socket: SocketId(2) });
    assert_eq!(bench.last_steered(), Some(vec![1]));
}
