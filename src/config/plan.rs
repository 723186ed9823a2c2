//! What has to be done to the apps that are known so that they are what a file says: the mildest step for each,
//! why, and which workers it touches. `apply` prints this and does exactly this. Pure: how the apps stand is an
//! argument. Values that may be secrets (variables, arguments) are never part of a reason.

use std::collections::BTreeSet;

use super::keys::{self, Kind};
use super::moved::left_port;
use super::settings::value_of;
use super::{AppConfig, Spec};
use crate::supervisor::policy::{AppName, Mode, Policy};

/// How an app stands before the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has workers, or is about to.
    Running,
    /// Somebody stopped it, or it was never started.
    Stopped,
    /// It ended for good by itself.
    Ended,
    /// It was given up.
    Errored,
}

/// A reload that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloading {
    /// It is under way, or waits for one that is.
    Going,
    /// It is held at a share of the new connections until the operator decides.
    Held {
        /// Which.
        percent: u8,
    },
}

/// An app that is known.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// Its name.
    pub name: AppName,
    /// The numbers that it runs with, or will when a reload under way is over.
    pub policy: &'a Policy,
    /// What it runs, or will.
    pub spec: &'a Spec,
    /// Its instances then, which a `scale` may have changed.
    pub instances: u32,
    /// How it stands.
    pub standing: Standing,
    /// A reload to that policy and that spec which is not over.
    pub reloading: Option<Reloading>,
    /// Its workers: instance and id.
    pub slots: Vec<(u32, u32)>,
    /// `[daemon]` says something else now on where its output goes.
    pub logs_moved: bool,
    /// It was started from the file that is applied.
    pub from_this_file: bool,
    /// The ports of TCP that its workers opened themselves, and serve.
    pub opened: Vec<u16>,
}

/// What is done to an app, the mildest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It becomes known, and starts unless its file says otherwise.
    Add,
    /// It is started as the file has it.
    Start,
    /// Each worker is replaced while the others serve.
    Reload,
    /// The same where old and new cannot overlap: each is stopped, then started.
    Restart,
    /// It leaves a port that it opens itself: all are stopped, then started.
    Move,
    /// Workers come or go; the others stay.
    Scale,
    /// What differs says only how workers are judged, replaced and ended, and where their output is kept: it holds
    /// for those that run, which stay but for the number of instances.
    Adjust,
    /// What the file says holds from its next start on.
    Define,
    /// It is stopped and forgotten.
    Delete,
    /// Nothing, but it is on its way there: the reload under way is waited for.
    Await,
    /// Nothing.
    Keep,
}

impl Step {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Step::Add => "add",
            Step::Start => "start",
            Step::Reload => "reload",
            Step::Restart | Step::Move => "restart",
            Step::Scale => "scale",
            Step::Adjust => "adjust",
            Step::Define => "define",
            Step::Delete => "delete",
            Step::Await | Step::Keep => "keep",
        }
    }
}

/// One worker's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerPlan {
    /// Its number within the app.
    pub instance: u32,
    /// Its id; none where it does not exist yet.
    pub id: Option<u32>,
    /// `start`, `replace`, `stop` or `keep`.
    pub action: &'static str,
}

/// One app's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppPlan {
    /// Which.
    pub name: AppName,
    /// What is done.
    pub step: Step,
    /// Why; never empty.
    pub why: Vec<String>,
    /// Whom it touches, in the order of instance.
    pub workers: Vec<WorkerPlan>,
}

/// What brings the known apps to what the file says: its apps in its order, then those that came from it and
/// are gone from it, which `prune` deletes.
pub fn plan(known: &[Known<'_>], apps: &[AppConfig], prune: bool) -> Vec<AppPlan> {
    let name = |app: &AppConfig| AppName { namespace: app.namespace.clone(), name: app.name.clone() };
    let mut plans: Vec<AppPlan> =
        apps.iter().map(|app| plan_app(known.iter().find(|k| k.name == name(app)), name(app), app)).collect();
    let gone = known.iter().filter(|k| k.from_this_file && apps.iter().all(|app| name(app) != k.name));
    plans.extend(gone.map(|app| {
        let (step, why) = match prune {
            true => (Step::Delete, "gone from the file"),
            false => (Step::Keep, "gone from the file; --prune deletes it"),
        };
        let action = if prune && app.standing == Standing::Running { "stop" } else { "keep" };
        let mut why = vec![why.to_owned()];
        why.extend(app.reloading.filter(|_| prune).and_then(|reloading| becomes_of(reloading, step)));
        AppPlan { name: app.name.clone(), step, why, workers: all(app, action) }
    }));
    plans
}

fn plan_app(known: Option<&Known<'_>>, name: AppName, new: &AppConfig) -> AppPlan {
    let Some(known) = known else {
        let (why, action) = match new.policy.autostart {
            true => ("new app", "start"),
            false => ("new app; it stays stopped: autostart = false", "keep"),
        };
        let workers = (0..new.policy.instances).map(|instance| WorkerPlan { instance, id: None, action });
        return AppPlan { name, step: Step::Add, why: vec![why.to_owned()], workers: workers.collect() };
    };
    let mut why = differences(known, new);
    let step = step(known, new, &mut why);
    let workers = workers(known, new.policy.instances, step);
    if why.is_empty() {
        why.push("unchanged".to_owned());
    }
    why.extend(known.reloading.and_then(|reloading| becomes_of(reloading, step)));
    AppPlan { name, step, why, workers }
}

/// What this step means for a reload that is not over.
fn becomes_of(reloading: Reloading, step: Step) -> Option<String> {
    Some(match (reloading, step) {
        (Reloading::Going, Step::Await | Step::Adjust) => {
            "a reload to it is under way and is waited for".to_owned()
        }
        (Reloading::Going, Step::Reload | Step::Restart) => "it follows the reload under way".to_owned(),
        (Reloading::Going, Step::Move | Step::Delete) => "it ends the reload under way".to_owned(),
        (Reloading::Held { percent }, Step::Reload | Step::Restart | Step::Move | Step::Delete) => {
            format!("it ends the reload that is held at {percent}% (canary)")
        }
        (Reloading::Held { percent }, Step::Keep | Step::Await | Step::Scale | Step::Adjust) => {
            format!("a reload to it stays held at {percent}% (canary)")
        }
        (Reloading::Going, Step::Keep | Step::Scale) | (_, Step::Add | Step::Start | Step::Define) => {
            return None;
        }
    })
}

/// The mildest step; adds to the reasons what is no difference between the definitions.
fn step(known: &Known<'_>, new: &AppConfig, why: &mut Vec<String>) -> Step {
    let changed = !why.is_empty();
    let going = known.reloading == Some(Reloading::Going);
    match known.standing {
        Standing::Stopped if !new.policy.autostart => {
            why.push("it stays stopped: autostart = false".to_owned());
            if changed { Step::Define } else { Step::Keep }
        }
        Standing::Ended if !changed => {
            why.push("unchanged, and ended for good".to_owned());
            Step::Keep
        }
        Standing::Stopped => {
            why.push("it is stopped".to_owned());
            Step::Start
        }
        Standing::Ended => Step::Start,
        Standing::Errored => {
            why.push("it was given up".to_owned());
            Step::Start
        }
        Standing::Running if !changed && going => Step::Await,
        Standing::Running if !changed => Step::Keep,
        // Beside a reload under way it is part of that, and waited for with it.
        Standing::Running if is_scale(known, new) && !going => Step::Scale,
        Standing::Running if is_adjustment(known, new) => Step::Adjust,
        Standing::Running if let Some(port) = left_port(&known.opened, (known.policy, known.spec), new) => {
            why.push(format!("it leaves port {port}, which it opens itself: a reload cannot"));
            Step::Move
        }
        Standing::Running if known.policy.mode == Mode::Cluster && new.policy.mode == Mode::Cluster => {
            Step::Reload
        }
        Standing::Running => Step::Restart,
    }
}

/// Nothing but the number of instances differs.
fn is_scale(known: &Known<'_>, new: &AppConfig) -> bool {
    let policy = Policy { instances: new.policy.instances, ..known.policy.clone() };
    policy == new.policy && *known.spec == new.spec && !known.logs_moved
}

/// The workers that run would be started the same way: where their output is kept is no matter of theirs.
fn is_adjustment(known: &Known<'_>, new: &AppConfig) -> bool {
    known.policy.goes_on_as(&new.policy) && known.spec.runs_as(&new.spec)
}

fn all(known: &Known<'_>, action: &'static str) -> Vec<WorkerPlan> {
    known
        .slots
        .iter()
        .map(|(instance, id)| WorkerPlan { instance: *instance, id: Some(*id), action })
        .collect()
}

fn workers(known: &Known<'_>, instances: u32, step: Step) -> Vec<WorkerPlan> {
    let stays = match step {
        Step::Add | Step::Start => "start",
        Step::Reload | Step::Restart | Step::Move => "replace",
        Step::Delete => "stop",
        Step::Keep | Step::Await | Step::Define => return all(known, "keep"),
        Step::Scale | Step::Adjust => "keep",
    };
    let mut workers = all(known, stays);
    // The highest go first, and the lowest free numbers are taken.
    let kept = usize::try_from(instances).unwrap_or(usize::MAX);
    let goes = if known.standing == Standing::Running { "stop" } else { "keep" };
    workers.iter_mut().skip(kept).for_each(|worker| worker.action = goes);
    for instance in 0.. {
        if workers.len() >= kept {
            break;
        }
        if workers.iter().all(|worker| worker.instance != instance) {
            workers.push(WorkerPlan { instance, id: None, action: "start" });
        }
    }
    workers.sort_by_key(|worker| worker.instance);
    workers
}

/// Every key whose value differs, in the order of the keys; one sentence each.
fn differences(known: &Known<'_>, new: &AppConfig) -> Vec<String> {
    let old = Policy { instances: known.instances, ..known.policy.clone() };
    let mut found = Vec::new();
    for key in keys::APP {
        if key.kind == Kind::Environment {
            found.extend(variables(known.spec, &new.spec));
            continue;
        }
        let (before, after) = (value_of(key.id, &old, known.spec), value_of(key.id, &new.policy, &new.spec));
        if before == after {
            continue;
        }
        let shown = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        found.push(match is_shown(key.kind) {
            true => format!("{} {} -> {}", key.name, shown(before), shown(after)),
            false => format!("{} changed", key.name),
        });
    }
    if known.logs_moved {
        found.push("log_dir or log_files changed".to_owned());
    }
    let same = old == new.policy && *known.spec == new.spec;
    if found.is_empty() && !same {
        found.push("its definition changed".to_owned());
    }
    found
}

/// Whether a value of this kind says nothing that its owner may want to hide.
pub fn is_shown(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Flag
            | Kind::Duration { .. }
            | Kind::Count { .. }
            | Kind::Instances
            | Kind::Choice(_)
            | Kind::Listen
            | Kind::Signal
            | Kind::Folder
            | Kind::LogFile
            | Kind::JointLog
            | Kind::DatePattern
            | Kind::FileSize
            | Kind::ExitCodes
            | Kind::Apps
            | Kind::Memory
            | Kind::Bytes
            | Kind::Account
            | Kind::Umask
            | Kind::Whole { .. }
            | Kind::Limits
            | Kind::Limit
            | Kind::Ready
            | Kind::File
            | Kind::EnvFiles
            | Kind::Watch
            | Kind::Patterns
    )
}

/// Names of variables, never their values.
fn variables(old: &Spec, new: &Spec) -> Vec<String> {
    let names: BTreeSet<&String> = old.env.keys().chain(new.env.keys()).collect();
    let word = |name: &&String| match (old.env.get(*name), new.env.get(*name)) {
        (before, after) if before == after => None,
        (None, _) => Some("added"),
        (_, None) => Some("removed"),
        (Some(_), Some(_)) => Some("changed"),
    };
    names.iter().filter_map(|name| Some(format!("env.{name} {}", word(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Host, load};

    fn apps(text: &str) -> Vec<AppConfig> {
        let folder = PathBuf::from("/srv");
        let host = Host { parallelism: 4, memory: None, folder, profile: None, only: Vec::new() };
        load(text, "eco.toml", &host).expect("a good file").apps
    }

    fn app(lines: &str) -> AppConfig {
        apps(&format!("[[apps]]\nname = \"api\"\nscript = \"a.js\"\n{lines}\n")).remove(0)
    }

    fn known(app: &AppConfig) -> Known<'_> {
        Known {
            name: AppName { namespace: app.namespace.clone(), name: app.name.clone() },
            policy: &app.policy,
            spec: &app.spec,
            instances: app.policy.instances,
            standing: Standing::Running,
            slots: (0..app.policy.instances).map(|instance| (instance, 10 + instance)).collect(),
            reloading: None,
            logs_moved: false,
            from_this_file: true,
            opened: Vec::new(),
        }
    }

    #[test]
    fn each_difference_has_its_mildest_step_and_its_reason() {
        let rows = [
            ("instances = 2", "instances = 2", Step::Keep, "unchanged"),
            ("instances = 4", "instances = 6", Step::Scale, "instances 4 -> 6"),
            (
                "instances = 2",
                "instances = 2\nkill_timeout = 5000",
                Step::Adjust,
                "kill_timeout 1s 600ms -> 5s",
            ),
            (
                "instances = 2\nenv = { PORT = 1 }",
                "instances = 2\nenv = { PORT = 2 }",
                Step::Reload,
                "env.PORT changed",
            ),
            (
                "instances = 2\nenv = { A = 1 }",
                "instances = 2\nenv = { B = 1 }",
                Step::Reload,
                "env.A removed; env.B added",
            ),
            ("args = \"--key s3cret\"", "args = \"--key 0ther\"", Step::Restart, "args changed"),
            ("listen = 80", "listen = 81", Step::Reload, "listen [\":80\"] -> [\":81\"]"),
            (
                "",
                "exec_mode = \"cluster\"",
                Step::Restart,
                "exec_mode fork -> cluster; intercept false -> true",
            ),
            (
                "instances = 2",
                "instances = 2\nmerge_logs = true\nout_file = \"all.log\"",
                Step::Adjust,
                "out_file default -> /srv/all.log; merge_logs false -> true",
            ),
            (
                "instances = 2",
                "instances = 3\nmax_restarts = 1",
                Step::Adjust,
                "instances 2 -> 3; max_restarts 16 -> 1",
            ),
        ];
        for (old, new, step, why) in rows {
            let (old, new) = (app(old), app(new));
            let plan = plan(&[known(&old)], &[new], false);
            assert_eq!((plan[0].step, plan[0].why.join("; ")), (step, why.to_owned()));
        }
    }

    #[test]
    fn who_leaves_a_port_that_it_opens_itself_is_restarted() {
        let cluster = |lines: &str| app(&format!("instances = 2\n{lines}"));
        let moved = "it leaves port 3000, which it opens itself: a reload cannot";
        for (old, new, opened, step) in [
            ("env = { PORT = 3000 }", "env = { PORT = 3001 }", &[3000][..], Step::Move),
            ("env = { PORT = 3000 }", "", &[3000], Step::Move),
            ("args = \"--listen=:3000\"", "args = \"--listen=:3001\"", &[3000], Step::Move),
            (
                "increment_var = \"P\"\nenv = { P = 3000 }",
                "increment_var = \"P\"\nenv = { P = 3010 }",
                &[3000, 3001],
                Step::Move,
            ),
            // By a socket that it is handed it serves wherever the file says.
            (
                "listen = 3000\nenv = { PORT = 3000 }",
                "listen = 3001\nenv = { PORT = 3001 }",
                &[],
                Step::Reload,
            ),
            (
                "listen = 3000\nenv = { PORT = 3000 }",
                "listen = 3001\nenv = { PORT = 3001 }",
                &[3000],
                Step::Move,
            ),
            // What else has this number may be anything.
            ("env = { PORT = 3000, T = 3000 }", "env = { PORT = 3000, T = 5000 }", &[3000], Step::Reload),
            ("env = { PORT = 3000 }", "env = { PORT = 3000, A = 1 }", &[3000], Step::Reload),
            ("env = { T = 3000 }", "env = { T = 5000 }", &[8080], Step::Reload),
            // Nobody waits for a listener.
            (
                "ready = \"notify\"\nenv = { PORT = 3000 }",
                "ready = \"notify\"\nenv = { PORT = 3001 }",
                &[3000],
                Step::Reload,
            ),
        ] {
            let (old, new) = (cluster(old), cluster(new));
            let known = Known { opened: opened.to_vec(), ..known(&old) };
            let plan = plan(&[known], std::slice::from_ref(&new), false).remove(0);
            assert_eq!(plan.step, step, "{:?}", plan.why);
            assert_eq!(plan.why.last().is_some_and(|why| why == moved), step == Step::Move, "{:?}", plan.why);
            assert!(plan.workers.iter().all(|worker| worker.action == "replace"), "{plan:?}");
        }
    }

    #[test]
    fn how_an_app_stands_decides_too() {
        let same = app("autorestart = false");
        let other = app("autorestart = false\nmax_restarts = 1");
        let quiet = app("autostart = false");
        let loud = app("autostart = false\nmax_restarts = 1");
        let rows = [
            (Standing::Stopped, &same, &same, Step::Start, "it is stopped"),
            (Standing::Ended, &same, &same, Step::Keep, "unchanged, and ended for good"),
            (Standing::Ended, &same, &other, Step::Start, "max_restarts 16 -> 1"),
            (Standing::Errored, &same, &same, Step::Start, "it was given up"),
            (Standing::Stopped, &quiet, &quiet, Step::Keep, "it stays stopped: autostart = false"),
            (
                Standing::Stopped,
                &quiet,
                &loud,
                Step::Define,
                "max_restarts 16 -> 1; it stays stopped: autostart = false",
            ),
        ];
        for (standing, old, new, step, why) in rows {
            let known = Known { standing, ..known(old) };
            let plan = plan(&[known], std::slice::from_ref(new), false);
            assert_eq!((plan[0].step, plan[0].why.join("; ")), (step, why.to_owned()), "{standing:?}");
        }
    }

    #[test]
    fn every_worker_is_named() {
        let actions = |plan: &[AppPlan]| -> Vec<(u32, Option<u32>, &str)> {
            plan[0].workers.iter().map(|worker| (worker.instance, worker.id, worker.action)).collect()
        };
        let (two, three) = (app("instances = 2"), app("instances = 3"));
        let more = plan(&[known(&two)], std::slice::from_ref(&three), false);
        assert_eq!(actions(&more), [(0, Some(10), "keep"), (1, Some(11), "keep"), (2, None, "start")]);
        let fewer = plan(&[known(&three)], std::slice::from_ref(&two), false);
        assert_eq!(actions(&fewer), [(0, Some(10), "keep"), (1, Some(11), "keep"), (2, Some(12), "stop")]);
        let judged = plan(&[known(&two)], &[app("instances = 3\nmax_surge = 2")], false);
        assert_eq!(actions(&judged), actions(&more));
        let other = app("instances = 1\nenv = { A = 1 }");
        let swap = plan(&[known(&two)], &[other], false);
        assert_eq!(actions(&swap), [(0, Some(10), "replace"), (1, Some(11), "stop")]);
    }

    /// What becomes of a reload that is not over is part of the plan.
    #[test]
    fn a_reload_that_is_not_over_is_waited_for_kept_or_ended_in_words() {
        let (going, held) = (Reloading::Going, Reloading::Held { percent: 10 });
        let (waited, stays) =
            ("a reload to it is under way and is waited for", "a reload to it stays held at 10% (canary)");
        let ends = "it ends the reload that is held at 10% (canary)";
        let rows = [
            (going, "instances = 2", Step::Await, format!("unchanged; {waited}")),
            (held, "instances = 2", Step::Keep, format!("unchanged; {stays}")),
            (going, "instances = 3", Step::Adjust, format!("instances 2 -> 3; {waited}")),
            (held, "instances = 3", Step::Scale, format!("instances 2 -> 3; {stays}")),
            (
                going,
                "instances = 2\nmax_restarts = 1",
                Step::Adjust,
                format!("max_restarts 16 -> 1; {waited}"),
            ),
            (held, "instances = 2\nmax_restarts = 1", Step::Adjust, format!("max_restarts 16 -> 1; {stays}")),
            (
                going,
                "instances = 2\nenv = { A = 1 }",
                Step::Reload,
                "env.A added; it follows the reload under way".to_owned(),
            ),
            (held, "instances = 2\nenv = { A = 1 }", Step::Reload, format!("env.A added; {ends}")),
            (
                held,
                "",
                Step::Restart,
                format!("instances 2 -> 1; exec_mode cluster -> fork; intercept true -> false; {ends}"),
            ),
        ];
        let old = app("instances = 2");
        for (reloading, new, step, why) in rows {
            let known = Known { reloading: Some(reloading), ..known(&old) };
            let plan = plan(&[known], &[app(new)], false);
            assert_eq!((plan[0].step, plan[0].why.join("; ")), (step, why));
        }
        let known = Known { reloading: Some(held), ..known(&old) };
        let other = apps("[[apps]]\nscript = \"b.js\"\n");
        let why = |prune| plan(std::slice::from_ref(&known), &other, prune)[1].why.join("; ");
        assert_eq!(why(true), format!("gone from the file; {ends}"));
        assert_eq!(why(false), "gone from the file; --prune deletes it");
    }

    /// A `scale` is taken back by the file.
    #[test]
    fn instances_are_compared_with_those_that_run() {
        let file = app("instances = 2");
        let scaled = Known { instances: 5, ..known(&file) };
        let plan = plan(&[scaled], std::slice::from_ref(&file), false);
        assert_eq!((plan[0].step, plan[0].why.join("; ")), (Step::Scale, "instances 5 -> 2".to_owned()));
    }

    #[test]
    fn only_what_came_from_this_file_is_pruned() {
        let file = apps("[[apps]]\nscript = \"new\"\n");
        let gone = app("");
        let foreign = Known { from_this_file: false, ..known(&gone) };
        assert_eq!(plan(&[foreign], &file, true).len(), 1);
        for (prune, step) in [(true, Step::Delete), (false, Step::Keep)] {
            let plan = plan(&[known(&gone)], &file, prune);
            assert_eq!(
                (plan[0].step, plan[0].why.as_slice()),
                (Step::Add, ["new app".to_owned()].as_slice())
            );
            assert_eq!(plan[1].step, step);
            assert!(plan[1].why[0].starts_with("gone from the file"));
        }
    }
}
