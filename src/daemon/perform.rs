//! Orders of the core, carried out: one arm, one call. What comes of an order is a new event at the
//! back of the inbox; nothing here calls the core.

use std::io;
use std::os::fd::AsFd;

use crate::supervisor::event::{Action, AppId, Event, SignalKind, SocketId, Spread, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::clock::own_cpu_time;
use crate::sys::steer::Program;
use crate::sys::{listen, process};

use super::Daemon;
use super::start::Order;

impl Daemon {
    pub(super) fn perform(&mut self, action: Action, now: Time) {
        match action {
            Action::Spawn { worker, app, slot, instance, generation, spec, inherit } => {
                let recipe = self.catalog.recipe(spec).cloned();
                self.starts.push_back(Order { worker, app, slot, instance, generation, recipe, inherit });
            }
            Action::Signal { worker, signal } => self.signal(worker, signal),
            Action::Observe { worker, closing } => {
                self.stop_probe(worker);
                self.observe(worker, closing, now);
            }
            Action::Examine { worker, socket, position, active } => {
                self.examine(worker, socket, position, active, now);
            }
            Action::LetGo { worker } => self.let_go(worker),
            Action::Probe { worker, question, timeout, spot } => {
                self.begin_probe(worker, question, timeout, spot.as_ref(), now);
            }
            Action::Feel { worker } => self.feel(worker),
            Action::Inspect { worker } => self.inspect(worker),
            Action::Weigh { app, workers, how } => self.weigh(app, &workers, how),
            Action::Measure { app } => self.measure(app),
            Action::Gauge { app, sockets } => self.gauge(app, &sockets),
            Action::Steer { socket, active } => self.steer(socket, &active),
            Action::Shut { socket } => self.shut(socket),
            Action::Withdraw { socket } => self.withdraw(socket),
            Action::Admit { socket } => self.admit(socket),
            Action::Relay { socket } => self.relay(socket, now),
            Action::Close { socket } => self.close(socket),
            Action::Forget { spec } => self.catalog.forget(spec),
            Action::Reply { request, outcome } => self.settle(request, outcome),
            Action::Report { fact } => self.tell(&fact, now),
            Action::Exit { code } => self.exit = Some(code),
        }
    }

    fn signal(&mut self, worker: WorkerId, signal: SignalKind) {
        // Or a stop in the middle of hundreds of starts would begin them all, to end them.
        if self.drop_start(worker) {
            return;
        }
        // Once a turn: with a thousand children a look is dear, and a stop of all of them has as many signals.
        if self.looked_for_orphans.replace(self.now) != Some(self.now) {
            self.processes.adopt(&[], &self.probes.commands());
        }
        self.backlog.signal(worker, signal);
    }

    pub(super) fn send_order(&mut self, worker: WorkerId, signal: SignalKind) {
        self.end_vigil(worker);
        self.stop_probe(worker);
        let sent = match signal {
            SignalKind::Stop => self.processes.stop(worker),
            SignalKind::Kill => self.processes.kill(worker),
        };
        log::debug!("{}: signalled ({signal:?})", self.label(worker));
        if signal == SignalKind::Stop {
            self.inbox.push_back(Event::Told { worker });
        }
        if let Err(error) = sent.or_else(ended_already) {
            log::error!("{}: cannot be signalled: {error}", self.label(worker));
        }
    }

    /// Looks at each handed socket of the worker: does one of its processes wait on it?
    fn inspect(&mut self, worker: WorkerId) {
        let handed: Vec<(SocketId, u64)> =
            self.sockets.of(worker).filter(|(_, h)| h.handed).map(|(id, h)| (id, h.inode)).collect();
        let mut refused = None;
        for pid in self.processes.tree_of(worker) {
            for (socket, inode) in &handed {
                match process::waits_on(pid, *inode) {
                    Ok(true) => {
                        self.settle_flags(*inode);
                        self.inbox.push_back(Event::Accepting { worker, socket: *socket });
                    }
                    Ok(false) => {}
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => refused = Some(error),
                    // It ended meanwhile.
                    Err(_) => {}
                }
            }
        }
        if let Some(refused) = refused {
            let sockets: Vec<SocketId> = handed.into_iter().map(|(socket, _)| socket).collect();
            self.knock_at(worker, &sockets, &refused);
        }
    }

    /// How many wait in each of these queues. One that cannot be looked at counts as empty.
    fn gauge(&mut self, app: AppId, sockets: &[SocketId]) {
        let began = own_cpu_time();
        let depth = |id: &SocketId| (*id, self.sockets.fd(*id).and_then(|fd| listen::queue_length(fd).ok()));
        let depths = sockets.iter().map(depth).map(|(id, depth)| (id, depth.unwrap_or(0))).collect();
        let cost = own_cpu_time().saturating_sub(began);
        self.inbox.push_back(Event::Gauged { app, depths, cost });
    }

    pub(super) fn steer(&mut self, socket: SocketId, active: &Spread) {
        log::debug!("steer by socket {} to {:?}", socket.0, active.positions());
        let steered = self.steer_anew(socket, active);
        self.note_steered(socket, active, steered);
    }

    fn shut(&mut self, socket: SocketId) {
        let Some(held) = self.sockets.get(socket) else { return };
        if held.shared {
            return self.shut_shared(held.inode);
        }
        log::debug!("hide socket {}", socket.0);
        let (owner, hidden) = (held.owner, listen::hide(held.fd.as_fd()));
        self.tell_hidden(owner, hidden);
    }

    /// That a socket which is to go away could not be hidden: once for each app.
    pub(super) fn tell_hidden(&mut self, owner: WorkerId, hidden: io::Result<()>) {
        let Err(error) = hidden else { return };
        self.warn_once_of(owner, "hide", || {
            format!(
                "new connections cannot be kept from a socket of its app that goes away ({error}): a client \
                 that comes at that moment may be led to it and reset. Linux before 5.7, and a server that \
                 binds its socket to a network interface, take CAP_NET_RAW for it"
            )
        });
    }

    fn close(&mut self, socket: SocketId) {
        log::debug!("close socket {}", socket.0);
        self.forget_queue(socket);
        let address = self.sockets.get(socket).map(|held| held.address);
        self.unwatch_listener(socket);
        if let Some(inode) = self.sockets.close(socket) {
            self.end_shared(inode);
        }
        if let Some(address) = address {
            self.lead_on(address);
        }
    }
}

/// The program that spreads connections so.
pub(super) fn program(spread: &Spread) -> Program {
    match spread {
        Spread::Evenly(positions) => Program::evenly(positions),
        Spread::Share { percent, new, old } => Program::share(*percent, new, old),
        Spread::Seats(seats) => Program::by_client(seats),
    }
}

/// A process that ended between the decision and the signal needs none.
pub(super) fn ended_already(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}
