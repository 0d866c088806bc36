//! The cluster's own network namespace: nothing that the cluster or a test sends leaves it, except
//! over one link to the machine that it runs on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::run;
use crate::paths::Paths;

/// The node's address, from the range reserved for documentation (RFC 5737).
pub const NODE_ADDRESS: &str = "192.0.2.10";
/// Addresses of pods; all of them belong to the one node.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// Addresses of Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The bridge to which the pods are connected; the CNI plugin makes it.
pub(super) const BRIDGE: &str = "cni0";
/// The address of the Service `kubernetes`.
pub const API_SERVICE_ADDRESS: &str = "10.96.0.1";

/// Makes the namespace and its links.
pub(super) fn create(paths: &Paths) -> Result<()> {
    let name = paths.name();
    let (machine_link, cluster_link) = (paths.machine_link(), paths.cluster_link());
    let link = paths.link();

    run(Command::new("ip").args(["netns", "add", &name]))?;
    run(Command::new("ip").args([
        "link",
        "add",
        &machine_link,
        "type",
        "veth",
        "peer",
        "name",
        &cluster_link,
        "netns",
        &name,
    ]))?;
    run(Command::new("ip").args([
        "address",
        "add",
        &format!("{}/30", link.machine),
        "dev",
        &machine_link,
    ]))?;
    run(Command::new("ip").args(["link", "set", &machine_link, "up"]))?;

    let inside = |arguments: &[&str]| run(Command::new("ip").args(["-n", &name]).args(arguments));
    inside(&["link", "set", "lo", "up"])?;
    inside(&[
        "address",
        "add",
        &format!("{}/30", link.cluster),
        "dev",
        &cluster_link,
    ])?;
    inside(&["link", "set", &cluster_link, "up"])?;
    // An empty bridge carries the node's address. The default route points at it so that traffic of
    // the host network to a Service has a route before kube-proxy rewrites its destination.
    inside(&["link", "add", "node0", "type", "bridge"])?;
    inside(&["address", "add", &format!("{NODE_ADDRESS}/24"), "dev", "node0"])?;
    inside(&["link", "set", "node0", "up"])?;
    inside(&["route", "add", "default", "dev", "node0"])?;
    // What a pod sends to a Service that kube-proxy has not heard of yet is refused at once. With the default
    // route it would be waited for without an answer, and connection tracking would remember it for two minutes: a later
    // connection from the same port would fail as well, however well the Service works by then.
    inside(&["rule", "add", "iif", BRIDGE, "to", SERVICE_RANGE, "unreachable"])?;

    enable(paths, "net/ipv4/ip_forward")?;
    if !Path::new("/proc/sys/net/bridge").exists() {
        run(Command::new("modprobe").arg("br_netfilter")).context(
            "load the kernel module br_netfilter, which kube-proxy needs to see traffic between pods",
        )?;
    }
    // Without it the answers between two pods of one bridge bypass kube-proxy's address translation.
    enable(paths, "net/bridge/bridge-nf-call-iptables")
}

/// Whether the namespace exists.
pub(super) fn exists(paths: &Paths) -> bool {
    paths.network_namespace().exists()
}

/// Removes the namespace and its links, whatever of them there is.
pub(super) fn remove(paths: &Paths) -> Result<()> {
    let link = paths.machine_link();
    if Path::new("/sys/class/net").join(&link).exists() {
        run(Command::new("ip").args(["link", "delete", &link]))?;
    }
    if exists(paths) {
        run(Command::new("ip").args(["netns", "delete", &paths.name()]))?;
    }
    Ok(())
}

/// A command that will run inside the namespace.
///
/// `nsenter` and not `ip netns exec`: the latter mounts another /sys and so hides the cgroups.
#[must_use]
pub fn inside(paths: &Paths, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", paths.network_namespace().display()))
        .arg("--")
        .arg(program);
    command
}

fn enable(paths: &Paths, key: &str) -> Result<()> {
    // /proc/sys/net shows the namespace of the process that opens the file.
    let file = format!("/proc/sys/{key}");
    let mut command = inside(paths, "dd");
    command.arg(format!("of={file}")).arg("status=none");
    let output = crate::command::feed(command, b"1")?;
    if !output.status.success() {
        bail!(
            "set {key} in the cluster's network namespace: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
