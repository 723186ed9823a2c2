//! What is wrong with a file: all of it at once, each with its place. Nothing here prints.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::logs::escape::steers;

/// More problems than this are counted, not shown.
pub const MAX_PROBLEMS: usize = 50;

/// Problems kept while reading, before they are put in order and cut to [`MAX_PROBLEMS`]: bounds the memory
/// and the time that a file of a million mistakes can cost.
const MAX_COLLECTED: usize = 1000;

/// Where in the text a problem lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In bytes, on character boundaries of the text.
    pub span: Range<usize>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; none for what the command line asked of the file (`--env`, `--only`).
    pub place: Option<Place>,
    /// In which app: its name, or `#2` for the second one when it has no name.
    pub app: Option<String>,
    /// At which key, as it was written.
    pub key: Option<String>,
    /// The whole sentence, without place, app and key.
    pub message: String,
    /// What would have been right.
    pub expected: Option<String>,
    /// What to do: the nearest key, the line to write.
    pub help: Option<String>,
}

impl Problem {
    /// `app "web": instances: ` and the message.
    pub fn sentence(&self) -> String {
        let mut out = String::new();
        if let Some(app) = &self.app {
            match app.starts_with('#') {
                true => out.push_str(&format!("app {app}: ")),
                false => out.push_str(&format!("app \"{app}\": ")),
            }
        }
        if let Some(key) = &self.key {
            out.push_str(&format!("{key}: "));
        }
        out.push_str(&self.message);
        out
    }
}

/// Everything that is wrong with a file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// What the file is called: its path, or `standard input`.
    pub source: String,
    /// The first [`MAX_PROBLEMS`] problems.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub omitted: usize,
    pub(super) text: String,
}

impl Diagnostics {
    /// One line for each problem: `ecosystem.toml:12:5: app "web": instances: expected …, got …`.
    pub fn one_line(&self) -> Vec<String> {
        let source = printable(&self.source);
        let mut lines: Vec<String> = self
            .problems
            .iter()
            .map(|problem| {
                let place = match &problem.place {
                    Some(place) => format!("{source}:{}:{}", place.line, place.column),
                    None => source.clone(),
                };
                let help = match &problem.help {
                    Some(help) => format!("; help: {help}"),
                    None => String::new(),
                };
                format!("{place}: {}{help}", problem.sentence())
            })
            .collect();
        if self.omitted > 0 {
            lines.push(format!("{source}: and {}", self.omitted_words()));
        }
        lines
    }

    /// The same for `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        let problems: Vec<serde_json::Value> = self
            .problems
            .iter()
            .map(|problem| {
                serde_json::json!({
                    "line": problem.place.as_ref().map(|place| place.line),
                    "column": problem.place.as_ref().map(|place| place.column),
                    "app": problem.app,
                    "key": problem.key,
                    "message": problem.message,
                    "expected": problem.expected,
                    "help": problem.help,
                })
            })
            .collect();
        serde_json::json!({ "source": self.source, "problems": problems, "omitted": self.omitted })
    }

    /// How many problems there are in all.
    pub fn count(&self) -> usize {
        self.problems.len() + self.omitted
    }

    pub(super) fn omitted_words(&self) -> String {
        match self.omitted {
            1 => "1 more problem".to_owned(),
            n => format!("{n} more problems"),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.one_line().join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

/// A text from the file as it may stand in a message: control characters escaped, so that a file cannot
/// steer the terminal that its errors are shown on.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || steers(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// A text from the file in quotes, cut to a length that leaves the message readable.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 48;
    let mut shown = printable(&text.chars().take(SHOWN).collect::<String>());
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// Gathers problems while a file is read.
pub(crate) struct Collector<'t> {
    text: &'t str,
    source: &'t str,
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
    dropped: usize,
    /// Lines with a syntax error: what was made of them says nothing.
    broken_lines: BTreeSet<usize>,
}

impl<'t> Collector<'t> {
    pub(crate) fn new(text: &'t str, source: &'t str) -> Collector<'t> {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        Collector {
            text,
            source,
            line_starts: std::iter::once(0).chain(starts).collect(),
            problems: Vec::new(),
            dropped: 0,
            broken_lines: BTreeSet::new(),
        }
    }

    /// Takes a problem, unless its line is broken and was reported as such.
    pub(crate) fn add(&mut self, problem: Problem) {
        let line = problem.place.as_ref().map(|place| place.line);
        if line.is_some_and(|line| self.broken_lines.contains(&line)) {
            return;
        }
        match self.problems.len() < MAX_COLLECTED {
            true => self.problems.push(problem),
            false => self.dropped += 1,
        }
    }

    /// Takes a syntax error: the first of each line, since the others follow from it.
    pub(super) fn add_broken(&mut self, problem: Problem) {
        let Some(line) = problem.place.as_ref().map(|place| place.line) else {
            return self.add(problem);
        };
        if !self.broken_lines.contains(&line) {
            self.add(problem);
            self.broken_lines.insert(line);
        }
    }

    /// Whether the text could not be read as TOML in full: then what is absent may just not have been read.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken_lines.is_empty()
    }

    /// Whether a line with a table's header is broken: then the keys below it have lost their table.
    pub(super) fn has_broken_header(&self) -> bool {
        self.broken_lines.iter().any(|line| self.line(*line).trim_start().starts_with('['))
    }

    /// Whether there is no room for another problem, so that nothing need be looked up for it.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= MAX_COLLECTED
    }

    /// The place of a span; one that lies outside of the text is moved to its end. The column is counted in
    /// [`Collector::finish`], for those that are shown: in a file of one long line it costs the whole line.
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        let start = floor_boundary(self.text, span.start);
        let end = floor_boundary(self.text, span.end).max(start);
        let line = self.line_starts.partition_point(|line_start| *line_start <= start);
        Place { line, column: 1, span: start..end }
    }

    fn line(&self, number: usize) -> &'t str {
        line(self.text, &self.line_starts, number)
    }

    /// Everything that was found, in the order of the file; none when nothing was.
    pub(crate) fn finish(mut self) -> Option<Diagnostics> {
        if self.problems.is_empty() {
            return None;
        }
        self.problems.sort_by_key(|problem| match &problem.place {
            Some(place) => (0, place.span.start),
            None => (1, 0),
        });
        let omitted = self.problems.len().saturating_sub(MAX_PROBLEMS) + self.dropped;
        self.problems.truncate(MAX_PROBLEMS);
        for place in self.problems.iter_mut().filter_map(|problem| problem.place.as_mut()) {
            let before = &self.text[self.line_starts[place.line - 1]..place.span.start];
            place.column = before.chars().count() + 1;
        }
        Some(Diagnostics {
            source: self.source.to_owned(),
            problems: self.problems,
            omitted,
            text: self.text.to_owned(),
        })
    }
}

/// The last boundary between characters at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Line `number` (from 1) without its end.
fn line<'t>(text: &'t str, line_starts: &[usize], number: usize) -> &'t str {
    let start = line_starts[number - 1];
    let end = line_starts.get(number).copied().unwrap_or(text.len());
    text[start..end].trim_end_matches(['\n', '\r'])
}

/// Names for people: the first ten, and how many more there are.
pub(super) fn listed(names: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| printable(name)).collect();
    if names.len() > SHOWN {
        shown.push(format!("and {} more", names.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let text = "a = 1\nnäme = 2\n";
        let at = text.find("= 2").unwrap();
        for (span, expected) in
            [(at..at + 1, (2, 6, at..at + 1)), (1000..2000, (3, 1, text.len()..text.len()))]
        {
            let mut collector = Collector::new(text, "t");
            let (place, message) = (Some(collector.place(span)), String::new());
            collector.add(Problem { place, app: None, key: None, message, expected: None, help: None });
            let place = collector.finish().unwrap().problems.remove(0).place.unwrap();
            assert_eq!((place.line, place.column, place.span), expected);
        }
    }

    #[test]
    fn a_span_inside_a_character_is_moved_to_its_beginning() {
        let collector = Collector::new("ä", "t");
        assert_eq!(collector.place(1..1).span, 0..0);
    }

    #[test]
    fn a_file_cannot_steer_the_terminal() {
        assert_eq!(quoted("\u{1b}[2J"), "\"\\u{1b}[2J\"");
    }
}
