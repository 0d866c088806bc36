//! Of two operators one leads. When it stops it gives the Lease back and the other goes on at once; when it is
//! killed the other goes on when the Lease has run out. The release under way ends either way as any other.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairway_crds::release::MilestoneKind;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load};
use fairway_e2e::ns::Context;
use fairway_e2e::{operator, seen};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::runtime::watcher::watch_object;
use tokio::time::timeout;

use crate::alone;
use crate::kills::went_well;

/// How long the other operator may take to lead: the Lease of one that was killed runs for 15 s.
const TAKEOVER: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_leader_that_stops_gives_the_lease_back_and_the_other_ends_its_release() -> Result<()> {
    alone(|context| async move {
        with_two(&context, async |context| {
            let leader = operator::leader(context).await?;
            let mut holders = holders(context).await?;
            let logged = operator::stop_one(context, &leader).await?;
            ensure!(
                logged.contains("stopping: passes under way are finished, then the Lease is given back"),
                "{logged}"
            );
            ensure!(!logged.contains("did not finish in time"), "{logged}");
            let seen = until_another_leads(&mut holders, &leader.name_any()).await?;
            ensure!(
                seen.iter().any(String::is_empty),
                "the Lease was not given back: {seen:?}"
            );
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_leader_that_is_killed_is_followed_by_the_other_when_its_lease_has_run_out() -> Result<()> {
    alone(|context| async move {
        with_two(&context, async |context| {
            let leader = operator::leader(context).await?;
            let mut holders = holders(context).await?;
            operator::kill_one(context, &leader).await?;
            let seen = until_another_leads(&mut holders, &leader.name_any()).await?;
            ensure!(
                !seen.iter().any(String::is_empty),
                "a killed process gave the Lease back: {seen:?}"
            );
            Ok(())
        })
        .await
    })
    .await
}

/// Lets this befall two operators while they migrate for a release of v2, and sees that the release goes well.
async fn with_two(context: &Context, befalls: impl AsyncFnOnce(&Context) -> Result<()>) -> Result<()> {
    let mut app = crm::install(context).await?;
    let clients = load::start(context, &Load::on("crm", 80, "/api/leads")).await?;
    operator::scale(context, 2).await?;
    let outcome = async {
        crm::set_version(context, &mut app, "v2");
        apps::set_bake(&mut app, 2);
        apps::set_env(&mut app, "web", "CRM_FAULT_MIGRATE", "sleep:3000");
        apps::apply(context, &app).await?;
        seen::reaches(context, "crm-2", MilestoneKind::Migrating, crm::PATIENCE).await?;
        befalls(context).await?;
        went_well(context).await
    }
    .await;
    operator::scale(context, 1).await?;
    outcome?;
    load::assert_none_failed(&clients.stop().await?)
}

/// Who holds the Lease, each time that it is written, from now on: the watch goes on from what is read here, so
/// nothing is missed however late the stream is asked.
async fn holders(context: &Context) -> Result<impl Stream<Item = Result<String>> + Unpin + use<>> {
    let of = |lease: Option<Lease>| lease.as_ref().map_or("", operator::holder).to_owned();
    let mut holders = watch_object(operator::leases(context), "fairway")
        .map(move |lease| Ok(of(lease?)))
        .boxed();
    let now = holders.try_next().await?;
    ensure!(
        now.is_some_and(|holder| !holder.is_empty()),
        "the Lease is not held"
    );
    Ok(holders)
}

/// The holders seen until another than this pod holds the Lease.
async fn until_another_leads(
    holders: &mut (impl Stream<Item = Result<String>> + Unpin),
    leader: &str,
) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    timeout(TAKEOVER, async {
        while let Some(holder) = holders.try_next().await? {
            let another = !holder.is_empty() && holder != leader;
            seen.push(holder);
            if another {
                break;
            }
        }
        Ok(seen)
    })
    .await?
}
