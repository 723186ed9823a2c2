//! The target `http` of src/fuzz.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| clusterd::fuzz::run("http", input));
