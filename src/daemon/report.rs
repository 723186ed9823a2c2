//! Facts, rendered: a line in the supervisor's log, and a step for every client that waits for the app.

use std::time::Duration;

use log::Level;

use crate::control::protocol::Progress;
use crate::control::render::size;
use crate::supervisor::event::{
    Address, AppId, Cause, ExitStatus, Fact, Failure, Obstacle, OnReloadFailureTaken, Pass, Proof, Renewal,
    SlotId, Spent, Traffic, WorkerId,
};
use crate::supervisor::fold::{Steady, Telling};
use crate::supervisor::headroom::{Good, Shortage, Stock};
use crate::supervisor::policy::{AppName, Mode};
use crate::supervisor::time::Time;
use crate::sys::spawn::{errno_text, signal_name};

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
    pub(super) fn tell(&mut self, fact: &Fact, now: Time) {
        self.http.count(fact);
        let told = self.render(fact);
        let about = match (told.worker, told.slot) {
            (Some(worker), _) => self.label(worker),
            (None, Some(slot)) => format!("{} id {}", self.app_name(told.app), slot.0),
            (None, None) => self.app_name(told.app),
        };
        self.keep_evidence(fact, &told.message);
        match self.folds.hear(fact, now) {
            Telling::Whole => log::log!(told.level, "{about}: {}", told.message),
            Telling::Again { times, within } => {
                let within = shown(Duration::from_secs(within.as_secs().max(1)));
                log::log!(
                    told.level,
                    "{about}: {times} times in the last {within}, the same way: {}; the lines between are left out",
                    told.message
                );
            }
            Telling::Not => {}
        }
        // What is told last of a worker is told when the core has forgotten it.
        let named = |worker| self.names.get(&worker).map(|(_, place)| *place);
        let reference = told.worker.and_then(|w| self.supervisor.worker(w).or_else(|| named(w)));
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
            Fact::Ready { worker, .. } => {
                self.look_for_own_cluster(*worker);
                self.come_forward(*worker);
            }
            Fact::Errored { .. } | Fact::Forgone { .. } => self.may_be_over = true,
            Fact::Deleted { app } => {
                // What is left may have nothing to do any more.
                self.may_be_over = true;
                self.forget(*app);
            }
            Fact::ReloadDone { app, generation, .. } => self.follow_declarations(*app, *generation),
            _ => {}
        }
    }

    /// The first lasting success after a crash loop whose lines were folded.
    pub(super) fn tell_of_steady(&mut self) {
        for Steady { worker, times } in self.folds.steady(self.now) {
            log::info!("{}: ready, and stays up, after it failed {times} times in a row", self.label(worker));
        }
    }

    /// Nothing of the app is left.
    fn forget(&mut self, app: AppId) {
        self.catalog.delete(app);
        self.warned.forget(app);
        self.hangups.forget(app);
        self.probes.evidence.forget(app);
        self.output.forget_app(app);
        self.http.forget(app);
    }

    /// A flat table: one arm for each fact.
    fn render(&self, fact: &Fact) -> Told {
        use Level::{Error, Info, Warn};
        match fact {
            Fact::Starting { app, slot, worker } => {
                Told::about(Info, *app, "starting", "starting".to_owned()).slot(*slot).worker(*worker)
            }
            Fact::Ready { app, slot, worker, proof, after } => {
                let message = format!("ready after {}{}", shown(*after), how(*proof));
                Told::about(Info, *app, "ready", message).slot(*slot).worker(*worker)
            }
            Fact::Late { app, worker, stays } => {
                let answer = self.probes.complaint(*worker);
                let why = if answer.is_empty() { String::new() } else { format!(", at last: {answer}") };
                let what = if *stays { "it stays launching" } else { "the one before it serves on" };
                Told::about(Warn, *app, "late", format!("not ready in listen_timeout{why}; {what}"))
                    .worker(*worker)
            }
            Fact::Draining { app, worker, cause } => {
                let message = format!("leaving ({}): finishing its requests", cause.as_str());
                Told::about(Info, *app, "draining", message).worker(*worker)
            }
            Fact::Examined { app, finishes: true } => {
                let message = "its server finishes its requests by itself upon kill_signal: workers that \
                               leave get it at once";
                Told::about(Info, *app, "examined", message.to_owned())
            }
            Fact::Examined { app, finishes: false } => {
                let message = "its server does not finish its requests upon kill_signal any more: workers \
                               that leave get it when they are done";
                Told::about(Warn, *app, "examined", message.to_owned())
            }
            Fact::Spent { app, slot, worker, why } => {
                let (level, message) = spent(*why);
                Told::about(level, *app, "spent", message).slot(*slot).worker(*worker)
            }
            Fact::Renewing { app, slot, how } => {
                let (level, message) = renewing(how);
                Told::about(level, *app, "renewing", message).slot(*slot)
            }
            Fact::Unwell { app, worker, trouble } => {
                let message = format!("{}; it is replaced", self.trouble_text(*worker, *trouble));
                Told::about(Warn, *app, "unwell", message).worker(*worker)
            }
            Fact::DrainTimedOut { app, worker, traffic } => {
                let (level, message) = timed_out(traffic);
                Told::about(level, *app, "drain_timed_out", message).worker(*worker)
            }
            Fact::DrainCutShort { app, worker, traffic, limit } => {
                let (busy, queued) = (traffic.busy, traffic.queued);
                let message = format!(
                    "its drain ends early, with {busy} {} busy and {queued} waiting: {limit} workers of the app \
                     live, which is the most (2 x instances + max_surge), and another is wanted",
                    connections(busy)
                );
                Told::about(Warn, *app, "drain_cut_short", message).worker(*worker)
            }
            Fact::KillTimedOut { app, worker } => {
                let message = "did not end in kill_timeout: killed".to_owned();
                Told::about(Warn, *app, "kill_timed_out", message).worker(*worker)
            }
            Fact::Unkillable { app, worker } => {
                Told::about(Error, *app, "unkillable", self.unkillable(*worker)).worker(*worker)
            }
            Fact::Exited { app, slot, worker, status, cause, meant, lived, errno } => {
                let level = match cause {
                    Cause::Crash | Cause::Exit if *meant => Info,
                    Cause::Crash | Cause::Exit | Cause::Daemonised | Cause::OutOfMemory => Warn,
                    _ => Info,
                };
                let (how, lived) = (exit_text(*status), shown(*lived));
                let reason = errno.map(|errno| format!("; {}", errno_words(errno))).unwrap_or_default();
                let message = format!("{how} after {lived} ({}){reason}{}", cause.as_str(), advice(*cause));
                Told::about(level, *app, "exited", message).slot(*slot).worker(*worker)
            }
            Fact::SpawnFailed { app, slot, worker, failure } => {
                let message = format!("could not be started: {}", failure.message);
                // What passes by itself is nobody's to mend.
                let level = if failure.transient { Warn } else { Error };
                Told::about(level, *app, "spawn_failed", message).slot(*slot).worker(*worker)
            }
            Fact::BackingOff { app, slot, delay, unstable } => {
                let delay = shown(*delay);
                // None for failures of the host, and for restart_delay after a stable spell.
                let why = if *unstable > 0 {
                    format!("{unstable} unstable exits in a row; ")
                } else {
                    String::new()
                };
                let message = format!("{why}next start in {delay}");
                Told::about(Warn, *app, "backing_off", message).slot(*slot)
            }
            Fact::Errored { app, slot, unstable } => {
                Told::about(Error, *app, "errored", self.given_up(*app, *unstable)).slot(*slot)
            }
            Fact::ReloadStarted { app, generation, total } => {
                let message = self.reload_begins(*app, generation.0, *total);
                Told::about(Info, *app, "reload_started", message).roll_out(0, *total)
            }
            Fact::ReloadNarrowed { app, fits, stock } => {
                let scarce = scarcity(stock, stock.each);
                let message = format!("{scarce}: the reload goes on with at most {fits} more at a time");
                Told::about(Warn, *app, "reload_narrowed", message)
            }
            Fact::CanaryHolds { app, generation, percent, workers, total } => {
                let name = self.app_name(*app);
                let message = format!(
                    "generation {} ({workers} {}) {}",
                    generation.0,
                    plural(*workers),
                    held(&name, *percent)
                );
                Told::about(Info, *app, "canary", message).roll_out(*workers, *total)
            }
            Fact::CanaryPromoted { app, generation } => {
                let message = format!("generation {} is promoted: the reload goes on", generation.0);
                Told::about(Info, *app, "promoted", message)
            }
            Fact::CronDue { app, replaces } => {
                let what = if *replaces { "its workers are replaced" } else { "it is started" };
                Told::about(Info, *app, "cron", format!("cron_restart: {what}"))
            }
            Fact::CronPassed { app, why } => {
                let why = match why {
                    Pass::Reloading => "a reload is under way",
                    Pass::Held => "a failed reload left two versions for you to look at",
                    Pass::Starting => "it is about to start anyway",
                    Pass::Stopped => "it is stopped, and stays so",
                };
                Told::about(Info, *app, "cron", format!("cron_restart: passed over, {why}"))
            }
            Fact::FilesChanged { app, later } => {
                let then = if *later {
                    "another reload follows the one under way"
                } else {
                    "its workers are replaced"
                };
                let message = format!("watch: {}: {then}", self.changes_of(*app));
                Told::about(Info, *app, "watch", message)
            }
            Fact::ReloadProgress { app, done, total } => {
                let message = format!("{done} of {total} workers replaced");
                Told::about(Info, *app, "reload_progress", message).roll_out(*done, *total)
            }
            Fact::ReloadDone { app, generation, took } => {
                let message = format!("reloaded to generation {} in {}", generation.0, shown(*took));
                Told::about(Info, *app, "reload_done", message)
            }
            Fact::ReloadFailed { app, generation, failure: Failure::RolledBack, left } => {
                let message =
                    format!("reload to generation {} is rolled back; {}", generation.0, remains(*left));
                Told::about(Info, *app, "rolled_back", message)
            }
            Fact::ReloadFailed { app, generation, failure: Failure::Superseded, left } => {
                let number = generation.0;
                let message = format!(
                    "reload to generation {number} ends: a newer one takes its place; {}",
                    remains(*left)
                );
                Told::about(Info, *app, "reload_failed", message)
            }
            Fact::ReloadFailed { app, generation, failure, left } => {
                let reason = self.failure_text(failure);
                let number = generation.0;
                let message = format!("reload to generation {number} failed: {reason}; {}", remains(*left));
                Told::about(Error, *app, "reload_failed", message)
            }
            Fact::Ended { app, slot, code } => Told::about(Info, *app, "ended", not_again(*code)).slot(*slot),
            Fact::Awaits { app, on, stopped: false } => {
                Told::about(Info, *app, "awaits", format!("starts when {on} is ready (depends_on)"))
            }
            Fact::Awaits { app, on, stopped: true } => {
                let message = format!("waits: {}, and then this app", self.obstructed(on, Obstacle::Stopped));
                Told::about(Warn, *app, "awaits", message)
            }
            Fact::Forgone { app, on, obstacle } => {
                let message = format!("not started: {}", self.obstructed(on, *obstacle));
                Told::about(Error, *app, "forgone", message)
            }
            Fact::Stopped { app } => Told::about(Info, *app, "stopped", "stopped".to_owned()),
            Fact::Deleted { app } => Told::about(Info, *app, "deleted", "deleted".to_owned()),
        }
    }

    fn given_up(&self, app: AppId, unstable: u32) -> String {
        format!(
            "given up after {unstable} unstable exits in a row (max_restarts); start it again with `clusterd \
             start {}`",
            self.app_name(app)
        )
    }

    fn reload_begins(&self, app: AppId, generation: u32, total: u32) -> String {
        let mut message = format!("reload to generation {generation} begins: {total} {}", plural(total));
        if self.catalog.app(app).is_some_and(|record| record.recipe.policy.mode == Mode::Fork) {
            message += "; fork mode: each is stopped, then started, and nobody serves in between. For a reload \
                        without a gap write exec_mode = \"cluster\"";
        }
        message
    }

    /// Why a wish failed, as a sentence without its subject.
    pub(super) fn failure_text(&self, failure: &Failure) -> String {
        match failure {
            Failure::Unknown => "it is not known any more".to_owned(),
            Failure::Superseded => {
                "a later stop, restart, reload, scale, delete or shutdown took its place".to_owned()
            }
            Failure::BeingDeleted => BEING_DELETED.to_owned(),
            Failure::RolledBack => "it was rolled back by `clusterd rollback`".to_owned(),
            Failure::NothingHeld => {
                "no reload of it is held at a share (canary) or under way, and no failed one left a mix"
                    .to_owned()
            }
            Failure::NothingToPromote => {
                "its reload is not held at a share (canary), and goes on by itself".to_owned()
            }
            Failure::Spawn { failure, .. } => failure.message.clone(),
            Failure::Dependency { on, obstacle } => self.obstructed(on, *obstacle),
            Failure::NoRoom { shortage } => no_room(shortage),
            Failure::Unkillable { worker } => format!("{} {}", self.label(*worker), self.unkillable(*worker)),
            Failure::Unwell { worker, trouble } => {
                format!(
                    "{} was ready, and then {}",
                    self.label(*worker),
                    self.trouble_text(*worker, *trouble)
                )
            }
            Failure::Died { worker, status, cause, lived, ready } => {
                let lived = shown(*lived);
                let when =
                    if *ready { "after it was ready (min_healthy_time)" } else { "before it was ready" };
                let obstacle = if *ready { String::new() } else { self.obstacle(*worker) };
                let (label, how) = (self.label(*worker), exit_text(*status));
                format!("{label} {how} {lived} after its start, {when}{}{obstacle}", advice(*cause))
            }
            Failure::NotReady { worker, limit, missing, found } => {
                let limit = shown(*limit);
                let (label, why) = (self.label(*worker), self.unproven(*worker, missing, found));
                let obstacle = self.obstacle(*worker);
                format!("{label} was not ready within listen_timeout ({limit}): {why}{obstacle}")
            }
        }
    }

    /// What is missing of a worker's readiness.
    fn unproven(&self, worker: WorkerId, missing: &[Address], found: &[Address]) -> String {
        let answer = self.probes.complaint(worker);
        match (missing.is_empty(), found.is_empty()) {
            (_, _) if !answer.is_empty() => format!("asked again and again, at last: {answer}"),
            (false, false) => {
                format!(
                    "it listens on {} and not on {}, where its predecessors serve",
                    join(found),
                    join(missing)
                )
            }
            (false, true) => format!("it does not listen on {}", join(missing)),
            (true, true) => "it never listened".to_owned(),
            (true, false) => {
                format!(
                    "it listens on {}, and has not shown what `ready` or `wait_ready` asks for",
                    join(found)
                )
            }
        }
    }
}

/// Why a worker is to be replaced.
fn spent(why: Spent) -> (Level, String) {
    match why {
        Spent::Memory { bytes, limit } => {
            let (taken, limit) = (size(bytes), size(limit));
            let message =
                format!("takes {taken}, more than max_memory_restart ({limit}): it is to be replaced");
            (Level::Warn, message)
        }
        // What was asked for, and nothing to look into.
        Spent::Age { lived } => {
            (Level::Info, format!("is {} old (max_age): it is to be replaced", shown(lived)))
        }
    }
}

fn renewing(how: &Renewal) -> (Level, String) {
    match how {
        Renewal::Overlapping => {
            (Level::Info, "its worker is replaced: the new one is ready before the old one leaves".to_owned())
        }
        Renewal::StopThenStart => {
            (Level::Info, "its worker is replaced: stopped, then started (fork mode)".to_owned())
        }
        Renewal::MakingRoom(Shortage { stock, .. }) => {
            let message = format!(
                "its worker is stopped before the new one is started, since there is no room for both: {}",
                scarcity(stock, stock.least)
            );
            (Level::Warn, message)
        }
    }
}

impl Daemon {
    /// Why an app that depends on `on` is not started, and what to do.
    fn obstructed(&self, on: &AppName, obstacle: Obstacle) -> String {
        let start = format!("`clusterd start {on}` starts it");
        let rest = match obstacle {
            Obstacle::Stopped => format!("is stopped; {start}"),
            Obstacle::Ended => format!("ended with a failure and is not started again; {start}"),
            Obstacle::Errored => format!("was given up; `clusterd logs {on}` shows why, and {start}"),
            Obstacle::Unknown => "is not known; start it with its file: `clusterd start FILE`".to_owned(),
            Obstacle::Failing => "does not stay up yet; this app is started once it is ready".to_owned(),
            Obstacle::Late => "was not ready in listen_timeout; this app is started once it is".to_owned(),
            Obstacle::Waiting => {
                "waits itself for an app that is not ready; this app is started after it".to_owned()
            }
        };
        format!("it depends on {on}, which {rest}")
    }
}

/// Why a worker that ended is not started again.
fn not_again(code: Option<i32>) -> String {
    match code {
        Some(code) => format!("not started again: {code} is one of its stop_exit_codes"),
        None => "not started again: autorestart = false".to_owned(),
    }
}

/// What a worker takes, and what is left.
fn scarcity(stock: &Stock, each: u64) -> String {
    let free = stock.free;
    match stock.good {
        Good::Memory { limit } => {
            let of = limit.map_or_else(
                || "on this host".to_owned(),
                |limit| format!("within the control group's limit of {}", size(limit)),
            );
            format!("a worker takes {} of memory, and {} are left {of}", size(each), size(free))
        }
        Good::Descriptors { limit } => format!(
            "a worker takes {each} descriptors of the supervisor, and {free} are left (RLIMIT_NOFILE {limit}, \
             less what runs and a reserve)"
        ),
    }
}

fn no_room(shortage: &Shortage) -> String {
    let Shortage { stock, workers } = shortage;
    let missing = stock.missing_for(*workers);
    let (missing, remedy) = match stock.good {
        Good::Memory { limit: None } => (size(missing), "free some"),
        Good::Memory { limit: Some(_) } => (size(missing), "free some, or raise the limit"),
        Good::Descriptors { .. } => (format!("{missing} descriptors"), "raise the limit (`ulimit -n`)"),
    };
    format!(
        "there is no room for {workers} more beside the workers that run: {}, {missing} too little; {remedy}, \
         or replace without an overlap: `clusterd restart`",
        scarcity(stock, stock.least)
    )
}

fn how(proof: Proof) -> &'static str {
    match proof {
        Proof::Said => " (it said so)",
        Proof::Listens => "",
        Proof::Alive => " (alive)",
        Proof::NoListener => " (no listener)",
        Proof::Answered => " (it answered)",
    }
}

fn connections(count: u32) -> &'static str {
    if count == 1 { "connection" } else { "connections" }
}

fn plural(workers: u32) -> &'static str {
    if workers == 1 { "worker" } else { "workers" }
}

/// What a canary is, and what comes next.
pub(super) fn held(app: &str, percent: u8) -> String {
    format!(
        "gets {percent}% of new connections until it is decided: `clusterd promote {app}` goes on, `clusterd \
         rollback {app}` goes back"
    )
}

/// A leaving worker's time is over. Where nothing was under way when it was last looked at, nobody lost anything.
fn timed_out(traffic: &Traffic) -> (Level, String) {
    match (traffic.busy, traffic.queued) {
        (0, 0) => (Level::Info, "drain_timeout is over, and nothing was seen under way".to_owned()),
        (busy, queued) => {
            let what = connections(busy);
            let message =
                format!("drain_timeout is over with {busy} {what} busy and {queued} waiting; they are ended");
            (Level::Warn, message)
        }
    }
}

/// Why an app cannot be wished anything of while its last workers end.
pub(super) const BEING_DELETED: &str = "it is being deleted, and its last workers have not ended; say it again then (`clusterd delete NAME` waits for it)";

/// What a failed reload leaves behind.
fn remains(left: OnReloadFailureTaken) -> String {
    match left {
        OnReloadFailureTaken::Untouched => "the old generation stays as it was".to_owned(),
        OnReloadFailureTaken::RolledBack(count) => {
            format!("rolling back {count} {} to the old generation", plural(count))
        }
        OnReloadFailureTaken::Held => "held: the mix of generations stays".to_owned(),
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

/// What a worker gave as its reason.
pub(super) fn errno_words(errno: i32) -> String {
    format!("it said: {} (ERRNO={errno})", errno_text(errno))
}

/// What to do about an end, where there is one thing to do.
fn advice(cause: Cause) -> &'static str {
    match cause {
        Cause::Daemonised => {
            ": it put itself in the background, where it is neither kept alive nor reloaded, so what it left \
             running is stopped (with treekill = false it stays); run it in the foreground (nginx: `daemon off;`, gunicorn: no --daemon, \
             redis: `daemonize no`)"
        }
        Cause::OutOfMemory => {
            ": the kernel killed it for want of memory; give max_memory_restart a value that is reached first, \
             or raise the limit of the control group"
        }
        Cause::Memory
        | Cause::Age
        | Cause::Crash
        | Cause::Exit
        | Cause::Stop
        | Cause::Reload
        | Cause::Restart
        | Cause::Scale
        | Cause::KillTimeout
        | Cause::Health
        | Cause::Watchdog
        | Cause::Hung
        | Cause::Spawn => "",
    }
}

/// To milliseconds: nobody reads microseconds in a log.
pub(super) fn shown(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_millis(duration.as_millis() as u64))
}
