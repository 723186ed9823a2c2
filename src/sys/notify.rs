//! The receiving side of the notify protocol (sd_notify(3)): datagrams with the sender's process id
//! filled in by the kernel.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind,
    recvmsg, setsockopt, socket, sockopt,
};

/// The longest message that is looked at; systemd's own limit.
pub const LIMIT: usize = 4096;

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sending process, by the kernel's word. 0 when it is not visible in our pid namespace.
    pub pid: i32,
    /// What it sent: lines of `NAME=value`.
    pub bytes: Vec<u8>,
    /// It was longer than [`LIMIT`] and is not to be trusted.
    pub truncated: bool,
}

/// Binds the socket at this path, which must not exist. Non-blocking.
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
    bind(fd.as_raw_fd(), address)?;
    Ok(fd)
}

/// Takes the next message. `None` when there is none. Descriptors that came with it are closed.
///
/// # Errors
/// The errno of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    let mut bytes = vec![0; LIMIT];
    let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; 253]);
    let mut iov = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut iov, Some(&mut control), flags);
    let message = match received {
        Ok(message) => message,
        Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    let mut pid = 0;
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::ScmCredentials(credentials) => pid = credentials.pid(),
            ControlMessageOwned::ScmRights(fds) => {
                for fd in fds {
                    // SAFETY: the kernel has just made this descriptor for us; dropping closes it.
                    drop(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
            _ => {}
        }
    }
    let length = message.bytes;
    bytes.truncate(length);
    Ok(Some(Datagram { pid, bytes, truncated }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn the_kernel_names_the_sender() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("n");
        let socket = open(&path).expect("bound");
        assert_eq!(receive(socket.as_fd()).expect("empty"), None);
        UnixDatagram::unbound().expect("a socket").send_to(b"READY=1", &path).expect("sent");
        let got = receive(socket.as_fd()).expect("one").expect("one");
        assert_eq!(got.pid, std::process::id() as i32);
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
}
