//! Accepted: nothing of this App is in the way, and the API server accepts the new pods.

use crate::kubectl::{self, Resource};
use crate::release::acceptance::{self, Ask};
use crate::release::history::{happened, has_begun, has_ended, is_taken_over, live, superseded};
use crate::release::images::{for_no_container, images};
use crate::release::verdict::{Failure, Verdict, Wait};
use crate::release::view::View;
use crate::release::{claims, legacy, quotas, traffic};
use fairway_crds::Reason;
use fairway_crds::Release;
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseStatus};
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
    if let Some(failure) = superseded(view) {
        return failure.verdict();
    }
    if let Some(older) = view
        .observed
        .siblings
        .iter()
        .filter(|sibling| sibling.spec.revision < view.release().spec.revision && !has_ended(sibling))
        .find(|sibling| !is_taken_over(sibling, view.name()))
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
    if let Some(failure) = for_no_container(view) {
        return failure.verdict();
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
    if let Some(failure) = traffic::unfit(view) {
        return failure.verdict();
    }
    if let Some(wait) = traffic::hindered(view) {
        return Verdict::Wait(wait);
    }
    status.on_one_node = claims::on_one_node(view.snapshot, &view.observed.claims);
    accepted_by_api_server(view, status, &images)
}

/// The wait for an older release. One that has not begun is superseded at once; should it not be, the wait is shown.
fn waiting_for(view: &View, older: &Release) -> Wait {
    let begun = has_begun(older);
    let rolls_back = older
        .status
        .as_ref()
        .is_some_and(|status| happened(status, MilestoneKind::RollingBack).is_some());
    let migrates = older.status.as_ref().is_some_and(|status| {
        happened(status, MilestoneKind::Migrating).is_some()
            && happened(status, MilestoneKind::Migrated).is_none()
    });
    let older = older.name_any();
    if migrates && !rolls_back {
        // An abort would wait for the end of the migration too.
        return Wait::clock(
            Reason::WaitingForRelease,
            format!(
                "Waiting for Release {older}, whose migration has not ended. For details: {}",
                kubectl::describe(view.namespace(), Resource::Release(&older))
            ),
        );
    }
    if rolls_back {
        return Wait::clock(
            Reason::WaitingForRelease,
            format!(
                "Waiting for Release {older}, which is being rolled back. If its previous version is not ready within ten \
                 minutes, this release takes over."
            ),
        );
    }
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

/// Asked beforehand where a refusal would be found too late: after a migration, or when the previous pods of a component
/// are gone. Otherwise a refused Deployment has changed nothing.
fn accepted_by_api_server(
    view: &View,
    status: &mut ReleaseStatus,
    images: &BTreeMap<String, String>,
) -> Verdict {
    let stopping = view.stopping(status);
    let names: Vec<_> = stopping.iter().map(|component| component.name.as_str()).collect();
    let runs = status.previous.is_some() || legacy::of(view, &names).next().is_some();
    let stops = runs && !names.is_empty();
    if view.snapshot.migration.is_none() && !stops {
        return Verdict::Met;
    }
    // Once the images are pinned, later rungs ask with the digests: asked in turns, each would forget the other's answer.
    if view.snapshot.migration.is_none() && !status.digests.is_empty() {
        return Verdict::Met;
    }
    let components: Vec<_> = view.snapshot.components.iter().collect();
    quotas::exceeded(view, status)
        .or_else(|| acceptance::asked(view, status, Ask::DeploymentsAndPods, &components, images))
        .or_else(|| traffic::asked(view))
        .unwrap_or(Verdict::Met)
}
