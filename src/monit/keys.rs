//! What a terminal sends when keys are pressed → keys. Pieces of a key that comes in parts (over ssh) are waited for;
//! sequences that are not known are passed over whole.

/// The longest sequence that is waited for, in bytes; longer ones are no key.
const LIMIT: usize = 32;

const ESCAPE: u8 = 0x1b;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// What can be printed.
    Char(char),
    /// The arrow.
    Up,
    /// The arrow.
    Down,
    /// The arrow.
    Left,
    /// The arrow.
    Right,
    /// A page towards the beginning.
    PageUp,
    /// A page towards the end.
    PageDown,
    /// The first.
    Home,
    /// The last.
    End,
    /// Enter.
    Enter,
    /// Escape alone.
    Escape,
    /// Takes the last character away.
    Backspace,
    /// Ctrl-C, which is no signal on a raw terminal.
    Interrupt,
    /// Ctrl-L: draw everything anew.
    Redraw,
}

/// Bytes so far that are no whole key.
#[derive(Debug, Default)]
pub struct Keys {
    pending: Vec<u8>,
}

enum Parsed {
    /// So many bytes are a key, or are none.
    Whole(usize, Option<Key>),
    /// More may come.
    Part,
}

impl Keys {
    /// Takes bytes; the keys that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        for byte in bytes {
            self.pending.push(*byte);
            while !self.pending.is_empty() {
                let Parsed::Whole(count, key) = parse(&self.pending) else { break };
                self.pending.drain(..count);
                keys.extend(key);
            }
            if self.pending.len() >= LIMIT {
                self.pending.clear();
            }
        }
        keys
    }

    /// Something has come of which it is not clear yet whether it is whole.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing more came for a while: what waits is all. An escape alone is the key of that name.
    pub fn settle(&mut self) -> Option<Key> {
        let pending = std::mem::take(&mut self.pending);
        (pending == [ESCAPE]).then_some(Key::Escape)
    }
}

fn parse(bytes: &[u8]) -> Parsed {
    match bytes {
        [ESCAPE] | [ESCAPE, b'[' | b'O'] => Parsed::Part,
        [ESCAPE, b'[', rest @ ..] => control(rest, 2),
        [ESCAPE, b'O', last] => Parsed::Whole(3, arrow(*last)),
        // Alt and a key, or Escape pressed twice.
        [ESCAPE, ..] => Parsed::Whole(2, (bytes[1] == ESCAPE).then_some(Key::Escape)),
        [b'\r' | b'\n', ..] => Parsed::Whole(1, Some(Key::Enter)),
        [0x7f | 0x08, ..] => Parsed::Whole(1, Some(Key::Backspace)),
        [0x03, ..] => Parsed::Whole(1, Some(Key::Interrupt)),
        [0x0c, ..] => Parsed::Whole(1, Some(Key::Redraw)),
        [0x00..0x20, ..] | [] => Parsed::Whole(bytes.len().min(1), None),
        _ => character(bytes),
    }
}

/// Behind `ESC [`: parameters, then the byte that ends it (ECMA-48 5.4).
fn control(rest: &[u8], before: usize) -> Parsed {
    let Some(last) = rest.iter().position(|byte| !matches!(byte, 0x20..=0x3f)) else { return Parsed::Part };
    let key = match (&rest[..last], rest[last]) {
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        (b"1" | b"7", b'~') => Some(Key::Home),
        (b"4" | b"8", b'~') => Some(Key::End),
        (_, other) => arrow(other),
    };
    Parsed::Whole(before + last + 1, key)
}

fn arrow(last: u8) -> Option<Key> {
    match last {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        b'H' => Some(Key::Home),
        b'F' => Some(Key::End),
        b'M' => Some(Key::Enter),
        _ => None,
    }
}

fn character(bytes: &[u8]) -> Parsed {
    match std::str::from_utf8(bytes) {
        Ok(text) => Parsed::Whole(bytes.len(), text.chars().next().map(Key::Char)),
        Err(error) if error.error_len().is_none() => Parsed::Part,
        Err(_) => Parsed::Whole(1, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_terminals_send_for_them() {
        let rows: &[(&[u8], &[Key])] = &[
            (b"q", &[Key::Char('q')]),
            (b"\x1b[A\x1b[B\x1bOA\x1bOB", &[Key::Up, Key::Down, Key::Up, Key::Down]),
            (b"\x1b[C\x1b[D\x1b[1;5A", &[Key::Right, Key::Left, Key::Up]),
            (
                b"\x1b[5~\x1b[6~\x1b[1~\x1b[4~\x1b[H\x1b[F",
                &[Key::PageUp, Key::PageDown, Key::Home, Key::End, Key::Home, Key::End],
            ),
            (
                b"\r\n\x7f\x08\x03\x0c",
                &[Key::Enter, Key::Enter, Key::Backspace, Key::Backspace, Key::Interrupt, Key::Redraw],
            ),
            ("ü東".as_bytes(), &[Key::Char('ü'), Key::Char('東')]),
            // What is not known is passed over, with nothing of it left: a mouse, a paste, Alt-x, F5, a report.
            (b"\x1b[<0;1;1mq\x1b[200~q\x1bxq\x1b[15~q\x1b[?1;2cq", &[Key::Char('q'); 5]),
            (b"\xff\xc3(", &[Key::Char('(')]),
            (b"\x01\x00\x1a", &[]),
        ];
        for (bytes, expected) in rows {
            let mut whole = Keys::default();
            assert_eq!(whole.push(bytes), *expected, "{bytes:?}");
            let mut single = Keys::default();
            let one_by_one: Vec<Key> = bytes.iter().flat_map(|byte| single.push(&[*byte])).collect();
            assert_eq!(one_by_one, *expected, "{bytes:?}");
            assert!(!single.is_waiting(), "{bytes:?}");
        }
    }

    #[test]
    fn an_escape_is_a_key_once_nothing_follows_it() {
        let mut keys = Keys::default();
        assert_eq!(keys.push(b"\x1b"), []);
        assert!(keys.is_waiting());
        assert_eq!(keys.settle(), Some(Key::Escape));
        assert_eq!((keys.is_waiting(), keys.settle()), (false, None));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken_within_bounds(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let mut keys = Keys::default();
            keys.push(&bytes);
            proptest::prop_assert!(keys.pending.len() < LIMIT);
        }
    }
}
