//! Addresses to listen on: numeric, with a port, TCP. What this refuses: names, which would have to be
//! looked up; port 0, which nobody could connect to; Unix sockets, until they are supported.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::de::DeValue;

use super::Listen;
use super::error::quoted;
use super::keys::{self, Kind};
use super::value::{self, Refusal};

/// What Node and PM2 users get: libuv's default. The kernel lowers it to net.core.somaxconn.
const DEFAULT_BACKLOG: i32 = 511;

/// What `backlog` takes.
pub(super) const BACKLOG: Kind = Kind::Count { min: 1, max: 65535 };

/// Sockets that one worker is handed at most.
pub(super) const MAX_PER_APP: usize = 64;

/// An address without its name and backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint {
    ip: IpAddr,
    port: u16,
    v6only: bool,
}

/// Reads `"0.0.0.0:3000"`, `"[::]:3000"`, `":3000"`, `"3000"` or 3000.
fn endpoint(value: &DeValue<'_>) -> Result<Endpoint, Refusal> {
    match value {
        DeValue::String(text) => parse(text),
        DeValue::Integer(number) => {
            let port = i64::from_str_radix(number.as_str(), number.radix()).ok();
            dual_stack(port.and_then(|port| u16::try_from(port).ok()).ok_or_else(port_range)?)
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Err(Refusal::WRONG),
    }
}

/// A declared socket while its parts are read.
pub(super) struct Parts {
    name: String,
    backlog: i32,
    endpoint: Option<Endpoint>,
}

impl Parts {
    /// With the app's name and the default backlog.
    pub(super) fn new(app: &str) -> Parts {
        Parts { name: app.to_owned(), backlog: DEFAULT_BACKLOG, endpoint: None }
    }

    pub(super) fn set(&mut self, part: &str, value: &DeValue<'_>) -> Result<(), Refusal> {
        match part {
            "address" => self.endpoint = Some(endpoint(value)?),
            "backlog" => self.backlog = value::count(value, 1, 65535)?.cast_signed(),
            "name" => self.name = socket_name(value)?,
            "mode" | "user" | "group" => {
                return Err(Refusal::said(
                    "belongs to a Unix socket; this version listens on TCP only",
                    "remove it",
                ));
            }
            unknown => {
                let help = match keys::nearest(unknown, ["name", "address", "backlog"]) {
                    Some(known) => format!("did you mean \"{known}\"?"),
                    None => "known keys are name, address and backlog".to_owned(),
                };
                return Err(Refusal::said("unknown key", help));
            }
        }
        Ok(())
    }

    /// The socket; none without a good address.
    pub(super) fn finish(self) -> Option<Listen> {
        let Endpoint { ip, port, v6only } = self.endpoint?;
        Some(Listen { name: self.name, ip, port, v6only, backlog: self.backlog })
    }
}

/// A name that can stand in LISTEN_FDNAMES (sd_listen_fds_with_names(3): names are separated by colons).
fn socket_name(value: &DeValue<'_>) -> Result<String, Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match value.as_str() {
        Some(name) if (1..=255).contains(&name.len()) && name.bytes().all(allowed) => Ok(name.to_owned()),
        Some(_) | None => Err(Refusal::said(
            format!("expected 1 to 255 letters, digits, '.', '_' or '-', got {}", value::shown(value)),
            "this name reaches the worker in LISTEN_FDNAMES",
        )),
    }
}

fn port_range() -> Refusal {
    Refusal::wrong("a port is a number from 1 to 65535")
}

fn dual_stack(port: u16) -> Result<Endpoint, Refusal> {
    checked(Endpoint { ip: Ipv6Addr::UNSPECIFIED.into(), port, v6only: false })
}

fn parse(text: &str) -> Result<Endpoint, Refusal> {
    if text.starts_with("unix:") || text.starts_with('/') {
        return Err(Refusal::said(
            format!("{} is a Unix socket; this version listens on TCP only", quoted(text)),
            "write an address and a port, such as \"127.0.0.1:3000\"",
        ));
    }
    let port_text = text.strip_prefix(':').unwrap_or(text);
    if !port_text.is_empty() && port_text.bytes().all(|b| b.is_ascii_digit()) {
        return dual_stack(port_text.parse().map_err(|_| port_range())?);
    }
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(address)) => {
            checked(Endpoint { ip: (*address.ip()).into(), port: address.port(), v6only: false })
        }
        Ok(SocketAddr::V6(address)) if address.scope_id() != 0 => Err(Refusal::said(
            format!("{} has a zone (%{}); zones are not supported", quoted(text), address.scope_id()),
            "write an address without a zone, or \"[::]\" for all",
        )),
        Ok(SocketAddr::V6(address)) => {
            checked(Endpoint { ip: (*address.ip()).into(), port: address.port(), v6only: true })
        }
        Err(_) => Err(unreadable(text)),
    }
}

/// What the author of an unreadable address may have meant.
fn unreadable(text: &str) -> Refusal {
    let Some((host, port)) = text.rsplit_once(':') else {
        return match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => Refusal::wrong(format!("add the port: \"{ip}:3000\"")),
            Ok(IpAddr::V6(ip)) => Refusal::wrong(format!("add the port: \"[{ip}]:3000\"")),
            Err(_) => Refusal::WRONG,
        };
    };
    if text.contains("://") {
        return Refusal::wrong("leave out the scheme: clusterd only opens the port");
    }
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return port_range();
    }
    if host == "*" {
        return Refusal::wrong(format!("all addresses are \":{port}\""));
    }
    if host == "localhost" {
        return Refusal::said(
            "\"localhost\" is a name; only numeric addresses are taken, so that no look-up can fail or change",
            format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
        );
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Refusal::wrong(format!("write an IPv6 address in brackets: \"[{host}]:{port}\""));
    }
    if host.bytes().any(|b| b.is_ascii_alphabetic()) && !host.contains(['[', ':']) {
        return Refusal::said(
            format!("{} is a name; only numeric addresses are taken", quoted(host)),
            format!("write \":{port}\" for all addresses, or the one to listen on"),
        );
    }
    Refusal::WRONG
}

fn checked(endpoint: Endpoint) -> Result<Endpoint, Refusal> {
    if endpoint.port == 0 {
        return Err(Refusal::said("port 0 is any port, so that no client could know it", "choose a port"));
    }
    let ip = endpoint.ip;
    let mapped = match ip {
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    if let Some(ip) = mapped {
        return Err(Refusal::wrong(format!("write it as \"{ip}:{}\"", endpoint.port)));
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Refusal::said(format!("TCP cannot listen on {ip}"), "write an address of this host"));
    }
    Ok(endpoint)
}

/// Two of one app that would be the same socket, or of which one already covers the other.
pub(super) fn is_duplicate(a: &Listen, b: &Listen) -> bool {
    let covers = |wide: &Listen, other: &Listen| {
        is_dual_stack(wide) && other.port == wide.port && other.ip.is_unspecified()
    };
    (a.ip == b.ip && a.port == b.port) || covers(a, b) || covers(b, a)
}

fn is_dual_stack(listen: &Listen) -> bool {
    listen.ip.is_ipv6() && listen.ip.is_unspecified() && !listen.v6only
}

/// The address as the file has it: `:3000` for dual stack.
pub(super) fn show(listen: &Listen) -> String {
    match is_dual_stack(listen) {
        true => format!(":{}", listen.port),
        false => SocketAddr::new(listen.ip, listen.port).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        let endpoint = parse(text).expect("a good address");
        let Endpoint { ip, port, v6only } = endpoint;
        Listen { name: "a".into(), ip, port, v6only, backlog: DEFAULT_BACKLOG }
    }

    #[test]
    fn only_the_bare_port_is_dual_stack() {
        for (text, v6only, shown) in [
            (":3000", false, ":3000"),
            ("3000", false, ":3000"),
            ("[::]:3000", true, "[::]:3000"),
            ("0.0.0.0:3000", false, "0.0.0.0:3000"),
        ] {
            let listen = listen(text);
            assert_eq!((listen.v6only, show(&listen).as_str()), (v6only, shown), "{text}");
        }
    }

    #[test]
    fn one_app_has_no_socket_twice() {
        assert!(is_duplicate(&listen(":80"), &listen("[::]:80")));
        assert!(is_duplicate(&listen(":80"), &listen("0.0.0.0:80")));
        assert!(!is_duplicate(&listen("0.0.0.0:80"), &listen("[::]:80")));
    }
}
