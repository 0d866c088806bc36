//! The server's counters of row changes: what a backup records of them, and what has been changed since.
//!
//! They are the cumulative statistics of <https://www.postgresql.org/docs/current/monitoring-stats.html>. They count work that
//! was rolled back too, and neither sequences nor large objects; a truncated table is known by its new file.

use std::collections::BTreeMap;

use fairway_protocol::Loss;
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Error};

/// Number of tables that a [`Loss`] names.
const NAMED: usize = 3;
/// Length of the longest name that it has, in bytes.
const NAME: usize = 60;

/// The counters of a database at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counters {
    /// Which database they are of: the cluster's identifier, where the role may read it, and the database's oid.
    pub(crate) database: String,
    /// Since when they count: when the server last lost its statistics, by a crash too, and when somebody last reset them.
    pub(crate) since: String,
    /// The tables by schema and name, quoted where that is necessary; but for those of schema `fairway`.
    pub(crate) tables: BTreeMap<String, TableCounter>,
}

/// The counter of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TableCounter {
    /// Rows that were inserted, updated or deleted.
    pub(crate) changes: u64,
    /// Number of the table's file, which changes when it is truncated or rewritten; 0 where it has none.
    pub(crate) file: u32,
}

impl Counters {
    /// Reads the counters of the session's database. The session's `search_path` must be the catalog.
    ///
    /// # Errors
    /// Whatever the server answers.
    pub(crate) async fn read(client: &Client) -> Result<Self, Error> {
        // Its right is checked even in a branch that is not taken.
        let may_identify = client
            .query_one(
                "select has_function_privilege('pg_catalog.pg_control_system()', 'execute')",
                &[],
            )
            .await?;
        let system: String = match may_identify.get(0) {
            true => client
                .query_one("select system_identifier::text from pg_control_system()", &[])
                .await?
                .get(0),
            false => String::new(),
        };
        // After a crash the server begins all its statistics again, and says so of those of the background writer.
        let row = client
            .query_one(
                "select d.oid::text, concat_ws('/', coalesce(extract(epoch from b.stats_reset)::text, '-'), \
                   coalesce(extract(epoch from s.stats_reset)::text, '-')) \
                 from pg_database d left join pg_stat_database s on s.datid = d.oid cross join pg_stat_bgwriter b \
                 where d.datname = current_database()",
                &[],
            )
            .await?;
        let (oid, since): (String, String) = (row.get(0), row.get(1));
        let rows = client
            .query(
                "select format('%I.%I', s.schemaname, s.relname), s.n_tup_ins + s.n_tup_upd + s.n_tup_del, \
                   coalesce(pg_relation_filenode(s.relid), 0) \
                 from pg_stat_user_tables s where s.schemaname <> 'fairway'",
                &[],
            )
            .await?;
        let tables = rows.iter().map(|row| {
            let counter = TableCounter {
                changes: row.get::<_, i64>(1).unsigned_abs(),
                file: row.get(2),
            };
            (row.get(0), counter)
        });
        Ok(Self {
            database: format!("{system}/{oid}"),
            since,
            tables: tables.collect(),
        })
    }

    /// What was changed since the counters of a backup were read; all that is there where it has none that compare.
    pub(crate) fn since(&self, backup: Option<&Self>) -> Loss {
        let (before, mut uncounted) = match backup {
            None => (None, Some("the backup has no counters".to_owned())),
            Some(backup) if backup.database != self.database => (
                None,
                Some("the backup is of another database, or of this one before it was replaced".to_owned()),
            ),
            Some(backup) if backup.since != self.since => {
                let why = "the server lost its counters, by a crash or a reset, after the backup was taken";
                (None, Some(why.to_owned()))
            }
            Some(backup) => (Some(backup), None),
        };
        let mut changed: Vec<(&str, u64)> = Vec::new();
        for (table, now) in &self.tables {
            let then = before.and_then(|before| before.tables.get(table));
            if let Some(then) = then
                && (now.changes < then.changes || now.file != then.file)
            {
                uncounted.get_or_insert_with(|| {
                    format!("{} was truncated, rewritten or created again", shown(table))
                });
            }
            let changes = now.changes.saturating_sub(then.map_or(0, |then| then.changes));
            if changes > 0 {
                changed.push((table, changes));
            }
        }
        changed.sort_by_key(|(table, changes)| (std::cmp::Reverse(*changes), *table));
        Loss {
            rows: changed.iter().map(|(_, changes)| changes).sum(),
            tables: changed.len() as u64,
            largest: changed
                .iter()
                .take(NAMED)
                .map(|(table, changes)| (shown(table), *changes))
                .collect(),
            uncounted,
        }
    }
}

fn shown(table: &str) -> String {
    crate::text::shortened(table, NAME)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn counters(since: &str, tables: &[(&str, u64, u32)]) -> Counters {
        Counters {
            database: "1/2".to_owned(),
            since: since.to_owned(),
            tables: tables
                .iter()
                .map(|(table, changes, file)| {
                    let (changes, file) = (*changes, *file);
                    ((*table).to_owned(), TableCounter { changes, file })
                })
                .collect(),
        }
    }

    #[test]
    fn changes_since_a_backup_are_counted_by_table() {
        let then = counters("a", &[("p.kept", 5, 1), ("p.grown", 5, 2), ("p.dropped", 9, 3)]);
        let now = counters("a", &[("p.kept", 5, 1), ("p.grown", 12, 2), ("p.created", 3, 4)]);
        let loss = now.since(Some(&then));
        assert_eq!((loss.rows, loss.tables, loss.uncounted), (10, 2, None));
        assert_eq!(
            loss.largest,
            [("p.grown".to_owned(), 7), ("p.created".to_owned(), 3)]
        );
    }

    #[rstest]
    #[case::reset("b", "p.a", 9, 1, "reset")]
    #[case::truncated("a", "p.a", 9, 2, "p.a was truncated")]
    #[case::created_again("a", "p.a", 1, 1, "created again")]
    fn what_the_counters_do_not_know_is_said(
        #[case] since: &str,
        #[case] table: &str,
        #[case] changes: u64,
        #[case] file: u32,
        #[case] why: &str,
    ) {
        let then = counters("a", &[("p.a", 5, 1)]);
        let loss = counters(since, &[(table, changes, file)]).since(Some(&then));
        assert!(
            loss.uncounted.as_ref().is_some_and(|said| said.contains(why)),
            "{loss:?}"
        );
    }

    #[test]
    fn a_backup_without_counters_counts_everything_and_says_so() {
        let now = counters("a", &[("p.a", 5, 1)]);
        let mut other = now.clone();
        other.database = "1/3".to_owned();
        for backup in [None, Some(&other)] {
            let loss = now.since(backup);
            assert_eq!(loss.rows, 5);
            assert!(loss.uncounted.is_some());
        }
    }
}
