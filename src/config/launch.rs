//! What a worker's start runs: [`Spec`] → argument vector, looked up on the file system at each start, so
//! that a `current` link, a new interpreter or a changed PATH count from the next start on.
//!
//! Only looks at files (stat(2)); runs nothing and changes nothing. What it finds can be gone a moment
//! later: execve(2) has the last word, and [`exec_failure`] explains it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::printable;
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
