//! At which of its sockets a worker is asked, by tables.

use super::*;
use policy::{Door, Health, Readiness, Way};

const WORKER: WorkerId = WorkerId(1);

/// A socket of the worker's: by itself, or handed and seen in use, or handed alone.
#[derive(Clone, Copy)]
enum Has {
    Own(u16),
    Used(u16),
    Handed(u16),
}

/// The port of the socket at which the last question is asked.
fn asked(bench: &Bench, sockets: &[Has]) -> Option<u16> {
    let spot =
        |action: &Action| if let Action::Probe { spot, .. } = action { Some(spot.clone()) } else { None };
    let spot = bench.out.iter().rev().find_map(spot).expect("it is asked")?;
    let place = usize::try_from(spot.socket.0).expect("few") - 1;
    Some(match sockets[place] {
        Has::Own(port) | Has::Used(port) | Has::Handed(port) => port,
    })
}

/// A worker with these sockets, in the order in which they came.
fn begun(policy: Policy, sockets: &[Has]) -> Bench {
    let mut bench = Bench::with(policy);
    bench.tell(Event::Started { worker: WORKER });
    for socket in sockets {
        bench.sockets += 1;
        let id = SocketId(bench.sockets);
        let (Has::Own(port) | Has::Used(port) | Has::Handed(port)) = *socket;
        let address = address(port);
        match socket {
            Has::Own(_) => bench.tell(Event::Listening { worker: WORKER, socket: id, address }),
            Has::Used(_) | Has::Handed(_) => {
                bench.tell(Event::Opened { worker: WORKER, socket: id, address })
            }
        }
        if matches!(socket, Has::Used(_)) {
            bench.tell(Event::Accepting { worker: WORKER, socket: id });
        }
    }
    bench
}

#[test]
fn a_worker_is_asked_where_the_file_says_else_where_it_declares_else_at_the_lowest_port() {
    let first = Door::Any(Some(address(3000)));
    let (any, port, at) = (Door::Any(None), Door::Port(3000), Door::At(address(3000)));
    let elsewhere = Address::Tcp { ip: [127, 0, 0, 2].into(), port: 3000, v6only: false };
    // The port at which one that starts is asked, and one that is ready.
    for (door, sockets, starting, ready) in [
        (any, vec![Has::Own(9100), Has::Own(3000)], Some(3000), Some(3000)),
        (any, vec![Has::Own(3000), Has::Own(80)], Some(80), Some(80)),
        (any, vec![Has::Handed(80), Has::Own(3000)], Some(3000), Some(3000)),
        (first, vec![Has::Own(80), Has::Used(3000)], Some(3000), Some(3000)),
        // What it opened besides proves nothing of what it serves, or is going to.
        (first, vec![Has::Own(80), Has::Handed(3000)], Some(3000), Some(3000)),
        (first, vec![Has::Own(9100), Has::Own(80)], Some(80), Some(80)),
        (port, vec![Has::Own(80), Has::Own(3000)], Some(3000), Some(3000)),
        (port, vec![Has::Own(80), Has::Handed(3000)], Some(3000), Some(3000)),
        (port, vec![Has::Own(80)], None, None),
        (at, vec![Has::Own(80), Has::Own(3000)], Some(3000), Some(3000)),
        (Door::At(elsewhere), vec![Has::Own(80), Has::Own(3000)], Some(3000), Some(3000)),
        (at, vec![Has::Own(80)], None, None),
        (any, vec![], None, None),
    ] {
        let told = format!("{door:?}, {} sockets", sockets.len());
        let mut bench = begun(Policy { ready: Readiness::Http(door), ..cluster(1) }, &sockets);
        bench.tell(Event::Probed { worker: WORKER, question: Question::Ready, passed: false });
        bench.pass(ms(300));
        assert_eq!(asked(&bench, &sockets), starting, "starting: {told}");
        let health = Health {
            way: Way::Connection(door),
            interval: ms(1000),
            timeout: ms(1000),
            retries: 9,
            start_period: Duration::ZERO,
        };
        let policy = Policy { ready: Readiness::Notify, health: Some(health), ..cluster(1) };
        // Its word says that it takes connections from what it was handed and was not seen using.
        let word = sockets.iter().any(|socket| matches!(socket, Has::Handed(_)));
        let mut bench =
            begun(if word { Policy { ready: Readiness::Exec, ..policy } } else { policy }, &sockets);
        bench.tell(Event::Said { worker: WORKER, word: Word::Ready });
        bench.pass(ms(1500));
        assert_eq!(asked(&bench, &sockets), ready, "ready: {told}");
    }
}
