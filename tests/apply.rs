//! `clusterd apply`: what runs becomes what the file says, and who is so already is not touched.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use clusterd::control::protocol::{Plan, PlanApp, Reply, WorkerInfo};
use support::hammer::body;
use support::wait::holds_for;
use support::{App, Daemon, Home, Load, Output, file, fixtures, free_port, wait_until};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn idle(name: &str) -> App {
    App::new(name, &fixtures::worker(&["idle"])).text("exec_mode", "fork")
}

fn serving(name: &str, port: u16) -> App {
    App::new(name, &fixtures::worker(&["serve"])).instances(2).port(port)
}

fn apply_in(home: &Home, more: &[&str]) -> Output {
    let file = home.file().display().to_string();
    let line: Vec<&str> = ["apply", &file].into_iter().chain(more.iter().copied()).collect();
    home.run(&line)
}

/// Writes the file and applies it.
fn apply(daemon: &Daemon, apps: &[App], more: &[&str]) -> Output {
    daemon.home.write(&file(apps));
    apply_in(&daemon.home, more)
}

fn plan_of(output: &Output) -> Plan {
    let first = output.stdout.lines().next().unwrap_or_default();
    match serde_json::from_str(first) {
        Ok(Reply::Plan(plan)) => plan,
        other => panic!("no plan: {other:?} in {output:?}"),
    }
}

fn of<'a>(plan: &'a Plan, app: &str) -> &'a PlanApp {
    plan.apps.iter().find(|found| found.app == app).unwrap_or_else(|| panic!("no {app} in {plan:?}"))
}

#[test]
fn only_what_changed_is_touched() {
    let (port, other) = (free_port(), free_port());
    let apps = |api: App, job: App| [api, serving("steady", other), job];
    let api = serving("api", port);
    let daemon = Daemon::foreground(file(&apps(api.clone(), idle("job"))));
    daemon.expects(&["looks like a secret: SECRET"]);
    let before = daemon.wait_online("api", 2);
    let steady = daemon.wait_online("steady", 2);
    let job = daemon.wait_online("job", 1);
    let nothing = apply(&daemon, &apps(api.clone(), idle("job")), &[]).expect_code(0);
    assert!(nothing.stdout.contains("nothing to change"), "{nothing:?}");
    // Just more instances: those that are there stay.
    let more = apply(&daemon, &apps(api.clone().instances(3), idle("job")), &[]).expect_code(0);
    assert!(more.stdout.contains("api: scale: instances 2 -> 3\n"), "{more:?}");
    assert_eq!(daemon.wait_online("api", 3)[..2], before);
    // A variable: the app is rolled, and no request is lost.
    let load = Load::on(port).clients(2).start();
    let changed = api.instances(3).env("SECRET", "s3same");
    let output = apply(&daemon, &apps(changed.clone(), idle("job")), &[]).expect_code(0);
    load.stop().expect_none_lost();
    assert!(output.stdout.contains("api: reload: env.SECRET added\n"), "{output:?}");
    assert!(!output.stdout.contains("s3same"), "a value is shown: {output:?}");
    let rolled = daemon.wait_online("api", 3);
    assert!(rolled.iter().all(|pid| !before.contains(pid)));
    // In fork mode it is a restart.
    let output = apply(&daemon, &apps(changed, idle("job").env("A", "1")), &[]).expect_code(0);
    assert!(output.stdout.contains("job: restart: env.A added\n"), "{output:?}");
    assert_ne!(daemon.wait_online("job", 1), job);
    assert_eq!((daemon.wait_online("api", 3), daemon.wait_online("steady", 2)), (rolled, steady));
    assert_eq!(daemon.app("steady").generation, 1);
}

/// A new version that listens elsewhere cannot take the old one's place beside it.
#[test]
fn who_leaves_the_port_that_it_opens_itself_is_restarted_and_who_is_handed_one_is_reloaded() {
    let Some(node) = fixtures::node("server.js") else { return };
    let (port, next) = (free_port(), free_port());
    let api = |port: u16| App::new("api", &node).instances(2).port(port);
    let daemon = Daemon::foreground(file(&[api(port)]));
    daemon.wait_online("api", 2);
    let plan = apply(&daemon, &[api(next)], &["--dry-run", "--json"]).expect_code(0);
    assert_eq!(of(&plan_of(&plan), "api").step, "restart", "{plan:?}");
    let output = apply(&daemon, &[api(next)], &[]).expect_code(0);
    let why = format!("api: restart: env.PORT changed; it leaves port {port}, which it opens itself");
    assert!(output.stdout.contains(&why), "{output:?}");
    daemon.wait_online("api", 2);
    assert_eq!(daemon.app("api").listen.len(), 1);
    assert!(daemon.app("api").listen[0].ends_with(&format!(":{next}")), "{:?}", daemon.app("api").listen);
    body(next, "/");
}

/// A start that waits for its turn runs what it was ordered to run, also when that is forgotten meanwhile.
#[test]
fn numbers_that_change_while_many_workers_start_fail_none_of_them() {
    let many = idle("many").instances(150);
    let daemon = Daemon::foreground(&many);
    for number in 3..8 {
        apply(&daemon, &[many.clone().set("max_restarts", number)], &[]).expect_code(0);
    }
    daemon.wait_online("many", 150);
    assert!(daemon.app("many").workers.iter().all(|worker| worker.last_exit.is_none()));
}

/// How a worker is judged and ended is no part of it.
#[test]
fn numbers_that_only_clusterd_uses_change_beside_the_workers() {
    let port = free_port();
    let api = serving("api", port).env("BALLAST_MIB", "20");
    let daemon = Daemon::foreground(file(&[api.clone(), idle("job")]));
    daemon.expects(&["more than max_memory_restart"]);
    let before = (daemon.wait_online("api", 2), daemon.wait_online("job", 1));
    let api = api.set("max_restarts", 3).text("kill_timeout", "5s");
    let job = idle("job").text("restart_delay", "1s");
    let output = apply(&daemon, &[api.clone(), job.clone()], &[]).expect_code(0);
    assert!(output.stdout.contains("job: adjust: restart_delay 0 -> 1s\n"), "{output:?}");
    assert!(
        output.stdout.contains("api: adjust: ") && output.stdout.contains("max_restarts 16 -> 3"),
        "{output:?}"
    );
    assert_eq!((daemon.wait_online("api", 2), daemon.wait_online("job", 1)), before);
    assert_eq!((daemon.app("api").generation, daemon.app("job").generation), (1, 1));
    let shown = daemon.run(&["describe", "api"]).expect_code(0).stdout;
    let of = |key: &str| shown.lines().find(|line| line.trim_start().starts_with(key)).unwrap_or_default();
    assert!(of("max_restarts").ends_with(" 3") && of("kill_timeout").ends_with("5s"), "{shown}");
    let again = apply(&daemon, &[api.clone(), job.clone()], &[]).expect_code(0);
    assert!(again.stdout.contains("nothing to change"), "{again:?}");
    // It holds for those that run already, and the number of instances goes with it.
    let strict = api.instances(3).text("max_memory_restart", "10M");
    apply(&daemon, &[strict, job], &[]).expect_code(0);
    let reason = |worker: &WorkerInfo| worker.last_exit.as_ref().map(|exit| exit.reason.clone());
    wait_until(ms(15_000), "a worker that takes more than it may by now", || {
        daemon.app("api").workers.iter().any(|worker| reason(worker).as_deref() == Some("memory"))
    });
    assert_eq!((daemon.app("api").generation, daemon.app("api").instances), (1, 3));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let daemon = Daemon::foreground(file(&[idle("one"), idle("two")]));
    let before = (daemon.wait_online("one", 1), daemon.wait_online("two", 1));
    let apps = [idle("one").text("kill_signal", "SIGUSR1"), idle("new").instances(2).env("KEY", "s3cret")];
    let output = apply(&daemon, &apps, &["--dry-run", "--prune", "--json"]).expect_code(0);
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    assert!(!output.stdout.contains("s3cret"), "{output:?}");
    let plan = plan_of(&output);
    let shown = |app: &str| {
        let part = of(&plan, app);
        let workers: Vec<(u32, bool, &str)> =
            part.workers.iter().map(|w| (w.instance, w.id.is_some(), w.action.as_str())).collect();
        (part.step.clone(), part.why.join("; "), workers)
    };
    assert!(plan.dry_run);
    let why = "kill_signal SIGINT -> SIGUSR1".to_owned();
    assert_eq!(shown("one"), ("restart".into(), why, vec![(0, true, "replace")]));
    assert_eq!(shown("two"), ("delete".into(), "gone from the file".into(), vec![(0, true, "stop")]));
    assert_eq!(
        shown("new"),
        ("add".into(), "new app".into(), vec![(0, false, "start"), (1, false, "start")])
    );
    let same = || (daemon.pids("one"), daemon.pids("two")) == before && daemon.try_app("new").is_err();
    holds_for(ms(300), "nothing is touched", same);
    let plain = apply_in(&daemon.home, &["--dry-run"]).expect_code(0);
    let expected = ["two: keep: gone from the file; --prune deletes it\n", "  two/0 (id 1): keep\n"];
    assert!(expected.iter().all(|line| plain.stdout.contains(line)), "{plain:?}");
}

#[test]
fn prune_deletes_what_came_from_this_file_alone() {
    let daemon = Daemon::foreground(file(&[idle("one"), idle("two")]));
    daemon.wait_online("two", 1);
    daemon.home.put("other.toml", &file(&[idle("foreign")]));
    let other = daemon.home.apps().join("other.toml").display().to_string();
    daemon.run(&["start", &other]).expect_code(0);
    let kept = (daemon.wait_online("one", 1), daemon.wait_online("foreign", 1));
    apply(&daemon, &[idle("one")], &[]).expect_code(0);
    daemon.wait_online("two", 1);
    let output = apply(&daemon, &[idle("one")], &["--prune"]).expect_code(0);
    assert!(output.stdout.contains("two: delete: gone from the file\n"), "{output:?}");
    wait_until(ms(10_000), "it is gone", || daemon.try_app("two").is_err());
    assert_eq!((daemon.wait_online("one", 1), daemon.wait_online("foreign", 1)), kept);
}

/// The old name's port is free before the new one wants it.
#[test]
fn an_app_can_be_renamed() {
    let port = free_port();
    let daemon = Daemon::foreground(serving("old", port));
    daemon.wait_online("old", 2);
    apply(&daemon, &[serving("new", port)], &["--prune"]).expect_code(0);
    let pids = daemon.wait_online("new", 2);
    let answer = body(port, "/");
    assert!(pids.iter().any(|pid| answer.starts_with(&pid.to_string())), "{answer}");
    assert!(daemon.try_app("old").is_err());
}

#[test]
fn what_is_stopped_is_started_and_a_scale_is_taken_back() {
    let apps = [serving("api", free_port()), idle("job"), idle("quiet").set("autostart", false)];
    let daemon = Daemon::foreground(file(&apps));
    let before = daemon.wait_online("api", 2);
    daemon.run(&["scale", "api", "3"]).expect_code(0);
    daemon.run(&["stop", "job"]).expect_code(0);
    let output = apply(&daemon, &apps, &[]).expect_code(0);
    assert!(output.stdout.contains("api: scale: instances 3 -> 2\n"), "{output:?}");
    assert!(output.stdout.contains("job: start: it is stopped\n"), "{output:?}");
    assert!(output.stdout.contains("quiet: keep: it stays stopped: autostart = false\n"), "{output:?}");
    assert_eq!(daemon.wait_online("api", 2), before);
    daemon.wait_online("job", 1);
    assert_eq!(daemon.app("quiet").status, "stopped");
}

#[test]
fn a_version_that_fails_is_told_and_what_ran_runs_on() {
    let port = free_port();
    let daemon = Daemon::foreground(file(&[serving("api", port), idle("job")]));
    daemon.expects(&["exited with code 3 "]);
    let before = (daemon.wait_online("api", 2), daemon.wait_online("job", 1));
    let broken = App::new("api", &fixtures::worker(&["exit", "3", "0"])).instances(2).port(port);
    for _ in 0..2 {
        // It is not what the file says, however often that is tried.
        apply(&daemon, &[broken.clone(), idle("job")], &[]).expect_code(1).expect_stderr(&["api", "code 3"]);
        assert_eq!((daemon.wait_online("api", 2), daemon.wait_online("job", 1)), before);
    }
    let wrong = apply(&daemon, &[serving("api", port).set("instances", "\"many\"")], &[]).expect_code(2);
    wrong.expect_stderr(&["ecosystem.toml", "instances"]);
    daemon.run(&["apply", "-", "--prune"]).expect_code(2).expect_stderr(&["--prune needs a file"]);
    assert_eq!((daemon.wait_online("api", 2), daemon.wait_online("job", 1)), before);
}

#[test]
fn without_a_supervisor_a_plan_spawns_none_and_an_apply_does() {
    let home = Arc::new(Home::new(None));
    home.write(&file(&[idle("one")]));
    let plan = apply_in(&home, &["--dry-run"]).expect_code(0);
    assert_eq!(plan.stdout, "one: add: new app\n  one/0 (new): start\n");
    home.run(&["ping"]).expect_code(1);
    apply_in(&home, &[]).expect_code(0);
    let list = home.run(&["list", "--json"]).expect_code(0);
    assert!(list.stdout.contains("\"online\""), "{list:?}");
    home.run(&["kill"]).expect_code(0);
}

#[test]
fn new_apps_start_in_order() {
    let daemon = Daemon::foreground(idle("one"));
    daemon.wait_online("one", 1);
    let late = App::new("gate", &fixtures::worker(&["serve", "notify", "600"])).instances(1);
    let gate = late.set("wait_ready", true).port(free_port());
    let apps = [idle("one"), idle("web").set("depends_on", "\"gate\""), gate];
    let output = apply(&daemon, &apps, &[]).expect_code(0).stdout;
    let (ready, starts) = (output.find("gate/0: ready"), output.find("web/0: starting"));
    assert!(ready.is_some() && ready < starts, "{output}");
}

/// What the file says is compared with what an app is on its way to, and the end of that is the answer.
#[test]
fn a_reload_under_way_is_what_an_apply_of_the_same_file_waits_for() {
    let port = free_port();
    let api = serving("api", port);
    let daemon = Daemon::foreground(&api);
    daemon.expects(&["exited with code 3 ", "reload to generation 4 failed"]);
    daemon.wait_online("api", 2);
    let next = api.clone().env("A", "1");
    daemon.home.write(&next.to_string());
    daemon.run(&["reload", "api", "--no-wait"]).expect_code(0);
    let output = apply(&daemon, std::slice::from_ref(&next), &[]).expect_code(0);
    let app = daemon.app("api");
    assert!(
        output.stdout.contains("api: keep: unchanged; a reload to it is under way and is waited for\n"),
        "{output:?}"
    );
    assert!(app.reload.is_none() && app.workers.iter().all(|worker| worker.generation == 2), "{app:#?}");
    // A number that only judges workers goes with the reload, and nobody is replaced twice.
    let third = next.env("A", "2");
    daemon.home.write(&third.to_string());
    daemon.run(&["reload", "api", "--no-wait"]).expect_code(0);
    let judged = third.set("max_restarts", 3);
    let output = apply(&daemon, std::slice::from_ref(&judged), &[]).expect_code(0);
    assert!(output.stdout.contains("max_restarts 16 -> 3; a reload to it is under way"), "{output:?}");
    let app = daemon.app("api");
    assert_eq!((app.generation, app.reload), (3, None));
    // One that fails is no success of anybody who waited for it.
    let broken = App::new("api", &fixtures::worker(&["exit", "3", "1000"])).instances(2).port(port);
    daemon.home.write(&broken.to_string());
    daemon.run(&["reload", "api", "--no-wait"]).expect_code(0);
    apply(&daemon, &[broken], &[]).expect_code(1).expect_stderr(&["api", "code 3"]);
    assert_eq!(daemon.app("api").generation, 3);
}

#[test]
fn a_held_reload_stays_held_beside_what_needs_no_new_workers_and_ends_in_words() {
    let api = serving("api", free_port()).text("canary", "50%");
    let daemon = Daemon::foreground(&api);
    let old = daemon.wait_online("api", 2);
    let next = api.env("A", "1");
    daemon.home.write(&next.to_string());
    daemon.run(&["reload", "api"]).expect_code(0);
    let state = |daemon: &Daemon| daemon.app("api").reload.map(|reload| reload.state);
    let same = apply(&daemon, std::slice::from_ref(&next), &[]).expect_code(0);
    assert!(
        same.stdout.contains("api: keep: unchanged; a reload to it stays held at 50% (canary)\n"),
        "{same:?}"
    );
    let judged = next.set("max_restarts", 3);
    let mild = apply(&daemon, std::slice::from_ref(&judged), &[]).expect_code(0);
    assert!(mild.stdout.contains("a reload to it stays held at 50% (canary)\n"), "{mild:?}");
    assert_eq!(state(&daemon).as_deref(), Some("canary"));
    let all: Vec<i32> = daemon.app("api").workers.iter().filter_map(|worker| worker.pid).collect();
    assert!(old.iter().all(|pid| all.contains(pid)) && all.len() == 3, "{old:?}, {all:?}");
    let other = judged.env("A", "2");
    let plan = apply(&daemon, std::slice::from_ref(&other), &["--dry-run"]).expect_code(0);
    let ends = "api: reload: env.A changed; it ends the reload that is held at 50% (canary)\n";
    assert!(plan.stdout.contains(ends), "{plan:?}");
    let output = apply(&daemon, &[other], &[]).expect_code(0);
    assert!(output.stdout.contains("clusterd promote api"), "{output:?}");
    assert_eq!((state(&daemon).as_deref(), daemon.app("api").generation), (Some("canary"), 3));
}
