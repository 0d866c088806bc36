//! Whether `pg_dump` can read all that a backup must hold, found before any dump.
//!
//! `pg_dump` locks each table, which requires the right to select from it, and copies rows with `row_security=off`, which
//! fails where a policy would apply. It stops at the first object that it may not read, in a large database after hours.
//! Here all of them are found at once, by the catalog.

use std::time::{Duration, Instant};

use fairway_protocol::{Failure, Reason};
use tokio_postgres::{Client, Error};

use crate::{
    failure::environment,
    session::{Session, cause, statement_failed},
    text::listed,
};

/// The condition on a relation `c` of `pg_class` in schema `n` under which `pg_dump` reads it: not of the server, no other
/// session's, and of an extension only where that says that its rows are the user's
/// (<https://www.postgresql.org/docs/current/extend-extensions.html#EXTEND-EXTENSIONS-CONFIG-TABLES>).
pub(crate) const DUMPED: &str = "(n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relpersistence <> 't' \
    and (not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid \
        and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e') \
      or exists (select from pg_extension e where c.oid = any(e.extconfig))))";

/// Most bytes of a row in the text format of COPY: the server's longest string, `MaxAllocSize`.
const LONGEST_ROW: i64 = 0x3fff_ffff;
/// Smallest size of a table's long values, as stored, that may hold such a row: the best compression there is, lz4's, makes
/// 1/255 of a value.
const LEAST_TOAST: i64 = 1024 * 1024;
/// Most tables in which rows of that size are looked for.
const MOST_TABLES: i64 = 20;
/// How long that may take for all tables.
const LOOK: Duration = Duration::from_secs(5);
/// First version with the role `pg_read_all_data`.
const READ_ALL_DATA: u32 = 14;
/// First version with a function that says whether a role may read a large object.
const LARGE_OBJECT_PRIVILEGE: u32 = 18;

/// What a role lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// The right to look into a schema.
    Usage,
    /// The right to read an object.
    Read,
    /// The right to read a large object, which no predefined role has.
    ReadLargeObject,
    /// Exemption from a table's policies.
    Exemption,
}

/// Objects of one kind that a role cannot dump.
#[derive(Debug)]
struct Undumpable {
    lack: Lack,
    /// Number, kind and some names.
    which: String,
}

/// Proves that a dump by the session's role would succeed, as far as the catalog shows it, and tables in a few seconds.
///
/// # Errors
/// `DumpNotPossible` with what stands in its way.
pub(crate) async fn check(session: &Session, major: u32) -> Result<(), Failure> {
    let mut obstacles = in_catalog(session, major).await?;
    // Only what the role may read can be looked at.
    let tables = tables_with_too_large_rows(session.client()).await?;
    if !tables.is_empty() {
        obstacles.push(format!(
            "pg_dump would fail at a row of {}: it copies rows of at most 1 GB, and bytea takes twice its size. Split such \
             rows.",
            counted(tables.len(), "table", "tables", &tables)
        ));
    }
    none_of(&obstacles)
}

/// As [`check`], without a look at rows, for a dump that begins at once.
///
/// # Errors
/// `DumpNotPossible` with what stands in its way.
pub(crate) async fn check_catalog(session: &Session, major: u32) -> Result<(), Failure> {
    none_of(&in_catalog(session, major).await?)
}

fn none_of(obstacles: &[String]) -> Result<(), Failure> {
    match obstacles {
        [] => Ok(()),
        sentences => Err(environment(Reason::DumpNotPossible, sentences.join(" "))),
    }
}

/// What stands in the way of a dump according to the catalog: sentences with the fix.
async fn in_catalog(session: &Session, major: u32) -> Result<Vec<String>, Failure> {
    let doing = |error| statement_failed("looking for what cannot be dumped", &error);
    let client = session.client();
    session.start_reading().await.map_err(doing)?;
    let undumpable = undumpable(client, major).await.map_err(doing)?;
    let too_many = too_many_tables(client).await.map_err(doing)?;
    session.end_reading().await.map_err(doing)?;
    let forbidden = (!undumpable.is_empty()).then(|| forbidden(&undumpable, major));
    Ok(forbidden.into_iter().chain(too_many).collect())
}

/// What the session's role may not dump.
async fn undumpable(client: &Client, major: u32) -> Result<Vec<Undumpable>, Error> {
    let row = client
        .query_one(
            "select r.rolsuper from pg_roles r where r.rolname = current_user",
            &[],
        )
        .await?;
    if row.get(0) {
        return Ok(Vec::new());
    }
    let relation = |condition: &str| {
        format!(
            "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where {DUMPED} and has_schema_privilege(n.oid, 'usage') and {condition}"
        )
    };
    let large_object = match major < LARGE_OBJECT_PRIVILEGE {
        true => {
            "not current_setting('lo_compat_privileges')::bool and not exists ( \
               select from aclexplode(coalesce(o.lomacl, acldefault('L', o.lomowner))) a \
               where a.privilege_type = 'SELECT' and (a.grantee = 0 or pg_has_role(a.grantee, 'usage')))"
        }
        false => "not has_largeobject_privilege(o.oid, 'select')",
    };
    let kinds = [
        (
            Lack::Usage,
            ["schema", "schemas"],
            format!(
                "select distinct format('%I', n.nspname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where {DUMPED} and c.relkind in ('r', 'p', 'S') and not has_schema_privilege(n.oid, 'usage')"
            ),
        ),
        (
            Lack::Read,
            ["table", "tables"],
            relation("c.relkind in ('r', 'p') and not has_table_privilege(c.oid, 'select')"),
        ),
        (
            Lack::Read,
            ["sequence", "sequences"],
            // The order of conditions is the server's choice, and the function fails for what is no sequence.
            relation(
                "case when c.relkind = 'S' then not has_sequence_privilege(c.oid, 'select') else false end",
            ),
        ),
        (
            Lack::ReadLargeObject,
            ["large object", "large objects"],
            // Most belong to the role, of which that says enough.
            format!(
                "select o.oid::text from pg_largeobject_metadata o \
                 where not (o.lomacl is null and pg_has_role(o.lomowner, 'usage')) and {large_object}"
            ),
        ),
        // Rows of a partitioned table are copied from its partitions.
        (
            Lack::Exemption,
            ["table", "tables"],
            relation("c.relkind = 'r' and row_security_active(c.oid)"),
        ),
    ];
    let mut found = Vec::new();
    for (lack, [one, many], query) in kinds {
        let (count, names) = some_of(client, &query).await?;
        if count > 0 {
            let which = counted(count, one, many, &names);
            found.push(Undumpable { lack, which });
        }
    }
    Ok(found)
}

/// How many texts a query of one column returns, and the first few of them.
pub(crate) async fn some_of(client: &Client, query: &str) -> Result<(usize, Vec<String>), Error> {
    let row = client
        .query_one(
            &format!(
                "select count(*), coalesce((array_agg(name order by name collate \"C\"))[1:{NAMES}], '{{}}') \
                 from ({query}) as found (name)"
            ),
            &[],
        )
        .await?;
    let count: i64 = row.get(0);
    Ok((usize::try_from(count).unwrap_or_default(), row.get(1)))
}

/// Most names in a message.
const NAMES: usize = 3;

/// Objects as a message names them, such as `4 tables (a, b, c and 1 more)`.
pub(crate) fn counted(count: usize, one: &str, many: &str, names: &[String]) -> String {
    let noun = if count == 1 { one } else { many };
    format!(
        "{count} {noun} ({})",
        listed(count, &names[..names.len().min(NAMES)])
    )
}

/// What a role may not dump, and how it gets the right to.
fn forbidden(undumpable: &[Undumpable], major: u32) -> String {
    let those = |lacks: &[Lack]| {
        let which: Vec<_> = undumpable
            .iter()
            .filter(|found| lacks.contains(&found.lack))
            .map(|found| found.which.as_str())
            .collect();
        (!which.is_empty()).then(|| which.join(" and "))
    };
    let lacks = |lack| undumpable.iter().any(|found| found.lack == lack);
    let predicates = [
        ("may not use", those(&[Lack::Usage])),
        ("may not read", those(&[Lack::Read, Lack::ReadLargeObject])),
        ("is subject to row level security in", those(&[Lack::Exemption])),
    ];
    let predicates: Vec<_> = predicates
        .into_iter()
        .filter_map(|(predicate, which)| Some(format!("{predicate} {}", which?)))
        .collect();
    let grants = match major >= READ_ALL_DATA {
        true => "GRANT pg_read_all_data TO ROLE;",
        false => {
            "GRANT USAGE ON SCHEMA …, GRANT SELECT ON ALL TABLES IN SCHEMA … and GRANT SELECT ON ALL SEQUENCES IN SCHEMA … TO ROLE;"
        }
    };
    let fixes = [
        (lacks(Lack::Usage) || lacks(Lack::Read)).then_some(grants),
        lacks(Lack::ReadLargeObject).then_some("ALTER USER ROLE SET lo_compat_privileges = on;"),
        lacks(Lack::Exemption).then_some("ALTER USER ROLE BYPASSRLS;"),
    ];
    let fixes: Vec<_> = fixes.into_iter().flatten().collect();
    format!(
        "pg_dump would fail: the role of database.connection {}. As a superuser, with that role in place of ROLE, run: {}",
        predicates.join(", and "),
        fixes.join(" ")
    )
}

/// Why the server cannot lock all tables and sequences at a time, where it cannot. Of a server of version 18 or later, pg_dump
/// reads all sequences by one function, without a lock on each.
async fn too_many_tables(client: &Client) -> Result<Option<String>, Error> {
    // A server process is a client's session, a worker or a prepared transaction:
    // https://www.postgresql.org/docs/current/runtime-config-locks.html#GUC-MAX-LOCKS-PER-TRANSACTION.
    let row = client
        .query_one(
            &format!(
                "select (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                   where {DUMPED} and (c.relkind in ('r', 'p') \
                   or c.relkind = 'S' and current_setting('server_version_num')::int4 < 180000)), \
                 current_setting('max_locks_per_transaction')::int8, \
                 1 + current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8 \
                   + coalesce(current_setting('autovacuum_worker_slots', true), current_setting('autovacuum_max_workers'))::int8 \
                   + current_setting('max_worker_processes')::int8 + current_setting('max_wal_senders')::int8"
            ),
            &[],
        )
        .await?;
    Ok(beyond_locks(row.get(0), row.get(1), row.get(2)))
}

/// What to say of this number of tables and sequences, where each of `processes` has room for `locks`.
fn beyond_locks(tables: i64, locks: i64, processes: i64) -> Option<String> {
    let room = locks * processes;
    (tables > room).then(|| {
        // Other sessions need some too.
        let enough = (tables + tables / 4) / processes + 1;
        format!(
            "pg_dump locks all {tables} tables and sequences at once, and the server has room for {room} locks, of all its sessions. Set \
             max_locks_per_transaction of the server to {enough} or more, and restart it."
        )
    })
}

/// Tables with a row that is too long to be copied. What takes long is not looked at to the end.
async fn tables_with_too_large_rows(client: &Client) -> Result<Vec<String>, Failure> {
    let doing = |error| statement_failed("looking for rows that cannot be dumped", &error);
    // The length of a value is known without reading the value.
    let candidates = client
        .query(
            &format!(
                "select format('%I.%I', n.nspname, c.relname), \
                   string_agg(format(case a.atttypid when 'bytea'::regtype then '2 * coalesce(octet_length(%I), 0)::int8' \
                     else 'coalesce(octet_length(%I), 0)::int8' end, a.attname), ' + ') \
                 from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid \
                 where {DUMPED} and c.relkind = 'r' and c.reltoastrelid <> 0 \
                   and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' \
                   and a.atttypid in ('bytea'::regtype, 'text'::regtype, 'varchar'::regtype) \
                   and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') \
                   and not row_security_active(c.oid) and pg_relation_size(c.reltoastrelid) >= {LEAST_TOAST} \
                 group by c.oid, n.nspname, c.relname, c.reltoastrelid \
                 order by pg_relation_size(c.reltoastrelid) desc limit {MOST_TABLES}"
            ),
            &[],
        )
        .await;
    let candidates = match candidates {
        // To ask for the size of what somebody has locked takes too long.
        Err(error) if error.as_db_error().is_some() => {
            tracing::info!("no row was looked at: {}", cause(&error));
            Vec::new()
        }
        candidates => candidates.map_err(doing)?,
    };
    let end = Instant::now() + LOOK;
    let mut found = Vec::new();
    for candidate in candidates {
        let (table, bytes): (String, &str) = (candidate.get(0), candidate.get(1));
        match has_too_large_row(client, &table, bytes, end).await {
            Ok(true) => found.push(table),
            Ok(false) => {}
            // It took too long, is locked, or is gone.
            Err(error) if error.as_db_error().is_some() => {
                tracing::info!(
                    "{table} may have rows that are too large for pg_dump: {}",
                    cause(&error)
                );
            }
            Err(error) => return Err(doing(error)),
        }
    }
    Ok(found)
}

/// Whether the table has a row that is too large. `bytes` is the expression for the least size of a row's text.
async fn has_too_large_row(client: &Client, table: &str, bytes: &str, end: Instant) -> Result<bool, Error> {
    let left = end.saturating_duration_since(Instant::now()).as_millis().max(1);
    client
        .batch_execute(&format!(
            "start transaction read only; set local statement_timeout = {left}; set local lock_timeout = 200"
        ))
        .await?;
    let query = format!("select exists (select from only {table} where {bytes} >= {LONGEST_ROW})");
    let found = client.query_one(&query, &[]).await;
    client.batch_execute("rollback").await?;
    Ok(found?.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_has_its_predicate_and_its_fix() {
        let found = |lack, which: &str| Undumpable {
            lack,
            which: which.to_owned(),
        };
        let all = [
            found(Lack::Usage, "1 schema (closed)"),
            found(Lack::Read, "1 table (a.b)"),
            found(Lack::ReadLargeObject, "2 large objects (16401, 16402)"),
            found(Lack::Exemption, "1 table (a.c)"),
        ];
        assert_eq!(
            forbidden(&all, 15),
            "pg_dump would fail: the role of database.connection may not use 1 schema (closed), and may not read 1 table \
             (a.b) and 2 large objects (16401, 16402), and is subject to row level security in 1 table (a.c). As a \
             superuser, with that role in place of ROLE, run: GRANT pg_read_all_data TO ROLE; ALTER USER ROLE SET \
             lo_compat_privileges = on; ALTER USER ROLE BYPASSRLS;"
        );
        let alone = forbidden(&all[3..], 15);
        assert!(
            alone.ends_with("run: ALTER USER ROLE BYPASSRLS;") && !alone.contains("may not"),
            "{alone}"
        );
        assert!(
            !forbidden(&all, 13).contains("pg_read_all_data"),
            "which came with 14"
        );
    }

    #[test]
    fn more_tables_than_locks_are_refused_with_the_number_that_suffices() {
        let [locks, processes] = [64, 122];
        assert_eq!(beyond_locks(7808, locks, processes), None);
        let refusal = beyond_locks(10_000, locks, processes).unwrap();
        assert!(
            refusal.contains("all 10000 tables and sequences") && refusal.contains("room for 7808 locks"),
            "{refusal}"
        );
        assert!(refusal.contains("to 103 or more"), "{refusal}");
        assert_eq!(beyond_locks(10_000, 103, processes), None);
    }
}
