//! Patterns of dates, as `log_date_format` and `logs --timestamp` have them: those of day.js, which PM2 uses. What
//! day.js would print as it stands although it looks like a part of a date is refused, for a wrong pattern is found in
//! the logs, too late.

/// The longest pattern, in bytes.
const LONGEST: usize = 100;

/// PM2's `time = true`.
pub const USUAL: &str = "YYYY-MM-DDTHH:mm:ss";

/// One part of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is described by its row of the table below.
pub enum Field {
    Year,
    ShortYear,
    MonthName,
    MonthShort,
    MonthPadded,
    Month,
    DayPadded,
    Day,
    WeekdayName,
    WeekdayShort,
    WeekdayMin,
    Weekday,
    HourPadded,
    Hour,
    Hour12Padded,
    Hour12,
    MinutePadded,
    Minute,
    SecondPadded,
    Second,
    Millisecond,
    Meridiem,
    MeridiemSmall,
    OffsetPlain,
    Offset,
    UnixSeconds,
}

/// What stands for which part; of those that begin alike the longest comes first.
const FIELDS: &[(&str, Field)] = &[
    ("YYYY", Field::Year),
    ("YY", Field::ShortYear),
    ("MMMM", Field::MonthName),
    ("MMM", Field::MonthShort),
    ("MM", Field::MonthPadded),
    ("M", Field::Month),
    ("DD", Field::DayPadded),
    ("D", Field::Day),
    ("dddd", Field::WeekdayName),
    ("ddd", Field::WeekdayShort),
    ("dd", Field::WeekdayMin),
    ("d", Field::Weekday),
    ("HH", Field::HourPadded),
    ("H", Field::Hour),
    ("hh", Field::Hour12Padded),
    ("h", Field::Hour12),
    ("mm", Field::MinutePadded),
    ("m", Field::Minute),
    ("ss", Field::SecondPadded),
    ("s", Field::Second),
    ("SSS", Field::Millisecond),
    ("A", Field::Meridiem),
    ("a", Field::MeridiemSmall),
    ("ZZ", Field::OffsetPlain),
    ("Z", Field::Offset),
    ("X", Field::UnixSeconds),
];

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// Of the date.
    Field(Field),
}

/// A pattern that is known to mean something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatePattern {
    text: String,
    parts: Vec<Part>,
}

impl DatePattern {
    /// Reads a pattern; what is wrong with it, as the end of a sentence.
    ///
    /// # Errors
    /// A letter that stands for nothing, a bracket that is not closed, a control character, too much text, none.
    pub fn parse(text: &str) -> Result<DatePattern, String> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(format!("it must have 1 to {LONGEST} characters"));
        }
        if text.chars().any(char::is_control) {
            return Err("it holds a control character".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = if let Some(quoted) = rest.strip_prefix('[') {
                let end = quoted.find(']').ok_or("a [ is not closed by a ]")?;
                push_text(&mut parts, &quoted[..end]);
                &quoted[end + 1..]
            } else if let Some((token, field)) = FIELDS.iter().find(|(token, _)| rest.starts_with(token)) {
                parts.push(Part::Field(*field));
                &rest[token.len()..]
            } else if first.is_ascii_alphabetic() && first != 'T' {
                return Err(format!("\"{first}\" stands for no part of a date; letters as such go in [ ]"));
            } else {
                push_text(&mut parts, &rest[..first.len_utf8()]);
                &rest[first.len_utf8()..]
            };
        }
        Ok(DatePattern { text: text.to_owned(), parts })
    }

    /// What `time = true` means.
    pub fn of_time() -> DatePattern {
        DatePattern::parse(USUAL).expect("a pattern without a fault")
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        Some(Part::Text(last)) => last.push_str(text),
        Some(Part::Field(_)) | None => parts.push(Part::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_taken_apart_by_its_longest_tokens() {
        let pattern = DatePattern::parse("YYYY-MM [at hh] SSS").expect("a pattern");
        let text = |text: &str| Part::Text(text.to_owned());
        let parts = [
            Part::Field(Field::Year),
            text("-"),
            Part::Field(Field::MonthPadded),
            text(" at hh "),
            Part::Field(Field::Millisecond),
        ];
        assert_eq!(pattern.parts(), parts);
        assert_eq!(DatePattern::of_time().parts().len(), 11);
    }

    #[test]
    fn what_means_nothing_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "characters"),
            ("YYYY [at", "not closed"),
            ("YYYY at hh", "\"t\""),
            ("YYY", "\"Y\""),
            ("%Y-%m-%d", "\"Y\""),
            ("Q", "\"Q\""),
            ("S", "\"S\""),
            ("YYYY\n", "control"),
        ] {
            let error = DatePattern::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(DatePattern::parse(&"Y".repeat(104)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange_for_a_pattern(text in ".{0,40}") {
            let _ = DatePattern::parse(&text);
        }
    }
}
