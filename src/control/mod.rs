//! The control socket: frames, the client, the server and what the client prints.

pub mod protocol;
