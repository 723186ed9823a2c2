//! Clients that speak TLS or HTTP/2: Node's own, in a process that tells what became of each request
//! (tests/fixtures/client.js), with a certificate that is made for the test.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::hammer::answerer;
use super::history::{History, Outcome, Record};
use super::reloading::Clients;
use super::wait::{try_until, wait_until};
use super::{Home, runtime};

/// The limit for one answer.
const LIMIT: Duration = Duration::from_secs(10);

/// What load to make.
#[derive(Clone, Debug)]
pub(crate) struct NodeLoad {
    kind: &'static str,
    url: String,
    certificate: bool,
    clients: usize,
    streams: usize,
    keep: bool,
    think: Duration,
}

impl NodeLoad {
    /// Four clients of HTTP/1.1 over TLS, with a connection per request.
    pub(crate) fn https(port: u16) -> NodeLoad {
        NodeLoad {
            kind: "https",
            url: format!("https://localhost:{port}/"),
            certificate: true,
            clients: 4,
            streams: 1,
            keep: false,
            think: Duration::ZERO,
        }
    }

    /// Three clients of HTTP/2 over TLS, each with one connection and one request under way.
    pub(crate) fn http2(port: u16) -> NodeLoad {
        NodeLoad { kind: "http2", clients: 3, keep: true, ..NodeLoad::https(port) }
    }

    /// The same in the clear.
    pub(crate) fn in_the_clear(self) -> NodeLoad {
        NodeLoad { url: self.url.replace("https:", "http:"), certificate: false, ..self }
    }

    /// With connections that are used again.
    pub(crate) fn keep_alive(self, think: Duration) -> NodeLoad {
        NodeLoad { keep: true, think, ..self }
    }

    /// With a connection per request.
    pub(crate) fn one_shot(self) -> NodeLoad {
        NodeLoad { keep: false, ..self }
    }

    /// With so many requests under way on each connection (HTTP/2).
    pub(crate) fn streams(self, streams: usize) -> NodeLoad {
        NodeLoad { streams, ..self }
    }

    /// Starts the clients in this home, and waits for as many answers as there are requests under way.
    pub(crate) fn start(&self, home: &Home) -> NodeClients {
        let mut command = Command::new(runtime("node").expect("the server runs on it too"));
        command.args(["--dns-result-order=ipv4first", "client.js"]).arg(self.described());
        command.current_dir(home.apps());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was found");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let clock = RemoteClock::read(&mut stdin, &mut lines);
        let history = Arc::new(Mutex::new(History::default()));
        let reader = spawn_reader(lines, clock, Arc::clone(&history));
        let clients = NodeClients { child, stdin: Some(stdin), history, reader: Some(reader) };
        clients.wait_answers(self.clients * self.streams);
        clients
    }

    fn described(&self) -> String {
        serde_json::json!({
            "kind": self.kind,
            "url": self.url,
            "ca": self.certificate.then_some("cert.pem"),
            "clients": self.clients,
            "streams": self.streams,
            "keep": self.keep,
            "think": self.think.as_millis() as u64,
            "limit": LIMIT.as_millis() as u64,
        })
        .to_string()
    }
}

/// A key and a certificate for `localhost` (key.pem, cert.pem) in the apps' folder; false, after saying so,
/// where openssl is missing.
pub(crate) fn certify(home: &Home) -> bool {
    let Some(openssl) = runtime("openssl") else { return false };
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"]);
    command.args(["-addext", "subjectAltName=DNS:localhost"]).current_dir(&folder);
    let made = command.output().expect("it was found");
    assert!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr));
    for name in ["key.pem", "cert.pem"] {
        home.put(name, &read(&folder.path().join(name)));
    }
    true
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A running load.
pub(crate) struct NodeClients {
    child: Child,
    stdin: Option<ChildStdin>,
    history: Arc<Mutex<History>>,
    reader: Option<JoinHandle<()>>,
}

impl NodeClients {
    /// How many requests had this outcome so far.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.history().count(outcome)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // A panic of the test thread must not hide what was seen.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&mut self) {
        drop(self.stdin.take());
        if try_until(LIMIT * 3, || self.child.try_wait().ok().flatten()).is_err() {
            self.history().broken.push("the clients did not end".to_owned());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if self.reader.take().is_some_and(|reader| reader.join().is_err()) {
            self.history().broken.push("the reader of outcomes panicked".to_owned());
        }
    }
}

impl Clients for NodeClients {
    fn wait_answers(&self, more: usize) {
        let wanted = self.history().count(Outcome::Ok) + more;
        wait_until(LIMIT * 3, &format!("{more} more answers"), || {
            let history = self.history();
            if history.count(Outcome::Ok) >= wanted { Ok(()) } else { Err(format!("{history:?}")) }
        });
    }

    fn stop(mut self) -> History {
        self.end();
        let mut history = std::mem::take(&mut *self.history());
        history.records.sort_by_key(|record| record.end);
        history
    }
}

impl Drop for NodeClients {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let history = self.history();
            if !history.records.is_empty() {
                eprintln!("--- load so far\n{history:?}");
            }
        }
    }
}

/// The other process's monotonic clock, read between two looks at one's own: what it counts from is known
/// as well as those lie apart.
#[derive(Clone, Copy, Debug)]
struct RemoteClock {
    before: Instant,
    after: Instant,
    shown: u64,
}

#[derive(Deserialize)]
struct Now {
    #[serde(deserialize_with = "number")]
    now: u64,
}

impl RemoteClock {
    fn read(stdin: &mut ChildStdin, lines: &mut BufReader<ChildStdout>) -> RemoteClock {
        let mut line = String::new();
        lines.read_line(&mut line).expect("it is text");
        assert_eq!(line, "{}\n", "the clients did not come up");
        line.clear();
        let before = Instant::now();
        stdin.write_all(b"begin\n").expect("it reads");
        lines.read_line(&mut line).expect("it is text");
        let after = Instant::now();
        let now: Now = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        RemoteClock { before, after, shown: now.now }
    }

    /// The earliest moment that this can have been.
    fn earliest(self, shown: u64) -> Instant {
        self.before + Duration::from_nanos(shown.saturating_sub(self.shown))
    }

    /// The latest.
    fn latest(self, shown: u64) -> Instant {
        self.after + Duration::from_nanos(shown.saturating_sub(self.shown))
    }
}

/// What the clients tell of one request.
#[derive(Deserialize)]
struct Told {
    #[serde(deserialize_with = "number")]
    start: u64,
    #[serde(deserialize_with = "number")]
    end: u64,
    outcome: Outcome,
    body: String,
    detail: String,
}

/// Node writes its large integers as text.
fn number<'de, D: serde::Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    String::deserialize(value)?.parse().map_err(serde::de::Error::custom)
}

fn spawn_reader(
    lines: BufReader<ChildStdout>,
    clock: RemoteClock,
    history: Arc<Mutex<History>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in lines.lines() {
            let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
            match line.map_err(|error| error.to_string()).and_then(|line| told(&line, clock)) {
                Ok(record) => history.records.push(record),
                Err(error) => history.broken.push(error),
            }
        }
    })
}

fn told(line: &str, clock: RemoteClock) -> Result<Record, String> {
    let told: Told = serde_json::from_str(line).map_err(|error| format!("{line:?}: {error}"))?;
    Ok(Record {
        start: clock.earliest(told.start),
        end: clock.latest(told.end),
        outcome: told.outcome,
        by: answerer(told.body.as_bytes()),
        detail: told.detail,
    })
}
