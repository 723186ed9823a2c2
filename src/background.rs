//! A supervisor in the background: this program again, in a session of its own, which says on a pipe
//! when it can be talked to. Nothing is waited for by time alone: the pipe ends with the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;

use crate::home::{Home, HomeError};
use crate::sys::clock::Clock;
use crate::sys::socket;

/// [`READY_TIME`] in milliseconds, as poll(2) counts.
const READY_MS: u16 = 30_000;

/// How long a supervisor may take from its exec to its control socket.
pub const READY_TIME: Duration = Duration::from_millis(READY_MS as u64);

/// Between two looks whether a supervisor that somebody else started listens, in milliseconds.
const LOOK_MS: u8 = 20;

/// What is on the pipe when the control socket can be connected to. Anything else is why it never will be.
const READY: &[u8] = b"ready\n";

/// What comes before the reason when another supervisor has the home.
const TAKEN: &[u8] = b"taken\n";

/// The longest reason that is taken from the pipe, and shown from the log.
const REASON_LIMIT: u64 = 8 * 1024;

/// Why there is no supervisor in the background.
#[derive(Debug, Error)]
pub enum BackgroundError {
    /// Its folders.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The file that its messages go to.
    #[error("{}: cannot open the supervisor's log: {cause}", path.display())]
    Log {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It could not be started.
    #[error("cannot start a supervisor in the background: {0}")]
    Spawn(#[source] io::Error),
    /// It says why it cannot run.
    #[error("{0}")]
    Refused(String),
    /// Another one has the home, and may not be ready itself.
    #[error("{0}")]
    Taken(String),
    /// It ended and said nothing on the pipe.
    #[error("the supervisor ended before it was ready; {} ends with:\n{tail}", log.display())]
    Died {
        /// Its log.
        log: PathBuf,
        /// The end of what it wrote there.
        tail: String,
    },
    /// It runs and says nothing.
    #[error(
        "the supervisor (pid {pid}) is not ready after {} s; {} may say why",
        READY_MS / 1000,
        log.display()
    )]
    Late {
        /// Its process.
        pid: u32,
        /// Its log.
        log: PathBuf,
    },
}

/// The background supervisor's end of the pipe. Dropped without a word it reads as death.
#[derive(Debug)]
pub struct Ready {
    pipe: File,
}

impl Ready {
    /// The control socket can be connected to. That nobody waits for this any more is no error.
    pub fn ready(mut self) {
        let _ = self.pipe.write_all(READY);
    }

    /// It never will be: `reason` is what the caller of `start` sees.
    pub fn failed(mut self, reason: &str) {
        let _ = self.pipe.write_all(reason.as_bytes());
    }

    /// Another supervisor was first: `reason` names it.
    pub fn taken(mut self, reason: &str) {
        let _ = self.pipe.write_all(&[TAKEN, reason.as_bytes()].concat());
    }
}

/// Starts a supervisor for `home` and returns when it can be talked to. `named` is the caller's
/// `--home`, handed on; everything else that `home` came from is in the environment, which it gets without these
/// variables.
pub fn start(home: &Home, named: Option<&Path>, without: &[&str]) -> Result<(), BackgroundError> {
    // In the background all of it is needed.
    if let Some(missing) = home.clone().create()?.pop() {
        return Err(missing.into());
    }
    home.check(socket::own_uid())?;
    let (log, before) = open_log(&home.log())?;
    let mut child = spawn(named, without, log).map_err(BackgroundError::Spawn)?;
    let mut pipe =
        child.stdout.take().ok_or_else(|| BackgroundError::Spawn(io::ErrorKind::BrokenPipe.into()))?;
    let Some(said) = wait(&mut pipe).map_err(BackgroundError::Spawn)? else {
        return Err(BackgroundError::Late { pid: child.id(), log: home.log() });
    };
    if said == READY {
        return Ok(());
    }
    reap(child);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if let Some(reason) = said.strip_prefix(TAKEN) {
        return Err(BackgroundError::Taken(text(reason)));
    }
    let reason = text(&said);
    if reason.is_empty() {
        let tail = tail(&home.log(), before).unwrap_or_default();
        return Err(BackgroundError::Died { log: home.log(), tail });
    }
    Err(BackgroundError::Refused(reason))
}

/// Waits for at most `limit` until somebody listens in this home.
pub fn wait_heard(home: &Home, clock: &Clock, limit: Duration) {
    let end = clock.since_start() + limit;
    // The socket's file is there before anybody listens on it: there is nothing that the kernel would tell us of.
    while !home.is_heard() && clock.since_start() < end {
        let _ = poll(&mut [], PollTimeout::from(LOOK_MS));
    }
}

/// Makes this process the background supervisor that [`start`] began: a session of its own, in the root
/// folder, so that no terminal ends it and no folder is held. Standard output turns from the pipe into
/// `/dev/null`.
pub fn detach() -> io::Result<Ready> {
    let pipe = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    match nix::unistd::setsid() {
        // EPERM: it leads a group already, so it was not started by us but by hand; then it stays.
        Ok(_) | Err(nix::Error::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Ready { pipe })
}

fn spawn(named: Option<&Path>, without: &[&str], log: File) -> io::Result<Child> {
    let itself = Path::new("/proc/self/exe");
    // Without /proc as it was called.
    let called = || std::env::args_os().next().map_or_else(|| "clusterd".into(), PathBuf::from);
    let mut command = Command::new(if itself.exists() { itself.to_owned() } else { called() });
    command.arg0("clusterd").arg("daemon");
    if let Some(folder) = named {
        command.arg("--home").arg(std::path::absolute(folder)?);
    }
    // A relative CLUSTERD_HOME must not change its meaning with the folder.
    if let Some(folder) = std::env::var_os("CLUSTERD_HOME").filter(|folder| !folder.is_empty()) {
        command.env("CLUSTERD_HOME", std::path::absolute(folder)?);
    }
    for variable in without {
        command.env_remove(variable);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()
}

/// What was said on the pipe, at once when it is a whole line, else at its end; none in time: `None`.
fn wait(pipe: &mut ChildStdout) -> io::Result<Option<Vec<u8>>> {
    let mut said = Vec::new();
    let mut chunk = [0; 1024];
    while said != READY && (said.len() as u64) < REASON_LIMIT {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(READY_MS)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match pipe.read(&mut chunk)? {
            0 => break,
            count => said.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(Some(said))
}

/// It said that it ends, or its pipe has ended: it does not go on for long.
fn reap(mut child: Child) {
    // Only failing means is that somebody reaped it before.
    let _ = child.wait();
}

/// The log, and how long it is so far.
fn open_log(path: &Path) -> Result<(File, u64), BackgroundError> {
    let fail = |cause| BackgroundError::Log { path: path.to_owned(), cause };
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(fail)?;
    let length = log.metadata().map_err(fail)?.len();
    Ok((log, length))
}

/// The end of what was written after `start`.
fn tail(path: &Path, start: u64) -> io::Result<String> {
    let end = fs::metadata(path)?.len();
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(REASON_LIMIT))))?;
    let mut bytes = Vec::new();
    file.take(REASON_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}
