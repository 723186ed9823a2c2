//! What a key press offers: the scripts of `clusterd completions` in the shells that they are for, with a supervisor
//! and without one.

mod support;

use std::process::Command;
use std::sync::Arc;

use support::{App, Daemon, Home, clusterd, file, fixtures, runtime};

/// Calls the script's function as bash does at a TAB: each line's words, of which the last is under the cursor. What it
/// would offer is printed, one line for each call.
const BASH: &str = r#"
eval "$(clusterd completions bash)" || exit 1
while IFS= read -r line; do
    eval "COMP_WORDS=($line)"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _clusterd "${COMP_WORDS[0]}"
    echo "${COMPREPLY[*]}"
done
"#;

/// A shell of this home, where `clusterd` is the program under test.
fn shell(home: &Home, shell: &str, script: &str) -> Command {
    let environment = home.command(&[]);
    let mut command = Command::new(shell);
    command.current_dir(home.apps()).env_clear();
    command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let folder = home.binary().parent().expect("it lies in a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(folder).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(path).expect("it was one")).args(["-c", script]);
    command
}

/// What bash offers for each of these lines.
fn in_bash(home: &Home, lines: &[&str]) -> Vec<String> {
    let input = home.apps().join("lines");
    std::fs::write(&input, lines.join("\n") + "\n").expect("the folder is ours");
    let output = shell(home, "bash", BASH)
        .stdin(std::fs::File::open(&input).expect("it was just written"))
        .output()
        .expect("bash is everywhere");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    std::fs::remove_file(input).expect("it is ours");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[track_caller]
fn expect_in_bash(home: &Home, rows: &[(&str, &str)]) {
    let lines: Vec<&str> = rows.iter().map(|(line, _)| *line).collect();
    for ((line, expected), offered) in rows.iter().zip(in_bash(home, &lines)) {
        assert_eq!(offered, *expected, "{line}");
    }
}

/// Two apps, three workers, one of them in a namespace of its own.
fn daemon() -> Daemon {
    let sleeper = fixtures::shell("exec sleep 1000");
    let apps = [
        App::new("api", &sleeper).text("exec_mode", "cluster").instances(2),
        App::new("mailer", &sleeper).text("namespace", "jobs"),
    ];
    let home = Arc::new(Home::new(None));
    home.write(&file(&apps));
    let (daemon, _) = Daemon::started_by(home, &["start", "ecosystem.toml", "--no-wait"]);
    daemon.wait_online("mailer", 1);
    daemon
}

#[test]
fn a_target_is_completed_by_what_the_supervisor_runs() {
    let daemon = daemon();
    let home = &daemon.home;
    std::fs::create_dir(home.apps().join("sub")).expect("the folder is ours");
    std::fs::write(home.apps().join("sub/b.toml"), "").expect("the folder is ours");
    expect_in_bash(
        home,
        &[
            ("clusterd reload ''", "api mailer default jobs all ecosystem.toml"),
            ("clusterd reload api ''", "mailer default jobs all ecosystem.toml"),
            ("clusterd reload a", "api all"),
            ("clusterd stop jo", "jobs"),
            ("clusterd describe 1", "1"),
            ("clusterd scale ''", "api mailer"),
            ("clusterd scale api ''", ""),
            ("clusterd signal SIGHUP m", "mailer"),
            ("clusterd logs -n 3 m", "mailer"),
            ("clusterd reload sub/", "sub/b.toml"),
            ("clusterd start --name reload ap", "api"),
            ("clusterd --home /nowhere reload a", ""),
            ("clusterd --home = /nowhere reload a", ""),
        ],
    );
}

#[test]
fn without_a_supervisor_there_are_verbs_options_and_files_and_none_is_started() {
    let home = Home::new(None);
    home.write("");
    std::fs::create_dir(home.apps().join("sub")).expect("the folder is ours");
    let long = "--env --only --no-log-files --home --json --help";
    expect_in_bash(
        &home,
        &[
            ("clusterd rel", "reload reload-logs"),
            ("clusterd help rel", "reload reload-logs"),
            ("clusterd reload ''", "ecosystem.toml"),
            ("clusterd eco", "ecosystem.toml"),
            ("clusterd ecosystem.toml -", long),
            ("clusterd start --merge", "--merge-logs"),
            ("clusterd --home s", "sub"),
            ("clusterd --home = s", "sub"),
            ("clusterd signal SIGU", "SIGUSR1 SIGUSR2 SIGURG"),
            ("clusterd completions ''", "bash zsh fish"),
            ("clusterd completions zsh ''", ""),
            ("clusterd nothing ''", ""),
            ("clusterd __", ""),
        ],
    );
    assert_eq!(home.processes().len(), 0, "{:?}", home.processes());
    assert!(!home.socket().exists());
}

#[test]
fn what_is_no_words_of_a_command_line_is_offered_nothing() {
    let home = Home::new(None);
    for words in
        [&["__complete"][..], &["__complete", "--"], &["__complete", "--", "--home", "", "reload", ""]]
    {
        let output = clusterd(&home, words);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{words:?}");
    }
}

#[test]
fn fish_offers_the_same() {
    if runtime("fish").is_none() {
        return;
    }
    let daemon = daemon();
    let lines = "clusterd completions fish | source
        for line in 'clusterd reload ma' 'clusterd completions z' 'clusterd validate eco'
            complete -C $line
        end";
    let output = shell(&daemon.home, "fish", lines).output().expect("it was found");
    let text = String::from_utf8_lossy(&output.stdout);
    let text: Vec<&str> = text.lines().collect();
    assert_eq!(
        text,
        ["mailer\tapp, online, 1 of 1", "zsh\tzsh, from 5.0 on", "ecosystem.toml"],
        "{output:?}"
    );
}

/// zsh completes on a terminal only: it gets one, types, and says what has become of the line.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT=; unsetopt prompt_cr prompt_sp; autoload -U compinit; compinit -u -D
    eval \"\$(clusterd completions zsh)\"
    show() { print -r -- \"<\$BUFFER>\"; BUFFER=; }
    zle -N show; bindkey '^X' show; print rea''dy"
zpty -r shell answer '*ready*'
for line in 'reload ma' 'completions z' 'validate eco' 'start --no-wai' '--home=su'; do
    zpty -w -n shell "clusterd $line"$'\t\x18'
    zpty -r shell answer '*<*>*'
    print -r -- "${${answer##*<}%%>*}"
done
"#;

#[test]
fn zsh_offers_the_same() {
    if runtime("zsh").is_none() {
        return;
    }
    let daemon = daemon();
    std::fs::create_dir(daemon.home.apps().join("sub")).expect("the folder is ours");
    let output = shell(&daemon.home, "zsh", ZSH).output().expect("it was found");
    let text = String::from_utf8_lossy(&output.stdout);
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    let lines =
        ["reload mailer", "completions zsh", "validate ecosystem.toml", "start --no-wait", "--home=sub/"];
    assert_eq!(text, lines.map(|line| format!("clusterd {line}")), "{output:?}");
}
