//! The operator's caches lag, each kind for itself: the end is the same.

use crate::play::{for_each_story, play_alike, reference};
use fairway_plan::sim::Turns;
use fairway_plan::sim::store::KINDS;
use fairway_plan::sim::wire::Fault;

#[test]
fn with_caches_that_lag_it_ends_alike() {
    for_each_story(|story| {
        let reference = reference(story)?;
        for kind in KINDS {
            for writes in [1, 3, 9] {
                let fault = Fault::Lagging {
                    kinds: vec![kind],
                    writes,
                };
                play_alike(story, &reference, fault, Turns::Alone)?;
            }
        }
        Ok(())
    });
}
