//! `jlist` and `prettylist`: the apps in the shape that PM2 gives them, for scripts that read it. Values of
//! variables are not in it: who may see a list need not see secrets.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::launch::interpreter_of;
use crate::config::units::parse_duration;
use crate::control::protocol::{AppDetail, AppInfo, List, WorkerInfo};

/// Apps whose details are asked for at a time: what is known of so many fits into one answer.
pub(super) const AT_A_TIME: usize = 100;

/// What is known of each app beside the list: by namespace and name.
pub(super) type Details = HashMap<(String, String), AppDetail>;

/// What is not known to the supervisor, but can be seen from here.
pub(super) trait Sight {
    /// When the worker's process began, since 1970.
    fn began(&self, worker: &WorkerInfo) -> Duration;
    /// As whom a process runs, where that user has a name.
    fn user(&self, pid: i32) -> Option<String>;
    /// The version of the package that a program belongs to, where it is still the one that a worker was started with.
    fn version(&self, program: &Path, cwd: &Path, worker: &WorkerInfo, began: Duration) -> Option<String>;
}

/// One object per worker, in the order of their ids.
pub(super) fn processes(list: &List, details: &Details, sight: &dyn Sight) -> Value {
    let mut processes: Vec<(u32, Value)> = Vec::new();
    for app in &list.apps {
        let detail = details.get(&(app.namespace.clone(), app.name.clone()));
        let program = detail.map(Program::of);
        let facts = Facts { app, detail, program, user: OnceCell::new(), list, sight };
        processes.extend(app.workers.iter().map(|worker| (worker.id, facts.process(worker))));
    }
    processes.sort_by_key(|(id, _)| *id);
    processes.into_iter().map(|(_, process)| process).collect()
}

/// As JavaScript prints it: a whole one without a fraction.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e9 { json!(number as i64) } else { json!(number) }
}

/// What all workers of one app have in common.
struct Facts<'l> {
    app: &'l AppInfo,
    detail: Option<&'l AppDetail>,
    program: Option<Program>,
    /// As whom they run, where no key says it: as whoever the supervisor is, so one of them tells of all.
    user: OnceCell<Option<String>>,
    list: &'l List,
    sight: &'l dyn Sight,
}

impl Facts<'_> {
    fn process(&self, worker: &WorkerInfo) -> Value {
        json!({
            "pid": worker.pid.unwrap_or(0),
            "name": self.app.name,
            "pm2_env": self.environment(worker),
            "pm_id": worker.id,
            "monit": {
                "memory": worker.memory_bytes.unwrap_or(0),
                "cpu": number(worker.cpu_percent.unwrap_or(0.0)),
            },
        })
    }

    fn environment(&self, worker: &WorkerInfo) -> Map<String, Value> {
        let began = if worker.pid.is_some() { self.sight.began(worker) } else { Duration::ZERO };
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
        put("name", json!(self.app.name));
        put("namespace", json!(self.app.namespace));
        put("version", json!("N/A"));
        put("exec_mode", json!(format!("{}_mode", self.app.mode)));
        put("instances", json!(self.app.instances));
        put("pm_id", json!(worker.id));
        put(self.setting("instance_var").unwrap_or("NODE_APP_INSTANCE"), json!(worker.instance));
        put("unique_id", json!(format!("{}/{}/{}", self.app.namespace, self.app.name, worker.instance)));
        put("status", json!(pm2s(&worker.status)));
        put("pm_uptime", json!(began.as_millis() as u64));
        put("created_at", json!(began.as_millis() as u64));
        put("restart_time", json!(worker.restarts));
        put("unstable_restarts", json!(worker.unstable_restarts));
        let seen = || self.user.get_or_init(|| self.sight.user(self.list.daemon.pid)).clone();
        if let Some(user) = self.setting("user").map(str::to_owned).or_else(seen) {
            put("username", json!(user));
        }
        // A death by signal is no 0, which is what PM2 would say.
        if let Some(exit) = &worker.last_exit {
            put("exit_code", json!(exit.code));
        }
        for (key, value) in [
            ("env", json!({})),
            ("axm_actions", json!([])),
            ("axm_monitor", json!({})),
            ("axm_options", json!({})),
            ("axm_dynamic", json!({})),
            ("watch", json!(self.setting("watch").is_some())),
            ("treekill", json!(self.setting("treekill") != Some("false"))),
            ("vizion", json!(false)),
            ("vizion_running", json!(false)),
            ("km_link", json!(false)),
            ("pmx", json!(false)),
            ("automation", json!(false)),
        ] {
            put(key, value);
        }
        if let Some((detail, program)) = self.detail.zip(self.program.as_ref()) {
            out.extend(self.details(detail, program, worker, began));
        }
        out
    }

    fn details(
        &self,
        detail: &AppDetail,
        program: &Program,
        worker: &WorkerInfo,
        began: Duration,
    ) -> Map<String, Value> {
        let settings = &detail.settings;
        let log =
            |path: &Option<String>| path.as_deref().map_or("/dev/null".to_owned(), |p| self.log(p, worker));
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| out.insert(key.to_owned(), value);
        let (path, cwd) = (Path::new(&program.path), Path::new(&detail.cwd));
        if let Some(version) = self.sight.version(path, cwd, worker, began) {
            put("version", json!(version));
        }
        put("pm_exec_path", json!(program.path));
        put("pm_cwd", json!(detail.cwd));
        put("exec_interpreter", json!(program.interpreter));
        put("args", json!(program.args));
        put("node_args", json!(words(settings.get("interpreter_args"))));
        put("pm_out_log_path", json!(log(&detail.out_file)));
        put("pm_err_log_path", json!(log(&detail.error_file)));
        if detail.log_file.is_some() {
            put("pm_log_path", json!(log(&detail.log_file)));
        }
        put("pm_pid_path", json!(self.pid_file(worker)));
        for key in ["autorestart", "autostart", "merge_logs", "wait_ready", "shutdown_with_message"] {
            if let Some(value) = settings.get(key) {
                put(key, json!(value == "true"));
            }
        }
        for key in
            ["kill_timeout", "listen_timeout", "min_uptime", "restart_delay", "exp_backoff_restart_delay"]
        {
            if let Some(time) = settings.get(key).and_then(|text| parse_duration(text).ok()) {
                put(key, json!(time.as_millis() as u64));
            }
        }
        if let Some(count) = settings.get("max_restarts").and_then(|text| text.parse::<u64>().ok()) {
            put("max_restarts", json!(count));
        }
        if let Some(user) = settings.get("user") {
            put("uid", json!(user));
        }
        if let Some(when) = settings.get("cron_restart") {
            put("cron_restart", json!(when));
        }
        if let Some(group) = settings.get("group") {
            put("gid", json!(group));
        }
        out
    }

    fn setting(&self, key: &str) -> Option<&str> {
        self.detail?.settings.get(key).map(String::as_str)
    }

    /// The list names the file of instance 0.
    fn log(&self, path: &str, worker: &WorkerInfo) -> String {
        let path = Path::new(path);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        match stem.strip_suffix("-0").filter(|_| self.app.instances > 1) {
            Some(stem) => with_stem(path, &format!("{stem}-{}", worker.instance)),
            None => path.display().to_string(),
        }
    }

    fn pid_file(&self, worker: &WorkerInfo) -> String {
        let instance = worker.instance;
        match self.setting("pid_file").filter(|path| *path != "default") {
            None => {
                let namespace = Some(&self.app.namespace).filter(|namespace| *namespace != "default");
                let namespace = namespace.map_or_else(String::new, |namespace| format!("{namespace}@"));
                format!("{}/pids/{namespace}{}-{instance}.pid", self.list.daemon.home, self.app.name)
            }
            Some(path) if self.app.instances > 1 || instance > 0 => {
                let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                with_stem(Path::new(path), &format!("{stem}-{instance}"))
            }
            Some(path) => path.to_owned(),
        }
    }
}

/// A status in a word that PM2 has.
fn pm2s(status: &str) -> &str {
    match status {
        "waiting for address" => "launching",
        "unkillable" => "stopping",
        status => status,
    }
}

fn with_stem(path: &Path, stem: &str) -> String {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let name = extension.map_or_else(|| stem.to_owned(), |extension| format!("{stem}.{extension}"));
    path.with_file_name(name).display().to_string()
}

/// What runs, as PM2 takes it apart.
struct Program {
    path: String,
    interpreter: String,
    args: Vec<String>,
}

impl Program {
    fn of(detail: &AppDetail) -> Program {
        let settings = &detail.settings;
        let none = || "none".to_owned();
        let whole = |word: &str| detail.program.clone().unwrap_or_else(|| absolute(&detail.cwd, word));
        if let Some(command) = settings.get("command") {
            let mut vector = words(Some(command)).into_iter();
            let path = whole(&vector.next().unwrap_or_default());
            return Program { path, interpreter: none(), args: vector.collect() };
        }
        let script = settings.get("script").map_or("", String::as_str);
        // What a shell runs has no interpreter, not even one by extension.
        let Some(interpreter) = settings.get("interpreter") else {
            let args = vec!["-c".to_owned(), script.to_owned()];
            return Program { path: "/bin/sh".to_owned(), interpreter: none(), args };
        };
        let by_extension = || interpreter_of(Path::new(script)).map_or_else(none, str::to_owned);
        let interpreter = if interpreter == "by extension" { by_extension() } else { interpreter.clone() };
        Program { path: whole(script), interpreter, args: words(settings.get("args")) }
    }
}

/// Where a script is, without `.` in between.
fn absolute(cwd: &str, script: &str) -> String {
    let joined = Path::new(cwd).join(script);
    let parts = joined.components().filter(|part| *part != Component::CurDir);
    parts.collect::<PathBuf>().display().to_string()
}

/// `describe` shows arrays as JSON.
fn words(text: Option<&String>) -> Vec<String> {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// As Node's `util.inspect` shows it, which is what PM2 prints.
pub(super) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    inspect(value, 0, &mut out);
    out
}

fn inspect(value: &Value, indent: usize, out: &mut String) {
    const WIDTH: usize = 72;
    let flat = flat(value);
    if flat.chars().count() + indent <= WIDTH
        && !matches!(value, Value::Array(items) if items.iter().any(Value::is_object))
    {
        out.push_str(&flat);
        return;
    }
    let inner = " ".repeat(indent + 2);
    let (open, close, entries): (char, char, Vec<(String, &Value)>) = match value {
        Value::Array(items) => ('[', ']', items.iter().map(|item| (String::new(), item)).collect()),
        Value::Object(members) => {
            ('{', '}', members.iter().map(|(key, value)| (format!("{}: ", bare(key)), value)).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&flat);
            return;
        }
    };
    out.push(open);
    for (at, (key, value)) in entries.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        out.push_str(&format!("{comma}\n{inner}{key}"));
        inspect(value, indent + 2, out);
    }
    out.push_str(&format!("\n{}{close}", " ".repeat(indent)));
}

fn flat(value: &Value) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => single(text),
        Value::Array(items) if items.is_empty() => "[]".to_owned(),
        Value::Array(items) => format!("[ {} ]", joined(items.iter().map(flat).collect())),
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("{}: {}", bare(key), flat(value)));
            format!("{{ {} }}", joined(members.collect()))
        }
    }
}

/// A key that needs no quotes in JavaScript has none.
fn bare(key: &str) -> String {
    let is_word = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$');
    match is_word && !key.starts_with(|c: char| c.is_ascii_digit()) && !key.is_empty() {
        true => key.to_owned(),
        false => single(key),
    }
}

fn single(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// The details of a list that was asked for with them.
pub(super) fn collect(list: List, into: &mut Details) {
    for app in list.apps {
        if let Some(detail) = app.detail {
            into.insert((app.namespace, app.name), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn detail(settings: &[(&str, &str)]) -> AppDetail {
        let settings: BTreeMap<String, String> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        AppDetail { cwd: "/srv/api".to_owned(), settings, ..AppDetail::default() }
    }

    #[test]
    fn a_whole_number_has_no_fraction() {
        for (value, shown) in [(0.0, "0"), (19.0, "19"), (19.5, "19.5"), (-1.0, "-1")] {
            assert_eq!(flat(&number(value)), shown);
        }
    }

    #[test]
    fn what_runs_is_taken_apart_as_pm2_has_it() {
        for (settings, path, interpreter, args) in [
            (
                &[("script", "./a.js"), ("interpreter", "by extension"), ("args", "[\"x\"]")][..],
                "/srv/api/a.js",
                "node",
                &["x"][..],
            ),
            (&[("script", "a.py"), ("interpreter", "/opt/py")], "/srv/api/a.py", "/opt/py", &[]),
            (&[("script", "gunicorn"), ("interpreter", "by extension")], "/srv/api/gunicorn", "none", &[]),
            (&[("script", "../bin/run"), ("interpreter", "none")], "/srv/api/../bin/run", "none", &[]),
            (&[("command", "[\"./x\"]")], "/srv/api/x", "none", &[]),
            (&[("script", "npm start")], "/bin/sh", "none", &["-c", "npm start"]),
            (&[("command", "[\"/bin/x\",\"y\"]")], "/bin/x", "none", &["y"]),
        ] {
            let program = Program::of(&detail(settings));
            assert_eq!((&*program.path, &*program.interpreter), (path, interpreter), "{settings:?}");
            assert_eq!(program.args, args, "{settings:?}");
        }
    }

    #[test]
    fn what_is_found_in_path_is_told_by_its_whole_path() {
        for settings in
            [&[("script", "gunicorn"), ("interpreter", "none")][..], &[("command", "[\"gunicorn\",\"y\"]")]]
        {
            let found = AppDetail { program: Some("/usr/bin/gunicorn".to_owned()), ..detail(settings) };
            assert_eq!(Program::of(&found).path, "/usr/bin/gunicorn");
        }
    }

    #[test]
    fn the_dump_for_people_is_javascript() {
        let value = json!([{ "pid": 1, "a-b": "it's", "list": [1, 2], "empty": {}, "long": "x".repeat(80) }]);
        let expected = format!(
            "[\n  {{\n    'a-b': 'it\\'s',\n    empty: {{}},\n    list: [ 1, 2 ],\n    long: '{}',\n    pid: 1\n  }}\n]",
            "x".repeat(80)
        );
        assert_eq!(pretty(&value), expected);
    }
}
