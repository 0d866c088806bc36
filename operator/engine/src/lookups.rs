//! Objects of a team that no watch shows, because they carry none of our labels: Services that Fairway has not applied yet,
//! PersistentVolumeClaims, and pods from which a component takes over. They are asked for, and
//! the answer holds for a while, for the object that asked.

use crate::clock::Instant;
use crate::key::{NamespacedName, ObjectKey};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::core::Expression;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer holds: for a burst of passes. Nothing else finds out about what came, was replaced or was corrected
/// before a release begins, and a release that fails for it is not run again.
const HOLDS: Duration = Duration::from_secs(1);

/// An object that is asked for by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lookup {
    /// A Service.
    Service(NamespacedName),
    /// A PersistentVolumeClaim.
    Claim(NamespacedName),
    /// The pods of a Deployment of the team, with the labels by which it selects them.
    Pods(NamespacedName, Vec<Expression>),
}

impl Lookup {
    /// The object asked for.
    pub(crate) fn key(&self) -> &NamespacedName {
        match self {
            Self::Service(key) | Self::Claim(key) | Self::Pods(key, _) => key,
        }
    }

    /// What is asked for, for messages.
    pub(crate) fn object(&self) -> String {
        match self {
            Self::Service(key) => format!("Service {}", key.name),
            Self::Claim(key) => format!("PersistentVolumeClaim {}", key.name),
            Self::Pods(key, _) => format!("pods of Deployment {}", key.name),
        }
    }
}

/// What a lookup has found.
#[derive(Clone, Debug)]
pub(crate) enum LookupResult {
    /// No object has the name.
    Nothing,
    /// A Service.
    Service(Arc<Service>),
    /// A PersistentVolumeClaim.
    Claim(Arc<PersistentVolumeClaim>),
    /// Pods.
    Pods(Vec<Arc<Pod>>),
}

/// Answers of a short while ago, by the object in whose pass they were asked for: a new Release begins with what is there
/// then, and not with what the one before it found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookups {
    known: BTreeMap<(ObjectKey, Lookup), (Instant, LookupResult)>,
}

impl Lookups {
    /// The answer, if it still holds.
    pub(crate) fn known(&self, by: &ObjectKey, lookup: &Lookup, now: Instant) -> Option<LookupResult> {
        let (asked, found) = self.known.get(&(by.clone(), lookup.clone()))?;
        (now < *asked + HOLDS).then(|| found.clone())
    }

    /// Remembers what a lookup begun at `asked` has found.
    pub(crate) fn remember(&mut self, by: &ObjectKey, lookup: Lookup, found: LookupResult, asked: Instant) {
        self.known.retain(|_, (before, _)| asked < *before + HOLDS);
        self.known.insert((by.clone(), lookup), (asked, found));
    }

    /// Forgets the answers about an object that a watch shows now.
    pub(crate) fn forget(&mut self, lookup: &Lookup) {
        self.known.retain(|(_, known), _| known != lookup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::OwnKind;

    #[test]
    fn answers_hold_for_the_release_that_asked_alone() {
        let release = |name| ObjectKey::new(OwnKind::Release, NamespacedName::new("shop", name));
        let (lookup, asked) = (
            Lookup::Claim(NamespacedName::new("shop", "crm")),
            Instant::default(),
        );
        let mut lookups = Lookups::default();
        lookups.remember(&release("crm-1"), lookup.clone(), LookupResult::Nothing, asked);
        assert!(lookups.known(&release("crm-1"), &lookup, asked).is_some());
        assert!(lookups.known(&release("crm-2"), &lookup, asked).is_none());
        assert!(lookups.known(&release("crm-1"), &lookup, asked + HOLDS).is_none());
    }
}
