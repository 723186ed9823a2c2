//! Verbs of PM2 that are none here: why, and what there is instead.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;
use super::near::Near;

/// The verbs, and what their users are told.
const GONE: &[(&[&str], &str)] = &[
    (
        &["attach"],
        "`clusterd logs NAME` shows what it prints; with stdin = \"pipe\" in its file, `clusterd send NAME LINE` writes to it",
    ),
    (
        &["trigger", "inspect"],
        "actions are those of PM2's agent, which is not put into your server. Write a signal handler for `clusterd \
         signal SIGUSR2 NAME`, or read standard input: `clusterd send NAME LINE`",
    ),
    (&["slist", "sysinfos"], "`clusterd report` shows the host, and `clusterd list --json` what runs on it"),
    (&["id"], "`clusterd list NAME --json` has the ids of its workers"),
    (
        &["logrotate"],
        "rotation is built in, and on: log_max_size, log_max_files and log_max_age in the ecosystem file",
    ),
    (
        &["update", "updatePM2", "deepUpdate", "upgrade"],
        "start the new binary in the old one's place: `clusterd kill`, then `clusterd resurrect`",
    ),
    (
        &["ecosystem", "create", "examples"],
        "`clusterd init` writes an ecosystem file for the project of this folder",
    ),
    (
        &["set", "get", "unset", "conf", "config", "multiset"],
        "settings are keys of the ecosystem file, and flags of `clusterd restart NAME`; `clusterd describe NAME` \
         shows them all",
    ),
    (
        &["serve", "expose"],
        "a server of files is an app like any other: `clusterd start \"python3 -m http.server 8080\" --name site`",
    ),
    (
        &["deploy", "pull", "forward", "backward"],
        "clusterd runs what is there: unpack the release, move the symlink, then `clusterd reload NAME`, which takes \
         the new version back when it does not come up",
    ),
    (
        &[
            "install",
            "module:install",
            "uninstall",
            "module:uninstall",
            "module:update",
            "module:generate",
            "module:publish",
            "package",
            "publish",
        ],
        "there are no modules: rotation of logs is built in (log_max_size), metrics are `http` in [daemon]",
    ),
    (
        &["profile:cpu", "profile:mem"],
        "profiles are the runtime's own matter: `clusterd restart NAME --node-args=--inspect`, or --cpu-prof",
    ),
    (
        &[
            "link",
            "unlink",
            "monitor",
            "unmonitor",
            "open",
            "plus",
            "register",
            "login",
            "logout",
            "install-otel",
            "uninstall-otel",
        ],
        "PM2's paid service has no part in this, and nothing is sent anywhere. `clusterd monit` shows all of it here; \
         http = \"127.0.0.1:9615\" in [daemon] serves metrics for Prometheus",
    ),
    (
        &["web"],
        "http = \"127.0.0.1:9615\" in [daemon] of the ecosystem file serves /metrics, /healthz and /api/v1/apps, for \
         reading only",
    ),
    (&["autoinstall"], "what an app needs is installed by its own tools before it is started"),
    (&["completion"], "`clusterd completions bash`, zsh or fish prints what completes all this"),
];

/// What somebody is told who uses this verb of PM2's; none for another word.
pub fn told(verb: &str) -> Option<String> {
    let (_, why) = GONE.iter().find(|(verbs, _)| verbs.contains(&verb))?;
    Some(format!("{verb} is no verb of clusterd: {why}"))
}

/// What is to be said in place of the parser's bare words.
pub fn instead(error: &clap::Error) -> Option<String> {
    let ContextValue::String(word) = error.get(ContextKind::InvalidSubcommand)? else { return None };
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let unknown = || format!("unrecognized subcommand '{word}'; {}", hint(word));
    Some(told(word).unwrap_or_else(unknown))
}

/// The parser itself would name whatever has some letters in common, hidden names too.
fn hint(word: &str) -> String {
    let definition = Cli::command();
    let shown = definition.get_subcommands().filter(|verb| !verb.is_hide_set());
    let names = shown.flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_visible_aliases()));
    let mut near = Near::to(word);
    names.for_each(|name| near.tell(name, name));
    match near.found() {
        Some(verb) => format!("did you mean '{verb}'?"),
        None => "`clusterd --help` shows all verbs".to_owned(),
    }
}
