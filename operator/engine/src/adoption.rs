//! Whether an object that has the name of one to be created is that object.

use fairway_plan::labels;
use fairway_plan::observed::Refusal;
use kube::core::ObjectMeta;

/// Why an existing object is not adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotOurs {
    /// It is being deleted: the name will be free.
    Terminating,
    /// Its owner is another: a user deletes or renames it.
    Taken(Refusal),
}

/// Whether an existing object is the one that was to be created: of the same owner, or without one of the same App.
pub(crate) fn adopt(kind: &str, desired: &ObjectMeta, existing: &ObjectMeta) -> Result<(), NotOurs> {
    if existing.deletion_timestamp.is_some() {
        return Err(NotOurs::Terminating);
    }
    let mut desired_owners = owners(desired).peekable();
    let is_ours = if desired_owners.peek().is_none() {
        app(desired).is_some() && app(desired) == app(existing)
    } else {
        desired_owners.any(|owner| owners(existing).any(|found| found == owner))
    };
    if is_ours {
        return Ok(());
    }
    let name = existing.name.as_deref().unwrap_or_default();
    Err(NotOurs::Taken(Refusal {
        message: format!(
            "{kind} {name} already exists and was not created by Fairway for this object. Delete or rename it."
        ),
        conflicts: Vec::new(),
        may_pass: true,
    }))
}

fn owners(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    meta.owner_references
        .iter()
        .flatten()
        .map(|owner| owner.uid.as_str())
}

fn app(meta: &ObjectMeta) -> Option<&String> {
    meta.labels.as_ref().and_then(|labels| labels.get(labels::APP))
}
