//! The client's end of the control socket: one request, then its answers. It never starts a supervisor,
//! and prints nothing.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::frame::{self, Decoder, FrameError};
use super::protocol::{Frame, Reply, Request, VERSION};
use crate::home::Home;
use crate::sys::socket;

/// How long a connect may wait for a place in the supervisor's queue.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long the answer to a question may take. Commands wait for workers, as long as these need.
pub const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no supervisor is running for {}; start one with `clusterd start FILE`, or name its folder with --home DIR",
        home.display()
    )]
    NotRunning {
        /// Where one would be.
        home: PathBuf,
    },
    /// The folder or the socket is another user's.
    #[error("{}: this supervisor belongs to another user; run clusterd as that user or as root", socket.display())]
    Denied {
        /// Its socket.
        socket: PathBuf,
    },
    /// What listens there is not to be told our environment.
    #[error("{}: user {uid} listens here, who is neither you nor root; nothing was sent", socket.display())]
    Stranger {
        /// The socket.
        socket: PathBuf,
        /// Who listens.
        uid: u32,
    },
    /// It listens and does not answer.
    #[error("the supervisor does not answer within {} s; its log may say why", .0.as_secs())]
    Silent(Duration),
    /// The connection ended before the last answer.
    #[error("the supervisor ended, or dropped this connection, before it answered")]
    Ended,
    /// The request is too long to be sent.
    #[error("the request cannot be sent: {0}; are the file and the environment really that large?")]
    Request(FrameError),
    /// What came is no answer.
    #[error("the supervisor's answer cannot be read ({0}); is it another version of clusterd?")]
    Answer(String),
    /// Anything else of the kernel's.
    #[error("{}: {cause}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

/// A connection with one request under way: iterate for its answers. The last one ends the iteration,
/// and so does an error.
#[derive(Debug)]
pub struct Answers {
    stream: UnixStream,
    path: PathBuf,
    decoder: Decoder,
    /// How long the next answer may take.
    limit: Option<Duration>,
    over: bool,
}

/// What [`Answers::try_next`] finds.
#[derive(Debug)]
pub enum Next {
    /// An answer.
    Reply(Reply),
    /// None yet: wait for [`Answers::source`] to be readable.
    Waiting,
    /// The last one was given before.
    Over,
    /// None will come any more.
    Failed(ClientError),
}

/// Connects to the supervisor of `home`, and sends it `request`. The first answer must come within
/// `limit`, if there is one.
pub fn ask(home: &Home, request: Request, limit: Option<Duration>) -> Result<Answers, ClientError> {
    let line = frame::encode(&Frame { version: VERSION, request }).map_err(ClientError::Request)?;
    let path = home.socket();
    let mut stream = socket::connect(&path, CONNECT_TIME).map_err(|cause| refused(home, cause))?;
    let failed = |cause| ClientError::Io { socket: home.socket(), cause };
    let peer = socket::peer(&stream).map_err(failed)?;
    let us = socket::own_uid();
    if us != 0 && peer.uid != us && peer.uid != 0 {
        return Err(ClientError::Stranger { socket: path, uid: peer.uid });
    }
    stream.set_read_timeout(limit).map_err(failed)?;
    match stream.write_all(&line) {
        // Why it would hear no more is in its answer.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
        sent => sent.map_err(failed)?,
    }
    Ok(Answers { stream, path, decoder: Decoder::new(), limit, over: false })
}

fn refused(home: &Home, cause: io::Error) -> ClientError {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut};
    let kind = cause.kind();
    if kind == NotFound || kind == ConnectionRefused {
        ClientError::NotRunning { home: home.runtime.clone() }
    } else if kind == PermissionDenied {
        ClientError::Denied { socket: home.socket() }
    } else if kind == TimedOut {
        ClientError::Silent(CONNECT_TIME)
    } else {
        ClientError::Io { socket: home.socket(), cause }
    }
}

impl Answers {
    /// From now on answers are for [`Answers::try_next`], which waits for none.
    pub fn do_not_wait(&mut self) -> Result<(), ClientError> {
        let failed = |cause| ClientError::Io { socket: self.path.clone(), cause };
        self.limit = None;
        self.stream.set_nonblocking(true).map_err(failed)
    }

    /// Readable when there may be an answer.
    pub fn source(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The next answer, if it is there.
    pub fn try_next(&mut self) -> Next {
        if self.over {
            return Next::Over;
        }
        let reply = match self.read_reply() {
            Err(ClientError::Io { cause, .. }) if cause.kind() == io::ErrorKind::WouldBlock => {
                return Next::Waiting;
            }
            reply => reply,
        };
        self.over = reply.as_ref().map_or(true, is_last);
        reply.map_or_else(Next::Failed, Next::Reply)
    }

    fn read_line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.decoder.next_line() {
                Some(Ok(line)) => return Ok(line),
                Some(Err(error)) => return Err(ClientError::Answer(error.to_string())),
                None => {}
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Ended),
                Ok(count) => self.decoder.push(&chunk[..count]),
                Err(error) => self.survive(error)?,
            }
        }
    }

    fn survive(&self, error: io::Error) -> Result<(), ClientError> {
        let kind = error.kind();
        if kind == io::ErrorKind::Interrupted {
            return Ok(());
        }
        if let (io::ErrorKind::WouldBlock, Some(limit)) = (kind, self.limit) {
            return Err(ClientError::Silent(limit));
        }
        if kind == io::ErrorKind::ConnectionReset {
            return Err(ClientError::Ended);
        }
        Err(ClientError::Io { socket: self.path.clone(), cause: error })
    }

    fn read_reply(&mut self) -> Result<Reply, ClientError> {
        let line = self.read_line()?;
        let reply = serde_json::from_slice(&line).map_err(|error| ClientError::Answer(error.to_string()))?;
        if self.limit.take().is_some() {
            let unlimited = self.stream.set_read_timeout(None);
            unlimited.map_err(|cause| ClientError::Io { socket: self.path.clone(), cause })?;
        }
        Ok(reply)
    }
}

impl Iterator for Answers {
    type Item = Result<Reply, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let reply = self.read_reply();
        self.over = reply.as_ref().map_or(true, is_last);
        Some(reply)
    }
}

/// Any number of `Progress` and `Line`, then exactly one of the others.
fn is_last(reply: &Reply) -> bool {
    match reply {
        Reply::Progress(_)
        | Reply::Line(_)
        | Reply::Dropped { .. }
        | Reply::Following {}
        | Reply::Environ(_) => false,
        Reply::Plan(plan) => plan.dry_run,
        Reply::List(_) | Reply::Pids { .. } | Reply::Pong { .. } | Reply::Done(_) | Reply::Error(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Done;
    use std::path::Path;

    fn home(folder: &Path) -> Home {
        Home { runtime: folder.into(), state: folder.into(), logs: folder.into() }
    }

    /// Answers with these bytes whatever is asked, and closes.
    fn asked(bytes: &[u8]) -> Vec<Result<Reply, String>> {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let listener = socket::listen(&home.socket()).unwrap();
        let answers = ask(&home, Request::Ping {}, Some(Duration::from_millis(50))).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(bytes).unwrap();
        let mut request = [0; 200];
        assert!(server.read(&mut request).unwrap() > 0);
        drop(server);
        answers.map(|reply| reply.map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn answers_end_with_the_last_one() {
        let line = frame::encode(&Reply::Done(Done::default())).unwrap();
        let seen = asked(&[&line[..], &line[..]].concat());
        assert_eq!(seen, [Ok(Reply::Done(Done::default()))]);
    }

    #[test]
    fn an_answer_that_stops_short_is_an_error() {
        assert!(asked(b"{\"type\":").pop().unwrap().unwrap_err().contains("before it answered"));
        assert!(asked(b"hello\n").pop().unwrap().unwrap_err().contains("another version"));
    }

    #[test]
    fn without_a_supervisor_it_says_for_which_home_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = ask(&home(folder.path()), Request::Ping {}, None).unwrap_err().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        assert!(error.contains("clusterd start FILE"), "{error}");
    }

    #[test]
    fn a_stale_socket_is_no_supervisor() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        drop(socket::listen(&home.socket()).unwrap());
        assert!(matches!(ask(&home, Request::Ping {}, None), Err(ClientError::NotRunning { .. })));
    }

    #[test]
    fn a_supervisor_that_does_not_answer_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(folder.path());
        let _listener = socket::listen(&home.socket()).unwrap();
        let mut answers = ask(&home, Request::Ping {}, Some(Duration::from_millis(20))).unwrap();
        assert!(matches!(answers.next(), Some(Err(ClientError::Silent(_)))));
        assert!(answers.next().is_none());
    }
}
