//! The snapshot under which everything of a backup is read.

use tokio_postgres::{Error, Transaction};

/// An exported snapshot. It lives as long as the transaction that exported it.
pub(crate) struct Snapshot {
    id: String,
    /// Its time by the server's clock, RFC 3339.
    pub(crate) taken_at: String,
    /// Encoding of the database. A dump is written in it: role or database may set another `client_encoding`, in which not
    /// every character can be written.
    pub(crate) encoding: String,
}

impl Snapshot {
    /// Exports the snapshot of a transaction.
    ///
    /// # Errors
    /// Whatever the server answers.
    pub(crate) async fn export(transaction: &Transaction<'_>) -> Result<Self, Error> {
        let row = transaction
            .query_one(
                "select pg_export_snapshot(), \
                 to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), \
                 getdatabaseencoding()::text",
                &[],
            )
            .await?;
        Ok(Self {
            id: row.get(0),
            taken_at: row.get(1),
            encoding: row.get(2),
        })
    }

    /// The arguments by which `pg_dump` reads this snapshot.
    pub(crate) fn arguments(&self) -> [String; 2] {
        [
            format!("--snapshot={}", self.id),
            format!("--encoding={}", self.encoding),
        ]
    }
}
