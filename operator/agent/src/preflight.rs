//! The task `preflight`: whether a release can be executed in this environment. It reads, and changes nothing.

use fairway_protocol::{Failure, PreflightReport, PreflightTask, Reason};
use futures::TryStreamExt as _;
use tokio_postgres::Client;

use crate::{
    backup::check_tools,
    collation,
    connection::Connection,
    dumpable,
    environment::Environment,
    failure::environment as environment_failure,
    fingerprint,
    ledger::{
        self, State,
        schema::{self, Found},
    },
    lock::{self, pooled},
    session::{SearchPath, Session, pooler, statement_failed},
    store, trust,
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
    let major = read(task, &connection, &session, report).await?;
    if task.migrates {
        record(
            report,
            "ledgerCreation",
            schema::rehearse(session.client_mut()).await,
        )?;
    }
    if task.store.is_some() {
        record(report, "dump", dumpable::check(&session, major).await)?;
    }
    drop(session);
    if let Some(options) = &task.store {
        record(
            report,
            "tools",
            check_tools(environment, &connection, major, task.verify).await,
        )?;
        let store = async {
            let store = store::open(options, environment)?;
            store.check(&environment.pod_uid()).await
        };
        record(report, "store", store.await)?;
    }
    Ok(())
}

/// Makes the checks that only read, in one transaction that can do nothing else. Returns the server's major version.
async fn read(
    task: &PreflightTask,
    connection: &Connection,
    session: &Session,
    report: &mut PreflightReport,
) -> Result<u32, Failure> {
    let doing = |error| statement_failed("checking the database", &error);
    session.start_reading().await.map_err(doing)?;
    let client = session.client();
    let (version, major) = session.server_version().await.map_err(doing)?;
    report.server_version = Some(version);
    report.database_bytes = Some(database_bytes(client).await.map_err(doing)?);
    record(report, "collation", Ok(()))?;
    if collation::outdated(client, major).await.map_err(doing)?.is_some() {
        set_false(report, "collation");
    }
    record(report, "primary", primary(connection, client).await)?;
    record(report, "direct", direct(connection, session).await)?;
    record(
        report,
        "schema",
        fingerprint::fingerprint(client)
            .await
            .map_err(|error| statement_failed("reading the schema", &error)),
    )?;
    if task.migrates {
        let ledger = ledger_usable(task, client).await;
        let ledger = record(report, "ledger", ledger)?;
        record(report, "settled", settled(session, ledger).await)?;
        record(report, "staleLocks", Ok(()))?;
        if stale_lock(client).await.map_err(doing)? {
            set_false(report, "staleLocks");
        }
    }
    session.end_reading().await.map_err(doing)?;
    Ok(major)
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
                "The database server{} is a standby and cannot be written to. Set database.connection to the primary's address.",
                connection.place()
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

async fn database_bytes(client: &Client) -> Result<u64, tokio_postgres::Error> {
    let row = client
        .query_one("select pg_database_size(current_database())", &[])
        .await?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

async fn ledger_usable(task: &PreflightTask, client: &Client) -> Result<Found, Failure> {
    let found = schema::find(client).await?;
    schema::check_rights(client, found).await?;
    if found == Found::Nothing {
        return Ok(found);
    }
    let owner = ledger::owner(client)
        .await
        .map_err(|error| statement_failed("reading the ledger", &error))?;
    match owner.and_then(|owner| ledger::owned_by_other(&owner, &task.requester)) {
        Some(refusal) => Err(refusal),
        None => Ok(found),
    }
}

async fn settled(session: &Session, ledger: Found) -> Result<(), Failure> {
    if ledger == Found::Nothing {
        return Ok(());
    }
    let unsettled = ledger::unsettled(session.client(), "")
        .await
        .map_err(|error| statement_failed("reading the ledger", &error))?;
    match unsettled {
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
            &format!(
                "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where c.relname = 'databasechangeloglock' and {} and exists (select from pg_attribute a \
                   where a.attrelid = c.oid and a.attname = 'locked' and a.atttypid = 'bool'::regtype)",
                trust::readable()
            ),
            &[],
        )
        .await?;
    let mut stale = false;
    for table in &tables {
        let rows = trust::rows(client, &format!("{} (locked)", table.get::<_, &str>(0))).await?;
        stale |= rows
            .try_fold(false, async |stale, row| Ok(stale || row == b"t"))
            .await?;
    }
    Ok(stale)
}
