//! `import`: reads what is to be carried over, has it evaluated by the user's own node where that was asked
//! for, and prints the ecosystem file.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::file;
use super::output::Failure;
use crate::config;
use crate::import::{self, Facts, Imported, Kind};

/// The longest file, in bytes: a dump holds the whole environment of each process.
const MAX_FILE: usize = 32 * 1024 * 1024;

/// What node is told: print as JSON what the file makes. What the file itself prints goes to standard error.
/// `.json` is an expression to PM2; all else is a module.
const EVALUATE: &str = r#"
const path = process.argv[1];
process.stdout.write = process.stderr.write.bind(process.stderr);
const load = async () => {
  if (path.endsWith('.json')) {
    return require('vm').runInNewContext('(' + require('fs').readFileSync(path, 'utf8') + ')', {}, { timeout: 1000 });
  }
  const module = await import(require('url').pathToFileURL(path));
  return module.default === undefined ? { ...module } : module.default;
};
load().then((value) => {
  const text = JSON.stringify(value);
  if (text === undefined) throw new Error('it exports a ' + typeof value + ', and no apps');
  require('fs').writeFileSync(1, text);
  process.exit(0);
}).catch((error) => {
  console.error(error);
  process.exit(1);
});
"#;

/// Prints the ecosystem file that is made from `word`.
pub(super) fn import(word: &str, run: bool, json: bool) -> Result<i32, Failure> {
    let Some(kind) = import::kind_of(word) else {
        return Err(Failure::usage(format_args!(
            "{word}: the name does not say what it is. Known are PM2's files (.json, .yaml, .yml, .js, .cjs, .mjs), \
             package.json with a key \"pm2\", dump.pm2, Procfile, and - for JSON on standard input"
        )));
    };
    let folder = file::current_folder()?;
    let path = (word != "-").then(|| folder.join(word));
    let source = if word == "-" { "standard input" } else { word };
    let (kind, text) = match (&path, kind, run) {
        (Some(path), Kind::JavaScript | Kind::Json, true) => (Kind::Evaluated, evaluated(word, path)?),
        (_, _, true) => {
            return Err(Failure::usage(format_args!(
                "{word}: --run is for JavaScript (.js, .cjs, .mjs, .json)"
            )));
        }
        (_, Kind::JavaScript, false) => return Err(not_run(word)),
        (
            path,
            Kind::Json | Kind::Package | Kind::Yaml | Kind::Evaluated | Kind::Dump | Kind::Procfile,
            false,
        ) => (kind, read(word, path.as_deref())?),
    };
    let beside = path.as_deref().and_then(Path::parent).unwrap_or(&folder);
    let facts = Facts {
        home: std::env::var("HOME").ok().filter(|home| home.starts_with('/')),
        has_env_file: beside.join(".env").is_file(),
    };
    let imported = import::import(kind, &text, source, &facts).map_err(file::wrong)?;
    print(&imported, json)?;
    check(imported, beside)
}

/// A module is a program: it is not run because somebody wanted to read it.
fn not_run(word: &str) -> Failure {
    Failure::usage(format_args!(
        "{word}: this is a program, and nothing is run unasked. To have your own node evaluate it, with all that \
         it does: clusterd import --run {word}"
    ))
}

fn read(word: &str, path: Option<&Path>) -> Result<String, Failure> {
    let unreadable =
        |error: io::Error| Failure::usage(format_args!("{word}: cannot read this file: {error}"));
    let bytes = match path {
        Some(path) => file::open(path).and_then(bounded),
        None => bounded(io::stdin().lock()),
    }
    .map_err(unreadable)?;
    config::decode(&bytes, word).map(str::to_owned).map_err(file::wrong)
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE {
        let limit = format!("it is longer than {MAX_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, limit));
    }
    Ok(bytes)
}

/// What the user's node makes of the file.
fn evaluated(word: &str, path: &Path) -> Result<String, Failure> {
    if !path.is_file() {
        return Err(Failure::usage(format_args!("{word}: there is no such file")));
    }
    let mut node = Command::new("node")
        .args(["--input-type=commonjs", "-e", EVALUATE, "--"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Failure::failed(format_args!("{word}: cannot run node, which is to evaluate it: {error}"))
        })?;
    let failed = |error: io::Error| Failure::failed(format_args!("{word}: evaluating it by node: {error}"));
    let answer = node.stdout.take().map_or_else(|| Ok(Vec::new()), bounded);
    if answer.is_err() {
        let _ = node.kill();
    }
    let status = node.wait().map_err(failed)?;
    let answer = answer.map_err(failed)?;
    if !status.success() {
        return Err(Failure::failed(format_args!(
            "{word}: node could not evaluate it ({status}); what it says about that stands above"
        )));
    }
    String::from_utf8(answer).map_err(|_| Failure::failed(format_args!("{word}: node's answer is not UTF-8")))
}

fn print(imported: &Imported, json: bool) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match json {
        true => writeln!(stdout, "{}", json!({ "toml": imported.text, "left_out": imported.left_out }))?,
        false => stdout.write_all(imported.text.as_bytes())?,
    }
    stdout.flush()?;
    if !json {
        let mut stderr = anstream::stderr().lock();
        for remark in &imported.left_out {
            // That nobody reads this does not make the file any worse.
            let _ = writeln!(stderr, "{remark}");
        }
    }
    Ok(())
}

/// Values that PM2 takes and clusterd does not are told at once, and not when the file is started.
fn check(imported: Imported, folder: &Path) -> Result<i32, Failure> {
    let folder = folder.to_str().map(str::to_owned).unwrap_or_else(|| "/".to_owned());
    match file::checked(&imported.text, "the file that was made", PathBuf::from(folder)) {
        Ok(()) => Ok(0),
        Err(failure) => {
            failure.print(false);
            Err(Failure::failed("the file that was made has to be corrected by hand, as said above"))
        }
    }
}
