//! Who has an address that a worker wants: another app of ours, or somebody outside.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::supervisor::address::{Address, Claim};
use crate::supervisor::event::{AppId, Event, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::clock::own_cpu_time;
use crate::sys::connections::{self, Connection};
use crate::sys::process;

use super::{Daemon, NAMES};

/// How much CPU time goes into looking through /proc for the owner of a socket, and how many descriptors of
/// each process are looked at. Not time that passes: on a busy host that is mostly other people's.
const LOOK: Duration = Duration::from_millis(50);
const DESCRIPTORS: usize = 4096;

/// When an owner that was not seen is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Those who have addresses that our workers want.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// What each worker met last.
    met: BTreeMap<WorkerId, (Address, String)>,
    last: Option<Look>,
}

impl Owners {
    /// The worker has got this address after all.
    pub(super) fn forget(&mut self, worker: WorkerId, address: Address) {
        if self.met.get(&worker).is_some_and(|(met, _)| *met == address) {
            self.met.remove(&worker);
        }
    }
}

/// A look for the process that has a socket.
#[derive(Clone, Copy, Debug)]
struct Look {
    inode: u64,
    found: Result<i32, Unseen>,
    at: Time,
}

/// Why it was not found.
#[derive(Clone, Copy, Debug)]
enum Unseen {
    /// It belongs to somebody else, or to another pid namespace.
    Hidden,
    /// There are too many processes.
    Late,
}

/// Why an app cannot have an address.
#[derive(Clone, Debug)]
pub(super) enum Taken {
    /// Another app of this supervisor has it.
    By(AppId),
    /// A process that is not ours has it: `pid 812 (nginx)`.
    Outside(String),
}

impl Daemon {
    /// Who keeps an app from having an address; none when it is free, or shared by its own instances.
    pub(super) fn taken(&mut self, app: AppId, address: Address) -> Option<Taken> {
        match self.claim(app, address) {
            Claim::Other(other) => Some(Taken::By(other)),
            Claim::Own => None,
            Claim::Free => self.foreign_owner(address).map(Taken::Outside),
        }
    }

    /// The core's verdict, with the sockets that it is about to hear of.
    pub(super) fn claim(&self, app: AppId, address: Address) -> Claim {
        let unheard: Vec<(AppId, Address)> = self
            .arrays
            .iter()
            .filter_map(|event| match event {
                Event::Opened { worker, address, .. }
                | Event::Joined { worker, address, .. }
                | Event::Listening { worker, address, .. } => {
                    Some((self.supervisor.worker(*worker)?.app, *address))
                }
                _ => None,
            })
            .collect();
        self.supervisor.claim(app, address, &unheard)
    }

    /// What is the matter, and what to do about it.
    pub(super) fn taken_text(&self, address: Address, taken: &Taken) -> String {
        let kind = match address {
            Address::Tcp { .. } => "port",
            Address::Unix(_) => "path",
        };
        match taken {
            Taken::By(other) => format!(
                "{address} is served by app \"{}\" of this supervisor; give one of them another {kind}",
                self.app_name(*other)
            ),
            Taken::Outside(owner) => {
                format!("{address} is in use by {owner}; stop it, or choose another {kind}")
            }
        }
    }

    /// A worker met somebody who has the address that it wants: it is told now, and in the sentence about
    /// the worker's failure if that comes of it.
    pub(super) fn met(&mut self, worker: WorkerId, address: Address, taken: &Taken) {
        let text = self.taken_text(address, taken);
        log::error!("{}: {text}", self.label(worker));
        self.owners.met.insert(worker, (address, text));
        while self.owners.met.len() > NAMES {
            self.owners.met.pop_first();
        }
    }

    /// `: 0.0.0.0:3000 is in use by pid 812 (nginx); …`, or nothing.
    pub(super) fn obstacle(&self, worker: WorkerId) -> String {
        self.owners.met.get(&worker).map_or_else(String::new, |(_, text)| format!(": {text}"))
    }

    /// Who outside this supervisor listens where this address would.
    fn foreign_owner(&mut self, address: Address) -> Option<String> {
        let listeners = self.diagnostics.as_mut()?.dump(address.port()?, connections::LISTENERS).ok()?;
        let foreign: Vec<&Connection> = listeners
            .iter()
            .filter(|l| address_of(l).overlaps(&address) && self.sockets.by_inode(l.inode).is_none())
            .collect();
        let uid = foreign.first()?.uid;
        let inodes: Vec<u64> = foreign.iter().map(|l| l.inode).collect();
        Some(match self.process_with(&inodes) {
            Ok(pid) => self.owner_text(pid),
            Err(Unseen::Hidden) => format!("a process of uid {uid}, whose files this user may not see"),
            Err(Unseen::Late) => format!("a process of uid {uid}, which was not found in {LOOK:?}"),
        })
    }

    /// `pid 812 (nginx)`.
    pub(super) fn owner_text(&self, pid: i32) -> String {
        let name = process::name(pid).unwrap_or_default();
        let ours = self.sender(pid).and_then(|worker| self.supervisor.worker(worker));
        match ours {
            Some(place) => format!("pid {pid} ({name}) of app \"{}\"", self.app_name(place.app)),
            None => format!("pid {pid} ({name})"),
        }
    }

    /// The process that has one of these sockets open. The loop waits for the answer, and /proc may be long:
    /// the look has an end, and what it found is remembered, for all instances of an app ask the same.
    fn process_with(&mut self, inodes: &[u64]) -> Result<i32, Unseen> {
        let has = |pid| process::has_socket(pid, inodes, DESCRIPTORS).unwrap_or(false);
        match self.owners.last {
            Some(Look { found: Ok(pid), .. }) if has(pid) => return Ok(pid),
            Some(Look { inode, found: Err(unseen), at })
                if inodes.contains(&inode) && self.now.since(at) < LOOK_AGAIN =>
            {
                return Err(unseen);
            }
            _ => {}
        }
        let began = own_cpu_time();
        let mut found = Err(Unseen::Hidden);
        for pid in process::all() {
            if has(pid) {
                found = Ok(eldest(pid, has));
                break;
            }
            if own_cpu_time().saturating_sub(began) > LOOK {
                found = Err(Unseen::Late);
                break;
            }
        }
        self.owners.last = inodes.first().map(|inode| Look { inode: *inode, found, at: self.now });
        found
    }
}

/// Of a process and its ancestors in one line that have the socket, the first: the server rather than what
/// it has just forked.
fn eldest(mut pid: i32, has: impl Fn(i32) -> bool) -> i32 {
    // No tree of processes is that deep.
    for _ in 0..64 {
        match process::stat(pid) {
            Ok(stat) if stat.parent > 0 && has(stat.parent) => pid = stat.parent,
            _ => break,
        }
    }
    pid
}

fn address_of(listener: &Connection) -> Address {
    Address::Tcp { ip: listener.local.ip(), port: listener.local.port(), v6only: listener.v6only }
}
