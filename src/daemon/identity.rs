//! As whom a worker runs: names looked up in the account files at each start, since accounts come and go.
//! Whoever is not found fails the start; nobody ever runs as the supervisor's own user by mistake.

use std::ffi::{OsStr, OsString};

use crate::config::{Access, Account, ProcessSettings};
use crate::supervisor::event::SpawnFailure;
use crate::sys::accounts::{self, User};
use crate::sys::settings::Identity;
use crate::sys::{process, socket};

use super::start::permanent;

/// As whom, where the file says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// None where that is whom the supervisor runs as, and nothing needs to change.
    pub(super) identity: Option<Identity>,
    /// Its user is another one than the supervisor's.
    pub(super) is_other: bool,
    /// HOME and the like: the user's own in place of the supervisor's. None: to be left out.
    pub(super) variables: Vec<(&'static str, Option<OsString>)>,
}

impl Who {
    /// Its user, where that is another one than the supervisor's.
    pub(super) fn other_user(&self) -> Option<u32> {
        self.other().map(|identity| identity.uid)
    }

    /// The same with its groups.
    pub(super) fn other(&self) -> Option<&Identity> {
        self.identity.as_ref().filter(|_| self.is_other)
    }
}

/// What the host says.
struct Host<'a> {
    passwd: &'a [u8],
    group: &'a [u8],
    /// Our own ids.
    uid: u32,
    gid: u32,
    /// setgroups(2) is allowed in our user namespace.
    setgroups: bool,
}

/// Whose the file of a Unix socket is to be: the ids of its user and group, where they are named.
pub(super) fn owner_of(access: &Access) -> Result<(Option<u32>, Option<u32>), SpawnFailure> {
    let passwd = if access.user.is_some() { read(accounts::PASSWD)? } else { Vec::new() };
    let group = if access.group.is_some() { read(accounts::GROUP)? } else { Vec::new() };
    let user = access.user.as_ref().map(|account| user_id(account, &passwd)).transpose()?;
    let group = access.group.as_ref().map(|account| group_id(account, &group)).transpose()?;
    Ok((user, group))
}

/// Whom these settings mean; none when they name neither user nor group.
pub(super) fn resolve(settings: &ProcessSettings) -> Result<Option<Who>, SpawnFailure> {
    if settings.user.is_none() && settings.group.is_none() {
        return Ok(None);
    }
    let host = Host {
        passwd: &read(accounts::PASSWD)?,
        group: &read(accounts::GROUP)?,
        uid: socket::own_uid(),
        gid: socket::own_gid(),
        setgroups: process::may_set_groups(),
    };
    find(settings, &host).map(Some)
}

fn read(path: &str) -> Result<Vec<u8>, SpawnFailure> {
    accounts::read(path).map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(libc::EFBIG);
        permanent(format!("read {path}"), errno, format!("accounts cannot be looked up: {path}: {error}"))
    })
}

fn user_id(account: &Account, passwd: &[u8]) -> Result<u32, SpawnFailure> {
    match account {
        Account::Id(uid) => Ok(*uid),
        Account::Name(name) => accounts::user_named(passwd, OsStr::new(name))
            .map(|entry| entry.uid)
            .ok_or_else(|| unknown("user", account, accounts::PASSWD)),
    }
}

fn group_id(account: &Account, group: &[u8]) -> Result<u32, SpawnFailure> {
    match account {
        Account::Id(gid) => Ok(*gid),
        Account::Name(name) => accounts::group_named(group, OsStr::new(name))
            .ok_or_else(|| unknown("group", account, accounts::GROUP)),
    }
}

fn find(settings: &ProcessSettings, host: &Host<'_>) -> Result<Who, SpawnFailure> {
    let (uid, entry) = match &settings.user {
        None => (host.uid, accounts::user_numbered(host.passwd, host.uid)),
        Some(Account::Id(uid)) => (*uid, accounts::user_numbered(host.passwd, *uid)),
        Some(account @ Account::Name(name)) => {
            let entry = accounts::user_named(host.passwd, OsStr::new(name));
            let entry = entry.ok_or_else(|| unknown("user", account, accounts::PASSWD))?;
            (entry.uid, Some(entry))
        }
    };
    let gid = match &settings.group {
        Some(account) => group_id(account, host.group)?,
        // Never the supervisor's group, which may be root's.
        None => entry.as_ref().map_or(uid, |entry| entry.gid),
    };
    let groups = match &entry {
        Some(entry) => accounts::groups_of(host.group, &entry.name, gid),
        None => vec![gid],
    };
    let is_us = (uid, gid) == (host.uid, host.gid);
    let as_it_is = is_us && (host.uid != 0 || !host.setgroups);
    Ok(Who {
        identity: (!as_it_is).then_some(Identity { uid, gid, groups }),
        is_other: uid != host.uid,
        variables: if settings.user.is_some() { variables(entry.as_ref()) } else { Vec::new() },
    })
}

fn unknown(what: &str, account: &Account, file: &str) -> SpawnFailure {
    let message = format!(
        "{what} {account} is not in {file}: correct the name, or write its number (accounts of a directory such \
         as LDAP are known by number only: `getent` shows it)"
    );
    permanent(format!("find {what} {account}"), libc::ENOENT, message)
}

/// What login(1) would set. A number without an entry has a home all the same, since programs look for one.
fn variables(entry: Option<&User>) -> Vec<(&'static str, Option<OsString>)> {
    let or = |text: &OsString, default: &str| {
        if text.is_empty() { OsString::from(default) } else { text.clone() }
    };
    vec![
        ("HOME", Some(entry.map_or_else(|| "/".into(), |entry| or(&entry.home, "/")))),
        ("USER", entry.map(|entry| entry.name.clone())),
        ("LOGNAME", entry.map(|entry| entry.name.clone())),
        ("SHELL", entry.map(|entry| or(&entry.shell, "/bin/sh"))),
    ]
}

/// What keeps a process from becoming `uid`: the words of an error.
pub(super) fn why_refused(errno: i32) -> String {
    let own = socket::own_uid();
    match errno {
        libc::EPERM if !process::may_set_groups() => {
            "; this user namespace does not allow setgroups (/proc/self/setgroups says deny), as in a rootless \
             container of one user: map users and groups with newuidmap and newgidmap, or leave user and group \
             out"
                .to_owned()
        }
        libc::EPERM if own != 0 => format!(
            "; clusterd runs as uid {own} and may not become somebody else: run it as root, or leave user and \
             group out"
        ),
        libc::EPERM => "; clusterd lacks CAP_SETUID or CAP_SETGID (a container's --cap-drop, or the unit's \
                        CapabilityBoundingSet)"
            .to_owned(),
        libc::EINVAL => "; this user namespace has no such number (/proc/self/uid_map, /proc/self/gid_map)".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0::/root:/bin/bash\nwww:x:33:34::/var/www:\nodd:x:7:8:::/bin/false\n";
    const GROUP: &[u8] = b"www:x:34:\nadm:x:4:www\ndocker:x:998:www,root\n";

    fn settings(user: Option<Account>, group: Option<Account>) -> ProcessSettings {
        ProcessSettings { user, group, ..ProcessSettings::default() }
    }

    fn name(name: &str) -> Option<Account> {
        Some(Account::Name(name.to_owned()))
    }

    fn host(uid: u32, gid: u32) -> Host<'static> {
        Host { passwd: PASSWD, group: GROUP, uid, gid, setgroups: true }
    }

    fn identity(settings: &ProcessSettings, host: &Host<'_>) -> Option<(u32, u32, Vec<u32>)> {
        let who = find(settings, host).expect("they exist");
        who.identity.map(|identity| (identity.uid, identity.gid, identity.groups))
    }

    #[test]
    fn a_user_brings_its_group_and_its_supplementary_groups() {
        let root = host(0, 0);
        let www = Some((33, 34, vec![34, 4, 998]));
        assert_eq!(identity(&settings(name("www"), None), &root), www);
        assert_eq!(identity(&settings(Some(Account::Id(33)), None), &root), www);
        assert_eq!(identity(&settings(name("www"), name("adm")), &root), Some((33, 4, vec![4, 998])));
        assert_eq!(identity(&settings(None, name("adm")), &root), Some((0, 4, vec![4, 998])));
        assert_eq!(identity(&settings(name("root"), None), &root), Some((0, 0, vec![0, 998])));
    }

    #[test]
    fn a_number_works_without_an_entry_and_never_gets_the_supervisors_group() {
        let root = host(0, 0);
        assert_eq!(identity(&settings(Some(Account::Id(4711)), None), &root), Some((4711, 4711, vec![4711])));
        let both = settings(Some(Account::Id(4711)), Some(Account::Id(12)));
        assert_eq!(identity(&both, &root), Some((4711, 12, vec![12])));
        let who = find(&both, &root).expect("numbers always work");
        let expected = [("HOME", Some("/".into())), ("USER", None), ("LOGNAME", None), ("SHELL", None)];
        assert_eq!((who.variables, who.is_other), (expected.to_vec(), true));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        for (user, group, text) in [
            (name("0day"), None, "user \"0day\" is not in /etc/passwd"),
            (name("1000x"), None, "user \"1000x\" is not in /etc/passwd"),
            (name("www"), name("nope"), "group \"nope\" is not in /etc/group"),
            (None, name("nope"), "group \"nope\" is not in /etc/group"),
        ] {
            let failure = find(&settings(user, group), &host(0, 0)).expect_err("nobody");
            assert!(failure.message.contains(text), "{}", failure.message);
            assert_eq!((failure.errno, failure.transient), (libc::ENOENT, false));
        }
    }

    #[test]
    fn who_already_is_that_user_needs_no_right_to_become_it() {
        assert_eq!(identity(&settings(name("www"), None), &host(33, 34)), None);
        assert_eq!(identity(&settings(Some(Account::Id(4711)), None), &host(4711, 4711)), None);
        assert!(identity(&settings(name("www"), name("adm")), &host(33, 34)).is_some());
        // A root of a user namespace of one user cannot set groups, and has none to lose.
        let alone = Host { setgroups: false, ..host(0, 0) };
        assert_eq!(identity(&settings(name("root"), None), &alone), None);
        assert!(identity(&settings(name("www"), None), &alone).is_some());
    }

    #[test]
    fn home_and_shell_are_the_users() {
        let who = |user| find(&settings(name(user), None), &host(0, 0)).expect("they exist").variables;
        let of = |user| who(user).into_iter().map(|(_, value)| value.unwrap()).collect::<Vec<_>>();
        assert_eq!(of("www"), ["/var/www", "www", "www", "/bin/sh"]);
        assert_eq!(of("odd"), ["/", "odd", "odd", "/bin/false"]);
        let group_only = find(&settings(None, name("adm")), &host(0, 0)).expect("it exists");
        assert_eq!((group_only.variables, group_only.is_other), (Vec::new(), false));
    }
}
