//! The pages below docs/ say what is so: their files are loaded, their names are looked up, and nothing that a user
//! can write is missing from them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clusterd::cli::Cli;
use clusterd::config::keys::{self, APP, DAEMON};
use clusterd::config::{self, Host};
use clusterd::control::protocol::{DaemonInfo, List};
use clusterd::http::metrics;

/// Attributes of an app that PM2 (7.0.4) knows, with its other names for them.
const PM2_KEYS: &str = "\
    script exec cmd command name name_prefix namespace args interpreter exec_interpreter node_args \
    interpreter_args interpreterArgs cwd exec_mode execute_command instances increment_var instance_var port \
    install_url force write windowsHide out_file out output out_log error_file error err err_file err_log \
    log_file log merge_logs combine_logs disable_logs log_type log_date_format time pid_file pid env \
    filter_env append_env_to_name autostart autorestart stop_exit_codes restart_delay \
    exp_backoff_restart_delay min_uptime max_restarts kill_timeout kill_retry_time shutdown_with_message \
    treekill wait_ready listen_timeout cron_restart cron max_memory_restart watch ignore_watch watch_delay \
    watch_options uid user gid source_map_support disable_source_map_support pmx automation trace \
    disable_trace v8 event_loop_inspector deep_monitoring io post_update vizion username static deploy apps";

/// Those of them that no app of a file here can have, known or not: `import` alone meets them.
const NOT_OF_AN_APP: &[&str] = &["static", "deploy", "apps", "username"];

/// PM2's commands, with their other names.
const PM2_COMMANDS: &str = "\
    start stop restart reload gracefulReload delete del startOrRestart startOrReload startOrGracefulReload \
    scale reset sendSignal send attach trigger inspect list ls l ps status jlist prettylist slist sysinfos \
    describe desc info show env pid id monit dashboard dash imonit logs report ping flush reloadLogs \
    logrotate save dump cleardump resurrect startup unstartup update updatePM2 deepUpdate kill init ecosystem \
    create examples set get unset conf config multiset serve expose deploy pull forward backward install \
    uninstall module:update module:generate package publish profile:cpu profile:mem link unlink monitor \
    unmonitor open plus login logout install-otel uninstall-otel autoinstall completion web pm2-runtime \
    pm2-docker pm2-dev";

/// The flags of PM2's `start`.
const PM2_FLAGS: &str = "\
    --name -n --namespace -i --interpreter --interpreter-args --node-args -o --output -e --error -l --log \
    --filter-env --log-type --log-date-format --time --disable-logs --env -a --update-env -f --force \
    --parallel --shutdown-with-message -p --pid -k --kill-timeout --listen-timeout --max-memory-restart \
    --restart-delay --exp-backoff-restart-delay -x --execute-command --max-restarts --uid --gid --cwd -c \
    --cron --cron-restart -w --write --no-daemon --only --wait-ready --merge-logs --watch --ignore-watch \
    --watch-delay --ext --no-color --no-vizion --no-autostart --no-autorestart --stop-exit-codes \
    --no-treekill --no-pmx --attach --sort -m --source-map-support --disable-source-map-support --trace --v8 \
    --deep-monitoring -s --silent";

/// Messages of other programs' and libraries'.
const NOT_OURS: &[&str] = &["unrecognized subcommand"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder that end so.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A page: where it is, and its text.
type Page = (PathBuf, String);

fn pages() -> Vec<Page> {
    let paths = files(&root().join("docs"), "md").into_iter().chain([root().join("README.md")]);
    paths.map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// What stands between backticks on one line, without the blocks.
fn code_spans(text: &str) -> Vec<&str> {
    let mut in_block = false;
    let mut spans = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            assert!(line.matches('`').count().is_multiple_of(2), "code that goes over a line's end: {line}");
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// The words of all code of these texts, blocks included: names with their dashes.
fn words<'t>(texts: impl IntoIterator<Item = &'t str>) -> BTreeSet<&'t str> {
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || "_-:".contains(c));
    texts
        .into_iter()
        .flat_map(move |text| text.split(is_end))
        .map(|word| word.trim_end_matches(':'))
        .collect()
}

/// The first cells of all rows of the tables below a heading, up to the next one of its rank.
fn rows<'t>(text: &'t str, heading: &str) -> Vec<Vec<&'t str>> {
    let begin = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading:?}")) + 1;
    let section = &text[begin + heading.len()..];
    let rank = format!("\n{} ", heading.split(' ').next().unwrap());
    let section = &section[..section.find(&rank).unwrap_or(section.len())];
    let lines = section.lines().filter(|line| line.starts_with("| "));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words of the first column below a heading.
fn first_column<'t>(text: &'t str, heading: &str) -> BTreeSet<&'t str> {
    let cells: Vec<&str> = rows(text, heading).into_iter().map(|row| row[0]).collect();
    words(cells.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)))
}

fn missing<'w>(wanted: impl IntoIterator<Item = &'w str>, there: &BTreeSet<&str>) -> Vec<&'w str> {
    wanted.into_iter().filter(|word| !there.contains(word)).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn every_key_is_told_of() {
    let pages = pages();
    let spans =
        pages.iter().filter(|(path, _)| !path.ends_with("README.md")).flat_map(|(_, text)| code_spans(text));
    let words = words(spans);
    assert_eq!(missing(keys::names(APP).chain(keys::names(DAEMON)), &words), NONE);
}

#[test]
fn every_figure_is_told_of_and_no_other() {
    let daemon = DaemonInfo {
        pid: 1,
        version: String::new(),
        uptime_ms: 0,
        home: String::new(),
        control_groups: String::new(),
    };
    let page_of_none =
        metrics::render(&List { version: 1, daemon, apps: Vec::new() }, &metrics::AllCounts::new());
    let families = page_of_none.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let text = page("metrics-and-health.md");
    let told = first_column(&text, "## The figures");
    assert_eq!(told.into_iter().filter(|word| *word != "name").collect::<Vec<_>>(), {
        let mut families: Vec<&str> = families.collect();
        families.sort_unstable();
        families
    });
}

#[test]
fn every_key_of_pm2_has_a_row() {
    let text = page("moving-from-pm2.md");
    assert_eq!(missing(PM2_KEYS.split(' '), &first_column(&text, "## Keys of an app")), NONE);
    let strange = |key: &&str| keys::find(APP, key).is_none() && !keys::is_pm2_only(key);
    let strange: Vec<_> =
        PM2_KEYS.split(' ').filter(strange).filter(|key| !NOT_OF_AN_APP.contains(key)).collect();
    assert!(strange.is_empty(), "neither known nor known as PM2's: {strange:?}");
}

/// What is said to be gone is refused, and what is not is taken.
#[test]
fn a_key_is_gone_where_its_row_says_so_and_nowhere_else() {
    let text = page("moving-from-pm2.md");
    for row in rows(&text, "## Keys of an app") {
        // Those of the keys that PM2 does not have, and of its global settings, have other columns.
        let [pm2, here, verdict, _] = row[..] else { continue };
        let named: Vec<&str> = pm2.split('`').skip(1).step_by(2).collect();
        for key in named
            .iter()
            .filter(|key| PM2_KEYS.split(' ').any(|known| known == **key) && !NOT_OF_AN_APP.contains(key))
        {
            assert_eq!(keys::find(APP, key).is_none(), verdict == "gone", "{key}: {here}");
        }
    }
}

#[test]
fn every_command_and_flag_of_pm2_has_a_row() {
    let text = page("moving-from-pm2.md");
    assert_eq!(missing(PM2_COMMANDS.split(' '), &first_column(&text, "## Commands")), NONE);
    assert_eq!(missing(PM2_FLAGS.split(' '), &first_column(&text, "## Flags of `start`")), NONE);
}

#[test]
fn every_verb_of_pm2_is_one_here_or_says_what_to_use_instead() {
    let definition = Cli::command();
    // The names of other programs.
    for verb in PM2_COMMANDS.split(' ').filter(|verb| !verb.starts_with("pm2-")) {
        let (is_here, told) = (definition.find_subcommand(verb).is_some(), clusterd::cli::gone::told(verb));
        assert!(is_here != told.is_some(), "{verb}: {told:?}");
    }
}

#[test]
fn every_verb_and_flag_is_told_of() {
    const INTERNAL: &[&str] = &["run", "daemon", "demo", "help", "__complete"];
    let text = page("moving-from-pm2.md");
    let command = Cli::command();
    let section = |heading: &str| {
        let begin = text.find(&format!("\n{heading}\n")).unwrap();
        let end = text[begin + 1..].find("\n## ").map_or(text.len(), |end| begin + 1 + end);
        words(code_spans(&text[begin..end]))
    };
    let verbs = command.get_subcommands().filter(|verb| !INTERNAL.contains(&verb.get_name()));
    let verbs = verbs.flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_all_aliases()));
    let verbs: Vec<&str> = verbs.collect();
    assert_eq!(missing(verbs, &section("## Commands")), NONE);

    let start = command.find_subcommand("start").unwrap();
    let arguments = start.get_arguments().filter(|argument| argument.get_long().is_some());
    let mut flags = Vec::new();
    for argument in arguments {
        flags.extend(argument.get_long().map(|long| format!("--{long}")));
        flags.extend(argument.get_all_aliases().into_iter().flatten().map(|long| format!("--{long}")));
        flags.extend(argument.get_short().map(|short| format!("-{short}")));
    }
    assert_eq!(missing(flags.iter().map(String::as_str), &section("## Flags of `start`")), NONE);
}

/// The tests of tests/*.rs, as `file::name`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests")).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|end| end != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let file = path.file_stem().unwrap().to_str().unwrap();
        for test in text.split("#[test]").skip(1) {
            let name = test.split_once("fn ").unwrap().1.split('(').next().unwrap();
            found.insert(format!("{file}::{name}"));
        }
    }
    found
}

/// The tests that a text names.
fn named_tests(text: &str) -> Vec<&str> {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_test =
        |span: &&str| span.split_once("::").is_some_and(|(file, name)| is_word(file) && is_word(name));
    code_spans(text).into_iter().filter(is_test).collect()
}

#[test]
fn every_test_that_is_named_exists() {
    let tests = tests();
    let mut count = 0;
    for (path, text) in pages() {
        for name in named_tests(&text) {
            assert!(tests.contains(name), "{}: there is no test `{name}`", path.display());
            count += 1;
        }
    }
    assert!(count > 80, "only {count} tests were found in the pages");
}

#[test]
fn each_complaint_has_one_row_that_is_solved_by_a_test_or_open() {
    let text = page("moving-from-pm2.md");
    let rows = rows(&text, "## The forty complaints");
    let mut numbers = Vec::new();
    for row in rows.iter().filter(|row| row[0] != "#") {
        let [number, complaint, here] = row[..] else { panic!("{row:?}") };
        numbers.push(number.parse::<u32>().unwrap());
        let is_solved = here.starts_with("solved: ") && !named_tests(here).is_empty();
        assert!(is_solved || here.starts_with("open: "), "{number} {complaint}: {here}");
    }
    assert_eq!(numbers, (1..=40).collect::<Vec<u32>>());
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for (path, text) in pages() {
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if target.contains("://") {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target} leads nowhere", path.display());
            if !part.is_empty() {
                let there = fs::read_to_string(&file).unwrap();
                let mut headings = there.lines().filter(|line| line.starts_with('#'));
                assert!(
                    headings.any(|line| anchor(line) == part),
                    "{}: {target} is no heading",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_file_that_is_shown_can_be_loaded() {
    let host =
        Host { parallelism: 4, memory: None, folder: PathBuf::from("/srv"), profile: None, only: Vec::new() };
    let mut count = 0;
    for (path, text) in pages() {
        for block in text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            if let Err(problems) = config::load(block, "the block", &host) {
                let said: Vec<_> = problems.problems.iter().map(|problem| &problem.message).collect();
                panic!("{}:\n{block}\n{said:#?}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 12, "only {count} files were found in the pages");
}

/// The texts of the sources, as they are printed: lines that go on joined, quotes as they are.
fn source_texts() -> String {
    let mut all = String::new();
    for path in files(&root().join("src"), "rs") {
        let text = fs::read_to_string(path).unwrap().replace("\\\"", "\"");
        let mut parts = text.split("\\\n");
        all.push_str(parts.next().unwrap());
        parts.for_each(|part| all.push_str(part.trim_start()));
        all.push('\n');
    }
    all
}

/// Of a message what stands between what changes.
fn constant_parts(message: &str) -> impl Iterator<Item = &str> {
    let is_edge = |c: char| " \"'():,".contains(c);
    let parts = message.split('…').map(move |part| part.trim_matches(is_edge));
    parts.filter(|part| part.len() > 3 && !NOT_OURS.contains(part))
}

#[test]
fn every_message_that_is_explained_is_one_of_the_programs() {
    const HEADINGS: [&str; 5] = [
        "## Talking to the supervisor",
        "## The file",
        "## Starting a worker",
        "## The supervisor's log",
        "## Ports and the host",
    ];
    let (text, source) = (page("errors.md"), source_texts());
    let mut count = 0;
    for row in HEADINGS.iter().flat_map(|heading| rows(&text, heading)) {
        for part in row[0].split('`').skip(1).step_by(2).flat_map(constant_parts) {
            assert!(source.contains(part), "no message of the program has {part:?}");
            count += 1;
        }
    }
    assert!(count > 80, "only {count} messages were found");
}
