//! Where a checkout's cluster lives, and the names and addresses derived from that place.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Everything that is named after the state folder, so that the clusters of two checkouts on one
/// machine share nothing: folders, network namespace, link names, addresses, cgroup.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
    id: String,
    link: LinkAddresses,
}

/// The two ends of the link between the machine and the cluster's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddresses {
    /// The machine's end.
    pub machine: Ipv4Addr,
    /// The cluster's end: the API server and the registry answer here.
    pub cluster: Ipv4Addr,
}

impl Paths {
    /// The state folder named by `FAIRWAY_E2E_DIR`, or `.e2e` in the repository.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn from_env() -> Result<Self> {
        let root = match std::env::var_os("FAIRWAY_E2E_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => repository().join(".e2e"),
        };
        std::fs::create_dir_all(&root)
            .with_context(|| format!("create the state folder {}", root.display()))?;
        let root = root
            .canonicalize()
            .with_context(|| format!("resolve the state folder {}", root.display()))?;
        Ok(Self::at(root))
    }

    /// The names and addresses for one state folder, which must be an absolute path.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
        let id = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        // 169.254.0.0/24 and 169.254.255.0/24 are reserved by RFC 3927.
        let third = 1 + hash[4] % 254;
        let fourth = hash[5] & !3;
        let link = LinkAddresses {
            machine: Ipv4Addr::new(169, 254, third, fourth | 1),
            cluster: Ipv4Addr::new(169, 254, third, fourth | 2),
        };
        Self { root, id, link }
    }

    /// The state folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The built control plane and Helm.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// One built binary.
    #[must_use]
    pub fn binary(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// Inputs of images that take long to fetch: npm packages, root file systems.
    #[must_use]
    pub fn build(&self) -> PathBuf {
        self.root.join("build")
    }

    /// One OCI archive and one record for each image.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The storage of the cluster's registry; it outlives the cluster.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.root.join("registry")
    }

    /// State of the running cluster; gone after `down`.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// Logs of the control plane, one file for each process.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.cluster().join("logs")
    }

    /// The API server's audit log, one JSON event a line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.cluster().join("audit.log")
    }

    /// Folders on the node that back the volumes of tests.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.cluster().join("volumes")
    }

    /// A kubeconfig that works from the machine, with the administrator's certificate.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Held by the process that builds programs.
    #[must_use]
    pub fn build_lock(&self) -> PathBuf {
        self.root.join("build-lock")
    }

    /// Held by the process that starts or stops the cluster.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Held by each test that works on the cluster, alone or with others.
    #[must_use]
    pub fn tests_lock(&self) -> PathBuf {
        self.root.join("tests-lock")
    }

    /// Held by the test that kills the operator, until it works again.
    #[must_use]
    pub fn operator_lock(&self) -> PathBuf {
        self.root.join("operator-lock")
    }

    /// Sockets: their paths may be 107 bytes long at most, so they do not live in the checkout.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        PathBuf::from("/run").join(self.name())
    }

    /// The name of the network namespace, the cgroup and the CNI network.
    #[must_use]
    pub fn name(&self) -> String {
        format!("fairway-{}", self.id)
    }

    /// The mounted network namespace.
    #[must_use]
    pub fn network_namespace(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.name())
    }

    /// The machine's end of the link; names of links are 15 bytes at most.
    #[must_use]
    pub fn machine_link(&self) -> String {
        format!("fw{}m", self.id)
    }

    /// The cluster's end of the link.
    #[must_use]
    pub fn cluster_link(&self) -> String {
        format!("fw{}c", self.id)
    }

    /// Addresses of both ends of the link.
    #[must_use]
    pub fn link(&self) -> LinkAddresses {
        self.link
    }

    /// The registry's name, the same for the machine that pushes and the node that pulls.
    #[must_use]
    pub fn registry_host(&self) -> String {
        format!("{}:5000", self.link.cluster)
    }
}

/// The repository's root folder.
#[must_use]
pub fn repository() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.ancestors().nth(2).unwrap_or(tools).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_checkouts_share_no_name_and_no_address() {
        let one = Paths::at("/home/a/fairway/.e2e".into());
        let other = Paths::at("/home/b/fairway/.e2e".into());
        assert_ne!(one.name(), other.name());
        assert_ne!(one.machine_link(), other.machine_link());
        assert_ne!(one.link(), other.link());
    }

    #[test]
    fn the_repository_is_the_folder_of_the_workspace() {
        let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"), "{manifest}");
    }

    #[test]
    fn link_names_fit_the_kernels_limit() {
        let paths = Paths::at("/a".into());
        assert!(paths.machine_link().len() <= 15);
        assert!(paths.cluster_link().len() <= 15);
    }

    #[test]
    fn both_ends_of_the_link_lie_in_one_subnet_of_four() {
        for name in ["/a", "/b", "/c", "/d"] {
            let link = Paths::at(name.into()).link();
            let (machine, cluster) = (u32::from(link.machine), u32::from(link.cluster));
            assert_eq!(machine >> 2, cluster >> 2);
            assert_eq!((machine & 3, cluster & 3), (1, 2));
        }
    }
}
