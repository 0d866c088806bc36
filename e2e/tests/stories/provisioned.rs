//! Claims of a dynamic provisioner that waits for the first pod, as on a server with k3s: for what the application keeps, and
//! for its backups.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load};
use fairway_e2e::manifest::apply_object;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{provisioner, seen};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use serde_json::json;

use crate::SOON;

const CLAIMS: [&str; 2] = ["uploads", "backups"];

/// A component with strategy `BlueGreen` mounts a ReadWriteOnce claim, and so do the pods of two versions at once.
async fn released_beside_each_other(context: &Context, class: &str) -> Result<()> {
    for name in CLAIMS {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        apply_object(context, claim).await?;
    }
    crm::database(context).await?;
    let mut app = crm::app(context, "v1")?;
    let pods = &mut apps::component(&mut app, "web").template["spec"];
    pods["volumes"] = json!([{"name": "uploads", "persistentVolumeClaim": {"claimName": "uploads"}}]);
    pods["containers"][0]["volumeMounts"] = json!([{"name": "uploads", "mountPath": "/uploads"}]);
    crm::first(context, &mut app).await?;
    let clients = load::start(context, &Load::on("crm", 80, "/api/leads")).await?;

    crm::set_version(context, &mut app, "v2");
    apps::set_bake(&mut app, 3);
    apps::apply(context, &app).await?;
    seen::waits(context, "crm-2", "Baking", crm::PATIENCE).await?;
    for release in ["crm-1", "crm-2"] {
        let ready = crm::pods(context, "web", release).await?;
        ensure!(ready.len() == 2, "{release} has {ready:?}");
    }
    seen::ended(context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    seen::selects(context, "crm", "crm-2", SOON).await?;
    load::assert_none_failed(&clients.stop().await?)?;

    let volumes = Api::<PersistentVolume>::all(context.client.clone());
    for name in CLAIMS {
        let claim = context.api::<PersistentVolumeClaim>().get(name).await?;
        let volume = claim.spec.and_then(|spec| spec.volume_name);
        let volume = volumes.get(&volume.context("the claim is not bound")?).await?;
        let nodes = volume.spec.and_then(|spec| spec.node_affinity);
        ensure!(nodes.is_some(), "the volume of {name} is tied to no node");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "make test-long PART=volumes"]
async fn claims_of_a_dynamic_provisioner_are_shared_on_one_node() -> Result<()> {
    with_temp_ns(|context| async move {
        let provisioner = provisioner::start(&context).await?;
        let result = released_beside_each_other(&context, &provisioner.class).await;
        // Unlike what the test creates in its namespace, what the provisioner has stays.
        result.and(provisioner.remove().await)
    })
    .await
}
