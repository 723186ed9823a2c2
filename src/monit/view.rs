//! The screen, drawn from a [`Model`] alone.
//!
//! At the top one line on the supervisor; on the left the list, on the right what is known of the selected row, with its
//! curves; below, or on a wide terminal at the right, its log; at the bottom what the keys do, or a question. What
//! does not fit is left out, from the least to the most important.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;
use ratatui::widgets::{Block, Clear, Widget};
use unicode_width::UnicodeWidthStr;

use super::model::{Curve, Deed, LogLine, Mode, Model, Row, cpu_of, memory_of, name_of, restarts_of};
use crate::control::protocol::{AppInfo, WorkerInfo};
use crate::control::render::{escape, size, uptime};

/// Below this there is only a sentence.
const LEAST: (u16, u16) = (40, 8);

/// From this width on there is something at the right of the list.
const TWO_COLUMNS: u16 = 70;

/// From this width on the log is at the right, too.
const WIDE: u16 = 110;

/// From this height on there is a log below the list.
const WITH_LOG: u16 = 16;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours are welcome.
    pub colour: bool,
    /// It knows more than ASCII.
    pub unicode: bool,
}

const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Parts of a cell that are filled, from nothing to all.
const EIGHTHS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const ASCII_EIGHTHS: [&str; 9] = [" ", ".", ".", ".", ":", ":", ":", "#", "#"];

const HELP: &[(&str, &str)] = &[
    ("Up Down j k", "select; PgUp, PgDn, Home, End"),
    ("Enter Space", "fold or unfold an app's workers"),
    ("r", "reload the app, no request lost"),
    ("R", "restart; starts what is stopped"),
    ("s", "stop the app or worker"),
    ("+ -", "scale the app"),
    ("/", "search by name; Esc shows all"),
    ("o", "sort by start, name, cpu, memory ..."),
    ("l", "pause the log, or follow it again"),
    ("q Ctrl-C", "quit; nothing is stopped"),
];

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn status(self, word: &str) -> Style {
        match word {
            "online" => self.colour(Color::Green),
            "errored" => self.colour(Color::Red).add_modifier(Modifier::BOLD),
            "stopped" => Style::new().add_modifier(Modifier::DIM),
            _ => self.colour(Color::Yellow),
        }
    }

    fn block(self, title: &str) -> Block<'_> {
        let set = if self.unicode { border::PLAIN } else { ASCII_BORDER };
        Block::bordered().border_set(set).title(title)
    }

    const fn ellipsis(self) -> &'static str {
        if self.unicode { "…" } else { "~" }
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return too_small(buffer, area);
    }
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    title(buffer, top, model, theme);
    let (left, right, below) = parts(middle);
    list(buffer, left, model, theme);
    if let Some(right) = right {
        details(buffer, right, model, theme);
    }
    if let Some(below) = below {
        log(buffer, below, model, theme);
    }
    if model.mode == Mode::Help {
        help(buffer, middle, theme);
    }
    last_line(buffer, bottom, model, theme);
}

fn too_small(buffer: &mut Buffer, area: Rect) {
    let text = format!("too small: {}x{}, monit needs {}x{}", area.width, area.height, LEAST.0, LEAST.1);
    for (line, part) in (0..area.height).zip(text.as_bytes().chunks(usize::from(area.width.max(1)))) {
        put(buffer, Rect { y: area.y + line, ..area }, &String::from_utf8_lossy(part), Style::new());
    }
}

/// The list, the details, the log.
fn parts(area: Rect) -> (Rect, Option<Rect>, Option<Rect>) {
    let [upper, lower] = if area.width < WIDE && area.height + 2 >= WITH_LOG {
        let log = (area.height * 2 / 5).clamp(6, 16);
        Layout::vertical([Constraint::Min(1), Constraint::Length(log)]).areas(area)
    } else {
        Layout::vertical([Constraint::Min(1), Constraint::Length(0)]).areas(area)
    };
    if area.width < TWO_COLUMNS {
        return (upper, None, (lower.height > 0).then_some(lower));
    }
    let list = (area.width * 9 / 20).clamp(44, 64);
    let [left, right] = Layout::horizontal([Constraint::Length(list), Constraint::Min(1)]).areas(upper);
    if lower.height > 0 || right.height < WITH_LOG {
        return (left, Some(right), (lower.height > 0).then_some(lower));
    }
    let [details, log] =
        Layout::vertical([Constraint::Length((right.height / 2).max(14)), Constraint::Min(1)]).areas(right);
    (left, Some(details), Some(log))
}

fn title(buffer: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let text = match (&model.daemon, &model.down) {
        (None, None) => "clusterd: waiting for the supervisor".to_owned(),
        (_, Some(why)) => {
            let style = theme.colour(Color::Red).add_modifier(Modifier::BOLD);
            return put(buffer, area, &cut(&format!("no answer: {why}"), area.width, theme), style);
        }
        (Some(daemon), None) => {
            let workers: usize = model.apps().iter().map(|app| app.workers.len()).sum();
            let cpu: f64 = model.apps().iter().map(cpu_of).sum();
            let memory: u64 = model.apps().iter().map(memory_of).sum();
            format!(
                "clusterd {}  pid {}  up {}  apps {}  workers {workers}  cpu {cpu:.1}%  mem {}",
                escape(&daemon.version),
                daemon.pid,
                uptime(daemon.uptime_ms),
                model.apps().len(),
                size(memory)
            )
        }
    };
    put(buffer, area, &cut(&text, area.width, theme), bold);
}

/// Names take what these leave: the status, CPU, memory and restarts.
const STATUS: usize = 9;
const CPU: usize = 6;
const MEMORY: usize = 5;
const RESTARTS: usize = 4;

fn list(buffer: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let rows = model.rows();
    let place = model.selected_row().map_or(0, |(place, _)| place);
    let name = match (model.search.is_empty(), &model.mode) {
        (true, Mode::Browse | Mode::Help | Mode::Confirm { .. } | Mode::Search) => {
            format!(" apps, by {} ", model.sort.as_str())
        }
        (false, _) => format!(" apps with \"{}\" ", escape(&model.search)),
    };
    let block = theme.block(&name);
    let inner = block.inner(area);
    block.render(area, buffer);
    let width = usize::from(inner.width);
    let names = width.saturating_sub(STATUS + CPU + MEMORY + RESTARTS + 4);
    let head = format!(
        "{:names$} {:STATUS$} {:>CPU$} {:>MEMORY$} {:>RESTARTS$}",
        "name",
        "status",
        "cpu",
        "mem",
        if theme.unicode { "↺" } else { "rst" }
    );
    let mut lines = inner.rows();
    if let Some(line) = lines.next() {
        put(buffer, line, &cut(&head, inner.width, theme), Style::new().add_modifier(Modifier::DIM));
    }
    let room = usize::from(inner.height).saturating_sub(1);
    // The selected row stays in sight, with one more below it where there is one.
    let first = (place + 2).min(rows.len()).saturating_sub(room);
    if rows.is_empty() {
        if let Some(line) = lines.next() {
            put(buffer, line, &cut(nothing(model), inner.width, theme), Style::new());
        }
        return;
    }
    for ((at, row), line) in rows.iter().enumerate().skip(first).zip(lines) {
        draw_row(buffer, line, row, names, theme);
        if at == place {
            buffer.set_style(line, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
}

fn nothing(model: &Model) -> &'static str {
    match (model.daemon.is_some() && model.down.is_none(), model.search.is_empty()) {
        (false, _) => "",
        (true, true) => "no apps: clusterd start FILE",
        (true, false) => "no app has this in its name",
    }
}

fn draw_row(buffer: &mut Buffer, line: Rect, row: &Row<'_>, names: usize, theme: Theme) {
    let mark = match (row.folded, theme.unicode) {
        (None, _) => "  ",
        (Some(true), true) => "▸ ",
        (Some(false), true) => "▾ ",
        (Some(true), false) => "> ",
        (Some(false), false) => "v ",
    };
    let (name, status, restarts) = match row.worker {
        None => (format!("{mark}{}", name_of(row)), row.app.status.as_str(), restarts_of(row.app)),
        Some(worker) => {
            (format!("   {} id {}", worker.instance, worker.id), worker.status.as_str(), worker.restarts)
        }
    };
    let names_width = u16::try_from(names).unwrap_or(u16::MAX);
    let bold = if row.worker.is_none() { Modifier::BOLD } else { Modifier::empty() };
    put(buffer, line, &cut(&name, names_width, theme), Style::new().add_modifier(bold));
    let right =
        Rect { x: line.x + names_width + 1, width: line.width.saturating_sub(names_width + 1), ..line };
    let word = if status == "waiting restart" { "waiting" } else { status };
    put(buffer, right, &cut(word, STATUS as u16, theme), theme.status(status));
    let numbers = format!("{:>CPU$} {:>MEMORY$} {restarts:>RESTARTS$}", cpu(row), memory(row, short_size));
    let offset = STATUS as u16 + 1;
    let right = Rect { x: right.x + offset, width: right.width.saturating_sub(offset), ..right };
    put(buffer, right, &numbers, Style::new());
}

fn cpu(row: &Row<'_>) -> String {
    let percent = match row.worker {
        None => runs(row.app).then(|| cpu_of(row.app)),
        Some(worker) => worker.cpu_percent,
    };
    percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}%"))
}

fn memory(row: &Row<'_>, words: fn(u64) -> String) -> String {
    let bytes = match row.worker {
        None => runs(row.app).then(|| memory_of(row.app)),
        Some(worker) => worker.memory_bytes,
    };
    bytes.map_or_else(|| "-".to_owned(), words)
}

fn runs(app: &AppInfo) -> bool {
    app.workers.iter().any(|worker| worker.pid.is_some())
}

/// In five characters at most, in powers of 1024: `999K`, `1.2M`, `12.5M`, `512M`.
fn short_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "K", "M", "G", "T"] {
        if value < 999.5 {
            let exact = value < 99.95 && unit != "B" && unit != "K";
            return if exact { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.0}P")
}

fn details(buffer: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let Some((_, row)) = model.selected_row() else {
        return theme.block(" details ").render(area, buffer);
    };
    let name = format!(" {} ", name_of(&row));
    let block = theme.block(&name);
    let inner = block.inner(area);
    block.render(area, buffer);
    let facts = row.worker.map_or_else(|| of_app(row.app), |worker| of_worker(row.app, worker));
    // Half of the room at least is the curves'.
    let text = u16::try_from(facts.len()).unwrap_or(u16::MAX).min(inner.height.saturating_sub(6));
    let [upper, middle, lower] =
        Layout::vertical([Constraint::Length(text), Constraint::Fill(1), Constraint::Fill(1)]).areas(inner);
    for ((label, fact), line) in facts.iter().zip(upper.rows()) {
        let text = format!("{label:<8} {}", escape(fact).replace('\t', " "));
        put(buffer, line, &cut(&text, line.width, theme), Style::new());
    }
    let none = Curve::default();
    let curve = model.curve(&row.item()).unwrap_or(&none);
    let used = format!("cpu {}", cpu(&row));
    draw_curve(buffer, middle, &used, &curve.cpu, 100.0, theme, Color::Cyan);
    let bytes: VecDeque<f64> = curve.memory.iter().map(|bytes| *bytes as f64).collect();
    let used = format!("mem {}", memory(&row, size));
    draw_curve(buffer, lower, &used, &bytes, 0.0, theme, Color::Magenta);
}

type Fact = (&'static str, String);

fn of_app(app: &AppInfo) -> Vec<Fact> {
    let online = app.workers.iter().filter(|worker| worker.ready).count();
    let mut facts: Vec<Fact> = vec![
        ("status", format!("{}, {online} of {} ready", app.status, app.instances)),
        ("mode", format!("{}, generation {}", app.mode, app.generation)),
    ];
    if let Some(reload) = &app.reload {
        let why = reload.reason.as_ref().map_or(String::new(), |why| format!(": {why}"));
        facts.push(("reload", format!("{} {}/{}{why}", reload.state, reload.done, reload.total)));
    }
    facts.extend(app.warnings.iter().map(|warning| ("warning", warning.clone())));
    if !app.waits_for.is_empty() {
        facts.push(("waits", format!("for {}", app.waits_for.join(", "))));
    }
    if !app.listen.is_empty() {
        facts.push(("listens", app.listen.join(", ")));
    }
    facts.push(("restarts", restarts_of(app).to_string()));
    if let [worker] = app.workers.as_slice() {
        facts.extend(of_process(worker));
    }
    facts
}

fn of_worker(app: &AppInfo, worker: &WorkerInfo) -> Vec<Fact> {
    let listener = if worker.no_listener { ", no listener" } else { "" };
    let mut facts: Vec<Fact> = vec![
        ("status", format!("{}{listener}", worker.status)),
        ("restarts", format!("{}, generation {}", worker.restarts, worker.generation)),
    ];
    facts.extend(of_process(worker));
    if !app.listen.is_empty() {
        facts.push(("listens", app.listen.join(", ")));
    }
    facts
}

fn of_process(worker: &WorkerInfo) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(pid) = worker.pid {
        facts.push(("pid", format!("{pid}, up {}", uptime(worker.uptime_ms))));
    }
    if let Some(text) = &worker.status_text {
        facts.push(("says", text.clone()));
    }
    if let Some(exit) = &worker.last_exit {
        let how = match (exit.code, &exit.signal) {
            (Some(code), _) => format!("code {code}"),
            (None, Some(signal)) => signal.clone(),
            (None, None) => "never ran".to_owned(),
        };
        facts.push(("ended", format!("{how} ({}) {}", exit.reason, exit.at)));
    }
    facts
}

/// A caption, and the latest points that fit, the last at the right. The scale ends at `least` or at the highest.
fn draw_curve(
    buffer: &mut Buffer,
    area: Rect,
    name: &str,
    values: &VecDeque<f64>,
    least: f64,
    theme: Theme,
    colour: Color,
) {
    let mut lines = area.rows();
    let Some(caption) = lines.next() else { return };
    let shown = values.len().min(usize::from(area.width));
    let visible = || values.iter().skip(values.len() - shown);
    let highest = visible().copied().fold(least, f64::max);
    put(buffer, caption, &cut(name, caption.width, theme), Style::new().add_modifier(Modifier::BOLD));
    let height = area.height - 1;
    if height == 0 || highest <= 0.0 {
        return;
    }
    let parts = if theme.unicode { &EIGHTHS } else { &ASCII_EIGHTHS };
    let style = theme.colour(colour);
    for (column, value) in visible().enumerate() {
        let mut filled = (value / highest * 8.0 * f64::from(height)).round() as usize;
        // Something is seen of what is more than nothing.
        if *value > 0.0 {
            filled = filled.max(1);
        }
        let x = area.right() - shown as u16 + column as u16;
        for y in (caption.y + 1..area.bottom()).rev() {
            buffer[(x, y)].set_symbol(parts[filled.min(8)]).set_style(style);
            filled = filled.saturating_sub(8);
        }
    }
}

fn log(buffer: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let whose = model.selected_row().map_or_else(String::new, |(_, row)| format!(" of {}", name_of(&row)));
    let name = format!(" log{whose}{} ", if model.log.paused { ", paused" } else { "" });
    let block = theme.block(&name);
    let inner = block.inner(area);
    block.render(area, buffer);
    let mut bottom = inner.bottom();
    for line in model.log.lines.iter().rev() {
        let parts = wrapped(line, inner.width);
        for part in parts.iter().rev() {
            if bottom == inner.y {
                return;
            }
            bottom -= 1;
            put(buffer, Rect { y: bottom, height: 1, ..inner }, part, Style::new());
        }
        let prefix = u16::try_from(line.from.width()).unwrap_or(u16::MAX).min(inner.width);
        let colour = if line.err { Color::Red } else { Color::Cyan };
        buffer.set_style(Rect { y: bottom, height: 1, width: prefix, ..inner }, theme.colour(colour));
    }
}

/// A line of the log in lines of this width, as many as a screen has at most.
fn wrapped(line: &LogLine, width: u16) -> Vec<String> {
    const MOST: usize = 6;
    let text = match line.from.as_str() {
        "" => format!("-- {} --", line.text),
        from => format!("{from} {} {}", if line.err { "!" } else { "|" }, line.text),
    };
    let mut parts = vec![String::new()];
    let mut room = usize::from(width.max(2));
    for char in text.chars() {
        let mut bytes = [0; 4];
        let wide = char.encode_utf8(&mut bytes).width();
        if wide > room {
            if parts.len() == MOST {
                break;
            }
            parts.push(String::new());
            room = usize::from(width.max(2));
        }
        room = room.saturating_sub(wide);
        if let Some(part) = parts.last_mut() {
            part.push(char);
        }
    }
    parts
}

fn help(buffer: &mut Buffer, area: Rect, theme: Theme) {
    let height = (HELP.len() as u16 + 2).min(area.height);
    let width = 54.min(area.width);
    let [_, middle, _] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(height), Constraint::Fill(1)]).areas(area);
    let [_, middle, _] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(width), Constraint::Fill(1)])
            .areas(middle);
    Clear.render(middle, buffer);
    let block = theme.block(" keys ");
    let inner = block.inner(middle);
    block.render(middle, buffer);
    for ((keys, what), line) in HELP.iter().zip(inner.rows()) {
        put(buffer, line, &cut(&format!("{keys:<12} {what}"), line.width, theme), Style::new());
    }
}

fn last_line(buffer: &mut Buffer, area: Rect, model: &Model, theme: Theme) {
    let bold = Modifier::BOLD;
    let (text, style) = match (&model.mode, model.message()) {
        (Mode::Confirm { deed, whom, .. }, _) => {
            let keys = match deed {
                Deed::Scale { .. } => "? y/n, or + and -",
                Deed::Reload | Deed::Restart | Deed::Stop => "? y/n",
            };
            (deed.question(whom) + keys, theme.colour(Color::Yellow).add_modifier(bold))
        }
        (Mode::Search, _) => (format!("search: {}_", escape(&model.search)), Style::new().add_modifier(bold)),
        (Mode::Help, _) => ("any key closes this".to_owned(), Style::new()),
        (Mode::Browse, Some(message)) => {
            let colour = if message.failed { Color::Red } else { Color::Green };
            (message.text.clone(), theme.colour(colour).add_modifier(bold))
        }
        (Mode::Browse, None) => (
            "r reload  R restart  s stop  +/- scale  / search  o sort  l log  ? help  q quit".to_owned(),
            Style::new().add_modifier(Modifier::DIM),
        ),
    };
    put(buffer, area, &cut(&text, area.width, theme), style);
}

/// On the first line of `area`, as far as there is room.
fn put(buffer: &mut Buffer, area: Rect, text: &str, style: Style) {
    if area.height > 0 {
        buffer.set_stringn(area.x, area.y, text, usize::from(area.width), style);
    }
}

/// No wider than `width`; where something is missing, a mark says so.
fn cut(text: &str, width: u16, theme: Theme) -> String {
    let width = usize::from(width);
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for char in text.chars() {
        let mut bytes = [0; 4];
        if short.width() + char.encode_utf8(&mut bytes).width() + 1 > width {
            break;
        }
        short.push(char);
    }
    short + theme.ellipsis()
}
