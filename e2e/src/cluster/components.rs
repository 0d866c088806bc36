//! The command line and configuration of each process of the cluster.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::network::Families;
use super::options::Options;
use super::pki::{self, NODE_NAME};
use super::process;
use crate::paths::Paths;

/// Port at which CoreDNS answers whether it is ready, on the cluster's end of the link.
pub(super) const DNS_READY_PORT: u16 = 8181;

/// Every process by name, in the order in which they are started.
pub(super) const NAMES: &[&str] = &[
    "etcd",
    "registry",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kube-router",
    "coredns",
    "kubelet",
];

/// The database of the control plane. It may lose data with the machine: the cluster does not
/// outlive it, and waiting for the disk would only slow the tests.
pub(super) fn etcd(paths: &Paths) -> Result<()> {
    let data = paths.cluster().join("etcd");
    start_built(
        paths,
        "etcd",
        [
            format!("--data-dir={}", data.display()),
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ],
    )
}

/// The registry of images. Its storage outlives the cluster.
pub(super) fn registry(paths: &Paths) -> Result<()> {
    let config = paths.cluster().join("registry.yaml");
    write_json(
        &config,
        &json!({
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": paths.registry()}, "delete": {"enabled": true}},
            "http": {"addr": ":5000"},
        }),
    )?;
    process::start(
        paths,
        "registry",
        &[
            "docker-registry".into(),
            "serve".into(),
            config.display().to_string(),
        ],
        &[],
    )
}

/// The container runtime, with folders, sockets and networks of its own.
pub(super) fn containerd(paths: &Paths, families: Families) -> Result<()> {
    let folder = paths.cluster().join("containerd");
    let networks = folder.join("cni");
    let registries = folder.join("registries");
    let registry = registries.join(paths.registry_host());
    for folder in [&networks, &registry] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    write_json(&networks.join("10-bridge.conflist"), &cni(paths, families))?;
    let url = format!("http://{}", paths.registry_host());
    fs::write(
        registry.join("hosts.toml"),
        format!("server = \"{url}\"\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"),
    )?;
    let config = folder.join("config.toml");
    fs::write(
        &config,
        format!(
            r#"version = 2
root = "{folder}/root"
state = "{sockets}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{registry}/pause:1"
  # Without CAP_SYS_RESOURCE a lower score than the parent's cannot be set, and no pod would start.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  max_concurrent_downloads = 8
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{networks}"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{registries}"
"#,
            folder = folder.display(),
            sockets = paths.sockets().display(),
            socket = containerd_socket(paths),
            registry = paths.registry_host(),
            networks = networks.display(),
            registries = registries.display(),
        ),
    )
    .with_context(|| format!("write {}", config.display()))?;
    process::start(
        paths,
        "containerd",
        &[
            "containerd".into(),
            "--config".into(),
            config.display().to_string(),
        ],
        &[],
    )
}

fn cni(paths: &Paths, families: Families) -> Value {
    let all = families.all().iter();
    let ranges: Vec<_> = all
        .clone()
        .map(|family| json!([{"subnet": family.pods}]))
        .collect();
    let routes: Vec<_> = all.map(|family| json!({"dst": family.everywhere})).collect();
    json!({
        "cniVersion": "0.4.0",
        "name": paths.name(),
        "plugins": [
            {
                "type": "bridge",
                "bridge": super::network::BRIDGE,
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": ranges,
                    "routes": routes,
                    "dataDir": paths.cluster().join("addresses"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// The API server, with an audit log of who asked for what.
pub(super) fn apiserver(paths: &Paths, families: Families) -> Result<()> {
    let policy = paths.cluster().join("audit-policy.yaml");
    write_json(
        &policy,
        &json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata"}],
        }),
    )?;
    start_built(
        paths,
        "kube-apiserver",
        [
            "--etcd-servers=http://127.0.0.1:2379".into(),
            "--secure-port=6443".into(),
            format!("--bind-address={}", families.any()),
            format!("--advertise-address={}", families.first().node),
            format!(
                "--service-cluster-ip-range={}",
                families.joined(|family| family.services)
            ),
            // So that a test can inject containers into pods without a webhook of its own.
            "--feature-gates=MutatingAdmissionPolicy=true".into(),
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true".into(),
            format!("--tls-cert-file={}", pki::file(paths, "kube-apiserver.crt")),
            format!(
                "--tls-private-key-file={}",
                pki::file(paths, "kube-apiserver.key")
            ),
            format!("--client-ca-file={}", pki::file(paths, "ca.crt")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!(
                "--service-account-key-file={}",
                pki::file(paths, "service-accounts.pub")
            ),
            format!(
                "--service-account-signing-key-file={}",
                pki::file(paths, "service-accounts.key")
            ),
            format!("--kubelet-certificate-authority={}", pki::file(paths, "ca.crt")),
            format!(
                "--kubelet-client-certificate={}",
                pki::file(paths, "kube-apiserver-to-kubelet.crt")
            ),
            format!(
                "--kubelet-client-key={}",
                pki::file(paths, "kube-apiserver-to-kubelet.key")
            ),
            // The node's name has no address in any DNS that the API server asks.
            "--kubelet-preferred-address-types=InternalIP".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            "--profiling=false".into(),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", paths.audit_log().display()),
            "--audit-log-maxsize=10000".into(),
        ],
    )
}

/// The controllers of Kubernetes. Their default of 20 requests a second would make a test of many
/// Apps measure this limit.
pub(super) fn controller_manager(paths: &Paths) -> Result<()> {
    start_built(
        paths,
        "kube-controller-manager",
        [
            format!(
                "--kubeconfig={}",
                pki::kubeconfig(paths, "kube-controller-manager")
            ),
            format!(
                "--authentication-kubeconfig={}",
                pki::kubeconfig(paths, "kube-controller-manager")
            ),
            format!(
                "--authorization-kubeconfig={}",
                pki::kubeconfig(paths, "kube-controller-manager")
            ),
            format!("--root-ca-file={}", pki::file(paths, "ca.crt")),
            format!(
                "--service-account-private-key-file={}",
                pki::file(paths, "service-accounts.key")
            ),
            "--use-service-account-credentials=true".into(),
            "--bind-address=127.0.0.1".into(),
            "--leader-elect=false".into(),
            "--kube-api-qps=500".into(),
            "--kube-api-burst=1000".into(),
        ],
    )
}

/// The scheduler.
pub(super) fn scheduler(paths: &Paths) -> Result<()> {
    let config = paths.cluster().join("kube-scheduler.yaml");
    write_json(
        &config,
        &json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": pki::kubeconfig(paths, "kube-scheduler"), "qps": 500, "burst": 1000},
            "leaderElection": {"leaderElect": false},
        }),
    )?;
    start_built(
        paths,
        "kube-scheduler",
        [
            format!("--config={}", config.display()),
            "--bind-address=127.0.0.1".into(),
        ],
    )
}

/// What makes Services reach pods.
pub(super) fn proxy(paths: &Paths, families: Families) -> Result<()> {
    let config = paths.cluster().join("kube-proxy.yaml");
    write_json(
        &config,
        &json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": families.joined(|family| family.pods),
            "hostnameOverride": NODE_NAME,
            "bindAddress": families.any(),
            "metricsBindAddress": "127.0.0.1:10249",
            "clientConnection": {"kubeconfig": pki::kubeconfig(paths, "kube-proxy"), "qps": 500, "burst": 1000},
            // The machine's limits are not ours to change.
            "conntrack": {"maxPerCore": 0},
        }),
    )?;
    start_built(paths, "kube-proxy", [format!("--config={}", config.display())])
}

/// What enforces NetworkPolicies, by the firewall of the cluster's network namespace. Connections from the node itself
/// always pass, as the kubelet's have to.
pub(super) fn network_policies(paths: &Paths, families: Families) -> Result<()> {
    start_built(
        paths,
        "kube-router",
        [
            format!("--kubeconfig={}", pki::kubeconfig(paths, "admin")),
            "--run-firewall=true".into(),
            "--run-router=false".into(),
            "--run-service-proxy=false".into(),
            "--enable-cni=false".into(),
            format!("--hostname-override={NODE_NAME}"),
            format!(
                "--service-cluster-ip-range={}",
                families.joined(|family| family.services)
            ),
            format!("--enable-ipv4={}", families != Families::V6),
            format!("--enable-ipv6={}", families != Families::V4),
            "--health-port=0".into(),
            "--metrics-port=0".into(),
        ],
    )
}

/// The cluster's DNS, as a process on the node's addresses. Names outside the cluster do not exist.
pub(super) fn dns(paths: &Paths, families: Families) -> Result<()> {
    let all = families.all().iter();
    let nodes: Vec<_> = all.clone().map(|family| family.node).collect();
    let zones: Vec<_> = all.map(|family| family.zone).collect();
    let config = paths.cluster().join("Corefile");
    fs::write(
        &config,
        format!(
            ".:53 {{\n  bind {nodes}\n  errors\n  ready {ready}:{DNS_READY_PORT}\n  kubernetes cluster.local {zones} {{\n    \
             kubeconfig {kubeconfig}\n    pods insecure\n    ttl 1\n  }}\n  template ANY ANY {{\n    rcode NXDOMAIN\n  }}\n}}\n",
            nodes = nodes.join(" "),
            zones = zones.join(" "),
            ready = paths.link().cluster,
            kubeconfig = pki::kubeconfig(paths, "coredns"),
        ),
    )
    .with_context(|| format!("write {}", config.display()))?;
    start_built(paths, "coredns", [format!("-conf={}", config.display())])
}

/// The node.
pub(super) fn kubelet(paths: &Paths, options: &Options) -> Result<()> {
    let families = options.families;
    let folder = paths.cluster().join("kubelet");
    fs::create_dir_all(&folder)?;
    let config = paths.cluster().join("kubelet.yaml");
    write_json(
        &config,
        &json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": families.any(),
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": pki::file(paths, "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki::file(paths, "kubelet-serving.crt"),
            "tlsPrivateKeyFile": pki::file(paths, "kubelet-serving.key"),
            "containerRuntimeEndpoint": format!("unix://{}", containerd_socket(paths)),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", paths.name()),
            "clusterDNS": [families.first().node],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "failSwapOn": false,
            // The disk is shared with everything else on the machine, so its fill says nothing.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "maxPods": options.max_pods,
            "podLogsDir": paths.cluster().join("pods").display().to_string(),
            "serializeImagePulls": false,
            "registryPullQPS": 0,
            "registryBurst": 0,
            "eventRecordQPS": 0,
            "kubeAPIQPS": 500,
            "kubeAPIBurst": 1000,
            "nodeStatusUpdateFrequency": "4s",
            "healthzBindAddress": "127.0.0.1",
        }),
    )?;
    start_built(
        paths,
        "kubelet",
        [
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", pki::kubeconfig(paths, "kubelet")),
            format!("--root-dir={}", folder.display()),
            format!("--cert-dir={}", folder.join("pki").display()),
            format!("--hostname-override={NODE_NAME}"),
            format!("--node-ip={}", families.joined(|family| family.node)),
        ],
    )
}

fn containerd_socket(paths: &Paths) -> String {
    paths.sockets().join("containerd.sock").display().to_string()
}

/// What the programs of Kubernetes get in their environment. They are written in Go, which by default collects garbage
/// whenever a small heap has doubled: on a node with two processors that is a large part of what the API server does.
///
/// The limit is one that Go obeys at the price of time, so that it must be out of reach of a node that has run tests
/// for an hour: the API server's objects and their last versions have filled a gigabyte by then.
#[must_use]
pub fn memory_for_time() -> [(&'static str, String); 2] {
    let machine = rustix::system::sysinfo();
    let bytes = u64::from(machine.mem_unit) * machine.totalram;
    let limit = (bytes / GIBIBYTE / 4).max(1);
    [("GOGC", "400".to_owned()), ("GOMEMLIMIT", format!("{limit}GiB"))]
}

const GIBIBYTE: u64 = 1 << 30;

fn start_built<const N: usize>(paths: &Paths, name: &str, arguments: [String; N]) -> Result<()> {
    let program = paths.binary(name).display().to_string();
    let command: Vec<String> = std::iter::once(program).chain(arguments).collect();
    let environment = memory_for_time();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    process::start(paths, name, &command, &environment)
}

/// JSON is YAML, so every component reads it.
fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).with_context(|| format!("write {}", path.display()))
}
