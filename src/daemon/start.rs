//! `Action::Spawn`: everything a worker gets is put together here, then it is cloned and exec'd.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::config::{self, Listen, launch};
use crate::control::protocol::Stream;
use crate::logs::Origin;
use crate::logs::worker::{Files, WorkerOutput};
use crate::supervisor::event::{Address, AppId, Event, Generation, SlotId, SocketId, SpawnFailure, WorkerId};
use crate::sys::spawn::{self, Failure, Plan, Step, errno_text};
use crate::sys::{addresses, input, listen, options, output, process, unix_listener};

use super::catalog::Recipe;
use super::environment::Variables;
use super::leftovers::RUN_VARIABLE;
use super::node::Channel;
use super::perform::ended_already;
use super::processes::{Process, WORKER_VARIABLE};
use super::shared::Sharing;
use super::sockets::Held;
use super::{Daemon, Source, groups, identity, kept, settings};

/// What `Action::Spawn` carries.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) worker: WorkerId,
    pub(super) app: AppId,
    pub(super) slot: SlotId,
    pub(super) instance: u32,
    pub(super) generation: Generation,
    /// What it runs, taken when it was ordered: a spec may be forgotten while its starts wait their turn.
    pub(super) recipe: Option<Rc<Recipe>>,
    pub(super) inherit: Vec<SocketId>,
}

/// What ties a worker to us, our ends first.
struct Pipes {
    out: (OwnedFd, OwnedFd),
    err: (OwnedFd, OwnedFd),
    report: (OwnedFd, OwnedFd),
    /// Its standard input, where it is to have one.
    input: Option<(OwnedFd, OwnedFd)>,
    /// Node's.
    channel: Option<(Channel, OwnedFd)>,
}

impl Pipes {
    fn open(node: bool, input: bool) -> Result<Pipes, SpawnFailure> {
        let pipe = || output::worker_pipe().map_err(|e| host_failure("pipe", &e));
        let socketpair = |error| host_failure("socketpair", &error);
        Ok(Pipes {
            out: pipe()?,
            err: pipe()?,
            report: spawn::report_pair().map_err(socketpair)?,
            input: input
                .then(input::worker_pipe)
                .transpose()
                .map_err(|e| host_failure("pipe", &e))?
                .map(|(theirs, ours)| (ours, theirs)),
            channel: node.then(Channel::pair).transpose().map_err(socketpair)?,
        })
    }
}

/// How our ends are registered with the poll: before there is a worker, so that one that runs is heard.
struct Ties {
    outputs: [(Token, i32); 2],
    others: Vec<(Token, i32)>,
}

impl Ties {
    fn all(&self) -> Vec<(Token, i32)> {
        self.outputs.iter().chain(&self.others).copied().collect()
    }
}

impl Daemon {
    /// Starts a worker; its outcome is an event.
    pub(super) fn start_worker(&mut self, order: &Order) {
        self.name_worker(order);
        let worker = order.worker;
        match self.try_start(order) {
            Ok(()) => {
                self.watches.started(order.app, self.now);
                self.inbox.push_back(Event::Begun { worker });
            }
            Err(failure) => {
                self.close_unused_abroad();
                self.inbox.push_back(Event::SpawnFailed { worker, failure });
            }
        }
    }

    fn try_start(&mut self, order: &Order) -> Result<(), SpawnFailure> {
        let recipe = order.recipe.clone().ok_or_else(|| missing_recipe(order))?;
        let process = &recipe.spec.process;
        let who = identity::resolve(process)?;
        let variables = Variables::of(&recipe, who.as_ref(), self.home.named())?;
        let command = self.command_line(&recipe.spec, &variables)?;
        let notify = self.notify_address(who.as_ref())?;
        let pid_file = self.reserve_pid_file(order, &recipe)?;
        self.refuse_shared(order.app, &recipe)?;
        let handed = self.declared_sockets(order, &recipe.spec.listen)?;
        let pipes = Pipes::open(command.speaks_node_ipc, process.pipe_input)?;
        let own = self.own_variables(order, &recipe, notify, handed.len(), pipes.channel.is_some());
        let env = variables.complete(&recipe, &command, order.instance, own)?;
        let program = c_string(command.program.as_os_str())?;
        let argv = command.argv.iter().map(|a| c_string(a)).collect::<Result<_, _>>()?;
        let cwd = c_string(command.cwd.as_os_str())?;
        let files = self.open_files(order.app, order.instance, &recipe)?;
        let ties = self.watch_pipes(order.worker, &pipes).inspect_err(|_| self.output.release(files))?;
        let mut group = self.make_group(order, process, !recipe.spec.treekill);
        let mut fds: Vec<_> = handed.iter().filter_map(|id| self.sockets.fd(*id)).collect();
        fds.extend(pipes.channel.iter().map(|(_, theirs)| theirs.as_fd()));
        let input = pipes.input.as_ref().map_or(self.surroundings.null.as_fd(), |(_, theirs)| theirs.as_fd());
        let plan = Plan {
            program,
            argv,
            env,
            cwd,
            standard: [input, pipes.out.1.as_fd(), pipes.err.1.as_fd()],
            report: pipes.report.1.as_fd(),
            handed: fds,
            listen_fds: handed.len(),
            watchdog: recipe.policy.watchdog.is_some(),
            intercept: recipe.spec.intercept,
            options: !self.may_duplicate_from(who.as_ref().is_some_and(|who| who.is_other)),
            nofile: self.surroundings.nofile,
            settings: &settings::of(process, who.as_ref()),
        };
        let spawned = match groups::born(&plan, &mut group) {
            Ok(spawned) => spawned,
            Err(error) => {
                group.into_iter().for_each(|group| self.groups.release(group, self.now));
                self.unwatch(&ties.all());
                self.output.release(files);
                return Err(host_failure("clone", &error));
            }
        };
        let process = Process {
            report: Some(pipes.report.0),
            channel: pipes.channel.map(|(ours, _)| ours),
            input: pipes.input.map(|(ours, _)| ours),
            other_user: who.and_then(|who| who.other_user()),
            pid_file: self.publish_pid(pid_file, spawned.pid, order.worker),
            tokens: ties.others,
            group: self.tell_missing(order.app, process.bounds, group),
            ..Process::new(order, recipe, command, spawned)
        };
        self.processes.insert(order.worker, process);
        self.insert_output(order, (pipes.out.0, pipes.err.0), files, ties.outputs);
        Ok(())
    }

    pub(super) fn command_line(
        &self,
        spec: &config::Spec,
        variables: &Variables,
    ) -> Result<launch::CommandLine, SpawnFailure> {
        launch::resolve(spec, variables.path(), self.surroundings.program.as_deref()).map_err(launch_failure)
    }

    /// One socket per declared address: the slot's own that a dead worker left, else a new one.
    fn declared_sockets(
        &mut self,
        order: &Order,
        declared: &[Listen],
    ) -> Result<Vec<SocketId>, SpawnFailure> {
        let mut handed = Vec::new();
        let entries = self.shared_entries(order.app, declared);
        for (listen, sharing) in declared.iter().zip(entries) {
            let address = self.address_of(listen, sharing);
            let left = order.inherit.iter().copied().find(|id| {
                self.sockets.get(*id).is_some_and(|held| held.address == address && self.leads(held))
            });
            let id = match left {
                Some(id) => {
                    self.sockets.set_owner(id, order.worker);
                    self.set_back(id, address);
                    id
                }
                None if sharing != Sharing::None => self.join_shared(order, listen, sharing)?,
                None => self.open_declared(order, listen, address)?,
            };
            handed.push(id);
        }
        // What nobody comes to any more is of no use to the slot's next worker either.
        let unused = order.inherit.iter().filter(|id| !handed.contains(id));
        let dead =
            unused.filter(|id| self.sockets.get(**id).is_some_and(|held| held.shared || !self.leads(held)));
        let dead: Vec<Event> = dead.map(|socket| Event::Abandoned { socket: *socket }).collect();
        self.arrays.extend(dead);
        Ok(handed)
    }

    /// The kernel tells from now on when addresses come. Where it does not, back-off alone has to do.
    fn await_address(&mut self, error: &io::Error) {
        if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) || self.addresses.is_some() {
            return;
        }
        let watched = addresses::listen().and_then(|socket| {
            self.watch(socket.as_raw_fd(), Source::Addresses)?;
            Ok(socket)
        });
        match watched {
            Ok(socket) => self.addresses = Some(socket),
            Err(error) => log::debug!("word of new addresses: {error}"),
        }
    }

    /// A successor gets the socket as its predecessor got it: blocking and with the options that it was opened with,
    /// whatever that one made of it. Of a shared one they are those of all who have it.
    fn set_back(&self, id: SocketId, address: Address) {
        let Some(held) = self.sockets.get(id).filter(|held| !held.shared) else { return };
        if let Err(error) = unix_listener::set_nonblocking(held.fd.as_fd(), false) {
            log::warn!("{address}: its last worker's O_NONBLOCK stays: {error}");
        }
        match options::set_back(held.fd.as_fd()) {
            Ok(back) => {
                if !back.done.is_empty() {
                    let names = back.done.join(", ");
                    log::info!(
                        "{address}: its last worker set {names} on the socket; the next one gets it without"
                    );
                }
                if !back.refused.is_empty() {
                    log::warn!(
                        "{address}: its last worker's {} stays on the socket",
                        back.refused.join(", ")
                    );
                }
            }
            Err(error) => log::warn!("{address}: the options that its last worker set stay: {error}"),
        }
    }

    /// Whether clients come to what a dead worker left: it may have shut it down at its end.
    fn leads(&self, held: &Held) -> bool {
        if held.shared { self.shared.is_open(held.inode) } else { listen::is_listening(held.fd.as_fd()) }
    }

    fn open_declared(
        &mut self,
        order: &Order,
        listen: &Listen,
        address: Address,
    ) -> Result<SocketId, SpawnFailure> {
        // With SO_REUSEPORT a stranger of the same user would let us in and take half the connections.
        if let Some(taken) = self.taken(order.app, address) {
            let message = self.taken_text(address, &taken);
            return Err(permanent(format!("listen on {address}"), libc::EADDRINUSE, message));
        }
        let Address::Tcp { ip, port, v6only } = address else {
            return self.join_shared(order, listen, Sharing::Ours);
        };
        let socket = listen::open(ip, port, v6only, listen.backlog)
            .and_then(|fd| self.sockets.hold(fd, address, true, order.worker))
            .map_err(|error| {
                self.await_address(&error);
                listen_failure(address, &error)
            })?;
        self.watch_listener(socket, listen.backlog);
        self.arrays.push_back(Event::Opened { worker: order.worker, socket, address });
        Ok(socket)
    }

    /// What clusterd says to each worker.
    pub(super) fn own_variables(
        &self,
        order: &Order,
        recipe: &Recipe,
        notify: OsString,
        sockets: usize,
        channel: bool,
    ) -> Vec<(&'static str, OsString)> {
        let mut own = Vec::new();
        let mut set = |name, value| own.push((name, value));
        set("CLUSTERD_APP", self.bare_name(order.app).into());
        set("CLUSTERD_INSTANCE", order.instance.to_string().into());
        set("CLUSTERD_GENERATION", order.generation.0.to_string().into());
        // By which a later supervisor finds what is to be ended, should this one be killed.
        if recipe.spec.treekill {
            set(RUN_VARIABLE, self.recorded.mark.clone().into());
        }
        set(WORKER_VARIABLE, order.worker.0.to_string().into());
        set("NOTIFY_SOCKET", notify);
        if sockets > 0 {
            let names: Vec<&str> = recipe.spec.listen.iter().map(|l| l.name.as_str()).collect();
            set("LISTEN_FDS", sockets.to_string().into());
            set("LISTEN_FDNAMES", names.join(":").into());
        }
        if let Some(watchdog) = recipe.policy.watchdog {
            set("WATCHDOG_USEC", watchdog.as_micros().to_string().into());
        }
        if channel {
            set("NODE_CHANNEL_FD", (3 + sockets).to_string().into());
        }
        own
    }

    /// Registers what a worker is going to be heard by.
    fn watch_pipes(&mut self, worker: WorkerId, pipes: &Pipes) -> Result<Ties, SpawnFailure> {
        let output = |stream| Source::Output(worker, stream);
        let mut wanted = vec![
            (pipes.out.0.as_raw_fd(), output(Stream::Out)),
            (pipes.err.0.as_raw_fd(), output(Stream::Err)),
            (pipes.report.0.as_raw_fd(), Source::Report(worker)),
        ];
        wanted.extend(
            pipes.channel.iter().map(|(ours, _)| (ours.stream().as_raw_fd(), Source::Channel(worker))),
        );
        let mut watched = Vec::new();
        for (fd, source) in wanted {
            match self.watch(fd, source) {
                Ok(token) => watched.push((token, fd)),
                Err(error) => {
                    self.unwatch(&watched);
                    return Err(watch_failure(&error));
                }
            }
        }
        let others = watched.split_off(2);
        Ok(Ties { outputs: [watched[0], watched[1]], others })
    }

    /// Registers one descriptor with the poll.
    pub(super) fn watch(&mut self, fd: i32, source: Source) -> io::Result<Token> {
        let token = self.tokens.allot(source);
        let watched = self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE);
        watched.map(|()| token).inspect_err(|_| self.tokens.release(token))
    }

    /// bind and listen calls of the worker come in here from now on. True when that cannot be: a call that
    /// nobody answers would hold the worker for ever, so it is ended and started anew.
    fn hear_notices(&mut self, worker: WorkerId, notify: OwnedFd) -> bool {
        let fd = notify.as_raw_fd();
        let watched = self.watch(fd, Source::Notices(worker));
        let Some(process) = self.processes.get_mut(worker) else { return true };
        match watched {
            Ok(token) => {
                process.notify = Some(notify);
                process.tokens.push((token, fd));
                false
            }
            Err(error) => {
                self.give_start_up(worker, watch_failure(&error));
                true
            }
        }
    }

    /// What was cloned cannot become a worker: the host had no room for all that belongs to one.
    fn give_start_up(&mut self, worker: WorkerId, failure: SpawnFailure) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.failed = true;
        self.close_report(worker);
        if let Err(error) = self.processes.kill(worker).or_else(ended_already) {
            log::error!("{}: cannot be killed: {error}", self.label(worker));
        }
        self.inbox.push_back(Event::SpawnFailed { worker, failure });
    }

    /// The first process's way to exec, as far as it has come. True when it is at its end.
    pub(super) fn read_reports(&mut self, worker: WorkerId) -> bool {
        loop {
            let Some(report) = self.processes.get(worker).and_then(|p| p.report.as_ref()) else {
                return true;
            };
            match spawn::read_report(report.as_fd()) {
                Ok(None) => return false,
                Ok(Some(report)) => {
                    if self.take_report(worker, report) {
                        return true;
                    }
                }
                Err(error) => {
                    let failure = host_failure("its start cannot be followed", &error);
                    self.give_start_up(worker, SpawnFailure { transient: true, ..failure });
                    return true;
                }
            }
        }
    }

    fn take_report(&mut self, worker: WorkerId, report: spawn::Report) -> bool {
        match report {
            spawn::Report::Intercepted(fd) => {
                if self.hear_notices(worker, fd) {
                    return true;
                }
                self.tell_privileges(worker);
                false
            }
            spawn::Report::NotIntercepted(errno) => {
                self.not_intercepted(worker, errno);
                false
            }
            spawn::Report::NotGrouped(errno) => {
                self.not_grouped(worker, errno);
                false
            }
            spawn::Report::Failed(failure) => {
                self.close_report(worker);
                let Some(process) = self.processes.get_mut(worker) else { return true };
                process.failed = true;
                let failure = step_failure(process, failure);
                self.inbox.push_back(Event::SpawnFailed { worker, failure });
                true
            }
            spawn::Report::End => {
                self.close_report(worker);
                self.inbox.push_back(Event::Started { worker });
                true
            }
        }
    }

    /// Once for an app: what the interception costs where it cannot be had otherwise.
    fn tell_privileges(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get(worker) else { return };
        let app = process.app;
        let ours = std::process::id() as i32;
        let restricted = process::has_no_new_privileges(process.pid) && !process::has_no_new_privileges(ours);
        if restricted && self.warned.first("privileges", Some(app)) {
            log::info!(
                "{}: without CAP_SYS_ADMIN its workers run with no_new_privs, so setuid programs have no \
                 effect in them; where that matters, write intercept = false",
                self.app_name(app)
            );
        }
    }

    fn not_intercepted(&mut self, worker: WorkerId, errno: i32) {
        let label = self.label(worker);
        self.warn_once("intercept", || {
            format!(
                "ports: {label}: the kernel refuses to notify bind and listen ({}{}); servers that open their \
                 port themselves cannot share it here: declare it in `listen`",
                errno_text(errno),
                // One listener in the chain of filters of a process (seccomp(2)).
                if errno == libc::EBUSY { ": the runtime that started clusterd listens itself" } else { "" }
            )
        });
    }

    fn insert_output(
        &mut self,
        order: &Order,
        (out, err): (OwnedFd, OwnedFd),
        files: Files,
        watched: [(Token, i32); 2],
    ) {
        let origin = Origin {
            app: order.app,
            worker: order.worker,
            namespace: self.namespace(order.app),
            name: self.bare_name(order.app),
            instance: order.instance,
        };
        let mut output = WorkerOutput::new(origin, out, err, files);
        let logs = self.processes.get(order.worker).map(|process| &process.recipe.spec.logs);
        output.set_form(logs.and_then(|logs| kept::form(logs, order.slot)));
        let place = (order.app, order.instance, order.generation);
        output.set_fields(logs.and_then(|logs| self.fields(order.worker, place, logs)));
        logs.into_iter().for_each(|logs| self.output.take_over(order.app, logs));
        self.output.insert(order.worker, output);
        self.introduce(order.app);
        for (stream, (token, _)) in [Stream::Out, Stream::Err].into_iter().zip(watched) {
            self.output.set_token(order.worker, stream, token);
        }
    }
}

pub(super) fn c_string(text: &OsStr) -> Result<CString, SpawnFailure> {
    CString::new(text.as_bytes()).map_err(|_| {
        let message = format!("{}: a NUL byte cannot be passed to a program", text.display());
        permanent("prepare".to_owned(), libc::EINVAL, message)
    })
}

pub(super) fn permanent(step: String, errno: i32, message: String) -> SpawnFailure {
    SpawnFailure { step, errno, message, transient: false }
}

pub(super) fn transient(step: String, errno: i32, message: String) -> SpawnFailure {
    SpawnFailure { step, errno, message, transient: true }
}

/// The host had no process, memory or descriptor to give: it passes, and the app is not to blame.
pub(super) fn host_failure(step: &str, error: &io::Error) -> SpawnFailure {
    let errno = error.raw_os_error().unwrap_or(0);
    let message = format!("{step}: {}{}", errno_text(errno), hint(errno));
    SpawnFailure { step: step.to_owned(), errno, message, transient: is_transient(errno) }
}

/// Which limit it is that was met.
fn hint(errno: i32) -> &'static str {
    match errno {
        libc::EAGAIN => " (limit of processes: RLIMIT_NPROC, or pids.max of the cgroup)",
        libc::EMFILE => " (limit of open files: RLIMIT_NOFILE of the supervisor)",
        _ => "",
    }
}

/// The kernel had no room for one more watched descriptor: it passes, too.
fn watch_failure(error: &io::Error) -> SpawnFailure {
    let errno = error.raw_os_error().unwrap_or(0);
    let hint = if errno == libc::ENOSPC { " (limit of watches: fs.epoll.max_user_watches)" } else { "" };
    SpawnFailure {
        step: "epoll".to_owned(),
        errno,
        message: format!("cannot watch its descriptors: {}{hint}", errno_text(errno)),
        transient: true,
    }
}

pub(super) fn is_transient(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
}

pub(super) fn listen_failure(address: Address, error: &io::Error) -> SpawnFailure {
    let errno = error.raw_os_error().unwrap_or(0);
    let advice = match errno {
        libc::EACCES => "; ports below 1024 need the right to bind them",
        libc::EADDRNOTAVAIL => "; no interface of this host has that address: tried again as soon as one has",
        libc::EADDRINUSE => "; another program holds it",
        _ => "",
    };
    SpawnFailure {
        step: format!("listen on {address}"),
        errno,
        message: format!("cannot listen on {address}: {}{advice}", errno_text(errno)),
        // At boot addresses come when they come.
        transient: is_transient(errno) || errno == libc::EADDRNOTAVAIL,
    }
}

fn missing_recipe(order: &Order) -> SpawnFailure {
    permanent("prepare".to_owned(), 0, format!("what generation {} runs is not known", order.generation.0))
}

pub(super) fn launch_failure(error: launch::LaunchError) -> SpawnFailure {
    let message = error.to_string();
    SpawnFailure { step: error.step, errno: error.errno, message, transient: error.transient }
}

fn step_failure(process: &Process, failure: Failure) -> SpawnFailure {
    let process_settings = &process.recipe.spec.process;
    let Failure { step, item, errno } = failure;
    let text = errno_text(errno);
    let whom = settings::as_whom(process_settings);
    let (step, message) = match step {
        Step::Exec if errno == libc::E2BIG => {
            let variables = Variables::of(&process.recipe, None, None);
            let lengths = variables.map_or_else(|_| Vec::new(), |variables| variables.lengths());
            return launch_failure(launch::too_much(&process.command, &lengths));
        }
        Step::Exec => {
            let mut failure = launch_failure(launch::exec_failure(&process.command, errno));
            if errno == libc::EACCES {
                failure.message += &whom;
            }
            return SpawnFailure { transient: failure.transient || is_transient(errno), ..failure };
        }
        Step::Directory => {
            let cwd = process.command.cwd.display();
            (format!("chdir {cwd}"), format!("cannot enter cwd {cwd}{whom}: {text}"))
        }
        Step::Session => ("setsid".to_owned(), format!("setsid: {text}")),
        Step::Descriptors => {
            ("descriptors".to_owned(), format!("cannot hand over descriptors: {text}{}", hint(errno)))
        }
        Step::Limits => ("limits".to_owned(), format!("cannot set RLIMIT_NOFILE: {text}")),
        Step::Settings(setting) => return settings::failure(process_settings, setting, item, errno),
    };
    SpawnFailure { step, errno, message, transient: is_transient(errno) }
}
