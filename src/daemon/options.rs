//! What a supervisor is started with.

use crate::background::Ready;
use crate::control::protocol::File;
use crate::home::Home;

/// How to run a supervisor.
#[derive(Debug)]
pub struct Options {
    /// Its folders.
    pub home: Home,
    /// What is to be said about them.
    pub notes: Vec<String>,
    /// The file to start with, checked by the caller. None in the background: there it comes by the
    /// control socket.
    pub file: Option<File>,
    /// Begins with the apps that were saved, which only who has no file does.
    pub resurrect: bool,
    /// Prints what workers say; with a file it ends when no app of it can run any more.
    pub foreground: bool,
    /// What it prints is JSON, its own log too: one object for each line.
    pub json: bool,
    /// Whether default log files are written; none leaves it to the file's `[daemon]`.
    pub log_files: Option<bool>,
    /// Told once the control socket can be connected to, or why it never will be. None in the foreground.
    pub ready: Option<Ready>,
}
