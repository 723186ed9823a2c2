//! seccomp user notification of bind(2) and listen(2): how an unmodified server's socket becomes
//! known. The notification comes in, a verdict goes out; what to answer is decided elsewhere.
//!
//! It is a convenience and never a security boundary: bind and listen by io_uring, and 32-bit system
//! calls, are not seen. Facts in seccomp(2) and seccomp_unotify(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{arch, guise};

/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19): a received notification is not restarted by
/// signals that do not kill.
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// SECCOMP_USER_NOTIF_FLAG_CONTINUE (Linux 5.5): the kernel goes on with the call as it was made.
const CONTINUE: u32 = 1;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_1: u32 = 24;
const ARGUMENT_2: u32 = 32;

/// sizeof(struct sockaddr_nl): runtimes bind netlink sockets to list interfaces.
const NETLINK_ADDRESS: u32 = 12;

/// The program, and the header that points to it.
pub(super) struct Filter {
    code: Vec<libc::sock_filter>,
}

impl Filter {
    /// Notifies bind and listen; with `options` also the setsockopt(2) of IPV6_V6ONLY, SO_BINDTODEVICE and
    /// SO_BINDTOIFINDEX.
    pub(super) fn new(options: bool) -> Filter {
        let load = |from| (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, from);
        let equal = |value, jt, jf| (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, value);
        let answer = |verdict| (libc::BPF_RET | libc::BPF_K, 0, 0, verdict);
        // Where `allow` and `notify` stand.
        let (allow, notify) = if options { (16, 17) } else { (7, 8) };
        let to = |here: u8, there: u8| there - here - 1;
        let mut steps = vec![
            load(ARCH),
            equal(arch::AUDIT, 0, to(1, allow)),
            load(NR),
            equal(libc::SYS_listen as u32, to(3, notify), 0),
            equal(libc::SYS_bind as u32, 0, to(4, 7)),
            load(ARGUMENT_2),
            equal(NETLINK_ADDRESS, to(6, allow), to(6, notify)),
        ];
        if options {
            steps.extend([
                equal(libc::SYS_setsockopt as u32, 0, to(7, allow)),
                load(ARGUMENT_1),
                equal(libc::IPPROTO_IPV6 as u32, 0, to(9, 12)),
                load(ARGUMENT_2),
                equal(libc::IPV6_V6ONLY as u32, to(11, notify), to(11, allow)),
                equal(libc::SOL_SOCKET as u32, 0, to(12, allow)),
                load(ARGUMENT_2),
                equal(libc::SO_BINDTODEVICE as u32, to(14, notify), 0),
                equal(libc::SO_BINDTOIFINDEX as u32, to(15, notify), to(15, allow)),
            ]);
        }
        steps.extend([answer(libc::SECCOMP_RET_ALLOW), answer(libc::SECCOMP_RET_USER_NOTIF)]);
        let step = |(code, jt, jf, k): (u32, u8, u8, u32)| libc::sock_filter { code: code as u16, jt, jf, k };
        Filter { code: steps.into_iter().map(step).collect() }
    }
}

/// Puts the calling process under the filter; the notification descriptor, or the errno. Called
/// between clone and exec: raw system calls only.
pub(super) fn install(filter: &Filter) -> Result<RawFd, i32> {
    let program = libc::sock_fprog { len: filter.code.len() as u16, filter: filter.code.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    match set_filter(flags | WAIT_KILLABLE, &program) {
        Err(libc::EACCES) => {
            // Without CAP_SYS_ADMIN a filter needs no_new_privs. It is set only then, because
            // setuid helpers stop working under it.
            // SAFETY: numbers only.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            set_filter(flags | WAIT_KILLABLE, &program).or_else(|_| set_filter(flags, &program))
        }
        Err(libc::EINVAL) => set_filter(flags, &program),
        other => other,
    }
}

fn set_filter(flags: libc::c_ulong, program: &libc::sock_fprog) -> Result<RawFd, i32> {
    // SAFETY: the program outlives the call, and the kernel copies it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as libc::c_ulong,
            flags,
            std::ptr::from_ref(program),
        )
    };
    if fd < 0 { Err(nix::errno::Errno::last_raw()) } else { Ok(fd as RawFd) }
}

/// The call that a worker's thread waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// bind(fd, address, length), with the address where it lies in the worker's memory.
    Bind {
        /// Where the `sockaddr` lies.
        address: u64,
        /// Its length.
        length: u32,
    },
    /// listen(fd, backlog).
    Listen {
        /// As given; the kernel caps it by somaxconn.
        backlog: i32,
    },
    /// setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, value, …).
    V6Only {
        /// Where the value, an int, lies.
        value: u64,
    },
    /// setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, length).
    Device {
        /// Where the name of the interface lies.
        name: u64,
        /// Its length, maybe with a NUL at its end.
        length: u32,
    },
    /// setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, value, …).
    Interface {
        /// Where the number of the interface lies, an int.
        value: u64,
    },
}

/// One notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What the answer refers to.
    pub id: u64,
    /// The *thread* that waits, in our pid namespace; 0 if it cannot be named there.
    pub tid: i32,
    /// The descriptor, as the worker numbers it.
    pub fd: RawFd,
    /// Which call.
    pub call: Call,
}

/// How often a call that a signal interrupted, or whose thread is gone, is made again.
const ATTEMPTS: usize = 64;

/// Takes the next notification. `None` when there is none.
///
/// SECCOMP_IOCTL_NOTIF_RECV ignores O_NONBLOCK, so poll(2) is asked first. A thread that is gone (ENOENT) may
/// hide one that waits behind it, and nothing will say so again.
///
/// # Errors
/// The errno of poll(2) or ioctl(2); ENODEV-like errors mean that no process is left under the filter.
pub fn receive(notify: BorrowedFd<'_>) -> io::Result<Option<Notice>> {
    for _ in 0..ATTEMPTS {
        let mut fds = [PollFd::new(notify, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO)?;
        if !fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLIN)) {
            return Ok(None);
        }
        match receive_one(notify) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
            received => return received.map(Some),
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

fn receive_one(notify: BorrowedFd<'_>) -> io::Result<Notice> {
    // SAFETY: all zeros is a valid seccomp_notif, and RECV demands it zeroed.
    let mut notif: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the struct has the size that the request number encodes.
    let result =
        unsafe { libc::ioctl(notify.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut notif) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let call = call(&notif.data);
    Ok(Notice { id: notif.id, tid: notif.pid as i32, fd: notif.data.args[0] as RawFd, call })
}

fn call(data: &libc::seccomp_data) -> Call {
    let [_, second, third, fourth, fifth, _] = data.args;
    match (i64::from(data.nr), second as i32, third as i32) {
        (libc::SYS_listen, backlog, _) => Call::Listen { backlog },
        (libc::SYS_setsockopt, libc::IPPROTO_IPV6, _) => Call::V6Only { value: fourth },
        (libc::SYS_setsockopt, _, libc::SO_BINDTODEVICE) => {
            Call::Device { name: fourth, length: fifth as u32 }
        }
        (libc::SYS_setsockopt, _, _) => Call::Interface { value: fourth },
        (_, _, _) => Call::Bind { address: second, length: third as u32 },
    }
}

/// What becomes of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel goes on with it, with the worker's own rights.
    Continue,
    /// It was done on the worker's behalf: returns 0.
    Done,
    /// It fails with this errno.
    Refuse(i32),
}

/// Answers a notification. A thread that is gone meanwhile (ENOENT) needs none.
///
/// # Errors
/// The errno of ioctl(2).
pub fn answer(notify: BorrowedFd<'_>, id: u64, verdict: Verdict) -> io::Result<()> {
    let (error, flags) = match verdict {
        Verdict::Continue => (0, CONTINUE),
        Verdict::Done => (0, 0),
        Verdict::Refuse(errno) => (-errno, 0),
    };
    let response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    for _ in 0..ATTEMPTS {
        // SAFETY: the struct has the size that the request number encodes.
        let result = unsafe {
            libc::ioctl(notify.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw const response)
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT) => return Ok(()),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Whether the thread still waits in that call: to be asked after its memory or descriptors were read.
pub fn still_waits(notify: BorrowedFd<'_>, id: u64) -> bool {
    for _ in 0..ATTEMPTS {
        // SAFETY: the request takes a pointer to a u64.
        let result = unsafe {
            libc::ioctl(notify.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const id)
        };
        if result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return result == 0;
        }
    }
    false
}

/// A duplicate of descriptor `fd` of the process behind `pidfd` (pidfd_getfd(2), Linux 5.6). Needs the
/// right to trace it.
///
/// # Errors
/// EPERM where that right is missing, EBADF, ESRCH.
pub fn duplicate(pidfd: impl AsFd, fd: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_getfd(pidfd, fd, rustix::process::PidfdGetfdFlags::empty())?)
}

/// Puts a socket of ours in the place of the worker's: its descriptor `at` is a duplicate of `socket` from here
/// on, and what was there is closed (SECCOMP_IOCTL_NOTIF_ADDFD, Linux 5.9). No right over the worker is needed
/// but the notification itself. The call still waits for its answer.
///
/// # Errors
/// ENOENT when the thread waits no more; EINVAL or ENOTTY on older kernels.
pub fn replace(
    notify: BorrowedFd<'_>,
    id: u64,
    socket: BorrowedFd<'_>,
    at: RawFd,
    close_on_exec: bool,
) -> io::Result<()> {
    let request = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: socket.as_raw_fd() as u32,
        newfd: at as u32,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    // SAFETY: the struct has the size that the request number encodes.
    let result =
        unsafe { libc::ioctl(notify.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Copies bytes at `address` of another process: by process_vm_readv(2), or where that is refused by
/// /proc/PID/mem. How many there were.
///
/// # Errors
/// EPERM or EACCES without the right to trace it, EFAULT, ESRCH.
pub fn read_memory(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    match read_directly(pid, address, buffer) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
            let file = guise::look(pid, || std::fs::File::open(format!("/proc/{pid}/mem")))?;
            file.read_at(buffer, address)
        }
        read => read,
    }
}

fn read_directly(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    let base = usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let remote = [RemoteIoVec { base, len: buffer.len() }];
    let mut local = [io::IoSliceMut::new(buffer)];
    Ok(process_vm_readv(nix::unistd::Pid::from_raw(pid), &mut local, &remote)?)
}
