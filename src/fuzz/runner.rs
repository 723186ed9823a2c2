//! The fuzzer that needs nothing but `cargo test`: seeds that are checked in, changed by a seeded generator, and
//! kept when something new became of them. libFuzzer sees which code ran and finds more in the same time; this
//! one runs everywhere, and again and again.
//!
//! CLUSTERD_FUZZ_SECONDS: how long each target runs, with a new seed each time; without it a fixed number of
//! inputs from a fixed seed. CLUSTERD_FUZZ_SEED: from this seed.
#![allow(clippy::disallowed_methods, reason = "how long to search is a matter of real time")]

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{TARGETS, Target};

/// Inputs of a run that is not told how long.
const INPUTS: usize = 3_000;

/// No input may take longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest input, in bytes.
const LONGEST: usize = 8 * 1024;

/// Inputs that are kept.
const POOL: usize = 2_000;

/// What parsers stumble over.
const SPICE: &[&[u8]] = &[
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\"",
    b"'",
    b"\\",
    b"\x1b[31m",
    b"\x7f",
    b"\xff",
    b"\xc3",
    b"\xf0\x9f",
    "\u{202e}".as_bytes(),
    "\u{85}".as_bytes(),
    "\u{2028}".as_bytes(),
    b"=",
    b"[",
    b"]",
    b"{",
    b"}",
    b"#",
    b",",
    b".",
    b":",
    b"/",
    b"-",
    b"0",
    b"-1",
    b"1e999",
    b"0x",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"99999999999999999999999",
    b"max",
    b"null",
    b"true",
    b"nan",
    b"../",
    b"unix:",
    b"[[apps]]\n",
    b"\"\"\"",
    b"'''",
    b"10s",
    b"1M",
    b"%",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\0\0\0\x80",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of this folder, in order.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("it is there"))).collect()
}

fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = files(&root().join("fuzz/seeds").join(name));
    assert!(!all.is_empty(), "no seeds for {name}");
    all.extend(files(&root().join("fuzz/regressions").join(name)));
    if name == "config" {
        all.extend(example());
    }
    all
}

/// The example file as it is, and each of its keys that are commented out as a file of its own.
fn example() -> Vec<(PathBuf, Vec<u8>)> {
    let path = root().join("ecosystem.example.toml");
    let text = fs::read_to_string(&path).expect("it belongs to the sources");
    let keys = text.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| line.contains(" = "));
    let of_key = |key: &str| format!("[[apps]]\nname = \"a\"\nscript = \"./a\"\n{key}\n").into_bytes();
    let mut all: Vec<Vec<u8>> = keys.map(of_key).collect();
    all.push(text.clone().into_bytes());
    all.into_iter().map(|bytes| (path.clone(), bytes)).collect()
}

/// Where the input that broke a target is.
fn kept(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("clusterd-fuzz-{name}-{}", std::process::id()))
}

/// Runs the target on one input; on failure the input is kept where the message says.
fn check(name: &str, target: Target, input: &[u8], origin: &str) -> u64 {
    let begin = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    let took = begin.elapsed();
    if let Ok(shape) = outcome
        && took < PATIENCE
    {
        return shape;
    }
    let path = kept(name);
    let written = fs::write(&path, input);
    panic!(
        "{name}: broken after {took:?} by {origin}; the input is in {} ({written:?}): put it into \
         fuzz/regressions/{name}/ and mend what it breaks: {:?}",
        path.display(),
        String::from_utf8_lossy(&input[..input.len().min(400)])
    );
}

fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let limit = number("CLUSTERD_FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("CLUSTERD_FUZZ_SEED").unwrap_or(if limit.is_some() { fastrand::u64(..) } else { 1 });
    let mut rng = Rng::with_seed(seed);
    let (mut pool, mut shapes) = (Vec::new(), HashSet::new());
    for (path, bytes) in seeds(name) {
        shapes.insert(check(name, *target, &bytes, &path.display().to_string()));
        pool.push(bytes);
    }
    let (begin, mut count) = (Instant::now(), 0);
    while limit.map_or(count < INPUTS, |limit| begin.elapsed() < limit) {
        let input = mutate(&mut rng, &pool);
        let shape = check(name, *target, &input, &format!("CLUSTERD_FUZZ_SEED={seed}, input {count}"));
        if shapes.insert(shape) && pool.len() < POOL {
            pool.push(input);
        }
        count += 1;
    }
    eprintln!("{name}: {count} inputs from seed {seed}, {} kinds of outcome", shapes.len());
}

/// One to six changes to an input of the pool.
fn mutate(rng: &mut Rng, pool: &[Vec<u8>]) -> Vec<u8> {
    let mut input = rng.choice(pool).expect("there are seeds").clone();
    for _ in 0..rng.usize(1..=6) {
        let at = rng.usize(0..=input.len());
        let end = (at + rng.usize(0..=16)).min(input.len());
        match rng.u8(0..8) {
            0 => drop(input.splice(at..end, [])),
            1 => insert(&mut input, at, rng.choice(SPICE).expect("there is some")),
            2 => drop(input.splice(at..end, rng.choice(SPICE).expect("there is some").iter().copied())),
            3 if at < input.len() => input[at] ^= 1 << rng.u8(0..8),
            4 => {
                let again = input[at..end].to_vec();
                (0..rng.usize(1..8)).for_each(|_| insert(&mut input, at, &again));
            }
            5 => replace_number(rng, &mut input),
            6 => {
                let other = rng.choice(pool).expect("there are seeds");
                let from = rng.usize(0..=other.len());
                let to = (from + rng.usize(0..200)).min(other.len());
                insert(&mut input, at, &other[from..to]);
            }
            _ if rng.u8(0..8) == 0 => input.truncate(at),
            _ => swap_lines(rng, &mut input),
        }
    }
    input.truncate(LONGEST);
    input
}

fn insert(input: &mut Vec<u8>, at: usize, what: &[u8]) {
    input.splice(at..at, what.iter().copied());
}

/// A run of digits becomes another number.
fn replace_number(rng: &mut Rng, input: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..input.len())
        .filter(|at| input[*at].is_ascii_digit() && (*at == 0 || !input[*at - 1].is_ascii_digit()))
        .collect();
    let Some(start) = rng.choice(starts) else { return };
    let length = input[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    let number = match rng.u8(0..4) {
        0 => rng.u64(..).to_string(),
        1 => rng.u64(0..=u64::from(u32::MAX) + 1).to_string(),
        2 => "9".repeat(rng.usize(1..40)),
        _ => rng.u8(..).to_string(),
    };
    input.splice(start..start + length, number.into_bytes());
}

fn swap_lines(rng: &mut Rng, input: &mut Vec<u8>) {
    let mut lines: Vec<Vec<u8>> = input.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    if lines.len() > 1 {
        let (one, other) = (rng.usize(0..lines.len()), rng.usize(0..lines.len()));
        lines.swap(one, other);
        *input = lines.concat();
    }
}

macro_rules! targets {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            run($name);
        })*

        #[test]
        fn every_target_is_run() {
            let run = [$($name),*];
            let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, run);
            let driven = |name: &&str| root().join("fuzz/fuzz_targets").join(format!("{name}.rs")).exists();
            assert!(run.iter().all(driven), "fuzz/fuzz_targets has a file for each");
        }
    };
}

targets! {
    no_ecosystem_file_is_too_strange: "config",
    no_file_of_variables_is_too_strange: "env_file",
    no_value_is_too_strange: "values",
    no_frame_is_too_strange: "frames",
    no_request_over_http_is_too_strange: "http",
    no_notify_message_is_too_strange: "notify",
    no_word_of_node_is_too_strange: "node",
    no_state_file_is_too_strange: "state",
    no_saved_list_is_too_strange: "saved",
    no_text_of_proc_is_too_strange: "proc",
    no_answer_of_the_kernel_is_too_strange: "kernel",
    no_output_is_too_strange_to_be_split: "lines",
    no_output_is_too_strange_to_be_shown: "escape",
}

/// The runner itself: what breaks is found, from seeds alone, and kept.
#[test]
fn a_planted_mistake_is_found() {
    fn planted(input: &[u8]) -> u64 {
        let text = String::from_utf8_lossy(input);
        assert!(!text.contains("=-1"), "planted");
        super::shape([text])
    }
    let found = catch_unwind(|| {
        let (mut rng, pool) = (Rng::with_seed(1), [b"count=12\nname=x\n".to_vec()]);
        for _ in 0..20_000 {
            check("planted", planted, &mutate(&mut rng, &pool), "a seed");
        }
    });
    let message = found.expect_err("it is found").downcast::<String>().expect("a message");
    assert!(message.contains("planted: broken") && message.contains("by a seed"), "{message}");
    let path = kept("planted");
    let input = fs::read(&path).expect("the input is kept");
    assert!(String::from_utf8_lossy(&input).contains("=-1"));
    fs::remove_file(path).expect("it is ours");
}
