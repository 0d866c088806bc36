//! Objects that vanish after their creation: something else deletes them, such as a policy of the cluster, or the garbage
//! collector where the owner is gone and its watch does not say so. They are created again, at longer and longer intervals.

use crate::clock::Instant;
use crate::key::NamespacedName;
use crate::kinds::Kind;
use fairway_plan::retry;
use std::collections::BTreeMap;
use std::time::Duration;

/// Creations of one name that nothing delays: that an object vanishes once or twice may be a user's wish.
const AT_ONCE: u32 = 3;
/// The first delay.
const FIRST: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(300);
/// Time after which an object that was created counts as lasting.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The objects that were created lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Creations(BTreeMap<(Kind, NamespacedName), Created>);

#[derive(Clone, Copy, Debug)]
struct Created {
    times: u32,
    last: Instant,
}

impl Creations {
    /// From when on an object may be created again; `None` for at once.
    pub(crate) fn delayed_until(&self, kind: Kind, name: &NamespacedName, now: Instant) -> Option<Instant> {
        let created = self.0.get(&(kind, name.clone()))?;
        let repeated = created.times.checked_sub(AT_ONCE)?;
        let due = created.last + retry::doubling(FIRST, LONGEST, repeated + 1);
        (now < due).then_some(due)
    }

    /// Takes in that an object was created.
    pub(crate) fn created(&mut self, kind: Kind, name: NamespacedName, now: Instant) {
        self.0
            .retain(|_, created| now.since(created.last) < FORGOTTEN_AFTER);
        let created = self
            .0
            .entry((kind, name))
            .or_insert(Created { times: 0, last: now });
        created.times = created.times.saturating_add(1);
        created.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_vanishing_is_created_less_and_less_often() {
        let name = NamespacedName::new("shop", "crm-1-pin-1");
        let mut creations = Creations::default();
        let mut now = Instant::default();
        let mut pauses = Vec::new();
        for _ in 0..14 {
            let due = creations.delayed_until(Kind::Pod, &name, now).unwrap_or(now);
            pauses.push(due.since(now).as_secs());
            now = due;
            creations.created(Kind::Pod, name.clone(), now);
        }
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let later = now + FORGOTTEN_AFTER;
        creations.created(Kind::Job, name.clone(), later);
        assert_eq!(creations.0.len(), 1, "what lasted is forgotten");
    }
}
