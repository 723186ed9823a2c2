//! The manual: clusterd(1), made of the command line's definition, and ecosystem.toml(5), made of the table of keys.
//! One page holds all verbs, so that a search through it finds what `--help` would have to be asked for verb by verb.

use clap::{Arg, Command, ValueEnum};
use roff::{Inline, Roff, bold, italic, roman};

use crate::config::keys::{APP, DAEMON, Key};
use crate::config::schema::capital;

/// A page of the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// The program and its verbs, clusterd(1).
    Clusterd,
    /// The file, ecosystem.toml(5).
    #[value(name = "ecosystem.toml")]
    Ecosystem,
}

/// Verbs of clusterd's own use; `run` is what a file's name alone means.
const INTERNAL: &[&str] = &["run", "daemon", "demo", "help", "__complete"];

/// The page as roff, with the macros of man(7).
pub fn page(page: Page, command: &Command) -> String {
    match page {
        Page::Clusterd => program(command),
        Page::Ecosystem => file(),
    }
}

fn begin(name: &str, section: &str, about: &str) -> Roff {
    let version = concat!("clusterd ", env!("CARGO_PKG_VERSION"));
    let manual = if section == "1" { "User Commands" } else { "File Formats" };
    let mut page = Roff::new();
    // No date: it would differ from build to build. A blank holds its place.
    page.control("TH", [&*name.to_uppercase(), section, " ", version, manual]);
    page.control("SH", ["NAME"]).text([roman(format!("{name} - {about}"))]);
    page
}

fn program(command: &Command) -> String {
    let mut page = begin(
        "clusterd",
        "1",
        "run a server N times behind one port, and reload it without losing a request",
    );
    page.control("SH", ["SYNOPSIS"]);
    synopsis(
        &mut page,
        ["clusterd FILE [--env PROFILE] [--only A,B] [--no-log-files]", "clusterd VERB [OPTIONS] ..."],
    );
    page.control("SH", ["DESCRIPTION"]);
    prose(&mut page, PROGRAM);
    page.control("SH", ["VERBS"]);
    for verb in command.get_subcommands().filter(|verb| !INTERNAL.contains(&verb.get_name())) {
        describe(&mut page, verb);
    }
    if let Some(run) = command.find_subcommand("run") {
        page.control("SH", ["OPTIONS OF A FILE IN THE FOREGROUND"]);
        options(&mut page, run);
    }
    page.control("SH", ["OPTIONS EVERYWHERE"]);
    for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
        argument(&mut page, option);
    }
    for (heading, rows) in PROGRAM_TABLES {
        page.control("SH", [*heading]);
        for (term, meaning) in *rows {
            item(&mut page, [bold(*term)], meaning);
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("ecosystem.toml"),
        roman("(5), "),
        bold("systemd.service"),
        roman("(5), "),
        bold("sd_notify"),
        roman("(3)"),
    ]);
    page.render()
}

/// What clusterd(1) begins with.
const PROGRAM: &str = "\
clusterd runs any language's server N times behind one port, keeps it alive, and replaces it without losing a request \
and without changing a line of the server's code.

With a FILE it supervises the apps of that file in the foreground, until it is told to end: as a container's ENTRYPOINT \
and a systemd unit want it. `clusterd start` does the same in the background. All other verbs talk to the supervisor \
that runs; those that only read never start one.

A target is all, a name, an id of `clusterd list`, a namespace, namespace/name, /regex/, or a file, which means the apps \
that were started from it. Several at once are fine.";

/// A heading with terms and their meanings.
type Table = (&'static str, &'static [(&'static str, &'static str)]);

const PROGRAM_TABLES: &[Table] = &[
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT, SIGQUIT",
                "Drain and stop everything, and exit with 0; a second one: at once.",
            ),
            ("SIGHUP", "Read the files again, and reload."),
            ("SIGUSR1", "Write the state to the log."),
            ("SIGUSR2", "Open the log files anew."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("CLUSTERD_HOME", "The folder that holds everything, as --home."),
            (
                "RUNTIME_DIRECTORY, STATE_DIRECTORY, LOGS_DIRECTORY",
                "What systemd gives a unit: the folders in place of those below FILES.",
            ),
            ("NO_COLOR, CLICOLOR_FORCE", "Never colours, or always."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/run/clusterd, /var/lib/clusterd, /var/log/clusterd",
                "Socket, state and logs of root's supervisor.",
            ),
            (
                "$XDG_RUNTIME_DIR/clusterd, ~/.local/state/clusterd",
                "Those of anybody else's; logs are in a folder of the second.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Done."),
            ("1", "Failed: an unknown target, a start or a reload that failed, no supervisor."),
            ("2", "Wrong usage or configuration."),
        ],
    ),
];

fn synopsis<'l>(page: &mut Roff, lines: impl IntoIterator<Item = &'l str>) {
    page.control("nf", []);
    for line in lines {
        page.text([bold(line.trim())]);
    }
    page.control("fi", []);
}

fn describe(page: &mut Roff, verb: &Command) {
    let mut names: Vec<&str> = vec![verb.get_name()];
    names.extend(verb.get_visible_aliases());
    page.control("SS", [names.join(", ").as_str()]);
    let usage = verb.clone().render_usage().to_string();
    synopsis(page, usage.trim_start_matches("Usage:").lines());
    let about = verb.get_long_about().or_else(|| verb.get_about()).map(ToString::to_string);
    page.control("PP", []);
    prose(page, &about.unwrap_or_default());
    options(page, verb);
    if let Some(after) = verb.get_after_help() {
        page.control("PP", []).control("nf", []);
        for line in after.to_string().lines() {
            page.text([roman(line)]);
        }
        page.control("fi", []);
    }
}

/// Those of the verb alone: the others stand once, at the end.
fn options(page: &mut Roff, verb: &Command) {
    let own = |option: &&Arg| !option.is_hide_set() && !option.is_global_set() && option.get_id() != "help";
    for option in verb.get_arguments().filter(own) {
        argument(page, option);
    }
}

fn argument(page: &mut Roff, argument: &Arg) {
    let mut term: Vec<Inline> = Vec::new();
    let short = argument.get_short().map(|letter| format!("-{letter}"));
    let aliases = argument.get_visible_aliases().unwrap_or_default();
    let long = argument.get_long().into_iter().chain(aliases).map(|long| format!("--{long}"));
    for name in short.into_iter().chain(long) {
        if !term.is_empty() {
            term.push(roman(", "));
        }
        term.push(bold(name));
    }
    if argument.is_positional() || argument.get_action().takes_values() {
        let names = argument.get_value_names().unwrap_or_default();
        let names = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
        let is_optional = argument.get_num_args().is_some_and(|range| range.min_values() == 0);
        let names = match is_optional && !argument.is_positional() {
            true => format!("[={names}]"),
            false if term.is_empty() => names,
            false => format!(" {names}"),
        };
        term.push(italic(names));
    }
    let help = argument.get_long_help().or_else(|| argument.get_help());
    item(page, term, &help.map(ToString::to_string).unwrap_or_default());
}

fn item(page: &mut Roff, term: impl Into<Vec<Inline>>, meaning: &str) {
    page.control("TP", []).text(term).text([roman(meaning)]);
}

/// Paragraphs, parted by empty lines.
fn prose(page: &mut Roff, text: &str) {
    for (place, paragraph) in text.split("\n\n").enumerate() {
        if place > 0 {
            page.control("PP", []);
        }
        page.text([roman(paragraph.replace('\n', " "))]);
    }
}

fn file() -> String {
    let mut page = begin("ecosystem.toml", "5", "the apps that clusterd runs");
    page.control("SH", ["DESCRIPTION"]);
    prose(&mut page, FILE);
    page.control("SH", ["KEYS OF AN APP"]);
    page.text([roman("They stand below a line "), bold("[[apps]]"), roman(", one for each app.")]);
    keys(&mut page, APP);
    item(
        &mut page,
        [bold("env_PROFILE")],
        "Variables that --env PROFILE adds to env, or sets in their place.",
    );
    page.control("SH", ["KEYS OF CLUSTERD ITSELF"]);
    page.text([roman("They stand below a line "), bold("[daemon]"), roman(".")]);
    keys(&mut page, DAEMON);
    page.control("SH", ["EXAMPLE"]).control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []).control("SH", ["SEE ALSO"]).text([bold("clusterd"), roman("(1)")]);
    page.render()
}

/// What ecosystem.toml(5) begins with.
const FILE: &str = "\
One TOML file says which apps clusterd runs, and how. Unknown keys, wrong types and values out of their range are errors \
that name file, line, app and key; nothing is started then, and nothing that runs is touched. `clusterd validate` shows \
all of them at once, and `clusterd reload` reads the file again.

Times: a whole number is milliseconds, a string carries its units: \"10s\", \"1m 30s\", \"1.5h\". Amounts of memory: a \
whole number is bytes; K, M and G count by 1024. Relative paths start at cwd, and cwd at the file's own folder.

Other names of a key that PM2 has are taken, and so is the camelCase form of each name.";

const EXAMPLE: &str = "\
[[apps]]
name = \"api\"
script = \"server.js\"
instances = \"max\"
max_memory_restart = \"512M\"
env = { PORT = 3000 }
env_production = { NODE_ENV = \"production\" }";

fn keys<K>(page: &mut Roff, table: &'static [Key<K>]) {
    for key in table {
        let mut term = vec![bold(key.name)];
        for alias in key.aliases {
            term.extend([roman(", "), bold(*alias)]);
        }
        let meaning =
            format!("{}. Takes {}. Default: {}.", capital(key.meaning), key.kind.expected(), key.default);
        item(page, term, &meaning);
    }
}
