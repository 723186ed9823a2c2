//! `report`: what somebody needs to know who looks for the cause of something, on one page that can be shown to
//! others. Values of variables, arguments and lines of workers are not part of it, and of the supervisor's own lines
//! and words of workers what looks like a secret is taken out. Where no supervisor answers, it says so, and the rest
//! is there all the same.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::config::keys;
use crate::config::plan;
use crate::control::protocol::{AppDetail, AppInfo, List};
use crate::control::render;
use crate::home::Home;
use crate::logs::escape::escape;
use crate::sys::facts::{self, Fact};

use super::pm2::Details;
use super::redact::redacted;

/// Lines of the supervisor's log.
const LINES: usize = 40;

/// So much of its end is read.
const TAIL: u64 = 64 * 1024;

/// The apps with their details, or why nobody tells of them.
pub(super) type Answer = Result<(List, Details), String>;

/// All of it, for programs.
pub(super) fn of(home: &Home, answer: Answer) -> Value {
    let root = Path::new("/");
    let own = std::process::id().cast_signed();
    let (list, details, problem) = match answer {
        Ok((list, details)) => (Some(list), details, None),
        Err(problem) => (None, Details::new(), Some(problem)),
    };
    let pid = list.as_ref().map_or(own, |list| list.daemon.pid);
    let apps: Vec<Value> = list.iter().flat_map(|list| &list.apps).map(|app| app_of(app, &details)).collect();
    let (log, unread) = match last_lines(&home.log()) {
        Ok(lines) => (lines, None),
        Err(error) => (Vec::new(), Some(format!("{}: {error}", home.log().display()))),
    };
    json!({
        "version": 1,
        "clusterd": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "static": cfg!(target_feature = "crt-static"),
        "supervisor": list.as_ref().map(|list| json!(list.daemon)),
        "no_supervisor": problem,
        "host": object(facts::of_host(root)),
        "process": object(facts::of_process(root, pid)),
        "apps": apps,
        "log": log,
        "no_log": unread,
    })
}

fn object(facts: Vec<Fact>) -> Value {
    Value::Object(facts.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
}

fn app_of(app: &AppInfo, details: &Details) -> Value {
    let mut told = json!(app);
    hide(&mut told);
    if let (Some(object), Some(detail)) =
        (told.as_object_mut(), details.get(&(app.namespace.clone(), app.name.clone())))
    {
        object.insert("runs".to_owned(), json!(program(detail)));
        object.insert("sharing".to_owned(), json!(detail.sharing));
        object.insert("settings".to_owned(), settings(detail));
    }
    told
}

/// Words of workers and of the host's may quote what they were given.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) => *text = redacted(text),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(members) => members.values_mut().for_each(hide),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What runs, without its arguments.
fn program(detail: &AppDetail) -> String {
    let named = match detail.settings.get("script") {
        Some(script) if is_line(script, detail) => program_of_line(script).unwrap_or_else(|| "sh".to_owned()),
        Some(script) => script.clone(),
        None => shlex::split(&detail.command).and_then(|words| words.into_iter().next()).unwrap_or_default(),
    };
    let name = Path::new(&named).file_name().map(|name| name.to_string_lossy().into_owned());
    redacted(&name.unwrap_or_default())
}

/// With an interpreter of its own it is a file, also where its name has blanks.
fn is_line(script: &str, detail: &AppDetail) -> bool {
    script.contains(char::is_whitespace) && !detail.settings.contains_key("interpreter")
}

/// What stands behind the variables of a line for a shell. None where only a shell can tell what that is.
fn program_of_line(line: &str) -> Option<String> {
    const SYNTAX: [char; 9] = [';', '&', '|', '<', '>', '(', ')', '`', '{'];
    for word in shlex::split(line)? {
        if word.contains(SYNTAX) {
            return None;
        }
        if !word.contains('=') {
            return Some(word);
        }
    }
    None
}

/// Settings of kinds that cannot hold a secret, where they are not what holds without them.
fn settings(detail: &AppDetail) -> Value {
    let shown = |(name, value): (&String, &String)| {
        let key = keys::find(keys::APP, name)?;
        let usual = key.default.trim_matches('"');
        (plan::is_shown(key.kind) && value != usual).then(|| (name.clone(), json!(redacted(value))))
    };
    Value::Object(detail.settings.iter().filter_map(shown).collect::<Map<_, _>>())
}

/// The last lines of the supervisor's own log, harmless for a terminal.
fn last_lines(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    if skipped > 0 && !lines.is_empty() {
        // The first one may have lost its beginning.
        lines.remove(0);
    }
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Ok(last.iter().map(|line| redacted(&escape(line))).collect())
}

/// The same for people.
pub(super) fn text(report: &Value, list: Option<&List>) -> String {
    let mut out = String::new();
    let word = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    let linked = if report["static"] == true { "static" } else { "dynamic" };
    push(&mut out, format_args!("clusterd {} ({}, {linked})", word("clusterd"), word("build")));
    match list {
        Some(list) => {
            let daemon = &list.daemon;
            let uptime = daemon.uptime_ms / 1000;
            push(
                &mut out,
                format_args!(
                    "supervisor {} pid {}, up {uptime} s, home {}",
                    daemon.version, daemon.pid, daemon.home
                ),
            );
            push(&mut out, format_args!("control groups {}", daemon.control_groups));
        }
        None => push(&mut out, format_args!("no supervisor: {}", word("no_supervisor"))),
    }
    let process = if list.is_some() { "The supervisor's process" } else { "This process" };
    for (title, key) in [("Host", "host"), (process, "process")] {
        push(&mut out, format_args!("\n{title}"));
        for (name, value) in report[key].as_object().into_iter().flatten() {
            push(&mut out, format_args!("  {name}: {}", value.as_str().unwrap_or_default()));
        }
    }
    if let Some(list) = list {
        push(&mut out, format_args!("\nApps"));
        out.push_str(&render::list(list, None));
        for app in report["apps"].as_array().into_iter().flatten() {
            app_text(&mut out, app);
        }
    }
    push(&mut out, format_args!("\nThe supervisor's log, its last lines"));
    for line in report["log"].as_array().into_iter().flatten() {
        push(&mut out, format_args!("  {}", line.as_str().unwrap_or_default()));
    }
    if let Some(why) = report["no_log"].as_str() {
        push(&mut out, format_args!("  {why}; in the foreground it goes to standard error alone"));
    }
    out.trim_end().to_owned()
}

fn app_text(out: &mut String, app: &Value) {
    let word = |key: &str| app[key].as_str().unwrap_or("?").to_owned();
    push(out, format_args!("  {}/{}: runs {}", word("namespace"), word("name"), word("runs")));
    push(out, format_args!("    sharing: {}", word("sharing")));
    for (name, value) in app["settings"].as_object().into_iter().flatten() {
        push(out, format_args!("    {name} = {}", value.as_str().unwrap_or_default()));
    }
    for worker in app["workers"].as_array().into_iter().flatten() {
        let exit = &worker["last_exit"];
        if exit.is_object() {
            push(out, format_args!("    last end of {}: {exit}", worker["instance"]));
        }
    }
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_report_says_of_an_app_holds_no_argument_and_no_value() {
        let settings = [
            ("script", "server.js"),
            ("args", "[\"--token\",\"sesame\"]"),
            ("interpreter_args", "[\"sesame\"]"),
            ("env", "DB"),
            ("instances", "4"),
            ("kill_timeout", "9s"),
            ("max_surge", "1"),
        ];
        let detail = AppDetail {
            command: "node server.js --token sesame".to_owned(),
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..AppDetail::default()
        };
        let told = super::settings(&detail);
        assert_eq!(told, json!({ "instances": "4", "kill_timeout": "9s" }));
        assert_eq!(program(&detail), "server.js");
        let exact = AppDetail { command: "/opt/bin/run sesame".to_owned(), ..AppDetail::default() };
        assert_eq!(program(&exact), "run");
    }

    #[test]
    fn what_a_line_runs_is_told_without_variables_and_arguments() {
        for (line, runs) in [
            ("STRIPE=sesame sleep 1000", "sleep"),
            ("A='sesame one' B=\"sesame two\" /usr/bin/node x.js sesame", "node"),
            ("A=sesame;login sesame", "sh"),
            ("A=$(cat sesame) node x.js", "sh"),
            ("A=${B:-sesame one} node x.js", "sh"),
            ("A=$B $HOME/bin/server sesame", "server"),
            ("A=sesame B=sesame", "sh"),
            ("A='sesame node", "sh"),
            ("A=sesame >sesame node", "sh"),
            ("npm start", "npm"),
        ] {
            let settings = [("script".to_owned(), line.to_owned())].into();
            let detail = AppDetail { command: line.to_owned(), settings, ..AppDetail::default() };
            assert_eq!(program(&detail), runs, "{line}");
        }
        let settings = [("script", "/srv/my server.js"), ("interpreter", "node")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(program(&AppDetail { settings, ..AppDetail::default() }), "my server.js");
    }

    #[test]
    fn of_a_long_log_the_last_lines_are_told_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clusterd.log");
        let lines: Vec<String> =
            (0..5000).map(|number| format!("{number} DB_PASSWORD=sesame \u{1b}[2J end")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let told = last_lines(&path).unwrap();
        assert_eq!(told.len(), LINES);
        assert_eq!(told[0], "4960 DB_PASSWORD=[hidden] \\x1b[2J end");
        assert!(last_lines(&folder.path().join("none")).is_err());
    }
}
