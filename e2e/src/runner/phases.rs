//! Which tests run beside each other. What a test does to what all of them share decides its phase.

use super::test::Test;

/// TestSet of one target that run beside each other, and beside those of the phase's other lanes.
#[derive(Debug)]
pub struct Lane {
    /// The package that the target belongs to.
    pub package: &'static str,
    /// The test target: a file or folder below `tests`.
    pub target: &'static str,
    /// Beginning of the names of the tests, with their module. A test runs in the lane with the longest that fits.
    pub module: &'static str,
    /// Most tests of this lane at a time.
    pub at_once: usize,
}

impl Lane {
    pub(super) const fn new(target: &'static str, module: &'static str, at_once: usize) -> Self {
        Self {
            package: "fairway-e2e",
            target,
            module,
            at_once,
        }
    }

    pub(super) fn is_for(&self, test: &Test) -> bool {
        self.package == test.package && self.target == test.target && test.name.starts_with(self.module)
    }
}

/// Lanes that run at the same time; the next phase begins when all their tests have ended.
#[derive(Debug)]
pub struct Phase {
    /// The lanes.
    pub lanes: &'static [Lane],
}

/// The tests of `make test`.
pub const TESTS: &[Phase] = &[
    // `existing` uninstalls Fairway and installs it again; `cluster` starts other clusters. The agent's tests need none.
    Phase {
        lanes: &[
            Lane::new("existing", "", 1),
            Lane::new("cluster", "", 1),
            Lane {
                package: "fairway-agent",
                target: "stores",
                module: "",
                at_once: 1,
            },
        ],
    },
    // The operator is killed, and each of these tests expects it at any moment.
    Phase {
        lanes: &[Lane::new("operator", "", 8)],
    },
    // The number of operators changes, or who of them leads.
    Phase {
        lanes: &[Lane::new("operator", "alone::", 1)],
    },
    // One operator works undisturbed. Most of the time these tests wait for pods.
    Phase {
        lanes: &[
            Lane::new("stories", "", 8),
            Lane::new("harness", "", 1),
            Lane::new("applications", "", 1),
            Lane::new("admission", "", 1),
        ],
    },
    // Four servers of Node.js and their clients fill two processors: a request that waits for one is a request that
    // fails.
    Phase {
        lanes: &[Lane::new("unleash", "", 1)],
    },
    // Last, when the operator has done all that it does.
    Phase {
        lanes: &[Lane::new("stories", "audit::", 1)],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::parts::PARTS;
    use super::super::test::TestSet;
    use super::*;
    use crate::paths::repository;

    #[test]
    fn every_test_target_runs_in_a_phase() {
        let manifest = std::fs::read_to_string(repository().join("e2e/Cargo.toml")).unwrap();
        let tests = manifest.split("[[test]]").skip(1);
        let targets: BTreeSet<_> = tests
            .map(|test| test.split('"').nth(1).unwrap_or_default())
            .collect();
        let phases = TESTS.iter().chain(PARTS.iter().flat_map(|part| part.phases));
        let lanes = phases.flat_map(|phase| phase.lanes);
        let own = lanes.filter(|lane| lane.package == env!("CARGO_PKG_NAME"));
        let run: BTreeSet<_> = own.map(|lane| lane.target).collect();
        assert_eq!(targets, run);
    }

    #[test]
    fn a_test_runs_in_the_lane_of_its_module() {
        let test = |name: &str| Test {
            package: "fairway-e2e",
            target: "operator",
            name: name.to_owned(),
            set: TestSet::Usual,
        };
        let phase = |name: &str| super::super::place(TESTS, &test(name)).map(|place| place.phase);
        assert_eq!(phase("kills::one"), Some(1));
        assert_eq!(phase("alone::leader::one"), Some(2));
    }
}
