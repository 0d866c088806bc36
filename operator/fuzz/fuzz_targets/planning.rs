//! Whole passes over what the caches hold in the middle of a release, with some of it replaced.
#![no_main]

use fairway_sim::fuzzing::{State, planning, states};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::OnceLock;

static STATES: OnceLock<Vec<State>> = OnceLock::new();

fn of_stories() -> &'static [State] {
    STATES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/tests/stories");
        let files = std::fs::read_dir(folder).expect("the simulator's stories");
        let mut files: Vec<_> = files.map(|file| file.expect("a story").path()).collect();
        files.sort();
        states(
            files
                .iter()
                .map(|file| std::fs::read_to_string(file).expect("a story")),
        )
    })
}

// Playing the stories takes longer than an input may.
fuzz_target!(init: { of_stories(); }, |data: &[u8]| planning(of_stories(), data));
