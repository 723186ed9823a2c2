//! `logs`: which lines are shown, and how.
//!
//! What is remembered comes first, of all apps by time; then each line as it comes. The supervisor is asked for
//! lines only: patterns and times are tried here, where they cost nobody else.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::UNIX_EPOCH;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use regex_lite::Regex;

use super::Logs;
use super::output::{Failure, object, raw, text};
use super::stamp::{self, Stamp};
use crate::control::client::{Answers, ClientError};
use crate::control::protocol::{Line, Reply, Request, Stream};
use crate::control::render::escape;
use crate::logs::console::{COLOURS, WIDTH_LIMIT};
use crate::sys::clock;

/// Last lines where nobody says how many: PM2's.
const LINES: u32 = 15;

/// Lines of an app that a supervisor remembers.
const REMEMBERED: u32 = crate::logs::ring::APP_LINES as u32;

/// Bytes of remembered lines that are put in order before any is shown.
const ORDERED: usize = 16 * 1024 * 1024;

/// What the supervisor is asked.
pub(super) fn request(logs: &Logs, targets: Vec<String>) -> Request {
    let stream = match (logs.out, logs.err) {
        (true, _) => Some(Stream::Out),
        (false, true) => Some(Stream::Err),
        (false, false) => None,
    };
    // Of those that fit, the last are taken here.
    let lines = match (&logs.since, &logs.grep) {
        (None, None) => logs.lines.unwrap_or(LINES),
        (Some(_), _) | (_, Some(_)) => REMEMBERED,
    };
    Request::Logs { targets, lines, follow: !logs.no_follow, stream }
}

/// Prints the answers to the end, which is that of the supervisor where it is followed.
pub(super) fn print(answers: Answers, mut printer: Printer) -> Result<(), Failure> {
    let mut history = Some(History::new(printer.wanted));
    for reply in answers {
        let reply = match reply {
            Err(ClientError::Ended) if history.is_none() => {
                return Err(Failure::failed("the supervisor has ended; there is nothing to follow any more"));
            }
            reply => reply.map_err(Failure::failed)?,
        };
        match (reply, &mut history) {
            (Reply::Line(line), Some(history)) => {
                if printer.filter.lets(&line) {
                    history.push(line).iter().try_for_each(|line| printer.line(line))?;
                }
            }
            (Reply::Line(line), None) if printer.filter.lets(&line) => printer.line(&line)?,
            (Reply::Dropped { lines }, history) => {
                printer.lines(history.iter_mut().flat_map(History::take))?;
                printer.dropped(lines)?;
            }
            (Reply::Error(error), _) => return Err(Failure::Error(error)),
            (reply, _) => {
                printer.lines(history.take().into_iter().flat_map(|mut history| history.take()))?;
                printer.end(&reply)?;
            }
        }
    }
    Ok(())
}

/// Lines from before the client came.
#[derive(Debug)]
struct History {
    /// Of each app so many at most.
    most: usize,
    apps: BTreeMap<(String, String), VecDeque<Line>>,
    bytes: usize,
}

impl History {
    fn new(most: usize) -> History {
        History { most, apps: BTreeMap::new(), bytes: 0 }
    }

    /// Keeps a line. What comes back is to be shown now: there is more than is put in order.
    fn push(&mut self, line: Line) -> Vec<Line> {
        self.bytes += line.text.len();
        let lines = self.apps.entry(app_of(&line)).or_default();
        lines.push_back(line);
        if lines.len() > self.most {
            self.bytes -= lines.pop_front().map_or(0, |line| line.text.len());
        }
        if self.bytes > ORDERED { self.take() } else { Vec::new() }
    }

    /// By time; what came at the same one, or has none, app by app.
    fn take(&mut self) -> Vec<Line> {
        self.bytes = 0;
        let mut lines: Vec<Line> = std::mem::take(&mut self.apps).into_values().flatten().collect();
        lines.sort_by(|a, b| a.at.cmp(&b.at));
        lines
    }
}

/// Its namespace and name.
fn app_of(line: &Line) -> (String, String) {
    (line.namespace.clone(), line.app.clone())
}

/// Which lines are shown.
#[derive(Debug)]
struct Filter {
    /// As the supervisor writes times: their order is that of their texts.
    since: Option<String>,
    pattern: Option<Regex>,
}

impl Filter {
    fn new(logs: &Logs, zone: &TimeZone) -> Result<Filter, Failure> {
        let now = i64::try_from(clock::wall().as_millis()).unwrap_or(i64::MAX);
        let now = Timestamp::from_millisecond(now).map_err(Failure::failed)?;
        let moment = |text: &String| stamp::moment(text, now, zone).map_err(Failure::usage);
        let since = logs.since.as_ref().map(moment).transpose()?;
        let pattern = logs.grep.as_deref().map(|pattern| {
            Regex::new(pattern).map_err(|error| Failure::usage(format_args!("--grep {pattern}: {error}")))
        });
        Ok(Filter { since: since.map(told), pattern: pattern.transpose()? })
    }

    /// A line whose time is not known is not since anything.
    fn lets(&self, line: &Line) -> bool {
        let recent = self.since.as_ref().is_none_or(|since| line.at.as_ref().is_some_and(|at| at >= since));
        recent && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&line.text))
    }
}

/// A moment as the supervisor writes it.
fn told(moment: Timestamp) -> String {
    let since = u64::try_from(moment.as_millisecond()).unwrap_or(0);
    humantime::format_rfc3339_millis(UNIX_EPOCH + std::time::Duration::from_millis(since)).to_string()
}

/// How lines are shown.
#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
    raw: bool,
    terminal: bool,
    stamp: Option<Stamp>,
    filter: Filter,
    /// Last lines of each app.
    wanted: usize,
    /// In the order in which they were first seen, which gives them their colours.
    apps: Vec<(String, String)>,
    width: usize,
}

impl Printer {
    /// Refuses what cannot be meant.
    pub(super) fn new(logs: &Logs, json: bool) -> Result<Printer, Failure> {
        let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        let filter = Filter::new(logs, &zone)?;
        let stamp = logs.timestamp.as_deref().map(|pattern| Stamp::new(pattern, zone));
        if logs.lines.is_some_and(|lines| lines > REMEMBERED) && !json {
            let mut stderr = anstream::stderr().lock();
            // That nobody reads this is no reason not to show what there is.
            let _ = io::Write::write_all(
                &mut stderr,
                format!(
                    "{REMEMBERED} lines of each app are remembered; what is older is in its log files, which \
                     `clusterd describe` names\n"
                )
                .as_bytes(),
            );
        }
        Ok(Printer {
            json,
            raw: logs.raw,
            terminal: io::stdout().is_terminal(),
            stamp: stamp.transpose().map_err(Failure::usage)?,
            wanted: logs.lines.unwrap_or(if logs.since.is_some() { REMEMBERED } else { LINES }) as usize,
            filter,
            apps: Vec::new(),
            width: 0,
        })
    }

    fn lines(&mut self, lines: impl IntoIterator<Item = Line>) -> io::Result<()> {
        lines.into_iter().try_for_each(|line| self.line(&line))
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        if self.json {
            return object(&Reply::Line(line.clone()));
        }
        if self.terminal {
            return text(&self.styled(line));
        }
        // Whoever reads a pipe gets the worker's own bytes, styles included.
        let mut plain = if self.raw { String::new() } else { line.label() + " | " };
        self.write_time(&mut plain, line);
        plain.push_str(&line.text);
        plain.push('\n');
        raw(plain.as_bytes())
    }

    fn styled(&mut self, line: &Line) -> String {
        let mut shown = if self.raw { String::new() } else { self.prefix(line) };
        self.write_time(&mut shown, line);
        shown + &escape(&line.text) + "\n"
    }

    /// The name in the app's colour; what came by standard error has a red bar.
    fn prefix(&mut self, line: &Line) -> String {
        let place =
            self.apps.iter().position(|app| (&app.0, &app.1) == (&line.namespace, &line.app)).unwrap_or_else(
                || {
                    self.apps.push(app_of(line));
                    self.apps.len() - 1
                },
            );
        let name = escape(&line.label());
        self.width = self.width.max(name.len().min(WIDTH_LIMIT));
        let style = Style::new().fg_color(Some(COLOURS[place % COLOURS.len()].into()));
        let bar = match line.stream {
            Stream::Out => style,
            Stream::Err => AnsiColor::Red.on_default().bold(),
        };
        let width = self.width;
        format!("{style}{name:width$}{style:#} {bar}|{bar:#} ")
    }

    fn write_time(&self, text: &mut String, line: &Line) {
        if let Some(stamp) = &self.stamp {
            write!(text, "{} ", escape(&stamp.show(line.at.as_deref()))).expect("a String takes any text");
        }
    }

    /// At the place where they are missing.
    fn dropped(&self, lines: u64) -> io::Result<()> {
        if self.json {
            return object(&Reply::Dropped { lines });
        }
        let what = if lines == 1 { "1 line is".to_owned() } else { format!("{lines} lines are") };
        text(&format!("[clusterd] {what} missing here: they came faster than they were read\n"))
    }

    /// What ends the lines, or the part that was remembered, is told to programs only.
    fn end(&self, reply: &Reply) -> io::Result<()> {
        match reply {
            Reply::Done(_) if self.json => object(reply),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(app: &str, at: Option<&str>, text: &str) -> Line {
        Line {
            app: app.into(),
            namespace: "default".into(),
            instance: 0,
            stream: Stream::Out,
            text: text.into(),
            at: at.map(|second| format!("2026-07-03T08:05:0{second}.000Z")),
        }
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn remembered_lines_of_several_apps_come_by_time_and_the_last_of_each() {
        let mut history = History::new(2);
        for (app, at, text) in
            [("b", "1", "b1"), ("b", "3", "b3"), ("b", "5", "b5"), ("a", "2", "a2"), ("a", "4", "a4")]
        {
            assert!(history.push(line(app, Some(at), text)).is_empty());
        }
        assert_eq!(texts(history.take()), ["a2", "b3", "a4", "b5"]);
        assert!(history.take().is_empty());
    }

    #[test]
    fn what_is_put_in_order_is_bounded() {
        let mut history = History::new(usize::MAX);
        let long = "x".repeat(ORDERED / 4);
        let early: usize = (0..10).map(|_| history.push(line("a", None, &long)).len()).sum();
        assert_eq!((early, history.take().len()), (10, 0));
    }

    #[test]
    fn a_line_without_a_time_is_since_nothing() {
        let filter = Filter {
            since: Some(told("2026-07-03T08:05:02Z".parse().unwrap())),
            pattern: Some(Regex::new("^[ab]$").unwrap()),
        };
        let rows =
            [(Some("1"), "a", false), (Some("2"), "a", true), (Some("3"), "c", false), (None, "a", false)];
        for (at, text, shown) in rows {
            assert_eq!(filter.lets(&line("api", at, text)), shown, "{at:?} {text}");
        }
    }
}
