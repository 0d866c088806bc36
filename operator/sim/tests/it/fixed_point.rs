//! A story that has ended stays as it is: nothing is written while nothing changes, whoever restarts.

use crate::play::{for_each_story, reference};

#[test]
fn a_restart_at_the_end_writes_nothing() {
    for_each_story(|story| {
        let mut played = reference(story)?;
        let writes = played.sim.traffic.writes.len();
        played.sim.set_away(true);
        played.sim.set_away(false);
        played
            .sim
            .settle()
            .map_err(|stuck| format!("{}: {stuck:?}", story.name))?;
        match &played.sim.traffic.writes[writes..] {
            [] => Ok(()),
            written => Err(format!("{}: {written:?}", story.name)),
        }
    });
}
