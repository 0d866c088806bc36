//! Certificates of pods and database servers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairway_health::fuzzing::certificate(data));
