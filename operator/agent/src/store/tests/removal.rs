//! The removal of a set.

use std::sync::Arc;

use super::*;

/// What the tests' agents store: one file, and a manifest with this text.
fn own() -> Own {
    Own {
        files: &["dump"],
        has_sealed: Arc::new(|text: &[u8]| text == SEALED),
    }
}

const SEALED: &[u8] = b"{\"sealed\": true}";

/// Publishes a set with a manifest of that text.
async fn publish(store: &dyn Store, manifest: &[u8]) {
    let attempt = complete(store, "pod").await;
    let published = attempt.publish(manifest).await.unwrap();
    assert!(matches!(published, Published::ThisAttempt));
}

async fn remove(store: &dyn Store) -> Removal {
    store.remove(&set(), &own()).await.unwrap()
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_set_is_removed_whole_and_nothing_is_removed_twice(#[case] case: Case) {
    let store = case.store.as_ref();
    publish(store, SEALED).await;
    let removal = remove(store).await;
    assert_eq!(removal.end, End::Removed);
    assert_eq!(removal.objects, 2, "the file and the manifest");
    assert_eq!(removal.bytes, 3 + SEALED.len() as u64);
    assert_eq!(removal.foreign, [""; 0]);
    assert_eq!(manifest(store).await, None);
    let again = remove(store).await;
    assert_eq!((again.end, again.objects), (End::Removed, 0));
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_set_that_another_backup_wrote_is_left_as_it_is(#[case] case: Case) {
    let store = case.store.as_ref();
    publish(store, b"of another one").await;
    let removal = remove(store).await;
    assert_eq!((removal.end, removal.objects), (End::NotOwn, 0));
    assert_eq!(
        manifest(store).await.as_deref(),
        Some(b"of another one".as_slice())
    );
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn what_attempts_without_an_end_have_left_goes_too(#[case] case: Case) {
    let store = case.store.as_ref();
    complete(store, "killed").await;
    publish(store, SEALED).await;
    let removal = remove(store).await;
    assert_eq!((removal.end, removal.objects), (End::Removed, 3));
    assert_eq!(remove(store).await.objects, 0);
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_set_that_was_set_aside_goes_if_it_is_the_backups(#[case] case: Case) {
    let store = case.store.as_ref();
    publish(store, SEALED).await;
    let corrupt = store.find(&set()).await.unwrap().unwrap();
    let second = complete(store, "second").await;
    second.set_aside(&corrupt).await.unwrap().unwrap();
    second.publish(SEALED).await.unwrap();
    let removal = remove(store).await;
    assert_eq!((removal.end, removal.objects), (End::Removed, 4));
    assert_eq!(removal.foreign, [""; 0]);
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_set_that_was_set_aside_stays_if_another_one_wrote_it(#[case] case: Case) {
    let store = case.store.as_ref();
    publish(store, b"of another one").await;
    let other = store.find(&set()).await.unwrap().unwrap();
    let second = complete(store, "second").await;
    let kept = second.set_aside(&other).await.unwrap().unwrap();
    second.publish(SEALED).await.unwrap();
    let removal = remove(store).await;
    assert_eq!(removal.end, End::Removed);
    assert!(removal.foreign.contains(&kept), "{:?}", removal.foreign);
}

#[tokio::test]
async fn a_removal_goes_on_where_one_was_killed() {
    let root = tempfile::tempdir().unwrap();
    let store = Volume::new(root.path(), "backups");
    publish(&store, SEALED).await;
    fs::remove_file(root.path().join("shop/crm/crm-1/manifest.json")).unwrap();
    let removal = remove(&store).await;
    assert_eq!((removal.end, removal.objects), (End::Removed, 1));
    assert_eq!(names(&root.path().join("shop/crm")), [""; 0]);

    let memory = Operator::new(Memory::default()).unwrap();
    let store = objects(&memory);
    publish(&store, SEALED).await;
    memory.delete("shop/crm/crm-1/manifest.json").await.unwrap();
    let removal = remove(&store).await;
    assert_eq!((removal.end, removal.objects), (End::Removed, 1));
    assert_eq!(kept(&memory).await, [""; 0]);
}

#[tokio::test]
async fn what_no_agent_has_written_is_left_and_said() {
    let root = tempfile::tempdir().unwrap();
    let store = Volume::new(root.path(), "backups");
    publish(&store, SEALED).await;
    let folder = root.path().join("shop/crm");
    fs::write(folder.join("crm-1/notes.txt"), "of a user").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("crm-1/dump.000001")).unwrap();
    fs::create_dir(folder.join("crm-1.old")).unwrap();
    fs::create_dir(folder.join("crm-10")).unwrap();
    let removal = remove(&store).await;
    assert_eq!((removal.end, removal.objects), (End::Removed, 2));
    let mut foreign = removal.foreign;
    foreign.sort();
    assert_eq!(
        foreign,
        ["shop/crm/crm-1/dump.000001", "shop/crm/crm-1/notes.txt"]
    );
    assert_eq!(names(&folder), ["crm-1", "crm-1.old", "crm-10"]);

    let memory = Operator::new(Memory::default()).unwrap();
    let store = objects(&memory);
    publish(&store, SEALED).await;
    let of_others = [
        "shop/crm/crm-1/by-hand/dump",
        "shop/crm/crm-1/notes.txt",
        "shop/crm/crm-10/manifest.json",
    ];
    for path in of_others {
        memory.write(path, "of a user").await.unwrap();
    }
    let removal = remove(&store).await;
    assert_eq!((removal.end, removal.objects), (End::Removed, 2));
    assert_eq!(removal.foreign.len(), 2, "{:?}", removal.foreign);
    assert_eq!(kept(&memory).await, of_others);
}

/// A bucket that lists what it holds, with a set whose agent had no bucket that lists.
async fn bucket(
    refusals: fn(&str) -> Option<StatusCode>,
    headers: fn(&str) -> Option<(&'static str, &'static str)>,
) -> Bucket {
    let bucket = Bucket::new(refusals).await;
    bucket.insert("/backups/shop/crm/crm-1/manifest.json", SEALED);
    bucket.insert("/backups/shop/crm/crm-1/pod-0a1b2c3d/dump", b"whole");
    bucket.list(headers);
    bucket
}

/// Complaint 29: a store that protects what it holds makes each deletion an error.
#[tokio::test]
async fn c29_a_refused_deletion_is_said_with_its_date_and_leaves_the_set_whole() {
    let bucket = bucket(
        |asked| asked.starts_with("DELETE").then_some(StatusCode::FORBIDDEN),
        |asked| {
            asked
                .starts_with("HEAD")
                .then_some(("x-amz-object-lock-retain-until-date", "2027-01-31T00:00:00.000Z"))
        },
    )
    .await;
    let before = bucket.paths();
    let removal = remove(bucket.store().as_ref()).await;
    assert_eq!(
        removal.end,
        End::Refused {
            object: "shop/crm/crm-1/manifest.json".to_owned(),
            until: Some("2027-01-31T00:00:00.000Z".to_owned()),
        }
    );
    assert_eq!(removal.objects, 0);
    assert_eq!(bucket.paths(), before, "the manifest would have gone first");
}

#[tokio::test]
async fn c29_a_deletion_that_is_answered_with_a_marker_hides_the_set() {
    let bucket = bucket(
        |_| None,
        |asked| {
            asked
                .starts_with("DELETE")
                .then_some(("x-amz-delete-marker", "true"))
        },
    )
    .await;
    let removal = remove(bucket.store().as_ref()).await;
    assert_eq!((removal.end, removal.objects), (End::Hidden, 2));
}

#[tokio::test]
async fn the_manifest_is_removed_before_the_rest() {
    let bucket = bucket(|_| None, |_| None).await;
    let removal = remove(bucket.store().as_ref()).await;
    assert_eq!((removal.end, removal.objects), (End::Removed, 2));
    let requests = bucket.requests();
    let deleted: Vec<_> = requests
        .iter()
        .filter(|asked| asked.starts_with("DELETE"))
        .collect();
    assert!(deleted[0].contains(MANIFEST), "{deleted:?}");
    assert_eq!(deleted.len(), 2, "{deleted:?}");
}

#[tokio::test]
async fn a_store_that_fails_is_no_refusal() {
    let bucket = Bucket::that_says(|asked| {
        asked
            .starts_with("DELETE")
            .then_some((StatusCode::BAD_REQUEST, "ExpiredToken"))
    })
    .await;
    bucket.insert("/backups/shop/crm/crm-1/manifest.json", SEALED);
    bucket.list(|_| None);
    let failure = bucket.store().remove(&set(), &own()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::StoreAccessDenied, "{}", failure.message);
}
