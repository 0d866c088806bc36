//! What an App leaves behind over the years.

use crate::play::{Named, reference};
use fairway_engine::kinds::Kind;
use fairway_sim::script::Story;
use std::fmt::Write as _;

/// An App that is released so often, and each time goes well.
fn released(times: usize) -> Named {
    let mut text = "> app web=crm:1 bake=0s\n> settle\n".to_owned();
    for number in 2..=times {
        let _ = write!(text, "> edit image=crm:{number}\n> settle\n");
    }
    Named {
        name: format!("{times} releases"),
        text,
        number: 0,
    }
}

#[test]
fn ten_old_releases_are_kept_with_their_snapshots() {
    let played = reference(&released(15)).unwrap();
    let objects = played.sim.cluster.objects();
    let mut kept: Vec<_> = (4..=15).map(|revision| format!("crm-{revision}")).collect();
    kept.sort();
    assert_eq!(objects.releases.keys().cloned().collect::<Vec<_>>(), kept);
    assert_eq!(objects.revisions.keys().cloned().collect::<Vec<_>>(), kept);
}

#[test]
fn the_snapshot_of_a_removed_release_goes_with_the_next_release() {
    let mut sim = reference(&released(3)).unwrap().sim;
    sim.cluster.delete(Kind::Release, "crm-1");
    assert!(sim.cluster.objects().revisions.contains_key("crm-1"));

    let (text, result) = Story::parse("> edit image=crm:4\n> settle\n").play(&mut sim, 0, |_, _| ());
    result.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let revisions: Vec<_> = sim.cluster.objects().revisions.keys().cloned().collect();
    assert_eq!(revisions, ["crm-2", "crm-3", "crm-4"]);
}
