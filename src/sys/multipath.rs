//! Multipath TCP sockets (IPPROTO_MPTCP, Linux 5.6), and plain TCP sockets that are set up like one.
//!
//! The kernel refuses SO_ATTACH_REUSEPORT_CBPF on them (`mptcp_setsockopt`: EOPNOTSUPP), so connections to
//! several that share an address cannot be steered. Clients of Multipath TCP fall back to TCP where the
//! listener is plain (RFC 8684, section 3.7).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::options::carry;

/// A plain TCP socket, and the names of the options that it could not be given.
#[derive(Debug)]
pub struct Plain {
    /// The socket; not bound, and closed at exec.
    pub socket: OwnedFd,
    /// What it lacks of the other.
    pub lost: Vec<&'static str>,
}

/// Makes a plain TCP socket of the same family, with every option that somebody set on this Multipath TCP
/// socket, as far as the kernel tells it (most since Linux 5.17, IPV6_V6ONLY since 6.14 and its stable
/// predecessors).
///
/// # Errors
/// EMFILE, or whatever else socket(2) says.
pub fn plain(theirs: BorrowedFd<'_>, nonblocking: bool) -> io::Result<Plain> {
    let v6 = super::listen::family(theirs) == Some(libc::AF_INET6);
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = if nonblocking { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
    let ours = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, SockProtocol::Tcp)?;
    let lost = carry(theirs, open(family)?.as_fd(), ours.as_fd());
    Ok(Plain { socket: ours, lost })
}

fn open(family: AddressFamily) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: numbers only. nix knows no such protocol.
    let fd = unsafe { libc::socket(family as i32, kind, libc::IPPROTO_MPTCP) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::super::listen;
    use super::super::options::{OPTIONS, SO_BUF_LOCK, get, setting};
    use super::*;

    /// None where the kernel has no Multipath TCP, or it is switched off.
    fn theirs(family: AddressFamily) -> Option<OwnedFd> {
        let socket = open(family);
        assert!(
            socket.is_ok() || std::env::var("CI").as_deref() != Ok("true"),
            "on CI nothing may be skipped"
        );
        socket.ok()
    }

    fn said(socket: &OwnedFd, name: &str) -> Option<Vec<u8>> {
        get(socket.as_fd(), OPTIONS.iter().find(|option| option.name == name).expect("in the table"))
    }

    #[test]
    fn a_plain_socket_has_what_was_set_and_nothing_else_set() {
        let (Some(theirs), Some(untouched)) = (theirs(AddressFamily::Inet6), theirs(AddressFamily::Inet6))
        else {
            return;
        };
        assert_eq!(listen::kind(theirs.as_fd()), listen::Kind::Multipath);
        let asked = [
            (libc::SOL_SOCKET, libc::SO_REUSEADDR, 1),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, 70_000),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1),
            (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 5),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 77),
        ];
        for (level, number, value) in asked {
            listen::set_option(theirs.as_fd(), level, number, value).expect("Multipath TCP takes it");
        }
        let plain = plain(theirs.as_fd(), true).expect("a socket");
        assert_eq!(listen::kind(plain.socket.as_fd()), listen::Kind::Tcp);
        assert!(plain.lost.is_empty(), "{:?}", plain.lost);
        for option in OPTIONS.iter().filter(|option| !option.name.ends_with("BUF")) {
            if let Some(value) = get(theirs.as_fd(), option) {
                assert_eq!(get(plain.socket.as_fd(), option), Some(value), "{}", option.name);
            }
        }
        assert_eq!(said(&plain.socket, "SO_RCVBUF"), said(&theirs, "SO_RCVBUF"));
        assert_ne!(said(&plain.socket, "SO_RCVBUF"), said(&untouched, "SO_RCVBUF"));
        assert_eq!(locked_buffers(&plain.socket), 2, "only the buffer that was set has a fixed size");
    }

    /// SO_BUF_LOCK: bit 0 for the sender's, bit 1 for the receiver's.
    fn locked_buffers(socket: &OwnedFd) -> i32 {
        let option = setting(libc::SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK");
        let value = get(socket.as_fd(), &option).expect("since Linux 5.14");
        i32::from_ne_bytes(value.try_into().expect("an int"))
    }

    #[test]
    fn what_the_host_refuses_is_named() {
        let (Some(theirs), Some(fresh)) = (theirs(AddressFamily::Inet6), theirs(AddressFamily::Inet6)) else {
            return;
        };
        let v6only = i32::from(!listen::is_v6only(fresh.as_fd()));
        listen::set_option(theirs.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, v6only).expect("it is v6");
        // Bound, so that it is too late for that one.
        let bound = listen::open(std::net::Ipv6Addr::LOCALHOST.into(), 0, v6only == 0, 1).expect("a port");
        assert_eq!(carry(theirs.as_fd(), fresh.as_fd(), bound.as_fd()), ["IPV6_V6ONLY"]);
    }
}
