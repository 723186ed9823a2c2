//! Files of variables (`env_file`): lines of `NAME=value` as the dotenv libraries of the languages read
//! them. Pure: bytes in, variables out, or the line that is wrong and why.
//!
//! ```text
//! # a comment
//! export NAME=value      # `export` and this comment are left out
//! EMPTY=
//! LITERAL='as it is: $HOME \n'
//! ESCAPED="a\nb", and a quoted value may go on over several lines
//! ```
//!
//! Nothing is expanded: `$HOME` stays as written, whatever the quotes. Bytes that are not UTF-8 pass
//! through; NUL cannot be in a variable and is refused. Own code, since the crates for it expand variables
//! from the process's own environment, take UTF-8 alone and know no line numbers.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::value::MAX_STRING;
use super::words;

/// The longest file, in bytes: as the ecosystem file itself.
pub const MAX_FILE: usize = super::MAX_TEXT;

/// What is wrong, and in which line, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub line: usize,
    /// What, and what to do.
    pub message: String,
}

/// A variable and its value.
pub type Variable = (OsString, OsString);

/// The variables of a file in its order; of two with one name the later counts.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(bytes: &[u8]) -> Result<Vec<Variable>, Fault> {
    let mut scanner = Scanner { rest: bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes), line: 1 };
    let mut variables = Vec::new();
    while !scanner.rest.is_empty() {
        let line = scanner.line;
        if let Some(variable) = scanner.line()? {
            if variables.len() == words::MAX_WORDS {
                let message = format!("more than {} variables; split the file", words::MAX_WORDS);
                return Err(Fault { line, message });
            }
            variables.push(variable);
        }
    }
    Ok(variables)
}

struct Scanner<'b> {
    rest: &'b [u8],
    line: usize,
}

impl Scanner<'_> {
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { line: self.line, message: message.into() }
    }

    /// One logical line: more than one of the file where a quoted value goes on.
    fn line(&mut self) -> Result<Option<Variable>, Fault> {
        self.skip_blanks();
        match self.rest.first() {
            None => return Ok(None),
            Some(b'\n' | b'#') => {
                self.skip_line();
                return Ok(None);
            }
            Some(_) => {}
        }
        let begin = self.line;
        let name = self.name()?;
        let value = self.value()?;
        words::variable_name(&name).map_err(|_| Fault {
            line: begin,
            message: format!("{name}: clusterd sets this variable itself for each worker; remove it"),
        })?;
        if value.contains(&0) {
            let message =
                format!("{name} contains a NUL byte, which ends a string for the kernel; remove it");
            return Err(Fault { line: begin, message });
        }
        let length = name.len() + 1 + value.len();
        if length >= MAX_STRING {
            let message = format!(
                "{name} is {length} bytes long with its name; the kernel takes at most {} (E2BIG): put it into \
                 a file and pass the file's name",
                MAX_STRING - 1
            );
            return Err(Fault { line: begin, message });
        }
        Ok(Some((name.into(), OsString::from_vec(value))))
    }

    fn skip_blanks(&mut self) {
        let blanks = self.rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r')).count();
        self.rest = &self.rest[blanks..];
    }

    /// To the beginning of the next line.
    fn skip_line(&mut self) {
        match self.rest.iter().position(|b| *b == b'\n') {
            Some(end) => {
                self.rest = &self.rest[end + 1..];
                self.line += 1;
            }
            None => self.rest = &[],
        }
    }

    /// `NAME =`, with or without `export` before it.
    fn name(&mut self) -> Result<String, Fault> {
        if let Some(rest) = self.rest.strip_prefix(b"export")
            && rest.first().is_some_and(|b| matches!(b, b' ' | b'\t'))
        {
            self.rest = rest;
            self.skip_blanks();
        }
        let allowed = |b: &&u8| b.is_ascii_alphanumeric() || matches!(**b, b'_' | b'.' | b'-');
        let length = self.rest.iter().take_while(allowed).count();
        let (name, rest) = self.rest.split_at(length);
        let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let starts_well = name.first().is_some_and(|b| !b.is_ascii_digit());
        if rest.get(blanks) != Some(&b'=') || !starts_well {
            return Err(self.fault(
                "expected NAME=value; a comment begins with #, a name has letters, digits and _ and does not begin \
                 with a digit, and a value of several lines is in quotes",
            ));
        }
        self.rest = &rest[blanks + 1..];
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    fn value(&mut self) -> Result<Vec<u8>, Fault> {
        let blanks = self.rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        self.rest = &self.rest[blanks..];
        match self.rest.first() {
            Some(quote @ (b'"' | b'\'' | b'`')) => self.quoted(*quote),
            _ => Ok(self.bare()),
        }
    }

    /// Up to the end of the line, or a comment that begins behind a blank.
    fn bare(&mut self) -> Vec<u8> {
        let end = self.rest.iter().position(|b| *b == b'\n').unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        let is_blank = |at: usize| matches!(line.get(at), Some(b' ' | b'\t'));
        let comment = (0..line.len()).find(|at| line[*at] == b'#' && (*at == 0 || is_blank(*at - 1)));
        let value = line[..comment.unwrap_or(line.len())].trim_ascii_end().to_vec();
        self.skip_line();
        value
    }

    /// Up to the closing quote, over several lines if need be. Between double quotes a backslash means
    /// something, between the others nothing does.
    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>, Fault> {
        let begin = self.line;
        let mut value = Vec::new();
        let mut bytes = self.rest[1..].iter().enumerate();
        let end = loop {
            let Some((at, byte)) = bytes.next() else {
                let message =
                    format!("the quote {} that opens here is never closed; add it", char::from(quote));
                return Err(Fault { line: begin, message });
            };
            if *byte == quote {
                break at + 2;
            }
            self.line += usize::from(*byte == b'\n');
            if *byte != b'\\' || quote != b'"' {
                value.push(*byte);
                continue;
            }
            match bytes.next().map(|(_, escaped)| *escaped) {
                Some(b'n') => value.push(b'\n'),
                Some(b'r') => value.push(b'\r'),
                Some(b't') => value.push(b'\t'),
                Some(plain @ (b'"' | b'\\' | b'$' | b'`' | b'\'')) => value.push(plain),
                Some(other) => {
                    self.line += usize::from(other == b'\n');
                    value.extend([b'\\', other]);
                }
                None => {}
            }
        };
        self.rest = &self.rest[end..];
        self.skip_blanks();
        match self.rest.first() {
            None | Some(b'\n' | b'#') => {
                self.skip_line();
                Ok(value)
            }
            Some(_) => {
                Err(self
                    .fault("expected the end of the line behind the closing quote; quote the whole value"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    fn good(text: &[u8]) -> Vec<(String, Vec<u8>)> {
        let variables = parse(text).unwrap_or_else(|fault| panic!("{fault:?}"));
        variables
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn each_form_of_a_line_has_its_value() {
        for (line, value) in [
            ("A=b", "b"),
            ("A=", ""),
            ("A = b c ", "b c"),
            ("  export A=b", "b"),
            ("export\tA=b", "b"),
            ("A=b # comment", "b"),
            ("A=# comment", ""),
            ("A=b#c", "b#c"),
            ("A=b=c", "b=c"),
            ("A='b # c'", "b # c"),
            ("A='b\\n$HOME'", "b\\n$HOME"),
            ("A=\"b\\nc\\t\\\"d\\\" \\\\ \\$E \\q\"", "b\nc\t\"d\" \\ $E \\q"),
            ("A=\"b\nc\"", "b\nc"),
            ("A=`\"b\" 'c'`", "\"b\" 'c'"),
            ("A=\"b\" # comment", "b"),
            ("A=b\"c\"", "b\"c\""),
            ("A=$HOME", "$HOME"),
            ("A=b\r\n", "b"),
            ("A='b'\r\n", "b"),
        ] {
            assert_eq!(good(line.as_bytes()), [("A".to_owned(), value.as_bytes().to_vec())], "{line:?}");
        }
    }

    #[test]
    fn comments_and_empty_lines_are_no_variables_and_later_lines_come_later() {
        let text = b"\xef\xbb\xbf# head\n\n \t\r\nexport=1\nA=1\n# A=2\nA=3";
        let pairs = |text: &[u8]| good(text).into_iter().map(|(n, v)| (n, String::from_utf8(v).unwrap()));
        let expected = [("export", "1"), ("A", "1"), ("A", "3")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(pairs(text).collect::<Vec<_>>(), expected);
        assert_eq!(good(b""), []);
    }

    #[test]
    fn bytes_that_are_no_text_pass_through() {
        assert_eq!(good(b"A=\xff\xfe=x"), [("A".to_owned(), b"\xff\xfe=x".to_vec())]);
    }

    #[test]
    fn a_fault_names_its_line() {
        let long = format!("A=1\nLONG={}", "x".repeat(MAX_STRING));
        let many = "A=1\n".repeat(words::MAX_WORDS + 1);
        for (text, line, message) in [
            (&b"A=1\nnonsense\n"[..], 2, "expected NAME=value; a comment"),
            (b"\n\n=x", 3, "expected NAME=value"),
            (b"1A=x", 1, "expected NAME=value"),
            (b"A=\"b\nc\n", 1, "never closed"),
            (b"A='b\nc' d\n", 2, "behind the closing quote"),
            (b"A='b\nc'\nB C=1", 3, "expected NAME=value; a comment"),
            (b"A=1\nB=x\0y", 2, "B contains a NUL byte"),
            (b"NOTIFY_SOCKET=/x", 1, "clusterd sets this variable itself"),
            (long.as_bytes(), 2, "LONG is 131076 bytes long"),
            (many.as_bytes(), 4097, "more than 4096 variables"),
        ] {
            let fault = parse(text).expect_err("a fault");
            assert_eq!(fault.line, line, "{}", fault.message);
            assert!(fault.message.contains(message), "{}", fault.message);
        }
    }

    #[test]
    fn an_error_shows_no_secret() {
        for text in ["my token=sesame", "sesame:$6$x:19000:0", "A='b' sesame", "A=1\nsesame\n", "A='sesame"] {
            let fault = parse(text.as_bytes()).expect_err("a fault");
            assert!(!fault.message.contains("sesame"), "{}", fault.message);
        }
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn single_quotes_keep_every_byte(bytes in proptest::collection::vec(1..=255_u8, 0..100)) {
            let inside: Vec<u8> = bytes.into_iter().filter(|b| *b != b'\'').collect();
            let mut text = b"A='".to_vec();
            text.extend(&inside);
            text.push(b'\'');
            prop_assert_eq!(good(&text), [("A".to_owned(), inside)]);
        }
    }
}
