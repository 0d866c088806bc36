use super::*;
use fairway_crds::{App, Release};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

fn app(version: u64) -> App {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "App",
        "metadata": {"namespace": "shop", "name": "crm", "resourceVersion": version.to_string()},
        "spec": {"components": []},
    }))
    .unwrap()
}

fn release(version: u64) -> Release {
    serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Release",
        "metadata": {"namespace": "shop", "name": "crm-1", "resourceVersion": version.to_string(), "labels": {"fairway.dev/app": "crm"}},
        "spec": {"app": "crm", "revision": 1},
    }))
    .unwrap()
}

fn deployment(app: &str, version: u64) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "shop", "name": "web", "resourceVersion": version.to_string(), "uid": "d-1",
            "labels": {"fairway.dev/app": app},
            "managedFields": [{"manager": "someone"}],
        },
        "spec": {"selector": {}, "template": {"spec": {"containers": [
            {"name": "web", "image": "crm:1", "env": [{"name": "PASSWORD", "value": "hunter2"}]},
        ]}}},
    }))
    .unwrap()
}

fn names(work: &[Work]) -> Vec<String> {
    work.iter()
        .map(|work| format!("{} {}", work.kind.controller(), work.key))
        .collect()
}

fn key(name: &str) -> Key {
    Key::new("shop", name)
}

fn app_work() -> Work {
    Work::new(Reconciled::App, key("crm"))
}

fn deployments(world: &World, app: &str) -> usize {
    match world.view(&key(app), &app_work(), |group| {
        Some(group.deployments.all().count())
    }) {
        View::Of(count) => count,
        _ => 0,
    }
}

#[test]
fn an_event_that_changes_nothing_concerns_nobody() {
    let world = World::default();
    assert_eq!(names(&world.put(app(1))), ["app shop/crm"]);
    assert_eq!(
        names(&world.put(release(2))),
        ["app shop/crm", "release shop/crm-1"]
    );
    assert!(world.put(release(2)).is_empty(), "a new list of the same objects");
    assert_eq!(
        names(&world.put(deployment("crm", 3))),
        ["app shop/crm", "release shop/crm-1"]
    );
}

#[test]
fn what_a_list_does_not_hold_any_more_is_gone() {
    let world = World::default();
    world.put(app(1));
    world.put(release(2));
    world.put(deployment("crm", 3));
    let work = world.retain::<Deployment>(&HashSet::new());
    assert_eq!(names(&work), ["app shop/crm", "release shop/crm-1"]);
    assert_eq!(deployments(&world, "crm"), 0);
    assert!(world.retain::<Release>(&HashSet::from([key("crm-1")])).is_empty());
}

#[test]
fn a_job_that_goes_between_two_lists_concerns_the_work_that_has_not_ended() {
    let world = World::default();
    world.put(app(1));
    let migration: fairway_crds::Migration = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Migration",
        "metadata": {"namespace": "shop", "name": "crm-1", "resourceVersion": "2", "labels": {"fairway.dev/app": "crm"}},
        "spec": {"app": "crm", "release": "crm-1", "image": "crm@sha256:0", "component": "web", "command": ["migrate"], "timeout": "1m"},
    }))
    .unwrap();
    world.put(migration);
    let job: k8s_openapi::api::batch::v1::Job = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "crm-1-run-1", "resourceVersion": "3", "labels": {"fairway.dev/app": "crm"}},
    }))
    .unwrap();
    world.put(job);
    let work = world.retain::<k8s_openapi::api::batch::v1::Job>(&HashSet::new());
    assert_eq!(names(&work), ["app shop/crm", "migration shop/crm-1"]);
}

#[test]
fn an_object_that_moves_to_another_app_leaves_the_first() {
    let world = World::default();
    world.put(deployment("crm", 3));
    world.put(deployment("cms", 4));
    assert_eq!((deployments(&world, "crm"), deployments(&world, "cms")), (0, 1));
}

#[test]
fn a_deleted_release_is_told_to_its_own_controller() {
    let world = World::default();
    world.put(release(2));
    let work = world.remove::<Release>(&key("crm-1"), &release(3).metadata);
    assert_eq!(names(&work), ["release shop/crm-1"]);
    assert_eq!(world.home(Watched::Release, &key("crm-1")), None);
}

#[test]
fn caches_hold_neither_managed_fields_nor_environments() {
    let world = World::default();
    world.put(deployment("crm", 3));
    let kept = world.view(&key("crm"), &app_work(), |group| group.deployments.get("web"));
    let View::Of(kept) = kept else { panic!("{kept:?}") };
    assert_eq!(kept.metadata.managed_fields, None);
    let spec = kept.spec.clone().unwrap().template.spec.unwrap();
    assert_eq!(
        (spec.containers[0].image.as_deref(), &spec.containers[0].env),
        (Some("crm:1"), &None)
    );
}

#[test]
fn whoever_looked_too_early_is_woken_when_the_write_comes_back() {
    let world = World::default();
    world.put(app(1));
    let mut written = deployment("crm", 9);
    world.wrote::<Deployment>(&key("crm"), &written.metadata);
    let migration = Work::new(Reconciled::Migration, key("crm-1"));
    assert!(matches!(
        world.view(&key("crm"), &migration, |_| Some(())),
        View::Stale(_)
    ));
    written.metadata.resource_version = Some("10".into());
    assert!(world.put(written).contains(&migration));
    assert!(matches!(
        world.view(&key("crm"), &migration, |_| Some(())),
        View::Of(())
    ));
}

#[test]
fn a_deletion_of_ours_holds_planning_until_it_is_seen() {
    let world = World::default();
    world.put(app(1));
    world.put(deployment("crm", 3));
    world.deleted::<Deployment>(&key("crm"), &key("web"), Until::Gone("d-1".into()));
    assert!(matches!(
        world.view(&key("crm"), &app_work(), |_| Some(())),
        View::Stale(_)
    ));
    world.remove::<Deployment>(&key("web"), &deployment("crm", 4).metadata);
    assert!(matches!(
        world.view(&key("crm"), &app_work(), |_| Some(())),
        View::Of(())
    ));
    world.deleted::<Deployment>(&key("crm"), &key("web"), Until::Gone("d-1".into()));
    assert!(
        matches!(world.view(&key("crm"), &app_work(), |_| Some(())), View::Of(())),
        "seen already"
    );
}

#[test]
fn a_deletion_whose_beginning_was_seen_before_its_answer_holds_nothing() {
    let world = World::default();
    world.put(app(1));
    let mut ending = deployment("crm", 4);
    ending.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
    ));
    world.put(ending);
    world.deleted::<Deployment>(&key("crm"), &key("web"), Until::Version(4));
    assert!(matches!(
        world.view(&key("crm"), &app_work(), |_| Some(())),
        View::Of(())
    ));
    world.deleted::<Deployment>(&key("crm"), &key("web"), Until::Version(5));
    assert!(matches!(
        world.view(&key("crm"), &app_work(), |_| Some(())),
        View::Stale(_)
    ));
}

#[test]
fn an_app_with_an_unreadable_object_is_held_and_others_go_on() {
    let world = World::default();
    world.put(app(1));
    world.put(deployment("cms", 3));
    let broken = release(2);
    assert!(world.put_unreadable(Watched::Release, &broken.metadata));
    assert!(
        !world.put_unreadable(Watched::Release, &broken.metadata),
        "told once"
    );
    assert!(matches!(
        world.view(&key("crm"), &app_work(), |_| Some(())),
        View::Held
    ));
    assert!(matches!(
        world.view(&key("cms"), &app_work(), |_| Some(())),
        View::Of(())
    ));
    assert_eq!(world.unreadable(), 1);
    assert!(
        names(&world.put(release(4))).contains(&"app shop/crm".to_owned()),
        "mended"
    );
    assert!(matches!(
        world.view(&key("crm"), &app_work(), |_| Some(())),
        View::Of(())
    ));
}

#[test]
fn a_deleted_unreadable_object_frees_its_app() {
    let world = World::default();
    world.put(app(1));
    world.put_unreadable(Watched::Release, &release(2).metadata);
    let work = world.remove::<Release>(&key("crm-1"), &release(3).metadata);
    assert_eq!(names(&work), ["app shop/crm"]);
    world.put_unreadable(Watched::Release, &release(2).metadata);
    assert_eq!(
        names(&world.retain::<Release>(&HashSet::new())),
        ["app shop/crm"],
        "or not listed any more"
    );
    assert_eq!(world.unreadable(), 0);
}

#[test]
fn an_unreadable_backup_holds_nobody() {
    let world = World::default();
    world.put(app(1));
    world.put_unreadable(Watched::Backup, &release(2).metadata);
    assert!(matches!(
        world.view(&key("crm"), &app_work(), |_| Some(())),
        View::Of(())
    ));
}

#[test]
fn a_complete_cache_stays_complete_when_its_watch_breaks() {
    let world = World::default();
    for kind in Watched::ALL {
        world.set_missing(kind, None);
    }
    world.set_missing(Watched::Pod, Some("the apiserver cannot be reached".into()));
    assert!(world.missing().borrow().is_empty());
}
