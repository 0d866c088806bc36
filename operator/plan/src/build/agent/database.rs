//! Work on the database and its backups: preflight, backup, the removal of one, settling.

use super::files::mount_files;
use super::migrate::mark;
use super::place::{Place, worker};
use super::pod::{
    Access, TaskContext, agent_container, agent_pod_spec, empty_dir, environment, forbid_disruption, install,
    job, mount_everywhere, run_copied_agent, run_own_agent,
};
use super::{sidecars, store};
use crate::build::annotate;
use crate::observed::Settings;
use crate::protocol::{
    BackupTask, PreflightTask, PruneTask, Resolution, RestoreStep, RestoreTask, SCRATCH_DIRECTORY,
    SettleTask, SqlCheck, Task,
};
use crate::snapshot::Snapshot;
use crate::tasks::{BACKUP, PREFLIGHT, PRUNE, RESTORE, SETTLE};
use fairway_crds::app::{BackupSettings, Scratch};
use fairway_crds::backup::BackupSet;
use fairway_crds::database::Connection;
use fairway_crds::release::annotation;
use fairway_crds::store::Store;
use fairway_crds::{Backup, Migration, Release, Restore};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;

const SCRATCH_VOLUME: &str = "scratch";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// The Job that checks the environment of a release: database, store, and what a migration would need.
pub fn preflight_job(
    settings: &Settings,
    release: &Release,
    snapshot: &Snapshot,
    store: Option<&Store>,
    attempt: u32,
) -> Job {
    let release_name = release.name_any();
    let context = TaskContext {
        task: &PREFLIGHT,
        name: &PREFLIGHT.child(&release_name, attempt),
        namespace: release.metadata.namespace.as_ref(),
        app: &release.spec.app,
        release: Some(&release_name),
        work_for: &release_name,
        owner: release.controller_owner_ref(&()),
    };
    let task = Task::Preflight(PreflightTask {
        requester: context.requester(),
        migrates: snapshot.migration.is_some(),
        store: store.cloned(),
    });
    let mut pod = with_tools(settings, snapshot, &task);
    if let Some(store) = store {
        store::attach(&mut pod, store);
    }
    finish(&context, snapshot, pod, HOUR)
}

/// The Job that makes a backup and reads it back.
pub fn backup_job(
    settings: &Settings,
    backup: &Backup,
    snapshot: &Snapshot,
    backup_settings: &BackupSettings,
    images: &BTreeMap<String, String>,
    attempt: u32,
) -> Job {
    let BackupSettings {
        scratch,
        store,
        // When one is taken and how long it is kept is no matter of the pod.
        schedule: _,
        keep: _,
    } = backup_settings;
    let backup_name = backup.name_any();
    let context = TaskContext {
        task: &BACKUP,
        name: &BACKUP.child(&backup_name, attempt),
        namespace: backup.metadata.namespace.as_ref(),
        app: &backup.spec.app,
        release: backup.spec.release.as_deref(),
        work_for: &backup_name,
        owner: backup.controller_owner_ref(&()),
    };
    let task = Task::Backup(BackupTask {
        requester: context.requester(),
        store: store.clone(),
        set: set_path(backup),
        scratch: scratch.is_some(),
        images: images.clone(),
        backup_uid: backup.metadata.uid.clone().unwrap_or_default(),
    });
    let mut pod = with_tools(settings, snapshot, &task);
    store::attach(&mut pod, store);
    add_scratch(&mut pod, scratch.as_ref());
    finish(&context, snapshot, pod, DAY)
}

/// What a step of a restore works with.
#[derive(Clone, Debug)]
pub struct RestoreInput<'a> {
    /// The set.
    pub set: &'a BackupSet,
    /// UID of the Backup that wrote it.
    pub backup_uid: &'a str,
    /// The scratch volume, where the App has one.
    pub scratch: Option<&'a Scratch>,
    /// The step.
    pub step: RestoreStep,
}

/// The Job that does one step of a restore.
pub fn restore_job(
    settings: &Settings,
    restore: &Restore,
    snapshot: &Snapshot,
    input: RestoreInput,
    attempt: u32,
) -> Job {
    let RestoreInput {
        set,
        backup_uid,
        scratch,
        step,
    } = input;
    let name = restore.name_any();
    let context = TaskContext {
        task: &RESTORE,
        name: &RESTORE.child(&name, attempt),
        namespace: restore.metadata.namespace.as_ref(),
        app: &restore.spec.app,
        release: None,
        work_for: &name,
        owner: restore.controller_owner_ref(&()),
    };
    let checks = snapshot.migration.iter().flat_map(|migration| &migration.checks);
    let task = Task::Restore(RestoreTask {
        requester: context.requester(),
        restore_uid: restore.metadata.uid.clone().unwrap_or_default(),
        backup_uid: backup_uid.to_owned(),
        store: set.store.clone(),
        set: set.path.clone(),
        scratch: scratch.is_some(),
        checks: checks
            .map(|check| SqlCheck {
                name: check.name.clone(),
                sql: check.sql.clone(),
                expect: check.expect.clone(),
            })
            .collect(),
        may_revert: false,
        step,
    });
    let mut pod = with_tools(settings, snapshot, &task);
    store::attach(&mut pod, &set.store);
    add_scratch(&mut pod, scratch);
    finish(&context, snapshot, pod, DAY)
}

fn add_scratch(pod: &mut PodSpec, scratch: Option<&Scratch>) {
    if let Some(scratch) = scratch {
        pod.volumes
            .get_or_insert_default()
            .push(empty_dir(SCRATCH_VOLUME, Some(&scratch.size)));
        mount_everywhere(pod, SCRATCH_VOLUME, SCRATCH_DIRECTORY, Access::ReadWrite);
    }
}

/// The Job that removes the set of a backup. It needs the store and not the database.
pub fn prune_job(
    settings: &Settings,
    backup: &Backup,
    snapshot: &Snapshot,
    set: &BackupSet,
    attempt: u32,
) -> Job {
    let BackupSet { store, path } = set;
    let backup_name = backup.name_any();
    let context = TaskContext {
        task: &PRUNE,
        name: &PRUNE.child(&backup_name, attempt),
        namespace: backup.metadata.namespace.as_ref(),
        app: &backup.spec.app,
        release: backup.spec.release.as_deref(),
        work_for: &backup_name,
        owner: backup.controller_owner_ref(&()),
    };
    let task = Task::Prune(PruneTask {
        requester: context.requester(),
        store: store.clone(),
        set: path.clone(),
        backup_uid: backup.metadata.uid.clone().unwrap_or_default(),
    });
    let mut pod = agent_pod_spec(settings, place(settings, snapshot));
    let mut container = agent_container(settings, environment(&task, None));
    run_own_agent(&mut container, settings);
    pod.containers = vec![container];
    store::attach(&mut pod, store);
    finish(&context, snapshot, pod, DAY)
}

/// Folder of a backup in its store: `shop/crm/crm-42-1a2b3c4d-5e6f7a8b`. With a part of the Backup's UID, so that
/// another Backup of the same name, created later, finds a folder of its own.
pub fn set_path(backup: &Backup) -> String {
    let uid = backup.metadata.uid.as_deref().unwrap_or_default();
    let namespace = backup.metadata.namespace.as_deref().unwrap_or_default();
    format!(
        "{namespace}/{}/{}-{}",
        backup.spec.app,
        backup.name_any(),
        &uid[..uid.len().min(8)]
    )
}

/// The Job that reads the ledger and settles a run that was cut off. It belongs to nobody, like the run itself:
/// both outlive their App.
pub fn settle_job(
    settings: &Settings,
    migration: &Migration,
    snapshot: &Snapshot,
    resolution: Option<(Resolution, String)>,
    attempt: u32,
) -> Job {
    let migration_name = migration.name_any();
    let context = TaskContext {
        task: &SETTLE,
        name: &SETTLE.child(&migration_name, attempt),
        namespace: migration.metadata.namespace.as_ref(),
        app: &migration.spec.app,
        release: migration.spec.release.as_deref(),
        work_for: &migration_name,
        owner: None,
    };
    let asked = resolution
        .as_ref()
        .map(|(resolution, token)| crate::resolution::value(*resolution, token));
    let (resolution, resolution_token) = resolution.unzip();
    let task = Task::Settle(SettleTask {
        requester: context.requester(),
        run: super::migrate::identity(migration),
        resolution,
        timeout_seconds: SETTLE_PATIENCE_SECONDS,
        resolution_token,
        before: begun(migration),
    });
    let mut pod = agent_pod_spec(settings, place(settings, snapshot));
    let mut container = agent_container(settings, environment(&task, connection(snapshot)));
    run_own_agent(&mut container, settings);
    pod.containers = vec![container];
    mount_files(&mut pod, snapshot);
    let mut job = finish(&context, snapshot, pod, HOUR);
    mark(&mut job.metadata, migration);
    if let Some(asked) = asked {
        // What it answers, although the annotation may say something else by then.
        annotate(&mut job.metadata, annotation::RESOLVE, asked);
    }
    job
}

/// How long a settling Job waits for the lock of a run whose pod may still be alive, before it answers that it
/// could not decide; the next one follows after a pause.
const SETTLE_PATIENCE_SECONDS: u64 = 60;

/// Fingerprint of the schema before the run, where a report said that the run began; empty where it said no more.
fn begun(migration: &Migration) -> Option<String> {
    let status = migration.status.as_ref()?;
    let before = status
        .fingerprints
        .as_ref()
        .and_then(|found| found.before.clone());
    before.or_else(|| status.ledger_row.map(|_| String::new()))
}

fn connection(snapshot: &Snapshot) -> Option<&Connection> {
    snapshot.database.as_ref().map(|database| &database.connection)
}

fn place(settings: &Settings, snapshot: &Snapshot) -> Place {
    Place::of_database_work(snapshot).on_nodes_of_app(settings)
}

/// A pod in which the agent runs in the database's own image, beside its tools.
fn with_tools(settings: &Settings, snapshot: &Snapshot, task: &Task) -> PodSpec {
    let mut pod = agent_pod_spec(settings, place(settings, snapshot));
    let mut container = agent_container(settings, environment(task, connection(snapshot)));
    container.image = snapshot.database.as_ref().map(|database| database.image.clone());
    run_copied_agent(&mut container);
    pod.containers = vec![container];
    install(&mut pod, settings);
    mount_files(&mut pod, snapshot);
    pod
}

fn finish(context: &TaskContext, snapshot: &Snapshot, pod: PodSpec, deadline_seconds: i64) -> Job {
    let mut metadata = kube::core::ObjectMeta {
        labels: Some(context.labels()),
        ..Default::default()
    };
    forbid_disruption(&mut metadata);
    sidecars::as_component(&mut metadata, worker(snapshot));
    job(
        context.metadata(),
        PodTemplateSpec {
            metadata: Some(metadata),
            spec: Some(pod),
        },
        deadline_seconds,
    )
}
