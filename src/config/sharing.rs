//! What an app asks of its sockets that one socket for all its workers cannot give: which of them takes a
//! connection from it is nobody's choice. Unix sockets are such; those of the host turn out to be at the start.

use crate::supervisor::policy::{Balance, Policy};

use super::keys::AppKey;
use super::{Check, Listen, Spec};

/// One key that asks too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub key: AppKey,
    /// As it is written.
    pub name: &'static str,
    /// What is the matter.
    pub why: &'static str,
    /// What to do about it.
    pub help: &'static str,
}

/// The keys of this app that need a socket for each worker, where `shared` tells which have only one for all.
pub fn refused(policy: &Policy, spec: &Spec, shared: impl Fn(&Listen) -> bool) -> Vec<Refused> {
    let listen = &spec.listen;
    let any = listen.iter().any(&shared);
    let all = any && listen.iter().all(&shared);
    let asks = matches!(spec.check, Some(Check::Http(_) | Check::Tcp));
    let rows = [
        (
            all && spec.ready_path.is_some(),
            AppKey::Ready,
            "ready",
            "asks one worker, and no connection reaches one alone where all share one socket",
            "write ready = \"notify\" or leave it out, or listen on a TCP port of clusterd's, too",
        ),
        (
            all && asks,
            AppKey::Health,
            "health",
            "asks one worker, and no connection reaches one alone where all share one socket",
            "use command = […], or listen on a TCP port of clusterd's, too",
        ),
        (
            all && policy.balance == Balance::SourceIp,
            AppKey::Balance,
            "balance",
            "leads clients to workers, and where all share one socket whoever is first takes a connection",
            "remove it, or listen on a TCP port of clusterd's",
        ),
        (
            any && policy.canary.is_some(),
            AppKey::Canary,
            "canary",
            "holds a share of the connections, and where all share one socket whoever is first takes one",
            "remove it, or listen on TCP ports of clusterd's only",
        ),
    ];
    let refused =
        |(is, key, name, why, help): (bool, _, _, _, _)| is.then_some(Refused { key, name, why, help });
    rows.into_iter().filter_map(refused).collect()
}
