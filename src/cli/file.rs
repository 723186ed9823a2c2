//! The ecosystem file on the client's side: read once, checked before anything is sent or started.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::output::Failure;
use super::{Selection, near};
use crate::config::{self, AppConfig, Config, Diagnostics, Host, MAX_TEXT, launch};
use crate::control::protocol::{Environment, File};
use crate::import;
use crate::sys::{cpus, memory};

/// Whether a word means an ecosystem file rather than a target: `-`, `*.toml`, or a path to what is no program.
pub(super) fn is_file(word: &str) -> bool {
    word == "-" || word.ends_with(".toml") || (is_path(word) && !is_program(Path::new(word)))
}

/// Whether a word is a path (not `/regex/`) to a file.
pub(super) fn is_path(word: &str) -> bool {
    let expression = word.len() > 1 && word.starts_with('/') && word.ends_with('/');
    word.contains('/') && !expression && Path::new(word).is_file()
}

/// Whether a file can be run: by its mode, or by an interpreter for its extension.
pub(super) fn is_program(path: &Path) -> bool {
    launch::interpreter_of(path).is_some() || is_executable(path)
}

/// Whether a file's mode lets somebody run it.
pub(super) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// How an ecosystem file is made of a word that is PM2's own file.
pub(super) fn import_of(word: &str) -> Option<String> {
    let run = match import::kind_of(word)? {
        import::Kind::JavaScript if !word.contains(".config.") => return None,
        import::Kind::JavaScript | import::Kind::Evaluated => "--run ",
        import::Kind::Json
        | import::Kind::Package
        | import::Kind::Yaml
        | import::Kind::Dump
        | import::Kind::Procfile => "",
    };
    (word != "-" && Path::new(word).is_file())
        .then(|| format!("clusterd import {run}{word} > ecosystem.toml"))
}

/// Says of a word that is PM2's own file what to make of it.
pub(super) fn refuse_foreign(word: &str) -> Result<(), Failure> {
    match import_of(word) {
        Some(import) => Err(Failure::usage(format_args!("{word}: this is another tool's file: {import}"))),
        None => Ok(()),
    }
}

/// Reads the file named by `word`, and nothing of what it means. Its path is made absolute but symbolic
/// links are kept: a `current` link is to be followed anew at each reload.
pub(super) fn read(word: &str, selection: &Selection) -> Result<File, Failure> {
    refuse_foreign(word)?;
    let cwd = current_folder()?;
    let path = (word != "-").then(|| cwd.join(word));
    let unreadable = |error: io::Error| {
        let is_gone = error.kind() == io::ErrorKind::NotFound;
        let hint = if is_gone { near::beside(&cwd, word) } else { String::new() };
        Failure::usage(format_args!("{word}: cannot read this file: {error}{hint}"))
    };
    let bytes = match &path {
        Some(path) => open(path).and_then(read_bytes),
        None => read_bytes(io::stdin().lock()),
    }
    .map_err(unreadable)?;
    let text =
        config::decode(&bytes, source(path.as_deref().and_then(Path::to_str))).map_err(wrong)?.to_owned();
    let folder = path.as_deref().and_then(Path::parent).map_or(cwd, PathBuf::from);
    Ok(File {
        path: path.as_deref().map(utf8).transpose()?,
        text,
        folder: utf8(&folder)?,
        profile: selection.profile.clone(),
        only: selection.only.clone(),
        environment: environment(),
    })
}

/// The absolute path of a file that need not be there (any more): what the supervisor knows its apps by.
pub(super) fn absolute(word: &str) -> Result<String, Failure> {
    utf8(&current_folder()?.join(word))
}

pub(super) fn current_folder() -> Result<PathBuf, Failure> {
    std::env::current_dir()
        .map_err(|error| Failure::failed(format_args!("the current folder is gone: {error}")))
}

/// A pipe is as good as a file; one that nobody writes into is an empty file rather than a wait for ever.
pub(super) fn open(path: &Path) -> io::Result<fs::File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

fn read_bytes(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_TEXT {
        let limit = format!("it is longer than {MAX_TEXT} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, limit));
    }
    Ok(bytes)
}

fn source(path: Option<&str>) -> &str {
    path.unwrap_or("standard input")
}

/// Styles are for the writer to strip where nobody sees them.
pub(super) fn wrong(problems: Diagnostics) -> Failure {
    Failure::File { text: problems.render(true), json: problems.to_json() }
}

pub(super) fn utf8(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format_args!("{}: the path is not UTF-8", path.display())))
}

/// The caller's environment, byte for byte.
pub(super) fn environment() -> Environment {
    let mut environment = Environment::default();
    for (name, value) in std::env::vars_os() {
        match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => {
                environment.text.insert(name.to_owned(), value.to_owned());
            }
            _ => environment.bytes.push((name.into_vec(), value.into_vec())),
        }
    }
    environment
}

/// Checks a text that is to become a file in `folder`.
pub(super) fn checked(text: &str, source: &str, folder: PathBuf) -> Result<(), Failure> {
    config::load(text, source, &host(folder)).map(drop).map_err(wrong)
}

fn host(folder: PathBuf) -> Host {
    Host {
        parallelism: cpus::available_parallelism(),
        memory: memory::total(Path::new("/")),
        folder,
        profile: None,
        only: Vec::new(),
    }
}

/// Checks the file as the supervisor will, and gives the apps in it that are meant.
pub(super) fn check(file: &File) -> Result<Vec<AppConfig>, Failure> {
    load(file).map_err(wrong)
}

/// The same with its mistakes as they are.
pub(super) fn load(file: &File) -> Result<Vec<AppConfig>, Diagnostics> {
    whole(file).map(|config| config.apps)
}

/// Where the file says that the state is to be.
pub(super) fn state_dir(file: &File) -> Result<Option<PathBuf>, Failure> {
    whole(file).map(|config| config.daemon.state_dir).map_err(wrong)
}

/// Whether the file leaves log files on.
pub(super) fn wants_log_files(file: &File) -> Result<bool, Failure> {
    whole(file).map(|config| config.daemon.log_files != Some(false)).map_err(wrong)
}

fn whole(file: &File) -> Result<Config, Diagnostics> {
    let host =
        Host { profile: file.profile.clone(), only: file.only.clone(), ..host(PathBuf::from(&file.folder)) };
    config::load(&file.text, source(file.path.as_deref()), &host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_target() {
        for file in ["-", "a.toml", "/srv/a.toml", "../a.toml", "./Cargo.lock"] {
            assert!(is_file(file), "{file}");
        }
        for target in
            ["api", "all", "0", "/^api/", "/Cargo.lock/", "Cargo.lock", "no/such", "/", "", "/bin/sh"]
        {
            assert!(!is_file(target), "{target}");
        }
    }

    #[test]
    fn what_is_read_is_bounded() {
        let long = "#".repeat(MAX_TEXT + 1);
        assert!(read_bytes(long.as_bytes()).unwrap_err().to_string().contains("longer"));
        assert_eq!(read_bytes(&long.as_bytes()[1..]).unwrap().len(), MAX_TEXT);
    }
}
