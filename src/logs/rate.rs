//! How many lines of an app go on in a while, and which are left out: whole lines only, of which each output tells
//! how many are missing at the place where they are. Pure: bytes and time are arguments.
//!
//! A while begins with its first line, as journald counts (LogRateLimitIntervalSec in systemd.exec(5)). What is
//! left out is read all the same, and costs a look at its newlines: the worker is not kept waiting.

use std::collections::BTreeMap;

use memchr::{memchr, memchr_iter};

use crate::config::logs::Rate;
use crate::supervisor::event::AppId;
use crate::supervisor::time::Time;

/// The meters of all apps that have, or had, a limit.
#[derive(Debug, Default)]
pub struct Meters(BTreeMap<AppId, Meter>);

impl Meters {
    /// From now on this limit holds, or none.
    pub fn set(&mut self, app: AppId, rate: Option<Rate>) {
        match self.0.get_mut(&app) {
            Some(meter) => meter.rate = rate,
            None => {
                self.0.extend(rate.map(|rate| (app, Meter { rate: Some(rate), ..Meter::default() })));
            }
        }
    }

    /// One that was deleted.
    pub fn forget(&mut self, app: AppId) {
        self.0.remove(&app);
    }

    /// The meter of an app that has, or had, a limit.
    pub fn get_mut(&mut self, app: AppId) -> Option<&mut Meter> {
        self.0.get_mut(&app)
    }

    /// Lines of an app that were left out so far; none where it never had a limit.
    pub fn left_out(&self, app: AppId) -> Option<u64> {
        self.0.get(&app).map(|meter| meter.left_out)
    }

    /// When [`Meters::due`] has something to say.
    pub fn next_deadline(&self) -> Option<Time> {
        self.0.values().filter_map(Meter::tells_at).min()
    }

    /// Apps whose while is over, and of which lines are missing that nobody was told of.
    pub fn due(&mut self, now: Time) -> Vec<AppId> {
        let is_due = |meter: &Meter| meter.tells_at().is_some_and(|at| at <= now);
        let due = self.0.iter_mut().filter(|(_, meter)| is_due(meter));
        due.map(|(app, meter)| {
            meter.owes = false;
            *app
        })
        .collect()
    }
}

/// What an app may print.
#[derive(Debug, Default)]
pub struct Meter {
    rate: Option<Rate>,
    /// When the while began that holds, and the lines that went on since.
    began: Time,
    passed: u32,
    left_out: u64,
    /// Lines were left out since it was last told.
    owes: bool,
}

impl Meter {
    fn tells_at(&self) -> Option<Time> {
        let over = self.rate.map_or_else(Default::default, |rate| rate.over);
        self.owes.then(|| self.began + over)
    }

    /// How many of the next lines go on.
    fn admit(&mut self, lines: u64, now: Time) -> u64 {
        let Some(rate) = self.rate else { return lines };
        if now >= self.began + rate.over || self.passed == 0 {
            (self.began, self.passed) = (now, 0);
        }
        let room = rate.lines.saturating_sub(self.passed);
        let admitted = u32::try_from(lines).unwrap_or(u32::MAX).min(room);
        self.passed += admitted;
        let left_out = lines - u64::from(admitted);
        self.left_out = self.left_out.saturating_add(left_out);
        self.owes |= left_out > 0;
        admitted.into()
    }
}

/// Where an output stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between two lines.
    #[default]
    Between,
    /// In a line that goes on. Nothing is untold then.
    Within,
    /// In one that is left out.
    LeftOut,
}

/// What one output was let through, and what it has to tell.
#[derive(Debug, Default)]
pub struct Gate {
    place: Place,
    untold: u64,
}

impl Gate {
    /// What of these bytes goes on, and how many lines are missing before them.
    pub fn pass<'a>(&mut self, bytes: &'a [u8], meter: &mut Meter, now: Time) -> (u64, &'a [u8]) {
        // The line that it stands in goes the way of its beginning.
        let own = match self.place {
            Place::Between => 0,
            Place::Within | Place::LeftOut => match memchr(b'\n', bytes) {
                Some(newline) => newline + 1,
                None if self.place == Place::Within => return (0, bytes),
                None => return (0, &[]),
            },
        };
        let from = if self.place == Place::Within { 0 } else { own };
        let lines = &bytes[own..];
        let open = lines.last().is_some_and(|last| *last != b'\n');
        let begun = memchr_iter(b'\n', lines).count() as u64 + u64::from(open);
        let admitted = if begun == 0 { 0 } else { meter.admit(begun, now) };
        self.place = match (open, admitted == begun) {
            (false, _) => Place::Between,
            (true, true) => Place::Within,
            (true, false) => Place::LeftOut,
        };
        let missing = if admitted > 0 { self.take_untold() } else { 0 };
        self.untold = self.untold.saturating_add(begun - admitted);
        let end = if admitted == begun { bytes.len() } else { own + end_of(lines, admitted) };
        (missing, &bytes[from..end])
    }

    /// How many lines are missing that nobody was told of.
    pub fn take_untold(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }
}

/// Where the first so many lines end, which are fewer than there are.
fn end_of(bytes: &[u8], lines: u64) -> usize {
    let last = usize::try_from(lines).ok().and_then(|lines| lines.checked_sub(1));
    last.and_then(|last| memchr_iter(b'\n', bytes).nth(last)).map_or(0, |newline| newline + 1)
}

/// The line that stands for those that are missing.
pub fn notice(lines: u64) -> String {
    let word = if lines == 1 { "line" } else { "lines" };
    format!("[clusterd] {lines} {word} left out: over log_rate_limit\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn meter(lines: u32) -> Meter {
        let rate = Rate { lines, over: Duration::from_secs(1) };
        Meter { rate: Some(rate), ..Meter::default() }
    }

    #[test]
    fn what_is_over_is_left_out_by_whole_lines_and_told_before_the_next() {
        let (mut meter, mut gate) = (meter(3), Gate::default());
        // Milliseconds, bytes, missing before, what goes on.
        let rows: &[(u64, &str, u64, &str)] = &[
            (0, "a\nb", 0, "a\nb"),
            (10, "b\nc\nd\ne", 0, "b\nc\n"),
            (999, "e\nf\n", 0, ""),
            (999, "g", 0, ""),
            (1000, "g", 0, ""),
            (1001, "\n", 0, ""),
            (1002, "h\n", 4, "h\n"),
            (1003, "", 0, ""),
            (1500, "i\nj\nk", 0, "i\nj\n"),
            (2001, "k\n", 0, ""),
            (2002, "l\n", 1, "l\n"),
        ];
        for (millis, bytes, missing, passed) in rows {
            let got = gate.pass(bytes.as_bytes(), &mut meter, at(*millis));
            assert_eq!(got, (*missing, passed.as_bytes()), "{millis} {bytes:?}");
        }
        assert_eq!(meter.left_out, 5);
    }

    #[test]
    fn a_while_begins_with_its_first_line() {
        let (mut meter, mut gate) = (meter(1), Gate::default());
        assert_eq!(gate.pass(b"a\n", &mut meter, at(900)).1, b"a\n");
        assert_eq!(gate.pass(b"b\n", &mut meter, at(1800)).1, b"");
        assert_eq!(gate.pass(b"c\n", &mut meter, at(1900)), (1, &b"c\n"[..]));
    }

    #[test]
    fn who_falls_silent_is_told_of_when_the_while_is_over() {
        let mut meters = Meters::default();
        let app = AppId(1);
        meters.set(app, None);
        assert_eq!(meters.left_out(app), None);
        meters.set(app, Some(Rate { lines: 1, over: Duration::from_secs(1) }));
        let mut gate = Gate::default();
        gate.pass(b"a\n", meters.get_mut(app).unwrap(), at(100));
        assert_eq!(meters.next_deadline(), None);
        gate.pass(b"b\nc\n", meters.get_mut(app).unwrap(), at(200));
        assert_eq!(meters.next_deadline(), Some(at(1100)));
        assert_eq!(meters.due(at(1099)), []);
        assert_eq!(meters.due(at(1100)), [app]);
        assert_eq!((gate.take_untold(), gate.take_untold()), (2, 0));
        assert_eq!(meters.next_deadline(), None);
        assert_eq!(meters.left_out(app), Some(2));
    }

    #[test]
    fn without_its_limit_an_app_goes_on_after_the_line_that_was_left_out() {
        let mut meters = Meters::default();
        let app = AppId(1);
        meters.set(app, Some(Rate { lines: 1, over: Duration::from_secs(1) }));
        let mut gate = Gate::default();
        gate.pass(b"a\nbegun", meters.get_mut(app).unwrap(), at(0));
        meters.set(app, None);
        assert_eq!(meters.due(at(0)), [app], "what is owed is told at once");
        assert_eq!(gate.pass(b" and ended\nb\n", meters.get_mut(app).unwrap(), at(1)), (1, &b"b\n"[..]));
        assert_eq!(meters.left_out(app), Some(1));
    }

    proptest! {
        /// However it is cut, a text of 50 lines loses whole lines only, and each is counted at its place.
        #[test]
        fn every_line_goes_on_whole_or_is_counted(
            cuts in prop::collection::vec(0usize..400, 0..30), limit in 1u32..10
        ) {
            let text: String = (0..50).map(|number| format!("{number} {}\n", "x".repeat(number % 7))).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut meter, mut gate, mut out) = (meter(limit), Gate::default(), String::new());
            for (turn, pair) in cuts.windows(2).enumerate() {
                let bytes = &text.as_bytes()[pair[0]..pair[1]];
                let (missing, passed) = gate.pass(bytes, &mut meter, at(turn as u64 * 300));
                if missing > 0 {
                    out += &notice(missing);
                }
                out += std::str::from_utf8(passed).unwrap();
            }
            let untold = gate.take_untold();
            let mut next = 0;
            for line in out.lines() {
                match line.strip_prefix("[clusterd] ") {
                    Some(told) => next += told.split(' ').next().unwrap().parse::<usize>().unwrap(),
                    None => {
                        prop_assert_eq!(line, text.lines().nth(next).unwrap());
                        next += 1;
                    }
                }
            }
            prop_assert_eq!(next + untold as usize, 50);
        }
    }
}
