//! What somebody who restores a backup should know: what a dump leaves out by its nature, what only a superuser can restore,
//! and what should be fixed in the database itself.

use tokio_postgres::{Client, Error};

use crate::{
    collation::{self, Outdated},
    dumpable::{DUMPED, counted, some_of},
};

/// First version in which a publication may be of all tables in a schema.
const SCHEMA_PUBLICATIONS: u32 = 15;
/// First version whose `pg_dump` holds less in memory for each large object.
const LIGHT_LARGE_OBJECTS: u32 = 17;
/// Number of large objects from which their memory matters.
const MANY_LARGE_OBJECTS: i64 = 200_000;

/// A kind of objects: one, several, and the query for their names.
type Kind<'a> = ([&'a str; 2], String);

/// Notes on a dump that was taken in the client's transaction: one sentence each.
///
/// # Errors
/// Whatever the server answers.
pub(crate) async fn notes(client: &Client, major: u32) -> Result<Vec<String>, Error> {
    let kinds = left_out();
    let left_out = found(client, &kinds)
        .await?
        .map(|what| format!("Not in this backup: {what}."));
    let kinds = superusers(major);
    let superusers = found(client, &kinds)
        .await?
        .map(|what| format!("Only a superuser can restore {what}."));
    let large_objects = many_large_objects(client, major).await?;
    let collation = collation::outdated(client, major).await?.map(reindex);
    Ok([left_out, superusers, large_objects, collation]
        .into_iter()
        .flatten()
        .collect())
}

fn left_out() -> [Kind<'static>; 5] {
    let superuser = "(select r.rolsuper from pg_roles r where r.rolname = current_user)";
    let database =
        |column: &str| format!("(select b.{column} from pg_database b where b.datname = current_database())");
    [
        (
            ["subscription", "subscriptions"],
            // A superuser's dump has them.
            format!(
                "select s.subname::text from pg_subscription s where s.subdbid = {} and not {superuser}",
                database("oid")
            ),
        ),
        (
            ["replication slot", "replication slots"],
            "select s.slot_name::text from pg_replication_slots s where s.database = current_database() and not s.temporary"
                .to_owned(),
        ),
        (
            ["foreign table's rows", "foreign tables' rows"],
            format!(
                "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where {DUMPED} and c.relkind = 'f'"
            ),
        ),
        (
            ["foreign server's passwords", "foreign servers' passwords"],
            // The view hides them from everybody else, and `pg_dump` reads the view.
            format!(
                "select distinct format('%I', m.srvname) from pg_user_mappings m where m.umoptions is null and not {superuser}"
            ),
        ),
        (
            ["database of the same owner", "databases of the same owner"],
            format!(
                "select format('%I', d.datname) from pg_database d where not d.datistemplate \
                 and d.datname not in (current_database(), 'postgres') and d.datdba = {}",
                database("datdba")
            ),
        ),
    ]
}

fn superusers(major: u32) -> [Kind<'static>; 2] {
    let of_schemas = match major >= SCHEMA_PUBLICATIONS {
        true => "or exists (select from pg_publication_namespace s where s.pnpubid = p.oid)",
        false => "",
    };
    [
        (
            ["event trigger", "event triggers"],
            "select format('%I', e.evtname) from pg_event_trigger e where not exists (select from pg_depend d \
             where d.classid = 'pg_event_trigger'::regclass and d.objid = e.oid and d.deptype = 'e')"
                .to_owned(),
        ),
        (
            ["publication of all tables or of a schema", "publications of all tables or of schemas"],
            format!("select format('%I', p.pubname) from pg_publication p where p.puballtables {of_schemas}"),
        ),
    ]
}

/// Which objects of some kinds there are, as part of a sentence.
async fn found(client: &Client, kinds: &[Kind<'_>]) -> Result<Option<String>, Error> {
    let mut parts = Vec::new();
    for ([one, many], query) in kinds {
        let (count, names) = some_of(client, query).await?;
        if count > 0 {
            parts.push(counted(count, one, many, &names));
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join(", ")))
}

/// What to say of very many large objects. Their number is the server's own estimate.
async fn many_large_objects(client: &Client, major: u32) -> Result<Option<String>, Error> {
    let row = client
        .query_one(
            "select reltuples::int8 from pg_class where oid = 'pg_largeobject_metadata'::regclass",
            &[],
        )
        .await?;
    let count: i64 = row.get(0);
    Ok((major < LIGHT_LARGE_OBJECTS && count >= MANY_LARGE_OBJECTS).then(|| {
        format!(
            "There are about {count} large objects, each of which takes memory of pg_dump and pg_restore: raise \
             agent.resources if a pod runs out of it."
        )
    }))
}

/// What to do about indexes that were built with another version of the database's collation. Those of a restored copy are
/// new.
fn reindex(outdated: Outdated) -> String {
    let Outdated {
        built_with,
        current,
        database,
    } = outdated;
    format!(
        "Indexes on text may miss rows: they were built with version {built_with} of the collation, and the server has \
         {current}. Run REINDEX DATABASE {database}; then ALTER DATABASE {database} REFRESH COLLATION VERSION;"
    )
}
