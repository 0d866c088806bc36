//! Backups that can be restored, and failures that leave nothing behind that looks like one.

use std::{fs, io::Write as _, path::Path, process::Command};

use fairway_protocol::{BackupReport, BackupTask, Level, Reason, Task};
use rstest::rstest;

use crate::{
    harness::{Outcome, Pod, requester, store},
    postgres::{Database, value},
};

pub(crate) const UID: &str = "1a2b3c4d-0000-4000-8000-000000000000";
pub(crate) const SET: &str = "shop/crm/crm-1-1a2b3c4d";

pub(crate) fn task(scratch: bool) -> Task {
    Task::Backup(backup(scratch))
}

/// A Backup of App crm, which is decoded.
pub(crate) fn backup(scratch: bool) -> BackupTask {
    BackupTask {
        requester: requester("crm"),
        store: store(),
        set: SET.into(),
        scratch,
        images: [("web".to_owned(), "crm@sha256:a".to_owned())].into(),
        backup_uid: UID.into(),
        verify: Level::Decoded,
        without_extensions: Vec::new(),
    }
}

/// A schema with something of everything, and a dropped column, which no restored copy has.
pub(crate) const CONTENT: &str = "
    set role crm; create table plain (a int4);
    create type mood as enum ('sad', 'ok'); create domain positive as int4 check (value > 0);
    create table lead (id serial primary key, gone text, name text not null default 'none', mood mood, n positive);
    alter table lead drop column gone; alter table lead add column late jsonb;
    create index lead_name on lead (lower(name)); alter table lead add constraint named check (name <> '') not valid;
    create table part (at date not null) partition by range (at);
    create table part_1 partition of part for values from ('2024-01-01') to ('2025-01-01');
    create view named as select id, name from lead where name <> 'none';
    create materialized view counted as select count(*) from lead;
    create function touch() returns trigger language plpgsql as $$ begin return new; end $$;
    create trigger touched before update on lead for each row execute function touch();
    create aggregate total (int4) (sfunc = int4pl, stype = int4, initcond = '0');
    create sequence counter start 5 increment 3;
    create table flyway_schema_history (installed_on timestamptz, day date, took interval, checksum bytea, part float8);
    insert into flyway_schema_history values ('2024-02-01 10:00Z', '2024-02-01', '1 day 2 hours', '\\x01ff', 0.1);
    create table schema_migrations (version text); insert into schema_migrations values ('1'), ('2');
    alter table lead enable row level security; create policy own on lead using (name = current_user);
    insert into lead (name, mood, n) select 'lead ' || i, 'ok', i from generate_series(1, 5000) i;";

/// What a database may set and `pg_restore` into another one does not bring along.
const SETTINGS: &str = "do $do$ declare setting text; begin
    foreach setting in array array['timezone = \"Asia/Tokyo\"', 'datestyle = \"SQL, DMY\"', 'bytea_output = escape',
      'intervalstyle = sql_standard', 'extra_float_digits = -3']
    loop execute format('alter database %I set %s', current_database(), setting); end loop; end $do$";

/// Makes pg_dump wait, and nobody else: the fingerprint waits for tables of which a view tells.
const HOLD_UP: &str = "begin; lock table plain in access exclusive mode";

fn reason_of(outcome: &Outcome) -> Reason {
    let report: BackupReport = outcome.report();
    assert_eq!((outcome.code, &report.evidence), (Some(1), &None));
    report.failure.expect("a failure").reason
}

/// Restores a stored dump as a user would, with PostgreSQL's own programs.
pub(crate) fn restore(pod: &Pod, into: &Database, scratch: bool) {
    let set = pod.path("store").join(SET);
    let file = fs::File::open(set.join(if scratch {
        "database.tar.zst"
    } else {
        "database.dump.zst"
    }))
    .unwrap();
    let plain = zstd::decode_all(file).expect("zstd");
    let dump = pod.path("restored");
    match scratch {
        true => tar::Archive::new(plain.as_slice()).unpack(&dump).expect("tar"),
        false => fs::write(&dump, plain).expect("a file"),
    }
    into.restore(&dump);
}

#[rstest]
#[tokio::test]
async fn a_backup_restores_to_the_same_fingerprint(#[values(false, true)] scratch: bool) {
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    let outcome = pod.run(&task(scratch)).await;
    let report: BackupReport = outcome.report();
    let evidence = report
        .evidence
        .unwrap_or_else(|| panic!("{:?}\n{}", report.failure, outcome.log));
    assert_eq!((outcome.code, evidence.level.as_str()), (Some(0), "Decoded"));
    assert!(evidence.bytes > 0 && evidence.taken_at.ends_with('Z'));
    let left = fs::read_dir(pod.path("scratch")).unwrap().count();
    assert_eq!(left, 0, "the scratch volume is empty again");

    let copy = Database::new().await;
    restore(&pod, &copy, scratch);
    assert_eq!(
        value(&copy.admin().await, "select count(*) from lead").await,
        "5000"
    );
    let copied: BackupReport = Pod::new(&copy, "pod-2").run(&task(false)).await.report();
    assert_eq!(
        copied.evidence.expect("a backup").fingerprint,
        evidence.fingerprint
    );
}

#[tokio::test]
async fn every_change_of_the_schema_changes_the_fingerprint() {
    let database = Database::filled(CONTENT).await;
    let admin = database.admin().await;
    let fingerprint = async || {
        let report: BackupReport = Pod::new(&database, "pod-1").run(&task(false)).await.report();
        report.evidence.expect("a backup").fingerprint
    };
    let mut last = fingerprint().await;
    for change in [
        "insert into schema_migrations values ('3')",
        "alter table lead alter name set default 'some'",
        "alter table lead validate constraint named",
        "create or replace function touch() returns trigger language plpgsql as $$ begin return null; end $$",
        "alter type mood add value 'happy'",
        "alter sequence counter increment 4",
        "drop index lead_name",
    ] {
        admin.batch_execute(change).await.expect(change);
        let next = fingerprint().await;
        assert_ne!(next, last, "{change}");
        last = next;
    }
    for no_change in [
        "insert into lead (name) values ('x')",
        "select nextval('counter')",
        "create schema fairway",
        SETTINGS,
    ] {
        admin.batch_execute(no_change).await.expect(no_change);
        assert_eq!(fingerprint().await, last, "{no_change}");
    }
}

#[tokio::test]
async fn the_fingerprint_has_what_frameworks_record_as_applied() {
    let database = Database::new().await;
    let admin = database.admin().await;
    let tables = [
        "__EFMigrationsHistory",
        "goose_db_version",
        "pgmigrations",
        "kysely_migration",
        "doctrine_migration_versions",
        "mikro_orm_migrations",
    ];
    for table in tables {
        let create = format!("set role crm; create table \"{table}\" (version text)");
        admin.batch_execute(&create).await.expect("a table");
    }
    let fingerprint = async || {
        let report: BackupReport = Pod::new(&database, "pod-1").run(&task(false)).await.report();
        report.evidence.expect("a backup").fingerprint
    };
    let mut last = fingerprint().await;
    for table in tables {
        let insert = format!("insert into \"{table}\" values ('1')");
        admin.batch_execute(&insert).await.expect("a row");
        let next = fingerprint().await;
        assert_ne!(next, last, "{table}");
        last = next;
    }
}

#[tokio::test]
async fn a_stored_backup_is_proven_again_and_not_repeated() {
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    let first: BackupReport = pod.run(&task(false)).await.report();
    let second: BackupReport = pod.run(&task(false)).await.report();
    assert_eq!(first, second);
    assert!(first.evidence.is_some());
}

#[rstest]
#[case::flipped_bit(|set: &Path| {
    let dump = set.join("database.dump.zst");
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
})]
#[case::cut_off(|set: &Path| {
    let dump = set.join("database.dump.zst");
    let bytes = fs::read(&dump).unwrap();
    fs::write(&dump, &bytes[..bytes.len() / 2]).unwrap();
})]
#[case::no_bytes(|set: &Path| fs::write(set.join("database.dump.zst"), "").unwrap())]
#[case::swapped(|set: &Path| {
    fs::copy(set.join("globals.sql.zst"), set.join("database.dump.zst")).unwrap();
})]
#[case::missing_file(|set: &Path| fs::remove_file(set.join("database.dump.zst")).unwrap())]
#[case::unreadable_manifest(|set: &Path| fs::write(set.join("manifest.json"), "{").unwrap())]
#[tokio::test]
async fn a_corrupt_backup_is_kept_and_another_one_is_taken(#[case] corrupt: fn(&Path)) {
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    let first: BackupReport = pod.run(&task(false)).await.report();
    corrupt(&pod.path("store").join(SET));
    let next = Pod::new(&database, "pod-2").with(
        "FAIRWAY_STORE_DIRECTORY",
        &pod.path("store").display().to_string(),
    );
    let second: BackupReport = next.run(&task(false)).await.report();
    let [first, second] = [first, second].map(|report| report.evidence.expect("a backup"));
    assert_ne!(first.taken_at, second.taken_at);
    assert!(
        second.notes[0].ends_with("crm-1-1a2b3c4d.pod-2.unusable"),
        "{:?}",
        second.notes
    );
    assert_eq!(stored(&pod), ["crm-1-1a2b3c4d", "crm-1-1a2b3c4d.pod-2.unusable"]);
    let again: BackupReport = next.run(&task(false)).await.report();
    assert_eq!(again.evidence, Some(second));
}

/// What somebody puts into a set's place who can write to the store and knows a real backup, but not the Backup's UID.
#[rstest]
#[case::the_backup_of_another(|set: &Path| { fs::copy(set.join("database.dump.zst"), set.join("other")).unwrap(); })]
#[case::another_dump(|set: &Path| {
    let manifest = fs::read_to_string(set.join("manifest.json")).unwrap();
    fs::copy(set.join("globals.sql.zst"), set.join("database.dump.zst")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    for field in ["bytes", "sha256", "plainBytes", "plainSha256"] {
        manifest["database"][field] = manifest["globals"][field].clone();
    }
    fs::write(set.join("manifest.json"), manifest.to_string()).unwrap();
})]
#[case::a_manifest_without_seal(|set: &Path| {
    let manifest = fs::read_to_string(set.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest.as_object_mut().unwrap().remove("seal");
    fs::write(set.join("manifest.json"), manifest.to_string()).unwrap();
})]
#[case::a_link(|set: &Path| {
    fs::remove_file(set.join("manifest.json")).unwrap();
    std::os::unix::fs::symlink("/proc/self/environ", set.join("manifest.json")).unwrap();
})]
#[case::a_pipe(|set: &Path| {
    fs::remove_file(set.join("manifest.json")).unwrap();
    assert!(Command::new("mkfifo").arg(set.join("manifest.json")).status().unwrap().success());
})]
#[tokio::test]
async fn s18c_a_forged_backup_is_not_taken_for_the_own_one(#[case] forge: fn(&Path)) {
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    // Taken by another Backup, whose set then lies where the own one would.
    let Task::Backup(own) = task(false) else {
        unreachable!()
    };
    let other = BackupTask {
        backup_uid: "another".into(),
        ..own.clone()
    };
    let first: BackupReport = pod.run(&Task::Backup(other)).await.report();
    let set = pod.path("store").join(SET);
    forge(&set);
    let report: BackupReport = pod.run(&Task::Backup(own)).await.report();
    let [first, own] = [first, report].map(|report| report.evidence.expect("a backup"));
    assert_ne!(first.taken_at, own.taken_at, "it is taken again");
    assert!(own.notes[0].contains("not its own"), "{:?}", own.notes);
    let text = fs::read_to_string(set.join("manifest.json")).unwrap();
    assert!(!text.contains(UID), "the key is not in the store");
}

#[tokio::test]
async fn s18b_nobody_else_can_read_a_backup() {
    use std::os::unix::fs::MetadataExt as _;
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    let report: BackupReport = pod.run(&task(false)).await.report();
    assert!(report.evidence.is_some());
    let mut folders = vec![pod.path("store").join("shop")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700, "{folder:?}");
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            match entry.metadata().unwrap() {
                metadata if metadata.is_dir() => folders.push(entry.path()),
                metadata => {
                    assert_eq!(metadata.mode() & 0o777, 0o600, "{:?}", entry.path());
                    files += 1;
                }
            }
        }
    }
    assert!(files >= 2);
}

/// What is beside the backup's folder, and it itself.
pub(crate) fn stored(pod: &Pod) -> Vec<String> {
    let folder = pod.path("store").join(SET);
    let Ok(entries) = fs::read_dir(folder.parent().unwrap()) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A pod that was replaced, on a node that cannot be reached, goes on when another one has taken the backup.
#[rstest]
#[case::ends_late(None)]
#[case::is_stopped(Some("TERM"))]
#[tokio::test]
async fn a_late_pod_does_not_touch_its_successors_backup(#[case] signal: Option<&str>) {
    let database = Database::filled(CONTENT).await;
    let (admin, locker) = (database.admin().await, database.admin().await);
    let late = Pod::new(&database, "pod-1");
    let store = late.path("store").display().to_string();
    let next = Pod::new(&database, "pod-2").with("FAIRWAY_STORE_DIRECTORY", &store);
    locker.batch_execute(HOLD_UP).await.expect("a lock");
    let running = late.start(&task(false));
    let waiting = "select count(*) from pg_stat_activity \
                   where datname = current_database() and wait_event_type = 'Lock'";
    while value(&admin, waiting).await != "1" {}
    running.signal("STOP");
    locker.batch_execute("rollback").await.expect("no lock");
    let report: BackupReport = next.run(&task(false)).await.report();
    let evidence = report.evidence.expect("a backup");
    if let Some(signal) = signal {
        running.signal(signal);
    }
    running.signal("CONT");
    let outcome = running.end().await;
    assert_eq!(stored(&late), ["crm-1-1a2b3c4d"], "{}", outcome.log);
    if signal.is_none() {
        assert_eq!(
            outcome.report::<BackupReport>().evidence.as_ref(),
            Some(&evidence)
        );
    }
    let again: BackupReport = next.run(&task(false)).await.report();
    assert_eq!(again.evidence, Some(evidence));
}

#[tokio::test]
async fn a_dump_ends_when_its_snapshots_session_is_lost() {
    let database = Database::filled(CONTENT).await;
    let (admin, locker) = (database.admin().await, database.admin().await);
    locker.batch_execute(HOLD_UP).await.expect("a lock");
    let pod = Pod::new(&database, "pod-1");
    let running = pod.start(&task(false));
    let waiting = "select count(*) from pg_stat_activity \
                   where datname = current_database() and wait_event_type = 'Lock'";
    while value(&admin, waiting).await != "1" {}
    // pg_dump itself goes on waiting.
    let holder = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() \
                  and application_name = 'fairway-agent' and state = 'idle in transaction'";
    assert_eq!(value(&admin, holder).await, "1");
    let outcome = running.end().await;
    assert_eq!(reason_of(&outcome), Reason::DatabaseUnreachable);
    assert_eq!(stored(&pod), [""; 0]);
}

#[tokio::test]
async fn s11_a_database_is_dumped_for_one_backup_at_a_time() {
    let database = Database::filled(CONTENT).await;
    let (admin, locker) = (database.admin().await, database.admin().await);
    locker.batch_execute(HOLD_UP).await.expect("a lock");
    let running = Pod::new(&database, "pod-1");
    let first = running.start(&task(false));
    let waiting = "select count(*) from pg_stat_activity \
                   where datname = current_database() and wait_event_type = 'Lock'";
    while value(&admin, waiting).await != "1" {}
    // That of another App, which has a store of its own.
    let Task::Backup(other) = task(false) else {
        unreachable!()
    };
    let other = Task::Backup(BackupTask {
        requester: requester("shop"),
        backup_uid: "2b3c4d5e".into(),
        ..other
    });
    let pod = Pod::new(&database, "pod-2");
    let refused = pod.run(&other).await;
    assert_eq!(reason_of(&refused), Reason::WaitingForBackup);
    let message = refused.message();
    assert!(
        message.contains("Another Backup dumps this database (pid "),
        "{message}"
    );
    assert_eq!(stored(&pod), [""; 0]);
    locker.batch_execute("rollback").await.expect("no lock");
    let report: BackupReport = first.end().await.report();
    assert!(report.evidence.is_some());
    let report: BackupReport = pod.run(&other).await.report();
    assert!(report.evidence.is_some());
}

#[tokio::test]
async fn no_dump_begins_while_a_migration_runs() {
    let database = Database::filled(CONTENT).await;
    let migration = database.admin().await;
    migration
        .batch_execute("select pg_advisory_lock(x'66616972776179'::int8)")
        .await
        .expect("the lock of migrations");
    let pod = Pod::new(&database, "pod-1");
    let refused = pod.run(&task(false)).await;
    assert_eq!(reason_of(&refused), Reason::WaitingForMigration);
    assert_eq!(stored(&pod), [""; 0]);
    migration
        .batch_execute("select pg_advisory_unlock(x'66616972776179'::int8)")
        .await
        .expect("no lock");
    let report: BackupReport = pod.run(&task(false)).await.report();
    assert!(report.evidence.is_some());
}

#[tokio::test]
async fn another_pods_attempt_is_not_removed() {
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    let set = pod.path("store").join(SET);
    let other = set.with_file_name("crm-1-1a2b3c4d.pod-0.partial");
    fs::create_dir_all(&other).expect("a folder");
    fs::File::create(other.join("database.dump.zst.partial"))
        .unwrap()
        .write_all(b"half")
        .unwrap();
    let report: BackupReport = pod.run(&task(false)).await.report();
    assert!(report.evidence.is_some());
    assert_eq!(stored(&pod), ["crm-1-1a2b3c4d", "crm-1-1a2b3c4d.pod-0.partial"]);
    let mut names: Vec<_> = fs::read_dir(&set)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["database.dump.zst", "globals.sql.zst", "manifest.json"]);
    let manifest = fs::read_to_string(set.join("manifest.json")).unwrap();
    assert!(!manifest.contains(crate::postgres::PASSWORD));
    let globals = zstd::decode_all(fs::File::open(set.join("globals.sql.zst")).unwrap()).unwrap();
    let globals = String::from_utf8(globals).unwrap();
    assert!(
        globals.contains("CREATE ROLE crm") && !globals.contains("SCRAM"),
        "{globals}"
    );
}

#[tokio::test]
async fn an_unreadable_table_fails_the_backup_and_leaves_nothing() {
    let database = Database::filled(CONTENT).await;
    database
        .admin()
        .await
        .batch_execute("create table secret (a int4)")
        .await
        .expect("a superuser's table");
    let pod = Pod::new(&database, "pod-1");
    let outcome = pod.run(&task(false)).await;
    assert_eq!(reason_of(&outcome), Reason::DumpNotPossible);
    let report: BackupReport = outcome.report();
    let message = report.failure.unwrap().message;
    assert!(
        message.contains("may not read 1 table (public.secret)"),
        "{message}"
    );
    assert_eq!(stored(&pod), [""; 0]);
}

#[tokio::test]
async fn a_database_that_refuses_has_its_reason() {
    let database = Database::new().await;
    for (url, reason) in [
        (
            "postgres://crm:x@127.0.0.1:1/d".to_owned(),
            Reason::DatabaseUnreachable,
        ),
        (
            database.url().replace(crate::postgres::PASSWORD_IN_URL, "wrong"),
            Reason::PasswordRejected,
        ),
    ] {
        let outcome = Pod::new(&database, "pod-1")
            .with("FAIRWAY_DATABASE_URL", &url)
            .run(&task(false))
            .await;
        assert_eq!(reason_of(&outcome), reason);
    }
}

#[tokio::test]
async fn a_backup_without_roles_says_so() {
    let database = Database::filled(CONTENT).await;
    // Privileges of a shared table are those of each database.
    database
        .admin()
        .await
        .batch_execute("revoke select on pg_auth_members from public")
        .await
        .expect("no right");
    let pod = Pod::new(&database, "pod-1");
    let report: BackupReport = pod.run(&task(false)).await.report();
    let notes = report.evidence.expect("a backup").notes;
    assert!(
        notes[0].contains("permission denied for table pg_auth_members"),
        "{notes:?}"
    );
}

#[rstest]
#[case("")]
#[case("&sslrootcert=system")]
#[tokio::test]
async fn a_server_with_a_public_certificate_needs_no_file(#[case] more: &str) {
    let database = Database::new().await;
    let url = format!("{}&sslmode=verify-full{more}", database.url());
    let authority = database.server().folder.join("ca.crt").display().to_string();
    let pod = Pod::new(&database, "pod-1")
        .with("FAIRWAY_DATABASE_URL", &url)
        .with("SSL_CERT_FILE", &authority)
        .with("HOME", "/nowhere");
    let report: BackupReport = pod.run(&task(false)).await.report();
    assert_eq!(report.failure, None);
}

/// A small volume; only root may mount one.
struct Volume<'a>(&'a Path);

impl<'a> Volume<'a> {
    fn mount(path: &'a Path, options: &str) -> Option<Self> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "fairway-test"])
            .arg(path)
            .output();
        mount
            .is_ok_and(|output| output.status.success())
            .then_some(Self(path))
    }
}

impl Drop for Volume<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "{} is still mounted",
            self.0.display()
        );
    }
}

#[rstest]
#[case::full("size=16k", "store", false, Reason::StoreFull)]
#[case::full_with_scratch("size=16k", "store", true, Reason::StoreFull)]
#[case::full_scratch("size=16k", "scratch", true, Reason::StoreFull)]
#[case::read_only("ro", "store", false, Reason::StoreReadOnly)]
#[tokio::test]
async fn an_unwritable_volume_has_its_reason_and_stays_clean(
    #[case] options: &str,
    #[case] volume: &str,
    #[case] scratch: bool,
    #[case] reason: Reason,
) {
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    let path = pod.path(volume);
    let Some(_mounted) = Volume::mount(&path, options) else {
        eprintln!("not proven here: only root may mount a small volume");
        return;
    };
    assert_eq!(reason_of(&pod.run(&task(scratch)).await), reason);
    assert_eq!(stored(&pod), [""; 0]);
}
