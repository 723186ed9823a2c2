//! Kubernetes: a Deployment for each app (or for apps that stay together), and what belongs to it.

use super::service::{self, Memory, Service, USER, is_variable};
use super::yaml::{Map, Node, remark};
use super::{CPUS, Source};

/// Until every proxy of the cluster knows that a pod is about to leave, in seconds.
const CONVERGE: u64 = 5;

/// In thousandths of a CPU: what a worker is taken to need as a rule, and what an app that serves nobody does.
const BUSY: u64 = 500;
const IDLE: u64 = 100;

/// Where the socket is by which probes ask.
const HOME: &str = "/run/clusterd/home";

/// The same for root, who refuses a home below a folder that everybody can change, as emptyDir is. This one is sticky.
const ROOTS_HOME: &str = "/dev/shm/clusterd";

pub(super) fn text(source: &Source<'_>) -> String {
    let services = service::services(source);
    let mut text = remark(&head(source)).join("\n");
    text.push('\n');
    for service in &services {
        text += "---\n";
        text += &deployment(source, service).document();
        if !service.ports().is_empty() {
            text += "---\n";
            text += &balancer(source, service).document();
        }
        if service.is_alone() {
            let why = format!(
                "No HorizontalPodAutoscaler and no PodDisruptionBudget of {}: one process at a time is what fork mode \
                 means, and a budget for one would let no node be drained.",
                service.name
            );
            text += &remark(&why).join("\n");
            text.push('\n');
            continue;
        }
        if service.ports().is_empty() {
            let why = format!(
                "No HorizontalPodAutoscaler of {}: how much work waits for an app that serves no port is known where \
                 that work is kept (KEDA reads queues).",
                service.name
            );
            text += &remark(&why).join("\n");
            text.push('\n');
            continue;
        }
        text += "---\n";
        text += &scaler(source, service).document();
        text += "---\n";
        text += &budget(source, service).document();
    }
    text
}

fn head(source: &Source<'_>) -> String {
    let image = match source.image {
        Some(_) => String::new(),
        None => "`image` is to be put in: --image, or by hand.\n".to_owned(),
    };
    format!(
        "Made by `{}`. It is yours to edit. Names are those of apps: one namespace for each file.\n\
         One Deployment for each app, so that each scales by itself; apps that depend on each other share one. Within \
         a pod clusterd keeps the workers of that app alive; Kubernetes keeps the pods.\n\
         The ecosystem file is a part of the image, and holds in the pod as it is: workers, limits, `env`. What it says \
         in `env` wins over the pod's variables. A new image is rolled out by Kubernetes, pod by pod; `clusterd reload` \
         is for a machine that stays.\n{image}{}",
        source.command("kubernetes"),
        service::dockerfile(source)
    )
}

fn named(source: &Source<'_>, service: &Service<'_>) -> Map {
    Map::new().with("name", service.name.as_str()).with("labels", labels(source, service))
}

/// With the file's own name: another file may have an app of the same name.
fn labels(source: &Source<'_>, service: &Service<'_>) -> Map {
    Map::new()
        .with("app.kubernetes.io/name", service.name.as_str())
        .with("app.kubernetes.io/part-of", source.name)
}

/// Volumes and where they are mounted: its home, scratch space, and a folder for each Unix socket.
fn volumes(service: &Service<'_>) -> (Vec<Map>, Vec<Map>) {
    let in_memory = || Map::new().with("medium", "Memory");
    let mut volumes =
        vec![("run".to_owned(), "/run/clusterd", in_memory()), ("tmp".to_owned(), "/tmp", Map::new())];
    let folders = service.socket_folders().into_iter().filter(|folder| *folder != "/run/clusterd");
    volumes.extend(folders.zip(1u32..).map(|(folder, at)| (format!("sockets-{at}"), folder, in_memory())));
    let volume = |(name, folder, about): (String, &str, Map)| {
        let mount = Map::new().with("name", name.as_str()).with("mountPath", folder);
        (Map::new().with("name", name).with("emptyDir", about), mount)
    };
    volumes.into_iter().map(volume).unzip()
}

fn deployment(source: &Source<'_>, service: &Service<'_>) -> Map {
    let (stop, why) = service.stop_time(source);
    let pod = Map::new()
        .note(format!("{CONVERGE}s of preStop, {why}"))
        .with("terminationGracePeriodSeconds", CONVERGE + stop)
        .with("automountServiceAccountToken", false)
        .with("securityContext", pod_security(service))
        .with("containers", vec![container(source, service)])
        .with("volumes", volumes(service).0);
    let template =
        Map::new().with("metadata", Map::new().with("labels", labels(source, service))).with("spec", pod);
    let mut about = Map::new();
    if service.names() != service.name {
        about = about.note(format!("Apps: {}", service.names()));
    }
    for text in service.remarks(true) {
        about = about.note(text);
    }
    let spec = if service.is_alone() {
        Map::new()
            .note("Fork mode is one process at a time: the old pod is gone before the new one starts.")
            .with("replicas", 1)
            .with("strategy", Map::new().with("type", "Recreate"))
    } else {
        let surge = Map::new().with("maxSurge", 1).with("maxUnavailable", 0);
        let replicas = match service.ports().is_empty() {
            true => Map::new().with("replicas", 1),
            false => Map::new().note("`replicas` is the HorizontalPodAutoscaler's."),
        };
        replicas.with("strategy", Map::new().with("type", "RollingUpdate").with("rollingUpdate", surge))
    };
    about
        .with("apiVersion", "apps/v1")
        .with("kind", "Deployment")
        .with("metadata", named(source, service))
        .with(
            "spec",
            spec.with("selector", Map::new().with("matchLabels", labels(source, service)))
                .with("template", template),
        )
}

fn pod_security(service: &Service<'_>) -> Map {
    let low = service
        .has_low_port()
        .then(|| vec![Map::new().with("name", "net.ipv4.ip_unprivileged_port_start").with("value", "0")]);
    let who = if let Some(why) = service.root_remark() {
        Map::new().note(why).with("runAsUser", 0)
    } else {
        Map::new()
            .with("runAsNonRoot", true)
            .with("runAsUser", USER)
            .with("runAsGroup", USER)
            .with("fsGroup", USER)
    };
    who.with("seccompProfile", Map::new().with("type", "RuntimeDefault")).with_some("sysctls", low)
}

fn container(source: &Source<'_>, service: &Service<'_>) -> Map {
    let ports: Vec<Map> = exposed(source, service)
        .into_iter()
        .map(|(name, number)| Map::new().with("name", name).with("containerPort", u64::from(number)))
        .collect();
    let secrets = service.secrets();
    let home = if service.needs_root() { ROOTS_HOME } else { HOME };
    let variables = vec![Map::new().with("name", "CLUSTERD_HOME").with("value", home)];
    let image = source.image.map_or_else(|| format!("{}:latest", source.name), str::to_owned);
    let container = Map::new()
        .with("name", service.name.as_str())
        .with("image", image)
        .with("command", vec!["clusterd"])
        .with("args", service.words(source))
        .with_some("ports", (!ports.is_empty()).then_some(ports))
        .note_some(secrets_remark(service, &secrets))
        .with(
            "env",
            variables
                .into_iter()
                .chain(secrets.iter().filter(|name| is_variable(name)).map(|name| secret(service, name)))
                .collect::<Vec<_>>(),
        );
    probed(container, source, service)
        .note("Kubernetes sends requests until all know that the pod leaves: it serves on for as long. From 1.30 on \
               (1.29 behind a gate); before that an image with a shell has `exec: {command: [sleep, \"5\"]}`.")
        .with("lifecycle", Map::new().with("preStop", Map::new().with("sleep", Map::new().with("seconds", CONVERGE))))
        .with("resources", resources(service))
        .note("Servers that open their port themselves share it within all of this. With the capability SYS_PTRACE each \
             connection is drained by itself (README, containers).")
        .with("securityContext", container_security(service))
        .with("volumeMounts", volumes(service).1)
}

/// Names and numbers of ports, that of `[daemon] http` included.
fn exposed(source: &Source<'_>, service: &Service<'_>) -> Vec<(String, u16)> {
    let mut ports: Vec<(String, u16)> =
        service.ports().into_iter().map(|port| (port.name, port.number)).collect();
    if let Some(number) = service::http_port(source)
        && ports.iter().all(|(_, other)| *other != number)
    {
        let name = if ports.iter().any(|(name, _)| name == "metrics") { "clusterd-http" } else { "metrics" };
        ports.push((name.to_owned(), number));
    }
    ports
}

fn secrets_remark(service: &Service<'_>, secrets: &[&str]) -> Option<String> {
    if secrets.is_empty() {
        return None;
    }
    Some(format!(
        "The file has values that look like secrets ({}). They are not written here, and an image should not have them \
         either: take them out of the file, which wins over what stands here, and make the Secret {name}, without which the \
         pod starts all the same: kubectl create secret generic {name} --from-env-file=FILE",
        secrets.join(", "),
        name = secret_name(service)
    ))
}

fn secret_name(service: &Service<'_>) -> String {
    format!("{}-env", service.name)
}

fn secret(service: &Service<'_>, name: &str) -> Map {
    let from = Map::new().with("name", secret_name(service)).with("key", name).with("optional", true);
    Map::new().with("name", name).with("valueFrom", Map::new().with("secretKeyRef", from))
}

/// Startup, readiness and liveness: over HTTP where the file has clusterd answer there, else by a command.
fn probed(container: Map, source: &Source<'_>, service: &Service<'_>) -> Map {
    let ask = |path: &str, words: Vec<&str>| match service::http_port(source) {
        Some(port) => Map::new().with("httpGet", Map::new().with("path", path).with("port", u64::from(port))),
        None => Map::new().with("exec", Map::new().with("command", words)),
    };
    let ready = || ask("/readyz", vec!["clusterd", "ping", "--ready"]);
    let every = |probe: Map, period: u64, failures: u64| {
        probe.with("periodSeconds", period).with("timeoutSeconds", 5).with("failureThreshold", failures)
    };
    let starting = every(ready(), 2, service.start_time().div_ceil(2));
    let alive = every(ask("/livez", vec!["clusterd", "ping"]), 10, 3);
    container
        .note("listen_timeout of the file is how long a start may take.")
        .with("startupProbe", starting)
        .with("readinessProbe", every(ready(), 5, 2))
        .note("Of the supervisor alone: a worker that fails is its matter, and no reason to end the others.")
        .with("livenessProbe", alive)
}

fn resources(service: &Service<'_>) -> Map {
    let workers = service.workers();
    let each = if service.ports().is_empty() { IDLE } else { BUSY };
    let cpus = if service.follows_cpus() {
        "To be measured. `instances` of the file follows limits.cpu, in whole CPUs.".to_owned()
    } else {
        format!("To be measured. A CPU for each of the {workers} workers at most, {each}m each as a rule.")
    };
    let cpu = |millis: u64| format!("{millis}m");
    let most = if service.follows_cpus() { u64::from(CPUS) } else { workers } * 1000;
    let (request, limit) = (cpu((workers * each).min(most)), cpu(most));
    let mebi = |amount: u64| format!("{amount}Mi");
    let (note, usual, most) = match service.memory() {
        Memory::Known { usual, most } => (
            "Memory: max_memory_restart of each worker, and at the limit one more (max_surge) of each app, for a \
             replacement is up before the old worker leaves."
                .to_owned(),
            Some(mebi(usual)),
            Some(mebi(most)),
        ),
        Memory::Share(thousandths) => (
            format!(
                "Memory: the workers get {}.{}% of the limit (max_memory_restart): choose it.",
                thousandths / 10,
                thousandths % 10
            ),
            Some(mebi(256 * workers)),
            Some(mebi(512 * workers)),
        ),
        Memory::Unknown => (
            "Memory: no bound, for an app has no max_memory_restart. With it workers are replaced, one by one, before \
             the kernel kills at the pod's limit."
                .to_owned(),
            None,
            None,
        ),
    };
    Map::new()
        .note(cpus)
        .note(note)
        .with("requests", Map::new().with("cpu", request).with_some("memory", usual))
        .with("limits", Map::new().with("cpu", limit).with_some("memory", most))
}

fn container_security(service: &Service<'_>) -> Map {
    let kept = service.needs_root().then(|| service.capabilities());
    let capabilities = Map::new().with("drop", vec!["ALL"]).with_some("add", kept);
    Map::new()
        .with("allowPrivilegeEscalation", false)
        .with("readOnlyRootFilesystem", true)
        .with("capabilities", capabilities)
}

fn balancer(source: &Source<'_>, service: &Service<'_>) -> Map {
    let port = |port: service::Port| {
        Map::new()
            .with("name", port.name.as_str())
            .with("port", u64::from(port.number))
            .with("targetPort", port.name.as_str())
    };
    let ports: Vec<Map> = service.ports().into_iter().map(port).collect();
    let mut spec = Map::new().with("selector", labels(source, service)).with("ports", ports);
    if service.is_sticky() {
        spec = spec
            .note("balance = \"source-ip\": a client keeps its pod as it keeps its worker, as long as its own address \
                   arrives there.")
            .with("sessionAffinity", "ClientIP");
    }
    Map::new()
        .with("apiVersion", "v1")
        .with("kind", "Service")
        .with("metadata", named(source, service))
        .with("spec", spec)
}

fn target(service: &Service<'_>) -> Map {
    Map::new().with("apiVersion", "apps/v1").with("kind", "Deployment").with("name", service.name.as_str())
}

fn scaler(source: &Source<'_>, service: &Service<'_>) -> Map {
    let use_of = Map::new().with("type", "Utilization").with("averageUtilization", 70);
    let cpu = Map::new().with("name", "cpu").with("target", use_of);
    let metric = Map::new().with("type", "Resource").with("resource", cpu);
    let spec = Map::new()
        .with("scaleTargetRef", target(service))
        .with("minReplicas", 2)
        .with("maxReplicas", 10)
        .note("Of what is requested above.")
        .with("metrics", vec![metric]);
    Map::new()
        .with("apiVersion", "autoscaling/v2")
        .with("kind", "HorizontalPodAutoscaler")
        .with("metadata", named(source, service))
        .with("spec", spec)
}

fn budget(source: &Source<'_>, service: &Service<'_>) -> Map {
    let matching: Node = Map::new().with("matchLabels", labels(source, service)).into();
    let spec = Map::new().with("maxUnavailable", 1).with("selector", matching);
    Map::new()
        .with("apiVersion", "policy/v1")
        .with("kind", "PodDisruptionBudget")
        .with("metadata", named(source, service))
        .with("spec", spec)
}
