//! The load generator of `make bench`: closed-loop clients, each in a thread of its own, that count the
//! outcome of every request and print one JSON object. Retries nothing and hides nothing.
//!
//! `load --port 3000 [--clients 8] [--path /] [--keep-alive] [--seconds 3]`: without `--seconds` it
//! runs until standard input closes, so that whoever started it sets the window.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring tool reads the clock, needs threads and prints its result"
)]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long one request may take before it counts as lost.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer that is taken.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// What was asked for on the command line.
#[derive(Clone, Debug, Default)]
struct Options {
    port: u16,
    clients: u8,
    path: String,
    keep_alive: bool,
    seconds: Option<u64>,
}

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// A whole answer with status 200.
    Ok,
    /// A whole answer with another status.
    WrongStatus,
    /// Nobody listens.
    Refused,
    /// The connection was reset before a byte of the answer.
    Reset,
    /// The connection was closed before a byte of the answer.
    Empty,
    /// The answer broke off.
    Cut,
    /// No whole answer in time.
    Timeout,
    /// A reused connection ended before a byte of the answer: clients retry this by rule.
    Retriable,
}

impl Outcome {
    const ALL: [Outcome; 8] = [
        Outcome::Ok,
        Outcome::WrongStatus,
        Outcome::Refused,
        Outcome::Reset,
        Outcome::Empty,
        Outcome::Cut,
        Outcome::Timeout,
        Outcome::Retriable,
    ];

    const fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::WrongStatus => "wrong_status",
            Outcome::Refused => "refused",
            Outcome::Reset => "reset",
            Outcome::Empty => "empty",
            Outcome::Cut => "cut",
            Outcome::Timeout => "timeout",
            Outcome::Retriable => "retriable",
        }
    }

    const fn is_lost(self) -> bool {
        !matches!(self, Outcome::Ok | Outcome::Retriable)
    }
}

/// What one client saw.
#[derive(Default)]
struct Tally {
    outcomes: BTreeMap<Outcome, u64>,
    /// Of whole answers, in microseconds.
    latencies: Vec<u32>,
    /// Answers per distinct body, which names the process.
    bodies: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("load: {message}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let tallies = drive(&options);
    println!("{}", render(&tallies, begun.elapsed()));
    ExitCode::SUCCESS
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { clients: 8, path: "/".to_owned(), ..Options::default() };
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
        match flag.as_str() {
            "--port" => options.port = u16::try_from(number(value()?)?).map_err(|e| e.to_string())?,
            "--clients" => options.clients = u8::try_from(number(value()?)?).map_err(|e| e.to_string())?,
            "--seconds" => options.seconds = Some(number(value()?)?),
            "--path" => options.path = value()?,
            "--keep-alive" => options.keep_alive = true,
            _ => return Err(format!("unknown argument {flag:?}")),
        }
    }
    if options.port == 0 || options.clients == 0 {
        return Err("--port and at least one client are needed".to_owned());
    }
    Ok(options)
}

/// Runs the clients until the window ends.
fn drive(options: &Options) -> Vec<Tally> {
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            let (options, over) = (options.clone(), Arc::clone(&over));
            thread::spawn(move || client(number, &options, &over))
        })
        .collect();
    match options.seconds {
        Some(seconds) => thread::sleep(Duration::from_secs(seconds)),
        None => {
            // Whatever ends standard input ends the window.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
        }
    }
    over.store(true, Ordering::Relaxed);
    clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
}

/// One request after the other. Each client has a loopback address of its own, so that ports in
/// TIME_WAIT never run short.
fn client(number: u8, options: &Options, over: &AtomicBool) -> Tally {
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, number.max(1)), options.port));
    let connection = if options.keep_alive { "keep-alive" } else { "close" };
    let request = format!("GET {} HTTP/1.1\r\nHost: bench\r\nConnection: {connection}\r\n\r\n", options.path);
    let mut tally = Tally::default();
    let mut kept: Option<TcpStream> = None;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let reused = kept.is_some();
        let answer = kept.take().map_or_else(|| connect(address), Ok).and_then(|mut stream| {
            let answer = exchange(&mut stream, request.as_bytes(), reused)?;
            Ok((stream, answer))
        });
        let outcome = match answer {
            Ok((stream, answer)) => {
                tally.latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
                *tally.bodies.entry(answer.body).or_default() += 1;
                kept = (options.keep_alive && answer.keep).then_some(stream);
                if answer.ok { Outcome::Ok } else { Outcome::WrongStatus }
            }
            Err(outcome) => outcome,
        };
        *tally.outcomes.entry(outcome).or_default() += 1;
        if outcome == Outcome::Refused {
            // Refusals come at the speed of light and would drown every other count.
            thread::sleep(Duration::from_millis(1));
        }
    }
    tally
}

fn connect(address: SocketAddr) -> Result<TcpStream, Outcome> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|e| {
        let kind = e.kind();
        if kind == io::ErrorKind::ConnectionRefused {
            Outcome::Refused
        } else if matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
            Outcome::Timeout
        } else {
            Outcome::Reset
        }
    })?;
    let ready = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(TIMEOUT)));
    ready.map(|()| stream).map_err(|_| Outcome::Reset)
}

/// A whole answer.
struct Answer {
    ok: bool,
    keep: bool,
    body: String,
}

fn exchange(stream: &mut TcpStream, request: &[u8], reused: bool) -> Result<Answer, Outcome> {
    let early = |closed: Outcome| if reused { Outcome::Retriable } else { closed };
    stream.write_all(request).map_err(|_| early(Outcome::Reset))?;
    let mut bytes = Vec::with_capacity(512);
    let mut buffer = [0_u8; 4096];
    loop {
        if let Some(answer) = whole(&bytes) {
            return Ok(answer);
        }
        match stream.read(&mut buffer) {
            Ok(0) if bytes.is_empty() => return Err(early(Outcome::Empty)),
            Ok(0) => return Err(Outcome::Cut),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Outcome::Timeout);
            }
            Err(_) if bytes.is_empty() => return Err(early(Outcome::Reset)),
            Err(_) => return Err(Outcome::Cut),
        }
        if bytes.len() > ANSWER_LIMIT {
            return Err(Outcome::Cut);
        }
    }
}

/// The answer, once head and body are complete; the servers measured here all name a length.
fn whole(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let field = |name: &str| {
        head.lines().skip(1).find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let length: usize = field("content-length")?.parse().ok()?;
    let body = bytes.get(end + 4..end + 4 + length)?;
    Some(Answer {
        ok: head.starts_with("http/1.1 200"),
        keep: field("connection") != Some("close"),
        body: String::from_utf8_lossy(body).into_owned(),
    })
}

fn render(tallies: &[Tally], elapsed: Duration) -> String {
    let count =
        |outcome: Outcome| tallies.iter().filter_map(|tally| tally.outcomes.get(&outcome)).sum::<u64>();
    let mut latencies: Vec<u32> = tallies.iter().flat_map(|tally| tally.latencies.iter().copied()).collect();
    latencies.sort_unstable();
    let at = |share: usize| latencies.get((latencies.len() * share / 1000).min(latencies.len().max(1) - 1));
    let bodies: std::collections::BTreeSet<&String> =
        tallies.iter().flat_map(|tally| tally.bodies.keys()).collect();
    let mut fields = serde_json::Map::new();
    for outcome in Outcome::ALL {
        fields.insert(outcome.name().to_owned(), count(outcome).into());
    }
    let lost: u64 = Outcome::ALL.into_iter().filter(|outcome| outcome.is_lost()).map(count).sum();
    let requests: u64 = Outcome::ALL.into_iter().map(count).sum();
    fields.insert("requests".to_owned(), requests.into());
    fields.insert("lost".to_owned(), lost.into());
    fields.insert("elapsed_ms".to_owned(), (elapsed.as_secs_f64() * 1e3).into());
    fields.insert("per_second".to_owned(), (count(Outcome::Ok) as f64 / elapsed.as_secs_f64()).into());
    fields.insert("p50_us".to_owned(), at(500).copied().into());
    fields.insert("p99_us".to_owned(), at(990).copied().into());
    fields.insert("max_us".to_owned(), latencies.last().copied().into());
    fields.insert("servers".to_owned(), bodies.len().into());
    serde_json::Value::Object(fields).to_string()
}
