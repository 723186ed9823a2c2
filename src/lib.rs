//! clusterd
pub mod config;
pub mod control;
pub mod logs;
pub mod supervisor;
pub mod sys;
