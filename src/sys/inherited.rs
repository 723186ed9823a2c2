//! Sockets that this process was handed at exec (`LISTEN_FDS`, `sd_listen_fds(3)`). Takes the first
//! one and checks that it listens; reads no environment and opens nothing.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{getsockopt, sockopt};

/// The number of the first handed socket (`SD_LISTEN_FDS_START`).
pub const FIRST: i32 = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes over descriptor 3, once in the life of the process.
///
/// # Errors
/// `EBADF` when it is not open, `ENOTSOCK` when it is no socket, `InvalidInput` when the socket does
/// not listen or was taken before. A descriptor that is refused is closed.
pub fn take_first() -> io::Result<TcpListener> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptor 3 was taken before"));
    }
    if !is_open(FIRST) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open, and its one owner is made here: TAKEN lets nobody come twice.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
    listener(socket)
}

/// Whether a descriptor of that number is open.
fn is_open(fd: i32) -> bool {
    // SAFETY: F_GETFD only reads the descriptor's flags, and fails for one that is not open.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    if getsockopt(&socket, sockopt::AcceptConn)? {
        Ok(TcpListener::from(socket))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptor 3 is a socket that does not listen"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_taken_and_others_are_refused() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open.local_addr().unwrap();
        let taken = listener(OwnedFd::from(open)).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);

        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener(OwnedFd::from(datagrams)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(listener(OwnedFd::from(file)).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
