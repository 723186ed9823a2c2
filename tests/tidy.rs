//! Reads the sources and fails on what the compiler and clippy cannot see: a layer that knows more than
//! it may (the table is [`LAYERS`]), a function that outgrew its job, words that belong to one machine.
//! It reads text, not syntax: comments and literals are blanked first, and that is as far as it goes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// One row: who may know whom. The first row whose prefix fits a file holds.
struct Layer {
    /// A path below `src/`, as a prefix.
    of: &'static str,
    /// Modules of this crate, as prefixes.
    modules: &'static [&'static str],
    /// Other crates; `std` parts are `std::…` prefixes, and a bare `std` is all of it.
    crates: &'static [&'static str],
}

const PURE_STD: &[&str] = &[
    "std::borrow",
    "std::cmp",
    "std::collections",
    "std::error",
    "std::fmt",
    "std::hash",
    "std::iter",
    "std::mem",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::num",
    "std::ops",
    "std::slice",
    "std::str",
    "std::time::Duration",
];

const LAYERS: &[Layer] = &[
    Layer { of: "supervisor/", modules: &["supervisor"], crates: PURE_STD },
    Layer {
        of: "sys/",
        modules: &["sys"],
        crates: &[
            "std",
            "libc",
            "memchr",
            "mio",
            "nix",
            "rustix",
            "signal_hook",
            "signal_hook_mio",
            "thiserror",
        ],
    },
    Layer {
        of: "home.rs",
        modules: &["sys::rights", "sys::route", "sys::socket"],
        crates: &["std", "libc", "nix", "thiserror"],
    },
    Layer {
        of: "http/",
        modules: &["control::protocol", "http", "supervisor::time"],
        crates: &["std", "httparse", "mio"],
    },
    Layer { of: "background.rs", modules: &["home", "sys"], crates: &["std", "libc", "nix", "thiserror"] },
    // Looks programs up on the file system at each start; the rest of config opens nothing.
    // Looks at what launch opened, and at the folders above it.
    Layer { of: "config/guarded.rs", modules: &["config", "sys::route"], crates: &["std", "libc"] },
    Layer { of: "config/launch.rs", modules: &["config"], crates: &["std", "libc", "thiserror"] },
    // The host's tables of time zones are the library's matter.
    Layer {
        of: "config/calendar.rs",
        modules: &["supervisor::policy"],
        crates: &["std::time::Duration", "croner", "jiff", "thiserror"],
    },
    // Looks at who may read the files that launch and the command line read.
    Layer { of: "config/exposed.rs", modules: &["config"], crates: &["std"] },
    // Patterns are the library's matter.
    Layer { of: "config/glob.rs", modules: &[], crates: &["fast_glob"] },
    Layer { of: "config/ignore.rs", modules: &[], crates: &["fast_glob"] },
    Layer {
        of: "config/",
        modules: &["config", "logs::escape::steers", "supervisor::address", "supervisor::policy"],
        crates: &[
            "std::borrow",
            "std::cmp",
            "std::collections",
            "std::error",
            "std::ffi",
            "std::fmt",
            "std::iter",
            "std::mem",
            "std::net::IpAddr",
            "std::net::Ipv4Addr",
            "std::net::Ipv6Addr",
            "std::net::SocketAddr",
            "std::num",
            "std::ops",
            "std::os::unix::ffi",
            "std::path",
            "std::str",
            "std::time::Duration",
            "anstyle",
            "bytesize",
            "humantime",
            "libc",
            "serde",
            "serde_json",
            "shlex",
            "strsim",
            "thiserror",
            "toml",
            "unicode_width",
        ],
    },
    // Text in, text out: what is read, run and asked of the host is the command line's.
    Layer {
        of: "import/",
        modules: &["import", "config::error", "config::keys"],
        crates: &[
            "std::collections",
            "std::iter",
            "std::ops",
            "jsonc_parser",
            "saphyr_parser",
            "serde_json",
            "toml_writer",
        ],
    },
    // The meaning of a file in, text out.
    Layer {
        of: "export/",
        modules: &[
            "export",
            "config",
            "logs::escape::steers",
            "supervisor::address::Address",
            "supervisor::policy",
        ],
        crates: &["std::collections", "std::fmt", "std::iter", "std::mem", "std::ptr", "std::time::Duration"],
    },
    // Events in, a screen out: the terminal and the sockets are the command line's.
    Layer {
        of: "monit/",
        modules: &["monit", "control::protocol", "control::render"],
        crates: &[
            "std::cmp",
            "std::collections",
            "std::mem",
            "std::str",
            "std::time::Duration",
            "ratatui",
            "unicode_width",
        ],
    },
    Layer { of: "control/protocol.rs", modules: &[], crates: &["std::collections", "std::fmt", "serde"] },
    Layer {
        of: "control/client.rs",
        modules: &["control::protocol", "control::frame", "home", "sys::socket"],
        crates: &["std", "libc", "memchr", "nix", "serde", "serde_json", "thiserror"],
    },
    Layer {
        of: "control/target.rs",
        modules: &["supervisor::event::AppId", "supervisor::event::Scope", "supervisor::event::SlotId"],
        crates: &["std", "regex_lite", "strsim", "thiserror"],
    },
    Layer {
        of: "control/server.rs",
        modules: &["control::protocol", "control::frame", "supervisor::time", "sys::socket"],
        crates: &["std", "libc", "memchr", "mio", "serde", "serde_json", "thiserror"],
    },
    Layer {
        of: "control/",
        modules: &["control"],
        crates: &[
            "std",
            "anstream",
            "anstyle",
            "bytesize",
            "humantime",
            "memchr",
            "serde",
            "serde_json",
            "thiserror",
            "unicode_width",
        ],
    },
    Layer { of: "logs/logger.rs", modules: LOGS_MODULES, crates: EVERY_CRATE },
    Layer {
        of: "logs/",
        modules: LOGS_MODULES,
        crates: &[
            "std",
            "anstyle",
            "flate2",
            "jiff",
            "libc",
            "memchr",
            "nix",
            "serde",
            "serde_json",
            "thiserror",
        ],
    },
    Layer {
        of: "daemon/",
        modules: &[
            "daemon",
            "logs",
            "control",
            "config",
            "sys",
            "supervisor",
            "home",
            "background",
            "fuzz",
            "http",
        ],
        crates: EVERY_CRATE,
    },
    Layer { of: "demo.rs", modules: &["sys"], crates: &["std", "libc"] },
    Layer { of: "logger.rs", modules: &["sys"], crates: EVERY_CRATE },
    Layer { of: "cli", modules: &[""], crates: EVERY_CRATE },
    Layer { of: "fuzz", modules: &[""], crates: EVERY_CRATE },
    Layer { of: "main.rs", modules: &[""], crates: EVERY_CRATE },
    Layer { of: "lib.rs", modules: &[""], crates: EVERY_CRATE },
];

/// Bytes to files and terminals: who wrote them is known by plain ids.
const LOGS_MODULES: &[&str] = &[
    "logs",
    "sys",
    "config::LogTarget",
    "config::date",
    "config::logs",
    "control::protocol::Stream",
    "supervisor::event::AppId",
    "supervisor::event::WorkerId",
    "supervisor::time",
];

/// The daemon and what lies above it may use all that the manifest names.
const EVERY_CRATE: &[&str] = &["*"];

/// The limit of the house's style. A flat `match` may go over it, with a reason in [`LONG_FUNCTIONS`].
const FUNCTION_LINES: usize = 60;

/// Functions that may be longer: file below `src/`, name, why. An entry that no longer applies fails.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    ("daemon/report.rs", "render", "a flat table: one arm for each fact"),
    ("config/keys.rs", "expected", "a flat table: one arm for each kind of value"),
    ("config/settings.rs", "value_of", "a flat table: one arm for each key of the file"),
    ("cli/commands.rs", "execute", "a flat table: one arm for each verb"),
    ("daemon/commands.rs", "try_request", "a flat table: one arm for each wish"),
    ("daemon/mod.rs", "new", "a flat list: one line for each thing that the shell holds"),
];

/// Where `log` macros may stand: everything else returns errors or reports facts.
const LOGGERS: &[&str] = &["src/daemon/", "src/main.rs", "src/cli", "src/logs/logger", "src/logger.rs"];
/// Where something may be printed.
const PRINTERS: &[&str] =
    &["src/main.rs", "src/cli", "src/demo.rs", "src/control/client", "src/fuzz/runner.rs"];
/// How the wall clock is read, and who may, to print it.
const WALL_CLOCK: &[&str] = &["SystemTime", "CLOCK_REALTIME", "clock::wall", "gettimeofday", "Utc::now"];
const WALL_CLOCK_READERS: &[&str] = &[
    "src/sys/clock.rs",
    // In the names of old log files.
    "src/logs/writer.rs",
    "src/logs/archive.rs",
    // Before lines, where that was asked for.
    "src/logs/worker.rs",
    "src/sys/alarm.rs",
    "src/daemon/crons.rs",
    "src/daemon/list.rs",
    "src/daemon/output.rs",
    "src/logs/logger",
    "src/cli/sight",
    "src/cli/logs",
];
/// Test code that may sleep: the one place that polls a condition to its deadline, and servers whose work
/// is to take time.
const SLEEPERS: &[&str] = &["tests/support/", "tests/fixtures/"];

/// Written in halves, or this file would find itself.
const MACHINE_WORDS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/.")];
const REGISTRY_WORDS: &[&str] = &[concat!("npm", "js."), concat!("crates", ".io"), concat!("pypi", ".org")];
const LATER_WORDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

#[test]
fn the_sources_keep_the_rules_of_the_house() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for path in texts(root) {
        let name = path.strip_prefix(root).expect("it was found there").to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        check_words(&name, &text, &mut found);
        if name.ends_with(".rs") {
            check_rust(&name, &text, LONG_FUNCTIONS, &mut found);
        }
    }
    check_exceptions(root, LONG_FUNCTIONS, &mut found);
    found.dedup();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Every text of the project that people wrote.
fn texts(root: &Path) -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = [
        "src",
        "tests",
        "examples",
        "benches",
        "docs",
        "packaging",
        ".ci",
        ".cargo",
        "Makefile",
        "Cargo.toml",
    ]
    .iter()
    .chain(&["README.md", "CHANGELOG.md", "BENCHMARKS.md", "ecosystem.example.toml", "clippy.toml"])
    .map(|name| root.join(name))
    .collect();
    let mut texts = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder of the project is readable");
            open.extend(entries.map(|entry| entry.expect("its entries too").path()));
        } else if path.is_file() {
            texts.push(path);
        }
    }
    texts.sort();
    texts
}

/// Words that no file may hold.
fn check_words(name: &str, text: &str, found: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        for word in MACHINE_WORDS.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{at}: `{word}` is a path of one machine"));
        }
        for word in REGISTRY_WORDS.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{at}: `{word}` names a registry's host; the client knows it"));
        }
        for word in LATER_WORDS.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{at}: `{word}`: do it now, or write an issue"));
        }
    }
}

fn check_rust(name: &str, text: &str, long: &[(&str, &str, &str)], found: &mut Vec<String>) {
    if !text.starts_with("//!") {
        found.push(format!("{name}:1: no `//!` that says what the file is for and what it refuses"));
    }
    let lines = code_lines(name, text);
    for (number, line) in lines.iter().enumerate() {
        for complaint in line_complaints(name, line) {
            found.push(format!("{name}:{}: {complaint}", number + 1));
        }
    }
    if let Some(inside) = name.strip_prefix("src/") {
        check_layer(inside, &lines, found);
        check_lengths(inside, &lines, long, found);
    }
}

fn line_complaints(name: &str, line: &Line) -> Vec<&'static str> {
    let code = line.code.as_str();
    let allowed = |places: &[&str]| places.iter().any(|place| name.starts_with(place));
    let calls = |macros: &[&str]| macros.iter().any(|name| has_macro(code, name));
    let in_src = name.starts_with("src/");
    let mut complaints = Vec::new();
    if has_word(code, "unsafe") && in_src && !name.starts_with("src/sys/") {
        complaints.push("`unsafe` outside src/sys");
    }
    if code.replace(' ', "").contains("#[ignore]") {
        complaints.push("a bare `#[ignore]`: a test that never runs proves nothing");
    }
    if line.in_test && code.contains("thread::sleep") && !allowed(SLEEPERS) {
        complaints.push("`thread::sleep` in a test: wait for a condition with a deadline");
    }
    if line.in_test || !in_src {
        return complaints;
    }
    if calls(&["error", "warn", "info", "debug", "trace"]) && !allowed(LOGGERS) {
        complaints.push("a log macro below the daemon: return an error or report a fact");
    }
    if calls(&["println", "print", "eprintln", "eprint"]) && !allowed(PRINTERS) {
        complaints.push("printing below the command line");
    }
    if WALL_CLOCK.iter().any(|word| code.contains(word)) && !allowed(WALL_CLOCK_READERS) {
        complaints
            .push("the wall clock jumps: it is for printing only, and what is decided goes by sys::clock");
    }
    if code.contains(".unwrap()") {
        complaints.push("`unwrap()` outside tests: an `expect` states the invariant");
    }
    complaints
}

// --- Layers ------------------------------------------------------------------------------------------

fn check_layer(inside: &str, lines: &[Line], found: &mut Vec<String>) {
    let Some(layer) = LAYERS.iter().find(|layer| inside.starts_with(layer.of)) else {
        found.push(format!("src/{inside}:1: no row of LAYERS in tests/tidy.rs says what it may use"));
        return;
    };
    let here = module_of(inside);
    for (number, path) in paths(lines) {
        if let Some(other) = beyond(layer, &here, &path) {
            found.push(format!("src/{inside}:{number}: `{}` may not know `{other}`", layer.of));
        }
    }
}

/// The module path of a file: `control/server.rs` → `control`, `server`.
fn module_of(inside: &str) -> Vec<String> {
    let path = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" || path == "main" {
        return Vec::new();
    }
    path.split('/').map(str::to_owned).collect()
}

/// What a path leads to, when the layer may not know it.
fn beyond(layer: &Layer, here: &[String], path: &[String]) -> Option<String> {
    let fits = |full: &str, prefixes: &[&str]| {
        prefixes.iter().any(|prefix| {
            prefix.is_empty()
                || full.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                || (prefix.starts_with("std::net::") && full.starts_with(prefix))
        })
    };
    let head = path.first()?.as_str();
    let inner = match head {
        "crate" | "clusterd" => path[1..].to_vec(),
        "super" => {
            let up = path.iter().take_while(|part| *part == "super").count();
            let kept = here.len().checked_sub(up)?;
            [&here[..kept], &path[up..]].concat()
        }
        "std" | "core" | "alloc" => {
            let full = path.join("::").replacen(head, "std", 1);
            return (!layer.crates.contains(&"*") && !fits(&full, layer.crates)).then_some(full);
        }
        _ => {
            let known = is_dependency(head);
            return (known && !layer.crates.contains(&"*") && !layer.crates.contains(&head))
                .then(|| head.to_owned());
        }
    };
    let full = inner.join("::");
    (!full.is_empty() && !fits(&full, layer.modules)).then(|| format!("crate::{full}"))
}

/// Whether the manifest names a crate of that name.
fn is_dependency(name: &str) -> bool {
    let manifest = include_str!("../Cargo.toml");
    manifest
        .lines()
        .filter_map(|line| line.split_once('='))
        .any(|(key, _)| key.trim().replace('-', "_") == name)
}

/// All paths that non-test code names, with their line: `use` lists are taken apart.
fn paths(lines: &[Line]) -> Vec<(usize, Vec<String>)> {
    let mut all = Vec::new();
    let mut import: Option<(usize, String)> = None;
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.in_test) {
        let code = line.code.trim();
        let begins = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
        if import.is_none() && begins.iter().any(|begin| code.starts_with(begin)) {
            import = Some((number + 1, String::new()));
        }
        match &mut import {
            Some((_, text)) => text.push_str(&line.code),
            None => all.extend(inline_paths(code).into_iter().map(|path| (number + 1, path))),
        }
        if let Some((first, text)) = import.take_if(|(_, text)| text.contains(';')) {
            let list = text.split_once("use ").map_or("", |(_, list)| list).replace([';', ' '], "");
            all.extend(expand(&list).into_iter().map(|path| (first, split(&path))));
        }
    }
    all
}

fn split(path: &str) -> Vec<String> {
    path.split("::").filter(|part| !part.is_empty() && *part != "*").map(str::to_owned).collect()
}

/// `a::{b, c::{d, e}}` → `a::b`, `a::c::d`, `a::c::e`.
fn expand(list: &str) -> Vec<String> {
    let Some((prefix, rest)) = list.split_once('{') else { return vec![list.to_owned()] };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let mut depth = 0_usize;
    let items = inner.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    items
        .filter(|item| !item.is_empty())
        .flat_map(expand)
        .map(|item| if item == "self" { prefix.to_owned() } else { format!("{prefix}{item}") })
        .collect()
}

/// Paths in the middle of code: `std::fs::read(…)`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    code.split(|c: char| !(is_word(c) || c == ':'))
        .filter(|part| part.contains("::") && !part.starts_with(':'))
        .map(split)
        .collect()
}

// --- Lengths -----------------------------------------------------------------------------------------

fn check_lengths(inside: &str, lines: &[Line], long: &[(&str, &str, &str)], found: &mut Vec<String>) {
    for (number, name, length) in functions(lines) {
        let excepted = long.iter().any(|(file, function, _)| *file == inside && *function == name);
        if length > FUNCTION_LINES && !excepted {
            let mut text = format!("src/{inside}:{number}: `{name}` has {length} lines, ");
            let _ =
                write!(text, "the limit is {FUNCTION_LINES}: split it, or give its reason in LONG_FUNCTIONS");
            found.push(text);
        }
    }
}

/// Non-test functions with a body: first line, name, lines from `fn` to the closing brace.
fn functions(lines: &[Line]) -> Vec<(usize, String, usize)> {
    let mut all = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| !line.in_test) {
        let Some(name) = function_name(&line.code) else { continue };
        let mut depth = 0_i32;
        let mut opened = false;
        'body: for (offset, line) in lines[start..].iter().enumerate() {
            for c in line.code.chars() {
                match c {
                    '{' => (depth, opened) = (depth + 1, true),
                    '}' => depth -= 1,
                    ';' if !opened && offset == 0 => break 'body,
                    _ => {}
                }
                if opened && depth == 0 {
                    all.push((start + 1, name.clone(), offset + 1));
                    break 'body;
                }
            }
        }
    }
    all
}

fn function_name(code: &str) -> Option<String> {
    let before_name = code.trim_start();
    let rest = before_name.split_once("fn ").filter(|(head, _)| head.is_empty() || head.ends_with(' '))?.1;
    let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
    (!name.is_empty()).then_some(name)
}

/// Exceptions must say why, and must still be needed.
fn check_exceptions(root: &Path, long: &[(&str, &str, &str)], found: &mut Vec<String>) {
    for (file, function, reason) in long {
        let text = fs::read_to_string(root.join("src").join(file)).unwrap_or_default();
        let still = functions(&code_lines(&format!("src/{file}"), &text))
            .iter()
            .any(|(_, name, length)| name == function && *length > FUNCTION_LINES);
        if !still {
            found.push(format!("tests/tidy.rs: LONG_FUNCTIONS: `{function}` in {file} needs no exception"));
        }
        if reason.len() < 20 {
            found.push(format!("tests/tidy.rs: LONG_FUNCTIONS: `{function}` in {file} gives no reason"));
        }
    }
}

// --- Text to code ------------------------------------------------------------------------------------

/// One line without its comments and the insides of its literals.
#[derive(Debug)]
struct Line {
    code: String,
    in_test: bool,
}

/// Where the scanner stands.
enum Inside {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

fn code_lines(name: &str, text: &str) -> Vec<Line> {
    let code = blank(text);
    let all_test = name.starts_with("tests/");
    let mut lines: Vec<Line> =
        code.lines().map(|line| Line { code: line.to_owned(), in_test: all_test }).collect();
    mark_test_modules(&mut lines);
    lines
}

/// Marks what follows `#[cfg(test)]`, to the end of its braces or its semicolon.
fn mark_test_modules(lines: &mut [Line]) {
    let mut depth = 0_i32;
    let mut marking = false;
    let mut opened = false;
    for line in lines {
        if !marking && line.code.trim().starts_with("#[cfg(test)]") {
            (marking, opened, depth) = (true, false, 0);
        }
        if !marking {
            continue;
        }
        line.in_test = true;
        for c in line.code.chars() {
            match c {
                '{' => (depth, opened) = (depth + 1, true),
                '}' => depth -= 1,
                ';' if !opened => marking = false,
                _ => {}
            }
        }
        if opened && depth == 0 {
            marking = false;
        }
    }
}

/// Replaces comments and the insides of literals by blanks; line breaks stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut inside = Inside::Code;
    let mut i = 0;
    while i < chars.len() {
        let (next, width, keep) = step(&inside, &chars[i..], i.checked_sub(1).map(|before| chars[before]));
        for c in &chars[i..chars.len().min(i + width)] {
            out.push(if keep || *c == '\n' { *c } else { ' ' });
        }
        inside = next;
        i += width;
    }
    out
}

/// From one place in the text to the next: state, characters taken, whether they are code.
fn step(inside: &Inside, rest: &[char], before: Option<char>) -> (Inside, usize, bool) {
    let starts = |what: &str| what.chars().enumerate().all(|(at, c)| rest.get(at) == Some(&c));
    match inside {
        Inside::LineComment if rest[0] == '\n' => (Inside::Code, 1, true),
        Inside::LineComment => (Inside::LineComment, 1, false),
        Inside::BlockComment(depth) if starts("*/") && *depth == 1 => (Inside::Code, 2, false),
        Inside::BlockComment(depth) if starts("*/") => (Inside::BlockComment(depth - 1), 2, false),
        Inside::BlockComment(depth) if starts("/*") => (Inside::BlockComment(depth + 1), 2, false),
        Inside::BlockComment(depth) => (Inside::BlockComment(*depth), 1, false),
        Inside::Text if rest[0] == '\\' => (Inside::Text, 2, false),
        Inside::Text if rest[0] == '"' => (Inside::Code, 1, true),
        Inside::Text => (Inside::Text, 1, false),
        Inside::RawText(hashes) if starts(&format!("\"{}", "#".repeat(*hashes))) => {
            (Inside::Code, 1 + hashes, true)
        }
        Inside::RawText(hashes) => (Inside::RawText(*hashes), 1, false),
        Inside::Code if starts("//") => (Inside::LineComment, 2, false),
        Inside::Code if starts("/*") => (Inside::BlockComment(1), 2, false),
        Inside::Code if rest[0] == '"' => (Inside::Text, 1, true),
        Inside::Code if rest[0] == 'r' && !before.is_some_and(|c| is_word(c) && c != 'b') => raw_start(rest),
        Inside::Code if rest[0] == '\'' => (Inside::Code, char_width(rest), rest.get(2) != Some(&'\'')),
        Inside::Code => (Inside::Code, 1, true),
    }
}

/// `r"`, `r#"` … begin raw text; any other `r` is a letter.
fn raw_start(rest: &[char]) -> (Inside, usize, bool) {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) == Some(&'"') {
        (Inside::RawText(hashes), 2 + hashes, true)
    } else {
        (Inside::Code, 1, true)
    }
}

/// How much a quote takes: a character literal whole, a lifetime's tick alone.
fn char_width(rest: &[char]) -> usize {
    if rest.get(1) == Some(&'\\') {
        2 + rest[2..].iter().skip(1).take_while(|c| **c != '\'').count() + 2
    } else if rest.get(2) == Some(&'\'') {
        3
    } else {
        1
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c| !is_word(c)).any(|part| part == word)
}

/// Whether `name!` is called, also as `log::name!`, but not as part of a longer name.
fn has_macro(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}!")).any(|(at, _)| !code[..at].ends_with(is_word))
}

// --- The rules are known to catch ----------------------------------------------------------------------

/// Complaints about one file.
fn complaints(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    check_words(name, text, &mut found);
    check_rust(name, text, &[], &mut found);
    found
}

#[test]
fn each_rule_catches_its_sample() {
    let later = format!("//! d\n// {}: later\n", LATER_WORDS[0]);
    let machine = format!("//! d\n// see {}x\n", MACHINE_WORDS[0]);
    let registry = format!("//! d\n// from {}\n", REGISTRY_WORDS[1]);
    let samples: &[(&str, &str, &str)] = &[
        ("src/supervisor/a.rs", "//! d\nuse crate::sys::clock;\n", "may not know `crate::sys::clock`"),
        (
            "src/supervisor/a.rs",
            "//! d\nuse super::super::config::Spec;\n",
            "may not know `crate::config::Spec`",
        ),
        ("src/supervisor/a.rs", "//! d\nuse std::{\n    fmt,\n    fs,\n};\n", "may not know `std::fs`"),
        ("src/supervisor/a.rs", "//! d\nuse std::time::{Duration, Instant};\n", "`std::time::Instant`"),
        ("src/supervisor/a.rs", "//! d\nuse std::net::TcpListener;\n", "`std::net::TcpListener`"),
        ("src/supervisor/a.rs", "//! d\nfn f() { let _ = std::fs::read(p); }\n", "`std::fs::read`"),
        ("src/supervisor/a.rs", "//! d\nuse nix::unistd;\n", "may not know `nix`"),
        ("src/sys/a.rs", "//! d\nuse crate::supervisor::time::Time;\n", "`crate::supervisor::time::Time`"),
        ("src/sys/a.rs", "//! d\nuse log::Level;\n", "may not know `log`"),
        (
            "src/config/a.rs",
            "//! d\nuse crate::supervisor::event::AppId;\n",
            "`crate::supervisor::event::AppId`",
        ),
        ("src/config/a.rs", "//! d\nuse crate::sys::clock;\n", "`crate::sys::clock`"),
        ("src/control/protocol.rs", "//! d\nuse super::frame::x;\n", "`crate::control::frame::x`"),
        ("src/control/server.rs", "//! d\nuse crate::sys::{socket, spawn};\n", "`crate::sys::spawn`"),
        ("src/control/client.rs", "//! d\nuse crate::daemon::x;\n", "`crate::daemon::x`"),
        (
            "src/logs/a.rs",
            "//! d\nuse crate::supervisor::event::Event;\n",
            "`crate::supervisor::event::Event`",
        ),
        ("src/daemon/a.rs", "//! d\nuse crate::cli::Args;\n", "`crate::cli::Args`"),
        ("src/other.rs", "//! d\n", "no row of LAYERS"),
        ("src/config/a.rs", "//! d\nfn f() { unsafe { x() } }\n", "`unsafe` outside src/sys"),
        ("src/control/a.rs", "//! d\nfn f() { warn!(\"x\") }\n", "a log macro below the daemon"),
        ("src/daemon/a.rs", "//! d\nfn f() { eprintln!(\"x\") }\n", "printing below the command line"),
        ("src/daemon/a.rs", "//! d\nfn f() { x.unwrap() }\n", "`unwrap()` outside tests"),
        ("src/daemon/a.rs", "fn f() {}\n", "no `//!`"),
        (
            "src/daemon/a.rs",
            "//! d\n#[cfg(test)]\nmod tests {\n#[ignore]\nfn f() {}\n}\n",
            "a bare `#[ignore]`",
        ),
        ("tests/a.rs", "//! d\nfn f() { std::thread::sleep(d) }\n", "`thread::sleep` in a test"),
        ("src/daemon/a.rs", &later, "do it now"),
        ("tests/a.rs", &machine, "a path of one machine"),
        ("tests/a.rs", &registry, "names a registry's host"),
    ];
    for (name, text, expected) in samples {
        let found = complaints(name, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{name}: {text}\n{expected}\n{found:#?}");
    }
}

#[test]
fn what_is_allowed_passes() {
    let samples: &[(&str, &str)] = &[
        (
            "src/supervisor/a.rs",
            "//! d\nuse super::time::Time;\nuse std::collections::{BTreeMap, VecDeque};\n",
        ),
        (
            "src/supervisor/a.rs",
            "//! d\nuse std::net::{IpAddr, SocketAddrV4};\nfn f() { Time::from_start(x) }\n",
        ),
        ("src/sys/a.rs", "//! d\nuse super::socket;\nfn f() { unsafe { libc::close(3) } }\n"),
        ("src/control/server.rs", "//! d\nuse super::protocol::Frame;\nuse crate::sys::socket::peer;\n"),
        ("src/demo.rs", "//! d\nuse crate::sys::inherited;\nfn f() { println!() }\n"),
        ("src/daemon/a.rs", "//! d\nfn f() { log::info!(\"println! and x.unwrap()\"); }\n"),
        ("src/daemon/a.rs", "//! d\n// unsafe { x.unwrap() }\n/* eprintln!() /* nested */ unsafe */\n"),
        (
            "src/daemon/a.rs",
            "//! d\nfn f<'a>(c: char) { if c == '\"' || c == '\\'' { r#\"x.unwrap()\"# } }\n",
        ),
        (
            "src/daemon/a.rs",
            "//! d\n#[cfg(test)]\nmod tests {\n    use std::fs;\n    fn f() { x.unwrap() }\n}\n",
        ),
        ("src/supervisor/a.rs", "//! d\n#[cfg(test)]\nmod tests {\n    use std::fs;\n    use nix::x;\n}\n"),
        ("tests/support/wait.rs", "//! d\nfn f() { std::thread::sleep(d) }\n"),
        (
            "tests/a.rs",
            "//! d\n#[ignore = \"needs a host with cgroup v1\"]\nfn f() { x.unwrap(); println!() }\n",
        ),
    ];
    for (name, text) in samples {
        assert_eq!(complaints(name, text), Vec::<String>::new(), "{name}: {text}");
    }
}

#[test]
fn a_long_function_needs_a_reason_that_still_holds() {
    let with_lines = |n: usize| format!("//! d\npub fn long(\n) {{\n{}}}\n", "    x();\n".repeat(n - 3));
    let check = |text: &str, long: &[(&str, &str, &str)]| {
        let mut found = Vec::new();
        check_rust("src/daemon/a.rs", text, long, &mut found);
        found
    };
    assert_eq!(check(&with_lines(FUNCTION_LINES), &[]), Vec::<String>::new());
    let found = check(&with_lines(FUNCTION_LINES + 1), &[]);
    assert!(found.len() == 1 && found[0].contains("`long` has 61 lines"), "{found:?}");
    let exception = [("daemon/a.rs", "long", "a flat match over every action, one call per arm")];
    assert_eq!(check(&with_lines(FUNCTION_LINES + 1), &exception), Vec::<String>::new());

    let mut stale = Vec::new();
    check_exceptions(Path::new("/nonexistent"), &[("daemon/a.rs", "long", "why not")], &mut stale);
    assert!(stale.len() == 2 && stale[0].contains("needs no exception"), "{stale:?}");
}

#[test]
fn use_lists_are_taken_apart() {
    assert_eq!(expand("a::{b,c::{d,e},self}"), ["a::b", "a::c::d", "a::c::e", "a::"]);
    assert_eq!(expand("a::b"), ["a::b"]);
}

// --- The tests of each fault ---------------------------------------------------------------------------

/// So many faults there are.
const FAULTS: u32 = 88;

/// Faults that belong to later work: their rows say so, and may name no test.
const LATER_FAULTS: &[u32] = &[73, 74, 75, 76, 77];

/// A test as the tables of tests/README.md name it (`file::name`), and the faults that its comment speaks of.
type Tests = std::collections::BTreeMap<String, Vec<u32>>;

#[test]
fn every_fault_and_every_test_of_pm2_has_its_row_of_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("tests/README.md")).expect("it belongs to the sources");
    let mut tests = Tests::new();
    for path in texts(root) {
        if path.parent() == Some(&root.join("tests")) && path.extension().is_some_and(|end| end == "rs") {
            let file = path.file_stem().expect("it has an extension").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("it is ours");
            tests.extend(
                tests_of(&text).into_iter().map(|(name, faults)| (format!("{file}::{name}"), faults)),
            );
        }
    }
    let exists = |path: &str| root.join(path).exists();
    let (pm2, readme) = apart(&readme);
    assert_eq!(fault_complaints(&readme, &tests, &exists), Vec::<String>::new());
    assert_eq!(pm2_complaints(&pm2, &tests), Vec::<String>::new());
}

/// The names of the tests in a file, with the faults that their comments begin with (`/// Faults 7 and 12: …`).
fn tests_of(text: &str) -> Vec<(String, Vec<u32>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.trim() == "#[test]") {
        let Some(name) = lines[at..].iter().find_map(|line| function_name(line)) else { continue };
        let above = lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with("///"));
        let first = above.last().map_or("", |line| line.trim_start());
        let said = first.strip_prefix("/// Fault").map_or("", |rest| rest.trim_start_matches('s'));
        let words = said.split([' ', ',']).filter(|word| !word.is_empty() && *word != "and");
        let numbers = words.map_while(|word| word.trim_end_matches(['.', ':']).parse().ok());
        found.push((name, numbers.collect()));
    }
    found
}

/// What is wrong with the tables. A file that does not exist yet stands for the tests that are to come in it.
fn fault_complaints(readme: &str, tests: &Tests, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut rows = std::collections::BTreeMap::new();
    for line in readme.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(proof) = cells.last() else { continue };
        let named: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        for name in &named {
            match name.contains("::") {
                true if !tests.contains_key(*name) => complaints.push(format!("there is no test `{name}`")),
                false if exists(name) => complaints.push(format!("{}: name the tests of {name}", cells[0])),
                _ => {}
            }
        }
        if let Ok(number) = cells[0].parse::<u32>() {
            let later = proof.starts_with("later");
            if later != LATER_FAULTS.contains(&number) || (!later && named.is_empty()) {
                complaints
                    .push(format!("fault {number}: a test, or `later` as LATER_FAULTS in tidy.rs has it"));
            }
            if rows.insert(number, named.join(" ")).is_some() {
                complaints.push(format!("fault {number} has two rows"));
            }
        }
    }
    complaints
        .extend((1..=FAULTS).filter(|n| !rows.contains_key(n)).map(|n| format!("fault {n} has no row")));
    for (test, faults) in tests {
        let missing =
            |fault: &&u32| !rows.get(fault).is_some_and(|row| row.split(' ').any(|name| name == test));
        for fault in faults.iter().filter(missing) {
            complaints
                .push(format!("`{test}` says that it is about fault {fault}, whose row does not name it"));
        }
    }
    complaints
}

#[test]
fn a_table_of_faults_that_says_too_little_is_caught() {
    let text = "/// Faults 1, 2 and 3: all.\n/// More.\n#[test]\nfn one() {}\n\n/// A Fault 4.\n#[test]\nfn two() {}\n";
    let found = tests_of(text);
    assert_eq!(found, [("one".to_owned(), vec![1, 2, 3]), ("two".to_owned(), vec![])]);
    let tests: Tests = found.into_iter().map(|(name, faults)| (format!("a::{name}"), faults)).collect();
    let rows = |change: &dyn Fn(u32) -> String| -> String {
        let good = |number: u32| match change(number) {
            other if !other.is_empty() => other,
            _ if LATER_FAULTS.contains(&number) => format!("| {number} | f | r | later |\n"),
            _ => format!("| {number} | f | r | `a::one` |\n"),
        };
        (1..=FAULTS).map(good).collect()
    };
    let complaints = |change: &dyn Fn(u32) -> String| fault_complaints(&rows(change), &tests, &|_| false);
    assert_eq!(complaints(&|_| String::new()), Vec::<String>::new());
    for (number, row, says) in [
        (5, "| 5 | f | r | `a::three` |\n", "there is no test `a::three`"),
        (5, "| x |\n", "fault 5 has no row"),
        (5, "| 5 | f | r | some day |\n", "fault 5: a test, or `later`"),
        (73, "| 73 | f | r | `a::one` |\n", "fault 73: a test, or `later`"),
        (2, "| 2 | f | r | `a::two` |\n", "`a::one` says that it is about fault 2"),
        (4, "| 4 | f | r | `a::one` |\n| 4 | f | r | `a::one` |\n", "fault 4 has two rows"),
    ] {
        let found = complaints(&|n| if n == number { row.to_owned() } else { String::new() });
        assert!(found.len() == 1 && found[0].contains(says), "{row}: {found:?}");
    }
    let awaited = |there: bool| fault_complaints("| 5 | f | r | `tests/b.rs` |\n", &Tests::new(), &|_| there);
    assert_eq!(awaited(true).len(), awaited(false).len() + 1);
}

// --- PM2's own tests -----------------------------------------------------------------------------------

/// So many of PM2's own tests have to have a row.
const PM2_TESTS: u32 = 88;

/// The table of PM2's own tests, and the README without it: the rows of both begin with a number.
fn apart(readme: &str) -> (String, String) {
    let (before, rest) = readme.split_once("## PM2's own tests\n").unwrap_or((readme, ""));
    let (table, after) = rest.split_once("\n## ").unwrap_or((rest, ""));
    (table.to_owned(), format!("{before}{after}"))
}

/// What is wrong with that table: a row names tests, or says why there is none.
fn pm2_complaints(table: &str, tests: &Tests) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut rows = std::collections::BTreeSet::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(number) = cells[0].parse::<u32>() else { continue };
        let proof = if cells.len() == 4 { cells[3] } else { "" };
        let named: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        let excused = ["gone: ", "later: "].iter().any(|word| proof.starts_with(word));
        if named.is_empty() && !excused {
            complaints.push(format!("PM2's test {number}: four cells, the last with a test, or `gone: why`"));
        }
        let strange = named.iter().filter(|name| !tests.contains_key(**name));
        complaints.extend(strange.map(|name| format!("there is no test `{name}`")));
        if !rows.insert(number) {
            complaints.push(format!("PM2's test {number} has two rows"));
        }
    }
    let missing = (1..=PM2_TESTS).filter(|number| !rows.contains(number));
    complaints.extend(missing.map(|number| format!("PM2's test {number} has no row")));
    complaints
}

#[test]
fn a_table_of_pm2s_tests_that_says_too_little_is_caught() {
    let tests = Tests::from([("a::one".to_owned(), Vec::new())]);
    let rows = |change: (u32, &str)| -> String {
        let row = |number| match number == change.0 {
            true => change.1.to_owned(),
            false => format!("| {number} | t | p | `a::one` |\n"),
        };
        (1..=PM2_TESTS).map(row).collect()
    };
    for good in ["| 5 | t | p | `a::one` |\n", "| 5 | t | p | gone: no such verb |\n"] {
        assert_eq!(pm2_complaints(&rows((5, good)), &tests), Vec::<String>::new());
    }
    for (row, says) in [
        ("| 5 | t | p | `a::three` |\n", "there is no test `a::three`"),
        ("| 5 | t | p | some day |\n", "PM2's test 5: four cells"),
        ("| 5 | t | `a::one` |\n", "PM2's test 5: four cells"),
        ("| x |\n", "PM2's test 5 has no row"),
        ("| 5 | t | p | `a::one` |\n| 5 | t | p | `a::one` |\n", "PM2's test 5 has two rows"),
    ] {
        let found = pm2_complaints(&rows((5, row)), &tests);
        assert!(found.len() == 1 && found[0].contains(says), "{row}: {found:?}");
    }
    let (table, rest) = apart("# a\n| 1 | f |\n## PM2's own tests\n| 1 | p |\n\n## Security\n| s |\n");
    assert_eq!((table.as_str(), rest.as_str()), ("| 1 | p |\n", "# a\n| 1 | f |\nSecurity\n| s |\n"));
}
