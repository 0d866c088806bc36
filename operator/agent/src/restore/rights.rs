//! What a restore in place needs of the role and of the database: everything that is missing is said at once, before anything
//! is done.

use fairway_protocol::{Failure, Reason};
use tokio_postgres::Client;

use super::{
    server::{Server, Target},
    set::Extension,
};
use crate::{
    failure::environment,
    session::{cause, is_transient, statement_failed},
};

/// Number of names in one clause.
const NAMED: usize = 5;

/// What the connection's role is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    pub(super) is_superuser: bool,
}

/// Checks everything.
///
/// # Errors
/// `RestoreNotPermitted` with all that is missing.
pub(super) async fn check(
    server: &Server<'_>,
    target: &Target,
    extensions: &[Extension],
) -> Result<Role, Failure> {
    let doing = |error| statement_failed("looking up what the role may do", &error);
    let (role, mut missing) = missing(server.client(), target, extensions)
        .await
        .map_err(doing)?;
    if missing.is_empty() {
        missing.extend(rehearse(server.client(), target).await.map_err(doing)?);
    }
    match missing.is_empty() {
        true => Ok(role),
        false => Err(environment(
            Reason::RestoreNotPermitted,
            format!(
                "The database cannot be restored in place: {}. Provide that, or restore into a new database by hand.",
                missing.join("; ")
            ),
        )),
    }
}

/// Writes the settings and privileges of the database once, and takes that back: those of a restored one are written when
/// nobody may connect any more. Returns what the server has against it.
async fn rehearse(client: &Client, target: &Target) -> Result<Option<String>, tokio_postgres::Error> {
    let mut statements = vec!["begin".to_owned()];
    statements.extend(target.settings_for(&target.name));
    statements.extend(target.grants_for(&target.name));
    statements.push("rollback".to_owned());
    let Err(error) = client.batch_execute(&statements.join("; ")).await else {
        return Ok(None);
    };
    client.batch_execute("rollback").await?;
    match error.code() {
        Some(code) if !is_transient(code) => Ok(Some(format!(
            "the settings and privileges of the database cannot be written again ({})",
            cause(&error)
        ))),
        _ => Err(error),
    }
}

/// What is missing: one clause each, which begins with a lower-case letter.
async fn missing(
    client: &Client,
    target: &Target,
    extensions: &[Extension],
) -> Result<(Role, Vec<String>), tokio_postgres::Error> {
    let row = client
        .query_one(
            "select r.rolsuper, r.rolcreatedb, r.rolcreaterole, pg_has_role(current_user, d.datdba, 'usage') \
             from pg_roles r, pg_database d where r.rolname = current_user and d.oid = $1",
            &[&target.oid],
        )
        .await?;
    let (is_superuser, creates_databases, creates_roles, owns): (bool, bool, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let mut missing = in_the_way(client, target).await?;
    for extension in unavailable(client, extensions).await? {
        missing.push(format!("the server does not have the extension {extension}"));
    }
    if is_superuser {
        return Ok((Role { is_superuser }, missing));
    }
    if !creates_databases {
        missing.push("the role of database.connection lacks CREATEDB (ALTER ROLE … CREATEDB)".to_owned());
    }
    if !owns {
        missing.push(format!(
            "the role of database.connection is neither {}, the owner of the database, nor a member of it",
            target.owner
        ));
    }
    if let Some(tablespace) = &target.tablespace {
        let row = client
            .query_one(
                "select has_tablespace_privilege($1::text, 'create')",
                &[tablespace],
            )
            .await?;
        if !row.get::<_, bool>(0) {
            missing.push(format!(
                "the role of database.connection lacks CREATE on tablespace {tablespace}"
            ));
        }
    }
    if !creates_roles {
        let own: String = client.query_one("select current_user::text", &[]).await?.get(0);
        let others = target.settings.iter().filter_map(|(role, _)| role.clone());
        let mut others: Vec<String> = others.filter(|role| *role != own).collect();
        others.dedup();
        if !others.is_empty() {
            missing.push(format!(
                "ALTER ROLE … IN DATABASE has set something for {}, which only a superuser or a role with CREATEROLE can set \
                 for the restored database",
                some_of(others)
            ));
        }
    }
    for extension in extensions {
        let row = client
            .query_opt(
                "select v.superuser and not v.trusted from pg_available_extension_versions v \
                 join pg_available_extensions e on e.name = v.name and e.default_version = v.version where v.name = $1",
                &[&extension.name],
            )
            .await?;
        if row.is_some_and(|row| row.get::<_, bool>(0)) {
            missing.push(format!(
                "only a superuser may create the extension {}",
                extension.name
            ));
        }
    }
    Ok((Role { is_superuser }, missing))
}

/// What of the database itself is in the way, whoever restores it.
async fn in_the_way(client: &Client, target: &Target) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut found = Vec::new();
    for (query, what) in [
        (
            "select x.gid from pg_prepared_xacts x join pg_database d on d.datname = x.database where d.oid = $1",
            "a prepared transaction holds the database (commit or roll back",
        ),
        (
            "select s.subname::text from pg_subscription s where s.subdbid = $1",
            "a subscription of the database would go on in the replaced one (drop",
        ),
        (
            "select s.slot_name::text from pg_replication_slots s where s.datoid = $1 and not s.temporary",
            "a replication slot would stay with the replaced database, and its reader would get nothing more (drop",
        ),
    ] {
        let rows = client.query(query, &[&target.oid]).await?;
        if !rows.is_empty() {
            let names = some_of(rows.iter().map(|row| row.get(0)).collect());
            found.push(format!("{what} {names})"));
        }
    }
    Ok(found)
}

/// Extensions of the set that the server does not offer.
async fn unavailable(
    client: &Client,
    extensions: &[Extension],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let names: Vec<&str> = extensions
        .iter()
        .map(|extension| extension.name.as_str())
        .collect();
    let rows = client
        .query(
            "select w.name from unnest($1::text[]) as w (name) \
             where not exists (select from pg_available_extensions e where e.name = w.name)",
            &[&names],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn some_of(names: Vec<String>) -> String {
    let more = if names.len() > NAMED { " and more" } else { "" };
    let shown: Vec<_> = names.into_iter().take(NAMED).collect();
    format!("{}{more}", shown.join(", "))
}
