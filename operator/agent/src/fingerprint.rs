//! A hash of everything in a database that a migration is meant to change.
//!
//! Two equal fingerprints mean: the same relations, columns, indexes with their validity, constraints,
//! functions, triggers, views, types, sequences and extensions, and the same rows in every known
//! migration-history table. Names take the place of OIDs and positions leave out dropped columns, so that a
//! restored copy has the fingerprint of its source. Owners, privileges, comments and statistics do not count.

use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, types::ToSql};

use crate::{session::Session, text::hex, trust};

/// Tables in which frameworks record which migrations they have applied. The catalog holds everything else.
const HISTORY_TABLES: [&str; 21] = [
    "migrations",                  // Unleash (db-migrate), TypeORM, Laravel
    "schema_migrations",           // Rails, golang-migrate, Ecto, dbmate
    "ar_internal_metadata",        // Rails
    "django_migrations",           // Django
    "_prisma_migrations",          // Prisma
    "flyway_schema_history",       // Flyway
    "databasechangelog",           // Liquibase
    "knex_migrations",             // Knex
    "SequelizeMeta",               // Sequelize
    "alembic_version",             // Alembic
    "__drizzle_migrations",        // Drizzle
    "payload_migrations",          // Payload
    "_sqlx_migrations",            // sqlx
    "__diesel_schema_migrations",  // Diesel
    "refinery_schema_history",     // Refinery
    "__EFMigrationsHistory",       // Entity Framework
    "goose_db_version",            // goose
    "pgmigrations",                // node-pg-migrate
    "kysely_migration",            // Kysely
    "doctrine_migration_versions", // Doctrine
    "mikro_orm_migrations",        // MikroORM
];

/// The condition on schemas that count.
const OURS: &str = "n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'fairway')";

/// The parts that are hashed: a name, and a query for one text column. `{ours}` stands for [`OURS`].
const PARTS: [(&str, &str); 14] = [
    (
        "schemas",
        "select n.nspname::text from pg_namespace n where {ours}",
    ),
    (
        "relations",
        "select row(n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, c.relrowsecurity, \
           c.relforcerowsecurity, c.relispartition, c.reloptions, pg_get_expr(c.relpartbound, c.oid), \
           pg_get_partkeydef(c.oid), c.reloftype::regtype)::text \
         from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where {ours} and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c', 'S')",
    ),
    (
        "columns",
        "select row(n.nspname, c.relname, row_number() over (partition by c.oid order by a.attnum), a.attname, \
           format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, \
           (select l.collname from pg_collation l where l.oid = a.attcollation), pg_get_expr(d.adbin, d.adrelid))::text \
         from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace \
         left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum \
         where {ours} and a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c') \
        ",
    ),
    (
        "indexes",
        "select row(n.nspname, c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready, i.indisunique, \
           i.indisprimary, i.indisreplident, i.indisclustered)::text \
         from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace \
         where {ours}",
    ),
    (
        "constraints",
        "select row(n.nspname, coalesce(c.relname, t.typname), o.conname, pg_get_constraintdef(o.oid), \
           o.convalidated, o.condeferrable, o.condeferred)::text \
         from pg_constraint o join pg_namespace n on n.oid = o.connamespace \
         left join pg_class c on c.oid = o.conrelid left join pg_type t on t.oid = o.contypid \
         where {ours}",
    ),
    (
        "inheritance",
        "select row(n.nspname, c.relname, i.inhparent::regclass, i.inhseqno)::text \
         from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace \
         where {ours}",
    ),
    (
        "functions",
        // `pg_get_functiondef` knows no aggregates.
        "select row(n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), p.prokind, \
           case when p.prokind <> 'a' then sha256(convert_to(pg_get_functiondef(p.oid), 'UTF8')) end, \
           (select row(g.aggtransfn, g.aggfinalfn, g.aggtranstype::regtype, g.agginitval) \
            from pg_aggregate g where g.aggfnoid = p.oid))::text \
         from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
         where {ours} and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass \
           and d.objid = p.oid and d.deptype = 'e')",
    ),
    (
        "triggers",
        "select row(n.nspname, c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled)::text \
         from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace \
         where {ours} and not t.tgisinternal",
    ),
    (
        "views",
        "select row(n.nspname, c.relname, r.rulename, pg_get_ruledef(r.oid), r.ev_enabled)::text \
         from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace \
         where {ours}",
    ),
    (
        "policies",
        "select row(n.nspname, c.relname, p.polname, p.polcmd, p.polpermissive, \
           pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))::text \
         from pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace \
         where {ours}",
    ),
    (
        "sequences",
        "select row(n.nspname, c.relname, format_type(s.seqtypid, null), s.seqstart, s.seqincrement, s.seqmax, \
           s.seqmin, s.seqcache, s.seqcycle)::text \
         from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace \
         where {ours}",
    ),
    (
        "types",
        "select row(n.nspname, t.typname, t.typtype, t.typnotnull, format_type(t.typbasetype, t.typtypmod), \
           t.typdefault, (select format_type(r.rngsubtype, null) from pg_range r where r.rngtypid = t.oid), \
           (select array_agg(e.enumlabel order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid))::text \
         from pg_type t join pg_namespace n on n.oid = t.typnamespace \
         where {ours} and t.typtype in ('d', 'e', 'r', 'm')",
    ),
    (
        "extensions",
        "select row(e.extname, e.extversion, n.nspname)::text \
         from pg_extension e join pg_namespace n on n.oid = e.extnamespace",
    ),
    (
        "publications and event triggers",
        "select * from (select row('publication', p.pubname, p.puballtables, p.pubinsert, p.pubupdate, \
             p.pubdelete)::text from pg_publication p \
           union all select row('event trigger', e.evtname, e.evtevent, e.evtenabled, e.evttags)::text \
             from pg_event_trigger e) as both_kinds",
    ),
];

/// The query for the tables of migration history that exist, and whether they are read.
const FIND_HISTORY: &str = "select format('%I.%I', n.nspname, c.relname), {readable} \
    from pg_class c join pg_namespace n on n.oid = c.relnamespace \
    where {ours} and c.relkind in ('r', 'p') and c.relname = any($1) order by n.nspname collate \"C\", c.relname collate \"C\"";

/// The fingerprint of the database as the client's transaction sees it: SHA-256, hex.
///
/// # Errors
/// Whatever the server answers; the session must have `search_path` set to the catalog, or names would be
/// written differently.
pub(crate) async fn fingerprint(client: &Client) -> Result<String, tokio_postgres::Error> {
    let mut hash = Sha256::new();
    for (name, query) in PARTS {
        // Collation decides the order of names, and it may differ between a database and its copy.
        part(client, &mut hash, name, &in_fixed_order(query)).await?;
    }
    for (table, readable) in history_tables(client).await? {
        match readable {
            true => history(client, &mut hash, &table).await?,
            false => feed(&mut hash, format!("{table} is not read").as_bytes()),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The [`fingerprint`] of the database, read in a transaction of its own.
pub(crate) async fn of_database(session: &mut Session) -> Result<String, tokio_postgres::Error> {
    session.start_reading().await?;
    let fingerprint = fingerprint(session.client()).await?;
    session.end_reading().await?;
    Ok(fingerprint)
}

async fn history_tables(client: &Client) -> Result<Vec<(String, bool)>, tokio_postgres::Error> {
    let query = FIND_HISTORY
        .replace("{ours}", OURS)
        .replace("{readable}", &trust::readable());
    let rows = client.query(&query, &[&HISTORY_TABLES.as_slice()]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Hashes the rows of a table of migration history, whose order does not count.
async fn history(client: &Client, hash: &mut Sha256, table: &str) -> Result<(), tokio_postgres::Error> {
    feed(hash, table.as_bytes());
    let sum = trust::rows(client, table)
        .await?
        .try_fold(Sum::default(), async |mut sum, row| {
            sum.add(&Sha256::digest(&row).into());
            Ok(sum)
        })
        .await?;
    hash.update(sum.rows.to_le_bytes());
    hash.update(sum.digits);
    Ok(())
}

/// The number of rows, and the sum of their hashes: the same in every order, and small however many there are.
#[derive(Default)]
struct Sum {
    rows: u64,
    digits: [u8; 32],
}

impl Sum {
    fn add(&mut self, other: &[u8; 32]) {
        self.rows += 1;
        let mut carry = 0;
        for (digit, other) in self.digits.iter_mut().zip(other) {
            let sum = u16::from(*digit) + u16::from(*other) + carry;
            [*digit, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
    }
}

fn in_fixed_order(query: &str) -> String {
    let query = query.replace("{ours}", OURS);
    format!("select line from ({query}) as lines (line) order by line collate \"C\"")
}

async fn part(
    client: &Client,
    hash: &mut Sha256,
    name: &str,
    query: &str,
) -> Result<(), tokio_postgres::Error> {
    feed(hash, name.as_bytes());
    let parameters: [&(dyn ToSql + Sync); 0] = [];
    let rows = client.query_raw(query, parameters).await?;
    futures::pin_mut!(rows);
    while let Some(row) = rows.try_next().await? {
        feed(hash, row.get::<_, Option<&str>>(0).unwrap_or_default().as_bytes());
    }
    feed(hash, b"");
    Ok(())
}

/// Hashes a line after its length, so that no two lists of lines hash the same bytes.
fn feed(hash: &mut Sha256, line: &[u8]) {
    hash.update(line.len().to_le_bytes());
    hash.update(line);
}
