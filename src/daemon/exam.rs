//! An unfinished request of the supervisor's own, made to one chosen worker: what that proves about a
//! server is decided in the core. A single byte is sent, which no protocol takes for a request.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::supervisor::event::{Event, SocketId, Spot, Spread, WorkerId};
use crate::supervisor::time::Time;
use crate::sys::connections::{self, State};
use crate::sys::process;

use super::Daemon;
use super::lead::Led;
use super::processes::Process;

/// The beginning of every HTTP request there is, near enough.
const BEGINNING: &[u8] = b"G";

/// How long the worker may take to accept the connection and to read from it.
const PATIENCE: Duration = Duration::from_millis(250);

/// Between two looks while it is awaited, and while it is held.
const SOON: Duration = Duration::from_millis(2);
const LATER: Duration = Duration::from_millis(20);

/// All that are under way; at most one a generation of each app.
#[derive(Debug, Default)]
pub(super) struct Exams {
    by_worker: BTreeMap<WorkerId, Exam>,
}

#[derive(Debug)]
struct Exam {
    led: Led,
    stage: Stage,
    look_at: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The handshake is under way.
    Connecting { until: Time },
    /// The byte was sent; the worker has not read it.
    Sent { until: Time },
    /// The worker has it.
    Held,
}

impl Exams {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.by_worker.values().map(|exam| exam.look_at).min()
    }

    /// Our own end of the connection to this worker.
    pub(super) fn client_of(&self, worker: WorkerId) -> Option<SocketAddr> {
        self.by_worker.get(&worker).map(|exam| exam.led.client)
    }
}

impl Daemon {
    /// Begins an exam. Answered by `Examining`.
    pub(super) fn examine(
        &mut self,
        worker: WorkerId,
        socket: SocketId,
        position: u32,
        active: Spread,
        now: Time,
    ) {
        match self.knock(worker, &Spot { socket, position, active }, now) {
            Ok(Some(exam)) => drop(self.exams.by_worker.insert(worker, exam)),
            Ok(None) => self.inbox.push_back(Event::Examining { worker, holds: false }),
            Err(error) => {
                log::debug!("worker {}: no connection of our own: {error}", worker.0);
                self.inbox.push_back(Event::Examining { worker, holds: false });
            }
        }
    }

    /// Begins the connection; `None` where the worker lets the signal take its course.
    fn knock(&mut self, worker: WorkerId, spot: &Spot, now: Time) -> io::Result<Option<Exam>> {
        if !self.processes.get(worker).is_some_and(Process::may_handle_stop) {
            return Ok(None);
        }
        let led = self.begin_led(spot)?;
        Ok(Some(Exam { led, stage: Stage::Connecting { until: now + PATIENCE }, look_at: now }))
    }

    /// Ends the connection of a worker's exam, if there is one.
    pub(super) fn let_go(&mut self, worker: WorkerId) {
        if let Some(exam) = self.exams.by_worker.remove(&worker) {
            self.end_lead(exam.led.client);
        }
    }

    /// Looks at the exams whose time has come.
    pub(super) fn look_at_exams(&mut self, now: Time) {
        let due: Vec<WorkerId> = self
            .exams
            .by_worker
            .iter()
            .filter(|(_, e)| e.look_at <= now)
            .map(|(worker, _)| *worker)
            .collect();
        for worker in due {
            let Some(mut exam) = self.exams.by_worker.remove(&worker) else { continue };
            match self.follow(worker, &mut exam, now) {
                Ok(true) => drop(self.exams.by_worker.insert(worker, exam)),
                Ok(false) => {
                    self.end_lead(exam.led.client);
                    self.inbox.push_back(Event::Examining { worker, holds: false });
                }
                Err(error) => {
                    log::debug!("worker {}: our own connection: {error}", worker.0);
                    self.end_lead(exam.led.client);
                    self.inbox.push_back(Event::Examining { worker, holds: false });
                }
            }
        }
    }

    /// One step on; false when it leads nowhere.
    fn follow(&mut self, worker: WorkerId, exam: &mut Exam, now: Time) -> io::Result<bool> {
        exam.look_at = now + SOON;
        match exam.stage {
            Stage::Connecting { until } => {
                if let Some(error) = exam.led.stream.take_error()? {
                    return Err(error);
                }
                match exam.led.stream.peer_addr() {
                    Ok(_) => {
                        self.end_lead(exam.led.client);
                        exam.led.stream.write_all(BEGINNING)?;
                        exam.stage = Stage::Sent { until };
                        Ok(true)
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(now < until),
                    Err(error) => Err(error),
                }
            }
            Stage::Sent { until } => {
                if self.has_read(worker, exam)? {
                    exam.stage = Stage::Held;
                    self.inbox.push_back(Event::Examining { worker, holds: true });
                    return Ok(true);
                }
                Ok(now < until)
            }
            Stage::Held => {
                exam.look_at = now + LATER;
                let mut answer = [0; 1];
                match exam.led.stream.read(&mut answer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
                    // An answer, or the end: whatever it means, the request is not held any more.
                    Ok(_) => Ok(false),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Whether a process of this very worker has accepted the connection and read what was sent.
    fn has_read(&mut self, worker: WorkerId, exam: &Exam) -> io::Result<bool> {
        let (Some(diagnostics), Some(port)) = (self.diagnostics.as_mut(), exam.led.address.port()) else {
            return Ok(false);
        };
        let all = diagnostics.dump(port, connections::CONNECTIONS)?;
        let other_end = all.iter().find(|c| c.is_from(exam.led.client) && c.state == State::Established);
        let Some(accepted) = other_end.filter(|c| c.inode != 0) else { return Ok(false) };
        let read = accepted.moved.bytes_received >= BEGINNING.len() as u64 && accepted.moved.unread == 0;
        let of_worker = |pid| process::sockets(pid).map(|all| all.iter().any(|s| s.inode == accepted.inode));
        for pid in self.processes.tree_of(worker) {
            match of_worker(pid) {
                Ok(yes) if read && yes => return Ok(true),
                Err(error) if !process::is_gone(&error) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(false)
    }
}
