//! clusterd
pub mod config;
pub mod control;
pub mod supervisor;
pub mod sys;
