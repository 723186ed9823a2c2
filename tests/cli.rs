//! The command line as its users meet it: the real binary, without a supervisor.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::{CommandFactory, Parser};
use clusterd::cli::{Cli, Verb, with_verb};

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
        "ping",
        "kill",
        "pid",
        "pid api",
        "validate x.toml --env p",
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
    assert!(help.lines().count() <= 48, "{help}");
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
        &["describe", "api"],
        &["logs"],
        &["pid"],
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
        &["stop", "broken.toml"],
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
fn a_program_instead_of_a_file_is_told_what_to_write() {
    let home = home();
    fs::write(home.path().join("server.js"), "").unwrap();
    let output = clusterd(home.path(), &["start", "server.js"]);
    assert_code(&output, 2);
    assert!(err(&output).contains("script = \"server.js\""), "{}", err(&output));
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
