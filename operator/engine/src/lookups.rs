//! Objects of a team that no watch shows, because they carry none of our labels: Services that Fairway has not
//! applied yet, and PersistentVolumeClaims. Each is asked for by name, and the answer holds for a while.

use crate::clock::Instant;
use crate::key::Key;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long the answer about a Service holds. The first apply, not forced, finds out about what has changed since.
const SERVICE_HOLDS: Duration = Duration::from_secs(10);
/// How long the answer about a claim holds: for a burst of passes. Nothing else finds out about a claim that came,
/// or was replaced, before the release begins.
const CLAIM_HOLDS: Duration = Duration::from_secs(1);

/// An object that is asked for by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lookup {
    /// A Service.
    Service(Key),
    /// A PersistentVolumeClaim.
    Claim(Key),
}

impl Lookup {
    /// The object asked for.
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Service(key) | Self::Claim(key) => key,
        }
    }

    fn holds(&self) -> Duration {
        match self {
            Self::Service(_) => SERVICE_HOLDS,
            Self::Claim(_) => CLAIM_HOLDS,
        }
    }
}

/// What was found under a name.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A Service.
    Service(Arc<Service>),
    /// A PersistentVolumeClaim.
    Claim(Arc<PersistentVolumeClaim>),
}

/// Answers of a short while ago.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookups {
    known: BTreeMap<Lookup, (Instant, Found)>,
}

impl Lookups {
    /// The answer, if it still holds.
    pub(crate) fn known(&self, lookup: &Lookup, now: Instant) -> Option<Found> {
        let (asked, found) = self.known.get(lookup)?;
        (now < *asked + lookup.holds()).then(|| found.clone())
    }

    /// Remembers the answer to a question asked at `asked`; `None` when there is no such object.
    ///
    /// # Errors
    /// When the object cannot be parsed.
    pub(crate) fn answered(
        &mut self,
        lookup: &Lookup,
        object: Option<DynamicObject>,
        asked: Instant,
    ) -> Result<Found, serde_json::Error> {
        let found = match object {
            None => Found::Nothing,
            Some(object) => match lookup {
                Lookup::Service(_) => Found::Service(parsed(object)?),
                Lookup::Claim(_) => Found::Claim(parsed(object)?),
            },
        };
        self.known
            .retain(|lookup, (before, _)| asked < *before + lookup.holds());
        self.known.insert(lookup.clone(), (asked, found.clone()));
        Ok(found)
    }

    /// Forgets the answer about an object that a watch shows now.
    pub(crate) fn forget(&mut self, lookup: &Lookup) {
        self.known.remove(lookup);
    }
}

fn parsed<K: DeserializeOwned>(object: DynamicObject) -> Result<Arc<K>, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(object)?).map(Arc::new)
}
