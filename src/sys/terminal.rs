//! The size of a terminal, how it treats what is typed, and who gives it back when we cannot.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};
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

/// What a keeper is told.
const TAKEN: u8 = b't';
const GIVEN_BACK: u8 = b'g';
const END: u8 = b'e';

/// How long the keeper waits for a terminal that takes nothing, in milliseconds.
const LAST_WAIT: u16 = 500;

/// A process that gives the terminal back when the one that took it was killed by SIGKILL, which leaves nobody else to.
/// Dropping it ends it.
#[derive(Debug)]
pub struct Keeper {
    tell: OwnedFd,
    pid: Pid,
}

impl Keeper {
    /// Starts it, for a terminal that is taken from now on and was set like this `before`; `leave` is what it is sent
    /// first.
    ///
    /// # Errors
    /// EMFILE, EAGAIN, ENOMEM.
    pub fn start(
        tty: BorrowedFd<'_>,
        screen: BorrowedFd<'_>,
        before: &Settings,
        leave: &[u8],
    ) -> io::Result<Keeper> {
        let (hear, tell) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: the child calls only what is async-signal-safe (signal-safety(7)), on memory that was there before, and
        // leaves by _exit(2).
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(tell);
                keep(&hear, tty, screen, before, leave)
            }
            pid => Ok(Keeper { tell, pid: Pid::from_raw(pid) }),
        }
    }

    /// The terminal was given back, for now or for good: from now on it is none of the keeper's business.
    pub fn given_back(&self) {
        self.say(GIVEN_BACK);
    }

    /// It was taken again.
    pub fn taken(&self) {
        self.say(TAKEN);
    }

    /// Another end of the same pipe, for who gives the terminal back elsewhere.
    ///
    /// # Errors
    /// EMFILE.
    pub fn voice(&self) -> io::Result<Voice> {
        self.tell.try_clone().map(Voice)
    }

    fn say(&self, word: u8) {
        // A keeper that was killed has nobody to hear it.
        let _ = nix::unistd::write(&self.tell, &[word]);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Said, since a voice of ours may stay open.
        self.say(END);
        // Or somebody else has waited for it.
        let _ = waitpid(self.pid, None);
    }
}

/// Tells a keeper.
#[derive(Debug)]
pub struct Voice(OwnedFd);

impl Voice {
    /// As [`Keeper::given_back`].
    pub fn given_back(&self) {
        let _ = nix::unistd::write(&self.0, &[GIVEN_BACK]);
    }
}

/// Before Linux 5.9 they stay open.
fn close_all(first: i32, last: i32) {
    let (first, last) = (libc::c_long::from(first), libc::c_long::from(last));
    // SAFETY: numbers only; the keeper uses none of what is closed again.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// The keeper's whole life: it hears until nobody speaks any more.
fn keep(hear: &OwnedFd, tty: BorrowedFd<'_>, screen: BorrowedFd<'_>, before: &Settings, leave: &[u8]) -> ! {
    let mut used = [hear.as_raw_fd(), tty.as_raw_fd(), screen.as_raw_fd()];
    used.sort_unstable();
    // A session of its own, so that neither the keys nor the end of the terminal's session end it, and so that it may set
    // the terminal from behind: only who is of the terminal's own session is stopped for that (tcsetattr(3)).
    let _ = nix::unistd::setsid();
    let mut from = 0;
    for fd in used {
        if fd > from {
            close_all(from, fd - 1);
        }
        from = fd + 1;
    }
    close_all(from, i32::MAX);
    let mut taken = true;
    let mut word = [0];
    loop {
        match nix::unistd::read(hear, &mut word) {
            Ok(1..) if word[0] != END => taken = word[0] == TAKEN,
            Ok(1..) => {
                taken = false;
                break;
            }
            Err(nix::errno::Errno::EINTR) => {}
            Ok(_) | Err(_) => break,
        }
    }
    if taken {
        let mut asked = [PollFd::new(screen, PollFlags::POLLOUT)];
        if matches!(poll(&mut asked, PollTimeout::from(LAST_WAIT)), Ok(1..)) {
            let _ = nix::unistd::write(screen, leave);
        }
        let _ = restore(tty, before);
    }
    // SAFETY: it ends here, and nothing of the parent's is run or flushed.
    unsafe { libc::_exit(0) }
}
