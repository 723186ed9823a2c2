//! A Docker engine of a test's own, and containers in it. Nothing is pulled: images come from the sources' Dockerfiles
//! and this host's files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use clusterd::control::protocol::{AppInfo, List, WorkerInfo};
use tempfile::TempDir;

use super::booted::succeeded;
use super::daemon::BOOT;
use super::wait::try_until;
use super::{fixtures, root, runtime, skip, wait_until};

/// The engine of all tests that run at the same time. The last one ends it.
static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

/// One did not come up.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Of this program.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Dropping it ends it with all its containers; so does the end of this program, however it comes.
pub(crate) struct Engine {
    folder: TempDir,
    /// Ends the engine when its standard input is closed.
    guard: Child,
    /// Its process 1.
    leader: String,
    /// Images that are there, or could not be made.
    images: Mutex<HashMap<&'static str, bool>>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/engine.sh")
}

/// What the user has set for a Docker of his own is not meant for this one.
fn without_the_users(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"DOCKER_") || name == "NOTIFY_SOCKET" {
            command.env_remove(name);
        }
    }
}

fn unique(what: &str) -> String {
    format!("clusterd-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Engine {
    /// None after saying why there is none. Where none came up, none is tried again.
    pub(crate) fn shared() -> Option<Arc<Engine>> {
        // A test that failed with this lock has none.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = shared.upgrade() {
            return Some(engine);
        }
        if FAILED.load(Ordering::Relaxed) {
            skip("no Docker engine starts here");
            return None;
        }
        // Until it is up: on CI, who cannot start it panics.
        FAILED.store(true, Ordering::Relaxed);
        let engine = Arc::new(Engine::start()?);
        FAILED.store(false, Ordering::Relaxed);
        *shared = Arc::downgrade(&engine);
        Some(engine)
    }

    fn start() -> Option<Engine> {
        if !root() {
            skip("only root can start a Docker engine");
            return None;
        }
        for program in ["dockerd", "docker", "iptables", "unshare", "setpriv", "ip"] {
            runtime(program)?;
        }
        // Short, for the path of its socket; and where an ordinary user's container reaches what is mounted.
        let folder = tempfile::Builder::new().prefix("cd-").tempdir_in("/tmp").expect("a folder in /tmp");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        // For whoever it runs as in a container, and before any other test has one.
        let worker = folder.path().join("worker");
        fs::copy(fixtures::fixture_worker(), &worker).expect("it is ours");
        fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let mut guard = Command::new("bash");
        // A group of its own: who interrupts the tests does not interrupt the tidying.
        guard.arg(script()).arg("run").arg(folder.path()).arg(unique("docker")).process_group(0);
        without_the_users(&mut guard);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("bash is there");
        let leader = String::new();
        let mut engine = Engine { folder, guard, leader, images: Mutex::default() };
        engine.wait_up().then_some(engine)
    }

    /// False after saying that there can be none here.
    fn wait_up(&mut self) -> bool {
        let up = try_until(BOOT * 2, || {
            if self.guard.try_wait().ok().flatten().is_some() {
                return Ok(false);
            }
            if !self.socket().exists() {
                return Err(self.log());
            }
            let asked = self.command(&["version"]).output().expect("timeout is there");
            if asked.status.success() { Ok(true) } else { Err(format!("{asked:?}")) }
        });
        if up != Ok(true) {
            skip(&format!("no Docker engine starts here: {}", self.log()));
            return false;
        }
        let leader = fs::read_to_string(self.folder.path().join("leader")).expect("it wrote that first");
        leader.trim().clone_into(&mut self.leader);
        true
    }

    /// The end of what it said.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// `docker` with these arguments. One that hangs is ended.
    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["60", "docker"]).args(line).stdin(Stdio::null());
        without_the_users(&mut command);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        // The builder of old: the new one is a program of its own, which not every host has.
        command.env("DOCKER_CONFIG", self.folder.path()).env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Runs it, and gives what it printed.
    fn docker(&self, line: &[&str]) -> String {
        let output = self.command(line).output().expect("timeout is there");
        assert!(output.status.success(), "docker {line:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The image of packaging/docker's Dockerfile of this name (`static`, `node`, `python`); none after saying why.
    fn image(&self, name: &'static str) -> Option<String> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let is_made = match images.get(name) {
            Some(is_made) => *is_made,
            None => {
                let is_made = self.build(&mut images, name).is_some();
                images.insert(name, is_made);
                is_made
            }
        };
        is_made.then(|| format!("shop-{name}"))
    }

    fn build(&self, images: &mut HashMap<&'static str, bool>, name: &str) -> Option<()> {
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/docker");
        let (mut file, tag) = ("Dockerfile".to_owned(), format!("shop-{name}"));
        if name != "static" {
            if !images.get("base").is_some_and(|is_made| *is_made) {
                self.import_base()?;
                images.insert("base", true);
            }
            file = format!("Dockerfile.{name}");
        }
        let context = self.folder.path().join("context");
        fs::create_dir_all(&context).expect("it is ours");
        for part in [&file, name] {
            let copied = Command::new("cp").arg("-r").arg(packaging.join(part)).arg(&context).output();
            succeeded(copied.expect("cp is there"));
        }
        if !context.join("clusterd").exists() {
            // What the tests build is mostly symbols.
            let mut strip = Command::new("strip");
            strip.arg("-o").arg(context.join("clusterd")).arg(env!("CARGO_BIN_EXE_clusterd"));
            succeeded(strip.output().expect("strip is there"));
        }
        // Whatever the umask is here: who runs them in the container is somebody else.
        succeeded(
            Command::new("chmod").arg("-R").arg("a+rX").arg(&context).output().expect("chmod is there"),
        );
        let file = context.join(file).display().to_string();
        let argument: &[&str] = if name == "static" { &[] } else { &["--build-arg", "BASE=base"] };
        let line = [&["build", "-q", "-t", &tag, "-f", &file], argument, &[&context.display().to_string()]];
        self.docker(&line.concat());
        Some(())
    }

    /// What stands for node:slim and python:slim: this host's own, with what they load, and a shell.
    fn import_base(&self) -> Option<()> {
        let programs = [runtime("node")?, runtime("python3")?, PathBuf::from("/bin/sh")];
        let tree = self.folder.path().join("base.tar");
        let mut tar = Command::new("bash");
        tar.arg(script()).arg("base").args(programs).stdout(File::create(&tree).expect("it is ours"));
        succeeded(tar.stderr(Stdio::inherit()).output().expect("bash is there"));
        let path = "ENV PATH=/usr/local/bin:/usr/bin:/bin";
        self.docker(&["import", "-c", path, &tree.display().to_string(), "base"]);
        fs::remove_file(tree).expect("it is ours");
        Some(())
    }

    /// A container with this image and these options of `docker run`. It may still be coming up.
    pub(crate) fn run(self: &Arc<Engine>, image: &'static str, options: &[&str]) -> Option<Container> {
        self.run_with(image, options, None, &[])
    }

    /// The same with this ecosystem file, and with more arguments for clusterd.
    pub(crate) fn run_with(
        self: &Arc<Engine>,
        image: &'static str,
        options: &[&str],
        file: Option<&str>,
        arguments: &[&str],
    ) -> Option<Container> {
        let image = self.image(image)?;
        let name = unique("container");
        let mut line = vec!["run".to_owned(), "-d".to_owned(), "--name".to_owned(), name.clone()];
        let mut mount = |from: &Path, to: &str| {
            line.extend(["-v".to_owned(), format!("{}:{to}:ro", from.display())]);
        };
        mount(&self.folder.path().join("worker"), "/usr/local/bin/worker");
        if let Some(text) = file {
            let path = self.folder.path().join(format!("{name}.toml"));
            fs::write(&path, text).expect("it is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
            mount(&path, "/app/ecosystem.toml");
        }
        line.extend(options.iter().map(|&word| word.to_owned()));
        line.push(image);
        line.extend(arguments.iter().map(|&word| word.to_owned()));
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        // Before it is started: one that does not come up is taken away as well.
        let container = Container { engine: Arc::clone(self), name };
        self.docker(&line);
        Some(container)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Dropping it removes it.
pub(crate) struct Container {
    engine: Arc<Engine>,
    name: String,
}

impl Container {
    /// Runs a verb of `docker` on it.
    pub(crate) fn docker(&self, words: &[&str]) -> String {
        self.engine.docker(&[words, &[&self.name]].concat())
    }

    /// What the engine says of it (`{{.State.Status}}`).
    pub(crate) fn inspect(&self, template: &str) -> String {
        self.docker(&["inspect", "-f", template])
    }

    /// Runs `clusterd` in it.
    pub(crate) fn try_clusterd(&self, words: &[&str]) -> Output {
        let line = [&["exec", &self.name, "/usr/local/bin/clusterd"], words].concat();
        self.engine.command(&line).output().expect("timeout is there")
    }

    /// What `clusterd` printed that must not fail.
    pub(crate) fn clusterd(&self, words: &[&str]) -> String {
        succeeded(self.try_clusterd(words))
    }

    /// One app as `clusterd list` has it, or what there is instead.
    pub(crate) fn try_app(&self, name: &str) -> Result<AppInfo, String> {
        let output = self.try_clusterd(&["list", "--json"]);
        let list: List =
            serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
        list.apps.into_iter().find(|app| app.name == name).ok_or_else(|| format!("{output:?}"))
    }

    /// Waits until so many workers of an app are ready and no other is there.
    pub(crate) fn wait_online(&self, name: &str, count: usize) -> Vec<WorkerInfo> {
        wait_until(BOOT, &format!("{count} workers of {name}"), || {
            let app = self.try_app(name)?;
            let ready = app.workers.iter().all(|worker| worker.ready && worker.pid.is_some());
            if ready && app.workers.len() == count {
                Ok(app.workers)
            } else {
                Err(format!("{:?}", app.workers))
            }
        })
    }

    /// Waits until the engine says this of it.
    pub(crate) fn wait_for(&self, template: &str, value: &str) {
        wait_until(BOOT, &format!("{template} = {value}"), || {
            let said = self.inspect(template);
            if said == value { Ok(()) } else { Err(said) }
        });
    }

    /// Waits for its end: its exit code.
    pub(crate) fn wait_exit(&self) -> i32 {
        self.docker(&["wait"]).parse().expect("a number")
    }

    /// What it wrote to standard output, and to standard error.
    pub(crate) fn logs(&self) -> (String, String) {
        let output = self.engine.command(&["logs", &self.name]).output().expect("timeout is there");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }

    /// Fails if the supervisor's log has warnings or errors with none of these in them.
    pub(crate) fn expect_no_warning_but(&self, texts: &[&str]) {
        let (_, log) = self.logs();
        let alarm = |line: &&str| [" WARN ", " ERROR "].iter().any(|level| line.contains(level));
        let unexpected: Vec<&str> =
            log.lines().filter(alarm).filter(|line| !texts.iter().any(|text| line.contains(text))).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    }

    /// State and command of each of its processes, as ps(1) has them.
    pub(crate) fn processes(&self) -> Vec<String> {
        let output = self.engine.docker(&["top", &self.name, "-eo", "pid,stat,args"]);
        output.lines().skip(1).map(str::to_owned).collect()
    }

    /// Does something in its network, and so do threads that are started in it.
    pub(crate) fn in_its_network<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let (one, pid) = (&self.engine.leader, self.inspect("{{.State.Pid}}"));
        // By its number in the engine's namespace, in the tree that shows that.
        within(PathBuf::from(format!("/proc/{one}/root/proc/{pid}/ns/net")), what)
    }

    /// Does something where the engine publishes ports.
    pub(crate) fn outside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        within(Path::new("/proc").join(&self.engine.leader).join("ns/net"), what)
    }

    /// Sends a signal to its process 1, as its engine's host can: also those that nothing in it can send to that.
    pub(crate) fn kill_from_outside(&self, signal: &str) {
        let pid = self.inspect("{{.State.Pid}}");
        let line = ["-t", &self.engine.leader, "-p", "-m", "--", "kill", "-s", signal, &pid];
        succeeded(Command::new("nsenter").args(line).output().expect("nsenter is there"));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (output, log) = self.logs();
            eprintln!("--- {}: output\n{output}\n--- {}: log\n{log}", self.name, self.name);
        }
        let _ = self.engine.command(&["rm", "-f", &self.name]).output();
    }
}

/// Does something in this network.
fn within<T: Send>(network: PathBuf, what: impl FnOnce() -> T + Send) -> T {
    let network = File::open(network).expect("it is there");
    std::thread::scope(|scope| {
        let there = scope.spawn(move || {
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may");
            what()
        });
        there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How long a container may take for what takes it a moment.
pub(crate) const SOON: Duration = BOOT;
