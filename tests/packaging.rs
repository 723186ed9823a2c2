//! What is delivered beside the program: each file below packaging/ is as the program of this moment would have it, and
//! does what it is for.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/schema.rs"]
mod schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory;
use clusterd::cli::Cli;
use clusterd::cli::man::{self, Page};
use clusterd::cli::unit;
use clusterd::config::{self, Host, schema::schema};
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn printed(words: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_clusterd")).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Every file that is made by the program, and what it makes of it.
fn made() -> Vec<(&'static str, String)> {
    vec![
        ("packaging/man/clusterd.1", printed(&["man"])),
        ("packaging/man/ecosystem.toml.5", printed(&["man", "ecosystem.toml"])),
        ("packaging/ecosystem.schema.json", format!("{:#}\n", schema())),
        ("packaging/systemd/clusterd.service", unit::packaged()),
        ("packaging/systemd/clusterd@.service", unit::instance()),
        ("packaging/systemd/user/clusterd.service", unit::packaged_for_users()),
        ("packaging/systemd/shop.socket", unit::socket()),
    ]
}

/// With CLUSTERD_GENERATE (`make generate`) it writes them.
#[test]
fn what_is_generated_is_fresh() {
    let writes = std::env::var_os("CLUSTERD_GENERATE").is_some();
    let mut stale = Vec::new();
    for (name, text) in made() {
        let path = root().join(name);
        if writes {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        } else if fs::read_to_string(path).ok().as_deref() != Some(text.as_str()) {
            stale.push(name);
        }
    }
    assert!(stale.is_empty(), "not what the program makes of them any more: {stale:?}; run `make generate`");
}

#[test]
fn the_scripts_for_shells_are_those_that_are_installed() {
    for (shell, file) in [("bash", "clusterd.bash"), ("zsh", "_clusterd"), ("fish", "clusterd.fish")] {
        let file = fs::read_to_string(root().join("packaging/completions").join(file)).unwrap();
        assert_eq!(printed(&["completions", shell]), file, "{shell}");
    }
}

fn shown(page: &str) -> String {
    let path = root().join("packaging/man").join(page);
    let mut command = Command::new("man");
    command.args(["--warnings", "-l"]).arg(path);
    let output =
        command.env("MANWIDTH", "100").env("LC_ALL", "C.UTF-8").env("MANROFFOPT", "-c").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{page}: {output:?}");
    // Bold letters are struck twice.
    let text = String::from_utf8(output.stdout).unwrap();
    let mut plain = String::new();
    for char in text.chars() {
        match char {
            '\u{8}' => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn man_shows_the_pages_without_a_warning() {
    if !Path::new("/usr/bin/man").exists() {
        assert!(std::env::var_os("CI").is_none(), "on CI nothing may be skipped: man is not installed");
        return;
    }
    let program = shown("clusterd.1");
    for part in [
        "CLUSTERD(1)",
        "clusterd FILE [--env PROFILE]",
        "   reload, gracefulReload\n",
        "clusterd reload TARGET... [OPTIONS] [-- ARGS]",
        "-i, --instances N|max",
        "clusterd logs --since 10m --grep 'timeout|refused' --timestamp",
        "EXIT STATUS",
    ] {
        assert!(program.contains(part), "{part:?} is not in\n{program}");
    }
    for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        assert!(program.contains(&format!("\n   {}", verb.get_name())), "{} is missing", verb.get_name());
    }
    let file = shown("ecosystem.toml.5");
    for part in ["ECOSYSTEM.TOML(5)", "max_memory_restart", "out_file, out, output, out_log", "[daemon]"] {
        assert!(file.contains(part), "{part:?} is not in\n{file}");
    }
}

/// Where a line is a request of roff that nobody meant, or a backslash an escape.
#[test]
fn no_text_is_taken_for_a_request() {
    let odd = clap::Command::new("clusterd").subcommand(
        clap::Command::new("odd").about(".so /etc/passwd\n\n'br \\fB-dash").after_help(".PP\n\\n"),
    );
    let page = man::page(Page::Clusterd, &odd);
    for line in page.lines() {
        assert!(!line.starts_with(".so") && !line.starts_with("'br"), "{page}");
    }
    assert!(page.contains("\\\\fB"), "{page}");
}

fn as_json(text: &str) -> Value {
    let table: toml::Table = toml::from_str(text).unwrap();
    serde_json::to_value(table).unwrap()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.extension().and_then(|end| end.to_str()) {
            _ if path.is_dir() => files(&path, found),
            Some("toml" | "md") if path.file_name().unwrap() != "Cargo.toml" => found.push(path),
            Some(_) | None => {}
        }
    }
}

/// Every ecosystem file of this folder, whole or in a page.
fn texts() -> Vec<(PathBuf, String)> {
    let mut paths = vec![root().join("ecosystem.example.toml"), root().join("README.md")];
    for folder in ["docs", "tests", "fuzz/seeds", "fuzz/regressions", "examples", "packaging/docker"] {
        files(&root().join(folder), &mut paths);
    }
    let mut texts = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        if path.extension().is_some_and(|end| end == "md") {
            let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
            texts.extend(blocks.map(|block| (path.clone(), block.to_owned())));
        } else {
            texts.push((path, text));
        }
    }
    texts
}

#[test]
fn every_good_file_fits_its_schema() {
    let host = Host {
        parallelism: 4,
        memory: Some(1 << 30),
        folder: PathBuf::from("/srv"),
        profile: None,
        only: Vec::new(),
    };
    let schema = schema();
    let mut count = 0;
    for (path, text) in texts() {
        if config::load(&text, "the file", &host).is_ok() {
            count += 1;
            schema::check(&schema, &as_json(&text), "")
                .unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        }
    }
    assert!(count > 20, "only {count} good files were found");
}

/// With what stands beside `name` and `script`.
fn app(line: &str) -> Value {
    as_json(&format!("[[apps]]\nname = \"a\"\nscript = \"a.js\"\n{line}\n"))
}

#[test]
fn what_the_program_refuses_by_its_looks_the_schema_refuses() {
    let schema = schema();
    assert_eq!(schema::check(&schema, &app(""), ""), Ok(()));
    for line in [
        "instnaces = 4",
        "instances = \"many\"",
        "instances = 1001",
        "instances = 1.5",
        "autorestart = \"true\"",
        "kill_timeout = \"10\\u00a0parsecs\"",
        "kill_timeout = \"1 month\"",
        "kill_timeout = -1",
        "watch_delay = \"\"",
        "killTimeout = true",
        "exec = 3",
        "max_memory_restart = \"lots\"",
        "max_memory_restart = 512",
        "exec_mode = \"threads\"",
        "kill_signal = \"SIGNOTHING\"",
        "kill_signal = \"SIGKILL\"",
        "listen = \"localhost:3000\"",
        "listen = { adress = \":3000\" }",
        "health = { http = \"healthz\" }",
        "health = { interval = \"1s\" }",
        "health = { http = \"/\", port = 0 }",
        "health = { http = \"/\", socket = 3 }",
        "ready = \"http://:8080\"",
        "rlimits = { nofiles = 3 }",
        "rlimits = { nofile = { softer = 3 } }",
        "canary = 10",
        "canary = \"100%\"",
        "umask = \"999\"",
        "cwd = \"~/x\"",
        "env = \"A=1\"",
        "env_production = \"A=1\"",
        "env_file = { A = \"1\" }",
        "namespace = \"a/b\"",
        "stop_exit_codes = [256]",
        "log_rate_limit = \"many/s\"",
        "nice = 20",
        "depends_on = [\"a b\"]",
        "[daemon]\nlog_dirs = \"x\"",
        "[daemon]\npoll_interval = \"1\\u00a0s\"",
    ] {
        assert!(schema::check(&schema, &app(line), "").is_err(), "{line}");
    }
    for value in
        [json!({}), json!({ "apps": [] }), json!({ "apps": [{ "name": "a" }] }), json!({ "apps": {} })]
    {
        assert!(schema::check(&schema, &value, "").is_err(), "{value}");
    }
    for name in ["all", "7", "..", "-x", "", "a b"] {
        let value = json!({ "apps": [{ "name": name, "script": "a" }] });
        assert!(schema::check(&schema, &value, "").is_err(), "{name:?}");
    }
}

#[test]
fn each_key_is_described_with_its_default() {
    let schema = schema();
    let properties = schema.pointer("/properties/apps/items/properties").unwrap().as_object().unwrap();
    for (name, property) in properties {
        assert!(property["description"].as_str().is_some_and(|text| text.len() > 20), "{name}");
    }
    assert_eq!(properties["listen_timeout"]["default"], json!("30s"));
    assert_eq!(properties["kill_timeout"]["default"], json!(1600));
    assert!(properties["user"]["description"].as_str().unwrap().contains("Default: clusterd's own user"));
    assert_eq!(properties["balance"]["enum"], json!(["spread", "source-ip"]));
}

/// What `tests/containers.rs` runs where there is an engine is right by its text everywhere.
#[test]
fn each_dockerfile_has_the_lines_that_count_and_its_ecosystem_file_is_right() {
    let page = fs::read_to_string(root().join("docs/containers.md")).unwrap();
    let lines = page.split("The lines that count").nth(1).unwrap().split("```").nth(1).unwrap();
    let folder = root().join("packaging/docker");
    for (file, app) in
        [("Dockerfile", "static"), ("Dockerfile.node", "node"), ("Dockerfile.python", "python")]
    {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with("USER")) {
            assert!(text.lines().any(|there| there == line), "{file}: {line}");
        }
        let user = text.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
        assert!(user.split(':').all(|number| number.parse::<u32>().is_ok_and(|number| number > 0)), "{user}");
        let toml = folder.join(app).join("ecosystem.toml").display().to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_clusterd")).args(["validate", &toml]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// It exits with 0 for keys that it does not know: nothing may be said.
#[test]
fn systemd_has_nothing_to_say_of_the_packages_units() {
    let folder = tempfile::tempdir().unwrap();
    let put = |from: &str, name: &str| {
        let text = fs::read_to_string(root().join("packaging/systemd").join(from)).unwrap();
        let unit = folder.path().join(name);
        fs::write(&unit, text.replace("/usr/bin/clusterd", env!("CARGO_BIN_EXE_clusterd"))).unwrap();
        unit
    };
    put("clusterd@.service", "clusterd@.service");
    let units = [
        (put("clusterd.service", "clusterd.service"), "--system"),
        (put("clusterd@.service", "clusterd@shop.service"), "--system"),
        (put("shop.socket", "shop.socket"), "--system"),
        (put("user/clusterd.service", "clusterd-of-users.service"), "--user"),
    ];
    for (unit, whose) in units {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", whose]).arg(&unit).env("XDG_RUNTIME_DIR", folder.path());
        let Ok(output) = command.output() else {
            assert!(
                std::env::var_os("CI").is_none(),
                "on CI nothing may be skipped: systemd-analyze is missing"
            );
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let ours = |line: &&str| ["clusterd", "shop.socket"].iter().any(|name| line.contains(name));
        let about: Vec<&str> = said.lines().filter(ours).collect();
        assert!(output.status.success() && about.is_empty(), "{unit:?}: {said}");
    }
}

/// Runs make in the sources, with a program in place of the release build, which takes minutes.
fn make(target: &str, destination: &Path) -> String {
    let binary = format!("BINARY={}", env!("CARGO_BIN_EXE_clusterd"));
    let mut command = Command::new("make");
    command.current_dir(root()).args(["--no-print-directory", "-o", "build", target, "PREFIX=/usr", &binary]);
    let output = command.arg(format!("DESTDIR={}", destination.display())).output().unwrap();
    assert!(output.status.success(), "{target}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn below(folder: &Path) -> Vec<String> {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.push(path.strip_prefix(folder).unwrap().display().to_string());
        }
    }
    found.sort();
    found
}

#[test]
fn make_install_puts_everything_in_its_place_and_uninstall_takes_it_away() {
    let folder = tempfile::tempdir().unwrap();
    // A blank: nothing may be cut at it.
    let destination = folder.path().join("a root");
    make("install", &destination);
    let mut expected = [
        "usr/bin/clusterd",
        "usr/share/bash-completion/completions/clusterd",
        "usr/share/clusterd/ecosystem.schema.json",
        "usr/share/doc/clusterd/CHANGELOG.md",
        "usr/share/doc/clusterd/LICENSE",
        "usr/share/doc/clusterd/README.md",
        "usr/share/doc/clusterd/ecosystem.example.toml",
        "usr/share/fish/vendor_completions.d/clusterd.fish",
        "usr/share/man/man1/clusterd.1",
        "usr/share/man/man5/ecosystem.toml.5",
        "usr/share/zsh/site-functions/_clusterd",
    ]
    .map(str::to_owned)
    .to_vec();
    assert_eq!(below(&destination), expected);
    let output = Command::new(destination.join("usr/bin/clusterd")).arg("version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let example =
        fs::read_to_string(destination.join("usr/share/doc/clusterd/ecosystem.example.toml")).unwrap();
    assert!(example.starts_with("#:schema /usr/share/clusterd/ecosystem.schema.json\n"), "{example}");

    fs::write(destination.join("usr/share/man/man1/other.1"), "").unwrap();
    make("uninstall", &destination);
    expected = vec!["usr/share/man/man1/other.1".to_owned()];
    assert_eq!(below(&destination), expected);
    assert!(!destination.join("usr/share/doc/clusterd").exists());
    make("uninstall", &destination);
}

/// What the Debian package takes is there, and its version is the program's.
#[test]
fn the_debian_package_has_all_that_make_install_has() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets: Vec<&str> =
        deb["assets"].as_array().unwrap().iter().map(|asset| asset[0].as_str().unwrap()).collect();
    for asset in assets.iter().filter(|asset| !asset.starts_with("target/")) {
        assert!(root().join(asset).is_file(), "{asset} is not there");
    }
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for line in makefile.lines().filter(|line| line.contains(":share/") || line.contains(":$(SHARE)/")) {
        let file = line.trim().split(':').next().unwrap();
        assert!(assets.contains(&file) || file == "LICENSE", "{file} is installed, and not in the package");
    }
    let changes = fs::read_to_string(root().join("packaging/debian/changelog")).unwrap();
    let version = concat!("clusterd (", env!("CARGO_PKG_VERSION"), "-1) ");
    assert!(changes.starts_with(version), "{changes}");
}
