//! One test of a test target, and whether `make test` runs it.

/// One test of a test target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// The package of the test target.
    pub(super) package: &'static str,
    /// The test target that holds the test.
    pub(super) target: &'static str,
    /// Name within the target, with its modules.
    pub(super) name: String,
    /// Whether `make test` runs the test.
    pub(super) tests: Tests,
}

impl Test {
    /// Name with the target, which is unique.
    pub(super) fn full_name(&self) -> String {
        format!("{}::{}", self.target, self.name)
    }
}

/// Whether `make test` runs a test too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tests {
    /// `make test` runs the test.
    #[default]
    Usual,
    /// `make test` does not run the test, which is marked `#[ignore = "make test-long PART=…"]`.
    Long,
}
