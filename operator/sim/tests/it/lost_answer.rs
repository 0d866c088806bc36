//! A write does not arrive, or it does and its answer is lost: the end is the same.

use crate::play::{Claims, for_each_story_with_faults, with_fault_at_each_write};
use fairway_sim::wire::Fault;

/// Stories have most of their writes in common, so each loses either of the two, in turns.
#[test]
fn without_any_write_or_its_answer_it_ends_alike() {
    let claims = Claims::default();
    for_each_story_with_faults(|story| {
        // Until a request is repeated, the garbage collector may have removed the Release of the former App: then revisions
        // begin at 1, which is as good an end.
        let is_recreated = story.name == "app-recreated";
        with_fault_at_each_write(story, &claims, |write| match (write + story.number) % 2 {
            1 if !is_recreated => Fault::RequestLost(write),
            _ => Fault::AnswerLost(write),
        })
    });
}
