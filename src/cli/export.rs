//! `export`: reads the file as `validate` does and prints what is made from it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::json;

use super::file;
use super::output::{Failure, Output, Shape};
use super::{Export, Selection};
use crate::config::{self, Config, Host};
use crate::control::protocol::File;
use crate::export::{self, CPUS, FOLDER, MEMORY, Source};

/// For whom.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Form {
    /// Deployment, Service, HorizontalPodAutoscaler and PodDisruptionBudget.
    Kubernetes,
    /// A Compose file.
    Compose,
    /// A service unit and its socket units.
    Systemd,
}

/// Enough CPUs for every number of workers that follows them to be another one.
const MANY_CPUS: u32 = 4096;

/// Prints the manifests.
pub(super) fn export(words: &Export, json: bool) -> Result<i32, Failure> {
    let Export { form, file: called, selection, image } = words;
    let form = match form {
        Form::Kubernetes => export::Form::Kubernetes,
        Form::Compose => export::Form::Compose,
        Form::Systemd => export::Form::Systemd,
    };
    if image.as_deref() == Some("") {
        return Err(Failure::usage("--image is empty: name an image, or leave the option out"));
    }
    if image.is_some() && form == export::Form::Systemd {
        return Err(Failure::usage("--image is for kubernetes and compose: a unit has none"));
    }
    if called == "-" && form == export::Form::Systemd {
        return Err(nameless());
    }
    let file = file::read(called, selection)?;
    file::check(&file)?;
    let (folder, path) = place(form, &file)?;
    let load = |parallelism: u32, profile: Option<&String>| load(&file, parallelism, profile, &folder);
    let config = load(CPUS, selection.profile.as_ref())?;
    let elsewhere = load(MANY_CPUS, selection.profile.as_ref())?;
    // `append_env_to_name` renames by the profile: `--only` goes by what is written.
    let written: Vec<String> = load(CPUS, None)?.apps.into_iter().map(|app| app.name).collect();
    let instances = |config: &Config| config.apps.iter().map(|app| app.policy.instances).collect::<Vec<_>>();
    let by_cpus: Vec<bool> =
        instances(&config).iter().zip(instances(&elsewhere)).map(|(one, other)| *one != other).collect();
    let program = program();
    let name = export::name_of(file.path.as_deref().unwrap_or("app"));
    let Selection { profile, only } = selection;
    let text = export::export(
        form,
        &Source {
            config: &config,
            written: &written,
            by_cpus: &by_cpus,
            called,
            name: &name,
            path: &path,
            profile: profile.as_deref(),
            only,
            image: image.as_deref(),
            program: &program,
        },
    );
    // It ends with a newline; so does what is printed.
    Output::new(json, Shape::Table).facts(text.trim_end(), &json!({ "text": text }))?;
    Ok(0)
}

fn nameless() -> Failure {
    Failure::usage(
        "a unit names the file that it runs, and standard input has no name: clusterd export systemd FILE",
    )
}

/// The folder that relative paths are of, and where the file is in it. An image has the file in a place of its own.
fn place(form: export::Form, file: &File) -> Result<(PathBuf, String), Failure> {
    match (form, &file.path) {
        (export::Form::Systemd, Some(path)) => Ok((PathBuf::from(&file.folder), plain(path))),
        (export::Form::Systemd, None) => Err(nameless()),
        (export::Form::Kubernetes | export::Form::Compose, path) => {
            let name = path.as_deref().and_then(|path| Path::new(path).file_name()?.to_str());
            Ok((PathBuf::from(FOLDER), format!("{FOLDER}/{}", name.unwrap_or("ecosystem.toml"))))
        }
    }
}

fn load(file: &File, parallelism: u32, profile: Option<&String>, folder: &Path) -> Result<Config, Failure> {
    let host = Host {
        parallelism,
        memory: Some(MEMORY),
        folder: folder.to_owned(),
        profile: profile.cloned(),
        only: file.only.clone(),
    };
    config::load(&file.text, file.path.as_deref().unwrap_or("standard input"), &host).map_err(file::wrong)
}

/// Without `.` and `..`, unless that would be another file: behind a link `..` leads elsewhere.
fn plain(path: &str) -> String {
    let plain = export::plain(path);
    let is_same = |one: &str, other: &str| {
        let (one, other) = (fs::canonicalize(one), fs::canonicalize(other));
        one.is_ok_and(|one| other.is_ok_and(|other| one == other))
    };
    if is_same(&plain, path) { plain } else { path.to_owned() }
}

/// This very file; where that cannot be found out, the one of packages.
fn program() -> String {
    let found = std::env::current_exe()
        .ok()
        .filter(|path| path.is_file())
        .and_then(|path| path.to_str().map(str::to_owned));
    found.unwrap_or_else(|| "/usr/bin/clusterd".to_owned())
}
