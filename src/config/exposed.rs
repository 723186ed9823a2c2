//! Files that every user of the host can read, and that hold what looks like a secret. Judges variables by their
//! names; no value is kept or shown.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::printable;
use super::launch::{open_env_file, read_env_file};
use super::{Spec, env_file};

/// A file that lies open, and the variables in it that it should not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The file.
    pub path: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// Their names, in the file's order or by the alphabet; at least one.
    pub names: Vec<String>,
}

const ANY_READS: u32 = 0o004;
const ANY_ENTERS: u32 = 0o001;

/// So many names are told, and the number of the others.
const TOLD: usize = 5;

/// What an app's ecosystem file and its `env_file`s show to everybody. A file that cannot be read is not looked at:
/// the start says why.
pub fn exposed(file: Option<&Path>, app: &Spec) -> Vec<Exposed> {
    let declared = app.env.iter().filter(|(name, value)| is_secret(name, value.as_bytes()));
    let names: Vec<String> = declared.map(|(name, _)| name.clone()).collect();
    let own = file.filter(|_| !names.is_empty()).and_then(|path| {
        // Not opened: it may be a pipe.
        let mode = open_to_all(path, &fs::metadata(path).ok()?)?;
        Some(Exposed { path: path.to_owned(), mode, names })
    });
    own.into_iter().chain(app.process.env_files.iter().filter_map(|path| of_env_file(path))).collect()
}

fn of_env_file(path: &Path) -> Option<Exposed> {
    let file = open_env_file(path).ok()?;
    let mode = open_to_all(path, &file.metadata().ok()?)?;
    let variables = env_file::parse(&read_env_file(file).ok()?).ok()?;
    let secret = variables.iter().filter_map(|(name, value)| {
        let name = name.to_str()?;
        is_secret(name, value.as_bytes()).then(|| name.to_owned())
    });
    let names: Vec<String> = secret.collect();
    (!names.is_empty()).then(|| Exposed { path: path.to_owned(), mode, names })
}

/// The file's mode, where everybody can read it: it says so, and every folder above it can be entered.
fn open_to_all(path: &Path, file: &Metadata) -> Option<u32> {
    let mode = file.mode();
    let real = fs::canonicalize(path).ok()?;
    let entered = |folder: &Path| fs::metadata(folder).is_ok_and(|folder| folder.mode() & ANY_ENTERS != 0);
    (file.is_file() && mode & ANY_READS != 0 && real.ancestors().skip(1).all(entered))
        .then_some(mode & 0o7777)
}

/// Whether a variable of this name usually holds what others must not know. Names of files are not that, nor are
/// public keys, and what counts tokens (`MAX_TOKENS=4096`) is a number.
pub fn is_secret(name: &str, value: &[u8]) -> bool {
    let name = name.to_ascii_uppercase();
    let is_number = value.iter().all(u8::is_ascii_digit);
    let names_file = ["_FILE", "_PATH", "_DIR"].iter().any(|end| name.ends_with(end));
    if value.is_empty() || names_file || name.contains("PUBLIC") {
        return false;
    }
    let any = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let token = name.split('_').any(|word| word.ends_with("TOKEN") || word.ends_with("TOKENS"));
    let key = name.split('_').skip(1).any(|word| word == "KEY" || word == "KEYS");
    any(&["SECRET", "PASSWORD", "PASSWD", "PRIVATE"]) || key || (token && !is_number)
}

impl Exposed {
    /// What is wrong, and what to do.
    pub fn message(&self) -> String {
        let path = printable(&self.path.to_string_lossy());
        let mut names: Vec<String> = self.names.iter().take(TOLD).map(|name| printable(name)).collect();
        if let Some(more @ 1..) = self.names.len().checked_sub(TOLD) {
            names.push(format!("{more} more"));
        }
        let look = if self.names.len() == 1 { "looks like a secret" } else { "look like secrets" };
        format!(
            "every user of this host can read {path} (mode {:03o}), and what is in it {look}: {}. Take that right \
             away (chmod o-r {path}), or keep secrets in an env_file that others cannot read",
            self.mode,
            names.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name() {
        for (name, value, expected) in [
            ("SECRET_KEY_BASE", "x", true),
            ("clientSecret", "x", true),
            ("PGPASSWORD", "1234", true),
            ("GITHUB_TOKEN", "x", true),
            ("AWS_SECRET_ACCESS_KEY", "x", true),
            ("AWS_ACCESS_KEY_ID", "x", true),
            ("API_KEYS", "a,b", true),
            ("TLS_PRIVATE", "x", true),
            ("GITHUB_TOKEN", "", false),
            ("DB_PASSWORD_FILE", "/run/secrets/db", false),
            ("STRIPE_PUBLIC_KEY", "x", false),
            ("MAX_TOKENS", "4096", false),
            ("TOKENIZERS_PARALLELISM", "x", false),
            ("KEYBOARD", "x", false),
            ("MONKEY", "x", false),
            ("PORT", "3000", false),
        ] {
            assert_eq!(is_secret(name, value.as_bytes()), expected, "{name}={value}");
        }
    }

    #[test]
    fn a_file_lies_open_when_it_and_every_folder_above_it_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        fs::write(&path, "PORT=1\nTOKEN=sesame\nB_KEY=open\n").unwrap();
        let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for (above, own, open) in
            [(0o755, 0o644, true), (0o755, 0o604, true), (0o755, 0o640, false), (0o750, 0o644, false)]
        {
            allow(folder.path(), above);
            allow(&path, own);
            let found = of_env_file(&path).map(|found| (found.mode, found.names.join(" ")));
            assert_eq!(found, open.then(|| (own, "TOKEN B_KEY".to_owned())), "{above:o} {own:o}");
        }
    }

    #[test]
    fn a_message_has_few_names_and_no_value() {
        let names: Vec<String> = (0..7).map(|number| format!("TOKEN{number}")).collect();
        let exposed = Exposed { path: PathBuf::from("/srv/a.env"), mode: 0o644, names };
        let message = exposed.message();
        assert!(message.contains("TOKEN4, 2 more. Take"), "{message}");
        assert!(message.contains("can read /srv/a.env (mode 644)"), "{message}");
    }
}
