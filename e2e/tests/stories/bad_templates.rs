//! Images that cannot be had and templates that Kubernetes refuses.

use anyhow::{Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Backup};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{self, Behaviour};
use fairway_e2e::{manifest, reach, seen, wait};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::SOON;

async fn live(context: &Context) -> Result<fairway_crds::App> {
    let app = small::app(context, "shop", "v1")?;
    apps::apply(context, &app).await?;
    seen::ended(context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    Ok(app)
}

#[tokio::test]
async fn image_that_cannot_be_pulled_is_named_and_replaced() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = live(&context).await?;
        let missing = context.target.image("crm", "no-such-tag");
        apps::set_image(&mut app, "web", &missing);
        apps::apply(&context, &app).await?;
        let waiting = seen::waits(&context, "shop-2", "ImagePullFailed", crm::PATIENCE).await?;
        ensure!(
            seen::message(&waiting).contains("no-such-tag"),
            "{}",
            seen::message(&waiting)
        );
        ensure!(
            seen::holds(seen::release_condition(&waiting, "Reconciling")),
            "it is tried again by itself"
        );

        small::set_version(&context, &mut app, "v2")?;
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Superseded, crm::PATIENCE).await?;
        seen::ended(&context, "shop-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn missing_digest_keeps_the_previous_version_serving() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = live(&context).await?;
        let image = context.target.image("crm", "v1");
        let (repository, _) = image.rsplit_once(':').unwrap_or((&image, ""));
        apps::set_image(
            &mut app,
            "web",
            &format!("{repository}@sha256:{}", "0".repeat(64)),
        );
        apps::set_health_deadline(&mut app, "web", 15);
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-2", "PodsNotReady", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(message.contains("shop-1 keeps serving"), "{message}");
        seen::selects(&context, "shop", "shop-1", SOON).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn refused_template_fails_with_the_apiservers_words() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = live(&context).await?;
        apps::component(&mut app, "web").template["spec"]["containers"][0]["ports"] =
            json!([{"containerPort": 99999}]);
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-2", "TemplateRefused", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(
            message.contains("component web") && message.contains("containerPort"),
            "{message}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn refused_template_is_reported_before_the_migration_runs() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        crm::set_version(&context, &mut app, "v2");
        // Not the component that migrates, so that its own pod would have been made.
        apps::component(&mut app, "worker").template["spec"]["containers"][0]["ports"] =
            json!([{"containerPort": 99999}]);
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "crm-2", "TemplateRefused", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        for part in ["component worker", "containerPort", "crm-1 keeps serving"] {
            ensure!(message.contains(part), "{part} is missing: {message}");
        }
        let milestones = failed.status.unwrap_or_default().milestones;
        ensure!(milestones.is_empty(), "{milestones:?}");
        for statement in [
            "select count(*) from migration_runs where version = 'v2'",
            "select count(*) from fairway.migration_run where release = 'crm-2'",
        ] {
            let rows = reach::count(&context, crm::DATABASE, statement).await?;
            ensure!(rows == 0, "{rows} rows: {statement}");
        }
        Ok(())
    })
    .await
}

/// F11: the Deployment is accepted, but its pods are not, because their service account does not exist. The release waits,
/// has not taken a backup and has not stopped the previous worker; it continues once there is that account.
#[tokio::test]
async fn f11_refused_pods_are_reported_before_anything_is_changed() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        crm::set_version(&context, &mut app, "v2");
        apps::component(&mut app, "worker").template["spec"]["serviceAccountName"] = json!("crm-worker");
        apps::apply(&context, &app).await?;
        let waiting = seen::waits(&context, "crm-2", "TemplateRefused", crm::PATIENCE).await?;
        let message = seen::message(&waiting);
        for part in ["component worker", "crm-worker", "retries automatically"] {
            ensure!(message.contains(part), "{part} is missing: {message}");
        }
        let milestones = waiting.status.unwrap_or_default().milestones;
        ensure!(milestones.is_empty(), "{milestones:?}");
        let backups = context.api::<Backup>().list(&ListParams::default()).await?;
        let of_release = |backup: &&Backup| backup.spec.release.as_deref() == Some("crm-2");
        let taken: Vec<_> = backups
            .iter()
            .filter(of_release)
            .map(ResourceExt::name_any)
            .collect();
        ensure!(taken.is_empty(), "{taken:?}");
        let worker = context.api::<Deployment>().get("crm-worker-1").await?;
        ensure!(
            worker.spec.and_then(|spec| spec.replicas) == Some(1),
            "the previous worker is stopped"
        );

        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "crm-worker"}});
        manifest::apply_object(&context, account).await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        crm::never_two_workers(&context, &["v1", "v2"]).await?;
        Ok(())
    })
    .await
}

/// F11: the quota has room for one pod, so that a dry run would pass, and not for the new pods beside those that serve. The
/// release waits before it has taken a backup, and continues when the quota is raised.
#[tokio::test]
async fn f11_a_quota_without_room_for_both_sides_is_reported_before_the_backup() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = crm::install(&context).await?;
        let room = |pods: usize| {
            json!({
                "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"},
                "spec": {"hard": {"pods": pods.to_string()}},
            })
        };
        let used = |quota: &ResourceQuota| {
            let used = quota.status.as_ref()?.used.as_ref()?.get("pods")?;
            used.0.parse::<usize>().ok()
        };
        manifest::apply_object(&context, room(100)).await?;
        let quotas = context.api::<ResourceQuota>();
        let counted = wait::wait_for(quotas, "team", "counted", |quota| used(quota).is_some(), SOON).await?;
        let running = used(&counted).unwrap_or_default();
        manifest::apply_object(&context, room(running + 1)).await?;
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        let waiting = seen::waits(&context, "crm-2", "QuotaExceeded", crm::PATIENCE).await?;
        let message = seen::message(&waiting);
        for part in ["ResourceQuota team has no room", "pods: ", "more needed"] {
            ensure!(message.contains(part), "{part} is missing: {message}");
        }
        let backups = context.api::<Backup>().list(&ListParams::default()).await?;
        let is_of_release = |backup: &Backup| backup.spec.release.as_deref() == Some("crm-2");
        ensure!(!backups.iter().any(is_of_release), "a backup was taken");

        manifest::apply_object(&context, room(running + 20)).await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_refused_too_and_not_dropped() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut app = live(&context).await?;
        apps::component(&mut app, "web").template["spec"]["containers"][0]["imagePulPolicy"] =
            json!("Always");
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-2", "TemplateRefused", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        ensure!(message.contains("imagePulPolicy"), "{message}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn versions_share_a_claim_of_one_node_and_none_of_one_pod() -> Result<()> {
    with_temp_ns(|context| async move {
        volumes::claim(&context, "uploads", "1Gi", Behaviour::Good).await?;
        let of_one_pod = serde_json::from_value(json!({
            "metadata": {"name": "exclusive"},
            "spec": {
                "accessModes": ["ReadWriteOncePod"], "storageClassName": "",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }))?;
        let claims = context.api::<PersistentVolumeClaim>();
        claims.create(&PostParams::default(), &of_one_pod).await?;
        let mut app = live(&context).await?;
        mount_files(&mut app, "exclusive");
        apps::apply(&context, &app).await?;
        let failed = seen::failed(&context, "shop-2", "ClaimNotShared", crm::PATIENCE).await?;
        let message = seen::message(&failed);
        for part in [
            "Volume files",
            "component web",
            "claim exclusive",
            "ReadWriteOncePod",
            "strategy: Recreate",
            "shop-1 keeps serving",
        ] {
            ensure!(message.contains(part), "{part} is missing: {message}");
        }
        seen::selects(&context, "shop", "shop-1", SOON).await?;

        mount_files(&mut app, "uploads");
        apps::apply(&context, &app).await?;
        seen::ended(&context, "shop-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        apps::component(&mut app, "web").template["metadata"]["annotations"] =
            json!({"note": "beside shop-3"});
        apps::apply(&context, &app).await?;
        let release = seen::ended(&context, "shop-4", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        seen::selects(&context, "shop", "shop-4", SOON).await?;
        let status = release.status.unwrap_or_default();
        ensure!(status.on_one_node == ["web"], "{:?}", status.on_one_node);
        let of_web = ListParams::default().labels("fairway.dev/release=shop-4,fairway.dev/component=web");
        let pods = context.api::<Pod>().list(&of_web).await?;
        let bound = pods.items.into_iter().all(|pod| {
            let affinity = pod.spec.and_then(|spec| spec.affinity);
            affinity.is_some_and(|affinity| affinity.pod_affinity.is_some())
        });
        ensure!(bound, "a pod of web may run on another node");
        Ok(())
    })
    .await
}

fn mount_files(app: &mut App, claim: &str) {
    let pods = &mut apps::component(app, "web").template["spec"];
    pods["volumes"] = json!([{"name": "files", "persistentVolumeClaim": {"claimName": claim}}]);
    pods["containers"][0]["volumeMounts"] = json!([{"name": "files", "mountPath": "/uploads"}]);
}
