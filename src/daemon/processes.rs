//! [`WorkerId`] ↔ process: what the shell knows about each worker that runs, and whose child an
//! orphan is. A process is only ever signalled through its descriptor, never by a bare number.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use mio::Token;

use super::catalog::Recipe;
use super::groups::Group;
use super::said::Sayings;
use super::start::Order;
use super::usage::Usage;
use super::wrappers;
use crate::config::launch::CommandLine;
use crate::supervisor::event::{AppId, ExitStatus, SlotId, WorkerId};
use crate::sys::process::{self, Ended, Started};
use crate::sys::spawn::Spawned;

/// The variable by which a process that left its session and lost its parent is still told apart.
pub(super) const WORKER_VARIABLE: &str = "CLUSTERD_WORKER";

/// How often our children are looked through again because one of them had just ended.
const ADOPT_PASSES: usize = 16;

/// How often the tree is looked through for processes that were forked while it was being held still.
const HOLD_PASSES: usize = 16;

/// One worker.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) app: AppId,
    pub(super) slot: SlotId,
    pub(super) recipe: Rc<Recipe>,
    /// What was executed.
    pub(super) command: CommandLine,
    pub(super) pid: i32,
    /// None where the host refuses to make one.
    pub(super) pidfd: Option<OwnedFd>,
    /// The first process has ended; the worker is what is left of its tree.
    pub(super) leader_gone: bool,
    /// Its end was not told yet: until then it may go on as the process that it named.
    pub(super) ending: bool,
    /// Until exec succeeded or failed.
    pub(super) report: Option<OwnedFd>,
    /// exec failed, or what came before it: the core knows, and the exit is only reaped.
    pub(super) failed: bool,
    /// SIGKILL was sent to its tree.
    pub(super) killed: bool,
    /// What it says of its state (`STATUS=`).
    pub(super) status: Option<String>,
    /// The process that it named in its place (`MAINPID=`).
    pub(super) main: Option<Main>,
    /// Where its bind and listen calls come in.
    pub(super) notify: Option<OwnedFd>,
    /// The pipe that is its standard input (`stdin = "pipe"`), until it closes it.
    pub(super) input: Option<OwnedFd>,
    /// Node's channel.
    pub(super) channel: Option<super::node::Channel>,
    /// Inodes of sockets that got SO_REUSEPORT at bind.
    pub(super) bound: HashSet<u64>,
    /// As whom it runs, where that is another user than the supervisor.
    pub(super) other_user: Option<u32>,
    /// Sockets of ours that stand in the place of its own, and do not listen yet, by inode.
    pub(super) replaced: HashMap<u64, OwnedFd>,
    /// What it said about sockets that cannot be looked at.
    pub(super) said: Sayings,
    /// That the supervisor was too short of something to take its sockets over was told.
    pub(super) told_short: bool,
    /// How far the supervisor reaches into it.
    pub(super) reach: Reach,
    /// Where its process id is written.
    pub(super) pid_file: Option<PathBuf>,
    /// Who below the first process got the stop signal together with it.
    pub(super) told: HashSet<i32>,
    /// What is registered with the poll on its behalf.
    pub(super) tokens: Vec<(Token, i32)>,
    /// What it used at the last look.
    pub(super) usage: Option<Usage>,
    /// Its control group, where the host lets us make such.
    pub(super) group: Option<Group>,
}

impl Process {
    /// One that was just cloned, and of which nothing more is known.
    pub(super) fn new(order: &Order, recipe: Rc<Recipe>, command: CommandLine, spawned: Spawned) -> Process {
        Process {
            app: order.app,
            slot: order.slot,
            recipe,
            command,
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            leader_gone: false,
            ending: false,
            report: None,
            failed: false,
            killed: false,
            status: None,
            main: None,
            notify: None,
            input: None,
            channel: None,
            bound: HashSet::new(),
            replaced: HashMap::new(),
            said: Sayings::default(),
            told_short: false,
            reach: Reach::Everything,
            told: HashSet::new(),
            other_user: None,
            pid_file: None,
            tokens: Vec::new(),
            usage: None,
            group: None,
        }
    }

    /// Whether words from its tree are its own.
    fn speaks(&self) -> bool {
        !self.leader_gone || self.ending
    }

    /// To the first process, which must not have been reaped.
    fn signal(&self, number: i32) -> io::Result<()> {
        process::signal_child(self.pid, self.pidfd.as_ref().map(AsFd::as_fd), number)
    }

    /// Asks it to stop as it wants to be asked: by a message over its channel, or, as systemd has it, by a
    /// signal to the process that it named its main one. False where it has neither.
    fn asks_otherwise(&self, signal: i32) -> io::Result<bool> {
        let heard = |channel: &super::node::Channel| channel.say_shutdown().is_ok();
        if self.recipe.spec.shutdown_with_message && self.channel.as_ref().is_some_and(heard) {
            self.signal(libc::SIGCONT)?;
            return Ok(true);
        }
        match &self.main {
            Some(main) if process::signal(main.pidfd.as_fd(), libc::SIGCONT).is_ok() => {
                process::signal(main.pidfd.as_fd(), signal)?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// SIGKILL to the first process, and to the one that it named its main one.
    fn kill_alone(&self) -> io::Result<()> {
        let main =
            self.main.as_ref().map_or(Ok(()), |main| process::signal(main.pidfd.as_fd(), libc::SIGKILL));
        let first = if self.leader_gone { Ok(()) } else { self.signal(libc::SIGKILL) };
        first.and(main.or_else(super::perform::ended_already))
    }

    /// Whether it may do something of its own about being told to stop.
    pub(super) fn may_handle_stop(&self) -> bool {
        let caught = || process::catches(self.pid, self.recipe.spec.kill_signal);
        !self.leader_gone && (self.is_told_by_message() || caught())
    }

    /// Whether a message tells it to stop, rather than a signal.
    pub(super) fn is_told_by_message(&self) -> bool {
        self.recipe.spec.shutdown_with_message && self.channel.is_some()
    }
}

/// How far the host lets the supervisor reach into a worker, as far as was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Its sockets can be duplicated.
    Everything,
    /// They cannot; others can be put in their place.
    Replacing,
    /// Neither: only what it was handed is shared.
    Declared,
}

/// A process of a worker's tree that takes the place of its first one when that ends.
#[derive(Debug)]
pub(super) struct Main {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

/// All workers that run.
#[derive(Debug, Default)]
pub(super) struct Processes {
    /// Boxed: workers come in the order of their ids, which leaves the nodes of the tree half empty.
    by_worker: BTreeMap<WorkerId, Box<Process>>,
    by_pid: HashMap<i32, WorkerId>,
    /// Orphans that became ours, by the worker whose tree they came from.
    adopted: HashMap<i32, WorkerId>,
    /// Workers of which others than the first process were left when that ended.
    remnants: BTreeSet<WorkerId>,
    changes: u64,
}

impl Processes {
    /// How often a worker was added or removed: another number, other workers.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn insert(&mut self, worker: WorkerId, process: Process) {
        self.changes += 1;
        self.by_pid.insert(process.pid, worker);
        self.by_worker.insert(worker, Box::new(process));
    }

    pub(super) fn get(&self, worker: WorkerId) -> Option<&Process> {
        self.by_worker.get(&worker).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, worker: WorkerId) -> Option<&mut Process> {
        self.by_worker.get_mut(&worker).map(Box::as_mut)
    }

    pub(super) fn remove(&mut self, worker: WorkerId) -> Option<Process> {
        let process = self.by_worker.remove(&worker)?;
        self.changes += 1;
        if !process.leader_gone {
            self.by_pid.remove(&process.pid);
        }
        self.adopted.retain(|_, owner| *owner != worker);
        self.remnants.remove(&worker);
        Some(*process)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Process)> {
        self.by_worker.iter().map(|(worker, process)| (*worker, process.as_ref()))
    }

    /// The worker that a process is known to belong to: as its first process, or adopted beside that.
    pub(super) fn member(&self, pid: i32) -> Option<WorkerId> {
        let known = self.by_pid.get(&pid).or_else(|| self.adopted.get(&pid)).copied();
        known.filter(|worker| self.by_worker.get(worker).is_some_and(|process| process.speaks()))
    }

    /// The worker whose first process led this session and ended just now: as long as somebody is in it, its number is
    /// not given out again.
    pub(super) fn ending_in(&self, session: i32) -> Option<WorkerId> {
        let led = |process: &Process| process.ending && process.pid == session;
        self.by_worker.iter().find(|(_, process)| led(process)).map(|(worker, _)| *worker)
    }

    /// Whether this process is a worker's first one.
    pub(super) fn leads(&self, pid: i32) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// The worker whose first process has just been reaped. From here on its number means nothing.
    pub(super) fn leader_ended(&mut self, pid: i32) -> Option<WorkerId> {
        let worker = self.by_pid.remove(&pid)?;
        if let Some(process) = self.by_worker.get_mut(&worker) {
            process.leader_gone = true;
            process.ending = true;
        }
        Some(worker)
    }

    /// Nobody goes on in its place.
    pub(super) fn end_is_told(&mut self, worker: WorkerId) {
        if let Some(process) = self.by_worker.get_mut(&worker) {
            process.ending = false;
        }
    }

    /// The first process of a worker has ended: the one that it named goes on in its place, if that is our
    /// child now and lives. One whose parent lives is reaped by that, and its end would not be seen here.
    pub(super) fn hand_over(&mut self, worker: WorkerId) -> bool {
        let Some(process) = self.by_worker.get_mut(&worker).filter(|process| process.leader_gone) else {
            return false;
        };
        let Some(main) = process.main.take() else { return false };
        let ours = self.adopted.get(&main.pid) == Some(&worker);
        if !ours || process::signal(main.pidfd.as_fd(), 0).is_err() {
            return false;
        }
        self.adopted.remove(&main.pid);
        self.by_pid.insert(main.pid, worker);
        (process.pid, process.pidfd, process.leader_gone) = (main.pid, Some(main.pidfd), false);
        process.ending = false;
        self.changes += 1;
        true
    }

    /// An orphan that has just been reaped; its status influences nothing.
    pub(super) fn orphan_ended(&mut self, pid: i32) {
        self.adopted.remove(&pid);
    }

    /// Looks at the supervisor's own children for orphans, and notes whose they are. `ended` are the
    /// workers whose first process has just gone, `checks` the commands of checks, which are no worker's.
    pub(super) fn adopt(&mut self, ended: &[WorkerId], checks: &[i32]) {
        // Whoever had ended when he was looked at may have left children to us since the list was read: nobody would
        // know whose they are once his worker counts as gone.
        let mut dead = HashSet::new();
        for _ in 0..ADOPT_PASSES {
            let before = dead.len();
            self.adopt_once(ended, checks, &mut dead);
            if dead.len() == before {
                return;
            }
        }
    }

    fn adopt_once(&mut self, ended: &[WorkerId], checks: &[i32], dead: &mut HashSet<i32>) {
        let ours = std::process::id() as i32;
        // A child that ends while the list is read can hide its neighbour (proc_pid_task(5)), hence twice.
        let children = process::children(ours).into_iter().chain(process::children(ours));
        for pid in children {
            let is_known = self.by_pid.contains_key(&pid) || self.adopted.contains_key(&pid);
            if is_known || checks.contains(&pid) || dead.contains(&pid) {
                continue;
            }
            let origin = match process::started_with(pid, WORKER_VARIABLE) {
                Started::With(value) => self.named(&value).or_else(|| self.by_session(pid)),
                Started::Without => self.by_session(pid),
                // In the middle of exec a process shows no environment: it can only be one that has
                // just become ours, with the end of its parent.
                Started::Unknown => self.by_session(pid).or_else(|| ended.first().copied()),
                Started::Zombie => {
                    dead.insert(pid);
                    self.by_session(pid)
                }
            };
            if let Some(worker) = origin {
                self.adopted.insert(pid, worker);
            }
        }
    }

    fn named(&self, value: &std::ffi::OsStr) -> Option<WorkerId> {
        let worker = WorkerId(value.to_str()?.parse().ok()?);
        self.by_worker.contains_key(&worker).then_some(worker)
    }

    /// By the session that a worker's first process led.
    fn by_session(&self, pid: i32) -> Option<WorkerId> {
        let session = process::stat(pid).ok()?.session;
        self.by_worker.iter().find(|(_, p)| p.pid == session).map(|(worker, _)| *worker)
    }

    /// Whether anything of the worker's tree lives on without its first process.
    pub(super) fn has_leftovers(&self, worker: WorkerId) -> bool {
        let group = || self.by_worker.get(&worker).and_then(|process| process.group.as_ref());
        self.adopted.values().any(|owner| *owner == worker) || group().is_some_and(Group::is_occupied)
    }

    /// The core hears that its first process has ended, and that others of its tree have not.
    pub(super) fn behead(&mut self, worker: WorkerId) {
        self.remnants.insert(worker);
    }

    /// Workers whose first process is gone and whose tree may have become empty.
    pub(super) fn remnants(&self) -> Vec<WorkerId> {
        self.remnants.iter().copied().collect()
    }

    /// Every process of the worker's tree.
    pub(super) fn tree_of(&self, worker: WorkerId) -> Vec<i32> {
        let Some(process) = self.by_worker.get(&worker) else { return Vec::new() };
        let leader = (!process.leader_gone).then_some(process.pid);
        let adopted = self.adopted.iter().filter(|(_, owner)| **owner == worker).map(|(pid, _)| *pid);
        let mut known = HashSet::new();
        // By the group whoever got out of the tree otherwise: no session, parent or variable of his tells whose he is.
        let grouped = process.group.iter().flat_map(Group::members);
        let members = leader.into_iter().chain(adopted).flat_map(process::tree).chain(grouped);
        members.filter(|member| known.insert(*member)).collect()
    }

    /// What /proc shows of every process of the worker's tree.
    pub(super) fn stats_of(&self, worker: WorkerId) -> Vec<process::Stat> {
        let Some(process) = self.by_worker.get(&worker) else { return Vec::new() };
        let adopted = || self.adopted.iter().any(|(_, owner)| *owner == worker);
        if !process.leader_gone && !adopted() {
            return process::tree_stats(process.pid);
        }
        self.tree_of(worker).into_iter().filter_map(|pid| process::stat(pid).ok()).collect()
    }

    /// The stop signal: to the first process, and below it to those that it would keep the signal from; when
    /// it is gone to all that is left and was not told yet. A stopped process is continued, or it would not
    /// hear it. With `treekill = false` to the first process alone.
    pub(super) fn stop(&mut self, worker: WorkerId) -> io::Result<()> {
        let whole = self.by_worker.get(&worker).is_some_and(|process| process.recipe.spec.treekill);
        let beheaded = self.by_worker.get(&worker).is_some_and(|process| process.leader_gone);
        let left = if beheaded && whole { self.tree_of(worker) } else { Vec::new() };
        let Some(process) = self.by_worker.get_mut(&worker) else { return Ok(()) };
        let signal = process.recipe.spec.kill_signal;
        if !beheaded && process.asks_otherwise(signal)? {
            return Ok(());
        }
        let others = if beheaded {
            left.into_iter().filter(|pid| !process.told.contains(pid)).collect::<BTreeSet<i32>>()
        } else {
            let below = || wrappers::below(process.pid, signal);
            let now = if whole { below() } else { None };
            // Continued first: a signal that comes while all threads stand still is taken by whichever runs first
            // then (`wants_signal` in Linux), and many a runtime hears it in its main thread alone.
            process.signal(libc::SIGCONT)?;
            process.signal(signal)?;
            // And again: a shell may have gone on to its next command in between, and waits for that now.
            now.map_or_else(BTreeSet::new, |now| {
                now.into_iter().chain(below().into_iter().flatten()).collect()
            })
        };
        process.told.extend(&others);
        for pid in others {
            signal_member(pid, libc::SIGCONT)?;
            signal_member(pid, signal)?;
        }
        Ok(())
    }

    /// SIGKILL to the whole tree: by its group at once, where it has one, and to whoever is not in that one by one,
    /// held still before. With `treekill = false` to the first process.
    pub(super) fn kill(&mut self, worker: WorkerId) -> io::Result<()> {
        if let Some(process) = self.by_worker.get_mut(&worker) {
            process.killed = true;
            if !process.recipe.spec.treekill {
                return process.kill_alone();
            }
            process.group.iter().for_each(Group::kill);
            // All that can be said of a tree that is not shown; it still leads, so the number is its own.
            if !process.leader_gone && !process::are_shown() {
                process::signal_group(process.pid, libc::SIGKILL)?;
            }
        }
        // Who was killed first would leave its children to be found elsewhere, and who forks all the time would stay
        // a step ahead.
        let mut held = HashSet::new();
        let mut result = Ok(());
        for _ in 0..HOLD_PASSES {
            let fresh: Vec<i32> = self.tree_of(worker).into_iter().filter(|pid| held.insert(*pid)).collect();
            if fresh.is_empty() {
                break;
            }
            // One that cannot be signalled keeps nobody else alive.
            for pid in fresh {
                let told = signal_member(pid, libc::SIGSTOP);
                result = result.and(told);
            }
        }
        for pid in held {
            let told = signal_member(pid, libc::SIGKILL);
            result = result.and(told);
        }
        result
    }

    /// Its tree was killed, and something of it was found since.
    pub(super) fn outlives_its_kill(&self, worker: WorkerId) -> bool {
        let is_over = |process: &Process| process.killed && process.recipe.spec.treekill;
        self.by_worker.get(&worker).is_some_and(|process| is_over(process)) && self.has_leftovers(worker)
    }

    /// Any signal to the first process only (`clusterd signal`).
    pub(super) fn signal_leader(&self, worker: WorkerId, signal: i32) -> io::Result<()> {
        match self.by_worker.get(&worker) {
            Some(process) if !process.leader_gone => process.signal(signal),
            _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }
}

/// Opens a descriptor first and signals through it. Between the look at the tree and the opening the
/// process may have ended; its number is not given out again that soon, and a process of ours that was
/// not reaped keeps it.
fn signal_member(pid: i32, signal: i32) -> io::Result<()> {
    let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ESRCH);
    match process::signal_member(pid, signal) {
        Err(error) if !gone(&error) => Err(error),
        _ => Ok(()),
    }
}

impl From<Ended> for ExitStatus {
    fn from(ended: Ended) -> ExitStatus {
        match ended {
            Ended::Code(code) => ExitStatus::Code(code),
            Ended::Signal(signal) => ExitStatus::Signal(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// One that shows no environment, as in the middle of exec, could be anybody's.
    #[test]
    fn the_command_of_a_check_is_no_workers_orphan() {
        let mut child = Command::new("sleep").arg("1000").env_clear().spawn().expect("there is sleep");
        let pid = child.id() as i32;
        let ended = WorkerId(7);
        let mut processes = Processes::default();
        processes.adopt(&[ended], &[pid]);
        let as_check = processes.adopted.get(&pid).copied();
        processes.adopt(&[ended], &[]);
        let as_orphan = processes.adopted.get(&pid).copied();
        child.kill().expect("it runs");
        child.wait().expect("it is ours");
        assert_eq!((as_check, as_orphan), (None, Some(ended)));
    }
}
