//! Programs that stand above the server and keep its stop signal to themselves: a shell that runs one line
//! waits for what it started, and so does npm, since on a terminal ^C reaches everybody by itself. What they
//! run gets the signal with them, as there.
//!
//! A shell that runs a script file is left alone, as its author may have written a trap that says who is to hear
//! what. Not so with SIGINT: it comes from a terminal to all of them, which scripts are written for, and a shell
//! without a trap waits for what it runs and passes nothing on (bash(1), SIGNALS).

use std::collections::BTreeSet;

use crate::sys::process;

/// Processes below wrappers that are told, at most: a shell line can start any number.
const MOST: usize = 64;

const SHELLS: &[&str] = &["sh", "dash", "bash", "ash", "ksh", "zsh", "busybox"];

/// Each also as the script that Node runs: `npm-cli.js`.
const RUNNERS: &[&str] = &["npm", "npx", "yarn", "pnpm"];

/// Whom a stop signal to this process would not reach; none where it keeps none to itself.
pub(super) fn below(leader: i32, signal: i32) -> Option<BTreeSet<i32>> {
    let keeps_it = |pid| is_wrapper(&process::arguments(pid), signal);
    if !keeps_it(leader) {
        return None;
    }
    let mut below = BTreeSet::new();
    let mut open = vec![leader];
    while let Some(pid) = open.pop() {
        for child in process::children(pid) {
            if below.len() < MOST && below.insert(child) && keeps_it(child) {
                open.push(child);
            }
        }
    }
    Some(below)
}

/// Whether these are the arguments of a program that waits for what it started and does not pass this signal on.
fn is_wrapper(arguments: &[String], signal: i32) -> bool {
    let file = |at: usize| arguments.get(at).map_or("", |word| word.rsplit('/').next().unwrap_or_default());
    // npm writes what it does over its arguments: `npm start`, `npm run dev`.
    let title = file(0).split(' ').next().unwrap_or_default();
    let runs_node = matches!(title, "node" | "nodejs");
    let script = file(1).split('.').next().unwrap_or_default();
    let script = script.strip_suffix("-cli").unwrap_or(script);
    // A login shell has a dash before its name.
    let shell = SHELLS.contains(&title.trim_start_matches('-'));
    let options: Vec<&String> = arguments.iter().skip(1).take_while(|word| word.starts_with('-')).collect();
    let runs_a_line = options.iter().any(|word| !word.starts_with("--") && word.contains('c'))
        || (title == "busybox" && arguments.get(2).is_some_and(|word| word == "-c"));
    let keeps_it = shell && (runs_a_line || signal == libc::SIGINT);
    RUNNERS.contains(&title) || (runs_node && RUNNERS.contains(&script)) || keeps_it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapper_is_known_by_its_arguments() {
        for (line, expected) in [
            ("sh|-c|npm start", true),
            ("/bin/bash|-lc|node a.js", true),
            ("-dash|-e|-c|x", true),
            ("busybox|sh|-c|x", true),
            ("npm start|||", true),
            ("npm run dev", true),
            ("node|/usr/bin/npm|start", true),
            ("/usr/bin/node|/usr/lib/node_modules/npm/bin/npm-cli.js|start", true),
            ("yarn", true),
            ("node|/x/pnpm.cjs|start", true),
            ("sh|run.sh|-c", false),
            ("bash|speaker.sh", false),
            ("bash|--rcfile|x", false),
            ("node|server.js", false),
            ("npmserver", false),
            ("python3|-c|print()", false),
            ("", false),
        ] {
            let arguments: Vec<String> = line.split('|').map(str::to_owned).collect();
            assert_eq!(is_wrapper(&arguments, libc::SIGTERM), expected, "{line}");
            let shell = ["sh|", "bash|"].iter().any(|shell| line.starts_with(shell));
            assert_eq!(is_wrapper(&arguments, libc::SIGINT), expected || shell, "{line}");
        }
        assert!(!is_wrapper(&[], libc::SIGINT));
    }
}
