//! Word of the kernel that addresses of this host came or went (rtnetlink(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR (linux/rtnetlink.h).
const GROUPS: u32 = 0x10 | 0x100;

/// A non-blocking socket that becomes readable when one does. No privilege is needed.
///
/// # Errors
/// The errno of socket(2) or bind(2): EPERM and the like under a seccomp profile.
pub fn listen() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    Ok(fd)
}

/// Takes what was said; whether anything was. What was lost of it (ENOBUFS) counts as said.
pub fn heard(socket: BorrowedFd<'_>) -> bool {
    let mut buffer = [0_u8; 8192];
    let mut any = false;
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(1..) | Err(nix::Error::ENOBUFS) => any = true,
            Err(nix::Error::EINTR) => {}
            Ok(0) | Err(_) => return any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn nothing_is_heard_before_anything_was_said() {
        let socket = listen().expect("netlink");
        // Other tests may change addresses: what they said is taken.
        while heard(socket.as_fd()) {}
        assert!(!heard(socket.as_fd()));
    }
}
