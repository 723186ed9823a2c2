//! Unix stream sockets for the control plane: a listener that only its owner can reach, who the peer
//! is, and a connect that gives up. Decides nothing about what a peer may do.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::{TimeVal, TimeValLike};

/// Connections that may wait to be accepted.
pub const BACKLOG: i32 = 128;

/// Who is at the other end of a Unix socket, as the kernel saw it at connect(2) (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user id.
    pub uid: u32,
    /// Its process id; 0 when it lives in a process namespace that we cannot see.
    pub pid: i32,
}

/// A listening, non-blocking, close-on-exec socket at `path` with mode 0600. A socket file that is
/// already there is replaced: call this only under the lock that proves it stale. Anything else that is
/// there is left alone and is an error (`AlreadyExists`).
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = address(path)?;
    let socket = stream_socket(SockFlag::SOCK_NONBLOCK)?;
    // The file gets the mode of the socket's own inode (unix_bind_bsd in Linux), so there is no moment
    // in which others could connect, as there is with bind(2) and then chmod(2).
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    remove_socket_file(path)?;
    socket::bind(socket.as_raw_fd(), &address)?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from(socket))
}

/// Connects, and gives up after `limit` when the listener's queue stays full (`TimedOut`). The stream
/// blocks and has no timeouts.
pub fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let address = address(path)?;
    let socket = stream_socket(SockFlag::empty())?;
    // connect(2) of a Unix socket waits as long as SO_SNDTIMEO says (unix_stream_connect in Linux).
    let wait = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1));
    socket::setsockopt(&socket, sockopt::SendTimeout, &wait)?;
    match socket::connect(socket.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(nix::Error::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
        Err(error) => return Err(error.into()),
    }
    let stream = UnixStream::from(socket);
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// Who connected to us, or to whom we connected.
pub fn peer(stream: &impl AsFd) -> io::Result<Peer> {
    let credentials = socket::getsockopt(&stream.as_fd(), sockopt::PeerCredentials)?;
    Ok(Peer { uid: credentials.uid(), pid: credentials.pid() })
}

/// The effective user id of this process.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective group id of this process.
pub fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

fn address(path: &Path) -> io::Result<UnixAddr> {
    UnixAddr::new(path).map_err(|_| {
        let text = format!(
            "{}: a Unix socket's path holds at most 107 bytes, this one has {}; choose a shorter home",
            path.display(),
            path.as_os_str().len()
        );
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

fn stream_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    Ok(socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

fn remove_socket_file(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => {
            let text = format!("{}: something that is not a socket is in the way", path.display());
            Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_socket_file_is_private_from_its_first_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(listen(&path).unwrap());
        listen(&path).unwrap();

        let file = folder.path().join("f");
        fs::write(&file, "mine").unwrap();
        assert_eq!(listen(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn both_ends_see_who_the_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = listen(&path).unwrap();
        let client = connect(&path, Duration::from_secs(5)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let ours = Peer { uid: own_uid(), pid: nix::unistd::getpid().as_raw() };
        assert_eq!(peer(&client).unwrap(), ours);
        assert_eq!(peer(&server).unwrap(), ours);
    }

    #[test]
    fn a_full_queue_does_not_hold_a_client_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = listen(&path).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect(&path, Duration::from_millis(20)) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() <= 2 * BACKLOG as usize, "the queue has no end");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_path_that_is_too_long_says_so() {
        let path = Path::new("/").join("x".repeat(120));
        assert!(listen(&path).unwrap_err().to_string().contains("at most 107 bytes"));
    }
}
