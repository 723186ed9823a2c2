//! Addresses to listen on: numeric, with a port, TCP; or Unix sockets. What this refuses: names, which would
//! have to be looked up; port 0, which nobody could connect to; paths of Unix sockets that depend on a folder
//! or are too long for the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toml::de::DeValue;

use crate::supervisor::address::{Address, UnixName};

use super::error::quoted;
use super::keys::{self, Kind};
use super::value::{self, Refusal};
use super::{Access, Account, Listen, process};

/// What Node and PM2 users get: libuv's default. The kernel lowers it to net.core.somaxconn.
const DEFAULT_BACKLOG: i32 = 511;

/// What `backlog` takes.
pub(super) const BACKLOG: Kind = Kind::Count { min: 1, max: 65535 };

/// Sockets that one worker is handed at most.
pub(super) const MAX_PER_APP: usize = 64;

/// Reads `"0.0.0.0:3000"`, `"[::]:3000"`, `":3000"`, `"3000"` or 3000.
fn endpoint(value: &DeValue<'_>) -> Result<Address, Refusal> {
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
    address: Option<Address>,
    access: Access,
    /// The first part that only a Unix socket with a path has.
    of_unix: Option<String>,
}

impl Parts {
    /// With the app's name and the default backlog.
    pub(super) fn new(app: &str) -> Parts {
        let (name, backlog) = (app.to_owned(), DEFAULT_BACKLOG);
        Parts { name, backlog, address: None, access: Access::default(), of_unix: None }
    }

    pub(super) fn set(&mut self, part: &str, value: &DeValue<'_>) -> Result<(), Refusal> {
        match part {
            "address" => self.address = Some(endpoint(value)?),
            "backlog" => self.backlog = value::count(value, 1, 65535)?.cast_signed(),
            "name" => self.name = socket_name(value)?,
            "mode" => self.access.mode = mode(value)?,
            "user" => self.access.user = Some(account(value, "user")?),
            "group" => self.access.group = Some(account(value, "group")?),
            unknown => {
                let known = ["name", "address", "backlog", "mode", "user", "group"];
                let help = match keys::nearest(unknown, known) {
                    Some(known) => format!("did you mean \"{known}\"?"),
                    None => {
                        "known keys are name, address and backlog; of a Unix socket mode, user and group, too"
                            .to_owned()
                    }
                };
                return Err(Refusal::said("unknown key", help));
            }
        }
        if matches!(part, "mode" | "user" | "group") {
            self.of_unix.get_or_insert_with(|| part.to_owned());
        }
        Ok(())
    }

    /// The socket; none without a good address.
    pub(super) fn finish(self) -> Result<Option<Listen>, Refusal> {
        let Parts { name, backlog, address, access, of_unix } = self;
        let Some(address) = address else { return Ok(None) };
        let has_file = matches!(address, Address::Unix(unix) if unix.in_abstract().is_none());
        match of_unix {
            Some(part) if !has_file => Err(Refusal::said(
                format!("{part} belongs to the file of a Unix socket, and {address} has none"),
                "remove it, or write the address as \"unix:/run/api.sock\"",
            )),
            Some(_) | None => Ok(Some(Listen { name, address, backlog, access })),
        }
    }
}

/// Permission bits: `"0660"`, `"660"`, or 0o660. A number without the prefix is decimal in TOML, and never
/// meant so.
fn mode(value: &DeValue<'_>) -> Result<u32, Refusal> {
    let wrong = || {
        Refusal::said(
            format!("expected permission bits such as \"0660\" or 0o660, got {}", value::shown(value)),
            "who may write to the file may connect",
        )
    };
    let bits = match value {
        DeValue::String(text) => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let octal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            u32::from_str_radix(digits, 8).ok().filter(|_| octal)
        }
        DeValue::Integer(number) if number.radix() == 8 => u32::from_str_radix(number.as_str(), 8).ok(),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    bits.filter(|bits| *bits <= 0o777).ok_or_else(wrong)
}

/// The name or the number of a user or group. It is looked up when the socket is opened.
fn account(value: &DeValue<'_>, what: &str) -> Result<Account, Refusal> {
    process::account(value).map_err(|_| {
        Refusal::said(
            format!("expected the name or the number of a {what}, got {}", value::shown(value)),
            format!("write {what} = \"www-data\""),
        )
    })
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

fn dual_stack(port: u16) -> Result<Address, Refusal> {
    checked(Ipv6Addr::UNSPECIFIED.into(), port, false)
}

fn parse(text: &str) -> Result<Address, Refusal> {
    if let Some(name) = text.strip_prefix("unix:") {
        return unix(name);
    }
    if text.starts_with('/') {
        return Err(Refusal::wrong(format!("a Unix socket is \"unix:{text}\"")));
    }
    let port_text = text.strip_prefix(':').unwrap_or(text);
    if !port_text.is_empty() && port_text.bytes().all(|b| b.is_ascii_digit()) {
        return dual_stack(port_text.parse().map_err(|_| port_range())?);
    }
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(address)) => checked((*address.ip()).into(), address.port(), false),
        Ok(SocketAddr::V6(address)) if address.scope_id() != 0 => Err(Refusal::said(
            format!("{} has a zone (%{}); zones are not supported", quoted(text), address.scope_id()),
            "write an address without a zone, or \"[::]\" for all",
        )),
        Ok(SocketAddr::V6(address)) => checked((*address.ip()).into(), address.port(), true),
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

/// Reads what follows `unix:`: an absolute path, or `@` and a name in the abstract namespace.
fn unix(name: &str) -> Result<Address, Refusal> {
    let too_long = |most: usize, what: &str| {
        Refusal::said(
            format!("{} has {} bytes; the kernel takes {what} of {most} at most", quoted(name), name.len()),
            "choose a shorter one (unix(7))",
        )
    };
    if name.contains('\0') {
        return Err(Refusal::said(format!("{} holds a NUL byte", quoted(name)), "remove it"));
    }
    if let Some(abstract_name) = name.strip_prefix('@') {
        if abstract_name.is_empty() {
            return Err(Refusal::said("the name after \"unix:@\" is empty", "write \"unix:@api\""));
        }
        let most = UnixName::LONGEST_ABSTRACT;
        return UnixName::new(name).map(Address::Unix).ok_or_else(|| too_long(most, "an abstract name"));
    }
    if !name.starts_with('/') {
        return Err(Refusal::said(
            format!("{} is not an absolute path", quoted(name)),
            "clients look for the socket by its whole path: write \"unix:/run/api.sock\"",
        ));
    }
    let file = name.rsplit('/').next().unwrap_or_default();
    if matches!(file, "" | "." | "..") {
        return Err(Refusal::said(
            format!("{} is a folder", quoted(name)),
            "add the name of the socket: \"unix:/run/api.sock\"",
        ));
    }
    UnixName::new(name).map(Address::Unix).ok_or_else(|| too_long(UnixName::LONGEST_PATH, "a path"))
}

fn checked(ip: IpAddr, port: u16, v6only: bool) -> Result<Address, Refusal> {
    if port == 0 {
        return Err(Refusal::said("port 0 is any port, so that no client could know it", "choose a port"));
    }
    let mapped = match ip {
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    if let Some(ip) = mapped {
        return Err(Refusal::wrong(format!("write it as \"{ip}:{port}\"")));
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Refusal::said(format!("TCP cannot listen on {ip}"), "write an address of this host"));
    }
    Ok(Address::Tcp { ip, port, v6only })
}

/// Two of one app that would be the same socket, or of which one already covers the other.
pub(super) fn is_duplicate(a: &Listen, b: &Listen) -> bool {
    match (a.address, b.address) {
        (Address::Tcp { ip, port, .. }, Address::Tcp { ip: other, port: other_port, .. }) => {
            let both = ip.is_unspecified() && other.is_unspecified();
            let covers = both && (is_dual_stack(a.address) || is_dual_stack(b.address));
            port == other_port && (ip == other || covers)
        }
        (one, other) => one == other,
    }
}

fn is_dual_stack(address: Address) -> bool {
    matches!(address, Address::Tcp { ip, v6only, .. } if ip.is_ipv6() && ip.is_unspecified() && !v6only)
}

/// The address as the file has it: `:3000` for dual stack.
pub(super) fn show(listen: &Listen) -> String {
    match listen.address {
        Address::Tcp { port, .. } if is_dual_stack(listen.address) => format!(":{port}"),
        address => address.to_string(),
    }
}

/// Any text as an address, for [`crate::fuzz`]: what is shown is read as the same.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str) -> String {
    match parse(text) {
        Ok(address) => {
            let listen =
                Listen { name: String::new(), address, backlog: DEFAULT_BACKLOG, access: Access::default() };
            let again = parse(&show(&listen)).ok();
            assert_eq!(again, Some(address), "{text:?} is shown as {:?}", show(&listen));
            "address".to_owned()
        }
        Err(refusal) => format!("{refusal:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        let address = parse(text).expect("a good address");
        Listen { name: "a".into(), address, backlog: DEFAULT_BACKLOG, access: Access::default() }
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
            let has = matches!(listen.address, Address::Tcp { v6only: true, .. });
            assert_eq!((has, show(&listen).as_str()), (v6only, shown), "{text}");
        }
    }

    #[test]
    fn one_app_has_no_socket_twice() {
        assert!(is_duplicate(&listen(":80"), &listen("[::]:80")));
        assert!(is_duplicate(&listen(":80"), &listen("0.0.0.0:80")));
        assert!(!is_duplicate(&listen("0.0.0.0:80"), &listen("[::]:80")));
    }

    #[test]
    fn a_unix_socket_has_an_absolute_path_or_an_abstract_name() {
        for text in ["unix:/run/api.sock", "unix:@api"] {
            assert_eq!(show(&listen(text)), text);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["unix:", "unix:api.sock", "unix:/run/", "unix:/run/..", "unix:@", "unix:/a\0b", &long] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(is_duplicate(&listen("unix:@api"), &listen("unix:@api")));
        assert!(!is_duplicate(&listen("unix:@api"), &listen("unix:/api")));
    }

    #[test]
    fn mode_is_octal_and_nothing_else() {
        let read = |text: &str| {
            let document = format!("mode = {text}");
            let table = toml::de::DeTable::parse(&document).expect("TOML").into_inner();
            mode(table["mode"].get_ref()).ok()
        };
        for (text, bits) in [
            ("\"0660\"", Some(0o660)),
            ("\"600\"", Some(0o600)),
            ("0o640", Some(0o640)),
            ("660", None),
            ("\"0888\"", None),
            ("\"+660\"", None),
            ("\"1777\"", None),
            ("\"\"", None),
        ] {
            assert_eq!(read(text), bits, "{text}");
        }
    }
}
