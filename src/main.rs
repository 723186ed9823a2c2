//! clusterd: see the library for the code map.

fn main() {}
