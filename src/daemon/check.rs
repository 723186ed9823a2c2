//! The command of a worker's check: run as the worker is, in its folder and as its user, but beside its tree.

use std::os::fd::AsFd;
use std::rc::Rc;

use crate::config;
use crate::supervisor::event::{SpawnFailure, WorkerId};
use crate::sys::output;
use crate::sys::spawn::{self, Plan};

use super::environment::Variables;
use super::probe::{Stage, Unfit};
use super::processes::WORKER_VARIABLE;
use super::start::{Order, c_string};
use super::{Daemon, identity, settings};

/// Neither does its word count as the worker's, nor does it keep the worker's tree alive.
const FOREIGN: &[&str] = &[WORKER_VARIABLE, "NOTIFY_SOCKET", "WATCHDOG_USEC"];

impl Daemon {
    /// Starts it, with the worker's environment and its process id in CLUSTERD_PID.
    pub(super) fn run_check(&mut self, worker: WorkerId, words: &[String]) -> Result<Stage, Unfit> {
        let (Some(process), Some(place)) = (self.processes.get(worker), self.supervisor.worker(worker))
        else {
            return Err(Unfit::Worker("it is gone".to_owned()));
        };
        let (recipe, pid) = (Rc::clone(&process.recipe), process.pid);
        let (app, slot, instance, generation) = (place.app, place.slot, place.instance, place.generation);
        let order = Order { worker, app, slot, instance, generation, recipe: None, inherit: Vec::new() };
        let mut check = recipe.spec.clone();
        check.program = config::Program::Exact(words.to_vec());
        let text = |failure: SpawnFailure| match failure.transient {
            true => Unfit::Host(failure.message),
            false => Unfit::Worker(failure.message),
        };
        let who = identity::resolve(&recipe.spec.process).map_err(text)?;
        let variables = Variables::of(&recipe, who.as_ref(), self.home.named()).map_err(text)?;
        let command = self.command_line(&check, &variables).map_err(text)?;
        let mut own = self.own_variables(&order, &recipe, "".into(), 0, false);
        own.retain(|(name, _)| !FOREIGN.contains(name));
        own.push(("CLUSTERD_PID", pid.to_string().into()));
        let env = variables.complete(&recipe, &command, instance, own).map_err(text)?;
        let argv = command.argv.iter().map(|a| c_string(a)).collect::<Result<_, _>>().map_err(text)?;
        let (output, theirs) = output::worker_pipe().map_err(|error| Unfit::of("pipe", &error))?;
        let (report, reports) = spawn::report_pair().map_err(|error| Unfit::of("socketpair", &error))?;
        let plan = Plan {
            program: c_string(command.program.as_os_str()).map_err(text)?,
            argv,
            env,
            cwd: c_string(command.cwd.as_os_str()).map_err(text)?,
            standard: [self.surroundings.null.as_fd(), theirs.as_fd(), theirs.as_fd()],
            report: reports.as_fd(),
            handed: Vec::new(),
            listen_fds: 0,
            watchdog: false,
            intercept: false,
            options: false,
            nofile: self.surroundings.nofile,
            settings: &settings::of(&recipe.spec.process, who.as_ref()),
        };
        let spawned = spawn::spawn(&plan, None).map_err(|error| Unfit::of("clone", &error))?;
        Ok(Stage::Running { pid: spawned.pid, report, output: output.into(), said: Vec::new() })
    }
}
