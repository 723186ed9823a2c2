//! `clusterd demo`: the small HTTP server of the example file, so that a first run needs no other
//! runtime. It stands for any unmodified server: it opens its port itself unless it was handed a
//! socket, handles no signal and knows nothing of the supervisor. It is a worker and never part of
//! the supervisor, hence the threads and the sleeps.
//!
//! `/` answers who it is, `/slow?ms=200` does so after a wait, `/stream?n=5&ms=100` in chunks.

use std::env;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::sys::inherited;

/// The longest request head, in bytes: what nginx and Node take by default lies between 8 and 16 KiB.
const HEAD_LIMIT: u64 = 8 * 1024;
/// Connections served at a time; more wait in the accept queue.
const CONNECTION_LIMIT: u32 = 1024;
/// The longest wait that a request may ask for.
const MS_LIMIT: u64 = 60_000;
/// The most chunks that a request may ask for.
const CHUNK_LIMIT: u64 = 10_000;
/// How long a connection may be silent.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Between two attempts to accept while the host lacks descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves for ever, on the first socket that was handed over (LISTEN_FDS), else on 127.0.0.1 at `$PORT`
/// (3000 when it is not set). `--log` prints a line per request.
///
/// # Errors
/// An argument or a `PORT` that is not understood, a port that cannot be opened, a handed descriptor
/// that is no listening socket. Nothing that a client does ends it.
pub fn run(args: &[String]) -> io::Result<()> {
    let log_requests = parse_args(args)?;
    let listener = open(|name| env::var(name).ok())?;
    let who = Identity::from_env(|name| env::var(name).ok());
    say(&format!("{who} serves {}", listener.local_addr()?));
    serve(&listener, &who, log_requests)
}

fn parse_args(args: &[String]) -> io::Result<bool> {
    match args {
        [] => Ok(false),
        [flag] if flag == "--log" => Ok(true),
        other => Err(invalid(format!(
            "demo: unexpected argument {:?}; --log, to print a line per request, is the only one",
            other.join(" ")
        ))),
    }
}

fn open(variable: impl Fn(&str) -> Option<String>) -> io::Result<TcpListener> {
    if is_handed(&variable) {
        return inherited::take_first()
            .map_err(|e| io::Error::new(e.kind(), format!("demo: the handed descriptor 3: {e}")));
    }
    let text = variable("PORT").unwrap_or_else(|| "3000".to_owned());
    let port: u16 = text
        .parse()
        .map_err(|_| invalid(format!("demo: PORT: expected a number from 0 to 65535, got {text:?}")))?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|e| io::Error::new(e.kind(), format!("demo: cannot listen on 127.0.0.1:{port}: {e}")))
}

/// Whether sockets were handed to this very process: LISTEN_PID guards against a parent's variables.
fn is_handed(variable: impl Fn(&str) -> Option<String>) -> bool {
    let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
    number("LISTEN_PID") == Some(std::process::id()) && number("LISTEN_FDS").is_some_and(|n| n > 0)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Prints a line; a reader that went away is no reason to stop serving.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// What the answers say about the worker.
#[derive(Clone, Debug)]
struct Identity {
    pid: u32,
    instance: String,
    generation: String,
}

impl Identity {
    fn from_env(variable: impl Fn(&str) -> Option<String>) -> Identity {
        Identity {
            pid: std::process::id(),
            instance: variable("CLUSTERD_INSTANCE")
                .or_else(|| variable("NODE_APP_INSTANCE"))
                .unwrap_or_else(|| "0".to_owned()),
            generation: variable("CLUSTERD_GENERATION").unwrap_or_else(|| "0".to_owned()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}, instance {}, generation {}", self.pid, self.instance, self.generation)
    }
}

/// Accepts for ever, one thread per connection.
fn serve(listener: &TcpListener, who: &Identity, log_requests: bool) -> io::Result<()> {
    let room = Arc::new(Room::default());
    loop {
        let place = Place::take(&room);
        match listener.accept() {
            Ok((stream, _)) => {
                let who = who.clone();
                let work = move || {
                    let _place = place;
                    // A client that goes away in the middle is its own affair.
                    let _ = converse(&stream, &who, log_requests);
                };
                if thread::Builder::new().spawn(work).is_err() {
                    pause(ACCEPT_PAUSE);
                }
            }
            Err(e) if is_passing(&e) => pause(ACCEPT_PAUSE),
            Err(e) => return Err(e),
        }
    }
}

/// Errors of accept(2) that say nothing about the listening socket itself.
fn is_passing(error: &io::Error) -> bool {
    const SOCKET_IS_BAD: [i32; 4] = [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP];
    !error.raw_os_error().is_some_and(|code| SOCKET_IS_BAD.contains(&code))
}

#[expect(clippy::disallowed_methods, reason = "a worker, not the supervisor: this thread serves one client")]
fn pause(duration: Duration) {
    thread::sleep(duration);
}

/// How many connections are being served.
#[derive(Default)]
struct Room {
    used: Mutex<u32>,
    left: Condvar,
}

/// One of [`CONNECTION_LIMIT`] places, given back when dropped.
struct Place(Arc<Room>);

impl Place {
    fn take(room: &Arc<Room>) -> Place {
        let used = room.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = room
            .left
            .wait_while(used, |used| *used >= CONNECTION_LIMIT)
            .unwrap_or_else(PoisonError::into_inner);
        *used += 1;
        Place(Arc::clone(room))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_one();
    }
}

/// Serves one connection until either side has had enough.
fn converse(stream: &TcpStream, who: &Identity, log_requests: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_LIMIT))?;
    stream.set_write_timeout(Some(SILENCE_LIMIT))?;
    let mut input = BufReader::new(stream);
    let mut output = stream;
    loop {
        let (request, answer) = match read_head(&mut input)? {
            Head::End => return Ok(()),
            Head::Refused(status) => (None, Answer::Plain { status, wait: Duration::ZERO }),
            Head::Request(request) => {
                let answer = route(&request);
                (Some(request), answer)
            }
        };
        let keep_alive = request.as_ref().is_some_and(|request| request.keep_alive);
        let with_body = request.as_ref().is_none_or(|request| !request.is_head);
        if let Some(request) = &request {
            skip_body(&mut input, &mut output, request)?;
            if log_requests {
                say(&request.target);
            }
        }
        send(&mut output, &answer, who, with_body, keep_alive)?;
        if !keep_alive {
            return Ok(());
        }
    }
}

/// What the start of a request came to.
#[derive(Debug, PartialEq)]
enum Head {
    /// The client closed between requests.
    End,
    /// Not understood or too long: the status that says so, then the connection closes.
    Refused(&'static str),
    /// A request whose body has not been read yet.
    Request(Request),
}

/// The few facts of a request that the answer depends on.
#[derive(Debug, Default, PartialEq)]
struct Request {
    target: String,
    is_head: bool,
    keep_alive: bool,
    body: u64,
    expects_continue: bool,
}

fn read_head(input: &mut impl BufRead) -> io::Result<Head> {
    let mut head = input.take(HEAD_LIMIT);
    let mut line = Vec::new();
    if head.read_until(b'\n', &mut line)? == 0 {
        return Ok(Head::End);
    }
    let mut request = match parse_request_line(&line) {
        Ok(request) => request,
        Err(status) => return Ok(Head::Refused(if head.limit() == 0 { TOO_LONG } else { status })),
    };
    loop {
        line.clear();
        head.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(if head.limit() == 0 { Head::Refused(TOO_LONG) } else { Head::End });
        }
        let field = line.trim_ascii();
        if field.is_empty() {
            return Ok(Head::Request(request));
        }
        if let Err(status) = apply_field(&mut request, field) {
            return Ok(Head::Refused(status));
        }
    }
}

const BAD: &str = "400 Bad Request";
const TOO_LONG: &str = "431 Request Header Fields Too Large";

fn parse_request_line(line: &[u8]) -> Result<Request, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| BAD)?.trim_end();
    let mut words = text.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    if !target.starts_with('/') {
        return Err(BAD);
    }
    let keep_alive = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return Err("505 HTTP Version Not Supported"),
    };
    match method {
        "GET" | "HEAD" | "POST" | "PUT" => Ok(Request {
            target: target.to_owned(),
            is_head: method == "HEAD",
            keep_alive,
            ..Request::default()
        }),
        _ => Err("405 Method Not Allowed"),
    }
}

fn apply_field(request: &mut Request, field: &[u8]) -> Result<(), &'static str> {
    let text = String::from_utf8_lossy(field).to_ascii_lowercase();
    let (name, value) = text.split_once(':').ok_or(BAD)?;
    let value = value.trim();
    match name {
        "connection" => request.keep_alive = keeps_alive(value, request.keep_alive),
        "content-length" => request.body = value.parse().map_err(|_| BAD)?,
        "transfer-encoding" => return Err("411 Length Required"),
        "expect" => request.expects_continue = value == "100-continue",
        _ => {}
    }
    Ok(())
}

fn keeps_alive(value: &str, default: bool) -> bool {
    value.split(',').fold(default, |keep, option| match option.trim() {
        "close" => false,
        "keep-alive" => true,
        _ => keep,
    })
}

/// Reads the body and forgets it, in a fixed buffer.
fn skip_body(input: &mut impl Read, output: &mut impl Write, request: &Request) -> io::Result<()> {
    if request.expects_continue && request.body > 0 {
        output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let skipped = io::copy(&mut input.take(request.body), &mut io::sink())?;
    if skipped < request.body { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// What a request is answered with.
#[derive(Debug, PartialEq)]
enum Answer {
    /// Everything at once, after a wait.
    Plain { status: &'static str, wait: Duration },
    /// This many chunks, with a wait after each.
    Stream { chunks: u64, wait: Duration },
}

fn route(request: &Request) -> Answer {
    let plain = |status, wait| Answer::Plain { status, wait };
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let ms = parameter(query, "ms", 100, MS_LIMIT).map(Duration::from_millis);
    match (path, ms, parameter(query, "n", 5, CHUNK_LIMIT)) {
        ("/", _, _) => plain("200 OK", Duration::ZERO),
        ("/slow", Some(wait), _) => plain("200 OK", wait),
        ("/stream", Some(wait), Some(chunks)) => Answer::Stream { chunks, wait },
        ("/slow" | "/stream", _, _) => plain(BAD, Duration::ZERO),
        _ => plain("404 Not Found", Duration::ZERO),
    }
}

/// A number of the query; none when it is not one, or too large.
fn parameter(query: &str, name: &str, default: u64, limit: u64) -> Option<u64> {
    let given = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    match given {
        None => Some(default),
        Some(text) => text.parse().ok().filter(|value| *value <= limit),
    }
}

fn send(
    output: &mut impl Write,
    answer: &Answer,
    who: &Identity,
    with_body: bool,
    keep_alive: bool,
) -> io::Result<()> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    match answer {
        Answer::Plain { status, wait } => {
            pause(*wait);
            let body =
                if status.starts_with("200") { format!("hello from {who}\n") } else { format!("{status}\n") };
            let mut text = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
                body.len()
            );
            if with_body {
                text.push_str(&body);
            }
            output.write_all(text.as_bytes())
        }
        Answer::Stream { chunks, wait } => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nConnection: {connection}\r\n\r\n"
            );
            output.write_all(head.as_bytes())?;
            if with_body { send_chunks(output, *chunks, *wait, who) } else { Ok(()) }
        }
    }
}

fn send_chunks(output: &mut impl Write, chunks: u64, wait: Duration, who: &Identity) -> io::Result<()> {
    for number in 1..=chunks {
        let line = format!("{number} of {chunks} from {who}\n");
        output.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())?;
        pause(wait);
    }
    output.write_all(b"0\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Identity {
        Identity { pid: 1234, instance: "2".to_owned(), generation: "1".to_owned() }
    }

    fn head(text: &[u8]) -> Head {
        read_head(&mut BufReader::new(text)).unwrap()
    }

    /// A server on a port of its own, which ends with the test's process.
    fn start() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::Builder::new().spawn(move || serve(&listener, &who(), false)).unwrap();
        address
    }

    fn ask(address: std::net::SocketAddr, text: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // A refused request may be answered and closed before it was written whole.
        let _ = stream.write_all(text);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn answers_say_who_served_and_keep_the_connection() {
        let two = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        let text = ask(start(), two);
        assert_eq!(text.matches("hello from pid 1234, instance 2, generation 1\n").count(), 2, "{text}");
        assert!(
            text.contains("Connection: keep-alive\r\n") && text.contains("Connection: close\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_stream_comes_in_chunks_with_an_end() {
        let text = ask(start(), b"GET /stream?n=3&ms=1 HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(text.contains("Transfer-Encoding: chunked"), "{text}");
        assert!(text.contains("3 of 3 from pid 1234"), "{text}");
        assert!(text.ends_with("0\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_body_is_read_before_the_next_request() {
        let text = ask(
            start(),
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhelloGET /slow?ms=0 HTTP/1.0\r\n\r\n",
        );
        assert!(text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), "{text}");
        assert_eq!(text.matches("hello from").count(), 2, "{text}");
    }

    #[test]
    fn garbage_is_answered_and_the_server_lives_on() {
        let address = start();
        let long = [b"GET / HTTP/1.1\r\n".as_slice(), &vec![b'a'; 2 * 8192]].concat();
        let cases: [(&[u8], &str); 8] = [
            (b"\0\xff\xfe\r\n\r\n", "400"),
            (b"GET /\r\n\r\n", "400"),
            (b"GET / HTTP/3\r\n\r\n", "505"),
            (b"DELETE / HTTP/1.1\r\n\r\n", "405"),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "400"),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "411"),
            (b"GET /slow?ms=999999999999999999999 HTTP/1.0\r\n\r\n", "400"),
        ];
        for (text, status) in cases {
            let answer = ask(address, text);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{text:?}: {answer}");
        }
        assert_eq!(head(&long), Head::Refused(TOO_LONG));
        assert_eq!(head(&vec![b'a'; 2 * 8192]), Head::Refused(TOO_LONG));
        assert!(ask(address, b"GET / HTTP/1.0\r\n\r\n").contains("hello from"));
    }

    #[test]
    fn a_client_that_goes_away_gets_no_answer() {
        assert_eq!(head(b""), Head::End);
        assert_eq!(head(b"GET / HTTP/1.1\r\nHost: a"), Head::End);
    }

    #[test]
    fn routes_take_numbers_within_their_limits_only() {
        let to = |target: &str| route(&Request { target: target.to_owned(), ..Request::default() });
        let ms = Duration::from_millis;
        assert_eq!(to("/slow?ms=200"), Answer::Plain { status: "200 OK", wait: ms(200) });
        assert_eq!(to("/stream?n=2&ms=7"), Answer::Stream { chunks: 2, wait: ms(7) });
        assert_eq!(to("/stream"), Answer::Stream { chunks: 5, wait: ms(100) });
        assert_eq!(to("/stream?n=10001"), Answer::Plain { status: BAD, wait: ms(0) });
        assert_eq!(to("/slow?ms=x"), Answer::Plain { status: BAD, wait: ms(0) });
        assert_eq!(to("/other"), Answer::Plain { status: "404 Not Found", wait: ms(0) });
    }

    #[test]
    fn sockets_meant_for_another_process_are_left_alone() {
        let own = std::process::id().to_string();
        let handed = |pid: &str, count: &str| {
            is_handed(|name| match name {
                "LISTEN_PID" => Some(pid.to_owned()),
                "LISTEN_FDS" => Some(count.to_owned()),
                _ => None,
            })
        };
        assert!(handed(&own, "1"));
        assert!(!handed("1", "1"));
        assert!(!handed(&own, "0"));
        assert!(!handed(&own, "many"));
        assert!(!is_handed(|_| None));
    }

    #[test]
    fn a_port_or_an_argument_that_is_no_such_thing_is_named() {
        let error = open(|name| (name == "PORT").then(|| "http".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "demo: PORT: expected a number from 0 to 65535, got \"http\"");
        let error = parse_args(&["--lgo".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("\"--lgo\""), "{error}");
    }
}
