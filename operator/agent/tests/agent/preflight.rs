//! What is known before a release begins.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
};

use fairway_protocol::{Cause, Level, MigrationOutcome, PreflightReport, PreflightTask, Reason, Task};
use rstest::rstest;
use tokio::net::TcpStream;

use crate::{
    harness::{Pod, migration, psql, requester, store},
    postgres::{Database, PASSWORD_IN_URL, as_server_user, free_port, until, value},
};

fn task(app: &str) -> Task {
    before_backups(app, Level::Decoded)
}

/// The checks before backups that are proven to a level.
fn before_backups(app: &str, verify: Level) -> Task {
    Task::Preflight(PreflightTask {
        requester: requester(app),
        migrates: true,
        store: Some(store()),
        verify,
    })
}

fn failed_as(report: &PreflightReport, expected: Reason) -> String {
    let failure = report.failure.as_ref().expect("a failure");
    assert_eq!(failure.reason, expected, "{}", failure.message);
    assert!(
        report.checks.last().is_some_and(|(_, holds)| !holds),
        "{:?}",
        report.checks
    );
    failure.message.clone()
}

#[tokio::test]
async fn a_good_database_passes_and_is_not_changed() {
    let database = Database::new().await;
    let outcome = Pod::new(&database, "pod-1").run(&task("crm")).await;
    let report: PreflightReport = outcome.report();
    assert_eq!((outcome.code, &report.failure), (Some(0), &None));
    let names: Vec<_> = report.checks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "connection",
            "database",
            "collation",
            "primary",
            "direct",
            "schema",
            "ledger",
            "settled",
            "staleLocks",
            "ledgerCreation",
            "dump",
            "tools",
            "store"
        ]
    );
    assert!(
        report.checks.iter().all(|(_, holds)| *holds),
        "{:?}",
        report.checks
    );
    assert!(report.database_bytes.is_some_and(|bytes| bytes > 0) && report.server_version.is_some());
    let schemas = "select count(*) from pg_namespace where nspname = 'fairway'";
    assert_eq!(value(&database.admin().await, schemas).await, "0");
}

#[rstest]
#[case(
    "postgres://crm:wrong-one@127.0.0.1:{port}/{name}",
    Reason::PasswordRejected,
    "rejected the role or its password (password authentication failed for user \"***\")"
)]
#[case(
    "postgres://crm@127.0.0.1:{port}/{name}",
    Reason::PasswordRejected,
    "the connection has none"
)]
#[case(
    "postgres://crm:{password}@127.0.0.1:{port}/nowhere",
    Reason::DatabaseMissing,
    "\"nowhere\""
)]
#[case(
    "postgres://crm:{password}@127.0.0.1:1/{name}",
    Reason::DatabaseUnreachable,
    "The database server cannot be reached (Connection refused"
)]
#[case(
    "postgres://crm:{password}@nowhere.invalid/{name}",
    Reason::DatabaseUnreachable,
    "failed to lookup address information"
)]
#[case(
    "postgres://crm:{password}@127.0.0.1:{port}/{name}?sslmode=verify-full&sslrootcert=/nowhere/ca.crt",
    Reason::TlsFailed,
    "/nowhere/ca.crt, which the connection string names, does not exist in this pod"
)]
#[case(
    "mysql://crm:{password}@127.0.0.1/{name}",
    Reason::ConnectionInvalid,
    "Secret that database.connection names"
)]
#[tokio::test]
async fn a_connection_that_cannot_work_says_why(
    #[case] url: &str,
    #[case] reason: Reason,
    #[case] sentence: &str,
) {
    let database = Database::new().await;
    let url = url
        .replace("{port}", &database.server().port.to_string())
        .replace("{name}", &database.name)
        .replace("{password}", PASSWORD_IN_URL);
    let outcome = Pod::new(&database, "pod-1")
        .with("FAIRWAY_DATABASE_URL", &url)
        .run(&task("crm"))
        .await;
    let message = failed_as(&outcome.report(), reason);
    assert!(message.contains(sentence), "{message}");
    for secret in [
        "wrong-one",
        PASSWORD_IN_URL,
        crate::postgres::PASSWORD,
        "127.0.0.1",
        "nowhere.invalid",
        "\"crm\"",
    ] {
        assert!(
            !outcome.log.contains(secret) && !outcome.message().contains(secret),
            "{}",
            outcome.log
        );
    }
}

/// S18d: the role and, of a connection string, the host are in no message.
#[tokio::test]
async fn a_host_that_the_app_names_is_shown_and_the_role_is_not() {
    let database = Database::new().await;
    let mut pod = Pod::new(&database, "pod-1");
    for (name, value) in [
        ("URL", ""),
        ("HOST", "127.0.0.1"),
        ("PORT", &database.server().port.to_string()),
        ("NAME", &database.name),
        ("USER", "stranger"),
        ("PASSWORD", "wrong-one"),
    ] {
        pod = pod.with(&format!("FAIRWAY_DATABASE_{name}"), value);
    }
    let message = failed_as(&pod.run(&task("crm")).await.report(), Reason::PasswordRejected);
    let place = format!(
        "The database server at 127.0.0.1:{} rejected",
        database.server().port
    );
    assert!(
        message.contains(&place) && !message.contains("stranger"),
        "{message}"
    );
}

#[tokio::test]
async fn a_role_without_the_right_to_the_ledger_gets_the_grant() {
    let database = Database::new().await;
    let admin = database.admin().await;
    admin
        .batch_execute(&format!("alter database {} owner to postgres", database.name))
        .await
        .expect("an owner");
    let message = failed_as(
        &Pod::new(&database, "pod-1").run(&task("crm")).await.report(),
        Reason::LedgerNotPermitted,
    );
    let grant = "GRANT CREATE ON DATABASE :\"DBNAME\" TO ROLE";
    assert!(message.contains(grant), "{message}");
    let grant = grant.replace(":\"DBNAME\"", &database.name);
    admin
        .batch_execute(&grant.replace("ROLE", "crm"))
        .await
        .expect("the grant works");
    let report: PreflightReport = Pod::new(&database, "pod-1").run(&task("crm")).await.report();
    assert_eq!(report.failure, None);
    admin
        .batch_execute("create schema fairway")
        .await
        .expect("a schema of someone else");
    failed_as(
        &Pod::new(&database, "pod-1").run(&task("crm")).await.report(),
        Reason::LedgerNotPermitted,
    );
}

#[tokio::test]
async fn another_apps_database_and_an_unsettled_run_are_refused() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let broken = psql("create table half (a int4); insert into missing values (1);");
    pod.run(&Task::Migrate(migration("run-1", "sha256:a", &broken)))
        .await;
    failed_as(&pod.run(&task("crm")).await.report(), Reason::MigrationUnresolved);
    failed_as(&pod.run(&task("blog")).await.report(), Reason::DatabaseOwned);
}

#[tokio::test]
async fn a_live_run_is_waited_for_and_an_interrupted_one_is_not() {
    let database = Database::new().await;
    let mut started = database.listen("started").await;
    let pod = Pod::new(&database, "pod-1");
    let go = pod.path("go");
    let script = format!(
        "{}\nuntil test -e {}; do :; done",
        psql("notify started;"),
        go.display()
    );
    let container = pod.start(&Task::Migrate(migration("run-1", "sha256:a", &script)));
    started.next().await;
    let looks = Pod::new(&database, "pod-2");
    let message = failed_as(&looks.run(&task("crm")).await.report(), Reason::MigrationRunning);
    assert!(
        message.contains(" from 127.0.0.1, connected since 2"),
        "{message}"
    );

    container.killed().await;
    std::fs::write(go, "").expect("a file");
    // The server lets go of the lock when it has noticed that the agent is gone.
    until(
        &database.admin().await,
        "not exists (select from pg_locks where locktype = 'advisory')",
    )
    .await;
    let report: PreflightReport = looks.run(&task("crm")).await.report();
    assert_eq!(report.failure, None, "the next migration settles it");
}

#[tokio::test]
async fn a_stale_lock_of_liquibase_warns() {
    let database = Database::new().await;
    let table = "create table databasechangeloglock (id int4, locked bool); \
                 insert into databasechangeloglock values (1, true); grant select on databasechangeloglock to crm";
    database
        .admin()
        .await
        .batch_execute(table)
        .await
        .expect("a table");
    let report: PreflightReport = Pod::new(&database, "pod-1").run(&task("crm")).await.report();
    assert_eq!(report.failure, None);
    assert!(
        report.checks.contains(&("staleLocks".to_owned(), false)),
        "{:?}",
        report.checks
    );
}

/// An image whose `pg_dump`, `pg_dumpall` and `pg_restore` are of this version.
fn tools_of(pod: &Pod, version: &str) -> String {
    let folder = pod.path("tools");
    fs::create_dir(&folder).expect("a folder");
    for program in ["pg_dump", "pg_dumpall", "pg_restore"] {
        let file = folder.join(program);
        let script =
            format!("#!/bin/sh\necho '{program} (PostgreSQL) {version} (Debian {version}-1.pgdg120+1)'\n");
        fs::write(&file, script).expect("a program");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    folder.display().to_string()
}

#[rstest]
#[case::of_another_version(
    Some("9.6.24"),
    Reason::ToolVersionMismatch,
    "The server is PostgreSQL {major}, but database.image has pg_dump 9.6.24. Set database.image to an image of PostgreSQL {major}."
)]
#[case::none(
    None,
    Reason::ToolMissing,
    "database.image does not have all of pg_dump, pg_dumpall and pg_restore. Set it to an image of PostgreSQL {major}."
)]
#[tokio::test]
async fn an_image_without_the_right_tools_names_the_right_image(
    #[case] version: Option<&str>,
    #[case] reason: Reason,
    #[case] sentence: &str,
) {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let path = version.map_or_else(|| "/nowhere".to_owned(), |version| tools_of(&pod, version));
    let pod = pod.with("PATH", &path);
    let outcome = pod
        .start_without(&database.server().programs, &task("crm"))
        .end()
        .await;
    let report: PreflightReport = outcome.report();
    let major = report.server_version.clone().expect("a version");
    let major = major.split('.').next().expect("a number");
    assert_eq!(failed_as(&report, reason), sentence.replace("{major}", major));
    assert_eq!(report.checks.last(), Some(&("tools".to_owned(), false)));
    assert_eq!(
        report.failure.expect("a failure").cause,
        Cause::Environment,
        "another image, and the release goes on"
    );
}

#[tokio::test]
async fn an_image_without_a_server_restores_no_backup() {
    let database = Database::new().await;
    let version = value(
        &database.admin().await,
        "select split_part(current_setting('server_version'), ' ', 1)",
    )
    .await;
    let pod = Pod::new(&database, "pod-1");
    let path = tools_of(&pod, &version);
    let pod = pod.with("PATH", &path);
    let programs = &database.server().programs;
    let restored = before_backups("crm", Level::Restored);
    let report: PreflightReport = pod.start_without(programs, &restored).end().await.report();
    let message = failed_as(&report, Reason::ToolMissing);
    assert!(message.contains("not initdb and postgres"), "{message}");
    assert_eq!(report.checks.last(), Some(&("tools".to_owned(), false)));
    let report: PreflightReport = pod.start_without(programs, &task("crm")).end().await.report();
    assert_eq!(report.failure, None, "nothing else needs a server");
}

#[tokio::test]
async fn a_missing_store_has_its_reason() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_STORE_DIRECTORY", "/proc/nowhere");
    failed_as(&pod.run(&task("crm")).await.report(), Reason::StoreReadOnly);
}

#[rstest]
#[case("127.0.0.1", "?sslmode=disable", None)]
#[case("127.0.0.1", "?sslmode=require", None)]
#[case("127.0.0.1", "?sslmode=verify-full&sslrootcert={ca}", None)]
#[case("localhost", "?sslmode=verify-ca&sslrootcert={ca}", None)]
#[case(
    "localhost",
    "?sslmode=verify-full&sslrootcert={ca}",
    Some("not valid for name")
)]
#[case("127.0.0.1", "?sslmode=verify-full", Some("sslrootcert"))]
#[case("127.0.0.1", "?sslmode=verify-ca&sslrootcert={server}", Some("sslrootcert"))]
#[tokio::test]
async fn tls_proves_what_its_mode_asks_for(
    #[case] host: &str,
    #[case] query: &str,
    #[case] refusal: Option<&str>,
) {
    let database = Database::new().await;
    let server = database.server();
    let file = |name: &str| server.folder.join(name).display().to_string();
    // The folder is the server's own; an application mounts the authority from a Secret.
    let query = query
        .replace("{ca}", &file("ca.crt"))
        .replace("{server}", &file("server.crt"));
    let url = format!(
        "postgres://crm:{PASSWORD_IN_URL}@{host}:{}/{}{query}",
        server.port, database.name
    );
    let outcome = Pod::new(&database, "pod-1")
        .with("FAIRWAY_DATABASE_URL", &url)
        .run(&task("crm"))
        .await;
    let report: PreflightReport = outcome.report();
    match refusal {
        None => assert_eq!(report.failure, None),
        Some(sentence) => {
            let message = failed_as(&report, Reason::TlsFailed);
            assert!(message.contains(sentence), "{message}");
        }
    }
}

#[tokio::test]
async fn a_history_table_in_a_closed_schema_stops_nothing() {
    let database = Database::new().await;
    let closed = "create schema closed; create table closed.schema_migrations (version text); \
                  grant select on closed.schema_migrations to crm";
    database
        .admin()
        .await
        .batch_execute(closed)
        .await
        .expect("a schema");
    let pod = Pod::new(&database, "pod-1");
    let without_backup = Task::Preflight(PreflightTask {
        requester: requester("crm"),
        migrates: true,
        store: None,
        verify: Level::Decoded,
    });
    let report: PreflightReport = pod.run(&without_backup).await.report();
    assert_eq!(report.failure, None);
    let run = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", "true")))
        .await;
    assert_eq!(run.migration().outcome, MigrationOutcome::Applied);
}

#[tokio::test]
async fn what_only_pg_dump_refuses_is_found_before_the_backup() {
    let database = Database::new().await;
    let pod = Pod::new(&database, "pod-1");
    let key = pod.path("client.key");
    fs::copy(database.server().folder.join("server.key"), &key).expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let url = format!(
        "{}&sslmode=require&sslcert={}&sslkey={}",
        database.url(),
        database.server().folder.join("server.crt").display(),
        key.display()
    );
    let pod = pod.with("FAIRWAY_DATABASE_URL", &url);
    let message = failed_as(&pod.run(&task("crm")).await.report(), Reason::TlsFailed);
    assert!(message.contains("has group or world access"), "{message}");
    assert!(
        !message.contains("127.0.0.1") && message.contains("server at \"***\""),
        "{message}"
    );
}

/// A pooler in transaction mode; gone when dropped.
struct Pooler(Child, u16);

impl Pooler {
    fn start(database: &Database, ignored: &str) -> Option<Self> {
        let port = free_port();
        let server = database.server();
        let file = server.folder.join(format!("pooler-{port}.ini"));
        let settings = format!(
            "[databases]\n{} = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = transaction\nunix_socket_dir =\n\
             ignore_startup_parameters = {ignored}\n",
            database.name,
            server.folder.display(),
            server.port
        );
        std::fs::write(&file, settings).ok()?;
        let present = as_server_user("pgbouncer").arg("--version").output();
        if !present.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let child = as_server_user("pgbouncer")
            .arg("-q")
            .arg(file)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self(child, port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ended");
    }
}

#[rstest]
#[case("extra_float_digits")]
#[case("options")]
#[tokio::test]
async fn a_transaction_pooler_is_recognised(#[case] ignored: &str) {
    let database = Database::new().await;
    let Some(pooler) = Pooler::start(&database, ignored) else {
        eprintln!("not proven here: pgbouncer is not installed");
        return;
    };
    while TcpStream::connect(("127.0.0.1", pooler.1)).await.is_err() {
        tokio::task::yield_now().await;
    }
    let url = format!("postgres://postgres:x@127.0.0.1:{}/{}", pooler.1, database.name);
    let pod = Pod::new(&database, "pod-1").with("FAIRWAY_DATABASE_URL", &url);
    let message = failed_as(&pod.run(&task("crm")).await.report(), Reason::TransactionPooler);
    assert!(message.contains("direct address"), "{message}");
    let run = pod
        .run(&Task::Migrate(migration("run-1", "sha256:a", "true")))
        .await;
    assert_eq!(
        run.migration().failure.expect("a failure").reason,
        Reason::TransactionPooler
    );
    let locks = "select count(*) from pg_locks where locktype = 'advisory' \
                 and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(
        value(&database.admin().await, locks).await,
        "0",
        "the pooler's session keeps no lock"
    );
}
