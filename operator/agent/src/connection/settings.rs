//! What the keys of a connection string amount to.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use super::{
    authentication::Methods,
    error::ConnectionError,
    keys::{self, Meaning},
    pairs::Pair,
    types::{ChannelBinding, Connection, Host, Origin, TlsMode, TlsVersion, TlsVersions},
    url,
};

/// The port of a server when the connection names none: PostgreSQL's default.
const DEFAULT_PORT: u16 = 5432;
/// Who reads a string of this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// libpq's pairs, which libpq reads, and pgx.
    Libpq,
    /// A URL, which almost all drivers read.
    Url,
    /// A URL that names pgjdbc.
    Jdbc,
    /// Npgsql's pairs.
    Npgsql,
    /// The fields of `database.connection`.
    Parts,
}

impl Form {
    fn key(self, name: &str, before: Option<&str>) -> Result<Meaning, ConnectionError> {
        match self {
            Self::Libpq | Self::Parts => keys::look_up(name, &[keys::LIBPQ], before),
            Self::Url => keys::look_up(name, &[keys::LIBPQ, keys::URL], before),
            Self::Jdbc => keys::look_up(name, &[keys::JDBC], before),
            // Npgsql knows each key by two names, of which one has no spaces, and looks at no capital letters.
            Self::Npgsql => {
                let plain: String = name.to_lowercase().split_whitespace().collect();
                keys::look_up(&plain, &[keys::NPGSQL], before).map_err(|error| match error {
                    ConnectionError::Unknown(_) => ConnectionError::Unknown(name.to_owned()),
                    ConnectionError::Unsupported(_) => ConnectionError::Unsupported(name.to_owned()),
                    error => error,
                })
            }
        }
    }

    /// The name of a key as messages show it.
    fn shown(self, name: String) -> String {
        match self {
            Self::Npgsql => name.split_whitespace().collect::<Vec<_>>().join(" "),
            Self::Libpq | Self::Parts | Self::Url | Self::Jdbc => name,
        }
    }

    /// Whether the readers of this form agree that the last of several values counts.
    fn last_value_counts(self) -> bool {
        self != Self::Url
    }
}

/// The values of a connection string by their meaning, each with the name under which it was given.
struct Settings(BTreeMap<&'static str, (String, String)>);

impl Settings {
    fn read(form: Form, pairs: Vec<Pair>) -> Result<Self, ConnectionError> {
        let mut settings = Self(BTreeMap::new());
        let mut before: Option<String> = None;
        for (name, value) in pairs {
            let name = form.shown(name);
            let key = form.key(&name, before.as_deref())?;
            before = Some(name.clone());
            let slot = match key {
                Meaning::Ignored | Meaning::Refused => continue,
                Meaning::Only(values) if values.contains(&value.as_str()) => continue,
                Meaning::Only(_) => {
                    return Err(ConnectionError::Unsupported(format!("this value of {name}")));
                }
                key => slot(key),
            };
            settings.insert(form, slot, name, value)?;
        }
        Ok(settings)
    }

    fn insert(
        &mut self,
        form: Form,
        slot: &'static str,
        name: String,
        value: String,
    ) -> Result<(), ConnectionError> {
        if value.is_empty() && !matches!(slot, "ssl mode" | "ssl" | "require auth") {
            // .NET removes a key by an empty value; elsewhere it means the default.
            if form.last_value_counts() {
                self.0.remove(slot);
            }
            return Ok(());
        }
        match self.0.get_mut(slot) {
            Some((_, earlier)) if *earlier == value => {}
            // Of several hosts SQLAlchemy makes a list; a socket's folder replaces the host that a URL must have.
            Some((_, earlier))
                if form == Form::Url
                    && slot == "host"
                    && !value.starts_with('/')
                    && has_port(&value)
                    && has_port(earlier) =>
            {
                *earlier = format!("{earlier},{value}");
            }
            Some(earlier) if form.last_value_counts() || (slot == "host" && value.starts_with('/')) => {
                *earlier = (name, value);
            }
            Some(_) => return Err(ConnectionError::Twice(name)),
            None => {
                self.0.insert(slot, (name, value));
            }
        }
        Ok(())
    }

    fn get(&self, key: Meaning) -> Option<&str> {
        self.0.get(slot(key)).map(|(_, value)| value.as_str())
    }

    /// The refusal of the value that a key has here, by the name under which it was given.
    fn invalid(&self, key: Meaning) -> ConnectionError {
        let name = self.0.get(slot(key)).map_or("value", |(name, _)| name);
        ConnectionError::invalid(name)
    }

    /// The value of a key, read from its text.
    fn parsed<T>(
        &self,
        key: Meaning,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConnectionError> {
        let value = self.get(key);
        value
            .map(|text| read(text).ok_or_else(|| self.invalid(key)))
            .transpose()
    }
}

/// The one place for keys that say the same.
fn slot(key: Meaning) -> &'static str {
    match key {
        Meaning::Host => "host",
        Meaning::HostAddress => "host address",
        Meaning::Port => "port",
        Meaning::Database => "database",
        Meaning::User => "user",
        Meaning::Password => "password",
        Meaning::SslMode => "ssl mode",
        Meaning::Ssl => "ssl",
        Meaning::RequireSsl => "require ssl",
        Meaning::SslAccept => "ssl accept",
        Meaning::SslFactory => "ssl factory",
        Meaning::RootCertificates => "root certificates",
        Meaning::Certificate => "certificate",
        Meaning::CertificateKey => "certificate key",
        Meaning::ChannelBinding => "channel binding",
        Meaning::RequireAuth => "require auth",
        Meaning::LeastTls => "least tls",
        Meaning::MostTls => "most tls",
        Meaning::Options => "options",
        Meaning::Role => "role",
        Meaning::SearchPath | Meaning::Schema => "search path",
        Meaning::TargetSession => "target session",
        Meaning::Only(_) | Meaning::Ignored | Meaning::Refused => "nothing",
    }
}

fn has_port(host: &str) -> bool {
    host.split(',').all(|host| !url::split_port(host).1.is_empty())
}

/// The connection that a list of pairs describes.
pub(super) fn connection(form: Form, pairs: Vec<Pair>) -> Result<Connection, ConnectionError> {
    let schema = pairs
        .iter()
        .rfind(|(name, _)| form == Form::Url && name == "schema")
        .cloned();
    let settings = Settings::read(form, pairs)?;
    let (tls, root_certificates) = tls(form, &settings)?;
    let client_certificate = match (
        settings.get(Meaning::Certificate),
        settings.get(Meaning::CertificateKey),
    ) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        // Prisma's, which is the server's authority.
        (Some(_), None) if settings.get(Meaning::SslAccept).is_some() => None,
        (Some(_), None) => return Err(ConnectionError::Missing("sslkey beside its client certificate")),
        (None, Some(_)) => return Err(ConnectionError::Missing("sslcert beside its client key")),
    };
    target_session(&settings)?;
    let role = settings
        .get(Meaning::Role)
        .map(|role| format!("-c role={}", escaped(role)));
    let options = [settings.get(Meaning::Options).map(str::to_owned), role];
    let options = options.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let named = |key, part| {
        settings
            .get(key)
            .map(str::to_owned)
            .ok_or(ConnectionError::Missing(part))
    };
    let hosts = hosts(form, &settings)?;
    let tls_versions = TlsVersions {
        least: settings
            .parsed(Meaning::LeastTls, TlsVersion::parse_least)?
            .flatten(),
        most: settings
            .parsed(Meaning::MostTls, TlsVersion::parse_most)?
            .flatten(),
    };
    if let TlsVersions {
        least: Some(TlsVersion::V1_3),
        most: Some(TlsVersion::V1_2),
    } = tls_versions
    {
        return Err(settings.invalid(Meaning::LeastTls));
    }
    Ok(Connection {
        origin: match form {
            Form::Parts => Origin::Fields,
            _ => Origin::Secret,
        },
        hosts,
        user: named(Meaning::User, "user")?,
        database: named(Meaning::Database, "database")?,
        password: settings.get(Meaning::Password).map(str::to_owned),
        tls,
        tls_versions,
        root_certificates,
        client_certificate,
        channel_binding: settings
            .parsed(Meaning::ChannelBinding, ChannelBinding::parse)?
            .unwrap_or(ChannelBinding::Prefer),
        methods: settings.parsed(Meaning::RequireAuth, Methods::parse)?.flatten(),
        options: (!options.is_empty()).then_some(options),
        search_path: match schema {
            Some((_, schema)) if !schema.is_empty() => Some(format!("\"{}\"", schema.replace('"', "\"\""))),
            _ => settings.get(Meaning::SearchPath).map(str::to_owned),
        },
    })
}

/// A value of the server's options: white space in it would end it.
fn escaped(value: &str) -> String {
    let escape = |c: char| match c == '\\' || c.is_whitespace() {
        true => format!("\\{c}"),
        false => c.to_string(),
    };
    value.chars().map(escape).collect()
}

fn hosts(form: Form, settings: &Settings) -> Result<Vec<Host>, ConnectionError> {
    let addresses = settings.parsed(Meaning::HostAddress, |text| {
        text.split(',')
            .map(|address| address.trim().parse().ok())
            .collect::<Option<Vec<IpAddr>>>()
    })?;
    let names = match (settings.get(Meaning::Host), &addresses) {
        (Some(names), _) => names.split(',').map(|name| name.trim().to_owned()).collect(),
        (None, Some(addresses)) => addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
        (None, None) => return Err(ConnectionError::Missing("host")),
    };
    // SQLAlchemy and Npgsql write a port behind each host.
    let may_have_ports = matches!(form, Form::Url | Form::Npgsql);
    let split =
        |name: &String| match may_have_ports && !name.starts_with('/') && name.matches(':').count() < 2
            || name.starts_with('[')
        {
            true => {
                let (name, port) = url::split_port(name);
                (name.to_owned(), port.to_owned())
            }
            false => (name.clone(), String::new()),
        };
    let parts: Vec<_> = names.iter().map(split).collect();
    if parts
        .iter()
        .any(|(name, _)| name.is_empty() || !url::is_host(name))
    {
        return Err(settings.invalid(Meaning::Host));
    }
    let ports: Vec<_> = settings
        .get(Meaning::Port)
        .unwrap_or_default()
        .split(',')
        .collect();
    // As in libpq: one port serves all hosts, otherwise there is one for each.
    if ports.len() != 1 && ports.len() != parts.len() {
        return Err(settings.invalid(Meaning::Port));
    }
    if addresses
        .as_ref()
        .is_some_and(|addresses| addresses.len() != parts.len())
    {
        return Err(settings.invalid(Meaning::HostAddress));
    }
    let port_at = |index: usize| ports.get(index).unwrap_or(&ports[0]).trim();
    let host = |(index, (name, own)): (usize, (String, String))| {
        let port = match (own.as_str(), port_at(index)) {
            ("", "") => Some(DEFAULT_PORT),
            ("", port) | (port, _) => port.parse().ok().filter(|port| *port > 0),
        };
        Ok(Host {
            name,
            address: addresses
                .as_ref()
                .and_then(|addresses| addresses.get(index).copied()),
            port: port.ok_or_else(|| ConnectionError::invalid("port"))?,
        })
    };
    parts.into_iter().enumerate().map(host).collect()
}

/// What TLS must prove, and by which authorities.
fn tls(form: Form, settings: &Settings) -> Result<(TlsMode, Option<PathBuf>), ConnectionError> {
    let mode = settings.parsed(Meaning::SslMode, |text| mode(form, text))?;
    let ssl = settings
        .parsed(Meaning::Ssl, |text| switch(form, text))?
        .flatten();
    let required = settings.parsed(Meaning::RequireSsl, |text| match text {
        "1" => Some(TlsMode::Require),
        "0" => Some(TlsMode::Prefer),
        _ => None,
    })?;
    let chosen = mode.or(ssl).or(required);
    let authorities = settings.get(Meaning::RootCertificates);
    let of_prisma = settings
        .get(Meaning::Certificate)
        .filter(|_| settings.get(Meaning::CertificateKey).is_none());
    let file = authorities
        .filter(|path| *path != "system")
        .or(of_prisma)
        .map(PathBuf::from);
    if authorities == Some("system") {
        // As libpq since PostgreSQL 16: anybody can have a certificate of a public authority.
        return match chosen {
            None | Some(TlsMode::VerifyFull) => Ok((TlsMode::VerifyFull, None)),
            Some(_) => Err(ConnectionError::Unsupported(
                "an sslmode other than verify-full with sslrootcert=system".to_owned(),
            )),
        };
    }
    if form == Form::Url && chosen.is_none() && authorities.is_some() {
        return Err(ConnectionError::Ambiguous {
            part: "sslrootcert without sslmode".to_owned(),
            fix: "add sslmode=verify-full",
        });
    }
    let chosen = chosen.unwrap_or(TlsMode::Prefer);
    if settings
        .get(Meaning::SslFactory)
        .is_some_and(|class| class.ends_with(".NonValidatingFactory"))
    {
        return Ok((chosen.min(TlsMode::Require), file));
    }
    if settings
        .get(Meaning::SslFactory)
        .is_some_and(|class| !class.ends_with(".LibPQFactory"))
    {
        return Err(ConnectionError::Unsupported(
            "this value of sslfactory".to_owned(),
        ));
    }
    // Prisma takes any other value for `strict`.
    let strict = settings
        .get(Meaning::SslAccept)
        .map(|rule| rule != "accept_invalid_certs");
    let mode = match (chosen, strict) {
        (TlsMode::Require | TlsMode::VerifyCa, Some(true)) => TlsMode::VerifyFull,
        (TlsMode::Prefer, Some(true)) => {
            return Err(ConnectionError::Unsupported(
                "sslaccept without sslmode=require".to_owned(),
            ));
        }
        // libpq: with a file of authorities `require` behaves as `verify-ca`.
        (TlsMode::Require, None) if file.is_some() => TlsMode::VerifyCa,
        (mode, _) => mode,
    };
    Ok((mode, file))
}

fn mode(form: Form, text: &str) -> Option<TlsMode> {
    let lower = text.to_lowercase();
    // libpq and pgx read capital letters as another word.
    let text = if matches!(form, Form::Jdbc | Form::Npgsql) {
        lower.as_str()
    } else {
        text
    };
    match text {
        "disable" => Some(TlsMode::Disable),
        "allow" | "prefer" => Some(TlsMode::Prefer),
        "require" => Some(TlsMode::Require),
        "verify-ca" => Some(TlsMode::VerifyCa),
        "verify-full" => Some(TlsMode::VerifyFull),
        "verifyca" if form == Form::Npgsql => Some(TlsMode::VerifyCa),
        "verifyfull" if form == Form::Npgsql => Some(TlsMode::VerifyFull),
        // node-postgres: TLS, and any certificate.
        "no-verify" if form == Form::Url => Some(TlsMode::Require),
        _ => None,
    }
}

/// A driver's switch for TLS. Those of pgjdbc and node-postgres verify; libpq's and pgx's, by the same name, do not, and
/// connect wherever a certificate is valid. asyncpg and postgres.js give it the words of `sslmode`.
fn switch(form: Form, text: &str) -> Option<Option<TlsMode>> {
    match (form, text) {
        (Form::Jdbc, "") => Some(Some(TlsMode::VerifyFull)),
        (Form::Jdbc, text) if text.eq_ignore_ascii_case("true") => Some(Some(TlsMode::VerifyFull)),
        (Form::Jdbc, text) => text.eq_ignore_ascii_case("false").then_some(None),
        (_, "true" | "1") => Some(Some(TlsMode::VerifyFull)),
        (_, "false" | "0") => Some(Some(TlsMode::Disable)),
        (form, text) => mode(form, text).map(Some),
    }
}

/// A migration writes: a connection for reading is not the one to give to Fairway.
fn target_session(settings: &Settings) -> Result<(), ConnectionError> {
    const WRITABLE: [&str; 6] = [
        "any",
        "primary",
        "master",
        "read-write",
        "prefer-primary",
        "preferprimary",
    ];
    match settings.get(Meaning::TargetSession).map(str::to_lowercase) {
        Some(target) if !WRITABLE.contains(&target.as_str()) => Err(settings.invalid(Meaning::TargetSession)),
        _ => Ok(()),
    }
}
