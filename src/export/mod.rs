//! `export`: an ecosystem file → manifests for what starts clusterd elsewhere. The meaning of the file in, text out;
//! nothing is read or asked here.
//!
//! The manifests run `clusterd FILE` and change nothing of what the file says: it holds in each container. What the
//! host's side has no word for is said in a remark.

mod compose;
mod kubernetes;
mod nginx;
mod service;
mod systemd;
pub mod unit;
mod yaml;

use crate::config::{AppConfig, Config};

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Deployment, Service, HorizontalPodAutoscaler, PodDisruptionBudget.
    Kubernetes,
    /// A Compose file.
    Compose,
    /// A service unit, and socket units for its addresses.
    Systemd,
}

/// As many CPUs as a container gets whose file asks for as many workers as there are.
pub const CPUS: u32 = 2;

/// Of so many bytes is the share of the memory that `max_memory_restart` may be.
pub const MEMORY: u64 = 1_000_000_000;

/// Where the file's folder is in a container.
pub const FOLDER: &str = "/app";

/// What there is to be exported.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file on a host of [`CPUS`] and [`MEMORY`].
    pub config: &'a Config,
    /// Its apps' names as written, in the same order: those are what `--only` takes.
    pub written: &'a [String],
    /// Of each of its apps, whether its workers are as many as there are CPUs.
    pub by_cpus: &'a [bool],
    /// The file as the caller named it.
    pub called: &'a str,
    /// What all of its apps are together: a label made of the file's name, or of its folder's.
    pub name: &'a str,
    /// Where the file is for the supervisor that is to run it, absolute.
    pub path: &'a str,
    /// `--env`.
    pub profile: Option<&'a str>,
    /// `--only`; empty means all.
    pub only: &'a [String],
    /// The image of containers.
    pub image: Option<&'a str>,
    /// The program, absolute, where no container has one of its own.
    pub program: &'a str,
}

/// One app of the file.
#[derive(Clone, Copy, Debug)]
struct App<'a> {
    config: &'a AppConfig,
    written: &'a str,
    by_cpus: bool,
}

impl<'a> Source<'a> {
    fn apps(&self) -> Vec<App<'a>> {
        let names = self.written.iter().zip(self.by_cpus);
        let apps = self.config.apps.iter().zip(names);
        apps.map(|(config, (written, by_cpus))| App { config, written, by_cpus: *by_cpus }).collect()
    }

    /// What of the words behind the file's name is the same for all.
    fn profile_words(&self) -> Vec<String> {
        self.profile.map_or_else(Vec::new, |profile| vec![format!("--env={profile}")])
    }

    /// How this was asked for, for a remark.
    fn command(&self, form: &str) -> String {
        let mut words = format!("clusterd export {form} {}", self.called);
        if let Some(profile) = self.profile {
            words += &format!(" --env {profile}");
        }
        if !self.only.is_empty() {
            words += &format!(" --only {}", self.only.join(","));
        }
        if let Some(image) = self.image {
            words += &format!(" --image {image}");
        }
        words
    }
}

/// A name for all apps of a file: the file's own, or its folder's where the file has the usual one.
pub fn name_of(path: &str) -> String {
    let path = plain(path);
    let mut parts = path.rsplit('/');
    let stem = parts.next().and_then(|file| file.split('.').next()).unwrap_or_default();
    let folder = parts.next().unwrap_or_default();
    service::label(if matches!(stem, "ecosystem" | "") && !folder.is_empty() { folder } else { stem })
}

/// A path without `.` and `..`, as it is where no link stands in between.
pub fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The whole text.
pub fn export(form: Form, source: &Source<'_>) -> String {
    match form {
        Form::Kubernetes => kubernetes::text(source),
        Form::Compose => compose::text(source),
        Form::Systemd => systemd::text(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_after_itself_or_its_folder() {
        for (path, name) in [
            ("/etc/clusterd/shop.toml", "shop"),
            ("/srv/shop/ecosystem.toml", "shop"),
            ("/ecosystem.toml", "ecosystem"),
            ("/srv/shop/./ecosystem.toml", "shop"),
            ("/srv/shop/web/../ecosystem.toml", "shop"),
            ("/srv/shop/web/.././/ecosystem.toml", "shop"),
            ("/srv/My Shop%/ecosystem.production.toml", "my-shop"),
        ] {
            assert_eq!(name_of(path), name, "{path}");
        }
    }
}
