//! What a client's next words tell about its connection: whether it asks and waits for the answer, or has
//! several things under way. Decides on the first bytes that the worker has not read yet.
//!
//! In doubt it says [`Speech::Turns`], where nothing can be read (TLS), and [`Speech::Frames`], where the
//! bytes fit: the latter only keeps a connection longer.

/// As many bytes as are looked at: the head of an HTTP/2 frame.
pub const LOOKED_AT: usize = 9;

/// How a client talks to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// A request, its answer, the next request: HTTP/1, and whatever cannot be read.
    Turns,
    /// HTTP/2 or WebSocket: an answer says nothing about other requests, or there are none.
    Frames,
}

impl Speech {
    /// By the next bytes of the client; `None` where these are too few.
    pub fn of(words: &[u8]) -> Option<Speech> {
        let first = *words.first()?;
        let speech = |frames: bool| if frames { Speech::Frames } else { Speech::Turns };
        match words.get(1) {
            Some(second) if is_message(first, *second) => Some(Speech::Frames),
            // No frame of HTTP/2 is as long as these letters would make it.
            Some(_) if first != 0 => Some(Speech::Turns),
            Some(_) => words.first_chunk().map(|head| speech(is_stream(head))),
            None => None,
        }
    }
}

/// The head of a client's WebSocket frame, which is always masked (RFC 6455, section 5.2). The first of the
/// reserved bits is that of compressed messages (RFC 7692).
fn is_message(first: u8, second: u8) -> bool {
    let (last, reserved, opcode) = (first & 0x80 != 0, first & 0x30, first & 0x0f);
    // Control frames are whole.
    let known = matches!(opcode, 0..=2) || (matches!(opcode, 8..=10) && last);
    known && reserved == 0 && second & 0x80 != 0
}

/// The head of a client's HTTP/2 frame: length, type, flags, stream (RFC 9113, sections 4.1 and 6).
fn is_stream(head: &[u8; LOOKED_AT]) -> bool {
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let of_client = stream % 2 == 1 && stream < 1 << 31;
    match head[3] {
        // DATA, HEADERS, CONTINUATION.
        0 | 1 | 9 => of_client,
        // PRIORITY, RST_STREAM.
        2 => length == 5,
        3 => length == 4,
        // SETTINGS, PING, GOAWAY belong to the connection.
        4 => length.is_multiple_of(6) && stream == 0,
        6 => length == 8 && stream == 0,
        7 => length >= 8 && stream == 0,
        // WINDOW_UPDATE.
        8 => length == 4,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        let told: [(&[u8], Option<Speech>); 16] = [
            (b"", None),
            (b"G", None),
            (b"GET / HTTP/1.1\r\n", Some(Speech::Turns)),
            (b"POST /a HTTP/1.1", Some(Speech::Turns)),
            (b"BASELINE-CONTROL /", Some(Speech::Turns)),
            // TLS: application data.
            (b"\x17\x03\x03\x00\x45abcd", Some(Speech::Turns)),
            // A body's next piece.
            (b"\0\0\0\0\0\0\0\0\0", Some(Speech::Turns)),
            (b"xxxxxxxxx", Some(Speech::Turns)),
            // HTTP/2: HEADERS of stream 5, DATA of stream 5, PING, WINDOW_UPDATE, a part of a head.
            (b"\x00\x00\x0e\x01\x25\x00\x00\x00\x05\x82", Some(Speech::Frames)),
            (b"\x00\x10\x00\x00\x00\x00\x00\x00\x05", Some(Speech::Frames)),
            (b"\x00\x00\x08\x06\x00\x00\x00\x00\x00", Some(Speech::Frames)),
            (b"\x00\x00\x04\x08\x00\x00\x00\x00\x00", Some(Speech::Frames)),
            (b"\x00\x00\x0e\x01", None),
            // WebSocket: a text, a compressed one, a ping.
            (b"\x81\x84\x01\x02\x03\x04abcd", Some(Speech::Frames)),
            (b"\xc1\xfe\x01\x00", Some(Speech::Frames)),
            (b"\x89\x80\x01\x02\x03\x04", Some(Speech::Frames)),
        ];
        for (words, speech) in told {
            assert_eq!(Speech::of(words), speech, "{words:?}");
        }
    }
}
