//! The API server's answers to writes, as far as this process remembers them.

use crate::build::applied_hash;
use crate::object::{self, Kind, Object, Step};
use crate::observed::{self, Refusal, ReleaseObserved};
use kube::core::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};

/// Answers to writes and to dry runs.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// Writes that were refused, by `Kind/name#hash`.
    pub refused: &'a BTreeMap<String, Refusal>,
    /// Dry runs that passed, as `Kind/name#hash`.
    pub dry_run_passed: &'a BTreeSet<String>,
}

impl<'a> Answers<'a> {
    /// The answers that were observed.
    pub fn new(refused: &'a BTreeMap<String, Refusal>, dry_run_passed: &'a BTreeSet<String>) -> Self {
        Self {
            refused,
            dry_run_passed,
        }
    }

    /// The answers that were observed for a Release.
    pub fn of(observed: &'a ReleaseObserved) -> Self {
        Self::new(&observed.refused, &observed.dry_run_passed)
    }

    /// The last answer to this very object, when it was a refusal.
    pub fn refusal_of(&self, kind: Kind, desired: &ObjectMeta) -> Option<&'a Refusal> {
        let hash = applied_hash(desired).unwrap_or_default();
        self.refused.get(&object::key(&object::id(kind, desired), hash))
    }

    /// The last answer to this very write, when it was a refusal.
    pub fn refusal(&self, step: &Step) -> Option<&'a Refusal> {
        observed::refusal(self.refused, step)
    }

    /// The dry run of this very object, unless it has passed.
    pub fn dry_run(&self, object: Object) -> Option<Step> {
        let step = Step::DryRun(Box::new(object));
        (!self.dry_run_passed.contains(&step.key())).then_some(step)
    }
}
