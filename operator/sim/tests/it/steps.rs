//! What the operator logs of a release: one line for each step, and none for each pass.

use crate::play::{reference, story};

/// Steps of a Release as they are logged, with their reasons.
fn logged(name: &str, release: &str) -> Vec<(String, String)> {
    let sim = reference(&story(name)).unwrap().sim;
    let of_release = sim
        .logged
        .into_iter()
        .filter(|(object, _)| &*object.key.name == release);
    of_release
        .map(|(_, logged)| {
            assert_eq!(logged.app, "crm");
            (logged.step.unwrap_or_default(), logged.reason)
        })
        .collect()
}

fn lines(steps: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = steps.iter();
    owned
        .map(|(step, reason)| ((*step).to_owned(), (*reason).to_owned()))
        .collect()
}

#[test]
fn a_release_logs_each_step_once() {
    let expected = [
        ("Pinned", "PullingImages"),
        ("Preflighted", "CheckingDatabase"),
        ("BackedUp", "BackingUp"),
        ("Migrated", "Migrating"),
        ("RolledOut", "StartingPods"),
        ("HandedOver", "StoppingPrevious"),
        ("HandedOver", "StartingPods"),
        ("Baked", "Baking"),
        ("Retired", "RetiringPrevious"),
        ("Succeeded", "Succeeded"),
    ];
    assert_eq!(logged("upgrade-with-migration", "crm-2"), lines(&expected));
}

#[test]
fn a_rollback_logs_its_beginning_and_its_outcome() {
    let expected = [
        ("Pinned", "PullingImages"),
        ("RolledOut", "StartingPods"),
        ("HandedOver", "StoppingPrevious"),
        ("HandedOver", "StartingPods"),
        ("Baked", "Baking"),
        ("TrafficReturned", "RollingBack"),
        ("RolledBack", "HealthLost"),
    ];
    assert_eq!(logged("trip-in-the-bake", "crm-2"), lines(&expected));
}
