//! `startup` and `unstartup`: a systemd unit that brings back what was saved. The unit is written, enabled, and seen
//! to be enabled; it is not started, since what runs already may be in its way.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::output::{Failure, Output, Shape};
use super::unit::{self, MARK, Manager, Unit};
use super::{Startup, file};
use crate::home;
use crate::sys::{accounts, socket};

/// There while systemd is the system's manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Where units of the system's administrator are (systemd.unit(5)).
const SYSTEM_UNITS: &str = "/etc/systemd/system";

/// Where a user's state is, below their home folder, unless they have said otherwise.
const USUAL_STATE: &str = ".local/state/clusterd";

/// What helps where there is no systemd.
const OTHERWISE: &str = "`clusterd resurrect --foreground` brings back what was saved, stays, and ends by SIGTERM: have \
                         your init system run it as a service, or put `@reboot clusterd resurrect` into a crontab";

/// One unit, as the command line means it.
struct Plan {
    manager: Manager,
    user: String,
    /// For CLUSTERD_HOME.
    home: Option<PathBuf>,
    /// With `.service`.
    name: String,
    folder: PathBuf,
}

impl Plan {
    fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// As it is typed, with these words behind it.
    fn systemctl(&self, words: &str) -> String {
        let user = if self.manager == Manager::User { "--user " } else { "" };
        format!("systemctl {user}{words} {}", self.name)
    }
}

/// Writes, enables and verifies the unit. `home` is what the caller says, `None` for the usual folders.
pub(super) fn startup(arguments: &Startup, home: Option<PathBuf>, json: bool) -> Result<i32, Failure> {
    expect_systemd(arguments.platform.as_deref())?;
    let Some(plan) = plan(arguments, home.clone())? else { return sudo("startup", arguments, home, json) };
    let program = program()?;
    let unit =
        Unit { program: &program, manager: plan.manager, user: &plan.user, home: plan.home.as_deref() };
    let path = plan.path();
    let before = ours(&path)?;
    write(&path, &unit::text(&unit)?)?;
    let said = enable(&plan).map_err(|why| {
        let became = take_back(&plan, before.as_deref());
        Failure::failed(format_args!("{why}\n{became}"))
    })?;
    let mut words = format!("wrote {} and enabled it: at boot it runs\n", path.display());
    words += &format!("  {} resurrect --foreground\n", program.display());
    words += &format!("as {}, which brings back what was saved, or else what ran last.\n", plan.user);
    words += &said;
    words += &format!(
        "Now: {} (after `clusterd kill` as {}, where a supervisor runs already); undo: clusterd {}",
        plan.systemctl("start"),
        plan.user,
        undo(arguments)
    );
    let lingers = Path::new("/var/lib/systemd/linger").join(&plan.user).exists();
    if plan.manager == Manager::User && !lingers {
        words += &format!(
            "\nIt starts when {0} logs in; for a start at boot: loginctl enable-linger {0}",
            plan.user
        );
    }
    let facts = json!({ "unit": path, "name": plan.name, "user": plan.user, "home": plan.home });
    Output::new(json, Shape::Table).facts(&words, &facts)?;
    Ok(0)
}

/// Disables and removes the unit. What runs goes on.
pub(super) fn unstartup(arguments: &Startup, home: Option<PathBuf>, json: bool) -> Result<i32, Failure> {
    expect_systemd(arguments.platform.as_deref())?;
    let Some(plan) = plan(arguments, home.clone())? else { return sudo("unstartup", arguments, home, json) };
    let path = plan.path();
    let there = ours(&path)?.is_some();
    if there {
        call(plan.manager, &["disable", &plan.name]).map_err(Failure::failed)?;
        fs::remove_file(&path).map_err(|error| unwritten(&path, &error))?;
        call(plan.manager, &["daemon-reload"]).map_err(Failure::failed)?;
    }
    let words = match there {
        true => format!("disabled and removed {}; what runs goes on", path.display()),
        false => format!("there is no {}", path.display()),
    };
    let facts = json!({ "unit": path, "name": plan.name, "removed": there });
    Output::new(json, Shape::Table).facts(&words, &facts)?;
    Ok(0)
}

/// What removes the same unit: names decide which it is. They have no characters that a shell knows.
fn undo(arguments: &Startup) -> String {
    let mut words = "unstartup".to_owned();
    if arguments.own {
        words += " --user";
    }
    for (flag, name) in [("-u", &arguments.user), ("--service-name", &arguments.service_name)] {
        if let Some(name) = name {
            words += &format!(" {flag} {name}");
        }
    }
    words
}

fn expect_systemd(platform: Option<&str>) -> Result<(), Failure> {
    if let Some(other) = platform.filter(|platform| *platform != "systemd") {
        return Err(Failure::failed(format_args!(
            "{}: only systemd is known here. {OTHERWISE}",
            other.escape_debug()
        )));
    }
    let why = if !Path::new(BOOTED).is_dir() {
        "this host was not booted with systemd"
    } else if found("systemctl").is_none() {
        "there is no systemctl in PATH"
    } else {
        return Ok(());
    };
    Err(Failure::failed(format_args!("{why}, so there is no unit to write. {OTHERWISE}")))
}

/// None when it takes root.
fn plan(arguments: &Startup, given: Option<PathBuf>) -> Result<Option<Plan>, Failure> {
    let uid = socket::own_uid();
    let own = account(uid)?;
    if arguments.own {
        let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = base.unwrap_or_else(|| own.1.join(".config")).join("systemd/user");
        let home = given.or_else(|| elsewhere(uid, &own.1));
        let name = name(arguments, "clusterd")?;
        return Ok(Some(Plan { manager: Manager::User, user: own.0, home, name, folder }));
    }
    if uid != 0 {
        return Ok(None);
    }
    let (user, login) = arguments.user.as_deref().map_or(Ok(own), named)?;
    let login = arguments.hp.clone().unwrap_or(login);
    // A user's usual folder for sockets is there while they are logged in; that of their state always.
    let usual = (user != "root").then(|| login.join(USUAL_STATE));
    let usual_name = if user == "root" { "clusterd".to_owned() } else { format!("clusterd-{user}") };
    let name = name(arguments, &usual_name)?;
    let (manager, folder) = (Manager::System, PathBuf::from(SYSTEM_UNITS));
    Ok(Some(Plan { manager, user, home: given.or(usual), name, folder }))
}

/// Where the caller's apps are saved, when that is not the usual place: a unit has no XDG_STATE_HOME to find it by.
/// Root's place is the same everywhere.
fn elsewhere(uid: u32, login: &Path) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = (uid != 0).then(|| home::user_state(&variable)).flatten();
    state.filter(|state| *state != login.join(USUAL_STATE))
}

fn name(arguments: &Startup, usual: &str) -> Result<String, Failure> {
    let name = arguments.service_name.as_deref().unwrap_or(usual);
    Ok(format!("{}.service", unit::name(name.strip_suffix(".service").unwrap_or(name))?))
}

/// Name and home folder of the user of this number.
fn account(uid: u32) -> Result<(String, PathBuf), Failure> {
    let passwd = accounts::read(accounts::PASSWD).map_err(unread)?;
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match accounts::user_numbered(&passwd, uid) {
        Some(user) => Ok((user.name.to_string_lossy().into_owned(), home().unwrap_or(user.home.into()))),
        None if uid == 0 => Ok(("root".to_owned(), home().unwrap_or_else(|| "/root".into()))),
        // systemd takes numbers, too.
        None => Ok((uid.to_string(), home().unwrap_or_else(|| "/".into()))),
    }
}

fn named(name: &str) -> Result<(String, PathBuf), Failure> {
    let passwd = accounts::read(accounts::PASSWD).map_err(unread)?;
    let user = accounts::user_named(&passwd, OsStr::new(name));
    user.map(|user| (name.to_owned(), PathBuf::from(user.home))).ok_or_else(|| {
        Failure::failed(format_args!("{}: there is no such user in /etc/passwd", name.escape_debug()))
    })
}

fn unread(error: io::Error) -> Failure {
    Failure::failed(format_args!("/etc/passwd: {error}"))
}

/// What root is to be asked for.
fn sudo(verb: &str, arguments: &Startup, home: Option<PathBuf>, json: bool) -> Result<i32, Failure> {
    let uid = socket::own_uid();
    let (own, login) = account(uid)?;
    let user = arguments.user.clone().unwrap_or_else(|| own.clone());
    let is_own = user == own && arguments.hp.is_none();
    let home = home.or_else(|| is_own.then(|| elsewhere(uid, &login)).flatten());
    let login = arguments.hp.clone().unwrap_or(login);
    let mut words =
        vec!["sudo".to_owned(), program()?.display().to_string(), verb.to_owned(), "systemd".to_owned()];
    words.extend(["-u".to_owned(), user, "--hp".to_owned(), login.display().to_string()]);
    if let Some(name) = &arguments.service_name {
        words.extend(["--service-name".to_owned(), name.clone()]);
    }
    if let Some(home) = home {
        words.extend(["--home".to_owned(), home.display().to_string()]);
    }
    let quoted = words.iter().map(|word| shlex::try_quote(word).map_or_else(|_| word.clone(), Into::into));
    let command = quoted.collect::<Vec<String>>().join(" ");
    let words = format!(
        "A unit of the system takes root. Run this:\n\n{command}\n\nor, without root, for your own manager: clusterd \
         {verb} --user"
    );
    Output::new(json, Shape::Table).facts(&words, &json!({ "run": command }))?;
    Ok(1)
}

/// This very file, wherever it was called from; never what /proc calls a file that was replaced meanwhile.
fn program() -> Result<PathBuf, Failure> {
    let found = std::env::current_exe().ok().filter(|path| path.is_file());
    found.ok_or_else(|| Failure::failed("the path of this program cannot be found out; is /proc mounted?"))
}

/// Whole, or as it was.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| unwritten(path, &error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let draft = path.with_extension(format!("service.{}", std::process::id()));
    let fill = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    fill().map_err(|error| {
        let _ = fs::remove_file(&draft);
        failed(error)
    })
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format_args!("{}: {error}", path.display()))
}

/// Its text, when it is there; one that somebody else wrote is an error.
fn ours(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unwritten(path, &error)),
        Ok(text) if text.starts_with(MARK) => Ok(Some(text)),
        Ok(_) => Err(Failure::failed(format_args!(
            "{}: `clusterd startup` did not write this unit, and leaves it as it is; take another name with \
             --service-name",
            path.display()
        ))),
    }
}

/// Has systemd take the unit that was written. What it says of it is for people to read.
fn enable(plan: &Plan) -> Result<String, String> {
    let said = verify(plan)?;
    call(plan.manager, &["daemon-reload"])?;
    call(plan.manager, &["enable", &plan.name])?;
    call(plan.manager, &["is-enabled", &plan.name])?;
    Ok(said)
}

/// Makes it as it was before, and says what became of it. A unit that was there may be one that works.
fn take_back(plan: &Plan, before: Option<&str>) -> String {
    let path = plan.path();
    let taken_back = match before {
        Some(text) => write(&path, text).is_ok(),
        None => {
            // It may be enabled in part. Why it is not as a whole is told already.
            let _ = call(plan.manager, &["disable", &plan.name]);
            fs::remove_file(&path).is_ok()
        }
    };
    let _ = call(plan.manager, &["daemon-reload"]);
    let became = match (taken_back, before) {
        (true, Some(_)) => "is as it was before",
        (true, None) => "was removed again",
        (false, _) => "was written, and could not be taken back: remove it, or enable it by hand",
    };
    format!("{} {became}", path.display())
}

/// What systemd has to say of the file, where it has its own means to look.
fn verify(plan: &Plan) -> Result<String, String> {
    let Some(analyze) = found("systemd-analyze") else { return Ok(String::new()) };
    let mut command = Command::new(analyze);
    command.arg("verify").args((plan.manager == Manager::User).then_some("--user")).arg(plan.path());
    let output = command.output().map_err(|error| unstarted("systemd-analyze", &error))?;
    // It speaks of what the unit refers to as well: only lines about this one are ours.
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String =
        said.lines().filter(|line| line.contains(&plan.name)).map(|line| format!("{line}\n")).collect();
    // Without a word about it, it is the look that failed.
    if output.status.success() || said.is_empty() {
        return Ok(said);
    }
    Err(format!("systemd refuses the unit:\n{}", said.trim_end()))
}

fn call(manager: Manager, words: &[&str]) -> Result<(), String> {
    let mut command = Command::new("systemctl");
    command.args((manager == Manager::User).then_some("--user")).args(words);
    let output = command.output().map_err(|error| unstarted("systemctl", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    Err(format!("systemctl {}: {}: {}", words.join(" "), output.status, said.trim_end()))
}

fn unstarted(program: &str, error: &io::Error) -> String {
    format!("{program}: cannot be run: {error}")
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// What CLUSTERD_HOME is to be in the unit, when the caller says where its home is.
pub(super) fn given_home(named: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let variable = std::env::var_os("CLUSTERD_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = named.map(Path::to_owned).or(variable);
    home.map(|home| Ok(file::current_folder()?.join(home))).transpose()
}
