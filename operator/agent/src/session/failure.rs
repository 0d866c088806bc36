//! What an unsuccessful attempt to connect means.

use std::error::Error as _;

use fairway_protocol::{Failure, Reason};
use tokio_postgres::error::{DbError, SqlState};

use crate::{connection::Connection, failure::environment, values};

pub(super) fn unreachable(connection: &Connection, why: &str) -> Failure {
    environment(
        Reason::DatabaseUnreachable,
        format!(
            "The database server{} cannot be reached ({}). Check host and port in database.connection, that the server \
             runs, and that network policies let this namespace reach it.",
            connection.place(),
            connection.conceal(why)
        ),
    )
}

/// The failure that an unsuccessful attempt to connect means.
pub(super) fn refusal(connection: &Connection, error: &tokio_postgres::Error) -> Failure {
    let Some(database) = error.as_db_error() else {
        return refusal_by_client(connection, error);
    };
    let (place, message) = (connection.place(), connection.conceal(database.message()));
    if lacks_entry(error) {
        return environment(
            Reason::PasswordRejected,
            format!(
                "The pg_hba.conf of the database server{place} does not admit this connection ({message}). Add an entry \
                 there for the role, the database and the addresses of pods; one for hostssl needs sslmode=require in the \
                 connection string, one for hostnossl sslmode=disable."
            ),
        );
    }
    match database.code() {
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => environment(
            Reason::PasswordRejected,
            format!(
                "The database server{place} rejected the role or its password ({message}). Correct user and password in \
                 the Secret that database.connection names."
            ),
        ),
        &SqlState::INVALID_CATALOG_NAME => environment(
            Reason::DatabaseMissing,
            format!(
                "The database server{place} has no database {:?}. Create it, or correct database.connection.",
                connection.database
            ),
        ),
        &SqlState::PROTOCOL_VIOLATION if message.contains("startup parameter") => pooler(connection),
        code => unreachable(connection, &format!("it answered {}: {message}", code.code())),
    }
}

fn refusal_by_client(connection: &Connection, error: &tokio_postgres::Error) -> Failure {
    let (place, cause) = (connection.place(), connection.conceal(&cause(error)));
    if is_of_tls(error) {
        return environment(
            Reason::TlsFailed,
            format!(
                "The TLS handshake with the database server{place} failed ({cause}). Check sslmode and sslrootcert in the \
                 connection string."
            ),
        );
    }
    if cause.contains("require_auth") || cause.contains("channel binding") {
        return environment(
            Reason::ConnectionInvalid,
            format!(
                "The database server{place} does not prove what the connection string requires ({cause}). Change \
                 require_auth or channel_binding in the Secret that database.connection names, or password_encryption and \
                 pg_hba.conf of the server."
            ),
        );
    }
    if cause.contains("password missing") {
        return environment(
            Reason::PasswordRejected,
            format!(
                "The database server{place} requires a password and the connection has none. Add it to the Secret that \
                 database.connection names."
            ),
        );
    }
    unreachable(connection, &cause)
}

/// The refusal of a connection that goes through a pooler.
pub(crate) fn pooler(connection: &Connection) -> Failure {
    environment(
        Reason::TransactionPooler,
        format!(
            "The connection to the database server{} goes through a transaction pooler, which cannot hold the migration \
             lock. Set database.connection to the server's direct address.",
            connection.place()
        ),
    )
}

/// The innermost cause of an error of the driver, without values of rows.
pub(crate) fn cause(error: &tokio_postgres::Error) -> String {
    if let Some(database) = error.as_db_error() {
        return values::message(database);
    }
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    match error.source() {
        Some(_) => inner.to_string(),
        None => error.to_string(),
    }
}

/// Whether the server has no rule for such a connection by this role.
pub(super) fn lacks_entry(error: &tokio_postgres::Error) -> bool {
    let message = error.as_db_error().map(DbError::message).unwrap_or_default();
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) && message.contains("pg_hba.conf")
}

/// Whether TLS itself failed.
pub(super) fn is_of_tls(error: &tokio_postgres::Error) -> bool {
    let (message, cause) = (error.to_string(), cause(error));
    message.contains("TLS") || cause.contains("TLS") || cause.contains("certificate")
}
