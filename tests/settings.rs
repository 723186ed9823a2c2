//! Process settings on real workers: as whom they run, within which limits, with which variables, and
//! where their number is written. What cannot be had fails the start, and says why.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::daemon::{Builder, send};
use support::hammer::body;
use support::wait::{holds_for, try_until};
use support::{App, Daemon, Fixture, Home, Load, ORDINARY, fixtures, free_port, root, skip, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn fork(name: &str, fixture: &Fixture) -> App {
    App::new(name, fixture).text("exec_mode", "fork")
}

/// A worker that does nothing but live, so that /proc shows what it was given.
fn idle(name: &str) -> App {
    fork(name, &fixtures::worker(&["idle"]))
}

/// One line of /proc/PID/status, its words.
fn status(pid: i32, key: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel shows it");
    line.split_whitespace().map(str::to_owned).collect()
}

/// The variables that a process was started with, as bytes.
fn variables(pid: i32) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    let pair = |entry: &[u8]| {
        let at = entry.iter().position(|b| *b == b'=')?;
        Some((entry[..at].to_vec(), entry[at + 1..].to_vec()))
    };
    environ.split(|b| *b == 0).filter_map(pair).collect()
}

fn variable(pid: i32, name: &str) -> Option<String> {
    variables(pid).get(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// What the list says about the failed start of an app's first worker.
fn failure(daemon: &Daemon, app: &str) -> String {
    wait_until(ms(20_000), &format!("{app}'s failed start"), || {
        let last = daemon.try_app(app)?.workers.first().and_then(|worker| worker.last_exit.clone());
        match last.as_ref().and_then(|exit| exit.message.clone()) {
            Some(message) => Ok(message),
            None => Err(format!("{last:?}")),
        }
    })
}

/// The supervisor sees these account files in place of the host's.
fn with_accounts(home: &Home, passwd: &str, group: &str) -> Vec<String> {
    home.put("passwd", passwd);
    home.put("group", group);
    let folder = home.apps().display().to_string();
    let line = format!(
        "mount --bind {folder}/passwd /etc/passwd && mount --bind {folder}/group /etc/group && exec \"$@\""
    );
    ["unshare", "-m", "--propagation", "private", "sh", "-c", &line, "sh"].map(str::to_owned).to_vec()
}

fn only_root() -> bool {
    if !root() {
        skip("only root can change users");
    }
    root()
}

#[test]
fn a_worker_has_its_users_groups_and_home_and_no_right_of_root_left() {
    if !only_root() {
        return;
    }
    let home = Arc::new(Home::new(None));
    let accounts = with_accounts(
        &home,
        "root:x:0:0::/root:/bin/sh\nweb:x:4242:4243::/srv/web:/bin/false\n",
        "web:x:4243:\nextra:x:4244:other,web\nroot:x:0:root\n",
    );
    let wrap: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let apps = [
        idle("named").text("user", "web"),
        idle("numbered").set("uid", 4711).env("HOME", "/mine"),
        idle("grouped").text("user", "web").text("gid", "extra"),
        idle("plain"),
    ];
    let daemon = Builder::new(support::file(&apps)).env("SHELL", "/bin/rootsh").env("USER", "root");
    let daemon = daemon.wrap(&wrap).start_in(home);
    let pid = |app: &str| daemon.wait_online(app, 1)[0];
    let ids = |app: &str| (status(pid(app), "Uid:"), status(pid(app), "Gid:"), status(pid(app), "Groups:"));
    let four = |id: &str| vec![id.to_owned(); 4];
    assert_eq!(ids("named"), (four("4242"), four("4243"), vec!["4243".to_owned(), "4244".to_owned()]));
    assert_eq!(ids("numbered"), (four("4711"), four("4711"), vec!["4711".to_owned()]));
    assert_eq!(ids("grouped"), (four("4242"), four("4244"), vec!["4244".to_owned()]));
    assert_eq!(ids("plain").0, four("0"));
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(status(pid("named"), set), ["0000000000000000"], "{set}");
    }
    let of = |app: &str| ["HOME", "USER", "LOGNAME", "SHELL"].map(|name| variable(pid(app), name));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of("named"), [some("/srv/web"), some("web"), some("web"), some("/bin/false")]);
    assert_eq!(of("numbered"), [some("/mine"), None, None, None]);
    assert_eq!(of("plain")[1..2], [some("root")]);
    let setuid_works = status(pid("named"), "NoNewPrivs:");
    assert_eq!(setuid_works, ["0"], "root needs no no_new_privs to intercept");
}

/// Fault 10.
#[test]
fn an_unknown_user_fails_the_start_and_never_runs_as_the_supervisor() {
    let touch = fixtures::shell("touch ran; exec sleep 1000");
    let named = |app: &str, key: &str, name: &str| fork(app, &touch).text(key, name);
    let apps = [
        named("digit", "user", "0day"),
        named("hex", "uid", "1000x"),
        named("blank", "user", " root"),
        named("nobody-group", "group", "no such group"),
    ];
    let daemon = Daemon::foreground(support::file(&apps));
    daemon.expects(&["is not in /etc/passwd", "is not in /etc/group", "unstable exits in a row"]);
    for (app, text) in [
        ("digit", "user \"0day\" is not in /etc/passwd"),
        ("hex", "user \"1000x\" is not in /etc/passwd"),
        ("blank", "user \" root\" is not in /etc/passwd"),
        ("nobody-group", "group \"no such group\" is not in /etc/group"),
    ] {
        let message = failure(&daemon, app);
        assert!(message.contains(text), "{message}");
    }
    holds_for(ms(500), "nobody runs", || daemon.workers().is_empty());
    assert!(!daemon.home.apps().join("ran").exists());
}

#[test]
fn without_the_right_to_change_users_only_ones_own_works() {
    let user = if root() { Some(ORDINARY) } else { None };
    let own = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let apps = [idle("other").text("user", "root"), idle("own").set("user", own)];
    let daemon = Daemon::foreground_as(user, support::file(&apps));
    daemon.expects(&[
        "cannot start as user \"root\"",
        "unstable exits in a row",
        "it cannot be given to user 0 alone",
    ]);
    let message = failure(&daemon, "other");
    for part in ["cannot start as user \"root\"", "setgroups: Operation not permitted", "run it as root"] {
        assert!(message.contains(part), "{message}");
    }
    let pid = daemon.wait_online("own", 1)[0];
    assert_eq!(status(pid, "Uid:"), vec![own.to_string(); 4]);
    assert_eq!(daemon.workers().len(), 1, "{:?}", daemon.workers());
}

/// Fault 34.
#[test]
fn a_user_namespace_without_setgroups_is_named_and_ones_own_number_works() {
    let works = Command::new("unshare").args(["-Ur", "true"]).status().is_ok_and(|status| status.success());
    if !works {
        return skip("this host has no user namespaces");
    }
    let user = if root() { Some(ORDINARY) } else { None };
    let apps = [idle("other").set("user", 12345), idle("own").set("user", 0)];
    let daemon = Builder::new(support::file(&apps)).user(user).wrap(&["unshare", "-Ur"]).start();
    daemon.expects(&[
        "does not allow setgroups",
        "unstable exits in a row",
        "it cannot be given to user 12345 alone",
        "of uid 65534 was refused",
    ]);
    let message = failure(&daemon, "other");
    for part in ["as user 12345", "does not allow setgroups", "newuidmap"] {
        assert!(message.contains(part), "{message}");
    }
    daemon.wait_online("own", 1);
}

/// The supervisor's home stays closed, and what the worker says still counts.
#[test]
fn a_worker_of_another_user_can_say_that_it_is_ready_and_nobody_else_can() {
    if !only_root() {
        return;
    }
    let speaker = fork("api", &fixtures::worker(&["serve", "notify", "300"])).port(free_port());
    let silent = fork("silent", &fixtures::worker(&["idle"]));
    let apps = [speaker, silent].map(|app| app.set("user", ORDINARY).set("wait_ready", true));
    let mut daemon = Daemon::foreground(support::file(&apps));
    daemon.expects(&["which is no worker's"]);
    let pid = daemon.wait_online("api", 1)[0];
    let address = variable(pid, "NOTIFY_SOCKET").expect("every worker has one");
    let forged = UnixDatagram::unbound().expect("a socket");
    forged.send_to(b"READY=1", &address).expect("root may send");
    forged.send_to(b"READY=1", &address).expect("as often as it likes");
    daemon.wait_for_text("which is no worker's");
    holds_for(ms(300), "the silent one is not ready", || daemon.app("silent").status == "launching");
    assert_eq!(daemon.log().matches("no worker's").count(), 1);
    let mode = fs::metadata(daemon.home.path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(ms(20_000)), 0);
    assert!(!PathBuf::from(&address).parent().expect("a folder").exists(), "{address} was left");
}

/// A server that says that it is ready, of this user.
fn speaker(name: &str, user: u32) -> App {
    let app = fork(name, &fixtures::worker(&["serve", "notify", "50"])).port(free_port());
    app.set("user", user).set("wait_ready", true)
}

/// Whoever is neither the worker's user nor root can neither fill a worker's notify socket nor replace it.
#[test]
fn each_user_has_a_notify_socket_that_no_third_one_reaches() {
    if !only_root() {
        return;
    }
    let Some(python) = fixtures::python("notify.py") else { return };
    let third = ORDINARY + 1;
    let daemon = Daemon::foreground(support::file(&[speaker("one", ORDINARY), speaker("two", third)]));
    daemon.expects(&["whose socket it is not"]);
    let address =
        |app: &str| variable(daemon.wait_online(app, 1)[0], "NOTIFY_SOCKET").expect("every worker has one");
    let (one, two) = (address("one"), address("two"));
    assert_ne!(one, two);
    for (path, user) in [(&one, ORDINARY), (&two, third)] {
        let metadata = fs::metadata(path).expect("it is there");
        assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o777), (user, 0o600), "{path}");
    }
    // Connected as root, then somebody else: the kernel lets it through, and the supervisor does not.
    let program = "import os, socket, sys\n\
                   s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
                   u = int(sys.argv[2])\n\
                   if sys.argv[3] == 'before': s.connect(sys.argv[1])\n\
                   os.setgid(u); os.setuid(u)\n\
                   if sys.argv[3] == 'after': s.connect(sys.argv[1])\n\
                   if sys.argv[3] == 'unlink': os.unlink(sys.argv[1])\n\
                   s.send(b'STATUS=forged')\n";
    let attempt = |path: &str, user: u32, when: &str| {
        let output = Command::new(&python.command[0])
            .args(["-c", program, path, &user.to_string(), when])
            .output()
            .expect("there is Python");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (user, when) in [(third, "after"), (third, "unlink"), (ORDINARY, "unlink")] {
        let (done, said) = attempt(&one, user, when);
        assert!(!done && said.contains("PermissionError"), "{user} {when}: {said}");
    }
    assert!(attempt(&one, third, "before").0);
    daemon.wait_for_text(&format!("of user {third}, whose socket it is not"));
    daemon.run(&["delete", "one"]).expect_code(0);
    assert!(!PathBuf::from(&one).exists() && PathBuf::from(&two).exists());
    daemon.run(&["stop", "two"]).expect_code(0);
    assert!(!PathBuf::from(&two).parent().expect("a folder").exists(), "{two} was left");
    daemon.run(&["start", "two"]).expect_code(0);
    assert_eq!(address("two"), two);
}

fn uids(daemon: &Daemon, app: &str) -> Vec<String> {
    daemon.pids(app).into_iter().map(|pid| status(pid, "Uid:")[1].clone()).collect()
}

#[test]
fn servers_of_another_user_are_reloaded_without_loss_also_to_a_third_user() {
    if !only_root() {
        return;
    }
    for name in ["node", "http.server"] {
        let Some(server) = fixtures::server(name) else { continue };
        let port = free_port();
        let api = App::new("api", &server).instances(2).port(port).delay(5);
        let daemon = Daemon::foreground(api.clone().set("user", ORDINARY));
        daemon.wait_online("api", 2);
        assert_eq!(uids(&daemon, "api"), ["65534", "65534"]);
        let load = Load::on(port).start();
        daemon.run(&["reload", "api"]).expect_code(0);
        for (app, uid) in [(api.clone().set("user", 65_533), "65533"), (api.clone(), "0")] {
            daemon.home.write(&app.to_string());
            daemon.run(&["reload", "api"]).expect_code(0);
            assert_eq!(uids(&daemon, "api"), [uid, uid]);
        }
        let history = load.stop();
        history.expect_none_lost();
        assert_eq!(history.generations().len(), 4, "{name}");
    }
}

#[test]
fn a_declared_socket_below_1024_serves_under_a_worker_without_rights() {
    if !only_root() {
        return;
    }
    let free = (600..1024).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok());
    let port = free.expect("one of four hundred ports is free");
    let api = App::new("api", &fixtures::worker(&["serve", "fds"])).instances(2).listen(port);
    let daemon = Daemon::foreground(api.clone().set("user", ORDINARY));
    daemon.wait_online("api", 2);
    let load = Load::on(port).start();
    daemon.run(&["reload", "api"]).expect_code(0);
    daemon.home.write(&api.set("user", 65_533).to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    load.stop().expect_none_lost();
    assert_eq!(uids(&daemon, "api"), ["65533", "65533"]);
}

/// All sockets of one address have one user, or the kernel refuses the second.
#[test]
fn a_server_that_binds_what_is_declared_shares_it_whoever_it_runs_as() {
    if !only_root() {
        return;
    }
    let port = free_port();
    let api = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port).listen(port);
    let daemon = Daemon::foreground(api.set("user", ORDINARY));
    daemon.wait_online("api", 2);
    assert!(body(port, "/").contains(' '));
}

#[test]
fn limits_priorities_and_masks_are_those_of_the_file() {
    let line = "echo umask $(umask); exec sleep 1000";
    let app = fork("api", &fixtures::shell(line)).text("umask", "027").set("nice", 7);
    let app = app.set("oom_score_adj", 500).set("no_new_privs", true);
    let app =
        app.set("rlimits", "{ nofile = { soft = 300, hard = 400 }, core = 0, stack = { hard = \"64M\" } }");
    let daemon = Daemon::foreground(&app);
    daemon.wait_for_text("umask 0027");
    let pid = daemon.wait_online("api", 1)[0];
    let proc = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
    assert_eq!(proc("oom_score_adj").trim(), "500");
    let stat = proc("stat");
    assert_eq!(stat[stat.rfind(')').expect("a name")..].split_whitespace().nth(17), Some("7"), "{stat}");
    assert_eq!(status(pid, "NoNewPrivs:"), ["1"]);
    let limits = proc("limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel shows it");
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[0].to_owned(), words[1].to_owned())
    };
    assert_eq!(limit("Max open files"), ("300".into(), "400".into()));
    assert_eq!(limit("Max core file size"), ("0".into(), "0".into()));
    assert_eq!(limit("Max stack size").1, (64 << 20).to_string());
}

#[test]
fn what_the_host_does_not_grant_fails_the_start_and_is_named() {
    let user = if root() { Some(ORDINARY) } else { None };
    let apps = [
        idle("files").set("rlimits", "{ core = 0, nofile = 200 }"),
        idle("nice").set("nice", -5),
        idle("oom").set("oom_score_adj", -500),
    ];
    let daemon = Builder::new(support::file(&apps)).user(user).wrap(&["prlimit", "--nofile=100:100"]).start();
    daemon.expects(&[
        "cannot set rlimits.nofile",
        "cannot set nice",
        "cannot set oom_score_adj",
        "unstable exits in a row",
    ]);
    for (app, parts) in [
        ("files", ["cannot set rlimits.nofile: Operation not permitted", "CAP_SYS_RESOURCE"]),
        ("nice", ["cannot set nice to -5: Permission denied", "CAP_SYS_NICE"]),
        ("oom", ["cannot set oom_score_adj to -500: Permission denied", "CAP_SYS_RESOURCE"]),
    ] {
        let message = failure(&daemon, app);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    assert!(daemon.workers().is_empty());
}

#[test]
fn a_folder_that_the_user_may_not_enter_fails_the_start() {
    if !only_root() {
        return;
    }
    let home = Arc::new(Home::new(None));
    let closed = home.apps().join("closed");
    fs::create_dir(&closed).expect("the folder is ours");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let app = fork("api", &fixtures::shell("exec sleep 1000")).text("cwd", "closed").set("user", ORDINARY);
    let daemon = Builder::new(&app).start_in(home);
    daemon.expects(&["cannot enter cwd ", "unstable exits in a row"]);
    let message = failure(&daemon, "api");
    assert!(message.contains("closed as user 65534: Permission denied"), "{message}");
}

/// Fault 12 is in it: bytes that are no text, line breaks and equal signs.
#[test]
fn files_of_variables_are_read_anew_and_bytes_pass_unchanged() {
    let home = Arc::new(Home::new(None));
    fs::write(home.apps().join("one.env"), b"A=one\nB=one # comment\nC=one\nODD=\"\xff\\n=x\ny\"\n")
        .expect("ours");
    home.put("two.env", "export B='two'\nC=two\n");
    let app = idle("api").set("env_file", "[\"one.env\", \"two.env\"]").env("C", "env");
    let base = ["sh", "-c", "export BASE=$(printf 'a\\377b\\nc=d') A=base; exec \"$@\"", "sh"];
    let daemon = Builder::new(&app).wrap(&base).start_in(home);
    daemon.expects(&["one.env:3: ", "unstable exits in a row"]);
    let pid = daemon.wait_online("api", 1)[0];
    let of = |pid: i32| ["A", "B", "C"].map(|name| variable(pid, name).unwrap_or_default());
    assert_eq!(of(pid), ["one", "two", "env"]);
    assert_eq!(variables(pid)[&b"ODD"[..]], b"\xff\n=x\ny");
    assert_eq!(variables(pid)[&b"BASE"[..]], b"a\xffb\nc=d");
    daemon.home.put("two.env", "B=three\n");
    daemon.run(&["reload", "api"]).expect_code(0);
    assert_eq!(of(daemon.wait_online("api", 1)[0]), ["one", "three", "env"]);
    daemon.home.put("one.env", "A=four\n\nnonsense\n");
    daemon.run(&["restart", "api"]).expect_code(1).expect_stderr(&["one.env:3: expected NAME=value"]);
    daemon.home.put("one.env", "A=five\n");
    daemon.run(&["restart", "api"]).expect_code(0);
    assert_eq!(of(daemon.wait_online("api", 1)[0]), ["five", "three", "env"]);
}

/// Fault 12, through the control socket.
#[test]
fn odd_bytes_of_the_callers_environment_reach_a_background_supervisors_workers() {
    let home = Home::new(None);
    home.write(&idle("api").to_string());
    let file = home.file().display().to_string();
    let odd: &[(&[u8], &[u8])] = &[(b"ODD", b"a\xffb\nc=d"), (b"NA\xfeME", b"x"), (b"EMPTY", b"")];
    let started = home.spawn_with(&["start", &file], |command| {
        command.envs(odd.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value))));
    });
    home.finish(started).expect_code(0);
    let pid = home.run(&["pid", "api"]).expect_code(0).stdout.trim().parse().expect("a process id");
    let seen = variables(pid);
    for (name, value) in odd {
        assert_eq!(seen.get(*name).map(Vec::as_slice), Some(*value), "{}", String::from_utf8_lossy(name));
    }
    home.run(&["kill"]).expect_code(0);
}

#[test]
fn a_broken_file_of_variables_does_not_touch_what_serves() {
    let Some(node) = fixtures::node("server.js") else { return };
    let home = Arc::new(Home::new(None));
    home.put(".env", "VERSION=one\n");
    let port = free_port();
    let app = App::new("api", &node).instances(1).port(port).text("env_file", ".env");
    let daemon = Builder::new(&app).start_in(home);
    daemon.expects(&[".env:1: "]);
    let pids = daemon.wait_online("api", 1);
    daemon.home.put(".env", "VERSION='two\n");
    daemon.run(&["reload", "api"]).expect_code(1).expect_stderr(&[".env:1: the quote ' that opens here"]);
    assert_eq!((daemon.pids("api"), body(port, "/version").trim()), (pids, "one"));
}

#[test]
fn the_callers_environment_is_filtered_as_the_file_says() {
    let apps = [
        idle("whole"),
        idle("named").text("filter_env", "AWS_KEY"),
        idle("parts").set("filter_env", "[\"AWS\"]").env("AWS_OWN", "declared"),
        idle("none").set("filter_env", true),
    ];
    let daemon = Builder::new(support::file(&apps)).env("AWS_KEY", "k").env("AWS_KEY_ID", "i").start();
    let of = |app: &str| {
        let pid = daemon.wait_online(app, 1)[0];
        ["AWS_KEY", "AWS_KEY_ID", "AWS_OWN", "PATH"].map(|name| variable(pid, name).is_some())
    };
    assert_eq!(of("whole"), [true, true, false, true]);
    assert_eq!(of("named"), [false, true, false, true]);
    assert_eq!(of("parts"), [false, false, true, true]);
    // The harness finds processes by a variable that this one has lost: it is ended here.
    assert_eq!(of("none"), [false, false, false, false]);
    daemon.run(&["stop", "none"]).expect_code(0);
}

#[test]
fn each_instance_has_its_number_and_its_port() {
    let apps = [
        idle("plain").set("instances", 2),
        idle("named")
            .set("instances", 3)
            .text("instance_var", "APP_ID")
            .text("increment_var", "PORT")
            .port(3000),
        idle("fresh").set("instances", 2).text("increment_var", "SHARD"),
        idle("odd").text("increment_var", "PORT").env("PORT", "http"),
    ];
    let daemon = Daemon::foreground(support::file(&apps.map(|app| app.text("exec_mode", "fork"))));
    daemon.expects(&["expected a whole number", "odd id 7: ", "was ended by SIGKILL"]);
    let of = |app: &str, count: usize, name: &str| -> Vec<String> {
        let pids = daemon.wait_online(app, count);
        pids.into_iter().map(|pid| variable(pid, name).unwrap_or_default()).collect()
    };
    assert_eq!(of("plain", 2, "NODE_APP_INSTANCE"), ["0", "1"]);
    assert_eq!(of("named", 3, "APP_ID"), ["0", "1", "2"]);
    assert_eq!(of("named", 3, "NODE_APP_INSTANCE"), ["", "", ""]);
    assert_eq!(of("named", 3, "PORT"), ["3000", "3001", "3002"]);
    assert_eq!(of("fresh", 2, "SHARD"), ["0", "1"]);
    let message = failure(&daemon, "odd");
    assert!(
        message.contains("increment_var PORT: expected a whole number in this variable; correct it"),
        "{message}"
    );
    let killed = daemon.pids("named")[1];
    send(killed, Signal::SIGKILL);
    wait_until(ms(10_000), "another process", || !daemon.pids("named").contains(&killed));
    wait_until(ms(10_000), "the same port again", || of("named", 3, "PORT") == ["3000", "3001", "3002"]);
}

/// Fault 11.
#[test]
fn too_large_an_environment_names_the_variable() {
    let home = Arc::new(Home::new(None));
    home.put("long.env", &format!("A=1\nHUGE={}\n", "x".repeat(1_000_000)));
    home.put("many.env", &format!("B={0}\nLONGEST={0}y\nC={0}\n", "x".repeat(100_000)));
    let apps = [
        idle("long").text("env_file", "long.env"),
        idle("many").text("env_file", "many.env").set("rlimits", "{ stack = \"1M\" }"),
        idle("other"),
    ];
    let apps = apps.map(|app| app.set("max_restarts", 2));
    let daemon = Builder::new(support::file(&apps)).argument("--no-log-files").start_in(home);
    daemon.expects(&["(E2BIG)", "unstable exits in a row"]);
    let message = failure(&daemon, "long");
    assert!(message.contains("long.env:2: HUGE is 1000005 bytes long"), "{message}");
    let message = failure(&daemon, "many");
    assert!(message.contains("(E2BIG)") && message.contains("the longest variable is LONGEST"), "{message}");
    assert!(message.len() < 1_000, "{} bytes", message.len());
}

fn pid_file(path: &std::path::Path) -> Result<i32, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.trim().parse().map_err(|error| format!("{text:?}: {error}"))
}

#[test]
fn pid_files_come_with_their_worker_and_go_with_it() {
    let port = free_port();
    let api = App::new("api", &fixtures::worker(&["serve"])).instances(2).port(port);
    let apps = [api, idle("job").text("pid_file", "run/job.pid")];
    let daemon = Daemon::foreground(support::file(&apps));
    daemon.expects(&["exited with code 1 ", "reload to generation 3 failed"]);
    let folder = daemon.home.path().join("pids");
    let paths: Vec<PathBuf> = (0..2).map(|instance| folder.join(format!("api-{instance}.pid"))).collect();
    let job = daemon.home.apps().join("run/job.pid");
    let agree = |when: &str| {
        wait_until(ms(10_000), &format!("the files of the workers {when}"), || {
            let files: Vec<_> = paths.iter().map(|path| pid_file(path)).collect();
            let pids: Vec<_> = daemon.pids("api").into_iter().map(Ok).collect();
            if files == pids { Ok(()) } else { Err(format!("{files:?} {pids:?}")) }
        });
    };
    daemon.wait_online("api", 2);
    agree("at the start");
    assert_eq!(pid_file(&job), Ok(daemon.wait_online("job", 1)[0]));
    let old = daemon.pids("api");
    daemon.run(&["reload", "api"]).expect_code(0);
    assert!(daemon.pids("api").iter().all(|pid| !old.contains(pid)));
    agree("after a reload");
    let served = daemon.pids("api");
    daemon
        .home
        .write(&support::file(&[App::new("api", &fixtures::worker(&["exit", "1", "300"])).instances(2)]));
    daemon.run(&["reload", "api"]).expect_code(1);
    assert_eq!(daemon.pids("api"), served);
    agree("after a reload that was taken back");
    daemon.run(&["scale", "api", "1"]).expect_code(0);
    assert!(paths[0].exists() && !paths[1].exists());
    daemon.run(&["stop", "all"]).expect_code(0);
    let left: Vec<_> = fs::read_dir(&folder).expect("it is there").collect();
    assert!(left.is_empty() && !job.exists(), "{left:?}");
}

#[test]
fn a_killed_supervisors_pid_files_are_cleared_and_named_ones_that_cannot_be_made_are_an_error() {
    let home = Arc::new(Home::new(None));
    let folder = home.path().join("pids");
    fs::create_dir(&folder).expect("the home is fresh");
    fs::write(folder.join("gone-0.pid"), "1\n").expect("ours");
    home.put("file", "in the way");
    let apps = [idle("job"), idle("blocked").text("pid_file", "file/x.pid")];
    let daemon = Builder::new(support::file(&apps)).start_in(home);
    daemon.expects(&["file/x.pid: cannot be made", "unstable exits in a row"]);
    daemon.wait_online("job", 1);
    let names: Vec<_> =
        fs::read_dir(&folder).expect("it is there").map(|e| e.expect("its entry").file_name()).collect();
    assert_eq!(names, ["job-0.pid"]);
    let message = failure(&daemon, "blocked");
    assert!(message.contains("file/x.pid: cannot be made: File exists"), "{message}");
}

/// A worker's user must not get at what only root may read, nor at root's files, by way of the supervisor.
#[test]
fn root_reads_and_writes_nothing_that_a_workers_user_leads_elsewhere() {
    if !only_root() {
        return;
    }
    let home = Arc::new(Home::new(None));
    let foreign = home.apps().join("foreign");
    fs::create_dir(&foreign).expect("fresh");
    home.put("secret.env", "TOKEN=sesame\n");
    let secret = home.apps().join("secret.env");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("ours");
    fs::write(foreign.join("mine.env"), "A=mine\n").expect("ours");
    for (name, target) in [("stolen.env", &secret), ("linked.env", &foreign.join("mine.env"))] {
        symlink(target, foreign.join(name)).expect("fresh");
    }
    fs::hard_link(&secret, foreign.join("hard.env")).expect("one file system");
    symlink(&secret, home.apps().join("roots.env")).expect("fresh");
    // A folder that only root writes to, by a link that is the user's.
    let roots = home.apps().join("roots");
    fs::create_dir(&roots).expect("fresh");
    symlink(&roots, foreign.join("led")).expect("fresh");
    for name in ["", "mine.env", "stolen.env", "linked.env", "led"] {
        lchown(foreign.join(name), Some(ORDINARY), Some(ORDINARY)).expect("we are root");
    }
    let of = |name: &str, file: &str| idle(name).set("user", ORDINARY).text("env_file", file);
    let apps = [
        of("stolen", "foreign/stolen.env"),
        of("hard", "foreign/hard.env"),
        of("mine", "foreign/linked.env"),
        of("given", "roots.env"),
        idle("written").set("user", ORDINARY).text("pid_file", "foreign/run/x.pid"),
        idle("led").set("user", ORDINARY).text("pid_file", "foreign/led/x.pid"),
    ];
    let daemon = Builder::new(support::file(&apps)).start_in(home);
    daemon.expects(&[
        "foreign/stolen.env: ",
        "foreign/hard.env: ",
        "foreign/run/x.pid: ",
        "foreign/led/x.pid: ",
        "unstable exits in a row",
    ]);
    let message = failure(&daemon, "stolen");
    for part in ["foreign/stolen.env belongs to user", "secret.env, which is user 0's", "chown -h"] {
        assert!(message.contains(part), "{message}");
    }
    let message = failure(&daemon, "hard");
    assert!(message.contains("hard.env is root's and has 2 names"), "{message}");
    let message = failure(&daemon, "written");
    for part in ["foreign/run/x.pid", "user 61234 can write to", "leave pid_file out"] {
        let part = part.replace("61234", &ORDINARY.to_string());
        assert!(message.contains(&part), "{message}");
    }
    assert!(!foreign.join("run").exists());
    let message = failure(&daemon, "led");
    let part = format!("user {ORDINARY} can write to {}", foreign.display());
    assert!(message.contains(&part), "{message}");
    assert!(!roots.join("x.pid").exists());
    let a = |app: &str, name: &str| variable(daemon.wait_online(app, 1)[0], name);
    assert_eq!((a("mine", "A"), a("given", "TOKEN")), (Some("mine".into()), Some("sesame".into())));
    assert!(!daemon.log().contains("sesame"), "{}", daemon.log());
}

#[test]
fn apps_of_one_name_in_two_namespaces_have_a_pid_file_each() {
    let apps = [idle("api"), idle("api").text("namespace", "shop")];
    let daemon = Daemon::foreground(support::file(&apps));
    let folder = daemon.home.path().join("pids");
    wait_until(ms(10_000), "a file of each", || {
        let files = ["api-0.pid", "shop@api-0.pid"].map(|name| pid_file(&folder.join(name)));
        let pids: Vec<_> =
            daemon.list().apps.iter().flat_map(|app| &app.workers).filter_map(|w| w.pid).map(Ok).collect();
        if pids.len() == 2 && files.iter().all(|file| pids.contains(file)) {
            Ok(())
        } else {
            Err(format!("{files:?}"))
        }
    });
}

/// npm neither joins a port nor answers a signal for its server: the tree does.
#[test]
fn npm_start_serves_reloads_without_loss_and_stops_as_a_whole() {
    if support::runtime("npm").is_none() {
        return;
    }
    let Some(node) = fixtures::node("graceful.js") else { return };
    let home = Arc::new(Home::new(None));
    let package = format!(
        "{{\"name\":\"a\",\"version\":\"1.0.0\",\"scripts\":{{\"start\":\"{} graceful.js\"}}}}",
        node.command[0]
    );
    home.put("package.json", &package);
    let port = free_port();
    let app = App::bare("api").text("script", "npm start").instances(1).port(port).delay(20);
    let app = app
        .text("min_healthy_time", "100ms")
        .text("kill_timeout", "10s")
        .env("npm_config_update_notifier", "false");
    let daemon = Builder::new(&app).start_in(home);
    let npm = daemon.wait_online("api", 1)[0];
    let load = Load::on(port).start();
    let server: i32 =
        body(port, "/").split(' ').next().and_then(|pid| pid.parse().ok()).expect("its process id");
    assert_ne!(server, npm, "the server is below npm");
    daemon.run(&["reload", "api"]).expect_code(0);
    load.stop().expect_none_lost();
    wait_until(ms(10_000), "the old tree is gone", || {
        !support::daemon::exists(server) && !support::daemon::exists(npm)
    });
    let output = daemon.run(&["stop", "api"]).expect_code(0);
    assert!(output.took < ms(9_000), "it was killed, not asked: {output:?}");
    assert_eq!(daemon.workers(), []);
}

/// Fault 33: profiles of containers that do not know the newer calls answer EPERM, others ENOSYS.
#[test]
fn a_profile_that_refuses_newer_calls_costs_nothing_that_serves() {
    let Some(python) = fixtures::python("refused.py") else { return };
    if support::runtime("strace").is_none() {
        return;
    }
    // The supervisor alone by strace: threads of a worker would fail, too. In the child by a profile.
    let calls = "clone3,pidfd_open,pidfd_send_signal,pidfd_getfd";
    let close_range = libc::SYS_close_range.to_string();
    for (errno, name) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")] {
        let number = errno.to_string();
        let profile = [&python.command[0], "refused.py", &close_range, &number, "0", "0"];
        let (trace, fault) = (format!("trace={calls}"), format!("inject={calls}:error={name}"));
        let strace = ["strace", "-D", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &fault];
        let wrap = [&profile[..], &strace].concat();
        let port = free_port();
        let api = App::new("api", &fixtures::worker(&["serve", "fds"])).instances(2).listen(port);
        let stubborn = fork("tree", &fixtures::shell("trap '' INT; sleep 1000 & while :; do wait; done"))
            .text("kill_timeout", "300ms");
        let mut daemon = Builder::new(support::file(&[api, stubborn])).wrap(&wrap).start();
        // Where clone3 is refused by EPERM the C library begins no thread: log files are written in the loop then.
        daemon.expects(&["was ended by SIGKILL", "did not end in kill_timeout", "no thread can write them"]);
        let old = daemon.wait_online("api", 2);
        daemon.wait_online("tree", 1);
        let load = Load::on(port).start();
        daemon.run(&["reload", "api"]).expect_code(0);
        load.stop().expect_none_lost();
        assert!(daemon.pids("api").iter().all(|pid| !old.contains(pid)));
        send(daemon.pids("api")[0], Signal::SIGKILL);
        daemon.wait_online("api", 2);
        daemon.run(&["stop", "tree"]).expect_code(0);
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait_exit(ms(20_000)), 0, "errno {errno}");
        assert_eq!(daemon.home.processes(), [], "errno {errno}");
    }
}

/// The control socket is no way in for a worker of another user.
#[test]
fn a_worker_of_another_user_cannot_reach_the_control_socket() {
    if !only_root() {
        return;
    }
    let home = Arc::new(Home::new(None));
    let path = home.socket().display().to_string();
    let line = format!("ls {path} >/dev/null 2>&1 && echo reached || echo closed; exec sleep 1000");
    let app = fork("api", &fixtures::shell(&line)).set("user", ORDINARY);
    let daemon = Builder::new(&app).start_in(home);
    daemon.wait_for_text("closed");
    assert!(UnixStream::connect(daemon.home.socket()).is_ok());
    assert!(try_until(ms(10), || daemon.output().contains("reached")).is_err());
}
