//! The frame codec: one JSON object per line, bounded. Bytes go in at any chunking, whole lines come
//! out. It refuses a line over [`FRAME_LIMIT`], never allocates by a length that somebody claimed (there
//! is none in the format), and knows nothing of what the lines mean.

use memchr::memchr;
use serde::Serialize;
use thiserror::Error;

use super::protocol::FRAME_LIMIT;

/// Why a line cannot be taken or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The line is longer than the limit.
    #[error("a line is longer than {FRAME_LIMIT} bytes")]
    TooLong,
    /// The value has no JSON form (a map with keys that are no strings).
    #[error("a value cannot be written as JSON")]
    NotJson,
}

/// Cuts a byte stream into lines.
///
/// Take every line with [`Decoder::next_line`] after each [`Decoder::push`]: then it holds at most
/// [`FRAME_LIMIT`] bytes and one chunk.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where no newline was found, so that a line in many small chunks is searched once.
    searched: usize,
    /// A line was too long: where the next one begins is not known any more.
    lost: bool,
}

impl Decoder {
    /// An empty one.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes bytes as they came. After [`FrameError::TooLong`] they are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.lost {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole line without its newline. `None`: more bytes are needed. An error is final.
    pub fn next_line(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        let found = memchr(b'\n', &self.buffer[self.searched..]).map(|at| self.searched + at);
        let length = found.unwrap_or(self.buffer.len()) - self.start;
        if length > FRAME_LIMIT {
            *self = Decoder { lost: true, ..Decoder::default() };
            return Some(Err(FrameError::TooLong));
        }
        if let Some(end) = found {
            let line = self.buffer[self.start..end].to_vec();
            self.start = end + 1;
            self.searched = self.start;
            return Some(Ok(line));
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        self.searched = self.buffer.len();
        None
    }

    /// Bytes of a line that has not ended yet.
    pub fn unfinished(&self) -> usize {
        self.buffer.len() - self.start
    }
}

/// A value as one line with its newline.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut line = serde_json::to_vec(value).map_err(|_| FrameError::NotJson)?;
    if line.len() > FRAME_LIMIT {
        return Err(FrameError::TooLong);
    }
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(decoder: &mut Decoder, lines: &mut Vec<Vec<u8>>) -> Result<(), FrameError> {
        while let Some(line) = decoder.next_line() {
            lines.push(line?);
        }
        Ok(())
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_more_byte_does_not() {
        let mut decoder = Decoder::new();
        decoder.push(&vec![b'x'; FRAME_LIMIT]);
        assert_eq!(decoder.next_line(), None);
        decoder.push(b"\n");
        assert_eq!(decoder.next_line().unwrap().unwrap().len(), FRAME_LIMIT);

        decoder.push(&vec![b'x'; FRAME_LIMIT + 1]);
        assert_eq!(decoder.next_line(), Some(Err(FrameError::TooLong)));
    }

    #[test]
    fn after_a_line_that_is_too_long_nothing_is_kept() {
        let mut decoder = Decoder::new();
        decoder.push(&vec![b'x'; FRAME_LIMIT + 1]);
        assert_eq!(decoder.next_line(), Some(Err(FrameError::TooLong)));
        decoder.push(b"{}\n");
        assert_eq!(decoder.next_line(), None);
        assert_eq!(decoder.unfinished(), 0);
        assert_eq!(decoder.buffer.capacity(), 0);
    }

    #[test]
    fn a_value_over_the_limit_is_not_encoded() {
        assert_eq!(encode(&"x".repeat(FRAME_LIMIT)), Err(FrameError::TooLong));
        assert_eq!(encode(&"a\nb").unwrap(), b"\"a\\nb\"\n");
    }

    proptest! {
        #[test]
        fn lines_survive_any_chunking(
            lines in prop::collection::vec("[^\\n]{0,40}", 0..12),
            sizes in prop::collection::vec(1usize..17, 1..40),
        ) {
            let stream: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            let (mut decoder, mut seen, mut rest, mut sizes) =
                (Decoder::new(), Vec::new(), stream.as_slice(), sizes.iter().cycle());
            while !rest.is_empty() {
                let size = (*sizes.next().unwrap()).min(rest.len());
                decoder.push(&rest[..size]);
                drain(&mut decoder, &mut seen).unwrap();
                rest = &rest[size..];
            }
            let wanted: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(seen, wanted);
            prop_assert_eq!(decoder.unfinished(), 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let mut decoder = Decoder::new();
            for chunk in chunks {
                decoder.push(&chunk);
                while let Some(line) = decoder.next_line() {
                    let line = line.unwrap();
                    let _ = serde_json::from_slice::<crate::control::protocol::Frame>(&line);
                }
            }
        }

        #[test]
        fn what_is_encoded_is_one_line(text in ".{0,200}") {
            let line = encode(&text).unwrap();
            prop_assert_eq!(memchr(b'\n', &line), Some(line.len() - 1));
            prop_assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), text);
        }
    }
}
