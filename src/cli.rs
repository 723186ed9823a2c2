//! The command line: what may be written, and its help. Nothing is carried out here.
//!
//! `clusterd FILE` has no verb; [`with_verb`] puts the hidden verb `run` before it, so that unknown verbs
//! stay unknown verbs and get a suggestion.

mod behind;
pub mod commands;
pub mod complete;
pub mod export;
mod file;
pub mod flags;
pub mod gone;
mod import;
mod init;
mod logs;
pub mod man;
mod monit;
mod near;
pub mod output;
mod pm2;
mod redact;
mod report;
mod screen;
mod sight;
pub mod sort;
mod stamp;
mod start;
mod startup;
pub mod unit;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::date;
use complete::Shell;
use export::Form;
use flags::{Changed, Flags};
use man::Page;
use sort::Sort;

/// Everything that can be written after `clusterd`.
#[derive(Debug, Parser)]
#[command(
    name = "clusterd",
    version,
    about = "Runs any language's server N times behind one port, keeps it alive, and reloads it without losing a request.",
    help_template = "{about}{after-help}\n",
    override_usage = "clusterd FILE [OPTIONS]\n       clusterd VERB [OPTIONS] ...",
    after_help = OVERVIEW,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Holds the socket and the logs (also CLUSTERD_HOME).
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub home: Option<PathBuf>,

    /// Prints facts, progress and errors as JSON, one object per line.
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What `clusterd` alone and `clusterd --help` print.
const OVERVIEW: &str = "\
Usage:
  clusterd FILE [--env PROFILE] [--only A,B]   supervise in the foreground
  clusterd start FILE [--env PROFILE]          supervise in the background
  clusterd start SCRIPT [-i N] [-- ARGS]       the same without a file
  clusterd VERB ...                            talk to the running supervisor

Run:
  start      start a script, apps of a file, or known ones
  stop       drain and stop apps
  restart    stop, then start
  reload     replace every worker without losing a request
  apply      bring what runs to what a file says: --dry-run, --prune
  promote    go on with a reload that is held (canary)
  rollback   take a reload back
  scale      change the number of instances: 4, +2, -1
  delete     stop apps and forget them
  signal     send a signal to workers
  send       write a line to the standard input of workers
  reset      count restarts from zero again

Look:
  list       apps and workers (ls, status; jlist, prettylist as in PM2)
  describe   everything about an app (show)
  logs       last lines, then new ones as they come
  monit      all of this on the whole screen, live
  flush      empty the log files
  pid        process ids, one per line
  env        what a worker was started with

Supervisor:
  ping       is it running?
  report     what to show with a question or a bug: host, apps, log
  kill       drain and stop everything, then end it
  reload-logs  open the log files anew, for logrotate
  save       write down what is to come back (dump; cleardump forgets it)
  resurrect  bring back what was saved, or else what ran last
  startup    write a systemd unit that does so at boot (unstartup removes it)
  validate   check a file; nothing is started
  import     print an ecosystem file made from PM2's, or from a Procfile
  export     print what runs a file in Kubernetes, Compose or systemd
  init       write an ecosystem file for the project of this folder
  version    print the version
  man        print the manual; man ecosystem.toml: of the file
  completions  print what lets bash, zsh or fish complete all this

Targets: all, name, id, namespace[/name], /regex/, or a file; several at once.
Options everywhere: --home DIR, --json, --help.

Examples:
  clusterd ecosystem.toml --env production
  clusterd reload api
  clusterd scale api +2
  clusterd logs api -n 100 --no-follow

Exit codes: 0 done; 1 failed; 2 wrong usage or configuration.";

/// What stands below the flags of `start`.
const START_EXAMPLES: &str = "\
Returns when all are ready or one failed. A supervisor is started in the
background if none runs. A text with blanks is a command for the shell; what
stands after -- is for the program. A file has all this as keys, and more.

Times: 1600 is milliseconds; 10s, 2m, 1h. Sizes: 512M, 1.5G, or bytes.

Examples:
  clusterd start server.js -i max --name api -- --port 3000
  clusterd start \"npm run worker\" --name jobs
  clusterd start ecosystem.toml --env production
  clusterd start api worker";

/// What stands below the options of `restart`.
const RESTART_EXAMPLES: &str = "\
The flags of `clusterd start` change a known app: --max-memory-restart 300M
sets a limit, --watch watches its folder, --name renames it, -- gives it new
arguments. A change stays until the app is defined anew: its file is named, or
its script started with --force. =null takes a setting back: --node-args=null.

Examples:
  clusterd restart api
  clusterd restart /^web-/ --update-env
  clusterd restart api --max-memory-restart 300M -- --port 3001";

/// What stands below the options of `reload`.
const RELOAD_EXAMPLES: &str = "\
The flags of `clusterd start` change a known app: --max-memory-restart 300M
sets a limit, -i 4 the number of workers, --name renames it, -- gives it new
arguments. A change stays until the app is defined anew: its file is named, or
its script started with --force. =null takes a setting back: --node-args=null.

Examples:
  clusterd reload api
  clusterd reload ecosystem.toml --env production
  clusterd reload api -i max --kill-timeout 10s";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Supervises the apps of a file in the foreground, until it is told to end.
    #[command(hide = true, override_usage = "clusterd FILE [--env PROFILE] [--only A,B] [--no-log-files]")]
    Run(Run),

    /// Starts a script or a command, the apps of a file, or known apps: those that run are restarted.
    #[command(
        override_usage = "clusterd start SCRIPT|COMMAND [OPTIONS] [-- ARGS]\n       clusterd start [FILE|TARGET...] [OPTIONS]",
        after_help = START_EXAMPLES
    )]
    Start(Box<Start>),

    /// Drains and stops apps. Their definitions stay known.
    #[command(
        after_help = "Examples:\n  clusterd stop api\n  clusterd stop all\n  clusterd stop ecosystem.toml --only api"
    )]
    Stop(End),

    /// Stops apps, then starts them. For a change without a gap there is `reload`.
    #[command(
        override_usage = "clusterd restart TARGET... [OPTIONS] [-- ARGS]\n       clusterd restart FILE [OPTIONS]",
        after_help = RESTART_EXAMPLES
    )]
    Restart(Replace),

    /// Replaces every worker without losing a request. The app's file is read again.
    ///
    /// Returns when the old workers are gone. If the new version does not come up, the old one serves on,
    /// and the exit code is 1.
    #[command(
        visible_alias = "gracefulReload",
        override_usage = "clusterd reload TARGET... [OPTIONS] [-- ARGS]\n       clusterd reload FILE [OPTIONS]",
        after_help = RELOAD_EXAMPLES
    )]
    Reload(Replace),

    /// Brings what runs to what a file says, and touches nothing that is so already.
    ///
    /// Prints its plan first: each app and worker, what is done to it and why. A changed app is reloaded (in
    /// fork mode restarted), one of which only the instances changed is scaled, a new or stopped one started.
    #[command(
        after_help = "Examples:\n  clusterd apply ecosystem.toml --dry-run\n  clusterd apply ecosystem.toml --prune"
    )]
    Apply(Apply),
    /// Goes on with a reload that is held at a share of the connections (canary). Returns when it is done.
    #[command(after_help = "Example:\n  clusterd promote api")]
    Promote(Stop),

    /// Takes a reload back that is held or under way; also the mix that a failed one left. Returns when the
    /// new generation is gone.
    #[command(after_help = "Example:\n  clusterd rollback api")]
    Rollback(Stop),

    /// Changes the number of instances of an app.
    #[command(
        after_help = "Examples:\n  clusterd scale api 4\n  clusterd scale api +2\n  clusterd scale api -1"
    )]
    Scale(Scale),

    /// Stops apps and forgets them.
    #[command(visible_alias = "del", after_help = "Examples:\n  clusterd delete api\n  clusterd delete 3")]
    Delete(End),

    /// Shows apps and their workers.
    #[command(
        visible_aliases = ["ls", "status"],
        aliases = ["l", "ps"],
        after_help = "Examples:\n  clusterd list\n  clusterd list api --connections\n  clusterd list --sort memory:desc\n  clusterd list --json"
    )]
    List(List),

    /// Shows everything about apps.
    #[command(visible_aliases = ["show", "desc", "info"], after_help = "Example:\n  clusterd describe api")]
    Describe(Describe),

    /// Shows the last lines of workers, then new ones as they come.
    ///
    /// The supervisor remembers 1000 lines (256 KiB) of each app since it runs, with the time at which it read
    /// each; what is older is in the log files. A reader that falls behind is told how many lines it missed.
    #[command(
        visible_alias = "log",
        after_help = "Examples:\n  clusterd logs\n  clusterd logs api --err\n  clusterd logs api -n 100 --no-follow\n  clusterd logs --since 10m --grep 'timeout|refused' --timestamp"
    )]
    Logs(Logs),

    /// Shows apps, workers, their CPU time and memory, and a log, on the whole screen.
    ///
    /// Keys: arrows or j and k select, Enter folds, r reloads, R restarts, s stops, + and - scale (each after a
    /// question), / searches, o sorts, l pauses the log, ? shows all keys, q quits.
    #[command(visible_aliases = ["dashboard", "dash"], alias = "imonit")]
    Monit,

    /// Prints what runs as PM2's `jlist` does, on one line of JSON, for scripts that read that.
    ///
    /// Values of variables are not in it. Where no supervisor runs, nothing is printed and the exit code is 1, as
    /// with `list`; PM2 would start one and print an empty list.
    #[command(hide = true)]
    Jlist,

    /// The same as PM2's `prettylist` prints it.
    #[command(hide = true)]
    Prettylist,

    /// Sends a signal to the first process of each worker.
    #[command(visible_alias = "sendSignal", after_help = "Example:\n  clusterd signal SIGUSR2 api")]
    Signal(Signal),

    /// Writes a line, and its end, to the standard input of workers whose file says stdin = "pipe".
    #[command(after_help = "Example:\n  clusterd send api 'reload templates'")]
    Send(Send),

    /// Asks whether a supervisor runs for this home.
    #[command(after_help = "Example, as a container's health check:\n  clusterd ping --ready")]
    Ping(Ping),

    /// Prints what somebody needs to know who looks for the cause of something: versions, host, apps, last lines of
    /// the supervisor's log.
    ///
    /// Values of variables, arguments and what workers print are left out, and so is what looks like a secret. Look
    /// it over all the same before you show it to others.
    #[command(after_help = "Examples:\n  clusterd report > report.txt\n  clusterd report --json")]
    Report,

    /// Drains and stops everything, then ends the supervisor.
    Kill,

    /// Writes down the apps as they are, stopped ones too: exactly these come back by `resurrect`.
    ///
    /// It is not needed for that. Where nothing was saved, what ran last comes back; once something was, that
    /// counts, until `cleardump`. What was saved before is kept beside it, in dump.json.bak.
    #[command(visible_alias = "dump", after_help = "Example:\n  clusterd save")]
    Save {
        /// Also when there is no app.
        #[arg(long)]
        force: bool,
    },

    /// Brings back the apps that were saved, or else those that ran last, but for those that are there.
    ///
    /// A supervisor is started in the background if none runs. Each app comes back as it was told, with its
    /// environment, its number of workers, and stopped if it was; whether its file has changed meanwhile is a matter
    /// of `reload`. One that cannot be brought back is named, the others start, and the exit code is 1.
    #[command(after_help = "Examples:\n  clusterd resurrect\n  clusterd resurrect --foreground")]
    Resurrect {
        /// Supervises them here, until it is told to end: what the unit of `startup` runs. If the supervisor before
        /// was killed, what that one ran comes back.
        #[arg(long, visible_alias = "no-daemon")]
        foreground: bool,
    },

    /// Forgets what was saved: `resurrect` brings back what ran last.
    #[command(hide = true, name = "cleardump", after_help = "Example:\n  clusterd cleardump")]
    ClearDump,

    /// Writes, enables and verifies a systemd unit that brings back at boot what was saved, or else what ran last.
    ///
    /// For a unit of the system it takes root: without, the command to run is printed, and the exit code is 1. The
    /// unit is not started. Where systemd is not the system's manager, it says what to do instead.
    #[command(
        after_help = "Examples:\n  sudo clusterd startup\n  sudo clusterd startup systemd -u deploy\n  clusterd startup --user"
    )]
    Startup(Startup),

    /// Disables and removes the unit that `startup` wrote. What runs goes on.
    #[command(hide = true, after_help = "Example:\n  sudo clusterd unstartup -u deploy")]
    Unstartup(Startup),

    /// Prints the process ids of workers, one per line; 0 where none runs.
    #[command(after_help = "Example:\n  kill -STOP $(clusterd pid api)")]
    Pid(Pid),

    /// Prints the environment of workers, as they were started with it: of an app its first worker's.
    #[command(after_help = "Examples:\n  clusterd env api\n  clusterd env 3 --json")]
    Env(Whom),

    /// Counts restarts from zero again.
    #[command(after_help = "Example:\n  clusterd reset all")]
    Reset(Whom),

    /// Empties the log files of apps, those of stopped ones too. Old files that were rotated stay.
    ///
    /// Without a target those of all apps, and the supervisor's own log.
    #[command(after_help = "Examples:\n  clusterd flush\n  clusterd flush api")]
    Flush(Pid),

    /// Opens all log files anew, after something renamed them; so does the signal SIGUSR2.
    #[command(
        visible_alias = "reloadLogs",
        after_help = "Example, in logrotate's postrotate:\n  clusterd reload-logs"
    )]
    ReloadLogs,

    /// Checks a file and shows every error in it. Nothing is started.
    #[command(after_help = "Example:\n  clusterd validate ecosystem.toml --env production")]
    Validate(Validate),

    /// Prints an ecosystem file made from PM2's file, package.json, PM2's dump, or a Procfile.
    ///
    /// A remark stands wherever something means another thing here or is left out. Nothing is started, and
    /// nothing is run: a `.config.js` is a program, which your own node evaluates when --run says so.
    #[command(
        after_help = "Examples:\n  clusterd import --run ecosystem.config.js > ecosystem.toml\n  clusterd import ~/.pm2/dump.pm2\n  pm2 jlist | clusterd import -"
    )]
    Import(Import),

    /// Prints what runs the apps of a file elsewhere: manifests for Kubernetes, a Compose file, systemd units.
    ///
    /// They run `clusterd FILE`, and change nothing of what the file says. Times, ports, probes and limits follow from
    /// it; what the other side has no word for is a remark. Nothing is started. Values that look like secrets are not
    /// printed.
    #[command(
        after_help = "Examples:\n  clusterd export kubernetes ecosystem.toml --env production --image registry.example/shop:7\n  clusterd export compose ecosystem.toml > compose.yaml\n  clusterd export systemd /etc/shop/ecosystem.toml"
    )]
    Export(Export),

    /// Writes ecosystem.toml for the project of the current folder, with remarks.
    ///
    /// It looks for a Procfile, package.json, config.ru or a Rails app, go.mod, manage.py, pyproject.toml and
    /// requirements.txt. A file that is there already stays as it is.
    #[command(after_help = "Example:\n  clusterd init && clusterd start ecosystem.toml")]
    Init {
        /// Writes it anew if it is there already.
        #[arg(long)]
        force: bool,
    },

    /// Prints the version.
    Version,

    /// Prints a script that lets a shell complete verbs, options, apps and files.
    ///
    /// The apps are those of the supervisor that runs at that moment; none is started for it. Where a package has
    /// installed clusterd, the scripts are in place.
    #[command(
        after_help = "Examples:\n  source <(clusterd completions bash)\n  clusterd completions zsh > ~/.zfunc/_clusterd\n  clusterd completions fish > ~/.config/fish/completions/clusterd.fish"
    )]
    Completions {
        /// For which shell.
        #[arg(value_name = "SHELL", value_enum)]
        shell: Shell,
    },

    /// Prints a page of the manual, for man(1).
    #[command(after_help = "Examples:\n  clusterd man | man -l -\n  clusterd man ecosystem.toml | man -l -")]
    Man {
        /// Which page.
        #[arg(value_name = "PAGE", value_enum, default_value_t = Page::Clusterd)]
        page: Page,
    },

    /// What these scripts call: the words so far, of which the last one is to be completed.
    #[command(hide = true, name = "__complete", disable_help_flag = true)]
    Complete {
        /// Without `clusterd` itself.
        #[arg(last = true)]
        words: Vec<OsString>,
    },

    /// Starts what is missing of a file, reloads what is known (PM2).
    #[command(hide = true, name = "startOrReload", alias = "startOrGracefulReload")]
    StartOrReload(Replace),

    /// Starts what is missing of a file, restarts what is known (PM2).
    #[command(hide = true, name = "startOrRestart")]
    StartOrRestart(Replace),

    /// The background supervisor. `start` runs it; standard output is the pipe on which it says that it is ready.
    #[command(hide = true)]
    Daemon,

    /// A small server to try clusterd with.
    #[command(hide = true)]
    Demo {
        /// Its own.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// `startup`, `unstartup`.
#[derive(Debug, Args)]
pub struct Startup {
    /// The init system: systemd is the only one.
    #[arg(value_name = "systemd")]
    pub platform: Option<String>,

    /// As whom the supervisor runs; root where nobody is named.
    #[arg(short = 'u', value_name = "USER", conflicts_with = "own")]
    pub user: Option<String>,

    /// That user's home folder, where /etc/passwd does not say it.
    #[arg(long, value_name = "DIR")]
    pub hp: Option<PathBuf>,

    /// A unit of your own manager (systemctl --user) rather than of the system's; takes no root.
    #[arg(long = "user")]
    pub own: bool,

    /// The unit's name; `clusterd`, or `clusterd-USER`.
    #[arg(long, value_name = "NAME")]
    pub service_name: Option<String>,
}

/// Which part of a file is meant.
#[derive(Debug, Default, Args)]
pub struct Selection {
    /// The profile: `[apps.env_PROFILE]` is laid over `[apps.env]`.
    #[arg(long = "env", value_name = "PROFILE")]
    pub profile: Option<String>,

    /// Only these apps of the file.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub only: Vec<String>,
}

/// `clusterd FILE`.
#[derive(Debug, Args)]
pub struct Run {
    /// The ecosystem file; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: String,

    /// Which part of the file.
    #[command(flatten)]
    pub selection: Selection,

    /// Writes no log files: output goes to the terminal alone.
    #[arg(long)]
    pub no_log_files: bool,
}

/// `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// What makes an app of a script or a command, or changes a known one. First, for it looks at where the targets
    /// stand before they are taken out.
    #[command(flatten)]
    pub flags: Flags,

    /// A script, a program, "a command", an ecosystem file (`-` reads it from standard input), or targets; without
    /// one the ecosystem.toml of this folder.
    #[arg(value_name = "SCRIPT|FILE|TARGET")]
    pub targets: Vec<String>,

    /// What the program gets.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,

    /// Which part of the file.
    #[command(flatten)]
    pub selection: Selection,

    /// Replaces the stored environment of a known app by yours.
    #[arg(short = 'a', long)]
    pub update_env: bool,

    /// Makes a known app anew, as it is said now.
    #[arg(short, long)]
    pub force: bool,

    /// Returns as soon as the command is accepted.
    #[arg(long)]
    pub no_wait: bool,
}

/// `stop`, `delete`.
#[derive(Debug, Args)]
pub struct End {
    /// all, names, ids, namespaces, /regex/, or a file.
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,

    /// Only those of the file that run with this profile.
    #[arg(long = "env", value_name = "PROFILE")]
    pub profile: Option<String>,

    /// Only these apps of the file.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Returns as soon as the command is accepted.
    #[arg(long)]
    pub no_wait: bool,
}

/// `promote`, `rollback`.
#[derive(Debug, Args)]
pub struct Stop {
    /// all, names, ids, namespaces, /regex/, or a file.
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,

    /// Returns as soon as the command is accepted.
    #[arg(long)]
    pub no_wait: bool,
}

/// `restart`, `reload`.
#[derive(Debug, Args)]
pub struct Replace {
    /// What changes of the app. First, for it looks at where the targets stand before they are taken out.
    #[command(flatten)]
    pub changed: Changed,

    /// all, names, ids, namespaces, /regex/, or a file.
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,

    /// What the program gets from now on.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,

    /// Which part of the file.
    #[command(flatten)]
    pub selection: Selection,

    /// Replaces the stored environment by the caller's.
    #[arg(short = 'a', long)]
    pub update_env: bool,

    /// Returns as soon as the command is accepted.
    #[arg(long)]
    pub no_wait: bool,
}

/// `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The ecosystem file; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: String,

    /// Which part of the file.
    #[command(flatten)]
    pub selection: Selection,

    /// Prints the plan and changes nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Deletes the apps that were started from this file and are gone from it.
    #[arg(long, conflicts_with = "only")]
    pub prune: bool,

    /// Returns as soon as the command is accepted.
    #[arg(long, conflicts_with = "dry_run")]
    pub no_wait: bool,
}

/// `scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// The app.
    #[arg(value_name = "NAME")]
    pub target: String,

    /// 4 sets the number, +2 adds, -1 takes away.
    #[arg(value_name = "N|+N|-N", allow_negative_numbers = true, value_parser = count)]
    pub count: String,

    /// Returns as soon as the command is accepted.
    #[arg(long)]
    pub no_wait: bool,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Whom; all when none is given.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,

    /// Counts the open connections of each worker too.
    #[arg(long)]
    pub connections: bool,

    /// By name, namespace, id, pid, memory, cpu, status, uptime or restarts; memory:desc has the largest first.
    #[arg(long, value_name = "FIELD[:desc]")]
    pub sort: Option<Sort>,
}

/// `describe`.
#[derive(Debug, Args)]
pub struct Describe {
    /// all, names, ids, namespaces, /regex/, or a file.
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Whose; all when none is given.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,

    /// How many of the last lines of each app; 15, with --since all that are remembered.
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u32>,

    /// Ends after the last lines.
    #[arg(long, visible_alias = "nostream")]
    pub no_follow: bool,

    /// Standard output only.
    #[arg(long, conflicts_with = "err")]
    pub out: bool,

    /// Standard error only.
    #[arg(long)]
    pub err: bool,

    /// Only lines since then: 10m, 2h, 08:30, 2026-11-23T08:30, or with a zone.
    #[arg(long, value_name = "DURATION|TIME")]
    pub since: Option<String>,

    /// Only lines in which this regular expression is found.
    #[arg(long, value_name = "PATTERN")]
    pub grep: Option<String>,

    /// The lines alone: nothing in front of them.
    #[arg(long)]
    pub raw: bool,

    /// When each line was read, as YYYY-MM-DDTHH:mm:ss or as FORMAT says (PM2's patterns), in local time.
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, default_missing_value = date::USUAL)]
    pub timestamp: Option<String>,
}

/// `signal`.
#[derive(Debug, Args)]
pub struct Signal {
    /// A name (SIGHUP, hup) or a number.
    #[arg(value_name = "SIGNAL")]
    pub signal: String,

    /// all, names, ids, namespaces, /regex/, or a file.
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// `send`.
#[derive(Debug, Args)]
pub struct Send {
    /// all, names, ids, namespaces, /regex/, or a file.
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,

    /// What is written: at most 4095 bytes. After `--` it may begin with a dash.
    #[arg(required = true, value_name = "LINE")]
    pub line: String,
}

/// `ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// Asks whether its apps can serve, too: each one that is not stopped has a worker that is ready.
    #[arg(long)]
    pub ready: bool,

    /// all, names, ids, namespaces, /regex/, or a file; without one, all.
    #[arg(requires = "ready", value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// `pid`, `flush`.
#[derive(Debug, Args)]
pub struct Pid {
    /// Whose; all when none is given.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// Verbs that take nothing but whom they are about.
#[derive(Debug, Args)]
pub struct Whom {
    /// all, names, ids, namespaces, /regex/, or a file.
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// `validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// The ecosystem file; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: String,

    /// Which part of the file.
    #[command(flatten)]
    pub selection: Selection,
}

/// `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The file: .json, .yaml, .js, .cjs, .mjs, package.json, dump.pm2, Procfile; `-` reads JSON from standard
    /// input.
    #[arg(value_name = "FILE")]
    pub file: String,

    /// Has node evaluate the file, with all that it does.
    #[arg(long)]
    pub run: bool,
}

/// `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// For whom: kubernetes, compose or systemd.
    #[arg(value_name = "FORM", value_enum)]
    pub form: Form,

    /// The ecosystem file; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: String,

    /// Which part of the file.
    #[command(flatten)]
    pub selection: Selection,

    /// What containers are made of; without it NAME:latest, after the file or its folder.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
}

fn count(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    match digits.parse::<u32>() {
        Ok(_) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err("expected a number, +N or -N".to_owned()),
    }
}

/// Puts `run` before the words of `clusterd FILE …`. The first word that is no option decides: it is a
/// file when it is `-`, ends in `.toml`, or is no verb and `exists` as a file.
pub fn with_verb(words: Vec<OsString>, exists: impl Fn(&Path) -> bool) -> Vec<OsString> {
    let Some(first) = first_positional(&words) else { return words };
    let text = first.to_string_lossy();
    // A project may well have a script that is called `deploy`.
    let is_gone = || gone::told(&text).is_some() && file::is_program(Path::new(first));
    let is_there = || !is_verb(&text) && exists(Path::new(first)) && !is_gone();
    let is_file = text == "-" || text.ends_with(".toml") || is_there();
    if !is_file {
        return words;
    }
    let mut words = words;
    words.insert(1, "run".into());
    words
}

fn first_positional(words: &[OsString]) -> Option<&OsStr> {
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        match word.to_str() {
            Some("--home" | "--env" | "--only") => drop(rest.next()),
            Some("--") => return None,
            Some(option) if option.starts_with('-') && option != "-" => {}
            Some(_) | None => return Some(word),
        }
    }
    None
}

fn is_verb(word: &str) -> bool {
    use clap::CommandFactory;
    word == "help" || Cli::command().find_subcommand(word).is_some()
}
