//! Whether a worker takes connections from a socket that it was handed, where the host does not show what it
//! waits on: a connection of the supervisor's own is led to that socket, and the worker accepts it or not. A
//! server sees a client that came and went.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::supervisor::event::{Event, SocketId, WorkerId};

use super::Daemon;
use super::lead::Led;
use super::probe;

/// Connections on their way to be accepted.
#[derive(Debug, Default)]
pub(super) struct Knocks {
    under_way: BTreeMap<(WorkerId, SocketId), Knock>,
}

#[derive(Debug)]
enum Knock {
    /// The handshake is under way.
    Connecting(Led),
    /// The worker is to accept it.
    Queued(Led),
}

impl Daemon {
    /// Looks at what became of the connections to these sockets of the worker, and begins those that are
    /// missing. As often as it is to be looked at.
    pub(super) fn knock_at(&mut self, worker: WorkerId, sockets: &[SocketId], refused: &io::Error) {
        self.warn_unseen(worker, "inspect", || {
            format!(
                "the host does not show what a worker waits on ({refused}): it is ready when it accepts a \
                 connection of the supervisor's own, says READY=1, or calls listen(2) on what it was handed"
            )
        });
        for &socket in sockets {
            let knock = match self.unseen.knocks.under_way.remove(&(worker, socket)) {
                Some(knock) => self.follow_knock(worker, socket, knock),
                None => self.begin_knock(worker, socket),
            };
            match knock {
                Ok(Some(knock)) => drop(self.unseen.knocks.under_way.insert((worker, socket), knock)),
                Ok(None) => {}
                Err(error) => log::debug!("{}: a connection to it: {error}", self.label(worker)),
            }
        }
    }

    fn begin_knock(&mut self, worker: WorkerId, socket: SocketId) -> io::Result<Option<Knock>> {
        let Some(spot) = self.supervisor.spot(worker, socket) else { return Ok(None) };
        self.begin_led(&spot).map(|led| Some(Knock::Connecting(led)))
    }

    fn follow_knock(
        &mut self,
        worker: WorkerId,
        socket: SocketId,
        knock: Knock,
    ) -> io::Result<Option<Knock>> {
        let led = match knock {
            Knock::Queued(led) => led,
            Knock::Connecting(led) => match probe::connected(&led) {
                Ok(false) => return Ok(Some(Knock::Connecting(led))),
                Ok(true) => {
                    self.end_lead(led.client);
                    led
                }
                Err(error) => {
                    self.end_lead(led.client);
                    return Err(error);
                }
            },
        };
        if !self.is_accepted(&led) {
            return Ok(Some(Knock::Queued(led)));
        }
        self.inbox.push_back(Event::Accepting { worker, socket });
        Ok(None)
    }

    /// Who became ready otherwise, or was looked at for long enough, is not looked at any more: a connection
    /// that it has not accepted would wait in its queue until it ends.
    pub(super) fn end_idle_knocks(&mut self) {
        let workers: BTreeSet<WorkerId> = self.unseen.knocks.under_way.keys().map(|(id, _)| *id).collect();
        for worker in workers {
            if !self.supervisor.is_inspected(worker) {
                self.stop_knocks(worker);
            }
        }
    }

    /// The worker leaves, or is gone.
    pub(super) fn stop_knocks(&mut self, worker: WorkerId) {
        let of_worker = (worker, SocketId(0))..=(worker, SocketId(u64::MAX));
        let stopped: Vec<_> = self.unseen.knocks.under_way.range(of_worker).map(|(key, _)| *key).collect();
        for key in stopped {
            if let Some(Knock::Connecting(led)) = self.unseen.knocks.under_way.remove(&key) {
                self.end_lead(led.client);
            }
        }
    }
}
