//! Whether an app leaves a port that it opens itself. A reload keeps clients where they are, so a new version has to
//! listen wherever the old one does: one that listens elsewhere fails it, and only a restart moves it. What a server
//! makes of its variables and arguments nobody knows; but where the number of a port that it opened stood in them, and
//! does not any more, that is what is meant.

use std::collections::BTreeSet;

use super::{AppConfig, Program, Spec};
use crate::supervisor::policy::{Mode, Policy, Readiness};

/// The first of `opened` that a worker of the new definition will not listen on, where a reload waits for that.
pub(super) fn left_port(opened: &[u16], (policy, spec): (&Policy, &Spec), new: &AppConfig) -> Option<u16> {
    let waits = matches!(new.policy.ready, Readiness::Auto | Readiness::Listen);
    if policy.mode != Mode::Cluster || new.policy.mode != Mode::Cluster || !waits {
        return None;
    }
    let (before, after) = (numbers(spec), numbers(&new.spec));
    opened.iter().copied().find(|port| before.contains(port) && !after.contains(port))
}

/// Every number in its variables, its arguments and what it runs that can be a port.
fn numbers(spec: &Spec) -> BTreeSet<u16> {
    let program: Vec<&String> = match &spec.program {
        Program::Script { script: word, .. } | Program::Shell(word) => vec![word],
        Program::Exact(vector) => vector.iter().collect(),
    };
    let words = spec.env.values().chain(&spec.args).chain(program);
    let digits = words.flat_map(|word| word.split(|c: char| !c.is_ascii_digit()));
    digits.filter_map(|digits| digits.parse().ok()).filter(|port| *port > 0).collect()
}
