//! The database that a dump was taken from: what a server must have before the dump can be restored into it.

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Error};

/// A database, as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Source {
    /// Name of the database.
    pub(crate) name: String,
    /// Role that owns the database.
    pub(crate) owner: String,
    /// Name of the character set encoding, such as `UTF8`.
    pub(crate) encoding: String,
    /// Provider of the default collation: `libc`, `icu` or `builtin`.
    pub(crate) locale_provider: String,
    /// Value of `LC_COLLATE`.
    pub(crate) collate: String,
    /// Value of `LC_CTYPE`.
    pub(crate) ctype: String,
    /// Locale of another provider than libc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) locale: Option<String>,
    /// Version of the default collation, where its provider has versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) collation_version: Option<String>,
    /// Extensions, which the image of a server must contain.
    pub(crate) extensions: Vec<Extension>,
    /// Collations with versions that columns or indexes use, beside the default one.
    pub(crate) collations: Vec<Collation>,
}

/// An extension of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extension {
    /// Name of the extension.
    pub(crate) name: String,
    /// Version of the extension's objects in the database.
    pub(crate) version: String,
    /// Schema of the extension.
    pub(crate) schema: String,
}

/// A collation of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Collation {
    /// Schema of the collation.
    pub(crate) schema: String,
    /// Name of the collation.
    pub(crate) name: String,
    /// Provider of the collation, as for the database.
    pub(crate) provider: String,
    /// Version of the provider's rules by which indexes were built.
    pub(crate) version: String,
}

/// Columns of `pg_database` came, and were renamed, with versions 15 and 17; as JSON, one that is missing is null.
const DATABASE: &str = "
    select d.datname::text, pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text, d.datcollate::text,
        d.datctype::text,
        case j ->> 'datlocprovider' when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
        coalesce(j ->> 'datlocale', j ->> 'daticulocale'), j ->> 'datcollversion'
    from pg_database d, lateral to_jsonb(d) j where d.datname = current_database()";

const EXTENSIONS: &str = "
    select e.extname::text, e.extversion, n.nspname::text
    from pg_extension e join pg_namespace n on n.oid = e.extnamespace order by e.extname";

/// Every server knows hundreds of collations, so only those that something made by a user has (`FirstNormalObjectId`).
const COLLATIONS: &str = "
    select n.nspname::text, c.collname::text,
        case c.collprovider::text when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end, c.collversion
    from pg_collation c join pg_namespace n on n.oid = c.collnamespace
    where c.collversion is not null
        and c.oid in (select a.attcollation from pg_attribute a where a.attrelid >= 16384 and a.attcollation <> 0)
    order by 1, 2";

/// Describes the database of a session, in its transaction.
pub(super) async fn describe(client: &Client) -> Result<Source, Error> {
    let database = client.query_one(DATABASE, &[]).await?;
    let extensions = client.query(EXTENSIONS, &[]).await?;
    let collations = client.query(COLLATIONS, &[]).await?;
    Ok(Source {
        name: database.get(0),
        owner: database.get(1),
        encoding: database.get(2),
        collate: database.get(3),
        ctype: database.get(4),
        locale_provider: database.get(5),
        locale: database.get(6),
        collation_version: database.get(7),
        extensions: extensions
            .iter()
            .map(|row| Extension {
                name: row.get(0),
                version: row.get(1),
                schema: row.get(2),
            })
            .collect(),
        collations: collations
            .iter()
            .map(|row| Collation {
                schema: row.get(0),
                name: row.get(1),
                provider: row.get(2),
                version: row.get(3),
            })
            .collect(),
    })
}
