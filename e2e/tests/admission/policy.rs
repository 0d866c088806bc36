//! Only those may write what makes pods run who may create pods themselves.

use super::{Effect, Refusal, app, create, migration, patch, release};
use anyhow::{Result, bail};
use fairway_e2e::ns::{Context, with_temp_ns};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn who_may_not_create_pods_may_not_write_what_creates_them() -> Result<()> {
    with_temp_ns(|context| async move {
        let user = format!("developer-{}", context.namespace);
        allow(
            &context,
            &user,
            "writes-fairway",
            "fairway.dev",
            &["apps", "releases", "migrations", "backups"],
        )
        .await?;
        for object in [app(), release(), migration()] {
            let answer = create(
                &context.client,
                &context.namespace,
                &object,
                Effect::DryRun,
                Some(&user),
            )
            .await?;
            denied(&context, &answer);
        }

        allow(&context, &user, "creates-pods", "", &["pods"]).await?;
        for object in [app(), release(), migration()] {
            let answer = create(
                &context.client,
                &context.namespace,
                &object,
                Effect::DryRun,
                Some(&user),
            )
            .await?;
            assert!(answer.is_ok(), "{answer:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_right_to_create_pods_elsewhere_does_not_help() -> Result<()> {
    with_temp_ns(|here| async move {
        let user = format!("developer-{}", here.namespace);
        allow(&here, &user, "writes-fairway", "fairway.dev", &["apps"]).await?;
        let elsewhere = here.clone();
        with_temp_ns(|other| async move {
            allow(&other, &user, "creates-pods", "", &["pods"]).await?;
            let answer = create(
                &elsewhere.client,
                &elsewhere.namespace,
                &app(),
                Effect::DryRun,
                Some(&user),
            )
            .await?;
            denied(&elsewhere, &answer);
            Ok(())
        })
        .await
    })
    .await
}

/// The garbage collector writes finalizers and owner references, and a user's verbs are annotations: whoever
/// only does that is not asked for the right to create pods.
#[tokio::test]
async fn what_leaves_the_spec_alone_is_nobodys_business() -> Result<()> {
    with_temp_ns(|context| async move {
        let user = format!("on-call-{}", context.namespace);
        allow(
            &context,
            &user,
            "writes-fairway",
            "fairway.dev",
            &["apps", "releases"],
        )
        .await?;
        let mut held = app();
        held["spec"]["suspend"] = json!(true);
        for object in [held, release()] {
            let stored = create(&context.client, &context.namespace, &object, Effect::Stored, None).await?;
            assert!(stored.is_ok(), "{stored:?}");
            let verb = json!({"metadata": {"annotations": {"fairway.dev/abort": "now"}}});
            let answer = patch(&context.client, &context.namespace, &object, &verb, Some(&user)).await?;
            assert!(answer.is_ok(), "{answer:?}");
        }
        let edit = json!({"spec": {"policy": {"bake": {"for": "1m"}}}});
        let answer = patch(&context.client, &context.namespace, &app(), &edit, Some(&user)).await?;
        denied(&context, &answer);
        Ok(())
    })
    .await
}

fn denied(context: &Context, answer: &Result<Value, Refusal>) {
    let Err(refusal) = answer else {
        panic!("it was let in")
    };
    assert_eq!(refusal.code, 403, "{refusal:?}");
    let message = format!(
        "this object makes Fairway create pods in namespace {}, and you may not create pods there; ask for that permission",
        context.namespace
    );
    assert!(refusal.message.contains(&message), "{refusal:?}");
}

/// Gives a user every verb on some resources of the test's namespace, and returns when the apiserver knows.
async fn allow(context: &Context, user: &str, name: &str, group: &str, resources: &[&str]) -> Result<()> {
    let role: Role = serde_json::from_value(json!({
        "metadata": {"name": name},
        "rules": [{"apiGroups": [group], "resources": resources, "verbs": ["get", "create", "update", "patch"]}]
    }))?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]
    }))?;
    context
        .api::<Role>()
        .create(&PostParams::default(), &role)
        .await?;
    context
        .api::<RoleBinding>()
        .create(&PostParams::default(), &binding)
        .await?;

    // The authorizer has its own cache of roles; nothing can be watched that says when it has caught up.
    let known = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if may(context, user, group, resources[0]).await? {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), known).await {
        Ok(known) => known,
        Err(_) => bail!("the apiserver does not know role {name} after 20 s"),
    }
}

async fn may(context: &Context, user: &str, group: &str, resource: &str) -> Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some("create".to_owned()),
                namespace: Some(context.namespace.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::<SubjectAccessReview>::all(context.client.clone())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
