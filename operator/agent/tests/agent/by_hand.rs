//! A set is restored by the commands of the documentation, without Fairway.

use std::{fs, path::Path};

use fairway_protocol::{BackupReport, Task};
use rstest::rstest;
use serde_json::Value;

use crate::{
    backup::{SET, UID, filled, task},
    harness::Pod,
    keys::{Identity, encrypted},
    page,
    postgres::{Database, value},
};

/// Copies a set as it is in its volume to where the page expects it.
fn fetch(pod: &Pod, to: &Path) {
    let set = to.join("set");
    fs::create_dir(&set).expect("a folder");
    for entry in fs::read_dir(pod.path("store").join(SET)).expect("a set") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), set.join(entry.file_name())).expect("a copy");
    }
}

async fn backed_up(pod: &Pod, task: &Task) -> String {
    let outcome = pod.run(task).await;
    let report: BackupReport = outcome.report();
    let evidence = report.evidence;
    evidence
        .unwrap_or_else(|| panic!("{:?}\n{}", report.failure, outcome.log))
        .fingerprint
}

#[rstest]
#[tokio::test]
async fn a_set_is_restored_by_the_commands_of_the_page(
    #[values(false, true)] scratch: bool,
    #[values(false, true)] is_encrypted: bool,
) {
    let database = filled().await;
    let admin = database.admin().await;
    let add = "create extension pg_trgm schema public; create collation german (provider = icu, locale = 'de'); \
               set role crm; create table word (text text collate german)";
    admin
        .batch_execute(add)
        .await
        .expect("an extension, which Debian's postgresql-15 has");
    let pod = Pod::new(&database, "pod-1");
    let [identity, other] = [Identity::generate(), Identity::generate()];
    let task_of = |scratch| match is_encrypted {
        true => encrypted(task(scratch), &[&other, &identity]),
        false => task(scratch),
    };
    let fingerprint = backed_up(&pod, &task_of(scratch)).await;
    let folder = tempfile::tempdir().expect("a folder");
    fetch(&pod, folder.path());

    let manifest = fs::read(folder.path().join("set/manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let source = &manifest["source"];
    assert_eq!(
        (&source["name"], &source["owner"]),
        (&database.name.clone().into(), &"crm".into())
    );
    assert_eq!(source["extensions"][0]["name"], "pg_trgm");
    assert_eq!(source["collations"][0]["name"], "german");

    let target = format!("{}_restored", database.name);
    fs::write(folder.path().join("identity.txt"), &identity.secret).expect("a file");
    let server = database.server();
    let (host, port) = (server.folder.display().to_string(), server.port.to_string());
    let printed = page::run(
        &["unpack", "restore"],
        folder.path(),
        &server.programs,
        &[
            ("PGHOST", &host),
            ("PGPORT", &port),
            ("PGUSER", "postgres"),
            ("TARGET", &target),
            ("IDENTITY", "identity.txt"),
        ],
    );
    assert!(printed.passed, "{}", printed.output);
    assert_eq!(printed.output.matches("-: OK").count(), 2, "{}", printed.output);
    let globals = fs::read_to_string(folder.path().join("globals.sql")).expect("roles");
    assert!(globals.contains("CREATE ROLE crm"), "{globals}");

    let copy = Database { name: target };
    let rows = value(&copy.admin().await, "select count(*) from lead").await;
    assert_eq!(rows, "5000");
    let owner = "select pg_get_userbyid(datdba) from pg_database where datname = current_database()";
    assert_eq!(value(&copy.admin().await, owner).await, "crm");
    assert_eq!(
        backed_up(&Pod::new(&copy, "pod-2"), &task(false)).await,
        fingerprint
    );
}

/// What the page's checks find, by how a set was damaged.
#[rstest]
#[case::flipped_bit(|dump: &Path| {
    let mut bytes = fs::read(dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(dump, bytes).unwrap();
})]
#[case::truncated(|dump: &Path| {
    let bytes = fs::read(dump).unwrap();
    fs::write(dump, &bytes[..bytes.len() / 2]).unwrap();
})]
#[case::empty(|dump: &Path| fs::write(dump, b"").unwrap())]
#[case::swapped(|dump: &Path| { fs::copy(dump.with_file_name("globals.sql.zst"), dump).unwrap(); })]
#[case::missing(|dump: &Path| fs::remove_file(dump).unwrap())]
#[tokio::test]
async fn a_damaged_set_does_not_pass_the_checks_of_the_page(#[case] damage: fn(&Path)) {
    let database = filled().await;
    let pod = Pod::new(&database, "pod-1");
    backed_up(&pod, &task(false)).await;
    let folder = tempfile::tempdir().expect("a folder");
    fetch(&pod, folder.path());
    damage(&folder.path().join("set/database.dump.zst"));
    let printed = page::run(&["unpack"], folder.path(), &database.server().programs, &[]);
    assert!(!printed.passed, "{}", printed.output);
    assert!(!printed.output.contains("read to its end"), "{}", printed.output);
    assert!(!folder.path().join("dump").exists(), "nothing is unpacked");
}

#[tokio::test]
async fn another_identity_does_not_open_a_set() {
    let database = filled().await;
    let pod = Pod::new(&database, "pod-1");
    backed_up(&pod, &encrypted(task(false), &[&Identity::generate()])).await;
    let folder = tempfile::tempdir().expect("a folder");
    fetch(&pod, folder.path());
    let other = Identity::generate().secret;
    fs::write(folder.path().join("identity.txt"), other).expect("a file");
    let programs = &database.server().programs;
    let printed = page::run(
        &["unpack"],
        folder.path(),
        programs,
        &[("IDENTITY", "identity.txt")],
    );
    assert!(!printed.passed, "{}", printed.output);
    assert!(
        printed.output.contains("no identity matched"),
        "{}",
        printed.output
    );
}

#[tokio::test]
async fn a_forged_manifest_does_not_pass_the_seal_of_the_page() {
    let database = filled().await;
    let pod = Pod::new(&database, "pod-1");
    backed_up(&pod, &encrypted(task(false), &[&Identity::generate()])).await;
    let folder = tempfile::tempdir().expect("a folder");
    fetch(&pod, folder.path());
    let programs = &database.server().programs;
    let is_sealed = |uid: &str| page::run(&["seal"], folder.path(), programs, &[("BACKUP_UID", uid)]).passed;
    assert!(is_sealed(UID));
    assert!(!is_sealed("another"));
    let manifest = folder.path().join("set/manifest.json");
    let text = fs::read_to_string(&manifest).expect("a manifest");
    fs::write(&manifest, text.replace("Decoded", "Compared")).expect("a file");
    assert!(!is_sealed(UID));
}
