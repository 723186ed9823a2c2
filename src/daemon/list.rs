//! What `list` and `describe` show: the core's view, with what only the shell knows beside it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::config::{self, Interpreter, Program, launch};
use crate::control::protocol::Stream;
use crate::control::protocol::{
    AppDetail, AppInfo, DaemonInfo, LastExitInfo, List, ReloadInfo, UnservedInfo, WorkerInfo,
};
use crate::supervisor::balance::{Skew, skew};
use crate::supervisor::event::{Address, AppId, ExitStatus, Scope, SlotId, SocketId, WorkerId};
use crate::supervisor::policy::Mode;
use crate::supervisor::time::Time;
use crate::supervisor::view::{AppView, LastExit, Status, WorkerView};
use crate::sys::listen::{self, Queue};
use crate::sys::spawn::signal_name;

use super::Daemon;
use super::processes::Reach;
use super::sockets::Held;

/// The version of the shape of `list --json`.
const VERSION: u32 = 1;

impl Daemon {
    pub(super) fn list(&mut self, whom: &[(AppId, Scope)], connections: bool, detail: bool) -> List {
        let view = self.supervisor.view(self.now);
        let mut apps = Vec::new();
        for app in &view.apps {
            let scopes: Vec<Scope> =
                whom.iter().filter(|(id, _)| *id == app.app).map(|(_, scope)| *scope).collect();
            if !scopes.is_empty() {
                apps.push(self.app_info(app, &scopes, connections || detail, detail));
            }
        }
        List { version: VERSION, daemon: self.daemon_info(), apps }
    }

    fn daemon_info(&self) -> DaemonInfo {
        DaemonInfo {
            pid: std::process::id() as i32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.clock.since_start().as_millis() as u64,
            home: self.home.runtime.display().to_string(),
            control_groups: self.groups.state(),
        }
    }

    fn app_info(&mut self, app: &AppView, scopes: &[Scope], connections: bool, detail: bool) -> AppInfo {
        let shown = |slot: SlotId| scopes.iter().any(|s| *s == Scope::All || *s == Scope::Slot(slot));
        let workers: Vec<WorkerInfo> =
            app.workers.iter().filter(|w| shown(w.slot)).map(|w| self.worker_info(w, connections)).collect();
        AppInfo {
            name: app.name.clone(),
            namespace: app.namespace.clone(),
            mode: match app.mode {
                Mode::Fork => "fork",
                Mode::Cluster => "cluster",
            }
            .to_owned(),
            status: app.status.as_str().to_owned(),
            generation: app.generation.0,
            instances: app.instances,
            listen: app.listen.iter().map(ToString::to_string).collect(),
            unserved: app.unserved.iter().map(|address| self.unserved(*address)).collect(),
            waits_for: app.waits_for.iter().map(ToString::to_string).collect(),
            watching: self.recipe_of(app).is_some_and(|recipe| recipe.policy.watch.is_some()),
            warnings: self.warnings(app, &workers, detail),
            reload: app.reload.as_ref().map(|reload| ReloadInfo {
                state: reload.state.to_owned(),
                done: reload.done,
                total: reload.total,
                share_percent: reload.share,
                reason: reload.failure.as_ref().map(|failure| self.reload_failure(app.app, failure)),
            }),
            workers,
            detail: detail.then(|| self.detail(app)).flatten(),
        }
    }

    fn warnings(&self, app: &AppView, workers: &[WorkerInfo], detail: bool) -> Vec<String> {
        let unsaved = self.keeper.trouble().filter(|_| detail).map(str::to_owned);
        self.shared.missed(app.app).chain(warnings(app, workers)).chain(unsaved).collect()
    }

    fn unserved(&mut self, address: Address) -> UnservedInfo {
        let length = |held: &Held| match listen::queue_length(held.fd.as_fd()) {
            Ok(length) => length,
            Err(error) => {
                log::debug!("queue of {address}: {error}");
                0
            }
        };
        if let Address::Unix(name) = address {
            let all = self.diagnostics.as_mut().and_then(|diagnostics| diagnostics.dump_unix().ok());
            let waiting = all.iter().flatten().filter(|s| s.listens && s.name == name.as_str());
            return UnservedInfo { listen: address.to_string(), waiting: waiting.map(|s| s.unread).sum() };
        }
        UnservedInfo { listen: address.to_string(), waiting: self.sockets.at(address).map(length).sum() }
    }

    fn worker_info(&mut self, worker: &WorkerView, connections: bool) -> WorkerInfo {
        let id = worker.worker;
        // Of those that leave it is what they leave by: always told.
        let counted = connections || worker.status == Status::Stopping;
        let pid = id.and_then(|id| self.processes.get(id)).filter(|p| !p.leader_gone).map(|p| p.pid);
        let usage = id.and_then(|id| self.usage(id, worker.uptime));
        let queue = id.filter(|_| connections).and_then(|id| self.queue_of(id));
        WorkerInfo {
            id: worker.slot.0,
            instance: worker.instance,
            pid,
            status: worker.status.as_str().to_owned(),
            ready: worker.ready,
            no_listener: worker.no_listener,
            status_text: id.and_then(|id| self.processes.get(id)).and_then(|p| p.status.clone()),
            generation: worker.generation.0,
            uptime_ms: worker.uptime.as_millis() as u64,
            restarts: worker.restarts,
            unstable_restarts: worker.unstable_restarts,
            cpu_percent: usage.map(|usage| usage.cpu_percent),
            memory_bytes: usage.map(|usage| usage.memory_bytes),
            connections: if counted { id.and_then(|id| self.connections_of(id)) } else { None },
            last_exit: worker.last_exit.as_ref().map(|exit| self.last_exit(worker.slot, exit)),
            queue_depth: queue.map(|queue| queue.depth),
            queue_limit: queue.map(|queue| queue.limit),
            queue_dropped: queue.map(|queue| queue.dropped),
        }
    }

    /// All accept queues of a worker together; none where it has none. One that several share is the first one's.
    fn queue_of(&mut self, worker: WorkerId) -> Option<Queue> {
        let unix = self.unix_sockets(worker).unwrap_or_default();
        let is_counted = |id: SocketId, held: &Held| {
            !held.shared || self.sockets.parts(held.inode).all(|(other, _)| id <= other)
        };
        let queue = |held: &Held| match held.address {
            Address::Tcp { .. } => listen::queue(held.fd.as_fd()).ok(),
            Address::Unix(_) => unix.iter().find(|socket| socket.inode == held.inode).map(|socket| Queue {
                depth: socket.unread,
                limit: socket.unsent,
                dropped: 0,
            }),
        };
        let counted = self.sockets.of(worker).filter(|(id, held)| is_counted(*id, held));
        let queues = counted.filter_map(|(_, held)| queue(held));
        queues.reduce(|sum, more| Queue {
            depth: sum.depth.saturating_add(more.depth),
            limit: sum.limit.saturating_add(more.limit),
            dropped: sum.dropped.saturating_add(more.dropped),
        })
    }

    fn last_exit(&self, slot: SlotId, exit: &LastExit) -> LastExitInfo {
        let (code, signal) = match exit.status {
            Some(ExitStatus::Code(code)) => (Some(code), None),
            Some(ExitStatus::Signal(signal)) => (None, Some(signal_name(signal))),
            None => (None, None),
        };
        LastExitInfo {
            code,
            signal,
            reason: exit.cause.as_str().to_owned(),
            message: self.exit_message(slot, exit),
            at: self.wall_clock_at(exit.at),
        }
    }

    /// RFC 3339 for a moment that has passed.
    fn wall_clock_at(&self, at: Time) -> String {
        let ago = self.clock.since_start().saturating_sub(at.since_start());
        let then = crate::sys::clock::wall().saturating_sub(ago);
        humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + then).to_string()
    }

    fn detail(&self, app: &AppView) -> Option<AppDetail> {
        let record = self.catalog.app(app.app)?;
        let recipe = &self.recipe_of(app)?;
        let file = self.shown_files(&record.file_stem(), recipe);
        let watched = |path: &String| recipe.spec.cwd.join(path).components().collect::<PathBuf>();
        let watched = recipe.policy.watch.iter().flat_map(|watch| &watch.paths).map(watched);
        Some(AppDetail {
            file: record.source.path.as_ref().map(|p| p.display().to_string()),
            profile: record.source.profile.clone(),
            command: typed(recipe),
            program: in_path(recipe).map(|path| path.display().to_string()),
            cwd: recipe.spec.cwd.display().to_string(),
            out_file: file(Some(Stream::Out)),
            error_file: file(Some(Stream::Err)),
            log_file: file(None),
            journal_lines_dropped: recipe
                .spec
                .logs
                .to
                .has_journal()
                .then(|| self.output.journal.dropped(app.app)),
            log_lines_left_out: self.output.left_out(app.app),
            env: recipe.spec.env.keys().cloned().collect(),
            watches: watched.map(|path| path.display().to_string()).collect(),
            sharing: self.sharing(app),
            groups: app.workers.iter().filter_map(|w| self.group_info(w.instance, w.worker?)).collect(),
            changed: self.changes_in_force(app.app).lines(),
            settings: settings(recipe),
        })
    }

    /// How the ports of an app are shared, in words.
    fn sharing(&self, app: &AppView) -> String {
        if app.mode == Mode::Fork {
            return "none: fork mode".to_owned();
        }
        let workers: HashSet<WorkerId> = app.workers.iter().filter_map(|w| w.worker).collect();
        let of_app = || self.processes.iter().filter(|(id, _)| workers.contains(id));
        let handed = of_app().any(|(_, p)| !p.recipe.spec.listen.is_empty());
        let intercepted = of_app().any(|(_, p)| p.notify.is_some());
        let reach = |reach| of_app().any(|(_, p)| p.notify.is_some() && p.reach == reach);
        if reach(Reach::Declared) {
            return if handed {
                "declared sockets handed over; steered. The server's own are not shared: the host keeps the \
                 supervisor from them"
            } else {
                "nothing is shared: the host keeps the supervisor from the server's sockets; declare them in \
                 `listen`"
            }
            .to_owned();
        }
        if reach(Reach::Replacing) {
            return "sockets of the supervisor's in the place of the server's own; steered".to_owned();
        }
        match (handed, intercepted) {
            (true, true) => "declared sockets handed over, the server's own intercepted; steered",
            (true, false) => "declared sockets handed over; steered",
            (false, true) => "the server's own sockets intercepted; steered",
            (false, false) => "nothing is shared: interception is off or refused here",
        }
        .to_owned()
    }

    pub(super) fn pids(&self, whom: &[(AppId, Scope)]) -> Vec<i32> {
        let view = self.supervisor.view(self.now);
        let mut pids = Vec::new();
        for (id, scope) in whom {
            for app in view.apps.iter().filter(|a| a.app == *id) {
                let in_scope = |w: &&WorkerView| match scope {
                    Scope::All => true,
                    Scope::Slot(slot) => w.slot == *slot,
                };
                pids.extend(app.workers.iter().filter(in_scope).map(|w| {
                    let process = w.worker.and_then(|id| self.processes.get(id));
                    process.filter(|p| !p.leader_gone).map_or(0, |p| p.pid)
                }));
            }
        }
        pids
    }

    /// The workers that run there now.
    pub(super) fn workers_of(&self, whom: &[(AppId, Scope)]) -> Vec<WorkerId> {
        let matches = |process: &super::processes::Process| {
            whom.iter().any(|(app, scope)| {
                process.app == *app
                    && match scope {
                        Scope::All => true,
                        Scope::Slot(slot) => process.slot == *slot,
                    }
            })
        };
        self.processes.iter().filter(|(_, p)| !p.leader_gone && matches(p)).map(|(id, _)| id).collect()
    }

    /// Whether anything of the app runs or is about to.
    pub(super) fn runs(&self, app: AppId) -> bool {
        self.processes.iter().any(|(_, p)| p.app == app) || self.starts.iter().any(|order| order.app == app)
    }
}

/// What the queues and connections of these workers show.
fn warnings(app: &AppView, workers: &[WorkerInfo]) -> Vec<String> {
    let mut warnings: Vec<String> = workers.iter().filter_map(|w| overflow(app, w)).collect();
    let serving = workers.iter().filter(|w| w.ready && w.status == Status::Online.as_str());
    let counted: Vec<(u32, u32)> = serving.filter_map(|w| Some((w.instance, w.connections?))).collect();
    let connections: Vec<u32> = counted.iter().map(|(_, connections)| *connections).collect();
    let total: u32 = connections.iter().sum();
    warnings.extend(skew(&connections).map(|skew| match skew {
        Skew::Everything { place } => {
            let (instance, has) = counted[place];
            format!(
                "worker {instance} has {has} of {total} open connections: new ones are shared out, but these \
                 last; `clusterd reload {}` spreads them anew",
                app.name
            )
        }
        Skew::Nothing { place } => {
            let instance = counted[place].0;
            format!("worker {instance} has none of {total} open connections: it is new, or takes none")
        }
    }));
    warnings
}

/// That a worker's accept queue is, or was, too short for what comes.
fn overflow(app: &AppView, worker: &WorkerInfo) -> Option<String> {
    let (depth, limit, dropped) = (worker.queue_depth?, worker.queue_limit?, worker.queue_dropped?);
    let full = depth > limit;
    (full || dropped > 0).then(|| {
        format!(
            "the accept queue of worker {} {}full ({depth} wait, its backlog is {limit}), and {dropped} attempts \
             to connect were dropped: `clusterd scale {} +1`, or a greater backlog",
            worker.instance,
            if full { "is " } else { "was " },
            app.name
        )
    })
}

fn settings(recipe: &super::catalog::Recipe) -> BTreeMap<String, String> {
    config::settings(&recipe.policy, &recipe.spec)
}

/// Where the program that a bare word means is found. A PATH in a file of variables counts for workers alone.
fn in_path(recipe: &super::catalog::Recipe) -> Option<PathBuf> {
    let declared = recipe.spec.env.get("PATH").map(OsStr::new);
    let path = declared.or_else(|| recipe.environment.get(OsStr::new("PATH")).map(OsString::as_os_str));
    launch::found_in_path(&recipe.spec, path)
}

/// What runs, as one would type it.
fn typed(recipe: &super::catalog::Recipe) -> String {
    let spec = &recipe.spec;
    let (script, interpreter) = match &spec.program {
        Program::Shell(line) => return line.clone(),
        Program::Exact(vector) => (vector.clone(), None),
        Program::Script { script, interpreter: Interpreter::Program(program) } => {
            (vec![script.clone()], Some(program.clone()))
        }
        Program::Script { script, interpreter: Interpreter::ByExtension | Interpreter::None } => {
            (vec![script.clone()], None)
        }
    };
    let words = interpreter.into_iter().chain(spec.interpreter_args.iter().cloned());
    let words: Vec<String> = words.chain(script).chain(spec.args.iter().cloned()).collect();
    let quoted = words.iter().map(|word| shlex::try_quote(word).map_or(word.clone(), Into::into));
    quoted.collect::<Vec<String>>().join(" ")
}
