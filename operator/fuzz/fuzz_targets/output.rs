//! Output of migrations and of PostgreSQL's programs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairway_agent::fuzzing::output(data));
