//! An object that was stored under other rules and that the operator cannot read.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::App;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::{operator, seen, wait};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};

/// Where the schema of `spec.suspend` is, a boolean as long as nobody changes the definition.
const RULE: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/suspend";

#[tokio::test]
async fn app_that_cannot_be_read_gets_an_event_and_others_go_on() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut other = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &other).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;

        let strict = rule(&context).await?;
        set_rule(&context, &json!({"x-kubernetes-preserve-unknown-fields": true})).await?;
        let stored = store(&context).await;
        set_rule(&context, &strict).await?;
        stored?;

        // Also for an operator that meets it in its first list.
        operator::kill_and_wait(&context).await?;
        let reported = |events: &[Event]| events.iter().any(is_reported);
        let events = context.api::<Event>();
        wait::wait_for_all(
            events,
            watcher::Config::default(),
            "that the App cannot be read",
            reported,
            crm::PATIENCE,
        )
        .await?;
        small::set_version(&context, &mut other, "v2")?;
        apps::apply(&context, &other).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        ensure!(
            seen::names_of::<fairway_crds::Release>(&context, "broken")
                .await?
                .is_empty(),
            "what cannot be read is left alone"
        );
        unread(&context)
            .delete("broken", &DeleteParams::default())
            .await?;
        Ok(())
    })
    .await
}

fn definitions(context: &Context) -> Api<CustomResourceDefinition> {
    Api::all(context.client.clone())
}

fn unread(context: &Context) -> Api<DynamicObject> {
    Api::namespaced_with(
        context.client.clone(),
        &context.namespace,
        &ApiResource::erase::<App>(&()),
    )
}

async fn rule(context: &Context) -> Result<Value> {
    let definition = definitions(context).get("apps.fairway.dev").await?;
    let rule = serde_json::to_value(definition)?.pointer(RULE).cloned();
    rule.context("the definition of App has no spec.suspend")
}

async fn set_rule(context: &Context, rule: &Value) -> Result<()> {
    let patch = serde_json::from_value(json!([{"op": "replace", "path": RULE, "value": rule}]))?;
    definitions(context)
        .patch(
            "apps.fairway.dev",
            &PatchParams::default(),
            &Patch::<()>::Json(patch),
        )
        .await?;
    Ok(())
}

/// Stores an App whose `spec.suspend` is a text. The apiserver takes a moment to follow a changed definition, and
/// nothing says when it has.
async fn store(context: &Context) -> Result<()> {
    let mut broken = serde_json::to_value(small::app(context, "broken", "v1")?)?;
    broken["spec"]["suspend"] = json!("yes");
    let broken: DynamicObject = serde_json::from_value(broken)?;
    let create = async {
        loop {
            match unread(context).create(&PostParams::default(), &broken).await {
                Err(kube::Error::Api(status)) if status.code == 422 => tokio::task::yield_now().await,
                created => return created,
            }
        }
    };
    tokio::time::timeout(crm::PATIENCE, create)
        .await
        .context("the apiserver does not follow the changed definition")??;
    Ok(())
}

fn is_reported(event: &Event) -> bool {
    let about = event.involved_object.name.as_deref() == Some("broken");
    about && event.reason.as_deref() == Some("Unreadable")
}
