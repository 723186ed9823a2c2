//! A real systemd that is rebooted: what ran is back.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::fs;
use std::process::Output;

use clusterd::control::protocol::List;
use support::booted::{Host, succeeded};
use support::daemon::BOOT;
use support::{App, file, fixtures, wait_until};

/// As whom the apps run; systemd warns of `nobody`.
const USER: &str = "daemon";

/// As the user whose apps these are.
fn clusterd(host: &Host, arguments: &[&str]) -> Output {
    let mut command = host.command();
    command.args(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "clusterd"]);
    command.args(arguments).env("HOME", "/srv/home").env("CALLER", "before the reboot");
    command.output().expect("nsenter is there")
}

/// Instances online of `web`, and how `off` is.
fn state(host: &Host) -> Result<(usize, String), String> {
    let output = clusterd(host, &["list", "--json"]);
    let list: List =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {output:?}"))?;
    let app =
        |name: &str| list.apps.iter().find(|app| app.name == name).ok_or(format!("no {name}: {list:?}"));
    let online = app("web")?.workers.iter().filter(|worker| worker.ready).count();
    Ok((online, app("off")?.status.clone()))
}

fn wait_back(host: &Host) {
    wait_until(BOOT, "three workers, and what was stopped stopped", || match state(host) {
        Ok((3, status)) if status == "stopped" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn after_startup_and_a_reboot_everything_is_back_also_after_a_kill() {
    let Some(mut host) = Host::boot() else { return };
    let home = support::Home::new(None);
    host.install(&home.binary(), "/usr/local/bin/clusterd");
    host.install(&home.apps().join("fixture_worker"), "/usr/local/bin/worker");
    succeeded(host.run(&["install", "-d", "-o", USER, "/srv/home"]));
    let worker = |name: &str, words: &[&str]| {
        let mut command = vec!["/usr/local/bin/worker"];
        command.extend(words);
        App::new(name, &support::Fixture::new(&command))
    };
    let apps = [
        worker("web", &["serve"]).instances(2).port(8080),
        worker("off", &["idle"]).text("exec_mode", "fork"),
        App::new("teller", &fixtures::shell("printf 'a \\033[1mword\\n'; exec sleep 1000"))
            .text("log_to", "journald"),
    ];
    fs::write(host.place("/srv/home/ecosystem.toml"), file(&apps)).expect("it is ours");

    let said = succeeded(host.run(&["clusterd", "startup", "-u", USER, "--hp", "/srv/home"]));
    assert!(said.contains("clusterd-daemon.service"), "{said}");
    succeeded(host.run(&["systemctl", "start", "clusterd-daemon"]));
    wait_until(BOOT, "a supervisor", || clusterd(&host, &["ping"]).status.success());
    succeeded(clusterd(&host, &["start", "/srv/home/ecosystem.toml"]));
    succeeded(clusterd(&host, &["scale", "web", "3"]));
    succeeded(clusterd(&host, &["stop", "off"]));
    wait_back(&host);
    let told = || succeeded(host.run(&["journalctl", "--no-pager", "-o", "json", "CLUSTERD_APP=teller"]));
    wait_until(BOOT, "a worker's line in the journal", || told().contains("CLUSTERD_INSTANCE"));
    let entry = told();
    let entry: serde_json::Value =
        serde_json::from_str(entry.lines().next().unwrap_or_default()).expect("a line of JSON");
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let fields = ["SYSLOG_IDENTIFIER", "PRIORITY", "CLUSTERD_INSTANCE", "_COMM"].map(field);
    assert_eq!(fields, ["teller", "6", "0", "clusterd"], "{entry}");
    let bytes: Vec<u8> =
        serde_json::from_value(entry["MESSAGE"].clone()).expect("not printable: as its bytes");
    assert_eq!(bytes, b"a \x1b[1mword");

    host.reboot();
    wait_back(&host);
    let environment = succeeded(clusterd(&host, &["env", "web"]));
    assert!(environment.contains("CALLER=before the reboot"), "{environment}");
    let journal = || succeeded(host.run(&["journalctl", "-u", "clusterd-daemon", "--no-pager"]));
    wait_until(BOOT, "the supervisor's own words in the journal", || journal().contains("come back"));

    // Killed, it is started anew by systemd, and goes on with what it ran.
    let main = || succeeded(host.run(&["systemctl", "show", "-p", "MainPID", "clusterd-daemon"]));
    let first = main();
    succeeded(host.run(&["systemctl", "kill", "-s", "KILL", "--kill-who=main", "clusterd-daemon"]));
    wait_until(BOOT, "another supervisor", || {
        let now = main();
        if now != first && !now.contains("MainPID=0") { Ok(()) } else { Err(now) }
    });
    wait_back(&host);

    // What is removed does not come back.
    succeeded(host.run(&["clusterd", "unstartup", "-u", USER, "--hp", "/srv/home"]));
    host.reboot();
    assert!(!clusterd(&host, &["ping"]).status.success());
}
