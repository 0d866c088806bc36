//! Clusters with other families of addresses than IPv4 alone: each test has one of its own, and a release of everything on it.

use anyhow::{Result, ensure};
use fairway_crds::release::{ReleaseOutcome, annotation};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::cluster::{Cluster, Families, Options};
use fairway_e2e::install;
use fairway_e2e::load::{self, Load};
use fairway_e2e::manifest::apply_object;
use fairway_e2e::ns::{self, Context, PodSecurity};
use fairway_e2e::paths::Paths;
use fairway_e2e::target::Target;
use fairway_e2e::{dump, images, reach, seen};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A cluster with the programs and images that are built, and Fairway in it; removed whatever happens.
struct Own {
    target: Target,
}

impl Own {
    async fn start(name: &str, families: Families) -> Result<Self> {
        let built = Paths::from_env()?;
        let folder = built.root().join("clusters").join(name);
        std::fs::create_dir_all(&folder)?;
        let paths = Paths::at(folder);
        for (built, own) in [(built.bin(), paths.bin()), (built.images(), paths.images())] {
            if !own.exists() {
                std::os::unix::fs::symlink(built, own)?;
            }
        }
        let own = Self {
            target: Target::embedded(paths.clone()),
        };
        let options = Options {
            families,
            ..Options::default()
        };
        Cluster::up(&paths, &options).await?;
        let names = ["pause", "postgres", "crm", "loadgen", "fairway"].map(str::to_owned);
        images::push(&paths, &paths.registry_host(), &images::named(&names)?)?;
        install::fairway(&own.target, json!({}))?;
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = Cluster::down(&self.target.paths) {
            eprintln!("the cluster of the test could not be removed: {error:#}");
        }
    }
}

/// The addresses of the pods of the application, each with its families.
async fn addresses(context: &Context, release: &str) -> Result<Vec<Vec<String>>> {
    let mut found = Vec::new();
    for name in crm::pods(context, "web", release).await? {
        let status = context.api::<Pod>().get(&name).await?.status.unwrap_or_default();
        let addresses = status.pod_ips.unwrap_or_default().into_iter();
        found.push(addresses.map(|address| address.ip).collect());
    }
    ensure!(!found.is_empty(), "no pod of {release} is ready");
    Ok(found)
}

/// A database, a first release, one with backup and migration, and a rollback; health is asked by the operator and by a
/// probe pod, all of it while users ask for pages.
async fn story(context: &Context) -> Result<()> {
    let headers = crm::secret_headers(context).await?;
    let mut app = crm::install_with(context, |app| {
        for component in ["web", "worker"] {
            apps::set_env(app, component, "CRM_HOST", "::");
        }
        if let Some(health) = &mut apps::component(app, "web").health {
            health.http[1].headers = headers;
        }
    })
    .await?;
    crm::add_leads(context, &["Ada"]).await?;
    let clients = load::start(context, &Load::on("crm", 80, "/api/leads")).await?;

    crm::set_version(context, &mut app, "v2");
    apps::set_bake(&mut app, 30);
    apps::apply(context, &app).await?;
    seen::waits(context, "crm-2", "Baking", crm::PATIENCE).await?;
    seen::selects(context, "crm", "crm-2", SOON).await?;
    apps::say(context, "crm-2", annotation::ROLLBACK, "now").await?;
    seen::ended(context, "crm-2", ReleaseOutcome::RolledBack, crm::PATIENCE).await?;
    seen::selects(context, "crm", "crm-1", SOON).await?;
    load::assert_none_failed(&clients.stop().await?)?;
    reach::metrics_answer(context, "prometheus", SOON).await
}

/// Runs the story on a cluster of these families, and returns the addresses that its pods had.
async fn released_on(name: &str, families: Families, service: Option<Value>) -> Result<Vec<Vec<String>>> {
    let own = Own::start(name, families).await?;
    let context = ns::fresh(&own.target, "shop", PodSecurity::Enforced).await?;
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(context.client.clone());
    let labels = json!({"metadata": {"labels": {"metrics": "enabled"}}});
    namespaces
        .patch("shop", &Default::default(), &kube::api::Patch::Merge(labels))
        .await?;
    let result = async {
        // What a team's own Service says of families, where it says anything.
        if let Some(service) = service {
            apply_object(&context, service).await?;
        }
        story(&context).await?;
        addresses(&context, "crm-1").await
    };
    let result = result.await;
    if let Err(error) = &result {
        eprintln!("======== failed\n{error:#}\n");
        dump::to_stderr(&context.client, &context.namespace).await;
    }
    result
}

/// F12: no pod and no Service has an IPv4 address.
#[tokio::test]
#[ignore = "make test-long PART=ipv6"]
async fn f12_release_succeeds_in_a_cluster_with_ipv6_alone() -> Result<()> {
    let found = released_on("ipv6", Families::V6, None).await?;
    let v6_alone = |addresses: &Vec<String>| addresses.len() == 1 && addresses[0].contains(':');
    ensure!(found.iter().all(v6_alone), "{found:?}");
    Ok(())
}

/// F12: each pod has an address of both families, and the team's Service prefers IPv6.
#[tokio::test]
#[ignore = "make test-long PART=dual-stack"]
async fn f12_release_succeeds_in_a_dual_stack_cluster() -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "crm"},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"], "ports": [{"port": 80, "targetPort": 3000}]},
    });
    let found = released_on("dual-stack", Families::Dual, Some(service)).await?;
    ensure!(found.iter().all(|addresses| addresses.len() == 2), "{found:?}");
    Ok(())
}
