//! Two operators at once: a Lease only saves work, it fences nothing.

use crate::play::{for_each_story, play_alike, reference};
use fairway_plan::sim::Turns;
use fairway_plan::sim::wire::Fault;

#[test]
fn with_two_operators_pass_by_pass_it_ends_alike() {
    for_each_story(|story| play_alike(story, &reference(story)?, Fault::None, Turns::Alternate));
}
