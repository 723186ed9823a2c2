//! Sockets that listen for all workers of an app at once: Unix sockets, which know no SO_REUSEPORT, and those
//! that the host handed to the supervisor (`LISTEN_FDS`).
//!
//! One such socket is opened for an address and kept as long as a worker has a part of it: a duplicate, in the
//! core's eyes a socket of its own. A socket of the host's is shared even where it has SO_REUSEPORT: the host
//! keeps a duplicate, so it could never leave a steered group, and whoever came to it then would wait for ever.
//! It is not closed nor shut down by us; clients wait in it while the app is stopped.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::config::{Access, Listen, sharing};
use crate::supervisor::address::{Address, Claim};
use crate::supervisor::event::{AppId, Event, Generation, SocketId, SpawnFailure, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::epoll_peer;
use crate::sys::unix_listener::{self, FileId, PathLock, There};
use crate::sys::{inherited, listen, rights, socket};

use super::catalog::Recipe;
use super::forward::{clear_beside, path_of};
use super::host_sockets::{self, HostSocket};
use super::owner::Taken;
use super::start::{Order, listen_failure, permanent, transient};
use super::{Daemon, Source, identity};

/// Between two looks whether a path and the flags of its socket are as they were: three system calls each.
const LOOK: Duration = Duration::from_secs(1);

/// After a worker was seen to take connections, for so long it may still say how it wants the socket.
const SETTLED: Duration = Duration::from_secs(2);

/// A socket that nobody can come to is said to be so again after this, then after twice as long, and so on: it
/// costs a reload each time.
const SAID_AGAIN: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(300);
const MOST_TIMES: u32 = 6;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct SharedSockets {
    pub(super) by_inode: BTreeMap<u64, Shared>,
    host: Vec<HostSocket>,
    /// Where a worker shut its socket down: each generation gets one of its own from then on, so that workers
    /// that do so whenever they end do it to each other only.
    apart: HashSet<(AppId, Address)>,
    /// Addresses that clients could not come to.
    missed: HashMap<(AppId, Address), Missed>,
    look_at: Time,
    told_unused: bool,
}

/// How often it was said that clients cannot come to an address.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    times: u32,
    /// Not again before this.
    next: Time,
}

impl Missed {
    /// Said now: whether it was time for that.
    fn say(&mut self, now: Time) -> bool {
        if now < self.next {
            return false;
        }
        if now.since(self.next) > SELDOM {
            self.times = 0;
        }
        self.next = now + SAID_AGAIN.saturating_mul(1 << self.times).min(SELDOM);
        self.times = (self.times + 1).min(MOST_TIMES);
        true
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) fd: OwnedFd,
    pub(super) app: AppId,
    pub(super) address: Address,
    /// Of a Unix socket with a path that we made: where it is now.
    pub(super) file: Option<(PathBuf, FileId)>,
    access: Access,
    backlog: i32,
    of_host: bool,
    token: Option<Token>,
    /// The newest generation that has a part of it.
    pub(super) newest: Generation,
    flags: Option<Flags>,
    pub(super) state: State,
}

/// O_NONBLOCK as the workers of a generation wanted it.
#[derive(Clone, Copy, Debug)]
struct Flags {
    nonblocking: bool,
    of: Generation,
    /// A blocking socket may become another one in the first moments: many servers call listen(2) first.
    settled: bool,
    at: Time,
}

impl Flags {
    /// Whether they are known; takes them over when the first moments are past.
    fn is_settled(&mut self, nonblocking: bool, now: Time) -> bool {
        if !self.settled && (nonblocking || now >= self.at) {
            (self.nonblocking, self.settled) = (nonblocking, true);
        }
        self.settled
    }
}

fn word(nonblocking: bool) -> &'static str {
    if nonblocking { "non-blocking" } else { "blocking" }
}

/// What an entry of `listen` is for the workers of its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// A socket for each.
    None,
    /// One for all, that we make.
    Ours,
    /// This one of the host's, for all.
    Host(usize),
}

/// Where a shared socket is from.
#[derive(Debug)]
enum Origin {
    Host,
    /// We made it, with this file if it has one.
    Ours(Option<(PathBuf, FileId)>),
}

/// Whether clients can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// We shut it: nobody is to come any more.
    Shut,
    /// Its path is gone, or leads to something else.
    Lost,
    /// A worker shut it down for all.
    Dead,
}

impl SharedSockets {
    /// With the host's sockets.
    pub(super) fn with(handed: inherited::Taken) -> SharedSockets {
        SharedSockets { host: host_sockets::usable(handed), ..SharedSockets::default() }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        (!self.by_inode.is_empty()).then_some(self.look_at)
    }

    /// Whether clients come to it by its address.
    pub(super) fn is_open(&self, inode: u64) -> bool {
        self.by_inode.get(&inode).is_some_and(|shared| shared.state == State::Open && shared.is_forward())
    }

    /// Whether it is one of the host's.
    pub(super) fn is_hosts(&self, inode: u64) -> bool {
        self.by_inode.get(&inode).is_some_and(|shared| shared.of_host)
    }

    /// The addresses of an app to which no client can come, in words.
    pub(super) fn missed(&self, app: AppId) -> impl Iterator<Item = String> {
        let lost =
            move |shared: &&Shared| shared.app == app && matches!(shared.state, State::Lost | State::Dead);
        self.by_inode.values().filter(lost).map(|shared| match (shared.state, shared.of_host) {
            (_, true) => format!("{}: no client can come: the host has to make it anew", shared.address),
            (State::Dead, false) => {
                format!("{}: old workers hold a socket that one of them shut down", shared.address)
            }
            _ => format!("{}: old workers hold a socket to which no path leads", shared.address),
        })
    }

    /// Which of the host's sockets each entry of this app is.
    fn of_host(&self, app: AppId, declared: &[Listen]) -> Vec<Option<usize>> {
        let is_taken =
            |socket: &HostSocket| self.by_inode.get(&socket.inode).is_some_and(|shared| shared.app != app);
        host_sockets::assign(&self.host, declared, is_taken)
    }

    /// The one of ours that a worker of this generation takes a part of.
    fn usable(&self, app: AppId, address: Address, generation: Generation) -> Option<u64> {
        let apart = self.apart.contains(&(app, address));
        let fits = |shared: &Shared| {
            shared.app == app
                && shared.address == address
                && shared.state == State::Open
                && !shared.of_host
                && shared.is_reachable()
                && (!apart || shared.newest == generation)
        };
        self.by_inode.iter().find(|(_, shared)| fits(shared)).map(|(inode, _)| *inode)
    }
}

impl Shared {
    /// Its file is not one that waits beside the path for its turn.
    pub(super) fn is_forward(&self) -> bool {
        self.file.as_ref().is_none_or(|(at, _)| path_of(&self.address) == Some(at))
    }

    fn is_reachable(&self) -> bool {
        let path = self.file.as_ref();
        path.is_none_or(|(path, id)| unix_listener::is_at(path, *id)) && !self.is_shut_down()
    }

    /// Backlog, mode and owner as this declares them.
    fn follow(&mut self, declared: &Listen) -> io::Result<()> {
        if self.backlog != declared.backlog {
            listen::listen(self.fd.as_fd(), declared.backlog)?;
            self.backlog = declared.backlog;
        }
        if let Some((path, id)) = self.file.as_ref().filter(|_| self.access != declared.access) {
            let access = resolve(&declared.access).map_err(|failure| io::Error::other(failure.message))?;
            // Who is not named any more is given up for ourselves.
            let user = access.user.or(Some(socket::own_uid()));
            let group = access.group.or(Some(socket::own_gid()));
            unix_listener::set_access(path, Some(*id), unix_listener::Access { user, group, ..access })?;
            self.access = declared.access.clone();
        }
        Ok(())
    }

    fn is_shut_down(&self) -> bool {
        match self.address {
            Address::Unix(_) => unix_listener::is_shut_down(self.fd.as_fd()),
            Address::Tcp { .. } => !listen::is_listening(self.fd.as_fd()),
        }
    }
}

impl Daemon {
    /// Which entries of an app are one socket for all its workers, rather than one each.
    pub(super) fn shared_entries(&self, app: AppId, declared: &[Listen]) -> Vec<Sharing> {
        let sharing = |(listen, host): (&Listen, Option<usize>)| match (host, listen.address()) {
            (Some(place), _) => Sharing::Host(place),
            (None, Address::Unix(_)) => Sharing::Ours,
            (None, Address::Tcp { .. }) => Sharing::None,
        };
        declared.iter().zip(self.shared.of_host(app, declared)).map(sharing).collect()
    }

    /// What the file could not know: that the host's sockets are shared.
    pub(super) fn refuse_shared(&self, app: AppId, recipe: &Recipe) -> Result<(), SpawnFailure> {
        let declared = &recipe.spec.listen;
        let entries = self.shared_entries(app, declared);
        // No app has one address twice.
        let is_shared = |listen: &Listen| {
            let mut all = declared.iter().zip(&entries);
            all.any(|(other, sharing)| other.address == listen.address && *sharing != Sharing::None)
        };
        let refused = sharing::refused(&recipe.policy, &recipe.spec, is_shared);
        let Some(first) = refused.first() else { return Ok(()) };
        let (name, why, help) = (first.name, first.why, first.help);
        let message = format!("{name}: {why}, as the host's socket is; {help}");
        Err(permanent(format!("give {name} what it needs"), libc::EOPNOTSUPP, message))
    }

    /// Where an entry's socket listens.
    pub(super) fn address_of(&self, listen: &Listen, sharing: Sharing) -> Address {
        match sharing {
            Sharing::Host(place) => self.shared.host[place].address,
            Sharing::Ours | Sharing::None => listen.address(),
        }
    }

    /// A worker's part of the socket of its app; that is opened where there is none.
    pub(super) fn join_shared(
        &mut self,
        order: &Order,
        listen: &Listen,
        sharing: Sharing,
    ) -> Result<SocketId, SpawnFailure> {
        let inode = match sharing {
            Sharing::Host(place) => self.take_up(order, listen, place)?,
            Sharing::Ours | Sharing::None => {
                match self.shared.usable(order.app, listen.address(), order.generation) {
                    Some(inode) => self.check_access(inode, listen)?,
                    None => self.open_shared(order, listen)?,
                }
            }
        };
        let address = self.address_of(listen, sharing);
        let failed = |error: io::Error| listen_failure(address, &error);
        let Some(shared) = self.shared.by_inode.get_mut(&inode) else {
            return Err(failed(io::Error::from_raw_os_error(libc::EBADF)));
        };
        shared.newest = shared.newest.max(order.generation);
        let of_host = shared.of_host;
        let part = shared.fd.try_clone().map_err(failed)?;
        let socket = self.sockets.hold_part(part, address, order.worker).map_err(failed)?;
        self.arrays.push_back(Event::Joined { worker: order.worker, socket, address, of_host });
        Ok(socket)
    }

    /// A socket that is there is given its mode and owner when the reload went well; that they cannot be given is
    /// a reason for the reload to fail.
    fn check_access(&self, inode: u64, declared: &Listen) -> Result<u64, SpawnFailure> {
        let changed = self.shared.by_inode.get(&inode).is_some_and(|s| s.access != declared.access);
        let address = declared.address();
        let Some(path) = path_of(&address).filter(|_| changed) else { return Ok(inode) };
        let access = resolve(&declared.access)?;
        match rights::may_give(access.user, access.group) {
            true => Ok(inode),
            false => Err(not_given(address, path)),
        }
    }

    /// A reload went well: backlog, mode and owner are as its generation declares them.
    pub(super) fn follow_declarations(&mut self, app: AppId, generation: Generation) {
        let recipe =
            self.supervisor.spec(app, generation).and_then(|spec| self.catalog.recipe(spec)).cloned();
        let Some(recipe) = recipe else { return };
        for declared in &recipe.spec.listen {
            let address = declared.address();
            let fits = |shared: &Shared| {
                shared.app == app
                    && shared.address == address
                    && !shared.of_host
                    && shared.state == State::Open
            };
            for shared in self.shared.by_inode.values_mut().filter(|shared| fits(shared)) {
                if let Err(error) = shared.follow(declared) {
                    let name =
                        self.catalog.app(app).map(|record| record.called().to_string()).unwrap_or_default();
                    log::error!("{name}: {address}: it is not as `listen` has it now: {error}");
                }
            }
        }
    }

    /// A socket of the host's, for the first worker of the one app that uses it.
    fn take_up(&mut self, order: &Order, declared: &Listen, place: usize) -> Result<u64, SpawnFailure> {
        let (inode, address) = (self.shared.host[place].inode, self.shared.host[place].address);
        if let Claim::Other(other) = self.claim(order.app, address) {
            return Err(self.in_use(address, &Taken::By(other)));
        }
        if let Some(shared) = self.shared.by_inode.get(&inode) {
            return if shared.state == State::Dead { Err(dead(address)) } else { Ok(inode) };
        }
        let socket = &self.shared.host[place];
        if address != declared.address() {
            log::info!(
                "{}: the host's socket \"{}\" is taken for {}; it listens on {address}",
                self.app_name(order.app),
                socket.name,
                declared.address()
            );
        }
        let failed = |error: &io::Error| listen_failure(address, error);
        let fd = socket.fd.try_clone().map_err(|error| failed(&error))?;
        match address {
            Address::Unix(_) if unix_listener::is_shut_down(fd.as_fd()) => return Err(dead(address)),
            Address::Tcp { .. } if !listen::is_listening(fd.as_fd()) => {
                listen::listen(fd.as_fd(), declared.backlog).map_err(|error| failed(&error))?;
            }
            Address::Unix(_) | Address::Tcp { .. } => {}
        }
        self.keep_shared(order, declared, (fd, inode, address), Origin::Host);
        Ok(inode)
    }

    fn open_shared(&mut self, order: &Order, declared: &Listen) -> Result<u64, SpawnFailure> {
        let address = declared.address();
        if let Claim::Other(other) = self.claim(order.app, address) {
            return Err(self.in_use(address, &Taken::By(other)));
        }
        let (fd, file) = self.open_unix(order, declared)?;
        let inode = listen::inode(fd.as_fd()).map_err(|error| listen_failure(address, &error))?;
        self.keep_shared(order, declared, (fd, inode, address), Origin::Ours(file));
        Ok(inode)
    }

    fn keep_shared(
        &mut self,
        order: &Order,
        declared: &Listen,
        (fd, inode, address): (OwnedFd, u64, Address),
        origin: Origin,
    ) {
        let raw = fd.as_raw_fd();
        // Nobody's data is announced: only that it was shut down.
        let token = self.tokens.allot(Source::Shared(inode));
        let watched = self.poll.registry().register(&mut SourceFd(&raw), token, Interest::PRIORITY);
        let token = match watched {
            Ok(()) => Some(token),
            Err(error) => {
                self.tokens.release(token);
                log::debug!("watch {address}: {error}");
                None
            }
        };
        let (of_host, file) = match origin {
            Origin::Host => (true, None),
            Origin::Ours(file) => (false, file),
        };
        // As the host set it, where that can be seen.
        let queue = listen::queue(fd.as_fd()).ok().filter(|_| of_host);
        let backlog = queue.and_then(|q| i32::try_from(q.limit).ok()).unwrap_or(declared.backlog);
        let shared = Shared {
            fd,
            app: order.app,
            address,
            file,
            access: declared.access.clone(),
            backlog,
            of_host,
            token,
            newest: order.generation,
            flags: None,
            state: State::Open,
        };
        self.shared.by_inode.insert(inode, shared);
        self.shared.look_at = self.now + LOOK;
    }

    fn in_use(&self, address: Address, taken: &Taken) -> SpawnFailure {
        permanent(format!("listen on {address}"), libc::EADDRINUSE, self.taken_text(address, taken))
    }

    fn open_unix(
        &mut self,
        order: &Order,
        declared: &Listen,
    ) -> Result<(OwnedFd, Option<(PathBuf, FileId)>), SpawnFailure> {
        let address = declared.address();
        let failed = |error: &io::Error| listen_failure(address, error);
        let Address::Unix(name) = address else {
            return Err(failed(&io::Error::from_raw_os_error(libc::EAFNOSUPPORT)));
        };
        if let Some(name) = name.in_abstract() {
            return unix_listener::open_abstract(name, declared.backlog)
                .map(|fd| (fd, None))
                .map_err(|e| failed(&e));
        }
        let path = Path::new(name.as_str());
        let access = resolve(&declared.access)?;
        let _lock = PathLock::take(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => transient(
                format!("listen on {address}"),
                libc::EAGAIN,
                format!("cannot listen on {address}: another supervisor is opening it"),
            ),
            io::ErrorKind::NotFound => permanent(
                format!("listen on {address}"),
                libc::ENOENT,
                format!("cannot listen on {address}: its folder does not exist; create it"),
            ),
            _ => failed(&error),
        })?;
        refuse_open_folders(address, path)?;
        let beside = self.place_beside(order, address);
        if beside.is_none() && !self.shared.by_inode.values().any(|shared| shared.address == address) {
            clear_beside(path);
        }
        let path = beside.as_deref().unwrap_or(path);
        self.make_way(order, address, path)?;
        let (fd, id) = unix_listener::open(path, declared.backlog, access).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EPERM) => not_given(address, path),
                _ => failed(&error),
            }
        })?;
        Ok((fd, Some((path.to_owned(), id))))
    }

    /// Removes what a dead server left under the path. A live one's is not touched, unless it is our own that
    /// is to be replaced.
    fn make_way(&mut self, order: &Order, address: Address, path: &Path) -> Result<(), SpawnFailure> {
        let failed = |error: &io::Error| listen_failure(address, error);
        let ours = self.shared.by_inode.values_mut().find(|shared| {
            let at_path = |(at, id): &(PathBuf, FileId)| at == path && unix_listener::is_at(path, *id);
            shared.app == order.app && shared.address == address && shared.file.as_ref().is_some_and(at_path)
        });
        if let Some(shared) = ours {
            if shared.state == State::Open {
                shared.state = State::Lost;
            }
            let (path, id) = shared.file.take().expect("it was just looked at");
            return unix_listener::remove(&path, id).map(drop).map_err(|error| failed(&error));
        }
        let refused = |what: &str| {
            let message = format!("cannot listen on {address}: {what}; remove it, or choose another path");
            Err(permanent(format!("listen on {address}"), libc::EADDRINUSE, message))
        };
        match unix_listener::look(path).map_err(|error| failed(&error))? {
            There::Nothing => Ok(()),
            There::Dead(id) => {
                log::info!(
                    "{}: {address}: the socket of a dead server is replaced",
                    self.app_name(order.app)
                );
                unix_listener::remove(path, id).map(drop).map_err(|error| failed(&error))
            }
            There::Alive(pid) => {
                let owner = pid.map_or_else(|| "a live server".to_owned(), |pid| self.owner_text(pid));
                Err(self.in_use(address, &Taken::Outside(owner)))
            }
            There::Unknown => refused("a socket is there that this user may not connect to"),
            There::OtherFile => refused("a file is there that is no socket"),
        }
    }

    /// Whoever comes is refused from now on; who waits in the queue stays.
    pub(super) fn shut_shared(&mut self, inode: u64) {
        self.step_aside(inode);
        let Some(shared) = self.shared.by_inode.get_mut(&inode).filter(|s| s.state != State::Shut) else {
            return;
        };
        shared.state = State::Shut;
        let address = shared.address;
        if let Some((path, id)) = shared.file.take() {
            remove_file(&path, id, address);
        }
    }

    /// Nobody has a part of it any more.
    pub(super) fn end_shared(&mut self, inode: u64) {
        self.step_aside(inode);
        let Some(shared) = self.shared.by_inode.remove(&inode) else { return };
        if let Some(token) = shared.token {
            self.unwatch(&[(token, shared.fd.as_raw_fd())]);
        }
        if let Some((path, id)) = &shared.file {
            remove_file(path, *id, shared.address);
        }
        if !shared.of_host
            && let Err(error) = listen::end(shared.fd.as_fd())
        {
            log::debug!("end {}: {error}", shared.address);
        }
    }

    /// At our own end: no file stays that nobody listens on.
    pub(super) fn end_all_shared(&mut self) {
        for inode in self.shared.by_inode.keys().copied().collect::<Vec<_>>() {
            self.end_shared(inode);
        }
    }

    /// Looks whether clients can still come, and whether the flags are as they were.
    pub(super) fn look_after_shared(&mut self) {
        if self.shared.by_inode.is_empty() || self.now < self.shared.look_at {
            return;
        }
        self.shared.look_at = self.now + LOOK;
        for inode in self.shared.by_inode.keys().copied().collect::<Vec<_>>() {
            self.check_shared(inode);
        }
    }

    /// One of them: also when it is said to have been shut down.
    pub(super) fn check_shared(&mut self, inode: u64) {
        let Some(shared) = self.shared.by_inode.get_mut(&inode) else { return };
        let (app, address) = (shared.app, shared.address);
        match shared.state {
            State::Shut => return,
            State::Open if shared.is_shut_down() && shared.of_host => self.end_of_hosts(inode),
            State::Open if shared.is_shut_down() => {
                shared.state = State::Dead;
                self.shared.apart.insert((app, address));
                // Old workers may hold one that is alive.
                self.step_aside(inode);
                self.tell_shut_down(inode, app, address, "the app is reloaded onto a new one");
            }
            State::Open if !shared.is_reachable() => {
                shared.state = State::Lost;
                log::error!(
                    "{}: {address}: somebody removed or replaced the path, so no client can come; the app is \
                     reloaded onto a new socket",
                    self.app_name(app)
                );
            }
            State::Open => self.check_flags(inode),
            State::Lost | State::Dead => {}
        }
        let Some(shared) = self.shared.by_inode.get(&inode) else { return };
        // As long as a worker listens where nobody comes: the core may have had its reasons to wait. There is
        // no other socket of the host's to go to.
        if matches!(shared.state, State::Lost | State::Dead)
            && !shared.of_host
            && self.sockets.parts(inode).next().is_some()
            && self.shared.missed.entry((app, address)).or_default().say(self.now)
        {
            let parts = self.sockets.parts(inode).map(|(socket, _)| Event::Unreachable { socket });
            self.inbox.extend(parts);
        }
    }

    /// A worker shut down what is not ours to make anew. One of TCP listens again, with all who wait for it;
    /// nothing brings a Unix socket back.
    fn end_of_hosts(&mut self, inode: u64) {
        let Some(shared) = self.shared.by_inode.get_mut(&inode) else { return };
        let (app, address) = (shared.app, shared.address);
        let then = match address {
            Address::Unix(_) => {
                shared.state = State::Dead;
                "only the host, which made it, can make a new one: restart the unit of that socket, and clusterd"
            }
            Address::Tcp { .. } => match listen::listen(shared.fd.as_fd(), shared.backlog) {
                Ok(()) => "the supervisor listens on it again; who waited in it was reset",
                Err(error) => {
                    log::error!("{address}: listen again: {error}");
                    shared.state = State::Dead;
                    "restart the unit of that socket, and clusterd"
                }
            },
        };
        self.tell_shut_down(inode, app, address, then);
    }

    fn tell_shut_down(&self, inode: u64, app: AppId, address: Address, then: &str) {
        let holders: Vec<WorkerId> = self.sockets.parts(inode).map(|(_, held)| held.owner).collect();
        let who = match holders.as_slice() {
            [one] => self.label(*one),
            several => {
                let names: Vec<String> = several.iter().map(|worker| self.label(*worker)).collect();
                format!("one of {}", names.join(", "))
            }
        };
        log::error!(
            "{}: {address}: {who} called shutdown(2) on the shared socket, which ends it for all; {then}. A \
             server that stops must close its socket, not shut it down",
            self.app_name(app)
        );
    }

    /// O_NONBLOCK belongs to all: a worker that changes it breaks the others of its generation.
    fn check_flags(&mut self, inode: u64) {
        let Some(shared) = self.shared.by_inode.get_mut(&inode) else { return };
        let Ok(now) = unix_listener::is_nonblocking(shared.fd.as_fd()) else { return };
        let Some(flags) = &mut shared.flags else { return };
        if !flags.is_settled(now, self.now) || now == flags.nonblocking {
            return;
        }
        let (app, address, newest) = (shared.app, shared.address, shared.newest);
        if newest > flags.of {
            *flags = Flags { nonblocking: now, of: newest, settled: true, ..*flags };
            log::warn!(
                "{}: {address}: generation {} made the shared socket {}; workers of earlier ones may stumble \
                 over that until they are replaced",
                self.app_name(app),
                newest.0,
                word(now)
            );
            return;
        }
        // An event loop that finds it blocking hangs; who waits in accept gets an error at worst.
        if now && self.has_event_loops(inode) {
            if let Some(flags) = self.shared.by_inode.get_mut(&inode).and_then(|s| s.flags.as_mut()) {
                flags.nonblocking = true;
            }
            return;
        }
        let Some(shared) = self.shared.by_inode.get(&inode) else { return };
        let restored = unix_listener::set_nonblocking(shared.fd.as_fd(), !now);
        log::warn!(
            "{}: {address}: a worker made the shared socket {}, for all workers; it is {} again{}",
            self.app_name(app),
            word(now),
            word(!now),
            restored.err().map_or_else(String::new, |error| format!(" (failed: {error})"))
        );
    }

    /// Whether a worker has the socket in an epoll set.
    fn has_event_loops(&self, inode: u64) -> bool {
        let mut pids = self.sockets.parts(inode).flat_map(|(_, held)| self.processes.tree_of(held.owner));
        pids.any(|pid| epoll_peer::entries(pid, inode).is_ok_and(|entries| !entries.is_empty()))
    }

    /// A worker said that it is ready.
    pub(super) fn settle_flags_of(&mut self, worker: WorkerId) {
        let parts = self.sockets.of(worker).filter(|(_, held)| held.shared);
        for inode in parts.map(|(_, held)| held.inode).collect::<Vec<_>>() {
            self.settle_flags(inode);
        }
    }

    /// A worker takes connections from its part: the flags are as its generation wants them, or will be in a
    /// moment.
    pub(super) fn settle_flags(&mut self, inode: u64) {
        let Some(shared) = self.shared.by_inode.get_mut(&inode) else { return };
        if shared.flags.is_none()
            && let Ok(now) = unix_listener::is_nonblocking(shared.fd.as_fd())
        {
            let (of, settled, at) = (shared.newest, now, self.now + SETTLED);
            shared.flags = Some(Flags { nonblocking: now, of, settled, at });
        }
    }

    /// The host's sockets that no app declares are told once, as soon as there is one.
    pub(super) fn tell_unused(&mut self) {
        if self.shared.told_unused || self.catalog.apps().next().is_none() {
            return;
        }
        self.shared.told_unused = true;
        let used: HashSet<usize> = self
            .catalog
            .apps()
            .flat_map(|(app, record)| self.shared.of_host(app, &record.recipe.spec.listen))
            .flatten()
            .collect();
        let unused = self.shared.host.iter().enumerate().filter(|(place, _)| !used.contains(place));
        for (_, socket) in unused {
            log::warn!(
                "the host handed over a socket for {} (\"{}\"), and no app has it in `listen`: clients who come \
                 there wait for ever",
                socket.address,
                socket.name
            );
        }
    }
}

pub(super) fn remove_file(path: &Path, id: FileId, address: Address) {
    let _lock = match PathLock::take(path) {
        Ok(lock) => lock,
        // Who holds it opens a socket there, and looks first whether this one is dead.
        Err(error) => return log::warn!("{address}: its file stays behind: its lock: {error}"),
    };
    if let Err(error) = unix_listener::remove(path, id) {
        log::warn!("{address}: its file stays behind: {error}");
    }
}

/// As root nothing is given away in a folder where everybody can put something else in its place.
pub(super) fn refuse_open_folders(address: Address, path: &Path) -> Result<(), SpawnFailure> {
    if socket::own_uid() != 0 {
        return Ok(());
    }
    match unix_listener::open_to_all(path) {
        Ok(None) => Ok(()),
        Ok(Some(folder)) => {
            let message = format!(
                "cannot listen on {address}: everybody may replace what is in {}; take that right away (chmod \
                 o-w), or choose another folder",
                folder.display()
            );
            Err(permanent(format!("listen on {address}"), libc::EACCES, message))
        }
        Err(error) => Err(listen_failure(address, &error)),
    }
}

fn not_given(address: Address, path: &Path) -> SpawnFailure {
    let message = format!(
        "cannot give {} to its user or group: only root with CAP_CHOWN may give files away, and others may choose \
         a group of their own",
        path.display()
    );
    permanent(format!("listen on {address}"), libc::EPERM, message)
}

/// The host's Unix socket takes nobody in any more.
fn dead(address: Address) -> SpawnFailure {
    let message = format!(
        "cannot listen on {address}: a worker shut the host's socket down, which nothing undoes; restart the unit \
         that it is from, and clusterd"
    );
    permanent(format!("listen on {address}"), libc::EINVAL, message)
}

pub(super) fn resolve(access: &Access) -> Result<unix_listener::Access, SpawnFailure> {
    let (user, group) = identity::owner_of(access)?;
    Ok(unix_listener::Access { mode: access.mode, user, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocking_socket_may_become_another_one_in_the_first_moments() {
        let at = |seconds| Time::from_start(Duration::from_secs(seconds));
        let flags = Flags { nonblocking: false, of: Generation(1), settled: false, at: at(2) };
        for (seen, expected) in [
            (vec![(false, 0), (true, 1), (false, 3)], Some(true)),
            (vec![(false, 0), (false, 2), (true, 3)], Some(false)),
            (vec![(false, 0), (false, 1)], None),
        ] {
            let mut flags = flags;
            for (nonblocking, time) in seen {
                flags.is_settled(nonblocking, at(time));
            }
            assert_eq!(flags.settled.then_some(flags.nonblocking), expected);
        }
    }

    #[test]
    fn what_is_lost_is_said_more_and_more_rarely() {
        let at = |seconds| Time::from_start(Duration::from_secs(seconds));
        let mut missed = Missed::default();
        let said: Vec<u64> = (0..200).filter(|second| missed.say(at(*second))).collect();
        assert_eq!(said, [0, 5, 15, 35, 75, 155]);
        assert!(missed.say(at(10_000)) && missed.say(at(10_005)), "it was well for long");
    }
}
