//! In which order the parts of a wish reach the core, and what is said when somebody is left without what it
//! depends on. Who may start when is the core's matter.

use crate::config::AppConfig;
use crate::supervisor::event::{AppId, Command, Definition, Scope};
use crate::supervisor::order::sorted;
use crate::supervisor::policy::AppName;
use crate::supervisor::view::Status;

use super::Daemon;
use super::commands::Verb;

/// What a wish consists of.
pub(super) type Commands = Vec<(AppId, Command)>;

/// Apps of a file, each behind those that it depends on.
pub(super) fn apps_in_order(apps: Vec<AppConfig>) -> Vec<AppConfig> {
    sorted(
        apps,
        |app| AppName { namespace: app.namespace.clone(), name: app.name.clone() },
        |app| app.policy.depends_on.clone(),
    )
}

impl Daemon {
    /// Who is depended on comes first.
    pub(super) fn first_things_first(&self, commands: Commands) -> Commands {
        sorted(commands, |(app, _)| self.full_name(*app), |(app, _)| self.needs(*app))
    }

    /// For a restart: of two that run, who depends on the other comes first, so that the other stays until it has
    /// left. Of others, who is depended on does: who comes behind is to find it on its way.
    pub(super) fn in_turn(&self, commands: Commands) -> Commands {
        let commands = self.first_things_first(commands);
        let apps: Vec<AppId> = commands.iter().map(|(app, _)| *app).collect();
        let depends = |app: AppId, on: AppId| self.needs(app).contains(&self.full_name(on));
        let both_run = |app: AppId, on: AppId| self.runs(app) && self.supervisor.stands(on);
        let before = |app: AppId, other: AppId| {
            depends(app, other) && !both_run(app, other) || depends(other, app) && both_run(other, app)
        };
        let before = |app: AppId| {
            let others = apps.iter().filter(move |other| **other != app && before(app, **other));
            others.map(|other| self.full_name(*other)).collect()
        };
        sorted(commands, |(app, _)| self.full_name(*app), |(app, _)| before(*app))
    }

    /// What an app depends on, as its file has it now.
    fn needs(&self, app: AppId) -> Vec<AppName> {
        self.catalog.app(app).map_or_else(Vec::new, |known| known.recipe.policy.depends_on.clone())
    }

    /// Who depends on others comes first.
    pub(super) fn last_things_first(&self, commands: Commands) -> Commands {
        let sorted =
            sorted(commands, |(app, _)| self.full_name(*app), |(app, _)| self.supervisor.needs(*app));
        sorted.into_iter().rev().collect()
    }

    fn full_name(&self, app: AppId) -> AppName {
        let known = self.catalog.app(app);
        known.map_or_else(
            || AppName { namespace: String::new(), name: app.0.to_string() },
            |record| AppName { namespace: record.namespace.clone(), name: record.name.clone() },
        )
    }

    /// What a file means for an app that is known: `autostart = false` keeps stopped what is stopped, and a
    /// reload does not run again what ended for good.
    pub(super) fn command_of_file(&self, verb: Verb, app: AppId, definition: Definition) -> Command {
        let stopped = self.supervisor.status(app) == Some(Status::Stopped);
        let rests = match verb {
            Verb::Start | Verb::Restart => !definition.policy.autostart,
            Verb::Reload => !definition.policy.autostart || self.supervisor.has_ended(app),
        };
        if stopped && rests {
            return Command::Define { app, definition };
        }
        self.command_for(verb, app, Scope::All, Some(definition))
    }

    /// One sentence for each app that runs on while one that it depends on is stopped.
    pub(super) fn left_behind(&self, commands: &Commands) -> Vec<String> {
        let mut said = Vec::new();
        for (app, command) in commands {
            let (Command::Stop { scope: Scope::All, .. } | Command::Delete { scope: Scope::All, .. }) =
                command
            else {
                continue;
            };
            let on = self.full_name(*app);
            for other in self.supervisor.dependents(*app) {
                if commands.iter().all(|(leaves, _)| *leaves != other) {
                    said.push(format!("{} depends on {on}, and runs on without it", self.full_name(other)));
                }
            }
        }
        said
    }
}
