//! What is told of a worker that is not well: in words, with what the host shows of it while it still can.

use std::collections::BTreeMap;

use crate::supervisor::event::{AppId, Fact, Failure, SlotId, Trouble, WorkerId};
use crate::supervisor::view::LastExit;
use crate::sys::process;

use super::Daemon;
use super::report::{errno_words, shown};

/// Slots whose last evidence is kept.
const KEPT: usize = 4096;

/// What was the matter, in the words of that moment: when a worker is gone nobody can look at it any more.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// With the last worker of a slot that was not well, or did not get ready.
    by_slot: BTreeMap<SlotId, Found>,
    /// With an app's last reload that failed.
    reloads: BTreeMap<AppId, (Failure, String)>,
}

#[derive(Debug)]
struct Found {
    worker: WorkerId,
    text: String,
    /// It is the last that ended in its slot.
    ended: bool,
}

impl Evidence {
    /// What a worker's end, or its success, means for what is kept of its slot.
    fn follow(&mut self, fact: &Fact) {
        let (slot, worker, ended) = match fact {
            Fact::Exited { slot, worker, .. } => (*slot, *worker, true),
            Fact::SpawnFailed { slot, worker, .. } => (*slot, *worker, true),
            // It was late, and serves.
            Fact::Ready { slot, worker, .. } => (*slot, *worker, false),
            _ => return,
        };
        let Some(found) = self.by_slot.get_mut(&slot) else { return };
        match (found.worker == worker, ended) {
            (true, true) => found.ended = true,
            (true, false) | (false, true) => drop(self.by_slot.remove(&slot)),
            (false, false) => {}
        }
    }

    /// The app is forgotten.
    pub(super) fn forget(&mut self, app: AppId) {
        self.reloads.remove(&app);
    }
}

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

    /// Keeps for `list` and `describe` what this fact, which is told in these words, shows of a worker or a reload.
    pub(super) fn keep_evidence(&mut self, fact: &Fact, message: &str) {
        match fact {
            Fact::Unwell { worker, .. } | Fact::Late { worker, stays: false, .. } => {
                self.keep_of_worker(*worker, message.to_owned());
            }
            Fact::ReloadFailed { app, failure, .. } => {
                let text = self.failure_text(failure);
                if let Failure::NotReady { worker, .. } = failure {
                    self.keep_of_worker(*worker, text.clone());
                }
                self.probes.evidence.reloads.insert(*app, (failure.clone(), text));
            }
            other => self.probes.evidence.follow(other),
        }
    }

    fn keep_of_worker(&mut self, worker: WorkerId, text: String) {
        let Some(place) = self.supervisor.worker(worker) else { return };
        let kept = &mut self.probes.evidence.by_slot;
        kept.insert(place.slot, Found { worker, text, ended: false });
        while kept.len() > KEPT {
            kept.pop_first();
        }
    }

    /// Why an app's last reload failed.
    pub(super) fn reload_failure(&self, app: AppId, failure: &Failure) -> String {
        let kept = self.probes.evidence.reloads.get(&app).filter(|(kept, _)| kept == failure);
        kept.map_or_else(|| self.failure_text(failure), |(_, text)| text.clone())
    }

    /// What is to be said about a slot's last end, where its words do not say it all.
    pub(super) fn exit_message(&self, slot: SlotId, exit: &LastExit) -> Option<String> {
        let found = self.probes.evidence.by_slot.get(&slot).filter(|found| found.ended);
        let evidence = || found.map(|found| found.text.clone());
        let failure = exit.failure.as_ref().map(|failure| failure.message.clone());
        failure.or_else(evidence).or_else(|| exit.errno.map(errno_words))
    }
}
