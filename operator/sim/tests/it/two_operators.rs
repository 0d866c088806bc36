//! Two operators at once: a Lease only saves work, it fences nothing.

use crate::play::{Claims, for_each_story_with_faults, go_on_alike, is_tried, play, reference};
use fairway_sim::Turns;
use fairway_sim::wire::Fault;

#[test]
fn with_two_operators_pass_by_pass_it_ends_alike() {
    for_each_story_with_faults(|story| {
        crate::play::play_alike(story, &reference(story)?, Fault::None, Turns::Alternate)
    });
}

#[test]
fn an_operator_stopped_before_a_write_does_no_harm_when_it_resumes() {
    let claims = Claims::default();
    for_each_story_with_faults(|story| {
        if story.text.contains("> delete snapshot") {
            // The operator that was stopped before it created that snapshot creates it when it resumes: the same
            // object as before, but the release then ends as if nobody had deleted it.
            return Ok(());
        }
        let alone = reference(story)?;
        let both = play(story, Fault::None, Turns::Alternate)?;
        let writes = both.own_writes(&claims, story);
        let passes = both.sim.decisive.iter().enumerate();
        for (_, pass) in passes.filter(|(number, _)| is_tried(story, *number)) {
            let (line, mut sim) = both.mark(|sim| sim.passes() < *pass);
            if sim.traffic.writes.len() + 1 < *writes.start() {
                continue;
            }
            sim.turns = Turns::Stopped(*pass);
            go_on_alike(story, &alone, (line, sim))?;
        }
        Ok(())
    });
}
