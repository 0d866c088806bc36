//! The pod that migrates, in its two forms.
//!
//! Both are made from the component's own template, so that a migration finds the environment, the volumes and
//! the network that the application finds. Neither has an owner: deleting the App lets a migration that runs
//! finish. Both carry a readiness gate that nobody opens, so that no Service sends them traffic, unless it publishes
//! addresses that are not ready.

use super::files::files_beside;
use super::inputs::{self, Inputs};
use super::place::{self, node_affinity, with_pull_secrets};
use super::pod::{
    Access, CONTAINER, INSTALL_CONTAINER, TaskContext, agent_container, agent_pod, empty_dir, environment,
    forbid_disruption, install, job, mount, restricted, run_copied_agent, run_own_agent,
};
use crate::build::InvalidTemplate;
use crate::build::nodes::Nodes;
use crate::build::template::{self, repository};
use crate::json::json_text;
use crate::labels;
use crate::names::{self, run_id};
use crate::observed::Settings;
use crate::protocol::{
    GUARD_DIRECTORY_VARIABLE, GuardTask, MigratingContainer, MigrationTask, RequestedRun, RunIdentity,
    SqlCheck, Task, VARIABLE_PREFIX,
};
use crate::snapshot::Snapshot;
use crate::tasks::{self, GUARD, MIGRATE};
use fairway_crds::component::Component;
use fairway_crds::database::Database;
use fairway_crds::{Migration, Release};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, ExecAction, Pod, PodReadinessGate, PodSpec, PodTemplateSpec, Probe, VolumeMount,
};
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::collections::BTreeMap;

/// A condition that nobody sets: a pod with this gate is never ready.
const NEVER_READY: &str = "fairway.dev/never";
const GUARD_VOLUME: &str = "fairway-guard";
const GUARD_DIRECTORY: &str = "/guard";
/// Time for the agent to end a migration's sessions and write the ledger.
const CONCLUSION_SECONDS: i64 = 60;
/// Room beside the timeout for scheduling, pulling and the team's init containers.
const SLACK_SECONDS: i64 = 2 * 3600;
/// The guard answers its startup probe when the ledger's row is written, for which it may wait minutes.
const GUARD_START_SECONDS: i32 = 3600;
/// Labels that belong to a pod's own controller.
const OF_CONTROLLERS: [&str; 6] = [
    "pod-template-hash",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "job-name",
    "batch.kubernetes.io/job-name",
    labels::COMPONENT,
];

/// Identity of a run, as the ledger keeps it.
pub fn identity(migration: &Migration) -> RunIdentity {
    let spec = &migration.spec;
    let committed = migration.status.as_ref().and_then(|status| status.run_id.clone());
    let command = match &spec.command {
        Some(command) => json_text(command),
        None => "onStart".to_owned(),
    };
    RunIdentity {
        run_id: committed.unwrap_or_else(|| run_id(migration, None)),
        image_digest: spec
            .image
            .rsplit_once('@')
            .map_or(&*spec.image, |(_, digest)| digest)
            .to_owned(),
        command_hash: names::sha256_hex(command),
    }
}

/// The Job of a migration by command: the agent takes the place of the container's entrypoint and runs the
/// command as its child.
///
/// Sidecars are left out, init containers and native sidecars stay. Ended from outside, the pod has the whole
/// timeout to finish in.
///
/// # Errors
/// When the component, its template or the database is missing.
pub fn migration_job(
    settings: &Settings,
    migration: &Migration,
    release: Option<&Release>,
    snapshot: &Snapshot,
    attempt: u32,
) -> Result<Job, InvalidTemplate> {
    let Team {
        labels,
        annotations,
        mut pod,
        target,
        nodes,
        component,
        database,
    } = team(migration, release, snapshot)?;
    let migration_name = migration.name_any();
    let name = MIGRATE.child(&migration_name, attempt);
    let context = context_of(&MIGRATE, migration, &migration_name, &name);
    let inputs = inputs::of(&pod, &pod.containers[target]);
    let task = Task::Migrate(MigrationTask {
        run: requested(migration, &context, &inputs),
        command: migration.spec.command.clone().unwrap_or_default(),
        container: MigratingContainer {
            name: pod.containers[target].name.clone(),
            image: migration.spec.image.clone(),
            others: names_but(&pod, target),
        },
    });

    let mut container = pod.containers.swap_remove(target);
    container.name = CONTAINER.to_owned();
    container.termination_message_path = None;
    container.termination_message_policy = None;
    let own = container.env.get_or_insert_default();
    own.retain(|variable| !variable.name.starts_with(VARIABLE_PREFIX));
    own.extend(environment(&task, Some(&database.connection)));
    run_copied_agent(&mut container);
    inputs.mount_into(
        pod.volumes.get_or_insert_default(),
        container.volume_mounts.get_or_insert_default(),
    );
    pod.containers = vec![container];
    install(&mut pod, settings);

    let timeout = seconds(migration);
    outside_every_service(&mut pod, settings);
    nodes.draw(&mut pod, &migration.spec.app, &component.name);
    pod.termination_grace_period_seconds = Some(timeout + CONCLUSION_SECONDS);
    let mut metadata = pod_metadata(labels, annotations, &context);
    forbid_disruption(&mut metadata);
    mark(&mut metadata, migration);
    let template = PodTemplateSpec {
        metadata: Some(metadata),
        spec: Some(pod),
    };
    let mut job = job(context.metadata(), template, timeout + SLACK_SECONDS);
    mark(&mut job.metadata, migration);
    Ok(job)
}

/// The pod of a migration that the application makes itself when it starts: not a Job, because the application
/// does not end. The guard, a native sidecar, has lock and ledger row before the application is let start.
///
/// # Errors
/// When the component, its template, its health or the database is missing.
pub fn migration_pod(
    settings: &Settings,
    migration: &Migration,
    release: Option<&Release>,
    snapshot: &Snapshot,
    attempt: u32,
) -> Result<Pod, InvalidTemplate> {
    let Team {
        labels,
        annotations,
        mut pod,
        target,
        nodes,
        component,
        database,
    } = team(migration, release, snapshot)?;
    let migration_name = migration.name_any();
    let name = GUARD.child(&migration_name, attempt);
    let context = context_of(&GUARD, migration, &migration_name, &name);
    let inputs = inputs::of(&pod, &pod.containers[target]);
    let task = Task::Guard(guard_task(migration, component, &context, &inputs)?);
    let mut variables = environment(&task, Some(&database.connection));
    variables.push(super::pod::literal(
        GUARD_DIRECTORY_VARIABLE,
        GUARD_DIRECTORY.to_owned(),
    ));
    variables.extend(super::probe::header_variables([component]));

    let mut guard = guard(settings, variables, files_beside(&pod, target));
    inputs.mount_into(
        pod.volumes.get_or_insert_default(),
        guard.volume_mounts.get_or_insert_default(),
    );
    pod.init_containers.get_or_insert_default().insert(0, guard);
    pod.volumes
        .get_or_insert_default()
        .push(empty_dir(GUARD_VOLUME, None));
    outside_every_service(&mut pod, settings);
    nodes.draw(&mut pod, &migration.spec.app, &component.name);
    // The template's own grace period stays. Where it leaves the guard no time, the ledger is read afterwards.
    pod.active_deadline_seconds = Some(seconds(migration) + SLACK_SECONDS);

    let mut metadata = pod_metadata(labels, annotations, &context);
    forbid_disruption(&mut metadata);
    let application = pod.containers[target].name.clone();
    crate::build::annotate(&mut metadata, labels::APPLICATION, application);
    mark(&mut metadata, migration);
    metadata.name = Some(name.clone());
    metadata.namespace = migration.metadata.namespace.clone();
    Ok(agent_pod(metadata, pod))
}

fn guard_task(
    migration: &Migration,
    component: &Component,
    context: &TaskContext,
    inputs: &Inputs,
) -> Result<GuardTask, InvalidTemplate> {
    let none = || InvalidTemplate::NoHealth {
        component: component.name.clone(),
    };
    let health = component.health.as_ref().ok_or_else(none)?;
    Ok(GuardTask {
        run: requested(migration, context, inputs),
        health: health
            .http
            .iter()
            .map(|get| super::probe::http_request(component, get))
            .collect(),
        success_threshold: health.success_threshold,
        period_milliseconds: u64::try_from(health.period.get().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Names of the pod's containers but one.
fn names_but(pod: &PodSpec, target: usize) -> Vec<String> {
    let containers = pod.containers.iter().enumerate();
    containers
        .filter(|(index, _)| *index != target)
        .map(|(_, container)| container.name.clone())
        .collect()
}

/// The run that a task requests.
fn requested(migration: &Migration, context: &TaskContext, inputs: &Inputs) -> RequestedRun {
    RequestedRun {
        requester: context.requester(),
        identity: identity(migration),
        literals_hash: Some(inputs.hash.clone()),
        timeout_seconds: migration.spec.timeout.seconds(),
        checks: checks(migration),
    }
}

/// The native sidecar that guards. Its startup probe keeps every later container from starting.
fn guard(settings: &Settings, variables: Vec<EnvVar>, files: Vec<VolumeMount>) -> Container {
    let mut guard = agent_container(settings, variables);
    run_own_agent(&mut guard, settings);
    guard.restart_policy = Some("Always".to_owned());
    guard.security_context = Some(place::as_own_user(restricted(), settings));
    let own = mount(GUARD_VOLUME, GUARD_DIRECTORY, Access::ReadWrite);
    guard.volume_mounts = Some(std::iter::once(own).chain(files).collect());
    guard.startup_probe = Some(Probe {
        exec: Some(ExecAction {
            command: Some(vec![super::pod::OWN_BINARY.to_owned(), "started".to_owned()]),
        }),
        period_seconds: Some(1),
        timeout_seconds: Some(10),
        failure_threshold: Some(GUARD_START_SECONDS),
        ..Probe::default()
    });
    guard
}

/// A component's template made ready to migrate.
struct Team<'a> {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    pod: PodSpec,
    /// Index of the container that migrates.
    target: usize,
    /// On which nodes the component's own pods run.
    nodes: Nodes,
    component: &'a Component,
    database: &'a Database,
}

fn team<'a>(
    migration: &Migration,
    release: Option<&Release>,
    snapshot: &'a Snapshot,
) -> Result<Team<'a>, InvalidTemplate> {
    let name = &migration.spec.component;
    let component = snapshot
        .component(name)
        .ok_or_else(|| InvalidTemplate::NoComponent {
            component: name.clone(),
        })?;
    let database = snapshot.database.as_ref().ok_or(InvalidTemplate::NoDatabase)?;
    let (template, mut pod) = template::read(component)?;
    let status = release.and_then(|release| release.status.as_ref());
    let images = status.map(|status| status.digests.clone()).unwrap_or_default();
    let target = match &migration.spec.container {
        Some(container) => named(&pod, name, container)?,
        None => target(&pod, name, &images, &migration.spec.image),
    };
    template::pin(&mut pod, name, &images);
    pod.containers[target].image = Some(migration.spec.image.clone());
    for container in &mut pod.containers {
        only_what_runs(container);
    }
    for container in pod
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut pod.containers)
    {
        out_of_the_way(container);
    }
    let meta = template.metadata.unwrap_or_default();
    Ok(Team {
        labels: meta.labels.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
        pod,
        target,
        nodes: status.map_or(Nodes::Any, |status| Nodes::of(component, status)),
        component,
        database,
    })
}

/// The container of that name.
fn named(pod: &PodSpec, component: &str, container: &str) -> Result<usize, InvalidTemplate> {
    let found = pod.containers.iter().position(|found| found.name == container);
    found.ok_or_else(|| InvalidTemplate::NoContainer {
        component: component.to_owned(),
        container: container.to_owned(),
        existing: pod.containers.iter().map(|found| found.name.clone()).collect(),
    })
}

/// The container that migrates where none is named: the one whose pinned image is the migration's, else whose image comes from the
/// same repository, else the first.
fn target(pod: &PodSpec, component: &str, images: &BTreeMap<String, String>, image: &str) -> usize {
    let pinned = |container: &Container| {
        images
            .get(&template::key(component, container))
            .is_some_and(|found| found == image)
    };
    let alike = |container: &Container| {
        container
            .image
            .as_deref()
            .is_some_and(|found| repository(found) == repository(image))
    };
    let position = |is: &dyn Fn(&Container) -> bool| pod.containers.iter().position(is);
    position(&pinned).or_else(|| position(&alike)).unwrap_or_default()
}

/// Nothing asks this container anything, and nothing starts it again.
fn only_what_runs(container: &mut Container) {
    container.liveness_probe = None;
    container.readiness_probe = None;
    container.startup_probe = None;
    container.lifecycle = None;
    container.ports = None;
    container.stdin = None;
    container.stdin_once = None;
    container.tty = None;
}

/// The agent's containers have their names for themselves.
fn out_of_the_way(container: &mut Container) {
    if [CONTAINER, INSTALL_CONTAINER].contains(&container.name.as_str()) {
        container.name = format!("team-{}", container.name);
    }
}

/// What makes a pod of the team's one that runs alone, once.
fn outside_every_service(pod: &mut PodSpec, settings: &Settings) {
    pod.restart_policy = Some("Never".to_owned());
    pod.readiness_gates = Some(vec![PodReadinessGate {
        condition_type: NEVER_READY.to_owned(),
    }]);
    pod.image_pull_secrets = with_pull_secrets(settings, &pod.image_pull_secrets.take().unwrap_or_default());
    // What ties the template's pods to each other must not keep this one from its node.
    pod.affinity = node_affinity(pod.affinity.take());
    place::complete(pod, settings);
    pod.topology_spread_constraints = None;
    pod.hostname = None;
    pod.subdomain = None;
    pod.share_process_namespace = None;
    pod.scheduling_gates = None;
}

/// The template's labels stay, because network policies select by them.
fn pod_metadata(
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    context: &TaskContext,
) -> ObjectMeta {
    let kept = labels
        .into_iter()
        .filter(|(key, _)| !OF_CONTROLLERS.contains(&key.as_str()));
    ObjectMeta {
        labels: Some(kept.chain(context.labels()).collect()),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

/// Says for which run a Job or pod is: nobody owns it, and a later App of the same name may use its name again.
pub(super) fn mark(meta: &mut ObjectMeta, migration: &Migration) {
    meta.labels
        .get_or_insert_default()
        .insert(labels::RUN_ID.to_owned(), identity(migration).run_id);
}

fn context_of<'a>(
    task: &'static tasks::Task,
    migration: &'a Migration,
    migration_name: &'a str,
    name: &'a str,
) -> TaskContext<'a> {
    TaskContext {
        task,
        name,
        namespace: migration.metadata.namespace.as_ref(),
        app: &migration.spec.app,
        release: migration.spec.release.as_deref(),
        work_for: migration_name,
        owner: None,
    }
}

fn checks(migration: &Migration) -> Vec<SqlCheck> {
    let checks = migration.spec.checks.iter();
    checks
        .map(|check| SqlCheck {
            name: check.name.clone(),
            sql: check.sql.clone(),
            expect: check.expect.clone(),
        })
        .collect()
}

fn seconds(migration: &Migration) -> i64 {
    i64::try_from(migration.spec.timeout.seconds()).unwrap_or(i64::MAX - SLACK_SECONDS)
}
