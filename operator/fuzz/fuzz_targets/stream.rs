//! Lists and watches, as the API server streams them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairway_engine::fuzzing::stream(data));
