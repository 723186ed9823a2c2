//! Answers that wait for the disk: who is told that a worker has ended finds its last lines in its files, and who asked
//! for files to be emptied or opened anew is told when that is done. Nothing here blocks, and a disk that takes nothing
//! holds no answer for long that is not about its files.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::control::protocol::{Done, Reply};
use crate::control::server::ClientId;
use crate::logs::files::{self, Mark};
use crate::supervisor::time::Time;

use super::Daemon;
use super::commands::failure;

/// How long the end of a command waits for the files.
const COMMAND: Duration = files::PATIENCE;

/// How long who only looks waits.
const LOOK: Duration = Duration::from_millis(100);

/// Replies and tasks that wait.
#[derive(Debug, Default)]
pub(super) struct Held {
    replies: Vec<Waiting>,
    tasks: Vec<Task>,
}

/// A last answer.
#[derive(Debug)]
struct Waiting {
    client: ClientId,
    reply: Reply,
    marks: Vec<Mark>,
    until: Time,
}

/// Files that are emptied, or opened anew.
#[derive(Debug)]
struct Task {
    what: What,
    client: Option<ClientId>,
    left: BTreeSet<Mark>,
    failures: Vec<String>,
}

/// What is answered when it is done.
#[derive(Debug)]
pub(super) enum What {
    /// `flush`.
    Emptied(Done),
    /// `reload-logs`, or SIGUSR2.
    Reopened,
}

impl Held {
    /// It went away.
    pub(super) fn forget(&mut self, client: ClientId) {
        self.replies.retain(|waiting| waiting.client != client);
        // Files that are emptied are nobody else's matter.
        let is_over = |task: &Task| task.client == Some(client) && matches!(task.what, What::Emptied(_));
        self.tasks.retain(|task| !is_over(task));
        for task in self.tasks.iter_mut().filter(|task| task.client == Some(client)) {
            task.client = None;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.replies.iter().map(|waiting| waiting.until).min()
    }
}

impl Daemon {
    /// The last answer to a client, once what was read of workers until now is in their files, or a moment has passed.
    pub(super) fn reply_once_written(&mut self, client: ClientId, reply: Reply) {
        self.hold(client, reply, COMMAND);
    }

    /// The same for who only looks.
    pub(super) fn reply_soon_written(&mut self, client: ClientId, reply: Reply) {
        self.hold(client, reply, LOOK);
    }

    fn hold(&mut self, client: ClientId, reply: Reply, limit: Duration) {
        let mut marks = self.output.files.marks(self.now);
        // Asked for now, so that it is told of when it is done.
        marks.retain(|mark| !self.output.files.is_over(*mark, self.now));
        if marks.is_empty() {
            return self.server.reply(client, &reply, true);
        }
        self.held.replies.push(Waiting { client, reply, marks, until: self.now + limit });
    }

    /// Sends what need not wait any more.
    pub(super) fn release_replies(&mut self) {
        let now = self.now;
        let files = &self.output.files;
        let is_over = |waiting: &mut Waiting| {
            // Each that is left is asked, so that each is told of.
            waiting.marks.retain(|mark| !files.is_over(*mark, now));
            waiting.marks.is_empty() || waiting.until <= now
        };
        let over: Vec<Waiting> = self.held.replies.extract_if(.., is_over).collect();
        over.into_iter().for_each(|waiting| self.server.reply(waiting.client, &waiting.reply, true));
        self.finish_tasks();
    }

    /// At the end of the supervisor nothing waits any more.
    pub(super) fn release_all_replies(&mut self) {
        self.finish_tasks();
        for client in std::mem::take(&mut self.held.tasks).into_iter().filter_map(|task| task.client) {
            let message = "the supervisor ended before the disk had done it with all files".to_owned();
            self.server.reply(client, &Reply::Error(failure(message)), true);
        }
        for waiting in std::mem::take(&mut self.held.replies) {
            self.server.reply(waiting.client, &waiting.reply, true);
        }
    }

    /// Answers when all of these are done; what failed already, in words.
    pub(super) fn await_files(
        &mut self,
        client: Option<ClientId>,
        what: What,
        left: BTreeSet<Mark>,
        failures: Vec<String>,
    ) {
        self.held.tasks.push(Task { what, client, left, failures });
    }

    fn finish_tasks(&mut self) {
        if self.held.tasks.is_empty() {
            return;
        }
        let answers = self.output.files.take_answers();
        for task in &mut self.held.tasks {
            let asked = answers.iter().filter(|(mark, _)| task.left.contains(mark));
            task.failures.extend(asked.flat_map(|(_, failures)| failures.iter().cloned()));
            task.left.retain(|mark| !answers.contains_key(mark));
        }
        let done: Vec<Task> = self.held.tasks.extract_if(.., |task| task.left.is_empty()).collect();
        done.into_iter().for_each(|task| self.finish_task(task));
    }

    fn finish_task(&mut self, task: Task) {
        let Task { what, client, failures, .. } = task;
        let done = match what {
            What::Emptied(done) => done,
            What::Reopened => {
                failures.iter().for_each(|failure| log::warn!("{failure}"));
                log::info!("log files reopened");
                Done { message: "log files reopened".to_owned(), apps: Vec::new() }
            }
        };
        let Some(client) = client else { return };
        let reply = match failures.is_empty() {
            true => Reply::Done(done),
            false => Reply::Error(failure(failures.join("\n"))),
        };
        self.reply_once_written(client, reply);
    }
}
