//! The connections of a leaving worker, as they are at each look: each that is known is asked for by itself. A dump
//! goes through the kernel's whole table of connections, which on a large host takes milliseconds; it is made where
//! the worker has a socket that is not known yet, or somebody's handshake is under way.

use std::collections::{HashMap, HashSet};
use std::io;

use crate::sys::connections::{self, Connection, Diagnostics};
use crate::sys::process::OpenSocket;

/// So many are asked for one by one, at some microseconds each.
const ONE_BY_ONE: usize = 256;

/// What became known of a worker's open sockets.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Those that were connections at the last look, by inode.
    connections: HashMap<u64, Connection>,
    /// Open sockets that are no connections of the worker's clients, or have ended.
    others: HashSet<u64>,
}

impl Known {
    /// The connections at these ports that are among the open sockets, and with `all`, for which there is a reason
    /// then, every other one there.
    pub(super) fn look(
        &mut self,
        diagnostics: &mut Diagnostics,
        ports: &[u16],
        open: &HashMap<u64, OpenSocket>,
        all: bool,
    ) -> io::Result<Vec<Connection>> {
        self.connections.retain(|inode, _| open.contains_key(inode));
        self.others.retain(|inode| open.contains_key(inode));
        let is_known = |inode: &u64| self.connections.contains_key(inode) || self.others.contains(inode);
        if all || self.connections.len() > ONE_BY_ONE || !open.keys().all(is_known) {
            return self.dump(diagnostics, ports, open);
        }
        let before = std::mem::take(&mut self.connections);
        for (inode, known) in before {
            match diagnostics.find(&known)? {
                Some(now) => drop(self.connections.insert(inode, now)),
                None => drop(self.others.insert(inode)),
            }
        }
        Ok(self.connections.values().cloned().collect())
    }

    fn dump(
        &mut self,
        diagnostics: &mut Diagnostics,
        ports: &[u16],
        open: &HashMap<u64, OpenSocket>,
    ) -> io::Result<Vec<Connection>> {
        let mut all = Vec::new();
        for port in ports {
            all.extend(diagnostics.dump(*port, connections::CONNECTIONS)?);
        }
        let mine = all.iter().filter(|c| c.inode != 0 && open.contains_key(&c.inode));
        self.connections = mine.map(|c| (c.inode, c.clone())).collect();
        self.others = open.keys().filter(|inode| !self.connections.contains_key(inode)).copied().collect();
        Ok(all)
    }
}
