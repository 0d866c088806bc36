//! Each invariant is broken on purpose, and found.

use super::*;
use crate::script::{APP, Story};
use crate::wire::Fault;
use crate::{Sim, Turns};
use fairway_crds::App;
use fairway_engine::kinds::Kind;
use k8s_openapi::api::apps::v1::Deployment;
use rstest::rstest;

/// A release with everything has ended well.
const STORY: &str = "
> app web=crm:1 worker=crm:1 migration=command
> settle
> edit image=crm:2
> settle
";

fn told() -> Sim {
    let mut sim = Sim::new(Fault::None, Turns::Alone);
    let (_, result) = Story::parse(STORY).tell(&mut sim, 0, |_, _| ());
    assert_eq!((result, sim.checker.broken.as_slice()), (Ok(()), [].as_slice()));
    sim
}

fn scale(cluster: &mut Cluster, deployment: &str, replicas: i32) {
    cluster.api.change::<Deployment>(deployment, |deployment| {
        deployment.spec.get_or_insert_default().replicas = Some(replicas);
    });
}

fn select(cluster: &mut Cluster, release: Option<&str>) {
    cluster.api.change::<Service>(APP, |service| {
        let selector = service
            .spec
            .get_or_insert_default()
            .selector
            .get_or_insert_default();
        match release {
            Some(release) => selector.insert(labels::RELEASE.to_owned(), release.to_owned()),
            None => {
                selector.clear();
                None
            }
        };
    });
}

fn release(cluster: &mut Cluster, name: &str, change: impl FnOnce(&mut ReleaseStatus)) {
    cluster
        .api
        .change::<Release>(name, |release| change(release.status.get_or_insert_default()));
}

fn let_be_true(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        ..conditions[0].clone()
    });
}

#[rstest]
#[case::selector(|cluster: &mut Cluster| select(cluster, None), "selects nothing")]
#[case::dead_end(
    |cluster: &mut Cluster| {
        // As if crm-1 had never had the traffic.
        release(cluster, "crm-1", |status| status.milestones.clear());
        select(cluster, Some("crm-1"));
    },
    "which has no ready pod"
)]
#[case::scaled_away(|cluster: &mut Cluster| scale(cluster, "crm-web-2", 0), "while a Service selects it")]
#[case::two_workers(
    |cluster: &mut Cluster| {
        scale(cluster, "crm-worker-1", 1);
        cluster.tick();
    },
    "ran in"
)]
#[case::history(
    |cluster: &mut Cluster| release(cluster, "crm-2", |status| { status.milestones.pop(); }),
    "were rewritten"
)]
#[case::second_thoughts(
    |cluster: &mut Cluster| release(cluster, "crm-2", |status| status.outcome = Some(ReleaseOutcome::Failed)),
    "the outcome of crm-2 changed"
)]
#[case::two_at_once(
    |cluster: &mut Cluster| {
        release(cluster, "crm-1", |status| status.outcome = None);
        release(cluster, "crm-2", |status| status.outcome = None);
    },
    "past the point of no return at once"
)]
#[case::minted_twice(
    |cluster: &mut Cluster| {
        let mut again = Release::clone(cluster.api.get::<Release>("crm-2").unwrap());
        cluster.delete(Kind::Release, "crm-2");
        again.metadata.uid = None;
        cluster.api.create(again, cluster.now).unwrap();
    },
    "was minted twice"
)]
#[case::backup_gone(
    |cluster: &mut Cluster| {
        let name = cluster.objects().backups.keys().next().unwrap().clone();
        cluster.delete(Kind::Backup, &name);
    },
    "was deleted"
)]
#[case::snapshot_changed(
    |cluster: &mut Cluster| {
        cluster.api.change::<k8s_openapi::api::apps::v1::ControllerRevision>("crm-2", |revision| revision.data = None);
    },
    "the snapshot of crm-2 changed"
)]
#[case::both_true(
    |cluster: &mut Cluster| {
        cluster.api.change::<App>(APP, |app| {
            let conditions = &mut app.status.get_or_insert_default().conditions;
            let_be_true(conditions, RECONCILING);
            let_be_true(conditions, STALLED);
        });
    },
    "reconciling and stalled at once"
)]
#[case::condition_missing(
    |cluster: &mut Cluster| {
        cluster.api.change::<App>(APP, |app| { app.status.get_or_insert_default().conditions.remove(0); });
    },
    "has the conditions"
)]
#[case::migrated_twice(
    |cluster: &mut Cluster| {
        let again = cluster.database.executions.last().unwrap().clone();
        cluster.database.executions.push(again);
    },
    "was executed twice"
)]
#[case::without_a_backup(
    |cluster: &mut Cluster| {
        let mut other = cluster.database.executions.last().unwrap().clone();
        "crm-7".clone_into(&mut other.release);
        "other".clone_into(&mut other.identity.image_digest);
        cluster.database.executions.push(other);
    },
    "without a proven backup"
)]
fn a_broken_invariant_is_found(#[case] breach: impl FnOnce(&mut Cluster), #[case] expected: &str) {
    let mut sim = told();
    let before = sim.cluster.objects().clone();
    breach(&mut sim.cluster);
    sim.checker.after_write(&before, &sim.cluster);
    let broken = &sim.checker.broken;
    assert!(broken.iter().any(|what| what.contains(expected)), "{broken:?}");
}
