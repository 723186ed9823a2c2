//! What the world has to say, translated into events: nothing is decided here and nothing ordered.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use mio::Token;

use crate::control::protocol::Stream;
use crate::supervisor::event::{Event, ExitStatus, Word, WorkerId};
use crate::sys::{notify, process};

use super::Daemon;
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
    /// Our own standard output or error has room again.
    Console,
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

/// Messages taken from the notify socket in one turn.
const NOTIFICATIONS_PER_TURN: usize = 256;

/// The longest extension of a start that one message can ask for.
const LONGEST_EXTENSION: u64 = 3600 * 1_000_000;

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
            Source::Console => {
                self.output.flush(self.now);
                false
            }
        }
    }

    /// Reaps until nobody is left: signals coalesce.
    pub(super) fn reap(&mut self) {
        let mut ended: Vec<(WorkerId, ExitStatus)> = Vec::new();
        loop {
            match process::reap() {
                Ok(Some((pid, how))) => match self.processes.leader_ended(pid) {
                    Some(worker) => ended.push((worker, how.into())),
                    // An orphan's status never influences anything.
                    None => self.processes.orphan_ended(pid),
                },
                Ok(None) => break,
                Err(error) => {
                    log::error!("cannot wait for children: {error}");
                    break;
                }
            }
        }
        let workers: Vec<WorkerId> = ended.iter().map(|(worker, _)| *worker).collect();
        self.processes.adopt(&workers);
        for (worker, status) in ended {
            self.leader_ended(worker, status);
        }
        for worker in self.processes.remnants() {
            if !self.processes.has_leftovers(worker) {
                self.inbox.push_back(Event::Gone { worker });
            }
        }
    }

    fn leader_ended(&mut self, worker: WorkerId, status: ExitStatus) {
        // What it said before it ended comes first: exec's outcome, READY=1, its last lines.
        self.read_reports(worker);
        self.take_notifications();
        self.hear_channel(worker);
        self.drain_output(worker);
        if self.processes.get(worker).is_some_and(|p| p.failed) {
            self.forget_process(worker);
            return;
        }
        self.look_for_out_of_memory(worker, status);
        let left = self.processes.has_leftovers(worker);
        self.inbox.push_back(Event::Exited { worker, status, left });
    }

    fn take_notifications(&mut self) -> bool {
        let at_home = self.take_notifications_from(|daemon| Some(daemon.notify.as_fd()));
        let abroad = self.take_notifications_from(|daemon| Some(daemon.abroad.as_ref()?.socket.as_fd()));
        at_home || abroad
    }

    /// True when there may be more.
    fn take_notifications_from(&mut self, socket: impl Fn(&Daemon) -> Option<BorrowedFd<'_>>) -> bool {
        for _ in 0..NOTIFICATIONS_PER_TURN {
            let Some(socket) = socket(self) else { return false };
            match notify::receive(socket) {
                Ok(Some(datagram)) => self.take_notification(&datagram),
                Ok(None) => return false,
                // The message is gone, and the next ones are still there: nothing will say so again.
                Err(error) => log::warn!("notify socket: {error}"),
            }
        }
        true
    }

    fn take_notification(&mut self, datagram: &notify::Datagram) {
        let Some(worker) = self.sender(datagram.pid) else {
            // Anybody may send to the socket for workers of other users, as often as they like.
            let pid = datagram.pid;
            self.warn_once("forged", || {
                format!(
                    "a notification of pid {pid}, which is no worker's, was ignored; so are others like it"
                )
            });
            return;
        };
        if datagram.truncated {
            log::warn!("{}: a notification over {} bytes was ignored", self.label(worker), notify::LIMIT);
            return;
        }
        for word in words(&datagram.bytes) {
            self.inbox.push_back(Event::Said { worker, word });
        }
    }

    /// The worker whose tree a process belongs to, by its ancestors or its session.
    pub(super) fn sender(&self, pid: i32) -> Option<WorkerId> {
        let leader =
            |pid: i32| self.processes.iter().find(|(_, p)| p.pid == pid && !p.leader_gone).map(|(w, _)| w);
        let mut current = pid;
        // No tree of processes is that deep; a cycle cannot be, but would end too.
        for _ in 0..64 {
            if let Some(worker) = leader(current) {
                return Some(worker);
            }
            match process::stat(current) {
                Ok(stat) if stat.parent > 1 => {
                    if let Some(worker) = leader(stat.session) {
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
            self.inbox.push_back(Event::Said { worker, word: Word::Ready });
        }
        if heard.closed {
            self.close_channel(worker);
        }
        heard.more
    }
}

/// The lines that mean something here; unknown ones are ignored, as the protocol asks.
fn words(bytes: &[u8]) -> Vec<Word> {
    let mut words = Vec::new();
    for line in bytes.split(|b| *b == b'\n') {
        match line {
            b"READY=1" => words.push(Word::Ready),
            b"STOPPING=1" => words.push(Word::Stopping),
            _ => words.extend(extension(line)),
        }
    }
    words
}

fn extension(line: &[u8]) -> Option<Word> {
    let digits = line.strip_prefix(b"EXTEND_TIMEOUT_USEC=")?;
    let microseconds: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Word::Extend(std::time::Duration::from_micros(microseconds.min(LONGEST_EXTENSION))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn known_words_are_heard_and_others_ignored() {
        assert_eq!(words(b"READY=1\nSTATUS=fine\n"), [Word::Ready]);
        assert_eq!(words(b"STOPPING=1"), [Word::Stopping]);
        assert_eq!(words(b"EXTEND_TIMEOUT_USEC=5000000"), [Word::Extend(Duration::from_secs(5))]);
        assert_eq!(words(b""), []);
        assert_eq!(words(b"READY=0\nREADY=11\n\xff\xfe\nEXTEND_TIMEOUT_USEC=-1\nEXTEND_TIMEOUT_USEC=x"), []);
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            words(&bytes);
        }
    }
}
