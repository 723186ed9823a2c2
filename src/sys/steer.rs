//! The classic BPF program of a SO_REUSEPORT group: which of its listening sockets gets a new connection.
//! No privilege is needed (socket(7)).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// SKF_AD_OFF + SKF_AD_RANDOM: a random number for this packet (Linux 3.14).
const RANDOM: u32 = 0xffff_f000 + 56;

fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// The program that spreads new connections evenly over these positions of the kernel's array.
///
/// `active` is in rising order and not empty. A position that is not there (any more) makes the kernel
/// fall back to its own hash over the whole group (`reuseport_select_sock`).
fn program(active: &[u32]) -> Vec<libc::sock_filter> {
    let random = step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, RANDOM);
    let modulo = step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, active.len() as u32);
    let mut program = vec![random, modulo];
    let first = active[0];
    if active.iter().enumerate().all(|(i, a)| *a == first + i as u32) {
        program.push(step(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 0, 0, first));
        program.push(step(libc::BPF_RET | libc::BPF_A, 0, 0, 0));
        return program;
    }
    for (i, position) in active.iter().enumerate() {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, i as u32));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, *position));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, first));
    program
}

/// New connections of the socket's group go to these positions only, evenly.
///
/// # Errors
/// The errno of setsockopt(2): EINVAL when the socket is in no group, ENOMEM.
pub fn steer(socket: BorrowedFd<'_>, active: &[u32]) -> io::Result<()> {
    attach(socket, &program(active))
}

/// As [`steer`], but connections of each of these clients go to its position: for the supervisor's own.
///
/// # Errors
/// As [`steer`].
pub fn steer_but(socket: BorrowedFd<'_>, active: &[u32], led: &[(SocketAddr, u32)]) -> io::Result<()> {
    let exceptions = led.iter().flat_map(|(client, position)| exception(*client, *position));
    let program: Vec<libc::sock_filter> = exceptions.chain(program(active)).collect();
    attach(socket, &program)
}

/// SKF_NET_OFF: from here on the packet is read from its IP header on.
const IP_HEADER: u32 = 0xfff0_0000;

/// Leads connections from one client to one position, and falls through for all others. Of an address of
/// IPv6 the last word is compared. The IP header has no options in what the host sends to itself, so the
/// port stands behind 20 or 40 bytes of it.
fn exception(client: SocketAddr, position: u32) -> Vec<libc::sock_filter> {
    let load = |width, at| step(libc::BPF_LD | width | libc::BPF_ABS, 0, 0, IP_HEADER + at);
    let unless = |value, skipped| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skipped, value);
    let (version, source, port, word) = match client.ip() {
        IpAddr::V4(ip) => (4, 12, 20, u32::from(ip)),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            (6, 20, 40, u32::from_be_bytes([a, b, c, d]))
        }
    };
    vec![
        load(libc::BPF_B, 0),
        step(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 0, 0, 4),
        unless(version, 5),
        load(libc::BPF_W, source),
        unless(word, 3),
        load(libc::BPF_H, port),
        unless(u32::from(client.port()), 1),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, position),
    ]
}

fn attach(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let header = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the header and the program outlive the call; the kernel copies and checks both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const header).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_positions_needs_no_table() {
        assert_eq!(program(&[2, 3, 4]).len(), 4);
        assert_eq!(program(&[2, 3, 4])[2].k, 2);
    }

    #[test]
    fn one_client_is_led_to_a_position_of_its_own_in_both_families() {
        use super::super::listen;
        use std::os::fd::AsFd;
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().expect("an address");
            let Ok(first) = listen::open(ip, 0, false, 8) else { continue };
            let (address, _) = listen::local_address(first.as_fd()).expect("bound");
            let second = listen::open(ip, address.port(), false, 8).expect("shared");
            let (client, own) = listen::client(SocketAddr::new(ip, 0)).expect("a port");
            let (other, others) = listen::client(SocketAddr::new(ip, 0)).expect("a port");
            steer_but(first.as_fd(), &[0], &[(others, 1), (own, 1)]).expect("a group");
            let _others: Vec<_> =
                (0..4).map(|_| std::net::TcpStream::connect(address).expect("queued")).collect();
            let limit = std::time::Duration::from_secs(5);
            for client in [client.as_fd(), other.as_fd()] {
                listen::begin(client, address).expect("begun");
                super::super::output::wait_for_room(&[client.as_raw_fd()], limit).expect("poll");
            }
            let queued = |socket: &std::os::fd::OwnedFd| listen::queue_length(socket.as_fd()).expect("tcp");
            assert_eq!((queued(&first), queued(&second)), (4, 2), "{ip}");
        }
    }

    #[test]
    fn a_gap_is_stepped_over() {
        let program = program(&[0, 2]);
        let answers: Vec<u32> = program
            .iter()
            .filter(|s| u32::from(s.code) == libc::BPF_RET | libc::BPF_K)
            .map(|s| s.k)
            .collect();
        assert_eq!(answers, [0, 2, 0]);
    }
}
