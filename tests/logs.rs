//! Output of workers through real pipes, terminals, sockets and files, with readers and disks that fail.
#![allow(clippy::disallowed_methods, reason = "tests feed pipes from threads and wait with deadlines")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, end the test")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clusterd::control::protocol::Stream;
use clusterd::logs::console::{Console, QUEUE_LIMIT};
use clusterd::logs::files::{LogFiles, Notice};
use clusterd::logs::foreground::{Foreground, lock};
use clusterd::logs::journal::Journal;
use clusterd::logs::lines::LINE_LIMIT;
use clusterd::logs::logger::{Destination, Prefix, build};
use clusterd::logs::rate::Meters;
use clusterd::logs::ring::{APP_BYTES, Rings};
use clusterd::logs::worker::{BUFFER, Files, Pumped, Sinks, WorkerOutput};
use clusterd::logs::{Line, Origin};
use clusterd::supervisor::event::{AppId, WorkerId};
use clusterd::supervisor::time::Time;
use clusterd::sys::output::worker_pipe;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use tempfile::tempdir;

const DEADLINE: Duration = Duration::from_secs(30);

fn origin(number: u32) -> Origin {
    Origin {
        app: AppId(number),
        worker: WorkerId(number.into()),
        namespace: "default".into(),
        name: ["api", "a-longer-name"][number as usize % 2].into(),
        instance: 0,
    }
}

fn line<'a>(origin: &'a Origin, stream: Stream, bytes: &'a [u8]) -> Line<'a> {
    Line { origin, stream, bytes, cut: false, continued: false }
}

/// A worker's output with its sinks, and the two ends that the worker would have.
struct Bench {
    files: LogFiles,
    foreground: Option<Foreground>,
    rings: Rings,
    meters: Meters,
    journal: Journal,
    followed: u64,
    output: WorkerOutput,
    buffer: Vec<u8>,
    now: Time,
}

impl Bench {
    fn new(out_file: &Path, error_file: &Path) -> (Bench, OwnedFd, OwnedFd) {
        let mut files = LogFiles::default();
        let ids = [out_file, error_file].map(|path| files.open(path).unwrap());
        let (out, out_end) = worker_pipe().unwrap();
        let (err, err_end) = worker_pipe().unwrap();
        let output = WorkerOutput::new(
            origin(0),
            out,
            err,
            Files { out: Some(ids[0]), err: Some(ids[1]), both: None },
        );
        let bench = Bench {
            files,
            foreground: None,
            rings: Rings::default(),
            meters: Meters::default(),
            journal: Journal::new("/nowhere".into()),
            followed: 0,
            output,
            buffer: vec![0; BUFFER],
            now: Time::START,
        };
        (bench, out_end, err_end)
    }

    fn pump(&mut self, stream: Stream, budget: usize) -> Pumped {
        let mut sinks = Sinks {
            files: &mut self.files,
            foreground: self.foreground.as_ref(),
            rings: &mut self.rings,
            follow: Some(&mut |_| self.followed += 1),
            meters: &mut self.meters,
            journal: &mut self.journal,
        };
        self.output.pump(stream, budget, &mut self.buffer, &mut sinks, self.now)
    }

    /// Turns of a loop over both pipes until their writers are gone; calls `check` after each.
    fn run(&mut self, mut check: impl FnMut(&Bench)) {
        let end = Instant::now() + DEADLINE;
        while !self.output.is_closed() {
            assert!(Instant::now() < end, "the pipes did not end");
            let streams: Vec<Stream> =
                [Stream::Out, Stream::Err].into_iter().filter(|s| self.output.source(*s).is_some()).collect();
            for stream in streams {
                if self.pump(stream, 4 * BUFFER).eof {
                    self.output.close(stream);
                }
            }
            if let Some(foreground) = &self.foreground {
                foreground.flush();
            }
            check(self);
        }
    }
}

fn feed(end: OwnedFd, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || File::from(end).write_all(&bytes).unwrap())
}

fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn wait_readable(fd: BorrowedFd<'_>) {
    let mut asked = [PollFd::new(fd, PollFlags::POLLIN)];
    assert_eq!(poll(&mut asked, PollTimeout::from(10_000u16)), Ok(1), "nothing to read");
}

/// Everything that can be read now.
fn drain(fd: &OwnedFd) -> Vec<u8> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).unwrap());
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(count @ 1..) = nix::unistd::read(fd, &mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    all
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn files_hold_every_byte_of_a_binary_stream() {
    let dir = tempdir().unwrap();
    let paths = [dir.path().join("out.log"), dir.path().join("err.log")];
    let (mut bench, out, err) = Bench::new(&paths[0], &paths[1]);
    let (first, second) = (random(5_000_000, 1), random(300_000, 2));
    let feeders = [feed(out, first.clone()), feed(err, second.clone())];
    bench.run(|_| {});
    feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
    assert!(fs::read(&paths[0]).unwrap() == first && fs::read(&paths[1]).unwrap() == second);
}

#[test]
fn a_real_program_is_heard_to_its_last_unterminated_word() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("both.log");
    let (mut bench, out, err) = Bench::new(&path, &path);
    let mut poll = Poll::new().unwrap();
    for (stream, token) in [(Stream::Out, Token(0)), (Stream::Err, Token(1))] {
        let source = bench.output.source(stream).unwrap();
        poll.registry().register(&mut SourceFd(&source), token, Interest::READABLE).unwrap();
    }
    let script = "printf 'a\\nb\\n'; seq 100000; echo oops >&2; printf last";
    let mut child = Command::new("sh").args(["-c", script]).stdout(out).stderr(err).spawn().unwrap();
    let (mut events, mut ready) = (Events::with_capacity(8), [false; 2]);
    let end = Instant::now() + DEADLINE;
    while !bench.output.is_closed() && Instant::now() < end {
        let timeout = if ready.contains(&true) { Duration::ZERO } else { DEADLINE };
        poll.poll(&mut events, Some(timeout)).unwrap();
        events.iter().for_each(|event| ready[event.token().0] = true);
        for (stream, slot) in [(Stream::Out, 0), (Stream::Err, 1)] {
            if ready[slot] && bench.output.source(stream).is_some() {
                let pumped = bench.pump(stream, 1000);
                assert!(pumped.read <= 1000);
                ready[slot] = pumped.more;
                if pumped.eof {
                    let source = bench.output.source(stream).unwrap();
                    poll.registry().deregister(&mut SourceFd(&source)).unwrap();
                    bench.output.close(stream);
                }
            }
        }
    }
    child.wait().unwrap();
    assert!(bench.output.is_closed(), "an edge was missed");
    let written = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = written.lines().filter(|line| *line != "oops").collect();
    assert_eq!(written.lines().count(), 2 + 100_000 + 1 + 1);
    assert_eq!((lines.remove(0), lines.remove(0), lines.pop()), ("a", "b", Some("last")));
    assert!(lines.iter().enumerate().all(|(index, line)| *line == (index + 1).to_string()));
    // Two pipes have no order between them: what came last on the other one may be taken in after it.
    let last = bench.rings.last(WorkerId(0), 2);
    assert!(last.iter().any(|line| line.bytes == b"last"), "{last:?}");
}

#[test]
fn a_full_disk_stops_neither_the_worker_nor_the_other_sinks() {
    let full = Path::new("/dev/full");
    let (mut bench, out, err) = Bench::new(full, full);
    drop(err);
    let feeder = feed(out, b"a line of some length, again and again\n".repeat(200_000));
    bench.run(|_| {});
    feeder.join().unwrap();
    assert_eq!(bench.followed, 200_000);
    assert_eq!(bench.rings.last_of_app(AppId(0), 5000, |_, _| true).len(), 1000);
    let notices = bench.files.take_notices();
    assert!(matches!(notices[..], [Notice::Dropping { .. }]), "{notices:?}");
}

#[test]
fn sixty_four_mebibytes_without_a_newline_need_bounded_memory() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("out.log");
    let (mut bench, out, err) = Bench::new(&path, &path);
    drop(err);
    let total: u64 = 64 << 20;
    let feeder = thread::spawn(move || {
        let (mut end, chunk) = (File::from(out), vec![0; 1 << 20]);
        (0..64).for_each(|_| end.write_all(&chunk).unwrap());
    });
    bench.run(|bench| assert!(bench.output.held() < LINE_LIMIT));
    feeder.join().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), total);
    let kept = bench.rings.last_of_app(AppId(0), 1000, |_, _| true);
    assert!(kept.iter().map(|line| line.bytes.len()).sum::<usize>() <= APP_BYTES);
    assert!(kept[0].cut && kept[0].continued && kept[0].bytes.len() == LINE_LIMIT);
}

#[test]
fn a_flood_costs_no_more_than_its_budget_a_turn() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("out.log");
    let (mut bench, out, err) = Bench::new(&path, &path);
    drop(err);
    let feeder = feed(out, b"flood\n".repeat(50_000));
    wait_readable(borrow(&bench.output, Stream::Out).as_fd());
    for budget in [1, 100, 4096] {
        let pumped = bench.pump(Stream::Out, budget);
        assert!(pumped.read <= budget && !pumped.eof);
    }
    bench.run(|_| {});
    feeder.join().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"flood\n".repeat(50_000));
}

fn borrow(output: &WorkerOutput, stream: Stream) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", output.source(stream).unwrap());
    File::open(path).unwrap().into()
}

#[test]
fn a_stalled_reader_costs_lines_and_nothing_else() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut console = Console::open(writer.as_fd(), "standard output", true).unwrap();
    let origin = origin(0);
    let total = 100_000;
    let body = "x".repeat(90);
    for number in 0..total {
        console
            .write_line(&line(&origin, Stream::Out, format!("{number} {body}").as_bytes()), Duration::ZERO);
        assert!(console.waiting() <= QUEUE_LIMIT);
    }
    console.flush();
    assert!(console.wants_write() && console.source().is_some());
    let mut seen = Vec::new();
    while console.wants_write() {
        seen.extend(drain(&reader));
        console.flush();
    }
    seen.extend(drain(&reader));
    console.write_line(&line(&origin, Stream::Out, b"after"), Duration::ZERO);
    console.flush();
    seen.extend(drain(&reader));
    let seen = text(seen);
    let (notices, lines): (Vec<&str>, Vec<&str>) = seen.lines().partition(|line| line.starts_with('['));
    let dropped = total + 1 - lines.len();
    assert_eq!(
        notices,
        [format!("[clusterd] {dropped} lines dropped: the reader of standard output is slow")]
    );
    assert_eq!(lines.last(), Some(&"api-0 | after"));
    for (number, line) in lines[..lines.len() - 1].iter().enumerate() {
        assert_eq!(*line, format!("api-0 | {number} {body}"));
    }
}

#[test]
fn a_reader_that_left_switches_the_output_off() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut console = Console::open(writer.as_fd(), "standard output", true).unwrap();
    let (early_reader, early_writer) = nix::unistd::pipe().unwrap();
    drop(early_reader);
    let mut never = Console::open(early_writer.as_fd(), "standard error", true).unwrap();
    let origin = origin(0);
    console.write_line(&line(&origin, Stream::Out, b"one"), Duration::ZERO);
    console.flush();
    drop(reader);
    for _ in 0..100_000 {
        console.write_line(&line(&origin, Stream::Out, b"two"), Duration::ZERO);
        never.write_line(&line(&origin, Stream::Out, b"two"), Duration::ZERO);
    }
    console.flush();
    never.flush();
    for console in [console, never] {
        assert_eq!((console.waiting(), console.wants_write(), console.source()), (0, false, None));
    }
}

#[test]
fn a_terminal_gets_colour_and_escaped_text_and_is_left_as_it_was() {
    let terminal = openpty(None, None).unwrap();
    let before = fcntl(&terminal.slave, FcntlArg::F_GETFL).unwrap();
    for may_colour in [true, false] {
        let mut console = Console::open(terminal.slave.as_fd(), "standard output", may_colour).unwrap();
        let (short, long) = (origin(0), origin(1));
        console.announce(long.app, &long.name, 0);
        console.write_line(&line(&short, Stream::Out, b"\x1b]0;title\x07\ttab \xff\r"), Duration::ZERO);
        console.flush();
        assert!(console.is_terminal() && console.has_colour() == may_colour);
        wait_readable(terminal.master.as_fd());
        let seen = text(drain(&terminal.master));
        assert!(seen.contains("api-0           | "), "{seen:?}");
        assert!(seen.contains(r"\x1b]0;title\x07"), "{seen:?}");
        assert!(seen.ends_with("tab \\xff\r\n"), "{seen:?}");
        assert_eq!(seen.contains("\x1b["), may_colour, "{seen:?}");
    }
    assert_eq!(fcntl(&terminal.slave, FcntlArg::F_GETFL).unwrap(), before);
}

/// Escaped, the largest piece of a line is longer than all that may wait.
#[test]
fn a_piece_of_binary_is_printed_in_json_to_whoever_reads() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut console = Console::open(writer.as_fd(), "standard output", true).unwrap();
    console.set_json();
    let origin = origin(0);
    let mut seen = Vec::new();
    for bytes in [&[0xff; 65_536][..], &[1; 65_536], b"after"] {
        console.write_line(&line(&origin, Stream::Out, bytes), Duration::ZERO);
        console.flush();
        while console.wants_write() {
            seen.extend(drain(&reader));
            console.flush();
        }
    }
    seen.extend(drain(&reader));
    let objects: Vec<serde_json::Value> =
        text(seen).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lengths: Vec<usize> =
        objects.iter().map(|line| line["message"].as_str().expect("each has one").len()).collect();
    assert_eq!(lengths, [4 * 65_536, 65_536, 5]);
}

#[test]
fn in_json_what_is_missing_is_told_by_an_object_and_no_control_character_reaches_a_terminal() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut console = Console::open(writer.as_fd(), "standard output", true).unwrap();
    console.set_json();
    let origin = origin(0);
    for _ in 0..20_000 {
        console.write_line(&line(&origin, Stream::Out, &[b'x'; 100]), Duration::from_secs(1));
    }
    console.flush();
    let mut seen = Vec::new();
    while console.wants_write() {
        seen.extend(drain(&reader));
        console.flush();
    }
    seen.extend(drain(&reader));
    let objects: Vec<serde_json::Value> =
        text(seen).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[0]["timestamp"], "1970-01-01T00:00:01.000Z");
    let notice = objects.last().unwrap();
    assert_eq!((&notice["type"], &notice["level"]), (&"clusterd".into(), &"warn".into()));
    let message = format!("{} lines dropped: the reader of standard output is slow", 20_001 - objects.len());
    assert_eq!(notice["message"], message.as_str());
    assert_eq!(notice["timestamp"], "1970-01-01T00:00:01.000Z");

    let terminal = openpty(None, None).unwrap();
    let mut console = Console::open(terminal.slave.as_fd(), "standard output", true).unwrap();
    console.set_json();
    console.write_line(&line(&origin, Stream::Out, "\u{9b}31m\x7f".as_bytes()), Duration::ZERO);
    console.flush();
    let mut shown = [0; 512];
    let count = File::from(terminal.master).read(&mut shown).unwrap();
    assert!(
        shown[..count].is_ascii() && !shown[..count].contains(&0x7f),
        "{:?}",
        text(shown[..count].to_vec())
    );
}

#[test]
fn a_stalled_terminal_blocks_nothing() {
    let terminal = openpty(None, None).unwrap();
    let mut console = Console::open(terminal.slave.as_fd(), "standard output", false).unwrap();
    let origin = origin(0);
    for _ in 0..50_000 {
        console.write_line(&line(&origin, Stream::Out, &[b'x'; 100]), Duration::ZERO);
    }
    console.flush();
    assert!(console.wants_write() && console.waiting() <= QUEUE_LIMIT);
    drop(terminal.master);
    console.flush();
    assert!(!console.wants_write());
}

#[test]
fn a_terminal_tells_the_loop_when_it_has_room_again() {
    let terminal = openpty(None, None).unwrap();
    let mut console = Console::open(terminal.slave.as_fd(), "standard output", false).unwrap();
    let origin = origin(0);
    let mut poll = Poll::new().unwrap();
    let source = console.source().unwrap();
    poll.registry().register(&mut SourceFd(&source), Token(0), Interest::WRITABLE).unwrap();
    for number in 0..2000 {
        console.write_line(&line(&origin, Stream::Out, format!("{number}").as_bytes()), Duration::ZERO);
    }
    console.flush();
    assert!(console.wants_write());
    let master = terminal.master.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let (mut master, mut seen, mut buffer) = (File::from(master), Vec::new(), [0; 512]);
        while !seen.ends_with(b"api-0 | 1999\r\n") {
            let count = master.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..count]);
        }
        text(seen)
    });
    let mut events = Events::with_capacity(4);
    while console.wants_write() {
        poll.poll(&mut events, Some(DEADLINE)).unwrap();
        assert!(!events.is_empty(), "no event although the reader reads");
        console.flush();
    }
    assert_eq!(reader.join().unwrap().lines().count(), 2000);
}

#[test]
fn both_outputs_into_one_pipe_do_not_tear_each_others_lines() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let foreground = Foreground::open(writer.as_fd(), writer.as_fd(), true).unwrap();
    assert_eq!(foreground.consoles().count(), 1);
    let origin = origin(0);
    let body = [b'x'; 3000];
    let mut seen = Vec::new();
    for turn in 0..200 {
        foreground.write_line(&line(&origin, Stream::Out, &body), Duration::ZERO);
        foreground.write_line(&line(&origin, Stream::Err, &body), Duration::ZERO);
        foreground.flush();
        if turn % 10 == 9 {
            seen.extend(drain(&reader));
        }
    }
    while lock(foreground.err()).wants_write() {
        seen.extend(drain(&reader));
        foreground.flush();
    }
    seen.extend(drain(&reader));
    let seen = text(seen);
    assert!(seen.lines().filter(|line| !line.starts_with('[')).all(|line| line.len() == body.len() + 8));
}

#[test]
fn regular_files_sockets_and_devices_serve_as_standard_output() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("stdout");
    let file = File::create(&path).unwrap();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let origin = origin(0);
    for (fd, waits) in [(file.as_fd(), false), (ours.as_fd(), true), (null.as_fd(), false)] {
        let mut console = Console::open(fd, "standard output", true).unwrap();
        console.write_line(&line(&origin, Stream::Out, b"bytes \x1b\xff stay\r"), Duration::ZERO);
        console.flush();
        assert_eq!((console.waiting(), console.source().is_some()), (0, waits));
    }
    let expected = b"api-0 | bytes \x1b\xff stay\r\n";
    assert_eq!(fs::read(&path).unwrap(), expected);
    assert_eq!(drain(&theirs.into()), expected);
}

#[test]
fn a_full_disk_under_standard_output_is_counted_and_told() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut console = Console::open(full.as_fd(), "standard output", true).unwrap();
    let origin = origin(0);
    for _ in 0..100_000 {
        console.write_line(&line(&origin, Stream::Out, b"no room for this"), Duration::ZERO);
    }
    console.flush();
    assert!(console.waiting() > 0 && console.waiting() <= QUEUE_LIMIT && !console.wants_write());
}

#[test]
fn the_supervisors_log_survives_a_stalled_reader_and_a_flood() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let foreground = Foreground::open(writer.as_fd(), writer.as_fd(), true).unwrap();
    let logger = build(Destination::Console(foreground.err().clone()), Prefix::Time, None);
    let origin = origin(0);
    for _ in 0..100_000 {
        foreground.write_line(&line(&origin, Stream::Out, b"flood"), Duration::ZERO);
    }
    let say = |text: &str| {
        let arguments = format_args!("{text}");
        log::Log::log(&logger, &log::Record::builder().level(log::Level::Info).args(arguments).build());
    };
    say("heard in the flood");
    (0..10_000).for_each(|_| say("too much"));
    assert!(lock(foreground.err()).waiting() <= QUEUE_LIMIT + 64 * 1024);
    let mut seen = Vec::new();
    while lock(foreground.err()).wants_write() {
        seen.extend(drain(&reader));
        foreground.flush();
    }
    seen.extend(drain(&reader));
    let seen = text(seen);
    assert!(seen.contains("INFO  heard in the flood\n") && seen.contains("lines dropped: the reader"));
}

#[test]
fn the_journal_prefix_needs_the_journals_own_descriptor() {
    let (_reader, writer) = nix::unistd::pipe().unwrap();
    let foreground = Foreground::open(writer.as_fd(), writer.as_fd(), true).unwrap();
    let stat = nix::sys::stat::fstat(&writer).unwrap();
    let to = Destination::Console(foreground.err().clone());
    let prefix = |variable: &str| Prefix::of(&to, Some(variable.as_ref()));
    assert_eq!(prefix(&format!("{}:{}", stat.st_dev, stat.st_ino)), Prefix::Journal);
    assert_eq!(prefix("1:2"), Prefix::Time);
    assert_eq!(Prefix::of(&to, None), Prefix::Time);
}

/// A file system of 64 KiB that only the calling thread sees and that goes with it; root only.
fn small_disk(folder: &Path) -> bool {
    let run = |arguments: &[&str]| {
        let status = Command::new("mount").args(arguments).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_ok()
        && run(&["--make-rprivate", "/"])
        && run(&["-t", "tmpfs", "-o", "size=64k", "tmpfs", &folder.display().to_string()])
}

#[test]
fn a_disk_that_fills_up_and_is_emptied_tears_no_line_and_tells_what_is_missing() {
    let dir = tempdir().unwrap();
    let folder = dir.path().to_owned();
    let filled = thread::spawn(move || {
        if small_disk(&folder) {
            fill_and_empty(&folder);
        }
    });
    filled.join().unwrap();
}

fn fill_and_empty(folder: &Path) {
    let (path, ballast) = (folder.join("out.log"), folder.join("ballast"));
    fs::write(&ballast, vec![0; 40_000]).unwrap();
    let (mut bench, out, err) = Bench::new(&path, &path);
    drop(err);
    let mut out = File::from(out);
    let all = 3000;
    assert!(nix::sys::statvfs::statvfs(folder).unwrap().blocks() < 100, "not the small disk");
    for number in 0..all {
        writeln!(out, "line {number} of the worker").unwrap();
        if number % 100 == 99 {
            bench.pump(Stream::Out, BUFFER);
        }
        if number == all / 2 {
            assert_eq!(bench.files.take_notices().len(), 1);
            fs::remove_file(&ballast).unwrap();
            bench.now = bench.now + Duration::from_secs(2);
        }
    }
    drop(out);
    bench.run(|_| {});
    let notices = bench.files.take_notices();
    let Some(Notice::Resumed { lines: missing, .. }) = notices.first() else {
        panic!("{notices:?}");
    };
    let written = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    let notice = lines.iter().position(|line| line.starts_with("[clusterd]")).unwrap();
    assert_eq!(lines[notice], format!("[clusterd] {missing} lines were dropped: No space left on device"));
    for (number, line) in lines[..notice].iter().enumerate() {
        assert_eq!(*line, format!("line {number} of the worker"));
    }
    assert_eq!(lines[notice + 1], format!("line {} of the worker", notice as u64 + missing));
}

#[test]
fn a_source_is_a_descriptor_of_our_own() {
    let (_reader, writer) = nix::unistd::pipe().unwrap();
    let console = Console::open(writer.as_fd(), "standard output", true).unwrap();
    assert_ne!(console.source(), Some(writer.as_raw_fd()));
}
