//! Addresses to listen on: which of them cannot belong to two at once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::event::AppId;

/// What identifies a SO_REUSEPORT group to the kernel: exact address, port and, for IPv6, whether
/// IPv4 is left out (`inet_reuseport_add_sock` in Linux compares just these, within one user).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The local address, unspecified for "all".
    pub ip: IpAddr,
    /// The local port, never 0.
    pub port: u16,
    /// IPV6_V6ONLY; false for IPv4.
    pub v6only: bool,
}

impl Address {
    /// Whether a client could reach both by one address: then two strangers cannot have them.
    pub fn overlaps(&self, other: &Address) -> bool {
        let same = self.ip.to_canonical() == other.ip.to_canonical();
        self.port == other.port && (same || self.covers(other) || other.covers(self))
    }

    /// An unspecified address stands for its whole family; that of IPv6 for IPv4 too, unless it is
    /// v6only (ipv6(7)).
    fn covers(&self, other: &Address) -> bool {
        // A socket of IPv6 that is bound to ::ffff:127.0.0.1 has an address of IPv4.
        let other_is_v4 = other.ip.to_canonical().is_ipv4();
        let family = self.ip.is_ipv4() == other_is_v4 || (self.ip.is_ipv6() && !self.v6only);
        self.ip.is_unspecified() && family
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
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
        Address { ip: socket.ip(), port: socket.port(), v6only }
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
}
