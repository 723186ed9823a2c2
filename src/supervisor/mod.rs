//! The supervisor: decides on plain data, with time as an argument, and never touches the kernel.
//!
//! Facts and wishes go in ([`event::Event`]), orders come out ([`event::Action`]). A [`Supervisor`] is
//! a plain value, so that a test can search all of its states. It refuses to read a clock, to know a
//! process id, and to keep an order that it gave back: whatever `handle` appends is to be carried out.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod address;
mod adjust;
pub mod announce;
mod app;
pub mod backoff;
pub mod balance;
mod canary;
mod changed;
mod cron;
pub mod drain;

pub mod event;
mod exam;
mod facts;
pub mod fold;
mod group;
pub mod headroom;
mod health;
mod leave;
mod normal;
pub mod order;
mod over;
mod overlooked;
mod planted;
pub mod policy;
mod reconcile;
mod renew;
mod restore;
mod rollout;
mod show;
pub mod silence;
mod slots;
mod spare;
pub mod speech;
mod spread;
mod tick;
pub mod time;
mod unkillable;
mod verdict;
pub mod view;
mod watch;
mod wish;
mod worker;

use std::time::Duration;

use address::Claim;
use app::{App, End, Turn};
use backoff::Jitter;
use event::{
    Action, Address, AppId, Command, Definition, Event, Fact, Failure, Generation, Kept, Outcome, Question,
    RequestId, SlotId, SocketId, Spot, Subject, WorkerId,
};
use facts::Made;
#[doc(hidden)]
pub use planted::Bug;
use planted::Planted;
use policy::SpecId;
use rollout::Room;
use time::Time;
use view::{AppView, Course, Status, View};
use worker::earlier;

/// How long after its last SIGKILL the supervisor still waits for trees that do not end (a process in
/// uninterruptible sleep cannot be killed).
const UNKILLABLE: Duration = Duration::from_secs(1);

/// Where [`Supervisor::normalized`] puts the present.
#[doc(hidden)]
pub const NORMAL_NOW: Time = Time::from_start(Duration::from_secs(3600));

/// All apps, and what is wanted of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Supervisor {
    apps: Vec<App>,
    ids: Ids,
    jitter: Jitter,
    life: Life,
    /// Until here everything that happened was told.
    heard: Time,
    planted: Planted,
}

/// A worker's place, for log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerRef {
    /// Of which app.
    pub app: AppId,
    /// In which slot.
    pub slot: SlotId,
    /// Its number within the app.
    pub instance: u32,
    /// Of which generation.
    pub generation: Generation,
}

/// A slot, for finding targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRef {
    /// Its id.
    pub slot: SlotId,
    /// Its number within the app.
    pub instance: u32,
    /// Its newest process, when there is one.
    pub worker: Option<WorkerId>,
}

/// One process, for checks.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who.
    pub worker: WorkerId,
    /// Where.
    pub slot: SlotId,
    /// Of which generation.
    pub generation: Generation,
    /// How far its life came.
    pub stage: Stage,
    /// Its start waits its turn.
    pub queued: bool,
    /// It was killed, and does not end.
    pub unkillable: bool,
    /// Ready for `min_healthy_time`.
    pub settled: bool,
    /// It serves, and is to be replaced.
    pub spent: bool,
    /// It was told to stop while it has an unfinished request of the supervisor's own.
    pub examined: bool,
    /// An answer of it is awaited, to this question.
    pub asked: Option<Question>,
    /// It was found not to be well.
    pub unwell: bool,
    /// It needs no good answer to a check, or has given one.
    pub trusted: bool,
    /// Bad answers in a row.
    pub bad_answers: u32,
}

/// How far a process came in its life; never goes back.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Exec was not confirmed.
    Ordered,
    /// Not ready.
    Running,
    /// Ready.
    Ready,
    /// Leaves by itself.
    Quitting,
    /// Out of the accept path; a look at it is awaited, or not.
    Draining,
    /// As before, and told to stop.
    Finishing,
    /// Told to stop.
    Stopping,
    /// Killed.
    Killed,
    /// Its first process is gone, others are not.
    Leftover,
    /// As before, and killed.
    Doomed,
}

/// The numbers that are given out, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Ids {
    worker: u64,
    slot: u32,
}

impl Ids {
    fn worker(&mut self) -> WorkerId {
        self.worker += 1;
        WorkerId(self.worker)
    }

    fn slot(&mut self) -> SlotId {
        self.slot += 1;
        SlotId(self.slot - 1)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Life {
    Running,
    /// Everything was told to stop.
    Ending {
        code: i32,
        requests: Vec<RequestId>,
        end: End,
    },
    /// Everything was killed.
    Killing {
        code: i32,
        requests: Vec<RequestId>,
        end: End,
        until: Time,
    },
    /// `Exit` was ordered.
    Over,
}

impl Supervisor {
    /// A supervisor without apps. The seed spreads the back-off; 0 spreads nothing.
    pub fn new(jitter_seed: u64) -> Supervisor {
        Supervisor {
            apps: Vec::new(),
            ids: Ids::default(),
            jitter: Jitter::new(jitter_seed),
            life: Life::Running,
            heard: Time::START,
            planted: Planted::default(),
        }
    }

    /// Takes one fact or wish, and appends what is to be done about it, in that order. What is due is judged when
    /// [`Event::Deadline`] says up to when everything was told. A fact about an unknown id changes nothing.
    pub fn handle(&mut self, event: Event, now: Time, out: &mut Vec<Action>) {
        if self.planted.has(Bug::JudgesUnheard) {
            self.heard = self.heard.max(now);
        }
        match event {
            Event::Command { request, command } => self.wish(request, command, now, out),
            Event::Deadline { heard } => self.heard = self.heard.max(heard),
            Event::Begun { worker } => self.begun(worker, now),
            Event::Dropped { workers } => {
                for index in 0..self.apps.len() {
                    if workers.iter().any(|worker| self.apps[index].find(*worker).is_some()) {
                        self.turn(index, now, out, |app, turn| app.dropped(&workers, turn));
                    }
                }
            }
            Event::AddressesChanged => {
                for index in 0..self.apps.len() {
                    self.turn_all(index, now, out, |app, _| app.retry());
                }
            }
            Event::Started { .. }
            | Event::SpawnFailed { .. }
            | Event::Opened { .. }
            | Event::Joined { .. }
            | Event::CannotLeave { .. }
            | Event::Unreachable { .. }
            | Event::Listening { .. }
            | Event::Accepting { .. }
            | Event::Said { .. }
            | Event::Exited { .. }
            | Event::Gone { .. }
            | Event::Observed { .. }
            | Event::Examining { .. }
            | Event::Probed { .. }
            | Event::Unasked { .. }
            | Event::Felt { .. }
            | Event::Abandoned { .. }
            | Event::ShutDown { .. }
            | Event::Measured { .. }
            | Event::Weighed { .. }
            | Event::Gauged { .. }
            | Event::Due { .. }
            | Event::Changed { .. }
            | Event::OutOfMemory { .. }
            | Event::Told { .. }
            | Event::Ended { .. }
            | Event::Relayed { .. } => self.fact(event, now, out),
        }
        for index in 0..self.apps.len() {
            if self.apps[index].deadline().is_some_and(|at| self.heard >= at) {
                self.turn(index, now, out, |_, _| {});
            }
        }
        self.drop_deleted(out);
        self.follow(now, out);
        self.live_on(now, out);
    }

    /// The next moment at which [`Event::Deadline`] is due: beyond what the last one said.
    pub fn next_deadline(&self) -> Option<Time> {
        let own = match &self.life {
            Life::Running | Life::Over => None,
            Life::Ending { end, .. } => Some(end.killed_by),
            Life::Killing { until, .. } => Some(*until),
        };
        self.apps.iter().fold(own, |next, app| earlier(next, app.deadline()))
    }

    /// All that people may want to know.
    pub fn view(&self, now: Time) -> View {
        let view = |app: &App| AppView { waits_for: self.waits_for(app.id), ..app.view(now) };
        View { apps: self.apps.iter().map(view).collect() }
    }

    /// Whether an app may have an address, as far as this supervisor's own apps go. `unheard` are sockets
    /// that the shell holds already and that no event has told of yet.
    pub fn claim(&self, app: AppId, address: Address, unheard: &[(AppId, Address)]) -> Claim {
        let told =
            self.apps.iter().flat_map(|app| app.sockets.iter().map(|(_, held)| (app.id, held.address)));
        let mut claim = Claim::Free;
        for (holder, held) in told.chain(unheard.iter().copied()) {
            if holder != app && held.overlaps(&address) {
                return Claim::Other(holder);
            }
            if holder == app && held == address {
                claim = Claim::Own;
            }
        }
        claim
    }

    /// Where a worker belongs.
    pub fn worker(&self, worker: WorkerId) -> Option<WorkerRef> {
        let app = &self.apps[self.index_of(worker)?];
        let (slot, place) = app.find(worker)?;
        let slot = &app.slots[slot];
        let generation = slot.workers[place].generation;
        Some(WorkerRef { app: app.id, slot: slot.id, instance: slot.instance, generation })
    }

    /// What one worker is doing; none where it is gone.
    pub fn status_of(&self, worker: WorkerId) -> Option<Status> {
        let app = &self.apps[self.index_of(worker)?];
        let (slot, place) = app.find(worker)?;
        Some(show::worker_status(&app.slots[slot].workers[place]))
    }

    /// Whether it is still looked for a worker's way of waiting on the sockets that it was handed.
    pub fn is_inspected(&self, worker: WorkerId) -> bool {
        let place =
            |app: &App| app.find(worker).map(|(slot, place)| app.slots[slot].workers[place].looked_at());
        self.apps.iter().find_map(place).flatten().is_some()
    }

    /// Where in its group's array a socket is, as far as the core has heard.
    pub fn position_of(&self, socket: SocketId) -> Option<u32> {
        self.apps.iter().find_map(|app| app.sockets.position_of(socket))
    }

    /// All apps in the order in which they were added: id, name, namespace.
    pub fn apps(&self) -> impl Iterator<Item = (AppId, &str, &str)> {
        self.apps.iter().map(|app| (app.id, app.name.as_str(), app.namespace.as_str()))
    }

    /// The app of this name in this namespace.
    pub fn app_of_name(&self, namespace: &str, name: &str) -> Option<AppId> {
        self.apps.iter().find(|app| app.name == name && app.namespace == namespace).map(|app| app.id)
    }

    /// An app's slots in the order of instance.
    pub fn slots(&self, app: AppId) -> impl Iterator<Item = SlotRef> {
        let slots = self.apps.iter().filter(move |other| other.id == app).flat_map(|app| &app.slots);
        slots.map(|slot| SlotRef {
            slot: slot.id,
            instance: slot.instance,
            worker: slot.workers.last().map(|worker| worker.id),
        })
    }

    /// What a generation that is in use runs.
    pub fn spec(&self, app: AppId, generation: Generation) -> Option<SpecId> {
        let app = self.apps.iter().find(|other| other.id == app)?;
        app.versions.iter().find(|version| version.generation == generation).map(|version| version.spec)
    }

    /// Makes one deliberate mistake from now on.
    #[doc(hidden)]
    pub fn plant(&mut self, bug: Bug) {
        self.planted = Planted::new(bug);
    }

    /// The requests that were not answered yet.
    #[doc(hidden)]
    pub fn pending(&self) -> Vec<RequestId> {
        let own = match &self.life {
            Life::Running | Life::Over => Vec::new(),
            Life::Ending { requests, .. } | Life::Killing { requests, .. } => requests.clone(),
        };
        own.into_iter().chain(self.apps.iter().flat_map(App::pending)).collect()
    }

    /// The mirror of each group.
    #[doc(hidden)]
    pub fn mirror(&self) -> Vec<(Address, Vec<SocketId>)> {
        let groups = |app: &App| {
            let own = app.sockets.addresses().filter(|at| !app.sockets.is_shared(*at));
            let groups = own.map(|at| (at, app.sockets.array(at).to_vec()));
            groups.collect::<Vec<_>>()
        };
        self.apps.iter().flat_map(groups).collect()
    }

    /// All processes, for checks.
    #[doc(hidden)]
    pub fn probe(&self) -> Vec<Probe> {
        let of_slot = |slot: &app::Slot| {
            let probe = |worker: &worker::Worker| Probe {
                worker: worker.id,
                slot: slot.id,
                generation: worker.generation,
                stage: worker.stage(),
                queued: worker.is_queued(),
                unkillable: worker.is_unkillable(),
                settled: worker.is_settled(),
                spent: worker.is_up() && worker.spent.is_some(),
                examined: worker.exam.deadline().is_some(),
                asked: worker.is_up().then(|| worker.watch.check.asked(worker.is_ready())).flatten(),
                unwell: worker.watch.unwell,
                trusted: worker.watch.check.is_trusted(),
                bad_answers: worker.watch.check.bad_answers(),
            };
            slot.workers.iter().map(probe).collect::<Vec<_>>()
        };
        self.apps.iter().flat_map(|app| &app.slots).flat_map(of_slot).collect()
    }

    /// The version of this app that a failed reload goes back to, for checks.
    #[doc(hidden)]
    pub fn good(&self, app: AppId) -> Option<Generation> {
        self.apps.iter().find(|other| other.id == app).map(|app| app.good)
    }

    /// Whether a reload of this app is under way, for checks.
    #[doc(hidden)]
    pub fn reloads(&self, app: AppId) -> bool {
        self.apps.iter().any(|other| other.id == app && other.rollout.is_some())
    }

    /// What this app is on its way to.
    pub fn course(&self, app: AppId) -> Option<Course> {
        self.apps.iter().find(|other| other.id == app).map(App::course)
    }

    /// Whether workers of this app are being replaced.
    pub fn replaces(&self, app: AppId) -> bool {
        let replaces = |app: &App| app.rollout.is_some() || app.renewing.is_some();
        self.apps.iter().any(|other| other.id == app && replaces(other))
    }

    /// The apps of which a reload, or a worker's replacement, awaits an answer to `Action::Measure`.
    #[doc(hidden)]
    pub fn measuring(&self) -> Vec<AppId> {
        let awaits = |app: &&App| {
            let asked = app.renewing.is_some_and(|renewing| renewing.way == renew::Way::Asked);
            asked || app.rollout.as_ref().is_some_and(|rollout| rollout.room == Room::Unknown)
        };
        self.apps.iter().filter(awaits).map(|app| app.id).collect()
    }

    /// The apps whose look at their queues awaits an answer, and the sockets that new connections may go to.
    #[doc(hidden)]
    pub fn gauging(&self) -> Vec<(AppId, Vec<SocketId>)> {
        let awaits = |app: &&App| matches!(app.gauging, balance::Gauging::Awaited { .. });
        self.apps.iter().filter(awaits).map(|app| (app.id, app.sockets.in_use(&app.standings()))).collect()
    }

    /// Where a connection of our own reaches this socket of a worker, and no other; none where that cannot be.
    pub fn spot(&self, worker: WorkerId, socket: SocketId) -> Option<Spot> {
        self.apps.iter().find_map(|app| app.sockets.spot_of(worker, socket))
    }

    /// The generation of an app that was last seen to finish its requests by itself, for checks.
    #[doc(hidden)]
    pub fn finishes(&self, app: AppId) -> Option<Generation> {
        let found = self.apps.iter().find(|other| other.id == app)?;
        if let exam::Handling::Finishes(generation) = found.handling { Some(generation) } else { None }
    }

    /// All held sockets, for checks: whose, and whether its queue is being handed on.
    #[doc(hidden)]
    pub fn held(&self) -> Vec<(SocketId, Option<WorkerId>, bool)> {
        let sockets = self.apps.iter().flat_map(|app| app.sockets.iter());
        sockets.map(|(id, socket)| (id, socket.worker(), socket.is_relaying())).collect()
    }

    /// The held parts of shared sockets, for checks: whether their holder takes no more from the queue.
    #[doc(hidden)]
    pub fn shares(&self) -> Vec<(SocketId, bool)> {
        let sockets = self.apps.iter().flat_map(|app| app.sockets.iter());
        let shared = sockets.filter(|(_, socket)| socket.is_shared());
        shared.map(|(id, socket)| (id, socket.queue == group::Queue::Left)).collect()
    }

    /// The sockets that no packet finds, for checks.
    #[doc(hidden)]
    pub fn hidden(&self) -> Vec<SocketId> {
        let sockets = self.apps.iter().flat_map(|app| app.sockets.iter());
        sockets.filter(|(_, socket)| socket.is_hidden()).map(|(id, _)| id).collect()
    }

    /// What was last ordered for each group, for checks.
    #[doc(hidden)]
    pub fn steering(&self) -> Vec<(Address, Vec<u32>)> {
        let orders = self.apps.iter().flat_map(|app| app.sockets.orders());
        orders.map(|(address, spread)| (address, spread.positions())).collect()
    }

    /// The same state with the smallest names and times, and without what is only told and never
    /// decided by; `now` is at [`NORMAL_NOW`] in it. Two supervisors with equal results behave alike
    /// for ever.
    #[doc(hidden)]
    pub fn normalized(&self, now: Time) -> Supervisor {
        normal::normalized(self, now)
    }

    // Facts.

    fn index_of(&self, worker: WorkerId) -> Option<usize> {
        self.apps.iter().position(|app| app.find(worker).is_some())
    }

    /// The app that a fact is about.
    fn about(&self, fact: &Event) -> Option<usize> {
        match fact.subject() {
            Subject::Worker(worker) => self.index_of(worker),
            Subject::Socket(socket) => self.apps.iter().position(|app| app.sockets.get(socket).is_some()),
            Subject::App(app) => self.apps.iter().position(|other| other.id == app),
            Subject::All => None,
        }
    }

    fn fact(&mut self, fact: Event, now: Time, out: &mut Vec<Action>) {
        let Some(index) = self.about(&fact) else {
            // The shell holds a socket for a worker that is gone: nobody will ever use it.
            if let Event::Opened { socket, .. }
            | Event::Joined { socket, .. }
            | Event::Listening { socket, .. } = fact
            {
                out.push(Action::Close { socket });
            }
            return;
        };
        let unsteered = self.planted.has(Bug::ExitKeepsSteering) && matches!(fact, Event::Exited { .. });
        self.turn(index, now, out, |app, turn| {
            turn.unsteered = unsteered;
            app.touch(&fact, turn);
            match fact {
                Event::Started { worker } => app.started(worker, turn),
                Event::SpawnFailed { worker, failure } => app.spawn_failed(worker, failure, turn),
                Event::Opened { worker, socket, address } => {
                    app.listening(worker, socket, address, Made::ByShell);
                }
                Event::Joined { worker, socket, address, of_host } => {
                    let made = if of_host { Made::ByHost } else { Made::Shared };
                    app.listening(worker, socket, address, made);
                }
                Event::Listening { worker, socket, address } => {
                    app.listening(worker, socket, address, Made::ByWorker);
                }
                Event::Unreachable { socket } => app.unreachable(socket, turn),
                Event::CannotLeave { worker, handles } => app.cannot_leave(worker, handles, turn),
                Event::Accepting { worker, socket } => app.accepting(worker, socket),
                Event::Said { worker, word } => app.said(worker, word, turn),
                Event::Exited { worker, status, left } => app.exited(worker, status, left, turn),
                Event::Gone { worker } => app.gone(worker),
                Event::Observed { worker, traffic } => app.observed(worker, traffic, turn),
                Event::Examining { worker, holds } => app.examining(worker, holds, turn),
                Event::Weighed { weights, how, .. } => app.weighed(&weights, how, turn),
                Event::OutOfMemory { worker } => app.out_of_memory(worker),
                Event::Told { worker } => app.told(worker, turn),
                Event::Ended { worker, at } => app.seen_to_end(worker, at),
                Event::Probed { worker, question, passed } => app.probed(worker, question, passed, turn),
                Event::Unasked { worker, question } => app.unasked(worker, question, turn),
                Event::Due { .. } => app.come_due(turn),
                Event::Changed { .. } => app.files_changed(turn),
                Event::Felt { worker, pulse } => app.felt(worker, pulse, turn),
                Event::Relayed { socket } => app.relayed(socket, turn),
                Event::Abandoned { socket } => app.abandoned(socket, turn),
                Event::ShutDown { socket, again } => app.shut_down(socket, again, turn),
                Event::Measured { headroom, .. } => app.measured(&headroom, turn),
                Event::Gauged { depths, cost, .. } => app.gauged(&depths, cost, turn),
                Event::Command { .. }
                | Event::Deadline { .. }
                | Event::AddressesChanged
                | Event::Begun { .. }
                | Event::Dropped { .. } => {}
            }
        });
    }

    /// A worker's clocks begin to run, of which no step follows.
    fn begun(&mut self, worker: WorkerId, now: Time) {
        if let Some(index) = self.index_of(worker) {
            self.apps[index].begun(worker, now, &mut self.jitter);
            self.apps[index].end_turn(self.planted);
        }
    }

    /// Lets one app take a fact or a wish, then every step that follows.
    fn turn(
        &mut self,
        index: usize,
        now: Time,
        out: &mut Vec<Action>,
        take: impl FnOnce(&mut App, &mut Turn<'_>),
    ) {
        let end = match &self.life {
            Life::Running | Life::Over => None,
            Life::Ending { end, .. } => Some(order::part(&self.apps, index, *end)),
            Life::Killing { end, .. } => Some(*end),
        };
        let held = order::is_held(&self.apps, index) && !self.planted.has(Bug::StopsUnordered);
        let Supervisor { apps, ids, jitter, planted, heard, .. } = self;
        let mut turn = Turn {
            now,
            heard: *heard,
            out,
            jitter,
            ids,
            end,
            planted: *planted,
            changed: false,
            left: false,
            unsteered: false,
            held,
        };
        let app = &mut apps[index];
        app.look_around(&turn);
        take(app, &mut turn);
        app.settle(&mut turn);
    }

    /// The same, where every slot of the app may be meant.
    fn turn_all(
        &mut self,
        index: usize,
        now: Time,
        out: &mut Vec<Action>,
        take: impl FnOnce(&mut App, &mut Turn<'_>),
    ) {
        self.turn(index, now, out, |app, turn| {
            app.slots.touch_all();
            take(app, turn);
        });
    }

    // Wishes.

    fn wish(&mut self, request: RequestId, command: Command, now: Time, out: &mut Vec<Action>) {
        match command {
            Command::Shutdown { within, code } => return self.shut_down(request, within, code, now, out),
            Command::ShutdownNow { code } => return self.shut_down_now(request, code, now, out),
            Command::Add { app, definition } if self.life == Life::Running => {
                return self.add(request, app, (definition, None), now, out);
            }
            Command::Restore { app, definition, kept } if self.life == Life::Running => {
                return self.add(request, app, (definition, Some(kept)), now, out);
            }
            Command::Add { .. }
            | Command::Restore { .. }
            | Command::Start { .. }
            | Command::Restart { .. }
            | Command::Reload { .. }
            | Command::Define { .. }
            | Command::Adjust { .. }
            | Command::Stop { .. }
            | Command::Delete { .. }
            | Command::Scale { .. }
            | Command::Reset { .. }
            | Command::Promote { .. }
            | Command::Rollback { .. } => {}
        }
        let index = target(&command).and_then(|app| self.apps.iter().position(|other| other.id == app));
        let refused = match index {
            _ if self.life != Life::Running => Some(Failure::Superseded),
            None => Some(Failure::Unknown),
            Some(index) if self.apps[index].doomed && !matches!(command, Command::Delete { .. }) => {
                Some(Failure::BeingDeleted)
            }
            Some(index) => self.hopeless(index, &command),
        };
        if let Some(failure) = refused {
            return self.refuse(request, &command, failure, out);
        }
        let Some(index) = index else { return };
        self.apps[index].rename(&command);
        let restarts = matches!(command, Command::Restart { .. });
        self.turn_all(index, now, out, |app, turn| match command {
            Command::Start { scope, definition, .. } => app.start(request, scope, definition, turn),
            Command::Restart { scope, definition, .. } => app.restart(request, scope, definition, turn),
            Command::Reload { definition, .. } => app.reload(request, definition, turn),
            Command::Define { definition, .. } => app.define(request, definition, turn),
            Command::Adjust { definition, known, .. } => app.adjust(request, definition, known, turn),
            Command::Stop { scope, .. } => app.halt(request, scope, turn),
            Command::Delete { scope, .. } => app.delete(request, scope, turn),
            Command::Scale { scale, .. } => app.scale(request, scale, turn),
            Command::Reset { scope, .. } => app.reset(request, scope, turn),
            Command::Promote { .. } => app.go_on_with_canary(request, turn),
            Command::Rollback { .. } => app.roll_back(request, turn),
            Command::Add { .. }
            | Command::Restore { .. }
            | Command::Shutdown { .. }
            | Command::ShutdownNow { .. } => {}
        });
        if restarts && !self.planted.has(Bug::StartsUnordered) {
            self.line_up_behind(index);
        }
    }

    fn add(
        &mut self,
        request: RequestId,
        app: AppId,
        (definition, kept): (Definition, Option<Kept>),
        now: Time,
        out: &mut Vec<Action>,
    ) {
        if self.apps.iter().any(|other| other.id == app) {
            let command = Command::Add { app, definition };
            return self.refuse(request, &command, Failure::Unknown, out);
        }
        self.apps.push(App::new(app, definition));
        self.turn_all(self.apps.len() - 1, now, out, |app, turn| match kept {
            Some(kept) => app.restore(request, &kept, turn),
            None => app.begin(request, turn),
        });
    }

    /// Answers a wish that cannot be taken, and lets go of what came with it.
    fn refuse(&self, request: RequestId, command: &Command, failure: Failure, out: &mut Vec<Action>) {
        out.push(Action::Reply { request, outcome: Outcome::Failed(failure) });
        if let Some(definition) = command.definition()
            && !self.apps.iter().any(|app| app.uses(definition.spec))
        {
            out.push(Action::Forget { spec: definition.spec });
        }
    }

    fn drop_deleted(&mut self, out: &mut Vec<Action>) {
        let gone: Vec<App> =
            self.apps.extract_if(.., |app| app.doomed && app.slots.population() == 0).collect();
        for mut app in gone {
            app.sockets.close_all(out);
            for version in &app.versions {
                out.push(Action::Forget { spec: version.spec });
            }
            for request in &app.requests {
                out.push(Action::Reply { request: request.id, outcome: Outcome::Done });
            }
            out.push(Action::Report { fact: Fact::Deleted { app: app.id } });
        }
    }

    // The end.

    fn shut_down(
        &mut self,
        request: RequestId,
        within: Duration,
        code: i32,
        now: Time,
        out: &mut Vec<Action>,
    ) {
        match &mut self.life {
            Life::Running => {
                let end = End { within, began: now, killed_by: now + within };
                self.life = Life::Ending { code, requests: vec![request], end };
                for index in self.last_first() {
                    self.turn_all(index, now, out, App::end);
                }
            }
            Life::Ending { requests, .. } | Life::Killing { requests, .. } => requests.push(request),
            Life::Over => out.push(Action::Reply { request, outcome: Outcome::Done }),
        }
    }

    fn shut_down_now(&mut self, request: RequestId, code: i32, now: Time, out: &mut Vec<Action>) {
        self.shut_down(request, Duration::ZERO, code, now, out);
        if let Life::Ending { code: last, end, .. } = &mut self.life {
            *last = code;
            end.killed_by = now;
        }
    }

    /// Takes the end further: the kill when its time has come, the exit when nothing lives.
    fn live_on(&mut self, now: Time, out: &mut Vec<Action>) {
        if let Life::Ending { code, requests, end } = &self.life
            && self.heard >= end.killed_by
        {
            self.life =
                Life::Killing { code: *code, requests: requests.clone(), end: *end, until: now + UNKILLABLE };
            for index in (0..self.apps.len()).rev() {
                self.turn_all(index, now, out, App::kill_all);
            }
        }
        let alive = self.apps.iter().any(|app| app.slots.population() > 0);
        let over = match &self.life {
            Life::Running | Life::Over => false,
            Life::Ending { .. } => !alive,
            Life::Killing { until, .. } => !alive || self.heard >= *until,
        };
        if over {
            self.exit(out);
        }
    }

    fn exit(&mut self, out: &mut Vec<Action>) {
        let life = std::mem::replace(&mut self.life, Life::Over);
        let (Life::Ending { code, requests, .. } | Life::Killing { code, requests, .. }) = life else {
            return;
        };
        for app in std::mem::take(&mut self.apps) {
            for request in app.requests {
                let outcome = Outcome::Failed(Failure::Superseded);
                out.push(Action::Reply { request: request.id, outcome });
            }
        }
        for request in requests {
            out.push(Action::Reply { request, outcome: Outcome::Done });
        }
        out.push(Action::Exit { code });
    }
}

fn target(command: &Command) -> Option<AppId> {
    match command {
        Command::Add { app, .. }
        | Command::Restore { app, .. }
        | Command::Start { app, .. }
        | Command::Restart { app, .. }
        | Command::Reload { app, .. }
        | Command::Define { app, .. }
        | Command::Adjust { app, .. }
        | Command::Stop { app, .. }
        | Command::Delete { app, .. }
        | Command::Scale { app, .. }
        | Command::Reset { app, .. }
        | Command::Promote { app }
        | Command::Rollback { app } => Some(*app),
        Command::Shutdown { .. } | Command::ShutdownNow { .. } => None,
    }
}

#[cfg(test)]
mod tests;
