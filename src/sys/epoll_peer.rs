//! Another process's epoll sets: what they wait for on one socket, and changing that from outside.
//!
//! The kernel finds an entry by the file and by the *number* that it was registered under, in the table of
//! whoever calls epoll_ctl(2). So for a moment the socket stands at the worker's number in our own table, and
//! what stood there meanwhile stands elsewhere: it stays open, so nothing that is registered for it changes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use super::arch;

/// EPOLLEXCLUSIVE (Linux 4.5): such an entry cannot be modified, only removed and added again.
const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;

/// What an entry can be told without being asked for.
const UNASKED: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// Flags that say how, not what.
const FLAGS: u32 = EXCLUSIVE | (libc::EPOLLET | libc::EPOLLONESHOT | libc::EPOLLWAKEUP) as u32;

/// One entry of an epoll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The process that has the set.
    pub pid: i32,
    /// The set, as that process numbers it.
    pub set: RawFd,
    /// The socket, as it was numbered when it was registered.
    pub number: RawFd,
    /// What it waits for, as epoll_ctl(2) takes it.
    pub events: u32,
    /// What the process is told then.
    pub data: u64,
}

impl Entry {
    /// Whether a connection that comes in would be told.
    pub fn waits(&self) -> bool {
        self.events & !FLAGS & !UNASKED != 0
    }
}

/// The entries for the socket with this inode in all epoll sets of a process.
///
/// # Errors
/// EACCES without the right to trace the process; ENOENT when it is gone.
pub fn entries(pid: i32, inode: u64) -> io::Result<Vec<Entry>> {
    super::guise::look(pid, || entries_shown(pid, inode))
}

fn entries_shown(pid: i32, inode: u64) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let descriptor = descriptor?;
        let target = match fs::read_link(descriptor.path()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
            Ok(target) => target,
        };
        let number = descriptor.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(set) = number.filter(|_| target.as_os_str() == "anon_inode:[eventpoll]") else { continue };
        // Closed meanwhile: then it holds nothing.
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{set}")) else { continue };
        found.extend(info.lines().filter_map(|line| entry(line, inode)).map(|entry| Entry {
            pid,
            set,
            ..entry
        }));
    }
    Ok(found)
}

/// `tfd:        3 events:       19 data:                3  pos:0 ino:1a2b sdev:9`, all but the first in
/// hexadecimal (`ep_show_fdinfo` in Linux; the inode since 5.1).
fn entry(line: &str, inode: u64) -> Option<Entry> {
    let rest = line.trim_start().strip_prefix("tfd:")?;
    let field = |name: &str| rest.split(name).nth(1)?.split_ascii_whitespace().next();
    let hexadecimal = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    let number = rest.split_ascii_whitespace().next()?.parse().ok()?;
    let events = u32::try_from(hexadecimal("events:")?).ok()?;
    let data = hexadecimal("data:")?;
    (hexadecimal("ino:")? == inode).then_some(Entry { pid: 0, set: -1, number, events, data })
}

/// The set, a duplicate of which this is, is told nothing more of the socket. What it was told already is under
/// way.
///
/// # Errors
/// ENOENT when the entry is gone; EBADF when the number lies beyond our own limit of descriptors.
pub fn silence(entry: &Entry, set: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    if entry.events & EXCLUSIVE != 0 {
        change(entry, set, socket, libc::EPOLL_CTL_DEL, 0)
    } else {
        change(entry, set, socket, libc::EPOLL_CTL_MOD, entry.events & FLAGS)
    }
}

/// Undoes [`silence`]. Whoever waits in the socket's queue already is told, too.
///
/// # Errors
/// As [`silence`]; EEXIST when the process registered it again by itself.
pub fn restore(entry: &Entry, set: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    let operation = if entry.events & EXCLUSIVE != 0 { libc::EPOLL_CTL_ADD } else { libc::EPOLL_CTL_MOD };
    change(entry, set, socket, operation, entry.events)
}

/// Another socket is registered under the number of this entry, to be told of as its own was. When the socket is
/// put under that number, its process notices nothing; until the last descriptor of it is closed it stays.
///
/// # Errors
/// As [`silence`]; EEXIST when it is registered already.
pub fn adopt(entry: &Entry, set: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    change(entry, set, socket, libc::EPOLL_CTL_ADD, entry.events)
}

fn change(
    entry: &Entry,
    set: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    operation: i32,
    events: u32,
) -> io::Result<()> {
    // A number of its own where it stands at the socket's, and for the while of the call.
    let elsewhere = if set.as_raw_fd() == entry.number { Some(set.try_clone_to_owned()?) } else { None };
    let set = elsewhere.as_ref().map_or(set, AsFd::as_fd);
    let mut event = libc::epoll_event { events, u64: entry.data };
    at_number(socket, entry.number, || {
        // SAFETY: the event outlives the call.
        let result = unsafe { libc::epoll_ctl(set.as_raw_fd(), operation, entry.number, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    })
}

/// Does something while a duplicate of `socket` stands at this number of our own table.
///
/// Nobody sees that: one thread alone has this table (see `rotate::take_own_descriptors` and `handover`), signals (whose
/// handlers write to a descriptor) wait, and `act` makes one system call.
fn at_number(socket: BorrowedFd<'_>, number: RawFd, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if socket.as_raw_fd() == number {
        return act();
    }
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
    let result = swap_in(socket, number).and_then(|displaced| {
        let result = act();
        swap_back(displaced, number);
        result
    });
    let restored = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
    debug_assert!(restored.is_ok(), "a mask that was read can be set");
    result
}

/// What stood at the number, with its descriptor's flags.
type Displaced = Option<(OwnedFd, i32)>;

fn swap_in(socket: BorrowedFd<'_>, number: RawFd) -> io::Result<Displaced> {
    // SAFETY: numbers only; EBADF where nothing is open there.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    let displaced = if flags < 0 {
        None
    } else {
        // SAFETY: numbers only.
        let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Some((unsafe { OwnedFd::from_raw_fd(copy) }, flags))
    };
    // SAFETY: numbers only; what was there is held by its copy, and comes back in `swap_back`.
    if unsafe { libc::dup3(socket.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(displaced)
}

fn swap_back(displaced: Displaced, number: RawFd) {
    let Some((before, flags)) = displaced else {
        // SAFETY: the number was free, and what stands there is the duplicate that `swap_in` made.
        unsafe { libc::close(number) };
        return;
    };
    let close_on_exec = if flags & libc::FD_CLOEXEC != 0 { libc::O_CLOEXEC } else { 0 };
    // SAFETY: numbers only; puts back what was there. It cannot fail: both are open and differ.
    let restored = unsafe { libc::dup3(before.as_fd().as_raw_fd(), number, close_on_exec) };
    assert!(restored == number, "a displaced descriptor comes back: {}", io::Error::last_os_error());
}

/// What a thread does, as far as it matters for whether it is about to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub id: i32,
    /// The set on which it waits in epoll_wait(2), as its process numbers it.
    pub polls: Option<RawFd>,
    /// It runs, or is about to.
    pub runs: bool,
}

/// Looks at each thread's system call (/proc/PID/task/TID/syscall).
///
/// # Errors
/// EACCES without the right to trace the process; ENOENT when it is gone.
pub fn threads(pid: i32) -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        let Some(id) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let path = thread.path().join("syscall");
        let text = match super::guise::look(pid, || fs::read_to_string(&path)) {
            Ok(text) => text,
            Err(error) if super::process::is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut words = text.split_ascii_whitespace();
        let call = words.next().unwrap_or_default();
        let first = words.next().and_then(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        let polls = call.parse().is_ok_and(arch::is_epoll_wait).then_some(first).flatten();
        // An int in a register: its upper half is of no meaning.
        threads.push(Thread { id, polls: polls.map(|set| set as RawFd), runs: call == "running" });
    }
    Ok(threads)
}

/// Any text, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let entries: Vec<Entry> = text.lines().filter_map(|line| entry(line, 0x1a2b)).collect();
    format!("e{}{}", "x".repeat(entries.len().min(3)), entries.iter().any(Entry::waits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_entry_is_read_as_the_kernel_prints_it() {
        let line = "tfd:        7 events: 80000019 data:         7f0000000003  pos:0 ino:1a2b sdev:9";
        let found = entry(line, 0x1a2b).expect("documented form");
        assert_eq!((found.number, found.events, found.data), (7, 0x8000_0019, 0x7f00_0000_0003));
        assert!(found.waits());
        assert!(!Entry { events: 0x8000_0018, ..found }.waits());
        assert_eq!(entry(line, 0x1a2c), None);
        for torn in ["", "tfd:", "tfd: x events: 1", "pos: 0", "tfd: 3 events: zz data: 1 ino:1a2b"] {
            assert_eq!(entry(torn, 0x1a2b), None);
        }
    }

    /// Our own process stands for the other: its numbers are ours, so nothing has to be moved but what
    /// `at_number` is made to move.
    #[test]
    fn a_silenced_socket_is_not_told_of_until_it_is_restored() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let inode = super::super::listen::inode(listener.as_fd()).expect("a socket");
        let mut poll = mio::Poll::new().expect("epoll");
        let raw = listener.as_raw_fd();
        let mut source = mio::unix::SourceFd(&raw);
        poll.registry().register(&mut source, mio::Token(1), mio::Interest::READABLE).expect("registered");
        let pid = std::process::id().cast_signed();
        let set = poll.as_raw_fd();
        let find =
            || entries(pid, inode).expect("our own").into_iter().find(|e| e.set == set).expect("there");
        // By another number than its own, as the supervisor has it.
        let elsewhere = listener.try_clone().expect("a duplicate");
        let entry = find();
        assert!(entry.waits());
        let again = super::super::intercept::duplicate(super::super::process::open(pid).expect("ours"), set);
        let again = again.expect("our own");
        silence(&entry, again.as_fd(), elsewhere.as_fd()).expect("our own");
        assert!(!find().waits());
        let mut events = mio::Events::with_capacity(4);
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("queued");
        poll.poll(&mut events, Some(std::time::Duration::from_millis(50))).expect("polls");
        assert!(events.is_empty(), "told of a silenced socket");
        restore(&entry, again.as_fd(), elsewhere.as_fd()).expect("our own");
        poll.poll(&mut events, Some(std::time::Duration::from_secs(5))).expect("polls");
        assert!(!events.is_empty(), "not told of who waits already");
    }

    #[test]
    fn a_socket_that_takes_anothers_place_is_told_of_in_its_stead() {
        let (first, second) = (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
        let (first, second) = (first.expect("a free port"), second.expect("a free port"));
        let inode = super::super::listen::inode(first.as_fd()).expect("a socket");
        let mut poll = mio::Poll::new().expect("epoll");
        let raw = first.as_raw_fd();
        let mut source = mio::unix::SourceFd(&raw);
        poll.registry().register(&mut source, mio::Token(7), mio::Interest::READABLE).expect("registered");
        let entries = entries(std::process::id().cast_signed(), inode).expect("our own");
        let entry = entries.into_iter().find(|e| e.set == poll.as_raw_fd()).expect("there");
        let set = super::super::process::open(entry.pid)
            .and_then(|us| super::super::intercept::duplicate(us, entry.set))
            .expect("our own");
        adopt(&entry, set.as_fd(), second.as_fd()).expect("not registered yet");
        let _client = TcpStream::connect(second.local_addr().expect("bound")).expect("queued");
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(std::time::Duration::from_secs(5))).expect("polls");
        assert_eq!(events.iter().map(mio::event::Event::token).collect::<Vec<_>>(), [mio::Token(7)]);
    }

    #[test]
    fn what_stood_at_a_number_stands_there_again() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let file = fs::File::open("/proc/self/status").expect("there");
        let before = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("open");
        let seen = std::cell::Cell::new(false);
        at_number(listener.as_fd(), file.as_raw_fd(), || {
            let during = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            seen.set(during.to_string_lossy().starts_with("socket:"));
            Ok(())
        })
        .expect("both are open");
        assert!(seen.get());
        assert_eq!(fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("open"), before);
        // SAFETY: numbers only.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
    }
}
