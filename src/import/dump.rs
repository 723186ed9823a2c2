//! What `pm2 save` and `pm2 jlist` print: one object per process, in which everything that PM2 knows lies
//! side by side → the apps that they came from. Instances of one app become one app again; what PM2 and the
//! shell put into the environment is left out, and named.

use std::collections::BTreeSet;

use super::attributes::{self, ATTRIBUTES};
use super::document::Document;
use super::tree::{self, Member, Node, Value, member, put};

/// Variables that PM2 adds. So is each that begins with `PM2_`.
const PM2S: [&str; 5] =
    ["NODE_APP_INSTANCE", "NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "unique_id", "windowsHide"];

/// Variables of the session in which somebody called PM2. What a worker is to have of these it gets from
/// clusterd and its user.
const SHELLS: [&str; 31] = [
    "_",
    "BASH_ENV",
    "COLORTERM",
    "COLUMNS",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "HISTCONTROL",
    "HISTFILE",
    "HISTSIZE",
    "HOME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LESSCLOSE",
    "LESSOPEN",
    "LINES",
    "LOGNAME",
    "LS_COLORS",
    "MAIL",
    "MOTD_SHOWN",
    "OLDPWD",
    "PS1",
    "PWD",
    "SHELL",
    "SHLVL",
    "STY",
    "TERM",
    "TMUX",
    "TMUX_PANE",
    "USER",
    "WINDOWID",
    "WT_SESSION",
];

/// The same, by their beginnings.
const SHELLS_PREFIXES: [&str; 10] =
    ["npm_", "SSH_", "SUDO_", "TERM_PROGRAM", "VSCODE_", "XDG_", "GNOME_", "KDE_", "ITERM_", "SYSTEMD_"];

/// Whether these are processes rather than apps.
pub(super) fn is_dump(nodes: &[&Node]) -> bool {
    !nodes.is_empty()
        && nodes.iter().all(|node| node.get("pm2_env").is_some() || node.get("pm_exec_path").is_some())
}

/// The apps of these processes, in the form of PM2's own files.
pub(super) fn merged(processes: &[&Node], document: &mut Document) -> Vec<Node> {
    document.head.push(
        "It holds what PM2 was running, environment included: variables may be secrets. Keep this file to \
         yourself (chmod 600), or move them into an env_file."
            .to_owned(),
    );
    let mut groups: Vec<Vec<&[Member]>> = Vec::new();
    for process in processes {
        let Some(members) = process.get("pm2_env").unwrap_or(process).table() else { continue };
        // Modules are PM2's own extensions; `pm2 save` leaves them out, `pm2 jlist` does not.
        if member(members, "pmx_module").is_some_and(|node| node.value == Value::Flag(true)) {
            continue;
        }
        match groups.iter_mut().find(|group| is_same(group[0], members)) {
            Some(group) => group.push(members),
            None => groups.push(vec![members]),
        }
    }
    let mut left = BTreeSet::new();
    let apps = groups.iter().map(|group| app(group, &mut left)).collect();
    if !left.is_empty() {
        let names: Vec<&str> = left.iter().map(String::as_str).collect();
        let remark =
            format!("Left out of env, since PM2 or the shell's session put it there: {}.", names.join(", "));
        document.head.push(remark);
    }
    document.head.push(
        "In each env the app's own variables come first, then what else the shell had that PM2 was called from: \
         drop what the app does not need."
            .to_owned(),
    );
    apps
}

/// Whether two processes are instances of one app.
fn is_same(one: &[Member], other: &[Member]) -> bool {
    const SAME: [&str; 6] = ["name", "namespace", "pm_exec_path", "pm_cwd", "args", "exec_interpreter"];
    // Without their places in the file, in which no two are the same.
    let value = |members, key| member(members, key).map(tree::json);
    SAME.iter().all(|key| value(one, key) == value(other, key))
}

fn app(group: &[&[Member]], left: &mut BTreeSet<String>) -> Node {
    let first = group[0];
    let mut app = Vec::new();
    for (from, to) in [
        ("pm_exec_path", "script"),
        ("pm_cwd", "cwd"),
        ("exec_interpreter", "interpreter"),
        ("exec_mode", "exec_mode"),
    ] {
        if let Some(node) = member(first, from) {
            put(&mut app, Member { name: to.to_owned(), span: None, node: node.clone() });
        }
    }
    plain(first, &mut app);
    simplify(&mut app, group.len());
    for (key, from) in
        [("out_file", "pm_out_log_path"), ("error_file", "pm_err_log_path"), ("log_file", "pm_log_path")]
    {
        log_file(first, key, from, &mut app);
    }
    if let Some(path) =
        member(first, "pm_pid_path").and_then(Node::text).filter(|path| !is_pm2s(first, path, "pids"))
    {
        put(&mut app, Member::made("pid_file", Value::Text(without_id(path))));
    }
    if member(first, "status").and_then(Node::text) == Some("stopped") {
        put(&mut app, Member::made("autostart", Value::Flag(false)));
    }
    environment(group, &mut app, left);
    Node::made(Value::Table(app))
}

/// Attributes that stand in it under their own names, unless they are PM2's defaults.
fn plain(first: &[Member], app: &mut Vec<Member>) {
    const ELSEWHERE: [&str; 9] = [
        "script",
        "cwd",
        "interpreter",
        "exec_mode",
        "instances",
        "env",
        "out_file",
        "error_file",
        "username",
    ];
    for found in first {
        let is_profile = found.name.starts_with("env_") && found.node.table().is_some();
        // A variable of the environment that has an attribute's name lies here as well.
        let is_variable = found.name != "name" && member(variables(first), &found.name).is_some();
        let row = ATTRIBUTES.iter().find(|row| row.name == found.name || row.aliases.contains(&&*found.name));
        let wanted = row.is_some_and(|row| !ELSEWHERE.contains(&row.name) && !is_variable);
        if (wanted && !is_default(found)) || is_profile {
            put(app, found.clone());
        }
    }
}

/// What PM2 writes although nobody asked for it.
fn is_default(found: &Member) -> bool {
    let value = &found.node.value;
    let is_empty = matches!(value, Value::List(nodes) if nodes.is_empty())
        || matches!(value, Value::Table(members) if members.is_empty());
    let rule = attributes::find(&found.name).map(|row| &row.rule);
    is_empty
        || found.node.is_null()
        || matches!(rule, Some(attributes::Rule::Dropped(_)))
        || match found.name.as_str() {
            "autostart" | "autorestart" | "treekill" => *value == Value::Flag(true),
            "instance_var" => found.node.text() == Some("NODE_APP_INSTANCE"),
            "watch" | "wait_ready" | "merge_logs" => *value == Value::Flag(false),
            _ => false,
        }
}

/// Says nothing that goes without saying: the interpreter that the extension asks for, fork mode of one.
fn simplify(app: &mut Vec<Member>, count: usize) {
    let text = |app: &[Member], key| member(app, key).and_then(Node::text).map(str::to_owned);
    let script = text(app, "script").unwrap_or_default();
    let base = script.rsplit('/').next().unwrap_or_default().to_owned();
    let extension = base.rsplit_once('.').map(|(_, extension)| extension);
    let usual: &[&str] = match extension {
        Some("js" | "cjs" | "mjs") => &["node"],
        Some("py") => &["python", "python3"],
        Some("rb") => &["ruby"],
        Some("php") => &["php"],
        Some("pl") => &["perl"],
        Some("sh") => &["bash"],
        Some(_) | None => &[],
    };
    if text(app, "interpreter").is_some_and(|interpreter| usual.contains(&&*interpreter)) {
        app.retain(|member| member.name != "interpreter");
    }
    let is_cluster = text(app, "exec_mode").is_some_and(|mode| mode.starts_with("cluster"));
    if !is_cluster && count == 1 {
        app.retain(|member| member.name != "exec_mode");
        // PM2 switches this on for one process by itself.
        app.retain(|member| member.name != "merge_logs");
    } else {
        put(app, Member::made("instances", Value::Whole(i64::try_from(count).unwrap_or(i64::MAX))));
    }
}

/// A log file that somebody chose: not one of PM2's own.
fn log_file(first: &[Member], key: &str, from: &str, app: &mut Vec<Member>) {
    let Some(path) = member(first, from).and_then(Node::text) else { return };
    if !is_pm2s(first, path, "logs") {
        let merged = member(first, "merge_logs").is_some_and(|node| node.value == Value::Flag(true));
        let path = if merged { path.to_owned() } else { without_id(path) };
        put(app, Member::made(key, Value::Text(path)));
    }
}

/// Whether a path lies in PM2's own folder.
fn is_pm2s(process: &[Member], path: &str, folder: &str) -> bool {
    let home = member(variables(process), "PM2_HOME").and_then(Node::text);
    let in_home = |home| path.starts_with(&format!("{home}/{folder}/"));
    home.is_some_and(in_home) || path.contains(&format!("/.pm2/{folder}/"))
}

/// `app-out-3.log` → `app-out.log`: PM2's number of the process, which differs from one to the next.
fn without_id(path: &str) -> String {
    let (folder, base) = path.rsplit_once('/').map_or(("", path), |(folder, base)| (folder, base));
    let (stem, extension) = base.rsplit_once('.').unwrap_or((base, ""));
    let Some((rest, id)) = stem.rsplit_once('-') else { return path.to_owned() };
    if rest.is_empty() || id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return path.to_owned();
    }
    let dot = if extension.is_empty() { "" } else { "." };
    let slash = if path.contains('/') { "/" } else { "" };
    format!("{folder}{slash}{rest}{dot}{extension}")
}

/// The variables that the app is to have: its own, then those of the shell.
fn environment(group: &[&[Member]], app: &mut Vec<Member>, left: &mut BTreeSet<String>) {
    let text = |key| member(group[0], key).and_then(Node::text).unwrap_or_default();
    let (name, instance, increment) = (text("name"), text("instance_var"), text("increment_var"));
    let all = variables(group[0]);
    // PM2 adds these to what the shell had; what comes after them is the app's.
    let own = all.iter().rposition(|variable| variable.name.starts_with("PM2_")).map_or(0, |at| at + 1);
    let mut env = Vec::new();
    for variable in all[own..].iter().chain(&all[..own]) {
        let is_apps_mark = variable.name == name && variable.node.text() == Some("{}");
        if is_apps_mark || variable.name == instance {
            continue;
        }
        if is_foreign(&variable.name) {
            left.insert(variable.name.clone());
            continue;
        }
        let value = match variable.name == increment {
            true => least(group, increment),
            false => variable.node.value.clone(),
        };
        env.push(Member::made(&variable.name, value));
    }
    if !env.is_empty() {
        put(app, Member::made("env", Value::Table(env)));
    }
}

fn variables(process: &[Member]) -> &[Member] {
    member(process, "env").and_then(Node::table).unwrap_or(&[])
}

/// Whether PM2 or the session put it there.
fn is_foreign(name: &str) -> bool {
    name.starts_with("PM2_")
        || PM2S.contains(&name)
        || SHELLS.contains(&name)
        || SHELLS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What `increment_var` started from.
fn least(group: &[&[Member]], variable: &str) -> Value {
    let number = |process: &&[Member]| match &member(variables(process), variable)?.value {
        Value::Whole(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
        Value::Null | Value::Flag(_) | Value::Real(_) | Value::List(_) | Value::Table(_) => None,
    };
    group.iter().filter_map(number).min().map_or(Value::Null, Value::Whole)
}
