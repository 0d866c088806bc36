//! What every store must do. A new store is a case of each test.

mod bucket;
mod removal;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::http::StatusCode;
use opendal::{ErrorKind, Operator, services::Memory};
use rstest::rstest;
use tempfile::TempDir;

use bucket::Bucket;

use super::{
    http::Http,
    objects::{Objects, Publishing, Service},
    port::MANIFEST,
    volume::Volume,
    *,
};
use crate::{blocking::blocking, environment::Environment};
use fairway_protocol::{Cause, Failure, Reason};

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

    /// Objects of less than a file, as a WebDAV share has them.
    fn objects() -> Self {
        Self {
            store: Box::new(objects(&Operator::new(Memory::default()).unwrap())),
            _folder: None,
        }
    }
}

fn objects(operator: &Operator) -> Objects {
    let service = Service {
        part: 256 * 1024,
        concurrent: 1,
        largest: 256 * 1024,
        publishing: Publishing::Unconditional,
        missing: ErrorKind::ConfigInvalid,
    };
    let http = Http::new(&Environment::of_process(BTreeMap::new())).unwrap();
    Objects::new(operator.clone(), &http, "memory".to_owned(), service)
}

fn set() -> SetPath {
    SetPath::parse("shop/crm/crm-1").unwrap()
}

/// Content of several pieces.
fn bytes() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

async fn put(attempt: &dyn Attempt, file: &str, content: &[u8]) -> Vec<String> {
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
    let attempt = store.attempt(&set(), pod).unwrap();
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
    let attempt = store.attempt(&set(), "pod").unwrap();
    attempt.begin().await.unwrap();
    let names = put(attempt.as_ref(), "dump", &bytes()).await;
    assert_eq!(all(attempt.read(&names).await.unwrap()).await, bytes());
    assert_eq!(manifest(store).await, None, "without a manifest it is no backup");
    let published = attempt.publish(b"{}").await.unwrap();
    assert!(matches!(published, Published::ThisAttempt));
    assert_eq!(manifest(store).await.as_deref(), Some(b"{}".as_slice()));
    assert_eq!(all(store.read(&set(), &names).await.unwrap()).await, bytes());
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_file_that_was_cut_off_is_not_stored(#[case] case: Case) {
    let attempt = case.store.attempt(&set(), "pod").unwrap();
    attempt.begin().await.unwrap();
    let (mut writer, content) = pipe();
    let writing = tokio::task::spawn_blocking(move || writer.write_all(&bytes()));
    assert!(matches!(
        attempt.put("dump", content).await,
        Err(PutError::Incomplete)
    ));
    writing.await.unwrap().unwrap();
    assert!(attempt.read(&["dump".to_owned()]).await.is_err());
    attempt.abort().await.unwrap();
    attempt.begin().await.unwrap();
    let names = put(attempt.as_ref(), "dump", b"x").await;
    assert_eq!(all(attempt.read(&names).await.unwrap()).await, b"x");
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn the_first_published_attempt_is_the_set(#[case] case: Case) {
    let store = case.store.as_ref();
    let [slow, fast] = [complete(store, "slow").await, complete(store, "fast").await];
    assert!(matches!(
        fast.publish(b"fast").await.unwrap(),
        Published::ThisAttempt
    ));
    let Published::AnotherAttempt(other) = slow.publish(b"slow").await.unwrap() else {
        panic!("the slow one replaced the fast one");
    };
    assert_eq!(other.manifest, b"fast");
    slow.abort().await.unwrap();
    assert_eq!(manifest(store).await.as_deref(), Some(b"fast".as_slice()));
}

#[rstest]
#[case(Case::volume())]
#[case(Case::objects())]
#[tokio::test]
async fn a_corrupt_set_is_replaced_once(#[case] case: Case) {
    let store = case.store.as_ref();
    complete(store, "1").await.publish(b"1").await.unwrap();
    let corrupt = store.find(&set()).await.unwrap();
    let corrupt = corrupt.unwrap();
    let [second, third] = [complete(store, "2").await, complete(store, "3").await];
    let kept = second.set_aside(&corrupt).await.unwrap().unwrap();
    assert!(
        kept.starts_with("shop/crm/crm-1") && kept.ends_with(".unusable"),
        "{kept}"
    );
    assert!(matches!(
        second.publish(b"2").await.unwrap(),
        Published::ThisAttempt
    ));
    // The third one found the same set corrupt, but by now there is another.
    assert_eq!(third.set_aside(&corrupt).await.unwrap(), None);
    assert!(matches!(
        third.publish(b"3").await.unwrap(),
        Published::AnotherAttempt(_)
    ));
    third.abort().await.unwrap();
    assert_eq!(manifest(store).await.as_deref(), Some(b"2".as_slice()));
}

#[tokio::test]
async fn an_attempt_removes_its_own_objects_alone() {
    let memory = Operator::new(Memory::default()).unwrap();
    let store = objects(&memory);
    complete(&store, "pod").await.publish(b"{}").await.unwrap();
    let before = kept(&memory).await;
    let attempt = store.attempt(&set(), "other").unwrap();
    put(attempt.as_ref(), "dump", &bytes()).await;
    attempt.abort().await.unwrap();
    assert_eq!(kept(&memory).await, before);
}

#[tokio::test]
async fn what_an_earlier_container_left_is_removed_unless_it_is_the_set() {
    let memory = Operator::new(Memory::default()).unwrap();
    let store = objects(&memory);
    let attempt = store.attempt(&set(), "pod").unwrap();
    let names = put(attempt.as_ref(), "dump", b"whole").await;
    attempt.publish(names.join(" ").as_bytes()).await.unwrap();
    let published = kept(&memory).await;
    put(store.attempt(&set(), "pod").unwrap().as_ref(), "dump", b"left").await;
    store.attempt(&set(), "pod").unwrap().begin().await.unwrap();
    assert_eq!(kept(&memory).await, published);
}

async fn kept(memory: &Operator) -> Vec<String> {
    let objects = memory.list_with("").recursive(true).await.unwrap();
    let mut names: Vec<_> = objects.iter().map(|object| object.path().to_owned()).collect();
    names.sort();
    names
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
async fn a_check_that_fails_removes_its_test_object() {
    let bucket = Bucket::new(|asked| asked.starts_with("GET").then_some(StatusCode::FORBIDDEN)).await;
    let failure = bucket.store().check("pod").await.unwrap_err();
    assert_eq!(failure.reason, Reason::StoreAccessDenied, "{}", failure.message);
    assert_eq!(bucket.paths(), Vec::<String>::new());
}

#[rstest]
#[case::quota(
    403,
    "QuotaExceeded",
    Reason::StoreFull,
    "over its quota (writing a test object: QuotaExceeded)"
)]
#[case::quota_of_minio(
    400,
    "XMinioAdminBucketQuotaExceeded",
    Reason::StoreFull,
    "Enlarge it or its quota"
)]
#[case::full_minio(507, "XMinioStorageFull", Reason::StoreFull, "is full")]
#[case::full_without_a_word(507, "", Reason::StoreFull, "is full (writing a test object)")]
#[case::expired_token(
    400,
    "ExpiredToken",
    Reason::StoreAccessDenied,
    "the credentials have expired"
)]
#[case::unknown_key(
    403,
    "InvalidAccessKeyId",
    Reason::StoreAccessDenied,
    "does not know the access key"
)]
#[case::wrong_secret(
    403,
    "SignatureDoesNotMatch",
    Reason::StoreAccessDenied,
    "does not fit the access key"
)]
#[case::clock(
    403,
    "RequestTimeTooSkewed",
    Reason::StoreAccessDenied,
    "Synchronize the clock of the node"
)]
#[case::late_request(
    400,
    "RequestExpired",
    Reason::StoreAccessDenied,
    "Synchronize the clock of the node"
)]
#[case::denied(403, "AccessDenied", Reason::StoreAccessDenied, "what they permit")]
#[case::slow_down(503, "SlowDown", Reason::StoreUnreachable, "asks for fewer requests")]
#[tokio::test]
async fn what_a_server_says_by_its_own_code_is_told(
    #[case] status: u16,
    #[case] code: &'static str,
    #[case] reason: Reason,
    #[case] words: &str,
) {
    let status = StatusCode::from_u16(status).unwrap();
    let bucket = Bucket::that_says(move |asked| asked.starts_with("PUT").then_some((status, code))).await;
    let failure = bucket.store().check("pod").await.unwrap_err();
    assert_eq!(failure.reason, reason, "{}", failure.message);
    assert!(failure.message.contains(words), "{}", failure.message);
    assert!(!failure.message.contains("canary"), "{}", failure.message);
}

#[tokio::test]
async fn a_store_that_asks_for_fewer_requests_is_waited_for() {
    let refused = AtomicU32::new(0);
    let bucket = Bucket::that_says(move |asked| {
        let refuses = asked.starts_with("PUT") && refused.fetch_add(1, Ordering::Relaxed) < 2;
        refuses.then_some((StatusCode::SERVICE_UNAVAILABLE, "SlowDown"))
    })
    .await;
    let store = bucket.store();
    let attempt = store.attempt(&set(), "pod").unwrap();
    let names = put(attempt.as_ref(), "dump", b"whole").await;
    assert_eq!(all(attempt.read(&names).await.unwrap()).await, b"whole");
    let sent = bucket.requests();
    let sent = sent.iter().filter(|asked| asked.starts_with("PUT")).count();
    assert_eq!(sent, 3, "two refusals, and the one that was taken");
}

#[tokio::test]
async fn credentials_that_expire_during_an_upload_are_said() {
    let bucket = Bucket::that_says(|asked| {
        let is_object = asked.starts_with("PUT") && asked.contains("dump");
        is_object.then_some((StatusCode::BAD_REQUEST, "ExpiredToken"))
    })
    .await;
    let store = bucket.store();
    let attempt = store.attempt(&set(), "pod").unwrap();
    let (mut writer, content) = pipe();
    let writing =
        tokio::task::spawn_blocking(move || writer.write_all(b"whole").and_then(|()| writer.finish()));
    let Err(PutError::Store(failure)) = attempt.put("dump", content).await else {
        panic!("it was stored");
    };
    writing.await.unwrap().unwrap();
    assert_eq!(failure.reason, Reason::StoreAccessDenied);
    assert!(failure.message.contains("have expired"), "{}", failure.message);
    attempt.abort().await.unwrap();
    assert_eq!(bucket.paths(), Vec::<String>::new());
}

#[tokio::test]
async fn a_condition_that_a_repeated_request_met_is_honoured() {
    let bucket = Bucket::new(|asked| {
        let is_test = asked.starts_with("PUT") && asked.contains(".condition");
        is_test.then_some(StatusCode::PRECONDITION_FAILED)
    })
    .await;
    complete(bucket.store().as_ref(), "pod")
        .await
        .publish(b"{}")
        .await
        .unwrap();
    let requests = bucket.requests();
    let tested = requests
        .iter()
        .position(|asked| asked.contains(".condition"))
        .unwrap();
    assert!(
        requests[tested..].iter().any(|asked| asked.contains("list-type")),
        "what killed pods have left is looked for: {requests:?}"
    );
}

/// A manifest that replaces a corrupt one is sent with that condition, and may then replace any other.
#[tokio::test]
async fn a_bucket_that_ignores_if_match_keeps_objects_of_others() {
    let bucket = Bucket::new(|asked| {
        let is_test = asked.contains(".condition") && asked.contains("if-none-match");
        is_test.then_some(StatusCode::PRECONDITION_FAILED)
    })
    .await;
    let attempt = complete(bucket.store().as_ref(), "pod").await;
    let before = bucket.requests().len();
    let published = attempt.publish(b"{}").await.unwrap();
    assert!(matches!(published, Published::ThisAttempt));
    let requests = bucket.requests();
    assert!(
        requests[before..]
            .iter()
            .any(|asked| asked.ends_with(".condition if-match")),
        "the condition is tested: {requests:?}"
    );
    assert!(
        !requests[before..].iter().any(|asked| asked.contains("list-type")),
        "nothing is looked for that could be removed: {requests:?}"
    );
    assert!(!bucket.paths().iter().any(|path| path.contains(".condition")));
}

/// The answer that was lost may be that of a request which the server still executes.
#[tokio::test]
async fn objects_stay_while_their_manifest_may_replace_a_corrupt_one() {
    let bucket = Bucket::new(|asked| match asked {
        _ if asked.starts_with("PUT") && asked.contains(".condition") => {
            Some(StatusCode::PRECONDITION_FAILED)
        }
        _ if asked.starts_with("PUT") && asked.contains(MANIFEST) => Some(StatusCode::FORBIDDEN),
        _ => None,
    })
    .await;
    bucket.insert("/backups/shop/crm/crm-1/manifest.json", b"corrupt");
    let store = bucket.store();
    let attempt = complete(store.as_ref(), "pod").await;
    let corrupt = store.find(&set()).await.unwrap().unwrap();
    attempt.set_aside(&corrupt).await.unwrap().unwrap();
    attempt.publish(b"{}").await.unwrap_err();
    let before = bucket.requests().len();
    attempt.abort().await.unwrap();
    let requests = bucket.requests();
    assert!(
        !requests[before..].iter().any(|asked| asked.contains("list-type")),
        "nothing is looked for that could be removed: {:?}",
        &requests[before..]
    );
}

/// Where requests have no condition, a manifest that was sent may at any time replace that of another pod.
#[tokio::test]
async fn objects_stay_where_their_manifest_may_replace_that_of_another_pod() {
    let memory = Operator::new(Memory::default()).unwrap();
    let store = objects(&memory);
    let attempt = store.attempt(&set(), "pod").unwrap();
    let names = put(attempt.as_ref(), "dump", b"whole").await;
    attempt.publish(names.join(" ").as_bytes()).await.unwrap();
    memory
        .write("shop/crm/crm-1/manifest.json", "of another pod")
        .await
        .unwrap();
    attempt.abort().await.unwrap();
    assert_eq!(all(store.read(&set(), &names).await.unwrap()).await, b"whole");
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
        attempt.publish(b"{}").await.unwrap(),
        Published::ThisAttempt
    ));
    assert_eq!(names(&folder), ["crm-1", "crm-1.pod.unusable"]);
}

#[test]
fn the_path_of_a_set_is_relative_and_in_normal_form() {
    for path in [
        "",
        "/etc",
        "..",
        "../x",
        "a/../../b",
        "a/../b",
        "a//b",
        "a/./b",
        "./a",
        "a/",
    ] {
        let failure = SetPath::parse(path).expect_err(path);
        assert_eq!(failure.cause, Cause::Version, "{path}: no retry makes it valid");
    }
    assert!(SetPath::parse("shop/crm/crm-42").is_ok());
}
