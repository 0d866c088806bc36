//! Loading a set into an empty database, as the database's owner and never as a superuser whose rights the dump's own code
//! (check constraints, functions of indexes, domains) could use: <https://www.postgresql.org/docs/current/app-pgrestore.html>.

use std::{process::Stdio, sync::Arc};

use fairway_health::tls::provider;
use fairway_protocol::{Failure, Reason};

use super::{
    rights::Role,
    server::{Server, Target, other},
    set::{Entry, Reader, Set, list_file, run},
    sql::{self, identifier, literal},
};
use crate::{
    backup::{
        decode::compare,
        diagnosis::not_connected,
        dump::by_name,
        tools::{Login, Tools},
    },
    blocking::blocking,
    connection::Connection,
    failure::{environment, version},
    output::Tail,
    redact::Redactor,
    session::{Session, statement_failed},
    text::hex,
};

/// The tables of the ledger, which the connection's role owns.
const LEDGER: [&str; 4] = ["owner", "migration_run", "ledger", "reverted_run"];

/// As whom a set is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum As {
    /// The connection's role, which is no superuser.
    Connection,
    /// A role of its own that can do what the owner can, because the connection's role is a superuser and could become one
    /// again whatever it sets.
    Member,
    /// The connection's role, a superuser, because the owner is one, too: only what superusers have made is loaded.
    Superuser,
}

impl As {
    fn of(role: Role, target: &Target) -> Self {
        match (role.is_superuser, target.owner_is_superuser) {
            (false, _) => Self::Connection,
            (true, false) => Self::Member,
            (true, true) => Self::Superuser,
        }
    }
}

/// What is loaded, and where.
pub(super) struct Load<'a> {
    pub(super) server: &'a Server<'a>,
    pub(super) reader: &'a Reader<'a>,
    pub(super) set: &'a Set,
    pub(super) tools: &'a Tools,
    pub(super) major: u32,
    pub(super) target: &'a Target,
    pub(super) role: Role,
    /// The empty database.
    pub(super) database: &'a str,
}

/// A part of the dump, and with what ownership it is loaded.
struct Part<'a> {
    entries: Vec<Entry>,
    arguments: &'a [&'static str],
}

impl Load<'_> {
    /// Loads everything.
    pub(super) async fn everything(&self) -> Result<(), Failure> {
        let session = self.server.session_in(self.database).await?;
        let created_schemas = self.extensions(&session).await?;
        let whole = self.set.contents.only(|entry| {
            !entry.is_extension()
                && !entry.is_comment_on_extension()
                && !created_schemas.iter().any(|schema| entry.is_schema(schema))
        });
        match As::of(self.role, self.target) {
            As::Connection => {
                let connection = other(self.server.connection, self.database);
                self.part(
                    &connection,
                    Part {
                        entries: whole,
                        arguments: &[],
                    },
                )
                .await
            }
            As::Member => {
                let member = self.create_member().await?;
                let (ledger, others): (Vec<_>, Vec<_>) = whole.into_iter().partition(Entry::may_be_of_ledger);
                let loaded = async {
                    self.part(
                        &member,
                        Part {
                            entries: others,
                            arguments: &[],
                        },
                    )
                    .await?;
                    if ledger.is_empty() {
                        return Ok(());
                    }
                    // It belongs to a superuser, to whom no other role can give anything.
                    let arguments = &["--no-owner"];
                    self.part(
                        &member,
                        Part {
                            entries: ledger,
                            arguments,
                        },
                    )
                    .await?;
                    self.own_ledger(&session).await
                };
                let loaded = loaded.await;
                let removed = self.server.drop_loader(&member.user).await;
                loaded.and(removed)
            }
            As::Superuser => {
                let connection = other(self.server.connection, self.database);
                let part = |arguments: &'static [&'static str]| Part {
                    entries: whole.clone(),
                    arguments,
                };
                // Definitions run nothing; rows and indexes do.
                self.part(&connection, part(&["--section=pre-data"])).await?;
                only_of_superusers(&session).await?;
                self.part(&connection, part(&["--section=data", "--section=post-data"]))
                    .await
            }
        }
    }

    /// Creates the extensions, with their schemas; returns the schemas that did not exist.
    async fn extensions(&self, session: &Session) -> Result<Vec<String>, Failure> {
        let mut created = Vec::new();
        for extension in &self.set.extensions {
            let doing = |error| {
                statement_failed(
                    &format!("creating the extension {} beside", extension.name),
                    &error,
                )
            };
            let client = session.client();
            let exists = client
                .query_one(
                    "select to_regnamespace(quote_ident($1)) is not null",
                    &[&extension.schema],
                )
                .await
                .map_err(doing)?;
            let schema = identifier(&extension.schema);
            if !exists.get::<_, bool>(0) {
                let owner = identifier(&self.target.owner);
                let create = format!("create schema {schema} authorization {owner}");
                client.batch_execute(&create).await.map_err(doing)?;
                created.push(extension.schema.clone());
            }
            let create = format!(
                "create extension if not exists {} with schema {schema}",
                identifier(&extension.name)
            );
            client.batch_execute(&create).await.map_err(doing)?;
        }
        Ok(created)
    }

    /// Lets `pg_restore` load a part.
    async fn part(&self, connection: &Connection, part: Part<'_>) -> Result<(), Failure> {
        let list = list_file(&part.entries)?;
        let login = Login::new(connection.clone(), self.major)?;
        let mut command = self.tools.command("pg_restore", &login);
        command
            .args(["--exit-on-error", "--no-password", "--no-subscriptions"])
            .args(part.arguments)
            .arg("--use-list")
            .arg(list.path())
            .arg(format!("--dbname={}", by_name(&connection.database)))
            .stdout(Stdio::null());
        if connection.user != self.server.connection.user {
            command.arg("--role").arg(&self.target.owner);
        }
        let stored = self.set.manifest.database.clone();
        let input = match self.set.folder() {
            Some(folder) => {
                command.args(["--format=directory", "--jobs=2"]).arg(folder);
                None
            }
            None => {
                command.arg("--format=custom").stdin(Stdio::piped());
                Some(self.reader.store.read(self.reader.set, stored.objects()).await?)
            }
        };
        let (redactor, programs) = (self.reader.redactor.clone(), self.reader.programs.clone());
        blocking(move || {
            // Its files must be there until the program has ended.
            let _files = (list, &login);
            let ((status, errors), read) =
                run(&mut command, input, &programs).map_err(|error| not_run(&error))?;
            // What the store returned this time must be what was proven.
            if let Some(read) = read {
                compare(&stored, read)?;
            }
            match status.success() {
                true => Ok(()),
                false => Err(failed(&errors, &redactor)),
            }
        })
        .await
    }

    /// Creates the role that loads, and returns its connection.
    async fn create_member(&self) -> Result<Connection, Failure> {
        let name = sql::loader(&self.reader.task.restore_uid);
        self.server.drop_loader(&name).await?;
        let password = random()?;
        // The server never sees the password itself, nor do its logs.
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let doing = |error| statement_failed("creating the role that loads the backup", &error);
        let until: String = self
            .server
            .client()
            .query_one("select (clock_timestamp() + interval '2 days')::text", &[])
            .await
            .map_err(doing)?
            .get(0);
        let create = format!(
            "create role {} login nosuperuser nocreatedb nocreaterole inherit password {} valid until {} in role {}",
            identifier(&name),
            literal(&verifier),
            literal(&until),
            identifier(&self.target.owner)
        );
        self.server.client().batch_execute(&create).await.map_err(doing)?;
        let member = Connection {
            user: name.clone(),
            password: Some(password),
            client_certificate: None,
            ..other(self.server.connection, self.database)
        };
        match Session::connect(&member, crate::session::SearchPath::Catalog).await {
            Ok(_) => Ok(member),
            Err(failure) => {
                self.server.drop_loader(&name).await?;
                Err(environment(
                    failure.reason,
                    format!(
                        "The backup is not loaded as a superuser, but as {name}, a member of the database's owner that \
                         exists meanwhile, and that role cannot log in: {} Let pg_hba.conf admit it by its password, or let \
                         database.connection name the owner.",
                        failure.message
                    ),
                ))
            }
        }
    }

    /// Gives the ledger back to the connection's role.
    async fn own_ledger(&self, session: &Session) -> Result<(), Failure> {
        let doing = |error| statement_failed("restoring the ledger's owner", &error);
        let rows = session
            .client()
            .query(
                "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = 'fairway' and c.relkind = 'r' and c.relname = any($1)",
                &[&LEDGER.as_slice()],
            )
            .await
            .map_err(doing)?;
        if rows.is_empty() {
            return Ok(());
        }
        let tables = rows.iter().map(|row| {
            format!(
                "alter table fairway.{} owner to current_user",
                identifier(row.get(0))
            )
        });
        let statements: Vec<_> = std::iter::once("alter schema fairway owner to current_user".to_owned())
            .chain(tables)
            .collect();
        session
            .client()
            .batch_execute(&statements.join("; "))
            .await
            .map_err(doing)
    }
}

impl Server<'_> {
    /// Removes the role that loaded a set, if it is there.
    pub(super) async fn drop_loader(&self, name: &str) -> Result<(), Failure> {
        let doing = |error| statement_failed("removing the role that loaded the backup", &error);
        let found = self
            .client()
            .query_opt(
                "select (select count(pg_terminate_backend(a.pid)) from pg_stat_activity a where a.usesysid = r.oid) \
                 from pg_roles r where r.rolname = $1 and not r.rolsuper",
                &[&name],
            )
            .await
            .map_err(doing)?;
        if found.is_none() {
            return Ok(());
        }
        self.client()
            .batch_execute(&format!("drop role {}", identifier(name)))
            .await
            .map_err(doing)
    }
}

/// Proves that nothing in the database belongs to a role that is no superuser: what it has made would run as one.
async fn only_of_superusers(session: &Session) -> Result<(), Failure> {
    let rows = session
        .client()
        .query(
            "select r.rolname::text from pg_roles r where not r.rolsuper and r.rolname !~ '^pg_' and ( \
               exists (select from pg_class c where c.relowner = r.oid) \
               or exists (select from pg_proc p where p.proowner = r.oid) \
               or exists (select from pg_type t where t.typowner = r.oid) \
               or exists (select from pg_operator o where o.oprowner = r.oid)) \
             order by 1 limit 5",
            &[],
        )
        .await
        .map_err(|error| statement_failed("looking at the owners in the restored database", &error))?;
    let owners: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    match owners.is_empty() {
        true => Ok(()),
        false => Err(version(
            Reason::RestoreFailed,
            format!(
                "Objects in the backup belong to {}, and the owner of the database is a superuser: loading them would run \
                 what these roles have written with a superuser's rights. Make a role that is no superuser the owner of the \
                 database, or restore it by hand.",
                owners.join(", ")
            ),
        )),
    }
}

fn random() -> Result<String, Failure> {
    let mut bytes = [0; 24];
    provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| environment(Reason::AgentFailed, "The system has no random numbers."))?;
    Ok(hex(&bytes))
}

fn not_run(error: &std::io::Error) -> Failure {
    environment(
        Reason::RestoreFailed,
        format!("pg_restore could not be run: {error}. Check database.image."),
    )
}

/// The failure that the errors of `pg_restore` mean.
fn failed(errors: &Tail, redactor: &Arc<Redactor>) -> Failure {
    let line = errors
        .last_error(redactor)
        .unwrap_or_else(|| "without an error message".to_owned());
    if let Some(failure) = not_connected("pg_restore", errors, &line) {
        return failure;
    }
    let passes = [
        "No space left on device",
        "could not extend file",
        "out of shared memory",
    ];
    match errors.any(|line| passes.iter().any(|words| line.contains(words))) {
        true => environment(
            Reason::RestoreFailed,
            format!(
                "The database server had no room for the restored database ({line}). Enlarge its volume."
            ),
        ),
        false => version(
            Reason::RestoreFailed,
            format!(
                "pg_restore could not load the backup beside the database in use ({line}). The database in use was not \
                 touched. Fix what the error names, then create a new Restore."
            ),
        ),
    }
}
