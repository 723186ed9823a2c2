//! clusterd
pub mod background;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod home;
pub mod logs;
pub mod supervisor;
pub mod sys;
