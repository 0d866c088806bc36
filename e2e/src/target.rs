//! The cluster that a demo or a test works on.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::command::without_proxy;
use crate::paths::Paths;

/// The embedded cluster, or one that the user names. No other context is ever connected to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The state folder; images are built there for either kind.
    pub paths: Paths,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Embedded,
    Existing(Existing),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Existing {
    /// A list of files, as in `KUBECONFIG`.
    kubeconfig: OsString,
    context: String,
    registry: String,
    proxies: Proxies,
}

/// The proxies that the environment names, which kubectl and Helm take where a kubeconfig names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Proxies {
    https: String,
    no: String,
}

impl Target {
    /// The context `KUBE_CONTEXT` with the registry `REGISTRY` when they are set, otherwise the
    /// embedded cluster.
    ///
    /// # Errors
    /// When only one of the two is set, or no kubeconfig holds the context.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(Paths::from_env()?, |name| std::env::var_os(name))
    }

    /// [`Target::from_env`] with the environment's variables from elsewhere.
    ///
    /// # Errors
    /// As [`Target::from_env`].
    pub fn from_variables(paths: Paths, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let kind = match (text("KUBE_CONTEXT"), text("REGISTRY")) {
            (None, None) => Kind::Embedded,
            (Some(context), Some(registry)) => {
                let home = || Some(Path::new(&set("HOME")?).join(".kube/config").into_os_string());
                let kubeconfig = set("KUBECONFIG")
                    .or_else(home)
                    .context("set KUBECONFIG to the file that holds the context KUBE_CONTEXT")?;
                holds(&kubeconfig, &context)?;
                let either = |name: &str| text(name).or_else(|| text(&name.to_lowercase()));
                Kind::Existing(Existing {
                    kubeconfig,
                    context,
                    registry: registry.trim_end_matches('/').to_owned(),
                    proxies: Proxies {
                        https: either("HTTPS_PROXY").unwrap_or_default(),
                        no: either("NO_PROXY").unwrap_or_default(),
                    },
                })
            }
            (Some(context), None) => bail!(
                "set REGISTRY=host/path too: the registry to which images are pushed and from which the cluster of \
                 KUBE_CONTEXT={context} pulls them"
            ),
            (None, Some(registry)) => bail!(
                "set KUBE_CONTEXT=name too: the context of the cluster that pulls from REGISTRY={registry}"
            ),
        };
        Ok(Self { paths, kind })
    }

    /// The embedded cluster, whatever the environment says.
    #[must_use]
    pub fn embedded(paths: Paths) -> Self {
        Self {
            paths,
            kind: Kind::Embedded,
        }
    }

    /// Whether it is the embedded cluster, whose node's folders and audit log tests can reach.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        self.kind == Kind::Embedded
    }

    /// The registry and path to which images are pushed and from which the node pulls.
    #[must_use]
    pub fn registry(&self) -> String {
        match &self.kind {
            Kind::Embedded => self.paths.registry_host(),
            Kind::Existing(existing) => existing.registry.clone(),
        }
    }

    /// The name of the context in the kubeconfig.
    #[must_use]
    pub fn context(&self) -> String {
        match &self.kind {
            Kind::Embedded => self.paths.name(),
            Kind::Existing(existing) => existing.context.clone(),
        }
    }

    /// kubectl, which knows this target only.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = self.program("kubectl");
        command.args(["--context", &self.context()]);
        command
    }

    /// Helm, which knows this target only.
    #[must_use]
    pub fn helm(&self) -> Command {
        let mut command = self.program("helm");
        command.args(["--kube-context", &self.context()]);
        // Helm needs a home for its caches.
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, self.paths.root().join("helm"));
        }
        // These take the place of what the context says, the address of the API server included.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"HELM_KUBE") {
                command.env_remove(name);
            }
        }
        command
    }

    /// The files come by the environment and not by `--kubeconfig`, which takes one file only.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.paths.binary(name));
        match &self.kind {
            Kind::Embedded => without_proxy(command.env("KUBECONFIG", self.paths.kubeconfig())),
            Kind::Existing(existing) => command.env("KUBECONFIG", &existing.kubeconfig),
        };
        command
    }

    /// A client with the rights of that context's user.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        match &self.kind {
            Kind::Embedded => embedded(&self.paths)
                .await
                .context("the embedded cluster does not run; start it with `make up`"),
            Kind::Existing(existing) => existing
                .config()
                .await
                .and_then(client)
                .with_context(|| format!("connect to the context {}", existing.context)),
        }
    }
}

impl Existing {
    async fn config(&self) -> Result<Config> {
        let kubeconfig = merged(&self.kubeconfig)?;
        let options = KubeConfigOptions {
            context: Some(self.context.clone()),
            ..KubeConfigOptions::default()
        };
        let named = proxy_of(&kubeconfig, &self.context);
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .context("read the kubeconfig")?;
        // kube asks NO_PROXY about the proxy's address and not about the API server's, and asks it even where the
        // kubeconfig names the proxy.
        config.proxy_url = match named.or_else(|| self.proxies.of(&config.cluster_url)) {
            Some(proxy) => Some(proxy.parse().context("read the address of the proxy")?),
            None => None,
        };
        Ok(config)
    }
}

impl Proxies {
    /// The proxy for a server that is spoken to by TLS. As for kubectl, there is none to this machine itself.
    fn of(&self, server: &http::Uri) -> Option<String> {
        let never = format!("{},localhost,127.0.0.0/8,::1", self.no);
        let matcher = Matcher::builder()
            .https(self.https.as_str())
            .no(never.as_str())
            .build();
        matcher.intercept(server).map(|_| self.https.clone())
    }
}

/// The proxy that the kubeconfig names for the cluster of a context.
fn proxy_of(kubeconfig: &Kubeconfig, context: &str) -> Option<String> {
    let context = kubeconfig.contexts.iter().find(|named| named.name == context)?;
    let cluster = &context.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|named| named.name == *cluster)?;
    let proxy = cluster.cluster.as_ref()?.proxy_url.clone();
    proxy.filter(|proxy| !proxy.is_empty())
}

/// A client of the embedded cluster, which no proxy can reach.
pub(crate) async fn embedded(paths: &Paths) -> Result<Client> {
    let file = paths.kubeconfig();
    let kubeconfig = Kubeconfig::read_from(&file).with_context(|| format!("read {}", file.display()))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("read the kubeconfig")?;
    config.proxy_url = None;
    client(config)
}

fn client(config: Config) -> Result<Client> {
    // One provider for the whole process; the second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(config).context("make a client")
}

/// Fails unless the files hold the context.
fn holds(kubeconfig: &OsStr, context: &str) -> Result<()> {
    let merged = merged(kubeconfig)?;
    let known: Vec<&str> = merged.contexts.iter().map(|named| named.name.as_str()).collect();
    if known.contains(&context) {
        return Ok(());
    }
    let files = kubeconfig.display();
    if known.is_empty() {
        bail!("there is no context in {files}; set KUBECONFIG to the file that holds KUBE_CONTEXT={context}");
    }
    bail!(
        "there is no context {context} in {files}; set KUBE_CONTEXT to one of these: {}",
        known.join(", ")
    )
}

/// The files of the list as one, as kubectl reads them: the first that sets a value wins, and a file that is not
/// there is passed over.
fn merged(list: &OsStr) -> Result<Kubeconfig> {
    let mut merged = Kubeconfig::default();
    for file in files(list) {
        let read = Kubeconfig::read_from(&file).with_context(|| format!("read {}", file.display()))?;
        merged = merged
            .merge(read)
            .with_context(|| format!("merge {} with the files before it", file.display()))?;
    }
    Ok(merged)
}

fn files(list: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(list).filter(|file| !file.as_os_str().is_empty() && file.exists())
}

#[cfg(test)]
mod tests;
