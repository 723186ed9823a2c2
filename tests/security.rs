//! The rules of a supervisor that may run as root beside workers that may be hostile: a test for each, here
//! or where README.md of this folder says.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use support::daemon::Builder;
use support::wait::holds_for;
use support::{
    App, Daemon, Fixture, Home, ORDINARY, file, fixtures, free_port, root, runtime, skip, wait_until,
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

fn only_root() -> bool {
    if !root() {
        skip("only root can give folders away and change users");
    }
    root()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// What the list says about the failed start of an app's first worker.
fn failure(daemon: &Daemon, app: &str) -> String {
    wait_until(ms(20_000), &format!("{app}'s failed start"), || {
        daemon.try_app(app).ok()?.workers.first()?.last_exit.clone()?.message
    })
}

/// Rule 1: there is no way back to root.
#[test]
fn a_worker_of_another_user_cannot_take_its_rights_back() {
    if !only_root() {
        return;
    }
    let Some(python) = runtime("python3") else { return };
    let text = "import os, time\n\
                def attempt(what, *words):\n\
                \x20   try:\n        what(*words)\n        print('took', what.__name__, flush=True)\n\
                \x20   except PermissionError:\n        print('refused', what.__name__, flush=True)\n\
                attempt(os.setuid, 0)\nattempt(os.setresuid, -1, 0, -1)\nattempt(os.setgid, 0)\n\
                attempt(os.setgroups, [0])\nattempt(os.kill, os.getppid(), 0)\n\
                print('end of attempts', flush=True)\ntime.sleep(1000)\n";
    let home = Arc::new(Home::new(None));
    home.put("back.py", text);
    let app = fork("api", &Fixture::new(&[&python.display().to_string(), "back.py"])).set("user", ORDINARY);
    let daemon = Builder::new(app).start_in(home);
    daemon.wait_for_text("end of attempts");
    let output = daemon.output();
    assert!(!output.contains("took"), "{output}");
    assert_eq!(output.matches("refused").count(), 5, "{output}");
}

/// Rule 1: whatever the supervisor has and could inherit to others, and with `no_new_privs` not even the bounding
/// set; without that setuid programs such as sudo go on working.
#[test]
fn a_worker_of_another_user_has_no_capabilities_in_any_set() {
    if !only_root() || runtime("setpriv").is_none() {
        return;
    }
    let capable = ["setpriv", "--inh-caps=+chown,+kill", "--ambient-caps=+chown,+kill"];
    let bound = idle("bound").set("user", ORDINARY).set("no_new_privs", true);
    let apps = [bound, idle("plain").set("user", ORDINARY), idle("own").set("no_new_privs", true)];
    let daemon = Builder::new(file(&apps)).wrap(&capable).start();
    let set = |pid: i32, name: &str| -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("always there");
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    };
    assert_ne!(set(daemon.pid, "CapAmb:"), 0, "the supervisor was to have some");
    let bounding = set(daemon.pid, "CapBnd:");
    for (app, left) in [("bound", 0), ("plain", bounding)] {
        let pid = daemon.wait_online(app, 1)[0];
        let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "CapBnd:"].map(|name| set(pid, name));
        assert_eq!(sets, [0, 0, 0, 0, left], "{app}");
    }
    assert_eq!(set(daemon.wait_online("own", 1)[0], "CapBnd:"), bounding, "root stays what it is");
}

/// Rule 2: a Unix socket is the only way in.
#[test]
fn the_supervisor_itself_listens_nowhere_on_the_network() {
    let daemon = Daemon::foreground(idle("api"));
    daemon.wait_online("api", 1);
    let links = fs::read_dir(format!("/proc/{}/fd", daemon.pid)).expect("it runs").flatten();
    let targets = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets: Vec<String> = targets
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!sockets.is_empty(), "not even a control socket");
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        let Ok(text) = fs::read_to_string(format!("/proc/{}/net/{table}", daemon.pid)) else { continue };
        let inodes = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9));
        let ours: Vec<&str> = inodes.filter(|inode| sockets.iter().any(|ours| ours == inode)).collect();
        assert_eq!(ours, Vec::<&str>::new(), "{table}: {text}");
    }
}

/// Rule 2: whoever is refused is in the log with user and process, and has said nothing before.
#[test]
fn a_stranger_is_refused_before_it_speaks_and_named_with_its_process() {
    if !only_root() {
        return;
    }
    let Some(python) = runtime("python3") else { return };
    let daemon = Daemon::foreground(idle("api"));
    daemon.expects(&["was refused"]);
    let pids = daemon.wait_online("api", 1);
    set_mode(&daemon.home.path(), 0o755);
    set_mode(&daemon.home.socket(), 0o666);
    let text = "import os, socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                print(os.getpid())\n\
                try:\n    s.sendall(b'{\"version\":1,\"request\":{\"verb\":\"kill\"}}\\n')\n\
                except (BrokenPipeError, ConnectionResetError):\n    pass\n\
                s.settimeout(10)\n\
                try:\n    sys.stderr.write(s.recv(4096).decode())\nexcept ConnectionResetError:\n    pass\n";
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={ORDINARY}")).arg(format!("--regid={ORDINARY}")).arg("--clear-groups");
    let output = command.arg(python).args(["-c", text]).arg(daemon.home.socket()).output();
    let output = output.expect("setpriv is part of util-linux");
    let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let answer = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!answer.contains("api") && !answer.contains("Traceback"), "{answer}");
    wait_until(ms(5_000), "the stranger in the log", || {
        let log = daemon.log();
        let named = log.lines().any(|line| line.contains(&ORDINARY.to_string()) && line.contains(&pid));
        if named { Ok(()) } else { Err(log) }
    });
    assert_eq!(daemon.wait_online("api", 1), pids);
}

/// Rule 5: a link that somebody else may have put there leads nobody anywhere.
#[test]
fn a_log_file_that_is_a_link_in_a_strangers_folder_is_not_followed() {
    if !only_root() {
        return;
    }
    let home = Arc::new(Home::new(None));
    let folder = home.apps().join("theirs");
    fs::create_dir(&folder).expect("the folder is fresh");
    let victim = home.apps().join("victim");
    fs::write(&victim, "precious\n").expect("it is ours");
    for name in ["linked.log", "later.log"] {
        symlink(&victim, folder.join(name)).expect("the folder is fresh");
    }
    fs::remove_file(folder.join("later.log")).expect("it is ours");
    chown(&folder, Some(ORDINARY), Some(ORDINARY)).expect("root gives folders away");
    let chatty = |name: &str| {
        let line = "while :; do echo hostile words; sleep 0.05; done";
        fork(name, &fixtures::shell(line)).text("out_file", &format!("theirs/{name}.log"))
    };
    // As with fs.protected_hardlinks off.
    fs::hard_link(&victim, folder.join("hard.log")).expect("one file system");
    let daemon = Builder::new(file(&["linked", "hard", "later"].map(chatty))).start_in(home);
    daemon.expects(&[
        "linked.log: user",
        "it is a symbolic link in a folder",
        "has another name",
        "unstable exits in a row",
    ]);
    let message = failure(&daemon, "hard");
    assert!(message.contains("theirs/hard.log") && message.contains("has another name"), "{message}");
    let message = failure(&daemon, "linked");
    assert!(
        message.contains("theirs/linked.log") && message.contains("and lead the file elsewhere"),
        "{message}"
    );
    // Where the link comes later, opening the file again does not follow it either.
    let log = folder.join("later.log");
    wait_until(ms(10_000), "the first lines", || fs::metadata(&log).is_ok_and(|file| file.len() > 0));
    fs::remove_file(&log).expect("it is ours");
    symlink(&victim, &log).expect("it is gone");
    daemon.run(&["reload-logs"]).expect_code(1).expect_stderr(&["it is a symbolic link in a folder"]);
    daemon.signal(nix::sys::signal::Signal::SIGUSR2);
    holds_for(ms(500), "the victim is as it was", || {
        fs::read_to_string(&victim).is_ok_and(|text| text == "precious\n")
    });
    daemon.wait_online("later", 1);
}

const HOSTILE: &str = "while :; do echo hostile words of $$; sleep 0.02; done";

/// A folder `user/logs` of an ordinary user, and one of root's with a file that only root may touch.
fn folder_of_a_user(home: &Home) -> [std::path::PathBuf; 2] {
    let logs = home.apps().join("user/logs");
    fs::create_dir_all(&logs).expect("the folder is fresh");
    for folder in ["user", "user/logs"] {
        chown(home.apps().join(folder), Some(ORDINARY), Some(ORDINARY)).expect("root gives folders away");
    }
    let roots = home.apps().join("roots");
    fs::create_dir(&roots).expect("the folder is fresh");
    fs::write(roots.join("web.log"), "precious\n").expect("it is ours");
    set_mode(&roots.join("web.log"), 0o600);
    [logs, roots]
}

/// Rule 5: who can exchange the folder of a log file leads root nowhere by it, neither while it is written nor when it
/// is emptied or opened again, and it needs no race.
#[test]
fn a_log_folder_that_its_user_exchanges_for_a_link_leads_root_nowhere() {
    if !only_root() {
        return;
    }
    let home = Arc::new(Home::new(None));
    let [logs, roots] = folder_of_a_user(&home);
    let web = fork("web", &fixtures::shell(HOSTILE)).set("user", ORDINARY);
    let web = web.text("out_file", "user/logs/web.log").text("log_file", "user/logs/all.log");
    let daemon = Builder::new(web).start_in(home);
    daemon.expects(&["Permission denied", "unstable exits in a row"]);
    let len = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    wait_until(ms(10_000), "the first lines", || {
        len(&logs.join("web.log")) > 0 && len(&logs.join("all.log")) > 0
    });
    let aside = logs.with_file_name("aside");
    fs::rename(&logs, &aside).expect("one folder");
    symlink(&roots, &logs).expect("it is gone");
    std::os::unix::fs::lchown(&logs, Some(ORDINARY), Some(ORDINARY)).expect("we are root");
    // It is noticed without anybody's doing, and by who asks for it.
    daemon.wait_for_text("web.log: cannot be rotated");
    daemon.run(&["reload-logs"]).expect_code(1).expect_stderr(&["web.log", "as the app's user", "chown"]);
    daemon.run(&["stop", "web"]).expect_code(0);
    daemon.run(&["flush", "web"]).expect_code(1).expect_stderr(&["web.log: cannot be emptied"]);
    daemon.run(&["start", "web"]).expect_code(1);
    let left: Vec<_> = fs::read_dir(&roots).expect("it is ours").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["web.log"]);
    assert_eq!(fs::read_to_string(roots.join("web.log")).expect("it is ours"), "precious\n");
    fs::remove_file(&logs).expect("it is a link");
    fs::rename(&aside, &logs).expect("one folder");
    daemon.run(&["stop", "web"]).expect_code(0);
    daemon.run(&["flush", "web"]).expect_code(0);
    assert_eq!(len(&logs.join("web.log")), 0);
    daemon.run(&["start", "web"]).expect_code(0);
    wait_until(ms(10_000), "lines again", || len(&logs.join("web.log")) > 0);
}

/// Rule 5: one user deploys what another one runs, as on many hosts. Whoever has the folders above may lead the files
/// where the app's user could write alone, and not where only root can.
#[test]
fn log_files_below_the_folder_of_who_deploys_are_written_as_the_apps_user() {
    const DEPLOY: u32 = ORDINARY - 2;
    if !only_root() {
        return;
    }
    let home = Arc::new(Home::new(None));
    let [logs, roots] = folder_of_a_user(&home);
    chown(logs.parent().expect("it has one"), Some(DEPLOY), Some(DEPLOY)).expect("root gives folders away");
    let web =
        fork("web", &fixtures::shell(HOSTILE)).set("user", ORDINARY).text("out_file", "user/logs/web.log");
    let daemon = Builder::new(web).start_in(home);
    daemon.expects(&["Permission denied", "unstable exits in a row"]);
    let log = logs.join("web.log");
    wait_until(ms(10_000), "the first lines", || fs::metadata(&log).is_ok_and(|file| file.len() > 0));
    assert_eq!(fs::metadata(&log).expect("it is there").uid(), ORDINARY);
    fs::rename(&logs, logs.with_file_name("aside")).expect("one folder");
    symlink(&roots, &logs).expect("it is gone");
    std::os::unix::fs::lchown(&logs, Some(DEPLOY), Some(DEPLOY)).expect("we are root");
    daemon.wait_for_text("web.log: cannot be rotated");
    daemon.run(&["reload-logs"]).expect_code(1).expect_stderr(&["web.log", "as the app's user"]);
    daemon.run(&["stop", "web"]).expect_code(0);
    daemon.run(&["start", "web"]).expect_code(1);
    let left: Vec<_> = fs::read_dir(&roots).expect("it is ours").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["web.log"]);
    assert_eq!(fs::read_to_string(roots.join("web.log")).expect("it is ours"), "precious\n");
}

/// Rule 5: what is kept in the folder of an app's user is the user's; who else's it would be is refused.
#[test]
fn log_files_in_a_users_folder_are_written_rotated_and_compressed_as_that_user() {
    if !only_root() {
        return;
    }
    let home = Arc::new(Home::new(None));
    let [logs, _] = folder_of_a_user(&home);
    // As a umask of 002 leaves it.
    set_mode(&home.apps().join("user"), 0o775);
    let app = |name: &str, path: &str| {
        let line = "x=$(head -c 4000 /dev/zero | tr '\\0' x); while :; do echo $x; sleep 0.01; done";
        let app = fork(name, &fixtures::shell(line)).text("out_file", path);
        app.text("log_max_size", "64K").set("log_max_files", 2)
    };
    let own = app("own", "user/logs/own.log").set("user", ORDINARY);
    let made = app("made", "user/new/made.log").set("user", ORDINARY);
    let roots = app("roots", "user/logs/roots.log");
    let others = app("others", "user/logs/others.log").set("user", ORDINARY - 1);
    let daemon = Builder::new(file(&[own, made, roots, others])).start_in(home);
    daemon.expects(&["can write to", "Permission denied", "unstable exits in a row"]);
    let denied = ["as the app's user".to_owned(), "Permission denied".to_owned()];
    let refused = [format!("user {ORDINARY} can write to"), "default one".to_owned()];
    for (name, parts) in [("roots", refused), ("others", denied)] {
        let message = failure(&daemon, name);
        for part in parts.iter().chain(&[format!("log file {}", logs.display())]) {
            assert!(message.contains(part), "{name}: {message}");
        }
        assert!(!logs.join(format!("{name}.log")).exists());
    }
    for (folder, base) in [(logs.clone(), "own.log"), (logs.with_file_name("new"), "made.log")] {
        wait_until(ms(20_000), &format!("old files of {base}"), || {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            let compressed = names.iter().filter(|name| name.ends_with(".gz")).count();
            // One that was there is gone.
            if compressed == 2 { Ok(()) } else { Err(names) }
        });
        let mut paths: Vec<_> =
            fs::read_dir(&folder).expect("it is there").flatten().map(|e| e.path()).collect();
        paths.push(folder.clone());
        for path in paths {
            // What is too old goes meanwhile.
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            assert_eq!((found.uid(), found.gid()), (ORDINARY, ORDINARY), "{}", path.display());
        }
    }
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid)).expect("it runs");
    let uid = status.lines().find(|line| line.starts_with("Uid:")).expect("always there");
    assert_eq!(uid.split_whitespace().skip(1).collect::<Vec<_>>(), ["0"; 4], "nothing of the user's stays");
}

/// Rule 5: as root, in a folder where others write nothing is safe.
#[test]
fn a_home_that_others_can_write_is_refused_as_root() {
    if !only_root() {
        return;
    }
    let spoil: [fn(&Home); 4] = [
        |home| set_mode(&home.path(), 0o777),
        |home| set_mode(&home.path(), 0o770),
        |home| chown(home.path(), Some(ORDINARY), None).expect("root gives folders away"),
        // The logs' folder alone.
        |home| {
            let logs = home.path().join("logs");
            fs::create_dir(&logs).expect("the home is fresh");
            set_mode(&logs, 0o777);
        },
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let home = Home::new(None);
        home.write(&idle("api").to_string());
        spoil(&home);
        let path = home.file().display().to_string();
        for words in [&[path.as_str()][..], &["start", &path]] {
            let output = home.run(words).expect_code(1).expect_stderr(&["can write here", "--home"]);
            assert!(output.took < ms(5_000), "{number}: {output:?}");
            assert_eq!(home.processes(), [], "{number}");
        }
    }
}

/// Rule 5: a folder of logs that the file names is no safer than one of the home.
#[test]
fn a_log_dir_that_others_can_write_is_refused_as_root() {
    if !only_root() {
        return;
    }
    // The second one leads to a folder that nobody else can write, by a link in one that is somebody else's.
    for (log_dir, owner, mode) in [("theirs", None, 0o777), ("theirs/link", Some(ORDINARY), 0o755)] {
        let home = Arc::new(Home::new(None));
        let (folder, roots) = (home.apps().join("theirs"), home.apps().join("roots"));
        for folder in [&folder, &roots] {
            fs::create_dir(folder).expect("the folder is fresh");
        }
        symlink(&roots, folder.join("link")).expect("the folder is fresh");
        set_mode(&folder, mode);
        chown(&folder, owner, None).expect("root gives folders away");
        let chatty = fork("api", &fixtures::shell("echo hello; exec sleep 1000"));
        let text = format!("[daemon]\nlog_dir = \"{log_dir}\"\n{chatty}");
        let daemon = Builder::new(text).start_in(home);
        daemon.expects(&["can write here"]);
        // A default file that cannot be had costs a warning, and no worker.
        daemon.wait_online("api", 1);
        daemon.wait_for_text("can write");
        for (folder, entries) in [(folder, 1), (roots, 0)] {
            let left: Vec<_> = fs::read_dir(&folder).expect("it is there").flatten().collect();
            assert_eq!(left.len(), entries, "{left:?}");
        }
    }
}

/// Rule 5: what holds variables or process ids is nobody else's to read. Variables are in the one file that apps are
/// brought back from; those of an `env_file` are not even there.
#[test]
fn every_file_of_the_home_is_its_owners_alone() {
    let home = Arc::new(Home::new(None));
    home.put("secret.env", "PASSWORD=hunter3\n");
    home.write(&file(&[idle("api").env("TOKEN", "hunter2").text("env_file", "secret.env")]));
    let output = home.run(&["start", &home.file().display().to_string()]);
    let daemon = Daemon::of(&home);
    daemon.expects(&["looks like a secret"]);
    output.expect_code(0);
    for name in ["state.json", "apps.json"] {
        wait_until(ms(5_000), name, || daemon.home.path().join(name).exists());
    }
    let mut open = vec![daemon.home.path()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("it is ours").flatten() {
            let metadata = entry.metadata().expect("it is there");
            let mode = metadata.permissions().mode() & 0o777;
            if metadata.is_dir() {
                open.push(entry.path());
            }
            // Process ids are for everybody, below a folder that is not.
            let is_pid = entry.path().extension().is_some_and(|extension| extension == "pid");
            // Of a socket only the right to write counts (unix(7)).
            let others = if metadata.file_type().is_socket() { 0o022 } else { 0o027 };
            let is_pid = is_pid || entry.path().ends_with("pids");
            assert!(is_pid || mode & others == 0, "{mode:o} {}", entry.path().display());
            if let Ok(text) = fs::read(entry.path()) {
                let has = |secret: &[u8]| text.windows(7).any(|window| window == secret);
                let is_list = entry.path().ends_with("apps.json");
                assert!(!is_list || mode == 0o600, "{mode:o} {}", entry.path().display());
                assert_eq!(has(b"hunter2"), is_list, "{} holds a variable", entry.path().display());
                assert!(!has(b"hunter3"), "{} holds a variable of a file", entry.path().display());
            }
        }
    }
    daemon.run(&["kill"]).expect_code(0);
}

/// Rule 6: no name of the file, the command line or the socket reaches a path or a terminal.
#[test]
fn names_that_could_steer_a_path_or_a_terminal_are_refused_everywhere() {
    let daemon = Daemon::foreground(idle("api"));
    daemon.wait_online("api", 1);
    let hostile = ["../x", "a/b", "-rf", "a b", "a\u{1b}[31m", "a\nb", ".", "..", "é", "", &"x".repeat(65)];
    let before = fs::read_dir(daemon.home.apps()).expect("it is ours").count();
    for name in hostile {
        daemon.home.put("hostile.toml", &idle(name).to_string().replace("\\u{1b}", "\\u001b"));
        for verb in ["validate", "start", "reload"] {
            let output = daemon.run(&[verb, "hostile.toml"]).expect_code(2);
            assert!(!output.stderr.contains('\u{1b}'), "{name:?}: {output:?}");
        }
        let by_option = format!("--name={name}");
        let output = daemon.run(&["start", "/bin/true", &by_option]);
        assert!(output.code != 0 && !output.stderr.contains('\u{1b}'), "{name:?}: {output:?}");
        // And from whoever speaks to the socket without this program.
        let mut socket = UnixStream::connect(daemon.home.socket()).expect("it runs");
        socket.set_read_timeout(Some(ms(5_000))).expect("not zero");
        let targets = serde_json::json!([name]);
        let request = serde_json::json!({"version": 1, "request": {"verb": "delete", "targets": targets}});
        socket.write_all(format!("{request}\n").as_bytes()).expect("there is room");
        let mut answer = [0; 4096];
        let count = socket.read(&mut answer).expect("an answer");
        assert!(!answer[..count].contains(&0x1b), "{name:?}: {}", String::from_utf8_lossy(&answer[..count]));
    }
    let names: Vec<String> = daemon.list().apps.into_iter().map(|app| app.name).collect();
    assert_eq!(names, ["api"]);
    let after = fs::read_dir(daemon.home.apps()).expect("it is ours").count();
    assert_eq!(after, before + 1, "something was made beside the file");
    assert!(!daemon.log().contains('\u{1b}'), "{}", daemon.log());
}

/// What a command draws on a terminal.
fn drawn(home: &Home, words: &str) -> Vec<u8> {
    let line = format!("{} {words}", home.binary().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("CLUSTERD_HOME", home.path()).env("NO_COLOR", "1");
    command.current_dir(home.apps()).stdin(Stdio::null());
    command.output().expect("script is part of util-linux").stdout
}

/// Rule 7: the name of a process is whatever it wants.
#[test]
fn a_process_name_with_escapes_does_not_steer_a_terminal() {
    if runtime("script").is_none() {
        return;
    }
    let home = Home::new(None);
    let evil = home.apps().join("x\u{1b}]0;t\u{7}\r\u{9b}1m");
    fs::copy(home.apps().join("fixture_worker"), &evil).expect("it was staged");
    let port = free_port();
    let mut squatter = Command::new(&evil);
    let mut squatter =
        squatter.arg("serve").env("PORT", port.to_string()).env("HARNESS_HOME", home.path()).spawn();
    let squatter = squatter.as_mut().expect("it is a program");
    wait_until(ms(10_000), "the squatter", || support::hammer::get(port, "/").is_ok());
    home.write(&App::new("api", &fixtures::worker(&["serve"])).instances(1).port(port).to_string());
    let output = home.run(&["start", &home.file().display().to_string()]).expect_code(1);
    let _ = home.run(&["kill"]);
    let shown = drawn(&home, "start ecosystem.toml");
    squatter.kill().expect("it is our child");
    squatter.wait().expect("it is our child");
    let text = String::from_utf8_lossy(&shown).into_owned();
    assert!(text.contains("is in use by pid") && output.stderr.contains("is in use by pid"), "{text}");
    for never in [&b"\x1b]0;"[..], b"\x07", "\u{9b}".as_bytes()] {
        assert!(!shown.windows(never.len()).any(|window| window == never), "{never:?} in {text:?}");
    }
    let log = fs::read(home.path().join("logs/clusterd.log")).expect("it ran in the background");
    assert!(!log.contains(&0x1b), "{}", String::from_utf8_lossy(&log));
    let _ = home.run(&["kill"]);
}

/// Rule 7: a carriage return rewrites the line that somebody reads.
#[test]
fn a_workers_last_words_are_spelt_out_wherever_they_are_shown() {
    if runtime("script").is_none() {
        return;
    }
    let line = "printf 'all is well\\r\\033[2K\\033]0;owned\\007\\302\\233 words\\n'; exit 3";
    let app = fork("api", &fixtures::shell(line)).set("max_restarts", 1);
    let home = Home::new(None);
    home.write(&file(&[app.set("wait_ready", true), idle("other")]));
    let started = drawn(&home, "start ecosystem.toml");
    let shown =
        [started, drawn(&home, "logs api --nostream"), drawn(&home, "describe api"), drawn(&home, "list")];
    let _ = home.run(&["kill"]);
    assert!(shown[1].windows(5).any(|window| window == b"words"), "{}", String::from_utf8_lossy(&shown[1]));
    for part in shown {
        let text = String::from_utf8_lossy(&part).into_owned();
        for never in [&b"\x1b]0;"[..], b"\x07", b"\x1b[2K\x1b", "\u{9b}".as_bytes(), b"well\r\x1b"] {
            assert!(!part.windows(never.len()).any(|window| window == never), "{never:?} in {text:?}");
        }
    }
}

/// Rule 8: whoever looks over a shoulder sees no variable and no argument.
#[test]
fn values_of_variables_are_shown_by_no_verb_and_no_log() {
    let app = |value: &str| idle("api").env("TOKEN", value);
    let (daemon, output) = Daemon::background(app("hunter2"));
    output.expect_code(0);
    daemon.expects(&["reload on SIGHUP", "looks like a secret: TOKEN"]);
    daemon.home.write(&app("hunter3").to_string());
    let path = daemon.home.file().display().to_string();
    let lines: [&[&str]; 7] = [
        &["list", "--json"],
        &["describe", "api"],
        &["describe", "api", "--json"],
        &["apply", &path, "--dry-run"],
        &["apply", &path, "--dry-run", "--json"],
        &["reload", "api", "--json"],
        &["validate", &path],
    ];
    for line in lines {
        let output = daemon.run(line).expect_code(0);
        let said = output.stdout + &output.stderr;
        assert!(!said.contains("hunter"), "{line:?}: {said}");
    }
    // Nor by what is written down of an error about it. Whoever gave the command sees the line of the file.
    let broken = app("x").to_string().replace("TOKEN = \"x\"", "TOKEN = \"hunter4\\u0000\"");
    daemon.home.write(&broken);
    daemon.run(&["reload", "api"]).expect_code(2).expect_stderr(&["TOKEN"]);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let log = daemon.home.path().join("logs/clusterd.log");
    wait_until(ms(10_000), "the refusal in the log", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("reload on SIGHUP: "))
    });
    let log =
        fs::read_to_string(daemon.home.path().join("logs/clusterd.log")).expect("it is in the background");
    assert!(!log.contains("hunter"), "{log}");
    daemon.run(&["kill"]).expect_code(0);
}

/// Rule 8: whose file shows a secret to every user of the host hears of it once, by the variable's name.
#[test]
fn secrets_that_every_user_can_read_are_warned_of_once_and_without_their_value() {
    let home = Arc::new(Home::new(None));
    home.put("open.env", "DB_PASSWORD='hunter5'\nPORT=1\n");
    home.put("closed.env", "API_TOKEN=hunter6\n");
    set_mode(&home.apps().join("closed.env"), 0o600);
    let tidy = idle("tidy").text("env_file", "closed.env").env("PORT", 1).env("TOKEN_FILE", "/run/token");
    let apps = |careless: App| file(&[careless, tidy.clone()]);
    let careless = idle("careless").text("env_file", "open.env").env("STRIPE_SECRET", "hunter7");
    let daemon = Builder::new(apps(careless.clone())).start_in(home);
    daemon.expects(&["every user of this host can read"]);
    daemon.wait_online("careless", 1);
    let warnings = || -> Vec<String> {
        let log = daemon.log();
        log.lines().filter(|line| line.contains("every user of this host")).map(str::to_owned).collect()
    };
    let told = warnings();
    assert_eq!(told.len(), 2, "{told:#?}");
    for (line, parts) in told.iter().zip([
        ["careless: ", "ecosystem.toml (mode 755)", "looks like a secret: STRIPE_SECRET. "],
        ["careless: ", "open.env (mode 755)", "looks like a secret: DB_PASSWORD. "],
    ]) {
        assert!(line.contains(" WARN ") && parts.iter().all(|part| line.contains(part)), "{line}");
    }
    daemon.run(&["reload", "all"]).expect_code(0);
    assert_eq!(warnings(), told, "told once");
    assert!(!daemon.log().contains("hunter"), "{}", daemon.log());
    // In a folder that nobody else can enter they are nobody else's to read.
    daemon.run(&["delete", "all"]).expect_code(0);
    set_mode(&daemon.home.apps(), 0o700);
    daemon.run(&["start", &daemon.home.file().display().to_string()]).expect_code(0);
    daemon.wait_online("careless", 1);
    assert_eq!(warnings(), told);
}

/// Rule 8: what the host hands over in a folder of its own (`LoadCredential=`) reaches the workers of the unit's user. One
/// of another user knows where it is, and is refused by its mode.
#[test]
fn the_hosts_credentials_are_read_by_workers_of_its_user_alone() {
    let home = Arc::new(Home::new(None));
    let folder = home.apps().join("credentials");
    fs::create_dir(&folder).expect("it is ours");
    fs::write(folder.join("token"), "hunter8\n").expect("it is ours");
    set_mode(&folder.join("token"), 0o400);
    set_mode(&folder, 0o500);
    let line = "cat \"$CREDENTIALS_DIRECTORY/token\" 2>/dev/null || echo \"refused in $CREDENTIALS_DIRECTORY\"; \
                exec sleep 1000";
    let own = fork("own", &fixtures::shell(line));
    let other = fork("other", &fixtures::shell(line)).set("user", ORDINARY);
    let apps = if root() { vec![own, other] } else { vec![own] };
    let daemon =
        Builder::new(file(&apps)).env("CREDENTIALS_DIRECTORY", &folder.display().to_string()).start_in(home);
    daemon.wait_for_text("hunter8");
    assert!(!daemon.log().contains("hunter8"), "{}", daemon.log());
    if only_root() {
        daemon.wait_for_text(&format!("refused in {}", folder.display()));
        assert_eq!(daemon.output().matches("hunter8").count(), 1);
    }
}

/// Rule 5: a name in the home that leads elsewhere is replaced, not followed.
#[test]
fn links_under_the_names_of_our_own_files_lead_nowhere() {
    let home = Home::new(None);
    let victim = home.apps().join("victim");
    fs::write(&victim, "precious\n").expect("it is ours");
    fs::create_dir(home.path().join("pids")).expect("the home is fresh");
    for name in ["state.json", "state.json.new", "pids/api-0.pid", "pids/.api-0.pid.1-1"] {
        symlink(&victim, home.path().join(name)).expect("the home is fresh");
    }
    let daemon = Builder::new(idle("api")).start_in(Arc::new(home));
    daemon.expects(&["it is moved aside"]);
    let pid = daemon.wait_online("api", 1)[0];
    let is_plain = |name: &str| {
        let metadata = fs::symlink_metadata(daemon.home.path().join(name));
        metadata.is_ok_and(|metadata| metadata.is_file())
    };
    wait_until(ms(5_000), "files of our own", || is_plain("state.json") && is_plain("pids/api-0.pid"));
    let written = fs::read_to_string(daemon.home.path().join("pids/api-0.pid")).expect("it is there");
    assert_eq!(written.trim(), pid.to_string());
    daemon.run(&["kill"]).expect_code(0);
    assert_eq!(fs::read_to_string(&victim).expect("it is there"), "precious\n");
}

/// Rule 10: nothing of the host's is loaded into it: the program has no interpreter (elf(5), PT_INTERP).
#[test]
fn the_program_is_static() {
    let program = fs::read(env!("CARGO_BIN_EXE_clusterd")).expect("it was built");
    let number = |at: usize, length: usize| -> usize {
        program[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    assert_eq!(&program[..5], b"\x7fELF\x02", "a 64-bit program");
    let (table, entry, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds: Vec<usize> = (0..count).map(|index| number(table + index * entry, 4)).collect();
    let (load, interpreter) = (1, 3);
    assert!(kinds.contains(&load) && !kinds.contains(&interpreter), "{kinds:?}");
}
