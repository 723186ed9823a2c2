//! What the world has to say, translated into events: nothing is decided here and nothing ordered.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use mio::Token;

use crate::control::protocol::Stream;
use crate::supervisor::event::{AppId, Event, SocketId, Word, WorkerId};
use crate::sys::{addresses, process};

use super::Daemon;
use super::backlog::Ended;
use super::relay::End;

/// Where readiness can come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// Signals to the supervisor.
    Signals,
    /// The notify socket.
    Notify,
    /// A process on its way to exec.
    Report(WorkerId),
    /// bind and listen calls of a worker.
    Notices(WorkerId),
    /// One of a worker's outputs.
    Output(WorkerId, Stream),
    /// Node's channel.
    Channel(WorkerId),
    /// A relayed connection.
    Relay(u64, End),
    /// Addresses of this host came or went.
    Addresses,
    /// A socket that listens for all of an app was shut down.
    Shared(u64),
    /// A worker's own listening socket was shut down.
    Listener(SocketId),
    /// The time of a `cron_restart` has come, or the wall clock was set.
    Alarm,
    /// Somebody came to a worker's control group, or the last one left it.
    Group(WorkerId),
    /// Files of an app have changed.
    Files(AppId),
    /// Our own standard output or error has room again.
    Console,
    /// journald has room again.
    Journal,
    /// A disk has taken something that was waited for, or there is news of a log file.
    Disks,
    /// Something became of the lock, or of a socket of our own.
    Doors,
    /// A client wants to ask over HTTP.
    Http,
    /// One that does.
    HttpClient(u64),
}

/// Token ↔ source. Tokens are not reused, so that readiness that was reported together with the end of
/// what it was about means nothing to its successor.
#[derive(Debug)]
pub(super) struct Tokens {
    by_token: HashMap<Token, Source>,
    next: usize,
}

impl Tokens {
    /// Tokens below `first` belong to the control server.
    pub(super) fn new(first: usize) -> Tokens {
        Tokens { by_token: HashMap::new(), next: first }
    }

    pub(super) fn allot(&mut self, source: Source) -> Token {
        let token = Token(self.next);
        self.next += 1;
        self.by_token.insert(token, source);
        token
    }

    pub(super) fn get(&self, token: Token) -> Option<Source> {
        self.by_token.get(&token).copied()
    }

    pub(super) fn release(&mut self, token: Token) {
        self.by_token.remove(&token);
    }
}

impl Daemon {
    /// One source is ready. True when it has more than one turn's share.
    pub(super) fn collect(&mut self, source: Source) -> bool {
        match source {
            Source::Signals => {
                self.take_signals();
                false
            }
            Source::Notify => self.take_notifications(),
            Source::Report(worker) => {
                self.read_reports(worker);
                false
            }
            Source::Notices(worker) => self.answer_notices(worker),
            Source::Output(worker, stream) => self.read_output(worker, stream),
            Source::Channel(worker) => self.hear_channel(worker),
            Source::Relay(id, _) => self.pump_relay(id),
            Source::Addresses => {
                if self.addresses.as_ref().is_some_and(|socket| addresses::heard(socket.as_fd())) {
                    self.inbox.push_back(Event::AddressesChanged);
                }
                false
            }
            Source::Shared(inode) => {
                self.check_shared(inode);
                false
            }
            // Looked at before everything else of the turn.
            Source::Listener(_) => false,
            Source::Alarm => {
                self.take_alarm();
                false
            }
            Source::Group(worker) => {
                self.hear_group(worker);
                false
            }
            Source::Files(app) => self.collect_files(app),
            Source::Console | Source::Journal => {
                self.output.flush(self.now);
                false
            }
            Source::Disks => {
                self.output.files.heard();
                false
            }
            Source::Doors => {
                self.doors.heard(self.now);
                false
            }
            Source::Http => {
                self.take_http_clients();
                false
            }
            Source::HttpClient(id) => {
                self.hear_http(id);
                false
            }
        }
    }

    /// Reaps until nobody is left: signals coalesce.
    pub(super) fn reap(&mut self) {
        let mut ended: Vec<WorkerId> = Vec::new();
        loop {
            match self.reap_next() {
                Ok(Some((pid, how))) => match self.processes.leader_ended(pid) {
                    Some(worker) => {
                        let killed = self.processes.get(worker).is_some_and(|process| process.killed);
                        self.backlog.end(Ended { worker, status: how.into(), at: self.now, killed });
                        ended.push(worker);
                    }
                    // An orphan's status never influences anything.
                    None => {
                        self.processes.orphan_ended(pid);
                        self.command_ended(pid, how);
                    }
                },
                Ok(None) => break,
                Err(error) => {
                    log::error!("cannot wait for children: {error}");
                    break;
                }
            }
        }
        self.processes.adopt(&ended, &self.probes.commands());
        if self.backlog.has_heard() {
            return self.look_at_remnants();
        }
        self.tell_of_ended();
    }

    /// What a worker's first process said comes before its end: later its number may be another's.
    fn reap_next(&mut self) -> io::Result<Option<(i32, process::Ended)>> {
        let Some(pid) = process::next_ended()? else { return Ok(None) };
        if self.processes.leads(pid) {
            self.read_notifications();
        }
        process::reap(pid).map(|how| Some((pid, how)))
    }

    /// Workers of whose trees the rest may have ended by now.
    pub(super) fn look_at_remnants(&mut self) {
        self.processes.remnants().into_iter().for_each(|worker| self.look_at_remnant(worker));
    }

    pub(super) fn look_at_remnant(&mut self, worker: WorkerId) {
        if self.ends_alone(worker) || !self.processes.has_leftovers(worker) {
            self.inbox.push_back(Event::Gone { worker });
        } else if self.processes.outlives_its_kill(worker) {
            // Forked where nobody looked, and found now that its parent is gone.
            if let Err(error) = self.processes.kill(worker) {
                log::debug!("{}: {error}", self.label(worker));
            }
        }
    }

    pub(super) fn leader_ended(&mut self, ended: Ended) {
        let Ended { worker, status, at, killed } = ended;
        if !self.surroundings.shows_processes && !self.ends_alone(worker) {
            self.end_group(worker);
        }
        // What it said before it ended comes first: exec's outcome, words of its tree, its last lines.
        self.read_reports(worker);
        self.read_notifications();
        if self.processes.hand_over(worker) {
            self.rewrite_pid(worker);
            log::info!("{}: goes on as the process that it named (MAINPID)", self.label(worker));
            return;
        }
        self.hear_channel(worker);
        self.drain_output(worker);
        if self.processes.get(worker).is_some_and(|p| p.failed) {
            self.forget_process(worker);
            return;
        }
        self.processes.end_is_told(worker);
        if !killed {
            self.look_for_out_of_memory(worker, status);
        }
        self.inbox.push_back(Event::Ended { worker, at });
        let left = self.processes.has_leftovers(worker);
        self.inbox.push_back(Event::Exited { worker, status, left });
        if left {
            self.processes.behead(worker);
            self.watch_group(worker);
        }
    }

    /// The worker whose tree a process belongs to, by its ancestors or its session.
    pub(super) fn sender(&self, pid: i32) -> Option<WorkerId> {
        let mut current = pid;
        // No tree of processes is that deep; a cycle cannot be, but would end too.
        for _ in 0..64 {
            if let Some(worker) = self.processes.member(current) {
                return Some(worker);
            }
            match process::stat(current) {
                Ok(stat) if stat.parent > 1 => {
                    let of_session = || self.processes.ending_in(stat.session);
                    if let Some(worker) = self.processes.member(stat.session).or_else(of_session) {
                        return Some(worker);
                    }
                    current = stat.parent;
                }
                _ => return None,
            }
        }
        None
    }

    fn hear_channel(&mut self, worker: WorkerId) -> bool {
        let Some(channel) = self.processes.get_mut(worker).and_then(|p| p.channel.as_mut()) else {
            return false;
        };
        let heard = channel.listen(&mut self.buffer);
        if heard.ready {
            self.inbox.push_back(Event::Said { worker, word: Word::Sent });
        }
        if heard.closed {
            self.close_channel(worker);
        }
        heard.more
    }
}
