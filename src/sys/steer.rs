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

fn calculate(operation: u32, k: u32) -> libc::sock_filter {
    step(libc::BPF_ALU | operation | libc::BPF_K, 0, 0, k)
}

fn answer(position: u32) -> libc::sock_filter {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, position)
}

/// A program that picks a position of the kernel's array. One that is not there (any more) makes the kernel
/// fall back to its own hash over the whole group (`reuseport_select_sock`).
#[derive(Clone)]
pub struct Program(Vec<libc::sock_filter>);

impl Program {
    /// By lot, evenly over these positions: in rising order, not empty.
    pub fn evenly(positions: &[u32]) -> Program {
        let random = step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, RANDOM);
        let mut program = vec![random, calculate(libc::BPF_MOD, positions.len() as u32)];
        let mut begin = 0;
        while begin < positions.len() {
            let run = (begin..positions.len())
                .take_while(|i| positions[*i] - positions[begin] == (i - begin) as u32);
            let end = begin + run.count();
            if end < positions.len() {
                program.push(step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 2, 0, end as u32));
            }
            // The lots before this run are as many as `begin`; a position is never below its lot.
            program.push(calculate(libc::BPF_ADD, positions[begin] - begin as u32));
            program.push(step(libc::BPF_RET | libc::BPF_A, 0, 0, 0));
            begin = end;
        }
        Program(program)
    }

    /// By lot: so many of a hundred evenly over some positions, the others evenly over the rest.
    pub fn share(percent: u8, new: &[u32], old: &[u32]) -> Program {
        let (new, old) = (Program::evenly(new).0, Program::evenly(old).0);
        let random = step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, RANDOM);
        let mut program = vec![random, calculate(libc::BPF_MOD, 100)];
        program.push(step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, u32::from(percent)));
        // A conditional jump reaches no further than 255 steps, this one does.
        program.push(step(libc::BPF_JMP | libc::BPF_JA, 0, 0, new.len() as u32));
        program.extend(new);
        program.extend(old);
        Program(program)
    }

    /// By the client's address: the position of each seat. Their number is a power of two.
    pub fn by_client(seats: &[u32]) -> Program {
        let mut program = hash_of_client();
        program.push(calculate(libc::BPF_AND, seats.len() as u32 - 1));
        let runs = runs(seats);
        for block in runs.chunks(BLOCK) {
            let (end, _) = block[block.len() - 1];
            program.push(step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 2 * block.len() as u8, 0, end));
            for (end, position) in block {
                program.push(step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, 0, *end));
                program.push(answer(*position));
            }
        }
        // No seat lies behind the last run, but the kernel wants an end.
        program.push(answer(seats[0]));
        Program(program)
    }
}

/// So many runs of seats are skipped by one jump.
const BLOCK: usize = 32;

/// Neighbouring seats of one position together: where each run ends, and its position.
fn runs(seats: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for (end, position) in (1..).zip(seats) {
        match runs.last_mut() {
            Some((last, same)) if same == position => *last = end,
            Some(_) | None => runs.push((end, *position)),
        }
    }
    runs
}

/// A hash of the address that a packet comes from, by the version in its IP header: one socket gets both
/// families where it is dual-stack. The words are mixed by the finaliser of MurmurHash3.
fn hash_of_client() -> Vec<libc::sock_filter> {
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, IP_HEADER + at);
    let to_x = step(libc::BPF_MISC | libc::BPF_TAX, 0, 0, 0);
    let xor_x = step(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0, 0, 0);
    let mut six = vec![load(8)];
    for word in [12, 16, 20] {
        // Multiplied before the next word comes, so that no two words can change places.
        six.extend([calculate(libc::BPF_MUL, 0x9e37_79b1), to_x, load(word), xor_x]);
    }
    let four = [load(12)];
    let mut program = vec![
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, IP_HEADER),
        calculate(libc::BPF_RSH, 4),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, four.len() as u8 + 1, 4),
    ];
    program.extend(four);
    program.push(step(libc::BPF_JMP | libc::BPF_JA, 0, 0, six.len() as u32));
    program.extend(six);
    for (shift, factor) in [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)] {
        program.extend([to_x, calculate(libc::BPF_RSH, shift), xor_x, calculate(libc::BPF_MUL, factor)]);
    }
    program.extend([to_x, calculate(libc::BPF_RSH, 16), xor_x]);
    program
}

/// New connections of the socket's group go where this program says.
///
/// # Errors
/// The errno of setsockopt(2): EINVAL when the socket is in no group, ENOMEM.
pub fn steer(socket: BorrowedFd<'_>, program: &Program) -> io::Result<()> {
    attach(socket, &program.0)
}

/// As [`steer`], but connections of each of these clients go to its position: for the supervisor's own.
///
/// # Errors
/// As [`steer`].
pub fn steer_but(socket: BorrowedFd<'_>, program: &Program, led: &[(SocketAddr, u32)]) -> io::Result<()> {
    let exceptions = led.iter().flat_map(|(client, position)| exception(*client, *position));
    let program: Vec<libc::sock_filter> = exceptions.chain(program.0.iter().copied()).collect();
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
        calculate(libc::BPF_RSH, 4),
        unless(version, 5),
        load(libc::BPF_W, source),
        unless(word, 3),
        load(libc::BPF_H, port),
        unless(u32::from(client.port()), 1),
        answer(position),
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
    use std::net::TcpStream;
    use std::os::fd::{AsFd, OwnedFd};

    use super::super::listen;
    use super::*;

    #[test]
    fn a_run_of_positions_needs_no_table() {
        let program = Program::evenly(&[2, 3, 4]).0;
        assert_eq!((program.len(), program[2].k), (4, 2));
    }

    /// What a program answers for a random number, or for a hash, without the steps that lead to it.
    fn answered(program: &[libc::sock_filter], mut a: u32) -> u32 {
        let mut at = 0;
        loop {
            let step = &program[at];
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                    at += usize::from(if a >= step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K => a %= step.k,
                code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => a &= step.k,
                code if code == libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K => a += step.k,
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code if code == libc::BPF_RET | libc::BPF_A => return a,
                code => panic!("{code:#x} is not for here"),
            }
        }
    }

    #[test]
    fn lots_are_even_over_any_positions() {
        for positions in [vec![5], vec![0, 1, 2, 3], vec![1, 2, 7], vec![0, 2, 4, 5, 6, 900]] {
            let program = Program::evenly(&positions).0;
            let drawn: Vec<u32> =
                (0..positions.len() as u32).map(|random| answered(&program[1..], random)).collect();
            assert_eq!(drawn, positions);
        }
    }

    #[test]
    fn each_seat_has_its_position() {
        let seats: Vec<u32> = (0..512).map(|seat| (seat * seat / 7) % 11).collect();
        let whole = Program::by_client(&seats).0;
        let program = &whole[hash_of_client().len()..];
        let found: Vec<u32> = (0..512).map(|hash| answered(program, hash | 0xabc0_0000)).collect();
        assert_eq!(found, seats);
        // Each step of ours becomes at most two of the kernel's, and those are 8 bytes long each.
        assert!(whole.len() * 16 < 20_480, "{}", whole.len());
    }

    /// Sockets in one group, and their address.
    fn group(ip: &str, sockets: usize) -> Option<(Vec<OwnedFd>, SocketAddr)> {
        let ip: IpAddr = ip.parse().expect("an address");
        let first = listen::open(ip, 0, false, 512).ok()?;
        let (address, _) = listen::local_address(first.as_fd()).expect("bound");
        let more = (1..sockets).map(|_| listen::open(ip, address.port(), false, 512).expect("shared"));
        Some((std::iter::once(first).chain(more).collect(), address))
    }

    fn queued(sockets: &[OwnedFd]) -> Vec<u32> {
        sockets.iter().map(|socket| listen::queue_length(socket.as_fd()).expect("tcp")).collect()
    }

    #[test]
    fn a_share_of_connections_goes_to_the_new_ones() {
        let (sockets, address) = group("127.0.0.1", 4).expect("IPv4");
        steer(sockets[0].as_fd(), &Program::share(25, &[1], &[0, 3])).expect("a group");
        let _clients: Vec<TcpStream> =
            (0..400).map(|_| TcpStream::connect(address).expect("queued")).collect();
        let queued = queued(&sockets);
        // 100 and 150 are expected; each bound is more than five deviations away.
        assert!((50..150).contains(&queued[1]), "{queued:?}");
        assert!(queued[0].min(queued[3]) > 90 && queued[2] == 0, "{queued:?}");
    }

    #[test]
    fn a_client_stays_with_its_seat_in_both_families_of_one_socket() {
        let Some((sockets, address)) = group("::", 4) else { return };
        let seats: Vec<u32> = (0..512).map(|seat| seat % 4).collect();
        steer(sockets[0].as_fd(), &Program::by_client(&seats)).expect("a group");
        let mut used = std::collections::BTreeSet::new();
        let mut clients = Vec::new();
        for own in ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "::1"] {
            let own: IpAddr = own.parse().expect("an address");
            let to = if own.is_ipv4() { "127.0.0.1".parse().expect("an address") } else { own };
            let before = queued(&sockets);
            for _ in 0..10 {
                let (client, _) = listen::client(SocketAddr::new(own, 0)).expect("a port");
                listen::begin(client.as_fd(), SocketAddr::new(to, address.port())).expect("begun");
                let limit = std::time::Duration::from_secs(5);
                super::super::output::wait_for_room(&[client.as_raw_fd()], limit).expect("poll");
                clients.push(client);
            }
            let after = queued(&sockets);
            let gained: Vec<usize> = (0..4).filter(|i| after[*i] > before[*i]).collect();
            assert_eq!((gained.len(), after[gained[0]] - before[gained[0]]), (1, 10), "{own}: {after:?}");
            used.insert(gained[0]);
        }
        assert!(used.len() > 1, "all clients share one worker");
    }

    #[test]
    fn one_client_is_led_to_a_position_of_its_own_in_both_families() {
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().expect("an address");
            let Ok(first) = listen::open(ip, 0, false, 8) else { continue };
            let (address, _) = listen::local_address(first.as_fd()).expect("bound");
            let second = listen::open(ip, address.port(), false, 8).expect("shared");
            let (client, own) = listen::client(SocketAddr::new(ip, 0)).expect("a port");
            let (other, others) = listen::client(SocketAddr::new(ip, 0)).expect("a port");
            steer_but(first.as_fd(), &Program::evenly(&[0]), &[(others, 1), (own, 1)]).expect("a group");
            let _others: Vec<_> = (0..4).map(|_| TcpStream::connect(address).expect("queued")).collect();
            let limit = std::time::Duration::from_secs(5);
            for client in [client.as_fd(), other.as_fd()] {
                listen::begin(client, address).expect("begun");
                super::super::output::wait_for_room(&[client.as_raw_fd()], limit).expect("poll");
            }
            let queued = |socket: &OwnedFd| listen::queue_length(socket.as_fd()).expect("tcp");
            assert_eq!((queued(&first), queued(&second)), (4, 2), "{ip}");
        }
    }
}
