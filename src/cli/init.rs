//! `init`: writes an ecosystem file for the project of the current folder, and never over one that is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::file;
use super::output::{Failure, Output, Shape};
use crate::config::Diagnostics;
use crate::import::project::{self, Project};

/// What is written.
const FILE: &str = "ecosystem.toml";

/// How much of a project's file is read, in bytes.
const MAX_READ: u64 = 1024 * 1024;

/// How many names of a folder are looked at.
const MAX_NAMES: usize = 1000;

/// Writes the file and says what to do next.
pub(super) fn init(force: bool, json: bool) -> Result<i32, Failure> {
    let folder = file::current_folder()?;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("app");
    let text = |file: &str| read(&folder.join(file));
    let exists = |file: &str| folder.join(file).exists();
    let entries = |below: &str| names(&folder.join(below));
    let project = Project { folder: name, text: &text, exists: &exists, entries: &entries };
    let mut drafted = project::draft(&project);
    if drafted.from.is_none()
        && let Some(last) = drafted.problems.pop()
    {
        for problems in drafted.problems {
            file::wrong(problems).print(json);
        }
        return Err(file::wrong(last));
    }
    file::checked(&drafted.text, FILE, folder.clone())?;
    write(&folder, &drafted.text, force)?;
    let next = format!("clusterd start {FILE}");
    let import = drafted.pm2.as_ref().map(|pm2| {
        let run = if pm2.ends_with("js") { "--run " } else { "" };
        format!("clusterd import {run}{pm2} > {FILE}")
    });
    let mut words = match &drafted.from {
        Some(from) => format!("wrote {FILE}, from {from}: read it, it is short"),
        None => format!("wrote {FILE} with an example: nothing was found here that says how it is started"),
    };
    if let Some(import) = &import {
        words += &format!("\nPM2's file is here too; for one made from that: {import}");
    }
    words += &format!("\nnext: {next}");
    let problems: Vec<Value> = drafted.problems.iter().map(Diagnostics::to_json).collect();
    let facts =
        json!({ "file": FILE, "from": drafted.from, "next": next, "import": import, "problems": problems });
    Output::new(json, Shape::Table).facts(&words, &facts)?;
    if !json {
        remark(&drafted.problems);
    }
    Ok(0)
}

/// What was left out. That nobody reads this does not make the file any worse.
fn remark(problems: &[Diagnostics]) {
    let mut stderr = anstream::stderr().lock();
    for line in problems.iter().flat_map(Diagnostics::one_line) {
        let _ = writeln!(stderr, "left out: {line}");
    }
}

/// What lies in a folder; nothing where there is none.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MAX_NAMES);
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn read(path: &Path) -> Option<String> {
    let file = file::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_READ).read_to_string(&mut text).ok()?;
    Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn write(folder: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let path = folder.join(FILE);
    let failed =
        |error: io::Error| Failure::failed(format_args!("{}: cannot be written: {error}", path.display()));
    if force {
        // Whole or not at all: the old one may be all that there is.
        let draft = folder.join(format!(".{FILE}.{}", std::process::id()));
        let written =
            create(&draft).and_then(|file| fill(file, text)).and_then(|()| fs::rename(&draft, &path));
        return written.map_err(|error| {
            let _ = fs::remove_file(&draft);
            failed(error)
        });
    }
    match create(&path) {
        Ok(file) => fill(file, text).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failure::failed(format_args!("{FILE} is there already; --force writes it anew")))
        }
        Err(error) => Err(failed(error)),
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn fill(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
