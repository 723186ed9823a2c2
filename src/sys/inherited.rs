//! Sockets that this process was handed at exec (`LISTEN_FDS`, `sd_listen_fds(3)`). Takes them over and checks
//! that they listen; opens nothing.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{getsockopt, sockopt};

/// The number of the first handed socket (`SD_LISTEN_FDS_START`).
pub const FIRST: i32 = 3;

/// More are not taken: nobody declares so many.
const MOST: i32 = 1024;

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

/// What the host says that it handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    count: i32,
    names: Vec<String>,
}

impl Announced {
    /// Reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES. What is meant for another process means nothing.
    pub fn by_environment() -> Announced {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Announced::read(
            &variable("LISTEN_PID"),
            &variable("LISTEN_FDS"),
            &variable("LISTEN_FDNAMES"),
            std::process::id(),
        )
    }

    fn read(pid: &str, count: &str, names: &str, own: u32) -> Announced {
        if pid.parse() != Ok(own) {
            return Announced::default();
        }
        let count = count.parse().unwrap_or(0).clamp(0, MOST);
        Announced { count, names: names.split(':').map(str::to_owned).collect() }
    }
}

/// A socket that the host handed over.
#[derive(Debug)]
pub struct Handed {
    /// It.
    pub fd: OwnedFd,
    /// What the host calls it (`FileDescriptorName=` in systemd.socket(5)); empty where it does not say.
    pub name: String,
}

/// What came of all that was announced.
#[derive(Debug, Default)]
pub struct Taken {
    /// What listens.
    pub listening: Vec<Handed>,
    /// Numbers, and names, of what does not.
    pub others: Vec<(i32, String)>,
}

/// Takes over all announced sockets that listen, once in the life of the process. To be called before
/// anything else is opened: a number that was announced and is not a listening socket is left alone.
pub fn take_all(announced: &Announced) -> Taken {
    let mut taken = Taken::default();
    if announced.count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return taken;
    }
    let mut names = announced.names.iter();
    for number in FIRST..FIRST + announced.count {
        let name = names.next().cloned().unwrap_or_default();
        if is_listening(number) {
            // SAFETY: the descriptor is open, and its one owner is made here: TAKEN lets nobody come twice,
            // and nothing of ours listens yet.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            taken.listening.push(Handed { fd, name });
        } else {
            taken.others.push((number, name));
        }
    }
    taken
}

/// Whether a descriptor of that number is a listening socket.
fn is_listening(fd: i32) -> bool {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value and its length belong to this frame and fit each other.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, (&raw mut value).cast(), &raw mut length)
    };
    result == 0 && value == 1
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

    #[test]
    fn only_what_is_meant_for_us_is_announced() {
        let read = |pid, count, names| Announced::read(pid, count, names, 42);
        let none = Announced::default();
        assert_eq!(read("", "", ""), none);
        assert_eq!(read("41", "1", "a"), none);
        assert_eq!(read("42", "-1", "").count, 0);
        assert_eq!(read("42", "99999", "").count, MOST);
        assert_eq!(read("42", "2", "a:b"), Announced { count: 2, names: vec!["a".into(), "b".into()] });
    }
}
