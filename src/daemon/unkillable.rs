//! What is said of a worker that was killed and does not end.

use crate::supervisor::event::WorkerId;
use crate::sys::process;

use super::Daemon;

impl Daemon {
    /// The sentence goes on after the worker's label.
    pub(super) fn unkillable(&self, worker: WorkerId) -> String {
        format!(
            "was killed, and does not end{}: in uninterruptible sleep no signal is heard, which comes of a disk or a \
             network file system that does not answer, or of a frozen control group. Nobody takes its place before \
             it is gone; everything else goes on",
            self.seen(worker)
        )
    }

    /// At our own end: who outlives it.
    pub(super) fn tell_left_behind(&self) {
        for (worker, _) in self.processes.iter().filter(|(_, process)| !process.failed) {
            log::error!(
                "{}: was killed, and does not end{}; it is left behind. The next supervisor of this home looks for it",
                self.label(worker),
                self.seen(worker)
            );
        }
    }

    fn seen(&self, worker: WorkerId) -> String {
        let sight = self.processes.get(worker).map(|process| process::sight(process.pid)).unwrap_or_default();
        if sight.is_empty() { sight } else { format!(" ({sight})") }
    }
}
