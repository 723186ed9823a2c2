//! The host's Unix stream sockets, by sock_diag(7): what they are bound to, and what waits in their queues.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv, send};

use super::connections::{
    Diagnostics, HEADER, NLM_F_DUMP, NLM_F_REQUEST, SOCK_DIAG_BY_FAMILY, attribute, messages, open_socket,
    u32_at,
};

/// Sizes of `unix_diag_req` and `unix_diag_msg` (linux/unix_diag.h).
const REQUEST: usize = 24;
const MESSAGE: usize = 16;

/// What is asked for, and what it is answered by.
const SHOW_NAME_AND_LENGTHS: u32 = 0x1 | 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_RQLEN: u16 = 4;

/// States by number, as those of TCP.
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// One socket that has a name: it listens, or was accepted from one that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Its inode.
    pub inode: u64,
    /// It listens: `unread` is how many wait in its queue.
    pub listens: bool,
    /// Its path, or `@` and its name in the abstract namespace.
    pub name: String,
    /// Bytes that its holder has not read.
    pub unread: u32,
    /// Bytes that the other end has not read; of one that listens, more than so many are not let wait.
    pub unsent: u32,
}

impl Diagnostics {
    /// The Unix stream sockets with a name that listen or are connected.
    ///
    /// # Errors
    /// ENOENT where the kernel has no unix_diag; the errno of send(2) and recv(2).
    pub fn dump_unix(&mut self) -> io::Result<Vec<UnixSocket>> {
        let mut found = Vec::new();
        if let Err(error) = self.ask_unix(&mut found) {
            // A dump that is not read to its end keeps the next one off its socket (EBUSY).
            self.socket = open_socket()?;
            return Err(error);
        }
        Ok(found)
    }

    fn ask_unix(&mut self, found: &mut Vec<UnixSocket>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        send(self.socket.as_raw_fd(), &request(self.sequence), MsgFlags::empty())?;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if messages(&self.buffer[..length], self.sequence, |body| found.extend(socket(body)))? {
                return Ok(());
            }
        }
    }
}

fn request(sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // to the kernel
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    bytes.extend(((1_u32 << ESTABLISHED) | (1_u32 << LISTEN)).to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes()); // of all inodes
    bytes.extend(SHOW_NAME_AND_LENGTHS.to_ne_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

fn socket(body: &[u8]) -> Option<UnixSocket> {
    if body.len() < MESSAGE || i32::from(body[1]) != libc::SOCK_STREAM {
        return None;
    }
    let attributes = &body[MESSAGE..];
    let name = attribute(attributes, UNIX_DIAG_NAME)?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let name = match name.strip_prefix(b"\0") {
        Some(name) => format!("@{}", text(name)?),
        None => text(name)?.trim_end_matches('\0').to_owned(),
    };
    let lengths = attribute(attributes, UNIX_DIAG_RQLEN).filter(|lengths| lengths.len() >= 8)?;
    Some(UnixSocket {
        inode: u64::from(u32_at(body, 4)),
        listens: body[2] == LISTEN,
        name,
        unread: u32_at(lengths, 0),
        unsent: u32_at(lengths, 4),
    })
}

/// Any answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) -> String {
    let mut found = Vec::new();
    let sequence = bytes.get(8..12).map_or(0, |_| u32_at(bytes, 8));
    let ended = messages(bytes, sequence, |body| found.extend(socket(body)));
    found.extend(socket(bytes));
    format!("{}{}", ended.is_ok(), "u".repeat(found.len().min(3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_dump_shows_what_waits_and_what_moves() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).expect("free");
        let inode = |fd| super::super::listen::inode(fd).expect("a socket");
        let mut client = UnixStream::connect(&path).expect("queued");
        let mut diagnostics = Diagnostics::open().expect("sock_diag");
        let mut find = |inode| {
            let all = diagnostics.dump_unix().expect("unix_diag");
            all.into_iter().find(|socket| socket.inode == inode).expect("it has a name")
        };
        let waiting = find(inode(listener.as_fd()));
        assert_eq!(
            (waiting.listens, waiting.unread, waiting.name.as_str()),
            (true, 1, path.to_str().expect("text"))
        );
        let (mut server, _) = listener.accept().expect("one waits");
        client.write_all(b"hello").expect("buffered");
        server.write_all(b"answer").expect("buffered");
        let accepted = find(inode(server.as_fd()));
        assert_eq!((accepted.listens, accepted.unread, accepted.name), (false, 5, waiting.name));
        assert!(accepted.unsent > 0, "the client has not read the answer");
    }

    #[test]
    fn torn_messages_are_no_sockets() {
        assert_eq!(socket(&[0; 15]), None);
        assert_eq!(socket(&[1; 16]), None);
    }
}
