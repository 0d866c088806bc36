//! The removal of backups from a volume.

use std::{fs, path::Path};

use fairway_protocol::{BackupReport, PruneOutcome, PruneReport, PruneTask, Task};
use rstest::rstest;

use crate::{
    backup::{SET, UID, stored, task},
    harness::{Pod, requester, store},
    postgres::Database,
};

fn prune() -> PruneTask {
    PruneTask {
        requester: requester("crm"),
        store: store(),
        set: SET.into(),
        backup_uid: UID.into(),
    }
}

async fn run(pod: &Pod, task: PruneTask) -> PruneReport {
    let outcome = pod.run(&Task::Prune(task)).await;
    let report: PruneReport = outcome.report();
    assert_eq!(
        outcome.code,
        Some(i32::from(report.failure.is_some())),
        "{}",
        outcome.log
    );
    report
}

/// A pod with a volume that holds a backup.
async fn backed_up(database: &Database, scratch: bool) -> Pod {
    let pod = Pod::new(database, "pod-1");
    let report: BackupReport = pod.run(&task(scratch)).await.report();
    report.evidence.expect("a backup");
    pod
}

#[rstest]
#[tokio::test]
async fn a_backup_is_removed_whole_and_the_rest_of_the_volume_stays(#[values(false, true)] scratch: bool) {
    let database = Database::new().await;
    let pod = backed_up(&database, scratch).await;
    let beside = pod.path("store").join("shop/crm/crm-2-99999999");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("manifest.json"), "{}").unwrap();
    let report = run(&pod, prune()).await;
    assert_eq!(report.outcome, Some(PruneOutcome::Removed), "{report:?}");
    assert!(report.objects >= 2 && report.bytes > 0, "{report:?}");
    assert_eq!(report.note, None);
    assert_eq!(stored(&pod), ["crm-2-99999999"]);
    assert!(beside.join("manifest.json").exists());
    let again = run(&pod, prune()).await;
    assert_eq!((again.outcome, again.objects), (Some(PruneOutcome::Removed), 0));
    let note = again.note.unwrap_or_default();
    assert!(note.starts_with("Nothing of the set was in claim "), "{note}");
}

/// Whoever may write beside the set links to the set of another Backup, as if it were an attempt, or puts it in its place.
#[rstest]
#[case::as_an_attempt(true)]
#[case::in_its_place(false)]
#[tokio::test]
async fn what_is_behind_a_link_stays(#[case] as_attempt: bool) {
    let database = Database::new().await;
    let pod = backed_up(&database, false).await;
    let set = pod.path("store").join(SET);
    let other = pod.path("store").join("shop/crm/crm-2-99999999");
    fs::rename(&set, &other).unwrap();
    let link = match as_attempt {
        true => set.with_file_name("crm-1-1a2b3c4d.pod-2.partial"),
        false => set,
    };
    std::os::unix::fs::symlink(&other, link).unwrap();
    let report = run(&pod, prune()).await;
    assert_eq!(report.objects, 0, "{report:?}");
    assert!(other.join("manifest.json").exists());
}

#[tokio::test]
async fn a_removal_that_was_killed_is_gone_on_with() {
    let database = Database::new().await;
    let pod = backed_up(&database, false).await;
    fs::remove_file(pod.path("store").join(SET).join("manifest.json")).unwrap();
    let report = run(&pod, prune()).await;
    assert_eq!(report.outcome, Some(PruneOutcome::Removed), "{report:?}");
    assert_eq!(stored(&pod), [""; 0]);
}

#[rstest]
#[case::another_backup(|_: &Path, task: &mut PruneTask| task.backup_uid = "1a2b3c4d-other".into())]
#[case::changed(|set: &Path, _: &mut PruneTask| {
    let text = fs::read_to_string(set.join("manifest.json")).unwrap();
    fs::write(set.join("manifest.json"), text.replace("Decoded", "Restored")).unwrap();
})]
#[case::cut_off(|set: &Path, _: &mut PruneTask| fs::write(set.join("manifest.json"), "{").unwrap())]
#[case::a_link(|set: &Path, _: &mut PruneTask| {
    fs::rename(set.join("manifest.json"), set.join("other.json")).unwrap();
    std::os::unix::fs::symlink("other.json", set.join("manifest.json")).unwrap();
})]
#[tokio::test]
async fn a_set_that_the_backup_did_not_write_is_not_touched(#[case] forge: fn(&Path, &mut PruneTask)) {
    let database = Database::new().await;
    let pod = backed_up(&database, false).await;
    let set = pod.path("store").join(SET);
    let mut task = prune();
    forge(&set, &mut task);
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names(&set);
    let report = run(&pod, task).await;
    assert_eq!(
        (report.outcome, report.objects),
        (Some(PruneOutcome::Retained), 0)
    );
    let note = report.note.unwrap_or_default();
    assert!(note.contains("was not written by this Backup"), "{note}");
    assert_eq!(names(&set), before);
}

#[tokio::test]
async fn what_others_have_put_beside_a_backup_stays_and_is_named() {
    let database = Database::new().await;
    let pod = backed_up(&database, false).await;
    let set = pod.path("store").join(SET);
    fs::write(set.join("why.txt"), "kept by hand").unwrap();
    let report = run(&pod, prune()).await;
    assert_eq!(report.outcome, Some(PruneOutcome::Removed), "{report:?}");
    assert_eq!(
        report.note.as_deref(),
        Some("shop/crm/crm-1-1a2b3c4d/why.txt stays: nothing shows that this Backup wrote it.")
    );
    let left: Vec<_> = fs::read_dir(&set)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["why.txt"]);
}

/// As a Backup that was restored with the cluster has it.
#[tokio::test]
async fn a_set_whose_backup_has_another_uid_now_is_not_touched() {
    let database = Database::new().await;
    let pod = backed_up(&database, false).await;
    let other = PruneTask {
        backup_uid: "99999999-0000-4000-8000-000000000000".into(),
        ..prune()
    };
    let report = run(&pod, other).await;
    assert_eq!(
        (report.outcome, report.objects),
        (Some(PruneOutcome::Retained), 0)
    );
    assert_eq!(stored(&pod), ["crm-1-1a2b3c4d"]);
}
