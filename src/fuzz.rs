//! What must hold whatever bytes come in, one target for each thing that is parsed: by a seeded runner on
//! stable Rust (`cargo test --lib fuzz::`, longer with CLUSTERD_FUZZ_SECONDS), and by libFuzzer (`make fuzz`).
//!
//! A target panics when a promise is broken. It answers with a number that stands for what became of the input
//! (which errors, how many lines): the runner keeps inputs whose number is new, which leads it further in than
//! chance. What is only known within a module is promised beside it, in a function `fuzz` of its own.

#[cfg(test)]
mod runner;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use crate::config::{self, Config, Host, env_file, units};
use crate::control::frame::{Decoder, encode};
use crate::control::protocol::{FRAME_LIMIT, Frame, Reply};
use crate::http::request;
use crate::logs::escape::steers;
use crate::logs::lines::{LineFramer, Piece};
use crate::{daemon, logs, sys};

/// One thing that is parsed.
pub type Target = fn(&[u8]) -> u64;

/// All of them, by the name of their folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config),
    ("env_file", env_file),
    ("values", values),
    ("frames", frames),
    ("http", http),
    ("notify", daemon::fuzz_notify),
    ("node", daemon::fuzz_node),
    ("state", daemon::fuzz_state),
    ("saved", daemon::fuzz_saved),
    ("proc", proc),
    ("kernel", kernel),
    ("lines", lines),
    ("escape", escape),
];

/// Runs the target of this name: what libFuzzer calls.
///
/// # Panics
/// When there is none, and when one of its promises is broken.
pub fn run(name: &str, input: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(input);
}

/// A number for what became of an input. Digits do not count: each line number would be something new.
pub(crate) fn shape(what: impl IntoIterator<Item = impl AsRef<str>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in what {
        let words: String = text.as_ref().chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        words.hash(&mut hasher);
    }
    hasher.finish()
}

/// Nothing in it steers a terminal; `lines`: newlines are as they should be.
pub(crate) fn assert_harmless(text: &str, lines: bool) {
    let steering = text.chars().find(|c| steers(*c) && !(lines && *c == '\n'));
    assert!(steering.is_none(), "{steering:?} reaches the output: {text:?}");
}

fn host(profile: Option<&str>) -> Host {
    Host {
        parallelism: 4,
        memory: Some(8 << 30),
        folder: PathBuf::from("/srv/app"),
        profile: profile.map(str::to_owned),
        only: Vec::new(),
    }
}

/// The head of a request over HTTP: a question, or a refusal.
pub fn http(bytes: &[u8]) -> u64 {
    shape([request::fuzz(bytes)])
}

/// An ecosystem file: what it means, or mistakes that each have a place and are safe to show.
pub fn config(bytes: &[u8]) -> u64 {
    let decoded = config::decode(bytes, "ecosystem.toml");
    let text = match decoded {
        Ok(text) => text,
        Err(diagnostics) => return told(&diagnostics, &String::from_utf8_lossy(bytes)),
    };
    let loaded = config::load(text, "ecosystem.toml", &host(None));
    assert_eq!(loaded, config::load(text, "ecosystem.toml", &host(None)), "the same text means the same");
    match loaded {
        Ok(config) => {
            let profile = config::load(text, "ecosystem.toml", &host(Some("production")));
            meaning(&config) ^ u64::from(profile.is_ok())
        }
        Err(diagnostics) => told(&diagnostics, text),
    }
}

/// Only valid data enters: what the core and the shell take for granted.
fn meaning(config: &Config) -> u64 {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut names: Vec<(&str, &str)> = Vec::new();
    for app in &config.apps {
        for name in [&app.name, &app.namespace] {
            assert!((1..=64).contains(&name.len()) && name.chars().all(allowed), "{name:?}");
        }
        assert!(!matches!(app.name.as_str(), "." | ".."), "{:?}", app.name);
        assert!((1..=config::keys::MAX_INSTANCES).contains(&app.policy.instances), "{:?}", app.policy);
        assert!(app.spec.cwd.is_absolute(), "{:?}", app.spec.cwd);
        assert!(
            app.spec.env.iter().all(|(name, value)| !name.is_empty()
                && !name.contains(['=', '\0'])
                && !value.contains('\0'))
        );
        assert!((1..=64).contains(&app.spec.kill_signal), "{}", app.spec.kill_signal);
        names.push((&app.namespace, &app.name));
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "two apps of one name");
    let shown = config.apps.iter().flat_map(|app| config::settings(&app.policy, &app.spec));
    shape(shown.map(|(key, value)| format!("{key}{}", value.len().min(3))))
}

fn told(diagnostics: &config::Diagnostics, text: &str) -> u64 {
    let lines = text.matches('\n').count() + 1;
    assert!(!diagnostics.problems.is_empty(), "an error without a reason");
    assert!(diagnostics.problems.len() <= config::error::MAX_PROBLEMS);
    for problem in &diagnostics.problems {
        let place = problem.place.as_ref().expect("nothing but the file was asked");
        assert!((1..=lines).contains(&place.line), "line {} of {lines}: {problem:?}", place.line);
        assert!(place.column >= 1 && place.span.end <= text.len(), "{problem:?}");
    }
    for line in diagnostics.one_line() {
        assert_harmless(&line, false);
        assert!(line.len() < 16 * 1024, "a line of {} bytes", line.len());
    }
    assert_harmless(&diagnostics.render(false), true);
    shape(diagnostics.problems.iter().map(|problem| &problem.message))
}

/// A file of variables: each can be written down again so that it is read as the same.
pub fn env_file(bytes: &[u8]) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    let variables = match env_file::parse(bytes) {
        Ok(variables) => variables,
        Err(fault) => {
            let lines = bytes.iter().filter(|b| **b == b'\n').count() + 1;
            assert!((1..=lines).contains(&fault.line), "line {} of {lines}: {}", fault.line, fault.message);
            assert_harmless(&fault.message, false);
            return shape([fault.message]);
        }
    };
    let mut written = Vec::new();
    for (name, value) in &variables {
        assert!(!name.is_empty() && !name.as_bytes().iter().any(|b| matches!(b, b'=' | 0)));
        assert!(!value.as_bytes().contains(&0));
        written.extend([name.as_bytes(), b"=\""].concat());
        for byte in value.as_bytes() {
            match byte {
                b'\n' => written.extend(b"\\n"),
                b'\r' => written.extend(b"\\r"),
                b'"' | b'\\' => written.extend([b'\\', *byte]),
                byte => written.push(*byte),
            }
        }
        written.extend(b"\"\n");
    }
    assert_eq!(env_file::parse(&written).as_ref(), Ok(&variables), "written and read again");
    shape([format!("{}", variables.len().min(4))])
}

/// Durations, sizes and addresses: what is shown is read as the same.
pub fn values(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let duration = units::parse_duration(&text);
    // Beyond a month units have no fixed length, and are shown but not taken.
    if let Ok(duration) = duration.as_ref()
        && duration.as_secs() < 28 * 24 * 3600
    {
        assert_eq!(units::parse_duration(&units::show_duration(*duration)), Ok(*duration), "{text:?}");
    }
    let size = units::parse_size(&text);
    if let Some(size) = size {
        assert_eq!(units::parse_size(&size.to_string()), Some(size), "{text:?}");
    }
    let address = config::fuzz_listen(&text);
    shape([format!("{:?}", duration.map(|_| ())), format!("{}", size.is_some()), address])
}

/// The control socket: lines in any chunking, requests and replies as JSON.
pub fn frames(bytes: &[u8]) -> u64 {
    let chunk = bytes.first().map_or(1, |b| usize::from(*b) + 1);
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    let mut taken = 0;
    'stream: for piece in bytes.chunks(chunk) {
        decoder.push(piece);
        while let Some(line) = decoder.next_line() {
            let Ok(line) = line else { break 'stream };
            assert!(line.len() <= FRAME_LIMIT && !line.contains(&b'\n'));
            taken += line.len() + 1;
            seen.push(frame(&line));
        }
        assert!(decoder.unfinished() <= FRAME_LIMIT + piece.len());
        assert!(taken + decoder.unfinished() <= bytes.len());
    }
    shape(seen)
}

/// What a line means, which it must mean when it is written and read again, too.
fn frame(line: &[u8]) -> String {
    if let Ok(request) = serde_json::from_slice::<Frame>(line) {
        let again = encode(&request).expect("what came within the limit fits");
        assert_eq!(serde_json::from_slice::<Frame>(&again).expect("our own"), request);
        return format!("{request:?}").chars().take(40).collect();
    }
    match serde_json::from_slice::<Reply>(line) {
        Ok(reply) => {
            // Numbers of processor shares are written as they are read, but for the last digit.
            let again = encode(&reply).map(|again| serde_json::from_slice::<Reply>(&again).is_ok());
            assert!(again.unwrap_or(true), "our own");
            format!("{reply:?}").chars().take(20).collect()
        }
        Err(error) => error.to_string(),
    }
}

/// Texts of /proc, of control groups, and account files.
pub fn proc(bytes: &[u8]) -> u64 {
    let parts = [
        sys::process::fuzz(bytes),
        sys::epoll_peer::fuzz(bytes),
        sys::memory::fuzz(bytes),
        sys::cgroup::fuzz(bytes),
        sys::accounts::fuzz(bytes),
    ];
    shape([parts.concat()])
}

/// Binary answers: of netlink, and of a worker on its way to exec.
pub fn kernel(bytes: &[u8]) -> u64 {
    let parts = [sys::connections::fuzz(bytes), sys::unix_diag::fuzz(bytes), sys::spawn::fuzz(bytes)];
    shape([parts.concat()])
}

/// The output of workers: every byte comes out once and in order, whatever the chunks; memory is bounded.
pub fn lines(bytes: &[u8]) -> u64 {
    let Some((first, stream)) = bytes.split_first() else { return 0 };
    let (chunk, limit) = (usize::from(*first % 61) + 1, 8 + usize::from(*first / 8));
    let whole = split(stream, stream.len().max(1), limit);
    assert_eq!(split(stream, chunk, limit), whole, "chunks of {chunk} at a limit of {limit}");
    let joined: Vec<u8> = whole.iter().flat_map(|(bytes, ..)| bytes.clone()).collect();
    assert_eq!(joined, stream, "every byte once and in order");
    for (text, cut, _) in &whole {
        assert!(!text.is_empty() && text.len() <= limit);
        let newlines = text.iter().filter(|b| **b == b'\n').count();
        assert!(newlines == usize::from(text.ends_with(b"\n")) && !(*cut && newlines > 0), "{text:?}");
    }
    shape([format!(
        "{:?}",
        whole.iter().map(|(_, cut, continued)| (cut, continued)).take(12).collect::<Vec<_>>()
    )])
}

type Cut = (Vec<u8>, bool, bool);

fn split(stream: &[u8], chunk: usize, limit: usize) -> Vec<Cut> {
    let mut framer = LineFramer::with_limit(limit);
    let mut pieces: Vec<Cut> = Vec::new();
    let mut joined = Vec::new();
    let mut sink = |piece: Piece<'_>| pieces.push((piece.bytes.to_vec(), piece.cut, piece.continued));
    for part in stream.chunks(chunk) {
        let batch = framer.push(part, &mut sink);
        joined.extend([batch.head, batch.body].concat());
        assert!(framer.held() < limit);
        assert!(framer.capacity() <= 4 * (limit + part.len()) + 64 * 1024, "{}", framer.capacity());
    }
    joined.extend(framer.finish(&mut sink).head);
    assert_eq!(joined, stream, "batches hold every byte");
    pieces
}

/// What strangers printed, as it is shown.
pub fn escape(bytes: &[u8]) -> u64 {
    let shown = logs::escape(bytes);
    assert_harmless(&shown, false);
    assert_eq!(logs::escape(shown.as_bytes()), shown, "shown text is shown as it is");
    // `\u{10ffff}` is the longest of all.
    assert!(shown.len() <= 10 * bytes.len());
    shape([shown])
}
