//! The operator is killed after each write: the end is the same.

use crate::play::{for_each_story, play_alike, reference};
use fairway_plan::sim::Turns;
use fairway_plan::sim::wire::Fault;

#[test]
fn killed_after_any_write_it_ends_alike() {
    for_each_story(|story| {
        let reference = reference(story)?;
        let writes = reference.sim.traffic.writes.len();
        (1..=writes)
            .try_for_each(|write| play_alike(story, &reference, Fault::KilledAfter(write), Turns::Alone))
    });
}
