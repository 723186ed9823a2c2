//! What the client shows to people: facts → text. Pure: the width is an argument, and styles are ANSI
//! sequences that the writer strips where no terminal reads them.
//!
//! On a terminal tables fit its width; elsewhere every column is there, whole. Everything that came from
//! a worker or a file goes through [`escape`]: no program under the supervisor can move the cursor,
//! recolour or rewrite what its operator sees.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;
use unicode_width::UnicodeWidthStr;

use super::protocol::{
    AppDetail, AppFailure, AppInfo, Error, GroupInfo, LastExitInfo, List, Plan, Progress, ReloadInfo,
    UnservedInfo, WorkerInfo,
};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Between two columns.
const GAP: usize = 2;

/// No column is cut below this.
const LEAST_WIDTH: usize = 8;

/// Text that cannot do anything but be read: control characters (C0 but the tab, DEL, C1), line and
/// paragraph separators and the marks that turn the direction of writing are spelt out.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\t' => safe.push(char),
            '\0'..='\x1f' | '\x7f' => push(&mut safe, format_args!("\\x{:02x}", char as u32)),
            '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => push(&mut safe, format_args!("\\u{{{:x}}}", char as u32)),
            char => safe.push(char),
        }
    }
    safe
}

/// A span of time in at most two units, without blanks: `850ms`, `42s`, `5m30s`, `3h12m`, `2d4h`.
pub fn uptime(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let two = |big: u64, unit, small: u64, sub| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{sub}") }
    };
    match seconds {
        0 => format!("{milliseconds}ms"),
        1..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, 'm', seconds % 60, 's'),
        3_600..86_400 => two(seconds / 3_600, 'h', seconds % 3_600 / 60, 'm'),
        86_400.. => two(seconds / 86_400, 'd', seconds % 86_400 / 3_600, 'h'),
    }
}

/// A size in powers of 1024: `512.0 MiB`.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// `list`: one row per worker. `width` is the terminal's; none: not a terminal.
pub fn list(list: &List, width: Option<usize>) -> String {
    if list.apps.is_empty() {
        return "No apps. Start some: clusterd start ecosystem.toml\n".to_owned();
    }
    let grouped = width.is_none() || list.apps.iter().any(|app| app.namespace != "default");
    let counted = list.apps.iter().flat_map(|app| &app.workers).any(|worker| worker.connections.is_some());
    let watched = list.apps.iter().any(|app| app.watching);
    let columns: Vec<&Field> = FIELDS
        .iter()
        .filter(|field| match field.title {
            "namespace" => grouped,
            "conns" => counted,
            "watching" => watched,
            _ => true,
        })
        .collect();
    let mut rows = Vec::new();
    for app in &list.apps {
        let workers = app.workers.iter().map(Some).chain(app.workers.is_empty().then_some(None));
        rows.extend(workers.map(|worker| columns.iter().map(|field| (field.cell)(app, worker)).collect()));
    }
    let mut text = table(&columns.iter().map(|field| field.column()).collect::<Vec<_>>(), &rows, width);
    if let Some(width) = width {
        text += &notes(list, width);
    }
    text
}

/// `describe`: a block per app.
pub fn describe(list: &List, width: Option<usize>) -> String {
    let blocks: Vec<String> = list.apps.iter().map(|app| describe_app(app, width)).collect();
    blocks.join("\n")
}

/// One step, as a line for files and pipes.
pub fn progress(step: &Progress) -> String {
    format!("{}: {}{}", about(step), share(step), escape(&step.message))
}

/// The app, and which of its workers.
fn about(step: &Progress) -> String {
    match step.instance {
        Some(instance) => format!("{}/{instance}", escape(&step.app)),
        None => escape(&step.app),
    }
}

/// Why something failed, with each failed app's reason and its worker's last lines.
pub fn failure(error: &Error) -> String {
    let bold_red = RED.bold();
    let mut text = format!("{bold_red}error:{bold_red:#} {}\n", indented(&error.message));
    for failure in &error.failures {
        text += &app_failure(failure, error.message.contains(&failure.message));
    }
    text
}

/// `is_told`: the reason stands in the line above already.
fn app_failure(failure: &AppFailure, is_told: bool) -> String {
    let has_lines = !failure.last_lines.is_empty();
    let mut text = match (is_told, has_lines) {
        (true, false) => String::new(),
        (true, true) => format!("  {BOLD}{}{BOLD:#}: the worker's last lines:\n", escape(&failure.app)),
        (false, _) => format!("  {BOLD}{}{BOLD:#}: {}\n", escape(&failure.app), indented(&failure.message)),
    };
    if has_lines && !is_told {
        text += "    the worker's last lines:\n";
    }
    for line in &failure.last_lines {
        push(&mut text, format_args!("    {DIM}|{DIM:#} {}\n", escape(line)));
    }
    text
}

/// A sentence of the supervisor's own. It may have several lines, which stay lines.
pub fn message(text: &str) -> String {
    text.trim_end().lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// A variable on one line: what would break it, or steer the terminal, is escaped.
pub fn variable(name: &str, value: &str) -> String {
    format!("{}={}", escape(name), escape(value))
}

fn indented(text: &str) -> String {
    message(text).replace('\n', "\n  ")
}

/// What `apply` does: a table on a terminal of this width, else a line for each app and each worker.
pub fn plan(plan: &Plan, width: Option<usize>) -> String {
    const COLUMNS: [Column; 5] = [
        Column { title: "app", right: false, weight: 255 },
        Column { title: "step", right: false, weight: 255 },
        Column { title: "id", right: true, weight: 20 },
        Column { title: "worker", right: false, weight: 100 },
        Column { title: "why", right: false, weight: 200 },
    ];
    let mut rows = Vec::new();
    let mut text = String::new();
    for app in &plan.apps {
        let why = app.why.join("; ");
        let style = if app.step == "keep" { DIM } else { YELLOW };
        let mut head = vec![Cell::new(&app.app, BOLD), Cell::new(&app.step, style)];
        push(&mut text, format_args!("{}: {}: {}\n", escape(&app.app), escape(&app.step), escape(&why)));
        for worker in &app.workers {
            let id = worker.id.map_or_else(|| "new".to_owned(), |id| format!("id {id}"));
            let (name, action) = (format!("{}/{}", app.app, worker.instance), &worker.action);
            push(&mut text, format_args!("  {} ({id}): {}\n", escape(&name), escape(action)));
            let mut row = std::mem::replace(&mut head, vec![Cell::plain(""), Cell::plain("")]);
            let first = !row[0].text.is_empty();
            row.push(number(worker.id));
            row.push(Cell::plain(&format!("{}: {action}", worker.instance)));
            row.push(Cell::plain(if first { &why } else { "" }));
            rows.push(row);
        }
        if !head[0].text.is_empty() {
            rows.push([head, vec![Cell::nothing(), Cell::nothing(), Cell::plain(&why)]].concat());
        }
    }
    let mut shown = if width.is_some() { table(&COLUMNS, &rows, width) } else { text };
    if plan.omitted > 0 {
        push(&mut shown, format_args!("... and {} more workers\n", plan.omitted));
    }
    shown
}

/// Status lines that are drawn over and over on a terminal: one per app, in the order in which they
/// first had something to tell.
#[derive(Debug)]
pub struct Board {
    width: usize,
    height: usize,
    lines: Vec<(String, String)>,
    drawn: usize,
}

impl Board {
    /// For a terminal of this size, in columns and rows.
    pub fn new(width: usize, height: usize) -> Board {
        Board { width: width.max(2), height: height.max(2), lines: Vec::new(), drawn: 0 }
    }

    /// Takes one step, and gives what to write: the cursor goes back to the first line, and everything
    /// is drawn anew. No line wraps, or going back would not find its way.
    pub fn update(&mut self, step: &Progress) -> String {
        let text = format!("{}{}", share(step), escape(&step.message).replace('\t', " "));
        match self.lines.iter_mut().find(|(app, _)| *app == step.app) {
            Some((_, line)) => *line = text,
            None => self.lines.push((step.app.clone(), text)),
        }
        self.draw()
    }

    fn draw(&mut self) -> String {
        let mut text = String::new();
        if self.drawn > 0 {
            push(&mut text, format_args!("\x1b[{}A", self.drawn));
        }
        text += "\r\x1b[J";
        let names = self.lines.iter().map(|(app, _)| app.width()).max().unwrap_or(0).min(self.width / 2);
        // The last row is the cursor's.
        let room = self.height - 1;
        let shown = if self.lines.len() > room { room - 1 } else { self.lines.len() };
        for (app, line) in &self.lines[..shown] {
            let name = padded(&cut(&escape(app), names), names, false);
            let line = cut(line, self.width.saturating_sub(names + GAP + 1));
            push(&mut text, format_args!("{BOLD}{name}{BOLD:#}  {line}\n"));
        }
        let hidden = self.lines.len() - shown;
        if hidden > 0 {
            push(
                &mut text,
                format_args!("{DIM}{}{DIM:#}\n", cut(&format!("… {hidden} more"), self.width - 1)),
            );
        }
        self.drawn = shown + usize::from(hidden > 0);
        text
    }
}

fn share(step: &Progress) -> String {
    match (step.done, step.total) {
        (Some(done), Some(total)) => format!("{done}/{total} "),
        (Some(_) | None, None) | (None, Some(_)) => String::new(),
    }
}

/// One column of `list`.
struct Field {
    title: &'static str,
    right: bool,
    /// The lower, the sooner it is left out on a narrow terminal; 255 stays.
    weight: u8,
    cell: fn(&AppInfo, Option<&WorkerInfo>) -> Cell,
}

impl Field {
    fn column(&self) -> Column {
        Column { title: self.title, right: self.right, weight: self.weight }
    }
}

const FIELDS: &[Field] = &[
    Field { title: "id", right: true, weight: 255, cell: |_, worker| number(worker.map(|worker| worker.id)) },
    Field { title: "name", right: false, weight: 255, cell: |app, _| Cell::new(&app.name, BOLD) },
    Field { title: "namespace", right: false, weight: 10, cell: |app, _| Cell::plain(&app.namespace) },
    Field { title: "mode", right: false, weight: 30, cell: |app, _| Cell::plain(&app.mode) },
    Field {
        title: "pid",
        right: true,
        weight: 80,
        cell: |_, worker| number(worker.and_then(|worker| worker.pid)),
    },
    Field {
        title: "status",
        right: false,
        weight: 255,
        cell: |app, worker| worker.map_or_else(|| status(&app.status), standing),
    },
    Field {
        title: "↺",
        right: true,
        weight: 90,
        cell: |_, worker| number(worker.map(|worker| worker.restarts)),
    },
    Field { title: "uptime", right: true, weight: 70, cell: |_, worker| worker_uptime(worker) },
    Field { title: "cpu", right: true, weight: 50, cell: |_, worker| cpu(worker) },
    Field { title: "mem", right: true, weight: 60, cell: |_, worker| memory(worker) },
    Field {
        title: "gen",
        right: true,
        weight: 40,
        cell: |app, worker| number(Some(worker.map_or(app.generation, |worker| worker.generation))),
    },
    Field {
        title: "conns",
        right: true,
        weight: 85,
        cell: |_, worker| number(worker.and_then(|worker| worker.connections)),
    },
    Field {
        title: "watching",
        right: false,
        // Only there where somebody asked for it, who wants to see that it is so.
        weight: 65,
        cell: |app, _| if app.watching { Cell::plain("enabled") } else { Cell::new("disabled", DIM) },
    },
];

fn number<T: ToString>(value: Option<T>) -> Cell {
    value.map_or_else(Cell::nothing, |value| Cell::plain(&value.to_string()))
}

fn status(word: &str) -> Cell {
    let style = match word {
        "online" => GREEN,
        "errored" => RED.bold(),
        "stopped" => DIM,
        _ => YELLOW,
    };
    Cell::new(word, style)
}

/// A worker's status, and that it serves nobody where it does not listen.
fn standing(worker: &WorkerInfo) -> Cell {
    if worker.no_listener && worker.status == "online" {
        return Cell::new("online (no listener)", GREEN);
    }
    status(&worker.status)
}

fn worker_uptime(worker: Option<&WorkerInfo>) -> Cell {
    number(worker.filter(|worker| worker.pid.is_some()).map(|worker| uptime(worker.uptime_ms)))
}

fn cpu(worker: Option<&WorkerInfo>) -> Cell {
    number(worker.and_then(|worker| worker.cpu_percent).map(|percent| format!("{percent:.1}%")))
}

fn memory(worker: Option<&WorkerInfo>) -> Cell {
    number(worker.and_then(|worker| worker.memory_bytes).map(size))
}

/// Below the table: what a table of workers does not show.
fn notes(list: &List, width: usize) -> String {
    let mut text = String::new();
    for app in &list.apps {
        for unserved in &app.unserved {
            let line = format!("{}: {}", escape(&app.name), escape(&unserved_words(unserved)));
            push(&mut text, format_args!("{YELLOW}{}{YELLOW:#}\n", cut(&line, width)));
        }
        if !app.waits_for.is_empty() {
            let line = format!("{} waits for {}", escape(&app.name), escape(&app.waits_for.join(", ")));
            push(&mut text, format_args!("{YELLOW}{}{YELLOW:#}\n", cut(&line, width)));
        }
        for warning in &app.warnings {
            let line = format!("{}: {}", escape(&app.name), escape(warning));
            push(&mut text, format_args!("{YELLOW}{}{YELLOW:#}\n", cut(&line, width)));
        }
        if let Some(reload) = &app.reload {
            let line = format!("{}: reload {}", escape(&app.name), escape(&reload_words(app, reload)));
            push(&mut text, format_args!("{YELLOW}{}{YELLOW:#}\n", cut(&line, width)));
        }
    }
    let daemon = &list.daemon;
    let line =
        format!("clusterd {}, pid {}, up {}", escape(&daemon.version), daemon.pid, uptime(daemon.uptime_ms));
    push(&mut text, format_args!("{DIM}{}{DIM:#}\n", cut(&line, width)));
    text
}

fn unserved_words(unserved: &UnservedInfo) -> String {
    let clients = match unserved.waiting {
        0 => "no client waits".to_owned(),
        1 => "1 client waits".to_owned(),
        more => format!("{more} clients wait"),
    };
    format!("nobody serves {}, {clients}", unserved.listen)
}

fn reload_words(app: &AppInfo, reload: &ReloadInfo) -> String {
    let mut text = format!("{} {}/{}", reload.state, reload.done, reload.total);
    if let Some(percent) = reload.share_percent {
        push(&mut text, format_args!(", {percent}% of new connections"));
    }
    if let Some(reason) = &reload.reason {
        push(&mut text, format_args!(": {reason}"));
    }
    if reload.state == "canary" {
        push(&mut text, format_args!("; `clusterd promote {0}` or `clusterd rollback {0}`", app.name));
    }
    text
}

fn describe_app(app: &AppInfo, width: Option<usize>) -> String {
    let mut text = format!("{BOLD}{}{BOLD:#}\n", escape(&app.name));
    let mut facts = vec![
        ("namespace", Some(app.namespace.clone())),
        ("status", Some(app.status.clone())),
        ("mode", Some(app.mode.clone())),
        ("instances", Some(app.instances.to_string())),
        ("generation", Some(app.generation.to_string())),
        ("listen", some_list(&app.listen)),
        ("unserved", some_list(&app.unserved.iter().map(unserved_words).collect::<Vec<_>>())),
        ("waits for", some_list(&app.waits_for)),
        ("reload", app.reload.as_ref().map(|reload| reload_words(app, reload))),
    ];
    facts.extend(app.warnings.iter().map(|warning| ("warning", Some(warning.clone()))));
    if let Some(detail) = &app.detail {
        facts.extend(detail_facts(detail));
        facts.extend(detail.groups.iter().map(|group| ("control group", Some(group_words(group)))));
    }
    push_facts(&mut text, &facts);
    if let Some(detail) = app.detail.as_ref().filter(|detail| !detail.settings.is_empty()) {
        text += "\n";
        let settings: Vec<_> =
            detail.settings.iter().map(|(key, value)| (key.as_str(), Some(value.clone()))).collect();
        push_facts(&mut text, &settings);
    }
    if !app.workers.is_empty() {
        text += "\n";
        text += &workers(app, width);
    }
    text
}

fn detail_facts(detail: &AppDetail) -> [(&'static str, Option<String>); 13] {
    [
        ("command", Some(detail.command.clone())),
        ("cwd", Some(detail.cwd.clone())),
        ("file", detail.file.clone()),
        ("profile", detail.profile.clone()),
        ("out_file", detail.out_file.clone()),
        ("error_file", detail.error_file.clone()),
        ("log_file", detail.log_file.clone()),
        ("lines left out", detail.log_lines_left_out.map(|lines| lines.to_string())),
        ("journald dropped", detail.journal_lines_dropped.map(|lines| lines.to_string())),
        ("env", some_list(&detail.env)),
        ("watches", some_list(&detail.watches)),
        ("flags", (!detail.changed.is_empty()).then(|| detail.changed.join("; "))),
        ("sharing", Some(detail.sharing.clone()).filter(|text| !text.is_empty())),
    ]
}

/// Where it is, and what bounds it.
fn group_words(group: &GroupInfo) -> String {
    let bounds: Vec<String> = group.bounds.iter().map(|(file, text)| format!("{file} {text}")).collect();
    let bounds = if bounds.is_empty() { String::new() } else { format!(" ({})", bounds.join(", ")) };
    format!("{}{bounds}", group.path)
}

fn some_list(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(", "))
}

fn push_facts(text: &mut String, facts: &[(&str, Option<String>)]) {
    let shown = facts.iter().filter(|(_, value)| value.is_some());
    let keys = shown.map(|(key, _)| key.width()).max().unwrap_or(0);
    for (key, value) in facts {
        if let Some(value) = value {
            let key = padded(&escape(key), keys, false);
            push(text, format_args!("  {DIM}{key}{DIM:#}  {}\n", escape(value)));
        }
    }
}

fn workers(app: &AppInfo, width: Option<usize>) -> String {
    const COLUMNS: [Column; 13] = [
        Column { title: "id", right: true, weight: 255 },
        Column { title: "instance", right: true, weight: 20 },
        Column { title: "pid", right: true, weight: 200 },
        Column { title: "status", right: false, weight: 255 },
        Column { title: "ready", right: false, weight: 90 },
        Column { title: "gen", right: true, weight: 95 },
        Column { title: "↺", right: true, weight: 100 },
        Column { title: "unstable", right: true, weight: 10 },
        Column { title: "uptime", right: true, weight: 80 },
        Column { title: "cpu", right: true, weight: 30 },
        Column { title: "mem", right: true, weight: 60 },
        Column { title: "conns", right: true, weight: 50 },
        Column { title: "queue", right: true, weight: 45 },
    ];
    let row = |worker: &WorkerInfo| {
        vec![
            number(Some(worker.id)),
            number(Some(worker.instance)),
            number(worker.pid),
            standing(worker),
            Cell::plain(if worker.ready { "yes" } else { "no" }),
            number(Some(worker.generation)),
            number(Some(worker.restarts)),
            number(Some(worker.unstable_restarts)),
            worker_uptime(Some(worker)),
            cpu(Some(worker)),
            memory(Some(worker)),
            number(worker.connections),
            number(worker.queue_depth),
        ]
    };
    let mut text = table(&COLUMNS, &app.workers.iter().map(row).collect::<Vec<_>>(), width);
    for worker in &app.workers {
        if let Some(status) = &worker.status_text {
            push(&mut text, format_args!("  {} says: {}\n", worker.id, escape(status)));
        }
        if let Some(exit) = &worker.last_exit {
            push(&mut text, format_args!("  {} last ended: {}\n", worker.id, exit_words(exit)));
        }
    }
    text
}

fn exit_words(exit: &LastExitInfo) -> String {
    let how = match (&exit.signal, exit.code) {
        (Some(signal), _) => format!("killed by {}", escape(signal)),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "never ran".to_owned(),
    };
    let why = exit.message.as_ref().map(|message| format!(": {}", escape(message))).unwrap_or_default();
    format!("{how} ({}) at {}{why}", escape(&exit.reason), escape(&exit.at))
}

/// A table's column.
#[derive(Clone, Copy)]
struct Column {
    title: &'static str,
    right: bool,
    /// The lower, the sooner it is left out on a narrow terminal; 255 stays.
    weight: u8,
}

/// A table's cell: escaped.
#[derive(Clone)]
struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    fn new(text: &str, style: Style) -> Cell {
        Cell { text: escape(text).replace('\t', " "), style }
    }

    fn plain(text: &str) -> Cell {
        Cell::new(text, Style::new())
    }

    fn nothing() -> Cell {
        Cell::new("-", DIM)
    }
}

fn table(columns: &[Column], rows: &[Vec<Cell>], width: Option<usize>) -> String {
    let natural = |index: usize| {
        let cells = rows.iter().map(|row: &Vec<Cell>| row[index].text.width());
        cells.max().unwrap_or(0).max(columns[index].title.width())
    };
    let mut shown: Vec<(usize, usize)> = (0..columns.len()).map(|index| (index, natural(index))).collect();
    if let Some(width) = width {
        fit(&mut shown, columns, width);
    }
    let header: Vec<Cell> = columns.iter().map(|column| Cell::new(column.title, DIM)).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> = shown
            .iter()
            .map(|&(index, width)| {
                let style = row[index].style;
                let cell = padded(&cut(&row[index].text, width), width, columns[index].right);
                format!("{style}{cell}{style:#}")
            })
            .collect();
        push(&mut text, format_args!("{}\n", cells.join(&" ".repeat(GAP))));
    }
    text
}

/// Leaves out the least columns until the rest fits, then cuts the widest.
fn fit(shown: &mut Vec<(usize, usize)>, columns: &[Column], width: usize) {
    let total = |shown: &[(usize, usize)]| {
        shown.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP)
    };
    while total(shown) > width {
        let least = shown.iter().enumerate().min_by_key(|(_, (index, _))| columns[*index].weight);
        match least {
            Some((place, (index, _))) if columns[*index].weight < u8::MAX => drop(shown.remove(place)),
            Some(_) | None => break,
        }
    }
    while total(shown) > width {
        let widest = shown.iter_mut().max_by_key(|(_, width)| *width);
        match widest {
            Some((_, width)) if *width > LEAST_WIDTH => *width -= 1,
            Some(_) | None => break,
        }
    }
}

/// At most `width` columns of it, with an ellipsis where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for char in text.chars() {
        kept.push(char);
        if kept.width() + 1 > width {
            kept.pop();
            break;
        }
    }
    if width > 0 {
        kept.push('…');
    }
    kept
}

fn padded(text: &str, width: usize, right: bool) -> String {
    let blanks = " ".repeat(width.saturating_sub(text.width()));
    if right { format!("{blanks}{text}") } else { format!("{text}{blanks}") }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{DaemonInfo, PlanApp, PlanWorker};
    use proptest::prelude::*;

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn worker(id: u32, status: &str) -> WorkerInfo {
        WorkerInfo {
            id,
            instance: id,
            pid: Some(4000 + id as i32),
            status: status.into(),
            ready: status == "online",
            no_listener: false,
            status_text: None,
            generation: 3,
            uptime_ms: 65_000,
            restarts: 2,
            unstable_restarts: 0,
            cpu_percent: Some(1.25),
            memory_bytes: Some(48 * 1024 * 1024),
            connections: None,
            queue_depth: None,
            queue_limit: None,
            queue_dropped: None,
            last_exit: None,
        }
    }

    fn app(name: &str, workers: Vec<WorkerInfo>) -> AppInfo {
        AppInfo {
            name: name.into(),
            namespace: "default".into(),
            mode: "cluster".into(),
            status: "online".into(),
            generation: 3,
            instances: 2,
            listen: vec!["0.0.0.0:3000".into()],
            unserved: vec![],
            waits_for: vec![],
            watching: false,
            warnings: Vec::new(),
            reload: None,
            workers,
            detail: None,
        }
    }

    fn listing(apps: Vec<AppInfo>) -> List {
        let daemon = DaemonInfo {
            pid: 77,
            version: "0.1.0".into(),
            uptime_ms: 7_260_000,
            home: "/run/clusterd".into(),
            control_groups: String::new(),
        };
        List { version: 1, daemon, apps }
    }

    #[test]
    fn a_piped_table_has_every_column_whole() {
        let name = "a-name-that-is-much-longer-than-any-terminal-would-like-it-to-be";
        let text = stripped(&list(&listing(vec![app(name, vec![worker(0, "online")])]), None));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[0],
            ["id", "name", "namespace", "mode", "pid", "status", "↺", "uptime", "cpu", "mem", "gen"]
        );
        assert_eq!(
            lines[1],
            ["0", name, "default", "cluster", "4000", "online", "2", "1m5s", "1.2%", "48.0", "MiB", "3"]
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_table_on_a_terminal_never_is_wider_than_it() {
        let listing = listing(vec![
            app(
                "a-name-that-is-much-longer-than-any-terminal-would-like-it-to-be",
                vec![worker(0, "online")],
            ),
            app("東京東京東京東京東京東京", vec![worker(1, "waiting restart")]),
        ]);
        for width in 28..140 {
            let text = stripped(&list(&listing, Some(width)));
            for line in text.lines() {
                assert!(line.width() <= width, "{width}: {line:?}");
            }
            assert!(text.contains("status"), "{width}");
        }
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_columns_first() {
        let listing = listing(vec![app("api", vec![worker(0, "online")])]);
        let header = |width| stripped(&list(&listing, Some(width))).lines().next().unwrap().to_owned();
        assert!(header(100).contains("gen"));
        assert!(!header(50).contains("mode"));
        assert!(header(50).contains("pid"));
        assert!(!header(100).contains("namespace"), "only one namespace: nothing to tell");
    }

    #[test]
    fn who_asked_to_watch_sees_it_on_a_usual_terminal() {
        let mut watched =
            app("payments-api-gateway", vec![worker(100, "waiting restart"), worker(101, "online")]);
        watched.watching = true;
        let header = |width| {
            let text = stripped(&list(&listing(vec![watched.clone()]), Some(width)));
            text.lines().next().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(header(80), "id name pid status ↺ uptime mem watching");
        assert_eq!(header(60), "id name pid status ↺ uptime");
    }

    #[test]
    fn columns_line_up() {
        let text = stripped(&list(
            &listing(vec![app("api", vec![worker(9, "online"), worker(10, "errored")])]),
            None,
        ));
        let at = |line: usize, word: &str| text.lines().nth(line).unwrap().find(word).unwrap();
        assert_eq!(at(1, "online"), at(2, "errored"));
        assert_eq!(at(1, " 9"), at(2, "10"));
    }

    #[test]
    fn an_empty_list_says_what_to_do() {
        assert!(list(&listing(vec![]), None).contains("clusterd start"));
    }

    #[test]
    fn an_app_without_workers_is_still_a_row() {
        let mut stopped = app("api", vec![]);
        stopped.status = "stopped".into();
        let text = stripped(&list(&listing(vec![stopped]), None));
        assert!(text.lines().nth(1).unwrap().contains("stopped"), "{text}");
    }

    #[test]
    fn connections_are_a_column_when_they_were_counted() {
        let mut counted = worker(0, "online");
        counted.connections = Some(12);
        let text = stripped(&list(&listing(vec![app("api", vec![counted])]), None));
        assert!(text.lines().next().unwrap().ends_with("conns"));
        assert!(text.lines().nth(1).unwrap().ends_with("12"));
    }

    #[test]
    fn a_failed_reload_is_told_below_the_table() {
        let mut failed = app("api", vec![worker(0, "online")]);
        failed.reload = Some(ReloadInfo {
            state: "failed".into(),
            done: 1,
            total: 4,
            share_percent: None,
            reason: Some("not ready in 30 s".into()),
        });
        let text = stripped(&list(&listing(vec![failed]), Some(80)));
        assert!(text.contains("api: reload failed 1/4: not ready in 30 s"), "{text}");
        assert!(text.contains("clusterd 0.1.0, pid 77, up 2h1m"), "{text}");
    }

    #[test]
    fn that_nobody_serves_and_clients_wait_is_shown() {
        let mut down = app("api", vec![worker(0, "launching")]);
        down.listen = Vec::new();
        down.unserved = vec![UnservedInfo { listen: "0.0.0.0:3000".into(), waiting: 3 }];
        let list_text = stripped(&list(&listing(vec![down.clone()]), Some(80)));
        assert!(list_text.contains("api: nobody serves 0.0.0.0:3000, 3 clients wait\n"), "{list_text}");
        let text = stripped(&describe(&listing(vec![down]), None));
        assert!(text.contains("unserved    nobody serves 0.0.0.0:3000, 3 clients wait\n"), "{text}");
    }

    #[test]
    fn describe_shows_settings_and_how_workers_ended() {
        let mut ended = worker(0, "online");
        ended.last_exit = Some(LastExitInfo {
            code: Some(1),
            signal: None,
            reason: "crash".into(),
            message: None,
            at: "2026-01-01T00:00:00Z".into(),
        });
        let mut never = worker(1, "errored");
        never.last_exit = Some(LastExitInfo {
            code: None,
            signal: None,
            reason: "spawn".into(),
            message: Some("exec \"/srv/server\": no such file (ENOENT)".into()),
            at: "2026-01-01T00:00:00Z".into(),
        });
        let mut described = app("api", vec![ended, never]);
        described.detail = Some(AppDetail {
            file: Some("/srv/ecosystem.toml".into()),
            command: "node server.js".into(),
            cwd: "/srv".into(),
            env: vec!["PORT".into(), "NODE_ENV".into()],
            watches: vec!["/srv/src".into(), "/srv/lib".into()],
            changed: vec!["kill_timeout = 1600".into(), "args left out".into()],
            settings: [("kill_timeout".to_owned(), "1600ms".to_owned())].into(),
            ..AppDetail::default()
        });
        let text = stripped(&describe(&listing(vec![described]), None));
        for part in [
            "api\n",
            "  command     node server.js\n",
            "  env         PORT, NODE_ENV\n",
            "  watches     /srv/src, /srv/lib\n",
            "  flags       kill_timeout = 1600; args left out\n",
            "  kill_timeout  1600ms\n",
            "  0 last ended: exit code 1 (crash) at 2026-01-01T00:00:00Z\n",
            "  1 last ended: never ran (spawn) at 2026-01-01T00:00:00Z: exec \"/srv/server\": no such file (ENOENT)\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("profile"), "what is not set is not shown\n{text}");
    }

    #[test]
    fn what_a_worker_prints_cannot_touch_the_terminal() {
        let nasty = "\x1b[2J\rroot#\u{9b}31m \u{202e}gpj.exe\u{2066} \x7f\x07\ttab ü 東";
        let safe = escape(nasty);
        assert_eq!(safe, "\\x1b[2J\\x0droot#\\u{9b}31m \\u{202e}gpj.exe\\u{2066} \\x7f\\x07\ttab ü 東");
    }

    #[test]
    fn a_failure_shows_reason_and_last_lines_indented_and_escaped() {
        let error = Error {
            code: 1,
            message: "reload failed; the old workers serve on".into(),
            failures: vec![AppFailure {
                app: "api".into(),
                reason: "exited".into(),
                message: "a new worker exited with code 1".into(),
                last_lines: vec!["Error: \x1b[31mboom".into(), "    at x.js:1".into()],
            }],
        };
        assert_eq!(
            stripped(&failure(&error)),
            "error: reload failed; the old workers serve on\n  \
             api: a new worker exited with code 1\n    \
             the worker's last lines:\n    \
             | Error: \\x1b[31mboom\n    \
             |     at x.js:1\n"
        );
        let told = Error { message: "reload api: a new worker exited with code 1".into(), ..error };
        assert_eq!(
            stripped(&failure(&told)),
            "error: reload api: a new worker exited with code 1\n  \
             api: the worker's last lines:\n    \
             | Error: \\x1b[31mboom\n    \
             |     at x.js:1\n"
        );
    }

    fn step(app: &str, done: u32, message: &str) -> Progress {
        Progress {
            app: app.into(),
            event: "reload_progress".into(),
            id: None,
            instance: None,
            pid: None,
            generation: None,
            done: Some(done),
            total: Some(4),
            message: message.into(),
        }
    }

    #[test]
    fn live_progress_redraws_one_line_per_app_and_never_wraps() {
        let mut board = Board::new(30, 24);
        assert_eq!(
            stripped(&board.update(&step("api", 1, "ready"))).trim_start_matches('\r'),
            "api  1/4 ready\n"
        );
        board.update(&step("worker", 0, "starting"));
        let text = board.update(&step("api", 2, &"long ".repeat(30)));
        assert!(text.starts_with("\x1b[2A\r\x1b[J"), "{text:?}");
        let lines: Vec<String> = stripped(&text).lines().map(|line| line.replace('\r', "")).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.width() < 30), "{lines:?}");
        assert!(lines[0].ends_with('…'));
        assert_eq!(lines[1], "worker  0/4 starting");
    }

    #[test]
    fn more_apps_than_rows_do_not_scroll_the_board_away() {
        let mut board = Board::new(40, 4);
        let mut text = String::new();
        for app in ["a", "b", "c", "d", "e"] {
            text = board.update(&step(app, 0, "starting"));
        }
        assert_eq!(stripped(&text).lines().count(), 3);
        assert!(stripped(&text).contains("… 3 more"));
    }

    #[test]
    fn a_plain_step_is_one_line() {
        assert_eq!(progress(&step("api", 1, "worker 2\nready")), "api: 1/4 worker 2\\x0aready");
    }

    #[test]
    fn a_plan_is_lines_in_a_pipe_and_a_table_on_a_terminal() {
        let worker = |instance, id, action: &str| PlanWorker { instance, id, action: action.into() };
        let app = |app: &str, step: &str, why: &[&str], workers| PlanApp {
            app: app.into(),
            step: step.into(),
            why: why.iter().map(|&why| why.into()).collect(),
            workers,
        };
        let workers = vec![worker(0, Some(3), "replace"), worker(1, None, "start")];
        let apps = vec![
            app("api", "reload", &["env.PORT changed", "instances 1 -> 2"], workers),
            app("evil\x1b[2J", "keep", &["unchanged"], Vec::new()),
        ];
        let plan = Plan { dry_run: true, apps, omitted: 4 };
        let plain = "api: reload: env.PORT changed; instances 1 -> 2\n  api/0 (id 3): replace\n  api/1 (new): start\n\
                     evil\\x1b[2J: keep: unchanged\n... and 4 more workers\n";
        assert_eq!(stripped(&super::plan(&plan, None)), plain);
        let table = stripped(&super::plan(&plan, Some(100)));
        assert!(table.starts_with("app "), "{table}");
        assert!(table.contains("env.PORT changed; instances 1 -> 2") && !table.contains('\x1b'), "{table}");
        assert!(table.lines().count() == 5 && table.lines().all(|line| line.width() <= 100), "{table}");
    }

    #[test]
    fn spans_and_sizes_are_short() {
        for (milliseconds, text) in [
            (0, "0ms"),
            (850, "850ms"),
            (1_999, "1s"),
            (60_000, "1m"),
            (330_000, "5m30s"),
            (11_520_000, "3h12m"),
            (187_200_000, "2d4h"),
        ] {
            assert_eq!(uptime(milliseconds), text);
        }
        assert!(uptime(u64::MAX).ends_with('h'));
        assert_eq!(size(512 * 1024 * 1024), "512.0 MiB");
    }

    proptest! {
        #[test]
        fn escaped_text_has_no_control_characters(text in any::<String>()) {
            prop_assert!(escape(&text).chars().all(|char| char == '\t' || !char.is_control()));
        }

        #[test]
        fn cut_text_fits(text in any::<String>(), width in 0usize..40) {
            prop_assert!(cut(&escape(&text), width).width() <= width);
        }
    }
}
