//! How evenly the workers of an app are loaded, and what to do about it.
//!
//! A connection that was led to a busy worker waits there while another one idles. So a worker in whose
//! accept queue more wait than in the shortest one gets no new connections until that has changed. The
//! queues are looked at often only while somebody waits in one, and rarely otherwise.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Bug;
use super::app::{App, Turn};
use super::event::{Action, SocketId};
use super::policy::{Balance, Mode};
use super::time::Time;

/// Between two looks while nobody waits.
const RARELY: Duration = Duration::from_secs(2);

/// Between two looks while somebody does: the least that the loop's timer can (a millisecond).
const OFTEN: Duration = Duration::from_millis(1);

/// So many looks without anybody waiting until they are rare again.
const CALM: u8 = 200;

/// A look keeps so many times its cost away from the next: it takes a twentieth of a CPU at most.
const COST: u32 = 20;

/// So many more than in the shortest queue are too many.
const MARGIN: u32 = 1;

/// When the queues of an app are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Gauging {
    /// There is nothing to choose between.
    Off,
    /// The next look is due then; so many in a row found nobody waiting.
    At { at: Time, calm: u8 },
    /// One was ordered.
    Awaited { calm: u8 },
}

impl Gauging {
    pub(super) fn deadline(self) -> Option<Time> {
        match self {
            Gauging::At { at, .. } => Some(at),
            Gauging::Off | Gauging::Awaited { .. } => None,
        }
    }
}

/// Whose queue is longer than the shortest: who was out stays out until it is as short.
fn crowded(depths: &[(SocketId, u32)], out: &BTreeSet<SocketId>) -> BTreeSet<SocketId> {
    let least = depths.iter().map(|(_, depth)| *depth).min().unwrap_or(0);
    let is_crowded = |(id, depth): &&(SocketId, u32)| {
        let limit = if out.contains(id) { 1 } else { MARGIN };
        *depth >= least.saturating_add(limit)
    };
    depths.iter().filter(is_crowded).map(|(id, _)| *id).collect()
}

impl App {
    /// Looks at the queues when that is due, where there are several to choose between.
    pub(super) fn gauge(&mut self, turn: &mut Turn<'_>) {
        let policy = self.policy(self.target());
        let chooses = policy.mode == Mode::Cluster && policy.balance == Balance::Spread && self.instances > 1;
        let sockets = if chooses && !self.sockets.is_empty() {
            self.sockets.in_use(&self.standings())
        } else {
            Vec::new()
        };
        if sockets.len() < 2 {
            self.gauging = Gauging::Off;
            self.sockets.crowd(BTreeSet::new());
            return;
        }
        match self.gauging {
            Gauging::Off => self.gauging = Gauging::At { at: turn.now + RARELY, calm: CALM },
            Gauging::At { at, calm } if turn.is_due(at) => {
                self.gauging = Gauging::Awaited { calm };
                turn.out.push(Action::Gauge { app: self.id, sockets });
            }
            Gauging::At { .. } | Gauging::Awaited { .. } => {}
        }
    }

    /// So many wait in each queue.
    pub(super) fn gauged(&mut self, depths: &[(SocketId, u32)], cost: Duration, turn: &Turn<'_>) {
        let Gauging::Awaited { calm } = self.gauging else { return };
        let waits = depths.iter().any(|(_, depth)| *depth > 0);
        let calm = if waits { 0 } else { calm.saturating_add(1).min(CALM) };
        let pause = if calm < CALM { OFTEN } else { RARELY };
        self.gauging = Gauging::At { at: turn.now + pause.max(cost.saturating_mul(COST)), calm };
        let mut crowd = BTreeSet::new();
        // Who has left since the queues were asked for is no measure of the others any more.
        let in_use = self.sockets.in_use(&self.standings());
        for address in self.sockets.addresses().collect::<Vec<_>>() {
            let of = |(id, _): &&(SocketId, u32)| {
                in_use.contains(id) && self.sockets.get(*id).is_some_and(|socket| socket.address == address)
            };
            let here: Vec<(SocketId, u32)> = depths.iter().filter(of).copied().collect();
            if turn.has(Bug::CrowdIsEverybody) && waits {
                crowd.extend(here.iter().map(|(id, _)| *id));
            } else {
                crowd.extend(crowded(&here, self.sockets.crowded()));
            }
        }
        self.sockets.crowd(crowd);
    }
}

/// Below so many connections per worker on average nothing is said about how they are shared.
const TELLING: u32 = 10;

/// How connections are shared where one worker has nearly all of them, or one has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// Nine of ten or more are with the worker at this place.
    Everything {
        /// Among those that were given.
        place: usize,
    },
    /// The worker at this place has none.
    Nothing {
        /// Among those that were given.
        place: usize,
    },
}

/// What is to be told of these workers' open connections.
pub fn skew(connections: &[u32]) -> Option<Skew> {
    let workers = u32::try_from(connections.len()).ok().filter(|workers| *workers > 1)?;
    let total = connections.iter().fold(0_u32, |sum, more| sum.saturating_add(*more));
    if total < workers.saturating_mul(TELLING) {
        return None;
    }
    let most = connections.iter().max()?;
    if u64::from(*most) * 10 >= u64::from(total) * 9 {
        return connections.iter().position(|count| count == most).map(|place| Skew::Everything { place });
    }
    connections.iter().position(|count| *count == 0).map(|place| Skew::Nothing { place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_behind_is_spared_until_it_has_caught_up() {
        let queues = |depths: &[u32]| -> Vec<(SocketId, u32)> {
            (1..).map(SocketId).zip(depths.iter().copied()).collect()
        };
        let ids = |ids: &[u64]| ids.iter().copied().map(SocketId).collect::<BTreeSet<SocketId>>();
        let rows: &[(&[u32], &[u64], &[u64])] = &[
            (&[0, 0, 0], &[], &[]),
            (&[0, 5, 0], &[], &[2]),
            (&[7, 7, 7], &[], &[]),
            (&[3, 9, 4], &[2], &[2, 3]),
            (&[3, 3, 3], &[2], &[]),
            (&[1, 0], &[], &[1]),
            (&[4], &[], &[]),
        ];
        for (depths, out, expected) in rows {
            assert_eq!(crowded(&queues(depths), &ids(out)), ids(expected), "{depths:?}");
        }
    }

    #[test]
    fn skew_is_told_where_it_is_no_accident() {
        let rows: &[(&[u32], Option<Skew>)] = &[
            (&[], None),
            (&[100], None),
            (&[10, 9], None),
            (&[10, 10], None),
            (&[18, 2], Some(Skew::Everything { place: 0 })),
            (&[0, 40, 0, 0], Some(Skew::Everything { place: 1 })),
            (&[20, 0, 20], Some(Skew::Nothing { place: 1 })),
            (&[1, 20, 20], None),
            (&[3, 0, 3], None),
        ];
        for (connections, expected) in rows {
            assert_eq!(skew(connections), *expected, "{connections:?}");
        }
    }
}
