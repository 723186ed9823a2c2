//! Tables → [`Config`]: every value checked, every default applied. Reads on after a mistake, so that all of
//! a file's mistakes are reported at once; a file with one of them yields no configuration at all.

use std::ops::Range;

use toml::de::DeTable;

use super::app::{Draft, read_app};
use super::appended;
use super::changes::{self, Changes};
use super::check;
use super::error::{Collector, Diagnostics, Problem, quoted};
use super::keys::{self, DaemonKey};
use super::raw::{self, Entry, MAX_TEXT, Other};
use super::reader::{Reader, join};
use super::value;
use super::{Config, DaemonConfig, Host, http};

/// Apps that one file can hold.
const MAX_APPS: usize = 1000;

/// Reads a file's text as what it means on this host. `source` is what the file is called in errors: its
/// path, or `standard input`.
///
/// # Errors
/// Everything that is wrong, at most [`super::error::MAX_PROBLEMS`] in detail.
pub fn load(text: &str, source: &str, host: &Host) -> Result<Config, Diagnostics> {
    if text.len() > MAX_TEXT {
        return Err(too_long(text, source));
    }
    read(text, source, host, None)
}

/// The same of a text that [`load`] takes, with what was told of one of its apps since. Problems are then those of what
/// was told; their places mean nothing.
///
/// # Errors
/// As [`load`].
pub fn load_changed(text: &str, source: &str, host: &Host, changes: &Changes) -> Result<Config, Diagnostics> {
    read(&changes.behind(text), source, host, Some(changes))
}

fn read(text: &str, source: &str, host: &Host, changes: Option<&Changes>) -> Result<Config, Diagnostics> {
    let mut collector = Collector::new(text, source);
    let tree = raw::parse(text, &mut collector);
    let mut config = Config { daemon: DaemonConfig::default(), apps: Vec::new() };
    if !collector.has_broken_header() {
        config = read_file(&tree, host, changes, &mut collector);
    }
    match collector.finish() {
        Some(diagnostics) => Err(diagnostics),
        None => Ok(config),
    }
}

fn too_long(text: &str, source: &str) -> Diagnostics {
    let mut collector = Collector::new("", source);
    let place = Some(collector.place(0..0));
    collector.add(Problem {
        place,
        app: None,
        key: None,
        message: format!("expected at most {MAX_TEXT} bytes, got {}", text.len()),
        expected: Some(format!("at most {MAX_TEXT} bytes")),
        help: Some("is this an ecosystem file?".to_owned()),
    });
    collector.finish().expect("a problem was added")
}

fn read_file(
    tree: &DeTable<'_>,
    host: &Host,
    changes: Option<&Changes>,
    collector: &mut Collector<'_>,
) -> Config {
    let mut config = Config { daemon: DaemonConfig::default(), apps: Vec::new() };
    let (mut apps, mut told) = (None, None);
    for entry in raw::entries(tree) {
        match entry.written {
            "apps" => apps = Some(entry),
            changes::TABLE if changes.is_some() => told = entry.value().as_table(),
            "daemon" => config.daemon = read_daemon(&entry, host, collector),
            _ => unknown_at_top(&entry, collector),
        }
    }
    let mut drafts = match apps {
        Some(entry) => read_apps(&entry, host, changes.zip(told), collector),
        None => {
            no_apps(0..0, collector);
            return config;
        }
    };
    if !collector.is_broken() {
        check::all(&drafts, host, collector);
    }
    // By the names that the file has: the profile is put behind them afterwards.
    let chosen: Vec<bool> =
        drafts.iter().map(|draft| host.only.is_empty() || host.only.contains(&draft.app.name)).collect();
    appended::rename(&mut drafts, collector);
    let chosen = drafts.into_iter().zip(chosen).filter(|(_, chosen)| *chosen);
    config.apps = chosen.map(|(draft, _)| draft.app).collect();
    if let Some(interval) = config.daemon.poll_interval {
        for app in &mut config.apps {
            app.policy.poll_interval = interval;
        }
    }
    config
}

fn unknown_at_top(entry: &Entry<'_>, collector: &mut Collector<'_>) {
    let help = if keys::find(keys::APP, entry.written).is_some() || entry.written.starts_with("env_") {
        Some("keys of an app stand below the line [[apps]]".to_owned())
    } else if keys::find(keys::DAEMON, entry.written).is_some() {
        Some("keys of clusterd itself stand below the line [daemon]".to_owned())
    } else if matches!(entry.written, "deploy" | "static" | "pm2") {
        Some("known to PM2, not supported by this version of clusterd".to_owned())
    } else {
        match keys::nearest(entry.written, ["apps", "daemon"]) {
            Some("apps") => Some("did you mean [[apps]]?".to_owned()),
            Some(_) => Some("did you mean [daemon]?".to_owned()),
            None => Some("a file consists of [[apps]] tables, and [daemon]".to_owned()),
        }
    };
    let place = Some(collector.place(entry.key_span.clone()));
    let message = format!("unknown key {}", quoted(entry.written));
    collector.add(Problem { place, app: None, key: None, message, expected: None, help });
}

fn no_apps(span: Range<usize>, collector: &mut Collector<'_>) {
    if collector.is_broken() {
        return;
    }
    let place = Some(collector.place(span));
    collector.add(Problem {
        place,
        app: None,
        key: Some("apps".to_owned()),
        message: "expected at least one app, got none".to_owned(),
        expected: Some("at least one app".to_owned()),
        help: Some("write a line [[apps]], and below it script = \"server.js\"".to_owned()),
    });
}

fn read_daemon(entry: &Entry<'_>, host: &Host, collector: &mut Collector<'_>) -> DaemonConfig {
    let mut config = DaemonConfig::default();
    let Some(table) = entry.value().as_table() else {
        let place = Some(collector.place(entry.key_span.clone()));
        collector.add(Problem {
            place,
            app: None,
            key: Some("daemon".to_owned()),
            message: format!("expected one table, got {}", value::shown(entry.value())),
            expected: Some("one table".to_owned()),
            help: Some("write [daemon], in single brackets".to_owned()),
        });
        return config;
    };
    let section = raw::section(table, keys::DAEMON, None, collector, &mut |_| Other::Unknown { help: None });
    let mut reader = Reader { section, table: keys::DAEMON, app: None, collector };
    config.log_dir =
        reader.read(DaemonKey::LogDir, |value| value::path(value).map(|path| join(&host.folder, path)));
    config.log_files = reader.flag(DaemonKey::LogFiles);
    config.state_dir =
        reader.read(DaemonKey::StateDir, |value| value::path(value).map(|path| join(&host.folder, path)));
    config.poll_interval = reader.duration(DaemonKey::PollInterval);
    config.shutdown_timeout = reader.duration(DaemonKey::ShutdownTimeout);
    config.http = reader.read(DaemonKey::Http, http::read);
    config
}

fn read_apps(
    entry: &Entry<'_>,
    host: &Host,
    told: Option<(&Changes, &DeTable<'_>)>,
    collector: &mut Collector<'_>,
) -> Vec<Draft> {
    let problem = |place, message, help: &str| Problem {
        place: Some(place),
        app: None,
        key: Some("apps".to_owned()),
        message,
        expected: Some("an array of tables".to_owned()),
        help: Some(help.to_owned()),
    };
    let Some(items) = entry.value().as_array() else {
        let place = collector.place(entry.key_span.clone());
        let message = format!("expected an array of tables, got {}", value::shown(entry.value()));
        collector.add(problem(place, message, "write [[apps]], in double brackets, above each app"));
        return Vec::new();
    };
    if items.is_empty() {
        no_apps(entry.key_span.clone(), collector);
    }
    if items.len() > MAX_APPS {
        let place = collector.place(entry.key_span.clone());
        let message = format!("expected at most {MAX_APPS} apps, got {}", items.len());
        collector.add(problem(place, message, "one app can have many workers: instances = 4"));
    }
    let mut drafts = Vec::new();
    for (at, item) in items.iter().take(MAX_APPS).enumerate() {
        let Some(table) = item.get_ref().as_table() else {
            let place = collector.place(item.span());
            let message = format!("expected a table, got {}", value::shown(item.get_ref()));
            collector.add(problem(place, message, "write [[apps]], in double brackets, above each app"));
            continue;
        };
        let draft = read_app(table, item.span(), (at + 1, None), host, collector);
        let told = told.filter(|(changes, _)| draft.is_called(&changes.namespace, &changes.name));
        drafts.push(match told {
            Some((_, told)) => read_app(table, item.span(), (at + 1, Some(told)), host, collector),
            None => draft,
        });
    }
    drafts
}
