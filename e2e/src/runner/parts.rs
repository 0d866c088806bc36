//! The parts of `make test-long`, each of at most an hour.

use anyhow::{Context, Result};

use super::phases::{Lane, Phase};
use super::test::Tests;

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
    /// Which tests of the phases' lanes these are.
    pub tests: Tests,
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
        proves: "random stories by the thousand keep every promise, with faults at any write; needs no cluster",
        images: &[],
        variables: &[("RANDOM_STORIES", "20000")],
        phases: &[Phase {
            lanes: &[Lane {
                package: "fairway-sim",
                target: "it",
                module: "random::",
                at_once: 2,
            }],
        }],
        tests: Tests::Usual,
    },
    Part {
        name: "kills",
        proves: "a release ends as usual when the operator is killed at every stage, or after each of its writes",
        images: &["fairway-faulty"],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new("operator", "kills::", 1)],
        }],
        tests: Tests::Long,
    },
    Part {
        name: "scale",
        proves: "fifty Apps released at once on one node",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new("operator", "scale::", 1)],
        }],
        tests: Tests::Long,
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
        tests: Tests::Long,
    },
    Part {
        name: "cluster",
        proves: "the embedded cluster starts and goes without a trace after it was killed anywhere",
        images: &[],
        variables: &[],
        phases: &[Phase {
            lanes: &[Lane::new("cluster", "", 1)],
        }],
        tests: Tests::Long,
    },
];
