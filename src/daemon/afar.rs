//! When a leaving worker is done, where the host does not show which connections are its own: all that were
//! open at its address when nobody came to it any more are waited for, its own among them. Those of the other
//! workers end as well, or fall silent; what does neither is waited for to the end of `drain_timeout`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use crate::supervisor::event::{Traffic, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::connections::{self, Connection, State};

use super::Daemon;
use super::drain::{HANDSHAKE_PATIENCE, Queues};

/// Of all workers that leave.
pub(super) type Cohorts = HashMap<WorkerId, Cohort>;

/// The connections that a leaving worker may have.
#[derive(Debug)]
pub(super) struct Cohort {
    since: Time,
    /// By cookie.
    members: HashSet<u64>,
    /// Nobody waits for the worker any more, so nobody joins.
    complete: bool,
}

impl Cohort {
    fn new(now: Time) -> Cohort {
        Cohort { since: now, members: HashSet::new(), complete: false }
    }

    /// How many are used, of those at the address; `waiting` says whether somebody may still come to the worker.
    fn look(&mut self, all: &[Connection], waiting: bool, idle: Duration) -> u32 {
        let open = |c: &&Connection| matches!(c.state, State::Established | State::CloseWait);
        let present: HashSet<u64> = all.iter().filter(open).map(|c| c.cookie).collect();
        if !self.complete {
            self.members.extend(&present);
            self.complete = !waiting;
        }
        self.members.retain(|cookie| present.contains(cookie));
        let used = |c: &&Connection| {
            let moved = &c.moved;
            let under_way = moved.unread > 0 || moved.unacknowledged > 0 || moved.segments_out == 0;
            self.members.contains(&c.cookie) && (under_way || moved.last_received.min(moved.last_sent) < idle)
        };
        u32::try_from(all.iter().filter(used).count()).unwrap_or(u32::MAX)
    }
}

impl Daemon {
    /// What can be said of a leaving worker's traffic for all that.
    pub(super) fn look_from_afar(&mut self, worker: WorkerId, now: Time, refused: &io::Error) -> Traffic {
        self.warn_unseen(worker, "observe", || {
            format!(
                "the host does not show which connections are a worker's ({refused}): one that leaves is \
                 waited for until all that were open at its address have ended or are quiet, or drain_timeout \
                 is over"
            )
        });
        self.traffic_at_address(worker, now).unwrap_or_else(|error| {
            log::debug!("{}: connections at its address: {error}", self.label(worker));
            Traffic { busy: 1, ..Traffic::default() }
        })
    }

    fn traffic_at_address(&mut self, worker: WorkerId, now: Time) -> io::Result<Traffic> {
        let Queues { queued, ports, names } = self.queues_of(worker)?;
        // Connections over Unix sockets do not say when they were last used.
        if !names.is_empty() {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let Some(process) = self.processes.get(worker) else { return Ok(Traffic::default()) };
        let idle = process.recipe.spec.drain_idle;
        let own = self.exams.client_of(worker);
        let diagnostics =
            self.diagnostics.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let mut all = Vec::new();
        for port in ports {
            all.extend(diagnostics.dump(port, connections::CONNECTIONS)?);
        }
        all.retain(|connection| own.is_none_or(|own| !connection.is_from(own)));
        let cohort = self.unseen.cohorts.entry(worker).or_insert_with(|| Cohort::new(now));
        let patient = now.since(cohort.since) <= HANDSHAKE_PATIENCE;
        let handshakes = all.iter().filter(|c| patient && c.state == State::SynReceived).count();
        let queued = queued.saturating_add(u32::try_from(handshakes).unwrap_or(u32::MAX));
        let busy = cohort.look(&all, queued > 0, idle);
        Ok(Traffic { queued, busy, ..Traffic::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::connections::Moved;

    const IDLE: Duration = Duration::from_secs(2);

    fn connection(cookie: u64, quiet: u64) -> Connection {
        let address = "127.0.0.1:3000".parse().expect("an address");
        let quiet = Duration::from_millis(quiet);
        let moved = Moved { segments_out: 1, last_received: quiet, last_sent: quiet, ..Moved::default() };
        let state = State::Established;
        Connection {
            cookie,
            inode: 0,
            uid: 0,
            state,
            local: address,
            v6only: false,
            remote: address,
            interface: 0,
            moved,
        }
    }

    #[test]
    fn who_came_after_the_worker_had_left_is_not_waited_for() {
        let mut cohort = Cohort::new(Time::START);
        assert_eq!(cohort.look(&[connection(1, 0)], true, IDLE), 1);
        assert_eq!(cohort.look(&[connection(1, 0), connection(2, 0)], false, IDLE), 2, "one waited for it");
        let busy = [connection(1, 0), connection(2, 0), connection(3, 0)];
        assert_eq!(cohort.look(&busy, false, IDLE), 2);
        assert_eq!(cohort.look(&busy[1..], false, IDLE), 1);
        assert_eq!(cohort.look(&busy[2..], false, IDLE), 0);
    }

    #[test]
    fn a_connection_is_done_when_it_is_quiet_and_was_answered() {
        let mut cohort = Cohort::new(Time::START);
        assert_eq!(cohort.look(&[connection(1, 3000), connection(2, 1000)], false, IDLE), 1);
        let mut asked = connection(1, 3000);
        asked.moved.segments_out = 0;
        assert_eq!(cohort.look(&[asked.clone()], false, IDLE), 1, "never answered");
        asked.moved = Moved { segments_out: 1, unread: 5, ..connection(1, 3000).moved };
        assert_eq!(cohort.look(&[asked], false, IDLE), 1, "not read yet");
    }
}
