//! Connections of HTTP clients, for the supervisor's loop: one question each, one answer, and the end.
//!
//! No client can hold the loop up or make it grow: connections, heads, waiting times and bytes that wait to be taken
//! have limits. A connection is closed after its answer, and only when the client has, or a moment later: a close
//! with something unread would reset it, and the answer with it (RFC 9112, section 9.6).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use super::request::{Asked, HEAD_LIMIT, Names, Parsed, Refusal, parse};
use crate::supervisor::time::Time;

/// Connections at a time. One more takes the place of the one that has been there longest.
pub const CONNECTION_LIMIT: usize = 64;

/// Bytes of answers that wait to be taken, of all connections together.
pub const UNREAD_LIMIT: usize = 16 * 1024 * 1024;

/// From the connection to the end of its request.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Without a byte of the answer being taken, and in all.
const ANSWER_TIME: Duration = Duration::from_secs(10);
const WHOLE_TIME: Duration = Duration::from_secs(30);

/// An answer that finds room in any case: whether the supervisor lives must not depend on who reads slowly.
const SMALL: usize = 4 * 1024;

/// For the client to close after its answer.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What is read of a client after its request, to be thrown away.
const LINGER_LIMIT: usize = 64 * 1024;

/// Until the next look when the host is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Connections accepted in one turn.
const ACCEPT_BUDGET: usize = 16;

/// Bytes read from one connection at a time.
const PIECE: usize = 4 * 1024;

/// Where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// By an address.
    Tcp(TcpListener),
    /// By a file.
    Unix(UnixListener),
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code and its phrase.
    pub status: (u16, &'static str),
    /// The type of its body.
    pub kind: &'static str,
    /// Its body.
    pub body: Vec<u8>,
}

/// Plain text for people.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// What is taken for success.
pub const OK: (u16, &str) = (200, "OK");

#[derive(Debug)]
struct Connection {
    stream: Stream,
    token: Token,
    phase: Phase,
    /// When it ends at the latest.
    until: Time,
    /// Its answer has to be taken by then.
    ends: Time,
}

#[derive(Debug)]
enum Phase {
    /// The head of the request, as far as it has come.
    Reading(Vec<u8>),
    /// What it asks for takes some turns to be found out. What comes meanwhile is read afterwards.
    Answering,
    /// The answer, and how many bytes of it are written.
    Writing(Vec<u8>, usize),
    /// Everything was said; so many bytes may still come.
    Lingering(usize),
}

/// What became of a connection's turn.
enum Flow {
    /// It goes on when something comes.
    Waits,
    /// It has a question.
    Asks(Asked),
    /// It has ended.
    Over,
}

/// The listener and its connections.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    token: Token,
    names: Names,
    registry: Registry,
    /// In the order in which they came.
    connections: BTreeMap<u64, Connection>,
    next: u64,
    /// There may be more to accept, from then on.
    accept_at: Option<Time>,
}

impl Server {
    /// Takes over a listener, and has the poll tell of it by this token.
    ///
    /// # Errors
    /// Of epoll_ctl(2).
    pub fn new(mut listener: Listener, names: Names, registry: Registry, token: Token) -> io::Result<Server> {
        registry.register(source_of(&mut listener), token, Interest::READABLE)?;
        Ok(Server {
            listener,
            token,
            names,
            registry,
            connections: BTreeMap::new(),
            next: 0,
            accept_at: None,
        })
    }

    /// Where it listens; none of a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// By which names it is asked from now on.
    pub fn set_names(&mut self, names: Names) {
        self.names = names;
    }

    /// Of the listener.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Of every connection.
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        self.connections.values().map(|connection| connection.token)
    }

    /// Takes clients in. Each gets a token of `allot`'s; those that were taken out for it are the answer.
    pub fn accept(&mut self, now: Time, mut allot: impl FnMut(u64) -> Token) -> Vec<Token> {
        let mut ended = Vec::new();
        self.accept_at = None;
        for _ in 0..ACCEPT_BUDGET {
            let stream = match &self.listener {
                Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
                Listener::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            };
            match stream {
                Ok(stream) => ended.extend(self.admit(stream, now, &mut allot)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return ended,
                Err(error) if is_passing(&error) => {}
                Err(_) => {
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return ended;
                }
            }
        }
        self.accept_at = Some(now);
        ended
    }

    /// The token that is free for it.
    fn admit(
        &mut self,
        mut stream: Stream,
        now: Time,
        allot: &mut impl FnMut(u64) -> Token,
    ) -> Option<Token> {
        let id = self.next;
        let token = allot(id);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.registry.register(stream.source(), token, interest).is_err() {
            return Some(token);
        }
        self.next += 1;
        let phase = Phase::Reading(Vec::new());
        self.connections.insert(
            id,
            Connection { stream, token, phase, until: now + REQUEST_TIME, ends: now + WHOLE_TIME },
        );
        let oldest = *self.connections.keys().next()?;
        if self.connections.len() > CONNECTION_LIMIT { self.close(oldest) } else { None }
    }

    /// Goes on with a connection; a question it has. None of one that has ended.
    pub fn ready(&mut self, id: u64, now: Time) -> Option<Asked> {
        let connection = self.connections.get_mut(&id)?;
        match connection.advance(&self.names, now) {
            Flow::Waits | Flow::Over => None,
            Flow::Asks(asked) => Some(asked),
        }
    }

    /// Answers a question.
    pub fn answer(&mut self, id: u64, answer: &Answer, head_only: bool, now: Time) {
        let waiting: usize = self.connections.values().map(Connection::unread).sum();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if answer.body.len() > SMALL && waiting + answer.body.len() > UNREAD_LIMIT {
            connection.say(&refused(Refusal::Busy), head_only, now);
        } else {
            connection.say(answer, head_only, now);
        }
        connection.advance(&self.names, now);
    }

    /// The tokens of connections that have ended since.
    pub fn sweep(&mut self, now: Time) -> Vec<Token> {
        let late: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.until <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.expire(&self.names, now);
            }
        }
        let over = |connection: &Connection| connection.is_over();
        let ended: Vec<u64> = self.connections.iter().filter(|(_, c)| over(c)).map(|(id, _)| *id).collect();
        ended.into_iter().filter_map(|id| self.close(id)).collect()
    }

    fn close(&mut self, id: u64) -> Option<Token> {
        let mut connection = self.connections.remove(&id)?;
        // A connection that the poll does not know is closed all the same.
        let _ = self.registry.deregister(connection.stream.source());
        Some(connection.token)
    }

    /// When something is to be done at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        self.connections.values().map(|connection| connection.until).chain(self.accept_at).min()
    }

    /// Whether clients wait to be taken in that the poll will not tell of.
    pub fn wants_accept(&self, now: Time) -> bool {
        self.accept_at.is_some_and(|at| at <= now)
    }

    /// Ends everything; the tokens that are free.
    pub fn end(mut self) -> Vec<Token> {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        let mut tokens: Vec<Token> = ids.into_iter().filter_map(|id| self.close(id)).collect();
        let _ = self.registry.deregister(source_of(&mut self.listener));
        tokens.push(self.token);
        tokens
    }
}

impl Connection {
    fn advance(&mut self, names: &Names, now: Time) -> Flow {
        loop {
            match &mut self.phase {
                Phase::Reading(_) => match self.read_head(names, now) {
                    Some(flow) => return flow,
                    None => continue,
                },
                Phase::Answering => return Flow::Waits,
                Phase::Writing(bytes, written) => match self.stream.write(&bytes[*written..]) {
                    Ok(count) => {
                        *written += count;
                        if count > 0 {
                            self.until = self.ends.min(now + ANSWER_TIME);
                        }
                        if *written == bytes.len() {
                            // A client that is gone needs no end of the answer.
                            let _ = self.stream.finish();
                            self.phase = Phase::Lingering(0);
                            self.until = now + LINGER_TIME;
                        }
                    }
                    Err(error) => return self.fail(&error, now),
                },
                Phase::Lingering(seen) => {
                    let mut piece = [0; PIECE];
                    match self.stream.read(&mut piece) {
                        Ok(count @ 1..) if *seen + count <= LINGER_LIMIT => *seen += count,
                        Ok(_) => return self.end(now),
                        Err(error) => return self.fail(&error, now),
                    }
                }
            }
        }
    }

    /// None where it goes on with its answer.
    fn read_head(&mut self, names: &Names, now: Time) -> Option<Flow> {
        let Phase::Reading(head) = &mut self.phase else { return None };
        let mut piece = [0; PIECE];
        let room = PIECE.min(HEAD_LIMIT - head.len());
        match self.stream.read(&mut piece[..room]) {
            Ok(0) => Some(self.end(now)),
            Ok(count) => {
                head.extend_from_slice(&piece[..count]);
                match parse(head, names) {
                    Parsed::Partial => None,
                    Parsed::Whole(asked) => {
                        self.phase = Phase::Answering;
                        (self.until, self.ends) = (now + ANSWER_TIME, now + WHOLE_TIME);
                        Some(Flow::Asks(asked))
                    }
                    Parsed::Refused(refusal) => {
                        // What follows the head of such an answer would be taken for another one (RFC 9110, 9.3.2).
                        let head_only = head.starts_with(b"HEAD ");
                        self.say(&refused(refusal), head_only, now);
                        None
                    }
                }
            }
            Err(error) => Some(self.fail(&error, now)),
        }
    }

    fn say(&mut self, answer: &Answer, head_only: bool, now: Time) {
        self.phase = Phase::Writing(answer.bytes(head_only), 0);
        (self.until, self.ends) = (now + ANSWER_TIME, now + WHOLE_TIME);
    }

    fn fail(&mut self, error: &io::Error, now: Time) -> Flow {
        match error.kind() {
            io::ErrorKind::WouldBlock => Flow::Waits,
            // A call that never waits is not interrupted (signal(7)).
            _ => self.end(now),
        }
    }

    fn end(&mut self, now: Time) -> Flow {
        self.phase = Phase::Lingering(LINGER_LIMIT + 1);
        self.until = now;
        Flow::Over
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Lingering(seen) if seen > LINGER_LIMIT)
    }

    /// Its time is over.
    fn expire(&mut self, names: &Names, now: Time) {
        match self.phase {
            Phase::Reading(ref head) if !head.is_empty() => {
                self.say(&refused(Refusal::Late), false, now);
                self.advance(names, now);
            }
            Phase::Reading(_) | Phase::Answering | Phase::Writing(..) | Phase::Lingering(_) => {
                self.end(now);
            }
        }
    }

    fn unread(&self) -> usize {
        match &self.phase {
            Phase::Writing(bytes, written) => bytes.len() - written,
            Phase::Reading(_) | Phase::Answering | Phase::Lingering(_) => 0,
        }
    }
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    /// Nothing more is said.
    fn finish(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

fn source_of(listener: &mut Listener) -> &mut dyn Source {
    match listener {
        Listener::Tcp(listener) => listener,
        Listener::Unix(listener) => listener,
    }
}

/// What says why there is no answer.
pub fn refused(refusal: Refusal) -> Answer {
    Answer { status: refusal.status(), kind: TEXT, body: refusal.text().as_bytes().to_vec() }
}

impl Answer {
    /// As it is sent. Nothing is to be kept by caches, nor taken for something else.
    fn bytes(&self, head_only: bool) -> Vec<u8> {
        let (code, phrase) = self.status;
        let allow = if code == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut bytes = format!(
            "HTTP/1.1 {code} {phrase}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            self.kind,
            self.body.len()
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// The connection ended before it was accepted, or a signal came: accept(2) is called again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}
