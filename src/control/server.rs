//! The server's end of the control socket: bytes ↔ requests and replies, for the supervisor's loop.
//!
//! It knows who may connect (the supervisor's own user, and root) and how long a line may be, and
//! nothing of what a request means: it executes none. One request per connection; bytes after the first
//! line are ignored. No client can hold it up, make it grow without bound, or end it:
//! connections, lines, unread answers and waiting times all have limits.
//!
//! The owner of the loop polls, hands each readiness of [`Server`]'s tokens to [`Server::ready`], calls
//! [`Server::turn`] as long as [`Server::wants_turn`] (before it polls again, without blocking), and
//! [`Server::expire`] at [`Server::next_deadline`]. Every [`Incoming::Request`] ends in exactly one way:
//! by a [`Server::reply`] with `last`, or by an [`Incoming::Closed`].

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use serde::Deserialize;

use super::frame::{self, Decoder, FrameError};
use super::protocol::{Error, Frame, Reply, Request, VERSION};
use crate::supervisor::time::Time;
use crate::sys::socket;

/// Connections at a time, the reserved one included. Fewer when the range of tokens is smaller.
pub const CONNECTION_LIMIT: usize = 256;

/// Answers a client has not read yet, in bytes; one more, and it is dropped.
pub const UNREAD_LIMIT: usize = 1024 * 1024;

/// From connect to the end of the request.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// So long a client that says nothing keeps its place, whoever else waits: a flood must not push out
/// those that are about to speak.
const HEARING_TIME: Duration = Duration::from_millis(100);

/// Without a byte of a waiting answer being taken.
const UNREAD_TIME: Duration = Duration::from_secs(10);

/// Until the next look when the host is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Per turn: connections accepted; bytes read from, and written to, one client.
const ACCEPT_BUDGET: usize = 32;
const BYTE_BUDGET: usize = 64 * 1024;

/// One connection. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What came from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A client's wish. It waits for an answer.
    Request {
        /// Who.
        client: ClientId,
        /// What. Boxed, as the other variants are small.
        request: Box<Request>,
    },
    /// A client that made a request went away, or was dropped, before its last answer was given.
    Closed {
        /// Who.
        client: ClientId,
    },
    /// Somebody else's process connected; it was closed before a byte was read.
    Refused {
        /// Its user.
        uid: u32,
        /// Its process.
        pid: i32,
    },
}

/// What poll said about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read, or to accept.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The peer closed both directions (EPOLLHUP, EPOLLERR).
    pub gone: bool,
}

impl From<&mio::event::Event> for Readiness {
    fn from(event: &mio::event::Event) -> Readiness {
        Readiness {
            readable: event.is_readable() || event.is_read_closed(),
            writable: event.is_writable(),
            gone: event.is_write_closed() || event.is_error(),
        }
    }
}

/// The listening control socket and its connections.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file: somebody else's file at our path is not ours to remove.
    file: (u64, u64),
    registry: Registry,
    tokens: Range<usize>,
    owner: u32,
    /// One place per token after the first; grows to the limit.
    places: Vec<Option<Connection>>,
    by_client: BTreeMap<ClientId, usize>,
    last_client: u64,
    /// Places with more to do than one turn's budget, or with a fresh answer.
    busy: VecDeque<usize>,
    accepting: Accepting,
    /// Given up to accept one more connection when descriptors have run out, so that the owner can still
    /// ask what is going on.
    spare: Option<File>,
    /// Dropped where nobody could be told; told at the next opportunity.
    dropped: Vec<ClientId>,
    now: Time,
}

/// Edge-triggered: a queue that was not emptied must be remembered.
#[derive(Debug, PartialEq, Eq)]
enum Accepting {
    /// The queue was empty.
    Waiting,
    /// There may be more.
    More,
    /// The host could give no descriptor or memory, or every place is taken by somebody who came just
    /// now; look again then.
    PausedUntil(Time),
}

#[derive(Debug)]
struct Connection {
    client: ClientId,
    stream: UnixStream,
    phase: Phase,
    output: Output,
    /// Is in `Server::busy`.
    queued: bool,
    /// May leave its answers unread for as long as it likes: who sends them leaves some out.
    follows: bool,
}

#[derive(Debug)]
enum Phase {
    /// The request has not come whole.
    Reading { decoder: Decoder, until: Time },
    /// The request was handed on; answers are owed.
    Serving,
    /// The last answer is in the buffer.
    Closing,
}

#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// When the client last took some, or the first one came.
    moved: Time,
}

impl Output {
    fn unread(&self) -> usize {
        self.bytes.len() - self.written
    }
}

enum Flow {
    /// Everything was done that can be done now.
    Idle,
    /// The budget is spent.
    More,
    /// The connection has ended.
    Over,
}

impl Server {
    /// Listens at `path`, in place of a stale socket there: the caller holds the lock of this home.
    /// The first of `tokens` is the listener's, each connection has another one. An error names the path.
    pub fn bind(path: &Path, registry: &Registry, tokens: Range<usize>) -> io::Result<Server> {
        let (mut listener, file) = listen(path)?;
        registry.register(&mut listener, Token(tokens.start), Interest::READABLE)?;
        Ok(Server {
            listener,
            path: path.to_owned(),
            file,
            registry: registry.try_clone()?,
            tokens,
            owner: socket::own_uid(),
            places: Vec::new(),
            by_client: BTreeMap::new(),
            last_client: 0,
            busy: VecDeque::new(),
            accepting: Accepting::Waiting,
            spare: spare(),
            dropped: Vec::new(),
            now: Time::START,
        })
    }

    /// Whether clients find the socket under its path.
    pub fn is_found(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Listens at the path anew, since somebody took the socket file away. Connections go on, and who waits in
    /// the old queue comes in first.
    ///
    /// # Errors
    /// As [`Server::bind`]; the old socket listens on then.
    pub fn bind_again(&mut self, now: Time, out: &mut Vec<Incoming>) -> io::Result<()> {
        let (mut listener, file) = listen(&self.path)?;
        self.registry.register(&mut listener, Token(self.tokens.start), Interest::READABLE)?;
        self.now = now;
        for _ in 0..socket::BACKLOG.unsigned_abs().div_ceil(ACCEPT_BUDGET as u32) {
            self.accept(out);
        }
        self.listener = listener;
        self.file = file;
        self.accepting = Accepting::More;
        Ok(())
    }

    /// Takes the socket file away, if it is still ours: whoever comes from now on finds no supervisor, rather than one
    /// that hears nobody. Failing leaves a stale file, which the next supervisor replaces.
    pub fn leave(&mut self) {
        if self.is_found() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether an event with this token belongs here.
    pub fn owns(&self, token: Token) -> bool {
        self.tokens.contains(&token.0)
    }

    /// Takes one event of poll. A token without a connection is a late event, and ignored.
    pub fn ready(&mut self, token: Token, readiness: Readiness, now: Time, out: &mut Vec<Incoming>) {
        self.now = now;
        if token.0 == self.tokens.start {
            self.accept(out);
        } else if let Some(place) = token.0.checked_sub(self.tokens.start + 1) {
            self.step(place, readiness, out);
        }
        self.tell_dropped(out);
    }

    /// Whether [`Server::turn`] has something to do that no further event will announce.
    pub fn wants_turn(&self) -> bool {
        !self.busy.is_empty() || self.accepting == Accepting::More || !self.dropped.is_empty()
    }

    /// Goes on where budgets ended, and sends fresh answers: each connection once.
    pub fn turn(&mut self, now: Time, out: &mut Vec<Incoming>) {
        self.now = now;
        if self.accepting == Accepting::More {
            self.accept(out);
        }
        for _ in 0..self.busy.len() {
            let Some(place) = self.busy.pop_front() else { break };
            if let Some(connection) = self.at(place) {
                connection.queued = false;
                self.step(place, Readiness { readable: true, writable: true, gone: false }, out);
            }
        }
        self.tell_dropped(out);
    }

    /// Adds an answer. `last` ends the connection once it is sent. A client whose unread answers are over
    /// [`UNREAD_LIMIT`] is dropped; one that is gone is ignored. An answer too long for a line is
    /// replaced by an error that says so.
    pub fn reply(&mut self, client: ClientId, reply: &Reply, last: bool) {
        let line = frame::encode(reply).or_else(|error| frame::encode(&too_long(error)));
        let Ok(line) = line else { return };
        let Some(&place) = self.by_client.get(&client) else { return };
        let now = self.now;
        let Some(connection) = self.at(place) else { return };
        if last {
            connection.phase = Phase::Closing;
        }
        if connection.output.unread() > UNREAD_LIMIT {
            return self.close(place);
        }
        if connection.output.unread() == 0 {
            connection.output.moved = now;
        }
        connection.output.bytes.extend_from_slice(&line);
        if last {
            // Not left to a later turn: after `kill` there may be none.
            self.flush(place);
        } else {
            self.queue(place);
        }
    }

    /// Bytes of answers that this client has not taken yet; `None` when it is gone. Who streams to it can
    /// leave out lines rather than have it dropped.
    pub fn unread(&self, client: ClientId) -> Option<usize> {
        let place = *self.by_client.get(&client)?;
        self.places.get(place)?.as_ref().map(|connection| connection.output.unread())
    }

    /// This client takes its answers when it likes (`clusterd logs | less`). Who sends them has to look at
    /// [`Server::unread`], and to leave some out.
    pub fn be_patient(&mut self, client: ClientId) {
        let place = self.by_client.get(&client).copied();
        if let Some(connection) = place.and_then(|place| self.at(place)) {
            connection.follows = true;
        }
    }

    /// When [`Server::expire`] has something to do at the earliest.
    pub fn next_deadline(&self) -> Option<Time> {
        let pause = match self.accepting {
            Accepting::PausedUntil(time) => Some(time),
            Accepting::Waiting | Accepting::More => None,
        };
        self.places.iter().flatten().filter_map(Connection::deadline).chain(pause).min()
    }

    /// Ends connections that are past their time, and takes up accepting again.
    pub fn expire(&mut self, now: Time, out: &mut Vec<Incoming>) {
        self.now = now;
        for place in 0..self.places.len() {
            let late =
                self.at(place).and_then(|connection| connection.deadline()).is_some_and(|at| at <= now);
            if late {
                self.expire_one(place);
            }
        }
        if matches!(self.accepting, Accepting::PausedUntil(at) if at <= now) {
            self.spare = self.spare.take().or_else(spare);
            self.accept(out);
        }
        self.tell_dropped(out);
    }

    fn at(&mut self, place: usize) -> Option<&mut Connection> {
        self.places.get_mut(place)?.as_mut()
    }

    fn queue(&mut self, place: usize) {
        let Some(connection) = self.at(place) else { return };
        if !std::mem::replace(&mut connection.queued, true) {
            self.busy.push_back(place);
        }
    }

    fn tell_dropped(&mut self, out: &mut Vec<Incoming>) {
        out.extend(self.dropped.drain(..).map(|client| Incoming::Closed { client }));
    }

    fn accept(&mut self, out: &mut Vec<Incoming>) {
        for _ in 0..ACCEPT_BUDGET {
            if let Some(until) = self.heard_until() {
                self.accepting = Accepting::PausedUntil(until);
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, out),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accepting = Accepting::Waiting;
                    return;
                }
                Err(error) if is_passing(&error) => {}
                // accept(2) fails before it takes a connection from the queue, so nobody is lost.
                Err(error) if is_out_of_descriptors(&error) && self.spare.take().is_some() => {}
                Err(_) => {
                    self.accepting = Accepting::PausedUntil(self.now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
        self.accepting = Accepting::More;
    }

    fn admit(&mut self, mut stream: UnixStream, out: &mut Vec<Incoming>) {
        let Ok(peer) = socket::peer(&stream) else { return };
        if !may_connect(peer.uid, self.owner) {
            out.push(Incoming::Refused { uid: peer.uid, pid: peer.pid });
            return;
        }
        let Some(place) = self.free_place(peer.uid == self.owner) else {
            // The socket's buffer is empty, so this is taken whole; if not, the close says enough.
            let busy =
                failure(1, "the supervisor has too many clients already; end some of them (`clusterd logs`)");
            let _ = frame::encode(&busy).map(|line| stream.write(&line));
            return;
        };
        let token = Token(self.tokens.start + 1 + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut stream, token, interest) {
            let unheard = failure(1, format!("the supervisor cannot watch one more connection: {error}"));
            let _ = frame::encode(&unheard).map(|line| stream.write(&line));
            return;
        }
        self.last_client += 1;
        let client = ClientId(self.last_client);
        let phase = Phase::Reading { decoder: Decoder::new(), until: self.now + REQUEST_TIME };
        self.by_client.insert(client, place);
        self.places[place] = Some(Connection {
            client,
            stream,
            phase,
            output: Output::default(),
            queued: false,
            follows: false,
        });
        // Most have said already what they want.
        self.queue(place);
    }

    /// When the next place can be taken from its client; none if there is one already, or never will be.
    fn heard_until(&self) -> Option<Time> {
        if self.by_client.len() < self.limit() {
            return None;
        }
        let oldest = self.places.get(self.oldest_reader()?)?.as_ref()?;
        let Phase::Reading { until, .. } = oldest.phase else { return None };
        let heard = until + HEARING_TIME;
        (self.now + REQUEST_TIME < heard).then(|| self.now + heard.since(self.now + REQUEST_TIME))
    }

    fn limit(&self) -> usize {
        self.tokens.len().saturating_sub(1).min(CONNECTION_LIMIT)
    }

    /// A place for one more: a free one (the last only for the owner), else that of whom we wait for
    /// without having got anything. `None`: all are being served.
    fn free_place(&mut self, owner: bool) -> Option<usize> {
        let limit = self.limit();
        let usable = if owner { limit } else { limit.saturating_sub(1) };
        if self.by_client.len() >= usable {
            let place = self.oldest_reader()?;
            self.close(place);
            return Some(place);
        }
        let free = self.places.iter().position(Option::is_none);
        Some(free.unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        }))
    }

    /// Who sent nothing goes before who sent a part of a request; among equals the oldest.
    fn oldest_reader(&self) -> Option<usize> {
        let readers = self.by_client.iter().filter_map(|(client, &place)| {
            match &self.places.get(place)?.as_ref()?.phase {
                Phase::Reading { decoder, .. } => Some((decoder.unfinished() > 0, *client, place)),
                Phase::Serving | Phase::Closing => None,
            }
        });
        readers.min().map(|(_, _, place)| place)
    }

    fn step(&mut self, place: usize, readiness: Readiness, out: &mut Vec<Incoming>) {
        if readiness.readable {
            self.receive(place, out);
        }
        if readiness.gone {
            self.close(place);
        } else if readiness.writable {
            self.flush(place);
        }
    }

    fn receive(&mut self, place: usize, out: &mut Vec<Incoming>) {
        let Some(connection) = self.at(place) else { return };
        match connection.read_request() {
            Ok(Got::Request(request)) => {
                connection.phase = Phase::Serving;
                out.push(Incoming::Request { client: connection.client, request });
            }
            Ok(Got::Nothing(Flow::Idle)) => {}
            Ok(Got::Nothing(Flow::More)) => self.queue(place),
            Ok(Got::Nothing(Flow::Over)) => self.close(place),
            Err(error) => self.refuse(place, &Reply::Error(error)),
        }
    }

    /// Answers what is no request, and ends.
    fn refuse(&mut self, place: usize, reply: &Reply) {
        let now = self.now;
        let Some(connection) = self.at(place) else { return };
        connection.phase = Phase::Closing;
        connection.output.moved = now;
        if let Ok(line) = frame::encode(reply) {
            connection.output.bytes.extend_from_slice(&line);
        }
        self.flush(place);
    }

    fn flush(&mut self, place: usize) {
        let now = self.now;
        let Some(connection) = self.at(place) else { return };
        match connection.write(now) {
            Flow::Idle => {}
            Flow::More => self.queue(place),
            Flow::Over => self.close(place),
        }
    }

    fn expire_one(&mut self, place: usize) {
        let Some(connection) = self.at(place) else { return };
        match connection.phase {
            Phase::Reading { .. } => {
                let text = format!("no request came within {} s of connecting", REQUEST_TIME.as_secs());
                self.refuse(place, &failure(2, text));
            }
            Phase::Serving | Phase::Closing => self.close(place),
        }
    }

    fn close(&mut self, place: usize) {
        let Some(mut connection) = self.places.get_mut(place).and_then(Option::take) else { return };
        self.by_client.remove(&connection.client);
        // It is closed in the next line, which takes it from epoll anyway.
        let _ = self.registry.deregister(&mut connection.stream);
        connection.discard_input();
        if matches!(connection.phase, Phase::Serving) {
            self.dropped.push(connection.client);
        }
        drop(connection);
        if self.spare.is_none() {
            self.spare = spare();
        }
        if matches!(self.accepting, Accepting::PausedUntil(_)) {
            self.accepting = Accepting::More;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The outcome of reading for a request.
enum Got {
    Request(Box<Request>),
    Nothing(Flow),
}

impl Connection {
    fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Reading { until, .. } => Some(until),
            Phase::Serving if self.follows => None,
            Phase::Serving | Phase::Closing => {
                (self.output.unread() > 0).then(|| self.output.moved + UNREAD_TIME)
            }
        }
    }

    fn read_request(&mut self) -> Result<Got, Error> {
        let Phase::Reading { decoder, .. } = &mut self.phase else { return Ok(Got::Nothing(Flow::Idle)) };
        let mut chunk = [0; 16 * 1024];
        for _ in 0..BYTE_BUDGET / chunk.len() {
            match self.stream.read(&mut chunk) {
                Ok(0) if decoder.unfinished() == 0 => return Ok(Got::Nothing(Flow::Over)),
                Ok(0) => return Err(error(2, "the request ended before its newline")),
                Ok(count) => decoder.push(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Got::Nothing(Flow::Idle));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(Got::Nothing(Flow::Over)),
            }
            match decoder.next_line() {
                None => {}
                Some(Ok(line)) => return parse(&line).map(|request| Got::Request(Box::new(request))),
                Some(Err(problem)) => return Err(error(2, problem)),
            }
        }
        Ok(Got::Nothing(Flow::More))
    }

    fn write(&mut self, now: Time) -> Flow {
        let output = &mut self.output;
        let end = output.bytes.len().min(output.written + BYTE_BUDGET);
        while output.written < end {
            match self.stream.write(&output.bytes[output.written..end]) {
                Ok(0) => return Flow::Over,
                Ok(count) => {
                    output.written += count;
                    output.moved = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flow::Idle,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Flow::Over,
            }
        }
        if output.unread() > 0 {
            output.bytes.drain(..output.written);
            output.written = 0;
            return Flow::More;
        }
        *output = Output { moved: now, ..Output::default() };
        match self.phase {
            Phase::Closing => Flow::Over,
            Phase::Reading { .. } | Phase::Serving => Flow::Idle,
        }
    }

    /// Unread input at close would reach the peer as ECONNRESET (unix_release_sock in Linux), which some
    /// clients report instead of the answer. Bounded: who goes on sending gets the reset.
    fn discard_input(&mut self) {
        let mut chunk = [0; 16 * 1024];
        for _ in 0..BYTE_BUDGET / chunk.len() {
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

/// The supervisor's own user, and root, who could take over either way.
const fn may_connect(uid: u32, owner: u32) -> bool {
    uid == owner || uid == 0
}

/// The version first: of another protocol not even the fields are known.
fn parse(line: &[u8]) -> Result<Request, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let shape = |cause: serde_json::Error| error(2, format_args!("this is no request of clusterd: {cause}"));
    let Versioned { version } = serde_json::from_slice(line).map_err(shape)?;
    if version != VERSION {
        let text = format!(
            "the supervisor speaks version {VERSION} of the protocol, the client version {version}: \
             use the `clusterd` that the supervisor was started with, or restart the supervisor"
        );
        return Err(error(1, text));
    }
    serde_json::from_slice::<Frame>(line).map(|frame| frame.request).map_err(shape)
}

fn error(code: i32, message: impl ToString) -> Error {
    Error { code, message: message.to_string(), failures: Vec::new() }
}

fn failure(code: i32, message: impl ToString) -> Reply {
    Reply::Error(error(code, message))
}

fn too_long(problem: FrameError) -> Reply {
    failure(1, format_args!("the answer cannot be sent ({problem}); ask for fewer apps at a time"))
}

fn listen(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = socket::listen(path)?;
    Ok((UnixListener::from_std(listener), identity(path)?))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// A descriptor to give up in need. Without one there is just no reserve.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The one connection failed, not the listener.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "waits for real sockets, each time with a deadline")]

    use super::*;
    use crate::control::protocol::{Done, FRAME_LIMIT};
    use std::os::unix::net::UnixStream as Client;
    use std::time::Instant;

    const PING: &[u8] = b"{\"version\":1,\"request\":{\"verb\":\"ping\"}}\n";

    struct Rig {
        poll: mio::Poll,
        server: Server,
        out: Vec<Incoming>,
        now: Time,
        folder: tempfile::TempDir,
    }

    impl Rig {
        fn new() -> Rig {
            Rig::with_places(CONNECTION_LIMIT)
        }

        /// What a client reads that takes so much at a time, until the server closes.
        fn read_to_the_end(&mut self, client: &mut Client, at_a_time: usize) -> Vec<Reply> {
            client.set_nonblocking(true).unwrap();
            let (mut text, mut chunk) = (Vec::new(), vec![0; at_a_time]);
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                assert!(Instant::now() < deadline);
                match client.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => text.extend_from_slice(&chunk[..count]),
                    Err(_) => self.settle(),
                }
            }
            replies(std::str::from_utf8(&text).unwrap())
        }

        fn with_places(count: usize) -> Rig {
            let folder = tempfile::tempdir().unwrap();
            let poll = mio::Poll::new().unwrap();
            let server = Server::bind(&folder.path().join("s"), poll.registry(), 100..101 + count).unwrap();
            Rig { poll, server, out: Vec::new(), now: Time::START, folder }
        }

        fn connect(&self) -> Client {
            let client = Client::connect(self.folder.path().join("s")).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client
        }

        /// One round of the loop, as the daemon runs it.
        fn round(&mut self, wait: Duration) {
            let mut events = mio::Events::with_capacity(64);
            let wait = if self.server.wants_turn() { Duration::ZERO } else { wait };
            self.poll.poll(&mut events, Some(wait)).unwrap();
            for event in &events {
                self.server.ready(event.token(), event.into(), self.now, &mut self.out);
            }
            if self.server.wants_turn() {
                self.server.turn(self.now, &mut self.out);
            }
        }

        #[track_caller]
        fn until(&mut self, what: impl Fn(&Rig) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !what(self) {
                assert!(Instant::now() < deadline, "never came: {:?}", self.out);
                self.round(Duration::from_millis(20));
            }
        }

        /// Everything that is under way has been taken.
        fn settle(&mut self) {
            loop {
                let mut events = mio::Events::with_capacity(64);
                self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
                if events.is_empty() && !self.server.wants_turn() {
                    return;
                }
                for event in &events {
                    self.server.ready(event.token(), event.into(), self.now, &mut self.out);
                }
                self.server.turn(self.now, &mut self.out);
            }
        }

        fn clients(&self) -> usize {
            self.server.by_client.len()
        }

        /// Sends the bytes, and waits for the request that they make.
        #[track_caller]
        fn request(&mut self, bytes: &[u8]) -> (Client, ClientId) {
            let mut client = self.connect();
            client.write_all(bytes).unwrap();
            let before = self.out.len();
            self.until(|rig| rig.out.len() > before);
            match self.out.pop() {
                Some(Incoming::Request { client: id, .. }) => (client, id),
                other => panic!("no request: {other:?}"),
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now = self.now + time;
            self.server.expire(self.now, &mut self.out);
        }
    }

    fn read_all(client: &mut Client) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    fn replies(text: &str) -> Vec<Reply> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn pong() -> Reply {
        Reply::Pong { pid: 7 }
    }

    fn error_of(client: &mut Client) -> Error {
        match replies(&read_all(client)).as_slice() {
            [Reply::Error(error)] => error.clone(),
            other => panic!("not one error: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_handed_on_and_its_answers_come_in_order() {
        let mut rig = Rig::new();
        let (mut client, id) = rig.request(PING);
        rig.server.reply(id, &Reply::Done(Done { message: "first".into(), apps: vec![] }), false);
        rig.server.reply(id, &pong(), true);
        let replies = replies(&read_all(&mut client));
        assert_eq!(replies.len(), 2);
        assert_eq!(replies[1], pong());
        rig.settle();
        assert_eq!((rig.clients(), rig.out.len()), (0, 0));
    }

    #[test]
    fn a_request_in_single_bytes_is_one_request_and_what_follows_is_ignored() {
        let mut rig = Rig::new();
        let mut client = rig.connect();
        for byte in PING {
            client.write_all(&[*byte]).unwrap();
            rig.settle();
        }
        client.write_all(PING).unwrap();
        client.write_all(b"garbage\n").unwrap();
        rig.settle();
        assert_eq!(rig.out.len(), 1);
        let Some(Incoming::Request { client: id, .. }) = rig.out.pop() else { panic!() };
        rig.server.reply(id, &pong(), true);
        assert_eq!(replies(&read_all(&mut client)), [pong()]);
    }

    #[test]
    fn bad_lines_get_a_typed_error_and_the_end() {
        for (bytes, code, what) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], 2, "no request of clusterd"),
            (b"{\"version\":1,\"request\":{\"verb\":\"explode\"}}\n", 2, "explode"),
            (b"{\"version\":1,\"request\":{\"verb\":\"ping\",\"x\":1}}\n", 2, "unknown field"),
            (b"{\"version\":99,\"wish\":null}\n", 1, "version 99"),
            (b"\xff\xfe\n", 2, "no request of clusterd"),
            (b"\n", 2, "no request of clusterd"),
        ] {
            let mut rig = Rig::new();
            let mut client = rig.connect();
            client.write_all(bytes).unwrap();
            rig.until(|rig| rig.server.last_client == 1 && rig.clients() == 0);
            let error = error_of(&mut client);
            assert_eq!(error.code, code, "{error:?}");
            assert!(error.message.contains(what), "{error:?}");
            assert_eq!(rig.out, []);
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_stack_overflow() {
        let mut rig = Rig::new();
        let mut client = rig.connect();
        client.write_all(&[&vec![b'['; 100_000][..], b"\n"].concat()).unwrap();
        rig.until(|rig| rig.server.last_client == 1 && rig.clients() == 0);
        assert_eq!(error_of(&mut client).code, 2);
    }

    #[test]
    fn a_line_over_the_limit_is_refused_without_being_kept() {
        let mut rig = Rig::new();
        let mut client = rig.connect();
        client.set_nonblocking(true).unwrap();
        let chunk = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        while sent <= FRAME_LIMIT {
            assert!(Instant::now() < deadline);
            if let Ok(count) = client.write(&chunk) {
                sent += count;
            }
            rig.settle();
        }
        rig.until(|rig| rig.clients() == 0);
        client.set_nonblocking(false).unwrap();
        assert!(error_of(&mut client).message.contains("longer than"));
    }

    #[test]
    fn a_request_that_ends_without_its_newline_is_told_so() {
        let mut rig = Rig::new();
        let mut client = rig.connect();
        client.write_all(&PING[..PING.len() - 1]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!({
            rig.until(|rig| rig.server.last_client == 1 && rig.clients() == 0);
            error_of(&mut client).message.contains("before its newline")
        });
    }

    #[test]
    fn a_client_that_only_closed_its_sending_side_still_gets_its_answer() {
        let mut rig = Rig::new();
        let (mut client, id) = rig.request(PING);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        rig.settle();
        assert_eq!(rig.out, []);
        rig.server.reply(id, &pong(), true);
        assert_eq!(replies(&read_all(&mut client)), [pong()]);
    }

    #[test]
    fn a_client_that_goes_away_is_told_once_and_its_request_was_handed_on() {
        let mut rig = Rig::new();
        let mut client = rig.connect();
        client.write_all(PING).unwrap();
        drop(client);
        rig.until(|rig| rig.out.len() == 2);
        assert!(matches!(
            rig.out[..],
            [Incoming::Request { client: asked, .. }, Incoming::Closed { client: gone }] if asked == gone
        ));
        rig.server.reply(ClientId(1), &pong(), true);
        rig.settle();
        assert_eq!((rig.out.len(), rig.clients()), (2, 0));
    }

    #[test]
    fn a_silent_client_is_closed_after_five_seconds_and_not_before() {
        let mut rig = Rig::new();
        let mut silent = rig.connect();
        let mut partial = rig.connect();
        partial.write_all(b"{\"ver").unwrap();
        rig.until(|rig| rig.clients() == 2);
        rig.settle();
        assert_eq!(rig.server.next_deadline(), Some(Time::START + REQUEST_TIME));
        rig.pass(Duration::from_millis(4_999));
        assert_eq!(rig.clients(), 2);
        rig.pass(Duration::from_millis(1));
        assert_eq!((rig.clients(), rig.server.next_deadline()), (0, None));
        assert!(error_of(&mut silent).message.contains("within 5 s"));
        assert!(error_of(&mut partial).message.contains("within 5 s"));
        assert_eq!(rig.out, []);
    }

    #[test]
    fn a_request_that_is_being_served_may_take_for_ever() {
        let mut rig = Rig::new();
        let (_client, _) = rig.request(PING);
        assert_eq!(rig.server.next_deadline(), None);
        rig.pass(Duration::from_secs(3600));
        assert_eq!(rig.clients(), 1);
    }

    #[test]
    fn a_client_that_never_reads_is_dropped_and_bounded() {
        let mut rig = Rig::new();
        let (_client, id) = rig.request(PING);
        let line = Reply::Done(Done { message: "x".repeat(100_000), apps: vec![] });
        for _ in 0..100 {
            rig.server.reply(id, &line, false);
            assert!(rig.server.unread(id).unwrap_or(0) <= UNREAD_LIMIT + FRAME_LIMIT + 1);
            rig.settle();
        }
        assert_eq!(rig.server.unread(id), None);
        assert_eq!(rig.out, [Incoming::Closed { client: id }]);
    }

    #[test]
    fn answers_that_nobody_takes_for_ten_seconds_end_the_connection() {
        let mut rig = Rig::new();
        let (client, id) = rig.request(PING);
        let line = Reply::Done(Done { message: "x".repeat(900_000), apps: vec![] });
        rig.server.reply(id, &line, false);
        rig.settle();
        let deadline = rig.server.next_deadline().unwrap();
        assert_eq!(deadline, Time::START + UNREAD_TIME);
        rig.pass(UNREAD_TIME);
        assert_eq!(rig.out, [Incoming::Closed { client: id }]);
        drop(client);
    }

    #[test]
    fn a_client_that_follows_may_stand_still_and_then_goes_on() {
        let mut rig = Rig::new();
        let (mut client, id) = rig.request(PING);
        rig.server.be_patient(id);
        let line = Reply::Done(Done { message: "x".repeat(900_000), apps: vec![] });
        rig.server.reply(id, &line, false);
        rig.settle();
        assert_eq!(rig.server.next_deadline(), None);
        rig.pass(Duration::from_secs(3600));
        rig.server.reply(id, &Reply::Following {}, true);
        assert_eq!(rig.read_to_the_end(&mut client, 64 * 1024), [line, Reply::Following {}]);
    }

    #[test]
    fn a_large_answer_arrives_whole_over_many_turns() {
        let mut rig = Rig::new();
        let (mut client, id) = rig.request(PING);
        let line = Reply::Done(Done { message: "x".repeat(1_000_000), apps: vec![] });
        rig.server.reply(id, &line, true);
        assert_eq!(rig.read_to_the_end(&mut client, 8 * 1024), [line]);
        assert_eq!(rig.out, []);
    }

    #[test]
    fn an_answer_too_long_for_a_line_becomes_an_error_that_says_so() {
        let mut rig = Rig::new();
        let (mut client, id) = rig.request(PING);
        rig.server.reply(id, &Reply::Done(Done { message: "x".repeat(FRAME_LIMIT), apps: vec![] }), true);
        assert!(error_of(&mut client).message.contains("fewer apps"));
    }

    #[test]
    fn a_flood_of_silent_clients_leaves_room_for_one_who_speaks() {
        let mut rig = Rig::new();
        let mut flood = Vec::new();
        for number in 0..600 {
            if number % CONNECTION_LIMIT == 0 {
                rig.pass(HEARING_TIME);
            }
            flood.push(rig.connect());
            rig.settle();
        }
        assert_eq!(rig.clients(), CONNECTION_LIMIT);
        rig.pass(HEARING_TIME);
        let (mut client, id) = rig.request(PING);
        rig.server.reply(id, &pong(), true);
        assert_eq!(replies(&read_all(&mut client)), [pong()]);
    }

    #[test]
    fn who_sent_nothing_makes_room_before_who_began_to_speak() {
        let mut rig = Rig::with_places(2);
        let mut speaking = rig.connect();
        speaking.write_all(&PING[..5]).unwrap();
        rig.settle();
        let mut silent = rig.connect();
        rig.settle();
        rig.pass(HEARING_TIME);
        let _third = rig.connect();
        rig.settle();
        assert_eq!(read_all(&mut silent), "");
        speaking.write_all(&PING[5..]).unwrap();
        rig.settle();
        assert!(matches!(rig.out[..], [Incoming::Request { client: ClientId(1), .. }]));
    }

    #[test]
    fn who_came_just_now_is_not_pushed_out_before_it_could_speak() {
        let mut rig = Rig::with_places(2);
        let mut first = rig.connect();
        rig.settle();
        let _second = rig.connect();
        rig.settle();
        let _flood: Vec<Client> = (0..50).map(|_| rig.connect()).collect();
        rig.settle();
        assert_eq!(rig.server.next_deadline(), Some(Time::START + HEARING_TIME));
        first.write_all(PING).unwrap();
        rig.settle();
        assert!(matches!(rig.out[..], [Incoming::Request { client: ClientId(1), .. }]));
        rig.pass(HEARING_TIME);
        assert!(rig.server.last_client > 2, "nobody else is let in any more");
    }

    #[test]
    fn when_all_are_being_served_a_newcomer_is_told_and_nobody_is_dropped() {
        let mut rig = Rig::with_places(2);
        let _served = [rig.request(PING), rig.request(PING)];
        let mut late = rig.connect();
        rig.settle();
        assert!(error_of(&mut late).message.contains("too many clients"));
        assert_eq!((rig.clients(), rig.out.len()), (2, 0));
    }

    #[test]
    fn one_sender_without_end_does_not_take_more_than_its_budget_a_turn() {
        let mut rig = Rig::new();
        let mut greedy = rig.connect();
        rig.settle();
        greedy.set_nonblocking(true).unwrap();
        let chunk = vec![b'x'; 16 * 1024];
        while greedy.write(&chunk).is_ok() {}
        let mut polite = rig.connect();
        polite.write_all(PING).unwrap();
        rig.until(|rig| !rig.out.is_empty());
        assert!(matches!(rig.out[..], [Incoming::Request { .. }]));
    }

    #[test]
    fn somebody_elses_socket_at_our_path_is_not_removed() {
        let rig = Rig::new();
        let path = rig.folder.path().join("s");
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(rig.server);
        assert!(path.exists());
    }

    #[test]
    fn only_the_owner_and_root_may_connect() {
        for (uid, owner, may) in
            [(0, 0, true), (1000, 1000, true), (0, 1000, true), (1000, 0, false), (1001, 1000, false)]
        {
            assert_eq!(may_connect(uid, owner), may, "{uid} to {owner}");
        }
    }

    #[test]
    fn a_foreign_peer_is_refused_before_a_byte_is_read() {
        let us = socket::own_uid();
        if us == 0 {
            return; // Root is foreign to nobody; the rule itself has its own test.
        }
        let mut rig = Rig::new();
        rig.server.owner = us + 1;
        let mut client = rig.connect();
        client.write_all(PING).unwrap();
        rig.until(|rig| !rig.out.is_empty());
        assert!(matches!(rig.out[..], [Incoming::Refused { uid, .. }] if uid == us));
    }
}
