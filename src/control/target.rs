//! Targets: what people write to say whom a command is about → apps and slots. Pure: a file is the path
//! that an app came from, and is never opened here.
//!
//! The rule is PM2's: `all`, `/regex/` over names, else a name, else a namespace, else an id, else a script's file
//! name with its extension. So an app that is called `0` can still be reached, and the word is never guessed at.
//! No name has a slash: an absolute path means the apps that came from this file or run it, and `namespace/name`
//! one app.

use std::path::{Path, PathBuf};

use regex_lite::Regex;
use thiserror::Error;

use crate::supervisor::event::{AppId, Scope, SlotId};

/// The longest target, in bytes: PATH_MAX, for files.
const LENGTH_LIMIT: usize = 4096;

/// An app as far as a target can mean it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its handle.
    pub app: AppId,
    /// Its name, unique in its namespace only.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The ecosystem file that it came from; none for standard input.
    pub file: Option<&'a Path>,
    /// The path of its script, links not followed; none where it runs a command.
    pub script: Option<PathBuf>,
    /// Its slots: the ids that `list` shows.
    pub slots: Vec<SlotId>,
}

/// Why a target means nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// No app, namespace or id of that name.
    #[error("no app, namespace or id is called \"{target}\"{}", did_you_mean(.nearest))]
    Unknown {
        /// As written.
        target: String,
        /// The name that is nearest to it, when one is near.
        nearest: Option<String>,
    },
    /// A valid expression that no name matches.
    #[error("no app's name matches {target}")]
    NoMatch {
        /// As written.
        target: String,
    },
    /// A file that no app came from, and none runs.
    #[error("no app was started from {target}; `clusterd describe` shows the file of each app")]
    NoFile {
        /// As written.
        target: String,
    },
    /// Not a valid expression.
    #[error("{target} is not a regular expression: {cause}")]
    BadRegex {
        /// As written.
        target: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Nobody types this.
    #[error("a target is longer than {LENGTH_LIMIT} bytes")]
    TooLong,
}

fn did_you_mean(nearest: &Option<String>) -> String {
    let hint = "; `clusterd list` shows what there is";
    nearest.as_ref().map_or_else(|| hint.to_owned(), |name| format!("; did you mean \"{name}\"?"))
}

/// The apps and slots that `targets` mean, each once, in the order in which they were named. No target
/// at all means every app. A slot of an app that is meant as a whole is not named apart.
pub fn resolve(targets: &[String], among: &[Candidate<'_>]) -> Result<Vec<(AppId, Scope)>, TargetError> {
    if targets.is_empty() {
        return Ok(whole(among.iter()));
    }
    let mut found = Vec::new();
    for target in targets {
        found.extend(one(target, among)?);
    }
    Ok(unique(&found))
}

fn one(target: &str, among: &[Candidate<'_>]) -> Result<Vec<(AppId, Scope)>, TargetError> {
    if target.len() > LENGTH_LIMIT {
        return Err(TargetError::TooLong);
    }
    if let Some(path) = file(target) {
        return of_file(target, path, among);
    }
    if target == "all" {
        return Ok(whole(among.iter()));
    }
    if let Some(pattern) = expression(target) {
        return matching(target, pattern, among);
    }
    let named = whole(among.iter().filter(|app| is_called(app, target)));
    let grouped = || whole(among.iter().filter(|app| app.namespace == target));
    let numbered = || {
        let id = target.parse().ok().map(SlotId)?;
        among.iter().find(|app| app.slots.contains(&id)).map(|app| vec![(app.app, Scope::Slot(id))])
    };
    let scripted = || whole(among.iter().filter(|app| runs(app, target)));
    let found = Some(named)
        .filter(|found| !found.is_empty())
        .or_else(|| Some(grouped()).filter(|found| !found.is_empty()))
        .or_else(numbered)
        .or_else(|| Some(scripted()).filter(|found| !found.is_empty()));
    found.ok_or_else(|| TargetError::Unknown { target: target.to_owned(), nearest: nearest(target, among) })
}

/// `name`, or `namespace/name`.
fn is_called(app: &Candidate<'_>, target: &str) -> bool {
    app.name == target || target.split_once('/') == Some((app.namespace, app.name))
}

/// `server.js`, wherever it is. Without an extension it would be any app that runs `sleep`.
fn runs(app: &Candidate<'_>, target: &str) -> bool {
    let name = app.script.as_deref().and_then(Path::file_name);
    target.contains('.') && name.is_some_and(|name| name == target)
}

/// The path, when the target is an absolute one; `/…/` is an expression.
pub fn file(target: &str) -> Option<&Path> {
    (target.starts_with('/') && !target.ends_with('/')).then(|| Path::new(target))
}

fn of_file(target: &str, path: &Path, among: &[Candidate<'_>]) -> Result<Vec<(AppId, Scope)>, TargetError> {
    let found =
        whole(among.iter().filter(|app| app.file == Some(path) || app.script.as_deref() == Some(path)));
    if found.is_empty() { Err(TargetError::NoFile { target: target.to_owned() }) } else { Ok(found) }
}

/// The inside of `/…/`.
fn expression(target: &str) -> Option<&str> {
    target.strip_prefix('/')?.strip_suffix('/').filter(|pattern| !pattern.is_empty())
}

fn matching(
    target: &str,
    pattern: &str,
    among: &[Candidate<'_>],
) -> Result<Vec<(AppId, Scope)>, TargetError> {
    let regex = Regex::new(pattern)
        .map_err(|cause| TargetError::BadRegex { target: target.to_owned(), cause: cause.to_string() })?;
    let found = whole(among.iter().filter(|app| regex.is_match(app.name)));
    if found.is_empty() { Err(TargetError::NoMatch { target: target.to_owned() }) } else { Ok(found) }
}

fn whole<'a>(apps: impl Iterator<Item = &'a Candidate<'a>>) -> Vec<(AppId, Scope)> {
    apps.map(|app| (app.app, Scope::All)).collect()
}

fn unique(found: &[(AppId, Scope)]) -> Vec<(AppId, Scope)> {
    let mut kept: Vec<(AppId, Scope)> = Vec::new();
    for &(app, scope) in found {
        let covered = scope != Scope::All && found.contains(&(app, Scope::All));
        if !covered && !kept.contains(&(app, scope)) {
            kept.push((app, scope));
        }
    }
    kept
}

fn nearest(target: &str, among: &[Candidate<'_>]) -> Option<String> {
    let limit = (target.chars().count() / 3).max(2);
    let words = among.iter().flat_map(|app| [app.name, app.namespace]);
    let distances = words.map(|word| (strsim::damerau_levenshtein(target, word), word));
    distances.filter(|(distance, _)| *distance <= limit).min().map(|(_, word)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: AppId = AppId(1);
    const WEB: AppId = AppId(2);
    const ZERO: AppId = AppId(3);

    fn apps() -> Vec<Candidate<'static>> {
        let app = |app, name, namespace, slots: &[u32]| Candidate {
            app,
            name,
            namespace,
            file: (namespace == "front").then_some(Path::new("/srv/front.toml")),
            script: (name == "api").then(|| PathBuf::from("/srv/server.js")),
            slots: slots.iter().map(|id| SlotId(*id)).collect(),
        };
        vec![app(API, "api", "back", &[0, 1]), app(WEB, "web", "front", &[2]), app(ZERO, "0", "front", &[3])]
    }

    fn resolved(targets: &[&str]) -> Result<Vec<(AppId, Scope)>, String> {
        let targets: Vec<String> = targets.iter().map(|text| (*text).to_owned()).collect();
        resolve(&targets, &apps()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_means_what_it_says() {
        let all = |apps: &[AppId]| Ok(apps.iter().map(|app| (*app, Scope::All)).collect::<Vec<_>>());
        assert_eq!(resolved(&[]), all(&[API, WEB, ZERO]));
        assert_eq!(resolved(&["all"]), all(&[API, WEB, ZERO]));
        assert_eq!(resolved(&["web"]), all(&[WEB]));
        assert_eq!(resolved(&["front"]), all(&[WEB, ZERO]));
        assert_eq!(resolved(&["/^[aw]/"]), all(&[API, WEB]));
        assert_eq!(resolved(&["1"]), Ok(vec![(API, Scope::Slot(SlotId(1)))]));
        assert_eq!(resolved(&["server.js"]), all(&[API]));
        assert_eq!(resolved(&["/srv/server.js"]), all(&[API]));
        assert_eq!(resolved(&["front/web"]), all(&[WEB]));
        assert_eq!(resolved(&["/srv/front.toml"]), all(&[WEB, ZERO]));
        assert_eq!(resolved(&["/srv/./front.toml", "2"]), all(&[WEB, ZERO]));
    }

    #[test]
    fn another_namespaces_app_of_that_name_and_an_unknown_file_are_nobody() {
        assert!(resolved(&["back/web"]).unwrap_err().contains("\"back/web\""));
        assert!(resolved(&["front/"]).is_err());
        assert!(resolved(&["server"]).is_err());
        let error = resolved(&["api", "/srv/web"]).unwrap_err();
        assert!(error.starts_with("no app was started from /srv/web; "), "{error}");
    }

    #[test]
    fn a_name_wins_over_an_id() {
        assert_eq!(resolved(&["0"]), Ok(vec![(ZERO, Scope::All)]));
    }

    #[test]
    fn each_is_named_once_in_the_order_of_the_wish() {
        let slot = |id| (API, Scope::Slot(SlotId(id)));
        assert_eq!(
            resolved(&["web", "1", "1", "front"]).unwrap(),
            [(WEB, Scope::All), slot(1), (ZERO, Scope::All)]
        );
        assert_eq!(resolved(&["1", "api"]).unwrap(), [(API, Scope::All)]);
    }

    #[test]
    fn an_unknown_target_names_the_nearest_and_does_nothing_else() {
        let error = resolved(&["web", "appi"]).unwrap_err();
        assert_eq!(error, "no app, namespace or id is called \"appi\"; did you mean \"api\"?");
        assert!(resolved(&["entirely-different"]).unwrap_err().contains("`clusterd list`"));
        assert!(resolved(&["9"]).is_err());
        assert!(resolved(&["4294967296"]).is_err());
        assert!(resolved(&["-1"]).is_err());
        assert!(resolved(&[""]).is_err());
    }

    #[test]
    fn expressions_that_are_wrong_or_match_nothing_say_so() {
        assert_eq!(resolved(&["/zzz/"]).unwrap_err(), "no app's name matches /zzz/");
        assert!(resolved(&["/(/"]).unwrap_err().contains("not a regular expression"));
        assert!(resolved(&["//"]).is_err());
        assert!(resolved(&["/"]).is_err());
        assert!(resolved(&[&"x".repeat(5000)]).unwrap_err().contains("longer"));
    }
}
