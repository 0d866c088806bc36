//! Values of annotations, and other words that messages quote.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairway_plan::fuzzing::annotation(data));
