//! The size of a terminal, and how it treats what is typed.

use std::io;
use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};

/// How a terminal was set, to set it so again.
#[derive(Clone, Debug)]
pub struct Settings(Termios);

/// Columns and rows of the terminal behind `stream` (TIOCGWINSZ). `None` when there is none, or when it does
/// not know its size, as serial consoles do not.
pub fn size(stream: impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    let (columns, rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (columns > 0 && rows > 0).then_some((columns, rows))
}

/// Has the terminal hand on each key as it is typed, without showing it (cfmakeraw(3): Ctrl-C is a byte, too).
/// What it was set to before.
pub fn make_raw(terminal: impl AsFd) -> io::Result<Settings> {
    let before = tcgetattr(&terminal)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(terminal, OptionalActions::Now, &raw)?;
    Ok(Settings(before))
}

/// Sets the terminal as it was; what was typed and not read is thrown away, as it was meant for us. Nothing is
/// waited for: TCSADRAIN would wait for a terminal that stands still.
pub fn restore(terminal: impl AsFd, before: &Settings) -> io::Result<()> {
    tcsetattr(&terminal, OptionalActions::Now, &before.0)?;
    tcflush(terminal, QueueSelector::IFlush)?;
    Ok(())
}
