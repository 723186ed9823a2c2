//! What became of every request, and the checks that a history must pass.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The whole answer came, with status 200.
    Ok,
    /// No connection: refused.
    Refused,
    /// No connection within the time limit.
    ConnectTimeout,
    /// A fresh connection was reset before a byte of the answer.
    Reset,
    /// A fresh connection was closed before a byte of the answer.
    Empty,
    /// The answer broke off.
    Cut,
    /// The answer did not come, or not to its end, within the time limit.
    Timeout,
    /// The answer has another status than 200.
    Status,
    /// A connection that had served before was closed before a byte of this answer: clients send such
    /// a request again (RFC 9112, section 9.3.1).
    Retriable,
    /// This host had no local port left for one more connection. Not the server's doing, but a load
    /// generator that ends up here proves less than it seems.
    NoLocalPort,
}

impl Outcome {
    /// True for what no client can repair.
    pub(crate) const fn lost(self) -> bool {
        match self {
            Outcome::Refused
            | Outcome::ConnectTimeout
            | Outcome::Reset
            | Outcome::Empty
            | Outcome::Cut
            | Outcome::Timeout
            | Outcome::Status => true,
            Outcome::Ok | Outcome::Retriable | Outcome::NoLocalPort => false,
        }
    }
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Answerer {
    /// The process.
    pub(crate) pid: i32,
    /// The generation it was started as; 0 where the server did not say.
    pub(crate) generation: u32,
    /// Its number within the app; none where the server did not say.
    pub(crate) instance: Option<u32>,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Before connecting, or before sending on a connection that was there already.
    pub(crate) start: Instant,
    /// When the outcome was known.
    pub(crate) end: Instant,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// Who answered.
    pub(crate) by: Option<Answerer>,
    /// What is worth knowing about a failure.
    pub(crate) detail: String,
}

/// All requests of one load, by the time of their end.
#[derive(Clone, Default)]
pub(crate) struct History {
    /// The requests.
    pub(crate) records: Vec<Record>,
    /// Idle connections that the server closed between two requests.
    pub(crate) closed_idle: u64,
    /// What broke the load generator itself.
    pub(crate) broken: Vec<String>,
}

/// One reload, as the test saw it.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    /// The generation it led to.
    pub(crate) generation: u32,
    /// Just before it was asked for.
    pub(crate) asked: Instant,
    /// Just after it was said to be done: the old workers are gone.
    pub(crate) done: Instant,
    /// The old workers.
    pub(crate) left: Vec<i32>,
}

impl History {
    /// What became of both loads.
    pub(crate) fn with(mut self, other: History) -> History {
        self.records.extend(other.records);
        self.records.sort_by_key(|record| record.end);
        self.closed_idle += other.closed_idle;
        self.broken.extend(other.broken);
        self
    }

    /// How many requests had this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.records.iter().filter(|record| record.outcome == outcome).count()
    }

    /// How many requests were lost.
    pub(crate) fn lost(&self) -> usize {
        self.records.iter().filter(|record| record.outcome.lost()).count()
    }

    /// How many answers each process gave.
    pub(crate) fn by_pid(&self) -> BTreeMap<i32, usize> {
        let mut counts = BTreeMap::new();
        for by in self.records.iter().filter_map(|record| record.by) {
            *counts.entry(by.pid).or_insert(0) += 1;
        }
        counts
    }

    /// The generations that answered.
    pub(crate) fn generations(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.answers().map(|(_, by)| by.generation).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The latency below which this part (0 to 1) of the answers came.
    pub(crate) fn percentile(&self, part: f64) -> Duration {
        let mut all: Vec<Duration> = self
            .records
            .iter()
            .filter(|record| record.outcome == Outcome::Ok)
            .map(|record| record.end - record.start)
            .collect();
        all.sort_unstable();
        let at = (all.len().saturating_sub(1) as f64 * part).round() as usize;
        all.get(at).copied().unwrap_or_default()
    }

    /// Fails when one request was lost, or when the load proves nothing.
    pub(crate) fn expect_none_lost(&self) {
        assert!(self.broken.is_empty(), "the load generator broke: {:?}", self.broken);
        assert!(self.count(Outcome::Ok) > 0, "no request was answered: {self:?}");
        assert_eq!(self.lost(), 0, "requests were lost: {self:?}");
        // One in a hundred would mean that the host was measured, not the server.
        assert!(
            self.count(Outcome::NoLocalPort) * 100 <= self.records.len(),
            "local ports ran out: {self:?}"
        );
    }

    /// Fails when one request was lost, or would have to be sent again.
    pub(crate) fn expect_none_lost_or_retriable(&self) {
        self.expect_none_lost();
        assert_eq!(self.count(Outcome::Retriable), 0, "requests would have to be sent again: {self:?}");
    }

    /// Fails unless the answers fit the reloads: a process of an old generation that has left answers nothing
    /// (its number may have been given to a new one since), nobody of a new generation answers before its reload was asked for, and nobody of an old one answers a
    /// request that was sent after the reload was done: from then on no client sees an older one again.
    pub(crate) fn expect_in_step_with(&self, reloads: &[Reload]) {
        for (record, by) in self.answers() {
            for reload in reloads {
                let gone = reload.left.contains(&by.pid) && by.generation < reload.generation;
                assert!(!gone || record.start <= reload.done, "{by:?} answered after it had left");
                let early = by.generation >= reload.generation && record.end < reload.asked;
                assert!(!early, "{by:?} answered before the reload to {} was asked for", reload.generation);
                let late = by.generation < reload.generation && record.start > reload.done;
                assert!(
                    !late,
                    "{by:?} answered a request sent {:?} after the reload to {} was done",
                    record.start - reload.done,
                    reload.generation
                );
            }
        }
    }

    /// Fails when one of these processes answered a request that was sent after `left`.
    pub(crate) fn expect_nothing_from(&self, pids: &[i32], left: Instant) {
        for (record, by) in self.answers() {
            let late = pids.contains(&by.pid) && record.start > left;
            assert!(!late, "process {} answered {:?} after it had left", by.pid, record.start - left);
        }
    }

    /// Fails when this generation answered a request that was sent after `taken_back`.
    pub(crate) fn expect_nothing_of(&self, generation: u32, taken_back: Instant) {
        for (record, by) in self.answers() {
            let late = by.generation == generation && record.start > taken_back;
            assert!(!late, "{by:?} answered {:?} after it was taken back", record.start - taken_back);
        }
    }

    /// Fails unless this load came through a stop: what was sent before `asked` was answered, nothing but
    /// refusals is seen after it, and nobody was refused earlier. What was sent on a connection that had
    /// served before, and was closed, is for the caller to judge.
    ///
    /// Who connects to this host knows at once whether it is refused, so that a refusal's end is its moment:
    /// one that is known only after `asked` may have been begun a moment before, by a client that the
    /// scheduler kept from connecting.
    pub(crate) fn expect_only_refused_after(&self, asked: Instant) {
        assert!(self.broken.is_empty(), "the load generator broke: {:?}", self.broken);
        let finished = self.answers().any(|(record, _)| record.end > asked);
        assert!(finished, "nothing was under way when the stop was asked: {self:?}");
        for record in self.records.iter().filter(|record| record.outcome.lost()) {
            let (outcome, detail) = (record.outcome, &record.detail);
            assert_eq!(outcome, Outcome::Refused, "lost in a stop: {detail}: {self:?}");
            assert!(
                record.end > asked,
                "refused {:?} before the stop was asked: {self:?}",
                asked - record.end
            );
        }
    }

    fn answers(&self) -> impl Iterator<Item = (&Record, Answerer)> {
        self.records
            .iter()
            .filter(|record| record.outcome == Outcome::Ok)
            .filter_map(|record| Some((record, record.by?)))
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::new();
        for record in &self.records {
            *counts.entry(record.outcome).or_insert(0_usize) += 1;
        }
        writeln!(
            f,
            "{} requests {counts:?}, {} idle connections closed, generations {:?}",
            self.records.len(),
            self.closed_idle,
            self.generations()
        )?;
        writeln!(f, "answers by process: {:?}", self.by_pid())?;
        writeln!(f, "latency: median {:?}, p99 {:?}", self.percentile(0.5), self.percentile(0.99))?;
        let begin = self.records.iter().map(|record| record.start).min();
        for record in self.records.iter().filter(|record| record.outcome != Outcome::Ok).take(40) {
            let from = begin.map(|begin| record.start - begin).unwrap_or_default();
            let to = begin.map(|begin| record.end - begin).unwrap_or_default();
            writeln!(f, "  {:?} sent +{from:?}, known +{to:?}: {}", record.outcome, record.detail)?;
        }
        Ok(())
    }
}
