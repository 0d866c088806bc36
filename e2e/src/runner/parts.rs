//! The parts of `make test-long`, each of at most an hour.

use std::time::Duration;

use anyhow::{Context, Result};

use super::phases::{Lane, Phase};
use super::test::TestSet;

/// Longest that a part may take, and so each of its tests.
pub const LIMIT: Duration = Duration::from_hours(1);

/// A part, run by `make test-long PART=name`.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What it proves.
    pub proves: &'static str,
    /// Images that only this part needs.
    pub images: &'static [&'static str],
    /// Variables that its tests find in their environment.
    pub variables: &'static [(&'static str, &'static str)],
    /// Its tests.
    pub phases: &'static [Phase],
    /// Which set of tests in the phases' lanes it runs.
    pub set: TestSet,
}

/// The part of this name.
///
/// # Errors
/// When there is none; the error names those that there are.
pub fn named(name: &str) -> Result<&'static Part> {
    let part = PARTS.iter().find(|part| part.name == name);
    part.with_context(|| {
        let names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        format!("there is no part {name}; there are: {}", names.join(", "))
    })
}

/// Every part.
pub const PARTS: &[Part] = &[
    Part {
        name: "simulator",
        proves: "millions of passes in random stories that edit, delete and refuse everything, and each golden story with a fault at every write, keep every promise; needs no cluster",
        images: &[],
        variables: &[("RANDOM_STORIES", "20000"), ("FAULT_STRIDE", "1")],
        phases: &[Phase {
            lanes: &[Lane {
                package: "fairway-sim",
                target: "it",
                module: "",
                at_once: 2,
            }],
        }],
        set: TestSet::Usual,
    },
    Part {
        name: "fuzz",
        proves: "nothing that others write breaks what reads it, for two minutes of libFuzzer a target; needs no cluster",
        images: &[],
        variables: &[],
        phases: &[Phase {
            // Each builds what it runs, and only one can build at a time.
            lanes: &[Lane::new("fuzz", "", 2)],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "kills",
        proves: "a release ends as usual when the operator is killed at every stage, or after each of its writes",
        images: &["fairway-faulty"],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new("operator", "kills::", 1)],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "scale",
        proves: "fifty Apps released at once on one node",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new("operator", "scale::", 1)],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "applications",
        proves: "the demo as tests: Unleash that migrates itself, CRM, and all of it on a cluster that the user names",
        images: &[],
        variables: &[],
        phases: &[
            Phase {
                lanes: &[Lane::new("unleash", "", 1)],
            },
            Phase {
                lanes: &[Lane::new("stories", "crm::", 1)],
            },
            Phase {
                lanes: &[Lane::new("existing", "", 1)],
            },
        ],
        set: TestSet::Long,
    },
    Part {
        name: "arm64",
        proves: "binaries for arm64, built here, do under user emulation what the agent's tests ask; needs no cluster",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new("arm64", "", 1)],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "versions",
        proves: "an agent and the build of its next version use one ledger in turn, and understand or refuse each other; needs no cluster",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane {
                package: "fairway-agent",
                target: "agent",
                module: "versions::",
                at_once: 1,
            }],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "databases",
        proves: "ten thousand tables are backed up in little memory, and what is called too large is too large; needs no cluster",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane {
                package: "fairway-agent",
                target: "agent",
                module: "databases::",
                at_once: 1,
            }],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "cluster",
        proves: "the embedded cluster starts and goes without a trace after it was killed anywhere",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new("cluster", "", 1)],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "ipv6",
        proves: "a release with database, backup, probes and rollback in a cluster with IPv6 alone",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new(
                "families",
                "f12_release_succeeds_in_a_cluster_with_ipv6_alone",
                1,
            )],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "dual-stack",
        proves: "the same in a cluster with IPv4 and IPv6, by a Service that prefers IPv6",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new(
                "families",
                "f12_release_succeeds_in_a_dual_stack_cluster",
                1,
            )],
        }],
        set: TestSet::Long,
    },
    Part {
        name: "volumes",
        proves: "claims of the provisioner of k3s, shared by two versions on one node and used for backups",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new("stories", "provisioned::", 1)],
        }],
        set: TestSet::Long,
    },
];
