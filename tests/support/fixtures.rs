//! The servers that the tests run, none of which knows who supervises it, and the ecosystem file
//! around them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use super::runtime;

/// A program to run: the exact argument vector, relative to the apps' folder.
#[derive(Clone, Debug)]
pub(crate) struct Fixture {
    /// What to run.
    pub(crate) command: Vec<String>,
}

impl Fixture {
    /// This command.
    pub(crate) fn new(command: &[&str]) -> Fixture {
        Fixture { command: command.iter().map(|&word| word.to_owned()).collect() }
    }
}

/// A script under Node.
pub(crate) fn node(script: &str) -> Option<Fixture> {
    interpreted("node", script)
}

/// A script under Python 3.
pub(crate) fn python(script: &str) -> Option<Fixture> {
    interpreted("python3", script)
}

/// A script under Perl.
pub(crate) fn perl(script: &str) -> Option<Fixture> {
    interpreted("perl", script)
}

/// A script under Ruby.
pub(crate) fn ruby(script: &str) -> Option<Fixture> {
    interpreted("ruby", script)
}

/// PHP's built-in web server; it takes its port from the command line alone.
pub(crate) fn php(script: &str) -> Option<Fixture> {
    let program = runtime("php")?;
    Some(shell(&format!("exec {} -S 0.0.0.0:$PORT {script}", program.display())))
}

/// The static Go server.
pub(crate) fn go() -> Option<Fixture> {
    go_server().map(|_| Fixture::new(&["./go_server"]))
}

/// The worker that behaves as these words say (tests/fixtures/worker.rs).
pub(crate) fn worker(words: &[&str]) -> Fixture {
    let mut command = vec!["./fixture_worker".to_owned()];
    command.extend(words.iter().map(|&word| word.to_owned()));
    Fixture { command }
}

/// A line for the shell.
pub(crate) fn shell(line: &str) -> Fixture {
    Fixture::new(&["/bin/sh", "-c", line])
}

/// The unmodified servers of the promise, by name: those whose runtime is here.
pub(crate) fn server(name: &str) -> Option<Fixture> {
    match name {
        "node" => node("server.js"),
        "asyncio" => python("asyncio_server.py"),
        "http.server" => python("http_server.py"),
        "go" => go(),
        "perl" => perl("blocking.pl"),
        "ruby" => ruby("tcp_server.rb"),
        "php" => php("index.php"),
        "epoll-first" => python("epoll_first.py"),
        other => panic!("no server {other:?}"),
    }
}

/// Everything that a home needs: the programs themselves.
pub(crate) fn staged() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let scripts = fs::read_dir(&folder).expect("the fixtures belong to the sources").flatten();
    let mut all: Vec<PathBuf> = scripts
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.extension().is_some_and(|extension| extension != "rs"))
        .collect();
    all.push(fixture_worker().to_owned());
    let go = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go_server");
    all.extend(go.exists().then_some(go));
    all
}

fn interpreted(name: &str, script: &str) -> Option<Fixture> {
    let program = runtime(name)?;
    Some(Fixture { command: vec![program.display().to_string(), script.to_owned()] })
}

/// `cargo test` builds it with everything else, but `cargo test --test NAME` does not.
fn fixture_worker() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_clusterd")).parent().expect("a file has a folder");
        let program = folder.join("examples/fixture_worker");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/worker.rs");
        if modified(&program) < modified(&source) {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--example", "fixture_worker"]);
            cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
            match folder.file_name().and_then(|name| name.to_str()) {
                Some("debug") => {}
                profile => drop(cargo.args(["--profile", profile.expect("profiles have names")])),
            }
            run(&mut cargo);
        }
        program
    })
}

fn go_server() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let go = runtime("go")?;
            let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/go/main.go");
            let program = target.join("go_server");
            if modified(&program) < modified(&source) {
                // Under its own name first: another test binary may be building it too.
                let fresh = target.join(format!("go_server.{}", std::process::id()));
                let mut build = Command::new(go);
                build.arg("build").arg("-o").arg(&fresh).arg(&source).current_dir(target);
                build.env("CGO_ENABLED", "0").env("GO111MODULE", "off").env("GOPROXY", "off");
                build.env("GOCACHE", target.join("go-cache")).env("GOPATH", target.join("go-path"));
                run(&mut build);
                fs::rename(&fresh, &program).expect("both are in one folder");
            }
            Some(program)
        })
        .as_deref()
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One `[[apps]]` table.
#[derive(Clone, Debug)]
pub(crate) struct App {
    name: String,
    keys: Vec<(String, String)>,
    env: Vec<(String, String)>,
}

impl App {
    /// An app that runs this fixture. New workers need to stay healthy for a tenth of a second only, so
    /// that a reload of a test is not mostly waiting.
    pub(crate) fn new(name: &str, fixture: &Fixture) -> App {
        App::bare(name).set("command", format!("{:?}", fixture.command)).text("min_healthy_time", "100ms")
    }

    /// An app with a name only.
    pub(crate) fn bare(name: &str) -> App {
        App { name: name.to_owned(), keys: Vec::new(), env: Vec::new() }
    }

    /// A key with its value as it stands in the file; the last one wins.
    pub(crate) fn set(mut self, key: &str, value: impl ToString) -> App {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value.to_string()));
        self
    }

    /// A key with a text.
    pub(crate) fn text(self, key: &str, value: &str) -> App {
        // Rust's escapes of printable text are TOML's.
        self.set(key, format!("{value:?}"))
    }

    /// So many workers, which share their port.
    pub(crate) fn instances(self, count: u32) -> App {
        self.set("instances", count)
    }

    /// The port that the server opens by itself.
    pub(crate) fn port(self, port: u16) -> App {
        self.env("PORT", port)
    }

    /// How long its handlers take, in milliseconds.
    pub(crate) fn delay(self, milliseconds: u32) -> App {
        self.env("DELAY_MS", milliseconds)
    }

    /// A declared socket on this port.
    pub(crate) fn listen(self, port: u16) -> App {
        self.set("listen", format!("[\"0.0.0.0:{port}\"]"))
    }

    /// A variable of its environment; the last one wins.
    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> App {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_string()));
        self
    }
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[[apps]]\nname = {:?}", self.name)?;
        for (key, value) in &self.keys {
            writeln!(f, "{key} = {value}")?;
        }
        if !self.env.is_empty() {
            writeln!(f, "[apps.env]")?;
        }
        for (name, value) in &self.env {
            writeln!(f, "{name} = {value:?}")?;
        }
        writeln!(f)
    }
}

/// An ecosystem file of these apps.
pub(crate) fn file(apps: &[App]) -> String {
    apps.iter().map(App::to_string).collect()
}
