//! `monit`: the supervisor on a full screen. What is shown is plain data ([`model`]) that events change, and is drawn
//! from that alone ([`view`]); whoever owns the terminal and the sockets feeds it and performs its wishes.
//!
//! Nothing here reads a clock, a socket or a key. Whatever a worker or a file brought is text that has been made
//! harmless before it is kept.

pub mod keys;
pub mod model;
pub mod view;
