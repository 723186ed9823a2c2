//! Wishes under way: a client's request may be about several apps, and is answered once all are done.

use std::collections::{HashMap, HashSet};

use log::Level;

use crate::control::protocol::{AppFailure, Done, Error, Progress, Reply};
use crate::control::server::ClientId;
use crate::supervisor::event::{AppId, Command, Event, Failure, Outcome, RequestId};

use super::Daemon;
use super::order::Commands;
use super::report::held;

/// Last lines that a failure is explained with.
const LAST_LINES: usize = 20;

/// Reasons of failures that are an operator's own doing.
const SUPERSEDED: &str = "superseded";
const ROLLED_BACK: &str = "rolled_back";

/// One wish, in its parts.
#[derive(Debug)]
pub(super) struct Operation {
    /// None for the supervisor's own (its start, SIGHUP), and when the client does not wait.
    client: Option<ClientId>,
    /// `reloaded`, for the sentence at the end.
    done: &'static str,
    /// `reload`, for the sentence of a failure.
    verb: &'static str,
    /// Whether apps of it are reloaded.
    reloads: bool,
    apps: Vec<(AppId, String)>,
    waiting: HashSet<RequestId>,
    failures: Vec<AppFailure>,
    /// What else people should know of it.
    notes: Vec<String>,
    /// What begins when nothing is waited for any more.
    later: Commands,
}

/// All wishes under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    operations: HashMap<u64, Operation>,
    by_request: HashMap<RequestId, (u64, AppId)>,
    next_operation: u64,
    next_request: u64,
}

impl Requests {
    /// Whether something of the supervisor's own (its start, SIGHUP) is not settled.
    pub(super) fn has_own(&self) -> bool {
        self.operations.values().any(|operation| operation.client.is_none())
    }

    /// The apps of that, as far as they are not.
    pub(super) fn own_apps(&self) -> HashSet<AppId> {
        let is_own = |id: &u64| self.operations.get(id).is_some_and(|operation| operation.client.is_none());
        self.by_request.values().filter(|(id, _)| is_own(id)).map(|(_, app)| *app).collect()
    }

    /// Whether an app is to be reloaded, by whatever verb.
    pub(super) fn has_reload(&self) -> bool {
        self.operations.values().any(|operation| operation.reloads)
    }
}

impl Daemon {
    /// Hands the parts of a wish to the core; it is answered when the last part is settled.
    pub(super) fn begin(
        &mut self,
        client: Option<ClientId>,
        words: (&'static str, &'static str),
        commands: Vec<(AppId, Command)>,
    ) {
        self.begin_with(client, words, commands, Vec::new());
    }

    /// The same, with notes that are told with the answer.
    pub(super) fn begin_with(
        &mut self,
        client: Option<ClientId>,
        (verb, done): (&'static str, &'static str),
        commands: Vec<(AppId, Command)>,
        notes: Vec<String>,
    ) {
        self.begin_parts(client, (verb, done), (commands, Vec::new()), notes);
    }

    /// The same in two parts: the second begins when the first is settled.
    pub(super) fn begin_parts(
        &mut self,
        client: Option<ClientId>,
        (verb, done): (&'static str, &'static str),
        parts: (Commands, Commands),
        notes: Vec<String>,
    ) {
        self.begin_operation(client, (verb, done), parts, (notes, Vec::new()));
    }

    /// As [`Daemon::begin_with`], of which parts have failed already.
    pub(super) fn begin_failed(
        &mut self,
        client: Option<ClientId>,
        words: (&'static str, &'static str),
        commands: Commands,
        told: (Vec<String>, Vec<AppFailure>),
    ) {
        self.begin_operation(client, words, (commands, Vec::new()), told);
    }

    fn begin_operation(
        &mut self,
        client: Option<ClientId>,
        (verb, done): (&'static str, &'static str),
        (commands, later): (Commands, Commands),
        (notes, failures): (Vec<String>, Vec<AppFailure>),
    ) {
        self.requests.next_operation += 1;
        let id = self.requests.next_operation;
        let reloads = commands.iter().chain(&later).any(|(_, c)| matches!(c, Command::Reload { .. }));
        // That it was asked for by SIGHUP was told before.
        if reloads && !self.hanging_up {
            self.tell_manager_of_reload();
        }
        let apps = commands.iter().chain(&later).map(|(app, _)| (*app, self.app_name(*app))).collect();
        let waiting = HashSet::new();
        let operation = Operation { client, done, verb, reloads, apps, waiting, failures, notes, later };
        self.requests.operations.insert(id, operation);
        self.ask(id, commands);
        self.go_on(id);
    }

    fn ask(&mut self, id: u64, commands: Vec<(AppId, Command)>) {
        self.warn_of_exposed(&commands);
        let Some(operation) = self.requests.operations.get_mut(&id) else { return };
        for (app, command) in commands {
            self.requests.next_request += 1;
            let request = RequestId(self.requests.next_request);
            operation.waiting.insert(request);
            self.requests.by_request.insert(request, (id, app));
            self.inbox.push_back(Event::Command { request, command });
        }
    }

    /// Where nothing is waited for, the next part begins, or all is done.
    fn go_on(&mut self, id: u64) {
        let Some(operation) = self.requests.operations.get_mut(&id) else { return };
        if !operation.waiting.is_empty() {
            return;
        }
        let later = std::mem::take(&mut operation.later);
        if later.is_empty() {
            return self.finish(id);
        }
        self.ask(id, later);
    }

    /// A wish of the supervisor itself, which nobody waits for.
    pub(super) fn command(&mut self, command: Command) {
        self.requests.next_request += 1;
        let request = RequestId(self.requests.next_request);
        self.inbox.push_back(Event::Command { request, command });
    }

    /// One part is settled.
    pub(super) fn settle(&mut self, request: RequestId, outcome: Outcome) {
        let Some((id, app)) = self.requests.by_request.remove(&request) else { return };
        let (failure, note) = match outcome {
            Outcome::Done => (None, None),
            Outcome::Holds { percent } => {
                let name = self.app_name(app);
                (None, Some(format!("{name}: the new generation {}", held(&name, percent))))
            }
            Outcome::Failed(failure) => (Some(self.app_failure(id, app, &failure)), None),
        };
        let Some(operation) = self.requests.operations.get_mut(&id) else { return };
        operation.waiting.remove(&request);
        operation.failures.extend(failure);
        operation.notes.extend(note);
        self.go_on(id);
    }

    fn app_failure(&self, operation: u64, app: AppId, failure: &Failure) -> AppFailure {
        let (reason, worker) = match failure {
            Failure::Unknown => ("unknown", None),
            Failure::Superseded => (SUPERSEDED, None),
            Failure::BeingDeleted => ("being_deleted", None),
            Failure::NoRoom { .. } => ("no_room", None),
            Failure::Unkillable { worker } => ("unkillable", Some(*worker)),
            Failure::Dependency { .. } => ("dependency", None),
            Failure::RolledBack => (ROLLED_BACK, None),
            Failure::NothingHeld | Failure::NothingToPromote => ("nothing_held", None),
            Failure::Died { worker, .. } => ("exited", Some(*worker)),
            Failure::Spawn { worker, .. } => ("spawn", Some(*worker)),
            Failure::NotReady { worker, .. } => ("not_ready", Some(*worker)),
            Failure::Unwell { worker, .. } => ("unwell", Some(*worker)),
        };
        let known = self
            .requests
            .operations
            .get(&operation)
            .and_then(|o| o.apps.iter().find(|(id, _)| *id == app))
            .map(|(_, name)| name.clone());
        AppFailure {
            app: known.unwrap_or_else(|| self.app_name(app)),
            reason: reason.to_owned(),
            message: self.failure_text(failure),
            last_lines: worker.map_or_else(Vec::new, |w| self.output.last_lines(w, LAST_LINES)),
        }
    }

    fn finish(&mut self, id: u64) {
        let Some(operation) = self.requests.operations.remove(&id) else { return };
        let names: Vec<String> = operation.apps.iter().map(|(_, name)| name.clone()).collect();
        let failed = !operation.failures.is_empty();
        if failed && operation.client.is_none() {
            for failure in &operation.failures {
                log::log!(level_of(failure), "{}", logged(operation.verb, failure));
            }
        }
        let Some(client) = operation.client else { return };
        let reply = if failed {
            let message = operation
                .failures
                .iter()
                .map(|failure| told(operation.verb, failure))
                .collect::<Vec<_>>()
                .join("\n");
            Reply::Error(Error { code: 1, message, failures: operation.failures })
        } else {
            // Where nothing was to be done the notes say why.
            let done = (!names.is_empty()).then(|| format!("{} {}", operation.done, names.join(", ")));
            let message = done.into_iter().chain(operation.notes).collect::<Vec<_>>().join("\n");
            Reply::Done(Done { message, apps: names })
        };
        self.reply_once_written(client, reply);
    }

    /// Tells every client that waits for this app what happened.
    pub(super) fn send_progress(&mut self, app: AppId, progress: &Progress) {
        let clients: Vec<ClientId> = self
            .requests
            .operations
            .values()
            .filter(|o| o.apps.iter().any(|(id, _)| *id == app))
            .filter_map(|o| o.client)
            .collect();
        for client in clients {
            self.server.reply(client, &Reply::Progress(progress.clone()), false);
        }
    }

    /// A client went away: what it wished goes on.
    pub(super) fn client_gone(&mut self, client: ClientId) {
        self.output.followers.remove(client);
        self.held.forget(client);
        self.lookings.forget(client);
        for operation in self.requests.operations.values_mut() {
            if operation.client == Some(client) {
                operation.client = None;
            }
        }
    }
}

/// For the client. What failed before an app was known is about none.
fn told(verb: &str, failure: &AppFailure) -> String {
    match failure.app.as_str() {
        "" => format!("{verb}: {}", failure.message),
        app => format!("{verb} {app}: {}", failure.message),
    }
}

/// For the log.
fn logged(verb: &str, failure: &AppFailure) -> String {
    match failure.app.as_str() {
        "" => format!("{verb} failed: {}", failure.message),
        app => format!("{app}: {verb} failed: {}", failure.message),
    }
}

/// Of what an operator undid there is nothing to look into.
fn level_of(failure: &AppFailure) -> Level {
    match failure.reason.as_str() {
        SUPERSEDED | ROLLED_BACK => Level::Info,
        _ => Level::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_app_where_it_has_one() {
        let of = |app: &str| {
            let (reason, message) = ("unreadable".to_owned(), "/a: broken".to_owned());
            let failure = AppFailure { app: app.to_owned(), reason, message, last_lines: Vec::new() };
            (told("resurrect", &failure), logged("resurrect", &failure))
        };
        let words = |told: &str, logged: &str| (told.to_owned(), logged.to_owned());
        assert_eq!(of("api"), words("resurrect api: /a: broken", "api: resurrect failed: /a: broken"));
        assert_eq!(of(""), words("resurrect: /a: broken", "resurrect failed: /a: broken"));
    }
}
