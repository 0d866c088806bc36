//! The task `preflight`: whether a release can be executed in this environment. It reads, and changes nothing.

use fairway_protocol::{Failure, PreflightReport, PreflightTask, Reason};
use tokio_postgres::Client;

use crate::{
    backup::check_tools,
    connection::Connection,
    environment::Environment,
    failure::environment as environment_failure,
    fingerprint,
    ledger::{self, State},
    lock::{self, pooled},
    session::{SearchPath, Session, pooler, statement_failed},
    store,
};

/// Checks the database, and the store where there is one.
pub(crate) async fn run(task: PreflightTask, environment: &Environment) -> PreflightReport {
    let mut report = PreflightReport {
        checks: Vec::new(),
        failure: None,
        server_version: None,
        database_bytes: None,
    };
    if let Err(failure) = check(&task, environment, &mut report).await {
        report.failure = Some(failure);
    }
    report
}

/// The answer to a task that was not started.
pub(crate) fn not_run(failure: Failure) -> PreflightReport {
    PreflightReport {
        checks: Vec::new(),
        failure: Some(failure),
        server_version: None,
        database_bytes: None,
    }
}

/// Records whether a check holds; an error when it does not.
fn record<T>(report: &mut PreflightReport, name: &str, verdict: Result<T, Failure>) -> Result<T, Failure> {
    report.checks.push((name.to_owned(), verdict.is_ok()));
    verdict
}

async fn check(
    task: &PreflightTask,
    environment: &Environment,
    report: &mut PreflightReport,
) -> Result<(), Failure> {
    let connection = record(report, "connection", environment.connection())?;
    let mut session = record(
        report,
        "database",
        Session::connect(&connection, SearchPath::Catalog).await,
    )?;
    let doing = |error| statement_failed("checking the database", &error);
    let (version, major) = session.server_version().await.map_err(doing)?;
    report.server_version = Some(version);
    report.database_bytes = database_bytes(session.client()).await;
    record(report, "collation", Ok(()))?;
    if !collation_is_current(session.client()).await.map_err(doing)? {
        set_false(report, "collation");
    }
    record(report, "primary", primary(&connection, session.client()).await)?;
    record(report, "direct", direct(&connection, &session).await)?;
    record(
        report,
        "schema",
        fingerprint::of_database(&mut session)
            .await
            .map_err(|error| statement_failed("reading the schema", &error)),
    )?;
    if task.migrates {
        record(
            report,
            "ledger",
            ledger_usable(task, &connection, session.client()).await,
        )?;
        record(report, "settled", settled(&session).await)?;
        record(report, "staleLocks", Ok(()))?;
        if stale_lock(session.client()).await.map_err(doing)? {
            set_false(report, "staleLocks");
        }
    }
    if let Some(options) = &task.store {
        record(
            report,
            "tools",
            check_tools(environment, &connection, major).await,
        )?;
        let store = store::open(options, environment);
        record(report, "store", store.check(&environment.pod_uid()).await)?;
    }
    Ok(())
}

/// Records that a check does not hold which stops nothing.
fn set_false(report: &mut PreflightReport, name: &str) {
    report
        .checks
        .iter_mut()
        .filter(|(recorded, _)| recorded == name)
        .for_each(|(_, holds)| *holds = false);
}

async fn primary(connection: &Connection, client: &Client) -> Result<(), Failure> {
    let row = client
        .query_one("select pg_is_in_recovery()", &[])
        .await
        .map_err(|error| statement_failed("reading the server's role", &error))?;
    match row.get(0) {
        false => Ok(()),
        true => Err(environment_failure(
            Reason::DatabaseUnreachable,
            format!(
                "The server at {} is a standby and cannot be written to. Set database.connection to the primary's address.",
                connection.address()
            ),
        )),
    }
}

async fn direct(connection: &Connection, session: &Session) -> Result<(), Failure> {
    match pooled(connection, session).await? {
        true => Err(pooler(connection)),
        false => Ok(()),
    }
}

async fn database_bytes(client: &Client) -> Option<u64> {
    let row = client
        .query_one("select pg_database_size(current_database())", &[])
        .await
        .ok()?;
    u64::try_from(row.get::<_, i64>(0)).ok()
}

/// Whether the database's collation is still the one with which its indexes were built. After a change of the image's
/// libc it may not be, and indexes on text may then miss rows.
async fn collation_is_current(client: &Client) -> Result<bool, tokio_postgres::Error> {
    // Both names came with PostgreSQL 15.
    let known = client
        .query_one(
            "select current_setting('server_version_num')::int4 >= 150000",
            &[],
        )
        .await?;
    if !known.get::<_, bool>(0) {
        return Ok(true);
    }
    let row = client
        .query_one(
            "select datcollversion is not distinct from pg_database_collation_actual_version(oid) \
             from pg_database where datname = current_database()",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

async fn ledger_usable(
    task: &PreflightTask,
    connection: &Connection,
    client: &Client,
) -> Result<(), Failure> {
    let doing = |error| statement_failed("reading the ledger", &error);
    let row = client
        .query_one(
            "select case when to_regclass('fairway.migration_run') is not null then \
               has_schema_privilege('fairway', 'usage') \
               and has_table_privilege('fairway.migration_run', 'select') \
               and has_table_privilege('fairway.migration_run', 'insert') \
               and has_table_privilege('fairway.migration_run', 'update') \
             when to_regnamespace('fairway') is not null then has_schema_privilege('fairway', 'create') \
             else has_database_privilege(current_database(), 'create') end, \
             to_regclass('fairway.owner') is not null",
            &[],
        )
        .await
        // To look into a schema without the right to use it is an error, too.
        .map_err(|error| ledger::not_permitted(connection, &error))?;
    let (usable, owned): (bool, bool) = (row.get(0), row.get(1));
    if !usable {
        return Err(ledger::ledger_forbidden(connection));
    }
    if !owned {
        return Ok(());
    }
    match ledger::owner(client).await.map_err(doing)? {
        Some(owner) => ledger::owned_by_other(&owner, &task.requester).map_or(Ok(()), Err),
        None => Ok(()),
    }
}

async fn settled(session: &Session) -> Result<(), Failure> {
    let doing = |error| statement_failed("reading the ledger", &error);
    let client = session.client();
    if !ledger::exists(client).await.map_err(doing)? {
        return Ok(());
    }
    match ledger::unsettled(client, "").await.map_err(doing)? {
        // An interrupted run is settled under the lock by the next migration.
        Some(run) if run.state == State::Running => match lock::held(session).await? {
            Some(running) => Err(running),
            None => Ok(()),
        },
        Some(run) => Err(ledger::blocked_by(&run)),
        None => Ok(()),
    }
}

/// Whether Liquibase's lock row says `locked` although no migration can be running: Liquibase would wait for it.
async fn stale_lock(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let tables = client
        .query(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind = 'r' and c.relname = 'databasechangeloglock' and has_table_privilege(c.oid, 'select')",
            &[],
        )
        .await?;
    for table in tables {
        let table: &str = table.get(0);
        let row = client
            .query_one(
                &format!("select coalesce(bool_or(locked), false) from {table}"),
                &[],
            )
            .await?;
        if row.get(0) {
            return Ok(true);
        }
    }
    Ok(false)
}
