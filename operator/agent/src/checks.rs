//! What must hold after a migration: no index left invalid, and the team's own statements.

use std::{fmt, time::Duration};

use fairway_protocol::{Failure, SqlCheck};
use tokio::time::Instant;
use tokio_postgres::{
    GenericClient, SimpleQueryMessage, Transaction,
    types::{Kind, Type},
};

use crate::{
    connection::Connection,
    session::{SearchPath, Session, cause, is_transient, statement_failed},
    text::shortened,
};

/// Shortest time for all checks together, however long the migration took.
const LEAST: Duration = Duration::from_secs(60);
/// Pause before a check is repeated.
const PAUSE: Duration = Duration::from_secs(1);

/// Indexes that the server does not use and that nobody works on, as a failed `create index concurrently` leaves them.
///
/// The index of a partitioned table is invalid until each partition has its part, by design (`create index … on only`).
/// A session that builds or drops an index concurrently holds a lock; it is somebody else's, since those of the run have
/// ended.
pub(crate) async fn invalid_indexes(
    client: &impl GenericClient,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query(
            "select format('%I.%I', n.nspname, c.relname) from pg_index i join pg_class c on c.oid = i.indexrelid \
             join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind = 'i' and not (i.indisvalid and i.indisready) and n.nspname !~ '^pg_' \
             and not exists (select from pg_locks l where l.locktype = 'relation' and l.granted \
               and l.database = (select d.oid from pg_database d where d.datname = current_database()) \
               and l.pid <> pg_backend_pid() \
               and (l.relation = i.indexrelid and l.mode in ('ShareUpdateExclusiveLock', 'AccessExclusiveLock') \
                 or l.relation = i.indrelid and l.mode = 'ShareUpdateExclusiveLock' \
                   and l.pid in (select p.pid from pg_stat_progress_create_index p))) \
             order by 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What does not hold after a migration. Its text, which reports and the ledger have, begins with a word for its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FailedCheck {
    /// An index was left invalid: which one, and what to do with it.
    InvalidIndex(String),
    /// One of the team's statements: its name, and why it does not hold.
    Statement(String),
}

impl FailedCheck {
    const INDEX: &str = "index ";
    const STATEMENT: &str = "check ";

    /// The failed check that has this text.
    pub(crate) fn parse(text: &str) -> Self {
        match text.strip_prefix(Self::INDEX) {
            Some(index) => Self::InvalidIndex(index.to_owned()),
            None => Self::Statement(text.strip_prefix(Self::STATEMENT).unwrap_or(text).to_owned()),
        }
    }
}

impl fmt::Display for FailedCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, what) = match self {
            Self::InvalidIndex(what) => (Self::INDEX, what),
            Self::Statement(what) => (Self::STATEMENT, what),
        };
        write!(formatter, "{kind}{what}")
    }
}

/// The first index that became invalid, if one did.
pub(crate) fn newly_invalid(before: &[String], after: &[String]) -> Option<FailedCheck> {
    let index = after.iter().find(|index| !before.contains(index))?;
    // `reindex concurrently` builds a second index beside the first, and keeps a number where the name was taken.
    let name = index.trim_end_matches(|c: char| c.is_ascii_digit() || c == '"');
    Some(FailedCheck::InvalidIndex(
        match name.ends_with("_ccnew") || name.ends_with("_ccold") {
            true => format!("{index}, which REINDEX CONCURRENTLY left, is invalid; drop it"),
            false => format!("{index} is invalid; drop it and create it again"),
        },
    ))
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

/// Makes the checks as the application would see its tables; returns the first one that does not hold, or that did not finish
/// in time.
///
/// # Errors
/// When the database cannot be reached.
pub(crate) async fn first_failed(
    connection: &Connection,
    checks: &Checks<'_>,
) -> Result<Option<FailedCheck>, Failure> {
    if checks.statements.is_empty() {
        return Ok(None);
    }
    let until = checks.until.max(Instant::now() + LEAST);
    let mut session = Session::connect(connection, SearchPath::Application).await?;
    for check in checks.statements {
        if let Some(why) = why_failed(&mut session, check, until).await? {
            let failed = shortened(&format!("{} {why}", check.name), 200);
            return Ok(Some(FailedCheck::Statement(failed)));
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
        let found = verdict(&transaction, check, until).await;
        match (transaction.client().is_closed(), &found) {
            // The session is lost, and not what was found on it.
            (true, Err(_)) => return found.map(|_| None).map_err(doing),
            (true, Ok(_)) => drop(transaction),
            (false, _) => transaction.rollback().await.map_err(doing)?,
        }
        match found {
            Ok(Found::Expected) => return Ok(None),
            Ok(Found::Other) => return Ok(Some(format!("returned another value than {:?}", check.expect))),
            Ok(Found::NoRow) => return Ok(Some(format!("returned no row, expected {:?}", check.expect))),
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

/// What a check's statement returned.
enum Found {
    /// The value that is expected.
    Expected,
    /// Another value. It is a value of rows, which stands in no status: whoever may read it can ask the database.
    Other,
    /// No row.
    NoRow,
}

/// Compares the first column of the first row of a check's statement with what is expected. A cursor takes one statement
/// only, and only one that reads.
async fn verdict(
    transaction: &Transaction<'_>,
    check: &SqlCheck,
    until: Instant,
) -> Result<Found, tokio_postgres::Error> {
    // A statement may take, and wait for a lock, as long as there is time; 0 would be for ever.
    let left = until.saturating_duration_since(Instant::now()).as_millis();
    let left = left.clamp(1, 1_000_000_000);
    transaction
        .batch_execute(&format!(
            "set local lock_timeout = 0; set local statement_timeout = {left}"
        ))
        .await?;
    let statement = check.sql.trim().trim_end_matches(';');
    transaction
        .execute(
            &format!("declare fairway_check no scroll cursor for {statement}"),
            &[],
        )
        .await?;
    const FETCH: &str = "fetch 1 from fairway_check";
    let described = transaction.prepare(FETCH).await?;
    let messages = transaction.simple_query(FETCH).await?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row else {
        return Ok(Found::NoRow);
    };
    let found = row.get(0).unwrap_or("null");
    let equal = found == check.expect
        || match described
            .columns()
            .first()
            .and_then(|column| in_catalog(column.type_()))
        {
            Some(of_type) => mean_the_same(transaction, of_type, found, &check.expect).await?,
            None => false,
        };
    Ok(match equal {
        true => Found::Expected,
        false => Found::Other,
    })
}

/// The type of a column, or the one beneath its domains, if it came with the server: only those are read and written by
/// functions of the server alone.
fn in_catalog(column: &Type) -> Option<&Type> {
    match column.kind() {
        Kind::Domain(beneath) => in_catalog(beneath),
        _ => (column.schema() == "pg_catalog").then_some(column),
    }
}

/// Whether two texts are the same value of a type: `true` is `t` for a boolean and other text for a text, `1.0` is `1` for a
/// numeric and no integer at all. Texts that the type cannot read mean nothing.
async fn mean_the_same(
    transaction: &Transaction<'_>,
    of_type: &Type,
    found: &str,
    expected: &str,
) -> Result<bool, tokio_postgres::Error> {
    let name = format!("pg_catalog.\"{}\"", of_type.name());
    // The server writes equal values of these types in several ways, and those of all others in one.
    let [found_as, expected_as] = ["$1", "$2"].map(|text| match *of_type {
        Type::NUMERIC | Type::BPCHAR | Type::JSONB | Type::INTERVAL => format!("cast({text} as {name})"),
        Type::JSON => format!("cast({text} as pg_catalog.jsonb)"),
        _ => format!("cast(cast({text} as {name}) as pg_catalog.text)"),
    });
    let same = transaction
        .query_typed_one(
            &format!("select {found_as} operator(pg_catalog.=) {expected_as}"),
            &[(&found, Type::TEXT), (&expected, Type::TEXT)],
        )
        .await;
    match same {
        Ok(row) => Ok(row.get(0)),
        Err(error) if error.code().is_some_and(|code| !is_transient(code)) => Ok(false),
        Err(error) => Err(error),
    }
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
            newly_invalid(&before, &after).unwrap().to_string(),
            "index public.new is invalid; drop it and create it again"
        );
        let after = ["public.\"Old_ccnew1\"".to_owned()];
        assert_eq!(
            newly_invalid(&before, &after).unwrap().to_string(),
            "index public.\"Old_ccnew1\", which REINDEX CONCURRENTLY left, is invalid; drop it"
        );
    }

    #[test]
    fn a_failed_check_is_read_back_from_its_text() {
        for failed in [
            FailedCheck::InvalidIndex("public.new is invalid; drop it and create it again".to_owned()),
            FailedCheck::Statement("index returned no row, expected \"1\"".to_owned()),
        ] {
            assert_eq!(FailedCheck::parse(&failed.to_string()), failed);
        }
    }
}
