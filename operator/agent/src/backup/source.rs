//! What a server must have before a dump can be restored into it: what `pg_dump` leaves to `pg_dumpall`, to the server's
//! files, and to whoever creates the database.

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Error};

/// The database of a backup, as its server has it. Read under the dump's own snapshot and kept in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Source {
    /// Owner of the database.
    pub(crate) owner: String,
    /// Encoding of its text.
    pub(crate) encoding: String,
    /// Its collation and its classes of characters.
    pub(crate) locale: Locale,
    /// Whether the role that backs it up is a superuser, who reads everything.
    pub(crate) reads_all: bool,
    /// Whether it has the schema `public`, with which every database begins.
    pub(crate) has_public: bool,
    /// Its extensions in the order in which they were created, so that one that needs another comes after it.
    pub(crate) extensions: Vec<Extension>,
    /// Roles of the server but those that every server has.
    pub(crate) roles: Vec<String>,
    /// Which role is granted to which; none where that may not be read.
    pub(crate) memberships: Vec<(String, String)>,
}

/// How a database sorts and classifies characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Locale {
    /// `c` for the C library, `i` for ICU, `b` for PostgreSQL itself.
    pub(crate) provider: String,
    /// `LC_COLLATE`.
    pub(crate) collate: String,
    /// `LC_CTYPE`.
    pub(crate) ctype: String,
    /// The provider's own name for the locale.
    pub(crate) name: Option<String>,
    /// Further rules of ICU.
    pub(crate) rules: Option<String>,
}

/// An extension of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extension {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// The schema of its objects.
    pub(crate) schema: String,
    /// OID of that schema, by which the dump names it.
    pub(crate) schema_oid: u32,
    /// Owner of that schema.
    pub(crate) schema_owner: String,
}

/// Columns of `pg_database` that not every version has.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Row {
    datlocprovider: Option<String>,
    /// Up to version 16.
    daticulocale: Option<String>,
    /// From version 17 on.
    datlocale: Option<String>,
    daticurules: Option<String>,
}

/// Reads it in the client's transaction.
///
/// # Errors
/// Whatever the server answers.
pub(crate) async fn read(client: &Client) -> Result<Source, Error> {
    let row = client
        .query_one(
            "select pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text, d.datcollate::text, \
             d.datctype::text, to_jsonb(d)::text, exists (select from pg_namespace where nspname = 'public'), \
             (select r.rolsuper from pg_roles r where r.rolname = current_user) from pg_database d where d.datname = current_database()",
            &[],
        )
        .await?;
    // A column that another version writes otherwise is one that this version does not know.
    let columns: Row = serde_json::from_str(row.get(4)).unwrap_or_default();
    Ok(Source {
        owner: row.get(0),
        encoding: row.get(1),
        locale: Locale {
            provider: columns.datlocprovider.unwrap_or_else(|| "c".to_owned()),
            collate: row.get(2),
            ctype: row.get(3),
            name: columns.datlocale.or(columns.daticulocale),
            rules: columns.daticurules,
        },
        has_public: row.get(5),
        reads_all: row.get(6),
        extensions: extensions(client).await?,
        roles: roles(client).await?,
        memberships: memberships(client).await?,
    })
}

async fn extensions(client: &Client) -> Result<Vec<Extension>, Error> {
    let rows = client
        .query(
            "select e.extname::text, e.extversion, n.nspname::text, n.oid, pg_get_userbyid(n.nspowner)::text \
             from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname <> 'plpgsql' order by e.oid",
            &[],
        )
        .await?;
    let extension = |row: &tokio_postgres::Row| Extension {
        name: row.get(0),
        version: row.get(1),
        schema: row.get(2),
        schema_oid: row.get(3),
        schema_owner: row.get(4),
    };
    Ok(rows.iter().map(extension).collect())
}

async fn roles(client: &Client) -> Result<Vec<String>, Error> {
    let rows = client
        .query(
            "select rolname::text from pg_roles where rolname !~ '^pg_' order by rolname collate \"C\"",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn memberships(client: &Client) -> Result<Vec<(String, String)>, Error> {
    let may_read = "select has_table_privilege('pg_catalog.pg_auth_members', 'select')";
    if !client.query_one(may_read, &[]).await?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    // Roles that every server has may read and write its files: no role of a copy does.
    let rows = client
        .query(
            "select distinct g.rolname::text, m.rolname::text from pg_auth_members a join pg_roles g on g.oid = a.roleid \
             join pg_roles m on m.oid = a.member where g.rolname !~ '^pg_' and m.rolname !~ '^pg_' order by 1, 2",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
