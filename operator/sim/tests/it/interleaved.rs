//! Passes of different objects are under way at the same time, request by request: the end is the same.

use crate::play::{for_each_story_with_faults, play_alike, reference};
use fairway_sim::Turns;
use fairway_sim::wire::Fault;

#[test]
fn with_passes_side_by_side_it_ends_alike() {
    for_each_story_with_faults(|story| {
        play_alike(story, &reference(story)?, Fault::None, Turns::Interleaved)
    });
}
