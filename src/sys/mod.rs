//! System calls, one family a file: plain data in and out, no decisions. Nothing here knows the rest
//! of the crate. `unsafe` lives here and nowhere else.
#![allow(unsafe_code)]

pub mod accounts;
pub mod addresses;
pub mod alarm;
mod arch;
pub mod behalf;
pub mod cgroup;
pub mod clock;
pub mod connections;
pub mod cpus;
pub mod descriptor;
pub mod epoll_peer;
pub mod facts;
pub mod groups;
mod guise;
pub mod handover;
pub mod inherited;
pub mod inotify;
pub mod input;
pub mod intercept;
pub mod journal;
pub mod listen;
pub mod manager;
pub mod memory;
pub mod multipath;
pub mod notify;
pub mod options;
pub mod output;
pub mod pidfile;
pub mod process;
pub mod rights;
pub mod rotate;
pub mod route;
pub mod settings;
pub mod socket;
pub mod spawn;
pub mod steer;
pub mod terminal;
pub mod unix_diag;
pub mod unix_listener;
