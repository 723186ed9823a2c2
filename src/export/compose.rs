//! Compose: a service for each app (or for apps that stay together).

use std::collections::BTreeSet;

use super::nginx;
use super::service::{self, Memory, Service, USER, is_variable};
use super::yaml::{Map, remark};
use super::{CPUS, Source};
use crate::config::Listen;

/// The folder of the socket, in memory.
const HOME: &str = "/run/clusterd";

pub(super) fn text(source: &Source<'_>) -> String {
    let services = service::services(source);
    let mut text = remark(&head(source)).join("\n");
    text.push('\n');
    let mut published = BTreeSet::new();
    let all = services
        .iter()
        .fold(Map::new(), |all, service| all.with(&service.name, one(source, service, &mut published)));
    text += &Map::new().with("services", all).document();
    if let Some(snippet) = proxy(&services) {
        text += &remark(&snippet).join("\n");
        text.push('\n');
    }
    text
}

fn head(source: &Source<'_>) -> String {
    let image = match source.image {
        Some(_) => "",
        None => "`image` is to be put in (--image, or by hand), or `build: .` in its place.\n",
    };
    format!(
        "Made by `{}`. It is yours to edit.\n\
         One service for each app; apps that depend on each other share one, within which clusterd starts them in their \
         order. So there is no depends_on here; for other services of yours the condition service_healthy holds.\n\
         The ecosystem file is a part of the image, and holds in the container as it is. What it says in `env` wins over \
         the container's variables.\n\
         This is for `docker compose`; a Swarm ignores restart, tmpfs, cap_drop and security_opt.\n{image}{}",
        source.command("compose"),
        service::dockerfile(source)
    )
}

/// A dollar begins a variable in every value of a Compose file.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn one(source: &Source<'_>, service: &Service<'_>, published: &mut BTreeSet<u16>) -> Map {
    let (stop, why) = service.stop_time(source);
    let image = source.image.map_or_else(|| format!("{}:latest", source.name), literal);
    let words: Vec<String> = service.words(source).iter().map(|word| literal(word)).collect();
    let mut map = Map::new();
    if service.names() != service.name {
        map = map.note(format!("Apps: {}", service.names()));
    }
    for text in service.remarks(true) {
        map = map.note(text);
    }
    let (ports, elsewhere) = ports(service, published);
    map = map
        .with("image", image)
        .with("entrypoint", vec!["clusterd"])
        .with("command", words)
        .note_some(elsewhere)
        .with_some("ports", ports)
        .note_some(secrets_remark(service))
        .with("environment", environment(service))
        .note("The whole shutdown is clusterd's: workers end within it, by their own signals.")
        .with("stop_signal", "SIGTERM")
        .note(why)
        .with("stop_grace_period", format!("{stop}s"))
        .with("healthcheck", health(service))
        .note("Not when it was stopped by hand, as PM2's apps are not.")
        .with("restart", "unless-stopped")
        .with("read_only", true)
        .with("tmpfs", tmpfs(service));
    resources(secured(map, service), service)
}

/// Its home, scratch space, and a folder for each Unix socket.
fn tmpfs(service: &Service<'_>) -> Vec<String> {
    let who = if service.needs_root() { String::new() } else { format!(",uid={USER},gid={USER}") };
    let sockets = service.socket_folders().into_iter().filter(|folder| *folder != HOME);
    std::iter::once(format!("{HOME}:mode=0700{who}"))
        .chain(std::iter::once("/tmp".to_owned()))
        .chain(sockets.map(|folder| format!("{folder}:mode=0755{who}")))
        .collect()
}

/// What is published, and what another service has published already: a port of the host is only one's.
fn ports(service: &Service<'_>, published: &mut BTreeSet<u16>) -> (Option<Vec<String>>, Option<String>) {
    let numbers = service.ports().into_iter().map(|port| port.number);
    let (ours, others): (Vec<u16>, Vec<u16>) = numbers.partition(|number| published.insert(*number));
    let all = |numbers: &[u16]| numbers.iter().map(|number| format!("{number}:{number}")).collect::<Vec<_>>();
    let elsewhere = (!others.is_empty()).then(|| {
        format!(
            "Another service has the host's port already; choose another one for {}",
            all(&others).join(", ")
        )
    });
    ((!ours.is_empty()).then(|| all(&ours)), elsewhere)
}

/// Without a value a variable is the caller's own.
fn environment(service: &Service<'_>) -> Vec<String> {
    let own = format!("CLUSTERD_HOME={HOME}");
    std::iter::once(own)
        .chain(service.secrets().into_iter().filter(|name| is_variable(name)).map(literal))
        .collect()
}

fn secrets_remark(service: &Service<'_>) -> Option<String> {
    let secrets = service.secrets();
    (!secrets.is_empty()).then(|| {
        format!(
            "The file has values that look like secrets ({}). They are not written here, and an image should not have \
             them either: take them out of the file, which wins over what stands here. Without a value a variable is \
             taken from the environment of `docker compose`.",
            secrets.join(", ")
        )
    })
}

fn health(service: &Service<'_>) -> Map {
    Map::new()
        .with("test", vec!["CMD", "clusterd", "ping", "--ready"])
        .with("interval", "5s")
        .with("timeout", "5s")
        .with("retries", 3)
        .note("listen_timeout of the file is how long a start may take.")
        .with("start_period", format!("{}s", service.start_time()))
}

fn secured(map: Map, service: &Service<'_>) -> Map {
    let map = match service.root_remark() {
        Some(why) => map
            .note(why)
            .with("user", "0:0")
            .with("cap_drop", vec!["ALL"])
            .with("cap_add", service.capabilities()),
        None => map.with("user", format!("{USER}:{USER}")).with("cap_drop", vec!["ALL"]),
    };
    let low = service.has_low_port().then(|| Map::new().with("net.ipv4.ip_unprivileged_port_start", "0"));
    map.with("security_opt", vec!["no-new-privileges:true"]).with_some("sysctls", low)
}

/// A limit of CPUs stands only where the file follows it: an engine starts no container with more of them than its host
/// has, and several workers share a few well.
fn resources(map: Map, service: &Service<'_>) -> Map {
    let workers = service.workers();
    let (cpus, why) = if service.follows_cpus() {
        let why = "To be measured. `instances` of the file follows the CPUs, in whole ones; no more than the host has.";
        (Some(format!("{CPUS}.0")), why)
    } else {
        (
            None,
            "deploy.resources.limits.cpus: no bound. At most one for each worker is used, and none may be more than \
                the host has.",
        )
    };
    let (memory, because) = match service.memory() {
        Memory::Known { most, .. } => (
            Some(format!("{most}M")),
            "max_memory_restart of each worker, and of one more (max_surge) of each app, for a replacement is up before \
             the old worker leaves."
                .to_owned(),
        ),
        Memory::Share(thousandths) => (
            Some(format!("{}M", 512 * workers)),
            format!(
                "The workers get {}.{}% of it (max_memory_restart): choose it.",
                thousandths / 10,
                thousandths % 10
            ),
        ),
        Memory::Unknown => (
            None,
            "memory: no bound, for an app has no max_memory_restart. With it workers are replaced, one by one, before the \
             kernel kills at the container's limit."
                .to_owned(),
        ),
    };
    if cpus.is_none() && memory.is_none() {
        return map.note(why).note(because);
    }
    let limits = Map::new().note(why).with_some("cpus", cpus).note(because).with_some("memory", memory);
    map.with("deploy", Map::new().with("resources", Map::new().with("limits", limits)))
}

fn proxy(services: &[Service<'_>]) -> Option<String> {
    let found = |service: &Service<'_>, listen: &Listen| {
        service::reached(&listen.address).map(|port| format!("{}:{port}", service.name))
    };
    let upstreams = nginx::upstreams(services, found);
    let snippet = nginx::snippet(&upstreams, services)?;
    let several = services.iter().find(|service| !service.is_alone() && !service.ports().is_empty());
    let scale = several.map_or_else(String::new, |service| {
        format!(" For several containers of a service say `docker compose up --scale {}=3`.", service.name)
    });
    Some(format!(
        "\nWith nginx in front, in a container of its own, publish no port of what is behind it (only one container can \
         have it).{scale} nginx finds the containers by the service's name when it starts or reloads:\n{snippet}"
    ))
}
