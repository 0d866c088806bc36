//! Containers that somebody injects into every pod of a namespace, as the meshes do, but without asking whether a pod declines.

use anyhow::{Result, ensure};
use fairway_crds::release::{ReleaseOutcome, annotation};
use fairway_e2e::admission;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::manifest::MANAGER;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::seen;
use fairway_e2e::wait::wait_for_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use kube::runtime::watcher;
use serde_json::json;

use crate::SOON;

/// How a container is injected.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// As an init container that is restarted always, and ends with the pod.
    Native,
    /// Beside the others, without an end: the pod of a Job does not end either.
    Endless,
}

fn policies(context: &Context, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "admissionregistration.k8s.io",
        "v1beta1",
        kind,
    ));
    Api::all_with(context.client.clone(), &resource)
}

/// Injects a container into each pod that is created in the namespace from now on.
async fn inject(context: &Context, form: Form) -> Result<String> {
    let name = format!("inject-{}", context.namespace);
    let (list, restart) = match form {
        Form::Native => ("initContainers", "restartPolicy: \"Always\","),
        Form::Endless => ("containers", ""),
    };
    // It ends on SIGTERM, as proxies do.
    let container = format!(
        "Object.spec.{list}{{name: \"proxy\", image: \"{image}\", {restart} \
         command: [\"/busybox\", \"sh\", \"-c\", \"trap 'exit 0' TERM; while :; do /busybox sleep 1; done\"], \
         securityContext: Object.spec.{list}.securityContext{{allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 1000, \
         capabilities: Object.spec.{list}.securityContext.capabilities{{drop: [\"ALL\"]}}, \
         seccompProfile: Object.spec.{list}.securityContext.seccompProfile{{type: \"RuntimeDefault\"}}}}}}",
        image = context.target.image("pause", "1"),
    );
    // A list of containers as the value would make Kubernetes 1.34 panic.
    let expression = format!(
        "(has(object.spec.{list}) ? [] : [JSONPatch{{op: \"add\", path: \"/spec/{list}\", value: []}}]) \
         + [JSONPatch{{op: \"add\", path: \"/spec/{list}/-\", value: {container}}}]"
    );
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1beta1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": context.namespace}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                ],
            },
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1beta1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": {"policyName": name},
    });
    let parameters = PatchParams::apply(MANAGER);
    policies(context, "MutatingAdmissionPolicy")
        .patch(&name, &parameters, &Patch::Apply(policy))
        .await?;
    policies(context, "MutatingAdmissionPolicyBinding")
        .patch(&name, &parameters, &Patch::Apply(binding))
        .await?;
    Ok(name)
}

/// Whether the container was injected into a pod.
fn has_proxy(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    let mut containers = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    containers.any(|container| container.name == "proxy")
}

/// Names of pods of the App and of the agent that have no injected container.
async fn without_proxy(context: &Context) -> Result<Vec<String>> {
    let of_app = ListParams::default().labels("fairway.dev/app=crm");
    let pods = context.api::<Pod>().list(&of_app).await?;
    Ok(pods
        .items
        .iter()
        .filter(|pod| !has_proxy(pod))
        .filter_map(|pod| pod.metadata.name.clone())
        .collect())
}

/// First release, backup, migration and switch; a rollback; and a migration that fails.
async fn released_and_rolled_back(context: &Context, form: Form) -> Result<()> {
    let injected = inject(context, form).await?;
    let pod = admission::example_pod(&json!({}), 1000);
    let is_injected = |answer: &kube::Result<Pod>| answer.as_ref().is_ok_and(has_proxy);
    let result = async {
        admission::until_asked(context, pod, is_injected).await?;
        story(context).await
    }
    .await;
    // Unlike what the test creates in its namespace, these stay.
    for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
        policies(context, kind)
            .delete(&injected, &DeleteParams::default())
            .await?;
    }
    result
}

async fn story(context: &Context) -> Result<()> {
    // A pod of the agent's sends this header in requests for health.
    let headers = crm::secret_headers(context).await?;
    let mut app = crm::install_with(context, |app| {
        if let Some(health) = &mut apps::component(app, "web").health {
            health.http[1].headers = headers;
        }
    })
    .await?;
    crm::add_leads(context, &["Ada"]).await?;

    crm::set_version(context, &mut app, "v2");
    apps::set_bake(&mut app, 30);
    apps::apply(context, &app).await?;
    seen::waits(context, "crm-2", "Baking", crm::PATIENCE).await?;
    let without = without_proxy(context).await?;
    ensure!(without.is_empty(), "nothing was injected into {without:?}");
    seen::selects(context, "crm", "crm-2", SOON).await?;
    apps::say(context, "crm-2", annotation::ROLLBACK, "now").await?;
    seen::ended(context, "crm-2", ReleaseOutcome::RolledBack, crm::PATIENCE).await?;
    seen::selects(context, "crm", "crm-1", SOON).await?;

    crm::set_version(context, &mut app, "v3");
    apps::set_bake(&mut app, 0);
    apps::apply(context, &app).await?;
    seen::ended(context, "crm-3", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
    crm::never_two_workers(context, &["v1", "v2", "v3"]).await?;
    ensure!(crm::leads(context).await? == ["Ada"]);

    // The pods that worked for the releases have gone, however long the injected containers would go on.
    let of_agent = watcher::Config::default().labels("fairway.dev/work");
    let gone = |pods: &[Pod]| pods.is_empty();
    wait_for_all(
        context.api::<Pod>(),
        of_agent,
        "pods of the agent gone",
        gone,
        SOON,
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn f12_releases_succeed_where_every_pod_gets_a_native_sidecar() -> Result<()> {
    with_temp_ns(|context| async move { released_and_rolled_back(&context, Form::Native).await }).await
}

#[tokio::test]
async fn f12_releases_succeed_where_every_pod_gets_a_container_that_never_ends() -> Result<()> {
    with_temp_ns(|context| async move { released_and_rolled_back(&context, Form::Endless).await }).await
}
