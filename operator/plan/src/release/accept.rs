//! The rungs before anything is touched: Accepted, Pinned, Preflighted.

use super::attempts::{self, Retry};
use super::claims;
use super::verdict::{Failure, Verdict, Wait};
use super::world::{World, has_begun, has_ended, live};
use crate::build::agent::{self, Outcome, Pinning};
use crate::build::deployment::{DeploymentInput, deployment};
use crate::protocol::{Cause, PreflightReport};
use crate::{Object, ObjectRef, names, object::Kind};
use fairway_crds::Reason;
use fairway_crds::Release;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{CheckVerdict, MilestoneKind, ReleaseOutcome, ReleaseStatus};
use jiff::SignedDuration;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Time that pulling the images may take altogether.
const PIN_DEADLINE: SignedDuration = SignedDuration::from_hours(1);
/// Time that the environment have to become fit altogether.
const PREFLIGHT_DEADLINE: SignedDuration = SignedDuration::from_hours(1);
/// Time in which a release that has not begun makes way for a newer one; a wait that lasts longer is told in status.
const MAKES_WAY: SignedDuration = SignedDuration::from_secs(5);

/// Met when the spec is valid, no other release of this App is under way past the point where it could
/// simply be dropped, no migration of its database is unsettled, and the pods could run beside those of another
/// version where they have to.
pub fn accepted(world: &World, status: &mut ReleaseStatus) -> Verdict {
    if has_begun(world.release()) {
        return Verdict::Met;
    }
    if let Some(newer) = newer(world) {
        return Verdict::Fail(Failure {
            outcome: ReleaseOutcome::Superseded,
            ..Failure::new(
                Reason::Superseded,
                format!("{newer} took its place before it had changed anything"),
            )
        });
    }
    if let Some(older) = world
        .observed
        .siblings
        .iter()
        .find(|sibling| sibling.spec.revision < world.release().spec.revision && !has_ended(sibling))
    {
        return Verdict::Wait(waiting_for(world, older));
    }
    if world.suspended() {
        return Verdict::Wait(super::held("before it begins"));
    }
    if let Some(verdict) = unsettled_migration(world) {
        return verdict;
    }
    if status.previous.is_none() {
        let siblings = world
            .observed
            .siblings
            .iter()
            .filter(|sibling| world.is_of_this_app(sibling));
        status.previous = live(siblings).map(|release| release.name_any());
    }
    let images = images(world);
    let missing: Vec<_> = world
        .snapshot
        .without_image()
        .into_iter()
        .filter(|container| !images.contains_key(container))
        .collect();
    if !missing.is_empty() {
        return Failure::new(
            Reason::ImageMissing,
            format!(
                "no image is named for {}: name it in the Release's spec.images or in the App's template",
                missing.join(", ")
            ),
        )
        .verdict();
    }
    if let Some(failure) = claims::not_shared(world.snapshot, &world.observed.claims) {
        return failure.verdict();
    }
    accepted_by_apiserver(world, &images)
}

/// The wait for an older release. One that has not begun makes way at once; should it not, that is told.
fn waiting_for(world: &World, older: &Release) -> Wait {
    let begun = has_begun(older);
    let older = older.name_any();
    let does = if begun {
        "is under way and finishes or rolls back first"
    } else {
        "has not begun, but has not ended either"
    };
    let wait = Wait::clock(
        Reason::WaitingForRelease,
        format!("{older} {does}; to give it up: kubectl annotate release {older} fairway.dev/abort=now"),
    );
    let made = world.release().metadata.creation_timestamp.as_ref();
    let told_from = made.and_then(|made| made.0.checked_add(MAKES_WAY).ok());
    match told_from {
        Some(told_from) if !begun && world.now < told_from => wait.brief().until(told_from),
        _ => wait,
    }
}

pub(super) fn newer(world: &World) -> Option<String> {
    let revision = world.release().spec.revision;
    world
        .observed
        .siblings
        .iter()
        .filter(|sibling| sibling.spec.revision > revision)
        .map(|sibling| sibling.name_any())
        .next_back()
}

fn unsettled_migration(world: &World) -> Option<Verdict> {
    let unsettled = world.observed.migrations.iter().find(|migration| {
        let outcome = migration.status.as_ref().and_then(|status| status.outcome);
        migration.spec.release.as_deref() != Some(world.name())
            && matches!(
                outcome,
                Some(MigrationOutcome::Unknown | MigrationOutcome::Partial)
            )
    })?;
    Some(Verdict::Wait(Wait::person(
        Reason::MigrationUnresolved,
        format!(
            "what migration {name} did to the database is not settled, so no other may run. {how}",
            name = unsettled.name_any(),
            how = crate::migration::how_to_resolve(unsettled)
        ),
    )))
}

/// Only a migration makes it worth asking beforehand: without one, a refused Deployment has changed nothing.
fn accepted_by_apiserver(world: &World, images: &BTreeMap<String, String>) -> Verdict {
    if world.snapshot.migration.is_none() {
        return Verdict::Met;
    }
    let mut steps = Vec::new();
    for component in &world.snapshot.components {
        let desired = match deployment(&DeploymentInput {
            app: world.app_name(),
            namespace: world.namespace(),
            release: world.release(),
            component,
            images,
            replicas: 0,
            drain: world.snapshot.traffic.drain.get(),
        }) {
            Ok(desired) => desired,
            Err(error) => return Failure::new(Reason::TemplateRefused, error.to_string()).verdict(),
        };
        if let Some(verdict) = super::rollout::refused(world, component, &desired) {
            return verdict;
        }
        steps.extend(world.rehearsal(Object::Deployment(desired)));
    }
    if steps.is_empty() {
        return Verdict::Met;
    }
    let wait = Wait::machine(
        Reason::CheckingTemplates,
        "asking the apiserver whether it would take the pods",
    )
    .until(world.now);
    Verdict::Act(steps, wait)
}

/// What each container should run, by `component/container`: the App's images, and over them those that the
/// Release names.
fn images(world: &World) -> BTreeMap<String, String> {
    let mut images = world.snapshot.images();
    let containers = images
        .keys()
        .cloned()
        .chain(world.snapshot.without_image())
        .collect::<Vec<_>>();
    for container in containers {
        let short = container
            .split_once('/')
            .map_or(container.as_str(), |(_, name)| name);
        let named = &world.release().spec.images;
        if let Some(image) = named.get(&container).or_else(|| named.get(short)) {
            images.insert(container, image.clone());
        }
    }
    images
}

/// Met when every image's digest is known: given, or pulled by a pod, which proves pull secrets and platform
/// as well.
pub fn pinned(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let images = images(world);
    if images
        .keys()
        .all(|container| status.digests.contains_key(container))
    {
        return Verdict::Met;
    }
    let (by_digest, by_tag): (BTreeMap<_, _>, BTreeMap<_, _>) = images
        .into_iter()
        .partition(|(_, image)| image.contains("@sha256:"));
    if by_tag.is_empty() {
        status.digests = by_digest;
        return Verdict::Met;
    }
    let attempt = match attempts::current(status, "Pinned", PIN_DEADLINE, world.now) {
        Ok(attempt) => attempt,
        Err(verdict) => return verdict,
    };
    let desired = agent::pin_pod(world.settings, world.release(), world.snapshot, &by_tag, attempt);
    let existing = world.observed.pods.iter().find(|pod| {
        pod.name_any() == names::pin_pod(world.name(), attempt) && world.owns(pod.owner_references())
    });
    let waiting = Wait::machine(
        Reason::PullingImages,
        format!("pulling {} to learn the digests", list(by_tag.values())),
    );
    let retry = Retry {
        name: "Pinned",
        deadline: PIN_DEADLINE,
        now: world.now,
    };
    let Some(pod) = existing else {
        return attempts::create(world, status, &retry, Object::Pod(desired), waiting);
    };
    match agent::pinned(pod, &by_tag) {
        Pinning::Pinned(pinned) => {
            status.digests = by_digest.into_iter().chain(pinned).collect();
            attempts::forget(status, "Pinned");
            Verdict::Met
        }
        Pinning::Waiting {
            reason,
            message,
            is_final: true,
        } => Failure::new(reason, message).verdict(),
        Pinning::Waiting {
            reason,
            message,
            is_final: false,
        } => {
            attempts::note(status, "Pinned", reason, &message);
            // The kubelet tries again by itself, with a backoff of its own.
            match attempts::deadline(status, "Pinned", PIN_DEADLINE) {
                Some(deadline) if world.now >= deadline => Failure::new(
                    Reason::ImagePullFailed,
                    format!(
                        "{message}; not pulled within {}",
                        crate::conditions::duration(PIN_DEADLINE)
                    ),
                )
                .verdict(),
                deadline => {
                    let wait = Wait::machine(Reason::ImagePullFailed, message);
                    Verdict::Wait(Wait {
                        until: deadline,
                        ..wait
                    })
                }
            }
        }
        Pinning::Lost { message } => attempts::failed(
            status,
            &retry,
            Reason::PodLost,
            &message,
            ObjectRef::of(Kind::Pod, &pod.metadata),
        ),
        Pinning::Pulling => attempts::overdue(status, &retry).unwrap_or_else(|| {
            let until = attempts::deadline(status, "Pinned", PIN_DEADLINE);
            Verdict::Wait(Wait { until, ..waiting })
        }),
    }
}

fn list<'a>(images: impl Iterator<Item = &'a String>) -> String {
    let mut images: Vec<_> = images.map(String::as_str).collect();
    images.sort_unstable();
    images.dedup();
    images.join(", ")
}

/// Met when the database is reachable and fit, and the backup store can be written.
pub fn preflighted(world: &World, status: &mut ReleaseStatus) -> Verdict {
    let past = super::world::happened(status, MilestoneKind::Migrating).is_some();
    if world.snapshot.database.is_none() || past || !status.evidence.preflight.is_empty() {
        return Verdict::Met;
    }
    let attempt = match attempts::current(status, "Preflighted", PREFLIGHT_DEADLINE, world.now) {
        Ok(attempt) => attempt,
        Err(verdict) => return verdict,
    };
    let retry = Retry {
        name: "Preflighted",
        deadline: PREFLIGHT_DEADLINE,
        now: world.now,
    };
    let name = names::preflight_job(world.name(), attempt);
    let job = world
        .observed
        .jobs
        .iter()
        .find(|job| job.name_any() == name && world.owns(job.owner_references()));
    let waiting = Wait::machine(
        Reason::CheckingDatabase,
        "checking that the database is reachable and fit for this release",
    );
    let Some(job) = job else {
        let store = world
            .today()
            .and_then(|today| today.backup)
            .map(|backup| backup.store);
        let job = agent::preflight_job(
            world.settings,
            world.release(),
            world.snapshot,
            store.as_ref(),
            attempt,
        );
        return attempts::create(world, status, &retry, Object::Job(job), waiting);
    };
    let used = ObjectRef::of(Kind::Job, &job.metadata);
    match agent::job_report::<PreflightReport>(Some(job), &world.observed.pods, &name) {
        Outcome::Reported(PreflightReport {
            failure: None,
            checks,
            ..
        }) => {
            status.evidence.preflight = checks
                .into_iter()
                .map(|(name, passed)| CheckVerdict { name, passed })
                .collect();
            attempts::forget(status, "Preflighted");
            Verdict::Met
        }
        Outcome::Reported(PreflightReport {
            failure: Some(failure),
            ..
        }) => match failure.cause {
            Cause::Environment => attempts::failed(status, &retry, failure.reason(), &failure.message, used),
            Cause::Version => Failure::new(failure.reason(), failure.message).verdict(),
        },
        Outcome::Lost { reason } => attempts::failed(
            status,
            &retry,
            Reason::PodLost,
            &format!("the checking pod ended without an answer: {reason}"),
            used,
        ),
        Outcome::Running {
            waiting: Some((_, message)),
        } => {
            attempts::note(status, "Preflighted", Reason::PodNotStarting, &message);
            attempts::overdue(status, &retry).unwrap_or_else(|| {
                let until = attempts::deadline(status, "Preflighted", PREFLIGHT_DEADLINE);
                Verdict::Wait(Wait {
                    until,
                    ..Wait::machine(Reason::PodNotStarting, message)
                })
            })
        }
        Outcome::NotThere | Outcome::Running { waiting: None } => attempts::overdue(status, &retry)
            .unwrap_or_else(|| {
                let until = attempts::deadline(status, "Preflighted", PREFLIGHT_DEADLINE);
                Verdict::Wait(Wait { until, ..waiting })
            }),
    }
}
