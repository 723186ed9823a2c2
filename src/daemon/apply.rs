//! `apply`: the plan of `config::plan` for the apps that are known, and its commands. What is printed is what is
//! done: both come from one reading of the file and one look at the apps.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::config::plan::{self, AppPlan, Known, Standing, Step};
use crate::config::{AppConfig, Config};
use crate::control::protocol::{self, Done, Error, PlanApp, PlanWorker, Reply};
use crate::control::server::ClientId;
use crate::supervisor::event::{Address, AppId, Command, Scale, Scope};
use crate::supervisor::policy::AppName;
use crate::supervisor::view::{self, AppView, Course, Status};

use super::Daemon;
use super::catalog::{Recipe, Source};
use super::commands::{callers, source_of};
use super::order::{Commands, apps_in_order};

/// Workers that are named one by one; a plan for more tells how many it leaves out.
const NAMED: usize = 2000;

/// How an `apply` is meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) dry_run: bool,
    pub(super) prune: bool,
    pub(super) no_wait: bool,
}

/// A plan as it is told.
pub fn told(plan: &[AppPlan], dry_run: bool) -> protocol::Plan {
    let mut left = NAMED;
    let mut omitted = 0;
    let mut apps = Vec::new();
    for app in plan {
        let named = app.workers.len().min(left);
        left -= named;
        omitted += app.workers.len() - named;
        let worker = |worker: &plan::WorkerPlan| PlanWorker {
            instance: worker.instance,
            id: worker.id,
            action: worker.action.to_owned(),
        };
        apps.push(PlanApp {
            app: app.name.to_string(),
            step: app.step.as_str().to_owned(),
            why: app.why.clone(),
            workers: app.workers.iter().take(named).map(worker).collect(),
        });
    }
    protocol::Plan { dry_run, apps, omitted: u32::try_from(omitted).unwrap_or(u32::MAX) }
}

impl Daemon {
    pub(super) fn apply(
        &mut self,
        client: ClientId,
        file: &protocol::File,
        manner: Manner,
    ) -> Result<(), Error> {
        let config = self.load(file)?;
        let source = source_of(file, callers(file.environment.clone())?);
        let plan = self.plan(&config, &source, manner.prune);
        self.server.reply(client, &Reply::Plan(told(&plan, manner.dry_run)), manner.dry_run);
        if manner.dry_run {
            return Ok(());
        }
        let (first, then) = self.commands_of_plan(&plan, config, &source);
        if first.is_empty() && then.is_empty() {
            let done = Done { message: "nothing to change".to_owned(), apps: Vec::new() };
            self.server.reply(client, &Reply::Done(done), true);
            return Ok(());
        }
        self.begin_steps(client, manner.no_wait, ("apply", "applied"), (first, then));
        Ok(())
    }

    fn plan(&self, config: &Config, source: &Source, prune: bool) -> Vec<AppPlan> {
        let view = self.supervisor.view(self.now);
        let logs = self.log_settings(config);
        let recipes: Vec<(&AppView, Course, Rc<Recipe>)> = view
            .apps
            .iter()
            .filter_map(|app| {
                let course = self.supervisor.course(app.app)?;
                let recipe = self.catalog.recipe(course.spec).map(Rc::clone);
                Some((app, course, recipe.or_else(|| self.recipe_of(app))?))
            })
            .collect();
        let known: Vec<Known<'_>> = recipes
            .iter()
            .map(|(app, course, recipe)| Known {
                name: app.called(),
                policy: &recipe.policy,
                spec: &recipe.spec,
                instances: course.instances,
                standing: self.standing(app),
                reloading: course.reloading.map(|reloading| match reloading {
                    view::Reloading::Going => plan::Reloading::Going,
                    view::Reloading::Held { percent } => plan::Reloading::Held { percent },
                }),
                slots: self.supervisor.slots(app.app).map(|slot| (slot.instance, slot.slot.0)).collect(),
                logs_moved: (recipe.log_dir.clone(), recipe.log_files) != logs,
                from_this_file: self.catalog.app(app.app).is_some_and(|known| {
                    // Another profile of it is another set of apps, of which this one says nothing.
                    source.path.is_some()
                        && source.only.is_empty()
                        && known.source.path == source.path
                        && known.source.profile == source.profile
                }),
                opened: self.supervisor.opened(app.app).iter().filter_map(Address::port).collect(),
            })
            .collect();
        plan::plan(&known, &config.apps, prune)
    }

    /// What is wanted to run: after a failed reload that is not what the file said last.
    pub(super) fn recipe_of(&self, app: &AppView) -> Option<Rc<Recipe>> {
        let wanted = self.supervisor.spec(app.app, app.generation);
        let recipe = wanted.and_then(|spec| self.catalog.recipe(spec));
        recipe.or_else(|| self.catalog.app(app.app).map(|record| &record.recipe)).map(Rc::clone)
    }

    fn standing(&self, app: &AppView) -> Standing {
        match app.status {
            Status::Stopped if self.supervisor.has_ended(app.app) => Standing::Ended,
            Status::Stopped => Standing::Stopped,
            Status::Errored if !self.runs(app.app) => Standing::Errored,
            Status::Errored
            | Status::Online
            | Status::Launching
            | Status::Stopping
            | Status::WaitingRestart
            | Status::WaitingAddress
            | Status::Unkillable => Standing::Running,
        }
    }

    /// The commands of a plan: what is deleted goes first, because the others may want its ports.
    fn commands_of_plan(
        &mut self,
        plan: &[AppPlan],
        config: Config,
        source: &Rc<Source>,
    ) -> (Commands, Commands) {
        let logs = self.log_settings(&config);
        self.hear(&config.daemon, source.path.as_deref());
        self.main_file.hear(&config.apps, source);
        let steps: BTreeMap<&AppName, Step> = plan.iter().map(|app| (&app.name, app.step)).collect();
        let gone = plan.iter().filter(|app| app.step == Step::Delete);
        let gone = gone.filter_map(|app| self.catalog.find(&app.name.namespace, &app.name.name));
        let scope = Scope::All;
        let first = gone.map(|app| (app, Command::Delete { app, scope })).collect();
        let mut then = Vec::new();
        for app in apps_in_order(config.apps) {
            let name = AppName { namespace: app.namespace.clone(), name: app.name.clone() };
            let source = self.with_known_environment(&app, source);
            if let Some(step) = steps.get(&name) {
                then.extend(self.command_of_step(*step, app, &source, &logs));
            }
        }
        (self.last_things_first(first), then)
    }

    fn command_of_step(
        &mut self,
        step: Step,
        app: AppConfig,
        source: &Rc<Source>,
        logs: &(Option<std::path::PathBuf>, bool),
    ) -> Option<(AppId, Command)> {
        if matches!(step, Step::Keep | Step::Scale | Step::Delete) {
            let known = self.catalog.find(&app.namespace, &app.name)?;
            self.catalog.own(known, source, app.policy.instances);
            self.keeper.touch(self.now);
            let scale = Scale::To(app.policy.instances);
            return (step == Step::Scale).then_some((known, Command::Scale { app: known, scale }));
        }
        let known = self.catalog.find(&app.namespace, &app.name);
        let compared = known.and_then(|app| self.supervisor.course(app)).map(|course| course.spec);
        let (app, _, definition) = self.catalog.take(app, source, logs.clone());
        if step == Step::Adjust {
            self.exchange_files(app);
        }
        let command = match step {
            Step::Add => Command::Add { app, definition },
            Step::Start => Command::Start { app, scope: Scope::All, definition: Some(definition) },
            Step::Define => Command::Define { app, definition },
            Step::Adjust | Step::Await => {
                let known = compared.unwrap_or(definition.spec);
                Command::Adjust { app, definition, known }
            }
            Step::Move => Command::Restart { app, scope: Scope::All, definition: Some(definition) },
            Step::Reload | Step::Restart => Command::Reload { app, definition: Some(definition) },
            Step::Keep | Step::Scale | Step::Delete => return None,
        };
        Some((app, command))
    }
}
