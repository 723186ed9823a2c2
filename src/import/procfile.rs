//! Procfiles: `name: command line`, one process type a line, as foreman and Heroku read them.

use super::Import;
use super::app::{allowed, setting};
use super::document::{Line, Table};
use super::problems::{Problems, Said};
use super::tree::{Node, Value};

/// Foreman's first PORT, and its step from one process type to the next.
const FIRST_PORT: i64 = 5000;
const PORT_STEP: i64 = 100;

/// One process type.
#[derive(Debug, PartialEq, Eq)]
struct Process<'t> {
    name: &'t str,
    line: &'t str,
}

impl Import<'_> {
    pub(super) fn procfile(&mut self, text: &str, problems: &mut Problems<'_>) {
        let mut start = 0;
        let mut number = 0;
        for line in text.split('\n') {
            let span = start..start + line.len();
            start += line.len() + 1;
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let Some(process) = process(trimmed) else {
                let got = crate::config::error::quoted(trimmed);
                problems.at(Some(span), Said::expected("a line `name: command`", &got));
                continue;
            };
            let port = FIRST_PORT + PORT_STEP * number;
            number += 1;
            if process.name == "release" {
                let why =
                    format!("it runs once before a release and then ends: run `{}` yourself", process.line);
                self.leave(format!("release: left out; {why}"));
                continue;
            }
            let has_env_file = self.facts.has_env_file;
            self.document.apps.push(table(&process, port, has_env_file));
        }
        if self.document.apps.is_empty() {
            problems.at(Some(0..0), Said::expected("at least one line `name: command`", "none"));
        }
        super::tell_apart(&mut self.document.apps);
    }
}

fn process(line: &str) -> Option<Process<'_>> {
    let (name, line) = line.split_once(':')?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let line = line.trim();
    (!name.is_empty() && name.chars().all(is_word) && !line.is_empty()).then_some(Process { name, line })
}

fn table(process: &Process<'_>, port: i64, has_env_file: bool) -> Table {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut table = Table::default();
    let name = allowed(process.name);
    let mut line = Line::new("name", text(&name));
    if name != process.name {
        line = line.because(format!("called \"{}\" in the Procfile", process.name));
    }
    table.lines.push(line);
    table.lines.push(command(process.line));
    let is_web = process.name == "web";
    if is_web {
        let remark = "with this line several workers share one port, and a reload loses nothing";
        table.lines.push(Line::off("instances", text("max")).because(remark));
    }
    table
        .lines
        .push(Line::new("kill_signal", text("SIGTERM")).because("as foreman and Heroku stop a process"));
    table.lines.push(setting("kill_timeout", text("5s")).because("foreman's; Heroku waits 30 s"));
    if has_env_file {
        table.lines.push(Line::new("env_file", text(".env")).because("foreman reads it, too"));
    }
    if is_web || process.line.contains("PORT") {
        let line = Line::new("PORT", Value::Whole(port)).because("what foreman gives it");
        table.tables.push(("env".to_owned(), vec![line]));
    }
    table
}

/// A line with blanks is one for `sh -c`; so is one word that a shell would make something of.
fn command(line: &str) -> Line {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "./_-+@%:,=".contains(c);
    if line.contains(char::is_whitespace) || line.chars().all(is_plain) {
        return Line::new("script", Value::Text(line.to_owned()));
    }
    let words = ["sh", "-c", line].map(|word| Node::made(Value::Text(word.to_owned())));
    Line::new("command", Value::List(words.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_at_the_first_colon() {
        let read = |line| process(line).map(|process| (process.name, process.line));
        assert_eq!(read("web: bin/rails s -b tcp://0:3"), Some(("web", "bin/rails s -b tcp://0:3")));
        assert_eq!(read("web:x"), Some(("web", "x")));
        for line in ["web", "web:", "my app: x", ": x"] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn one_word_for_a_shell_is_given_to_one() {
        let key = |line: &str| command(line).setting.map(|setting| setting.key);
        assert_eq!(key("./server").as_deref(), Some("script"));
        assert_eq!(key("node server.js $PORT").as_deref(), Some("script"));
        assert_eq!(key("./run$PORT").as_deref(), Some("command"));
    }
}
