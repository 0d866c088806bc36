//! The admission policies of the chart: nobody gains a permission through Fairway, each verb of a user is a permission,
//! nobody else writes status, and the operator changes only what is its own.

use super::{Effect, Refusal, app, create, migration, patch, patch_status, release, restore};
use anyhow::{Result, anyhow, bail};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::operator;
use fairway_e2e::rbac::{Access, is_allowed};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use rstest::rstest;
use serde_json::{Value, json};
use std::time::Duration;

/// Verbs of whoever writes objects.
const WRITES: &[&str] = &["get", "create", "update", "patch"];

/// S8: what Fairway creates for an object, its author must be allowed to create.
#[tokio::test]
async fn s8_author_needs_every_permission_that_fairway_uses_for_the_object() -> Result<()> {
    with_temp_ns(|context| async move {
        let user = User::new(&context, "developer");
        user.may(
            WRITES,
            "fairway.dev",
            &["apps", "releases", "migrations", "backups"],
        )
        .await?;
        for object in [app(), release(), migration()] {
            let said = "this object makes Fairway create pods in namespace";
            denied(&user.creates(&object).await?, said);
        }

        user.may(WRITES, "", &["pods"]).await?;
        allowed(&user.creates(&migration()).await?);
        for object in [app(), release()] {
            let said = "this object makes Fairway create Deployments in namespace";
            denied(&user.creates(&object).await?, said);
        }

        user.may(WRITES, "apps", &["deployments"]).await?;
        allowed(&user.creates(&release()).await?);
        let said = "a component of this App has serves, which makes Fairway create a Service in namespace";
        denied(&user.creates(&app()).await?, said);

        user.may(&["create"], "", &["services"]).await?;
        let said = "component web makes Fairway switch Service crm in namespace";
        denied(&user.creates(&app()).await?, said);

        user.may(WRITES, "", &["services"]).await?;
        allowed(&user.creates(&app()).await?);
        Ok(())
    })
    .await
}

/// S8: the Service of the API server cannot be taken, whatever its author may do.
#[tokio::test]
async fn s8_service_of_the_api_server_cannot_be_served() -> Result<()> {
    let mut takes = app();
    takes["spec"]["components"][0]["serves"]["service"] = json!("kubernetes");
    let client = super::client().await?;
    let answer = create(&client, "default", &takes, Effect::DryRun, None).await?;
    denied_with(
        &answer,
        422,
        "serves.service is kubernetes, which in namespace default is the Service of the API server; choose another name",
    );
    Ok(())
}

/// S8: a permission in another namespace does not help.
#[tokio::test]
async fn s8_permissions_elsewhere_do_not_help() -> Result<()> {
    with_temp_ns(|here| async move {
        let user = User::new(&here, "developer");
        user.may(WRITES, "fairway.dev", &["apps"]).await?;
        with_temp_ns(|other| {
            let there = User {
                context: other,
                ..user.clone()
            };
            async move {
                there.may(WRITES, "", &["pods"]).await?;
                let said = "this object makes Fairway create pods in namespace";
                denied(&user.creates(&app()).await?, said);
                Ok(())
            }
        })
        .await
    })
    .await
}

/// S9: a ControllerRevision holds what a Release releases, so that writing one for Fairway needs what an App needs.
#[tokio::test]
async fn s9_snapshot_of_a_release_cannot_be_forged_without_the_permissions_of_an_app() -> Result<()> {
    with_temp_ns(|context| async move {
        let user = User::new(&context, "tenant");
        user.may(WRITES, "apps", &["controllerrevisions"]).await?;
        let mut snapshot = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "crm-42"},
            "revision": 42, "data": {"spec": {}}
        });
        allowed(&user.creates(&snapshot).await?);
        let stored = create(
            &context.client,
            &context.namespace,
            &snapshot,
            Effect::Stored,
            None,
        )
        .await?;
        allowed(&stored);
        let said = "this object makes Fairway create pods in namespace";
        let label = json!({"metadata": {"labels": {"fairway.dev/app": "crm"}}});
        denied(&user.patches(&snapshot, &label).await?, said);
        snapshot["metadata"] = json!({"name": "crm-43", "labels": {"fairway.dev/app": "crm"}});
        denied(&user.creates(&snapshot).await?, said);
        Ok(())
    })
    .await
}

/// S9: images by digest, claims and milestones stand in the status, which is the operator's alone.
#[tokio::test]
async fn s9_status_is_written_by_the_operator_alone() -> Result<()> {
    with_temp_ns(|context| async move {
        let object = release();
        allowed(&create(&context.client, &context.namespace, &object, Effect::Stored, None).await?);
        let user = User::new(&context, "tenant");
        user.may(WRITES, "fairway.dev", &["releases/status"]).await?;
        let change = json!({"status": {"digests": {"web/web": "registry.example.com/evil"}}});
        let said = "only Fairway writes the status of its objects";
        for name in [Some(user.name.as_str()), None] {
            let answer = patch_status(&context.client, &context.namespace, &object, &change, name).await?;
            denied(&answer, said);
        }
        Ok(())
    })
    .await
}

/// S16: each verb of a user is a permission on the App, and the permission to change Releases gives none of them.
#[rstest]
#[case::abort("abort", "release", "now")]
#[case::rollback("rollback", "release", "now")]
#[case::retry("retry", "release", "now")]
#[case::resolve("resolve", "release", "applied:now")]
#[case::resolve_by_hand("resolve", "migration", "applied:now")]
#[case::restore("restore", "restore", "any:now")]
#[case::abort_a_restore("abort", "restore", "now")]
#[tokio::test]
async fn s16_each_verb_is_a_permission(
    #[case] verb: &'static str,
    #[case] kind: &'static str,
    #[case] value: &'static str,
) -> Result<()> {
    with_temp_ns(|context| async move {
        let object = match kind {
            "release" => release(),
            "restore" => restore(),
            _ => migration(),
        };
        allowed(&create(&context.client, &context.namespace, &object, Effect::Stored, None).await?);
        let user = User::new(&context, "on-call");
        user.may(WRITES, "fairway.dev", &["releases", "migrations", "restores"])
            .await?;
        let key = format!("fairway.dev/{verb}");
        let asks = |value: &str| json!({"metadata": {"annotations": {&key: value}}});
        let said = format!("annotation {key} needs the verb {verb} on apps.fairway.dev crm in namespace");
        denied(&user.patches(&object, &asks(value)).await?, &said);

        user.may(&[verb], "fairway.dev", &["apps"]).await?;
        allowed(&user.patches(&object, &asks(value)).await?);
        let own = format!("{}/{value}", user.name);
        allowed(&user.patches(&object, &asks(&own)).await?);
        let other = format!("somebody-else/{value}");
        let said = format!(
            "annotation {key} names another user before its last slash than you, {}",
            user.name
        );
        denied(&user.patches(&object, &asks(&other)).await?, &said);
        Ok(())
    })
    .await
}

/// What a Restore prepares takes room and time of the database server, before anybody has agreed to anything.
#[tokio::test]
async fn creating_a_restore_is_a_permission_on_the_app() -> Result<()> {
    with_temp_ns(|context| async move {
        let user = User::new(&context, "on-call");
        user.may(WRITES, "fairway.dev", &["restores"]).await?;
        user.may(&["create"], "", &["pods"]).await?;
        let said = "a Restore needs the verb restore on apps.fairway.dev crm in namespace";
        denied(&user.creates(&restore()).await?, said);
        user.may(&["restore"], "fairway.dev", &["apps"]).await?;
        allowed(&user.creates(&restore()).await?);
        Ok(())
    })
    .await
}

/// S16: with the right to abort nobody rolls back.
#[tokio::test]
async fn s16_one_verb_gives_no_other() -> Result<()> {
    with_temp_ns(|context| async move {
        allowed(
            &create(
                &context.client,
                &context.namespace,
                &release(),
                Effect::Stored,
                None,
            )
            .await?,
        );
        let user = User::new(&context, "on-call");
        user.may(WRITES, "fairway.dev", &["releases"]).await?;
        user.may(&["abort"], "fairway.dev", &["apps"]).await?;
        let both =
            json!({"metadata": {"annotations": {"fairway.dev/abort": "1", "fairway.dev/rollback": "1"}}});
        let said = "annotation fairway.dev/rollback needs the verb rollback";
        denied(&user.patches(&release(), &both).await?, said);
        Ok(())
    })
    .await
}

/// The garbage collector writes finalizers and owner references: whoever changes neither spec nor verbs needs no
/// other permission. A verb that is there already stays allowed to be there.
#[tokio::test]
async fn changes_of_other_metadata_need_no_other_permission() -> Result<()> {
    with_temp_ns(|context| async move {
        let user = User::new(&context, "collector");
        user.may(WRITES, "fairway.dev", &["apps", "releases"]).await?;
        let mut suspended = app();
        suspended["spec"]["suspend"] = json!(true);
        let mut aborted = release();
        aborted["metadata"]["annotations"] = json!({"fairway.dev/abort": "1"});
        for object in [suspended, aborted] {
            allowed(&create(&context.client, &context.namespace, &object, Effect::Stored, None).await?);
            let change = json!({"metadata": {"finalizers": ["example.com/wait"]}});
            allowed(&user.patches(&object, &change).await?);
        }
        let edit = json!({"spec": {"policy": {"bake": {"for": "1m"}}}});
        let said = "this object makes Fairway create pods in namespace";
        denied(&user.patches(&app(), &edit).await?, said);
        Ok(())
    })
    .await
}

/// S15: the operator's role cannot say which objects it is for; the policy on its account does.
#[tokio::test]
async fn s15_operator_touches_only_what_carries_its_label() -> Result<()> {
    with_temp_ns(|context| async move {
        let operator = User {
            context: context.clone(),
            name: operator::USER.to_owned(),
        };
        let labels = json!({"fairway.dev/app": "crm"});
        let theirs = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs"},
            "spec": {
                "schedulingGates": [{"name": "example.com/never"}],
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "web", "image": "registry.example.com/web", "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}
                }}]
            }
        });
        let mut ours = theirs.clone();
        ours["metadata"] = json!({"name": "ours", "labels": labels.clone()});

        allowed(&operator.creates(&ours).await?);
        denied(
            &operator.creates(&theirs).await?,
            "Fairway writes only objects with the label fairway.dev/app",
        );
        let kube_system = create(
            &context.client,
            "kube-system",
            &ours,
            Effect::DryRun,
            Some(&operator.name),
        )
        .await?;
        denied(&kube_system, "Fairway changes nothing in namespace kube-system");

        for object in [&ours, &theirs] {
            allowed(&create(&context.client, &context.namespace, object, Effect::Stored, None).await?);
        }
        allowed(&operator.deletes(&ours).await?);
        let said = "this object lacks the label fairway.dev/app, so Fairway may not delete it";
        denied(&operator.deletes(&theirs).await?, said);

        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "theirs"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "theirs"}},
                "template": {"metadata": {"labels": {"app": "theirs"}},
                    "spec": {"containers": [{"name": "web", "image": "registry.example.com/web"}]}}}
        });
        allowed(
            &create(
                &context.client,
                &context.namespace,
                &deployment,
                Effect::Stored,
                None,
            )
            .await?,
        );
        let takes = json!({"metadata": {"labels": labels.clone()}, "spec": {"replicas": 1}});
        let said = "this object lacks the label fairway.dev/app, so Fairway may not update it";
        denied(&operator.patches(&deployment, &takes).await?, said);
        Ok(())
    })
    .await
}

/// S15: a Service that a team brought carries Fairway's label too; the operator deletes only one that an App owns.
#[tokio::test]
async fn s15_operator_deletes_only_services_that_an_app_owns() -> Result<()> {
    with_temp_ns(|context| async move {
        let operator = User {
            context: context.clone(),
            name: operator::USER.to_owned(),
        };
        let store = async |object: &Value| {
            create(&context.client, &context.namespace, object, Effect::Stored, None).await
        };
        let mut suspended = app();
        suspended["spec"]["suspend"] = json!(true);
        let suspended = store(&suspended)
            .await?
            .map_err(|refusal| anyhow!("{refusal:?}"))?;
        let theirs = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "theirs", "labels": {"fairway.dev/app": "crm"}},
            "spec": {"ports": [{"port": 80}]}
        });
        let mut ours = theirs.clone();
        ours["metadata"]["name"] = json!("ours");
        ours["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "fairway.dev/v1alpha1", "kind": "App", "name": "crm",
            "uid": suspended["metadata"]["uid"], "controller": true
        }]);
        for service in [&ours, &theirs] {
            allowed(&store(service).await?);
        }
        allowed(&operator.deletes(&ours).await?);
        let said = "Fairway may not delete a Service that it did not create";
        denied(&operator.deletes(&theirs).await?, said);
        Ok(())
    })
    .await
}

/// The operator may delete Backups, but data goes first: only one whose status says that its set is gone.
#[tokio::test]
async fn operator_deletes_only_backups_whose_sets_are_removed() -> Result<()> {
    with_temp_ns(|context| async move {
        let operator = User {
            context: context.clone(),
            name: operator::USER.to_owned(),
        };
        // Of an App that does not exist, so that nobody takes it.
        let backup = json!({
            "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup", "metadata": {"name": "nightly"},
            "spec": {"app": "nobody"}
        });
        allowed(&create(&context.client, &context.namespace, &backup, Effect::Stored, None).await?);
        let said = "Fairway may delete a Backup only when its set is removed from the store";
        denied(&operator.deletes(&backup).await?, said);
        Ok(())
    })
    .await
}

/// S15: of a Service that a team brought, the operator takes the selector and nothing else.
#[tokio::test]
async fn s15_operator_changes_only_the_selector_of_a_service_that_it_takes_over() -> Result<()> {
    with_temp_ns(|context| async move {
        let operator = User {
            context: context.clone(),
            name: operator::USER.to_owned(),
        };
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "crm", "labels": {"team": "sales"}, "annotations": {"team": "sales"}},
            "spec": {"ports": [{"name": "team", "port": 80, "targetPort": 3000}]}
        });
        allowed(
            &create(
                &context.client,
                &context.namespace,
                &service,
                Effect::Stored,
                None,
            )
            .await?,
        );
        let takes = json!({
            "metadata": {
                "labels": {"fairway.dev/app": "crm"},
                "annotations": {"fairway.dev/applied-hash": "0"}
            },
            "spec": {"selector": {"fairway.dev/app": "crm"}}
        });
        allowed(&operator.patches(&service, &takes).await?);
        let said = "Fairway may change nothing but the selector of a Service that it did not create";
        let more: [fn(&mut Value); 5] = [
            |change| change["spec"]["type"] = json!("NodePort"),
            |change| change["spec"]["ports"] = json!([{"name": "team", "port": 81, "targetPort": 3000}]),
            |change| change["spec"]["externalIPs"] = json!(["192.0.2.1"]),
            |change| change["metadata"]["labels"]["team"] = json!("other"),
            |change| change["metadata"]["annotations"]["team"] = Value::Null,
        ];
        for edit in more {
            let mut change = takes.clone();
            edit(&mut change);
            denied(&operator.patches(&service, &change).await?, said);
        }
        Ok(())
    })
    .await
}

/// A user of the test's namespace.
#[derive(Clone)]
struct User {
    context: Context,
    name: String,
}

impl User {
    fn new(context: &Context, name: &str) -> Self {
        Self {
            context: context.clone(),
            name: format!("{name}-{}", context.namespace),
        }
    }

    /// What the API server answers when this user creates an object; nothing is stored.
    async fn creates(&self, object: &Value) -> Result<Result<Value, Refusal>> {
        let Context {
            client, namespace, ..
        } = &self.context;
        create(client, namespace, object, Effect::DryRun, Some(&self.name)).await
    }

    /// What the API server answers when this user changes an object; nothing is stored.
    async fn patches(&self, object: &Value, change: &Value) -> Result<Result<Value, Refusal>> {
        let Context {
            client, namespace, ..
        } = &self.context;
        patch(client, namespace, object, change, Some(&self.name)).await
    }

    /// What the API server answers when this user deletes an object; nothing is deleted.
    async fn deletes(&self, object: &Value) -> Result<Result<Value, Refusal>> {
        let Context {
            client, namespace, ..
        } = &self.context;
        super::delete(client, namespace, object, Some(&self.name)).await
    }

    /// Gives this user verbs on resources, and returns when the API server knows.
    async fn may(&self, verbs: &[&str], group: &str, resources: &[&str]) -> Result<()> {
        let context = &self.context;
        let role: Role = serde_json::from_value(json!({
            "metadata": {"generateName": "test-"},
            "rules": [{"apiGroups": [group], "resources": resources, "verbs": verbs}]
        }))?;
        let role = context
            .api::<Role>()
            .create(&PostParams::default(), &role)
            .await?;
        let name = role.metadata.name.unwrap_or_default();
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": self.name}]
        }))?;
        context
            .api::<RoleBinding>()
            .create(&PostParams::default(), &binding)
            .await?;

        // The authorizer has a cache of roles; nothing can be watched that says when it has caught up.
        let known = async {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            loop {
                tick.tick().await;
                if self.can(verbs[verbs.len() - 1], group, resources[0]).await? {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), known).await {
            Ok(known) => known,
            Err(_) => bail!("the API server does not know role {name} after 20 s"),
        }
    }

    async fn can(&self, verb: &str, group: &str, resource: &str) -> Result<bool> {
        let access = Access {
            verb,
            group,
            resource,
            namespace: &self.context.namespace,
        };
        is_allowed(&self.context.client, &self.name, &[], access).await
    }
}

fn allowed(answer: &Result<Value, Refusal>) {
    assert!(answer.is_ok(), "{answer:?}");
}

fn denied(answer: &Result<Value, Refusal>, said: &str) {
    denied_with(answer, 403, said);
}

fn denied_with(answer: &Result<Value, Refusal>, code: u16, said: &str) {
    let Err(refusal) = answer else {
        panic!("it was admitted, and should be refused with: {said}")
    };
    assert_eq!(refusal.code, code, "{refusal:?}");
    assert!(refusal.message.contains(said), "{refusal:?}");
}
