//! The servers that the tests run, none of which knows who supervises it, and the ecosystem file
//! around them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use super::{runtime, skip};

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

/// The same with processes of its own, which accept from one socket.
pub(crate) fn php_workers(script: &str) -> Option<Fixture> {
    let program = runtime("php")?;
    Some(shell(&format!("PHP_CLI_SERVER_WORKERS=2 exec {} -S 0.0.0.0:$PORT {script}", program.display())))
}

/// Puma with its threads.
pub(crate) fn puma() -> Option<Fixture> {
    let program = runtime("puma")?;
    Some(shell(&format!("exec {} -q -t 8:8 -b tcp://0.0.0.0:$PORT config.ru", program.display())))
}

/// gunicorn: a master, and two processes that accept from its socket.
pub(crate) fn gunicorn(options: &str) -> Option<Fixture> {
    let program = runtime("gunicorn")?;
    let options = format!("-w 2 -b 0.0.0.0:$PORT --log-level warning {options}");
    Some(shell(&format!("exec {} {options} wsgi_app:app", program.display())))
}

/// uvicorn.
pub(crate) fn uvicorn() -> Option<Fixture> {
    let program = runtime("uvicorn")?;
    let options = "--host 0.0.0.0 --port $PORT --lifespan off --log-level warning";
    Some(shell(&format!("exec {} {options} asgi_app:app", program.display())))
}

/// nginx, with these global directives.
pub(crate) fn nginx(directives: &str) -> Option<Fixture> {
    let program = runtime("nginx")?;
    let words = "s/PORT/$PORT/; s/GENERATION/$CLUSTERD_GENERATION/; s/INSTANCE/$NODE_APP_INSTANCE/";
    let file = "nginx-$CLUSTERD_GENERATION-$NODE_APP_INSTANCE.conf";
    let options = format!("-e stderr -p . -c {file} -g 'daemon off; {directives}'");
    Some(shell(&format!("sed \"{words}\" nginx.conf > {file} && exec {} {options}", program.display())))
}

/// The JDK's HTTP server.
pub(crate) fn java() -> Option<Fixture> {
    java_server("Plain", &[])
}

/// A server on Netty, as Debian packages it.
pub(crate) fn netty() -> Option<Fixture> {
    let parts = ["buffer", "codec", "codec-http", "common", "handler", "resolver", "transport"];
    let library = parts.map(|part| PathBuf::from(format!("/usr/share/java/netty-{part}.jar")));
    if let Some(missing) = library.iter().find(|part| !part.exists()) {
        skip(&format!("Netty is not installed (libnetty-java): there is no {}", missing.display()));
        return None;
    }
    java_server("NettyServer", &library)
}

/// A server on Tokio.
pub(crate) fn tokio() -> Fixture {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| example("fixture_tokio", "tests/fixtures/tokio_server.rs"));
    Fixture { command: vec![program.display().to_string()] }
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
        "php-workers" => php_workers("index.php"),
        "puma" => puma(),
        "gunicorn" => gunicorn("-k sync"),
        "gunicorn-threads" => gunicorn("-k gthread --threads 8"),
        "uvicorn" => uvicorn(),
        "nginx" => nginx("master_process off;"),
        "nginx-master" => nginx("worker_processes 2;"),
        "java" => java(),
        "netty" => netty(),
        "tokio" => Some(tokio()),
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
pub(crate) fn fixture_worker() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| example("fixture_worker", "tests/fixtures/worker.rs"))
}

/// The example of this name, built if its source is newer.
fn example(name: &str, source: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_clusterd")).parent().expect("a file has a folder");
    let program = folder.join("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    if modified(&program) < modified(&source) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
        match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") => {}
            profile => drop(cargo.args(["--profile", profile.expect("profiles have names")])),
        }
        run(&mut cargo);
    }
    program
}

/// The server of this name below tests/fixtures/java, from classes that are compiled once.
fn java_server(name: &str, library: &[PathBuf]) -> Option<Fixture> {
    static COMPILING: Mutex<()> = Mutex::new(());
    let (java, compiler) = (runtime("java")?, runtime("javac")?);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/java");
    let sources = [name, "Identity"].map(|name| folder.join(format!("{name}.java")));
    let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("java-{name}"));
    let path: Vec<String> =
        std::iter::once(&classes).chain(library).map(|part| part.display().to_string()).collect();
    let path = path.join(":");
    // Another test of this process may be compiling it.
    let compiling = COMPILING.lock().expect("nobody panics while compiling");
    let newest = sources.iter().map(|source| modified(source)).max();
    if Some(modified(&classes.join(format!("{name}.class")))) < newest {
        run(Command::new(compiler).arg("-d").arg(&classes).args(["-cp", &path]).args(sources));
    }
    drop(compiling);
    // A quick start, as small servers have it.
    let options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", "-cp"];
    let words = [&[java.to_str()?], &options[..], &[&path, name]].concat();
    Some(Fixture::new(&words))
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
