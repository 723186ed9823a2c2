//! The held sockets of one app: who is at which place of the kernel's SO_REUSEPORT array, who is
//! steered to, and what becomes of a socket whose worker is gone.
//!
//! The mirror follows `reuseport_add_sock` and `reuseport_detach_sock` of Linux: a socket is appended
//! when it begins to listen, and the last one moves into the hole of one that is closed, or that its worker
//! shut down: then the shell listens on it again. That is all that changes the array, because the supervisor
//! holds a duplicate of each socket.
//!
//! A hidden socket (shut, or relayed) stays where it is, and takes nobody else in: where all are hidden,
//! the next socket begins an array of its own (`inet_reuseport_add_sock`), and theirs is of no interest
//! any more.
//!
//! A shared socket (a Unix socket, or one that the supervisor was started with) is not steered: each worker
//! holds a part of it, all take from one queue, and who leaves stops taking. Its group is no array of the
//! kernel's, but the list of its parts.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Action, Address, SlotId, SocketId, Spot, Spread, WorkerId};
use super::exam::Place;
use super::policy::Door;
use super::spread;
use super::{Bug, Planted};

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// A worker whose first process lives.
    Worker(WorkerId),
    /// Its worker is gone.
    Orphan,
    /// Its worker is gone, and whoever waits in its queue is being handed on.
    Relaying,
}

/// Whose connections wait in a socket's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Queue {
    /// Its holder's alone.
    Own,
    /// Those of all who hold a part of it.
    Shared,
    /// The same, and its holder takes no more of them.
    Left,
}

/// One held socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Socket {
    pub(super) address: Address,
    pub(super) slot: SlotId,
    pub(super) holder: Holder,
    /// Opened by the shell and handed over, not made by the worker.
    pub(super) handed: bool,
    /// Its worker was seen taking connections from it, or said that it does.
    pub(super) accepts: bool,
    /// No new handshake reaches it.
    pub(super) shut: bool,
    pub(super) queue: Queue,
    /// Its clients come and wait whether or not a worker is there: it can be shut by nobody here.
    pub(super) of_host: bool,
}

impl Socket {
    /// The living worker that holds it.
    pub(super) fn worker(&self) -> Option<WorkerId> {
        match self.holder {
            Holder::Worker(worker) => Some(worker),
            Holder::Orphan | Holder::Relaying => None,
        }
    }

    /// Whoever waits in it is not its holder's alone: nobody is stranded when that is gone.
    pub(super) fn is_shared(&self) -> bool {
        self.queue != Queue::Own
    }

    pub(super) fn is_relaying(&self) -> bool {
        self.holder == Holder::Relaying
    }

    /// No packet finds it: the shell hides what is shut and what is relayed.
    pub(super) fn is_hidden(&self) -> bool {
        self.shut || self.is_relaying()
    }
}

/// What a socket's holder is to new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Ready, and not leaving.
    Serving,
    /// Ready, and not well: for want of others.
    Ailing,
    /// Alive, and not ready yet.
    Alive,
    /// On its way out.
    Leaving,
}

/// Who stands how; a worker that is missing is gone.
pub(super) type Standings = BTreeMap<WorkerId, Standing>;

/// How the sockets that serve share the new connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// So many percent for these workers.
    pub(super) share: Option<(u8, Vec<WorkerId>)>,
    /// Each client's address has its place among so many instances; none: by lot.
    pub(super) by_client: Option<u32>,
    /// The instance number of each slot.
    pub(super) instances: BTreeMap<SlotId, u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Group {
    array: Vec<SocketId>,
    ordered: Spread,
    moved: bool,
}

impl Group {
    /// Before a socket leaves: the last one is going to move into its place, so for that moment new
    /// connections go to others only. Where the last is the only one that serves, they stay.
    fn make_room(&mut self, leaving: SocketId, out: &mut Vec<Action>) {
        let Some((last, others)) = self.array.split_last() else { return };
        let last_place = u32::try_from(others.len()).unwrap_or(u32::MAX);
        if *last == leaving || !self.ordered.contains(last_place) {
            return;
        }
        if let Some(rest) = self.ordered.without(last_place) {
            out.push(Action::Steer { socket: *last, active: rest.clone() });
            self.ordered = rest;
        }
    }
}

/// All held sockets of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sockets {
    all: BTreeMap<SocketId, Socket>,
    groups: BTreeMap<Address, Group>,
    /// In whose queues too many wait.
    crowded: BTreeSet<SocketId>,
}

impl Sockets {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get(&self, id: SocketId) -> Option<&Socket> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.all.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &Socket)> {
        self.all.iter().map(|(id, socket)| (*id, socket))
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = Address> {
        self.groups.keys().copied()
    }

    /// The mirror of one group.
    pub(super) fn array(&self, address: Address) -> &[SocketId] {
        self.groups.get(&address).map_or(&[], |group| &group.array)
    }

    /// What was last ordered for each group.
    pub(super) fn orders(&self) -> impl Iterator<Item = (Address, Spread)> {
        self.groups.iter().map(|(address, group)| (*address, group.ordered.clone()))
    }

    /// A socket began to listen: last in its group, or the first of a new one.
    pub(super) fn append(&mut self, id: SocketId, socket: Socket) {
        let group = self.groups.entry(socket.address).or_default();
        if group.array.iter().all(|member| self.all.get(member).is_some_and(Socket::is_hidden)) {
            group.array.clear();
        }
        group.array.push(id);
        group.moved = true;
        self.all.insert(id, socket);
    }

    /// A worker shut a socket of its own down: the last of its group moved into its place, and it is last itself
    /// where it listens again.
    pub(super) fn shut_down(&mut self, id: SocketId, again: bool, planted: Planted) {
        let Some(socket) = self.all.get(&id).filter(|socket| !socket.is_shared()).cloned() else { return };
        if planted.has(Bug::ShutDownKeepsItsPlace) {
            return;
        }
        let group = self.groups.get_mut(&socket.address);
        let place = group.as_ref().and_then(|group| group.array.iter().position(|member| *member == id));
        if let (Some(group), Some(place)) = (group, place) {
            group.array.swap_remove(place);
            group.moved = true;
            if group.array.is_empty() && !again {
                self.groups.remove(&socket.address);
            }
        }
        // Where several were shut at once, it has left before and comes back now.
        if again {
            self.append(id, socket);
        }
    }

    /// Closes the held duplicate of one socket.
    pub(super) fn close(&mut self, id: SocketId, planted: Planted, out: &mut Vec<Action>) {
        let Some(socket) = self.all.remove(&id) else { return };
        self.crowded.remove(&id);
        let place = self.array(socket.address).iter().position(|member| *member == id);
        let (Some(place), Some(group)) = (place, self.groups.get_mut(&socket.address)) else {
            return out.push(Action::Close { socket: id });
        };
        group.make_room(id, out);
        out.push(Action::Close { socket: id });
        if planted.has(Bug::MirrorShifts) {
            group.array.remove(place);
        } else {
            group.array.swap_remove(place);
        }
        group.moved = true;
        if group.array.is_empty() {
            self.groups.remove(&socket.address);
        }
    }

    /// Closes all.
    pub(super) fn close_all(&mut self, out: &mut Vec<Action>) {
        out.extend(self.all.keys().map(|socket| Action::Close { socket: *socket }));
        *self = Sockets::default();
    }

    /// The sockets of one worker.
    pub(super) fn of(&self, worker: WorkerId) -> impl Iterator<Item = (SocketId, &Socket)> {
        self.iter().filter(move |(_, socket)| socket.holder == Holder::Worker(worker))
    }

    /// A socket from which a worker takes what has reached it, and its place among the others of its group.
    /// None where new connections go to it for want of another.
    pub(super) fn place_of(&self, worker: WorkerId) -> Option<Place> {
        let (id, socket) =
            self.of(worker).find(|(_, socket)| socket.accepts && !socket.shut && !socket.is_shared())?;
        let group = self.groups.get(&socket.address)?;
        let position = group.array.iter().position(|member| *member == id)?;
        let position = u32::try_from(position).ok()?;
        (!group.ordered.contains(position)).then(|| (id, position, group.ordered.clone()))
    }

    /// Where a connection of our own reaches a worker: by a socket that it is known to use, or else by one
    /// that it may. None where it has none of its own there that takes connections: of a queue that it shares
    /// nobody knows who takes what.
    ///
    /// What it declares goes first, also where it was not seen taking connections from it: not every way of doing so
    /// can be seen, and a port that it opened besides proves nothing of what its clients get.
    pub(super) fn probed_at(&self, worker: WorkerId, door: Door) -> Option<Spot> {
        let (first, exact) = match door {
            Door::Any(first) => (first, first),
            Door::Port(_) => (None, None),
            Door::At(address) => (None, Some(address)),
        };
        let rank = |(id, socket): &(SocketId, &Socket)| {
            let address = socket.address;
            let (silent, away) = (!socket.accepts, first.is_some_and(|first| !first.overlaps(&address)));
            (away, silent, exact != Some(address), address.port(), address, *id)
        };
        let asked = |(_, socket): &(SocketId, &Socket)| {
            !socket.shut && !socket.is_shared() && door.admits(&socket.address)
        };
        let (id, socket) = self.of(worker).filter(asked).min_by_key(rank)?;
        let group = self.groups.get(&socket.address)?;
        let position = group.array.iter().position(|member| *member == id)?;
        Some(Spot { socket: id, position: u32::try_from(position).ok()?, active: group.ordered.clone() })
    }

    /// Its place in its group's array.
    pub(super) fn position_of(&self, id: SocketId) -> Option<u32> {
        let group = self.groups.get(&self.all.get(&id)?.address)?;
        u32::try_from(group.array.iter().position(|member| *member == id)?).ok()
    }

    /// Where a connection of our own reaches this socket of a worker; none of one that it shares.
    pub(super) fn spot_of(&self, worker: WorkerId, socket: SocketId) -> Option<Spot> {
        let held = self.get(socket).filter(|held| held.holder == Holder::Worker(worker))?;
        let group = self.groups.get(&held.address).filter(|_| !held.shut && !held.is_shared())?;
        let position = group.array.iter().position(|member| *member == socket)?;
        Some(Spot { socket, position: u32::try_from(position).ok()?, active: group.ordered.clone() })
    }

    /// Whether a group is of parts of one socket.
    pub(super) fn is_shared(&self, address: Address) -> bool {
        self.array(address).iter().any(|id| self.all.get(id).is_some_and(Socket::is_shared))
    }

    /// The addresses that a worker takes connections on, and whether by a socket it was handed.
    pub(super) fn accepted(&self, worker: WorkerId) -> BTreeMap<Address, bool> {
        let mut found = BTreeMap::new();
        for (_, socket) in self.of(worker).filter(|(_, socket)| socket.accepts) {
            let handed = found.entry(socket.address).or_insert(true);
            *handed &= socket.handed;
        }
        found
    }

    /// A worker said that it is ready: it takes connections from what it was handed, but for
    /// addresses on which it listens by itself.
    pub(super) fn said_ready(&mut self, worker: WorkerId) {
        let own: Vec<Address> =
            self.of(worker).filter(|(_, socket)| !socket.handed).map(|(_, socket)| socket.address).collect();
        for socket in self.all.values_mut() {
            if socket.holder == Holder::Worker(worker) && !own.contains(&socket.address) {
                socket.accepts = true;
            }
        }
    }

    /// A worker is gone; its sockets stay with their slot.
    pub(super) fn orphan(&mut self, worker: WorkerId) {
        for socket in self.all.values_mut() {
            if socket.holder == Holder::Worker(worker) {
                socket.holder = Holder::Orphan;
                socket.accepts = false;
                if socket.queue == Queue::Left {
                    socket.queue = Queue::Shared;
                }
            }
        }
    }

    /// Whether a later worker of the same slot left a socket of the same kind on the same address.
    pub(super) fn has_newer_orphan(&self, id: SocketId, socket: &Socket) -> bool {
        self.iter().any(|(other, held)| {
            other > id
                && held.holder == Holder::Orphan
                && !held.shut
                && held.handed == socket.handed
                && held.slot == socket.slot
                && held.address == socket.address
        })
    }

    /// Gives a slot's spare sockets to its next worker: one for each address, the newest.
    pub(super) fn inherit(&mut self, slot: SlotId, worker: WorkerId) -> Vec<SocketId> {
        let spare = |(id, socket): (SocketId, &Socket)| {
            let fits =
                socket.slot == slot && socket.handed && !socket.shut && socket.holder == Holder::Orphan;
            (fits && !self.has_newer_orphan(id, socket)).then_some(id)
        };
        let given: Vec<SocketId> = self.iter().filter_map(spare).collect();
        for id in &given {
            if let Some(socket) = self.all.get_mut(id) {
                socket.holder = Holder::Worker(worker);
            }
        }
        given
    }

    /// A worker that lives has no use for this socket any more.
    pub(super) fn abandon(&mut self, id: SocketId) {
        if let Some(socket) = self.all.get_mut(&id)
            && matches!(socket.holder, Holder::Worker(_))
        {
            socket.holder = Holder::Orphan;
            socket.accepts = false;
        }
    }

    /// What a worker was handed and has no use for, since it listens there by itself: at that address, or so that
    /// whoever comes reaches what it listens on. The kernel leads clients to the closest address, where nobody would
    /// accept them.
    pub(super) fn useless(&self, worker: WorkerId) -> Vec<SocketId> {
        let own: Vec<Address> =
            self.of(worker).filter(|(_, socket)| !socket.handed).map(|(_, socket)| socket.address).collect();
        let is_useless = |socket: &Socket| {
            own.contains(&socket.address)
                || (!socket.accepts && socket.queue == Queue::Own && socket.address.is_covered_by(&own))
        };
        let handed = self.of(worker).filter(|(_, socket)| socket.handed && is_useless(socket));
        handed.map(|(id, _)| id).collect()
    }

    /// Whether clients of this address, where no socket of it stands in between, reach another one that a serving
    /// worker, of those that count, has opened by itself.
    pub(super) fn is_covered(
        &self,
        address: Address,
        standings: &Standings,
        counts: impl Fn(WorkerId) -> bool,
    ) -> bool {
        let counted = |socket: &Socket| match socket.holder {
            Holder::Worker(worker) => counts(worker),
            Holder::Orphan | Holder::Relaying => false,
        };
        let others: Vec<Address> = self
            .all
            .iter()
            .filter(|(_, socket)| !socket.handed && socket.address != address && counted(socket))
            .filter(|(id, _)| self.active(**id, standings))
            .map(|(_, socket)| socket.address)
            .collect();
        address.is_covered_by(&others)
    }

    /// Whether a serving worker takes connections on this address.
    pub(super) fn served(&self, address: Address, standings: &Standings) -> bool {
        self.array(address).iter().any(|id| self.active(*id, standings))
    }

    /// Addresses that nobody serves, and where clients can still wait.
    pub(super) fn unserved(&self, standings: &Standings) -> Vec<Address> {
        let open =
            |address: &Address| self.all.values().any(|socket| socket.address == *address && !socket.shut);
        self.addresses().filter(|address| !self.served(*address, standings)).filter(open).collect()
    }

    /// Whether who waits in a shared queue is taken from it by somebody who stays, now or later; `ending` are
    /// those that are about to be closed.
    fn attended(&self, address: Address, standings: &Standings, ending: &[SocketId]) -> bool {
        self.array(address).iter().filter(|id| !ending.contains(id)).any(|id| {
            self.all.get(id).is_some_and(|socket| {
                let stays = match socket.holder {
                    Holder::Worker(_) => {
                        standing(socket, standings).is_some_and(|standing| standing != Standing::Leaving)
                    }
                    Holder::Orphan => true,
                    Holder::Relaying => false,
                };
                stays && !socket.shut
            })
        })
    }

    /// Lets no new handshake reach the leaving workers' sockets of addresses that nobody serves. A shared one
    /// is shut for all who have a part of it, so not while one of them stays; and the host's never is.
    pub(super) fn shut_unserved(
        &mut self,
        standings: &Standings,
        leaving: &[WorkerId],
        ending: &[SocketId],
        planted: Planted,
        out: &mut Vec<Action>,
    ) {
        let forgetful = planted.has(Bug::OneShutsForAll);
        let needed = |address: Address| {
            let shared = self.is_shared(address) && !forgetful;
            self.served(address, standings) || (shared && self.attended(address, standings, ending))
        };
        let unserved: Vec<Address> = self.addresses().filter(|address| !needed(*address)).collect();
        for (id, socket) in &mut self.all {
            let Holder::Worker(worker) = socket.holder else { continue };
            if socket.of_host {
                continue;
            }
            if !socket.shut && unserved.contains(&socket.address) && leaving.contains(&worker) {
                socket.shut = true;
                out.push(Action::Shut { socket: *id });
            }
        }
    }

    /// Before a worker is told to stop: no packet finds its own sockets any more where others serve and new
    /// connections go to those alone. A server that shuts its listening socket down takes it out of its group by
    /// itself, and a packet that is looked up at that moment would still find it. Whether there were any.
    pub(super) fn hide(
        &mut self,
        worker: WorkerId,
        standings: &Standings,
        planted: Planted,
        out: &mut Vec<Action>,
    ) -> bool {
        if planted.has(Bug::StopsInTheOpen) {
            return false;
        }
        let may_hide = |(_, socket): &(SocketId, &Socket)| {
            !socket.shut
                && !socket.is_shared()
                && !socket.of_host
                && self.is_bypassed(socket, worker, standings)
        };
        let hidden: Vec<SocketId> = self.of(worker).filter(may_hide).map(|(id, _)| id).collect();
        for id in &hidden {
            if let Some(socket) = self.all.get_mut(id) {
                socket.shut = true;
                out.push(Action::Shut { socket: *id });
            }
        }
        !hidden.is_empty()
    }

    /// Whether a packet may find a socket of this worker's own.
    pub(super) fn is_found(&self, worker: WorkerId) -> bool {
        self.of(worker).any(|(_, socket)| !socket.shut && !socket.is_shared())
    }

    /// Whether a worker has a socket of its own that has a place in the kernel's array.
    pub(super) fn are_in_their_groups(&self, worker: WorkerId) -> bool {
        self.of(worker).any(|(id, socket)| !socket.is_shared() && self.array(socket.address).contains(&id))
    }

    /// Whether new connections to a worker's address go to others that serve, and to none of its own sockets.
    fn is_bypassed(&self, socket: &Socket, worker: WorkerId, standings: &Standings) -> bool {
        let Some(group) = self.groups.get(&socket.address) else { return false };
        let places = group.ordered.positions();
        let mut chosen =
            places.iter().filter_map(|place| group.array.get(usize::try_from(*place).unwrap_or(usize::MAX)));
        let others = |id: &SocketId| {
            self.active(*id, standings) && self.all.get(id).and_then(Socket::worker) != Some(worker)
        };
        !places.is_empty() && chosen.all(others)
    }

    /// Orders where new connections go, for each group whose plan or array changed.
    pub(super) fn steer(
        &mut self,
        standings: &Standings,
        terms: &Terms,
        planted: Planted,
        out: &mut Vec<Action>,
    ) {
        for address in self.addresses().collect::<Vec<_>>() {
            if self.is_shared(address) {
                self.sift(address, standings, planted, out);
                continue;
            }
            let active = self.share_out(address, self.best(address, standings), terms);
            let Some(group) = self.groups.get_mut(&address) else { continue };
            if !group.moved && group.ordered == active {
                continue;
            }
            let Some(first) = group.array.first() else { continue };
            out.push(Action::Steer { socket: *first, active: active.clone() });
            group.moved = false;
            group.ordered = active;
        }
    }

    /// Who leaves takes no more from a shared queue as long as another stays with it, and does again when nobody
    /// else is left. From the host's it never does: whoever waits there is not lost.
    fn sift(&mut self, address: Address, standings: &Standings, planted: Planted, out: &mut Vec<Action>) {
        let attended = self.attended(address, standings, &[]);
        for id in self.array(address).to_vec() {
            let Some(socket) = self.all.get_mut(&id) else { continue };
            let standing = standing(socket, standings);
            match (socket.queue, standing) {
                (Queue::Shared, Some(Standing::Leaving))
                    if (attended || socket.of_host)
                        && !socket.shut
                        && !planted.has(Bug::LeavingGoesOnTaking) =>
                {
                    socket.queue = Queue::Left;
                    out.push(Action::Withdraw { socket: id });
                }
                (Queue::Left, Some(_))
                    if !attended && !socket.of_host && !planted.has(Bug::LastStaysAway) =>
                {
                    socket.queue = Queue::Shared;
                    out.push(Action::Admit { socket: id });
                }
                (Queue::Own | Queue::Shared | Queue::Left, _) => {}
            }
        }
    }

    /// The sockets from which workers that serve take connections, each its own: those that new connections
    /// are chosen for. The queue of one that leaves, or is not ready yet, is empty whatever the others' are.
    ///
    /// A shared one is none of them: its parts are one queue, as long for each, and nobody is led to one of them.
    /// Who is busy leaves what waits there to the others by itself.
    pub(super) fn in_use(&self, standings: &Standings) -> Vec<SocketId> {
        let in_use = |(_, socket): &(SocketId, &Socket)| {
            let takes = socket.accepts && !socket.is_hidden() && !socket.is_shared();
            takes && standing(socket, standings) == Some(Standing::Serving)
        };
        self.iter().filter(in_use).map(|(id, _)| id).collect()
    }

    pub(super) fn crowded(&self) -> &BTreeSet<SocketId> {
        &self.crowded
    }

    /// In these queues too many wait, and in no others.
    pub(super) fn crowd(&mut self, crowded: BTreeSet<SocketId>) {
        self.crowded = crowded;
    }

    /// Of these places those in whose queues not too many wait; all where that is none.
    fn spared(&self, address: Address, places: Vec<u32>) -> Vec<u32> {
        let array = self.array(address);
        let free = |place: &u32| {
            let id = usize::try_from(*place).ok().and_then(|place| array.get(place));
            id.is_some_and(|id| !self.crowded.contains(id))
        };
        if self.crowded.is_empty() || !places.iter().any(free) {
            return places;
        }
        places.into_iter().filter(free).collect()
    }

    /// How these places share the new connections.
    fn share_out(&self, address: Address, places: Vec<u32>, terms: &Terms) -> Spread {
        let sides = self.sides(address, &places, terms);
        let seats = |places: &[u32]| {
            let instances = terms.by_client?;
            spread::seats(instances, &self.of_instances(address, places, terms))
        };
        if let Some((percent, new, old)) = sides {
            return match (seats(&new), seats(&old)) {
                (Some(new), Some(old)) => Spread::Seats(spread::shared(percent, &new, &old)),
                (Some(_) | None, None) | (None, Some(_)) => {
                    let (new, old) = (self.spared(address, new), self.spared(address, old));
                    Spread::Share { percent, new, old }
                }
            };
        }
        match seats(&places) {
            Some(seats) => Spread::Seats(seats),
            None => Spread::Evenly(self.spared(address, places)),
        }
    }

    /// Of these places, those of the workers that have a share of their own, and the others; none where it
    /// is one side alone that is there.
    fn sides(&self, address: Address, places: &[u32], terms: &Terms) -> Option<(u8, Vec<u32>, Vec<u32>)> {
        let (percent, sharers) = terms.share.as_ref()?;
        let array = self.array(address);
        let shares = |place: &u32| {
            let id = usize::try_from(*place).ok().and_then(|place| array.get(place));
            let worker = id.and_then(|id| self.all.get(id)).and_then(Socket::worker);
            worker.is_some_and(|worker| sharers.contains(&worker))
        };
        let (new, old): (Vec<u32>, Vec<u32>) = places.iter().partition(|place| shares(place));
        (!new.is_empty() && !old.is_empty()).then_some((*percent, new, old))
    }

    /// The place of each instance; of two workers in one slot the older's, so that nobody moves before it
    /// leaves.
    fn of_instances(&self, address: Address, places: &[u32], terms: &Terms) -> BTreeMap<u32, u32> {
        let array = self.array(address);
        let mut found: BTreeMap<u32, (Option<WorkerId>, u32)> = BTreeMap::new();
        for place in places {
            let id = usize::try_from(*place).ok().and_then(|place| array.get(place));
            let Some(socket) = id.and_then(|id| self.all.get(id)) else { continue };
            let Some(instance) = terms.instances.get(&socket.slot) else { continue };
            let entry = (socket.worker(), *place);
            found.entry(*instance).and_modify(|first| *first = entry.min(*first)).or_insert(entry);
        }
        found.into_iter().map(|(instance, (_, place))| (instance, place)).collect()
    }

    /// The places of the best that there is; never empty.
    fn best(&self, address: Address, standings: &Standings) -> Vec<u32> {
        let array = self.array(address);
        let serving = |socket: &Socket| standing(socket, standings) == Some(Standing::Serving);
        let alive = |socket: &Socket| standing(socket, standings).is_some();
        let mut best = (Rank::Shut, Vec::new());
        for (place, id) in array.iter().enumerate() {
            let Some(socket) = self.all.get(id) else { continue };
            let rank = match (socket.shut, socket.accepts) {
                (true, _) => Rank::Shut,
                (false, true) if serving(socket) => Rank::Serves,
                (false, _) if serving(socket) => Rank::MayServe,
                (false, true) if standing(socket, standings) == Some(Standing::Ailing) => Rank::Ails,
                (false, true) if alive(socket) => Rank::StillServes,
                (false, _) if socket.holder == Holder::Relaying => Rank::HandedOn,
                (false, _) => Rank::Queues,
            };
            if rank > best.0 {
                best = (rank, Vec::new());
            }
            if rank == best.0 {
                best.1.push(u32::try_from(place).unwrap_or(u32::MAX));
            }
        }
        best.1
    }

    fn active(&self, id: SocketId, standings: &Standings) -> bool {
        self.all.get(&id).is_some_and(|socket| {
            let takes = matches!(standing(socket, standings), Some(Standing::Serving | Standing::Ailing));
            takes && socket.accepts && !socket.shut
        })
    }

    /// The same with other names, for comparing states.
    pub(super) fn relabelled(
        &self,
        worker: &dyn Fn(WorkerId) -> WorkerId,
        slot: &dyn Fn(SlotId) -> SlotId,
    ) -> Sockets {
        // Of one slot's sockets it matters which is newer; beyond that, only the place in the array.
        let mut order: Vec<(&SocketId, &Socket)> = self.all.iter().collect();
        order.sort_by_key(|(id, socket)| (socket.address, slot(socket.slot), socket.handed, **id));
        let names: BTreeMap<SocketId, SocketId> =
            order.iter().map(|(id, _)| **id).zip((1..).map(SocketId)).collect();
        let socket = |(id, socket): (&SocketId, &Socket)| {
            let holder = match socket.holder {
                Holder::Worker(id) => Holder::Worker(worker(id)),
                Holder::Orphan => Holder::Orphan,
                Holder::Relaying => Holder::Relaying,
            };
            (names[id], Socket { holder, slot: slot(socket.slot), ..socket.clone() })
        };
        let group = |(address, group): (&Address, &Group)| {
            let array = group.array.iter().map(|id| names[id]).collect();
            (*address, Group { array, ..group.clone() })
        };
        Sockets {
            crowded: self.crowded.iter().filter_map(|id| names.get(id)).copied().collect(),
            all: self.all.iter().map(socket).collect(),
            groups: self.groups.iter().map(group).collect(),
        }
    }
}

/// How fit a socket is to get new connections, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Nothing reaches it.
    Shut,
    /// Whoever waits in it is being handed on to the others.
    HandedOn,
    /// Connections wait in it.
    Queues,
    /// Its worker is not ready yet, or leaves, but takes connections.
    StillServes,
    /// Its worker serves, but was not seen using it.
    MayServe,
    /// Its worker is ready, and not well: somebody takes the connections, and it is about to be replaced. In a
    /// queue that nobody was ever seen using they may wait for ever.
    Ails,
    /// Its worker serves from it.
    Serves,
}

fn standing(socket: &Socket, standings: &Standings) -> Option<Standing> {
    match socket.holder {
        Holder::Worker(worker) => standings.get(&worker).copied(),
        Holder::Orphan | Holder::Relaying => None,
    }
}
