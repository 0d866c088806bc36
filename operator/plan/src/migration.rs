//! The Migration: started at most once, then settled.
//!
//! It begins, runs, and if its pod ends without an answer it is settled: a Job reads in the ledger how it ended.
//! What may run is decided by the ledger in the database, so every object here can be lost and made again: the
//! same run finds its own row and does nothing twice. Run ID and tries are on record before any Job exists.
//!
//! | status says | what is done |
//! |---|---|
//! | no `runId` | [`run::begin`]: put it on record |
//! | `runId` | [`run::attend`]: one Job or pod, until it answers |
//! | `settling` | [`settle::attend`]: wait until the run is out of the way, then ask the ledger |
//! | `outcome` `Partial` or `Unknown` | [`resolve::ask`]: a person looks at the database and says |
//! | any other `outcome` | nothing but removing what is left |

mod conclude;
mod resolve;
mod run;
mod settle;
mod world;

pub use resolve::{how_to_resolve, resolve_value};

use crate::build::agent::{self, Outcome};
use crate::conditions;
use crate::observed::{MigrationObserved, Settings};
use crate::protocol::MigrationReport;
use crate::stand::Stand;
use crate::{Decision, ObjectRef, Step, Wake, labels, names, object::Kind};
use fairway_crds::migration::{MigrationOutcome, MigrationStatus};
use fairway_crds::{Migration, Release};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;
use world::World;

/// Key of the ledger's row: the same for every pass and every pod that may try this run, another one for each
/// Release, and for a Migration applied by hand for each object.
pub fn run_id(migration: &Migration, release: Option<&Release>) -> String {
    let requester = match (&migration.spec.release, release) {
        (Some(_), Some(release)) => release.metadata.uid.as_deref(),
        _ => migration.metadata.uid.as_deref(),
    };
    let spec = &migration.spec;
    let key = serde_json::json!([
        migration.metadata.namespace,
        spec.app,
        requester,
        spec.image,
        spec.command
    ]);
    names::short_hash(key.to_string())
}

/// Decides the next pass of a Migration.
pub fn plan(observed: &MigrationObserved, settings: &Settings, now: Timestamp) -> Decision<MigrationStatus> {
    let migration = &observed.migration;
    let mut status = migration.status.clone().unwrap_or_default();
    let world = World {
        observed,
        settings,
        now,
    };
    if is_over(&status) {
        resolve::answer_in_vain(&world, &mut status);
        return Decision {
            steps: world.leftovers(&status, &[]),
            status,
            wake: Wake::OnChange,
        };
    }
    if world.is_being_deleted() && status.run_id.is_none() {
        return Decision {
            steps: Vec::new(),
            status,
            wake: Wake::OnChange,
        };
    }
    let Stand {
        mut steps,
        progress,
        wake,
    } = next(&world, &mut status);
    if world.is_being_deleted() {
        // What runs may finish; nothing new is begun for an object that is going.
        steps.retain(|step| !matches!(step, Step::Create(_)));
    }
    status.observed_generation = migration.metadata.generation;
    status.conditions =
        conditions::bounded(&status.conditions, &progress, migration.metadata.generation, now);
    Decision { steps, status, wake }
}

fn next(world: &World, status: &mut MigrationStatus) -> Stand {
    if status.run_id.is_none() {
        return run::begin(world, status);
    }
    if status.settling {
        return settle::attend(world, status);
    }
    match status.outcome {
        Some(_) => resolve::ask(world, status),
        None => run::attend(world, status),
    }
}

/// Whether nothing will change any more.
fn is_over(status: &MigrationStatus) -> bool {
    use MigrationOutcome::{AlreadyApplied, Applied, Failed, NotStarted, Partial, Unknown};
    match status.outcome {
        Some(Applied | AlreadyApplied | Failed | NotStarted) => true,
        Some(Partial | Unknown) | None => false,
    }
}

/// Jobs and pods of migrations whose Migration is gone and that have ended: nobody owns them, so that a run
/// outlives its App, and nobody else removes them. `exists` says whether a Migration of that namespace and name
/// is there.
pub fn orphans(jobs: &[Arc<Job>], pods: &[Arc<Pod>], exists: impl Fn(&str, &str) -> bool) -> Vec<ObjectRef> {
    let abandoned = |meta: &kube::core::ObjectMeta| {
        let of = |key: &str| {
            meta.labels
                .as_ref()
                .and_then(|labels| labels.get(key))
                .map(String::as_str)
        };
        let ours = of(labels::WORK).is_some_and(world::is_of_a_migration);
        let name = of(labels::WORK_FOR).unwrap_or_default();
        ours && meta.deletion_timestamp.is_none()
            && !exists(meta.namespace.as_deref().unwrap_or_default(), name)
    };
    let jobs = jobs
        .iter()
        .filter(|job| abandoned(&job.metadata) && world::has_ended(job));
    let jobs = jobs.filter_map(|job| ObjectRef::of(Kind::Job, &job.metadata));
    let pods = pods
        .iter()
        .filter(|pod| abandoned(&pod.metadata) && pod.owner_references().is_empty());
    let pods = pods.filter(|pod| {
        // The application of an `onStart` migration does not end by itself.
        let found = agent::report::<MigrationReport>(std::slice::from_ref(*pod), &pod.name_any());
        matches!(found, Outcome::Reported(_) | Outcome::Lost { .. })
    });
    jobs.chain(pods.filter_map(|pod| ObjectRef::of(Kind::Pod, &pod.metadata)))
        .collect()
}

#[cfg(test)]
mod tests;
