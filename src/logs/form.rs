//! Lines as they are written where that is not byte for byte: behind a date, or one JSON object each.
//!
//! A date is that of the reading: lines that came together have the same. What is not UTF-8 loses nothing in JSON:
//! see [`Form::write`].

use std::io::Write as _;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use memchr::memchr;
use serde::Serialize;

use super::{Line, Origin};
use crate::config::date::{DatePattern, Field, Part};
use crate::control::protocol::Stream;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// How the lines of one worker are written.
#[derive(Clone, Debug)]
pub struct Form {
    json: bool,
    date: Option<DatePattern>,
    zone: TimeZone,
    /// PM2's number of the process: the id that `list` shows.
    id: u32,
}

/// What stands before each line that was read at one moment.
#[derive(Clone, Debug)]
pub struct Lead(Vec<u8>);

/// One line, in the order of the keys; those of PM2, and the worker's number.
#[derive(Serialize)]
struct Head<'a> {
    timestamp: &'a str,
    #[serde(rename = "type")]
    stream: Stream,
    /// Where names alone do not tell apps apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    app_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_id: Option<u32>,
    instance: u32,
}

impl Head<'_> {
    /// Up to where the message comes.
    fn write(&self, to: &mut Vec<u8>) {
        serde_json::to_writer(&mut *to, self).expect("a Vec takes any text");
        to.pop();
        to.extend_from_slice(b",\"message\":");
    }
}

/// Appends a line as an object of its own, as files have it ([`Form::write`]), for who reads the lines of all apps.
pub fn write_object(line: &Line<'_>, wall: Duration, to: &mut Vec<u8>) {
    let Origin { namespace, name, instance, .. } = line.origin;
    let head = Head {
        timestamp: &iso(wall),
        stream: line.stream,
        namespace: Some(namespace),
        app_name: name,
        process_id: None,
        instance: *instance,
    };
    head.write(to);
    write_message(line, to);
}

/// What JavaScript's `toISOString` gives, as in PM2.
pub(super) fn iso(wall: Duration) -> String {
    format!("{:.3}", moment(wall))
}

fn moment(wall: Duration) -> Timestamp {
    let since = SignedDuration::try_from(wall).unwrap_or(SignedDuration::ZERO);
    Timestamp::from_duration(since).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Form {
    /// None where lines are written as they are. Dates are those of the host's time zone.
    pub fn new(json: bool, date: Option<&DatePattern>, id: u32) -> Option<Form> {
        let is_needed = json || date.is_some();
        is_needed.then(|| Form {
            json,
            date: date.cloned(),
            zone: TimeZone::try_system().unwrap_or(TimeZone::UTC),
            id,
        })
    }

    /// What stands before the lines of an output that are read now (since 1970).
    pub fn lead(&self, origin: &Origin, stream: Stream, wall: Duration) -> Lead {
        let date = self.date(wall);
        let mut lead = Vec::new();
        if self.json {
            let head = Head {
                timestamp: &date,
                stream,
                namespace: None,
                app_name: &origin.name,
                process_id: Some(self.id),
                instance: origin.instance,
            };
            head.write(&mut lead);
        } else {
            lead.extend_from_slice(date.as_bytes());
            lead.extend_from_slice(b": ");
        }
        Lead(lead)
    }

    /// Appends a line, whose newline (if it has one) is `ended`. In JSON each is an object on a line of its own;
    /// `"cut":true` says that the line goes on in the next one, `"continued":true` that it goes on with the one
    /// before, and `"escaped":true` that it is not UTF-8: each byte that is none stands as `\xff` in the message, and
    /// each backslash twice.
    pub fn write(&self, lead: &Lead, line: &Line<'_>, ended: bool, to: &mut Vec<u8>) {
        if self.json {
            to.extend_from_slice(&lead.0);
            write_message(line, to);
            return;
        }
        if !line.continued {
            to.extend_from_slice(&lead.0);
        }
        to.extend_from_slice(line.bytes);
        if ended {
            to.push(b'\n');
        }
    }

    /// The same for whole lines, each with its newline: nothing but its bytes costs anything by the line, as long as
    /// they are those of most lines.
    pub fn write_lines(&self, lead: &Lead, lines: &Line<'_>, to: &mut Vec<u8>) {
        if !self.json {
            for line in lines.bytes.split_inclusive(|byte| *byte == b'\n') {
                to.extend_from_slice(&lead.0);
                to.extend_from_slice(line);
            }
            return;
        }
        let is_text = std::str::from_utf8(lines.bytes).is_ok();
        let mut rest = lines.bytes;
        while !rest.is_empty() {
            to.extend_from_slice(&lead.0);
            let plain = if is_text { plain_length(rest) } else { 0 };
            if rest.get(plain) == Some(&b'\n') {
                to.push(b'"');
                to.extend_from_slice(&rest[..plain]);
                to.extend_from_slice(b"\"}\n");
                rest = &rest[plain + 1..];
            } else {
                let end = memchr(b'\n', rest);
                write_message(&Line { bytes: &rest[..end.unwrap_or(rest.len())], ..*lines }, to);
                rest = end.map_or(&[], |end| &rest[end + 1..]);
            }
        }
    }

    fn date(&self, wall: Duration) -> String {
        match &self.date {
            None => iso(wall),
            Some(pattern) => dated(pattern, &moment(wall).to_zoned(self.zone.clone())),
        }
    }
}

/// A moment as a pattern has it.
pub fn dated(pattern: &DatePattern, moment: &Zoned) -> String {
    let mut date = String::new();
    for part in pattern.parts() {
        match part {
            Part::Text(text) => date.push_str(text),
            Part::Field(field) => date.push_str(&field_text(*field, moment)),
        }
    }
    date
}

fn write_message(line: &Line<'_>, to: &mut Vec<u8>) {
    let text = std::str::from_utf8(line.bytes);
    match text {
        Ok(text) => serde_json::to_writer(&mut *to, text),
        Err(_) => serde_json::to_writer(&mut *to, &escaped(line.bytes)),
    }
    .expect("a Vec takes any text");
    for (holds, mark) in [(text.is_err(), "escaped"), (line.cut, "cut"), (line.continued, "continued")] {
        if holds {
            write!(to, ",\"{mark}\":true").expect("a Vec takes any text");
        }
    }
    to.extend_from_slice(b"}\n");
}

/// How many bytes come before the first that JSON has another way to write: a control character, so a newline as well,
/// a quote or a backslash. Eight at a time.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The highest bit of each byte that is below the limit; above the first such byte there may be others, too.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let (words, last) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = below(word, 0x20) | quote | backslash;
        if found != 0 {
            return place * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\');
    bytes.len() - last.len() + last.iter().position(special).unwrap_or(last.len())
}

/// Text from which the bytes can be had again.
fn escaped(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a String takes any text");
        }
    }
    text
}

fn field_text(field: Field, at: &Zoned) -> String {
    let month = MONTHS[(at.month() - 1) as usize];
    let weekday_number = at.weekday().to_sunday_zero_offset();
    let weekday = WEEKDAYS[weekday_number as usize];
    let hour12 = if at.hour() % 12 == 0 { 12 } else { at.hour() % 12 };
    let minutes = at.offset().seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
    match field {
        Field::Year => format!("{:04}", at.year()),
        Field::ShortYear => format!("{:02}", at.year() % 100),
        Field::MonthName => month.to_owned(),
        Field::MonthShort => month[..3].to_owned(),
        Field::MonthPadded => format!("{:02}", at.month()),
        Field::Month => at.month().to_string(),
        Field::DayPadded => format!("{:02}", at.day()),
        Field::Day => at.day().to_string(),
        Field::WeekdayName => weekday.to_owned(),
        Field::WeekdayShort => weekday[..3].to_owned(),
        Field::WeekdayMin => weekday[..2].to_owned(),
        Field::Weekday => weekday_number.to_string(),
        Field::HourPadded => format!("{:02}", at.hour()),
        Field::Hour => at.hour().to_string(),
        Field::Hour12Padded => format!("{hour12:02}"),
        Field::Hour12 => hour12.to_string(),
        Field::MinutePadded => format!("{:02}", at.minute()),
        Field::Minute => at.minute().to_string(),
        Field::SecondPadded => format!("{:02}", at.second()),
        Field::Second => at.second().to_string(),
        Field::Millisecond => format!("{:03}", at.millisecond()),
        Field::Meridiem => if at.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        Field::MeridiemSmall => if at.hour() < 12 { "am" } else { "pm" }.to_owned(),
        Field::OffsetPlain => format!("{sign}{hours:02}{rest:02}"),
        Field::Offset => format!("{sign}{hours:02}:{rest:02}"),
        Field::UnixSeconds => at.timestamp().as_second().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::event::{AppId, WorkerId};

    /// A Monday, 08:40:12.034 UTC.
    const WALL: Duration = Duration::from_millis(1_795_423_212_034);

    fn origin() -> Origin {
        Origin {
            app: AppId(1),
            worker: WorkerId(1),
            namespace: "default".into(),
            name: "a\"p\\i".to_owned(),
            instance: 2,
        }
    }

    fn form(json: bool, pattern: Option<&str>) -> Form {
        let date = pattern.map(|pattern| DatePattern::parse(pattern).unwrap());
        let zone = TimeZone::fixed(jiff::tz::Offset::from_seconds(-(3 * 3600 + 1800)).unwrap());
        Form { json, date, zone, id: 7 }
    }

    fn written(form: &Form, bytes: &[u8], (cut, continued, ended): (bool, bool, bool)) -> String {
        let origin = origin();
        let lead = form.lead(&origin, Stream::Err, WALL);
        let line = Line { origin: &origin, stream: Stream::Err, bytes, cut, continued };
        let mut to = Vec::new();
        form.write(&lead, &line, ended, &mut to);
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn each_token_is_what_day_js_makes_of_it() {
        for (pattern, date) in [
            ("YYYY-MM-DD HH:mm:ss.SSS Z", "2026-11-23 05:10:12.034 -03:30"),
            ("YYYY-MM-DDTHH:mm:ssZZ", "2026-11-23T05:10:12-0330"),
            ("YY M D H h m s d A a", "26 11 23 5 5 10 12 1 AM am"),
            ("X", "1795423212"),
            ("dddd ddd dd, MMMM MMM [o'clock] hh", "Monday Mon Mo, November Nov o'clock 05"),
        ] {
            assert_eq!(form(false, Some(pattern)).date(WALL), date);
        }
        let noon = WALL + Duration::from_secs(8 * 3600);
        assert_eq!(form(false, Some("h hh A")).date(noon), "1 01 PM");
        let midnight = WALL + Duration::from_secs(19 * 3600);
        assert_eq!(form(false, Some("h H a")).date(midnight), "12 0 am");
    }

    #[test]
    fn a_line_stands_behind_its_date_and_keeps_its_bytes() {
        let form = form(false, Some("HH:mm"));
        assert_eq!(written(&form, b"x\r", (false, false, true)), "05:10: x\r\n");
        assert_eq!(written(&form, b"begin", (true, false, false)), "05:10: begin");
        assert_eq!(written(&form, b"end", (false, true, true)), "end\n");
        assert_eq!(written(&form, b"last", (false, false, false)), "05:10: last");
    }

    #[test]
    fn a_line_is_one_object_of_json_with_the_names_of_pm2() {
        let plain = form(true, None);
        let text = written(&plain, "a \"quoted\" \u{1b}\u{e9}".as_bytes(), (false, false, true));
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "{text}");
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "timestamp": "2026-11-23T08:40:12.034Z", "type": "err", "app_name": "a\"p\\i",
            "process_id": 7, "instance": 2, "message": "a \"quoted\" \u{1b}\u{e9}",
        });
        assert_eq!(record, expected);
        let record = written(&form(true, Some("YYYY")), b"", (true, true, false));
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["timestamp"], "2026");
        assert_eq!((&record["cut"], &record["continued"]), (&true.into(), &true.into()));
    }

    /// The bytes that an escaped message stands for.
    fn restored(message: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), message.as_bytes());
        while let Some((first, after)) = rest.split_first() {
            rest = match (first, after.first()) {
                (b'\\', Some(b'x')) => {
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&after[1..3]).unwrap(), 16).unwrap());
                    &after[3..]
                }
                (b'\\', _) => {
                    bytes.push(b'\\');
                    &after[1..]
                }
                (byte, _) => {
                    bytes.push(*byte);
                    after
                }
            };
        }
        bytes
    }

    #[test]
    fn lines_that_come_together_are_written_as_each_by_itself() {
        let origin = origin();
        for form in [form(true, None), form(false, Some("HH:mm"))] {
            let lead = form.lead(&origin, Stream::Out, WALL);
            for text in [
                "",
                "\n",
                "a\n",
                "exactly8\nof eight bytes \n\n",
                "a \"quoted\"\nplain\ttab\n",
                "\u{e9}\\\nx\n",
                "no end",
            ] {
                let lines = Line {
                    origin: &origin,
                    stream: Stream::Out,
                    bytes: text.as_bytes(),
                    cut: false,
                    continued: false,
                };
                let mut together = Vec::new();
                form.write_lines(&lead, &lines, &mut together);
                let mut each = Vec::new();
                for line in text.split_inclusive('\n') {
                    let bytes = line.trim_end_matches('\n').as_bytes();
                    form.write(&lead, &Line { bytes, ..lines }, line.ends_with('\n'), &mut each);
                }
                assert_eq!(together, each, "{text:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn bytes_that_json_writes_in_another_way_are_found(
            bytes in proptest::collection::vec(proptest::prop_oneof![0x20_u8..0x7f, 0_u8..0xff], 0..40),
        ) {
            let expected = bytes.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            proptest::prop_assert_eq!(plain_length(&bytes), expected.unwrap_or(bytes.len()));
        }

        #[test]
        fn any_lines_are_written_as_each_by_itself(
            bytes in proptest::collection::vec(proptest::prop_oneof![0x20_u8..0x7f, proptest::num::u8::ANY, proptest::strategy::Just(b'\n')], 0..200),
        ) {
            let (form, origin) = (form(true, None), origin());
            let lead = form.lead(&origin, Stream::Out, WALL);
            let lines = Line { origin: &origin, stream: Stream::Out, bytes: &bytes, cut: false, continued: false };
            let (mut together, mut each) = (Vec::new(), Vec::new());
            form.write_lines(&lead, &lines, &mut together);
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let bytes = line.strip_suffix(b"\n").unwrap_or(line);
                form.write(&lead, &Line { bytes, ..lines }, true, &mut each);
            }
            let said = |text: &[u8]| -> Vec<Vec<u8>> {
                text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
                    let record: serde_json::Value = serde_json::from_slice(line).unwrap();
                    let message = record["message"].as_str().unwrap();
                    if record.get("escaped").is_some() { restored(message) } else { message.as_bytes().to_vec() }
                }).collect()
            };
            proptest::prop_assert_eq!(said(&together), said(&each));
        }

        #[test]
        fn json_loses_no_byte(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'\n').collect();
            let text = written(&form(true, None), &bytes, (false, false, true));
            let record: serde_json::Value = serde_json::from_str(&text).unwrap();
            let message = record["message"].as_str().unwrap();
            let is_escaped = record.get("escaped").is_some();
            proptest::prop_assert_eq!(is_escaped, std::str::from_utf8(&bytes).is_err());
            let back = if is_escaped { restored(message) } else { message.as_bytes().to_vec() };
            proptest::prop_assert_eq!(back, bytes);
        }
    }
}
