//! Connection strings as applications write them.
//!
//! The agent reads the same Secret as the application, so it must understand what the application's driver
//! understands: libpq's URLs and key-value strings, pgjdbc's URLs, Npgsql's pairs, and what other readers of
//! `postgres://` URLs add. What it does not understand it refuses by name: a key that is dropped could be the name of
//! the database, or what makes the connection safe. docs/connection-strings.md is this in a user's words.

use fairway_protocol as protocol;

use settings::Form;

pub(crate) mod authentication;
mod error;
mod keys;
pub(crate) mod pairs;
mod settings;
mod types;
mod url;

pub(crate) use error::ConnectionError;
pub(crate) use types::{
    APPLICATION_NAME, ChannelBinding, Connection, Host, Origin, TlsMode, TlsVersion, TlsVersions,
};

impl Connection {
    /// Reads the connection from the agent's variables: the string if it is there, its parts otherwise.
    pub(crate) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConnectionError> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(text) = given(protocol::DATABASE_URL_VARIABLE) {
            return Self::parse(&text);
        }
        let Some(host) = given(protocol::DATABASE_HOST_VARIABLE) else {
            return Err(ConnectionError::Nothing);
        };
        let mut parts = vec![("host".to_owned(), host)];
        for (key, name) in [
            ("port", protocol::DATABASE_PORT_VARIABLE),
            ("dbname", protocol::DATABASE_NAME_VARIABLE),
            ("user", protocol::DATABASE_USER_VARIABLE),
            ("password", protocol::DATABASE_PASSWORD_VARIABLE),
        ] {
            parts.extend(given(name).map(|value| (key.to_owned(), value)));
        }
        settings::connection(Form::Parts, parts)
    }

    /// Reads a connection string of any form.
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectionError> {
        // A Secret made with `echo` ends with a line break; no connection string can.
        let text = text.trim();
        if let Some(rest) = text.strip_prefix("jdbc:postgresql:") {
            return settings::connection(Form::Jdbc, url::jdbc(rest)?);
        }
        match text.split_once("://") {
            Some((scheme, rest)) if is_postgres_scheme(scheme) => {
                // A driver behind the scheme is SQLAlchemy's.
                let plus = match scheme.contains('+') {
                    true => url::Plus::Space,
                    false => url::Plus::Unknown,
                };
                settings::connection(Form::Url, url::postgres(rest, plus)?)
            }
            Some((scheme, _)) if !scheme.contains('=') => Err(ConnectionError::NotPostgres),
            _ if text.contains('=') => Self::parse_pairs(text),
            _ => Err(ConnectionError::NotPostgres),
        }
    }

    /// Reads pairs as libpq or as Npgsql. Where both could read them one of the readings is absurd: a host with a
    /// semicolon in its name, or no user.
    fn parse_pairs(text: &str) -> Result<Self, ConnectionError> {
        let by_libpq = pairs::libpq(text).and_then(|pairs| settings::connection(Form::Libpq, pairs));
        let by_npgsql = pairs::dot_net(text).and_then(|pairs| settings::connection(Form::Npgsql, pairs));
        match (by_libpq, by_npgsql) {
            (Ok(connection), Err(_)) | (Err(_), Ok(connection)) => Ok(connection),
            (Ok(one), Ok(other)) if one == other => Ok(one),
            (Ok(_), Ok(_)) => Err(ConnectionError::Ambiguous {
                part: "the whole".to_owned(),
                fix: "write it as a postgres:// URL",
            }),
            (Err(of_libpq), Err(of_npgsql)) => {
                let first = text.split(';').next().unwrap_or_default();
                match text.contains(';') && first.matches('=').count() == 1 {
                    true => Err(of_npgsql),
                    false => Err(of_libpq),
                }
            }
        }
    }
}

/// `postgres`, `postgresql`, and the forms with a driver's name: SQLAlchemy's `postgresql+asyncpg`, Django's
/// `postgis`, Ecto's `ecto`.
fn is_postgres_scheme(scheme: &str) -> bool {
    let dialect = scheme.split('+').next().unwrap_or(scheme).to_lowercase();
    ["postgres", "postgresql", "postgis", "pgsql", "psql", "ecto"].contains(&dialect.as_str())
}

#[cfg(test)]
mod tests;
