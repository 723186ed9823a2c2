//! Standard input of workers: a pipe, one line at a time, and nothing is ever waited for.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, write};

/// The longest line with its end, in bytes: what a pipe takes as a whole or not at all (PIPE_BUF, pipe(7)).
pub const LONGEST: usize = libc::PIPE_BUF;

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the pipe.
    Whole,
    /// The pipe is full: the worker does not read. Nothing of the line is in it.
    Full,
    /// The worker has closed its standard input.
    Closed,
}

/// A pipe for a worker's standard input: the read end (which waits, as programs expect it) and the write end (which
/// never does). Neither is inherited across exec.
///
/// # Errors
/// The errno of pipe2(2) or fcntl(2).
pub fn worker_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&write_end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read_end, write_end))
}

/// Writes a line, whose end is part of `bytes`, of at most [`LONGEST`] bytes.
///
/// # Errors
/// EMSGSIZE: it is longer. Else the errno of write(2).
pub fn send(pipe: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<Sent> {
    if bytes.len() > LONGEST {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    match write(pipe, bytes) {
        Ok(_) => Ok(Sent::Whole),
        Err(nix::Error::EAGAIN) => Ok(Sent::Full),
        Err(nix::Error::EPIPE) => Ok(Sent::Closed),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_line_is_taken_as_a_whole_or_not_at_all() {
        let (read_end, write_end) = worker_pipe().expect("a pipe");
        let line = [b'x'; LONGEST];
        let mut sent = 0;
        while send(write_end.as_fd(), &line[..LONGEST - 7]).expect("a pipe") == Sent::Whole {
            sent += LONGEST - 7;
        }
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        while read < sent {
            read += nix::unistd::read(&read_end, &mut buffer).expect("what was sent");
        }
        assert_eq!(read, sent);
        assert!(send(write_end.as_fd(), &[0; LONGEST + 1]).is_err());
        drop(read_end);
        assert_eq!(send(write_end.as_fd(), b"x\n").expect("an answer"), Sent::Closed);
    }
}
