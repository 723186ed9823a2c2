//! The supervisor's shell: waits, collects facts, has them decided, and performs the orders.

mod options;

use thiserror::Error;

pub use options::Options;

/// Why a supervisor could not run.
#[derive(Debug, Error)]
pub enum Error {
    /// This build has no supervisor.
    #[error("{}: this build of clusterd cannot supervise yet", .0.display())]
    Unavailable(std::path::PathBuf),
}

/// Runs a supervisor until it is told to end; returns the exit code.
pub fn run(options: Options) -> Result<i32, Error> {
    Err(Error::Unavailable(options.home.runtime))
}
