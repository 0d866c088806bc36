//! What the operator has asked the apiserver, by its audit log. This test runs last, when the operator has done all that
//! the tests make it do.

use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context as _, Result, bail, ensure};
use fairway_e2e::ns::{Context, with_temp_ns};
use fairway_e2e::operator;
use jiff::Timestamp;
use serde::Deserialize;

/// One request, as the apiserver's audit log has it.
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
struct ObjectRef {
    #[serde(default)]
    resource: String,
}

/// Requests of the operator to the apiserver since a moment.
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
