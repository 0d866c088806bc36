//! Accepted: nothing of this App is in the way, and the API server accepts the new pods.

use crate::Object;
use crate::build::deployment::{DeploymentInput, deployment};
use crate::kubectl;
use crate::message::sentence;
use crate::release::history::{has_begun, has_ended, live, newer};
use crate::release::images::images;
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use crate::release::{claims, workloads};
use fairway_crds::Reason;
use fairway_crds::Release;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{ReleaseOutcome, ReleaseStatus};
use jiff::SignedDuration;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Time in which a release that has not begun is superseded by a newer one; only a wait that lasts longer is shown.
const SUPERSEDED_WITHIN: SignedDuration = SignedDuration::from_secs(5);

/// Met when the spec is valid, no other release of this App is under way past the point where it could
/// simply be dropped, no migration of its database is unsettled, and the pods could run beside those of another
/// version where they have to.
pub(in crate::release) fn climb(view: &View, status: &mut ReleaseStatus) -> Verdict {
    if has_begun(view.release()) {
        return Verdict::Met;
    }
    if let Some(newer) = newer(view) {
        return Verdict::Fail(Failure {
            outcome: ReleaseOutcome::Superseded,
            ..Failure::new(Reason::Superseded, format!("{newer} superseded {}.", view.name()))
        });
    }
    if let Some(older) = view
        .observed
        .siblings
        .iter()
        .find(|sibling| sibling.spec.revision < view.release().spec.revision && !has_ended(sibling))
    {
        return Verdict::Wait(waiting_for(view, older));
    }
    if view.suspended() {
        return Verdict::Wait(view.held("it begins"));
    }
    if let Some(verdict) = unsettled_migration(view) {
        return verdict;
    }
    if status.previous.is_none() {
        let siblings = view
            .observed
            .siblings
            .iter()
            .filter(|sibling| view.is_of_this_app(sibling));
        status.previous = live(siblings).map(|release| release.name_any());
    }
    let images = images(view);
    let missing: Vec<_> = view
        .snapshot
        .without_image()
        .into_iter()
        .filter(|container| !images.contains_key(container))
        .collect();
    if !missing.is_empty() {
        return Failure::new(
            Reason::ImageMissing,
            format!(
                "No image is named for {}. Name one in spec.images of the Release, or in the template of the App.",
                missing.join(", ")
            ),
        )
        .verdict();
    }
    if let Some(failure) = claims::not_shared(view.snapshot, &view.observed.claims) {
        return failure.verdict();
    }
    accepted_by_api_server(view, &images)
}

/// The wait for an older release. One that has not begun is superseded at once; should it not be, the wait is shown.
fn waiting_for(view: &View, older: &Release) -> Wait {
    let begun = has_begun(older);
    let older = older.name_any();
    let does = if begun {
        "is in progress and must finish or be rolled back first"
    } else {
        "has not started yet and has not ended"
    };
    let wait = Wait::clock(
        Reason::WaitingForRelease,
        format!(
            "Waiting for Release {older}, which {does}. To abort it: {}",
            kubectl::abort(view.namespace(), &older)
        ),
    );
    let created = view.release().metadata.creation_timestamp.as_ref();
    let shown_from = created.and_then(|created| created.0.checked_add(SUPERSEDED_WITHIN).ok());
    match shown_from {
        Some(shown_from) if !begun && view.now < shown_from => wait.brief().until(shown_from),
        _ => wait,
    }
}

fn unsettled_migration(view: &View) -> Option<Verdict> {
    let unsettled = view.observed.migrations.iter().find(|migration| {
        let outcome = migration.status.as_ref().and_then(|status| status.outcome);
        migration.spec.release.as_deref() != Some(view.name())
            && matches!(
                outcome,
                Some(MigrationOutcome::Unknown | MigrationOutcome::Partial)
            )
    })?;
    Some(Verdict::Wait(Wait::user(
        Reason::MigrationUnresolved,
        format!(
            "Migration {name} is not resolved, so no other migration of this database may run. {how}",
            name = unsettled.name_any(),
            how = crate::migration::how_to_resolve(unsettled)
        ),
    )))
}

/// Only a migration makes it worth asking beforehand: without one, a refused Deployment has changed nothing.
fn accepted_by_api_server(view: &View, images: &BTreeMap<String, String>) -> Verdict {
    if view.snapshot.migration.is_none() {
        return Verdict::Met;
    }
    let mut steps = Vec::new();
    for component in &view.snapshot.components {
        let desired = match deployment(&DeploymentInput {
            app: view.app_name(),
            namespace: view.namespace(),
            release: view.release(),
            component,
            images,
            replicas: 0,
            drain: view.snapshot.traffic.drain.get(),
        }) {
            Ok(desired) => desired,
            Err(error) => {
                return Failure::new(Reason::TemplateRefused, sentence(&error.to_string())).verdict();
            }
        };
        if let Some(verdict) = workloads::refused(view, component, &desired) {
            return verdict;
        }
        steps.extend(view.answers().dry_run(Object::Deployment(desired)));
    }
    if steps.is_empty() {
        return Verdict::Met;
    }
    let wait = Wait::machine(
        Reason::CheckingTemplates,
        "Asking the API server whether it accepts the new pods.",
    )
    .until(view.now);
    Verdict::Act(steps, wait)
}
