//! `monit`: the terminal, the keys and the sockets around the model and its view.
//!
//! One thread, which waits for whatever comes first. It asks for one list a second and follows one log, that of what
//! is selected; a log that comes faster than it can be drawn is left to the supervisor, which counts what is missing.
//! Nothing is written that the terminal does not take at once, so that a terminal that stands still does not keep a
//! signal from ending it.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::Terminal;

use super::output::Failure;
use super::screen::{Screen, Signals};
use crate::control::client::{self, ANSWER_TIME, Answers, ClientError, Next};
use crate::control::protocol::{Reply, Request};
use crate::home::Home;
use crate::monit::keys::Keys;
use crate::monit::model::{Event, Model, Wish};
use crate::monit::view::{self, Theme};
use crate::sys::clock::Clock;

/// From one list to the next.
const LIST_PAUSE: Duration = Duration::from_secs(1);

/// Between two drawings: what comes faster is drawn together.
const FRAME: Duration = Duration::from_millis(50);

/// How long something stays selected until its log is asked for: who runs through the list asks for none.
const LOG_DELAY: Duration = Duration::from_millis(150);

/// How long the rest of a key may take.
const KEY_TIME: Duration = Duration::from_millis(50);

/// Remembered lines of a log that are asked for.
const LOG_LINES: u32 = 200;

/// Answers of one connection that are taken between two looks at everything else.
const ANSWERS: usize = 200;

/// Bytes of keys that are read at a time.
const KEY_BYTES: usize = 1024;

/// Draws until somebody quits; the exit code.
pub(super) fn run(home: Home, json: bool) -> Result<i32, Failure> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    if json || dumb || !stdin.is_terminal() || !stdout.is_terminal() {
        return Err(Failure::usage(
            "monit draws on a terminal, which has to be its standard input and output (and TERM must not be \
             `dumb`); `clusterd list` prints the same once, with --json for programs",
        ));
    }
    // Whoever is not there is told of on the usual screen.
    drop(client::ask(&home, Request::Ping {}, Some(ANSWER_TIME)).map_err(Failure::failed)?);
    let signals = Signals::new().map_err(Failure::failed)?;
    let screen = Screen::enter(stdin.as_fd(), stdout.as_fd()).map_err(Failure::failed)?;
    let terminal = Terminal::new(screen).map_err(Failure::failed)?;
    let monit = Monit {
        home,
        clock: Clock::new(),
        terminal,
        signals,
        theme: theme(),
        model: Model::default(),
        keys: Keys::default(),
        keys_until: None,
        list: List::At(Duration::ZERO),
        log: Log { target: None, answers: None, more: false, changed: Duration::ZERO },
        commands: Vec::new(),
        drawn: None,
        dirty: true,
        end: None,
    };
    monit.run(stdin.as_fd())
}

/// What the environment says that the terminal can show: NO_COLOR, and the character set as setlocale(3) finds it.
fn theme() -> Theme {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_uppercase();
    Theme { colour: set("NO_COLOR").is_none(), unicode: locale.contains("UTF-8") || locale.contains("UTF8") }
}

/// The list of each second.
enum List {
    /// Is asked for then.
    At(Duration),
    /// Was asked for then.
    Asked(Duration, Answers),
}

/// The log that is followed.
struct Log {
    target: Option<String>,
    answers: Option<Answers>,
    /// Not all of what was read was taken.
    more: bool,
    /// When something else was selected.
    changed: Duration,
}

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Keys,
    Signals,
    Screen,
    List,
    Log,
    Command(usize),
}

struct Monit {
    home: Home,
    clock: Clock,
    terminal: Terminal<Screen>,
    signals: Signals,
    theme: Theme,
    model: Model,
    keys: Keys,
    /// When a part of a key is taken for all of it.
    keys_until: Option<Duration>,
    list: List,
    log: Log,
    commands: Vec<Answers>,
    drawn: Option<Duration>,
    dirty: bool,
    end: Option<i32>,
}

impl Monit {
    fn run(mut self, stdin: BorrowedFd<'_>) -> Result<i32, Failure> {
        let ended = loop {
            self.keep_up();
            if let Err(error) = self.draw() {
                break Err(error);
            }
            if let Some(code) = self.end {
                break Ok(code);
            }
            match self.wait(stdin) {
                Ok(ready) => {
                    let taken = ready.into_iter().try_for_each(|source| self.take(source, stdin));
                    if let Err(error) = taken {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        // The terminal is given back before anything is said on it.
        drop(self);
        ended.map_err(|error| Failure::failed(format_args!("monit: the terminal: {error}")))
    }

    fn now(&self) -> Duration {
        self.clock.since_start()
    }

    fn update(&mut self, event: Event) {
        let now = self.now();
        self.dirty = true;
        match self.model.update(event, now) {
            Some(Wish::Quit) => self.end = Some(0),
            Some(Wish::Redraw) => {
                self.terminal.backend_mut().repaint();
                // What was drawn before is forgotten; that a terminal cannot be cleared is seen at the next drawing.
                let _ = self.terminal.clear();
            }
            Some(Wish::Send(request)) => self.send(*request),
            None => {}
        }
    }

    fn send(&mut self, request: Request) {
        match self.ask(request) {
            Ok(answers) => self.commands.push(answers),
            Err(error) => self.update(Event::NoAnswer(error.to_string())),
        }
    }

    fn ask(&self, request: Request) -> Result<Answers, ClientError> {
        let mut answers = client::ask(&self.home, request, None)?;
        answers.do_not_wait()?;
        Ok(answers)
    }

    /// What is due by the clock.
    fn keep_up(&mut self) {
        let now = self.now();
        if self.keys_until.is_some_and(|until| until <= now) {
            self.keys_until = None;
            if let Some(key) = self.keys.settle() {
                self.update(Event::Key(key));
            }
        }
        match &self.list {
            List::At(at) if *at <= now => self.ask_list(now),
            List::Asked(at, _) if now >= *at + ANSWER_TIME => {
                self.list = List::At(now + LIST_PAUSE);
                self.update(Event::NoList(ClientError::Silent(ANSWER_TIME).to_string()));
            }
            List::At(_) | List::Asked(..) => {}
        }
        self.keep_log(now);
    }

    fn ask_list(&mut self, now: Duration) {
        let request = Request::List { targets: Vec::new(), connections: false, detail: false };
        match self.ask(request) {
            Ok(answers) => self.list = List::Asked(now, answers),
            Err(error) => {
                self.list = List::At(now + LIST_PAUSE);
                self.update(Event::NoList(error.to_string()));
            }
        }
    }

    /// Follows what is selected, once it stayed so for a moment.
    fn keep_log(&mut self, now: Duration) {
        let wanted = self.model.wanted_log();
        if wanted != self.log.target {
            self.log = Log { target: wanted, answers: None, more: false, changed: now };
            self.model.begin_log();
            self.dirty = true;
        }
        let Some(target) = &self.log.target else { return };
        if self.log.answers.is_some() || now < self.log.changed + LOG_DELAY {
            return;
        }
        let request =
            Request::Logs { targets: vec![target.clone()], lines: LOG_LINES, follow: true, stream: None };
        match self.ask(request) {
            Ok(answers) => {
                self.model.begin_log();
                self.log.answers = Some(answers);
            }
            Err(_) => self.log.changed = now + LIST_PAUSE,
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let now = self.now();
        self.terminal.backend_mut().send()?;
        let is_early = self.drawn.is_some_and(|drawn| now < drawn + FRAME);
        // The next drawing waits for the terminal to take the one before.
        if !self.dirty || is_early || self.terminal.backend().is_behind() {
            return Ok(());
        }
        let (model, theme) = (&self.model, self.theme);
        self.terminal.backend_mut().begin(theme.unicode);
        self.terminal.draw(|frame| view::draw(frame, model, theme))?;
        self.drawn = Some(now);
        self.dirty = false;
        self.terminal.backend_mut().send()
    }

    fn time_to_wait(&self) -> PollTimeout {
        if self.log.more && self.is_log_read() {
            return PollTimeout::ZERO;
        }
        let list = match &self.list {
            List::At(at) => *at,
            List::Asked(at, _) => *at + ANSWER_TIME,
        };
        let log =
            (self.log.target.is_some() && self.log.answers.is_none()).then_some(self.log.changed + LOG_DELAY);
        let is_behind = self.terminal.backend().is_behind();
        let frame = self.drawn.filter(|_| self.dirty && !is_behind).map(|drawn| drawn + FRAME);
        let next = [Some(list), log, frame, self.keys_until].into_iter().flatten().min().unwrap_or(list);
        // Rounded up: a poll that ends early would be repeated at once.
        let wait = next.saturating_sub(self.now()) + Duration::from_millis(1);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn wait(&self, stdin: BorrowedFd<'_>) -> io::Result<Vec<Source>> {
        let mut waited: Vec<(Source, PollFd<'_>)> = Vec::new();
        let mut add = |source, fd, flags| waited.push((source, PollFd::new(fd, flags)));
        add(Source::Keys, stdin, PollFlags::POLLIN);
        add(Source::Signals, self.signals.source(), PollFlags::POLLIN);
        let screen = self.terminal.backend();
        if let Some(fd) = screen.source().filter(|_| screen.is_behind()) {
            add(Source::Screen, fd, PollFlags::POLLOUT);
        }
        if let List::Asked(_, answers) = &self.list {
            add(Source::List, answers.source(), PollFlags::POLLIN);
        }
        if let Some(answers) = self.log.answers.as_ref().filter(|_| self.is_log_read()) {
            add(Source::Log, answers.source(), PollFlags::POLLIN);
        }
        for (place, answers) in self.commands.iter().enumerate() {
            add(Source::Command(place), answers.source(), PollFlags::POLLIN);
        }
        let mut fds: Vec<PollFd<'_>> = waited.iter().map(|(_, fd)| fd.clone()).collect();
        match poll(&mut fds, self.time_to_wait()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let is_rest = |source| source == Source::Log && self.log.more;
        let ready = waited.iter().zip(&fds).filter(|((source, _), fd)| is_ready(fd) || is_rest(*source));
        // From the last: a command that is over leaves its place.
        Ok(ready.map(|((source, _), _)| *source).rev().collect())
    }

    fn take(&mut self, source: Source, stdin: BorrowedFd<'_>) -> io::Result<()> {
        match source {
            Source::Keys => self.take_keys(stdin)?,
            Source::Signals => self.take_signals()?,
            Source::Screen => {}
            Source::List => self.take_list(),
            Source::Log => self.take_log(),
            Source::Command(place) => self.take_command(place),
        }
        Ok(())
    }

    fn take_keys(&mut self, stdin: BorrowedFd<'_>) -> io::Result<()> {
        let mut bytes = [0; KEY_BYTES];
        let count = match nix::unistd::read(stdin, &mut bytes) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        // The other end of the terminal is gone, with whoever sat there.
        if count == 0 {
            self.end = Some(0);
        }
        for key in self.keys.push(&bytes[..count]) {
            self.update(Event::Key(key));
        }
        self.keys_until = self.keys.is_waiting().then(|| self.now() + KEY_TIME);
        // A key is answered at once.
        self.drawn = None;
        Ok(())
    }

    fn take_signals(&mut self) -> io::Result<()> {
        let taken = self.signals.take();
        if let Some(signal) = taken.end {
            self.end = Some(128 + signal);
            return Ok(());
        }
        if taken.suspended {
            self.terminal.backend_mut().suspend()?;
        }
        // Also after a SIGSTOP, of which nobody hears before.
        if taken.suspended || taken.resumed {
            self.terminal.backend_mut().resume()?;
            self.terminal.clear()?;
        }
        self.dirty |= taken.resized || taken.suspended || taken.resumed;
        Ok(())
    }

    fn take_list(&mut self) {
        let now = self.now();
        let List::Asked(at, answers) = &mut self.list else { return };
        // Each at its second, however long the answer took.
        let next = (*at + LIST_PAUSE).max(now);
        let event = match answers.try_next() {
            Next::Waiting => return,
            Next::Reply(Reply::List(list)) => Event::List(list),
            Next::Reply(Reply::Error(error)) => Event::NoList(error.message),
            Next::Reply(_) | Next::Over => {
                Event::NoList("the answer was something else than a list".to_owned())
            }
            Next::Failed(error) => Event::NoList(error.to_string()),
        };
        self.list = List::At(next);
        self.update(event);
    }

    fn take_log(&mut self) {
        self.log.more = false;
        for _ in 0..ANSWERS {
            let Some(answers) = &mut self.log.answers else { return };
            match answers.try_next() {
                Next::Waiting => return,
                Next::Reply(reply @ (Reply::Line(_) | Reply::Dropped { .. })) => {
                    self.update(Event::Log(reply))
                }
                Next::Reply(Reply::Following {}) => {}
                Next::Reply(_) | Next::Over | Next::Failed(_) => {
                    self.log.answers = None;
                    self.log.changed = self.now() + LIST_PAUSE;
                }
            }
        }
        self.log.more = true;
    }

    /// A log whose lines are looked at. What nobody looks at stays with the supervisor, which counts what it has to
    /// leave out.
    fn is_log_read(&self) -> bool {
        !self.model.log.paused && !self.terminal.backend().is_behind()
    }

    fn take_command(&mut self, place: usize) {
        for _ in 0..ANSWERS {
            let Some(answers) = self.commands.get_mut(place) else { return };
            let (event, over) = match answers.try_next() {
                Next::Waiting => return,
                Next::Reply(reply @ (Reply::Done(_) | Reply::Error(_))) => (Event::Answer(reply), true),
                Next::Reply(reply) => (Event::Answer(reply), false),
                Next::Over => (Event::NoAnswer("there was no answer".to_owned()), true),
                Next::Failed(error) => (Event::NoAnswer(error.to_string()), true),
            };
            self.update(event);
            if over {
                self.commands.swap_remove(place);
                return;
            }
        }
    }
}
