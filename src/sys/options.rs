//! The options of TCP sockets that servers set (socket(7), ip(7), ipv6(7), tcp(7)): from one socket to another, and back
//! to what they were.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The longest value of [`OPTIONS`]: a name of TCP_CONGESTION, a `struct timeval`.
const VALUE: usize = 16;

/// An option whose value, as the kernel says it, is what is set again.
pub(super) struct Setting {
    level: i32,
    number: i32,
    /// As programs write it.
    pub(super) name: &'static str,
    /// The kernel says twice of what was asked for (SO_SNDBUF in socket(7)).
    doubled: bool,
}

pub(super) const fn setting(level: i32, number: i32, name: &'static str) -> Setting {
    Setting { level, number, name, doubled: false }
}

const fn doubled(number: i32, name: &'static str) -> Setting {
    Setting { level: libc::SOL_SOCKET, number, name, doubled: true }
}

/// What means something for a socket that listens, or for the connections that it passes its options on to, and what
/// Multipath TCP sockets take too (`mptcp_setsockopt` in Linux).
pub(super) const OPTIONS: &[Setting] = &[
    setting(libc::SOL_SOCKET, libc::SO_REUSEADDR, "SO_REUSEADDR"),
    setting(libc::SOL_SOCKET, libc::SO_KEEPALIVE, "SO_KEEPALIVE"),
    setting(libc::SOL_SOCKET, libc::SO_LINGER, "SO_LINGER"),
    setting(libc::SOL_SOCKET, libc::SO_PRIORITY, "SO_PRIORITY"),
    setting(libc::SOL_SOCKET, libc::SO_MARK, "SO_MARK"),
    setting(libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, "SO_BINDTODEVICE"),
    setting(libc::SOL_SOCKET, libc::SO_RCVTIMEO, "SO_RCVTIMEO"),
    setting(libc::SOL_SOCKET, libc::SO_SNDTIMEO, "SO_SNDTIMEO"),
    setting(libc::SOL_SOCKET, libc::SO_RCVLOWAT, "SO_RCVLOWAT"),
    doubled(libc::SO_SNDBUF, "SO_SNDBUF"),
    doubled(libc::SO_RCVBUF, "SO_RCVBUF"),
    setting(libc::IPPROTO_IP, libc::IP_TOS, "IP_TOS"),
    setting(libc::IPPROTO_IP, libc::IP_FREEBIND, "IP_FREEBIND"),
    setting(libc::IPPROTO_IP, libc::IP_TRANSPARENT, "IP_TRANSPARENT"),
    setting(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, "IPV6_V6ONLY"),
    setting(libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, "IPV6_FREEBIND"),
    setting(libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, "IPV6_TRANSPARENT"),
    setting(libc::IPPROTO_TCP, libc::TCP_NODELAY, "TCP_NODELAY"),
    setting(libc::IPPROTO_TCP, libc::TCP_MAXSEG, "TCP_MAXSEG"),
    setting(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT"),
    setting(libc::IPPROTO_TCP, libc::TCP_FASTOPEN, "TCP_FASTOPEN"),
    setting(libc::IPPROTO_TCP, libc::TCP_CONGESTION, "TCP_CONGESTION"),
    setting(libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT"),
    setting(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, "TCP_KEEPIDLE"),
    setting(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, "TCP_KEEPINTVL"),
    setting(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, "TCP_KEEPCNT"),
];

/// Which buffers have a size that somebody set (`SOCK_SNDBUF_LOCK`, `SOCK_RCVBUF_LOCK`; Linux 5.14).
pub(super) const SO_BUF_LOCK: i32 = 72;

/// What `fresh` says too was not set by anybody, and is better left to the kernel: a buffer whose size is set
/// does not grow any more. The names of what `ours` does not take.
pub(super) fn carry(
    theirs: BorrowedFd<'_>,
    fresh: BorrowedFd<'_>,
    ours: BorrowedFd<'_>,
) -> Vec<&'static str> {
    let differs = |option: &&Setting| get(theirs, option) != get(fresh, option);
    let refused =
        |option: &&Setting| get(theirs, option).is_some_and(|value| set(ours, option, &value).is_err());
    OPTIONS.iter().filter(differs).filter(refused).map(|option| option.name).collect()
}

/// What became of the options that somebody set on a socket.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SetBack {
    /// Those that are again as on a new socket.
    pub done: Vec<&'static str>,
    /// Those that the kernel does not let go of.
    pub refused: Vec<&'static str>,
}

/// Sets every option back to what it is on a new socket, which is made and closed for the comparison.
///
/// # Errors
/// EMFILE, or whatever else socket(2) says: nothing was changed.
pub fn set_back(socket: BorrowedFd<'_>) -> io::Result<SetBack> {
    let fresh = super::listen::fresh_like(socket)?;
    let mut back = SetBack::default();
    // Bound, it is past what these two decide; we have set them ourselves.
    let is_ours = |option: &&Setting| matches!(option.name, "IPV6_V6ONLY" | "SO_REUSEADDR");
    for option in OPTIONS.iter().filter(|option| !is_ours(option)) {
        let Some(value) = get(fresh.as_fd(), option) else { continue };
        if get(socket, option).is_none_or(|now| now == value) {
            continue;
        }
        match set(socket, option, &value) {
            Ok(()) => back.done.push(option.name),
            Err(_) => back.refused.push(option.name),
        }
        if option.doubled {
            // Before Linux 5.14 its size stays fixed.
            let _ = super::listen::set_option(socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0);
        }
    }
    Ok(back)
}

/// None where the kernel does not tell it.
pub(super) fn get(socket: BorrowedFd<'_>, option: &Setting) -> Option<Vec<u8>> {
    let mut value = [0_u8; VALUE];
    let mut length = VALUE as libc::socklen_t;
    // SAFETY: the buffer and its length fit each other and outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            option.level,
            option.number,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0).then(|| value[..VALUE.min(length as usize)].to_vec())
}

fn set(socket: BorrowedFd<'_>, option: &Setting, value: &[u8]) -> io::Result<()> {
    if let Some(said) = value.try_into().ok().map(i32::from_ne_bytes).filter(|_| option.doubled) {
        return super::listen::set_option(socket, option.level, option.number, said / 2);
    }
    // SAFETY: the value has the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            option.level,
            option.number,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::listen;
    use super::*;

    #[test]
    fn what_was_set_on_a_socket_that_listens_is_set_back_and_told() {
        for ip in
            [std::net::Ipv4Addr::LOCALHOST.into(), std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]
        {
            let socket = listen::open(ip, 0, false, 7).expect("a port");
            assert_eq!(
                set_back(socket.as_fd()).expect("a socket"),
                SetBack::default(),
                "{ip}: nothing was set"
            );
            let asked = [
                (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
                (libc::SOL_SOCKET, libc::SO_RCVBUF, 70_000),
                (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
                (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 5),
            ];
            for (level, number, value) in asked {
                listen::set_option(socket.as_fd(), level, number, value).expect("TCP takes it");
            }
            let back = set_back(socket.as_fd()).expect("a socket");
            assert_eq!(back.done, ["SO_KEEPALIVE", "SO_RCVBUF", "TCP_NODELAY", "TCP_DEFER_ACCEPT"], "{ip}");
            assert!(back.refused.is_empty(), "{:?}", back.refused);
            let lock = get(socket.as_fd(), &setting(libc::SOL_SOCKET, SO_BUF_LOCK, "SO_BUF_LOCK"));
            assert_eq!(lock.expect("since Linux 5.14"), 0_i32.to_ne_bytes(), "{ip}: buffers grow again");
            assert_eq!(set_back(socket.as_fd()).expect("a socket"), SetBack::default(), "{ip}: all is back");
            assert!(listen::is_listening(socket.as_fd()));
        }
    }
}
