//! Text of strangers made harmless for a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What a program printed, as text that cannot steer a terminal: control characters except tab, characters
/// that change the direction of writing, and bytes that are not UTF-8 become `\x1b` or `\u{202e}`.
/// Borrowed when there is nothing to do. Backslashes stay as they are.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !needs_escape(text)
    {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut escaped, character);
        }
        for byte in chunk.invalid() {
            push_byte(&mut escaped, *byte);
        }
    }
    Cow::Owned(escaped)
}

fn needs_escape(text: &str) -> bool {
    if text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return false;
    }
    text.chars().any(steers)
}

/// C0 and C1 controls, DEL, and the bidirectional formatting characters (Unicode Standard Annex 9).
pub(crate) fn steers(character: char) -> bool {
    match character {
        '\t' => false,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

fn push(escaped: &mut String, character: char) {
    match u8::try_from(character) {
        _ if !steers(character) => escaped.push(character),
        Ok(byte) if byte < 0x80 => push_byte(escaped, byte),
        Ok(_) | Err(_) => escaped.extend(character.escape_unicode()),
    }
}

fn push_byte(escaped: &mut String, byte: u8) {
    write!(escaped, "\\x{byte:02x}").expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(escape("naïve ✓\tüber".as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn nothing_that_steers_a_terminal_comes_through() {
        assert_eq!(escape(b"\x1b[31mred\x07\x7f\0"), r"\x1b[31mred\x07\x7f\x00");
        assert_eq!(escape(b"a\nb\rc"), r"a\x0ab\x0dc");
        assert_eq!(escape("\u{9b}2J \u{202e}gpj".as_bytes()), r"\u{9b}2J \u{202e}gpj");
        assert_eq!(escape(b"\xff\xc3(\xf0\x9f"), r"\xff\xc3(\xf0\x9f");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_become_harmless(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert!(!escape(&bytes).chars().any(steers));
        }
    }
}
