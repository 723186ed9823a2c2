//! The supervisor: decides on plain data, with time as an argument, and never touches the kernel.

pub mod event;
pub mod policy;
pub mod time;
pub mod view;
