//! The server on which a database is restored, seen from its maintenance database: while databases are created, renamed and
//! dropped, no session may be in them.

use std::time::Duration;

use fairway_protocol::{Failure, Reason};
use tokio::time::Instant;
use tokio_postgres::{Client, error::SqlState};

use super::{
    mark::{Mark, State},
    sql::{identifier, literal, setting},
};
use crate::{
    connection::Connection,
    failure::environment,
    lock::pooled,
    session::{SearchPath, Session, pooler, statement_failed},
};

/// Databases that are there on nearly every server and hold nothing; the first that is not the one to restore.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
/// First half of the key of the lock of a restore: the bytes of `fwrs`. The second is the oid of a database.
const LOCK: i64 = 0x6677_7273;
/// Longest time to wait for the lock of another pod of this restore, which may just be ending.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time for which sessions may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time for which sessions may go on that the role may not end.
const DENIED_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause between two queries.
const PAUSE: Duration = Duration::from_millis(50);

/// A session in the maintenance database.
pub(super) struct Server<'a> {
    /// How the database in use is reached.
    pub(super) connection: &'a Connection,
    pub(super) session: Session,
}

/// A database that was looked for by name.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) oid: u32,
    /// The comment on it.
    pub(super) comment: Option<String>,
}

impl Database {
    /// What this Restore wrote on it.
    pub(super) fn mark(&self, restore_uid: &str) -> Option<Mark> {
        Mark::parse(self.comment.as_deref()?, restore_uid)
    }
}

/// The database in use, with all that its name does not carry and a restored one must have too.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) oid: u32,
    pub(super) comment: Option<String>,
    pub(super) owner: String,
    pub(super) owner_is_superuser: bool,
    /// Encoding, locale and tablespace, as `CREATE DATABASE` takes them.
    options: String,
    /// The tablespace, where it is not the default one.
    pub(super) tablespace: Option<String>,
    connection_limit: i32,
    /// Grantee (none is everybody), privilege, and whether it may be granted on.
    grants: Vec<(Option<String>, String, bool)>,
    /// The role for which it holds (none is all), and the setting.
    pub(super) settings: Vec<(Option<String>, String)>,
}

impl Target {
    /// Statements that give a database the settings of this one.
    pub(super) fn settings_for(&self, name: &str) -> Vec<String> {
        let database = identifier(name);
        let subject = |role: &Option<String>| match role {
            Some(role) => format!("alter role {} in database {database}", identifier(role)),
            None => format!("alter database {database}"),
        };
        let mut roles: Vec<_> = self.settings.iter().map(|(role, _)| role.clone()).collect();
        roles.push(None);
        roles.sort();
        roles.dedup();
        let resets = roles.iter().map(|role| format!("{} reset all", subject(role)));
        let sets = self
            .settings
            .iter()
            .map(|(role, text)| format!("{} {}", subject(role), setting(text)));
        resets.chain(sets).collect()
    }

    /// Statements that give a database the privileges and the connection limit of this one.
    pub(super) fn grants_for(&self, name: &str) -> Vec<String> {
        let (database, owner) = (identifier(name), identifier(&self.owner));
        let mut statements = vec![
            format!("revoke all on database {database} from public, {owner}"),
            format!(
                "alter database {database} connection limit {}",
                self.connection_limit
            ),
        ];
        for (grantee, privilege, grantable) in &self.grants {
            let grantee = grantee.as_deref().map_or_else(|| "public".to_owned(), identifier);
            let option = if *grantable { " with grant option" } else { "" };
            statements.push(format!(
                "grant {privilege} on database {database} to {grantee}{option}"
            ));
        }
        statements
    }

    /// The statement that creates an empty database like this one.
    pub(super) fn creation_of(&self, name: &str) -> String {
        let (name, owner) = (identifier(name), identifier(&self.owner));
        format!(
            "create database {name} owner {owner} template template0{}",
            self.options
        )
    }
}

impl<'a> Server<'a> {
    /// Connects to the maintenance database, which is the same for every agent: the lock is there.
    pub(super) async fn connect(connection: &'a Connection) -> Result<Self, Failure> {
        let mut missing = None;
        for name in MAINTENANCE.iter().filter(|name| **name != connection.database) {
            match Session::connect(&other(connection, name), SearchPath::Catalog).await {
                Ok(session) => {
                    // The lock would stay with a session of the pooler's.
                    if pooled(&other(connection, name), &session).await? {
                        return Err(pooler(connection));
                    }
                    return Ok(Self { connection, session });
                }
                Err(failure) if failure.reason == Reason::DatabaseMissing => missing = Some(failure),
                Err(failure) if failure.message.contains(SqlState::INSUFFICIENT_PRIVILEGE.code()) => {
                    return Err(environment(
                        Reason::RestoreNotPermitted,
                        format!(
                            "A restore in place works from the database {name}, to which the role of database.connection \
                             may not connect. In psql, as a superuser, with that role in place of ROLE, run: GRANT CONNECT \
                             ON DATABASE {name} TO ROLE;"
                        ),
                    ));
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(missing.unwrap_or_else(|| {
            environment(
                Reason::RestoreNotPermitted,
                "The server has no database postgres, from which a restore in place works. Create it.",
            )
        }))
    }

    pub(super) fn client(&self) -> &Client {
        self.session.client()
    }

    /// A session in another database of the server.
    pub(super) async fn session_in(&self, database: &str) -> Result<Session, Failure> {
        Session::connect(&other(self.connection, database), SearchPath::Catalog).await
    }

    /// The database of that name.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Database>, Failure> {
        let row = self
            .client()
            .query_opt(
                "select oid, shobj_description(oid, 'pg_database') from pg_database where datname = $1",
                &[&name],
            )
            .await
            .map_err(|error| statement_failed("looking for the restored database", &error))?;
        Ok(row.map(|row| Database {
            oid: row.get(0),
            comment: row.get(1),
        }))
    }

    /// The database in use.
    pub(super) async fn target(&self) -> Result<Target, Failure> {
        let doing = |error| statement_failed("reading the database's properties", &error);
        let name = &self.connection.database;
        // The names of some columns are those of one major version.
        let row = self
            .client()
            .query_opt(
                "select d.oid, shobj_description(d.oid, 'pg_database'), r.rolname::text, r.rolsuper, d.datconnlimit, \
                   t.spcname::text, pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text, \
                   to_jsonb(d) ->> 'datlocprovider', \
                   coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'), to_jsonb(d) ->> 'daticurules' \
                 from pg_database d join pg_roles r on r.oid = d.datdba join pg_tablespace t on t.oid = d.dattablespace \
                 where d.datname = $1",
                &[name],
            )
            .await
            .map_err(doing)?;
        let Some(row) = row else {
            return Err(environment(
                Reason::DatabaseMissing,
                format!(
                    "The database server{} has no database {name:?}. Correct database.connection.",
                    self.connection.place()
                ),
            ));
        };
        let oid: u32 = row.get(0);
        let tablespace = Some(row.get::<_, String>(5)).filter(|name| name != "pg_default");
        let mut options = format!(
            " encoding {} lc_collate {} lc_ctype {}",
            literal(row.get(6)),
            literal(row.get(7)),
            literal(row.get(8))
        );
        let locale = row.get::<_, Option<&str>>(10).map(literal).unwrap_or_default();
        match row.get::<_, Option<&str>>(9) {
            Some("i") => {
                options += &format!(" locale_provider icu icu_locale {locale}");
                if let Some(rules) = row.get::<_, Option<&str>>(11) {
                    options += &format!(" icu_rules {}", literal(rules));
                }
            }
            Some("b") => options += &format!(" locale_provider builtin builtin_locale {locale}"),
            Some(_) => options += " locale_provider libc",
            None => {}
        }
        if let Some(tablespace) = &tablespace {
            options += &format!(" tablespace {}", identifier(tablespace));
        }
        let grants = self
            .client()
            .query(
                "select g.rolname::text, a.privilege_type, a.is_grantable from pg_database d \
                 cross join lateral aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) as a \
                 left join pg_roles g on g.oid = a.grantee where d.oid = $1",
                &[&oid],
            )
            .await
            .map_err(doing)?;
        let settings = self
            .client()
            .query(
                "select r.rolname::text, c.line from pg_db_role_setting s cross join lateral unnest(s.setconfig) as c (line) \
                 left join pg_roles r on r.oid = s.setrole where s.setdatabase = $1",
                &[&oid],
            )
            .await
            .map_err(doing)?;
        Ok(Target {
            name: name.clone(),
            oid,
            comment: row.get(1),
            owner: row.get(2),
            owner_is_superuser: row.get(3),
            options,
            tablespace,
            connection_limit: row.get(4),
            grants: grants
                .iter()
                .map(|row| (row.get(0), row.get(1), row.get(2)))
                .collect(),
            settings: settings.iter().map(|row| (row.get(0), row.get(1))).collect(),
        })
    }

    /// Takes the lock of restores of that database, until this session ends.
    ///
    /// # Errors
    /// When another session has it for too long.
    pub(super) async fn lock(&self, oid: u32) -> Result<(), Failure> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            let row = self
                .client()
                .query_one(
                    "select pg_try_advisory_lock($1)",
                    &[&((LOCK << 32) | i64::from(oid))],
                )
                .await
                .map_err(|error| statement_failed("taking the lock of the restore", &error))?;
            if row.get(0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(environment(
                    Reason::WaitingForRestore,
                    "Another pod is restoring this database. Wait until it has ended.",
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The database in use, under the lock of its restores.
    pub(super) async fn locked_target(&self) -> Result<Target, Failure> {
        loop {
            let target = self.target().await?;
            self.lock(target.oid).await?;
            // Another one may have been put in its place while the lock was waited for.
            if self.target().await?.oid == target.oid {
                return Ok(target);
            }
        }
    }

    /// Writes the mark on a database.
    pub(super) async fn mark(&self, name: &str, mark: &Mark, state: State) -> Result<(), Failure> {
        self.client()
            .batch_execute(&comment_on(name, Some(&mark.in_state(state).comment())))
            .await
            .map_err(|error| statement_failed("writing on the restored database what it is", &error))
    }

    /// Opens the database in use, and the restored one beside it, again after a swap that did not end.
    pub(super) async fn reopen(&self, beside: &str, mark: &Mark) -> Result<(), Failure> {
        let (name, quoted) = (identifier(&self.connection.database), identifier(beside));
        let restored = mark.in_state(State::Restored).comment();
        // Sent together, they are one transaction.
        self.client()
            .batch_execute(&format!(
                "alter database {name} with allow_connections true; \
                 alter database {quoted} with allow_connections true; {}",
                comment_on(beside, Some(&restored))
            ))
            .await
            .map_err(|error| statement_failed("opening the database again", &error))
    }

    /// Ends all sessions in these databases but those of the agent's own that are named, and waits until they have ended.
    ///
    /// # Errors
    /// `SessionsRemain` when some cannot be ended.
    pub(super) async fn end_sessions(&self, databases: &[u32], except: &[i32]) -> Result<(), Failure> {
        let doing = |error| statement_failed("ending the sessions in the database", &error);
        let start = Instant::now();
        loop {
            // Those without a role are the server's own, which ends them itself.
            let left = self
                .client()
                .query(
                    "select a.pid, coalesce(a.usename::text, '') from pg_stat_activity a where a.datid = any($1) \
                     and a.usesysid is not null and a.pid <> all($2) order by 1",
                    &[&databases, &except],
                )
                .await
                .map_err(doing)?;
            if left.is_empty() {
                return Ok(());
            }
            for row in &left {
                let (pid, role): (i32, &str) = (row.get(0), row.get(1));
                let ended = self
                    .client()
                    .query_one("select pg_terminate_backend($1)", &[&pid])
                    .await;
                let (limit, why) = match ended {
                    Ok(_) => (END_TIMEOUT, "It was asked to end and did not"),
                    // It may be about to end by itself.
                    Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => (
                        DENIED_TIMEOUT,
                        "The role of database.connection may not end it: grant it pg_signal_backend, which is enough for \
                         sessions of roles that are not superusers",
                    ),
                    Err(error) => return Err(doing(error)),
                };
                if start.elapsed() > limit {
                    return Err(remains(pid, &self.connection.conceal(role), why));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Drops a database of this restore, by its name; the caller has seen its mark.
    pub(super) async fn drop_database(&self, name: &str, oid: u32) -> Result<(), Failure> {
        let doing = |error| statement_failed("dropping a restored database that is not needed", &error);
        self.end_sessions(&[oid], &[]).await?;
        self.client()
            .batch_execute("set statement_timeout = 0")
            .await
            .map_err(doing)?;
        let dropped = self
            .client()
            .batch_execute(&format!("drop database {}", identifier(name)))
            .await;
        dropped.map_err(doing)?;
        self.client()
            .batch_execute("set statement_timeout = 60000")
            .await
            .map_err(doing)
    }
}

fn remains(pid: i32, role: &str, why: &str) -> Failure {
    environment(
        Reason::SessionsRemain,
        format!("A session of role {role} is still in the database (pid {pid}). {why}. Stop what uses it."),
    )
}

/// The statement that writes, or removes, the comment on a database.
pub(super) fn comment_on(name: &str, comment: Option<&str>) -> String {
    let comment = comment.map_or_else(|| "null".to_owned(), literal);
    format!("comment on database {} is {comment}", identifier(name))
}

/// This connection to another database.
pub(super) fn other(connection: &Connection, database: &str) -> Connection {
    Connection {
        database: database.to_owned(),
        ..connection.clone()
    }
}
