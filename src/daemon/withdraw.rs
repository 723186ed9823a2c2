//! Keeping a worker that leaves from a queue that others take from too, and giving it back.
//!
//! Each of its epoll entries for the socket is told nothing more. What it was told before is under way, so it has
//! left only when whoever was told has come back to wait.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::supervisor::event::{Event, SocketId, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::epoll_peer::{self, Entry, Thread};
use crate::sys::{intercept, process};

use super::Daemon;
use super::processes::Process;
use super::sockets::Held;

/// In its first moments a thread that was told of a connection may be one that was not seen waiting before: until
/// then none may run at all.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// Who waits for a set in a way that is not known (by another set, or by poll) has come back by then.
const UNSEEN: Duration = Duration::from_secs(3);

/// A worker's epoll entries for a queue that it is kept from.
#[derive(Debug)]
pub(super) struct Withdrawal {
    silenced: Vec<Silenced>,
    since: Time,
    /// Threads that were seen waiting on the sets, by process, set and thread.
    pollers: HashSet<(i32, i32, i32)>,
    /// It takes from the queue in another way, too.
    pub(super) is_partial: bool,
}

/// An entry as it was before, with the set itself: its number may mean another one by the time it is given back.
#[derive(Debug)]
struct Silenced {
    entry: Entry,
    set: OwnedFd,
}

/// What came of silencing.
#[derive(Debug, Default)]
struct Outcome {
    silenced: Vec<Silenced>,
    /// Entries that are not armed count, too: their worker arms them again by itself.
    has_entries: bool,
    /// Why it still takes from the queue.
    obstacle: Option<String>,
}

impl Daemon {
    /// Keeps a worker from the queue that this is a part of.
    pub(super) fn withdraw(&mut self, socket: SocketId) {
        let Some(held) = self.sockets.get(socket) else { return };
        let (worker, inode) = (held.owner, held.inode);
        let stays = |held: &Held| held.owner != worker && held.withdrawn.is_none();
        if !self.sockets.parts(inode).any(|(_, held)| stays(held)) {
            self.step_aside(inode);
        }
        // Nobody new comes to one without an address; those who wait in it have nobody else.
        if !self.shared.is_open(inode) {
            return;
        }
        let Outcome { silenced, has_entries, obstacle } = self.silence(worker, inode, socket);
        let is_partial = obstacle.is_some() || !has_entries;
        let (since, pollers) = (self.now, HashSet::new());
        let withdrawal = Withdrawal { silenced, since, pollers, is_partial };
        self.sockets.set_withdrawn(socket, Some(withdrawal));
        if !is_partial {
            return;
        }
        let error = obstacle.unwrap_or_else(|| "it does not use epoll".to_owned());
        let handles = self.processes.get(worker).is_some_and(Process::is_told_by_message);
        self.warn_once_of(worker, "cannot leave", || {
            format!(
                "a worker that leaves cannot be kept from the queue of a shared socket ({error}): {}",
                if handles {
                    "it gets its message at once, and has to stop accepting by itself"
                } else {
                    "it accepts until it gets its kill_signal, at a moment without requests or when \
                     drain_timeout is over; one that it takes in that moment may be lost"
                }
            )
        });
        self.inbox.push_back(Event::CannotLeave { worker, handles });
    }

    /// Silences all entries of the worker's processes that wait for connections. What was done is told even where
    /// not all could be.
    fn silence(&self, worker: WorkerId, inode: u64, socket: SocketId) -> Outcome {
        let mut outcome = Outcome::default();
        for pid in self.processes.tree_of(worker) {
            match self.silence_process(pid, inode, socket, &mut outcome) {
                Err(error) if process::is_gone(&error) => {}
                Err(error) => outcome.obstacle = Some(error.to_string()),
                Ok(()) => {}
            }
        }
        outcome
    }

    fn silence_process(
        &self,
        pid: i32,
        inode: u64,
        socket: SocketId,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let fd = self.sockets.fd(socket).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        if process::waits_in_call(pid, inode)? {
            outcome.obstacle = Some("it waits in accept, poll or select".to_owned());
        }
        let entries = epoll_peer::entries(pid, inode)?;
        outcome.has_entries |= !entries.is_empty();
        for entry in entries.into_iter().filter(Entry::waits) {
            let set = intercept::duplicate(process::open(pid)?, entry.set)?;
            epoll_peer::silence(&entry, set.as_fd(), fd)?;
            outcome.silenced.push(Silenced { entry, set });
        }
        Ok(())
    }

    /// Whether a worker that was kept from a queue has come to take nothing more from it.
    pub(super) fn has_left(&mut self, worker: WorkerId, socket: SocketId) -> io::Result<bool> {
        let Some(held) = self.sockets.get(socket) else { return Ok(true) };
        // It may have registered the socket once more by itself, or armed it.
        let again = self.silence(worker, held.inode, socket).silenced;
        let (now, is_new) = (self.now, !again.is_empty());
        let Some(withdrawal) = self.sockets.withdrawal(socket) else { return Ok(true) };
        for silenced in again {
            let key = |known: &Silenced| (known.entry.pid, known.entry.set, known.entry.number);
            if !withdrawal.silenced.iter().any(|known| key(known) == key(&silenced)) {
                withdrawal.silenced.push(silenced);
            }
        }
        if is_new {
            withdrawal.since = now;
        }
        withdrawal.has_come_back(now)
    }

    /// Nobody else is left: the worker takes connections again.
    pub(super) fn admit(&mut self, socket: SocketId) {
        let Some(withdrawal) = self.sockets.set_withdrawn(socket, None) else { return };
        let Some(held) = self.sockets.get(socket) else { return };
        for Silenced { entry, set } in withdrawal.silenced {
            // Where it closed the socket, the number may stand for another one.
            let is_there = process::sockets(entry.pid)
                .is_ok_and(|sockets| sockets.iter().any(|s| s.fd == entry.number && s.inode == held.inode));
            if !is_there {
                continue;
            }
            if let Err(error) = epoll_peer::restore(&entry, set.as_fd(), held.fd.as_fd()) {
                log::warn!("pid {} cannot be told of new connections again: {error}", entry.pid);
            }
        }
    }
}

impl Withdrawal {
    /// Whether all who may have been told of a connection wait again.
    fn has_come_back(&mut self, now: Time) -> io::Result<bool> {
        let mut processes: BTreeMap<i32, HashSet<i32>> = BTreeMap::new();
        for Silenced { entry, .. } in &self.silenced {
            processes.entry(entry.pid).or_default().insert(entry.set);
        }
        let age = now.since(self.since);
        let mut all = true;
        for (pid, sets) in processes {
            let threads = match epoll_peer::threads(pid) {
                Ok(threads) => threads,
                Err(error) if process::is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            for set in sets {
                let waiting = threads.iter().filter(|thread| thread.polls == Some(set));
                self.pollers.extend(waiting.map(|thread| (pid, set, thread.id)));
                let mine = |thread: &&Thread| self.pollers.contains(&(pid, set, thread.id));
                let pollers: Vec<&Thread> = threads.iter().filter(mine).collect();
                all &= is_back(&threads, &pollers, set, age);
            }
        }
        Ok(all)
    }
}

/// Whether whoever was told by this set is done with that, so long after it was told the last time. Threads that
/// have nothing to do with it may run on.
fn is_back(threads: &[Thread], pollers: &[&Thread], set: i32, age: Duration) -> bool {
    let waits = threads.iter().any(|thread| thread.polls == Some(set));
    let runs = threads.iter().any(|thread| thread.runs);
    let poller_runs = pollers.iter().any(|thread| thread.runs);
    if waits { !runs || (age >= UNDER_WAY && !poller_runs) } else { age >= UNSEEN && pollers.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn thread(id: i32, polls: Option<i32>, runs: bool) -> Thread {
        Thread { id, polls, runs }
    }

    #[test]
    fn who_was_told_is_back_when_it_waits_again() {
        let (set, other) = (7, 8);
        let waits = thread(1, Some(set), false);
        let works = thread(1, None, true);
        let busy = thread(2, None, true);
        let elsewhere = thread(2, Some(other), false);
        let sleeps = thread(3, None, false);
        for (threads, pollers, age, back) in [
            (vec![waits], vec![], 0, true),
            (vec![works], vec![works], 9000, false),
            (vec![sleeps], vec![sleeps], 9000, false),
            (vec![waits, elsewhere], vec![waits], 0, true),
            // It may be the one that was told, until it would long be done with that.
            (vec![waits, busy], vec![waits], 50, false),
            (vec![waits, busy], vec![waits], 100, true),
            (vec![waits, busy], vec![waits, busy], 9000, false),
            // Of another set it says nothing.
            (vec![elsewhere, works], vec![works], 9000, false),
            // Nobody is seen to wait for it: by another set, or by poll.
            (vec![elsewhere, sleeps], vec![], 2000, false),
            (vec![elsewhere, sleeps], vec![], 3000, true),
        ] {
            let pollers: Vec<&Thread> = pollers.iter().collect();
            assert_eq!(is_back(&threads, &pollers, set, MS(age)), back, "{threads:?} after {age} ms");
        }
    }
}
