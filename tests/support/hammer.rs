//! The load generator: closed-loop clients that count what became of every request.
//!
//! Each client is a thread with blocking sockets and explicit time limits, so that nothing can hide in
//! a library's retries, pools or time-outs. It stops when dropped.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::history::{Answerer, History, Outcome, Record};
use super::wait::wait_until;

/// The longest head, and the longest line of a chunked body, in bytes.
const LINE_LIMIT: usize = 64 * 1024;

/// After a refused connection: a closed loop would otherwise count one gap a thousand times.
const AFTER_REFUSAL: Duration = Duration::from_millis(5);

/// How each client behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// A connection per request, with `Connection: close`.
    OneShot,
    /// One connection for as many requests as the server allows.
    KeepAlive {
        /// Between an answer and the next request.
        think: Duration,
    },
    /// A connection per request, whose body comes in pieces.
    Upload {
        /// How many.
        pieces: usize,
        /// Before each.
        every: Duration,
    },
    /// A connection per request, which stays silent at first.
    ConnectThenWait {
        /// For so long.
        wait: Duration,
    },
    /// Many open connections, each used now and then, in turn.
    Idle {
        /// How many per client.
        connections: usize,
        /// Between two requests of a client.
        every: Duration,
    },
}

impl Style {
    /// True where connections are used again.
    const fn keeps(self) -> bool {
        match self {
            Style::KeepAlive { .. } | Style::Idle { .. } => true,
            Style::OneShot | Style::Upload { .. } | Style::ConnectThenWait { .. } => false,
        }
    }
}

/// What load to make.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    port: u16,
    socket: Option<PathBuf>,
    clients: usize,
    style: Style,
    path: String,
    limit: Duration,
}

impl Load {
    /// Six clients with a connection per request, each given ten seconds.
    pub(crate) fn on(port: u16) -> Load {
        Load {
            port,
            socket: None,
            clients: 6,
            style: Style::OneShot,
            path: "/".to_owned(),
            limit: Duration::from_secs(10),
        }
    }

    /// The same on this Unix socket.
    pub(crate) fn on_unix(socket: &Path) -> Load {
        Load { socket: Some(socket.to_owned()), ..Load::on(0) }
    }

    /// The same on this port.
    pub(crate) fn to(mut self, port: u16) -> Load {
        self.port = port;
        self
    }

    /// With so many clients.
    pub(crate) fn clients(mut self, clients: usize) -> Load {
        self.clients = clients;
        self
    }

    /// With clients of this kind.
    pub(crate) fn style(mut self, style: Style) -> Load {
        self.style = style;
        self
    }

    /// With connections that are used again.
    pub(crate) fn keep_alive(self, think: Duration) -> Load {
        self.style(Style::KeepAlive { think })
    }

    /// For this path.
    pub(crate) fn path(mut self, path: &str) -> Load {
        path.clone_into(&mut self.path);
        self
    }

    /// With this limit for connecting, and for the whole of an answer.
    pub(crate) fn limit(mut self, limit: Duration) -> Load {
        self.limit = limit;
        self
    }

    /// Starts the clients and waits for as many answers as there are connections: one that was never
    /// answered is not idle, but waits for its first.
    pub(crate) fn start(self) -> Hammer {
        let first = match self.style {
            Style::Idle { connections, .. } => connections * self.clients,
            Style::OneShot
            | Style::KeepAlive { .. }
            | Style::Upload { .. }
            | Style::ConnectThenWait { .. } => self.clients,
        };
        let hammer = self.start_silently();
        hammer.wait_answers(first);
        hammer
    }

    /// Starts the clients, whether anybody answers or not.
    pub(crate) fn start_silently(self) -> Hammer {
        let shared = Arc::new(Shared::default());
        let clients = (0..self.clients).map(|number| spawn_client(number, &self, &shared)).collect();
        Hammer { shared, clients, limit: self.limit }
    }

    fn head(&self) -> Vec<u8> {
        let mut head = String::new();
        let (method, tail) = match self.style {
            Style::OneShot | Style::ConnectThenWait { .. } => ("GET", "Connection: close\r\n".to_owned()),
            Style::KeepAlive { .. } | Style::Idle { .. } => ("GET", String::new()),
            Style::Upload { pieces, .. } => {
                ("POST", format!("Connection: close\r\nContent-Length: {}\r\n", pieces * PIECE.len()))
            }
        };
        write!(head, "{method} {} HTTP/1.1\r\nHost: hammer\r\n{tail}\r\n", self.path)
            .expect("a string grows");
        head.into_bytes()
    }
}

/// One piece of an uploaded body.
const PIECE: &[u8] = &[b'x'; 512];

/// A running load.
pub(crate) struct Hammer {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    limit: Duration,
}

impl Hammer {
    /// Starts one-shot clients on this port and waits for the first answers.
    pub(crate) fn start(port: u16) -> Hammer {
        Load::on(port).start()
    }

    /// How many requests were lost so far.
    pub(crate) fn lost(&self) -> usize {
        self.shared.history().lost()
    }

    /// How many requests had this outcome so far.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.shared.history().count(outcome)
    }

    /// Everything so far.
    pub(crate) fn so_far(&self) -> History {
        self.shared.history().clone()
    }

    /// Waits for so many more answers: the load goes on.
    pub(crate) fn wait_answers(&self, more: usize) {
        let wanted = self.count(Outcome::Ok) + more;
        wait_until(self.limit * 3, &format!("{more} more answers"), || {
            let history = self.shared.history();
            if history.count(Outcome::Ok) >= wanted { Ok(()) } else { Err(format!("{history:?}")) }
        });
    }

    /// Lets each client finish its request, and gives what became of all of them.
    pub(crate) fn stop(mut self) -> History {
        self.end();
        let mut history = std::mem::take(&mut *self.shared.history());
        history.records.sort_by_key(|record| record.end);
        history
    }

    fn end(&mut self) {
        *self.shared.stop.lock().expect("clients do not panic with this lock") = true;
        self.shared.wake.notify_all();
        for client in self.clients.drain(..) {
            if client.join().is_err() {
                self.shared.history().broken.push("a client panicked".to_owned());
            }
        }
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let history = self.shared.history();
            if !history.records.is_empty() {
                eprintln!("--- load so far\n{history:?}");
            }
        }
    }
}

#[derive(Default)]
struct Shared {
    history: Mutex<History>,
    stop: Mutex<bool>,
    wake: Condvar,
}

impl Shared {
    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        // A panic of the test thread must not hide what was seen.
        self.history.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        *self.stop.lock().expect("nobody panics with this lock")
    }

    /// Lets this much time pass, less when the load is stopped.
    fn pause(&self, span: Duration) {
        if span.is_zero() {
            return;
        }
        let guard = self.stop.lock().expect("nobody panics with this lock");
        drop(self.wake.wait_timeout_while(guard, span, |stop| !*stop).expect("nobody panics with this lock"));
    }
}

fn spawn_client(number: usize, load: &Load, shared: &Arc<Shared>) -> JoinHandle<()> {
    let (load, shared) = (load.clone(), Arc::clone(shared));
    std::thread::Builder::new()
        .name(format!("client-{number}"))
        .spawn(move || Client { head: load.head(), load, shared }.run())
        .expect("threads are left")
}

struct Client {
    head: Vec<u8>,
    load: Load,
    shared: Arc<Shared>,
}

/// A connection and whether it has served before.
struct Connection {
    stream: TcpStream,
    used: bool,
}

/// What a whole answer said.
struct Answer {
    by: Option<Answerer>,
    ok: bool,
    status: String,
    keep: bool,
}

/// Why there is no answer: the outcome, and what is worth knowing.
type Failure = (Outcome, String);

impl Client {
    fn run(&self) {
        let (slots, think) = match self.load.style {
            Style::Idle { connections, every } => (connections, every),
            Style::KeepAlive { think } => (1, think),
            Style::OneShot | Style::Upload { .. } | Style::ConnectThenWait { .. } => (1, Duration::ZERO),
        };
        let mut pool: Vec<Option<Connection>> = (0..slots).map(|_| None).collect();
        if matches!(self.load.style, Style::Idle { .. }) {
            // All of them are open from the beginning, and silent until their turn.
            pool.iter_mut().for_each(|place| *place = self.connect().ok());
        }
        let mut turn = 0;
        while !self.shared.stopped() {
            let place = &mut pool[turn % slots];
            *place = self.request(place.take());
            turn += 1;
            self.shared.pause(think);
        }
    }

    /// One request, on this connection if it is still open; gives the connection when it can serve again.
    fn request(&self, connection: Option<Connection>) -> Option<Connection> {
        let connection = connection.filter(|connection| self.still_open(connection));
        let start = Instant::now();
        let mut connection = match connection.map_or_else(|| self.connect(), Ok) {
            Ok(connection) => connection,
            Err((outcome, detail)) => {
                self.record(start, outcome, None, detail);
                self.shared.pause(AFTER_REFUSAL);
                return None;
            }
        };
        let used = connection.used;
        let port = connection.stream.local_addr().map_or(0, |address| address.port());
        match self.exchange(&mut connection.stream, used) {
            Ok(answer) => {
                let outcome = if answer.ok { Outcome::Ok } else { Outcome::Status };
                self.record(start, outcome, answer.by, answer.status);
                connection.used = true;
                // Who asked for the end of it does not use it again, whatever the server says (RFC 9112,
                // section 9.6).
                (answer.keep && self.load.style.keeps()).then_some(connection)
            }
            Err((outcome, detail)) => {
                self.record(start, outcome, None, format!("from port {port}: {detail}"));
                None
            }
        }
    }

    fn record(&self, start: Instant, outcome: Outcome, by: Option<Answerer>, detail: String) {
        let detail = if outcome == Outcome::Ok { String::new() } else { detail };
        self.shared.history().records.push(Record { start, end: Instant::now(), outcome, by, detail });
    }

    /// A connection that the server closed while nothing was asked of it costs nobody a request.
    fn still_open(&self, connection: &Connection) -> bool {
        let stream = &connection.stream;
        let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
        let open = matches!(&looked, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if !open {
            self.shared.history().closed_idle += 1;
        }
        open && stream.set_nonblocking(false).is_ok()
    }

    fn connect(&self) -> Result<Connection, Failure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.load.port));
        let stream = match &self.load.socket {
            // Any stream socket does what is asked of this one.
            Some(path) => UnixStream::connect(path).map(|stream| TcpStream::from(OwnedFd::from(stream))),
            None => TcpStream::connect_timeout(&address, self.load.limit),
        };
        let stream = stream.map_err(|error| {
            let outcome = if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) {
                Outcome::ConnectTimeout
            } else if error.kind() == ErrorKind::ConnectionReset {
                Outcome::Reset
            } else if error.kind() == ErrorKind::AddrNotAvailable {
                Outcome::NoLocalPort
            } else {
                Outcome::Refused
            };
            (outcome, format!("connect: {error}"))
        })?;
        // Small writes (the pieces of an upload) leave at once.
        if self.load.socket.is_none() {
            stream.set_nodelay(true).map_err(|error| (Outcome::Reset, error.to_string()))?;
        }
        Ok(Connection { stream, used: false })
    }

    fn exchange(&self, stream: &mut TcpStream, used: bool) -> Result<Answer, Failure> {
        if let Style::ConnectThenWait { wait } = self.load.style {
            self.shared.pause(wait);
        }
        // A server may answer before it has read everything, and close: what counts is the answer.
        let sent = self.send(stream);
        let mut reader = Reader { stream, end: Instant::now() + self.load.limit, buffer: Vec::new(), at: 0 };
        let answer = read_answer(&mut reader);
        let begun = !reader.buffer.is_empty();
        answer.map_err(|broken| classify(broken, begun, used, sent.err()))
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.set_write_timeout(Some(self.load.limit))?;
        stream.write_all(&self.head)?;
        if let Style::Upload { pieces, every } = self.load.style {
            for _ in 0..pieces {
                self.shared.pause(every);
                stream.write_all(PIECE)?;
            }
        }
        Ok(())
    }
}

/// How an answer broke off.
#[derive(Debug)]
enum Broken {
    Closed,
    Failed(std::io::Error),
    Late,
    Malformed(String),
}

fn classify(broken: Broken, begun: bool, used: bool, sent: Option<std::io::Error>) -> Failure {
    let detail = match sent {
        Some(error) => format!("{broken:?}, after sending failed: {error}"),
        None => format!("{broken:?}"),
    };
    let outcome = match broken {
        Broken::Late => Outcome::Timeout,
        Broken::Malformed(_) => Outcome::Cut,
        Broken::Closed | Broken::Failed(_) if begun => Outcome::Cut,
        Broken::Closed | Broken::Failed(_) if used => Outcome::Retriable,
        Broken::Closed => Outcome::Empty,
        Broken::Failed(_) => Outcome::Reset,
    };
    (outcome, detail)
}

/// Reads with one deadline for the whole answer.
struct Reader<'a> {
    stream: &'a mut TcpStream,
    end: Instant,
    buffer: Vec<u8>,
    at: usize,
}

impl Reader<'_> {
    /// Reads more; false at the end of the stream.
    fn fill(&mut self) -> Result<bool, Broken> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Late);
        }
        self.stream.set_read_timeout(Some(left)).map_err(Broken::Failed)?;
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Broken::Late)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Broken::Failed(error)),
        }
    }

    /// Everything up to and with `mark`.
    fn until(&mut self, mark: &[u8]) -> Result<String, Broken> {
        loop {
            let rest = &self.buffer[self.at..];
            if let Some(found) = rest.windows(mark.len()).position(|window| window == mark) {
                let text = String::from_utf8_lossy(&rest[..found]).into_owned();
                self.at += found + mark.len();
                return Ok(text);
            }
            if rest.len() > LINE_LIMIT {
                return Err(Broken::Malformed(format!("no {mark:?} in {LINE_LIMIT} bytes")));
            }
            if !self.fill()? {
                return Err(Broken::Closed);
            }
        }
    }

    fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() - self.at < count {
            if !self.fill()? {
                return Err(Broken::Closed);
            }
        }
        self.at += count;
        Ok(self.buffer[self.at - count..self.at].to_vec())
    }

    fn rest(&mut self) -> Result<Vec<u8>, Broken> {
        while self.fill()? {}
        Ok(self.buffer[self.at..].to_vec())
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            let count = usize::from_str_radix(line.trim(), 16)
                .map_err(|_| Broken::Malformed(format!("chunk {line:?}")))?;
            let chunk = self.exactly(count + 2)?;
            if count == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..count]);
        }
    }
}

fn read_answer(reader: &mut Reader<'_>) -> Result<Answer, Broken> {
    let head = reader.until(b"\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().to_owned();
    let fields: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_ascii_lowercase()))
        .collect();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let length = field("content-length").map(str::parse::<usize>);
    let (body, framed) = if field("transfer-encoding") == Some("chunked") {
        (reader.chunks()?, true)
    } else if let Some(length) = length {
        let length = length.map_err(|error| Broken::Malformed(format!("content-length: {error}")))?;
        (reader.exactly(length)?, true)
    } else {
        (reader.rest()?, false)
    };
    let keep = framed && status.starts_with("HTTP/1.1") && field("connection") != Some("close");
    let ok = status.split(' ').nth(1) == Some("200");
    Ok(Answer { by: answerer(&body), ok, status, keep })
}

/// The first line of a body: process, generation, instance.
pub(crate) fn answerer(body: &[u8]) -> Option<Answerer> {
    let text = String::from_utf8_lossy(body);
    let mut words = text.lines().next()?.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let generation = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let instance = words.next().and_then(|word| word.parse().ok());
    Some(Answerer { pid, generation, instance })
}

/// One request outside of any load: status and body.
///
/// # Errors
/// The outcome and what was seen, when no whole answer came.
pub(crate) fn get(port: u16, path: &str) -> Result<(u16, String), Failure> {
    let load = Load::on(port).path(path).limit(Duration::from_secs(5));
    let client = Client { head: load.head(), load, shared: Arc::default() };
    let mut connection = client.connect()?;
    let sent = client.send(&mut connection.stream);
    let end = Instant::now() + client.load.limit;
    let mut reader = Reader { stream: &mut connection.stream, end, buffer: Vec::new(), at: 0 };
    let whole = reader.until(b"\r\n\r\n").and_then(|head| {
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Ok((head, if chunked { reader.chunks()? } else { reader.rest()? }))
    });
    let begun = !reader.buffer.is_empty();
    let (head, body) = whole.map_err(|broken| classify(broken, begun, false, sent.err()))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok((status, String::from_utf8_lossy(&body).trim_end().to_owned()))
}

/// As [`get`], the body of an answer with status 200.
pub(crate) fn body(port: u16, path: &str) -> String {
    let (status, body) = get(port, path).expect("an answer");
    assert_eq!(status, 200, "{body}");
    body
}
