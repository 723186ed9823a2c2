//! Whether this supervisor's apps can serve: what `ping --ready` and `/readyz` say to whoever sends clients here.
//!
//! An app serves while one of its workers is ready: that others are being replaced is no reason to send everybody
//! away. What was stopped on purpose is not missed.

use crate::control::protocol::{Done, Error, Reply};
use crate::control::server::ClientId;
use crate::supervisor::event::{AppId, Scope};
use crate::supervisor::view::{AppView, Status};

use super::Daemon;
use super::commands::failure;

/// Why an app does not serve; none where it does, or is not meant to.
fn obstacle(app: &AppView) -> Option<String> {
    if app.status == Status::Stopped || app.workers.iter().any(|worker| worker.ready) {
        return None;
    }
    let name = app.called();
    Some(format!("{name}: no worker of {} is ready ({})", app.instances, app.status.as_str()))
}

impl Daemon {
    /// `ping --ready`.
    pub(super) fn tell_ready(&mut self, client: ClientId, targets: &[String]) -> Result<(), Error> {
        let whom = self.whom_or_all(targets)?;
        let missing = self.obstacles_of(&whom);
        if !missing.is_empty() {
            return Err(failure(format!("not ready: {}", missing.join("; "))));
        }
        let apps = whom.iter().map(|(app, _)| self.app_name(*app)).collect();
        self.server.reply(client, &Reply::Done(Done { message: "ready".to_owned(), apps }), true);
        Ok(())
    }

    /// Why some of these apps do not serve, each in a sentence.
    pub(super) fn obstacles_of(&self, whom: &[(AppId, Scope)]) -> Vec<String> {
        let view = self.supervisor.view(self.now);
        obstacles(view.apps.iter().filter(|app| whom.iter().any(|(id, _)| *id == app.app)))
    }
}

/// The sentences of those that do not serve; none when every one does. Without an app there is nothing that could.
fn obstacles<'a>(apps: impl IntoIterator<Item = &'a AppView>) -> Vec<String> {
    let mut apps = apps.into_iter().peekable();
    if apps.peek().is_none() {
        return vec!["there is no app".to_owned()];
    }
    apps.filter_map(obstacle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::event::Generation;
    use crate::supervisor::policy::Mode;
    use crate::supervisor::view::WorkerView;
    use std::time::Duration;

    fn app(name: &str, status: Status, ready: &[bool]) -> AppView {
        let worker = |(instance, ready): (usize, &bool)| WorkerView {
            slot: crate::supervisor::event::SlotId(instance as u32),
            instance: instance as u32,
            worker: None,
            status: if *ready { Status::Online } else { Status::Launching },
            ready: *ready,
            no_listener: false,
            generation: Generation(1),
            uptime: Duration::ZERO,
            restarts: 0,
            unstable_restarts: 0,
            last_exit: None,
        };
        AppView {
            app: AppId(1),
            name: name.to_owned(),
            namespace: "default".to_owned(),
            mode: Mode::Cluster,
            status,
            generation: Generation(1),
            instances: ready.len() as u32,
            listen: Vec::new(),
            unserved: Vec::new(),
            reload: None,
            waits_for: Vec::new(),
            workers: ready.iter().enumerate().map(worker).collect(),
        }
    }

    #[test]
    fn one_ready_worker_serves_and_what_was_stopped_is_not_missed() {
        let serves = app("api", Status::Launching, &[false, true]);
        let stopped = app("job", Status::Stopped, &[]);
        let fails = app("web", Status::Errored, &[false, false]);
        assert_eq!(obstacles([&serves, &stopped]), Vec::<String>::new());
        let told = obstacles([&serves, &fails, &stopped]);
        assert_eq!(told, ["web: no worker of 2 is ready (errored)"]);
        assert_eq!(obstacles([]), ["there is no app"]);
    }
}
