//! Each invariant is broken on purpose, and found.

use crate::cluster::{Cluster, Propagation};
use crate::script::{APP, Story};
use crate::wire::Fault;
use crate::{Sim, Turns};
use fairway_crds::component::Strategy;
use fairway_crds::condition::{RECONCILING, STALLED};
use fairway_crds::migration::MigrationOutcome;
use fairway_crds::release::ReleaseOutcome;
use fairway_crds::{App, Backup, Migration, Release, ReleaseStatus};
use fairway_engine::kinds::Kind;
use fairway_plan::labels;
use fairway_plan::protocol::Resolution;
use fairway_plan::release::IS_RETIRED;
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use rstest::rstest;
use std::sync::Arc;

/// A release with everything has ended well.
const STORY: &str = "
> app web=crm:1 worker=crm:1 migration=command
> settle
> edit image=crm:2
> settle
";

fn played(story: &str) -> Sim {
    let mut sim = Sim::new(Fault::None, Turns::Alone);
    let (_, result) = Story::parse(story).play(&mut sim, 0, |_, _| ());
    assert_eq!(
        (result, sim.checker.violations.as_slice()),
        (Ok(()), [].as_slice())
    );
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
#[case::created_twice(
    |cluster: &mut Cluster| {
        let mut again = Release::clone(cluster.api.get::<Release>("crm-2").unwrap());
        cluster.delete(Kind::Release, "crm-2");
        again.metadata.uid = None;
        cluster.api.create(again, cluster.now).unwrap();
    },
    "was created twice"
)]
#[case::backup_gone(
    |cluster: &mut Cluster| {
        let name = cluster.objects().backups.keys().next().unwrap().clone();
        cluster.delete(Kind::Backup, &name);
    },
    "was deleted"
)]
#[case::created_for_an_app_that_goes(
    |cluster: &mut Cluster| {
        cluster.delete_by(Kind::App, APP, Propagation::Foreground);
        let mut again = Release::clone(cluster.api.get::<Release>("crm-2").unwrap());
        (again.metadata.name, again.spec.revision) = (Some("crm-3".to_owned()), 3);
        cluster.api.create(again, cluster.now).unwrap();
    },
    "although App crm is being deleted"
)]
#[case::snapshot_changed(
    |cluster: &mut Cluster| {
        cluster.api.change::<ControllerRevision>("crm-2", |revision| revision.data = None);
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
#[case::generation_missing(
    |cluster: &mut Cluster| {
        cluster.api.change::<App>(APP, |app| app.status.get_or_insert_default().observed_generation = None);
    },
    "App crm has conditions of no observed generation"
)]
#[case::condition_of_an_earlier_generation(
    |cluster: &mut Cluster| {
        cluster.api.change::<App>(APP, |app| {
            app.status.get_or_insert_default().conditions[0].observed_generation = Some(1);
        });
    },
    "App crm: condition Ready is of generation 1, and the status of 2"
)]
#[case::condition_of_a_later_generation(
    |cluster: &mut Cluster| release(cluster, "crm-2", |status| status.conditions[0].observed_generation = Some(2)),
    "Release crm-2: condition Succeeded is of generation 2, and the status of 1"
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
#[case::migrations_second_thoughts(
    |cluster: &mut Cluster| {
        cluster.api.change::<Migration>("crm-2", |migration| {
            migration.status.get_or_insert_default().outcome = Some(MigrationOutcome::Failed);
        });
    },
    "the outcome of Migration crm-2 changed"
)]
#[case::backups_second_thoughts(
    |cluster: &mut Cluster| {
        let name = cluster.objects().backups.keys().next().unwrap().clone();
        cluster.api.change::<Backup>(&name, |backup| backup.status.get_or_insert_default().outcome = None);
    },
    "the outcome of Backup"
)]
#[case::revision_again(
    |cluster: &mut Cluster| {
        cluster.api.change::<App>(APP, |app| app.status.get_or_insert_default().revision = Some(1));
    },
    "the revision of App crm went back"
)]
#[case::retired_but_there(
    |cluster: &mut Cluster| {
        release(cluster, "crm-1", |status| {
            status.conditions[0].message = format!("Well done. crm-2{IS_RETIRED}.");
        });
    },
    "crm-2 is called retired, but pod"
)]
fn a_broken_invariant_is_found(#[case] breach: impl FnOnce(&mut Cluster), #[case] expected: &str) {
    let mut sim = played(STORY);
    let before = sim.cluster.objects().clone();
    breach(&mut sim.cluster);
    sim.checker.after_write(&before, &sim.cluster);
    let violations = &sim.checker.violations;
    assert!(
        violations.iter().any(|what| what.contains(expected)),
        "{violations:?}"
    );
}

#[test]
fn a_release_that_has_ended_keeps_its_conditions() {
    let mut sim = played(STORY);
    let before = sim.cluster.objects().clone();
    release(&mut sim.cluster, "crm-2", |status| {
        status.observed_generation = Some(2);
    });
    sim.checker.after_write(&before, &sim.cluster);
    assert_eq!(sim.checker.violations, Vec::<String>::new());
}

/// A migration was interrupted after it had changed the schema: only a user can say how it ended.
const UNRESOLVED: &str = "
> app web=crm:1 migration=command
> settle
> migration crm:2 in-steps
> edit image=crm:2
> until migration runs
> kill migration
> settle
";

#[rstest]
#[case::without_a_verdict(
    |_: &mut Cluster| (),
    Some("the outcome of Migration crm-2 changed from Unknown to Some(Applied)")
)]
#[case::by_the_annotation(
    |cluster: &mut Cluster| {
        cluster.api.change::<Migration>("crm-2", |migration| {
            migration.status.get_or_insert_default().last_handled_resolve = Some("applied:1".to_owned());
        });
    },
    None
)]
#[case::as_the_ledger_says(
    |cluster: &mut Cluster| {
        cluster.database.rows.last_mut().unwrap().resolution = Some(Resolution::Applied);
    },
    None
)]
fn a_migration_is_resolved_by_a_user_alone(
    #[case] resolve: impl FnOnce(&mut Cluster),
    #[case] expected: Option<&str>,
) {
    let mut sim = played(UNRESOLVED);
    let before = sim.cluster.objects().clone();
    resolve(&mut sim.cluster);
    sim.cluster.api.change::<Migration>("crm-2", |migration| {
        migration.status.get_or_insert_default().outcome = Some(MigrationOutcome::Applied);
    });
    sim.checker.after_write(&before, &sim.cluster);
    assert_eq!(sim.checker.violations, Vec::from_iter(expected));
}

/// A release that migrates when its application starts, while that migration runs.
const ON_START: &str = "
> app web=crm:1 migration=onStart
> settle
> edit image=crm:2
> until migration runs
";

#[test]
fn an_application_that_migrates_on_start_is_a_second_version() {
    let mut sim = played(ON_START);
    for snapshot in sim.checker.snapshots.values_mut() {
        Arc::make_mut(snapshot).components[0].strategy = Strategy::Recreate;
    }
    let before = sim.cluster.objects().clone();
    sim.checker.after_write(&before, &sim.cluster);
    let expected = r#"component web ran in {"crm-1", "crm-2"} at once"#;
    assert_eq!(sim.checker.violations, [expected]);
}

fn say(status: &mut ReleaseStatus, type_: &str, message: &str) {
    status.outcome = None;
    status.conditions.retain(|condition| condition.type_ != STALLED);
    let_be_true(&mut status.conditions, type_);
    for condition in &mut status.conditions {
        message.clone_into(&mut condition.message);
    }
}

#[rstest]
#[case::forever(
    |cluster: &mut Cluster| release(cluster, "crm-2", |status| say(status, RECONCILING, "Waiting for pods.")),
    "Release crm-2 waits without an end, and no user is to act: Succeeded: Waiting for pods."
)]
#[case::until_a_past_moment(
    |cluster: &mut Cluster| {
        release(cluster, "crm-2", |status| say(status, STALLED, "It is watched until 2026-01-01T12:00:00Z."));
    },
    "Release crm-2 waits until a moment that has passed"
)]
#[case::app_at_work(
    |cluster: &mut Cluster| {
        cluster.api.change::<App>(APP, |app| {
            let_be_true(&mut app.status.get_or_insert_default().conditions, RECONCILING);
        });
    },
    "App crm waits without an end"
)]
#[case::nobody_behind_the_service(
    |cluster: &mut Cluster| {
        scale(cluster, "crm-web-2", 0);
        for pod in cluster.objects().pods.keys().cloned().collect::<Vec<_>>() {
            cluster.kill_pod(&pod);
        }
    },
    "Service crm selects crm-2, which is asked for no pod"
)]
#[case::missed_wake(|_: &mut Cluster| (), "nothing wakes what is due: a write")]
fn a_wait_without_an_end_is_found(#[case] breach: impl FnOnce(&mut Cluster), #[case] expected: &str) {
    let mut sim = played(STORY);
    let pending = if expected.starts_with("nothing wakes") {
        vec!["a write".to_owned()]
    } else {
        Vec::new()
    };
    breach(&mut sim.cluster);
    sim.checker.at_rest(&sim.cluster, &pending);
    let violations = &sim.checker.violations;
    assert!(
        violations.iter().any(|what| what.contains(expected)),
        "{violations:?}"
    );
}

#[test]
fn a_verb_that_a_message_names_and_nothing_hears_is_found() {
    let mut sim = played(STORY);
    assert_eq!(sim.unheard(), Vec::<String>::new());
    release(&mut sim.cluster, "crm-2", |status| {
        status.conditions[0].message =
            "To go on: kubectl -n shop annotate release crm-2 fairway.dev/hurry=\"$(date +%s)\" --overwrite"
                .to_owned();
    });
    assert_eq!(
        sim.unheard(),
        ["a message names fairway.dev/hurry for release crm-2, which nothing hears"]
    );
}
