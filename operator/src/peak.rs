//! For tests: the most memory that something takes.

use crate::ALLOCATOR;
use std::process::Command;

/// Names the test that runs in a process of its own.
const ALONE: &str = "FAIRWAY_TEST_ALONE";

/// The most bytes that are allocated while `run` runs, beyond what is allocated when it begins. Measured in another
/// process, where no other test allocates: `test` is the full name of the calling test.
///
/// Returns nothing in that process.
pub(crate) fn peak_of<Prepared>(
    test: &str,
    prepare: impl FnOnce() -> Prepared,
    run: impl FnOnce(&Prepared),
) -> Option<usize> {
    if std::env::var_os(ALONE).is_some_and(|alone| alone == test) {
        let prepared = prepare();
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        run(&prepared);
        println!("peak: {}", ALLOCATOR.peak_usage().saturating_sub(before));
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let peak = text.lines().find_map(|line| Some(line.split_once("peak: ")?.1));
    let said = || {
        panic!(
            "{test} did not run: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    };
    Some(peak.and_then(|peak| peak.parse().ok()).unwrap_or_else(said))
}
