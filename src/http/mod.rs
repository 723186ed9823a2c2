//! The supervisor's own answers over HTTP (`[daemon] http`): whether it lives, which apps are ready, figures for
//! Prometheus, and what `list --json` says. It only tells: nothing can be changed here, and neither environment nor
//! command lines are in it.
//!
//! `request` makes a question of a request's head, `server` keeps the connections, `metrics` writes figures; the
//! loop (`daemon::http`) answers.

pub mod metrics;
pub mod request;
pub mod server;
