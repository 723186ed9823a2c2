//! Signals to the supervisor (product contract, section 6), and how it ends.

use std::fs::OpenOptions;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::config::SHUTDOWN_TIMEOUT;
use crate::supervisor::event::Command;

use super::Daemon;

/// The signals that the loop takes. SIGQUIT is what some container images stop by (`STOPSIGNAL`), and a process
/// with the number 1 never hears what it does not take.
pub(super) const TAKEN: [i32; 7] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD];

impl Daemon {
    /// Drains the pipe first, then acts once on each kind: signals coalesce anyway.
    pub(super) fn take_signals(&mut self) {
        let pending: Vec<i32> = self.signals.pending().collect();
        if pending.contains(&SIGCHLD) {
            self.reap();
        }
        let ends = pending.iter().filter(|s| matches!(**s, SIGTERM | SIGINT | SIGQUIT)).count();
        for _ in 0..ends {
            self.shutdown(0);
        }
        if pending.contains(&SIGHUP) && !self.shutting_down {
            self.hang_up();
        }
        if pending.contains(&SIGUSR1) {
            self.log_state();
        }
        if pending.contains(&SIGUSR2) {
            self.reload_logs(None);
        }
    }

    /// The first one drains and stops everything; a second one ends at once.
    pub(super) fn shutdown(&mut self, code: i32) {
        if self.shutting_down {
            log::warn!("asked to end a second time: everything is killed");
            self.command(Command::ShutdownNow { code });
        } else {
            self.keep_apps_for_good();
            let within = self.shutdown_timeout.get().copied().unwrap_or(SHUTDOWN_TIMEOUT);
            log::info!("ending: every app is drained and stopped, within {within:?}");
            self.tell_manager_of_stop(within, code);
            self.command(Command::Shutdown { within, code });
        }
        self.shutting_down = true;
    }

    /// A terminal that went away means stop; else read the files again and reload.
    fn hang_up(&mut self) {
        if self.surroundings.on_terminal && OpenOptions::new().read(true).open("/dev/tty").is_err() {
            log::info!("the terminal is gone");
            self.shutdown(0);
        } else {
            log::info!("SIGHUP: the files are read again");
            self.tell_manager_of_reload();
            self.hanging_up = true;
            self.reload_all();
            self.hanging_up = false;
        }
    }

    fn log_state(&self) {
        let view = self.supervisor.view(self.now);
        for app in &view.apps {
            log::info!(
                "{}: {} generation {} instances {}",
                app.name,
                app.status.as_str(),
                app.generation.0,
                app.instances
            );
            for worker in &app.workers {
                let pid = worker.worker.and_then(|id| self.processes.get(id)).map_or(0, |p| p.pid);
                log::info!(
                    "{}/{} id {} pid {pid} {} generation {} restarts {}",
                    app.name,
                    worker.instance,
                    worker.slot.0,
                    worker.status.as_str(),
                    worker.generation.0,
                    worker.restarts
                );
            }
        }
    }

    /// With a file of its own, when every app has given up, there is nothing left to supervise: the
    /// container or unit around it should know.
    pub(super) fn end_if_nothing_runs(&mut self) {
        if !self.main_file.is_there() || self.shutting_down {
            return;
        }
        let Some(code) = self.supervisor.given_up() else { return };
        // 0: all of them ended well, as jobs do.
        let level = if code == 0 { log::Level::Info } else { log::Level::Error };
        log::log!(level, "no app can run any more; ending with code {code}");
        self.shutdown(code);
    }
}
