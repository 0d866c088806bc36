//! A set is copied from one kind of store into another, each with its own login and certificates.

use std::fs;

use fairway_protocol::{CopyReport, CopyTask, Reason, Task};
use rstest::rstest;

use crate::{
    backup::{SET, UID, evidence, large, restore_by_hand, task},
    harness::{Pod, requester},
    keys::{Identity, encrypted},
    postgres::{Database, PASSWORD, value},
    servers::{Kind, Place, USER},
};

fn copy(from: &Place, to: &Place) -> Task {
    Task::Copy(CopyTask {
        requester: requester("crm"),
        store: from.store.clone(),
        to: to.store.clone(),
        set: SET.into(),
        backup_uid: UID.into(),
    })
}

/// A pod that may use both, and has for the further one names of its own.
fn pod(database: &Database, from: &Place) -> Pod {
    let pod = from.pod(database, "pod-2");
    let authorities = pod.path("copy-ca");
    fs::create_dir(&authorities).expect("a volume");
    fs::copy(pod.path("store-ca/ca.pem"), authorities.join("ca.pem")).expect("a file");
    let authorities = authorities.display().to_string();
    pod.with("FAIRWAY_COPY_CA_DIRECTORY", &authorities)
        .with("FAIRWAY_COPY_ACCESS_KEY_ID", USER)
        .with("FAIRWAY_COPY_SECRET_ACCESS_KEY", PASSWORD)
        .with("FAIRWAY_COPY_USER", USER)
        .with("FAIRWAY_COPY_PASSWORD", PASSWORD)
}

#[rstest]
#[case::one_object_into_pieces(Kind::S3, Kind::Webdav)]
#[case::pieces_into_one_object(Kind::Webdav, Kind::S3)]
#[tokio::test]
async fn a_copy_is_restored_as_the_set_is(#[case] from: Kind, #[case] to: Kind) {
    let (database, from, to) = (large().await, Place::new(from), Place::new(to));
    let identity = Identity::generate();
    evidence(
        &from
            .pod(&database, "pod-1")
            .run(&encrypted(task(&from), &[&identity]))
            .await,
    );
    let outcome = pod(&database, &from).run(&copy(&from, &to)).await;
    let report: CopyReport = outcome.report();
    assert_eq!(report.failure, None, "{}", outcome.log);
    // Only the copy is left.
    fs::remove_dir_all(&from.files).expect("the set");
    let copy = restore_by_hand(&to, &format!("{}_restored", database.name), &identity);
    let rows = value(&copy.admin().await, "select count(*) from noise").await;
    assert_eq!(rows, "12000");
}

#[tokio::test]
async fn the_login_of_the_first_store_is_not_tried_at_the_further_one() {
    let (database, from, to) = (
        Database::new().await,
        Place::new(Kind::Webdav),
        Place::new(Kind::S3),
    );
    evidence(&from.pod(&database, "pod-1").run(&task(&from)).await);
    // It has the access key of the bucket, under the names of the first store.
    let pod = from.pod(&database, "pod-2");
    let authorities = pod.path("store-ca").display().to_string();
    let pod = pod.with("FAIRWAY_COPY_CA_DIRECTORY", &authorities);
    let report: CopyReport = pod.run(&copy(&from, &to)).await.report();
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::StoreAccessDenied, "{}", failure.message);
    assert_eq!(to.names(), Vec::<String>::new());
}
