//! One attempt to open a session at one address.

use std::{io, net::IpAddr};

use fairway_protocol::Failure;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    address,
    config::{SearchPath, config},
    failure::{cause, is_of_tls, lacks_entry, refusal, unreachable},
    methods::{AsksForTls, Checked, CheckedTls},
};
use crate::connection::{Connection, Host, TlsMode};

/// An open session, as the driver gives it.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) driver: JoinHandle<()>,
}

impl Opened {
    /// A session whose connection is driven in a task of its own.
    fn new(
        client: Client,
        driver: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    ) -> Self {
        let driver = tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::warn!("a database session ended: {}", cause(&error));
            }
        });
        Self { client, driver }
    }
}

/// One address, and the session to open there.
pub(super) struct Place<'a> {
    pub(super) connection: &'a Connection,
    pub(super) path: SearchPath,
    pub(super) host: &'a Host,
    /// None for a socket.
    pub(super) address: Option<IpAddr>,
}

impl Place<'_> {
    /// A session at this address. With `sslmode=prefer` a second attempt is made without TLS, as libpq makes one, where
    /// the first one failed in TLS or the server admits the role only without it.
    pub(super) async fn session(&self, connector: &MakeRustlsConnect) -> Result<Opened, Failure> {
        let connection = self.connection;
        let mode = match connection.tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        };
        let error = match self.attempt(connector, mode).await {
            Ok(session) => return self.writable(session).await,
            Err(error) => error,
        };
        if mode != SslMode::Prefer || !error.may_be_of_encryption() {
            return Err(error.failure(connection));
        }
        match self.attempt(connector, SslMode::Disable).await {
            Ok(session) => self.writable(session).await,
            // Without an entry for TLS the attempt without it is the one that counts; otherwise it was the last resort.
            Err(second) if error.lacks_entry() => Err(second.failure(connection)),
            Err(_) => Err(error.failure(connection)),
        }
    }

    async fn attempt(&self, connector: &MakeRustlsConnect, mode: SslMode) -> Result<Opened, Unsuccessful> {
        let mut config = config(self.connection, self.path, self.host, self.address);
        config.ssl_mode(mode);
        let Some(methods) = &self.connection.methods else {
            let (client, driver) = config.connect(connector.clone()).await?;
            return Ok(Opened::new(client, driver));
        };
        let asks = match mode {
            SslMode::Disable => AsksForTls::No,
            _ => AsksForTls::Yes,
        };
        let stream = address::connect(self.host, self.address).await?;
        let stream = Checked::new(stream, methods.clone(), asks);
        let tls = CheckedTls {
            connector: connector.clone(),
            methods: methods.clone(),
        };
        let tls = tls.to::<Checked<address::Stream>>(&self.host.name);
        let (client, driver) = config.connect_raw(stream, tls).await?;
        Ok(Opened::new(client, driver))
    }

    /// The session, unless it is one of several servers and cannot be written to.
    async fn writable(&self, session: Opened) -> Result<Opened, Failure> {
        if self.connection.hosts.len() < 2 {
            return Ok(session);
        }
        let row = session
            .client
            .query_one("select pg_catalog.pg_is_in_recovery()", &[])
            .await;
        match row.map(|row| row.get::<_, bool>(0)) {
            Ok(false) => Ok(session),
            Ok(true) => Err(unreachable(
                self.connection,
                "none of its servers can be written to",
            )),
            Err(error) => Err(refusal(self.connection, &error)),
        }
    }
}

/// Why an attempt to connect did not succeed.
#[derive(Debug, thiserror::Error)]
enum Unsuccessful {
    #[error(transparent)]
    Address(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] tokio_postgres::Error),
}

impl Unsuccessful {
    /// Whether an attempt may fare better without TLS.
    fn may_be_of_encryption(&self) -> bool {
        match self {
            Self::Address(_) => false,
            Self::Protocol(error) => match error.code() {
                Some(code) => code.code().starts_with("28"),
                None => is_of_tls(error),
            },
        }
    }

    fn lacks_entry(&self) -> bool {
        matches!(self, Self::Protocol(error) if lacks_entry(error))
    }

    fn failure(&self, connection: &Connection) -> Failure {
        match self {
            Self::Address(error) => unreachable(connection, &error.to_string()),
            Self::Protocol(error) => refusal(connection, error),
        }
    }
}
