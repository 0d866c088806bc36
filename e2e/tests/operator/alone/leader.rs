//! Of two operators one leads. When it stops it releases the Lease and the other continues at once; when it is killed
//! the other continues when the Lease has expired. The release under way ends as usual either way.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::App;
use fairway_crds::release::MilestoneKind;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load};
use fairway_e2e::ns::{Context, alone};
use fairway_e2e::{operator, seen};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use kube::ResourceExt;
use kube::runtime::watcher::watch_object;
use tokio::time::timeout;

use crate::kills::went_well;

/// How long the other operator may take to lead: the Lease of one that was killed runs for 15 s.
const TAKEOVER: Duration = Duration::from_secs(60);

#[tokio::test]
async fn leadership_passes_when_a_leader_stops_or_is_killed() -> Result<()> {
    alone(|context| async move {
        let mut app = crm::install(&context).await?;
        let clients = load::start(&context, &Load::on("crm", 80, "/api/leads")).await?;
        operator::scale(&context, 2).await?;
        let outcome = released_by_three_leaders(&context, &mut app).await;
        operator::scale(&context, 1).await?;
        outcome?;
        load::assert_none_failed(&clients.stop().await?)
    })
    .await
}

/// Releases v2. The first leader stops while it migrates, the second is killed after the switch.
async fn released_by_three_leaders(context: &Context, app: &mut App) -> Result<()> {
    crm::set_version(context, app, "v2");
    apps::set_bake(app, 5);
    apps::set_env(app, "web", "CRM_FAULT_MIGRATE", "sleep:3000");
    apps::apply(context, app).await?;
    seen::reaches(context, "crm-2", MilestoneKind::Migrating, crm::PATIENCE).await?;
    let leader = operator::leader(context).await?;
    let mut renewals = leases(context).await?;
    let logged = operator::stop_one(context, &leader).await?;
    ensure!(
        logged.contains("stopping: passes under way are finished, then the Lease is given back"),
        "{logged}"
    );
    ensure!(!logged.contains("did not finish in time"), "{logged}");
    ensure!(logged.contains("gave the Lease back"), "{logged}");
    another_leads(&mut renewals, &leader.name_any()).await?;

    // Another operator waits for the Lease again, in place of the one that stopped.
    operator::scale(context, 2).await?;
    seen::reaches(context, "crm-2", MilestoneKind::TrafficMoved, crm::PATIENCE).await?;
    let leader = operator::leader(context).await?;
    let mut renewals = leases(context).await?;
    operator::kill_one(context, &leader).await?;
    let free_for = another_leads(&mut renewals, &leader.name_any()).await?;
    ensure!(
        free_for >= SignedDuration::ZERO,
        "another took a Lease that had not expired: {free_for}"
    );
    went_well(context).await
}

/// The Lease, each time that it is written, from now on: the watch goes on from what is read here, so nothing is
/// missed however late the stream is asked.
async fn leases(context: &Context) -> Result<impl Stream<Item = Result<LeaseSpec>> + Unpin + use<>> {
    let mut leases = watch_object(operator::leases(context), "fairway")
        .map(|lease| Ok(lease?.and_then(|lease| lease.spec).unwrap_or_default()))
        .boxed();
    let now = leases.try_next().await?.unwrap_or_default();
    ensure!(now.holder_identity.is_some(), "the Lease is not held");
    Ok(stream::iter([Ok(now)]).chain(leases).boxed())
}

/// Waits until another pod than this holds the Lease, and returns how long before that it had expired: less than
/// zero when it had not.
async fn another_leads(
    leases: &mut (impl Stream<Item = Result<LeaseSpec>> + Unpin),
    leader: &str,
) -> Result<SignedDuration> {
    let mut expires = None;
    let taken = async {
        while let Some(lease) = leases.try_next().await? {
            match lease.holder_identity.as_deref() {
                Some(holder) if holder == leader => {
                    let seconds = lease.lease_duration_seconds.unwrap_or_default();
                    let renewed = lease
                        .renew_time
                        .context("a Lease that is held was never renewed")?;
                    expires = Some(renewed.0 + SignedDuration::from_secs(seconds.into()));
                }
                Some("") | None => {}
                Some(_) => {
                    return lease
                        .acquire_time
                        .context("a Lease is held that was never acquired");
                }
            }
        }
        bail!("the watch of the Lease has ended")
    };
    let taken = timeout(TAKEOVER, taken).await.context("nobody else leads")??;
    let expires = expires.context("the leader was not seen to hold the Lease")?;
    Ok(taken.0.duration_since(expires))
}
