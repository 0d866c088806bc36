//! When nothing changes, nothing is asked and nothing is written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::release::ReleaseOutcome;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::ns::Context;
use fairway_e2e::{operator, seen};
use jiff::Timestamp;
use serde::Deserialize;

use crate::alone;

/// From when on after an outcome nothing may be asked.
const SETTLING: Duration = Duration::from_secs(60);
/// How long is looked on. Whatever the operator did in a rhythm would be seen.
const LOOKING: Duration = Duration::from_secs(60);

/// One request, as the apiserver's audit log has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
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

/// What the operator has asked the apiserver since a moment.
fn asked_since(context: &Context, since: Timestamp) -> Result<Vec<Asked>> {
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

fn resource(request: &Asked) -> &str {
    request.object_ref.as_ref().map_or("", |object| &object.resource)
}

#[tokio::test]
async fn a_minute_after_the_outcome_nothing_is_asked_or_written_but_the_lease() -> Result<()> {
    alone(|context| async move {
        let mut app = crm::install(&context).await?;
        apps::set_bake(&mut app, 1);
        crm::set_version(&context, &mut app, "v2");
        apps::apply(&context, &app).await?;
        seen::ended(&context, "crm-2", ReleaseOutcome::Succeeded, crm::PATIENCE).await?;
        // Time itself is what this test is about.
        tokio::time::sleep(SETTLING).await;
        let since = Timestamp::now();
        tokio::time::sleep(LOOKING).await;

        let asked = asked_since(&context, since)?;
        ensure!(
            asked.iter().any(|request| resource(request) == "leases"),
            "the Lease was not renewed: is the log read right?"
        );
        let more: Vec<_> = asked
            .iter()
            .filter(|request| resource(request) != "leases" && request.verb != "watch")
            .map(|request| format!("{} {}", request.verb, request.uri))
            .collect();
        ensure!(more.is_empty(), "asked while nothing changed: {more:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_operator_has_never_asked_for_a_secret() -> Result<()> {
    alone(|context| async move {
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
