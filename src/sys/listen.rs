//! Listening sockets: made here for declared addresses, or duplicates of a worker's own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, bind,
    getsockname, getsockopt, setsockopt, socket, sockopt,
};

/// Makes a blocking TCP socket that shares its address, and listens.
///
/// # Errors
/// EADDRINUSE when a socket outside the group holds the address, EADDRNOTAVAIL when no interface has
/// it, EACCES below port 1024 without the right, EMFILE.
pub fn open(ip: IpAddr, port: u16, v6only: bool, backlog: i32) -> io::Result<OwnedFd> {
    let address = SocketAddr::new(ip, port);
    let fd = unbound(address, SockFlag::empty())?;
    bind_to(fd.as_fd(), address, v6only)?;
    listen(fd.as_fd(), backlog)?;
    Ok(fd)
}

/// Makes a TCP socket of our own that never waits and has its address for itself, and listens.
///
/// # Errors
/// As [`open`]; EADDRINUSE also when the address is shared by others.
pub fn open_alone(address: SocketAddr, v6only: bool, backlog: i32) -> io::Result<OwnedFd> {
    let fd = of_family(address, SockFlag::SOCK_NONBLOCK)?;
    bind_to(fd.as_fd(), address, v6only)?;
    listen(fd.as_fd(), backlog)?;
    Ok(fd)
}

/// What a worker set on its socket before bind(2), for one in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// IPV6_V6ONLY.
    pub v6only: bool,
    /// O_NONBLOCK.
    pub nonblocking: bool,
    /// The number of the interface that it is bound to (SO_BINDTODEVICE).
    pub interface: Option<i32>,
}

/// Why there is no socket in the place of a worker's.
#[derive(Debug)]
pub enum Unheard {
    /// It could not be bound to the interface: EPERM before Linux 5.7 without CAP_NET_RAW.
    Interface(io::Error),
    /// As [`open`].
    Other(io::Error),
}

/// Makes a TCP socket that shares its address and does not listen yet, in the place of a worker's.
///
/// # Errors
/// Which of its parts failed.
pub fn open_unheard(address: SocketAddr, settings: Settings) -> Result<OwnedFd, Unheard> {
    let flags = if settings.nonblocking { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
    let fd = unbound(address, flags).map_err(Unheard::Other)?;
    if let Some(interface) = settings.interface {
        set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, interface)
            .map_err(Unheard::Interface)?;
    }
    bind_to(fd.as_fd(), address, settings.v6only).map_err(Unheard::Other)?;
    Ok(fd)
}

/// The number of an interface; none where there is none of this name. By SIOCGIFINDEX in netdevice(7): a C library's
/// if_nametoindex(3) hides that it got no socket to ask by.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn interface(name: &[u8]) -> io::Result<Option<i32>> {
    let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
    let asked = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    match rustix::net::netdevice::name_to_index(&asked, name) {
        Ok(index) => Ok(i32::try_from(index).ok()),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn unbound(address: SocketAddr, flags: SockFlag) -> io::Result<OwnedFd> {
    let fd = of_family(address, flags)?;
    share_address(fd.as_fd())?;
    Ok(fd)
}

/// A TCP socket of the same family, on which nobody has set anything yet.
///
/// # Errors
/// EMFILE, or whatever else socket(2) says.
pub(super) fn fresh_like(like: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let v6 = family(like) == Some(libc::AF_INET6);
    let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?)
}

fn of_family(address: SocketAddr, flags: SockFlag) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    Ok(fd)
}

fn bind_to(fd: BorrowedFd<'_>, address: SocketAddr, v6only: bool) -> io::Result<()> {
    match address {
        SocketAddr::V4(address) => bind(fd.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => {
            setsockopt(&fd, sockopt::Ipv6V6Only, &v6only)?;
            bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?;
        }
    }
    Ok(())
}

/// Whether sockets of IPv6 leave IPv4 out when nothing is said (ipv6(7), `bindv6only`).
pub fn is_v6only_by_default() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1")
}

/// The first port that everybody may bind (ip(7), `ip_unprivileged_port_start`, Linux 4.11).
pub fn first_free_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// SO_REUSEPORT: to be set before bind(2).
///
/// # Errors
/// The errno of setsockopt(2).
pub fn share_address(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::ReusePort, &true)?)
}

/// Makes a socket count as ours rather than its maker's: only sockets of one user share an address (SO_REUSEPORT
/// in socket(7)). To be done before bind(2); the maker's rights over its descriptor stay as they are.
///
/// # Errors
/// EPERM without CAP_CHOWN.
pub fn own(socket: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    // fchown(2) of a socket sets the user that the kernel compares (sockfs_setattr in Linux, 4.10).
    std::os::unix::fs::fchown(socket, Some(uid), None)
}

/// listen(2), also on a duplicate of another process's socket: it is the same socket.
///
/// # Errors
/// The errno of listen(2).
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: numbers only. nix's wrapper refuses backlogs that the kernel just caps.
    let result = unsafe { libc::listen(socket.as_raw_fd(), backlog) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What kind of socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// Multipath TCP over IPv4 or IPv6.
    Multipath,
    /// Anything else: datagrams, Unix sockets, netlink.
    Other,
}

/// The kind of a socket; `Other` for what is no socket at all.
pub fn kind(socket: BorrowedFd<'_>) -> Kind {
    let stream = option(socket, libc::SO_TYPE) == Some(libc::SOCK_STREAM);
    let protocol = option(socket, libc::SO_PROTOCOL).filter(|_| stream);
    match (family(socket), protocol) {
        (Some(libc::AF_INET | libc::AF_INET6), Some(libc::IPPROTO_TCP)) => Kind::Tcp,
        (Some(libc::AF_INET | libc::AF_INET6), Some(libc::IPPROTO_MPTCP)) => Kind::Multipath,
        _ => Kind::Other,
    }
}

/// Whether a socket is tied to one interface (SO_BINDTODEVICE, socket(7); read as SO_BINDTOIFINDEX, Linux 5.0).
pub fn is_tied(socket: BorrowedFd<'_>) -> bool {
    option(socket, libc::SO_BINDTOIFINDEX).is_some_and(|index| index != 0)
}

/// AF_INET and its like (SO_DOMAIN); none of what is no socket.
pub(super) fn family(socket: BorrowedFd<'_>) -> Option<i32> {
    option(socket, libc::SO_DOMAIN)
}

fn option(socket: BorrowedFd<'_>, name: i32) -> Option<i32> {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value and its length belong to this frame and fit each other.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length)
    };
    (result == 0).then_some(value)
}

/// Whether the socket listens (SO_ACCEPTCONN).
pub fn is_listening(socket: BorrowedFd<'_>) -> bool {
    option(socket, libc::SO_ACCEPTCONN) == Some(1)
}

/// Whether no packet finds it: see [`hide`].
pub fn is_hidden(socket: BorrowedFd<'_>) -> bool {
    option(socket, libc::SO_BINDTOIFINDEX) == Some(NOWHERE)
}

/// Whether the socket shares its address (SO_REUSEPORT).
pub fn shares_address(socket: BorrowedFd<'_>) -> bool {
    option(socket, libc::SO_REUSEPORT) == Some(1)
}

/// The local address, and for IPv6 whether IPv4 is left out.
///
/// # Errors
/// The errno of getsockname(2); Unsupported when it is no IP address.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<(SocketAddr, bool)> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Ok((SocketAddr::V4(SocketAddrV4::from(*v4)), false));
    }
    if let Some(v6) = address.as_sockaddr_in6() {
        let v6only = getsockopt(&socket, sockopt::Ipv6V6Only)?;
        return Ok((SocketAddr::V6(SocketAddrV6::from(*v6)), v6only));
    }
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// IPV6_V6ONLY of a socket that may be of another family.
pub fn is_v6only(socket: BorrowedFd<'_>) -> bool {
    getsockopt(&socket, sockopt::Ipv6V6Only).unwrap_or(false)
}

/// Reads a `struct sockaddr_in` or `sockaddr_in6` as it lies in memory. `None` for other families and
/// for what is too short.
pub fn decode_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(octets), port).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            // The interface of a link-local address; Linux takes addresses without it (RFC 2133).
            let scope = bytes.get(24..28).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into())
        }
        _ => None,
    }
}

/// Where `tcpi_unacked` stands in `struct tcp_info`: for a listening socket, the length of its accept
/// queue (`tcp_get_info` in Linux).
const TCPI_UNACKED: usize = 24;

/// How many connections wait in a listening socket's accept queue.
///
/// # Errors
/// The errno of getsockopt(2).
pub fn queue_length(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0_u8; 104];
    tcp_info(socket, &mut info)?;
    let field = info[TCPI_UNACKED..TCPI_UNACKED + 4].try_into();
    Ok(field.map(u32::from_ne_bytes).unwrap_or(0))
}

/// Where `tcpi_sacked` stands: for a listening socket, the bound of its accept queue (`tcp_get_info`).
const TCPI_SACKED: usize = 28;

/// Fields of SO_MEMINFO, and which of them counts what was dropped (`SK_MEMINFO_VARS`, `SK_MEMINFO_DROPS`).
const MEMINFO_FIELDS: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// A listening socket's accept queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Connections that wait in it.
    pub depth: u32,
    /// More than this are not let in: the least of the server's backlog and net.core.somaxconn.
    pub limit: u32,
    /// Attempts that the kernel dropped since the socket was made, nearly all because the queue was full.
    /// A client tries again, first after a second, and each try counts.
    pub dropped: u32,
}

/// A listening socket's accept queue; nothing counts as dropped before Linux 4.12.
///
/// # Errors
/// The errno of getsockopt(2).
pub fn queue(socket: BorrowedFd<'_>) -> io::Result<Queue> {
    let mut info = [0_u8; 104];
    tcp_info(socket, &mut info)?;
    let field = |at: usize| info[at..at + 4].try_into().map(u32::from_ne_bytes).unwrap_or(0);
    let mut memory = [0_u32; MEMINFO_FIELDS];
    let mut length = size_of_val(&memory) as libc::socklen_t;
    // SAFETY: the array and its length fit each other and outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            memory.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let dropped = if result == 0 { memory[MEMINFO_DROPS] } else { 0 };
    Ok(Queue { depth: field(TCPI_UNACKED), limit: field(TCPI_SACKED), dropped })
}

/// Fills in as much of `struct tcp_info` as there is room for, and as this kernel knows; how much that is.
pub(super) fn tcp_info(socket: BorrowedFd<'_>, info: &mut [u8]) -> io::Result<usize> {
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the buffer and its length fit each other and outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) }
}

/// Sets an option whose value is an int.
pub(super) fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the value belongs to this frame and has the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes the next connection from the queue without waiting, whatever O_NONBLOCK says: the flag is
/// shared with the worker and stays as it is. `None` when nobody waits.
///
/// # Errors
/// The errno of accept4(2).
pub fn accept(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    use std::os::fd::FromRawFd;
    if queue_length(socket)? == 0 {
        return Ok(None);
    }
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null means that the peer's address is not wanted.
    let fd = unsafe { libc::accept4(socket.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ECONNABORTED | libc::EINTR) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Makes a non-blocking TCP client's socket, bound to a port of the kernel's choice: where it is.
///
/// # Errors
/// EADDRNOTAVAIL when no port is left, EMFILE.
pub fn client(local: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    let (bound, _) = local_address(fd.as_fd())?;
    Ok((fd, bound))
}

/// Begins the connection of such a socket. Its end is told by SO_ERROR.
///
/// # Errors
/// The errno of connect(2), but for EINPROGRESS.
pub fn begin(client: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    match nix::sys::socket::connect(client.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// accept(2) on this socket gives up after a millisecond (SO_RCVTIMEO), for whoever has it open: a queue
/// that was looked at may be empty when it is accepted from. To be used once its own worker is gone.
///
/// # Errors
/// The errno of setsockopt(2).
pub fn never_wait(socket: BorrowedFd<'_>) -> io::Result<()> {
    use nix::sys::time::{TimeVal, TimeValLike};
    Ok(setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(1))?)
}

/// An interface that does not exist, and never will.
const NOWHERE: i32 = i32::MAX;

/// No packet finds the socket any more: it is bound to an interface that does not exist. Handshakes that
/// were begun towards it end as they would have, its queue stays, and so does its place in the kernel's
/// array. Whoever begins a handshake is refused, as if nobody listened.
///
/// A socket that begins to listen on the same address does not join the group of a hidden one, which is
/// bound elsewhere (`inet_reuseport_add_sock`): with nobody else in it the new one begins a group.
///
/// To be done a moment before [`end`], too: while the kernel takes a socket out of its group, a lookup on
/// another CPU that comes across it finds no group, and gives it the connection that is then reset
/// (`inet_lhash2_lookup` and `reuseport_detach_sock` in Linux). Needs no privilege since Linux 5.7.
///
/// One that is hidden stays so: without CAP_NET_RAW the kernel lets nobody bind it a second time, not even to
/// the same (`sock_bindtoindex_locked`).
///
/// # Errors
/// The errno of setsockopt(2): ENOPROTOOPT before Linux 5.1; EPERM where the server bound it to an
/// interface.
pub fn hide(socket: BorrowedFd<'_>) -> io::Result<()> {
    if is_hidden(socket) {
        return Ok(());
    }
    set_option(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, NOWHERE)
}

/// Ends listening at once, whoever else has the socket open: a process of ours between clone and exec
/// does, for a moment. It leaves the kernel's array now, and whoever waited in its queue is reset
/// (`inet_shutdown` in Linux disconnects a listening socket).
///
/// # Errors
/// ENOTCONN when it does not listen any more.
pub fn end(socket: BorrowedFd<'_>) -> io::Result<()> {
    use nix::sys::socket::{Shutdown, shutdown};
    Ok(shutdown(socket.as_raw_fd(), Shutdown::Both)?)
}

/// The inode of a socket, as /proc/PID/fd and sock_diag name it.
///
/// # Errors
/// The errno of fstat(2).
pub fn inode(socket: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(socket)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_share_an_address_and_both_queue() {
        let first = open("127.0.0.1".parse().expect("an address"), 0, false, 8).expect("a free port");
        let (address, _) = local_address(first.as_fd()).expect("bound");
        let second = open(address.ip(), address.port(), false, 8).expect("shared");
        super::super::steer::steer(first.as_fd(), &super::super::steer::Program::evenly(&[1]))
            .expect("a group");
        let _client = std::net::TcpStream::connect(address).expect("queued");
        assert_eq!(queue_length(first.as_fd()).expect("tcp"), 0);
        assert_eq!(queue_length(second.as_fd()).expect("tcp"), 1);
        assert!(accept(second.as_fd()).expect("one waits").is_some());
        assert!(accept(second.as_fd()).expect("none waits").is_none());
    }

    #[test]
    fn an_ended_socket_leaves_its_group_although_it_is_open_elsewhere() {
        let first = open("127.0.0.1".parse().expect("an address"), 0, false, 8).expect("a free port");
        let (address, _) = local_address(first.as_fd()).expect("bound");
        let others: Vec<OwnedFd> =
            (0..2).map(|_| open(address.ip(), address.port(), false, 8).expect("shared")).collect();
        let _still_open = first.try_clone().expect("a duplicate");
        end(first.as_fd()).expect("it listened");
        drop(first);
        // The last one has moved into the first place.
        super::super::steer::steer(others[0].as_fd(), &super::super::steer::Program::evenly(&[0]))
            .expect("a group");
        let _client = std::net::TcpStream::connect(address).expect("queued");
        assert_eq!(queue_length(others[1].as_fd()).expect("tcp"), 1);
    }

    #[test]
    fn a_queue_that_overflows_counts_what_it_drops() {
        let socket = open("127.0.0.1".parse().expect("an address"), 0, false, 2).expect("a free port");
        let (address, _) = local_address(socket.as_fd()).expect("bound");
        // One more than the backlog is let in (`sk_acceptq_is_full`).
        let _clients = [(); 3].map(|()| std::net::TcpStream::connect(address).expect("queued"));
        assert_eq!(queue(socket.as_fd()).expect("tcp"), Queue { depth: 3, limit: 2, dropped: 0 });
        let late = std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(50));
        late.expect_err("nobody lets it in");
        let queue = queue(socket.as_fd()).expect("tcp");
        assert!(queue.depth == 3 && queue.dropped >= 1, "{queue:?}");
    }

    #[test]
    fn a_hidden_socket_keeps_its_queue_and_gets_nothing_new() {
        let socket = open("127.0.0.1".parse().expect("an address"), 0, false, 8).expect("a free port");
        let (address, _) = local_address(socket.as_fd()).expect("bound");
        let _before = std::net::TcpStream::connect(address).expect("queued");
        hide(socket.as_fd()).expect("no privilege is needed");
        let after = std::net::TcpStream::connect(address).expect_err("refused");
        assert_eq!(after.kind(), io::ErrorKind::ConnectionRefused);
        assert!(accept(socket.as_fd()).expect("one waits").is_some());
    }

    #[test]
    fn a_hidden_socket_takes_nobody_into_its_group() {
        let socket = |port| open("127.0.0.1".parse().expect("an address"), port, false, 8).expect("shared");
        let hidden = socket(0);
        let (address, _) = local_address(hidden.as_fd()).expect("bound");
        hide(hidden.as_fd()).expect("no privilege is needed");
        // The second joins nobody, the third joins the second: they are the places 0 and 1.
        let (second, third) = (socket(address.port()), socket(address.port()));
        super::super::steer::steer(second.as_fd(), &super::super::steer::Program::evenly(&[1]))
            .expect("a group");
        let _clients = [(); 4].map(|()| std::net::TcpStream::connect(address).expect("queued"));
        assert_eq!(queue_length(third.as_fd()).expect("tcp"), 4);
    }

    #[test]
    fn short_and_foreign_addresses_are_not_decoded() {
        assert_eq!(decode_address(&[]), None);
        assert_eq!(decode_address(&[2, 0, 0]), None);
        assert_eq!(decode_address(&[1, 0, b'/', b'x', 0, 0, 0, 0]), None);
        let v4 = [2, 0, 0x0b, 0xb8, 127, 0, 0, 1];
        assert_eq!(decode_address(&v4), Some("127.0.0.1:3000".parse().expect("an address")));
        let mut v6 = [0_u8; 28];
        v6[..4].copy_from_slice(&[10, 0, 0x0b, 0xb8]);
        (v6[8], v6[9], v6[23], v6[24]) = (0xfe, 0x80, 1, 7);
        assert_eq!(decode_address(&v6), Some("[fe80::1%7]:3000".parse().expect("an address")));
        assert_eq!(decode_address(&v6[..24]), Some("[fe80::1]:3000".parse().expect("an address")));
    }
}
