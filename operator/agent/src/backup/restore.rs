//! Proves that a dump can be restored: into a throwaway server, in the container beside the agent's that holds no secret.
//!
//! | step | by whom |
//! |---|---|
//! | roles, the database with its owner, encoding and locale, extensions | the agent, as that server's superuser: none of it is the dump's |
//! | the dump, pass by pass, up to the first error | `pg_restore` in the clone, as a role with the rights of the database's owner and of every other role, and no more |
//! | fingerprint and size of the copy | the agent, as the role of the App's connection |

use std::time::{Duration, Instant};

use fairway_protocol::{Failure, Reason, RestoreProof};
use tokio_postgres::Client;

use super::{
    diagnosis::not_restorable,
    source::{Extension, Locale, Source},
};
use crate::{
    clone::{self, CloneClient, Started},
    connection::{ChannelBinding, Connection, Host, Origin, TlsMode, TlsVersions},
    environment::Environment,
    failure::{environment as environment_failure, version},
    fingerprint,
    output::Tail,
    redact::Redactor,
    session::{SearchPath, Session, cause},
    text::shortened,
};

/// Name of the copy.
const COPY: &str = "restored";
/// The database in which the copy is created.
const MAINTENANCE: &str = "postgres";
/// Number in the name of the server's socket.
const PORT: u16 = 5432;
/// The catalog of schemas.
const SCHEMAS: u32 = 2615;
/// Schemas that every database has.
const OF_EVERY_DATABASE: [&str; 2] = ["public", "pg_catalog"];
/// Extensions whose functions call other servers.
const CALLERS: [&str; 6] = ["aws_lambda", "aws_s3", "dblink", "http", "pg_net", "plproxy"];
/// Least time that a restore is given.
const LEAST_TIME: Duration = Duration::from_secs(3600);
/// How much longer than the dump a restore may take.
const TIMES_THE_DUMP: u32 = 20;
/// Most objects that a note names.
const NAMED: usize = 3;
/// Longest name in a note, in bytes.
const NAME: usize = 60;

/// A dump to restore, which is in the scratch volume.
pub(super) struct Dump<'a> {
    /// Major version of its server.
    pub(super) major: u32,
    /// What it needs of a server.
    pub(super) source: &'a Source,
    /// Fingerprint of the schema under the dump's snapshot.
    pub(super) fingerprint: &'a str,
    /// The role of the App's connection.
    pub(super) user: &'a str,
    /// Extensions that the App leaves out.
    pub(super) without_extensions: &'a [String],
    /// How long the dump took.
    pub(super) took: Duration,
}

impl Dump<'_> {
    /// Whether the role of the App's connection reads all tables of the copy, as it does those of the database. The role
    /// for that came with PostgreSQL 14.
    fn reads_all(&self) -> bool {
        self.source.reads_all && self.major >= 14
    }

    /// Whether the copy should have the fingerprint of the database: the same role must read the same tables.
    fn is_comparable(&self) -> bool {
        self.without_extensions.is_empty() && self.source.reads_all == self.reads_all()
    }
}

/// A restore that succeeded.
pub(super) struct Restored {
    /// What it took and found.
    pub(super) proof: RestoreProof,
    /// What was left out or is different: a sentence each.
    pub(super) notes: Vec<String>,
}

/// Restores a dump in the clone beside this agent.
///
/// # Errors
/// `BackupNotRestorable`, which is final: the same dump would fail again. Anything else may pass.
pub(super) async fn prove(
    dump: &Dump<'_>,
    environment: &Environment,
    redactor: &Redactor,
) -> Result<Restored, Failure> {
    let limit = LEAST_TIME.max(dump.took.saturating_mul(TIMES_THE_DUMP));
    match tokio::time::timeout(limit, restore(dump, environment, redactor)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(version(
            Reason::BackupNotRestorable,
            format!(
                "The dump was written and read back, but restoring it did not end within {} minutes. Look for an index, a \
                 constraint or a materialized view whose functions take that long, or set backup.verify to Decoded.",
                limit.as_secs() / 60
            ),
        )),
    }
}

async fn restore(
    dump: &Dump<'_>,
    environment: &Environment,
    redactor: &Redactor,
) -> Result<Restored, Failure> {
    let start = Instant::now();
    let mut clone = CloneClient::reach(&clone::socket(environment)).await?;
    let started = clone.start(dump.major).await?;
    let server = Server {
        folder: environment.clone_directory().display().to_string(),
        started: &started,
    };
    let prepared = prepare(&server, dump).await?;
    match clone
        .restore(COPY, prepared.skip, dump.without_extensions)
        .await?
    {
        Ok(left_out) => {
            let mut notes = prepared.notes;
            notes.extend(note_of_what_is_left_out(&left_out, redactor));
            let found = check(&server, dump).await?;
            if dump.is_comparable() && notes.is_empty() && found.fingerprint != dump.fingerprint {
                notes.push(
                    "The restored copy has another schema fingerprint than the database; compare the two with pg_dump \
                     --schema-only."
                        .to_owned(),
                );
            }
            let proof = RestoreProof {
                // Nobody needs more than milliseconds.
                seconds: (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
                tables: found.tables,
                bytes: found.bytes,
            };
            Ok(Restored { proof, notes })
        }
        Err(lines) => {
            let mut errors = Tail::default();
            lines.iter().for_each(|line| errors.push(line.as_bytes()));
            Err(not_restorable(&errors, redactor))
        }
    }
}

/// The throwaway server.
struct Server<'a> {
    folder: String,
    started: &'a Started,
}

impl Server<'_> {
    async fn superuser(&self, database: &str) -> Result<Session, Failure> {
        let Started {
            superuser, password, ..
        } = self.started;
        self.session(database, superuser, Some(password.clone())).await
    }

    async fn session(
        &self,
        database: &str,
        user: &str,
        password: Option<String>,
    ) -> Result<Session, Failure> {
        let connection = Connection {
            origin: Origin::Secret,
            hosts: vec![Host {
                name: self.folder.clone(),
                address: None,
                port: PORT,
            }],
            database: database.to_owned(),
            user: user.to_owned(),
            password,
            tls: TlsMode::Disable,
            tls_versions: TlsVersions::default(),
            root_certificates: None,
            client_certificate: None,
            channel_binding: ChannelBinding::Disable,
            methods: None,
            options: None,
            search_path: None,
        };
        Session::connect(&connection, SearchPath::Catalog)
            .await
            .map_err(|failure| {
                environment_failure(
                    Reason::CloneFailed,
                    format!(
                        "The throwaway server that a backup is restored into cannot be reached ({}). If it ran out of \
                         memory, set database.clone.resources.",
                        shortened(&failure.message, 200)
                    ),
                )
            })
    }
}

/// What the copy has before the dump is restored into it.
#[derive(Default)]
struct Prepared {
    /// What of the dump is there already: OID of the catalog, OID in it.
    skip: Vec<(u32, u32)>,
    notes: Vec<String>,
}

async fn prepare(server: &Server<'_>, dump: &Dump<'_>) -> Result<Prepared, Failure> {
    let Dump { source, user, .. } = dump;
    let restorer = &server.started.restorer;
    let maintenance = server.superuser(MAINTENANCE).await?;
    maintenance
        .client()
        .batch_execute(&roles(source, user, dump.reads_all(), restorer))
        .await
        .map_err(|error| unlike("roles like the database's", &error))?;
    maintenance
        .client()
        .batch_execute(&database(source))
        .await
        .map_err(|error| unlike("a database of its encoding and locale", &error))?;
    drop(maintenance);
    let session = server.superuser(COPY).await?;
    let client = session.client();
    client
        .batch_execute(&rights(source, restorer))
        .await
        .map_err(|error| unlike("a database of its owner", &error))?;
    let mut prepared = Prepared::default();
    let extensions = source.extensions.iter();
    for extension in extensions.filter(|extension| !dump.without_extensions.contains(&extension.name)) {
        install(client, extension, &mut prepared).await?;
    }
    let omitted: Vec<_> = source
        .extensions
        .iter()
        .filter(|extension| dump.without_extensions.contains(&extension.name))
        .map(|extension| extension.name.as_str())
        .collect();
    if !omitted.is_empty() {
        prepared.notes.push(format!(
            "Restored without extension {}, as database.clone.withoutExtensions says.",
            omitted.join(", ")
        ));
    }
    client
        .batch_execute(&of_extensions(restorer))
        .await
        .map_err(|error| unlike("its extensions for a plain role", &error))?;
    Ok(prepared)
}

/// The statements that create the roles. None is a superuser and none has a password: the server has no other users, and
/// the code of a dump may use each of them. Policies hide rows from an owner too where a table says so, which would fail
/// the restore of a view.
fn roles(source: &Source, user: &str, reads_all: bool, restorer: &str) -> String {
    let mut names: Vec<&str> = source.roles.iter().map(String::as_str).collect();
    names.extend([source.owner.as_str(), user]);
    names.sort_unstable();
    names.dedup();
    let of_every_server = |name: &str| name.starts_with("pg_");
    names.retain(|name| !of_every_server(name));
    let mut sql = String::new();
    for name in &names {
        let login = if *name == user { "login" } else { "nologin" };
        sql.push_str(&format!("create role {} {login} bypassrls;\n", identifier(name)));
    }
    for (granted, member) in &source.memberships {
        if names.contains(&granted.as_str()) && names.contains(&member.as_str()) {
            sql.push_str(&format!(
                "grant {} to {};\n",
                identifier(granted),
                identifier(member)
            ));
        }
    }
    if reads_all {
        sql.push_str(&format!("grant pg_read_all_data to {};\n", identifier(user)));
    }
    // Whoever gives an object to a role must be a member of it.
    sql.push_str(&format!(
        "create role {} login bypassrls;\n",
        identifier(restorer)
    ));
    for name in &names {
        sql.push_str(&format!(
            "grant {} to {};\n",
            identifier(name),
            identifier(restorer)
        ));
    }
    sql
}

/// The statement that creates the copy.
fn database(source: &Source) -> String {
    let Source {
        owner,
        encoding,
        locale:
            Locale {
                provider,
                collate,
                ctype,
                name,
                rules,
            },
        ..
    } = source;
    let mut sql = format!(
        "create database {COPY} owner {} template template0 encoding {} lc_collate {} lc_ctype {}",
        identifier(owner),
        text(encoding),
        text(collate),
        text(ctype)
    );
    let given = match provider.as_str() {
        "i" => Some(("icu", "icu_locale")),
        "b" => Some(("builtin", "builtin_locale")),
        _ => None,
    };
    if let (Some((provider, option)), Some(name)) = (given, name) {
        sql.push_str(&format!(" locale_provider {provider} {option} {}", text(name)));
        if let Some(rules) = rules {
            sql.push_str(&format!(" icu_rules {}", text(rules)));
        }
    }
    sql
}

/// The statements after which a plain role can restore objects of several owners: whoever is given an object must be
/// allowed to create one in its schema, and the privileges by which the dump says so come last in it. `public` is nobody's
/// but the owner's since PostgreSQL 15.
fn rights(source: &Source, restorer: &str) -> String {
    let mut sql = format!(
        "alter default privileges for role {} grant usage, create on schemas to public;\n\
         grant create on database {COPY} to public;\n",
        identifier(restorer)
    );
    sql.push_str(match source.has_public {
        true => "grant usage, create on schema public to public;\n",
        false => "drop schema public;\n",
    });
    sql
}

/// The statement after which a plain role can restore what belongs to extensions, and cannot reach another server by them:
/// rows of their tables are the dump's, and their objects are the superuser's. A wrapper without a handler has no foreign
/// rows, and one without a validator takes every option.
fn of_extensions(restorer: &str) -> String {
    let callers: Vec<_> = CALLERS.iter().map(|name| text(name)).collect();
    format!(
        "do $do$ declare o record; begin
           for o in select c.oid::regclass as name, c.relkind from pg_class c join pg_depend d
             on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
             where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') loop
             execute format('grant all on %s %s to %I with grant option',
               case o.relkind when 'S' then 'sequence' else 'table' end, o.name, {restorer});
           end loop;
           for o in select d.objid::regprocedure as name from pg_depend d join pg_extension e
             on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
             where d.classid = 'pg_proc'::regclass and d.deptype = 'e' and e.extname in ({callers}) loop
             execute format('revoke all on routine %s from public', o.name);
           end loop;
           for o in select fdwname as name from pg_foreign_data_wrapper loop
             execute format('alter foreign data wrapper %I no handler no validator', o.name);
             execute format('grant usage on foreign data wrapper %I to public', o.name);
           end loop; end $do$",
        restorer = text(restorer),
        callers = callers.join(", ")
    )
}

/// Creates an extension in its schema.
async fn install(client: &Client, extension: &Extension, prepared: &mut Prepared) -> Result<(), Failure> {
    let Extension {
        name,
        version,
        schema,
        schema_oid,
        schema_owner,
    } = extension;
    let refused = |error| match may_pass(&error) {
        true => gone(&error),
        false => not_like_the_source(format!(
            "extension {name} cannot be created there ({}). Set what it needs in database.clone.settings, or name it in \
             database.clone.withoutExtensions",
            cause(&error)
        )),
    };
    let rows = client
        .query(
            "select version from pg_available_extension_versions where name = $1",
            &[name],
        )
        .await
        .map_err(refused)?;
    let versions: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    if versions.is_empty() {
        return Err(not_like_the_source(format!(
            "database.image has no extension {name}, which the database has. Set database.image to the image that the \
             server runs, or name the extension in database.clone.withoutExtensions"
        )));
    }
    let mut sql = String::new();
    if !OF_EVERY_DATABASE.contains(&schema.as_str()) {
        prepared.skip.push((SCHEMAS, *schema_oid));
        sql.push_str(&format!(
            "create schema if not exists {} authorization {};\n",
            identifier(schema),
            identifier(schema_owner)
        ));
        // Not by the default privileges of the role that restores.
        sql.push_str(&format!(
            "grant usage, create on schema {} to public;\n",
            identifier(schema)
        ));
    }
    sql.push_str(&format!(
        "create extension if not exists {} schema {}",
        identifier(name),
        identifier(schema)
    ));
    if versions.contains(&version.as_str()) {
        sql.push_str(&format!(" version {}", text(version)));
    } else {
        prepared.notes.push(format!(
            "Extension {name} has version {version} in the database, which database.image does not have; restored with \
             the image's own."
        ));
    }
    client.batch_execute(&sql).await.map_err(refused)
}

/// What is in the copy.
struct Found {
    fingerprint: String,
    tables: u64,
    bytes: u64,
}

async fn check(server: &Server<'_>, dump: &Dump<'_>) -> Result<Found, Failure> {
    let failed = |error| gone(&error);
    // The role whose tables the fingerprint of the database itself counted as its own.
    let mut session = server.session(COPY, dump.user, None).await?;
    let fingerprint = fingerprint::of_database(&mut session).await.map_err(failed)?;
    let row = session
        .client()
        .query_one(
            "select (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
               where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'), \
             pg_database_size(current_database())",
            &[],
        )
        .await
        .map_err(failed)?;
    let (tables, bytes): (i64, i64) = (row.get(0), row.get(1));
    Ok(Found {
        fingerprint,
        tables: tables.unsigned_abs(),
        bytes: bytes.unsigned_abs(),
    })
}

fn note_of_what_is_left_out(left_out: &[String], redactor: &Redactor) -> Option<String> {
    let shown = left_out.iter().take(NAMED).map(|object| {
        let printable: String = object.chars().filter(|c| !c.is_control()).collect();
        shortened(&redactor.line(&printable), NAME)
    });
    let shown: Vec<_> = shown.collect();
    match left_out.len() {
        0 => None,
        count if count > NAMED => Some(format!(
            "Left out of the restored copy: {} and {} more.",
            shown.join(", "),
            count - NAMED
        )),
        _ => Some(format!("Left out of the restored copy: {}.", shown.join(", "))),
    }
}

/// Whether an error comes from the state of the throwaway server rather than from what it was asked for: its end, or its
/// resources.
fn may_pass(error: &tokio_postgres::Error) -> bool {
    let classes = ["08", "53", "57"];
    error
        .code()
        .is_none_or(|code| classes.iter().any(|class| code.code().starts_with(class)))
}

fn gone(error: &tokio_postgres::Error) -> Failure {
    environment_failure(
        Reason::CloneFailed,
        format!(
            "The throwaway server that a backup is restored into did not answer ({}). If it ran out of memory, set \
             database.clone.resources.",
            cause(error)
        ),
    )
}

fn unlike(what: &str, error: &tokio_postgres::Error) -> Failure {
    match may_pass(error) {
        true => gone(error),
        false => not_like_the_source(format!(
            "the throwaway server cannot have {what} ({}). Set database.image to the image that the server runs",
            cause(error)
        )),
    }
}

/// The failure of a server that is not like the one that was backed up. The same dump would fail again.
fn not_like_the_source(why: String) -> Failure {
    version(
        Reason::BackupNotRestorable,
        format!("The dump was written and read back, but it cannot be restored: {why}."),
    )
}

/// A name as SQL writes it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL writes it. The agent's sessions have `standard_conforming_strings`.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source {
            owner: "crm".into(),
            encoding: "UTF8".into(),
            locale: Locale {
                provider: "c".into(),
                collate: "C.UTF-8".into(),
                ctype: "C.UTF-8".into(),
                name: None,
                rules: None,
            },
            reads_all: false,
            has_public: true,
            extensions: Vec::new(),
            roles: vec!["a\"b".into(), "crm".into(), "pg_monitor".into()],
            memberships: vec![("crm".into(), "a\"b".into()), ("pg_monitor".into(), "crm".into())],
        }
    }

    #[test]
    fn no_role_of_a_copy_is_more_than_a_plain_one() {
        let sql = roles(&source(), "crm", false, "r");
        assert_eq!(
            sql,
            "create role \"a\"\"b\" nologin bypassrls;\ncreate role \"crm\" login bypassrls;\n\
             grant \"crm\" to \"a\"\"b\";\ncreate role \"r\" login bypassrls;\ngrant \"a\"\"b\" to \"r\";\n\
             grant \"crm\" to \"r\";\n"
        );
    }

    #[test]
    fn the_locale_is_that_of_the_database() {
        let mut source = source();
        source.locale.provider = "i".into();
        source.locale.name = Some("pl'".into());
        let sql = database(&source);
        assert!(
            sql.ends_with("lc_ctype 'C.UTF-8' locale_provider icu icu_locale 'pl'''"),
            "{sql}"
        );
    }

    #[test]
    fn a_note_names_some_of_what_is_left_out() {
        let left_out: Vec<_> = (0..5)
            .map(|number| format!("EVENT TRIGGER - {number}\n"))
            .collect();
        let note = note_of_what_is_left_out(&left_out, &Redactor::new([])).unwrap();
        assert!(note.ends_with("EVENT TRIGGER - 2 and 2 more."), "{note}");
    }
}
