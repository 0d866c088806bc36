//! What the operator has asked the API server, by its audit log. This test runs last, when the operator has done all that
//! the tests make it do.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context as _, Result, bail, ensure};
use fairway_e2e::install::OPERATOR_NAMESPACE;
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::operator;
use fairway_e2e::rbac::granted;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use kube::Api;
use serde::Deserialize;

/// One request, as the API server's audit log has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(crate) verb: String,
    #[serde(rename = "requestURI")]
    pub(crate) uri: String,
    user: User,
    #[serde(default)]
    object_ref: Option<ObjectRef>,
    request_received_timestamp: Timestamp,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
}

impl ObjectRef {
    /// The resource as roles write it, after its group.
    fn in_roles(&self) -> String {
        match &*self.subresource {
            "" => format!("{}/{}", self.api_group, self.resource),
            subresource => format!("{}/{}/{subresource}", self.api_group, self.resource),
        }
    }
}

/// Requests of the operator to the API server since a moment.
pub(crate) fn asked_since(context: &Context, since: Timestamp) -> Result<Vec<Asked>> {
    if !context.target.is_embedded() {
        bail!("the audit log of the embedded cluster alone can be read");
    }
    let path = context.target.paths.audit_log();
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut asked = Vec::new();
    for line in BufReader::new(file).lines() {
        // The last line may be half written.
        let Ok(request) = serde_json::from_str::<Asked>(&line?) else {
            continue;
        };
        if request.user.username == operator::USER && request.request_received_timestamp >= since {
            asked.push(request);
        }
    }
    Ok(asked)
}

/// Plural name of the kind that a request is about.
pub(crate) fn resource(request: &Asked) -> &str {
    request.object_ref.as_ref().map_or("", |object| &object.resource)
}

#[tokio::test]
async fn operator_has_never_asked_for_a_secret() -> Result<()> {
    with_temp_ns(|context| async move {
        let asked = asked_since(&context, Timestamp::UNIX_EPOCH)?;
        ensure!(
            !asked.is_empty(),
            "the operator has asked for nothing at all: is the log read right?"
        );
        let secrets: Vec<_> = asked
            .iter()
            .filter(|request| resource(request) == "secrets")
            .collect();
        ensure!(secrets.is_empty(), "{secrets:?}");
        Ok(())
    })
    .await
}

/// Verbs that the operator needs and the log does not show.
const NOT_IN_THE_LOG: [(&str, &str, &str); 4] = [
    (
        "/services",
        "create",
        "a server-side apply that creates is a patch in the log",
    ),
    (
        "apps/deployments",
        "create",
        "a server-side apply that creates is a patch in the log",
    ),
    (
        "fairway.dev/releases",
        "delete",
        "no test makes more than ten releases; a story of the simulator does",
    ),
    (
        "apps/controllerrevisions",
        "delete",
        "no test makes more than ten releases; a story of the simulator does",
    ),
];

/// S15: the operator's roles give every verb that it uses, and no other one.
#[tokio::test]
async fn s15_verbs_used_are_the_verbs_granted() -> Result<()> {
    with_temp_ns(|context| async move {
        let used: BTreeSet<_> = asked_since(&context, Timestamp::UNIX_EPOCH)?
            .iter()
            .filter_map(|request| Some((request.object_ref.as_ref()?.in_roles(), request.verb.clone())))
            .collect();
        let role: ClusterRole = Api::all(context.client.clone()).get("fairway").await?;
        let lease: Role = Api::namespaced(context.client.clone(), OPERATOR_NAMESPACE)
            .get("fairway-lease")
            .await?;
        let mut granted = granted(role.rules.into_iter().chain(lease.rules).flatten());
        // Checked by an admission plugin when owner references are written, and never requested.
        granted.retain(|(resource, _)| !resource.ends_with("/finalizers"));
        // What is created is read only when the answer to its creation was lost: by chance in these tests, at every
        // write in the simulator's sweeps and in the part `kills`.
        let by_chance = |resource: &String, verb: &str| {
            verb == "get" && granted.contains(&(resource.clone(), "create".to_owned()))
        };
        let expected = |(resource, verb): &(String, String)| {
            by_chance(resource, verb)
                || NOT_IN_THE_LOG
                    .iter()
                    .any(|(of, unseen, _)| of == resource && unseen == verb)
        };
        let unused: Vec<_> = granted
            .difference(&used)
            .filter(|unused| !expected(unused))
            .collect();
        ensure!(
            unused.is_empty(),
            "granted, and not used by any test since the cluster was started: {unused:?}"
        );
        let refused: Vec<_> = used.difference(&granted).collect();
        ensure!(refused.is_empty(), "used and not granted: {refused:?}");
        Ok(())
    })
    .await
}
