//! The cluster that a demo or a test works on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cluster::Paths;

/// The embedded cluster, or one that a person named. No other context is ever read or used.
#[derive(Clone, Debug)]
pub struct Target {
    /// The state folder; images are built there for either kind.
    pub paths: Paths,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Embedded,
    Existing {
        kubeconfig: PathBuf,
        context: String,
        registry: String,
    },
}

impl Target {
    /// The context `KUBE_CONTEXT` with the registry `REGISTRY` when they are set, otherwise the
    /// embedded cluster.
    ///
    /// # Errors
    /// When only one of the two is set, or no kubeconfig holds the context.
    pub fn from_env() -> Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let paths = Paths::from_env()?;
        let kind = match (set("KUBE_CONTEXT"), set("REGISTRY")) {
            (None, None) => Kind::Embedded,
            (Some(context), Some(registry)) => Kind::Existing {
                kubeconfig: kubeconfig_with(&context)?,
                context,
                registry: registry.trim_end_matches('/').to_owned(),
            },
            (Some(_), None) => {
                bail!("KUBE_CONTEXT needs REGISTRY=host/path too: a registry that the cluster can pull from")
            }
            (None, Some(_)) => bail!("REGISTRY needs KUBE_CONTEXT=name too: the cluster that pulls from it"),
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
            Kind::Existing { registry, .. } => registry.clone(),
        }
    }

    /// The kubeconfig and the context in it, for kubectl and Helm.
    #[must_use]
    pub fn kubeconfig(&self) -> (PathBuf, String) {
        match &self.kind {
            Kind::Embedded => (self.paths.kubeconfig(), self.paths.name()),
            Kind::Existing {
                kubeconfig, context, ..
            } => (kubeconfig.clone(), context.clone()),
        }
    }

    /// A client with the rights of that context's user.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        let (kubeconfig, context) = self.kubeconfig();
        client(&kubeconfig, Some(&context))
            .await
            .with_context(|| match &self.kind {
                Kind::Embedded => "the embedded cluster does not run; start it with `make up`".to_owned(),
                Kind::Existing { context, .. } => format!("connect to the context {context}"),
            })
    }
}

/// A client for one context of one kubeconfig file.
pub(crate) async fn client(kubeconfig: &Path, context: Option<&str>) -> Result<Client> {
    // One provider for the whole process; the second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let options = KubeConfigOptions {
        context: context.map(ToOwned::to_owned),
        ..KubeConfigOptions::default()
    };
    let mut config = Config::from_custom_kubeconfig(file, &options)
        .await
        .context("read the kubeconfig")?;
    // Watches send nothing for minutes, so the default of 295 s stays for reading.
    config.proxy_url = None;
    Client::try_from(config).context("make a client")
}

/// The first file of `KUBECONFIG`, or of its default, that holds the context.
fn kubeconfig_with(context: &str) -> Result<PathBuf> {
    let files: Vec<PathBuf> = match std::env::var_os("KUBECONFIG") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => std::env::home_dir()
            .map(|home| home.join(".kube/config"))
            .into_iter()
            .collect(),
    };
    files
        .iter()
        .find(|file| {
            Kubeconfig::read_from(file)
                .is_ok_and(|config| config.contexts.iter().any(|candidate| candidate.name == context))
        })
        .cloned()
        .with_context(|| {
            format!("no context {context} in {files:?}; `kubectl config get-contexts` lists what there is")
        })
}
