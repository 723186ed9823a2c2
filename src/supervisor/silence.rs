//! When is a leaving worker's connection over a Unix socket done? Decides on what waits in its two queues.
//!
//! The kernel keeps no clocks and no counts for these: that nothing waits at any look says that nobody has
//! been slow to read, not that no request is being worked on. So a connection counts as used as long as it is
//! open; only in the last moments of the drain, when the alternative is to be cut, one on which nothing was
//! seen to move for `drain_idle` is ended; and none that was seen with a request after its last answer.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::event::Closing;
use super::time::Time;

/// Connections whose past is remembered; those beyond are used until they end.
const REMEMBERED: usize = 65_536;

/// Connections that are ended in one look.
const ENDED_AT_ONCE: usize = 1000;

/// What one look shows of one connection (unix_diag: `struct unix_diag_rqlen`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The socket's inode, which no other open socket of the host has.
    pub id: u64,
    /// Bytes that the worker has not read.
    pub unread: u32,
    /// Bytes that the client has not read.
    pub unsent: u32,
}

/// The result of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Connections that are not finished.
    pub busy: u32,
    /// Ids of those to shut down now.
    pub close: Vec<u64>,
}

/// Watches one leaving worker's connections from look to look.
#[derive(Clone, Debug)]
pub struct SilenceWatch {
    idle: Duration,
    /// Since when nothing was seen to move.
    silent: HashMap<u64, Time>,
    /// Whose client was seen to say something, and not to be answered since.
    asked: HashSet<u64>,
    closed: HashSet<u64>,
}

impl SilenceWatch {
    /// `drain_idle` is how long nothing may have moved.
    pub fn new(drain_idle: Duration) -> SilenceWatch {
        SilenceWatch {
            idle: drain_idle,
            silent: HashMap::new(),
            asked: HashSet::new(),
            closed: HashSet::new(),
        }
    }

    /// Judges all connections of the worker; those that are missing are forgotten.
    pub fn look(&mut self, samples: &[Sample], closing: Closing, now: Time) -> Look {
        let present: HashSet<u64> = samples.iter().map(|sample| sample.id).collect();
        self.silent.retain(|id, _| present.contains(id));
        self.asked.retain(|id| present.contains(id));
        self.closed.retain(|id| present.contains(id));
        let mut look = Look::default();
        for sample in samples {
            if self.closed.contains(&sample.id) {
                look.busy += u32::from(sample.unread > 0);
            } else if self.is_silent(sample, now)
                && closing == Closing::Last
                && look.close.len() < ENDED_AT_ONCE
            {
                self.closed.insert(sample.id);
                look.close.push(sample.id);
            } else {
                look.busy += 1;
            }
        }
        look
    }

    /// It could not be ended.
    pub fn reopen(&mut self, id: u64) {
        self.closed.remove(&id);
    }

    fn is_silent(&mut self, sample: &Sample, now: Time) -> bool {
        if sample.unread > 0 || sample.unsent > 0 {
            self.silent.remove(&sample.id);
            if sample.unread > 0 {
                self.asked.insert(sample.id);
            } else {
                self.asked.remove(&sample.id);
            }
            return false;
        }
        if self.asked.contains(&sample.id) {
            return false;
        }
        if self.silent.len() >= REMEMBERED && !self.silent.contains_key(&sample.id) {
            return false;
        }
        let since = *self.silent.entry(sample.id).or_insert(now);
        now - since >= self.idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(2);

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn sample(unread: u32, unsent: u32) -> Sample {
        Sample { id: 7, unread, unsent }
    }

    #[test]
    fn only_silence_in_the_last_moments_ends_a_connection() {
        for (closing, ended) in [
            (Closing::AtQuietMoments, false),
            (Closing::WhenIdle, false),
            (Closing::Late, false),
            (Closing::Last, true),
        ] {
            let mut watch = SilenceWatch::new(IDLE);
            assert_eq!(watch.look(&[sample(0, 0)], closing, at(0)).busy, 1, "nothing is known yet");
            let look = watch.look(&[sample(0, 0)], closing, at(2));
            assert_eq!((look.busy == 0, look.close == [7]), (ended, ended), "{closing:?}");
        }
    }

    #[test]
    fn what_was_answered_is_silent_since_then() {
        let mut watch = SilenceWatch::new(IDLE);
        watch.look(&[sample(0, 0)], Closing::Last, at(0));
        watch.look(&[sample(0, 1)], Closing::Last, at(1));
        assert_eq!(watch.look(&[sample(0, 0)], Closing::Last, at(3)).busy, 1, "silent since 3");
        assert_eq!(watch.look(&[sample(0, 0)], Closing::Last, at(5)).close, [7]);
    }

    #[test]
    fn a_request_that_was_not_seen_answered_is_never_cut() {
        let mut watch = SilenceWatch::new(IDLE);
        for (time, seen) in [(0, sample(0, 0)), (1, sample(9, 0)), (2, sample(0, 0)), (9, sample(0, 0))] {
            assert_eq!(watch.look(&[seen], Closing::Last, at(time)).busy, 1);
        }
        watch.look(&[sample(0, 5)], Closing::Last, at(10));
        watch.look(&[sample(0, 0)], Closing::Last, at(11));
        assert_eq!(watch.look(&[sample(0, 0)], Closing::Last, at(13)).close, [7]);
    }

    #[test]
    fn an_ended_connection_is_waited_for_until_its_bytes_are_read() {
        let mut watch = SilenceWatch::new(IDLE);
        watch.look(&[sample(0, 0)], Closing::Last, at(0));
        assert_eq!(watch.look(&[sample(0, 0)], Closing::Last, at(2)).close, [7]);
        assert_eq!(watch.look(&[sample(3, 0)], Closing::Last, at(3)).busy, 1);
        assert_eq!(watch.look(&[sample(0, 0)], Closing::Last, at(4)), Look::default());
        watch.reopen(7);
        assert_eq!(watch.look(&[sample(0, 0)], Closing::Last, at(5)).close, [7]);
    }
}
