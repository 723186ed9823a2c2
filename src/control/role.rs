//! Who may wish what: each request takes one role, and each peer has one by its user and groups as the kernel tells
//! them, or none. Pure; names were turned into numbers before.

use std::collections::BTreeSet;
use std::fmt;

use super::protocol::Request;

/// How far somebody may go. Each may do what those before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look: at what runs and what it prints. Of variables the names alone.
    View,
    /// Start, stop, reload and scale what is known, as its owner wrote it.
    Operate,
    /// Everything: say what is run, with which variables, and end the supervisor. The supervisor's own user and root.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::View => "view",
            Role::Operate => "operate",
            Role::Admin => "admin",
        })
    }
}

/// The role that a request takes.
pub fn needed(request: &Request) -> Role {
    match request {
        Request::Ping {}
        | Request::Ready { .. }
        | Request::List { .. }
        | Request::Pid { .. }
        | Request::Logs { .. } => Role::View,
        // Of what is known, and nothing new is said of it.
        Request::Start { file: None, update_env: None, changes, .. }
        | Request::Restart { file: None, update_env: None, changes, .. }
        | Request::Reload { file: None, update_env: None, changes, .. }
            if changes.is_empty() =>
        {
            Role::Operate
        }
        Request::Stop { .. }
        | Request::Scale { .. }
        | Request::Promote { .. }
        | Request::Rollback { .. }
        | Request::Signal { .. }
        | Request::Reset { .. }
        | Request::ReloadLogs {} => Role::Operate,
        Request::Start { .. }
        | Request::Restart { .. }
        | Request::Reload { .. }
        | Request::Launch { .. }
        | Request::Apply { .. }
        | Request::Delete { .. }
        | Request::Kill {}
        | Request::Save { .. }
        | Request::Cleardump {}
        | Request::Resurrect {}
        // What variables hold.
        | Request::Environ { .. }
        // What a worker makes of a line is its own matter; it may be a shell.
        | Request::Send { .. }
        // Logs say what was done.
        | Request::Flush { .. } => Role::Admin,
    }
}

/// Users and groups, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Users.
    pub users: BTreeSet<u32>,
    /// Groups.
    pub groups: BTreeSet<u32>,
}

impl Members {
    fn have(&self, uid: u32, groups: &[u32]) -> bool {
        self.users.contains(&uid) || groups.iter().any(|group| self.groups.contains(group))
    }

    /// Nobody is.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }
}

/// Whom the supervisor's owner lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guests {
    /// They have [`Role::View`].
    pub view: Members,
    /// They have [`Role::Operate`].
    pub operate: Members,
}

impl Guests {
    /// Nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.view.is_empty() && self.operate.is_empty()
    }

    /// Whether a peer's groups matter.
    pub fn ask_for_groups(&self) -> bool {
        !self.view.groups.is_empty() || !self.operate.groups.is_empty()
    }

    /// The role of a user with these groups; none: refused. `owner`: the supervisor's own user.
    pub fn role(&self, uid: u32, groups: &[u32], owner: u32) -> Option<Role> {
        if uid == owner || uid == 0 {
            // Root could take over either way.
            Some(Role::Admin)
        } else if self.operate.have(uid, groups) {
            Some(Role::Operate)
        } else if self.view.have(uid, groups) {
            Some(Role::View)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Each verb of the protocol and whom it takes. `needed` has no arm for "all others", so that a new verb does not
    /// compile until somebody decided; this is what was decided.
    #[test]
    fn what_says_or_shows_more_than_a_role_may_takes_the_next() {
        let file = json!({ "path": null, "text": "", "folder": "/", "profile": null, "only": [],
                           "environment": { "text": {} } });
        let start = |verb: &str, file: &Value, environment: Value, changes: Value| {
            json!({ "verb": verb, "targets": ["api"], "file": file, "update_env": environment, "changes": changes,
                    "no_wait": false })
        };
        let whom = |verb: &str| json!({ "verb": verb, "targets": ["api"] });
        let waiting = |verb: &str| json!({ "verb": verb, "targets": ["api"], "no_wait": false });
        let mut table = vec![
            (json!({ "verb": "ping" }), Role::View),
            (whom("ready"), Role::View),
            (json!({ "verb": "list", "targets": [], "connections": true, "detail": true }), Role::View),
            (whom("pid"), Role::View),
            (
                json!({ "verb": "logs", "targets": [], "lines": 1, "follow": true, "stream": null }),
                Role::View,
            ),
            (waiting("stop"), Role::Operate),
            (waiting("promote"), Role::Operate),
            (waiting("rollback"), Role::Operate),
            (json!({ "verb": "scale", "target": "api", "count": "2", "no_wait": false }), Role::Operate),
            (json!({ "verb": "signal", "signal": "HUP", "targets": ["api"] }), Role::Operate),
            (whom("reset"), Role::Operate),
            (json!({ "verb": "reload-logs" }), Role::Operate),
            (waiting("delete"), Role::Admin),
            (
                json!({ "verb": "launch", "file": file, "force": false, "update_env": false, "no_wait": false }),
                Role::Admin,
            ),
            (
                json!({ "verb": "apply", "file": file, "dry_run": true, "prune": false, "no_wait": false }),
                Role::Admin,
            ),
            (json!({ "verb": "send", "line": "x", "targets": ["api"] }), Role::Admin),
            (json!({ "verb": "kill" }), Role::Admin),
            (json!({ "verb": "save", "force": false }), Role::Admin),
            (json!({ "verb": "cleardump" }), Role::Admin),
            (json!({ "verb": "resurrect" }), Role::Admin),
            (whom("environ"), Role::Admin),
            (whom("flush"), Role::Admin),
        ];
        for verb in ["start", "restart", "reload"] {
            table.push((start(verb, &Value::Null, Value::Null, json!({})), Role::Operate));
            table.push((start(verb, &file, Value::Null, json!({})), Role::Admin));
            table.push((start(verb, &Value::Null, json!({ "text": {} }), json!({})), Role::Admin));
            table.push((start(verb, &Value::Null, Value::Null, json!({ "script": "\"x\"" })), Role::Admin));
        }
        for (text, role) in table {
            let request: Request = serde_json::from_value(text.clone()).expect("a request");
            assert_eq!(needed(&request), role, "{text}");
        }
    }

    #[test]
    fn a_role_goes_by_user_and_group_and_the_greater_one_holds() {
        let members = |users: &[u32], groups: &[u32]| Members {
            users: users.iter().copied().collect(),
            groups: groups.iter().copied().collect(),
        };
        let guests = Guests { view: members(&[1, 2], &[50]), operate: members(&[2], &[60]) };
        let owner = 9;
        for (uid, groups, role) in [
            (9, &[][..], Some(Role::Admin)),
            (0, &[], Some(Role::Admin)),
            (1, &[], Some(Role::View)),
            (2, &[], Some(Role::Operate)),
            (1, &[60], Some(Role::Operate)),
            (3, &[7, 50], Some(Role::View)),
            (3, &[60, 50], Some(Role::Operate)),
            // A user's number is no group's.
            (50, &[1, 2], None),
            (3, &[0, 9], None),
        ] {
            assert_eq!(guests.role(uid, groups, owner), role, "{uid} {groups:?}");
        }
        assert_eq!(Guests::default().role(3, &[50], owner), None);
        assert!(Role::View < Role::Operate && Role::Operate < Role::Admin);
    }
}
