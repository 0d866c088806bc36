//! Every step is executed twice: the end is the same.

use crate::play::{for_each_story, play_alike, reference};
use fairway_sim::Turns;
use fairway_sim::wire::Fault;

#[test]
fn with_every_step_executed_twice_it_ends_alike() {
    for_each_story(|story| play_alike(story, &reference(story)?, Fault::Twice, Turns::Alone));
}
