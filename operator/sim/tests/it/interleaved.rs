//! Passes of different objects are under way at the same time, request by request: the end is the same.

use crate::play::{Named, for_each_story_with_faults, play, play_alike, reference};
use fairway_sim::Turns;
use fairway_sim::wire::Fault;

/// A story whose end depends on how far its Release had come when the component was dropped.
const DROPPED_WHILE_SCALED_TO_ZERO: &str = "\
> app web=crm:1 worker=crm:1 worker-strategy=BlueGreen workers=0
> steps 17
> scale crm-web-1 0
> edit web=none
> settle
";

#[test]
fn with_passes_side_by_side_it_ends_alike() {
    for_each_story_with_faults(|story| {
        play_alike(story, &reference(story)?, Fault::None, Turns::Interleaved)
    });
}

#[test]
fn a_candidate_that_is_scaled_to_zero_and_dropped_is_not_switched_to() {
    let story = Named {
        name: "dropped-while-scaled-to-zero".to_owned(),
        text: DROPPED_WHILE_SCALED_TO_ZERO.to_owned(),
        number: 0,
    };
    for turns in [Turns::Alone, Turns::Interleaved] {
        play(&story, Fault::None, turns).unwrap_or_else(|broken| panic!("{broken}"));
    }
}
