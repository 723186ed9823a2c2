//! One descriptor of another process, as /proc shows it: what can be known of a socket that cannot be
//! duplicated.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::RawFd;

use super::{epoll_peer, guise, process};

/// O_CLOEXEC and O_NONBLOCK as /proc/PID/fdinfo prints them, in octal.
const CLOSE_ON_EXEC: u32 = libc::O_CLOEXEC as u32;
const NONBLOCKING: u32 = libc::O_NONBLOCK as u32;

/// The longest name of a protocol is shorter (`struct proto` in Linux has 32 bytes for it).
const NAME: usize = 64;

/// A descriptor that is a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its inode, which no other open socket of the host has.
    pub inode: u64,
    /// TCP, or Multipath TCP, over IPv4 or IPv6.
    pub tcp: bool,
    /// The descriptor closes at exec.
    pub close_on_exec: bool,
    /// Its calls do not wait.
    pub nonblocking: bool,
}

/// What socket a process has under this number; none when it is no socket.
///
/// # Errors
/// EACCES without the right to look at the process; ENOENT when it is gone.
pub fn socket(pid: i32, fd: RawFd) -> io::Result<Option<Socket>> {
    guise::look(pid, || {
        let path = format!("/proc/{pid}/fd/{fd}");
        let target = fs::read_link(&path)?;
        let Some(inode) = process::inode_of(&target) else { return Ok(None) };
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"))?;
        let flags = flags(&info).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let tcp = is_protocol_of_tcp(&protocol(&path)?);
        let (close_on_exec, nonblocking) = (flags & CLOSE_ON_EXEC != 0, flags & NONBLOCKING != 0);
        Ok(Some(Socket { inode, tcp, close_on_exec, nonblocking }))
    })
}

/// Whether a descriptor of a process or thread is a socket of TCP, or of Multipath TCP: found without opening
/// anything, where no descriptor is left for that.
///
/// # Errors
/// As [`socket`], and ENODATA when it is no socket.
pub fn is_tcp(tid: i32, fd: RawFd) -> io::Result<bool> {
    guise::look(tid, || Ok(is_protocol_of_tcp(&protocol(&format!("/proc/{tid}/fd/{fd}"))?)))
}

fn is_protocol_of_tcp(name: &[u8]) -> bool {
    matches!(name, b"TCP" | b"TCPv6" | b"MPTCP" | b"MPTCPv6")
}

/// Whether the socket with this inode is known to the process by this number alone: no other number of it, and
/// no epoll set, leads there.
///
/// # Errors
/// As [`socket`].
pub fn is_sole(pid: i32, inode: u64) -> io::Result<bool> {
    let numbers = process::sockets(pid)?.into_iter().filter(|socket| socket.inode == inode).count();
    Ok(numbers == 1 && epoll_peer::entries(pid, inode)?.is_empty())
}

/// Whether the process has the same network as we.
///
/// # Errors
/// As [`socket`].
pub fn in_our_network(pid: i32) -> io::Result<bool> {
    let theirs = guise::look(pid, || fs::read_link(format!("/proc/{pid}/ns/net")))?;
    Ok(theirs == fs::read_link("/proc/self/ns/net")?)
}

/// `flags: 02004002` of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)).
fn flags(info: &str) -> Option<u32> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(flags.trim(), 8).ok()
}

/// The name of a socket's protocol, from an attribute that the kernel gives every socket
/// (`sockfs_xattr_get`, Linux 3.2; lsof(8) reads it too).
fn protocol(path: &str) -> io::Result<Vec<u8>> {
    let path = CString::new(path)?;
    let mut name = [0_u8; NAME];
    // SAFETY: both texts are NUL-terminated, and the buffer has the length that is given.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), c"system.sockprotoname".as_ptr(), name.as_mut_ptr().cast(), name.len())
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(name[..length.min(NAME)].iter().copied().take_while(|byte| *byte != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn a_socket_is_seen_as_it_is() {
        let pid = std::process::id().cast_signed();
        let listener = TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port");
        listener.set_nonblocking(true).expect("ours");
        let inode = super::super::listen::inode(listener.as_fd()).expect("a socket");
        let seen = socket(pid, listener.as_raw_fd()).expect("our own");
        assert_eq!(seen, Some(Socket { inode, tcp: true, close_on_exec: true, nonblocking: true }));
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let seen = socket(pid, datagrams.as_raw_fd()).expect("our own").expect("a socket");
        assert!(!seen.tcp && !seen.nonblocking);
        assert!(is_tcp(pid, listener.as_raw_fd()).expect("our own"));
        assert!(!is_tcp(pid, datagrams.as_raw_fd()).expect("our own"));
        let file = fs::File::open("/proc/self/status").expect("there");
        assert_eq!(socket(pid, file.as_raw_fd()).expect("our own"), None);
        is_tcp(pid, file.as_raw_fd()).expect_err("no socket");
        assert!(in_our_network(pid).expect("our own"));
    }

    #[test]
    fn a_socket_with_a_second_number_or_in_a_set_is_not_sole() {
        let pid = std::process::id().cast_signed();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let inode = super::super::listen::inode(listener.as_fd()).expect("a socket");
        assert!(is_sole(pid, inode).expect("our own"));
        let second = listener.try_clone().expect("a duplicate");
        assert!(!is_sole(pid, inode).expect("our own"));
        drop(second);
        let poll = mio::Poll::new().expect("epoll");
        let raw = listener.as_raw_fd();
        let mut source = mio::unix::SourceFd(&raw);
        poll.registry().register(&mut source, mio::Token(1), mio::Interest::READABLE).expect("registered");
        assert!(!is_sole(pid, inode).expect("our own"));
    }

    #[test]
    fn flags_are_octal() {
        assert_eq!(flags("pos:\t0\nflags:\t02004002\nmnt_id:\t9\n"), Some(0o2_004_002));
        assert_eq!(flags("pos:\t0\n"), None);
        assert_eq!(flags("flags:\t9"), None);
    }
}
