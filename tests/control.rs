//! The command line and the control socket: what a person and a script rely on, and what a bad client
//! cannot do.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::Value;
use support::daemon::{Builder, exists, send};
use support::{App, Daemon, Hammer, Home, Load, ORDINARY, file, fixtures, free_port, root, skip, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// One idle process.
fn idle(name: &str) -> App {
    App::new(name, &fixtures::worker(&["idle"])).text("exec_mode", "fork")
}

/// Two workers on a port.
fn api(port: u16) -> App {
    App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port)
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn has_keys(value: &Value, wanted: &[&str]) {
    let keys = keys(value);
    for key in wanted {
        assert!(keys.contains(key), "no {key:?} in {keys:?}");
    }
}

#[test]
fn list_json_has_the_shape_of_the_contract() {
    let port = free_port();
    let daemon = Daemon::foreground(api(port));
    daemon.wait_online("api", 2);
    let output = daemon.run(&["list", "--json"]).expect_code(0);
    let list: Value = serde_json::from_str(&output.stdout).expect("JSON");
    has_keys(&list, &["version", "daemon", "apps"]);
    assert_eq!(list["version"], 1);
    has_keys(&list["daemon"], &["pid", "version", "uptime_ms", "home"]);
    assert_eq!(list["daemon"]["pid"], daemon.pid);
    assert_eq!(list["daemon"]["version"], env!("CARGO_PKG_VERSION"));
    let app = &list["apps"][0];
    has_keys(
        app,
        &["name", "namespace", "mode", "status", "generation", "instances", "listen", "reload", "workers"],
    );
    assert_eq!((&app["name"], &app["namespace"]), (&Value::from("api"), &Value::from("default")));
    assert_eq!((&app["mode"], &app["status"]), (&Value::from("cluster"), &Value::from("online")));
    assert_eq!(app["listen"], serde_json::json!([format!("0.0.0.0:{port}")]));
    assert_eq!((&app["reload"], &app["instances"]), (&Value::Null, &Value::from(2)));
    let worker = &app["workers"][1];
    has_keys(worker, &["id", "instance", "pid", "status", "ready", "generation", "uptime_ms", "restarts"]);
    has_keys(worker, &["unstable_restarts", "cpu_percent", "memory_bytes", "connections", "last_exit"]);
    assert_eq!((&worker["id"], &worker["instance"]), (&Value::from(1), &Value::from(1)));
    assert_eq!(worker["last_exit"], Value::Null);
}

/// As PM2's: a deploy hook, or an app that looks after others.
#[test]
fn a_worker_talks_to_its_own_supervisor_wherever_that_lives() {
    let home = Arc::new(Home::new(None));
    let line = format!("{} restart other && echo done >done; exec sleep 1000", home.binary().display());
    let caller = App::new("caller", &fixtures::shell(&line)).text("exec_mode", "fork");
    let other = App::new("other", &fixtures::worker(&["idle"])).text("exec_mode", "fork");
    let daemon = Builder::new(file(&[other, caller])).start_in(home);
    wait_until(ms(20_000), "what it told the supervisor", || daemon.home.apps().join("done").exists());
    assert_eq!(daemon.app("other").workers[0].restarts, 1);
}

#[test]
fn list_tells_a_busy_worker_from_an_idle_one_however_often_it_is_asked() {
    let line = |name: &str, line: &str| App::new(name, &fixtures::shell(line)).text("exec_mode", "fork");
    let busy = line("busy", "while :; do :; done").text("kill_timeout", "300ms");
    let daemon = Daemon::foreground(file(&[busy, line("idle", "exec sleep 1000")]));
    daemon.wait_online("busy", 1);
    daemon.wait_online("idle", 1);
    let share = |name: &str| {
        let list = daemon.list();
        let app = list.apps.iter().find(|app| app.name == name).expect("it runs");
        app.workers[0].cpu_percent.expect("/proc shows it")
    };
    wait_until(ms(20_000), "a share of the CPU", || share("busy") > 20.0);
    for _ in 0..20 {
        // One tick of 10 ms over the time since the question before would be hundreds of percent.
        let (busy, idle) = (share("busy"), share("idle"));
        assert!(busy < 150.0 && idle < 50.0, "busy {busy}%, idle {idle}%");
    }
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let home = Home::new(None);
    for verb in [&["list"][..], &["ping"], &["reload", "api"], &["stop", "all"], &["kill"]] {
        let output = home.run(verb).expect_code(1);
        assert!(!output.stderr.is_empty(), "{verb:?}: {output:?}");
        assert!(output.took < ms(3_000), "{verb:?}: {output:?}");
    }
    assert_eq!(home.processes(), [], "a reading verb spawned a supervisor");
    home.run(&["no-such-verb-and-no-such-file"]).expect_code(2);
    home.run(&["list", "--no-such-flag"]).expect_code(2);
    home.run(&["validate", "/no/such/file.toml"]).expect_code(2).expect_stderr(&["/no/such/file.toml"]);
    let daemon = Builder::new(idle("api")).start_in(Arc::new(home));
    daemon.wait_online("api", 1);
    for verb in
        [&["stop", "nobody"][..], &["reload", "nobody"], &["restart", "/^x/"], &["describe", "nobody"]]
    {
        daemon.run(verb).expect_code(1);
    }
    daemon.run(&["stop", "nobody"]).expect_code(1).expect_stderr(&["nobody"]);
    daemon.run(&["scale", "api", "1"]).expect_code(0);
    daemon.run(&["ping"]).expect_code(0);
}

#[test]
fn errors_are_json_when_that_was_asked_for() {
    let daemon = Daemon::foreground(idle("api"));
    daemon.wait_online("api", 1);
    let output = daemon.run(&["stop", "nobody", "--json"]).expect_code(1);
    let error: Value = serde_json::from_str(output.stderr.trim()).expect("JSON on standard error");
    assert!(error.to_string().contains("nobody"), "{error}");
}

#[test]
fn targets_come_in_all_forms() {
    let apps = [idle("web-1"), idle("web-2"), idle("job")];
    let apps: Vec<App> = apps.into_iter().map(|app| app.text("kill_timeout", "500ms")).collect();
    let daemon = Daemon::foreground(file(&apps));
    let all = ["web-1", "web-2", "job"];
    let pid = |name: &str| daemon.wait_online(name, 1)[0];
    let path = daemon.home.file().display().to_string();
    let id = daemon.app("job").workers[0].id.to_string();
    let forms: [(&[&str], &[&str]); 7] = [
        (&["web-1"], &["web-1"]),
        (&["/^web-/"], &["web-1", "web-2"]),
        (&["web-1", "job"], &["web-1", "job"]),
        (&[&id], &["job"]),
        (&["default"], &all),
        (&["all"], &all),
        (&[&path], &all),
    ];
    for (targets, meant) in forms {
        let before: Vec<i32> = all.iter().map(|name| pid(name)).collect();
        let mut line = vec!["restart"];
        line.extend(targets);
        daemon.run(&line).expect_code(0);
        for (name, old) in all.iter().zip(before) {
            assert_eq!(pid(name) != old, meant.contains(name), "restart {targets:?}: {name}");
        }
    }
}

#[test]
fn a_namespace_is_a_target_of_its_apps_alone() {
    let apps = [
        idle("one").text("namespace", "blue"),
        idle("two").text("namespace", "blue"),
        idle("three").text("namespace", "green"),
    ];
    let daemon = Daemon::foreground(file(&apps));
    ["one", "two", "three"].iter().for_each(|name| drop(daemon.wait_online(name, 1)));
    daemon.run(&["stop", "blue"]).expect_code(0);
    let status = |name: &str| daemon.app(name).status;
    assert_eq!(["one", "two", "three"].map(status), ["stopped", "stopped", "online"]);
    let listed = daemon.run(&["list", "green"]).expect_code(0).stdout;
    assert!(listed.contains("three") && !listed.contains("one"), "{listed}");
    daemon.run(&["stop", "red"]).expect_code(1).expect_stderr(&["red"]);
}

/// The state of `api` in a namespace: its word, or none where it is not known.
fn standing_in(daemon: &Daemon, namespace: &str) -> Option<String> {
    let apps = daemon.list().apps;
    apps.into_iter().find(|app| app.namespace == namespace && app.name == "api").map(|app| app.status)
}

#[test]
fn a_file_as_a_target_means_the_apps_started_from_it_and_nobody_of_the_same_name() {
    let daemon = Daemon::foreground(idle("api"));
    daemon.wait_online("api", 1);
    let staging = file(&[idle("api").text("namespace", "staging"), idle("job").text("namespace", "staging")]);
    daemon.home.put("staging.toml", &staging);
    daemon.run(&["start", "staging.toml"]).expect_code(0);
    let both = |staging: Option<&str>| {
        assert_eq!(standing_in(&daemon, "default").as_deref(), Some("online"), "the one that was not named");
        assert_eq!(standing_in(&daemon, "staging").as_deref(), staging);
    };
    both(Some("online"));
    let listed = daemon.run(&["list", "staging.toml", "--json"]).expect_code(0);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed["apps"].as_array().expect("an array").len(), 2, "{listed}");
    assert_eq!(daemon.run(&["pid", "staging.toml"]).expect_code(0).stdout.lines().count(), 2);
    // One app of the file that is gone does not keep the others from being stopped.
    daemon.run(&["delete", "job"]).expect_code(0);
    daemon.run(&["stop", "../apps/staging.toml"]).expect_code(0);
    both(Some("stopped"));
    daemon.run(&["start", "staging/api"]).expect_code(0);
    both(Some("online"));
    // What became of the file since then does not matter.
    daemon.home.put("staging.toml", "this is [not TOML");
    daemon.run(&["stop", "staging.toml"]).expect_code(0);
    both(Some("stopped"));
    std::fs::remove_file(daemon.home.apps().join("staging.toml")).expect("it is there");
    daemon.run(&["delete", "staging.toml"]).expect_code(0);
    both(None);
    let path = daemon.home.apps().join("staging.toml").display().to_string();
    daemon.run(&["delete", "staging.toml"]).expect_code(1).expect_stderr(&["no app was started from", &path]);
    both(None);
}

/// Two of one name are told apart by their namespaces, in what people read as in what programs do.
#[test]
fn an_app_of_another_namespace_is_called_by_it_wherever_it_is_named() {
    let of = |namespace: &str| idle("api").text("namespace", namespace);
    let daemon = Daemon::foreground(file(&[of("default"), of("shop")]));
    wait_until(ms(10_000), "both", || {
        ["default", "shop"].iter().all(|name| standing_in(&daemon, name).as_deref() == Some("online"))
    });
    assert!(
        daemon.log().contains("shop/api/0 generation 1") && daemon.log().contains(" api/0 "),
        "{}",
        daemon.log()
    );
    let stopped = daemon.run(&["stop", "api", "--json"]).expect_code(0).stdout;
    let done: Value = serde_json::from_str(stopped.lines().last().expect("an answer")).expect("JSON");
    assert_eq!(done["apps"], serde_json::json!(["shop/api", "api"]), "{stopped}");
    let words = daemon.run(&["start", "api"]).expect_code(0).stdout;
    assert!(words.contains("started api, shop/api"), "{words}");
    let refused = daemon.run(&["restart", "api", "--name", "x"]).expect_code(2);
    refused.expect_stderr(&["api, shop/api are meant"]);
    let words = daemon.run(&["delete", "shop/api"]).expect_code(0).stdout;
    assert!(words.contains("deleted shop/api"), "{words}");
}

#[test]
fn standard_input_as_a_target_keeps_to_its_namespaces() {
    let of = |namespace: &str| idle("api").text("namespace", namespace);
    let daemon = Daemon::foreground(file(&[of("default"), of("staging")]));
    wait_until(ms(10_000), "both", || {
        ["default", "staging"].iter().all(|name| standing_in(&daemon, name).as_deref() == Some("online"))
    });
    daemon.home.put("input.toml", &of("staging").to_string());
    let input = std::fs::File::open(daemon.home.apps().join("input.toml")).expect("it was written");
    let stop = daemon.home.spawn_with(&["stop", "-"], |command| {
        command.stdin(input);
    });
    daemon.home.finish(stop).expect_code(0);
    assert_eq!(standing_in(&daemon, "staging").as_deref(), Some("stopped"));
    assert_eq!(standing_in(&daemon, "default").as_deref(), Some("online"));
}

#[test]
fn signal_reaches_the_leader_and_nobody_else_of_its_tree() {
    let child = "trap 'echo child heard it' USR1; echo child is set; while :; do sleep 0.02; done";
    let line = format!(
        "sh -c {child:?} & trap 'echo leader heard it' USR1; echo leader is set; while :; do sleep 0.02; done"
    );
    let daemon = Daemon::foreground(App::new("api", &fixtures::shell(&line)).text("exec_mode", "fork"));
    ["child is set", "leader is set"].iter().for_each(|text| daemon.wait_for_text(text));
    daemon.run(&["signal", "SIGUSR1", "api"]).expect_code(0);
    daemon.wait_for_text("leader heard it");
    support::wait::holds_for(ms(300), "the child is left alone", || !daemon.output().contains("child heard"));
}

#[test]
fn pid_signal_and_describe_speak_of_the_worker() {
    let trap = "trap 'echo got it' USR1; echo set; while :; do sleep 0.05; done";
    let app =
        App::new("api", &fixtures::shell(trap)).text("exec_mode", "fork").env("SECRET_NAME", "secret-value");
    let daemon = Daemon::foreground(app);
    daemon.expects(&["looks like a secret: SECRET_NAME"]);
    let pid = daemon.wait_online("api", 1)[0];
    daemon.wait_for_text("set");
    let output = daemon.run(&["pid", "api"]).expect_code(0);
    assert_eq!(output.stdout.trim(), pid.to_string());
    daemon.run(&["signal", "SIGUSR1", "api"]).expect_code(0);
    daemon.wait_for_text("got it");
    assert_ne!(daemon.run(&["signal", "SIGNONSENSE", "api"]).code, 0);
    let output = daemon.run(&["describe", "api"]).expect_code(0);
    assert!(output.stdout.contains("api") && output.stdout.contains(&pid.to_string()), "{output:?}");
    assert!(output.stdout.contains("SECRET_NAME"), "{output:?}");
    assert!(!output.stdout.contains("secret-value"), "a value is shown: {output:?}");
}

#[test]
fn tables_carry_no_colour_and_stay_narrow_off_a_terminal() {
    let daemon = Daemon::foreground(idle("an-app-with-a-rather-long-name-that-fills-the-table-by-itself"));
    daemon.wait_online("an-app-with-a-rather-long-name-that-fills-the-table-by-itself", 1);
    for verb in ["list", "ls", "status"] {
        let output = daemon.run(&[verb]).expect_code(0);
        assert!(!output.stdout.contains('\u{1b}'), "{output:?}");
        assert!(output.stdout.contains("an-app-with"), "{output:?}");
    }
}

#[test]
fn start_in_the_background_returns_when_all_are_ready_and_kill_ends_it() {
    let port = free_port();
    let (daemon, output) = Daemon::background(api(port));
    output.expect_code(0);
    assert_eq!(daemon.pids("api").len(), 2);
    let begin = Instant::now();
    let hammer = Hammer::start(port);
    hammer.wait_answers(10);
    assert!(begin.elapsed() < ms(10_000));
    drop(hammer);
    daemon.run(&["kill"]).expect_code(0);
    wait_until(ms(10_000), "nobody left", || {
        let left = daemon.home.processes();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    daemon.run(&["ping"]).expect_code(1);
}

#[test]
fn delete_forgets_the_app() {
    let daemon = Daemon::foreground(file(&[idle("one"), idle("two")]));
    daemon.wait_online("one", 1);
    daemon.run(&["delete", "one"]).expect_code(0);
    let names: Vec<String> = daemon.list().apps.into_iter().map(|app| app.name).collect();
    assert_eq!(names, ["two"]);
    daemon.run(&["restart", "one"]).expect_code(1);
}

#[test]
fn a_file_from_standard_input_and_a_profile() {
    let worker = fixtures::worker(&["environment"]);
    let app = App::new("api", &worker).text("exec_mode", "fork").env("WHO", "base").env("BASE", "kept");
    let text = format!("{app}[apps.env_production]\nWHO = \"production\"\n");
    let home = Home::new(None);
    let program = home.file();
    home.write(&text);
    let running = home.spawn_with(&["-", "--env", "production"], |command| {
        command.stdin(Stdio::from(std::fs::File::open(program).expect("it was written")));
    });
    wait_until(ms(10_000), "the worker's environment", || {
        let said = running.stdout();
        if said.contains("end of environment") { Ok(()) } else { Err(said) }
    });
    let said = running.stdout();
    assert!(said.contains("WHO=production") && said.contains("BASE=kept"), "{said}");
    home.run(&["kill"]).expect_code(0);
    let output = home.finish(running);
    assert_eq!(output.code, 0, "{output:?}");
    let path = home.file().display().to_string();
    let output = home.run(&["start", &path, "--env", "no-such-profile"]);
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("no-such-profile"), "{output:?}");
}

#[test]
fn only_limits_a_file_to_the_named_apps() {
    let daemon =
        Builder::new(file(&[idle("one"), idle("two"), idle("three")])).argument("--only=one,three").start();
    daemon.wait_online("three", 1);
    let names: Vec<String> = daemon.list().apps.into_iter().map(|app| app.name).collect();
    assert_eq!(names, ["one", "three"]);
}

#[test]
fn the_socket_and_its_folder_are_the_owners_alone() {
    let daemon = Daemon::foreground(idle("api"));
    daemon.wait_online("api", 1);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(mode(&daemon.home.socket()), 0o600);
    assert_eq!(mode(&daemon.home.path()), 0o700);
}

fn client(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.home.socket()).expect("a supervisor listens");
    stream.set_read_timeout(Some(ms(100))).expect("not zero");
    stream
}

/// True when the other side has closed.
fn closed(stream: &mut UnixStream) -> bool {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes) {
        Ok(count) => count == 0,
        Err(error) => {
            !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
        }
    }
}

/// `list` answers, and soon.
fn answers(daemon: &Daemon) {
    let output = daemon.quickest(&["list", "--json"]);
    assert!(output.took < ms(2_000), "{output:?}");
}

/// Fault 63.
#[test]
fn a_client_that_stalls_disturbs_nobody_and_is_let_go() {
    let daemon = Daemon::foreground(idle("api"));
    daemon.wait_online("api", 1);
    let mut silent = client(&daemon);
    let mut half = client(&daemon);
    half.write_all(b"{\"version\":1,\"requ").expect("there is room");
    answers(&daemon);
    wait_until(ms(60_000), "the half-spoken client's end", || closed(&mut half));
    wait_until(ms(60_000), "the silent client's end", || closed(&mut silent));
    answers(&daemon);
}

/// Fault 63: one that never reads.
#[test]
fn a_client_that_never_reads_costs_bounded_memory() {
    let chatty = App::new("chatty", &fixtures::worker(&["flood"])).text("exec_mode", "fork");
    let daemon = Builder::new(chatty.text("out_file", "/dev/null"))
        .stdout(Stdio::null())
        .argument("--no-log-files")
        .start();
    daemon.wait_online("chatty", 1);
    let request = "{\"version\":1,\"request\":{\"verb\":\"logs\",\"targets\":[],\"lines\":10,\"follow\":true,\"stream\":null}}\n";
    let mut deaf: Vec<UnixStream> = (0..5).map(|_| client(&daemon)).collect();
    deaf.iter_mut().for_each(|client| client.write_all(request.as_bytes()).expect("there is room"));
    let before = daemon.resident();
    support::wait::holds_for(ms(2_000), "bounded memory", || {
        let grown = daemon.resident().saturating_sub(before);
        if grown < 24 * 1024 { Ok(()) } else { Err(format!("{grown} KiB more")) }
    });
    answers(&daemon);
}

/// Fault 64.
#[test]
fn garbage_is_answered_or_dropped_and_costs_nothing() {
    let daemon = Daemon::foreground(idle("api"));
    let pids = daemon.wait_online("api", 1);
    let before = daemon.resident();
    let huge = vec![b'{'; 8 * 1024 * 1024];
    let noise: Vec<u8> =
        (0..200_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let inputs: [&[u8]; 10] = [
        b"\n",
        b"\0\0\0\0\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"{\"version\":99,\"request\":{\"verb\":\"ping\"}}\n",
        b"{\"version\":1,\"request\":{\"verb\":\"format-the-disk\"}}\n",
        b"{\"version\":1,\"request\":{\"verb\":\"stop\",\"targets\":17}}\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
        b"{\"version\":1",
        &huge,
        &noise,
    ];
    for input in inputs {
        let mut stream = client(&daemon);
        stream.set_write_timeout(Some(ms(2_000))).expect("not zero");
        // It may be cut off in the middle.
        let _ = stream.write_all(input);
        if input.starts_with(b"{\"version\":99") {
            let mut answer = [0; 4096];
            let count = stream.read(&mut answer).expect("an answer");
            let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
            assert!(answer.contains("version"), "{answer}");
        }
        drop(stream);
        answers(&daemon);
    }
    assert!(daemon.resident().saturating_sub(before) < 8 * 1024, "memory went with the input");
    assert_eq!(daemon.wait_online("api", 1), pids);
}

/// Does something at the end of a scope, however it ends.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn flood(daemon: &Daemon, count: usize) -> Vec<OwnedFd> {
    let address = UnixAddr::new(&daemon.home.socket()).expect("homes have short names");
    let mut clients = Vec::new();
    for _ in 0..count {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let Ok(client) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { break };
        // A full backlog refuses: that is the supervisor's right.
        if connect(client.as_raw_fd(), &address).is_ok() {
            clients.push(client);
        }
    }
    clients
}

/// How long a command or a request may take in the middle of a flood. A debug build whose two processors
/// are wanted by four more programs took 160 ms at most.
const DESPITE_THE_FLOOD: Duration = ms(1_000);

/// Fault 65.
#[test]
fn ten_thousand_connections_disturb_neither_the_apps_nor_the_owner() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it exists");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .unwrap_or_else(|error| panic!("{soft} to {hard}: {error}"));
    let port = free_port();
    let daemon = Daemon::foreground(api(port));
    let pids = daemon.wait_online("api", 2);
    let (resident, descriptors) = (daemon.resident(), daemon.descriptors());
    let hammer = Load::on(port).clients(3).limit(DESPITE_THE_FLOOD).start();
    let (over, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // Also when the test fails: the scope waits for its thread.
        let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // All of them are open at once until the supervisor ends them.
                connected.fetch_add(flood(&daemon, 2_000).len(), Ordering::Relaxed);
            }
        });
        // In the middle of it the owner is heard. One who is kept from a processor for a tenth of a second
        // between connecting and speaking may lose the place, is told so, and asks again.
        for _ in 0..10 {
            wait_until(DESPITE_THE_FLOOD, "a list in the middle of the flood", || {
                let list = daemon.home.spawn(&["list"]).wait(DESPITE_THE_FLOOD);
                let dropped = list.stderr.contains("dropped this connection");
                assert!(list.code == 0 || dropped, "{list:?}");
                if list.code == 0 { Ok(()) } else { Err(list) }
            });
            assert!(daemon.descriptors() < descriptors + 300, "no limit on connections");
        }
        wait_until(ms(30_000), "ten thousand", || connected.load(Ordering::Relaxed) >= 10_000);
        hammer.wait_answers(100);
    });
    assert!(daemon.resident().saturating_sub(resident) < 16 * 1024, "memory went with the connections");
    wait_until(ms(10_000), "the descriptors as before", || {
        let now = daemon.descriptors();
        if now == descriptors { Ok(()) } else { Err(format!("{now}, were {descriptors}")) }
    });
    answers(&daemon);
    assert_eq!(daemon.wait_online("api", 2), pids);
    hammer.stop().expect_none_lost();
}

/// Fault 66.
#[test]
fn an_operation_goes_on_when_its_client_is_gone() {
    let Some(node) = fixtures::node("server.js") else { return };
    let port = free_port();
    let app = App::new("api", &node).instances(2).port(port);
    let daemon = Daemon::foreground(&app);
    let before = daemon.wait_online("api", 2);
    let generation = daemon.app("api").generation;
    daemon.home.write(&app.env("BOOT_MS", 600).to_string());
    let mut running = daemon.spawn(&["reload", "api"]);
    wait_until(ms(10_000), "the reload under way", || daemon.app("api").reload.is_some());
    running.child.kill().expect("it is our child");
    running.child.wait().expect("it is our child");
    wait_until(ms(20_000), "the end of the reload", || {
        let app = daemon.app("api");
        if app.reload.is_none() && app.generation > generation {
            Ok(())
        } else {
            Err(format!("{:?}", app.reload))
        }
    });
    let after = daemon.wait_online("api", 2);
    assert!(before.iter().all(|pid| !after.contains(pid)));
}

/// Fault 67.
#[test]
fn another_user_is_refused_by_the_kernels_word() {
    if !root() {
        return skip("only root can become another user");
    }
    let daemon = Daemon::foreground(idle("api"));
    daemon.expects(&["was refused"]);
    daemon.wait_online("api", 1);
    // As careless as an administrator can be.
    for (path, mode) in [(daemon.home.path(), 0o755), (daemon.home.socket(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    for verb in [&["ping"][..], &["list"], &["stop", "all"]] {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={ORDINARY}")).arg(format!("--regid={ORDINARY}")).arg("--clear-groups");
        command.arg(daemon.home.binary()).args(verb).env("CLUSTERD_HOME", daemon.home.path());
        let output = command.output().expect("setpriv is part of util-linux");
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {output:?}");
    }
    daemon.wait_online("api", 1);
    wait_until(ms(5_000), "a line in the log that names the user", || {
        daemon.log().contains(&ORDINARY.to_string())
    });
}

/// Fault 68.
#[test]
fn a_second_supervisor_is_refused_with_the_firsts_process_id() {
    let daemon = Daemon::foreground(idle("api"));
    let pids = daemon.wait_online("api", 1);
    let path = daemon.home.file().display().to_string();
    let output = daemon.run(&[&path]).expect_code(1);
    assert!(output.stderr.contains(&daemon.pid.to_string()), "{output:?}");
    assert!(output.took < ms(3_000), "{output:?}");
    assert_eq!(daemon.wait_online("api", 1), pids);
    assert_eq!(daemon.list().daemon.pid, daemon.pid);
}

/// Faults 43 and 69: a dead supervisor's socket and lock stop nobody.
#[test]
fn a_killed_supervisors_leftovers_stop_nobody() {
    let daemon = Daemon::foreground(idle("api"));
    let old = daemon.wait_online("api", 1)[0];
    let home = daemon.kill_hard();
    assert!(home.socket().exists(), "there is no leftover to test with");
    let daemon = Builder::new(idle("api")).start_in(home);
    let new = daemon.wait_online("api", 1)[0];
    assert_ne!(old, new);
    // A process of the dead one may live on, but is never signalled by its bare number.
    if exists(old) {
        send(old, Signal::SIGKILL);
    }
    daemon.wait_online("api", 1);
}

/// Fault 43: the socket of a live supervisor is never unlinked.
#[test]
fn supervisors_that_start_at_once_leave_exactly_one() {
    let home = Home::new(None);
    home.write(&idle("api").to_string());
    let path = home.file().display().to_string();
    let mut racers: Vec<_> = (0..6).map(|_| home.spawn(&[&path])).collect();
    let mut running = || racers.iter_mut().map(|racer| usize::from(racer.runs())).sum::<usize>();
    wait_until(ms(20_000), "a single winner", || running() == 1);
    wait_until(ms(10_000), "an answer", || home.spawn(&["ping"]).wait(ms(10_000)).code == 0);
    home.run(&["kill"]).expect_code(0);
    let mut codes: Vec<i32> = racers.into_iter().map(|racer| home.finish(racer).code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 1, 1, 1, 1, 1]);
}

#[test]
fn logs_shows_last_lines_and_follows() {
    let line = "echo first; echo second; echo third; while [ ! -e go ]; do sleep 0.02; done; echo later; exec sleep 1000";
    let daemon = Daemon::foreground(App::new("api", &fixtures::shell(line)).text("exec_mode", "fork"));
    daemon.wait_for_text("third");
    let output = daemon.run(&["logs", "api", "--lines", "2", "--nostream"]).expect_code(0);
    assert!(output.stdout.contains("second") && output.stdout.contains("third"), "{output:?}");
    assert!(!output.stdout.contains("first"), "{output:?}");
    let mut following = daemon.spawn(&["logs", "api"]);
    wait_until(ms(10_000), "the last lines", || following.stdout().contains("third"));
    daemon.home.put("go", "");
    wait_until(ms(10_000), "the new line", || following.stdout().contains("later"));
    following.child.kill().expect("it is our child");
    following.child.wait().expect("it is our child");
    answers(&daemon);
}
