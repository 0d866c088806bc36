//! Database sessions of the agent itself.

use std::{error::Error as _, fmt::Write as _, io, net::IpAddr, time::Duration};

use fairway_protocol::{Failure, Reason};
use tokio::{task::JoinHandle, time::Instant};
use tokio_postgres::{
    Client, Config,
    config::{ChannelBinding as PostgresBinding, SslMode, TargetSessionAttrs},
    error::SqlState,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    connection::{APPLICATION_NAME, ChannelBinding, Connection, Host, TlsMode},
    failure::environment,
    text::sentence,
    tls,
};

/// Longest time for one attempt to connect to one address.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Options of sessions for the agent's own statements: names of the catalog alone, and one way to write values, for the
/// fingerprint. A database may have other defaults, which a restored copy of it does not have.
const CATALOG_OPTIONS: &str = " -c search_path=pg_catalog -c TimeZone=UTC -c DateStyle=ISO,YMD \
    -c IntervalStyle=postgres -c bytea_output=hex -c extra_float_digits=1 -c lc_monetary=C -c xmlbinary=base64";

/// Whose names the statements of a session see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchPath {
    /// The catalog alone: nothing that the owner of a schema created can take the place of what the agent calls.
    Catalog,
    /// The schemas that the application sees, for statements that its team wrote.
    Application,
}

/// An open session. Dropping it closes the connection.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Session {
    /// Connects with one attempt at each address.
    ///
    /// # Errors
    /// What is wrong with the environment; never the password.
    pub(crate) async fn connect(connection: &Connection, path: SearchPath) -> Result<Self, Failure> {
        let connector = tls::connector(connection)
            .map_err(|error| environment(Reason::TlsFailed, sentence(&error.to_string())))?;
        let session = Self::reach(connection, path, &connector, ATTEMPT).await?;
        session
            .prepare(connection, path)
            .await
            .map_err(|error| refusal(connection, &error))?;
        Ok(session)
    }

    /// Attempts one address after the other, each for as long as libpq would: an address that does not answer must not
    /// prevent the attempt at one that does.
    async fn reach(
        connection: &Connection,
        path: SearchPath,
        connector: &MakeRustlsConnect,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let silent = || unreachable(connection, &format!("no answer within {} s", patience.as_secs()));
        let mut failure = unreachable(connection, "its host name has no address");
        for host in &connection.hosts {
            let addresses = match tokio::time::timeout(patience, addresses(host)).await {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(error)) => {
                    failure = unreachable(connection, &error.to_string());
                    continue;
                }
                Err(_) => {
                    failure = silent();
                    continue;
                }
            };
            for address in addresses {
                let config = config(connection, path, host, address);
                let attempt = config.connect(connector.clone());
                failure = match tokio::time::timeout(patience, attempt).await {
                    Ok(Ok((client, driver))) => {
                        let driver = tokio::spawn(async move {
                            if let Err(error) = driver.await {
                                tracing::warn!("a database session ended: {}", cause(&error));
                            }
                        });
                        return Ok(Self { client, driver });
                    }
                    Ok(Err(error)) => refusal(connection, &error),
                    Err(_) => silent(),
                };
            }
        }
        Err(failure)
    }

    /// Connects, and repeats that within `patience` while the database cannot be reached.
    pub(crate) async fn connect_within(
        connection: &Connection,
        path: SearchPath,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::connect(connection, path).await {
                Err(failure)
                    if failure.reason == Reason::DatabaseUnreachable && Instant::now() + PAUSE < deadline =>
                {
                    tracing::info!("{}", failure.message);
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Sets what cannot be set in the start-up message because older servers do not know it.
    async fn prepare(&self, connection: &Connection, path: SearchPath) -> Result<(), tokio_postgres::Error> {
        self.client
            .query(
                "select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings \
                 where name in ('idle_session_timeout', 'transaction_timeout')",
                &[],
            )
            .await?;
        if path == SearchPath::Application && !connection.schemas.is_empty() {
            let quote = |schema: &String| format!("\"{}\"", schema.replace('"', "\"\""));
            let quoted = connection
                .schemas
                .iter()
                .map(quote)
                .collect::<Vec<_>>()
                .join(", ");
            self.client
                .query(
                    "select pg_catalog.set_config('search_path', $1, false)",
                    &[&quoted],
                )
                .await?;
        }
        Ok(())
    }

    /// The session's client, for statements.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The session's client, for transactions.
    pub(crate) fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Resolves when the connection is gone. May be awaited again after it was cancelled, and after it resolved.
    pub(crate) async fn lost(&mut self) {
        Loss(&mut self.driver).awaited().await;
    }

    /// The session's client, and the loss of its connection, for which one can wait meanwhile.
    pub(crate) fn parts(&mut self) -> (&mut Client, Loss<'_>) {
        (&mut self.client, Loss(&mut self.driver))
    }

    /// The server's version as it writes it, e.g. `15.18`, and its major version.
    pub(crate) async fn server_version(&self) -> Result<(String, u32), tokio_postgres::Error> {
        let row = self
            .client
            .query_one(
                "select split_part(current_setting('server_version'), ' ', 1), \
                 current_setting('server_version_num')::int4 / 10000",
                &[],
            )
            .await?;
        let major: i32 = row.get(1);
        Ok((row.get(0), major.unsigned_abs()))
    }
}

/// The loss of a session's connection.
pub(crate) struct Loss<'a>(&'a mut JoinHandle<()>);

impl Loss<'_> {
    /// Resolves when the connection is gone; as [`Session::lost`].
    pub(crate) async fn awaited(&mut self) {
        if !self.0.is_finished() {
            // The only error is a panic of the driver, after which the session is as lost as after its end.
            let _ = (&mut *self.0).await;
        }
    }
}

/// The addresses of a host; none is known, or needed, for a socket.
async fn addresses(host: &Host) -> io::Result<Vec<Option<IpAddr>>> {
    if host.name.starts_with('/') {
        return Ok(vec![None]);
    }
    let found = tokio::net::lookup_host((host.name.as_str(), host.port)).await?;
    Ok(found.map(|address| Some(address.ip())).collect())
}

fn config(connection: &Connection, path: SearchPath, host: &Host, address: Option<IpAddr>) -> Config {
    let mut config = Config::new();
    config.host(&host.name).port(host.port);
    if let Some(address) = address {
        config.hostaddr(address);
    }
    config
        .dbname(&connection.database)
        .user(&connection.user)
        .application_name(APPLICATION_NAME)
        .connect_timeout(Duration::from_secs(5))
        .keepalives_idle(Duration::from_secs(20))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(60))
        .ssl_mode(match connection.tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        })
        .channel_binding(match connection.channel_binding {
            ChannelBinding::Disable => PostgresBinding::Disable,
            ChannelBinding::Prefer => PostgresBinding::Prefer,
            ChannelBinding::Require => PostgresBinding::Require,
        });
    if let Some(password) = &connection.password {
        config.password(password);
    }
    if connection.hosts.len() > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config.options(options(connection, path));
    config
}

/// The start-up options of a session: the application's first, so that ours override them.
///
/// A server learns of a vanished client by keepalive: with the kernel's defaults a lost node would keep the
/// migration's lock for two hours.
fn options(connection: &Connection, path: SearchPath) -> String {
    let mut options = connection.options.clone().unwrap_or_default();
    for setting in [
        "statement_timeout=60000",
        "lock_timeout=5000",
        "idle_in_transaction_session_timeout=0",
        "tcp_keepalives_idle=20",
        "tcp_keepalives_interval=5",
        "tcp_keepalives_count=3",
        "client_min_messages=warning",
        "default_transaction_read_only=off",
    ] {
        // Writing into a String cannot fail.
        let _ = write!(options, " -c {setting}");
    }
    if path == SearchPath::Catalog {
        options.push_str(CATALOG_OPTIONS);
    }
    options.trim().to_owned()
}

fn unreachable(connection: &Connection, why: &str) -> Failure {
    environment(
        Reason::DatabaseUnreachable,
        format!(
            "The database at {} cannot be reached ({why}). Check host and port in database.connection, that the server \
             runs, and that network policies let this namespace reach it.",
            connection.address()
        ),
    )
}

/// The failure that an unsuccessful attempt to connect means.
fn refusal(connection: &Connection, error: &tokio_postgres::Error) -> Failure {
    let Some(database) = error.as_db_error() else {
        return refusal_by_client(connection, error);
    };
    let (address, message) = (connection.address(), database.message());
    match database.code() {
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => environment(
            Reason::PasswordRejected,
            format!(
                "The database at {address} rejected role {:?} ({message}). Correct user and password in the Secret that \
                 database.connection names.",
                connection.user
            ),
        ),
        &SqlState::INVALID_CATALOG_NAME => environment(
            Reason::DatabaseMissing,
            format!(
                "The server at {address} has no database {:?}. Create it, or correct database.connection.",
                connection.database
            ),
        ),
        &SqlState::PROTOCOL_VIOLATION if message.contains("startup parameter") => pooler(connection),
        code => unreachable(connection, &format!("it answered {}: {message}", code.code())),
    }
}

fn refusal_by_client(connection: &Connection, error: &tokio_postgres::Error) -> Failure {
    let (message, cause) = (error.to_string(), cause(error));
    if message.contains("TLS") || cause.contains("TLS") || cause.contains("certificate") {
        return environment(
            Reason::TlsFailed,
            format!(
                "The TLS handshake with the database at {} failed ({cause}). Check sslmode and sslrootcert in the connection string.",
                connection.address()
            ),
        );
    }
    if cause.contains("password missing") {
        return environment(
            Reason::PasswordRejected,
            format!(
                "The database at {} requires a password and the connection has none. Add it to the Secret that \
                 database.connection names.",
                connection.address()
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
            "The connection to {} goes through a transaction pooler, which cannot hold the migration lock. Set \
             database.connection to the server's direct address.",
            connection.address()
        ),
    )
}

/// The innermost cause of an error of the driver, which never holds values of the database.
pub(crate) fn cause(error: &tokio_postgres::Error) -> String {
    if let Some(database) = error.as_db_error() {
        return format!("{}: {}", database.code().code(), database.message());
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

/// The failure of a statement of the agent, with what was being done.
pub(crate) fn statement_failed(doing: &str, error: &tokio_postgres::Error) -> Failure {
    // A session's prepared statements are its own, unless a pooler mixes sessions.
    if let Some(&SqlState::DUPLICATE_PSTATEMENT | &SqlState::INVALID_SQL_STATEMENT_NAME) = error.code() {
        return environment(
            Reason::TransactionPooler,
            format!(
                "The connection goes through a transaction pooler, which mixes sessions (noticed while {doing}). Set database.connection to \
                 the server's direct address."
            ),
        );
    }
    let message = match error.code() {
        Some(code) if !is_transient(code) => format!(
            "The database refused a statement while {doing} ({}). Grant the role of database.connection what it lacks, \
             or fix what the error names.",
            cause(error)
        ),
        _ => format!(
            "The database did not answer while {doing} ({}). Check that the server runs and can be reached.",
            cause(error)
        ),
    };
    environment(Reason::DatabaseUnreachable, message)
}

/// Whether an error of the server may pass by itself, because it does not come from the statement: the connection, the
/// server's resources, its shutdown, a cancelled statement, a lock that could not be taken.
pub(crate) fn is_transient(code: &SqlState) -> bool {
    ["08", "53", "57", "55P03", "58"]
        .iter()
        .any(|class| code.code().starts_with(class))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_passed_over() {
        // The kernel accepts connections for them, and nothing reads.
        let silent = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let [first, second] = silent
            .each_ref()
            .map(|listener| listener.local_addr().unwrap().port());
        let text = format!("postgres://u@127.0.0.1:{first},127.0.0.1:{second},127.0.0.1:1/d?sslmode=disable");
        let connection = Connection::parse(&text).unwrap();
        let connector = tls::connector(&connection).unwrap();
        let patience = Duration::from_millis(20);
        let reached = Session::reach(&connection, SearchPath::Catalog, &connector, patience).await;
        let failure = reached.err().unwrap();
        assert!(failure.message.contains("refused"), "{}", failure.message);
    }
}
