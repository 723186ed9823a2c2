//! The Dockerfiles of packaging/docker in a real engine, under its default seccomp profile: process 1, any user, a
//! read-only root, limits, health, exit codes, output, and reloads and stops under load.

#![allow(clippy::disallowed_methods, reason = "tests live in real time")]

mod support;

use std::time::Instant;

use clusterd::control::protocol::WorkerInfo;
use support::engine::{Container, Engine, SOON};
use support::hammer::body;
use support::history::Outcome;
use support::reloading::ms;
use support::{App, Fixture, Load, file, wait_until};

/// As the images have it.
const PORT: u16 = 8080;

/// A container that may do nothing, and write nowhere but to the memory that engines give each container.
const LOCKED_UP: [&str; 9] = [
    "--read-only",
    "--user",
    "12345:23456",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--network",
    "none",
];

const ALONE: [&str; 2] = ["--network", "none"];

/// What is said where log files are not switched off, as they are in the images' own files.
const LIVES: &str = "writes no log files";

fn worker(name: &str, words: &[&str]) -> App {
    App::new(name, &Fixture::new(&[&["/usr/local/bin/worker"], words].concat()))
}

fn shell(name: &str, line: &str) -> App {
    App::new(name, &Fixture::new(&["/bin/sh", "-c", line]))
}

fn pids(workers: &[WorkerInfo]) -> Vec<i32> {
    workers.iter().filter_map(|worker| worker.pid).collect()
}

fn wait_for_generation(container: &Container, generation: u32) {
    wait_until(SOON * 2, "a reload's end", || {
        let app = container.try_app("shop")?;
        let is_new = |worker: &WorkerInfo| worker.ready && worker.generation == generation;
        if !app.workers.is_empty() && app.workers.iter().all(is_new) {
            Ok(())
        } else {
            Err(format!("{app:?}"))
        }
    });
}

/// Fault 46. Fault 78: no engine restarts what hangs, but it says that it does.
#[test]
fn from_scratch_it_serves_as_any_user_on_a_read_only_root_and_its_health_is_told() {
    let Some(engine) = Engine::shared() else { return };
    let health = ["--health-interval", "300ms", "--health-timeout", "2s", "--health-retries", "1"];
    let options = [&LOCKED_UP[..7], &["-p", "127.0.0.1:8080:8080"], &health].concat();
    let Some(container) = engine.run("static", &options) else { return };
    container.wait_for("{{.State.Health.Status}}", "healthy");
    let answer = container.outside(|| body(PORT, "/"));
    assert!(answer.contains("hello from pid"), "{answer}");
    container.expect_no_warning_but(&[]);
    container.docker(&["kill", "-s", "STOP"]);
    container.wait_for("{{.State.Health.Status}}", "unhealthy");
    container.docker(&["kill", "-s", "CONT"]);
    container.wait_for("{{.State.Health.Status}}", "healthy");
    // Nor is one whose app does not serve.
    let app = worker("shop", &["idle"]).set("wait_ready", true);
    let options = [&ALONE[..], &health, &["--health-start-period", "1ms"]].concat();
    let Some(container) = engine.run_with("static", &options, Some(&app.to_string()), &[]) else { return };
    wait_until(SOON, "a supervisor that answers", || {
        let has_pid = container.try_app("shop")?.workers.iter().any(|worker| worker.pid.is_some());
        if has_pid { Ok(()) } else { Err("it has no worker yet".to_owned()) }
    });
    assert!(container.try_clusterd(&["ping"]).status.success());
    assert!(!container.try_clusterd(&["ping", "--ready"]).status.success());
    // As many as the engine keeps.
    wait_until(SOON, "five checks that all failed", || {
        let codes = container.inspect("{{range .State.Health.Log}}{{.ExitCode}} {{end}}");
        let fails = codes.split_whitespace().count() == 5 && !codes.contains('0');
        if fails { Ok(()) } else { Err(codes) }
    });
    assert_eq!(container.inspect("{{.State.Health.Status}}"), "unhealthy");
}

/// With nowhere to write at all there can be no supervisor; with one folder in memory there can.
#[test]
fn any_folder_in_memory_will_do_and_none_is_said_so() {
    let Some(engine) = Engine::shared() else { return };
    let nothing = [&LOCKED_UP[..], &["--ipc", "none"]].concat();
    for folder in ["/tmp", "/run"] {
        let tmpfs = [&nothing[..], &["--tmpfs", folder]].concat();
        let Some(container) = engine.run("static", &tmpfs) else { return };
        container.wait_online("shop", container.try_app("shop").map_or(1, |app| app.workers.len()));
        container.expect_no_warning_but(&[]);
        let (_, log) = container.logs();
        assert!(log.contains(&format!("home {folder}/clusterd-")), "{log}");
    }
    let Some(container) = engine.run("static", &nothing) else { return };
    assert_eq!(container.wait_exit(), 1);
    let (_, log) = container.logs();
    assert!(log.contains("cannot make this folder"), "{log}");
}

/// An image of a language's, under load: two kinds of reload, a crash, the end. Docker's default profile lets nobody
/// duplicate a worker's socket, and the log says once what is done instead.
fn loses_nothing(image: &'static str, options: &[&str]) {
    let Some(engine) = Engine::shared() else { return };
    let Some(container) = engine.run(image, options) else { return };
    wait_for_generation(&container, 1);
    let workers = container.try_app("shop").expect("it runs").workers;
    assert!(!workers.is_empty());
    let load = container.in_its_network(|| Load::on(PORT).clients(4).start());
    container.clusterd(&["reload", "all"]);
    load.wait_answers(20);
    container.docker(&["kill", "-s", "HUP"]);
    wait_for_generation(&container, 3);
    load.wait_answers(20);
    let history = load.stop();
    history.expect_none_lost();
    assert_eq!(history.generations(), [1, 2, 3]);
    let described = container.clusterd(&["describe", "shop"]);
    assert!(
        described.contains("sockets of the supervisor's in the place of the server's own; steered"),
        "{described}"
    );
    let (_, log) = container.logs();
    assert_eq!(log.matches("those of the supervisor's are put in their place").count(), 1, "{log}");
    container.expect_no_warning_but(&[]);

    container.clusterd(&["signal", "SIGKILL", "0"]);
    let is_crash = |worker: &WorkerInfo| worker.last_exit.as_ref().is_some_and(|exit| exit.reason == "crash");
    wait_until(SOON, "another worker in its place", || {
        let app = container.try_app("shop")?;
        let replaced = app.workers.iter().any(|worker| worker.ready && is_crash(worker));
        if replaced { Ok(()) } else { Err(format!("{app:?}")) }
    });
    stops_in_time(&container, Load::on(PORT).clients(4), 20);
}

/// `docker stop` under load: within the grace, by itself, and whoever was let in is answered.
fn stops_in_time(container: &Container, load: Load, answers: usize) {
    let load = container.in_its_network(|| load.start());
    load.wait_answers(answers);
    let (asked, before) = (Instant::now(), load.count(Outcome::Ok));
    container.docker(&["stop", "-t", "10"]);
    assert!(asked.elapsed() < ms(9_000), "{:?}", asked.elapsed());
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
    let history = load.stop();
    assert_eq!(history.lost(), history.count(Outcome::Refused), "{history:?}");
    assert!(history.count(Outcome::Ok) > before, "nobody was answered meanwhile: {history:?}");
}

#[test]
fn node_is_reloaded_and_stopped_without_loss() {
    loses_nothing("node", &ALONE);
}

#[test]
fn python_is_reloaded_and_stopped_without_loss_as_any_user_on_a_read_only_root() {
    loses_nothing("python", &LOCKED_UP);
}

#[test]
fn requests_that_take_long_are_finished_within_the_grace() {
    let Some(engine) = Engine::shared() else { return };
    let app = worker("shop", &["serve"]).instances(2).port(PORT).delay(1_500).text("drain_timeout", "5s");
    let Some(container) = engine.run_with("static", &LOCKED_UP, Some(&app.to_string()), &[]) else { return };
    container.wait_online("shop", 2);
    stops_in_time(&container, Load::on(PORT).clients(6), 1);
    container.expect_no_warning_but(&[LIVES]);
}

/// Fault 80.
#[test]
fn as_process_one_without_an_init_it_reaps_every_orphan_and_ends_in_time() {
    let Some(engine) = Engine::shared() else { return };
    let apps = [
        worker("orphans", &["orphans", "50"]),
        shell("escaped", "(trap '' INT TERM; sleep 1000) & exit 3").text("restart_delay", "100ms"),
        worker("deaf", &["ignore-signals"]),
    ];
    let apps = apps.map(|app| app.text("kill_timeout", "300ms"));
    let Some(container) = engine.run_with("node", &ALONE, Some(&file(&apps)), &[]) else { return };
    wait_until(SOON, "the orphans", || container.logs().0.contains("50 orphans"));
    wait_until(SOON, "no zombie", || {
        let all = container.processes();
        let is_zombie =
            |line: &&String| line.split_whitespace().nth(1).is_some_and(|state| state.starts_with('Z'));
        if all.iter().any(|line| is_zombie(&line)) { Err(format!("{all:#?}")) } else { Ok(()) }
    });
    let first = container.processes().remove(0);
    assert!(first.contains("/usr/local/bin/clusterd /app/ecosystem.toml"), "{first}");
    let asked = Instant::now();
    container.docker(&["stop", "-t", "10"]);
    // Not by the limit of the whole shutdown, which is 8 s.
    assert!(asked.elapsed() < ms(7_000), "{:?}", asked.elapsed());
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
}

/// Fault 80: what the engine, and its policy of restarts, sees is the app's own code.
#[test]
fn a_container_ends_with_the_code_of_its_app_and_is_restarted_by_it() {
    let Some(engine) = Engine::shared() else { return };
    let ends = |words: &[&str]| worker("main", words).set("autorestart", false);
    let essential = |words: &[&str]| ends(words).set("essential", true);
    let idle = || worker("beside", &["idle"]);
    let errored = worker("main", &["exit", "3", "0"]).set("max_restarts", 1).set("restart_delay", 0);
    let missing = App::new("main", &Fixture::new(&["/app/missing"])).set("max_restarts", 1);
    let again = [&ALONE[..], &["--restart", "on-failure:2"]].concat();
    let cases: [(&[&str], Vec<App>, i32, &str); 8] = [
        (&ALONE, vec![ends(&["exit", "0", "0"])], 0, "0"),
        (&ALONE, vec![ends(&["exit", "7", "0"])], 7, "0"),
        (&ALONE, vec![ends(&["crash", "0"])], 1, "0"),
        (&ALONE, vec![idle(), essential(&["crash", "0"])], 128 + libc::SIGABRT, "0"),
        (&ALONE, vec![idle(), essential(&["exit", "9", "100"])], 9, "0"),
        (&ALONE, vec![errored], 3, "0"),
        (&ALONE, vec![missing], 1, "0"),
        (&again, vec![idle(), essential(&["exit", "5", "0"])], 5, "2"),
    ];
    let run = |(options, apps, code, restarts): (&[&str], Vec<App>, i32, &'static str)| {
        let container = engine.run_with("static", options, Some(&file(&apps)), &[])?;
        Some((container, file(&apps), code, restarts))
    };
    let running: Vec<_> = cases.into_iter().filter_map(run).collect();
    for (container, file, code, restarts) in running {
        container.wait_for("{{.State.Status}} {{.RestartCount}}", &format!("exited {restarts}"));
        assert_eq!(container.inspect("{{.State.ExitCode}}"), code.to_string(), "{file}");
    }
}

/// What asks for a reload is not what asks for an end: the image's STOPSIGNAL says so to the engine.
#[test]
fn after_a_reload_by_signal_a_supervisor_that_dies_is_restarted_all_the_same() {
    let Some(engine) = Engine::shared() else { return };
    let options = [&ALONE[..], &["--restart", "always"]].concat();
    let Some(container) = engine.run("static", &options) else { return };
    wait_for_generation(&container, 1);
    container.docker(&["kill", "-s", "HUP"]);
    wait_for_generation(&container, 2);
    container.kill_from_outside("KILL");
    container.wait_for("{{.RestartCount}}", "1");
    wait_for_generation(&container, 1);
}

/// Fault 83.
#[test]
fn instances_and_memory_follow_the_containers_limits() {
    let Some(engine) = Engine::shared() else { return };
    let fat = worker("shop", &["serve"]).text("instances", "max").port(PORT).env("BALLAST_MIB", 60);
    let text = format!("[daemon]\npoll_interval = \"100ms\"\n\n{}", fat.text("max_memory_restart", "25%"));
    // Below one CPU, so that a host with a single one has it too, and of a host with more it is the quota that counts.
    let limits = [&ALONE[..], &["--cpus", "0.9", "-m", "200m"]].concat();
    let Some(container) = engine.run_with("static", &limits, Some(&text), &[]) else { return };
    wait_until(SOON, "its replacement", || {
        let (_, log) = container.logs();
        if log.contains("more than max_memory_restart (50.0 MiB)") { Ok(()) } else { Err(log) }
    });
    assert_eq!(container.try_app("shop").expect("it runs").instances, 1);

    // Shared by two: 50 MiB each.
    let two = worker("shop", &["serve"]).instances(2).port(PORT).env("BALLAST_MIB", 54);
    let text = format!("[daemon]\npoll_interval = \"100ms\"\n\n{}", two.text("max_memory_restart", "50%"));
    let Some(container) = engine.run_with("static", &["--network", "none", "-m", "200m"], Some(&text), &[])
    else {
        return;
    };
    wait_until(SOON, "a replacement", || {
        let (_, log) = container.logs();
        if log.contains("more than max_memory_restart (50.0 MiB)") { Ok(()) } else { Err(log) }
    });
    let described = container.clusterd(&["describe", "shop"]);
    assert!(described.contains("100.0 MiB for all instances together"), "{described}");
}

/// Fault 82.
#[test]
fn a_worker_that_takes_all_of_the_containers_memory_is_its_own_loss() {
    let Some(engine) = Engine::shared() else { return };
    let hungry = worker("hungry", &["serve"]).port(PORT).env("BALLAST_MIB", 500);
    let apps = [worker("beside", &["idle"]), hungry.text("restart_delay", "100ms")];
    let limits = [&ALONE[..], &["-m", "100m", "--memory-swap", "100m"]].concat();
    let Some(container) = engine.run_with("static", &limits, Some(&file(&apps)), &[]) else { return };
    let beside = pids(&container.wait_online("beside", 1));
    wait_until(SOON, "its end for want of memory", || {
        let app = container.try_app("hungry")?;
        let reason = app.workers.iter().find_map(|worker| Some(worker.last_exit.as_ref()?.reason.clone()));
        if reason.as_deref() == Some("oom") { Ok(()) } else { Err(format!("{app:?}")) }
    });
    assert_eq!(pids(&container.wait_online("beside", 1)), beside);
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
}

#[test]
fn output_is_the_containers_log_line_by_line() {
    let Some(engine) = Engine::shared() else { return };
    let app = worker("shop", &["print", "3", "tick"]).instances(2);
    let Some(container) = engine.run_with("static", &LOCKED_UP, Some(&app.to_string()), &[]) else { return };
    wait_until(SOON, "all lines", || container.logs().0.matches("tick 2").count() == 2);
    let (output, log) = container.logs();
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    let expected = ["0", "1"].map(|of| ["0", "1", "2"].map(|n| format!("shop-{of} | tick {n}"))).concat();
    assert_eq!(lines, expected);
    assert!(log.contains(" INFO  clusterd ") && !log.contains("tick"), "{log}");

    let json = engine.run_with("static", &LOCKED_UP, Some(&app.to_string()), &["--json"]);
    let Some(container) = json else { return };
    wait_until(SOON, "all lines", || container.logs().0.matches("tick 2").count() == 2);
    let (output, log) = container.logs();
    let objects = |text: &str| -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        text.lines().map(parse).collect()
    };
    let is_line = |line: &serde_json::Value| line["app_name"] == "shop" && line["type"] == "out";
    assert!(objects(&output).len() == 6 && objects(&output).iter().all(is_line), "{output}");
    assert!(objects(&log).iter().all(|line| line["type"] == "clusterd"), "{log}");
}
