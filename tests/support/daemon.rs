//! One supervisor per test, in a home of its own, that leaves nothing behind: neither processes nor
//! files. When the test fails, its output, its list and the commands so far are shown.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clusterd::control::protocol::{AppInfo, List, WorkerInfo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::fixtures;
use super::wait::{try_until, wait_until};

/// How long one command may take. Longer than any promise: a hanging command is a failure of its own.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// How long a supervisor may take for its own orderly end before the harness ends everything.
const GOODBYE: Duration = Duration::from_secs(4);

/// How long apps may take to come up on a busy machine.
pub(crate) const BOOT: Duration = Duration::from_secs(30);

/// In the environment of everything that a test starts, and inherited by whatever that starts.
const MARK: &str = "HARNESS_HOME";

/// What a command did.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit code; 128 plus the number for a death by signal.
    pub(crate) code: i32,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Output {
    /// Itself, when the exit code is this one.
    ///
    /// # Panics
    /// When it is another one, with everything the command said.
    pub(crate) fn expect_code(self, code: i32) -> Output {
        assert_eq!(self.code, code, "exit code; the command said {self:#?}");
        self
    }

    /// Fails unless standard error has every one of `parts`.
    pub(crate) fn expect_stderr(self, parts: &[&str]) -> Output {
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} on standard error: {self:#?}");
        }
        self
    }
}

/// The folder of one test: the supervisor's home, the apps' folder, and the program itself, all where an
/// ordinary user reaches them.
pub(crate) struct Home {
    base: TempDir,
    user: Option<u32>,
    commands: Mutex<Vec<String>>,
}

impl Home {
    /// A fresh home, owned by `user` (by oneself when none).
    pub(crate) fn new(user: Option<u32>) -> Home {
        // Short, since a socket's path has at most 107 bytes (unix(7)).
        let base = tempfile::Builder::new().prefix("cd-").tempdir_in("/tmp").expect("a folder in /tmp");
        let home = Home { base, user, commands: Mutex::new(Vec::new()) };
        set_mode(home.base.path(), 0o755);
        for (folder, mode) in [(home.path(), 0o700), (home.apps(), 0o755)] {
            fs::create_dir(&folder).expect("the folder is fresh");
            set_mode(&folder, mode);
            chown(&folder, user, user).expect("only root asks for another user");
        }
        stage(Path::new(env!("CARGO_BIN_EXE_clusterd")), &home.binary());
        for program in fixtures::staged() {
            let name = program.file_name().expect("fixtures are files").to_owned();
            stage(&program, &home.apps().join(name));
        }
        home
    }

    /// What CLUSTERD_HOME is.
    pub(crate) fn path(&self) -> PathBuf {
        self.base.path().join("home")
    }

    /// The folder of the ecosystem file and of every fixture, and so the apps' working directory.
    pub(crate) fn apps(&self) -> PathBuf {
        self.base.path().join("apps")
    }

    /// The ecosystem file.
    pub(crate) fn file(&self) -> PathBuf {
        self.apps().join("ecosystem.toml")
    }

    /// The program under test.
    pub(crate) fn binary(&self) -> PathBuf {
        self.base.path().join("clusterd")
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("clusterd.sock")
    }

    /// Writes the ecosystem file, as editors do: a new file under the old name.
    pub(crate) fn write(&self, text: &str) {
        self.put("ecosystem.toml", text);
    }

    /// Puts a file into the apps' folder, replacing one of that name as a whole.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.apps().join(name);
        let fresh = self.apps().join(format!(".{name}.new"));
        fs::write(&fresh, text).expect("the folder is ours");
        set_mode(&fresh, 0o755);
        fs::rename(&fresh, &path).expect("both are in one folder");
    }

    /// A command line that runs as this home's user, with a clean environment.
    pub(crate) fn command(&self, wrap: &[&str]) -> Command {
        let mut line: Vec<String> = Vec::new();
        if let Some(user) = self.user {
            line.extend(["setpriv".to_owned(), format!("--reuid={user}"), format!("--regid={user}")]);
            line.push("--clear-groups".to_owned());
        }
        line.extend(wrap.iter().map(|&word| word.to_owned()));
        line.push(self.binary().display().to_string());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).current_dir(self.apps()).stdin(Stdio::null()).env_clear();
        for name in ["PATH", "LANG", "RUST_BACKTRACE", "RUST_LOG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", self.path()).env("CLUSTERD_HOME", self.path()).env(MARK, self.path());
        command
    }

    /// Starts `clusterd` with these arguments and does not wait for it.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        self.spawn_with(arguments, |_| {})
    }

    /// As [`Home::spawn`], after a last change to the command.
    pub(crate) fn spawn_with(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        self.launch(self.command(&[]), arguments, change)
    }

    /// Starts a program that gets the path of `clusterd` as its last argument, in its place.
    pub(crate) fn spawn_behind(&self, wrap: &[&str]) -> Running {
        self.launch(self.command(wrap), &[], |_| {})
    }

    /// Starts this command with these arguments.
    pub(crate) fn launch(
        &self,
        mut command: Command,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Running {
        let (stdout, stderr) = (anonymous_file(), anonymous_file());
        command.args(arguments).stdout(duplicate(&stdout)).stderr(duplicate(&stderr));
        change(&mut command);
        let begin = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Running { line: arguments.join(" "), child, stdout, stderr, begin }
    }

    /// Runs `clusterd` with these arguments to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.finish(self.spawn(arguments))
    }

    /// Waits for a command, and notes what it did for the report of a failing test.
    pub(crate) fn finish(&self, running: Running) -> Output {
        let line = running.line.clone();
        let output = running.wait(COMMAND_LIMIT);
        let note = format!("clusterd {line}\n  -> {output:?}");
        self.commands.lock().expect("nobody panics while noting").push(note);
        output
    }

    /// Every live process that a test with this home started, directly or not.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let home = self.path().display().to_string();
        let needles = [format!("{MARK}={home}"), format!("CLUSTERD_HOME={home}")];
        pids().into_iter().filter_map(|pid| Process::look(pid, &needles, self.base.path())).collect()
    }

    /// Ends everything that is left, and waits until it is gone.
    fn sweep(&self) {
        let swept = try_until(Duration::from_secs(10), || {
            let left = self.processes();
            for process in &left {
                // It may have ended between the look and the signal.
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        if let Err(left) = swept {
            eprintln!("processes that outlived SIGKILL: {left}");
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for command in self.commands.lock().into_iter().flat_map(|noted| noted.clone()) {
                eprintln!("{command}");
            }
        }
        self.sweep();
    }
}

/// A command on its way.
pub(crate) struct Running {
    line: String,
    /// The process.
    pub(crate) child: Child,
    stdout: File,
    stderr: File,
    begin: Instant,
}

impl Running {
    /// True while it has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes longer than `limit`; it is killed then.
    pub(crate) fn wait(self, limit: Duration) -> Output {
        self.try_wait(limit).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Running::wait`], with the reason as an answer.
    pub(crate) fn try_wait(mut self, limit: Duration) -> Result<Output, String> {
        let ended = try_until(limit, || self.child.try_wait().ok().flatten());
        let said = (contents(&self.stdout), contents(&self.stderr));
        let Ok(status) = ended else {
            let _ = self.child.kill();
            let _ = self.child.wait();
            return Err(format!("`clusterd {}` did not end in {limit:?}; it said {said:?}", self.line));
        };
        Ok(Output { code: code(status), stdout: said.0, stderr: said.1, took: self.begin.elapsed() })
    }
}

/// A process, for messages and for counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: i32,
    /// Its arguments, blank-separated.
    pub(crate) line: String,
}

impl Process {
    fn look(pid: i32, needles: &[String], folder: &Path) -> Option<Process> {
        // The environment of a zombie is empty and it has no folder, so only live processes are found.
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut variables = environment.split(|&byte| byte == 0);
        // Some programs write their title over their environment (nginx).
        let ours = variables.any(|variable| needles.iter().any(|needle| needle.as_bytes() == variable))
            || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path.starts_with(folder));
        if !ours {
            return None;
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Process { pid, line: String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned() })
    }
}

/// How a supervisor is started in the foreground.
pub(crate) struct Builder {
    text: String,
    user: Option<u32>,
    wrap: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stdout: Option<Stdio>,
    expected: Vec<String>,
}

impl Builder {
    /// With this ecosystem file.
    pub(crate) fn new(text: impl ToString) -> Builder {
        Builder {
            text: text.to_string(),
            user: None,
            wrap: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            stdout: None,
            expected: Vec::new(),
        }
    }

    /// With warnings that the test provokes ([`Daemon::expects`]).
    pub(crate) fn expects(mut self, texts: &[&str]) -> Builder {
        self.expected.extend(texts.iter().map(|&text| text.to_owned()));
        self
    }

    /// As this user (only root can).
    pub(crate) fn user(mut self, user: Option<u32>) -> Builder {
        self.user = user;
        self
    }

    /// Behind a program that changes something and runs the rest of its arguments (`prlimit --nofile=32`).
    pub(crate) fn wrap(mut self, line: &[&str]) -> Builder {
        self.wrap = line.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With one more argument after the file.
    pub(crate) fn argument(mut self, argument: &str) -> Builder {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With one more variable in its environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Builder {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this standard output instead of a file that [`Daemon::output`] reads.
    pub(crate) fn stdout(mut self, stdout: Stdio) -> Builder {
        self.stdout = Some(stdout);
        self
    }

    /// Starts it; the apps may still be coming up.
    pub(crate) fn start(self) -> Daemon {
        let home = Home::new(self.user);
        self.start_in(Arc::new(home))
    }

    /// Starts it in a home that exists already.
    pub(crate) fn start_in(self, home: Arc<Home>) -> Daemon {
        home.write(&self.text);
        let (stdout, stderr) = (anonymous_file(), anonymous_file());
        let wrap: Vec<&str> = self.wrap.iter().map(String::as_str).collect();
        let mut command = home.command(&wrap);
        command.arg(home.file()).args(&self.arguments).envs(self.environment.iter().cloned());
        command.stdout(self.stdout.unwrap_or_else(|| duplicate(&stdout))).stderr(duplicate(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let pid = i32::try_from(child.id()).expect("process ids are positive");
        // setpriv and prlimit replace themselves by the program, so this is the supervisor's own id.
        let expected = Mutex::new(self.expected);
        let mut daemon = Daemon { pid, child: Some(child), stdout, stderr, expected, home };
        daemon.wait_for_control();
        daemon
    }
}

/// A running supervisor. Dropping it ends it and everything it started.
pub(crate) struct Daemon {
    /// Its process id; 0 for a background supervisor that could not be asked for it.
    pub(crate) pid: i32,
    child: Option<Child>,
    stdout: File,
    stderr: File,
    /// What its warnings and errors may say.
    expected: Mutex<Vec<String>>,
    /// Its home.
    pub(crate) home: Arc<Home>,
}

impl Daemon {
    /// `clusterd FILE`, in the foreground of the test.
    pub(crate) fn foreground(text: impl ToString) -> Daemon {
        Builder::new(text).start()
    }

    /// The same as another user.
    pub(crate) fn foreground_as(user: Option<u32>, text: impl ToString) -> Daemon {
        Builder::new(text).user(user).start()
    }

    /// `clusterd start FILE`: the supervisor in the background, and what the command did.
    pub(crate) fn background(text: impl ToString) -> (Daemon, Output) {
        let home = Arc::new(Home::new(None));
        home.write(&text.to_string());
        let file = home.file().display().to_string();
        Daemon::started_by(home, &["start", &file])
    }

    /// The supervisor in the background that this command starts, and what the command did.
    pub(crate) fn started_by(home: Arc<Home>, arguments: &[&str]) -> (Daemon, Output) {
        let output = home.run(arguments);
        let (stdout, stderr) = (anonymous_file(), anonymous_file());
        let mut daemon = Daemon { pid: 0, child: None, stdout, stderr, expected: Mutex::default(), home };
        daemon.pid = daemon.try_list().map_or(0, |list| list.daemon.pid);
        (daemon, output)
    }

    /// The background supervisor that a command has started in this home.
    pub(crate) fn of(home: &Arc<Home>) -> Daemon {
        let (stdout, stderr) = (anonymous_file(), anonymous_file());
        let home = Arc::clone(home);
        let mut daemon = Daemon { pid: 0, child: None, stdout, stderr, expected: Mutex::default(), home };
        daemon.pid = daemon.list().daemon.pid;
        daemon
    }

    /// Ends a supervisor in the background with SIGKILL, and gives its home for the next one.
    pub(crate) fn kill_behind(mut self) -> Arc<Home> {
        send(self.pid, Signal::SIGKILL);
        wait_until(GOODBYE, "the end of a killed supervisor", || {
            state_and_parent(self.pid).is_none_or(|(state, _)| state == 'Z')
        });
        self.pid = 0;
        Arc::clone(&self.home)
    }

    /// Until its control socket can be connected to, or it has ended.
    fn wait_for_control(&mut self) {
        let socket = self.home.socket();
        let child = self.child.as_mut().expect("it was just started");
        wait_until(BOOT, "a control socket, or the supervisor's end", || {
            let ended = matches!(child.try_wait(), Ok(Some(_)));
            ended || std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    /// Warnings and errors of its log with one of these texts are what this test provokes; any other fails it.
    pub(crate) fn expects(&self, texts: &[&str]) {
        let mut expected = self.expected.lock().expect("nobody panics with this lock");
        expected.extend(texts.iter().map(|&text| text.to_owned()));
    }

    /// What its log warns of that the test did not expect.
    fn unexpected(&self) -> Vec<String> {
        let expected = self.expected.lock().expect("nobody panics with this lock");
        // A supervisor in the background has a file of its own.
        let file = fs::read_to_string(self.home.path().join("logs/clusterd.log")).unwrap_or_default();
        let log = self.log();
        let alarming = log.lines().chain(file.lines()).filter(|line| is_alarm(line));
        let unexpected = alarming.filter(|line| !expected.iter().any(|text| line.contains(text.as_str())));
        unexpected.map(str::to_owned).collect()
    }

    /// Runs a verb to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.home.run(arguments)
    }

    /// Runs a verb five times, each of which succeeds, and gives the quickest: what an answer takes at least is the
    /// supervisor's doing, the rest may be a busy machine's.
    pub(crate) fn quickest(&self, arguments: &[&str]) -> Output {
        let outputs = (0..5).map(|_| self.run(arguments).expect_code(0));
        outputs.min_by_key(|output| output.took).expect("there are five")
    }

    /// Starts a verb and does not wait for it.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        self.home.spawn(arguments)
    }

    /// `clusterd list --json`, or why there is none.
    pub(crate) fn try_list(&self) -> Result<List, String> {
        let output = self.home.spawn(&["list", "--json"]).wait(COMMAND_LIMIT);
        if output.code != 0 {
            return Err(format!("list: {output:?}"));
        }
        serde_json::from_str(&output.stdout).map_err(|error| format!("list: {error}: {}", output.stdout))
    }

    /// `clusterd list --json`.
    pub(crate) fn list(&self) -> List {
        self.try_list().expect("a running supervisor lists its apps")
    }

    /// One app of the list, as soon as there is one.
    pub(crate) fn app(&self, name: &str) -> AppInfo {
        wait_until(BOOT, &format!("{name} in the list"), || {
            self.expect_running();
            self.try_app(name)
        })
    }

    /// One app of the list, or what there is instead.
    pub(crate) fn try_app(&self, name: &str) -> Result<AppInfo, String> {
        let list = self.try_list()?;
        let names: Vec<String> = list.apps.iter().map(|app| app.name.clone()).collect();
        list.apps.into_iter().find(|app| app.name == name).ok_or_else(|| format!("only {names:?}"))
    }

    /// The workers of an app that serve, in the order of their instance.
    pub(crate) fn online(&self, name: &str) -> Vec<WorkerInfo> {
        online(&self.app(name))
    }

    /// The process ids of the workers that serve, in the order of their instance.
    pub(crate) fn pids(&self, name: &str) -> Vec<i32> {
        self.online(name).iter().filter_map(|worker| worker.pid).collect()
    }

    /// Waits until exactly `count` workers serve and no other worker is there.
    pub(crate) fn wait_online(&self, name: &str, count: usize) -> Vec<i32> {
        wait_until(BOOT, &format!("{count} workers of {name} online, and no other"), || {
            self.expect_running();
            let app = self.try_app(name)?;
            let online = online(&app);
            if online.len() == count
                && app.workers.iter().filter(|worker| worker.pid.is_some()).count() == count
            {
                Ok(online.iter().filter_map(|worker| worker.pid).collect::<Vec<i32>>())
            } else {
                Err(format!("{:#?}", app.workers))
            }
        })
    }

    /// Waits until the app has this status.
    pub(crate) fn wait_status(&self, name: &str, status: &str) -> AppInfo {
        wait_until(BOOT, &format!("{name} {status}"), || {
            self.expect_running();
            let app = self.try_app(name)?;
            if app.status == status { Ok(app) } else { Err(format!("{app:#?}")) }
        })
    }

    /// Waiting for what a dead supervisor will do only hides why it is dead.
    fn expect_running(&self) {
        let ended = state_and_parent(self.pid).is_none_or(|(state, _)| state == 'Z');
        assert!(!ended, "the supervisor has ended: {}", tail(&self.log()));
    }

    /// What the foreground supervisor has written to standard output.
    pub(crate) fn output(&self) -> String {
        contents(&self.stdout)
    }

    /// Its size, in bytes.
    pub(crate) fn output_length(&self) -> u64 {
        self.stdout.metadata().map_or(0, |metadata| metadata.len())
    }

    /// The same as bytes.
    pub(crate) fn output_bytes(&self) -> Vec<u8> {
        bytes(&self.stdout)
    }

    /// What it has written to standard error: its own log.
    pub(crate) fn log(&self) -> String {
        contents(&self.stderr)
    }

    /// Waits until its output or its log has this text.
    pub(crate) fn wait_for_text(&self, text: &str) {
        wait_until(BOOT, &format!("{text:?} in the output or the log"), || {
            self.expect_running();
            self.output().contains(text) || self.log().contains(text)
        });
    }

    /// Sends a signal to the supervisor itself.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Waits for the end of a foreground supervisor: its exit code, or 128 plus a signal's number.
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> i32 {
        let child = self.child.as_mut().expect("a foreground supervisor");
        let status = wait_until(limit, "the supervisor's end", || child.try_wait().ok().flatten());
        code(status)
    }

    /// True while a foreground supervisor runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends a foreground supervisor with SIGKILL, and gives its home for the next one.
    pub(crate) fn kill_hard(mut self) -> Arc<Home> {
        let mut child = self.child.take().expect("a foreground supervisor");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        self.pid = 0;
        Arc::clone(&self.home)
    }

    /// Everything it started that lives, itself left out.
    pub(crate) fn workers(&self) -> Vec<Process> {
        let mut all = self.home.processes();
        all.retain(|process| process.pid != self.pid);
        all
    }

    /// Its children that ended and were not waited for.
    pub(crate) fn zombies(&self) -> Vec<i32> {
        pids().into_iter().filter(|&pid| state_and_parent(pid) == Some(('Z', self.pid))).collect()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("it runs").count()
    }

    /// Its resident memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        status_kib(self.pid, "VmRSS:").expect("it runs")
    }

    /// Ends it. What is wrong with how it ended: told to by a signal, it is done well, and never panics.
    fn end(&mut self) -> Option<String> {
        match &mut self.child {
            Some(child) => {
                if !matches!(child.try_wait(), Ok(None)) {
                    return None;
                }
                let _ = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
                let ended = try_until(GOODBYE, || child.try_wait().ok().flatten());
                if ended.is_err() {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                let code = ended.map_or(0, code);
                // It may have been ending by itself, with the code of an app.
                let is_orderly = code == 0 || self.log().contains(&format!("clusterd ends with code {code}"));
                (!is_orderly).then(|| format!("it ended with {code}: {}", tail(&self.log())))
            }
            None if self.pid != 0 => {
                let _ = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
                // Not our child, and who reaps it may take a second for that. The sweep takes the rest.
                let ended = || state_and_parent(self.pid).is_none_or(|(state, _)| state == 'Z');
                let _ = try_until(GOODBYE, ended);
                let log = fs::read_to_string(self.home.path().join("logs/clusterd.log")).unwrap_or_default();
                log.contains("panicked at").then(|| format!("it panicked: {}", tail(&log)))
            }
            None => None,
        }
    }

    fn show(&self) {
        // Another panic here would abort the whole test binary.
        let list = self.home.spawn(&["list"]).try_wait(GOODBYE);
        let list = list.map_or_else(|error| error, |output| output.stdout + &output.stderr);
        eprintln!("--- clusterd list\n{list}");
        eprintln!("--- supervisor's output\n{}", tail(&self.output()));
        eprintln!("--- supervisor's log\n{}", tail(&self.log()));
        eprintln!("--- processes\n{:#?}", self.home.processes());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        // Before its end: what the harness itself does to it proves nothing.
        let unexpected = self.unexpected();
        if (failing || !unexpected.is_empty()) && self.pid != 0 {
            self.show();
        }
        let ill = self.end();
        assert!(failing || ill.is_none(), "told to end, {}", ill.unwrap_or_default());
        assert!(
            failing || unexpected.is_empty(),
            "the supervisor's log has warnings or errors that the test did not expect (Daemon::expects): {unexpected:#?}"
        );
    }
}

/// A line of the supervisor's own log for which somebody would be woken: `2026-01-02T03:04:05.678Z WARN  text`.
fn is_alarm(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let time = words.next().is_some_and(|word| word.len() == 24 && word.ends_with('Z') && word.contains('T'));
    time && matches!(words.next(), Some("WARN" | "ERROR"))
}

/// Runs `clusterd` with these arguments in this home, to its end.
pub(crate) fn clusterd(home: &Home, arguments: &[&str]) -> Output {
    home.run(arguments)
}

/// Sends a signal to a process that lives.
pub(crate) fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// True while a process has this id, also as a zombie.
pub(crate) fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A process's state letter and parent (proc_pid_stat(5)).
pub(crate) fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, blanks and parentheses too.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Processor time a process has used so far, its ended children not counted, in clock ticks (1/100 s).
pub(crate) fn cpu_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// One size of /proc/PID/status, in KiB.
pub(crate) fn status_kib(pid: i32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

fn online(app: &AppInfo) -> Vec<WorkerInfo> {
    let mut workers: Vec<WorkerInfo> =
        app.workers.iter().filter(|worker| worker.status == "online" && worker.ready).cloned().collect();
    workers.sort_by_key(|worker| worker.instance);
    workers
}

fn pids() -> HashSet<i32> {
    let entries = fs::read_dir("/proc").expect("tests need /proc");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("an ended process has either")
}

/// A link where that is possible (the program has some ten megabytes, and there are many homes).
fn stage(from: &Path, to: &Path) {
    let script = from.extension().is_some();
    // A linked script would let a test that edits its copy edit the original.
    if script || fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
    }
    if script {
        set_mode(to, 0o755);
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

fn anonymous_file() -> File {
    tempfile::tempfile().expect("a file in the temporary folder")
}

fn duplicate(file: &File) -> Stdio {
    Stdio::from(file.try_clone().expect("descriptors are left"))
}

fn contents(file: &File) -> String {
    String::from_utf8_lossy(&bytes(file)).into_owned()
}

fn bytes(file: &File) -> Vec<u8> {
    let mut all = Vec::new();
    // Its own offset: the writer shares the one of `file`.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    let mut reader = File::open(path).expect("an open file can be opened again");
    reader.seek(SeekFrom::Start(0)).and_then(|_| reader.read_to_end(&mut all)).expect("an ordinary file");
    all
}

/// The last 100 lines.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(100)..].join("\n")
}
