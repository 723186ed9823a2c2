//! What `list` knows and what was counted since the supervisor's start, in Prometheus' text form (version 0.0.4).
//! Seconds, bytes and ratios, as its conventions want them.
//!
//! A slot's worker that is on its way out beside its successor has no series of its own: two with the same labels
//! would have the whole page refused. Such workers are counted together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::control::protocol::{AppInfo, List, WorkerInfo};

/// What the page is served as.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What was counted of an app since it became known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes that ended, by the words of `last_exit.reason`.
    pub exits: BTreeMap<&'static str, u64>,
    /// Reloads, by how they ended.
    pub reloads: BTreeMap<&'static str, u64>,
    /// Lines over `log_rate_limit`.
    pub left_out: u64,
    /// Lines that journald did not take.
    pub journal_dropped: u64,
}

/// Names of apps with their namespaces.
pub type AllCounts = BTreeMap<(String, String), Counts>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Gauge,
    Counter,
}

/// The page.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, of: Type, help: &str) {
        let of = match of {
            Type::Gauge => "gauge",
            Type::Counter => "counter",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {of}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.line(format_args!("{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, Escaped(text)));
        }
        self.line(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        // A String takes everything.
        let _ = self.0.write_fmt(arguments);
    }
}

/// A label's value: backslash, quote and newline are escaped.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

/// Writes the page.
pub fn render(list: &List, counts: &AllCounts) -> String {
    let mut page = Page(String::new());
    page.family("clusterd_build_info", Type::Gauge, "Always 1; the version is a label.");
    page.sample("clusterd_build_info", &[("version", &list.daemon.version)], 1);
    page.family("clusterd_uptime_seconds", Type::Gauge, "Since the supervisor's start.");
    page.sample("clusterd_uptime_seconds", &[], seconds(list.daemon.uptime_ms));
    apps(&mut page, &list.apps);
    counted(&mut page, &list.apps, counts);
    workers(&mut page, &list.apps);
    page.0
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Its newest worker of each slot.
fn newest(app: &AppInfo) -> impl Iterator<Item = &WorkerInfo> {
    let mut seen = BTreeSet::new();
    app.workers.iter().filter(move |worker| seen.insert(worker.id))
}

/// What is told of an app.
type OfApp = (&'static str, &'static str, fn(&AppInfo) -> f64);

const APP: &[OfApp] = &[
    ("clusterd_app_instances", "Workers wanted.", |app| f64::from(app.instances)),
    ("clusterd_app_ready_workers", "Workers that are ready and not leaving.", |app| {
        app.workers.iter().filter(|worker| worker.ready).count() as f64
    }),
    ("clusterd_app_leaving_workers", "Workers that drain, or were told to stop.", |app| {
        app.workers.iter().filter(|worker| worker.status == "stopping").count() as f64
    }),
    ("clusterd_app_online", "1 while every wanted worker is ready.", |app| {
        f64::from(u8::from(app.status == "online"))
    }),
    ("clusterd_app_stopped", "1 while it is stopped on purpose.", |app| {
        f64::from(u8::from(app.status == "stopped"))
    }),
    ("clusterd_app_generation", "The version of its definition that is wanted.", |app| {
        f64::from(app.generation)
    }),
    ("clusterd_app_reloading", "1 while a reload is under way or held.", |app| {
        f64::from(u8::from(app.reload.as_ref().is_some_and(|reload| reload.state != "failed")))
    }),
    ("clusterd_app_unserved_connections", "Clients that wait at addresses where no worker serves.", |app| {
        app.unserved.iter().map(|unserved| f64::from(unserved.waiting)).sum()
    }),
];

fn apps(page: &mut Page, apps: &[AppInfo]) {
    for (name, help, value) in APP {
        page.family(name, Type::Gauge, help);
        for app in apps {
            page.sample(name, &[("app", &app.name), ("namespace", &app.namespace)], value(app));
        }
    }
}

fn counted(page: &mut Page, apps: &[AppInfo], counts: &AllCounts) {
    let of =
        |app: &AppInfo| counts.get(&(app.namespace.clone(), app.name.clone())).cloned().unwrap_or_default();
    let all: Vec<(&AppInfo, Counts)> = apps.iter().map(|app| (app, of(app))).collect();
    let mut by_word = |name, label, help, words: fn(&Counts) -> &BTreeMap<&'static str, u64>| {
        page.family(name, Type::Counter, help);
        for (app, counts) in &all {
            for (word, count) in words(counts) {
                page.sample(name, &[("app", &app.name), ("namespace", &app.namespace), (label, word)], count);
            }
        }
    };
    by_word("clusterd_app_exits_total", "reason", "Workers that ended, by why.", |counts| &counts.exits);
    by_word("clusterd_app_reloads_total", "result", "Reloads, by how they ended.", |counts| &counts.reloads);
    let mut plain = |name, help, value: fn(&Counts) -> u64| {
        page.family(name, Type::Counter, help);
        for (app, counts) in &all {
            page.sample(name, &[("app", &app.name), ("namespace", &app.namespace)], value(counts));
        }
    };
    plain("clusterd_app_log_lines_left_out_total", "Lines over log_rate_limit.", |counts| counts.left_out);
    plain("clusterd_app_journal_lines_dropped_total", "Lines that journald did not take.", |counts| {
        counts.journal_dropped
    });
}

/// What is told of a worker, where it is known.
type OfWorker = (&'static str, Type, &'static str, fn(&WorkerInfo) -> Option<f64>);

const WORKER: &[OfWorker] = &[
    ("clusterd_worker_ready", Type::Gauge, "1 while it is ready and not leaving.", |worker| {
        Some(f64::from(u8::from(worker.ready)))
    }),
    ("clusterd_worker_uptime_seconds", Type::Gauge, "Since its start.", |worker| {
        worker.pid.map(|_| seconds(worker.uptime_ms))
    }),
    ("clusterd_worker_generation", Type::Gauge, "Which version it runs.", |worker| {
        Some(f64::from(worker.generation))
    }),
    ("clusterd_worker_restarts_total", Type::Counter, "Replacements of every kind in its place.", |worker| {
        Some(f64::from(worker.restarts))
    }),
    ("clusterd_worker_cpu_ratio", Type::Gauge, "Of one CPU, over its whole tree.", |worker| {
        worker.cpu_percent.map(|percent| percent / 100.0)
    }),
    ("clusterd_worker_memory_bytes", Type::Gauge, "RSS of its whole tree.", |worker| {
        worker.memory_bytes.map(|bytes| bytes as f64)
    }),
    ("clusterd_worker_connections", Type::Gauge, "Open connections.", |worker| {
        worker.connections.map(f64::from)
    }),
    ("clusterd_worker_accept_queue_depth", Type::Gauge, "Connections that wait to be accepted.", |worker| {
        worker.queue_depth.map(f64::from)
    }),
    ("clusterd_worker_accept_queue_limit", Type::Gauge, "What its accept queues can hold.", |worker| {
        worker.queue_limit.map(f64::from)
    }),
    (
        "clusterd_worker_accept_queue_dropped_total",
        Type::Counter,
        "Attempts to connect that the kernel dropped because one was full.",
        |worker| worker.queue_dropped.map(f64::from),
    ),
];

fn workers(page: &mut Page, apps: &[AppInfo]) {
    for (name, of, help, value) in WORKER {
        page.family(name, *of, help);
        for app in apps {
            for worker in newest(app) {
                let Some(value) = value(worker) else { continue };
                let instance = worker.instance.to_string();
                let labels = [("app", &*app.name), ("namespace", &*app.namespace), ("instance", &*instance)];
                page.sample(name, &labels, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::DaemonInfo;

    fn worker(instance: u32, ready: bool, connections: Option<u32>) -> WorkerInfo {
        serde_json::from_value(serde_json::json!({
            "id": instance + 10, "instance": instance, "pid": 100 + instance,
            "status": if ready { "online" } else { "stopping" },
            "ready": ready, "generation": 2, "uptime_ms": 1500, "restarts": 3, "unstable_restarts": 0,
            "cpu_percent": 12.5, "memory_bytes": 4096, "connections": connections, "last_exit": null,
        }))
        .expect("the shape of the protocol")
    }

    fn list(name: &str, workers: Vec<WorkerInfo>) -> List {
        let app = serde_json::from_value(serde_json::json!({
            "name": name, "namespace": "default", "mode": "cluster", "status": "online", "generation": 2,
            "instances": 2, "listen": [], "reload": null, "workers": workers,
        }))
        .expect("the shape of the protocol");
        let daemon = DaemonInfo {
            pid: 1,
            version: "1.2.3".into(),
            uptime_ms: 2500,
            home: "/h".into(),
            control_groups: String::new(),
        };
        List { version: 1, daemon, apps: vec![app] }
    }

    #[test]
    fn figures_are_in_seconds_bytes_and_ratios_and_what_is_not_known_is_left_out() {
        let text =
            render(&list("api", vec![worker(0, true, Some(7)), worker(1, true, None)]), &AllCounts::new());
        for line in [
            "clusterd_build_info{version=\"1.2.3\"} 1",
            "clusterd_uptime_seconds 2.5",
            "clusterd_app_ready_workers{app=\"api\",namespace=\"default\"} 2",
            "clusterd_worker_cpu_ratio{app=\"api\",namespace=\"default\",instance=\"0\"} 0.125",
            "clusterd_worker_memory_bytes{app=\"api\",namespace=\"default\",instance=\"1\"} 4096",
            "clusterd_worker_uptime_seconds{app=\"api\",namespace=\"default\",instance=\"0\"} 1.5",
            "clusterd_worker_connections{app=\"api\",namespace=\"default\",instance=\"0\"} 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let unknown = "clusterd_worker_connections{app=\"api\",namespace=\"default\",instance=\"1\"}";
        assert!(!text.contains(unknown), "{text}");
    }

    #[test]
    fn no_series_is_there_twice_beside_a_worker_that_leaves() {
        let workers = vec![worker(0, true, None), worker(0, false, Some(1)), worker(1, true, None)];
        let text = render(&list("api", workers), &AllCounts::new());
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').expect("a value");
            assert!(seen.insert(series), "{series}");
        }
        assert!(text.contains("clusterd_app_leaving_workers{app=\"api\",namespace=\"default\"} 1"), "{text}");
    }

    #[test]
    fn each_family_is_told_once_and_nothing_breaks_out_of_a_label() {
        let mut counts = AllCounts::new();
        let exits = BTreeMap::from([("crash", 2), ("memory", 1)]);
        let name = "a\"b\\c\nd";
        let counted = Counts { exits, left_out: 5, ..Counts::default() };
        counts.insert(("default".into(), name.into()), counted);
        let text = render(&list(name, vec![worker(0, true, None)]), &counts);
        let exits =
            "clusterd_app_exits_total{app=\"a\\\"b\\\\c\\nd\",namespace=\"default\",reason=\"crash\"} 2";
        assert!(text.lines().any(|line| line == exits), "{text}");
        assert!(text.contains("left_out_total{app=\"a\\\"b\\\\c\\nd\",namespace=\"default\"} 5"), "{text}");
        let families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(families.iter().collect::<BTreeSet<_>>().len(), families.len());
    }
}
