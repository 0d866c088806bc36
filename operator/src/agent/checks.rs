//! What must hold after a migration: no index left invalid, and the team's own statements.

use fairway_plan::protocol::{Failure, SqlCheck};
use tokio_postgres::{GenericClient, SimpleQueryMessage, Transaction};

use super::{
    connection::Connection,
    report::shortened,
    session::{SearchPath, Session, cause, statement_failed},
};

/// Indexes that the server does not use, for example after a failed `create index concurrently`.
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

/// The sentence for the first index that became invalid.
pub(crate) fn newly_invalid(before: &[String], after: &[String]) -> Option<String> {
    let index = after.iter().find(|index| !before.contains(index))?;
    Some(format!("index {index} is invalid; drop it and build it again"))
}

/// Runs the team's statements as the application would see its tables; returns the sentence of the first that
/// does not hold.
///
/// # Errors
/// When the database cannot be reached.
pub(crate) async fn first_broken(
    connection: &Connection,
    checks: &[SqlCheck],
) -> Result<Option<String>, Failure> {
    if checks.is_empty() {
        return Ok(None);
    }
    let mut session = Session::connect(connection, SearchPath::Application).await?;
    for check in checks {
        let doing = |error| statement_failed("running the migration's checks", &error);
        let transaction = session
            .client_mut()
            .build_transaction()
            .read_only(true)
            .start()
            .await
            .map_err(doing)?;
        let found = value(&transaction, &check.sql).await;
        if transaction.client().is_closed() {
            return found.map(|_| None).map_err(doing);
        }
        transaction.rollback().await.map_err(doing)?;
        let broken = match found {
            Ok(Some(found)) if found == check.expect => continue,
            Ok(Some(found)) => format!(
                "returned {:?}, expected {:?}",
                shortened(&found, 60),
                check.expect
            ),
            Ok(None) => format!("returned no row, expected {:?}", check.expect),
            Err(error) => format!("failed: {}", cause(&error)),
        };
        return Ok(Some(shortened(&format!("check {} {broken}", check.name), 200)));
    }
    Ok(None)
}

/// The first column of the first row as the server writes it. A cursor takes one statement only, and only one
/// that reads.
async fn value(transaction: &Transaction<'_>, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
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
    fn an_index_that_was_invalid_before_is_not_the_migrations_fault() {
        let before = ["public.old".to_owned()];
        assert_eq!(newly_invalid(&before, &before), None);
        let after = ["public.new".to_owned(), "public.old".to_owned()];
        assert_eq!(
            newly_invalid(&before, &after).as_deref(),
            Some("index public.new is invalid; drop it and build it again")
        );
    }
}
