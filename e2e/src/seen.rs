//! What a user sees of Fairway's objects, and waits for it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use fairway_crds::release::{Milestone, MilestoneKind, ReleaseOutcome};
use fairway_crds::{App, Release};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};

use crate::context::Context;
use crate::wait::wait_for;

/// The label of everything that belongs to an App.
pub const APP: &str = "fairway.dev/app";
/// Label with the name of the component.
pub const COMPONENT: &str = "fairway.dev/component";
/// Label with the name of the Release.
pub const RELEASE: &str = "fairway.dev/release";
/// The label of what an agent's pod does.
pub const WORK: &str = "fairway.dev/work";

/// A condition by its type.
#[must_use]
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// A condition of an App.
#[must_use]
pub fn app_condition<'a>(app: &'a App, kind: &str) -> Option<&'a Condition> {
    condition(&app.status.as_ref()?.conditions, kind)
}

/// A condition of a Release.
#[must_use]
pub fn release_condition<'a>(release: &'a Release, kind: &str) -> Option<&'a Condition> {
    condition(&release.status.as_ref()?.conditions, kind)
}

/// Whether a condition is `True`.
#[must_use]
pub fn holds(condition: Option<&Condition>) -> bool {
    condition.is_some_and(|condition| condition.status == "True")
}

/// How a Release ended, if it has.
#[must_use]
pub fn outcome(release: &Release) -> Option<ReleaseOutcome> {
    release.status.as_ref()?.outcome
}

/// The reason that `Succeeded` gives.
#[must_use]
pub fn reason(release: &Release) -> &str {
    release_condition(release, "Succeeded").map_or("", |condition| condition.reason.as_str())
}

/// Message of the condition `Succeeded`.
#[must_use]
pub fn message(release: &Release) -> &str {
    release_condition(release, "Succeeded").map_or("", |condition| condition.message.as_str())
}

/// A milestone of a Release.
#[must_use]
pub fn milestone(release: &Release, kind: MilestoneKind) -> Option<&Milestone> {
    let milestones = &release.status.as_ref()?.milestones;
    milestones.iter().find(|milestone| milestone.kind == kind)
}

/// The Release that an App serves.
#[must_use]
pub fn live(app: &App) -> Option<&str> {
    Some(&app.status.as_ref()?.live.as_ref()?.release)
}

/// The Release that a Service selects.
#[must_use]
pub fn selected(service: &Service) -> Option<&str> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    selector.get(RELEASE).map(String::as_str)
}

/// Waits until a Release is as desired.
///
/// # Errors
/// When it is not within the deadline.
pub async fn release(
    context: &Context,
    name: &str,
    what: &str,
    predicate: impl FnMut(&Release) -> bool,
    deadline: Duration,
) -> Result<Release> {
    wait_for(context.api::<Release>(), name, what, predicate, deadline).await
}

/// Waits until a Release has ended, and fails unless it ended so.
///
/// # Errors
/// When it has not ended within the deadline, or otherwise.
pub async fn ended(
    context: &Context,
    name: &str,
    desired: ReleaseOutcome,
    deadline: Duration,
) -> Result<Release> {
    let release = release(
        context,
        name,
        "to end",
        |release| outcome(release).is_some(),
        deadline,
    )
    .await?;
    if outcome(&release) != Some(desired) {
        bail!(
            "{name} should have ended {desired:?}: {}",
            serde_saphyr::to_string(&release)?
        );
    }
    Ok(release)
}

/// Waits until a Release has failed, and fails unless it gives this reason.
///
/// # Errors
/// When it has not ended within the deadline, or otherwise.
pub async fn failed(context: &Context, name: &str, desired: &str, deadline: Duration) -> Result<Release> {
    let release = ended(context, name, ReleaseOutcome::Failed, deadline).await?;
    let reason = reason(&release);
    ensure!(
        reason == desired,
        "{name} should have failed for {desired}: {reason}: {}",
        message(&release)
    );
    Ok(release)
}

/// Waits until a Release waits for this reason.
///
/// # Errors
/// When it does not within the deadline.
pub async fn waits(context: &Context, name: &str, desired: &str, deadline: Duration) -> Result<Release> {
    let what = format!("to wait for {desired}");
    release(
        context,
        name,
        &what,
        |release| reason(release) == desired,
        deadline,
    )
    .await
}

/// Waits until a milestone of a Release is recorded.
///
/// # Errors
/// When it is not within the deadline.
pub async fn reaches(
    context: &Context,
    name: &str,
    kind: MilestoneKind,
    deadline: Duration,
) -> Result<Release> {
    let what = format!("the milestone {kind:?}");
    release(
        context,
        name,
        &what,
        |release| milestone(release, kind).is_some(),
        deadline,
    )
    .await
}

/// Waits until an App is as desired.
///
/// # Errors
/// When it is not within the deadline.
pub async fn app(
    context: &Context,
    name: &str,
    what: &str,
    predicate: impl FnMut(&App) -> bool,
    deadline: Duration,
) -> Result<App> {
    wait_for(context.api::<App>(), name, what, predicate, deadline).await
}

/// Waits until a controller has seen the newest spec of an App and said so.
///
/// # Errors
/// When it has not within the deadline.
pub async fn observed(context: &Context, name: &str, deadline: Duration) -> Result<App> {
    let seen = |app: &App| {
        app.status.as_ref().and_then(|status| status.observed_generation) == app.metadata.generation
    };
    app(
        context,
        name,
        "its newest generation to be observed",
        seen,
        deadline,
    )
    .await
}

/// Waits until a Service selects a Release.
///
/// # Errors
/// When it does not within the deadline.
pub async fn selects(context: &Context, service: &str, release: &str, deadline: Duration) -> Result<Service> {
    let what = format!("to select {release}");
    wait_for(
        context.api::<Service>(),
        service,
        &what,
        |service| selected(service) == Some(release),
        deadline,
    )
    .await
}

/// The names of all objects of a kind that belong to an App, sorted.
///
/// # Errors
/// When the API server does not answer.
pub async fn names_of<K>(context: &Context, app: &str) -> Result<Vec<String>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let all = context
        .api::<K>()
        .list(&ListParams::default().labels(&format!("{APP}={app}")))
        .await?;
    let mut names: Vec<_> = all.items.iter().map(ResourceExt::name_any).collect();
    names.sort();
    Ok(names)
}

/// How many Releases an App has.
///
/// # Errors
/// When the API server does not answer.
pub async fn releases(context: &Context, app: &str) -> Result<Vec<Release>> {
    let all = context.api::<Release>().list(&ListParams::default()).await?;
    let mut releases: Vec<_> = all
        .items
        .into_iter()
        .filter(|release| release.spec.app == app)
        .collect();
    releases.sort_by_key(|release| release.spec.revision);
    Ok(releases)
}
