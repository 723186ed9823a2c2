//! `ready` and `health`: what a worker must show to count as ready, and how it is asked whether it is well.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::error::quoted;
use super::keys::{AppKey, Kind};
use super::raw;
use super::reader::Reader;
use super::units::show_duration;
use super::value::{self, Refusal};
use super::{Check, Listen, words};
use crate::supervisor::address::Address;
use crate::supervisor::policy::{Door, Health, Mode, Readiness, Way};

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 3;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What `ready` says.
pub(super) enum Ready {
    /// By one of its words.
    Word(Readiness),
    /// By an answer to a request for this path.
    Http { path: String, at: At },
}

/// Where a worker is to be asked, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// That is not said.
    Any,
    Port(u16),
    /// Where clients of this address come to.
    Address(Address),
    /// At the socket of `listen` that is called so.
    Socket(String),
}

/// The words of `ready`, with what stands behind `http:`.
pub(super) fn readiness(value: &DeValue<'_>) -> Result<Ready, Refusal> {
    let text = value::text(value)?;
    if let Some(place) = text.strip_prefix("http:") {
        let (at, path) = place.strip_prefix("//").map_or(Ok((At::Any, place)), authority)?;
        let help = "write a path from / on, without blanks: \"http:/healthz\", or with a port \
                    \"http://:8080/healthz\"";
        return Ok(Ready::Http { path: http_path(path, help)?, at });
    }
    Ok(Ready::Word(match text {
        "auto" => Readiness::Auto,
        "notify" => Readiness::Notify,
        "ipc" => Readiness::Ipc,
        "listen" => Readiness::Listen,
        "exec" => Readiness::Exec,
        _ => return Err(Refusal::WRONG),
    }))
}

/// What stands between `//` and the path of a URL. Connections of our own are led to the worker that is asked, so
/// the host says no more than which of its addresses is meant.
fn authority(text: &str) -> Result<(At, &str), Refusal> {
    let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let help = "the worker itself is asked: write its port alone, as in \"http://:8080/healthz\", or a numeric \
                address before it";
    let port = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0);
    let at = match host.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 && address.ip().is_unspecified() => At::Port(address.port()),
        Ok(address) if address.port() > 0 => {
            At::Address(Address::Tcp { ip: address.ip(), port: address.port(), v6only: address.is_ipv6() })
        }
        Ok(_) | Err(_) => {
            let local = host.strip_prefix("localhost").unwrap_or(host);
            let port = local.strip_prefix(':').and_then(port);
            let refusal = || Refusal::said(format!("{} is no port of a worker's", quoted(host)), help);
            At::Port(port.ok_or_else(refusal)?)
        }
    };
    Ok((at, path))
}

/// A path as it stands in a request line.
fn http_path(path: &str, help: &str) -> Result<String, Refusal> {
    let plain = path.bytes().all(|b| b.is_ascii_graphic());
    if path.starts_with('/') && plain && path.len() <= 1024 {
        return Ok(path.to_owned());
    }
    Err(Refusal::said(format!("{} is no path of a request", quoted(path)), help))
}

/// A `health` table in its parts.
struct Parts {
    check: Option<Check>,
    at: At,
    interval: Duration,
    timeout: Duration,
    retries: u32,
    start_period: Duration,
}

impl Parts {
    fn read(value: &DeValue<'_>) -> Result<Parts, Refusal> {
        let mut parts = Parts {
            check: None,
            at: At::Any,
            interval: INTERVAL,
            timeout: TIMEOUT,
            retries: RETRIES,
            start_period: Duration::ZERO,
        };
        let table = value.as_table().ok_or(Refusal::WRONG)?;
        for entry in raw::entries(table) {
            let (key, value) = (entry.written, entry.value());
            let least = Duration::from_millis(1);
            match key {
                "http" => {
                    let help = "write a path from / on, without blanks: http = \"/healthz\"; where it is asked is \
                                port = 8080, or socket = \"name\"";
                    parts.ask(Check::Http(http_path(value::text(value)?, help)?))?
                }
                "tcp" if value::flag(value)? => parts.ask(Check::Tcp)?,
                "tcp" => {}
                "command" => parts.ask(Check::Command(vector(entry.value)?))?,
                "port" => parts.choose(At::Port(port(value)?))?,
                "socket" => parts.choose(At::Socket(value::text(value)?.to_owned()))?,
                "interval" => parts.interval = part(key, value::duration(value, least, DAY))?,
                "timeout" => parts.timeout = part(key, value::duration(value, least, DAY))?,
                "retries" => parts.retries = part(key, value::count(value, 1, 1000))?,
                "start_period" => {
                    parts.start_period = part(key, value::duration(value, Duration::ZERO, DAY))?
                }
                other => return Err(Refusal::wrong(format!("{} is none of its parts", quoted(other)))),
            }
        }
        Ok(parts)
    }

    fn ask(&mut self, check: Check) -> Result<(), Refusal> {
        match self.check.replace(check) {
            None => Ok(()),
            Some(_) => Err(Refusal::said("asks in two ways", "keep one of http, tcp and command")),
        }
    }

    fn choose(&mut self, at: At) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.at, at) {
            At::Any => Ok(()),
            At::Port(_) | At::Address(_) | At::Socket(_) => {
                Err(Refusal::said("says in two ways where to ask", "keep one of port and socket"))
            }
        }
    }
}

fn port(value: &DeValue<'_>) -> Result<u16, Refusal> {
    let number = part("port", value::count(value, 1, u16::MAX.into()))?;
    u16::try_from(number).map_err(|_| Refusal::WRONG)
}

/// What is known of the app whose workers are asked.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) mode: Mode,
    pub(super) listen: &'a [Listen],
    /// Sockets that a worker opens by itself are shared, and known by that.
    pub(super) opens: bool,
}

impl Asked<'_> {
    /// Where a worker of it is asked.
    fn door(self, at: At) -> Result<Door, Refusal> {
        let tcp =
            || self.listen.iter().map(|listen| listen.address).filter(|address| address.port().is_some());
        let known = |door: Door| tcp().any(|address| door.admits(&address));
        let (door, what) = match at {
            At::Any => return Ok(Door::Any(tcp().next())),
            At::Port(port) => (Door::Port(port), format!("port {port}")),
            At::Address(address) => (Door::At(address), address.to_string()),
            At::Socket(name) => return self.named(&name),
        };
        if self.opens || known(door) {
            return Ok(door);
        }
        let mut declared: Vec<String> = tcp().map(|address| address.to_string()).collect();
        declared.dedup();
        let declared = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
        Err(Refusal::said(
            format!("asks at {what}, which is none of the TCP addresses in listen ({declared})"),
            "declare it in listen too; a port that the server opens itself is known in cluster mode, unless \
             intercept = false",
        ))
    }

    fn named(self, name: &str) -> Result<Door, Refusal> {
        let called: Vec<&Listen> = self.listen.iter().filter(|listen| listen.name == name).collect();
        let name = quoted(name);
        match called.as_slice() {
            [Listen { address: address @ Address::Tcp { .. }, .. }] => Ok(Door::At(*address)),
            [Listen { address: Address::Unix(_), .. }] => Err(Refusal::said(
                format!("{name} is a Unix socket, which all workers share: no connection reaches one alone"),
                "name a TCP socket of listen, or use command = […]",
            )),
            [] => {
                let names: Vec<String> = self.listen.iter().map(|listen| quoted(&listen.name)).collect();
                let help = match names.is_empty() {
                    true => {
                        "declare it: listen = { name = \"http\", address = \":8080\" }, or write port = 8080"
                            .to_owned()
                    }
                    false => format!("listen has {}", names.join(", ")),
                };
                Err(Refusal::said(format!("no socket of listen is called {name}"), help))
            }
            several => Err(Refusal::said(
                format!("{} sockets of listen are called {name}", several.len()),
                "give them names of their own, or write port = 8080",
            )),
        }
    }
}

/// A refusal that says which part of the table it is about.
fn part<T>(key: &str, read: Result<T, Refusal>) -> Result<T, Refusal> {
    read.map_err(|refusal| match refusal {
        Refusal::Wrong { help: None } => Refusal::wrong(format!("{key} is out of its range")),
        Refusal::Wrong { help: Some(help) } => Refusal::wrong(format!("{key}: {help}")),
        said @ Refusal::Said { .. } => said,
    })
}

fn vector(value: &toml::Spanned<DeValue<'_>>) -> Result<Vec<String>, Refusal> {
    let (words, refused) = words::read(value);
    if let Some((_, refusal)) = refused.into_iter().next() {
        return Err(refusal);
    }
    match words.first() {
        Some(first) if !first.is_empty() => Ok(words),
        Some(_) | None => Err(Refusal::wrong("command names no program")),
    }
}

impl Reader<'_, '_, '_, AppKey> {
    /// When workers are asked, and how many bad answers they may give.
    pub(super) fn health(&mut self, asked: Asked<'_>) -> Option<Health> {
        let entry = self.section.get(AppKey::Health)?.clone();
        let parts = match Parts::read(entry.value()) {
            Ok(parts) => parts,
            Err(refusal) => {
                self.refuse(Kind::Health, entry.written, entry.value, refusal);
                return None;
            }
        };
        let Parts { check, at, interval, timeout, retries, start_period } = parts;
        let way = match (check, at) {
            (Some(Check::Command(_)), At::Any) => Ok(Way::Command),
            (Some(Check::Command(_)), _) => {
                Err(Refusal::said("says where to ask, and a command knows", "leave out port and socket"))
            }
            (Some(Check::Http(_) | Check::Tcp), _) if asked.mode == Mode::Fork && asked.listen.is_empty() => {
                Err(Refusal::said(
                    "in fork mode nobody knows on which port a server listens that opens it itself",
                    "declare the port in listen, write exec_mode = \"cluster\", or use command = […]",
                ))
            }
            (Some(Check::Http(_) | Check::Tcp), at) => asked.door(at).map(Way::Connection),
            (None, _) => Err(Refusal::said("says nothing of how to ask", "add http, tcp or command")),
        };
        match way {
            Ok(way) => Some(Health { way, interval, timeout, retries, start_period }),
            Err(refusal) => {
                self.refuse(Kind::Health, entry.written, entry.value, refusal);
                None
            }
        }
    }

    /// What proves that a worker is ready.
    pub(super) fn ready(&mut self, asked: Asked<'_>) -> Readiness {
        match self.read(AppKey::Ready, readiness) {
            None => Readiness::Auto,
            Some(Ready::Word(word)) => word,
            Some(Ready::Http { at, .. }) => match asked.door(at) {
                Ok(door) => Readiness::Http(door),
                // In fork mode without a declared address the caller has more to say.
                Err(_) if asked.mode == Mode::Fork && asked.listen.is_empty() => {
                    Readiness::Http(Door::Any(None))
                }
                Err(refusal) => {
                    if let Some(entry) = self.section.get(AppKey::Ready).cloned() {
                        self.refuse(Kind::Ready, entry.written, entry.value, refusal);
                    }
                    Readiness::Auto
                }
            },
        }
    }

    /// Which path a worker that starts is asked for.
    pub(super) fn ready_path(&mut self) -> Option<String> {
        match readiness(self.section.get(AppKey::Ready)?.value()).ok()? {
            Ready::Http { path, .. } => Some(path),
            Ready::Word(_) => None,
        }
    }

    /// How they are asked.
    pub(super) fn check(&mut self) -> Option<Check> {
        // What is wrong with it has been said.
        Parts::read(self.section.get(AppKey::Health)?.value()).ok()?.check
    }
}

/// `ready = "http:…"` as it would be written.
pub(super) fn show_ready(door: Door, path: &str) -> String {
    match door {
        Door::Any(_) => format!("http:{path}"),
        Door::Port(port) => format!("http://:{port}{path}"),
        Door::At(address) => format!("http://{address}{path}"),
    }
}

/// As it would be written.
pub(super) fn show(health: &Health, check: &Check, listen: &[Listen]) -> String {
    let at = match health.way {
        Way::Command | Way::Connection(Door::Any(_)) => String::new(),
        Way::Connection(Door::Port(port)) => format!(", port = {port}"),
        Way::Connection(Door::At(address)) => {
            let named = listen.iter().find(|listen| listen.address == address);
            named.map(|listen| format!(", socket = \"{}\"", listen.name)).unwrap_or_default()
        }
    };
    let check = match check {
        Check::Http(path) => format!("http = \"{path}\""),
        Check::Tcp => "tcp = true".to_owned(),
        Check::Command(words) => format!("command = {}", serde_json::json!(words)),
    };
    format!(
        "{{ {check}{at}, interval = \"{}\", timeout = \"{}\", retries = {}, start_period = \"{}\" }}",
        show_duration(health.interval),
        show_duration(health.timeout),
        health.retries,
        show_duration(health.start_period)
    )
}
