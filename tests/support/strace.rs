//! Failing system calls: strace attached to the supervisor alone, so that workers are not traced. Reaches a
//! static program, where tricks with preloaded libraries do not.

use std::fmt;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::wait::{try_until, wait_until};
use super::{runtime, skip};

/// How long strace may take to take hold of a process, or to let it go.
const ATTACH: Duration = Duration::from_secs(20);

/// What is to fail, how, and which of the calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The system calls, comma-separated.
    pub(crate) calls: &'static str,
    /// By name (errno(3)).
    pub(crate) errno: &'static str,
    /// strace's `when`: the number of the call, a range of them, or "1+" for all.
    pub(crate) when: When,
}

/// Which calls fail, counted from the moment at which strace takes hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Each.
    Always,
    /// This one alone.
    Only(usize),
    /// The first so many.
    First(usize),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Always => f.write_str("1+"),
            When::Only(number) => write!(f, "{number}"),
            When::First(count) => write!(f, "1..{count}"),
        }
    }
}

impl Fault {
    /// What strace is told.
    fn expression(&self) -> [String; 2] {
        let Fault { calls, errno, when } = self;
        [format!("trace={calls}"), format!("inject={calls}:error={errno}:when={when}")]
    }

    /// A command line that gets the program as its further arguments, and fails its calls from its first on.
    pub(crate) fn wrap(&self) -> Vec<String> {
        let [trace, inject] = self.expression();
        ["strace", "-D", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).to_vec()
    }

    /// Fails the calls of this process from now on, until what is returned is dropped. None where strace may
    /// not do that (ptrace(2), Yama), after saying so.
    pub(crate) fn inject(self, pid: i32) -> Option<Injected> {
        attach(pid, self.expression())
    }
}

/// What this thread writes to a file is not there before what is returned is lifted or dropped: so does a disk that
/// hangs. None where strace may not do that, after saying so.
pub(crate) fn hang(thread: i32) -> Option<Injected> {
    // An hour, in microseconds.
    attach(thread, ["trace=writev".to_owned(), "inject=writev:delay_enter=3600000000".to_owned()])
}

fn attach(pid: i32, [calls, inject]: [String; 2]) -> Option<Injected> {
    let program = runtime("strace")?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().join("trace");
    let mut strace = Command::new(program);
    strace.args(["-qqq", "-p", &pid.to_string(), "-e", &calls, "-e", &inject, "-o"]).arg(&trace);
    let mut child = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed");
    let held = try_until(ATTACH, || {
        assert!(tracer(pid).is_some(), "the process to be traced has ended");
        matches!(child.try_wait(), Ok(Some(_))) || tracer(pid) == Some(child.id().cast_signed())
    });
    held.expect("strace takes hold, or ends");
    if matches!(child.try_wait(), Ok(Some(_))) {
        skip("strace may not attach to a process here (kernel.yama.ptrace_scope)");
        return None;
    }
    Some(Injected { pid, child, folder })
}

/// The process that traces this one, 0 for none (proc_pid_status(5)).
fn tracer(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("TracerPid:")?.trim().parse().ok())
}

/// Calls that fail.
pub(crate) struct Injected {
    pid: i32,
    child: Child,
    folder: TempDir,
}

impl Injected {
    /// How many calls have failed so far.
    pub(crate) fn count(&self) -> usize {
        let trace = fs::read_to_string(self.folder.path().join("trace")).unwrap_or_default();
        trace.matches("(INJECTED)").count()
    }

    /// No call fails any more; says how many did.
    pub(crate) fn lift(mut self) -> usize {
        self.detach();
        self.count()
    }

    fn detach(&mut self) {
        // It lets go of the process before it ends.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let ended = try_until(ATTACH, || self.child.try_wait().ok().flatten());
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        wait_until(ATTACH, "nobody traces it", || matches!(tracer(self.pid), None | Some(0)));
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
