//! Compose: a service for each app (or for apps that stay together).

use super::nginx::{self, Upstream};
use super::service::{self, Memory, Service, USER, is_variable};
use super::yaml::{Map, remark};
use super::{CPUS, Source};

/// The folder of the socket, in memory.
const HOME: &str = "/run/clusterd";

pub(super) fn text(source: &Source<'_>) -> String {
    let services = service::services(source);
    let mut text = remark(&head(source)).join("\n");
    text.push('\n');
    let all = services.iter().fold(Map::new(), |all, service| all.with(&service.name, one(source, service)));
    text += &Map::new().with("services", all).document();
    if let Some(snippet) = proxy(&services) {
        text += &remark(&snippet).join("\n");
        text.push('\n');
    }
    text
}

fn head(source: &Source<'_>) -> String {
    format!(
        "Made by `{}`. It is yours to edit.\n\
         One service for each app; apps that depend on each other share one, within which clusterd starts them in their \
         order. So there is no depends_on here; for other services of yours the condition service_healthy holds.\n\
         The ecosystem file is a part of the image, and holds in the container as it is. What it says in `env` wins over \
         the container's variables.\n\
         This is for `docker compose`; a Swarm ignores restart, tmpfs, cap_drop and security_opt.\n{}",
        source.command("compose"),
        service::dockerfile(source)
    )
}

/// A dollar begins a variable in every value of a Compose file.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn one(source: &Source<'_>, service: &Service<'_>) -> Map {
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
    let tmpfs = match service.needs_root() {
        true => format!("{HOME}:mode=0700"),
        false => format!("{HOME}:mode=0700,uid={USER},gid={USER}"),
    };
    map = map
        .with("image", image)
        .note("build: .")
        .with("entrypoint", vec!["clusterd"])
        .with("command", words)
        .with_some("ports", ports(service))
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
        .with("tmpfs", vec![tmpfs, "/tmp".to_owned()]);
    secured(map, service).with("deploy", Map::new().with("resources", resources(service)))
}

fn ports(service: &Service<'_>) -> Option<Vec<String>> {
    let ports: Vec<String> =
        service.ports().into_iter().map(|port| format!("{0}:{0}", port.number)).collect();
    (!ports.is_empty()).then_some(ports)
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
    let map = match service.needs_root() {
        true => map
            .note("`user` in the file takes root, which changes to that user.")
            .with("user", "0:0")
            .with("cap_drop", vec!["ALL"])
            .with("cap_add", vec!["SETUID", "SETGID", "KILL"]),
        false => map.with("user", format!("{USER}:{USER}")).with("cap_drop", vec!["ALL"]),
    };
    let low = service.has_low_port().then(|| Map::new().with("net.ipv4.ip_unprivileged_port_start", "0"));
    map.with("security_opt", vec!["no-new-privileges:true"]).with_some("sysctls", low)
}

fn resources(service: &Service<'_>) -> Map {
    let workers = service.workers();
    let cpus = if service.follows_cpus() {
        "To be measured. `instances` of the file follows the CPUs, in whole ones."
    } else {
        "To be measured. A CPU for each worker at most."
    };
    let most = if service.follows_cpus() { u64::from(CPUS) } else { workers };
    let limits = Map::new().note(cpus).with("cpus", format!("{most}.0"));
    let limits = match service.memory() {
        Memory::Known { most, .. } => limits
            .note("max_memory_restart of each worker, and of one more (max_surge) of each app, for a replacement is up \
                   before the old worker leaves.")
            .with("memory", format!("{most}M")),
        Memory::Share(thousandths) => limits
            .note(format!(
                "The workers get {}.{}% of it (max_memory_restart): choose it.",
                thousandths / 10,
                thousandths % 10
            ))
            .with("memory", format!("{}M", 512 * workers)),
        Memory::Unknown => limits.note(
            "memory: no bound, for an app has no max_memory_restart. With it workers are replaced, one by one, before the \
             kernel kills at the container's limit.",
        ),
    };
    Map::new().with("limits", limits)
}

fn proxy(services: &[Service<'_>]) -> Option<String> {
    let upstreams: Vec<Upstream> = services
        .iter()
        .filter_map(|service| {
            let port = service.ports().into_iter().next()?;
            let server = format!("{}:{}", service.name, port.number);
            Some(Upstream {
                name: service.name.clone(),
                servers: vec![server],
                is_sticky: service.is_sticky(),
            })
        })
        .collect();
    let snippet = nginx::snippet(&upstreams)?;
    Some(format!(
        "\nFor several containers of a service, publish no port of it (only one can have it), put nginx in front, in a \
         container of its own, and say `docker compose up --scale {}=3`. nginx finds the containers by the service's \
         name when it starts or reloads:\n{snippet}",
        upstreams.first().map_or("api", |upstream| &upstream.name)
    ))
}
