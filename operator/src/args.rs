//! What the operator is told when it starts.

use std::net::SocketAddr;

/// Runs the operator: watches Apps and carries their edits to production.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub(crate) metrics_address: SocketAddr,
    /// Image that holds the agent at /fairway-agent: the operator's own image.
    #[arg(long, env = "FAIRWAY_AGENT_IMAGE")]
    pub(crate) agent_image: String,
    /// Pull secret of that image, by its name in each App's namespace. May be repeated.
    #[arg(long = "agent-pull-secret", value_name = "NAME")]
    pub(crate) agent_pull_secrets: Vec<String>,
    /// Pull policy of that image.
    #[arg(long, default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub(crate) agent_pull_policy: String,
    /// Whether to take a Lease, so that of several operators one works.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) leader_election: bool,
    /// Name of the Lease: operators that look after the same Apps share one.
    #[arg(long, value_name = "NAME", default_value = "fairway")]
    pub(crate) lease: String,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "fairway-system")]
    pub(crate) namespace: String,
    /// Holder of the Lease; unique among operators.
    #[arg(long, env = "POD_NAME", default_value = "fairway")]
    pub(crate) identity: String,
    /// The only namespace whose Apps are looked after; all of them unless set.
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) watch_namespace: Option<String>,
    /// Passes that each controller runs at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) concurrency: u16,
    /// Form of the log on standard error. RUST_LOG sets its level.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(crate) log_format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// One line of text.
    Text,
}
