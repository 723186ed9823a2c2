//! What is told of a worker that is not well: in words, with what the host shows of it while it still can.

use crate::supervisor::event::{Cause, SlotId, Trouble, WorkerId};
use crate::supervisor::view::LastExit;
use crate::sys::process;

use super::Daemon;
use super::report::{errno_words, shown};

/// Slots whose last evidence is kept.
const KEPT: usize = 4096;

impl Daemon {
    /// What is the matter with a worker, without its name.
    pub(super) fn trouble_text(&self, worker: WorkerId, trouble: Trouble) -> String {
        match trouble {
            Trouble::Checks(count) => {
                let last = self.probes.complaint(worker);
                format!("failed {count} health checks in a row, at last: {last}")
            }
            Trouble::Silence(every) => {
                format!("has not said WATCHDOG=1 for {} (watchdog){}", shown(every), self.sight_of(worker))
            }
            Trouble::Asked => "asked to be replaced (WATCHDOG=trigger)".to_owned(),
            Trouble::Hang(still) => {
                let still = shown(still);
                let sight = self.sight_of(worker);
                format!("lets its clients wait and has used no CPU time for {still} (hang_timeout){sight}")
            }
        }
    }

    /// What its first process is doing, as far as the host shows it.
    fn sight_of(&self, worker: WorkerId) -> String {
        let process = self.processes.get(worker).filter(|process| !process.leader_gone);
        let sight = process.map(|process| process::sight(process.pid)).unwrap_or_default();
        if sight.is_empty() { sight } else { format!("; it is in {sight}") }
    }

    /// Keeps it for `describe`, when the worker is gone.
    pub(super) fn keep_evidence(&mut self, worker: WorkerId, message: &str) {
        let Some(place) = self.supervisor.worker(worker) else { return };
        self.probes.evidence.insert(place.slot, message.to_owned());
        while self.probes.evidence.len() > KEPT {
            self.probes.evidence.pop_first();
        }
    }

    /// What is to be said about a slot's last end, where its words do not say it all.
    pub(super) fn exit_message(&self, slot: SlotId, exit: &LastExit) -> Option<String> {
        let found = matches!(exit.cause, Cause::Health | Cause::Watchdog);
        let evidence = || self.probes.evidence.get(&slot).filter(|_| found).cloned();
        let failure = exit.failure.as_ref().map(|failure| failure.message.clone());
        failure.or_else(evidence).or_else(|| exit.errno.map(errno_words))
    }
}
