//! When an output is to be read again. A worker that writes line by line would wake the supervisor for each:
//! one whose lines come that fast is left alone for a moment, and then read once for all that has gathered.
//! Refuses to wait where the worker may wait for it: not longer than its pipe has room.

use std::time::Duration;

use crate::supervisor::time::Time;

/// What a pipe holds at first (pipe(7)), in bytes.
pub const ROOM: usize = 64 * 1024;

/// What the pipe of a flood may hold: as much as anybody may have by default (/proc/sys/fs/pipe-max-size).
pub const LARGE_ROOM: usize = 1024 * 1024;

/// Reads that follow each other faster than this are those of a flood, unless each brings so many bytes.
const CLOSE: Duration = Duration::from_millis(1);
const ENOUGH: usize = 16 * 1024;

/// How long a flood is left to gather: the loop's timer counts whole milliseconds.
pub const PAUSE: Duration = Duration::from_millis(2);

/// How long one that fills its pipe within a pause is read as it comes.
const EAGER: Duration = Duration::from_millis(100);

/// When to read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something comes.
    Ready,
    /// When something comes, and at that moment in any case.
    ReadyOrAt(Time),
    /// At that moment, and whatever comes is not to be told until then.
    At(Time),
    /// The same with [`LARGE_ROOM`] in the pipe; where that cannot be had, see [`Pace::refused`].
    AtWithRoom(Time),
}

/// How fast one output comes.
#[derive(Debug)]
pub struct Pace {
    /// When it was last read until nothing was left.
    emptied: Option<Time>,
    /// Bytes read since.
    gathered: usize,
    /// It is read as it comes until then.
    eager: Option<Time>,
    /// Bytes that its pipe holds.
    room: usize,
    rests: bool,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { emptied: None, gathered: 0, eager: None, room: ROOM, rests: false }
    }
}

impl Pace {
    /// So many bytes were read, and more may be there.
    pub fn read(&mut self, bytes: usize) {
        self.gathered = self.gathered.saturating_add(bytes);
    }

    /// Nothing is left: when to read next. [`Next::Ready`] is the end of a flood: the pipe needs no more than
    /// [`ROOM`].
    pub fn emptied(&mut self, now: Time) -> Next {
        let gathered = std::mem::take(&mut self.gathered);
        let since = self.emptied.replace(now).map_or(Duration::MAX, |before| now.since(before));
        let close = since < CLOSE;
        let rested = std::mem::take(&mut self.rests);
        if gathered == 0 {
            return Next::Ready;
        }
        let grows = self.room < LARGE_ROOM && gathered >= self.room / 4;
        // Where the processor came late, it is not the pause that was too long.
        let may_have_waited = gathered >= self.room / 4 * 3 && since < 2 * PAUSE;
        if self.eager.is_some_and(|until| now < until) {
            self.as_it_comes()
        } else if rested && may_have_waited && !grows {
            self.refused(now)
        } else if rested || (close && gathered < ENOUGH) {
            self.rests = true;
            if rested && grows { Next::AtWithRoom(now + PAUSE) } else { Next::At(now + PAUSE) }
        } else if self.has_large_room() {
            self.refused(now)
        } else {
            Next::Ready
        }
    }

    /// The pipe has this much room now.
    pub fn set_room(&mut self, room: usize) {
        self.room = room;
    }

    /// The pipe was made larger.
    pub fn has_large_room(&self) -> bool {
        self.room > ROOM
    }

    /// The pipe does not hold what comes within a pause: it is read as it comes for a while.
    pub fn refused(&mut self, now: Time) -> Next {
        self.rests = false;
        self.eager = Some(now + EAGER);
        self.as_it_comes()
    }

    /// With more room than usual it is looked at once more, to give that back.
    fn as_it_comes(&self) -> Next {
        self.eager.filter(|_| self.has_large_room()).map_or(Next::Ready, Next::ReadyOrAt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Time {
        Time::from_start(Duration::from_micros(micros))
    }

    /// What comes of reads at these microseconds, of so many bytes.
    fn paced(reads: &[(u64, usize)]) -> Vec<Next> {
        let mut pace = Pace::default();
        let one = |(micros, bytes): &(u64, usize)| {
            pace.read(*bytes);
            pace.emptied(at(*micros))
        };
        reads.iter().map(one).collect()
    }

    #[test]
    fn lines_with_time_between_them_are_read_as_they_come() {
        let reads: Vec<_> = (0..100).map(|number| (number * 1000, 100)).collect();
        assert_eq!(paced(&reads), vec![Next::Ready; 100]);
    }

    #[test]
    fn close_lines_gather_until_a_pause_brings_none() {
        let reads = [(0, 100), (200, 100), (2200, 900), (4200, 0), (9000, 100)];
        let expected = [Next::Ready, Next::At(at(2200)), Next::At(at(4200)), Next::Ready, Next::Ready];
        assert_eq!(paced(&reads), expected);
    }

    #[test]
    fn a_flood_gets_room_once() {
        let mut pace = Pace::default();
        let mut read = |micros, bytes| {
            pace.read(bytes);
            let next = pace.emptied(at(micros));
            if matches!(next, Next::AtWithRoom(_)) {
                pace.set_room(LARGE_ROOM);
            }
            next
        };
        read(0, 100);
        assert_eq!(read(10, 100), Next::At(at(2010)));
        assert_eq!(read(2010, ROOM), Next::AtWithRoom(at(4010)));
        assert_eq!(read(4010, 5 * ROOM), Next::At(at(6010)));
        assert_eq!(read(9000, LARGE_ROOM), Next::At(at(11_000)), "the supervisor came late");
        let look = Next::ReadyOrAt(at(111_000));
        assert_eq!(read(11_000, LARGE_ROOM), look, "its writer waited");
        assert_eq!(read(11_010, 100), look);
        assert_eq!(read(111_000, 0), Next::Ready, "the room is given back");
        assert_eq!(read(111_500, 100), Next::At(at(113_500)));
    }

    #[test]
    fn whoever_fills_a_pipe_that_cannot_grow_is_not_kept_waiting() {
        let mut pace = Pace::default();
        for micros in [0, 10, 2010] {
            pace.read(ROOM / 2);
            pace.emptied(at(micros));
        }
        assert_eq!(pace.refused(at(2010)), Next::Ready);
        for micros in 2011..2100 {
            pace.read(ROOM / 2);
            assert_eq!(pace.emptied(at(micros)), Next::Ready);
        }
        assert_eq!(paced(&[(0, ROOM), (10, ROOM), (20, ROOM)]), [Next::Ready; 3], "large blocks");
    }
}
