//! The supervisor's own answers over HTTP, asked by plain sockets: an independent reader of what is on the wire.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::daemon::{Builder, send};
use support::{App, Daemon, Home, fixtures, free_port, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

/// An answer: its status, its head, its body.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn read_answer(mut stream: impl Read) -> io::Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(format!("no head: {text:?}")))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {head}")))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

fn say(port: u16, request: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    read_answer(stream)
}

fn try_get(port: u16, path: &str) -> io::Result<Answer> {
    say(port, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"))
}

fn get(port: u16, path: &str) -> Answer {
    try_get(port, path).expect("an answer")
}

/// The apps, and where the supervisor answers.
fn file(http: &str, apps: &[App]) -> String {
    format!("[daemon]\nhttp = {http}\n{}", fixtures::file(apps))
}

fn at(port: u16) -> String {
    format!("\"127.0.0.1:{port}\"")
}

fn idler(name: &str) -> App {
    App::new(name, &fixtures::shell("exec sleep 1000")).text("exec_mode", "fork").text("kill_timeout", "5s")
}

fn wait_answered(port: u16) {
    wait_until(LIMIT, "an answer", || try_get(port, "/livez").map(drop).map_err(|e| e.to_string()));
}

#[test]
fn the_pages_say_how_apps_are_and_nothing_that_is_secret() {
    let port = free_port();
    let api =
        App::new("api", &fixtures::shell(": hunter2-in-args; exec sleep 1000")).text("exec_mode", "fork");
    let api = api.instances(2).env("API_MODE", "hunter2-in-env").text("namespace", "shop");
    let daemon = Daemon::foreground(file(&at(port), &[api]));
    daemon.wait_online("api", 2);
    assert_eq!(get(port, "/livez").body, "ok\n");
    let ready = get(port, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    let metrics = get(port, "/metrics");
    assert!(metrics.head.contains("Content-Type: text/plain; version=0.0.4"), "{}", metrics.head);
    for line in [
        "clusterd_app_ready_workers{app=\"api\",namespace=\"shop\"} 2",
        "clusterd_worker_ready{app=\"api\",namespace=\"shop\",instance=\"1\"} 1",
    ] {
        assert!(metrics.body.lines().any(|found| found == line), "{line}\n{}", metrics.body);
    }
    let pids: BTreeSet<i32> = daemon.pids("api").into_iter().collect();
    for path in ["/api/v1/apps", "/api/v1/apps/api", "/api/v1/apps/shop/api", "/api/v1/apps/shop"] {
        let answer = get(port, path);
        let list: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let workers = list["apps"][0]["workers"].as_array().expect("workers").clone();
        let told: BTreeSet<i32> =
            workers.iter().filter_map(|worker| worker["pid"].as_i64()).map(|pid| pid as i32).collect();
        assert_eq!(told, pids, "{path}");
    }
    for path in ["/livez", "/readyz", "/metrics", "/api/v1/apps", "/api/v1/apps/api"] {
        let Answer { head, body, .. } = get(port, path);
        let home = daemon.home.path().display().to_string();
        for secret in ["hunter2", "API_MODE", home.as_str()] {
            assert!(!body.contains(secret) && !head.contains(secret), "{path} tells {secret}: {body}");
        }
    }
}

#[test]
fn strange_names_methods_and_paths_are_refused_and_the_listed_name_is_not() {
    let port = free_port();
    let http = format!("{{ address = {}, hosts = [\"metrics.example\"] }}", at(port));
    let daemon = Daemon::foreground(file(&http, &[idler("api")]));
    daemon.wait_online("api", 1);
    let ask = |method: &str, path: &str, host: &str| {
        say(port, &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).expect("an answer")
    };
    assert_eq!(ask("GET", "/livez", "metrics.example:80").status, 200);
    assert_eq!(ask("GET", "/livez", "localhost").status, 200);
    assert_eq!(ask("GET", "/livez", "evil.example").status, 421);
    let posted = ask("POST", "/livez", "localhost");
    assert_eq!(posted.status, 405);
    assert!(posted.head.contains("Allow: GET, HEAD"), "{}", posted.head);
    let head = ask("HEAD", "/livez", "localhost");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("Content-Length: 3"), "{}", head.head);
    for path in ["/", "/readyz/nobody", "/api/v1/apps/nobody", "/readyz//etc/passwd"] {
        assert_eq!(ask("GET", path, "localhost").status, 404, "{path}");
    }
    assert_eq!(say(port, "\x16\x03\x01 what\r\n\r\n").expect("an answer").status, 400);
}

#[test]
fn who_cannot_serve_is_named_to_whoever_sends_clients_here() {
    let port = free_port();
    let late = App::new("late", &fixtures::shell("exec sleep 1000"))
        .text("exec_mode", "fork")
        .text("ready", "notify")
        .text("listen_timeout", "600s");
    let home = Arc::new(Home::new(None));
    let daemon = Builder::new(file(&at(port), &[idler("api"), late])).start_in(home);
    daemon.wait_online("api", 1);
    daemon.wait_status("late", "launching");
    let unready = get(port, "/readyz");
    assert_eq!(unready.status, 503);
    assert_eq!(unready.body, "late: no worker of 1 is ready (launching)\n");
    assert_eq!(get(port, "/readyz/api").status, 200);
    assert_eq!(get(port, "/readyz/late").status, 503);
    daemon.run(&["ping", "--ready", "api"]).expect_code(0);
    let refused = daemon.run(&["ping", "--ready"]).expect_code(1);
    assert!(refused.stderr.contains("not ready: late: no worker of 1 is ready"), "{}", refused.stderr);
    daemon.run(&["ping"]).expect_code(0);
    daemon.run(&["stop", "late"]).expect_code(0);
    // What is stopped on purpose is not missed.
    assert_eq!(get(port, "/readyz").status, 200);
    daemon.run(&["ping", "--ready"]).expect_code(0);
}

#[test]
fn what_became_of_workers_and_reloads_is_counted() {
    let port = free_port();
    let daemon = Daemon::foreground(file(&at(port), &[idler("api").text("restart_delay", "0")]));
    daemon.expects(&["ended by SIGKILL"]);
    let before = daemon.wait_online("api", 1)[0];
    send(before, Signal::SIGKILL);
    let line = |text: &str| format!("clusterd_app_{text}");
    let crash = line("exits_total{app=\"api\",namespace=\"default\",reason=\"crash\"} 1");
    wait_until(LIMIT, "the crash in the figures", || {
        let found = get(port, "/metrics").body;
        if found.lines().any(|line| line == crash) { Ok(()) } else { Err(found) }
    });
    daemon.wait_online("api", 1);
    daemon.run(&["reload", "api"]).expect_code(0);
    let done = line("reloads_total{app=\"api\",namespace=\"default\",result=\"done\"} 1");
    wait_until(LIMIT, "the reload in the figures", || {
        let found = get(port, "/metrics").body;
        if found.lines().any(|line| line == done) { Ok(()) } else { Err(found) }
    });
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let port = free_port();
    let daemon = Daemon::foreground(file(&at(port), &[idler("api")]));
    daemon.wait_online("api", 1);
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("it comes in")).collect();
    assert_eq!(get(port, "/livez").status, 200);
    // One that speaks slowly is told so in the end.
    let mut slow = silent.into_iter().next_back().expect("200");
    slow.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    slow.write_all(b"GET /livez HTTP/1.1\r\n").expect("its beginning");
    assert_eq!(read_answer(slow).expect("an answer").status, 408);
}

#[test]
fn an_address_that_is_taken_stops_nobody_and_a_changed_file_moves_it() {
    let (first, second) = (free_port(), free_port());
    let holder = TcpListener::bind(("127.0.0.1", first)).expect("free");
    let home = Arc::new(Home::new(None));
    let daemon = Builder::new(file(&at(first), &[idler("api")]))
        .expects(&["no answers over HTTP: cannot listen on 127.0.0.1"])
        .start_in(Arc::clone(&home));
    let pid = daemon.wait_online("api", 1)[0];
    daemon.wait_for_text("no answers over HTTP: cannot listen on 127.0.0.1");
    drop(holder);
    // The file is read again: it is tried at once. A child of another test, between its fork and its exec, may hold the
    // port for that moment: then the next attempt has it, ten seconds later.
    daemon.signal(Signal::SIGHUP);
    wait_until(3 * LIMIT, "an answer", || try_get(first, "/livez").map(drop).map_err(|e| e.to_string()));
    let before = daemon.wait_online("api", 1)[0];
    assert_ne!(before, pid, "SIGHUP reloads");
    home.write(&file(&at(second), &[idler("api")]));
    daemon.signal(Signal::SIGHUP);
    wait_answered(second);
    assert!(TcpStream::connect(("127.0.0.1", first)).is_err(), "nobody answers where it was");
    home.write(&fixtures::file(&[idler("api")]));
    daemon.signal(Signal::SIGHUP);
    wait_until(LIMIT, "nobody to answer", || match TcpStream::connect(("127.0.0.1", second)) {
        Ok(_) => Err("somebody listens".to_owned()),
        Err(_) => Ok(()),
    });
}

#[test]
fn a_unix_socket_has_its_mode_and_goes_with_the_supervisor() {
    let home = Arc::new(Home::new(None));
    let path = home.path().join("http.sock");
    let http = format!("{{ address = \"unix:{}\", mode = \"0600\" }}", path.display());
    let mut daemon = Builder::new(file(&http, &[idler("api")])).start_in(home);
    daemon.wait_online("api", 1);
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: anything.example\r\n\r\n").expect("a request");
    assert_eq!(read_answer(stream).expect("an answer").body, "ok\n");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(LIMIT), 0);
    assert!(!path.exists(), "the socket's file stays behind");
}

/// As `list` does it: a page about hundreds of workers is found out over several turns, and others are answered in
/// between.
#[test]
fn a_page_about_many_workers_makes_nobody_else_wait() {
    let port = free_port();
    let many = idler("many").instances(150);
    let daemon = Daemon::foreground(file(&at(port), &[many]));
    daemon.wait_online("many", 150);
    let question = |page: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        write!(stream, "GET {page} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").expect("it reads");
        stream
    };
    // A client that has said all that it wants to say, and one that goes away.
    let (first, second, gone) = (question("/metrics"), question("/api/v1/apps"), question("/metrics"));
    first.shutdown(std::net::Shutdown::Write).expect("it is connected");
    drop(gone);
    let page = read_answer(first).expect("an answer");
    assert_eq!(page.status, 200, "{page:?}");
    let of_many = |line: &&str| line.starts_with("clusterd_worker_memory_bytes{app=\"many\"");
    assert_eq!(page.body.lines().filter(of_many).count(), 150, "{}", page.body);
    let list: serde_json::Value =
        serde_json::from_str(&read_answer(second).expect("an answer").body).expect("JSON");
    let workers = list["apps"][0]["workers"].as_array().expect("a list");
    // Who was looked at in the middle of exec(2) has none yet.
    assert_eq!(workers.iter().filter(|worker| worker["memory_bytes"].is_u64()).count(), 150);
    // The host may take the time away in which that shows, and a page that was just made is shown again.
    wait_until(4 * LIMIT, "an answer in between", || is_answered_between(&daemon, port));
}

/// Sends a question over HTTP and, right behind it, one over the control socket; whether the second is answered while
/// the first still waits.
fn is_answered_between(daemon: &Daemon, port: u16) -> bool {
    let mut http = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    http.write_all(b"GET /metrics HTTP/1.1\r\n").expect("it reads");
    let mut control = UnixStream::connect(daemon.home.socket()).expect("the supervisor listens");
    // By now both are accepted.
    daemon.run(&["ping"]).expect_code(0);
    write!(http, "Host: 127.0.0.1:{port}\r\n\r\n").expect("it reads");
    let ping = b"{\"version\":1,\"request\":{\"verb\":\"ping\"}}\n";
    control.write_all(ping).expect("the supervisor reads");
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer).expect("an answer");
    assert!(answer.contains("pong"), "{answer}");
    http.set_nonblocking(true).expect("a socket");
    let early = http.read(&mut [0; 1]);
    http.set_nonblocking(false).expect("a socket");
    http.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let mut rest = Vec::new();
    http.read_to_end(&mut rest).expect("the whole page");
    matches!(early, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
