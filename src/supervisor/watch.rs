//! What a worker says of itself beyond that it is ready, needs time, or leaves.

use super::app::App;
use super::event::{Word, WorkerId};
use super::policy::Readiness;

/// What is known about how a worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Watch {
    /// What it gave as the reason of its end.
    pub(super) errno: Option<i32>,
}

impl Readiness {
    /// Whether a worker that says this is ready.
    pub(super) fn believes(self, word: Word) -> bool {
        match self {
            Readiness::Auto | Readiness::Word => matches!(word, Word::Ready | Word::Sent),
            Readiness::Notify => word == Word::Ready,
            Readiness::Ipc => word == Word::Sent,
            Readiness::Listen | Readiness::Exec => false,
        }
    }
}

impl App {
    /// It said how it is.
    pub(super) fn said_of_itself(&mut self, worker: WorkerId, word: Word) {
        let Some(found) = self.at(worker) else { return };
        match word {
            Word::Errno(errno) => found.watch.errno = Some(errno),
            Word::Ready | Word::Sent | Word::Stopping | Word::Extend(_) => {}
        }
    }
}
