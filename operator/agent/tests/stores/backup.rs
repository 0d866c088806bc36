//! Backups in stores over the network can be restored, and what is not a backup never looks like one.

use std::fs;

use fairway_protocol::{BackupEvidence, BackupReport, BackupTask, Reason, Task};
use rstest::rstest;

use crate::{
    harness::{Outcome, Pod, requester},
    postgres::{Database, value},
    servers::{Kind, Place},
};

pub(crate) const UID: &str = "1a2b3c4d-0000-4000-8000-000000000000";
pub(crate) const SET: &str = "shop/crm/crm-1-1a2b3c4d";

pub(crate) fn task(place: &Place) -> Task {
    Task::Backup(BackupTask {
        requester: requester("crm"),
        store: place.store.clone(),
        set: SET.into(),
        scratch: false,
        images: [("web".to_owned(), "crm@sha256:a".to_owned())].into(),
        verify: fairway_protocol::Level::Decoded,
        without_extensions: Vec::new(),
        backup_uid: UID.into(),
    })
}

/// A database whose dump is longer than one object of a WebDAV share, and than one part of an upload.
pub(crate) async fn large() -> Database {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute(
            "set role crm; create table noise as select i, string_agg(md5(i::text || j::text), '') as text \
             from generate_series(1, 12000) i, generate_series(1, 100) j group by i",
        )
        .await
        .expect("content");
    database
}

pub(crate) fn evidence(outcome: &Outcome) -> BackupEvidence {
    let report: BackupReport = outcome.report();
    report
        .evidence
        .unwrap_or_else(|| panic!("{:?}\n{}", report.failure, outcome.log))
}

/// Restores the objects of a dump as a user would: joins them in the order of their names, decompresses, `pg_restore`.
fn restore(place: &Place, into: &Database) {
    let objects: Vec<_> = place
        .names()
        .into_iter()
        .filter(|name| name.contains("/database.dump.zst"))
        .collect();
    let joined: Vec<u8> = objects
        .iter()
        .flat_map(|name| fs::read(place.files.join(name)).expect("an object"))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let dump = folder.path().join("dump");
    fs::write(&dump, zstd::decode_all(joined.as_slice()).expect("zstd")).expect("a file");
    into.restore(&dump);
}

#[rstest]
#[tokio::test]
async fn a_backup_in_a_store_can_be_restored(#[values(Kind::S3, Kind::Webdav)] kind: Kind) {
    let (database, place) = (large().await, Place::new(kind));
    let taken = evidence(&place.pod(&database, "pod-1").run(&task(&place)).await);
    assert_eq!(taken.level, "Decoded");
    let dumps = place.names().iter().filter(|name| name.contains("dump")).count();
    match kind {
        Kind::S3 => assert_eq!(dumps, 1, "an upload in parts"),
        Kind::Webdav => assert!(dumps > 1, "objects of 16 MiB"),
    }
    let copy = Database::new().await;
    restore(&place, &copy);
    assert_eq!(
        value(&copy.admin().await, "select count(*) from noise").await,
        "12000"
    );
    // What is there is proven again, not taken again.
    let names = place.names();
    let again = evidence(&place.pod(&database, "pod-2").run(&task(&place)).await);
    assert_eq!((again.sha256, place.names()), (taken.sha256, names));
}

#[rstest]
#[tokio::test]
async fn what_a_killed_pod_left_is_removed_once_the_backup_is_there(
    #[values(Kind::S3, Kind::Webdav)] kind: Kind,
) {
    let (database, place) = (large().await, Place::new(kind));
    let pod = place.pod(&database, "pod-1");
    let running = pod.start(&task(&place));
    let begun = || match kind {
        Kind::S3 => Place::unfinished_uploads() > 0,
        Kind::Webdav => !place.names().is_empty(),
    };
    let begins = async {
        while !begun() {
            tokio::task::yield_now().await;
        }
    };
    let begins = tokio::time::timeout(std::time::Duration::from_secs(60), begins).await;
    begins.expect("the upload begins");
    running.killed().await;
    assert!(!place.names().iter().any(|name| name.ends_with("manifest.json")));
    evidence(&place.pod(&database, "pod-2").run(&task(&place)).await);
    let folders: std::collections::BTreeSet<_> = place
        .names()
        .iter()
        .filter_map(|name| name.strip_prefix(SET)?.split('/').nth(1).map(str::to_owned))
        .collect();
    match kind {
        Kind::S3 => {
            assert_eq!(folders.len(), 2, "the manifest, and one folder: {folders:?}");
            assert_eq!(Place::unfinished_uploads(), 0);
        }
        // Without conditions, whoever was thought dead may still replace the manifest.
        Kind::Webdav => assert!(
            folders.iter().any(|folder| folder.starts_with("pod-2-")),
            "{folders:?}"
        ),
    }
}

#[rstest]
#[tokio::test]
async fn a_damaged_object_is_found_and_the_backup_taken_again(#[values(Kind::S3, Kind::Webdav)] kind: Kind) {
    let (database, place) = (Database::new().await, Place::new(kind));
    let pod = |uid| place.pod(&database, uid);
    evidence(&pod("pod-1").run(&task(&place)).await);
    let names = place.names();
    let dump = names.iter().find(|name| name.contains("dump")).expect("a dump");
    let path = place.files.join(dump);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    // In place, so that what the server keeps beside a file stays.
    fs::write(&path, bytes).unwrap();
    let again = evidence(&pod("pod-2").run(&task(&place)).await);
    assert!(
        again.notes.iter().any(|note| note.contains("corrupt")),
        "{:?}",
        again.notes
    );
    assert!(place.names().contains(dump), "what was there is kept");
}

#[rstest]
#[tokio::test]
async fn of_two_pods_at_once_one_set_results(#[values(Kind::S3, Kind::Webdav)] kind: Kind) {
    let (database, place) = (Database::new().await, Place::new(kind));
    let pods: [Pod; 2] = ["pod-1", "pod-2"].map(|uid| place.pod(&database, uid));
    let task = task(&place);
    let (first, second) = tokio::join!(pods[0].run(&task), pods[1].run(&task));
    let reports: [BackupReport; 2] = [first.report(), second.report()];
    // The second one may have come while the first one dumped, and is then taken again by the operator.
    let hashes: std::collections::BTreeSet<_> = reports
        .iter()
        .filter_map(|report| report.evidence.as_ref().map(|evidence| &evidence.sha256))
        .collect();
    assert_eq!(hashes.len(), 1, "{reports:?}");
    for report in &reports {
        if let Some(failure) = &report.failure {
            assert_eq!(failure.reason, Reason::WaitingForBackup, "{failure:?}");
        }
    }
}
