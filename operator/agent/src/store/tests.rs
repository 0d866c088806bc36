//! What every store must do. A new store is a case of each test.

use std::{fs, io::Read as _, io::Write as _, path::Path};

use rstest::rstest;
use tempfile::TempDir;

use super::{objects::Objects, volume::Volume, *};
use crate::blocking::blocking;
use fairway_protocol::Failure;

/// A store, and the folder of one that has a folder.
struct Case {
    store: Box<dyn Store>,
    _folder: Option<TempDir>,
}

impl Case {
    fn volume() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Box::new(Volume::new(folder.path(), "backups")),
            _folder: Some(folder),
        }
    }

    fn objects() -> Self {
        Self {
            store: Box::new(Objects::default()),
            _folder: None,
        }
    }
}

fn set() -> SetPath {
    SetPath::parse("shop/crm/crm-1").unwrap()
}

/// Content of several pieces.
fn bytes() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

async fn put(attempt: &dyn Attempt, file: &str, content: &[u8]) -> String {
    let (mut writer, reader) = pipe();
    let content = content.to_owned();
    let writing =
        tokio::task::spawn_blocking(move || writer.write_all(&content).and_then(|()| writer.finish()));
    let name = attempt.put(file, reader).await.unwrap();
    writing.await.unwrap().unwrap();
    name
}

async fn all(mut content: Content) -> Vec<u8> {
    blocking(move || {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        Ok::<_, Failure>(bytes)
    })
    .await
    .unwrap()
}

/// A complete attempt that holds one file.
async fn complete(store: &dyn Store, pod: &str) -> Box<dyn Attempt> {
    let attempt = store.attempt(&set(), pod);
    attempt.begin().await.unwrap();
    put(attempt.as_ref(), "dump", pod.as_bytes()).await;
    attempt
}

async fn manifest(store: &dyn Store) -> Option<Vec<u8>> {
    store.find(&set()).await.unwrap().map(|found| found.manifest)
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_published_set_returns_what_was_put(#[case] case: Case) {
    let store = case.store.as_ref();
    store.check("pod").await.unwrap();
    let attempt = store.attempt(&set(), "pod");
    attempt.begin().await.unwrap();
    let name = put(attempt.as_ref(), "dump", &bytes()).await;
    assert_eq!(all(attempt.read(&name).await.unwrap()).await, bytes());
    assert_eq!(manifest(store).await, None, "without a manifest it is no backup");
    let published = attempt.publish(b"{}", None).await.unwrap();
    assert!(matches!(published, Published::Ours));
    assert_eq!(manifest(store).await.as_deref(), Some(b"{}".as_slice()));
    assert_eq!(all(store.read(&set(), &name).await.unwrap()).await, bytes());
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_file_that_was_cut_off_is_not_stored(#[case] case: Case) {
    let attempt = case.store.attempt(&set(), "pod");
    attempt.begin().await.unwrap();
    let (mut writer, content) = pipe();
    let writing = tokio::task::spawn_blocking(move || writer.write_all(&bytes()));
    assert!(matches!(
        attempt.put("dump", content).await,
        Err(PutError::CutOff)
    ));
    writing.await.unwrap().unwrap();
    assert!(attempt.read("dump").await.is_err());
    attempt.abort().await.unwrap();
    attempt.begin().await.unwrap();
    let name = put(attempt.as_ref(), "dump", b"x").await;
    assert_eq!(all(attempt.read(&name).await.unwrap()).await, b"x");
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn the_first_published_attempt_is_the_set(#[case] case: Case) {
    let store = case.store.as_ref();
    let [slow, fast] = [complete(store, "slow").await, complete(store, "fast").await];
    assert!(matches!(
        fast.publish(b"fast", None).await.unwrap(),
        Published::Ours
    ));
    let Published::Theirs(theirs) = slow.publish(b"slow", None).await.unwrap() else {
        panic!("the slow one replaced the fast one");
    };
    assert_eq!(theirs.manifest, b"fast");
    slow.abort().await.unwrap();
    assert_eq!(manifest(store).await.as_deref(), Some(b"fast".as_slice()));
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_corrupt_set_is_replaced_once(#[case] case: Case) {
    let store = case.store.as_ref();
    complete(store, "1").await.publish(b"1", None).await.unwrap();
    let corrupt = store.find(&set()).await.unwrap();
    let [second, third] = [complete(store, "2").await, complete(store, "3").await];
    assert!(matches!(
        second.publish(b"2", corrupt.as_ref()).await.unwrap(),
        Published::Ours
    ));
    // The third one found the same set corrupt, but by now there is another.
    assert!(matches!(
        third.publish(b"3", corrupt.as_ref()).await.unwrap(),
        Published::Theirs(_)
    ));
    third.abort().await.unwrap();
    assert_eq!(manifest(store).await.as_deref(), Some(b"2".as_slice()));
}

#[tokio::test]
async fn abort_ends_an_upload_that_was_dropped() {
    let store = Objects::default();
    let attempt = store.attempt(&set(), "pod");
    let (mut writer, content) = pipe();
    writer.write_all(b"half").unwrap();
    tokio::select! {
        biased;
        _ = attempt.put("dump", content) => panic!("the content has no end"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(store.bucket().uploads.len(), 1);
    attempt.abort().await.unwrap();
    assert!(store.bucket().uploads.is_empty() && store.bucket().objects.is_empty());
}

fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_check_of_one_pod_does_not_disturb_that_of_another() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(".fairway-preflight-other"), "").unwrap();
    fs::write(root.path().join(".fairway-preflight-own"), "of a killed pod").unwrap();
    Volume::new(root.path(), "backups").check("own").await.unwrap();
    assert_eq!(names(root.path()), [".fairway-preflight-other"]);
}

#[tokio::test]
async fn what_is_at_a_sets_place_and_no_backup_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let store = Volume::new(root.path(), "backups");
    let folder = root.path().join("shop/crm");
    fs::create_dir_all(folder.join("crm-1")).unwrap();
    fs::write(folder.join("crm-1/something"), "").unwrap();
    let attempt = complete(&store, "pod").await;
    assert!(matches!(
        attempt.publish(b"{}", None).await.unwrap(),
        Published::Ours
    ));
    assert_eq!(attempt.kept_as(), "shop/crm/crm-1.pod.unusable");
    assert_eq!(names(&folder), ["crm-1", "crm-1.pod.unusable"]);
}

#[test]
fn a_set_cannot_lead_out_of_the_store() {
    for path in ["", "/etc", "../x", "a/../../b"] {
        assert!(SetPath::parse(path).is_err(), "{path}");
    }
    assert!(SetPath::parse("shop/crm/crm-42").is_ok());
}
