//! Who has an address that a worker wants: another app of ours, or somebody outside.

use crate::supervisor::address::{Address, Claim};
use crate::supervisor::event::{AppId, Event};
use crate::sys::connections::{self, Connection};
use crate::sys::process;

use super::Daemon;

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
                Event::Opened { worker, address, .. } | Event::Listening { worker, address, .. } => {
                    Some((self.supervisor.worker(*worker)?.app, *address))
                }
                _ => None,
            })
            .collect();
        self.supervisor.claim(app, address, &unheard)
    }

    /// What is the matter, and what to do about it.
    pub(super) fn taken_text(&self, address: Address, taken: &Taken) -> String {
        match taken {
            Taken::By(other) => format!(
                "{address} is served by app \"{}\" of this supervisor; give one of them another port",
                self.app_name(*other)
            ),
            Taken::Outside(owner) => {
                format!("{address} is in use by {owner}; stop it, or choose another port")
            }
        }
    }

    /// Who outside this supervisor listens where this address would: `pid 812 (nginx)`.
    fn foreign_owner(&mut self, address: Address) -> Option<String> {
        let listeners = self.diagnostics.as_mut()?.dump(address.port, connections::LISTENERS).ok()?;
        let foreign = listeners
            .iter()
            .find(|l| address_of(l).overlaps(&address) && self.sockets.by_inode(l.inode).is_none())?;
        Some(owner_of(foreign.inode))
    }
}

fn address_of(listener: &Connection) -> Address {
    Address { ip: listener.local.ip(), port: listener.local.port(), v6only: listener.v6only }
}

/// Looks through the processes of the host for the one that has this socket open.
fn owner_of(inode: u64) -> String {
    for pid in process::all() {
        let has = process::sockets(pid).is_ok_and(|sockets| sockets.iter().any(|s| s.inode == inode));
        if has {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            return format!("pid {pid} ({})", name.trim_end());
        }
    }
    "another process (not visible to this user)".to_owned()
}
