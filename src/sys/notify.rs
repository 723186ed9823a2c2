//! The receiving side of the notify protocol (sd_notify(3)): datagrams with the sender's process id
//! filled in by the kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt};

/// The longest message that is looked at; systemd's own limit.
pub const LIMIT: usize = 4096;

/// The most descriptors that one message can carry (SCM_MAX_FD in unix(7)).
const MOST_DESCRIPTORS: usize = 253;

/// Before the data of a control message: its length, level and type (cmsg(3)), as the kernel has them.
const CONTROL_HEAD: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// Room for the sender's credentials and all descriptors that may come.
const CONTROL: usize = 2 * CONTROL_HEAD + size_of::<libc::ucred>() + MOST_DESCRIPTORS * size_of::<RawFd>();

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sending process, by the kernel's word. 0 when it is not visible in our pid namespace.
    pub pid: i32,
    /// Its user, by the kernel's word: the real one, or another of its own that it chose to show
    /// (SCM_CREDENTIALS in unix(7)).
    pub uid: u32,
    /// What it sent: lines of `NAME=value`.
    pub bytes: Vec<u8>,
    /// It was longer than [`LIMIT`], or had more descriptors than we could take, and is not to be trusted.
    pub truncated: bool,
}

/// Binds the socket at this path, which must not exist: its owner alone may send to it (0600). Non-blocking.
///
/// # Errors
/// EADDRINUSE when the path exists; InvalidInput when it is longer than 107 bytes (unix(7)).
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    open_at(&UnixAddr::new(path).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?)
}

/// The same without a file, for senders that cannot reach one: `@name` to them (sd_notify(3)). Every process
/// of this network namespace can send to it.
///
/// # Errors
/// EADDRINUSE when the name is taken; InvalidInput when it is longer than 107 bytes (unix(7)).
pub fn open_abstract(name: &str) -> io::Result<OwnedFd> {
    let address = UnixAddr::new_abstract(name.as_bytes());
    open_at(&address.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?)
}

fn open_at(address: &UnixAddr) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    setsockopt(&fd, sockopt::PassCred, &true)?;
    // The file that bind makes gets the socket's own mode (unix(7)), so nobody gets in between.
    nix::sys::stat::fchmod(&fd, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    bind(fd.as_raw_fd(), address)?;
    Ok(fd)
}

/// Takes the next message. `None` when there is none.
///
/// Descriptors that came with it are closed, whatever else is the matter: nothing is stored for workers
/// (FDSTORE), and the one of `BARRIER=1` says by its end that all messages before it were read.
///
/// # Errors
/// The errno of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    let mut bytes = vec![0_u8; LIMIT];
    // nix refuses to show what came with a message that was cut, and the descriptors in it would stay open.
    let mut control = [0_u64; CONTROL.div_ceil(size_of::<u64>()) + 2];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a plain struct of numbers and pointers, for which all zeros is a value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the header and what it points to outlive the call, with the lengths that it states.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            _ => Err(error),
        };
    };
    bytes.truncate(length);
    let truncated = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    let came: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let came = &came[..came.len().min(header.msg_controllen as usize)];
    let (pid, uid) = take_control(came);
    Ok(Some(Datagram { pid, uid, bytes, truncated }))
}

/// Who sends that the kernel does not name: nobody has this number (credentials(7), -1 as an id).
const NOBODY: (i32, u32) = (0, u32::MAX);

/// Goes through the control messages as the kernel wrote them: the sender's process id and user. Closes what
/// descriptors there are.
fn take_control(mut rest: &[u8]) -> (i32, u32) {
    let number = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes)
    };
    let mut sender = NOBODY;
    while let Some(Ok(length)) = rest.get(..size_of::<usize>()).map(<[u8; size_of::<usize>()]>::try_from) {
        let length = usize::from_ne_bytes(length);
        let Some(data) = rest.get(CONTROL_HEAD..length) else { break };
        let kind = (number(rest, size_of::<usize>()), number(rest, size_of::<usize>() + 4));
        if kind == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
            sender = (number(data, 0), number(data, size_of::<i32>()).cast_unsigned());
        } else if kind == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for fd in data.chunks_exact(size_of::<RawFd>()) {
                // SAFETY: the kernel has just made this descriptor for us; dropping closes it.
                drop(unsafe { OwnedFd::from_raw_fd(number(fd, 0)) });
            }
        }
        rest = rest.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or(&[]);
    }
    sender
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn the_kernel_names_the_sender() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("n");
        let socket = open(&path).expect("bound");
        assert_eq!(receive(socket.as_fd()).expect("empty"), None);
        UnixDatagram::unbound().expect("a socket").send_to(b"READY=1", &path).expect("sent");
        let got = receive(socket.as_fd()).expect("one").expect("one");
        let us = (std::process::id() as i32, rustix::process::getuid().as_raw());
        assert_eq!((got.pid, got.uid), us);
        assert_eq!((got.bytes.as_slice(), got.truncated), (&b"READY=1"[..], false));
    }

    #[test]
    fn an_empty_message_is_one_and_a_long_one_is_marked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("n");
        let socket = open(&path).expect("bound");
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.send_to(b"", &path).expect("sent");
        sender.send_to(&[b'x'; LIMIT + 1], &path).expect("sent");
        assert_eq!(receive(socket.as_fd()).expect("one").expect("one").bytes, b"");
        assert!(receive(socket.as_fd()).expect("one").expect("one").truncated);
    }

    fn send_with(sender: &UnixDatagram, path: &Path, fds: &[RawFd]) {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let address = UnixAddr::new(path).expect("short");
        let iov = [io::IoSlice::new(b"STATUS=with descriptors")];
        let rights = [ControlMessage::ScmRights(fds)];
        sendmsg(sender.as_raw_fd(), &iov, &rights, MsgFlags::empty(), Some(&address)).expect("sent");
    }

    /// Whether a pipe's other end is gone, by the end of it that is left.
    fn is_closed(read: &OwnedFd) -> bool {
        let mut byte = [0];
        matches!(nix::unistd::read(read, &mut byte), Ok(0))
    }

    /// Fault 87.
    #[test]
    fn descriptors_that_come_along_are_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("n");
        let socket = open(&path).expect("bound");
        let sender = UnixDatagram::unbound().expect("a socket");
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).expect("a pipe");
        send_with(&sender, &path, &[write.as_raw_fd(); MOST_DESCRIPTORS]);
        drop(write);
        let got = receive(socket.as_fd()).expect("one").expect("one");
        assert_eq!((got.pid, got.truncated), (std::process::id() as i32, false));
        assert!(is_closed(&read), "a descriptor of the message is still open");
    }

    #[test]
    fn control_text_of_any_kind_is_gone_through() {
        for length in 0..CONTROL_HEAD + 8 {
            assert_eq!(take_control(&vec![0; length]), NOBODY);
            assert_eq!(take_control(&vec![0xff; length]), NOBODY);
        }
    }
}
