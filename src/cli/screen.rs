//! The terminal of a full-screen view, and the signals that end it. However the view ends (by a key, an error, a
//! signal, also SIGKILL, a panic), the terminal is as it was before.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, Signal};
use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};

use crate::sys::output::Outlet;
use crate::sys::terminal::{self, Keeper, Settings};

/// The alternate screen, without a cursor (ctlseqs, DECSET 1049 and DECTCEM).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[0m\x1b[2J\x1b[H";

/// The usual screen as it was.
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// How long a terminal that takes nothing is waited for at the end, in milliseconds.
const LAST_WAIT: u16 = 500;

/// A terminal's screen: what is drawn is gathered, and sent as the terminal takes it.
#[derive(Debug)]
pub(super) struct Screen {
    outlet: Outlet,
    tty: OwnedFd,
    before: Settings,
    /// None where the host has no process to spare.
    keeper: Option<Keeper>,
    unsent: Vec<u8>,
    style: (Color, Color, Modifier),
    /// Where the next character goes without being sent there.
    cursor: Option<Position>,
    unicode: bool,
}

impl Screen {
    /// Takes the terminal over. A panic gives it back first.
    pub(super) fn enter(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>) -> io::Result<Screen> {
        let outlet = Outlet::open(stdout)?;
        let tty = stdin.try_clone_to_owned()?;
        let before = terminal::make_raw(&tty)?;
        let keeper = Keeper::start(tty.as_fd(), stdout, &before, LEAVE.as_bytes()).ok();
        give_back_in_a_panic(&tty, stdout, &before, keeper.as_ref())?;
        let mut screen = Screen {
            outlet,
            tty,
            before,
            keeper,
            unsent: ENTER.into(),
            style: (Color::Reset, Color::Reset, Modifier::empty()),
            cursor: None,
            unicode: true,
        };
        screen.send()?;
        Ok(screen)
    }

    /// A drawing begins, of which not all characters may be shown.
    pub(super) fn begin(&mut self, unicode: bool) {
        self.unicode = unicode;
    }

    /// What the terminal shows is not known any more.
    pub(super) fn repaint(&mut self) {
        self.unsent.extend_from_slice(b"\x1b[0m\x1b[?25l");
        self.style = (Color::Reset, Color::Reset, Modifier::empty());
        self.cursor = None;
    }

    /// Something is not sent yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// What to wait on for room.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.outlet.source()
    }

    /// Sends what the terminal takes now.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.outlet.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Gives the terminal back, and stops as SIGTSTP would have it: returns when somebody continues us.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.give_back();
        signal::raise(Signal::SIGSTOP)?;
        Ok(())
    }

    /// Takes the terminal over again: whoever stopped us has set it to his own.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        // What it was set to before we came stays what it is set to at the end.
        terminal::make_raw(&self.tty)?;
        if let Some(keeper) = &self.keeper {
            keeper.taken();
        }
        self.unsent = ENTER.into();
        self.repaint();
        self.send()
    }

    /// A terminal that takes nothing is waited for a moment; one that is gone needs nothing.
    fn give_back(&mut self) {
        // The rest of a sequence would be taken for text; that of a drawing is nobody's loss.
        let rest = self.unsent.iter().position(|byte| *byte == 0x1b).unwrap_or(self.unsent.len());
        self.unsent.truncate(rest);
        self.unsent.extend_from_slice(LEAVE.as_bytes());
        while self.send().is_ok() && self.is_behind() {
            let Some(source) = self.source() else { break };
            let mut asked = [PollFd::new(source, PollFlags::POLLOUT)];
            if !matches!(poll(&mut asked, PollTimeout::from(LAST_WAIT)), Ok(1..)) {
                break;
            }
        }
        let _ = terminal::restore(&self.tty, &self.before);
        if let Some(keeper) = &self.keeper {
            keeper.given_back();
        }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        let mut sequence = String::new();
        sequence.write_fmt(text).expect("a String takes any text");
        self.unsent.extend_from_slice(sequence.as_bytes());
    }

    /// Select graphic rendition (ECMA-48 8.3.117).
    fn set_style(&mut self, cell: &Cell) {
        let style = (cell.fg, cell.bg, cell.modifier);
        if self.style == style {
            return;
        }
        self.style = style;
        self.push(format_args!("\x1b[0"));
        for (modifier, code) in
            [(Modifier::BOLD, 1), (Modifier::DIM, 2), (Modifier::UNDERLINED, 4), (Modifier::REVERSED, 7)]
        {
            if cell.modifier.contains(modifier) {
                self.push(format_args!(";{code}"));
            }
        }
        if let Some(code) = code_of(cell.fg) {
            self.push(format_args!(";{}", 30 + code));
        }
        if let Some(code) = code_of(cell.bg) {
            self.push(format_args!(";{}", 40 + code));
        }
        self.push(format_args!("m"));
    }
}

/// The eight colours that every terminal has; others are not used.
fn code_of(colour: Color) -> Option<u8> {
    const EIGHT: [Color; 8] = [
        Color::Black,
        Color::Red,
        Color::Green,
        Color::Yellow,
        Color::Blue,
        Color::Magenta,
        Color::Cyan,
        Color::Gray,
    ];
    EIGHT.iter().position(|known| *known == colour).and_then(|place| u8::try_from(place).ok())
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Or it was given back already, and what went wrong stands on it.
        if !std::thread::panicking() {
            self.give_back();
        }
    }
}

/// Written as it comes: who panics looks after nothing any more.
fn give_back_in_a_panic(
    tty: &OwnedFd,
    stdout: BorrowedFd<'_>,
    before: &Settings,
    keeper: Option<&Keeper>,
) -> io::Result<()> {
    let voice = keeper.map(Keeper::voice).transpose()?;
    let (tty, stdout, before) = (tty.try_clone()?, stdout.try_clone_to_owned()?, before.clone());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let _ = nix::unistd::write(&stdout, LEAVE.as_bytes());
        let _ = terminal::restore(&tty, &before);
        if let Some(voice) = &voice {
            voice.given_back();
        }
        usual(info);
    }));
    Ok(())
}

impl Backend for Screen {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        for (x, y, cell) in content {
            let at = Position { x, y };
            if self.cursor != Some(at) {
                self.push(format_args!("\x1b[{};{}H", y + 1, x + 1));
            }
            self.set_style(cell);
            let symbol = cell.symbol();
            let is_plain = symbol.len() == 1;
            // Without UTF-8 each byte would be a character, or worse.
            let shown = if is_plain || self.unicode { symbol } else { "?" };
            self.unsent.extend_from_slice(shown.as_bytes());
            // Where a wide or combined character leaves the cursor is the terminal's matter.
            self.cursor = is_plain.then_some(Position { x: x + 1, y });
        }
        // Behind the last column it depends on the terminal, too.
        self.cursor = None;
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.unsent.extend_from_slice(b"\x1b[?25l");
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.unsent.extend_from_slice(b"\x1b[?25h");
        Ok(())
    }

    /// Not asked of the terminal: nothing here depends on it.
    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(self.cursor.unwrap_or_default())
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let position = position.into();
        self.push(format_args!("\x1b[{};{}H", position.y + 1, position.x + 1));
        self.cursor = Some(position);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.unsent.extend_from_slice(b"\x1b[0m\x1b[2J");
        self.style = (Color::Reset, Color::Reset, Modifier::empty());
        Ok(())
    }

    fn clear_region(&mut self, _: ClearType) -> io::Result<()> {
        self.clear()
    }

    /// One that does not know its size is taken for a usual one.
    fn size(&self) -> io::Result<Size> {
        let (width, height) = terminal::size(&self.tty).unwrap_or((80, 24));
        let within = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).min(500);
        Ok(Size { width: within(width), height: within(height) })
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::default() })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// The signals that matter to a view, each through a socket of its own.
#[derive(Debug)]
pub(super) struct Signals {
    /// All of them, to wait on.
    any: UnixStream,
    each: Vec<(i32, UnixStream)>,
}

/// What came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// This signal ends us.
    pub(super) end: Option<i32>,
    /// The terminal has another size.
    pub(super) resized: bool,
    /// Somebody wants his terminal for something else (SIGTSTP).
    pub(super) suspended: bool,
    /// And goes on with us.
    pub(super) resumed: bool,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        let (any, wake) = UnixStream::pair()?;
        any.set_nonblocking(true)?;
        let mut each = Vec::new();
        for signal in [SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT] {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            // In this order: who is woken finds which it was.
            signal_hook::low_level::pipe::register(signal, write)?;
            signal_hook::low_level::pipe::register(signal, wake.try_clone()?)?;
            each.push((signal, read));
        }
        Ok(Signals { any, each })
    }

    /// Readable when one came.
    pub(super) fn source(&self) -> BorrowedFd<'_> {
        self.any.as_fd()
    }

    pub(super) fn take(&mut self) -> Taken {
        let mut bytes = [0; 64];
        let mut came = |mut stream: &UnixStream| {
            let mut any = false;
            while stream.read(&mut bytes).is_ok_and(|count| count > 0) {
                any = true;
            }
            any
        };
        came(&self.any);
        let mut taken = Taken::default();
        for (signal, stream) in &self.each {
            if came(stream) {
                match *signal {
                    SIGWINCH => taken.resized = true,
                    SIGTSTP => taken.suspended = true,
                    SIGCONT => taken.resumed = true,
                    end => taken.end = taken.end.or(Some(end)),
                }
            }
        }
        taken
    }
}
