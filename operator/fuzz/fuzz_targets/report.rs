//! Termination messages, and answers of probe pods.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairway_plan::fuzzing::report(data));
