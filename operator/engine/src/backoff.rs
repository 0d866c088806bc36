//! Exponential backoff per object. Failures and conflicts count; a pass that only waits does not.

use crate::key::ObjectKey;
use fairway_plan::retry;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first delay.
const FIRST: Duration = Duration::from_millis(200);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(60);

/// How often each object's passes have failed, or met a conflict, since one was completed. Objects without failures take no room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: BTreeMap<ObjectKey, u32>,
}

impl Backoff {
    /// Counts a failure; how long to wait before the next attempt: 0.2 s, doubling, at most a minute.
    pub(crate) fn failed(&mut self, object: &ObjectKey) -> Duration {
        let failures = self.failures.entry(object.clone()).or_default();
        *failures = failures.saturating_add(1);
        retry::doubling(FIRST, LONGEST, *failures)
    }

    /// Forgets the failures of an object, because a pass was completed or the object is gone.
    pub(crate) fn reset(&mut self, object: &ObjectKey) {
        self.failures.remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::NamespacedName;
    use crate::kinds::OwnKind;

    fn work(name: &str) -> ObjectKey {
        ObjectKey::new(OwnKind::App, NamespacedName::new("shop", name))
    }

    #[test]
    fn delays_double_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..11)
            .map(|_| backoff.failed(&work("crm")).as_millis())
            .collect();
        assert_eq!(
            delays,
            [
                200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000
            ]
        );
    }

    #[test]
    fn success_starts_over_and_leaves_other_objects_alone() {
        let mut backoff = Backoff::default();
        backoff.failed(&work("crm"));
        backoff.failed(&work("crm"));
        backoff.failed(&work("cms"));
        backoff.reset(&work("crm"));
        assert_eq!(backoff.failed(&work("crm")), FIRST);
        assert_eq!(backoff.failed(&work("cms")), 2 * FIRST);
    }
}
