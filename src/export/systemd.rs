//! systemd: one unit that runs the file, and a socket unit for each kind of address in it.

use std::fmt::Write as _;

use std::collections::BTreeSet;

use super::nginx;
use super::service::{self, Service};
use super::yaml::remark;
use super::{Source, unit};
use crate::config::{Account, Listen};
use crate::supervisor::address::Address;

/// What systemd waits beyond what clusterd needs, in seconds.
const SLACK: u64 = 10;

pub(super) fn text(source: &Source<'_>) -> String {
    // All as one: a machine has one supervisor of the file.
    let all = service::services(source);
    let name = format!("clusterd-{}", source.name);
    let sockets = sockets(&all);
    let names: Vec<String> = (1..=sockets.len())
        .map(|at| if at == 1 { format!("{name}.socket") } else { format!("{name}-{at}.socket") })
        .collect();
    let mut text = remarks(&head(source, &name, &names));
    let _ = writeln!(text, "\n# ==> /etc/systemd/system/{name}.service");
    text += &service_unit(source, &all, &name);
    for (file, listens) in names.iter().zip(&sockets) {
        let _ = writeln!(text, "\n# ==> /etc/systemd/system/{file}");
        text += &socket_unit(listens, &name);
    }
    let left_out: Vec<&Listen> = listens(&all).filter(|listen| stream(listen).is_none()).collect();
    for listen in left_out {
        text += &remarks(&format!("No socket unit has {}: clusterd opens it itself.", listen.address));
    }
    if let Some(snippet) = proxy(&all) {
        text.push('\n');
        text += &remarks(&format!(
            "nginx in front, for TLS or for several machines (one more `server` for each):\n{snippet}"
        ));
    }
    text
}

fn remarks(text: &str) -> String {
    remark(text).join("\n") + "\n"
}

fn head(source: &Source<'_>, name: &str, sockets: &[String]) -> String {
    let socket = if !sockets.is_empty() {
        format!(
            "\nThe socket units are for who wants connections to wait while clusterd itself restarts. Workers then share \
             systemd's queue, and nobody steers clients away from a busy one. Before the service is started:\n\
             \x20 systemctl enable --now {}",
            sockets.join(" ")
        )
    } else {
        String::new()
    };
    format!(
        "Made by `{}`. It is yours to edit. Each part goes to the file that stands above it, and then:\n\
         \x20 systemctl daemon-reload\n\
         \x20 systemctl enable --now {name}.service\n\
         \x20 clusterd --home /run/{name} list{socket}",
        source.command("systemd")
    )
}

fn service_unit(source: &Source<'_>, all: &[Service<'_>], name: &str) -> String {
    let mut text = unit::head(
        "# Runs the file, and nothing else.",
        &format!("the apps of {}", source.name),
        &format!("Documentation=man:clusterd(1) man:ecosystem.toml(5)\n{}", asserted(source.path)),
    );
    let needs_root = all.iter().any(Service::needs_root);
    for service in all {
        for line in service.remarks(false) {
            text += &remarks(&line);
        }
        let secrets = service.secrets();
        if !secrets.is_empty() {
            text += &remarks(&format!(
                "The file has values that look like secrets ({}): {}, or LoadCredential= in place of them.",
                secrets.join(", "),
                if needs_root { "chown root, chmod 600" } else { "chown root:clusterd, chmod 640" }
            ));
        }
    }
    let user = if needs_root { "root" } else { "clusterd" };
    let why = all.iter().find_map(Service::root_remark);
    text += &remarks(&why.unwrap_or_else(|| {
        "Who has to be able to read the file and all that it names: useradd --system clusterd".to_owned()
    }));
    let is_at_home = |path: &str| ["/home/", "/root/"].iter().any(|home| path.starts_with(home));
    if !needs_root && is_at_home(source.program) {
        text += &remarks(
            "The program is in a home folder, which other users cannot enter as a rule (203/EXEC): install it as \
             /usr/bin/clusterd.",
        );
    }
    let _ = writeln!(text, "User={user}\nGroup={user}");
    text += &folders(all, name, needs_root);
    let words = words(source);
    let (stop, why) = stop_time(source, all);
    text += &unit::service(&words, &unit::quoted(source.program), (stop, &why));
    text += unit::LIMITS;
    text += unit::OUTPUT;
    let has_low_port = all.iter().any(Service::has_low_port);
    text += &match (needs_root, has_low_port) {
        (true, _) => unit::HARDENING.replacen("\nCapabilityBoundingSet=\n", "\n", 1),
        (false, true) => unit::HARDENING.replacen(
            "\nCapabilityBoundingSet=\n",
            "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n",
            1,
        ),
        (false, false) => unit::HARDENING.to_owned(),
    };
    text + "\n[Install]\nWantedBy=multi-user.target\n"
}

/// Where it keeps what, and where Unix sockets are.
fn folders(all: &[Service<'_>], name: &str, needs_root: bool) -> String {
    let mut text = String::new();
    let (folders, foreign) = runtime_folders(all);
    for folder in foreign.iter().filter(|_| !needs_root) {
        text += &remarks(&format!(
            "Unix sockets in {folder}: clusterd's user has to be able to write there, or they are not opened and the \
             service does not become ready. A folder of their own in /run would be made; the socket unit needs none."
        ));
    }
    // Others are to reach those sockets, by their own modes.
    let mode = if folders.is_empty() { "0700" } else { "0711" };
    let folders: String = folders.iter().map(|folder| format!(" {folder}")).collect();
    let _ = write!(
        text,
        "RuntimeDirectory={name}{folders}\nRuntimeDirectoryMode={mode}\n\
         RuntimeDirectoryPreserve=restart\nStateDirectory={name}\nStateDirectoryMode=0700\nLogsDirectory={name}\n\
         LogsDirectoryMode=0750\n"
    );
    text
}

/// Folders of Unix sockets: those in /run that the unit can make, relative to it, and others.
fn runtime_folders(all: &[Service<'_>]) -> (Vec<String>, Vec<String>) {
    let found: BTreeSet<&str> = all.iter().flat_map(Service::all_folders).collect();
    let (mut made, mut others) = (Vec::new(), Vec::new());
    for folder in found {
        // Of others there are sockets in these as well; a colon or a quote means something here.
        let is_shared = |below: &str| ["user", "systemd", "lock", "dbus"].contains(&below);
        let below = folder.strip_prefix("/run/").filter(|below| {
            let is_odd = |c: char| matches!(c, ':' | '"' | '\'');
            is_value(below)
                && !below.contains(is_odd)
                && !below.split('/').any(|part| matches!(part, "" | "." | ".."))
        });
        match below.filter(|below| !is_shared(below)) {
            Some(below) => made.push(value(below)),
            None => others.push(folder.to_owned()),
        }
    }
    (made, others)
}

/// What stands behind the program in a command line.
fn words(source: &Source<'_>) -> String {
    let mut words = vec![source.path.to_owned()];
    words.extend(source.profile_words());
    if !source.only.is_empty() {
        words.push(format!("--only={}", source.only.join(",")));
    }
    words.iter().map(|word| unit::quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A file that is missing is a clear word of systemd's own, where its path can stand there.
fn asserted(path: &str) -> String {
    let is_plain = is_value(path);
    if is_plain { format!("AssertPathExists={}\n", value(path)) } else { String::new() }
}

/// Whether systemd takes a text as it is, but for its percents.
fn is_value(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\')
}

/// A value that is no command line: percents alone mean something there.
fn value(text: &str) -> String {
    text.replace('%', "%%")
}

/// All apps end at once, but for those that others depend on.
fn stop_time(source: &Source<'_>, all: &[Service<'_>]) -> (u64, String) {
    let longest = all.iter().map(|service| service.stop_time(source)).max_by_key(|(time, _)| *time);
    let (time, why) = longest.unwrap_or((SLACK, String::new()));
    (time + SLACK, why)
}

fn listens<'a>(all: &'a [Service<'_>]) -> impl Iterator<Item = &'a Listen> {
    all.iter().flat_map(|service| &service.apps).flat_map(|app| &app.config.spec.listen)
}

/// `ListenStream=`; none for what cannot stand there.
fn stream(listen: &Listen) -> Option<String> {
    match listen.address {
        Address::Tcp { ip, port, v6only: false } if ip.is_ipv6() && ip.is_unspecified() => {
            Some(port.to_string())
        }
        Address::Tcp { .. } => Some(listen.address.to_string()),
        Address::Unix(name) => {
            let text = name.as_str();
            let accounts = [&listen.access.user, &listen.access.group];
            let named = accounts.into_iter().flatten().all(|account| account_name(account).is_some());
            (is_value(text) && named).then(|| value(text))
        }
    }
}

/// As systemd takes it, which is narrower than what a file may say.
fn account_name(account: &Account) -> Option<String> {
    match account {
        Account::Id(id) => Some(id.to_string()),
        Account::Name(name) => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            (!name.is_empty() && name.chars().all(allowed)).then(|| name.clone())
        }
    }
}

/// Addresses that one unit can have: what else it says holds for all of them.
fn sockets(all: &[Service<'_>]) -> Vec<Vec<Listen>> {
    let is_like = |one: &Listen, other: &Listen| match (one.address, other.address) {
        (Address::Unix(_), Address::Unix(_)) => one.access == other.access && one.backlog == other.backlog,
        (Address::Tcp { v6only, .. }, Address::Tcp { v6only: other_v6only, .. }) => {
            v6only == other_v6only && one.backlog == other.backlog
        }
        (Address::Tcp { .. }, Address::Unix(_)) | (Address::Unix(_), Address::Tcp { .. }) => false,
    };
    let mut units: Vec<Vec<Listen>> = Vec::new();
    for listen in listens(all).filter(|listen| stream(listen).is_some()) {
        match units.iter_mut().find(|unit| unit.iter().all(|other| is_like(other, listen))) {
            Some(unit) if unit.iter().any(|other| other.address == listen.address) => {}
            Some(unit) => unit.push(listen.clone()),
            None => units.push(vec![listen.clone()]),
        }
    }
    units
}

fn socket_unit(listens: &[Listen], name: &str) -> String {
    let mut text =
        format!("[Unit]\nDescription=Addresses of the apps of {name}\n\n[Socket]\nService={name}.service\n");
    for stream in listens.iter().filter_map(stream) {
        let _ = writeln!(text, "ListenStream={stream}");
    }
    let Some(first) = listens.first() else { return text };
    match first.address {
        Address::Tcp { v6only, .. } => {
            let _ = writeln!(text, "BindIPv6Only={}", if v6only { "ipv6-only" } else { "both" });
        }
        Address::Unix(name) => {
            if name.in_abstract().is_none() {
                let _ = writeln!(text, "SocketMode={:04o}", first.access.mode);
            }
            for (key, account) in [("SocketUser", &first.access.user), ("SocketGroup", &first.access.group)] {
                if let Some(account) = account.as_ref().and_then(account_name) {
                    let _ = writeln!(text, "{key}={account}");
                }
            }
        }
    }
    let _ = write!(text, "Backlog={}\n\n[Install]\nWantedBy=sockets.target\n", first.backlog);
    text
}

fn proxy(all: &[Service<'_>]) -> Option<String> {
    let upstreams = nginx::upstreams(all, |_, listen| Some(server(listen)));
    nginx::snippet(&upstreams, all)
}

/// Where a proxy on the same machine finds it.
fn server(listen: &Listen) -> String {
    match listen.address {
        Address::Tcp { ip, port, v6only: true } if ip.is_unspecified() => format!("[::1]:{port}"),
        Address::Tcp { ip, port, .. } if ip.is_unspecified() => format!("127.0.0.1:{port}"),
        // No proxy knows abstract names: the character keeps it out.
        Address::Tcp { .. } | Address::Unix(_) => listen.address.to_string(),
    }
}
