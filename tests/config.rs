//! The ecosystem file as its users meet it: what it means, and what is said when it is wrong.

#[path = "support/schema.rs"]
mod schema;

use std::path::PathBuf;
use std::time::Duration;

use clusterd::config::date::DatePattern;
use clusterd::config::keys::{self, AppKey, Kind};
use clusterd::config::logs::{LogSettings, Rate, Rotation};
use clusterd::config::{
    self, Account, Config, Diagnostics, FilterEnv, GroupBounds, Host, Interpreter, LogTarget,
    ProcessSettings, Program, Spec,
};
use clusterd::supervisor::address::Address;
use clusterd::supervisor::policy::{
    Door, Health, MemoryLimit, Mode, OnReloadFailure, Policy, Readiness, Schedule, Watch, Way,
};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../ecosystem.example.toml");

fn host() -> Host {
    Host {
        parallelism: 8,
        memory: Some(1_000_000_000),
        folder: PathBuf::from("/srv/site"),
        profile: None,
        only: Vec::new(),
    }
}

fn load(text: &str) -> Result<Config, Diagnostics> {
    config::load(text, "eco.toml", &host())
}

/// What is good here is good to editors, too.
fn good(text: &str) -> Config {
    let config = load(text).unwrap_or_else(|diagnostics| panic!("{}", diagnostics.render(false)));
    let table: toml::Table = toml::from_str(text).expect("it was read");
    let value = serde_json::to_value(table).expect("all of it has a form in JSON");
    schema::check(&config::schema::schema(), &value, "").unwrap_or_else(|why| panic!("{why}\n{text}"));
    config
}

fn lines(text: &str) -> Vec<String> {
    load(text).expect_err("the file is wrong").one_line()
}

/// The one app of a file that consists of a script and these lines.
fn app_with(lines: &str) -> config::AppConfig {
    good(&format!("[[apps]]\nscript = \"server.js\"\n{lines}\n")).apps.remove(0)
}

/// The problems of a file whose line 3 is this one.
fn said(line: &str) -> String {
    match load(&format!("[[apps]]\nscript = \"server.js\"\n{line}\n")) {
        Ok(_) => panic!("{line} was taken"),
        Err(diagnostics) => diagnostics.one_line().join("\n"),
    }
}

fn uncommented(example: &str) -> String {
    let is_setting = |text: &str| {
        text.starts_with('[')
            || text.split_once(" = ").is_some_and(|(key, _)| {
                !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            })
    };
    let line = |line: &str| match line.strip_prefix("# ").filter(|rest| is_setting(rest)) {
        Some(rest) => rest.to_owned(),
        None => line.to_owned(),
    };
    example.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_four_workers_on_one_port() {
    let config = good(EXAMPLE);
    assert_eq!(config.apps.len(), 1);
    let app = &config.apps[0];
    assert_eq!((app.name.as_str(), app.policy.instances, app.policy.mode), ("hello", 4, Mode::Cluster));
    assert_eq!(app.spec.program, Program::Exact(vec!["clusterd".into(), "demo".into()]));
    assert_eq!(app.spec.env["PORT"], "3000");
    let production = Host { profile: Some("production".into()), ..host() };
    let config = config::load(EXAMPLE, "eco.toml", &production).expect("the profile is there");
    let env = &config.apps[0].spec.env;
    assert_eq!((env["PORT"].as_str(), env["NODE_ENV"].as_str()), ("3000", "production"));
}

#[test]
fn the_example_with_every_key_set_loads_and_changes_nothing_but_the_examples() {
    let all = good(&uncommented(EXAMPLE));
    let plain = good(EXAMPLE);
    assert_eq!(all.apps.len(), 2);
    let seconds = Duration::from_secs;
    let health = Health {
        way: Way::Connection(Door::Any(None)),
        interval: seconds(10),
        timeout: seconds(2),
        retries: 3,
        start_period: Duration::ZERO,
    };
    let policy = Policy {
        max_memory_restart: Some(MemoryLimit::Each(512 * 1024 * 1024)),
        max_age: Some(Duration::from_secs(24 * 60 * 60)),
        cron_restart: Some(Schedule { pattern: "30 4 * * *".into(), zone: Some("UTC".into()) }),
        watch: Some(Watch {
            paths: vec!["src".into(), "config.json".into(), "views/**/*.html".into()],
            ignore: vec!["public/uploads/".into(), "*.tmp".into()],
            delay: Duration::from_millis(200),
        }),
        health: Some(health),
        watchdog: Some(seconds(30)),
        hang_timeout: Some(seconds(60)),
        canary: Some(10),
        ..plain.apps[0].policy.clone()
    };
    assert_eq!(all.apps[0].policy, policy);
    let spec = &all.apps[0].spec;
    let expected = Spec {
        out_file: LogTarget::File("/srv/site/hello-out.log".into()),
        error_file: LogTarget::File("/srv/site/hello-error.log".into()),
        logs: LogSettings {
            both: Some(LogTarget::File("/srv/site/hello.log".into())),
            rotation: Rotation { max_age: Some(seconds(86_400)), ..Rotation::USUAL },
            date: Some(DatePattern::parse("YYYY-MM-DD HH:mm:ss.SSS Z").unwrap()),
            total_size: 500 * 1024 * 1024,
            rate: Some(Rate { lines: 10_000, over: seconds(30) }),
            ..plain.apps[0].spec.logs.clone()
        },
        process: examples_of_process(),
        check: Some(config::Check::Http("/".into())),
        ..plain.apps[0].spec.clone()
    };
    assert_eq!(*spec, expected);
    assert_eq!(
        (all.daemon.shutdown_timeout, plain.daemon.shutdown_timeout),
        (Some(config::SHUTDOWN_TIMEOUT), None)
    );
    assert_eq!(all.apps[1].spec.args, ["--port", "3001", "--title", "Hello again"]);
}

/// What the example shows of settings without a fixed default.
fn examples_of_process() -> ProcessSettings {
    let process = &good(
        "[[apps]]\nscript = \"a\"\nrlimits = { nofile = 4096, core = { soft = 0, hard = \"unlimited\" } }\n",
    )
    .apps[0]
        .spec
        .process;
    ProcessSettings {
        user: Some(Account::Name("www-data".into())),
        group: Some(Account::Name("www-data".into())),
        umask: Some(0o022),
        nice: Some(5),
        oom_score_adj: Some(100),
        bounds: GroupBounds {
            memory_high: Some(400 << 20),
            memory_max: Some(512 << 20),
            pids_max: Some(200),
            cpu_weight: Some(50),
        },
        env_files: vec!["/srv/site/.env".into()],
        increment_var: Some("PORT".into()),
        pid_file: Some("/srv/site/hello.pid".into()),
        ..process.clone()
    }
}

#[test]
fn process_settings_are_shown_as_they_are_written() {
    let lines = [
        "user = \"www\"",
        "group = 33",
        "umask = \"027\"",
        "nice = -5",
        "rlimits = { nofile = { soft = 1, hard = \"unlimited\" }, core = 0, stack = { hard = 8 } }",
        "no_new_privs = true",
        "env_file = [\"/a\",\"/b\"]",
        "filter_env = [\"A\"]",
        "increment_var = \"PORT\"",
        "pid_file = \"/run/a.pid\"",
    ];
    let app = app_with(&lines.join("\n"));
    let settings = config::settings(&app.policy, &app.spec);
    for line in lines {
        let (key, value) = line.split_once(" = ").expect("a key and its value");
        let shown = &settings[key];
        assert!(shown == value || format!("{shown:?}") == value || key == "rlimits", "{key}: {shown}");
    }
    let limits = "{ core = 0, nofile = { soft = 1, hard = \"unlimited\" }, stack = { hard = 8 } }";
    assert!(settings["rlimits"].len() == limits.len(), "{}", settings["rlimits"]);
    assert_eq!(
        app_with(&format!("rlimits = {}", settings["rlimits"])).spec.process.rlimits,
        app.spec.process.rlimits
    );
}

#[test]
fn bounds_of_control_groups_are_amounts_for_each_worker() {
    let bounds = |line: &str| app_with(line).spec.process.bounds;
    assert_eq!(bounds(""), GroupBounds::default());
    assert_eq!(bounds("memory_max = \"1.5G\"").memory_max, Some(1536 << 20));
    assert_eq!(bounds("memoryHigh = 2097152").memory_high, Some(2 << 20));
    let all = bounds("memory_high = \"1M\"\nmemory_max = \"1M\"\npids_max = 1\ncpu_weight = 10000");
    let files: Vec<(&str, u64)> = all.files().iter().map(|bound| (bound.file, bound.value)).collect();
    let expected =
        [("memory.high", 1 << 20), ("memory.max", 1 << 20), ("pids.max", 1), ("cpu.weight", 10_000)];
    assert_eq!(files, expected);
    for (line, said) in [
        ("memory_max = \"80%\"", "write an amount for each worker"),
        ("memory_max = 1000", "for megabytes write \"1000M\""),
        ("memory_high = true", "an amount of memory from 1 MiB"),
        ("pids_max = 0", "a whole number from 1 to 4194304"),
        ("cpu_weight = 10001", "a whole number from 1 to 10000"),
        ("memory_high = \"2M\"\nmemory_max = \"1M\"", "is above memory_max"),
    ] {
        let text = format!("[[apps]]\nscript = \"a\"\n{line}\n");
        let problems = config::load(&text, "eco.toml", &host()).expect_err(line).one_line();
        assert!(problems.iter().any(|problem| problem.contains(said)), "{line}: {problems:?}");
    }
}

#[test]
fn every_form_of_a_process_setting_means_what_it_says() {
    let process =
        |line: &str| good(&format!("[[apps]]\nscript = \"a\"\n{line}\n")).apps.remove(0).spec.process;
    assert_eq!(process(""), ProcessSettings::default());
    for (line, account) in [
        ("user = \"www\"", Account::Name("www".into())),
        ("user = \"0day\"", Account::Name("0day".into())),
        ("uid = \"1000x\"", Account::Name("1000x".into())),
        ("uid = 1000", Account::Id(1000)),
        ("uid = \"1000\"", Account::Id(1000)),
        ("user = 0", Account::Id(0)),
    ] {
        assert_eq!(process(line).user, Some(account), "{line}");
    }
    assert_eq!(process("gid = \"adm\"").group, Some(Account::Name("adm".into())));
    for (line, umask) in
        [("umask = \"027\"", 0o27), ("umask = 0o77", 0o77), ("umask = 0", 0), ("umask = \"0o2\"", 2)]
    {
        assert_eq!(process(line).umask, Some(umask), "{line}");
    }
    for (line, soft, hard) in [
        ("rlimits = { nofile = 5 }", Some(5), Some(5)),
        ("rlimits = { RLIMIT_NOFILE = \"5\" }", Some(5), Some(5)),
        ("rlimits = { stack = \"8M\" }", Some(8 << 20), Some(8 << 20)),
        ("rlimits = { core = \"unlimited\" }", Some(u64::MAX), Some(u64::MAX)),
        ("rlimits = { core = { hard = 0 } }", None, Some(0)),
        ("rlimits = { core = { soft = 1, hard = \"unlimited\" } }", Some(1), Some(u64::MAX)),
    ] {
        let limits = process(line).rlimits;
        assert_eq!((limits.len(), limits[0].soft, limits[0].hard), (1, soft, hard), "{line}");
    }
    let files = |line: &str| process(&format!("cwd = \"app\"\n{line}")).env_files;
    assert_eq!(files("env_file = \".env\""), [PathBuf::from("/srv/site/app/.env")]);
    assert_eq!(files("envFile = [\"a\", \"/b\"]"), [PathBuf::from("/srv/site/app/a"), "/b".into()]);
    for (line, filter) in [
        ("filter_env = false", FilterEnv::Nothing),
        ("filter_env = true", FilterEnv::Everything),
        ("filter_env = \"AWS\"", FilterEnv::Named("AWS".into())),
        ("filter_env = [\"AWS\"]", FilterEnv::Containing(vec!["AWS".into()])),
    ] {
        let read = process(line).filter_env;
        assert_eq!(read, filter, "{line}");
        let dropped = ["AWS", "AWS_KEY"].map(|name| read.drops(name));
        let expected = match filter {
            FilterEnv::Nothing => [false, false],
            FilterEnv::Named(_) => [true, false],
            FilterEnv::Everything | FilterEnv::Containing(_) => [true, true],
        };
        assert_eq!(dropped, expected, "{line}");
    }
}

#[test]
fn the_example_shows_every_key_with_a_comment_above() {
    let all = uncommented(EXAMPLE);
    let lines: Vec<&str> = all.lines().collect();
    let names = keys::APP.iter().map(|key| key.name).chain(keys::DAEMON.iter().map(|key| key.name));
    for name in names.filter(|name| *name != "script") {
        let at = lines.iter().position(|line| line.starts_with(&format!("{name} = ")));
        let at = at.unwrap_or_else(|| panic!("the example does not show {name}"));
        let block = lines[..at].iter().rev().take_while(|line| !line.is_empty());
        assert!(block.clone().any(|line| line.starts_with("# ")) || name == "name", "{name} has no comment");
    }
    assert!(lines.iter().any(|line| line.starts_with("env_production = ")));
    assert!(EXAMPLE.contains("#   script = "));
}

#[test]
fn the_example_cut_at_any_byte_loads_or_says_where_it_ends() {
    for end in (0..EXAMPLE.len()).filter(|end| EXAMPLE.is_char_boundary(*end)) {
        let text = &EXAMPLE[..end];
        if let Err(diagnostics) = load(text) {
            assert!(!diagnostics.problems.is_empty());
            for problem in &diagnostics.problems {
                let place = problem.place.as_ref().expect("a position");
                assert!(place.line >= 1 && place.line <= text.lines().count() + 1, "{place:?}");
                assert!(place.column >= 1 && place.span.end <= end, "{place:?}");
            }
            let _ = diagnostics.render(true);
        }
    }
}

#[test]
fn the_defaults_of_the_table_are_the_defaults() {
    let plain = app_with("");
    for key in keys::APP {
        let is_value =
            matches!(key.kind, Kind::Duration { .. } | Kind::Count { .. } | Kind::Signal | Kind::Words)
                || matches!(key.id, AppKey::Cwd | AppKey::WaitReady | AppKey::Env | AppKey::OnReloadFailure)
                || matches!(key.id, AppKey::Namespace | AppKey::Listen | AppKey::Balance);
        if is_value && !key.default.starts_with("none") {
            assert_eq!(app_with(&format!("{} = {}", key.name, key.default)), plain, "{}", key.name);
        }
    }
    assert_eq!(plain.policy, Policy::default());
    assert_eq!(app_with("instances = 1").policy.instances, plain.policy.instances);
    let daemon =
        good("[daemon]\nshutdown_timeout = \"8s\"\nlog_files = true\n[[apps]]\nscript = \"a\"").daemon;
    assert_eq!((daemon.shutdown_timeout, daemon.log_files), (Some(config::SHUTDOWN_TIMEOUT), Some(true)));
}

#[test]
fn every_key_has_one_row_that_is_found_by_each_of_its_names() {
    for key in keys::APP {
        assert_eq!(keys::row(keys::APP, key.id).name, key.name);
        for name in std::iter::once(&key.name).chain(key.aliases) {
            assert_eq!(keys::find(keys::APP, name).map(|found| found.id), Some(key.id));
        }
        assert!(!key.meaning.is_empty() && !key.default.is_empty() && !key.kind.expected().is_empty());
    }
}

#[test]
fn settings_are_in_the_words_of_the_file_and_read_back_the_same() {
    let app = app_with(
        "instances = 3\nkill_timeout = \"1m 30s\"\nmax_restarts = 0\non_reload_failure = \"hold\"\n\
         kill_signal = 15\ndrain_idle = 500\nargs = \"a 'b c'\"\nlisten = [\":3000\", \"127.0.0.1:81\"]\n\
         env = { SECRET = \"x\" }",
    );
    let settings = config::settings(&app.policy, &app.spec);
    let expected = [
        ("args", "[\"a\",\"b c\"]"),
        ("drain_idle", "500ms"),
        ("env", "SECRET"),
        ("exec_mode", "cluster"),
        ("instances", "3"),
        ("kill_signal", "SIGTERM"),
        ("kill_timeout", "1m 30s"),
        ("listen", "[\":3000\",\"127.0.0.1:81\"]"),
        ("max_restarts", "0"),
        ("min_uptime", "1s"),
        ("out_file", "default"),
        ("restart_delay", "0"),
        ("script", "server.js"),
    ];
    for (key, value) in expected {
        assert_eq!(settings[key], value, "{key}");
    }
    let skipped = ["script", "interpreter", "env", "out_file", "error_file", "pid_file"];
    let mut text = String::from("[[apps]]\nscript = \"server.js\"\nenv = { SECRET = \"x\" }\n");
    for (key, value) in settings.iter().filter(|(key, _)| !skipped.contains(&key.as_str())) {
        let is_bare = value.starts_with('[') || value == "true" || value == "false";
        text.push_str(&if is_bare { format!("{key} = {value}\n") } else { format!("{key} = \"{value}\"\n") });
    }
    assert_eq!(good(&text).apps[0], app);
}

#[test]
fn the_profile_behind_the_name_is_for_who_asks_for_it() {
    let text = r#"
        [[apps]]
        name = "db"
        script = "/bin/true"
        append_env_to_name = true
        env_blue = { A = "b" }
        [[apps]]
        name = "api"
        script = "/bin/true"
        depends_on = "db"
    "#;
    let loaded = |profile: Option<&str>, only: &[&str]| {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        config::load(text, "eco.toml", &Host { profile: profile.map(str::to_owned), only, ..host() })
    };
    let names = |config: Config| config.apps.into_iter().map(|app| app.name).collect::<Vec<_>>();
    assert_eq!(names(loaded(None, &[]).unwrap()), ["db", "api"]);
    let blue = loaded(Some("blue"), &[]).unwrap();
    assert_eq!(blue.apps[1].policy.depends_on[0].to_string(), "db-blue");
    assert_eq!(names(blue), ["db-blue", "api"]);
    assert_eq!(names(loaded(Some("blue"), &["db"]).unwrap()), ["db-blue"]);
    let taken = text.replace("\"api\"", "\"db-blue\"");
    let host = Host { profile: Some("blue".to_owned()), ..host() };
    let wrong = config::load(&taken, "eco.toml", &host).unwrap_err().one_line().join("\n");
    assert!(wrong.contains("append_env_to_name: another app of this file has this name already"), "{wrong}");
}

#[test]
fn instances_in_every_form() {
    for (written, count) in [
        ("3", 3),
        ("\"max\"", 8),
        ("0", 8),
        ("\"0\"", 8),
        ("-1", 7),
        ("-100", 1),
        ("\"4\"", 4),
        ("\"-2\"", 6),
        ("1000", 1000),
        ("0x10", 16),
    ] {
        let policy = app_with(&format!("instances = {written}")).policy;
        assert_eq!((policy.instances, policy.mode), (count, Mode::Cluster), "{written}");
    }
}

#[test]
fn the_mode_follows_from_instances_and_listen_unless_it_is_written() {
    assert_eq!(app_with("").policy.mode, Mode::Fork);
    assert_eq!(app_with("listen = 3000").policy.mode, Mode::Cluster);
    assert_eq!(app_with("instances = 2\nexec_mode = \"fork_mode\"").policy.mode, Mode::Fork);
    assert_eq!(app_with("exec_mode = \"cluster_mode\"").policy.mode, Mode::Cluster);
    assert!(app_with("exec_mode = \"cluster\"").spec.intercept);
    assert!(!app_with("").spec.intercept);
    assert!(!app_with("instances = 2\nintercept = false").spec.intercept);
}

#[test]
fn what_runs_in_every_form() {
    let program = |text: &str| good(&format!("[[apps]]\nname = \"a\"\n{text}")).apps.remove(0).spec.program;
    let script = |script: &str, interpreter| Program::Script { script: script.into(), interpreter };
    assert_eq!(program("script = \"a.py\""), script("a.py", Interpreter::ByExtension));
    assert_eq!(program("exec = \"a\"\ninterpreter = \"none\""), script("a", Interpreter::None));
    assert_eq!(
        program("cmd = \"my app.js\"\nexecInterpreter = \"node\""),
        script("my app.js", Interpreter::Program("node".into()))
    );
    assert_eq!(program("command = \"npm start\""), Program::Shell("npm start".into()));
    assert_eq!(program("command = [\"npm\", 3]"), Program::Exact(vec!["npm".into(), "3".into()]));
    assert_eq!(good("[[apps]]\ncommand = [\"/usr/bin/web\", \"x\"]").apps[0].name, "web");
    assert_eq!(good("[[apps]]\nscript = \"./bin/api.js\"").apps[0].name, "api");
}

#[test]
fn environments_are_text_and_a_profile_goes_over() {
    let text = "[[apps]]\nscript = \"a\"\n[apps.env]\nA = 1\nB = true\nC = 1.50\nD = [1, \"x\"]\nE = { k = 2 }\n\
                F = 0x10\n[apps.env_production]\nA = \"two\"\n";
    let env = &good(text).apps[0].spec.env;
    let expected =
        [("A", "1"), ("B", "true"), ("C", "1.50"), ("D", "[1,\"x\"]"), ("E", "{\"k\":2}"), ("F", "16")];
    for (name, value) in expected {
        assert_eq!(env[name], value, "{name}");
    }
    let host = Host { profile: Some("production".into()), ..host() };
    let config = config::load(text, "eco.toml", &host).unwrap();
    assert_eq!((config.apps[0].spec.env["A"].as_str(), config.apps[0].spec.env.len()), ("two", 6));
}

#[test]
fn paths_start_from_the_files_folder_and_the_working_directory() {
    let app = app_with("cwd = \"./current\"\nout = \"logs/./out.log\"\nerr_file = \"NULL\"");
    assert_eq!(app.spec.cwd, PathBuf::from("/srv/site/current"));
    assert_eq!(app.spec.out_file, LogTarget::File("/srv/site/current/logs/out.log".into()));
    assert_eq!(app.spec.error_file, LogTarget::Discard);
    assert_eq!(app_with("").spec.cwd, PathBuf::from("/srv/site"));
    assert_eq!(app_with("cwd = \"/opt/x\"").spec.cwd, PathBuf::from("/opt/x"));
}

#[test]
fn listen_in_every_form() {
    let app = app_with(
        "name = \"api\"\nlisten = [\"0.0.0.0:80\", \"[::]:80\", \":81\", 82, \
         { name = \"admin\", address = \"127.0.0.1:90\", backlog = 16 }]",
    );
    let shown: Vec<(String, u16, bool, i32, String)> = app
        .spec
        .listen
        .iter()
        .map(|l| {
            let Address::Tcp { ip, port, v6only } = l.address else { panic!("{l:?}") };
            (ip.to_string(), port, v6only, l.backlog, l.name.clone())
        })
        .collect();
    let row = |ip: &str, port, v6only, backlog, name: &str| (ip.into(), port, v6only, backlog, name.into());
    assert_eq!(
        shown,
        [
            row("0.0.0.0", 80, false, 511, "api"),
            row("::", 80, true, 511, "api"),
            row("::", 81, false, 511, "api"),
            row("::", 82, false, 511, "api"),
            row("127.0.0.1", 90, false, 16, "admin"),
        ]
    );
    assert!(app.policy.declares_listen);
}

#[test]
fn a_unix_socket_with_mode_and_owner() {
    let app = app_with(
        "name = \"api\"\nlisten = [\"unix:/run/a\", \"unix:@b\", { address = \"unix:/run/c\", mode = 0o600, \
         user = \"www\", group = 33 }]",
    );
    let shown = |l: &config::Listen| (l.address.to_string(), l.access.clone());
    let access = |mode, user: Option<&str>, group| config::Access {
        mode,
        user: user.map(|name| Account::Name(name.to_owned())),
        group,
    };
    assert_eq!(
        app.spec.listen.iter().map(shown).collect::<Vec<_>>(),
        [
            ("unix:/run/a".to_owned(), access(0o660, None, None)),
            ("unix:@b".to_owned(), access(0o660, None, None)),
            ("unix:/run/c".to_owned(), access(0o600, Some("www"), Some(Account::Id(33)))),
        ]
    );
}

#[test]
fn units_are_milliseconds_or_written() {
    for (written, milliseconds) in
        [("0", 0), ("1600", 1600), ("\"1600\"", 1600), ("\"10s\"", 10_000), ("\"24h\"", 86_400_000)]
    {
        let policy = app_with(&format!("kill_timeout = {written}")).policy;
        assert_eq!(policy.kill_timeout, Duration::from_millis(milliseconds), "{written}");
    }
    assert_eq!(app_with("onReloadFailure = \"hold\"").policy.on_reload_failure, OnReloadFailure::Hold);
    assert_eq!(app_with("kill_signal = \"term\"").spec.kill_signal, 15);
}

#[test]
fn only_limits_the_file_to_the_apps_named() {
    let text = "[[apps]]\nscript = \"a\"\n[[apps]]\nscript = \"b\"\n";
    let host = Host { only: vec!["b".into()], ..host() };
    let config = config::load(text, "eco.toml", &host).unwrap();
    assert_eq!(config.apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn every_mistake_of_a_file_is_reported_at_once_with_its_place() {
    let text = "[daemon]\nlog_dri = \"x\"\n\n[[apps]]\nname = \"web\"\nscirpt = \"server.js\"\n\
                instances = \"many\"\nkill_timeout = \"1M\"\nvizion = true\n\n\
                [[apps]]\nscript = \"b.js\"\nexec_mode = \"clutser\"\n";
    assert_eq!(
        lines(text),
        [
            "eco.toml:2:1: unknown key \"log_dri\"; help: did you mean \"log_dir\"?",
            "eco.toml:4:1: app \"web\": script: expected a program: a file relative to cwd, a word from PATH, \
             a line for `sh -c`, or command = [\"program\", \"argument\"], got nothing; help: write script = \
             \"server.js\", or command = [\"program\", \"argument\"]",
            "eco.toml:6:1: app \"web\": unknown key \"scirpt\"; help: did you mean \"script\"?",
            "eco.toml:7:13: app \"web\": instances: expected a whole number from 1 to 1000, \"max\" or 0 for \
             one per CPU, or a negative number for so many fewer, got \"many\"",
            "eco.toml:8:16: app \"web\": kill_timeout: \"1M\" is in months or years, whose length is not \
             fixed; help: \"m\" is minutes; write \"1m\" for a minute",
            "eco.toml:9:1: app \"web\": unknown key \"vizion\"; help: known to PM2, not \
             supported by this version of clusterd",
            "eco.toml:13:13: app \"b\": exec_mode: expected \"fork\" or \"cluster\", got \"clutser\"; help: \
             did you mean \"cluster\"?",
        ]
    );
}

#[test]
fn the_snippet_shows_the_line_and_underlines_the_value() {
    let text = "[[apps]]\nscript = \"server.js\"\ninstances = \"many\" # half\n";
    let shown = load(text).expect_err("wrong").render(false);
    assert_eq!(
        shown,
        "error: app \"server\": instances: expected a whole number from 1 to 1000, \"max\" or 0 for one per \
         CPU, or a negative number for so many fewer, got \"many\"\n\
         \x20--> eco.toml:3:13\n\
         \x20 |\n\
         3 | instances = \"many\" # half\n\
         \x20 |             ^^^^^^\n\
         \n\
         error: eco.toml: 1 problem: nothing was changed\n"
    );
    assert!(load(text).expect_err("wrong").render(true).contains("\u{1b}["));
}

#[test]
fn the_snippet_of_a_long_line_shows_the_place() {
    let text = format!("[[apps]]\nscript = \"a\"\nenv = {{ A = \"{}\" , \"B=\" = 1 }}\n", "ä".repeat(500));
    let shown = load(&text).expect_err("wrong").render(false);
    let rows: Vec<&str> = shown.lines().collect();
    let column = |row: &str, what: &str| row.find(what).map(|at| row[..at].chars().count());
    assert!(rows[3].chars().count() < 120, "{shown}");
    assert_eq!(column(rows[3], "1 }"), column(rows[4], "^"), "{shown}");
}

#[test]
fn a_files_text_cannot_steer_the_terminal() {
    let shown = load("[[apps]]\nscript = \"a\"\n\"\\u001b[2J\" = 1\n").expect_err("wrong").render(false);
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let text = "[[apps]]\nscript = \"a\"\nname = \"\\u001b[2J\"\nenv = { \"A\\u001b=\" = 1 }\n";
    assert!(!load(text).expect_err("wrong").render(false).contains('\u{1b}'));
}

#[test]
fn json_has_the_same_facts() {
    let json = load("[[apps]]\nscript = \"a\"\nmax_surge = 0\n").expect_err("wrong").to_json();
    let problem = &json["problems"][0];
    assert_eq!(json["source"], "eco.toml");
    assert_eq!((problem["line"].as_u64(), problem["column"].as_u64()), (Some(3), Some(13)));
    assert_eq!((problem["app"].as_str(), problem["key"].as_str()), (Some("a"), Some("max_surge")));
    assert_eq!(problem["expected"], "a whole number from 1 to 1000");
}

#[test]
fn syntax_errors_are_shown_first_per_line_beside_what_else_is_wrong() {
    let text = "[[apps]]\nname = web\nscript = \"a\"\nkill_timeout = -5\nargs = \"x\" y\n";
    let places: Vec<usize> =
        load(text).expect_err("wrong").problems.iter().map(|p| p.place.as_ref().unwrap().line).collect();
    assert_eq!(places, [2, 4, 5]);
}

#[test]
fn a_broken_header_does_not_bring_forth_other_mistakes() {
    let diagnostics = load("[[apps]\nname = \"web\"\nscript = \"a\"\n").expect_err("wrong");
    assert_eq!(diagnostics.problems.len(), 1, "{diagnostics}");
    assert_eq!(diagnostics.problems[0].place.as_ref().unwrap().line, 1);
}

#[test]
fn more_than_fifty_problems_are_counted() {
    let text =
        format!("[[apps]]\nscript = \"a\"\n{}", (0..80).map(|n| format!("zzz{n} = 1\n")).collect::<String>());
    let diagnostics = load(&text).expect_err("wrong");
    assert_eq!((diagnostics.problems.len(), diagnostics.omitted), (50, 30));
    assert!(
        diagnostics
            .render(false)
            .ends_with("80 problems, of which the first 50 are shown: nothing was changed\n")
    );
}

#[test]
fn a_file_without_apps_says_what_to_write() {
    for text in ["", "\n# nothing\n", "[daemon]\n", "apps = []\n"] {
        let said = lines(text).join("\n");
        assert!(said.contains("expected at least one app, got none; help: write a line [[apps]]"), "{said}");
    }
    let said = lines("[apps]\nscript = \"a\"\n").join("\n");
    assert!(
        said.starts_with(
            "eco.toml:1:2: apps: expected an array of tables, got a table; help: write [[apps]]"
        ),
        "{said}"
    );
    assert!(lines("script = \"a\"\n").join("\n").contains("keys of an app stand below the line [[apps]]"));
    assert!(lines("[[app]]\nscript = \"a\"\n").join("\n").contains("did you mean [[apps]]?"));
}

#[test]
fn two_names_of_one_key_are_an_error_that_names_both() {
    let said = said("exec = \"b\"\nnode_args = \"a\"\ninterpreterArgs = \"b\"");
    assert!(said.contains("\"script\" (line 2) and \"exec\" are two names of the same key"), "{said}");
    assert!(said.contains("\"node_args\" (line 4) and \"interpreterArgs\" are two names"), "{said}");
}

#[test]
fn wait_ready_is_another_way_to_say_that_only_the_workers_word_counts() {
    let ready = |lines: &str| {
        let text = format!("[[apps]]\nname = \"a\"\nscript = \"a.js\"\ninstances = 2\n{lines}\n");
        load(&text).map(|config| config.apps[0].policy.ready)
    };
    assert_eq!(ready("").ok(), Some(Readiness::Auto));
    assert_eq!(ready("wait_ready = true").ok(), Some(Readiness::Word));
    assert_eq!(ready("wait_ready = true\nready = \"auto\"").ok(), Some(Readiness::Word));
    assert_eq!(ready("wait_ready = true\nready = \"ipc\"").ok(), Some(Readiness::Ipc));
    assert_eq!(ready("wait_ready = false\nready = \"exec\"").ok(), Some(Readiness::Exec));
    let refused = ready("wait_ready = true\nready = \"exec\"").expect_err("they contradict each other");
    assert!(refused.render(false).contains("ready says otherwise"), "{}", refused.render(false));
}

#[test]
fn absurd_values_are_refused_with_what_would_be_right() {
    let long = "x".repeat(200_000);
    let rows: &[(&str, &str)] = &[
        ("instances = 10000", "instances: expected a whole number from 1 to 1000"),
        ("instances = 1.5", "got 1.5"),
        ("instances = true", "got true"),
        ("instances = \"auto\"", "write \"max\""),
        ("instances = 99999999999999999999999", "instances: expected"),
        ("kill_timeout = -1", "from 0 to 24h"),
        ("kill_timeout = 1000000000000000000", "from 0 to 24h"),
        ("kill_timeout = \"99999999999999999999999\"", "from 0 to 24h"),
        ("kill_timeout = \"25h\"", "from 0 to 24h"),
        ("kill_timeout = 1.5", "such as \"1.5s\""),
        ("kill_timeout = \"5S\"", "units are small letters: \"5s\""),
        ("kill_timeout = \"1.5\"", "write the unit"),
        ("kill_timeout = \"soon\"", "units are ms, s, m, h"),
        ("kill_timeout = [1]", "got an array"),
        ("listen_timeout = 0", "from 1ms to 24h"),
        ("drain_idle = 0", "from 1ms"),
        ("exp_backoff_restart_delay = \"1m\"", "from 0 to 15s"),
        ("max_restarts = -1", "from 0 to 1000000"),
        ("max_restarts = 1000001", "from 0 to 1000000"),
        ("max_surge = 0", "from 1 to 1000"),
        ("wait_ready = \"true\"", "write true without quotes"),
        ("wait_ready = 1", "expected true or false, got 1"),
        ("ready = \"yes\"", "\"exec\", \"http:/path\" or \"http://:8080/path\", got \"yes\""),
        ("ready = \"http:healthz\"", "is no path of a request"),
        ("ready = \"http:/a\"", "in fork mode nobody sees"),
        ("ready = \"http:8080/a\"", "or with a port \"http://:8080/healthz\""),
        ("ready = \"http://:8080\"", "is no path of a request"),
        ("ready = \"http://:0/a\"", "\":0\" is no port of a worker's"),
        ("ready = \"http://api.example/a\"", "the worker itself is asked: write its port alone"),
        ("ready = \"http://127.0.0.1:0/a\"", "is no port of a worker's"),
        ("health = true", "expected { http = \"/healthz\" }"),
        ("health = { interval = 5 }", "says nothing of how to ask"),
        ("health = { tcp = true, http = \"/\" }", "asks in two ways"),
        ("health = { http = \"a b\" }", "is no path of a request"),
        ("health = { http = \"/\", retries = 0 }", "retries is out of its range"),
        ("health = { http = \"/\", timeout = \"0s\" }", "timeout is out of its range"),
        ("health = { htpt = \"/\" }", "\"htpt\" is none of its parts"),
        ("health = { command = [] }", "command names no program"),
        ("health = { http = \"http://:80/a\" }", "where it is asked is port = 8080"),
        ("health = { http = \"/\", port = 0 }", "port is out of its range"),
        ("health = { http = \"/\", port = 1, socket = \"a\" }", "says in two ways where to ask"),
        ("health = { command = [\"a\"], port = 1 }", "says where to ask, and a command knows"),
        ("health = { tcp = true }", "in fork mode nobody knows"),
        ("watchdog = 0", "from 1ms to 24h"),
        ("hang_timeout = 1", "from 100ms to 24h"),
        ("ready = \"listen\"", "in fork mode nobody sees a server listen"),
        ("shutdown_with_message = 1", "expected true or false, got 1"),
        ("name = \"../x\"", "1 to 64 letters"),
        ("name = \"\"", "1 to 64 letters"),
        ("name = \"-x\"", "taken for an option"),
        ("name = \"..\"", "taken for a folder"),
        ("name = \"all\"", "means every app"),
        ("name = \"7\"", "taken for the id of a worker"),
        ("namespace = \"a b\"", "1 to 64 letters"),
        ("exec_mode = \"threads\"", "expected \"fork\" or \"cluster\""),
        ("on_reload_failure = 1", "expected \"rollback\" or \"hold\""),
        ("kill_signal = \"SIGKILL\"", "sent after kill_timeout anyway"),
        ("kill_signal = 9", "sent after kill_timeout anyway"),
        ("kill_signal = \"STOP\"", "never ends it"),
        ("kill_signal = \"SIGTREM\"", "did you mean \"SIGTERM\"?"),
        ("kill_signal = 0", "the name or the number of a signal"),
        ("kill_signal = 4096", "the name or the number of a signal"),
        ("intercept = true", "only cluster mode shares ports"),
        ("balance = \"source-ip\"", "only cluster mode shares ports"),
        ("canary = \"10%\"", "only cluster mode shares ports"),
        ("canary = 10", "write \"10%\""),
        ("canary = \"100%\"", "a share from \"1%\" to \"99%\""),
        ("canary = \"0%\"", "a share from \"1%\" to \"99%\""),
        ("balance = \"source_ip\"", "did you mean \"source-ip\"?"),
        ("args = \"a 'b\"", "a quote that is not closed"),
        ("args = [\"a\", [\"b\"]]", "write each argument as a string"),
        ("args = [\"a\\u0000b\"]", "contains a NUL character"),
        ("cwd = \"\"", "the path of a folder"),
        ("cwd = \"~/x\"", "write the whole path"),
        ("out_file = \"logs/\"", "add the file's name"),
        ("log_rate_limit = 0", "lines and a time from 1s to 1h"),
        ("log_rate_limit = \"10/\"", "lines and a time from 1s to 1h"),
        ("log_rate_limit = \"10/2h\"", "lines and a time from 1s to 1h"),
        ("log_rate_limit = \"-1/s\"", "lines and a time from 1s to 1h"),
        ("interpreter = \"python3 -u\"", "arguments go into interpreter_args"),
        ("interpreter = \"node@18\"", "write the path of the node to use"),
        ("env = \"A=1\"", "write env = { NAME = \"value\" }"),
        ("env = { \"A=B\" = 1 }", "env.A=B: a variable's name"),
        ("env = { \"\" = 1 }", "a variable's name"),
        ("env = { A = \"\\u0000\" }", "contains a NUL character"),
        ("env = { LISTEN_FDS = 3 }", "clusterd sets this variable itself"),
        ("env_ = { A = 1 }", "the name of the profile is missing"),
        ("listen = \"localhost:3000\"", "write \"127.0.0.1:3000\" or \"[::1]:3000\""),
        ("listen = \"example.org:80\"", "only numeric addresses"),
        ("listen = \"unix:a.sock\"", "not an absolute path"),
        ("listen = \"/run/a.sock\"", "a Unix socket is \"unix:/run/a.sock\""),
        ("listen = \"unix:/run/\"", "is a folder"),
        ("listen = \"unix:@\"", "is empty"),
        ("listen = { address = \"unix:/run/a\", mode = 660 }", "permission bits"),
        ("listen = { address = \"unix:@a\", mode = \"0660\" }", "belongs to the file of a Unix socket"),
        ("listen = { user = \"www-data\", address = 80 }", "belongs to the file of a Unix socket"),
        ("listen = [\"unix:/run/a\", \"unix:/run/a\"]", "is covered by"),
        (
            "listen = [{ name = \"x\", address = 80 }, { name = \"x\", address = 81 }]",
            "two sockets have the name \"x\"",
        ),
        ("listen = \":0\"", "port 0"),
        ("listen = 65536", "a port is a number from 1 to 65535"),
        ("listen = \":99999\"", "a port is a number from 1 to 65535"),
        ("listen = \"*:80\"", "all addresses are \":80\""),
        ("listen = \"::1:80\"", "in brackets: \"[::1]:80\""),
        ("listen = \"127.0.0.1\"", "add the port"),
        ("listen = \"http://0.0.0.0:80\"", "leave out the scheme"),
        ("listen = \"[::ffff:1.2.3.4]:80\"", "write it as \"1.2.3.4:80\""),
        ("listen = \"[fe80::1%2]:80\"", "zones are not supported"),
        ("listen = \"224.0.0.1:80\"", "TCP cannot listen on"),
        ("listen = [\":80\", \"[::]:80\"]", "[::]:80 is covered by :80"),
        ("listen = { name = \"a\" }", "the address is missing"),
        ("listen = { name = \"a:b\", address = 80 }", "LISTEN_FDNAMES"),
        ("listen = { address = 80, backlog = 0 }", "listen.backlog: expected a whole number from 1 to 65535"),
        ("listen = { address = 80, adress = 81 }", "did you mean \"address\"?"),
        ("user = \"\"", "leave the key out to run as clusterd's own user"),
        ("user = \"a:b\"", "cannot be the name of an account"),
        ("user = \"a\\nb\"", "cannot be the name of an account"),
        ("user = 4294967295", "a number from 0 to 4294967294"),
        ("uid = \"4294967295\"", "a number from 0 to 4294967294"),
        ("user = -1", "a number from 0 to 4294967294"),
        ("user = \"99999999999999999999\"", "a number from 0 to 4294967294"),
        ("gid = true", "expected a name, or a number"),
        ("group = 1.5", "expected a name, or a number"),
        ("umask = 22", "write it in octal: \"022\""),
        ("umask = 0o1777", "from \"000\" to \"777\""),
        ("umask = \"8\"", "permission bits in octal"),
        ("umask = \"\"", "permission bits in octal"),
        ("umask = \"u=rwx\"", "permission bits in octal"),
        ("nice = 20", "a whole number from -20 to 19"),
        ("nice = -21", "a whole number from -20 to 19"),
        ("oom_score_adj = 1001", "a whole number from -1000 to 1000"),
        ("rlimits = 5", "write rlimits = { nofile = 65536 }"),
        ("rlimits = { nofiles = 1 }", "rlimits.nofiles: the kernel has no limit of this name"),
        ("rlimits = { nofile = -1 }", "rlimits.nofile: expected a whole number, \"unlimited\""),
        ("rlimits = { nofile = \"1K\" }", "rlimits.nofile: expected a whole number"),
        ("rlimits = { data = \"1X\" }", "units are K, M, G"),
        ("rlimits = { nofile = { soft = 2, hard = 1 } }", "soft (2) is greater than hard (1)"),
        (
            "rlimits = { core = { soft = \"unlimited\", hard = 1 } }",
            "soft (\"unlimited\") is greater than hard",
        ),
        ("rlimits = { nofile = {} }", "write { soft = 1024, hard = 4096 }"),
        ("rlimits = { nofile = { sotf = 1 } }", "is neither soft nor hard"),
        ("no_new_privs = 1", "expected true or false"),
        ("env_file = \"\"", "the path of a file of NAME=value lines"),
        ("env_file = [\".env\", 1]", "the path of a file of NAME=value lines"),
        ("env_file = \"a\\u0000b\"", "contains a NUL character"),
        ("filter_env = \"\"", "write true to drop the whole base environment"),
        ("filter_env = [\"\"]", "write true to drop the whole base environment"),
        ("filter_env = 1", "expected true for all"),
        ("instance_var = \"A=B\"", "a variable's name"),
        ("instance_var = \"LISTEN_FDS\"", "clusterd sets this variable itself"),
        ("increment_var = \"\"", "a variable's name"),
        ("pid_file = \"run/\"", "add the file's name: \"run/app.pid\""),
        ("naem = \"x\"", "unknown key \"naem\"; help: did you mean \"name\"?"),
        ("vizion = true", "known to PM2, not supported by this version"),
    ];
    for (line, expected) in rows {
        let said = said(line);
        assert!(said.contains(expected), "{line}\n{said}");
        assert!(said.starts_with("eco.toml:3:"), "{line}\n{said}");
        assert_eq!(said.lines().count(), 1, "{line}\n{said}");
    }
    for line in
        [format!("args = [\"{long}\"]"), format!("args = \"{long}\""), format!("env = {{ A = \"{long}\" }}")]
    {
        let said = said(&line);
        assert!(said.contains("E2BIG") && said.len() < 400, "{said}");
    }
}

#[test]
fn apps_depend_on_apps_of_the_file_by_name() {
    let text = "[[apps]]\nscript = \"web\"\ndepends_on = [\"db\", \"shop/cart\", \"db\"]\n\
                [[apps]]\nscript = \"db\"\n[[apps]]\nscript = \"cart\"\nnamespace = \"shop\"\n";
    let app = good(text).apps.remove(0);
    let names: Vec<String> = app.policy.depends_on.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["db", "shop/cart"]);
    // `--only` leaves the check to the whole file.
    let host = Host { only: vec!["web".into()], ..host() };
    assert_eq!(config::load(text, "eco.toml", &host).unwrap().apps.len(), 1);
}

/// Fault 7: each mistake once, at the name.
#[test]
fn circles_and_strangers_are_refused_with_their_place() {
    let app = |name: &str, on: &str| format!("[[apps]]\nscript = \"{name}\"\ndepends_on = {on}\n");
    let rows = [
        (app("a", "\"a\""), "eco.toml:3:14: app \"a\": depends_on: is the app itself; help: leave it out"),
        (
            app("web", "[\"bd\"]") + &app("db", "[]"),
            "eco.toml:3:15: app \"web\": depends_on: no app of this file is called \"bd\"; help: did you mean \
             \"db\"? The file has db, web",
        ),
        (
            app("a", "[\"b\"]") + &app("b", "[\"c\"]") + &app("c", "[\"b\"]") + &app("d", "[\"c\"]"),
            "eco.toml:6:15: app \"b\": depends_on: the apps wait for each other: b -> c -> b; help: one of them \
             has to start first: leave its depends_on out",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(lines(&text), [expected], "{text}");
    }
    let nameless = app("all", "[]") + &app("web", "[\"db\"]");
    assert!(lines(&nameless).concat().contains("help: the file has web"), "{nameless}");
    assert!(said("depends_on = [1]").contains("depends_on: expected the name of another app"));
    assert!(said("depends_on = \"a/b/c\"").contains("depends_on: expected the name of another app"));
    let many: Vec<String> = (0..65).map(|number| format!("a{number}")).collect();
    assert!(said(&format!("depends_on = {many:?}")).contains("at most 64"));
}

#[test]
fn exit_codes_are_a_number_or_several() {
    let codes = |value: &str| app_with(&format!("stop_exit_codes = {value}")).policy.stop_exit_codes;
    assert_eq!((codes("42"), codes("[3, 0, 3]")), (vec![42], vec![0, 3]));
    for wrong in ["256", "[-1]", "\"x\"", "[0.5]"] {
        let said = said(&format!("stop_exit_codes = {wrong}"));
        assert!(said.contains("stop_exit_codes: expected a whole number from 0 to 255"), "{said}");
    }
    let flags = app_with("autorestart = false\nautostart = false\nessential = true").policy;
    assert_eq!((flags.autorestart, flags.autostart, flags.essential), (false, false, true));
}

#[test]
fn keys_that_would_do_nothing_are_refused() {
    let of = |text: &str| lines(&format!("[[apps]]\nname = \"a\"\n{text}")).join("\n");
    assert!(of("command = [\"a\"]\nargs = \"b\"").contains("args: has no effect beside command = [...]"));
    assert!(
        of("command = [\"a\"]\ninterpreter = \"b\"").contains("interpreter: has no effect beside command")
    );
    assert!(of("script = \"a b\"\nargs = \"c\"").contains("a line for `sh -c`"));
    assert!(
        of("script = \"a\"\nnode_args = \"c\"").contains("node_args: has no effect, since no interpreter")
    );
    assert!(of("script = [\"a\", \"b\"]").contains("is written command = [\"program\""));
    assert!(of("command = []").contains("the first string is the program"));
    assert!(lines("[[apps]]\nscript = \"npm start\"").join("\n").contains("give the app one: name = "));
}

#[test]
fn what_one_socket_for_all_workers_cannot_give_is_refused() {
    let rows = [
        ("health = { tcp = true }", "health: asks one worker, and no connection reaches one alone", true),
        ("health = { http = \"/\" }", "health: asks one worker, and no connection reaches one alone", true),
        ("ready = \"http:/\"", "ready: asks one worker, and no connection reaches one alone", true),
        ("balance = \"source-ip\"", "balance: leads clients to workers", true),
        ("canary = \"10%\"", "canary: holds a share of the connections", false),
    ];
    for (line, expected, only_alone) in rows {
        let of = |listen: &str| format!("[[apps]]\nscript = \"a\"\nlisten = {listen}\n{line}\n");
        let said = lines(&of("\"unix:@a\""));
        assert!(said.len() == 1 && said[0].contains(expected), "{line}: {said:?}");
        good(&of("80"));
        let beside = of("[80, \"unix:@a\"]");
        if only_alone {
            good(&beside);
        } else {
            assert!(lines(&beside).join("").contains(expected), "{line}");
        }
    }
    good("[[apps]]\nscript = \"a\"\nlisten = \"unix:@a\"\nhealth = { command = [\"true\"] }\n");
}

/// Where an app of these lines is asked whether it is ready, and whether it is well.
fn doors(lines: &str) -> (Option<Door>, Option<Door>) {
    let app = good(&format!("[[apps]]\nname = \"a\"\nscript = \"a\"\n{lines}\n")).apps.remove(0);
    let ready = if let Readiness::Http(door) = app.policy.ready { Some(door) } else { None };
    let health = app.policy.health.and_then(|health| match health.way {
        Way::Connection(door) => Some(door),
        Way::Command => None,
    });
    (ready, health)
}

#[test]
fn where_a_worker_is_asked_is_chosen_by_port_by_name_or_by_the_order_of_listen() {
    let at = |text: &str, v6only| {
        let socket: std::net::SocketAddr = text.parse().expect("an address");
        Address::Tcp { ip: socket.ip(), port: socket.port(), v6only }
    };
    let named = "listen = [\"unix:@a\", { name = \"http\", address = \":80\" }, { name = \"admin\", address = \
                 \"127.0.0.1:81\" }]\n";
    let (http, admin) = (at("[::]:80", false), at("127.0.0.1:81", false));
    for (listen, chosen, expected) in [
        ("instances = 1\n", "", Door::Any(None)),
        (named, "", Door::Any(Some(http))),
        ("instances = 1\n", ", port = 9100", Door::Port(9100)),
        ("listen = 9100\n", ", port = 9100", Door::Port(9100)),
        (named, ", socket = \"http\"", Door::At(http)),
        (named, ", socket = \"admin\"", Door::At(admin)),
        // The default name is the app's.
        ("listen = 80\n", ", socket = \"a\"", Door::At(http)),
    ] {
        for way in ["http = \"/\"", "tcp = true"] {
            let (_, door) = doors(&format!("{listen}health = {{ {way}{chosen} }}"));
            assert_eq!(door, Some(expected), "{listen} {chosen}");
        }
    }
    for (url, expected) in [
        ("http:/a", Door::Any(Some(http))),
        ("http://:9100/a", Door::Port(9100)),
        ("http://localhost:9100/a", Door::Port(9100)),
        ("http://0.0.0.0:9100/a", Door::Port(9100)),
        ("http://127.0.0.1:81/a", Door::At(admin)),
        ("http://[::1]:80/a", Door::At(at("[::1]:80", true))),
    ] {
        assert_eq!(doors(&format!("{named}ready = \"{url}\"")).0, Some(expected), "{url}");
    }
}

#[test]
fn where_no_worker_can_be_asked_is_refused() {
    let of = |keys: &str| lines(&format!("[[apps]]\nname = \"a\"\nscript = \"a\"\n{keys}\n")).join("");
    let closed = "listen = [{ name = \"http\", address = \":80\" }, \"unix:@a\", \"127.0.0.1:81\"]\n\
                  intercept = false\n";
    for (keys, expected) in [
        (
            "health = { tcp = true, port = 82 }",
            "asks at port 82, which is none of the TCP addresses in listen",
        ),
        ("health = { tcp = true, port = 82 }", "([::]:80, 127.0.0.1:81)"),
        ("ready = \"http://:82/\"", "asks at port 82, which is none"),
        ("ready = \"http://127.0.0.2:81/\"", "asks at 127.0.0.2:81, which is none"),
        ("health = { tcp = true, socket = \"https\" }", "no socket of listen is called \"https\""),
        ("health = { tcp = true, socket = \"https\" }", "listen has \"http\", \"a\", \"a\""),
        ("health = { tcp = true, socket = \"a\" }", "2 sockets of listen are called \"a\""),
    ] {
        let said = of(&format!("{closed}{keys}"));
        assert!(said.contains(expected), "{keys}: {said}");
    }
    let unix =
        "listen = [80, { name = \"b\", address = \"unix:@b\" }]\nhealth = { http = \"/\", socket = \"b\" }";
    assert!(of(unix).contains("\"b\" is a Unix socket, which all workers share"), "{}", of(unix));
    let none = "instances = 1\nhealth = { http = \"/\", socket = \"b\" }";
    assert!(of(none).contains("or write port = 8080"), "{}", of(none));
    good("[[apps]]\nscript = \"a\"\nlisten = 80\nhealth = { http = \"/\", port = 9100 }");
    let fork = "exec_mode = \"fork\"\nlisten = 80\nhealth = { http = \"/\", port = 9100 }";
    assert!(
        of(fork).contains("a port that the server opens itself is known in cluster mode"),
        "{}",
        of(fork)
    );
}

#[test]
fn apps_cannot_share_a_name_or_an_address() {
    let text = "[[apps]]\nscript = \"a\"\nlisten = \":80\"\n[[apps]]\nname = \"a\"\nscript = \"b\"\n\
                listen = \"127.0.0.1:80\"\n[[apps]]\nname = \"a\"\nnamespace = \"other\"\nscript = \"c\"\n";
    let said = lines(text);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("eco.toml:5:8: app \"a\": name: expected a name that is unique"), "{said:?}");
    assert!(said[1].contains("127.0.0.1:80 overlaps with :80 of app \"a\" (line 3)"), "{said:?}");
}

#[test]
fn a_profile_or_an_app_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let text = "[[apps]]\nscript = \"api\"\nenv_production = {}\nenv_staging = {}\n";
    let of = |profile: Option<&str>, only: &[&str]| {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        let host = Host { profile: profile.map(str::to_owned), only, ..host() };
        config::load(text, "eco.toml", &host).expect_err("wrong").one_line().join("\n")
    };
    assert_eq!(
        of(Some("prodution"), &[]),
        "eco.toml: --env: no app has env_prodution; help: did you mean production? The file has production, staging"
    );
    assert_eq!(
        of(Some("x"), &[]),
        "eco.toml: --env: no app has env_x; help: the file has production, staging"
    );
    assert_eq!(
        of(None, &["apj"]),
        "eco.toml: --only: no app is named \"apj\"; help: did you mean api? The file has api"
    );
}

#[test]
fn text_that_is_too_long_or_no_text_is_refused() {
    let diagnostics = load(&"#".repeat(config::MAX_TEXT + 1)).expect_err("too long");
    assert!(diagnostics.one_line()[0].contains("expected at most 1048576 bytes, got 1048577"));
    let diagnostics = config::decode(b"a = 1\nb = \"\xff\"\n", "eco.toml").expect_err("not UTF-8");
    assert!(diagnostics.one_line()[0].starts_with("eco.toml:2:6: expected UTF-8"), "{diagnostics}");
    assert!(config::decode("ä".as_bytes(), "eco.toml").is_ok());
    assert!(load("[[apps]]\nscript = \"a\"\n\0\n").is_err());
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_no_mistake() {
    assert_eq!(good("\u{feff}[[apps]]\r\nscript = \"a\"\r\n").apps.len(), 1);
}

#[test]
fn text_that_is_nested_or_repeated_without_end_is_refused_in_time_and_memory() {
    let size = 200_000;
    for text in [
        "[".repeat(size),
        format!("a = {}", "[".repeat(size)),
        format!("a = {}", "{a=".repeat(size)),
        format!("[[apps]]\nscript = \"a\"\nenv = {{ A = {}1{} }}", "[".repeat(size), "]".repeat(size)),
        "a.".repeat(size),
        format!("[{}a]", "a.".repeat(size)),
        "a=\n".repeat(size),
        "a=1\n".repeat(size),
        (0..100_000).map(|n| format!("k{n}=1\n")).collect(),
        "[[apps]]\n".repeat(100_000),
    ] {
        let diagnostics = load(&text).expect_err("nothing of this is a file");
        assert!(diagnostics.problems.len() <= 50);
        assert!(diagnostics.render(false).len() < 200_000);
    }
}

#[test]
fn values_nested_as_deep_as_toml_allows_are_read() {
    let text = format!("[[apps]]\nscript = \"a\"\nenv.A = {}1{}", "[".repeat(70), "]".repeat(70));
    assert!(good(&text).apps[0].spec.env["A"].starts_with("[[[["));
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}").to_lowercase()),
        any::<bool>().prop_map(|b| b.to_string()),
        "[ -!#-\\[\\]-~äß€]{0,20}".prop_map(|text| format!("\"{text}\"")),
        Just("\"max\"".to_owned()),
        Just("\":3000\"".to_owned()),
        Just("\"10s\"".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(", "))),
            proptest::collection::vec((key(), inner), 0..3).prop_map(|items| {
                let items: Vec<String> = items.into_iter().map(|(k, v)| format!("{k} = {v}")).collect();
                format!("{{ {} }}", items.join(", "))
            }),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    let known: Vec<String> = keys::names(keys::APP)
        .chain(keys::names(keys::DAEMON))
        .chain(["env_production", "address", "backlog", "apps", "daemon", "PORT"])
        .map(str::to_owned)
        .collect();
    prop_oneof![3 => proptest::sample::select(known), 1 => "[a-zA-Z_-]{1,12}"]
}

fn file() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        1 => Just("[[apps]]".to_owned()),
        1 => Just("[daemon]".to_owned()),
        1 => Just("[apps.env]".to_owned()),
        8 => (key(), value()).prop_map(|(key, value)| format!("{key} = {value}")),
    ];
    proptest::collection::vec(line, 0..20).prop_map(|lines| format!("[[apps]]\n{}\n", lines.join("\n")))
}

fn never_panics(text: &str) {
    match load(text) {
        Ok(config) => {
            for app in &config.apps {
                assert!(!config::settings(&app.policy, &app.spec).is_empty());
                assert!(!app.name.is_empty() && app.policy.instances >= 1);
            }
        }
        Err(diagnostics) => {
            assert!(!diagnostics.problems.is_empty());
            assert!(diagnostics.problems.iter().all(|problem| problem.place.is_some()));
            let _ = (diagnostics.render(true), diagnostics.one_line(), diagnostics.to_json());
        }
    }
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in any::<String>()) {
        never_panics(&text);
    }

    #[test]
    fn no_file_is_too_strange(text in file()) {
        never_panics(&text);
    }

    #[test]
    fn no_damage_to_the_example_is_too_strange(at in 0..EXAMPLE.len(), to in 0..EXAMPLE.len(), with in ".{0,5}") {
        let (from, to) = (at.min(to), at.max(to));
        if EXAMPLE.is_char_boundary(from) && EXAMPLE.is_char_boundary(to) {
            never_panics(&format!("{}{with}{}", &EXAMPLE[..from], &EXAMPLE[to..]));
        }
    }
}

#[test]
fn amounts_of_memory_are_bytes_or_a_share_of_what_the_host_has() {
    let limit = |line: &str| app_with(&format!("max_memory_restart = {line}")).policy.max_memory_restart;
    assert_eq!(limit("\"300M\""), Some(MemoryLimit::Each(300 * 1024 * 1024)));
    assert_eq!(limit("314572800"), Some(MemoryLimit::Each(300 * 1024 * 1024)));
    assert_eq!(limit("\"80%\""), Some(MemoryLimit::Shared(800_000_000)));
    for (line, expected) in [
        ("300", "write \"300M\""),
        ("1.5", "write a fraction with its unit"),
        ("\"lots\"", "expected an amount of memory from 1 MiB"),
        ("\"120%\"", "expected an amount of memory"),
        ("true", "expected an amount of memory"),
    ] {
        let said = said(&format!("max_memory_restart = {line}"));
        assert!(said.contains(expected), "{line}: {said}");
    }
}

#[test]
fn the_poll_interval_holds_for_every_app() {
    let text = "[[apps]]\nscript = \"a\"\n[[apps]]\nscript = \"b\"\n[daemon]\npoll_interval = \"250ms\"\n";
    let intervals = good(text).apps.into_iter().map(|app| app.policy.poll_interval);
    assert_eq!(intervals.collect::<Vec<_>>(), [Duration::from_millis(250); 2]);
}
