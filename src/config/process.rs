//! How a worker's process is set up: as whom it runs, what the kernel allows it, where its variables come
//! from, and where its number is written. Refuses what the kernel would misread (an id that means "none", a
//! umask that was not written in octal); whether a name exists is for each start to say.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use super::Spec;
use super::bounds::{self, GroupBounds};
use super::error::quoted;
use super::keys::{AppKey, Kind};
use super::raw;
use super::reader::{Reader, join};
use super::units;
use super::value::{self, Refusal};
use super::words;

/// The variable that holds the number of an instance when the file names no other.
const INSTANCE_VARIABLE: &str = "NODE_APP_INSTANCE";

/// Files of variables that one app can name.
pub(super) const MAX_ENV_FILES: usize = 32;

/// Patterns of `filter_env`: each is looked for in the name of each variable at each start.
pub(super) const MAX_FILTERS: usize = 256;

/// The longest name of an account: nine times what useradd(8) takes.
const MAX_ACCOUNT: usize = 288;

/// What a worker's process is set up with. Nothing that is not set is touched.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessSettings {
    /// As whom it runs.
    pub user: Option<Account>,
    /// Its group, where that is not the user's own.
    pub group: Option<Account>,
    /// Permission bits that its new files do not get.
    pub umask: Option<u32>,
    /// -20 to 19.
    pub nice: Option<i32>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// In the order of the file.
    pub rlimits: Vec<Rlimit>,
    /// Of its control group.
    pub bounds: GroupBounds,
    /// setuid programs have no effect in it.
    pub no_new_privs: bool,
    /// Read anew at each start; a later one wins.
    pub env_files: Vec<PathBuf>,
    /// What the base environment loses.
    pub filter_env: FilterEnv,
    /// This variable is one number more for each instance.
    pub increment_var: Option<String>,
    /// This variable holds the instance's number.
    pub instance_var: String,
    /// Where its process id is written; none means the default file.
    pub pid_file: Option<PathBuf>,
    /// Its standard input is a pipe that `send` writes to, in place of the null device.
    pub pipe_input: bool,
}

impl Default for ProcessSettings {
    fn default() -> ProcessSettings {
        ProcessSettings {
            user: None,
            group: None,
            umask: None,
            nice: None,
            oom_score_adj: None,
            rlimits: Vec::new(),
            bounds: GroupBounds::default(),
            no_new_privs: false,
            env_files: Vec::new(),
            filter_env: FilterEnv::Nothing,
            increment_var: None,
            instance_var: INSTANCE_VARIABLE.to_owned(),
            pid_file: None,
            pipe_input: false,
        }
    }
}

/// A user or a group, as written. Digits are always an id: no name can stand in for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// Its number.
    Id(u32),
    /// Its name in /etc/passwd or /etc/group.
    Name(String),
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Account::Id(id) => write!(f, "{id}"),
            Account::Name(name) => f.write_str(&quoted(name)),
        }
    }
}

/// What the base environment loses, as PM2 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterEnv {
    /// `false`.
    Nothing,
    /// `true`.
    Everything,
    /// A string: the variable of exactly this name.
    Named(String),
    /// An array: every variable whose name contains one of these.
    Containing(Vec<String>),
}

impl FilterEnv {
    /// Whether a variable of the base environment is left out. Names that are not UTF-8 count with the
    /// broken bytes replaced.
    pub fn drops(&self, name: &str) -> bool {
        match self {
            FilterEnv::Nothing => false,
            FilterEnv::Everything => true,
            FilterEnv::Named(dropped) => name == dropped,
            FilterEnv::Containing(parts) => parts.iter().any(|part| name.contains(part)),
        }
    }
}

/// No limit (RLIM_INFINITY).
const UNLIMITED: u64 = u64::MAX;

/// One resource limit (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Of what.
    pub resource: &'static Resource,
    /// What counts; none leaves it as it is, or lowers it to `hard`.
    pub soft: Option<u64>,
    /// Up to where the worker itself may raise `soft`; none leaves it as it is.
    pub hard: Option<u64>,
}

/// What can be limited.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// As the file spells it.
    pub name: &'static str,
    /// RLIMIT_….
    pub number: u32,
    /// Strings with a unit of bytes are taken.
    in_bytes: bool,
}

const fn resource(name: &'static str, number: u32, in_bytes: bool) -> Resource {
    Resource { name, number, in_bytes }
}

/// In the words of limits.conf(5) and of the kernel.
const RESOURCES: &[Resource] = &[
    resource("as", libc::RLIMIT_AS, true),
    resource("core", libc::RLIMIT_CORE, true),
    resource("cpu", libc::RLIMIT_CPU, false),
    resource("data", libc::RLIMIT_DATA, true),
    resource("fsize", libc::RLIMIT_FSIZE, true),
    resource("locks", libc::RLIMIT_LOCKS, false),
    resource("memlock", libc::RLIMIT_MEMLOCK, true),
    resource("msgqueue", libc::RLIMIT_MSGQUEUE, true),
    resource("nice", libc::RLIMIT_NICE, false),
    resource("nofile", libc::RLIMIT_NOFILE, false),
    resource("nproc", libc::RLIMIT_NPROC, false),
    resource("rss", libc::RLIMIT_RSS, true),
    resource("rtprio", libc::RLIMIT_RTPRIO, false),
    resource("rttime", libc::RLIMIT_RTTIME, false),
    resource("sigpending", libc::RLIMIT_SIGPENDING, false),
    resource("stack", libc::RLIMIT_STACK, true),
];

/// The names of all.
pub(super) fn resource_names() -> impl Iterator<Item = &'static str> {
    RESOURCES.iter().map(|resource| resource.name)
}

impl<'v> Reader<'_, 'v, '_, AppKey> {
    /// Everything about the process that the file sets. `cwd` is where relative paths start.
    pub(super) fn process_settings(&mut self, cwd: &Path) -> ProcessSettings {
        let defaults = ProcessSettings::default();
        ProcessSettings {
            user: self.read(AppKey::User, account),
            group: self.read(AppKey::Group, account),
            umask: self.read(AppKey::Umask, umask),
            nice: self.whole(AppKey::Nice),
            oom_score_adj: self.whole(AppKey::OomScoreAdj),
            rlimits: self.rlimits(),
            bounds: self.group_bounds(),
            no_new_privs: self.flag(AppKey::NoNewPrivs).unwrap_or(false),
            env_files: self.env_files(cwd),
            filter_env: self.read(AppKey::FilterEnv, filter_env).unwrap_or(FilterEnv::Nothing),
            increment_var: self.read(AppKey::IncrementVar, variable_name),
            instance_var: self.read(AppKey::InstanceVar, variable_name).unwrap_or(defaults.instance_var),
            pid_file: self.read(AppKey::PidFile, |value| pid_file(value, cwd)),
            pipe_input: self.choice(AppKey::Stdin) == Some("pipe"),
        }
    }

    fn whole(&mut self, id: AppKey) -> Option<i32> {
        let Kind::Whole { min, max } = self.kind(id) else {
            return None;
        };
        self.read(id, |value| {
            let number = value::integer(value).and_then(|number| i32::try_from(number).ok());
            number.filter(|number| (min..=max).contains(number)).ok_or(Refusal::WRONG)
        })
    }

    fn env_files(&mut self, cwd: &Path) -> Vec<PathBuf> {
        let Some(entry) = self.section.get(AppKey::EnvFile).cloned() else {
            return Vec::new();
        };
        let items: Vec<&'v Spanned<DeValue<'v>>> = match entry.value().as_array() {
            Some(items) => items.iter().collect(),
            None => vec![entry.value],
        };
        if items.len() > MAX_ENV_FILES {
            let message = format!("has {} files; at most {MAX_ENV_FILES} are taken", items.len());
            let refusal = Refusal::said(message, "put their variables into fewer files");
            self.refuse(Kind::EnvFiles, entry.written, entry.value, refusal);
            return Vec::new();
        }
        let mut files = Vec::new();
        for item in items {
            match value::path(item.get_ref()) {
                Ok(path) => files.push(join(cwd, path)),
                Err(refusal) => self.refuse(Kind::EnvFiles, entry.written, item, refusal),
            }
        }
        files
    }

    fn rlimits(&mut self) -> Vec<Rlimit> {
        let Some(entry) = self.section.get(AppKey::Rlimits).cloned() else {
            return Vec::new();
        };
        let DeValue::Table(table) = entry.value() else {
            let refusal = Refusal::wrong("write rlimits = { nofile = 65536 }");
            self.refuse(Kind::Limits, entry.written, entry.value, refusal);
            return Vec::new();
        };
        let mut limits = Vec::new();
        for limit in raw::entries(table) {
            match rlimit(limit.written, limit.value()) {
                Ok(rlimit) => limits.push(rlimit),
                Err(refusal) => {
                    let key = format!("{}.{}", entry.written, limit.written);
                    self.refuse(Kind::Limit, &key, limit.value, refusal);
                }
            }
        }
        limits
    }
}

/// A user or group: an id, or a name that is looked up at each start.
pub(super) fn account(value: &DeValue<'_>) -> Result<Account, Refusal> {
    let text = match value {
        DeValue::Integer(_) => {
            let id = value::integer(value).and_then(|id| u32::try_from(id).ok());
            return id.filter(|id| *id != u32::MAX).map(Account::Id).ok_or(Refusal::WRONG);
        }
        DeValue::String(text) => text.as_ref(),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => return Err(Refusal::WRONG),
    };
    if text.is_empty() {
        return Err(Refusal::wrong("leave the key out to run as clusterd's own user"));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        // u32::MAX is "leave it as it is" to setresuid(2): the worker would keep the supervisor's rights.
        let id = text.parse().ok().filter(|id| *id != u32::MAX);
        return id.map(Account::Id).ok_or(Refusal::WRONG);
    }
    let breaks_a_line = |c: char| c == ':' || c.is_control();
    if text.contains(breaks_a_line) || text.len() > MAX_ACCOUNT {
        return Err(Refusal::said(
            format!("{} cannot be the name of an account", quoted(text)),
            "write the name alone, as the first column of /etc/passwd or /etc/group has it, or the number",
        ));
    }
    Ok(Account::Name(text.to_owned()))
}

/// Octal: a string of digits, or `0o22`. A plain number would be decimal, and never meant so.
fn umask(value: &DeValue<'_>) -> Result<u32, Refusal> {
    const MOST: u32 = 0o777;
    let bits = match value {
        DeValue::Integer(number) => {
            let bits = value::integer(value).and_then(|bits| u32::try_from(bits).ok());
            if number.radix() != 8 && bits != Some(0) {
                return Err(Refusal::wrong(format!("write it in octal: \"{:0>3}\"", number.as_str())));
            }
            bits
        }
        DeValue::String(text) => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let octal = !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
            octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten()
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    bits.filter(|bits| *bits <= MOST).ok_or(Refusal::WRONG)
}

fn filter_env(value: &DeValue<'_>) -> Result<FilterEnv, Refusal> {
    match value {
        DeValue::Boolean(true) => Ok(FilterEnv::Everything),
        DeValue::Boolean(false) => Ok(FilterEnv::Nothing),
        DeValue::String(_) => Ok(FilterEnv::Named(filter_part(value)?)),
        DeValue::Array(items) if items.len() > MAX_FILTERS => {
            let message = format!("has {} parts; at most {MAX_FILTERS} are taken", items.len());
            Err(Refusal::said(message, "a part that more names contain drops them all"))
        }
        DeValue::Array(items) => {
            let parts = items.iter().map(|item| filter_part(item.get_ref()));
            Ok(FilterEnv::Containing(parts.collect::<Result<_, _>>()?))
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            Err(Refusal::WRONG)
        }
    }
}

/// An empty part would be contained in every name.
fn filter_part(value: &DeValue<'_>) -> Result<String, Refusal> {
    let part = value::text(value)?;
    match part.is_empty() {
        true => Err(Refusal::wrong("write true to drop the whole base environment")),
        false => Ok(part.to_owned()),
    }
}

fn variable_name(value: &DeValue<'_>) -> Result<String, Refusal> {
    let name = value::text(value)?;
    words::variable_name(name)?;
    Ok(name.to_owned())
}

fn pid_file(value: &DeValue<'_>, cwd: &Path) -> Result<PathBuf, Refusal> {
    let path = value::path(value)?;
    match path.ends_with('/') {
        true => Err(Refusal::wrong(format!("add the file's name: \"{path}app.pid\""))),
        false => Ok(join(cwd, path)),
    }
}

fn rlimit(name: &str, value: &DeValue<'_>) -> Result<Rlimit, Refusal> {
    let bare = name.to_ascii_lowercase();
    let bare = bare.strip_prefix("rlimit_").unwrap_or(&bare);
    let Some(resource) = RESOURCES.iter().find(|resource| resource.name == bare) else {
        let known = resource_names().collect::<Vec<_>>().join(", ");
        return Err(Refusal::said("the kernel has no limit of this name", format!("write one of {known}")));
    };
    let DeValue::Table(table) = value else {
        let bound = bound(resource, value)?;
        return Ok(Rlimit { resource, soft: Some(bound), hard: Some(bound) });
    };
    let mut rlimit = Rlimit { resource, soft: None, hard: None };
    for part in raw::entries(table) {
        let place = match part.written {
            "soft" => &mut rlimit.soft,
            "hard" => &mut rlimit.hard,
            other => {
                let message = format!("{} is neither soft nor hard", quoted(other));
                return Err(Refusal::said(message, "write { soft = 1024, hard = 4096 }"));
            }
        };
        *place = Some(bound(resource, part.value())?);
    }
    match (rlimit.soft, rlimit.hard) {
        (None, None) => Err(Refusal::wrong("write { soft = 1024, hard = 4096 }")),
        (Some(soft), Some(hard)) if soft > hard => Err(Refusal::said(
            format!("soft ({}) is greater than hard ({})", show_bound(soft), show_bound(hard)),
            "soft is what counts; hard is how far the worker may raise it",
        )),
        _ => Ok(rlimit),
    }
}

fn bound(resource: &Resource, value: &DeValue<'_>) -> Result<u64, Refusal> {
    let number = |value| value::integer(value).and_then(|number| u64::try_from(number).ok());
    match value {
        DeValue::String(text) if matches!(text.as_ref(), "unlimited" | "infinity") => Ok(UNLIMITED),
        DeValue::String(text) if resource.in_bytes => {
            units::parse_size(text).ok_or_else(|| Refusal::wrong("units are K, M, G: \"512M\""))
        }
        _ => number(value).ok_or(Refusal::WRONG),
    }
}

fn show_bound(bound: u64) -> String {
    match bound {
        UNLIMITED => "\"unlimited\"".to_owned(),
        bound => bound.to_string(),
    }
}

/// A setting in the words of the file; none where nothing is set and nothing holds by default.
pub(super) fn shown(key: AppKey, spec: &Spec) -> Option<String> {
    let process = &spec.process;
    match key {
        AppKey::User => process.user.as_ref().map(show_account),
        AppKey::Group => process.group.as_ref().map(show_account),
        AppKey::Umask => process.umask.map(|umask| format!("{umask:03o}")),
        AppKey::Nice => process.nice.map(|nice| nice.to_string()),
        AppKey::OomScoreAdj => process.oom_score_adj.map(|score| score.to_string()),
        AppKey::Rlimits => {
            let limits: Vec<String> = process.rlimits.iter().map(show_rlimit).collect();
            (!limits.is_empty()).then(|| format!("{{ {} }}", limits.join(", ")))
        }
        AppKey::MemoryHigh | AppKey::MemoryMax | AppKey::PidsMax | AppKey::CpuWeight => {
            bounds::shown(key, process.bounds)
        }
        AppKey::NoNewPrivs => Some(process.no_new_privs.to_string()),
        AppKey::EnvFile => {
            let files: Vec<String> = process.env_files.iter().map(|f| f.display().to_string()).collect();
            (!files.is_empty()).then(|| serde_json::json!(files).to_string())
        }
        AppKey::FilterEnv => match &process.filter_env {
            FilterEnv::Nothing => None,
            FilterEnv::Everything => Some("true".to_owned()),
            FilterEnv::Named(name) => Some(name.clone()),
            FilterEnv::Containing(parts) => Some(serde_json::json!(parts).to_string()),
        },
        AppKey::IncrementVar => process.increment_var.clone(),
        AppKey::InstanceVar => Some(process.instance_var.clone()),
        AppKey::Stdin => Some(if process.pipe_input { "pipe" } else { "null" }.to_owned()),
        AppKey::PidFile => {
            let named = process.pid_file.as_ref().map(|path| path.display().to_string());
            Some(named.unwrap_or_else(|| "default".to_owned()))
        }
        _ => None,
    }
}

fn show_account(account: &Account) -> String {
    match account {
        Account::Id(id) => id.to_string(),
        Account::Name(name) => name.clone(),
    }
}

fn show_rlimit(limit: &Rlimit) -> String {
    let name = limit.resource.name;
    let part = |name: &str, bound: Option<u64>| bound.map(|bound| format!("{name} = {}", show_bound(bound)));
    match (limit.soft, limit.hard) {
        (Some(soft), hard) if hard == Some(soft) => format!("{name} = {}", show_bound(soft)),
        (soft, hard) => {
            let parts: Vec<String> = part("soft", soft).into_iter().chain(part("hard", hard)).collect();
            format!("{name} = {{ {} }}", parts.join(", "))
        }
    }
}
