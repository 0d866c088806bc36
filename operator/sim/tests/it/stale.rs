//! The operator's caches lag, each kind for itself: the end is the same.

use crate::play::{for_each_story_with_faults, is_tried, play_alike, reference};
use fairway_engine::kinds::Kind;
use fairway_sim::Turns;
use fairway_sim::wire::Fault;

#[test]
fn with_caches_that_lag_it_ends_alike() {
    for_each_story_with_faults(|story| {
        let reference = reference(story)?;
        let kinds = Kind::ALL.into_iter().enumerate();
        for (turn, kind) in kinds.filter(|(turn, _)| is_tried(story, *turn)) {
            // By how much takes turns: what a story shares with others is seen with every lag.
            let writes = [1, 3, 9][(turn + story.number) % 3];
            let fault = Fault::Lagging {
                kinds: vec![kind],
                writes,
            };
            play_alike(story, &reference, fault, Turns::Alone)?;
        }
        Ok(())
    });
}
