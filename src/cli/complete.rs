//! Completion: the scripts that shells load, and what these ask of the hidden verb `__complete`. A script knows no
//! verb and no flag itself, so it fits whatever version it meets; what can be written is read off the command line's
//! own definition, and which apps there are is asked of the supervisor. Nothing is said here about anything that goes
//! wrong: who presses a key wants an offer, or none.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Arg, Command, ValueEnum};

use crate::config::units;
use crate::control::protocol::{AppInfo, List};

/// How long a supervisor may take to say which apps it has, before there are none to offer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A shell that a script is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash, from 4.4 on.
    Bash,
    /// zsh, from 5.0 on.
    Zsh,
    /// fish, from 3.0 on.
    Fish,
}

/// What `clusterd completions` prints.
pub fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("../../packaging/completions/clusterd.bash"),
        Shell::Zsh => include_str!("../../packaging/completions/_clusterd"),
        Shell::Fish => include_str!("../../packaging/completions/clusterd.fish"),
    }
}

/// Which files the shell offers beside the words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Files {
    /// None.
    #[default]
    None,
    /// Folders.
    Folders,
    /// Ecosystem files.
    Toml,
    /// All.
    All,
}

impl Files {
    fn word(self) -> &'static str {
        match self {
            Files::None => "none",
            Files::Folders => "folders",
            Files::Toml => "toml",
            Files::All => "files",
        }
    }
}

/// A word with what it means.
type Word = (String, String);

/// What may stand in place of the last word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    files: Files,
    words: Vec<Word>,
}

impl Offer {
    /// As the scripts read it: the kind of files, then each word, a tab and its meaning on a line.
    pub(super) fn lines(&self) -> String {
        let mut lines = format!("{}\n", self.files.word());
        for (word, meaning) in &self.words {
            let _ = writeln!(lines, "{word}\t{meaning}");
        }
        lines
    }
}

/// The apps of the supervisor of this home, or of the usual one where none is named.
type Apps<'a> = &'a dyn Fn(Option<PathBuf>) -> Option<List>;

/// What can stand in place of the last of these words, which come after `clusterd`. `command` was built.
pub(super) fn offer(command: &Command, words: &[String], apps: Apps<'_>) -> Offer {
    let Some((last, before)) = words.split_last() else { return Offer::default() };
    let seen = Seen::of(command, before);
    let mut offer = seen.offer(last, apps);
    offer.words.retain(|(word, _)| word.starts_with(last.as_str()));
    offer
}

/// What the words before the last one come to.
struct Seen<'c> {
    root: &'c Command,
    verb: Option<&'c Command>,
    /// Values that are no option's.
    given: Vec<&'c str>,
    /// The option whose value comes next.
    open: Option<&'c Arg>,
    /// `--` was there: the rest is the program's.
    over: bool,
    /// There is no such verb.
    lost: bool,
    home: Option<PathBuf>,
}

impl<'c> Seen<'c> {
    fn of(root: &'c Command, words: &'c [String]) -> Seen<'c> {
        let mut seen =
            Seen { root, verb: None, given: Vec::new(), open: None, over: false, lost: false, home: None };
        for word in words {
            seen.read(word);
        }
        seen
    }

    fn read(&mut self, word: &'c str) {
        if self.over || self.lost {
            return;
        }
        if let Some(option) = self.open.take() {
            self.value(option, word);
        } else if word == "--" {
            self.over = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            match (self.long(name), value) {
                (Some(option), Some(value)) => self.value(option, value),
                (Some(option), None) if wants_value(option) => self.open = Some(option),
                (Some(_) | None, _) => {}
            }
        } else if word.len() > 1 && word.starts_with('-') {
            self.open = self.short(&word[1..]);
        } else if self.verb.is_some() {
            self.given.push(word);
        } else {
            // As `with_verb` has it.
            let is_file = word == "-" || word.ends_with(".toml");
            self.verb = self.root.find_subcommand(if is_file { "run" } else { word });
            self.given.extend(is_file.then_some(word));
            self.lost = self.verb.is_none();
        }
    }

    fn value(&mut self, option: &Arg, value: &str) {
        if option.get_id() == "home" {
            self.home = Some(value.into());
        }
    }

    /// Those of the verb, and those that hold everywhere.
    fn arguments(&self) -> impl Iterator<Item = &'c Arg> {
        self.verb.unwrap_or(self.root).get_arguments()
    }

    fn long(&self, name: &str) -> Option<&'c Arg> {
        self.arguments().find(|option| {
            option.get_long() == Some(name)
                || option.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        })
    }

    /// The option at the end of `-abc` that takes the next word; what follows one at once is its value.
    fn short(&self, letters: &str) -> Option<&'c Arg> {
        for (at, letter) in letters.char_indices() {
            let option = self.arguments().find(|option| option.get_short() == Some(letter))?;
            if wants_value(option) {
                return (at + letter.len_utf8() == letters.len()).then_some(option);
            }
        }
        None
    }

    fn offer(&self, last: &str, apps: Apps<'_>) -> Offer {
        if self.lost {
            return Offer::default();
        }
        if let Some(option) = self.open {
            return self.values(option, last, apps);
        }
        if self.over {
            return Offer { files: Files::All, words: Vec::new() };
        }
        if let Some((name, value)) = last.strip_prefix("--").and_then(|long| long.split_once('=')) {
            let mut offer =
                self.long(name).map_or_else(Offer::default, |option| self.values(option, value, apps));
            for (word, _) in &mut offer.words {
                word.insert_str(0, &format!("--{name}="));
            }
            return offer;
        }
        if last.starts_with('-') {
            return Offer { files: Files::None, words: self.arguments().filter_map(option_word).collect() };
        }
        let Some(verb) = self.verb else {
            return Offer { files: Files::Toml, words: verbs(self.root) };
        };
        if verb.get_name() == "help" {
            let words = if self.given.is_empty() { verbs(self.root) } else { Vec::new() };
            return Offer { files: Files::None, words };
        }
        match self.positional(verb) {
            Some(argument) => self.values(argument, last, apps),
            None => Offer::default(),
        }
    }

    /// The one that the next value is for. The last one that takes several takes the rest.
    fn positional(&self, verb: &'c Command) -> Option<&'c Arg> {
        let mut arguments: Vec<&Arg> =
            verb.get_positionals().filter(|argument| !argument.is_last_set()).collect();
        let takes_rest =
            |argument: &&Arg| argument.get_num_args().is_some_and(|range| range.max_values() > 1);
        let several = arguments.iter().position(takes_rest);
        arguments.truncate(several.map_or(arguments.len(), |at| at + 1));
        let at = self.given.len();
        arguments
            .get(at)
            .or_else(|| arguments.last().filter(|_| several.is_some_and(|first| at >= first)))
            .copied()
    }

    /// By what the help calls the value.
    fn values(&self, argument: &Arg, last: &str, apps: Apps<'_>) -> Offer {
        let possible = argument.get_possible_values();
        if !possible.is_empty() {
            let words = possible.iter().filter(|value| !value.is_hide_set()).map(possible_word).collect();
            return Offer { files: Files::None, words };
        }
        let name =
            argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let is_other =
            argument.get_long().is_some() || self.verb.is_some_and(|verb| verb.get_name() == "import");
        match name {
            "TARGET" => Offer { files: Files::Toml, words: self.targets(last, apps) },
            "SCRIPT|FILE|TARGET" => Offer { files: Files::All, words: self.targets(last, apps) },
            "FILE" if is_other => Offer { files: Files::All, words: Vec::new() },
            "FILE" => Offer { files: Files::Toml, words: Vec::new() },
            "DIR" => Offer { files: Files::Folders, words: Vec::new() },
            "SIGNAL" => Offer { files: Files::None, words: signals() },
            // Of `scale`; other values of this name are new ones.
            "NAME" if argument.is_positional() => Offer {
                files: Files::None,
                words: apps(self.home.clone()).map_or_else(Vec::new, |list| names(&list)),
            },
            _ => Offer::default(),
        }
    }

    /// Names and namespaces; ids, of which there may be hundreds, once a digit was typed.
    fn targets(&self, last: &str, apps: Apps<'_>) -> Vec<Word> {
        let Some(list) = apps(self.home.clone()) else { return Vec::new() };
        let mut words = names(&list);
        words.extend(namespaces(&list));
        if last.starts_with(|first: char| first.is_ascii_digit()) {
            words.extend(ids(&list));
        }
        if !list.apps.is_empty() {
            words.push(("all".to_owned(), "every app".to_owned()));
        }
        words.retain(|(word, _)| !self.given.contains(&word.as_str()));
        words
    }
}

/// Of an app whose name another one has, too, the namespace belongs to it.
fn names(list: &List) -> Vec<Word> {
    let count = |name: &str| list.apps.iter().filter(|app| app.name == name).count();
    let word = |app: &AppInfo| {
        let name = match count(&app.name) {
            1 => app.name.clone(),
            _ => format!("{}/{}", app.namespace, app.name),
        };
        (name, format!("app, {}, {} of {}", app.status, online(app), app.instances))
    };
    list.apps.iter().map(word).collect()
}

fn online(app: &AppInfo) -> usize {
    app.workers.iter().filter(|worker| worker.ready).count()
}

/// A namespace that is called as an app is means that app.
fn namespaces(list: &List) -> Vec<Word> {
    let is_name = |word: &str| list.apps.iter().any(|app| app.name == word);
    let mut namespaces: Vec<&str> = list.apps.iter().map(|app| app.namespace.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let others = namespaces.into_iter().filter(|namespace| !is_name(namespace));
    others.map(|namespace| (namespace.to_owned(), "namespace".to_owned())).collect()
}

fn ids(list: &List) -> Vec<Word> {
    let workers = list.apps.iter().flat_map(|app| app.workers.iter().map(move |worker| (app, worker)));
    workers
        .map(|(app, worker)| (worker.id.to_string(), format!("{} {}", app.name, worker.instance)))
        .collect()
}

fn signals() -> Vec<Word> {
    units::signal_names().map(|name| (format!("SIG{name}"), String::new())).collect()
}

fn verbs(root: &Command) -> Vec<Word> {
    let shown = root.get_subcommands().filter(|verb| !verb.is_hide_set());
    let about = |verb: &Command| verb.get_about().map(ToString::to_string).unwrap_or_default();
    shown.map(|verb| (verb.get_name().to_owned(), one_line(&about(verb)))).collect()
}

fn option_word(option: &Arg) -> Option<Word> {
    let long = option.get_long().map(|long| format!("--{long}"));
    let word = long.or_else(|| option.get_short().map(|letter| format!("-{letter}")))?;
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    (!option.is_hide_set()).then(|| (word, one_line(&help)))
}

fn possible_word(value: &PossibleValue) -> Word {
    (
        value.get_name().to_owned(),
        value.get_help().map(|help| one_line(&help.to_string())).unwrap_or_default(),
    )
}

/// A meaning stands on one line, and a tab would end the word before it.
fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().replace('\t', " ")
}

/// Whether the next word is this option's, whatever it is.
fn wants_value(option: &Arg) -> bool {
    option.get_action().takes_values() && option.get_num_args().is_none_or(|range| range.min_values() > 0)
}
