//! Checks of one worker (`health`, `ready = "http:/path"`): a connection that is led to it, or a command that
//! is told its process id. Each has one deadline, reads a bounded amount, and never waits; what the answers
//! come to is decided in the core.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::config::Check;
use crate::supervisor::event::{Event, Pulse, Question, SocketId, Spot, WorkerId};
use crate::supervisor::policy::{Door, Health, Readiness, Way};
use crate::supervisor::time::Time;
use crate::sys::connections::{self, State};
use crate::sys::process::{self, Ended};
use crate::sys::{listen, spawn};

use super::Daemon;
use super::lead::{Leads, Led};
use super::start::is_transient;
use super::unwell::Evidence;

/// Between two looks at a check: at first, and when it takes its time.
const SOON: Duration = Duration::from_millis(2);
const LATER: Duration = Duration::from_millis(20);

/// A check that is older takes its time.
const YOUNG: Duration = Duration::from_millis(50);

/// Bytes in which an answer's first line must end.
const HEAD: usize = 512;

/// Bytes that are read of the rest, so that the server is not cut off in the middle of a short answer.
const REST: usize = 64 * 1024;

/// How long the rest may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two lines about checks that could not be made.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Characters that are kept of what a command says.
const SAID: usize = 200;

/// All checks that are under way, and what was last the matter with whom.
#[derive(Debug, Default)]
pub(super) struct Probes {
    by_worker: BTreeMap<WorkerId, Probe>,
    complaints: BTreeMap<WorkerId, String>,
    unasked: Unasked,
    pub(super) evidence: Evidence,
    pub(super) leads: Leads,
}

/// Checks that could not be made and were not told of, and when it was told last.
#[derive(Debug, Default)]
struct Unasked {
    count: u64,
    told: Option<Time>,
}

/// Why a check cannot begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// For a reason of the worker's: this is its bad answer.
    Worker(String),
    /// For want of something of the supervisor's or the host's.
    Host(String),
}

impl Unfit {
    /// What came of a step of our own.
    pub(super) fn of(step: &str, error: &io::Error) -> Unfit {
        let text = format!("{step}: {error}");
        if is_want(error) { Unfit::Host(text) } else { Unfit::Worker(text) }
    }
}

/// Whether descriptors, memory, processes or local ports are short, or as much is under way as may be. Those that
/// bind(2) and connect(2) have for a lack of local ports are EADDRINUSE and EADDRNOTAVAIL.
fn is_want(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(errno) => is_transient(errno) || is_lack_of_ports(errno),
        None => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn is_lack_of_ports(errno: i32) -> bool {
    matches!(errno, libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::ENOSPC)
}

#[derive(Debug)]
struct Probe {
    question: Question,
    began: Time,
    until: Time,
    look_at: Time,
    stage: Stage,
    /// What was asked and where, as it stands behind a bad answer; empty for a command.
    asked: String,
}

/// How far a check came.
#[derive(Debug)]
pub(super) enum Stage {
    /// The handshake is under way. With a request to send, or to be accepted is enough.
    Connecting { led: Led, socket: SocketId, request: Option<String> },
    /// The worker is to accept it.
    Queued { led: Led, socket: SocketId },
    /// The request was sent.
    Asked { led: Led, head: Vec<u8> },
    /// The answer is known.
    Answered { led: Led, left: usize },
    /// A command runs.
    Running { pid: i32, report: OwnedFd, output: File, said: Vec<u8> },
}

/// How far a look at a check came.
enum Step {
    /// It goes on.
    On(Stage),
    /// It is answered, and goes on for its own sake.
    AnsweredAndOn(Result<(), String>, Stage),
    /// It is answered, and over.
    Over(Result<(), String>),
    /// It is over, and could not be made.
    Unasked(String),
    /// It is over, and was answered before.
    Gone,
}

impl Probes {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.by_worker.values().map(|probe| probe.look_at.min(probe.until)).min()
    }

    /// The processes of commands that run.
    pub(super) fn commands(&self) -> Vec<i32> {
        let command = |probe: &Probe| match probe.stage {
            Stage::Running { pid, .. } => Some(pid),
            Stage::Connecting { .. }
            | Stage::Queued { .. }
            | Stage::Asked { .. }
            | Stage::Answered { .. } => None,
        };
        self.by_worker.values().filter_map(command).collect()
    }

    /// What was the matter with a worker at its last check.
    pub(super) fn complaint(&self, worker: WorkerId) -> &str {
        self.complaints.get(&worker).map_or("", String::as_str)
    }
}

impl Daemon {
    /// Begins a check. Answered by `Probed`.
    pub(super) fn begin_probe(
        &mut self,
        worker: WorkerId,
        question: Question,
        timeout: Duration,
        spot: Option<&Spot>,
        now: Time,
    ) {
        self.stop_probe(worker);
        let check = self.check_of(worker, question);
        let asked = match (&check, spot.and_then(|spot| self.sockets.get(spot.socket))) {
            (Ok(Check::Http(path)), Some(held)) => format!(" (GET {path} at {})", held.address),
            (Ok(Check::Tcp), Some(held)) => format!(" (at {})", held.address),
            (Ok(Check::Http(_) | Check::Tcp | Check::Command(_)) | Err(_), _) => String::new(),
        };
        let stage = check.and_then(|check| match (check, spot) {
            (Check::Http(path), Some(spot)) => self.connect(spot, Some(path)),
            (Check::Tcp, Some(spot)) => self.connect(spot, None),
            (Check::Http(_) | Check::Tcp, None) => Err(Unfit::Worker(self.not_there(worker, question))),
            (Check::Command(words), _) => self.run_check(worker, &words),
        });
        match stage {
            Ok(stage) => {
                let probe = Probe { question, began: now, until: now + timeout, look_at: now, stage, asked };
                self.probes.by_worker.insert(worker, probe);
            }
            Err(Unfit::Worker(complaint)) => {
                self.answer_probe(worker, question, Err(format!("{complaint}{asked}")))
            }
            Err(Unfit::Host(lack)) => self.leave_unasked(worker, question, &lack),
        }
    }

    /// Why there is no connection to a worker where it is to be asked.
    fn not_there(&self, worker: WorkerId, question: Question) -> String {
        let policy = self.processes.get(worker).map(|process| &process.recipe.policy);
        let door = policy.and_then(|policy| match (question, policy.ready, policy.health) {
            (Question::Ready, Readiness::Http(door), _) => Some(door),
            (Question::Health, _, Some(Health { way: Way::Connection(door), .. })) => Some(door),
            _ => None,
        });
        let place = match door {
            Some(Door::Port(port)) => format!("on port {port}"),
            Some(Door::At(address)) => format!("on {address}"),
            Some(Door::Any(_)) | None => return "it listens nowhere".to_owned(),
        };
        let mut others: Vec<String> =
            self.sockets.of(worker).map(|(_, held)| held.address.to_string()).collect();
        others.sort_unstable();
        others.dedup();
        match others.is_empty() {
            true => format!("it does not listen {place}"),
            false => format!("it does not listen {place}, but on {}", others.join(", ")),
        }
    }

    /// It could not be asked, for want of something that is not its own: now and then a line.
    fn leave_unasked(&mut self, worker: WorkerId, question: Question, lack: &str) {
        log::debug!("{}: not asked: {lack}", self.label(worker));
        self.inbox.push_back(Event::Unasked { worker, question });
        let unasked = &mut self.probes.unasked;
        unasked.count += 1;
        if unasked.told.is_some_and(|at| self.now.since(at) < TOLD_EVERY) {
            return;
        }
        let count = std::mem::take(&mut unasked.count);
        unasked.told = Some(self.now);
        let checks = match count {
            1 => "1 check of a worker could not be made and is tried again:".to_owned(),
            _ => format!("{count} checks of workers could not be made and are tried again, the last one of"),
        };
        log::warn!(
            "{checks} {}: {lack}; this says nothing of the workers, and none is replaced for it",
            self.label(worker)
        );
    }

    fn check_of(&self, worker: WorkerId, question: Question) -> Result<Check, Unfit> {
        let recipe = self.processes.get(worker).map(|process| &process.recipe);
        let check = recipe.and_then(|recipe| match question {
            Question::Ready => recipe.spec.ready_path.clone().map(Check::Http),
            Question::Health => recipe.spec.check.clone(),
        });
        check.ok_or_else(|| Unfit::Worker("it is gone".to_owned()))
    }

    fn connect(&mut self, spot: &Spot, path: Option<String>) -> Result<Stage, Unfit> {
        let led = self.begin_led(spot).map_err(|error| Unfit::of("connect", &error))?;
        let request = path.map(|path| {
            let host = led.address;
            format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: clusterd-check/{}\r\nAccept: */*\r\n\
                 Connection: close\r\n\r\n",
                env!("CARGO_PKG_VERSION")
            )
        });
        Ok(Stage::Connecting { led, socket: spot.socket, request })
    }

    fn answer_probe(&mut self, worker: WorkerId, question: Question, answer: Result<(), String>) {
        let passed = answer.is_ok();
        match answer {
            Ok(()) => drop(self.probes.complaints.remove(&worker)),
            Err(complaint) => {
                log::debug!("{}: check: {complaint}", self.label(worker));
                self.probes.complaints.insert(worker, complaint);
            }
        }
        self.inbox.push_back(Event::Probed { worker, question, passed });
    }

    /// Looks at the checks whose time has come.
    pub(super) fn look_at_probes(&mut self, now: Time) {
        let due = |probe: &Probe| probe.look_at <= now || probe.until <= now;
        let workers: Vec<WorkerId> =
            self.probes.by_worker.iter().filter(|(_, probe)| due(probe)).map(|(worker, _)| *worker).collect();
        for worker in workers {
            let Some(mut probe) = self.probes.by_worker.remove(&worker) else { continue };
            let late = now >= probe.until;
            let timeout = probe.until.since(probe.began);
            let stage = match self.follow_probe(probe.stage, late, timeout) {
                Step::On(stage) => stage,
                Step::AnsweredAndOn(answer, stage) => {
                    let answer = answer.map_err(|complaint| complaint + &probe.asked);
                    self.answer_probe(worker, probe.question, answer);
                    probe.until = now + PATIENCE;
                    stage
                }
                Step::Over(answer) => {
                    let answer = answer.map_err(|complaint| complaint + &probe.asked);
                    self.answer_probe(worker, probe.question, answer);
                    continue;
                }
                Step::Unasked(lack) => {
                    self.leave_unasked(worker, probe.question, &lack);
                    continue;
                }
                Step::Gone => continue,
            };
            let pause = if now.since(probe.began) < YOUNG { SOON } else { LATER };
            self.probes.by_worker.insert(worker, Probe { stage, look_at: now + pause, ..probe });
        }
    }

    fn follow_probe(&mut self, stage: Stage, late: bool, timeout: Duration) -> Step {
        let slow =
            |what: &str| Step::Over(Err(format!("{what} within {}", humantime::format_duration(timeout))));
        match stage {
            Stage::Connecting { led, socket, request } => match connected(&led) {
                Ok(true) => {
                    self.end_lead(led.client);
                    began(led, socket, request)
                }
                Ok(false) if !late => Step::On(Stage::Connecting { led, socket, request }),
                Ok(false) => {
                    self.end_lead(led.client);
                    slow("no connection")
                }
                Err(error) => {
                    self.end_lead(led.client);
                    Step::Over(Err(format!("connect: {error}")))
                }
            },
            Stage::Queued { led, socket } => {
                let queue = self.sockets.fd(socket).map(listen::queue_length);
                match queue {
                    Some(Ok(0)) => Step::Over(Ok(())),
                    Some(_) if !late => Step::On(Stage::Queued { led, socket }),
                    // Others may wait behind it for ever.
                    Some(_) if self.is_accepted(&led) => Step::Over(Ok(())),
                    Some(_) => slow("the connection was not accepted"),
                    None => Step::Over(Err("its socket is closed".to_owned())),
                }
            }
            Stage::Asked { led, head } if late => {
                slow(if head.is_empty() { "no answer" } else { "no whole answer" }).keeping(led)
            }
            Stage::Asked { led, head } => read_head(led, head),
            Stage::Answered { led, left } if !late => read_rest(led, left),
            Stage::Answered { .. } => Step::Gone,
            Stage::Running { pid, .. } if late => {
                kill_tree(pid);
                slow("the command did not end")
            }
            Stage::Running { pid, report, mut output, mut said } => {
                read_said(&mut output, &mut said);
                match spawn::read_report(report.as_fd()) {
                    Ok(Some(spawn::Report::Failed(failure))) => {
                        let (step, why) = (failure.step, spawn::errno_text(failure.errno));
                        let text = format!("the command could not be started ({step:?}): {why}");
                        if is_transient(failure.errno) { Step::Unasked(text) } else { Step::Over(Err(text)) }
                    }
                    _ => Step::On(Stage::Running { pid, report, output, said }),
                }
            }
        }
    }

    pub(super) fn is_accepted(&mut self, led: &Led) -> bool {
        let (Some(diagnostics), Some(port)) = (self.diagnostics.as_mut(), led.address.port()) else {
            return false;
        };
        diagnostics.dump(port, connections::CONNECTIONS).is_ok_and(|all| {
            all.iter().any(|c| c.is_from(led.client) && c.state == State::Established && c.inode != 0)
        })
    }

    /// The worker leaves: nobody asks it any more, and our own connection is not to hold it up.
    pub(super) fn stop_probe(&mut self, worker: WorkerId) {
        self.stop_knocks(worker);
        let Some(probe) = self.probes.by_worker.remove(&worker) else { return };
        match probe.stage {
            Stage::Connecting { led, .. } => self.end_lead(led.client),
            Stage::Running { pid, .. } => kill_tree(pid),
            Stage::Queued { .. } | Stage::Asked { .. } | Stage::Answered { .. } => {}
        }
    }

    /// The worker is gone.
    pub(super) fn end_probe(&mut self, worker: WorkerId) {
        self.stop_probe(worker);
        self.probes.complaints.remove(&worker);
    }

    /// A child that was no worker has ended: a check's command, perhaps.
    pub(super) fn command_ended(&mut self, pid: i32, how: Ended) {
        let runs = |probe: &Probe| matches!(probe.stage, Stage::Running { pid: other, .. } if other == pid);
        let found = self.probes.by_worker.iter().find(|(_, probe)| runs(probe)).map(|(worker, _)| *worker);
        let Some(worker) = found else { return };
        let Some(probe) = self.probes.by_worker.remove(&worker) else { return };
        let Stage::Running { mut output, mut said, .. } = probe.stage else { return };
        read_said(&mut output, &mut said);
        let said = String::from_utf8_lossy(&said);
        let said: String =
            said.trim().chars().take(SAID).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let answer = match how {
            Ended::Code(0) => Ok(()),
            how => {
                let how = super::report::exit_text(how.into());
                Err(format!("the command {how}{}{said}", if said.is_empty() { "" } else { ": " }))
            }
        };
        self.answer_probe(worker, probe.question, answer);
    }

    /// How many wait for a worker, and how much it has worked. Answered by `Felt`.
    pub(super) fn feel(&mut self, worker: WorkerId) {
        let queued = self.waiting_for(worker);
        let ticks = |pid| process::stat(pid).map_or(0, |stat| stat.ticks);
        let ticks = self.processes.tree_of(worker).into_iter().map(ticks).sum();
        self.inbox.push_back(Event::Felt { worker, pulse: Pulse { queued, ticks } });
    }
}

impl Step {
    /// An answer is due, but the connection is dropped with it.
    fn keeping(self, led: Led) -> Step {
        drop(led);
        self
    }
}

/// Whether the handshake is over.
pub(super) fn connected(led: &Led) -> io::Result<bool> {
    if let Some(error) = led.stream.take_error()? {
        return Err(error);
    }
    match led.stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

fn began(mut led: Led, socket: SocketId, request: Option<String>) -> Step {
    let Some(request) = request else { return Step::On(Stage::Queued { led, socket }) };
    // A fresh connection's buffer takes all of it.
    match led.stream.write_all(request.as_bytes()) {
        Ok(()) => Step::On(Stage::Asked { led, head: Vec::new() }),
        Err(error) => Step::Over(Err(format!("send: {error}"))),
    }
}

fn read_head(mut led: Led, mut head: Vec<u8>) -> Step {
    let mut bytes = [0; HEAD];
    match led.stream.read(&mut bytes) {
        Ok(0) => Step::Over(Err("it closed the connection without an answer".to_owned())),
        Ok(length) => {
            head.extend_from_slice(&bytes[..length]);
            match judge(&head) {
                None if head.len() < HEAD => Step::On(Stage::Asked { led, head }),
                None => Step::Over(Err("what it answered is not HTTP/1".to_owned())),
                Some(answer) => Step::AnsweredAndOn(answer, Stage::Answered { led, left: REST }),
            }
        }
        Err(error) if is_nothing_yet(&error) => Step::On(Stage::Asked { led, head }),
        Err(error) => Step::Over(Err(format!("read: {error}"))),
    }
}

/// What the first line of an answer says; `None` while it is not whole.
fn judge(head: &[u8]) -> Option<Result<(), String>> {
    let line = &head[..head.iter().position(|b| *b == b'\n')?];
    let code = line.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let code = code.and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
    Some(match code {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("it answered {code}")),
        None => Err("what it answered is not HTTP/1".to_owned()),
    })
}

fn read_rest(mut led: Led, left: usize) -> Step {
    let mut bytes = [0; 4096];
    match led.stream.read(&mut bytes) {
        Ok(length) if length > 0 && length < left => Step::On(Stage::Answered { led, left: left - length }),
        Err(error) if is_nothing_yet(&error) => Step::On(Stage::Answered { led, left }),
        Ok(_) | Err(_) => Step::Gone,
    }
}

fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Keeps the first of what a command says, and reads on so that it is not held up.
fn read_said(output: &mut File, said: &mut Vec<u8>) {
    let mut bytes = [0; 4096];
    for _ in 0..16 {
        let Ok(length @ 1..) = output.read(&mut bytes) else { return };
        let room = (4 * SAID).saturating_sub(said.len()).min(length);
        said.extend_from_slice(&bytes[..room]);
    }
}

/// It is our child and not reaped, so its number is its own.
fn kill_tree(pid: i32) {
    for member in process::tree(pid) {
        if let Err(error) = process::signal_member(member, libc::SIGKILL) {
            log::debug!("kill a check's command: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_an_answer_says_how_it_is() {
        let said = |text: &str| judge(text.as_bytes());
        assert_eq!(said("HTTP/1.1 200 OK\r\n"), Some(Ok(())));
        assert_eq!(said("HTTP/1.0 302 Found\r\nLocation"), Some(Ok(())));
        assert_eq!(said("HTTP/1.1 503 \r\n"), Some(Err("it answered 503".to_owned())));
        assert_eq!(said("HTTP/1.1 404\n"), Some(Err("it answered 404".to_owned())));
        assert_eq!(said("HTTP/1.1 200 OK"), None);
        for strange in
            ["\n", "HTTP/2 200\n", "SSH-2.0-x\r\n", "HTTP/1.1 2\n", "HTTP/1.1  99\n", "HTTP/1.1 -20\n"]
        {
            assert!(said(strange).is_some_and(|answer| answer.is_err()), "{strange:?}");
        }
    }

    #[test]
    fn what_we_lack_is_not_the_workers_answer() {
        for errno in [
            libc::EMFILE,
            libc::ENFILE,
            libc::EAGAIN,
            libc::ENOMEM,
            libc::ENOBUFS,
            libc::EADDRNOTAVAIL,
            libc::EADDRINUSE,
            libc::ENOSPC,
        ] {
            assert!(is_want(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::ECONNREFUSED, libc::ECONNRESET, libc::ENOENT, libc::EACCES] {
            assert!(!is_want(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        assert!(is_want(&io::Error::new(io::ErrorKind::WouldBlock, "too many")));
        assert!(!is_want(&io::Error::other("its socket is closed")));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            judge(&bytes);
        }
    }
}
