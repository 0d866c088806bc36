//! The schema of the ledger: who may have created it, and how each version of Fairway brings it up to date.
//!
//! Whatever stands in a table of another role could be forged, and its triggers would run with the agent's rights. So
//! nothing of schema `fairway` is read before all of it is known to be the ledger itself.

use fairway_protocol::{Failure, Reason};
use tokio_postgres::{Client, GenericClient, Transaction, error::SqlState};

use crate::{failure::environment, session::statement_failed, trust::TRUSTED_ROLES};

/// What brings a ledger from each version to the next one; the first entry creates it. An entry that was released is
/// never changed.
pub(crate) const VERSIONS: &[&str] = &[
    "
    create table fairway.owner (
        singleton boolean primary key default true check (singleton),
        namespace text not null,
        app text not null,
        claimed_at timestamptz not null default clock_timestamp()
    );
    create table fairway.migration_run (
        run_id text primary key,
        ordinal bigint generated always as identity unique,
        namespace text not null,
        app text not null,
        release text not null,
        image_digest text not null,
        command_hash text not null,
        pod_uid text not null,
        pod_ip text not null,
        client_address text,
        state text not null check (state in ('running', 'committed', 'failed', 'partial', 'unknown')),
        started_at timestamptz not null default clock_timestamp(),
        finished_at timestamptz,
        pre_fingerprint text not null,
        post_fingerprint text,
        invalid_indexes text[] not null,
        at_work text[] not null,
        exit_code int4,
        sqlstate text,
        reason text,
        message text,
        last_error text,
        failed_check text,
        resolution text check (resolution in ('applied', 'notApplied')),
        resolution_token text,
        resolved_at timestamptz
    )",
    // The first version kept no number of itself.
    "
    create table fairway.ledger (
        singleton boolean primary key default true check (singleton),
        version int4 not null
    );
    insert into fairway.ledger (version) values (1)",
    "alter table fairway.migration_run add column inputs_hash text",
    "
    create table fairway.reverted_run (
        run_id text primary key,
        restore_uid text not null,
        taken_at text not null,
        reverted_at timestamptz not null default clock_timestamp()
    )",
    // What no release has: see the feature.
    #[cfg(feature = "next-version")]
    "alter table fairway.migration_run add column of_the_next_version text",
];

/// What is wrong with schema `fairway`, as the predicate of a sentence; no row when nothing is.
///
/// Objects that came with the server are pinned: the catalog records no dependency on them, so that whatever a default,
/// a constraint or an index depends on, other than the ledger's own tables, was created by somebody.
const OFFENCE: &str = "
    with trusted as ({trusted}),
    relations as (
        select c.* from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'fairway'
    ),
    tables as (select * from relations where relname in ('owner', 'migration_run', 'ledger', 'reverted_run')),
    parts as (
        select 'pg_class'::regclass as classid, oid as objid, relname from tables
        union all select 'pg_class'::regclass, i.indexrelid, t.relname from pg_index i join tables t on t.oid = i.indrelid
        union all select 'pg_attrdef'::regclass, d.oid, t.relname from pg_attrdef d join tables t on t.oid = d.adrelid
        union all select 'pg_constraint'::regclass, o.oid, t.relname from pg_constraint o join tables t on t.oid = o.conrelid
    ),
    offences (rank, what) as (
        select 1, 'schema fairway belongs to another role' from pg_namespace n
        where n.nspname = 'fairway' and n.nspowner not in (select oid from trusted)
        union all
        select 2, format('fairway.%I belongs to another role', relname) from relations
        where relowner not in (select oid from trusted)
        union all
        select 3, format('fairway.%I is not a plain table', relname) from tables
        where relkind <> 'r' or relpersistence <> 'p' or relispartition or reloftype <> 0
          or exists (select from pg_inherits i where tables.oid in (i.inhrelid, i.inhparent))
        union all
        select 4, format('fairway.%I has the trigger %I', t.relname, g.tgname)
        from pg_trigger g join tables t on t.oid = g.tgrelid
        union all
        select 5, format('fairway.%I has the rule %I', t.relname, r.rulename)
        from pg_rewrite r join tables t on t.oid = r.ev_class
        union all
        select 6, format('fairway.%I has row security', relname) from tables
        where relrowsecurity or relforcerowsecurity or exists (select from pg_policy p where p.polrelid = tables.oid)
        union all
        select 7, format('fairway.%I has the generated column %I', t.relname, a.attname)
        from pg_attribute a join tables t on t.oid = a.attrelid where a.attnum > 0 and a.attgenerated <> ''
        union all
        select 8, format('the column %I of fairway.%I has a type of its own', a.attname, t.relname)
        from pg_attribute a join tables t on t.oid = a.attrelid join pg_type y on y.oid = a.atttypid
        where a.attnum > 0 and not a.attisdropped and y.typnamespace <> 'pg_catalog'::regnamespace
        union all
        select 9, format('fairway.%I depends on an object that is not part of it', p.relname)
        from pg_depend d join parts p on p.classid = d.classid and p.objid = d.objid
        where d.refclassid not in ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_constraint'::regclass)
        union all
        select 10, format('another role may write to fairway.%I', t.relname)
        from tables t cross join lateral (
            select * from aclexplode(t.relacl)
            union all
            select e.* from pg_attribute a cross join lateral aclexplode(a.attacl) e where a.attrelid = t.oid
        ) as acl
        where acl.grantee not in (select oid from trusted) and acl.grantee <> t.relowner
          and acl.privilege_type not in ('SELECT', 'MAINTAIN')
    )
    select what from offences order by rank, what limit 1";

/// The roles, other than those that may have it, which default privileges gave a right on the ledger's tables.
const GRANTEES: &str = "
    select distinct case acl.grantee when 0 then 'public' else format('%I', pg_get_userbyid(acl.grantee)) end
    from pg_class c join pg_namespace n on n.oid = c.relnamespace cross join lateral aclexplode(c.relacl) as acl
    where n.nspname = 'fairway' and acl.grantee <> c.relowner and acl.grantee not in ({trusted})";

/// The statements that make a role, in place of `ROLE`, the owner of those of the ledger's tables that the own one does not
/// own; null when it owns all.
const TRANSFER: &str = "
    select string_agg(format('ALTER TABLE fairway.%I OWNER TO ROLE', c.relname), '; ' order by c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'fairway' and c.relname in ('owner', 'migration_run', 'ledger')
      and not pg_has_role(c.relowner, 'usage')";

/// What was found of the ledger in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is none.
    Nothing,
    /// A ledger of an earlier version, which counts from 1.
    Earlier(usize),
    /// A ledger of this version.
    Current,
}

impl Found {
    fn version(self, versions: &[&str]) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Earlier(version) => version,
            Self::Current => versions.len(),
        }
    }
}

/// What there is of the ledger, which can then be trusted.
///
/// # Errors
/// `LedgerNotPermitted` when it cannot be trusted or not be read, `LedgerNewer` when a newer Fairway has upgraded it.
pub(crate) async fn find(client: &impl GenericClient) -> Result<Found, Failure> {
    find_of(client, VERSIONS).await
}

async fn find_of(client: &impl GenericClient, versions: &[&str]) -> Result<Found, Failure> {
    let offence = client
        .query_opt(&OFFENCE.replace("{trusted}", TRUSTED_ROLES), &[])
        .await
        .map_err(ledger_not_read)?;
    if let Some(row) = offence {
        return Err(not_trusted(row.get(0)));
    }
    let tables = client
        .query_one(
            "select count(*) filter (where c.relname = 'migration_run') > 0, count(*) filter (where c.relname = 'ledger') > 0, \
             bool_and(has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')) \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = 'fairway' and c.relname in ('owner', 'migration_run', 'ledger', 'reverted_run')",
            &[],
        )
        .await
        .map_err(ledger_not_read)?;
    let (created, numbered, readable): (bool, bool, Option<bool>) =
        (tables.get(0), tables.get(1), tables.get(2));
    if readable == Some(false) {
        return Err(forbidden());
    }
    let version = match (created, numbered) {
        (false, _) => return Ok(Found::Nothing),
        (true, false) => 1,
        (true, true) => {
            let row = client
                .query_opt("select version from fairway.ledger", &[])
                .await
                .map_err(ledger_not_read)?;
            row.map_or(1, |row| row.get::<_, i32>(0))
        }
    };
    match usize::try_from(version) {
        Ok(version) if version == versions.len() => Ok(Found::Current),
        Ok(version @ 1..) if version < versions.len() => Ok(Found::Earlier(version)),
        _ => Err(newer(version, versions.len())),
    }
}

/// Creates the ledger where there is none, and upgrades one of an earlier version. To be called under the migration
/// lock.
///
/// # Errors
/// Those of [`find`], and `LedgerNotPermitted` when the role may not create it.
pub(crate) async fn ensure(client: &mut Client) -> Result<(), Failure> {
    ensure_of(client, VERSIONS).await
}

async fn ensure_of(client: &mut Client, versions: &[&str]) -> Result<(), Failure> {
    let found = find_of(client, versions).await?;
    if found == Found::Current {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(|error| not_created(&error))?;
    create(&transaction, found, versions).await?;
    transaction.commit().await.map_err(|error| not_created(&error))
}

/// Proves that the ledger can be created, or upgraded, and leaves nothing behind: what triggers on such statements do is
/// known only after they have run.
///
/// # Errors
/// Those of [`ensure`].
pub(crate) async fn rehearse(client: &mut Client) -> Result<(), Failure> {
    let found = find(client).await?;
    if found == Found::Current {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(|error| not_created(&error))?;
    create(&transaction, found, VERSIONS).await?;
    transaction.rollback().await.map_err(|error| not_created(&error))
}

async fn create(transaction: &Transaction<'_>, found: Found, versions: &[&str]) -> Result<(), Failure> {
    let from = found.version(versions);
    let transfer: Option<String> = match found {
        Found::Earlier(_) => transaction
            .query_one(TRANSFER, &[])
            .await
            .map_err(ledger_not_read)?
            .get(0),
        Found::Nothing | Found::Current => None,
    };
    let created = async {
        // `create schema if not exists` would ask for the right to create it even where it exists.
        let row = transaction
            .query_one("select to_regnamespace('fairway') is null", &[])
            .await?;
        if row.get(0) {
            transaction.batch_execute("create schema fairway").await?;
        }
        for step in &versions[from..] {
            transaction.batch_execute(step).await?;
        }
        let grantees = transaction
            .query(&GRANTEES.replace("{trusted}", TRUSTED_ROLES), &[])
            .await?;
        let mut revoked = "revoke all on schema fairway from public".to_owned();
        for grantee in &grantees {
            let grantee: &str = grantee.get(0);
            revoked += &format!("; revoke all on all tables in schema fairway from {grantee}");
        }
        transaction.batch_execute(&revoked).await?;
        let version = i32::try_from(versions.len()).unwrap_or(i32::MAX);
        transaction
            .execute("update fairway.ledger set version = $1", &[&version])
            .await
    };
    created.await.map_err(|error| match &transfer {
        Some(transfer) if is_refusal(&error) => not_owned(transfer),
        _ => not_created(&error),
    })?;
    // Event triggers may have added to it, and somebody whom its owner lets create tables in it.
    match find_of(transaction, versions).await? {
        Found::Current => Ok(()),
        Found::Nothing | Found::Earlier(_) => Err(not_trusted("it is not as Fairway has created it")),
    }
}

/// Whether the role may write to a ledger that exists, or create one.
///
/// # Errors
/// `LedgerNotPermitted` when it may not.
pub(crate) async fn check_rights(client: &impl GenericClient, found: Found) -> Result<(), Failure> {
    let query = match found {
        Found::Nothing | Found::Earlier(_) => {
            "select case when to_regnamespace('fairway') is not null then has_schema_privilege('fairway', 'create') \
             else has_database_privilege(current_database(), 'create') end"
        }
        Found::Current => {
            "select has_schema_privilege('fairway', 'usage') and bool_and( \
               has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert') \
               and has_table_privilege(c.oid, 'update')) \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = 'fairway' and c.relname in ('owner', 'migration_run')"
        }
    };
    let row = client.query_one(query, &[]).await.map_err(ledger_not_read)?;
    match row.get(0) {
        true => Ok(()),
        false => Err(forbidden()),
    }
}

fn ledger_not_read(error: tokio_postgres::Error) -> Failure {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => forbidden(),
        _ => statement_failed("reading the ledger", &error),
    }
}

/// Whether the server refuses a statement of the agent's own, and not one of a trigger.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|database| {
        *database.code() == SqlState::INSUFFICIENT_PRIVILEGE && database.where_().is_none()
    })
}

/// The failure of a statement that creates or upgrades the ledger.
fn not_created(error: &tokio_postgres::Error) -> Failure {
    match error.as_db_error() {
        _ if is_refusal(error) => forbidden(),
        // The context is the function that a trigger has called, in the server's language.
        Some(database) if database.where_().is_some() => not_permitted(format!(
            "An event trigger of the database does not let Fairway create its ledger, schema fairway (SQLSTATE {}). Look \
                 at the event triggers (select evtname, evtfoid::regproc from pg_event_trigger). Their functions must name \
                 tables with their schema, or set search_path themselves (ALTER FUNCTION … SET search_path).",
            database.code().code()
        )),
        _ => statement_failed("creating the ledger", error),
    }
}

fn not_permitted(message: impl Into<String>) -> Failure {
    environment(Reason::LedgerNotPermitted, message)
}

/// The refusal of a role that may not create or use schema `fairway`.
fn forbidden() -> Failure {
    not_permitted(
        "The role of database.connection has no right to create or use Fairway's ledger, schema fairway. In psql, as the \
         database's owner, with that role in place of ROLE, run: GRANT CREATE ON DATABASE :\"DBNAME\" TO ROLE; or, where a \
         superuser owns schema fairway, let it grant USAGE and CREATE on the schema and ALL on its tables to the role.",
    )
}

/// The refusal of a role that may use the ledger and does not own it, with the statements that make it the owner.
fn not_owned(transfer: &str) -> Failure {
    not_permitted(format!(
        "The role of database.connection cannot upgrade Fairway's ledger, because it does not own its tables. As a \
         superuser, with that role in place of ROLE, run: {transfer}."
    ))
}

fn not_trusted(what: &str) -> Failure {
    not_permitted(format!(
        "Schema fairway of the database cannot be trusted as Fairway's ledger: {what}. Only the role of database.connection \
         or a superuser may own and write to it. If an earlier role of the application created it, make the new role the owner \
         of the schema and its tables; otherwise look at it and drop what does not belong there."
    ))
}

fn newer(found: i32, known: usize) -> Failure {
    environment(
        Reason::LedgerNewer,
        format!(
            "The ledger in schema fairway has version {found}, and this Fairway knows versions up to {known}: a newer Fairway \
             has upgraded it. Upgrade Fairway in this cluster."
        ),
    )
}

#[cfg(test)]
#[path = "../../tests/postgres/mod.rs"]
#[expect(dead_code, reason = "shared with the agent's tests")]
mod postgres;

#[cfg(test)]
mod tests;
