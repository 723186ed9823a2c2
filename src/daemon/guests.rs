//! `[daemon] access`: names become numbers, and the control socket is opened as far as somebody is let in. Who that is
//! the kernel says at each connection; the file's mode only lets people as far as that.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Account;
use crate::config::access::{Access, Guest};
use crate::control::role::{Guests, Members};
use crate::home;
use crate::supervisor::time::Time;
use crate::sys::accounts;
use crate::sys::unix_listener;

use super::Daemon;
use super::files::Said;

/// Modes of the control socket, for its owner and for all.
const OWNERS: u32 = 0o600;
const EVERYBODYS: u32 = 0o666;

/// To enter a folder, without seeing what is in it.
const ENTER: u32 = 0o011;

/// Between two lines about the same user, and users of whom it is known when there was one.
const TOLD_EVERY: Duration = Duration::from_secs(60);
const TOLD_OF: usize = 64;

/// Who is let in, and what was done for that.
#[derive(Debug, Default)]
pub(super) struct Gate {
    wanted: Said<Access>,
    /// What was wanted may not be what is.
    changed: bool,
    /// Somebody is let in.
    open: bool,
    opened: Option<Opened>,
    turned_away: TurnedAway,
}

impl Gate {
    /// A file was read and is applied.
    pub(super) fn hear(&mut self, access: Option<Access>, file: Option<&Path>) {
        self.wanted.hear(access, file);
        self.changed = true;
    }
}

/// The socket is open to all.
#[derive(Clone, Copy, Debug, Default)]
struct Opened {
    /// The mode that the runtime folder had, where others could not enter it before.
    folder: Option<u32>,
}

/// Of whom it was told that they were refused: somebody who tries all the time fills no log.
#[derive(Debug, Default)]
struct TurnedAway {
    /// When it was told of a user last, and how often it was not since.
    told: BTreeMap<u32, (Time, u64)>,
}

impl TurnedAway {
    /// How many lines about this user were left out before this one; none: this one is left out, too.
    fn tell(&mut self, uid: u32, now: Time) -> Option<u64> {
        if let Some((told, times)) = self.told.get_mut(&uid)
            && now.since(*told) < TOLD_EVERY
        {
            *times += 1;
            return None;
        }
        if self.told.len() >= TOLD_OF
            && !self.told.contains_key(&uid)
            && let Some(oldest) = self.told.iter().min_by_key(|(_, (told, _))| *told).map(|(uid, _)| *uid)
        {
            self.told.remove(&oldest);
        }
        self.told.insert(uid, (now, 0)).map_or(Some(0), |(_, times)| Some(times))
    }
}

impl Daemon {
    /// Lets in whom the files name, where that is to be done.
    pub(super) fn look_after_guests(&mut self) {
        if !std::mem::take(&mut self.gate.changed) {
            return;
        }
        let wanted = self.gate.wanted.get().cloned().unwrap_or_default();
        let (guests, unknown) = resolved(&wanted);
        for text in unknown {
            log::warn!("access: {text}; nobody is let in by that");
        }
        self.gate.open = !guests.is_empty();
        let mut incoming = Vec::new();
        self.server.let_in(guests, &mut incoming);
        self.take_in(incoming);
        self.set_gate();
    }

    /// Opens the socket and its folder to all where somebody is let in, and closes them where nobody is any more.
    pub(super) fn set_gate(&mut self) {
        let done = match (self.gate.open, self.gate.opened) {
            (false, None) => return,
            (true, _) => self.open_gate(),
            (false, Some(opened)) => self.close_gate(opened),
        };
        if let Err(error) = done {
            log::warn!(
                "access: {}: who can come to the control socket cannot be changed: {error}",
                self.home.runtime.display()
            );
        } else if self.gate.open
            && let Some((folder, mode)) = closed_above(&self.home.runtime)
        {
            log::warn!(
                "access: nobody else gets as far as the control socket: {} (mode {mode:03o}) lets no other user in; \
                 choose a home that others can come to, with --home DIR",
                folder.display()
            );
        }
    }

    fn open_gate(&mut self) -> io::Result<()> {
        self.set_socket(EVERYBODYS)?;
        let folder = File::open(&self.home.runtime)?;
        let mode = folder.metadata()?.mode() & 0o7777;
        let opened = self.gate.opened.get_or_insert_default();
        if mode & ENTER != ENTER {
            opened.folder = opened.folder.or(Some(mode));
            folder.set_permissions(Permissions::from_mode(mode | ENTER))?;
        }
        Ok(())
    }

    fn close_gate(&mut self, opened: Opened) -> io::Result<()> {
        self.set_socket(OWNERS)?;
        self.gate.opened = None;
        self.close_folder(opened)
    }

    fn set_socket(&self, mode: u32) -> io::Result<()> {
        let access = unix_listener::Access { mode, user: None, group: None };
        unix_listener::set_access(&self.home.socket(), None, access).map(|_| ())
    }

    fn close_folder(&self, opened: Opened) -> io::Result<()> {
        let Some(mode) = opened.folder else { return Ok(()) };
        File::open(&self.home.runtime)?.set_permissions(Permissions::from_mode(mode))
    }

    /// At the end: the folder is left as it was found.
    pub(super) fn leave_gate(&mut self) {
        let Some(opened) = self.gate.opened.take() else { return };
        if let Err(error) = self.close_folder(opened) {
            log::debug!("{}: {error}", self.home.runtime.display());
        }
    }

    /// Who was refused, or asked for more than it may, is told of by name of user and process.
    pub(super) fn tell_turned_away(&mut self, (uid, pid): (u32, i32), why: &str) {
        let Some(more) = self.gate.turned_away.tell(uid, self.now) else { return };
        let others =
            if more == 0 { String::new() } else { format!(" ({more} times more since the last line)") };
        log::warn!("control socket: pid {pid} of uid {uid} {why}{others}");
    }
}

/// The first folder on the way that other users cannot enter.
fn closed_above(folder: &Path) -> Option<(PathBuf, u32)> {
    let real = fs::canonicalize(folder).ok()?;
    let closed = |folder: &Path| {
        let mode = fs::metadata(folder).ok()?.mode() & 0o7777;
        (mode & 0o001 == 0).then(|| (folder.to_owned(), mode))
    };
    real.ancestors().filter_map(closed).last()
}

/// By number, and what is known of nobody.
fn resolved(access: &Access) -> (Guests, Vec<String>) {
    let mut host = Host::default();
    let mut unknown = Vec::new();
    let mut members = |guests: &[Guest]| {
        let mut members = Members::default();
        for guest in guests {
            match host.number(guest) {
                Ok(number) => match guest {
                    Guest::User(_) => members.users.insert(number),
                    Guest::Group(_) => members.groups.insert(number),
                },
                Err(why) => {
                    unknown.push(format!("{guest}: {why}"));
                    continue;
                }
            };
        }
        members
    };
    let (view, operate) = (members(&access.view), members(&access.operate));
    (Guests { view, operate }, unknown)
}

/// What the account files say, read when it is needed.
#[derive(Default)]
struct Host {
    passwd: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
}

impl Host {
    fn number(&mut self, guest: &Guest) -> Result<u32, String> {
        let (account, found, outside) = match guest {
            Guest::User(account @ Account::Id(id)) => (account, Some(*id), home::unmapped_user()),
            Guest::Group(account @ Account::Id(id)) => (account, Some(*id), home::unmapped_group()),
            Guest::User(account @ Account::Name(name)) => {
                let passwd = read(&mut self.passwd, accounts::PASSWD)?;
                let user = accounts::user_named(passwd, OsStr::new(name));
                (account, user.map(|user| user.uid), home::unmapped_user())
            }
            Guest::Group(account @ Account::Name(name)) => {
                let group = read(&mut self.group, accounts::GROUP)?;
                (account, accounts::group_named(group, OsStr::new(name)), home::unmapped_group())
            }
        };
        match found {
            None => Err(format!("the account files have no {account}")),
            Some(number) if Some(number) == outside => {
                Err("in this user namespace everybody from outside has this number".to_owned())
            }
            Some(number) => Ok(number),
        }
    }
}

fn read<'a>(kept: &'a mut Option<Vec<u8>>, path: &str) -> Result<&'a [u8], String> {
    if kept.is_none() {
        *kept = Some(accounts::read(path).map_err(|error| format!("{path}: {error}"))?);
    }
    Ok(kept.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_and_names_that_nobody_has_let_nobody_in() {
        let name = |name: &str| Account::Name(name.to_owned());
        let access = Access {
            view: vec![Guest::User(Account::Id(4711)), Guest::Group(name("no such group"))],
            operate: vec![Guest::User(name("root")), Guest::Group(Account::Id(50))],
        };
        let (guests, unknown) = resolved(&access);
        assert_eq!(guests.view, Members { users: [4711].into(), groups: [].into() });
        assert_eq!(guests.operate, Members { users: [0].into(), groups: [50].into() });
        let [text] = &unknown[..] else { panic!("{unknown:?}") };
        assert!(text.contains("no such group"), "{text}");
    }

    #[test]
    fn who_tries_again_and_again_is_told_of_once_a_minute_and_counted() {
        let mut turned_away = TurnedAway::default();
        let at = |seconds| Time::from_start(Duration::from_secs(seconds));
        assert_eq!(turned_away.tell(1, at(0)), Some(0));
        assert_eq!((turned_away.tell(1, at(1)), turned_away.tell(1, at(59))), (None, None));
        assert_eq!(turned_away.tell(2, at(59)), Some(0), "another user");
        assert_eq!(turned_away.tell(1, at(60)), Some(2));
        assert_eq!(turned_away.tell(1, at(61)), None);
        for uid in 0..1000 {
            turned_away.tell(uid, at(200));
        }
        assert!(turned_away.told.len() <= TOLD_OF);
    }
}
