//! The chart as it is installed.

use anyhow::Result;
use fairway_e2e::install;
use fairway_e2e::target::Target;

/// `helm test` asks the operator through its Service, from a pod under the restricted profile.
#[test]
fn its_own_test_passes() -> Result<()> {
    install::test(&Target::from_env()?)
}
