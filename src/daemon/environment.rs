//! What a worker finds in its environment, computed afresh at every start:
//! base ← the user's own ← env_file ← env ← `env_<profile>` ← what clusterd says to each worker.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::config::guarded::Reader;
use crate::config::launch::{self, CommandLine};
use crate::supervisor::event::SpawnFailure;
use crate::sys::socket;

use super::catalog::{Environment, Recipe};
use super::identity::Who;
use super::start::{launch_failure, permanent};

/// Everything but what the worker's own start adds.
pub(super) struct Variables {
    base: Environment,
    declared: Environment,
}

impl Variables {
    /// Reads the files that are named. `home`: where a worker of our own user finds its supervisor.
    pub(super) fn of(
        recipe: &Recipe,
        who: Option<&Who>,
        home: Option<&Path>,
    ) -> Result<Variables, SpawnFailure> {
        let process = &recipe.spec.process;
        let mut base = recipe.environment.as_ref().clone();
        base.retain(|name, _| !process.filter_env.drops(&name.to_string_lossy()));
        for (name, value) in who.into_iter().flat_map(|who| &who.variables) {
            match value {
                Some(value) => base.insert((*name).into(), value.clone()),
                None => base.remove(OsStr::new(name)),
            };
        }
        let own = socket::own_uid();
        let other = who.and_then(Who::other_user);
        if let Some(home) = home.filter(|_| other.is_none()) {
            base.insert("CLUSTERD_HOME".into(), home.into());
        }
        let user = other.unwrap_or(own);
        let reader = Reader { is_root: own == 0, user };
        let files = launch::read_env_files(&process.env_files, reader).map_err(launch_failure)?;
        let mut declared: Environment = files.into_iter().collect();
        declared.extend(recipe.spec.env.iter().map(|(name, value)| (name.into(), value.into())));
        Ok(Variables { base, declared })
    }

    /// Where the worker's programs are looked up.
    pub(super) fn path(&self) -> Option<&OsStr> {
        let path = OsStr::new("PATH");
        self.declared.get(path).or_else(|| self.base.get(path)).map(OsString::as_os_str)
    }

    /// With `own` over them, and `increment_var` so much greater as the instance's number.
    pub(super) fn complete(
        self,
        recipe: &Recipe,
        command: &CommandLine,
        instance: u32,
        own: Vec<(&str, OsString)>,
    ) -> Result<Vec<CString>, SpawnFailure> {
        let process = &recipe.spec.process;
        let mut env = self.base;
        env.extend(command.extra_env.iter().cloned());
        env.extend(self.declared);
        if let Some(name) = &process.increment_var {
            let number = incremented(name, env.get(OsStr::new(name)), instance)?;
            env.insert(name.into(), number.into());
        }
        env.insert((&process.instance_var).into(), instance.to_string().into());
        env.extend(own.into_iter().map(|(name, value)| (name.into(), value)));
        Ok(env.into_iter().filter_map(|(name, value)| variable(&name, &value)).collect())
    }

    /// The names, and how long each is with its value.
    pub(super) fn lengths(&self) -> Vec<(String, usize)> {
        let mut all = self.base.clone();
        all.extend(self.declared.clone());
        let length = |(name, value): (OsString, OsString)| {
            let bytes = name.len() + 1 + value.len();
            (name.to_string_lossy().into_owned(), bytes)
        };
        all.into_iter().map(length).collect()
    }
}

/// PM2 gives the first instance what is set, or 0, and each next one a number more.
fn incremented(name: &str, value: Option<&OsString>, instance: u32) -> Result<String, SpawnFailure> {
    let text = value.map_or("0".into(), |value| value.to_string_lossy());
    let number = text.trim().parse::<i64>().ok().and_then(|first| first.checked_add(instance.into()));
    number.map(|number| number.to_string()).ok_or_else(|| {
        // Not what is in it: any variable can be named, and it may be a secret.
        let message = format!(
            "increment_var {name}: expected a whole number in this variable; correct it, or leave it out to begin \
             with 0"
        );
        permanent(format!("increment {name}"), libc::EINVAL, message)
    })
}

fn variable(name: &OsStr, value: &OsStr) -> Option<CString> {
    let mut bytes = name.to_owned().into_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    // A name or value with a NUL cannot exist in an environment; files are checked when they are read.
    CString::new(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incremented_variable_counts_on_from_what_is_set() {
        let of = |text: Option<&str>, instance| {
            incremented("PORT", text.map(OsString::from).as_ref(), instance).map_err(|f| f.message)
        };
        assert_eq!(of(None, 0), Ok("0".into()));
        assert_eq!(of(None, 3), Ok("3".into()));
        assert_eq!(of(Some("3000"), 2), Ok("3002".into()));
        assert_eq!(of(Some(" -1 "), 1), Ok("0".into()));
        for odd in ["", "abc", "3000x", "1.5", "9223372036854775807"] {
            let message = of(Some(odd), 1).expect_err("no number");
            assert!(message.contains("increment_var PORT: expected a whole number"), "{message}");
        }
    }
}
