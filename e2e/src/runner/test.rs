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
    /// The set of tests that the test belongs to.
    pub(super) set: TestSet,
}

impl Test {
    /// Whether the test is one of this package: of other packages, a part of `make test-long` runs those that it names.
    pub(super) fn is_of_e2e(&self) -> bool {
        self.package == env!("CARGO_PKG_NAME")
    }

    /// Name with the target, which is unique.
    pub(super) fn full_name(&self) -> String {
        format!("{}::{}", self.target, self.name)
    }
}

/// A set of tests, by what runs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TestSet {
    /// `make test` runs the test.
    #[default]
    Usual,
    /// `make test` does not run the test, which is marked `#[ignore = "make test-long PART=…"]`.
    Long,
}
