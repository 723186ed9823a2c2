//! Processes as /proc shows them, and signals by process descriptor. Plain facts; who belongs to whom
//! is decided elsewhere.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::{arch, guise};

/// Frames of a kernel stack that say enough.
const SHOWN_FRAMES: usize = 6;

/// Fields of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z` …
    pub state: u8,
    /// The parent.
    pub parent: i32,
    /// The session.
    pub session: i32,
    /// User and system time together, in clock ticks.
    pub ticks: u64,
    /// How many it has.
    pub threads: u64,
    /// When it started, in clock ticks since boot: with the pid, it names a process for good.
    pub started: u64,
    /// Resident set size in pages.
    pub resident_pages: u64,
}

/// Reads /proc/PID/stat.
///
/// # Errors
/// ENOENT or ESRCH when the process is gone; InvalidData when the text is not as documented.
pub fn stat(pid: i32) -> io::Result<Stat> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// A file of /proc that is short as a rule: three system calls, where [`fs::read`] makes five. Less than was asked
/// for is the end, as long as that is less than the kernel's own page (seq_file.rst).
fn read(path: &str) -> io::Result<Vec<u8>> {
    const SHORT: usize = 1024;
    let mut file = fs::File::open(path)?;
    let mut text = vec![0; SHORT];
    let count = file.read(&mut text)?;
    text.truncate(count);
    if count == SHORT {
        file.read_to_end(&mut text)?;
    }
    Ok(text)
}

/// When this host was booted, as the time since 1970, to the second.
///
/// # Errors
/// Those of reading /proc/stat; InvalidData when it has no boot time (proc_stat(5)).
pub fn booted_at() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let boot = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    boot.map(Duration::from_secs).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// When a process started, from boot, to a hundredth of a second.
///
/// # Errors
/// Those of [`stat`].
pub fn started_since_boot(pid: i32) -> io::Result<Duration> {
    let started = stat(pid)?.started;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100).max(1);
    Ok(Duration::from_millis(started.saturating_mul(1000) / per_second as u64))
}

/// The command name may hold blanks and parentheses, so everything counts from its last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end = memchr::memrchr(b')', text)?;
    let rest = std::str::from_utf8(text.get(end + 2..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // Numbered from 3 (state) in proc_pid_stat(5).
    let mut last = 2;
    let mut field = |number: usize| {
        let skipped = number - last - 1;
        last = number;
        fields.nth(skipped)
    };
    Some(Stat {
        state: *field(3)?.as_bytes().first()?,
        parent: field(4)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        ticks: field(14)?.parse::<u64>().ok()?.checked_add(field(15)?.parse().ok()?)?,
        threads: field(20)?.parse().ok()?,
        started: field(22)?.parse().ok()?,
        resident_pages: field(24)?.parse::<i64>().ok()?.max(0) as u64,
    })
}

/// The children of every thread of a process. Empty when it is gone.
///
/// /proc/PID/task/TID/children exists where CONFIG_PROC_CHILDREN is set, which distributions do; else
/// every process's parent is looked at.
pub fn children(pid: i32) -> Vec<i32> {
    stat(pid).map_or_else(|_| Vec::new(), |stat| children_of_threads(pid, stat.threads))
}

fn children_of_threads(pid: i32, threads: u64) -> Vec<i32> {
    if threads == 1
        && let Ok(text) = read(&format!("/proc/{pid}/task/{pid}/children"))
    {
        return numbers(&text).collect();
    }
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(numbers(text.as_bytes())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && thread.path().exists() => {
                return children_by_parent(pid);
            }
            Err(_) => {}
        }
    }
    found
}

fn numbers(text: &[u8]) -> impl Iterator<Item = i32> {
    let words = std::str::from_utf8(text).unwrap_or_default().split_ascii_whitespace();
    words.filter_map(|word| word.parse().ok())
}

fn children_by_parent(pid: i32) -> Vec<i32> {
    all().into_iter().filter(|other| stat(*other).is_ok_and(|s| s.parent == pid)).collect()
}

/// Every process that /proc shows.
pub fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// A process's arguments, as it shows them (/proc/PID/cmdline): the first 4096 bytes. None of one that is gone.
pub fn arguments(pid: i32) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = fs::File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(4096).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    bytes.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The process and all its descendants, parents first.
pub fn tree(pid: i32) -> Vec<i32> {
    gather(pid, children)
}

/// Each member is asked for its children once, and looked up in a set: a tree may have many thousands.
fn gather(root: i32, mut children_of: impl FnMut(i32) -> Vec<i32>) -> Vec<i32> {
    let mut members = vec![root];
    let mut known = HashSet::from([root]);
    let mut next = 0;
    while let Some(member) = members.get(next).copied() {
        members.extend(children_of(member).into_iter().filter(|child| known.insert(*child)));
        next += 1;
    }
    members
}

/// The same, each with what /proc shows of it: in one reading. Those that end meanwhile are left out.
pub fn tree_stats(pid: i32) -> Vec<Stat> {
    let mut found = Vec::new();
    gather(pid, |member| {
        let Ok(stat) = stat(member) else { return Vec::new() };
        let children = children_of_threads(member, stat.threads);
        found.push(stat);
        children
    });
    found
}

/// What a process is doing right now, in the words of /proc: its state, where in the kernel it waits, the
/// system call and, where the host shows it, the innermost frames of the kernel's stack. Empty when it is
/// gone.
pub fn sight(pid: i32) -> String {
    let path = |name: &str| format!("/proc/{pid}/{name}");
    let read = |name: &str| guise::look(pid, || fs::read_to_string(path(name))).unwrap_or_default();
    let status = read("status");
    let state = status.lines().find_map(|line| line.strip_prefix("State:")).map(str::trim);
    let Some(state) = state else { return String::new() };
    let mut parts = vec![format!("state {state}")];
    for name in ["wchan", "syscall"] {
        let text = read(name);
        let word = text.split_ascii_whitespace().next().filter(|word| *word != "0");
        parts.extend(word.map(|word| format!("{name} {word}")));
    }
    let stack = read("stack");
    // `[<0>] do_signal_stop+0x1a0/0x2c0`
    let frames: Vec<&str> = stack
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.split('+').next())
        .take(SHOWN_FRAMES)
        .collect();
    if !frames.is_empty() {
        parts.push(format!("stack {}", frames.join(" < ")));
    }
    parts.join(", ")
}

/// What the environment that a process was started with says about one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It has this value.
    With(OsString),
    /// There is an environment, and the variable is not in it.
    Without,
    /// Nothing can be read: it is in the middle of exec, was started with none, or is not ours to see.
    Unknown,
    /// It has ended and is to be reaped.
    Zombie,
}

/// Looks a variable up in the environment that a process was started with.
pub fn started_with(pid: i32, name: &str) -> Started {
    let bytes = guise::look(pid, || fs::read(format!("/proc/{pid}/environ"))).unwrap_or_default();
    if bytes.is_empty() {
        return match stat(pid) {
            Ok(stat) if stat.state == b'Z' || stat.state == b'X' => Started::Zombie,
            Ok(_) => Started::Unknown,
            Err(_) => Started::Zombie,
        };
    }
    let value = variables(&bytes).find(|(found, _)| *found == name.as_bytes());
    value.map_or(Started::Without, |(_, value)| Started::With(OsString::from_vec(value.to_vec())))
}

/// The environment that a process was started with, unless it wrote over it.
///
/// # Errors
/// The errno of /proc/PID/environ: it takes the right to trace the process.
pub fn environ(pid: i32) -> io::Result<Vec<(OsString, OsString)>> {
    let bytes = guise::look(pid, || fs::read(format!("/proc/{pid}/environ")))?;
    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Ok(variables(&bytes).map(|(name, value)| (owned(name), owned(value))).collect())
}

/// The names and values in a text of /proc/PID/environ.
fn variables(environ: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    environ.split(|byte| *byte == 0).filter_map(|entry| {
        let end = memchr::memchr(b'=', entry)?;
        Some((&entry[..end], &entry[end + 1..]))
    })
}

/// A name for this start of the host: process ids of an earlier one mean nothing.
///
/// # Errors
/// When /proc cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// As whom a process or thread acts: its effective user and group, which everybody may read. None where /proc does
/// not say.
pub fn effective_ids(tid: i32) -> Option<(u32, u32)> {
    // Both stand within the first lines, of which the longest is the name's, of 64 bytes at most.
    let mut head = [0; 512];
    let count = fs::File::open(format!("/proc/{tid}/status")).ok()?.read(&mut head).ok()?;
    // Real, effective, saved, file system (proc_pid_status(5)).
    let effective = |name: &str| -> Option<u32> {
        let ids =
            head[..count].split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
        std::str::from_utf8(ids).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    Some((effective("Uid:")?, effective("Gid:")?))
}

/// The thread group, so the process, that a thread belongs to. Where there is no /proc to say so, the thread
/// itself: pidfd_open(2) takes no other than a process's first. None when the thread is gone.
///
/// # Errors
/// EMFILE, or whatever else open(2) says.
pub fn process_of_thread(tid: i32) -> io::Result<Option<i32>> {
    let status = match fs::read_to_string(format!("/proc/{tid}/status")) {
        Ok(status) => status,
        Err(_) if !are_shown() => return Ok(Some(tid)),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    Ok(process.and_then(|process| process.trim().parse().ok()))
}

/// Whether /proc shows processes here: our own at least.
pub fn are_shown() -> bool {
    fs::exists("/proc/self/stat").unwrap_or(false)
}

/// Whether a process lives, and /proc does not show it: without /proc, or where that hides processes of other
/// users (`hidepid` in proc(5)).
fn is_hidden(pid: i32) -> bool {
    let shown = fs::exists(format!("/proc/{pid}")).unwrap_or(false);
    // Any other error means that it is there, and may not be signalled.
    !shown && kill(pid, 0).map_or_else(|error| error.raw_os_error() != Some(libc::ESRCH), |()| true)
}

/// Whether an error of a look into /proc says that the process has ended: its folder is gone, or was going
/// when it was read.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// One open descriptor that is a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// Whose.
    pub pid: i32,
    /// Under which number.
    pub fd: i32,
    /// The socket's inode, which no other open socket of the host has.
    pub inode: u64,
}

/// The sockets that a process has open.
///
/// # Errors
/// EACCES without the right to trace the process, or where the host hides it; ENOENT when it is gone.
pub fn sockets(pid: i32) -> io::Result<Vec<OpenSocket>> {
    guise::look(pid, || {
        let mut found = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            found.extend(open_socket(pid, &entry?)?);
        }
        Ok(found)
    })
    .map_err(|error| {
        // What cannot be seen must not look as if it had ended.
        match is_gone(&error) && is_hidden(pid) {
            true => io::Error::from_raw_os_error(libc::EACCES),
            false => refused_or_gone(pid, error),
        }
    })
}

/// Whether one of a process's first `most` descriptors is a socket with one of these inodes.
///
/// # Errors
/// As [`sockets`].
pub fn has_socket(pid: i32, inodes: &[u64], most: usize) -> io::Result<bool> {
    guise::look(pid, || {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.take(most) {
            if open_socket(pid, &entry?)?.is_some_and(|socket| inodes.contains(&socket.inode)) {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .map_err(|error| refused_or_gone(pid, error))
}

/// None when it is no socket, or was closed meanwhile. With CAP_DAC_OVERRIDE everybody's descriptors are listed,
/// and what they are is refused: a process without sockets must not look the same.
fn open_socket(pid: i32, entry: &fs::DirEntry) -> io::Result<Option<OpenSocket>> {
    let target = match fs::read_link(entry.path()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
        Err(_) => return Ok(None),
        Ok(target) => target,
    };
    let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
    Ok(inode_of(&target).zip(fd).map(|(inode, fd)| OpenSocket { pid, fd, inode }))
}

/// `socket:[12345]`.
pub(super) fn inode_of(target: &std::path::Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The name of a process's program, which it may have chosen itself (`comm` in proc(5)): without control
/// characters.
///
/// # Errors
/// ENOENT when it is gone.
pub fn name(pid: i32) -> io::Result<String> {
    let name = fs::read(format!("/proc/{pid}/comm"))?;
    Ok(String::from_utf8_lossy(&name).trim_end().replace(char::is_control, "?"))
}

/// Whether a process waits on the socket with this inode: in one of its epoll sets, or in a system
/// call whose first argument is a descriptor of it (accept(2), and poll(2) of a single one).
///
/// # Errors
/// As [`sockets`].
pub fn waits_on(pid: i32, inode: u64) -> io::Result<bool> {
    let look = || {
        let numbers: Vec<i32> =
            sockets(pid)?.into_iter().filter(|s| s.inode == inode).map(|s| s.fd).collect();
        if numbers.is_empty() {
            return Ok(false);
        }
        let in_a_set = guise::look(pid, || in_an_epoll_set(pid, &numbers, inode))?;
        Ok(in_a_set || in_a_waiting_call(pid, &numbers)?)
    };
    look().map_err(|error| refused_or_gone(pid, error))
}

/// Whether a process waits for connections on the socket with this inode in a system call of its own: accept,
/// poll or select.
///
/// # Errors
/// As [`sockets`].
pub fn waits_in_call(pid: i32, inode: u64) -> io::Result<bool> {
    let look = || {
        let numbers: Vec<i32> =
            sockets(pid)?.into_iter().filter(|s| s.inode == inode).map(|s| s.fd).collect();
        Ok(!numbers.is_empty() && in_a_waiting_call(pid, &numbers)?)
    };
    look().map_err(|error| refused_or_gone(pid, error))
}

/// A process that ends gives its memory back first, and from then on the kernel lets only those with CAP_SYS_PTRACE
/// look at what else it has (`__ptrace_may_access` in Linux): that says nothing of the host.
fn refused_or_gone(pid: i32, error: io::Error) -> io::Error {
    let refused = error.kind() == io::ErrorKind::PermissionDenied;
    let ends = || match stat(pid) {
        Ok(stat) => matches!(stat.state, b'Z' | b'X') || stat.resident_pages == 0,
        Err(error) => is_gone(&error) && !is_hidden(pid),
    };
    if refused && ends() { io::Error::from_raw_os_error(libc::ESRCH) } else { error }
}

/// /proc/PID/fdinfo/FD of an epoll names each member: `tfd: 3 events: … ino:1a2b` (hexadecimal).
fn in_an_epoll_set(pid: i32, numbers: &[i32], inode: u64) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = match fs::read_link(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
            Ok(target) => target,
        };
        if target.as_os_str() != "anon_inode:[eventpoll]" {
            continue;
        }
        let path = format!("/proc/{pid}/fdinfo/{}", entry.file_name().display());
        let Ok(info) = fs::read_to_string(path) else { continue };
        if info.lines().any(|line| watches(line, numbers, inode)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn watches(line: &str, numbers: &[i32], inode: u64) -> bool {
    let Some(rest) = line.trim_start().strip_prefix("tfd:") else { return false };
    let number = rest.split_ascii_whitespace().next().and_then(|n| n.parse::<i32>().ok());
    // The inode is printed since Linux 5.1; before, the number has to do.
    let named = rest.split("ino:").nth(1).and_then(|n| n.split_ascii_whitespace().next());
    match named.and_then(|n| u64::from_str_radix(n, 16).ok()) {
        Some(found) => found == inode,
        None => number.is_some_and(|n| numbers.contains(&n)),
    }
}

/// /proc/PID/task/TID/syscall: `43 0x3 …` while the thread waits in a call, with its arguments.
fn in_a_waiting_call(pid: i32, numbers: &[i32]) -> io::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path().join("syscall");
        let Ok(text) = guise::look(pid, || fs::read_to_string(&path)) else { continue };
        let mut words = text.split_ascii_whitespace();
        let call = words.next().and_then(|n| n.parse::<i64>().ok());
        let arguments: Vec<u64> =
            words.filter_map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16).ok()).collect();
        let (Some(call), Some(first)) = (call, arguments.first()) else { continue };
        if call == libc::SYS_accept || call == libc::SYS_accept4 {
            if numbers.contains(&(*first as i32)) {
                return Ok(true);
            }
        } else if arch::is_poll(call) && polls(pid, &arguments, numbers) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Looks into the arrays that poll and select were called with.
fn polls(pid: i32, arguments: &[u64], numbers: &[i32]) -> bool {
    let (Some(first), Some(second)) = (arguments.first(), arguments.get(1)) else { return false };
    // poll(fds, count): the first argument is an address; select(count, set): the second is.
    if *first > 4096 {
        let mut fds = vec![0_u8; 8 * (*second).min(4096) as usize];
        let read = super::intercept::read_memory(pid, *first, &mut fds).unwrap_or(0);
        return fds[..read]
            .chunks_exact(8)
            .any(|entry| entry[..4].try_into().is_ok_and(|n| numbers.contains(&i32::from_ne_bytes(n))));
    }
    let mut set = [0_u8; 128];
    let read = super::intercept::read_memory(pid, *second, &mut set).unwrap_or(0);
    numbers.iter().any(|n| {
        let (byte, bit) = ((*n / 8) as usize, *n % 8);
        *n >= 0 && byte < read && set[byte] & (1 << bit) != 0
    })
}

/// Opens a descriptor of a process that is not our own child, or no more known by one.
///
/// # Errors
/// ESRCH when it is gone.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Sends a signal to the process behind a descriptor, so never to a stranger with a reused number.
///
/// # Errors
/// ESRCH when it has been reaped, EPERM, EINVAL for a number that is no signal.
pub fn signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // Real-time signals (34 to 64) are no named constants of rustix, hence the raw call.
    // SAFETY: numbers only; a null siginfo means the kernel fills it in.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            std::os::fd::AsRawFd::as_raw_fd(&pidfd.as_fd()),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to a child that was not reaped yet, so that its number still means it: by its descriptor,
/// or by the number where the host knows no such descriptors (ENOSYS, or EPERM of a container's profile).
///
/// # Errors
/// As [`signal`].
pub fn signal_child(pid: i32, pidfd: Option<BorrowedFd<'_>>, number: i32) -> io::Result<()> {
    match pidfd.map(|pidfd| signal(pidfd, number)) {
        Some(Err(error)) if is_refused(&error) => kill(pid, number),
        Some(sent) => sent,
        None => kill(pid, number),
    }
}

/// Sends a signal to a process of ours that may not be our child, as safely as the host allows.
///
/// # Errors
/// As [`signal`].
pub fn signal_member(pid: i32, number: i32) -> io::Result<()> {
    match open(pid).and_then(|pidfd| signal(pidfd, number)) {
        Err(error) if is_refused(&error) => kill(pid, number),
        sent => sent,
    }
}

/// Sends a signal to the process of this number that started at this time, in clock ticks since boot, and to no
/// other: by a descriptor that is opened before the start is looked at. Where the host refuses such descriptors,
/// the look comes right before the signal.
///
/// # Errors
/// ESRCH when that process is gone; else as [`signal`].
pub fn signal_started(pid: i32, started: u64, number: i32) -> io::Result<()> {
    let opened = open(pid);
    if !stat(pid).is_ok_and(|stat| stat.started == started) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    match opened.and_then(|pidfd| signal(pidfd, number)) {
        Err(error) if is_refused(&error) => kill(pid, number),
        sent => sent,
    }
}

/// Does nothing for so long: for a start that has to wait for the end of others, before there is a loop.
///
/// # Errors
/// The errno of poll(2).
pub fn pause(length: Duration) -> io::Result<()> {
    use nix::poll::{PollTimeout, poll};
    poll(&mut [], PollTimeout::try_from(length).unwrap_or(PollTimeout::MAX))?;
    Ok(())
}

/// Sends a signal to the group of processes that this one leads.
///
/// # Errors
/// ESRCH when nobody is left in it, EPERM.
pub fn signal_group(leader: i32, number: i32) -> io::Result<()> {
    kill(-leader, number)
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

fn kill(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    let result = unsafe { libc::kill(pid, number) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It called exit with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// A child that ended, whoever it is; until it is reaped its number is its own. `None` when none has. Signals coalesce:
/// call it until then on every wake-up.
///
/// # Errors
/// The errno of waitid(2) other than ECHILD.
pub fn next_ended() -> io::Result<Option<i32>> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: a plain struct of numbers and pointers, for which all zeros is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // Not nix's: it knows no real-time signals, and a child that one of them ended would be in the way of all.
        // SAFETY: the struct outlives the call.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } == 0 {
            // SAFETY: waitid fills the fields of SIGCHLD, or leaves zeros where no child has ended (wait(2)).
            let pid = unsafe { info.si_pid() };
            return Ok((pid != 0).then_some(pid));
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// Reaps a child that ended.
///
/// # Errors
/// The errno of waitpid(2); ECHILD also where it has not.
pub fn reap(pid: i32) -> io::Result<Ended> {
    loop {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
            0 => return Err(io::Error::from_raw_os_error(libc::ECHILD)),
            1.. if libc::WIFEXITED(status) => return Ok(Ended::Code(libc::WEXITSTATUS(status))),
            1.. if libc::WIFSIGNALED(status) => return Ok(Ended::Signal(libc::WTERMSIG(status))),
            1.. => {}
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// Orphans of our descendants become our children (PR_SET_CHILD_SUBREAPER, Linux 3.4).
///
/// # Errors
/// EINVAL on older kernels.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Gives the pages of this program's code and constants that are in memory back to the page cache: what
/// the start needed is seldom needed again, and what is comes back by itself. How many bytes were asked
/// for.
///
/// The mappings are found in /proc/self/maps, so only files that are mapped read-only are touched: nothing
/// that was ever written to can be lost (MADV_DONTNEED in madvise(2)).
///
/// # Errors
/// When /proc/self/maps cannot be read.
pub fn release_code() -> io::Result<u64> {
    let mut released = 0;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((start, end)) = read_only_file(line) else { continue };
        // SAFETY: the range is one whole mapping of this process, of a file and without write permission:
        // its pages are read from the file again when they are next touched.
        let result = unsafe {
            libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED)
        };
        if result == 0 {
            released += (end - start) as u64;
        }
    }
    Ok(released)
}

/// Gives memory that was allocated and is free again back to the kernel (malloc_trim(3)): what a start of many
/// workers, or a long answer, needed for a moment. Other C libraries than glibc do so by themselves.
pub fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; only memory that nobody holds is given back.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The range of a line of /proc/PID/maps that maps a file privately and is not writable. A page of it that
/// was written to before it was protected (relocations) is not of the file any more, hence only code and
/// what has never been writable: `r-x`, and `r--` at the very beginning of the file, where no relocation is.
fn read_only_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let path = words.nth(2)?;
    let code = rights == "r-xp";
    let head = rights == "r--p" && offset.bytes().all(|b| b == b'0');
    if !path.starts_with('/') || !(code || head) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (start < end).then_some((start, end))
}

/// Raises the soft limit of open descriptors to the hard one; both as they were before.
///
/// # Errors
/// The errno of getrlimit(2) or setrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<(u64, u64)> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}

/// How many descriptors this process may have open (RLIMIT_NOFILE), and how many it has.
///
/// # Errors
/// The errno of getrlimit(2), or of reading /proc/self/fd.
pub fn own_descriptors() -> io::Result<(u64, u64)> {
    use nix::sys::resource::{Resource, getrlimit};
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // The one that reads the folder is among them.
    let open = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1);
    Ok((limit, u64::try_from(open).unwrap_or(u64::MAX)))
}

/// Whether a process runs with no_new_privs (prctl(2)).
pub fn has_no_new_privileges(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("NoNewPrivs:").is_some_and(|value| value.trim() == "1"))
}

/// Whether setgroups(2) is allowed in our user namespace (user_namespaces(7)).
pub fn may_set_groups() -> bool {
    // Kernels without user namespaces have no such file.
    fs::read_to_string("/proc/self/setgroups").map_or(true, |text| text.trim() != "deny")
}

/// Whether a process catches this signal (`SigCgt` in proc_pid_status(5)), rather than leave it to the kernel.
pub fn catches(pid: i32, signal: i32) -> bool {
    catches_by(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), signal)
}

fn catches_by(status: &str, signal: i32) -> bool {
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).contains(&signal) && mask & (1 << (signal - 1)) != 0
}

/// Any text, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &[u8]) -> String {
    let stat = parse_stat(text);
    let text = String::from_utf8_lossy(text);
    let ranges: Vec<_> = text.lines().filter_map(read_only_file).collect();
    assert!(ranges.iter().all(|(start, end)| start < end), "a range that ends before it begins");
    let watched = text.lines().filter(|line| watches(line, &[3], 7)).count();
    let caught = (0..=65).filter(|signal| catches_by(&text, *signal)).count();
    assert!(!catches_by(&text, 0) && !catches_by(&text, 65));
    let some = |count: usize| "x".repeat(count.min(3));
    format!("{}s{}w{}c{}", stat.is_some(), some(ranges.len()), some(watched), some(caught))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_that_ends_refuses_says_that_it_is_gone() {
        let mut child = std::process::Command::new("true").spawn().expect("there is true");
        let pid = child.id().cast_signed();
        let ended = || stat(pid).is_ok_and(|stat| stat.state == b'Z');
        while !ended() {
            std::thread::yield_now();
        }
        let answer = |pid| {
            let refused = io::Error::from_raw_os_error(libc::EACCES);
            refused_or_gone(pid, refused).raw_os_error().expect("it has a number")
        };
        assert_eq!(answer(pid), libc::ESRCH);
        child.wait().expect("it is our child");
        assert_eq!(answer(pid), libc::ESRCH);
        assert_eq!(answer(std::process::id().cast_signed()), libc::EACCES);
    }

    #[test]
    fn a_tree_is_gathered_parents_first_and_each_member_is_asked_once() {
        let wide: Vec<i32> = (2..60_000).collect();
        let mut asked = 0;
        let children = |pid| {
            asked += 1;
            match pid {
                1 => wide.clone(),
                // A number that was given out again while the list was read.
                2 => vec![60_000, 1],
                60_000 => vec![3],
                _ => Vec::new(),
            }
        };
        let members = gather(1, children);
        assert_eq!(members, (1..=60_000).collect::<Vec<_>>());
        assert_eq!(asked, 60_000);
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let text = b"42 (a) b (c)) S 7 42 41 0 -1 4194560 1 2 3 4 10 20 0 0 20 0 1 0 12345 1000 99 18446744073709551615";
        let stat = parse_stat(text).expect("documented form");
        assert_eq!((stat.state, stat.parent, stat.session), (b'S', 7, 41));
        assert_eq!((stat.ticks, stat.started, stat.resident_pages), (30, 12345, 99));
    }

    #[test]
    fn broken_stat_text_is_an_error_and_no_panic() {
        for text in [&b""[..], b"1 (x", b"1 (x)", b"1 (x) ", b"1 (x) S", b"1 (x) S a b c"] {
            assert_eq!(parse_stat(text), None);
        }
    }

    #[test]
    fn only_code_and_the_head_of_a_file_are_given_back() {
        let line = |rights, offset, path| format!("1000-3000 {rights} {offset} fe:00 42    {path}");
        assert_eq!(read_only_file(&line("r-xp", "00021000", "/bin/x")), Some((0x1000, 0x3000)));
        assert_eq!(read_only_file(&line("r--p", "00000000", "/bin/x")), Some((0x1000, 0x3000)));
        assert_eq!(read_only_file(&line("r--p", "00300000", "/bin/x")), None, "relocated, then protected");
        assert_eq!(read_only_file(&line("rw-p", "00000000", "/bin/x")), None);
        assert_eq!(read_only_file(&line("r-xp", "00000000", "[vdso]")), None);
        assert_eq!(read_only_file("garbage"), None);
    }

    #[test]
    fn a_program_goes_on_after_its_code_was_given_back() {
        assert!(release_code().expect("/proc is there") > 0);
        assert_eq!("still".len() + format!("{}", 37).len(), 7);
    }

    #[test]
    fn an_epoll_member_is_known_by_its_inode() {
        let line = "tfd:        3 events:       19 data:        3  pos:0 ino:1a2b sdev:9";
        assert!(watches(line, &[9], 0x1a2b));
        assert!(!watches(line, &[3], 0x1a2c));
        assert!(watches("tfd: 3 events: 19 data: 3", &[3], 1));
    }
}
