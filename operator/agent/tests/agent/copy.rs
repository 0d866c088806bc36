//! Copies of sets: the same bytes in a further store, and nothing that only looks like a copy.

use std::{fs, path::Path};

use fairway_protocol::{BackupReport, CopyEvidence, CopyReport, CopyTask, Reason, Task};
use rstest::rstest;
use serde_json::Value;

use crate::{
    backup::{SET, UID, filled, task},
    harness::{Outcome, Pod, requester, store},
    keys::{Identity, encrypted},
    postgres::Database,
};

fn copy() -> Task {
    Task::Copy(CopyTask {
        requester: requester("crm"),
        store: store(),
        to: store(),
        set: SET.into(),
        backup_uid: UID.into(),
    })
}

/// A pod that has taken a backup, and one that copies it.
struct Pods {
    taken: Pod,
    copying: Pod,
}

impl Pods {
    async fn new(database: &Database, task: &Task) -> Self {
        let taken = Pod::new(database, "pod-1");
        let report: BackupReport = taken.run(task).await.report();
        assert_eq!(report.failure, None);
        let copying = Self::pod(database, &taken, "pod-2");
        fs::create_dir(taken.path("copy")).expect("a volume");
        Self { taken, copying }
    }

    /// A pod with both volumes of the first one.
    fn pod(database: &Database, taken: &Pod, uid: &str) -> Pod {
        let path = |name: &str| taken.path(name).display().to_string();
        Pod::new(database, uid)
            .with("FAIRWAY_STORE_DIRECTORY", &path("store"))
            .with("FAIRWAY_COPY_DIRECTORY", &path("copy"))
    }

    fn set(&self) -> std::path::PathBuf {
        self.taken.path("store").join(SET)
    }

    fn copied(&self) -> std::path::PathBuf {
        self.taken.path("copy").join(SET)
    }
}

fn evidence(outcome: &Outcome) -> CopyEvidence {
    let report: CopyReport = outcome.report();
    report
        .evidence
        .unwrap_or_else(|| panic!("{:?}\n{}", report.failure, outcome.log))
}

fn reason(outcome: &Outcome) -> Reason {
    let report: CopyReport = outcome.report();
    assert_eq!((outcome.code, &report.evidence), (Some(1), &None));
    report.failure.expect("a failure").reason
}

/// Names and contents of the files of a set, the manifest left out.
fn files(set: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(set)
        .expect("a set")
        .map(|entry| entry.expect("a file"))
        .map(|entry| {
            let name = entry.file_name().into_string().expect("UTF-8");
            (name, fs::read(entry.path()).expect("content"))
        })
        .filter(|(name, _)| name != "manifest.json")
        .collect();
    files.sort();
    files
}

/// What is in the folder of the copy's App.
fn beside(set: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(set.parent().expect("a folder")) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[rstest]
#[tokio::test]
async fn a_copy_has_the_same_files(#[values(false, true)] is_encrypted: bool) {
    let database = filled().await;
    let task = match is_encrypted {
        true => encrypted(task(false), &[&Identity::generate()]),
        false => task(false),
    };
    let pods = Pods::new(&database, &task).await;
    let made = evidence(&pods.copying.run(&copy()).await);
    assert_eq!(files(&pods.copied()), files(&pods.set()));
    let sum: usize = files(&pods.copied())
        .iter()
        .map(|(_, content)| content.len())
        .sum();
    assert_eq!((made.bytes, made.note), (sum as u64, None));
    // What is there is proven again, and a Backup's agent takes it for a set of its own.
    let before = fs::read(pods.copied().join("manifest.json")).unwrap();
    evidence(&Pods::pod(&database, &pods.taken, "pod-3").run(&copy()).await);
    assert_eq!(fs::read(pods.copied().join("manifest.json")).unwrap(), before);
    let from_copy = Pod::new(&database, "pod-4").with(
        "FAIRWAY_STORE_DIRECTORY",
        &pods.taken.path("copy").display().to_string(),
    );
    let report: BackupReport = from_copy.run(&task).await.report();
    assert_eq!(report.failure, None);
    assert_eq!(fs::read(pods.copied().join("manifest.json")).unwrap(), before);
}

#[rstest]
#[case::flipped_bit(|set: &Path| {
    let dump = set.join("database.dump.zst");
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
})]
#[case::truncated(|set: &Path| {
    let dump = set.join("database.dump.zst");
    let bytes = fs::read(&dump).unwrap();
    fs::write(&dump, &bytes[..bytes.len() / 2]).unwrap();
})]
#[case::empty(|set: &Path| fs::write(set.join("database.dump.zst"), b"").unwrap())]
#[case::missing(|set: &Path| fs::remove_file(set.join("globals.sql.zst")).unwrap())]
#[case::swapped(|set: &Path| { fs::copy(set.join("globals.sql.zst"), set.join("database.dump.zst")).unwrap(); })]
#[case::forged(|set: &Path| {
    let text = fs::read(set.join("manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&text).unwrap();
    manifest["level"] = "Compared".into();
    fs::write(set.join("manifest.json"), manifest.to_string()).unwrap();
})]
#[case::without_a_manifest(|set: &Path| fs::remove_file(set.join("manifest.json")).unwrap())]
#[tokio::test]
async fn a_damaged_or_forged_set_is_not_copied(#[case] damage: fn(&Path)) {
    let database = filled().await;
    let pods = Pods::new(&database, &task(false)).await;
    damage(&pods.set());
    assert_eq!(reason(&pods.copying.run(&copy()).await), Reason::StoreCorrupt);
    assert_eq!(beside(&pods.copied()), [""; 0], "nothing is left of it");
}

#[rstest]
#[case::flipped_bit(|set: &Path| {
    let dump = set.join("database.dump.zst");
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
})]
#[case::missing(|set: &Path| fs::remove_file(set.join("database.dump.zst")).unwrap())]
#[case::unreadable_manifest(|set: &Path| fs::write(set.join("manifest.json"), "{").unwrap())]
#[tokio::test]
async fn a_damaged_copy_is_kept_and_another_one_made(#[case] damage: fn(&Path)) {
    let database = filled().await;
    let pods = Pods::new(&database, &task(false)).await;
    evidence(&pods.copying.run(&copy()).await);
    damage(&pods.copied());
    let next = Pods::pod(&database, &pods.taken, "pod-3");
    let again = evidence(&next.run(&copy()).await);
    assert!(
        again
            .note
            .expect("a note")
            .ends_with("crm-1-1a2b3c4d.pod-3.unusable")
    );
    assert_eq!(files(&pods.copied()), files(&pods.set()));
    assert_eq!(
        beside(&pods.copied()),
        ["crm-1-1a2b3c4d", "crm-1-1a2b3c4d.pod-3.unusable"]
    );
}

/// A set of another Backup that lies in the copy's place, whole and with its own seal.
#[tokio::test]
async fn the_set_of_another_backup_is_not_taken_for_a_copy() {
    let database = filled().await;
    let pods = Pods::new(&database, &task(false)).await;
    let Task::Backup(other) = task(false) else {
        unreachable!()
    };
    let elsewhere = Pod::new(&database, "pod-9").with(
        "FAIRWAY_STORE_DIRECTORY",
        &pods.taken.path("copy").display().to_string(),
    );
    let other = fairway_protocol::BackupTask {
        backup_uid: "another".into(),
        ..other
    };
    let report: BackupReport = elsewhere.run(&Task::Backup(other)).await.report();
    assert_eq!(report.failure, None);
    let made = evidence(&pods.copying.run(&copy()).await);
    assert!(made.note.expect("a note").contains("not its own"));
    assert_eq!(files(&pods.copied()), files(&pods.set()));
}
