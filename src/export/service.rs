//! What one container runs, and what follows from the file for whoever starts, asks, bounds and ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{App, Source};
use crate::config::exposed::is_secret;
use crate::config::{LogTarget, SHUTDOWN_TIMEOUT};
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
    let named = |apps: Vec<App<'a>>| Service { name: unique(&label_of(&apps), &mut taken), apps, is_whole };
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

/// A label as RFC 1035 has it: what names of apps may hold besides becomes a dash.
pub(super) fn label(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let text: String = letters.collect();
    let text = match text.trim_matches('-') {
        "" => "app".to_owned(),
        text if text.starts_with(|c: char| c.is_ascii_digit()) => format!("app-{text}"),
        text => text.to_owned(),
    };
    text.chars().take(LONGEST_LABEL).collect::<String>().trim_end_matches('-').to_owned()
}

fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
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
            words.push("--only".to_owned());
            words.push(names.into_iter().collect::<Vec<_>>().join(","));
        }
        words.push("--no-log-files".to_owned());
        words
    }

    /// Ports that are reached from outside, each once.
    pub(super) fn ports(&self) -> Vec<Port> {
        let mut ports: BTreeMap<u16, String> = BTreeMap::new();
        for listen in self.apps.iter().flat_map(|app| &app.config.spec.listen) {
            if let Address::Tcp { ip, port, .. } = listen.address
                && !ip.to_canonical().is_loopback()
            {
                ports.entry(port).or_insert_with(|| listen.name.clone());
            }
        }
        let mut taken = BTreeSet::new();
        let named = |(number, name): (u16, String)| {
            // Two of them may begin alike: the number tells them apart.
            let short: String = label(&name).chars().take(9).collect();
            let name = match label(&name) {
                name if name.len() <= 15 && taken.insert(name.clone()) => name,
                _ => format!("{}-{number}", short.trim_end_matches('-')),
            };
            Port { name, number }
        };
        ports.into_iter().map(named).collect()
    }

    pub(super) fn has_low_port(&self) -> bool {
        self.ports().iter().any(|port| port.number < FIRST_FREE_PORT)
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
        self.apps
            .iter()
            .any(|app| app.config.spec.process.user.is_some() || app.config.spec.process.group.is_some())
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
        self.apps.iter().flat_map(|app| self.remarks_of(app, is_container)).collect()
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
        if !policy.declares_listen && policy.mode == Mode::Cluster {
            say("no `listen`, so nobody outside knows a port. If it serves, declare it: listen = \":3000\""
                .to_owned());
        }
        if !policy.autostart {
            say("autostart = false: it waits for `clusterd start`".to_owned());
        }
        if is_container {
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
    let mut say = |text: String| remarks.push(text);
    for listen in &spec.listen {
        match listen.address {
            Address::Unix(_) => {
                say(format!("listen {} stays within the container", listen.address));
            }
            Address::Tcp { ip, .. } if ip.to_canonical().is_loopback() => say(format!(
                "listen {} is not reached from outside the container; \":PORT\" would be",
                listen.address
            )),
            Address::Tcp { .. } => {}
        }
    }
    if policy.watch.is_some() {
        say("watch sees no change, for an image has none".to_owned());
    }
    if policy.cron_restart.is_some() {
        say("cron_restart comes to each replica at the same moment".to_owned());
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
    match source.config.daemon.http.as_ref()?.address {
        Address::Tcp { ip, port, .. } => Some(port).filter(|_| !ip.to_canonical().is_loopback()),
        Address::Unix(_) => None,
    }
}

/// How an image is made that these manifests run.
pub(super) fn dockerfile(source: &Source<'_>) -> String {
    let folder = super::FOLDER;
    let file = source.path.rsplit('/').next().unwrap_or_default();
    format!(
        "The image has clusterd, a runtime, and the folder of {file} with all that it names, at {folder}:\n\
         \x20 FROM node:22-slim\n\
         \x20 COPY clusterd /usr/local/bin/\n\
         \x20 COPY . {folder}\n\
         \x20 STOPSIGNAL SIGTERM\n\
         \x20 ENTRYPOINT [\"clusterd\"]"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_of_dns() {
        for (name, expected) in
            [("api", "api"), ("Api_v2.X", "api-v2-x"), ("9lives", "app-9lives"), ("---", "app"), ("a-", "a")]
        {
            assert_eq!(label(name), expected);
        }
        assert_eq!(label(&"x".repeat(64)).len(), LONGEST_LABEL);
        let mut taken = BTreeSet::new();
        assert_eq!([unique("a", &mut taken), unique("a", &mut taken)], ["a", "a-2"]);
    }
}
