//! A real one-node Kubernetes on this machine, from built binaries and Debian packages, without
//! Docker and without any image registry but its own.
//!
//! [`Cluster::up`] may be interrupted at any point and run any number of times: a cluster that runs
//! whole is used as it is, and anything less is removed and started again. State of the control plane
//! never outlives the cluster; built binaries and images do.

mod cgroups;
mod components;
mod mounts;
pub mod network;
mod options;
mod pki;
mod process;
mod storage;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

pub use self::components::memory_for_time;
pub use self::network::Families;
pub use self::options::Options;
pub use self::pki::NODE_NAME;
use crate::paths::Paths;
use crate::progress::Progress;

/// A running cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    paths: Paths,
}

/// One process of the cluster and whether it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Its name, which is also the name of its log file.
    pub name: &'static str,
    /// Its pid while it runs.
    pub pid: Option<i32>,
    /// Where it writes.
    pub log: PathBuf,
}

impl Cluster {
    /// Starts the cluster, or uses the one that runs, and returns when its node is Ready.
    ///
    /// # Errors
    /// Names the part that did not come up and its log file.
    pub async fn up(paths: &Paths, options: &Options) -> Result<Self> {
        preconditions(paths)?;
        let _lock = lock(paths)?;
        let cluster = Self { paths: paths.clone() };
        if !options.fresh && cluster.runs().await {
            return Ok(cluster);
        }
        remove(paths)?;
        let progress = Progress::start("start the cluster");
        cluster.start(options, &progress).await?;
        progress.done(&format!("node {NODE_NAME} is Ready"));
        Ok(cluster)
    }

    /// The cluster that already runs.
    ///
    /// # Errors
    /// When none runs whole.
    pub async fn running(paths: &Paths) -> Result<Self> {
        let cluster = Self { paths: paths.clone() };
        if !cluster.runs().await {
            bail!("the embedded cluster does not run whole; start it with `make up`");
        }
        Ok(cluster)
    }

    /// Stops the cluster and removes every process, mount, namespace, interface and cgroup of it.
    /// Built binaries, images and the registry's storage stay. Nothing to stop is not an error.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn down(paths: &Paths) -> Result<()> {
        root()?;
        let _lock = lock(paths)?;
        remove(paths)
    }

    /// Every process of the cluster.
    #[must_use]
    pub fn status(paths: &Paths) -> Vec<ProcessStatus> {
        components::NAMES
            .iter()
            .map(|name| ProcessStatus {
                name,
                pid: process::recorded(paths, name)
                    .filter(process::Record::alive)
                    .map(|record| record.pid()),
                log: process::log_file(paths, name),
            })
            .collect()
    }

    /// Whether the registry runs, so that images can be pushed.
    #[must_use]
    pub fn registry_runs(paths: &Paths) -> bool {
        process::recorded(paths, "registry").is_some_and(|record| record.alive())
    }

    /// Its folders, names and addresses.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The API server's audit log: one JSON event a line, for every request, without bodies.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.paths.audit_log()
    }

    /// A client with the administrator's rights.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        crate::target::embedded(&self.paths).await
    }

    async fn runs(&self) -> bool {
        let whole = marker(&self.paths).exists()
            && Self::status(&self.paths)
                .iter()
                .all(|status| status.pid.is_some());
        whole && self.ask_ready().await.is_ok()
    }

    async fn ask_ready(&self) -> Result<()> {
        let request = async {
            let client = self.client().await?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            anyhow::Ok(client.request_text(request).await?)
        };
        tokio::time::timeout(Duration::from_secs(2), request).await??;
        Ok(())
    }

    async fn start(&self, options: &Options, progress: &Progress) -> Result<()> {
        let paths = &self.paths;
        for folder in [
            paths.logs(),
            paths.cluster().join("run"),
            paths.registry(),
            paths.volumes(),
            paths.sockets(),
        ] {
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let families = options.families;
        pki::create(paths, families)?;
        network::create(paths, families)?;
        cgroups::create(paths)?;

        components::etcd(paths)?;
        components::registry(paths)?;
        components::containerd(paths, families)?;
        components::apiserver(paths, families)?;
        progress.step("API server");
        self.wait_for_apiserver(Duration::from_secs(60)).await?;

        // These exit for good when they start before the API server has made its default roles.
        components::controller_manager(paths)?;
        components::scheduler(paths)?;
        components::kubelet(paths, options)?;
        components::proxy(paths, families)?;
        let client = self.client().await?;
        allow_dns(&client).await?;
        storage::create(paths, &client).await?;
        components::dns(paths, families)?;
        progress.step("node and DNS");
        let (node, dns) = tokio::join!(
            self.wait_for_node(client, Duration::from_secs(60)),
            self.wait_for_dns()
        );
        node?;
        dns?;
        // It exits when its node is not there.
        components::network_policies(paths, families)?;
        fs::write(marker(paths), "").context("mark the cluster as whole")
    }

    async fn wait_for_apiserver(&self, deadline: Duration) -> Result<()> {
        self.poll("the API server to be ready", "kube-apiserver", deadline, || {
            self.ask_ready()
        })
        .await
    }

    async fn wait_for_dns(&self) -> Result<()> {
        let address = (self.paths.link().cluster, components::DNS_READY_PORT);
        self.poll(
            "the DNS to be ready",
            "coredns",
            Duration::from_secs(60),
            || async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut stream = tokio::net::TcpStream::connect(address).await?;
                stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n").await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                if !answer.lines().next().unwrap_or_default().contains(" 200 ") {
                    bail!("{}", answer.lines().last().unwrap_or("no answer"));
                }
                Ok(())
            },
        )
        .await
    }

    /// Asks until the answer is good, the process ends, or the time is over.
    async fn poll<F: Future<Output = Result<()>>>(
        &self,
        what: &str,
        process: &str,
        deadline: Duration,
        mut ask: impl FnMut() -> F,
    ) -> Result<()> {
        let since = Instant::now();
        loop {
            let Err(error) = ask().await else { return Ok(()) };
            let log = process::log_file(&self.paths, process);
            if !process::recorded(&self.paths, process).is_some_and(|record| record.alive()) {
                let text = fs::read(&log).unwrap_or_default();
                bail!(
                    "{process} ended; its log {} ends with:\n{}",
                    log.display(),
                    crate::command::last_lines(&text, 8)
                );
            }
            if since.elapsed() > deadline {
                return Err(error.context(format!(
                    "waited {} s for {what}; read {} and run `make up` again",
                    deadline.as_secs(),
                    log.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn wait_for_node(&self, client: Client, deadline: Duration) -> Result<()> {
        let nodes = watcher(Api::<Node>::all(client), watcher::Config::default())
            .default_backoff()
            .applied_objects();
        // The watch recovers from its own errors, so only a node ends the wait, or the deadline.
        let mut ready = nodes
            .filter_map(|node| std::future::ready(node.ok().filter(is_ready)))
            .boxed();
        match tokio::time::timeout(deadline, ready.next()).await {
            Ok(Some(_)) => Ok(()),
            _ => bail!(
                "the node was not Ready after {} s; read {} and {}",
                deadline.as_secs(),
                process::log_file(&self.paths, "kubelet").display(),
                process::log_file(&self.paths, "containerd").display()
            ),
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// CoreDNS reads Services and their endpoints under a user of its own.
async fn allow_dns(client: &Client) -> Result<()> {
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": "fairway:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "namespaces", "pods"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }))?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "fairway:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "fairway:coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "fairway:coredns"}],
    }))?;
    let parameters = PostParams::default();
    Api::all(client.clone())
        .create(&parameters, &role)
        .await
        .context("create the role of the DNS")?;
    Api::all(client.clone())
        .create(&parameters, &binding)
        .await
        .context("bind the role of the DNS")?;
    Ok(())
}

/// Written last by a start that went through, removed first.
fn marker(paths: &Paths) -> PathBuf {
    paths.cluster().join("whole")
}

fn remove(paths: &Paths) -> Result<()> {
    remove_file(&marker(paths))?;
    process::end_all(paths)?;
    let sockets = shim_sockets(paths);
    mounts::unmount_below(&[paths.cluster(), paths.sockets()])?;
    cgroups::remove(paths)?;
    network::remove(paths)?;
    for socket in sockets {
        remove_file(&socket)?;
    }
    remove_matching("/var/lib/cni/results", |entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{}-", paths.name()))
    })?;
    // The kubelet's legacy links to the logs of containers.
    remove_matching("/var/log/containers", |entry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(paths.cluster()))
    })?;
    remove_file(&paths.kubeconfig())?;
    for folder in [paths.sockets(), paths.cluster()] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// containerd's shims listen in a folder that all of containerd's instances share; each task's
/// folder names its socket.
fn shim_sockets(paths: &Paths) -> Vec<PathBuf> {
    let tasks = paths
        .sockets()
        .join("containerd/io.containerd.runtime.v2.task/k8s.io");
    let Ok(tasks) = fs::read_dir(tasks) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("address")).ok())
        .filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from))
        .collect()
}

fn remove_matching(folder: &str, matches: impl Fn(&fs::DirEntry) -> bool) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten().filter(|entry| matches(entry)) {
        remove_file(&entry.path())?;
    }
    Ok(())
}

fn remove_file(path: &std::path::Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Held while the cluster is started or stopped. The kernel frees it with the process that held it.
fn lock(paths: &Paths) -> Result<fs::File> {
    let path = paths.lock();
    let file = fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("another command starts or stops this cluster; waiting for it");
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

fn root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the embedded cluster makes network namespaces and mounts, which needs root: run the command with sudo"
        );
    }
    Ok(())
}

fn preconditions(paths: &Paths) -> Result<()> {
    root()?;
    const PROGRAMS: &[&str] = &[
        "containerd",
        "runc",
        "ip",
        "nsenter",
        "iptables",
        "conntrack",
        "docker-registry",
    ];
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| !process::installed(program))
        .collect();
    if !missing.is_empty() {
        bail!("{missing:?} are not installed; run `make prerequisites`");
    }
    let unbuilt: Vec<_> = components::NAMES
        .iter()
        .filter(|name| crate::tools::BUILT.contains(*name) && !paths.binary(name).exists())
        .collect();
    if !unbuilt.is_empty() {
        bail!("{unbuilt:?} are not built; run `make cluster-binaries`");
    }
    Ok(())
}
