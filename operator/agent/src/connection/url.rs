//! URLs: `postgres://` as libpq, pgx, node-postgres, Prisma, SQLAlchemy, Django and Rails read it, and pgjdbc's.
//!
//! These readers agree on a URL whose special characters are encoded. Where they are not, some refuse what others read,
//! and the reading that is left counts; where two readings are left, the URL is refused.

use percent_encoding::percent_decode_str;

use super::{
    error::ConnectionError,
    keys::{self, Meaning},
    pairs::Pair,
};

/// What a `+` means in the query of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plus {
    /// A space, as in a form of a web page.
    Space,
    /// A space for some drivers, itself for others.
    Unknown,
}

/// Reads what follows `postgres://` into pairs with libpq's names. What a query says comes after what the URL says.
pub(super) fn postgres(rest: &str, plus: Plus) -> Result<Vec<Pair>, ConnectionError> {
    let (credentials, location) = split(rest)?;
    if location.contains('#') {
        return Err(ConnectionError::Ambiguous {
            part: "the part behind #".to_owned(),
            fix: "write # as %23",
        });
    }
    let (user, password) = credentials.map_or((None, None), |text| match text.split_once(':') {
        Some((user, password)) => (Some(user), Some(password)),
        None => (Some(text), None),
    });
    let (location, query) = location.split_once('?').unwrap_or((location, ""));
    let (authority, database) = match location.split_once('/') {
        Some((authority, database)) => (authority, Some(database)),
        None => (location, None),
    };
    let mut pairs = Vec::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            pairs.push((name.to_owned(), value));
        }
    };
    add("user", decoded(user.unwrap_or_default(), "user")?);
    add("password", decoded(password.unwrap_or_default(), "password")?);
    add("dbname", decoded(database.unwrap_or_default(), "database")?);
    let (hosts, ports) = hosts(authority)?;
    add("host", hosts.join(","));
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", ports.join(","));
    }
    for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(split_pair) {
        let name = decoded(name, "query")?;
        // Each is looked up before another one names it in a message.
        let before = pairs.last().map(|(name, _)| name.as_str());
        let meaning = keys::look_up(&name, &[keys::LIBPQ, keys::URL], before)?;
        if value.contains('+') && meaning != Meaning::Ignored && plus == Plus::Unknown {
            return Err(ConnectionError::Ambiguous {
                part: format!("the + in {name}"),
                fix: "write a space as %20 and + as %2B",
            });
        }
        pairs.push((name, decoded(&value.replace('+', " "), "query")?));
    }
    Ok(pairs)
}

/// Reads what follows `jdbc:postgresql:`.
pub(super) fn jdbc(rest: &str) -> Result<Vec<Pair>, ConnectionError> {
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    let location = location.strip_prefix("//");
    let (authority, database) = location
        .and_then(|location| location.split_once('/'))
        .ok_or(ConnectionError::Missing("host"))?;
    if authority.contains('@') {
        // pgjdbc looks for no role and no password there.
        return Err(ConnectionError::Unsupported(
            "a role before the host of a jdbc URL".to_owned(),
        ));
    }
    if database.contains('/') {
        return Err(ConnectionError::invalid("database"));
    }
    let (hosts, ports) = hosts(authority)?;
    let of_url = [
        ("PGHOST", hosts.join(",")),
        ("PGPORT", ports.join(",")),
        ("PGDBNAME", decoded(&database.replace('+', " "), "database")?),
    ];
    let of_url = of_url.map(|(name, value)| (name.to_owned(), value));
    let mut pairs: Vec<Pair> = of_url
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(split_pair) {
        pairs.push((name.to_owned(), decoded(&value.replace('+', " "), "query")?));
    }
    Ok(pairs)
}

/// The credentials, if there are any, and what follows them.
fn split(rest: &str) -> Result<(Option<&str>, &str), ConnectionError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let by_the_standard = match rest[..end].rfind('@') {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    let (credentials, location) = by_the_standard;
    let before_path = &rest[..rest.find('/').unwrap_or(rest.len())];
    let names_a_user = credentials.is_some() || location.contains("user=") || location.contains("username=");
    match (begins_with_hosts(location) && names_a_user, credentials) {
        // libpq ends the credentials at any `@` before the first slash.
        (true, None) if before_path.contains('@') => Err(ConnectionError::Ambiguous {
            part: "the part before @".to_owned(),
            fix: "write the @ of a password as %40",
        }),
        (true, _) => Ok(by_the_standard),
        (false, _) => Ok(lenient(rest).unwrap_or(by_the_standard)),
    }
}

/// Credentials with characters that end them by the standard: up to the first `@` behind which there is a host.
fn lenient(rest: &str) -> Option<(Option<&str>, &str)> {
    let ends = rest.match_indices('@').map(|(at, _)| at);
    let mut splits = ends.map(|at| (&rest[..at], &rest[at + 1..]));
    let (credentials, location) =
        splits.find(|(credentials, location)| credentials.contains(':') && begins_with_hosts(location))?;
    Some((Some(credentials), location))
}

/// Whether a text begins with nothing but hosts and ports, or with none before its path.
fn begins_with_hosts(text: &str) -> bool {
    let authority = &text[..text.find(['/', '?', '#']).unwrap_or(text.len())];
    hosts(authority).is_ok()
}

/// The hosts of a URL and their ports, which are empty where there are none.
fn hosts(authority: &str) -> Result<(Vec<String>, Vec<&str>), ConnectionError> {
    let parts = authority.split(',').filter(|_| !authority.is_empty());
    let both = parts.map(|part| {
        let (name, port) = split_port(part);
        let name = decoded(name, "host")?;
        match is_host(&name) && port.chars().all(|c| c.is_ascii_digit()) {
            true => Ok((name, port)),
            false if is_host(&name) => Err(ConnectionError::invalid("port")),
            false => Err(ConnectionError::invalid("host")),
        }
    });
    Ok(both.collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

/// A host without its brackets, and the port behind it.
pub(super) fn split_port(text: &str) -> (&str, &str) {
    if let Some((address, port)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return (address, port.strip_prefix(':').unwrap_or(port));
    }
    text.split_once(':').unwrap_or((text, ""))
}

/// Whether a text can be the name of a host, its address, or the folder of its socket.
pub(super) fn is_host(name: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let is_address = |c: char| c.is_ascii_alphanumeric() || ":.%-_".contains(c);
    match name.contains(':') {
        _ if name.starts_with('/') => true,
        true => name.matches(':').count() > 1 && name.chars().all(is_address),
        false => name.chars().all(is_name),
    }
}

fn split_pair(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Decodes `%XX`; a percent sign before anything else is itself, as for the drivers that do not refuse it.
fn decoded(text: &str, part: &str) -> Result<String, ConnectionError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) if !decoded.contains('\0') => Ok(decoded.into_owned()),
        _ => Err(ConnectionError::invalid(part)),
    }
}
