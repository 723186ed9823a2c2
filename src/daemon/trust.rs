//! With whose rights a log file is handled, as root: where somebody else could lead its path elsewhere, root's rights
//! would be theirs. With our own where nobody can; with those of the app's user where some user or group can, since a
//! link then leads nobody further than that user gets alone, whenever it was put there. That may be a third one, who
//! deploys the app: so far the app's user would be led as well, did the app write the file itself, and never under
//! another last name, for no link is followed there. Else not at all: as root's own, or where just anybody can.

use std::fmt;
use std::io;
use std::path::Path;

use crate::home::{self, Intruder, Who};
use crate::supervisor::event::SpawnFailure;
use crate::sys::behalf::Behalf;
use crate::sys::settings::Identity;
use crate::sys::socket;

use super::catalog::Recipe;
use super::identity::{self, Who as Worker};
use super::start::permanent;

/// Why a log file is left alone.
#[derive(Debug)]
pub(super) struct Refused {
    errno: i32,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refused {
    pub(super) fn into_failure(self, path: &Path) -> SpawnFailure {
        let shown = path.display();
        permanent(format!("open {shown}"), self.errno, format!("log file {shown}: {}", self.message))
    }
}

/// With whose rights the log file of an app at this path is handled.
pub(super) fn behalf(recipe: &Recipe, path: &Path) -> Result<Behalf, Refused> {
    if socket::own_uid() != 0 {
        return Ok(Behalf::default());
    }
    let found = home::file_intruders(path);
    if found.as_ref().is_ok_and(Vec::is_empty) {
        return Ok(Behalf::default());
    }
    let who = identity::resolve(&recipe.spec.process)
        .map_err(|failure| Refused { errno: failure.errno, message: failure.message })?;
    let user = who.as_ref().and_then(Worker::other);
    let found = match found {
        // Where root of this host is nobody, as in a home on the network.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => look_as(user, path, error),
        found => found,
    };
    let unknown = |error: io::Error| Refused {
        errno: error.raw_os_error().unwrap_or(0),
        message: match error.raw_os_error() {
            Some(libc::ENOTDIR) => {
                format!("its folder cannot be made: {error}; make it, or name another path")
            }
            _ => format!("who can write to its folder cannot be found out: {error}; name another path"),
        },
    };
    match judge(&found.map_err(unknown)?, user.map(|user| user.uid)) {
        Verdict::Own => Ok(Behalf::default()),
        Verdict::Users => Ok(user.cloned().map(Behalf::of).unwrap_or_default()),
        Verdict::Nobodys(intruder) => {
            Err(Refused { errno: libc::EACCES, message: refusal(&intruder, user.map(|user| user.uid)) })
        }
    }
}

fn look_as(user: Option<&Identity>, path: &Path, error: io::Error) -> io::Result<Vec<Intruder>> {
    let Some(user) = user else { return Err(error) };
    let _guise = Behalf::of(user.clone()).begin()?;
    home::file_intruders(path)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Own,
    Users,
    Nobodys(Intruder),
}

fn judge(found: &[Intruder], user: Option<u32>) -> Verdict {
    let is_users = |intruder: &Intruder| user.is_some_and(|user| intruder.who == Who::User(user));
    let is_nobodys = |intruder: &&Intruder| intruder.leads && (user.is_none() || intruder.who == Who::Any);
    match found.iter().find(is_nobodys) {
        Some(intruder) => Verdict::Nobodys(intruder.clone()),
        None if found.iter().any(|intruder| intruder.leads || is_users(intruder)) => Verdict::Users,
        // Others have the folder of the file at most, where no link is followed.
        None => Verdict::Own,
    }
}

fn refusal(intruder: &Intruder, user: Option<u32>) -> String {
    let Intruder { path, who, mode, .. } = intruder;
    let or_user = user.map_or_else(String::new, |user| format!(", or of user {user}, whom the app runs as"));
    let or_as = match (who, user) {
        (Who::User(owner), None) => format!(", run the app as that user (user = {owner})"),
        (Who::User(_) | Who::Group(_) | Who::Any, _) => String::new(),
    };
    format!(
        "{who} can write to {} (mode {mode:03o}) and lead the file elsewhere, so a supervisor that runs as root does \
         not write there; name a path in a folder of root's{or_user}{or_as}, or name none, for the default one",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intruder(who: Who, leads: bool) -> Intruder {
        Intruder { path: "/srv".into(), who, mode: 0o755, leads }
    }

    #[test]
    fn whose_rights_are_used_goes_by_who_can_lead_the_file_elsewhere() {
        let (bob, carol) = (|leads| intruder(Who::User(7), leads), |leads| intruder(Who::User(8), leads));
        let group = intruder(Who::Group(7), false);
        let nobodys = |intruder: &Intruder| Verdict::Nobodys(intruder.clone());
        for (found, user, expected) in [
            (vec![], Some(7), Verdict::Own),
            (vec![bob(true)], Some(7), Verdict::Users),
            (vec![bob(false)], Some(7), Verdict::Users),
            (vec![bob(false), group.clone(), bob(true)], Some(7), Verdict::Users),
            (vec![bob(false)], None, Verdict::Own),
            (vec![bob(true)], None, nobodys(&bob(true))),
            (vec![bob(true), carol(true)], Some(7), Verdict::Users),
            (vec![carol(true)], Some(7), Verdict::Users),
            (vec![carol(true)], None, nobodys(&carol(true))),
            (vec![carol(false)], Some(7), Verdict::Own),
            (vec![carol(false), intruder(Who::Group(9), true)], Some(7), Verdict::Users),
            (vec![bob(true), carol(false)], Some(7), Verdict::Users),
            (vec![intruder(Who::Any, false)], Some(7), Verdict::Own),
            (vec![intruder(Who::Any, true)], Some(7), nobodys(&intruder(Who::Any, true))),
            (vec![carol(true), intruder(Who::Any, true)], Some(7), nobodys(&intruder(Who::Any, true))),
        ] {
            assert_eq!(judge(&found, user), expected, "{found:?} {user:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let alone = refusal(&intruder(Who::User(7), true), None);
        assert!(alone.starts_with("user 7 can write to /srv (mode 755)"), "{alone}");
        assert!(alone.contains("user = 7") && alone.contains("for the default one"), "{alone}");
        let other = refusal(&intruder(Who::Any, true), Some(8));
        assert!(other.contains("any user can write") && other.contains("or of user 8"), "{other}");
    }
}
