//! Looks at a leaving worker's traffic, and ends each connection at its own quiet moment. When a
//! connection is finished is decided in [`crate::supervisor::drain`].

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::supervisor::drain::{DrainWatch, Look, Sample};
use crate::supervisor::event::{Address, Closing, Event, Traffic, WorkerId};
use crate::supervisor::silence::{self, SilenceWatch};
use crate::supervisor::speech::{LOOKED_AT, Speech};
use crate::supervisor::time::Time;
use crate::sys::clock::{Clock, own_cpu_time};
use crate::sys::connections::{self, Connection, Moved, State};
use crate::sys::process::OpenSocket;
use crate::sys::unix_diag::UnixSocket;
use crate::sys::{intercept, listen, process, unix_listener};

use super::Daemon;
use super::known::Known;
use super::sockets::Held;

/// How long a handshake that was begun before the worker left is waited for. Its last packet is one
/// round trip away; what takes longer is a flood or a dead client.
pub(super) const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(3);

/// How long a closer look lasts, and how many connections it can follow. The pause after a look is ten
/// times what it cost, so a leaving worker costs a tenth of a CPU at most.
const CLOSER_LOOK: Duration = Duration::from_micros(500);
const CLOSER_LOOK_CONNECTIONS: usize = 64;

/// Between two closer looks, of whichever workers.
const CLOSER_LOOK_PAUSE: Duration = Duration::from_millis(1);

/// After a stretch of close looks comes a rest of so many times its length.
const REST: u32 = 4;

/// What is remembered about a leaving worker from look to look.
#[derive(Debug)]
pub(super) struct Leaving {
    watch: DrainWatch,
    since: Time,
    known: Known,
    /// Handshakes under way when it left the accept path, by cookie.
    handshakes: Option<HashSet<u64>>,
    /// Its connections at the last look, as far as they may be ended between two requests.
    open: Vec<(u64, OpenSocket)>,
    /// Those that hear nothing of their clients.
    deaf: HashMap<u64, OpenSocket>,
    /// Those whose client's next words are kept until they were looked at.
    kept: HashMap<u64, OpenSocket>,
    vigil: Vigil,
    silence: SilenceWatch,
}

/// The accept queues of a worker.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// How many wait in them.
    pub(super) queued: u32,
    /// Ports of TCP.
    pub(super) ports: Vec<u16>,
    /// What Unix sockets are bound to.
    pub(super) names: Vec<String>,
}

/// What has not been read of a Unix socket: of one that listens, how many wait in its queue.
fn unread_of(all: &[UnixSocket], inode: u64) -> u32 {
    all.iter().find(|socket| socket.inode == inode).map_or(0, |socket| socket.unread)
}

/// The connections that were accepted under these names, of those that are open.
fn of_names(all: &[UnixSocket], names: &[String], open: &HashMap<u64, OpenSocket>) -> Vec<silence::Sample> {
    let mine = |socket: &&UnixSocket| {
        !socket.listens && names.contains(&socket.name) && open.contains_key(&socket.inode)
    };
    let sample = |s: &UnixSocket| silence::Sample { id: s.inode, unread: s.unread, unsent: s.unsent };
    all.iter().filter(mine).map(sample).collect()
}

/// Close looks at a leaving worker's connections while one of them is expected between two requests.
#[derive(Debug)]
enum Vigil {
    /// Not before this.
    Resting { until: Time },
    /// Slice by slice, so that the loop is there for all others meanwhile.
    Watching { began: Time, until: Time, held: Vec<(u64, OwnedFd)> },
}

impl Daemon {
    /// One look: answered by `Observed`.
    pub(super) fn observe(&mut self, worker: WorkerId, closing: Closing, now: Time) {
        let began = own_cpu_time();
        // Also what left its parent while that lived: nothing else tells that it is ours now.
        self.processes.adopt(&[], &self.probes.commands());
        let traffic = match self.look(worker, closing, now) {
            Ok(traffic) => traffic,
            Err(error) => {
                // Nobody's words are kept while nothing is seen.
                if let Some(leaving) = self.leaving.get_mut(&worker) {
                    leaving.let_go();
                }
                self.look_from_afar(worker, now, &error)
            }
        };
        let cost = own_cpu_time().saturating_sub(began);
        log::trace!("{}: {} queued, {} busy", self.label(worker), traffic.queued, traffic.busy);
        self.inbox.push_back(Event::Observed { worker, traffic: Traffic { cost, ..traffic } });
    }

    fn look(&mut self, worker: WorkerId, closing: Closing, now: Time) -> io::Result<Traffic> {
        // First the queues, then the descriptors, then the connections: one that is accepted meanwhile
        // is seen later in that order, never missed.
        let Queues { mut queued, ports, names } = self.queues_of(worker)?;
        let Some(process) = self.processes.get(worker) else { return Ok(Traffic::default()) };
        let drain_idle = process.recipe.spec.drain_idle;
        let open = self.open_sockets(worker)?;
        let over_unix = of_names(&self.unix_sockets(worker)?, &names, &open);
        let own = self.exams.client_of(worker);
        let diagnostics =
            self.diagnostics.as_mut().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let leaving = self.leaving.entry(worker).or_insert_with(|| Leaving {
            watch: DrainWatch::new(drain_idle),
            since: now,
            known: Known::default(),
            handshakes: None,
            open: Vec::new(),
            deaf: HashMap::new(),
            kept: HashMap::new(),
            vigil: Vigil::Resting { until: now },
            silence: SilenceWatch::new(drain_idle),
        });
        let all = leaving.known.look(diagnostics, &ports, &open, leaving.awaits_handshakes(now))?;
        queued += leaving.handshakes_left(&all, now);
        let mine: Vec<&Connection> = all
            .iter()
            .filter(|c| c.inode != 0 && open.contains_key(&c.inode))
            .filter(|c| matches!(c.state, State::Established | State::CloseWait))
            .filter(|c| own.is_none_or(|own| !c.is_from(own)))
            .collect();
        let samples: Vec<Sample> = mine.iter().map(|c| sample(c)).collect();
        leaving.hear_kept();
        let mut look = leaving.watch.look(&samples, closing, now);
        look.busy += leaving.carry_out(&look, &mine, &open);
        look.busy += leaving.end_silent(&over_unix, &open, closing, now);
        let promising = closing != Closing::WhenIdle
            && leaving.watch.wants_closer_look()
            && mine.len() <= CLOSER_LOOK_CONNECTIONS;
        // However many workers leave at once, the loop is there for the others most of the time.
        if promising
            && Time::from_start(self.clock.since_start()).since(self.looked_closer) >= CLOSER_LOOK_PAUSE
        {
            look.busy -= leaving.look_closer(&mine, &open, self.clock).min(look.busy);
            self.looked_closer = Time::from_start(self.clock.since_start());
        }
        leaving.open.clear();
        if closing != Closing::WhenIdle && mine.len() <= CLOSER_LOOK_CONNECTIONS {
            leaving.open.extend(mine.iter().filter_map(|c| Some((c.cookie, *open.get(&c.inode)?))));
        }
        let ended = leaving.watch.ended();
        Ok(Traffic { queued, busy: look.busy, promising, ended, ..Traffic::default() })
    }

    /// All sockets that the worker's processes have open.
    fn open_sockets(&self, worker: WorkerId) -> io::Result<HashMap<u64, OpenSocket>> {
        let mut open: HashMap<u64, OpenSocket> = HashMap::new();
        for pid in self.processes.tree_of(worker) {
            match process::sockets(pid) {
                Ok(sockets) => open.extend(sockets.into_iter().map(|s| (s.inode, s))),
                // It ended meanwhile; its connections did with it.
                Err(error) if process::is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(open)
    }

    /// When close looks are due next.
    pub(super) fn next_vigil(&self) -> Option<Time> {
        let now = Time::from_start(self.clock.since_start());
        self.leaving.values().filter_map(|leaving| leaving.next_vigil(now)).min()
    }

    /// A slice of close looks at each worker that they are due at.
    pub(super) fn keep_vigils(&mut self) {
        for leaving in self.leaving.values_mut() {
            leaving.keep_vigil(self.clock);
        }
    }

    /// The worker got its signal: what becomes of its connections is its own matter.
    pub(super) fn end_vigil(&mut self, worker: WorkerId) {
        if let Some(leaving) = self.leaving.get_mut(&worker) {
            leaving.open.clear();
            for (_, socket) in leaving.deaf.drain() {
                let hears = duplicate(&socket);
                if let Err(error) = hears.and_then(|c| c.map_or(Ok(()), |c| connections::deafen(&c, false))) {
                    log::debug!("a connection that is to hear again: {error}");
                }
            }
            leaving.watch.hear_all();
            leaving.let_go();
            leaving.vigil = Vigil::Resting { until: leaving.since };
        }
    }

    /// All Unix sockets of the host, where the worker has a part of one.
    pub(super) fn unix_sockets(&mut self, worker: WorkerId) -> io::Result<Vec<UnixSocket>> {
        if !self.sockets.of(worker).any(|(_, held)| matches!(held.address, Address::Unix(_))) {
            return Ok(Vec::new());
        }
        let diagnostics = self.diagnostics.as_mut();
        diagnostics.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?.dump_unix()
    }

    /// How many wait in the worker's accept queues, and what those are bound to. Who waits in a shared one
    /// waits for all, unless nobody else comes to it.
    pub(super) fn queues_of(&mut self, worker: WorkerId) -> io::Result<Queues> {
        let unix = self.unix_sockets(worker)?;
        let mut queues = Queues::default();
        let mut withdrawn = Vec::new();
        for (id, held) in self.sockets.of(worker) {
            let port = held.address.port();
            queues.ports.extend(port.filter(|port| !queues.ports.contains(port)));
            if port.is_none() {
                queues.names.extend(unix_listener::local_name(held.fd.as_fd()));
            }
            if held.withdrawn.as_ref().is_some_and(|withdrawal| !withdrawal.is_partial) {
                withdrawn.push(id);
                continue;
            }
            let length = match (held.shared, port) {
                (true, _) if self.shared.is_open(held.inode) => 0,
                (_, Some(_)) => listen::queue_length(held.fd.as_fd())?,
                (_, None) => unread_of(&unix, held.inode),
            };
            queues.queued += length;
        }
        for socket in withdrawn {
            queues.queued += u32::from(!self.has_left(worker, socket)?);
        }
        Ok(queues)
    }

    /// How many wait in all queues that the worker takes from. One that cannot be looked at counts as empty.
    pub(super) fn waiting_for(&mut self, worker: WorkerId) -> u32 {
        let unix = self.unix_sockets(worker).unwrap_or_default();
        let length = |held: &Held| match held.address {
            Address::Tcp { .. } => listen::queue_length(held.fd.as_fd()).unwrap_or(0),
            Address::Unix(_) => unread_of(&unix, held.inode),
        };
        self.sockets.of(worker).map(|(_, held)| length(held)).fold(0, u32::saturating_add)
    }

    /// Connections of the worker that are open now; none where the host does not show them.
    pub(super) fn connections_of(&mut self, worker: WorkerId) -> Option<u32> {
        let Queues { ports, names, .. } = self.queues_of(worker).ok()?;
        if self.diagnostics.is_some() && ports.is_empty() && names.is_empty() {
            return Some(0);
        }
        let unix = self.unix_sockets(worker).ok()?;
        let open = self.open_sockets(worker).ok()?;
        let diagnostics = self.diagnostics.as_mut()?;
        let of_names = |socket: &&UnixSocket| !socket.listens && names.contains(&socket.name);
        let mut count = unix.iter().filter(of_names).filter(|s| open.contains_key(&s.inode)).count();
        for port in ports {
            let all = diagnostics.dump(port, connections::CONNECTIONS).ok()?;
            count += all.iter().filter(|c| c.inode != 0 && open.contains_key(&c.inode)).count();
        }
        Some(count as u32)
    }
}

impl Leaving {
    fn next_vigil(&self, now: Time) -> Option<Time> {
        match &self.vigil {
            Vigil::Watching { .. } => Some(now),
            Vigil::Resting { .. } if self.open.is_empty() => None,
            Vigil::Resting { until } => self.watch.next_window(now.max(*until)).map(|window| window.from),
        }
    }

    fn keep_vigil(&mut self, clock: Clock) {
        let now = Time::from_start(clock.since_start());
        if let Vigil::Resting { until } = self.vigil
            && !self.open.is_empty()
            && let Some(window) = self.watch.next_window(until.max(now))
            && window.from <= now
        {
            let held = self.open.iter().filter_map(|(id, socket)| Some((*id, duplicate(socket).ok()??)));
            self.vigil = Vigil::Watching { began: now, until: window.until, held: held.collect() };
        }
        let Vigil::Watching { began, until, held } = &mut self.vigil else { return };
        glance_at_all(&mut self.watch, &mut self.deaf, held, clock);
        let now = Time::from_start(clock.since_start());
        if held.is_empty() {
            // All were met, or none could be followed.
            self.vigil = Vigil::Resting { until: now.max(*until) };
        } else if now >= *until {
            self.vigil = Vigil::Resting { until: now + (now - *began).saturating_mul(REST) };
        }
    }

    /// Does to each connection what the look led to. How many could not be ended although they are used.
    fn carry_out(&mut self, look: &Look, mine: &[&Connection], open: &HashMap<u64, OpenSocket>) -> u32 {
        let lists = [&look.close, &look.deafen, &look.hear, &look.overhear];
        if lists.iter().all(|list| list.is_empty()) {
            return 0;
        }
        let by_cookie: HashMap<u64, &Connection> = mine.iter().map(|c| (c.cookie, *c)).collect();
        for cookie in &look.overhear {
            if let Some(socket) = by_cookie.get(cookie).and_then(|c| open.get(&c.inode)) {
                self.keep(*cookie, socket);
            }
        }
        let held = |cookie: u64| -> io::Result<Option<OwnedFd>> {
            let found = by_cookie.get(&cookie).and_then(|c| open.get(&c.inode));
            found.map_or(Ok(None), duplicate)
        };
        for (cookies, deaf) in [(&look.hear, false), (&look.deafen, true)] {
            for cookie in cookies {
                let socket = by_cookie.get(cookie).and_then(|c| open.get(&c.inode));
                match held(*cookie).and_then(|c| c.map_or(Ok(()), |c| connections::deafen(&c, deaf))) {
                    Ok(()) if deaf => self.deaf.extend(socket.map(|socket| (*cookie, *socket))),
                    Ok(()) => drop(self.deaf.remove(cookie)),
                    Err(error) => {
                        log::debug!("what a connection hears: {error}");
                        self.watch.hears(*cookie);
                    }
                }
            }
        }
        let mut used = 0;
        for cookie in &look.close {
            let ended = held(*cookie).and_then(|c| c.map_or(Ok(()), |c| end(&mut self.deaf, *cookie, &c)));
            if let Err(error) = ended {
                log::debug!("a connection that is to end: {error}");
                let known = by_cookie.get(cookie).map(|c| sample(c));
                used += u32::from(known.is_some_and(|sample| self.watch.reopen(&sample)));
            }
        }
        used
    }

    /// Has what the client says next wait for a look. Where that cannot be, it passes for one that takes turns.
    fn keep(&mut self, cookie: u64, socket: &OpenSocket) {
        match duplicate(socket).and_then(|c| c.map_or(Ok(()), |c| connections::keep(&c, true))) {
            // What came meanwhile has woken its reader, who is not to meet a socket that keeps it.
            Ok(()) if self.hear(cookie, socket) => {}
            Ok(()) => drop(self.kept.insert(cookie, *socket)),
            Err(error) => {
                log::debug!("what a client says next cannot be kept: {error}");
                self.watch.heard(cookie, Speech::Turns);
            }
        }
    }

    /// Lets the worker have what was kept, after a look at it; false while there is nothing.
    fn hear(&mut self, cookie: u64, socket: &OpenSocket) -> bool {
        let mut words = [0; LOOKED_AT];
        let heard = duplicate(socket).and_then(|c| match c {
            Some(connection) => connections::peek(&connection, &mut words).map(Speech::of),
            None => Ok(None),
        });
        if heard.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return false;
        }
        let lowered = duplicate(socket).and_then(|c| c.map_or(Ok(()), |c| connections::keep(&c, false)));
        if let Err(error) = lowered {
            // Tried again at the next look, or its client would wait for the worker's end.
            log::debug!("words that are to be let go: {error}");
            return false;
        }
        // Too few to tell by are no request of HTTP/1 either.
        self.watch.heard(cookie, heard.ok().flatten().unwrap_or(Speech::Frames));
        true
    }

    /// Keeps nothing any more.
    fn let_go(&mut self) {
        for socket in self.kept.drain().map(|(_, socket)| socket) {
            let gone = duplicate(&socket).and_then(|c| c.map_or(Ok(()), |c| connections::keep(&c, false)));
            if let Err(error) = gone {
                log::debug!("words that are to be let go: {error}");
            }
        }
    }

    /// Looks at all that was kept.
    fn hear_kept(&mut self) {
        for (cookie, socket) in std::mem::take(&mut self.kept) {
            if !self.hear(cookie, &socket) {
                self.kept.insert(cookie, socket);
            }
        }
    }

    /// Ends connections over Unix sockets that nothing moves on, when it is late. How many are used.
    fn end_silent(
        &mut self,
        samples: &[silence::Sample],
        open: &HashMap<u64, OpenSocket>,
        closing: Closing,
        now: Time,
    ) -> u32 {
        let look = self.silence.look(samples, closing, now);
        let mut used = look.busy;
        for id in look.close {
            let held = open.get(&id).map_or(Ok(None), duplicate);
            let ended = held.and_then(|held| held.map_or(Ok(()), |held| connections::end(&held)));
            if let Err(error) = ended.or_else(|error| if is_over(&error) { Ok(()) } else { Err(error) }) {
                log::debug!("a connection that is to end: {error}");
                self.silence.reopen(id);
                used += 1;
            }
        }
        used
    }

    /// Looks again and again for a moment, at a thousand times the pace: between an answer and the next
    /// request of a client that asks at once lies a tenth of a millisecond. How many were ended.
    fn look_closer(&mut self, mine: &[&Connection], open: &HashMap<u64, OpenSocket>, clock: Clock) -> u32 {
        let mut held: Vec<(u64, OwnedFd)> =
            mine.iter().filter_map(|c| Some((c.cookie, duplicate(open.get(&c.inode)?).ok()??))).collect();
        glance_at_all(&mut self.watch, &mut self.deaf, &mut held, clock)
    }

    /// Whether there may be handshakes that [`Self::handshakes_left`] counts.
    fn awaits_handshakes(&self, now: Time) -> bool {
        let patient = now.since(self.since) <= HANDSHAKE_PATIENCE;
        self.handshakes.as_ref().is_none_or(|left| patient && !left.is_empty())
    }

    /// Handshakes that were under way at the first look and still are.
    fn handshakes_left(&mut self, all: &[Connection], now: Time) -> u32 {
        let current: HashSet<u64> =
            all.iter().filter(|c| c.state == State::SynReceived).map(|c| c.cookie).collect();
        let left = match self.handshakes.take() {
            None => current,
            Some(before) => before.intersection(&current).copied().collect(),
        };
        let count = if now.since(self.since) > HANDSHAKE_PATIENCE { 0 } else { left.len() as u32 };
        self.handshakes = Some(left);
        count
    }
}

/// Looks at each connection again and again for half a millisecond, and ends each at its moment. How many
/// were ended.
fn glance_at_all(
    watch: &mut DrainWatch,
    deaf: &mut HashMap<u64, OpenSocket>,
    held: &mut Vec<(u64, OwnedFd)>,
    clock: Clock,
) -> u32 {
    let began = clock.since_start();
    let mut ended = 0;
    loop {
        let now = clock.since_start();
        if held.is_empty() || now.saturating_sub(began) > CLOSER_LOOK {
            return ended;
        }
        held.retain(|(cookie, connection)| {
            let Ok(moved) = Moved::of(connection) else { return false };
            if !watch.glance(&sample_of(*cookie, &moved), Time::from_start(now)) {
                return true;
            }
            match end(deaf, *cookie, connection) {
                Ok(()) => ended += 1,
                Err(error) => {
                    log::debug!("end of a connection: {error}");
                    watch.reopen(&sample_of(*cookie, &moved));
                }
            }
            false
        });
    }
}

fn sample(connection: &Connection) -> Sample {
    sample_of(connection.cookie, &connection.moved)
}

fn sample_of(cookie: u64, moved: &Moved) -> Sample {
    Sample {
        id: cookie,
        established: true,
        unread: moved.unread,
        unsent: moved.unacknowledged,
        untransmitted: moved.untransmitted,
        bytes_received: moved.bytes_received,
        bytes_sent: moved.bytes_sent,
        segments_out: moved.segments_out,
        segments_in: moved.segments_in,
        last_acknowledged: moved.last_acknowledged,
        last_received: moved.last_received,
        last_sent: moved.last_sent,
    }
}

/// Ends a connection. One that was deaf must hear its client acknowledge the end.
fn end(deaf: &mut HashMap<u64, OpenSocket>, cookie: u64, connection: &OwnedFd) -> io::Result<()> {
    if deaf.remove(&cookie).is_some() {
        connections::deafen(connection, false)?;
    }
    connections::end(connection).or_else(|error| if is_over(&error) { Ok(()) } else { Err(error) })
}

/// The connection has ended by itself.
fn is_over(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected
}

/// A duplicate, after making sure that the number still means this socket.
fn duplicate(socket: &OpenSocket) -> io::Result<Option<OwnedFd>> {
    let duplicate = intercept::duplicate(process::open(socket.pid)?, socket.fd)?;
    Ok((listen::inode(duplicate.as_fd())? == socket.inode).then_some(duplicate))
}
