//! The collation by which a database sorts text, of which indexes on text depend on the very version.

use tokio_postgres::{Client, Error};

/// First version of PostgreSQL that records the version of a database's collation.
const RECORDED_FROM: u32 = 15;

/// A collation of which the server's libraries have another version now. Indexes on text may then miss rows.
pub(crate) struct Outdated {
    /// The version with which indexes were built.
    pub(crate) built_with: String,
    /// The version of the server's libraries.
    pub(crate) current: String,
    /// Name of the database, quoted where SQL needs it.
    pub(crate) database: String,
}

/// What of the connected database's collation is outdated, on a server of that major version; `None` also where that is not
/// recorded.
///
/// # Errors
/// Whatever the server answers.
pub(crate) async fn outdated(client: &Client, major: u32) -> Result<Option<Outdated>, Error> {
    if major < RECORDED_FROM {
        return Ok(None);
    }
    let row = client
        .query_opt(
            "select coalesce(datcollversion, 'none'), coalesce(pg_database_collation_actual_version(oid), 'none'), \
             format('%I', datname) from pg_database where datname = current_database() \
             and datcollversion is distinct from pg_database_collation_actual_version(oid)",
            &[],
        )
        .await?;
    Ok(row.map(|row| Outdated {
        built_with: row.get(0),
        current: row.get(1),
        database: row.get(2),
    }))
}
