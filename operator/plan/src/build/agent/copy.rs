//! The copy of a backup in a further store.

use super::database::{DAY, finish, place};
use super::pod::{TaskContext, agent_container, agent_pod_spec, environment, run_own_agent};
use super::store::{self, Role};
use crate::observed::Settings;
use crate::protocol::{CopyTask, Task};
use crate::snapshot::Snapshot;
use crate::tasks::COPY;
use fairway_crds::Backup;
use fairway_crds::backup::{BackupCopy, BackupSet};
use k8s_openapi::api::batch::v1::Job;
use kube::{Resource, ResourceExt};

/// The Job that copies a backup's set into a further store and reads the copy back. `part` is the copy's number among those
/// of the backup, counted from 1. It needs neither the database nor its tools.
pub fn copy_job(
    settings: &Settings,
    backup: &Backup,
    snapshot: &Snapshot,
    set: &BackupSet,
    copy: &BackupCopy,
    part: usize,
    attempt: u32,
) -> Job {
    let backup_name = backup.name_any();
    let context = TaskContext {
        task: &COPY,
        name: &COPY.child_of_part(&backup_name, part, attempt),
        namespace: backup.metadata.namespace.as_ref(),
        app: &backup.spec.app,
        release: backup.spec.release.as_deref(),
        work_for: &backup_name,
        owner: backup.controller_owner_ref(&()),
    };
    let task = Task::Copy(CopyTask {
        requester: context.requester(),
        store: set.store.clone(),
        to: copy.store.clone(),
        set: set.path.clone(),
        backup_uid: backup.metadata.uid.clone().unwrap_or_default(),
    });
    let mut pod = agent_pod_spec(settings, place(settings, snapshot));
    let mut container = agent_container(settings, environment(&task, None));
    run_own_agent(&mut container, settings);
    pod.containers = vec![container];
    store::attach(&mut pod, &set.store, Role::Reads);
    store::attach(&mut pod, &copy.store, Role::Copies);
    finish(&context, snapshot, pod, DAY)
}
