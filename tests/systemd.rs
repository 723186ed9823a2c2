//! The packages' units below a real systemd: start, reload, restart, a loop that is stuck, a worker without memory.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::path::Path;

use clusterd::control::protocol::{AppInfo, List};
use support::booted::{Host, succeeded};
use support::daemon::BOOT;
use support::{App, Load, wait_until};

const UNIT: &str = "clusterd@shop";

/// As the units have it.
const PORT: u16 = 8080;

/// A host with the package's program, user, units, and a shop of two workers.
fn shop(change: impl FnOnce(App) -> App) -> Option<Host> {
    let host = Host::boot()?;
    let home = support::Home::new(None);
    host.install(&home.binary(), "/usr/bin/clusterd");
    host.install(&home.apps().join("fixture_worker"), "/usr/local/bin/worker");
    succeeded(host.run(&[
        "useradd",
        "--system",
        "--user-group",
        "--home-dir",
        "/var/lib/clusterd",
        "clusterd",
    ]));
    for unit in ["clusterd@.service", "shop.socket"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd").join(unit);
        host.install(&path, &format!("/etc/systemd/system/{unit}"));
    }
    fs::create_dir_all(host.place("/etc/clusterd")).expect("it is ours");
    write(&host, &change(app("serve")));
    succeeded(host.run(&["systemctl", "daemon-reload"]));
    Some(host)
}

fn app(word: &str) -> App {
    App::new("shop", &support::Fixture::new(&["/usr/local/bin/worker", word])).instances(2).port(PORT)
}

fn write(host: &Host, app: &App) {
    fs::write(host.place("/etc/clusterd/shop.toml"), app.to_string()).expect("it is ours");
}

fn shown(host: &Host, property: &str) -> String {
    succeeded(host.run(&["systemctl", "show", "--value", "-p", property, UNIT])).trim().to_owned()
}

fn listed(host: &Host) -> AppInfo {
    let output = succeeded(host.run(&["clusterd", "--home", "/run/clusterd@shop", "list", "--json"]));
    let mut list: List = serde_json::from_str(&output).expect("JSON");
    list.apps.remove(0)
}

fn pids(host: &Host) -> Vec<i32> {
    listed(host).workers.iter().filter(|worker| worker.ready).filter_map(|worker| worker.pid).collect()
}

#[test]
fn the_unit_is_up_when_the_apps_are_and_a_reload_waits_loses_nothing_and_tells_of_failure() {
    let Some(host) = shop(|app| app) else { return };
    succeeded(host.run(&["systemctl", "start", UNIT]));
    let old = pids(&host);
    assert_eq!(old.len(), 2, "`systemctl start` waits for every worker");
    wait_until(BOOT, "the status", || match shown(&host, "StatusText").as_str() {
        "1 app, 2/2 workers ready" => Ok(()),
        other => Err(other.to_owned()),
    });
    let history = host.in_its_network(|| {
        let load = Load::on(PORT).clients(2).start();
        succeeded(host.run(&["systemctl", "reload", UNIT]));
        load.wait_answers(20);
        load.stop()
    });
    history.expect_none_lost();
    let new = pids(&host);
    assert!(new.len() == 2 && new.iter().all(|pid| !old.contains(pid)), "{old:?} {new:?}");
    assert_eq!(history.generations(), [1, 2]);

    // What does not start leaves the old serving, and systemd knows.
    write(&host, &app("nonsense"));
    let failed = host.run(&["systemctl", "reload", UNIT]);
    assert!(!failed.status.success(), "{failed:?}");
    assert_eq!(pids(&host), new);
    assert_eq!(shown(&host, "ActiveState"), "active");
    wait_until(BOOT, "the status", || {
        let status = shown(&host, "StatusText");
        if status.contains("shop: reload") { Ok(()) } else { Err(status) }
    });

    succeeded(host.run(&["systemctl", "stop", UNIT]));
    assert_eq!((shown(&host, "Result"), shown(&host, "ExecMainStatus")), ("success".into(), "0".into()));
}

/// Systemd holds the port: who connects while nobody is there waits and is served.
#[test]
fn with_a_socket_unit_a_restart_refuses_nobody() {
    let Some(python) = support::runtime("python3") else { return };
    let server = support::Fixture::new(&[&python.display().to_string(), "/srv/server.py"]);
    let listen = format!("[{{ name = \"http\", address = \"0.0.0.0:{PORT}\" }}]");
    let app = App::new("shop", &server).instances(2).port(PORT).set("listen", listen);
    let Some(host) = shop(|_| app) else { return };
    // It opens its port itself.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/asyncio_server.py");
    host.install(&script, "/srv/server.py");
    succeeded(host.run(&["systemctl", "start", "shop.socket"]));
    // The first client starts the service.
    let history = host.in_its_network(|| {
        let load = Load::on(PORT).clients(2).start();
        load.wait_answers(20);
        let main = shown(&host, "MainPID");
        succeeded(host.run(&["systemctl", "restart", UNIT]));
        load.wait_answers(20);
        assert_ne!(shown(&host, "MainPID"), main);
        load.stop()
    });
    history.expect_none_lost();
}

/// Fault 78: a loop that does not go round is ended by its host and started anew, and its workers with it.
#[test]
fn a_supervisor_that_is_stuck_is_started_anew_by_systemd() {
    let Some(host) = shop(|app| app) else { return };
    let folder = host.place(&format!("/etc/systemd/system/{UNIT}.service.d"));
    fs::create_dir_all(&folder).expect("it is ours");
    fs::write(folder.join("short.conf"), "[Service]\nWatchdogSec=1\n").expect("it is ours");
    succeeded(host.run(&["systemctl", "daemon-reload"]));
    succeeded(host.run(&["systemctl", "start", UNIT]));
    let (main, old) = (shown(&host, "MainPID"), pids(&host));
    succeeded(host.run(&["kill", "-STOP", &main]));
    wait_until(BOOT, "another supervisor", || {
        let state = (shown(&host, "MainPID"), shown(&host, "ActiveState"));
        if state.0 != main && state.1 == "active" { Ok(()) } else { Err(state) }
    });
    let new = pids(&host);
    assert!(new.len() == 2 && new.iter().all(|pid| !old.contains(pid)), "{old:?} {new:?}");
    assert_eq!(shown(&host, "NRestarts"), "1");
}

/// `Delegate=yes`: as the package's user, below a systemd that does not know `DelegateSubgroup=`.
#[test]
fn each_worker_has_a_control_group_of_its_own_below_that_of_the_unit() {
    let Some(host) = shop(|app| app) else { return };
    succeeded(host.run(&["systemctl", "start", UNIT]));
    let unit = shown(&host, "ControlGroup");
    let group = |pid: &str| {
        let text = succeeded(host.run(&["cat", &format!("/proc/{pid}/cgroup")]));
        text.lines().find_map(|line| line.strip_prefix("0::")).expect("there is version 2").to_owned()
    };
    assert_eq!(group(&shown(&host, "MainPID")), format!("{unit}/supervisor"));
    let groups = || pids(&host).iter().map(|pid| group(&pid.to_string())).collect::<Vec<_>>();
    assert_eq!(groups(), [1, 2].map(|worker| format!("{unit}/worker-shop-{}-g1-{worker}", worker - 1)));
    let report = succeeded(host.run(&["clusterd", "--home", "/run/clusterd@shop", "report"]));
    assert!(report.contains("\ncontrol groups on, in /sys/fs/cgroup/"), "{report}");
    succeeded(host.run(&["systemctl", "reload", UNIT]));
    let groups = groups();
    assert!(groups.len() == 2 && groups.iter().all(|group| group.contains("-g2-")), "{groups:?}");
    succeeded(host.run(&["systemctl", "restart", UNIT]));
    assert_eq!(pids(&host).len(), 2);
    succeeded(host.run(&["systemctl", "stop", UNIT]));
    assert_eq!(shown(&host, "Result"), "success");
    let journal = succeeded(host.run(&["journalctl", "--no-pager", "-o", "cat", "-u", UNIT]));
    assert!(!journal.contains("left behind") && !journal.contains("control group of"), "{journal}");
}
