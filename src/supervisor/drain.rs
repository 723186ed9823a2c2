//! When is a leaving worker's connection done? Decides on samples of tcp_info alone, and closes each
//! connection at its own quiet moment.
//!
//! It never waits for all of them to be idle at once, because clients that send their next request
//! right after each answer never are. It refuses to take a tie of the kernel's millisecond clocks for
//! idleness: a request that came with the handshake ties for its whole life (measured: read as idle,
//! 10 of 548 requests were lost).
//!
//! Three rules, each of which is enough:
//!
//! 1. *Quiet*: something was answered after the last that was received, and nothing has moved for
//!    `drain_idle`.
//! 2. *A whole answer*: the client asks and asks again, its answers have had one length so far, and
//!    since its last request just that length was sent, or as many answers as there were requests. This is the rule for clients that are never
//!    quiet; a part of an answer (a head that is written before its body, a chunk) is not as long.
//! 3. *Late in the drain*, when the alternative is to be cut in the middle: the client asks and asks
//!    again, the last thing that moved was an answer, and no answer of it had a pause. A client whose
//!    answers are short and alike is kept from asking again until its answer was sent: it repeats that
//!    request elsewhere, by rule, where it would have lost one that was under way.
//!
//! The last two are for clients that ask one thing at a time, which the traffic alone proves only where all of
//! it was alike. Elsewhere the client's next words are looked at first (`speech`): between two answers of an
//! HTTP/2 connection other streams are under way, and a WebSocket has no answers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::event::Closing;
use super::speech::Speech;
use super::time::Time;

/// Connections whose past is remembered; those beyond are judged by what one look shows.
const REMEMBERED: usize = 65_536;

/// Connections that are ended in one look.
const ENDED_AT_ONCE: usize = 1000;

/// Answered requests after which a connection is known to be keep-alive and nothing else.
const CYCLES: u32 = 2;

/// As much as is sent before the first word of the client is needed: less than the first window of ten
/// segments (RFC 6928).
const SHORT_ANSWER: u64 = 8 * 1024;

/// An answer that grows again after so long a pause is a stream.
const PAUSE: Duration = Duration::from_millis(20);

/// What one look shows of one connection (tcp(7), `struct tcp_info` of linux/tcp.h).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The socket's cookie: never reused while the host is up (SO_COOKIE).
    pub id: u64,
    /// ESTABLISHED or CLOSE_WAIT: the worker can still answer.
    pub established: bool,
    /// Bytes that the worker has not read.
    pub unread: u32,
    /// Bytes that the client has not acknowledged.
    pub unsent: u32,
    /// Of these, bytes that were not even sent (tcpi_notsent_bytes). The rest is the kernel's matter,
    /// also when the worker is gone; clients like to acknowledge an answer with their next request.
    pub untransmitted: u32,
    /// tcpi_bytes_received.
    pub bytes_received: u64,
    /// tcpi_bytes_sent.
    pub bytes_sent: u64,
    /// tcpi_data_segs_out: 0 until the first answer.
    pub segments_out: u32,
    /// Segments with data received so far.
    pub segments_in: u32,
    /// How long ago the client last acknowledged something.
    pub last_acknowledged: Duration,
    /// tcpi_last_data_recv: how long ago, in whole milliseconds; since the handshake before any data.
    pub last_received: Duration,
    /// tcpi_last_data_sent: how long ago, in whole milliseconds.
    pub last_sent: Duration,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A request is under way, or may be.
    Busy,
    /// It may be shut down now.
    Finished,
}

/// The result of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Connections that are not finished.
    pub busy: u32,
    /// Ids of those to shut down now.
    pub close: Vec<u64>,
    /// Ids of those that are to hear nothing more of their clients: their answer is on its way, and the
    /// next request must not come before it was sent.
    pub deafen: Vec<u64>,
    /// Ids of those that are to hear again.
    pub hear: Vec<u64>,
    /// Ids of those whose client's next words are to be told ([`DrainWatch::heard`]).
    pub overhear: Vec<u64>,
}

/// A stretch of time in which a client is expected between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its begin.
    pub from: Time,
    /// Its end.
    pub until: Time,
}

impl Window {
    fn around(moment: Time) -> Window {
        Window { from: moment - EARLY, until: moment + LATE }
    }

    /// Both in one, where they meet.
    fn joined(self, other: Window) -> Option<Window> {
        let meet = other.from <= self.until && self.from <= other.until;
        meet.then(|| Window { from: self.from.min(other.from), until: self.until.max(other.until) })
    }
}

/// How far from the expected moment one is looked for. The kernel tells when a request came with the grain
/// of its timer, which is 4 ms at most on servers (CONFIG_HZ=250), and always too late.
const EARLY: Duration = Duration::from_millis(6);
const LATE: Duration = Duration::from_millis(3);

/// How long after data a client acknowledges by itself: more than the grain of the kernel's timer, and no
/// more than a delayed acknowledgement takes (RFC 9293 has it below half a second). What comes later answers
/// a keep-alive probe, which is sent while a request is worked on, too.
const ACKNOWLEDGED: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(9)..=Duration::from_millis(450);

/// The longest window.
const LONGEST_WINDOW: Duration = Duration::from_millis(20);

/// Clients that are quicker are met by looking at any time.
const SLOW: Duration = Duration::from_millis(20);

/// What earlier looks showed of one connection.
#[derive(Clone, Debug)]
struct History {
    received: u64,
    sent: u64,
    /// Something was sent after the last that was received.
    answered: bool,
    cycles: u32,
    /// When the answer was last seen to grow, within one request.
    grew: Option<Time>,
    /// A look since then showed no growth.
    rested: bool,
    streaming: bool,
    /// The last look at which a request waited for its answer.
    waited: Option<Bytes>,
    /// When that request came, when the first of its kind did, and how many turns lie between the two.
    came: Time,
    first: Time,
    turns: u32,
    /// What one request and its answer move.
    cycle: Option<Bytes>,
    /// How often just that was seen.
    alike: u32,
    /// It hears nothing of its client.
    deaf: bool,
    speech: Overheard,
}

/// What is known of how the client talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overheard {
    /// Nothing, and nobody needs to know.
    Unknown,
    /// It would be finished if it were known to take turns.
    Wanted,
    /// That was said.
    Awaited,
    Known(Speech),
}

/// How much has moved each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes {
    received: u64,
    sent: u64,
}

/// Watches one leaving worker's connections from look to look.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    idle: Duration,
    histories: HashMap<u64, History>,
    closed: HashSet<u64>,
    ended: u32,
}

impl DrainWatch {
    /// `drain_idle` is how long a connection must be quiet to count as done whatever it carries.
    pub fn new(drain_idle: Duration) -> DrainWatch {
        DrainWatch { idle: drain_idle, histories: HashMap::new(), closed: HashSet::new(), ended: 0 }
    }

    /// Judges all connections of the worker; those that are missing are forgotten.
    pub fn look(&mut self, samples: &[Sample], closing: Closing, now: Time) -> Look {
        let present: HashSet<u64> = samples.iter().map(|sample| sample.id).collect();
        self.histories.retain(|id, _| present.contains(id));
        self.closed.retain(|id| present.contains(id));
        let mut look = Look::default();
        for sample in samples.iter().filter(|sample| sample.established) {
            if self.closed.contains(&sample.id) {
                look.busy += u32::from(sample.unread > 0);
                continue;
            }
            match self.judge(sample, closing, now) {
                Verdict::Busy => {
                    look.busy += 1;
                    self.help(sample.id, closing, &mut look);
                }
                // The others at the next look: the loop is there for everybody.
                Verdict::Finished if look.close.len() >= ENDED_AT_ONCE => look.busy += 1,
                Verdict::Finished => {
                    self.close(sample.id);
                    look.close.push(sample.id);
                }
            }
        }
        look
    }

    /// Whether looking again and again for a moment may pay: somebody asks and asks again, and how long
    /// an answer is has been seen.
    pub fn wants_closer_look(&self) -> bool {
        let promising = |history: &History| history.alike >= 1 && !history.has_frames();
        self.histories.iter().any(|(id, history)| promising(history) && !self.closed.contains(id))
    }

    /// When a client that asks and asks again, of a server that takes its time, is to be looked at closely
    /// next: not before `after`.
    pub fn next_window(&self, after: Time) -> Option<Window> {
        let open = self.histories.iter().filter(|(id, _)| !self.closed.contains(id));
        let mut windows: Vec<Window> = open.filter_map(|(_, history)| history.window(after)).collect();
        windows.sort_unstable_by_key(|window| window.from);
        let first = windows.first().copied()?;
        let all = windows.into_iter().fold(first, |all, next| all.joined(next).unwrap_or(all));
        Some(Window { until: all.until.min(all.from + LONGEST_WINDOW), ..all })
    }

    /// Judges one connection between two looks; true when it is to be shut down now.
    pub fn glance(&mut self, sample: &Sample, now: Time) -> bool {
        if self.closed.contains(&sample.id)
            || self.judge(sample, Closing::AtQuietMoments, now) == Verdict::Busy
        {
            return false;
        }
        self.close(sample.id);
        true
    }

    /// It could not be ended: whether it is used. Who is idle is not waited for.
    pub fn reopen(&mut self, sample: &Sample) -> bool {
        if self.closed.remove(&sample.id) {
            self.ended = self.ended.saturating_sub(1);
        }
        sample.last_received < self.idle || sample.last_sent < self.idle
    }

    /// It hears its client, whatever was asked.
    pub fn hears(&mut self, id: u64) {
        if let Some(history) = self.histories.get_mut(&id) {
            history.deaf = false;
        }
    }

    /// How the client of a connection talks; nothing new where it is not known yet.
    pub fn heard(&mut self, id: u64, speech: Speech) {
        if let Some(history) = self.histories.get_mut(&id) {
            history.speech = Overheard::Known(speech);
        }
    }

    /// All hear their clients again.
    pub fn hear_all(&mut self) {
        self.histories.values_mut().for_each(|history| history.deaf = false);
    }

    /// How many were finished so far.
    pub fn ended(&self) -> u32 {
        self.ended
    }

    fn close(&mut self, id: u64) {
        self.closed.insert(id);
        self.ended = self.ended.saturating_add(1);
    }

    /// Late in the drain, a client that asks again at once is kept from it until its answer was sent.
    fn help(&mut self, id: u64, closing: Closing, look: &mut Look) {
        let Some(history) = self.histories.get_mut(&id) else { return };
        if history.speech == Overheard::Wanted {
            history.speech = Overheard::Awaited;
            look.overhear.push(id);
        }
        if history.deaf && history.answered_otherwise() {
            (history.deaf, history.alike) = (false, 0);
            look.hear.push(id);
        } else if !history.deaf && matches!(closing, Closing::Late | Closing::Last) && history.waits_as_ever()
        {
            history.deaf = true;
            look.deafen.push(id);
        }
    }

    fn judge(&mut self, sample: &Sample, closing: Closing, now: Time) -> Verdict {
        let mut fresh = History::new(sample);
        let history = if self.histories.contains_key(&sample.id) || self.histories.len() < REMEMBERED {
            self.histories.entry(sample.id).or_insert(fresh)
        } else {
            &mut fresh
        };
        history.add(sample, now);
        let quiet = sample.last_received >= self.idle && sample.last_sent >= self.idle;
        // Who connected ahead of its first request has been answered nothing: that may be on its way.
        let answered = history.answered && sample.segments_out > 0;
        let finished = if sample.unread > 0 || sample.untransmitted > 0 {
            false
        } else {
            let idle = answered && quiet && sample.unsent == 0;
            let between = match closing {
                Closing::WhenIdle => false,
                Closing::AtQuietMoments => history.has_whole_answer(),
                Closing::Late | Closing::Last => {
                    let answered = answered && history.cycles >= CYCLES && !history.streaming;
                    history.has_whole_answer() || (answered && !history.deaf)
                }
            };
            idle || (between && history.takes_turns())
        };
        if finished { Verdict::Finished } else { Verdict::Busy }
    }
}

impl History {
    fn new(sample: &Sample) -> History {
        History {
            received: sample.bytes_received,
            sent: sample.bytes_sent,
            answered: false,
            cycles: 0,
            grew: None,
            rested: false,
            streaming: false,
            waited: None,
            came: Time::START,
            first: Time::START,
            turns: 0,
            cycle: None,
            alike: 0,
            deaf: false,
            speech: Overheard::Unknown,
        }
    }

    /// Whether the client has one request under way at most. Asks for its words where that is not known.
    fn takes_turns(&mut self) -> bool {
        // Whole requests and whole answers, from the first byte on.
        if let Some(waiting) = self.unanswered() {
            return waiting == 0;
        }
        if self.speech == Overheard::Unknown {
            self.speech = Overheard::Wanted;
        }
        self.speech == Overheard::Known(Speech::Turns)
    }

    /// Several things are under way, or messages that are no answers.
    fn has_frames(&self) -> bool {
        self.speech == Overheard::Known(Speech::Frames)
    }

    /// Requests that were not answered yet, where all have been alike since the connection began.
    fn unanswered(&self) -> Option<u64> {
        let cycle = self.cycle.filter(|_| self.alike >= CYCLES)?;
        cycle.unanswered(Bytes { received: self.received, sent: self.sent })
    }

    /// Just one answer's length was sent since its request was seen to wait, or as many were as there were
    /// requests: a quick server's is not seen to wait.
    fn has_whole_answer(&self) -> bool {
        if self.unanswered() == Some(0) {
            return true;
        }
        let (Some(waited), Some(cycle)) = (self.waited, self.cycle) else { return false };
        self.alike >= CYCLES
            && self.received == waited.received
            && self.sent.checked_sub(waited.sent) == Some(cycle.sent)
    }

    /// A request like those before has come whole, and waits for an answer that needs no word of the
    /// client to be sent.
    fn waits_as_ever(&self) -> bool {
        let short = self.cycle.is_some_and(|cycle| cycle.sent <= SHORT_ANSWER);
        short && self.unanswered() == Some(1)
    }

    /// The request was answered, but not as ever.
    fn answered_otherwise(&self) -> bool {
        self.answered && self.rested && !self.has_whole_answer()
    }

    /// The next time that its client is expected between two requests.
    fn window(&self, after: Time) -> Option<Window> {
        let period = (self.came - self.first).checked_div(self.turns)?;
        if self.alike < CYCLES || period < SLOW || self.has_frames() {
            return None;
        }
        let passed = after.since(self.came + LATE).as_nanos() / period.as_nanos();
        let turns = u32::try_from(passed).ok()?.checked_add(1)?;
        let window = Window::around(self.came + period.saturating_mul(turns));
        Some(Window { from: window.from.max(after), ..window })
    }

    /// A request waits for its answer, and `came` then: what has moved since the last one did is one turn,
    /// or several.
    fn waits(&mut self, now: Bytes, came: Time) {
        let before_that = std::mem::replace(&mut self.came, came);
        let Some(before) = self.waited.replace(now) else { return };
        let moved = Bytes {
            received: now.received.saturating_sub(before.received),
            sent: now.sent.saturating_sub(before.sent),
        };
        // By what has moved since the request before, or, where one look found a request waiting and the
        // next one did not, by all that has moved.
        let turns = self.cycle.and_then(|cycle| {
            cycle.turns(moved).or_else(|| cycle.unanswered(now).and_then(|_| cycle.requests(moved)))
        });
        match turns {
            Some(turns) => {
                self.alike = self.alike.saturating_add(1);
                self.turns = self.turns.saturating_add(turns);
            }
            // Fewer bytes: what was taken for one turn were several. More: answers differ.
            None => {
                (self.cycle, self.alike) = (Some(moved), 1);
                (self.first, self.turns) = (before_that, 1);
            }
        }
    }

    fn add(&mut self, sample: &Sample, now: Time) {
        let asked = sample.bytes_received != self.received;
        let grown = sample.bytes_sent > self.sent;
        if asked {
            // Between two looks a quick server may have answered, and been asked again.
            self.cycles = self.cycles.saturating_add(u32::from(self.answered || grown));
            (self.answered, self.grew, self.rested) = (false, None, false);
        }
        if grown {
            let paused = self.grew.is_some_and(|before| self.rested || now - before >= PAUSE);
            self.streaming |= paused;
            (self.grew, self.rested) = (Some(now), false);
        } else {
            self.rested |= self.grew.is_some();
        }
        // The clocks decide; where they tie, bytes that were sent since an earlier look at the same
        // request do.
        // Where they tie, three things tell that something was sent after all that was received: it was seen
        // to grow; there was one piece to answer only; or the client acknowledged it by itself, a moment
        // later, where a next request would have done so.
        let late = sample.last_received.saturating_sub(sample.last_acknowledged);
        let after = (grown && !asked) || sample.segments_in == 1 || ACKNOWLEDGED.contains(&late);
        self.answered |= sample.segments_out > 0
            && (sample.last_sent < sample.last_received
                || (sample.last_sent == sample.last_received && after));
        self.answered &= sample.last_sent <= sample.last_received;
        (self.received, self.sent) = (sample.bytes_received, sample.bytes_sent);
        if asked && !self.answered {
            self.waits(Bytes { received: self.received, sent: self.sent }, now - sample.last_received);
        }
    }
}

impl Bytes {
    /// How many requests like this one `moved` is, if it is whole ones.
    fn requests(self, moved: Bytes) -> Option<u32> {
        let whole = self.received > 0 && moved.received.is_multiple_of(self.received);
        if whole { u32::try_from(moved.received / self.received).ok() } else { None }
    }

    /// How many requests wait when `all` has moved in turns like this.
    fn unanswered(self, all: Bytes) -> Option<u64> {
        if self.received == 0 || self.sent == 0 {
            return None;
        }
        let whole = all.received.is_multiple_of(self.received) && all.sent.is_multiple_of(self.sent);
        if whole { (all.received / self.received).checked_sub(all.sent / self.sent) } else { None }
    }

    /// How many turns like this `moved` is, if it is whole ones.
    fn turns(self, moved: Bytes) -> Option<u32> {
        if self.received == 0 || self.sent == 0 || !moved.received.is_multiple_of(self.received) {
            return None;
        }
        let turns = moved.received / self.received;
        let whole = turns > 0 && moved.sent == self.sent.saturating_mul(turns);
        if whole { u32::try_from(turns).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: Duration = Duration::from_secs(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(time: u64) -> Time {
        Time::from_start(ms(time))
    }

    /// Answered 5 ms after its request, and nothing since.
    fn answered(requests: u64, ago: u64) -> Sample {
        Sample {
            id: 1,
            established: true,
            unread: 0,
            unsent: 0,
            untransmitted: 0,
            bytes_received: 100 * requests,
            bytes_sent: 1000 * requests,
            segments_out: 1,
            segments_in: 2,
            last_acknowledged: ms(ago + 5),
            last_received: ms(ago + 5),
            last_sent: ms(ago),
        }
    }

    fn closes(watch: &mut DrainWatch, sample: Sample, time: u64) -> bool {
        !watch.look(&[sample], Closing::AtQuietMoments, at(time)).close.is_empty()
    }

    #[test]
    fn quiet_connection_is_finished_and_a_recently_used_one_is_not() {
        let mut watch = DrainWatch::new(IDLE);
        assert!(!closes(&mut watch, answered(1, 1999), 0));
        assert!(closes(&mut watch, answered(1, 2000), 1));
        assert_eq!(watch.look(&[answered(1, 2002)], Closing::AtQuietMoments, at(2)), Look::default());
    }

    #[test]
    fn request_that_came_with_the_handshake_is_busy() {
        let mut watch = DrainWatch::new(IDLE);
        let tie = Sample {
            last_sent: ms(9000),
            last_received: ms(9000),
            last_acknowledged: ms(9000),
            ..answered(1, 0)
        };
        assert!(!closes(&mut watch, Sample { segments_out: 0, bytes_sent: 0, ..tie.clone() }, 0));
        assert!(!closes(&mut DrainWatch::new(IDLE), tie.clone(), 0));
        assert!(!closes(&mut DrainWatch::new(IDLE), tie.clone(), 9000));
        // The client acknowledged what it was sent after it asked; a probe's answer says nothing.
        let acknowledged = |ago| Sample { last_acknowledged: ms(ago), ..tie.clone() };
        assert!(closes(&mut DrainWatch::new(IDLE), acknowledged(8960), 9000));
        assert!(!closes(&mut DrainWatch::new(IDLE), acknowledged(8996), 9000));
        assert!(!closes(&mut DrainWatch::new(IDLE), acknowledged(3000), 9000));
        // One piece was received, and something sent: that is its answer.
        assert!(closes(&mut DrainWatch::new(IDLE), Sample { segments_in: 1, ..tie }, 9000));
    }

    /// A request of 100 bytes waits; `sent` bytes have gone out so far.
    fn waiting(requests: u64, sent: u64) -> Sample {
        Sample {
            bytes_received: 100 * requests,
            bytes_sent: sent,
            last_sent: ms(1),
            last_received: ms(1),
            ..answered(1, 0)
        }
    }

    #[test]
    fn closed_loop_client_is_finished_after_a_whole_answer() {
        let mut watch = DrainWatch::new(IDLE);
        for request in 1..5 {
            assert!(!closes(&mut watch, waiting(request, 1000 * (request - 1)), request * 20));
        }
        assert!(
            !closes(&mut watch, Sample { bytes_sent: 3200, ..answered(4, 0) }, 98),
            "a head is no answer"
        );
        assert!(!closes(&mut watch, Sample { untransmitted: 9, ..answered(4, 0) }, 99));
        assert!(closes(&mut watch, Sample { unsent: 1000, ..answered(4, 0) }, 100), "sent is done");
    }

    /// Each request is answered between two looks, and the kernel's clocks tie.
    #[test]
    fn quick_servers_client_is_finished_when_it_was_answered_as_often_as_it_asked() {
        let mut watch = DrainWatch::new(IDLE);
        let tie = |requests, answers| Sample {
            bytes_received: 100 * requests,
            bytes_sent: 1000 * answers,
            last_received: ms(1),
            last_sent: ms(1),
            ..answered(1, 0)
        };
        for request in 1..4 {
            assert!(!closes(&mut watch, tie(request, request), request * 30));
        }
        assert!(!closes(&mut watch, tie(5, 4), 130), "one waits");
        assert!(!closes(&mut watch, Sample { bytes_sent: 4200, ..tie(5, 4) }, 131), "a head is no answer");
        assert!(closes(&mut watch, tie(5, 5), 132));
    }

    #[test]
    fn connection_that_could_not_be_ended_is_waited_for_while_it_is_used() {
        let mut watch = DrainWatch::new(IDLE);
        assert!(closes(&mut watch, answered(1, 3000), 0));
        assert!(!watch.reopen(&answered(1, 3000)), "nobody uses it");
        assert_eq!(watch.ended(), 0);
        assert!(watch.reopen(&answered(2, 10)));
        assert_eq!(watch.look(&[answered(2, 10)], Closing::AtQuietMoments, at(10)).busy, 1);
    }

    #[test]
    fn thousands_of_idle_connections_are_ended_over_several_looks() {
        let mut watch = DrainWatch::new(IDLE);
        let samples: Vec<Sample> = (0..2500).map(|id| Sample { id, ..answered(1, 3000) }).collect();
        let look = watch.look(&samples, Closing::AtQuietMoments, at(0));
        assert_eq!((look.close.len(), look.busy), (1000, 1500));
        let second = watch.look(&samples, Closing::AtQuietMoments, at(5));
        assert_eq!((second.close.len(), second.busy), (1000, 500));
    }

    #[test]
    fn answers_that_differ_are_left_alone_until_late() {
        let mut watch = DrainWatch::new(IDLE);
        let mut sent = 0;
        for request in 1..9 {
            assert!(!closes(&mut watch, waiting(request, sent), request * 20));
            sent += 1000 + request;
            let answered = Sample { bytes_sent: sent, ..answered(request, 0) };
            assert!(!closes(&mut watch, answered, request * 20 + 10));
        }
        let last = Sample { bytes_sent: sent, ..answered(8, 0) };
        let seen = watch.look(std::slice::from_ref(&last), Closing::Late, at(170));
        assert_eq!((seen.close, seen.overhear), (Vec::new(), vec![1]), "it may have several under way");
        watch.heard(1, Speech::Turns);
        assert_eq!(watch.look(&[last], Closing::Late, at(175)).close, [1]);
    }

    /// Turns like those of a client that asks again at once, after a beginning of another kind.
    fn turns_after_a_preface(speech: Speech, closing: Closing) -> (Vec<u64>, Vec<u64>) {
        let mut watch = DrainWatch::new(IDLE);
        let (mut asked, mut close) = (Vec::new(), Vec::new());
        let preface = |sample: Sample| Sample {
            bytes_received: sample.bytes_received + 57,
            bytes_sent: sample.bytes_sent + 33,
            ..sample
        };
        for request in 1..9 {
            for sample in [waiting(request, 1000 * (request - 1)), answered(request, 0)] {
                let look = watch.look(&[preface(sample)], closing, at(request * 20 + asked.len() as u64));
                if !look.overhear.is_empty() {
                    watch.heard(1, speech);
                }
                asked.extend(look.overhear);
                close.extend(look.close);
            }
        }
        (asked, close)
    }

    #[test]
    fn client_that_has_several_requests_under_way_is_not_finished_by_one_answer() {
        for closing in [Closing::AtQuietMoments, Closing::Late] {
            assert_eq!(turns_after_a_preface(Speech::Frames, closing), (vec![1], Vec::new()));
            assert_eq!(turns_after_a_preface(Speech::Turns, closing), (vec![1], vec![1]));
        }
    }

    #[test]
    fn late_client_is_kept_from_asking_again_until_its_answer_was_sent() {
        let mut watch = DrainWatch::new(IDLE);
        let mut look = |sample: Sample, time| watch.look(&[sample], Closing::Late, at(time));
        for request in 1..4 {
            let seen = look(waiting(request, 1000 * (request - 1)), request * 500);
            assert_eq!(seen, Look { busy: 1, ..Look::default() });
        }
        assert_eq!(look(waiting(4, 3000), 2000).deafen, [1], "two turns were alike");
        assert_eq!(look(waiting(4, 3000), 2005), Look { busy: 1, ..Look::default() }, "once");
        let sent = Sample { bytes_sent: 4000, unsent: 1000, ..answered(4, 0) };
        assert_eq!(look(sent, 2200).close, [1], "what was not acknowledged was not heard");
    }

    #[test]
    fn deaf_client_whose_answer_differs_hears_again() {
        let mut watch = DrainWatch::new(IDLE);
        let mut look = |sample: Sample, time| watch.look(&[sample], Closing::Late, at(time));
        for request in 1..5 {
            look(waiting(request, 1000 * (request - 1)), request * 500);
        }
        let longer = Sample { bytes_sent: 4500, ..answered(4, 0) };
        assert_eq!(look(longer.clone(), 2200).hear, Vec::<u64>::new(), "more may come");
        let seen = look(Sample { last_sent: ms(5), last_received: ms(10), ..longer }, 2205);
        assert_eq!((seen.hear, seen.close), (vec![1], Vec::new()));
        assert_eq!(look(waiting(5, 4500), 2400).deafen, Vec::<u64>::new(), "as any other now");
    }

    #[test]
    fn stream_with_pauses_is_never_finished_between_its_chunks() {
        let mut watch = DrainWatch::new(IDLE);
        for look in 0..2000 {
            let chunk = look / 100;
            let sample = Sample {
                bytes_received: 100,
                bytes_sent: 10 + chunk,
                last_sent: ms((look % 100) * 4),
                last_received: ms(look * 4 + 5),
                ..answered(1, 0)
            };
            assert!(!closes(&mut watch, sample, look * 4), "at look {look}");
        }
    }

    #[test]
    fn who_connected_ahead_of_the_first_request_is_waited_for() {
        let mut watch = DrainWatch::new(IDLE);
        let fresh = |ago| Sample {
            bytes_received: 0,
            bytes_sent: 0,
            segments_out: 0,
            segments_in: 0,
            last_acknowledged: ms(ago),
            last_received: ms(ago),
            last_sent: ms(ago),
            ..answered(0, 0)
        };
        assert!(!closes(&mut watch, fresh(0), 0));
        assert!(!closes(&mut watch, fresh(60_000), 60_000));
    }

    #[test]
    fn request_that_crossed_the_close_makes_it_busy_again() {
        let mut watch = DrainWatch::new(IDLE);
        assert!(closes(&mut watch, answered(1, 3000), 0));
        assert_eq!(
            watch.look(&[Sample { unread: 7, ..answered(2, 0) }], Closing::AtQuietMoments, at(2)).busy,
            1
        );
        assert_eq!(watch.look(&[], Closing::AtQuietMoments, at(4)), Look::default());
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let counts = ((0..3u32, 0..3u32), 0..3u32, 0..5u64, 0..5u64, 0..2u32);
        (0..3u64, any::<bool>(), counts, 0..4000u64, 0..4000u64).prop_map(
            |(
                id,
                established,
                ((unread, untransmitted), unsent, bytes_received, bytes_sent, segments_out),
                received,
                sent,
            )| {
                let (last_received, last_sent) = (ms(received), ms(sent));
                Sample {
                    id,
                    established,
                    unread,
                    unsent,
                    untransmitted,
                    bytes_received,
                    bytes_sent,
                    segments_out,
                    segments_in: segments_out + 1,
                    last_acknowledged: last_received,
                    last_received,
                    last_sent,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_unfinished_is_ever_closed(looks in prop::collection::vec(prop::collection::vec(any_sample(), 0..4), 0..20)) {
            let mut watch = DrainWatch::new(IDLE);
            for (time, mut samples) in looks.into_iter().enumerate() {
                samples.sort_by_key(|sample| sample.id);
                samples.dedup_by_key(|sample| sample.id);
                let look = watch.look(&samples, Closing::AtQuietMoments, at(time as u64 * 4));
                for sample in samples.iter().filter(|sample| look.close.contains(&sample.id)) {
                    prop_assert!(sample.established && sample.unread == 0 && sample.untransmitted == 0);
                    prop_assert!(sample.segments_out > 0 || sample.bytes_sent > 0);
                }
                let open = samples.iter().filter(|sample| sample.established).count();
                prop_assert!(look.busy as usize + look.close.len() <= open);
            }
        }

        /// Looks every 5 ms, and a kernel that counts in steps of 4 ms.
        #[test]
        fn a_slow_servers_client_is_expected_when_it_asks_again(period in 20u64..500, phase in 0u64..500) {
            let mut watch = DrainWatch::new(IDLE);
            let asked = |time: u64| (time + phase) / period;
            let looks = (0..2000).map(|look| look * 5).take_while(|time| asked(*time) < asked(0) + 5);
            let mut last = 0;
            for time in looks {
                let (round, ago) = (asked(time), (time + phase) % period);
                let grain = |ago: u64| ms(ago.next_multiple_of(4) - 4 * u64::from(!ago.is_multiple_of(4)));
                let sample = Sample {
                    bytes_received: 100 * (round + 1),
                    bytes_sent: 1000 * round,
                    segments_out: 1,
                    last_received: grain(ago),
                    last_sent: grain(ago),
                    ..answered(1, 0)
                };
                prop_assert!(!closes(&mut watch, sample, time));
                last = time;
            }
            let window = watch.next_window(at(last)).expect("four turns were alike");
            let next = (asked(last) + 1) * period - phase;
            prop_assert!(window.from >= at(last) && window.until - window.from <= LONGEST_WINDOW);
            prop_assert!(window.from <= at(next) && at(next) <= window.until, "{window:?} for {next}");
        }

        #[test]
        fn a_server_that_is_slower_than_the_looks_is_never_cut(think in 1u64..200, step in 1u64..10) {
            let mut watch = DrainWatch::new(IDLE);
            let period = think + 3;
            for look in 0..500 {
                let time = look * step;
                let (round, phase) = (time / period, time % period);
                let working = phase < think;
                let answers = round + u64::from(!working);
                let sample = Sample {
                    bytes_received: 100 * (round + 1),
                    bytes_sent: 1000 * answers,
                    segments_out: u32::try_from(answers.min(1)).unwrap(),
                    last_received: ms(phase),
                    last_sent: ms(if working { phase + 3 } else { phase - think }),
                    ..answered(1, 0)
                };
                if !watch.look(&[sample], Closing::AtQuietMoments, at(time)).close.is_empty() {
                    prop_assert!(!working, "cut at {time} ms while working");
                    break;
                }
            }
        }
    }
}
