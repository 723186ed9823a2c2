//! `[daemon] access`: who besides the supervisor's own user and root may talk to it, and how far they may go. Refuses
//! what would let in everybody by accident: each user and group is named, there is no word for all of them, and nobody
//! is given what only the owner has.

use std::fmt;

use toml::de::DeValue;

use super::error::quoted;
use super::process::{self, Account};
use super::raw;
use super::value::{self, Refusal};

/// Users and groups of one role.
pub(super) const MAX_GUESTS: usize = 64;

/// What stands before the name or number of a group.
const GROUP: char = '@';

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// They may look.
    pub view: Vec<Guest>,
    /// They may stop, start and reload what is known, too.
    pub operate: Vec<Guest>,
}

/// A user, or whoever is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guest {
    /// This user.
    User(Account),
    /// Members of this group.
    Group(Account),
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Guest::User(account) => write!(f, "user {account}"),
            Guest::Group(account) => write!(f, "group {account}"),
        }
    }
}

/// Reads `{ view = ["alice", "@staff"], operate = [1000] }`.
pub(super) fn read(value: &DeValue<'_>) -> Result<Access, Refusal> {
    let table = value.as_table().ok_or(Refusal::WRONG)?;
    let mut access = Access::default();
    for entry in raw::entries(table) {
        match entry.written {
            "view" => access.view = guests("view", entry.value())?,
            "operate" => access.operate = guests("operate", entry.value())?,
            "admin" => {
                return Err(Refusal::said(
                    "admin is given to nobody",
                    "whoever may say what is run has all rights of clusterd's own user: let them become that user \
                     (sudo -u)",
                ));
            }
            other => {
                return Err(Refusal::said(
                    format!("{} is none of its roles", quoted(other)),
                    "known are view and operate",
                ));
            }
        }
    }
    Ok(access)
}

fn guests(role: &str, value: &DeValue<'_>) -> Result<Vec<Guest>, Refusal> {
    match value.as_array() {
        None => Ok(vec![guest(role, value)?]),
        Some(items) if items.len() > MAX_GUESTS => Err(Refusal::said(
            format!("{role} has {} users and groups, which are too many", items.len()),
            format!("list {MAX_GUESTS} at most, or one group that all of them are in"),
        )),
        Some(items) => items.iter().map(|item| guest(role, item.get_ref())).collect(),
    }
}

fn guest(role: &str, value: &DeValue<'_>) -> Result<Guest, Refusal> {
    let wrong = |_| {
        Refusal::said(
            format!("{role} takes users and groups, got {}", value::shown(value)),
            format!("write {role} = [\"alice\", 1000, \"@staff\", \"@50\"]"),
        )
    };
    match value.as_str().and_then(|text| text.strip_prefix(GROUP)) {
        Some(group) => process::account_of(group).map(Guest::Group).map_err(wrong),
        None => process::account(value).map(Guest::User).map_err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::de::DeTable;

    fn read_text(text: &str) -> Result<Access, Refusal> {
        let text = format!("access = {text}");
        let table = DeTable::parse(&text).expect("TOML").into_inner();
        read(table.get("access").expect("it is there").get_ref())
    }

    #[test]
    fn users_and_groups_are_named_or_numbered() {
        let name = |name: &str| Account::Name(name.to_owned());
        for (text, view, operate) in [
            ("{}", vec![], vec![]),
            ("{ view = \"alice\" }", vec![Guest::User(name("alice"))], vec![]),
            (
                "{ view = [\"@staff\", \"@50\"], operate = [1000, \"1001\"] }",
                vec![Guest::Group(name("staff")), Guest::Group(Account::Id(50))],
                vec![Guest::User(Account::Id(1000)), Guest::User(Account::Id(1001))],
            ),
        ] {
            assert_eq!(read_text(text), Ok(Access { view, operate }), "{text}");
        }
    }

    #[test]
    fn nobody_is_let_in_by_what_names_nobody() {
        let many = format!("{{ view = [{}] }}", "1, ".repeat(MAX_GUESTS + 1));
        for text in [
            "true",
            "\"alice\"",
            "{ view = true }",
            "{ view = \"\" }",
            "{ view = \"@\" }",
            "{ view = [\"a:b\"] }",
            "{ view = [-1] }",
            "{ view = [4294967295] }",
            "{ view = [\"@4294967295\"] }",
            "{ view = [[\"alice\"]] }",
            "{ admin = [\"alice\"] }",
            "{ reader = [\"alice\"] }",
            &many,
        ] {
            assert!(read_text(text).is_err(), "{text}");
        }
    }
}
