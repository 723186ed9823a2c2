//! Node's channel (`NODE_CHANNEL_FD`): a Unix stream socket that carries one JSON value per line.
//! `process.send('ready')` comes in here, and `shutdown` goes out, as under PM2. Nothing else that a worker
//! sends means anything: it is read and dropped.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::supervisor::event::WorkerId;
use crate::sys::process::{self, Started};

use super::Daemon;

/// The longest message that is kept; longer ones are skipped to their end.
const LIMIT: usize = 64 * 1024;

/// What Node calls a message that a descriptor came with, and what it waits for before it sends the next
/// message (lib/internal/child_process.js).
const HANDLE: &[u8] = b"{\"cmd\":\"NODE_HANDLE\"";
const ACKNOWLEDGED: &str = "{\"cmd\":\"NODE_HANDLE_ACK\"}\n";

/// The variable by which a process that Node's cluster module has forked knows that it is one.
const FORKED: &str = "NODE_UNIQUE_ID";

/// Bytes read in one turn of the loop.
const PER_TURN: usize = 256 * 1024;

/// The supervisor's end of one worker's channel.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    lines: Lines,
}

/// What a look at the channel brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// `process.send('ready')`.
    pub(super) ready: bool,
    /// The worker has closed its end.
    pub(super) closed: bool,
    /// There may be more to read.
    pub(super) more: bool,
}

impl Channel {
    /// Both ends: ours, and the one that the worker inherits.
    pub(super) fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Channel { stream: ours, lines: Lines::default() }, theirs.into()))
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads what has come.
    pub(super) fn listen(&mut self, buffer: &mut [u8]) -> Heard {
        let mut heard = Heard::default();
        let mut read = 0;
        while read < PER_TURN {
            match self.stream.read(buffer) {
                Ok(0) => {
                    heard.closed = true;
                    return heard;
                }
                Ok(length) => {
                    read += length;
                    let mut handles = 0;
                    self.lines.push(&buffer[..length], |line| {
                        heard.ready |= says_ready(line);
                        handles += usize::from(line.starts_with(HANDLE));
                    });
                    self.acknowledge(handles);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return heard,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    heard.closed = true;
                    return heard;
                }
            }
        }
        heard.more = true;
        heard
    }

    /// Asks the worker to stop: PM2's message.
    ///
    /// # Errors
    /// EAGAIN when it has not read what was sent before, EPIPE when its end is closed.
    pub(super) fn say_shutdown(&self) -> io::Result<()> {
        (&self.stream).write_all(b"\"shutdown\"\n")
    }

    /// What came with a message was closed by reading without it; without this answer the worker would
    /// keep all its later messages to itself.
    fn acknowledge(&self, handles: usize) {
        for _ in 0..handles {
            // Who does not read its answers has no use for them.
            let _ = (&self.stream).write_all(ACKNOWLEDGED.as_bytes());
        }
    }
}

impl Daemon {
    /// Once for an app: that each of its workers runs a cluster of its own, as its tree shows. By the time
    /// that such a worker listens, those that it serves by have asked it to.
    pub(super) fn look_for_own_cluster(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get(worker) else { return };
        let instances = process.recipe.policy.instances;
        if instances < 2
            || !process.command.speaks_node_ipc
            || self.warned.knows("cluster", Some(process.app))
        {
            return;
        }
        let forked = |pid: &i32| matches!(process::started_with(*pid, FORKED), Started::With(_));
        let count = self.processes.tree_of(worker).iter().filter(|pid| forked(pid)).count();
        if count > 0 {
            self.warn_once_of(worker, "cluster", || {
                format!(
                    "it forks {count} processes by Node's cluster module, and so does each of its {instances} \
                     instances; do not double-cluster: leave out cluster.fork() and let instances say how many \
                     run, or write instances = 1 (which gives up reloads of one process at a time)"
                )
            });
        }
    }
}

fn says_ready(line: &[u8]) -> bool {
    serde_json::from_slice::<&str>(line).is_ok_and(|message| message == "ready")
}

/// Splits a stream into lines of at most [`LIMIT`] bytes.
#[derive(Debug, Default)]
struct Lines {
    tail: Vec<u8>,
    skipping: bool,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if !self.skipping && self.tail.len() + end <= LIMIT {
                self.tail.extend_from_slice(&bytes[..end]);
                sink(&self.tail);
            }
            self.tail.clear();
            self.skipping = false;
            bytes = &bytes[end + 1..];
        }
        if self.skipping || self.tail.len() + bytes.len() > LIMIT {
            self.tail = Vec::new();
            self.skipping = true;
        } else {
            self.tail.extend_from_slice(bytes);
        }
    }
}

/// Any stream of messages, for [`crate::fuzz`]: the same is heard in any chunking, and memory is bounded.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) -> u64 {
    let heard = |chunk: usize| {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        for part in bytes.chunks(chunk) {
            lines.push(part, |line| heard.push((says_ready(line), line.starts_with(HANDLE), line.len())));
            assert!(lines.tail.len() <= LIMIT);
        }
        heard
    };
    let whole = heard(bytes.len().max(1));
    assert_eq!(heard(bytes.first().map_or(1, |b| usize::from(*b % 32) + 1)), whole);
    crate::fuzz::shape(
        whole.iter().map(|(ready, handle, length)| format!("{ready}{handle}{}", length.min(&2))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready_in(chunks: &[&[u8]]) -> usize {
        let mut lines = Lines::default();
        let mut count = 0;
        for chunk in chunks {
            lines.push(chunk, |line| count += usize::from(says_ready(line)));
        }
        count
    }

    #[test]
    fn ready_is_heard_in_any_chunking() {
        assert_eq!(ready_in(&[b"\"ready\"\n"]), 1);
        assert_eq!(ready_in(&[b"\"re", b"ady\"", b"\n{\"cmd\":\"NODE_x\"}\n"]), 1);
    }

    #[test]
    fn other_messages_are_not_ready() {
        assert_eq!(ready_in(&[b"ready\n", b"{\"a\":\"ready\"}\n", b"\"READY\"\n", b"[\"ready\"]\n"]), 0);
    }

    #[test]
    fn an_endless_message_is_skipped_and_the_next_one_heard() {
        let long = vec![b'x'; LIMIT];
        let mut lines = Lines::default();
        let mut count = 0;
        for chunk in [&long[..], &long[..], b"\n\"ready\"\n"] {
            lines.push(chunk, |line| count += usize::from(says_ready(line)));
            assert!(lines.tail.len() <= LIMIT);
        }
        assert_eq!(count, 1);
    }
}
