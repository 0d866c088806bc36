//! Error answers of the API server, and errors of parsers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairway_engine::fuzzing::answer(data));
