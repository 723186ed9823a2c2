//! `list --sort`: in which order apps, and the workers of each, are shown.

use std::cmp::Ordering;
use std::str::FromStr;

use crate::control::protocol::{AppInfo, List, WorkerInfo};

/// What `--sort` says: `memory`, `memory:desc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    by: By,
    descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Name,
    Namespace,
    Id,
    Pid,
    Memory,
    Cpu,
    Status,
    Uptime,
    Restarts,
}

const WORDS: [(&str, By); 9] = [
    ("name", By::Name),
    ("namespace", By::Namespace),
    ("id", By::Id),
    ("pid", By::Pid),
    ("memory", By::Memory),
    ("cpu", By::Cpu),
    ("status", By::Status),
    ("uptime", By::Uptime),
    ("restarts", By::Restarts),
];

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Sort, String> {
        let (word, direction) = text.split_once(':').unwrap_or((text, "asc"));
        let by = WORDS.iter().find(|(known, _)| *known == word).map(|(_, by)| *by);
        let descending = ["asc", "desc"].iter().position(|known| *known == direction);
        match (by, descending) {
            (Some(by), Some(descending)) => Ok(Sort { by, descending: descending == 1 }),
            (None, _) | (_, None) => {
                let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                Err(format!("expected one of {}, and :desc after it for the other way", words.join(", ")))
            }
        }
    }
}

impl Sort {
    /// Brings a list into this order. Whatever is equal stays in the order of the supervisor.
    pub(super) fn apply(self, list: &mut List) {
        let directed = |order: Ordering| if self.descending { order.reverse() } else { order };
        for app in &mut list.apps {
            app.workers.sort_by(|a, b| directed(self.by.of_workers(a, b)));
        }
        list.apps.sort_by(|a, b| directed(self.by.of_apps(a, b)));
    }
}

impl By {
    fn of_workers(self, a: &WorkerInfo, b: &WorkerInfo) -> Ordering {
        match self {
            By::Name | By::Namespace => Ordering::Equal,
            By::Id => a.id.cmp(&b.id),
            By::Pid => a.pid.cmp(&b.pid),
            By::Memory => a.memory_bytes.cmp(&b.memory_bytes),
            By::Cpu => cpu(a).total_cmp(&cpu(b)),
            By::Status => a.status.cmp(&b.status),
            By::Uptime => a.uptime_ms.cmp(&b.uptime_ms),
            By::Restarts => a.restarts.cmp(&b.restarts),
        }
    }

    /// Sizes and counts of all its workers together; otherwise what its first or oldest worker has.
    fn of_apps(self, a: &AppInfo, b: &AppInfo) -> Ordering {
        match self {
            By::Name => (&a.name, &a.namespace).cmp(&(&b.name, &b.namespace)),
            By::Namespace => (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)),
            By::Id => least(a, |worker| worker.id).cmp(&least(b, |worker| worker.id)),
            By::Pid => least(a, |worker| worker.pid).cmp(&least(b, |worker| worker.pid)),
            By::Memory => memory(a).cmp(&memory(b)),
            By::Cpu => {
                let all = |app: &AppInfo| app.workers.iter().map(cpu).sum::<f64>();
                all(a).total_cmp(&all(b))
            }
            By::Status => a.status.cmp(&b.status),
            By::Uptime => {
                let oldest = |app: &AppInfo| app.workers.iter().map(|worker| worker.uptime_ms).max();
                oldest(a).cmp(&oldest(b))
            }
            By::Restarts => {
                let all =
                    |app: &AppInfo| app.workers.iter().map(|worker| u64::from(worker.restarts)).sum::<u64>();
                all(a).cmp(&all(b))
            }
        }
    }
}

fn cpu(worker: &WorkerInfo) -> f64 {
    worker.cpu_percent.unwrap_or(0.0)
}

fn memory(app: &AppInfo) -> u64 {
    app.workers.iter().filter_map(|worker| worker.memory_bytes).sum()
}

fn least<T: Ord>(app: &AppInfo, of: impl Fn(&WorkerInfo) -> T) -> Option<T> {
    app.workers.iter().map(of).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn app(name: &str, namespace: &str, status: &str, workers: Value) -> Value {
        json!({ "name": name, "namespace": namespace, "mode": "fork", "status": status, "generation": 1,
            "instances": 1, "listen": [], "reload": null, "workers": workers })
    }

    fn worker(id: u32, pid: Option<i32>, [uptime, restarts, memory]: [u64; 3], cpu: Option<f64>) -> Value {
        json!({ "id": id, "instance": 0, "pid": pid, "status": "online", "ready": true, "generation": 1,
            "uptime_ms": uptime, "restarts": restarts, "unstable_restarts": 0, "cpu_percent": cpu,
            "memory_bytes": memory, "connections": null, "last_exit": null })
    }

    fn list() -> List {
        let daemon = json!({ "pid": 1, "version": "0", "uptime_ms": 1, "home": "/" });
        let two =
            json!([worker(0, Some(90), [5, 9, 100], None), worker(3, Some(20), [40, 0, 50], Some(1.5))]);
        let apps = json!([
            app("web", "b", "online", two),
            app("api", "c", "errored", json!([worker(1, None, [0, 16, 0], None)])),
            app("job", "a", "stopped", json!([worker(2, Some(50), [20, 2, 120], Some(9.0))])),
            app("none", "a", "stopped", json!([])),
        ]);
        serde_json::from_value(json!({ "version": 1, "daemon": daemon, "apps": apps })).unwrap()
    }

    fn sorted(text: &str) -> String {
        let mut list = list();
        text.parse::<Sort>().unwrap().apply(&mut list);
        list.apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_field_sorts_either_way_and_equal_ones_stay() {
        for (text, names) in [
            ("name", "api job none web"),
            ("name:asc", "api job none web"),
            ("name:desc", "web none job api"),
            ("namespace", "job none web api"),
            ("id", "none web api job"),
            ("pid", "none api web job"),
            ("memory:desc", "web job api none"),
            ("cpu:desc", "job web api none"),
            ("status", "api web job none"),
            ("status:desc", "job none web api"),
            ("uptime:desc", "web job api none"),
            ("restarts", "none job web api"),
        ] {
            assert_eq!(sorted(text), names, "{text}");
        }
    }

    #[test]
    fn workers_are_sorted_within_their_app() {
        let ids = |text: &str| {
            let mut list = list();
            text.parse::<Sort>().unwrap().apply(&mut list);
            let web = list.apps.into_iter().find(|app| app.name == "web").unwrap();
            web.workers.iter().map(|worker| worker.id).collect::<Vec<u32>>()
        };
        assert_eq!((ids("name:desc"), ids("id:desc")), (vec![0, 3], vec![3, 0]));
        assert_eq!((ids("memory"), ids("uptime"), ids("cpu:desc")), (vec![3, 0], vec![0, 3], vec![3, 0]));
    }

    #[test]
    fn what_is_no_field_is_told_with_all_that_are() {
        for wrong in ["size", "name:up", "", ":desc", "name:desc:asc"] {
            let why = wrong.parse::<Sort>().unwrap_err();
            assert!(why.contains("namespace") && why.contains(":desc"), "{wrong}: {why}");
        }
    }
}
