//! Exponential backoff per object. A wait is not an error and never comes here.

use crate::key::Work;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first delay.
const FIRST: Duration = Duration::from_millis(200);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(60);

/// How often each object's passes have failed in a row. Objects without failures take no room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: BTreeMap<Work, u32>,
}

impl Backoff {
    /// Counts a failure; how long to wait before the next attempt.
    pub(crate) fn failed(&mut self, work: &Work) -> Duration {
        let failures = self.failures.entry(work.clone()).or_default();
        let delay = delay(*failures);
        *failures = failures.saturating_add(1);
        delay
    }

    /// Forgets the failures of an object, because a pass was completed or the object is gone.
    pub(crate) fn reset(&mut self, work: &Work) {
        self.failures.remove(work);
    }
}

/// The delay after so many failures in a row: 0.2 s, 0.4 s … 60 s.
fn delay(failures_before: u32) -> Duration {
    FIRST.saturating_mul(1 << failures_before.min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::kinds::Reconciled;

    fn work(name: &str) -> Work {
        Work::new(Reconciled::App, Key::new("shop", name))
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

    #[test]
    fn any_number_of_failures_has_a_delay() {
        assert_eq!(delay(u32::MAX), LONGEST);
    }
}
