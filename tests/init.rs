//! `clusterd init`: the first file of a project.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn clusterd(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.args(words).current_dir(folder).env("CLUSTERD_HOME", folder.join("home"));
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_project_gets_a_file_that_is_valid_and_the_next_command() {
    let folder = tempfile::tempdir().unwrap();
    let package = r#"{"name": "shop", "scripts": {"start": "node server.js"}}"#;
    fs::write(folder.path().join("package.json"), package).unwrap();
    let output = clusterd(folder.path(), &["init"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).ends_with("next: clusterd start ecosystem.toml\n"),
        "{}",
        text(&output.stdout)
    );
    let written = fs::read_to_string(folder.path().join("ecosystem.toml")).unwrap();
    assert!(written.contains("script = \"server.js\""), "{written}");
    let output = clusterd(folder.path(), &["validate", "ecosystem.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("apps: shop\n"));
}

#[test]
fn a_file_that_is_there_stays_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ecosystem.toml");
    fs::write(&path, "mine").unwrap();
    let output = clusterd(folder.path(), &["init"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--force"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(clusterd(folder.path(), &["init", "--force"]).status.code(), Some(0));
    assert!(fs::read_to_string(&path).unwrap().contains("[[apps]]"));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["ecosystem.toml"], "a draft that was renamed leaves nothing behind");
}

#[test]
fn a_link_to_another_file_is_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    std::os::unix::fs::symlink(&other, folder.path().join("ecosystem.toml")).unwrap();
    assert_eq!(clusterd(folder.path(), &["init"]).status.code(), Some(1));
    assert_eq!(clusterd(folder.path(), &["init", "--force"]).status.code(), Some(0));
    assert!(!other.exists());
}

#[test]
fn pm2s_file_beside_it_is_pointed_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ecosystem.config.js"), "").unwrap();
    let output = clusterd(folder.path(), &["--json", "init"]);
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts["import"], "clusterd import --run ecosystem.config.js > ecosystem.toml");
    assert_eq!(facts["from"], serde_json::Value::Null);
}

#[test]
fn a_bad_line_of_a_procfile_is_told_and_the_good_ones_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Procfile"), "web: ./server\n\nno line of a Procfile\nclock: ./tick\n")
        .unwrap();
    let output = clusterd(folder.path(), &["init"]);
    let (said, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("Procfile:3:1: expected a line `name: command`"), "{told}");
    assert!(said.contains("from Procfile") && !said.contains("nothing was found"), "{said}");
    let written = fs::read_to_string(folder.path().join("ecosystem.toml")).unwrap();
    for part in ["name = \"web\"", "name = \"clock\"", "Procfile:3:1: "] {
        assert!(written.contains(part), "{part}\n{written}");
    }
    let output = clusterd(folder.path(), &["--json", "init", "--force"]);
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts["problems"][0]["source"], "Procfile");
    assert_eq!(facts["problems"][0]["problems"][0]["line"], 3);
}

#[test]
fn a_project_whose_only_file_is_broken_is_told_where_and_gets_none() {
    for (name, content, place) in [
        ("package.json", "{bad", "package.json:1:"),
        ("Procfile", "# nothing\nweb ./server\n", "Procfile:2:1"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), content).unwrap();
        let output = clusterd(folder.path(), &["init"]);
        let (said, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(2), "{said}{told}");
        assert!(told.contains(place) && !told.contains("--run"), "{told}");
        assert!(said.is_empty() && !folder.path().join("ecosystem.toml").exists(), "{said}");
    }
}

/// It may be nothing that counts.
#[test]
fn a_broken_file_beside_a_good_one_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("package.json"), "{bad").unwrap();
    fs::write(folder.path().join("go.mod"), "module example.org/api\n").unwrap();
    fs::write(folder.path().join("main.go"), "package main\n\nfunc main() {}\n").unwrap();
    let output = clusterd(folder.path(), &["init"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("from go.mod"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("package.json:1:"), "{}", text(&output.stderr));
}

/// As `import` reads it.
#[test]
fn the_mark_that_editors_put_first_is_no_part_of_a_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Procfile"), "\u{feff}web: ./server\n").unwrap();
    let output = clusterd(folder.path(), &["init"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("from Procfile"), "{}", text(&output.stdout));
}
