//! Objects of each watched kind, and how much memory reading one takes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

/// The largest bound of a kind is 4 MiB, of which a vector that grows may hold twice as much, and its copy for a moment.
const MEMORY: usize = 16 * 1024 * 1024;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fuzz_target!(|data: &[u8]| {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    fairway_engine::fuzzing::object(data);
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(taken <= MEMORY, "{taken} bytes");
});
