//! Retention: what is removed, and that it comes to an end.

use crate::play::{reference, story};
use fairway_plan::proof::is_verified;
use jiff::SignedDuration;

#[test]
fn once_retention_has_removed_what_it_does_not_keep_nothing_more_goes() {
    let mut sim = reference(&story("retention-removes")).unwrap().sim;
    let kept: Vec<_> = sim.cluster.objects().backups.keys().cloned().collect();
    let backups = sim.cluster.objects().backups.values();
    assert!(backups.clone().all(|backup| is_verified(backup)));
    // The two last ones, and that of the live release.
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert_eq!(
        sim.cluster.database.sets.len(),
        3,
        "{:?}",
        sim.cluster.database.sets
    );
    let writes = sim.traffic.writes.len();
    sim.pass_time(SignedDuration::from_hours(1)).unwrap();
    assert_eq!(sim.traffic.writes.len(), writes);
    assert!(sim.checker.violations.is_empty(), "{:?}", sim.checker.violations);
}

#[test]
fn a_backup_whose_app_is_gone_keeps_its_set() {
    let sim = reference(&story("retention-app-deleted")).unwrap().sim;
    assert!(sim.cluster.objects().backups.contains_key("older"));
    let mut sets = sim.cluster.database.sets.iter();
    assert!(sets.any(|(path, (_, has_manifest))| path.contains("/older-") && *has_manifest));
}
