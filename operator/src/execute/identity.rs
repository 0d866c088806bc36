//! What a step is about, and whether an object that is there is the one that it wants.

use super::Failure;
use super::refusal::Refused;
use crate::key::Watched;
use fairway_plan::labels;
use fairway_plan::object::Step;
use kube::core::ObjectMeta;

/// Whether an existing object is the one that was to be created: of the same owner, or without one of the same
/// App.
pub(super) fn adopt(desired: &ObjectMeta, existing: &ObjectMeta, kind: Watched) -> Result<(), Failure> {
    let owners = |meta: &ObjectMeta| -> Vec<String> {
        meta.owner_references
            .iter()
            .flatten()
            .map(|owner| owner.uid.clone())
            .collect()
    };
    let app = |meta: &ObjectMeta| {
        meta.labels
            .as_ref()
            .and_then(|labels| labels.get(labels::APP).cloned())
    };
    let (wanted_owners, existing_owners) = (owners(desired), owners(existing));
    let ours = if wanted_owners.is_empty() {
        app(desired).is_some() && app(desired) == app(existing)
    } else {
        wanted_owners.iter().any(|owner| existing_owners.contains(owner))
    };
    if existing.deletion_timestamp.is_some() {
        return Err(Failure::BeingDeleted);
    }
    if ours {
        return Ok(());
    }
    let name = existing.name.as_deref().unwrap_or_default();
    Err(Failure::Taken(Refused {
        message: format!(
            "{} {name} exists already and belongs to something else; delete or rename it",
            kind.as_str()
        ),
        conflict: false,
        may_pass: true,
    }))
}

/// Namespace and name.
pub(super) fn place(meta: &ObjectMeta) -> (&str, &str) {
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

/// What a step does, for the log.
pub(super) fn verb_of(step: &Step) -> &'static str {
    match step {
        Step::Apply(_) => "apply",
        Step::DryRun(_) => "dry run",
        Step::Create(_) => "create",
        Step::Scale(..) => "scale",
        Step::Delete(_) => "delete",
    }
}
