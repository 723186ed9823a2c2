//! Faults that no other file of tests injects: what a crash loop costs, a thousand workers, sockets that a
//! worker shuts down or changes, a file cut at every byte, a release that is pruned, and a supervisor that is
//! killed at any moment. README.md of this folder names the test of every other one.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::daemon::{Builder, cpu_ticks, exists, send};
use support::hammer::get;
use support::wait::{holds_for, try_until};
use support::{
    App, Daemon, Fixture, Hammer, Home, Load, ORDINARY, file, fixtures, free_port, root, wait_until,
};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

fn idle(name: &str) -> App {
    fork(name, &fixtures::worker(&["idle"]))
}

/// All bytes of the files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Fault 2: what a thousand of them cost.
#[test]
fn a_thousand_crashes_cost_little_time_and_few_bytes() {
    let broken = fork("broken", &Fixture::new(&["/bin/false"])).set("max_restarts", 0);
    let apps = [broken.text("exp_backoff_restart_delay", "0ms"), idle("bystander")];
    let daemon = Daemon::foreground(file(&apps));
    daemon.expects(&["broken"]);
    let steady = daemon.wait_online("bystander", 1);
    let restarts = || daemon.app("broken").workers[0].restarts;
    wait_until(ms(30_000), "the loop", || restarts() > 20);
    let (first, before) = (restarts(), cpu_ticks(daemon.pid).expect("it runs"));
    let (said, kept) = (daemon.log().len() + daemon.output().len(), bytes_below(&daemon.home.path()));
    let resident = daemon.resident();
    wait_until(ms(120_000), "a thousand restarts", || {
        let list = daemon.quickest(&["list"]);
        assert!(list.took < ms(1_000), "the loop keeps the owner waiting: {list:?}");
        restarts() >= first + 1_000
    });
    let used = cpu_ticks(daemon.pid).expect("it runs") - before;
    let counted = u64::from(restarts() - first);
    // Ticks are 10 ms. A debug build takes about 2 ms for each, the list among it.
    assert!(used * 10 < counted * 10, "{used} ticks for {counted} restarts");
    let said = daemon.log().len() + daemon.output().len() - said;
    assert!(said < 16 * 1024, "{said} bytes were said: {}", daemon.log());
    let kept = bytes_below(&daemon.home.path()).saturating_sub(kept);
    assert!(kept < 16 * 1024, "{kept} bytes were written below the home");
    assert!(daemon.resident().saturating_sub(resident) < 4 * 1024, "memory goes with the restarts");
    assert_eq!(daemon.wait_online("bystander", 1), steady, "another app was touched");
}

/// Fault 11: what serves goes on, and the one that cannot start is not tried without end.
#[test]
fn arguments_and_variables_that_are_too_long_fail_a_reload_and_no_worker() {
    let port = free_port();
    let home = Arc::new(Home::new(None));
    let app = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port);
    let app = app.set("max_restarts", 0);
    let daemon = Builder::new(&app).start_in(home);
    daemon.expects(&["(E2BIG)", "unstable exits in a row"]);
    let pids = daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(2).start();
    // More than one string may have (128 KiB).
    daemon.home.put("huge.env", &format!("HUGE={}\n", "x".repeat(200_000)));
    let variable = app.clone().text("env_file", "huge.env");
    let word = "y".repeat(140_000);
    let words = [word.as_str()];
    let arguments =
        app.clone().set("command", format!("{:?}", [&["./fixture_worker", "serve"], &words[..]].concat()));
    for (broken, named) in [(variable, "HUGE"), (arguments, "argument")] {
        daemon.home.write(&broken.to_string());
        let output = daemon.run(&["reload", "api"]);
        assert!(matches!(output.code, 1 | 2) && output.stderr.contains(named), "{named}: {}", output.stderr);
        assert!(output.stderr.len() < 8 * 1024, "{named}: {} bytes", output.stderr.len());
        assert_eq!(daemon.wait_online("api", 2), pids, "{named}");
    }
    hammer.stop().expect_none_lost();
    // Started anew there is nobody to go on, and it is not tried as fast as it fails.
    daemon.home.write(&app.text("env_file", "huge.env").to_string());
    daemon.run(&["restart", "api"]).expect_code(1).expect_stderr(&["HUGE"]);
    // The answer comes with the first that cannot start; the other old one may still be ending.
    wait_until(ms(10_000), "the old ones are gone", || {
        daemon.app("api").workers.iter().all(|worker| worker.pid.is_none())
    });
    let used = cpu_ticks(daemon.pid).expect("it runs");
    holds_for(ms(1_500), "no crash loop", || {
        daemon.app("api").workers.iter().all(|worker| worker.pid.is_none() && worker.unstable_restarts < 8)
    });
    assert!(cpu_ticks(daemon.pid).expect("it runs") - used < 60, "it is tried without end");
}

/// Fault 13.
///
/// However long a start waits behind others, nobody is late for it.
#[test]
fn a_thousand_workers_start_and_the_owner_is_answered_meanwhile() {
    let many = fork("many", &Fixture::new(&["/bin/sleep", "1000"])).set("instances", 1_000);
    let many = many.text("listen_timeout", "1s");
    let mut daemon = Builder::new(many).argument("--no-log-files").start();
    daemon.expects(&["did not end in kill_timeout"]);
    let (mut at_half, mut answers) = (None, Vec::new());
    let begin = std::time::Instant::now();
    wait_until(ms(120_000), "a thousand workers", || {
        let list = daemon.run(&["list", "--json"]).expect_code(0);
        answers.push(list.took);
        let online = list.stdout.matches("\"status\":\"online\"").count();
        if online >= 500 {
            at_half.get_or_insert(begin.elapsed());
        }
        if online >= 1_000 { Ok(()) } else { Err(online) }
    });
    let slow = answers.iter().filter(|took| **took > ms(1_500)).count();
    assert!(slow <= 2, "more than one turn keeps the owner waiting: {answers:?}");
    let (half, whole) = (at_half.expect("half of it comes first"), begin.elapsed());
    assert!(whole < 4 * half + ms(2_000), "the cost grows: half in {half:?}, all in {whole:?}");
    let workers = daemon.app("many").workers;
    assert!(workers.iter().all(|worker| worker.restarts == 0), "some had to be started again");
    let before = cpu_ticks(daemon.pid).expect("it runs");
    holds_for(ms(1_000), "all at rest", || exists(daemon.pid));
    let used = cpu_ticks(daemon.pid).expect("it runs") - before;
    assert!(used < 30, "{used} ticks of 10 ms in a second of rest");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(30_000)), 0);
    assert_eq!(daemon.home.processes().len(), 0);
}

/// Starts that were not begun are let go of: a stop in the middle of them begins none to end it.
#[test]
fn stop_in_the_middle_of_a_thousand_starts_begins_no_more() {
    let many = fork("many", &Fixture::new(&["/bin/sleep", "1000"])).set("instances", 1_000);
    let mut daemon = Builder::new(many).argument("--no-log-files").start();
    let online = || daemon.run(&["list", "--json"]).stdout.matches("\"status\":\"online\"").count();
    wait_until(ms(60_000), "the first of them", || if online() > 0 { Ok(()) } else { Err(0) });
    let stop = daemon.run(&["stop", "many"]).expect_code(0);
    // kill_timeout has not come for who never ran.
    assert!(!stop.stdout.contains("kill_timeout"), "{}", stop.stdout);
    let app = daemon.app("many");
    assert!(app.workers.iter().all(|worker| worker.pid.is_none() && worker.status == "stopped"));
    assert!(app.workers.iter().all(|worker| worker.unstable_restarts == 0 && worker.restarts == 0));
    // Who ran has an exit to show, and nobody else.
    let ran = app.workers.iter().filter(|worker| worker.last_exit.is_some()).count();
    assert!(ran < 900, "{ran} of 1000 were begun");
    // What was dropped can be started, and what is started so is dropped by a kill, too.
    daemon.run(&["start", "many", "--no-wait"]).expect_code(0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(30_000)), 0);
    assert_eq!(daemon.home.processes().len(), 0);
}

/// Asks one server for something, on a connection of its own.
fn ask(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ms(5_000)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    body.filter(|body| !body.is_empty())
        .ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))
}

/// Binds its port by itself and blocks in accept; /shutdown shuts that socket down, and so does SIGINT where
/// `GRACEFUL` is set, before the server ends.
const SHUTS_DOWN: &str = "import os, signal, socket, sys
if 'LISTEN_FDS' in os.environ:
    listener = socket.socket(fileno=3)
else:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(('0.0.0.0', int(os.environ['PORT'])))
    listener.listen(64)
def stop(*_):
    listener.shutdown(socket.SHUT_RDWR)
    sys.exit(0)
if 'GRACEFUL' in os.environ:
    signal.signal(signal.SIGINT, stop)
me = f\"{os.getpid()} {os.environ['CLUSTERD_GENERATION']} {os.environ['NODE_APP_INSTANCE']}\\n\".encode()
while True:
    try:
        client, _ = listener.accept()
    except OSError:
        continue
    head = client.recv(4096)
    if b'/shutdown' in head.split(b'\\r\\n')[0]:
        listener.shutdown(socket.SHUT_RDWR)
    client.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(me), me))
    client.close()
";

/// Each time a worker shuts its socket down, it is named and serves on; and steering points at whom it means.
fn shuts_its_own_socket_down(home: Home, app: App, port: u16) {
    let daemon = Builder::new(app.instances(3)).start_in(Arc::new(home));
    daemon.expects(&["called shutdown(2)"]);
    let pids = daemon.wait_online("api", 3);
    for round in 1..=4 {
        // Whoever answers has shut its socket down; its answer comes over a connection that was there.
        let culprit = ask(port, "/shutdown").expect("the connection was there before");
        let culprit: i32 = culprit.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a process id");
        assert!(pids.contains(&culprit), "{culprit} of {pids:?}");
        wait_until(ms(5_000), "the culprit in the log", || {
            let log = daemon.log();
            let told: Vec<&str> = log.lines().filter(|line| line.contains("called shutdown(2)")).collect();
            let named = told.last().is_some_and(|line| line.contains(&format!("pid {culprit}:")));
            if named && told.len() == round { Ok(()) } else { Err(format!("{told:?}")) }
        });
    }
    let hammer = Load::on(port).clients(4).start();
    hammer.wait_answers(200);
    let history = hammer.stop();
    history.expect_none_lost();
    assert_eq!(history.by_pid().len(), 3, "{history:?}");
    // Old workers get nobody new, and lose nobody.
    let hammer = Load::on(port).clients(4).start();
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.wait_answers(50);
    hammer.stop().expect_none_lost();
    assert!(daemon.wait_online("api", 3).iter().all(|pid| !pids.contains(pid)));
}

/// Fault 37, of a worker's own socket, which it was handed or has opened by itself.
#[test]
fn a_worker_that_shuts_its_own_socket_down_is_named_and_costs_no_later_request() {
    let (Some(handed), Some(own)) =
        (fixtures::python("handed_asyncio.py"), fixtures::python("shuts_down.py"))
    else {
        return;
    };
    let (first, second) = (free_port(), free_port());
    shuts_its_own_socket_down(Home::new(None), App::new("api", &handed).listen(first), first);
    let home = Home::new(None);
    home.put("shuts_down.py", SHUTS_DOWN);
    shuts_its_own_socket_down(home, App::new("api", &own).port(second), second);
}

/// Fault 37: a server that ends so when it is told to is not blamed for it.
#[test]
fn a_worker_that_shuts_its_socket_down_at_its_end_is_not_blamed() {
    let Some(python) = fixtures::python("shuts_down.py") else { return };
    let (home, port) = (Home::new(None), free_port());
    home.put("shuts_down.py", SHUTS_DOWN);
    let app = App::new("api", &python).instances(3).port(port).env("GRACEFUL", 1);
    let daemon = Builder::new(app).start_in(Arc::new(home));
    daemon.wait_online("api", 3);
    let hammer = Load::on(port).clients(4).start();
    for _ in 0..3 {
        daemon.run(&["reload", "api"]).expect_code(0);
    }
    let history = hammer.stop();
    let log = daemon.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    history.expect_none_lost();
}

/// Fault 37: what one shut down at its end is not handed to its successor.
#[test]
fn a_declared_socket_that_was_shut_down_at_the_end_is_opened_anew() {
    let Some(python) = fixtures::python("shuts_down.py") else { return };
    let (home, port) = (Home::new(None), free_port());
    home.put("shuts_down.py", SHUTS_DOWN);
    let app = App::new("api", &python).instances(2).listen(port).env("GRACEFUL", 1);
    let daemon = Builder::new(app).start_in(Arc::new(home));
    let before = daemon.wait_online("api", 2);
    let first = daemon.app("api").workers[0].id.to_string();
    daemon.run(&["restart", &first]).expect_code(0);
    let after = daemon.wait_online("api", 2);
    assert!(before[0] != after[0] && before[1] == after[1], "{before:?}, {after:?}");
    // Steering points at whom it means: with the other one gone the new one has all.
    let hammer = Load::on(port).clients(4).start();
    hammer.wait_answers(20);
    daemon.run(&["scale", "api", "1"]).expect_code(0);
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.stop().expect_none_lost();
}

/// A supervisor that was started with one socket of the host's, as systemd does it.
fn activated(home: Home, socket: &str, app: App) -> Option<Daemon> {
    let python = support::runtime("python3")?;
    let launcher = format!(
        "import os, socket, sys\ns = {socket}\nos.dup2(s.fileno(), 100)\nos.dup2(100, 3, inheritable=True)\n\
         os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='http')\n\
         os.execv(sys.argv[1], sys.argv[1:])\n"
    );
    home.put("activate.py", &launcher);
    let wrap = [python.display().to_string(), home.apps().join("activate.py").display().to_string()];
    let wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
    Some(Builder::new(app).wrap(&wrap).start_in(Arc::new(home)))
}

/// The line that names who shut a shared socket down.
fn culprit(daemon: &Daemon) -> String {
    daemon.wait_for_text("called shutdown(2)");
    let log = daemon.log();
    log.lines().find(|line| line.contains("called shutdown(2)")).expect("it was just there").to_owned()
}

/// Fault 37, of a socket that the host made and all share.
#[test]
fn a_worker_that_shuts_the_hosts_tcp_socket_down_is_named_and_healed() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let port = free_port();
    let app = App::new("api", &fixture).instances(1).set("listen", format!("[\"127.0.0.1:{port}\"]"));
    let socket = format!("socket.create_server(('127.0.0.1', {port}))");
    let Some(daemon) = activated(Home::new(None), &socket, app) else { return };
    daemon.expects(&["called shutdown(2)"]);
    let pid = daemon.wait_online("api", 1)[0];
    // Its answer may still come.
    drop(ask(port, "/shutdown"));
    let told = culprit(&daemon);
    assert!(told.contains(&format!("pid {pid}")) && told.contains("listens on it again"), "{told}");
    let answer = wait_until(ms(20_000), "it serves again", || ask(port, "/"));
    assert!(answer.starts_with(&format!("{pid} ")), "nobody has to be replaced for it: {answer}");
}

/// Fault 37, of one that cannot be healed: it is said what can be done, and nothing is tried without end.
#[test]
fn a_worker_that_shuts_the_hosts_unix_socket_down_is_named_with_the_remedy() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let home = Home::new(None);
    let path = home.apps().join("api.sock");
    let app = App::new("api", &fixture).instances(1).set("listen", format!("[\"unix:{}\"]", path.display()));
    let socket = format!("socket.create_server({:?}, family=socket.AF_UNIX)", path.display().to_string());
    let Some(daemon) = activated(home, &socket, app) else { return };
    daemon.expects(&["called shutdown(2)"]);
    let pids = daemon.wait_online("api", 1);
    let mut client = std::os::unix::net::UnixStream::connect(&path).expect("the host listens");
    client.write_all(b"GET /shutdown HTTP/1.1\r\nHost: a\r\n\r\n").expect("there is room");
    let told = culprit(&daemon);
    assert!(told.contains(&format!("pid {}", pids[0])) && told.contains("restart the unit"), "{told}");
    // Long enough for a second look.
    holds_for(ms(2_500), "it is told once, and nobody is replaced in vain", || {
        daemon.log().matches("called shutdown(2)").count() == 1 && daemon.pids("api") == pids
    });
}

/// Fault 38, of a slot's own socket: what one worker made of it is not what the next one gets.
#[test]
fn a_flag_that_a_worker_left_on_its_socket_is_not_its_successors() {
    // Blocks in accept, as it may expect of a socket that it is handed; without waiting it would end.
    let Some(python) = fixtures::python("blocking_fd.py") else { return };
    let port = free_port();
    let app = App::new("api", &python).instances(1).listen(port).set("max_restarts", 0);
    let daemon = Daemon::foreground(app);
    daemon.expects(&["was ended by SIGKILL"]);
    let first = daemon.wait_online("api", 1)[0];
    assert!(ask(port, "/flip").expect("served").starts_with(&format!("{first} blocking plain")));
    send(first, Signal::SIGKILL);
    let second = wait_until(ms(10_000), "its successor", || {
        daemon.pids("api").first().copied().filter(|pid| *pid != first)
    });
    let answer = ask(port, "/").expect("served");
    assert!(answer.starts_with(&format!("{second} blocking plain")), "{answer}");
    let log = daemon.log();
    assert!(
        log.contains("its last worker set SO_KEEPALIVE on the socket; the next one gets it without"),
        "{log}"
    );
}

/// Fault 55, by every way there is to cut a file, and the real supervisor.
#[test]
fn a_file_cut_at_any_byte_is_refused_with_its_place_and_touches_nothing() {
    let port = free_port();
    // What it cannot do without comes last, so that no beginning of it is a file.
    let good = format!(
        "# é\n[[apps]]\nname = \"api\"\ninstances = 2\nmin_healthy_time = \"50ms\"\n\
         env = {{ PORT = \"{port}\", TEXT = \"\"\"\nlong\"\"\" }}\ncommand = [\"./fixture_worker\", \"serve\"]"
    );
    let daemon = Daemon::foreground(&good);
    let before = daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(2).start();
    for cut in 0..good.len() {
        // As an editor that writes in place, or a copy that is not done: not as a whole.
        fs::write(daemon.home.file(), &good.as_bytes()[..cut]).expect("it is ours");
        let output = daemon.run(&["reload", "api"]);
        let place = output.stderr.contains("ecosystem.toml");
        assert!(output.code == 2 && place, "cut at {cut}: {output:#?}");
        let at_line_and_column = output.stderr.split("ecosystem.toml:").skip(1).any(|rest| {
            let number = |part: &str| part.chars().take_while(char::is_ascii_digit).count() > 0;
            let mut parts = rest.split(':');
            parts.next().is_some_and(number) && parts.next().is_some_and(number)
        });
        // Before the first table there is nothing to point to.
        let has_place = at_line_and_column || cut < "# é\n[[apps".len();
        assert!(has_place, "cut at {cut}, no line and column: {output:#?}");
    }
    let app = daemon.app("api");
    assert_eq!((app.generation, app.reload), (1, None));
    assert_eq!(daemon.wait_online("api", 2), before);
    daemon.home.write(&good);
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.stop().expect_none_lost();
}

/// Fault 60.
#[test]
fn a_release_that_is_pruned_stops_nobody_and_is_named_when_it_is_wanted() {
    let port = free_port();
    let home = Arc::new(Home::new(None));
    let release = home.apps().join("release");
    let deploy = |home: &Home| {
        fs::create_dir(&release).expect("it is not there");
        // Nothing is written: a program that is being written does not run, and the supervisor may try at any moment.
        fs::hard_link(home.apps().join("fixture_worker"), release.join("server")).expect("it was staged");
    };
    deploy(&home);
    let serve = Fixture::new(&["./server", "serve"]);
    let app = App::new("api", &serve).instances(2).port(port).text("cwd", "release").set("max_restarts", 0);
    let daemon = Builder::new(app).start_in(home);
    daemon.expects(&[
        "could not be started: cwd",
        "reload to generation 2 failed",
        "was ended by SIGKILL",
        "unstable exits in a row",
    ]);
    let pids = daemon.wait_online("api", 2);
    let cwd = fs::read_link(format!("/proc/{}/cwd", daemon.pid)).expect("it runs");
    assert_eq!(cwd, Path::new("/"), "the supervisor keeps a folder from being removed");
    let hammer = Hammer::start(port);
    fs::remove_dir_all(&release).expect("it is ours");
    let said = daemon.run(&["reload", "api"]).expect_code(1);
    said.expect_stderr(&["release", "ENOENT"]);
    assert_eq!(daemon.wait_online("api", 2), pids, "the reload touched what serves");
    hammer.wait_answers(50);
    hammer.stop().expect_none_lost();
    // One is lost, and cannot be replaced: the other one serves, and whoever looks is told why.
    send(pids[1], Signal::SIGKILL);
    let message = wait_until(ms(10_000), "why it is not replaced", || {
        let worker = daemon.app("api").workers.remove(1);
        worker.last_exit.filter(|exit| exit.reason == "spawn").and_then(|exit| exit.message)
    });
    assert!(message.contains("release"), "{message}");
    assert_eq!(daemon.pids("api"), [pids[0]]);
    assert_eq!(get(port, "/").expect("an answer").0, 200);
    deploy(&daemon.home);
    daemon.wait_online("api", 2);
}

/// Fault 72, at any moment: during a start, a reload, a scale, a stop, or at rest.
#[test]
fn a_supervisor_killed_at_any_moment_leaves_nobody_beside_the_next_one() {
    let port = free_port();
    let mut app = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port);
    if root() {
        // A change of user clears what ties a process to its parent's life.
        app = app.set("user", ORDINARY);
    }
    let mut home = Arc::new(Home::new(None));
    let doing: [&[&str]; 6] =
        [&[], &["reload", "api"], &["restart", "api"], &["scale", "api", "+2"], &["stop", "api"], &[]];
    for (round, words) in doing.into_iter().cycle().take(18).enumerate() {
        let daemon = Builder::new(&app).start_in(home);
        let running = (round % 6 != 5).then(|| {
            daemon.wait_online("api", 2);
            daemon.spawn(words_or(words))
        });
        // Some moment: nothing is waited for.
        let moment = ms(fastrand::u64(0..250));
        let _ = try_until(moment, || false);
        let served: Vec<i32> = daemon.workers().iter().map(|process| process.pid).collect();
        home = daemon.kill_hard();
        if let Some(running) = running {
            home.finish(running);
        }
        wait_until(ms(5_000), &format!("nobody of {served:?}, {words:?} for {moment:?}"), || {
            let left = home.processes();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
    // The last one to come finds nothing in its way: neither lock nor socket nor port.
    let daemon = Builder::new(&app).start_in(home);
    let pids = daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    hammer.wait_answers(50);
    let history = hammer.stop();
    history.expect_none_lost();
    assert!(history.by_pid().keys().all(|pid| pids.contains(pid)), "{history:?}");
}

/// A command in any case: what asks for nothing is `ping`.
fn words_or<'a>(words: &'a [&'a str]) -> &'a [&'a str] {
    if words.is_empty() { &["ping"] } else { words }
}

/// Fault 88: the host's notify socket is not there, not a socket, or has no room.
#[test]
fn a_host_that_does_not_listen_to_notifications_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = folder.path().join("full.sock");
    let deaf = UnixDatagram::bind(&full).expect("the folder is fresh");
    let sender = UnixDatagram::unbound().expect("descriptors are left");
    sender.set_nonblocking(true).expect("it is ours");
    while sender.send_to(b"STATUS=taking all the room", &full).is_ok() {}
    let plain = folder.path().join("file");
    fs::write(&plain, "").expect("the folder is fresh");
    let missing = folder.path().join("missing.sock");
    for (path, warns) in [(&full, false), (&plain, true), (&missing, true)] {
        let port = free_port();
        let app = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port);
        let mut daemon = Builder::new(app).env("NOTIFY_SOCKET", &path.display().to_string()).start();
        if warns {
            daemon.expects(&["the service manager cannot be told"]);
        }
        daemon.wait_online("api", 2);
        let hammer = Load::on(port).clients(2).start();
        let reload = daemon.run(&["reload", "api"]).expect_code(0);
        assert!(reload.took < ms(20_000), "{reload:?}");
        hammer.stop().expect_none_lost();
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait_exit(ms(15_000)), 0, "{}", path.display());
        assert_eq!(daemon.home.processes(), []);
    }
    drop(deaf);
}

/// Faults 7, 10 and 12: what can be known from the file alone is refused with its place, and nothing of the file
/// is started, nor anything that runs touched.
#[test]
fn what_no_process_can_be_given_is_refused_before_anything_starts() {
    let daemon = Daemon::foreground(idle("api"));
    let pids = daemon.wait_online("api", 1);
    let circle = [
        idle("one").set("depends_on", "[\"two\"]"),
        idle("two").set("depends_on", "[\"three\"]"),
        idle("three").set("depends_on", "[\"one\"]"),
    ];
    let wrong = [
        (file(&circle), ["depends_on", "one"]),
        (file(&[idle("fine"), idle("bad").text("user", "")]), ["user", "bad"]),
        (file(&[idle("fine"), idle("bad").env("A", "NUL")]).replace("NUL", "\\u0000"), ["env.A", "NUL"]),
        (file(&[idle("fine"), idle("bad").set("command", "[\"a\", \"b\\u0000\"]")]), ["command", "NUL"]),
    ];
    for (text, says) in wrong {
        daemon.home.put("wrong.toml", &text);
        let output = daemon.run(&["start", "wrong.toml"]).expect_code(2).expect_stderr(&says);
        assert!(output.stderr.contains("wrong.toml:"), "{output:?}");
        assert!(output.took < ms(3_000), "{output:?}");
        let names: Vec<String> = daemon.list().apps.into_iter().map(|app| app.name).collect();
        assert_eq!(names, ["api"], "{says:?}");
        assert_eq!(daemon.wait_online("api", 1), pids);
    }
}

/// Fault 3, in a reload: the old generation serves until the new one had its time, and after.
#[test]
fn a_boot_that_takes_too_long_fails_a_reload_by_the_name_of_its_limit() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = App::new("api", &node).instances(2).port(port).text("listen_timeout", "900ms");
    let daemon = Daemon::foreground(&app);
    daemon.expects(&["reload to generation 2 failed"]);
    let pids = daemon.wait_online("api", 2);
    let hammer = Load::on(port).clients(2).start();
    daemon.home.write(&app.clone().env("BOOT_MS", 30_000).to_string());
    let late = daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["api", "listen_timeout"]);
    assert!(late.took < ms(15_000), "{late:?}");
    assert_eq!(daemon.wait_online("api", 2), pids);
    daemon.home.write(&app.env("BOOT_MS", 30).text("listen_timeout", "20s").to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.stop().expect_none_lost();
}
