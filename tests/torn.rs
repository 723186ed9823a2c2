//! A log file whose disk fills up at every possible byte. A process of its own: the limit that stands for
//! the disk (RLIMIT_FSIZE, exact to the byte) holds for all files of a process.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, end the test")]

use std::fs;

use clusterd::control::protocol::Stream;
use clusterd::logs::file::{LogFile, Source};
use clusterd::supervisor::event::WorkerId;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};

const SOURCES: [Source; 2] = [(WorkerId(1), Stream::Out), (WorkerId(2), Stream::Out)];

fn limit(bytes: u64) {
    setrlimit(Resource::RLIMIT_FSIZE, bytes, RLIM_INFINITY).unwrap();
}

/// What was sent must be there in order, each missing stretch replaced by its exact number of lines.
fn check(written: &str, sent: u32, case: &str) {
    let mut next = 0;
    for line in written.split_inclusive('\n') {
        match line.strip_prefix("[clusterd] ") {
            Some(notice) => {
                assert!(notice.ends_with(" dropped: File too large\n"), "{case}: {written}");
                next += notice.split(' ').next().unwrap().parse::<u32>().unwrap();
            }
            None => {
                assert_eq!(line, format!("line {next}\n"), "{case}: {written}");
                next += 1;
            }
        }
    }
    assert_eq!(next, sent, "{case}: {written}");
}

#[test]
fn a_disk_that_is_full_at_any_byte_tears_no_line_and_no_notice() {
    // The signal of setrlimit(2), which would end the process, as the supervisor ignores it.
    SigSet::from_iter([Signal::SIGXFSZ]).thread_block().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.log");
    for first in 0..60 {
        for second in first..first + 120 {
            limit(RLIM_INFINITY);
            fs::write(&path, "").unwrap();
            let mut file = LogFile::open(&path).unwrap();
            let mut sent = 0;
            for bytes in [first, second, second, second + 9, RLIM_INFINITY, RLIM_INFINITY] {
                limit(bytes);
                for source in SOURCES {
                    let batch = format!("line {sent}\nline {}\nline {}\n", sent + 1, sent + 2);
                    let (head, body) = batch.as_bytes().split_at(7);
                    file.write(source, [head, body]);
                    sent += 3;
                }
            }
            assert!(!file.is_failing());
            check(&fs::read_to_string(&path).unwrap(), sent, &format!("full at {first}, then at {second}"));
        }
    }
}
