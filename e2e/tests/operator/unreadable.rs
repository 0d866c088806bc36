//! Objects that were stored under other rules and that the operator cannot read.

use anyhow::{Context as _, Result, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Backup, Migration, Release};
use fairway_e2e::apps::{self, crm, small};
use fairway_e2e::ns::Context;
use fairway_e2e::{operator, seen, wait};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::alone;

/// What the objects that cannot be read are called, and the App that they belong to.
const BROKEN: &str = "broken";

/// An object of one kind with a value of a type that only another definition allowed.
struct Misfit {
    resource: ApiResource,
    /// The field of its spec that has the value.
    field: &'static str,
    object: Value,
}

fn misfits(context: &Context) -> Result<[Misfit; 4]> {
    let metadata = json!({"name": BROKEN});
    let mut app = serde_json::to_value(small::app(context, BROKEN, "v1")?)?;
    app["spec"]["suspend"] = json!("yes");
    let image = context.target.image_by_digest("crm", "v1")?;
    let release = json!({"app": BROKEN, "revision": 1, "version": 7});
    let migration = json!({
        "app": BROKEN, "component": "web", "image": image, "command": ["/crm", "migrate"], "timeout": "1m", "release": 7,
    });
    let backup = json!({"app": BROKEN, "release": 7});
    Ok([
        Misfit {
            resource: ApiResource::erase::<App>(&()),
            field: "suspend",
            object: app,
        },
        Misfit {
            resource: ApiResource::erase::<Release>(&()),
            field: "version",
            object: json!({"metadata": metadata, "spec": release}),
        },
        Misfit {
            resource: ApiResource::erase::<Migration>(&()),
            field: "release",
            object: json!({"metadata": metadata, "spec": migration}),
        },
        Misfit {
            resource: ApiResource::erase::<Backup>(&()),
            field: "release",
            object: json!({"metadata": metadata, "spec": backup}),
        },
    ])
}

#[tokio::test]
async fn objects_stored_before_the_rules_changed_are_told_and_the_others_go_on() -> Result<()> {
    alone(|context| async move {
        let mut other = small::app(&context, "shop", "v1")?;
        apps::apply(&context, &other).await?;
        seen::ended(&context, "shop-1", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;

        let misfits = misfits(&context)?;
        for misfit in &misfits {
            let strict = rule(&context, misfit).await?;
            set_rule(
                &context,
                misfit,
                &json!({"x-kubernetes-preserve-unknown-fields": true}),
            )
            .await?;
            let stored = store(&context, misfit).await;
            set_rule(&context, misfit, &strict).await?;
            stored.with_context(|| format!("store a {}", misfit.resource.kind))?;
        }

        // Also for an operator that meets them in its first lists.
        operator::kill(&context).await?;
        let told = |events: &[Event]| {
            misfits
                .iter()
                .all(|misfit| events.iter().any(|event| is_told(event, misfit)))
        };
        let events = context.api::<Event>();
        wait::wait_for_all(
            events,
            watcher::Config::default(),
            "that each of them cannot be read",
            told,
            crm::PATIENCE,
        )
        .await?;
        small::set_version(&context, &mut other, "v2")?;
        apps::apply(&context, &other).await?;
        seen::ended(&context, "shop-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        for misfit in &misfits {
            let left = unread(&context, misfit).get(BROKEN).await?;
            ensure!(
                left.data["spec"][misfit.field] == misfit.object["spec"][misfit.field]
                    && left.metadata.deletion_timestamp.is_none(),
                "what cannot be read is left alone: {left:?}"
            );
        }
        let jobs = seen::names_of::<k8s_openapi::api::batch::v1::Job>(&context, BROKEN).await?;
        ensure!(
            jobs.is_empty(),
            "nothing is done for what cannot be read: {jobs:?}"
        );
        for misfit in &misfits {
            unread(&context, misfit)
                .delete(BROKEN, &DeleteParams::default())
                .await?;
        }
        Ok(())
    })
    .await
}

fn definitions(context: &Context) -> Api<CustomResourceDefinition> {
    Api::all(context.client.clone())
}

fn unread(context: &Context, misfit: &Misfit) -> Api<DynamicObject> {
    Api::namespaced_with(context.client.clone(), &context.namespace, &misfit.resource)
}

impl Misfit {
    /// The name of its definition.
    fn definition(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }

    /// Where the schema of its field is.
    fn rule(&self) -> String {
        format!(
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{}",
            self.field
        )
    }
}

async fn rule(context: &Context, misfit: &Misfit) -> Result<Value> {
    let definition = definitions(context).get(&misfit.definition()).await?;
    let rule = serde_json::to_value(definition)?.pointer(&misfit.rule()).cloned();
    rule.with_context(|| format!("{} has no spec.{}", misfit.definition(), misfit.field))
}

async fn set_rule(context: &Context, misfit: &Misfit, rule: &Value) -> Result<()> {
    let patch = serde_json::from_value(json!([{"op": "replace", "path": misfit.rule(), "value": rule}]))?;
    definitions(context)
        .patch(
            &misfit.definition(),
            &PatchParams::default(),
            &Patch::<()>::Json(patch),
        )
        .await?;
    Ok(())
}

/// Stores an object that does not fit. The apiserver takes a moment to follow a changed definition, and nothing says
/// when it has.
async fn store(context: &Context, misfit: &Misfit) -> Result<()> {
    let mut object = misfit.object.clone();
    object["apiVersion"] = json!(misfit.resource.api_version);
    object["kind"] = json!(misfit.resource.kind);
    let object: DynamicObject = serde_json::from_value(object)?;
    let create = async {
        loop {
            match unread(context, misfit)
                .create(&PostParams::default(), &object)
                .await
            {
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

fn is_told(event: &Event, misfit: &Misfit) -> bool {
    let about = &event.involved_object;
    let is_it = about.name.as_deref() == Some(BROKEN) && about.kind.as_deref() == Some(&misfit.resource.kind);
    is_it && event.reason.as_deref() == Some("Unreadable")
}
