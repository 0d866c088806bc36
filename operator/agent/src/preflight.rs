//! Whether the release can be carried out on this database: looks, and changes nothing.

use fairway_protocol::{Failure, PreflightReport, PreflightTask, reason};
use tokio_postgres::Client;

use super::{
    backup::{check_tools, store},
    connection::Connection,
    environment::Environment,
    failure::environment as environment_failure,
    fingerprint,
    ledger::{self, State},
    lock::{self, pooled},
    migrate::connection,
    session::{SearchPath, Session, pooler, statement_failed},
};

/// Checks the database, and the store where one is mounted.
pub(crate) async fn run(task: PreflightTask, environment: &Environment) -> PreflightReport {
    let mut report = PreflightReport {
        checks: Vec::new(),
        failure: None,
        server_version: None,
        database_bytes: None,
    };
    if let Err(failure) = look(&task, environment, &mut report).await {
        report.failure = Some(failure);
    }
    report
}

/// Notes a verdict and goes on only if it is good.
fn note<T>(report: &mut PreflightReport, name: &str, verdict: Result<T, Failure>) -> Result<T, Failure> {
    report.checks.push((name.to_owned(), verdict.is_ok()));
    verdict
}

async fn look(
    task: &PreflightTask,
    environment: &Environment,
    report: &mut PreflightReport,
) -> Result<(), Failure> {
    let connection = note(report, "connection", connection(environment))?;
    let mut session = note(
        report,
        "database",
        Session::connect(&connection, SearchPath::Catalog).await,
    )?;
    let doing = |error| statement_failed("checking the database", &error);
    let (version, major) = session.server_version().await.map_err(doing)?;
    report.server_version = Some(version);
    report.database_bytes = database_bytes(session.client()).await;
    note(report, "collation", Ok(()))?;
    if !collation_is_current(session.client()).await.map_err(doing)? {
        set_false(report, "collation");
    }
    note(report, "primary", primary(&connection, session.client()).await)?;
    note(report, "direct", direct(&connection, &session).await)?;
    note(
        report,
        "schema",
        fingerprint::of_database(&mut session)
            .await
            .map_err(|error| statement_failed("reading the schema", &error)),
    )?;
    if task.migrates {
        note(
            report,
            "ledger",
            ledger_usable(task, &connection, session.client()).await,
        )?;
        note(report, "settled", settled(&session).await)?;
        note(report, "staleLocks", Ok(()))?;
        if stale_lock(session.client()).await.map_err(doing)? {
            set_false(report, "staleLocks");
        }
    }
    if task.store {
        note(
            report,
            "tools",
            check_tools(environment, &connection, major).await,
        )?;
        note(
            report,
            "store",
            store::check_writable(&environment.store_directory(), &environment.pod_uid()),
        )?;
    }
    Ok(())
}

/// A verdict that warns and stops nothing.
fn set_false(report: &mut PreflightReport, name: &str) {
    report
        .checks
        .iter_mut()
        .filter(|(noted, _)| noted == name)
        .for_each(|(_, holds)| *holds = false);
}

async fn primary(connection: &Connection, client: &Client) -> Result<(), Failure> {
    let row = client
        .query_one("select pg_is_in_recovery()", &[])
        .await
        .map_err(|error| statement_failed("asking for the server's role", &error))?;
    match row.get(0) {
        false => Ok(()),
        true => Err(environment_failure(
            reason::DATABASE_UNREACHABLE,
            format!(
                "The server at {} is a standby and cannot be written to; give database.connection the primary's address.",
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

/// Whether the collations are those with which the indexes were built; after a change of the image's libc they
/// may not be, and indexes on text may then miss rows.
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
    let doing = |error| statement_failed("asking for the ledger", &error);
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
        // Looking into a schema that one may not use is an error, too.
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
        // One that is dead is settled under the lock by whoever migrates next.
        Some(run) if run.state == State::Running => match lock::held(session).await? {
            Some(running) => Err(running),
            None => Ok(()),
        },
        Some(run) => Err(ledger::blocked_by(&run)),
        None => Ok(()),
    }
}

/// Whether Liquibase's lock row says `locked` although nobody can be migrating: Liquibase would wait for it.
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
