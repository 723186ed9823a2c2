//! The host's TCP sockets of one local port, by sock_diag(7): one dump gives every connection's state,
//! its unread and unsent bytes and when data last moved, without touching the processes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Message types and flags of rtnetlink(7) and sock_diag(7).
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKV6ONLY: u16 = 11;

/// Sizes of `nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`.
pub(super) const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

/// TCP states by number (`enum` in Linux' tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Data flows both ways.
    Established,
    /// A handshake was begun.
    SynReceived,
    /// The peer has closed its side.
    CloseWait,
    /// A listening socket.
    Listen,
    /// On its way out, without anything to wait for.
    Closing,
}

impl State {
    fn from_number(number: u8) -> State {
        match number {
            1 => State::Established,
            3 | 12 => State::SynReceived,
            8 => State::CloseWait,
            10 => State::Listen,
            _ => State::Closing,
        }
    }
}

/// Which states a dump is limited to, as a mask of `1 << number`.
pub const CONNECTIONS: u32 = (1 << 1) | (1 << 3) | (1 << 8) | (1 << 12);
/// Listening sockets only.
pub const LISTENERS: u32 = 1 << 10;

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Names this socket for good on this host.
    pub cookie: u64,
    /// Its inode; 0 while no process has accepted it, or after all have closed it.
    pub inode: u64,
    /// Who made it.
    pub uid: u32,
    /// Its state.
    pub state: State,
    /// Local address.
    pub local: SocketAddr,
    /// IPV6_V6ONLY, which the kernel tells of listeners only.
    pub v6only: bool,
    /// The other end.
    pub remote: SocketAddr,
    /// The network interface that it is bound to; 0 for none.
    pub interface: u32,
    /// What has moved on it. For a listener, `unread` is how many connections wait.
    pub moved: Moved,
}

impl Connection {
    /// Whether the other end is this address, in whichever form the family has it.
    pub fn is_from(&self, client: SocketAddr) -> bool {
        let same = |ip: IpAddr| ip.to_canonical();
        self.remote.port() == client.port() && same(self.remote.ip()) == same(client.ip())
    }
}

/// A netlink socket to ask.
#[derive(Debug)]
pub struct Diagnostics {
    pub(super) socket: OwnedFd,
    pub(super) buffer: Vec<u8>,
    /// Of the last question. Answers of an earlier one, which was broken off, may still be in the queue.
    pub(super) sequence: u32,
}

impl Diagnostics {
    /// Opens the netlink socket. No privilege is needed.
    ///
    /// # Errors
    /// EPROTONOSUPPORT where the kernel has no sock_diag; EPERM and the like under a seccomp profile.
    pub fn open() -> io::Result<Diagnostics> {
        Ok(Diagnostics { socket: open_socket()?, buffer: vec![0; 32 * 1024], sequence: 0 })
    }

    /// The TCP sockets with this local port, of both families, in the states of the mask.
    ///
    /// # Errors
    /// The errno of the kernel's answer, or of send(2) and recv(2).
    pub fn dump(&mut self, port: u16, states: u32) -> io::Result<Vec<Connection>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            if let Err(error) = self.dump_family(family as u8, port, states, &mut found) {
                // A dump that is not read to its end keeps the next one off its socket (EBUSY).
                self.socket = open_socket()?;
                return Err(error);
            }
        }
        Ok(found)
    }

    /// How a connection is now, by its addresses: the kernel looks at one place of its table, where a dump goes
    /// through all of it. None when it has ended for good.
    ///
    /// # Errors
    /// As [`Self::dump`].
    pub fn find(&mut self, known: &Connection) -> io::Result<Option<Connection>> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = single_request(known, self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut found = None;
        loop {
            let length = self.receive()?;
            match messages(&self.buffer[..length], self.sequence, |body| found = connection(body)) {
                // Another connection between the same two ends is not this one.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
                Ok(_) if found.is_some() => return Ok(found.filter(|found| found.cookie == known.cookie)),
                // The end of an earlier dump.
                Ok(_) => {}
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(length),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn dump_family(
        &mut self,
        family: u8,
        port: u16,
        states: u32,
        found: &mut Vec<Connection>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(family, port, states, self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        loop {
            let length = self.receive()?;
            if parse(&self.buffer[..length], self.sequence, port, found)? {
                return Ok(());
            }
        }
    }
}

pub(super) fn open_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?)
}

fn request(family: u8, port: u16, states: u32, sequence: u32) -> Vec<u8> {
    let mut bytes = request_head(NLM_F_REQUEST | NLM_F_DUMP, family, states, sequence);
    bytes.extend(port.to_be_bytes()); // the only part of the id that a dump is filtered by
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// For one connection, by `struct inet_diag_sockid`: ports, addresses, interface, cookie.
fn single_request(known: &Connection, sequence: u32) -> Vec<u8> {
    let family = if known.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut bytes = request_head(NLM_F_REQUEST, family as u8, CONNECTIONS, sequence);
    bytes.extend(known.local.port().to_be_bytes());
    bytes.extend(known.remote.port().to_be_bytes());
    for end in [known.local, known.remote] {
        let mut octets = [0; 16];
        match end.ip() {
            IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => octets = ip.octets(),
        }
        bytes.extend(octets);
    }
    bytes.extend(known.interface.to_ne_bytes());
    bytes.extend((known.cookie as u32).to_ne_bytes());
    bytes.extend(((known.cookie >> 32) as u32).to_ne_bytes());
    bytes
}

/// The head of a message, and of `struct inet_diag_req_v2` what comes before the id.
fn request_head(flags: u16, family: u8, states: u32, sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // to the kernel
    bytes.extend([family, libc::IPPROTO_TCP as u8, 1 << (INET_DIAG_INFO - 1), 0]);
    bytes.extend(states.to_ne_bytes());
    bytes
}

/// Reads one buffer of messages; true when the dump is at its end.
fn parse(bytes: &[u8], sequence: u32, port: u16, found: &mut Vec<Connection>) -> io::Result<bool> {
    messages(bytes, sequence, |body| found.extend(connection(body).filter(|c| c.local.port() == port)))
}

/// Hands each message of one buffer on; true when the dump of this sequence number is at its end. Whatever has
/// another number is the late answer to an earlier question.
pub(super) fn messages(mut bytes: &[u8], sequence: u32, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
    while bytes.len() >= HEADER {
        let length = u32_at(bytes, 0) as usize;
        if length < HEADER || length > bytes.len() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let body = &bytes[HEADER..length];
        match kind {
            _ if u32_at(bytes, 8) != sequence => {}
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = if body.len() >= 4 { u32_at(body, 0) as i32 } else { -libc::EIO };
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            SOCK_DIAG_BY_FAMILY => take(body),
            _ => {}
        }
        bytes = &bytes[align(length).min(bytes.len())..];
    }
    Ok(false)
}

fn connection(body: &[u8]) -> Option<Connection> {
    if body.len() < MESSAGE {
        return None;
    }
    let family = i32::from(body[0]);
    let address = |at: usize, port: usize| {
        let ip = if family == libc::AF_INET {
            IpAddr::V4(Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]))
        } else {
            let octets: [u8; 16] = body[at..at + 16].try_into().ok()?;
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes([body[port], body[port + 1]])))
    };
    let attributes = &body[MESSAGE..];
    let info = attribute(attributes, INET_DIAG_INFO).unwrap_or(&[]);
    let moved = Moved { unread: u32_at(body, 56), unacknowledged: u32_at(body, 60), ..Moved::read(info) };
    Some(Connection {
        cookie: u64::from(u32_at(body, 44)) | (u64::from(u32_at(body, 48)) << 32),
        inode: u64::from(u32_at(body, 68)),
        uid: u32_at(body, 64),
        state: State::from_number(body[1]),
        local: address(8, 4)?,
        v6only: attribute(attributes, INET_DIAG_SKV6ONLY) == Some(&[1]),
        remote: address(24, 6)?,
        interface: u32_at(body, 40),
        moved,
    })
}

/// What has moved on a connection, as `struct tcp_info` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that the process has not read.
    pub unread: u32,
    /// Bytes or segments that the other end has not acknowledged: 0 for none.
    pub unacknowledged: u32,
    /// Of these, bytes that were not sent yet.
    pub untransmitted: u32,
    /// Bytes received so far.
    pub bytes_received: u64,
    /// Bytes sent so far, each once.
    pub bytes_sent: u64,
    /// Segments with data sent so far.
    pub segments_out: u32,
    /// Segments with data received so far.
    pub segments_in: u32,
    /// How long ago the other end last acknowledged something, by a segment with data or without.
    pub last_acknowledged: Duration,
    /// How long ago data was last received; milliseconds are the kernel's grain at best.
    pub last_received: Duration,
    /// How long ago data was last sent.
    pub last_sent: Duration,
}

/// sizeof(struct tcp_info) up to and including tcpi_bytes_retrans.
const TCP_INFO: usize = 216;

impl Moved {
    /// Offsets in `struct tcp_info`, which only ever grows at its end.
    fn read(info: &[u8]) -> Moved {
        let milliseconds = |at| Duration::from_millis(u64::from(u32_or_zero(info, at)));
        Moved {
            unread: 0,
            unacknowledged: u32_or_zero(info, 24),
            last_sent: milliseconds(44),
            last_received: milliseconds(52),
            bytes_received: u64_or_zero(info, 128),
            untransmitted: u32_or_zero(info, 144),
            segments_out: u32_or_zero(info, 156),
            segments_in: u32_or_zero(info, 152),
            last_acknowledged: milliseconds(56),
            // tcpi_bytes_sent counts what was sent again too; both are there since Linux 4.19. Acknowledged
            // bytes are since 4.1.
            bytes_sent: if info.len() >= TCP_INFO {
                u64_or_zero(info, 200).saturating_sub(u64_or_zero(info, 208))
            } else {
                u64_or_zero(info, 120)
            },
        }
    }

    /// Asks a connection itself, through a duplicate.
    ///
    /// # Errors
    /// The errno of getsockopt(2) or ioctl(2).
    pub fn of(connection: &OwnedFd) -> io::Result<Moved> {
        let mut info = [0_u8; TCP_INFO];
        let length = super::listen::tcp_info(connection.as_fd(), &mut info)?;
        let mut unread = 0_i32;
        // SAFETY: FIONREAD takes a pointer to an int.
        if unsafe { libc::ioctl(connection.as_raw_fd(), libc::FIONREAD, &raw mut unread) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let moved = Moved::read(info.get(..length).unwrap_or(&info));
        Ok(Moved { unread: unread.max(0) as u32, ..moved })
    }
}

/// The payload of a route attribute (`struct rtattr`).
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
        if length < 4 || length > bytes.len() {
            return None;
        }
        if kind == wanted {
            return Some(&bytes[4..length]);
        }
        bytes = &bytes[align(length).min(bytes.len())..];
    }
    None
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u32_or_zero(bytes: &[u8], at: usize) -> u32 {
    if bytes.len() >= at + 4 { u32_at(bytes, at) } else { 0 }
}

fn u64_or_zero(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// Ends a connection from outside the process that has it: both ends read the end of file, and what
/// was sent is still delivered (shutdown(2) on a duplicate acts on the socket itself).
///
/// # Errors
/// The errno of shutdown(2): ENOTCONN when it has ended already.
pub fn end(connection: &OwnedFd) -> io::Result<()> {
    Ok(nix::sys::socket::shutdown(connection.as_raw_fd(), nix::sys::socket::Shutdown::Both)?)
}

/// The socket hears nothing of its peer any more, or hears it again; what it sends still goes out. The
/// peer repeats what was not heard.
///
/// By a least number of hops that a packet must have left: they begin with 64 or 128, seldom with 255
/// (IP_MINTTL in ip(7), IPV6_MINHOPCOUNT). Needs no privilege.
///
/// # Errors
/// The errno of setsockopt(2).
pub fn deafen(connection: &OwnedFd, deaf: bool) -> io::Result<()> {
    let least = if deaf { 255 } else { 0 };
    let v4 = super::listen::set_option(connection.as_fd(), libc::IPPROTO_IP, libc::IP_MINTTL, least);
    let v6 = super::listen::set_option(connection.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, least);
    // A socket of IPv6 serves IPv4 too, unless it was told not to.
    v4.or(v6)
}

/// As much as a reader that waits for its descriptor is kept from, in bytes: below the least buffer.
const KEPT: libc::c_int = 32 * 1024;

/// Keeps what the peer says next in the kernel, where [`peek`] finds it, or lets the reader have it. Nothing
/// is lost or delayed on the way: it is acknowledged as ever, and the reader is woken when it is let go.
///
/// By the least number of bytes that makes a socket readable for poll(2) and epoll(7) (SO_RCVLOWAT in
/// socket(7); poll heeds it since Linux 2.6.28). Only for readers that wait so: a recv(2) that blocks meanwhile
/// would go on waiting for that many bytes.
///
/// # Errors
/// `InvalidInput` for a socket that blocks; else the errno of fcntl(2) or setsockopt(2).
pub fn keep(connection: &OwnedFd, keep: bool) -> io::Result<()> {
    if keep && !nonblocking(connection)? {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let least = if keep { KEPT } else { 1 };
    super::listen::set_option(connection.as_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, least)
}

fn nonblocking(connection: &OwnedFd) -> io::Result<bool> {
    let flags = nix::fcntl::fcntl(connection, nix::fcntl::FcntlArg::F_GETFL)?;
    Ok(flags & libc::O_NONBLOCK != 0)
}

/// The first of what the owner has not read yet, at most `buffer`; the owner will read it all the same.
///
/// # Errors
/// The errno of recv(2).
pub fn peek<'a>(connection: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let count = recv(connection.as_raw_fd(), buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
    Ok(&buffer[..count])
}

/// Any answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) -> String {
    let sequence = if bytes.len() >= HEADER { u32_at(bytes, 8) } else { 0 };
    let mut found = Vec::new();
    let ended = parse(bytes, sequence, 8080, &mut found);
    assert!(found.iter().all(|connection| connection.local.port() == 8080));
    format!("{:?}{}", ended.map_err(|error| error.kind()), "c".repeat(found.len().min(3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_dump_shows_what_waits_and_what_was_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).expect("queued");
        client.write_all(b"hello").expect("buffered");
        let mut diagnostics = Diagnostics::open().expect("sock_diag");
        let waiting = diagnostics.dump(address.port(), CONNECTIONS).expect("a dump");
        assert_eq!(waiting.len(), 1, "{waiting:?}");
        assert_eq!((waiting[0].inode, waiting[0].moved.unread), (0, 5));
        let (server, peer) = listener.accept().expect("one waits");
        let accepted = diagnostics.dump(address.port(), CONNECTIONS).expect("a dump");
        let inode = super::super::listen::inode(server.as_fd()).expect("a socket");
        assert_eq!((accepted[0].inode, accepted[0].remote), (inode, peer));
        let moved = accepted[0].moved;
        assert_eq!((moved.bytes_received, moved.segments_out, moved.segments_in), (5, 0, 1));
        let listening = diagnostics.dump(address.port(), LISTENERS).expect("a dump");
        assert_eq!(listening.len(), 1);
    }

    #[test]
    fn one_connection_is_found_by_its_addresses_as_long_as_it_is_open() {
        for host in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(host).expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            // To a socket of IPv6 by IPv4, too.
            let target = if host == "[::1]:0" { "::1" } else { "127.0.0.1" };
            let mut client = TcpStream::connect((target, port)).expect("queued");
            let (server, _) = listener.accept().expect("one waits");
            let mut diagnostics = Diagnostics::open().expect("sock_diag");
            let all = diagnostics.dump(port, CONNECTIONS).expect("a dump");
            let [known] = all.as_slice() else { panic!("{host}: {all:?}") };
            client.write_all(b"hello").expect("buffered");
            let found = diagnostics.find(known).expect("an answer").expect("it is open");
            assert_eq!(
                (found.inode, found.remote, found.moved.unread),
                (known.inode, known.remote, 5),
                "{host}"
            );
            let other = Connection { cookie: known.cookie + 1, ..known.clone() };
            assert_eq!(diagnostics.find(&other).expect("an answer"), None, "{host}: another one");
            drop((server, client));
            let gone = diagnostics.find(known).expect("an answer");
            assert!(gone.is_none_or(|gone| gone.state == State::Closing), "{host}");
            assert_eq!(diagnostics.dump(port, CONNECTIONS).expect("a dump after that"), [], "{host}");
        }
    }

    #[test]
    fn a_deaf_connection_sends_and_does_not_hear() {
        use std::io::Read;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("queued");
        let (server, _) = listener.accept().expect("one waits");
        let mut writer = server.try_clone().expect("a duplicate");
        let server = OwnedFd::from(server);
        deafen(&server, true).expect("no privilege is needed");
        writer.write_all(b"answer").expect("buffered");
        let mut answer = [0; 6];
        client.read_exact(&mut answer).expect("it was sent");
        client.write_all(b"again").expect("buffered");
        assert_eq!(Moved::of(&server).expect("tcp").bytes_received, 0);
        deafen(&server, false).expect("as before");
        let mut again = [0; 5];
        writer.read_exact(&mut again).expect("the client repeats it");
    }

    #[test]
    fn words_that_are_kept_are_seen_before_their_reader_hears_of_them() {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("queued");
        let (server, _) = listener.accept().expect("one waits");
        let blocks = OwnedFd::from(server.try_clone().expect("a duplicate"));
        assert_eq!(keep(&blocks, true).expect_err("it blocks").kind(), io::ErrorKind::InvalidInput);
        server.set_nonblocking(true).expect("a socket");
        let server = OwnedFd::from(server);
        let readable = |limit: u16| {
            let mut sockets = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
            poll(&mut sockets, PollTimeout::from(limit)).expect("a socket") == 1
        };
        keep(&server, true).expect("no privilege is needed");
        client.write_all(b"GET / HTTP/1.1").expect("buffered");
        while Moved::of(&server).expect("tcp").bytes_received == 0 {}
        assert!(!readable(0), "its reader was woken");
        assert_eq!(peek(&server, &mut [0; 3]).expect("it came"), b"GET");
        keep(&server, false).expect("as before");
        assert!(readable(5000), "nobody woke its reader");
        keep(&server, true).expect("no privilege is needed");
        drop(client);
        assert!(readable(5000), "the end is for its reader at once");
    }

    #[test]
    fn a_listener_of_ipv6_says_whether_it_leaves_ipv4_out() {
        for v6only in [true, false] {
            let ip = Ipv6Addr::UNSPECIFIED.into();
            let socket = super::super::listen::open(ip, 0, v6only, 1).expect("a free port");
            let (address, _) = super::super::listen::local_address(socket.as_fd()).expect("bound");
            let mut diagnostics = Diagnostics::open().expect("sock_diag");
            let found = diagnostics.dump(address.port(), LISTENERS).expect("a dump");
            assert_eq!(found.iter().map(|l| l.v6only).collect::<Vec<_>>(), [v6only]);
        }
    }

    /// Asks, and reads no answer, or only the first part of it.
    fn break_off(diagnostics: &mut Diagnostics, port: u16, parts: usize) {
        diagnostics.sequence += 1;
        let request = request(libc::AF_INET as u8, port, LISTENERS, diagnostics.sequence);
        send(diagnostics.socket.as_raw_fd(), &request, MsgFlags::empty()).expect("asked");
        for _ in 0..parts {
            recv(diagnostics.socket.as_raw_fd(), &mut diagnostics.buffer, MsgFlags::empty()).expect("a part");
        }
    }

    #[test]
    fn the_late_answer_to_a_question_that_was_broken_off_is_skipped() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let mut diagnostics = Diagnostics::open().expect("sock_diag");
        // The second leaves its whole answer behind, after the end of the first.
        break_off(&mut diagnostics, port, 1);
        break_off(&mut diagnostics, port, 1);
        assert_eq!(diagnostics.dump(port, LISTENERS).expect("a dump").len(), 1);
    }

    #[test]
    fn a_question_that_was_broken_off_costs_one_more_at_most() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = first.local_addr().expect("bound");
        super::super::listen::share_address(first.as_fd()).expect("a socket");
        let open = || super::super::listen::open(address.ip(), address.port(), false, 1);
        // Many parts.
        let _others: Vec<OwnedFd> = (1..400).map(|_| open().expect("shared")).collect();
        let mut diagnostics = Diagnostics::open().expect("sock_diag");
        break_off(&mut diagnostics, address.port(), 1);
        let mut dump = || diagnostics.dump(address.port(), LISTENERS);
        assert_eq!(dump().or_else(|_| dump()).expect("a dump").len(), 400);
    }

    #[test]
    fn torn_messages_are_errors_and_no_panic() {
        let mut found = Vec::new();
        assert!(parse(&[200, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 1, &mut found).is_err());
        assert!(parse(&[1, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0, 1, &mut found).is_err());
        assert!(matches!(parse(&[], 0, 1, &mut found), Ok(false)));
        assert_eq!(connection(&[0; 71]), None);
        assert_eq!(attribute(&[3, 0, 2, 0], 2), None);
    }
}
