//! What a worker's start runs: [`Spec`] → argument vector, looked up on the file system at each start, so
//! that a `current` link, a new interpreter or a changed PATH count from the next start on.
//!
//! Only looks at files (stat(2)); runs nothing and changes nothing. What it finds can be gone a moment
//! later: execve(2) has the last word, and [`exec_failure`] explains it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::env_file::{self, Variable};
use super::error::printable;
use super::guarded::{self, Reader};
use super::{Interpreter, Program, Spec};

/// What execve(2) gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The absolute path of the program.
    pub program: PathBuf,
    /// With the program's name as it was asked for in front.
    pub argv: Vec<OsString>,
    /// The working directory, with all links followed.
    pub cwd: PathBuf,
    /// The program is Node or Bun, which take part in Node's IPC when NODE_CHANNEL_FD is set. Others would
    /// only find a descriptor that they know nothing of.
    pub speaks_node_ipc: bool,
    /// Variables that go beneath the declared ones: `PWD`, and what the interpreter needs.
    pub extra_env: Vec<(OsString, OsString)>,
}

/// Why a worker cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchError {
    /// What was being done: `chdir "/srv/api"`.
    pub step: String,
    /// The error number (errno(3)).
    pub errno: i32,
    /// What, where, why, and what to do.
    pub message: String,
    /// The host lacked something for a moment; the same start can succeed later.
    pub transient: bool,
}

impl LaunchError {
    fn new(step: String, errno: i32, message: String) -> LaunchError {
        let transient = matches!(
            errno,
            libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ETXTBSY | libc::EINTR
        );
        LaunchError { step, errno, message, transient }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LaunchError {}

/// The variables of these files, in their order, as they are now. Values are not shown in errors.
///
/// # Errors
/// The file and the line that is wrong, why a file cannot be read, or why root must not read it for others.
pub fn read_env_files(files: &[PathBuf], reader: Reader) -> Result<Vec<Variable>, LaunchError> {
    let mut variables = Vec::new();
    for file in files {
        let step = || format!("read env_file {}", show(file));
        let unreadable = |error: io::Error| {
            let message = format!("env_file {}; correct env_file, or its mode", fault(file, &error));
            LaunchError::new(step(), errno_of(&error), message)
        };
        let opened = open_env_file(file).map_err(unreadable)?;
        guarded::check(file, &opened, reader).map_err(|refused| {
            let message = format!("env_file {}: {}", show(file), refused.message);
            LaunchError::new(step(), refused.errno, message)
        })?;
        let bytes = read_env_file(opened).map_err(unreadable)?;
        let read = env_file::parse(&bytes).map_err(|wrong| {
            let message = format!("env_file {}:{}: {}", show(file), wrong.line, wrong.message);
            LaunchError::new(step(), libc::EINVAL, message)
        })?;
        variables.extend(read);
    }
    Ok(variables)
}

pub(super) fn open_env_file(path: &Path) -> io::Result<fs::File> {
    // Opening a named pipe would wait for its writer.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    Ok(file)
}

pub(super) fn read_env_file(file: fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(env_file::MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > env_file::MAX_FILE {
        true => Err(io::Error::other(format!("has more than {} bytes", env_file::MAX_FILE))),
        false => Ok(bytes),
    }
}

/// Explains why arguments and variables together were too much for execve(2): the longest of them.
/// `variables` are their names with the length of name and value.
pub fn too_much(command: &CommandLine, variables: &[(String, usize)]) -> LaunchError {
    let arguments: usize = command.argv.iter().map(|word| word.len() + 1).sum();
    let all: usize = variables.iter().map(|(_, length)| length + 1).sum();
    let longest = variables.iter().max_by_key(|(_, length)| *length);
    let named = longest.map_or_else(String::new, |(name, length)| {
        format!("; the longest variable is {} with {length} bytes", printable(name))
    });
    let program = show(&command.program);
    let message = format!(
        "{program} got more than the kernel takes (E2BIG): {arguments} bytes of arguments and {all} bytes of \
         variables{named}. A quarter of the stack limit is for both (rlimits.stack), 6 MiB at most: shorten \
         args, env or env_file, or drop variables of the caller with filter_env"
    );
    LaunchError::new(format!("exec {program}"), libc::E2BIG, message)
}

/// Programs that run a file, by its extension.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ByExtension {
    extensions: &'static [&'static str],
    /// The first of these that is in PATH.
    programs: &'static [&'static str],
}

const BY_EXTENSION: &[ByExtension] = &[
    ByExtension { extensions: &["js", "cjs", "mjs"], programs: &["node"] },
    ByExtension { extensions: TYPESCRIPT, programs: &["node", "bun"] },
    // Node strips types, but knows no JSX.
    ByExtension { extensions: &["tsx"], programs: &["bun"] },
    ByExtension { extensions: &["py"], programs: &["python3"] },
    ByExtension { extensions: &["rb"], programs: &["ruby"] },
    ByExtension { extensions: &["php"], programs: &["php"] },
    ByExtension { extensions: &["pl"], programs: &["perl"] },
    ByExtension { extensions: &["sh"], programs: &["bash", "sh"] },
    ByExtension { extensions: &["bash"], programs: &["bash"] },
    ByExtension { extensions: &["jar"], programs: &["java"] },
];

const TYPESCRIPT: &[&str] = &["ts", "mts", "cts"];

/// Where programs are looked up without a PATH (what shells and confstr(_CS_PATH) fall back to).
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What runs a file of this name when no interpreter is named; none for one that is executed.
pub(super) fn interpreter_by_extension(script: &Path) -> Option<&'static ByExtension> {
    let extension = script.extension()?.to_str()?;
    BY_EXTENSION.iter().find(|row| row.extensions.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// The first choice of programs that run a file of this name; none for one that is executed.
pub fn interpreter_of(script: &Path) -> Option<&'static str> {
    interpreter_by_extension(script)?.programs.first().copied()
}

/// Finds what the next worker of `spec` runs. `path_variable` is the worker's PATH; `own` the path of this
/// program, which `command = ["clusterd", …]` means when it is not in PATH.
///
/// # Errors
/// The step that failed, its error number, and what to do about it.
pub fn resolve(
    spec: &Spec,
    path_variable: Option<&OsStr>,
    own: Option<&Path>,
) -> Result<CommandLine, LaunchError> {
    let cwd = folder(&spec.cwd)?;
    let path = path_variable.unwrap_or(OsStr::new(DEFAULT_PATH)).to_owned();
    let lookup = Lookup { cwd, path };
    let (program, argv) = match &spec.program {
        Program::Shell(line) => lookup.shell(line),
        Program::Exact(vector) => lookup.exact(vector, own)?,
        Program::Script { script, interpreter } => lookup.script(spec, script, interpreter)?,
    };
    let mut extra_env = vec![(OsString::from("PWD"), lookup.cwd.clone().into_os_string())];
    let is_script = matches!(spec.program, Program::Script { .. });
    if is_script && (has_name(&program, "python") || has_name(&program, "pypy")) {
        // Without it Python keeps a worker's last lines in a buffer until it has 8 KiB (PM2 does the same).
        extra_env.push(("PYTHONUNBUFFERED".into(), "1".into()));
    }
    let speaks_node_ipc = ["node", "nodejs", "bun"].iter().any(|name| has_name(&program, name));
    Ok(CommandLine { program, argv, cwd: lookup.cwd, speaks_node_ipc, extra_env })
}

/// What the bare word in front of `spec` means in PATH now; none where it is a path, a file of the working directory,
/// or nowhere.
pub fn found_in_path(spec: &Spec, path_variable: Option<&OsStr>) -> Option<PathBuf> {
    let (word, is_script) = match &spec.program {
        Program::Shell(_) => return None,
        Program::Exact(vector) => (vector.first()?, false),
        Program::Script { script, .. } => (script, true),
    };
    let path = path_variable.unwrap_or(OsStr::new(DEFAULT_PATH)).to_owned();
    let lookup = Lookup { cwd: folder(&spec.cwd).ok()?, path };
    let is_here = is_script && fs::metadata(lookup.cwd.join(word)).is_ok_and(|found| !found.is_dir());
    if word.contains('/') || is_here { None } else { lookup.in_path(word).ok() }
}

/// Whether a program is `name`, or a version of it: `node`, `node22`, `python3.12`; not `node_exporter`.
fn has_name(program: &Path, name: &str) -> bool {
    let file = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
    file.strip_prefix(name).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b".-".contains(&b)))
}

/// The working directory with all links followed.
fn folder(cwd: &Path) -> Result<PathBuf, LaunchError> {
    let step = || format!("chdir {}", show(cwd));
    let real = fs::canonicalize(cwd).map_err(|error| {
        let message = format!("cwd {}; create the folder or correct cwd", fault(cwd, &error));
        LaunchError::new(step(), errno_of(&error), message)
    })?;
    match fs::metadata(&real) {
        Ok(metadata) if metadata.is_dir() => Ok(real),
        Ok(_) => {
            let message = format!("cwd {} is a file, not a folder (ENOTDIR); correct cwd", show(cwd));
            Err(LaunchError::new(step(), libc::ENOTDIR, message))
        }
        Err(error) => {
            Err(LaunchError::new(step(), errno_of(&error), format!("cwd {}", fault(&real, &error))))
        }
    }
}

type Found = (PathBuf, Vec<OsString>);

struct Lookup {
    cwd: PathBuf,
    path: OsString,
}

impl Lookup {
    fn shell(&self, line: &str) -> Found {
        // A worker's PATH that lacks /bin must not make its shell line fail.
        let shell = self.in_path("sh").unwrap_or_else(|_| PathBuf::from("/bin/sh"));
        (shell, vec!["sh".into(), "-c".into(), line.into()])
    }

    fn exact(&self, vector: &[String], own: Option<&Path>) -> Result<Found, LaunchError> {
        let word = vector.first().map_or("", String::as_str);
        let argv = vector.iter().map(OsString::from).collect();
        match (self.program("program", word), own) {
            (Ok(program), _) => Ok((program, argv)),
            (Err(error), Some(own)) if word == "clusterd" && error.errno == libc::ENOENT => {
                Ok((own.to_owned(), argv))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn script(&self, spec: &Spec, script: &str, interpreter: &Interpreter) -> Result<Found, LaunchError> {
        let (file, from_path) = self.file(script, interpreter)?;
        let runner = match interpreter {
            Interpreter::None => None,
            Interpreter::Program(word) => Some((word.as_str(), self.program("interpreter", word)?)),
            Interpreter::ByExtension if from_path => None,
            Interpreter::ByExtension => match interpreter_by_extension(&file) {
                Some(row) => Some(self.runner(row, &file)?),
                None => None,
            },
        };
        let args = spec.args.iter().map(OsString::from);
        let Some((word, program)) = runner else {
            executable(&file, "script")?;
            let argv = std::iter::once(file.clone().into_os_string()).chain(args).collect();
            return Ok((file, argv));
        };
        let mut argv = vec![OsString::from(word)];
        argv.extend(spec.interpreter_args.iter().map(OsString::from));
        argv.extend(flag_for(&program, &file, spec, interpreter).map(OsString::from));
        argv.push(file.into_os_string());
        argv.extend(args);
        Ok((program, argv))
    }

    /// The file that a script's name means, and whether it was found in PATH only.
    fn file(&self, script: &str, interpreter: &Interpreter) -> Result<(PathBuf, bool), LaunchError> {
        let file: PathBuf = self.cwd.join(script).components().collect();
        let step = || format!("find script {}", show(&file));
        let is_bare = !script.contains('/');
        match fs::metadata(&file) {
            Ok(metadata) if !metadata.is_dir() => Ok((file, false)),
            // `node .` and `python3 folder` run a folder's main file.
            Ok(_) if matches!(interpreter, Interpreter::Program(_)) => Ok((file, false)),
            Ok(_) => match self.in_path(script) {
                Ok(found) if is_bare => Ok((found, true)),
                Ok(_) | Err(_) => {
                    let message =
                        format!("script {} is a folder, not a program (EACCES); correct script", show(&file));
                    Err(LaunchError::new(step(), libc::EACCES, message))
                }
            },
            Err(error) if is_bare && errno_of(&error) == libc::ENOENT && !is_link(&file) => {
                let found = self.in_path(script).map_err(|_| {
                    let message = format!(
                        "script {}, and no program {} is in PATH ({}); correct script or cwd",
                        fault(&file, &error),
                        printable(script),
                        self.shown_path()
                    );
                    LaunchError::new(step(), libc::ENOENT, message)
                })?;
                Ok((found, true))
            }
            Err(error) => {
                let message = format!("script {}; correct script or cwd", fault(&file, &error));
                Err(LaunchError::new(step(), errno_of(&error), message))
            }
        }
    }

    /// The first interpreter of a row that is in PATH.
    fn runner(&self, row: &ByExtension, file: &Path) -> Result<(&'static str, PathBuf), LaunchError> {
        if let Some(found) = row.programs.iter().find_map(|word| Some((*word, self.in_path(word).ok()?))) {
            return Ok(found);
        }
        let names = row.programs.join(" or ");
        let message = format!(
            "interpreter {names} for {} is not in PATH ({}); install it, or write interpreter = \"/path/of/it\"",
            show(file),
            self.shown_path()
        );
        Err(LaunchError::new(format!("find interpreter {names}"), libc::ENOENT, message))
    }

    /// The program that a word means: a path from the working directory on when it holds a slash, else
    /// looked up in PATH.
    fn program(&self, what: &str, word: &str) -> Result<PathBuf, LaunchError> {
        if word.contains('/') {
            let file: PathBuf = self.cwd.join(word).components().collect();
            executable(&file, what)?;
            return Ok(file);
        }
        self.in_path(word).map_err(|blocked| {
            let step = format!("find {what} {}", printable(word));
            match blocked {
                Some(file) => LaunchError::new(step, libc::EACCES, not_executable(&file, what)),
                None => {
                    let message = format!(
                        "{what} {} is not in PATH ({}); install it, or write its whole path",
                        printable(word),
                        self.shown_path()
                    );
                    LaunchError::new(step, libc::ENOENT, message)
                }
            }
        })
    }

    /// The first executable file of this name in PATH, whose empty and relative folders start from the
    /// working directory. Without one: a file of the name that cannot be executed, if any.
    fn in_path(&self, word: &str) -> Result<PathBuf, Option<PathBuf>> {
        let mut blocked = None;
        for folder in std::env::split_paths(&self.path) {
            let file = self.cwd.join(folder).join(word);
            match fs::metadata(&file) {
                Ok(metadata) if metadata.is_file() && is_executable(&metadata) => return Ok(file),
                Ok(metadata) if metadata.is_file() => blocked = blocked.or(Some(file)),
                Ok(_) | Err(_) => {}
            }
        }
        Err(blocked)
    }

    fn shown_path(&self) -> String {
        const SHOWN: usize = 300;
        let path = self.path.to_string_lossy();
        let mut shown = printable(&path.chars().take(SHOWN).collect::<String>());
        if path.chars().nth(SHOWN).is_some() {
            shown.push('…');
        }
        shown
    }
}

/// The flag that makes an interpreter run this kind of file.
fn flag_for(program: &Path, file: &Path, spec: &Spec, interpreter: &Interpreter) -> Option<&'static str> {
    let extension = file.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
    let given =
        |flags: &[&str]| spec.interpreter_args.iter().any(|arg| flags.iter().any(|f| arg.starts_with(f)));
    if extension == "jar" && has_name(program, "java") && !given(&["-jar"]) {
        return Some("-jar");
    }
    // Needed from Node 22.6 to 22.17, and harmless after that. Whoever names the interpreter, or a loader of
    // their own, has made that choice.
    const LOADERS: &[&str] =
        &["--import", "--loader", "--experimental-", "--no-experimental-", "--require", "-r"];
    let chosen = *interpreter != Interpreter::ByExtension || given(LOADERS);
    if TYPESCRIPT.contains(&extension.as_str()) && has_name(program, "node") && !chosen {
        return Some("--experimental-strip-types");
    }
    None
}

/// Any execute bit: without one not even root may execute a file; whether the worker's user may is for
/// execve(2) to say.
fn is_executable(metadata: &fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o111 != 0
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

fn executable(file: &Path, what: &str) -> Result<(), LaunchError> {
    let step = format!("find {what} {}", show(file));
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => {
            let message = format!("{what} {} is a folder, not a program (EACCES)", show(file));
            Err(LaunchError::new(step, libc::EACCES, message))
        }
        Ok(metadata) if is_executable(&metadata) => Ok(()),
        Ok(_) => Err(LaunchError::new(step, libc::EACCES, not_executable(file, what))),
        Err(error) => {
            let message = format!("{what} {}; correct the path", fault(file, &error));
            Err(LaunchError::new(step, errno_of(&error), message))
        }
    }
}

fn not_executable(file: &Path, what: &str) -> String {
    let or = match what {
        "script" => ", or write which program runs it: interpreter = \"…\"",
        _ => "",
    };
    format!("{what} {0} is not executable (EACCES); run chmod +x {0}{or}", show(file))
}

fn show(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A path and what is the matter with it, as far as looking at it tells.
fn fault(path: &Path, error: &io::Error) -> String {
    let shown = show(path);
    match errno_of(error) {
        libc::ENOENT if is_link(path) => {
            let target = fs::read_link(path).unwrap_or_default();
            format!("{shown} is a link to {}, which does not exist (ENOENT)", show(&target))
        }
        libc::ENOENT => {
            let there = path.ancestors().skip(1).find(|folder| folder.exists());
            match there.filter(|folder| Some(*folder) != path.parent()) {
                Some(folder) => {
                    format!("{shown} does not exist (ENOENT; the path ends at {})", show(folder))
                }
                None => format!("{shown} does not exist (ENOENT)"),
            }
        }
        libc::EACCES => format!("{shown} cannot be reached: a folder on the way denies it (EACCES)"),
        libc::ENOTDIR => format!("{shown} does not exist: a part of the path is a file (ENOTDIR)"),
        libc::ELOOP => format!("{shown} cannot be reached: links lead in a circle (ELOOP)"),
        libc::ENAMETOOLONG => format!("{shown} is too long for a path (ENAMETOOLONG)"),
        _ => format!("{shown}: {error}"),
    }
}

/// Explains why execve(2) refused what [`resolve`] had found. Reads the beginning of the file.
pub fn exec_failure(command: &CommandLine, errno: i32) -> LaunchError {
    let program = show(&command.program);
    let head = head(&command.program);
    let why = match errno {
        libc::ENOENT => missing_helper(&command.program, &head),
        libc::EACCES if head.starts_with(b"#!") => {
            format!("{}may not be executed (EACCES); check the mode of both files", shebang(&head))
        }
        libc::EACCES => {
            "may not be executed (EACCES); check its mode, its folders, and that its file system is \
                         not mounted noexec"
                .to_owned()
        }
        libc::ENOEXEC if head.is_empty() => "is an empty file (ENOEXEC)".to_owned(),
        libc::ENOEXEC if head.starts_with(b"\x7fELF") => {
            "is built for another kind of machine (ENOEXEC); build it for this one".to_owned()
        }
        libc::ENOEXEC => {
            "is neither a program nor a script with a #! line (ENOEXEC); write #!/bin/sh or the \
                          like as its first line, or interpreter = \"…\" in the file"
                .to_owned()
        }
        libc::E2BIG => {
            "got more arguments and variables than the kernel takes (E2BIG); shorten args or env".to_owned()
        }
        libc::ETXTBSY => "is being written (ETXTBSY); replace programs by renaming".to_owned(),
        errno => format!("cannot be executed: {}", io::Error::from_raw_os_error(errno)),
    };
    LaunchError::new(format!("exec {program}"), errno, format!("{program} {why}"))
}

fn missing_helper(program: &Path, head: &[u8]) -> String {
    if head.starts_with(b"#!") && head.split(|b| *b == b'\n').next().is_some_and(|line| line.ends_with(b"\r"))
    {
        return "has a first line that ends in a carriage return (ENOENT); save it with Unix line ends"
            .to_owned();
    }
    if head.starts_with(b"#!") {
        return format!("{}does not exist (ENOENT); install it or correct that line", shebang(head));
    }
    if head.starts_with(b"\x7fELF") {
        return "needs a dynamic loader that is not on this host (ENOENT); it is built for another C library"
            .to_owned();
    }
    match program.exists() {
        true => "could not be executed (ENOENT)".to_owned(),
        false => "is gone (ENOENT)".to_owned(),
    }
}

/// `has the first line "#!/usr/bin/foo", which `
fn shebang(head: &[u8]) -> String {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    format!("has the first line \"{}\", whose program ", printable(&String::from_utf8_lossy(line)))
}

/// The first bytes of a regular file, as many as the kernel looks at (BINPRM_BUF_SIZE); none of what cannot
/// be read.
fn head(path: &Path) -> Vec<u8> {
    const LOOKED_AT: u64 = 256;
    let mut head = Vec::new();
    // Opening a pipe would wait for its other end.
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
        && let Ok(file) = fs::File::open(path)
        && file.take(LOOKED_AT).read_to_end(&mut head).is_err()
    {
        head.clear();
    }
    head
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::{Host, load};

    /// A host with `bin/` as its only folder of programs, and an app folder beside it.
    struct World {
        folder: tempfile::TempDir,
    }

    impl World {
        fn new(programs: &[&str]) -> World {
            let world = World { folder: tempfile::tempdir().unwrap() };
            fs::create_dir_all(world.path("app")).unwrap();
            fs::create_dir_all(world.path("bin")).unwrap();
            for program in programs {
                world.file(&format!("bin/{program}"), 0o755);
            }
            world
        }

        fn path(&self, below: &str) -> PathBuf {
            fs::canonicalize(self.folder.path()).unwrap().join(below)
        }

        fn file(&self, below: &str, mode: u32) -> PathBuf {
            let path = self.path(below);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn load(&self, lines: &str) -> crate::config::Config {
            let host = Host {
                parallelism: 1,
                memory: None,
                folder: self.path("app"),
                profile: None,
                only: Vec::new(),
            };
            let text = format!("[[apps]]\nname = \"a\"\n{lines}");
            load(&text, "t", &host).unwrap_or_else(|error| panic!("{error}"))
        }

        fn resolve(&self, lines: &str) -> Result<CommandLine, LaunchError> {
            let config = self.load(lines);
            let own = Path::new("/opt/clusterd");
            resolve(&config.apps[0].spec, Some(self.path("bin").as_os_str()), Some(own))
        }

        fn found(&self, lines: &str) -> Option<PathBuf> {
            let config = self.load(lines);
            found_in_path(&config.apps[0].spec, Some(self.path("bin").as_os_str()))
        }

        fn argv(&self, lines: &str) -> (String, Vec<String>) {
            let command = self.resolve(lines).unwrap_or_else(|error| panic!("{error}"));
            let root = format!("{}/", self.path("").display()).replace("//", "/");
            let text = |word: &OsStr| word.to_str().unwrap().replace(&root, "");
            (text(command.program.as_os_str()), command.argv.iter().map(|word| text(word)).collect())
        }

        fn fault(&self, lines: &str) -> (i32, String) {
            let error = self.resolve(lines).expect_err("nothing to run");
            let root = format!("{}/", self.path("").display()).replace("//", "/");
            (error.errno, error.message.replace(&root, "").replace(root.trim_end_matches('/'), ""))
        }
    }

    #[test]
    fn each_extension_has_its_program() {
        let world = World::new(&["node", "bun", "python3", "ruby", "php", "perl", "bash", "sh", "java"]);
        for (file, program, flag) in [
            ("a.js", "node", None),
            ("a.mjs", "node", None),
            ("a.cjs", "node", None),
            ("a.ts", "node", Some("--experimental-strip-types")),
            ("a.tsx", "bun", None),
            ("a.py", "python3", None),
            ("a.rb", "ruby", None),
            ("a.php", "php", None),
            ("a.pl", "perl", None),
            ("a.sh", "bash", None),
            ("a.jar", "java", Some("-jar")),
        ] {
            world.file(&format!("app/{file}"), 0o644);
            let mut argv = vec![program.to_owned(), "-x".to_owned()];
            argv.extend(flag.map(str::to_owned));
            argv.extend([format!("app/{file}"), "1".to_owned()]);
            let lines = format!("script = \"{file}\"\ninterpreter_args = \"-x\"\nargs = [1]");
            assert_eq!(world.argv(&lines), (format!("bin/{program}"), argv), "{file}");
        }
    }

    #[test]
    fn the_second_choice_runs_where_the_first_is_missing() {
        let world = World::new(&["bun", "sh"]);
        world.file("app/a.ts", 0o644);
        world.file("app/a.sh", 0o644);
        assert_eq!(world.argv("script = \"a.ts\"").1, ["bun", "app/a.ts"]);
        assert_eq!(world.argv("script = \"a.sh\"").1, ["sh", "app/a.sh"]);
    }

    #[test]
    fn a_script_without_extension_is_executed_and_a_bare_word_is_looked_up() {
        let world = World::new(&["gunicorn"]);
        world.file("app/server", 0o755);
        fs::create_dir(world.path("app/gunicorn")).unwrap();
        assert_eq!(world.argv("script = \"server\""), ("app/server".into(), vec!["app/server".into()]));
        assert_eq!(world.argv("script = \"./server\"").0, "app/server");
        assert_eq!(world.argv("script = \"gunicorn\"").0, "bin/gunicorn");
    }

    #[test]
    fn what_a_bare_word_means_can_be_asked() {
        let world = World::new(&["gunicorn", "here"]);
        world.file("app/here", 0o755);
        fs::create_dir(world.path("app/gunicorn")).unwrap();
        for (lines, expected) in [
            ("script = \"gunicorn\"", Some("bin/gunicorn")),
            ("command = [\"gunicorn\", \"x\"]", Some("bin/gunicorn")),
            ("script = \"here\"", None),
            ("command = [\"here\"]", Some("bin/here")),
            ("script = \"./here\"", None),
            ("script = \"no-such-program\"", None),
            ("script = \"gunicorn x\"", None),
        ] {
            let found = world.found(lines);
            assert_eq!(found, expected.map(|below| world.path(below)), "{lines}");
        }
    }

    #[test]
    fn a_line_runs_under_sh_and_an_exact_vector_as_it_is() {
        let world = World::new(&["sh", "node"]);
        world.file("app/run", 0o755);
        assert_eq!(world.argv("script = \"npm start\"").1, ["sh", "-c", "npm start"]);
        assert_eq!(
            world.argv("command = [\"node\", \"a b\"]"),
            ("bin/node".into(), vec!["node".into(), "a b".into()])
        );
        assert_eq!(world.argv("command = [\"./run\"]"), ("app/run".into(), vec!["./run".into()]));
    }

    #[test]
    fn clusterd_means_this_program_only_where_path_has_none() {
        let world = World::new(&[]);
        assert_eq!(
            world.resolve("command = [\"clusterd\", \"demo\"]").unwrap().program,
            Path::new("/opt/clusterd")
        );
        assert_eq!(world.fault("command = [\"clusterd2\"]").0, libc::ENOENT);
        let world = World::new(&["clusterd"]);
        assert_eq!(world.argv("command = [\"clusterd\"]").0, "bin/clusterd");
    }

    #[test]
    fn only_node_and_bun_speak_nodes_ipc() {
        for (program, speaks) in [
            ("node", true),
            ("node22", true),
            ("nodejs", true),
            ("bun", true),
            ("bun-1.4", true),
            ("bundle", false),
            ("node_exporter", false),
            ("nodemon", false),
            ("python3", false),
        ] {
            let world = World::new(&[program]);
            let command = world.resolve(&format!("command = [\"{program}\"]")).unwrap();
            assert_eq!(command.speaks_node_ipc, speaks, "{program}");
        }
    }

    #[test]
    fn python_does_not_keep_its_output_back() {
        let world = World::new(&["python3", "node"]);
        world.file("app/a.py", 0o644);
        world.file("app/a.js", 0o644);
        let python = world.resolve("script = \"a.py\"").unwrap();
        assert!(python.extra_env.contains(&("PYTHONUNBUFFERED".into(), "1".into())));
        assert!(python.extra_env.contains(&("PWD".into(), world.path("app").into_os_string())));
        assert_eq!(world.resolve("script = \"a.js\"").unwrap().extra_env.len(), 1);
    }

    #[test]
    fn a_link_as_working_directory_is_followed_at_each_start() {
        let world = World::new(&[]);
        for release in ["r1", "r2"] {
            world.file(&format!("app/{release}/server"), 0o755);
            let _ = fs::remove_file(world.path("app/current"));
            symlink(release, world.path("app/current")).unwrap();
            let command = world.resolve("cwd = \"current\"\nscript = \"server\"").unwrap();
            assert_eq!(command.cwd, world.path("app").join(release));
            assert_eq!(command.program, world.path("app").join(release).join("server"));
        }
    }

    #[test]
    fn relative_folders_of_path_start_from_the_working_directory() {
        let world = World::new(&[]);
        let tool = world.file("app/node_modules/.bin/tool", 0o755);
        let lookup = Lookup { cwd: world.path("app"), path: "::node_modules/.bin".into() };
        assert_eq!(lookup.in_path("tool"), Ok(tool));
    }

    #[test]
    fn what_is_missing_is_named_with_where_and_what_to_do() {
        let world = World::new(&["blocked"]);
        world.file("bin/blocked", 0o644);
        world.file("app/plain", 0o644);
        world.file("app/a.py", 0o644);
        symlink("nowhere", world.path("app/dangling")).unwrap();
        symlink("circle", world.path("app/circle")).unwrap();
        fs::create_dir(world.path("app/folder.js")).unwrap();
        for (lines, errno, expected) in [
            (
                "script = \"server.js\"",
                libc::ENOENT,
                "script app/server.js does not exist (ENOENT), and no program server.js is in PATH (bin); \
                 correct script or cwd",
            ),
            (
                "script = \"dist/v1/server.js\"",
                libc::ENOENT,
                "script app/dist/v1/server.js does not exist (ENOENT; the path ends at app); correct script or cwd",
            ),
            (
                "script = \"plain\"",
                libc::EACCES,
                "script app/plain is not executable (EACCES); run chmod +x app/plain, or write which program \
                 runs it: interpreter = \"…\"",
            ),
            (
                "script = \"a.py\"",
                libc::ENOENT,
                "interpreter python3 for app/a.py is not in PATH (bin); install it, or write interpreter = \
                 \"/path/of/it\"",
            ),
            (
                "script = \"a.py\"\ninterpreter = \"pypy3\"",
                libc::ENOENT,
                "interpreter pypy3 is not in PATH (bin); install it, or write its whole path",
            ),
            (
                "script = \"a.py\"\ninterpreter = \"venv/bin/python\"",
                libc::ENOENT,
                "interpreter app/venv/bin/python does not exist (ENOENT; the path ends at app); correct the path",
            ),
            (
                "command = [\"blocked\"]",
                libc::EACCES,
                "program bin/blocked is not executable (EACCES); run chmod +x bin/blocked",
            ),
            (
                "script = \"dangling\"",
                libc::ENOENT,
                "script app/dangling is a link to nowhere, which does not exist (ENOENT); correct script or cwd",
            ),
            (
                "script = \"circle\"",
                libc::ELOOP,
                "script app/circle cannot be reached: links lead in a circle (ELOOP); correct script or cwd",
            ),
            (
                "script = \"plain/x\"",
                libc::ENOTDIR,
                "script app/plain/x does not exist: a part of the path is a file (ENOTDIR); correct script or cwd",
            ),
            (
                "script = \"folder.js\"",
                libc::EACCES,
                "script app/folder.js is a folder, not a program (EACCES); correct script",
            ),
            (
                "script = \"a\"\ncwd = \"gone\"",
                libc::ENOENT,
                "cwd app/gone does not exist (ENOENT); create the folder or correct cwd",
            ),
            (
                "script = \"a\"\ncwd = \"plain\"",
                libc::ENOTDIR,
                "cwd app/plain is a file, not a folder (ENOTDIR); correct cwd",
            ),
        ] {
            assert_eq!(world.fault(lines), (errno, expected.to_owned()), "{lines}");
        }
    }

    #[test]
    fn env_files_are_read_in_their_order_and_faults_name_file_and_line() {
        let read = |files: &[PathBuf]| read_env_files(files, Reader { is_root: false, user: 1000 });
        let world = World::new(&[]);
        let (one, two) = (world.path("app/one.env"), world.path("app/two.env"));
        fs::write(&one, "A=1\nB=1\n").unwrap();
        fs::write(&two, "B=2\n").unwrap();
        let variables = read(&[one.clone(), two.clone()]).unwrap();
        let expected = [("A", "1"), ("B", "1"), ("B", "2")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(variables, expected);
        fs::write(&two, "B=2\n\nnonsense\n").unwrap();
        let error = read(&[one, two.clone()]).unwrap_err();
        assert!(error.message.starts_with(&format!("env_file {}:3: expected", two.display())), "{error}");
        assert_eq!((error.errno, error.transient), (libc::EINVAL, false));
        let gone = read(&[world.path("app/gone.env")]).unwrap_err();
        assert!(gone.errno == libc::ENOENT && gone.message.contains("gone.env does not exist"), "{gone}");
        let folder = read(&[world.path("app")]).unwrap_err();
        assert!(folder.message.contains("is not a regular file"), "{folder}");
        fs::write(&two, vec![b'#'; env_file::MAX_FILE + 1]).unwrap();
        let long = read(&[two]).unwrap_err();
        assert!(long.message.contains("has more than 1048576 bytes"), "{long}");
    }

    #[test]
    fn too_much_names_the_longest_variable() {
        let world = World::new(&["sh"]);
        let command = world.resolve("command = [\"sh\", \"x\"]").unwrap();
        let error = too_much(&command, &[("SMALL".into(), 3), ("BIG".into(), 100_000)]);
        assert!(error.message.contains("5 bytes of arguments and 100005 bytes of variables"), "{error}");
        assert!(error.message.contains("the longest variable is BIG with 100000 bytes"), "{error}");
        assert_eq!((error.errno, error.transient), (libc::E2BIG, false));
    }

    #[test]
    fn a_refused_exec_is_explained_by_the_files_first_bytes() {
        let world = World::new(&[]);
        let path = world.file("app/run", 0o755);
        let command = world.resolve("script = \"run\"").unwrap();
        let rows: &[(&[u8], i32, &str)] = &[
            (
                b"#!/no/such\necho",
                libc::ENOENT,
                "has the first line \"#!/no/such\", whose program does not exist",
            ),
            (b"#!/bin/sh\r\n", libc::ENOENT, "save it with Unix line ends"),
            (b"\x7fELF", libc::ENOENT, "built for another C library"),
            (b"\x7fELF", libc::ENOEXEC, "built for another kind of machine"),
            (b"", libc::ENOEXEC, "is an empty file"),
            (b"echo", libc::ENOEXEC, "with a #! line"),
            (b"#!/etc/passwd\n", libc::EACCES, "may not be executed (EACCES); check the mode of both files"),
            (b"x", libc::EACCES, "noexec"),
            (b"x", libc::E2BIG, "shorten args or env"),
            (b"x", libc::ETXTBSY, "is being written"),
            (b"x", libc::EIO, "cannot be executed"),
        ];
        for (text, errno, expected) in rows {
            fs::write(&path, text).unwrap();
            let error = exec_failure(&command, *errno);
            assert!(error.message.contains(expected), "{error}");
            assert_eq!((error.errno, error.transient), (*errno, *errno == libc::ETXTBSY));
        }
        fs::remove_file(&path).unwrap();
        assert!(exec_failure(&command, libc::ENOENT).message.contains("is gone"));
    }
}
