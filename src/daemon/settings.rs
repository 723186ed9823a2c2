//! The file's process settings, in the words of the kernel and back: what a child is to give itself, and
//! what to say when it could not.

use crate::config::{ProcessSettings, Rlimit};
use crate::supervisor::event::SpawnFailure;
use crate::sys::settings::{Limit, Setting, Settings};
use crate::sys::spawn::errno_text;

use super::identity::{self, Who};
use super::start::permanent;

/// What the child gives itself.
pub(super) fn of(process: &ProcessSettings, who: Option<&Who>) -> Settings {
    let limit =
        |limit: &Rlimit| Limit { resource: limit.resource.number, soft: limit.soft, hard: limit.hard };
    Settings {
        identity: who.and_then(|who| who.identity.clone()),
        umask: process.umask,
        nice: process.nice,
        oom_score_adj: process.oom_score_adj,
        limits: process.rlimits.iter().map(limit).collect(),
        no_new_privs: process.no_new_privs,
    }
}

/// ` as user "www"`, or nothing.
pub(super) fn as_whom(process: &ProcessSettings) -> String {
    match (&process.user, &process.group) {
        (Some(user), _) => format!(" as user {user}"),
        (None, Some(group)) => format!(" as group {group}"),
        (None, None) => String::new(),
    }
}

/// Why a child could not give itself what the file asks for. `item`: which of several limits.
pub(super) fn failure(process: &ProcessSettings, setting: Setting, item: usize, errno: i32) -> SpawnFailure {
    let text = errno_text(errno);
    let whom = as_whom(process);
    let (step, message) = match setting {
        Setting::OomScore => {
            let score = process.oom_score_adj.unwrap_or(0);
            let why = match errno {
                libc::EACCES => "; to lower it takes CAP_SYS_RESOURCE",
                libc::ENOENT => "; /proc is not mounted here",
                _ => "",
            };
            ("oom_score_adj", format!("cannot set oom_score_adj to {score}: {text}{why}"))
        }
        Setting::Limit => ("rlimits", limit_failure(process.rlimits.get(item), errno)),
        Setting::Nice => {
            let nice = process.nice.unwrap_or(0);
            let why = match errno {
                libc::EACCES | libc::EPERM => "; to lower it takes CAP_SYS_NICE",
                _ => "",
            };
            ("nice", format!("cannot set nice to {nice}: {text}{why}"))
        }
        Setting::Groups => ("setgroups", refused(&whom, "setgroups", errno)),
        Setting::Group => ("setresgid", refused(&whom, "setresgid", errno)),
        Setting::User => ("setresuid", refused(&whom, "setresuid", errno)),
        Setting::Undone => (
            "drop privileges",
            format!("cannot start{whom}: the change of user could have been undone, so it was not relied on"),
        ),
        Setting::NoNewPrivileges => ("no_new_privs", format!("cannot set no_new_privs: {text}")),
    };
    // EAGAIN of setresuid(2): the user has as many processes as RLIMIT_NPROC allows, for now.
    let transient = matches!(errno, libc::EAGAIN | libc::ENOMEM);
    SpawnFailure { transient, ..permanent(step.to_owned(), errno, message) }
}

fn refused(whom: &str, call: &str, errno: i32) -> String {
    format!("cannot start{whom}: {call}: {}{}", errno_text(errno), identity::why_refused(errno))
}

fn limit_failure(limit: Option<&Rlimit>, errno: i32) -> String {
    let name = limit.map_or("?", |limit| limit.resource.name);
    let why = match errno {
        libc::EPERM => {
            "; to raise the hard limit takes CAP_SYS_RESOURCE: raise it where clusterd is started (ulimit -H, \
             LimitNOFILE= and its like in the unit, --ulimit of the container)"
        }
        libc::EINVAL => "; soft must not be greater than hard",
        _ => "",
    };
    format!("cannot set rlimits.{name}: {}{why}", errno_text(errno))
}
