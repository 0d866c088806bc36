//! Secrets stay in Secrets: Fairway cannot read them and shows them to nobody.

use anyhow::{Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Backup, Migration, Release};
use fairway_e2e::apps::{self, crm};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::manifest;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::seen;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use serde_json::json;

/// A password that is found wherever it should not be. It needs quoting in a URL and in a shell.
const CANARY: &str = "canary'7f3 $x";
/// The same in a URL.
const CANARY_IN_URL: &str = "canary%277f3%20%24x";
/// What is common to all spellings.
const CANARY_PART: &str = "canary";

async fn objects(context: &Context) -> Result<Vec<(String, String)>> {
    async fn all<K>(context: &Context) -> Result<(String, String)>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let list = context.api::<K>().list(&ListParams::default()).await?;
        Ok((K::kind(&()).into_owned(), serde_json::to_string(&list.items)?))
    }
    Ok(vec![
        all::<App>(context).await?,
        all::<Release>(context).await?,
        all::<Migration>(context).await?,
        all::<Backup>(context).await?,
        all::<ControllerRevision>(context).await?,
        all::<Deployment>(context).await?,
        all::<Job>(context).await?,
        all::<Pod>(context).await?,
        all::<Event>(context).await?,
    ])
}

/// The logs of the operator and of every agent.
async fn logs(context: &Context) -> Result<Vec<(String, String)>> {
    let mut logs = Vec::new();
    for (namespace, labels) in [
        (OPERATOR_NAMESPACE, String::new()),
        (context.namespace.as_str(), seen::WORK.to_owned()),
    ] {
        let pods = Api::<Pod>::namespaced(context.client.clone(), namespace);
        for pod in pods.list(&ListParams::default().labels(&labels)).await?.items {
            let name = kube::ResourceExt::name_any(&pod);
            // The team's own migration may print what it likes; its output is not Fairway's.
            let migrates = kube::ResourceExt::labels(&pod)
                .get(seen::WORK)
                .is_some_and(|work| work == "migrate");
            if let (false, Ok(log)) = (migrates, pods.logs(&name, &LogParams::default()).await) {
                logs.push((format!("log of {name}"), log));
            }
        }
    }
    ensure!(!logs.is_empty(), "there is no log to look at");
    Ok(logs)
}

#[tokio::test]
async fn printed_password_is_in_no_object_event_or_log() -> Result<()> {
    with_temp_ns(|context| async move {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": crm::DATABASE},
            "stringData": {"password": CANARY, "url": format!("postgres://postgres:{CANARY_IN_URL}@crm-db:5432/crm")},
        });
        fairway_e2e::volumes::claim(&context, "backups", "1Gi", fairway_e2e::volumes::Behaviour::Good).await?;
        for object in manifest::read(&context.target, "crm/database.yaml")? {
            let object = if object["kind"] == "Secret" { secret.clone() } else { object };
            manifest::apply_object(&context, object).await?;
        }
        let mut app = crm::app(&context, "v1")?;
        crm::first(&context, &mut app).await?;
        crm::set_version(&context, &mut app, "v2");
        // Its last line on standard error repeats the whole connection string.
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "fail");
        apps::apply(&context, &app).await?;
        let failed = seen::ended(&context, "crm-2", ReleaseOutcome::Failed, crm::PATIENCE).await?;
        let last = context.api::<Migration>().get("crm-2").await?.status.unwrap_or_default().last_error;
        ensure!(last.as_deref().is_some_and(|line| line.contains("crm:")), "the last line is not reported: {last:?}");
        ensure!(seen::reason(&failed) == "MigrationFailed", "{}", seen::message(&failed));

        for (place, text) in objects(&context).await?.into_iter().chain(logs(&context).await?) {
            ensure!(!text.contains(CANARY_PART), "the password is in {place}");
        }
        Ok(())
    })
    .await
}
