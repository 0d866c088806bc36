//! What every other test relies on: load that counts failures truly, volumes that misbehave as they
//! should, and a namespace that leaves nothing behind.

use std::time::Duration;

use anyhow::Result;
use fairway_e2e::load::{self, Begin, Load, assert_none_failed};
use fairway_e2e::manifest::restricted;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::volumes::{self, Behaviour};
use fairway_e2e::wait;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Service};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn load_counts_every_failure_and_no_success_as_one() -> Result<()> {
    with_temp_ns(|context| async move {
        serve(&context, "web").await?;
        let running = load::start(&context, &Load::on("web", 80, "/report")).await?;
        let sent = sent_at_least(&running, 200).await?;
        assert!(sent >= 200);
        let report = running.stop().await?;
        assert_none_failed(&report)?;

        // A selector that no pod has: connections are refused from then on.
        let nowhere = json!({"spec": {"selector": {"app": "nobody"}}});
        let services = context.api::<Service>();
        services
            .patch("web", &PatchParams::default(), &Patch::Merge(nowhere))
            .await?;
        let endpoints = context.api::<k8s_openapi::api::discovery::v1::EndpointSlice>();
        wait::wait_for_all(
            endpoints,
            kube::runtime::watcher::Config::default().labels("kubernetes.io/service-name=web"),
            "no endpoint",
            |slices| slices.iter().all(|slice| slice.endpoints.is_empty()),
            MINUTE,
        )
        .await?;
        let pods = context.api::<Pod>();
        pods.delete("load-web", &kube::api::DeleteParams::default())
            .await?;
        wait::wait_gone(pods, "load-web", MINUTE).await?;
        let load = Load {
            begin: Begin::AtOnce,
            ..Load::on("web", 80, "/report")
        };
        let running = load::start(&context, &load).await?;
        sent_at_least(&running, 20).await?;
        let report = running.stop().await?;
        assert_eq!(report.succeeded, 0, "{report:?}");
        assert_eq!(report.failed, report.sent, "{report:?}");
        assert!(assert_none_failed(&report).is_err());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn volumes_run_full_refuse_or_accept_writes_as_asked() -> Result<()> {
    with_temp_ns(|context| async move {
        volumes::claim(&context, "good", "1Gi", Behaviour::Good).await?;
        volumes::claim(&context, "full", "1Gi", Behaviour::Limited { bytes: 1 << 20 }).await?;
        volumes::claim(&context, "read-only", "1Gi", Behaviour::ReadOnly).await?;
        for (claim, expected) in [
            ("good", ""),
            ("full", "No space left on device"),
            ("read-only", "Read-only file system"),
        ] {
            let said = write_four_mebibytes(&context, claim).await?;
            assert!(said.contains(expected), "{claim}: {said}");
            assert_eq!(said.is_empty(), expected.is_empty(), "{claim}: {said}");
        }
        let written = std::fs::metadata(volumes::path(&context, "good")?.join("file"))?;
        assert_eq!(written.len(), 4 << 20);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_namespace_that_is_gone_leaves_no_volume_behind() -> Result<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    with_temp_ns(|context| async move {
        volumes::claim(&context, "store", "1Gi", Behaviour::Limited { bytes: 1 << 20 }).await?;
        sender.send(context).map_err(|_| anyhow::anyhow!("nobody waits"))
    })
    .await?;
    let context = receiver.await?;
    let volumes = Api::<PersistentVolume>::all(context.client.clone());
    wait::wait_gone(volumes, &format!("{}-store", context.namespace), MINUTE).await?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    assert!(
        !mounts.contains(&format!("volumes/{}/store", context.namespace)),
        "{mounts}"
    );
    Ok(())
}

/// Two replicas of a program that answers requests: the load generator answers for its report.
async fn serve(context: &Context, name: &str) -> Result<()> {
    let labels = json!({"app": name});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": restricted(json!({"terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "web",
                    "image": context.target.image_by_digest("loadgen", "dev")?,
                    // Its own requests go to itself, one a second.
                    "args": ["--url=http://127.0.0.1:8080/report", "--rate=1"],
                    "readinessProbe": {"httpGet": {"path": "/report", "port": 8080}, "periodSeconds": 1},
                }]})),
            },
        },
    }))?;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }))?;
    context
        .api::<Service>()
        .create(&PostParams::default(), &service)
        .await?;
    context
        .api::<Deployment>()
        .create(&PostParams::default(), &deployment)
        .await?;
    wait::deployment_available(&context.client, &context.namespace, name, MINUTE).await?;
    Ok(())
}

/// Asks until so many were sent. Each question takes a round trip, so this is no busy loop.
async fn sent_at_least(running: &load::Running, count: u64) -> Result<u64> {
    let asking = async {
        loop {
            let report = running.report().await?;
            if report.sent >= count {
                return anyhow::Ok(report.sent);
            }
        }
    };
    tokio::time::timeout(MINUTE, asking).await?
}

/// What `dd` says when it fails; nothing when it does not.
async fn write_four_mebibytes(context: &Context, claim: &str) -> Result<String> {
    let name = format!("write-{claim}");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": restricted(json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{
                "name": "dd",
                "image": context.target.image("pause", "1"),
                "command": ["/busybox", "dd", "if=/dev/zero", "of=/store/file", "bs=1M", "count=4"],
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {"runAsUser": 4321},
                "volumeMounts": [{"name": "store", "mountPath": "/store"}],
            }],
        })),
    }))?;
    let pods = context.api::<Pod>();
    pods.create(&PostParams::default(), &pod).await?;
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let pod = wait::wait_for(pods, &name, "ended", ended, MINUTE).await?;
    let statuses = pod
        .status
        .and_then(|status| status.container_statuses)
        .unwrap_or_default();
    let message = statuses
        .first()
        .and_then(|status| status.state.as_ref()?.terminated.as_ref()?.message.clone());
    Ok(message.unwrap_or_default())
}
