//! Words that stand right behind a flag which may mean them, as PM2 has it: `--stop-exit-codes 1 2`, `--watch src`. To
//! the parser every word that is no flag and no flag's value is a target; here it is decided which are the flag's.

use std::path::Path;

use clap::ArgMatches;

use super::file;
use super::flags::Flags;
use super::output::Failure;
use super::start::Known;
use crate::config::glob;
use crate::config::keys::AppKey;

/// The words that are no flags, as the parser calls them.
const TARGETS: &str = "targets";

/// The flags that may mean the words behind them, as the parser calls them.
const CODES: &str = "stop-exit-codes";
const WATCH: &str = "watch";

/// Targets that stand right behind such a flag, by their places among the targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    /// Whole numbers behind exit codes.
    codes: Vec<usize>,
    /// One word behind each flag that names nothing to watch.
    watch: Vec<usize>,
}

impl Behind {
    /// What the parser has seen, in which order.
    pub(super) fn of(matches: &ArgMatches) -> Behind {
        let targets = seen(matches, TARGETS);
        let at = |index: usize| targets.iter().position(|(known, _)| *known == index);
        let mut behind = Behind::default();
        for (index, _) in seen(matches, CODES) {
            let next = (index + 1..).map_while(at);
            behind.codes.extend(next.take_while(|place| is_number(&targets[*place].1)));
        }
        let alone = seen(matches, WATCH).into_iter().filter(|(_, value)| value == "true");
        behind.watch.extend(alone.filter_map(|(index, _)| at(index + 1)));
        behind
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// The values of an argument, each with its place on the command line.
fn seen(matches: &ArgMatches, id: &str) -> Vec<(usize, String)> {
    let Ok(Some(values)) = matches.try_get_many::<String>(id) else { return Vec::new() };
    matches.indices_of(id).into_iter().flatten().zip(values.cloned()).collect()
}

/// Gives the flags what is theirs, and leaves the other targets. `folder`: where a path that is named begins.
///
/// # Errors
/// What can be meant in two ways, with how each of them is written.
pub(super) fn settle(
    flags: &mut Flags,
    targets: &mut Vec<String>,
    folder: &Path,
    known: &dyn Known,
) -> Result<(), Failure> {
    let Behind { codes, watch } = std::mem::take(&mut flags.behind);
    // A word that is all there is cannot be what is watched: something is to be started.
    let has_others = (0..targets.len()).any(|place| !codes.contains(&place) && !watch.contains(&place));
    let mut theirs = codes.clone();
    for place in watch.iter().filter(|_| has_others) {
        let word = &targets[*place];
        flags.replace(AppKey::Watch, "true", watched(word, folder, known)?);
        theirs.push(*place);
    }
    flags.add(AppKey::StopExitCodes, codes.iter().map(|place| targets[*place].clone()));
    let mut place = 0..;
    targets.retain(|_| place.next().is_none_or(|place| !theirs.contains(&place)));
    if targets.is_empty() {
        return Err(Failure::usage(
            "--stop-exit-codes: whole numbers behind it are exit codes, and nothing is left to start or restart; name \
             it in front of this flag",
        ));
    }
    Ok(())
}

/// What is watched by a word behind `--watch`, when it can mean nothing else.
fn watched(word: &str, folder: &Path, known: &dyn Known) -> Result<Vec<String>, Failure> {
    let is_there = |path: &str| !path.is_empty() && folder.join(path).exists();
    let paths = match is_there(word) {
        true => vec![word.to_owned()],
        false => glob::rejoined(word.split(',')),
    };
    // `/api.*/` names apps.
    let is_glob = |path: &str| glob::split(path).is_some() && !(path.starts_with('/') && path.ends_with('/'));
    if !paths.iter().all(|path| is_there(path) || is_glob(path)) {
        return Err(Failure::usage(format_args!(
            "--watch {word}: there is no file or folder {word} here to watch. To watch it once it is there write \
             --watch={word}; if it is what you start, name it in front of --watch"
        )));
    }
    let path = folder.join(word);
    let starts = path.is_file() && (word.ends_with(".toml") || file::is_program(&path));
    if starts || known.has(word)? {
        return Err(Failure::usage(format_args!(
            "--watch {word}: this can be what is watched, or one more to start. To watch it write --watch={word}; to \
             start it, name it in front of --watch"
        )));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use clap::{Arg, ArgAction, Args, Command, FromArgMatches};

    use super::*;

    struct Api;

    impl Known for Api {
        fn has(&self, word: &str) -> Result<bool, Failure> {
            Ok(word == "api")
        }

        fn names(&self) -> Vec<String> {
            Vec::new()
        }
    }

    /// The targets that are left, and what the flags are as lines of a file; or the mistake.
    fn settled(folder: &Path, line: &str) -> Result<(String, String), String> {
        let targets = Arg::new(TARGETS).action(ArgAction::Append).num_args(0..);
        let command = Flags::augment_args(Command::new("start").no_binary_name(true)).arg(targets);
        let matches = command.try_get_matches_from(line.split(' ')).expect("words of the test");
        let mut flags = Flags::from_arg_matches(&matches).expect("flags");
        let mut targets: Vec<String> =
            matches.get_many::<String>(TARGETS).into_iter().flatten().cloned().collect();
        settle(&mut flags, &mut targets, folder, &Api).map_err(|failure| failure.text().to_owned())?;
        let lines = flags.changes(&[]).into_iter();
        let lines: Vec<String> =
            lines.map(|(key, value)| format!("{key} {}", value.unwrap_or_default())).collect();
        Ok((targets.join(" "), lines.join("; ")))
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["src", "test", "api"] {
            fs::create_dir(folder.path().join(name)).expect("a fresh folder");
        }
        for (name, mode) in [("a.js", 0o644), ("run", 0o755), ("app.conf", 0o644)] {
            fs::write(folder.path().join(name), "").expect("a fresh folder");
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).expect("ours");
        }
        folder
    }

    #[test]
    fn what_stands_behind_a_flag_is_its_own_as_in_pm2() {
        let folder = folder();
        for (line, targets, flags) in [
            ("a.js --stop-exit-codes 1 2", "a.js", "stop_exit_codes [1, 2]"),
            ("--stop-exit-codes 1 2 a.js 3", "a.js 3", "stop_exit_codes [1, 2]"),
            ("a.js --stop-exit-codes 1,2 3 --time", "a.js", "stop_exit_codes [1, 2, 3]; time true"),
            ("a.js --stop-exit-codes=1 2 --stop-exit-codes 4", "a.js", "stop_exit_codes [1, 4, 2]"),
            ("3 --time 4", "3 4", "time true"),
            ("a.js --watch src", "a.js", "watch [\"src\"]"),
            ("a.js --watch *.{js,ts},src", "a.js", "watch [\"*.{js,ts}\", \"src\"]"),
            ("a.js -w src,app.conf", "a.js", "watch [\"src\", \"app.conf\"]"),
            ("--watch src a.js", "a.js", "watch [\"src\"]"),
            ("a.js --watch src --watch test", "a.js", "watch [\"src\", \"test\"]"),
            ("a.js --watch --time", "a.js", "time true; watch true"),
            ("--watch a.js", "a.js", "watch true"),
            ("--watch=src run", "run", "watch [\"src\"]"),
        ] {
            assert_eq!(settled(folder.path(), line), Ok((targets.to_owned(), flags.to_owned())), "{line}");
        }
    }

    #[test]
    fn what_may_be_meant_in_two_ways_is_refused_with_both() {
        let folder = folder();
        for (line, says) in [
            ("a.js --watch /ap.*/", "there is no file or folder /ap.*/ here to watch"),
            ("a.js --watch gone", "there is no file or folder gone here to watch"),
            ("a.js --watch src,gone", "to watch it once it is there write --watch=src,gone"),
            ("a.js --watch run", "this can be what is watched, or one more to start"),
            ("--watch a.js run", "To watch it write --watch=a.js; to start it, name it in front"),
            ("run --watch api", "this can be what is watched"),
            ("run --watch all", "there is no file or folder all here"),
            ("--stop-exit-codes 1 2", "nothing is left to start"),
        ] {
            let said = settled(folder.path(), line).expect_err(line).to_lowercase();
            assert!(said.contains(&says.to_lowercase()), "{line}: {said}");
        }
    }
}
