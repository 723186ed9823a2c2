//! What one container runs, and what follows from the file for whoever starts, asks, bounds and ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{App, FOLDER, Source};
use crate::config::exposed::is_secret;
use crate::config::{Access, Http, LogTarget, SHUTDOWN_TIMEOUT};
use crate::supervisor::address::Address;
use crate::supervisor::policy::{AppName, Balance, MemoryLimit, Mode};

/// Who workers run as in a container: nobody's number, as images without a shell have it.
pub(super) const USER: u64 = 65532;

/// The port's number above which everybody may listen.
const FIRST_FREE_PORT: u16 = 1024;

/// What clusterd itself may take, generously.
const OWN_MEMORY: u64 = 64 * MIB;

const MIB: u64 = 1024 * 1024;

/// Between the end of a shutdown and the host's SIGKILL.
const MARGIN: Duration = Duration::from_secs(2);

/// Apps that run in one container.
#[derive(Clone, Debug)]
pub(super) struct Service<'a> {
    /// A label of DNS, unique among all.
    pub(super) name: String,
    pub(super) apps: Vec<App<'a>>,
    /// `[daemon] http`, which every supervisor of the file has.
    http: Option<&'a Http>,
    /// Whether these are all apps of the file.
    is_whole: bool,
}

/// A port that clients outside of the container reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// 15 letters, digits and dashes at most, unique in the container.
    pub(super) name: String,
    pub(super) number: u16,
}

/// How much memory a container needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Some app has no limit.
    Unknown,
    /// The workers take a share of it, in thousandths.
    Share(u64),
    /// So many MiB while all workers run, and while one more of each app does.
    Known { usual: u64, most: u64 },
}

/// Apps in containers. Those that wait for each other (`depends_on`) or that `--only` cannot tell apart stay together:
/// a supervisor gives up an app whose dependency it does not know.
pub(super) fn services<'a>(source: &Source<'a>) -> Vec<Service<'a>> {
    let mut groups: Vec<Vec<App<'a>>> = Vec::new();
    for app in source.apps() {
        let (joined, mut others): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| group.iter().any(|other| belong_together(other, &app)));
        let mut group: Vec<App<'a>> = joined.into_iter().flatten().collect();
        group.push(app);
        others.push(group);
        groups = others;
    }
    // In the order of the file.
    let place = |group: &Vec<App<'_>>| {
        let is_first = |app: &App<'_>| group.iter().any(|other| std::ptr::eq(other.config, app.config));
        source.apps().iter().position(is_first)
    };
    groups.sort_by_key(place);
    let is_whole = groups.len() == 1 && source.only.is_empty();
    let mut taken = BTreeSet::new();
    let http = source.config.daemon.http.as_ref();
    let named =
        |apps: Vec<App<'a>>| Service { name: unique(&label_of(&apps), &mut taken), apps, http, is_whole };
    groups.into_iter().map(named).collect()
}

fn belong_together(one: &App<'_>, other: &App<'_>) -> bool {
    let waits = |one: &App<'_>, other: &App<'_>| {
        let (name, namespace) = (&other.config.name, &other.config.namespace);
        let is_it = |needed: &AppName| needed.name == *name && needed.namespace == *namespace;
        one.config.policy.depends_on.iter().any(is_it)
    };
    one.written == other.written || waits(one, other) || waits(other, one)
}

/// After the first app that is asked from outside.
fn label_of(apps: &[App<'_>]) -> String {
    let listens = |app: &&App<'_>| app.config.policy.declares_listen;
    let Some(app) = apps.iter().find(listens).or(apps.first()) else { return "app".to_owned() };
    match app.config.namespace.as_str() {
        "default" => label(&app.config.name),
        namespace => label(&format!("{namespace}-{}", app.config.name)),
    }
}

/// Room for what Kubernetes appends, within the 63 letters of a label.
const LONGEST_LABEL: usize = 45;

/// A label as RFC 1035 has it: what names of apps may hold besides becomes a dash, one for all in a row, since names
/// of ports must not have two.
pub(super) fn label(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let text = parts.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let text = match text.as_str() {
        "" => "app".to_owned(),
        text if text.starts_with(|c: char| c.is_ascii_digit()) => format!("app-{text}"),
        text => text.to_owned(),
    };
    text.chars().take(LONGEST_LABEL).collect::<String>().trim_end_matches('-').to_owned()
}

pub(super) fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2u32..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name));
    let free = free.unwrap_or_default();
    taken.insert(free.clone());
    free
}

impl<'a> Service<'a> {
    /// Names of its apps, for people.
    pub(super) fn names(&self) -> String {
        self.apps.iter().map(|app| app.config.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// What stands behind `clusterd`.
    pub(super) fn words(&self, source: &Source<'_>) -> Vec<String> {
        let mut words = vec![source.path.to_owned()];
        words.extend(source.profile_words());
        if !self.is_whole {
            let names: BTreeSet<&str> = self.apps.iter().map(|app| app.written).collect();
            words.push(format!("--only={}", names.into_iter().collect::<Vec<_>>().join(",")));
        }
        words.push("--no-log-files".to_owned());
        words
    }

    /// Ports that are reached from outside, each once.
    pub(super) fn ports(&self) -> Vec<Port> {
        let mut ports: BTreeMap<u16, String> = BTreeMap::new();
        for listen in self.apps.iter().flat_map(|app| &app.config.spec.listen) {
            if let Some(port) = reached(&listen.address) {
                ports.entry(port).or_insert_with(|| listen.name.clone());
            }
        }
        let mut taken = BTreeSet::new();
        let named = |(number, name): (u16, String)| {
            // Two of them may begin alike: the number tells them apart.
            let short: String = label(&name).chars().take(9).collect();
            let numbered = format!("{}-{number}", short.trim_end_matches('-'));
            let mut names = [label(&name), numbered].into_iter().filter(|name| name.len() <= 15);
            let name = names.find(|name| taken.insert(name.clone()));
            Port { name: name.unwrap_or_else(|| format!("p{number}")), number }
        };
        ports.into_iter().map(named).collect()
    }

    /// Where its apps and clusterd itself listen.
    fn addresses(&self) -> impl Iterator<Item = Address> {
        let listens = self.apps.iter().flat_map(|app| &app.config.spec.listen);
        listens.map(|listen| listen.address).chain(self.http.map(|http| http.address))
    }

    /// Whatever it listens on, wherever that is.
    pub(super) fn all_ports(&self) -> Vec<u16> {
        self.addresses().filter_map(|address| address.port()).collect()
    }

    /// Whoever is to reach it: the kernel asks for the number alone.
    pub(super) fn has_low_port(&self) -> bool {
        self.addresses().any(|address| address.port().is_some_and(|port| port < FIRST_FREE_PORT))
    }

    /// Folders of its Unix sockets, each once.
    pub(super) fn all_folders(&self) -> BTreeSet<&'a str> {
        let http = self.http.map(|http| &http.address);
        let listens =
            self.apps.iter().flat_map(|app| app.config.spec.listen.iter().map(|listen| &listen.address));
        listens.chain(http).filter_map(folder_of).collect()
    }

    /// Those that a file system of its own can be mounted at.
    pub(super) fn socket_folders(&self) -> Vec<&'a str> {
        self.all_folders().into_iter().filter(|folder| is_mountable(folder)).collect()
    }

    pub(super) fn workers(&self) -> u64 {
        self.apps.iter().map(|app| u64::from(app.config.policy.instances)).sum()
    }

    pub(super) fn follows_cpus(&self) -> bool {
        self.apps.iter().any(|app| app.by_cpus)
    }

    /// Whether there may be two of it: an app in fork mode is one process at a time.
    pub(super) fn is_alone(&self) -> bool {
        self.apps.iter().any(|app| app.config.policy.mode == Mode::Fork)
    }

    pub(super) fn needs_root(&self) -> bool {
        let changes =
            |app: &App<'_>| app.config.spec.process.user.is_some() || app.config.spec.process.group.is_some();
        self.gives_away() || self.apps.iter().any(changes)
    }

    /// Whether the file of a Unix socket gets an owner.
    fn gives_away(&self) -> bool {
        let listens = self.apps.iter().flat_map(|app| &app.config.spec.listen);
        let accesses = listens.map(|listen| &listen.access).chain(self.http.map(|http| &http.access));
        accesses.into_iter().any(|Access { user, group, .. }| user.is_some() || group.is_some())
    }

    /// Why it runs as root, if it does.
    pub(super) fn root_remark(&self) -> Option<String> {
        let gives_away = self.gives_away().then_some(
            "`user` or `group` of an address takes root, which gives the socket away. Apps without a `user` of their own \
             run as root then: give them one, or leave it out at the address.",
        );
        let usual = "`user` in the file takes root, which changes to that user.";
        self.needs_root().then(|| gives_away.unwrap_or(usual).to_owned())
    }

    /// What root keeps in a container.
    pub(super) fn capabilities(&self) -> Vec<&'static str> {
        let giving: &[&str] = if self.gives_away() { &["CHOWN", "FOWNER"] } else { &[] };
        if self.needs_root() { [&["SETUID", "SETGID", "KILL"], giving].concat() } else { Vec::new() }
    }

    pub(super) fn is_sticky(&self) -> bool {
        self.apps.iter().any(|app| app.config.policy.balance == Balance::SourceIp)
    }

    pub(super) fn memory(&self) -> Memory {
        let (mut usual, mut most) = (OWN_MEMORY, OWN_MEMORY);
        for App { config, .. } in &self.apps {
            let workers = u64::from(config.policy.instances);
            match config.policy.max_memory_restart {
                Some(MemoryLimit::Each(bytes)) => {
                    usual = usual.saturating_add(bytes.saturating_mul(workers));
                    most = most
                        .saturating_add(bytes.saturating_mul(workers + u64::from(config.policy.max_surge)));
                }
                Some(MemoryLimit::Shared(bytes)) => return Memory::Share(bytes / (super::MEMORY / 1000)),
                None => return Memory::Unknown,
            }
        }
        Memory::Known { usual: usual.div_ceil(MIB), most: most.div_ceil(MIB) }
    }

    /// How long its apps need to start, one after the other.
    pub(super) fn start_time(&self) -> u64 {
        self.apps.iter().fold(1, |time, app| time.saturating_add(seconds(app.config.policy.listen_timeout)))
    }

    /// Variables of the file that look like secrets; not all of them can be set from outside ([`is_variable`]).
    pub(super) fn secrets(&self) -> Vec<&'a str> {
        let declared = self.apps.iter().flat_map(|app| &app.config.spec.env);
        let secret = declared.filter(|(name, value)| is_secret(name, value.as_bytes()));
        secret.map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What the file says and the manifest has no word for, a line each.
    pub(super) fn remarks(&self, is_container: bool) -> Vec<String> {
        let mut remarks: Vec<String> =
            self.apps.iter().flat_map(|app| self.remarks_of(app, is_container)).collect();
        if let Some(http) = self.http.filter(|_| is_container) {
            remarks.extend(stays_inside(&format!("[daemon] http {}", http.address), &http.address));
        }
        remarks
    }

    /// Where clusterd can write in a container.
    fn writable(&self) -> Vec<&'a str> {
        [self.socket_folders(), vec!["/tmp", "/run/clusterd"]].concat()
    }

    fn remarks_of(&self, app: &App<'a>, is_container: bool) -> Vec<String> {
        let (policy, spec, name) = (&app.config.policy, &app.config.spec, &app.config.name);
        let mut remarks = Vec::new();
        let mut say = |text: String| remarks.push(format!("{name}: {text}"));
        for needed in &policy.depends_on {
            let is_here = |other: &App<'_>| {
                other.config.name == needed.name && other.config.namespace == needed.namespace
            };
            if !self.apps.iter().any(is_here) {
                say(format!("depends_on {needed}, which was not chosen: without it this app does not start"));
            }
        }
        for file in &spec.process.env_files {
            say(format!(
                "env_file {} has to be there, and readable; it is no part of this text",
                file.display()
            ));
        }
        if !policy.declares_listen {
            say("no `listen`, so nobody outside knows a port. If it serves, declare it: listen = \":3000\""
                .to_owned());
        }
        if !policy.autostart {
            say("autostart = false: it waits for `clusterd start`".to_owned());
        }
        if let Some(path) = spec.process.pid_file.as_ref().filter(|_| !is_container && !self.needs_root()) {
            let path = path.display();
            say(format!(
                "pid_file {path}: clusterd's user has to be able to write there, or the app does not start"
            ));
        }
        if is_container {
            if policy.cron_restart.is_some() && !self.is_alone() {
                say("cron_restart comes to each replica at the same moment".to_owned());
            }
            if policy.can_end() {
                say("autorestart = false or stop_exit_codes: what has ended is started again with its container; a \
                     Job (with Compose: restart: on-failure) is for what is to end"
                    .to_owned());
            }
            if let Some(path) = &spec.process.pid_file
                && (self.needs_root() || !self.writable().iter().any(|folder| path.starts_with(folder)))
            {
                let path = path.display();
                say(format!(
                    "pid_file {path} needs a volume that clusterd's user alone can write, or the app does \
                             not start: the root is read-only. Nothing in a container asks for it: leave it out"
                ));
            }
            remarks.extend(in_a_container(app).into_iter().map(|text| format!("{name}: {text}")));
        }
        remarks
    }

    /// How long it may take from SIGTERM to its end, and what is to be known about that.
    pub(super) fn stop_time(&self, source: &Source<'_>) -> (u64, String) {
        let shutdown = source.config.daemon.shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT);
        let ends =
            |app: &App<'_>| app.config.policy.drain_timeout.saturating_add(app.config.policy.kill_timeout);
        let wanted = self.apps.iter().map(ends).fold(Duration::ZERO, Duration::saturating_add);
        let (shown, bound) = (seconds(wanted), seconds(shutdown));
        let time = seconds(wanted.max(shutdown).saturating_add(MARGIN));
        let remark = if wanted > shutdown {
            format!(
                "drain_timeout and kill_timeout ({shown}s), and some. clusterd ends earlier, after shutdown_timeout \
                 ({bound}s): [daemon] shutdown_timeout = \"{shown}s\" gives requests all of it."
            )
        } else {
            format!("shutdown_timeout ({bound}s), and some.")
        };
        (time, remark)
    }
}

/// What of an app means less in a container than on a host.
fn in_a_container(app: &App<'_>) -> Vec<String> {
    let (policy, spec) = (&app.config.policy, &app.config.spec);
    let mut remarks = Vec::new();
    for listen in &spec.listen {
        remarks.extend(stays_inside(&format!("listen {}", listen.address), &listen.address));
    }
    let mut say = |text: String| remarks.push(text);
    if policy.watch.is_some() {
        say("watch sees no change, for an image has none".to_owned());
    }
    if policy.canary.is_some() {
        say("canary is for `clusterd reload`; a new image replaces replicas, not workers".to_owned());
    }
    for (key, target) in [("out_file", &spec.out_file), ("error_file", &spec.error_file)] {
        if let LogTarget::File(path) = target {
            let path = path.display();
            say(format!("{key} {path} needs a volume: the root is read-only. Output goes to the log, too"));
        }
    }
    if spec.process.nice.is_some_and(|nice| nice < 0) || spec.process.oom_score_adj.is_some_and(|to| to < 0) {
        say("a negative nice or oom_score_adj takes a capability (SYS_NICE, SYS_RESOURCE), or it fails"
            .to_owned());
    }
    remarks
}

/// The port by which others than the container itself reach it: they have another address each time.
pub(super) fn reached(address: &Address) -> Option<u16> {
    match address {
        Address::Tcp { ip, port, .. } => Some(*port).filter(|_| ip.to_canonical().is_unspecified()),
        Address::Unix(_) => None,
    }
}

/// What a container makes of an address that others do not reach.
fn stays_inside(called: &str, address: &Address) -> Vec<String> {
    match address {
        Address::Tcp { ip, .. } if ip.to_canonical().is_unspecified() => Vec::new(),
        Address::Tcp { ip, .. } if ip.to_canonical().is_loopback() => {
            vec![format!("{called} is not reached from outside the container; \":PORT\" would be")]
        }
        Address::Tcp { .. } => {
            vec![format!(
                "{called} is an address that a container does not have, and is waited for: \":PORT\" comes up"
            )]
        }
        Address::Unix(_) => {
            let mut remarks = vec![format!("{called} stays within the container")];
            if let Some(folder) =
                folder_of(address).filter(|folder| !is_mountable(folder) && *folder != "/tmp")
            {
                remarks.push(format!(
                    "{called} is not opened, for {folder} cannot be written: the root is read-only, and a volume there \
                     would hide what the image has. Name a folder of its own: unix:/run/NAME/NAME.sock"
                ));
            }
            remarks
        }
    }
}

/// The folder that a Unix socket's file is in.
pub(super) fn folder_of(address: &Address) -> Option<&str> {
    match address {
        Address::Unix(name) if name.in_abstract().is_none() => {
            let (folder, _) = name.as_str().rsplit_once('/')?;
            Some(if folder.is_empty() { "/" } else { folder })
        }
        Address::Unix(_) | Address::Tcp { .. } => None,
    }
}

/// Whether an empty folder can stand there: nothing that the image or the engine has is hidden, and no engine takes the
/// path for something else.
fn is_mountable(folder: &str) -> bool {
    let top = folder.split('/').nth(1).unwrap_or_default();
    let is_kept = ["", "bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr"].contains(&top);
    let is_odd = |c: char| c.is_control() || matches!(c, ':' | ',' | '$');
    let is_there = [FOLDER, "/tmp"].contains(&folder) || folder.split('/').any(|part| part == "..");
    !is_kept && !is_there && !folder.contains(is_odd)
}

/// Whether all that handles manifests takes a name for one of a variable.
pub(super) fn is_variable(name: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(begins) && name.chars().all(|c| begins(c) || c.is_ascii_digit())
}

/// Whole seconds, rounded up.
pub(super) fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The ports of `[daemon] http`, where others than this host reach it.
pub(super) fn http_port(source: &Source<'_>) -> Option<u16> {
    reached(&source.config.daemon.http.as_ref()?.address)
}

/// How an image is made that these manifests run.
pub(super) fn dockerfile(source: &Source<'_>) -> String {
    let folder = FOLDER;
    let file = source.path.rsplit('/').next().unwrap_or_default();
    format!(
        "The image has clusterd, a runtime, and the folder of {file} with all that it names, at {folder}:\n\
         \x20 FROM node:22-slim\n\
         \x20 COPY clusterd /usr/local/bin/\n\
         \x20 COPY --chown={USER}:{USER} . {folder}\n\
         \x20 STOPSIGNAL SIGTERM\n\
         \x20 ENTRYPOINT [\"clusterd\"]"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_of_dns() {
        for (name, expected) in [
            ("api", "api"),
            ("Api_v2.X", "api-v2-x"),
            ("9lives", "app-9lives"),
            ("---", "app"),
            ("a-", "a"),
            ("a--b__c", "a-b-c"),
        ] {
            assert_eq!(label(name), expected);
        }
        assert_eq!(label(&"x".repeat(64)).len(), LONGEST_LABEL);
        let mut taken = BTreeSet::new();
        assert_eq!([unique("a", &mut taken), unique("a", &mut taken)], ["a", "a-2"]);
    }
}
