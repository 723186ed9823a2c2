//! From fork to exec: the one place where a process of ours becomes a worker.
//!
//! Everything is prepared before the clone; between clone and exec the child makes raw system calls
//! only, allocates nothing and touches no lock. What it has to say travels over a close-on-exec
//! SOCK_SEQPACKET pair that the loop polls like any other source: the seccomp notification
//! descriptor, the level that was reached without one, or the step and errno at which it failed.
//! End of file without a failure means that exec succeeded. The parent never waits.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::intercept;
use super::settings::{self, Setting, Settings};

/// CLONE_CLEAR_SIGHAND (Linux 5.5). `libc` has it as an `int`, where it overflows to 0.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// CLONE_INTO_CGROUP (Linux 5.7), the same.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The length of clone_args without its later members, for kernels that do not know those.
const CLONE_ARGS_FIRST: usize = 64;

/// Texts that reserve room for the digits of the child's own process id, patched in the child.
const LISTEN_PID_SLOT: &[u8] = b"LISTEN_PID=0000000000\0";
const WATCHDOG_PID_SLOT: &[u8] = b"WATCHDOG_PID=0000000000\0";

/// What a worker is started with.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The file to execute.
    pub program: CString,
    /// The argument vector, with the program's name first.
    pub argv: Vec<CString>,
    /// `NAME=value` strings. LISTEN_PID is added when descriptors are handed.
    pub env: Vec<CString>,
    /// The working directory.
    pub cwd: CString,
    /// Descriptors 0, 1 and 2.
    pub standard: [BorrowedFd<'a>; 3],
    /// Where the child reports to: its end of a [`report_pair`].
    pub report: BorrowedFd<'a>,
    /// Descriptors from 3 on: declared sockets, then Node's channel.
    pub handed: Vec<BorrowedFd<'a>>,
    /// How many of `handed` count as LISTEN_FDS.
    pub listen_fds: usize,
    /// Whether WATCHDOG_PID is added.
    pub watchdog: bool,
    /// Whether bind(2) and listen(2) are to be notified.
    pub intercept: bool,
    /// Whether setsockopt(2) of IPV6_V6ONLY, SO_BINDTODEVICE and SO_BINDTOIFINDEX is to be notified, too: of a
    /// socket that cannot be looked at.
    pub options: bool,
    /// The soft and hard RLIMIT_NOFILE that the supervisor itself was started with.
    pub nofile: (u64, u64),
    /// As whom, and within which limits.
    pub settings: &'a Settings,
}

/// A process on its way to exec.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id; it leads a session of its own.
    pub pid: i32,
    /// Its process descriptor: what it is signalled by. None where the host refuses to make one: Linux before
    /// 5.3, and container profiles that do not know pidfd_open(2).
    pub pidfd: Option<OwnedFd>,
}

/// The steps between clone and exec that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// setsid(2).
    Session,
    /// Moving descriptors into place.
    Descriptors,
    /// chdir(2).
    Directory,
    /// setrlimit(2).
    Limits,
    /// execve(2).
    Exec,
    /// What the file asks for.
    Settings(Setting),
}

impl Step {
    const ALL: [Step; 13] = [
        Step::Session,
        Step::Descriptors,
        Step::Directory,
        Step::Limits,
        Step::Exec,
        Step::Settings(Setting::OomScore),
        Step::Settings(Setting::Limit),
        Step::Settings(Setting::Nice),
        Step::Settings(Setting::Groups),
        Step::Settings(Setting::Group),
        Step::Settings(Setting::User),
        Step::Settings(Setting::Undone),
        Step::Settings(Setting::NoNewPrivileges),
    ];
}

/// One message of a process on its way to exec.
#[derive(Debug)]
pub enum Report {
    /// bind and listen are notified on this descriptor.
    Intercepted(OwnedFd),
    /// The kernel refused the notification filter with this errno; the worker starts without it.
    NotIntercepted(i32),
    /// The kernel refused it a place in the control group with this errno; the worker starts where we are.
    NotGrouped(i32),
    /// It failed, and is gone.
    Failed(Failure),
    /// The descriptor was closed: exec succeeded, unless `Failed` came before.
    End,
}

/// Where a process failed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it was doing.
    pub step: Step,
    /// With which of several: an index; 0 where there is but one.
    pub item: usize,
    /// The error number (errno(3)).
    pub errno: i32,
}

/// Tag, step, item, and the errno.
const REPORT_LENGTH: usize = 7;

const TAG_INTERCEPTED: u8 = b'I';
const TAG_NOT_INTERCEPTED: u8 = b'N';
const TAG_NOT_GROUPED: u8 = b'G';
const TAG_FAILED: u8 = b'F';

/// Starts a process, in this control group where one is given.
///
/// # Errors
/// The errno of clone3(2), fork(2) or pidfd_open(2): EAGAIN and ENOMEM pass by
/// themselves, EMFILE and ENFILE when descriptors are free again, ENODEV with another group: this one was
/// removed. What fails in the child is reported over [`Plan::report`].
pub fn spawn(plan: &Plan<'_>, group: Option<BorrowedFd<'_>>) -> io::Result<Spawned> {
    let mut prepared = Prepared::new(plan, plan.report.as_raw_fd());
    prepared.group = group.map(|group| group.as_raw_fd());
    let everything = block_signals()?;
    let result = clone_process(&mut prepared);
    restore_signals(&everything);
    let (pid, pidfd) = result?;
    Ok(Spawned { pid, pidfd })
}

/// Reads what the process has to say. `None` when it has said nothing new yet.
///
/// # Errors
/// The errno of recvmsg(2); EMFILE when the notification descriptor did not fit among ours any more.
pub fn read_report(report: BorrowedFd<'_>) -> io::Result<Option<Report>> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut bytes = [0_u8; REPORT_LENGTH];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut iov = [io::IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = match recvmsg::<()>(report.as_raw_fd(), &mut iov, Some(&mut control), flags) {
        Ok(message) => message,
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
        // The child died with unread data in its end: the same as closed.
        Err(nix::Error::ECONNRESET) => return Ok(Some(Report::End)),
        Err(error) => return Err(error.into()),
    };
    let mut passed = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
            passed = fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    let length = message.bytes;
    decode(&bytes[..length], passed).map(Some)
}

fn decode(bytes: &[u8], passed: Option<OwnedFd>) -> io::Result<Report> {
    let errno = bytes.get(3..REPORT_LENGTH).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    Ok(match (bytes.first(), passed) {
        (Some(&TAG_INTERCEPTED), Some(fd)) => Report::Intercepted(fd),
        // unix(7): a descriptor that we have no room for is closed, and the message comes without it.
        (Some(&TAG_INTERCEPTED), None) => return Err(io::Error::from_raw_os_error(libc::EMFILE)),
        (Some(&TAG_NOT_INTERCEPTED), _) => Report::NotIntercepted(errno),
        (Some(&TAG_NOT_GROUPED), _) => Report::NotGrouped(errno),
        (Some(&TAG_FAILED), _) => {
            let step = bytes.get(1).and_then(|i| Step::ALL.get(usize::from(*i)));
            let item = bytes.get(2).copied().map_or(0, usize::from);
            Report::Failed(Failure { step: step.copied().unwrap_or(Step::Exec), item, errno })
        }
        _ => Report::End,
    })
}

/// Our end, for [`read_report`], and the child's, which is to be closed here once it has its own.
///
/// # Errors
/// The errno of socketpair(2).
pub fn report_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// All that the child needs, as plain pointers and numbers.
struct Prepared<'a> {
    program: *const libc::c_char,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// Back the entries of `envp` that name the child; it writes its digits into them.
    own_pids: Vec<Vec<u8>>,
    cwd: *const libc::c_char,
    sources: Vec<RawFd>,
    report: RawFd,
    intercept: Option<intercept::Filter>,
    nofile: libc::rlimit,
    settings: &'a Settings,
    /// Whose end is also the worker's.
    supervisor: i32,
    /// The control group that it has to go to by itself, where it was not born in it.
    group: Option<RawFd>,
}

impl<'a> Prepared<'a> {
    fn new(plan: &Plan<'a>, report: RawFd) -> Prepared<'a> {
        let mut own_pids = Vec::new();
        if plan.listen_fds > 0 {
            own_pids.push(LISTEN_PID_SLOT.to_vec());
        }
        if plan.watchdog {
            own_pids.push(WATCHDOG_PID_SLOT.to_vec());
        }
        let mut envp: Vec<_> = plan.env.iter().map(|s| s.as_ptr()).collect();
        envp.extend(own_pids.iter().map(|slot| slot.as_ptr().cast::<libc::c_char>()));
        envp.push(ptr::null());
        let mut argv: Vec<_> = plan.argv.iter().map(|s| s.as_ptr()).collect();
        argv.push(ptr::null());
        let sources = plan.standard.iter().chain(&plan.handed).map(AsRawFd::as_raw_fd).collect();
        Prepared {
            program: plan.program.as_ptr(),
            argv,
            envp,
            own_pids,
            cwd: plan.cwd.as_ptr(),
            sources,
            report,
            intercept: plan.intercept.then(|| intercept::Filter::new(plan.options)),
            nofile: libc::rlimit { rlim_cur: plan.nofile.0, rlim_max: plan.nofile.1 },
            settings: plan.settings,
            supervisor: std::process::id() as i32,
            group: None,
        }
    }
}

fn block_signals() -> io::Result<nix::sys::signal::SigSet> {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(before)
}

fn restore_signals(before: &nix::sys::signal::SigSet) {
    use nix::sys::signal::{SigmaskHow, sigprocmask};
    let restored = sigprocmask(SigmaskHow::SIG_SETMASK, Some(before), None);
    debug_assert!(restored.is_ok(), "a mask that was read can be set");
}

/// Parent: the child's pid and descriptor. Child: never returns.
fn clone_process(prepared: &mut Prepared<'_>) -> io::Result<(i32, Option<OwnedFd>)> {
    if let Some(group) = prepared.group.take() {
        match clone_with(prepared, Some(group)) {
            // Kernels before 5.7, profiles, and whatever else keeps a child from being born there: it may go by itself.
            Err(error)
                if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM | libc::ENODEV)) =>
            {
                prepared.group = Some(group);
            }
            other => return other,
        }
    }
    match clone_with(prepared, None) {
        Err(error) => match error.raw_os_error() {
            // Kernels before 5.5, and container profiles that refuse what they do not know.
            Some(libc::ENOSYS | libc::EPERM | libc::EINVAL) => fork_process(prepared),
            _ => Err(error),
        },
        cloned => cloned,
    }
}

/// By clone3, into a control group if one is given.
fn clone_with(prepared: &mut Prepared<'_>, group: Option<RawFd>) -> io::Result<(i32, Option<OwnedFd>)> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    let mut length = CLONE_ARGS_FIRST;
    if let Some(group) = group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group as u64;
        length = size_of::<CloneArgs>();
    }
    // SAFETY: without CLONE_VM the child has its own copy of the address space, as after fork; the
    // arguments live on this stack until the call returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, length) };
    match pid {
        0 => run_child(prepared),
        1.. => {
            // SAFETY: the kernel has just made this descriptor for us (CLONE_PIDFD, Linux 5.2).
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok((pid as i32, Some(pidfd)))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn fork_process(prepared: &mut Prepared<'_>) -> io::Result<(i32, Option<OwnedFd>)> {
    // SAFETY: whatever another thread holds at this moment (it may compress old log files), the child takes no lock and
    // allocates nothing: it makes system calls only.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => run_child(prepared),
        1.. => {
            let pid = rustix::process::Pid::from_raw(pid)
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            // Not reaped yet, so the number still means our child. A descriptor that cannot be had must not
            // leave a child behind that nobody knows of.
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
            Ok((pid.as_raw_nonzero().get(), pidfd))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// The kernel's `struct clone_args`, third version (clone(2), Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

fn run_child(prepared: &mut Prepared<'_>) -> ! {
    let failure = prepare_and_exec(prepared);
    let index = Step::ALL.iter().position(|s| *s == failure.step).unwrap_or(0);
    send(prepared.report, TAG_FAILED, [index as u8, failure.item as u8], failure.errno, None);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// Returns only on failure.
fn prepare_and_exec(prepared: &mut Prepared<'_>) -> Failure {
    let failed = |step| Failure { step, item: 0, errno: errno() };
    // SAFETY: no arguments; a fresh child is never a group leader.
    if unsafe { libc::setsid() } < 0 {
        return failed(Step::Session);
    }
    // Before descriptors close, and before a change of user: whatever it starts is in the group, too.
    if let Some(Err(errno)) = prepared.group.map(join) {
        send(prepared.report, TAG_NOT_GROUPED, [0, 0], errno, None);
    }
    if let Err(errno) = place_descriptors(prepared) {
        return Failure { step: Step::Descriptors, item: 0, errno };
    }
    reset_dispositions();
    // Before the limits, since it takes a descriptor; before the change of user, since root may do it without
    // no_new_privs.
    if let Some(filter) = &prepared.intercept {
        match intercept::install(filter) {
            Ok(fd) => send(prepared.report, TAG_INTERCEPTED, [0, 0], 0, Some(fd)),
            Err(errno) => send(prepared.report, TAG_NOT_INTERCEPTED, [0, 0], errno, None),
        }
    }
    // SAFETY: a valid struct that outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const prepared.nofile) } < 0 {
        return failed(Step::Limits);
    }
    let settings = prepared.settings;
    if let Err(failure) = settings::limit(settings).and_then(|()| settings::become_other(settings)) {
        return failure;
    }
    // As the worker's user: what it may not enter is not its working directory.
    // SAFETY: a NUL-terminated path that outlives the call.
    if unsafe { libc::chdir(prepared.cwd) } < 0 {
        return failed(Step::Directory);
    }
    end_with_supervisor(prepared.supervisor);
    prepared.own_pids.iter_mut().for_each(|slot| patch_pid(slot));
    clear_mask();
    // SAFETY: NUL-terminated strings in NULL-terminated arrays, all of which outlive the call.
    unsafe { libc::execve(prepared.program, prepared.argv.as_ptr(), prepared.envp.as_ptr()) };
    failed(Step::Exec)
}

/// Moves this process into a control group.
fn join(group: RawFd) -> Result<(), i32> {
    // SAFETY: a NUL-terminated name below an open folder.
    let file = unsafe { libc::openat(group, c"cgroup.procs".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return Err(errno());
    }
    // SAFETY: one byte of a text that lives as long as the program; 0 stands for whoever writes it.
    let written = unsafe { libc::write(file, c"0".as_ptr().cast(), 1) };
    let result = if written < 0 { Err(errno()) } else { Ok(()) };
    // SAFETY: it was opened above.
    unsafe { libc::close(file) };
    result
}

/// A worker that nobody supervises would serve on beside those of the next supervisor, and its bind and
/// listen calls would fail: SIGKILL when the supervisor ends (PR_SET_PDEATHSIG; it is lost with a change of
/// user, hence after it). A supervisor that ended before is seen by the new parent.
fn end_with_supervisor(supervisor: i32) {
    // SAFETY: numbers only.
    let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: no arguments, cannot fail.
    let parent = unsafe { libc::getppid() };
    if set == 0 && parent != supervisor {
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { libc::_exit(127) }
    }
}

/// Descriptor `i` becomes `sources[i]`, and the report the next one. All others close: at the supervisor's
/// limit there must be room for what the child still opens (the seccomp listener).
fn place_descriptors(prepared: &mut Prepared<'_>) -> Result<(), i32> {
    let count = prepared.sources.len() as RawFd;
    prepared.report = clear_of(prepared.report, count)?;
    for source in &mut prepared.sources {
        *source = clear_of(*source, count)?;
    }
    for (target, source) in prepared.sources.iter().enumerate() {
        // SAFETY: both are open; dup2 leaves the copy without close-on-exec, which is the point.
        if unsafe { libc::dup2(*source, target as RawFd) } < 0 {
            return Err(errno());
        }
    }
    if prepared.report != count {
        // SAFETY: numbers only; what was there is a descriptor of the supervisor's.
        if unsafe { libc::dup3(prepared.report, count, libc::O_CLOEXEC) } < 0 {
            return Err(errno());
        }
        prepared.report = count;
    }
    // Belt and braces: all our own descriptors are close-on-exec already. Where the call is not known
    // (before Linux 5.9) or refused, that alone has to do.
    // SAFETY: numbers only.
    unsafe {
        libc::syscall(libc::SYS_close_range, count as u32 + 1, u32::MAX, 0);
    }
    Ok(())
}

/// A descriptor that is none of the first `count`: this one if it can be.
fn clear_of(fd: RawFd, count: RawFd) -> Result<RawFd, i32> {
    if fd >= count {
        return Ok(fd);
    }
    // SAFETY: numbers only.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, count) };
    if copy < 0 { Err(errno()) } else { Ok(copy) }
}

/// The kernel's `struct sigaction` (64-bit), which is not glibc's.
#[repr(C)]
struct KernelSigaction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Every signal to its default: CLONE_CLEAR_SIGHAND resets handlers, but not what is ignored, and
/// Rust ignores SIGPIPE. glibc's own call refuses 32 and 33, hence the kernel's.
fn reset_dispositions() {
    let default = KernelSigaction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    for signal in 1..=64 {
        // SAFETY: a valid struct; SIGKILL and SIGSTOP answer EINVAL, which is right.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, ptr::null::<u8>(), 8_usize);
        }
    }
}

fn clear_mask() {
    let none = 0_u64;
    // SAFETY: a valid 8-byte mask.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null::<u8>(),
            8_usize,
        );
    }
}

/// Writes our process id over the zeros, by hand: formatting could allocate.
fn patch_pid(slot: &mut [u8]) {
    // SAFETY: no arguments, cannot fail. Not glibc's cached number, which a raw clone leaves stale.
    let mut pid = unsafe { libc::syscall(libc::SYS_getpid) } as u64;
    let mut digits = [0_u8; 10];
    let mut count = 0;
    while pid > 0 && count < digits.len() {
        digits[count] = b'0' + (pid % 10) as u8;
        pid /= 10;
        count += 1;
    }
    let start = slot.len() - 1 - digits.len();
    for (i, digit) in digits[..count].iter().rev().enumerate() {
        slot[start + i] = *digit;
    }
    slot[start + count] = 0;
}

fn send(socket: RawFd, tag: u8, what: [u8; 2], errno: i32, fd: Option<RawFd>) {
    let mut bytes = [0_u8; REPORT_LENGTH];
    bytes[0] = tag;
    bytes[1..3].copy_from_slice(&what);
    bytes[3..].copy_from_slice(&errno.to_ne_bytes());
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // Room for one descriptor, aligned as cmsghdr needs it: CMSG_SPACE(4) is 24 bytes.
    let mut control = [0_u64; 3];
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        // struct cmsghdr { len, level, type } followed by the descriptor (cmsg(3)).
        control[0] = (size_of::<libc::cmsghdr>() + size_of::<RawFd>()) as u64;
        control[1] = (libc::SOL_SOCKET as u64) | ((libc::SCM_RIGHTS as u64) << 32);
        control[2] = fd as u32 as u64;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
    }
    // SAFETY: the message points to buffers of this frame. A lost message cannot be reported any
    // further: the parent sees the end of file.
    unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) };
}

fn errno() -> i32 {
    nix::errno::Errno::last_raw()
}

/// Marks every descriptor above 2 that this process inherited as close-on-exec, so that nothing of
/// whoever started the supervisor reaches a worker.
///
/// Without close_range(2) (before Linux 5.9) those that /proc shows, and without /proc as many numbers as there
/// may be.
pub fn close_inherited_on_exec() {
    // SAFETY: numbers only.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return;
    }
    let open: Vec<RawFd> = match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect(),
        Err(_) => (0..MOST_INHERITED).collect(),
    };
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: numbers only; a descriptor that is closed meanwhile answers EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Numbers of descriptors that are tried where nothing tells which are open.
const MOST_INHERITED: RawFd = 65_536;

/// The name of a signal, for people: `SIGINT`, or `signal 34`.
pub fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}

/// The text of an error number, as strerror(3) gives it: `No such file or directory`.
pub fn errno_text(errno: i32) -> String {
    // SAFETY: returns a pointer to a static text, or to one that lives until the next call of it in
    // this thread.
    let text = unsafe { libc::strerror(errno) };
    // SAFETY: strerror never returns NULL and always terminates its text.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Any report, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) -> String {
    format!("{:?}", decode(&bytes[..bytes.len().min(REPORT_LENGTH)], None).map_err(|error| error.kind()))
}
