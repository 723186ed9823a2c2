//! Lines on their way to journald, as a socket in its place receives them.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{IoSliceMut, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use support::daemon::Builder;
use support::strace::{Fault, When};
use support::{App, Daemon, file, fixtures, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fork(name: &str, line: &str) -> App {
    App::new(name, &fixtures::shell(line)).text("exec_mode", "fork").text("log_to", "journald")
}

/// One message, field by field.
type Entry = BTreeMap<String, Vec<u8>>;

/// The native protocol, as journald reads it.
fn parse(mut bytes: &[u8]) -> Entry {
    let mut entry = Entry::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("each field ends with a newline");
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        let (name, value);
        (name, value, bytes) = match line.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&line[..equals], &line[equals + 1..], rest),
            None => {
                let (length, rest) = rest.split_first_chunk().expect("eight bytes of length");
                let length = usize::try_from(u64::from_le_bytes(*length)).expect("it is short");
                assert_eq!(rest[length], b'\n');
                (line, &rest[..length], &rest[length + 1..])
            }
        };
        let name = String::from_utf8(name.to_vec()).expect("names are ASCII");
        assert!(entry.insert(name.clone(), value.to_vec()).is_none(), "{name} comes twice");
    }
    entry
}

fn text(entry: &Entry, name: &str) -> String {
    String::from_utf8_lossy(entry.get(name).map_or(&[], Vec::as_slice)).into_owned()
}

/// A socket in journald's place.
struct Journal {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Journal {
    fn new() -> Journal {
        let folder = tempfile::Builder::new().prefix("cd-").tempdir_in("/tmp").expect("a folder in /tmp");
        let path = folder.path().join("socket");
        Journal { _folder: folder, path }
    }

    fn listen(&self) -> UnixDatagram {
        let _ = fs::remove_file(&self.path);
        let socket = UnixDatagram::bind(&self.path).expect("the path is free");
        socket.set_read_timeout(Some(ms(20_000))).expect("it is a socket");
        socket
    }

    fn start(&self, text: impl ToString) -> Daemon {
        Builder::new(text).env("CLUSTERD_JOURNAL_SOCKET", &self.path.display().to_string()).start()
    }
}

/// The next message as it came, with the file that came with it.
fn next(socket: &UnixDatagram) -> (Vec<u8>, Option<File>) {
    let mut buffer = vec![0; 1 << 18];
    let mut room = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let got =
        recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)
            .expect("a message in time");
    let right = got.cmsgs().expect("room for all").find_map(|message| match message {
        // The number itself is nobody's, and ends with the test.
        ControlMessageOwned::ScmRights(rights) => File::open(format!("/proc/self/fd/{}", rights[0])).ok(),
        _ => None,
    });
    let count = got.bytes;
    buffer.truncate(count);
    (buffer, right)
}

fn messages(socket: &UnixDatagram, count: usize) -> Vec<Entry> {
    (0..count).map(|_| parse(&next(socket).0)).collect()
}

#[test]
fn each_line_comes_with_its_fields_byte_for_byte() {
    let journal = Journal::new();
    let socket = journal.listen();
    let line = r"printf 'hello\n\033[1m\000\377\n<4>careful\n\n'; exec sleep 1000";
    let line = format!("{line} 2>/dev/null");
    let quiet = fork("api", &line).text("namespace", "shop");
    let daemon = journal.start(quiet);
    let pid = daemon.wait_online("api", 1)[0];
    let ours = format!(
        "SYSLOG_IDENTIFIER=api\nCLUSTERD_APP=api\nCLUSTERD_NAMESPACE=shop\nCLUSTERD_INSTANCE=0\n\
         CLUSTERD_GENERATION=1\nCLUSTERD_PID={pid}\n"
    );
    let message = |head: &[u8], priority: u8| {
        let rest = format!("\nPRIORITY={priority}\nCLUSTERD_STREAM=out\n{ours}");
        [head, rest.as_bytes()].concat()
    };
    assert_eq!(next(&socket).0, message(b"MESSAGE=hello", 6));
    assert_eq!(next(&socket).0, message(b"MESSAGE\n\x06\0\0\0\0\0\0\0\x1b[1m\0\xff", 6));
    assert_eq!(next(&socket).0, message(b"MESSAGE=careful", 4));
    assert_eq!(next(&socket).0, message(b"MESSAGE=", 6));
    assert!(!daemon.home.path().join("logs/api-out.log").exists(), "a file was written all the same");
    let shown = daemon.run(&["logs", "api", "--no-follow"]).expect_code(0).stdout;
    assert!(shown.contains("hello"), "{shown}");
    let described = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    assert!(described.contains("journald dropped"), "{described}");
}

#[test]
fn both_means_files_and_the_journal_and_standard_error_is_an_error() {
    let journal = Journal::new();
    let socket = journal.listen();
    let app = fork("api", "echo oops >&2; exec sleep 1000").text("log_to", "both").text("log_type", "json");
    let daemon = journal.start(app);
    let entry = &messages(&socket, 1)[0];
    let fields = ["MESSAGE", "PRIORITY", "CLUSTERD_STREAM"].map(|name| text(entry, name));
    assert_eq!(fields, ["oops", "3", "err"]);
    let path = daemon.home.path().join("logs/api-error.log");
    wait_until(ms(20_000), "the line in its file", || {
        fs::read_to_string(&path).is_ok_and(|text| text.contains("\"message\":\"oops\""))
    });
}

#[test]
fn running_workers_are_taken_over_to_the_journal() {
    let journal = Journal::new();
    let socket = journal.listen();
    let line = "while :; do echo tick; sleep 0.05; done";
    let app = |to: &str| App::new("api", &fixtures::shell(line)).instances(2).text("log_to", to);
    let daemon = journal.start(app("files"));
    let pids = daemon.wait_online("api", 2);
    daemon.home.write(&app("journald").to_string());
    daemon.run(&["apply", &daemon.home.file().display().to_string()]).expect_code(0);
    let mut seen = BTreeMap::new();
    while seen.len() < 2 {
        let entry = &messages(&socket, 1)[0];
        seen.insert(text(entry, "CLUSTERD_INSTANCE"), text(entry, "CLUSTERD_PID"));
    }
    let mut told: Vec<i32> = seen.values().map(|pid| pid.parse().expect("a number")).collect();
    told.sort_unstable();
    let mut before = pids.clone();
    before.sort_unstable();
    assert_eq!(told, before);
    assert_eq!(daemon.wait_online("api", 2), pids);
}

#[test]
fn a_message_that_no_datagram_holds_comes_as_a_sealed_file() {
    let journal = Journal::new();
    let socket = journal.listen();
    let line = "until [ -e go ]; do sleep 0.02; done; echo from a file; exec sleep 1000";
    let daemon = journal.start(fork("api", line));
    daemon.wait_online("api", 1);
    let fault = Fault { calls: "sendto", errno: "EMSGSIZE", when: When::Always };
    let Some(injected) = fault.inject(daemon.pid) else { return };
    daemon.home.put("go", "");
    let (bytes, right) = next(&socket);
    injected.lift();
    assert_eq!(bytes, b"");
    let mut file = right.expect("a file comes with it");
    let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS).expect("it has seals"));
    assert!(seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW));
    let mut message = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut message)).expect("it can be read");
    assert_eq!(text(&parse(&message), "MESSAGE"), "from a file");
}

fn exists(daemon: &Daemon, name: &str) -> bool {
    daemon.home.apps().join(Path::new(name)).exists()
}

/// Prints so many lines, of which no socket and no queue holds all.
fn numbered(lines: usize) -> String {
    format!("seq -f '%.0f {}' {lines}", "x".repeat(100))
}

fn number(line: &str) -> Option<usize> {
    line.split(' ').next().and_then(|number| number.parse().ok())
}

/// Reads from another thread until a message has this text; all texts, in their order.
fn collect(socket: UnixDatagram, last: &str) -> mpsc::Receiver<Vec<String>> {
    let (tell, told) = mpsc::channel();
    let last = last.to_owned();
    thread::spawn(move || {
        let mut texts: Vec<String> = Vec::new();
        while texts.last() != Some(&last) {
            texts.push(text(&parse(&next(&socket).0), "MESSAGE"));
        }
        let _ = tell.send(texts);
    });
    told
}

#[test]
fn a_journal_that_takes_its_time_gets_every_line() {
    const LINES: usize = 20_000;
    let journal = Journal::new();
    let told = collect(journal.listen(), "end");
    let daemon = journal.start(fork("api", &format!("{}; echo end; exec sleep 1000", numbered(LINES))));
    let texts = told.recv_timeout(ms(60_000)).expect("the last line");
    assert_eq!(texts.len(), LINES + 1);
    assert!(texts[..LINES].iter().enumerate().all(|(place, text)| number(text) == Some(place + 1)));
    drop(daemon);
}

#[test]
fn a_journal_that_takes_nothing_holds_up_nobody_and_is_told_what_it_missed() {
    const LINES: usize = 40_000;
    let journal = Journal::new();
    let socket = journal.listen();
    let line = format!(
        "{}; touch done; until [ -e go ]; do sleep 0.02; done; echo end; exec sleep 1000",
        numbered(LINES)
    );
    let daemon = journal.start(fork("api", &line));
    daemon.expects(&["takes no lines"]);
    let slowest = std::cell::Cell::new(Duration::ZERO);
    wait_until(ms(60_000), "a worker that has written all", || {
        let begin = Instant::now();
        daemon.run(&["ping"]).expect_code(0);
        slowest.set(slowest.get().max(begin.elapsed()));
        exists(&daemon, "done")
    });
    assert!(slowest.get() < ms(5000), "the supervisor took {:?} for an answer", slowest.get());
    let told = collect(socket, "end");
    daemon.wait_for_text("takes lines again, dropped lines: ");
    daemon.home.put("go", "");
    let texts = told.recv_timeout(ms(60_000)).expect("the last line");
    let (mut next, mut dropped) = (1, 0);
    for text in &texts[..texts.len() - 1] {
        match text.strip_prefix("[clusterd] ") {
            Some(notice) => {
                assert!(notice.ends_with("dropped: journald did not take them"), "{notice}");
                let lines: usize = notice.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
                (next, dropped) = (next + lines, dropped + lines);
            }
            None => {
                assert_eq!(number(text), Some(next));
                next += 1;
            }
        }
    }
    assert_eq!(next - 1, LINES);
    assert!(dropped > 0, "nothing was dropped: the test shows nothing");
    let described = daemon.run(&["describe", "api", "--json"]).expect_code(0).stdout;
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    assert_eq!(described["apps"][0]["detail"]["journal_lines_dropped"], dropped);
    assert_eq!(daemon.log().matches("takes no lines").count(), 1, "{}", daemon.log());
}

#[test]
fn a_journal_that_is_absent_or_restarted_gets_every_line_and_is_told_of_once() {
    let journal = Journal::new();
    let line = "i=1; while :; do echo $i; i=$((i+1)); sleep 0.05; done";
    let daemon = journal.start(file(&[fork("api", line)]));
    daemon.expects(&["lines wait"]);
    daemon.wait_for_text("No such file or directory; lines wait");
    let first = journal.listen();
    let numbers = |socket: &UnixDatagram, count| {
        messages(socket, count).iter().map(|entry| text(entry, "MESSAGE").parse().unwrap_or(0)).collect()
    };
    let mut got: Vec<u32> = numbers(&first, 30);
    daemon.wait_for_text("takes lines again, dropped lines: 0");
    // Whatever has come to the one before is its own matter, as in a restart of journald.
    first.set_nonblocking(true).expect("it is a socket");
    let mut buffer = vec![0; 4096];
    fs::remove_file(&journal.path).expect("it is there");
    let second = journal.listen();
    while let Ok(count @ 1..) = first.recv(&mut buffer) {
        got.extend(text(&parse(&buffer[..count]), "MESSAGE").parse::<u32>());
    }
    first.shutdown(std::net::Shutdown::Both).expect("it is open");
    drop(first);
    got.extend::<Vec<u32>>(numbers(&second, 10));
    // One may have come between the last look and the end.
    let gaps = got.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!(got[0] == 1 && gaps <= 1, "{got:?}");
    assert_eq!(daemon.log().matches("lines wait").count(), 1, "{}", daemon.log());
}
