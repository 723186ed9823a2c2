//! `send`: a line to the standard input of workers that have one.

use std::path::Path;

use crate::control::protocol::{Done, Error, Reply};
use crate::control::server::ClientId;
use crate::supervisor::event::WorkerId;
use crate::sys::input::{self, LONGEST, Sent};

use super::Daemon;

impl Daemon {
    /// Sends a line to each worker of these targets. It is in its pipe as a whole, or not at all: nothing is kept
    /// here for a worker that does not read.
    pub(super) fn send_line(
        &mut self,
        client: ClientId,
        line: &str,
        targets: &[String],
    ) -> Result<(), Error> {
        check(line)?;
        let whom = self.whom(targets)?;
        let (mut reached, mut failed) = (Vec::new(), Vec::new());
        for worker in self.workers_of(&whom) {
            match self.send_to(worker, line) {
                Ok(()) => reached.push(self.label(worker)),
                Err(why) => failed.push(format!("{}: {why}", self.label(worker))),
            }
        }
        if reached.is_empty() && failed.is_empty() {
            failed.push("no process runs there".to_owned());
        }
        if !failed.is_empty() {
            let others = match reached.is_empty() {
                true => String::new(),
                false => format!("; sent to {}", reached.join(", ")),
            };
            let message = format!("send: {}{others}", failed.join("; "));
            return Err(Error { code: 1, message, failures: Vec::new() });
        }
        let apps = whom.iter().map(|(app, _)| self.app_name(*app)).collect();
        let message = format!("sent to {}", reached.join(", "));
        self.server.reply(client, &Reply::Done(Done { message, apps }), true);
        Ok(())
    }

    fn send_to(&mut self, worker: WorkerId, line: &str) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(worker) else { return Err("it runs no more".to_owned()) };
        let Some(pipe) = &process.input else { return Err(without(process.recipe.source.path.as_deref())) };
        let bytes = [line.as_bytes(), b"\n"].concat();
        match input::send(std::os::fd::AsFd::as_fd(pipe), &bytes) {
            Ok(Sent::Whole) => Ok(()),
            Ok(Sent::Full) => Err("it does not read its standard input, whose pipe is full".to_owned()),
            Ok(Sent::Closed) => {
                process.input = None;
                Err("it has closed its standard input".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What gives it one, by the file that it came from: of flags none does.
fn without(file: Option<&Path>) -> String {
    let how = match file {
        Some(file) => format!("write stdin = \"pipe\" in {}, and reload it", file.display()),
        None => "it came without a file: have it in an ecosystem file, with stdin = \"pipe\", and `clusterd start` \
                 that"
            .to_owned(),
    };
    format!("it has no standard input; {how}")
}

fn check(line: &str) -> Result<(), Error> {
    let refuse = |message: String| Err(Error { code: 2, message, failures: Vec::new() });
    if line.contains('\n') {
        return refuse("send: one line at a time, and its end is added: this has several".to_owned());
    }
    if line.len() >= LONGEST {
        return refuse(format!(
            "send: the line is {} bytes long; at most {} are taken",
            line.len(),
            LONGEST - 1
        ));
    }
    Ok(())
}
