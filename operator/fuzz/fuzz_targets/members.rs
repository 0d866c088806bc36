//! Answers to health requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairway_health::fuzzing::members(data));
