//! What must hold after a migration: no index left invalid, and the team's own statements.

use std::time::Duration;

use fairway_protocol::{Failure, SqlCheck};
use tokio::time::Instant;
use tokio_postgres::{GenericClient, SimpleQueryMessage, Transaction};

use crate::{
    connection::Connection,
    session::{SearchPath, Session, cause, is_transient, statement_failed},
    text::shortened,
};

/// Shortest time for all checks together, however long the migration took.
const LEAST: Duration = Duration::from_secs(60);
/// Pause before a check is repeated.
const PAUSE: Duration = Duration::from_secs(1);

/// Indexes that the server does not use, as after a failed `create index concurrently`.
pub(crate) async fn invalid_indexes(
    client: &impl GenericClient,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query(
            "select format('%I.%I', n.nspname, c.relname) from pg_index i join pg_class c on c.oid = i.indexrelid \
             join pg_namespace n on n.oid = c.relnamespace \
             where not (i.indisvalid and i.indisready) and n.nspname !~ '^pg_' order by 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What to say of the first index that became invalid, if one did.
pub(crate) fn newly_invalid(before: &[String], after: &[String]) -> Option<String> {
    let index = after.iter().find(|index| !before.contains(index))?;
    Some(format!("index {index} is invalid; drop it and create it again"))
}

/// The checks of a migration, and until when they may be repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks<'a> {
    statements: &'a [SqlCheck],
    until: Instant,
}

impl<'a> Checks<'a> {
    /// Checks that share the time of the migration.
    pub(crate) fn within(limit: Duration, statements: &'a [SqlCheck]) -> Self {
        Self {
            statements,
            until: Instant::now() + limit,
        }
    }

    /// No checks.
    pub(crate) fn none() -> Self {
        Self::within(Duration::ZERO, &[])
    }
}

/// Makes the checks as the application would see its tables; returns what to say of the first one that does not hold, or
/// that did not finish in time.
///
/// # Errors
/// When the database cannot be reached.
pub(crate) async fn first_failed(
    connection: &Connection,
    checks: &Checks<'_>,
) -> Result<Option<String>, Failure> {
    if checks.statements.is_empty() {
        return Ok(None);
    }
    let until = checks.until.max(Instant::now() + LEAST);
    let mut session = Session::connect(connection, SearchPath::Application).await?;
    for check in checks.statements {
        if let Some(why) = why_failed(&mut session, check, until).await? {
            return Ok(Some(shortened(&format!("check {} {why}", check.name), 200)));
        }
    }
    Ok(None)
}

/// Why a check does not hold, as the predicate of a sentence. A check that fails for a passing reason is repeated.
async fn why_failed(
    session: &mut Session,
    check: &SqlCheck,
    until: Instant,
) -> Result<Option<String>, Failure> {
    let doing = |error| statement_failed("running the migration's checks", &error);
    loop {
        let transaction = session
            .client_mut()
            .build_transaction()
            .read_only(true)
            .start()
            .await
            .map_err(doing)?;
        let found = value(&transaction, &check.sql, until).await;
        if transaction.client().is_closed() {
            return found.map(|_| None).map_err(doing);
        }
        transaction.rollback().await.map_err(doing)?;
        match found {
            Ok(Some(found)) if found == check.expect => return Ok(None),
            Ok(Some(found)) => {
                let found = shortened(&found, 60);
                return Ok(Some(format!("returned {found:?}, expected {:?}", check.expect)));
            }
            Ok(None) => return Ok(Some(format!("returned no row, expected {:?}", check.expect))),
            Err(error) if !error.code().is_some_and(is_transient) => {
                return Ok(Some(format!("failed: {}", cause(&error))));
            }
            Err(error) if Instant::now() + PAUSE >= until => {
                return Ok(Some(format!("did not finish in time: {}", cause(&error))));
            }
            Err(error) => {
                tracing::warn!("check {} did not finish: {}", check.name, cause(&error));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The first column of the first row of a statement, as the server writes it. A cursor takes one statement only, and
/// only one that reads.
async fn value(
    transaction: &Transaction<'_>,
    sql: &str,
    until: Instant,
) -> Result<Option<String>, tokio_postgres::Error> {
    // A statement may take, and wait for a lock, as long as there is time; 0 would be for ever.
    let left = until.saturating_duration_since(Instant::now()).as_millis();
    let left = left.clamp(1, 1_000_000_000);
    transaction
        .batch_execute(&format!(
            "set local lock_timeout = 0; set local statement_timeout = {left}"
        ))
        .await?;
    let statement = sql.trim().trim_end_matches(';');
    transaction
        .execute(
            &format!("declare fairway_check no scroll cursor for {statement}"),
            &[],
        )
        .await?;
    let messages = transaction.simple_query("fetch 1 from fairway_check").await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("null").to_owned()),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_index_that_became_invalid_fails_the_check() {
        let before = ["public.old".to_owned()];
        assert_eq!(newly_invalid(&before, &before), None);
        let after = ["public.new".to_owned(), "public.old".to_owned()];
        assert_eq!(
            newly_invalid(&before, &after).as_deref(),
            Some("index public.new is invalid; drop it and create it again")
        );
    }
}
