//! Sockets that all workers of an app share: Unix sockets, and those of the host.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::daemon::Builder;
use support::history::Outcome;
use support::{App, Daemon, Fixture, Hammer, Home, Load, ORDINARY, fixtures, free_port, users, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A home, and the path of a socket in its apps' folder.
fn place(user: Option<u32>) -> (Arc<Home>, PathBuf) {
    let home = Arc::new(Home::new(user));
    let path = home.apps().join("api.sock");
    (home, path)
}

fn on_unix(app: App, path: &Path) -> App {
    app.set("listen", format!("[\"unix:{}\"]", path.display()))
}

/// The body of an answer.
fn ask(stream: &mut (impl Read + Write), path: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned());
    body.filter(|body| !body.is_empty())
        .ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))
}

fn ask_unix(path: &Path, what: &str) -> std::io::Result<String> {
    ask(&mut UnixStream::connect(path)?, what)
}

/// Every worker is replaced twice under load.
fn reload_loses_nothing(fixture: &Fixture, user: Option<u32>, load: impl FnOnce(Load) -> Load) {
    let (home, path) = place(user);
    let app = on_unix(App::new("api", fixture).instances(3).delay(10), &path).text("drain_timeout", "10s");
    let daemon = Builder::new(app).user(user).start_in(home);
    let first = daemon.wait_online("api", 3);
    let hammer = load(Load::on_unix(&path)).start();
    for _ in 0..2 {
        daemon.run(&["reload", "api"]).expect_code(0);
        hammer.wait_answers(20);
    }
    let last = daemon.wait_online("api", 3);
    assert!(last.iter().all(|pid| !first.contains(pid)), "{first:?} {last:?}");
    let history = hammer.stop();
    history.expect_none_lost();
    assert!(history.count(Outcome::Ok) > 60);
    assert!(!daemon.log().contains("cannot be kept from the queue"), "{}", daemon.log());
}

#[test]
fn reload_of_node_on_a_unix_socket_loses_nothing() {
    let Some(fixture) = fixtures::node("listen_fd.js") else { return };
    for user in users() {
        reload_loses_nothing(&fixture, user, |load| load);
    }
}

#[test]
fn reload_of_asyncio_on_a_unix_socket_loses_nothing() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    reload_loses_nothing(&fixture, None, |load| load);
}

#[test]
fn reload_of_go_on_a_unix_socket_loses_nothing() {
    let Some(fixture) = fixtures::go() else { return };
    reload_loses_nothing(&fixture, None, |load| load);
}

#[test]
fn reload_on_a_unix_socket_with_few_clients_loses_nothing() {
    let Some(fixture) = fixtures::node("listen_fd.js") else { return };
    reload_loses_nothing(&fixture, None, |load| load.clients(1));
}

#[test]
fn a_unix_socket_is_spread_and_goes_with_its_app() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let table = format!("[{{ address = \"unix:{}\", mode = \"0620\", backlog = 64 }}]", path.display());
    let app = App::new("api", &fixture).instances(2).set("listen", table);
    let daemon = Builder::new(app).start_in(home);
    let pids = daemon.wait_online("api", 2);
    let file = fs::symlink_metadata(&path).expect("it listens");
    assert!(file.file_type().is_socket());
    assert_eq!(file.mode() & 0o7777, 0o620);
    assert_eq!(daemon.app("api").listen, [format!("unix:{}", path.display())]);
    for pid in pids {
        wait_until(SOON, &format!("an answer of {pid}"), || {
            ask_unix(&path, "/").expect("served").starts_with(&format!("{pid} "))
        });
    }
    // The socket stays through a restart's gap as a file of its own, and goes when nobody is to come.
    daemon.run(&["restart", "api"]).expect_code(0);
    daemon.wait_online("api", 2);
    ask_unix(&path, "/").expect("served");
    daemon.run(&["stop", "api"]).expect_code(0);
    assert!(!path.exists(), "the file outlives its app");
    daemon.run(&["start", "api"]).expect_code(0);
    ask_unix(&path, "/").expect("served");
    daemon.run(&["delete", "api"]).expect_code(0);
    assert!(!path.exists(), "the file outlives its app");
}

/// A server that leaves the declared address alone is not ready because it listens on that port elsewhere.
#[test]
fn a_declared_port_on_another_address_is_not_the_declared_one() {
    for (declared, bound, is_it) in
        [("127.0.0.1", "127.0.0.2", false), ("127.0.0.1", "127.0.0.1", true), ("0.0.0.0", "127.0.0.2", true)]
    {
        let port = free_port();
        let app = App::new("api", &fixtures::worker(&["serve", "on", bound]));
        let app = app.port(port).text("listen", &format!("{declared}:{port}")).instances(2);
        let daemon = Daemon::foreground(app.text("listen_timeout", "3s").text("drain_timeout", "1s"));
        if is_it {
            let pids = daemon.wait_online("api", 2);
            assert_eq!(pids.len(), 2, "{declared} {bound}");
        } else {
            // One of the two has the port to itself, and the other has none.
            daemon.expects(&[
                "was not ready",
                "not ready in",
                "start failed",
                "given up",
                "no app can run any more",
            ]);
            daemon.expects(&["exited with code 1", "unstable exits"]);
            wait_until(Duration::from_secs(20), "a start that failed", || {
                daemon.log().contains("listen_timeout")
            });
        }
    }
}

/// The closest address gets a client, and the socket there is one that nobody takes from.
#[test]
fn a_server_that_listens_wider_than_the_file_says_answers_by_every_address_and_reloads_without_loss() {
    let (Some(node), Some(python)) = (fixtures::node("server.js"), fixtures::python("asyncio_server.py"))
    else {
        return;
    };
    let has_six = TcpListener::bind("[::1]:0").is_ok();
    for (declared, fixture, families) in
        [("0.0.0.0:", &node, ""), ("127.0.0.1:", &node, ""), ("[::]:", &node, ""), (":", &python, "both")]
    {
        let port = free_port();
        let app = App::new("api", fixture).port(port).env("FAMILIES", families).instances(2);
        let app = app.text("listen", &format!("{declared}{port}")).text("min_healthy_time", "200ms");
        let daemon = Daemon::foreground(app.text("drain_timeout", "5s"));
        daemon.expects(&["by itself and does not take the socket that it was handed"]);
        daemon.wait_online("api", 2);
        let answers = |when: &str| {
            for ip in ["127.0.0.1", "::1"].into_iter().filter(|ip| has_six || *ip == "127.0.0.1") {
                for _ in 0..6 {
                    let mut stream = TcpStream::connect((ip, port)).expect("it comes in");
                    stream.set_read_timeout(Some(SOON)).expect("a timeout");
                    ask(&mut stream, "/").unwrap_or_else(|e| panic!("{declared} by {ip} {when}: {e}"));
                }
            }
        };
        answers("at first");
        let hammer = Hammer::start(port);
        hammer.wait_answers(20);
        daemon.run(&["reload", "api"]).expect_code(0);
        hammer.wait_answers(20);
        let history = hammer.stop();
        history.expect_none_lost();
        answers("after a reload");
    }
}

/// Declaring a port that a server already has is no reason to take it from its clients.
#[test]
fn a_reload_that_declares_less_than_the_server_listens_on_loses_nothing() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let home = Arc::new(Home::new(None));
    let app = App::new("api", &node).port(port).instances(2).text("min_healthy_time", "200ms");
    let app = app.text("drain_timeout", "5s").env("BOOT_MS", 300);
    let daemon = Builder::new(app.clone()).start_in(Arc::clone(&home));
    daemon.expects(&["by itself and does not take the socket that it was handed"]);
    daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    hammer.wait_answers(20);
    home.write(&app.text("listen", &format!("0.0.0.0:{port}")).to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.wait_answers(50);
    let history = hammer.stop();
    history.expect_none_lost();
}

/// The way that a server goes which is told to take what it is handed.
#[test]
fn a_version_that_takes_what_it_is_handed_follows_one_that_listened_wider_without_loss() {
    let (Some(wide), Some(handed)) = (fixtures::node("server.js"), fixtures::node("listen_fd.js")) else {
        return;
    };
    let port = free_port();
    let home = Arc::new(Home::new(None));
    let of = |fixture: &Fixture| {
        let app = App::new("api", fixture).port(port).instances(2).text("min_healthy_time", "200ms");
        app.text("drain_timeout", "5s").text("ready", "exec").text("min_uptime", "500ms")
    };
    let daemon = Builder::new(of(&wide)).start_in(Arc::clone(&home));
    let old = daemon.wait_online("api", 2);
    let hammer = Hammer::start(port);
    hammer.wait_answers(20);
    home.write(&of(&handed).text("listen", &format!("0.0.0.0:{port}")).to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.wait_answers(50);
    let history = hammer.stop();
    history.expect_none_lost();
    assert!(
        daemon
            .wait_online("api", 2)
            .iter()
            .all(|pid| !old.contains(pid) && history.by_pid().contains_key(pid))
    );
}

#[test]
fn clients_wait_in_a_unix_socket_while_its_worker_is_replaced() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture), &path).instances(1);
    let daemon = Builder::new(app).start_in(home);
    daemon.expects(&["was ended by SIGKILL"]);
    let pid = daemon.wait_online("api", 1)[0];
    let inode = fs::metadata(&path).expect("it listens").ino();
    support::daemon::send(pid, nix::sys::signal::Signal::SIGKILL);
    let answer = ask_unix(&path, "/").expect("the next worker takes the queue over");
    assert!(!answer.starts_with(&format!("{pid} ")), "{answer}");
    assert_eq!(fs::metadata(&path).expect("it listens").ino(), inode);
}

#[test]
fn the_owner_of_a_unix_socket_is_whom_the_file_names() {
    if !support::root() {
        return support::skip("only root gives files away");
    }
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let table = format!("{{ address = \"unix:{}\", user = \"nobody\", group = 7 }}", path.display());
    let daemon = Builder::new(App::new("api", &fixture).set("listen", table)).start_in(home);
    daemon.wait_online("api", 1);
    let file = fs::metadata(&path).expect("it listens");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (65534, 7, 0o660));
}

#[test]
fn only_a_dead_servers_socket_is_replaced() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    drop(UnixListener::bind(&path).expect("free"));
    assert!(path.exists());
    let live = path.with_file_name("live.sock");
    let server = UnixListener::bind(&live).expect("free");
    let file = path.with_file_name("file.sock");
    fs::write(&file, "precious").expect("free");
    let missing = home.apps().join("none/api.sock");
    let on = |name: &str, path: &Path| on_unix(App::new(name, &fixture), path).set("max_restarts", 1);
    let apps = [on("stale", &path), on("live", &live), on("file", &file), on("missing", &missing)];
    let daemon = Builder::new(support::file(&apps)).start_in(home);
    daemon.expects(&[
        "live.sock is in use",
        "file.sock: a file is there",
        "none/api.sock: its folder does not exist",
        "unstable exits in a row",
    ]);
    daemon.wait_online("stale", 1);
    ask_unix(&path, "/").expect("served");
    let why = |name: &str| {
        let workers = daemon.wait_status(name, "errored").workers;
        workers[0].last_exit.clone().and_then(|exit| exit.message).expect("it says why")
    };
    let in_use = why("live");
    assert!(in_use.contains(&format!("is in use by pid {}", std::process::id())), "{in_use}");
    assert!(why("file").contains("no socket"), "{}", why("file"));
    assert!(why("missing").contains("its folder does not exist"), "{}", why("missing"));
    assert_eq!(fs::read_to_string(&file).expect("untouched"), "precious");
    server.set_nonblocking(true).expect("ours");
    UnixStream::connect(&live).expect("untouched");
}

/// Fault 44.
#[test]
fn a_unix_path_that_somebody_removed_is_made_anew() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture).instances(2), &path);
    let daemon = Builder::new(app).start_in(home);
    daemon.expects(&["somebody removed or replaced the path"]);
    daemon.wait_online("api", 2);
    fs::remove_file(&path).expect("it is there");
    wait_until(SOON, "the path is served again", || ask_unix(&path, "/"));
    daemon.wait_for_text("somebody removed or replaced the path");
    // All are moved onto it, and the app is left in peace then.
    wait_until(SOON, "the reload is over", || {
        let app = daemon.try_app("api")?;
        let done = app.reload.is_none() && app.generation == 2 && daemon.online("api").len() == 2;
        if done { Ok(()) } else { Err(format!("{app:?}")) }
    });
}

#[test]
fn a_worker_that_shuts_the_shared_socket_down_is_named_and_healed() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let daemon = Builder::new(on_unix(App::new("api", &fixture).instances(1), &path)).start_in(home);
    daemon.expects(&["called shutdown(2)"]);
    let pid = daemon.wait_online("api", 1)[0];
    // Its answer may still come.
    drop(ask_unix(&path, "/shutdown"));
    wait_until(SOON, "somebody serves again", || ask_unix(&path, "/"));
    let log = daemon.log();
    let told = log.lines().find(|line| line.contains("called shutdown(2)")).expect("it is told");
    assert!(told.contains(&format!("api/0 generation 1 pid {pid}")), "{told}");
}

/// Each generation has a socket of its own from then on: one that fails costs nobody the path.
#[test]
fn after_a_shut_down_a_reload_that_fails_leaves_the_old_workers_at_the_path() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture).instances(2), &path).text("listen_timeout", "2s");
    let daemon = Builder::new(&app).start_in(home);
    daemon.expects(&["called shutdown(2)", "reload to generation", "exited with code 1", "was not ready"]);
    daemon.wait_online("api", 2);
    drop(ask_unix(&path, "/shutdown"));
    wait_until(SOON, "all are moved onto a new socket", || {
        let app = daemon.try_app("api")?;
        let done = app.reload.is_none() && app.generation == 2 && daemon.online("api").len() == 2;
        if done { ask_unix(&path, "/").map_err(|e| e.to_string()) } else { Err(format!("{app:?}")) }
    });
    // One that never listens, one of which the first instance serves, and one that cannot even be started.
    for (name, value) in [("START_MS", "60000"), ("FAILS", "1"), ("FAILS", "0")] {
        daemon.home.write(&app.clone().env(name, value).to_string());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    ask_unix(&path, "/").unwrap_or_else(|error| panic!("{name}={value}: {error}"));
                }
            });
            let reload = daemon.run(&["reload", "api"]);
            over.store(true, Ordering::Relaxed);
            reload.expect_code(1);
        });
        wait_until(SOON, "the old generation alone serves", || {
            let answer = ask_unix(&path, "/").unwrap_or_else(|error| panic!("{name}={value}: {error}"));
            let is_old = answer.split(' ').nth(1) == Some("2") && daemon.online("api").len() == 2;
            if is_old { Ok(()) } else { Err(answer) }
        });
    }
    daemon.home.write(&app.to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    let answer = ask_unix(&path, "/").expect("the new ones serve");
    assert!(daemon.pids("api").iter().any(|pid| answer.starts_with(&format!("{pid} "))), "{answer}");
    let left = fs::read_dir(path.parent().expect("a folder")).expect("there");
    let hidden =
        left.filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with(".api")));
    assert_eq!(hidden.count(), 0, "a file stays beside the path");
}

/// The old ones, whose socket is alive beside the path, have it at once.
#[test]
fn clients_find_the_old_workers_when_a_new_one_shuts_its_socket_down() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture).instances(2), &path).text("on_reload_failure", "hold");
    let daemon = Builder::new(&app).start_in(home);
    daemon.expects(&["called shutdown(2)", "reload to generation", "exited with code 1"]);
    daemon.wait_online("api", 2);
    drop(ask_unix(&path, "/shutdown"));
    wait_until(SOON, "all are moved onto a new socket", || {
        let app = daemon.try_app("api")?;
        let done = app.reload.is_none() && app.generation == 2 && daemon.online("api").len() == 2;
        if done { ask_unix(&path, "/").map_err(|e| e.to_string()) } else { Err(format!("{app:?}")) }
    });
    // Of the next generation one serves, beside one of the old: the second fails when the first has taken its
    // place for long.
    daemon.home.write(&app.env("START_MS", "2000").env("FAILS", "1").to_string());
    daemon.run(&["reload", "api"]).expect_code(1);
    let serves = |generation: &str| {
        let answer = ask_unix(&path, "/").map_err(|error| error.to_string())?;
        if answer.split(' ').nth(1) == Some(generation) { Ok(()) } else { Err(answer) }
    };
    wait_until(SOON, "the new one is at the path", || serves("3"));
    drop(ask_unix(&path, "/shutdown"));
    // Sooner than any that is started for that.
    let answer = wait_until(SOON, "somebody serves", || ask_unix(&path, "/"));
    assert_eq!(answer.split(' ').nth(1), Some("2"), "{answer}");
}

#[test]
fn a_flag_that_one_worker_changes_for_all_is_set_back() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let daemon = Builder::new(on_unix(App::new("api", &fixture).instances(2), &path)).start_in(home);
    daemon.expects(&["made the shared socket blocking"]);
    let pids = daemon.wait_online("api", 2);
    ask_unix(&path, "/flip").expect("served");
    daemon.wait_for_text("made the shared socket blocking, for all workers; it is non-blocking again");
    for _ in 0..20 {
        ask_unix(&path, "/").expect("nobody hangs in accept");
    }
    assert_eq!(daemon.pids("api"), pids);
}

#[test]
fn named_sockets_keep_their_order_and_kinds() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let (first, second) = (free_port(), free_port());
    let listen = format!(
        "[{{ name = \"http\", address = \"127.0.0.1:{first}\" }}, {{ name = \"admin\", address = \
         \"unix:{}\" }}, {{ name = \"more\", address = \"unix:@cd-{second}\" }}, \
         {{ name = \"last\", address = \":{second}\" }}]",
        path.display()
    );
    let app = App::new("api", &fixture).instances(2).set("listen", listen);
    let daemon = Builder::new(app).start_in(home);
    let names = || {
        let tcp = |port| ask(&mut TcpStream::connect(("127.0.0.1", port))?, "/name");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(format!("cd-{second}"))?;
        let mut hidden = UnixStream::connect_addr(&address)?;
        Ok::<_, std::io::Error>([
            tcp(first)?,
            ask_unix(&path, "/name")?,
            ask(&mut hidden, "/name")?,
            tcp(second)?,
        ])
    };
    daemon.wait_online("api", 2);
    assert_eq!(names().expect("all are served"), ["http", "admin", "more", "last"]);
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.wait_online("api", 2);
    assert_eq!(names().expect("all are served"), ["http", "admin", "more", "last"]);
}

/// Starts a supervisor as systemd does: with sockets from descriptor 3 on, and LISTEN_PID.
fn activated(home: &Home, names: &str, sockets: &str, app: App) -> Daemon {
    let script = format!(
        "import os, socket, sys\n\
         def unix(path):\n    s = socket.socket(socket.AF_UNIX)\n    s.bind(path)\n    s.listen()\n    return s\n\
         held = [{sockets}]\n\
         for i, s in enumerate(held):\n    os.dup2(s.fileno(), 100 + i)\n\
         for i in range(len(held)):\n    os.dup2(100 + i, 3 + i, inheritable=True)\n\
         os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(held)), LISTEN_FDNAMES={names:?})\n\
         os.execv(sys.argv[1], sys.argv[1:])\n"
    );
    home.put("activate.py", &script);
    let python = support::runtime("python3").expect("the caller has looked");
    let launcher = home.apps().join("activate.py");
    let wrap = [python.display().to_string(), launcher.display().to_string()];
    let words: Vec<&str> = wrap.iter().map(String::as_str).collect();
    Builder::new(app).wrap(&words).start_in(Arc::new(Home::new(None)))
}

#[test]
fn sockets_of_the_host_are_used_by_address_and_by_name() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let (port, unused) = (free_port(), free_port());
    let tcp = |port| format!("socket.create_server(('127.0.0.1', {port}))");
    let unix = format!("unix({:?})", path.display().to_string());
    let sockets = format!("{}, {unix}, {}", tcp(port), tcp(unused));
    let listen =
        format!("[\"127.0.0.1:{port}\", {{ name = \"admin\", address = \"unix:/nowhere/admin.sock\" }}]");
    let app = App::new("api", &fixture).instances(2).delay(10).set("listen", listen);
    let daemon = activated(&home, "http:admin:spare", &sockets, app);
    daemon.expects(&["(\"spare\"), and no app has it"]);
    daemon.wait_online("api", 2);
    daemon.wait_for_text(&format!("handed over a socket for 127.0.0.1:{unused} (\"spare\")"));
    assert_eq!(ask_unix(&path, "/name").expect("served"), "admin");
    let hammer = Load::on(port).start();
    daemon.run(&["reload", "api"]).expect_code(0);
    hammer.wait_answers(20);
    hammer.stop().expect_none_lost();
    // It is the host's: clients wait in it while the app is stopped.
    daemon.run(&["stop", "api"]).expect_code(0);
    let mut waiting = TcpStream::connect(("127.0.0.1", port)).expect("the host listens on");
    daemon.run(&["start", "api"]).expect_code(0);
    ask(&mut waiting, "/").expect("served in the end");
    assert!(path.exists(), "the host's file was removed");
}

/// An app that finds the host's socket by its name, and says another port.
fn by_name(fixture: &Fixture, port: u16) -> (App, String) {
    let elsewhere = free_port();
    let listen = format!("[{{ name = \"http\", address = \"127.0.0.1:{elsewhere}\" }}]");
    let app = App::new("api", fixture).instances(2).set("listen", listen).text("drain_timeout", "10s");
    (app, format!("socket.create_server(('127.0.0.1', {port}))"))
}

#[test]
fn a_host_socket_that_was_found_by_name_is_drained_where_it_listens() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, _) = place(None);
    let port = free_port();
    let (app, socket) = by_name(&fixture, port);
    let daemon = activated(&home, "http", &socket, app.delay(150));
    daemon.wait_online("api", 2);
    assert_eq!(daemon.app("api").listen, [format!("127.0.0.1:{port}")]);
    let hammer = Load::on(port).start();
    for _ in 0..2 {
        hammer.wait_answers(10);
        daemon.run(&["reload", "api"]).expect_code(0);
    }
    hammer.wait_answers(10);
    hammer.stop().expect_none_lost();
}

#[test]
fn whoever_comes_to_the_hosts_socket_waits_through_stops_and_restarts() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, _) = place(None);
    let port = free_port();
    let (app, socket) = by_name(&fixture, port);
    let daemon = activated(&home, "http", &socket, app.delay(30));
    daemon.wait_online("api", 2);
    let hammer = Load::on(port).start();
    for verb in ["restart", "stop", "start", "restart"] {
        hammer.wait_answers(if verb == "start" { 0 } else { 20 });
        daemon.run(&[verb, "api"]).expect_code(0);
    }
    hammer.wait_answers(20);
    // A start that comes while those who were stopped still have requests.
    let stop = daemon.spawn(&["stop", "api"]);
    wait_until(SOON, "they leave", || {
        let workers = daemon.try_app("api")?.workers;
        let leaves = workers.iter().any(|w| w.status != "online");
        if leaves { Ok(()) } else { Err(format!("{workers:?}")) }
    });
    daemon.run(&["start", "api"]).expect_code(0);
    drop(daemon.home.finish(stop));
    daemon.wait_online("api", 2);
    hammer.wait_answers(20);
    hammer.stop().expect_none_lost();
}

/// A socket unit's `ListenStream=8080` listens on both families, and servers that open their port themselves know
/// nothing of it.
#[test]
fn a_server_that_opens_its_port_itself_is_given_the_hosts_socket() {
    let (home, _) = place(None);
    for (name, both) in [("node", true), ("asyncio", false), ("go", true), ("uvicorn", false), ("perl", true)]
    {
        let (Some(fixture), Some(_)) = (fixtures::server(name), support::runtime("python3")) else { return };
        let port = free_port();
        let socket = match both {
            true => {
                format!("socket.create_server(('::', {port}), family=socket.AF_INET6, dualstack_ipv6=True)")
            }
            false => format!("socket.create_server(('0.0.0.0', {port}))"),
        };
        let listen = format!("[{{ name = \"http\", address = \"0.0.0.0:{port}\" }}]");
        let app = App::new("api", &fixture).instances(2).port(port).delay(20).set("listen", listen);
        let daemon = activated(&home, "http", &socket, app);
        let old = daemon.wait_online("api", 2);
        if name == "perl" {
            // Blocking in accept, it takes one more: what no shared socket can bear under load.
            daemon.expects(&["cannot be kept from the queue of a shared socket"]);
        } else {
            let hammer = Load::on(port).clients(2).start();
            hammer.wait_answers(20);
            daemon.run(&["reload", "api"]).expect_code(0);
            hammer.wait_answers(20);
            let history = hammer.stop();
            history.expect_none_lost();
            let new = daemon.wait_online("api", 2);
            let served = |pids: &[i32]| history.by_pid().keys().any(|pid| pids.contains(pid));
            assert!(served(&old) && served(&new), "{name}: {old:?} {new:?} {history:?}");
        }
        // Who comes while nobody serves is served afterwards: it is the host's socket that is listened on.
        daemon.run(&["stop", "api"]).expect_code(0);
        let mut waiting = TcpStream::connect(("127.0.0.1", port)).expect("the host listens on");
        daemon.run(&["start", "api"]).expect_code(0);
        ask(&mut waiting, "/").unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_host_socket_is_one_apps_alone() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, _) = place(None);
    let port = free_port();
    let (first, socket) = by_name(&fixture, port);
    let listen = format!("[{{ name = \"http\", address = \"127.0.0.1:{}\" }}]", free_port());
    let second = App::new("second", &fixture).set("listen", listen).set("max_restarts", 1);
    let daemon = activated(&home, "http", &socket, first);
    daemon.expects(&["is served by app \"api\"", "unstable exits in a row"]);
    daemon.wait_online("api", 2);
    let file = daemon.home.apps().join("second.toml");
    fs::write(&file, support::file(&[second])).expect("the home is ours");
    daemon.run(&["start", &file.display().to_string()]).expect_code(1);
    let workers = daemon.app("second").workers;
    let why = workers[0].last_exit.clone().and_then(|exit| exit.message).expect("it says why");
    assert!(why.contains(&format!("127.0.0.1:{port} is served by app \"api\"")), "{why}");
}

#[test]
fn a_host_socket_that_a_worker_shuts_down_listens_again() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let port = free_port();
    let sockets =
        format!("socket.create_server(('127.0.0.1', {port})), unix({:?})", path.display().to_string());
    let listen = format!("[\"127.0.0.1:{port}\", \"unix:{}\"]", path.display());
    let app = App::new("api", &fixture).instances(2).set("listen", listen);
    let daemon = activated(&home, "http:unix", &sockets, app);
    daemon.expects(&["called shutdown(2)", "which nothing undoes"]);
    let pids = daemon.wait_online("api", 2);
    let tcp = |what: &str| ask(&mut TcpStream::connect(("127.0.0.1", port))?, what);
    drop(tcp("/shutdown"));
    daemon.wait_for_text("the supervisor listens on it again; who waited in it was reset");
    wait_until(SOON, "it is served", || tcp("/"));
    // Nothing brings the other one back: it is said, and nobody is replaced for it.
    drop(ask_unix(&path, "/shutdown"));
    daemon.wait_for_text("only the host, which made it, can make a new one");
    assert_eq!(daemon.pids("api"), pids);
    tcp("/").expect("served");
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&["which nothing undoes"]);
    tcp("/").expect("the old ones serve on");
}

#[test]
fn a_check_that_the_hosts_socket_cannot_bear_fails_the_start_and_says_so() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, _) = place(None);
    let port = free_port();
    let app = App::new("api", &fixture)
        .set("listen", format!("[\"127.0.0.1:{port}\"]"))
        .set("health", "{ tcp = true }");
    let daemon = activated(&home, "http", &format!("socket.create_server(('127.0.0.1', {port}))"), app);
    daemon.expects(&["no connection reaches one alone", "unstable exits in a row"]);
    daemon
        .wait_for_text("could not be started: health: asks one worker, and no connection reaches one alone");
}

#[test]
fn who_blocks_in_accept_is_told_first_and_it_is_said() {
    let Some(fixture) = fixtures::python("listen_fds.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture).instances(2), &path).text("drain_timeout", "2s");
    let daemon = Builder::new(app).start_in(home);
    daemon.expects(&["cannot be kept from the queue of a shared socket"]);
    let first = daemon.wait_online("api", 2);
    daemon.run(&["reload", "api"]).expect_code(0);
    let last = daemon.wait_online("api", 2);
    assert!(last.iter().all(|pid| !first.contains(pid)));
    daemon.wait_for_text("cannot be kept from the queue of a shared socket");
    ask_unix(&path, "/").expect("served");
}

#[test]
fn who_blocks_in_accept_finishes_what_it_has_first() {
    let Some(fixture) = fixtures::python("listen_fds.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture).instances(1).delay(1500), &path).text("drain_timeout", "10s");
    let daemon = Builder::new(app).start_in(home);
    daemon.expects(&["cannot be kept from the queue of a shared socket"]);
    let old = daemon.wait_online("api", 1)[0];
    let mut held: Vec<UnixStream> = (0..5).map(|_| UnixStream::connect(&path).expect("served")).collect();
    for client in &mut held {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("buffered");
    }
    daemon.run(&["reload", "api"]).expect_code(0);
    for mut client in held {
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("answered");
        assert!(answer.contains(&format!("{old} ")), "cut: {answer:?}");
    }
}

#[test]
fn a_long_request_over_a_unix_socket_is_not_cut() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture).instances(1).delay(4500), &path)
        .text("drain_timeout", "8s")
        .text("drain_idle", "500ms");
    let daemon = Builder::new(app).start_in(home);
    daemon.expects(&["drain_timeout is over"]);
    let old = daemon.wait_online("api", 1)[0];
    let mut client = UnixStream::connect(&path).expect("served");
    // Kept, so that an end of the server's is seen as one.
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("buffered");
    daemon.run(&["reload", "api"]).expect_code(0);
    let mut answer = [0; 512];
    let length = client.read(&mut answer).expect("answered");
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.contains(&format!("{old} ")), "cut: {answer:?}");
}

#[test]
fn a_starting_worker_keeps_the_socket_that_the_other_leaves() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture).instances(2), &path).env("START_MS", 1500);
    let daemon = Builder::new(app).start_in(home);
    let pids = daemon.wait_online("api", 2);
    let inode = fs::metadata(&path).expect("it listens").ino();
    let first = daemon.app("api").workers[0].id.to_string();
    let restart = daemon.spawn(&["restart", &first]);
    wait_until(SOON, "the first one starts anew", || {
        let workers = daemon.try_app("api")?.workers;
        let starts =
            workers.iter().any(|w| w.status == "launching" && w.pid.is_some_and(|p| !pids.contains(&p)));
        if starts { Ok(()) } else { Err(format!("{workers:?}")) }
    });
    daemon.run(&["scale", "api", "1"]).expect_code(0);
    daemon.home.finish(restart).expect_code(0);
    let left = daemon.wait_online("api", 1);
    assert_eq!(fs::metadata(&path).expect("its file is gone").ino(), inode);
    let answer = ask_unix(&path, "/").expect("it is deaf");
    assert!(answer.starts_with(&format!("{} ", left[0])), "{answer}");
}

#[test]
fn a_path_that_is_removed_after_a_failed_reload_is_made_anew() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let app = on_unix(App::new("api", &fixture).instances(2), &path);
    let daemon = Builder::new(&app).start_in(home);
    daemon.expects(&[
        "exited with code 1 ",
        "reload to generation 2 failed",
        "somebody removed or replaced the path",
    ]);
    daemon.wait_online("api", 2);
    daemon.home.write(&app.text("command", "false").to_string());
    daemon.run(&["reload", "api"]).expect_code(1);
    assert!(daemon.app("api").reload.is_some_and(|reload| reload.state == "failed"));
    fs::remove_file(&path).expect("it is there");
    wait_until(SOON, "the path is served again", || ask_unix(&path, "/"));
}

#[test]
fn who_may_connect_follows_a_reload_that_went_well() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let with = |mode: &str| {
        let table = format!("{{ address = \"unix:{}\", mode = \"{mode}\" }}", path.display());
        App::new("api", &fixture).set("listen", table)
    };
    let mode = || fs::metadata(&path).expect("it listens").mode() & 0o777;
    let daemon = Builder::new(with("0600")).start_in(home);
    daemon.expects(&["exited with code 1 ", "reload to generation 2 failed"]);
    daemon.wait_online("api", 1);
    daemon.home.write(&with("0666").text("command", "false").to_string());
    daemon.run(&["reload", "api"]).expect_code(1);
    assert_eq!(mode(), 0o600, "a generation that failed opened it");
    daemon.home.write(&with("0666").to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    assert_eq!(mode(), 0o666);
}

#[test]
fn an_owner_that_cannot_be_given_fails_the_reload_and_says_so() {
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let with = |owner: &str| {
        let table = format!("{{ address = \"unix:{}\"{owner} }}", path.display());
        App::new("api", &fixture).set("listen", table)
    };
    let daemon = Builder::new(with("")).start_in(home);
    daemon.expects(&["reload to generation", "no-such-user"]);
    let before = daemon.wait_online("api", 1);
    daemon.home.write(&with(", user = \"no-such-user\"").to_string());
    let reload = daemon.run(&["reload", "api"]).expect_code(1);
    assert!(reload.stdout.contains("no-such-user") || reload.stderr.contains("no-such-user"), "{reload:?}");
    assert_eq!(daemon.pids("api"), before);
    ask_unix(&path, "/").expect("the old generation serves");
}

#[test]
fn who_may_give_nothing_away_has_the_reload_fail_before_anything_changes() {
    if !support::root() {
        return support::skip("only root can become another user");
    }
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let bounded = ["setpriv", "--bounding-set=-chown", "--"];
    let cases = [(&bounded[..], None, "user = \"nobody\""), (&[], Some(ORDINARY), "group = 7")];
    for (wrap, user, owner) in cases {
        let (home, path) = place(user);
        let with = |owner: &str| {
            let table = format!("{{ address = \"unix:{}\"{owner} }}", path.display());
            App::new("api", &fixture).set("listen", table)
        };
        let daemon = Builder::new(with("")).wrap(wrap).start_in(home);
        daemon.expects(&["reload to generation", "cannot give"]);
        let before = daemon.wait_online("api", 1);
        daemon.home.write(&with(&format!(", {owner}")).to_string());
        let reload = daemon.run(&["reload", "api"]).expect_code(1);
        assert!(format!("{reload:?}").contains("CAP_CHOWN"), "{reload:?}");
        assert_eq!(daemon.pids("api"), before);
        ask_unix(&path, "/").expect("the old generation serves");
    }
}

#[test]
fn root_gives_nothing_away_where_everybody_may_replace_it() {
    if !support::root() {
        return support::skip("anybody else harms itself only");
    }
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let (home, path) = place(None);
    let open = home.apps().join("open");
    fs::create_dir(&open).expect("free");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    let app = |name: &str, path: &Path| on_unix(App::new(name, &fixture), path).set("max_restarts", 1);
    let apps = [app("open", &open.join("s.sock")), app("api", &path)];
    let daemon = Builder::new(support::file(&apps)).start_in(home);
    daemon.expects(&["everybody may replace", "unstable exits in a row"]);
    let workers = daemon.wait_status("open", "errored").workers;
    let why = workers[0].last_exit.clone().and_then(|exit| exit.message).expect("it says why");
    assert!(why.contains("everybody may replace what is in"), "{why}");
    daemon.wait_online("api", 1);
    let left: Vec<_> =
        fs::read_dir(daemon.home.apps()).expect("ours").flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
}

/// Fault 9.
#[test]
fn an_address_that_comes_later_is_waited_for_and_served() {
    if !support::root() {
        return support::skip("a network namespace of its own takes root");
    }
    let (Some(unshare), Some(ip)) = (support::runtime("unshare"), support::runtime("ip")) else { return };
    let Some(fixture) = fixtures::python("handed_asyncio.py") else { return };
    let port = free_port();
    let late = App::new("late", &fixture).instances(2).set("listen", format!("[\"10.213.7.1:{port}\"]"));
    let now = App::new("now", &fixture).set("listen", format!("[\"0.0.0.0:{}\"]", free_port()));
    let unshare = unshare.display().to_string();
    // Before its first address a namespace has no table of them, and anything can be bound to.
    let shell = format!("{} link set lo up; exec \"$0\" \"$@\"", ip.display());
    let wrap = [&unshare, "--net", "--", "/bin/sh", "-c", &shell];
    let daemon = Builder::new(support::file(&[late, now])).wrap(&wrap).start();
    daemon.expects(&["no interface of this host has that address", "late id "]);
    let app = daemon.wait_status("late", "waiting for address");
    assert_eq!(app.workers[0].unstable_restarts, 0, "the app is not to blame");
    let why = app.workers[0].last_exit.clone().and_then(|exit| exit.message).expect("it says why");
    assert!(why.contains("no interface of this host has that address"), "{why}");
    daemon.wait_online("now", 1);
    for verb in [&["list"][..], &["describe", "late"]] {
        let shown = daemon.run(verb).expect_code(0).stdout;
        assert!(shown.contains("waiting for address"), "{verb:?}: {shown}");
    }
    let inside = |line: &[&str]| {
        let pid = daemon.pid.to_string();
        let mut command = std::process::Command::new("nsenter");
        command.args(["--net", "--target", &pid]).arg(&ip).args(line);
        assert!(command.status().expect("util-linux has it").success(), "{command:?}");
    };
    inside(&["address", "add", "10.213.7.1/32", "dev", "lo"]);
    daemon.wait_online("late", 2);
    assert_eq!(daemon.app("late").listen, [format!("10.213.7.1:{port}")]);
}

/// A kept connection holds the old worker, which serves nobody else meanwhile.
#[test]
fn a_worker_that_leaves_takes_nobody_from_a_shared_queue() {
    let all = [fixtures::node("listen_fd.js"), fixtures::python("handed_asyncio.py"), fixtures::go()];
    for fixture in all.into_iter().flatten() {
        let (home, path) = place(None);
        let app = on_unix(App::new("api", &fixture).instances(1), &path).text("drain_timeout", "6s");
        let daemon = Builder::new(app).start_in(home);
        let old = daemon.wait_online("api", 1)[0];
        let mut kept = UnixStream::connect(&path).expect("served");
        kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("buffered");
        assert!(kept.read(&mut [0; 512]).expect("answered") > 0);
        let reload = daemon.spawn(&["reload", "api"]);
        wait_until(SOON, "the old worker leaves, held by its connection", || {
            let workers = daemon.try_app("api")?.workers;
            let leaves = workers.iter().any(|w| w.pid == Some(old) && w.status == "stopping");
            if leaves { Ok(()) } else { Err(format!("{workers:?}")) }
        });
        for _ in 0..60 {
            let answer = ask_unix(&path, "/").expect("served");
            assert!(!answer.starts_with(&format!("{old} ")), "{:?}: {answer}", fixture.command);
        }
        assert!(support::daemon::exists(old), "it was to be there all the time");
        // Its client is still served.
        kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("buffered");
        let mut answer = String::new();
        kept.read_to_string(&mut answer).expect("answered");
        assert!(answer.contains(&format!("{old} ")), "{answer}");
        daemon.home.finish(reload).expect_code(0);
    }
}
