//! Encrypted backups: nobody opens them without an identity, and what is damaged or not the own one is found without one.

use std::{fs, path::Path};

use fairway_protocol::{
    BackupEvidence, BackupReport, Encryption, PreflightReport, PreflightTask, Reason, Task,
};
use rstest::rstest;
use serde_json::Value;

use crate::{
    backup::{SET, filled, stored, task},
    harness::{Outcome, Pod, requester, store},
    keys::{Identity, encrypted},
    postgres::Database,
};

const DUMP: &str = "database.dump.zst.age";
const GLOBALS: &str = "globals.sql.zst.age";

fn evidence(outcome: &Outcome) -> BackupEvidence {
    let report: BackupReport = outcome.report();
    report
        .evidence
        .unwrap_or_else(|| panic!("{:?}\n{}", report.failure, outcome.log))
}

fn manifest(set: &Path) -> Value {
    serde_json::from_slice(&fs::read(set.join("manifest.json")).expect("a manifest")).expect("JSON")
}

/// A pod with another UID and the same store.
fn next(database: &Database, pod: &Pod) -> Pod {
    let store = pod.path("store").display().to_string();
    Pod::new(database, "pod-2").with("FAIRWAY_STORE_DIRECTORY", &store)
}

#[rstest]
#[tokio::test]
async fn no_file_of_an_encrypted_set_shows_its_content(#[values(false, true)] scratch: bool) {
    let database = filled().await;
    let pod = Pod::new(&database, "pod-1");
    let identity = Identity::generate();
    let taken = evidence(&pod.run(&encrypted(task(scratch), &[&identity])).await);
    assert_eq!(taken.level, "Decoded");
    let set = pod.path("store").join(SET);
    let manifest = manifest(&set);
    assert_eq!(manifest["encryption"]["scheme"], "age");
    assert_eq!(
        manifest["encryption"]["recipients"][0],
        identity.recipient.as_str()
    );
    assert_eq!(manifest["database"]["sha256"], taken.sha256.as_str());
    let mut files = 0;
    for entry in fs::read_dir(&set).expect("a set") {
        let path = entry.expect("a file").path();
        let content = fs::read(&path).expect("content");
        if path.ends_with("manifest.json") {
            assert!(
                !String::from_utf8_lossy(&content).contains("lead"),
                "it names a table"
            );
            continue;
        }
        assert!(path.extension().is_some_and(|ending| ending == "age"), "{path:?}");
        assert!(content.starts_with(b"age-encryption.org/v1\n"), "{path:?}");
        assert!(zstd::decode_all(&content[..]).is_err(), "{path:?}");
        files += 1;
    }
    assert_eq!(files, 2, "the dump, and the roles");
    assert_eq!(fs::read_dir(pod.path("scratch")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_encrypted_set_is_proven_again_and_not_repeated() {
    let database = filled().await;
    let pod = Pod::new(&database, "pod-1");
    let task = encrypted(task(false), &[&Identity::generate(), &Identity::generate()]);
    let first = evidence(&pod.run(&task).await);
    assert_eq!(evidence(&next(&database, &pod).run(&task).await), first);
}

#[rstest]
#[case::flipped_bit(|set: &Path| {
    let mut bytes = fs::read(set.join(DUMP)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(set.join(DUMP), bytes).unwrap();
})]
#[case::truncated(|set: &Path| {
    let bytes = fs::read(set.join(DUMP)).unwrap();
    fs::write(set.join(DUMP), &bytes[..bytes.len() / 2]).unwrap();
})]
#[case::empty(|set: &Path| fs::write(set.join(DUMP), b"").unwrap())]
#[case::swapped(|set: &Path| { fs::copy(set.join(GLOBALS), set.join(DUMP)).unwrap(); })]
#[case::forged_to_name_another_file(|set: &Path| {
    let mut manifest = manifest(set);
    manifest["database"] = manifest["globals"].clone();
    fs::write(set.join("manifest.json"), manifest.to_string()).unwrap();
})]
#[case::forged_to_be_clear(|set: &Path| {
    let mut manifest = manifest(set);
    manifest.as_object_mut().unwrap().remove("encryption");
    fs::write(set.join("manifest.json"), manifest.to_string()).unwrap();
})]
#[tokio::test]
async fn a_damaged_or_forged_encrypted_set_is_kept_and_another_one_taken(#[case] damage: fn(&Path)) {
    let database = filled().await;
    let pod = Pod::new(&database, "pod-1");
    let task = encrypted(task(false), &[&Identity::generate()]);
    let first = evidence(&pod.run(&task).await);
    damage(&pod.path("store").join(SET));
    let next = next(&database, &pod);
    let second = evidence(&next.run(&task).await);
    assert_ne!(first.taken_at, second.taken_at);
    assert_eq!(stored(&pod), ["crm-1-1a2b3c4d", "crm-1-1a2b3c4d.pod-2.unusable"]);
    assert_eq!(evidence(&next.run(&task).await), second);
}

/// The recipients were changed between two attempts of one Backup.
#[rstest]
#[case::not_encrypted(None)]
#[case::to_others(Some(Identity::generate()))]
#[tokio::test]
async fn a_set_that_others_can_open_is_not_taken_for_the_own_one(#[case] others: Option<Identity>) {
    let database = filled().await;
    let pod = Pod::new(&database, "pod-1");
    let earlier = match &others {
        Some(others) => encrypted(task(false), &[others]),
        None => task(false),
    };
    let first = evidence(&pod.run(&earlier).await);
    let own = Identity::generate();
    let second = evidence(&next(&database, &pod).run(&encrypted(task(false), &[&own])).await);
    assert_ne!(first.taken_at, second.taken_at);
    assert!(
        second.notes[0].contains("encrypted to others"),
        "{:?}",
        second.notes
    );
    let manifest = manifest(&pod.path("store").join(SET));
    assert_eq!(manifest["encryption"]["recipients"][0], own.recipient.as_str());
}

#[tokio::test]
async fn nothing_is_dumped_for_a_recipient_that_is_none() {
    let database = filled().await;
    let pod = Pod::new(&database, "pod-1");
    let mut wrong = Identity::generate();
    let last = if wrong.recipient.ends_with('q') { "p" } else { "q" };
    wrong.recipient.pop();
    wrong.recipient.push_str(last);
    let outcome = pod
        .run(&encrypted(task(false), &[&Identity::generate(), &wrong]))
        .await;
    let failure = outcome.report::<BackupReport>().failure.expect("a failure");
    assert_eq!(failure.reason, Reason::RecipientInvalid);
    assert!(
        failure.message.starts_with("Recipient 2 of"),
        "{}",
        failure.message
    );
    assert_eq!(stored(&pod), [""; 0]);

    let preflight = Task::Preflight(PreflightTask {
        requester: requester("crm"),
        migrates: false,
        store: Some(store()),
        encryption: Some(Encryption {
            recipients: vec![wrong.recipient],
        }),
    });
    let report: PreflightReport = pod.run(&preflight).await.report();
    assert_eq!(
        report.failure.expect("a failure").reason,
        Reason::RecipientInvalid
    );
    assert_eq!(report.checks.last(), Some(&("recipients".to_owned(), false)));
}

/// What `pg_restore` cannot read must not be encrypted: nobody would find out.
#[tokio::test]
async fn an_unreadable_table_fails_the_encrypted_backup_and_leaves_nothing() {
    let database = filled().await;
    let admin = database.admin().await;
    let create = "create table secret (a int4)";
    admin.batch_execute(create).await.expect("a superuser's table");
    let pod = Pod::new(&database, "pod-1");
    let outcome = pod.run(&encrypted(task(false), &[&Identity::generate()])).await;
    let failure = outcome.report::<BackupReport>().failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DumpFailed, "{}", failure.message);
    assert_eq!(stored(&pod), [""; 0]);
}
