//! What somebody may have meant by a word that means nothing: the nearest of the apps that are known, the files that
//! can be started and the programs in PATH.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::file;

/// So many entries of a folder are looked at.
const MOST_ENTRIES: usize = 4096;

/// Nobody mistypes more than this.
const LONGEST: usize = 64;

/// Names that a word is compared with; the nearest so far.
#[derive(Debug)]
pub(super) struct Near<'w> {
    word: &'w str,
    limit: usize,
    found: Option<(usize, String)>,
}

impl<'w> Near<'w> {
    /// Nothing so far. A wrong, missing, needless or swapped letter in three is as far as a name may be.
    pub(super) fn to(word: &'w str) -> Near<'w> {
        Near { word, limit: word.chars().count() / 3, found: None }
    }

    /// Of those that are equally near the first that was told stays.
    pub(super) fn tell(&mut self, like: &str, name: &str) {
        if self.word.len() > LONGEST || like.len() > LONGEST {
            return;
        }
        let distance = strsim::damerau_levenshtein(self.word, like);
        if distance <= self.limit && self.found.as_ref().is_none_or(|(nearest, _)| distance < *nearest) {
            self.found = Some((distance, name.to_owned()));
        }
    }

    /// With what is known to the supervisor.
    pub(super) fn names(mut self, names: &[String]) -> Near<'w> {
        names.iter().for_each(|name| self.tell(name, name));
        self
    }

    /// With what can be started in this folder, also where the extension is left out.
    pub(super) fn files(mut self, folder: &Path) -> Near<'w> {
        for path in entries(folder) {
            let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
            let can_start = name.ends_with(".toml") || file::is_program(&path);
            if !can_start || !path.is_file() {
                continue;
            }
            self.tell(name, name);
            if let Some(stem) = path.file_stem().and_then(OsStr::to_str) {
                self.tell(stem, name);
            }
        }
        self
    }

    /// With the programs of these folders, of which there is one near to any short word.
    pub(super) fn programs(mut self, path: Option<&OsStr>) -> Near<'w> {
        if self.word.chars().count() < 4 {
            return self;
        }
        for folder in path.into_iter().flat_map(std::env::split_paths) {
            for program in entries(&folder) {
                let Some(name) = program.file_name().and_then(OsStr::to_str) else { continue };
                let before = self.found.clone();
                self.tell(name, name);
                if self.found != before && !file::is_executable(&program) {
                    self.found = before;
                }
            }
        }
        self
    }

    /// The nearest of all.
    pub(super) fn found(self) -> Option<String> {
        self.found.map(|(_, name)| name)
    }

    /// `; did you mean "server"?`, or nothing.
    pub(super) fn hint(self) -> String {
        self.found.map_or_else(String::new, |(_, name)| format!("; did you mean \"{name}\"?"))
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.take(MOST_ENTRIES).filter_map(|entry| Some(entry.ok()?.path()))
}

/// What may be meant by a path that leads nowhere: a file beside it, written as the path was.
pub(super) fn beside(folder: &Path, word: &str) -> String {
    let path = Path::new(word);
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return String::new() };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut near =
        Near::to(name).files(&parent.map_or_else(|| folder.to_owned(), |parent| folder.join(parent)));
    if let (Some((_, found)), Some(parent)) = (&mut near.found, parent) {
        *found = parent.join(&*found).display().to_string();
    }
    near.hint()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("bin")).expect("a fresh folder");
        for (name, mode) in [
            ("server.js", 0o644),
            ("ecosystem.toml", 0o644),
            ("notes", 0o644),
            ("bin/gunicorn", 0o755),
            ("bin/data", 0o644),
        ] {
            fs::write(folder.path().join(name), "").expect("a fresh folder");
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).expect("ours");
        }
        folder
    }

    #[test]
    fn the_nearest_of_what_can_be_started_is_meant() {
        let folder = folder();
        let bin = folder.path().join("bin");
        let known = ["servers".to_owned(), "api".to_owned()];
        for (word, expected) in [
            ("sever", Some("server.js")),
            ("server", Some("server.js")),
            ("severs", Some("servers")),
            ("serverz", Some("servers")),
            ("ecosystm.toml", Some("ecosystem.toml")),
            ("ecosystem", Some("ecosystem.toml")),
            ("gunicron", Some("gunicorn")),
            ("note", None),
            ("dataa", None),
            ("apj", Some("api")),
            ("xyz", None),
            ("ap", None),
            ("", None),
        ] {
            let near = Near::to(word).names(&known).files(folder.path()).programs(Some(bin.as_os_str()));
            let hint = expected.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"));
            assert_eq!(near.hint(), hint, "{word}");
        }
    }

    #[test]
    fn a_path_is_corrected_as_it_was_written() {
        let folder = folder();
        for (word, hint) in [
            ("sever.js", "; did you mean \"server.js\"?"),
            ("./sever.js", "; did you mean \"./server.js\"?"),
            ("bin/gunicron", "; did you mean \"bin/gunicorn\"?"),
            ("other/sever.js", ""),
            ("..", ""),
        ] {
            assert_eq!(beside(folder.path(), word), hint, "{word}");
        }
    }
}
