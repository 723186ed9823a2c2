//! The ecosystem file on the client's side: read once, checked before anything is sent or started.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Selection;
use super::output::Failure;
use crate::control::protocol::{FRAME_LIMIT, File};

/// Whether a word means a file rather than a target: `-`, `*.toml`, or a path (not `/regex/`) to one.
pub(super) fn is_file(word: &str) -> bool {
    let expression = word.len() > 1 && word.starts_with('/') && word.ends_with('/');
    word == "-" || word.ends_with(".toml") || (word.contains('/') && !expression && Path::new(word).is_file())
}

/// What [`is_file`] said no to, and people write all the same: the program itself, or PM2's own file.
pub(super) fn is_program(word: &str) -> bool {
    const EXTENSIONS: [&str; 12] =
        ["js", "cjs", "mjs", "ts", "py", "rb", "php", "pl", "sh", "jar", "json", "yaml"];
    let extension = Path::new(word).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && Path::new(word).is_file()
}

/// Reads the file named by `word`, and nothing of what it means. Its path is made absolute but symbolic
/// links are kept: a `current` link is to be followed anew at each reload.
pub(super) fn read(word: &str, selection: &Selection) -> Result<File, Failure> {
    let cwd = std::env::current_dir()
        .map_err(|error| Failure::failed(format_args!("the current folder is gone: {error}")))?;
    let path = (word != "-").then(|| cwd.join(word));
    let unreadable =
        |error: io::Error| Failure::usage(format_args!("{word}: cannot read this file: {error}"));
    let text = match &path {
        Some(path) => read_text(std::fs::File::open(path).map_err(unreadable)?),
        None => read_text(io::stdin().lock()),
    }
    .map_err(unreadable)?;
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

fn read_text(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(FRAME_LIMIT as u64 + 1).read_to_string(&mut text)?;
    if text.len() > FRAME_LIMIT {
        let limit = format!("it is longer than {FRAME_LIMIT} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, limit));
    }
    Ok(text)
}

fn utf8(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format_args!("{}: the path is not UTF-8", path.display())))
}

/// The caller's environment. Values that are not UTF-8 do not travel (protocol).
pub(super) fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Checks the file as the supervisor will, and gives the names of the apps in it that are meant.
pub(super) fn check(file: &File) -> Result<Vec<String>, Failure> {
    let source = file.path.as_deref().unwrap_or("standard input");
    let table: toml::Table =
        toml::from_str(&file.text).map_err(|error| Failure::usage(format_args!("{source}: {error}")))?;
    let apps = table.get("apps").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names = apps.iter().filter_map(|app| app.get("name")?.as_str()).map(str::to_owned);
    Ok(names.filter(|name| file.only.is_empty() || file.only.contains(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_target() {
        for file in ["-", "a.toml", "/srv/a.toml", "../a.toml", "./Cargo.lock"] {
            assert!(is_file(file), "{file}");
        }
        for target in ["api", "all", "0", "/^api/", "/Cargo.lock/", "Cargo.lock", "no/such", "/", ""] {
            assert!(!is_file(target), "{target}");
        }
    }

    #[test]
    fn what_is_read_is_bounded() {
        let long = "#".repeat(FRAME_LIMIT + 1);
        assert!(read_text(long.as_bytes()).unwrap_err().to_string().contains("longer"));
        assert_eq!(read_text(&long.as_bytes()[1..]).unwrap().len(), FRAME_LIMIT);
    }
}
