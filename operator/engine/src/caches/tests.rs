use super::*;
use crate::kinds::{Backup, Deployment, Job, Migration, Pod, Release};
use rstest::rstest;
use serde_json::json;

const NOW: Instant = Instant::after_origin(std::time::Duration::ZERO);

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

fn names(work: &[ObjectKey]) -> Vec<String> {
    work.iter().map(ToString::to_string).collect()
}

fn key(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

fn app_work() -> ObjectKey {
    ObjectKey::new(OwnKind::App, key("crm"))
}

fn deployments(caches: &mut Caches, app: &str) -> usize {
    match caches.read(&key(app), &app_work(), NOW, |group, _| {
        Some(group.deployments.all().count())
    }) {
        CacheRead::Fresh(count) => count,
        _ => 0,
    }
}

#[test]
fn an_event_that_changes_nothing_concerns_nobody() {
    let mut caches = Caches::default();
    assert_eq!(names(&caches.put(app(1))), ["app shop/crm"]);
    assert_eq!(
        names(&caches.put(release(2))),
        ["app shop/crm", "release shop/crm-1"]
    );
    assert!(
        caches.put(release(2)).is_empty(),
        "a new list of the same objects"
    );
    assert_eq!(
        names(&caches.put(deployment("crm", 3))),
        ["app shop/crm", "release shop/crm-1"]
    );
}

#[test]
fn what_a_list_does_not_hold_any_more_is_gone() {
    let mut caches = Caches::default();
    caches.put(app(1));
    caches.put(release(2));
    caches.put(deployment("crm", 3));
    let work = caches.retain::<Deployment>(None, &BTreeSet::new());
    assert_eq!(names(&work), ["app shop/crm", "release shop/crm-1"]);
    assert_eq!(deployments(&mut caches, "crm"), 0);
    assert!(
        caches
            .retain::<Release>(None, &BTreeSet::from([key("crm-1")]))
            .is_empty()
    );
}

#[test]
fn a_job_that_goes_between_two_lists_concerns_the_work_that_has_not_ended() {
    let mut caches = Caches::default();
    caches.put(app(1));
    let migration: Migration = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Migration",
        "metadata": {"namespace": "shop", "name": "crm-1", "resourceVersion": "2", "labels": {"fairway.dev/app": "crm"}},
        "spec": {"app": "crm", "release": "crm-1", "image": "crm@sha256:0", "component": "web", "command": ["migrate"], "timeout": "1m"},
    }))
    .unwrap();
    caches.put(migration);
    let job: Job = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "crm-1-run-1", "resourceVersion": "3", "labels": {"fairway.dev/app": "crm"}},
    }))
    .unwrap();
    caches.put(job);
    let work = caches.retain::<Job>(None, &BTreeSet::new());
    assert_eq!(names(&work), ["app shop/crm", "migration shop/crm-1"]);
}

#[test]
fn an_object_that_moves_to_another_app_leaves_the_first() {
    let mut caches = Caches::default();
    caches.put(deployment("crm", 3));
    caches.put(deployment("cms", 4));
    assert_eq!(
        (deployments(&mut caches, "crm"), deployments(&mut caches, "cms")),
        (0, 1)
    );
}

#[test]
fn a_deleted_release_is_told_to_its_own_controller() {
    let mut caches = Caches::default();
    caches.put(release(2));
    let work = caches.remove::<Release>(&key("crm-1"), &release(3).metadata);
    assert_eq!(names(&work), ["release shop/crm-1"]);
    assert_eq!(caches.app_of(Kind::Release, &key("crm-1")), None);
}

#[test]
fn caches_hold_neither_managed_fields_nor_environments() {
    let mut caches = Caches::default();
    caches.put(deployment("crm", 3));
    let kept = caches.read(&key("crm"), &app_work(), NOW, |group, _| {
        group.deployments.get("web")
    });
    let CacheRead::Fresh(kept) = kept else {
        panic!("{kept:?}")
    };
    assert_eq!(kept.metadata.managed_fields, None);
    let spec = kept.spec.clone().unwrap().template.spec.unwrap();
    assert_eq!(
        (spec.containers[0].image.as_deref(), &spec.containers[0].env),
        (Some("crm:1"), &None)
    );
}

#[test]
fn whoever_looked_too_early_is_woken_when_the_write_comes_back() {
    let mut caches = Caches::default();
    caches.put(app(1));
    let mut written = deployment("crm", 9);
    caches.expect_write(&key("crm"), Kind::Deployment, &written.metadata, NOW);
    let migration = ObjectKey::new(OwnKind::Migration, key("crm-1"));
    assert!(matches!(
        caches.read(&key("crm"), &migration, NOW, |_, _| Some(())),
        CacheRead::Stale(_)
    ));
    written.metadata.resource_version = Some("10".into());
    assert!(caches.put(written).contains(&migration));
    assert!(matches!(
        caches.read(&key("crm"), &migration, NOW, |_, _| Some(())),
        CacheRead::Fresh(())
    ));
}

#[test]
fn a_deletion_of_ours_holds_planning_until_it_is_seen() {
    let mut caches = Caches::default();
    caches.put(app(1));
    caches.put(deployment("crm", 3));
    caches.expect_deletion(
        &key("crm"),
        Kind::Deployment,
        &key("web"),
        Until::Gone("d-1".into()),
        NOW,
    );
    assert!(matches!(
        caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(())),
        CacheRead::Stale(_)
    ));
    caches.remove::<Deployment>(&key("web"), &deployment("crm", 4).metadata);
    assert!(matches!(
        caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(())),
        CacheRead::Fresh(())
    ));
    caches.expect_deletion(
        &key("crm"),
        Kind::Deployment,
        &key("web"),
        Until::Gone("d-1".into()),
        NOW,
    );
    assert!(
        matches!(
            caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(())),
            CacheRead::Fresh(())
        ),
        "seen already"
    );
}

#[test]
fn a_deletion_whose_beginning_was_seen_before_its_answer_holds_nothing() {
    let mut caches = Caches::default();
    caches.put(app(1));
    let mut ending = deployment("crm", 4);
    ending.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
    ));
    caches.put(ending);
    caches.expect_deletion(&key("crm"), Kind::Deployment, &key("web"), Until::Version(4), NOW);
    assert!(matches!(
        caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(())),
        CacheRead::Fresh(())
    ));
    caches.expect_deletion(&key("crm"), Kind::Deployment, &key("web"), Until::Version(5), NOW);
    assert!(matches!(
        caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(())),
        CacheRead::Stale(_)
    ));
}

#[test]
fn an_app_with_an_unreadable_object_is_held_and_others_go_on() {
    let mut caches = Caches::default();
    caches.put(app(1));
    caches.put(deployment("cms", 3));
    let broken = release(2);
    assert!(caches.put_unreadable::<Release>(&broken.metadata).is_some());
    assert!(
        caches.put_unreadable::<Release>(&broken.metadata).is_none(),
        "announced once"
    );
    assert!(matches!(
        caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(())),
        CacheRead::Unreadable
    ));
    assert!(matches!(
        caches.read(&key("cms"), &app_work(), NOW, |_, _| Some(())),
        CacheRead::Fresh(())
    ));
    assert_eq!(caches.unreadable(), 1);
    assert!(
        names(&caches.put(release(4))).contains(&"app shop/crm".to_owned()),
        "mended"
    );
    assert!(matches!(
        caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(())),
        CacheRead::Fresh(())
    ));
}

#[rstest]
#[case::an_app_of_fairway("fairway.dev/v1alpha1", CacheRead::Unreadable)]
#[case::an_app_of_another_api_group("argoproj.io/v1alpha1", CacheRead::Fresh(()))]
fn an_unreadable_object_without_a_label_holds_the_app_that_owns_it(
    #[case] api_version: &str,
    #[case] expected: CacheRead<()>,
) {
    let mut caches = Caches::default();
    caches.put(app(1));
    let mut pod = ObjectMeta {
        namespace: Some("shop".into()),
        name: Some("crm-web-1".into()),
        ..ObjectMeta::default()
    };
    pod.owner_references = Some(vec![OwnerReference {
        api_version: api_version.into(),
        kind: "App".into(),
        name: "crm".into(),
        ..OwnerReference::default()
    }]);
    caches.put_unreadable::<Pod>(&pod);
    let read = caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(()));
    assert_eq!(read, expected);
}

#[test]
fn a_deleted_unreadable_object_frees_its_app() {
    let mut caches = Caches::default();
    caches.put(app(1));
    caches.put_unreadable::<Release>(&release(2).metadata);
    let work = caches.remove::<Release>(&key("crm-1"), &release(3).metadata);
    assert_eq!(names(&work), ["app shop/crm"]);
    caches.put_unreadable::<Release>(&release(2).metadata);
    assert_eq!(
        names(&caches.retain::<Release>(None, &BTreeSet::new())),
        ["app shop/crm"],
        "or not listed any more"
    );
    assert_eq!(caches.unreadable(), 0);
}

#[test]
fn an_app_is_planned_for_without_an_unreadable_backup() {
    let mut caches = Caches::default();
    caches.put(app(1));
    let mut backup: Backup = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {"namespace": "shop", "name": "nightly", "resourceVersion": "2", "labels": {"fairway.dev/app": "crm"}},
        "spec": {"app": "crm"},
    }))
    .unwrap();
    caches.put(backup.clone());
    backup.metadata.resource_version = Some("3".into());
    let work = caches.put_unreadable::<Backup>(&backup.metadata).unwrap();
    assert!(
        names(&work).contains(&"backup shop/nightly".to_owned()),
        "{work:?}"
    );
    let seen = caches.read(&key("crm"), &app_work(), NOW, |group, _| {
        Some(group.backups.get("nightly").is_some())
    });
    assert_eq!(seen, CacheRead::Fresh(false));
}

#[test]
fn an_object_that_is_readable_again_and_of_no_app_frees_its_former_app() {
    let mut caches = Caches::default();
    caches.put(app(1));
    let mut moved = deployment("crm", 3);
    caches.put(moved.clone());
    moved.metadata.resource_version = Some("4".into());
    caches.put_unreadable::<Deployment>(&moved.metadata);
    moved.metadata.resource_version = Some("5".into());
    moved.metadata.labels = None;
    let work = caches.put(moved);
    assert!(names(&work).contains(&"app shop/crm".to_owned()), "{work:?}");
    assert_eq!(caches.unreadable(), 0);
    assert_eq!(deployments(&mut caches, "crm"), 0);
}

#[test]
fn an_object_whose_version_is_no_number_is_unreadable() {
    let mut caches = Caches::default();
    caches.put(app(1));
    let mut release = release(2);
    release.metadata.resource_version = Some("2a".into());
    caches.put(release);
    assert_eq!(caches.unreadable(), 1);
    let seen = caches.read(&key("crm"), &app_work(), NOW, |_, _| Some(()));
    assert_eq!(seen, CacheRead::Unreadable);
}

#[test]
fn a_list_of_one_namespace_says_nothing_of_another() {
    let mut caches = Caches::default();
    for namespace in ["shop", "blog"] {
        let mut release = release(1);
        release.metadata.namespace = Some(namespace.to_owned());
        caches.put(release);
    }
    let gone = caches.retain::<Release>(Some("blog"), &BTreeSet::new());
    let namespaces: BTreeSet<_> = gone.iter().map(|work| work.key.namespace.to_string()).collect();
    assert_eq!(namespaces, BTreeSet::from(["blog".to_owned()]));
    let shop = GroupKey::App(NamespacedName::new("shop", "crm"));
    assert!(caches.groups.contains_key(&shop), "{:?}", caches.groups.keys());
}

#[test]
fn the_end_of_retention_concerns_backups_that_have_ended() {
    let mut caches = Caches::default();
    let backup: Backup = serde_json::from_value(json!({
        "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
        "metadata": {"namespace": "shop", "name": "nightly", "resourceVersion": "1"},
        "spec": {"app": "crm"}, "status": {"outcome": "Succeeded"},
    }))
    .unwrap();
    caches.put(backup);
    let mut with_keep = app(2);
    with_keep.spec.backup = serde_json::from_value(json!({
        "store": {"volume": {"claimName": "backups"}}, "keep": {},
    }))
    .unwrap();
    let both = ["app shop/crm", "backup shop/nightly"];
    assert_eq!(names(&caches.put(with_keep.clone())), both);
    assert_eq!(names(&caches.put(app(3))), both, "it says so no longer");
    assert_eq!(names(&caches.put(app(4))), ["app shop/crm"]);
    with_keep.metadata.resource_version = Some("5".to_owned());
    caches.put(with_keep);
    let deleted = caches.remove::<App>(&key("crm"), &app(6).metadata);
    assert!(names(&deleted).contains(&both[1].to_owned()), "{deleted:?}");
}

#[test]
fn only_what_retention_sees_of_an_ended_backup_concerns_others() {
    let backup = |name: &str, version: u64, change: serde_json::Value| -> Backup {
        let mut backup = json!({
            "apiVersion": "fairway.dev/v1alpha1", "kind": "Backup",
            "metadata": {"namespace": "shop", "name": name, "resourceVersion": version.to_string()},
            "spec": {"app": "crm"},
            "status": {"outcome": "Succeeded", "takenAt": "2026-01-01T00:00:00Z", "conditions": [{
                "type": "Succeeded", "status": "True", "reason": "Succeeded", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:05Z",
            }]},
        });
        for (path, value) in change.as_object().unwrap() {
            let (part, field) = path.split_once('.').unwrap();
            backup[part][field] = value.clone();
        }
        serde_json::from_value(backup).unwrap()
    };
    let removal = |state: &str, attempts: serde_json::Value| {
        let set = json!({"store": {"volume": {"claimName": "backups"}}, "path": "shop/crm/newest"});
        json!({"status.removal": {"since": "2026-01-02T00:00:00Z", "state": state, "set": set, "attempts": attempts}})
    };
    let at_work = json!({"current": 1, "since": "2026-01-02T00:00:00Z"});
    let paused = json!({"current": 1, "since": "2026-01-02T00:00:00Z", "next": "2026-01-03T00:00:00Z"});
    let mut caches = Caches::default();
    let mut with_keep = app(1);
    with_keep.spec.backup = serde_json::from_value(json!({
        "store": {"volume": {"claimName": "backups"}}, "keep": {},
    }))
    .unwrap();
    caches.put(with_keep);
    caches.put(backup("older", 2, json!({})));
    let changes = [
        ("it is new", json!({}), true),
        ("why it is kept", json!({"status.keptBecause": ["last"]}), false),
        (
            "until when it is kept",
            json!({"spec.keepUntil": "2026-02-01T00:00:00Z"}),
            true,
        ),
        (
            "it is to be removed",
            removal("Removing", serde_json::Value::Null),
            true,
        ),
        ("an attempt", removal("Removing", at_work), false),
        (
            "the others need not wait for it",
            removal("Retained", paused.clone()),
            true,
        ),
        ("it still is", removal("Retained", paused), false),
        (
            "it is being deleted",
            json!({"metadata.deletionTimestamp": "2026-01-04T00:00:00Z"}),
            true,
        ),
    ];
    for (version, (what, change, expected)) in (3..).zip(changes) {
        let work = names(&caches.put(backup("newest", version, change)));
        assert!(work.contains(&"backup shop/newest".to_owned()), "{what}");
        assert_eq!(work.contains(&"backup shop/older".to_owned()), expected, "{what}");
    }
}
