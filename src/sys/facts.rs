//! What is known about this host, and about one process on it, in the kernel's own words: for people who look for
//! the cause of something. What cannot be read is left out.

use std::path::Path;

use nix::sys::utsname::uname;

use super::{cgroup, cpus, memory};

/// One line of it: what it is, and how it is.
pub type Fact = (&'static str, String);

/// Limits and rights of the kernel that change what a supervisor can do.
const KNOBS: &[(&str, &str)] = &[
    ("yama ptrace_scope", "proc/sys/kernel/yama/ptrace_scope"),
    ("security modules", "sys/kernel/security/lsm"),
    ("pid_max", "proc/sys/kernel/pid_max"),
    ("threads-max", "proc/sys/kernel/threads-max"),
    ("file-max", "proc/sys/fs/file-max"),
    ("nr_open", "proc/sys/fs/nr_open"),
    ("pipe-user-pages-soft", "proc/sys/fs/pipe-user-pages-soft"),
    ("inotify max_user_watches", "proc/sys/fs/inotify/max_user_watches"),
    ("inotify max_user_instances", "proc/sys/fs/inotify/max_user_instances"),
    ("somaxconn", "proc/sys/net/core/somaxconn"),
    ("ip_local_port_range", "proc/sys/net/ipv4/ip_local_port_range"),
    ("ip_unprivileged_port_start", "proc/sys/net/ipv4/ip_unprivileged_port_start"),
    ("bindv6only", "proc/sys/net/ipv6/bindv6only"),
];

/// Of a process's status file.
const STATUS: &[(&str, &str)] = &[
    ("user ids", "Uid:"),
    ("capabilities", "CapEff:"),
    ("capability bounds", "CapBnd:"),
    ("no_new_privs", "NoNewPrivs:"),
    ("seccomp", "Seccomp:"),
    ("seccomp filters", "Seccomp_filters:"),
];

/// The host. `root` is `/` but for tests.
pub fn of_host(root: &Path) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Ok(name) = uname() {
        let part = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        facts.push(("kernel", format!("{} {}", part(name.sysname()), part(name.release()))));
        facts.push(("machine", part(name.machine())));
    }
    let release = cgroup::read(&root.join("etc/os-release")).unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    facts.extend(pretty.map(|name| ("system", name.trim_matches('"').to_owned())));
    facts.push(("container", container(root).to_owned()));
    facts.extend(cgroup::read(&root.join("proc/1/comm")).map(|name| ("process 1", name.trim().to_owned())));
    facts.push(("CPUs", cpus::available_parallelism().to_string()));
    facts.extend(memory::total(root).map(|bytes| ("memory in bytes", bytes.to_string())));
    for (name, path) in KNOBS {
        let value = cgroup::read(&root.join(path));
        facts.extend(value.map(|value| (*name, value.split_whitespace().collect::<Vec<_>>().join(" "))));
    }
    facts
}

/// The kind of container that this is, by what each kind leaves in it.
fn container(root: &Path) -> &'static str {
    let there = |path: &str| root.join(path).exists();
    if there("var/run/secrets/kubernetes.io") {
        "Kubernetes"
    } else if there(".dockerenv") {
        "Docker"
    } else if there("run/.containerenv") {
        "Podman"
    } else if there("run/systemd/container") {
        "one of systemd's kind"
    } else {
        "none seen"
    }
}

/// One process: its limits, its rights, its control groups.
pub fn of_process(root: &Path, pid: i32) -> Vec<Fact> {
    let folder = root.join("proc").join(pid.to_string());
    let mut facts = Vec::new();
    let status = cgroup::read(&folder.join("status")).unwrap_or_default();
    for (name, key) in STATUS {
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        facts.extend(value.map(|value| (*name, value.split_whitespace().collect::<Vec<_>>().join(" "))));
    }
    let limits = cgroup::read(&folder.join("limits")).unwrap_or_default();
    for (name, key) in [("open files", "Max open files"), ("processes", "Max processes")] {
        let value = limits.lines().find_map(|line| line.strip_prefix(key));
        let words = value.map(|value| value.split_whitespace().take(2).collect::<Vec<_>>().join(" to "));
        facts.extend(words.map(|words| (name, words)));
    }
    facts.extend(cgroup::read(&folder.join("attr/current")).and_then(|label| {
        let label = label.trim_matches(['\0', '\n']).to_owned();
        (!label.is_empty()).then_some(("security label", label))
    }));
    let groups = cgroup::read(&folder.join("cgroup")).unwrap_or_default();
    facts.push(("control groups", groups.lines().collect::<Vec<_>>().join(", ")));
    facts
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_there_is_told_and_what_is_not_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("etc/os-release", "NAME=x\nPRETTY_NAME=\"Some Linux 1\"\n");
        put(".dockerenv", "");
        put("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
        put("proc/7/status", "Name:\tx\nUid:\t0\t0\t0\t0\nSeccomp:\t2\n");
        put(
            "proc/7/limits",
            "Limit Soft Hard Units\nMax open files            1024                 4096    files\n",
        );
        put("proc/7/cgroup", "0::/a\n");
        let told = |facts: &[Fact], name: &str| {
            facts.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
        };
        let host = of_host(root.path());
        assert_eq!(told(&host, "system").as_deref(), Some("Some Linux 1"));
        assert_eq!(told(&host, "container").as_deref(), Some("Docker"));
        assert_eq!(told(&host, "ip_local_port_range").as_deref(), Some("32768 60999"));
        assert_eq!(told(&host, "yama ptrace_scope"), None);
        let process = of_process(root.path(), 7);
        assert_eq!(told(&process, "user ids").as_deref(), Some("0 0 0 0"));
        assert_eq!(told(&process, "seccomp").as_deref(), Some("2"));
        assert_eq!(told(&process, "open files").as_deref(), Some("1024 to 4096"));
        assert_eq!(told(&process, "control groups").as_deref(), Some("0::/a"));
    }
}
