//! The answer to each write is lost, or the write itself: the end is the same.

use crate::play::{for_each_story, play_alike, reference};
use fairway_plan::sim::Turns;
use fairway_plan::sim::wire::Fault;

#[test]
fn without_the_answer_to_any_write_it_ends_alike() {
    for_each_story(|story| {
        let reference = reference(story)?;
        let writes = reference.sim.traffic.writes.len();
        (1..=writes).try_for_each(|write| play_alike(story, &reference, Fault::AnswerLost(write), Turns::Alone))
    });
}

#[test]
fn when_any_write_does_not_arrive_it_ends_alike() {
    for_each_story(|story| {
        let reference = reference(story)?;
        let writes = reference.sim.traffic.writes.len();
        (1..=writes).try_for_each(|write| play_alike(story, &reference, Fault::RequestLost(write), Turns::Alone))
    });
}
