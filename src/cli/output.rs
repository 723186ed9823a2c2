//! Where the client prints: text or JSON, live on a terminal, plain elsewhere.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::control::protocol::{Error, List, Progress, Reply};
use crate::control::render::{self, Board};
use crate::sys::terminal;

/// What a failed command is ended with.
#[derive(Debug)]
pub enum Failure {
    /// What, where, why, and what to do.
    Error(Error),
    /// A file's errors, rendered in both forms.
    File {
        /// For people, with styles.
        text: String,
        /// For programs.
        json: Value,
    },
    /// Nobody reads any more (`clusterd list | head -1`): a quiet end.
    ClosedPipe,
}

impl Failure {
    /// It was tried, and did not work.
    pub fn failed(message: impl ToString) -> Failure {
        Failure::Error(Error { code: 1, message: message.to_string(), failures: Vec::new() })
    }

    /// What it is about, for people.
    pub fn text(&self) -> &str {
        match self {
            Failure::Error(error) => &error.message,
            Failure::File { text, .. } => text,
            Failure::ClosedPipe => "nobody reads any more",
        }
    }

    /// It was not asked for in the right way.
    pub fn usage(message: impl ToString) -> Failure {
        Failure::Error(Error { code: 2, message: message.to_string(), failures: Vec::new() })
    }

    /// What the process exits with.
    pub fn code(&self) -> i32 {
        match self {
            Failure::Error(error) => error.code,
            Failure::File { .. } => 2,
            Failure::ClosedPipe => 0,
        }
    }

    /// Prints it to standard error. That this fails as well is nobody's to hear.
    pub fn print(&self, json: bool) {
        let mut stderr = anstream::stderr().lock();
        let _ = match self {
            Failure::Error(error) if json => writeln!(stderr, "{}", json!(Reply::Error(error.clone()))),
            Failure::Error(error) => write!(stderr, "{}", render::failure(error)),
            Failure::File { json: value, .. } if json => writeln!(stderr, "{value}"),
            Failure::File { text, .. } => writeln!(stderr, "{}", text.trim_end()),
            Failure::ClosedPipe => Ok(()),
        };
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::ClosedPipe;
        }
        Failure::failed(format_args!("cannot write to standard output: {error}"))
    }
}

/// How a list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One row per worker.
    Table,
    /// One block per app.
    Blocks,
}

/// Standard output.
#[derive(Debug)]
pub struct Output {
    json: bool,
    shape: Shape,
    /// Its size, when it is a terminal.
    terminal: Option<(usize, usize)>,
    board: Option<Board>,
}

impl Output {
    /// For one command.
    pub fn new(json: bool, shape: Shape) -> Output {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal().then(|| terminal::size(&stdout).unwrap_or((80, 24)));
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let board = terminal.filter(|_| !json && !dumb).map(|(width, height)| Board::new(width, height));
        Output { json, shape, terminal, board }
    }

    /// Prints one answer. An error is handed back, for standard error.
    pub fn show(&mut self, reply: Reply) -> Result<(), Failure> {
        match reply {
            Reply::Error(error) => return Err(Failure::Error(error)),
            Reply::List(list) if self.json => object(&list)?,
            reply if self.json => object(&reply)?,
            Reply::Progress(step) => self.step(&step)?,
            // Only `logs` asks for them, and prints them itself.
            Reply::Line(_) | Reply::Dropped { .. } | Reply::Following {} => {}
            Reply::List(list) => self.list(&list)?,
            Reply::Plan(plan) => text(&render::plan(&plan, self.terminal.map(|(width, _)| width)))?,
            Reply::Environ(environ) => {
                let line = |(name, value): (&String, &String)| format!("{}\n", render::variable(name, value));
                text(&environ.variables.iter().map(line).collect::<String>())?;
            }
            Reply::Pids { pids } => text(&pids.iter().map(|pid| format!("{pid}\n")).collect::<String>())?,
            Reply::Pong { pid } => text(&format!("pong (pid {pid})\n"))?,
            Reply::Done(done) if done.message.is_empty() => {}
            Reply::Done(done) => text(&format!("{}\n", render::message(&done.message)))?,
        }
        Ok(())
    }

    /// Prints facts of the client's own: `words` for people, `value` for programs.
    pub fn facts(&self, words: &str, value: &Value) -> Result<(), Failure> {
        if self.json {
            object(value)?
        } else {
            text(&format!("{words}\n"))?
        }
        Ok(())
    }

    fn step(&mut self, step: &Progress) -> io::Result<()> {
        match &mut self.board {
            // Cursor movements: not for the filter that strips styles, which NO_COLOR switches on.
            Some(board) => {
                let drawn = board.update(step);
                let drawn = if is_coloured() { drawn } else { without_styles(&drawn) };
                raw(drawn.as_bytes())
            }
            None => text(&format!("{}\n", render::progress(step))),
        }
    }

    fn list(&self, list: &List) -> io::Result<()> {
        let width = self.terminal.map(|(width, _)| width);
        match self.shape {
            Shape::Table => text(&render::list(list, width)),
            Shape::Blocks => text(&render::describe(list, width)),
        }
    }
}

fn is_coloured() -> bool {
    anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

/// Takes away `ESC [ … m` and leaves the cursor movements.
fn without_styles(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let parameters = part.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
        match part[parameters..].strip_prefix('m') {
            Some(rest) => plain += rest,
            None => plain = plain + "\x1b[" + part,
        }
    }
    plain
}

pub(super) fn object(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    raw(&line)
}

pub(super) fn text(styled: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(styled.as_bytes())?;
    stdout.flush()
}

pub(super) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_the_cursor_still_moves() {
        assert_eq!(without_styles("\x1b[2A\r\x1b[J\x1b[1mapi\x1b[0m  1/4\n"), "\x1b[2A\r\x1b[Japi  1/4\n");
    }
}
