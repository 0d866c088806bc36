//! The Migration: started at most once, then settled.
//!
//! A run begins, and if its pod ends without a report it is settled: a Job reads in the ledger how it ended. What may
//! run is decided by the ledger in the database, so every object here can be lost and created again: the same run
//! finds its own row and does nothing twice. Run ID and attempts are recorded before any Job exists.
//!
//! | status has | what is done |
//! |---|---|
//! | no `runId` | [`run::begin`] records it |
//! | `runId` | [`run::attend`]: one Job or pod, until it reports |
//! | `settling` | [`settle::attend`]: wait until the run can do nothing any more, then read the ledger |
//! | `outcome` `Partial` or `Unknown` | [`resolve::ask`]: a user looks at the database and says how it ended |
//! | any other `outcome` | nothing but removing what is left |

mod conclude;
mod resolve;
mod run;
mod settle;
mod settling;
mod view;

pub use resolve::how_to_resolve;

use crate::attempt::Planned;
use crate::build::agent::{self, Outcome};
use crate::conditions;
use crate::observed::{MigrationObserved, Settings};
use crate::protocol::MigrationReport;
use crate::{Decision, ObjectRef, Step, Wake, labels, object::Kind, tasks};
use fairway_crds::migration::{MigrationOutcome, MigrationStatus};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;
use view::View;

/// Decides the next pass of a Migration.
pub fn plan(observed: &MigrationObserved, settings: &Settings, now: Timestamp) -> Decision<MigrationStatus> {
    let settings = &*settings.of_app(observed.app.as_deref());
    let migration = &observed.migration;
    let mut status = migration.status.clone().unwrap_or_default();
    let view = View {
        observed,
        settings,
        now,
    };
    if is_over(&status) {
        resolve::acknowledge(&view, &mut status);
        let (steps, wake) = match has_succeeded(&status) {
            true => (view.leftovers(&status, &[]), Wake::OnChange),
            false => view.leftovers_of_failure(&status),
        };
        return Decision {
            steps,
            status,
            wake,
            rung: None,
        };
    }
    if view.deletion().is_some() && status.run_id.is_none() {
        return Decision {
            steps: Vec::new(),
            status,
            wake: Wake::OnChange,
            rung: None,
        };
    }
    let Planned {
        mut steps,
        progress,
        wake,
    } = next(&view, &mut status);
    if view.deletion().is_some() {
        // What runs may finish; nothing new is begun for an object that is going.
        steps.retain(|step| !matches!(step, Step::Create(_)));
    }
    let generation = migration.metadata.generation;
    status.observed_generation = generation;
    let desired = conditions::summary(&format!("Migration {}", migration.name_any()), &progress);
    status.conditions = conditions::set(&status.conditions, desired, generation, now);
    Decision {
        steps,
        status,
        wake,
        rung: None,
    }
}

fn next(view: &View, status: &mut MigrationStatus) -> Planned {
    if status.run_id.is_none() {
        return run::begin(view, status);
    }
    if status.settling {
        return settle::attend(view, status);
    }
    match status.outcome {
        Some(_) => resolve::ask(view, status),
        None => run::attend(view, status),
    }
}

/// Whether a Migration has ended for good.
fn is_over(status: &MigrationStatus) -> bool {
    status.outcome.is_some_and(MigrationOutcome::is_final)
}

/// Whether the migration was applied, now or before.
fn has_succeeded(status: &MigrationStatus) -> bool {
    use MigrationOutcome::{AlreadyApplied, Applied};
    matches!(status.outcome, Some(Applied | AlreadyApplied))
}

/// Jobs and pods of migrations whose Migration is gone and that have ended: nobody owns them, so that a run
/// outlives its App, and nobody else removes them. `exists` says whether a Migration of that namespace and name
/// is there.
pub fn orphans(jobs: &[Arc<Job>], pods: &[Arc<Pod>], exists: impl Fn(&str, &str) -> bool) -> Vec<ObjectRef> {
    let abandoned = |meta: &kube::core::ObjectMeta| {
        let labels = meta.labels.as_ref();
        let name = labels.and_then(|labels| labels.get(labels::WORK_FOR));
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        tasks::is_for(meta, Kind::Migration)
            && meta.deletion_timestamp.is_none()
            && !exists(namespace, name.map(String::as_str).unwrap_or_default())
    };
    let jobs = jobs
        .iter()
        .filter(|job| abandoned(&job.metadata) && agent::has_job_ended(job, pods));
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
