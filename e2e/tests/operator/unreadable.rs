//! Objects that the operator cannot read: stored under other rules, or made to be unreadable.

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::App;
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::manifest::apply_object;
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

/// S2: an App of another schema, and one whose template is nested 140 levels deep, are stored; one with such a health check
/// is refused. Events name the first two, and neither stops another App, nor an operator that meets them in its first list.
#[tokio::test]
async fn s2_apps_that_cannot_be_read_get_events_and_others_go_on() -> Result<()> {
    with_temp_ns(|context| async move {
        let mut other = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &other).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;

        let deep = (0..140).fold(json!(0), |inner, _| json!({"a": inner}));
        let mut refused = serde_json::to_value(small::app(&context, "refused", "v1")?)?;
        refused["spec"]["components"][0]["health"]["http"][0]["json"] = json!({"/ok": deep});
        let refusal = match apply_object(&context, refused).await {
            Ok(_) => bail!("an expected value of 140 levels is admitted"),
            Err(refusal) => format!("{refusal:#}"),
        };
        ensure!(refusal.contains("health.http[0].json./ok"), "{refusal}");
        let mut nested = serde_json::to_value(small::app(&context, "nested", "v1")?)?;
        nested["spec"]["components"][0]["template"]["spec"]["deep"] = deep;
        create_too_deep(&context, &nested).await?;
        let strict = rule(&context).await?;
        set_rule(&context, &json!({"x-kubernetes-preserve-unknown-fields": true})).await?;
        let stored = store(&context).await;
        set_rule(&context, &strict).await?;
        stored?;

        // Also for an operator that meets them in its first list.
        operator::kill_and_wait(&context).await?;
        reported(&context, "broken", "cannot read this App").await?;
        reported(&context, "nested", "it is nested deeper than 64 levels").await?;
        small::set_version(&context, &mut other, "v2")?;
        apps::apply(&context, &other).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        for app in ["broken", "nested"] {
            ensure!(
                seen::names_of::<fairway_crds::Release>(&context, app)
                    .await?
                    .is_empty(),
                "what cannot be read is left alone"
            );
        }
        is_counted(&context).await?;
        unread(&context)
            .delete("broken", &DeleteParams::default())
            .await?;
        Ok(())
    })
    .await
}

/// The operator counts the two in its metrics, and is ready.
async fn is_counted(context: &Context) -> Result<()> {
    let _undisturbed = operator::disrupt(context).await?;
    let operator = operator::leader(context).await?;
    let unreadable = operator::metric(context, &operator, "fairway_unreadable_objects").await?;
    ensure!(unreadable >= 2.0, "{unreadable} objects are unreadable");
    let ready = operator::probe(context, &operator, "readyz").await?;
    ensure!(ready == "ok\n", "{ready}");
    Ok(())
}

/// Creates an App whose answer is nested too deep for the client of the tests too.
async fn create_too_deep(context: &Context, app: &Value) -> Result<()> {
    let path = format!("/apis/fairway.dev/v1alpha1/namespaces/{}/apps", context.namespace);
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(app)?)?;
    context.client.request_text(request).await?;
    Ok(())
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

/// Stores an App whose `spec.suspend` is a text. The API server takes a moment to follow a changed definition, and
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
        .context("the API server does not follow the changed definition")??;
    Ok(())
}

/// Waits for the Event that an App cannot be read, for this reason.
async fn reported(context: &Context, app: &str, why: &str) -> Result<()> {
    let is_reported = |event: &Event| {
        let about = event.involved_object.name.as_deref() == Some(app);
        let message = event.message.as_deref().unwrap_or_default();
        about && event.reason.as_deref() == Some("Unreadable") && message.contains(why)
    };
    wait::wait_for_all(
        context.api::<Event>(),
        watcher::Config::default(),
        "that the App cannot be read",
        |events: &[Event]| events.iter().any(is_reported),
        crm::PATIENCE,
    )
    .await?;
    Ok(())
}
