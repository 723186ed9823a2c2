//! Addresses to listen on: which of them cannot belong to two at once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::event::AppId;

/// Where a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// TCP. This is what identifies a SO_REUSEPORT group to the kernel: exact address, port and, for IPv6,
    /// whether IPv4 is left out (`inet_reuseport_add_sock` in Linux compares just these, within one user).
    Tcp {
        /// The local address, unspecified for "all".
        ip: IpAddr,
        /// The local port, never 0.
        port: u16,
        /// IPV6_V6ONLY; false for IPv4.
        v6only: bool,
    },
    /// A Unix stream socket. There is no SO_REUSEPORT for these: whoever listens there shares one socket.
    Unix(UnixName),
}

impl Address {
    /// The port of TCP.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Tcp { port, .. } => Some(*port),
            Address::Unix(_) => None,
        }
    }

    /// Whether a client could reach both by one address: then two strangers cannot have them.
    pub fn overlaps(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Tcp { ip, port, .. }, Address::Tcp { ip: other_ip, port: other_port, .. }) => {
                let same = ip.to_canonical() == other_ip.to_canonical();
                port == other_port && (same || self.covers(*other_ip) || other.covers(*ip))
            }
            (Address::Unix(name), Address::Unix(other)) => name == other,
            (Address::Tcp { .. }, Address::Unix(_)) | (Address::Unix(_), Address::Tcp { .. }) => false,
        }
    }

    /// Whether every client that can reach the other one can reach this one by the same address.
    pub fn contains(&self, other: &Address) -> bool {
        match (self, other) {
            (
                Address::Tcp { ip, port, .. },
                Address::Tcp { ip: other_ip, port: other_port, v6only: other_v6only },
            ) => {
                let of_both = other_ip.is_unspecified() && other_ip.is_ipv6() && !other_v6only;
                let same = ip.to_canonical() == other_ip.to_canonical();
                // One of both families has what no other one but its like has.
                let contained = if of_both {
                    same && self.covers(Ipv4Addr::UNSPECIFIED.into())
                } else {
                    same || self.covers(*other_ip)
                };
                port == other_port && contained
            }
            (Address::Unix(name), Address::Unix(other)) => name == other,
            (Address::Tcp { .. }, Address::Unix(_)) | (Address::Unix(_), Address::Tcp { .. }) => false,
        }
    }

    /// Whether every client that can reach this one reaches one of these instead once this one is gone. Some servers
    /// listen on both families with a socket for each.
    pub fn is_covered_by(&self, others: &[Address]) -> bool {
        let all_of = |ip: IpAddr| {
            others.iter().any(|other| match other {
                Address::Tcp { ip: of, port, .. } => *of == ip && Some(*port) == self.port(),
                Address::Unix(_) => false,
            })
        };
        let both = matches!(self, Address::Tcp { ip, v6only: false, .. } if *ip == Ipv6Addr::UNSPECIFIED)
            && all_of(Ipv4Addr::UNSPECIFIED.into())
            && all_of(Ipv6Addr::UNSPECIFIED.into());
        both || others.iter().any(|other| other.contains(self))
    }

    /// An unspecified address stands for its whole family; that of IPv6 for IPv4 too, unless it is
    /// v6only (ipv6(7)).
    fn covers(&self, other: IpAddr) -> bool {
        let Address::Tcp { ip, v6only, .. } = self else { return false };
        // A socket of IPv6 that is bound to ::ffff:127.0.0.1 has an address of IPv4.
        let other_is_v4 = other.to_canonical().is_ipv4();
        let family = ip.is_ipv4() == other_is_v4 || (ip.is_ipv6() && !v6only);
        ip.is_unspecified() && family
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { ip, port, .. } => SocketAddr::new(*ip, *port).fmt(f),
            Address::Unix(name) => write!(f, "unix:{}", name.as_str()),
        }
    }
}

/// sizeof(sun_path) (unix(7)).
const SUN_PATH: usize = 108;

/// The path of a Unix socket, or `@` and its name in the abstract namespace. As long as the kernel takes one,
/// so that it can be held by value like any other address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixName {
    bytes: [u8; SUN_PATH],
    length: u8,
}

impl UnixName {
    /// The longest path, which the kernel ends by a NUL.
    pub const LONGEST_PATH: usize = SUN_PATH - 1;
    /// The longest abstract name, without its `@`.
    pub const LONGEST_ABSTRACT: usize = SUN_PATH - 1;

    /// None where it is too long. The text is not judged otherwise.
    pub fn new(text: &str) -> Option<UnixName> {
        let most = if text.starts_with('@') { SUN_PATH } else { UnixName::LONGEST_PATH };
        let mut bytes = [0; SUN_PATH];
        bytes.get_mut(..text.len()).filter(|_| text.len() <= most)?.copy_from_slice(text.as_bytes());
        Some(UnixName { bytes, length: u8::try_from(text.len()).ok()? })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..self.length.into())
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// The name in the abstract namespace, without its `@`; none for a path.
    pub fn in_abstract(&self) -> Option<&str> {
        self.as_str().strip_prefix('@')
    }
}

impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Who of this supervisor's apps has what a bind to an address would meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// None of them.
    Free,
    /// The app itself, just this address: its instances share it.
    Own,
    /// Another one, an address that overlaps.
    Other(AppId),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, v6only: bool) -> Address {
        let socket: SocketAddr = text.parse().expect("an address");
        Address::Tcp { ip: socket.ip(), port: socket.port(), v6only }
    }

    #[test]
    fn overlap_is_what_a_client_could_confuse() {
        for (a, a_only, b, b_only, expected) in [
            ("[::]:80", false, "127.0.0.1:80", false, true),
            ("[::]:80", false, "0.0.0.0:80", false, true),
            ("[::]:80", true, "0.0.0.0:80", false, false),
            ("[::]:80", true, "127.0.0.1:80", false, false),
            ("[::]:80", true, "[::]:80", false, true),
            ("[::]:80", true, "[::1]:80", false, true),
            ("[::1]:80", true, "127.0.0.1:80", false, false),
            ("[::1]:80", false, "0.0.0.0:80", false, false),
            ("[::ffff:127.0.0.1]:80", false, "127.0.0.1:80", false, true),
            ("[::ffff:127.0.0.1]:80", false, "0.0.0.0:80", false, true),
            ("[::ffff:127.0.0.1]:80", false, "[::]:80", true, false),
            ("0.0.0.0:80", false, "127.0.0.1:80", false, true),
            ("127.0.0.1:80", false, "127.0.0.2:80", false, false),
            ("[::]:80", false, "[::]:81", false, false),
        ] {
            let (one, other) = (address(a, a_only), address(b, b_only));
            assert_eq!(one.overlaps(&other), expected, "{a} {b}");
            assert_eq!(other.overlaps(&one), expected, "{b} {a}");
        }
    }

    #[test]
    fn an_address_contains_what_is_reached_through_it_too() {
        for (a, a_only, b, b_only, expected) in [
            ("127.0.0.1:80", false, "127.0.0.1:80", false, true),
            ("127.0.0.1:80", false, "127.0.0.1:81", false, false),
            ("127.0.0.1:80", false, "127.0.0.2:80", false, false),
            ("127.0.0.1:80", false, "0.0.0.0:80", false, false),
            ("127.0.0.1:80", false, "[::]:80", false, false),
            ("127.0.0.1:80", false, "[::ffff:127.0.0.1]:80", false, true),
            ("0.0.0.0:80", false, "127.0.0.2:80", false, true),
            ("0.0.0.0:80", false, "[::ffff:127.0.0.1]:80", false, true),
            ("0.0.0.0:80", false, "[::]:80", false, false),
            ("0.0.0.0:80", false, "[::]:80", true, false),
            ("0.0.0.0:80", false, "[::1]:80", true, false),
            ("[::]:80", false, "127.0.0.1:80", false, true),
            ("[::]:80", false, "0.0.0.0:80", false, true),
            ("[::]:80", false, "[::1]:80", true, true),
            ("[::]:80", false, "[::]:80", true, true),
            ("[::]:80", false, "[::]:80", false, true),
            ("[::]:80", true, "127.0.0.1:80", false, false),
            ("[::]:80", true, "0.0.0.0:80", false, false),
            ("[::]:80", true, "[::1]:80", false, true),
            ("[::]:80", true, "[::]:80", true, true),
            ("[::]:80", true, "[::]:80", false, false),
            ("[::1]:80", true, "[::1]:80", false, true),
            ("[::1]:80", true, "[::]:80", true, false),
        ] {
            assert_eq!(address(a, a_only).contains(&address(b, b_only)), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_unix_name_is_as_long_as_the_kernel_takes_it() {
        let path = |length: usize| format!("/{}", "x".repeat(length - 1));
        let name = UnixName::new(&path(107)).expect("the longest path");
        assert_eq!(name.as_str(), path(107));
        assert_eq!(UnixName::new(&path(108)), None);
        let name = UnixName::new(&format!("@{}", "x".repeat(107))).expect("the longest abstract name");
        assert_eq!(name.in_abstract().map(str::len), Some(107));
        assert_eq!(UnixName::new(&format!("@{}", "x".repeat(108))), None);
    }

    #[test]
    fn unix_names_overlap_with_themselves_only() {
        let unix = |text: &str| Address::Unix(UnixName::new(text).expect("short"));
        assert!(unix("/run/a").overlaps(&unix("/run/a")));
        assert!(!unix("/run/a").overlaps(&unix("@/run/a")));
        assert!(!unix("/run/a").overlaps(&address("0.0.0.0:80", false)));
        assert_eq!(unix("/run/a").to_string(), "unix:/run/a");
    }
}
