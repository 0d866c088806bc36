//! Whose tables the agent reads, and how.
//!
//! A role with few rights can own tables whose policies, casts, views and triggers call its own functions. Whoever
//! touches such a table runs them with his own rights, and the agent's role is often a superuser.

use futures::{Stream, TryStreamExt as _};
use tokio_postgres::{Client, Error};

/// Roles whose objects run nothing with the agent's rights that these roles could not run anyway: the agent's own, and
/// superusers. Membership says nothing: a superuser is a member of every role, and who may create roles is a member of
/// many.
pub(crate) const TRUSTED_ROLES: &str =
    "select r.oid from pg_roles r where r.rolsuper or r.rolname = current_user";

/// The condition on a table `c` of `pg_class` in schema `n` under which its rows are read: a plain table of a trusted role
/// or of the database's owner, with types of the server alone, without row security, and not so large that it is
/// something else than its name says.
pub(crate) fn readable() -> String {
    format!(
        "(c.relkind = 'r' and (c.relowner in ({TRUSTED_ROLES}) \
           or c.relowner = (select b.datdba from pg_database b where b.datname = current_database())) \
         and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') \
         and not row_security_active(c.oid) \
         and not exists (select from pg_attribute a join pg_type y on y.oid = a.atttypid \
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
           and y.typnamespace <> 'pg_catalog'::regnamespace) \
         and pg_table_size(c.oid) < 268435456)"
    )
}

/// The rows of a table, each in the text format of COPY, in no order.
///
/// COPY of a table runs nothing but the output functions of its types. It refuses views, and tables whose policies would
/// apply: whatever took the table's name since it was found to be [`readable`] is not executed either.
///
/// # Errors
/// Whatever the server answers.
pub(crate) async fn rows(
    client: &Client,
    table: &str,
) -> Result<impl Stream<Item = Result<Vec<u8>, Error>> + use<>, Error> {
    // The server sends each row as a message of its own.
    let rows = client.copy_out(&format!("copy {table} to stdout")).await?;
    Ok(rows.map_ok(|row| row.strip_suffix(b"\n").unwrap_or(&row).to_vec()))
}
