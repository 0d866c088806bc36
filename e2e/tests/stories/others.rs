//! What others do to objects of Fairway's, or have made beside them.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::wait::{is_rolled_out, wait_for, wait_for_all};
use fairway_e2e::{manifest, seen};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::SOON;

/// Another client patches a Deployment under this name.
async fn patch(context: &Context, deployment: &str, manager: &str, change: Value) -> Result<Deployment> {
    let parameters = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    let patched = context
        .api::<Deployment>()
        .patch(deployment, &parameters, &Patch::Strategic(change))
        .await;
    patched.with_context(|| format!("patch Deployment {deployment} as {manager}"))
}

/// Image of each container of a Deployment.
fn images(deployment: &Deployment) -> Vec<&str> {
    let pods = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let containers = pods.into_iter().flat_map(|pods| &pods.containers);
    containers
        .filter_map(|container| container.image.as_deref())
        .collect()
}

fn is_reported(event: &Event, manager: &str) -> bool {
    let message = event.message.as_deref().unwrap_or_default();
    event.reason.as_deref() == Some("ChangeReverted")
        && message.contains("Deployment shop-web-1 ")
        && message.contains(manager)
}

/// S14: `kubectl set image` and a container that `kubectl edit` adds are reverted, `kubectl rollout restart` is not.
#[tokio::test]
async fn s14_changes_of_other_managers_are_reverted_and_reported() -> Result<()> {
    with_temp_ns(|context| async move {
        apps::apply(&context, &small::app(&context, "shop", "v1")?).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let released = context.target.image_by_digest("crm", "v1")?;
        let other = context.target.image_by_digest("crm", "v2")?;
        let released = [released.as_str()];

        let restarted = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T12:00:00Z"});
        let restart = json!({"spec": {"template": {"metadata": {"annotations": restarted}}}});
        let generation = patch(&context, "shop-web-1", "kubectl-rollout", restart)
            .await?
            .metadata
            .generation;
        let rolled_out = wait_for(
            context.api::<Deployment>(),
            "shop-web-1",
            "the restarted pods to be available",
            is_rolled_out,
            crm::PATIENCE,
        )
        .await?;
        ensure!(
            rolled_out.metadata.generation == generation,
            "the restart was reverted"
        );

        let set_image =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": other}]}}}});
        let add =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "added", "image": other}]}}}});
        for (manager, change) in [("kubectl-set", set_image), ("kubectl-edit", add)] {
            patch(&context, "shop-web-1", manager, change).await?;
            let reverted = wait_for(
                context.api::<Deployment>(),
                "shop-web-1",
                "what the Release releases, and nothing else",
                |deployment: &Deployment| images(deployment) == released && is_rolled_out(deployment),
                crm::PATIENCE,
            )
            .await?;
            ensure!(
                reverted.labels().get("fairway.dev/release").map(String::as_str) == Some("shop-1"),
                "{:?}",
                reverted.labels()
            );
            wait_for_all(
                context.api::<Event>(),
                watcher::Config::default(),
                &format!("an Event that names {manager}"),
                |events: &[Event]| events.iter().any(|event| is_reported(event, manager)),
                SOON,
            )
            .await?;
        }
        seen::selects(&context, "shop", "shop-1", SOON).await?;
        Ok(())
    })
    .await
}

/// The Service of the team, without a selector, with a port 80 that leads there.
async fn service(context: &Context, name: &str, target_port: Value) -> Result<()> {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": target_port}]},
    });
    manifest::apply_object(context, service).await?;
    Ok(())
}

/// F13: the team's Service leads to a named port that no container has. Nothing is started for it; corrected, a retry
/// succeeds.
#[tokio::test]
async fn f13_a_service_that_leads_to_another_port_is_refused() -> Result<()> {
    with_temp_ns(|context| async move {
        service(&context, "shop", json!("http")).await?;
        apps::apply(&context, &small::app(&context, "shop", "v1")?).await?;
        let failed = seen::failed(&context, "shop-1", "ServiceRefused", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        for part in [
            "Port 80 of Service shop",
            "the port named http",
            "spec.ports[0].targetPort",
            "3000",
        ] {
            ensure!(message.contains(part), "{part} is missing: {message}");
        }
        let started = seen::names_of::<Deployment>(&context, "shop").await?;
        ensure!(started.is_empty(), "{started:?}");

        service(&context, "shop", json!(3000)).await?;
        apps::say(&context, "shop-1", "fairway.dev/retry", "corrected").await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::selects(&context, "shop", "shop-2", SOON).await?;
        Ok(())
    })
    .await
}

/// Puts a slice beside those of Service `shop`, which Kubernetes did not make.
async fn make_slice(context: &Context) -> Result<()> {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "shop-by-hand", "labels": {"kubernetes.io/service-name": "shop"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.77"], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 3000, "protocol": "TCP"}],
    });
    manifest::apply_object(context, slice).await.map(|_| ())
}

/// Waits until the release names that slice, with the command that removes it.
async fn slice_is_named(context: &Context, release: &str) -> Result<()> {
    let waiting = seen::waits(context, release, "ServiceRefused", crm::PATIENCE).await?;
    let message = seen::message(&waiting);
    let command = format!(
        "kubectl -n {} delete endpointslice shop-by-hand",
        context.namespace
    );
    for part in [
        "EndpointSlice shop-by-hand",
        "Service shop",
        "192.0.2.77",
        &command,
    ] {
        ensure!(message.contains(part), "{part} is missing: {message}");
    }
    Ok(())
}

async fn delete_slice(context: &Context) -> Result<()> {
    let slices = context.api::<EndpointSlice>();
    slices.delete("shop-by-hand", &DeleteParams::default()).await?;
    Ok(())
}

/// F14: somebody makes an EndpointSlice beside those of the Service, before the switch and again in the bake. It is named with
/// the command that removes it; then the release continues by itself.
#[tokio::test]
async fn f14_a_slice_made_by_hand_is_found_before_the_switch_and_in_the_bake() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        make_slice(&context).await?;
        small::set_version(&context, &mut app, "v2")?;
        apps::set_bake(&mut app, 10);
        apps::apply(&context, &app).await?;
        slice_is_named(&context, "shop-2").await?;
        seen::selects(&context, "shop", "shop-1", SOON).await?;

        delete_slice(&context).await?;
        seen::waits(&context, "shop-2", "Baking", crm::PATIENCE).await?;
        make_slice(&context).await?;
        slice_is_named(&context, "shop-2").await?;

        delete_slice(&context).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::selects(&context, "shop", "shop-2", SOON).await?;
        Ok(())
    })
    .await
}
