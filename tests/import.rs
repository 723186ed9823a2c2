//! `clusterd import`, against files as people have them: the input and the expected ecosystem file lie side by
//! side in `tests/fixtures/import/`. `CLUSTERD_BLESS=1` writes what comes out now, for the diff to be read.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clusterd::config::{self, AppConfig, Host};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import")
}

fn import(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.arg("import").args(words).current_dir(fixtures()).env("HOME", "/home/ann");
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn load(toml: &str) -> Vec<AppConfig> {
    let host =
        Host { parallelism: 4, memory: None, folder: "/srv/shop".into(), profile: None, only: Vec::new() };
    match config::load(toml, "made.toml", &host) {
        Ok(config) => config.apps,
        Err(wrong) => panic!("{wrong}\n{toml}"),
    }
}

/// What comes out is what is checked in, and a file that clusterd takes.
#[track_caller]
fn golden(words: &[&str], name: &str) -> Vec<AppConfig> {
    let output = import(words);
    let (made, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{made}");
    let path = fixtures().join(format!("{name}.toml"));
    if std::env::var_os("CLUSTERD_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(made == expected, "{} differs; it is now:\n{made}", path.display());
    load(&made)
}

fn names(apps: &[AppConfig]) -> Vec<&str> {
    apps.iter().map(|app| app.name.as_str()).collect()
}

#[test]
fn a_json_file_that_is_javascript_is_carried_over() {
    let apps = golden(&["ecosystem.json"], "ecosystem.json");
    assert_eq!(names(&apps), ["api", "mail-worker", "npm-run-jobs", "old", "old-2"]);
    assert_eq!(apps[3].policy.watch.as_ref().unwrap().paths, ["src/**/*.js", "views"]);
}

#[test]
fn a_yaml_file_with_anchors_is_carried_over() {
    let apps = golden(&["process.yaml"], "process.yaml");
    assert_eq!(names(&apps), ["api", "tick"]);
    assert_eq!(apps[0].policy.instances, 3);
    assert_eq!(apps[0].spec.process.env_files, [Path::new("/srv/shop/prod.env")]);
}

#[test]
fn the_pm2_key_of_a_package_is_carried_over() {
    assert_eq!(golden(&["package.json"], "package.json")[0].policy.instances, 4);
}

#[test]
fn the_processes_of_a_dump_become_apps_again() {
    let apps = golden(&["dump.pm2"], "dump.pm2");
    assert_eq!(names(&apps), ["api", "mail", "sleep-1000", "cache"]);
    assert_eq!(apps[0].policy.instances, 2);
    assert_eq!(apps[0].spec.env["METRICS_PORT"], "9100");
    assert!(!apps[0].spec.env.contains_key("SSH_TTY"));
    assert!(!apps[2].policy.autostart);
}

#[test]
fn a_procfile_is_carried_over() {
    let apps = golden(&["Procfile"], "Procfile");
    assert_eq!(names(&apps), ["web", "worker", "clock"]);
}

#[test]
fn a_program_is_run_only_when_told() {
    let output = import(&["ecosystem.config.cjs"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(said.contains("clusterd import --run ecosystem.config.cjs"), "{said}");
}

#[test]
fn a_program_is_evaluated_by_the_users_own_node() {
    if support::runtime("node").is_none() {
        return;
    }
    let apps = golden(&["--run", "ecosystem.config.cjs"], "ecosystem.config.cjs");
    assert_eq!(names(&apps), ["api", "jobs"]);
    let said = text(&import(&["--run", "ecosystem.config.cjs"]).stderr);
    assert!(said.contains("this goes to standard error"), "{said}");
}

#[test]
fn a_program_that_fails_is_a_failure_with_its_own_words() {
    if support::runtime("node").is_none() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.config.js");
    for (program, words) in [
        ("throw new Error('no such database')", "no such database"),
        ("module.exports = () => ({})", "it exports a function"),
        ("module.exports = {", "SyntaxError"),
    ] {
        fs::write(&path, program).unwrap();
        let output = import(&["--run", path.to_str().unwrap()]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{program}: {said}");
        assert!(said.contains(words) && output.stdout.is_empty(), "{program}: {said}");
    }
}

#[test]
fn bad_input_is_two_and_names_file_line_app_and_key() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = home.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for (name, content, words) in [
        (
            "a.json",
            "{apps: [\n{name: 'api',\nscript: 7.5, instances: []}]}",
            &["a.json:3:", "\"api\"", "instances"][..],
        ),
        ("b.yaml", "apps:\n  - name: x\n", &["b.yaml:2:", "\"x\"", "script"]),
        ("c.yaml", "apps: [", &["c.yaml:", "not YAML"]),
        ("Procfile", "web: x\nnonsense\n", &["Procfile:2:", "nonsense"]),
        ("dump.pm2", "[]", &["dump.pm2:1:", "at least one app"]),
        ("package.json", "{}", &["package.json:1:", "clusterd init"]),
        ("a.txt", "", &["a.txt", "does not say what it is"]),
    ] {
        let path = write(name, content);
        let output = import(&[&path]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(output.stdout.is_empty(), "{name}");
        for word in words {
            assert!(said.contains(word), "{name}: {word}\n{said}");
        }
    }
    assert_eq!(import(&["nowhere.json"]).status.code(), Some(2));
    assert_eq!(import(&["--run", "Procfile"]).status.code(), Some(2));
}

#[test]
fn what_clusterd_does_not_take_is_told_with_the_file_that_was_made() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.json");
    fs::write(&path, "{name: 'api', script: 'a.js', kill_timeout: 999999999999}").unwrap();
    let output = import(&[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("kill_timeout = 999999999999"));
    assert!(text(&output.stderr).contains("kill_timeout: expected"), "{}", text(&output.stderr));
}
