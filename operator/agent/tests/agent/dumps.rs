//! Dumps that did not go as `pg_dump` says, and databases that it could not dump: each is refused, and nothing is left that
//! looks like a backup.

use std::{fs, os::unix::fs::PermissionsExt as _};

use fairway_protocol::{BackupReport, Level, PreflightReport, PreflightTask, Reason, Task};
use rstest::rstest;

use crate::{
    backup::{stored, task},
    harness::{Pod, requester, store},
    postgres::{Database, ROLE, value},
};

/// Tables, and two large objects.
const CONTENT: &str = "
    set role crm; create table many as select i, 'row ' || i as text from generate_series(1, 20000) i;
    create table few as select 1 as a; create table none (a int4);
    select lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex')), lo_from_bytea(0, '\\x01');";

/// What goes before each script: the dump's folder is its last argument.
const SCRIPT: &str = "#!/bin/sh\nset -e\nPATH=/usr/bin:/bin\n\
    case \"$1\" in -V | --version) exec \"$REAL/pg_dump\" --version ;; esac\nfor folder; do :; done\n";

/// A pod in whose image this script takes the place of `pg_dump`. It finds the real one in `$REAL`.
fn with_pg_dump(database: &Database, script: &str) -> Pod {
    let pod = Pod::new(database, "pod-1");
    let [real, tools] = ["real", "tools"].map(|name| pod.path(name));
    for folder in [&real, &tools] {
        fs::create_dir(folder).expect("a folder");
    }
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let installed = database.server().programs.join(program);
        for folder in [&real, &tools] {
            fs::copy(&installed, folder.join(program)).expect("a program");
        }
    }
    let wrapper = tools.join("pg_dump");
    fs::remove_file(&wrapper).expect("a copy");
    fs::write(&wrapper, format!("{SCRIPT}{script}")).expect("a script");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("a mode");
    let [real, tools] = [real, tools].map(|folder| folder.display().to_string());
    pod.with("REAL", &real).with("PATH", &tools)
}

async fn backup(database: &Database, script: &str, scratch: bool) -> (BackupReport, Pod) {
    let pod = with_pg_dump(database, script);
    let container = pod.start_without(&database.server().programs, &task(scratch));
    (container.end().await.report(), pod)
}

/// What this script dumps in the place of `pg_dump` is refused for that reason, in those words, and not stored.
async fn is_refused(scratch: bool, script: &str, reason: Reason, words: &str) {
    let database = Database::filled(CONTENT).await;
    let (report, pod) = backup(&database, script, scratch).await;
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, reason, "{}", failure.message);
    assert!(failure.message.contains(words), "{}", failure.message);
    assert_eq!(stored(&pod), [""; 0]);
}

#[tokio::test]
async fn c15_a_dump_of_no_bytes_is_no_backup() {
    let database = Database::filled(CONTENT).await;
    let (report, pod) = backup(&database, "exit 0", false).await;
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DumpFailed, "{}", failure.message);
    assert!(failure.message.contains("wrote nothing"), "{}", failure.message);
    assert_eq!(stored(&pod), [""; 0]);
}

/// C17: an error before the first byte, and after the last one.
#[rstest]
#[case::at_once(
    false,
    "echo 'pg_dump: error: no memory' >&2; exit 1",
    "pg_dump: error: no memory"
)]
#[case::after_all(false, "\"$REAL/pg_dump\" \"$@\"; exit 3", "pg_dump failed")]
#[case::after_all_of_a_folder(true, "\"$REAL/pg_dump\" \"$@\"; exit 3", "pg_dump failed")]
#[tokio::test]
async fn c17_a_dump_that_failed_is_no_backup(
    #[case] scratch: bool,
    #[case] script: &str,
    #[case] words: &str,
) {
    is_refused(scratch, script, Reason::DumpFailed, words).await;
}

/// C16: `pg_dump` says that it succeeded, and what it wrote was cut off.
#[rstest]
#[case::stream(false, "\"$REAL/pg_dump\" \"$@\" | head -c 100000", "pg_restore: error")]
#[case::without_a_table(
    true,
    "\"$REAL/pg_dump\" \"$@\"; rm \"$(ls -S \"$folder\"/[0-9]*.dat | head -n 1)\"",
    ".dat"
)]
#[case::half_of_a_table(
    true,
    "\"$REAL/pg_dump\" \"$@\"; truncate -s 50000 \"$(ls -S \"$folder\"/[0-9]*.dat | head -n 1)\"",
    ".dat were cut off"
)]
#[case::whole_rows(
    true,
    "\"$REAL/pg_dump\" \"$@\"; file=$(ls -S \"$folder\"/[0-9]*.dat | head -n 1); \
     head -n 100 \"$file\" > \"$file.head\"; mv \"$file.head\" \"$file\"",
    ".dat were cut off"
)]
#[case::empty_file(
    true,
    "\"$REAL/pg_dump\" \"$@\"; : > \"$(ls -S \"$folder\"/[0-9]*.dat | head -n 1)\"",
    ".dat were cut off"
)]
#[case::large_object(
    true,
    "\"$REAL/pg_dump\" \"$@\"; truncate -s 9999 \"$(ls -S \"$folder\"/blob_*.dat | head -n 1)\"",
    "it has 2 large objects with 10000 bytes, and the database has 2 with 10001"
)]
#[case::contents(
    true,
    "\"$REAL/pg_dump\" \"$@\"; truncate -s -100 \"$folder/toc.dat\"",
    "pg_restore: error"
)]
#[tokio::test]
async fn c16_a_dump_that_was_cut_off_is_no_backup(
    #[case] scratch: bool,
    #[case] script: &str,
    #[case] words: &str,
) {
    is_refused(scratch, script, Reason::DecodeFailed, words).await;
}

#[tokio::test]
async fn a_script_in_the_place_of_pg_dump_changes_nothing_by_itself() {
    let database = Database::filled(CONTENT).await;
    for scratch in [false, true] {
        let (report, _) = backup(&database, "exec \"$REAL/pg_dump\" \"$@\"", scratch).await;
        assert!(report.evidence.is_some(), "{:?}", report.failure);
    }
}

/// A role that owns nothing.
async fn role(database: &Database, name: &str) -> Pod {
    let create = format!(
        "create role {name} login password '{}'",
        crate::postgres::PASSWORD
    );
    database
        .admin()
        .await
        .batch_execute(&create)
        .await
        .expect("a role");
    let url = database.url().replacen(ROLE, name, 1);
    Pod::new(database, "pod-1").with("FAIRWAY_DATABASE_URL", &url)
}

fn preflight() -> Task {
    Task::Preflight(PreflightTask {
        requester: requester("crm"),
        migrates: false,
        store: Some(store()),
        verify: Level::Decoded,
    })
}

/// The message of the check `dump`, which does not hold.
async fn refusal(pod: &Pod) -> String {
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.checks.last(), Some(&("dump".to_owned(), false)));
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DumpNotPossible, "{}", failure.message);
    failure.message
}

#[tokio::test]
async fn all_that_a_role_may_not_dump_is_named_and_the_fix_works_as_it_is() {
    let database = Database::filled(CONTENT).await;
    let admin = database.admin().await;
    admin
        .batch_execute(
            "create schema closed; create table closed.a (a int4); grant select on closed.a to public;
             create table \"a b\" (a int4); create sequence \"Counter\";
             create table part (a int4) partition by range (a); create table rest partition of part default;
             create table mine (a int4); insert into mine values (1); grant select on mine to public;
             alter table mine enable row level security; create policy nobody on mine using (false)",
        )
        .await
        .expect("content");
    let pod = role(&database, "auditor").await;
    let message = refusal(&pod).await;
    for words in [
        "may not use 1 schema (closed)",
        "6 tables (public.\"a b\", public.\"none\", public.few and 3 more)",
        "1 sequence (public.\"Counter\")",
        "2 large objects (",
        "row level security in 1 table (public.mine)",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!message.contains("auditor"), "{message}");
    let (_, fix) = message.split_once("run: ").expect("a fix");
    admin
        .batch_execute(&fix.replace("ROLE", "auditor"))
        .await
        .expect("the fix");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None);
    let report: BackupReport = pod.run(&task(true)).await.report();
    assert!(report.evidence.is_some(), "{:?}", report.failure);
    let copy = Database::new().await;
    crate::backup::restore(&pod, &copy, true);
    let rows = "select (select count(*) from mine) || ' ' || (select count(*) from pg_largeobject_metadata)";
    assert_eq!(value(&copy.admin().await, rows).await, "1 2");
}

/// What `pg_dump` needs no right for: its own tables behind policies of its own, those of an extension, other sessions'
/// temporary ones, rows of a foreign table, a view.
#[tokio::test]
async fn what_pg_dump_does_not_read_stops_nothing() {
    let database = Database::filled(CONTENT).await;
    let admin = database.admin().await;
    admin
        .batch_execute(
            "set role crm; create table own (a int4); alter table own enable row level security;
             create policy nobody on own using (false); reset role;
             create schema extensions; create extension pg_trgm schema extensions;
             create table extensions.of_extension (a int4); alter extension pg_trgm add table extensions.of_extension;
             create temporary table other (a int4); create view secret_view as select 1 as a;
             create extension file_fdw; create server files foreign data wrapper file_fdw;
             create foreign table far (a int4) server files options (filename '/nowhere')",
        )
        .await
        .expect("content");
    let pod = Pod::new(&database, "pod-1");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None);
    let report: BackupReport = pod.run(&task(false)).await.report();
    let evidence = report.evidence.unwrap_or_else(|| panic!("{:?}", report.failure));
    let note = evidence.notes.last().expect("a note");
    assert!(
        note.starts_with("Not in this backup: 1 foreign table's rows (public.far)"),
        "{note}"
    );
}

#[tokio::test]
async fn a_policy_that_binds_the_owner_is_named() {
    let database = Database::new().await;
    let admin = database.admin().await;
    let forced = "set role crm; create table own (a int4); alter table own enable row level security, force row level security";
    admin.batch_execute(forced).await.expect("a table");
    let pod = Pod::new(&database, "pod-1");
    let message = refusal(&pod).await;
    assert!(
        message.contains("row level security in 1 table (public.own)"),
        "{message}"
    );
    admin
        .batch_execute("alter table own no force row level security")
        .await
        .expect("the fix");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None);
}

#[tokio::test]
async fn a_row_that_is_too_large_is_found_without_reading_it() {
    let database = Database::new().await;
    let admin = database.admin().await;
    // Each value is stored compressed; as text of COPY they have 1.08 GB together.
    for statement in [
        "set role crm; create table files (one bytea, other bytea); create table near (one bytea)",
        "insert into files (one) values (convert_to(repeat('x', 270000000), 'UTF8'))",
        "insert into near select one from files",
    ] {
        admin.batch_execute(statement).await.expect(statement);
    }
    let pod = Pod::new(&database, "pod-1");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None, "0.54 GB can be copied");
    admin
        .batch_execute("update files set other = one")
        .await
        .expect("another value");
    let message = refusal(&pod).await;
    assert!(
        message.starts_with("pg_dump would fail at a row of 1 table (public.files):"),
        "{message}"
    );
}
