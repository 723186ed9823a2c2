//! The control socket: frames, the client, the server and what the client prints.

pub mod client;
pub mod frame;
pub mod protocol;
pub mod render;
pub mod server;
pub mod target;
