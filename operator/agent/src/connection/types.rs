//! A connection, whatever its string was.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf};

use super::authentication::{Method, Methods};

/// The name by which the agent's sessions, and those of its tools, are distinguished from the application's.
pub(crate) const APPLICATION_NAME: &str = "fairway-agent";

/// How to reach a database. Its `Debug` and `Display` never show the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Where its parts are written, which decides what messages show of them.
    pub(crate) origin: Origin,
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
    /// The versions of TLS that are accepted.
    pub(crate) tls_versions: TlsVersions,
    /// File with the certificate authorities to trust instead of the system's.
    pub(crate) root_certificates: Option<PathBuf>,
    /// Files with the client's certificate and key.
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
    /// Whether the password exchange must be bound to the TLS channel.
    pub(crate) channel_binding: ChannelBinding,
    /// The methods by which the server may ask for the password; any where the connection does not say.
    pub(crate) methods: Option<Methods>,
    /// Server options (`-c name=value`) that the application asks for.
    pub(crate) options: Option<String>,
    /// The schemas in which the application works, as a list that the server reads. None where the server decides.
    pub(crate) search_path: Option<String>,
}

/// Where a connection is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In one string, in a Secret: messages show neither its hosts nor its role.
    Secret,
    /// In the fields of `database.connection`, which everybody sees who sees the App. The role is in a Secret.
    Fields,
}

/// One address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Name, address or socket folder.
    pub(crate) name: String,
    /// Address to connect to without asking for that of the name.
    pub(crate) address: Option<IpAddr>,
    /// TCP port, or the number in the socket's name.
    pub(crate) port: u16,
}

/// libpq's `sslmode`, <https://www.postgresql.org/docs/current/libpq-ssl.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// The versions of TLS that a connection accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsVersions {
    /// libpq's `ssl_min_protocol_version`.
    pub(crate) least: Option<TlsVersion>,
    /// libpq's `ssl_max_protocol_version`.
    pub(crate) most: Option<TlsVersion>,
}

impl TlsVersion {
    /// A lower limit. Below 1.2 it is none: the agent speaks nothing older.
    pub(super) fn parse_least(text: &str) -> Option<Option<Self>> {
        match text.to_lowercase().as_str() {
            "tlsv1" | "tlsv1.1" => Some(None),
            _ => Self::parse_most(text),
        }
    }

    pub(super) fn parse_most(text: &str) -> Option<Option<Self>> {
        match text.to_lowercase().as_str() {
            "tlsv1.2" => Some(Some(Self::V1_2)),
            "tlsv1.3" => Some(Some(Self::V1_3)),
            _ => None,
        }
    }

    pub(super) fn as_libpq(self) -> &'static str {
        match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        }
    }
}

impl ChannelBinding {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_lowercase().as_str() {
            "disable" => Some(Self::Disable),
            "prefer" => Some(Self::Prefer),
            "require" => Some(Self::Require),
            _ => None,
        }
    }

    pub(super) fn as_libpq(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

impl TlsMode {
    pub(super) fn as_libpq(self) -> &'static str {
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
    /// The key that the fewest versions of libpq enforce, and PostgreSQL's version with which it came. Older ones ignore
    /// its variable.
    pub(crate) fn needs_libpq(&self) -> Option<(&'static str, u32)> {
        let binds = self.channel_binding == ChannelBinding::Require;
        // Only a proof by SCRAM can be bound to the channel.
        let implied = |methods: &Methods| binds && methods.accept(Method::ScramSha256);
        match (&self.methods, self.tls_versions) {
            (Some(methods), _) if !implied(methods) => Some(("require_auth", 16)),
            _ if binds => Some(("channel_binding", 13)),
            (
                _,
                TlsVersions {
                    least: None,
                    most: None,
                },
            ) => None,
            _ => Some(("ssl_min_protocol_version or ssl_max_protocol_version", 13)),
        }
    }

    /// Where the server is, for messages: nothing when only a Secret says it, else ` at host:port`.
    pub(crate) fn place(&self) -> String {
        match self.origin {
            Origin::Secret => String::new(),
            Origin::Fields => format!(" at {}", self.address()),
        }
    }

    /// A text of the server or of a program without what only a Secret says: the role and, where they come from one
    /// string, the hosts.
    pub(crate) fn conceal(&self, text: &str) -> String {
        self.secret_names().iter().fold(text.to_owned(), |text, name| {
            crate::text::without_word(&text, name)
        })
    }

    /// The names that only a Secret says, besides the password. One without a letter or digit says nothing, and would be
    /// found in every text.
    pub(crate) fn secret_names(&self) -> Vec<String> {
        let hosts = self.hosts.iter().filter(|_| self.origin == Origin::Secret);
        let addresses = hosts
            .clone()
            .filter_map(|host| host.address.map(|address| address.to_string()));
        hosts
            .map(|host| host.name.clone())
            .chain(addresses)
            .chain([self.user.clone()])
            .filter(|name| name.contains(char::is_alphanumeric))
            .collect()
    }

    /// `host:port` of every host.
    pub(super) fn address(&self) -> String {
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
        if self.hosts.iter().any(|host| host.address.is_some()) {
            let address = |host: &Host| {
                host.address
                    .map(|address| address.to_string())
                    .unwrap_or_default()
            };
            variables.insert("PGHOSTADDR", join(address));
        }
        for (name, version) in [
            ("PGSSLMINPROTOCOLVERSION", self.tls_versions.least),
            ("PGSSLMAXPROTOCOLVERSION", self.tls_versions.most),
        ] {
            variables.extend(version.map(|version| (name, version.as_libpq().to_owned())));
        }
        if let Some(methods) = &self.methods {
            variables.insert("PGREQUIREAUTH", methods.as_libpq());
        }
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
        variables.insert("PGCHANNELBINDING", self.channel_binding.as_libpq().to_owned());
        variables
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            hosts,
            database,
            user,
            password,
            tls,
            tls_versions,
            root_certificates,
            client_certificate,
            channel_binding,
            methods,
            options,
            search_path,
        } = self;
        f.debug_struct("Connection")
            .field("origin", origin)
            .field("hosts", hosts)
            .field("database", database)
            .field("user", user)
            .field("password", &password.as_ref().map(|_| "***"))
            .field("tls", tls)
            .field("tls_versions", tls_versions)
            .field("root_certificates", root_certificates)
            .field("client_certificate", &client_certificate.as_ref().map(|_| "***"))
            .field("channel_binding", channel_binding)
            .field("methods", methods)
            .field("options", options)
            .field("search_path", search_path)
            .finish()
    }
}
