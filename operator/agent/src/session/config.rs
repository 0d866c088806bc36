//! What a session is opened with.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

use tokio_postgres::{Config, config::ChannelBinding as PostgresBinding};

use crate::connection::{APPLICATION_NAME, ChannelBinding, Connection, Host};

/// Silence after which a connection is probed.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// Pause between probes of a silent connection.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Probes without an answer after which a connection is lost.
pub(super) const KEEPALIVE_RETRIES: u32 = 3;

/// Options of sessions for the agent's own statements: names of the catalog alone, no policies of others, and one way to
/// write values, for the fingerprint. A database may have other defaults, which a restored copy of it does not have.
const CATALOG_OPTIONS: &str = " -c search_path=pg_catalog -c TimeZone=UTC -c DateStyle=ISO,YMD \
    -c IntervalStyle=postgres -c bytea_output=hex -c extra_float_digits=1 -c lc_monetary=C -c xmlbinary=base64 \
    -c quote_all_identifiers=off -c standard_conforming_strings=on -c transform_null_equals=off -c row_security=off";

/// Whose names the statements of a session see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchPath {
    /// The catalog alone: nothing that the owner of a schema created can take the place of what the agent calls.
    Catalog,
    /// The schemas that the application sees, for statements that its team wrote.
    Application,
}

pub(super) fn config(
    connection: &Connection,
    path: SearchPath,
    host: &Host,
    address: Option<IpAddr>,
) -> Config {
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
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(Duration::from_secs(60))
        .channel_binding(match connection.channel_binding {
            ChannelBinding::Disable => PostgresBinding::Disable,
            ChannelBinding::Prefer => PostgresBinding::Prefer,
            ChannelBinding::Require => PostgresBinding::Require,
        });
    if let Some(password) = &connection.password {
        config.password(password);
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
