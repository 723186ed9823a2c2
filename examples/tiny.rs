//! The smallest program that `make bench` starts by the hundred: it tells that it runs and waits.
//!
//! `tiny` connects to the Unix socket that TINY_TELL names, then waits for its end. `tiny COUNT AT_ONCE` keeps
//! that connection, and prints so many numbered lines once a byte comes over it, with so many in each write.

#![allow(clippy::disallowed_methods, reason = "a measuring tool that waits for its end")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// After the number of each line: together 100 bytes, the newline among them.
const FILLER: &str =
    "the quick brown fox jumps over the lazy dog, and over the lazy dog once more, day by day";

/// Digits of a number.
const DIGITS: usize = 10;

fn main() -> io::Result<()> {
    let teller = std::env::var_os("TINY_TELL").map(UnixStream::connect).transpose()?;
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    if let (Some(mut teller), [count, at_once]) = (teller, &numbers[..]) {
        teller.read_exact(&mut [0])?;
        print(*count, *at_once)?;
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Only the numbers are written anew each time: whoever reads is what is measured.
fn print(count: usize, at_once: usize) -> io::Result<()> {
    // Not through the standard output's own buffer, which would look for newlines.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let line = format!("{:0DIGITS$} {FILLER}\n", 0);
    let mut block = line.repeat(at_once).into_bytes();
    for first in (0..count).step_by(at_once) {
        let lines = at_once.min(count - first);
        for (place, line) in block.chunks_mut(line.len()).take(lines).enumerate() {
            write!(&mut line[..DIGITS], "{:0DIGITS$}", first + place)?;
        }
        out.write_all(&block[..lines * line.len()])?;
    }
    Ok(())
}
