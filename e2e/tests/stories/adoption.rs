//! A team with a running Deployment, Service and worker follows docs/adoption.md, and goes back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::{App, Release};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::load::{self, Load, assert_going_well, assert_none_failed, report::Report};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{self, Behaviour};
use fairway_e2e::wait::{is_rolled_out, wait_for, wait_for_all, wait_gone};
use fairway_e2e::{manifest, seen};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::SOON;

/// The team's own Deployment of a component, one pod of which the Service may select by its label `app`.
async fn old_deployment(context: &Context, app: &mut App, component: &str, args: &[&str]) -> Result<()> {
    let name = format!("old-{component}");
    let mut template = apps::component(app, component).template.clone();
    template["metadata"] = json!({"labels": {"app": name}});
    template["spec"]["containers"][0]["args"] = json!(args);
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
    });
    manifest::apply_object(context, deployment).await?;
    available(context, &name).await
}

async fn available(context: &Context, deployment: &str) -> Result<()> {
    let deployments = context.api::<Deployment>();
    let what = "every replica to be available";
    wait_for(deployments, deployment, what, is_rolled_out, crm::PATIENCE).await?;
    Ok(())
}

/// The manifest of the team's Service.
fn service(selector: Option<&Value>) -> Value {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "crm"},
        "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 3000}]},
    });
    if let Some(selector) = selector {
        service["spec"]["selector"] = selector.clone();
    }
    service
}

async fn patch(context: &Context, deployment: &str, patch: Value) -> Result<()> {
    let patched = context
        .api::<Deployment>()
        .patch(deployment, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    patched.with_context(|| format!("patch Deployment {deployment}"))?;
    Ok(())
}

async fn scale(context: &Context, deployment: &str, replicas: i32) -> Result<()> {
    patch(context, deployment, json!({"spec": {"replicas": replicas}})).await
}

async fn label(
    context: &Context,
    deployment: &str,
    app: Option<&str>,
    component: Option<&str>,
) -> Result<()> {
    let labels = json!({"fairway.dev/app": app, "fairway.dev/component": component});
    patch(context, deployment, json!({"metadata": {"labels": labels}})).await
}

async fn selector(context: &Context) -> Result<BTreeMap<String, String>> {
    let service = context.api::<Service>().get("crm").await?;
    Ok(service.spec.unwrap_or_default().selector.unwrap_or_default())
}

/// A Deployment of the team is at 0, and says how many pods it had.
async fn is_taken_over(context: &Context, deployment: &str) -> Result<()> {
    let found = context.api::<Deployment>().get(deployment).await?;
    let before = found.annotations().get("fairway.dev/replicas").cloned();
    let replicas = found.spec.and_then(|spec| spec.replicas);
    ensure!(
        replicas == Some(0) && before.as_deref() == Some("1"),
        "{deployment}: {replicas:?}, {before:?}"
    );
    Ok(())
}

/// The pods with these labels are gone.
async fn gone(context: &Context, labels: &str) -> Result<()> {
    let config = watcher::Config::default().labels(labels);
    let what = format!("no pod with {labels}");
    wait_for_all(
        context.api::<Pod>(),
        config,
        &what,
        <[Pod]>::is_empty,
        crm::PATIENCE,
    )
    .await?;
    Ok(())
}

/// When a version answered first, or up to the time that the report took earlier; `asked` is when the report was asked for.
fn first_answer(report: &Report, version: &str, asked: Timestamp) -> Result<Timestamp> {
    let seen = report
        .versions
        .get(version)
        .with_context(|| format!("{version} never answered"))?;
    let before = report.elapsed_ms.saturating_sub(seen.first_ms);
    Ok(asked - Duration::from_millis(before))
}

/// F15: no request is lost on the way in and on the way back, no user reaches the candidate before its gate, and workers
/// of two versions never work at once.
#[tokio::test]
async fn f15_a_team_moves_to_fairway_and_back_without_a_gap() -> Result<()> {
    with_temp_ns(|context| async move {
        // What runs before Fairway.
        volumes::claim(&context, "backups", "1Gi", Behaviour::Good).await?;
        crm::database(&context).await?;
        let mut app = crm::app(&context, "v1")?;
        old_deployment(&context, &mut app, "web", &["serve-and-migrate"]).await?;
        old_deployment(&context, &mut app, "worker", &["worker"]).await?;
        let old = json!({"app": "old-web"});
        manifest::apply_object(&context, service(Some(&old))).await?;
        let running = load::start(&context, &Load::on("crm", 80, "/api/leads")).await?;

        // The way in: labels, the selector, the App.
        for component in ["web", "worker"] {
            label(&context, &format!("old-{component}"), Some("crm"), Some(component)).await?;
        }
        let shared = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "crm"}, "spec": {"selector": old},
        });
        context
            .api::<Service>()
            .patch("crm", &PatchParams::apply("fairway"), &Patch::Apply(&shared))
            .await?;
        manifest::apply_object(&context, service(None)).await?;
        crm::set_version(&context, &mut app, "v2");
        apps::set_bake(&mut app, 2);
        apps::apply(&context, &app).await?;
        seen::reaches(&context, "crm-1", MilestoneKind::HandingOver, crm::PATIENCE).await?;
        let selected = selector(&context).await?;
        ensure!(
            selected.get("app").map(String::as_str) == Some("old-web") || selected.contains_key("fairway.dev/release"),
            "{selected:?}"
        );
        let released = seen::ended(&context, "crm-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::selects(&context, "crm", "crm-1", SOON).await?;
        for deployment in ["old-web", "old-worker"] {
            is_taken_over(&context, deployment).await?;
        }
        let asked = Timestamp::now();
        let report = running.report().await?;
        assert_going_well(&report)?;
        let first = first_answer(&report, "v2", asked)?;
        let handing_over = seen::milestone(&released, MilestoneKind::HandingOver).context("workers were replaced")?.at;
        ensure!(first > handing_over, "v2 answered a user at {first}; its gate opened after {handing_over}");
        crm::never_two_workers(&context, &["v1", "v2"]).await?;

        // The way back: the App goes alone.
        let orphan = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan),
            ..DeleteParams::default()
        };
        context.api::<App>().delete("crm", &orphan).await?;
        wait_gone(context.api::<App>(), "crm", crm::PATIENCE).await?;
        for deployment in ["old-web", "old-worker"] {
            label(&context, deployment, None, None).await?;
        }
        scale(&context, "old-web", 1).await?;
        available(&context, "old-web").await?;
        let back = json!({
            "app": "old-web", "fairway.dev/app": null, "fairway.dev/component": null, "fairway.dev/release": null,
        });
        let back = Patch::Merge(json!({"spec": {"selector": back}}));
        context
            .api::<Service>()
            .patch("crm", &PatchParams::default(), &back)
            .await?;
        scale(&context, "crm-worker-1", 0).await?;
        gone(&context, "fairway.dev/app=crm,fairway.dev/component=worker").await?;
        scale(&context, "old-worker", 1).await?;
        available(&context, "old-worker").await?;

        // What is left of Fairway's goes with its Releases, and nobody notices.
        let of_app = ListParams::default().labels("fairway.dev/app=crm");
        let ending = DeleteParams::default();
        context.api::<Release>().delete_collection(&ending, &of_app).await?;
        context
            .api::<ControllerRevision>()
            .delete_collection(&ending, &of_app)
            .await?;
        gone(&context, "fairway.dev/app=crm,fairway.dev/component=web").await?;
        let selected = selector(&context).await?;
        ensure!(selected == [("app".to_owned(), "old-web".to_owned())].into(), "{selected:?}");
        assert_none_failed(&running.stop().await?)?;
        crm::never_two_workers(&context, &["v1", "v2"]).await
    })
    .await
}

/// F15: the Service selects the candidate's pods by a label of their own. Nothing is started, and the label is named.
#[tokio::test]
async fn f15_a_service_that_selects_the_candidate_is_refused() -> Result<()> {
    with_temp_ns(|context| async move {
        let team = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "shop"},
            "spec": {
                "selector": {"app": "shop"},
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 3000}],
            },
        });
        manifest::apply_object(&context, team).await?;
        let mut app = small::app(&context, "shop", "v1")?;
        apps::component(&mut app, "web").template["metadata"] = json!({"labels": {"app": "shop"}});
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-1", "ServiceRefused", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        for part in [
            "Service shop",
            "app=shop",
            "Remove the label app",
            "component web",
        ] {
            ensure!(message.contains(part), "{part} is missing: {message}");
        }
        let started = seen::names_of::<Deployment>(&context, "shop").await?;
        ensure!(started.is_empty(), "{started:?}");
        Ok(())
    })
    .await
}
