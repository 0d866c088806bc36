//! The removal of backups from stores over the network.

use std::fs;

use fairway_protocol::{PruneOutcome, PruneReport, PruneTask, Task};
use rstest::rstest;

use crate::{
    backup::{SET, UID, evidence, large, task},
    harness::requester,
    postgres::Database,
    servers::{Kind, Place},
};

async fn prune(place: &Place, database: &Database) -> PruneReport {
    let task = PruneTask {
        requester: requester("crm"),
        store: place.store.clone(),
        set: SET.into(),
        backup_uid: UID.into(),
    };
    let outcome = place.pod(database, "pod-9").run(&Task::Prune(task)).await;
    let report: PruneReport = outcome.report();
    assert_eq!(report.failure, None, "{}", outcome.log);
    report
}

#[rstest]
#[tokio::test]
async fn a_backup_is_removed_whole(#[values(Kind::S3, Kind::Webdav)] kind: Kind) {
    let (database, place) = (large().await, Place::new(kind));
    evidence(&place.pod(&database, "pod-1").run(&task(&place)).await);
    let stored = place.names();
    let report = prune(&place, &database).await;
    assert_eq!(report.outcome, Some(PruneOutcome::Removed), "{report:?}");
    assert_eq!(report.objects, u64::try_from(stored.len()).unwrap(), "{stored:?}");
    assert_eq!(place.names(), [""; 0]);
    if kind == Kind::Webdav {
        assert!(!place.files.join(SET).exists(), "its folders are gone too");
    }
    let again = prune(&place, &database).await;
    assert_eq!((again.outcome, again.objects), (Some(PruneOutcome::Removed), 0));
}

#[rstest]
#[tokio::test]
async fn what_no_agent_has_written_stays_also_where_folders_are_removed(
    #[values(Kind::S3, Kind::Webdav)] kind: Kind,
) {
    let (database, place) = (Database::new().await, Place::new(kind));
    evidence(&place.pod(&database, "pod-1").run(&task(&place)).await);
    let dump = place
        .names()
        .into_iter()
        .find(|name| name.contains("/database.dump"))
        .expect("a dump");
    let folder = place.files.join(dump).parent().expect("a folder").to_owned();
    fs::write(folder.join("why.txt"), "kept by hand").unwrap();
    let report = prune(&place, &database).await;
    assert_eq!(report.outcome, Some(PruneOutcome::Removed), "{report:?}");
    assert!(report.note.unwrap_or_default().contains("why.txt stays"));
    let left = place.names();
    assert!(left.len() == 1 && left[0].ends_with("why.txt"), "{left:?}");
}

#[tokio::test]
async fn c29_in_a_bucket_with_versions_a_backup_is_hidden() {
    let (database, place) = (Database::new().await, Place::with_versions());
    evidence(&place.pod(&database, "pod-1").run(&task(&place)).await);
    let report = prune(&place, &database).await;
    assert_eq!(report.outcome, Some(PruneOutcome::Hidden), "{report:?}");
    assert!(report.objects >= 2, "{report:?}");
    assert!(report.note.unwrap_or_default().contains("keeps versions"));
    // One that finds nothing to delete knows it by the list of versions.
    let again = prune(&place, &database).await;
    assert_eq!((again.outcome, again.objects), (Some(PruneOutcome::Hidden), 0));
}
