//! The cluster's own network namespace: nothing that the cluster or a test sends leaves it, except
//! over one link to the machine that it runs on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::command::run;
use crate::paths::Paths;

/// Which families of addresses a cluster has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// IPv4 alone.
    #[default]
    V4,
    /// IPv6 alone. The link to the machine has IPv4 addresses all the same: pods see nothing of it.
    V6,
    /// Both, IPv4 first.
    Dual,
}

/// The addresses of one family.
#[derive(Debug)]
pub struct Family {
    /// The node's address, from the range reserved for documentation (RFC 5737, RFC 3849).
    pub node: &'static str,
    /// Length of the prefix of the node's network.
    pub node_prefix: u8,
    /// Addresses of pods; all of them belong to the one node.
    pub pods: &'static str,
    /// Addresses of Services.
    pub services: &'static str,
    /// Address of the Service `kubernetes`.
    pub api_service: &'static str,
    /// The destination of a route to everywhere.
    pub everywhere: &'static str,
    /// The zone of its addresses in DNS.
    pub zone: &'static str,
    /// The arguments of `ip`.
    option: &'static str,
    /// What to switch on: forwarding, and that the answers between two pods of one bridge pass kube-proxy's address
    /// translation.
    switches: [&'static str; 2],
}

const V4: Family = Family {
    node: "192.0.2.10",
    node_prefix: 24,
    pods: "10.244.0.0/16",
    services: "10.96.0.0/16",
    api_service: "10.96.0.1",
    everywhere: "0.0.0.0/0",
    zone: "in-addr.arpa",
    option: "-4",
    switches: ["net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"],
};

const V6: Family = Family {
    node: "2001:db8::10",
    node_prefix: 64,
    pods: "fd00:10:244::/64",
    services: "fd00:10:96::/112",
    api_service: "fd00:10:96::1",
    everywhere: "::/0",
    zone: "ip6.arpa",
    option: "-6",
    switches: [
        "net/ipv6/conf/all/forwarding",
        "net/bridge/bridge-nf-call-ip6tables",
    ],
};

impl Families {
    /// Each family, the one that is used without a choice first.
    #[must_use]
    pub fn all(self) -> &'static [&'static Family] {
        match self {
            Self::V4 => &[&V4],
            Self::V6 => &[&V6],
            Self::Dual => &[&V4, &V6],
        }
    }

    /// The family that is used without a choice.
    #[must_use]
    pub fn first(self) -> &'static Family {
        match self {
            Self::V4 | Self::Dual => &V4,
            Self::V6 => &V6,
        }
    }

    /// Something of each family, separated by commas.
    #[must_use]
    pub fn joined(self, part: impl Fn(&Family) -> &'static str) -> String {
        let parts: Vec<_> = self.all().iter().map(|family| part(family)).collect();
        parts.join(",")
    }

    /// The address on which a server listens that all of these families reach, and the machine over the link.
    #[must_use]
    pub fn any(self) -> &'static str {
        match self {
            Self::V4 => "0.0.0.0",
            Self::V6 | Self::Dual => "::",
        }
    }
}

/// An address as it stands in a URL.
#[must_use]
pub fn in_url(address: &str) -> String {
    match address.contains(':') {
        true => format!("[{address}]"),
        false => address.to_owned(),
    }
}

/// The bridge to which the pods are connected; the CNI plugin makes it.
pub(super) const BRIDGE: &str = "cni0";

/// Makes the namespace and its links.
pub(super) fn create(paths: &Paths, families: Families) -> Result<()> {
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
    // An empty bridge carries the node's addresses. The default route points at it so that traffic of
    // the host network to a Service has a route before kube-proxy rewrites its destination.
    inside(&["link", "add", "node0", "type", "bridge"])?;
    inside(&["link", "set", "node0", "up"])?;
    if !Path::new("/proc/sys/net/bridge").exists() {
        run(Command::new("modprobe").arg("br_netfilter")).context(
            "load the kernel module br_netfilter, which kube-proxy needs to see traffic between pods",
        )?;
    }
    for family in families.all() {
        let inside = |arguments: &[&str]| {
            let arguments = [&[family.option], arguments].concat();
            inside(&arguments)
        };
        let address = format!("{}/{}", family.node, family.node_prefix);
        match family.option {
            // Nobody answers on the empty bridge, so that the address would be tentative for good.
            "-6" => inside(&["address", "add", &address, "dev", "node0", "nodad"])?,
            _ => inside(&["address", "add", &address, "dev", "node0"])?,
        };
        inside(&["route", "add", "default", "dev", "node0"])?;
        // What a pod sends to a Service that kube-proxy has not heard of yet is refused at once. With the default
        // route it would be waited for without an answer, and connection tracking would remember it for two minutes: a
        // later connection from the same port would fail as well, however well the Service works by then.
        inside(&["rule", "add", "iif", BRIDGE, "to", family.services, "unreachable"])?;
        for switch in family.switches {
            enable(paths, switch)?;
        }
    }
    Ok(())
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
