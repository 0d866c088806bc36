//! Backups that are proven by restoring them, and dumps that no server takes back.

use std::{fs, time::Duration};

use fairway_protocol::{BackupEvidence, BackupReport, BackupTask, Cause, Failure, Level, Reason, Task};
use rstest::rstest;

use crate::{
    backup::{CONTENT, SET, backup, stored},
    harness::Pod,
    postgres::{Database, PASSWORD, ROLE},
};

fn task() -> BackupTask {
    BackupTask {
        verify: Level::Restored,
        ..backup(true)
    }
}

/// Backs a database up as a pod does that has a clone beside the agent.
async fn run(pod: &Pod, task: BackupTask) -> BackupReport {
    let _clone = pod.start_clone(&[]);
    pod.start_as_user(&Task::Backup(task)).end().await.report()
}

async fn proven(database: &Database) -> BackupEvidence {
    let pod = Pod::new(database, "pod-1");
    let report = run(&pod, task()).await;
    let evidence = report.evidence.unwrap_or_else(|| panic!("{:?}", report.failure));
    assert_eq!(evidence.level, "Restored");
    let left = fs::read_dir(pod.path("scratch")).expect("a folder").count();
    assert_eq!(left, 0, "the scratch volume is empty again");
    evidence
}

async fn refused(database: &Database, task: BackupTask) -> Failure {
    let pod = Pod::new(database, "pod-1");
    let report = run(&pod, task).await;
    assert_eq!(report.evidence, None);
    assert_eq!(stored(&pod), [""; 0], "nothing is left that looks like a backup");
    report.failure.expect("a failure")
}

/// Notes but those on the dump itself, which it has at every level: databases of other tests have the same owner.
fn of_the_copy(evidence: &BackupEvidence) -> Vec<&str> {
    let of_the_dump = ["Not in this backup: ", "Only a superuser can restore "];
    let notes = evidence.notes.iter().map(String::as_str);
    notes
        .filter(|note| !of_the_dump.iter().any(|begin| note.starts_with(begin)))
        .collect()
}

async fn execute(database: &Database, sql: &str) {
    if let Err(error) = database.admin().await.batch_execute(sql).await {
        panic!("{:?}", error.as_db_error());
    }
}

#[tokio::test]
async fn a_backup_is_proven_by_restoring_it() {
    let database = Database::filled(CONTENT).await;
    let evidence = proven(&database).await;
    assert_eq!(
        of_the_copy(&evidence),
        [""; 0],
        "the copy has the schema of the database"
    );
    let proof = evidence.proof.expect("a proof");
    assert!(proof.tables >= 6 && proof.bytes > 1_000_000, "{proof:?}");
    assert!(
        0.0 < proof.seconds && proof.seconds < evidence.seconds,
        "{proof:?}"
    );
}

#[tokio::test]
async fn a_stored_backup_keeps_the_level_that_it_reached() {
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    let first = run(&pod, task()).await;
    // Without a clone, which it does not need again.
    let again: BackupReport = pod.start_as_user(&Task::Backup(task())).end().await.report();
    assert_eq!(again, first);
    assert_eq!(again.evidence.expect("a backup").level, "Restored");
    let manifest = fs::read_to_string(pod.path("store").join(SET).join("manifest.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["source"]["owner"], ROLE);
}

/// What an owner without further rights cannot restore alone, though every team has some of it.
#[tokio::test]
async fn a_backup_restores_by_roles_that_are_no_superusers() {
    let database = Database::filled(CONTENT).await;
    let name = &database.name;
    execute(
        &database,
        &format!(
            r#"create role "{name} reports" nologin; create role {name}_app nologin; create role {name}_admin nologin;
            grant {name}_app to {name}_admin; grant crm to {name}_admin;
            create schema extensions authorization {name}_admin; grant usage on schema extensions to crm;
            create extension pg_trgm schema extensions; create extension hstore schema public;
            create extension postgres_fdw;
            create server elsewhere foreign data wrapper postgres_fdw options (host 'elsewhere');
            create foreign table far (a int4) server elsewhere;
            set role crm; create index lead_trigrams on lead using gin (name extensions.gin_trgm_ops);
            create table pairs (pairs hstore); insert into pairs values ('a=>1'); reset role;
            -- Objects of others, in a schema in which these may not create any now.
            create table of_another (a int4 primary key, b int4 generated always as (a * 2) stored);
            insert into of_another values (1); alter table of_another owner to {name}_app;
            create schema "of others" authorization "{name} reports";
            create table "of others"."T" (a int4 references of_another, id int8 generated always as identity);
            insert into "of others"."T" values (1); alter table "of others"."T" owner to {name}_admin;
            alter schema public owner to {name}_admin;
            -- Grants of others than the owner.
            grant select on lead to {name}_app with grant option;
            set role {name}_app; grant select on lead to "{name} reports"; reset role;
            alter default privileges for role {name}_admin in schema public grant select on tables to "{name} reports";
            -- Policies that would hide rows from the owner, also from a view of somebody else.
            alter table lead force row level security;
            create materialized view seen as select count(*) from lead;
            alter materialized view seen owner to "{name} reports";
            grant usage on schema public to "{name} reports";
            select lo_from_bytea(0, 'large'); select lo_from_bytea(0, 'object');
            do $$ declare o oid; begin for o in select oid from pg_largeobject_metadata loop
              execute format('alter large object %s owner to crm', o); end loop; end $$;
            comment on extension hstore is 'of a superuser'; comment on table lead is 'of its owner';
            create publication everything for all tables;"#
        ),
    )
    .await;
    // Only a superuser reads what is of others.
    let server = database.server();
    let url = format!(
        "host={} port={} user=postgres dbname={name} sslmode=disable",
        server.folder.display(),
        server.port
    );
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_DATABASE_URL", &url);
    let report = run(&pod, task()).await;
    let evidence = report.evidence.unwrap_or_else(|| panic!("{:?}", report.failure));
    assert_eq!(evidence.level, "Restored");
    assert_eq!(of_the_copy(&evidence), [""; 0]);
}

/// <https://github.com/boardsesh/boardsesh/issues/4699>: a valid dump that no server takes back.
#[rstest]
#[case::index("create index lead_folded on lead (folded(name))", "INDEX lead_folded")]
#[case::generated_column(
    "alter table lead add column folded text generated always as (folded(name)) stored",
    "TABLE DATA lead"
)]
#[case::check(
    "alter table lead add constraint is_folded check (folded(name) is not null)",
    "TABLE DATA lead"
)]
#[tokio::test]
async fn c19_what_depends_on_search_path_is_refused(#[case] change: &str, #[case] object: &str) {
    let database = Database::filled(CONTENT).await;
    execute(
        &database,
        &format!(
            "set role crm; create function fold(t text) returns text language sql immutable as 'select lower(t)';
             create function folded(t text) returns text language plpgsql immutable as
               'begin return fold(t); end'; {change}"
        ),
    )
    .await;
    let failure = refused(&database, task()).await;
    assert_eq!(
        (failure.reason, failure.cause),
        (Reason::BackupNotRestorable, Cause::Version)
    );
    for said in [object, "fold", "SET search_path"] {
        assert!(failure.message.contains(said), "{}", failure.message);
    }
    // Decoding alone does not find it.
    let pod = Pod::new(&database, "pod-2");
    let decoded: BackupReport = pod.run(&Task::Backup(backup(true))).await.report();
    assert_eq!(decoded.evidence.expect("a backup").level, "Decoded");
}

/// Fails when something succeeds that a dump's code must not be able to do.
const ATTACK: &str = r#"
    create function attack(t text) returns boolean language plpgsql as $$
    declare attempt text; worked boolean; begin
      -- Settings of a database are not restored into another one.
      foreach attempt in array array[case when current_setting('attack.only_in_copies', true) is null
          then 'select public.connect_out()' else 'nothing' end,
        'select pg_read_file(''/etc/passwd'')', 'select pg_ls_dir(''.'')', 'select lo_import(''/etc/passwd'')',
        'copy (select 1) to program ''true''', 'copy public.bait from ''/etc/passwd''', 'copy public.bait from program ''env''',
        'select pg_reload_conf()', 'alter role current_user superuser', 'create role thief superuser',
        'load ''auth_delay''', 'create extension file_fdw', 'create extension dblink',
        'alter system set listen_addresses = ''*'''
      ] loop
        begin
          execute attempt;
          worked := true;
        exception when others then
          worked := false;
        end;
        if worked then
          raise exception 'worked: %', attempt;
        end if;
      end loop;
      if exists (select from pg_catalog.pg_roles where rolsuper and rolname in (current_user, session_user)) then
        raise exception 'worked: is a superuser';
      end if;
      return true;
    end $$;
    create table bait (a text check (public.attack(a)));
    create function attack_immutably(t text) returns boolean language plpgsql immutable as
      'begin return public.attack(t); end';
    create index bait_index on bait (attack_immutably(a));"#;

#[tokio::test]
async fn a_hostile_dump_gains_nothing() {
    let database = Database::filled(CONTENT).await;
    let (name, port) = (&database.name, database.server().port);
    let create = format!(
        "create extension dblink; alter database {name} set attack.only_in_copies = 'no'; set role crm;
         create function connect_out() returns text language sql as $f$ select public.dblink_connect(
           'host=127.0.0.1 port={port} dbname={name} user={ROLE} password=''{PASSWORD}''') $f$; {ATTACK}"
    );
    execute(&database, &create).await;
    // It can call the database from there, so that this is what the copy must not do.
    let owner = database.session_of_owner().await;
    owner
        .batch_execute("select connect_out()")
        .await
        .expect("a connection");
    // A superuser would succeed, and then nothing would be restored.
    let admin = database.admin().await;
    let error = admin.batch_execute("select attack('x')").await.unwrap_err();
    let message = error.as_db_error().expect("of the server").message().to_owned();
    assert!(message.contains("worked"), "{message}");
    // The session of the role that loads the data is no superuser's either.
    owner
        .batch_execute(
            "insert into bait values ('x'); create materialized view bait_view as select public.attack(a) from bait",
        )
        .await
        .expect("nothing works");
    let evidence = proven(&database).await;
    assert_eq!(of_the_copy(&evidence), [""; 0]);
}

#[tokio::test]
async fn c21_an_extension_that_the_image_lacks_is_named() {
    let database = Database::filled(CONTENT).await;
    execute(
        &database,
        "create extension hstore; update pg_extension set extname = 'nowhere' where extname = 'hstore'",
    )
    .await;
    let failure = refused(&database, task()).await;
    assert_eq!(failure.reason, Reason::BackupNotRestorable);
    assert!(
        failure.message.contains("no extension nowhere"),
        "{}",
        failure.message
    );
    let without = BackupTask {
        without_extensions: vec!["nowhere".into()],
        ..task()
    };
    let pod = Pod::new(&database, "pod-2");
    let report = run(&pod, without).await;
    let evidence = report.evidence.unwrap_or_else(|| panic!("{:?}", report.failure));
    assert_eq!(
        of_the_copy(&evidence),
        ["Restored without extension nowhere, as database.clone.withoutExtensions says."]
    );
}

#[tokio::test]
async fn c21_roles_that_the_globals_lack_do_not_matter() {
    let database = Database::filled(CONTENT).await;
    execute(&database, "revoke select on pg_auth_members from public").await;
    let evidence = proven(&database).await;
    assert!(
        evidence.notes[0].contains("Roles and tablespaces"),
        "{:?}",
        evidence.notes
    );
}

#[tokio::test]
async fn what_only_a_superuser_restores_is_named() {
    let database = Database::filled(CONTENT).await;
    execute(
        &database,
        "create function noticed() returns event_trigger language plpgsql as 'begin end';
         create event trigger noticed on ddl_command_end execute function noticed()",
    )
    .await;
    let evidence = proven(&database).await;
    assert!(
        evidence
            .notes
            .iter()
            .any(|note| note.contains("1 event trigger (noticed)")),
        "a note on the dump says so too: {:?}",
        evidence.notes
    );
    assert_eq!(
        of_the_copy(&evidence),
        ["Left out of the restored copy: EVENT TRIGGER - noticed postgres."]
    );
}

async fn until(what: impl Fn() -> bool) {
    let wait = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.expect("it within a minute");
}

/// An agent ends when a restore has exceeded its limit, and when its container is killed.
#[tokio::test]
async fn a_restore_ends_with_the_agent_that_asked_for_it() {
    let database = Database::filled(CONTENT).await;
    let owner = database.session_of_owner().await;
    owner
        .batch_execute(
            "create function endless(a int4) returns boolean language plpgsql as $$ begin
               if current_database() = 'restored' then perform pg_sleep(3600); end if; return true; end $$;
             create table slow (a int4 check (public.endless(a))); insert into slow values (1)",
        )
        .await
        .expect("a table");
    let pod = Pod::new(&database, "pod-1");
    let _clone = pod.start_clone(&[]);
    let agent = pod.start_as_user(&Task::Backup(task()));
    let restoring = pod.path("clone-data/restore.list");
    until(|| restoring.exists()).await;
    let server = pod.path("clone-data/data/postmaster.pid");
    assert!(server.exists());
    agent.killed().await;
    until(|| !server.exists()).await;
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let database = Database::filled(CONTENT).await;
    let pod = Pod::new(&database, "pod-1");
    let _clone = pod.start_clone(&[("max_connections", "many")]);
    let report: BackupReport = pod.start_as_user(&Task::Backup(task())).end().await.report();
    let failure = report.failure.expect("a failure");
    assert_eq!(
        (failure.reason, failure.cause),
        (Reason::CloneFailed, Cause::Environment)
    );
    assert!(failure.message.contains("max_connections"), "{}", failure.message);
    assert_eq!(stored(&pod), [""; 0]);
}
