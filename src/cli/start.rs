//! `start`: what each word means (a file, a program, something known), and the requests that come of it. All words
//! are understood and checked before the first request is sent.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::behind;
use super::flags::{self, Program};
use super::near::{self, Near};
use super::output::Failure;
use super::{Start, file};
use crate::config::changes::Keys;
use crate::config::keys::AppKey;
use crate::config::launch;
use crate::control::protocol::{File, Request};
use crate::import::project::PM2S;

/// What is started where nothing is named.
const FILE: &str = "ecosystem.toml";

/// How much of a file is looked at to tell what it is.
const LOOK: u64 = 64 * 1024;

/// One request, and whether a supervisor is started for it when none runs.
pub(super) type Step = (Request, bool);

/// What a word means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// An ecosystem file, or standard input.
    File,
    /// What `script` is to be, and whether it names a file, also where it has blanks.
    Program { script: String, is_file: bool },
    /// What the supervisor knows.
    Known,
}

/// What a word may mean depends on these.
struct Place<'a> {
    /// The caller's folder.
    here: PathBuf,
    /// The app's.
    cwd: PathBuf,
    path: Option<&'a OsStr>,
    /// There are flags or arguments, which a program has rather than a known app.
    makes: bool,
    /// There is `--watch` without a folder: one that is named beside it was to be watched.
    watches: bool,
    known: &'a dyn Known,
}

/// What the supervisor knows; where none runs, nothing.
pub(super) trait Known {
    /// Whether that has an app, a namespace or an id of this name.
    fn has(&self, word: &str) -> Result<bool, Failure>;

    /// The names of its apps and namespaces.
    fn names(&self) -> Vec<String>;

    /// That no supervisor runs, in a sentence; none where one does.
    fn absence(&self) -> Option<String> {
        None
    }
}

/// The requests of one command, in its order.
pub(super) fn steps(mut start: Start, known: &dyn Known) -> Result<Vec<Step>, Failure> {
    if let Some(why) = start.flags.refused() {
        return Err(Failure::usage(why));
    }
    let here = file::current_folder()?;
    if start.targets.is_empty() {
        start.targets.push(default_file(&start, &here)?);
    }
    let cwd = start.flags.value(AppKey::Cwd).map_or_else(|| here.clone(), |cwd| here.join(cwd));
    behind::settle(&mut start.flags, &mut start.targets, &cwd, known)?;
    let start = &start;
    let path = std::env::var_os("PATH");
    let makes = start.flags.first().is_some() || !start.args.is_empty();
    let watches = start.flags.value(AppKey::Watch) == Some("true");
    let place = Place { here, cwd, path: path.as_deref(), makes, watches, known };
    let mut meant = Vec::new();
    for word in &start.targets {
        meant.push((word, place.meaning(word)?));
    }
    check(start, &meant)?;
    check_known(&meant, known)?;
    let mut steps: Vec<Step> = Vec::new();
    for (word, meaning) in meant {
        match meaning {
            Meaning::File => steps.push((of_file(start, word)?, true)),
            Meaning::Program { script, is_file } => {
                steps.push((of_program(start, word, script, is_file)?, true));
            }
            Meaning::Known => match steps.last_mut() {
                Some((Request::Start { targets, file: None, .. }, _)) => targets.push(word.clone()),
                Some(_) | None => steps.push((of_known(start, word), false)),
            },
        }
    }
    Ok(steps)
}

/// What is meant where nothing is named: the file of the folder, as PM2 has it.
fn default_file(start: &Start, here: &Path) -> Result<String, Failure> {
    let flag = start.flags.first().or_else(|| (!start.args.is_empty()).then(|| "--".to_owned()));
    if let Some(flag) = flag {
        return Err(Failure::usage(format_args!(
            "{flag}: name the script, the command or the app that it is for"
        )));
    }
    if here.join(FILE).is_file() {
        return Ok(FILE.to_owned());
    }
    let foreign = PM2S.iter().find_map(|name| Some((name, file::import_of(name)?)));
    Err(Failure::usage(match foreign {
        Some((name, import)) => format!("there is no {FILE} here, but {name}, which is PM2's: {import}"),
        None => format!(
            "there is no {FILE} here: name a script, a command, a file or a known app, or have one written with \
             `clusterd init`"
        ),
    }))
}

/// Flags belong to programs and known apps, `--env` and `--only` to files.
fn check(start: &Start, meant: &[(&String, Meaning)]) -> Result<(), Failure> {
    let flag = start.flags.first().or_else(|| (!start.args.is_empty()).then(|| "--".to_owned()));
    for (word, meaning) in meant {
        match (meaning, &flag) {
            (Meaning::File, Some(flag)) => {
                return Err(file_says(flag, word));
            }
            (Meaning::File | Meaning::Known | Meaning::Program { .. }, _) => {}
        }
    }
    let selects = start.selection.profile.is_some() || !start.selection.only.is_empty();
    if selects && !meant.iter().any(|(_, meaning)| *meaning == Meaning::File) {
        return Err(Failure::usage(
            "--env and --only choose from an ecosystem file; none is named here. For a script set its variables in \
             front: NODE_ENV=production clusterd start server.js",
        ));
    }
    if meant.len() > 1 && start.flags.value(AppKey::Name).is_some() {
        return Err(Failure::usage("--name: one name for several apps; start them one by one"));
    }
    Ok(())
}

/// Flags beside a file.
pub(super) fn file_says(flag: &str, file: &str) -> Failure {
    Failure::usage(format_args!(
        "{flag}: is for scripts, commands and known apps; {file} is a file that says it itself"
    ))
}

/// Beside what is started anew: that would be started before the supervisor says that it knows nothing of these.
fn check_known(meant: &[(&String, Meaning)], known: &dyn Known) -> Result<(), Failure> {
    let is_target = |meaning: &Meaning| *meaning == Meaning::Known;
    if meant.iter().all(|(_, meaning)| is_target(meaning)) {
        return Ok(());
    }
    for (word, _) in meant.iter().filter(|(_, meaning)| is_target(meaning)) {
        if !known.has(word)? {
            return Err(Failure::failed(format_args!(
                "{word}: no app that is known is meant by it; nothing was started"
            )));
        }
    }
    Ok(())
}

fn of_file(start: &Start, word: &str) -> Result<Request, Failure> {
    let file = file::read(word, &start.selection)?;
    file::check(&file)?;
    let update_env = start.update_env.then(|| file.environment.clone());
    let (targets, changes) = (Vec::new(), Keys::new());
    Ok(Request::Start { targets, file: Some(file), update_env, changes, no_wait: start.no_wait })
}

fn of_known(start: &Start, word: &str) -> Request {
    let update_env = start.update_env.then(file::environment);
    let (targets, changes) = (vec![word.to_owned()], start.flags.changes(&start.args));
    Request::Start { targets, file: None, update_env, changes, no_wait: start.no_wait }
}

fn of_program(start: &Start, word: &str, script: String, is_file: bool) -> Result<Request, Failure> {
    let is_line = !is_file && script.contains(char::is_whitespace);
    let (mut script, mut args) = (script, start.args.as_slice());
    if is_line && start.flags.value(AppKey::Interpreter).is_none() && !args.is_empty() {
        let words = shlex::try_join(args.iter().map(String::as_str));
        let words = words.map_err(|_| Failure::usage("--: an argument holds a NUL byte"))?;
        (script, args) = (format!("{script} {words}"), &[]);
    }
    let interpreter = (is_file && script.contains(char::is_whitespace))
        .then(|| launch::interpreter_of(Path::new(&script)).unwrap_or("none"));
    let name = is_line.then(|| name_of_line(&script)).flatten();
    let program = Program { script, name, interpreter, args };
    let file = File {
        path: None,
        text: start.flags.file_of(&program),
        folder: file::utf8(&file::current_folder()?)?,
        profile: None,
        only: Vec::new(),
        environment: file::environment(),
    };
    file::load(&file).map_err(|problems| flags::blamed(word, &problems))?;
    Ok(Request::Launch { file, force: start.force, update_env: start.update_env, no_wait: start.no_wait })
}

/// `npm` of `PORT=80 npm start`.
fn name_of_line(line: &str) -> Option<String> {
    let words = shlex::split(line)?;
    let program = words.iter().find(|word| !word.contains('='))?;
    let stem = Path::new(program).file_stem()?.to_str()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = stem.chars().filter(|c| allowed(*c)).take(64).collect();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && !name.bytes().all(|byte| byte.is_ascii_digit())
        && name != "all";
    is_name.then_some(name)
}

impl Place<'_> {
    fn meaning(&self, word: &str) -> Result<Meaning, Failure> {
        if word == "-" || word.ends_with(".toml") {
            return Ok(Meaning::File);
        }
        let is_expression = word.len() > 1 && word.starts_with('/') && word.ends_with('/');
        if word.is_empty() || is_expression || word == "all" {
            return Ok(Meaning::Known);
        }
        file::refuse_foreign(word)?;
        let is_path = word.contains('/') || launch::interpreter_of(Path::new(word)).is_some();
        match self.find(word) {
            Some(found) if is_path || word.contains(char::is_whitespace) => self.path_to(word, &found),
            Some(found) => self.bare(word, Some(&found)),
            None if word.contains(char::is_whitespace) => {
                Ok(Meaning::Program { script: word.to_owned(), is_file: false })
            }
            None if is_path => self.missing(word),
            None => self.bare(word, None),
        }
    }

    /// The file or folder of this name in the app's folder, else in the caller's.
    fn find(&self, word: &str) -> Option<PathBuf> {
        [&self.cwd, &self.here].map(|folder| folder.join(word)).into_iter().find(|path| path.exists())
    }

    fn path_to(&self, word: &str, found: &Path) -> Result<Meaning, Failure> {
        if found.is_dir() {
            return Err(if self.watches { to_watch(word) } else { folder(word, found) });
        }
        if is_ecosystem(found) {
            return Ok(Meaning::File);
        }
        // Only the app's own folder is where its script is looked up.
        let script = if found == self.cwd.join(word) { word.to_owned() } else { file::utf8(found)? };
        Ok(Meaning::Program { script, is_file: true })
    }

    /// A word: what is known by that name comes first, then a file of the folder, then a program in PATH. With
    /// flags or arguments it is no known one.
    fn bare(&self, word: &str, found: Option<&Path>) -> Result<Meaning, Failure> {
        let is_id = word.bytes().all(|byte| byte.is_ascii_digit());
        let is_program = !is_id && self.in_path(word);
        let is_target = found.is_none() && !is_program;
        if (is_target || !self.makes) && self.known.has(word)? {
            return Ok(Meaning::Known);
        }
        if is_target {
            return Err(self.unknown(word));
        }
        match found {
            Some(found) if !found.is_dir() || !is_program || self.watches => self.path_to(word, found),
            Some(_) | None => Ok(Meaning::Program { script: word.to_owned(), is_file: false }),
        }
    }

    /// `namespace/name`, and an app that is called as a script may be.
    fn missing(&self, word: &str) -> Result<Meaning, Failure> {
        let is_relative = !word.starts_with(['/', '.']);
        if is_relative && self.known.has(word)? {
            return Ok(Meaning::Known);
        }
        let hint = near::beside(&self.cwd, word);
        Err(Failure::failed(format_args!("{word}: there is no such file in {}{hint}", self.cwd.display())))
    }

    /// Neither known nor a file nor a program: a slip of the hand, as often as not.
    fn unknown(&self, word: &str) -> Failure {
        let near = Near::to(word).names(&self.known.names()).files(&self.cwd).files(&self.here);
        let absence = self.known.absence().map_or_else(String::new, |absence| format!("\n{absence}"));
        Failure::failed(format_args!(
            "{word}: no app, namespace or id is called so, nor a file in {} or a program in PATH{}{absence}",
            self.cwd.display(),
            near.programs(self.path).hint()
        ))
    }

    fn in_path(&self, word: &str) -> bool {
        let runs = |folder: PathBuf| file::is_executable(&folder.join(word));
        self.path.is_some_and(|path| std::env::split_paths(path).any(runs))
    }
}

/// PM2 takes the words behind `--watch` for folders, and so the script in `--watch server.js`.
fn to_watch(word: &str) -> Failure {
    Failure::usage(format_args!("{word}: this is a folder; to watch it write --watch={word}"))
}

fn folder(word: &str, found: &Path) -> Failure {
    let file = found.join("ecosystem.toml");
    let instead = if file.is_file() {
        format!("start the file in it: `clusterd start {}`", Path::new(word).join("ecosystem.toml").display())
    } else {
        "name the script or the program in it".to_owned()
    };
    Failure::failed(format_args!("{word}: this is a folder; {instead}"))
}

/// An ecosystem file that is not called `.toml`: no program, and with an app in it.
fn is_ecosystem(path: &Path) -> bool {
    if file::is_program(path) {
        return false;
    }
    let mut start = Vec::new();
    let read = file::open(path).and_then(|file| file.take(LOOK).read_to_end(&mut start));
    read.is_ok() && start.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == b"[[apps]]")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Few;

    impl Known for Few {
        fn has(&self, word: &str) -> Result<bool, Failure> {
            Ok(matches!(word, "api" | "sh" | "web.js" | "back/api" | "3"))
        }

        fn names(&self) -> Vec<String> {
            vec!["api".to_owned()]
        }
    }

    #[test]
    fn a_line_is_named_by_its_program() {
        for (line, name) in [
            ("npm start", Some("npm")),
            ("PORT=80 A=b npm start", Some("npm")),
            ("/usr/bin/python3 -m http.server", Some("python3")),
            ("'my server.sh' x", Some("myserver")),
            ("7 8", None),
            ("A=b", None),
            ("'unclosed", None),
        ] {
            assert_eq!(name_of_line(line).as_deref(), name, "{line}");
        }
    }

    #[test]
    fn what_a_word_means_depends_on_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_owned();
        std::fs::create_dir_all(here.join("sub/inner")).unwrap();
        for (name, text) in [("server.js", ""), ("apps.conf", "[[apps]]\n"), ("sub/a.py", ""), ("a b.rb", "")]
        {
            std::fs::write(here.join(name), text).unwrap();
        }
        let place = Place {
            cwd: here.join("sub"),
            here: here.clone(),
            path: Some("/bin".as_ref()),
            makes: false,
            watches: false,
            known: &Few,
        };
        let program = |script: &str, is_file| Some(Meaning::Program { script: script.to_owned(), is_file });
        let elsewhere = here.join("server.js").display().to_string();
        for (word, meaning) in [
            ("-", Some(Meaning::File)),
            ("gone.toml", Some(Meaning::File)),
            ("../apps.conf", Some(Meaning::File)),
            ("a.py", program("a.py", true)),
            ("server.js", program(&elsewhere, true)),
            ("npm start", program("npm start", false)),
            ("a b.rb", program(&here.join("a b.rb").display().to_string(), true)),
            ("cat", program("cat", false)),
            ("sh", Some(Meaning::Known)),
            ("api", Some(Meaning::Known)),
            ("3", Some(Meaning::Known)),
            ("web.js", Some(Meaning::Known)),
            ("back/api", Some(Meaning::Known)),
            ("/^a/", Some(Meaning::Known)),
            ("all", Some(Meaning::Known)),
            ("gone.js", None),
            ("4", None),
            ("apj", None),
            ("./gone", None),
            ("inner", None),
        ] {
            assert_eq!(place.meaning(word).ok(), meaning, "{word}");
        }
        let makes = Place { makes: true, ..place };
        assert_eq!(makes.meaning("sh").ok(), program("sh", false));
    }
}
