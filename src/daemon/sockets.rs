//! The held duplicates of every listening socket of every app: [`SocketId`] ↔ descriptor.
//!
//! Holding one keeps the socket, its queue and its place in the kernel's group when the worker is gone.
//! Which of them is steered to, relayed or closed is the core's decision.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::Token;

use crate::supervisor::event::{Address, SocketId, WorkerId};
use crate::sys;

use super::withdraw::Withdrawal;

/// One held duplicate.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) fd: OwnedFd,
    pub(super) inode: u64,
    pub(super) address: Address,
    /// Made by the supervisor and handed over by LISTEN_FDS, rather than by the worker.
    pub(super) handed: bool,
    /// Whose it is, or was last.
    pub(super) owner: WorkerId,
    /// A part of a socket that others have parts of.
    pub(super) shared: bool,
    /// Its owner is kept from the queue.
    pub(super) withdrawn: Option<Withdrawal>,
    /// By which the kernel tells that it was shut down.
    pub(super) token: Option<Token>,
    /// Of its queue.
    pub(super) backlog: i32,
}

/// All held duplicates.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    held: HashMap<SocketId, Held>,
    next: u64,
}

impl Sockets {
    pub(super) fn hold(
        &mut self,
        fd: OwnedFd,
        address: Address,
        handed: bool,
        owner: WorkerId,
    ) -> io::Result<SocketId> {
        self.insert(fd, address, (handed, false), owner)
    }

    /// A worker's part of a socket that listens for all of its app.
    pub(super) fn hold_part(
        &mut self,
        fd: OwnedFd,
        address: Address,
        owner: WorkerId,
    ) -> io::Result<SocketId> {
        self.insert(fd, address, (true, true), owner)
    }

    fn insert(
        &mut self,
        fd: OwnedFd,
        address: Address,
        (handed, shared): (bool, bool),
        owner: WorkerId,
    ) -> io::Result<SocketId> {
        let inode = sys::listen::inode(fd.as_fd())?;
        self.next += 1;
        let id = SocketId(self.next);
        let (withdrawn, token, backlog) = (None, None, 0);
        self.held.insert(id, Held { fd, inode, address, handed, owner, shared, withdrawn, token, backlog });
        Ok(id)
    }

    /// All parts of the shared socket with this inode.
    pub(super) fn parts(&self, inode: u64) -> impl Iterator<Item = (SocketId, &Held)> {
        let parts = self.held.iter().filter(move |(_, held)| held.shared && held.inode == inode);
        parts.map(|(id, held)| (*id, held))
    }

    /// What was there before.
    pub(super) fn set_withdrawn(&mut self, id: SocketId, now: Option<Withdrawal>) -> Option<Withdrawal> {
        let held = self.held.get_mut(&id)?;
        std::mem::replace(&mut held.withdrawn, now)
    }

    pub(super) fn withdrawal(&mut self, id: SocketId) -> Option<&mut Withdrawal> {
        self.held.get_mut(&id)?.withdrawn.as_mut()
    }

    pub(super) fn get(&self, id: SocketId) -> Option<&Held> {
        self.held.get(&id)
    }

    pub(super) fn fd(&self, id: SocketId) -> Option<BorrowedFd<'_>> {
        self.held.get(&id).map(|held| held.fd.as_fd())
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Held> {
        self.held.get_mut(&id)
    }

    pub(super) fn set_owner(&mut self, id: SocketId, owner: WorkerId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.withdrawn = None;
            held.owner = owner;
        }
    }

    /// Ends the socket for everybody and drops the duplicate: it leaves its group now, whoever still has
    /// it open, so that the mirror of the group stays right. Of a shared socket only this part goes: its
    /// inode, when it was the last.
    pub(super) fn close(&mut self, id: SocketId) -> Option<u64> {
        let held = self.held.remove(&id)?;
        if held.shared {
            return self.parts(held.inode).next().is_none().then_some(held.inode);
        }
        let hidden = sys::listen::hide(held.fd.as_fd());
        if let Err(error) = sys::listen::end(held.fd.as_fd()).and(hidden) {
            log::debug!("close socket {}: {error}", id.0);
        }
        None
    }

    pub(super) fn by_inode(&self, inode: u64) -> Option<(SocketId, &Held)> {
        self.held.iter().find(|(_, held)| held.inode == inode).map(|(id, held)| (*id, held))
    }

    pub(super) fn of(&self, worker: WorkerId) -> impl Iterator<Item = (SocketId, &Held)> {
        self.held.iter().filter(move |(_, held)| held.owner == worker).map(|(id, held)| (*id, held))
    }

    /// Every one of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (SocketId, &Held)> {
        self.held.iter().map(|(id, held)| (*id, held))
    }

    /// All at an address: no two apps have one.
    pub(super) fn at(&self, address: Address) -> impl Iterator<Item = &Held> {
        self.held.values().filter(move |held| held.address == address)
    }
}
