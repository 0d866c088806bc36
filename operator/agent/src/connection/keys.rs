//! The keys of connection strings, form by form. What is in no table is refused by its name.

use super::error::ConnectionError;

/// What a key of a connection string says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Host,
    HostAddress,
    Port,
    Database,
    User,
    Password,
    SslMode,
    /// A driver's switch for TLS.
    Ssl,
    /// libpq's old switch for TLS.
    RequireSsl,
    /// Prisma's rule for the server's certificate.
    SslAccept,
    /// The class that verifies in Java.
    SslFactory,
    RootCertificates,
    Certificate,
    CertificateKey,
    ChannelBinding,
    RequireAuth,
    LeastTls,
    MostTls,
    Options,
    /// The role whose rights a session takes.
    Role,
    /// A list of schemas as the server reads it.
    SearchPath,
    /// One schema, as it is.
    Schema,
    TargetSession,
    /// A key that may have these values alone: with others it would ask for what Fairway does not do.
    Only(&'static [&'static str]),
    /// Pools, timeouts, names: nothing that changes which database is used, or how securely.
    Ignored,
    /// A key that drivers know, and Fairway does not follow.
    Refused,
}

use Meaning::{
    Certificate, CertificateKey, ChannelBinding, Database, Host, HostAddress, Ignored, LeastTls, MostTls,
    Only, Options, Password, Port, Refused, RequireAuth, RequireSsl, Role, RootCertificates, Schema,
    SearchPath, Ssl, SslAccept, SslFactory, SslMode, TargetSession, User,
};

/// A form's keys.
type Table = &'static [(&'static [&'static str], Meaning)];

const FALSE: Meaning = Only(&["false", "False", "off", "no", "0"]);

/// libpq up to PostgreSQL 18, <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>.
pub(super) const LIBPQ: Table = &[
    (&["host"], Host),
    (&["hostaddr"], HostAddress),
    (&["port"], Port),
    (&["dbname"], Database),
    (&["user"], User),
    (&["password"], Password),
    (&["sslmode"], SslMode),
    (&["requiressl"], RequireSsl),
    (&["sslrootcert"], RootCertificates),
    (&["sslcert"], Certificate),
    (&["sslkey"], CertificateKey),
    (&["channel_binding"], ChannelBinding),
    (&["require_auth"], RequireAuth),
    (&["ssl_min_protocol_version"], LeastTls),
    (&["ssl_max_protocol_version"], MostTls),
    (&["options"], Options),
    (&["target_session_attrs"], TargetSession),
    (&["gssencmode"], Only(&["disable", "prefer"])),
    (&["gssdelegation"], Only(&["0"])),
    (&["sslnegotiation"], Only(&["postgres"])),
    (&["sslcertmode"], Only(&["allow"])),
    (&["replication"], FALSE),
    (&["min_protocol_version"], Only(&["3.0"])),
    (
        &[
            "application_name",
            "fallback_application_name",
            "client_encoding",
            "connect_timeout",
            "gsslib",
            "keepalives",
            "keepalives_count",
            "keepalives_idle",
            "keepalives_interval",
            "krbsrvname",
            "load_balance_hosts",
            "max_protocol_version",
            "sslcompression",
            "sslsni",
            "tcp_user_timeout",
        ],
        Ignored,
    ),
    (
        &[
            "oauth_client_id",
            "oauth_client_secret",
            "oauth_issuer",
            "oauth_scope",
            "passfile",
            "requirepeer",
            "scram_client_key",
            "scram_server_key",
            "service",
            "servicefile",
            "sslcrl",
            "sslcrldir",
            "sslkeylogfile",
            "sslpassword",
        ],
        Refused,
    ),
];

/// What other readers of `postgres://` URLs know besides libpq's keys.
pub(super) const URL: Table = &[
    (&["database"], Database),
    (&["username"], User),
    (&["ssl"], Ssl),
    // Prisma: https://www.prisma.io/docs/orm/overview/databases/postgresql
    (&["sslaccept"], SslAccept),
    (&["schema"], Schema),
    (&["sslidentity"], Refused),
    (
        &[
            "connection_limit",
            "max_connection_lifetime",
            "max_idle_connection_lifetime",
            "pgbouncer",
            "pool_timeout",
            "single_use_connections",
            "socket_timeout",
            "statement_cache_size",
        ],
        Ignored,
    ),
    // pgx, lib/pq and postgres.js send what they do not know to the server, as its settings.
    (
        &["search_path", "schema_search_path", "currentSchema"],
        SearchPath,
    ),
    (&["role"], Role),
    (&["default_transaction_read_only"], FALSE),
    (&["sslinline"], FALSE),
    (
        &[
            "DateStyle",
            "IntervalStyle",
            "TimeZone",
            "binary_parameters",
            "client_min_messages",
            "datestyle",
            "default_query_exec_mode",
            "default_transaction_isolation",
            "description_cache_capacity",
            "extra_float_digits",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
            "intervalstyle",
            "krbspn",
            "lock_timeout",
            "max_protocol_version",
            "min_read_buffer_size",
            "pool_health_check_period",
            "pool_max_conn_idle_time",
            "pool_max_conn_lifetime",
            "pool_max_conn_lifetime_jitter",
            "pool_max_conns",
            "pool_min_conns",
            "pool_min_idle_conns",
            "statement_cache_capacity",
            "statement_timeout",
            "timezone",
            "transaction_timeout",
        ],
        Ignored,
    ),
    // node-postgres and its pool, postgres.js.
    (
        &[
            "allowExitOnIdle",
            "connectionTimeoutMillis",
            "connect_timeout_ms",
            "encoding",
            "idleTimeoutMillis",
            "idle_timeout",
            "keepAlive",
            "max",
            "max_lifetime",
            "min",
            "prepare",
            "query_timeout",
            "uselibpqcompat",
        ],
        Ignored,
    ),
    // SQLAlchemy's psycopg2 and asyncpg, Django with dj-database-url and django-environ.
    (
        &[
            "async_fallback",
            "command_timeout",
            "conn_health_checks",
            "conn_max_age",
            "cursor_factory",
            "disable_server_side_cursors",
            "executemany_mode",
            "max_cacheable_statement_size",
            "max_cached_statement_lifetime",
            "max_overflow",
            "pool_pre_ping",
            "pool_recycle",
            "prepare_threshold",
            "prepared_statement_cache_size",
            "prepared_statement_name_func",
            "timeout",
        ],
        Ignored,
    ),
    // Rails, Ecto, sqlx, Doctrine.
    (
        &[
            "adapter",
            "advisory_locks",
            "charset",
            "checkout_timeout",
            "idle_interval",
            "min_messages",
            "pool",
            "pool_size",
            "prepared_statements",
            "reaping_frequency",
            "serverVersion",
            "statement-cache-capacity",
            "statement_limit",
            "variables",
        ],
        Ignored,
    ),
];

/// pgjdbc, <https://jdbc.postgresql.org/documentation/use/>.
pub(super) const JDBC: Table = &[
    (&["PGHOST", "host"], Host),
    (&["PGPORT", "port"], Port),
    (&["PGDBNAME", "dbname"], Database),
    (&["user"], User),
    (&["password"], Password),
    (&["ssl"], Ssl),
    (&["sslmode"], SslMode),
    (&["sslfactory"], SslFactory),
    (&["sslrootcert"], RootCertificates),
    (&["sslcert"], Certificate),
    (&["sslkey"], CertificateKey),
    (&["channelBinding"], ChannelBinding),
    (&["requireAuth"], RequireAuth),
    (&["currentSchema"], SearchPath),
    (&["options"], Options),
    (&["targetServerType"], TargetSession),
    (&["gssEncMode"], Only(&["disable", "allow", "prefer"])),
    (&["sslNegotiation"], Only(&["postgres"])),
    (&["readOnly", "replication", "jaasLogin"], FALSE),
    (
        &[
            "ApplicationName",
            "adaptiveFetch",
            "adaptiveFetchMaximum",
            "adaptiveFetchMinimum",
            "allowEncodingChanges",
            "assumeMinServerVersion",
            "autosave",
            "binaryTransfer",
            "binaryTransferDisable",
            "binaryTransferEnable",
            "cancelSignalTimeout",
            "cleanupSavepoints",
            "connectTimeout",
            "convertBooleanToNumeric",
            "databaseMetadataCacheFields",
            "databaseMetadataCacheFieldsMiB",
            "defaultRowFetchSize",
            "disableColumnSanitiser",
            "escapeSyntaxCallMode",
            "groupStartupParameters",
            "gssResponseTimeout",
            "hideUnprivilegedObjects",
            "hostRecheckSeconds",
            "includeThreadId",
            "jaasApplicationName",
            "kerberosServerName",
            "loadBalanceHosts",
            "logServerErrorDetail",
            "logUnclosedConnections",
            "loggerFile",
            "loggerLevel",
            "loginTimeout",
            "maxResultBuffer",
            "maxSendBufferSize",
            "pgProtocolVersion",
            "preferQueryMode",
            "preparedStatementCacheQueries",
            "preparedStatementCacheSizeMiB",
            "prepareThreshold",
            "protocolVersion",
            "quoteReturningIdentifiers",
            "readOnlyMode",
            "receiveBufferSize",
            "reWriteBatchedInserts",
            "rewriteBatchedInserts",
            "sendBufferSize",
            "socketTimeout",
            "sslResponseTimeout",
            "stringtype",
            "tcpKeepAlive",
            "tcpNoDelay",
            "unknownLength",
            "useSpnego",
            "xmlFactoryFactory",
            // What pgjdbc ignores and many a URL of another database brought along.
            "allowMultiQueries",
            "autoReconnect",
            "charSet",
            "characterEncoding",
            "serverTimezone",
            "useUnicode",
        ],
        Ignored,
    ),
    (
        &[
            "authenticationPluginClassName",
            "gsslib",
            "localSocketAddress",
            "service",
            "socketFactory",
            "socketFactoryArg",
            "sslfactoryarg",
            "sslhostnameverifier",
            "sslpassword",
            "sslpasswordcallback",
            "sspiServiceClass",
        ],
        Refused,
    ),
];

/// Npgsql, <https://www.npgsql.org/doc/connection-string-parameters.html>, in lower case and without spaces.
pub(super) const NPGSQL: Table = &[
    (&["host", "server"], Host),
    (&["port"], Port),
    (&["database", "db"], Database),
    (&["username", "userid", "uid"], User),
    (&["password", "pwd", "psw"], Password),
    (&["sslmode"], SslMode),
    (&["rootcertificate"], RootCertificates),
    (&["sslcertificate"], Certificate),
    (&["sslkey"], CertificateKey),
    (&["channelbinding"], ChannelBinding),
    (&["requireauth"], RequireAuth),
    (&["searchpath"], SearchPath),
    (&["options"], Options),
    (&["targetsessionattributes"], TargetSession),
    (&["checkcertificaterevocation", "integratedsecurity"], FALSE),
    (
        &["gssencryptionmode"],
        Only(&["Disable", "Prefer", "disable", "prefer"]),
    ),
    (&["sslnegotiation"], Only(&["Postgres", "postgres"])),
    (&["replicationmode"], Only(&["Off", "off"])),
    (
        &[
            "applicationname",
            "arraynullabilitymode",
            "autoprepareminusages",
            "buffersize",
            "cancellationtimeout",
            "clientencoding",
            "commandtimeout",
            "connectionidlelifetime",
            "connectionlifetime",
            "connectionpruninginterval",
            "convertinfinitydatetime",
            "efadmindatabase",
            "eftemplatedatabase",
            "encoding",
            "enlist",
            "entityadmindatabase",
            "entitytemplatedatabase",
            "hostrecheckseconds",
            "includeerrordetail",
            "includeerrordetails",
            "includefailedbatchedcommand",
            "includerealm",
            "internalcommandtimeout",
            "keepalive",
            "kerberosservicename",
            "loadbalancehosts",
            "loadbalancetimeout",
            "loadtablecomposites",
            "logparameters",
            "maxautoprepare",
            "maximumpoolsize",
            "maxpoolsize",
            "minimumpoolsize",
            "minpoolsize",
            "multiplexing",
            "noresetonclose",
            "persistsecurityinfo",
            "pooling",
            "readbuffersize",
            "servercompatibilitymode",
            "socketreceivebuffersize",
            "socketsendbuffersize",
            "tcpkeepalive",
            "tcpkeepaliveinterval",
            "tcpkeepalivetime",
            "timeout",
            "timezone",
            "trustservercertificate",
            "useperfcounters",
            "usesslstream",
            "writebuffersize",
            "writecoalescingbufferthresholdbytes",
        ],
        Ignored,
    ),
    (
        &[
            "clientcertificate",
            "clientcertificatekey",
            "passfile",
            "sslpassword",
        ],
        Refused,
    ),
];

/// The meaning of a key in one of these tables.
///
/// # Errors
/// The key by its name. A text that is no name may be a part of a password, and is not shown: then `before`, the key of
/// the value that ended too early.
pub(super) fn look_up(
    name: &str,
    tables: &[Table],
    before: Option<&str>,
) -> Result<Meaning, ConnectionError> {
    let found = tables
        .iter()
        .flat_map(|table| table.iter())
        .find(|(names, _)| names.contains(&name))
        .map(|(_, key)| *key);
    match found {
        Some(Refused) => Err(ConnectionError::Unsupported(name.to_owned())),
        Some(key) => Ok(key),
        None if is_name(name, before) => Err(ConnectionError::Unknown(name.to_owned())),
        None => Err(ConnectionError::NotAKey(before.unwrap_or("its start").to_owned())),
    }
}

/// Whether a text can be the name of a key. After a password it may be the rest of it, so only words count there.
fn is_name(text: &str, before: Option<&str>) -> bool {
    let other = match before.is_some_and(is_secret) {
        true => "_ ",
        false => "_-. []0123456789",
    };
    let fits = |c: char| c.is_ascii_alphabetic() || other.contains(c);
    (2..=48).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(fits)
}

fn is_secret(name: &str) -> bool {
    ["password", "pwd", "psw"].contains(&name.to_lowercase().as_str())
}
