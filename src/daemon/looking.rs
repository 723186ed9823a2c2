//! Lists of hundreds of workers: what each of them uses takes a few reads of /proc, so that is found out over
//! several turns of the loop, and others are answered in between.

use std::collections::VecDeque;
use std::time::Duration;

use crate::control::protocol::{Error, Reply};
use crate::control::server::ClientId;
use crate::http::request::Asked;
use crate::supervisor::event::WorkerId;

use super::{DECIDING_TIME, Daemon};

/// So many workers can be looked at without making anybody wait.
const AT_ONCE: usize = 32;

/// What a client wants to see.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) targets: Vec<String>,
    pub(super) connections: bool,
    pub(super) detail: bool,
}

/// Who waits for it.
#[derive(Debug)]
enum Asker {
    Client(ClientId, Shown),
    /// Over HTTP: the connection, and what it asked for.
    Http(u64, Asked),
}

/// A list that somebody waits for.
#[derive(Debug)]
struct Looking {
    asker: Asker,
    /// Who is to be looked at, and since when each has run.
    left: VecDeque<(WorkerId, Duration)>,
    /// Who was looked at after this is not looked at again for it, however long it takes.
    began: Duration,
}

/// All of them: there are no more than clients of either kind.
#[derive(Debug, Default)]
pub(super) struct Lookings {
    queue: VecDeque<Looking>,
    /// When the one began that is being put together just now.
    now: Option<Duration>,
}

impl Lookings {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&mut self, client: ClientId) {
        self.queue.retain(|looking| !matches!(looking.asker, Asker::Client(of, _) if of == client));
    }

    /// Nobody is answered over HTTP any more.
    pub(super) fn forget_http(&mut self) {
        self.queue.retain(|looking| !matches!(looking.asker, Asker::Http(..)));
    }

    /// Since when a look counts for the list that is being put together.
    pub(super) fn since(&self) -> Option<Duration> {
        self.now
    }
}

impl Daemon {
    /// Answers with a list: at once, or when everybody was looked at.
    pub(super) fn begin_list(&mut self, client: ClientId, wanted: Shown) -> Result<(), Error> {
        let left = self.unseen_usages(&wanted.targets)?;
        if left.len() <= AT_ONCE {
            return self.answer_list(client, &wanted);
        }
        self.look_first(Asker::Client(client, wanted), left);
        Ok(())
    }

    /// The same over HTTP, of all apps or of this one.
    pub(super) fn begin_page(&mut self, id: u64, asked: Asked, target: Option<String>) {
        let targets: Vec<String> = target.into_iter().collect();
        match self.unseen_usages(&targets) {
            Ok(left) if left.len() > AT_ONCE => {
                self.look_first(Asker::Http(id, asked), left);
            }
            // That there is no such app is part of the answer.
            Ok(_) | Err(_) => self.answer_page(id, asked),
        }
    }

    fn look_first(&mut self, asker: Asker, left: VecDeque<(WorkerId, Duration)>) {
        let began = self.clock.since_start();
        self.lookings.queue.push_back(Looking { asker, left, began });
    }

    /// Whose last look is too long ago to be told again.
    fn unseen_usages(&self, targets: &[String]) -> Result<VecDeque<(WorkerId, Duration)>, Error> {
        let whom = self.whom_or_all(targets)?;
        let view = self.supervisor.view(self.now);
        let apps = view.apps.iter().filter(|app| whom.iter().any(|(id, _)| *id == app.app));
        let workers = apps.flat_map(|app| &app.workers).filter_map(|row| Some((row.worker?, row.uptime)));
        Ok(workers.filter(|(worker, _)| !self.is_usage_fresh(*worker)).collect())
    }

    fn answer_list(&mut self, client: ClientId, wanted: &Shown) -> Result<(), Error> {
        let whom = self.whom_or_all(&wanted.targets)?;
        let list = self.list(&whom, wanted.connections, wanted.detail);
        self.reply_soon_written(client, Reply::List(list));
        Ok(())
    }

    fn answer_looking(&mut self, asker: Asker) {
        match asker {
            Asker::Client(client, wanted) => {
                if let Err(error) = self.answer_list(client, &wanted) {
                    self.server.reply(client, &Reply::Error(error), true);
                }
            }
            Asker::Http(id, asked) => self.answer_page(id, asked),
        }
    }

    /// Looks at as many as there is time for in a turn.
    pub(super) fn look_for_lists(&mut self) {
        let end = self.read_clock() + DECIDING_TIME;
        while let Some(looking) = self.lookings.queue.front_mut() {
            let next = looking.left.pop_front();
            self.lookings.now = Some(looking.began);
            if let Some((worker, uptime)) = next {
                self.usage(worker, uptime);
            } else if let Some(looking) = self.lookings.queue.pop_front() {
                self.answer_looking(looking.asker);
            }
            if self.read_clock() >= end {
                break;
            }
        }
        self.lookings.now = None;
    }
}
