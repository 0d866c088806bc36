//! The Jobs of a Backup: of those that take it, and of those that remove it.

use crate::observed::BackupObserved;
use crate::tasks::Identity;
use crate::{ObjectRef, Step, object::Kind};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use std::sync::Arc;

/// What tells the Jobs and pods of this Backup from those of an earlier one with its name.
pub(super) fn identity(observed: &BackupObserved) -> Identity<'_> {
    Identity::OwnerUid(observed.backup.metadata.uid.as_deref().unwrap_or_default())
}

/// Removal of the Jobs of attempts that are over.
pub(super) fn leftovers(observed: &BackupObserved, keep: Option<&str>) -> Vec<Step> {
    let over = |job: &&Arc<Job>| {
        identity(observed).matches(&job.metadata)
            && job.metadata.deletion_timestamp.is_none()
            && Some(&*job.name_any()) != keep
    };
    observed
        .jobs
        .iter()
        .filter(over)
        .filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata))
        .map(Step::Delete)
        .collect()
}
