//! Database sessions of the agent itself.

use std::time::Duration;

use fairway_protocol::{Failure, Reason};
use tokio::{task::JoinHandle, time::Instant};
use tokio_postgres::{Client, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{connection::Connection, failure::environment, text::sentence, tls};
use address::addresses;
use attempt::{Opened, Place};
use failure::{refusal, unreachable};

mod address;
mod attempt;
mod config;
mod failure;
mod methods;

pub(crate) use config::SearchPath;
pub(crate) use failure::{cause, pooler};

/// Longest time for one attempt to connect to one address.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(500);

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
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let silent = || unreachable(connection, &format!("no answer within {} s", timeout.as_secs()));
        let mut failure = unreachable(connection, "its host name has no address");
        for host in &connection.hosts {
            let addresses = match tokio::time::timeout(timeout, addresses(host)).await {
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
                let place = Place {
                    connection,
                    path,
                    host,
                    address,
                };
                failure = match tokio::time::timeout(timeout, place.session(connector)).await {
                    Ok(Ok(Opened { client, driver })) => return Ok(Self { client, driver }),
                    Ok(Err(failure)) => failure,
                    Err(_) => silent(),
                };
            }
        }
        Err(failure)
    }

    /// Connects, and repeats that within `timeout` while the database cannot be reached.
    pub(crate) async fn connect_within(
        connection: &Connection,
        path: SearchPath,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + timeout;
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
        if let (SearchPath::Application, Some(list)) = (path, &connection.search_path) {
            self.client
                .query("select pg_catalog.set_config('search_path', $1, false)", &[list])
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

    /// Starts a transaction that sees one state of the database and can change nothing.
    pub(crate) async fn start_reading(&self) -> Result<(), tokio_postgres::Error> {
        self.client
            .batch_execute("start transaction isolation level repeatable read, read only")
            .await
    }

    /// Ends the transaction of [`start_reading`](Self::start_reading).
    pub(crate) async fn end_reading(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("rollback").await
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
        Some(&SqlState::CHARACTER_NOT_IN_REPERTOIRE) => format!(
            "The database has text that is not UTF-8 (noticed while {doing}: {}), as one with encoding SQL_ASCII may. Write \
             the names and definitions in its catalog, and the rows of its migration history, in UTF-8.",
            cause(error)
        ),
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
        let timeout = Duration::from_millis(20);
        let reached = Session::reach(&connection, SearchPath::Catalog, &connector, timeout).await;
        let failure = reached.err().unwrap();
        assert!(failure.message.contains("refused"), "{}", failure.message);
    }
}
