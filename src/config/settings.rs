//! Every setting of an app in the words of the file, defaults included: what `describe` shows. Values of
//! variables are left out, since they may be secrets.

use std::collections::BTreeMap;

use super::keys::{self, AppKey};
use super::units::{show_duration, signal_name};
use super::{Interpreter, Program, Spec, health, listen, logs, process, size};
use crate::supervisor::policy::{Balance, Mode, OnReloadFailure, Policy, Readiness};

/// Each key of the file with its value and unit. The name and the namespace are the caller's; keys that are
/// not set and have no value by default are left out.
pub fn settings(policy: &Policy, spec: &Spec) -> BTreeMap<String, String> {
    keys::APP
        .iter()
        .filter_map(|key| {
            let (name, value) = match (key.id, &spec.program) {
                (AppKey::Script, Program::Exact(_)) => ("command", value_of(key.id, policy, spec)),
                (_, Program::Exact(_) | Program::Shell(_) | Program::Script { .. }) => {
                    (key.name, value_of(key.id, policy, spec))
                }
            };
            Some((name.to_owned(), value?))
        })
        .collect()
}

pub(super) fn value_of(key: AppKey, policy: &Policy, spec: &Spec) -> Option<String> {
    Some(match key {
        AppKey::Name | AppKey::AppendEnvToName | AppKey::Namespace => return None,
        AppKey::Script => match &spec.program {
            Program::Script { script, .. } => script.clone(),
            Program::Shell(line) => line.clone(),
            Program::Exact(vector) => array(vector),
        },
        AppKey::Interpreter => match &spec.program {
            Program::Script { interpreter: Interpreter::Program(program), .. } => program.clone(),
            Program::Script { interpreter: Interpreter::None, .. } => "none".to_owned(),
            Program::Script { interpreter: Interpreter::ByExtension, .. } => "by extension".to_owned(),
            Program::Shell(_) | Program::Exact(_) => return None,
        },
        AppKey::InterpreterArgs => array(&spec.interpreter_args),
        AppKey::Args => array(&spec.args),
        AppKey::Cwd => spec.cwd.display().to_string(),
        AppKey::Instances => policy.instances.to_string(),
        AppKey::ExecMode => match policy.mode {
            Mode::Fork => "fork".to_owned(),
            Mode::Cluster => "cluster".to_owned(),
        },
        AppKey::Listen => array(&spec.listen.iter().map(listen::show).collect::<Vec<_>>()),
        AppKey::Intercept => spec.intercept.to_string(),
        AppKey::Env => spec.env.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        AppKey::KillSignal => signal_name(spec.kill_signal),
        AppKey::KillTimeout => show_duration(policy.kill_timeout),
        AppKey::ShutdownWithMessage => spec.shutdown_with_message.to_string(),
        AppKey::Treekill => spec.treekill.to_string(),
        AppKey::WaitReady => (policy.ready == Readiness::Word).to_string(),
        AppKey::Ready => match policy.ready {
            Readiness::Auto | Readiness::Word => "auto".to_owned(),
            Readiness::Notify => "notify".to_owned(),
            Readiness::Ipc => "ipc".to_owned(),
            Readiness::Listen => "listen".to_owned(),
            Readiness::Exec => "exec".to_owned(),
            Readiness::Http(door) => health::show_ready(door, spec.ready_path.as_deref().unwrap_or_default()),
        },
        AppKey::Health => health::show(policy.health.as_ref()?, spec.check.as_ref()?, &spec.listen),
        AppKey::Watchdog => show_duration(policy.watchdog?),
        AppKey::HangTimeout => show_duration(policy.hang_timeout?),
        AppKey::ListenTimeout => show_duration(policy.listen_timeout),
        AppKey::MinUptime => show_duration(policy.min_uptime),
        AppKey::MaxRestarts => policy.max_restarts.to_string(),
        AppKey::RestartDelay => show_duration(policy.restart_delay),
        AppKey::ExpBackoffRestartDelay => show_duration(policy.exp_backoff_restart_delay),
        AppKey::DrainTimeout => show_duration(policy.drain_timeout),
        AppKey::DrainIdle => show_duration(spec.drain_idle),
        AppKey::MaxSurge => policy.max_surge.to_string(),
        AppKey::MinHealthyTime => show_duration(policy.min_healthy_time),
        AppKey::OnReloadFailure => match policy.on_reload_failure {
            OnReloadFailure::Rollback => "rollback".to_owned(),
            OnReloadFailure::Hold => "hold".to_owned(),
        },
        AppKey::MaxMemoryRestart => size::show(policy.max_memory_restart?),
        AppKey::MaxAge => show_duration(policy.max_age?),
        AppKey::CronRestart => policy.cron_restart.as_ref()?.pattern.clone(),
        AppKey::Timezone => policy.cron_restart.as_ref()?.zone.clone()?,
        AppKey::Watch => array(&policy.watch.as_ref()?.paths),
        AppKey::IgnoreWatch => array(&policy.watch.as_ref()?.ignore),
        AppKey::WatchDelay => show_duration(policy.watch.as_ref()?.delay),
        AppKey::Autorestart => policy.autorestart.to_string(),
        AppKey::StopExitCodes => serde_json::json!(policy.stop_exit_codes).to_string(),
        AppKey::Autostart => policy.autostart.to_string(),
        AppKey::Essential => policy.essential.to_string(),
        AppKey::DependsOn => array(&policy.depends_on.iter().map(ToString::to_string).collect::<Vec<_>>()),
        AppKey::Balance => match policy.balance {
            Balance::Spread => "spread".to_owned(),
            Balance::SourceIp => "source-ip".to_owned(),
        },
        AppKey::Canary => format!("{}%", policy.canary?),
        AppKey::OutFile
        | AppKey::ErrorFile
        | AppKey::LogFile
        | AppKey::MergeLogs
        | AppKey::DisableLogs
        | AppKey::LogTo
        | AppKey::LogMaxSize
        | AppKey::LogMaxFiles
        | AppKey::LogTotalSize
        | AppKey::LogMaxAge
        | AppKey::LogCompress
        | AppKey::LogRateLimit
        | AppKey::LogType
        | AppKey::LogDateFormat
        | AppKey::Time => {
            return logs::shown(key, spec);
        }
        AppKey::User
        | AppKey::Group
        | AppKey::Umask
        | AppKey::Nice
        | AppKey::OomScoreAdj
        | AppKey::Rlimits
        | AppKey::MemoryHigh
        | AppKey::MemoryMax
        | AppKey::PidsMax
        | AppKey::CpuWeight
        | AppKey::NoNewPrivs
        | AppKey::EnvFile
        | AppKey::FilterEnv
        | AppKey::IncrementVar
        | AppKey::InstanceVar
        | AppKey::PidFile
        | AppKey::Stdin => return process::shown(key, spec),
    })
}

/// TOML's basic strings and JSON's differ in nothing that occurs here.
fn array(words: &[String]) -> String {
    serde_json::json!(words).to_string()
}
