//! Databases as teams have them, backed up and restored: odd names and encodings, every kind of object, many tables.

use fairway_protocol::{BackupEvidence, BackupReport, Level, PreflightReport, PreflightTask, Reason, Task};
use rstest::rstest;

use crate::{
    backup::{restore, task},
    harness::{Pod, requester, store},
    postgres::{Database, value},
};

/// Most memory of the agent itself, in KiB.
const MEMORY: u64 = 64 * 1024;

async fn evidence(pod: &Pod, scratch: bool) -> BackupEvidence {
    let outcome = pod.run(&task(scratch)).await;
    let report: BackupReport = outcome.report();
    report
        .evidence
        .unwrap_or_else(|| panic!("{:?}\n{}", report.failure, outcome.log))
}

fn preflight() -> Task {
    Task::Preflight(PreflightTask {
        requester: requester("crm"),
        migrates: true,
        store: Some(store()),
        verify: Level::Decoded,
    })
}

#[rstest]
#[case("a=b")]
#[case("host=nowhere")]
#[case("postgresql://x")]
#[case(" with  spaces ")]
#[case("it's \"quoted\" \\ here")]
#[case("-dash")]
#[case("żółw 🐢")]
#[tokio::test]
async fn a_database_of_any_name_is_backed_up(#[case] name: &str) {
    let database = Database::named(name).await;
    database
        .admin()
        .await
        .batch_execute("set role crm; create table kept as select 42 as a")
        .await
        .expect("content");
    let pod = Pod::new(&database, "pod-1");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None);
    let evidence = evidence(&pod, true).await;
    assert!(
        !evidence.notes.iter().any(|note| note.contains("Roles")),
        "roles are in it: {:?}",
        evidence.notes
    );
    let copy = Database::new().await;
    restore(&pod, &copy, true);
    assert_eq!(value(&copy.admin().await, "select a from kept").await, "42");
}

/// Encodings of databases, and what role or database set for their clients. The text is written in the database's encoding.
#[rstest]
#[case::clients_of_less(
    "encoding 'UTF8'",
    "alter role crm in database {name} set client_encoding = 'LATIN1'",
    "e282acc3a9"
)]
#[case::clients_of_the_database(
    "encoding 'UTF8'",
    "alter database {name} set client_encoding = 'WIN1252'",
    "f09f90a2"
)]
#[case::latin1("encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'", "select", "e9fc")]
#[case::clients_of_latin1(
    "encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'",
    "alter database {name} set client_encoding = 'SQL_ASCII'",
    "e9fc"
)]
#[case::ascii("encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'", "select", "e9ff80")]
#[tokio::test]
async fn text_of_any_encoding_is_restored_byte_for_byte(
    #[case] options: &str,
    #[case] setting: &str,
    #[case] bytes: &str,
    #[values(false, true)] scratch: bool,
) {
    let options = format!("{options} template template0");
    let [database, copy] = [Database::with(&options).await, Database::with(&options).await];
    let admin = database.admin().await;
    let encoding = value(&admin, "select getdatabaseencoding()").await;
    admin
        .batch_execute(&format!(
            "set role crm; create table kept as select convert_from('\\x{bytes}', '{encoding}') as text; reset role; {}",
            setting.replace("{name}", &database.name)
        ))
        .await
        .expect("content");
    let pod = Pod::new(&database, "pod-1");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None);
    evidence(&pod, scratch).await;
    restore(&pod, &copy, scratch);
    let restored = format!("select encode(convert_to(text, '{encoding}'), 'hex') from kept");
    assert_eq!(value(&copy.admin().await, &restored).await, bytes);
}

#[tokio::test]
async fn a_catalog_that_is_not_utf_8_is_named() {
    let database =
        Database::with("encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0").await;
    database
        .admin()
        .await
        .batch_execute(
            "set role crm; do $do$ begin execute format('create table kept (a text default %L)', \
             convert_from('\\xe9', 'SQL_ASCII')); end $do$",
        )
        .await
        .expect("a default");
    let report: PreflightReport = Pod::new(&database, "pod-1").run(&preflight()).await.report();
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DatabaseUnreachable);
    assert!(
        failure.message.contains("has text that is not UTF-8") && failure.message.contains("SQL_ASCII"),
        "{}",
        failure.message
    );
}

/// C27: after a change of the image's libraries.
#[tokio::test]
async fn c27_another_version_of_the_collation_is_noted_with_the_fix() {
    let database = Database::with("locale_provider icu icu_locale 'en' template template0").await;
    let admin = database.admin().await;
    admin
        .batch_execute(
            "set role crm; create table kept (a text primary key); reset role;
             update pg_database set datcollversion = '0.1' where datname = current_database()",
        )
        .await
        .expect("content");
    let pod = Pod::new(&database, "pod-1");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None, "a warning");
    assert!(
        report.checks.contains(&("collation".to_owned(), false)),
        "{:?}",
        report.checks
    );
    let notes = evidence(&pod, false).await.notes;
    let note = notes
        .iter()
        .find(|note| note.contains("version 0.1 of the collation"))
        .unwrap_or_else(|| panic!("{notes:?}"));
    let (_, fix) = note.split_once("Run ").expect("a fix");
    // As the owner: a superuser would reindex what all databases share, for which every new session of the server waits.
    admin.batch_execute("set role crm").await.expect("the owner");
    for statement in fix.trim_end_matches(';').split("; then ") {
        admin.batch_execute(statement).await.expect(statement);
    }
    let next = Pod::new(&database, "pod-2");
    let notes = evidence(&next, false).await.notes;
    assert!(!notes.iter().any(|note| note.contains("collation")), "{notes:?}");
}

/// One of each kind of object that applications have.
const OF_EVERYTHING: &str = r#"
    create role other_team; create schema other authorization other_team; grant usage on schema other to crm;
    set role other_team; create table other.theirs as select 7 as a; grant select on other.theirs to crm; reset role;
    create extension pg_trgm; create extension hstore; create extension file_fdw;
    create server files foreign data wrapper file_fdw; create foreign table far (line text) server files
      options (filename '/nowhere');
    create publication everything for all tables;
    create function nothing() returns event_trigger language plpgsql as $$ begin end $$;
    create event trigger "Watch it" on ddl_command_end execute function nothing();
    set role crm;
    create table parted (at date, "Größe in €" numeric default 0.5) partition by range (at);
    create table parted_2024 partition of parted for values from ('2024-01-01') to ('2025-01-01') partition by hash (at);
    create table parted_2024_0 partition of parted_2024 for values with (modulus 2, remainder 0);
    create table parted_2024_1 partition of parted_2024 for values with (modulus 2, remainder 1);
    create table parted_rest partition of parted default;
    insert into parted (at) select date '2023-12-01' + i from generate_series(1, 400) i;
    create table "Order"" by; drop table x" ("select" int4 primary key, "a.b" text, "tab	in it" hstore);
    insert into "Order"" by; drop table x" values (1, E'back\\slash\ttab\nline\\.\n', 'a=>1');
    create index on "Order"" by; drop table x" using gin ("a.b" gin_trgm_ops);
    create table computed (a int4, twice int4 generated always as (a * 2) stored);
    insert into computed (a) values (21);
    create table numbered (id int4 generated by default as identity (start 10 increment 5), a text);
    insert into numbered (a) values ('x'), ('y');
    create unlogged table scratchpad as select 3 as a;
    create table secret (a int4, who text); insert into secret values (1, 'crm'), (2, 'other');
    alter table secret enable row level security; create policy own on secret using (who = current_user);
    create publication numbers for table numbered where (id > 10);
    select lo_from_bytea(424242, '\x0102');
    grant select on large object 424242 to public;
    comment on table numbered is 'it''s numbered';
"#;

/// What a copy must answer as its source does.
const SAME: &str = r#"select concat_ws(' ',
    (select count(*) || '/' || sum("Größe in €") from parted), (select count(*) from parted_2024),
    (select count(*) from parted_2024_0) > 0, (select md5(string_agg(o::text, ',')) from "Order"" by; drop table x" o),
    (select twice from computed), (select max(id) from numbered), (select last_value from numbered_id_seq),
    (select a from scratchpad), (select count(*) from secret), (select lo_get(424242)), (select a from other.theirs),
    (select relowner::regrole from pg_class where oid = 'other.theirs'::regclass),
    (select lomacl::text from pg_largeobject_metadata where oid = 424242),
    (select string_agg(pubname, ',' order by pubname) from pg_publication), (select evtname from pg_event_trigger),
    (select string_agg(extname, ',' order by extname) from pg_extension), obj_description('numbered'::regclass, 'pg_class'),
    (select rowfilter from pg_publication_tables where pubname = 'numbers'))"#;

#[rstest]
#[tokio::test]
async fn every_kind_of_object_is_restored(#[values(false, true)] scratch: bool) {
    let [database, copy] = [Database::new().await, Database::new().await];
    let admin = database.admin().await;
    // Roles are of the whole server.
    let content = match scratch {
        true => OF_EVERYTHING.replace("other_team", "other_team_of_scratch"),
        false => OF_EVERYTHING.to_owned(),
    };
    admin.batch_execute(&content).await.expect("content");
    let pod = Pod::new(&database, "pod-1");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure, None);
    let taken = evidence(&pod, scratch).await;
    for words in [
        "1 foreign table's rows (public.far)",
        "Only a superuser can restore 1 event trigger (\"Watch it\"), 1 publication of all tables or of a schema (everything)",
    ] {
        assert!(
            taken.notes.iter().any(|note| note.contains(words)),
            "{words}: {:?}",
            taken.notes
        );
    }
    restore(&pod, &copy, scratch);
    let [source, restored] = [value(&admin, SAME).await, value(&copy.admin().await, SAME).await];
    assert_eq!(restored, source);
    let again = evidence(&Pod::new(&copy, "pod-2"), false).await;
    assert_eq!(again.fingerprint, taken.fingerprint);
}

#[tokio::test]
async fn what_belongs_to_replication_is_noted() {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute(
            "create publication p for all tables; \
             create subscription far connection 'dbname=nowhere' publication p \
               with (connect = false, slot_name = none, enabled = false)",
        )
        .await
        .expect("a subscription");
    let notes = evidence(&Pod::new(&database, "pod-1"), false).await.notes;
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("Not in this backup: 1 subscription (far)")),
        "{notes:?}"
    );
    admin
        .batch_execute("drop subscription far")
        .await
        .expect("it can go");
}

/// Tables of an application, with a first column of that type.
async fn create_tables(database: &Database, count: u32, id: &str) {
    let admin = database.admin().await;
    // Each transaction locks what it creates.
    for first in (1..=count).step_by(1000) {
        let create = format!(
            "set role crm; do $$ begin for i in {first}..{} loop execute format('create table table_%s (id {id} primary key, \
             a text default ''x'', b int4 check (b > 0)); insert into table_%1$s (id, b) values (1, 1)', i); end loop; end $$",
            first + 999
        );
        admin.batch_execute(&create).await.expect("content");
    }
}

/// A backup of many tables, with the agent's own memory.
async fn many_tables(count: u32) {
    let database = Database::new().await;
    create_tables(&database, count, "int4").await;
    let pod = Pod::new(&database, "pod-1");
    let running = pod.start(&task(true));
    let memory = running.peak_memory();
    let outcome = running.end().await;
    let report: BackupReport = outcome.report();
    assert!(report.evidence.is_some(), "{:?}", report.failure);
    let memory = memory.join().expect("a thread");
    assert!((1..MEMORY).contains(&memory), "{memory} KiB");
    let copy = Database::new().await;
    restore(&pod, &copy, true);
    let tables = "select count(*) from pg_class where relname like 'table\\_%' and relkind = 'r'";
    assert_eq!(value(&copy.admin().await, tables).await, count.to_string());
}

#[tokio::test]
async fn two_thousand_tables_are_backed_up_in_little_memory() {
    many_tables(2000).await;
}

#[tokio::test]
#[ignore = "make test-long PART=databases"]
async fn ten_thousand_tables_are_backed_up_in_little_memory() {
    many_tables(10_000).await;
}

/// pg_dump locks them as it locks tables, and fails where the server has no room for more locks.
#[tokio::test]
#[ignore = "make test-long PART=databases"]
async fn ten_thousand_tables_with_sequences_are_more_than_can_be_locked() {
    let database = Database::new().await;
    create_tables(&database, 10_000, "serial").await;
    let pod = Pod::new(&database, "pod-1");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DumpNotPossible, "{}", failure.message);
    assert!(
        failure.message.contains("all 20000 tables and sequences"),
        "{}",
        failure.message
    );
}

/// It takes gigabytes of memory.
#[tokio::test]
#[ignore = "make test-long PART=databases"]
async fn a_row_that_is_called_too_large_is_too_large_for_pg_dump() {
    let database = Database::new().await;
    let admin = database.admin().await;
    for statement in [
        "set role crm; create table files (one bytea, other bytea)",
        "insert into files (one) values (convert_to(repeat('x', 270000000), 'UTF8'))",
    ] {
        admin.batch_execute(statement).await.expect(statement);
    }
    let pod = Pod::new(&database, "pod-1");
    evidence(&pod, false).await;
    admin
        .batch_execute("update files set other = one")
        .await
        .expect("another value");
    let report: PreflightReport = pod.run(&preflight()).await.report();
    assert_eq!(report.failure.expect("a failure").reason, Reason::DumpNotPossible);
    let other = Pod::new(&database, "pod-2");
    let report: BackupReport = other.run(&task(false)).await.report();
    let failure = report.failure.expect("a failure");
    assert_eq!(failure.reason, Reason::DumpFailed, "{}", failure.message);
}
