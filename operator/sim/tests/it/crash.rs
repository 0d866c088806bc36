//! The operator is killed after each write: the end is the same.

use crate::play::{Claims, for_each_story_with_faults, with_fault_at_each_write};
use fairway_sim::wire::Fault;

#[test]
fn killed_after_any_write_it_ends_alike() {
    let claims = Claims::default();
    for_each_story_with_faults(|story| with_fault_at_each_write(story, &claims, Fault::KilledAfter));
}
