//! One of the supervisor's own outputs (standard output or error), shared by worker lines, with their
//! prefix, and the supervisor's log.
//!
//! Bounded and never waiting: a slow reader costs lines, which are counted and reported when there is room
//! again; a reader that is gone switches the output off. What workers print is escaped only on a terminal;
//! elsewhere it stays as it is, but for `…` at both sides of a place where a line was over the limit.

use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use nix::errno::Errno;

use super::{Line, escape, form};
use crate::supervisor::event::AppId;
use crate::sys::output::Outlet;

/// Bytes that may wait for a slow reader.
pub const QUEUE_LIMIT: usize = 256 * 1024;

/// What the supervisor's own lines may take beyond that, so that a flooding worker does not silence it.
const RESERVE: usize = 16 * 1024;

/// So much is written without waiting for the end of the turn.
const FLUSH_AT: usize = 32 * 1024;

/// Unused memory that is kept for the next lines.
const KEPT_CAPACITY: usize = 16 * 1024;

/// The widest a name may make the column of prefixes, here and in `clusterd logs`.
pub const WIDTH_LIMIT: usize = 32;

/// One for each app, readable on dark and light grounds alike.
pub const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Yellow,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
];

/// An output of the supervisor.
#[derive(Debug)]
pub struct Console {
    /// None when nobody reads it, or nobody any more.
    outlet: Option<Outlet>,
    /// `standard output`, `standard error`.
    name: &'static str,
    terminal: bool,
    colour: bool,
    identity: (u64, u64),
    /// Whole lines, of which the first `sent` bytes are written.
    queue: Vec<u8>,
    sent: usize,
    dropped: u64,
    /// No further attempt before the next flush.
    refused: bool,
    /// Why the latest attempt was refused.
    refusal: Option<Errno>,
    width: usize,
    apps: Vec<AppId>,
    /// Each line is an object of JSON.
    json: bool,
    /// When the latest line that was queued was read, since 1970.
    wall: Duration,
}

impl Console {
    /// Takes a second hold of `fd`; the description that others share is left as it is. Without
    /// `may_colour` (the variable NO_COLOR) not even a terminal is sent colours.
    pub fn open(fd: BorrowedFd<'_>, name: &'static str, may_colour: bool) -> io::Result<Console> {
        let outlet = Outlet::open(fd)?;
        Ok(Console {
            name,
            terminal: outlet.is_terminal(),
            colour: outlet.is_terminal() && may_colour,
            identity: outlet.identity(),
            outlet: (!outlet.discards()).then_some(outlet),
            queue: Vec::new(),
            sent: 0,
            dropped: 0,
            refused: false,
            refusal: None,
            width: 0,
            apps: Vec::new(),
            json: false,
            wall: Duration::ZERO,
        })
    }

    /// From now on each line is an object of JSON, also those about lines that are missing.
    pub fn set_json(&mut self) {
        self.json = true;
        self.colour = false;
    }

    /// Whether lines are that.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A terminal reads it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Colours are welcome.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// Device and inode: the same for two descriptors that lead to the same place.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Somebody may read it: it does not lead to /dev/null, and its reader is not known to be gone.
    pub fn is_read(&self) -> bool {
        self.outlet.is_some()
    }

    /// Bytes that wait for the reader.
    pub fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Makes an app's prefix known, so that the column is wide enough from the first line on.
    pub fn announce(&mut self, app: AppId, name: &str, instance: u32) {
        self.width = self.width.max(label_width(name, instance).min(WIDTH_LIMIT));
        if !self.apps.contains(&app) {
            self.apps.push(app);
        }
    }

    /// Forgets an app that was deleted.
    pub fn forget(&mut self, app: AppId) {
        self.apps.retain(|known| *known != app);
    }

    /// Queues a worker's line, which was read at this time (since 1970), behind its prefix, or drops and counts it.
    pub fn write_line(&mut self, line: &Line<'_>, wall: Duration) {
        self.make_room();
        if self.outlet.is_none() {
            return;
        }
        if self.dropped > 0 || self.waiting() + line.bytes.len() > QUEUE_LIMIT {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let (before, is_first) = (self.queue.len(), self.waiting() == 0);
        self.wall = wall;
        if self.json {
            self.append_object(line, wall);
        } else {
            self.append_prefix(line);
            self.append_text(line);
        }
        // Escapes make a line of binary many times as long: alone it is let in however long it is.
        if self.waiting() > QUEUE_LIMIT && !is_first {
            self.queue.truncate(before);
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Queues a line of the supervisor itself, its newline included. It has a reserve of its own.
    pub fn write_own(&mut self, text: &[u8]) {
        self.make_room();
        if self.outlet.is_none() {
            return;
        }
        if self.waiting() + text.len() > QUEUE_LIMIT + RESERVE {
            self.dropped = self.dropped.saturating_add(1);
        } else {
            self.queue.extend_from_slice(text);
        }
    }

    /// Writes what the reader takes now. To be called at the end of every turn, and when `source` has room.
    pub fn flush(&mut self) {
        self.refused = false;
        self.write_out();
    }

    /// Something waits for room at [`Console::source`].
    pub fn wants_write(&self) -> bool {
        self.waiting() > 0 && self.source().is_some()
    }

    /// The descriptor to wait on for room. None for regular files, which have no readiness and whose
    /// rest goes with the next flush, and when the reader is gone.
    pub fn source(&self) -> Option<RawFd> {
        self.outlet.as_ref()?.source().map(|fd| fd.as_raw_fd())
    }

    fn make_room(&mut self) {
        if self.waiting() >= FLUSH_AT && !self.refused {
            self.write_out();
        }
    }

    fn write_out(&mut self) {
        loop {
            if self.dropped > 0 && self.waiting() <= QUEUE_LIMIT / 2 {
                self.tell_dropped();
            }
            if self.waiting() == 0 {
                break;
            }
            let Some(outlet) = &self.outlet else {
                break;
            };
            match outlet.write(&self.queue[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(errno) => return self.refuse(errno),
            }
        }
        self.release();
    }

    fn refuse(&mut self, errno: Errno) {
        let will_do_later = errno == Errno::EAGAIN || is_full(errno) || is_short(errno);
        if !will_do_later {
            // EPIPE, ECONNRESET, EIO (a terminal that hung up): nobody reads this any more.
            self.outlet = None;
            self.sent = self.queue.len();
            self.dropped = 0;
        }
        self.refused = true;
        self.refusal = Some(errno);
        self.release();
    }

    /// Moves what waits to the front, or gives the memory back.
    fn release(&mut self) {
        if self.waiting() > 0 {
            if self.sent > self.waiting() {
                self.queue.drain(..self.sent);
                self.sent = 0;
            }
            return;
        }
        self.queue.clear();
        self.sent = 0;
        if self.queue.capacity() > KEPT_CAPACITY {
            self.queue = Vec::new();
        }
    }

    fn tell_dropped(&mut self) {
        let lines = if self.dropped == 1 { "line" } else { "lines" };
        let why = match self.refusal.filter(|errno| is_full(*errno)) {
            Some(errno) => errno.desc().to_owned(),
            None => format!("the reader of {} is slow", self.name),
        };
        let dropped = std::mem::take(&mut self.dropped);
        let message = format!("{dropped} {lines} dropped: {why}");
        if self.json {
            let timestamp = form::iso(self.wall);
            let object = serde_json::json!({
                "timestamp": timestamp, "type": "clusterd", "level": "warn", "message": message
            });
            self.append(format_args!("{object}\n"));
        } else {
            self.append(format_args!("[clusterd] {message}\n"));
        }
    }

    fn append_object(&mut self, line: &Line<'_>, wall: Duration) {
        // What is a control character to a terminal, and not to JSON, reaches none.
        let shown = self.terminal.then(|| escape(line.shown()));
        let bytes = shown.as_ref().map_or(line.bytes, |text| text.as_bytes());
        form::write_object(&Line { bytes, ..*line }, wall, &mut self.queue);
    }

    fn append_prefix(&mut self, line: &Line<'_>) {
        let origin = line.origin;
        let name = origin.shown();
        self.announce(origin.app, &name, origin.instance);
        let pad = self.width.saturating_sub(label_width(&name, origin.instance));
        let style = self.style(origin.app);
        self.append(format_args!("{style}{name}-{}{:pad$} | {style:#}", origin.instance, ""));
    }

    fn style(&self, app: AppId) -> Style {
        if !self.colour {
            return Style::new();
        }
        let index = self.apps.iter().position(|known| *known == app).unwrap_or(0);
        Style::new().fg_color(Some(COLOURS[index % COLOURS.len()].into()))
    }

    fn append_text(&mut self, line: &Line<'_>) {
        if line.continued {
            self.append(format_args!("… "));
        }
        if self.terminal {
            self.queue.extend_from_slice(escape(line.shown()).as_bytes());
        } else {
            self.queue.extend_from_slice(line.bytes);
        }
        if line.cut {
            self.append(format_args!(" …"));
        }
        self.queue.push(b'\n');
    }

    fn append(&mut self, text: std::fmt::Arguments<'_>) {
        self.queue.write_fmt(text).expect("a Vec takes any bytes");
    }
}

/// The disk under a regular file has no room.
fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)
}

/// The kernel lacks memory for a moment.
fn is_short(errno: Errno) -> bool {
    matches!(errno, Errno::ENOBUFS | Errno::ENOMEM)
}

fn label_width(name: &str, instance: u32) -> usize {
    name.len() + 2 + instance.checked_ilog10().unwrap_or(0) as usize
}
