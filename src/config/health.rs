//! `ready` and `health`: what a worker must show to count as ready, and how it is asked whether it is well.

use std::time::Duration;

use toml::de::DeValue;

use super::error::quoted;
use super::keys::{AppKey, Kind};
use super::raw;
use super::reader::Reader;
use super::units::show_duration;
use super::value::{self, Refusal};
use super::{Check, words};
use crate::supervisor::policy::{Health, Mode, Readiness, Way};

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
const RETRIES: u32 = 3;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The words of `ready`, with the path of `http:/path`.
pub(super) fn readiness(value: &DeValue<'_>) -> Result<(Readiness, Option<String>), Refusal> {
    let text = value::text(value)?;
    if let Some(path) = text.strip_prefix("http:") {
        return Ok((Readiness::Http, Some(http_path(path)?)));
    }
    let ready = match text {
        "auto" => Readiness::Auto,
        "notify" => Readiness::Notify,
        "ipc" => Readiness::Ipc,
        "listen" => Readiness::Listen,
        "exec" => Readiness::Exec,
        _ => return Err(Refusal::WRONG),
    };
    Ok((ready, None))
}

/// A path as it stands in a request line.
fn http_path(path: &str) -> Result<String, Refusal> {
    let plain = path.bytes().all(|b| b.is_ascii_graphic());
    if path.starts_with('/') && plain && path.len() <= 1024 {
        return Ok(path.to_owned());
    }
    Err(Refusal::said(
        format!("{} is no path of a request", quoted(path)),
        "write a path from / on, without blanks: \"/healthz\"; the worker's own address is known",
    ))
}

/// A `health` table in its parts.
struct Parts {
    check: Option<Check>,
    interval: Duration,
    timeout: Duration,
    retries: u32,
    start_period: Duration,
}

impl Parts {
    fn read(value: &DeValue<'_>) -> Result<Parts, Refusal> {
        let mut parts = Parts {
            check: None,
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
                "http" => parts.ask(Check::Http(http_path(value::text(value)?)?))?,
                "tcp" if value::flag(value)? => parts.ask(Check::Tcp)?,
                "tcp" => {}
                "command" => parts.ask(Check::Command(vector(entry.value)?))?,
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
    pub(super) fn health(&mut self, mode: Mode, declares_listen: bool) -> Option<Health> {
        let entry = self.section.get(AppKey::Health)?.clone();
        let parts = match Parts::read(entry.value()) {
            Ok(parts) => parts,
            Err(refusal) => {
                self.refuse(Kind::Health, entry.written, entry.value, refusal);
                return None;
            }
        };
        let way = match parts.check {
            Some(Check::Command(_)) => Way::Command,
            Some(Check::Http(_) | Check::Tcp) => Way::Connection,
            None => {
                let refusal = Refusal::said("says nothing of how to ask", "add http, tcp or command");
                self.refuse(Kind::Health, entry.written, entry.value, refusal);
                return None;
            }
        };
        if way == Way::Connection && mode == Mode::Fork && !declares_listen {
            self.conflict(
                AppKey::Health,
                "in fork mode nobody knows on which port a server listens that opens it itself",
                "declare the port in listen, write exec_mode = \"cluster\", or use command = […]",
            );
        }
        let Parts { interval, timeout, retries, start_period, .. } = parts;
        Some(Health { way, interval, timeout, retries, start_period })
    }

    /// Which path a worker that starts is asked for.
    pub(super) fn ready_path(&mut self) -> Option<String> {
        readiness(self.section.get(AppKey::Ready)?.value()).ok()?.1
    }

    /// How they are asked.
    pub(super) fn check(&mut self) -> Option<Check> {
        // What is wrong with it has been said.
        Parts::read(self.section.get(AppKey::Health)?.value()).ok()?.check
    }
}

/// As it would be written.
pub(super) fn show(health: &Health, check: &Check) -> String {
    let check = match check {
        Check::Http(path) => format!("http = \"{path}\""),
        Check::Tcp => "tcp = true".to_owned(),
        Check::Command(words) => format!("command = {}", serde_json::json!(words)),
    };
    format!(
        "{{ {check}, interval = \"{}\", timeout = \"{}\", retries = {}, start_period = \"{}\" }}",
        show_duration(health.interval),
        show_duration(health.timeout),
        health.retries,
        show_duration(health.start_period)
    )
}
