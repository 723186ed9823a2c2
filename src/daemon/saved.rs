//! The saved list: what brings every app back. One form for the list that is written at every change
//! (`apps.json`) and for the one that `clusterd save` writes (`dump.json`).
//!
//! An app is saved as it was told: the text that it is defined in, with all that its meaning depends on (folder,
//! profile, `--only`), and the environment of who started it; beside that, what was wished of it since. Neither a
//! file that was edited, broken or deleted meanwhile nor a start that came without one changes what comes back;
//! `reload` reads files again as ever.
//!
//! Each version of the form that was ever written is read for ever. A file is whole or not there: it is written under
//! another name in the same folder, synced, renamed, and the folder synced. One that cannot be read is moved aside
//! and never deleted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::changes::Changes;
use crate::control::protocol::Environment;
use crate::supervisor::policy::AppName;

/// The form that is written.
const VERSION: u32 = 1;

/// The longest file that is read, in bytes.
const LIMIT: u64 = 64 * 1024 * 1024;

/// Files of one name that can be moved aside.
const ASIDE: u32 = 1000;

/// A list of apps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) version: u32,
    /// Of which start of the host it is; empty where the host does not say.
    #[serde(default)]
    pub(super) boot_id: String,
    /// The supervisor ended as it was told to. When it is killed instead, this stays false.
    #[serde(default)]
    pub(super) ended: bool,
    /// The apps, each behind those that it depends on.
    pub(super) apps: Vec<SavedApp>,
    /// What they are defined in, each once.
    pub(super) sources: Vec<SavedSource>,
    /// What they were started from, each once.
    pub(super) environments: Vec<Environment>,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedApp {
    pub(super) name: String,
    pub(super) namespace: String,
    /// Its place in `sources`.
    pub(super) source: usize,
    /// Its place in `environments`.
    pub(super) environment: usize,
    /// Workers wanted, where that is not what the definition says: the app was scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instances: Option<u32>,
    /// Which of its workers are stopped.
    #[serde(default, skip_serializing_if = "Stopped::is_none")]
    pub(super) stopped: Stopped,
    /// What was told of it by flags, and holds over its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) changes: Option<Changes>,
}

impl SavedApp {
    /// What it is called, for people.
    pub(super) fn called(&self) -> AppName {
        AppName { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// Which workers of an app are stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stopped {
    /// None of them.
    #[default]
    None,
    /// All, however many that will be.
    All,
    /// Some, by their place in the order of instance, from 0.
    Some(Vec<u32>),
}

impl Stopped {
    fn is_none(&self) -> bool {
        *self == Stopped::None
    }
}

/// A text that defines apps, and what its meaning depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedSource {
    /// The file that it came from, to be read again at a reload; none where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    /// The folder that relative paths start from.
    pub(super) folder: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) only: Vec<String>,
    /// An ecosystem file, as it was when the app took it over.
    pub(super) text: String,
}

/// Why a list cannot be read.
#[derive(Debug, Error)]
pub(super) enum Unread {
    /// By the host.
    #[error("{0}")]
    Host(#[from] io::Error),
    /// It is no list.
    #[error("it is broken: {0}")]
    Broken(String),
    /// It is of a later clusterd.
    #[error(
        "a newer clusterd wrote it (form {0}, this one knows up to {VERSION}); with that one under its old name it \
         can be read again"
    )]
    Newer(u32),
}

impl Saved {
    pub(super) fn new(boot_id: String) -> Saved {
        Saved { version: VERSION, boot_id, ..Saved::default() }
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    fn decode(bytes: &[u8]) -> Result<Saved, Unread> {
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        let broken = |error: serde_json::Error| Unread::Broken(error.to_string());
        // First, since all else may be another in a newer form.
        let Form { version } = serde_json::from_slice(bytes).map_err(broken)?;
        match version {
            VERSION => {}
            0 => return Err(Unread::Broken("there is no form 0".to_owned())),
            newer => return Err(Unread::Newer(newer)),
        }
        let saved: Saved = serde_json::from_slice(bytes).map_err(broken)?;
        let lacks = |app: &&SavedApp| {
            saved.sources.get(app.source).is_none() || saved.environments.get(app.environment).is_none()
        };
        match saved.apps.iter().find(lacks) {
            Some(app) => Err(Unread::Broken(format!("what app {:?} is made of is not in it", app.name))),
            None => Ok(saved),
        }
    }
}

/// The list of this file; none where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Saved>, Unread> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Unread::Broken("it is not a regular file".to_owned()));
    }
    if about.len() > LIMIT {
        return Err(Unread::Broken(format!("it is longer than {LIMIT} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Saved::decode(&bytes).map(Some)
}

/// As [`read`]; one that cannot be read is out of the way, and the sentence about it is the error.
pub(super) fn take(path: &Path) -> Result<Option<Saved>, String> {
    read(path).map_err(|why| {
        // Who may not read it may read it another time.
        if matches!(why, Unread::Host(_)) {
            return format!("{}: cannot be read: {why}", path.display());
        }
        match set_aside(path) {
            Ok(aside) => format!("{}: {why}; it was moved to {}", path.display(), aside.display()),
            Err(error) => format!("{}: {why}; it cannot be moved aside: {error}", path.display()),
        }
    })
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Under a name that no other has.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 0..ASIDE {
        let end = if number == 0 { ".bad".to_owned() } else { format!(".bad{number}") };
        let aside = beside(path, &end);
        match fs::hard_link(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Not every file system has links.
            Err(_) if !aside.exists() => return fs::rename(path, &aside).map(|()| aside),
            linked => return linked.and_then(|()| fs::remove_file(path)).map(|()| aside),
        }
    }
    Err(io::Error::other(format!("there are {ASIDE} of them already")))
}

/// Whole and for good, or not at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let written = write_new(&new, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What room it took may be what is missing.
        let _ = fs::remove_file(&new);
    }
    written?;
    sync_folder(path)
}

fn write_new(new: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// What was renamed there, or away, stays so after a power cut.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// What `clusterd save` wrote, while another list takes its place.
pub(super) fn back_up(path: &Path, backup: &Path) -> io::Result<()> {
    match fs::read(path) {
        Ok(bytes) => write(backup, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes these; whether any was there.
///
/// # Errors
/// With the file in the text.
pub(super) fn remove(paths: &[PathBuf]) -> io::Result<bool> {
    let mut any = false;
    for path in paths {
        match fs::remove_file(path) {
            Ok(()) => any = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }
    if let Some(path) = paths.first().filter(|_| any) {
        sync_folder(path)?;
    }
    Ok(any)
}

/// Any file, for [`crate::fuzz`]: what is taken is written and read as the same.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) -> u64 {
    let saved = match Saved::decode(bytes) {
        Ok(saved) => saved,
        Err(why) => return crate::fuzz::shape([why.to_string()]),
    };
    let written = saved.encode().expect("it has a form");
    assert_eq!(Saved::decode(&written).expect("our own"), saved);
    let stopped = saved.apps.iter().map(|app| format!("{:?}{}", app.stopped, app.instances.is_some()));
    crate::fuzz::shape(stopped.chain([format!("{}{}", saved.ended, saved.sources.len().min(3))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A list as the first clusterd that had one wrote it. It never changes.
    const FIRST: &str = include_str!("../../tests/saved/version1.json");

    fn list() -> Saved {
        let source = |path: Option<&str>, profile: Option<&str>, text: &str| SavedSource {
            path: path.map(str::to_owned),
            folder: "/srv/shop".into(),
            profile: profile.map(str::to_owned),
            only: profile.map(|_| vec!["api".into(), "jobs".into()]).unwrap_or_default(),
            text: text.into(),
        };
        let app = |name: &str, source, environment, instances, stopped| SavedApp {
            name: name.into(),
            namespace: "default".into(),
            source,
            environment,
            instances,
            stopped,
            changes: None,
        };
        let text = [("PATH".to_owned(), "/usr/bin".to_owned())];
        let bytes = vec![(b"ODD".to_vec(), vec![0xff])];
        Saved {
            version: 1,
            boot_id: "11111111-2222-3333-4444-555555555555".into(),
            ended: true,
            apps: vec![
                app("api", 0, 0, Some(4), Stopped::Some(vec![1, 3])),
                app("jobs", 0, 1, None, Stopped::All),
                app("tool", 1, 0, None, Stopped::None),
            ],
            sources: vec![
                source(
                    Some("/srv/shop/ecosystem.toml"),
                    Some("production"),
                    "[[apps]]\nscript = \"api.js\"\ninstances = 2\n\n[[apps]]\nscript = \"jobs.py\"\n",
                ),
                source(None, None, "[[apps]]\nname = \"tool\"\ncommand = [\"sleep\", \"60\"]\n"),
            ],
            environments: vec![
                Environment { text: text.into_iter().collect(), bytes: Vec::new() },
                Environment { text: Default::default(), bytes },
            ],
        }
    }

    #[test]
    fn what_was_told_of_an_app_is_saved_with_it() {
        let mut saved = list();
        let keys = [("args".to_owned(), None), ("name".to_owned(), Some("\"tool\"".to_owned()))];
        let changes = Changes { namespace: "default".into(), name: "old".into(), keys: keys.into() };
        saved.apps[2].changes = Some(changes);
        assert_eq!(Saved::decode(&saved.encode().expect("a list")).expect("a list"), saved);
    }

    #[test]
    fn the_first_form_is_read_for_ever_and_still_written() {
        assert_eq!(Saved::decode(FIRST.as_bytes()).expect("a list"), list());
        let written: serde_json::Value =
            serde_json::from_slice(&list().encode().expect("a list")).expect("JSON");
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(FIRST).expect("JSON"));
    }

    #[test]
    fn what_is_broken_or_newer_is_moved_aside_and_nothing_that_was_is_lost() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("dump.json");
        assert!(take(&path).expect("nothing is there").is_none());
        let newer = FIRST.replace("\"version\": 1", "\"version\": 7");
        let homeless = FIRST.replace("\"source\": 1", "\"source\": 2");
        for (number, (text, reason)) in [
            ("", "it is broken"),
            (&FIRST[..FIRST.len() / 2], "it is broken"),
            ("[]", "it is broken"),
            ("{\"version\":0,\"apps\":[]}", "no form 0"),
            (homeless.as_str(), "what app \"tool\" is made of"),
            (newer.as_str(), "a newer clusterd wrote it (form 7, this one knows up to 1)"),
        ]
        .into_iter()
        .enumerate()
        {
            fs::write(&path, text).expect("it is ours");
            let sentence = take(&path).expect_err(text);
            assert!(sentence.contains(reason) && sentence.contains("dump.json.bad"), "{sentence}");
            assert!(!path.exists());
            let end = if number == 0 { String::new() } else { number.to_string() };
            let aside = folder.path().join(format!("dump.json.bad{end}"));
            assert_eq!(fs::read_to_string(aside).expect("it is aside"), text);
        }
    }

    #[test]
    fn a_list_is_private_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, backup) = (folder.path().join("dump.json"), folder.path().join("dump.json.bak"));
        back_up(&path, &backup).expect("nothing is there");
        assert!(!backup.exists());
        fs::write(folder.path().join("dump.json.new"), "left by one that was killed").expect("it is ours");
        write(&path, &list().encode().expect("a list")).expect("it is ours");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        back_up(&path, &backup).expect("it is ours");
        write(&path, b"other").expect("it is ours");
        assert_eq!(read(&backup).expect("whole"), Some(list()));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "no draft is left");
        assert!(remove(&[path.clone(), backup.clone()]).expect("both are ours"));
        assert!(!remove(&[path, backup]).expect("none is there"));
    }
}
