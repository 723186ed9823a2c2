//! What was told of one app on the command line since it was defined (`restart api --max-memory-restart 300M`): keys
//! that are laid over those of its definition, or taken out of it. They are read as if they stood there, with the same
//! checks and defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::keys::{self, AppKey};
use super::raw::{self, Section};

/// Keys under the names of the table, each with its value as TOML; none takes the key out of the definition.
pub type Keys = BTreeMap<String, Option<String>>;

/// Under which they stand behind the text of the file. No file can have it: alone it is refused.
pub(super) const TABLE: &str = "told on the command line";

/// What was told of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The namespace that its definition gives it.
    pub namespace: String,
    /// The name that its definition gives it.
    pub name: String,
    /// What holds over its definition.
    pub keys: Keys,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// These, and `keys` over them, of an app that is called so now.
    pub fn and(&self, keys: &Keys, (namespace, name): (&str, &str)) -> Changes {
        let mut all = self.clone();
        if all.is_empty() && !keys.is_empty() {
            (all.namespace, all.name) = (namespace.to_owned(), name.to_owned());
        }
        all.keys.extend(keys.clone());
        all
    }

    /// One line for each, as a file would have it.
    pub fn lines(&self) -> Vec<String> {
        let line = |(key, value): (&String, &Option<String>)| match value {
            Some(value) => format!("{key} = {value}"),
            None => format!("{key} left out"),
        };
        self.keys.iter().map(line).collect()
    }

    /// The same as a table behind a file's text.
    pub(super) fn behind(&self, text: &str) -> String {
        let mut all = format!("{text}\n[\"{TABLE}\".set]\n");
        for (key, value) in &self.keys {
            if let Some(value) = value {
                all.push_str(&format!("{key} = {value}\n"));
            }
        }
        all.push_str(&format!("[\"{TABLE}\".unset]\n"));
        for (key, _) in self.keys.iter().filter(|(_, value)| value.is_none()) {
            all.push_str(&format!("{key} = true\n"));
        }
        all
    }
}

/// Whether these are keys of an app, and each value one line.
///
/// # Errors
/// The sentence about the first that is not.
pub fn check(keys: &Keys) -> Result<(), String> {
    for (key, value) in keys {
        if keys::APP.iter().all(|row| row.name != key) {
            return Err(format!("{key}: no key of an app is called so"));
        }
        if value.as_ref().is_some_and(|value| value.contains('\n')) {
            return Err(format!("{key}: expected a value on one line"));
        }
    }
    Ok(())
}

/// Lays what was told over the keys of its app.
pub(super) fn lay_over<'v>(section: &mut Section<'v, AppKey>, told: &'v DeTable<'v>) {
    for part in raw::entries(told) {
        let Some(table) = part.value().as_table() else { continue };
        for entry in raw::entries(table) {
            let Some(key) = keys::find(keys::APP, entry.written) else { continue };
            section.remove(key.id);
            if part.written == "set" {
                section.insert(key, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Host};

    const TEXT: &str = "[[apps]]\nname = \"api\"\nscript = \"./a\"\nargs = [\"x\"]\ncron = \"0 4 * * *\"\n\
                        [[apps]]\nname = \"web\"\nscript = \"./b\"\nkill_timeout = 5";

    fn host() -> Host {
        Host { parallelism: 4, memory: None, folder: "/srv".into(), profile: None, only: Vec::new() }
    }

    fn changed(keys: &[(&str, Option<&str>)]) -> Result<config::Config, Vec<String>> {
        let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
        let changes = Changes::default().and(&keys, ("default", "api"));
        config::load_changed(TEXT, "eco.toml", &host(), &changes).map_err(|wrong| {
            wrong
                .problems
                .iter()
                .map(|p| format!("{}: {}", p.key.clone().unwrap_or_default(), p.message))
                .collect()
        })
    }

    #[test]
    fn what_was_told_holds_over_the_definition_of_its_app_alone() {
        let plain = config::load(TEXT, "eco.toml", &host()).expect("right");
        let told =
            changed(&[("kill_timeout", Some("\"3s\"")), ("cron_restart", None), ("args", Some("[\"y\"]"))]);
        let told = told.expect("right");
        assert_eq!(told.apps[1], plain.apps[1]);
        assert_eq!(told.apps[0].spec.args, ["y"]);
        assert_eq!(
            (told.apps[0].policy.kill_timeout.as_secs(), &told.apps[0].policy.cron_restart),
            (3, &None)
        );
        assert_eq!(changed(&[("name", Some("\"new\""))]).expect("right").apps[0].name, "new");
        assert_eq!(changed(&[]).expect("right"), plain);
    }

    #[test]
    fn what_was_told_is_checked_with_the_rest() {
        let wrong = changed(&[("kill_timeout", Some("\"soon\"")), ("name", Some("\"web\""))]).unwrap_err();
        assert!(wrong.iter().any(|line| line.starts_with("kill_timeout: expected a time")), "{wrong:?}");
        assert!(wrong.iter().any(|line| line.contains("name")), "{wrong:?}");
        let alone = config::load(&Changes::default().behind(TEXT), "eco.toml", &host()).unwrap_err();
        assert!(alone.one_line()[0].contains("unknown key"), "{alone:?}");
    }

    #[test]
    fn later_words_replace_earlier_ones_and_keep_the_first_name() {
        let keys = |value: Option<&str>| Keys::from([("args".to_owned(), value.map(str::to_owned))]);
        let first = Changes::default().and(&keys(Some("[]")), ("default", "api"));
        let then = first.and(&keys(None), ("default", "renamed"));
        assert_eq!((then.name.as_str(), then.lines()), ("api", vec!["args left out".to_owned()]));
    }

    #[test]
    fn no_value_ends_its_line() {
        let keys = |key: &str, value: &str| Keys::from([(key.to_owned(), Some(value.to_owned()))]);
        assert!(check(&keys("args", "[]")).is_ok());
        assert!(check(&keys("args", "[]\nscript = \"x\"")).is_err());
        assert!(check(&keys("argz", "[]")).is_err());
    }
}
