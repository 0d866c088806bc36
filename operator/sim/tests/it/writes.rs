//! What a release costs the API server.

use crate::play::{Named, reference};

/// Upgrade by digest, without a database, without a bake: the release that is compared with Argo Rollouts.
const REFERENCE: &str = "
> app web=crm@sha256:1111111111111111111111111111111111111111111111111111111111111111 bake=0s
> settle
> edit image=crm@sha256:2222222222222222222222222222222222222222222222222222222222222222
> settle
";

#[test]
fn a_release_by_digest_without_a_database_costs_at_most_ten_writes() {
    let story = |text: &str| Named {
        name: "reference release".to_owned(),
        text: text.to_owned(),
        number: 0,
    };
    let (first, _) = REFERENCE.split_at(REFERENCE.find("> edit").unwrap());
    let before = reference(&story(first)).unwrap().sim.traffic.writes.len();
    let played = reference(&story(REFERENCE)).unwrap();
    let written = &played.sim.traffic.writes[before..];
    assert!(written.len() <= 10, "{} writes: {written:#?}", written.len());
}
