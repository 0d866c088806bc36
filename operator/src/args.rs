//! Arguments and environment of the operator.

use fairway_crds::agent::AgentPods;
use std::net::SocketAddr;
use std::str::FromStr;

/// Runs the operator: watches Apps and carries their edits to production.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// Address of /metrics: `host:port`, or `:port` for all addresses.
    #[arg(long, value_name = "ADDRESS", default_value = ":8080")]
    pub(crate) metrics_address: ListenAddress,
    /// Address of /healthz and /readyz, which the kubelet requests.
    #[arg(long, value_name = "ADDRESS", default_value = ":8081")]
    pub(crate) probes_address: ListenAddress,
    /// Image that holds the agent at /fairway-agent: the operator's own image.
    #[arg(long, env = "FAIRWAY_AGENT_IMAGE")]
    pub(crate) agent_image: String,
    /// Pull secret of that image, by its name in each App's namespace. May be repeated.
    #[arg(long = "agent-pull-secret", value_name = "NAME")]
    pub(crate) agent_pull_secrets: Vec<String>,
    /// Pull policy of that image.
    #[arg(long, default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub(crate) agent_pull_policy: String,
    /// How the agent's pods run, as JSON in the form of an App's spec.agent, such as `{"user": {"assigned": {}}}`. What an
    /// App says comes first.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = agent_pods)]
    pub(crate) agent_pods: AgentPods,
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
    /// Namespace whose Apps are looked after; all of them unless set. May be repeated.
    #[arg(long = "watch-namespace", value_name = "NAMESPACE")]
    pub(crate) watch_namespaces: Vec<String>,
    /// Passes that each controller runs at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) concurrency: u16,
    /// Form of the log on standard error. RUST_LOG sets its level.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(crate) log_format: LogFormat,
}

fn agent_pods(text: &str) -> Result<AgentPods, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Where a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// This port of every address, of IPv6 and IPv4.
    Any(u16),
    /// One address.
    Host(SocketAddr),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.strip_prefix(':') {
            Some(port) => port.parse().map(Self::Any).ok(),
            None => text.parse().map(Self::Host).ok(),
        };
        parsed.ok_or_else(|| "not an address; write :8080, 127.0.0.1:8080 or [::1]:8080".to_owned())
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// One line of text.
    Text,
}

#[cfg(test)]
mod tests {
    use super::agent_pods;

    #[test]
    fn f12_how_the_agents_pods_run_is_read_as_an_app_has_it() {
        let pods =
            agent_pods(r#"{"user": {"assigned": {}}, "nodeSelector": {"kubernetes.io/arch": "arm64"}}"#)
                .unwrap();
        assert!(pods.user.unwrap().assigned.is_some());
        assert_eq!(pods.node_selector["kubernetes.io/arch"], "arm64");
        let error = agent_pods(r#"{"runAsUser": 1}"#).unwrap_err();
        assert!(error.contains("runAsUser"), "{error}");
    }
}
