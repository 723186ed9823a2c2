//! When a log file is begun anew, what the old one is called then, and which old ones go. Pure: sizes, ages and
//! names are arguments.
//!
//! `api-out.log` becomes `api-out.log.20261123T084012Z`, where that is taken already `…Z-1`, and compressed
//! `….gz`. What has another name is none of ours, and stays.

use std::time::Duration;

use crate::config::logs::Rotation;

/// What ends the name of a compressed file.
pub const COMPRESSED: &str = ".gz";

/// What ends the name of one that is not whole yet.
pub const PARTIAL: &str = ".gz.part";

/// Names that are tried in one second.
pub const ATTEMPTS: u32 = 1000;

/// An open file, as far as the decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Bytes in it.
    pub size: u64,
    /// Bytes that come next.
    pub more: u64,
    /// It does not end with a line: only one that grows without end is torn.
    pub mid_line: bool,
    /// Its first line is as old as one may be.
    pub is_old: bool,
}

/// Whether what comes next goes to a new file.
pub fn is_due(rotation: &Rotation, growth: Growth) -> bool {
    let Growth { size, more, mid_line, is_old } = growth;
    if size == 0 {
        return false;
    }
    let limit = rotation.max_size;
    let is_full = |times: u64| limit > 0 && size.saturating_add(more) > limit.saturating_mul(times);
    if mid_line { is_full(2) } else { is_full(1) || is_old }
}

/// What tells one old file from the others of its name, in the order of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Seconds since 1970.
    pub second: u64,
    /// Which one of that second.
    pub number: u32,
}

impl Mark {
    /// The first one at this moment that comes after `last`.
    pub fn after(last: Option<Mark>, now: Duration) -> Mark {
        let second = now.as_secs();
        match last {
            Some(last) if last.second == second => Mark { second, number: last.number + 1 },
            Some(_) | None => Mark { second, number: 0 },
        }
    }

    /// The name that a file called `base` gets.
    pub fn name(self, base: &str) -> String {
        let stamp = stamp(self.second);
        match self.number {
            0 => format!("{base}.{stamp}"),
            number => format!("{base}.{stamp}-{number}"),
        }
    }
}

/// A second since 1970, as names have it.
fn stamp(second: u64) -> String {
    let (year, month, day) = date(second / 86_400);
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// How far an old file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Plain,
    Compressed,
    Partial,
}

/// An old file of `base`: its mark as digits, which sort as the moments do, and how far it has come.
fn parse<'n>(base: &str, name: &'n str) -> Option<(&'n str, u32, State)> {
    let rest = name.strip_prefix(base)?.strip_prefix('.')?;
    let (rest, state) = match (rest.strip_suffix(PARTIAL), rest.strip_suffix(COMPRESSED)) {
        (Some(rest), _) => (rest, State::Partial),
        (None, Some(rest)) => (rest, State::Compressed),
        (None, None) => (rest, State::Plain),
    };
    let (stamp, number) = match rest.split_once('-') {
        Some((stamp, number)) => (stamp, number.parse().ok().filter(|n: &u32| n.to_string() == number)?),
        None => (rest, 0),
    };
    let is_stamp = stamp.len() == 16
        && stamp.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    is_stamp.then_some((stamp, number, state))
}

/// What is to be done with the old files of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chores {
    /// Too many, or never finished.
    pub remove: Vec<String>,
    /// To be compressed, the newest last.
    pub compress: Vec<String>,
}

/// What is to be done with the old files of `base` among these names of its folder. `now` by the wall clock: what
/// was renamed later than that was so before the clock was set back, and counts as older than all others, or each
/// file that is renamed now would be the first to go.
pub fn chores(base: &str, names: &[String], rotation: &Rotation, now: Duration) -> Chores {
    let old =
        |name: &String| parse(base, name).map(|(stamp, number, state)| (stamp.to_owned(), number, state));
    let mut found: Vec<((String, u32, State), &String)> =
        names.iter().filter_map(|name| Some((old(name)?, name))).collect();
    found.sort();
    let now = stamp(now.as_secs());
    // Keeps the order among those before and those behind.
    found.sort_by_key(|((stamp, ..), _)| *stamp <= now);
    let mut chores = Chores::default();
    let is_partial = |state: State| state == State::Partial;
    for (_, name) in found.iter().filter(|((_, _, state), _)| is_partial(*state)) {
        chores.remove.push((*name).clone());
    }
    found.retain(|((_, _, state), _)| !is_partial(*state));
    let mut marks: Vec<(&str, u32)> =
        found.iter().map(|((stamp, number, _), _)| (&**stamp, *number)).collect();
    marks.dedup();
    let keep = usize::try_from(rotation.max_files).unwrap_or(usize::MAX);
    let surplus = marks.len().saturating_sub(keep);
    for ((stamp, number, state), name) in &found {
        if marks[..surplus].contains(&(&**stamp, *number)) {
            chores.remove.push((*name).clone());
        } else if rotation.compress && *state == State::Plain {
            chores.compress.push((*name).clone());
        }
    }
    chores
}

/// An old log file of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Old<P> {
    /// When it was last written to: seconds since 1970, and nanoseconds.
    pub last: (i64, i64),
    /// What its name says of when it was renamed, as digits, which sort as the moments do.
    pub mark: (String, u32),
    /// Which.
    pub path: P,
    /// Bytes.
    pub size: u64,
}

/// What a name says of an old file: the name of its log file, and its mark. None for what is no old file, or not
/// a whole one.
pub fn old(name: &str) -> Option<(&str, (String, u32))> {
    let bare = name.strip_suffix(COMPRESSED).unwrap_or(name);
    let (base, _) = bare.rsplit_once('.')?;
    let (stamp, number, state) = parse(base, name)?;
    (state != State::Partial).then(|| (base, (stamp.to_owned(), number)))
}

/// Those that go because all together take more than `limit` bytes: the oldest.
pub fn surplus<P: Ord>(mut found: Vec<Old<P>>, limit: u64) -> Vec<P> {
    found.sort_by(|one, other| (one.last, &one.mark, &one.path).cmp(&(other.last, &other.mark, &other.path)));
    let mut taken: u64 = found.iter().map(|old| old.size).sum();
    let mut surplus = Vec::new();
    for old in found {
        if taken <= limit {
            break;
        }
        taken -= old.size;
        surplus.push(old.path);
    }
    surplus
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The year 2100.
    const LATER: Duration = Duration::from_secs(4_102_444_800);

    fn rotation(max_size: u64, max_files: u32, compress: bool) -> Rotation {
        Rotation { max_size, max_files, max_age: None, compress }
    }

    #[test]
    fn a_file_ends_before_the_line_that_it_has_no_room_for() {
        // limit, size, more, in the middle of a line, too old: due
        let rows: &[(u64, u64, u64, bool, bool, bool)] = &[
            (100, 0, 1000, false, true, false),
            (100, 90, 10, false, false, false),
            (100, 90, 11, false, false, true),
            (100, 90, 11, true, false, false),
            (100, 190, 11, true, false, true),
            (100, 50, 1, false, true, true),
            (100, 50, 1, true, true, false),
            (0, u64::MAX, u64::MAX, false, false, false),
            (0, 1, 1, false, true, true),
            (u64::MAX, 5, 5, true, false, false),
        ];
        for (limit, size, more, mid_line, is_old, due) in rows {
            let growth = Growth { size: *size, more: *more, mid_line: *mid_line, is_old: *is_old };
            assert_eq!(is_due(&rotation(*limit, 10, true), growth), *due, "{limit} {growth:?}");
        }
    }

    #[test]
    fn names_say_when_in_utc_and_never_repeat() {
        let at = |second| Mark::after(None, Duration::from_secs(second)).name("a.log");
        for (second, name) in [
            (0, "a.log.19700101T000000Z"),
            (951_782_399, "a.log.20000228T235959Z"),
            (951_782_400, "a.log.20000229T000000Z"),
            (1_795_423_212, "a.log.20261123T084012Z"),
            (4_102_444_800, "a.log.21000101T000000Z"),
        ] {
            assert_eq!(at(second), name);
        }
        let now = Duration::from_secs(1_795_423_212);
        let first = Mark::after(None, now);
        let second = Mark::after(Some(first), now);
        assert_eq!(second.name("a.log"), "a.log.20261123T084012Z-1");
        assert_eq!(Mark::after(Some(second), now).name("a.log"), "a.log.20261123T084012Z-2");
        assert_eq!(Mark::after(Some(second), now + Duration::from_secs(1)).number, 0);
        for name in [first.name("a.log"), second.name("a.log")] {
            assert!(parse("a.log", &name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_newest_stay_and_nothing_of_others_is_touched() {
        let stamp = |number: u32| format!("a.log.20261123T08401{number}Z");
        let foreign = [
            "a.log",
            "a.log.1",
            "a.log.gz",
            "a.log.20261123T0840Z",
            "b.log.20261123T084011Z",
            "xa.log.20261123T084011Z",
            "a.log.20261123T084011Z-01",
            "a.log.20261123T084011Z-x",
            "a.log.20261123T084011Z.bz2",
        ];
        let mut names: Vec<String> = foreign.map(str::to_owned).to_vec();
        let ours = [
            format!("{}.gz", stamp(1)),
            format!("{}.gz", stamp(2)),
            format!("{}-10.gz", stamp(3)),
            format!("{}-9.gz", stamp(3)),
            stamp(4),
            format!("{}.gz", stamp(4)),
            format!("{}.gz.part", stamp(5)),
            stamp(5),
        ];
        names.extend(ours.iter().rev().cloned());
        let all = chores("a.log", &names, &rotation(1, 3, true), LATER);
        assert_eq!(all.remove, [&ours[6], &ours[0], &ours[1], &ours[3]].map(String::clone));
        assert_eq!(all.compress, [&ours[4], &ours[7]].map(String::clone));
        let plain = chores("a.log", &names, &rotation(1, 10, false), LATER);
        assert_eq!((plain.remove.as_slice(), plain.compress.as_slice()), (&ours[6..7], &[][..]));
    }

    #[test]
    fn a_clock_that_was_set_back_costs_no_new_file() {
        let names = ["20990101T000000Z", "20990101T000000Z-1", "20261123T084011Z", "20261123T084012Z"];
        let names = names.map(|stamp| format!("a.log.{stamp}"));
        let at = |second| chores("a.log", &names, &rotation(1, 2, false), Duration::from_secs(second)).remove;
        assert_eq!(at(1_795_423_212), names[..2]);
        assert_eq!(at(4_102_444_800), names[2..]);
    }

    #[test]
    fn of_all_old_files_the_oldest_go_whatever_they_belong_to() {
        let names = ["a.log.20261123T084011Z.gz", "b.log.20261123T084010Z", "a.log.20261123T084011Z-2"];
        let found = |sizes: [u64; 3]| {
            let one = |(name, size): (&&'static str, u64)| {
                let (base, mark) = old(name).unwrap();
                assert!(["a.log", "b.log"].contains(&base));
                Old { last: (0, 0), mark, path: *name, size }
            };
            names.iter().zip(sizes).map(one).collect::<Vec<_>>()
        };
        assert_eq!(surplus(found([10, 10, 10]), 30), [""; 0]);
        let mut late = found([10, 10, 10]);
        late[1].last = (0, 1);
        assert_eq!(surplus(late, 19), [names[0], names[2]]);
        assert_eq!(surplus(found([10, 10, 10]), 29), [names[1]]);
        assert_eq!(surplus(found([10, 1, 10]), 19), [names[1], names[0]]);
        assert_eq!(surplus(found([10, 10, 50]), 49), [names[1], names[0], names[2]]);
        let foreign = ["a.log", "a.log.gz", "a.log.20261123T084011Z.gz.part", "a.log.20261123T084011Z.bz2"];
        assert!(foreign.iter().all(|name| old(name).is_none()));
    }
}
