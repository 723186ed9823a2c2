//! What PM2's users have beside their servers goes on working: scripts that read `jlist`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]
#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use support::daemon::{BOOT, Builder};
use support::wait::try_until;
use support::{App, Daemon, Home, fixtures, free_port};

fn server(name: &str) -> App {
    App::new(name, &fixtures::worker(&["serve"])).port(free_port())
}

fn processes(daemon: &Daemon) -> Vec<Value> {
    let output = daemon.run(&["jlist"]).expect_code(0);
    assert_eq!(output.stdout.trim_end().lines().count(), 1, "{}", output.stdout);
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn jlist_has_the_fields_that_scripts_for_pm2_read() {
    let api = server("api").instances(2).env("SECRET", "hunter2").text("kill_timeout", "3s");
    let line = App::bare("line").text("script", "sleep 1000").text("namespace", "jobs");
    let daemon = Daemon::foreground(fixtures::file(&[api, line]));
    daemon.expects(&["looks like a secret: SECRET"]);
    let pids = daemon.wait_online("api", 2);
    daemon.wait_online("line", 1);
    // A process that has only just been started has no memory of its own yet.
    let list = try_until(BOOT, || {
        let list = processes(&daemon);
        list.iter().all(|process| process["monit"]["memory"].as_u64() > Some(0)).then_some(list)
    });
    let list = list.expect("all of them use memory");
    assert_eq!(list.len(), 3);
    for (at, process) in list.iter().enumerate() {
        assert_eq!(process["pm_id"], at, "{process}");
        let env = &process["pm2_env"];
        assert_eq!((&env["pm_id"], &env["name"]), (&process["pm_id"], &process["name"]));
        assert_eq!(env["status"], "online");
        assert!(process["monit"]["cpu"].is_number(), "{process}");
        for key in [
            "pm_exec_path",
            "pm_cwd",
            "exec_interpreter",
            "pm_out_log_path",
            "pm_err_log_path",
            "pm_pid_path",
        ] {
            assert!(env[key].is_string(), "{key}: {env}");
        }
        for key in ["restart_time", "unstable_restarts", "pm_uptime", "created_at", "instances"] {
            assert!(env[key].is_number(), "{key}: {env}");
        }
    }
    for (instance, pid) in pids.iter().enumerate() {
        let process = list.iter().find(|process| process["pid"] == *pid).unwrap();
        let env = &process["pm2_env"];
        assert_eq!((&env["exec_mode"], &env["instances"]), (&"cluster_mode".into(), &2.into()));
        assert_eq!((&env["NODE_APP_INSTANCE"], &env["kill_timeout"]), (&instance.into(), &3000.into()));
        let log = env["pm_out_log_path"].as_str().unwrap();
        assert!(
            std::path::Path::new(log).is_file() && log.ends_with(&format!("api-out-{instance}.log")),
            "{log}"
        );
        let pid_file = std::fs::read_to_string(env["pm_pid_path"].as_str().unwrap()).unwrap();
        assert_eq!(pid_file.trim(), pid.to_string());
    }
    let line = list.iter().find(|process| process["name"] == "line").unwrap();
    let env = &line["pm2_env"];
    assert_eq!((&env["exec_mode"], &env["namespace"]), (&"fork_mode".into(), &"jobs".into()));
    assert_eq!((&env["pm_exec_path"], &env["args"][1]), (&"/bin/sh".into(), &"sleep 1000".into()));
    let pid_file = std::fs::read_to_string(env["pm_pid_path"].as_str().unwrap()).unwrap();
    assert_eq!(pid_file.trim(), line["pid"].to_string());
    assert!(!daemon.run(&["jlist"]).stdout.contains("hunter2"), "values of variables are nobody's business");
}

/// The list of many a script.
#[test]
fn jlist_says_as_whom_and_in_which_version_a_process_runs() {
    let home = Home::new(None);
    home.put("package.json", "{ \"name\": \"shop\", \"version\": \"1.2.3\" }");
    home.put("tick.sh", "while :; do sleep 0.05; done");
    let app = App::bare("tick").text("script", "./tick.sh").text("cron_restart", "0 4 * * *");
    let daemon = Builder::new(&app).start_in(Arc::new(home));
    daemon.wait_online("tick", 1);
    let env = processes(&daemon).remove(0)["pm2_env"].take();
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    assert_eq!(env["username"], user.trim());
    assert_eq!(env["version"], "1.2.3", "{env}");
    assert_eq!((&env["cron_restart"], &env["merge_logs"]), (&"0 4 * * *".into(), &false.into()), "{env}");
    // What it was started with is not this, unless it was written before.
    let hour = std::time::Duration::from_secs(3600);
    let now = std::time::SystemTime::now();
    for (written, shown) in [(now + hour, "N/A"), (now - hour, "2.0.0")] {
        daemon.home.put("package.json", "{ \"version\": \"2.0.0\" }");
        let package = std::fs::File::open(daemon.home.apps().join("package.json")).unwrap();
        package.set_modified(written).unwrap();
        assert_eq!(processes(&daemon)[0]["pm2_env"]["version"], shown);
    }
}

#[test]
fn jlist_tells_a_restart_by_pid_and_start_and_by_nothing_else() {
    let daemon = Daemon::foreground(server("api").instances(1));
    daemon.wait_online("api", 1);
    let first = processes(&daemon).remove(0);
    let again = processes(&daemon).remove(0);
    assert_eq!(first["pm2_env"]["pm_uptime"], again["pm2_env"]["pm_uptime"], "it began when it began");
    daemon.run(&["restart", "api"]).expect_code(0);
    let later = processes(&daemon).remove(0);
    assert_ne!(first["pid"], later["pid"]);
    assert!(first["pm2_env"]["pm_uptime"].as_u64() < later["pm2_env"]["pm_uptime"].as_u64());
    assert_eq!(later["pm2_env"]["restart_time"], 1);
    daemon.run(&["stop", "api"]).expect_code(0);
    let stopped = processes(&daemon).remove(0);
    assert_eq!((&stopped["pid"], &stopped["pm2_env"]["status"]), (&0.into(), &"stopped".into()));
}

/// Scripts take the name of the program from it, and its folder.
#[test]
fn the_path_of_what_runs_is_whole_also_of_a_program_in_path() {
    let exact = App::bare("exact").set("command", "[\"sleep\", \"1000\"]");
    let word = App::bare("word").text("script", "sleep").set("args", "[\"1000\"]");
    let daemon = Daemon::foreground(fixtures::file(&[word, exact]));
    for name in ["word", "exact"] {
        daemon.wait_online(name, 1);
    }
    for process in processes(&daemon) {
        let path = process["pm2_env"]["pm_exec_path"].as_str().unwrap();
        assert!(path.ends_with("/sleep") && std::path::Path::new(path).is_file(), "{path}");
    }
    daemon.run(&["stop", "all"]).expect_code(0);
    assert!(processes(&daemon)[0]["pm2_env"]["pm_exec_path"].as_str().unwrap().starts_with('/'));
}

#[test]
fn prettylist_is_the_same_as_javascript() {
    let daemon = Daemon::foreground(server("api").instances(1));
    daemon.wait_online("api", 1);
    let output = daemon.run(&["prettylist"]).expect_code(0);
    for part in ["[\n  {\n", "\n    name: 'api',\n", "\n    pm2_env: {\n", "      status: 'online',\n"] {
        assert!(output.stdout.contains(part), "{part}\n{}", output.stdout);
    }
}
