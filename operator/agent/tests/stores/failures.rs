//! What a store answers wrongly is said in one sentence, and a passing error is waited out.

use fairway_protocol::{Level, PreflightReport, PreflightTask, Reason, Store, Task};
use rstest::rstest;

use crate::{
    harness::requester,
    postgres::Database,
    servers::{Kind, Place},
};

fn preflight(store: Store) -> Task {
    Task::Preflight(PreflightTask {
        requester: requester("crm"),
        migrates: false,
        store: Some(store),
        verify: Level::Decoded,
    })
}

#[rstest]
#[tokio::test]
async fn a_store_that_works_passes(#[values(Kind::S3, Kind::Webdav)] kind: Kind) {
    let (database, place) = (Database::new().await, Place::new(kind));
    let outcome = place
        .pod(&database, "pod-1")
        .run(&preflight(place.store.clone()))
        .await;
    let report: PreflightReport = outcome.report();
    assert_eq!(report.failure, None, "{}", outcome.log);
    assert_eq!(place.names(), Vec::<String>::new(), "the test object is gone");
}

#[rstest]
#[case::wrong_secret(Kind::S3, "FAIRWAY_STORE_SECRET_ACCESS_KEY")]
#[case::wrong_password(Kind::Webdav, "FAIRWAY_STORE_PASSWORD")]
#[tokio::test]
async fn refused_credentials_are_said_without_them(#[case] kind: Kind, #[case] variable: &str) {
    let (database, place) = (Database::new().await, Place::new(kind));
    let pod = place
        .pod(&database, "pod-1")
        .with(variable, "canary-of-the-tests");
    let outcome = pod.run(&preflight(place.store.clone())).await;
    let failure = outcome.report::<PreflightReport>().failure.expect("a failure");
    assert_eq!(failure.reason, Reason::StoreAccessDenied, "{}", failure.message);
    assert!(!failure.message.contains("canary") && !outcome.log.contains("canary"));
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_said() {
    let (database, place) = (Database::new().await, Place::new(Kind::S3));
    let store = Place::s3("nowhere", "x", place.port());
    let outcome = place.pod(&database, "pod-1").run(&preflight(store)).await;
    let failure = outcome.report::<PreflightReport>().failure.expect("a failure");
    assert_eq!(failure.reason, Reason::StoreMissing, "{}", failure.message);
    assert!(failure.message.contains("bucket nowhere"), "{}", failure.message);
}

#[rstest]
#[case::nobody_listens(false)]
#[case::another_authority(true)]
#[tokio::test]
async fn a_server_that_cannot_be_reached_is_said(#[case] other_authority: bool) {
    let (database, place) = (Database::new().await, Place::new(Kind::S3));
    let pod = place.pod(&database, "pod-1");
    let (pod, store) = match other_authority {
        true => (
            pod.with("FAIRWAY_STORE_CA_DIRECTORY", "/nowhere"),
            place.store.clone(),
        ),
        false => (pod, Place::s3("backups", "x", crate::postgres::free_port())),
    };
    let outcome = pod.run(&preflight(store)).await;
    let failure = outcome.report::<PreflightReport>().failure.expect("a failure");
    assert_eq!(failure.reason, Reason::StoreUnreachable, "{}", failure.message);
}
