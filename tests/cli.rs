//! The command line as its users meet it: the real binary, without a supervisor.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use clap::{CommandFactory, Parser};
use clusterd::cli::{Cli, Verb, with_verb};
use clusterd::control::frame;
use clusterd::control::protocol::{
    AppFailure, AppInfo, DaemonInfo, Done, Error, Frame, Line, List, Part, Progress, Reply, Request, Stream,
    WorkerInfo,
};

fn clusterd(home: &Path, words: &[&str]) -> Output {
    command(home, words).output().unwrap()
}

fn command(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.args(words).env("CLUSTERD_HOME", home).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
    command.current_dir(home).stdin(Stdio::null());
    command
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout: {}\nstderr: {}", out(output), err(output));
}

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    let words = std::iter::once("clusterd").chain(words.iter().copied()).map(Into::into).collect();
    Cli::try_parse_from(with_verb(words, |path| path == Path::new("ecosystem")))
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_first_word_that_is_a_file_runs_it_in_the_foreground() {
    for words in [
        &["ecosystem.toml"][..],
        &["ecosystem.toml", "--env", "production", "--only", "a,b", "--no-log-files"],
        &["--env", "production", "ecosystem.toml"],
        &["--home", "/srv/list", "ecosystem.toml"],
        &["--json", "-"],
        &["-"],
        &["ecosystem"],
    ] {
        let cli = parse(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        assert!(matches!(cli.verb, Verb::Run(_)), "{words:?}");
    }
    let Ok(Cli { verb: Verb::Run(run), .. }) = parse(&["e.toml", "--only", "a,b", "--env", "p"]) else {
        panic!()
    };
    assert_eq!((run.selection.only, run.selection.profile), (vec!["a".into(), "b".into()], Some("p".into())));
}

#[test]
fn a_verb_stays_a_verb() {
    for words in
        [&["list"][..], &["--home", "x.toml", "list"], &["--json", "ls"], &["start", "x.toml"], &["help"]]
    {
        let is_run = matches!(parse(words), Ok(Cli { verb: Verb::Run(_), .. }));
        assert!(!is_run, "{words:?}");
    }
}

#[test]
fn every_spelling_is_understood() {
    for words in [
        "start api",
        "start api worker 3 -a",
        "start a.js b.py -f --no-wait",
        "start a.js -n api -i max -o out.log -- --port 3000 -v",
        "start a.js -i -1 --node-args --inspect -c @daily -k 3s -p a.pid -e err.log",
        "stop api 3 all",
        "restart api --update-env",
        "restart api -a",
        "reload /^a/ --no-wait",
        "scale api 4",
        "scale api +2",
        "scale api -1",
        "scale api -1 --no-wait --json",
        "delete api",
        "del api",
        "list",
        "ls",
        "status",
        "l",
        "ps api --connections",
        "describe api",
        "desc api",
        "show api",
        "info api",
        "logs",
        "logs api -n 100 --nostream --err",
        "logs api --lines 5 --no-follow --out",
        "signal SIGHUP api",
        "sendSignal 1 api",
        "send api x",
        "send api other -- -x",
        "report",
        "report --json",
        "ping",
        "kill",
        "save",
        "dump --force",
        "resurrect",
        "resurrect --foreground",
        "resurrect --no-daemon",
        "cleardump",
        "startup",
        "startup systemd -u deploy --hp /home/deploy",
        "startup --user --service-name shop",
        "unstartup systemd",
        "pid",
        "pid api",
        "env api",
        "reset all",
        "validate x.toml --env p",
        "import ecosystem.json",
        "import --run ecosystem.config.js",
        "init",
        "init --force",
        "jlist",
        "prettylist",
        "startOrReload x.toml --env p",
        "startOrGracefulReload x.toml",
        "startOrRestart x.toml",
        "gracefulReload api",
        "version",
        "daemon",
        "demo --port 3000",
    ] {
        let split: Vec<&str> = words.split(' ').collect();
        assert!(parse(&split).is_ok(), "{words}: {}", parse(&split).unwrap_err());
    }
}

#[test]
fn wrong_usage_is_two() {
    let home = home();
    for words in [
        &["start"][..],
        &["scale", "api"],
        &["scale", "api", "many"],
        &["scale", "api", "--2"],
        &["logs", "--out", "--err"],
        &["list", "--no-such"],
        &["restart", "api", "--env", "production"],
        &["start", "a.toml", "b.toml"],
        &["startOrReload", "api"],
    ] {
        fs::write(home.path().join("a.toml"), "").unwrap();
        assert_code(&clusterd(home.path(), words), 2);
    }
}

#[test]
fn a_typo_of_a_verb_suggests_the_nearest() {
    let home = home();
    for (typo, verb) in [("relaod", "reload"), ("lsit", "list"), ("strat", "start")] {
        let output = clusterd(home.path(), &[typo, "api"]);
        assert_code(&output, 2);
        assert!(err(&output).contains(&format!("'{verb}'")), "{}", err(&output));
    }
}

#[test]
fn without_a_word_it_explains_itself_and_fails() {
    let home = home();
    let output = clusterd(home.path(), &[]);
    assert_code(&output, 2);
    assert_eq!(out(&output), "");
    assert!(err(&output).contains("clusterd ecosystem.toml --env production"), "{}", err(&output));
}

#[test]
fn help_is_short_names_every_verb_and_goes_to_standard_output() {
    let home = home();
    let output = clusterd(home.path(), &["--help"]);
    assert_code(&output, 0);
    let help = out(&output);
    assert!(help.lines().count() <= 58, "{help}");
    assert!(help.lines().skip(1).all(|line| line.chars().count() <= 80), "{help}");
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        assert!(help.contains(&format!("\n  {} ", verb.get_name())), "{} is not in\n{help}", verb.get_name());
    }
}

#[test]
fn every_verb_has_help_with_its_usage() {
    let home = home();
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let output = clusterd(home.path(), &[verb.get_name(), "--help"]);
        assert_code(&output, 0);
        assert!(out(&output).contains(&format!("Usage: clusterd {}", verb.get_name())), "{}", out(&output));
    }
}

#[test]
fn without_a_supervisor_verbs_fail_clearly_and_start_none() {
    let home = home();
    for words in [
        &["ping"][..],
        &["list"],
        &["jlist"],
        &["prettylist"],
        &["describe", "api"],
        &["logs"],
        &["pid"],
        &["env", "api"],
        &["reset", "all"],
        &["stop", "all"],
        &["start", "api"],
        &["restart", "api"],
        &["reload", "api"],
        &["scale", "api", "-1"],
        &["delete", "api"],
        &["signal", "HUP", "api"],
        &["kill"],
    ] {
        let output = clusterd(home.path(), words);
        assert_code(&output, 1);
        assert!(err(&output).contains("no supervisor is running for"), "{words:?}: {}", err(&output));
        assert!(err(&output).contains(&home.path().display().to_string()), "{}", err(&output));
        assert_eq!(out(&output), "");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "a verb that fails leaves nothing behind");
}

#[test]
fn errors_are_json_when_json_is_asked_for() {
    let home = home();
    for (words, code) in
        [(&["ping", "--json"][..], 1), (&["--json", "relaod"], 2), (&["--json", "scale", "a"], 2)]
    {
        let output = clusterd(home.path(), words);
        assert_code(&output, code);
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &code.into()), "{error}");
        assert!(!error["message"].as_str().unwrap().contains('\x1b'));
    }
}

#[test]
fn the_version_is_printed_in_every_way() {
    let home = home();
    let version = env!("CARGO_PKG_VERSION");
    for words in [&["version"][..], &["--version"], &["-V"]] {
        let output = clusterd(home.path(), words);
        assert_code(&output, 0);
        assert_eq!(out(&output), format!("clusterd {version}\n"));
    }
    let json: serde_json::Value =
        serde_json::from_slice(&clusterd(home.path(), &["version", "--json"]).stdout).unwrap();
    assert_eq!(json["version"], version);
}

#[test]
fn validate_names_the_apps_and_starts_nothing() {
    let home = home();
    let file = home.path().join("ecosystem.toml");
    fs::write(&file, "[[apps]]\nname = \"api\"\nscript = \"/bin/true\"\n").unwrap();
    let output = clusterd(home.path(), &["validate", "ecosystem.toml"]);
    assert_code(&output, 0);
    assert!(out(&output).contains("valid; apps: api"), "{}", out(&output));
    let output = clusterd(home.path(), &["validate", "ecosystem.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["valid"], &json["apps"][0]), (&true.into(), &"api".into()));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn validate_reads_standard_input() {
    let home = home();
    let mut child = command(home.path(), &["validate", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"[[apps]]\nname = \"api\"\nscript = \"/bin/true\"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 0);
    assert!(out(&output).contains("standard input: valid"), "{}", out(&output));
}

#[test]
fn a_broken_file_is_two_and_names_the_place_for_every_verb_that_takes_one() {
    let home = home();
    fs::write(home.path().join("broken.toml"), "[[apps]]\nname = \n").unwrap();
    for words in [
        &["validate", "broken.toml"][..],
        &["broken.toml"],
        &["start", "broken.toml"],
        &["reload", "broken.toml"],
    ] {
        let output = clusterd(home.path(), words);
        assert_code(&output, 2);
        assert!(err(&output).contains("broken.toml") && err(&output).contains('2'), "{}", err(&output));
    }
    for words in [&["validate", "missing.toml"][..], &["missing.toml"], &["start", "missing.toml"]] {
        let output = clusterd(home.path(), words);
        assert_code(&output, 2);
        assert!(err(&output).contains("missing.toml"), "{}", err(&output));
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing was started");
}

#[test]
fn a_script_travels_as_the_file_that_its_flags_make() {
    let home = home();
    fs::write(home.path().join("server.js"), "").unwrap();
    let words = ["start", "server.js", "-i", "2", "--kill-timeout", "3s", "-f", "--", "--port", "80"];
    let mut command = command(home.path(), &words);
    command.env("COLOUR", "blue");
    let (asked, output) = answered_by(home.path(), command, &done());
    assert_code(&output, 0);
    let Request::Launch { file, force: true, update_env: false, no_wait: false } = asked else {
        panic!("{asked:?}")
    };
    let text = "[[apps]]\nscript = \"server.js\"\nargs = [\"--port\", \"80\"]\ninstances = 2\nkill_timeout = \"3s\"\n";
    assert_eq!((file.text.as_str(), file.path), (text, None));
    assert_eq!(file.folder, home.path().to_str().unwrap());
    assert_eq!(file.environment.text["COLOUR"], "blue");
}

#[test]
fn pm2s_file_instead_of_a_file_is_told_how_to_import_it() {
    let home = home();
    for (name, way) in [
        ("ecosystem.config.js", "clusterd import --run ecosystem.config.js"),
        ("ecosystem.json", "clusterd import ecosystem.json"),
        ("Procfile", "clusterd import Procfile"),
    ] {
        fs::write(home.path().join(name), "").unwrap();
        let output = clusterd(home.path(), &["start", name]);
        assert_code(&output, 2);
        assert!(err(&output).contains(way), "{}", err(&output));
    }
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let home = home();
    for words in [&["version"][..], &["--help"], &["version", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(home.path(), words).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_code(&output, 0);
        assert_eq!(err(&output), "");
    }
}

#[test]
fn pipes_get_no_colour() {
    let home = home();
    for words in [&["ping"][..], &["relaod"], &["--help"]] {
        let output = clusterd(home.path(), words);
        assert!(!out(&output).contains('\x1b') && !err(&output).contains('\x1b'), "{words:?}");
    }
}

/// Runs the command against a supervisor that gives these answers; what it was asked, and what came out.
fn answered(words: &[&str], replies: &[Reply]) -> (Request, Output) {
    let home = home();
    fs::write(home.path().join("a.toml"), "[[apps]]\nname = \"api\"\nscript = \"/bin/true\"\n").unwrap();
    let command = command(home.path(), words);
    answered_by(home.path(), command, replies)
}

fn answered_by(home: &Path, mut command: Command, replies: &[Reply]) -> (Request, Output) {
    let listener = clusterd::sys::socket::listen(&home.join("clusterd.sock")).unwrap();
    listener.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            for reply in replies {
                // Who has heard enough may go: a closed pipe, for one.
                let _ = stream.write_all(&frame::encode(reply).unwrap());
            }
            serde_json::from_str::<Frame>(&line).map(|frame| frame.request)
        });
        let output = command.output().unwrap();
        // A client that never came would leave us waiting: let the thread see somebody.
        if !asked.is_finished() {
            let nobody = std::os::unix::net::UnixStream::connect(home.join("clusterd.sock"));
            drop(nobody);
        }
        let asked = asked.join().unwrap();
        (asked.unwrap_or_else(|_| panic!("nothing was asked: {}", err(&output))), output)
    })
}

fn done() -> [Reply; 1] {
    [Reply::Done(Done { message: "done".into(), apps: vec!["api".into()] })]
}

fn listing() -> Reply {
    let worker = WorkerInfo {
        id: 0,
        instance: 0,
        pid: Some(4711),
        status: "online".into(),
        ready: true,
        no_listener: false,
        status_text: None,
        generation: 1,
        uptime_ms: 61_000,
        restarts: 0,
        unstable_restarts: 0,
        cpu_percent: None,
        memory_bytes: None,
        connections: None,
        queue_depth: None,
        queue_limit: None,
        queue_dropped: None,
        last_exit: None,
    };
    let app = AppInfo {
        name: "api".into(),
        namespace: "default".into(),
        mode: "cluster".into(),
        status: "online".into(),
        generation: 1,
        instances: 1,
        listen: vec![],
        unserved: vec![],
        watching: false,
        warnings: Vec::new(),
        reload: None,
        waits_for: Vec::new(),
        workers: vec![worker],
        detail: None,
    };
    let daemon = DaemonInfo {
        pid: 1,
        version: "0.1.0".into(),
        uptime_ms: 1,
        home: "/".into(),
        control_groups: String::new(),
    };
    Reply::List(List { version: 1, daemon, apps: vec![app] })
}

#[test]
fn commands_become_the_requests_they_name() {
    let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for (words, wanted) in [
        (&["ping"][..], Request::Ping {}),
        (&["kill"], Request::Kill {}),
        (&["save"], Request::Save { force: false }),
        (&["dump", "--force"], Request::Save { force: true }),
        (&["cleardump"], Request::Cleardump {}),
        (
            &["stop", "api", "3"],
            Request::Stop { targets: all(&["api", "3"]), part: Part::default(), no_wait: false },
        ),
        (
            &["del", "all", "--no-wait"],
            Request::Delete { targets: all(&["all"]), part: Part::default(), no_wait: true },
        ),
        (
            &["scale", "api", "-1"],
            Request::Scale { target: "api".into(), count: "-1".into(), no_wait: false },
        ),
        (&["ls"], Request::List { targets: vec![], connections: false, detail: false }),
        (&["describe", "/a/"], Request::List { targets: all(&["/a/"]), connections: true, detail: true }),
        (&["sendSignal", "HUP", "api"], Request::Signal { signal: "HUP".into(), targets: all(&["api"]) }),
        (
            &["send", "api", "b", "hello you"],
            Request::Send { line: "hello you".into(), targets: all(&["api", "b"]) },
        ),
        (&["env", "api"], Request::Environ { targets: all(&["api"]) }),
        (&["reset", "all"], Request::Reset { targets: all(&["all"]) }),
        (&["flush", "api"], Request::Flush { targets: all(&["api"]) }),
        (&["reloadLogs"], Request::ReloadLogs {}),
        (&["pid", "api"], Request::Pid { targets: all(&["api"]) }),
        (&["logs"], Request::Logs { targets: vec![], lines: 15, follow: true, stream: None }),
        (
            &["logs", "api", "-n", "3", "--nostream", "--err"],
            Request::Logs { targets: all(&["api"]), lines: 3, follow: false, stream: Some(Stream::Err) },
        ),
        (
            &["reload", "api", "--no-wait"],
            Request::Reload {
                targets: all(&["api"]),
                file: None,
                update_env: None,
                changes: BTreeMap::new(),
                no_wait: true,
            },
        ),
    ] {
        let (asked, output) = answered(words, &done());
        assert_eq!(asked, wanted, "{words:?}");
        assert_code(&output, 0);
    }
}

#[test]
fn a_file_as_a_target_travels_as_its_path_and_is_not_read() {
    let home = home();
    fs::write(home.path().join("broken.toml"), "this is [not TOML").unwrap();
    for word in ["broken.toml", "missing.toml"] {
        let (asked, output) = answered_by(home.path(), command(home.path(), &["stop", "api", word]), &done());
        assert_code(&output, 0);
        let path = home.path().join(word).to_str().unwrap().to_owned();
        let part = Part::default();
        assert_eq!(asked, Request::Stop { targets: vec!["api".into(), path], part, no_wait: false });
    }
}

#[test]
fn what_is_chosen_of_a_file_that_is_to_end_travels_with_it() {
    let home = home();
    let words = ["delete", "gone.toml", "--only", "api,web", "--env", "staging"];
    let (asked, output) = answered_by(home.path(), command(home.path(), &words), &done());
    assert_code(&output, 0);
    let targets = vec![home.path().join("gone.toml").to_str().unwrap().to_owned()];
    let part = Part { profile: Some("staging".into()), only: vec!["api".into(), "web".into()] };
    assert_eq!(asked, Request::Delete { targets, part, no_wait: false });
    let output = clusterd(home.path(), &["stop", "gone.toml", "api", "--only", "api"]);
    assert_code(&output, 2);
    assert!(err(&output).contains("choose from an ecosystem file"), "{}", err(&output));
}

/// Not the parser's bare words, nor a guess at another one.
#[test]
fn a_verb_that_only_pm2_has_says_why_it_is_gone_and_what_there_is_instead() {
    let home = home();
    for (words, told) in [
        (&["web"][..], "http = \"127.0.0.1:9615\" in [daemon]"),
        (&["deploy", "production", "setup"], "clusterd reload"),
        (&["set", "pm2:registry", "http://x"], "keys of the ecosystem file"),
        (&["install", "pm2-logrotate"], "log_max_size"),
        (&["serve", "./dist", "3000", "--spa"], "an app like any other"),
        (&["profile:cpu"], "--node-args=--inspect"),
    ] {
        let output = clusterd(home.path(), words);
        assert_code(&output, 2);
        let text = err(&output);
        assert!(text.starts_with(&format!("error: {} is no verb of clusterd: ", words[0])), "{text}");
        assert!(text.contains(told) && !text.contains("tip:"), "{text}");
    }
    let output = clusterd(home.path(), &["link", "--json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["code"], 2, "{error}");
}

#[test]
fn a_verb_that_is_misspelt_is_guessed_and_a_word_that_is_none_is_not() {
    let home = home();
    for (word, hint) in [
        ("strat", "did you mean 'start'?"),
        ("restrat", "did you mean 'restart'?"),
        ("relaod", "did you mean 'reload'?"),
        ("stpo", "did you mean 'stop'?"),
        ("lst", "did you mean 'list'?"),
        ("desribe", "did you mean 'describe'?"),
        ("gracefulRelaod", "did you mean 'gracefulReload'?"),
        ("bananas", "`clusterd --help` shows all verbs"),
        ("api", "`clusterd --help` shows all verbs"),
        ("x", "`clusterd --help` shows all verbs"),
    ] {
        let output = clusterd(home.path(), &[word]);
        assert_code(&output, 2);
        assert_eq!(err(&output), format!("error: unrecognized subcommand '{word}'; {hint}\n"));
    }
    fs::write(home.path().join("server.js"), "").unwrap();
    let output = clusterd(home.path(), &["server.js"]);
    assert_code(&output, 2);
    assert!(err(&output).contains("no ecosystem file: `clusterd start server.js`"), "{}", err(&output));
}

#[test]
fn a_file_travels_with_its_text_its_folder_and_the_callers_environment() {
    let home = home();
    let text = r#"
        [[apps]]
        name = "api"
        script = "/bin/true"
        [apps.env_production]
        A = "b"
        [[apps]]
        name = "web"
        script = "/bin/true"
    "#;
    fs::write(home.path().join("a.toml"), text).unwrap();
    let mut command = command(home.path(), &["start", "a.toml", "--env", "production", "--only", "api,web"]);
    command.env("COLOUR", "blue");
    let (asked, output) = answered_by(home.path(), command, &done());
    assert_code(&output, 0);
    let Request::Start { file: Some(file), targets, .. } = asked else { panic!("{asked:?}") };
    assert_eq!(targets, Vec::<String>::new());
    assert_eq!(file.text, text);
    assert_eq!(file.path, Some(home.path().join("a.toml").to_str().unwrap().to_owned()));
    assert_eq!(file.folder, home.path().to_str().unwrap());
    assert_eq!((file.profile.as_deref(), file.only), (Some("production"), vec!["api".into(), "web".into()]));
    assert_eq!(file.environment.text["COLOUR"], "blue");
}

#[test]
fn the_environment_travels_with_restart_only_when_asked() {
    let (asked, _) = answered(&["restart", "api"], &done());
    assert!(matches!(asked, Request::Restart { update_env: None, .. }));
    let (asked, _) = answered(&["restart", "api", "--update-env"], &done());
    assert!(matches!(asked, Request::Restart { update_env: Some(env), .. } if env.text.contains_key("PATH")));
}

#[test]
fn list_prints_a_table_and_its_contract_as_json() {
    let (_, output) = answered(&["list"], &[listing()]);
    assert_code(&output, 0);
    let row: Vec<String> = out(&output).lines().nth(1).unwrap().split_whitespace().map(Into::into).collect();
    assert_eq!(row[..7], ["0", "api", "default", "cluster", "4711", "online", "0"]);

    let (_, output) = answered(&["list", "--json"], &[listing()]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["apps", "daemon", "version"]);
    assert_eq!(json["apps"][0]["workers"][0]["pid"], 4711);
}

#[test]
fn pid_prints_numbers_only() {
    let (_, output) = answered(&["pid"], &[Reply::Pids { pids: vec![12, 0, 13] }]);
    assert_eq!(out(&output), "12\n0\n13\n");
}

#[test]
fn a_failed_reload_is_one_with_the_reason_and_the_last_lines_on_standard_error() {
    let step = Progress {
        app: "api".into(),
        event: "reload_started".into(),
        id: None,
        instance: None,
        pid: None,
        generation: Some(2),
        done: Some(0),
        total: Some(4),
        message: "reload to generation 2".into(),
    };
    let error = Error {
        code: 1,
        message: "reload failed; generation 1 serves on".into(),
        failures: vec![AppFailure {
            app: "api".into(),
            reason: "exited".into(),
            message: "a new worker exited with code 1".into(),
            last_lines: vec!["SyntaxError: \x1b]0;owned\x07".into()],
        }],
    };
    let replies = [Reply::Progress(step), Reply::Error(error)];
    let (_, output) = answered(&["reload", "api"], &replies);
    assert_code(&output, 1);
    assert_eq!(out(&output), "api: 0/4 reload to generation 2\n");
    assert!(err(&output).contains("a new worker exited with code 1"), "{}", err(&output));
    assert!(err(&output).contains("| SyntaxError: \\x1b]0;owned\\x07"), "{}", err(&output));

    let (_, output) = answered(&["reload", "api", "--json"], &replies);
    assert_code(&output, 1);
    let step: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!((&step["type"], &step["event"]), (&"progress".into(), &"reload_started".into()));
    let error: serde_json::Value = serde_json::from_str(&err(&output)).unwrap();
    assert_eq!(error["failures"][0]["reason"], "exited");
}

#[test]
fn a_supervisor_that_goes_away_in_mid_command_is_a_failure() {
    let (_, output) = answered(&["reload", "api"], &[]);
    assert_code(&output, 1);
    assert!(err(&output).contains("before it answered"), "{}", err(&output));
}

#[test]
fn log_lines_reach_a_pipe_as_the_worker_wrote_them() {
    let line = |text: &str| {
        let namespace = "default".into();
        let (stream, text) = (Stream::Out, text.into());
        Reply::Line(Line { app: "api".into(), namespace, instance: 1, stream, text, at: None })
    };
    let (_, output) =
        answered(&["logs", "--no-follow"], &[line("\x1b[32mgreen\x1b[0m"), line("b"), done()[0].clone()]);
    assert!(out(&output).starts_with("api-1 | \x1b[32mgreen\x1b[0m\napi-1 | b\n"), "{}", out(&output));
}

#[test]
fn a_list_into_a_closed_pipe_is_a_quiet_end() {
    let home = home();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(home.path(), &["list"]);
    command.stdout(writer).stderr(Stdio::piped());
    let (_, output) = answered_by(home.path(), command, &[listing()]);
    assert_code(&output, 0);
    assert_eq!(err(&output), "");
}

#[test]
fn a_background_supervisor_that_cannot_run_says_why_at_once() {
    let home = home();
    let file = home.path().join("a.toml");
    fs::write(&file, "[[apps]]\nname = \"api\"\nscript = \"/bin/true\"\n").unwrap();
    // Nobody can listen there.
    fs::create_dir(home.path().join("clusterd.sock")).unwrap();
    let output = clusterd(home.path(), &["start", "a.toml"]);
    assert_code(&output, 1);
    assert!(err(&output).contains(&home.path().display().to_string()), "{}", err(&output));
}

/// Runs the command with a terminal of this width as standard output; what it drew.
fn on_terminal(words: &[&str], columns: u16, replies: &[Reply], variables: &[(&str, &str)]) -> String {
    let home = home();
    let size = nix::pty::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let mut command = command(home.path(), words);
    command.stdout(pty.slave).stderr(Stdio::piped()).env("TERM", "xterm").envs(variables.iter().copied());
    let (_, output) = answered_by(home.path(), command, replies);
    assert_eq!(err(&output), "");
    // Everything was written; after the last writer the kernel ends a terminal with EIO.
    let mut drawn = Vec::new();
    let _ = std::io::Read::read_to_end(&mut fs::File::from(pty.master), &mut drawn);
    String::from_utf8(drawn).unwrap().replace("\r\n", "\n")
}

#[test]
fn a_terminal_gets_a_table_of_its_width_and_colour_unless_told_not_to() {
    let drawn = on_terminal(&["list"], 40, &[listing()], &[]);
    assert!(drawn.contains("\x1b[32monline"), "{drawn:?}");
    let plain = on_terminal(&["list"], 40, &[listing()], &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b'), "{plain:?}");
    assert!(plain.lines().all(|line| line.chars().count() <= 40), "{plain}");
    assert!(plain.contains("status") && !plain.contains("mode"), "{plain}");
}

#[test]
fn a_terminal_shows_a_reload_live_and_a_dumb_one_line_by_line() {
    let step = |done, message: &str| {
        Reply::Progress(Progress {
            app: "api".into(),
            event: "reload_progress".into(),
            id: None,
            instance: None,
            pid: None,
            generation: None,
            done: Some(done),
            total: Some(2),
            message: message.into(),
        })
    };
    let replies = [step(1, "first replaced"), step(2, "second replaced"), done()[0].clone()];
    let drawn = on_terminal(&["reload", "api"], 60, &replies, &[("NO_COLOR", "1")]);
    assert!(
        drawn.contains("api  1/2 first replaced\n\x1b[1A\r\x1b[Japi  2/2 second replaced\n"),
        "{drawn:?}"
    );
    assert!(drawn.ends_with("done\n"), "{drawn:?}");
    let plain = on_terminal(&["reload", "api"], 60, &replies, &[("TERM", "dumb")]);
    assert!(plain.starts_with("api: 1/2 first replaced\napi: 2/2 second replaced\n"), "{plain:?}");
}

#[test]
fn what_a_worker_printed_is_spelt_out_on_a_terminal() {
    let text = "\x1b[2Jgone";
    let line = Reply::Line(Line {
        app: "api".into(),
        namespace: "default".into(),
        instance: 0,
        stream: Stream::Out,
        text: text.into(),
        at: None,
    });
    let drawn = on_terminal(&["logs", "--no-follow"], 80, &[line, done()[0].clone()], &[("NO_COLOR", "1")]);
    assert!(drawn.contains("api-0 | \\x1b[2Jgone"), "{drawn:?}");
}

#[test]
fn each_app_has_its_colour_on_a_terminal_and_standard_error_a_red_bar() {
    let line = |namespace: &str, app: &str, stream| {
        let (app, namespace) = (app.into(), namespace.into());
        Reply::Line(Line { app, namespace, instance: 0, stream, text: "x".into(), at: None })
    };
    let usual = "default";
    let replies = [
        line(usual, "api", Stream::Out),
        line(usual, "web", Stream::Err),
        line("shop", "api", Stream::Out),
        done()[0].clone(),
    ];
    let drawn = on_terminal(&["logs", "--no-follow"], 80, &replies, &[]);
    assert!(drawn.contains("\x1b[36mapi-0\x1b[0m \x1b[36m|\x1b[0m x\n"), "{drawn:?}");
    assert!(drawn.contains("\x1b[32mweb-0\x1b[0m \x1b[1m\x1b[31m|\x1b[0m x\n"), "{drawn:?}");
    assert!(drawn.contains("shop/api-0\x1b[0m ") && !drawn.contains("\x1b[36mshop/api-0"), "{drawn:?}");
}
