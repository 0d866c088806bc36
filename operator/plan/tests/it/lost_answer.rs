//! The answer to each write is lost, or the write itself: the end is the same.

use crate::play::{Claims, for_each_story, with_fault_at_each_write};
use fairway_plan::sim::wire::Fault;

#[test]
fn without_the_answer_to_any_write_it_ends_alike() {
    let claims = Claims::default();
    for_each_story(|story| with_fault_at_each_write(story, &claims, Fault::AnswerLost));
}

#[test]
fn when_any_write_does_not_arrive_it_ends_alike() {
    let claims = Claims::default();
    for_each_story(|story| with_fault_at_each_write(story, &claims, Fault::RequestLost));
}
