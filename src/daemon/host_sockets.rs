//! The sockets that the supervisor was started with (`LISTEN_FDS`), and which entry of which app each is for.
//!
//! What counts of one is where it really listens: an entry that finds it by its name may say anything else.

use std::os::fd::{AsFd, OwnedFd};

use crate::config::Listen;
use crate::supervisor::address::{Address, UnixName};
use crate::sys::{inherited, listen, unix_listener};

/// One of them.
#[derive(Debug)]
pub(super) struct HostSocket {
    pub(super) fd: OwnedFd,
    pub(super) inode: u64,
    pub(super) name: String,
    pub(super) address: Address,
}

/// Those that `listen` can mean; the others are told.
pub(super) fn usable(taken: inherited::Taken) -> Vec<HostSocket> {
    for (number, name) in taken.others {
        log::warn!(
            "the host announced descriptor {number} (\"{name}\"), which is no socket that listens; it is not used"
        );
    }
    let host = taken.listening.into_iter().filter_map(|handed| {
        let found = address_of(&handed.fd).zip(listen::inode(handed.fd.as_fd()).ok());
        let Some((address, inode)) = found else {
            log::warn!(
                "the host handed over descriptor \"{}\", which is no socket that `listen` knows; it is not used",
                handed.name
            );
            return None;
        };
        Some(HostSocket { fd: handed.fd, inode, name: handed.name, address })
    });
    host.collect()
}

/// Where a socket of the host's listens.
fn address_of(fd: &OwnedFd) -> Option<Address> {
    if listen::kind(fd.as_fd()) == listen::Kind::Tcp {
        let (address, v6only) = listen::local_address(fd.as_fd()).ok()?;
        return Some(Address::Tcp { ip: address.ip(), port: address.port(), v6only });
    }
    UnixName::new(&unix_listener::local_name(fd.as_fd())?).map(Address::Unix)
}

/// Which of the host's sockets each entry of an app is: none is two entries.
///
/// Addresses go first. Of several with one name, which is what systemd.socket(5) makes of one unit, each entry
/// takes the next, those that other apps use last: whoever takes such a one learns whose it is.
pub(super) fn assign(
    host: &[HostSocket],
    declared: &[Listen],
    is_taken: impl Fn(&HostSocket) -> bool,
) -> Vec<Option<usize>> {
    let at = |listen: &Listen| host.iter().position(|socket| socket.address == listen.address());
    let mut found: Vec<Option<usize>> = declared.iter().map(at).collect();
    for (entry, listen) in declared.iter().enumerate() {
        if found[entry].is_none() {
            let named = host.iter().enumerate().filter(|(_, socket)| socket.name == listen.name);
            let free = named.filter(|(place, _)| !found.contains(&Some(*place)));
            found[entry] = free.min_by_key(|(_, socket)| is_taken(socket)).map(|(place, _)| place);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn host(name: &str) -> HostSocket {
        let fd = OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let listening = vec![inherited::Handed { fd, name: name.into() }];
        usable(inherited::Taken { listening, others: Vec::new() }).remove(0)
    }

    fn entry(name: &str, address: Address) -> Listen {
        let (backlog, access) = (1, crate::config::Access::default());
        Listen { name: name.into(), address, backlog, access }
    }

    fn elsewhere(port: u16) -> Address {
        Address::Tcp { ip: std::net::Ipv4Addr::UNSPECIFIED.into(), port, v6only: false }
    }

    #[test]
    fn an_address_goes_before_a_name_and_nothing_is_given_twice() {
        let all = [host("a"), host("a"), host("b")];
        let second = all[1].address;
        let named = |name: &str, port| entry(name, elsewhere(port));
        for (declared, expected) in [
            (vec![named("a", 1), named("a", 2), named("a", 3)], vec![Some(0), Some(1), None]),
            (vec![named("a", 1), entry("x", second), named("a", 2)], vec![Some(0), Some(1), None]),
            (vec![entry("b", second), named("a", 1), named("b", 2)], vec![Some(1), Some(0), Some(2)]),
            (vec![named("c", 1)], vec![None]),
        ] {
            assert_eq!(assign(&all, &declared, |_| false), expected, "{declared:?}");
        }
    }

    #[test]
    fn what_another_app_uses_is_the_last_that_a_name_means() {
        let all = [host("a"), host("a")];
        let taken = all[0].inode;
        let first = [entry("a", elsewhere(1))];
        assert_eq!(assign(&all, &first, |socket| socket.inode == taken), [Some(1)]);
        assert_eq!(assign(&all, &first, |_| true), [Some(0)], "it is to be told whose they are");
    }
}
