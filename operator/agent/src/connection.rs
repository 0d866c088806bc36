//! Connection strings as applications write them.
//!
//! The agent reads the same Secret as the application, so it must understand what the application's driver
//! understands: libpq's URLs and key-value strings, Prisma's and other libraries' extra parameters, driver
//! names in the scheme. It ignores parameters that it does not know, as those drivers do.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use fairway_protocol as protocol;
use percent_encoding::percent_decode_str;

/// The port of a server when the connection names none: PostgreSQL's default.
const DEFAULT_PORT: u16 = 5432;
/// The name by which the agent's sessions, and those of its tools, are distinguished from the application's.
pub(crate) const APPLICATION_NAME: &str = "fairway-agent";

/// How to reach a database. Its `Debug` and `Display` never show the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Hosts in the order in which they are tried; a host that starts with `/` is a socket folder.
    pub(crate) hosts: Vec<Host>,
    /// Database name.
    pub(crate) database: String,
    /// Role.
    pub(crate) user: String,
    /// Password, if any.
    pub(crate) password: Option<String>,
    /// What TLS must prove.
    pub(crate) tls: TlsMode,
    /// File with the certificate authorities to trust instead of the system's.
    pub(crate) root_certificates: Option<PathBuf>,
    /// Files with the client's certificate and key.
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
    /// Whether the password exchange must be bound to the TLS channel.
    pub(crate) channel_binding: ChannelBinding,
    /// Server options (`-c name=value`) that the application asks for.
    pub(crate) options: Option<String>,
    /// The schemas in which the application works: Prisma's `schema`, which is one, or the lists that are JDBC's
    /// `currentSchema` and Npgsql's `Search Path`. Empty when the server decides.
    pub(crate) schemas: Vec<String>,
}

/// One address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Name, address or socket folder.
    pub(crate) name: String,
    /// TCP port, or the number in the socket's name.
    pub(crate) port: u16,
}

/// libpq's `sslmode`, <https://www.postgresql.org/docs/current/libpq-ssl.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS when the server has it, nothing verified.
    Prefer,
    /// TLS, nothing verified.
    Require,
    /// TLS, and the certificate must be signed by a trusted authority.
    VerifyCa,
    /// As `VerifyCa`, and it must name the host.
    VerifyFull,
}

/// libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    Prefer,
    /// Always.
    Require,
}

/// Why a connection string cannot be used. The text names the part, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("neither a connection string nor its parts are given")]
    Nothing,
    #[error("the connection string is neither a postgres:// URL nor a list of key=value pairs")]
    NotPostgres,
    #[error("the connection string names no {0}")]
    Missing(&'static str),
    #[error("the connection string's {0} is not valid")]
    Invalid(&'static str),
}

impl TlsMode {
    fn parse(text: &str) -> Result<Self, ConnectionError> {
        match text {
            "disable" => Ok(Self::Disable),
            "allow" | "prefer" => Ok(Self::Prefer),
            // node-postgres knows `no-verify`; Prisma and libpq mean by `require` just encryption.
            "require" | "no-verify" => Ok(Self::Require),
            // Npgsql writes them in one word.
            "verify-ca" | "verifyca" => Ok(Self::VerifyCa),
            "verify-full" | "verifyfull" => Ok(Self::VerifyFull),
            _ => Err(ConnectionError::Invalid("sslmode")),
        }
    }

    fn as_libpq(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

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
        let mut parts = BTreeMap::from([("host".to_owned(), host)]);
        for (key, name) in [
            ("port", protocol::DATABASE_PORT_VARIABLE),
            ("dbname", protocol::DATABASE_NAME_VARIABLE),
            ("user", protocol::DATABASE_USER_VARIABLE),
            ("password", protocol::DATABASE_PASSWORD_VARIABLE),
        ] {
            if let Some(value) = given(name) {
                parts.insert(key.to_owned(), value);
            }
        }
        Self::from_parameters(&parts)
    }

    /// Reads a URL or a key-value string.
    pub(crate) fn parse(text: &str) -> Result<Self, ConnectionError> {
        // A Secret made with `echo` ends with a line break; no connection string can.
        let text = text.trim();
        let text = text.strip_prefix("jdbc:").unwrap_or(text);
        match text.split_once("://") {
            Some((scheme, rest)) if is_postgres_scheme(scheme) => {
                Self::from_parameters(&url_parameters(rest)?)
            }
            Some(_) if !text.contains('=') => Err(ConnectionError::NotPostgres),
            _ if text.contains('=') => Self::from_parameters(&key_value_parameters(text)?),
            _ => Err(ConnectionError::NotPostgres),
        }
    }

    fn from_parameters(parameters: &BTreeMap<String, String>) -> Result<Self, ConnectionError> {
        let get = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| parameters.get(*name))
                .filter(|value| !value.is_empty())
                .cloned()
        };
        let user = get(&["user", "username", "user id", "uid"]).ok_or(ConnectionError::Missing("user"))?;
        let hosts = hosts(
            &get(&["host", "server", "hostaddr"]).ok_or(ConnectionError::Missing("host"))?,
            get(&["port"]).as_deref(),
        )?;
        let root_certificates = get(&["sslrootcert", "root certificate"]).filter(|path| path != "system");
        let certificate = get(&["sslcert"]);
        let key = get(&["sslkey"]);
        // Prisma's `sslcert` is the server's authority; with a key beside it, it is libpq's client certificate.
        let (root_certificates, client_certificate) = match (certificate, key) {
            (Some(certificate), Some(key)) => (root_certificates, Some((certificate.into(), key.into()))),
            (Some(certificate), None) => (root_certificates.or(Some(certificate)), None),
            (None, _) => (root_certificates, None),
        };
        Ok(Self {
            hosts,
            database: get(&["dbname", "database"]).unwrap_or_else(|| user.clone()),
            password: get(&["password", "pwd"]),
            tls: tls_mode(&get, root_certificates.is_some())?,
            root_certificates: root_certificates.map(PathBuf::from),
            client_certificate,
            channel_binding: match get(&["channel_binding"]).as_deref() {
                Some("require") => ChannelBinding::Require,
                Some("disable") => ChannelBinding::Disable,
                _ => ChannelBinding::Prefer,
            },
            options: get(&["options"]),
            schemas: match (get(&["schema"]), get(&["currentschema", "search path"])) {
                (Some(one), _) => vec![one],
                (None, Some(list)) => list.split(',').map(unquoted).collect(),
                (None, None) => Vec::new(),
            },
            user,
        })
    }

    /// `host:port` of every host, for messages.
    pub(crate) fn address(&self) -> String {
        let one = |host: &Host| match host.name.contains(':') && !host.name.starts_with('/') {
            true => format!("[{}]:{}", host.name, host.port),
            false => format!("{}:{}", host.name, host.port),
        };
        self.hosts.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// What PostgreSQL's own programs need in their environment to reach the same database; nothing of it
    /// may be an argument, because arguments can be read by every process of the node.
    pub(crate) fn libpq_variables(&self) -> BTreeMap<&'static str, String> {
        let join = |part: fn(&Host) -> String| self.hosts.iter().map(part).collect::<Vec<_>>().join(",");
        let mut variables = BTreeMap::from([
            ("PGHOST", join(|host| host.name.clone())),
            ("PGPORT", join(|host| host.port.to_string())),
            ("PGDATABASE", self.database.clone()),
            ("PGUSER", self.user.clone()),
            ("PGSSLMODE", self.tls.as_libpq().to_owned()),
            ("PGAPPNAME", APPLICATION_NAME.to_owned()),
            ("PGCONNECT_TIMEOUT", "10".to_owned()),
        ]);
        if let Some(password) = &self.password {
            variables.insert("PGPASSWORD", password.clone());
        }
        if let Some(options) = &self.options {
            variables.insert("PGOPTIONS", options.clone());
        }
        if let Some(path) = &self.root_certificates {
            variables.insert("PGSSLROOTCERT", path.display().to_string());
        }
        if let Some((certificate, key)) = &self.client_certificate {
            variables.insert("PGSSLCERT", certificate.display().to_string());
            variables.insert("PGSSLKEY", key.display().to_string());
        }
        if self.hosts.len() > 1 {
            variables.insert("PGTARGETSESSIONATTRS", "read-write".to_owned());
        }
        if self.channel_binding == ChannelBinding::Require {
            variables.insert("PGCHANNELBINDING", "require".to_owned());
        }
        variables
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("hosts", &self.hosts)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("tls", &self.tls)
            .field("root_certificates", &self.root_certificates)
            .field(
                "client_certificate",
                &self.client_certificate.as_ref().map(|_| "***"),
            )
            .field("channel_binding", &self.channel_binding)
            .field("options", &self.options)
            .field("schemas", &self.schemas)
            .finish()
    }
}

/// A name of a list as SQL writes it; unlike SQL, case is kept for drivers that quote it themselves.
fn unquoted(name: &str) -> String {
    let name = name.trim();
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// `postgres`, `postgresql`, and the forms with a driver's name: SQLAlchemy's `postgresql+asyncpg`, Django's
/// `postgis`, Ecto's `ecto`.
fn is_postgres_scheme(scheme: &str) -> bool {
    let dialect = scheme.split('+').next().unwrap_or(scheme);
    ["postgres", "postgresql", "postgis", "pgsql", "psql", "ecto"].contains(&dialect)
}

fn decode(text: &str, part: &'static str) -> Result<String, ConnectionError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| ConnectionError::Invalid(part))
}

/// Splits what follows `://` into libpq's parameter names.
fn url_parameters(rest: &str) -> Result<BTreeMap<String, String>, ConnectionError> {
    let mut parameters = BTreeMap::new();
    let rest = rest
        .split('#')
        .next()
        .filter(|before| before.contains('/'))
        .unwrap_or(rest);
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    // The last `@`, so that a password with an `@` or `/` that was not encoded still works, as in most drivers.
    let (credentials, location) = match location.rsplit_once('@') {
        Some((credentials, location)) => (Some(credentials), location),
        None => (None, location),
    };
    if let Some(credentials) = credentials {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        parameters.insert("user".to_owned(), decode(user, "user")?);
        parameters.insert("password".to_owned(), decode(password, "password")?);
    }
    let (authority, database) = location.split_once('/').unwrap_or((location, ""));
    parameters.insert(
        "dbname".to_owned(),
        decode(database.trim_end_matches('/'), "database name")?,
    );
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for part in authority.split(',').filter(|part| !part.is_empty()) {
        let (name, port) = split_port(part);
        names.push(decode(name.trim_matches(['[', ']']), "host")?);
        ports.push(port.unwrap_or_default().to_owned());
    }
    parameters.insert("host".to_owned(), names.join(","));
    parameters.insert("port".to_owned(), ports.join(","));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.insert(decode(name, "query")?.to_lowercase(), decode(value, "query")?);
    }
    Ok(parameters)
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // `[::1]` has colons of its own.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

/// Reads libpq's `key=value` form with its quotes, and the `Key=Value;` form of .NET.
pub(crate) fn key_value_parameters(text: &str) -> Result<BTreeMap<String, String>, ConnectionError> {
    let mut parameters = BTreeMap::new();
    if text.contains(';') && !text.contains('\'') {
        for pair in text.split(';').filter(|pair| !pair.trim().is_empty()) {
            let (name, value) = pair.split_once('=').ok_or(ConnectionError::NotPostgres)?;
            parameters.insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
        return Ok(parameters);
    }
    let mut characters = text.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none() {
            return Ok(parameters);
        }
        let name: String = std::iter::from_fn(|| characters.next_if(|c| *c != '=')).collect();
        if characters.next().is_none() {
            return Err(ConnectionError::NotPostgres);
        }
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = characters.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match characters.next() {
                Some('\\') => value.extend(characters.next()),
                Some('\'') if quoted => break,
                None if quoted => return Err(ConnectionError::Invalid("quoting")),
                Some(c) if c.is_whitespace() && !quoted => break,
                Some(c) => value.push(c),
                None => break,
            }
        }
        parameters.insert(name.trim().to_lowercase(), value);
    }
}

fn hosts(names: &str, ports: Option<&str>) -> Result<Vec<Host>, ConnectionError> {
    let ports = ports
        .unwrap_or_default()
        .split(',')
        .map(|port| match port.trim() {
            "" => Ok(DEFAULT_PORT),
            port => port.parse().map_err(|_| ConnectionError::Invalid("port")),
        })
        .collect::<Result<Vec<u16>, _>>()?;
    let names: Vec<_> = names.split(',').map(|name| name.trim().to_owned()).collect();
    // As in libpq: one port serves all hosts, otherwise there is one for each.
    if ports.len() != 1 && ports.len() != names.len() {
        return Err(ConnectionError::Invalid("port"));
    }
    Ok(names
        .into_iter()
        .enumerate()
        .map(|(index, name)| Host {
            name,
            port: ports.get(index).copied().unwrap_or(ports[0]),
        })
        .collect())
}

fn tls_mode(
    get: &impl Fn(&[&str]) -> Option<String>,
    has_root_certificates: bool,
) -> Result<TlsMode, ConnectionError> {
    let mode = match (get(&["sslmode", "ssl mode"]), get(&["ssl"]).as_deref()) {
        (Some(mode), _) => TlsMode::parse(&mode.to_lowercase())?,
        (None, Some("true" | "1" | "require")) => TlsMode::Require,
        (None, Some("false" | "0")) => TlsMode::Disable,
        (None, _) => TlsMode::Prefer,
    };
    Ok(match mode {
        // libpq: with a root certificate, `require` behaves as `verify-ca`.
        TlsMode::Require if get(&["sslaccept"]).as_deref() == Some("strict") => TlsMode::VerifyFull,
        TlsMode::Require if has_root_certificates && get(&["sslaccept"]).is_none() => TlsMode::VerifyCa,
        mode => mode,
    })
}

#[cfg(test)]
mod tests;
