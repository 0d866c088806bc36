//! Backups in a bucket: a release stores one there, and says why it cannot.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::backup::BackupOutcome;
use fairway_crds::release::{MilestoneKind, ReleaseOutcome};
use fairway_crds::store::Store;
use fairway_crds::{Backup, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::manifest::{apply_object, restricted};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::tools::S3_SERVER;
use fairway_e2e::{seen, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};

/// The server's name, and that of the Secret with the access key of the bucket's owner.
const SERVER: &str = "s3";

/// Starts an S3 server with bucket `backups` of user `fairway`.
pub(crate) async fn server(context: &Context) -> Result<()> {
    let image = context.target.image(S3_SERVER, "1");
    let serve = json!({
        "name": "server", "image": image,
        "args": ["--port", ":7070", "--iam-dir", "/data/iam", "posix", "--sidecar", "/data/sidecar", "/data/buckets"],
        "env": [{"name": "ROOT_ACCESS_KEY", "value": "root"}, {"name": "ROOT_SECRET_KEY", "value": "root-secret"}],
        "ports": [{"containerPort": 7070}],
        "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data/iam", "subPath": "iam"},
            {"name": "data", "mountPath": "/data/sidecar", "subPath": "sidecar"},
            {"name": "data", "mountPath": "/data/buckets", "subPath": "buckets"},
        ],
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVER},
        "spec": {"selector": {"app": SERVER}, "ports": [{"port": 7070}]},
    });
    apply_object(context, service).await?;
    let server = json!({"containers": [serve], "volumes": [{"name": "data", "emptyDir": {}}]});
    pod(context, SERVER, server).await?;
    wait::pod_ready(&context.client, &context.namespace, SERVER, crm::PATIENCE).await?;
    let user: [&str; 7] = [
        "create-user",
        "--access",
        "fairway",
        "--secret",
        "fairway-secret",
        "--role",
        "user",
    ];
    administer(context, "s3-user", &user).await?;
    administer(
        context,
        "s3-bucket",
        &["create-bucket", "--bucket", "backups", "--owner", "fairway"],
    )
    .await
}

/// Runs a command of the server's administration to its end.
async fn administer(context: &Context, name: &str, command: &[&str]) -> Result<()> {
    let login = [
        "admin",
        "--access",
        "root",
        "--secret",
        "root-secret",
        "--endpoint-url",
        "http://s3:7070",
    ];
    let arguments: Vec<_> = login.iter().chain(command).collect();
    let image = context.target.image(S3_SERVER, "1");
    // Started again until the server's Service leads to it.
    let spec = json!({
        "restartPolicy": "OnFailure",
        "containers": [{"name": "admin", "image": image, "args": arguments}],
    });
    pod(context, name, spec).await?;
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let succeeded = |pod: &Pod| phase(pod).as_deref() == Some("Succeeded");
    wait::wait_for(
        context.api::<Pod>(),
        name,
        "has succeeded",
        succeeded,
        crm::PATIENCE,
    )
    .await?;
    Ok(())
}

async fn pod(context: &Context, name: &str, spec: Value) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": restricted(spec),
    });
    apply_object(context, pod).await?;
    Ok(())
}

/// Writes the Secret with the access key.
pub(crate) async fn access_key(context: &Context, secret: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SERVER},
        "stringData": {"id": "fairway", "secret": secret},
    });
    apply_object(context, secret).await?;
    Ok(())
}

/// The bucket, as an App names it.
pub(crate) fn bucket() -> Result<Store> {
    let key = |key: &str| json!({"secretKeyRef": {"name": SERVER, "key": key}});
    Ok(serde_json::from_value(json!({"s3": {
        "bucket": "backups", "prefix": "tests", "endpoint": "http://s3:7070",
        "credentialsFrom": {"accessKeyId": key("id"), "secretAccessKey": key("secret")},
    }}))?)
}

#[tokio::test]
async fn a_release_backs_up_to_a_bucket_once_its_access_key_is_right() -> Result<()> {
    with_temp_ns(|context| async move {
        server(&context).await?;
        access_key(&context, "another-secret").await?;
        let mut app = crm::install(&context).await?;
        app.spec.backup.as_mut().context("no backup")?.store = bucket()?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        let refused = "The backup store, bucket backups of http://s3:7070, refuses access";
        let says = |release: &Release| seen::message(release).contains(refused);
        let waiting = seen::release(&context, "crm-2", refused, says, crm::PATIENCE).await?;
        ensure!(
            seen::milestone(&waiting, MilestoneKind::Migrating).is_none(),
            "it migrates without a backup"
        );

        access_key(&context, "fairway-secret").await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        let backups = context.api::<Backup>().list(&ListParams::default()).await?;
        let is_of_release = |backup: &Backup| backup.spec.release.as_deref() == Some("crm-2");
        let backup = backups.into_iter().find(is_of_release).context("no backup")?;
        let status = backup.status.context("no status")?;
        ensure!(status.outcome == Some(BackupOutcome::Succeeded), "{status:?}");
        ensure!(
            status.set.as_ref().map(|set| &set.store) == Some(&bucket()?),
            "{status:?}"
        );
        Ok(())
    })
    .await
}
