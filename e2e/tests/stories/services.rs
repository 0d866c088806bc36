//! Services that somebody else has made, or whose selector somebody else sets.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use fairway_crds::component::Serves;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{App, Release};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::manifest::{self, MANAGER};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{seen, wait};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::SOON;

/// Applies a Service as the team's own tool does, with this selector or without any. What its manifest had before
/// and has no more, it fails.
async fn team_applies(
    context: &Context,
    name: &str,
    selector: Option<&BTreeMap<String, String>>,
) -> Result<()> {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": {"example.com/owner": "team"}},
        "spec": {"ports": [{"name": "team", "port": 8080, "protocol": "TCP", "targetPort": 3000}]},
    });
    if let Some(selector) = selector {
        service["spec"]["selector"] = json!(selector);
    }
    manifest::apply_object(context, service).await?;
    Ok(())
}

/// What the Service of another application selects.
fn legacy() -> BTreeMap<String, String> {
    [("app".to_owned(), "legacy".to_owned())].into()
}

async fn selector(context: &Context, service: &str) -> Result<BTreeMap<String, String>> {
    let service = context.api::<Service>().get(service).await?;
    Ok(service.spec.unwrap_or_default().selector.unwrap_or_default())
}

/// The release waits for a user, and says which Service is whose.
async fn is_refused(context: &Context, release: &str, service: &str) -> Result<Release> {
    let refused = seen::waits(context, release, "ServiceRefused", crm::PATIENCE).await?;
    let message = seen::message(&refused);
    ensure!(
        message.contains(&format!("Service {service} "))
            && message.contains(&format!("\"{MANAGER}\""))
            && message.contains("Remove spec.selector"),
        "{message}"
    );
    ensure!(
        seen::holds(seen::release_condition(&refused, "Stalled")),
        "no condition says that a user must act"
    );
    ensure!(
        seen::milestone(&refused, MilestoneKind::TrafficMoved).is_none(),
        "traffic has moved"
    );
    Ok(refused)
}

/// The release has succeeded, and the Service selects it.
async fn serves(context: &Context, service: &str, release: &str) -> Result<Service> {
    seen::ended(context, release, ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    seen::selects(context, service, release, SOON).await
}

/// Of the Service that a team brought Fairway has taken the selector and nothing else.
fn is_still_the_teams(service: &Service) -> Result<()> {
    let ports: Vec<_> = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
        .map(|port| (port.name.as_deref(), port.port))
        .collect();
    ensure!(ports == [(Some("team"), 8080)], "{ports:?}");
    ensure!(service.owner_references().is_empty(), "the App owns it");
    let owner = service.annotations().get("example.com/owner");
    ensure!(owner.is_some_and(|owner| owner == "team"), "{owner:?}");
    Ok(())
}

/// An App whose Service selects another application's pods, because another manager says so.
async fn refused(context: &Context, name: &str) -> Result<()> {
    team_applies(context, name, Some(&legacy())).await?;
    apps::apply(context, &small::app(context, name, "v1")?).await?;
    is_refused(context, &format!("{name}-1"), name).await?;
    let selected = selector(context, name).await?;
    ensure!(selected == legacy(), "Service {name} selects {selected:?}");
    Ok(())
}

async fn goes_on_when_the_other_gives_it_up(context: &Context) -> Result<()> {
    refused(context, "given-up").await?;
    team_applies(context, "given-up", None).await?;
    is_still_the_teams(&serves(context, "given-up", "given-up-1").await?)
}

async fn goes_on_when_the_service_is_removed(context: &Context) -> Result<()> {
    refused(context, "removed").await?;
    context
        .api::<Service>()
        .delete("removed", &DeleteParams::default())
        .await?;
    let made = serves(context, "removed", "removed-1").await?;
    ensure!(made.owner_references().len() == 1, "Fairway has not made it");
    Ok(())
}

async fn takes_over_one_without_a_selector(context: &Context) -> Result<()> {
    team_applies(context, "bare", None).await?;
    apps::apply(context, &small::app(context, "bare", "v1")?).await?;
    is_still_the_teams(&serves(context, "bare", "bare-1").await?)
}

/// As docs/gitops.md says: Fairway's manager owns the selector as it is, then the team's manifest loses it.
async fn takes_over_one_that_serves(context: &Context) -> Result<()> {
    team_applies(context, "handed-over", Some(&legacy())).await?;
    let shared: Value = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "handed-over"},
        "spec": {"selector": legacy()},
    });
    context
        .api::<Service>()
        .patch(
            "handed-over",
            &PatchParams::apply("fairway"),
            &Patch::Apply(&shared),
        )
        .await?;
    team_applies(context, "handed-over", None).await?;
    let kept = selector(context, "handed-over").await?;
    ensure!(kept == legacy(), "the hand-over left a gap: {kept:?}");
    apps::apply(context, &small::app(context, "handed-over", "v1")?).await?;
    is_still_the_teams(&serves(context, "handed-over", "handed-over-1").await?)
}

#[tokio::test]
async fn selector_of_another_manager_is_kept_and_a_free_one_taken() -> Result<()> {
    with_temp_ns(|context| async move {
        let (given_up, removed, bare, handed_over) = tokio::join!(
            goes_on_when_the_other_gives_it_up(&context),
            goes_on_when_the_service_is_removed(&context),
            takes_over_one_without_a_selector(&context),
            takes_over_one_that_serves(&context),
        );
        given_up.context("the selector is given up")?;
        removed.context("the Service is removed")?;
        bare.context("the Service has no selector")?;
        handed_over.context("the selector is handed over")
    })
    .await
}

/// `shop` with a second component `api`, which serves under `shop-api`.
fn two_services(context: &Context) -> Result<App> {
    let mut app = small::app(context, "shop", "v1")?;
    let mut api = apps::component(&mut app, "web").clone();
    "api".clone_into(&mut api.name);
    api.serves = Some(Serves {
        service: "shop-api".to_owned(),
        ..api.serves.context("web serves nothing")?
    });
    app.spec.components.push(api);
    Ok(app)
}

#[tokio::test]
async fn of_two_services_neither_is_switched_until_both_can_be() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = two_services(&context)?;
        apps::apply(&context, &app).await?;
        serves(&context, "shop", "shop-1").await?;
        seen::selects(&context, "shop-api", "shop-1", SOON).await?;

        let taken = selector(&context, "shop-api").await?;
        team_applies(&context, "shop-api", Some(&taken)).await?;
        for component in ["web", "api"] {
            apps::set_image(&mut app, component, &context.target.image_by_digest("crm", "v2")?);
        }
        apps::apply(&context, &app).await?;
        is_refused(&context, "shop-2", "shop-api").await?;
        for service in ["shop", "shop-api"] {
            let found = context.api::<Service>().get(service).await?;
            let selected = seen::selected(&found);
            ensure!(selected == Some("shop-1"), "{service} selects {selected:?}");
        }

        team_applies(&context, "shop-api", None).await?;
        serves(&context, "shop", "shop-2").await?;
        seen::selects(&context, "shop-api", "shop-2", SOON).await?;
        Ok(())
    })
    .await
}

/// Renames the Service of an App that serves as `name` to `<name>-new`, with a new version.
async fn renamed(context: &Context, name: &str) -> Result<Release> {
    let mut app = small::app(context, name, "v1")?;
    apps::apply(context, &app).await?;
    serves(context, name, &format!("{name}-1")).await?;
    let new = format!("{name}-new");
    let serves_as = apps::component(&mut app, "web").serves.as_mut();
    serves_as.context("web serves nothing")?.service.clone_from(&new);
    small::set_version(context, &mut app, "v2")?;
    apps::apply(context, &app).await?;
    serves(context, &new, &format!("{name}-2")).await?;
    Ok(context.api::<Release>().get(&format!("{name}-2")).await?)
}

/// W3: the release does not wait for the Service of the old name. It deletes the one that Fairway created.
async fn deletes_the_service_that_fairway_created(context: &Context) -> Result<()> {
    renamed(context, "moved").await?;
    wait::wait_gone(context.api::<Service>(), "moved", SOON).await
}

/// W3: one that the team brought is named, and left alone.
async fn leaves_the_service_of_a_team(context: &Context) -> Result<()> {
    team_applies(context, "kept", None).await?;
    let release = renamed(context, "kept").await?;
    let message = seen::message(&release);
    ensure!(
        message.contains("Service kept, which Fairway did not create, still selects kept-1"),
        "{message}"
    );
    is_still_the_teams(&context.api::<Service>().get("kept").await?)
}

#[tokio::test]
async fn w3_service_that_no_component_serves_any_more_is_not_waited_for() -> Result<()> {
    with_temp_ns(|context| async move {
        let (own, of_a_team) = tokio::join!(
            deletes_the_service_that_fairway_created(&context),
            leaves_the_service_of_a_team(&context),
        );
        own.context("the Service is Fairway's")?;
        of_a_team.context("the Service is the team's")
    })
    .await
}
