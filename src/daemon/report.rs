//! Facts, rendered: a line in the supervisor's log, and a step for every client that waits for the app.

use log::Level;

use crate::control::protocol::Progress;
use crate::supervisor::event::{
    Address, AppId, Cause, ExitStatus, Fact, Failure, OnReloadFailureTaken, Proof, SlotId, WorkerId,
};
use crate::supervisor::policy::Mode;
use crate::supervisor::time::Time;
use crate::sys::spawn::signal_name;

use super::Daemon;

/// A fact as people read it.
struct Told {
    level: Level,
    app: AppId,
    event: &'static str,
    worker: Option<WorkerId>,
    slot: Option<SlotId>,
    roll_out: Option<(u32, u32)>,
    message: String,
}

impl Told {
    fn about(level: Level, app: AppId, event: &'static str, message: String) -> Told {
        Told { level, app, event, worker: None, slot: None, roll_out: None, message }
    }

    fn worker(self, worker: WorkerId) -> Told {
        Told { worker: Some(worker), ..self }
    }

    fn slot(self, slot: SlotId) -> Told {
        Told { slot: Some(slot), ..self }
    }

    fn roll_out(self, done: u32, total: u32) -> Told {
        Told { roll_out: Some((done, total)), ..self }
    }
}

impl Daemon {
    /// Logs a fact and sends it to the clients that wait for its app.
    pub(super) fn tell(&mut self, fact: &Fact, _now: Time) {
        let told = self.render(fact);
        let about = match (told.worker, told.slot) {
            (Some(worker), _) => self.label(worker),
            (None, Some(slot)) => format!("{} id {}", self.app_name(told.app), slot.0),
            (None, None) => self.app_name(told.app),
        };
        log::log!(told.level, "{about}: {}", told.message);
        let reference = told.worker.and_then(|w| self.supervisor.worker(w));
        let progress = Progress {
            app: self.app_name(told.app),
            event: told.event.to_owned(),
            id: told.slot.or(reference.map(|r| r.slot)).map(|s| s.0),
            instance: reference.map(|r| r.instance),
            pid: told.worker.and_then(|w| self.processes.get(w)).map(|p| p.pid),
            generation: reference.map(|r| r.generation.0),
            done: told.roll_out.map(|(done, _)| done),
            total: told.roll_out.map(|(_, total)| total),
            message: told.message,
        };
        self.send_progress(told.app, &progress);
        match fact {
            Fact::Errored { .. } => self.may_be_over = true,
            Fact::Deleted { app } => self.forget(*app),
            _ => {}
        }
    }

    /// Nothing of the app is left.
    fn forget(&mut self, app: AppId) {
        self.catalog.delete(app);
        self.output.forget_app(app);
    }

    fn render(&self, fact: &Fact) -> Told {
        match fact {
            Fact::Starting { app, worker } => {
                Told::about(Level::Info, *app, "starting", "starting".to_owned()).worker(*worker)
            }
            Fact::Ready { app, worker, proof, after } => {
                let after = humantime::format_duration(round(*after));
                let how = match proof {
                    Proof::Said => " (it said so)",
                    Proof::Listens => "",
                    Proof::Alive => " (alive)",
                    Proof::NoListener => " (no listener)",
                };
                Told::about(Level::Info, *app, "ready", format!("ready after {after}{how}")).worker(*worker)
            }
            Fact::Late { app, worker } => {
                let message = "not ready in listen_timeout; it stays launching".to_owned();
                Told::about(Level::Warn, *app, "late", message).worker(*worker)
            }
            Fact::Draining { app, worker, cause } => {
                let message = format!("leaving ({}): finishing its requests", cause.as_str());
                Told::about(Level::Info, *app, "draining", message).worker(*worker)
            }
            Fact::DrainTimedOut { app, worker, traffic } => {
                let message = format!(
                    "drain_timeout is over with {} connections busy and {} waiting; they are ended",
                    traffic.busy, traffic.queued
                );
                Told::about(Level::Warn, *app, "drain_timed_out", message).worker(*worker)
            }
            Fact::KillTimedOut { app, worker } => {
                let message = "did not end in kill_timeout: killed".to_owned();
                Told::about(Level::Warn, *app, "kill_timed_out", message).worker(*worker)
            }
            Fact::Exited { app, worker, status, cause, lived } => {
                let level =
                    if matches!(cause, Cause::Crash | Cause::Exit) { Level::Warn } else { Level::Info };
                let lived = humantime::format_duration(round(*lived));
                let message = format!("{} after {lived} ({})", exit_text(*status), cause.as_str());
                Told::about(level, *app, "exited", message).worker(*worker)
            }
            Fact::SpawnFailed { app, worker, failure } => {
                let message = format!("could not be started: {}", failure.message);
                Told::about(Level::Error, *app, "spawn_failed", message).worker(*worker)
            }
            Fact::BackingOff { .. }
            | Fact::Errored { .. }
            | Fact::ReloadStarted { .. }
            | Fact::ReloadProgress { .. }
            | Fact::ReloadDone { .. }
            | Fact::ReloadFailed { .. }
            | Fact::Stopped { .. }
            | Fact::Deleted { .. } => self.render_app(fact),
        }
    }

    fn render_app(&self, fact: &Fact) -> Told {
        match fact {
            Fact::BackingOff { app, slot, delay, unstable } => {
                let delay = humantime::format_duration(round(*delay));
                let message = format!("{unstable} unstable exits in a row; next start in {delay}");
                Told::about(Level::Warn, *app, "backing_off", message).slot(*slot)
            }
            Fact::Errored { app, slot, unstable } => {
                let message = format!(
                    "given up after {unstable} unstable exits in a row (max_restarts); start it again with \
                     `clusterd start {}`",
                    self.app_name(*app)
                );
                Told::about(Level::Error, *app, "errored", message).slot(*slot)
            }
            Fact::ReloadStarted { app, generation, total } => {
                let mut message = format!("reload to generation {} begins: {total} workers", generation.0);
                if self.catalog.app(*app).is_some_and(|record| record.recipe.policy.mode == Mode::Fork) {
                    message += "; fork mode: each is stopped, then started, and nobody serves in between. For \
                                a reload without a gap write exec_mode = \"cluster\"";
                }
                Told::about(Level::Info, *app, "reload_started", message).roll_out(0, *total)
            }
            Fact::ReloadProgress { app, done, total } => {
                let message = format!("{done} of {total} workers replaced");
                Told::about(Level::Info, *app, "reload_progress", message).roll_out(*done, *total)
            }
            Fact::ReloadDone { app, generation, took } => {
                let took = humantime::format_duration(round(*took));
                let message = format!("reloaded to generation {} in {took}", generation.0);
                Told::about(Level::Info, *app, "reload_done", message)
            }
            Fact::ReloadFailed { app, generation, failure, left } => {
                let left = match left {
                    OnReloadFailureTaken::Untouched => "the old generation serves on, untouched".to_owned(),
                    OnReloadFailureTaken::RolledBack(count) => {
                        format!("rolling back {count} workers to the old generation")
                    }
                    OnReloadFailureTaken::Held => "held: the mix of generations stays".to_owned(),
                };
                let reason = self.failure_text(failure);
                let message = format!("reload to generation {} failed: {reason}; {left}", generation.0);
                Told::about(Level::Error, *app, "reload_failed", message)
            }
            Fact::Stopped { app } => Told::about(Level::Info, *app, "stopped", "stopped".to_owned()),
            Fact::Deleted { app } => Told::about(Level::Info, *app, "deleted", "deleted".to_owned()),
            Fact::Starting { .. }
            | Fact::Ready { .. }
            | Fact::Late { .. }
            | Fact::Draining { .. }
            | Fact::DrainTimedOut { .. }
            | Fact::KillTimedOut { .. }
            | Fact::Exited { .. }
            | Fact::SpawnFailed { .. } => self.render(fact),
        }
    }

    /// Why a wish failed, as a sentence without its subject.
    pub(super) fn failure_text(&self, failure: &Failure) -> String {
        match failure {
            Failure::Unknown => "it is not known any more".to_owned(),
            Failure::Superseded => "a later stop, delete or shutdown took its place".to_owned(),
            Failure::Spawn { failure, .. } => failure.message.clone(),
            Failure::Died { worker, status, lived, ready } => {
                let lived = humantime::format_duration(round(*lived));
                let when =
                    if *ready { "after it was ready (min_healthy_time)" } else { "before it was ready" };
                format!("{} {} {lived} after its start, {when}", self.label(*worker), exit_text(*status))
            }
            Failure::NotReady { worker, limit, missing, found } => {
                let limit = humantime::format_duration(round(*limit));
                let label = self.label(*worker);
                let mut text = format!("{label} was not ready within listen_timeout ({limit})");
                match (missing.is_empty(), found.is_empty()) {
                    (false, false) => {
                        text += &format!(
                            ": it listens on {} and not on {}, where its predecessors serve",
                            join(found),
                            join(missing)
                        )
                    }
                    (false, true) => text += &format!(": it does not listen on {}", join(missing)),
                    (true, _) => text += ": it never listened",
                }
                text
            }
        }
    }
}

fn join(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `exited with code 1`, `killed by SIGKILL`.
pub(super) fn exit_text(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exited with code {code}"),
        ExitStatus::Signal(signal) => format!("was ended by {}", signal_name(signal)),
    }
}

/// To milliseconds: nobody reads microseconds in a log.
fn round(duration: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_millis(duration.as_millis() as u64)
}
