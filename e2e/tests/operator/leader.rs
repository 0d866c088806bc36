//! Of two operators one leads. When it stops it gives the Lease back and the other goes on at once; when it is
//! killed the other goes on when the Lease has run out. The release under way ends either way as any other.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fairway_crds::release::MilestoneKind;
use fairway_e2e::apps::{self, crm};
use fairway_e2e::load::{self, Load};
use fairway_e2e::ns::Context;
use fairway_e2e::{operator, seen};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::LeaseSpec;
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
            let mut leases = leases(context).await?;
            let logged = operator::stop_one(context, &leader).await?;
            ensure!(
                logged.contains("stopping: passes under way are finished, then the Lease is given back"),
                "{logged}"
            );
            ensure!(!logged.contains("did not finish in time"), "{logged}");
            ensure!(logged.contains("gave the Lease back"), "{logged}");
            another_leads(&mut leases, &leader.name_any()).await?;
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
            let mut leases = leases(context).await?;
            operator::kill_one(context, &leader).await?;
            let free_for = another_leads(&mut leases, &leader.name_any()).await?;
            ensure!(
                free_for >= SignedDuration::ZERO,
                "another took a Lease that had not run out: {free_for}"
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

/// Waits until another than this pod holds the Lease, and tells how long before that it had run out: less than
/// nothing when it had not.
async fn another_leads(
    leases: &mut (impl Stream<Item = Result<LeaseSpec>> + Unpin),
    leader: &str,
) -> Result<SignedDuration> {
    let mut runs_out = None;
    let taken = async {
        while let Some(lease) = leases.try_next().await? {
            match lease.holder_identity.as_deref() {
                Some(holder) if holder == leader => {
                    let seconds = lease.lease_duration_seconds.unwrap_or_default();
                    let renewed = lease
                        .renew_time
                        .context("a Lease that is held was never renewed")?;
                    runs_out = Some(renewed.0 + SignedDuration::from_secs(seconds.into()));
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
    let runs_out = runs_out.context("the leader was not seen to hold the Lease")?;
    Ok(taken.0.duration_since(runs_out))
}
