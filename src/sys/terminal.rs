//! The size of a terminal.

use std::os::fd::AsFd;

/// Columns and rows of the terminal behind `stream` (TIOCGWINSZ). `None` when there is none, or when it does
/// not know its size, as serial consoles do not.
pub fn size(stream: impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    let (columns, rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
    (columns > 0 && rows > 0).then_some((columns, rows))
}
