//! A WebSocket client (RFC 6455), as much of one as it takes to see how long a connection lives and how it
//! ends: short text frames that are echoed.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The limit for an echo.
const LIMIT: Duration = Duration::from_secs(10);

/// The key and its answer are the example of section 1.3.
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of a final text frame (section 5.2), and the mark of a masked one.
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An open connection.
pub(crate) struct WebSocket {
    stream: TcpStream,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Between two frames.
    Whole,
    /// Within one.
    Cut,
}

impl WebSocket {
    /// Opens one.
    ///
    /// # Panics
    /// When nobody serves, or the server does not speak the protocol.
    pub(crate) fn open(port: u16) -> WebSocket {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("somebody serves");
        stream.set_nodelay(true).expect("it is TCP");
        stream.set_read_timeout(Some(LIMIT)).expect("it is not zero");
        stream.write_all(REQUEST.as_bytes()).expect("it fits");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
        WebSocket { stream }
    }

    /// Sends a text and waits for its echo.
    ///
    /// # Errors
    /// How the connection ended instead.
    ///
    /// # Panics
    /// When another text comes, or nothing within ten seconds.
    pub(crate) fn echo(&mut self, text: &str) -> Result<(), Ended> {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short text");
        let mut frame = vec![TEXT, MASKED | length];
        frame.extend(MASK);
        frame.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        // Who was left meanwhile is told so by the read.
        let _ = self.stream.write_all(&frame);
        let mut answer = vec![0; 2 + usize::from(length)];
        let mut have = 0;
        while have < answer.len() {
            match self.stream.read(&mut answer[have..]) {
                Ok(0) => return Err(if have == 0 { Ended::Whole } else { Ended::Cut }),
                Ok(count) => have += count,
                Err(error) if error.kind() == ErrorKind::ConnectionReset && have == 0 => {
                    return Err(Ended::Whole);
                }
                Err(error) => panic!("{have} bytes of an echo, then {error}"),
            }
        }
        assert_eq!(answer, [&[TEXT, length], text.as_bytes()].concat(), "another text than was sent");
        Ok(())
    }

    /// Sends and waits again and again until the connection ends: when the last echo came, and how it ended.
    pub(crate) fn echo_to_the_end(mut self, every: Duration) -> (Instant, Ended) {
        let mut last = Instant::now();
        loop {
            match self.echo("tick") {
                Ok(()) => last = Instant::now(),
                Err(ended) => return (last, ended),
            }
            std::thread::sleep(every);
        }
    }
}
